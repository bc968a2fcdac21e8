"""Rows as the victim takes them, and the same rows as an array of floats."""

import math
import sys
import warnings
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_array

from ._sklearn import refuse_masked


def is_dataframe(X):
    """Whether `X` is a pandas DataFrame (without importing pandas)."""
    return hasattr(X, "iloc") and hasattr(X, "dtypes") and getattr(X, "ndim", 0) == 2


# Of arrays: whole numbers stay what they are, for the rows that come back to be whole.
NUMBERS = [np.float64, np.float32, bool]
NUMBERS += [f"{kind}{8 * size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)]


def plain_rows(X):
    """Return rows as a DataFrame of pandas or an array, and the way back to their kind.

    Parameters
    ----------
    X : {array-like, DataFrame, torch.Tensor}
        Rows. DataFrames of other libraries (polars, pyarrow) and torch tensors are
        converted; everything else is returned as it is.

    Returns
    -------
    X : {array-like, DataFrame}
        The rows, as computed with here. A missing text is None, as it is there.
    restore : callable
        Gives rows of the same columns the kind of `X`.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(X, torch.Tensor):
        device, rows = X.device, X.detach().cpu()
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()  # numpy lacks one; and a step would be lost in either
        return rows.numpy(), lambda rows: torch.as_tensor(writable(rows)).to(device)
    other = hasattr(X, "__arrow_c_stream__") or hasattr(X, "__dataframe__")
    one_column = len(getattr(X, "shape", ())) == 1  # no table: the checks of rows say so
    if is_dataframe(X) or not other or one_column:
        return X, lambda rows: rows
    try:
        import narwhals
    except ImportError as error:
        raise ImportError(
            f"X is a {type(X).__name__} of {type(X).__module__.partition('.')[0]}, which "
            "takes narwhals to read (pip install narwhals); or hand over X.to_pandas()."
        ) from error

    frame = narwhals.from_native(X, eager_only=True)
    columns = {name: _as_pandas(frame[name]) for name in frame.columns}

    def restore(rows):
        data = {}
        for name in frame.columns:
            column = rows[name].astype(object)
            if frame[name].null_count():
                column = column.where(column.notna(), None)
            data[name] = column.tolist()
        backend = frame.implementation
        return narwhals.from_dict(data, frame.schema, backend=backend).to_native()

    import pandas as pd

    return pd.DataFrame(columns), restore


def _as_pandas(series):
    """Return a column of another library as a Series; its dtype tells numbers apart."""
    import pandas as pd

    dtype = series.dtype
    if dtype.is_float():
        return pd.Series(series.to_numpy(), dtype=np.float64)
    if dtype.is_integer():
        some = series.null_count()
        return pd.Series(series.to_list(), dtype="Int64" if some else np.int64)
    if dtype.is_temporal():
        return pd.Series(series.to_numpy())
    if str(dtype) == "Boolean":
        return pd.Series(
            series.to_list(), dtype="boolean" if series.null_count() else bool
        )
    categories = getattr(dtype, "categories", None)  # of an Enum
    if categories is not None or str(dtype) == "Categorical":
        values = series.to_list()
        return pd.Series(pd.Categorical(values, categories and list(categories)))
    return pd.Series(series.to_list(), dtype=object)


class Columns:
    """What each column of an array of rows stands for.

    Attributes
    ----------
    names : list
        The DataFrame's column names.
    numeric : ndarray of bool, shape (n_columns,)
        Whether a column holds numbers. The others hold, in the array, the position of
        the value in `values`.
    values : list of (ndarray or None)
        The values of each column that is not numeric, in the order of their codes.
    dtypes : list of dtype
        Those of the DataFrame.
    """

    def __init__(self, names, numeric, values, dtypes):
        self.names = names
        self.numeric = numeric
        self.values = values
        self.dtypes = dtypes

    def select(self, positions):
        """Return what the columns at some positions stand for."""
        return Columns(
            [self.names[j] for j in positions],
            self.numeric[positions],
            [self.values[j] for j in positions],
            [self.dtypes[j] for j in positions],
        )

    def named(self, j, codes):
        """Return the values that codes of column `j` stand for, as it held them.

        The dtype is restored, not found anew: of values that all are missing, nothing
        else tells text from numbers.
        """
        import pandas as pd

        values = self.values[j].take(codes.astype(int))
        return pd.Series(values, dtype=object).astype(self.dtypes[j])


class RowCodec:
    """Turn rows into an array of floats for the attack, and back for the victim.

    A plain array is its own encoding, as floats. Of a DataFrame, numeric columns become
    floats;
    columns of strings, categories, booleans, dates and the like become codes, which no
    attack by numbers may change. The way back restores names, dtypes and index.

    Parameters
    ----------
    X : DataFrame or array of shape (n_rows, ...)
        The rows to be attacked.
    feature_names : array-like of str, optional
        Names to give plain rows on the way back: those that the victim was fitted on.
    categories : dict, optional
        The values of some columns by name, whose positions are to be their codes. Values
        of `X` that are not among them come behind.

    Attributes
    ----------
    columns : Columns or None
        What the columns are; None for plain numbers.
    mutable : ndarray of bool, shape (n_columns,), or None
        Which columns hold numbers; None where all do.
    categories : dict or None
        As given.
    """

    # What is whole stays whole on the way back: arrays, and columns of DataFrames.
    _array_dtype = None
    # Numbers that no float holds, as they were given: of an array, or by column.
    _large = None

    def __init__(self, X, feature_names=None, categories=None):
        self.columns = self.mutable = self._index = None
        self._names = feature_names
        self.categories = categories
        X, _ = plain_rows(X)
        if not is_dataframe(X):
            X = np.asarray(X)
            self._array_dtype = X.dtype
            self._large = X if _has_large(X) else None
            return
        from pandas.api.types import is_bool_dtype, is_numeric_dtype

        self._index = X.index
        self._dtypes = list(X.dtypes)
        self._names = X.columns
        numeric = np.array(
            [is_numeric_dtype(t) and not is_bool_dtype(t) for t in self._dtypes], bool
        )
        categories = categories or {}
        numeric &= np.array([name not in categories for name in X.columns], bool)
        values = [
            None if n else _values(X.iloc[:, j], categories.get(X.columns[j], ()))
            for j, n in enumerate(numeric)
        ]
        self.columns = Columns(list(X.columns), numeric, values, self._dtypes)
        if not numeric.all():
            self.mutable = numeric
        self._plain = all(t == np.float64 for t in self._dtypes)
        numbers = (X.iloc[:, j] for j in np.flatnonzero(numeric))
        self._large = {c.name: c for c in numbers if _has_large(c)}

    def encode(self, X):
        """Return the rows as a new array of floats; code -1 is an unknown value."""
        X, _ = plain_rows(X)
        if self.columns is None:
            X = np.array(X, copy=True, order="C")
            return X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        array = np.empty(X.shape, dtype=np.float64)
        for j, values in enumerate(self.columns.values):
            column = X.iloc[:, j]
            if values is None:
                array[:, j] = column.to_numpy(dtype=np.float64, na_value=np.nan)
            else:
                array[:, j] = _index_of(values, column)
        return array

    def decode(self, array, original=None, rows=None):
        """Return an array of floats as rows that the victim takes.

        Parameters
        ----------
        array : ndarray of shape (n, ...)
            Encoded rows.
        original : ndarray of the same shape, optional
            The encoded rows before the attack. Columns of integers are rounded towards
            them, so that a row never leaves its ball by the rounding.
        rows : ndarray of int, optional
            Which of the codec's rows these are; restores the index, and numbers that did
            not change and that no float holds.
        """
        known = original is not None and rows is not None
        if self.columns is None:
            if self._array_dtype is not None and self._array_dtype.kind in "iub":
                whole = np.rint(array) if original is None else _towards(array, original)
                whole = whole.astype(self._array_dtype)
                if self._large is not None and known:
                    whole = np.where(array == original, self._large[rows], whole)
                array = whole
            if self._names is None:
                return array
            import pandas as pd

            return pd.DataFrame(array, columns=self._names)
        import pandas as pd

        index = None if rows is None else self._index[rows]
        if self._plain:
            return pd.DataFrame(array, columns=self._names, index=index)
        data = [self._column(j, array, original) for j in range(array.shape[1])]
        frame = pd.concat(data, axis=1) if data else pd.DataFrame()
        frame.columns = self._names
        if index is None:
            return frame
        frame = frame.set_axis(index, axis=0)
        for name, column in self._large.items() if known else ():
            j = self.columns.names.index(name)
            same = array[:, j] == original[:, j]
            frame[name] = frame[name].mask(same, column.iloc[rows])
        return frame

    def whole(self):
        """Which features are whole numbers, and stay such: of each column, or of all."""
        if self.columns is None:
            return np.array(bool(self._array_dtype and self._array_dtype.kind in "iub"))
        numeric = zip(self._dtypes, self.columns.numeric, strict=True)
        return np.array([is_number and t.kind in "iu" for t, is_number in numeric], bool)

    def keeps(self, itemsize):
        """Whether the way back changes no number, of floats of so many bytes."""
        whole = any(dtype.kind in "iub" for dtype in self._number_dtypes())
        return not whole and self.float_itemsize() >= itemsize

    def float_itemsize(self):
        """Bytes of the coarsest floats among the rows; 8 where there are none."""
        dtypes = self._number_dtypes()
        return min((dtype.itemsize for dtype in dtypes if dtype.kind == "f"), default=8)

    def _number_dtypes(self):
        if self.columns is None:
            return [] if self._array_dtype is None else [self._array_dtype]
        numeric = zip(self._dtypes, self.columns.numeric, strict=True)
        return [dtype for dtype, is_number in numeric if is_number]

    def _column(self, j, array, original):
        import pandas as pd

        column, dtype = array[:, j], self._dtypes[j]
        if self.columns.values[j] is not None:
            return self.columns.named(j, column)
        if dtype.kind in "iu":
            column = (
                np.rint(column) if original is None else _towards(column, original[:, j])
            )
            missing = np.isnan(column)
            if missing.any():  # only nullable dtypes such as Int64 hold any
                return pd.Series(pd.array(column, dtype="Float64")).astype(dtype)
        return pd.Series(column).astype(dtype)


def _values(column, first=()):
    """Return the distinct values of a column, missing ones included, as an array.

    The values `first` come first, whether they occur or not.
    """
    from pandas import factorize, isna

    values = np.array(factorize(column, use_na_sentinel=False)[1], dtype=object)
    if len(first):
        known = np.empty(len(first), dtype=object)
        known[:] = list(first)
        held = isna(known).any()
        new = [not (held if isna(value) else value in set(first)) for value in values]
        values = np.concatenate([known, values[np.array(new, bool)]])
    missing = column.isna().to_numpy()
    if missing.any():  # to an encoder, None and NaN are two categories
        values[isna(values)] = column.astype(object).to_numpy()[missing][0]
    return values


def _index_of(values, column):
    import pandas as pd

    missing = pd.isna(values)
    codes = pd.Index(values[~missing]).get_indexer(pd.Index(column.astype(object)))
    positions = np.append(np.flatnonzero(~missing), -1)
    codes = positions[codes]
    if missing.any():
        codes[pd.isna(column).to_numpy()] = np.flatnonzero(missing)[0]
    return codes


def _has_large(values):
    """Whether there are whole numbers that float64 rounds."""
    kind = getattr(values.dtype, "kind", "O")
    if kind not in "iu" or values.dtype.itemsize < 8:
        return False
    values = values.dropna() if hasattr(values, "dropna") else values
    if not values.size:
        return False
    return bool(values.max() > 2**53 or (kind == "i" and values.min() < -(2**53)))


def _towards(column, original):
    """Round to the integer between `column` and `original` that is next to `column`."""
    near = np.rint(column)
    exact = np.abs(near - column) < 1e-9
    down = np.where(column > original, np.floor(column), np.ceil(column))
    return np.where(exact, near, down)


def _refuse_sparse(X):
    sparse = [name for name, t in zip(X.columns, X.dtypes, strict=True)
              if hasattr(t, "subtype") and str(t).startswith("Sparse")]  # fmt: skip
    if sparse:
        raise TypeError(
            f"X has sparse columns ({sparse[:3]}...), and dense ones are needed: "
            "X.sparse.to_dense() where all are sparse, else "
            "X.astype({c: t.subtype for c, t in X.dtypes.items() if 'Sparse' in str(t)})."
        )


def writable(array):
    """Return an array as torch takes it: one that may be written, front to back.

    Arrays of pandas, and those that joblib shares between processes, are read-only.
    """
    if array.flags.writeable and all(stride >= 0 for stride in array.strides):
        return array
    return array.copy()


def check_rows(X, estimator_name, *, allow_nan=False, name="X"):
    """Check that rows are finite, not empty and numeric where they must be.

    DataFrames keep their columns; anything else becomes an array of floats, or stays one
    of integers or booleans, of two or more dimensions. Errors call them by their `name`.
    """
    try:
        return _checked(X, estimator_name, "allow-nan" if allow_nan else True)
    except (TypeError, ValueError) as error:
        if name == "X":
            raise
        raise type(error)(f"{name}: {error}") from None


def _checked(X, estimator_name, finite):
    refuse_masked(X)
    X, _ = plain_rows(X)
    checks = {
        "ensure_all_finite": finite,
        "estimator": estimator_name,
        "input_name": "X",
    }
    if not is_dataframe(X):
        return check_array(X, dtype=NUMBERS, allow_nd=True, **checks)
    if not len(X):
        raise ValueError(
            f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is "
            f"required by {estimator_name}."
        )
    _refuse_sparse(X)
    numbers = X.select_dtypes("number")
    if numbers.shape[1]:
        check_array(numbers, dtype=np.float64, **checks)
    return X


def same_shape(owner, X, *, reset):
    """Return rows of the shape that they had in `fit` of their owner, or raise."""
    if reset:
        owner.row_shape_ = X.shape[1:]
    elif X.shape[1:] != owner.row_shape_:
        raise ValueError(
            f"X has rows of shape {X.shape[1:]}, but {type(owner).__name__} is "
            f"expecting rows of shape {owner.row_shape_} as in fit."
        )
    return X


def check_weights(sample_weight, n_rows):
    """Return weights of rows as floats, or None for None.

    Raises
    ------
    ValueError
        If there is not one finite number of 0 or more for each row, or all are 0.
    """
    if sample_weight is None:
        return None
    weights = check_array(
        sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight"
    )
    if weights.shape != (n_rows,):
        raise ValueError(
            f"sample_weight must have shape ({n_rows},), one weight for each row; got "
            f"{weights.shape}."
        )
    if weights.min() < 0 or not weights.any():
        raise ValueError("sample_weight must not be negative, nor zero for all rows.")
    return weights


# Rows that are images ----------------------------------------------------------------


def image_shape_of(row_shape, image_shape=None):
    """Return (channels, height, width) of rows, or None where they are no images.

    Parameters
    ----------
    row_shape : tuple of int
        The shape of a row: (n_features,), (height, width) or (channels, height, width).
    image_shape : tuple of int, optional
        What a flat row is: (height, width) or (channels, height, width).

    Raises
    ------
    ValueError
        If the two do not go together, or rows have more than three axes.
    """
    if image_shape is None:
        shape = tuple(row_shape)
        if len(shape) == 1:
            return None
    else:
        if not all(isinstance(size, Integral) and size > 0 for size in image_shape):
            raise ValueError(
                "image_shape must be (height, width) or (channels, height, width), whole "
                f"numbers above 0; got {image_shape!r}."
            )
        shape = tuple(int(size) for size in image_shape)
        if math.prod(shape) != math.prod(row_shape):
            raise ValueError(
                f"image_shape={image_shape!r} has {math.prod(shape)} values, but rows of "
                f"shape {tuple(row_shape)} have {math.prod(row_shape)}."
            )
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        raise ValueError(
            "image_shape must be (height, width) or (channels, height, width); got "
            f"{shape}."
        )
    if looks_channels_last(shape):
        warnings.warn(
            f"Images of shape {shape} are read as {shape[0]} channels of {shape[1]} x "
            f"{shape[2]} pixels, and seem to have their channels last. Move them to the "
            "front: X.transpose(0, 3, 1, 2).",
            stacklevel=2,
        )
    return shape


def looks_channels_last(shape):
    """Whether images of a shape (of one row) seem to be (height, width, channels)."""
    return len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] > 4 and shape[1] > 4


def pixel_grid(row_shape, image_shape=None):
    """Return (channels, height, width), with a flat row as one line of one channel."""
    shape = image_shape_of(row_shape, image_shape)
    return (1, 1, math.prod(row_shape)) if shape is None else shape
