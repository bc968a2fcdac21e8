"""DeepFool (Moosavi-Dezfooli et al. 2015)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ...threat._projection import nearest_on_hyperplane
from .._base import norms, shared
from ._base import MinimumNormAttack, Search, shorten

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# Steps go inside the box where so little of the first margin is left: there, steps that
# it cuts off would come nearer by the same share each time, and no farther.
_NEAR = 0.03


class DeepFool(MinimumNormAttack):
    r"""DeepFool: step to the nearest boundary of the linearised victim, until it flips.

    At each point the victim's logits :math:`z` are taken to be linear. Of the boundaries
    to the other classes, the nearest one,

    .. math:: \arg\min_k \frac{|z_k - z_y|}{\|\nabla z_k - \nabla z_y\|_q},

    is stepped to, and the sum of the steps is overshot by a little. Two things are not in
    the paper, which has no box: steps are cut off by it, and rows that are close to a
    boundary, or have not crossed one after half of the steps, go to its nearest point
    inside the box. At the end the perturbation is shortened along its direction.

    It is fast, and exact for linear victims. Where the victim is flat, as a kernel
    machine far from its data, steps become huge: give it a box. In general it ends where
    it first crosses a boundary, which is seldom the nearest point:
    :class:`FastMinimumNorm` and :class:`FastAdaptiveBoundary` find nearer ones.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {2, np.inf}, default=2
        The norm in which the perturbation is to be small.
    max_iter : int, default=50
        Largest number of steps.
    overshoot : float, default=0.02
        By which share the perturbation goes beyond the boundary.
    n_looks : int, default=6
        How many points are asked about at the end to shorten the perturbation.
    n_candidates : int, default=10
        How many classes are looked at, those of the largest logits of the row itself,
        its own included. Each one costs a backward pass per step.
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
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
    FastMinimumNorm : Often smaller changes, in more steps.
    CarliniWagner : Smaller ones still, at many times the cost.

    References
    ----------
    .. [1] S. Moosavi-Dezfooli, A. Fawzi, P. Frossard, "DeepFool: a simple and accurate
       method to fool deep neural networks", arXiv:1511.04599 (Algorithm 2, and Section
       3.3 for other norms).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.evasion import DeepFool
    >>> X, y = load_iris(return_X_y=True)
    >>> result = DeepFool(SVC()).fit(X, y).run(X)
    >>> bool(result.success.all()), float(result.distance.mean().round(1))
    (True, 1.0)
    """

    _parameter_constraints = {
        **MinimumNormAttack._parameter_constraints,
        **shared("max_iter", "goal", "target"),
        "norm": norms(2, np.inf),
        "overshoot": [Interval(Real, 0, None, closed="left")],
        "n_looks": [Interval(Integral, 0, None, closed="left")],
        "n_candidates": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        max_iter: int = 50,
        overshoot: float = 0.02,
        n_looks: int = 6,
        n_candidates: int = 10,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
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
        self.max_iter = max_iter
        self.overshoot = overshoot
        self.n_looks = n_looks
        self.n_candidates = n_candidates
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _attack(self, state):
        search = Search(state)
        search.total = torch.zeros_like(search.x)
        for step in range(self.max_iter + 1):  # the last one only looks
            if not search.can_ask():
                break
            overshot = (1 + self.overshoot) * search.total
            overshot = overshot.clamp(search.lower, search.upper)
            search.ask_nearest(overshot, self.n_candidates - 1)
            missing = -search.margin(search.logits)
            if not step:
                search.missing = missing
            late = bool(2 * step >= self.max_iter)  # numpy's own bool torch does not know
            search.inside = (missing < _NEAR * search.missing) | late
            search.drop(search.hit)
            search.total = search.total + self._step(search)
            search.total = search.total.clamp(search.lower, search.upper)
        shorten(state, self.n_looks)

    def _step(self, search):
        """Step to the nearest of the linearised boundaries, perhaps inside the box."""
        gradient = search.gradient.flatten(1)
        free = ~search.inside[:, None]
        lower = (search.lower - search.delta).flatten(1).masked_fill(free, -torch.inf)
        upper = (search.upper - search.delta).flatten(1).masked_fill(free, torch.inf)
        # A little more than to where the logits are equal, which is no success.
        beyond = 2 * search.rounding - search.value
        step = nearest_on_hyperplane(gradient, beyond, self._norm, lower, upper)
        return step.reshape(search.x.shape)
