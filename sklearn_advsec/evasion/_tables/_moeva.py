"""Evolution of valid rows for two objectives (MOEVA, Simonetto et al. 2022)."""

from __future__ import annotations

from itertools import count
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from .._base import norms, shared
from .._missing import perturbation
from .._queries._base import QueryAttack
from ._base import TabularAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


def rank(fitness):
    """Number the fronts of non-dominated individuals, from 0.

    Parameters
    ----------
    fitness : tensor of shape (n_rows, n_individuals, n_objectives)
        Smaller is better. Of equals, the first dominates the others.

    Returns
    -------
    front : tensor of int64, shape (n_rows, n_individuals)

    References
    ----------
    .. [1] K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II",
       2002 (Section III.A).
    """
    n = fitness.shape[1]
    no_worse, better = True, False
    for value in fitness.unbind(2):
        no_worse = (value[:, :, None] <= value[:, None]) & no_worse
        better = (value[:, :, None] < value[:, None]) | better
    first = torch.ones(n, n, dtype=torch.bool, device=fitness.device).triu(1)
    dominates = no_worse & (better | first)
    front = torch.full(fitness.shape[:2], n, dtype=torch.int64, device=fitness.device)
    left = torch.ones_like(front, dtype=torch.bool)
    for k in range(n):
        if not left.any():
            break
        beaten = (dominates & left[:, :, None]).any(1)
        now = left & ~beaten
        front = torch.where(now, k, front)
        left &= ~now
    return front


def crowding(fitness, front):
    """Sum, over objectives, the gap between the neighbours in the same front.

    Parameters
    ----------
    fitness : tensor of shape (n_rows, n_individuals, n_objectives)
    front : tensor of int64, shape (n_rows, n_individuals)

    Returns
    -------
    distance : tensor of shape (n_rows, n_individuals)
        Infinite at the ends of a front.
    """
    total = torch.zeros_like(fitness[..., 0])
    for value in fitness.unbind(2):
        low, high = value.amin(1, keepdim=True), value.amax(1, keepdim=True)
        value = (value - low) / (high - low).clamp_min(1e-12)
        # Fronts one behind the other, each in the order of the objective.
        order = (value + 2.0 * front).argsort(dim=1)
        value, fronts = value.gather(1, order), front.gather(1, order)
        inner = (fronts[:, 2:] == fronts[:, 1:-1]) & (fronts[:, :-2] == fronts[:, 1:-1])
        gap = torch.where(inner, value[:, 2:] - value[:, :-2], torch.inf)
        gap = torch.nn.functional.pad(gap, (1, 1), value=torch.inf)
        total += torch.zeros_like(total).scatter(1, order, gap)
    return total


def survivors(fitness, n_kept):
    """Positions of the individuals that live on, the best ones first."""
    front = rank(fitness)
    spread = crowding(fitness, front).clamp_max(1e6)
    order = (front * 2e6 - spread).argsort(dim=1, stable=True)
    return order[:, :n_kept]


def cross(first, second, generator):
    """Swap the genes between two random points, the same ones for all rows."""
    n, d = first.shape[1:]
    cuts = torch.randint(d + 1, (2, n, 1), generator=generator).sort(dim=0).values
    place = torch.arange(d)
    swap = ((place >= cuts[0]) & (place < cuts[1])).to(first.device)
    return torch.where(swap, second, first)


def polynomial(value, low, high, eta, generator):
    """Mutate numbers inside their range (Deb and Agrawal 1999, eta as there).

    The draws are the same for all rows.
    """
    u = torch.rand(value.shape[1:], generator=generator, dtype=torch.float64)
    u = u.to(value)
    width = (high - low).clamp_min(1e-30)
    down, up = ((value - low) / width).clamp(0, 1), ((high - value) / width).clamp(0, 1)
    left = (2 * u + (1 - 2 * u) * (1 - down) ** (eta + 1)).clamp_min(0.0)
    right = (2 * (1 - u) + (2 * u - 1) * (1 - up) ** (eta + 1)).clamp_min(0.0)
    move = torch.where(u < 0.5, left ** (1 / (eta + 1)) - 1, 1 - right ** (1 / (eta + 1)))
    return value + move * width


# The index of the polynomial mutation: how near the mutants stay.
_ETA = 5.0
# Of the genes that mutate, and may, this share goes missing.
_LOSS = 0.2
# Numbers with at most so many steps are drawn anew.
_FEW = 10


class MultiObjectiveEvolution(TabularAttack, QueryAttack):
    r"""MOEVA: evolve a population of valid rows, by scores alone.

    For each row, individuals are bred by two-point crossover and polynomial mutation of
    numbers, and by drawing categories anew. Each is projected onto the constraints, and
    those live on that are nearest to the goal or nearest to the row, by non-dominated
    sorting and crowding. All rows of a batch evolve at the same time, with the same
    random draws.

    The paper counts violations as a third objective, and selects by reference points;
    here every individual is valid, so that two objectives, and NSGA-II, do. Libraries of
    it evolve one population at a time, and so call a pipeline once per row and
    generation: pymoo takes ten times as long (``benchmarks/bench_tabular.py``).

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 1, 2, 0}, default=2
        The norm of `eps` and of the second objective.
    eps : float, default=0.5
        The largest norm, in units of scale, where another category counts 1. None is no
        limit but the constraints.
    n_generations : int, default=100
        Number of generations.
    population : int, default=40
        Number of individuals of each row, and of their offspring.
    patience : int, default=25
        A row is given up when its best score has not improved for so many generations.
    early_stopping : bool, default=True
        Whether a row is done with its first success. If not, it evolves to the end, and
        the nearest success is kept.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    bounds : "data", None or tuple (lower, upper), default=None
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    max_queries : int, default=10000
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

    See Also
    --------
    GreedyFeatureAttack : Changes few columns, with fewer queries.
    ConstrainedAdaptiveAttack : With gradients.

    References
    ----------
    .. [1] T. Simonetto et al., "A unified framework for adversarial attack and defense in
       constrained feature space", arXiv:2112.01156 (Section 4.2, MoEvA2).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.evasion import MultiObjectiveEvolution
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> attack = MultiObjectiveEvolution(forest, eps=1.0, n_generations=20).fit(X, y)
    >>> bool(attack.run(X[:10], y[:10]).success.mean() > 0.5)
    True
    """

    knowledge = "score"

    _parameter_constraints = {
        **TabularAttack._parameter_constraints,
        **QueryAttack._parameter_constraints,
        **shared("early_stopping"),
        "norm": norms(np.inf, 1, 2, 0),
        "n_generations": [Interval(Integral, 1, None, closed="left")],
        "population": [Interval(Integral, 4, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "eps": [Interval(Real, 0, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        eps: float = 0.5,
        n_generations: int = 100,
        population: int = 40,
        patience: int = 25,
        early_stopping: bool = True,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = None,
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int = 10_000,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.n_generations = n_generations
        self.population = population
        self.patience = patience
        self.early_stopping = early_stopping
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
        self.random_state = random_state
        self.verbose = verbose

    def _choose_batch_size(self, X):
        # A chunk is eight batches, and holds a population for each of its rows.
        return 64 if self.batch_size == "auto" else self.batch_size

    def _search(self, active, state):
        evolve(
            active,
            state,
            self.n_generations,
            self.population,
            norm=self._norm,
            patience=self.patience,
            early_stopping=self.early_stopping,
        )


def evolve(
    active, state, n_generations, population, *, norm, patience=25, early_stopping=True
):
    """Evolve populations for the active rows; successes are recorded.

    Parameters
    ----------
    active : ActiveRows
    state : AttackState
    n_generations, population : int
    norm : float
        Of the second objective.
    patience : int, default=25
        Rows leave when their best score has not improved for so many generations.
    early_stopping : bool, default=True
        Whether rows leave at their first success.
    """
    breeder = _Breeder(state.access, state.generator)
    active.genes = active.x[:, None].repeat(1, population, 1)
    active.lower_at, active.upper_at = breeder.reachable_range(active.rows)
    active.children = breeder.mutate(active, active.genes, rate=0.3)
    active.children[:, 0] = active.x
    active.children[:, 1] = state.x_adv[active.rows]  # where another attack ended
    active.fitness = active.x.new_empty(len(active), 0, 2)
    active.genes = active.genes[:, :0]
    active.best = torch.full_like(active.x[:, 0], torch.inf)
    active.goal = active.best.clone()
    active.stale = torch.zeros_like(active.labels)
    for generation in count():
        active.give_up(active.affordable() < 1)
        if not len(active):
            return
        active.children = breeder.validate(active)
        active.scores = _ask(active, state, norm, breeder, early_stopping)
        if early_stopping:
            active.give_up(active.best.isfinite())
            goal = active.scores[..., 0].amin(1)
            better = goal < active.goal - 1e-4 * goal.abs().clamp_min(1e-8)
            active.goal = torch.where(better, goal, active.goal)
            active.stale = torch.where(better, 0, active.stale + 1)
            active.give_up(active.stale >= patience)
        if generation == n_generations or not len(active):
            break
        active.genes = torch.cat([active.genes, active.children], dim=1)
        active.fitness = torch.cat([active.fitness, active.scores], dim=1)
        kept = survivors(active.fitness, population)
        active.genes = _gather(active.genes, kept)
        active.fitness = _gather(active.fitness, kept)
        _show_best(active)
        active.children = breeder.breed(active)
    active.give_up(torch.ones_like(active.labels, dtype=torch.bool))


def _gather(values, index):
    return values.gather(1, index[..., None].expand(*index.shape, values.shape[2]))


def _show_best(active):
    """Let the present perturbation be that of the individual nearest to the goal."""
    best = active.fitness[..., 0].argmin(1)[:, None]
    active.delta = perturbation(active.x, _gather(active.genes, best)[:, 0])


def _ask(active, state, norm, breeder, early_stopping):
    """Ask about the children; return their objectives, and record the best success."""
    n, k = active.children.shape[:2]
    size = breeder.size(active, active.children, norm)
    scores = torch.full((n, k, 2), torch.inf, dtype=size.dtype, device=size.device)
    for at, x_adv, asked, answer in active.ask_many(lambda at: active.children[at], k):
        goal = torch.where(asked, -answer.objective, torch.inf)
        scores[at] = torch.stack([goal, size[at]], dim=2)
        near = torch.where(answer.reached & asked, size[at], torch.inf)
        nearest, which = near.min(1)
        better = torch.nonzero(nearest < active.best[at]).flatten()
        if len(better):
            chosen, own = which[better], at.start + better
            found, said = x_adv[better, chosen], answer.predicted[better, chosen]
            said, confirmed = active.confirm(found, own, said)
            own = own[confirmed]
            state.record(
                active.rows[own],
                found[confirmed],
                said[confirmed],
                True,
                ends=early_stopping,
            )
            active.best[own] = nearest[better][confirmed]
    return scores


class _Breeder:
    """Makes children: valid rows, from valid rows."""

    def __init__(self, access, generator):
        self.access, self.generator = access, generator
        region, device = access.region, access.x.device
        self.nominal = region.nominal.to(device)
        self.mutable = region.mutable.to(device)
        self.losable = access.may_go_missing.to(device)
        places = (region.upper - region.lower) / region.step
        self.few = (region.lattice & (places <= _FEW)).to(device)
        self.n_codes = (region.upper - region.lower + 1).nan_to_num(1.0, 1.0, 1.0)
        self.n_codes = self.n_codes.to(access.x)
        self.groups = [group.to(device) for group in region.groups]
        self.grouped = torch.zeros_like(self.nominal)
        for group in self.groups:
            self.grouped[group] = True

    def reachable_range(self, rows):
        """Return the range of the genes of some rows, in units of scale."""
        access = self.access
        at = rows.cpu()
        return tuple(
            (bound[at] / access.region.scale).to(access.x)
            for bound in (access.lower, access.upper)
        )

    def _draw(self, *shape):
        draw = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return draw.to(self.access.x)

    def mutate(self, active, genes, rate):
        """Change a share of the genes; draws are the same for all rows."""
        k, d = genes.shape[1:]
        hit = (self._draw(k, d) < rate) & self.mutable
        # Only of the genes that change there is anything to compute.
        who, which = torch.nonzero(hit, as_tuple=True)
        old = genes[:, who, which]
        losable = self.losable[which]
        if losable.any():  # what is gone comes back as it was
            old = torch.where(old.isnan() & losable, active.x[:, which], old)
        low, high = active.lower_at[:, which], active.upper_at[:, which]
        spread = (high - low).isfinite()
        low = torch.where(spread, low, old - 1)
        high = torch.where(spread, high, old + 1)
        numbers = polynomial(old, low, high, _ETA, self.generator)
        draw = self._draw(len(who))
        # Small steps between few values would all be rounded away.
        numbers = torch.where(self.few[which], low + draw * (high - low), numbers)
        codes = torch.floor(draw * self.n_codes[which])
        result = genes.clone()
        result[:, who, which] = torch.where(self.nominal[which], codes, numbers)
        if losable.any():
            gone = losable & (self._draw(len(who)) < _LOSS)
            result[:, who[gone], which[gone]] = torch.nan
        for group in self.groups:  # all columns of a group change together
            turn = hit[:, group].any(1, keepdim=True) & (
                self._draw(k, 1) < len(group) * rate
            )
            winner = torch.floor(self._draw(k, 1) * len(group)).long()
            one = torch.zeros(k, len(group)).to(genes).scatter(1, winner, 1.0)
            result[..., group] = torch.where(turn, one, genes[..., group])
        return result

    def breed(self, active):
        """Cross individuals that won against a random other, and mutate."""
        k, d = active.genes.shape[1:]
        draws = torch.randint(k, (2, 2, k), generator=self.generator)
        # Survivors come best first, so the smaller position wins.
        parents = draws.amin(1).to(active.genes.device)
        children = cross(
            active.genes[:, parents[0]], active.genes[:, parents[1]], self.generator
        )
        free = max(int(self.mutable.sum()), 1)
        return self.mutate(active, children, rate=max(1.0 / free, 0.05))

    def validate(self, active):
        """Project all children onto the constraints."""
        access, children = self.access, active.children
        k, d = children.shape[1:]
        rows = active.rows.repeat_interleave(k)
        valid = access.valid(children.reshape(-1, d), rows) / access.region.scale
        return valid.to(access.x).reshape(children.shape)

    def size(self, active, children, norm):
        """Norm of the moves; another category is a move of 1."""
        move = perturbation(active.x[:, None], children)
        move = torch.where(self.nominal & (move != 0), 1.0, move).nan_to_num(1.0)
        return torch.linalg.vector_norm(move, ord=norm, dim=2)
