"""How a classifier represents rows: what its last, linear layer sees, or its leaves."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix, issparse
from sklearn.base import MetaEstimatorMixin, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ... import differentiable
from ..._estimators import RoutesToEstimator, is_net, name_of
from ..._rows import is_dataframe, writable
from ..._sklearn import BaseEstimator, HasMethods, Interval, fit_context, validate_data
from ...differentiable._neural import module_view
from ...exceptions import NoGradientError
from ...trees import is_tree_ensemble, tree_ensemble
from ...victim import fit_victim
from ...victim._fitting import CLASSIFIER, needs_labels
from .._base import Sanitizer, Verdict

_BATCH = 1024
_ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


class Network:
    """A fitted classifier as a feature map with a linear layer behind it.

    Nets of skorch, torch modules, perceptrons and linear models, also at the end of a
    pipeline whose steps have differentiable views: then gradients pass through these, and
    the parameters are those of the last step.

    Parameters
    ----------
    estimator : classifier
        Fitted; it is never changed.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        What the logits stand for.
    dtype : torch.dtype
        Of the tensors that it takes.
    module : torch.nn.Module
        A copy of the network, in evaluation mode and with frozen parameters.
    """

    def __init__(self, estimator):
        self._before, last = None, estimator
        while True:
            if isinstance(last, FrozenEstimator):
                last = last.estimator
            elif hasattr(last, "best_estimator_"):
                last = last.best_estimator_
            elif isinstance(last, Pipeline):
                steps, last = last[:-1], last[-1]
                if len(steps):
                    self._stack(differentiable.view(steps).transform)
            else:
                break
        view = _view(last)
        if view is None or view.module is None:
            raise NoGradientError(
                f"{name_of(estimator)} is no network and no linear model, so it has no "
                "last layer. Use a skorch net, MLPClassifier or a linear classifier, "
                "alone or behind steps with a differentiable view."
            )
        self.classes, self.module = np.asarray(view.classes), view.module
        self.dtype = view.dtype if self._before is None else torch.float64
        self._logits = view.logits
        self._last = None

    def _stack(self, transform):
        below = self._before
        self._before = (
            transform if below is None else lambda x: transform(below(x))
        )  # fmt: skip

    def tensor(self, array):
        """Return rows as a tensor that the network takes."""
        return torch.as_tensor(writable(np.asarray(array)), dtype=self.dtype)

    def logits(self, x):
        """Return the logits of a tensor of rows, of shape (n, n_classes)."""
        return self._logits(x if self._before is None else self._before(x))

    def features(self, x):
        """Return what the last layer sees of a tensor of rows, of shape (n, width)."""
        if self._last is None:
            self._last = self._last_layer(x[:1])
        seen = []
        hook = self._last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            self.logits(x)
        finally:
            hook.remove()
        return seen[-1].flatten(1)

    def _last_layer(self, x):
        """Return the layer with weights that comes last in a forward pass."""
        ran, hooks = [], []
        for layer in self.module.modules():
            if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
                hooks.append(
                    layer.register_forward_pre_hook(lambda at, _: ran.append(at))
                )
        try:
            with torch.no_grad():
                self.logits(x)
        finally:
            for hook in hooks:
                hook.remove()
        if not ran:
            raise NoGradientError(
                f"{type(self.module).__name__} has no linear layer and no convolution, "
                "so its last hidden layer is unknown."
            )
        return ran[-1]

    def parameters(self):
        """Return the parameters, thawed: gradients may be taken with respect to them."""
        return [p.requires_grad_() for p in self.module.parameters()]


def _view(estimator):
    """Return the view of a network or a linear model, which are modules then."""
    if isinstance(estimator, MLPClassifier):
        check_is_fitted(estimator)
        layers = list(zip(estimator.coefs_, estimator.intercepts_, strict=True))
        stack = [_linear(weight.T, bias) for weight, bias in layers]
        between = [_ACTIVATIONS[estimator.activation]() for _ in stack[:-1]]
        parts = [part for pair in zip(stack, between, strict=False) for part in pair]
        parts.append(stack[-1])
    elif hasattr(estimator, "coef_") and hasattr(estimator, "classes_"):
        weight = np.atleast_2d(estimator.coef_)
        bias = np.broadcast_to(estimator.intercept_, len(weight))
        parts = [_linear(weight, bias)]
    else:
        try:
            return differentiable.view(estimator)
        except NoGradientError:
            return None
    view = module_view(
        nn.Sequential(*parts), estimator.classes_, differentiable.binary_logits
    )
    return view


def _linear(weight, bias):
    shape = weight.shape[1], weight.shape[0]
    # Weights that are drawn first would advance the global seed.
    layer = nn.utils.skip_init(nn.Linear, *shape, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(np.ascontiguousarray(weight)))
        layer.bias.copy_(torch.as_tensor(np.array(bias, dtype=np.float64)))
    return layer


def represent(estimator, rows):
    """Return a classifier's representation of rows: an array, or a CSR matrix of leaves.

    Parameters
    ----------
    estimator : classifier
        Fitted: what :class:`Network` takes, or a tree ensemble.
    rows : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
        Rows as it takes them.
    """
    if is_tree_ensemble(estimator):
        leaves = tree_ensemble(estimator).apply(rows)
        _, columns = np.unique(leaves, return_inverse=True)  # nodes of all trees differ
        columns = columns.reshape(leaves.shape)
        ends = np.arange(len(leaves) + 1) * leaves.shape[1]
        return csr_matrix((np.ones(columns.size), columns.ravel(), ends))
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        rows, estimator = estimator[:-1].transform(rows), estimator[-1]
        return represent(estimator, rows)
    network = Network(estimator)
    if is_dataframe(rows):
        rows = rows.to_numpy(dtype=np.float64)
    parts = []
    for start in range(0, rows.shape[0], _BATCH):
        part = rows[start : start + _BATCH]
        part = part.toarray() if issparse(part) else part
        with torch.no_grad():
            parts.append(network.features(network.tensor(part)).cpu().numpy())
    return np.concatenate(parts)


class LastHiddenLayer(
    RoutesToEstimator, TransformerMixin, MetaEstimatorMixin, BaseEstimator
):
    """The last hidden layer of a network, as a transformer.

    With a linear classifier behind it, this is transfer learning: features that stay, and
    a last layer that is trained on new rows. Gradients pass through it.

    Parameters
    ----------
    estimator : classifier or torch.nn.Module
        The network: a skorch net, `MLPClassifier` or a torch module. A trained one stays
        as it is in a `FrozenEstimator`; a bare module is taken as trained.

    Attributes
    ----------
    estimator_ : classifier
        The fitted network.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    FeatureCollision : Attacks models that are built on such features.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_advsec.poisoning import LastHiddenLayer
    >>> X, y = load_digits(return_X_y=True)
    >>> net = MLPClassifier((32,), max_iter=50, tol=0.1, random_state=0).fit(X, y < 5)
    >>> transfer = make_pipeline(LastHiddenLayer(FrozenEstimator(net)), RidgeClassifier())
    >>> transfer.fit(X[:500], y[:500])[:-1].transform(X[:2]).shape
    (2, 32)
    """

    _parameter_constraints = {"estimator": CLASSIFIER}

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the network; one that is trained stays as it is.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.
        y : array-like of shape (n_samples,), default=None
            Their labels. Not needed for a network that is trained already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the network only.

        Returns
        -------
        self : object
            The fitted transformer.
        """
        X = self._check_X(X, reset=True)
        self.estimator_ = fit_victim(
            self.estimator, X, y, owner=self, sample_weight=sample_weight
        )
        self._n_features_out = represent(self.estimator_, X[:1]).shape[1]
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Return what the last layer of the network sees.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.

        Returns
        -------
        features : ndarray of shape (n_samples, width)
            The last hidden layer.
        """
        check_is_fitted(self)
        return represent(self.estimator_, self._check_X(X, reset=False))

    def _check_X(self, X, *, reset):
        dtype = np.float32 if is_net(self.estimator) else [np.float64, np.float32]
        return validate_data(
            self, X, reset=reset, dtype=dtype, allow_nd=True, force_writeable=True
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = needs_labels(self.estimator)
        tags.input_tags.allow_nan = False
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")


@differentiable.register(LastHiddenLayer)
def last_hidden_layer(estimator):
    """View the features."""
    return differentiable.TransformerView(Network(estimator.estimator_).features)


class RepresentationSanitizer(Sanitizer):
    """Base of the sanitizers that look at how a classifier represents rows.

    A subclass writes ``_of_class(features, code, data)``, which returns the scores of the
    rows of a class, and which of them are suspicious, or None for all.

    Parameters
    ----------
    estimator : classifier or None
        Trained on the suspicious data for its representation of rows.
    representation : callable or None
        Maps rows to an array of shape (n_samples, width) instead.
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "contamination": [Interval(Real, 0, 1, closed="both")],
        "representation": [callable, None],
        "random_state": ["random_state"],
    }

    def _of_class(self, features, code, data):
        raise NotImplementedError

    def _decide(self, data):
        features = self._represent(data)
        scores = np.zeros(len(data.y))
        suspects = np.ones(len(data.y), dtype=bool)
        for code in range(len(data.classes)):
            of = np.flatnonzero(data.y == code)
            scores[of], chosen = self._of_class(features[of], code, data)
            if chosen is not None:
                suspects[of] = chosen
        return Verdict(scores, suspects)

    def _represent(self, data):
        """Return the representation of training data."""
        if self.representation is None:
            model = self._trained_on(self._own_estimator(), data, data.seed)
            return represent(model, data.rows)
        if isinstance(self.representation, type):
            raise ValueError(
                "representation must be a function of rows; got the class "
                f"{self.representation.__name__}."
            )
        found = self.representation(data.rows)
        found = found if issparse(found) else np.asarray(found, dtype=np.float64)
        if found.ndim != 2 or found.shape[0] != len(data.y):
            raise ValueError(
                f"representation must return an array of shape ({len(data.y)}, width), a "
                f"row for each row of X; got {found.shape}."
            )
        if not np.isfinite(found.data if issparse(found) else found).all():
            raise ValueError("representation must return finite numbers.")
        return found.tocsr() if issparse(found) else found
