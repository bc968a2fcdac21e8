"""The search for a cheap point that changes an ensemble's answer."""

import numpy as np

from .._trees_climb import Profiles, allowed_moves, climb, slots_of, trim
from ._row import RowProblem

# How many leaves, in all points together, a look around may take in small problems.
_WORK = 2**13
# How many budgets are tried side by side, and how far the first ones reach, in units of
# the lower bound.
_BUDGETS = 8
_FACTORS = (1.5, 3.0, 8.0, 30.0, np.inf)


class Search:
    """The search for a cheap success of one row.

    Parameters
    ----------
    around : Surroundings
        The row in the grid.
    gains, base : ndarray of shape (n_rivals, n_leaves) and (n_rivals,)
        How far leaves put the wanted class ahead of each rival.
    need : ndarray of shape (n_rivals,)
        The gain that is needed, of each rival.
    lower : float
        A cost below which nothing succeeds.
    upper : float, default=np.inf
        Only what costs less is looked for.

    Attributes
    ----------
    cost : float
        The cost of the cheapest success so far, or `upper`.
    x : ndarray of shape (n_columns,), or None
        Where it is; None where there is none yet.
    """

    def __init__(self, around, gains, base, need, lower, upper=np.inf):
        self.around, self.gains, self.base = around, gains, base
        self.need, self.lower = need, lower
        self.cost, self.x = upper, None
        self.failed = lower  # the largest budget without a success so far

    def run(self, seeds=()):
        """Search; `seeds` are rows to begin at where the climb from the row fails."""
        self.begin()
        if self.x is None and len(seeds):
            self.seed(seeds)
        if self.x is None:
            problem = self.problem(self.cost)
            self._look_around(problem, problem.home[None])
        if self.x is not None:
            self.refine()
            self.polish()
        return self

    def problem(self, budget):
        """Return what is in reach of a budget."""
        return RowProblem(self.around, self.gains, self.base, budget)

    def note(self, problem, cells, arrived):
        """Keep the cheapest of the points that arrived; return whether it is new."""
        if not arrived.any():
            return False
        cells = cells[arrived]
        if problem.norm != np.inf:
            cells = trim(problem, cells, self.need)
        total = problem.total(cells)
        at = total.argmin()
        if not total[at] < self.cost:
            return False
        self.cost = total[at]
        self.x = problem.point(cells[at])
        return True

    def seed(self, points):
        """Begin at points that succeed already, such as rows of another class.

        Parameters
        ----------
        points : ndarray of shape (n_points, n_columns)
            Rows; what a row may not change or leave is put back.
        """
        around = self.around
        points = np.where(around.frozen, around.x, points)
        problem = self.problem(np.inf)
        if not len(points) or not len(problem.columns):
            return
        cells = np.stack([problem.cells_of(point) for point in points])
        self.note(problem, *climb(problem, cells, np.full(len(cells), np.inf), self.need))

    def begin(self):
        """Try growing budgets, several at a time, until one is enough."""
        costs = self.around.cost
        costs = costs[(costs > 0) & np.isfinite(costs)]
        if not len(costs):
            return
        last, unit = self.lower, max(self.lower, costs.min())
        for factor in _FACTORS:
            limit = min(unit * factor, self.cost)
            budgets = np.array([limit])
            if np.isfinite(limit):
                budgets = np.linspace(last, limit, _BUDGETS + 1)[1:]
            problem = self.problem(limit)
            start = np.tile(problem.home, (len(budgets), 1))
            cells, arrived = climb(problem, start, budgets, self.need)
            if self.note(problem, cells, arrived):
                self._fail(budgets[~arrived])
                return
            last = limit
            if limit >= self.cost:
                return

    def refine(self, n_rounds=2):
        """Try budgets between the largest failure and the success."""
        for _ in range(n_rounds):
            problem = self.problem(self.cost)
            budgets = np.linspace(self.failed, self.cost, _BUDGETS + 2)[1:-1]
            if problem.norm == np.inf:  # no other radii matter
                levels = np.unique(problem.cost)
                levels = levels[(levels >= self.failed) & (levels < self.cost)]
                which = np.linspace(0, len(levels) - 1, _BUDGETS).round().astype(int)
                budgets = levels[np.unique(which)] if len(levels) else levels
            if not len(budgets) or not len(problem.columns):
                return
            near = np.stack([self._within(problem, budget) for budget in budgets])
            cells, arrived = climb(problem, near, budgets, self.need)
            if not self.note(problem, cells, arrived):
                return
            self._fail(budgets[~arrived])

    def polish(self, n_rounds=10):
        """Look around where the climb ends below the best, one single move away."""
        for _ in range(n_rounds):
            if not self.cost > self.lower:
                return
            problem = self.problem(np.nextafter(self.cost, 0))
            if not len(problem.columns):
                return
            starts = np.stack([problem.home, *self._neighbours(problem)])
            cells, arrived = climb(problem, starts, _same(problem, starts), self.need)
            if self.note(problem, cells, arrived):
                continue
            if not self._look_around(problem, cells):
                return

    def _look_around(self, problem, cells):
        """Climb from one move away of some points; return whether that found more."""
        starts = self._single_moves(problem, cells)
        if not len(starts):
            return False
        return self.note(
            problem, *climb(problem, starts, _same(problem, starts), self.need)
        )

    def _fail(self, budgets):
        below = budgets[budgets < self.cost]
        self.failed = max([self.failed, *below])

    def _within(self, problem, budget):
        """Return the best point, with columns moved back until it fits a budget."""
        cells = problem.cells_of(self.x)
        while True:
            each = problem.cost[problem.first + cells]
            if problem.norm == np.inf:
                beyond = each > budget
                if not beyond.any():
                    return cells
                cells = np.where(beyond, cells + np.sign(problem.home - cells), cells)
            elif each.sum() <= budget:
                return cells
            else:
                cells[each.argmax()] = problem.home[each.argmax()]

    def _neighbours(self, problem):
        """Points next to the best one that cost less."""
        if problem.norm == np.inf:
            return [self._within(problem, problem.budget)]
        cells = problem.cells_of(self.x)
        moved = np.flatnonzero(cells != problem.home)
        points = np.tile(cells, (len(moved), 1))
        points[np.arange(len(moved)), moved] = problem.home[moved]
        return list(points)

    def _single_moves(self, problem, cells):
        """Points one move away from the two best: of each column the best move first."""
        if not len(problem.columns):
            return cells[:0]
        slots = slots_of(problem)
        profiles = Profiles(problem, cells)
        lead = (profiles.look() - self.need[:, None, None]).min(0)
        two = np.argsort(-(profiles.margin - self.need[:, None]).min(0), kind="stable")[
            :2
        ]
        lead, cells = lead[two], cells[two]
        lead[~allowed_moves(problem, slots, cells, _same(problem, cells))] = -np.inf
        lead[np.arange(len(two))[:, None], slots.first + cells] = -np.inf
        n_starts = max(24, _WORK // len(problem.leaf))
        best = np.maximum.reduceat(lead, slots.first, axis=1)[:, slots.column]
        order = np.lexsort((-lead.ravel(), (lead < best).ravel()))
        point, slot = np.unravel_index(order, lead.shape)
        keep = np.isfinite(lead[point, slot])
        point, slot = point[keep][:n_starts], slot[keep][:n_starts]
        starts = cells[point]
        starts[np.arange(len(starts)), slots.column[slot]] = slots.cell[slot]
        return starts


def _same(problem, cells):
    return np.full(len(cells), problem.budget)
