"""Regressors as victims: an attack moves the prediction by more than an amount."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin
from sklearn.utils import column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._estimators import name_of
from .._sklearn import HasMethods, Interval, _num_samples, fit_context
from ..differentiable._registry import register, subview
from ..trees import register_reader, tree_ensemble
from ._answers import AnswerCheck
from ._fitting import fit_victim, needs_labels


class RegressionVictim(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """A regressor under attack: what counts is a prediction moved by more than `delta`.

    Attacks on classifiers take it as their `estimator`. For each row they see three
    classes, "decrease", "unchanged" and "increase", by where the prediction stands to the
    one before the attack (to `y`, where :meth:`run` of the attack is given `y`). With
    ``goal="misclassification"`` it may move either way; ``goal="targeted"`` with
    ``target="increase"`` or ``"decrease"`` says which. The score of an attack is the
    share of rows that are still within `delta`, and the results hold predictions. Where
    the regressor is an ensemble of trees, the attacks on trees and
    :func:`~sklearn_advsec.trees.certified_radii` take it, too.

    Parameters
    ----------
    estimator : regressor
        The regressor; a fitted one as ``FrozenEstimator(regressor)``.
    delta : float, default=1.0
        By how much the prediction has to move, in the units of the target.

    Attributes
    ----------
    estimator_ : regressor
        The fitted regressor.
    classes_ : ndarray of shape (3,)
        "decrease", "unchanged" and "increase".

    See Also
    --------
    sklearn_advsec.evasion.EvasionAttack : Takes one as its victim.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent
    >>> from sklearn_advsec.victim import RegressionVictim
    >>> X, y = load_diabetes(return_X_y=True)
    >>> victim = RegressionVictim(Ridge(), delta=20)
    >>> attack = ProjectedGradientDescent(
    ...     victim, eps=0.02, goal="targeted", target="increase").fit(X, y)
    >>> result = attack.run(X[:5])
    >>> moved = result.y_pred - attack.estimator_.predict(X[:5])
    >>> bool(((moved > 20) == result.success).all())
    True
    """

    classes_ = np.array(["decrease", "unchanged", "increase"])

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "delta": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, estimator: Any, delta: float = 1.0) -> None:
        self.estimator = estimator
        self.delta = delta

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit the regressor (a frozen one is kept).

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,), default=None
            Targets.

        Returns
        -------
        self : object
            The fitted victim.
        """
        if y is not None:
            y = column_or_1d(y, warn=True)
        self.estimator_ = fit_victim(self.estimator, X, y, owner=self)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @available_if(lambda self: hasattr(self.estimator, "predict"))
    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict with the regressor.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictions.
        """
        check_is_fitted(self)
        answer = self.estimator_.predict(X)
        values = AnswerCheck(self.estimator_).values(answer, _num_samples(X))
        return values.astype(np.float64)

    def __sklearn_tags__(self):
        if not hasattr(self.estimator, "predict"):
            raise TypeError(f"estimator must be a regressor; got {self.estimator!r}.")
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        tags.target_tags.required = needs_labels(self.estimator)
        return tags


@register_reader(RegressionVictim)
def read_regression_victim(estimator):
    """Read the trees of the regressor inside."""
    ensemble = tree_ensemble(estimator.estimator_)
    if ensemble.link != "regression":
        raise TypeError(f"{name_of(estimator.estimator_)} is no regressor.")
    return replace(ensemble, delta=float(estimator.delta))


@register(RegressionVictim, takes_codes=True)
def regression_victim(estimator):
    """View the regressor inside."""
    return subview(estimator.estimator_)
