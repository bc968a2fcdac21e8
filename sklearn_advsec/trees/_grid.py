"""Grid of the raw columns, cut at all thresholds, and the boxes of each leaf in it."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import ArrayLike

from .._rows import check_rows, is_dataframe
from ._edges import Edges, count_up, put_values
from ._ensemble import TreeEnsemble

# Columns whose cells would cut leaves into more boxes than this are not searched.
_MOST_BOXES = 2**16
# Nor those with so many pairs of a leaf and a cell.
_MOST_MARKS = 2**26


class TreeGrid:
    """The cells that an ensemble's thresholds cut the raw columns into.

    Cell k of a column lies between its edges k - 1 and k; of a column of categories, it
    is one of them. Inside a box of cells the ensemble is constant. A leaf has one box,
    or several where an encoder or a set of categories sends more than one range of a
    column there. Columns of categories are not cut unless their values are given: rows
    keep the values that they have there.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The ensemble.
    X : {ndarray, DataFrame} of shape (n_samples, n_columns)
        Gives the precision of each column, and the row on which steps are tried.
    min_step : float or ndarray of shape (n_columns,), default=0
        How far beyond a threshold values land where the next one is not nearer.
    categories, may_go_missing : optional
        See :class:`Edges`.

    Attributes
    ----------
    movable : ndarray of bool, shape (n_columns,)
        Which columns are cut.
    held : ndarray of bool, shape (n_columns,)
        Columns that could change, but would take too many boxes: they are held fixed.
        They are cut all the same, which tells how far a value is from the next cell.
    n_cells, first_cell : ndarray of int, shape (n_columns,)
        How many cells each column has, and where they begin.
    edge_column : ndarray of int, shape (n_edges,)
        Sorted; the column that an edge belongs to.
    low, high : ndarray of float, shape (n_edges,)
        The largest value below an edge, and the smallest one above.
    up, down : ndarray of float, shape (n_edges,)
        Where values land that cross it upwards or downwards.
    first_edge : ndarray of int, shape (n_columns + 1,)
        Where the edges of each column begin.
    value, missing, usable : ndarray
        See :class:`Edges`.
    may_go_missing : ndarray of bool, shape (n_columns,)
        As given; columns that have no cell for what is missing are left out.
    leaf_node, leaf_tree : ndarray of int, shape (n_boxes,)
        Node and tree of the leaf of each box, in the order of the nodes.
    entry_column, entry_low, entry_high : ndarray of int, shape (n_entries,)
        The boxes: in a column, the first and last cell. Columns that the leaf does not
        depend on have no entry.
    first_entry : ndarray of int, shape (n_boxes + 1,)
        Where the entries of each box begin.
    """

    def __init__(self, ensemble, X, min_step=0.0, categories=None, may_go_missing=None):
        edges = Edges(ensemble, X, categories, may_go_missing)
        self.ensemble = ensemble
        self.n_columns = X.shape[1]
        self.movable, self.held = edges.cut.copy(), edges.too_many.copy()
        self.n_cells, self.value = edges.n_cells, edges.value
        self.missing, self.usable = edges.missing, edges.usable
        self.low, self.high = edges.low, edges.high
        self.first_cell = np.cumsum(self.n_cells) - self.n_cells
        self.first_edge = np.append(0, np.cumsum(self.n_cells - 1))
        self.edge_column = np.repeat(np.arange(self.n_columns), self.n_cells - 1)
        self.categories, self._named = categories or {}, {}
        for j in self.categories:
            own = self.value[self.first_cell[j] :][: self.n_cells[j]]
            self._named[j] = np.argsort(own, kind="stable")  # what is missing comes last
        self.may_go_missing = self.missing >= 0
        self.may_go_missing &= may_go_missing if may_go_missing is not None else False
        self._land(np.broadcast_to(min_step, self.n_columns)[self.edge_column])
        self._find_boxes(edges)

    def around(self, reference):
        """Return the same grid for the moves of a regressor's prediction."""
        moved = copy(self)
        moved.ensemble = self.ensemble.around(reference)
        return moved

    def _land(self, step):
        same = self.edge_column[1:] == self.edge_column[:-1]
        size = len(self.low)
        above = np.append(np.where(same, self.low[1:], np.inf), np.inf)[:size]
        below = np.append(-np.inf, np.where(same, self.high[:-1], -np.inf))[:size]
        # An edge to what is missing has no number.
        above, below = np.nan_to_num(above, nan=np.inf), np.nan_to_num(below, nan=-np.inf)
        self.up = np.minimum(self.high + step, above)
        self.down = np.maximum(self.low - step, below)

    def _find_boxes(self, edges):
        ensemble = self.ensemble
        inner = np.flatnonzero(ensemble.feature >= 0)
        parent = np.full(len(ensemble.feature), -1)
        parent[ensemble.left[inner]] = parent[ensemble.right[inner]] = inner
        self.leaf_node = np.flatnonzero(ensemble.feature < 0)
        self.leaf_tree = _tree_of_nodes(ensemble)[self.leaf_node]
        leaves, nodes, lefts = [], [], []
        leaf, at = np.arange(len(self.leaf_node)), self.leaf_node
        while len(leaf):
            above = parent[at]
            leaf, at, above = leaf[above >= 0], at[above >= 0], above[above >= 0]
            leaves.append(leaf)
            nodes.append(above)
            lefts.append(ensemble.left[above] == at)
            at = above
        leaf, node, left = (np.concatenate(part) for part in (leaves, nodes, lefts))
        column = edges.node_column[node]
        runs = self._runs_of_split_columns(edges, leaf, node, left, column)
        box_leaf, chosen = self._choose_runs(runs)
        self._path_leaf, self._path_node, self._path_left = leaf, node, left
        self._path_column = column
        # Nodes that no change moves: a row's own features say where it goes there.
        self._path_fixed = ~self.movable[column] | self.held[column]
        self._path_split = edges.split[column] & ~self.held[column]
        # No number takes this side.
        plain = ~self._path_fixed & ~self._path_split
        last, end = edges.last_left[node], self.n_cells[column] - 1
        self._path_never = plain & np.where(left, last < 0, last == end)
        own = plain & (last >= 0) & (last < end)
        entries = self._plain_entries(leaf[own], column[own], last[own], left[own])
        self._join_entries(entries, box_leaf, chosen)
        self.is_split = edges.split & ~self.held
        self._box_leaf, self._n_leaves = box_leaf, len(self.leaf_node)
        self.leaf_node = self.leaf_node[box_leaf]
        self.leaf_tree = self.leaf_tree[box_leaf]

    def _plain_entries(self, leaf, column, last, left):
        """Return leaf, column, first and last cell, sorted, where these are one range."""
        key = leaf * self.n_columns + column
        order = np.argsort(key, kind="stable")
        key, last, left = key[order], last[order], left[order]
        begins = np.flatnonzero(np.diff(key, prepend=-1))
        end = self.n_cells[column[order]] - 1
        low, high = np.where(left, 0, last + 1), np.where(left, last, end)
        if len(begins):
            low = np.maximum.reduceat(low, begins)
            high = np.minimum.reduceat(high, begins)
        key = key[begins]
        return key // self.n_columns, key % self.n_columns, low, high

    def _runs_of_split_columns(self, edges, leaf, node, left, column):
        """Return, by split column, its leaves, and whose the runs of their cells are."""
        runs = {}
        for j in np.flatnonzero(edges.split):
            nodes, sides = edges.sides[j]
            at = np.flatnonzero(column == j)
            at = at[np.argsort(leaf[at], kind="stable")]
            begins = np.flatnonzero(np.diff(leaf[at], prepend=-1))
            if len(begins) * sides.shape[1] > _MOST_MARKS:
                self.held[j] = True
                continue
            same = sides[np.searchsorted(nodes, node[at])] == left[at, None]
            inside = np.logical_and.reduceat(same, begins, axis=0)
            usable = self.usable[self.first_cell[j] :][: self.n_cells[j]]
            runs[j] = leaf[at][begins], *_runs(inside, usable)
        return runs

    def _choose_runs(self, runs):
        """Make a box for each choice of one run in each split column of a leaf.

        Return the leaf of each box, and by column the runs: of boxes that have one, its
        first and last cell, and whether it is the leaf's first.
        """
        n_leaves = len(self.leaf_node)
        box_leaf, chosen = np.arange(n_leaves), {}
        for j in sorted(runs, key=lambda j: len(runs[j][1])):
            leaves, owner, low, high = runs[j]
            count, first = np.ones(n_leaves, dtype=np.int64), np.full(n_leaves, -1)
            count[leaves] = np.bincount(owner, minlength=len(leaves))
            first[leaves] = np.searchsorted(owner, np.arange(len(leaves)))
            size = count[box_leaf]
            if size.sum() > n_leaves + _MOST_BOXES:
                self.held[j] = True
                continue
            box = np.repeat(np.arange(len(box_leaf)), size)
            nth = count_up(size)
            chosen = {k: [part[box] for part in parts] for k, parts in chosen.items()}
            box_leaf = box_leaf[box]
            run = np.where(first[box_leaf] >= 0, first[box_leaf] + nth, -1)
            low, high = np.append(low, -1)[run], np.append(high, -1)[run]
            chosen[j] = [low, high, nth == 0]
        return box_leaf, chosen

    def _join_entries(self, entries, box_leaf, chosen):
        """Set the entries of all boxes, one box after another."""
        leaf, column, low, high = entries
        n_leaves = len(self.leaf_node)
        begins = np.searchsorted(leaf, np.arange(n_leaves + 1))
        sizes = np.diff(begins)[box_leaf]
        at = np.repeat(begins[box_leaf], sizes) + count_up(sizes)
        box = np.repeat(np.arange(len(box_leaf)), sizes)
        parts = [(box, column[at], low[at], high[at], np.ones(len(at), bool))]
        for j, (low, high, is_first) in chosen.items():
            own = np.flatnonzero(low >= 0)
            parts.append((own, np.full(len(own), j), low[own], high[own], is_first[own]))
        box, column, low, high, first = (
            np.concatenate(p) for p in zip(*parts, strict=True)
        )
        order = np.lexsort((column, box)) if chosen else slice(None)
        self.entry_column = column[order]
        self.entry_low, self.entry_high = low[order], high[order]
        self._entry_box, self._entry_first = box[order], first[order]
        self.first_entry = np.searchsorted(self._entry_box, np.arange(len(box_leaf) + 1))

    def cells(self, x):
        """Cell of each value of a row.

        Parameters
        ----------
        x : ndarray of float64, shape (n_columns,)
            The row; of columns of categories, their positions.

        Returns
        -------
        cells : ndarray of int, shape (n_columns,)
            -1 for what has no cell: unknown categories, and what is missing in columns
            that have no cell for it.
        """
        above = self.low < x[self.edge_column]
        cells = np.bincount(self.edge_column[above], minlength=self.n_columns)
        for j, order in self._named.items():
            known = 0 <= x[j] < len(order) - (self.missing[j] >= 0)
            cells[j] = order[int(x[j])] if known else -1
        lost = np.isnan(x)
        cells[lost] = self.missing[lost]
        return cells

    def holding(self, cells):
        """Return the boxes that hold a point, given by its cells."""
        own = cells[self.entry_column]
        apart = (own >= 0) & ((own < self.entry_low) | (own > self.entry_high))
        outside = self._of_leaves(self._path_never)
        outside[self._entry_box[apart]] = True
        return np.flatnonzero(~outside)

    def _of_leaves(self, path):
        """Which boxes belong to leaves with a node on their path for which it holds."""
        own = np.bincount(self._path_leaf[path], minlength=self._n_leaves) > 0
        return own[self._box_leaf]

    def sample(self, X, x, n, rng):
        """Return rows at the borders of cells, and the cells of each.

        Parameters
        ----------
        X : {ndarray, DataFrame} of shape (n_samples, n_columns)
            Rows, of which about a third of the columns are moved.
        x : ndarray of float64, shape (n_samples, n_columns)
            The same as numbers.
        n : int
            How many rows to return.
        rng : numpy.random.Generator

        Returns
        -------
        rows : {ndarray, DataFrame} of shape (n, n_columns)
        cells : ndarray of int, shape (n, n_columns)
            -1 as in :meth:`cells`.
        """
        at = rng.integers(len(X), size=n)
        rows = X.iloc[at] if is_dataframe(X) else X[at]
        cells = np.stack([self.cells(own) for own in x[at]])
        free = self.movable & ~self.held & (cells >= 0) & (cells != self.missing)
        slot, column = np.nonzero(free & (rng.random(cells.shape) < 1 / 3))
        cell = rng.integers(self.n_cells[column])
        edge, last = self.first_edge[column] + cell, cell == self.n_cells[column] - 1
        # Values are at the lower end of a cell, or at the upper one,
        lower = np.where(cell == 0, np.nan, np.append(np.nan, self.high)[edge])
        upper = np.where(last, np.nan, np.append(self.low, np.nan)[edge])
        first = (rng.random(len(cell)) < 0.5) & ~np.isnan(lower)
        value = np.where(first | np.isnan(upper), lower, upper)
        value[np.isin(column, list(self.categories))] = np.nan
        one = self.value[self.first_cell[column] + cell]
        value = np.where(np.isnan(value), one, value)
        lost = (cell == self.missing[column]) & self.may_go_missing[column]
        fine = self.usable[self.first_cell[column] + cell] & ~np.isnan(value)
        # or those of another row.
        other = rng.permutation(len(x))[: max(1, n)]
        at = rng.integers(len(other), size=len(cell))
        theirs = np.stack([self.cells(own) for own in x[other]])[at, column]
        known = (theirs >= 0) & (theirs != self.missing[column])
        take = known & ((rng.random(len(cell)) < 0.3) | ~fine) & ~lost
        value = np.where(lost, np.nan, np.where(take, x[other][at, column], value))
        cell = np.where(take, theirs, cell)
        keep = fine | take | lost
        slot, column, value, cell = slot[keep], column[keep], value[keep], cell[keep]
        cells[slot, column] = cell
        return put_values(rows, column, slot, value, self.categories), cells

    def blocked(self, row, frozen, cells):
        """Boxes that a row cannot reach, whatever it changes in the other columns.

        Parameters
        ----------
        row : {ndarray, DataFrame} of shape (1, n_columns)
            The row as the estimator takes it.
        frozen : ndarray of bool, shape (n_columns,)
            Columns that keep their value.
        cells : ndarray of int, shape (n_columns,)
            The row's own cells.

        Returns
        -------
        blocked : ndarray of bool, shape (n_boxes,)
        """
        told = frozen & (~self.is_split | (cells < 0))  # by the features
        kept = self._path_fixed | told[self._path_column]
        wrong = self._path_never & ~kept
        at = np.flatnonzero(kept)
        if len(at):
            node, features = self._path_node[at], self.ensemble.transform(row)[0]
            left = self.ensemble.goes_left(node, features[self.ensemble.feature[node]])
            wrong[at] = left != self._path_left[at]
        blocked = self._of_leaves(wrong)
        if self.is_split.any():
            # Of the boxes of a leaf, one holds the row in the columns that it keeps.
            column = self.entry_column
            own = cells[column]
            apart = (own < self.entry_low) | (own > self.entry_high)
            apart = np.where(own < 0, ~self._entry_first, apart)
            apart &= (frozen & self.is_split)[column]
            blocked[self._entry_box[apart]] = True
        return blocked


def _runs(inside, usable):
    """Return the runs of cells in each line: line, first and last cell.

    Cells that hold no value belong to any run, but are none by themselves.
    """
    kept = np.flatnonzero(usable)
    padded = np.pad(inside[:, kept], ((0, 0), (1, 1))).astype(np.int8)
    step = np.diff(padded, axis=1)
    line, first = np.nonzero(step > 0)
    last = np.nonzero(step < 0)[1] - 1
    return line, kept[first], kept[last]


def _tree_of_nodes(ensemble):
    """Return the tree of each node; a tree's nodes follow its root."""
    tree = np.zeros(len(ensemble.feature), dtype=np.int64)
    tree[ensemble.roots] = 1
    return np.cumsum(tree) - 1


def leaf_boxes(
    ensemble: TreeEnsemble, X: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of the leaves in the raw columns.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The ensemble, of raw columns of numbers.
    X : {array-like, DataFrame} of shape (n_samples, n_columns)
        Rows of the kind that the estimator takes; they give the precision.

    Returns
    -------
    nodes : ndarray of int, shape (n_boxes,)
        The leaf of each box, as a position in the arrays of nodes. Behind encoders, and
        where nodes ask for sets of categories, a leaf may have several boxes.
    lower, upper : ndarray of shape (n_boxes, n_columns)
        The smallest and the largest value of each box, infinite where there is none.
        Columns that hold categories are infinite on both sides.

    Raises
    ------
    ValueError
        If rows have other columns than those of `fit`, or a column is cut into too many
        cells for its boxes to be listed.

    See Also
    --------
    tree_ensemble : Reads the trees of a model.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.trees import leaf_boxes, tree_ensemble
    >>> X = np.array([[0.0], [1.0]])
    >>> tree = DecisionTreeClassifier().fit(X, [0, 1])
    >>> nodes, lower, upper = leaf_boxes(tree_ensemble(tree), X)
    >>> upper.round(3).tolist()
    [[0.5], [inf]]
    """
    if not isinstance(ensemble, TreeEnsemble):
        raise TypeError(
            "ensemble must be a TreeEnsemble, as tree_ensemble(estimator) makes it; got "
            f"{ensemble!r}."
        )
    X = check_rows(X, "leaf_boxes", allow_nan=True)
    ensemble.check(X)
    grid = TreeGrid(ensemble, X)
    if grid.held.any():
        raise ValueError(
            f"The columns {np.flatnonzero(grid.held).tolist()} are cut into too many "
            "cells for the boxes of leaves to be listed."
        )
    n_boxes = len(grid.leaf_node)
    lower = np.full((n_boxes, grid.n_columns), -np.inf)
    upper = np.full((n_boxes, grid.n_columns), np.inf)
    box = np.repeat(np.arange(n_boxes), np.diff(grid.first_entry))
    column, first = grid.entry_column, grid.first_edge[grid.entry_column]
    has = grid.entry_low > 0
    lower[box[has], column[has]] = grid.high[(first + grid.entry_low - 1)[has]]
    has = grid.entry_high < grid.n_cells[column] - 1
    upper[box[has], column[has]] = grid.low[(first + grid.entry_high)[has]]
    # What lies beyond the last number is the cell for what is missing.
    numbers = ~np.isnan(lower).any(1)
    upper[np.isnan(upper)] = np.inf
    return grid.leaf_node[numbers], lower[numbers], upper[numbers]
