"""Worst-case points for linear models of bounded norm, by online dual averaging."""

from __future__ import annotations

from collections import deque
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ._base import PointAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_LEARNING_RATE = 0.1
# At so many moments of the descent, evenly spread over its logarithm, points are tried.
_MOMENTS = 6


class MinMaxPoisoning(PointAttack):
    """Add the points that a linear model of bounded norm would suffer most from.

    A model descends on the hinge loss of the clean rows and of one more point a step: the
    one that it gets most wrong, among those that lie within sphere and slab of their
    class. What is added are the worst points of so many late steps as the budget allows,
    or those of one late step, one for each class, in turns; how late, and which of the
    two, is chosen by retraining the surrogate. (Two points are enough for a given model
    and convex sets. Against a model whose regularization is tuned anew, and where
    constraints leave no convex set, many do more.) More classes are taken one against the
    rest.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate; None makes a prototype, which takes the classifier that it is to
        poison.
    budget : int or float, default=0.03
        How many points are added: a number, or a share of the rows.
    percentile : float, default=95
        Which percentile of the distances of clean rows is the radius of the sphere, and
        the width of the slab.
    constraints : FeatureConstraints, default=None
        What a row has to satisfy to be valid: bounds, whole numbers, steps, one-hot
        groups (no relations). The points are then the best that a Lagrangian relaxation
        finds.
    rho : float, default=None
        Bound of the norm of the model's weights. None takes those of the surrogate on the
        clean rows, where it has a `coef_`, and else 1.
    max_iter : int, default=300
        Steps of the descent.
    validation : tuple (X, y), default=None
        Clean rows by which the step is chosen; the training rows by default.
    random_state : int, RandomState instance or None, default=None
        Seed of the surrogate, and of where the points are inserted.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the added rows in the data that is returned.
    sample_indices_ : ndarray of int
        The row that each returned row comes from; -1 for added ones.
    validation_error_ : float
        Error of the surrogate, trained with the points, on the validation rows.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    CertifiedPoisoningBound : Bounds what any such points can do to the training loss.
    SphereSlabSanitizer : The defense that the points pass.

    References
    ----------
    .. [1] J. Steinhardt, P. W. Koh, P. Liang, "Certified defenses for data poisoning
       attacks", arXiv:1706.03691 (Algorithm 1).
    .. [2] P. W. Koh, J. Steinhardt, P. Liang, "Stronger data poisoning attacks break data
       sanitization defenses", arXiv:1811.00741 (Section 4.3; Proposition 1: two distinct
       points are enough for two classes, where the feasible sets are convex).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.svm import LinearSVC
    >>> from sklearn_advsec.poisoning import MinMaxPoisoning
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> model = LinearSVC(C=0.01)
    >>> attack = MinMaxPoisoning(model, budget=0.1, random_state=0)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X, y)
    >>> len(X_poisoned) - len(X)
    56
    >>> bool(model.fit(X_poisoned, y_poisoned).score(X, y) < 0.95)
    True
    """

    _parameter_constraints = {
        **PointAttack._parameter_constraints,
        "rho": [Interval(Real, 0, None, closed="neither"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        budget: float = 0.03,
        percentile: float = 95,
        constraints: FeatureConstraints | None = None,
        rho: float | None = None,
        max_iter: int = 300,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.budget = budget
        self.percentile = percentile
        self.constraints = constraints
        self.rho = rho
        self.max_iter = max_iter
        self.validation = validation
        self.random_state = random_state

    def _n_tasks(self):
        return self.max_iter

    def _points(self, data):
        rho = self.rho
        if rho is None:
            weights = getattr(data.trained(), "coef_", None)
            rho = 1.0 if weights is None else np.linalg.norm(np.atleast_2d(weights)[0])
        codes = np.arange(data.budget) % data.n_classes
        first = min(10, self.max_iter)
        moments = set(np.geomspace(first, self.max_iter, _MOMENTS, dtype=int).tolist())
        recent = deque(maxlen=max(1, data.budget))
        for step, (points, worst) in enumerate(self._worst_points(data, rho), start=1):
            recent.append((points, worst))
            if step in moments:
                yield points[codes], codes
                rows = np.stack([points[worst] for points, worst in recent])
                at = np.arange(data.budget) % len(recent)
                yield rows[at], np.array([worst for _, worst in recent])[at]
        for code in range(data.n_classes):  # all of them on one side
            rows = np.stack([points[code] for points, _ in recent])
            yield rows[np.arange(data.budget) % len(rows)], np.full(data.budget, code)

    def _worst_points(self, data, rho):
        """Yield, step by step, the worst point of each class, and the class of the worst
        of all.
        """
        loss = HingeLoss(data.X, one_against_rest(data.y, data.n_classes))
        descent = DualAveraging(loss.start(), rho)
        share = data.budget / len(data.y)
        signs = one_against_rest(np.arange(data.n_classes), data.n_classes)
        for _ in self._tasks(range(self.max_iter), "step"):
            weights = descent.weights
            directions = -signs @ weights[:-1].T  # along which all margins shrink
            points = np.stack(
                [of.farthest(u)[0] for of, u in zip(data.sets, directions, strict=True)]
            )
            margins = signs * (points @ weights[:-1] + weights[-1])
            losses = np.maximum(0, 1 - margins).sum(1)
            worst = losses.argmax()
            _, slope = loss(weights)
            pull = -signs[worst] * (margins[worst] < 1)
            slope += share * np.append(points[worst], 1.0)[:, None] * pull
            descent.step(slope)
            yield points, worst


class HingeLoss:
    """Mean hinge loss of a linear model on rows, with its gradient.

    Products are in float32: the rows are read twice a step, which is all it costs.
    Columns that are 0 in all rows, such as the margins of images, are left out of them.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows.
    signs : ndarray of shape (n_samples, n_columns)
        Labels of -1 and 1. One column serves any number of weight vectors.
    intercept : bool
        Whether a feature that is 1 is appended.
    """

    def __init__(self, X, signs, intercept=True):
        if intercept:
            X = np.hstack([X, np.ones((len(X), 1))])
        self.n_features = X.shape[1]
        self.used = np.flatnonzero((X != 0).any(0))  # the others give nothing
        self.X = np.ascontiguousarray(X[:, self.used], dtype=np.float32)
        self.signs = signs.astype(np.float32)

    def start(self, n_columns=None):
        """Return weights of zero."""
        return np.zeros((self.n_features, n_columns or self.signs.shape[1]))

    def __call__(self, weights):
        """Return the loss of each column, and the gradient."""
        lacking = 1 - self.signs * (self.X @ weights[self.used].astype(np.float32))
        active = lacking > 0
        losses = np.where(active, lacking, 0).mean(0, dtype=np.float64)
        slope = np.zeros_like(weights)
        slope[self.used] = self.X.T @ np.where(active, -self.signs, np.float32(0))
        return losses, slope / len(self.X)


class DualAveraging:
    """Online descent in a ball: the sum of all gradients, scaled into it.

    Each column of the weights is a model of its own.
    """

    def __init__(self, start, rho):
        self.weights, self.total, self.rho = start, np.zeros_like(start), rho
        self.scale = np.full(start.shape[1], 1 / _LEARNING_RATE)

    def step(self, slope):
        """Take a step against a gradient."""
        self.total -= slope
        lengths = np.linalg.norm(self.total, axis=0)
        self.scale = np.maximum(self.scale, lengths / self.rho)
        self.weights = self.total / self.scale


def one_against_rest(codes, n_classes):
    """Return signs of shape (n, 1) for two classes, else (n, n_classes)."""
    if n_classes == 2:
        return 2.0 * codes[:, None] - 1
    return 2.0 * (codes[:, None] == np.arange(n_classes)) - 1
