"""Noise on the features as a preprocessing defense."""

from numbers import Real
from zlib import crc32

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .. import differentiable
from ._reactive._preprocessing import RowTransformer


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
    does not know of it, and nothing by AutoAttack (``benchmarks/RESULTS.md``).

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
        self, sigma=0.1, *, distribution="normal", bounds="data", random_state=0
    ):
        self.sigma = sigma
        self.distribution = distribution
        self.bounds = bounds
        self.random_state = random_state

    def transform(self, X):
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
