"""Grid of the raw columns, cut at all thresholds, with the box of cells of each leaf."""

import numpy as np

from .._rows import check_rows
from ._edges import Edges


class TreeGrid:
    """The cells that an ensemble's thresholds cut the raw columns into.

    Cell k of a column lies between its edges k - 1 and k. Inside a box of cells the
    ensemble is constant. Columns that hold categories, or whose features do not grow with
    them, are not cut: rows keep the values that they have there.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The ensemble.
    X : {ndarray, DataFrame} of shape (n_samples, n_columns)
        Gives the precision of each column, and the row on which steps are tried.
    min_step : float or ndarray of shape (n_columns,), default=0
        How far beyond a threshold values land where the next one is not nearer.

    Attributes
    ----------
    movable : ndarray of bool, shape (n_columns,)
        Which columns are cut.
    edge_column : ndarray of int, shape (n_edges,)
        Sorted; the column that an edge belongs to.
    low, high : ndarray of float, shape (n_edges,)
        The largest value below an edge, and the smallest one above.
    up, down : ndarray of float, shape (n_edges,)
        Where values land that cross it upwards or downwards.
    first_edge : ndarray of int, shape (n_columns + 1,)
        Where the edges of each column begin.
    leaf_node, leaf_tree : ndarray of int, shape (n_leaves,)
        Node and tree of each leaf, in the order of the nodes.
    entry_column, entry_low, entry_high : ndarray of int, shape (n_entries,)
        The box of each leaf: in a column, the first and last cell that lead to it.
        Columns that the leaf does not depend on have no entry.
    first_entry : ndarray of int, shape (n_leaves + 1,)
        Where the entries of each leaf begin.
    """

    def __init__(self, ensemble, X, min_step=0.0):
        edges = Edges(ensemble, X)
        self.ensemble = ensemble
        self.n_columns = X.shape[1]
        self.movable = edges.movable
        cut = np.isfinite(edges.low)
        keys = np.stack([edges.column[cut], edges.low[cut]], axis=1)
        _, first, inverse = np.unique(
            keys, axis=0, return_index=True, return_inverse=True
        )
        self.edge_column = edges.column[cut][first]
        self.low, self.high = edges.low[cut][first], edges.high[cut][first]
        self.first_edge = np.searchsorted(self.edge_column, np.arange(self.n_columns + 1))
        step = np.broadcast_to(min_step, self.n_columns)[self.edge_column]
        same = self.edge_column[1:] == self.edge_column[:-1]
        above = np.append(np.where(same, self.low[1:], np.inf), np.inf)[: len(first)]
        below = np.append(-np.inf, np.where(same, self.high[:-1], -np.inf))[: len(first)]
        self.up = np.minimum(self.high + step, above)
        self.down = np.maximum(self.low - step, below)
        edge = np.full(len(cut), -1)
        edge[cut] = inverse
        self._find_paths(ensemble, edges, edge)

    def _find_paths(self, ensemble, edges, edge):
        n_nodes = len(ensemble.feature)
        inner = np.flatnonzero(ensemble.feature >= 0)
        parent = np.full(n_nodes, -1)
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
        self._path_leaf, self._path_node, self._path_left = leaf, node, left
        self._path_column = edges.column[node]
        # Nodes that no change moves: a row's own features say where it goes there.
        self._path_fixed = np.isnan(edges.low[node])
        # No number takes this side.
        self._path_never = np.where(
            left, edges.low[node] == -np.inf, edges.low[node] == np.inf
        )
        numeric = edge[node] >= 0
        leaf, node, left = leaf[numeric], node[numeric], left[numeric]
        column = edges.column[node]
        cell = edge[node] - self.first_edge[column]
        key = leaf * self.n_columns + column
        order = np.argsort(key, kind="stable")
        key, cell, left = key[order], cell[order], left[order]
        begins = np.flatnonzero(np.diff(key, prepend=-1))
        n_cells = np.diff(self.first_edge)[column[order]]
        low, high = np.where(left, 0, cell + 1), np.where(left, cell, n_cells)
        if len(begins):
            low, high = (
                np.maximum.reduceat(low, begins),
                np.minimum.reduceat(high, begins),
            )
        self.entry_column = key[begins] % self.n_columns
        self.entry_low, self.entry_high = low, high
        self.first_entry = np.searchsorted(
            key[begins] // self.n_columns, np.arange(len(self.leaf_node) + 1)
        )

    def cells(self, x):
        """Cell of each value of a row.

        Parameters
        ----------
        x : ndarray of float64, shape (n_columns,)
            The row.

        Returns
        -------
        cells : ndarray of int, shape (n_columns,)
        """
        above = self.low < x[self.edge_column]
        return np.bincount(self.edge_column[above], minlength=self.n_columns)

    def blocked(self, row, frozen):
        """Leaves that a row cannot reach, whatever it changes in the other columns.

        Parameters
        ----------
        row : {ndarray, DataFrame} of shape (1, n_columns)
            The row as the estimator takes it.
        frozen : ndarray of bool, shape (n_columns,)
            Columns that keep their value.

        Returns
        -------
        blocked : ndarray of bool, shape (n_leaves,)
        """
        kept = self._path_fixed | frozen[self._path_column]
        wrong = self._path_never & ~kept
        at = np.flatnonzero(kept)
        if len(at):
            node, features = self._path_node[at], self.ensemble.transform(row)[0]
            left = self.ensemble.goes_left(node, features[self.ensemble.feature[node]])
            wrong[at] = left != self._path_left[at]
        return np.bincount(self._path_leaf[wrong], minlength=len(self.leaf_node)) > 0


def _tree_of_nodes(ensemble):
    """Return the tree of each node; a tree's nodes follow its root."""
    tree = np.zeros(len(ensemble.feature), dtype=np.int64)
    tree[ensemble.roots] = 1
    return np.cumsum(tree) - 1


def leaf_boxes(ensemble, X):
    """Boxes of the leaves in the raw columns.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The ensemble, of raw columns of numbers.
    X : {array-like, DataFrame} of shape (n_samples, n_columns)
        Rows of the kind that the estimator takes; they give the precision.

    Returns
    -------
    nodes : ndarray of int, shape (n_leaves,)
        The leaves, as positions in the arrays of nodes.
    lower, upper : ndarray of shape (n_leaves, n_columns)
        The smallest and the largest value that lead to each leaf, infinite where there
        is none. Columns that hold categories are infinite on both sides.

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
    X = check_rows(X, "leaf_boxes", allow_nan=True)
    grid = TreeGrid(ensemble, X)
    n_leaves = len(grid.leaf_node)
    lower = np.full((n_leaves, grid.n_columns), -np.inf)
    upper = np.full((n_leaves, grid.n_columns), np.inf)
    leaf = np.repeat(np.arange(n_leaves), np.diff(grid.first_entry))
    column, first = grid.entry_column, grid.first_edge[grid.entry_column]
    has = grid.entry_low > 0
    lower[leaf[has], column[has]] = grid.high[(first + grid.entry_low - 1)[has]]
    has = grid.entry_high < np.diff(grid.first_edge)[column]
    upper[leaf[has], column[has]] = grid.low[(first + grid.entry_high)[has]]
    return grid.leaf_node, lower, upper
