"""Greedy feature selection: the move of the largest gain per cost, one by one."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ..._rows import is_dataframe
from ..._sklearn import Interval, StrOptions
from ...trees import tree_ensemble
from ...trees._edges import Edges
from .._active_rows import ActiveRows, Answer
from .._base import norms
from .._missing import perturbation
from .._queries._base import QueryAttack
from ._base import TabularAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# A change that is needed is halved this often, in search of a smaller one.
_HALVINGS = 5
# Distances to so many numbers are computed at a time.
_ELEMENTS = 2**21


class Moves:
    """All moves that an attack may try: a column, and the value that it gets.

    Columns of a one-hot group are one feature; the move sets one of them to 1 (or, where
    a category has no column, to 0) and the others to 0. Rows are in units of scale.

    Parameters
    ----------
    access : ConstrainedAccess
        Knows the region.
    values : list of array-like
        For each column, values worth trying, in the units of the region.

    Attributes
    ----------
    column : tensor of int64, shape (n_moves,)
        The column that each move sets.
    value : tensor of shape (n_moves,)
        What it sets it to, in units of scale; NaN where the value goes missing.
    feature : tensor of int64, shape (n_columns,)
        The feature that a column belongs to: the first column of its group.
    """

    def __init__(self, access, values):
        region, like = access.region, access.x
        self.feature = torch.arange(len(region.features))
        self.grouped = torch.zeros(len(region.features), dtype=torch.bool)
        for group in region.groups:
            self.feature[group], self.grouped[group] = group[0], True
        pairs = zip(region.groups, region.baseline, strict=True)
        may_be_empty = {j for group, empty in pairs if empty for j in group.tolist()}
        columns, targets = [], []
        for j in torch.nonzero(region.mutable).flatten().tolist():
            tried = np.unique(values[j])
            if self.grouped[j]:
                tried = np.arange(2.0) if j in may_be_empty else np.ones(1)
            elif region.nominal[j]:
                tried = np.arange(len(region.features[j].categories))
            if access.may_go_missing[j]:
                tried = np.append(tried, np.nan)
            columns += [j] * len(tried)
            targets += list(tried / float(region.scale[j]))
        self.column = torch.tensor(columns, dtype=torch.int64, device=like.device)
        self.value = torch.tensor(targets, dtype=like.dtype, device=like.device)
        self.groups = [group.to(like.device) for group in region.groups]
        self.cost = region.cost.to(like)
        self.named = (region.nominal | self.grouped).to(like.device)
        self.nominal = region.nominal.to(like.device)
        self.feature = self.feature.to(like.device)
        self.grouped = self.grouped.to(like.device)
        self.allowed = {j: table.to(like.device) for j, table in region.allowed.items()}

    def __len__(self):
        return len(self.column)

    def look_at(self, active, which):
        """Say what moves would do to the active rows as they are now.

        Parameters
        ----------
        active : ActiveRows
            ``active.delta`` is where they are.
        which : tensor of int64, shape (n_active, n_tried)
            Positions of moves.

        Returns
        -------
        value : tensor of shape (n_active, n_tried)
            What the column gets: the move's value, kept inside the room.
        usable : tensor of bool, shape (n_active, n_tried)
            Whether anything changes.
        price : tensor of shape (n_active, n_tried)
            Cost times the size of the move, and once more for a new feature.
        """
        column, value = self.column[which], self.value[which]
        start, here = active.x.gather(1, column), active.delta.gather(1, column)
        lower, upper = active.lower.gather(1, column), active.upper.gather(1, column)
        named = self.named[column]
        clamped = torch.minimum(torch.maximum(value, start + lower), start + upper)
        value = torch.where(named, value, clamped)
        present, gone = start + here, value.isnan()
        usable = (value != present) & ~(gone & present.isnan()) & ~start.isnan()
        usable &= ~self.grouped[column] | (upper > 0) | (start > 0)
        for j, table in self.allowed.items():
            own = column == j
            before = start.nan_to_num(0.0).long().clamp(0, len(table) - 1)
            after = value.nan_to_num(0.0).long().clamp(0, len(table) - 1)
            usable &= ~(own & self.nominal[column]) | table[before, after]
        size = torch.where(named | gone, 1.0, (value - start).abs())
        size = torch.where(value == start, 0.0, size)
        new = ~active.touched.gather(1, self.feature[column])
        return value, usable, self.cost[column] * (size + new) + 1e-6

    def apply(self, point, which, value):
        """Return the rows after one move each, of shape (n, n_tried, n_columns)."""
        column = self.column[which]
        moved = point[:, None].expand(*which.shape, point.shape[1]).clone()
        for group in self.groups:
            inside = (self.feature[column] == group[0])[..., None]
            moved[..., group] = torch.where(inside, 0.0, moved[..., group])
        return moved.scatter(2, column[..., None], value[..., None])

    def changed(self, start, point):
        """Which features differ, of shape (n, n_columns), at their first column."""
        differs = (start != point) & ~(start.isnan() & point.isnan())
        for group in self.groups:
            any_of = differs[:, group].any(1)
            differs[:, group] = False
            differs[:, group[0]] = any_of
        return differs

    def spent(self, start, point):
        """What the change of each feature costs, 0 where there is none."""
        size = (point - start).abs().nan_to_num(1.0)
        size = torch.where(self.named, 1.0, size) * self.cost + self.cost
        return torch.where(self.changed(start, point), size, 0.0)


def climb_greedily(active, moves, shortlist):
    """Make the move of the largest gain per price, until the goal is reached.

    Where the short list gains nothing any more, all moves are tried once again.
    """
    active.give_up(active.affordable() < 1)
    if not len(active):
        return
    if active.objective is None:
        active.objective = active.ask(active.x).objective
    n = len(active)
    active.touched = torch.zeros_like(active.x, dtype=torch.bool)
    active.order = torch.arange(len(moves), device=active.x.device).repeat(n, 1)
    active.tried = torch.full_like(active.labels, len(moves))
    while True:
        active.give_up(active.affordable() < 1)
        if not len(active):
            return
        width = int(active.tried.max())
        which = active.order[:, :width]
        value, usable, price = moves.look_at(active, which)
        usable &= torch.arange(width, device=which.device) < active.tried[:, None]
        # What changes nothing goes last, and is not asked about.
        first = (~usable).to(torch.int8).argsort(dim=1, stable=True)
        which, value, price = (t.gather(1, first) for t in (which, value, price))
        gain, reached, predicted = _ask_all(active, moves, which, value, usable.sum(1))
        rank = torch.where(gain > 1e-12, gain / price, -torch.inf)
        rank = torch.where(reached, 1e30 / price, rank)
        order = rank.argsort(dim=1, descending=True, stable=True)
        full = active.tried == len(moves)
        best = order[:, 0]
        rest = active.order[:, width:]
        active.order = torch.cat([which.gather(1, order), rest], dim=1)
        lost = rank.gather(1, best[:, None])[:, 0] == -torch.inf
        active.tried = torch.where(lost, len(moves), shortlist).clamp_max(len(moves))
        chosen = which.gather(1, best[:, None]), value.gather(1, best[:, None])
        point = moves.apply(active.x + active.delta, *chosen)[:, 0]
        active.delta = torch.where(lost[:, None], active.delta, point - active.x)
        active.touched = moves.changed(active.x, active.x + active.delta)
        step = gain.gather(1, best[:, None])[:, 0]
        active.objective = torch.where(lost, active.objective, active.objective + step)
        hit = reached.gather(1, best[:, None])[:, 0]
        answer = predicted.gather(1, best[:, None])[:, 0]
        active.predicted = torch.where(lost, active.predicted, answer)
        active.stuck = lost & full
        active.record_successes(point, Answer(answer, hit))
        active.give_up(active.stuck)


def _ask_all(active, moves, which, value, wanted):
    """Ask about all moves; return gains (-infinity where not asked) and answers."""
    gain = torch.full_like(value, -torch.inf)
    reached = torch.zeros_like(value, dtype=torch.bool)
    predicted = torch.zeros_like(which)

    def candidates(at):
        return moves.apply(active.x[at] + active.delta[at], which[at], value[at])

    for at, _, asked, answer in active.ask_many(candidates, which.shape[1], wanted):
        change = answer.objective - active.objective[at, None]
        gain[at] = torch.where(asked, change, -torch.inf)
        reached[at], predicted[at] = answer.reached, answer.predicted
    return gain, reached, predicted


def approach(active, moves, starts, mutable):
    """Ask about known rows, from near to far, until one has the wanted label."""
    starts = starts.to(active.x)
    # The neighbours mostly have the row's own label: go on with growing strides.
    places = [k * (k + 1) // 2 for k in range(len(starts))]
    places = torch.tensor([p for p in places if p < len(starts)], device=active.x.device)
    active.near = torch.empty(len(active), len(places), dtype=torch.int64)
    step = max(1, _ELEMENTS // starts.numel())
    for begin in range(0, len(active), step):
        x = active.x[begin : begin + step]
        far = (x[:, None] - starts[None]).abs().nan_to_num(0.0)
        far = torch.where(moves.named & (far > 0), 1.0, far) * moves.cost
        order = far.masked_fill(~mutable, 0.0).sum(2).argsort(dim=1)
        active.near[begin : begin + step] = order[:, places].cpu()
    for k in range(len(places)):
        active.give_up(active.affordable() < 1)
        if not len(active):
            return
        point = starts[active.near[:, k].to(starts.device)]
        point = torch.where(mutable & ~point.isnan(), point, active.x)
        active.record_successes(point, active.ask(point))
    active.give_up(torch.ones_like(active.labels, dtype=torch.bool))


def simplify(active, moves, state):
    """Take back each change that is not needed, the dearest first; shorten the rest."""
    active.delta = perturbation(active.x, state.x_adv[active.rows])
    price = moves.spent(active.x, active.x + active.delta)
    active.order = price.argsort(dim=1, descending=True, stable=True)
    active.n_changed = (price > 0).sum(1)
    for k in range(int(active.n_changed.max())):
        feature = active.order[:, k]
        own = moves.feature[None] == feature[:, None]
        back = torch.where(own, 0.0, active.delta)
        _try(active, back, active.n_changed > k, state)
    halved = ~moves.named
    for k in range(int(active.n_changed.max())):
        feature = active.order[:, k]
        own = moves.feature[None] == feature[:, None]
        numbers = halved[feature] & (active.n_changed > k)
        numbers &= (own & (active.delta != 0) & ~active.delta.isnan()).any(1)
        far = active.delta.clone()
        low, high = torch.zeros_like(price[:, 0]), torch.ones_like(price[:, 0])
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            tried = torch.where(own, middle[:, None] * far, active.delta)
            better = _try(active, tried, numbers, state)
            high, low = (
                torch.where(better, middle, high),
                torch.where(better, low, middle),
            )


def _try(active, delta, wanted, state):
    """Ask about other perturbations of some rows, and keep those that do as well."""
    at = torch.nonzero(wanted & (active.affordable() > 0)).flatten()
    better = torch.zeros_like(wanted)
    if len(at):
        x_adv = active.x[at] + delta[at]
        answer = active.ask(x_adv, at)
        hit = torch.nonzero(answer.reached).flatten()
        said, confirmed = active.confirm(x_adv[hit], at[hit], answer.predicted[hit])
        hit = hit[confirmed]
        rows = active.rows[at[hit]]
        state.record(rows, x_adv[hit], said[confirmed], True, ends=False)
        better[at[hit]] = True
        active.delta = torch.where(better[:, None], delta, active.delta)
    return better


# Rows of the data that are kept to start from, for attacks by labels.
_KEPT = 500


class GreedyFeatureAttack(TabularAttack, QueryAttack):
    r"""Change one feature after another: the one that gains most for what it costs.

    With scores, all moves are tried once: numbers go to quantiles of the data (to the
    thresholds of the trees, where the victim is an ensemble of them behind steps that
    treat features one by one), categories to all that are allowed. The move of the
    largest gain per price is made, then the best ones are tried again, until the goal is
    reached. Where none gains, and with labels only, a row of the data that has the wanted
    label takes the place of the moves. In the end every change that is not needed is
    taken back, and the others shrink.

    The price of a move is the feature's cost times its size in units of scale, plus its
    cost once more for a feature that was not changed before: few features change.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    knowledge : {"score", "label"}, default="score"
        What the attacker sees of the victim.
    norm : {np.inf, 1, 2, 0}, default=1
        The norm of `eps` and of the distances in the result; units are those of scale.
    eps : float, default=None
        The largest norm of all changes; None is no limit but the constraints.
    n_values : int, default=32
        How many values of a number are tried.
    shortlist : int, default=50
        After the first, a round tries this many of the best moves again.
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
    max_queries : int, default=5000
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
    candidates_ : list of ndarray
        For each column, the values that are tried.
    starts_ : ndarray of shape (n_starts, n_features)
        Rows of the data, as numbers.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    MultiObjectiveEvolution : Searches all columns at once.
    TreeCoordinateAttack : Knows the thresholds of trees.

    References
    ----------
    .. [1] V. Ballet et al., "Imperceptible adversarial attacks on tabular data",
       arXiv:1911.03274 (costs by the importance of features:
       :meth:`~sklearn_advsec.threat.FeatureConstraints.weigh_by_importance`).
    .. [2] P. Yang et al., "Greedy attack and Gumbel attack: generating adversarial
       examples for discrete data", arXiv:1805.12316 (Section 3.1: first the features,
       then their values, greedily).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.evasion import GreedyFeatureAttack
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> attack = GreedyFeatureAttack(forest).fit(X, y)
    >>> result = attack.run(X[:20], y[:20])
    >>> changed = (result.X_adv != X[:20]).sum(axis=1)
    >>> bool(result.success.all()), bool(changed.mean() < 6)
    (True, True)
    """

    _parameter_constraints = {
        **TabularAttack._parameter_constraints,
        **QueryAttack._parameter_constraints,
        "norm": norms(np.inf, 1, 2, 0),
        "knowledge": [StrOptions({"score", "label"})],
        "n_values": [Interval(Integral, 2, None, closed="left")],
        "shortlist": [Interval(Integral, 1, None, closed="left")],
        "eps": [Interval(Real, 0, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        knowledge: Any = "score",
        norm: float = 1,
        eps: float | None = None,
        n_values: int = 32,
        shortlist: int = 50,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = None,
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int = 5000,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.knowledge = knowledge
        self.norm = norm
        self.eps = eps
        self.n_values = n_values
        self.shortlist = shortlist
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

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept), and learn where features may go.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data on which the victim is fitted, from which constraints are learned where
            there are none, and of which some rows are kept.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        rows = self._check_X(X, reset=False)
        thresholds = tree_thresholds(self.estimator_, rows[:100])
        features = self.constraints_.features.values()
        self.candidates_ = [
            candidates(values, thresholds.get(j), self.n_values, feature.step)
            for j, (values, feature) in enumerate(
                zip(self.values_, features, strict=True)
            )
        ]
        rng = check_random_state(self.random_state)
        kept = np.sort(rng.permutation(len(rows))[:_KEPT])
        rows = rows.iloc[kept] if is_dataframe(rows) else rows[kept]
        self.starts_ = self.constraints_.encode(rows).numpy()
        return self

    def _choose_batch_size(self, X):
        if self.batch_size != "auto":
            return self.batch_size
        # The first round knows each move of each row of a chunk, of eight batches.
        return int(np.clip(2**16 // (self.n_values * self.row_shape_[0]), 1, 1024))

    def _make_goal(self, access, chunk):
        by_scores = self.confidence is not None or isinstance(chunk.target, str)
        if self.knowledge == "label" and by_scores:
            raise ValueError(
                "confidence, and target='least_likely', need knowledge='score'."
            )
        return super()._make_goal(access, chunk)

    def _loses_values(self, state):
        # By scores it is one of the moves.
        return self.knowledge == "label" and bool(state.access.may_go_missing.any())

    def _search(self, active, state):
        access = state.access
        moves = Moves(access, self.candidates_)
        if not len(moves):
            active.give_up(torch.ones_like(active.labels, dtype=torch.bool))
            return
        if self.knowledge == "score":
            climb_greedily(active, moves, self.shortlist)
            active = ActiveRows(state, torch.nonzero(~state.success).flatten())
            state.search = active
        mutable = access.region.mutable.to(access.x.device)
        starts = torch.as_tensor(self.starts_) / access.unit
        approach(active, moves, starts, mutable)
        moved = moves.changed(access.x, state.x_adv).any(1)
        rows = torch.nonzero(state.success & moved).flatten()
        if len(rows):
            state.search = ActiveRows(state, rows)
            simplify(state.search, moves, state)


def candidates(quantiles, thresholds, n_values, step):
    """Return the values of a number to try: both sides of thresholds, or quantiles."""
    found = np.unique(quantiles)
    if thresholds is not None and thresholds.size:
        # Rounding to the step must not lead back over the threshold.
        margin = 0.499 * (step or 0.0)
        low, high = thresholds
        found = np.unique(np.concatenate([found[[0, -1]], low - margin, high + margin]))
    if len(found) > n_values:
        found = found[np.linspace(0, len(found) - 1, n_values).round().astype(int)]
    return found


def tree_thresholds(estimator, X):
    """Return, by column, the values just before and just behind each threshold.

    Of what is no ensemble of trees, there are none; of an ensemble, those of columns
    that the steps in front of it treat one by one.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : {DataFrame, ndarray} of shape (n_rows, n_features)
        Some rows that it takes.

    Returns
    -------
    thresholds : dict of int to ndarray of shape (2, n_thresholds)
    """
    try:
        edges = Edges(tree_ensemble(estimator), X)
    except TypeError:
        return {}
    columns = np.unique(edges.node_column[edges.node_column >= 0])
    return {int(j): np.stack(edges.of_column(j)) for j in columns}
