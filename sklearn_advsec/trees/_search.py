"""Coordinate search for a cheap change of an ensemble's answer."""

import numpy as np

from ._row import RowProblem

# Violations are counted in the upper half of a number, and their columns added up in the
# lower one: where there is one violation, that is its column.
_ONE = 2**16


class ClimbingPoints:
    """Points of a row's cells, and what every move of one column gains.

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around the row.
    cells : ndarray of int, shape (n_points, n_active)
        The points.

    Attributes
    ----------
    margin : ndarray of shape (n_rivals, n_points)
        The gain of each point.
    """

    def __init__(self, problem, cells):
        self.problem = problem
        self.cells = cells.copy()
        low, high = problem.low, problem.high
        self.state = np.zeros((len(cells), len(problem.leaf)), dtype=np.int32)
        for f in range(len(low)):
            own = cells[:, f, None]
            self.state += ((own < low[f]) | (own > high[f])) * np.int32(_ONE + f)

    def select(self, keep):
        """Keep some of the points."""
        self.cells, self.state = self.cells[keep], self.state[keep]

    def move(self, points, columns, cells):
        """Move one column of some points."""
        low, high = self.problem.low[columns], self.problem.high[columns]
        old, new = self.cells[points, columns][:, None], cells[:, None]
        change = ((new < low) | (new > high)).astype(np.int32)
        change -= (old < low) | (old > high)
        self.state[points] += change * (_ONE + columns[:, None]).astype(np.int32)
        self.cells[points, columns] = cells

    def look(self):
        """Return the gain after every move, of shape (n_rivals, n_points, n_slots).

        Slots are those of :func:`slots_of`.
        """
        problem, slots = self.problem, slots_of(self.problem)
        width, n_points = slots.width, len(self.cells)
        flat = self.state.ravel()
        close = np.flatnonzero(flat < 2 * _ONE)
        violated = flat[close]
        point, leaf = np.divmod(close, self.state.shape[1])
        shift = point * width
        inside = violated == 0
        present, here, offset = leaf[inside], point[inside], shift[inside, None]
        near, column = leaf[~inside], violated[~inside] - _ONE
        first = shift[~inside] + slots.first[column]
        at = np.concatenate(
            [
                (offset + slots.begin[present]).ravel(),
                first + problem.low[column, near],
                (offset + slots.end[present]).ravel(),
                first + problem.high[column, near] + 1,
            ]
        )
        own = slots.first + self.cells
        each = np.arange(n_points)[:, None]
        gains = np.empty((len(problem.base), n_points, width))
        self.margin = np.empty((len(problem.base), n_points))
        for rival, gain in enumerate(problem.gain):
            weight = np.concatenate(
                [np.repeat(gain[present], slots.begin.shape[1]), gain[near]]
            )
            change = np.bincount(
                at, np.concatenate([weight, -weight]), minlength=n_points * width
            )
            total = np.cumsum(change.reshape(n_points, width), axis=1, out=gains[rival])
            margin = np.bincount(here, gain[present], minlength=n_points)
            self.margin[rival] = margin = margin + problem.base[rival]
            # What the present leaves gain in their own cells is part of the margin.
            total += (margin[:, None] - total[each, own])[:, slots.column]
        return gains


class Slots:
    """The cells of all columns in a row, with a slot behind those of each column."""

    def __init__(self, problem):
        n_columns = len(problem.columns)
        self.first = problem.first + np.arange(n_columns)
        self.width = len(problem.cost) + n_columns + 1
        self.column = np.zeros(self.width, dtype=np.int64)
        self.cell = np.zeros(self.width, dtype=np.int64)
        self.cost = np.full(self.width, np.inf)
        at = np.arange(len(problem.cost)) + problem.cell
        self.column[at] = problem.cell
        self.cell[at] = np.arange(len(problem.cost)) - problem.first[problem.cell]
        self.cost[at] = problem.cost
        # Where the box of each leaf begins and ends, in the columns that it depends on.
        cut = (problem.low > 0) | (problem.high < problem.size[:, None] - 1)
        leaf, column = np.nonzero(cut.T)
        order = (
            np.arange(len(leaf)) - np.searchsorted(leaf, np.arange(cut.shape[1]))[leaf]
        )
        shape = (cut.shape[1], int(order.max(initial=-1)) + 1)
        self.begin = np.full(shape, self.width - 1)
        self.end = np.full(shape, self.width - 1)
        self.begin[leaf, order] = self.first[column] + problem.low[column, leaf]
        self.end[leaf, order] = self.first[column] + problem.high[column, leaf] + 1


def slots_of(problem):
    """Return the slots of a problem, made once."""
    if not hasattr(problem, "slots"):
        problem.slots = Slots(problem)
    return problem.slots


def climb(problem, cells, budget, need, max_moves=200):
    """Move one column after another, within a budget, while the gain grows.

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around the row.
    cells : ndarray of int, shape (n_points, n_active)
        Where the points begin.
    budget : ndarray of shape (n_points,)
        What each may cost.
    need : ndarray of shape (n_rivals,)
        The gain at which a point has arrived.
    max_moves : int
        The number of moves of each point.

    Returns
    -------
    cells : ndarray of int, shape (n_points, n_active)
        Where they end.
    arrived : ndarray of bool, shape (n_points,)
        Whether they have the gain.
    """
    if not len(problem.columns):  # nothing that is in reach makes a difference
        return cells, np.full(len(cells), bool((problem.base >= need).all()))
    slots = slots_of(problem)
    final = cells.copy()
    arrived = np.zeros(len(cells), dtype=bool)
    climbing, open_points = ClimbingPoints(problem, cells), np.arange(len(cells))
    for _ in range(max_moves):
        lead = (climbing.look() - need[:, None, None]).min(0)
        margin = (climbing.margin - need[:, None]).min(0)
        allowed = allowed_moves(problem, slots, climbing.cells, budget[open_points])
        lead[~allowed] = -np.inf
        best = _rank(problem, slots, climbing.cells, lead, margin).argmax(1)
        reached = lead[np.arange(len(best)), best]
        done = margin >= 0
        go = np.flatnonzero(~done & (reached > margin + 1e-12))
        climbing.move(go, slots.column[best[go]], slots.cell[best[go]])
        final[open_points] = climbing.cells
        arrived[open_points] = done
        arrived[open_points[go]] = reached[go] >= 0
        keep = go[reached[go] < 0]
        if not len(keep):
            break
        climbing.select(keep)
        open_points = open_points[keep]
    return final, arrived


def elected(problem, budgets):
    """Let all leaves vote for their cells, column by column, with what they gain.

    Where the largest cost counts, columns do not compete for a budget, and each may go
    where most is gained, all at once.

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around the row.
    budgets : ndarray of shape (n_points,)
        What each point may cost.

    Returns
    -------
    cells : ndarray of int, shape (n_points, n_active)
    """
    slots, gain = slots_of(problem), problem.gain.sum(0)
    starts = np.flatnonzero(np.diff(problem.tree, prepend=-1))
    weight = gain - np.minimum.reduceat(gain, starts)[problem.tree]
    weight = np.repeat(weight, slots.begin.shape[1])
    at = np.concatenate([slots.begin.ravel(), slots.end.ravel()])
    votes = np.bincount(at, np.concatenate([weight, -weight]), minlength=slots.width)
    votes = np.cumsum(votes)
    votes[slots.first + problem.own_cell] += 1e-9 * weight.max()  # rather stay
    votes = np.where(slots.cost <= _finite(budgets)[:, None], votes, -np.inf)
    most = np.maximum.reduceat(votes, slots.first, axis=1)[:, slots.column]
    first = np.where(votes >= most, -np.arange(slots.width), -slots.width)
    return -np.maximum.reduceat(first, slots.first, axis=1) - slots.first


def _finite(budgets):
    """Return budgets in which the slots behind the columns, no cells, never are."""
    return np.minimum(budgets, np.finfo(np.float64).max)


def allowed_moves(problem, slots, cells, budget):
    """Return which moves stay within the budgets, of shape (n_points, n_slots)."""
    budget = _finite(budget)
    if problem.norm == np.inf:
        return slots.cost <= budget[:, None]
    own = problem.cost[problem.first + cells]
    left = budget - own.sum(1)
    return slots.cost <= (left[:, None] + own)[:, slots.column]


def _rank(problem, slots, cells, lead, margin):
    """What makes one move better than another: the gain, per cost where costs add up."""
    if problem.norm == np.inf:
        return lead
    own = problem.cost[problem.first + cells][:, slots.column]
    least = max(1e-9 * slots.cost[slots.cost > 0].min(), np.finfo(np.float64).tiny)
    extra = np.maximum(slots.cost - own, least)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(lead > margin[:, None], (lead - margin[:, None]) / extra, -np.inf)


def trim(problem, cells, need, max_moves=200):
    """Move columns so that points get cheaper and keep the gain (for norms that add up).

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around the row.
    cells : ndarray of int, shape (n_points, n_active)
        Points that have the gain.
    need : ndarray of shape (n_rivals,)
        The gain.
    max_moves : int
        The number of moves of each point.

    Returns
    -------
    cells : ndarray of int, shape (n_points, n_active)
        Points that have it too, and that no move of one column makes cheaper.
    """
    slots = slots_of(problem)
    final = cells.copy()
    climbing, open_points = ClimbingPoints(problem, cells), np.arange(len(cells))
    for _ in range(max_moves):
        lead = (climbing.look() - need[:, None, None]).min(0)
        own = problem.cost[problem.first + climbing.cells]
        saved = own[:, slots.column] - slots.cost
        saved[lead < 0] = -np.inf
        best = saved.argmax(1)
        go = np.flatnonzero(saved[np.arange(len(best)), best] > 0)
        if not len(go):
            break
        climbing.move(go, slots.column[best[go]], slots.cell[best[go]])
        climbing.select(go)
        open_points = open_points[go]
        final[open_points] = climbing.cells
    return final


# How many leaves, in all points together, a look around may take in small problems.
_WORK = 2**13
# How many budgets are tried side by side, and how far the first ones reach, in units of
# the lower bound.
_BUDGETS = 8
_FACTORS = (1.5, 3.0, 8.0, 30.0, np.inf)
# Which costs are tried instead where the largest one counts, in their order.
_RUNGS = np.unique(np.append(0, 1.5 ** np.arange(40)).astype(int))


class Search:
    """The search for a cheap success of one row.

    Parameters
    ----------
    row_cells : RowCells
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

    def __init__(self, row_cells, gains, base, need, lower, upper=np.inf):
        self.row_cells, self.gains, self.base = row_cells, gains, base
        self.need, self.lower = need, lower
        self.cost, self.x = upper, None
        self.failed = lower  # the largest budget without a success so far

    def run(self, seeds=None):
        """Search; ``seeds()`` are rows to begin at where the climb from the row fails."""
        self.begin()
        if self.x is None and seeds is not None:
            self.seed(seeds())
        if self.x is None:
            problem = self.problem(self.cost)
            self._look_around(problem, problem.own_cell[None])
        if self.x is not None:
            self.refine()
        return self

    def problem(self, budget):
        """Return what is in reach of a budget."""
        return RowProblem(self.row_cells, self.gains, self.base, budget)

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
        row_cells = self.row_cells
        points = np.where(row_cells.frozen, row_cells.x, points)
        problem = self.problem(np.inf)
        if not len(points) or not len(problem.columns):
            return
        cells = np.stack([problem.cells_of(point) for point in points])
        self.note(problem, *climb(problem, cells, np.full(len(cells), np.inf), self.need))

    def begin(self):
        """Try growing budgets, several at a time, until one is enough."""
        costs = self.row_cells.cost
        costs = costs[(costs > 0) & np.isfinite(costs)]
        if not len(costs):
            return
        for budgets in self._ladder(costs):
            problem = self.problem(budgets[-1])
            start = np.tile(problem.own_cell, (len(budgets), 1))
            if problem.norm == np.inf and len(problem.columns):
                start = elected(problem, budgets)
            cells, arrived = climb(problem, start, budgets, self.need)
            found = self.note(problem, cells, arrived)
            self._fail(budgets[~arrived])
            if found:
                return

    def _ladder(self, costs):
        """Yield budgets to try side by side, from the lower bound up.

        Where the largest cost counts, only costs of cells matter; and the lower bound
        itself is enough more often than not.
        """
        if self.row_cells.norm == np.inf:
            levels = np.unique(costs[(costs >= self.lower) & (costs < self.cost)])
            rungs = _RUNGS[_RUNGS < len(levels)]
            if not len(levels):
                return
            yield levels[:1]
            for begin in range(1, len(rungs), _BUDGETS // 2):
                yield levels[rungs[begin : begin + _BUDGETS // 2]]
            return
        last, unit = self.lower, max(self.lower, costs.min())
        for factor in _FACTORS:
            limit = min(unit * factor, self.cost)
            budgets = np.array([limit])
            if np.isfinite(limit):
                budgets = np.linspace(last, limit, _BUDGETS + 1)[1:]
            yield budgets
            last = limit
            if limit >= self.cost:
                return

    def refine(self, n_rounds=2):
        """Try budgets between the largest failure and the success."""
        for _ in range(n_rounds):
            if not self.cost > self.lower:
                return
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
            if self.x is None or not self.cost > self.lower:
                return
            problem = self.problem(np.nextafter(self.cost, 0))
            if not len(problem.columns):
                return
            starts = np.stack([problem.own_cell, *self._neighbours(problem)])
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
                cells = np.where(beyond, cells + np.sign(problem.own_cell - cells), cells)
            elif each.sum() <= budget:
                return cells
            else:
                cells[each.argmax()] = problem.own_cell[each.argmax()]

    def _neighbours(self, problem):
        """Points next to the best one that cost less."""
        if problem.norm == np.inf:
            return [self._within(problem, problem.budget)]
        cells = problem.cells_of(self.x)
        moved = np.flatnonzero(cells != problem.own_cell)
        points = np.tile(cells, (len(moved), 1))
        points[np.arange(len(moved)), moved] = problem.own_cell[moved]
        return list(points)

    def _single_moves(self, problem, cells):
        """Points one move away from the two best: of each column the best move first."""
        if not len(problem.columns):
            return cells[:0]
        slots = slots_of(problem)
        climbing = ClimbingPoints(problem, cells)
        lead = (climbing.look() - self.need[:, None, None]).min(0)
        two = np.argsort(-(climbing.margin - self.need[:, None]).min(0), kind="stable")[
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
