"""Exact distances to the decision boundary: linear classifiers and one neighbour."""

import numpy as np
from scipy.optimize import nnls

_DUAL = {np.inf: 1, 2: 2, 1: np.inf}
# Rivals are looked at in the order of a lower bound; constraints enter a few at a time.
_NEAREST = 8


def linear_distance(weight, bias, X, labels, norm):
    r"""Distance of rows to where a linear classifier changes its mind.

    It is the least over the other classes k of
    :math:`(z_y - z_k) / \|w_y - w_k\|_q`, with the dual norm q.

    Parameters
    ----------
    weight : ndarray of shape (n_classes, n_features)
    bias : ndarray of shape (n_classes,)
    X : ndarray of shape (n_rows, n_features)
    labels : ndarray of int, shape (n_rows,)
        The predicted classes.
    norm : {np.inf, 2, 1}

    Returns
    -------
    distance : ndarray of shape (n_rows,)
    """
    logits = X @ weight.T + bias
    distance = np.full(len(X), np.inf)
    for k in range(len(weight)):
        length = np.linalg.norm(weight[labels] - weight[k], ord=_DUAL[norm], axis=1)
        gap = logits[np.arange(len(X)), labels] - logits[:, k]
        with np.errstate(divide="ignore", invalid="ignore"):
            to_k = np.where(length > 0, gap / length, np.inf)
        distance = np.where(labels == k, distance, np.minimum(distance, to_k))
    return distance.clip(0)


def neighbour_distance(rows, row_labels, X, labels):
    r"""Euclidean distance of rows to where their nearest neighbour is of another class.

    The points whose nearest row is q make a polyhedron, cut out by one linear constraint
    per row p of the class in question,
    :math:`2 (q - p)^T z \ge \|q\|^2 - \|p\|^2`; the nearest of them is a least distance
    problem. Rows q are looked at in the order of the lower bound that the nearest p
    gives, until it is beyond the best distance found.

    Parameters
    ----------
    rows : ndarray of shape (n_fitted, n_features)
        What the classifier remembers.
    row_labels : ndarray of int, shape (n_fitted,)
    X : ndarray of shape (n_rows, n_features)
    labels : ndarray of int, shape (n_rows,)
        The predicted classes.

    Returns
    -------
    distance : ndarray of shape (n_rows,)

    References
    ----------
    .. [1] L. Wang et al., "Evaluating the robustness of nearest neighbor classifiers: a
       primal-dual perspective", arXiv:1906.03972 (Equations 3 to 5).
    .. [2] C. Lawson and R. Hanson, "Solving least squares problems", 1974 (chapter 23,
       the least distance problem).
    """
    squares = (rows**2).sum(1)
    distance = np.empty(len(X))
    for i, (x, label) in enumerate(zip(X, labels, strict=True)):
        same, other = row_labels == label, row_labels != label
        distance[i] = _one_distance(
            x, rows[same], squares[same], rows[other], squares[other]
        )
    return distance


def _one_distance(x, same, same_squares, other, other_squares):
    to_same = np.linalg.norm(same - x, axis=1)
    to_other = np.linalg.norm(other - x, axis=1)
    nearest = to_same.argmin()
    apart = np.linalg.norm(other - same[nearest], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = (to_other**2 - to_same[nearest] ** 2) / (2 * apart)
    bound = np.where(apart > 0, bound, 0.0).clip(0)
    # q itself is in its polyhedron, unless a row of the same class lies on it.
    best = np.inf
    for j in bound.argsort():
        if bound[j] >= best:
            break
        normal = 2 * (other[j] - same)
        offset = other_squares[j] - same_squares - normal @ x  # normal @ delta >= offset
        found = _least_distance(normal, offset, best)
        best = min(best, found)
    return best


def _least_distance(normal, offset, enough):
    """Length of the shortest d with ``normal @ d >= offset``; inf if above `enough`."""
    used = np.argsort(-offset / np.linalg.norm(normal, axis=1).clip(1e-300))[:_NEAREST]
    slack = 1e-9 * max(1.0, np.abs(offset).max())
    while True:
        d = _project_onto(normal[used], offset[used])
        if d is None or np.linalg.norm(d) >= enough:
            return np.inf
        missing = offset - normal @ d
        new = np.argsort(-missing)[:_NEAREST]
        new = np.setdiff1d(new[missing[new] > slack], used)
        if not len(new):
            return float(np.linalg.norm(d))
        used = np.concatenate([used, new])


def _project_onto(normal, offset):
    """Solve min ||d|| with ``normal @ d >= offset``, or return None where none has it.

    By non-negative least squares on the stacked system (Lawson and Hanson, 23.27).
    """
    scale = np.linalg.norm(normal, axis=1)
    if (scale == 0).any():
        if (offset[scale == 0] > 1e-12).any():
            return None
        normal, offset, scale = (v[scale > 0] for v in (normal, offset, scale))
    if not len(normal) or (offset <= 0).all():
        return np.zeros(normal.shape[1])
    normal, offset = normal / scale[:, None], offset / scale
    size = np.abs(offset).max()
    stacked = np.vstack([normal.T, offset / size])
    target = np.zeros(len(stacked))
    target[-1] = 1.0
    weights, _ = nnls(stacked, target, maxiter=50 * len(normal) + 100)
    residual = stacked @ weights - target
    if abs(residual[-1]) < 1e-12:
        return None
    return -residual[:-1] / residual[-1] * size
