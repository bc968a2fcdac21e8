"""Views of transformers that rescale each feature or each row."""

import numpy as np
import torch
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from ._registry import register
from ._views import TransformerView, constant


@register(StandardScaler)
def standard_scaler(estimator):
    """View StandardScaler."""
    center = constant(estimator.mean_) if estimator.with_mean else 0.0
    scale = constant(estimator.scale_) if estimator.with_std else 1.0
    return TransformerView(lambda x: (x - center) / scale)


@register(RobustScaler)
def robust_scaler(estimator):
    """View RobustScaler."""
    center = constant(estimator.center_) if estimator.with_centering else 0.0
    scale = constant(estimator.scale_) if estimator.with_scaling else 1.0
    return TransformerView(lambda x: (x - center) / scale)


@register(MinMaxScaler)
def min_max_scaler(estimator):
    """View MinMaxScaler; where it clips, the gradient is 0."""
    scale, shift = constant(estimator.scale_), constant(estimator.min_)
    return _clipped(lambda x: x * scale + shift, estimator.clip, *estimator.feature_range)


@register(MaxAbsScaler)
def max_abs_scaler(estimator):
    """View MaxAbsScaler."""
    scale = constant(estimator.scale_)
    clip = getattr(estimator, "clip", False)  # since scikit-learn 1.9
    return _clipped(lambda x: x / scale, clip, -1.0, 1.0)


def _clipped(transform, clip, low, high):
    if not clip:
        return TransformerView(transform)
    return TransformerView(lambda x: transform(x).clamp(low, high))


@register(Normalizer)
def normalizer(estimator):
    """View Normalizer; a row of zeros stays as it is."""
    order = {"l1": 1, "l2": 2, "max": float("inf")}[estimator.norm]

    def transform(x):
        length = torch.linalg.vector_norm(x, ord=order, dim=1, keepdim=True)
        tiny = length < 10 * torch.finfo(x.dtype).eps
        return x / torch.where(tiny, 1.0, length)

    return TransformerView(transform)


@register(PowerTransformer)
def power_transformer(estimator):
    """View PowerTransformer.

    Each branch of its formulas gets inputs that it can take, also where the other one is
    chosen: otherwise 0 * inf in the backward pass makes NaN of the gradient. Rows that
    Box-Cox cannot take (scikit-learn refuses them) count as the smallest positive number.
    """
    exponent = constant(estimator.lambdas_)
    if estimator.method == "box-cox":
        branches = (_power_of(exponent),)
    else:
        branches = (_power_of(exponent), _power_of(2 - exponent))
    scaler = standard_scaler(estimator._scaler) if estimator.standardize else None

    def transform(x):
        if len(branches) == 1:
            out = branches[0](torch.log(x.clamp_min(torch.finfo(x.dtype).tiny)))
        else:
            positive = x >= 0
            up = branches[0](torch.log1p(torch.where(positive, x, 0.0)))
            down = branches[1](torch.log1p(torch.where(positive, 0.0, -x)))
            out = torch.where(positive, up, -down)
        return out if scaler is None else scaler.transform(out)

    return TransformerView(transform)


def _power_of(exponent):
    """Return ``log(z) -> (z ** exponent - 1) / exponent``, with its limit at 0."""
    flat = exponent.abs() < np.spacing(1.0)
    divisor = torch.where(flat, 1.0, exponent)
    return lambda log: torch.where(flat, log, torch.expm1(exponent * log) / divisor)


@register(QuantileTransformer)
def quantile_transformer(estimator):
    """View QuantileTransformer: the mean of interpolations from the left and the right.

    The two differ where quantiles repeat. The quantiles are steps of slopes, so the
    gradient is that of the piece that the value lies in.
    """
    quantiles = constant(estimator.quantiles_).T.contiguous()
    levels = constant(estimator.references_).expand_as(quantiles)
    low, high = quantiles[:, :1].T, quantiles[:, -1:].T
    is_normal = estimator.output_distribution == "normal"
    edge = 1e-7  # what scikit-learn takes as the bound of the distribution's support
    margin = edge if is_normal else 0.0

    def transform(x):
        left = interpolate(x.T, quantiles, levels)
        right = interpolate(-x.T, -quantiles.flip(1), -levels.flip(1))
        level = 0.5 * (left - right).T
        if is_normal:
            above, below = x + margin > high, x - margin < low
        else:
            above, below = x == high, x == low
        level = torch.where(above, 1.0, level)
        level = torch.where(below, 0.0, level)
        if not is_normal:
            return level
        inside = edge - np.spacing(1)
        # Clipping the level is clipping the result, without an infinite slope at 0.
        return torch.special.ndtri(level.clamp(inside, 1 - inside))

    return TransformerView(transform)


def interpolate(x, knots, values):
    """Interpolate linearly between knots, row by row, and stay constant outside.

    Parameters
    ----------
    x : tensor of shape (n_functions, n)
        Where to evaluate each function.
    knots, values : tensor of shape (n_functions, n_knots)
        In ascending order. Where knots repeat, the last of them counts.
    """
    if knots.shape[1] == 1:
        return values.expand_as(x) + 0 * x
    knots, values = knots.contiguous(), values.contiguous()
    at = torch.searchsorted(knots, x.detach().contiguous(), right=True) - 1
    at = at.clamp(0, knots.shape[1] - 2)
    start, width = knots.gather(1, at), knots.diff(dim=1).gather(1, at)
    slope = values.diff(dim=1).gather(1, at) / torch.where(width == 0, 1.0, width)
    inside = values.gather(1, at) + slope * (x - start)
    inside = torch.where(x >= knots[:, -1:], values[:, -1:], inside)
    return torch.where(x < knots[:, :1], values[:, :1], inside)
