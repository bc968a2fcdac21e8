"""Attribute inference: a column that is missing, from a model trained with it."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from .._estimators import allows_nan, may_take_nan
from .._rows import check_rows, is_dataframe, plain_rows
from .._sklearn import HasMethods, _check_y, fit_context, validate_data
from ..victim._fitting import VICTIM
from ._base import check_target
from ._records import Records, column_position
from ._signals import as_target_takes_them, probabilities, true_probability


class AttributeInference(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Infer a sensitive attribute of records from the answers of a model trained with it.

    The attacker has all columns of a record but one. The target is asked about the record
    with every value that the missing one may have, and a classifier, trained on auxiliary
    records, decides from the answers and the known columns.

    Most of what it finds, it finds without the target: attributes go together. So the
    same classifier without the answers (imputation) is trained beside it, and only what
    :meth:`advantage` says is due to the model. It is often nothing.

    Parameters
    ----------
    estimator : classifier
        The target, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`. It
        needs `predict_proba`.
    attribute : int or str
        Where the missing column goes among the target's features: its position, or its
        name for targets that were fitted on a DataFrame.
    attack_estimator : classifier, default=None
        What decides. None is a random forest.
    label_column : int, str or None, default=-1
        The column of the records that holds the true label, of which the target's
        probability is then asked. None if the attacker does not know it: the attack then
        goes by all probabilities.
    random_state : int, RandomState instance or None, default=0
        Seed of the default `attack_estimator`.

    Attributes
    ----------
    estimator_ : classifier
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

    knowledge = "score"

    _parameter_constraints = {
        "estimator": VICTIM,
        "attribute": [Integral, str],
        "attack_estimator": [HasMethods(["fit", "predict"]), None],
        "label_column": [Integral, str, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        attribute: int | str = 0,
        *,
        attack_estimator: Any = None,
        label_column: int | str | None = -1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.attribute = attribute
        self.attack_estimator = attack_estimator
        self.label_column = label_column
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
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X = self._check_X(X, reset=True)
        dtype = getattr(y, "dtype", None)  # boosters know categories by their dtype
        self._dtype = dtype if hasattr(dtype, "categories") else None
        y = _check_y(y, multi_output=False, y_numeric=False, estimator=self)
        check_consistent_length(X, y)
        if type_of_target(y).startswith("continuous"):
            raise ValueError(
                "Unknown label type: continuous. The attribute is inferred as one of a "
                "few values; put a numeric one into bins first (KBinsDiscretizer), also "
                "for the target to be asked about."
            )
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_[0]!r}: there is nothing to infer."
            )
        self.estimator_ = check_target(self.estimator, type(self).__name__)
        self.encoder_ = _make_encoder(X).fit(X)
        known, told = self.encoder_.transform(X), self._ask(X)
        classifier = self.attack_estimator
        if classifier is None:
            classifier = RandomForestClassifier(
                min_samples_leaf=5, random_state=self.random_state
            )
        self.baseline_estimator_ = clone(classifier).fit(known, y)
        self.attack_estimator_ = clone(classifier).fit(np.column_stack([known, told]), y)
        return self

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
        seen = np.column_stack([self.encoder_.transform(X), self._ask(X)])
        return self.attack_estimator_.predict(seen)

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

    def _ask(self, X):
        """Return the target's answers for each value of the attribute, side by side."""
        classes = np.asarray(self.estimator_.classes_)
        records = Records(X, self.label_column, classes)
        numeric = self.classes_.dtype.kind in "biuf"
        told = []
        for i, value in enumerate(self.classes_):
            if not is_dataframe(X) and not numeric:
                value = i
            whole = self._insert(records.features, value)
            whole = as_target_takes_them(whole, self.estimator_)
            proba = probabilities(self.estimator_, whole)
            if records.codes is None:
                told.append(proba)
            else:
                told.append(true_probability(proba, records.codes)[:, np.newaxis])
        return np.concatenate(told, axis=1)

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
        allow_nan = may_take_nan(self.estimator)
        X, _ = plain_rows(X)
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return check_rows(X, type(self).__name__, allow_nan=allow_nan)
        X = validate_data(
            self,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if allow_nan else True,
        )
        if self.label_column is not None:
            column_position(X, self.label_column)
        return X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # it may be that nothing is leaked
        tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


def _make_encoder(X):
    """Return what makes numbers of the known columns."""
    if not is_dataframe(X):
        return FunctionTransformer()
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer(
        (one_hot, make_column_selector(dtype_exclude="number")), remainder="passthrough"
    )
