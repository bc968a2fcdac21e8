"""The attacks of Carlini and Wagner (2016)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ...threat._projection import nearest_on_hyperplane
from .._active_rows import column
from .._base import norms, shared
from ._base import MinimumNormAttack, Search, shorten

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# Pixels at the edge of the box start this far inside, as a share of its half width:
# on the edge itself the change of variables has no slope.
_INSIDE = 1e-4
# How much slower each search is, once a row has had its first success.
_SLOWER = 0.7
# For Linf: how the bound on the perturbation falls, and how much the weight may grow.
_DECREASE = 0.9
_LARGEST = 1e5
# How often the first point is moved farther beyond the boundary, where the victim denies
# that it is there.
_N_STARTS = 6
# How many points are asked about at the end to shorten the perturbation.
_N_LOOKS = 6


class CarliniWagner(MinimumNormAttack):
    r"""Carlini and Wagner's attack: the smallest perturbation as an optimisation problem.

    For ``norm=2`` it minimises, by Adam,

    .. math:: \|\delta\|_2^2 + c \, \max(\kappa - m(x + \delta), 0),

    where :math:`m` is the margin: the logit of the wanted class (for misclassification,
    the best other one) less the largest of the rest. The box is kept by a change of
    variables, :math:`x + \delta` being a tanh of what is optimised, and the weight
    :math:`c` is found by a binary search, row by row, whose rounds each go on from where
    the one before ended, with smaller steps once there was a success. At the end the
    perturbation is shortened along its direction.

    For ``norm=inf`` it minimises
    :math:`c \, \max(\kappa - m, 0) + \sum_i \max(|\delta_i| - \tau, 0)`. Whenever a
    row reaches its goal within :math:`\tau`, the bound falls to nine tenths of the
    largest change; when a run of steps does not, it goes half of the way back, and
    :math:`c` is ten times larger, and the steps half as large, in the next one.

    Unlike in the paper, it begins at the nearest boundary of the victim linearised at the
    row, one step of :class:`DeepFool`: on a linear victim that is the solution, and with
    masked gradients it is a better place than the row itself.

    It is slow, and thorough.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {2, np.inf}, default=2
        The norm in which the perturbation is to be small.
    max_iter : int, default=200
        Largest number of Adam's steps in each search. The paper takes 10,000.
    n_searches : int, default=9
        Number of weights that are tried for each row. For ``norm=inf`` it bounds the
        steps in all: ``n_searches * max_iter``.
    initial_c : float, default=None
        The first weight of the margin. None takes it from the victim linearised at the
        row: for ``norm=2`` twice what a linear victim needs, for ``norm=inf`` what makes
        the pull of the margin a fiftieth of that of the norm. The paper's is 0.001.
    learning_rate : float, default=0.1
        Adam's, in units of the argument of the tanh; for features without finite bounds,
        in their own units.
    kappa : float, default=0.0
        The margin, in logits, that is asked for (the paper's confidence).
    abort_early : bool, default=True
        Whether a row ends a search when its objective has not fallen by 0.01 % during a
        tenth of it.
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
    DeepFool : Smallest changes at a fraction of the cost.
    FastMinimumNorm : The same, in every norm.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards evaluating the robustness of neural
       networks", arXiv:1608.04644 (Sections V-VI: the L2 attack with objective f6, and
       the Linf attack).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import CarliniWagner
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = CarliniWagner(LogisticRegression(max_iter=1000), max_iter=50).fit(X, y)
    >>> result = attack.run(X[::10], y[::10])
    >>> bool(result.success.all()), float(np.median(result.distance).round(1))
    (True, 1.0)
    """

    _parameter_constraints = {
        **MinimumNormAttack._parameter_constraints,
        **shared("max_iter", "goal", "target"),
        "norm": norms(2, np.inf),
        "n_searches": [Interval(Integral, 1, None, closed="left")],
        "initial_c": [Interval(Real, 0, None, closed="neither"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "kappa": [Interval(Real, 0, None, closed="left")],
        "abort_early": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        max_iter: int = 200,
        n_searches: int = 9,
        initial_c: float | None = None,
        learning_rate: float = 0.1,
        kappa: float = 0.0,
        abort_early: bool = True,
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
        self.n_searches = n_searches
        self.initial_c = initial_c
        self.learning_rate = learning_rate
        self.kappa = kappa
        self.abort_early = abort_early
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
        search = Search(state, self.kappa)
        if not search.can_ask():
            return
        search.ask_nearest(torch.zeros_like(search.x))
        search.select(search.best > 0)
        point, c = self._begin(search)
        rows = search.rows
        start = _BoxVariables.at(point, search.lower, search.upper)
        # The tanh comes near to this point only: of a wide feature, not near enough.
        for _ in range(_N_STARTS):
            if not search.can_ask():
                break
            search.look(point)
            search.drop(search.hit | (search.margin(search.logits) < 0))
            if len(search):  # the victim denies what its view says: go farther
                point, _ = self._begin(search)
        if self._norm == 2:
            self._search_weights(state, rows, start, c)
        else:
            self._lower_the_bound(state, rows, start, c)
        shorten(state, _N_LOOKS, self.kappa)

    def _begin(self, search):
        """The nearest linearised boundary, and twice the c at which it would be found."""
        weight = search.gradient.flatten(1)
        beyond = 2 * search.rounding + self.kappa - search.value
        lower, upper = search.lower.flatten(1), search.upper.flatten(1)
        point = nearest_on_hyperplane(weight, beyond, self._norm, lower, upper)
        if self.initial_c is not None:
            c = torch.full_like(beyond, self.initial_c)
        elif self._norm == 2:
            c = 4 * beyond / weight.square().sum(1).clamp_min(1e-12)
        else:
            c = 0.02 / weight.abs().mean(1).clamp_min(1e-12)
        return point.reshape(search.x.shape), c

    def _search_weights(self, state, rows, start, c):
        """Binary search over c; each round goes on from where the one before ended."""
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        rate = torch.ones_like(c)
        for _ in range(self.n_searches):
            reached = torch.zeros_like(rows, dtype=torch.bool)
            search = Search(state, self.kappa, rows=rows)
            search.at = torch.arange(len(rows), device=rows.device)
            search.variables = start.select(search.at)
            search.c, search.rate = c, rate
            search.before = torch.full_like(search.best, torch.inf)
            for step in range(self.max_iter):
                if not search.can_ask():
                    break
                search.ask_gradient(search.variables.delta())
                reached[search.at] |= search.hit
                if self.abort_early and (step + 1) % max(1, self.max_iter // 10) == 0:
                    hinge = (self.kappa - search.margin(search.logits)).clamp_min(0)
                    value = search.norm(search.delta).square() + search.c * hinge
                    stands = value > 0.9999 * search.before
                    search.before = value
                    start.put(search.at, search.variables)
                    search.drop(stands)
                pull = 2 * search.delta
                search.variables.descend(
                    pull - self._push(search), self.learning_rate * search.rate
                )
            start.put(search.at, search.variables)
            high = torch.where(reached, torch.minimum(c, high), high)
            low = torch.where(reached, low, torch.maximum(c, low))
            c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
            rate = torch.where(high.isfinite(), _SLOWER * rate, rate)

    def _lower_the_bound(self, state, rows, start, c):
        """Lower tau with each success; raise c where a run of steps brings none."""
        search = Search(state, self.kappa, rows=rows)
        search.variables = start
        search.c = c
        search.c_end = _LARGEST * search.c
        search.tau = torch.full_like(search.best, torch.inf)
        search.n_steps = torch.zeros_like(search.best)
        search.rate = torch.ones_like(search.best)
        for _ in range(self.n_searches * self.max_iter):
            if not search.can_ask():
                break
            search.ask_gradient(search.variables.delta())
            size = search.norm(search.delta)
            within = search.hit & (size <= search.tau)
            search.tau = torch.where(within, _DECREASE * size, search.tau)
            search.n_steps += 1
            over = ~within & (search.n_steps >= self.max_iter)
            search.c = torch.where(over, 10 * search.c, search.c)
            back = torch.where(search.best.isfinite(), search.best, search.tau)
            search.tau = torch.where(over, (search.tau + back) / 2, search.tau)
            search.rate = torch.where(over, search.rate / 2, search.rate)
            search.n_steps.masked_fill_(within | over, 0)
            search.variables.restart(within | over)
            search.drop(search.c > search.c_end)
            outside = search.delta.abs() > column(search.tau, search.x)
            pull = search.delta.sign() * outside
            search.variables.descend(
                pull - self._push(search), self.learning_rate * search.rate
            )

    def _push(self, search):
        """Gradient of c * margin, where the margin is not large enough yet."""
        wanted = search.margin(search.logits) <= self.kappa
        return column(search.c * wanted, search.x) * search.gradient


@dataclass
class _BoxVariables:
    """What Adam works on: w, of which the perturbation is a tanh that fills the box.

    Each tensor has one entry per row; `first`, `second` and `age` are Adam's moments and
    number of steps, and `curve` is the tanh of w at the last perturbations.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    boxed: torch.Tensor
    half: torch.Tensor
    middle: torch.Tensor
    w: torch.Tensor
    curve: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    age: torch.Tensor

    @classmethod
    def at(cls, point, lower, upper):
        """Begin at perturbations inside the box."""
        boxed = lower.isfinite() & upper.isfinite()
        half = torch.where(boxed, (upper - lower) / 2, 1)
        middle = torch.where(boxed, (upper + lower) / 2, 0)
        share = (point - middle) / half.clamp_min(torch.finfo(lower.dtype).tiny)
        inside = torch.atanh(share.clamp(_INSIDE - 1, 1 - _INSIDE))
        w = torch.where(boxed, inside, point)
        none = torch.zeros_like(w)
        age = torch.zeros(len(w), dtype=w.dtype, device=w.device)
        return cls(lower, upper, boxed, half, middle, w, none, none, none.clone(), age)

    def select(self, rows):
        """Return the variables of some of the rows."""
        kept = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return _BoxVariables(**kept)

    def put(self, rows, others):
        """Take over where the variables of some of the rows have come to."""
        for name in ("w", "first", "second", "age"):
            moved = getattr(self, name).clone()
            moved[rows] = getattr(others, name)
            setattr(self, name, moved)

    def delta(self):
        """The perturbations."""
        self.curve = torch.where(self.boxed, torch.tanh(self.w), self.w)
        return (self.middle + self.half * self.curve).clamp(self.lower, self.upper)

    def descend(self, gradient, learning_rate):
        """Take one of Adam's steps, given the gradient with respect to delta.

        The learning rate is one number for each row.
        """
        slope = torch.where(self.boxed, 1 - self.curve.square(), 1)
        gradient = gradient * self.half * slope
        self.age = self.age + 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        age = column(self.age, gradient)
        size = (self.second / (1 - 0.999**age)).sqrt() + 1e-8
        step = self.first / (1 - 0.9**age) / size
        self.w = self.w - step * column(learning_rate, step)

    def restart(self, rows):
        """Forget the past steps of some rows."""
        self.age = self.age.masked_fill(rows, 0)
        others = column(~rows, self.w)
        self.first, self.second = self.first * others, self.second * others
