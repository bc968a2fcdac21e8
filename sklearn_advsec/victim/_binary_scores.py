"""Services with one output: the score of the second of two classes, and no more."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, is_classifier
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._labels import class_positions
from .._sklearn import BaseEstimator, Interval, StrOptions, _num_samples, fit_context
from ..exceptions import BadAnswerError
from ._answers import AnswerCheck
from ._fitting import fit_victim, needs_labels


class BinaryScores(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """A binary classifier out of what gives a single score per row.

    Many services, and networks with one output, answer with the probability of one
    class, as an array of shape (n,) or (n, 1). Attacks need a column for each of two
    classes, and labels: both follow from the score.

    Parameters
    ----------
    estimator : object
        What is asked: the first of its methods `predict_proba`, `decision_function` and
        `predict` that it has. An estimator that is not fitted is fitted in `fit`; a
        fitted one comes as ``FrozenEstimator(estimator)``. What has no method `fit` is a
        service, and is taken as it is.
    classes : array-like of shape (2,), default=(0, 1)
        The labels; the score is that of the second one.
    scores : {"probability", "decision"}, default="probability"
        Whether scores are probabilities, or, like a decision function, any numbers.
    threshold : float, default=None
        Scores above it are of the second class. None is 0.5 for probabilities, and 0 for
        a decision.

    Attributes
    ----------
    estimator_ : object
        What is asked.
    classes_ : ndarray of shape (2,)
        The labels.

    Raises
    ------
    BadAnswerError
        Where there is not one finite score for each row, between 0 and 1 if scores are
        probabilities.

    See Also
    --------
    RegressionVictim : A regressor whose predictions are to be moved.
    sklearn_advsec.pretrained.PretrainedModule : A torch module, also with one output.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.evasion import HopSkipJump
    >>> from sklearn_advsec.victim import BinaryScores
    >>> class Service:
    ...     def predict(self, X):
    ...         return 1 / (1 + np.exp(-np.asarray(X).sum(axis=1)))
    >>> victim = BinaryScores(Service(), classes=["good", "bad"])
    >>> X = np.array([[0.2, 0.4], [-1.0, 0.3]])
    >>> victim.predict(X)
    array(['bad', 'good'], dtype='<U4')
    >>> HopSkipJump(victim, max_queries=50).fit(X).run(X).success
    array([ True,  True])
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "classes": ["array-like"],
        "scores": [StrOptions({"probability", "decision"})],
        "threshold": [Interval(Real, None, None, closed="neither"), None],
    }

    def __init__(
        self,
        estimator: Any,
        classes: ArrayLike = (0, 1),
        *,
        scores: Literal["probability", "decision"] = "probability",
        threshold: float | None = None,
    ) -> None:
        self.estimator = estimator
        self.classes = classes
        self.scores = scores
        self.threshold = threshold

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> Self:
        """Fit the estimator; one that is frozen, and a service, is kept.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features), default=None
            Rows. Not needed for what is kept.
        y : array-like of shape (n_samples,), default=None
            Their labels, which are to be among `classes`.

        Returns
        -------
        self : object
            The fitted adapter.
        """
        if np.shape(self.classes) != (2,):
            raise ValueError(f"classes must be two labels; got {self.classes!r}.")
        if hasattr(self.estimator, "fit"):
            if y is not None and not is_classifier(self.estimator):
                y = class_positions(y, self.classes_, "y")  # a regressor's are numbers
            self.estimator_ = fit_victim(self.estimator, X, y, owner=self)
        return self

    @property
    def classes_(self) -> np.ndarray:
        """The labels."""
        return np.asarray(self.classes)

    @available_if(lambda self: self.scores == "probability")
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Compute the probabilities of both classes.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, 2)
            Probabilities.
        """
        score = self._score(X)
        return np.column_stack([1 - score, score])

    @available_if(lambda self: self.scores == "decision")
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute the score.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            The score less the threshold: above 0 for the second class.
        """
        return self._score(X) - self._threshold()

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        return self.classes_[(self._score(X) > self._threshold()).astype(int)]

    def _threshold(self):
        if self.threshold is not None:
            return self.threshold
        return 0.5 if self.scores == "probability" else 0.0

    def _score(self, X):
        check_is_fitted(self)
        victim = getattr(self, "estimator_", self.estimator)
        names = ("predict_proba", "decision_function", "predict")
        method = next((name for name in names if hasattr(victim, name)), None)
        if method is None:
            raise TypeError(
                f"estimator: {type(victim).__name__} has no method predict_proba, "
                "decision_function or predict."
            )
        answer = getattr(victim, method)(X)
        score = AnswerCheck(victim).values(answer, _num_samples(X), method=method)
        outside = (score < 0) | (score > 1)
        if self.scores == "probability" and outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise BadAnswerError(
                f"estimator: {type(victim).__name__}.{method} returned {score[row]:.6g} "
                f"for row {row}; probabilities must lie between 0 and 1. Other scores "
                "take scores='decision'."
            )
        return score.astype(np.float64)

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in `fit`."""
        return getattr(self, "estimator_", self.estimator).n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the features seen in `fit`, where they have names."""
        return getattr(self, "estimator_", self.estimator).feature_names_in_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_") or not hasattr(self.estimator, "fit")

    def __sklearn_clone__(self):
        # A service may be a connection, of which there is no copy.
        if not hasattr(self.estimator, "fit"):
            return self
        return super().__sklearn_clone__()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        kept = not hasattr(self.estimator, "fit")
        tags.requires_fit = not kept
        tags.target_tags.required = not kept and needs_labels(self.estimator)
        if not kept:
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags
