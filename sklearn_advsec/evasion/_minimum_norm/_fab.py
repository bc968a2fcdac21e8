"""Fast adaptive boundary attack (Croce and Hein 2019)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ...threat import LpBall
from ...threat._projection import nearest_on_hyperplane
from .._active_rows import column
from .._base import norms, shared
from .._goal import likeliest_others
from ._base import MinimumNormAttack, Search, shorten

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class FastAdaptiveBoundary(MinimumNormAttack):
    r"""Fast adaptive boundary attack: project onto the boundary, biased towards the row.

    At each point the victim's logits are taken to be linear, and the nearest of the
    boundaries to other classes is chosen. Both the point and the row itself are projected
    onto it, exactly and inside the box, and the next point lies between the two
    projections, a little beyond them. After a success the point goes back towards the
    row. At the end the perturbation is shortened along its direction.

    The paper asks the victim twice in each step: after it, and after going back. Here
    the gradient is taken where the step led, and serves for the point that went back too:
    two starts cost about what one of the paper's does.

    The plain version takes the gradients of all logits in each step. The targeted version
    (``n_targets``) makes for one class after another, the likeliest first: with many
    classes it is cheaper, and it is the one to use against masked gradients.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm in which the perturbation is to be small.
    eps : float, default=None
        If given, larger perturbations do not count, and a row is done as soon as it has
        one that does; random starts are within this distance.
    max_iter : int, default=100
        Number of steps (for each start, and each class tried).
    n_targets : int, default=None
        How many classes the targeted version makes for; None is the plain version. For
        ``goal="misclassification"``.
    n_restarts : int, default=2
        How often to start. The first start is the row itself, the others are random: they
        help where gradients are masked at the row.
    alpha_max : float, default=0.1
        Largest weight of the projection of the row itself.
    eta : float, default=1.05
        How far to go beyond the boundary: 1 is onto it.
    beta : float, default=0.9
        How much of a successful perturbation is kept when the point goes back.
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
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
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
    FastMinimumNorm : The same aim, in every norm.
    AutoAttack : Uses it beside others.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast
       adaptive boundary attack", arXiv:1907.02044 (Algorithm 1).
    .. [2] F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an
       ensemble of diverse parameter-free attacks", arXiv:2003.01690 (Section 5, for the
       targeted version).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import FastAdaptiveBoundary
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000)
    >>> attack = FastAdaptiveBoundary(victim, norm=2, max_iter=20).fit(X, y)
    >>> result = attack.run(X)
    >>> bool(result.success.all()), float(result.distance.mean().round(1))
    (True, 0.9)
    """

    _parameter_constraints = {
        **MinimumNormAttack._parameter_constraints,
        **shared("max_iter", "n_restarts", "goal", "target", "random_state"),
        "norm": norms(np.inf, 2, 1),
        "n_targets": [Interval(Integral, 1, None, closed="left"), None],
        "alpha_max": [Interval(Real, 0, 1, closed="both")],
        "eta": [Interval(Real, 1, None, closed="left")],
        "beta": [Interval(Real, 0, 1, closed="both")],
        "eps": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: float | None = None,
        max_iter: int = 100,
        n_targets: int | None = None,
        n_restarts: int = 2,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
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
        self.n_targets = n_targets
        self.n_restarts = n_restarts
        self.alpha_max = alpha_max
        self.eta = eta
        self.beta = beta
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _check_goal(self, goal):
        if self.n_targets is not None:
            raise ValueError(
                "target: n_targets tries the other classes one after another; leave it "
                "None for one that is wanted."
            )

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        if self.n_targets is not None and self.goal != "misclassification":
            raise ValueError(
                "n_targets tries the other classes one after another, for "
                f"goal='misclassification'; for goal={self.goal!r} leave it None."
            )

    def _attack(self, state):
        rows = state.open_rows()
        targets = [None]
        if self.n_targets is not None:
            targets = likeliest_others(state, self.n_targets)
        for toward in targets:
            for restart in range(self.n_restarts):
                if self.eps is not None:
                    rows = rows[~state.success[rows]]
                search = Search(state, limit=self.eps or np.inf, rows=rows)
                search.select(search.best > 0)
                search.point = torch.zeros_like(search.x)
                if restart:
                    search.point = self._random_start(search, state.generator)
                if toward is not None:
                    search.toward = toward[search.rows]
                self._walk(search)
        if self.eps is None:
            shorten(state, 4)

    def _random_start(self, search, generator):
        """Half as far as the best perturbation, or `eps`, in one random direction."""
        ball = LpBall(self._norm, 1.0)
        radius = search.best.clamp_max(self.eps or np.inf)
        whole = search.norm(search.x.nan_to_num())
        radius = torch.where(radius.isfinite(), radius, whole) / 2
        point = ball.random(search.x[:1], generator).expand_as(search.x)
        size = search.norm(point).clamp_min(torch.finfo(point.dtype).tiny)
        return (point * column(radius / size, point)).clamp(search.lower, search.upper)

    def _walk(self, search):
        for _ in range(self.max_iter):
            if not search.can_ask():
                return
            self._ask(search, search.point)
            # At the goal by itself, or as near as is wanted.
            search.drop((search.best == 0) | (search.best <= (self.eps or 0)))
            # After a success, back towards the row, on the same linearisation.
            back = torch.where(search.hit, self.beta, 1.0)
            here = column(back.to(search.x.dtype), search.x) * search.delta
            search.point = self._between(search, here)
        if search.can_ask():
            search.look(search.point)

    def _ask(self, search, delta):
        if hasattr(search, "toward"):

            def difference(logits, at):
                own = logits.gather(1, search.labels[at, None])
                return (logits.gather(1, search.toward[at, None]) - own)[:, 0]

            search.ask_gradient(delta, difference)
            search.value = difference(search.logits, slice(None))
        else:
            search.ask_nearest(delta)

    def _between(self, search, here):
        """Between the projections of the point and of the row, and a little beyond."""
        weight = search.gradient.flatten(1)
        # The plane is where <weight, delta> has this value; on it is not yet beyond it.
        beyond = 2 * search.rounding - search.value
        offset = (weight * search.delta.flatten(1)).sum(1) + beyond
        lower, upper = search.lower.flatten(1), search.upper.flatten(1)
        flat = here.flatten(1)
        steps = nearest_on_hyperplane(
            torch.cat([weight, weight]),
            torch.cat([offset - (weight * flat).sum(1), offset]),
            self._norm,
            torch.cat([lower - flat, lower]),
            torch.cat([upper - flat, upper]),
        )
        (step, whole), (near, far) = steps.chunk(2), search.norm(steps).chunk(2)
        alpha = near / (near + far).clamp_min(torch.finfo(near.dtype).tiny)
        alpha = alpha.clamp_max(self.alpha_max)[:, None]
        new = (1 - alpha) * (flat + self.eta * step) + alpha * self.eta * whole
        return new.clamp(lower, upper).reshape(here.shape)
