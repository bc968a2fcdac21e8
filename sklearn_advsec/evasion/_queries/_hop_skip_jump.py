"""HopSkipJump (Chen, Jordan and Wainwright 2019)."""

from __future__ import annotations

from itertools import count
from math import ceil, log2, sqrt
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from .._active_rows import column
from .._base import norms, shared
from ._base import StartingAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# How many queries are kept for the search of a step.
_STEPS = 5


class HopSkipJump(StartingAttack):
    r"""HopSkipJump: walk along the decision boundary by labels alone.

    From a point with the wanted label it searches the boundary by bisection towards the
    row, estimates the boundary's normal there from the labels of :math:`B_t` random
    neighbours,

    .. math:: v_t = \frac{1}{B_t - 1} \sum_b (\phi_b - \bar\phi) \, u_b, \quad
        \phi_b = \pm 1, \quad B_t = B_0 \sqrt{t},

    steps along it by :math:`\xi_t = \|x_t - x\| / \sqrt t`, halved until the label is the
    wanted one, and comes back to the boundary. Neighbours are cut off at the box before
    the estimate, and every row is estimated by itself. The nearest point that the victim
    ever confirmed is returned.

    For inf only the signs of the estimate count, and noise decides many of them. The
    boundary turns little between two steps, so that the estimates before still say
    something: they are added, with a weight that falls by `momentum` at each step. That
    is no part of the paper.

    It minimises the distance and has no `eps`; a robust accuracy at some radius follows
    from `distance`. It needs some hundred queries per row to be of use.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {2, np.inf}, default=2
        The norm that is minimised.
    max_queries : int, default=1000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    n_evaluations : int, default=30
        Number of neighbours of the first estimate, :math:`B_0`. The paper has 100; with
        budgets of one or two thousand queries, a third of that gets nearer.
    gamma : float, default=1.0
        Factor of the precision of the bisection, ``gamma / d ** 1.5`` for ``norm=2`` and
        ``gamma / d ** 2`` for inf, where `d` is the number of features.
    momentum : float, default=None
        Weight of the estimates before; 0 is the paper's algorithm. None is 0.5 for inf,
        and 0 for ``norm=2``, where it helps on some victims and harms on others.
    start : {"noise", "data"}, default="noise"
        The first point: uniform noise in the box, as in the paper, or a near row of
        the data seen in `fit` that has the wanted label. The one follows where the other
        fails.
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data" or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
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
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`, as numbers.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If `bounds` is None: the first point, and the cut-off, need a range.

    See Also
    --------
    RayS : For the norm inf, mostly with fewer queries.
    PointwiseAttack : Changes few features.
    SquareAttack : From scores.

    References
    ----------
    .. [1] J. Chen, M. I. Jordan, M. J. Wainwright, "HopSkipJumpAttack: a query-efficient
       decision-based attack", arXiv:1904.02144 (Algorithms 1 and 2).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.evasion import HopSkipJump
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> victim = RandomForestClassifier(n_estimators=10, random_state=0)
    >>> attack = HopSkipJump(victim, max_queries=500, start="data").fit(X, y)
    >>> result = attack.run(X[:20])
    >>> bool(result.success.all()), bool(np.median(result.distance) < 0.5)
    (True, True)
    """

    knowledge = "label"

    _parameter_constraints = {
        **StartingAttack._parameter_constraints,
        **shared("start"),
        "norm": norms(2, np.inf),
        "n_evaluations": [Interval(Integral, 2, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        max_queries: int = 1000,
        n_evaluations: int = 30,
        gamma: float = 1.0,
        momentum: float | None = None,
        start: Literal["noise", "data"] = "noise",
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.max_queries = max_queries
        self.n_evaluations = n_evaluations
        self.gamma = gamma
        self.momentum = momentum
        self.start = start
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _search(self, active, state):
        self._begin(active, state)
        d = int(np.prod(self.row_shape_))
        power = 1.5 if self._norm == 2 else 2
        precision = self.gamma / d**power
        # Of a neighbour, in units of the distance (Section 3.3 of the paper).
        radius = precision * d ** (power - 1)
        n_halvings = ceil(log2(1 / min(precision, 1e-3)))
        to_boundary(active, self._norm, n_halvings)
        active.normals = torch.zeros_like(active.x)
        momentum = self.momentum
        if momentum is None:
            momentum = 0.5 if self._norm == np.inf else 0.0
        for step in count(1):
            active.give_up(active.affordable() < 1)
            if not active:
                return
            distance = active.distance(active.x + active.delta)
            if step == 1:  # far from the boundary's curvature: a tenth of the range
                size = 0.1 * (active.upper - active.lower).flatten(1).amax(1)
            else:
                size = radius * distance
            n = int(self.n_evaluations * sqrt(step))
            # The last estimate leaves enough for its step and the way to the boundary.
            n_sent = (active.affordable() - n_halvings - _STEPS).clamp(1, n)
            normal = estimate_normal(active, state, self._norm, size, n, n_sent)
            # By its noise, an estimate counts as the root of the number of its queries.
            normal = normal * column(n_sent.sqrt(), normal)
            active.normals = momentum * active.normals + normal
            _step(active, _unit(active.normals, self._norm), distance / sqrt(step))
            to_boundary(active, self._norm, n_halvings)


def to_boundary(active, norm, n_halvings):
    """Bisect between each row and its present point; end on the wanted side."""
    present = active.delta.clone()
    active.origin = present
    active.low = torch.zeros_like(active.labels, dtype=present.dtype)
    active.high = torch.ones_like(active.low)
    for _ in range(n_halvings):
        active.give_up(active.affordable() < 1)
        if not active:
            return
        middle = (active.low + active.high) / 2
        delta = _between(active.origin, middle, norm)
        x_adv = active.x + delta
        answer = active.ask(x_adv)
        active.improve(x_adv, answer)
        active.low = torch.where(answer.reached, active.low, middle)
        active.high = torch.where(answer.reached, middle, active.high)
        active.delta = torch.where(column(answer.reached, delta), delta, active.delta)


def _between(delta, share, norm):
    """Go a share of the way: on the line, or, for inf, by cutting off what is larger."""
    if norm == 2:
        return column(share, delta) * delta
    largest = delta.flatten(1).abs().amax(1)
    cut = column(share * largest, delta)
    return torch.clamp(delta, -cut, cut)


def estimate_normal(active, state, norm, size, n_samples, wanted=None):
    """Estimate the direction in which the wanted label lies, of Euclidean length 1.

    It takes `n_samples` queries, or as many as `wanted` says for each row.
    """
    noise = _directions(active.x, state.generator, norm, n_samples)
    normal = torch.zeros_like(active.x)

    def candidates(at):
        x = active.x[at, None]
        delta = active.delta[at, None] + column(size[at], active.x[at])[:, None] * noise
        return x + torch.clamp(delta, active.lower[at, None], active.upper[at, None])

    for at, x_adv, asked, answer in active.ask_many(candidates, n_samples, wanted):
        vote = torch.where(answer.reached, 1, -1).to(x_adv) * asked
        n = asked.sum(1, keepdim=True)
        mean = vote.sum(1, keepdim=True) / n
        # Where all agree there is nothing to compare: follow, or flee, their mean.
        weight = torch.where(mean.abs() < 1, (vote - mean) * asked, vote)
        moved = x_adv - (active.x[at] + active.delta[at])[:, None]
        moved = moved.nan_to_num(0.0).flatten(2)
        normal[at] = (weight[:, None] @ moved).reshape(normal[at].shape)
    return _unit(normal)


def _unit(direction, norm=2):
    """The step of length 1, in the norm, that goes furthest in a direction."""
    if norm == np.inf:
        return direction.sign()
    length = torch.linalg.vector_norm(direction.flatten(1), dim=1)
    return direction / column(
        length.clamp_min(torch.finfo(direction.dtype).tiny), direction
    )


def _directions(x, generator, norm, n):
    if norm == np.inf:
        noise = 2 * torch.rand((n, *x.shape[1:]), generator=generator, dtype=x.dtype) - 1
    else:
        noise = torch.randn((n, *x.shape[1:]), generator=generator, dtype=x.dtype)
    length = torch.linalg.vector_norm(noise.flatten(1), dim=1)
    return (noise / column(length, noise)).to(x.device)


def _step(active, normal, size):
    """Go along the normal, half as far each time, until the label is the wanted one."""
    active.normal, active.size = normal, size
    active.waits = torch.ones_like(active.labels, dtype=torch.bool)
    for _ in range(30):  # 2 ** -30 of a step is none
        active.give_up(active.waits & (active.affordable() < 1))
        at = torch.nonzero(active.waits).flatten()
        if not len(at):
            return
        delta = active.delta[at] + column(active.size[at], normal) * active.normal[at]
        delta = torch.clamp(delta, active.lower[at], active.upper[at])
        x_adv = active.x[at] + delta
        answer = active.ask(x_adv, at)
        active.improve(x_adv, answer, at)
        hit = at[answer.reached]
        active.delta[hit] = delta[answer.reached]
        active.waits[hit] = False
        active.size = active.size / 2
