"""Zeroth-order optimization, ZOO (Chen et al. 2017)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from .._base import shared
from ._base import BoxAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_BETAS = 0.9, 0.999  # of Adam


class ZerothOrderOptimization(BoxAttack):
    r"""ZOO: the attack of Carlini and Wagner with differences in place of gradients.

    It minimises

    .. math:: \|\delta\|_2^2 / r^2 + c \, \max(F(x + \delta), -\kappa),

    where :math:`F` is the margin of the present class in log-probabilities and `r` the
    largest range of a feature, by Adam on a few coordinates at a time. The first term
    needs no queries; the second one needs two for each coordinate, and none at all while
    the row is beyond the boundary. Coordinates are drawn by the size of their last known
    slope (importance sampling).
    Between rounds, `c` grows tenfold where nothing was found, and is bisected where
    something was. The nearest point that the victim confirmed is returned.

    Coordinate differences are expensive: at equal queries :class:`SquareAttack` and
    :class:`SimBA` succeed more often.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    max_queries : int, default=5000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    n_coordinates : int, default=64
        How many coordinates one step moves; each costs two queries.
    n_rounds : int, default=2
        How many values of `c` are tried; they share the budget.
    c : float, default=10.0
        The first weight of the margin.
    kappa : float, default=0.0
        The margin that is aimed at beyond the boundary.
    learning_rate : float, default=0.2
        Step of Adam, as a share of each feature's range.
    difference : float, default=0.1
        Half the width of a difference, as a share of each feature's range. Smaller ones
        are more exact and see nothing of victims that are constant over small moves.
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
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
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If `bounds` is None.

    See Also
    --------
    CarliniWagner : The same loss, from gradients.
    SquareAttack : Fewer queries.

    References
    ----------
    .. [1] P.-Y. Chen, H. Zhang, Y. Sharma, J. Yi, C.-J. Hsieh, "ZOO: zeroth order
       optimization based black-box attacks to deep neural networks without training
       substitute models", arXiv:1708.03999 (Algorithm 2, ZOO-ADAM, and Section 3.6).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import ZerothOrderOptimization
    >>> X, y = load_digits(return_X_y=True)
    >>> attack = ZerothOrderOptimization(LogisticRegression(max_iter=2000))
    >>> result = attack.fit(X[:1000], y[:1000]).run(X[1000:1004], y[1000:1004])
    >>> bool(result.success.all())
    True
    """

    knowledge = "score"
    norm = 2

    _parameter_constraints = {
        **BoxAttack._parameter_constraints,
        **shared("goal", "target", "random_state"),
        "n_coordinates": [Interval(Integral, 1, None, closed="left")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "c": [Interval(Real, 0, None, closed="neither")],
        "kappa": [Interval(Real, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "difference": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        max_queries: int = 5000,
        n_coordinates: int = 64,
        n_rounds: int = 2,
        c: float = 10.0,
        kappa: float = 0.0,
        learning_rate: float = 0.2,
        difference: float = 0.1,
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
        self.max_queries = max_queries
        self.n_coordinates = n_coordinates
        self.n_rounds = n_rounds
        self.c = c
        self.kappa = kappa
        self.learning_rate = learning_rate
        self.difference = difference
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
        active.give_up(active.affordable() < 1)
        if not len(active):
            return
        if active.objective is None:
            active.objective = active.ask(active.x).objective
        active.range = (active.upper - active.lower).flatten(1)
        active.clean = active.objective
        active.weight = torch.full_like(active.objective, self.c)
        active.too_small = torch.zeros_like(active.weight)
        active.too_large = torch.full_like(active.weight, torch.inf)
        seeds = torch.randint(2**31 - 1, (self.n_rounds,), generator=state.generator)
        for round, seed in enumerate(seeds.tolist(), 1):
            active.found = torch.zeros_like(active.labels, dtype=torch.bool)
            active.now = active.clean
            until = self.max_queries * (self.n_rounds - round) // self.n_rounds
            self._minimise(active, torch.Generator().manual_seed(seed), until)
            if not len(active):
                return
            # As Carlini and Wagner choose c: grow, or bisect.
            found, weight = active.found, active.weight
            active.too_large = torch.where(found, weight, active.too_large)
            active.too_small = torch.where(found, active.too_small, weight)
            middle = (active.too_small + active.too_large) / 2
            active.weight = torch.where(active.too_large.isinf(), 10 * weight, middle)

    def _minimise(self, active, generator, until):
        """Adam on the coordinates drawn, until `until` queries are left to each row."""
        active.move, active.mean, active.square, active.times = (
            torch.zeros_like(active.range) for _ in range(4)
        )
        active.slope = torch.ones_like(active.range)
        # A length in the units of the features would make c depend on them.
        active.unit = active.range.amax(1, keepdim=True).square().clamp_min(1e-30)
        while True:
            active.give_up(active.affordable() < 1)
            if not len(active) or (active.affordable() <= until).all():
                return
            goes_on = active.affordable() > until
            crosses = goes_on & (active.now <= self.kappa)  # the margin still counts
            drawn = self._draw(active, generator)
            ascent, moved = self._differences(active, drawn, crosses)
            moved |= (goes_on & ~crosses)[:, None]
            gradient = 2 * active.move / active.unit - active.weight[:, None] * ascent
            self._adam(active, gradient, moved)
            at = torch.nonzero(goes_on & (active.affordable() > 0)).flatten()
            if not len(at):
                continue
            x_adv = active.x[at] + active.move[at].reshape(-1, *active.x.shape[1:])
            answer = active.ask(x_adv, at)
            active.now = active.now.index_copy(0, at, answer.objective)
            active.found[at] |= answer.objective > self.kappa
            active.improve(x_adv, answer, at)

    def _draw(self, active, generator):
        """Coordinates of each row, likelier where the last known slope is large."""
        width = active.range.shape[1]
        uniform = torch.rand(width, generator=generator, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-12)))
        weight = torch.where(active.range > 0, active.slope, 0)
        keys = torch.log(weight) + gumbel.to(weight)
        return keys.topk(min(self.n_coordinates, width), dim=1).indices

    def _differences(self, active, drawn, crosses):
        """Slopes of the objective at the coordinates drawn; 0 at all others."""
        n_drawn = drawn.shape[1]
        reach = self.difference * active.range.gather(1, drawn)

        def candidates(at):
            move = active.move[at, None].repeat(1, 2 * n_drawn, 1)
            place = drawn[at].repeat_interleave(2, 1)[:, :, None]
            sign = torch.tensor([1.0, -1.0], device=reach.device, dtype=reach.dtype)
            step = (reach[at, :, None] * sign).flatten(1)[:, :, None]
            move = move.scatter_add(2, place, step)
            lower, upper = active.lower[at].flatten(1), active.upper[at].flatten(1)
            move = torch.clamp(move, lower[:, None], upper[:, None])
            return active.x[at, None] + move.reshape(*move.shape[:2], *active.x.shape[1:])

        ascent = torch.zeros_like(active.move)
        moved = torch.zeros_like(active.move, dtype=torch.bool)
        wanted = 2 * n_drawn * crosses
        for at, x_adv, asked, answer in active.ask_many(candidates, 2 * n_drawn, wanted):
            pair = asked.reshape(len(asked), n_drawn, 2).all(2)
            value = torch.where(asked, answer.objective, 0).reshape(*pair.shape, 2)
            place = drawn[at]
            ends = x_adv.flatten(2).gather(2, place.repeat_interleave(2, 1)[:, :, None])
            ends = ends.reshape(*pair.shape, 2)
            width = (ends[..., 0] - ends[..., 1]).clamp_min(1e-12)
            slope = (value[..., 0] - value[..., 1]) / width * pair
            ascent[at] = ascent[at].scatter(1, place, slope)
            moved[at] = moved[at].scatter(1, place, pair)
        # Slopes per range, as that is how far a coordinate can go.
        known = (ascent * active.range).abs()
        floor = known.sum(1, keepdim=True) / moved.sum(1, keepdim=True).clamp_min(1) / 10
        active.slope = torch.where(moved, known + floor.clamp_min(1e-6), active.slope)
        return ascent, moved

    def _adam(self, active, gradient, moved):
        gradient = gradient * active.range
        one, two = _BETAS
        # 1 where a coordinate moves: products with it are faster than choices.
        moved = moved.to(gradient.dtype)
        active.times = active.times + moved
        active.mean = active.mean + (1 - one) * moved * (gradient - active.mean)
        square = gradient.square() - active.square
        active.square = active.square + (1 - two) * moved * square
        times = active.times.clamp_min(1)
        mean = active.mean / (1 - one**times)
        scale = (active.square / (1 - two**times)).sqrt()
        step = self.learning_rate * active.range * mean / scale.clamp_min(1e-12)
        lower, upper = active.lower.flatten(1), active.upper.flatten(1)
        active.move = torch.clamp(active.move - moved * step, lower, upper)
