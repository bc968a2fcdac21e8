"""Sphere and slab: rows far from the mean of their class, or towards another one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from ..._labels import class_positions
from ..._rows import is_dataframe
from .._base import Sanitizer, Verdict


class SphereSlabSanitizer(Sanitizer):
    """Remove rows that lie far from the centroid of their class.

    A row has two distances: from its centroid (the sphere), and along the line to the
    nearest other centroid (the slab). The one by which it stands out more is its score.

    Centroids of clean rows (`trusted`: the oracle defense) are what
    :class:`CertifiedPoisoningBound` is about. Without these, they are taken from the data
    itself, which an attacker moves: then nothing is certified.

    Parameters
    ----------
    contamination : float, default=0.05
        Largest share of each class that is removed.
    trusted : tuple (X, y), default=None
        Clean rows with their labels, for the centroids.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        The larger of the two distances, each in units of its median over the class.
    centroids_ : ndarray of shape (n_classes, n_features)
        The means of the classes.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.

    See Also
    --------
    KNNSanitizer : By neighbours.
    CertifiedPoisoningBound : What poison can still do.

    References
    ----------
    .. [1] J. Steinhardt, P. W. Koh, P. Liang, "Certified defenses for data poisoning
       attacks", arXiv:1706.03691 (Section 2: sphere and slab; Section 3.2: by an oracle,
       and data-dependent).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_advsec.poisoning import SphereSlabSanitizer
    >>> X, y = load_iris(return_X_y=True)
    >>> X[0] = 20.0
    >>> sanitizer = SphereSlabSanitizer(contamination=0.02).fit(X, y)
    >>> 0 in sanitizer.sample_indices_, len(sanitizer.sample_indices_)
    (False, 147)
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "trusted": [tuple, None],
    }

    def __init__(
        self,
        *,
        contamination: float = 0.05,
        trusted: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        self.contamination = contamination
        self.trusted = trusted

    def _decide(self, data):
        rows = data.numbers(self)
        clean = (rows, data.y) if self.trusted is None else self._check_trusted(data)
        self.centroids_ = class_means(*clean, len(data.classes))
        sphere, slab = np.empty(len(data.y)), np.empty(len(data.y))
        for code in range(len(data.classes)):
            of = np.flatnonzero(data.y == code)
            mean, direction = self.centroids_[code], toward_next(self.centroids_, code)
            sphere[of] = _in_medians(distances(rows[of], mean))
            along = rows[of] @ direction - mean @ direction
            slab[of] = _in_medians(np.abs(along))
        return Verdict(np.maximum(sphere, slab))

    def _check_trusted(self, data):
        if len(self.trusted) != 2:
            raise ValueError("trusted must be a tuple (X, y).")
        rows, labels = self.trusted
        codes = class_positions(labels, data.classes, "trusted")
        if len(np.unique(codes)) < len(data.classes):
            raise ValueError("trusted holds no row of some class.")
        return rows, codes


def class_means(X, codes, n_classes):
    """Return the mean row of each class, of shape (n_classes, n_features)."""
    X = X.to_numpy(float) if is_dataframe(X) else X
    return np.stack(
        [np.asarray(X[codes == code].mean(0)).ravel() for code in range(n_classes)]
    )


def toward_next(centroids, code):
    """Return the unit vector from the nearest other centroid to that of a class."""
    differences = centroids[code] - centroids
    lengths = np.linalg.norm(differences, axis=1)
    lengths[code] = np.inf
    near = lengths.argmin()
    return differences[near] / max(lengths[near], np.finfo(float).tiny)


def distances(X, mean):
    """Return the Euclidean distances of rows, sparse ones too, from a point."""
    if not issparse(X):
        return np.linalg.norm(X - mean, axis=1)
    squares = np.asarray(X.multiply(X).sum(1)).ravel() - 2 * (X @ mean) + mean @ mean
    return np.sqrt(np.maximum(squares, 0))


def _in_medians(values):
    return values / max(np.median(values), np.finfo(float).tiny)
