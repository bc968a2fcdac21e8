"""One function for certificates: exact distances, bounds of networks, smoothing."""

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from ... import trees
from ._as_module import LINEAR, as_module, inner
from ._certificate import Certificate
from ._exact_distances import linear_distance, neighbour_distance
from ._intervals import margin_bounds, trace, with_two_rows
from ._linear_bounds import Ball, LinearBounds
from ._smoothing import RandomizedSmoothingClassifier

_METHODS = ("auto", "exact", "ibp", "crown-ibp", "crown")
_NORMS = (np.inf, 2, 1)
# Above so many ReLUs, bounding each by linear bounds takes too long for a default.
_MANY_RELUS = 1000
# Bisections of the radius, and how many rows are bounded at once.
_HALVINGS = 14
_ROWS = {"ibp": 512, "crown-ibp": 128, "crown": 16}


def certify(
    estimator, X, *, norm=np.inf, eps=None, method="auto", bounds=None, max_radius=None
):
    """Compute within which radius a fitted classifier's predictions cannot change.

    - A :class:`RandomizedSmoothingClassifier` certifies itself (``norm=2``), with its
      confidence.
    - Linear classifiers (also behind scalers and PCA) and ``KNeighborsClassifier`` of one
      neighbour (``norm=2``) have the exact distance to their boundary.
    - Tree ensembles have lower bounds, or with ``method="exact"`` the exact distance to
      the nearest row of another class: see :func:`sklearn_advsec.trees.certify`.
    - Networks and MLPClassifier have lower bounds: intervals (IBP), or linear bounds
      (CROWN), whose ReLUs are bounded by linear bounds again or by intervals. They are
      tight for nets trained for it, such as :class:`IntervalBoundClassifier`, and for
      small ones. They hold up to the rounding of the net's own arithmetic.

    Parameters
    ----------
    estimator : classifier
        Fitted.
    X : array-like of shape (n_rows, ...)
        Rows.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm of the perturbations. Intervals bound only the norm inf.
    eps : float, default=None
        For networks, the one radius to try, which costs one pass: rows then have radius
        `eps` or 0. None looks for the largest one, by bisection.
    method : {"auto", "exact", "ibp", "crown-ibp", "crown"}, default="auto"
        "auto" is exact where that is possible, else "crown" for chains of affine layers
        and ReLUs of up to 1000 neurons, "crown-ibp" for larger ones, and "ibp" for any
        other network.
    bounds : tuple (lower, upper), default=None
        A box that perturbed rows stay in, such as (0, 1) for images. Bounds of networks
        in the norm inf are tighter with it; others do not use it.
    max_radius : float, default=None
        Where the search for a radius of a network begins to halve; by default the range
        of `X`, or 1.

    Returns
    -------
    certificate : Certificate
        Predictions and radii.

    Raises
    ------
    TypeError
        If there are no bounds for such a classifier, or for a layer of the network.
    ValueError
        If the method does not go with the classifier or the norm.

    References
    ----------
    .. [1] S. Gowal et al., "On the effectiveness of interval bound propagation for
       training verifiably robust models", arXiv:1810.12715 (Section 3).
    .. [2] H. Zhang et al., "Efficient neural network robustness certification with
       general activation functions", arXiv:1811.00866 (Theorem 3.2).
    .. [3] H. Zhang et al., "Towards stable and efficient training of verifiably robust
       neural networks", arXiv:1906.06316 (CROWN-IBP).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.defense import certify
    >>> X, y = load_iris(return_X_y=True)
    >>> certificate = certify(LogisticRegression(max_iter=1000).fit(X, y), X, norm=2)
    >>> certificate.accuracy(y, [0.0, 0.5, 1.0]).round(2).tolist()
    [0.97, 0.72, 0.41]
    """
    check_is_fitted(estimator)
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}; got {method!r}.")
    if norm not in _NORMS:
        raise ValueError(f"norm must be np.inf, 2 or 1; got {norm!r}.")
    found = inner_smoothing(estimator)
    if found is not None:
        _only(method, "auto", "A RandomizedSmoothingClassifier has no bounds")
        if norm != 2:
            raise ValueError("norm must be 2 for a RandomizedSmoothingClassifier.")
        return found.certify(X)
    y_pred = np.asarray(estimator.predict(X))
    if trees.is_tree_ensemble(estimator):
        if method not in ("auto", "exact"):
            raise ValueError(f"method={method!r} is for networks; trees have 'exact'.")
        by = "bounds" if method == "auto" else "exact"
        radius = trees.certify(estimator, X, eps, norm=norm, method=by)
        return Certificate(y_pred, radius if eps is None else eps * radius, norm)
    X = check_array(X, dtype=np.float64, allow_nd=True, input_name="X")
    labels = np.searchsorted(estimator.classes_, y_pred)
    neighbours = inner(estimator)
    if isinstance(neighbours, KNeighborsClassifier):
        radius = _neighbours(neighbours, X, labels, norm, method)
        return Certificate(y_pred, radius, norm)
    module = as_module(estimator)
    if method in ("auto", "exact"):
        layer = _one_layer(module)
        if layer is not None:
            weight, bias = (t.double().cpu().numpy() for t in with_two_rows(layer))
            radius = linear_distance(weight, bias, X, labels, norm)
            return Certificate(y_pred, radius, norm)
    if method == "exact":
        raise ValueError("method='exact' is for linear classifiers and one neighbour.")
    box = (-np.inf, np.inf) if bounds is None else bounds
    margin, rows_at_once = _margin_function(module, X, labels, norm, method, box)
    if eps is None:
        start = max_radius or float(np.ptp(X)) or 1.0
        radius = _bisect(margin, len(X), start, rows_at_once)
    else:
        holds = _holds(margin, np.full(len(X), float(eps)), rows_at_once)
        radius = np.where(holds, float(eps), 0.0)
    return Certificate(y_pred, radius, norm)


def certifies_itself(estimator):
    """Whether a certificate costs the same whatever the radius."""
    if inner_smoothing(estimator) is not None:
        return True
    return isinstance(inner(estimator), (*LINEAR, KNeighborsClassifier))


def inner_smoothing(estimator):
    """Return the smoothed classifier inside of wrappers, or None."""
    estimator = inner(estimator)
    return estimator if isinstance(estimator, RandomizedSmoothingClassifier) else None


def _only(method, wanted, what):
    if method != wanted:
        raise ValueError(f"{what}: use method={wanted!r}; got {method!r}.")


def _neighbours(estimator, X, labels, norm, method):
    if estimator.n_neighbors != 1 or method not in ("auto", "exact") or norm != 2:
        raise ValueError(
            "KNeighborsClassifier is certified for n_neighbors=1, norm=2 and "
            f"method='exact'; got n_neighbors={estimator.n_neighbors}, norm={norm}, "
            f"method={method!r}."
        )
    if estimator.effective_metric_ != "euclidean":
        raise ValueError(
            "KNeighborsClassifier is certified for metric='euclidean'; got "
            f"{estimator.effective_metric_!r}."
        )
    return neighbour_distance(estimator._fit_X, estimator._y, X, labels)


def _one_layer(module):
    """Return a linear classifier's only layer, its scalers multiplied in; or None."""
    layers = [m for m in module.modules() if not list(m.children())]
    if not all(type(layer) is nn.Linear for layer in layers):
        return None
    if len(layers) == 1 and layers[0] is module:
        return module
    if not isinstance(module, nn.Sequential):
        return None
    with torch.no_grad():
        width = layers[0].in_features
        like = layers[0].weight
        origin = module(torch.zeros(1, width).to(like))
        units = module(torch.eye(width).to(like))
    joined = nn.Linear(width, origin.shape[1], dtype=origin.dtype)
    joined.weight = nn.Parameter((units - origin).T.contiguous(), requires_grad=False)
    joined.bias = nn.Parameter(origin[0], requires_grad=False)
    return joined


def _margin_function(module, X, labels, norm, method, box):
    """Return ``margin(rows, radius)``, the least margin of each, and a batch size."""
    tensors = [*module.parameters(), *module.buffers()]
    like = next(t for t in tensors if t.is_floating_point())
    x = torch.as_tensor(X).to(like)
    labels = torch.as_tensor(labels, device=like.device)
    graph = trace(module)
    chain = None
    if method != "ibp":
        try:
            chain = LinearBounds(graph)
        except TypeError:
            if method != "auto":
                raise
    if method == "auto":
        if chain is None:
            method = "ibp"
        else:
            small = norm != np.inf or chain.n_hidden(x) <= _MANY_RELUS
            method = "crown" if small else "crown-ibp"
    if method != "crown" and norm != np.inf:
        raise ValueError(
            f"method={method!r} bounds only perturbations in norm=np.inf; for norm="
            f"{norm} use method='crown'."
        )

    def margin(rows, radius):
        ball = Ball(x[rows], torch.as_tensor(radius).to(like), norm, *box)
        with torch.no_grad():
            least = margin_bounds(graph, ball.box, labels[rows])
            if method != "ibp":
                least = torch.maximum(least, chain.margins(ball, labels[rows], method))
        own = labels[rows][:, None]
        return least.scatter(1, own, torch.inf).amin(1).cpu().numpy()

    return margin, _ROWS[method]


def _holds(margin, radius, rows_at_once):
    parts = np.array_split(np.arange(len(radius)), -(-len(radius) // rows_at_once))
    return np.concatenate([margin(rows, radius[rows]) > 0 for rows in parts])


def _bisect(margin, n_rows, start, rows_at_once):
    low, high = np.zeros(n_rows), np.full(n_rows, start)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        holds = _holds(margin, middle, rows_at_once)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low
