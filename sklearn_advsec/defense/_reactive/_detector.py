"""Detectors of adversarial rows, by a score of one's choice."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ... import differentiable
from ..._rows import image_shape_of
from ..._seeding import undisturbed
from ..._sklearn import HasMethods, Interval, StrOptions
from .._base import _estimator_has
from .._wrapping import DetectingDefense, log_probabilities
from ._preprocessing import FeatureSqueezing


def squeezers_for(X, image_shape):
    """Make the squeezers of a detector, fitted: fewer bits, and a filter for images."""
    squeezers = [FeatureSqueezing(bits=3, image_shape=image_shape)]
    if image_shape_of(X.shape[1:], image_shape) is not None:
        more = FeatureSqueezing(bits=None, window=2, image_shape=image_shape)
        squeezers.append(more)
    return [squeezer.fit(X) for squeezer in squeezers]


def squeezing_score(defense, array, squeezers):
    """Return the largest L1 distance of probabilities on rows and on squeezed rows."""
    plain = log_probabilities(defense, array).exp()
    distances = [
        (plain - log_probabilities(defense, squeezer.transform(array)).exp()).abs().sum(1)
        for squeezer in squeezers
    ]
    return torch.stack(distances).amax(0).numpy()


def uncertainty_score(defense, array):
    """Return one less the largest probability."""
    return 1 - log_probabilities(defense, array).exp().amax(1).numpy()


class AdversarialDetector(DetectingDefense):
    """Give a classifier an alarm for rows that look adversarial.

    The threshold is set on clean rows: those of `fit`, which for scores of the
    classifier's own answers should be rows that it was not trained on. Then wrap the
    trained classifier, ``FrozenEstimator(classifier)``, and fit on fresh rows.

    A detector is only as good as against an attacker who knows it: gradient attacks
    on this object attack the classifier and do not look at the score, so their rows are
    often detected; attacks that keep the score low as well break most detectors.

    Measured with "squeezing" on digits, Linf 0.1, the detected counting as handled:
    0.370 is left under PGD on the classifier, and 0.325 under one whose loss knows
    the score; without a detector 0.315 (``benchmarks/results/defense.md``).

    Parameters
    ----------
    estimator : classifier
        Any classifier of numeric rows; one that is fitted already comes as
        ``FrozenEstimator(estimator)``.
    detector : {"squeezing", "uncertainty"}, callable or outlier detector, \
            default="squeezing"
        How suspicious a row is. "squeezing" is the L1 distance of the classifier's
        probabilities on the row and on squeezed versions of it (fewer bits; for images a
        median filter too), "uncertainty" is one minus the largest probability. A callable
        ``score(estimator, X)`` returns one number per row, larger for suspicious ones. An
        outlier detector such as `IsolationForest` is fitted on the rows of `fit`.
    fpr : float, default=0.05
        Share of the clean rows that may raise an alarm.
    per_class : bool, default=False
        Whether each predicted class has a threshold of its own, so that the share holds
        in each. With one threshold for all, most of the alarms may fall on a rare class.
    image_shape : tuple of int, default=None
        What a flat row is, for "squeezing": (height, width) or (channels, height, width).
    abstain_label : object, default=None
        What `predict` returns for detected rows. None predicts as if there were no alarm.
    random_state : int, RandomState instance or None, default=0
        Seed of the training of a net.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its labels.
    threshold_ : float, or ndarray of shape (n_classes,) with `per_class`
        Scores above are detected.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    MagNet : Detects by autoencoders.
    sklearn_advsec.metrics.robust_accuracy_scorer : Says what an alarm counts as.

    References
    ----------
    .. [1] W. Xu, D. Evans, Y. Qi, "Feature squeezing: detecting adversarial examples in
       deep neural networks", arXiv:1704.01155 (Section 5, for "squeezing").
    .. [2] N. Carlini and D. Wagner, "Adversarial examples are not easily detected:
       bypassing ten detection methods", arXiv:1705.07263.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.defense import AdversarialDetector
    >>> X, y = load_digits(return_X_y=True)
    >>> detector = AdversarialDetector(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> bool(detector.detect(X).mean() <= 0.05)
    True
    """

    _parameter_constraints = {
        **DetectingDefense._parameter_constraints,
        "detector": [
            StrOptions({"squeezing", "uncertainty"}),
            HasMethods(["fit", "score_samples"]),
            callable,
        ],
        "fpr": [Interval(Real, 0, 1, closed="left")],
        "image_shape": [tuple, list, None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        detector: Any = "squeezing",
        fpr: float = 0.05,
        per_class: bool = False,
        image_shape: tuple[int, ...] | None = None,
        abstain_label: Any = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.detector = detector
        self.fpr = fpr
        self.per_class = per_class
        self.image_shape = image_shape
        self.abstain_label = abstain_label
        self.random_state = random_state

    def _fit_defense(self, X, seed):
        if isinstance(self.detector, type):
            raise TypeError(
                f"detector must be a function or an object; got the class "
                f"{self.detector.__name__}."
            )
        self.detector_ = self.detector
        if isinstance(self.detector, str) and self.detector == "squeezing":
            self.detector_ = squeezers_for(X, self.image_shape)
        elif hasattr(self.detector, "score_samples"):
            self.detector_ = clone(self.detector).fit(X)
        level = 1 - self.fpr
        self.threshold_ = self._threshold(self._scores(X), X, level)

    def detection_score(self, X: ArrayLike) -> np.ndarray:
        """Compute how suspicious rows are.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        score : ndarray of shape (n_samples,)
            Larger for suspicious rows.
        """
        check_is_fitted(self)
        return self._scores(self._check_X(X, reset=False))

    def detect(self, X: ArrayLike) -> np.ndarray:
        """Tell which rows look adversarial.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        detected : ndarray of bool, shape (n_samples,)
            Whether the score is above the threshold.
        """
        check_is_fitted(self)
        array = self._check_X(X, reset=False)
        return self._exceeds(self._scores(array), array, self.threshold_)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities, whatever is detected.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            The classifier's probabilities.
        """
        check_is_fitted(self)
        array = self._check_X(X, reset=False)
        return self._ask("predict_proba", array)

    def _predict(self, array):
        return self._ask("predict", array)

    def _scores(self, array):
        if isinstance(self.detector, str):
            if self.detector == "squeezing":
                return squeezing_score(self, array, self.detector_)
            return uncertainty_score(self, array)
        if hasattr(self.detector_, "score_samples"):
            return -self.detector_.score_samples(array)
        with undisturbed(self.estimator_):
            scores = np.asarray(self.detector_(self.estimator_, self._inside(array)))
        if scores.shape != (len(array),):
            raise ValueError(
                f"detector returned shape {scores.shape} for {len(array)} rows; "
                "it must return one number per row."
            )
        return scores


@differentiable.register(AdversarialDetector)
def adversarial_detector(estimator):
    """View the classifier inside; its alarm has no part in its predictions."""
    return differentiable.view(estimator.estimator_)
