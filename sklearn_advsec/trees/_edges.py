"""Thresholds of trees pulled back to the raw columns, exact to the last bit.

Between the breaks of the steps in front of the trees, features are monotone in their
column. Bisection over the floating point numbers themselves finds the last value on one
side of each node there, so scaling, rounding to float32 and ``<=`` against ``<`` need no
formulas of their own. Columns of categories are tried value by value.
"""

import numpy as np
from sklearn import config_context

from .._rows import is_dataframe
from ._steps import Break, features_of

# No data lie beyond this.
LARGEST = 1e30
# Columns of more cells than this are not searched.
_MOST_CELLS = 2**14
# Nor those with more pairs of a node and a segment.
_MOST_TRIALS = 2**22
# As many rows are tried at a time.
_ROWS = 2**12


class Edges:
    """The cells of the raw columns, and to which side of each node they lead.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The ensemble.
    X : {ndarray, DataFrame} of shape (n_samples, n_columns)
        Gives the precision of each column; steps are tried on its first row.
    categories : dict of int to Categories, optional
        The values of columns that hold categories. They are cut, and cells hold the
        positions of values.
    may_go_missing : ndarray of bool, shape (n_columns,), optional
        Columns that get a last cell for what is missing.

    Attributes
    ----------
    node_column : ndarray of int, shape (n_nodes,)
        The raw column that an inner node looks at, -1 for leaves.
    cut : ndarray of bool, shape (n_columns,)
        Which columns are cut: numbers, and categories whose values are known.
    too_many : ndarray of bool, shape (n_columns,)
        Which of them have too many cells to be searched.
    n_cells : ndarray of int, shape (n_columns,)
        Number of cells of each column; 1 for those that are not cut.
    low, high : ndarray of float, shape (n_edges,)
        The largest value below the edge between two cells, and the smallest one above;
        column after column, of each one edge less than it has cells. NaN where cells are
        no ranges of numbers.
    value : ndarray of float, shape (n_all_cells,)
        The one value of a cell of a category; NaN for what is missing, and for ranges.
    missing : ndarray of int, shape (n_columns,)
        The cell for what is missing, -1 where there is none.
    usable : ndarray of bool, shape (n_all_cells,)
        Cells whose values the steps do not refuse.
    split : ndarray of bool, shape (n_columns,)
        Columns in which nodes send more than a first part of the cells to the left.
    last_left : ndarray of int, shape (n_nodes,)
        In columns that are not split, the last cell that goes left; -1 where none does.
    sides : dict of int to (ndarray, ndarray)
        Of each split column, its nodes, and whether its cells go left at each, of shape
        (n_own_nodes, n_own_cells).
    """

    def __init__(self, ensemble, X, categories=None, may_go_missing=None):
        n_columns = X.shape[1]
        self._ensemble, self._X = ensemble, X
        self._categories = categories or {}
        self._may_go_missing = may_go_missing
        features = self._features = features_of(ensemble.steps, n_columns)
        inner = ensemble.feature >= 0
        self.node_column = np.full(len(inner), -1)
        self.node_column[inner] = features.column[ensemble.feature[inner]]
        self._dtypes = [dtype_of(X, j) for j in range(n_columns)]
        named = np.isin(np.arange(n_columns), list(self._categories))
        self.cut = named | np.array([dtype is not None for dtype in self._dtypes])
        self.too_many = np.zeros(n_columns, dtype=bool)
        self._cut_at_breaks([*features.breaks, _code_breaks(ensemble, features)])
        self._cut_at_nodes()

    def of_column(self, j):
        """Return the values below and above the edges of a column of numbers."""
        cells = self._columns[j]
        cut = np.isfinite(cells.low)
        return cells.low[cut], cells.high[cut]

    # Segments: what lies between breaks ------------------------------------------------

    def _cut_at_breaks(self, breaks):
        """Find the segments of each column of numbers, as their first and last values."""
        self._first, self._last = [], []
        for j in range(len(self.cut)):
            if j in self._categories:
                codes = np.arange(len(self._categories[j].values), dtype=np.float64)
                ends = codes, codes
            else:
                ends = (np.array([end]) for end in _range_of(self._X, j))
            for part, end in zip((self._first, self._last), ends, strict=True):
                part.append(end)
        for step in breaks:
            self._cut_at_break(step)

    def _cut_at_break(self, step):
        n_segments = np.array([len(first) for first in self._first])
        column = step.column[step.feature]
        numbers = self.cut & ~np.isin(np.arange(len(self.cut)), list(self._categories))
        trials = 2 * np.bincount(column, minlength=len(self.cut)) * n_segments
        self.too_many |= numbers & (trials > _MOST_CELLS)
        use = (numbers & ~self.too_many)[column]
        feature, value, column = step.feature[use], step.value[use], column[use]
        # Each value, from both sides, in each of the segments there are so far.
        task = np.repeat(np.arange(len(column)), 2 * n_segments[column])
        number = count_up(2 * n_segments[column])
        segment, strict = number // 2, number % 2 == 1
        feature, value, column = feature[task], value[task], column[task]

        def below(rows, at, slot):
            seen = step.compute(rows)[slot, feature[at]]
            return np.where(strict[at], seen < value[at], seen <= value[at])

        ends = self._ends(column, segment)
        found, low, high = self._bisect(column, *ends, below)
        for j in np.unique(column[found]):
            own = column[found] == j
            lows = np.concatenate([self._last[j], low[own]])
            highs = np.concatenate([self._first[j], high[own]])
            self._last[j], self._first[j] = np.unique(lows), np.unique(highs)

    def _ends(self, column, segment):
        offsets = np.cumsum([0, *(len(first) for first in self._first)])
        at = offsets[column] + segment
        return np.concatenate(self._first)[at], np.concatenate(self._last)[at]

    # Cells: what lies between segments and thresholds -----------------------------------

    def _cut_at_nodes(self):
        """Turn segments into cells, in all of which each node has one side."""
        ensemble, searched = self._ensemble, self.cut & ~self.too_many
        nodes = np.flatnonzero(self.node_column >= 0)
        nodes = nodes[searched[self.node_column[nodes]]]
        asked, key = _distinct_nodes(ensemble, nodes)
        column = self.node_column[asked]
        n_segments = self._add_missing_segments()
        many = np.bincount(column, minlength=len(searched)) * n_segments > _MOST_TRIALS
        self.too_many |= many
        use = ~many[column]
        tables, refused = self._representatives(np.unique(column[use]))
        # Tasks: distinct nodes in each segment of their column.
        task = np.repeat(np.arange(len(asked)), np.where(use, n_segments[column], 0))
        segment = count_up(np.where(use, n_segments[column], 0))
        node, own = asked[task], column[task]
        start, end = (
            ensemble.goes_left(node, table[segment, ensemble.feature[node]])
            for table in tables
        )
        turning = np.flatnonzero((start != end) & ~refused[segment, own])

        def left(rows, at, slot):
            asking = node[turning[at]]
            seen = self._transform(rows)[slot, ensemble.feature[asking]]
            return ensemble.goes_left(asking, seen)

        bounds = self._ends(own[turning], segment[turning])
        found, low, high = self._bisect(own[turning], *bounds, left)
        turn = np.full(len(task), -1)
        turn[turning[found]] = np.arange(len(found))
        # Task after task, a column's nodes and segments make a table.
        order = np.argsort(own, kind="stable")
        begins = np.searchsorted(own[order], np.arange(len(searched) + 1))
        self.last_left = np.full(len(self.node_column), -1)
        self.split, self.sides = np.zeros(len(searched), dtype=bool), {}
        self._columns = []
        nodes_by_column = np.argsort(self.node_column[nodes], kind="stable")
        node_begins = np.searchsorted(
            self.node_column[nodes][nodes_by_column], np.arange(len(searched) + 1)
        )
        for j in range(len(searched)):
            at = order[begins[j] : begins[j + 1]]
            if not len(at):
                self._columns.append(_UNCUT)
                continue
            shape = (-1, n_segments[j])
            cells = self._cells_of(
                j, start[at].reshape(shape), turn[at].reshape(shape), low, high
            )
            cells.usable = ~refused[cells.segment, j]
            self._columns.append(cells)
            mine = nodes_by_column[node_begins[j] : node_begins[j + 1]]
            sides = cells.left[np.searchsorted(task[at][:: n_segments[j]], key[mine])]
            if (cells.missing < 0) and (sides[:, 1:] <= sides[:, :-1]).all():
                self.last_left[nodes[mine]] = sides.sum(1) - 1
            else:
                self.split[j] = True
                self.sides[j] = nodes[mine], sides
        self.n_cells = np.array([len(c.value) for c in self._columns])
        self.missing = np.array([c.missing for c in self._columns])
        for name in ("low", "high", "value", "usable"):
            parts = [getattr(c, name) for c in self._columns]
            setattr(self, name, np.concatenate(parts))

    def _add_missing_segments(self):
        """Give columns a segment for what is missing: where it may go, or is told apart.

        Return the number of segments of each column.
        """
        n_segments = np.array([len(first) for first in self._first])
        lacks = self.cut & ~self.too_many & (n_segments > 1)
        if self._may_go_missing is not None:
            lacks |= self.cut & ~self.too_many & self._may_go_missing
        for j in np.flatnonzero(lacks):
            self._first[j] = np.append(self._first[j], np.nan)
            self._last[j] = np.append(self._last[j], np.nan)
        return n_segments + lacks

    def _cells_of(self, j, start, turn, low, high):
        """Return the :class:`Cells` of a column.

        Parameters
        ----------
        j : int
            The column.
        start : ndarray of bool, shape (n_nodes, n_segments)
            Whether each node sends the first value of each segment to the left.
        turn : ndarray of int, shape (n_nodes, n_segments)
            Where, in `low` and `high`, it changes its mind; -1 where it does not.
        """
        first, last = self._first[j], self._last[j]
        lacks = int(np.isnan(first[-1]))
        numbers = len(first) - lacks
        if j in self._categories:
            rank = np.arange(numbers)
            if not self._categories[j].ordered:
                rank = _alike_side_by_side(start[:, :numbers])
            gap = np.full(numbers - 1, np.nan)
            cells = Cells(gap, gap, rank.astype(np.float64), rank, start[:, rank])
        else:
            own = np.unique(turn[:, :numbers][turn[:, :numbers] >= 0])
            before = np.unique(np.append(last[: numbers - 1], low[own]))
            after = np.unique(np.append(first[1:numbers], high[own]))
            begins = np.append(first[0], after)
            segment = np.searchsorted(first[:numbers], begins, side="right") - 1
            at = turn[:, segment]
            turned = (at >= 0) & (begins >= np.append(high, np.nan)[at])
            value = np.full(len(begins), np.nan)
            cells = Cells(before, after, value, segment, start[:, segment] ^ turned)
        return cells.with_missing(start[:, -1:]) if lacks else cells

    def _representatives(self, columns):
        """Return the features of the first and last value of each segment.

        Row k of the tables has segment k of every column. Also return which of them the
        steps refuse, of shape (n_rows, n_columns).
        """
        n_rows = max([len(self._first[j]) for j in columns], default=1)
        refused = np.zeros((n_rows, len(self.cut)), dtype=bool)
        tables = []
        for values in (self._first, self._last):
            sizes = np.array([len(values[j]) for j in columns], dtype=int)
            column, slot = np.repeat(columns, sizes), count_up(sizes)
            value = np.concatenate([values[j] for j in columns] or [np.zeros(0)])
            try:
                table = self._transform(self._rows(n_rows, column, slot, value))
            except (ValueError, TypeError):
                table = self._one_by_one(n_rows, column, slot, value, refused)
            tables.append(table)
        return tables, refused

    def _one_by_one(self, n_rows, column, slot, value, refused):
        """Try the values one after another; those that raise are refused."""
        table = np.repeat(self._transform(self._X[:1]), n_rows, axis=0)
        for j in np.unique(column):
            mine = self._features.column == j
            for k in np.flatnonzero(column == j):
                try:
                    row = self._rows(
                        1, column[k : k + 1], np.zeros(1, int), value[k : k + 1]
                    )
                    table[slot[k], mine] = self._transform(row)[0, mine]
                except (ValueError, TypeError):
                    refused[slot[k], j] = True
        return table

    # Trying values ----------------------------------------------------------------------

    def _transform(self, rows):
        # Far from the data, steps may overflow to infinity, which is as good.
        with np.errstate(all="ignore"), config_context(assume_finite=True):
            return self._ensemble.transform(rows)

    def _rows(self, n_rows, column, slot, value):
        """Return raw rows, like the first one but for some values."""
        X = self._X
        rows = (
            np.repeat(X[:1], n_rows, axis=0)
            if not is_dataframe(X)
            else X.iloc[[0] * n_rows]
        )
        return put_values(rows, column, slot, value, self._categories)

    def _bisect(self, column, first, last, outcome):
        """Find where outcomes turn between first and last values.

        Parameters
        ----------
        column : ndarray of int, shape (n_tasks,)
            The column of each task.
        first, last : ndarray of float, shape (n_tasks,)
            The values between which to look.
        outcome : callable
            ``outcome(rows, tasks, slot)`` says on which side each task is, whose value
            is in row ``slot``.

        Returns
        -------
        found : ndarray of int
            Tasks whose outcomes differ at the two ends.
        low, high : ndarray of float
            Of these, the last value of the first outcome, and the first one of the other.
        """

        def ask(tasks, values):
            own = column[tasks]
            order = np.argsort(own, kind="stable")
            slot = np.empty(len(own), dtype=np.int64)
            slot[order] = count_up(np.bincount(own, minlength=len(self.cut)))
            rows = self._rows(int(slot.max()) + 1, own, slot, values)
            return outcome(rows, tasks, slot)

        tasks = np.flatnonzero(~np.isnan(first))
        if not len(tasks):
            return tasks, np.zeros(0), np.zeros(0)
        with np.errstate(all="ignore"), config_context(assume_finite=True):
            start = ask(tasks, first[tasks])
            turns = start != ask(tasks, last[tasks])
            tasks, start = tasks[turns], start[turns]
            single = np.array([d is np.float32 for d in self._dtypes])[column[tasks]]
            below, above = (_key(ends[tasks], single) for ends in (first, last))
            # A call of the steps costs as much for many rows as for one.
            busiest = np.bincount(column[tasks], minlength=1).max()
            n_parts = int(np.clip(_ROWS // max(busiest, 1), 2, 16))
            part = np.arange(1, n_parts)
            while (open_ := np.flatnonzero(below + 1 < above)).size:
                low, high = below[open_, None], above[open_, None]
                # The difference itself may overflow.
                step = np.maximum(high // n_parts - low // n_parts, 1)
                tried = np.minimum(low + part * step, high)
                value = _value(tried.ravel(), np.repeat(single[open_], len(part)))
                side = ask(np.repeat(tasks[open_], len(part)), value).reshape(tried.shape)
                same = (side == start[open_, None]) & (tried < high)
                n_same = np.logical_and.accumulate(same, axis=1).sum(1)
                ends = np.concatenate([low, tried, high], axis=1)
                at = np.arange(len(open_))
                below[open_], above[open_] = ends[at, n_same], ends[at, n_same + 1]
        low, high = _value(below, single), _value(above, single)
        whole = np.array([d is int for d in self._dtypes])[column[tasks]]
        low = np.where(whole, np.floor(low), low)
        high = np.where(whole, low + 1, high)
        return tasks, low, high


def put_values(rows, column, slot, value, categories):
    """Return raw rows with other values in some places.

    Parameters
    ----------
    rows : {ndarray, DataFrame} of shape (n_rows, n_columns)
        The rows.
    column, slot : ndarray of int, shape (n_values,)
        The column and the row of each value.
    value : ndarray of float, shape (n_values,)
        The values; of columns that are named in `categories`, their positions.
    categories : dict of int to Categories
        Columns of categories.
    """
    if not is_dataframe(rows):
        whole = rows.dtype if rows.dtype.kind in "iub" else None
        rows = np.array(rows, dtype=np.float64 if whole else rows.dtype)
        for j in np.unique(column):
            own = column == j
            named = j in categories
            rows[slot[own], j] = categories[j].at(value[own]) if named else value[own]
        return rows.astype(whole) if whole and (rows == np.rint(rows)).all() else rows
    import pandas as pd

    rows = rows.reset_index(drop=True)
    for j in np.unique(column):
        own, dtype, kind = column == j, rows.dtypes.iloc[j], dtype_of(rows, j)
        if j in categories:
            held = rows.iloc[:, j].astype(object).to_numpy(copy=True)
            held[slot[own]] = categories[j].at(value[own])
            held = pd.Series(held, dtype=object).astype(dtype)
        else:
            like = np.float32 if kind is np.float32 else np.float64
            held = rows.iloc[:, j].to_numpy(dtype=like, na_value=np.nan, copy=True)
            held[slot[own]] = value[own]
            if kind is int and (held == np.rint(held)).all():
                held = held.astype(getattr(dtype, "numpy_dtype", dtype))
        rows[rows.columns[j]] = held
    return rows


class Categories:
    """The values of a column of categories, and whether they have an order."""

    def __init__(self, values, ordered):
        self.values, self.ordered = list(values), ordered

    def at(self, codes):
        """Return the values at some positions; None where a position is missing."""
        return [None if code != code else self.values[int(code)] for code in codes]


class Cells:
    """The cells of one column; see :class:`Edges`.

    Attributes
    ----------
    segment : ndarray of int, shape (n_cells,)
        The segment that each is a part of.
    left : ndarray of bool, shape (n_nodes, n_cells)
        Which go left at each of the column's distinct nodes.
    """

    def __init__(self, low, high, value, segment, left):
        self.low, self.high, self.value = low, high, value
        self.segment, self.left = segment, left
        self.usable, self.missing = np.ones(len(value), dtype=bool), -1

    def with_missing(self, left):
        """Return the same with a last cell for what is missing."""
        low, high, value = (
            np.append(part, np.nan) for part in (self.low, self.high, self.value)
        )
        segment = np.append(self.segment, self.segment.max() + 1)
        cells = Cells(low, high, value, segment, np.append(self.left, left, axis=1))
        cells.missing = len(value) - 1
        return cells


_UNCUT = Cells(
    *(np.zeros(0),) * 2, np.full(1, np.nan), np.zeros(1, int), np.zeros((0, 1), bool)
)


def dtype_of(X, j):
    """Return np.float32, np.float64, int or (for what is no number) None of a column."""
    if not is_dataframe(X):
        if X.dtype.kind in "iub":
            return int
        return np.float32 if X.dtype == np.float32 else np.float64
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    dtype = X.dtypes.iloc[j]
    if not is_numeric_dtype(dtype) or is_bool_dtype(dtype):
        return None
    if is_integer_dtype(dtype):
        return int
    return np.float32 if str(dtype).lower() == "float32" else np.float64


def _range_of(X, j):
    """Return the least and the largest number that a column can hold."""
    if dtype_of(X, j) is int:
        dtype = X.dtypes.iloc[j] if is_dataframe(X) else X.dtype
        if dtype.kind == "b":
            return 0.0, 1.0
        limits = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
        return float(max(limits.min, -(2**53))), float(min(limits.max, 2**53))
    return -LARGEST, LARGEST


def _code_breaks(ensemble, features):
    """Return the breaks at the codes of which nodes on categories say more."""
    values = [np.zeros(0)] * len(features)
    nodes = np.flatnonzero((ensemble.feature >= 0) & (ensemble.category >= 0))
    for j in np.unique(ensemble.feature[nodes]):
        own = nodes[ensemble.feature[nodes] == j]
        sets = ensemble.bitsets[ensemble.category[own]]
        changes = np.flatnonzero((sets[:, 1:] != sets[:, :-1]).any(0)) + 1
        # Below -1 or 0, and beyond the last code, codes are unknown.
        values[j] = np.array([-1, 0, *changes, sets.shape[1]], dtype=np.float64)
    return Break(features, values, ensemble.compare)


def _distinct_nodes(ensemble, nodes):
    """Return nodes that differ in what they do, and which of them each node is like."""
    keys = np.stack(
        [
            ensemble.feature[nodes],
            ensemble.threshold[nodes],
            ensemble.category[nodes],
            ensemble.missing_left[nodes],
            ensemble.unknown_left[nodes],
        ],
        axis=1,
    )
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return nodes[first], inverse.ravel()


def _alike_side_by_side(left):
    """Return an order of categories in which those that go the same ways are neighbours.

    It follows the first principal component, so that sets of categories fall into few
    runs: there is one box of a leaf for each run.
    """
    away = left.T - left.mean(1)
    if not away.any():
        return np.arange(left.shape[1])
    u, s, _ = np.linalg.svd(away, full_matrices=False)
    return np.argsort(u[:, 0], kind="stable")


def count_up(sizes):
    """Return 0, 1, ... for each of some sizes, one after another."""
    return np.arange(int(np.sum(sizes))) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _key(value, single):
    """Map floats to integers of the same order, neighbours to neighbours."""
    keys = np.empty(len(value), dtype=np.int64)
    for dtype, size, at in (
        (np.float32, np.int32, single),
        (np.float64, np.int64, ~single),
    ):
        bits = value[at].astype(dtype).view(size)
        keys[at] = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(size).max)
    return keys


def _value(key, single):
    """Map the integers of :func:`_key` back."""
    values = np.empty(len(key))
    for dtype, size, at in (
        (np.float32, np.int32, single),
        (np.float64, np.int64, ~single),
    ):
        bits = key[at].astype(size)
        bits ^= (bits >> (8 * bits.itemsize - 1)) & np.iinfo(size).max
        values[at] = bits.view(dtype)
    return values
