"""Which column each feature of a pipeline's steps is made of, and how.

Thresholds can be pulled back through steps that treat the features one by one.
"""

from functools import partial, singledispatch

import numpy as np
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
