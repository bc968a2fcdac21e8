"""What an ensemble may answer in a box: intervals go down the trees."""

import numpy as np
from sklearn import preprocessing

from ._bounds import priced_gain
from ._steps import TinyAsZero

_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
_MONOTONE = {getattr(preprocessing, name) for name in _SCALERS} | {TinyAsZero}


class IntervalTrees:
    """The nodes of an ensemble in raw columns, and the leaves that boxes can reach.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The trees, behind no steps but scalers.
    norm : {"inf", "1", "0"}
        The norm of distances.
    whole, nominal : ndarray of bool, shape (n_columns,)
        Columns that hold whole numbers only, and those in which any change is one of 1.
    scale : ndarray of float, shape (n_columns,)
        What is a change of 1 in all others.
    """

    def __init__(self, ensemble, norm, whole, nominal, scale):
        if any(type(step) not in _MONOTONE for step in ensemble.steps):
            raise ValueError("the model has steps that are no scalers")
        self.ensemble, self.norm = ensemble, norm
        self.scale, self.unit = scale, nominal | (norm == "0")
        self.column = np.maximum(ensemble.feature, 0)
        self.by_set = ensemble.category >= 0
        self.tree = np.zeros(len(self.column), dtype=np.int64)
        self.tree[ensemble.roots] = 1
        self.tree = np.cumsum(self.tree) - 1
        inner = np.flatnonzero(ensemble.feature >= 0)
        # The last value of its column that a node sends to the left, and the next one.
        self.edge, self.after = self._edges(inner[~self.by_set[inner]], whole)
        self._narrow(inner)
        largest = np.zeros(ensemble.n_trees)
        np.maximum.at(largest, self.tree, np.abs(ensemble.value).max(1))
        self._rounding = 16 * (ensemble.n_trees + 2) * np.finfo(np.float64).eps
        self._size = largest.sum()

    def _edges(self, nodes, whole):
        """Bisect the floats themselves, which the scalers keep in order."""
        ensemble, column = self.ensemble, self.column[nodes]
        slot = np.zeros(len(nodes), dtype=np.int64)
        for j in np.unique(column):
            slot[column == j] = np.arange((column == j).sum())
        shape = (slot.max(initial=0) + 1, len(whole))
        ends = np.full(len(nodes), np.finfo(np.float64).max)
        low, high = _key(-ends), _key(ends)
        for _ in range(64):
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            rows = np.zeros(shape)
            rows[slot, column] = _value(middle)
            with np.errstate(all="ignore"):
                seen = ensemble.transform(as_rows(rows, ensemble.column_names))
            left = ensemble.goes_left(nodes, seen[slot, column])
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        edge, after = np.full((2, len(self.column)), np.nan)
        edge[nodes] = np.where(whole[column], np.floor(_value(low)), _value(low))
        after[nodes] = np.where(whole[column], edge[nodes] + 1, _value(high))
        return edge, after

    def _narrow(self, inner):
        """Find what the nodes above each one leave of its own column."""
        ensemble, parent = self.ensemble, np.full(len(self.column), -1)
        parent[ensemble.left[inner]] = parent[ensemble.right[inner]] = inner
        self.parent = parent
        self.low = np.full(len(parent), -np.inf)
        self.high, node, at = -self.low, inner, inner
        while len(node):
            above = parent[at]
            node, at, above = node[above >= 0], at[above >= 0], above[above >= 0]
            same = (self.column[above] == self.column[node]) & ~self.by_set[above]
            left = ensemble.left[above] == at
            own, edge = node[same & left], self.edge[above[same & left]]
            self.high[own] = np.minimum(self.high[own], edge)
            own, edge = node[same & ~left], self.after[above[same & ~left]]
            self.low[own] = np.maximum(self.low[own], edge)
            at = above

    def gap(self, x, low, high, column):
        """How far values are from intervals of their columns; what is missing stays."""
        away = np.nan_to_num(np.maximum(low - x, x - high), posinf=np.inf)
        moved = np.maximum(away, 0.0) / self.scale[column]
        return np.where(self.unit[column], away > 0, moved)

    def distance(self, x, low, high):
        """How far rows are from boxes, each of shape (n_boxes, n_columns)."""
        away = self.gap(x, low, high, np.arange(x.shape[1]))
        return away.max(1, initial=0.0) if self.norm == "inf" else away.sum(1)

    def ball(self, x, lower, upper, radius):
        """Return the box around all rows in a range that are nearer than a radius."""
        with np.errstate(invalid="ignore"):  # of missing values
            reach = radius * self.scale * (1 + 1e-15)  # products have roundings
            reach = np.where(self.unit, np.inf if radius > 1 else 0, reach)
            return np.maximum(lower, x - reach), np.minimum(upper, x + reach)

    def reach(self, x, low, high, radius):
        """Return box and leaf of all leaves that may be reached in boxes.

        Parameters
        ----------
        x, low, high : ndarray of shape (n_boxes, n_columns)
            The row of each box, and its ends; x is NaN where a value stays missing.
        radius : ndarray of shape (n_boxes,)
            Only what is nearer to the row counts.
        """
        ensemble, n_trees = self.ensemble, self.ensemble.n_trees
        box = np.repeat(np.arange(len(x)), n_trees)
        node = np.tile(ensemble.roots, len(x))
        adds_up = self.norm != "inf"
        cost = np.zeros(len(box))
        if adds_up:
            cost = np.repeat(self.distance(x, low, high), n_trees)
        most = radius * (1 + 1e-12) if self.norm == "1" else radius - 0.5
        found = []
        while len(box):
            leaf = ensemble.feature[node] < 0
            found.append((box[leaf], node[leaf]))
            box, node, cost = box[~leaf], node[~leaf], cost[~leaf]
            column, by_set = self.column[node], self.by_set[node]
            own = x[box, column]
            first = np.maximum(low[box, column], self.low[node])
            last = np.minimum(high[box, column], self.high[node])
            here = self.gap(own, first, last, column) if adds_up else 0.0
            # One value is known to go one way; so does what is missing.
            known = np.isnan(own) | (by_set & (first == last) & (not ensemble.steps))
            way = ensemble.goes_left(node, np.where(np.isnan(own), own, first))
            sides = []
            for is_left in (True, False):
                end, begin = last, first
                if is_left:
                    end = np.where(by_set, last, np.minimum(last, self.edge[node]))
                else:
                    begin = np.where(by_set, first, np.maximum(first, self.after[node]))
                keep, total = np.where(known, way == is_left, begin <= end), cost
                if adds_up:
                    total = cost - here + self.gap(own, begin, end, column)
                    keep &= total <= most[box]
                child = ensemble.left if is_left else ensemble.right
                sides.append((box[keep], child[node[keep]], total[keep]))
            box, node, cost = (np.concatenate(p) for p in zip(*sides, strict=True))
        box, leaf = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(box * n_trees + self.tree[leaf], kind="stable")
        return box[order], leaf[order]

    @staticmethod
    def questions(ensemble, target, rivals):
        """Return what :meth:`closed` asks: whether a class gets ahead of some others."""
        found = []
        for rival in rivals:
            gain, base = ensemble.gains(target, rival)
            _, least = ensemble.needed(target, rival)
            found.append((gain, base, least, ensemble.half(target, rival)))
        return found

    def closed(self, x, low, high, radius, questions):
        """Which boxes hold no row that puts a class ahead of others.

        Parameters
        ----------
        x, low, high, radius : ndarray
            As of :meth:`reach`.
        questions : list of (ndarray, float, float, float)
            For each class that has to be left behind: the gain of each node, and of the
            base, the least gain that may be enough, and what sums of whole numbers have
            to be above.
        """
        box, leaf = self.reach(x, low, high, radius)
        key = box * self.ensemble.n_trees + self.tree[leaf]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        group = np.cumsum(np.diff(key, prepend=-1) > 0) - 1
        of, n_boxes = box[starts], len(x)
        # A tree without a leaf says that there is no such row at all.
        closed = np.bincount(of, minlength=n_boxes) < self.ensemble.n_trees
        closed |= (low > high).any(1)
        if not len(leaf):
            return closed
        whole = self.ensemble.whole & (self.ensemble.link != "regression")
        for gain, base, least, half in questions:
            own = gain[leaf]
            best = np.maximum.reduceat(own, starts)
            top = base + np.bincount(of, best, minlength=n_boxes)
            least = least - self._rounding * (2 * self._size + np.abs(base))
            closed |= top < least
            # Of whole numbers, sums are exact; the other leaves must not be enough.
            lead = top[box] - best[group] + own
            odd = np.bincount(box, ~whole[leaf] & (lead >= least), minlength=n_boxes)
            need = np.where(odd == 0, max(least, half), least)
            closed |= top < need
            if self.norm == "inf":
                continue
            strong = lead >= need[box]
            for b in np.flatnonzero(~closed & np.isfinite(radius)):
                begin, end = np.searchsorted(box, (b, b + 1))
                at = begin + np.flatnonzero(strong[begin:end])
                most = self._priced(x[b], low[b], high[b], radius[b], leaf[at], own[at])
                closed[b] = base + most < need[b]
        return closed

    def _priced(self, x, low, high, radius, leaf, gain):
        """Bound what leaves gain together within a radius, where costs add up."""
        ensemble, moving = self.ensemble, ~np.isnan(x)
        first, last = np.tile(low, (len(leaf), 1)), np.tile(high, (len(leaf), 1))
        slot, at = np.arange(len(leaf)), leaf
        while len(slot):
            above = self.parent[at]
            slot, at, above = slot[above >= 0], at[above >= 0], above[above >= 0]
            left, plain = ensemble.left[above] == at, ~self.by_set[above]
            for use, ends, edge, narrower in (
                (left & plain, last, self.edge, np.minimum),
                (~left & plain, first, self.after, np.maximum),
            ):
                own = slot[use], self.column[above[use]]
                ends[own] = narrower(ends[own], edge[above[use]])
            at = above
        away = np.maximum(np.maximum(first - x, x - last), 0.0)[:, moving]
        here = np.maximum(np.maximum(low - x, x - high), 0.0)[moving]
        unit, scale = self.unit[moving], self.scale[moving]
        away, here = (np.where(unit, part > 0, part / scale) for part in (away, here))
        # Of whole numbers of columns, one less than the radius is the most.
        left = radius * (1 + 1e-12) if self.norm == "1" else radius - 1
        tree = np.cumsum(np.diff(self.tree[leaf], prepend=-1) > 0) - 1
        extra = np.maximum(away - here, 0.0)
        return priced_gain(gain, tree, extra, max(left - here.sum(), 0.0))


def as_rows(values, names):
    """Return numbers as a model takes them: with the names of its columns, if any."""
    if names is None:
        return values
    import pandas as pd

    return pd.DataFrame(values, columns=list(names))


def _key(value):
    """Map floats to integers of the same order, neighbours to neighbours."""
    bits = value.view(np.int64)
    return bits ^ ((bits >> 63) & np.iinfo(np.int64).max)


def _value(key):
    return (key ^ ((key >> 63) & np.iinfo(np.int64).max)).view(np.float64)
