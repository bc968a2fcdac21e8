"""Path-finding: decision trees, leaf by leaf (Tramer et al. 2016)."""

from __future__ import annotations

import warnings
from functools import partial
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .._rows import check_weights
from .._sklearn import NODE_DTYPE, Interval, StrOptions, Tree
from ..exceptions import QueryBudgetExceeded
from ..victim._fitting import as_victim
from ..victim._validation import check_victim
from ._base import ExtractionAttack
from ._box_search import BoxSearch, Region, above, likely_spacing
from ._victim import has_box_leaves, leaf_ids_of, outputs_of, regresses


def share_of(region, root):
    """Share of the volume of `root` that a region takes.

    Both are bounded by float32 values; a cut lies in the middle between two of them.
    """
    low = np.where(region.low > root.low, _middle(region.low, -1), root.low)
    high = np.where(region.high < root.high, _middle(region.high, 1), root.high)
    width = root.high.astype(np.float64) - root.low
    varied = width > 0
    return float(np.prod((high - low)[varied] / width[varied]))


def leaves_of(root):
    """Return the regions without a split, from left to right."""
    leaves, stack = [], [root]
    while stack:
        region = stack.pop()
        if region.left is None:
            leaves.append(region)
        else:
            stack += [region.right, region.left]
    return leaves


def merge_same(root):
    """Return an equivalent tree with one leaf per code: each code's leaf is a box.

    Parts of one leaf that were found separately become one box. A tree over those boxes
    exists, and at every node some cut goes through none of them.
    """
    boxes = {}
    for leaf in leaves_of(root):
        low, high = boxes.get(leaf.code, (leaf.low, leaf.high))
        boxes[leaf.code] = np.minimum(low, leaf.low), np.maximum(high, leaf.high)
    codes = np.array(list(boxes))
    lows = np.array([low for low, _ in boxes.values()])
    highs = np.array([high for _, high in boxes.values()])
    merged = Region(root.low, root.high, root.given)
    stack = [(merged, np.arange(len(codes)))]
    while stack:
        region, at = stack.pop()
        if len(at) == 1:
            region.code, region.certified = codes[at[0]], True
            continue
        feature, cut = _free_cut(lows[at], highs[at])
        goes_left = highs[at, feature] <= cut
        left, right = region.split(feature, cut)
        stack += [(right, at[~goes_left]), (left, at[goes_left])]
    return merged


def _free_cut(lows, highs):
    """Find the most balanced cut that goes through none of the boxes."""
    best = None
    for j in range(lows.shape[1]):
        cuts = np.unique(highs[:, j])[:-1]
        if not len(cuts):
            continue
        crossed = (lows[:, j] <= cuts[:, None]) & (highs[:, j] > cuts[:, None])
        for cut in cuts[~crossed.any(axis=1)]:
            left = int((highs[:, j] <= cut).sum())
            balance = abs(len(lows) - 2 * left)
            if best is None or balance < best[0]:
                best = balance, j, cut
    return best[1:]


def tree_copy(root, values, X, classes=None):
    """Build a decision tree.

    Parameters
    ----------
    root : Region
        The splits.
    values : ndarray of shape (n_codes, n_outputs)
        What the victim answers for each code.
    X : ndarray of shape (n_samples, n_features)
        The attacker's rows: what `n_node_samples` counts.
    classes : ndarray of shape (n_classes,), default=None
        Classes of a classifier; None for a regressor.

    Returns
    -------
    copy : DecisionTreeClassifier or DecisionTreeRegressor
        Fitted, with a `tree_`.
    """
    n_outputs = 1 if classes is None else len(classes)
    nodes, node_values, depth = [], [], 0
    # Children before parents in `order`, so that a parent's value is known from theirs.
    order, stack = [], [(root, np.arange(len(X)), 0)]
    while stack:
        region, rows, level = stack.pop()
        region.index = len(order)
        order.append((region, rows))
        depth = max(depth, level)
        if region.left is not None:
            goes_left = X[rows, region.feature].astype(np.float32) <= region.cut
            stack.append((region.right, rows[~goes_left], level + 1))
            stack.append((region.left, rows[goes_left], level + 1))
    nodes = np.zeros(len(order), dtype=NODE_DTYPE)
    node_values = np.zeros((len(order), 1, n_outputs))
    for region, rows in reversed(order):
        i = region.index
        node = nodes[i]
        node["n_node_samples"] = node["weighted_n_node_samples"] = len(rows)
        if region.left is None:
            node["left_child"] = node["right_child"] = -1
            node["feature"] = node["threshold"] = -2
            node_values[i, 0] = values[region.code]
        else:
            left, right = region.left.index, region.right.index
            node["left_child"], node["right_child"] = left, right
            node["feature"] = region.feature
            node["threshold"] = _middle(np.float32(region.cut), 1)
            weights = nodes["n_node_samples"][[left, right]].astype(np.float64)
            weights += not weights.any()  # no row of the attacker's comes here
            node_values[i, 0] = np.average(
                node_values[[left, right], 0], axis=0, weights=weights
            )
        if classes is not None:
            node["impurity"] = 1 - np.sum(node_values[i, 0] ** 2)
    tree = Tree(X.shape[1], np.array([n_outputs], dtype=np.intp), 1)
    state = {"max_depth": depth, "node_count": len(nodes), "nodes": nodes}
    tree.__setstate__({**state, "values": node_values})
    copy = DecisionTreeRegressor() if classes is None else DecisionTreeClassifier()
    copy.tree_ = tree
    copy.n_features_in_, copy.n_outputs_ = X.shape[1], 1
    copy.max_features_ = X.shape[1]
    if classes is not None:
        copy.classes_, copy.n_classes_ = classes, len(classes)
    return copy


def _middle(value, direction):
    """Return the float64 halfway to the next float32 in a direction."""
    other = above(value) if direction > 0 else np.nextafter(value, np.float32(-np.inf))
    return (np.float64(value) + other) / 2


class Checks:
    """How many rows agreed with the copy, and how often one did not.

    Attributes
    ----------
    n_agreed : int
        Rows without a contradiction since the last one.
    n_failed : int
        Contradictions.
    """

    def __init__(self):
        self.n_agreed = self.n_failed = 0

    def fail(self):
        """Count a contradiction: the copy that comes of it has to be checked anew."""
        self.n_agreed, self.n_failed = 0, self.n_failed + 1

    def bound(self):
        """Bound the share of rows that are wrong, at 95 % confidence.

        Each copy that is checked has a part of the 5 %, as any of them may pass by luck.
        """
        if not self.n_agreed:
            return 1.0
        tries = self.n_failed + 1
        return min(np.log(tries * (tries + 1) / 0.05) / self.n_agreed, 1.0)


def rows_between_cuts(X, root):
    """Tell which rows lie between two neighbours in float32 that a split parts."""
    between = np.zeros(len(X), dtype=bool)
    stack = [root]
    while stack:
        region = stack.pop()
        if region.left is not None:
            values = X[:, region.feature]
            between |= (values > region.cut) & (values < above(region.cut))
            stack += [region.left, region.right]
    return between


def rows_to_check(X, low, high, n, rng):
    """Draw rows of a box: even ones, ones of values that occur, and rows that do.

    Behind encoders most of a box is "any other value", and only the values that occur are
    told apart.
    """
    even = rng.uniform(low, high, size=(n, len(low)))
    at = rng.randint(len(X), size=even.shape)
    mixed = X[at, np.arange(len(low))]
    own = X[at[:, 0]]
    kind = np.arange(n)[:, None] % 3
    rows = np.where(kind == 0, even, np.where(kind == 1, mixed, own))
    return np.clip(rows.astype(np.float32), low, high)


# Answers that differ by less are the same answer.
_DECIMALS = 12

# Where nothing proves that the victim is a tree, the search ends with these.
_MOST_QUERIES = 20_000


class PathFinding(ExtractionAttack):
    """Steal a decision tree exactly, from the leaf that the victim names for a row.

    The domain is cut into boxes until each is known to be one leaf: because leaves are
    boxes, two opposite corners in the same leaf prove it. Thresholds are found to the
    last bit of float32, the precision in which scikit-learn's trees compare, so inside
    the bounds the copy is the same function of rows in float32. Its volumes prove that
    nothing is missing.

    That is a proof where leaves are boxes of the columns that are sent, and each has a
    name of its own: a tree of scikit-learn, by itself or behind steps of which each
    feature grows with one column (scalers, ordinal bins, imputers, selection). Elsewhere
    it is none: behind one-hot or ordinal encoders, PCA and functions a leaf may have
    parts; of a remote victim nothing is known; where leaves are not named, equal answers
    stand for equal leaves, and pure leaves often answer alike. Rows are then checked:
    a third of them drawn evenly from the domain, a third with each value taken from some
    row of `X`, a third rows of `X`. What they contradict is explored further, and
    `inexact_share_` says how much may be left.

    The victim is a classifier or a regressor, which has no `classes_`. Rows are asked
    about one by one, all but the checks. Without a `max_queries` the search ends after
    20,000 of them where it is no proof; where it is one, it ends by itself.

    Parameters
    ----------
    estimator : classifier or regressor
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    identity : {"auto", "leaf", "output"}, default="auto"
        What names a leaf: its id from `apply`, which comes in one answer with the
        output, or the output itself. "auto" takes the id where there is one.
    bounds : "data" or tuple of two array-likes, default="data"
        Smallest and largest values of the features. "data" takes those of `X`. The copy
        is exact inside; thresholds outside are not seen.
    incomplete : bool, default=False
        Whether the victim takes rows with missing values (NaN) and answers for the node
        at which the first of them is needed, as some services do. It makes the tree
        known from the root downwards, with fewer queries.
    n_checks : int, default=300
        Number of checked rows without a contradiction after which the search ends, where
        it is no proof.
    max_queries : int, default=None
        How many rows may be sent in all; see :class:`ExtractionAttack`.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_`.
    warm_start : bool, default=False
        Whether the next fit goes on from what was paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

    Attributes
    ----------
    copy_ : DecisionTreeClassifier or DecisionTreeRegressor
        The stolen tree, for `export_text`, `plot_tree` and all else. Its
        `n_node_samples` count the rows of `X`.
    tree_ : sklearn.tree._tree.Tree
        Its arrays.
    boxes_ : ndarray of shape (n_leaves, 2, n_features)
        Smallest and largest float32 value of each leaf, in the order of `tree_`.
    volumes_ : ndarray of shape (n_leaves,)
        Share of the domain that each leaf takes.
    explored_ : float
        Share of the domain that was explored: 1 unless the budget ran out.
    exact_ : bool
        Whether the copy is proven to be the victim's function inside the bounds.
    inexact_share_ : float
        Upper bound, at 95 % confidence, for the share of rows on which the copy is wrong,
        of rows drawn as the checks are: 0 where exact; else about 3.7 divided by the
        number of rows checked, more where earlier checks failed, or the share of rows
        of `X` that the copy gets wrong because it rounds them to float32. The unexplored
        share of the domain is added.
    shared_outputs_ : int
        Number of outputs that more than one leaf of the copy gives: where it is not 0,
        outputs do not name leaves.
    n_leaves_ : int
        Number of leaves of the copy.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    Warns
    -----
    UserWarning
        If the budget did not do, or an answer showed that the victim's answers do not
        name boxes.

    Raises
    ------
    TypeError
        If the victim cannot be a tree: a linear model, a clusterer, an outlier detector.
        It is not asked anything.
    ValueError
        If most of 30 pairs of rows next to each other are answered differently: no tree
        has as many leaves.

    See Also
    --------
    sklearn_advsec.trees.leaf_boxes : The boxes of a tree that is known.
    EquationSolving : For linear models.

    References
    ----------
    .. [1] F. Tramer et al., "Stealing machine learning models via prediction APIs",
       USENIX Security 2016, arXiv:1609.02943 (Section 4.2: path-finding with complete
       and with incomplete queries; Algorithm 1 looks at every feature of every leaf by
       itself. The proof by opposite corners, group testing of the features, and
       thresholds guessed from the resolution of the data are ours; they take 3 to 22
       times fewer queries on iris, wine, breast cancer and digits.)

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.extraction import PathFinding
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = PathFinding(DecisionTreeClassifier(random_state=0)).fit(X, y)
    >>> attack.n_leaves_, attack.fidelity(X), attack.exact_
    (9, 1.0, True)
    >>> round(float(attack.volumes_.sum()), 12)
    1.0
    """

    _parameter_constraints = {
        **ExtractionAttack._parameter_constraints,
        "identity": [StrOptions({"auto", "leaf", "output"})],
        "bounds": [StrOptions({"data"}), tuple, list],
        "incomplete": ["boolean"],
        "n_checks": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        identity: Literal["auto", "leaf", "output"] = "auto",
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        incomplete: bool = False,
        n_checks: int = 300,
        max_queries: int | None = None,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.identity = identity
        self.bounds = bounds
        self.incomplete = incomplete
        self.n_checks = n_checks
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy of the copy on true labels; R^2 for a regressor.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            True labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            The score.
        """
        check_is_fitted(self)
        measure = accuracy_score if hasattr(self, "classes_") else r2_score
        if measure is accuracy_score:
            check_classification_targets(y)
        y_pred = self.predict(X)
        weights = check_weights(sample_weight, len(y_pred))
        return float(measure(y, y_pred, sample_weight=weights))

    def _steal(self, oracle, array, y):
        if array.ndim != 2:
            raise ValueError(f"X must have two dimensions; got {array.ndim}.")
        low, high = self._domain(array)
        boxes = has_box_leaves(self.estimator_, array.shape[1])
        if not boxes:
            if self.max_queries is None:  # what is no tree need never come to an end
                oracle.max_queries = _MOST_QUERIES
            self._check_piecewise_constant(oracle, array, low, high)
        self._codes, self._values = {}, []
        named = oracle.log.kind == "leaf"
        search = BoxSearch(
            lambda row: self._code(oracle, row),
            low,
            high,
            likely_spacing(array),
            named=named,
            incomplete=self.incomplete,
        )
        proof, checks = named and boxes, Checks()
        try:
            search.run()
            if not proof:
                self._check_and_refine(oracle, search, array, checks)
        except QueryBudgetExceeded:
            if search.root.code is None:
                raise
        self._finish(search, named, proof, checks, oracle, array)

    def _check_piecewise_constant(self, oracle, array, low, high, n_pairs=30):
        """Raise where rows that are nearly equal are answered differently."""
        rng = check_random_state(self.random_state)
        rows = array[rng.permutation(len(array))[:n_pairs]].astype(np.float32)
        # Both are moved: encoders know the values of X, and take others as one.
        step = 1e-6 * (high - low) * np.where(rows < (low + high) / 2, 1, -1)
        rows, near = rows + step, rows + 2 * step
        answers, moved = (
            np.round(oracle.ask(np.clip(z, low, high)), _DECIMALS) for z in (rows, near)
        )
        differ = (answers != moved).reshape(len(rows), -1).any(axis=1)
        if len(rows) >= 5 and 2 * differ.sum() > len(rows):
            raise ValueError(
                f"estimator: {type(self.estimator_).__name__} answers {differ.sum()} of "
                f"{len(rows)} rows otherwise once they are moved by a millionth of the "
                "features' ranges: it is no decision tree. Use EquationSolving, "
                "ReLUExtraction, or an attack that trains a copy (KnockoffNets)."
            )

    def _n_parted(self, oracle, search, array):
        """Count the rows of X that a split parts from their neighbours in float32.

        The copy rounds to float32, as a tree does; steps in front of it do not.
        """
        rows = array[rows_between_cuts(array, search.root)]
        if oracle.affordable < len(rows):
            return len(rows)
        codes = np.array([self._code(oracle, row) for row in rows])
        copied = [search.region_of(row.astype(np.float32)).code for row in rows]
        return int((codes != copied).sum())

    def _finish(self, search, named, proof, checks, oracle, array):
        root = search.root
        leaves = leaves_of(root)
        self.explored_ = float(
            sum(share_of(leaf, root) for leaf in leaves if leaf.certified)
        )
        complete = all(leaf.certified for leaf in leaves)
        if proof and complete:
            root = merge_same(root)
            leaves = leaves_of(root)
        values = np.array(self._values)[:, 1 if named else 0 :]
        if regresses(self.estimator_):
            classes = None
        else:
            classes = self.classes_ = self._victim_classes(np.arange(values.shape[1]))
        self.copy_ = tree_copy(root, values, array, classes)
        self.tree_ = self.copy_.tree_
        self.n_leaves_ = len(leaves)
        self.boxes_ = np.array([(leaf.low, leaf.high) for leaf in leaves])
        self.volumes_ = np.array([share_of(leaf, root) for leaf in leaves])
        outputs = values[[leaf.code for leaf in leaves]]
        _, counts = np.unique(outputs, axis=0, return_counts=True)
        self.shared_outputs_ = int((counts > 1).sum())
        n_parted = self._n_parted(oracle, search, array) if proof and complete else 0
        self.exact_ = bool(proof and complete and not n_parted)
        left = 0.0 if complete else max(1 - self.explored_, 0.0)
        unsure = n_parted / len(array) if proof else checks.bound()
        self.inexact_share_ = float(min(left + unsure, 1.0))
        if not complete:
            warnings.warn(
                f"{oracle.n_queries} queries are spent: {left:.2%} of the domain is "
                "not explored. Raise max_queries; warm_start=True keeps what "
                "was paid for.",
                stacklevel=4,
            )
        elif n_parted:
            warnings.warn(
                f"the copy, which rounds rows to float32, is wrong on {n_parted} rows of "
                "X: they lie between two neighbours in float32 that a split parts.",
                stacklevel=4,
            )
        elif not proof and (checks.n_failed or (self.shared_outputs_ and not named)):
            what = "leaf ids" if named else "outputs"
            warnings.warn(
                f"{what} do not name boxes: {self.shared_outputs_} outputs are given by "
                f"several leaves, and {checks.n_failed} checks failed. Up to "
                f"{self.inexact_share_:.2%} of rows may be wrong (95 % confidence). More "
                "n_checks find more.",
                stacklevel=4,
            )

    def _check_and_refine(self, oracle, search, array, checks):
        """Ask about rows until enough one after another agree."""
        rng = check_random_state(self.random_state)
        low, high = search.root.low, search.root.high
        while checks.n_agreed < self.n_checks:
            rows = rows_to_check(array, low, high, self.n_checks - checks.n_agreed, rng)
            oracle.ask(rows)  # in one go; below, they are known
            for row in rows:
                region, code = search.region_of(row), self._code(oracle, row)
                if code == region.code:
                    checks.n_agreed += 1
                else:
                    checks.fail()
                    search.refine(region, row)

    def _code(self, oracle, row):
        """Return the number of the leaf that answers for a row."""
        answer = np.atleast_1d(oracle.ask(row[None])[0])
        name = answer[:1] if oracle.log.kind == "leaf" else np.round(answer, _DECIMALS)
        key = (name + 0.0).tobytes()
        if key not in self._codes:
            self._codes[key] = len(self._values)
            self._values.append(answer)
        return self._codes[key]

    def _domain(self, array):
        if isinstance(self.bounds, str):
            low, high = array.min(axis=0), array.max(axis=0)
        else:
            try:
                low, high = (np.broadcast_to(b, array.shape[1:]) for b in self.bounds)
            except ValueError:
                raise ValueError(
                    "bounds must be (lowest, highest), each one number or one per "
                    f"feature; got {self.bounds!r}."
                )
        low, high = low.astype(np.float32), high.astype(np.float32)
        if not (
            np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()
        ):
            raise ValueError("bounds must be finite, and lowest not above highest.")
        array = array.astype(np.float32)
        if (array.min(axis=0) > high).any() or (array.max(axis=0) < low).any():
            raise ValueError(
                "bounds exclude all rows of X in some feature; give them in the units of "
                "X."
            )
        return low, high

    def _answer_kind(self):
        ids = leaf_ids_of(self.estimator_)
        if self.identity == "leaf" and ids is None:
            raise TypeError(
                f"identity='leaf' needs a victim with apply(X) and one leaf per row; "
                f"{type(self.estimator_).__name__} has none. Use identity='output'."
            )
        return "output" if ids is None or self.identity == "output" else "leaf"

    def _responder(self, kind):
        victim, ids = self.estimator_, leaf_ids_of(self.estimator_)
        if kind == "output":
            return partial(outputs_of, victim)
        return lambda rows: np.column_stack([ids(rows), outputs_of(victim, rows)])

    def _check_fitted_victim(self, victim):
        last = victim
        while isinstance(last, (FrozenEstimator, Pipeline)):
            last = last.estimator if isinstance(last, FrozenEstimator) else last[-1]
        if is_clusterer(last) or is_outlier_detector(last) or hasattr(last, "coef_"):
            raise TypeError(
                f"estimator: {type(last).__name__} is no decision tree, and has no "
                "leaves to find. Use EquationSolving for linear models, or an attack "
                "that trains a copy (KnockoffNets)."
            )
        if is_classifier(victim):
            check_victim(victim)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        victim = as_victim(self.estimator)
        if hasattr(victim, "__sklearn_tags__") and is_regressor(victim):
            victim = get_tags(victim)
            tags.estimator_type = "regressor"
            tags.classifier_tags, tags.regressor_tags = None, victim.regressor_tags
        return tags
