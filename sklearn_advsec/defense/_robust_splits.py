"""Splits of a tree that are best after an attacker has moved the rows."""

import numpy as np


def best_split(x, counts, eps, min_leaf):
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
        One-hot labels.
    eps : float
        How far values may be moved.
    min_leaf : int
        Rows that each child has to hold.

    Returns
    -------
    impurity : float
        Sum over the children of their rows times their Gini impurity; infinite where
        there is no split.
    threshold : float
        Where it is.
    left : ndarray of shape (n_classes,)
        Rows of each class that go left.
    """
    order = np.argsort(x, kind="stable")
    x = x[order]
    total = np.zeros((len(x) + 1, counts.shape[1]))
    np.cumsum(counts[order], axis=0, out=total[1:])
    breaks = np.unique(np.concatenate([x - eps, x + eps]) if eps else x)
    thresholds = breaks[:-1] + (breaks[1:] - breaks[:-1]) / 2
    if not len(thresholds):
        return np.inf, np.nan, None
    surely_left = total[np.searchsorted(x, thresholds - eps, side="right")]
    maybe_left = total[np.searchsorted(x, thresholds + eps, side="right")]
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
    rows = left.sum(1)
    small = np.minimum(rows, len(x) - rows) < min_leaf - 1e-9
    impurity = np.where(small, np.inf, impurity)
    at = impurity.argmin()
    return impurity[at], thresholds[at], left[at]


def _gini(counts):
    """Return rows times impurity, along the last axis."""
    rows = counts.sum(-1)
    return rows - (counts**2).sum(-1) / np.maximum(rows, 1e-300)


def node_impurity(counts):
    """Rows of a node times its Gini impurity, for counts of shape (n_classes,)."""
    return float(_gini(counts))


def send_left(x, codes, threshold, eps, left, random_state):
    """Which rows go left, where the attacker has a say.

    Parameters
    ----------
    x : ndarray of shape (n_rows,)
        The feature.
    codes : ndarray of int, shape (n_rows,)
        Classes.
    threshold, eps : float
        The split, and how far values may be moved.
    left : ndarray of shape (n_classes,)
        How many rows of each class go left, to the next whole number.
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
        wanted = int(round(left[k] - (goes_left & (codes == k)).sum()))
        goes_left[mine[:wanted]] = True
    return goes_left
