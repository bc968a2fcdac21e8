"""Projection onto limits of the cost and the number of changes: a knapsack a row.

Each feature moves towards where it is wished, by steps or freely, and each choice (a
one-hot group, an order of categories) takes one of its options. The sum of squared
distances that are left is to be least, while the moves cost at most `max_cost` in sum and
at most `max_changed` of them are made. With a multiplier for the cost, features are on
their own again, and the limit of changes keeps those that gain most; the best multiplier
gives a lower bound, and a branch and bound on that closes what gap is left.
"""

from dataclasses import dataclass, fields

import torch

# The range of the multiplier is halved so often: down to the precision of the numbers,
# or, for attacks, to a billionth.
_HALVINGS, _FEW_HALVINGS = 60, 30

# So many problems are solved at a time, and so many parts may a row be split into.
_BATCH = 4096
_MOST_PARTS = 5000

_TOLERANCE = 1e-9


@dataclass
class Knapsack:
    """What each row may do, all in units of scale.

    Attributes
    ----------
    wish : tensor of shape (n, n_features)
        How far each feature should go, in its direction; not negative.
    low, high : tensor of shape (n, n_features)
        How far it has to go, and may.
    step : tensor of shape (n, n_features)
        It moves by multiples of this; 0 is by any amount.
    price : tensor of shape (n, n_features)
        Cost of a move of 1.
    loss, cost : tensor of shape (n, n_choices, n_options)
        Squared distance and cost of each option; infinite where it is not open.
    stay : tensor of int64, shape (n, n_choices)
        The option that changes nothing.
    counted : tensor of bool, shape (n, n_features + n_choices)
        What counts as a change, whether it moves or not.
    """

    wish: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    step: torch.Tensor
    price: torch.Tensor
    loss: torch.Tensor
    cost: torch.Tensor
    stay: torch.Tensor
    counted: torch.Tensor

    def __len__(self):
        return len(self.wish)

    def select(self, rows):
        """Return some of the rows, as copies."""
        return Knapsack(*(getattr(self, f.name)[rows].clone() for f in fields(self)))

    def joined(self, other):
        """Return the rows of both."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Knapsack(*map(torch.cat, pairs))


@dataclass
class Moves:
    """What each row does: how far features go, and which options are taken."""

    size: torch.Tensor
    option: torch.Tensor
    loss: torch.Tensor
    cost: torch.Tensor

    def where(self, better, other):
        """Return these moves, and the others where `better` does not hold."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Moves(
            *(
                torch.where(better.reshape(-1, *[1] * (own.ndim - 1)), own, not_own)
                for own, not_own in pairs
            )
        )


def solve(problem, max_cost, max_changed, *, exact=False):
    """Return the best moves of each row.

    Parameters
    ----------
    problem : Knapsack
    max_cost, max_changed : float and int, or None
    exact : bool, default=False
        Close the gap between the moves and the lower bound, where it is open; without,
        the moves are those of the best multiplier, with the rest of the cost spent on
        what gains most for it.

    Returns
    -------
    moves : Moves
    proven : tensor of bool, shape (n,)
        Whether no other moves are better.
    """
    halvings = _HALVINGS if exact else _FEW_HALVINGS
    best, bound, branches = _relaxed(problem, max_cost, max_changed, halvings)
    proven = best.loss <= bound + _TOLERANCE * (1 + bound.abs())
    if not exact or proven.all():
        return best, proven
    owner = torch.nonzero(~proven).flatten()
    parts, owner, bound = _split(
        problem.select(owner), owner, bound[owner], branches.select(owner)
    )
    n_parts = torch.bincount(owner, minlength=len(problem))
    while len(owner):
        # The most promising parts first; those that cannot be better any more go.
        alive = bound < best.loss[owner] - _TOLERANCE * (1 + bound.abs())
        order = torch.nonzero(alive & (n_parts[owner] <= _MOST_PARTS)).flatten()
        order = order[bound[order].argsort(stable=True)]
        now, later = order[:_BATCH], order[_BATCH:]
        rest = parts.select(later), owner[later], bound[later]
        parts, owner = parts.select(now), owner[now]
        if not len(owner):
            break
        found, bound, branches = _relaxed(parts, max_cost, max_changed, halvings)
        for row in owner.unique().tolist():
            own = torch.nonzero(owner == row).flatten()
            first = own[found.loss[own].argmin()]
            if found.loss[first] < best.loss[row]:
                for f in fields(best):
                    getattr(best, f.name)[row] = getattr(found, f.name)[first]
        again = bound < best.loss[owner] - _TOLERANCE * (1 + bound.abs())
        again = torch.nonzero(again & (branches.unit >= 0)).flatten()
        parts, owner, bound = _split(
            parts.select(again), owner[again], bound[again], branches.select(again)
        )
        n_parts += torch.bincount(owner, minlength=len(problem))
        parts = parts.joined(rest[0])
        owner, bound = torch.cat([owner, rest[1]]), torch.cat([bound, rest[2]])
    proven |= n_parts <= _MOST_PARTS
    return best, proven


@dataclass
class _Branches:
    """Where a part is to be split: a unit (-1: nowhere), and its lower move or option."""

    unit: torch.Tensor
    lower: torch.Tensor

    def select(self, rows):
        return _Branches(self.unit[rows], self.lower[rows])


class _Priced:
    """The best moves of a knapsack at a price of the cost.

    Parameters
    ----------
    problem : Knapsack
    max_changed : int or None
    """

    def __init__(self, problem, max_changed):
        self.problem = p = problem
        self.half = p.price / 2
        self.has_steps = bool((p.step > 0).any())
        self.has_choices = p.stay.shape[1] > 0
        self.steps = torch.where(p.step > 0, p.step, 1.0)
        n_units = p.counted.shape[1]
        self.most = max_changed if max_changed is not None else n_units
        self.limited = self.most < n_units
        self.choice_cost = p.cost.nan_to_num(0.0, 0.0)
        if self.limited:
            self.before = torch.cat([p.wish.square(), _at(p.loss, p.stay)], dim=1)

    def at(self, multiplier):
        """Return how far each feature goes, and each option."""
        p = self.problem
        size = p.wish - multiplier * self.half
        if self.has_steps:
            size = torch.where(p.step > 0, (size / self.steps).round() * self.steps, size)
        size = torch.clamp(size, p.low, p.high)
        option = p.stay
        if self.has_choices:
            option = (p.loss + multiplier[..., None] * self.choice_cost).argmin(2)
        if not self.limited:
            return size, option
        loss, cost = _terms(p, size, option)
        gain = self.before - loss - multiplier * cost
        moves = torch.cat([size > 0, option != p.stay], dim=1)
        gain = gain.masked_fill(~moves, -1.0).masked_fill(p.counted, torch.inf)
        kept = torch.zeros_like(moves)
        if self.most:
            kept.scatter_(1, gain.topk(self.most, dim=1).indices, True)
        size = torch.where(kept[:, : size.shape[1]], size, 0.0)
        return size, torch.where(kept[:, size.shape[1] :], option, p.stay)

    def cost(self, size, option):
        """Return what moves cost."""
        total = torch.linalg.vecdot(size, self.problem.price)
        return (
            total + _at(self.problem.cost, option).sum(1) if self.has_choices else total
        )


def _relaxed(problem, max_cost, max_changed, halvings):
    """Return moves within the limits, a lower bound of the loss, and where to split."""
    n = len(problem)
    priced = _Priced(problem, max_changed)
    low = torch.zeros(n, 1, dtype=torch.float64)
    free = _evaluated(problem, *priced.at(low))
    nowhere = torch.full((n,), -1)
    if max_cost is None:
        return free, free.loss, _Branches(nowhere, nowhere.double())
    limit = max_cost + 1e-12 * (1 + max_cost)
    fits = free.cost <= limit
    high = _largest_multiplier(problem)
    possible = priced.cost(*priced.at(high)) <= limit
    for _ in range(halvings):
        middle = (low + high) / 2
        small = (priced.cost(*priced.at(middle)) <= limit)[:, None]
        low, high = torch.where(small, low, middle), torch.where(small, middle, high)
    below = _evaluated(problem, *priced.at(high))
    if not (priced.has_steps or priced.has_choices or priced.limited):
        found, bound = below, below.loss
        unit, lower = nowhere, nowhere.double()
    else:
        above = _evaluated(problem, *priced.at(low))
        bound = torch.maximum(
            below.loss + high[:, 0] * (below.cost - max_cost),
            above.loss + low[:, 0] * (above.cost - max_cost),
        )
        unit, lower = _differing(problem, below, above)
        found = _spend(problem, below, above, max_cost, max_changed, halvings)
    bound = torch.where(possible, bound, torch.inf)
    found = free.where(fits, found)
    found.loss = torch.where(possible | fits, found.loss, torch.inf)
    bound = torch.where(fits, free.loss, bound)
    return found, bound, _Branches(torch.where(fits, -1, unit), lower)


def _terms(problem, size, option):
    """Return squared distance and cost of each feature and choice."""
    loss = (problem.wish - size).square(), _at(problem.loss, option)
    cost = problem.price * size, _at(problem.cost, option)
    return torch.cat(loss, dim=1), torch.cat(cost, dim=1)


def _evaluated(problem, size, option):
    loss, cost = _terms(problem, size, option)
    # Moves that a part does not allow are none.
    closed = (size < problem.low).any(1) | (size > problem.high).any(1)
    return Moves(size, option, loss.sum(1).masked_fill(closed, torch.inf), cost.sum(1))


def _at(values, option):
    return values.gather(2, option[..., None])[..., 0]


def _largest_multiplier(problem):
    """Return a multiplier at which everything costs as little as it can."""
    positive = problem.price > 0
    ratio = 2 * problem.wish / torch.where(positive, problem.price, 1.0)
    highest = torch.where(positive, ratio, 0.0).sum(1, keepdim=True)
    if problem.loss.shape[1]:
        n = len(problem)
        cost = torch.where(problem.loss.isfinite(), problem.cost, torch.nan)
        gaps = cost.sort(2).values.diff(dim=2)
        gaps = torch.where(gaps > 1e-12, gaps, torch.inf).reshape(n, -1)
        spread = problem.loss.nan_to_num(0.0, 0.0, 0.0).reshape(n, -1).amax(1)
        smallest = gaps.amin(1) if gaps.shape[1] else torch.full((n,), torch.inf)
        highest = highest + (spread / smallest)[:, None]
    return highest * (1 + 1e-9) + 1e-9


def _differing(problem, below, above):
    """Return the unit of each row about which the two sides of the multiplier differ."""
    entering = (below.size > 0) != (above.size > 0)
    apart = torch.where(problem.step > 0, below.size != above.size, entering)
    apart = torch.cat([apart, below.option != above.option], dim=1)
    one, other = (_terms(problem, m.size, m.option)[1] for m in (below, above))
    weight = torch.where(apart, 1e-300 + (one - other).abs().nan_to_num(1.0), -1.0)
    largest, unit = weight.max(1)
    lower = torch.cat([torch.minimum(below.size, above.size), below.option.double()], 1)
    unit = torch.where(largest >= 0, unit, -1)
    return unit, lower.gather(1, unit.clamp_min(0)[:, None])[:, 0]


def _spend(problem, below, above, max_cost, max_changed, halvings):
    """Add to the cheaper moves what of the dearer ones can be paid for."""
    _, paid = _terms(problem, below.size, below.option)
    loss, price = _terms(problem, above.size, above.option)
    gain = _terms(problem, below.size, below.option)[0] - loss
    more = (price - paid).nan_to_num(torch.inf)
    apart = torch.cat([below.size != above.size, below.option != above.option], dim=1)
    useful = apart & (gain > 0)
    order = torch.where(useful, -gain / more.clamp_min(1e-300), torch.inf).argsort(1)
    useful = useful.gather(1, order)
    more = torch.where(useful, more.gather(1, order), 0.0)
    left = (max_cost - below.cost)[:, None]
    taken = useful & (more.cumsum(1) <= left)
    # What did not fit in its turn may let smaller ones behind it fit.
    left = left - torch.where(taken, more, 0.0).sum(1, keepdim=True)
    second = torch.where(useful & ~taken & (more <= left), more, 0.0)
    taken |= (second > 0) & (second.cumsum(1) <= left)
    if max_changed is not None:
        moving = torch.cat([below.size > 0, below.option != problem.stay], dim=1)
        new = ~(moving | problem.counted).gather(1, order) & taken
        free = max_changed - (moving | problem.counted).sum(1, keepdim=True)
        taken &= ~new | (new.cumsum(1) <= free)
    chosen = torch.zeros_like(taken).scatter(1, order, taken)
    d = problem.wish.shape[1]
    size = torch.where(chosen[:, :d], above.size, below.size)
    option = torch.where(chosen[:, d:], above.option, below.option)
    found = _evaluated(problem, size, option)
    if not (problem.step == 0).any():
        return found
    return _top_up(problem, found, max_cost, max_changed, halvings)


def _top_up(problem, moves, max_cost, max_changed, halvings):
    """Spend what is left of the cost on the features that move freely."""
    freely = problem.step == 0
    fixed = torch.where(freely, 0.0, moves.size)
    rest = max_cost - _evaluated(problem, fixed, moves.option).cost
    moving = torch.cat([moves.size > 0, moves.option != problem.stay], dim=1)
    reach = problem.high
    if max_changed is not None:
        # Those that move already, and no others.
        counted = (moving | problem.counted)[:, : reach.shape[1]]
        reach = torch.where(counted, reach, 0.0)
    reach = torch.where(freely, reach, 0.0)
    low = torch.zeros_like(problem.wish[:, :1])
    high = _largest_multiplier(problem)
    least = torch.where(freely, problem.low, 0.0)

    half = problem.price / 2

    def size_at(multiplier):
        return torch.clamp(problem.wish - multiplier * half, least, reach)

    def fits(multiplier):
        return torch.linalg.vecdot(size_at(multiplier), problem.price) <= rest

    for _ in range(halvings):
        middle = (low + high) / 2
        small = fits(middle)[:, None]
        low, high = torch.where(small, low, middle), torch.where(small, middle, high)
    size = torch.where(fits(low)[:, None], size_at(low), size_at(high))
    found = _evaluated(problem, torch.where(freely, size, fixed), moves.option)
    better = (found.loss < moves.loss) & (found.cost <= max_cost * (1 + 1e-12) + 1e-12)
    return found.where(better, moves)


def _split(problem, owner, bound, branches):
    """Return two parts of each problem: with the lower move of a unit, and without it."""
    keep = torch.nonzero(branches.unit >= 0).flatten()
    unit, lower = branches.unit[keep], branches.lower[keep]
    one, other = problem.select(keep), problem.select(keep)
    d = problem.wish.shape[1]
    rows = torch.nonzero(unit < d).flatten()
    at = rows, unit[rows]
    one.high[at] = lower[rows]
    step = problem.step[keep][at]
    other.low[at] = torch.where(step > 0, lower[rows] + step, other.low[at])
    other.counted[at] = True
    rows = torch.nonzero(unit >= d).flatten()
    option, choice = lower[rows].long(), unit[rows] - d
    loss = one.loss[rows, choice, option]
    one.loss[rows, choice] = torch.inf
    one.loss[rows, choice, option] = loss
    other.loss[rows, choice, option] = torch.inf
    owner, bound = owner[keep], bound[keep]
    return one.joined(other), torch.cat([owner, owner]), torch.cat([bound, bound])
