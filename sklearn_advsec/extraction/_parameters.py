"""Probes and parameters: what the attacks by equations ask, and what they return."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import LinearSVC


def linear_copy(classes, coef, intercept, *, probability=True):
    """Return a linear classifier of given parameters.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Its classes.
    coef : ndarray of shape (n_classes, n_features)
        One row per class; of two classes, the difference counts.
    intercept : ndarray of shape (n_classes,)
        Likewise.
    probability : bool, default=True
        Whether the scale is known, so that probabilities mean something.
    """
    if len(classes) == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    copy = LogisticRegression() if probability else LinearSVC()
    copy.classes_ = np.asarray(classes)
    copy.coef_, copy.intercept_ = coef, intercept
    copy.n_features_in_ = coef.shape[1]
    copy.n_iter_ = np.ones(1, dtype=np.int32)
    return copy


def network_copy(classes, coefs, intercepts, activation="relu"):
    """Return a multi-layer perceptron of given weights.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Its classes.
    coefs, intercepts : list of ndarray
        As in `MLPClassifier`, with one output per class. Of two classes, the difference
        counts.
    activation : str, default="relu"
        Of the hidden layers.
    """
    coefs, intercepts = list(coefs), list(intercepts)
    if len(classes) == 2:
        coefs[-1] = coefs[-1][:, 1:] - coefs[-1][:, :1]
        intercepts[-1] = intercepts[-1][1:] - intercepts[-1][:1]
    hidden = tuple(len(b) for b in intercepts[:-1])
    copy = MLPClassifier(hidden_layer_sizes=hidden, activation=activation)
    copy.classes_ = np.asarray(classes)
    copy._label_binarizer = LabelBinarizer().fit(copy.classes_)
    copy.coefs_, copy.intercepts_ = coefs, intercepts
    copy.n_features_in_ = len(coefs[0])
    copy.n_layers_ = len(coefs) + 1
    copy.n_outputs_ = coefs[-1].shape[1]
    copy.out_activation_ = "logistic" if len(classes) == 2 else "softmax"
    copy.n_iter_ = copy.t_ = 1
    return copy


# A feature that hardly varies is probed as if its scale were 1.
_SCALE_FLOOR = 1e-6


class Probes:
    """Where to ask: the scale of the features, and rows of several kinds.

    Parameters
    ----------
    pool : ndarray of shape (n_rows, n_features)
        The attacker's rows.
    oracle : Oracle
        Rounds rows to its precision.
    rng : RandomState
        Source of randomness.
    """

    def __init__(self, pool, oracle, rng):
        self.pool = pool.astype(np.float64)
        self.as_sent = oracle.as_sent
        self.rng = rng
        self.n_features = pool.shape[1]
        self.center = self.as_sent(self.pool.mean(axis=0)).astype(np.float64)
        scale = self.pool.std(axis=0)
        size = np.maximum(np.abs(self.center), 1.0)
        self.scale = np.where(scale > _SCALE_FLOOR * size, scale, 1.0)

    def standardize(self, rows):
        return (rows - self.center) / self.scale

    def design(self, rows):
        return np.column_stack([self.standardize(rows), np.ones(len(rows))])

    def cross(self):
        """Give the base point, and a step along each feature."""
        steps = np.vstack([np.zeros(self.n_features), np.diag(self.scale)])
        return self.as_sent(self.center + steps)

    def near_pool(self, n):
        """Rows of the pool, each moved by about the scale of the features."""
        rows = self.pool[self.rng.randint(len(self.pool), size=n)]
        noise = self.rng.normal(size=rows.shape) * self.scale
        return self.as_sent(rows + noise)

    def informative(self, n, weights):
        """Rows about whose class a linear model is unsure; without one, spread rows."""
        if weights is None:
            return self.near_pool(n)
        near, far = self.near_pool(4 * n), self.near_pool(4 * n)
        z_near, z_far = (self.design(rows) @ weights.T for rows in (near, far))
        a, b = z_near.argmax(axis=1), z_far.argmax(axis=1)
        rows = np.arange(4 * n)
        gap_near = z_near[rows, a] - z_near[rows, b]
        gap_far = z_far[rows, a] - z_far[rows, b]
        with np.errstate(divide="ignore", invalid="ignore"):
            offset = self.rng.uniform(-2, 2, size=4 * n)
            share = np.clip((gap_near - offset) / (gap_near - gap_far), 0, 1)
        between = near + share[:, None] * (far - near)
        # A third class may win there; a pair that is alone at the top tells most.
        between = between[a != b]
        if len(between) < n:
            return self.near_pool(n)
        top = np.sort(self.design(between) @ weights.T, axis=1)
        margin = np.abs(top[:, -1] - top[:, -2])
        return self.as_sent(between[np.argsort(margin > 3, kind="stable")[:n]])
