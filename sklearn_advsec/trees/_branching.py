"""The cheapest change of an ensemble's answer, by branch and bound over boxes of cells.

In a box, no more is gained than what the best leaf of each tree gains that is in reach
there (Devos et al., arXiv:2010.13880), after paying for it where costs add up. A box
where that is too little is closed; any other is cut in two at an edge. The boxes that
were closed cover the ball around the row: a proof which others can check, box by box.
"""

import heapq
import time

import numpy as np

from ._bounds import priced_gain

# So many edges are looked at, at the most, before a box is cut at one.
_EDGES = 48


class BranchAndBound:
    """The search of a :class:`RowProblem`, which can be stopped and taken up again.

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around a row, of which none was joined to the base.
    flip : ClassFlip
        What is searched for.
    confirm : callable
        ``confirm(x)`` says whether a row is a success, for rows that gain hardly enough.
    upper : float
        Only what costs less is looked for.
    nearest_first : bool, default=False
        Whether boxes are taken in the order of their cost, so that `lower` grows all the
        time; by default the newest comes first, which finds successes, and ends, sooner.

    Attributes
    ----------
    cost, x : float and ndarray of shape (n_columns,)
        The cheapest success so far; `upper` and None without one.
    lower : float
        No success is cheaper: the nearest box that is still open, or `cost`.
    unsure : float
        What it costs to get where the order of roundings decides, and the victim said
        no; infinite if there is no such place.
    column, cell, children : list of int, int and (int, int)
        The boxes as a tree, the first one at the root: where a box is cut, below which
        cell of which of the problem's columns; -1 where it is not.
    """

    def __init__(self, problem, flip, confirm, upper, nearest_first=False):
        self.problem, self.flip, self.confirm = problem, flip, confirm
        self.cost, self.x, self.unsure = upper, None, np.inf
        self.nearest_first = nearest_first
        ensemble, grid = flip.row_cells.grid.ensemble, flip.row_cells.grid
        self._whole = ensemble.whole[grid.leaf_node[problem.leaf]]
        self._slack = 1e-9 * (
            np.abs(problem.best()).sum() + np.abs(problem.base).sum() + 1
        )
        self.column, self.cell, self.children = [-1], [0], [None]
        n_columns = len(problem.columns)
        low, high = np.zeros(n_columns, dtype=int), problem.size - 1
        self._open = [(0.0, 0, 0.0, 0, low, high, np.arange(len(problem.leaf)))]

    @property
    def lower(self):
        """No success is cheaper."""
        return min([self.cost, *(item[2] for item in self._open)])

    def run(self, seconds, max_boxes=np.inf):
        """Search for some time; return whether all boxes are closed."""
        end, n_boxes = time.monotonic() + seconds, 0
        while self._open:
            if n_boxes >= max_boxes or time.monotonic() > end:
                return False
            _, _, cost, *box = heapq.heappop(self._open)
            if cost < self.cost:
                self._look_into(*box)
                n_boxes += 1
        return True

    def _look_into(self, box, low, high, leaves):
        problem = self.problem
        while True:
            leaves, cells = self._in_reach(low, high, leaves)
            tree = problem.tree[leaves]
            starts = np.flatnonzero(np.diff(tree, prepend=-1))
            if len(starts) < problem.n_trees:
                return
            gain = problem.gain[:, leaves]
            best = np.maximum.reduceat(gain, starts, axis=1)
            top = problem.base + best.sum(1)
            need = self._need(leaves)
            if (top < need).any():
                return
            # Leaves that gain too little with the best leaves of all other trees.
            strong = gain + (top[:, None] - best[:, tree]) >= need[:, None]
            strong = strong.all(0)
            if not strong.all():
                leaves = leaves[strong]
                continue
            if problem.norm != np.inf and self._is_too_dear(
                low, high, leaves, cells, need
            ):
                return
            if len(leaves) > problem.n_trees or not self._arrive(low, high, leaves):
                break
        if len(leaves) == problem.n_trees and self._is_one(low, high, leaves):
            return  # the victim said no to a tie
        self._cut(box, low, high, leaves, top - need)

    def _need(self, leaves):
        """What has to be gained; of whole numbers, whose sums are exact, to the half."""
        least = self.flip.least - self._slack
        return self.flip.halves if self._whole[leaves].all() else least

    def _in_reach(self, low, high, leaves):
        problem = self.problem
        first = np.maximum(problem.low[:, leaves], low[:, None])
        last = np.minimum(problem.high[:, leaves], high[:, None])
        keep = (first <= last).all(0)
        first, last, leaves = first[:, keep], last[:, keep], leaves[keep]
        cells = problem.nearest(first.T, last.T)
        near = problem.total(cells) < self.cost
        return leaves[near], cells[near]

    def _is_too_dear(self, low, high, leaves, cells, need):
        """Whether what all trees need together costs too much."""
        problem = self.problem
        own = problem.cost[problem.first + problem.nearest(low[None], high[None])[0]]
        extra, left = problem.cost[problem.first + cells] - own, self.cost - own.sum()
        tree = problem.tree[leaves]
        return np.isfinite(left) and any(
            base + priced_gain(gain, tree, extra, left) < least
            for gain, base, least in zip(
                problem.gain[:, leaves], problem.base, need, strict=True
            )
        )

    def _common(self, low, high, leaves):
        problem = self.problem
        first = np.maximum(problem.low[:, leaves].max(1), low)
        last = np.minimum(problem.high[:, leaves].min(1), high)
        return first, last

    def _arrive(self, low, high, leaves):
        """Take a point of the only leaves that are left, if that is a cheaper success."""
        problem = self.problem
        first, last = self._common(low, high, leaves)
        if (first > last).any():
            return False
        cells = problem.nearest(first[None], last[None])
        cost, point = problem.total(cells)[0], problem.point(cells[0])
        if not cost < self.cost:
            return False
        sure = (problem.margin(cells[0]) >= self.flip.confirmed).all()
        if not sure and not self.confirm(point):
            self.unsure = min(self.unsure, cost)
            return False
        self.cost, self.x = cost, point
        return True

    def _is_one(self, low, high, leaves):
        """Whether the only leaves that are left are those of all points of a box."""
        first, last = self._common(low, high, leaves)
        return bool((first <= low).all() and (last >= high).all())

    def _cut(self, box, low, high, leaves, ahead):
        problem = self.problem
        column, cell, below, above = self._edges(low, high, leaves, ahead)
        score = np.minimum(below, ahead.min()) * np.minimum(above, ahead.min())
        at = score.argmax()
        column, cell = column[at], cell[at]
        self.column[box], self.cell[box] = int(column), int(cell)
        n_boxes = len(self.column)
        self.children[box] = n_boxes, n_boxes + 1
        for is_above in (False, True):
            first, last = low.copy(), high.copy()
            if is_above:
                first[column] = cell
            else:
                last[column] = cell - 1
            cost = problem.total(problem.nearest(first[None], last[None]))[0]
            number = len(self.column)
            self.column.append(-1)
            self.cell.append(0)
            self.children.append(None)
            if cost < self.cost:
                order = cost if self.nearest_first else 0.0
                item = (order, -number, cost, number, first, last, leaves)
                heapq.heappush(self._open, item)

    def _edges(self, low, high, leaves, ahead):
        """Return edges inside of a box, and by how much the gain falls on both sides."""
        problem = self.problem
        first, last = problem.low[:, leaves], problem.high[:, leaves]
        column, leaf = np.nonzero(first > low[:, None])
        cell = first[column, leaf]
        more, other = np.nonzero(last < high[:, None])
        cell = np.concatenate([cell, last[more, other] + 1])
        column = np.concatenate([column, more])
        rival = ahead.argmin()
        gain, tree = problem.gain[rival, leaves], problem.tree[leaves]
        starts = np.flatnonzero(np.diff(tree, prepend=-1))
        best = np.maximum.reduceat(gain, starts)
        spread = (best - np.minimum.reduceat(gain, starts))[tree]
        key = problem.first[column] + cell
        key, place = np.unique(key, return_inverse=True)
        if len(key) > _EDGES:  # those between leaves that differ most
            weight = np.bincount(place, spread[np.concatenate([leaf, other])])
            key = key[np.argpartition(-weight, _EDGES)[:_EDGES]]
        column = problem.cell[key]
        cell = key - problem.first[column]
        lost = -2 * (np.abs(gain).sum() + ahead.max() + 1)
        falls = []
        for stays in (first[column] < cell[:, None], last[column] >= cell[:, None]):
            left = np.maximum.reduceat(np.where(stays, gain, lost), starts, axis=1)
            falls.append(np.maximum(best.sum() - left.sum(1), 1e-9 * ahead.max()))
        return column, cell, *falls
