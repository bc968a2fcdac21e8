"""How robust trees grow."""

import numpy as np
from sklearn.utils import check_random_state

from ...trees._ensemble import TreeEnsemble
from .._robust_splits import best_split, node_impurity, send_left


def grow_sample(forest, X, codes, eps, n_classes, seed):
    """Grow one tree of a forest, from a bootstrap where it takes one."""
    random_state = check_random_state(seed)
    if forest.bootstrap:
        rows = random_state.randint(len(X), size=len(X))
        X, codes = X[rows], codes[rows]
    return grow(forest, X, codes, eps, n_classes, random_state)


def grow(settings, X, codes, eps, n_classes, random_state):
    """Grow one tree.

    Parameters
    ----------
    settings : RobustDecisionTreeClassifier or RobustRandomForestClassifier
        Says how far.
    X : ndarray of shape (n_rows, n_features)
        Rows.
    codes : ndarray of int, shape (n_rows,)
        Classes.
    eps : ndarray of shape (n_features,)
        How far the attacker moves each feature.
    n_classes : int
        Number of classes.
    random_state : RandomState
        Draws the features, and the rows that are moved.

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
    labels = np.eye(n_classes)[codes]
    depth_limit = np.inf if settings.max_depth is None else settings.max_depth
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
        value.append(counts / len(rows))
        if len(rows) < settings.min_samples_split or depth >= depth_limit:
            continue
        if counts.max() == len(rows):
            continue
        best = (node_impurity(counts) - 1e-9, None)
        tried = 0
        for f in random_state.permutation(n_features):
            if tried == n_looked_at:
                break
            impurity, at_value, sent = best_split(
                X[rows, f], labels[rows], eps[f], settings.min_samples_leaf
            )
            tried += np.isfinite(impurity)  # constant features do not count
            if impurity < best[0]:
                best = (impurity, (f, at_value, sent))
        if best[1] is None:
            continue
        f, at_value, sent = best[1]
        goes_left = send_left(
            X[rows, f], codes[rows], at_value, eps[f], sent, random_state
        )
        if goes_left.all() or not goes_left.any():
            continue
        feature[at], threshold[at] = f, at_value
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
