"""A linear classifier from labels alone: points on its boundaries, found by bisection."""

import numpy as np
from scipy.optimize import linprog


def bisect(ask, near, far, label_near, label_far, n_steps):
    """Bisect segments between rows of different labels, all at once.

    Parameters
    ----------
    ask : callable
        Takes rows, returns positions of classes.
    near, far : ndarray of shape (n_segments, n_features)
        The ends.
    label_near, label_far : ndarray of int, shape (n_segments,)
        Their labels, which differ.
    n_steps : int
        Queries per segment.

    Returns
    -------
    boundary : ndarray of shape (n_segments, n_features)
        Middle of what is left of each segment.
    label_near, label_far : ndarray of int, shape (n_segments,)
        The labels on both sides of it.
    """
    near, far, label_far = near.copy(), far.copy(), label_far.copy()
    for _ in range(n_steps):
        middle = (near + far) / 2
        labels = ask(middle)
        same = labels == label_near
        near[same] = middle[same]
        far[~same], label_far[~same] = middle[~same], labels[~same]
    return (near + far) / 2, label_near, label_far


def solve_boundaries(points, first, second, X, labels, n_classes):
    r"""Find the linear classifier whose boundaries run through given points.

    Each point between classes k and l is one homogeneous equation,
    :math:`(w_k - w_l) \cdot x + b_k - b_l = 0`. Their null space holds the parameters;
    a linear program then picks, within it, those that label all rows correctly with the
    largest margin. It also finds the sign. The scale stays open.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
        Points on boundaries, with features of about unit scale.
    first, second : ndarray of int, shape (n_points,)
        The classes on both sides of each.
    X, labels : ndarray of shape (n_rows, n_features), (n_rows,)
        Rows with known labels.
    n_classes : int
        Number of classes.

    Returns
    -------
    weights : ndarray of shape (n_classes, n_features + 1)
        Coefficients and, last, intercepts, which sum to 0 over the classes.
    """
    points = np.column_stack([points, np.ones(len(points))])
    width = points.shape[1]
    equations = np.zeros((len(points), n_classes, width))
    rows = np.arange(len(points))
    equations[rows, first] = points
    equations[rows, second] = -points
    zero_sum = np.tile(np.eye(width), n_classes)
    system = np.vstack([equations.reshape(len(points), -1), zero_sum])
    _, singular, basis = np.linalg.svd(system, full_matrices=True)
    singular = np.concatenate([singular, np.zeros(len(basis) - len(singular))])
    small = singular <= 1e-6 * singular[0]
    n_free = max(int(small.sum()), 1)
    basis = basis[len(basis) - n_free :].reshape(n_free, n_classes, width)

    scores = np.einsum("fkw,nw->nfk", basis, np.column_stack([X, np.ones(len(X))]))
    own = np.take_along_axis(scores, labels[:, None, None], axis=2)
    other = np.broadcast_to(np.arange(n_classes) != labels[:, None, None], scores.shape)
    margins = (own - scores)[other].reshape(len(X), n_free, n_classes - 1)
    margins = margins.transpose(0, 2, 1).reshape(-1, n_free)
    result = linprog(
        c=np.append(np.zeros(n_free), -1.0),
        A_ub=np.column_stack([-margins, np.ones(len(margins))]),
        b_ub=np.zeros(len(margins)),
        bounds=[(-1, 1)] * n_free + [(None, None)],
    )
    return np.einsum("f,fkw->kw", result.x[:-1], basis)
