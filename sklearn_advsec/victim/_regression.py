"""Regressors as victims: an attack moves the prediction by more than an amount."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import MetaEstimatorMixin, RegressorMixin
from sklearn.utils import column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._estimators import (
    as_nets_take_them,
    ends_in_net,
    name_of,
    targets_as_nets_take_them,
    unwrap,
)
from .._rows import is_dataframe, writable
from .._sklearn import BaseEstimator, HasMethods, Interval, _num_samples, fit_context
from ..differentiable._neural import evaluation_mode, one_column, regressor_view
from ..differentiable._outputs import scores_of_output
from ..differentiable._registry import register, subview
from ..trees import register_reader, tree_ensemble
from ._answers import AnswerCheck
from ._fitting import fit_victim, needs_labels

# A module gets so many rows at once.
_ROWS = 1024


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
    estimator : regressor or torch.nn.Module
        The regressor; a fitted one as ``FrozenEstimator(regressor)``. A skorch network is
        given rows, and a column of targets, in single precision. A bare torch module is
        trained, and gives one number for each row.
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
        "estimator": [HasMethods(["fit", "predict"]), torch.nn.Module],
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
        if ends_in_net(unwrap(self.estimator)):
            X = as_nets_take_them(X if is_dataframe(X) else np.asarray(X), self.estimator)
            y = None if y is None else targets_as_nets_take_them(y, self.estimator)
        self.estimator_ = fit_victim(self._regressor, X, y, owner=self)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @property
    def _regressor(self):
        """The regressor as an estimator, also where it is a bare module."""
        if isinstance(self.estimator, torch.nn.Module):
            return ModuleRegressor(self.estimator)
        return self.estimator

    @available_if(lambda self: hasattr(self._regressor, "predict"))
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
        answer = ask_regressor(self.estimator_, X)
        values = AnswerCheck(self.estimator_).values(answer, _num_samples(X))
        return values.astype(np.float64)

    def __sklearn_tags__(self):
        regressor = self._regressor
        if not hasattr(regressor, "predict"):
            raise TypeError(f"estimator must be a regressor; got {self.estimator!r}.")
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(regressor).input_tags
        tags.target_tags.required = needs_labels(regressor)
        return tags


def ask_regressor(estimator, X):
    """Return what a regressor predicts; networks of skorch take single precision only."""
    if ends_in_net(unwrap(estimator)) and not is_dataframe(X):
        X = np.asarray(X, dtype=np.float32)
    return estimator.predict(X)


class ModuleRegressor(RegressorMixin, BaseEstimator):
    """A trained torch module that gives one number for each row, as a regressor.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it is never changed.
    """

    def __init__(self, module):
        self.module = module

    def fit(self, X=None, y=None):
        """Do nothing: it is trained."""
        return self

    def predict(self, X):
        """Predict, in evaluation mode."""
        module, name = self.module, type(self.module).__name__
        like = next(module.parameters(), torch.zeros(0))
        rows = torch.as_tensor(writable(np.asarray(X))).split(_ROWS)
        with evaluation_mode(module), torch.no_grad():
            parts = [module(part.to(like.device, like.dtype)) for part in rows]
        parts = [one_column(scores_of_output(part, name), name) for part in parts]
        values = torch.cat(parts)[:, 0].cpu()
        # Half precision, which numpy lacks in part, is given as single.
        return values.to(torch.promote_types(values.dtype, torch.float32)).numpy()

    def __sklearn_clone__(self):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = tags.target_tags.required = False
        return tags


@register(ModuleRegressor)
def module_regressor(estimator):
    """View a copy of the module."""
    return regressor_view(estimator.module)


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
