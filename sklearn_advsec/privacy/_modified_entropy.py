"""Modified entropy with a threshold per class (Song and Mittal 2020)."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from .._sklearn import Interval
from ._base import MembershipAttack
from ._signals import modified_entropy, probabilities


class ModifiedEntropy(MembershipAttack):
    r"""Call a record a member if the target's answer is right and certain.

    .. math:: \mathrm{Mentr}(p, y) = -(1 - p_y) \log p_y
        - \sum_{i \ne y} p_i \log(1 - p_i)

    has to be below a threshold of the record's class. Needs no other model and one query
    per record, and, like the loss threshold, finds little at small false positive rates.

    Parameters
    ----------
    estimator : classifier
        The target, fitted; see :class:`MembershipAttack`.
    label_column : int, str or None, default=-1
        The column that holds the label; see :class:`MembershipAttack`.
    per_class : bool, default=True
        Whether each class has a threshold of its own. Classes of which fewer than
        `min_records` records of either kind are known share one.
    min_records : int, default=10
        See `per_class`.
    fpr : float, default=0.1
        The false positive rate that is aimed at; see :class:`MembershipAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The target.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        The threshold for all classes together; scores are minus the modified entropy.
    class_thresholds_ : ndarray of shape (n_target_classes,)
        The threshold of each of the target's classes.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    LossThreshold : With one threshold.
    LikelihoodRatio : From shadow models.

    References
    ----------
    .. [1] L. Song and P. Mittal, "Systematic evaluation of privacy risks of machine
       learning models", arXiv:2003.10595 (Equations 6 and 7).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn_advsec.privacy import ModifiedEntropy
    >>> X, y = load_digits(return_X_y=True)
    >>> target = RandomForestClassifier(30, random_state=0).fit(X[:900], y[:900])
    >>> records, member = np.column_stack([X, y]), np.arange(len(X)) < 900
    >>> attack = ModifiedEntropy(FrozenEstimator(target)).fit(records[::2], member[::2])
    >>> bool(attack.score(records[1::2], member[1::2]) > 0.7)
    True
    """

    _parameter_constraints = {
        **{
            name: MembershipAttack._parameter_constraints[name]
            for name in ("estimator", "label_column", "fpr")
        },
        "per_class": ["boolean"],
        "min_records": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        label_column: int | str | None = -1,
        per_class: bool = True,
        min_records: int = 10,
        fpr: float = 0.1,
    ) -> None:
        self.estimator = estimator
        self.label_column = label_column
        self.per_class = per_class
        self.min_records = min_records
        self.fpr = fpr

    def _score(self, records):
        proba = probabilities(self.estimator_, records.features)
        return -modified_entropy(proba, records.codes)

    def _set_threshold(self, records, member):
        scores, n_classes = self._score(records), len(self.estimator_.classes_)
        self.threshold_ = self._choose_threshold(scores, member)
        self.class_thresholds_ = np.full(n_classes, self.threshold_)
        kinds = [np.ones(len(records), bool)] if member is None else [member, ~member]
        for code in range(n_classes if self.per_class else 0):
            own = records.codes == code
            if min(np.sum(own & kind) for kind in kinds) >= self.min_records:
                self.class_thresholds_[code] = self._choose_threshold(
                    scores[own], None if member is None else member[own]
                )

        self._calibrate(scores - self._threshold(records), member)

    def _threshold(self, records):
        return self.class_thresholds_[records.codes]
