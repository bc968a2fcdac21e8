"""Preprocessing of rows before a classifier sees them: noise, JPEG, squeezing."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.ndimage import median_filter
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ... import differentiable
from ..._rows import image_shape_of, pixel_grid, same_shape
from ..._sklearn import BaseEstimator, Interval, StrOptions, fit_context, validate_data
from ...evasion import JPEG
from ...threat import Box


class RowTransformer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the preprocessing defenses: rows are scaled to [0, 1] and back.

    A subclass writes `_transform(scaled)`, of an array in [0, 1] of the shape of the
    rows. Its parameters `bounds` and `image_shape` are read here.
    """

    image_shape = None

    _parameter_constraints = {
        "bounds": [StrOptions({"data"}), tuple, list],
        "image_shape": [tuple, list, None],
    }

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn the range of the features.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Rows.
        y : object
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.
        """
        X = self._check_X(X, reset=True)
        image_shape_of(self.row_shape_, self.image_shape)  # raises where it does not fit
        lower, upper = finite_range(self.bounds, X)
        if self.image_shape is not None:  # one range for all pixels
            lower, upper = np.min(lower), np.max(upper)
        self.lower_ = np.asarray(lower, dtype=np.float64)
        self.width_ = np.where(upper > lower, upper - lower, 1.0)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Transform rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        X_out : ndarray of shape (n_samples, ...)
            Rows of the same shape and precision.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        scaled = self._transform((X - self.lower_) / self.width_)
        return (scaled * self.width_ + self.lower_).astype(X.dtype)

    def _images(self, scaled):
        """Give rows the shape of images, (n, channels, height, width), or None."""
        shape = image_shape_of(self.row_shape_, self.image_shape)
        return None if shape is None else scaled.reshape(-1, *shape)

    def _check_X(self, X, *, reset):
        X = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], allow_nd=True
        )
        return same_shape(self, X, reset=reset)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def finite_range(bounds, X):
    """Return the range of the features, to which rows are scaled, or raise."""
    box = Box(bounds, X)
    if not (np.isfinite(box.lower).all() and np.isfinite(box.upper).all()):
        raise ValueError(
            f"bounds must be finite: rows are scaled to them; got {bounds!r}. 'data' "
            "takes the range of the training rows."
        )
    return box.lower, box.upper


class FeatureNoise(RowTransformer):
    """Add noise to every row before the classifier sees it.

    With an int as `random_state`, the noise of a row depends on the seed and on the row
    itself, so that the same row always gets the same noise, wherever it stands in `X`,
    and two different rows get different ones. None draws new noise in each call.

    By itself it is a weak defense: an attack tries rows until one has noise that helps
    it, and an attack on the mean over the noise
    (:class:`~sklearn_advsec.evasion.ExpectationOverTransformation` with
    :class:`~sklearn_advsec.evasion.GaussianNoise`) goes around it.
    :class:`RandomizedSmoothingClassifier` makes a certificate of it.

    Measured at ``sigma=0.2`` on digits, Linf 0.1: 0.550 is left by an attacker who
    does not know of it, and nothing by AutoAttack (``benchmarks/results/defense.md``).

    Parameters
    ----------
    sigma : float, default=0.1
        Size of the noise, as a share of the range of each feature.
    distribution : {"normal", "uniform"}, default="normal"
        Normal with standard deviation `sigma`, or uniform in [-sigma, sigma].
    bounds : "data" or tuple (lower, upper), default="data"
        The range of the features.
    random_state : int, RandomState instance or None, default=0
        Seed of the noise.

    Attributes
    ----------
    lower_, width_ : ndarray
        The range of the features.
    row_shape_ : tuple of int
        The shape of one row.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    RandomizedSmoothingClassifier : Noise with a certificate.
    FeatureSqueezing : Takes details away.

    References
    ----------
    .. [1] A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of
       security", arXiv:1802.00420 (Section 4.2, how such defenses break).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.defense import FeatureNoise
    >>> X = np.arange(6.0).reshape(3, 2)
    >>> noise = FeatureNoise(0.01).fit(X)
    >>> bool((noise.transform(X)[1:] == noise.transform(X[1:])).all())
    True
    """

    _parameter_constraints = {
        **RowTransformer._parameter_constraints,
        "sigma": [Interval(Real, 0, None, closed="left")],
        "distribution": [StrOptions({"normal", "uniform"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        sigma: float = 0.1,
        *,
        distribution: Literal["normal", "uniform"] = "normal",
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.sigma = sigma
        self.distribution = distribution
        self.bounds = bounds
        self.random_state = random_state

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Add noise.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        X_out : ndarray of shape (n_samples, ...)
            Rows of the same shape and precision.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        noise = np.empty(X.shape)
        for row, out in zip(X.astype(np.float32) + np.float32(0), noise, strict=True):
            rng = np.random.default_rng([seed, crc32(row.tobytes())])
            if self.distribution == "normal":
                out[...] = rng.standard_normal(out.shape)
            else:
                out[...] = rng.uniform(-1, 1, out.shape)
        return (X + self.sigma * self.width_ * noise).astype(X.dtype)


@differentiable.register(FeatureNoise)
def feature_noise(estimator):
    """View FeatureNoise; the backward pass is the identity."""
    return differentiable.bpda(estimator.transform)


class JPEGCompression(RowTransformer):
    """JPEG compression: quantise the cosine transform of blocks of 8 x 8 pixels.

    Every channel is treated as luminance. Rows that are no images are one line of pixels.
    It stops small perturbations that were made without it; an attack that takes the
    rounding for the identity, which is what attacks of this package do, goes around it.

    Measured at quality 50 on digits, Linf 0.1: 0.815 is left by an attacker who does
    not know of it, 0.310 by AutoAttack through the declared backward pass, and 0.270
    by PGD of 200 steps with restarts after it (``benchmarks/results/defense.md``).

    Parameters
    ----------
    quality : int, default=75
        JPEG's quality, 1 to 100.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    bounds : "data" or tuple (lower, upper), default="data"
        The range of the pixels; values beyond are cut off.

    Attributes
    ----------
    lower_, width_ : ndarray
        The range of the features.
    row_shape_ : tuple of int
        The shape of one row.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    FeatureSqueezing : Fewer values a pixel.
    sklearn_advsec.evasion.JPEG : The same, as what happens to an attacked image.

    References
    ----------
    .. [1] N. Das et al., "Keeping the bad guys out: protecting and vaccinating deep
       learning with JPEG compression", arXiv:1705.02900.
    .. [2] R. Shin and D. Song, "JPEG-resistant adversarial images", NIPS 2017 workshop on
       machine learning and computer security (the attack through a differentiable JPEG).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.defense import JPEGCompression
    >>> X = np.linspace(0, 1, 128).reshape(2, 64)
    >>> compressed = JPEGCompression(image_shape=(8, 8)).fit_transform(X)
    >>> bool(0 < np.abs(compressed - X).max() < 0.05)
    True
    """

    _parameter_constraints = {
        **RowTransformer._parameter_constraints,
        "quality": [Interval(Integral, 1, 100, closed="both")],
    }

    def __init__(
        self,
        quality: int = 75,
        *,
        image_shape: tuple[int, ...] | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
    ) -> None:
        self.quality = quality
        self.image_shape = image_shape
        self.bounds = bounds

    def _transform(self, scaled):
        with torch.no_grad():
            return self._compress(torch.as_tensor(scaled)).numpy()

    def _compress(self, scaled):
        images = scaled.reshape(-1, *pixel_grid(self.row_shape_, self.image_shape))
        compression = JPEG(self.quality, self.quality)
        return compression(images, torch.Generator().manual_seed(0)).reshape(scaled.shape)


@differentiable.register(JPEGCompression)
def jpeg_compression(estimator):
    """View JPEGCompression; rounding has the gradient of the identity."""

    def transform(x):
        lower = torch.as_tensor(estimator.lower_, device=x.device)
        width = torch.as_tensor(estimator.width_, device=x.device)
        scaled = estimator._compress((x.double() - lower) / width)
        return (scaled * width + lower).to(x.dtype)

    return differentiable.TransformerView(transform)


class FeatureSqueezing(RowTransformer):
    """Feature squeezing: fewer bits per feature, and a median filter for images.

    In a Pipeline before a classifier it removes small perturbations. To *detect* rows on
    which the classifier changes its mind by that, use :class:`AdversarialDetector` with
    ``detector="squeezing"``.

    It stops gradients, not attacks: an attack that takes the backward pass for the
    identity, which is what attacks of this package do, goes around it.

    Measured at 2 bits on digits, Linf 0.1: 0.920 is left by an attacker who does not
    know of it, and 0.740 by AutoAttack through the declared backward pass
    (``benchmarks/results/defense.md``).

    Parameters
    ----------
    bits : int, default=4
        Bits that are left of each feature's range; None leaves features as they are.
    window : int, default=None
        Width of the median filter, for images; None is no filter.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    bounds : "data" or tuple (lower, upper), default="data"
        The range of the features; values beyond are cut off.

    Attributes
    ----------
    lower_, width_ : ndarray
        The range of the features.
    row_shape_ : tuple of int
        The shape of one row.
    n_features_in_ : int
        Number of columns seen in `fit`.

    Raises
    ------
    ValueError
        If `window` is set for rows that are no images.

    See Also
    --------
    JPEGCompression : Takes details of images away.
    AdversarialDetector : Compares predictions before and after.

    References
    ----------
    .. [1] W. Xu, D. Evans, Y. Qi, "Feature squeezing: detecting adversarial examples in
       deep neural networks", arXiv:1704.01155 (Sections 3.1 and 3.2).
    .. [2] W. He et al., "Adversarial example defenses: ensembles of weak defenses are not
       strong", arXiv:1706.04701 (Section 4: its adaptive break).

    Examples
    --------
    >>> from sklearn_advsec.defense import FeatureSqueezing
    >>> squeeze = FeatureSqueezing(bits=1, bounds=(0, 1)).fit([[0.0, 1.0]])
    >>> squeeze.transform([[0.2, 0.9]])
    array([[0., 1.]])
    """

    _parameter_constraints = {
        **RowTransformer._parameter_constraints,
        "bits": [Interval(Integral, 1, 32, closed="both"), None],
        "window": [Interval(Integral, 2, None, closed="left"), None],
    }

    def __init__(
        self,
        bits: int = 4,
        *,
        window: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
    ) -> None:
        self.bits = bits
        self.window = window
        self.image_shape = image_shape
        self.bounds = bounds

    def _transform(self, scaled):
        if self.bits is not None:
            levels = 2 ** int(self.bits) - 1
            scaled = np.rint(scaled.clip(0, 1) * levels) / levels
        if self.window is not None:
            images = self._images(scaled)
            if images is None:
                raise ValueError(
                    f"window={self.window} filters images: flat rows need image_shape."
                )
            size = (1, 1, self.window, self.window)
            scaled = median_filter(images, size=size).reshape(scaled.shape)
        return scaled


@differentiable.register(FeatureSqueezing)
def feature_squeezing(estimator):
    """View FeatureSqueezing; the backward pass is the identity."""
    return differentiable.bpda(estimator.transform)
