"""Model inversion (Fredrikson et al. 2015)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import MetaEstimatorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from .. import differentiable
from .._estimators import RoutesToEstimator
from .._progress import ReportsProgress
from .._sklearn import BaseEstimator, Interval, StrOptions, fit_context, validate_data
from ..threat import Box
from ..victim._fitting import VICTIM, fit_victim, labels_missing, needs_labels
from ._base import check_is_classifier


class ModelInversion(
    ReportsProgress, RoutesToEstimator, MetaEstimatorMixin, BaseEstimator
):
    """Reconstruct a representative of each class from a model, by gradient ascent.

    From the mean of the attacker's rows, the row is moved to where the target is certain
    of the class. What comes out is no training row: it looks like the class only as far
    as the class's rows look alike, and for targets of many parameters it may be noise. A
    copy of the target (see :mod:`sklearn_advsec.extraction`) can be inverted the same
    way, where the target itself gives no gradients.

    Parameters
    ----------
    estimator : classifier
        The target, with a view in :mod:`sklearn_advsec.differentiable`. It is cloned and
        fitted in `fit`; wrap one that is fitted already: `FrozenEstimator(classifier)`.
    prior : float, default=0.1
        How much a row is held back: weight of its squared distance from the mean of the
        attacker's rows, in units of the features' ranges. Without, few features are
        driven to the limits of the box.
    step_size : float, default=0.02
        Length of a step per feature, as a share of its range.
    max_iter : int, default=200
        Largest number of steps.
    confidence : float, default=0.999
        The probability of the class at which a row is done.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that representatives stay in.

    Attributes
    ----------
    estimator_ : classifier
        The fitted target.
    classes_ : ndarray of shape (n_classes,)
        The target's classes.
    representatives_ : ndarray of shape (n_classes, n_features) or of images
        One row per class.
    confidences_ : ndarray of shape (n_classes,)
        The target's probability of the class for each of them.
    n_iter_ : int
        Number of steps taken.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    NoGradientError
        If the target has no differentiable view.

    See Also
    --------
    AttributeInference : One attribute of a record.

    References
    ----------
    .. [1] M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit
       confidence information and basic countermeasures", CCS 2015 (Algorithm 1).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.privacy import ModelInversion
    >>> X, y = load_digits(return_X_y=True)
    >>> target = LogisticRegression(C=0.01, max_iter=500).fit(X[:900], y[:900])
    >>> inversion = ModelInversion(FrozenEstimator(target)).fit(X[900:])
    >>> inversion.representatives_.shape
    (10, 64)
    """

    knowledge = "gradient"

    _parameter_constraints = {
        "estimator": VICTIM,
        "prior": [Interval(Real, 0, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "bounds": [StrOptions({"data"}), tuple, list, None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        prior: float = 0.1,
        step_size: float = 0.02,
        max_iter: int = 200,
        confidence: float = 0.999,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
    ) -> None:
        self.estimator = estimator
        self.prior = prior
        self.step_size = step_size
        self.max_iter = max_iter
        self.confidence = confidence
        self.bounds = bounds

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Reconstruct the classes.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            The attacker's rows: they give the range and the mean of the features, and
            train a target that is not fitted.
        y : array-like of shape (n_samples,), default=None
            Their labels. Not needed for a target that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the target only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        if y is None and self.__sklearn_tags__().target_tags.required:
            raise ValueError(labels_missing(self, self.estimator))
        rows = X
        X = validate_data(self, X, dtype=[np.float64, np.float32], allow_nd=True)
        self.estimator_ = fit_victim(
            self.estimator, rows, y, owner=self, sample_weight=sample_weight
        )
        check_is_classifier(self.estimator_, type(self).__name__)
        self.classes_ = np.asarray(self.estimator_.classes_)
        with self._reported(rows, y):
            self._reconstruct(X)
        return self

    def _n_tasks(self):
        return self.max_iter

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Compute how well representatives stand for rows: accuracy of the nearest one.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows of the target's data.
        y : array-like of shape (n_samples,)
            Their labels.

        Returns
        -------
        score : float
            Share of rows whose best correlated representative is that of their class.
            Representatives that are noise score as guessing does.
        """
        check_is_fitted(self)
        dtype = [np.float64, np.float32]
        X = validate_data(self, X, reset=False, dtype=dtype, allow_nd=True)
        y = column_or_1d(y)
        check_classification_targets(y)
        check_consistent_length(X, y)
        rows = _standardised(X - self._mean)
        nearest = (rows @ _standardised(self.representatives_ - self._mean).T).argmax(1)
        return float(np.mean(self.classes_[nearest] == y))

    def _reconstruct(self, X):
        view = differentiable.view(self.estimator_)
        self._mean = X.mean(axis=0, dtype=np.float64)
        start = np.repeat(self._mean[np.newaxis], len(self.classes_), axis=0)
        mean = torch.as_tensor(start).to(view.device, view.dtype)
        lower, upper = Box(self.bounds, X).perturbation_bounds(mean, None)
        scale = np.ptp(X, axis=0)
        scale = torch.as_tensor(np.where(scale > 0, scale, 1.0)).to(mean)
        wanted = torch.arange(len(self.classes_), device=mean.device)
        delta = torch.zeros_like(mean)
        first, second = torch.zeros_like(mean), torch.zeros_like(mean)
        for step in self._tasks(range(1, self.max_iter + 1), "step"):
            self.n_iter_ = step
            with torch.enable_grad():
                moved = delta.detach().requires_grad_()
                logits = view.logits(mean + moved * scale)
                loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
                loss = loss + self.prior * moved.square().sum()
                (gradient,) = torch.autograd.grad(loss, moved)
            reached = torch.softmax(logits, 1)[wanted, wanted] >= self.confidence
            if reached.all():
                break
            moving = (~reached).view(-1, *[1] * (mean.ndim - 1))
            # Adam; rows that are done stay.
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient.square()
            change = first / (1 - 0.9**step)
            change = change / ((second / (1 - 0.999**step)).sqrt() + 1e-12)
            delta = delta - self.step_size * change * moving
            delta = torch.maximum(torch.minimum(delta * scale, upper), lower) / scale
        final = mean + delta * scale
        self.representatives_ = final.cpu().numpy().astype(X.dtype)
        with torch.no_grad():
            proba = view.predict_proba(final)
        self.confidences_ = proba[wanted, wanted].cpu().numpy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = needs_labels(self.estimator)
        return tags


def _standardised(rows):
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
