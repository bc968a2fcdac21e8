"""Views of transformers that make new features, or choose among them."""

from operator import methodcaller

import numpy as np
import torch
from scipy import special
from sklearn.decomposition import (
    PCA,
    FactorAnalysis,
    FastICA,
    IncrementalPCA,
    TruncatedSVD,
)
from sklearn.feature_selection import RFE, SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from ..exceptions import NoGradientError
from ._kernels import kernel_function
from ._registry import register, subview
from ._views import TransformerView, constant


def _linear(weight, center=None):
    """View ``(x - center) W^T``."""
    if center is None:
        return TransformerView(lambda x: x @ weight.T)
    return TransformerView(lambda x: (x - center) @ weight.T)


@register(PCA)
@register(IncrementalPCA)
def principal_components(estimator):
    """View PCA and IncrementalPCA."""
    weight = constant(estimator.components_)
    if estimator.whiten:
        scale = torch.sqrt(constant(estimator.explained_variance_))
        weight = weight / scale.clamp_min(torch.finfo(scale.dtype).eps)[:, None]
    return _linear(weight, constant(estimator.mean_))


@register(TruncatedSVD)
@register(GaussianRandomProjection)
@register(SparseRandomProjection)
def projection(estimator):
    """View projections that do not centre."""
    return _linear(constant(estimator.components_))


@register(FastICA)
def independent_components(estimator):
    """View FastICA."""
    center = constant(estimator.mean_) if estimator.whiten else None
    return _linear(constant(estimator.components_), center)


@register(FactorAnalysis)
def factor_analysis(estimator):
    """View FactorAnalysis: the expected factors."""
    loading = constant(estimator.components_)
    scaled = loading / constant(estimator.noise_variance_)
    weight = torch.linalg.solve(torch.eye(len(loading)) + scaled @ loading.T, scaled)
    return _linear(weight, constant(estimator.mean_))


@register(SelectorMixin)
def selector(estimator):
    """View every selector of features: SelectKBest, RFE, SelectFromModel and so on."""
    kept = torch.as_tensor(estimator.get_support(indices=True))
    return TransformerView(lambda x: x.index_select(1, kept))


@register(RFE)
def recursive_elimination(estimator):
    """View RFE and RFECV, which also predict, with the estimator that chose."""
    selection = selector(estimator)
    try:
        view = subview(estimator.estimator_)
    except NoGradientError:
        return selection  # it still selects
    view = view.compose(selection.transform)
    view.transform = selection.transform
    return view


@register(PolynomialFeatures)
def polynomial_features(estimator):
    """View PolynomialFeatures: products of columns, with a column of ones to fill up."""
    powers = estimator.powers_
    n_features, degree = powers.shape[1], int(powers.sum(axis=1).max(initial=0))
    factors = np.full((len(powers), degree), n_features)
    for row, power in zip(factors, powers, strict=True):
        columns = np.repeat(np.arange(n_features), power)
        row[: len(columns)] = columns
    factors = torch.as_tensor(factors)

    def transform(x):
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        out = x.new_ones(len(x), len(factors))
        for column in factors.T:
            out = out * x.index_select(1, column)
        return out

    return TransformerView(transform)


@register(SimpleImputer)
def simple_imputer(estimator):
    """View SimpleImputer on numbers; no gradient reaches an entry that is missing."""
    statistics = constant(estimator.statistics_.astype(np.float64))
    kept = torch.arange(len(statistics))
    if not estimator.keep_empty_features:
        kept = torch.nonzero(~statistics.isnan())[:, 0]
    missing = estimator.missing_values
    by_value = isinstance(missing, (int, float)) and not np.isnan(missing)
    flagged = None
    if estimator.add_indicator:
        flagged = torch.as_tensor(estimator.indicator_.features_)

    def transform(x):
        mask = x == missing if by_value else x.isnan()
        out = torch.where(mask, statistics, x).index_select(1, kept)
        if flagged is None:
            return out
        return torch.cat([out, mask.index_select(1, flagged).to(out.dtype)], dim=1)

    return TransformerView(transform)


@register(Nystroem)
def nystroem(estimator):
    """View Nystroem: kernels with the landmarks, then a projection."""
    given = dict(estimator.kernel_params or {})
    for name in ("gamma", "coef0", "degree"):
        if getattr(estimator, name) is not None:
            given[name] = getattr(estimator, name)
    kernel = kernel_function(estimator.kernel, estimator.components_, **given)
    weight = constant(estimator.normalization_)
    return TransformerView(lambda x: kernel(x) @ weight.T)


@register(RBFSampler)
def rbf_sampler(estimator):
    """View RBFSampler: cosines of random projections."""
    weight = constant(estimator.random_weights_)
    offset = constant(estimator.random_offset_)
    scale = (2.0 / estimator.n_components) ** 0.5
    return TransformerView(lambda x: torch.cos(x @ weight + offset) * scale)


# numpy's and scipy's elementwise functions, and torch's of the same meaning.
_FUNCTIONS = {
    getattr(np, name): getattr(torch, name)
    for name in (
        "abs add arccos arcsin arcsinh arctan cos cosh divide exp exp2 expm1 log log10 "
        "log1p log2 maximum minimum multiply negative reciprocal sign sin sinh "
        "sqrt square subtract tan tanh"
    ).split()
} | {
    np.fabs: torch.abs,
    np.power: torch.pow,
    special.expit: torch.sigmoid,
    special.logit: torch.logit,
}


class _Rows(torch.Tensor):
    """A tensor that looks enough like an array for a function written for arrays."""

    def astype(self, dtype, **_):
        return self.to(torch.as_tensor(np.empty(0, dtype)).dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        function = _FUNCTIONS.get(ufunc)
        if function is None or method != "__call__" or keywords:
            return NotImplemented
        return function(*(torch.as_tensor(value, dtype=self.dtype) for value in inputs))


@register(FunctionTransformer)
def function_transformer(estimator):
    """View FunctionTransformer.

    Its function is called on tensors: one made of operators, of methods that arrays and
    tensors share, and of numpy's elementwise functions works as it is. What it gives for
    the first rows is compared with what it gives for the same rows as an array.
    """
    function, keywords = estimator.func, estimator.kw_args or {}
    if function is None:
        return TransformerView(lambda x: x)
    if function is np.float32 or function is np.float64:  # a cast, as networks need one
        function = methodcaller("astype", function)
    checked = []

    def call(x):
        # A copy, because a function may write into its argument.
        out = function(x.clone().as_subclass(_Rows), **keywords)
        return out.as_subclass(torch.Tensor)

    def check(x):
        reason = cause = None
        try:
            with torch.enable_grad():
                out = call(x.detach().requires_grad_())
            array = function(x.detach().cpu().numpy().copy(), **keywords)
            if not out.requires_grad:
                reason = "loses the gradient"
            elif out.shape != np.shape(array) or not np.allclose(
                out.detach().cpu(), array, rtol=1e-5, atol=1e-8, equal_nan=True
            ):
                reason = "gives other values for a torch tensor than for an array"
        except Exception as error:  # whatever a user's function may raise
            reason, cause = "does not run on torch tensors", error
        if reason:
            raise NoGradientError(
                f"FunctionTransformer: {getattr(function, '__name__', function)!r} "
                f"{reason}. Write it so that it takes arrays and torch tensors alike: "
                "x / 16, x.reshape(...), x.clip(0, 1), np.log1p(x) do."
            ) from cause
        checked.append(True)

    def transform(x):
        if not checked and len(x):
            check(x)
        return call(x)

    return TransformerView(transform)
