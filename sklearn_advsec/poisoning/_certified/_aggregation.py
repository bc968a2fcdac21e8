"""Ensembles whose votes bound what poison can do: what partitions and bags share."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.base import ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..._estimators import allows_nan, check_trainable
from ..._labels import class_positions, several_classes
from ..._progress import ReportsProgress
from ..._rows import check_rows, is_dataframe
from ..._sklearn import BaseEstimator, HasMethods, _check_y, fit_context, validate_data
from ...batched import fit_many
from ...defense import Certificate

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix


@dataclass(repr=False)
class PoisoningCertificate(Certificate):
    """How many changes of the training data provably leave a prediction as it is.

    Attributes
    ----------
    y_pred : ndarray of shape (n_rows,)
        The predictions.
    radius : ndarray of float, shape (n_rows,)
        So many changes, or fewer, do not change the prediction.
    norm : float
        1: changes are counted.
    confidence : float
        With which probability this holds for a row; 1.0 where it is a proof.
    unit : str
        What is counted.

    See Also
    --------
    DeepPartitionAggregation : Makes one.
    BaggingCertified : Makes one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.poisoning import DeepPartitionAggregation
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    >>> votes = DeepPartitionAggregation(tree, n_partitions=9).fit(X[1:], y[1:])
    >>> certificate = votes.certify(X[:1])
    >>> certificate.y_pred, bool(certificate.radius[0] >= 2), certificate.unit
    (array([0]), True, 'insertions, removals or flipped labels')
    """

    norm: float = 1.0
    unit: str = "insertions or removals"


class Aggregation(ReportsProgress, ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Base of ensembles of one recipe, whose members see few rows each and vote.

    A subclass lists its parameters, `estimator`, `random_state` and `n_jobs` among them,
    and writes ``_subsets(X, y, rng)``, the rows of each member, and `certify`.
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike | spmatrix | sparray, y: ArrayLike) -> Self:
        """Train the members, each on its own rows.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels.

        Returns
        -------
        self : object
            The fitted ensemble.
        """
        check_trainable(self.estimator, "estimator")
        given, X = X, self._check_X(X, reset=True)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        y = _check_y(y, multi_output=False, y_numeric=False)
        check_consistent_length(X, y)
        check_classification_targets(y)
        self.classes_ = several_classes(y)
        codes = class_positions(y, self.classes_, "y")
        rng = check_random_state(self.random_state)
        X, subsets = self._subsets(X, codes, rng)
        seeds = rng.randint(2**31 - 1, size=len(subsets))
        # Members with rows of one class vote for that class, and those without rows not
        # at all: nothing that other members' rows say, as which class is the first does.
        seen = [np.unique(codes[rows]) for rows in subsets]
        trained = [i for i, found in enumerate(seen) if len(found) > 1]
        members = []
        with self._reported(given, y):
            if trained:
                members = fit_many(
                    self.estimator,
                    X,
                    y,
                    [subsets[i] for i in trained],
                    [int(seeds[i]) for i in trained],
                    n_jobs=self.n_jobs,
                )
        self.estimators_ = [found[0] if len(found) else None for found in seen]
        for i, member in zip(trained, members, strict=True):
            self.estimators_[i] = member
        self.subsets_ = subsets
        return self

    def votes(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Count the members' votes.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        votes : ndarray of int, shape (n_rows, n_classes)
            For each class, how many members vote for it; those without rows do not.
        """
        check_is_fitted(self)
        X = self._transformed(self._check_X(X, reset=False))
        votes = np.zeros((X.shape[0], len(self.classes_)), dtype=int)
        at = np.arange(X.shape[0])
        for member in self._voters():
            votes[at, self._codes(member, X)] += 1
        return votes

    def predict(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Predict the class of most votes; of equal ones the first.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_rows,)
            Labels.
        """
        check_is_fitted(self)
        return self.classes_[self.votes(X).argmax(1)]

    def predict_proba(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Return the share of each class in the votes.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_rows, n_classes)
            Shares, which are no probabilities of the classes.
        """
        check_is_fitted(self)
        votes = self.votes(X)
        return votes / votes.sum(1, keepdims=True)

    def _subsets(self, X, y, rng):
        """Return the rows as members take them, and those of each member."""
        raise NotImplementedError

    def _transformed(self, X):
        """Return rows to be predicted as members take them."""
        return X

    def _voters(self):
        return [member for member in self.estimators_ if member is not None]

    def _codes(self, member, X):
        """Return the class codes that a member, or a constant, predicts."""
        if isinstance(member, Integral):
            return np.full(X.shape[0], member)
        with config_context(assume_finite=True):  # has been checked, once for all
            return class_positions(member.predict(X), self.classes_, "estimator")

    def _check_X(self, X, *, reset):
        allow_nan = allows_nan(self.estimator)
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return check_rows(X, type(self).__name__, allow_nan=allow_nan)
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            allow_nd=not issparse(X),
            ensure_all_finite="allow-nan" if allow_nan else True,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags
