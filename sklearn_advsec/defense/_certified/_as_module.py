"""Fitted classifiers as torch modules from rows to logits, for bounds."""

import copy

import torch
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from torch import nn

from ... import differentiable
from ..._sklearn import BaseSearchCV
from ...differentiable._views import constant
from .._base import TrainingDefense

LINEAR = (
    LogisticRegression,
    RidgeClassifier,
    RidgeClassifierCV,
    Perceptron,
    SGDClassifier,
    LinearSVC,
)
_AFFINE = (
    StandardScaler,
    MinMaxScaler,
    MaxAbsScaler,
    RobustScaler,
    PCA,
    TruncatedSVD,
    SelectorMixin,
)
_ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


def inner(estimator):
    """Return the classifier that a wrapper hands its rows to as they are."""
    if isinstance(estimator, FrozenEstimator):
        return inner(estimator.estimator)
    if isinstance(estimator, BaseSearchCV):
        return inner(estimator.best_estimator_)
    if isinstance(estimator, TrainingDefense):
        return inner(estimator.estimator_)
    return estimator


def as_module(estimator):
    """Return a fitted classifier as a frozen module whose outputs are logits.

    Networks, multi-layer perceptrons and linear classifiers have one, alone or behind
    transformers that are affine functions of the row.

    Raises
    ------
    TypeError
        For any other classifier.
    """
    estimator = inner(estimator)
    check_own_answers(estimator)
    if isinstance(estimator, Pipeline):
        steps = [s for _, s in estimator.steps[:-1] if s not in (None, "passthrough")]
        n_features = estimator.n_features_in_
        layers = []
        for step in steps:
            layers.append(_affine_layer(step, n_features))
            n_features = layers[-1].out_features
        last = as_module(estimator.steps[-1][1])
        device = next(last.parameters()).device  # a net's own; its precision is lower
        return nn.Sequential(*layers, last).to(device, torch.float64).eval()
    if isinstance(estimator, LINEAR):
        return _linear(constant(estimator.coef_), constant(estimator.intercept_))
    if isinstance(estimator, MLPClassifier):
        layers = []
        for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
            layers.append(_linear(constant(weight).T, constant(bias)))
            layers.append(_ACTIVATIONS[estimator.activation]())
        return nn.Sequential(*layers[:-1]).eval()
    module = getattr(estimator, "module_", getattr(estimator, "module", None))
    if isinstance(module, nn.Module):
        _check_outputs(estimator)
        return copy.deepcopy(module).eval().requires_grad_(False)
    raise TypeError(
        f"{type(estimator).__name__} has no bounds here. Known are networks, "
        "MLPClassifier and linear classifiers, alone or behind StandardScaler and the "
        "like. RandomizedSmoothingClassifier certifies any classifier."
    )


# Whose `predict` is the class of the largest output.
_OWN = ("sklearn", "skorch", "sklearn_advsec")


def check_own_answers(estimator):
    """Raise for a class derived from a known one that answers in another way."""
    for name in ("predict", "decision_function", "infer", "kneighbors", "transform"):
        method = getattr(type(estimator), name, None)
        package = getattr(method, "__module__", None) or _OWN[0]
        if package.partition(".")[0] not in _OWN:
            raise TypeError(
                f"{type(estimator).__name__} has a {name} of its own, of which its "
                "layers alone do not say enough for bounds."
            )


def _check_outputs(net):
    """Raise where the largest output of a module is not what the net predicts."""
    criterion = getattr(net, "criterion_", None)
    if isinstance(criterion, (nn.NLLLoss, nn.BCELoss)):
        raise TypeError(
            f"estimator: with criterion={type(criterion).__name__} the module returns "
            "probabilities. Bounds are of logits: use CrossEntropyLoss."
        )
    if getattr(net, "channels", "first") != "first":
        raise TypeError(
            f"estimator: bounds are of rows as the module takes them, and channels="
            f"{net.channels!r} moves them first."
        )
    if getattr(net, "threshold", 0.5) != 0.5:
        raise TypeError(
            f"estimator: bounds are of the threshold 0.5; it has {net.threshold}."
        )
    if callable(getattr(net, "predict_nonlinearity", None)):
        raise TypeError(
            "estimator: bounds are of the largest output of the module; with a function "
            "as predict_nonlinearity it need not be the label. Set it to 'auto'."
        )


def _affine_layer(transformer, n_features):
    """Make a layer of an affine transformer, from what it makes of the unit vectors."""
    check_own_answers(transformer)
    clips = getattr(transformer, "clip", False)
    if not isinstance(transformer, _AFFINE) or clips:
        raise TypeError(
            f"{type(transformer).__name__}{'(clip=True)' if clips else ''} is no affine "
            "transformer, so there are no bounds behind it."
        )
    transform = differentiable.view(transformer).transform
    origin = transform(torch.zeros(1, n_features, dtype=torch.float64))
    units = transform(torch.eye(n_features, dtype=torch.float64))
    return _linear((units - origin).T, origin[0])


def _linear(weight, bias):
    weight = torch.atleast_2d(weight)
    layer = nn.Linear(weight.shape[1], len(weight), dtype=torch.float64)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias.reshape(-1).expand(len(weight)).contiguous(), False)
    return layer.eval()
