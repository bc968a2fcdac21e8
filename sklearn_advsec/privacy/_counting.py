"""What the counts in the leaves of a forest prove about its training rows.

Every tree of a forest that does not draw (``bootstrap=False``) sorts *all* training rows,
and says how many of each class came to each leaf. Together, these counts are a system of
equations over the table of rows; whatever holds for all its solutions is proved.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.sparse import csc_array
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted

from .._estimators import name_of, unwrap
from .._rows import check_rows, is_dataframe, plain_rows
from .._sklearn import HasMethods, Interval, validate_params
from ._records import Records

_FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
_TREES = (DecisionTreeClassifier, ExtraTreeClassifier)
# Shares of float64 times counts below 2**31 are whole to this.
_WHOLE = 1e-5
# Points of a single leaf that are looked at, where the whole domain is too large.
_LEAF_POINTS = 4096
# A bound of the solver's multipliers counts where rounding cannot undo it.
_MARGIN = 1e-6
_PAIRS = 2**24


class LeafCounts:
    """The counts in the leaves of a forest of scikit-learn, checked.

    Parameters
    ----------
    estimator : estimator
        A fitted tree or forest.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Its classes.
    trees : list of Tree
        Its trees.
    counts : list of ndarray of int, shape (n_nodes, n_classes)
        How many rows (of a bag: draws) of each class came to each node of each tree.
    bags : ndarray of int, shape (n_trees, n_rows), or None
        How often each tree drew each training row; None where all have all rows.
    n_rows : int
        Number of training rows.

    Raises
    ------
    TypeError
        If it is no forest whose counts can be read.
    ValueError
        If its counts are none: classes or rows had weights.
    """

    def __init__(self, estimator):
        model = unwrap(estimator)
        name = name_of(estimator)
        if type(model) not in (*_FORESTS, *_TREES):
            raise TypeError(
                f"estimator: {name} has no counts that are read here; it takes a "
                f"{', '.join(cls.__name__ for cls in (*_TREES, *_FORESTS))}, without a "
                "pipeline around it."
            )
        check_is_fitted(model)
        if getattr(model, "warm_start", False):
            raise ValueError(
                f"estimator: {name} has warm_start=True, so its trees may be of several "
                "tables, which their counts need not show. If all were grown on one, set "
                "warm_start=False."
            )
        if model.n_outputs_ != 1:
            raise ValueError(f"estimator: {name} has several outputs.")
        if model.class_weight is not None or model.monotonic_cst is not None:
            raise ValueError(
                f"estimator: {name} has class_weight or monotonic_cst; what its leaves "
                "hold is no count of rows."
            )
        self.classes = np.asarray(model.classes_)
        forest = type(model) in _FORESTS
        self.trees = [t.tree_ for t in model.estimators_] if forest else [model.tree_]
        self.bags = None
        self.counts = [self._counts_of(tree, name) for tree in self.trees]
        self.n_features = model.n_features_in_
        if forest and model.bootstrap:
            self.bags = self._read_bags(model, name)
            self.n_rows = self.bags.shape[1]
            return
        roots = np.array([counts[0] for counts in self.counts])
        unweighted = all(
            np.array_equal(tree.n_node_samples, tree.weighted_n_node_samples)
            for tree in self.trees
        )
        if not unweighted or (roots != roots[0]).any():
            raise ValueError(f"estimator: the training rows of {name} had weights.")
        self.n_rows = int(roots[0].sum())

    def _counts_of(self, tree, name):
        shares = tree.value[:, 0, :] * tree.weighted_n_node_samples[:, np.newaxis]
        counts = np.rint(shares)
        whole = np.abs(shares - counts).max() <= _WHOLE
        inner = np.flatnonzero(tree.children_left >= 0)
        left, right = tree.children_left[inner], tree.children_right[inner]
        if not whole or (counts[inner] != counts[left] + counts[right]).any():
            raise ValueError(
                f"estimator: the leaves of {name} hold no counts; its rows had weights."
            )
        return counts.astype(np.int64)

    def _read_bags(self, model, name):
        """Draw the bags again from the seeds of the trees; the roots check them."""
        drawn = [np.asarray(rows) for rows in model.estimators_samples_]
        n_rows = int(model._n_samples)
        bags = np.stack([np.bincount(rows, minlength=n_rows) for rows in drawn])
        n_different = [int(tree.n_node_samples[0]) for tree in self.trees]
        n_drawn = [int(counts[0].sum()) for counts in self.counts]
        if ((bags > 0).sum(1) != n_different).any() or (bags.sum(1) != n_drawn).any():
            raise ValueError(
                f"estimator: the bags of {name} cannot be drawn again: its trees were "
                "grown on other numbers of rows than their seeds say."
            )
        return bags

    def leaves(self, tree, features):
        """Return the leaf of each row of float32 features in a tree."""
        return self.trees[tree].apply(features)

    def possible(self, features, codes):
        """Tell where the counts allow a training row of these features and this class."""
        own = np.empty((len(features), len(self.trees)), dtype=np.int64)
        for t in range(len(self.trees)):
            own[:, t] = self.counts[t][self.leaves(t, features), codes]
        if self.bags is None:
            return (own > 0).all(axis=1)
        return self.room(own).any(axis=1)

    def room(self, own):
        """Tell which training rows a row may be, by its counts in the trees.

        A tree that drew a training row k times has k or more in that row's leaf.
        """
        fits = np.ones((len(own), self.n_rows), dtype=bool)
        for t in range(len(self.trees)):
            fits &= self.bags[t][np.newaxis] <= own[:, t, np.newaxis]
        return fits

    def boxes(self, tree, domain):
        """Return which values of the domain reach each node: two arrays of positions."""
        tree = self.trees[tree]
        low = np.zeros((tree.node_count, len(domain)), dtype=np.int64)
        high = np.tile([len(values) for values in domain], (tree.node_count, 1))
        for node in np.flatnonzero(tree.children_left >= 0):
            left, right = tree.children_left[node], tree.children_right[node]
            j = tree.feature[node]
            seen = domain[j].astype(np.float32).astype(np.float64)
            cut = int(np.searchsorted(seen, tree.threshold[node], side="right"))
            low[[left, right]], high[[left, right]] = low[node], high[node]
            high[left, j] = min(high[left, j], cut)
            low[right, j] = max(low[right, j], cut)
        return low, np.maximum(high, low)


class CountSystem:
    """The points of a domain at which training rows may be, and the counts they make.

    Points of one class that no tree tells apart are one *cell*.

    Parameters
    ----------
    leaf_counts : LeafCounts
        The counts.
    domain : list of ndarray
        The values of each column.

    Attributes
    ----------
    points : ndarray of float, shape (n_cells, n_features)
        A point of each cell, the middle one.
    codes : ndarray of int, shape (n_cells,)
        Its class.
    size : ndarray of int, shape (n_cells,)
        Number of points in it.
    leaf : ndarray of int, shape (n_cells, n_trees)
        The equation that it is part of, of each tree.
    total : ndarray of int, shape (n_equations,)
        The counts.
    lower, upper : ndarray of int, shape (n_cells,)
        Bounds of the number of training rows in it.
    """

    def __init__(self, leaf_counts, domain):
        self._counts, self._domain = leaf_counts, domain
        points = grid(domain)
        parts = []
        for code in range(len(leaf_counts.classes)):
            alive = np.arange(len(points))
            own = []
            for t in range(len(leaf_counts.trees)):
                leaves = leaf_counts.leaves(t, points[alive].astype(np.float32))
                some = leaf_counts.counts[t][leaves, code] > 0
                if leaf_counts.bags is None:
                    alive, leaves = alive[some], leaves[some]
                    own = [column[some] for column in own]
                own.append(leaves)
            parts.append((code, alive, np.stack(own, axis=1)))
        codes = np.concatenate([np.full(len(alive), code) for code, alive, _ in parts])
        alive = np.concatenate([alive for _, alive, _ in parts])
        leaves = np.concatenate([leaves for _, _, leaves in parts])
        # Equations by tree, leaf and class, numbered in one line.
        n_classes = len(leaf_counts.classes)
        sizes = np.array([len(counts) for counts in leaf_counts.counts]) * n_classes
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        wide = starts + leaves * n_classes + codes[:, np.newaxis]
        wide, first, cell, self.size = np.unique(
            wide, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        cell = cell.ravel()
        self.codes = codes[first]
        self.points = points[alive[_middles(cell, self.size)]]
        used, self.leaf = np.unique(wide, return_inverse=True)
        self.leaf = self.leaf.reshape(wide.shape)
        self.total = np.concatenate([c.ravel() for c in leaf_counts.counts])[used]
        self._wide = {tuple(row): i for i, row in enumerate(wide.tolist())}
        self._starts, self._n_classes = starts, n_classes
        self._check(used)
        if leaf_counts.bags is None:
            self.lower = np.zeros(len(self.codes), dtype=np.int64)
            self.upper = self.total[self.leaf].min(axis=1)
            self.propagate()
        else:
            self._bound_by_bags()

    def _check(self, used):
        """Raise where a leaf has rows, and the domain no point for them."""
        expected = []
        for start, tree, counts in zip(
            self._starts, self._counts.trees, self._counts.counts, strict=True
        ):
            leaf = np.flatnonzero(tree.children_left < 0)
            node, code = np.nonzero(counts[leaf])
            expected.append(start + leaf[node] * self._n_classes + code)
        if not np.isin(np.concatenate(expected), used).all():
            raise_contradiction()

    def cell_of(self, features, codes):
        """Return the cell of each row; -1 for rows that the counts exclude."""
        columns = [
            self._counts.leaves(t, features) for t in range(len(self._counts.trees))
        ]
        wide = self._starts + np.stack(columns, axis=1) * self._n_classes
        wide = wide + codes[:, np.newaxis]
        return np.array([self._wide.get(tuple(row), -1) for row in wide.tolist()])

    def propagate(self, rounds=50):
        """Tighten the bounds: what is left of a count is for the others in its leaf."""
        shape = self.leaf.shape
        for _ in range(rounds):
            before = int(self.upper.sum() - self.lower.sum())
            for bound in ("lower", "upper"):
                other = self.upper if bound == "lower" else self.lower
                sums = np.zeros(len(self.total), dtype=np.int64)
                np.add.at(sums, self.leaf.ravel(), np.repeat(other, shape[1]))
                left = (self.total - sums)[self.leaf] + other[:, np.newaxis]
                if bound == "lower":
                    self.lower = np.maximum(self.lower, left.max(axis=1))
                else:
                    self.upper = np.minimum(self.upper, left.min(axis=1))
            if (self.lower > self.upper).any():
                raise_contradiction()
            if int(self.upper.sum() - self.lower.sum()) == before:
                return

    def _bound_by_bags(self):
        """Bound what is at each cell by which training rows can be there."""
        counts, n_cells = self._counts, len(self.codes)
        own = self.total[self.leaf]
        most = np.empty((n_cells, len(counts.trees)), dtype=np.int64)
        chunk = max(1, _PAIRS // max(1, counts.n_rows))
        for part in gen_batches(n_cells, chunk):
            most[part] = counts.room(own[part]) @ counts.bags.T
        most = np.minimum(most, own)
        sums = np.zeros(len(self.total), dtype=np.int64)
        np.add.at(sums, self.leaf.ravel(), most.ravel())
        needed = ((self.total - sums)[self.leaf] + most).max(axis=1)
        if (sums < self.total).any():
            raise_contradiction()
        self.lower = (needed > 0).astype(np.int64)
        # A row that was drawn by no tree is in none of them.
        self.upper = np.where(most.any(axis=1), counts.n_rows, 0)
        missed = ~counts.bags.any(axis=0)
        if missed.any():
            self.upper[:] = counts.n_rows

    def has_counts(self, amount):
        """Tell whether so many rows in each cell make all counts."""
        sums = np.zeros(len(self.total), dtype=np.int64)
        np.add.at(sums, self.leaf.ravel(), np.repeat(amount, self.leaf.shape[1]))
        return bool((sums == self.total).all())

    def matrix(self, cells):
        """Return the equations of some cells as a matrix, and what is left of them."""
        leaf = self.leaf[cells]
        used, row = np.unique(leaf, return_inverse=True)
        column = np.repeat(np.arange(len(cells), dtype=np.int32), leaf.shape[1])
        # HiGHS reads positions of 32 bits; older versions of scipy hand on what they get.
        entries = (np.ones(leaf.size), (row.ravel().astype(np.int32), column))
        matrix = csc_array(entries, shape=(len(used), len(cells)))
        sums = np.zeros(len(self.total), dtype=np.int64)
        fixed = np.ones(len(self.codes), dtype=bool)
        fixed[cells] = False
        n_trees = self.leaf.shape[1]
        np.add.at(sums, self.leaf[fixed].ravel(), np.repeat(self.lower[fixed], n_trees))
        return matrix, (self.total - sums)[used]

    def bound_by_programs(self, cells, deadline):
        """Bound cells by linear programs, each checked by weak duality.

        Returns
        -------
        done : int
            For how many of the cells there was time.
        """
        free = np.flatnonzero(self.lower < self.upper)
        if not len(free):
            return len(cells)
        matrix, left = self.matrix(free)
        position = {cell: i for i, cell in enumerate(free.tolist())}
        for n_done, cell in enumerate(cells):
            i = position.get(int(cell))
            if i is None or self.lower[cell] == self.upper[cell]:
                continue
            for sign in (1, -1):
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    return n_done
                bounds = np.column_stack([self.lower[free], self.upper[free]])
                value = _bound(matrix, left, bounds, i, sign, seconds)
                if value is None:
                    continue
                if sign == 1:
                    least = int(np.ceil(value - _MARGIN))
                    self.lower[cell] = max(self.lower[cell], least)
                else:
                    most = int(np.floor(-value + _MARGIN))
                    self.upper[cell] = min(self.upper[cell], most)
                if self.lower[cell] > self.upper[cell]:
                    raise_contradiction()
        return len(cells)


def _bound(matrix, left, bounds, i, sign, seconds):
    """Return a lower bound of ``sign * z[i]`` over all tables; None without one.

    The solver only proposes multipliers: for any of them, the least of the Lagrangian
    over the box is a bound, whether they are optimal or not. What rounding may have done
    to it is taken off. That a program has no solution is not taken from the solver.
    """
    cost = np.zeros(matrix.shape[1])
    cost[i] = sign
    solved = linprog(
        cost,
        A_eq=matrix,
        b_eq=left,
        bounds=bounds,
        method="highs",
        options={"time_limit": max(seconds, 0.01)},
    )
    if solved.status != 0:
        return None
    multiplier = solved.eqlin.marginals
    reduced = cost - matrix.T @ multiplier
    least = np.where(reduced > 0, bounds[:, 0], bounds[:, 1]) * reduced
    sizes = np.abs(cost) + abs(matrix).T @ np.abs(multiplier)
    size = np.abs(multiplier) @ np.abs(left) + sizes @ bounds[:, 1]
    rounding = 4 * np.finfo(float).eps * (sum(matrix.shape) + 2) * size
    return float(multiplier @ left + least.sum() - rounding)


def raise_contradiction():
    raise ValueError(
        "domain: no table of rows in it has the counts of this forest. Training rows had "
        "other values."
    )


def grid(domain):
    """Return all points of a domain, one in a row."""
    axes = np.meshgrid(*domain, indexing="ij")
    return np.column_stack([axis.ravel() for axis in axes])


def _middles(cell, size):
    """Return the position of the middle point of each cell, in the order of points."""
    order = np.argsort(cell, kind="stable")
    ends = np.cumsum(size)
    return order[ends - size + size // 2]


def check_domain(domain, n_features):
    """Return the values of each column, in order.

    Raises
    ------
    ValueError
        If there is not one list of numbers for each column, or two are one in float32.
    """
    try:
        columns = [np.unique(np.asarray(values, dtype=np.float64)) for values in domain]
    except (TypeError, ValueError):
        raise ValueError(
            "domain must hold, for each column, the numbers that it may have."
        ) from None
    if len(columns) != n_features:
        raise ValueError(
            f"domain must have the values of {n_features} columns; it has {len(columns)}."
        )
    for j, values in enumerate(columns):
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"domain[{j}] must hold finite numbers, one or more.")
        if len(np.unique(values.astype(np.float32))) < len(values):
            raise ValueError(
                f"domain[{j}] has values that are one to a tree, which compares in "
                "single precision."
            )
    return columns


def n_points(domain):
    """Return the number of points of a domain."""
    n = 1
    for values in domain:
        n *= len(values)
    return n


@dataclass(repr=False)
class CountingCertificate:
    """What the counts of a forest prove about records.

    Attributes
    ----------
    status : ndarray of str, shape (n_records,)
        "in" where every table of training rows that has these counts holds the record,
        "out" where none does, else "open".
    lower, upper : ndarray of int, shape (n_records,)
        Bounds of how often the record is among the training rows.
    reason : ndarray of str, shape (n_records,)
        What proves it, or why it is open.
    premises : list of str
        What was taken for granted, and what of it was checked.
    n_rows : int
        Number of training rows.

    See Also
    --------
    counting_certificate : Returns one.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import counting_certificate
    >>> tree = DecisionTreeClassifier().fit([[0], [1], [3]], [0, 1, 1])
    >>> found = counting_certificate(tree, [[0, 0], [0, 1], [2, 1]], domain=[range(4)])
    >>> found.status.tolist(), found.decided
    (['in', 'out', 'open'], 0.66...)
    """

    status: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    reason: np.ndarray
    premises: list
    n_rows: int

    @property
    def decided(self) -> float:
        """Share of the records that are not open."""
        return float((self.status != "open").mean())

    def __repr__(self):
        found = {s: int((self.status == s).sum()) for s in ("in", "out", "open")}
        text = ", ".join(f"{key}={value}" for key, value in found.items())
        return f"CountingCertificate({text})"


@validate_params(
    {
        "estimator": [HasMethods(["predict"])],
        "records": ["array-like"],
        "domain": [list, tuple, np.ndarray, None],
        "label_column": [Integral, str],
        "max_points": [Interval(Integral, 1, None, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="left")],
    }
)
def counting_certificate(
    estimator: Any,
    records: ArrayLike,
    *,
    domain: Sequence[ArrayLike] | None = None,
    label_column: int | str = -1,
    max_points: int = 200_000,
    time_limit: float = 30.0,
) -> CountingCertificate:
    r"""Prove of records that a forest was, or was not, trained on them.

    No attack, but a consequence of what the forest says: at each leaf, how many rows of
    each class came there. With :math:`z_{p,c}` training rows at point `p` of class `c`,

    .. math:: \sum_{p \in \text{leaf}} z_{p,c} = \text{count of } c \text{ at the leaf}

    for each leaf of each tree. "out" is a record whose own count is 0 in some tree, or
    for which no room is left; "in" is one without which a leaf could not have its count.
    Bounds are tightened by whole numbers from leaf to leaf, then by linear programs, of
    which only the multipliers are taken: that they bound is checked by weak duality.

    Of a forest that draws (``bootstrap=True``), each tree has a bag. The bags are drawn
    again from the seeds of the trees, and compared with the numbers at the roots; a
    record is then "out" where it fits none of the training rows: a tree that drew a row
    k times has to have k of its class in the leaf.

    To say "in", all other values that a row could have must be known: the `domain`. Of
    2,000 records of eight small whole numbers, half of them in, forests whose trees were
    grown to the end decide 90 to 97 %, and one of depth 6 only 24 %: its counts are those
    of many tables.

    Parameters
    ----------
    estimator : tree or forest
        A fitted DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier or
        ExtraTreesClassifier, without weights of classes or rows; or a `FrozenEstimator`
        of one.
    records : {array-like, DataFrame} of shape (n_records, n_features + 1)
        Features, and the label in `label_column`.
    domain : sequence of array-like, default=None
        The values that each column can have, for example ``[range(3), [0, 1]]``. That the
        training rows are of it is the caller's premise; where it contradicts the counts,
        an error says so. None if nothing is known: then no record is "in".
    label_column : int or str, default=-1
        The column that holds the label, by position or name.
    max_points : int, default=200_000
        Points of the domain that are looked at together. A larger domain is looked at
        leaf by leaf.
    time_limit : float, default=30.0
        Seconds for the linear programs; what they had no time for stays open.

    Returns
    -------
    certificate : CountingCertificate
        The proofs.

    Raises
    ------
    TypeError, ValueError
        If the forest has no counts (weights, other kinds of models), or no table within
        the domain has them.

    See Also
    --------
    DRAFT : Reconstructs the rows.
    RMIA : Guesses, for any model.

    References
    ----------
    .. [1] J. Ferry, R. Fukasawa, T. Pascal, T. Vidal, "Trained random forests completely
       reveal your dataset", arXiv:2402.19232 (the equations; they look for one solution,
       and not for what all have in common).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import ExtraTreesClassifier
    >>> from sklearn_advsec.privacy import counting_certificate
    >>> rng = np.random.RandomState(0)
    >>> X, y = rng.randint(0, 4, (60, 3)), rng.randint(0, 2, 60)
    >>> forest = ExtraTreesClassifier(20, random_state=0).fit(X[:30], y[:30])
    >>> records = np.column_stack([X, y])
    >>> counting_certificate(forest, records, domain=[range(4)] * 3)
    CountingCertificate(in=..., out=..., open=0)
    """
    counts = LeafCounts(estimator)
    rows, _ = plain_rows(records)
    rows = check_rows(rows, "counting_certificate", name="records")
    taken = Records(rows, label_column, counts.classes)
    features = taken.features
    if is_dataframe(features):
        features = features.to_numpy()
    features = check_array(features, dtype=np.float64, input_name="records")
    if features.shape[1] != counts.n_features:
        raise ValueError(
            f"records have {features.shape[1]} features beside their label; the forest "
            f"has {counts.n_features}."
        )
    return _Proof(counts, features, taken.codes, domain, max_points, time_limit).result()


class _Proof:
    """The steps of :func:`counting_certificate`, the cheap ones first."""

    def __init__(self, counts, features, codes, domain, max_points, time_limit):
        self._counts, self._features, self._codes = counts, features, codes
        self._single = features.astype(np.float32)
        self._deadline = time.monotonic() + time_limit
        n = len(codes)
        self._lower = np.zeros(n, dtype=np.int64)
        self._upper = np.full(n, counts.n_rows, dtype=np.int64)
        self._reason = np.full(n, "the counts allow both", dtype=object)
        self._by_own_counts()
        if domain is None:
            self._say_open("nothing is known of the domain")
            self._premises = self._common_premises()
            return
        domain = check_domain(domain, counts.n_features)
        self._premises = [
            *self._common_premises(),
            "the training rows are of the given domain (taken for granted; no count "
            "contradicts it)",
        ]
        single = self._single.T  # as trees compare them, and tell domains apart
        known = [
            np.isin(f, v.astype(np.float32)) for f, v in zip(single, domain, strict=True)
        ]
        inside = np.all(known, axis=0)
        self._settle(~inside, 0, 0, "it is outside of the domain")
        if n_points(domain) <= max_points:
            self._by_all_points(domain)
        else:
            self._by_leaves(domain)

    def _common_premises(self):
        drawn = "that draw rows; the bags were drawn again, and agree with the roots"
        whole = "of which each has all training rows; their counts of classes agree"
        which = whole if self._counts.bags is None else drawn
        return [
            f"{len(self._counts.trees)} tree(s) {which} (checked)",
            "no weights of rows or classes (checked: counts are whole, and add up to the "
            "number of rows)",
            "a record is its values in single precision, as trees compare them",
        ]

    def result(self):
        status = np.where(self._lower > 0, "in", "open")
        status[self._upper == 0] = "out"
        return CountingCertificate(
            status,
            self._lower,
            self._upper,
            self._reason,
            self._premises,
            self._counts.n_rows,
        )

    def _open(self):
        return np.flatnonzero((self._lower == 0) & (self._upper > 0))

    def _settle(self, at, lower, upper, reason):
        at = np.flatnonzero(at) if np.asarray(at).dtype == bool else at
        fresh = at[(self._lower[at] == 0) & (self._upper[at] > 0)]
        self._lower[fresh], self._upper[fresh] = lower, upper
        self._reason[fresh] = reason

    def _say_open(self, reason):
        self._reason[self._open()] = reason

    def _by_own_counts(self):
        chunk = max(1, _PAIRS // max(1, self._counts.n_rows))
        possible = np.concatenate(
            [
                self._counts.possible(self._single[part], self._codes[part])
                for part in gen_batches(len(self._codes), chunk)
            ]
        )
        reason = "no training row of its class is in its leaf of some tree"
        if self._counts.bags is not None:
            reason = "it fits none of the training rows that the trees drew"
        self._settle(~possible, 0, 0, reason)

    def _by_all_points(self, domain):
        system = CountSystem(self._counts, domain)
        cell = system.cell_of(self._single, self._codes)
        self._take(system, cell, "leaf by leaf, nothing else adds up")
        if self._counts.bags is not None:
            return
        rows = self._open()
        alone = system.size[cell[rows]] == 1
        cells = np.unique(cell[rows])
        cells = cells[np.argsort(system.size[cells], kind="stable")]
        n_done = system.bound_by_programs(cells, self._deadline)
        self._take(system, cell, "a linear program, checked by its multipliers")
        late = np.isin(cell, cells[n_done:])
        self._reason[np.intersect1d(self._open(), np.flatnonzero(late))] = "time_limit"
        shared = np.intersect1d(self._open(), rows[~alone])
        self._reason[shared] = "no tree tells it from other points of the domain"

    def _take(self, system, cell, reason):
        """Take over the bounds of cells; those of shared ones say "out" only."""
        rows = self._open()
        own = cell[rows]
        nowhere = rows[own < 0]
        self._settle(nowhere, 0, 0, "no training row of its class is in some leaf")
        rows, own = rows[own >= 0], own[own >= 0]
        single = system.size[own] == 1
        lower = np.where(single, system.lower[own], 0)
        changed = (lower > 0) | (system.upper[own] == 0)
        self._reason[rows[changed]] = reason
        self._lower[rows] = lower
        self._upper[rows] = np.minimum(self._upper[rows], system.upper[own])

    def _by_leaves(self, domain):
        """Look, in the smallest leaves of each record, for other points that could be."""
        counts, rows = self._counts, self._open()
        smallest = {row: [] for row in rows.tolist()}
        for t in range(len(counts.trees)):
            low, high = counts.boxes(t, domain)
            volume = np.prod((high - low).astype(float), axis=1)
            leaves = counts.leaves(t, self._single[rows])
            filled = counts.counts[t][leaves, self._codes[rows]] > 0
            for i in np.flatnonzero(filled & (volume[leaves] <= _LEAF_POINTS)):
                leaf = leaves[i]
                box = (volume[leaf], tuple(low[leaf]), tuple(high[leaf]))
                smallest[int(rows[i])].append(box)
        known = {}
        for row, boxes in smallest.items():
            for volume, low, high in sorted(set(boxes))[:3]:
                key = (low, high, int(self._codes[row]))
                if key not in known:
                    if volume > 1 and time.monotonic() > self._deadline:
                        continue
                    known[key] = self._only_possible(domain, *key)
                if known[key]:
                    reason = "it is the only point of its leaf that the counts allow"
                    self._settle(np.array([row]), 1, counts.n_rows, reason)
                    break
        self._say_open("the domain has more than max_points points")

    def _only_possible(self, domain, low, high, code):
        sides = [values[a:b] for values, a, b in zip(domain, low, high, strict=True)]
        points = grid(sides).astype(np.float32)
        codes = np.full(len(points), code)
        return int(self._counts.possible(points, codes).sum()) == 1
