"""TRIM: train on the rows of least loss, and choose these anew, in turns."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import is_regressor

from ..._labels import in_columns
from ..._sklearn import HasMethods, Interval
from .._base import Sanitizer, Verdict, train_on
from .._class_scores import class_scores


class LossTrimming(Sanitizer):
    """Remove the rows that a model, trained without them, fits worst.

    Training and choosing alternate: the model is trained on the rows of least loss, and
    the rows of least loss are chosen with it, until these stay the same. The loss that is
    left never rises. Several random beginnings are tried, and the best end is taken.

    Parameters
    ----------
    estimator : classifier, regressor or None, default=None
        What is trained; None makes a prototype, which takes the classifier of the
        `SanitizedClassifier` around it.
    contamination : float, default=0.1
        Share of each class (of all rows, for regressors) that is removed.
    n_starts : int, default=3
        Beginnings: one with all rows, the others with rows drawn at random.
    max_iter : int, default=20
        Most rounds of a beginning.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Loss of each row: its squared residual; the negative logarithm of the probability
        of its label; or, for classifiers without probabilities, the hinge loss.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.
    n_iter_ : int
        Rounds of the beginning that was taken.

    See Also
    --------
    InfluenceSanitizer : By influence.
    KNNSanitizer : By neighbours.

    References
    ----------
    .. [1] M. Jagielski et al., "Manipulating machine learning: poisoning attacks and
       countermeasures for regression learning", arXiv:1804.00308 (Algorithm 2).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn_advsec.poisoning import LossTrimming
    >>> X = np.arange(20.0)[:, None]
    >>> y = 2 * X[:, 0]
    >>> y[[3, 11]] = 100.0
    >>> trim = LossTrimming(LinearRegression(), contamination=0.1, random_state=0)
    >>> X_kept, y_kept = trim.fit_resample(X, y)
    >>> float(LinearRegression().fit(X_kept, y_kept).coef_[0].round(6))
    2.0
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "contamination": [Interval(Real, 0, 1, closed="both")],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        contamination: float = 0.1,
        n_starts: int = 3,
        max_iter: int = 20,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.random_state = random_state

    def _is_regression(self):
        return self.estimator is not None and is_regressor(self.estimator)

    def _n_tasks(self):
        return self.n_starts * self.max_iter

    def _decide(self, data):
        estimator = self._own_estimator()
        codes = np.zeros(len(data.y), dtype=int) if data.classes is None else data.y
        best, least = None, np.inf
        for start in range(self.n_starts):
            draws = data.rng.random_sample(len(codes))
            kept = np.arange(len(codes)) if start == 0 else self._least(draws, codes)
            n_rounds = 0
            for _ in self._tasks(range(self.max_iter), "round"):
                n_rounds += 1
                weights = data.sample_weight
                weights = weights if weights is None else weights[kept]
                model = train_on(
                    estimator, data.select(kept), data.labels()[kept], weights, data.seed
                )
                losses = row_losses(model, data)
                before, kept = kept, self._least(losses, codes)
                if np.array_equal(before, kept):
                    break
            if losses[kept].sum() < least:
                least, best, self.n_iter_ = losses[kept].sum(), losses, n_rounds
        return Verdict(best)

    def _least(self, values, codes):
        """Return the rows of least value, of each class as many as are kept."""
        kept = []
        for code in np.unique(codes):
            of = np.flatnonzero(codes == code)
            n_kept = len(of) - int(self.contamination * len(of) + 1e-9)
            kept.append(of[np.argsort(values[of], kind="stable")[: max(1, n_kept)]])
        return np.sort(np.concatenate(kept))


def row_losses(model, data):
    """Return the loss of each row of `TrainingData` under a model."""
    if data.classes is None:
        return (np.asarray(model.predict(data.rows)) - data.y) ** 2
    at = np.arange(len(data.y)), data.y
    if hasattr(model, "predict_proba"):
        proba = in_columns(model.predict_proba(data.rows), model.classes_, data.classes)
        return -np.log(np.maximum(proba[at], np.finfo(float).tiny))
    scores = class_scores(model, data.rows, data.classes)
    own = scores[at]
    others = scores.copy()
    others[at] = -np.inf
    return np.maximum(0, 1 + others.max(1) - own)
