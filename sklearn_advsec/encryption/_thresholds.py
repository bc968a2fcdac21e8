"""Networks of thresholds: what an encryption of integers with look-up tables is good at.

A neuron is 0 or 1: whether a sum of integers reaches a cut. Discretized perceptrons are
such networks, and so are decision trees: their first layer compares features with
thresholds, their second one tells which leaf was reached.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .._estimators import name_of, unwrap
from ..trees import is_tree_ensemble, tree_ensemble
from ..trees._reading import read_inside
from ._discretized import DiscretizedMLPClassifier


@dataclass
class Quantizer:
    """How the numbers of a row become the integers that are encrypted.

    Attributes
    ----------
    low : list of float
        Where the first interval of each feature begins; values are 0 up to its end.
    step : list of float or None
        Width of the intervals; None where there are two, which meet at `low`.
    n_bits : int
        There are ``2 ** n_bits`` intervals.
    signs : bool
        Whether rows have to hold -1 and 1, and nothing else.
    """

    low: list
    step: list | None
    n_bits: int
    signs: bool = False

    def __call__(self, X):
        """Return the integers of rows."""
        if self.signs and not np.isin(X, (-1, 1)).all():
            row = np.flatnonzero(~np.isin(X, (-1, 1)).all(axis=1))[0]
            raise ValueError(
                f"X: row {row} holds other values than -1 and 1, for which the network "
                "was made (threshold=None)."
            )
        if self.step is None:
            return (X > np.asarray(self.low)).astype(np.int64)
        with np.errstate(over="ignore"):
            interval = np.ceil((X - np.asarray(self.low)) / np.asarray(self.step)) - 1
        return np.clip(interval, 0, 2**self.n_bits - 1).astype(np.int64)


@dataclass
class ThresholdLayer:
    """Neurons that are 1 where ``weight @ u + bias >= cut``, and 0 elsewhere.

    Attributes
    ----------
    weight : csr_array of int, shape (n_neurons, n_inputs)
        The matrix.
    bias : ndarray of int, shape (n_neurons,)
        Is added, such that no sum is negative.
    cut : ndarray of int, shape (n_neurons,)
        The sums that count as 1 begin here.
    n_bits : int
        Sums are below ``2 ** n_bits``.
    rounded_bits : int
        How many low bits of a sum are rounded off before it is compared.
    """

    weight: sparse.csr_array
    bias: np.ndarray
    cut: np.ndarray
    n_bits: int
    rounded_bits: int = 0

    @property
    def top(self):
        """The largest sum that may be; one that is rounded up must fit, too."""
        room = 2 ** (self.rounded_bits - 1) if self.rounded_bits else 0
        return 2**self.n_bits - 1 - room

    def sums(self, u):
        """Return the sums of rows."""
        return np.asarray((self.weight @ u.T).T) + self.bias

    def __call__(self, u):
        """Return the neurons of rows."""
        return (self.sums(u) >= self.cut).astype(np.int64)


@dataclass
class ThresholdNetwork:
    """Layers of thresholds, and integer weights of the last of them.

    Attributes
    ----------
    quantizer : Quantizer
        What the client does to rows.
    layers : list of ThresholdLayer
        The neurons.
    weight : ndarray of int, shape (n_scores, n_neurons)
        What is summed at the end.
    scale : float
        Scores are the sums times it, plus `offset`.
    offset : ndarray of shape (n_scores,)
        Is added by the client, who knows it.
    limits : pair of ndarray of int, shape (n_scores,)
        The smallest and the largest sums.
    """

    quantizer: Quantizer
    layers: list
    weight: np.ndarray
    scale: float
    offset: np.ndarray
    limits: tuple

    @property
    def depth(self):
        """How many look-ups there are in a row."""
        return len(self.layers)

    @property
    def n_bootstraps(self):
        """How many look-ups there are."""
        return sum(len(layer.cut) for layer in self.layers)

    def scores(self, X):
        """Compute the scores of rows in plain arithmetic."""
        u = self.quantizer(X)
        for layer in self.layers:
            u = layer(u)
        return self.scores_of(u @ self.weight.T)

    def scores_of(self, sums):
        """Return the scores that the sums at the end stand for."""
        return self.scale * sums + self.offset

    def left_at(self, X):
        """Return in which layer a sum of each row is out of range; -1 if nowhere."""
        u, left = self.quantizer(X), np.full(len(X), -1)
        for k, layer in enumerate(self.layers):
            sums = layer.sums(u)
            outside = ((sums < 0) | (sums > layer.top)).any(axis=1)
            left[outside & (left < 0)] = k
            u = layer(u)
        return left

    def check_activations(self, X):
        """Raise where a sum of a row is out of range: it would wrap around."""
        left = self.left_at(X)
        if (left >= 0).any():
            row = np.flatnonzero(left >= 0)[0]
            raise ValueError(
                f"X: row {row} has sums in layer {left[row]} that are larger than those "
                "of the rows that the network was compiled for. Fit on rows like it."
            )


def threshold_network(estimator, X, *, n_bits, leaf_bits, rounded_bits):
    """Read a fitted estimator as a network of thresholds.

    Parameters
    ----------
    estimator : estimator
        A discretized perceptron, or a tree ensemble.
    X : ndarray of shape (n_rows, n_features)
        Rows that it will meet.
    n_bits : int
        Bits of the features of trees.
    leaf_bits : int
        Bits of the values of their leaves.
    rounded_bits : int
        How many low bits of the sums of a perceptron are rounded off.

    Returns
    -------
    network : ThresholdNetwork
        The network.
    """
    inner = unwrap(estimator)
    if isinstance(inner, DiscretizedMLPClassifier):
        return _of_perceptron(inner, X, rounded_bits)
    if is_tree_ensemble(inner) and not isinstance(inner, tuple(read_inside)):
        return _of_trees(inner, X, n_bits, leaf_bits)
    raise TypeError(
        f"estimator: {name_of(estimator)} is no network of thresholds, which scheme TFHE "
        "computes: tree ensembles and DiscretizedMLPClassifier are. Take scheme='ckks'."
    )


def _of_perceptron(estimator, X, rounded_bits):
    signs = estimator.thresholds_ is None
    low = np.zeros(X.shape[1]) if signs else estimator.thresholds_
    quantizer = Quantizer(low.tolist(), None, 1, signs)
    u, layers = quantizer(X), []
    for weight, bias in zip(
        estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True
    ):
        # Of a sum over -1 and 1, that over 0 and 1 is half: w (2 u - 1) + b >= 0.
        least = np.ceil((weight.sum(axis=1) - bias) / 2).astype(np.int64)
        layers.append(_ranged(weight, least, u, rounded_bits))
        u = layers[-1](u)
    weight = estimator.coefs_[-1]
    offset = estimator.intercepts_[-1] - weight.sum(axis=1)
    if len(weight) == 2:
        weight, offset = weight[1:] - weight[:1], offset[1:] - offset[:1]
    limits = np.minimum(weight, 0).sum(axis=1), np.maximum(weight, 0).sum(axis=1)
    return ThresholdNetwork(quantizer, layers, weight, 2.0, offset, limits)


def _ranged(weight, least, u, rounded_bits):
    """Make a layer of sums that are to reach `least`, for the range of those seen."""
    sums = u @ weight.T - least
    room = 2**rounded_bits
    half = room // 2
    low, high = min(int(sums.min()), -room), max(int(sums.max()), room)
    used = high - low + 1 + (2 * room if rounded_bits else 0)
    n_bits = (used - 1).bit_length()
    # What reaches the cut is rounded to a multiple of `room`, and what is below is not.
    multiple = -(-(half - low + (2**n_bits - used) // 2) // room)
    cut = multiple * room - half
    return ThresholdLayer(
        sparse.csr_array(weight),
        cut - least,
        np.full(len(weight), cut),
        n_bits,
        rounded_bits,
    )


def _of_trees(estimator, X, n_bits, leaf_bits):
    ensemble = tree_ensemble(estimator)
    if ensemble.steps:
        steps = ", ".join(type(step).__name__ for step in ensemble.steps)
        raise TypeError(
            f"estimator: {name_of(estimator)} changes rows ({steps}) before its trees "
            "compare them, which is not computed under encryption. Trees need no "
            "scaling: fit them on rows as clients have them."
        )
    if (ensemble.category >= 0).any():
        raise TypeError(
            f"estimator: {name_of(estimator)} splits by sets of categories; only "
            "thresholds are computed under encryption."
        )
    low, high = X.min(axis=0), X.max(axis=0)
    step = np.where(high > low, (high - low) / 2**n_bits, 1.0)
    quantizer = Quantizer(low.tolist(), step.tolist(), n_bits)
    nodes = np.flatnonzero(ensemble.feature >= 0)
    if not len(nodes):
        raise ValueError(f"estimator: the trees of {name_of(estimator)} have no splits.")
    feature = ensemble.feature[nodes]
    cut = _cuts(ensemble, nodes, X, quantizer)
    # Nodes that quantization makes alike are compared once.
    pairs, which = np.unique(np.c_[feature, cut], axis=0, return_inverse=True)
    compared = dict(zip(nodes.tolist(), which.ravel().tolist(), strict=True))
    selection = sparse.csr_array(
        (np.ones(len(pairs), np.int64), (np.arange(len(pairs)), pairs[:, 0])),
        shape=(len(pairs), X.shape[1]),
    )
    first = ThresholdLayer(selection, np.zeros(len(pairs), np.int64), pairs[:, 1], n_bits)
    rows, values, trees = [], [], []
    constant = ensemble.base.astype(np.float64)
    for tree, root in enumerate(ensemble.roots):
        paths = _paths(ensemble, int(root), compared)
        # No quantized row is sent both ways by one comparison.
        paths = [(leaf, *sides) for leaf, *sides in paths if not sides[0] & sides[1]]
        value = ensemble.value[[leaf for leaf, *_ in paths]]
        # One leaf of a tree is reached. One of them is not asked for: it is what the
        # constant says, and the others say by how much they differ from it.
        rest = np.abs(value[:, None] - value).max(axis=(1, 2)).argmin()
        constant = constant + value[rest]
        for k, (_, lefts, rights) in enumerate(paths):
            if k != rest:
                rows.append((lefts, rights))
                values.append(value[k] - value[rest])
                trees.append(tree)
    if ensemble.link == "nonnegative":
        constant = np.nextafter(constant, np.inf)
    weight = np.zeros((len(rows), len(pairs)), dtype=np.int64)
    for row, (lefts, rights) in zip(weight, rows, strict=True):
        row[list(rights)], row[list(lefts)] = 1, -1
    depth = abs(weight).sum(axis=1)
    # A leaf is reached where all comparisons of its path hold: that many are counted.
    bias = depth.max() - (weight > 0).sum(axis=1)
    n_layer_bits = int(depth.max()).bit_length()
    second = ThresholdLayer(
        sparse.csr_array(weight),
        bias,
        np.full(len(weight), depth.max()),
        n_layer_bits,
    )
    values = np.array(values)
    scale = abs(values).max() / (2 ** (leaf_bits - 1) - 1) or 1.0
    integers = np.rint(values / scale).astype(np.int64)
    starts = np.flatnonzero(np.diff(trees, prepend=-1))
    lowest = np.minimum.reduceat(integers, starts).clip(max=0).sum(axis=0)
    highest = np.maximum.reduceat(integers, starts).clip(min=0).sum(axis=0)
    return ThresholdNetwork(
        quantizer,
        [first, second],
        integers.T,
        float(scale),
        constant,
        (lowest, highest),
    )


def _cuts(ensemble, nodes, X, quantizer):
    """Return the interval from which on each node sends rows to the right.

    Its boundary is one of the two beside the threshold: the one that misleads fewer rows.
    """
    low, step = np.asarray(quantizer.low), np.asarray(quantizer.step)
    u, cuts = quantizer(X), []
    for node in nodes:
        f = ensemble.feature[node]
        at = (ensemble.threshold[node] - low[f]) / step[f]
        right = ~ensemble.goes_left(np.full(len(X), node), X[:, f])
        below, above = np.clip([np.floor(at), np.ceil(at)], 0, 2**quantizer.n_bits)
        misled = [np.sum((u[:, f] >= c) != right) + abs(c - at) for c in (below, above)]
        cuts.append(int(below if misled[0] < misled[1] else above))
    return np.array(cuts)


def _paths(ensemble, root, compared):
    """Yield each leaf of a tree, with the comparisons that lead left and right to it."""
    stack = [(root, frozenset(), frozenset())]
    while stack:
        node, lefts, rights = stack.pop()
        if ensemble.feature[node] < 0:
            yield node, lefts, rights
            continue
        at = compared[node]
        stack.append((int(ensemble.left[node]), lefts | {at}, rights))
        stack.append((int(ensemble.right[node]), lefts, rights | {at}))
