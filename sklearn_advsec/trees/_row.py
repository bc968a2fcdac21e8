"""The cells and leaves of an ensemble that one row can reach, and what they cost."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Moves:
    """What a row may become, column by column.

    Attributes
    ----------
    lower, upper : ndarray of float64, shape (n_columns,)
        The values that may be taken; equal to the row's in columns that may not change.
        Of categories that are known to the grid, their positions.
    scale : ndarray of shape (n_columns,), optional
        The units in which changes are measured.
    step : ndarray of shape (n_columns,), optional
        Changes are to be multiples of these, where they are not 0.
    nominal : ndarray of bool, shape (n_columns,), optional
        Columns of categories without an order: to any other, it is a change of 1.
    turns : dict of int to ndarray of bool, optional
        The categories that the row's own may turn into, for columns that limit that.
    may_go_missing : ndarray of bool, shape (n_columns,), optional
        Columns whose value may go missing, which is a change of 1.
    """

    lower: np.ndarray
    upper: np.ndarray
    scale: np.ndarray = None
    step: np.ndarray = None
    nominal: np.ndarray = None
    turns: dict = field(default_factory=dict)
    may_go_missing: np.ndarray = None

    def __post_init__(self):
        size = len(self.lower)
        if self.scale is None:
            self.scale = np.ones(size)
        if self.step is None:
            self.step = np.zeros(size)
        if self.nominal is None:
            self.nominal = np.zeros(size, dtype=bool)
        if self.may_go_missing is None:
            self.may_go_missing = np.zeros(size, dtype=bool)


class RowCells:
    """One row in the grid: what each cell costs, and how far each box is away.

    Parameters
    ----------
    grid : TreeGrid
        The grid.
    x : ndarray of float64, shape (n_columns,)
        The row.
    moves : Moves
        What it may become.
    norm : {np.inf, 1, 2, 0}
        The norm of costs.
    row : {ndarray, DataFrame} of shape (1, n_columns)
        The row as the estimator takes it.

    Attributes
    ----------
    frozen : ndarray of bool, shape (n_columns,)
        Columns that keep their value.
    own_cell : ndarray of int, shape (n_columns,)
        The cell of the row itself.
    cost : ndarray of shape (n_cells,)
        What it takes to get to a cell: the distance, its square for norm 2, or 1 for norm
        0; infinite where that is not allowed. Costs of columns add up, or for norm inf
        the largest counts. They grow with the distance from the row's own cell, except
        that the last cell may be for what is missing.
    place : ndarray of shape (n_cells,)
        The nearest value of each cell.
    reach : ndarray of shape (n_boxes,)
        The cost of each box.
    unsearched : float
        What it takes to leave the own cell of a column that the grid holds fixed: what
        is said of boxes holds for all changes that cost less.
    """

    def __init__(self, grid, x, moves, norm, row):
        self.grid, self.norm, self.x, self.scale = grid, norm, x, moves.scale
        own_cell = grid.cells(x)
        can_move = moves.lower < moves.upper
        can_move |= moves.may_go_missing & (grid.missing >= 0)
        can_move &= grid.movable & ~np.isnan(x) & (own_cell >= 0)
        self.frozen = ~can_move | grid.held
        self.own_cell = np.maximum(own_cell, 0)
        self._cost_cells(moves, can_move)
        column = grid.entry_column
        first = grid.first_cell[column]
        low, high = first + grid.entry_low, first + grid.entry_high
        own = first + self.own_cell[column]
        # The nearest cell of the box that holds a value at all.
        before, after = neighbours(np.isfinite(self.cost))
        nearest = np.where(low > own, after[low], own)
        nearest = np.where(high < own, before[high], nearest)
        held = (low <= nearest) & (nearest <= high)
        cost = np.where(held, self.cost[np.where(held, nearest, own)], np.inf)
        if moves.may_go_missing.any():
            lost = np.flatnonzero(grid.entry_high == grid.missing[column])
            cost[lost] = np.minimum(cost[lost], self.cost[high[lost]])
        self.reach = self._sum_up(np.where(self.frozen[column], 0.0, cost))
        self.reach[grid.blocked(row, self.frozen, own_cell)] = np.inf

    def _cost_cells(self, moves, can_move):
        grid = self.grid
        column = self.cell_column = np.repeat(np.arange(grid.n_columns), grid.n_cells)
        position = np.arange(len(column)) - grid.first_cell[column]
        home = self.own_cell[column]
        above, below = position > home, position < home
        edge = grid.first_edge[column] + position
        own = self.x[column]
        self.place = own.copy()
        self.place[above] = grid.up[edge[above] - 1]
        self.place[below] = grid.down[edge[below]]
        ranges = np.isnan(grid.value)
        lost = position == grid.missing[column]
        outside = ~grid.usable
        outside |= self._land_on_steps(moves, position, edge, above & ~lost, below)
        self.place = np.where(ranges, self.place, grid.value)
        self.place[lost] = np.nan
        cost = np.abs(self.place - own) / self.scale[column]
        cost[moves.nominal[column] | lost] = 1.0
        outside |= (self.place > moves.upper[column]) | (self.place < moves.lower[column])
        outside[lost] = ~moves.may_go_missing[column[lost]]
        for j, allowed in moves.turns.items():
            cells = np.flatnonzero((column == j) & ~ranges)
            outside[cells] |= ~allowed[grid.value[cells].astype(int)]
            outside[(column == j) & lost] = True
        if self.norm == 2:
            cost = cost**2
        elif self.norm == 0:
            cost = np.ones(len(cost))
        cost[outside | ~can_move[column]] = np.inf
        cost[position == home] = 0.0
        self.unsearched = np.inf
        held = grid.held & can_move
        if held.any():
            # Of a column with too many cells to be told apart, nothing is known.
            near = cost[held[column] & (position != home)].min(initial=np.inf)
            self.unsearched = 0.0 if (grid.n_cells[held] == 1).any() else float(near)
        self.cost = np.where(self.frozen[column] & (position != home), np.inf, cost)

    def _land_on_steps(self, moves, position, edge, above, below):
        """Land on multiples of a step; return the cells that hold none."""
        grid, column = self.grid, self.cell_column
        outside = np.zeros(len(column), dtype=bool)
        at = np.flatnonzero((moves.step[column] > 0) & (above | below))
        if not len(at):
            return outside
        step, own, up = moves.step[column[at]], self.x[column[at]], above[at]
        sign = np.where(up, 1.0, -1.0)
        count = np.abs(self.place[at] - own) / step
        count = np.maximum(np.ceil(count * (1 - 1e-9)), 1.0)
        border = np.where(
            up, grid.high[edge[at] - 1], grid.low[np.minimum(edge[at], len(grid.low) - 1)]
        )
        named = np.isnan(border)
        short = sign * (own + sign * count * step - border) < 0
        place = own + sign * (count + short) * step
        self.place[at] = place
        # A step may lead over the whole cell: it holds no value then.
        end = grid.n_cells[column[at]] - 1 - (grid.missing[column[at]] >= 0)
        far = up & (position[at] < end)
        outside[at[far]] = place[far] > grid.low[edge[at[far]]]
        far = ~up & (position[at] > 0)
        outside[at[far]] = place[far] < grid.high[edge[at[far]] - 1]
        # Positions of categories have steps too.
        count = (grid.value[at] - own) / step
        outside[at[named]] = np.abs(count - np.rint(count))[named] > 1e-9
        return outside

    def _sum_up(self, cost):
        """Join the costs of the entries of each leaf."""
        begins = self.grid.first_entry
        if not len(cost):
            return np.zeros(len(begins) - 1)
        join = np.maximum if self.norm == np.inf else np.add
        total = join.reduceat(cost, np.minimum(begins[:-1], len(cost) - 1))
        return np.where(np.diff(begins) > 0, total, 0.0)

    def distance(self, cost):
        """Turn a cost into the distance in the norm."""
        return np.sqrt(cost) if self.norm == 2 else cost


class RowProblem:
    """The leaves that can be reached at some cost, and the cells that tell them apart.

    Parameters
    ----------
    row_cells : RowCells
        The row in the grid.
    gains : ndarray of shape (n_rivals, n_leaves)
        How far each leaf puts the wanted class ahead of each rival.
    base : ndarray of shape (n_rivals,)
        The same of the scores before the first tree.
    budget : float
        The largest cost.
    alive : ndarray of bool, shape (n_leaves,), optional
        Leaves to keep among those in reach.

    Attributes
    ----------
    columns : ndarray of int, shape (n_active,)
        Columns in which the leaves differ.
    first, size : ndarray of int, shape (n_active,)
        Where their cells begin in `cost`, and how many there are.
    own_cell : ndarray of int, shape (n_active,)
        The row's own cell.
    missing : ndarray of int, shape (n_active,)
        The cell for what is missing, always the last; -1 where it is not in reach.
    cost, place : ndarray of shape (n_cells,)
        What each cell costs, and its nearest value.
    leaf : ndarray of int, shape (n_leaves,)
        The leaves, as positions in the grid. Trees of which a single one is in reach are
        part of `base`.
    tree : ndarray of int, shape (n_leaves,)
        Their trees, numbered from 0, in order.
    low, high : ndarray of int, shape (n_active, n_leaves)
        Their boxes of cells.
    gain : ndarray of shape (n_rivals, n_leaves)
        Their gains.
    base : ndarray of shape (n_rivals,)
        The gain of all else.
    """

    def __init__(self, row_cells, gains, base, budget, alive=None):
        self.row_cells, self.norm, self.budget = row_cells, row_cells.norm, budget
        self._gains, self._base = gains, base
        grid = row_cells.grid
        keep = (row_cells.reach <= budget) & np.isfinite(row_cells.reach)
        if alive is not None:
            keep &= alive
        leaf = np.flatnonzero(keep)
        tree = grid.leaf_tree[leaf]
        count = np.bincount(tree, minlength=grid.ensemble.n_trees)
        self.complete = bool((count > 0).all())  # else no row is left at all
        # The only leaf in reach is where a row stays; the only one kept is a condition.
        single = (count[tree] == 1) & (alive is None)
        self.base = base + gains[:, leaf[single]].sum(1)
        self.leaf, tree = leaf[~single], tree[~single]
        _, self.tree = np.unique(tree, return_inverse=True)
        self.n_trees = int(self.tree.max(initial=-1)) + 1
        self.gain = gains[:, self.leaf]
        self._cut()

    def _cut(self):
        """Find the cells that tell the leaves apart."""
        row_cells, grid, leaf = self.row_cells, self.row_cells.grid, self.leaf
        counts = grid.first_entry[leaf + 1] - grid.first_entry[leaf]
        owner = np.repeat(np.arange(len(leaf)), counts)
        begins = np.repeat(grid.first_entry[leaf] - np.cumsum(counts) + counts, counts)
        entry = begins + np.arange(len(owner))
        column = grid.entry_column[entry]
        keep = ~row_cells.frozen[column]
        owner, entry, column = owner[keep], entry[keep], column[keep]
        near = (row_cells.cost <= self.budget) & np.isfinite(row_cells.cost)
        begin = np.zeros(len(near), dtype=bool)
        first = grid.first_cell[column]
        last = first + grid.n_cells[column] - 1
        low, high = first + grid.entry_low[entry], first + grid.entry_high[entry]
        begin[low] = True
        begin[high[high < last] + 1] = True
        # Of the cells in reach, those begin one that have a beginning, or another column,
        # between them and the one before.
        reached = np.flatnonzero(near)
        of = row_cells.cell_column[reached]
        begin = np.diff(np.cumsum(begin)[reached], prepend=-1) > 0
        begin |= np.diff(of, prepend=-1) > 0
        label = np.cumsum(begin) - 1  # of the cells in reach: the joined cell
        joined_column = of[begin]
        full = np.full(len(near) + 1, -1)
        full[reached] = label
        # The cheapest of the cells that were joined.
        starts = np.flatnonzero(begin)
        cost = np.minimum.reduceat(row_cells.cost[reached], starts)
        nearest = self._nearest(row_cells.cost[reached], label, cost)
        place = row_cells.place[reached][nearest]
        own = full[grid.first_cell + row_cells.own_cell]
        size = np.bincount(joined_column, minlength=grid.n_columns)
        self.columns = np.flatnonzero(size > 1)
        active = size[joined_column] > 1
        self.cost, self.place = cost[active], place[active]
        self.begin = (reached[starts] - grid.first_cell[joined_column])[active]
        self.size = size[self.columns]
        self.first = np.cumsum(self.size) - self.size
        self.cell = np.repeat(np.arange(len(self.columns)), self.size)
        shift = np.searchsorted(joined_column, self.columns)  # first label of each
        self.own_cell = own[self.columns] - shift
        lost = grid.missing[self.columns]
        lost_cell = full[np.where(lost < 0, -1, grid.first_cell[self.columns] + lost)]
        self.missing = np.where(lost_cell < 0, -1, lost_cell - shift)
        # Boxes, in the cells of their column.
        slot = np.full(grid.n_columns, -1)
        slot[self.columns] = np.arange(len(self.columns))
        use = slot[column] >= 0
        owner, at = owner[use], slot[column[use]]
        self._label, self._shift = full, shift
        self._before, self._after = before, after = neighbours(near)
        low = full[after[low[use]]] - shift[at]
        high = full[before[high[use]]] - shift[at]
        shape = (len(self.columns), len(leaf))
        box_low = np.zeros(shape, dtype=np.int32)
        box_high = np.repeat(self.size[:, None] - 1, len(leaf), axis=1).astype(np.int32)
        box_low[at, owner], box_high[at, owner] = low, high
        self.low, self.high = box_low, box_high

    @staticmethod
    def _nearest(cost, label, cheapest):
        hit = np.flatnonzero(cost == cheapest[label])
        nearest = np.zeros(len(cheapest), dtype=int)
        nearest[label[hit]] = hit
        return nearest

    def select(self, alive):
        """Return the same problem with those leaves only, of all leaves of the grid."""
        return RowProblem(self.row_cells, self._gains, self._base, self.budget, alive)

    def total(self, cells):
        """Cost of points, given by their cells, of shape (n, n_active)."""
        each = self.cost[self.first + cells]
        if self.norm == np.inf:
            return each.max(1, initial=0.0)
        return each.sum(1)

    def nearest(self, low, high):
        """Return the cheapest cells of boxes, of shape (n, n_active)."""
        nearest = np.clip(self.own_cell, low, high)
        for f in np.flatnonzero(self.missing >= 0):
            last, first = self.missing[f], self.first[f]
            cheaper = self.cost[first + last] < self.cost[first + nearest[:, f]]
            nearest[cheaper & (high[:, f] == last), f] = last
        return nearest

    def margin(self, cells):
        """Return the gain of one point, of shape (n_rivals,)."""
        own = cells[:, None]
        inside = ((self.low <= own) & (own <= self.high)).all(0)
        return self.base + self.gain[:, inside].sum(1)

    def point(self, cells):
        """Return the row's nearest point in the given cells, of shape (n_active,)."""
        x = self.row_cells.x.copy()
        x[self.columns] = self.place[self.first + cells]
        return x

    def cells_of(self, x):
        """Return the cells in reach that are next to a point, of shape (n_active,)."""
        row_cells, columns = self.row_cells, self.columns
        own = np.maximum(row_cells.grid.cells(x)[columns], 0)
        above = own > row_cells.own_cell[columns]
        cell = row_cells.grid.first_cell[columns] + own
        cell = np.where(above, self._before[cell], self._after[cell])
        return self._label[cell] - self._shift

    def best(self):
        """Gain of the best leaf of each tree, of shape (n_rivals, n_trees)."""
        if not self.n_trees:
            return np.zeros((len(self.base), 0))
        starts = np.flatnonzero(np.diff(self.tree, prepend=-1))
        return np.maximum.reduceat(self.gain, starts, axis=1)


def neighbours(keep):
    """Return the last position up to each, and the first from each on, that is kept."""
    at = np.arange(len(keep))
    before = np.maximum.accumulate(np.where(keep, at, -1))
    after = np.minimum.accumulate(np.where(keep, at, len(keep))[::-1])[::-1]
    return before, after
