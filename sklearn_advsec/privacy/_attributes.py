"""Attribute inference: a column that is missing, from a model trained with it."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from joblib import delayed
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    RegressorMixin,
    clone,
    is_regressor,
)
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.utils import gen_batches
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from .._estimators import allows_nan
from .._parallel import in_parallel, run_tasks
from .._progress import ReportsProgress, with_callbacks
from .._rows import is_dataframe
from .._sklearn import (
    BaseEstimator,
    HasMethods,
    Interval,
    _check_y,
    _safe_indexing,
    fit_context,
)
from ..victim._fitting import VICTIM
from ._base import check_records, check_target
from ._records import Records, column_position
from ._signals import (
    as_target_takes_them,
    probabilities,
    residuals,
    true_probability,
)

# Rows about which the target is asked together.
_ROWS = 4096


class _AttributeAttack(ReportsProgress, MetaEstimatorMixin, BaseEstimator):
    """What attacks on a column share: the target is asked about each of its values."""

    knowledge = "score"

    _parameter_constraints = {
        "estimator": VICTIM,
        "attribute": [Integral, str],
        "attack_estimator": [HasMethods(["fit", "predict"]), None],
        "label_column": [Integral, str, None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    @with_callbacks
    def predict(self, X: ArrayLike) -> np.ndarray:
        """Infer the attribute.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.

        Returns
        -------
        y : ndarray of shape (n_records,)
            The attribute.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        with self._told_to_callbacks(X, None, self._n_batches(X)):
            return self.attack_estimator_.predict(self._see(X))

    def predict_baseline(self, X: ArrayLike) -> np.ndarray:
        """Impute the attribute from the other columns, without the target.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.

        Returns
        -------
        y : ndarray of shape (n_records,)
            The attribute.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        return self.baseline_estimator_.predict(self.encoder_.transform(X))

    def _ask(self, X, values):
        """Return the target's answers for each value of the attribute, side by side."""
        ask = self._ask_classifier
        if is_regressor(self.estimator_):
            ask = self._ask_regressor
        # Of the same size for any `n_jobs`, by which the last digits of answers go.
        parts = [_safe_indexing(X, at) for at in gen_batches(len(X), _ROWS)]
        told = in_parallel(partial(ask, values=values), parts, len(parts), self.n_jobs)
        return np.concatenate(self._followed(told, len(parts), "batch of records"))

    def _n_batches(self, X):
        return -(-len(X) // _ROWS)

    def _followed(self, results, n_results, name):
        """Return results that come one after the other, each of a task."""
        tasks = self._tasks(range(n_results), name, stops=False)
        return [result for _, result in zip(tasks, results, strict=True)]

    def _fit_both(self, estimator, known, seen, y):
        """Train on the known columns, and on what is seen of the target as well."""
        self.baseline_estimator_, self.attack_estimator_ = (
            self._fit_as_task(clone(estimator), "attack estimator", columns, y)
            for columns in (known, seen)
        )

    def _ask_classifier(self, X, values):
        """Return probabilities of the label for each value; all, where there is none."""
        classes = np.asarray(self.estimator_.classes_)
        records = Records(X, self.label_column, classes)
        told = []
        for whole in self._with_values(records.features, values):
            proba = probabilities(self.estimator_, whole)
            if records.codes is None:
                told.append(proba)
            else:
                told.append(true_probability(proba, records.codes)[:, np.newaxis])
        return np.concatenate(told, axis=1)

    def _ask_regressor(self, X, values):
        """Return the residuals for each value; predictions where there is no label."""
        records = Records(X, self.label_column, None)
        labels = np.zeros(len(X)) if records.values is None else records.values
        rows = self._with_values(records.features, values)
        told = [residuals(self.estimator_, whole, labels) for whole in rows]
        told = np.stack(told, axis=1)
        return -told if records.values is None else told

    def _with_values(self, features, values):
        """Yield the rows as the target takes them, with each value for all of them."""
        numeric = values.dtype.kind in "biuf"
        for i, value in enumerate(values):
            if not is_dataframe(features) and not numeric:
                value = i
            yield as_target_takes_them(self._insert(features, value), self.estimator_)

    def _insert(self, features, value):
        """Return the rows that the target takes, with one value for all of them."""
        n_features, position = features.shape[1] + 1, self.attribute
        if not isinstance(position, str) and not -n_features <= position < n_features:
            raise ValueError(
                f"attribute={position} is no position among {n_features} features."
            )
        if is_dataframe(features):
            names = getattr(self.estimator_, "feature_names_in_", None)
            if isinstance(position, str):
                if names is None or position not in names:
                    known = "no names" if names is None else list(names)
                    raise ValueError(
                        f"attribute={position!r} is no feature of the target, which has "
                        f"{known}. Give its position, or one of its names."
                    )
                self._check_missing(features, position)
                column = self._column(value, features)
                return features.assign(**{position: column})[list(names)]
            whole = features.copy()
            name = "attribute" if names is None else names[position]
            self._check_missing(features, name)
            whole.insert(position % n_features, name, self._column(value, features))
            return whole
        if isinstance(position, str):
            raise ValueError(
                f"attribute={position!r} is a name, but the records are an array; give "
                "its position among the target's features."
            )
        return np.insert(features, position % n_features, value, axis=1)

    def _column(self, value, features):
        """Return the attribute as a column of one value, in the dtype that `y` had."""
        if self._dtype is None:
            return value
        import pandas as pd

        return pd.Series(value, index=features.index, dtype=self._dtype)

    def _check_missing(self, features, name):
        if name in features.columns:
            raise ValueError(
                f"attribute={self.attribute!r} is to be inferred, but the records have a "
                f"column {name!r}; leave it out."
            )

    def _check_X(self, X, *, reset):
        X = check_records(self, X, reset=reset)
        if self.label_column is not None and not is_dataframe(X):
            column_position(X, self.label_column)
        return X

    def _check_X_y(self, X, y):
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X = self._check_X(X, reset=True)
        try:
            y = _check_y(y, multi_output=False, y_numeric=is_regressor(self))
        except ValueError as error:
            error.add_note("y is the attribute: leave out records that lack it.")
            raise
        return X, y


class AttributeInference(ClassifierMixin, _AttributeAttack):
    """Infer a sensitive attribute of records from the answers of a model trained with it.

    The attacker has all columns of a record but one. The target is asked about the record
    with every value that the missing one may have, and a classifier, trained on auxiliary
    records, decides from the answers and the known columns.

    Most of what it finds, it finds without the target: attributes go together. So the
    same classifier without the answers (imputation) is trained beside it, and only what
    :meth:`advantage` says is due to the model. It is often nothing.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`. A
        classifier needs `predict_proba`.
    attribute : int or str
        Where the missing column goes among the target's features: its position, or its
        name for targets that were fitted on a DataFrame.
    attack_estimator : classifier, default=None
        What decides. None is a random forest.
    label_column : int, str or None, default=-1
        The column of the records that holds the true label, of which the target's
        probability (or a regressor's residual) is then asked. None if the attacker does
        not know it: the attack then goes by all probabilities (by the prediction).
    n_jobs : int, default=None
        Number of joblib jobs, between which the rows are shared out that the target is
        asked about. The result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of the default `attack_estimator`.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    classes_ : ndarray of shape (n_values,)
        The values of the attribute. They are handed to the target as they are; strings,
        where rows are arrays of numbers, as their position.
    encoder_ : transformer
        What makes numbers of the known columns.
    attack_estimator_ : classifier
        The fitted classifier that sees the target's answers.
    baseline_estimator_ : classifier
        The same without them.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    NumericAttributeInference : An attribute that is a number.
    LossThreshold : Whether a whole record was in the training set.
    ModelInversion : What a class looks like.

    References
    ----------
    .. [1] M. Fredrikson et al., "Privacy in pharmacogenetics: an end-to-end case study of
       personalized warfarin dosing", USENIX Security 2014 (Figure 2: asking about every
       value).
    .. [2] B. Jayaraman and D. Evans, "Are attribute inference attacks just imputation?",
       arXiv:2209.01292 (the baseline).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.privacy import AttributeInference
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 2, size=(2000, 5)).astype(float)
    >>> y = (X.sum(axis=1) > 2).astype(int)  # the attributes are independent
    >>> target = LogisticRegression().fit(X, y)
    >>> known, attribute = np.delete(np.column_stack([X, y]), 2, axis=1), X[:, 2]
    >>> attack = AttributeInference(FrozenEstimator(target), attribute=2)
    >>> attack = attack.fit(known[:1000], attribute[:1000])
    >>> bool(attack.score(known[1000:], attribute[1000:]) > 0.6)
    True
    """

    def __init__(
        self,
        estimator: Any,
        attribute: int | str = 0,
        *,
        attack_estimator: Any = None,
        label_column: int | str | None = -1,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.attribute = attribute
        self.attack_estimator = attack_estimator
        self.label_column = label_column
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn from auxiliary records, of which the attacker has all columns.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.
        y : array-like of shape (n_records,)
            The attribute.

        Returns
        -------
        self : object
            The fitted attack.
        """
        dtype = getattr(y, "dtype", None)  # boosters know categories by their dtype
        self._dtype = dtype if hasattr(dtype, "categories") else None
        X, y = self._check_X_y(X, y)
        check_consistent_length(X, y)
        if type_of_target(y).startswith("continuous"):
            raise ValueError(
                "Unknown label type: continuous. The attribute is inferred as one of a "
                "few values; NumericAttributeInference infers numbers."
            )
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_.item(0)!r}: "
                "there is nothing to infer."
            )
        self.estimator_ = check_target(
            self.estimator, type(self).__name__, regressors=True
        )
        self.encoder_ = _make_encoder(X).fit(X)
        known = self.encoder_.transform(X)
        classifier = self.attack_estimator
        if classifier is None:
            classifier = RandomForestClassifier(
                min_samples_leaf=5, random_state=self.random_state
            )
        with self._reported(X, y, self._n_batches(X) + 2):
            self._fit_both(classifier, known, self._see(X), y)
        return self

    def _see(self, X):
        return np.column_stack([self.encoder_.transform(X), self._ask(X, self.classes_)])

    def advantage(self, X: ArrayLike, y: ArrayLike) -> float:
        """Compute how much more of the attribute is right than by imputation.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.
        y : array-like of shape (n_records,)
            The attribute.

        Returns
        -------
        advantage : float
            Accuracy less the accuracy of the baseline.
        """
        check_is_fitted(self)
        y = column_or_1d(y)
        check_consistent_length(X, y)
        check_classification_targets(y)
        return float(
            np.mean(self.predict(X) == y) - np.mean(self.predict_baseline(X) == y)
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # it may be that nothing is leaked
        tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


class NumericAttributeInference(RegressorMixin, _AttributeAttack):
    r"""Infer a sensitive number of records from the answers of a model trained with it.

    As :class:`AttributeInference`, for an attribute such as a dose, an age or an income.
    The target is asked about the record with some of the values that the attribute has; a
    regressor, trained on auxiliary records, decides from the answers, the known columns
    and the mean of the values weighed by how well they explain the label,
    :math:`\sum_v v\, p(y | x, v) / \sum_v p(y | x, v)` (of a regressor, with the Gaussian
    likelihood of its residual).

    The same regressor without the answers (imputation) is trained beside it, and only
    what :meth:`advantage` says is due to the model. Intervals say what an inference is
    worth to the attacker.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`. A
        classifier needs `predict_proba`.
    attribute : int or str
        Where the missing column goes among the target's features: its position, or its
        name for targets that were fitted on a DataFrame.
    attack_estimator : regressor, default=None
        What decides. None is a random forest.
    n_values : int, default=20
        About how many values the target is asked: as many quantiles of the attribute.
    confidence : float, default=0.9
        Probability that an interval holds the attribute.
    label_column : int, str or None, default=-1
        The column of the records that holds the true label, of which the target's
        probability (or a regressor's residual) is then asked. None if the attacker does
        not know it: the attack then goes by all probabilities (by the prediction).
    n_jobs : int, default=None
        Number of joblib jobs, between which the rows are shared out that the target is
        asked about, and the folds. The result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of the default `attack_estimator`, and of the folds.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    values_ : ndarray of shape (n_values,)
        The values of the attribute that it is asked about; equal ones count once.
    encoder_ : transformer
        What makes numbers of the known columns.
    attack_estimator_ : regressor
        The fitted regressor that sees the target's answers.
    baseline_estimator_ : regressor
        The same without them.
    half_width_, baseline_half_width_ : float
        Half the width of intervals with the target's answers, and without: the quantile
        of absolute errors on auxiliary records in five folds.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    AttributeInference : An attribute with few values.
    ModelInversion : What a class looks like.

    References
    ----------
    .. [1] M. Fredrikson et al., "Privacy in pharmacogenetics: an end-to-end case study of
       personalized warfarin dosing", USENIX Security 2014 (Figure 2: asking about every
       value, and weighing them).
    .. [2] B. Jayaraman and D. Evans, "Are attribute inference attacks just imputation?",
       arXiv:2209.01292 (the baseline).
    .. [3] V. Vovk, "Cross-conformal predictors", arXiv:1208.0806 (the intervals: their
       coverage is about right where records are alike, and is not guaranteed).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn_advsec.privacy import NumericAttributeInference
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(900, 4))  # the attributes are independent
    >>> y = X.sum(axis=1) + 0.5 * rng.normal(size=900)
    >>> target = Ridge().fit(X, y)
    >>> known, attribute = np.delete(np.column_stack([X, y]), 2, axis=1), X[:, 2]
    >>> attack = NumericAttributeInference(FrozenEstimator(target), attribute=2)
    >>> attack = attack.fit(known[:600], attribute[:600])
    >>> bool(attack.score(known[600:], attribute[600:]) > 0.6)
    True
    """

    _parameter_constraints = {
        **_AttributeAttack._parameter_constraints,
        "n_values": [Interval(Integral, 2, None, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any,
        attribute: int | str = 0,
        *,
        attack_estimator: Any = None,
        n_values: int = 20,
        confidence: float = 0.9,
        label_column: int | str | None = -1,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.attribute = attribute
        self.attack_estimator = attack_estimator
        self.n_values = n_values
        self.confidence = confidence
        self.label_column = label_column
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn from auxiliary records, of which the attacker has all columns.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.
        y : array-like of shape (n_records,)
            The attribute.

        Returns
        -------
        self : object
            The fitted attack.
        """
        self._dtype = None
        X, y = self._check_X_y(X, y)
        check_consistent_length(X, y)
        if len(y) < 2:
            raise ValueError(f"n_samples = {len(y)}: intervals take two records or more.")
        if y.dtype.kind not in "biuf":
            raise ValueError(
                f"y must hold numbers; it holds {y[:3].tolist()}. AttributeInference "
                "infers values of other kinds."
            )
        if y.min() == y.max():
            raise ValueError(
                f"y has one value only, {y[0]!r}: there is nothing to infer."
            )
        self.estimator_ = check_target(
            self.estimator, type(self).__name__, regressors=True
        )
        # Values that do occur: the target may take nothing else.
        shares = (np.arange(self.n_values) + 0.5) / self.n_values
        values = np.quantile(y, shares, method="nearest")
        self.values_, self._weights = np.unique(values, return_counts=True)
        self.encoder_ = _make_encoder(X).fit(X)
        folds = KFold(min(5, len(y)), shuffle=True, random_state=self.random_state)
        n_tasks = self._n_batches(X) + 2 + 2 * folds.get_n_splits()
        with self._reported(X, y, n_tasks):
            self._learn(X, y, folds)
        return self

    def _learn(self, X, y, folds):
        known, told = self.encoder_.transform(X), self._ask(X, self.values_)
        nearest = np.abs(y[:, np.newaxis] - self.values_).argmin(axis=1)
        self._residual = 1.0  # of a regressor that is told a value near to the true one
        if told.shape[1] == len(self.values_):
            self._residual = np.sqrt(np.mean(told[np.arange(len(y)), nearest] ** 2))
        seen = self._with_mean(known, told)
        regressor = self.attack_estimator
        if regressor is None:
            regressor = RandomForestRegressor(
                min_samples_leaf=5, random_state=self.random_state
            )
        self._fit_both(regressor, known, seen, y)
        self.half_width_, self.baseline_half_width_ = (
            self._width(np.abs(y - self._left_out(regressor, columns, y, folds)))
            for columns in (seen, known)
        )

    def predict_interval(self, X: ArrayLike) -> np.ndarray:
        """Infer between which values the attribute is.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.

        Returns
        -------
        interval : ndarray of shape (n_records, 2)
            The lower and the upper end.
        """
        check_is_fitted(self)
        inferred = self.predict(X)
        return np.column_stack([inferred - self.half_width_, inferred + self.half_width_])

    def advantage(self, X: ArrayLike, y: ArrayLike) -> float:
        """Compute how much more of the attribute's variance is explained.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records without the attribute.
        y : array-like of shape (n_records,)
            The attribute.

        Returns
        -------
        advantage : float
            R2 less the R2 of the baseline.
        """
        check_is_fitted(self)
        y = column_or_1d(y)
        check_consistent_length(X, y)
        return float(r2_score(y, self.predict(X)) - r2_score(y, self.predict_baseline(X)))

    def _left_out(self, regressor, columns, y, folds):
        """Return predictions of each row by a regressor that was trained without it."""
        splits = list(folds.split(columns))
        parts = run_tasks(
            (delayed(_predict_rest)(regressor, columns, y, *split) for split in splits),
            self.n_jobs,
        )
        predicted = np.empty(len(y))
        parts = self._followed(parts, len(splits), "fold")
        for (_, rest), part in zip(splits, parts, strict=True):
            predicted[rest] = part
        return predicted

    def _width(self, errors):
        """Return the quantile of the errors that one more error is below."""
        rank = int(np.ceil((len(errors) + 1) * self.confidence))
        return float(np.sort(errors)[min(rank, len(errors)) - 1])

    def _see(self, X):
        return self._with_mean(self.encoder_.transform(X), self._ask(X, self.values_))

    def _with_mean(self, known, told):
        """Put the answers beside the known columns, and the mean that they speak for."""
        if self.label_column is None:
            return np.column_stack([known, told])
        likelihood = told
        if is_regressor(self.estimator_):
            scale = max(self._residual, np.finfo(float).tiny)
            # The least residual counts as none: only its excess tells values apart.
            squares = np.minimum(np.abs(told) / scale, 1e3) ** 2
            squares -= squares.min(axis=1, keepdims=True)
            likelihood = np.exp(-squares / 2)
        weight = (likelihood + 1e-12) * self._weights
        mean = (weight * self.values_).sum(axis=1) / weight.sum(axis=1)
        return np.column_stack([known, told, mean])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # it may be that nothing is leaked
        tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


def _predict_rest(regressor, columns, y, train, rest):
    """Train on some rows, and predict others."""
    return clone(regressor).fit(columns[train], y[train]).predict(columns[rest])


def _make_encoder(X):
    """Return what makes numbers of the known columns."""
    if not is_dataframe(X):
        return FunctionTransformer()
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer(
        (one_hot, make_column_selector(dtype_exclude="number")), remainder="passthrough"
    )
