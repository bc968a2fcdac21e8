"""Records: rows of features that carry their label in one of their columns."""

from __future__ import annotations

from hashlib import blake2b
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._rows import check_rows, is_dataframe, plain_rows


class Records:
    """Rows under audit, taken apart into what the target gets and what it should say.

    Parameters
    ----------
    rows : {ndarray, DataFrame} of shape (n_records, n_columns)
        Validated records.
    label_column : int, str or None
        Where the label is; None where records have none.
    classes : ndarray of shape (n_classes,) or None
        The labels that the target knows; None of a regressor, whose labels are numbers.

    Attributes
    ----------
    rows : {ndarray, DataFrame} of shape (n_records, n_columns)
        The records.
    features : {ndarray, DataFrame} of shape (n_records, n_features)
        The records without their label, as the target is to be asked about them.
    classes : ndarray of shape (n_classes,) or None
        As given.
    codes : ndarray of int, shape (n_records,), or None
        Labels as positions in `classes`; None until they are set, where there is no
        label column, and of a regressor.
    values : ndarray of float, shape (n_records,), or None
        Labels as numbers, of a regressor.

    Raises
    ------
    ValueError
        If the column does not exist or holds labels that the target does not know, or
        that are no numbers where it is a regressor.
    """

    def __init__(self, rows, label_column, classes):
        self.rows = rows
        self.classes = classes
        self.codes = self.values = None
        if label_column is None:
            self.features = rows
            return
        if rows.shape[1] < 2:
            raise ValueError(
                f"Records have n_features={rows.shape[1]} column(s): a label and nothing "
                "else. Set label_column=None for rows without labels."
            )
        position = column_position(rows, label_column)
        labels = _column(rows, position)
        self.features = _drop(rows, position)
        if classes is None:
            self.values = _numbers(labels, label_column)
            return
        # A dict compares labels of any types, which an order does not.
        position_of = {label: code for code, label in enumerate(classes.tolist())}
        codes = np.array([position_of.get(label, -1) for label in labels.tolist()], int)
        if (codes < 0).any():
            found = list(dict.fromkeys(labels[codes < 0].tolist()))[:3]
            raise ValueError(
                f"label_column={label_column!r} of the records holds {found}, which the "
                f"target does not know; its classes are {classes[:5].tolist()}"
                f"{'...' if len(classes) > 5 else ''}. Name the column that has the "
                "label, or set label_column=None for rows without labels."
            )
        self.codes = codes

    def __len__(self):
        return len(self.rows)

    @property
    def labels(self):
        """The labels as the target was trained on them."""
        return self.values if self.classes is None else self.classes[self.codes]

    def collide(self):
        """Whether records that differ, such as times in seconds, are one in float32."""
        return len(set(self.keys(single=True))) < len(set(self.keys(single=False)))

    def keys(self, single=True):
        """Return a digest of each record, by which it is recognised.

        Parameters
        ----------
        single : bool, default=True
            Whether numbers count in single precision, so that a record is the same in any
            dtype.
        """
        comparable = _single if single else _double
        if is_dataframe(self.rows):
            import pandas as pd

            columns = (self.rows.iloc[:, j] for j in range(self.rows.shape[1]))
            columns = [
                comparable(column.to_numpy(np.float64, na_value=np.nan))
                if pd.api.types.is_numeric_dtype(column.dtype)
                else column.array
                for column in columns
            ]
            rows = pd.DataFrame(dict(enumerate(columns)))
            return pd.util.hash_pandas_object(rows, index=False).tolist()
        rows = np.ascontiguousarray(comparable(self.rows))
        return [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _single(values):
    with np.errstate(over="ignore"):
        return values.astype(np.float32) + np.float32(0)  # no -0.0


def _double(values):
    return values.astype(np.float64) + 0.0


def column_position(rows, column, parameter="label_column"):
    """Return the position of a column that a parameter gives by name or position."""
    if isinstance(column, str):
        if not is_dataframe(rows):
            raise ValueError(
                f"{parameter}: {column!r} is a name, but the records are an array; give "
                "the position of the column."
            )
        if column not in rows.columns:
            raise ValueError(
                f"{parameter}: there is no column {column!r}; there are "
                f"{list(rows.columns)}."
            )
        return rows.columns.get_loc(column)
    if not isinstance(column, Integral):
        raise ValueError(
            f"{parameter}: a column is a name or a position; got {column!r}."
        )
    n_columns = rows.shape[1]
    if not -n_columns <= column < n_columns:
        raise ValueError(
            f"{parameter}: {column} does not exist: there are {n_columns} columns."
        )
    return column % n_columns


def _column(rows, position):
    return np.asarray(rows.iloc[:, position] if is_dataframe(rows) else rows[:, position])


def _numbers(labels, label_column):
    try:
        values = labels.astype(np.float64)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise ValueError(
            f"label_column={label_column!r} of the records must hold finite numbers: the "
            f"target is a regressor. It holds {labels[:3].tolist()}..."
        )
    return values


def _drop(rows, position):
    if is_dataframe(rows):
        return rows.drop(columns=rows.columns[position])
    return np.delete(rows, position, axis=1)


def make_records(X: ArrayLike, y: ArrayLike) -> Any:
    """Put labels beside rows, as the last column.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Labels; numbers of any kind, where the target is a regressor.

    Returns
    -------
    records : {ndarray, DataFrame} of shape (n_samples, n_features + 1)
        An array, where `X` is one and labels are numbers. Otherwise a DataFrame, with the
        labels in the column "label".

    See Also
    --------
    MembershipGame : Makes records, and targets.
    LossThreshold : The first attack to try.

    Examples
    --------
    >>> from sklearn_advsec.privacy import make_records
    >>> make_records([[0.5, 1.0], [2.0, 3.0]], [1, 0])
    array([[0.5, 1. , 1. ],
           [2. , 3. , 0. ]])
    """
    if not is_dataframe(plain_rows(X)[0]):
        X = check_rows(X, "make_records", allow_nan=True)
    X, _ = plain_rows(X)
    y = column_or_1d(y)
    if y.dtype.kind != "f" or not np.isfinite(y).all():  # the labels of a regressor are
        check_classification_targets(y)
    check_consistent_length(X, y)
    if is_dataframe(X):
        if "label" in X.columns:
            raise ValueError("X has a column 'label' already; rename it.")
        return X.assign(label=y)
    if X.ndim != 2:
        raise ValueError(
            f"Rows must be flat to carry a label; X has shape {X.shape}. Flatten them; a "
            "FunctionTransformer before the classifier gives them their shape again."
        )
    if y.dtype.kind in "biuf":
        labels = y.astype(X.dtype if X.dtype.kind == "f" else float)
        return np.column_stack([X, labels if np.array_equal(labels, y) else y])
    import pandas as pd

    return pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])]).assign(label=y)
