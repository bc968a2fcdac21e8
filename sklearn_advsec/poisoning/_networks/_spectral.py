"""Spectral signatures: rows that stand out along the widest direction of their class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, eigsh

from ._representation import RepresentationSanitizer

_SMALL = 2**22  # values that are decomposed as a dense matrix


class SpectralSignatures(RepresentationSanitizer):
    """Remove the rows that stand out most along the widest direction of their class.

    Rows with a trigger share something in the representation that the other rows of
    their class lack, so the class is widest towards them. The score is the square of
    the centred representation's product with that direction, its first right singular
    vector. A clean class has a widest direction as well, and `contamination` of its rows
    are removed all the same: what that costs stands in the benchmarks.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Trained on the suspicious data for its representation of rows: what the last layer
        of a network sees (a skorch net, `MLPClassifier`), the leaves that a tree ensemble
        puts them in, or the rows themselves, for linear models. None makes a prototype,
        which takes the classifier of the `SanitizedClassifier` around it.
    contamination : float, default=0.1
        Share of each class that is removed: in the paper, 1.5 times the largest share of
        poison that is expected.
    representation : callable, default=None
        Maps rows to an array of shape (n_samples, width), instead of `estimator`.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        How far each row stands out.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.

    See Also
    --------
    ActivationClustering : Removes a cluster of a class.
    STRIP : Looks at single rows, after training as well.

    References
    ----------
    .. [1] B. Tran, J. Li, A. Madry, "Spectral signatures in backdoor attacks",
       arXiv:1811.00636 (Algorithm 1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.poisoning import BackdoorTrigger, SpectralSignatures
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> trigger = BackdoorTrigger("out_of_bounds", target_class=1, budget=20,
    ...                           random_state=0)
    >>> X_poisoned, y_poisoned = trigger.fit_resample(X, y)
    >>> sanitizer = SpectralSignatures(
    ...     RandomForestClassifier(random_state=0), contamination=0.1)
    >>> kept = sanitizer.fit(X_poisoned, y_poisoned).sample_indices_
    >>> int(sum(i in kept for i in trigger.poison_indices_)) < 10
    True
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        contamination: float = 0.1,
        representation: Callable[..., Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.representation = representation
        self.random_state = random_state

    def _of_class(self, features, code, data):
        return _centred_projection(features, data.seed) ** 2, None


def _centred_projection(features, seed):
    """Return the product of centred rows with their first right singular vector."""
    n, width = features.shape
    if n * width <= _SMALL:
        dense = features.toarray() if issparse(features) else features
        centred = dense - dense.mean(0)
        wide = n <= width  # by the smaller of the two products with itself
        gram = centred @ centred.T if wide else centred.T @ centred
        last = len(gram) - 1
        value, vector = eigh(gram, subset_by_index=(last, last))
        if wide:
            return vector[:, 0] * np.sqrt(max(value[0], 0))
        return centred @ vector[:, 0]
    mean = np.asarray(features.mean(0)).ravel()
    squares = features.multiply(features) if issparse(features) else features**2
    if squares.sum() - n * mean @ mean <= 1e-12 * squares.sum():  # all rows alike
        return np.zeros(n)

    def gram(v):
        v = v.ravel()
        along = features.T @ v - mean * v.sum()
        return features @ along - mean @ along

    gram = LinearOperator((n, n), matvec=gram, dtype=np.float64)
    start = np.random.RandomState(seed).standard_normal(n)
    value, vector = eigsh(gram, k=1, v0=start)
    return vector[:, 0] * np.sqrt(max(value[0], 0))
