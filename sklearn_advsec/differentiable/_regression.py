"""Views of regressors: one column of values, where classifiers have logits."""

import numpy as np
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import BaggingRegressor, StackingRegressor, VotingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lars,
    LinearRegression,
    OrthogonalMatchingPursuit,
    OrthogonalMatchingPursuitCV,
    PoissonRegressor,
    QuantileRegressor,
    RANSACRegressor,
    Ridge,
    RidgeCV,
    SGDRegressor,
    TheilSenRegressor,
    TweedieRegressor,
)
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVR, LinearSVR, NuSVR

from .._estimators import name_of
from .._sklearn import LinearModelCV
from ..exceptions import NoGradientError
from ._ensemble import weights_of_voters
from ._kernels import covariance_function, kernel_of
from ._linear import affine
from ._neural import multilayer_outputs
from ._registry import input_columns, register, subview
from ._views import ClassifierView, constant

# Their ways back are a factor and an offset.
_SCALERS = (MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler)


def value_view(values):
    """Return the view of a function of rows that gives a number for each."""
    return ClassifierView(None, logits=lambda x: values(x).reshape(-1, 1))


def _values_of(estimator):
    """Return the view of a part as a function that gives numbers, of shape (n,)."""
    logits = subview(estimator).logits
    return lambda x: logits(x)[:, 0].to(x)


def refuse_several(estimator, n_outputs):
    """Raise where a regressor predicts more than one value a row."""
    if n_outputs != 1:
        raise NoGradientError(
            f"{name_of(estimator)} predicts {n_outputs} values a row; views are of "
            "regressors of one target."
        )


@register(ARDRegression)
@register(BayesianRidge)
@register(ElasticNet)
@register(HuberRegressor)
@register(Lars)
@register(LinearModelCV)
@register(LinearRegression)
@register(LinearSVR)
@register(OrthogonalMatchingPursuit)
@register(OrthogonalMatchingPursuitCV)
@register(QuantileRegressor)
@register(Ridge)
@register(RidgeCV)
@register(SGDRegressor)
@register(TheilSenRegressor)
def linear_regressor(estimator):
    """View linear regressors of one target."""
    refuse_several(estimator, len(np.atleast_2d(estimator.coef_)))
    return value_view(affine(estimator))


@register(PLSRegression)
def partial_least_squares(estimator):
    """View PLSRegression of one target: it is affine, too."""
    refuse_several(estimator, len(estimator.coef_))
    weight = constant(estimator.coef_)[0]
    bias = float(np.ravel(estimator.predict(np.zeros((1, len(weight)))))[0])
    return value_view(lambda x: x @ weight + bias)


@register(GammaRegressor)
@register(PoissonRegressor)
@register(TweedieRegressor)
def generalized_linear_regressor(estimator):
    """View regressors whose link is the logarithm, or none."""
    value = affine(estimator)
    link = getattr(estimator, "link", "log")
    if link == "auto":
        link = "identity" if estimator.power <= 0 else "log"
    return value_view(value if link == "identity" else lambda x: torch.exp(value(x)))


@register(SVR)
@register(NuSVR)
def support_vector_regressor(estimator):
    """View SVR and NuSVR."""
    kernel = kernel_of(estimator, estimator.support_vectors_, estimator._gamma)
    dual, bias = constant(estimator.dual_coef_)[0], float(estimator.intercept_[0])
    return value_view(lambda x: kernel(x) @ dual + bias)


@register(KernelRidge)
def kernel_ridge(estimator):
    """View KernelRidge of one target."""
    dual = np.reshape(estimator.dual_coef_, (len(estimator.X_fit_), -1))
    refuse_several(estimator, dual.shape[1])
    kernel = kernel_of(estimator, estimator.X_fit_, estimator.gamma)
    dual = constant(dual[:, 0])
    return value_view(lambda x: kernel(x) @ dual)


@register(GaussianProcessRegressor)
def gaussian_process(estimator):
    """View GaussianProcessRegressor of one target: the mean of the posterior."""
    alpha = np.reshape(estimator.alpha_, (len(estimator.X_train_), -1))
    refuse_several(estimator, alpha.shape[1])
    kernel = covariance_function(estimator.kernel_, estimator.X_train_)
    weight = constant(alpha[:, 0])
    scale, offset = (
        float(np.ravel(value)[0])
        for value in (estimator._y_train_std, estimator._y_train_mean)
    )
    return value_view(lambda x: scale * (kernel(x) @ weight) + offset)


@register(MLPRegressor)
def multilayer_regressor(estimator):
    """View MLPRegressor, whose last layer has no activation, or the exponential."""
    refuse_several(estimator, estimator.n_outputs_)
    outputs = multilayer_outputs(estimator)
    if estimator.out_activation_ == "exp":  # of loss="poisson"
        return value_view(lambda x: torch.exp(outputs(x)))
    return value_view(outputs)


@register(RANSACRegressor, takes_codes=True)
def random_sample_consensus(estimator):
    """View the regressor that was fitted on the inliers."""
    return subview(estimator.estimator_)


@register(BaggingRegressor)
def bagged_regressor(estimator):
    """View BaggingRegressor: a mean."""
    parts = [
        (_values_of(part), torch.as_tensor(chosen))
        for part, chosen in zip(
            estimator.estimators_, estimator.estimators_features_, strict=True
        )
    ]
    return value_view(
        lambda x: sum(value(x.index_select(1, at)) for value, at in parts) / len(parts)
    )


@register(VotingRegressor, takes_codes=True)
def voting_regressor(estimator):
    """View VotingRegressor: a weighted mean."""
    parts = [_values_of(part) for part in estimator.estimators_]
    weights = weights_of_voters(estimator)

    def values(x):
        total = sum(w * part(x) for w, part in zip(weights, parts, strict=True))
        return total / sum(weights)

    return value_view(values)


@register(StackingRegressor, takes_codes=True)
def stacked_regressor(estimator):
    """View StackingRegressor: what some predict, another one's features are."""
    parts = [_values_of(part) for part in estimator.estimators_]
    passed = subview(FunctionTransformer()).transform if estimator.passthrough else None

    def transform(x):
        blocks = [torch.stack([part(x) for part in parts], dim=1)]
        return torch.cat(blocks if passed is None else [*blocks, passed(x)], dim=1)

    with input_columns(None):
        return subview(estimator.final_estimator_).compose(transform)


@register(TransformedTargetRegressor, takes_codes=True)
def transformed_target(estimator):
    """View TransformedTargetRegressor, where the way back is a function or a scaler's."""
    value, transformer = _values_of(estimator.regressor_), estimator.transformer_
    if type(transformer) is FunctionTransformer:
        way_back = FunctionTransformer(transformer.inverse_func).fit(np.ones((1, 1)))
        with input_columns(None):
            back = subview(way_back).transform
        return value_view(lambda x: back(value(x)[:, None]))
    if type(transformer) in _SCALERS:
        offset, end = transformer.inverse_transform([[0.0], [1.0]])[:, 0].tolist()
        return value_view(lambda x: value(x) * (end - offset) + offset)
    raise NoGradientError(
        f"TransformedTargetRegressor: the inverse of {name_of(transformer)} has no "
        "differentiable view; those of FunctionTransformer and of scalers have one."
    )
