"""What an estimator computes, as affine layers and activations.

:func:`graph` looks an estimator up in a registry; :func:`register_graph` adds to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import is_classifier, is_regressor
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC, LinearSVR

from .._estimators import is_net, name_of
from .._sklearn import LinearModel
from ..pretrained import PretrainedModule

_READERS = {}


@dataclass
class Affine:
    """``W x + b``.

    Attributes
    ----------
    weight : {ndarray, csr_array} of shape (n_outputs, n_inputs)
        The matrix.
    bias : ndarray of shape (n_outputs,)
        The constant.
    """

    weight: object
    bias: np.ndarray

    def __call__(self, x):
        """Apply to rows of shape (n_rows, n_inputs)."""
        return np.asarray((self.weight @ x.T).T) + self.bias


@dataclass
class Activation:
    """A function of each value by itself.

    Attributes
    ----------
    function : str
        One of those that :class:`PolynomialActivation` knows.
    polynomial : PolynomialActivation or None
        What the network has in its place already.
    """

    function: str
    polynomial: object = None


@dataclass
class Graph:
    """Layers, and what their last values mean.

    Attributes
    ----------
    layers : list of Affine and Activation
        From the rows to the scores.
    link : {"softmax", "sigmoid", None}
        What makes probabilities of the scores; None where nothing does.
    """

    layers: list
    link: str | None = None


def register_graph(kind: type) -> Callable[..., Any]:
    """Register the reader of an estimator.

    Parameters
    ----------
    kind : type
        The class, or a base of the classes, that the reader reads.

    Returns
    -------
    decorator : callable
        Decorates ``reader(estimator, n_features)``, where `estimator` is fitted. It
        returns a `Graph` for predictors, a list of layers for transformers.

    See Also
    --------
    EncryptedClassifier : Compiles what has a graph.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator, TransformerMixin
    >>> from sklearn_advsec.encryption import register_graph
    >>> from sklearn_advsec.encryption._graph import Affine
    >>> class Halve(TransformerMixin, BaseEstimator):
    ...     def fit(self, X, y=None):
    ...         return self
    ...     def transform(self, X):
    ...         return np.asarray(X) / 2
    >>> @register_graph(Halve)
    ... def halve(estimator, n_features):
    ...     return [Affine(np.eye(n_features) / 2, np.zeros(n_features))]
    """

    def decorator(reader):
        _READERS[kind] = reader
        return reader

    return decorator


def graph(estimator, row_shape):
    """Read a fitted estimator.

    Parameters
    ----------
    estimator : estimator
        A fitted predictor, or a pipeline that ends in one.
    row_shape : tuple of int
        The shape of one row.

    Returns
    -------
    graph : Graph
        Its layers.

    Raises
    ------
    TypeError
        If the estimator, or a step, is no composition of affine maps and activations;
        the message names it and its position.
    """
    read = _read(estimator, row_shape, where="")
    if not isinstance(read, Graph):
        raise TypeError(
            f"estimator: {name_of(estimator)} is a transformer; the last step has to be "
            "a classifier or a regressor."
        )
    return read


def _read(estimator, row_shape, where):
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    if isinstance(estimator, (GridSearchCV, RandomizedSearchCV)):
        return _read(estimator.best_estimator_, row_shape, where)
    if isinstance(estimator, Pipeline):
        return _pipeline(estimator, row_shape, where)
    if is_net(estimator):
        from ._networks import read_net

        return read_net(estimator, row_shape, where)
    if isinstance(estimator, PretrainedModule):
        from ._networks import read_pretrained

        return read_pretrained(estimator, row_shape, where)
    for base in type(estimator).__mro__:
        if base in _READERS:
            return _READERS[base](estimator, int(np.prod(row_shape)))
    raise TypeError(
        f"{where or 'estimator: '}{name_of(estimator)} cannot be computed under "
        "encryption: it is no composition of sums, products by constants and activations "
        "that polynomials can stand for. Those that can are "
        + ", ".join(sorted(kind.__name__ for kind in _READERS))
        + ", skorch networks, torch modules, and pipelines of these; scheme='tfhe' of "
        "EncryptedClassifier computes trees."
    )


def _pipeline(pipeline, row_shape, where):
    layers, n_features = [], int(np.prod(row_shape))
    result = layers
    for position, (name, step) in enumerate(pipeline.steps):
        if step in (None, "passthrough"):
            continue
        at = f"{where}step {position} ({name!r}): "
        shape = row_shape if not layers else (n_features,)
        read = _read(step, shape, at)
        if isinstance(read, Graph):
            if position < len(pipeline.steps) - 1:
                raise TypeError(
                    f"{at}{name_of(step)} is used as a transformer, and only its "
                    "predictions can be computed under encryption."
                )
            read.layers = layers + read.layers
            result = read
        else:
            layers += read
            if read:
                n_features = read[-1].weight.shape[0]
    return result


def scores_of(coef, intercept, where):
    """Make one layer of a linear model's coefficients."""
    coef = coef.toarray() if sparse.issparse(coef) else coef
    weight = np.atleast_2d(np.asarray(coef, dtype=np.float64))
    bias = np.zeros(len(weight)) + np.asarray(intercept, dtype=np.float64)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(f"{where}: its coefficients are not finite.")
    return Affine(weight, bias)


# Linear predictors ------------------------------------------------------------------
@register_graph(LinearDiscriminantAnalysis)
@register_graph(LinearSVC)
@register_graph(LogisticRegression)
@register_graph(Perceptron)
@register_graph(RidgeClassifier)
@register_graph(RidgeClassifierCV)
@register_graph(SGDClassifier)
def linear_classifier(estimator, n_features):
    """Read a linear classifier: its decision function."""
    layer = scores_of(estimator.coef_, estimator.intercept_, name_of(estimator))
    if len(layer.weight) not in (1, len(estimator.classes_)):
        raise TypeError(f"estimator: {name_of(estimator)} has several outputs.")
    link = None
    if isinstance(estimator, (LogisticRegression, LinearDiscriminantAnalysis)):
        link = "sigmoid" if len(layer.weight) == 1 else "softmax"
    return Graph([layer], link)


@register_graph(LinearModel)
@register_graph(LinearSVR)
@register_graph(SGDRegressor)
def linear_regressor(estimator, n_features):
    """Read a linear regressor."""
    if not is_regressor(estimator):
        raise TypeError(f"estimator: {name_of(estimator)} is no regressor.")
    layer = scores_of(estimator.coef_, estimator.intercept_, name_of(estimator))
    if len(layer.weight) != 1:
        raise TypeError(f"estimator: {name_of(estimator)} has several outputs.")
    return Graph([layer])


@register_graph(MLPClassifier)
@register_graph(MLPRegressor)
def multilayer_perceptron(estimator, n_features):
    """Read a perceptron of scikit-learn."""
    function = {"logistic": "sigmoid"}.get(estimator.activation, estimator.activation)
    layers = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        if layers and function != "identity":
            layers.append(Activation(function))
        layers.append(Affine(weight.T.astype(np.float64), bias.astype(np.float64)))
    n_outputs = len(layers[-1].bias)
    if not is_classifier(estimator):
        if n_outputs != 1:
            raise TypeError(f"estimator: {name_of(estimator)} has several outputs.")
        return Graph(layers)
    if estimator.out_activation_ == "logistic" and n_outputs > 1:
        raise TypeError(f"estimator: {name_of(estimator)} has several outputs.")
    return Graph(layers, "sigmoid" if n_outputs == 1 else "softmax")


# Affine transformers ----------------------------------------------------------------
def _diagonal(scale, shift):
    return [Affine(sparse.diags_array(scale).tocsr(), np.asarray(shift, dtype=float))]


@register_graph(StandardScaler)
def standard_scaler(scaler, n_features):
    """Read StandardScaler."""
    scale = np.ones(n_features) if scaler.scale_ is None else 1 / scaler.scale_
    mean = scaler.mean_ if scaler.with_mean else np.zeros(n_features)
    return _diagonal(scale, -mean * scale)


@register_graph(RobustScaler)
def robust_scaler(scaler, n_features):
    """Read RobustScaler."""
    scale = np.ones(n_features) if scaler.scale_ is None else 1 / scaler.scale_
    center = np.zeros(n_features) if scaler.center_ is None else scaler.center_
    return _diagonal(scale, -center * scale)


@register_graph(MinMaxScaler)
def min_max_scaler(scaler, n_features):
    """Read MinMaxScaler; one that clips is not affine."""
    if scaler.clip:
        raise TypeError("MinMaxScaler(clip=True) is not affine; set clip=False.")
    return _diagonal(scaler.scale_, scaler.min_)


@register_graph(MaxAbsScaler)
def max_abs_scaler(scaler, n_features):
    """Read MaxAbsScaler; one that clips is not affine."""
    if getattr(scaler, "clip", False):
        raise TypeError("MaxAbsScaler(clip=True) is not affine; set clip=False.")
    return _diagonal(1 / scaler.scale_, np.zeros(n_features))


@register_graph(PCA)
def principal_components(pca, n_features):
    """Read PCA."""
    weight = pca.components_.astype(np.float64)
    if pca.whiten:
        weight = weight / np.sqrt(pca.explained_variance_)[:, None]
    return [Affine(weight, -weight @ pca.mean_)]


@register_graph(TruncatedSVD)
def truncated_svd(svd, n_features):
    """Read TruncatedSVD."""
    weight = svd.components_.astype(np.float64)
    return [Affine(weight, np.zeros(len(weight)))]


@register_graph(SelectorMixin)
def selector(selector, n_features):
    """Read the selectors of features: some of the columns."""
    rows = np.flatnonzero(selector.get_support())
    weight = sparse.eye_array(n_features, format="csr")[rows]
    return [Affine(weight, np.zeros(len(rows)))]


@register_graph(FunctionTransformer)
def identity(transformer, n_features):
    """Read a FunctionTransformer that does nothing."""
    if transformer.func is not None:
        raise TypeError(
            "FunctionTransformer(func=...) is any function, not known to be affine."
        )
    return []
