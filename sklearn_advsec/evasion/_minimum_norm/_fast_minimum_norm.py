"""Fast minimum-norm attack (Pintor et al. 2021)."""

from __future__ import annotations

from math import cos, pi
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ...threat._projection import fill_l2, nearest_on_hyperplane, project
from .._active_rows import column
from .._base import norms, shared
from ._base import DUAL, MinimumNormAttack, Search, give_back, shorten

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# The share of the steps after which rows without a success try another way: later where
# a step changes few features.
_PATIENCE = {np.inf: 0.1, 2: 0.1, 1: 0.5, 0: 0.3}
# How many other classes are looked at for the boundary that is nearest, at first: each
# costs a gradient, and more of them found nothing that is nearer.
_N_OTHERS = 4
# How many points are asked about at the end to shorten the perturbation.
_N_LOOKS = 4


class FastMinimumNorm(MinimumNormAttack):
    r"""Fast minimum-norm attack: a ball that breathes around the decision boundary.

    Each step goes along the gradient of the margin, and back into a ball. While the point
    is adversarial, the ball shrinks by the share :math:`\gamma`; while it is not, it
    grows by it (until there is a success, to where the linearised boundary is). Steps and
    :math:`\gamma` fall along a cosine. For ``norm=0`` the ball is a number of features,
    which changes by one at least.

    The projection is exact, onto ball and box together; for norms 2 and 1, points inside
    are stretched to the surface of the ball first, as in the decoupled attack [2]_, which
    finds its way where the gradients of a defended network turn at every step. The
    perturbation found is shortened along its direction at the end; for ``norm=0``,
    features that contribute little are given back. A row that has no success after a
    tenth of the steps (three tenths for 0, half of them for 1), as against victims that
    mask their gradients, begins anew and steps to the linearised boundary, as in
    :class:`DeepFool` but inside the box, until it has one. The paper leaves such a start
    to another attack.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {2, np.inf, 1, 0}, default=2
        The norm in which the perturbation is to be small; 0 counts features.
    max_iter : int, default=100
        Number of steps.
    step_size : float, default=None
        Euclidean length of the first step, in the units of the features; the last one is
        a hundredth of it. None is 1, and 4 for ``norm=1``, which is for features in
        [0, 1] or of unit variance.
    gamma : float, default=0.05
        By which share the ball changes at first.
    gamma_final : float, default=0.001
        By which share it changes in the end.
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
    DeepFool : Fewer steps.
    FastAdaptiveBoundary : The same aim, by projections on planes.
    SigmaZero : For few features, by gradients of a smooth count of them.

    References
    ----------
    .. [1] M. Pintor, F. Roli, W. Brendel, B. Biggio, "Fast minimum-norm adversarial
       attacks through adaptive norm constraints", arXiv:2102.12827 (Algorithm 1).
    .. [2] J. Rony et al., "Decoupling direction and norm for efficient gradient-based L2
       adversarial attacks and defenses", arXiv:1811.09600 (Algorithm 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.evasion import FastMinimumNorm
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> attack = FastMinimumNorm(LogisticRegression(), norm=0).fit(X, y)
    >>> result = attack.run(X[:100])
    >>> bool(result.success.all()), float(np.median(result.distance))
    (True, 2.0)
    """

    _parameter_constraints = {
        **MinimumNormAttack._parameter_constraints,
        **shared("max_iter", "step_size", "goal", "target"),
        "norm": norms(2, np.inf, 1, 0),
        "gamma": [Interval(Real, 0, 1, closed="neither")],
        "gamma_final": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        max_iter: int = 100,
        step_size: float | None = None,
        gamma: float = 0.05,
        gamma_final: float = 0.001,
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
        self.step_size = step_size
        self.gamma = gamma
        self.gamma_final = gamma_final
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
        search.point = torch.zeros_like(search.x)
        search.radius = torch.ones_like(search.best)
        # A step of Euclidean length 1 is a small one in the units of the L1 norm.
        longest = self.step_size or (4.0 if self._norm == 1 else 1.0)
        patience = int(_PATIENCE[self._norm] * self.max_iter)
        for step in range(self.max_iter):
            if not search.can_ask():
                break
            if step or self._norm in (0, 1):
                search.ask_gradient(search.point)
                search.value = search.margin(search.logits)
            else:  # to the class that is nearest, not the one of the next largest logit
                search.ask_nearest(search.point, _N_OTHERS)
            # At the goal by itself, or by one feature where they are counted.
            search.drop(search.best <= (1 if self._norm == 0 else 0))
            fall = (1 + cos(pi * step / self.max_iter)) / 2
            step_size = longest * (0.01 + 0.99 * fall)
            gamma = self.gamma_final + (self.gamma - self.gamma_final) * fall
            search.radius = self._breathe(search, gamma)
            length = column(search.norm(search.gradient, 2), search.x).clamp_min(1e-12)
            moved = torch.addcdiv(search.point, search.gradient, length, value=step_size)
            radius = search.radius.long() if self._norm == 0 else search.radius
            moved = self._project(moved, radius, search.lower, search.upper)
            if step >= patience:
                self._approach(search, moved, 1 + gamma, 0 < step == patience)
            search.point = moved
        if search.can_ask():
            search.look(search.point)
        if self._norm == 0:
            give_back(state, n_rounds=2, n_steps=8)
        else:
            shorten(state, _N_LOOKS)

    def _project(self, moved, radius, lower, upper):
        """Return to the ball, for norms 2 and 1 to its surface, as far as the box allows.

        Where gradients turn at every step, points would else never leave its inside.
        """
        if self._norm == 2:
            flat, lower, upper = (t.flatten(1) for t in (moved, lower, upper))
            return fill_l2(flat, radius[:, None], lower, upper).reshape(moved.shape)
        if self._norm == 1:
            size = torch.linalg.vector_norm(moved.flatten(1), ord=1, dim=1)
            stretch = (radius / size.clamp_min(1e-12)).clamp_min(1)
            moved = moved * column(stretch, moved)
        return project(moved, self._norm, radius, lower, upper)

    def _breathe(self, search, gamma):
        """Radius of the next ball."""
        radius = search.radius
        shrunk, grown = radius * (1 - gamma), radius * (1 + gamma)
        if self._norm == 0:
            shrunk = torch.minimum(radius - 1, shrunk.floor()).clamp_min(1)
            grown = torch.maximum(radius + 1, grown.floor())
            grown = grown.clamp_max(search.x.shape[1:].numel())
        else:
            slope = search.norm(search.gradient, DUAL[self._norm]).clamp_min(1e-12)
            boundary = search.size + search.value.abs() / slope
            # By a little more than to the boundary, which is no success yet.
            grown = torch.where(search.best.isfinite(), grown, (1 + gamma) * boundary)
        return torch.where(search.hit, torch.minimum(shrunk, search.best), grown)

    def _approach(self, search, moved, overshoot, anew):
        """Let rows without any success go to the linearised boundary, in the box.

        They begin `anew` at the row itself: what the steps so far have changed for
        nothing would only be in the way.
        """
        at = torch.nonzero(search.best.isinf()).flatten()
        if anew or not len(at):
            moved[at] = 0
            return
        point = search.point[at]
        step = nearest_on_hyperplane(
            search.gradient[at].flatten(1),
            overshoot * (2 * search.rounding - search.value)[at],
            self._norm or 2,
            (search.lower[at] - point).flatten(1),
            (search.upper[at] - point).flatten(1),
        )
        moved[at] = torch.clamp(
            point + step.reshape(point.shape), search.lower[at], search.upper[at]
        )
