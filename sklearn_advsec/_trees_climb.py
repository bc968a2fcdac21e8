"""Points of a row's cells that climb, one column after another.

For a point of the grid, the gain of every move of one column is known at once: a leaf
counts for the moves of column f if f is the only column whose cell is not in its box.
Many points are followed side by side; only their boxes of violations are updated.
"""

import numpy as np

# Violations are counted in the upper half of a number, and their columns added up in the
# lower one: where there is one violation, that is its column.
_ONE = 2**16


class Profiles:
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

    def take(self, keep):
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
    profiles, open_points = Profiles(problem, cells), np.arange(len(cells))
    for _ in range(max_moves):
        lead = (profiles.look() - need[:, None, None]).min(0)
        margin = (profiles.margin - need[:, None]).min(0)
        allowed = allowed_moves(problem, slots, profiles.cells, budget[open_points])
        lead[~allowed] = -np.inf
        best = _rank(problem, slots, profiles.cells, lead, margin).argmax(1)
        reached = lead[np.arange(len(best)), best]
        done = margin >= 0
        go = np.flatnonzero(~done & (reached > margin + 1e-12))
        profiles.move(go, slots.column[best[go]], slots.cell[best[go]])
        final[open_points] = profiles.cells
        arrived[open_points] = done
        arrived[open_points[go]] = reached[go] >= 0
        keep = go[reached[go] < 0]
        if not len(keep):
            break
        profiles.take(keep)
        open_points = open_points[keep]
    return final, arrived


def allowed_moves(problem, slots, cells, budget):
    """Return which moves stay within the budgets, of shape (n_points, n_slots)."""
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
    extra = np.maximum(slots.cost - own, 1e-9 * slots.cost[slots.cost > 0].min())
    with np.errstate(invalid="ignore"):
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
    profiles, open_points = Profiles(problem, cells), np.arange(len(cells))
    for _ in range(max_moves):
        lead = (profiles.look() - need[:, None, None]).min(0)
        own = problem.cost[problem.first + profiles.cells]
        saved = own[:, slots.column] - slots.cost
        saved[lead < 0] = -np.inf
        best = saved.argmax(1)
        go = np.flatnonzero(saved[np.arange(len(best)), best] > 0)
        if not len(go):
            break
        profiles.move(go, slots.column[best[go]], slots.cell[best[go]])
        profiles.take(go)
        open_points = open_points[go]
        final[open_points] = profiles.cells
    return final
