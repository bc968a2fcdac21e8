"""Fast gradient method (Goodfellow et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from .._base import WITH_CONFIDENCE, norms, shared
from .._state import record_last
from ._base import GradientAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class FastGradientMethod(GradientAttack):
    r"""Fast gradient (sign) method: one step, as far as the budget goes.

    The loss is taken to be linear, and its maximum over ball and box is found in closed
    form. For ``norm=np.inf`` it is the fast gradient sign method,
    :math:`x + \epsilon \, \mathrm{sign}(\nabla_x J(x, y))`, clipped.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm that bounds the perturbation.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features; an array gives each feature its own (see
        :class:`~sklearn_advsec.threat.LpBall`).
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    max_queries : int, default=None
        Largest number of queries of a row; see :class:`EvasionAttack`.
    max_total_queries : int, default=None
        Largest number of queries of a run; see :class:`EvasionAttack`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    NoGradientError
        If the victim has no differentiable view.

    See Also
    --------
    ProjectedGradientDescent : In many steps; always the better figure.

    References
    ----------
    .. [1] I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial
       examples", arXiv:1412.6572 (Section 4).
    .. [2] A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical
       world", arXiv:1607.02533 (Section 2.1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> attack = FastGradientMethod(LogisticRegression(), eps=0.1).fit(X, y)
    >>> attack.estimator_.score(X, y) > 0.9 > 0.5 > attack.score(X, y)
    True
    """

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **shared("eps_unit"),
        **WITH_CONFIDENCE,
        "norm": norms(np.inf, 2, 1),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.eps_unit = eps_unit
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _steps(self, state, start, early_stopping):
        """Take the one step, from x itself (`start` is for attacks with restarts)."""
        access, rows = state.access, state.open_rows()
        x, goal = access.x[rows], state.goal.select(rows)
        if not len(rows) or access.affordable(rows) < 2:
            return rows, x
        logits, gradient = access.gradient(x, rows, goal.objective)
        if early_stopping:
            at = torch.nonzero(goal.reached(logits)).flatten()
            record_last(state, rows[at], x[at])
        delta = self._ball().maximize(gradient, state.lower[rows], state.upper[rows])
        left = ~state.success[rows]
        return rows[left], (x + delta)[left]
