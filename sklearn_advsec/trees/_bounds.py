"""Lower bounds of the cost of changing an ensemble's answer, by merging trees.

Chen et al. (2019, arXiv:1906.03849) merge the boxes of a few trees at a time, and add up
the best value of each group. Here every merged box also carries its own cost, so that one
pass gives the bound for all radii; and boxes that cannot be part of a success within the
budget are dropped on the way, which lets groups grow as long as that is cheap.
"""

import heapq
from itertools import count

import numpy as np


def first_cost(cost, group, gain, base, least):
    """Smallest cost at which the best members of all groups reach a gain together.

    Parameters
    ----------
    cost : ndarray of shape (n,)
        What each member costs.
    group : ndarray of int, shape (n,)
        The group of each, numbered from 0.
    gain : ndarray of shape (n_rivals, n)
        What each member adds, for each rival.
    base : ndarray of shape (n_rivals,)
        What is there without them.
    least : ndarray of shape (n_rivals,)
        What is needed, of each rival.

    Returns
    -------
    cost : float
        No choice of one member per group is cheaper; infinite where none reaches it.
    """
    keep = np.isfinite(cost)
    cost, group, gain = cost[keep], group[keep], gain[:, keep]
    order = np.lexsort((cost, group))
    cost, group, gain = cost[order], group[order], gain[:, order]
    begins = np.diff(group, prepend=-1) > 0
    by_cost = np.argsort(cost, kind="stable")
    sorted_cost = cost[by_cost]
    # Sums count from where each group has a member, and with all members of equal cost.
    complete = sorted_cost >= cost[begins].max(initial=0.0)
    complete &= np.append(sorted_cost[1:], np.inf) > sorted_cost
    found = 0.0
    for own, start, need in zip(gain, base, least, strict=True):
        # Running maxima inside of each group: another group begins far above.
        offset = group * (2 * np.abs(own).max(initial=0.0) + 1)
        best = np.maximum.accumulate(own + offset) - offset
        step = np.where(begins, best, np.diff(best, prepend=0.0))
        total = start + np.cumsum(step[by_cost])
        slack = 1e-12 * (offset.max(initial=0.0) + abs(start) + 1)
        if not len(cost):
            return found if start >= need - slack else np.inf
        reached = np.flatnonzero(complete & (total >= need - slack))
        found = max(found, sorted_cost[reached[0]] if len(reached) else np.inf)
    return float(found)


# Prices that are tried, in units of what all trees together gain for the whole budget.
_PRICES = 2.0 ** np.arange(-4, 6)


def priced_gain(gain, tree, extra, budget):
    """Bound what trees gain together, where the costs of columns add up to a budget.

    Each tree by itself may spend all of the budget; together they may not. So leaves pay
    for what they cost: a column's price is shared out among the trees that gain by it,
    and what the budget is worth comes on top (weak duality, so that any price gives a
    bound).

    Parameters
    ----------
    gain : ndarray of shape (n_leaves,)
        What each leaf gains.
    tree : ndarray of int, shape (n_leaves,)
        Sorted, and numbered from 0 without gaps.
    extra : ndarray of shape (n_leaves, n_columns)
        What each leaf costs, by column.
    budget : float
        What may be spent; finite.

    Returns
    -------
    most : float
        No choice of one leaf per tree within the budget gains more.
    """
    starts = np.flatnonzero(np.diff(tree, prepend=-1))
    best = np.maximum.reduceat(gain, starts)
    extra = extra[:, extra.any(0)]
    free = np.where(extra.any(1), -np.inf, gain)
    least = np.maximum.reduceat(free, starts)
    least = np.where(np.isfinite(least), least, np.minimum.reduceat(gain, starts))
    wish = np.maximum(gain - least[tree], 0.0)
    share = np.maximum.reduceat(np.where(extra > 0, wish[:, None], 0.0), starts, axis=0)
    total = share.sum(0)
    share /= np.where(total > 0, total, 1.0)
    # Shares have roundings: together they must be no more than 1.
    price = (share[tree] * extra).sum(1) * (1 - 1e-12)
    worth = (best - least).sum() / budget if budget > 0 else 0.0
    if not 0 < worth < np.inf:
        return float(best.sum())
    at = worth * _PRICES
    paid = np.maximum.reduceat(gain - at[:, None] * price, starts, axis=1).sum(1)
    return float(min(best.sum(), (at * budget + paid).min()))


class MergedTrees:
    """Trees that are merged step by step, the two smallest groups first.

    Parameters
    ----------
    problem : RowProblem
        The trees around a row.
    least : ndarray of shape (n_rivals,)
        The gain that is needed, of each rival.
    max_members : int
        The number of pairs of members that one merge may look at.

    Attributes
    ----------
    groups : list of Boxes
        What is left; each has one member at the least, unless nothing can succeed.
    feasible : bool
        Whether anything can succeed within the budget.
    """

    def __init__(self, problem, least, max_members=2**12):
        self.problem, self.least = problem, least
        self.max_members = max_members
        self.feasible = problem.complete
        self.groups = []
        if self.feasible:
            self._merge_all()

    def _merge_all(self):
        problem = self.problem
        best = problem.best()
        self.slack = 1e-9 * (np.abs(best).sum() + np.abs(problem.base).sum() + 1)
        # What all groups together reach at the best.
        self.top = problem.base + best.sum(1)
        starts = np.flatnonzero(np.diff(problem.tree, prepend=-1))
        ends = np.append(starts[1:], len(problem.tree))
        ticket = count()
        heap = []
        for start, end in zip(starts, ends, strict=True):
            at = slice(start, end)
            boxes = Boxes(
                problem.low[:, at].T,
                problem.high[:, at].T,
                problem.gain[:, at],
                problem.row_cells.reach[problem.leaf[at]],
            )
            self._push(heap, ticket, self._prune(boxes))
            if not self.feasible:
                return
        closed = []
        while len(heap) > 1:
            _, _, first = heapq.heappop(heap)
            _, _, second = heapq.heappop(heap)
            if len(first) * len(second) > self.max_members:
                closed += [first, second]  # all others are larger still
                break
            merged = first.merge(second, problem)
            before = first.gain.max(1) + second.gain.max(1)
            if len(merged):
                self.top = self.top - before + merged.gain.max(1)
            self._push(heap, ticket, self._prune(merged))
            if not self.feasible:
                return
        self.groups = closed + [boxes for _, _, boxes in heap]

    def _prune(self, boxes):
        """Drop what costs too much, or gains too little with the best of all others."""
        if not len(boxes):
            return boxes
        rest = self.top - boxes.gain.max(1)
        keep = boxes.cost <= self.problem.budget
        keep &= (boxes.gain >= (self.least - self.slack - rest)[:, None]).all(0)
        if keep.all():
            return boxes
        left = boxes.select(keep)
        if len(left):
            self.top = rest + left.gain.max(1)
        return left

    def _push(self, heap, ticket, boxes):
        if not len(boxes):
            self.feasible = False
        heapq.heappush(heap, (len(boxes), next(ticket), boxes))

    def bound(self):
        """Return a cost below which nothing succeeds; infinite if nothing does at all."""
        if not self.feasible:
            return np.inf
        if not self.groups:
            return first_cost(
                np.zeros(0),
                np.zeros(0, int),
                np.zeros((len(self.least), 0)),
                self.problem.base,
                self.least,
            )
        return first_cost(
            np.concatenate([boxes.cost for boxes in self.groups]),
            np.repeat(np.arange(len(self.groups)), [len(b) for b in self.groups]),
            np.concatenate([boxes.gain for boxes in self.groups], axis=1),
            self.problem.base,
            self.least,
        )


class Boxes:
    """Members of a group: boxes of cells, their gains and their costs."""

    def __init__(self, low, high, gain, cost):
        self.low, self.high, self.gain, self.cost = low, high, gain, cost

    def __len__(self):
        return len(self.low)

    def select(self, keep):
        """Return some of the members."""
        return Boxes(self.low[keep], self.high[keep], self.gain[:, keep], self.cost[keep])

    def merge(self, other, problem):
        """Return all pairs of members that have cells in common."""
        low = np.maximum(self.low[:, None], other.low)
        high = np.minimum(self.high[:, None], other.high)
        i, j = np.nonzero((low <= high).all(2))
        low, high = low[i, j], high[i, j]
        return Boxes(
            low,
            high,
            self.gain[:, i] + other.gain[:, j],
            problem.total(problem.nearest(low, high)),
        )
