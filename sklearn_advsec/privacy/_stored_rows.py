"""Training rows that a model carries along: a walk through what is pickled with it."""

from __future__ import annotations

import functools
import types
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._estimators import unwrap
from .._rows import is_dataframe
from .._sklearn import (
    HasMethods,
    _num_samples,
    _safe_indexing,
    refuse_masked,
    validate_params,
)

_ATOMS = (str, int, float, complex, bool, type(None), np.generic, np.dtype, range)
_UNSEEN = (type, types.ModuleType, types.BuiltinFunctionType, np.random.RandomState)
# Bytes of which nobody knows what they hold are named from this length on.
_MANY_BYTES = 1000
# With fewer rows, an array of as many entries means nothing.
_ENOUGH_ROWS = 30
# Larger sparse arrays are not made dense to be compared.
_MOST_ENTRIES = 10**8


@dataclass
class StoredRows:
    """One place inside of a model that holds training rows, or something about each.

    Attributes
    ----------
    path : str
        Where: attributes from the model on.
    holds : {"rows", "labels", "column", "one entry a row", "bytes"}
        Whole rows, as the user or a step of a pipeline sees them; the labels, or a
        column, in the order of the training rows; an array with one entry for each
        training row, such as out-of-bag scores (or of that length by chance); or bytes
        that were not read.
    rows : ndarray of int
        Which training rows: positions in `X`. A row that occurs more than once in `X` is
        named each time.
    shape : tuple of int
        Shape of what is stored there.

    See Also
    --------
    stored_rows : Finds them.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_advsec.privacy import stored_rows
    >>> X, y = [[0, 1], [1, 3], [2, 0]], [0, 1, 1]
    >>> model = KNeighborsClassifier(1, algorithm="brute").fit(X, y)
    >>> stored_rows(model, X)
    [StoredRows(path='._fit_X', holds='rows', rows=array([0, 1, 2]), shape=(3, 2))]
    """

    path: str
    holds: str
    rows: np.ndarray
    shape: tuple


@validate_params(
    {
        "estimator": [HasMethods(["predict"]), HasMethods(["transform"])],
        "X": ["array-like", "sparse matrix"],
        "y": ["array-like", None],
    }
)
def stored_rows(
    estimator: Any, X: ArrayLike, y: ArrayLike | None = None
) -> list[StoredRows]:
    """Find training rows that are stored inside of a fitted model.

    Whoever gets the model's file gets them: support vectors, the rows of neighbours and
    Gaussian processes, arrays with an entry for each row, tables in closures of a
    `FunctionTransformer`, data sets that a network was left with. The walk goes through
    attributes, containers, closures, bound arguments, and the state that objects hand to
    pickle. Arrays are compared with the rows of `X` in single precision, as they are, and
    as they come out of the steps of each pipeline (or the columns of each
    `ColumnTransformer`) on the way. A row of equal numbers, such as one of zeros, is not
    recognised, since coefficients may look the same.

    What is found is there; what was transformed in any other way is not found.

    Parameters
    ----------
    estimator : estimator
        The fitted model.
    X : {array-like, DataFrame} of shape (n_samples, ...)
        The rows that it was trained on, in their order.
    y : array-like of shape (n_samples,), default=None
        Their labels.

    Returns
    -------
    found : list of StoredRows
        One for each place.

    See Also
    --------
    structural_checks : What else can be seen without an attack.
    PrivacyAudit : Has it among its results.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.privacy import stored_rows
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), KNeighborsClassifier(algorithm="brute"))
    >>> for found in stored_rows(model.fit(X, y), X, y):
    ...     print(found.path, found.holds, len(found.rows))
    .steps[1][1]._y labels 150
    .steps[1][1]._fit_X rows 150
    """
    y = check_training_rows(estimator, X, y)
    n_rows = _num_samples(X)
    candidates, holders = _walk(unwrap(estimator))
    views = _Views(n_rows)
    views.add(X)
    for holder in holders:
        _add_inputs(views, holder, X)
    labels = [] if y is None else _forms_of_labels(y)
    found = []
    for path, value in candidates:
        if isinstance(value, bytes):
            nothing = np.empty(0, int)
            found.append(StoredRows(path, "bytes", nothing, (len(value),)))
            continue
        match = _match(value, views, labels, n_rows)
        if match is not None:
            found.append(StoredRows(path, *match, tuple(value.shape)))
    return found


def check_training_rows(estimator, X, y):
    """Check the rows a model was trained on, and return their labels as an array.

    The rows are as the model takes them, text and all: it is asked about the first one.
    """
    refuse_masked(X)
    if not is_dataframe(X) and getattr(X, "dtype", np.dtype(object)).kind != "O":
        check_array(X, accept_sparse=True, ensure_all_finite="allow-nan", allow_nd=True)
    shape = np.shape(X) if not issparse(X) else X.shape
    if len(shape) < 2:
        raise ValueError(f"X must be rows of features; it has shape {shape}.")
    n_features = getattr(estimator, "n_features_in_", None)
    if len(shape) == 2 and n_features is not None and shape[1] != n_features:
        raise ValueError(
            f"X has {shape[1]} features, but {type(unwrap(estimator)).__name__} was "
            f"trained on {n_features}."
        )
    model = unwrap(estimator)
    ask = model.predict if hasattr(model, "predict") else model.transform
    ask(_safe_indexing(X, [0]))
    if y is None:
        return None
    check_consistent_length(X, y)
    y = column_or_1d(y)
    if type_of_target(y, input_name="y") == "unknown":
        raise ValueError("y must hold classes or numbers; it holds other objects.")
    return y


def _match(value, views, labels, n_rows):
    """Return what an array holds of the training rows, and of which; None for nothing."""
    rows = views.rows_in(value)
    if len(rows):
        return "rows", rows
    if value.shape[0] != n_rows:
        return None
    column = value if value.ndim == 1 else value.reshape(n_rows, -1)
    every = np.arange(n_rows)
    if value.ndim == 1 or column.shape[1] == 1:
        column = column.ravel()
        if any(_same(column, form) for form in labels):
            return "labels", every
        if views.has_column(column):
            return "column", every
    return ("one entry a row", every) if n_rows >= _ENOUGH_ROWS else None


class _Views:
    """The training rows, as they look on their way through a model."""

    def __init__(self, n_rows):
        self._n_rows = n_rows
        self._by_form = {}  # (kind, width): list of keys
        self._columns = []

    def add(self, X):
        keyed = _keys(X)
        if keyed is None or len(keyed[2]) != self._n_rows:
            return
        kind, width, keys = keyed
        known = self._by_form.setdefault((kind, width), [])
        if not any(np.array_equal(keys, other) for other in known):
            known.append(keys)
            if kind == "numbers":
                self._columns.append(_numbers(X))

    def rows_in(self, value):
        """Return the positions of the training rows that an array holds."""
        keyed = _keys(value)
        nothing = np.empty(0, dtype=int)
        if keyed is None or keyed[1] < 2:
            return nothing
        kind, width, keys = keyed
        if kind == "numbers":
            array = _numbers(value)
            keys = keys[(array != array[:, :1]).any(axis=1)]
        found = [
            np.flatnonzero(np.isin(view, keys))
            for view in self._by_form.get((kind, width), ())
        ]
        return np.unique(np.concatenate(found)) if found else nothing

    def has_column(self, column):
        if column.dtype.kind not in "biuf" or not len(column):
            return False
        column = column.astype(np.float32)
        if (column == column[0]).all():
            return False
        return any((view == column[:, np.newaxis]).all(0).any() for view in self._columns)


def _numbers(value):
    """Return rows of numbers, flat and in single precision; None where they are none."""
    if is_dataframe(value):
        if not all(dtype.kind in "biuf" for dtype in value.dtypes):
            return None
        value = value.to_numpy()
    value = np.asarray(value)
    if value.dtype.kind not in "biuf" or value.ndim < 1 or not value.size:
        return None
    with np.errstate(over="ignore"):
        flat = value.reshape(len(value), -1).astype(np.float32) + np.float32(0)
    return np.ascontiguousarray(flat)


def _keys(value):
    """Return what rows are (numbers or mixed), their width, and a key for each."""
    value = _dense(value)
    if value is None:
        return None
    numbers = _numbers(value)
    if numbers is not None:
        row = np.dtype((np.void, numbers.dtype.itemsize * numbers.shape[1]))
        return "numbers", numbers.shape[1], numbers.view(row).ravel()
    if not is_dataframe(value) and np.ndim(value) != 2:
        return None
    import pandas as pd

    frame = pd.DataFrame(value)
    frame.columns = range(frame.shape[1])
    columns = {
        name: column.astype(np.float32).astype(np.float64)
        if column.dtype.kind in "biuf"
        else column.astype(object)
        for name, column in frame.items()
    }
    try:
        keys = pd.util.hash_pandas_object(pd.DataFrame(columns), index=False)
    except TypeError:  # cells that cannot be hashed
        return None
    return "mixed", frame.shape[1], keys.to_numpy()


def _dense(value):
    if issparse(value):
        return value.toarray() if np.prod(value.shape) <= _MOST_ENTRIES else None
    return value


def _forms_of_labels(y):
    """Return labels as models keep them: as they are, as codes, as signs."""
    codes = np.unique(y, return_inverse=True)[1]
    return [y, codes, 2 * codes - 1]


def _same(one, other):
    if one.dtype.kind in "biuf" and other.dtype.kind in "biuf":
        return np.array_equal(one.astype(np.float32), other.astype(np.float32))
    return one.dtype.kind == other.dtype.kind and np.array_equal(one, other)


# The rows on their way ----------------------------------------------------------------


def _add_inputs(views, holder, X):
    """Add what the parts of a pipeline, or of a ColumnTransformer, are given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if isinstance(holder, Pipeline):
                for _, step in holder.steps[:-1]:
                    if step not in (None, "passthrough"):
                        X = step.transform(X)
                    views.add(X)
            else:
                for _, _, columns in holder.transformers_:
                    if isinstance(columns, str):
                        columns = [columns]
                    views.add(_safe_indexing(X, columns, axis=1))
        except Exception:  # it is fitted on something else, or a step drops rows
            return


# The walk -----------------------------------------------------------------------------


def _walk(estimator):
    """Return the arrays inside of an object with their paths, and what has steps."""
    waiting, seen, alive = [("", estimator)], set(), []
    arrays, holders = [], []
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, (*_ATOMS, *_UNSEEN)) or id(value) in seen:
            continue
        seen.add(id(value))
        alive.append(value)  # an id is used again when its object is gone
        if isinstance(value, (bytes, bytearray)):
            if len(value) >= _MANY_BYTES:
                arrays.append((path, bytes(value)))
            continue
        if isinstance(value, (Pipeline, ColumnTransformer)):
            holders.append(value)
        array = _as_array(value)
        if array is not None:
            arrays.append((path, array))
            if isinstance(array, np.ndarray) and array.dtype.kind == "O":
                waiting += [(f"{path}[{i}]", v) for i, v in enumerate(array.ravel())]
            continue
        waiting += reversed(list(_parts(path, value)))
    return arrays, holders


def _as_array(value):
    """Return what can hold rows as an array or a frame; None for all else."""
    if isinstance(value, np.ndarray):
        if value.dtype.names is not None:
            return _unstructured(value)
        return value if value.ndim else None
    if is_dataframe(value) or issparse(value):
        return value
    if hasattr(value, "detach") and hasattr(value, "numpy"):  # a tensor
        try:
            array = value.detach().cpu().numpy()
        except (RuntimeError, TypeError):
            return None
        return array if array.ndim else None
    if hasattr(value, "to_numpy") and hasattr(value, "iloc"):  # a Series
        return value.to_numpy()
    if isinstance(value, (list, tuple)) and len(value) > 1:
        first = value[0]
        if isinstance(first, (int, float, np.number, list, tuple)):
            try:
                array = np.asarray(value, dtype=np.float64)
            except (TypeError, ValueError):
                return None
            return array if array.ndim else None
    return None


def _unstructured(array):
    try:
        return structured_to_unstructured(array, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _parts(path, value):
    """Yield what an object is made of, with the path to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}[{key!r:.40}]", item
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, item in enumerate(value):
            yield f"{path}[{i}]", item
    elif isinstance(value, functools.partial):
        yield f"{path}.func", value.func
        yield f"{path}.args", value.args
        yield f"{path}.keywords", value.keywords
    elif isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
        yield path, value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(path, value)
    else:
        yield from _parts_of_object(path, value)


def _parts_of_function(path, function):
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield f"{path}.<closure>.{name}", cell.cell_contents
        except ValueError:  # an empty cell
            continue
    yield f"{path}.<defaults>", function.__defaults__
    yield f"{path}.<defaults>", function.__kwdefaults__
    if function.__module__ == "__main__":  # is pickled with the globals that it uses
        for name in function.__code__.co_names:
            if name in function.__globals__:
                yield f"{path}.<globals>.{name}", function.__globals__[name]


def _parts_of_object(path, value):
    attributes = getattr(value, "__dict__", None)
    slots = [
        name
        for cls in type(value).__mro__
        for name in _slots_of(cls)
        if name not in ("__dict__", "__weakref__")
    ]
    for name in slots:
        if hasattr(value, name):
            yield f"{path}.{name}", getattr(value, name)
    if attributes is not None:
        for name, item in attributes.items():
            yield f"{path}.{name}", item
    if (attributes or slots) and type(value).__getstate__ is object.__getstate__:
        return
    # Compiled objects, such as the trees of neighbours, tell pickle what they hold.
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # what cannot be pickled carries nothing away
        return
    if isinstance(reduced, tuple):
        for i, part in enumerate(reduced[1:3]):
            yield f"{path}.<state>[{i}]", part


def _slots_of(cls):
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
