"""Networks of small integers and signs, which encrypted arithmetic is quick at."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .._labels import class_positions, several_classes
from .._progress import ReportsProgress
from .._seeding import seeded_torch
from .._sklearn import BaseEstimator, Interval, StrOptions, fit_context, validate_data
from ._graph import Activation, Affine, Graph, register_graph


class DiscretizedMLPClassifier(ReportsProgress, ClassifierMixin, BaseEstimator):
    """A perceptron with small integer weights, sign activations and binary inputs.

    The discretized network of FHE-DiNN [1]_. It is trained in floats, of which rounded
    copies are used in the forward pass; gradients pass the rounding and the signs as if
    they were not there (the straight-through estimator [2]_). The sums of hidden neurons
    are normalised over batches, which goes into their constants at the end.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(30,)
        Neurons of the hidden layers.
    max_weight : int, default=1
        Weights are whole numbers from ``-max_weight`` to ``max_weight``.
    threshold : float, "median" or None, default="median"
        Features above it count as 1, others as -1; "median" is that of each feature.
        None takes rows as they are, for those that were made binary before.
    max_epochs : int, default=60
        Passes over the data.
    learning_rate : float, default=0.01
        Step size of Adam, which falls to 0 along a cosine.
    batch_size : int, default=128
        Rows per step.
    penalty : float, default=0.0
        Weight of the mean absolute sum of a hidden neuron: small sums are cheap where
        the cost doubles with every bit of them.
    noise : float, default=0.3
        Standard deviation of what is added to the sums of hidden neurons in training, in
        units of their own. Sums that are rounded, or encrypted with noise, differ as
        much; it also keeps a network from fitting its rows too closely.
    random_state : int, RandomState instance or None, default=0
        Seeds the initial weights and the order of rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    coefs_ : list of ndarray of int, shape (n_outputs, n_inputs)
        The weights of each layer.
    intercepts_ : list of ndarray of shape (n_outputs,)
        The constants. Of hidden layers they are whole numbers and a half, so that no sum
        is 0; of the last one any numbers, so that no two scores tie.
    thresholds_ : ndarray of shape (n_features,) or None
        What makes rows binary.
    n_iter_ : int
        Number of epochs.

    See Also
    --------
    EncryptedClassifier : Predicts with it on encrypted rows.

    References
    ----------
    .. [1] F. Bourse, M. Minelli, M. Minihold and P. Paillier, "Fast homomorphic
       evaluation of deep discretized neural networks", eprint 2017/1114 (Section 3).
    .. [2] I. Hubara et al., "Binarized neural networks", arXiv:1602.02830 (Equation 4).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_advsec.encryption import DiscretizedMLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DiscretizedMLPClassifier(max_epochs=20).fit(X[:1000], y[:1000])
    >>> bool(model.score(X[1000:], y[1000:]) > 0.75)
    True
    """

    _parameter_constraints = {
        "hidden_layer_sizes": ["array-like"],
        "max_weight": [Interval(Integral, 1, 127, closed="both")],
        "threshold": [
            Interval(Real, None, None, closed="neither"),
            StrOptions({"median"}),
            None,
        ],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "penalty": [Interval(Real, 0, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (30,),
        *,
        max_weight: int = 1,
        threshold: float | Literal["median"] | None = "median",
        max_epochs: int = 60,
        learning_rate: float = 0.01,
        batch_size: int = 128,
        penalty: float = 0.0,
        noise: float = 0.3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_weight = max_weight
        self.threshold = threshold
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.penalty = penalty
        self.noise = noise
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Their labels.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_ = several_classes(y)
        codes = class_positions(y, self.classes_, "y")
        sizes = np.ravel(self.hidden_layer_sizes).tolist()
        if not sizes or not all(isinstance(s, int) and s >= 1 for s in sizes):
            raise ValueError(
                "hidden_layer_sizes must hold whole numbers of at least 1; got "
                f"{self.hidden_layer_sizes!r}."
            )
        self.thresholds_ = self._make_thresholds(X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        sizes = [X.shape[1], *sizes, len(self.classes_)]
        with seeded_torch(seed), self._reported(X, y):
            self._train(self._binary(X), codes, sizes)
        return self

    def _n_tasks(self):
        return self.max_epochs

    def _make_thresholds(self, X):
        if self.threshold is None:
            return None
        if isinstance(self.threshold, str):
            return np.median(X, axis=0)
        return np.full(X.shape[1], float(self.threshold))

    def _binary(self, X):
        return (
            X if self.thresholds_ is None else np.where(X > self.thresholds_, 1.0, -1.0)
        )

    def _train(self, X, codes, sizes):
        X = torch.as_tensor(X, dtype=torch.float32)
        codes = torch.as_tensor(codes)
        weights = [
            (torch.rand(m, n) * 2 - 1).requires_grad_()
            for n, m in zip(sizes, sizes[1:], strict=False)
        ]
        biases = [torch.zeros(m, requires_grad=True) for m in sizes[1:]]
        # Scores are whole numbers of up to the width, and no weight can make them larger:
        # how steep the softmax of them is, is learned.
        steepness = torch.tensor(-0.5 * np.log(sizes[-2]), dtype=torch.float32)
        parameters = [*weights, *biases, steepness.requires_grad_()]
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        n_steps = self.max_epochs * -(-len(X) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        for epoch in self._tasks(range(self.max_epochs), "epoch"):
            for rows in torch.randperm(len(X)).split(int(self.batch_size)):
                optimizer.zero_grad()
                scores, sums = self._forward(X[rows], weights, biases)
                loss = torch.nn.functional.cross_entropy(
                    scores * steepness.exp() / self.max_weight, codes[rows]
                )
                loss = loss + self.penalty * sums
                loss.backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    for weight in weights:
                        weight.clamp_(-1, 1)
            self.n_iter_ = epoch + 1
        self.coefs_ = [
            np.rint(self.max_weight * w.detach().numpy()).astype(np.int64)
            for w in weights
        ]
        self.intercepts_ = []
        with torch.no_grad():
            for weight, bias in zip(self.coefs_[:-1], biases[:-1], strict=True):
                z = X @ torch.as_tensor(weight, dtype=torch.float32).T
                # What normalised the sums goes into the constant.
                shift = torch.floor(bias * _spread(z) - z.mean(0)) + 0.5
                self.intercepts_.append(shift.numpy().astype(np.float64))
                X = torch.where(z + shift >= 0, 1.0, -1.0)
        self.intercepts_.append(biases[-1].detach().numpy().astype(np.float64))

    def _forward(self, x, weights, biases):
        """Compute scores with rounded weights, and the mean size of the hidden sums."""
        size = torch.zeros(())
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            rounded = _straight(torch.round(self.max_weight * weight), weight)
            if k == len(weights) - 1:
                return x @ rounded.T + bias, size
            z = x @ rounded.T
            spread = _spread(z)
            normal = (z - z.mean(0)) / spread + bias
            size = size + (normal * spread).abs().mean() / len(weights)
            if self.noise:
                normal = normal + self.noise * torch.randn_like(normal)
            # The gradient of the sign: that of its hard tanh.
            x = _straight(torch.where(normal >= 0, 1.0, -1.0), normal.clamp(-1, 1))
        raise AssertionError("there is a last layer")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # of few features, a bit each is little
        return tags

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute the sums of the last layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Sums; of two classes, how much larger the second one is.
        """
        check_is_fitted(self)
        x = self._binary(validate_data(self, X, reset=False, dtype=np.float64))
        for weight, bias in zip(self.coefs_[:-1], self.intercepts_[:-1], strict=True):
            x = np.where(x @ weight.T + bias >= 0, 1.0, -1.0)
        scores = x @ self.coefs_[-1].T + self.intercepts_[-1]
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        scores = self.decision_function(X)
        if len(self.classes_) == 2:
            return self.classes_[(scores > 0).astype(int)]
        return self.classes_[scores.argmax(axis=1)]


def _spread(z):
    """Return the standard deviation of each neuron's sums."""
    return (z.var(0, correction=0) + 1.0).sqrt()


def _straight(value, like):
    """Return a value whose gradient is that of something else."""
    return like + (value - like).detach()


@register_graph(DiscretizedMLPClassifier)
def discretized_perceptron(estimator, n_features):
    """Read a discretized perceptron, whose rows were made binary before."""
    if estimator.thresholds_ is not None:
        raise TypeError(
            "estimator: DiscretizedMLPClassifier makes rows binary, which costs as "
            "much as a layer of signs. Do it on the client's side (Binarizer), and set "
            "threshold=None."
        )
    layers = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        if layers:
            layers.append(Activation("sign"))
        layers.append(Affine(weight.astype(np.float64), bias.astype(np.float64)))
    last = layers[-1]
    if len(last.bias) == 2:
        layers[-1] = Affine(
            last.weight[1:] - last.weight[:1], last.bias[1:] - last.bias[:1]
        )
    return Graph(layers)
