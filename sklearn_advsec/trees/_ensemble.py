"""The array form of all tree ensembles, and its predictions."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._rows import is_dataframe
from ._steps import as_numbers

# Codes of categories are below this (XGBoost's own limit), sets of them take so much.
_MOST_CODES, _MOST_BITS = 2**24, 2**30
# (row, tree) pairs that walk down the trees at once.
_PAIRS = 2**20


_NODE_ARRAYS = (
    "feature threshold left right missing_left value category unknown_left"
).split()

_FORM_TEXTS = ("codes", "compare", "sum_dtype", "link", "probability", "inverse")
_FORM_NUMBERS = ("strict", "divisor", "absent", "n_columns", "delta")
_PORTABLE = {"i": "<i8", "u": "<i8", "f": "<f8", "b": "|b1"}

# What a prediction is of the score that trees make, and the way back: all of them grow.
_INVERSES = {
    "identity": (np.array, np.array),
    "exp": (np.exp, np.log),
    "expm1": (np.expm1, np.log1p),
    "sinh": (np.sinh, np.arcsinh),
}

# What a regressor's prediction may do, as classes; the position of the second.
MOVES, UNCHANGED = np.array(["decrease", "unchanged", "increase"]), 1


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
    codes : {"truncate", "floor"}
        How numbers become codes at nodes on categories.
    compare : {"float32", "float64"}
        Precision of the comparisons.
    strict : bool
        Whether only values *below* the threshold go left.
    sum_dtype : {"float32", "float64"}
        Precision of the sums.
    divisor : float
        What the sums are divided by.
    link : {"argmax", "positive", "nonnegative", "logistic", "regression"}
        How scores become a class. The first of equal scores wins; a single score stands
        for the second class where it is positive, not negative, or has a probability
        above one half. Of a regressor, the third score is the prediction, the first is
        minus it, and `around` says what has moved.
    probability : {"softmax", "share"} or None
        What the scores say of probabilities, if it is known: they are log odds (of a
        single score, against the first class), or shares.
    inverse : {"identity", "exp", "expm1", "sinh"}
        What the prediction of a regressor is of its score.
    absent : float
        What stands for features that sparse rows do not hold; NaN where that is to lack
        them.
    steps : list of transformers
        What stands in front of the trees in a pipeline.
    n_columns : int or None
        Number of columns that the estimator takes.
    column_names : ndarray of str, shape (n_columns,), or None
        Their names, where it was fitted on a DataFrame.
    delta : float or None
        Of a regressor under attack: the prediction has moved where it is more than this
        away from where it was.
    reference : float or None
        Where it was, for one row; see `around`.
    blur : float
        How far, in scores, roundings may move what `around` asks for that are not those
        of sums.

    See Also
    --------
    tree_ensemble : Reads one from a model.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.trees import tree_ensemble
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, y)
    >>> ensemble = tree_ensemble(tree)
    >>> ensemble.n_trees, ensemble.n_leaves, ensemble.roots
    (1, 3, array([0]))
    >>> ensemble.scores(X[:1])  # shares of the classes in the row's leaf
    array([[1., 0., 0.]])
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
    codes: str = "truncate"
    compare: str = "float32"
    strict: bool = False
    sum_dtype: str = "float64"
    divisor: float = 1.0
    link: str = "argmax"
    probability: str = None
    inverse: str = "identity"
    absent: float = 0.0
    steps: list = field(default_factory=list)
    n_columns: int = None
    column_names: np.ndarray = None
    delta: float = None
    reference: float = None
    blur: float = 0.0

    def __post_init__(self):
        if self.category is None:
            self.category = np.full(len(self.feature), -1)
            self.bitsets = np.zeros((0, 1), dtype=bool)
        if self.unknown_left is None:
            self.unknown_left = self.missing_left
        self.base = np.broadcast_to(self.base, self.value.shape[1:]).astype(float)

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.roots)

    @property
    def n_leaves(self) -> int:
        """Number of leaves in all trees."""
        return int((self.feature < 0).sum())

    def __repr__(self):
        return (
            f"TreeEnsemble(n_trees={self.n_trees}, n_leaves={self.n_leaves}, "
            f"n_classes={len(self.classes)})"
        )

    def form(self) -> dict:
        """Return all that decides the answers, as a JSON object; steps as texts."""
        arrays = {}
        for name in (*_NODE_ARRAYS, "roots", "base", "bitsets"):
            array = np.asarray(getattr(self, name))
            array = np.ascontiguousarray(array.astype(_PORTABLE[array.dtype.kind]))
            text = base64.b64encode(array.tobytes()).decode()
            arrays[name] = [array.dtype.str, list(array.shape), text]
        texts = {name: getattr(self, name) for name in _FORM_TEXTS}
        numbers = {name: _plain(getattr(self, name)) for name in _FORM_NUMBERS}
        classes, names = np.asarray(self.classes).tolist(), self.column_names
        return {
            **{"arrays": arrays, **texts, **numbers, "classes": classes},
            "column_names": None if names is None else list(map(str, names)),
            "steps": [_describe(step) for step in self.steps],
        }

    @classmethod
    def from_form(cls, form: dict) -> TreeEnsemble:
        """Return the ensemble of a :meth:`form`, without the steps in front of it."""
        arrays = {
            name: np.frombuffer(base64.b64decode(text), dtype).reshape(shape)
            for name, (dtype, shape, text) in form["arrays"].items()
        }
        names, absent = form["column_names"], form["absent"]
        parts = {name: form[name] for name in (*_FORM_TEXTS, *_FORM_NUMBERS)}
        parts["absent"] = np.nan if absent is None else absent
        parts["column_names"] = None if names is None else np.asarray(names)
        return cls(classes=np.asarray(form["classes"]), **arrays, **parts)

    def check_structure(self) -> None:
        """Raise unless the arrays make up trees of the estimator's columns."""
        sizes = {len(getattr(self, name)) for name in _NODE_ARRAYS}
        if len(sizes) != 1 or not len(self.roots):
            _damaged("its arrays have different lengths, or it has no trees")
        if not (np.diff(self.roots, prepend=-1) > 0).all() or self.roots[0] != 0:
            _damaged("its trees do not follow each other")
        if self.roots[-1] >= len(self.feature):
            _damaged("a root is none of the nodes")
        inner = np.flatnonzero(self.feature >= 0)
        check_children(self.feature, self.left, self.right, self.roots, _damaged)
        tree = np.searchsorted(self.roots, np.arange(len(self.feature)), side="right")
        for side in (self.left, self.right):
            if (tree[side[inner]] != tree[inner]).any():
                _damaged("a tree leads into another one")
        if (self.category >= len(self.bitsets)).any():
            _damaged("a node refers to a set of categories that is out of range")
        n_outputs = self.value.shape[1]
        if n_outputs != len(self.classes) and (n_outputs, len(self.classes)) != (1, 2):
            _damaged(f"it has {n_outputs} scores for {len(self.classes)} classes")
        if not np.isfinite(self.value[self.feature < 0]).all():
            _damaged("a leaf has no finite value")

    def check(self, X: Any) -> None:
        """Raise unless rows have the columns of the estimator, in its order."""
        names, n_columns = self.column_names, self.n_columns
        if is_dataframe(X) and names is not None and list(X.columns) != list(names):
            raise ValueError(
                "The columns of X have to be those that the estimator was fitted on, in "
                f"the same order: expected {list(names)}; got {list(X.columns)}."
            )
        width = np.shape(X)[1] if np.ndim(X) == 2 else None
        if width is None or n_columns not in (None, width):
            raise ValueError(
                f"X must hold rows of {n_columns} columns, as the estimator takes them; "
                f"got shape {np.shape(X)}."
            )

    def transform(self, X: ArrayLike) -> np.ndarray:
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
        return as_numbers(X, self.absent)

    def goes_left(self, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
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
            code = np.floor(seen) if self.codes == "floor" else seen
            with np.errstate(invalid="ignore"):
                code = np.nan_to_num(code, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
            known = (code >= 0) & (code < self.bitsets.shape[1])
            listed = self.bitsets[sets, np.where(known, code, 0)]
            by_set = np.where(known, listed, self.unknown_left[nodes])
            left = np.where(sets >= 0, by_set, left)
        return np.where(np.isnan(seen), self.missing_left[nodes], left)

    def apply(self, X: ArrayLike) -> np.ndarray:
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
        self.check(X)
        return self.apply_to(X)

    def apply_to(self, X: Any) -> np.ndarray:
        """As :meth:`apply`, of rows that have been checked."""
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

    def scores(self, X: ArrayLike) -> np.ndarray:
        """Sum of the values of the leaves, in the estimator's own arithmetic.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows as the estimator takes them.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_outputs)
        """
        self.check(X)
        return self.scores_of(X)

    def scores_of(self, X: Any) -> np.ndarray:
        """As :meth:`scores`, of rows that have been checked."""
        leaves = self.apply_to(X)
        value = self.value.astype(self.sum_dtype)
        total = np.tile(self.base.astype(self.sum_dtype), (len(leaves), 1))
        for tree in range(self.n_trees):
            total += value[leaves[:, tree]]
        return total if self.divisor == 1 else total / self.divisor

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict classes, or the numbers of a regressor, as the estimator does.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows as the estimator takes them.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return self.decide(self.scores(X))

    def decide(self, scores: Any) -> np.ndarray:
        """Return the classes, or the predictions, that scores stand for."""
        if self.link == "regression":
            return _INVERSES[self.inverse][0](scores[:, -1])
        if self.link == "argmax":
            return self.classes[scores.argmax(1)]
        score = scores[:, 0]
        if self.link == "logistic":
            with np.errstate(over="ignore"):
                probability = 1 / (1 + np.exp(-score))
            return self.classes[(probability > 0.5).astype(int)]
        second = score > 0 if self.link == "positive" else score >= 0
        return self.classes[second.astype(int)]

    def is_tie(self, scores: Any) -> np.ndarray:
        """Which rows have scores that the order of roundings may decide between."""
        slack = self.rounding / self.divisor
        if scores.shape[1] > 1:
            best = np.sort(scores, axis=1)
            return best[:, -1] - best[:, -2] <= slack
        return np.abs(scores[:, 0]) <= (slack if len(self.classes) > 1 else np.inf)

    def log_odds(self, scores: Any) -> np.ndarray | None:
        """Return log odds of shape (n_samples, n_classes), if `probability` is known."""
        if self.link != "argmax":
            return np.column_stack([np.zeros(len(scores)), scores[:, 0]])
        if self.probability == "softmax":
            return scores
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(scores, 0))

    # What attacks and bounds ask ------------------------------------------------------

    def around(self, reference: float) -> TreeEnsemble:
        """Return the ensemble whose scores say where a prediction stands to a number.

        The largest is that of "decrease", "unchanged" or "increase", which is ahead by
        the move less `delta`.

        Parameters
        ----------
        reference : float
            What a regressor predicted, or was to predict.
        """
        if self.delta is None:
            raise TypeError(
                "A regressor's answer changes by how much? Wrap it: "
                "sklearn_advsec.victim.RegressionVictim(estimator, delta=...)."
            )
        sides, blur = np.array([-1.0, 1.0]), 0.0
        low, high = ends = self.score_of(reference + self.delta * sides)
        if self.inverse != "identity":
            size = 4 * np.finfo(np.float64).eps * (abs(reference) + self.delta)
            wide = self.delta + np.array([[-size], [size]])
            blur = float(np.abs(self.score_of(reference + wide * sides) - ends).max())
        away = np.array([low, 0.0, -high])
        return replace(
            self,
            base=self.base + self.divisor * away,
            reference=float(reference),
            blur=self.blur + blur,
        )

    def score_of(self, predictions: np.ndarray) -> np.ndarray:
        """Return the scores of predictions; of what none can be, one out of range."""
        if self.inverse == "identity":
            return predictions
        largest = np.maximum.reduceat(np.abs(self.value).max(1), self.roots).sum()
        most = 2 * (largest + np.abs(self.base).max()) / self.divisor + 1
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = _INVERSES[self.inverse][1](predictions)
        return np.clip(np.where(np.isnan(scores), -np.inf, scores), -most, most)

    def moves(self, predictions: np.ndarray) -> np.ndarray:
        """Return which of the three classes predictions are, around the reference."""
        move = predictions - self.reference
        return np.where(np.abs(move) > self.delta, np.where(move > 0, 2, 0), UNCHANGED)

    def gains(self, target: int, label: int) -> tuple[np.ndarray, float]:
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
        if self.link in ("argmax", "regression"):
            gain = self.value[:, target] - self.value[:, label]
            return gain, self.base[target] - self.base[label]
        sign = 1.0 if target == 1 else -1.0
        return sign * self.value[:, 0], sign * self.base[0]

    def needed(self, target: int, label: int) -> tuple[float, float]:
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
        return self.rounding, -self.rounding

    @cached_property
    def whole(self) -> np.ndarray:
        """Which nodes have whole numbers as values, whose sums have no rounding."""
        if (self.base != 0).any():
            return np.zeros(len(self.value), dtype=bool)
        return (self.value == np.rint(self.value)).all(1)

    @cached_property
    def exact_sums(self) -> bool:
        """Whether no sum has any rounding."""
        return bool(self.whole[self.feature < 0].all())

    def half(self, target: Any, label: Any) -> float:
        """What a sum of whole numbers that puts `target` ahead of `label` is above."""
        wins_tie = target == 1 if self.link == "nonnegative" else target < label
        if self.link == "regression":  # a move of delta itself is none
            wins_tie = target == UNCHANGED
        return -0.5 if wins_tie else 0.5

    @cached_property
    def rounding(self) -> float:
        """A bound of what roundings may do to the lead of one class over another.

        Each addition rounds its sum by half a unit at most, so that the bound is that of
        all partial sums; what is done to them at the end comes on top.
        """
        size = np.abs(self.value).max(1)
        largest = np.maximum.reduceat(size, self.roots)
        partial = np.cumsum([np.abs(self.base).max() + 1, *largest])
        eps = np.finfo(self.sum_dtype).eps
        rounding = eps * max(16 * partial[-1], partial[1:].sum())
        return float(rounding + self.divisor * self.blur)


class TreeList:
    """Trees of a booster, checked and joined one after another.

    What a model says of itself is not trusted: it may have come from a file.

    Parameters
    ----------
    package : str
        Whose model it is, for errors.
    n_features, n_outputs : int
        The number of features, and of scores.
    """

    def __init__(self, package, n_features, n_outputs):
        self.package = package
        self.n_features, self.n_outputs = n_features, n_outputs
        self._trees, self._sets, self._n_nodes = [], [], 0
        self._width = 1

    def add(self, feature, left, right, value, codes=None, codes_left=True, **columns):
        """Add a tree, whose root is its first node.

        Parameters
        ----------
        feature : array-like of int, shape (n_nodes,)
            -1 for leaves.
        left, right : array-like of int, shape (n_nodes,)
            The children within the tree; ignored for leaves.
        value : ndarray of shape (n_nodes, n_outputs)
            What leaves add.
        codes : dict of int to ndarray, optional
            The codes listed at nodes on categories.
        codes_left : bool
            Whether those go left, or all others.
        **columns : array-like of shape (n_nodes,)
            `threshold`, `missing_left` and `unknown_left`.
        """
        feature, left, right = (np.asarray(p, np.int64) for p in (feature, left, right))
        sizes = {len(part) for part in (feature, left, right, value, *columns.values())}
        inner = feature >= 0
        if len(sizes) != 1 or not len(feature):
            self.damaged("arrays of a tree have different lengths")
        if (feature >= self.n_features).any():
            self.damaged(f"a node looks at feature {feature.max()} of {self.n_features}")
        children = np.concatenate([left[inner], right[inner]])
        if len(children) and not 0 <= children.min() <= children.max() < len(feature):
            self.damaged("a child is none of the nodes")
        category = np.full(len(feature), -1)
        for node, own in (codes or {}).items():
            own = np.asarray(own, dtype=np.int64)
            if len(own) and not 0 <= own.min() <= own.max() < _MOST_CODES:
                self.damaged(f"a category has the code {own.min()} or {own.max()}")
            category[node] = len(self._sets)
            self._sets.append((own, codes_left))
            self._width = max(self._width, 1 + own.max(initial=0))
        shift = np.where(inner, self._n_nodes, 0)
        self._trees.append(
            {
                "roots": np.array([self._n_nodes]),
                "feature": np.where(inner, feature, -1),
                "left": np.where(inner, left, 0) + shift,
                "right": np.where(inner, right, 0) + shift,
                "value": np.where(inner[:, None], 0.0, value),
                "category": category,
                **{name: np.asarray(part) for name, part in columns.items()},
            }
        )
        self._n_nodes += len(feature)

    def one_output(self, leaf, output):
        """Return values of leaves of a tree that adds to one score."""
        if not 0 <= output < self.n_outputs:
            self.damaged(f"a tree adds to score {output} of {self.n_outputs}")
        value = np.zeros((len(leaf), self.n_outputs))
        value[:, output] = leaf
        return value

    def damaged(self, what):
        """Raise for a model that contradicts itself."""
        raise ValueError(f"This {self.package} model is damaged: {what}.")

    def ensemble(self, **parts):
        """Return the ensemble; `parts` are its other attributes."""
        if not self._trees:
            self.damaged("it has no trees")
        if len(self._sets) * self._width > _MOST_BITS:
            self.damaged(f"{len(self._sets)} sets have codes up to {self._width}")
        names = self._trees[0]
        joined = {name: np.concatenate([t[name] for t in self._trees]) for name in names}
        bitsets = np.zeros((len(self._sets), self._width), dtype=bool)
        for row, (codes, left) in zip(bitsets, self._sets, strict=True):
            row[:] = not left
            row[codes] = left
        nodes = (joined[name] for name in ("feature", "left", "right", "roots"))
        check_children(*nodes, self.damaged)
        for name in ("missing_left", "unknown_left"):
            joined[name] = joined[name].astype(bool)
        return TreeEnsemble(bitsets=bitsets, **joined, **parts)


def as_regression(ensemble):
    """Return an ensemble of a single score as that of a regressor."""
    sides = np.array([-1.0, 0.0, 1.0])
    return replace(
        ensemble,
        classes=MOVES,
        value=ensemble.value * sides,
        base=ensemble.base * sides,
        link="regression",
    )


def _plain(number):
    """Return a number as one of Python's; NaN, which JSON has not, as None."""
    number = getattr(number, "item", lambda: number)()
    return None if number != number else number


def _describe(step):
    """Return what a step is, and what it has learned, as a text."""
    learned = {
        name: np.asarray(value).tolist()
        for name, value in sorted(vars(step).items())
        if name.endswith("_") and isinstance(value, (np.ndarray, Real))
    }
    chosen = step.get_params(deep=False) if hasattr(step, "get_params") else {}
    return f"{type(step).__name__}({chosen}): {learned}"


def _damaged(what):
    raise ValueError(f"This ensemble of trees is damaged: {what}.")


def check_children(feature, left, right, roots, damaged):
    """Call `damaged` with a reason unless nodes make up trees, one for each root."""
    inner = np.flatnonzero(feature >= 0)
    children = np.concatenate([left[inner], right[inner]])
    if len(children) and not 0 <= children.min() <= children.max() < len(feature):
        damaged("a child is none of the nodes")
    n_parents = np.bincount(children, minlength=len(feature))
    n_parents[roots] += 1
    if (n_parents != 1).any():
        damaged("a node has two parents, or none")
    # With one parent each, what the roots do not lead to goes round in a circle.
    reached, level = 0, roots
    while len(level):
        reached += len(level)
        level = level[feature[level] >= 0]
        level = np.concatenate([left[level], right[level]])
    if reached != len(feature):
        damaged("nodes go round in a circle")


def refuse(package, what):
    """Raise for a model that has no array form."""
    raise TypeError(f"{package} models {what} cannot be read as trees.")
