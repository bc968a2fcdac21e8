"""Membership by quantile regression (Bertran et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from .._rows import is_dataframe
from .._sklearn import HasMethods, _safe_indexing
from ._base import MembershipAttack
from ._signals import (
    RESIDUAL_RESOLUTION,
    logit_confidence,
    probabilities,
    residual_confidence,
    residuals,
    score_resolution,
)


class QuantileMembership(MembershipAttack):
    """Compare the target's confidence with what records like this one get at most.

    A regression on records that the target was not trained on predicts a high quantile of
    the target's logit-scaled confidence from the record; members are those above it. It
    trains no shadow model and does not ask how the target was made. The
    regression has to tell easy from hard records by itself, and needs many non-members
    for that: on synthetic records of 446 binary columns, its AUC was .861 with 2,400 and
    .873 with 20,000 of them, where the loss threshold has .852. Of a regressor, the
    residual stands for the confidence, as it does in :class:`LikelihoodRatio`.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted; see :class:`MembershipAttack`.
    quantile_estimator : regressor, default=None
        A regressor that minimises the pinball loss of the quantile ``1 - fpr`` (set it
        there as well). None is a `HistGradientBoostingRegressor`, after ordinal encoding
        of columns that are not numeric.
    fpr : float, default=0.05
        The false positive rate that is aimed at; see :class:`MembershipAttack`.
    label_column : int, str or None, default=-1
        The column that holds the label; see :class:`MembershipAttack`.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    quantile_estimator_ : regressor
        The fitted regressor.
    resolution_ : float
        The smallest step of the target's probabilities, where they are coarse; see
        :class:`LikelihoodRatio`.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        The threshold of the score, which is by how much the quantile is exceeded. It is
        chosen in five folds, each by a regressor that was not fitted on it: on the rows
        that a regressor has seen, fewer exceed the quantile than on others.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    LikelihoodRatio : From shadow models.
    LossThreshold : With one threshold for all records.

    References
    ----------
    .. [1] M. Bertran et al., "Scalable membership inference attacks via quantile
       regression", arXiv:2307.03694 (Algorithm 1).
    .. [2] Y. Romano, E. Patterson, E. Candes, "Conformalized quantile regression",
       arXiv:1905.03222 (the threshold; in folds instead of two halves).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklearn_advsec.privacy import QuantileMembership
    >>> X, y = load_digits(return_X_y=True)
    >>> target = RandomForestClassifier(10, random_state=0).fit(X[:450], y[:450])
    >>> records = np.column_stack([X, y])
    >>> attack = QuantileMembership(FrozenEstimator(target))
    >>> attack = attack.fit(records[900:])  # the attacker's own, none of them a member
    >>> scores = attack.decision_function(records[:900])
    >>> bool(roc_auc_score(np.arange(900) < 450, scores) > 0.6)
    True
    """

    _takes_regressors = True

    _parameter_constraints = {
        **{
            name: MembershipAttack._parameter_constraints[name]
            for name in ("estimator", "label_column", "fpr", "random_state")
        },
        "quantile_estimator": [HasMethods(["fit", "predict"]), None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        quantile_estimator: Any = None,
        fpr: float = 0.05,
        label_column: int | str | None = -1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.quantile_estimator = quantile_estimator
        self.fpr = fpr
        self.label_column = label_column
        self.random_state = random_state

    def _learn(self, records, member):
        others = np.ones(len(records), dtype=bool) if member is None else ~member
        if others.sum() < 2:
            raise ValueError(
                f"{type(self).__name__} needs two or more records that are no members."
            )
        if records.values is None:
            proba = probabilities(self.estimator_, records.features)
            self.resolution_ = score_resolution(proba)
            confidence = logit_confidence(proba, records.codes, self.resolution_)
        else:
            residual = residuals(self.estimator_, records.features, records.values)
            self._residual_scale = float(np.sqrt(np.mean(residual[others] ** 2)))
            self.resolution_ = RESIDUAL_RESOLUTION
            confidence = residual_confidence(residual, self._residual_scale)
        regressor = self._make_regressor(records)
        rows = _safe_indexing(records.rows, np.flatnonzero(others))
        self.quantile_estimator_ = clone(regressor).fit(rows, confidence[others])
        # It fits the rows that it has seen too well to say how others exceed it.
        quantile = np.empty(len(records))
        quantile[others] = cross_val_predict(
            regressor,
            rows,
            confidence[others],
            cv=KFold(min(5, len(rows)), shuffle=True, random_state=self.random_state),
        )
        if member is not None:
            known = _safe_indexing(records.rows, np.flatnonzero(member))
            quantile[member] = self.quantile_estimator_.predict(known)
        scores = confidence - quantile
        self.threshold_ = self._choose_threshold(scores, member)
        self._calibrate(scores - self.threshold_, member)

    def _set_threshold(self, records, member):
        """Do nothing: `_learn` has, from scores by regressors that lack the record."""

    def _make_regressor(self, records):
        if self.quantile_estimator is not None:
            return self.quantile_estimator
        regressor = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=min(1 - self.fpr, np.nextafter(1, 0)),
            early_stopping=False,
            random_state=self.random_state,
        )
        if not is_dataframe(records.rows):
            return regressor
        encoder = make_column_transformer(
            (
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                make_column_selector(dtype_exclude="number"),
            ),
            remainder="passthrough",
        )
        return make_pipeline(encoder, regressor)

    def _confidence(self, records):
        if records.values is not None:
            residual = residuals(self.estimator_, records.features, records.values)
            return residual_confidence(residual, self._residual_scale)
        proba = probabilities(self.estimator_, records.features)
        return logit_confidence(proba, records.codes, self.resolution_)

    def _score(self, records):
        quantile = self.quantile_estimator_.predict(records.rows)
        return self._confidence(records) - quantile
