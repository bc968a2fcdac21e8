"""An upper bound of what poison within sphere and slab does to the training loss."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import ClassifierTags
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from ..._labels import class_positions
from ..._progress import ReportsProgress
from ..._sklearn import BaseEstimator, Interval, fit_context, validate_data
from ...threat import FeatureConstraints
from .._points._feasible import feasible_sets
from .._points._min_max import HingeLoss


class CertifiedPoisoningBound(ReportsProgress, BaseEstimator):
    """Bound the loss that poison can cause a linear model, and find poison that does.

    For each share `eps` of poison, the model of bounded norm that is best against the
    worst feasible points has a loss of `upper_`: clean hinge loss plus `eps` times that
    of the worst point. Whatever the poison, the model that minimises the hinge loss on
    clean and poisoned rows, under the same bound of its norm, has no larger one; the
    points that were met on the way are poison that comes close.

    What is bounded is this *training* loss (clean rows and poison), of a linear model
    whose weights, with the intercept, have a norm of at most `rho`, where the defense
    knows the centroids and radii of the clean classes. Test errors may be larger, other
    models are not covered, and a defense that takes centroids from poisoned data is not
    either. Products of the clean rows are in float32, so that all of it holds up to 1e-5.

    Parameters
    ----------
    eps : array-like of float, default=(0.01, 0.03, 0.05)
        Shares of poison, relative to the number of clean rows.
    rho : float, default=1.0
        Bound of the norm of the weights.
    fit_intercept : bool, default=False
        Whether the model has an intercept, which counts as one of the weights.
    percentile : float, default=70
        Which percentile of the distances of clean rows is the radius of the sphere and
        the width of the slab: what lies outside, the defense removes.
    constraints : FeatureConstraints, default=None
        What poison has to satisfy besides: bounds, whole numbers, one-hot groups. The
        bound is then that of a Lagrangian relaxation.
    max_iter : int, default=1000
        Steps of the descent. The bound holds after any number.

    Attributes
    ----------
    upper_ : ndarray of shape (n_eps,)
        The upper bound for each share.
    attack_loss_ : ndarray of shape (n_eps,)
        What the poison that was found does cause: a lower bound of the least loss that
        any model of this norm has on the clean rows and `poison_`.
    clean_loss_ : ndarray of shape (n_eps,)
        The clean part of `upper_`.
    poison_ : list of tuple (X, y, share)
        For each of `eps`, the points that were met, their labels, and which share of the
        poison each is: together they have the weight of ``eps * n_samples`` rows.
    classes_ : ndarray of shape (2,)
        The labels.

    See Also
    --------
    MinMaxPoisoning : The attack, against any surrogate.
    SphereSlabSanitizer : The defense.
    sklearn_advsec.inspection.PoisoningCurveDisplay : Plots bound and attack.

    References
    ----------
    .. [1] J. Steinhardt, P. W. Koh, P. Liang, "Certified defenses for data poisoning
       attacks", arXiv:1706.03691 (Algorithm 1 and Proposition 1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.poisoning import CertifiedPoisoningBound
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> bound = CertifiedPoisoningBound(eps=(0.02, 0.1), max_iter=300).fit(X, y)
    >>> bool((bound.attack_loss_ <= bound.upper_).all())
    True
    """

    _parameter_constraints = {
        "eps": ["array-like"],
        "rho": [Interval(Real, 0, None, closed="neither")],
        "fit_intercept": ["boolean"],
        "percentile": [Interval(Real, 0, 100, closed="right")],
        "constraints": [FeatureConstraints, None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        eps: ArrayLike = (0.01, 0.03, 0.05),
        rho: float = 1.0,
        fit_intercept: bool = False,
        percentile: float = 70,
        constraints: FeatureConstraints | None = None,
        max_iter: int = 1000,
    ) -> None:
        self.eps = eps
        self.rho = rho
        self.fit_intercept = fit_intercept
        self.percentile = percentile
        self.constraints = constraints
        self.max_iter = max_iter

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Compute the bounds.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Clean rows.
        y : array-like of shape (n_samples,)
            Their labels, of two classes.

        Returns
        -------
        self : object
            The fitted bound.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{kind}."
            )
        eps = np.asarray(self.eps, dtype=float)
        if eps.ndim != 1 or not len(eps) or not ((eps >= 0) & (eps <= 1)).all():
            raise ValueError(f"eps must hold shares between 0 and 1; got {self.eps!r}.")
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_.item(0)!r}; two are needed."
            )
        codes = class_positions(y, self.classes_, "y")
        sets = feasible_sets(X, codes, 2, self.percentile, self.constraints)
        with self._reported(X, y):
            loss = HingeLoss(X, 2.0 * codes[:, None] - 1, self.fit_intercept)
            self._descend(loss, sets, eps)
        return self

    def _n_tasks(self):
        return self.max_iter

    def _descend(self, loss, sets, eps):
        """Descend for all shares at once, and note bounds and points."""
        n_eps = len(eps)
        weights, steepest = loss.start(n_eps), np.full(n_eps, np.finfo(float).tiny)
        self.upper_, self.clean_loss_ = np.full(n_eps, np.inf), np.full(n_eps, np.inf)
        met, importance = [([], []) for _ in eps], []
        # Clean loss plus eps times the points' mean loss is convex: the mean of what its
        # gradients promise, at the worst weights in the ball, bounds it from below.
        promised, slopes = np.zeros(n_eps), np.zeros_like(weights)
        for step in self._tasks(range(1, self.max_iter + 1), "step"):
            clean, slope = loss(weights)
            value = clean - (weights * slope).sum(0)
            for j in range(n_eps):
                w = weights[:, j]
                w, intercept = (w[:-1], w[-1]) if self.fit_intercept else (w, 0.0)
                found = [
                    (*of.farthest(-sign * w), sign)
                    for sign, of in zip((-1, 1), sets, strict=True)
                ]
                worst = max(bound - sign * intercept for _, bound, sign in found)
                upper = clean[j] + eps[j] * max(0.0, 1 + worst)
                x, _, sign = max(found, key=lambda f: -f[2] * (w @ f[0] + intercept))
                if upper < self.upper_[j]:
                    self.upper_[j], self.clean_loss_[j] = upper, clean[j]
                met[j][0].append(x)
                met[j][1].append(int(sign > 0))
                if sign * (w @ x + intercept) < 1:
                    row = np.append(x, 1.0) if self.fit_intercept else x
                    slope[:, j] -= eps[j] * sign * row
                    value[j] += eps[j]
            importance.append(float(step) ** 2)  # late points count most
            promised += importance[-1] * value
            slopes += importance[-1] * slope
            steepest = np.maximum(steepest, np.linalg.norm(slope, axis=0))
            weights = weights - self.rho / (steepest * np.sqrt(step)) * slope
            lengths = np.linalg.norm(weights, axis=0)
            weights *= np.minimum(1, self.rho / np.maximum(lengths, self.rho))
        total = np.sum(importance)
        lower = promised - self.rho * np.linalg.norm(slopes, axis=0)
        self.attack_loss_ = lower / total
        self.poison_ = [
            (np.stack(rows), self.classes_[codes], np.array(importance) / total)
            for rows, codes in met
        ]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags
