"""Certificates of fitted classifiers: which proof there is for which kind of them."""

from __future__ import annotations

from copy import copy
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import is_regressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from ... import trees
from ..._estimators import name_of
from ..._labels import class_positions
from ..._parallel import in_parallel
from ..._progress import logged
from ..._sklearn import Interval, StrOptions, validate_params
from ...threat import Box
from ...threat._ball import as_norm
from ...victim import as_victim, ask_labels
from ...victim._fitting import CLASSIFIER
from ._as_module import as_module, check_own_answers, inner
from ._certificate import Certificate
from ._exact_distances import linear_distance, neighbour_distance
from ._intervals import margin_bounds, trace, with_two_rows
from ._linear_bounds import Ball, LinearBounds
from ._smoothing import RandomizedSmoothingClassifier

_NORMS = (np.inf, 2, 1)
# Above so many ReLUs, bounding each by linear bounds takes too long for a default.
_MANY_RELUS = 1000
# Bisections of the radius, and how many rows are bounded at once.
_HALVINGS = 14
_ROWS = {"ibp": 512, "crown-ibp": 128, "crown": 16, "exact": 16}
# How far, for its size, a module's logit may be from that of the classifier's own label.
_ROUNDING = 1e-4


@validate_params(
    {
        "estimator": CLASSIFIER,
        "eps": [Interval(Real, 0, None, closed="left"), None],
        "method": [StrOptions({"auto", "exact", "ibp", "crown-ibp", "crown"})],
        "bounds": [tuple, list, None],
        "max_radius": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
    },
)
def certify(
    estimator: Any,
    X: ArrayLike,
    *,
    norm: float | Literal["linf", "l2", "l1"] = np.inf,
    eps: float | None = None,
    method: Literal["auto", "exact", "ibp", "crown-ibp", "crown"] = "auto",
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    max_radius: float | None = None,
    n_jobs: int | None = None,
) -> Certificate:
    """Compute within which radius a fitted classifier's predictions cannot change.

    - A :class:`RandomizedSmoothingClassifier` certifies itself (``norm=2``), with its
      confidence.
    - Linear classifiers (also behind scalers and PCA) and ``KNeighborsClassifier`` of one
      neighbour (``norm=2``) have the exact distance to their boundary.
    - Tree ensembles have lower bounds, or with ``method="exact"`` the exact distance to
      the nearest row of another class, as :mod:`sklearn_advsec.trees` computes them.
    - Networks and MLPClassifier have lower bounds: intervals (IBP), or linear bounds
      (CROWN), whose ReLUs are bounded by linear bounds again or by intervals. They are
      tight for nets trained for it, such as :class:`IntervalBoundClassifier`, and for
      small ones.

    All hold up to the rounding of the classifier's own arithmetic: of rows in float32, a
    nearest neighbour that is closer by 1e-7 of its size squared is one by chance.

    The layers that bounds are computed from are compared with the classifier's own
    predictions of `X`; where they disagree there is an error, and no certificate.

    Parameters
    ----------
    estimator : classifier
        Fitted.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        Rows, with the columns that the classifier was fitted with.
    norm : {np.inf, 2, 1, "linf", "l2", "l1"}, default=np.inf
        The norm of the perturbations. Intervals bound only the norm inf.
    eps : float, default=None
        The one radius that matters. Networks and trees then try no other, which costs
        one pass: rows have radius `eps` or 0. What is exact in closed form, or a vote, is
        given in full. None looks for the largest radius.
    method : {"auto", "exact", "ibp", "crown-ibp", "crown"}, default="auto"
        "auto" is exact where that is possible, else "crown" for chains of affine layers
        and ReLUs of up to 1000 neurons, "crown-ibp" for larger ones, and "ibp" for any
        other network.
    bounds : tuple (lower, upper), default=None
        A box that perturbed rows stay in, such as (0, 1) for images, and that holds `X`.
        Bounds of networks in the norm inf are tighter with it; others do not use it.
    max_radius : float, default=None
        Where the search for a radius of a network begins to halve, and the largest that
        it gives; by default the range of `X`, or 1.
    n_jobs : int, default=None
        Number of joblib jobs, between which the rows are shared out; the certificate does
        not depend on it. What is exact in closed form needs none. None leaves the
        `n_jobs` of a :class:`RandomizedSmoothingClassifier` as it is.

    Returns
    -------
    certificate : Certificate
        Predictions and radii.

    Raises
    ------
    TypeError
        If there are no bounds for such a classifier, or for a layer of the network, or
        if its predictions are not those of its layers.
    ValueError
        If a parameter has no such value, if the method does not go with the classifier
        or the norm, or if `X` has other columns than in `fit`.

    See Also
    --------
    sklearn_advsec.metrics.certified_accuracy_scorer : The accuracy that is certified.
    sklearn_advsec.evasion.TreeExactAttack : Adversarial rows to the distances of trees.

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
    estimator = as_victim(estimator)
    check_is_fitted(estimator)
    norm = as_norm(norm, _NORMS)
    found = certifier(estimator, method, bounds, max_radius, n_jobs)
    found.check(norm)
    return found.certificate(X, norm, eps)


def certifier(estimator, method="auto", bounds=None, max_radius=None, n_jobs=None):
    """Return what certifies a fitted classifier: a :class:`Certifier`.

    Parameters are those of :func:`certify`.
    """
    if is_regressor(estimator):
        raise TypeError(
            f"estimator: {name_of(estimator)} is a regressor. Of trees, "
            "sklearn_advsec.trees.certified_radii takes a RegressionVictim, which says "
            "how far a prediction may move."
        )
    innermost = inner(estimator)
    if isinstance(innermost, RandomizedSmoothingClassifier):
        return Smoothed(estimator, method, n_jobs)
    if trees.is_tree_ensemble(estimator):
        return Trees(estimator, method, n_jobs)
    if isinstance(innermost, KNeighborsClassifier):
        return Neighbour(estimator, method, n_jobs)
    module = as_module(estimator)
    layer = _one_layer(module)
    if method in ("auto", "exact") and layer is not None:
        return Linear(estimator, method, module, layer)
    return Network(estimator, method, module, bounds, max_radius, n_jobs)


class Certifier:
    """A kind of proof for a fitted classifier; a subclass writes `radius`.

    Attributes
    ----------
    methods : tuple of str
        What `method` may be.
    norms : tuple of float
        The norms that it knows.
    """

    methods = ("auto", "exact")
    norms = _NORMS

    def __init__(self, estimator, method, n_jobs=None):
        self.estimator = estimator
        self.method = method
        self.n_jobs = n_jobs

    def check(self, norm):
        """Raise where the method or the norm is none of this proof."""
        kind = type(self).__name__
        name = name_of(inner(self.estimator))
        if self.method not in self.methods:
            raise ValueError(
                f"method={self.method!r} is none for {name}, which is certified as "
                f"{kind!r}: use one of {self.methods}."
            )
        if norm not in self.norms:
            raise ValueError(
                f"norm must be {' or '.join(map(str, self.norms))} for {name}; got "
                f"{norm}."
            )

    def certificate(self, X, norm, eps):
        """Return the :class:`Certificate` of rows, whose columns `predict` checks."""
        y_pred = ask_labels(self.estimator, X)
        return Certificate(y_pred, self.radius(X, norm, eps), norm)

    def radius(self, X, norm, eps):
        """Return radii within which predictions do not change.

        Parameters
        ----------
        X : {ndarray, DataFrame} of shape (n_rows, ...)
            Rows.
        norm : float
            The norm of the perturbations.
        eps : float or None
            The radius that matters, where others cost more.

        Returns
        -------
        radius : ndarray of shape (n_rows,)
        """
        raise NotImplementedError

    def _numbers_and_labels(self, X):
        """Return rows as an array of floats, and the positions of their predictions."""
        y_pred = ask_labels(self.estimator, X)
        array = check_array(
            X, dtype=np.float64, allow_nd=True, input_name="X", force_writeable=True
        )  # a DataFrame's array is not writeable, of which torch warns
        return array, class_positions(y_pred, self.estimator.classes_, "predict")


class Smoothed(Certifier):
    """Randomized smoothing: radii of the vote, with a confidence."""

    methods = ("auto",)
    norms = (2,)

    def certificate(self, X, norm, eps):
        """Let the classifier certify itself."""
        smoothed = inner(self.estimator)
        if self.n_jobs is not None:
            smoothed = copy(smoothed).set_params(n_jobs=self.n_jobs)
        return smoothed.certify(X)

    def radius(self, X, norm, eps):
        """Return the radii of its certificate."""
        return self.certificate(X, norm, eps).radius


class Trees(Certifier):
    """Trees: bounds of each leaf's box, or the exact distance."""

    def radius(self, X, norm, eps):
        """Return distances to another class, or bounds of them."""
        by = "bounds" if self.method == "auto" else "exact"
        found = trees.certified_radii(
            self.estimator, X, eps, norm=norm, method=by, n_jobs=self.n_jobs
        )
        return found if eps is None else eps * found


class Neighbour(Certifier):
    """One nearest neighbour: the exact distance to another cell."""

    norms = (2,)

    def __init__(self, estimator, method, n_jobs):
        super().__init__(estimator, method, n_jobs)
        self.neighbours = known = inner(estimator)
        check_own_answers(known)
        if known.n_neighbors != 1 or known.effective_metric_ != "euclidean":
            raise ValueError(
                "KNeighborsClassifier is certified for n_neighbors=1 and "
                f"metric='euclidean'; got n_neighbors={known.n_neighbors}, "
                f"metric={known.effective_metric_!r}."
            )

    def radius(self, X, norm, eps):
        """Return distances to where the nearest neighbour is of another class."""
        X, labels = self._numbers_and_labels(X)
        known = self.neighbours

        def distance(part):
            return neighbour_distance(known._fit_X, known._y, *part)

        parts = [(X[at], labels[at]) for at in gen_batches(len(X), _ROWS["exact"])]
        found = in_parallel(distance, parts, len(parts), self.n_jobs)
        return np.concatenate(list(logged(found, "certify", "part", len(parts))))


class _Layers(Certifier):
    """What is computed from a module that answers as the classifier does."""

    def __init__(self, estimator, method, module, n_jobs=None):
        super().__init__(estimator, method, n_jobs)
        self.module = module

    def _compared(self, X):
        """Return rows and labels, or raise where the module says something else."""
        X, labels = self._numbers_and_labels(X)
        tensors = [*self.module.parameters(), *self.module.buffers()]
        self.like = next(t for t in tensors if t.is_floating_point())
        with torch.no_grad():
            parts = torch.as_tensor(X).to(self.like).split(1024)
            out = [self.module(part) for part in parts]
        if not isinstance(out[0], torch.Tensor):
            raise TypeError(
                f"estimator: the module returns a {type(out[0]).__name__}; bounds are of "
                "one that returns a tensor."
            )
        logits = torch.cat([part.flatten(1) for part in out])
        if logits.shape[1] == 1:
            if 0 <= logits.min() and logits.max() <= 1 and _ends_in_sigmoid(self.module):
                raise TypeError(
                    f"estimator: the only output of {name_of(self.estimator)} is a "
                    "probability. Bounds are of logits: leave the last sigmoid out."
                )
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        logits = logits.double().cpu().numpy()
        behind = logits.max(1) - logits[np.arange(len(X)), labels]
        differ = behind > _ROUNDING * (1 + np.abs(logits).max(1))
        if differ.any():
            raise TypeError(
                f"estimator: of row {int(differ.argmax())}, {name_of(self.estimator)} "
                "predicts something else than its layers do, so that bounds of them "
                "would prove nothing."
            )
        return X, labels


class Linear(_Layers):
    """A linear classifier: the exact distance to its boundary."""

    def __init__(self, estimator, method, module, layer):
        super().__init__(estimator, method, module)
        self.layer = layer

    def radius(self, X, norm, eps):
        """Return distances to the nearest boundary."""
        X, labels = self._compared(X)
        weight, bias = (t.double().cpu().numpy() for t in with_two_rows(self.layer))
        return linear_distance(weight, bias, X, labels, norm)


class Network(_Layers):
    """A network: lower bounds of the margins over a ball, by intervals or by lines."""

    methods = ("auto", "ibp", "crown-ibp", "crown")

    def __init__(self, estimator, method, module, bounds, max_radius, n_jobs):
        super().__init__(estimator, method, module, n_jobs)
        self.bounds = bounds
        self.max_radius = max_radius
        self.graph = trace(module)
        self.chain = None
        if method not in ("ibp", "exact"):
            try:
                self.chain = LinearBounds(self.graph)
            except TypeError:
                if method != "auto":
                    raise

    def radius(self, X, norm, eps):
        """Return the largest radii that are proved, or which rows have that of `eps`."""
        X, labels = self._compared(X)
        method = self._choose_method(torch.as_tensor(X).to(self.like), norm)
        start = None
        if eps is None:
            start = self.max_radius or float(np.ptp(X)) or 1.0
        found = partial(
            self._radius_of_some,
            norm=norm,
            box=Box(self.bounds, X),
            method=method,
            eps=eps,
            start=start,
        )
        n_parts = -(-len(X) // _ROWS[method])
        groups = np.array_split(np.arange(len(X)), n_parts)
        parts = ((X[rows], labels[rows]) for rows in groups)
        radii = in_parallel(found, parts, n_parts, self.n_jobs)
        return np.concatenate(list(logged(radii, "certify", "part", n_parts)))

    def _radius_of_some(self, part, *, norm, box, method, eps, start):
        """Return the radii of some rows, whose margins are bounded together."""
        X, labels = part
        x = torch.as_tensor(X).to(self.like)
        own = torch.as_tensor(labels, device=x.device)

        def holds(radius):
            radius = torch.as_tensor(radius).to(x)
            ball = Ball(x, radius, norm, box.lower, box.upper)
            with torch.no_grad():
                least = margin_bounds(self.graph, ball.box, own)
                if method != "ibp":
                    by_lines = self.chain.margins(ball, own, method)
                    least = torch.maximum(least, by_lines)
            least = least.scatter(1, own[:, None], torch.inf).amin(1)
            return least.cpu().numpy() > 0

        if eps is not None:
            return np.where(holds(np.full(len(X), float(eps))), float(eps), 0.0)
        low, high = np.zeros(len(X)), np.full(len(X), start)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            proved = holds(middle)
            low, high = np.where(proved, middle, low), np.where(proved, high, middle)
        return low

    def _choose_method(self, x, norm):
        method = self.method
        if method == "auto" and self.chain is None:
            method = "ibp"
        elif method == "auto":
            small = norm != np.inf or self.chain.n_hidden(x) <= _MANY_RELUS
            method = "crown" if small else "crown-ibp"
        if method != "crown" and norm != np.inf:
            raise ValueError(
                f"method={method!r} bounds only perturbations in norm=np.inf; for norm="
                f"{norm} use method='crown'."
            )
        return method


def _ends_in_sigmoid(module):
    graph = trace(module)
    last = [node for node in graph.graph.nodes if node.op != "output"][-1]
    if last.op == "call_module":
        return isinstance(graph.get_submodule(last.target), nn.Sigmoid)
    return last.target in (torch.sigmoid, "sigmoid")


def _one_layer(module):
    """Return an affine module's only layer, all its layers multiplied out; or None."""
    try:
        graph = trace(module)
    except TypeError:
        return None
    *nodes, output = (n for n in graph.graph.nodes if n.op != "placeholder")
    if output.args[0] not in nodes or not all(
        node.op == "call_module" and type(graph.get_submodule(node.target)) is nn.Linear
        for node in nodes
    ):
        return None
    layers = [graph.get_submodule(node.target) for node in nodes]
    if len(layers) == 1:
        return layers[0]
    with torch.no_grad():
        width = layers[0].in_features
        like = layers[0].weight
        origin = module(torch.zeros(1, width).to(like))
        units = module(torch.eye(width).to(like))
    joined = nn.Linear(width, origin.shape[1], dtype=origin.dtype)
    joined.weight = nn.Parameter((units - origin).T.contiguous(), requires_grad=False)
    joined.bias = nn.Parameter(origin[0], requires_grad=False)
    return joined
