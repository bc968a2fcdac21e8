"""The loss threshold (Yeom et al. 2017)."""

from __future__ import annotations

from numbers import Real
from typing import Any

from .._sklearn import Interval
from ._base import MembershipAttack
from ._signals import log_loss, probabilities, residuals


class LossThreshold(MembershipAttack):
    """Call a record a member if the target's loss on it is small.

    The floor of what an attacker by scores reaches: it needs no other model and one query
    per record. At small false positive rates it finds next to nothing, since it does not
    know which records are easy for a model that never saw them. With
    ``label_column=None`` it goes by the largest probability. The loss of a regressor is
    the squared residual.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted; see :class:`MembershipAttack`.
    label_column : int, str or None, default=-1
        The column that holds the label; see :class:`MembershipAttack`.
    threshold : float, default=None
        The loss (in nats; of a regressor, the square of its units) below which a record
        is a member. Yeom et al. use the average loss on the training set, which some
        models are published with. None chooses it in `fit`: for the largest balanced
        accuracy where members are known, else by `fpr`.
    fpr : float, default=0.1
        The false positive rate that is aimed at; see :class:`MembershipAttack`.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        The threshold of the score, which is minus the loss.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    ModifiedEntropy : With thresholds by class.
    LikelihoodRatio : Knows how hard each record is.

    References
    ----------
    .. [1] S. Yeom et al., "Privacy risk in machine learning: analyzing the connection to
       overfitting", arXiv:1709.01604 (Adversary 2).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_advsec.privacy import LossThreshold
    >>> X, y = load_digits(return_X_y=True)
    >>> target = RandomForestClassifier(30, random_state=0).fit(X[:900], y[:900])
    >>> records, member = np.column_stack([X, y]), np.arange(len(X)) < 900
    >>> attack = LossThreshold(FrozenEstimator(target))
    >>> auc = cross_val_score(attack, records, member, scoring="roc_auc")
    >>> bool(auc.mean() > 0.75)
    True
    """

    _takes_regressors = True

    _parameter_constraints = {
        **{
            name: MembershipAttack._parameter_constraints[name]
            for name in ("estimator", "label_column", "fpr")
        },
        "threshold": [Interval(Real, None, None, closed="neither"), None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        label_column: int | str | None = -1,
        threshold: float | None = None,
        fpr: float = 0.1,
    ) -> None:
        self.estimator = estimator
        self.label_column = label_column
        self.threshold = threshold
        self.fpr = fpr

    def _score(self, records):
        if records.values is not None:
            return -(residuals(self.estimator_, records.features, records.values) ** 2)
        return -log_loss(probabilities(self.estimator_, records.features), records.codes)

    def _choose_threshold(self, scores, member):
        if self.threshold is not None:
            return -float(self.threshold)
        return super()._choose_threshold(scores, member)
