"""Self-influence: rows that a linear model fits only because they are there."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ..._sklearn import HasMethods, Interval
from .._base import Sanitizer, Verdict
from .._labels._retrained import retrained


class InfluenceSanitizer(Sanitizer):
    """Remove the rows with the largest influence on their own loss.

    The self-influence of a row is by how much its loss would rise, to first order, if
    the model were trained without it: large for mislabelled and unusual rows, poisoned
    ones or not. It is computed by implicit differentiation, for linear models with an L2
    penalty.

    Parameters
    ----------
    estimator : classifier or None, default=None
        `LogisticRegression`, `LinearSVC` or `RidgeClassifier` without class weights, also
        behind other steps of a pipeline. None makes a prototype, which takes the
        classifier of the `SanitizedClassifier` around it.
    contamination : float, default=0.1
        Share of each class that is removed.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Self-influence of each row.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.

    See Also
    --------
    LossTrimming : By the loss only.
    RONI : By trusted rows.

    References
    ----------
    .. [1] P. W. Koh, P. Liang, "Understanding black-box predictions via influence
       functions", arXiv:1703.04730 (Section 5.4: by self-influence).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.poisoning import InfluenceSanitizer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> y[:5] = 1 - y[:5]
    >>> sanitizer = InfluenceSanitizer(LogisticRegression(), contamination=0.05)
    >>> kept = sanitizer.fit(X, y).sample_indices_
    >>> sum(i in kept for i in range(5))
    0
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "contamination": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, estimator: Any = None, *, contamination: float = 0.1) -> None:
        self.estimator = estimator
        self.contamination = contamination

    def _decide(self, data):
        self._own_estimator()
        model, _ = retrained(self, data, linear_only=True)
        return Verdict(model.fit(data.y).self_influence())
