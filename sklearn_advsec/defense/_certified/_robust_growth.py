"""How robust trees grow."""

import numpy as np
from sklearn.utils import check_random_state

from ...trees._ensemble import TreeEnsemble


def best_split(x, counts, eps, min_leaf, min_weight=0.0):
    """Best threshold of one feature, when each row may be moved by `eps`.

    Rows further than `eps` from a threshold are on their side of it; of the others, of
    each class as many go to either side as makes the children most alike. The impurity
    is concave in these numbers, and largest where both children have the proportions of
    the parent: the point of the box that is nearest to that is its maximum for two
    classes (GROOT, Theorem 1), and close to it for more.

    Parameters
    ----------
    x : ndarray of shape (n_rows,)
        The feature.
    counts : ndarray of shape (n_rows, n_classes)
        One-hot labels, times what the rows weigh.
    eps : float
        How far values may be moved.
    min_leaf : int
        Rows that each child has to hold.
    min_weight : float, default=0.0
        What each child has to weigh.

    Returns
    -------
    impurity : float
        Sum over the children of their weight times their Gini impurity; infinite where
        there is no split.
    threshold : float
        Where it is.
    left : ndarray of shape (n_classes,)
        Weight of each class that goes left.
    """
    order = np.argsort(x, kind="stable")
    x, counts = x[order], counts[order]
    total = _cumulated(counts)
    breaks = np.unique(np.concatenate([x - eps, x + eps]) if eps else x)
    thresholds = breaks[:-1] + (breaks[1:] - breaks[:-1]) / 2
    if not len(thresholds):
        return np.inf, np.nan, None
    surely = np.searchsorted(x, thresholds - eps, side="right")
    maybe = np.searchsorted(x, thresholds + eps, side="right")
    surely_left, maybe_left = total[surely], total[maybe]
    every = np.maximum(total[-1], 1e-300)
    shares = (surely_left / every).max(1), (maybe_left / every).min(1)
    impurity = np.full(len(thresholds), -np.inf)
    left = surely_left
    for share in shares:
        moved = np.clip(share[:, None] * total[-1], surely_left, maybe_left)
        value = _gini(moved) + _gini(total[-1] - moved)
        worse = value > impurity
        left = np.where(worse[:, None], moved, left)
        impurity = np.where(worse, value, impurity)
    rows = weight = left.sum(1)
    if ((counts != 0) & (counts != 1)).any():  # rows are not their weights
        n_rows = _cumulated(counts != 0)
        between = np.maximum(maybe_left - surely_left, 1e-300)
        share = (left - surely_left) / between
        rows = (n_rows[surely] + share * (n_rows[maybe] - n_rows[surely])).sum(1)
    small = np.minimum(rows, len(x) - rows) < min_leaf - 1e-9
    small |= np.minimum(weight, total[-1].sum() - weight) < min_weight
    impurity = np.where(small, np.inf, impurity)
    at = impurity.argmin()
    return impurity[at], thresholds[at], left[at]


def _cumulated(counts):
    """Return the sums of the first 0, 1, ... rows."""
    total = np.zeros((len(counts) + 1, counts.shape[1]))
    np.cumsum(counts, axis=0, out=total[1:])
    return total


def _gini(counts):
    """Return weight times impurity, along the last axis."""
    weight = counts.sum(-1)
    return weight - (counts**2).sum(-1) / np.maximum(weight, 1e-300)


def node_impurity(counts):
    """Weight of a node times its Gini impurity, for counts of shape (n_classes,)."""
    return float(_gini(counts))


def send_left(x, codes, weights, threshold, eps, left, random_state):
    """Which rows go left, where the attacker has a say.

    Parameters
    ----------
    x : ndarray of shape (n_rows,)
        The feature.
    codes : ndarray of int, shape (n_rows,)
        Classes.
    weights : ndarray of shape (n_rows,)
        What the rows weigh.
    threshold, eps : float
        The split, and how far values may be moved.
    left : ndarray of shape (n_classes,)
        What weight of each class goes left: as many rows as that is on average.
    random_state : RandomState
        Draws which of the rows in question do.

    Returns
    -------
    goes_left : ndarray of bool, shape (n_rows,)
    """
    goes_left = x <= threshold - eps
    free = ~goes_left & (x <= threshold + eps)
    for k in range(len(left)):
        mine = random_state.permutation(np.flatnonzero(free & (codes == k)))
        wanted = left[k] - weights[goes_left & (codes == k)].sum()
        if len(mine):
            goes_left[mine[: int(round(wanted / weights[mine].mean()))]] = True
    return goes_left


def grow_sample(forest, X, codes, weights, eps, n_classes, seed):
    """Grow one tree of a forest, from a bootstrap where it takes one."""
    random_state = check_random_state(seed)
    if forest.bootstrap:
        rows = random_state.randint(len(X), size=len(X))
        X, codes, weights = X[rows], codes[rows], weights[rows]
    return grow(forest, X, codes, weights, eps, n_classes, random_state)


def grow(settings, X, codes, weights, eps, n_classes, random_state, on_leaf=None):
    """Grow one tree.

    Parameters
    ----------
    settings : RobustDecisionTreeClassifier or RobustRandomForestClassifier
        Says how far.
    X : ndarray of shape (n_rows, n_features)
        Rows.
    codes : ndarray of int, shape (n_rows,)
        Classes.
    weights : ndarray of shape (n_rows,)
        What the rows weigh, more than 0.
    eps : ndarray of shape (n_features,)
        How far the attacker moves each feature.
    n_classes : int
        Number of classes.
    random_state : RandomState
        Draws the features, and the rows that are moved.
    on_leaf : callable, default=None
        Is told of each leaf how many rows it has; those of all leaves are all rows.

    Returns
    -------
    feature, threshold, left, right, value : ndarray
        Of the nodes, as in :class:`~sklearn_advsec.trees.TreeEnsemble`.
    """
    n_features = X.shape[1]
    n_looked_at = settings.max_features
    if n_looked_at is None:
        n_looked_at = n_features
    elif n_looked_at == "sqrt":
        n_looked_at = max(1, int(np.sqrt(n_features)))
    labels = np.eye(n_classes)[codes] * weights[:, np.newaxis]
    min_weight = settings.min_weight_fraction_leaf * weights.sum()
    depth_limit = np.inf if settings.max_depth is None else settings.max_depth

    def split(rows, depth, counts):
        """Return feature, threshold and which rows go left; None makes a leaf."""
        if len(rows) < settings.min_samples_split or depth >= depth_limit:
            return None
        if np.count_nonzero(counts) == 1:
            return None
        best = (node_impurity(counts) - 1e-9, None)
        tried = 0
        for f in random_state.permutation(n_features):
            if tried == n_looked_at:
                break
            impurity, at_value, sent = best_split(
                X[rows, f], labels[rows], eps[f], settings.min_samples_leaf, min_weight
            )
            tried += np.isfinite(impurity)  # constant features do not count
            if impurity < best[0]:
                best = (impurity, (f, at_value, sent))
        if best[1] is None:
            return None
        f, at_value, sent = best[1]
        goes_left = send_left(
            X[rows, f], codes[rows], weights[rows], at_value, eps[f], sent, random_state
        )
        if goes_left.all() or not goes_left.any():
            return None
        return f, at_value, goes_left

    feature, threshold, left, right, value = [], [], [], [], []
    todo = [(np.arange(len(X)), 0, None, None)]
    while todo:
        rows, depth, parent, side = todo.pop()
        at = len(feature)
        if parent is not None:
            side[parent] = at
        counts = labels[rows].sum(0)
        feature.append(-1)
        threshold.append(0.0)
        left.append(-1)
        right.append(-1)
        value.append(counts / counts.sum())
        found = split(rows, depth, counts)
        if found is None:
            if on_leaf is not None:
                on_leaf(len(rows))
            continue
        feature[at], threshold[at], goes_left = found
        todo.append((rows[~goes_left], depth + 1, at, right))
        todo.append((rows[goes_left], depth + 1, at, left))
    return tuple(np.array(part) for part in (feature, threshold, left, right, value))


def join(trees, classes):
    """Put grown trees together."""
    counts = [len(tree[0]) for tree in trees]
    roots = np.cumsum([0, *counts[:-1]])
    shift = np.repeat(roots, counts)
    feature, threshold, left, right, value = map(np.concatenate, zip(*trees, strict=True))
    return TreeEnsemble(
        classes=classes,
        roots=roots,
        feature=feature,
        threshold=threshold,
        left=left + shift,
        right=right + shift,
        missing_left=np.zeros(len(feature), dtype=bool),
        value=value,
        base=np.zeros(1),
        compare="float64",
        divisor=float(len(trees)),
    )
