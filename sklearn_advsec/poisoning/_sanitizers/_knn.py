"""Labels against those of the nearest neighbours."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ..._sklearn import Interval, StrOptions
from .._base import Sanitizer, Verdict


class KNNSanitizer(Sanitizer):
    """Relabel, or remove, rows whose nearest neighbours agree on another label.

    It cures labels that were flipped at random, which lie among rows of their true
    class. Flips that an attacker has chosen, close to each other, agree with each other:
    the benchmarks hold both.

    Parameters
    ----------
    n_neighbors : int, default=10
        How many neighbours of a row are asked; at most all others.
    threshold : float, default=0.6
        Share of the neighbours that has to agree on one label.
    action : {"relabel", "remove"}, default="relabel"
        What happens to rows that have another label.
    contamination : float, default=0.3
        Largest share of each class that is relabelled or removed.
    metric : str, default="euclidean"
        Distance of rows. Columns are taken as they are: scale them before.
    n_jobs : int, default=None
        Number of jobs of the search for neighbours.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        The largest share of a row's neighbours that agrees on another label than its own.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Positions of relabelled rows in the data that is returned.

    See Also
    --------
    SphereSlabSanitizer : By the distance from the classes' centres.
    SanitizedClassifier : Cleans inside of `fit`.

    References
    ----------
    .. [1] A. Paudice, L. Munoz-Gonzalez, E. Lupu, "Label sanitization against label
       flipping poisoning attacks", arXiv:1803.00992 (Algorithm 2).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_advsec.poisoning import KNNSanitizer, LabelFlipping
    >>> X, y = load_iris(return_X_y=True)
    >>> flips = LabelFlipping(strategy="random", budget=15, random_state=0)
    >>> X_poisoned, y_poisoned = flips.fit_resample(X, y)
    >>> X_clean, y_clean = KNNSanitizer().fit_resample(X_poisoned, y_poisoned)
    >>> int((y_poisoned != y).sum()), bool((y_clean != y).sum() < 8)
    (15, True)
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "action": [StrOptions({"relabel", "remove"})],
        "metric": [str],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        *,
        n_neighbors: int = 10,
        threshold: float = 0.6,
        action: Any = "relabel",
        contamination: float = 0.3,
        metric: str = "euclidean",
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.threshold = threshold
        self.action = action
        self.contamination = contamination
        self.metric = metric
        self.n_jobs = n_jobs

    def _decide(self, data):
        n, n_classes = len(data.y), len(data.classes)
        k = min(self.n_neighbors, n - 1)
        search = NearestNeighbors(n_neighbors=k, metric=self.metric, n_jobs=self.n_jobs)
        neighbours = search.fit(data.numbers(self)).kneighbors(return_distance=False)
        shares = np.zeros((n, n_classes))
        at = np.arange(n)
        for column in data.y[neighbours].T:
            shares[at, column] += 1 / k
        shares[at, data.y] = 0
        scores = shares.max(1)
        suspects = scores >= self.threshold - 1e-12
        codes = shares.argmax(1) if self.action == "relabel" else None
        return Verdict(scores, suspects, codes)
