"""Steps in front of the trees: the column that each feature is made of, and its breaks.

A step is a black box that treats the columns one by one. Between its breaks (the
categories of an encoder, the edges of bins, the value that an imputer replaces) a feature
grows or falls with its column, or is constant; nothing else has to be known of the step.
"""

from functools import partial, singledispatch

import numpy as np
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    Binarizer,
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
    TargetEncoder,
)
from sklearn.utils.validation import check_array

from .._rows import is_dataframe


class Features:
    """What comes out of some steps, in terms of the raw columns.

    Parameters
    ----------
    column : ndarray of int, shape (n_features,)
        The raw column that each feature is made of.
    compute : callable
        ``compute(X)`` returns the features of raw rows.
    breaks : list of Break
        Where features stop to be monotone in their column, in the order of the steps.
    """

    def __init__(self, column, compute, breaks=()):
        self.column = np.asarray(column, dtype=np.int64)
        self.compute = compute
        self.breaks = list(breaks)

    def __len__(self):
        return len(self.column)

    def pick(self, index):
        """Return some of the features."""
        return Features(
            self.column[index], lambda X: _columns_of(self.compute(X), index), self.breaks
        )

    def after(self, step, source, values=None):
        """Return the features that a step makes of these.

        Parameters
        ----------
        step : transformer
            Fitted.
        source : array-like of int, shape (n_outputs,)
            The feature that each of its outputs is made of.
        values : list of array-like, optional
            By feature, the values at and around which outputs jump.
        """
        breaks = self.breaks
        if values is not None:
            breaks = [*breaks, Break(self, values)]
        column = self.column[np.asarray(source, dtype=np.int64)]
        return Features(column, lambda X: step.transform(self.compute(X)), breaks)


class Break:
    """Values of some features at which what is made of them may jump.

    Parameters
    ----------
    features : Features
        What has the values.
    values : list of array-like
        By feature, the values.
    cast : dtype, default=float64
        The precision in which they are compared.
    """

    def __init__(self, features, values, cast=np.float64):
        self.column, self._compute, self._cast = features.column, features.compute, cast
        sizes = [len(own) for own in values]
        self.feature = np.repeat(np.arange(len(values)), sizes)
        self.value = np.concatenate([np.zeros(0), *values]).astype(np.float64)

    def compute(self, X):
        """Return the features of raw rows as an array of floats; NaN without breaks."""
        table, own = self._compute(X), np.unique(self.feature)
        features = np.full((len(X), len(self.column)), np.nan)
        with np.errstate(over="ignore"):
            features[:, own] = as_numbers(_columns_of(table, own)).astype(self._cast)
        return features


def features_of(steps, n_columns):
    """Return the :class:`Features` that a list of fitted steps makes of raw columns.

    Raises
    ------
    TypeError
        If a step mixes features, or is not known.
    """
    features = Features(np.arange(n_columns), lambda X: X)
    for step in steps:
        features = _through(step, features)
    return features


def is_skipped(step):
    """Whether a pipeline's step does nothing to the rows that are predicted.

    Samplers of imbalanced-learn act on training data only.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return True
    return hasattr(step, "fit_resample") and not hasattr(step, "transform")


def as_numbers(table, absent=0.0):
    """Return a table of features as an array of float64; what is missing is NaN.

    Of sparse tables, `absent` is what they do not hold.
    """
    if issparse(table):
        held = table.tocoo()
        table = np.full(table.shape, absent)
        table[held.row, held.col] = held.data
    if is_dataframe(table):
        return table.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(table).astype(np.float64)


def _columns_of(table, index):
    return table.iloc[:, index] if is_dataframe(table) else table[:, index]


class ValueAsMissing:
    """The part of a booster that takes a value, in single precision, for missing."""

    def __init__(self, value):
        self.value = np.float32(value)

    def transform(self, X):
        """Return the rows as numbers, NaN where they have the value."""
        X = as_numbers(X, absent=np.nan)
        with np.errstate(over="ignore"):
            return np.where(X.astype(np.float32) == self.value, np.nan, X)


class TinyAsZero:
    """The part of a booster that takes numbers next to zero for zero."""

    def __init__(self, largest):
        self.largest = largest

    def transform(self, X):
        """Return the rows as numbers."""
        X = as_numbers(X)
        return np.where(np.abs(X) <= self.largest, 0.0, X)


class CategoryCodes:
    """The part of a booster that turns columns of pandas categories into codes.

    Parameters
    ----------
    categories : dict of int to list
        By the position of a column, its categories in the order of their codes.
    unknown : float or None
        The code of what is none of them; what is missing has NaN. None where that is an
        error.
    """

    def __init__(self, categories, unknown):
        self.categories, self.unknown = categories, unknown

    def transform(self, X):
        """Return the rows of a frame as numbers."""
        import pandas as pd

        if not is_dataframe(X):
            raise TypeError("A booster with columns of categories takes DataFrames only.")
        table = np.empty(X.shape)
        for j in range(X.shape[1]):
            column = X.iloc[:, j]
            if j not in self.categories:
                table[:, j] = column.to_numpy(dtype=np.float64, na_value=np.nan)
                continue
            known, lost = pd.Index(self.categories[j]), column.isna().to_numpy()
            codes = known.get_indexer(column.astype(object)).astype(np.float64)
            new = (codes < 0) & ~lost
            if new.any() and self.unknown is None:
                raise ValueError(
                    f"Column {X.columns[j]!r} holds {column[new].iloc[0]!r}, which is "
                    "none of the categories that the booster was fitted on."
                )
            codes[new], codes[lost] = self.unknown, np.nan
            table[:, j] = codes
        return table


@singledispatch
def _through(step, features):
    """Return what a step makes of features."""
    raise TypeError(
        f"{type(step).__name__} in front of the trees cannot be pulled back: only steps "
        "that treat the features one by one can (scalers, PowerTransformer, "
        "QuantileTransformer, KBinsDiscretizer, Binarizer, SimpleImputer, feature "
        "selection, OneHotEncoder, OrdinalEncoder, TargetEncoder, and "
        "ColumnTransformers of these)."
    )


for _step in (
    StandardScaler,
    MinMaxScaler,
    MaxAbsScaler,
    RobustScaler,
    QuantileTransformer,
    Binarizer,
    TinyAsZero,
):

    @_through.register(_step)
    def _monotone(step, features):
        return features.after(step, np.arange(len(features)))


@_through.register(ValueAsMissing)
def _value_as_missing(step, features):
    values = [[step.value]] * len(features)
    made = features.after(step, np.arange(len(features)))
    made.breaks.append(Break(features, values, np.float32))
    return made


@_through.register(CategoryCodes)
def _codes(step, features):
    own = range(len(features))
    values = [_numbers(step.categories.get(j, [])) for j in own]
    return features.after(step, own, values)


@_through.register(PowerTransformer)
def _power(step, features):
    if step.method != "yeo-johnson":
        raise TypeError(
            f"PowerTransformer(method={step.method!r}) cannot be pulled back: it takes "
            "positive values only. Use method='yeo-johnson'."
        )
    return features.after(step, np.arange(len(features)))


@_through.register(KBinsDiscretizer)
def _bins(step, features):
    source = np.arange(len(features))
    if step.encode == "ordinal":
        return features.after(step, source)
    edges = [own[1:-1] for own in step.bin_edges_]
    return features.after(step, np.repeat(source, step.n_bins_), edges)


@_through.register(FunctionTransformer)
def _function(step, features):
    function = step.func
    checks = isinstance(function, partial) and function.func is check_array
    if function is not None and not checks:
        raise TypeError(
            f"FunctionTransformer({function!r}) in front of the trees cannot be pulled "
            "back: nothing is known of the function."
        )
    return features.after(step, np.arange(len(features)))


@_through.register(SelectorMixin)
def _selector(step, features):
    return features.after(step, step.get_support(indices=True))


@_through.register(SimpleImputer)
def _imputer(step, features):
    kept = np.arange(len(features))
    if not step.keep_empty_features:
        empty = [v is None or v is np.nan or v != v for v in step.statistics_]
        kept = kept[~np.array(empty, dtype=bool)]
    # Indicators of what is missing are constant on numbers.
    flags = [] if step.indicator_ is None else step.indicator_.features_
    replaced = _numbers([step.missing_values])
    values = [replaced] * len(features) if len(replaced) else None
    return features.after(step, np.concatenate([kept, flags]), values)


@_through.register(OneHotEncoder)
def _one_hot(step, features):
    source = np.repeat(np.arange(len(features)), step._n_features_outs)
    return features.after(step, source, _categories(step))


@_through.register(OrdinalEncoder)
def _ordinal(step, features):
    return features.after(step, np.arange(len(features)), _categories(step))


@_through.register(TargetEncoder)
def _target(step, features):
    n_outputs = len(step.classes_) if step.target_type_ == "multiclass" else 1
    source = np.repeat(np.arange(len(features)), n_outputs)
    return features.after(step, source, _categories(step))


def _categories(step):
    return [_numbers(own) for own in step.categories_]


def _numbers(values):
    """Return those of some values that are numbers; columns of others are not cut."""
    kept = [
        v for v in values if np.isscalar(v) and isinstance(v, (int, float, np.number))
    ]
    kept = np.array(kept, dtype=np.float64)
    return np.unique(kept[np.isfinite(kept)])


@_through.register(FrozenEstimator)
def _frozen(step, features):
    return _through(step.estimator, features)


@_through.register(Pipeline)
def _pipeline(step, features):
    for _, part in step.steps:
        if not is_skipped(part):
            features = _through(part, features)
    return features


@_through.register(ColumnTransformer)
def _columns(step, features):
    # A weight may be negative: its features fall where others grow.
    sources, breaks = {}, []
    for name, part, _ in step.transformers_:
        at = step.output_indices_[name]
        inputs = np.asarray(step._transformer_to_input_indices[name], dtype=np.int64)
        if at.stop == at.start:
            continue
        own = features.pick(inputs)
        own.breaks = []
        if not isinstance(part, str):
            own = _through(part, own)
        sources[at.start] = own.column
        breaks += own.breaks
    column = np.concatenate([sources[start] for start in sorted(sources)])
    return Features(
        column, lambda X: step.transform(features.compute(X)), features.breaks + breaks
    )
