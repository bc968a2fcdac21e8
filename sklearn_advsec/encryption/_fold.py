"""Folding: affine layers in a row are one layer, and take one product."""

import numpy as np
from scipy import sparse

from ._graph import Activation, Affine


def fold(layers, n_features):
    """Merge affine layers that follow each other.

    Parameters
    ----------
    layers : list of Affine and Activation
        Any order.
    n_features : int
        Width of the rows.

    Returns
    -------
    layers : list
        Affine layers and activations in turn, an affine one first and last.
    """
    folded = [_identity(n_features)]
    for layer in layers:
        last = folded[-1]
        if isinstance(layer, Activation):
            if isinstance(last, Activation):
                folded.append(_identity(width_of(folded)))
            folded.append(layer)
        elif isinstance(last, Activation):
            folded.append(layer)
        else:
            folded[-1] = _merged(last, layer)
    if isinstance(folded[-1], Activation):
        folded.append(_identity(width_of(folded)))
    return [_settled(layer) if isinstance(layer, Affine) else layer for layer in folded]


def width_of(layers):
    """Return how many values the last affine layer returns."""
    return next(len(x.bias) for x in reversed(layers) if isinstance(x, Affine))


def scaled(layer, *, before=(1.0, 0.0), after=(1.0, 0.0)):
    """Return a layer whose input and output are scaled and shifted, as one layer.

    Parameters
    ----------
    layer : Affine
        ``W x + b``.
    before, after : pair of float
        ``(a, c)`` stands for ``a t + c``.

    Returns
    -------
    layer : Affine
        ``after(W before(t) + b)``.
    """
    (a, c), (d, e) = before, after
    total = np.asarray(layer.weight.sum(axis=1)).ravel()
    return Affine(layer.weight * (a * d), d * (layer.bias + c * total) + e)


def _identity(n):
    return Affine(sparse.eye_array(n, format="csr"), np.zeros(n))


def _merged(first, second):
    weight = second.weight @ first.weight
    return Affine(weight, np.asarray(second.weight @ first.bias).ravel() + second.bias)


def _settled(layer):
    """Store a matrix that is mostly full as an array."""
    weight = layer.weight
    if sparse.issparse(weight) and weight.nnz > 0.5 * np.prod(weight.shape):
        weight = weight.toarray()
    return Affine(weight, layer.bias)
