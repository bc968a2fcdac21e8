"""The base of the membership attacks."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    clone,
    is_regressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .._estimators import allows_nan, is_untrained_net, may_take_nan, unwrap
from .._progress import ReportsProgress, with_callbacks
from .._rows import check_rows, is_dataframe, plain_rows
from .._sklearn import BaseEstimator, Interval, _check_y, fit_context, validate_data
from ..victim._fitting import VICTIM, as_victim
from ..victim._validation import check_victim
from ._records import Records
from ._signals import as_target_takes_them, predicted_codes


def _is_calibrated(attack):
    if attack._slope is None:
        raise AttributeError(
            f"{type(attack).__name__} has no predict_proba here: its probabilities are "
            "calibrated in fit, on records that are known to be members and others that "
            "are known not to be (y), or on shadow models. decision_function orders "
            "records without."
        )
    return True


class MembershipAttack(
    ReportsProgress, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    """Base of the attacks that tell which records a model was trained on.

    A record is a row of features with its label in one of the columns. ``fit(records,
    y)`` takes the records that the attacker has, where `y` says which of them the target
    was trained on; without `y`, the attacker knows of none that was.

    A subclass lists, of the parameters below, those that it has, and writes
    ``_score(records)``, larger for members, and ``_learn(records, member)`` where there
    is something to learn. `records` has the `features` that the target takes and the
    `codes` of their labels in the target's `classes_`. The class attribute `knowledge`
    says whether the attack sees "score" or "label" of the target. Of a regressor, which
    an attack with the class attribute ``_takes_regressors = True`` takes, too, there are
    no codes: records have the `values` of their labels, which are numbers.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`. It
        needs `predict_proba`, except for attacks by labels. Regressors are taken by
        :class:`LossThreshold`, :class:`QuantileMembership`, :class:`ShadowModels`,
        :class:`LikelihoodRatio` and :class:`RMIA`.
    label_column : int, str or None, default=-1
        The column of the records that holds the label, by position or name. With None,
        the target's own prediction takes its place, also where models are trained.
    fpr : float, default=0.1
        The share of the attacker's records that may be called members, where no members
        are known. Where some are, the threshold is the one of the largest balanced
        accuracy on them.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        The threshold of the score.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    ShadowAttack : Base of those with shadow models.
    MembershipGame : Makes targets to try them on.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn_advsec.privacy import MembershipAttack
    >>> class LargestProbability(MembershipAttack):
    ...     def __init__(self, estimator, *, label_column=-1, fpr=0.1):
    ...         self.estimator = estimator
    ...         self.label_column = label_column
    ...         self.fpr = fpr
    ...
    ...     def _score(self, records):
    ...         return self.estimator_.predict_proba(records.features).max(axis=1)
    >>> X, y = load_digits(return_X_y=True)
    >>> target = RandomForestClassifier(30, random_state=0).fit(X[:900], y[:900])
    >>> records, member = np.column_stack([X, y]), np.arange(len(X)) < 900
    >>> attack = LargestProbability(FrozenEstimator(target))
    >>> attack = attack.fit(records[::2], member[::2])
    >>> bool(attack.score(records[1::2], member[1::2]) > 0.7)
    True
    """

    knowledge = "score"
    _takes_regressors = False
    _goes_by_y = True  # whether known members choose the threshold
    _slope = None  # of the logistic curve from decisions to probabilities
    _calibrates = True  # whether `predict_proba` is wanted

    _parameter_constraints = {
        "estimator": VICTIM,
        "label_column": [Integral, str, None],
        "fpr": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from the attacker's own records.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records: features, and the label in `label_column`.
        y : array-like of shape (n_records,), default=None
            Which records are known members of the target's training set (the larger of
            two values) and which are known not to be. None if no members are known: all
            are then taken as non-members.

        Returns
        -------
        self : object
            The fitted attack.
        """
        X = self._check_X(X, reset=True)
        member = self._check_membership(X, y)
        self._slope = None
        self.estimator_ = check_target(
            self.estimator, type(self).__name__, regressors=self._takes_regressors
        )
        with self._reported(X, y):
            records = self._records(X)
            self._learn(records, member)
            self._set_threshold(records, member)
            if not self._goes_by_y and self.classes_.dtype.kind not in "biuf":
                self._warn_where_reversed(self._score(records), member)
        return self

    @with_callbacks
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute how much speaks for membership.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records.

        Returns
        -------
        decision : ndarray of shape (n_records,)
            The attack's score less its threshold: positive for members.
        """
        check_is_fitted(self)
        records = self._records(self._check_X(X, reset=False))
        with self._told_to_callbacks(X, None, self._n_score_tasks()):
            return self._score(records) - self._threshold(records)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Tell members from non-members, at the attack's own threshold.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records.

        Returns
        -------
        y : ndarray of shape (n_records,)
            The larger of the two values that `y` had in `fit` (1 without `y`) for
            members, else the smaller (0).
        """
        check_is_fitted(self)
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    @available_if(_is_calibrated)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Compute the probability of membership, at even odds before the answers.

        It is there where it can be calibrated: on members and non-members that were known
        in `fit`, else on shadow models, whose members are known.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records.

        Returns
        -------
        proba : ndarray of shape (n_records, 2)
            Of non-members and members; a half at the threshold.
        """
        proba = self._probability(self.decision_function(X))
        return np.column_stack([1 - proba, proba])

    def _probability(self, decision):
        return expit(self._slope * decision / (np.abs(decision) + self._scale))

    def _calibrate(self, decision, member):
        """Learn how sure a decision is, from records whose membership is known."""
        if member is None or not 0 < member.sum() < len(member) or not self._calibrates:
            return
        # Far from the threshold, decisions of few shadows are wilder than they are sure.
        self._scale = max(float(np.median(np.abs(decision))), np.finfo(float).tiny)
        squashed = decision / (np.abs(decision) + self._scale)
        balanced = LogisticRegression(fit_intercept=False, class_weight="balanced")
        balanced.fit(squashed[:, np.newaxis], member)
        self._slope = max(float(balanced.coef_[0, 0]), 1e-3)

    def _n_score_tasks(self):
        """Return how many tasks there are in scoring records."""
        return 0

    def _learn(self, records, member):
        """Learn what `_score` needs; `member` is a mask, or None if nothing is known."""

    def _score(self, records):
        """Score each record, larger for members; the one method of a subclass."""
        raise NotImplementedError

    def _set_threshold(self, records, member):
        scores = self._score(records)
        self.threshold_ = self._choose_threshold(scores, member)
        self._calibrate(scores - self.threshold_, member)

    def _choose_threshold(self, scores, member):
        """Return the threshold that is best on known members, else from non-members."""
        if member is None:
            return self._threshold_from_non_members(scores)
        self._warn_where_reversed(scores, member)
        return best_threshold(scores, member)

    def _warn_where_reversed(self, scores, member):
        """Warn where members by name score lower, beyond what chance explains.

        Of names, the larger is the later one in the alphabet.
        """
        if self.classes_.dtype.kind in "biuf":
            return
        n, m = int(member.sum()), int((~member).sum())
        auc = roc_auc_score(member, scores)
        if auc < 0.5 - 4 * np.sqrt((n + m + 1) / (12 * n * m)):
            warnings.warn(
                f"y={self.classes_[1]!r} stands for members, the larger of two values, "
                f"but these records score lower than the others (AUC {auc:.2f}). If it "
                f"is the other way round, give y == {str(self.classes_[0])!r}.",
                stacklevel=5,
            )

    def _threshold_from_non_members(self, scores):
        """Return the score that the share `fpr` of non-members exceeds."""
        return float(np.quantile(scores, 1 - self.fpr))

    def _threshold(self, records):
        return self.threshold_

    def _records(self, X):
        if is_regressor(self.estimator_):
            return self._records_with_values(X)
        classes = np.asarray(self.estimator_.classes_)
        records = Records(X, self.label_column, classes)
        records.features = as_target_takes_them(records.features, self.estimator_)
        try:
            if records.codes is None:
                records.codes = predicted_codes(self.estimator_, records.features)
        except ValueError as error:
            error.add_note(f"{type(self).__name__} was given label_column=None.")
            raise
        return records

    def _records_with_values(self, X):
        """Take records apart for a target that is a regressor."""
        if self.label_column is None:
            raise ValueError(
                f"{type(self).__name__} was given label_column=None, but of a regressor "
                "there is nothing to go by but how far it is from the label: records "
                "must have one."
            )
        records = Records(X, self.label_column, None)
        records.features = as_target_takes_them(records.features, self.estimator_)
        return records

    def _check_membership(self, X, y):
        """Return which records are known members, as a mask, or None."""
        if y is None:
            self.classes_ = np.array([0, 1])
            return None
        y = _check_y(y, multi_output=False, y_numeric=False, estimator=self)
        check_consistent_length(X, y)
        check_classification_targets(y)
        y_type = type_of_target(y, input_name="y", raise_unknown=True)
        if y_type != "binary":
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{y_type}."
            )
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_.item(0)!r}: {type(self).__name__} "
                "needs members and non-members, or y=None where no members are known."
            )
        return codes == 1

    def _check_X(self, X, *, reset):
        return check_records(self, X, reset=reset)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True  # a target need not leak
        tags.target_tags.required = False
        tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


def check_records(attack, X, *, reset):
    """Validate records: DataFrames stay, all else becomes an array of floats."""
    allow_nan = may_take_nan(attack.estimator)
    X, _ = plain_rows(X)
    if is_dataframe(X):
        validate_data(attack, X, reset=reset, skip_check_array=True)
        return check_rows(X, type(attack).__name__, allow_nan=allow_nan)
    return validate_data(
        attack,
        X,
        reset=reset,
        dtype=[np.float64, np.float32],
        ensure_all_finite="allow-nan" if allow_nan else True,
    )


def check_target(estimator, attack_name, *, regressors=False):
    """Return the target of an attack, which has to be fitted, as its clone."""
    target = clone(as_victim(estimator))
    try:
        check_is_fitted(target)
        if is_untrained_net(unwrap(target)):
            raise NotFittedError
    except NotFittedError:
        raise NotFittedError(
            f"estimator of {attack_name} must be fitted: it is the target, and training "
            "it here would train it on the attacker's records (the clone of one that is "
            "fitted is not). Pass FrozenEstimator(classifier), or, for torch, "
            "PretrainedModule(module)."
        )
    if not (regressors and is_regressor(target)):
        check_is_classifier(target, attack_name)
    return target


def check_is_classifier(target, attack_name):
    """Raise where a target is none; a regressor is none, also as a `RegressionVictim`."""
    if is_regressor(target):
        raise TypeError(
            f"estimator of {attack_name} must be a classifier: regressors have no labels "
            "to be sure of. Membership in the training set of a regressor is told by "
            "LossThreshold, QuantileMembership, ShadowModels, LikelihoodRatio and RMIA."
        )
    check_victim(target)


def best_threshold(scores, member):
    """Return the threshold of the largest balanced accuracy, between two scores."""
    order = np.argsort(-scores, kind="stable")
    ranked, member = scores[order], member[order]
    true_rate = np.cumsum(member) / member.sum()
    false_rate = np.cumsum(~member) / (~member).sum()
    last = np.append(ranked[1:] != ranked[:-1], True)  # of the records with equal scores
    gain = np.where(last, true_rate - false_rate, -np.inf)
    i = int(np.argmax(gain))
    if gain[i] <= 0 or i == len(ranked) - 1:
        # No threshold is better than none: call those above all others members.
        return float(ranked[0])
    return float((ranked[i] + ranked[i + 1]) / 2)
