"""The gap attack (Yeom et al. 2017)."""

from __future__ import annotations

from typing import Any

from ._base import MembershipAttack
from ._signals import predicted_codes


class GapAttack(MembershipAttack):
    """Call a record a member if the target predicts its label.

    It sees labels only and learns nothing; its balanced accuracy is 1/2 plus half the
    difference between the target's accuracy on its training set and on new data, which
    any other attack has to beat. It can name no record with few false positives: its
    scores are only right and wrong. With ``label_column=None`` everything is a member.

    Parameters
    ----------
    estimator : classifier
        The target, fitted; see :class:`MembershipAttack`.
    label_column : int, str or None, default=-1
        The column that holds the label; see :class:`MembershipAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The target.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        Always 0.5.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    LossThreshold : From probabilities.
    BoundaryDistance : From labels, with many queries.

    References
    ----------
    .. [1] S. Yeom et al., "Privacy risk in machine learning: analyzing the connection to
       overfitting", arXiv:1709.01604 (Adversary 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import GapAttack
    >>> X, y = load_digits(return_X_y=True)
    >>> target = DecisionTreeClassifier(random_state=0).fit(X[:900], y[:900])
    >>> records, member = np.column_stack([X, y]), np.arange(len(X)) < 900
    >>> attack = GapAttack(FrozenEstimator(target)).fit(records)
    >>> bool(0.55 < attack.score(records, member) < 0.7)
    True
    """

    knowledge = "label"
    _goes_by_y = False

    _parameter_constraints = {
        name: MembershipAttack._parameter_constraints[name]
        for name in ("estimator", "label_column")
    }

    def __init__(self, estimator: Any, *, label_column: int | str | None = -1) -> None:
        self.estimator = estimator
        self.label_column = label_column

    def _score(self, records):
        predicted = predicted_codes(self.estimator_, records.features)
        return (predicted == records.codes).astype(float)

    def _choose_threshold(self, scores, member):
        return 0.5
