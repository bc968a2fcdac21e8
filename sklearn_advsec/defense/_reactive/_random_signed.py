"""Random depthwise signed convolutional networks (Xue and Roshan 2018)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Self

import numpy as np
import torch
from joblib import delayed
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional as F

from ... import differentiable
from ..._parallel import run_tasks
from ..._progress import logged
from ..._rows import check_weights, pixel_grid, same_shape
from ..._sklearn import BaseEstimator, Interval, fit_context, validate_data
from ...differentiable._views import ClassifierView

# Filters that are computed together, and values of their first maps that are held at
# once: as many as a processor's cache takes.
_BLOCK, _VALUES = 64, 2**19
# Width of the pooling. It moves by one pixel, so that the average counts every place:
# with halved maps, features are coarser and accuracy lower.
_POOL = 4


class RandomDepthwiseSignedClassifier(ClassifierMixin, BaseEstimator):
    """Random convolutions with sign activations, and a linear classifier on top.

    Each filter is a stack of its own: a random convolution over all channels, an average
    pooling, and a random convolution of its one map (depthwise), with weights N(0, 1) and
    sign activations; the average of the last map is one feature. A linear support vector
    machine learns on the features, and nothing else learns. Filters are made from the
    seed when they are needed and never stored. The paper's stacks differ in two places:
    their pooling halves the maps (here it moves by one pixel, which keeps more of them),
    and they have two depthwise convolutions (here one).

    The sign has no gradient, so plain gradient attacks find nothing: that masks
    gradients and is no robustness. Gradient attacks of this package take the backward
    pass of the sign for that of a smooth step, :math:`x / (s + |x|)`.

    Measured with 1000 filters on MNIST (10,000 training rows, clean accuracy 0.978) at
    Linf 0.1: 0.240 is left by attacks transferred from a network, and nothing by PGD of
    20 steps with that backward pass, or by a square attack that sees scores only
    (``benchmarks/results/defense.md``).

    Parameters
    ----------
    n_filters : int, default=1000
        Number of features. Accuracy grows with it; the paper takes 100,000.
    kernel_size : int, default=9
        Width of the first convolution; the second has 3.
    C : float, default=0.005
        Inverse regularisation of the linear classifier.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width). Rows that are no
        images are one line of pixels.
    n_jobs : int, default=None
        Number of joblib jobs over blocks of filters.
    random_state : int, RandomState instance or None, default=0
        Seed of the filters.

    Attributes
    ----------
    classifier_ : LinearSVC
        On the features, which `scaler_` has scaled.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    seed_ : int
        Seed of the filters.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    sklearn_advsec.metrics.gradient_masking_report : Signs that gradients are only hidden.

    References
    ----------
    .. [1] Y. Xue and U. Roshan, "Random depthwise signed convolutional neural networks",
       arXiv:1806.05789.
    .. [2] A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of
       security", arXiv:1802.00420 (why the sign is no defense).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_advsec.defense import RandomDepthwiseSignedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> signed = RandomDepthwiseSignedClassifier(n_filters=200, image_shape=(8, 8))
    >>> signed.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.8
    True
    """

    _parameter_constraints = {
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "image_shape": [tuple, list, None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_filters: int = 1000,
        *,
        kernel_size: int = 9,
        C: float = 0.005,
        image_shape: tuple[int, ...] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_filters = n_filters
        self.kernel_size = kernel_size
        self.C = C
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the linear classifier on random features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Rows.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the linear classifier.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], allow_nd=True)
        check_classification_targets(y)
        same_shape(self, X, reset=True)
        self.shape_ = pixel_grid(X.shape[1:], self.image_shape)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        features = self._features(X)
        sample_weight = check_weights(sample_weight, len(X))
        self.scaler_ = StandardScaler().fit(features)
        self.classifier_ = LinearSVC(C=self.C, dual="auto", random_state=0)
        self.classifier_.fit(self.scaler_.transform(features), y, sample_weight)
        self.classes_ = self.classifier_.classes_
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute the linear classifier's decision function.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Signed distances.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, reset=False, dtype=[np.float64, np.float32], allow_nd=True
        )
        same_shape(self, X, reset=False)
        features = self.scaler_.transform(self._features(X))
        return self.classifier_.decision_function(features)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        decision = self.decision_function(X)
        at = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(1)
        return self.classes_[at]

    def _features(self, X):
        blocks = self._blocks()
        images = torch.as_tensor(X.astype(np.float32)).reshape(-1, *self.shape_)
        parts = run_tasks(
            (delayed(_block_features)(images, block) for block in blocks), self.n_jobs
        )
        parts = logged(parts, type(self).__name__, "block of filters", len(blocks))
        return torch.cat(list(parts), dim=1).double().numpy()

    def _blocks(self):
        """Describe the blocks of filters: their seed, size, and shape."""
        sizes = [_BLOCK] * (self.n_filters // _BLOCK)
        if self.n_filters % _BLOCK:
            sizes.append(self.n_filters % _BLOCK)
        return [
            (self.seed_, i, size, self.shape_[0], self.kernel_size)
            for i, size in enumerate(sizes)
        ]


class _Sign(torch.autograd.Function):
    """The sign; backwards, x / (s + |x|) with s the mean of |x| over the map."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx, gradient):
        size = ctx.saved_tensors[0].abs()
        scale = size.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        return gradient * (scale / (scale + size).square())


def _block_features(images, block):
    """Compute the features of a block, with a gradient where the images want one."""
    size = images.shape[2:]
    weights = _block_weights(block, size)
    n_rows = max(1, _VALUES // (_BLOCK * size.numel()))
    return torch.cat([_forward(part, weights) for part in images.split(n_rows)])


def _block_weights(block, size):
    """Draw the filters of a block; images of one line have filters of one line."""
    seed, index, n_filters, channels, width = block
    rng = np.random.default_rng([seed, index])
    first, second = ([min(w, s) for s in size] for w in (width, 3))
    shapes = [(n_filters, channels, *first), (n_filters, 1, *second)]
    weights = [torch.as_tensor(rng.standard_normal(s)).float() for s in shapes]
    return [w.to(memory_format=torch.channels_last) for w in weights]


def _forward(images, weights):
    first, second = weights
    images = images.to(memory_format=torch.channels_last)
    maps = _Sign.apply(F.conv2d(images, first, padding=_half(first)))
    pool = [min(_POOL, size) for size in maps.shape[2:]]
    maps = F.avg_pool2d(maps, pool, stride=1)
    maps = F.conv2d(maps, second, padding=_half(second), groups=len(second))
    return _Sign.apply(maps).mean(dim=(2, 3))


def _half(weight):
    return [size // 2 for size in weight.shape[2:]]


@differentiable.register(RandomDepthwiseSignedClassifier)
def random_depthwise_signed(estimator):
    """View the features, with a backward pass for the sign, and the linear classifier."""
    inside = differentiable.view(estimator.classifier_)
    center = differentiable.view(estimator.scaler_)
    blocks = estimator._blocks()

    def decision_function(x):
        images = x.float().reshape(-1, *estimator.shape_)
        parts = [_block_features(images, block) for block in blocks]
        features = torch.cat(parts, dim=1).double()
        return inside.decision_function(center.transform(features))

    return ClassifierView(estimator.classes_, decision_function=decision_function)
