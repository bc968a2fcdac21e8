"""Thresholds of trees pulled back to the raw columns, exact to the last bit.

A step in front of the trees is a black box that grows with its column. Bisection over the
floating point numbers themselves finds the largest one that still goes left, so scaling,
rounding to float32 and ``<=`` against ``<`` need no formulas of their own.
"""

from functools import partial, singledispatch

import numpy as np
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_array

from .._rows import is_dataframe

# How a feature depends on its column: in any way at all; only on whether a value is
# missing; or it grows with it.
ARBITRARY, PRESENCE, INCREASING = 0, 1, 2


class Sources:
    """What each feature is made of.

    Attributes
    ----------
    column : ndarray of int, shape (n_features,)
        The column that a feature is made of.
    kind : ndarray of int, shape (n_features,)
        One of `ARBITRARY`, `PRESENCE` and `INCREASING`.
    """

    def __init__(self, column, kind):
        self.column = np.asarray(column, dtype=np.int64)
        self.kind = np.broadcast_to(kind, self.column.shape).astype(np.int64)

    def after(self, inner):
        """Return the sources of these features in what `inner` is made of."""
        kind = np.minimum(self.kind, inner.kind[self.column])
        return Sources(inner.column[self.column], kind)


def sources_of(steps, n_columns):
    """Return the :class:`Sources` of a list of fitted steps.

    Parameters
    ----------
    steps : list of transformers
        Fitted; each takes what the one before gives.
    n_columns : int
        Number of columns of the first one's input.

    Raises
    ------
    TypeError
        If a step mixes features, or is not known.
    """
    sources = Sources(np.arange(n_columns), INCREASING)
    for step in steps:
        sources = _sources(step, len(sources.column)).after(sources)
    return sources


@singledispatch
def _sources(step, n_inputs):
    raise TypeError(
        f"{type(step).__name__} in front of the trees cannot be pulled back: only steps "
        "that treat the features one by one can (scalers, PowerTransformer, "
        "QuantileTransformer, KBinsDiscretizer, SimpleImputer, feature selection, "
        "OneHotEncoder, OrdinalEncoder, and ColumnTransformers of these)."
    )


for _step in (
    StandardScaler,
    MinMaxScaler,
    MaxAbsScaler,
    RobustScaler,
    QuantileTransformer,
):

    @_sources.register(_step)
    def _scaler(step, n_inputs):
        return Sources(np.arange(n_inputs), INCREASING)


@_sources.register(PowerTransformer)
def _power(step, n_inputs):
    if step.method != "yeo-johnson":
        raise TypeError(
            f"PowerTransformer(method={step.method!r}) cannot be pulled back: it takes "
            "positive values only. Use method='yeo-johnson'."
        )
    return Sources(np.arange(n_inputs), INCREASING)


@_sources.register(KBinsDiscretizer)
def _bins(step, n_inputs):
    if step.encode == "ordinal":
        return Sources(np.arange(n_inputs), INCREASING)
    return Sources(np.repeat(np.arange(n_inputs), step.n_bins_), ARBITRARY)


@_sources.register(FunctionTransformer)
def _function(step, n_inputs):
    function = step.func
    checks = isinstance(function, partial) and function.func is check_array
    if function is not None and not checks:
        raise TypeError(
            f"FunctionTransformer({function!r}) in front of the trees cannot be pulled "
            "back: nothing is known of the function."
        )
    return Sources(np.arange(n_inputs), INCREASING)


@_sources.register(SelectorMixin)
def _selector(step, n_inputs):
    return Sources(step.get_support(indices=True), INCREASING)


@_sources.register(SimpleImputer)
def _imputer(step, n_inputs):
    kept = np.arange(n_inputs)
    if not step.keep_empty_features:
        empty = [v is None or v is np.nan or v != v for v in step.statistics_]
        kept = kept[~np.array(empty, dtype=bool)]
    flags = [] if step.indicator_ is None else step.indicator_.features_
    kind = np.repeat([INCREASING, PRESENCE], [len(kept), len(flags)])
    return Sources(np.concatenate([kept, flags]), kind)


@_sources.register(OneHotEncoder)
def _one_hot(step, n_inputs):
    return Sources(np.repeat(np.arange(n_inputs), step._n_features_outs), ARBITRARY)


@_sources.register(OrdinalEncoder)
def _ordinal(step, n_inputs):
    return Sources(np.arange(n_inputs), ARBITRARY)


@_sources.register(FrozenEstimator)
def _frozen(step, n_inputs):
    return _sources(step.estimator, n_inputs)


@_sources.register(Pipeline)
def _pipeline(step, n_inputs):
    steps = [part for _, part in step.steps if part not in (None, "passthrough")]
    return sources_of(steps, n_inputs)


@_sources.register(ColumnTransformer)
def _columns(step, n_inputs):
    parts = {}
    for name, part, _ in step.transformers_:
        at = step.output_indices_[name]
        inputs = np.asarray(step._transformer_to_input_indices[name], dtype=np.int64)
        if at.stop == at.start:
            continue
        own = Sources(np.arange(len(inputs)), INCREASING)
        if not isinstance(part, str):
            own = _sources(part, len(inputs))
        parts[at.start] = own.after(Sources(inputs, INCREASING))
    ordered = [parts[start] for start in sorted(parts)]
    return Sources(
        np.concatenate([part.column for part in ordered]),
        np.concatenate([part.kind for part in ordered]),
    )


# No data lie beyond this.
_LARGEST = 1e30


class Edges:
    """What a node's comparison means for the raw columns.

    Attributes
    ----------
    column : ndarray of int, shape (n_nodes,)
        The raw column that an inner node looks at, -1 for leaves.
    low, high : ndarray of float, shape (n_nodes,)
        The largest value that goes left and the smallest one that goes right. Infinite
        where no value does. NaN for nodes that do not grow with their column.
    movable : ndarray of bool, shape (n_columns,)
        Whether all features that are made of the column grow with it.
    """

    def __init__(self, ensemble, X):
        n_columns = X.shape[1]
        sources = sources_of(ensemble.steps, n_columns)
        inner = ensemble.feature >= 0
        feature = np.where(inner, ensemble.feature, 0)
        self.column = np.where(inner, sources.column[feature], -1)
        # Nodes on categories are none on numbers, whatever the steps are.
        kind = np.where(ensemble.category >= 0, 0, sources.kind[feature])
        self.movable = np.ones(n_columns, dtype=bool)
        self.movable[self.column[inner & (kind < PRESENCE)]] = False
        dtypes = _dtypes(X)
        self.movable &= np.array([dtype is not None for dtype in dtypes])
        self.low = np.full(len(feature), np.nan)
        self.high = np.full(len(feature), np.nan)
        nodes = np.flatnonzero(inner & (kind == INCREASING) & self.movable[self.column])
        if len(nodes):
            self._pull_back(ensemble, X, nodes, dtypes)

    def _pull_back(self, ensemble, X, nodes, dtypes):
        """Bisect for all distinct thresholds of each column at the same time."""
        keys = np.stack([ensemble.feature[nodes], ensemble.threshold[nodes]], 1)
        _, first, inverse = np.unique(
            keys, axis=0, return_index=True, return_inverse=True
        )
        asked = nodes[first]
        column = self.column[asked]
        order = np.argsort(column, kind="stable")
        slot = np.empty(len(asked), dtype=np.int64)  # the row in which each is tried
        sizes = np.bincount(column, minlength=X.shape[1])
        slot[order] = np.arange(len(asked)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        single = np.array([dtype == np.float32 for dtype in dtypes])[column]
        whole = np.array([dtype is int for dtype in dtypes])[column]

        def left(values):
            features = _features(ensemble, X, column, slot, values)
            seen = features[slot, ensemble.feature[asked]]
            return ensemble.goes_left(asked, seen)

        low, high = np.empty(len(asked)), np.empty(len(asked))
        for dtype, at in ((np.float32, single), (np.float64, ~single)):
            if not at.any():
                continue
            below = np.full(len(asked), _key(dtype(-_LARGEST)))
            above = np.full(len(asked), _key(dtype(_LARGEST)))
            never = ~left(np.full(len(asked), -_LARGEST))
            always = left(np.full(len(asked), _LARGEST))
            while (below + 1 < above)[at].any():  # the difference may overflow
                middle = (below >> 1) + (above >> 1) + (below & above & 1)
                goes = left(_value(middle, dtype))
                below = np.where(goes, middle, below)
                above = np.where(goes, above, middle)
            low[at] = _value(below, dtype)[at]
            high[at] = _value(above, dtype)[at]
            low[at & never], high[at & never] = -np.inf, -np.inf
            low[at & always], high[at & always] = np.inf, np.inf
        low = np.where(whole, np.floor(low), low)
        high = np.where(whole, low + 1, high)
        self.low[nodes], self.high[nodes] = low[inverse], high[inverse]


def _dtypes(X):
    """Return np.float32, np.float64, int or (for what is no number) None by column."""
    if not is_dataframe(X):
        single = X.dtype == np.float32
        return [np.float32 if single else np.float64] * X.shape[1]
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    found = []
    for dtype in X.dtypes:
        if not is_numeric_dtype(dtype) or is_bool_dtype(dtype):
            found.append(None)
        elif is_integer_dtype(dtype):
            found.append(int)
        else:
            found.append(np.float32 if str(dtype).lower() == "float32" else np.float64)
    return found


def _features(ensemble, X, column, slot, values):
    """Return the features of rows that hold, each, one value to try per column."""
    n_rows = int(slot.max()) + 1
    if not ensemble.steps:
        table = np.zeros((n_rows, X.shape[1]))
        table[slot, column] = values
        return table
    if is_dataframe(X):
        rows = X.iloc[np.zeros(n_rows, dtype=int)].reset_index(drop=True)
        for j in np.unique(column):
            own = column == j
            name, dtype = rows.columns[j], rows.dtypes.iloc[j]
            tried = np.full(n_rows, values[own][0])
            tried[slot[own]] = values[own]
            is_single = str(dtype).lower() == "float32"
            rows[name] = tried.astype(np.float32 if is_single else np.float64)
    else:
        rows = np.repeat(X[:1], n_rows, axis=0)
        rows[slot, column] = values
    # Far from the data, steps may overflow to infinity, which is as good.
    with np.errstate(all="ignore"), config_context(assume_finite=True):
        return ensemble.transform(rows)


def _key(value):
    """Map floats to integers of the same order, neighbours to neighbours."""
    bits = np.asarray(value)
    size, sign = (np.int32, 31) if bits.dtype == np.float32 else (np.int64, 63)
    bits = bits.view(size)
    return (bits ^ ((bits >> sign) & np.iinfo(size).max)).astype(np.int64)


def _value(key, dtype):
    size, sign = (np.int32, 31) if dtype == np.float32 else (np.int64, 63)
    key = key.astype(size)
    bits = key ^ ((key >> sign) & np.iinfo(size).max)
    return bits.view(dtype).astype(np.float64)
