"""Targets and records for the tests of the privacy family."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_array


class SignOfSum(ClassifierMixin, BaseEstimator):
    """Tells rows of any width by the sign of their sum: for the common checks."""

    def fit(self, X=None, y=None):
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X):
        X = check_array(X, dtype=float)  # as targets do, it refuses missing values
        positive = 1 / (1 + np.exp(-X.sum(axis=1)))
        return np.column_stack([1 - positive, positive])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def any_width_target():
    return FrozenEstimator(SignOfSum().fit())


class AboveTheMedian:
    """A group, of rows of any width; a function's name would hold its address."""

    def __call__(self, rows):
        """Return the mask of the group."""
        return rows[:, 0] > np.median(rows[:, 0])

    def __repr__(self):
        return "AboveTheMedian()"


def binary_records(n_records, n_features=60, n_classes=8, strength=1.35, seed=0):
    """Synthetic purchases: items of differing popularity, classes of differing taste.

    How typical a record is of its class differs as well, so that some are hard.
    """
    rng = np.random.default_rng(seed)
    popularity = rng.beta(0.5, 2.0, size=n_features).clip(0.01, 0.99)
    taste = rng.normal(size=(n_classes, n_features))
    y = rng.integers(n_classes, size=n_records)
    typical = strength * rng.uniform(size=(n_records, 1))
    logit = np.log(popularity / (1 - popularity)) + typical * taste[y]
    X = rng.uniform(size=logit.shape) < 1 / (1 + np.exp(-logit))
    return X.astype(np.float32), y


def overfitted_target(n_members=200, n_own=400, max_iter=60, seed=0):
    """Return a target, audited records, their membership, and the attacker's records."""
    X, y = binary_records(2 * n_members + n_own, seed=seed)
    net = MLPClassifier(
        (64,), max_iter=max_iter, batch_size=32, learning_rate_init=3e-3, random_state=0
    )
    with warnings.catch_warnings(action="ignore"):
        net.fit(X[:n_members], y[:n_members])
    records = np.column_stack([X, y])
    audited, own = records[: 2 * n_members], records[2 * n_members :]
    return FrozenEstimator(net), audited, np.arange(len(audited)) < n_members, own
