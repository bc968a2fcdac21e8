"""Points moved by a gradient: of the retrained model's loss, or towards a decoy."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from ..._sklearn import Interval
from ...exceptions import NoGradientError
from .._labels._label_flipping import LabelFlipping
from .._labels._retrained import RetrainedLinear, linear_recipe
from ._base import PointAttack
from ._min_max import MinMaxPoisoning

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_SHARES = (0.1, 0.2, 0.3, 0.45)  # of flipped labels: decoys from mild to wild
_SMALLEST = 1e-4  # step, in radii of the sphere


class GradientPointAttack(PointAttack):
    """Base of the attacks that move points by a gradient, for linear surrogates."""

    _parameter_constraints = {
        **PointAttack._parameter_constraints,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        budget: Any = 0.03,
        percentile: float = 95,
        constraints: FeatureConstraints | None = None,
        max_iter: int = 50,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.budget = budget
        self.percentile = percentile
        self.constraints = constraints
        self.max_iter = max_iter
        self.validation = validation
        self.random_state = random_state

    def _recipe(self):
        recipe = linear_recipe(self.estimator)
        if recipe is None:
            raise NoGradientError(
                f"{type(self).__name__} needs a surrogate that is a linear model with an "
                "L2 penalty and without class weights: LogisticRegression, LinearSVC or "
                f"RidgeClassifier; got {type(self.estimator).__name__}. Use "
                "MinMaxPoisoning, or another surrogate."
            )
        return recipe

    def _model(self, data, rows, codes, counts):
        """Return the surrogate on clean rows and points that occur so many times."""
        loss, factor, penalty, intercept = self._recipe()
        scale = np.ones(len(data.y))
        if data.task.sample_weight is not None:
            scale = data.task.sample_weight.astype(float)
        scale = factor * np.concatenate([scale, scale.mean() * counts])
        model = RetrainedLinear(
            np.vstack([data.X, rows]),
            data.n_classes,
            loss,
            scale,
            penalty,
            intercept,
            own_space=True,
        )
        model.codes = np.concatenate([data.y, codes])
        return model

    def _climb(self, data, codes, rows, value_and_slopes):
        """Move points uphill within their sets, by steps that are halved or grow."""
        radii = np.array([data.sets[c].radius for c in codes])[:, None]
        value, slopes = value_and_slopes(rows)
        step = 0.2
        for _ in self._tasks(range(self.max_iter), "step"):
            length = np.linalg.norm(slopes, axis=1, keepdims=True)
            ahead = slopes / np.maximum(length, np.finfo(float).tiny)
            while step > _SMALLEST:
                tried = rows + step * radii * ahead
                tried = np.stack(
                    [data.sets[c].nearest(x) for c, x in zip(codes, tried, strict=True)]
                )
                new_value, new_slopes = value_and_slopes(tried)
                if np.isfinite(new_value) and new_value > value:
                    break
                step /= 2
            else:
                break
            rows, value, slopes = tried, new_value, new_slopes
            step = min(2 * step, 1.0)
        return rows

    def _repeated(self, data, rows, codes):
        """Return distinct points as often as the budget allows, in turns."""
        at = np.arange(data.budget) % len(codes)
        return rows[at], codes[at]


class InfluencePoisoning(GradientPointAttack):
    """Move a point of each class up the gradient of the retrained model's error.

    It begins with the points of :class:`MinMaxPoisoning`. The gradient of the error on
    clean rows in a point's features is that of the optimum that training reaches, by
    implicit differentiation; each step is kept only if the retrained model errs more, by
    the mean probability of its errors, and else halved.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: `LogisticRegression`, `LinearSVC` or `RidgeClassifier` without
        class weights. None makes a prototype.
    budget : int or float, default=0.03
        How many points are added: a number, or a share of the rows.
    percentile : float, default=95
        Which percentile of the distances of clean rows is the radius of the sphere, and
        the width of the slab, that points stay in.
    constraints : FeatureConstraints, default=None
        What a row has to satisfy to be valid.
    max_iter : int, default=50
        Steps.
    validation : tuple (X, y), default=None
        Clean rows to measure the error on; the training rows by default.
    random_state : int, RandomState instance or None, default=None
        Seed.

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
    KKTPoisoning : Faster, from a decoy.
    MinMaxPoisoning : With a bound of what is possible.

    References
    ----------
    .. [1] P. W. Koh, J. Steinhardt, P. Liang, "Stronger data poisoning attacks break data
       sanitization defenses", arXiv:1811.00741 (Section 4.1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.poisoning import InfluencePoisoning
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> attack = InfluencePoisoning(LogisticRegression(), budget=0.1, max_iter=10)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X, y)
    >>> len(attack.poison_indices_), bool(attack.validation_error_ > 0.03)
    (56, True)
    """

    def _n_tasks(self):
        return self.max_iter

    def _points(self, data):
        self._recipe()
        start = MinMaxPoisoning(self.estimator, max_iter=100)
        candidates = list(start._points(data))
        yield from candidates
        errors = [data.error(*candidate) for candidate in candidates]
        rows, codes = candidates[int(np.argmax(errors))]
        codes, first = np.unique(codes, return_index=True)
        rows = rows[first]
        counts = np.bincount(np.arange(data.budget) % len(codes), minlength=len(codes))
        validation, truth = data.validation()
        places = len(data.y) + np.arange(len(codes))

        def value_and_slopes(rows):
            model = self._model(data, rows, codes, counts)
            model.fit(model.codes)
            Z = model.features(validation)
            proba = softmax(model.scores(Z), axis=1)
            at = np.arange(len(truth)), truth
            own = proba[at]
            slope = proba * own[:, None]
            slope[at] -= own
            slope /= len(truth)
            return 1 - own.mean(), model.row_slopes(Z, slope, places)

        rows = self._climb(data, codes, rows, value_and_slopes)
        yield self._repeated(data, rows, codes)


class _CancellingAttack(GradientPointAttack):
    """Base of the attacks that make a decoy's weights an optimum of the training."""

    def _n_tasks(self):
        return None

    def _points(self, data):
        self._recipe()
        for share in _SHARES:
            yield from self._towards(data, self._decoy(data, share))

    def _decoy(self, data, share):
        """Return weights that err: those for the labels that fit best, flipped."""
        flips = LabelFlipping(
            self.estimator, strategy="farthest", budget=share, random_state=data.task.seed
        )
        labels = flips.fit_resample(data.X, data.y)[1]
        none = np.empty((0, data.X.shape[1]))
        model = self._model(data, none, np.empty(0, dtype=int), np.empty(0))
        return model.fit(labels).theta

    def _cancelled(self, data, decoy, rows, codes, counts):
        """Move points until their gradients cancel those of the clean rows."""
        places = len(data.y) + np.arange(len(codes))

        def value_and_slopes(rows):
            model = self._model(data, rows, codes, counts)
            model.theta = decoy
            imbalance = model.imbalance()
            slopes = model.imbalance_slopes(imbalance, places)
            return -0.5 * (imbalance**2).sum(), -slopes

        return self._climb(data, codes, rows, value_and_slopes)


class KKTPoisoning(_CancellingAttack):
    """Repeat a point of each class at which a decoy model would be optimal.

    Decoys are surrogates that were trained on flipped labels, few and many. For each,
    and for several shares of the classes among the points, points are sought whose
    gradients cancel those of the clean rows, so that the decoy fulfils the conditions of
    an optimum (Karush, Kuhn and Tucker) of training on both. The search is by projected
    gradient; what the surrogate really learns from the points decides which are taken.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: `LogisticRegression`, `LinearSVC` or `RidgeClassifier` without
        class weights. None makes a prototype.
    budget : int or float, default=0.03
        How many points are added: a number, or a share of the rows.
    percentile : float, default=95
        Which percentile of the distances of clean rows is the radius of the sphere, and
        the width of the slab, that points stay in.
    constraints : FeatureConstraints, default=None
        What a row has to satisfy to be valid.
    max_iter : int, default=50
        Steps for each decoy.
    validation : tuple (X, y), default=None
        Clean rows to measure the error on; the training rows by default.
    random_state : int, RandomState instance or None, default=None
        Seed.

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
    InfluencePoisoning : Without a decoy.
    GradientCanceling : The same idea.

    References
    ----------
    .. [1] P. W. Koh, J. Steinhardt, P. Liang, "Stronger data poisoning attacks break data
       sanitization defenses", arXiv:1811.00741 (Section 4.2).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.poisoning import KKTPoisoning
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> attack = KKTPoisoning(RidgeClassifier(), budget=0.1, max_iter=10).fit(X, y)
    >>> len(attack.poison_indices_), bool(attack.validation_error_ > 0.035)
    (56, True)
    """

    def _towards(self, data, decoy):
        codes = np.arange(data.n_classes)
        means = np.stack([of.mean for of in data.sets])
        start = np.stack(
            [data.sets[c].nearest(means[(c + 1) % data.n_classes]) for c in codes]
        )
        for side in (None, *codes):  # even shares, and more of one class
            counts = np.full(data.n_classes, data.budget / data.n_classes)
            if side is not None:
                counts = counts / 2
                counts[side] += data.budget / 2
            rows = self._cancelled(data, decoy, start, codes, counts)
            whole = np.floor(counts).astype(int)
            whole[counts.argmax()] += data.budget - whole.sum()
            chosen = np.repeat(codes, whole)
            yield rows[chosen], chosen


class GradientCanceling(_CancellingAttack):
    """Add points, all different, at which a decoy model would be optimal.

    As :class:`KKTPoisoning`, but every point moves on its own from a training row that
    is drawn at random and gets another label.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: `LogisticRegression`, `LinearSVC` or `RidgeClassifier` without
        class weights. None makes a prototype.
    budget : int or float, default=0.03
        How many points are added: a number, or a share of the rows.
    percentile : float, default=95
        Which percentile of the distances of clean rows is the radius of the sphere, and
        the width of the slab, that points stay in.
    constraints : FeatureConstraints, default=None
        What a row has to satisfy to be valid.
    max_iter : int, default=50
        Steps for each decoy.
    validation : tuple (X, y), default=None
        Clean rows to measure the error on; the training rows by default.
    random_state : int, RandomState instance or None, default=None
        Seed.

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
    InfluencePoisoning : Follows the test loss.
    KKTPoisoning : Needs a decoy, too.

    References
    ----------
    .. [1] Y. Lu, G. Kamath, Y. Yu, "Exploring the limits of model-targeted indiscriminate
       data poisoning attacks", arXiv:2303.03592 (Algorithm 1, for linear models; decoys
       are models that were trained on flipped labels).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.poisoning import GradientCanceling
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> attack = GradientCanceling(
    ...     RidgeClassifier(), budget=0.1, max_iter=10, random_state=0).fit(X, y)
    >>> len(attack.poison_indices_), bool(attack.validation_error_ > 0.035)
    (56, True)
    """

    def _towards(self, data, decoy):
        rng = data.task.rng
        drawn = rng.randint(len(data.y), size=data.budget)
        codes = data.y[drawn] + rng.randint(1, data.n_classes, size=data.budget)
        codes %= data.n_classes
        rows = np.stack(
            [data.sets[c].nearest(x) for c, x in zip(codes, data.X[drawn], strict=True)]
        )
        yield self._cancelled(data, decoy, rows, codes, np.ones(len(codes))), codes
