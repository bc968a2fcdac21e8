"""Views of regressors: one column of values, where classifiers have logits."""

from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    LinearRegression,
    QuantileRegressor,
    Ridge,
    RidgeCV,
    SGDRegressor,
)
from sklearn.neural_network import MLPRegressor
from sklearn.svm import LinearSVR

from .._sklearn import LinearModelCV
from ._linear import affine
from ._neural import multilayer_outputs
from ._registry import register
from ._views import ClassifierView


def _values(function, **options):
    return ClassifierView(None, logits=function, **options)


@register(ARDRegression)
@register(BayesianRidge)
@register(ElasticNet)
@register(HuberRegressor)
@register(LinearModelCV)
@register(LinearRegression)
@register(LinearSVR)
@register(QuantileRegressor)
@register(Ridge)
@register(RidgeCV)
@register(SGDRegressor)
def linear_regressor(estimator):
    """View linear regressors of one target."""
    value = affine(estimator)
    return _values(lambda x: value(x).reshape(-1, 1))


@register(MLPRegressor)
def multilayer_regressor(estimator):
    """View MLPRegressor, whose last layer has no activation."""
    return _values(multilayer_outputs(estimator))
