"""RONI: reject on negative impact, each row by what it does to trusted ones."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_consistent_length

from ..._labels import class_positions
from ..._sklearn import HasMethods, Interval, _safe_indexing
from ...batched import fit_many
from .._base import Sanitizer, Verdict


class RONI(Sanitizer):
    """Remove rows that, added to trusted ones, make a model worse on others of these.

    The trusted rows are split into rows to train with and a quiz, several times. A row's
    impact is the accuracy on the quiz with it, less that without it; small groups of
    rows of one class are tried together where `group_size` is more than 1, since one row
    seldom changes a prediction.

    Parameters
    ----------
    estimator : classifier or None, default=None
        What is trained; None makes a prototype, which takes the classifier of the
        `SanitizedClassifier` around it.
    trusted : tuple (X, y), default=None
        Clean rows, apart from the data that is sanitized. They are required: a quiz of
        suspicious rows would be poisoned itself.
    contamination : float, default=0.1
        Largest share of each class that is removed; of rows with a negative impact.
    n_splits : int, default=5
        How often the trusted rows are split.
    n_train : int, default=50
        How many trusted rows are trained with, in each split.
    group_size : int, default=1
        How many rows are tried at once.
    random_state : int, RandomState instance or None, default=None
        Seed.
    n_jobs : int, default=None
        Number of joblib jobs.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        By how much accuracy falls with the row; larger is more suspicious.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.

    See Also
    --------
    InfluenceSanitizer : An estimate of the same, without training anew.

    References
    ----------
    .. [1] M. Barreno, B. Nelson, A. Joseph, J. Tygar, "The security of machine learning",
       Machine Learning 81 (2010) (Section 5.1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn_advsec.poisoning import RONI
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> roni = RONI(GaussianNB(), trusted=(X[:300], y[:300]), random_state=0)
    >>> X_kept, y_kept = roni.fit_resample(X[300:400], y[300:400])
    >>> 90 <= len(X_kept) <= 100
    True
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "trusted": [tuple, None],
        "n_splits": [Interval(Integral, 1, None, closed="left")],
        "n_train": [Interval(Integral, 2, None, closed="left")],
        "group_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "contamination": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        trusted: tuple[ArrayLike, ArrayLike] | None = None,
        contamination: float = 0.1,
        n_splits: int = 5,
        n_train: int = 50,
        group_size: int = 1,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.trusted = trusted
        self.contamination = contamination
        self.n_splits = n_splits
        self.n_train = n_train
        self.group_size = group_size
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _n_tasks(self):
        return self.n_splits

    def _decide(self, data):
        estimator = self._own_estimator()
        rows, codes = self._trusted(data)
        groups = self._groups(data)
        X, y = stacked(rows, data.rows), np.concatenate([codes, data.y])
        labels = data.labels(y)
        n, impact = len(codes), np.zeros(len(data.y))
        for _ in self._tasks(range(self.n_splits), "split", stops=False):
            train, quiz = _split(codes, min(self.n_train, n // 2), data.rng)
            subsets = [train, *(np.append(train, n + group) for group in groups)]
            asked, truth = _safe_indexing(rows, quiz), data.labels(codes[quiz])
            scores = fit_many(
                estimator,
                X,
                labels,
                subsets,
                [data.seed] * len(subsets),
                n_jobs=self.n_jobs,
                result=partial(_share_of_right, asked, truth),
            )
            for group, score in zip(groups, scores[1:], strict=True):
                impact[group] += (scores[0] - score) / self.n_splits
        return Verdict(impact, impact > 0)

    def _trusted(self, data):
        if self.trusted is None:
            raise ValueError(
                "RONI needs trusted rows, apart from those that it sanitizes: set "
                "trusted to a tuple (X, y)."
            )
        if len(self.trusted) != 2:
            raise ValueError("trusted must be a tuple (X, y).")
        rows, labels = self.trusted
        codes = class_positions(labels, data.classes, "trusted")
        check_consistent_length(rows, codes)
        if np.bincount(codes, minlength=len(data.classes)).min() < 2:
            raise ValueError("trusted must hold two rows of each class or more.")
        return rows, codes

    def _groups(self, data):
        groups = []
        for code in range(len(data.classes)):
            of = data.rng.permutation(np.flatnonzero(data.y == code))
            groups += np.array_split(of, -(-len(of) // self.group_size))
        return groups


def _share_of_right(rows, labels, model):
    return np.mean(model.predict(rows) == labels)


def _split(codes, n_train, rng):
    """Return rows to train with, of each class its share or one, and the rest."""
    train = []
    for code in np.unique(codes):
        of = rng.permutation(np.flatnonzero(codes == code))
        n = int(np.clip(round(n_train * len(of) / len(codes)), 1, len(of) - 1))
        train.append(of[:n])
    train = np.concatenate(train)
    return train, np.setdiff1d(np.arange(len(codes)), train)


def stacked(one, other):
    """Return rows on top of others, of one kind."""
    if hasattr(one, "iloc") and hasattr(other, "iloc"):
        import pandas as pd

        return pd.concat([one, other], ignore_index=True)
    if hasattr(other, "tocsr") or hasattr(one, "tocsr"):
        from scipy.sparse import vstack

        return vstack([one, other], format="csr")
    return np.concatenate([np.asarray(one), np.asarray(other)])
