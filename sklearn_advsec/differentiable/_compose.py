"""Views of what puts estimators together: pipelines, columns, unions, searches."""

import numpy as np
import torch
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from .._sklearn import BaseSearchCV
from ..exceptions import NoGradientError
from ._columns import constant_transform
from ._registry import current_columns, input_columns, register, subview
from ._views import TransformerView


def _transform_of(step):
    """Return the ``transform`` of a step on tensors."""
    if isinstance(step, str):
        step = FunctionTransformer()  # "passthrough"
    transform = subview(step).transform
    if transform is None:
        raise NoGradientError(
            f"{type(step).__name__} has no differentiable view of its transform."
        )
    return transform


@register(Pipeline, takes_codes=True)
def pipeline(estimator):
    """View Pipeline, also one that ends with a transformer.

    Only the first step sees the columns of the input.
    """
    transforms, last = [], None
    steps = [step for _, step in estimator.steps]
    ends = steps[-1]
    for step in steps:
        if step is None or (isinstance(step, str) and step == "passthrough"):
            continue
        if hasattr(step, "fit_resample") and not hasattr(step, "transform"):
            continue  # a sampler acts on training data only
        with input_columns(None if transforms else current_columns()):
            if step is ends:
                last = subview(step)
            else:
                transforms.append(_transform_of(step))
    if last is None and not transforms:
        transforms.append(_transform_of("passthrough"))

    def before(x):
        for transform in transforms:
            x = transform(x)
        return x

    if last is None:
        return TransformerView(before)
    return last.compose(before) if transforms else last


@register(FeatureUnion, takes_codes=True)
def feature_union(estimator):
    """View FeatureUnion."""
    weights = estimator.transformer_weights or {}
    parts = [
        (_transform_of(part), weights.get(name, 1.0))
        for name, part in estimator.transformer_list
        if not (isinstance(part, str) and part == "drop")
    ]

    def transform(x):
        if not parts:
            return x[:, :0]
        return torch.cat([part(x) * weight for part, weight in parts], dim=1)

    return TransformerView(transform)


@register(ColumnTransformer, takes_codes=True)
def column_transformer(estimator):
    """View ColumnTransformer.

    A branch of columns of codes only is a constant to the gradient: scikit-learn itself
    transforms these. Columns of a DataFrame are found by name, as `transform` does.
    """
    columns = current_columns()
    names = getattr(estimator, "feature_names_in_", None)
    names = None if names is None else list(names)
    weights = estimator.transformer_weights or {}
    parts = []
    for name, part, chosen in estimator.transformers_:
        at = _chosen_positions(chosen, names, estimator.n_features_in_)
        if (isinstance(part, str) and part == "drop") or not len(at):
            continue
        if columns is not None and names is not None:
            at = np.array([columns.names.index(names[j]) for j in at])
        some = None if columns is None else columns.select(at)
        passthrough = isinstance(part, str)
        if some is None or some.numeric.any() or passthrough:
            with input_columns(some):
                transform = _transform_of(part)
        else:
            one = np.isscalar(chosen)
            transform = constant_transform(part, some, one_column=one).transform
        parts.append((torch.as_tensor(at), transform, weights.get(name, 1.0)))

    def transform(x):
        if not parts:
            return x[:, :0]
        blocks = [part(x.index_select(1, at)) * w for at, part, w in parts]
        return torch.cat(blocks, dim=1)

    return TransformerView(transform)


def _chosen_positions(chosen, names, n_columns):
    """Return the positions that a fitted column specification stands for."""
    every = np.arange(n_columns)
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = 0 if chosen.start is None else names.index(chosen.start)
            stop = n_columns if chosen.stop is None else names.index(chosen.stop) + 1
            return every[start:stop]
        return every[chosen]
    chosen = np.atleast_1d(np.asarray(chosen))
    if chosen.dtype == bool or chosen.dtype.kind in "iu":
        return every[chosen]
    return np.array([names.index(name) for name in chosen], dtype=int)


@register(FrozenEstimator, takes_codes=True)
def frozen(estimator):
    """View the estimator inside."""
    return subview(estimator.estimator)


@register(BaseSearchCV, takes_codes=True)
def search(estimator):
    """View the best estimator that a search found and fitted again."""
    if not hasattr(estimator, "best_estimator_"):
        raise NoGradientError(
            f"{type(estimator).__name__} was run with refit=False, so it predicts "
            "nothing; set refit=True."
        )
    return subview(estimator.best_estimator_)
