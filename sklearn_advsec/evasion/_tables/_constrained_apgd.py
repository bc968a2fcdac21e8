"""Constrained adaptive projected gradient descent (Simonetto et al. 2024)."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from .._base import norms, shared
from .._gradient._auto_pgd import _HalvingSteps
from .._gradient._base import GradientAttack, descend
from ._base import TabularAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class ConstrainedAPGD(TabularAttack, GradientAttack):
    r"""CAPGD: adaptive projected gradient descent on rows that stay valid.

    .. math:: \max_\delta \; J(x + \delta, y) - \lambda \sum_i g_i(x + \delta)

    with the distances :math:`g_i` to the relations, momentum and the halving steps of
    :class:`AutoProjectedGradientDescent`. After each step the row is repaired: linear
    relations by projection, dependent columns by computing them anew. The victim is only
    ever asked about rows that fulfil all constraints. There are two starts, the row
    itself and a random one.

    Columns of categories have no gradient and stay as they are, unless they come one-hot
    encoded; :class:`ConstrainedAdaptiveAttack` changes them too.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=2
        The norm that bounds the perturbation.
    eps : float or array-like of shape (n_features,), default=0.5
        The bound, in units of each feature's scale.
    max_iter : int, default=10
        Number of steps of each start.
    rho : float, default=0.75
        Share of the steps that have to improve the loss for the step size to stay.
    penalty : float, default=1.0
        The weight :math:`\lambda`.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    loss : {"cross_entropy", "margin", "dlr"}, default="cross_entropy"
        What is ascended.
    n_restarts : int, default=2
        Number of starts. Rows that reached the goal do not start again.
    bounds : "data", None or tuple (lower, upper), default=None
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
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    constraints_ : FeatureConstraints
        The constraints in use.
    values_ : ndarray of shape (n_features, 32)
        Quantiles of the data; of categories, their codes.
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
    ConstrainedAdaptiveAttack : Goes on by evolution where this fails.
    sklearn_advsec.threat.FeatureConstraints : What rows have to keep.

    References
    ----------
    .. [1] T. Simonetto et al., "Constrained adaptive attack: effective adversarial attack
       against deep neural networks for tabular data", arXiv:2406.00775 (Section 4.1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.evasion import ConstrainedAPGD
    >>> from sklearn_advsec.threat import FeatureConstraints
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> constraints = FeatureConstraints.from_frame(X)
    >>> constraints = constraints.relate("`mean radius` <= `worst radius`")
    >>> victim = make_pipeline(StandardScaler(), LogisticRegression())
    >>> attack = ConstrainedAPGD(victim, constraints=constraints).fit(X, y)
    >>> result = attack.run(X[:50], y[:50])
    >>> constraints.violations(X[:50], result.X_adv), bool(result.success.mean() > 0.5)
    ([], True)
    """

    _parameter_constraints = {
        **TabularAttack._parameter_constraints,
        **GradientAttack._parameter_constraints,
        **shared("max_iter", "loss", "n_restarts"),
        "norm": norms(np.inf, 2, 1),
        "rho": [Interval(Real, 0, 1, closed="neither")],
        "penalty": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        eps: ArrayLike = 0.5,
        max_iter: int = 10,
        rho: float = 0.75,
        penalty: float = 1.0,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy",
        n_restarts: int = 2,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = None,
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.max_iter = max_iter
        self.rho = rho
        self.penalty = penalty
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.loss = loss
        self.n_restarts = n_restarts
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _steps(self, state, start, early_stopping):
        ball = self._ball()
        rule = _RepairedSteps(ball, self.max_iter, self.rho, state, self.penalty)
        if start is not None:
            start = rule.repair(start, torch.arange(len(start), device=start.device))
        return descend(
            state,
            rule,
            start=start,
            max_iter=self.max_iter,
            early_stopping=early_stopping,
        )


class _RepairedSteps(_HalvingSteps):
    """Halving steps with a penalty in the gradient and a repair behind each step."""

    def __init__(self, ball, max_iter, rho, state, weight):
        super().__init__(ball, max_iter, rho, end_at_best=False)
        self.access = state.access
        self.weight = weight
        self.rows = state.open_rows()

    def step(self, delta, logits, gradient, lower, upper, goal):
        """Return the next perturbations."""
        if self.access.region.relations and self.weight:
            gradient = gradient - self.weight * self._slope(delta)
        delta = super().step(delta, logits, gradient, lower, upper, goal)
        return self.repair(delta, self.rows)

    def _slope(self, delta):
        """Return the gradient of the distances to the relations, in units of scale."""
        region = self.access.region
        with torch.enable_grad():
            unit = (self.access.x[self.rows] + delta).cpu().double().requires_grad_()
            point = unit.nan_to_num(0.0) * region.scale
            excess = sum(r.excess(point, region.scale) for r in region.relations)
            if not excess.requires_grad:  # of categories only
                return torch.zeros_like(delta)
            (slope,) = torch.autograd.grad(excess.sum(), unit)
        return slope.nan_to_num(0.0).to(delta)

    def repair(self, delta, rows):
        """Return perturbations that keep the relations, whole numbers left aside."""
        access = self.access
        if not access.region.relations:
            return delta
        x, at = access.x[rows], rows.cpu()
        point = (x + delta).cpu().double() * access.region.scale
        mended = access.region.mend(
            access.ref[at], point, access.free_lower[at], access.free_upper[at]
        )
        mended = (mended / access.region.scale).to(x)
        return torch.where((mended == x) | mended.isnan(), 0.0, mended - x)
