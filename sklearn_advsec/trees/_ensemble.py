"""The array form of all tree ensembles, and its predictions."""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import issparse

# (row, tree) pairs that walk down the trees at once.
_PAIRS = 2**20


@dataclass
class TreeEnsemble:
    """A tree ensemble as flat arrays, which predicts just as its estimator does.

    A row goes left at a node where its feature is at most the threshold (or below it, if
    `strict`), compared in the precision `compare`; missing values and categories have
    rules of their own. The scores are the sum of the leaves' values, tree after tree, in
    the precision `sum_dtype`, and `link` says which class they stand for.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The estimator's classes.
    roots : ndarray of int, shape (n_trees,)
        The node at which each tree begins.
    feature : ndarray of int, shape (n_nodes,)
        The feature that a node looks at; -1 for leaves.
    threshold : ndarray of float, shape (n_nodes,)
        What it is compared with.
    left, right : ndarray of int, shape (n_nodes,)
        The children, as positions in these arrays.
    missing_left : ndarray of bool, shape (n_nodes,)
        Where missing values go.
    value : ndarray of float, shape (n_nodes, n_outputs)
        What a leaf adds to the scores. There is one output for two classes in boosting,
        else one per class.
    base : ndarray of float, shape (n_outputs,)
        The scores before the first tree.
    category : ndarray of int, shape (n_nodes,)
        Row of `bitsets` for nodes that look at categories, -1 for all others.
    bitsets : ndarray of bool, shape (n_sets, n_codes)
        Which codes go left.
    unknown_left : ndarray of bool, shape (n_nodes,)
        Where codes go that the bitsets do not hold.
    compare : {"float32", "float64"}
        Precision of the comparisons.
    strict : bool
        Whether only values *below* the threshold go left.
    sum_dtype : {"float32", "float64"}
        Precision of the sums.
    divisor : float
        What the sums are divided by.
    link : {"argmax", "positive", "nonnegative", "logistic"}
        How scores become a class. The first of equal scores wins; a single score stands
        for the second class where it is positive, not negative, or has a probability
        above one half.
    steps : list of transformers
        What stands in front of the trees in a pipeline.
    """

    classes: np.ndarray
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    base: np.ndarray
    category: np.ndarray = None
    bitsets: np.ndarray = None
    unknown_left: np.ndarray = None
    compare: str = "float32"
    strict: bool = False
    sum_dtype: str = "float64"
    divisor: float = 1.0
    link: str = "argmax"
    steps: list = field(default_factory=list)

    def __post_init__(self):
        if self.category is None:
            self.category = np.full(len(self.feature), -1)
            self.bitsets = np.zeros((0, 1), dtype=bool)
        if self.unknown_left is None:
            self.unknown_left = self.missing_left
        self.base = np.broadcast_to(self.base, self.value.shape[1:]).astype(float)

    @property
    def n_trees(self):
        """Number of trees."""
        return len(self.roots)

    @property
    def n_leaves(self):
        """Number of leaves in all trees."""
        return int((self.feature < 0).sum())

    def __repr__(self):
        return (
            f"TreeEnsemble(n_trees={self.n_trees}, n_leaves={self.n_leaves}, "
            f"n_classes={len(self.classes)})"
        )

    def transform(self, X):
        """Pass raw rows through the steps in front of the trees.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows as the estimator takes them.

        Returns
        -------
        features : ndarray of float64, shape (n_samples, n_tree_features)
            What the trees look at.
        """
        for step in self.steps:
            X = step.transform(X)
        X = X.toarray() if issparse(X) else np.asarray(X)
        return X.astype(np.float64)

    def goes_left(self, nodes, values):
        """Whether values of a node's own feature go to its left child.

        Parameters
        ----------
        nodes : ndarray of int
            Inner nodes.
        values : ndarray of float, broadcastable to `nodes`
            The features that they look at.

        Returns
        -------
        left : ndarray of bool
        """
        # Too large for float32 is infinite, as anywhere beyond the last threshold.
        with np.errstate(over="ignore"):
            seen = values.astype(self.compare).astype(np.float64)
        threshold = self.threshold[nodes]
        left = seen < threshold if self.strict else seen <= threshold
        sets = self.category[nodes]
        if len(self.bitsets) and (sets >= 0).any():
            with np.errstate(invalid="ignore"):
                code = np.nan_to_num(seen, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
            known = (code >= 0) & (code < self.bitsets.shape[1])
            listed = self.bitsets[sets, np.where(known, code, 0)]
            by_set = np.where(known, listed, self.unknown_left[nodes])
            left = np.where(sets >= 0, by_set, left)
        return np.where(np.isnan(seen), self.missing_left[nodes], left)

    def apply(self, X):
        """Leaf that each row reaches in each tree.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows as the estimator takes them.

        Returns
        -------
        leaves : ndarray of int, shape (n_samples, n_trees)
            Positions in the arrays of nodes.
        """
        features = self.transform(X)
        at = np.tile(self.roots, (len(features), 1))
        chunk = max(1, _PAIRS // self.n_trees)
        for start in range(0, len(features), chunk):
            self._descend(features[start : start + chunk], at[start : start + chunk])
        return at

    def _descend(self, features, at):
        row, tree = np.nonzero(self.feature[at] >= 0)
        while len(row):
            node = at[row, tree]
            left = self.goes_left(node, features[row, self.feature[node]])
            node = np.where(left, self.left[node], self.right[node])
            at[row, tree] = node
            inner = self.feature[node] >= 0
            row, tree = row[inner], tree[inner]

    def scores(self, X):
        """Sum of the values of the leaves, in the estimator's own arithmetic.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows as the estimator takes them.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_outputs)
        """
        leaves = self.apply(X)
        value = self.value.astype(self.sum_dtype)
        total = np.tile(self.base.astype(self.sum_dtype), (len(leaves), 1))
        for tree in range(self.n_trees):
            total += value[leaves[:, tree]]
        return total if self.divisor == 1 else total / self.divisor

    def predict(self, X):
        """Predict classes, as the estimator does.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows as the estimator takes them.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        scores = self.scores(X)
        if self.link == "argmax":
            return self.classes[scores.argmax(1)]
        score = scores[:, 0]
        if self.link == "logistic":
            with np.errstate(over="ignore"):
                probability = 1 / (1 + np.exp(-score))
            return self.classes[(probability > 0.5).astype(int)]
        second = score > 0 if self.link == "positive" else score >= 0
        return self.classes[second.astype(int)]

    # What attacks and bounds ask ------------------------------------------------------

    def gains(self, target, label):
        """How much each node's value, and the base, put a class ahead of another.

        Parameters
        ----------
        target, label : int
            Positions in `classes`.

        Returns
        -------
        gain : ndarray of shape (n_nodes,)
            By leaf: its value for `target` less the one for `label`.
        base : float
            The same of the scores before the first tree.
        """
        if self.link == "argmax":
            gain = self.value[:, target] - self.value[:, label]
            return gain, self.base[target] - self.base[label]
        sign = 1.0 if target == 1 else -1.0
        return sign * self.value[:, 0], sign * self.base[0]

    def needed(self, target, label):
        """How far `target` has to be ahead of `label` for sure, and at the least.

        Between the two, the order of the estimator's roundings decides. They are equal
        where sums are exact, as those of the votes of trees with pure leaves are.

        Parameters
        ----------
        target, label : int
            Positions in `classes`.

        Returns
        -------
        confirmed, least : float
            A lead of `confirmed` or more wins, one below `least` does not.
        """
        if self.exact_sums:
            return self.half(target, label), self.half(target, label)
        rounding = 16 * np.finfo(self.sum_dtype).eps * self.magnitude
        return rounding, -rounding

    @property
    def whole(self):
        """Which nodes have whole numbers as values, whose sums have no rounding."""
        if (self.base != 0).any():
            return np.zeros(len(self.value), dtype=bool)
        return (self.value == np.rint(self.value)).all(1)

    @property
    def exact_sums(self):
        """Whether no sum has any rounding."""
        return bool(self.whole[self.feature < 0].all())

    def half(self, target, label):
        """What a sum of whole numbers that puts `target` ahead of `label` is above."""
        wins_tie = target == 1 if self.link == "nonnegative" else target < label
        return -0.5 if wins_tie else 0.5

    @property
    def magnitude(self):
        """A bound of the size of all partial sums."""
        size = np.abs(self.value).max(1)
        starts = np.append(self.roots, len(size))
        largest = [size[a:b].max() for a, b in zip(starts, starts[1:], strict=False)]
        return float(np.sum(largest) + np.abs(self.base).max() + 1)


class NodeList:
    """Nodes of the trees read so far, one list per attribute."""

    def __init__(self, n_outputs):
        self.n_outputs = n_outputs
        self.roots, self.sets = [], []
        self.columns = {
            name: []
            for name in (
                "feature threshold left right missing_left category output leaf "
                "unknown_left"
            ).split()
        }

    def __len__(self):
        return len(self.columns["feature"])

    def add(self, **node):
        """Add a node, a leaf by default, and return its position."""
        defaults = dict.fromkeys(self.columns, 0) | {"feature": -1, "category": -1}
        for name, value in (defaults | node).items():
            self.columns[name].append(value)
        return len(self) - 1

    def add_set(self, codes, *, left):
        """Add a set of codes that go left, or right; return its position."""
        self.sets.append((list(codes), left))
        return len(self.sets) - 1

    def ensemble(self, **parts):
        """Return the ensemble; `parts` are its other attributes."""
        column = {name: np.array(values) for name, values in self.columns.items()}
        value = np.zeros((len(self), self.n_outputs))
        value[np.arange(len(self)), column.pop("output")] = column.pop("leaf")
        width = 1 + max((max(codes) for codes, _ in self.sets), default=0)
        bitsets = np.zeros((len(self.sets), width), dtype=bool)
        for row, (codes, left) in zip(bitsets, self.sets, strict=True):
            row[:] = not left
            row[codes] = left
        for name in ("missing_left", "unknown_left"):
            column[name] = column[name].astype(bool)
        return TreeEnsemble(
            roots=np.array(self.roots), value=value, bitsets=bitsets, **column, **parts
        )


def refuse(package, what):
    """Raise for a model that has no array form."""
    raise TypeError(f"{package} models {what} cannot be read as trees.")
