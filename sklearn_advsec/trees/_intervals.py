"""What an ensemble may answer in a box: intervals go down the trees."""

import numpy as np
from sklearn import preprocessing

from ._steps import TinyAsZero

_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
# Prices that are tried, in units of what all trees together gain for all of the radius.
_PRICES = 2.0 ** np.arange(-4, 6)
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
        self._limit_leaves()
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

    def _limit_leaves(self):
        """Find the box of each leaf, column by column, as the nodes above it cut it."""
        leaf, at = (np.flatnonzero(self.ensemble.feature < 0) for _ in range(2))
        found = []
        while len(leaf):
            above = self.parent[at]
            leaf, at, above = leaf[above >= 0], at[above >= 0], above[above >= 0]
            left = self.ensemble.left[above] == at
            low = np.where(left, -np.inf, self.after[above])
            high = np.where(left, self.edge[above], np.inf)
            plain = ~self.by_set[above]
            parts = leaf, self.column[above], low, high
            found.append([part[plain] for part in parts])
            at = above
        leaf, column, low, high = (np.concatenate(p) for p in zip(*found, strict=True))
        order = np.lexsort((column, leaf))
        leaf, column, low, high = (p[order] for p in (leaf, column, low, high))
        new = (np.diff(leaf, prepend=-1) > 0) | (np.diff(column, prepend=-1) != 0)
        starts = np.flatnonzero(new)
        self.first_limit = np.searchsorted(leaf[starts], np.arange(len(self.column) + 1))
        self.limit_column = column[starts]
        self.limit = np.stack(
            [np.maximum.reduceat(low, starts), np.minimum.reduceat(high, starts)]
        )

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
            asked = ~closed & np.isfinite(radius) & (self.norm != "inf")
            if asked.any():
                strong = asked[box] & (lead >= need[box])
                pairs = box[strong], leaf[strong], own[strong]
                most = self._priced(x, low, high, np.where(asked, radius, 0.0), *pairs)
                closed |= asked & (base + most < need)
        return closed

    def _priced(self, x, low, high, radius, box, leaf, gain):
        """Bound what the trees gain together in each box, where costs add up.

        Each tree by itself may spend all that is left of the radius; together they may
        not. So leaves pay a price for what they cost, column by column, which is shared
        out among the trees that gain by it; what may be spent is worth that price. Any
        price gives a bound (weak duality).
        """
        n_boxes, n_columns = x.shape
        tree = box * self.ensemble.n_trees + self.tree[leaf]
        starts = np.flatnonzero(np.diff(tree, prepend=-1))
        tree, of = np.cumsum(np.diff(tree, prepend=-1) > 0) - 1, box[starts]
        # Of each leaf, the columns in which it is farther away than the box.
        size = np.diff(self.first_limit)[leaf]
        pair = np.repeat(np.arange(len(leaf)), size)
        at = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)
        at += np.repeat(self.first_limit[leaf], size)
        column, places = self.limit_column[at], (box[pair], self.limit_column[at])
        own, first, last = x[places], low[places], high[places]
        ends = np.maximum(first, self.limit[0, at]), np.minimum(last, self.limit[1, at])
        extra = self.gap(own, *ends, column) - self.gap(own, first, last, column)
        far = extra > 0
        pair, column, extra = pair[far], column[far], extra[far]
        # Of whole numbers of columns, one less than the radius is the most.
        left = radius * (1 + 1e-12) if self.norm == "1" else radius - 1
        left = np.maximum(left - self.distance(x, low, high), 0.0)
        best = np.maximum.reduceat(gain, starts)
        costs = np.bincount(pair, minlength=len(leaf)) > 0
        free = np.maximum.reduceat(np.where(costs, -np.inf, gain), starts)
        least = np.where(np.isfinite(free), free, np.minimum.reduceat(gain, starts))
        wish = np.maximum(gain - least[tree], 0.0)
        shares = np.zeros(len(starts) * n_columns)
        slot = tree[pair] * n_columns + column
        np.maximum.at(shares, slot, wish[pair])
        slots = np.flatnonzero(shares)
        total = of[slots // n_columns] * n_columns + slots % n_columns
        total = np.bincount(total, shares[slots], minlength=n_boxes * n_columns)
        total = total[box[pair] * n_columns + column]
        share = shares[slot] / np.where(total > 0, total, 1.0)
        # Shares have roundings: together they must be no more than 1.
        price = np.bincount(pair, share * extra * (1 - 1e-12), minlength=len(leaf))
        most = np.bincount(of, best, minlength=n_boxes)
        worth = np.bincount(of, best - least, minlength=n_boxes)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            worth = worth / left
        worth = np.where(np.isfinite(worth), worth, 0.0)
        for unit in worth * _PRICES[:, None]:
            paid = np.maximum.reduceat(gain - unit[box] * price, starts)
            total = unit * left + np.bincount(of, paid, minlength=n_boxes)
            most = np.where(unit > 0, np.minimum(most, total), most)
        return most


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
