"""Regressors as victims: an attack moves the prediction by more than an amount."""

from functools import cache
from numbers import Real

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    RegressorMixin,
    _fit_context,
    clone,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import column_or_1d, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..differentiable._registry import register, subview

_UNCHANGED = 1


class RegressionVictim(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """A regressor under attack: what counts is a prediction moved by more than `delta`.

    Attacks on classifiers take it as their `estimator`. For each row they see three
    classes, "decrease", "unchanged" and "increase", by where the prediction stands to the
    one before the attack (to `y`, where :meth:`run` of the attack is given `y`). With
    ``goal="misclassification"`` it may move either way; ``goal="targeted"`` with
    ``target="increase"`` or ``"decrease"`` says which. The score of an attack is the
    share of rows that are still within `delta`, and the results hold predictions.

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

    def __init__(self, estimator, delta=1.0):
        self.estimator = estimator
        self.delta = delta

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
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
        self.estimator_ = clone(self.estimator).fit(X, y)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @available_if(lambda self: hasattr(self.estimator, "predict"))
    def predict(self, X):
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
        return column_or_1d(self.estimator_.predict(X), dtype=np.float64)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.target_tags.required = inner.target_tags.required and not isinstance(
            self.estimator, FrozenEstimator
        )
        return tags


@register(RegressionVictim, takes_codes=True)
def regression_victim(estimator):
    """View the regressor inside."""
    return subview(estimator.estimator_)


def is_regression(estimator):
    """Whether an attack's victim is a :class:`RegressionVictim`, frozen or not."""
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    return isinstance(estimator, RegressionVictim)


class _ByReference:
    """An access whose answers are about how far the prediction is from a reference.

    The scores of the three classes are ``-m / delta - 1``, 0 and ``m / delta - 1`` with
    the move `m`, so the largest is that of the class, and their margin grows with m.
    """

    probability = False

    def refer(self, y):
        """Measure moves from `y`, or from what the regressor says of the rows."""
        self.reference = torch.zeros(len(self.x), dtype=self.dtype, device=self.device)
        if y is None:
            everything = torch.arange(len(self.x), device=self.device)
            y = self._value(self.x, everything)
        self.reference = torch.as_tensor(y).to(self.reference)
        return torch.full((len(self.x),), _UNCHANGED, device=self.device)

    def predict(self, x, rows=None):
        """Ask which way the predictions moved."""
        return self._scores_of(self._value(x, rows), rows).argmax(1)

    def scores(self, x, rows=None):
        """Ask how far the predictions moved."""
        return self._scores_of(self._value(x, rows), rows)

    def logits(self, x, rows=None):
        """Return the same scores, from the regressor's view."""
        return self._scores_of(super().logits(x, rows)[:, 0], rows)

    def jacobian(self, x, rows, outputs):
        """Return these scores, and gradients of functions of them."""
        reference = self.reference if rows is None else self.reference[rows]

        def of_values(values, at):
            # A prediction that has not moved yet is drawn both ways alike: break the tie.
            move = values[:, 0] - reference[at] + 1e-3 * self.estimator.delta
            return outputs(self._scores(move), at)

        values, gradients = super().jacobian(x, rows, of_values)
        return self._scores(values[:, 0] - reference), gradients

    def answers(self, predicted, x, rows):
        """Return the predictions themselves."""
        return self.estimator.predict(self.decode(x, rows))

    def _value(self, x, rows):
        self._spend(x, rows)
        value = self.estimator.predict(self.decode(x, rows))
        return torch.as_tensor(value, dtype=self.dtype, device=self.device)

    def _scores_of(self, values, rows):
        return self._scores(
            values - (self.reference if rows is None else self.reference[rows])
        )

    def _scores(self, move):
        delta = float(self.estimator.delta)
        sides = (-move - delta, torch.zeros_like(move), move - delta)
        scores = torch.stack(sides, 1) / (delta or 1.0)
        # A move of delta itself is none: a tie goes to the middle.
        tie = torch.finfo(scores.dtype).tiny
        return scores - torch.tensor([tie, 0.0, tie]).to(scores)


@cache
def by_reference(access_class):
    """Return the class of the same access for a :class:`RegressionVictim`."""
    name = f"Regression{access_class.__name__}"
    return type(name, (_ByReference, access_class), {"__doc__": access_class.__doc__})
