"""What an extraction attack is once it is fitted: a copy, and how good it is."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._rows import is_dataframe
from ._victim import labels_of


def _copy_has(method):
    def check(self):
        getattr(self.copy_, method)
        return True

    return check


class StolenModel(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """The copy of a victim: it predicts, and is measured against the victim.

    A fit sets `copy_` and `classes_`, the victim `estimator_`, and for the report
    `bounds_`, `n_queries_`, the codec of rows and their precision.
    """

    def predict(self, X):
        """Predict with the copy; the victim is not asked.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            What the copy predicts.
        """
        check_is_fitted(self)
        return self.copy_.predict(self._rows_for_copy(X))

    @available_if(_copy_has("predict_proba"))
    def predict_proba(self, X):
        """Predict probabilities with the copy.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        proba = self.copy_.predict_proba(self._rows_for_copy(X))
        return in_columns(proba, self.copy_.classes_, self.classes_)

    def fidelity(self, X, sample_weight=None):
        """Share of rows on which copy and victim agree.

        The victim is asked about `X`, which is not counted as queries: this is a
        measurement, not a part of the attack.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        fidelity : float
            Between 0 and 1. For regressors, the share of equal predictions.
        """
        check_is_fitted(self)
        rows = self._check_X(X, reset=False)
        truth = labels_of(self.estimator_, self._rows_for_victim(rows))
        same = truth == self.predict(X)
        return float(np.average(same, weights=sample_weight))

    def extraction_report(self, X, *, n_uniform=10_000, random_state=0):
        """Measure how good the copy is, in the terms of Tramer et al.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows such as the victim will meet: a test set.
        n_uniform : int, default=10000
            Number of rows drawn uniformly between the smallest and the largest value of
            each feature seen in `fit`.
        random_state : int, RandomState instance or None, default=0
            Draws those rows.

        Returns
        -------
        report : dict
            `R_test` and `R_unif`, the shares of rows on which copy and victim differ
            (lower is better, 0 is exact), `R_test_TV` and `R_unif_TV`, the mean total
            variation between their probabilities, where both have some, and
            `n_queries`.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        low, high = self.bounds_
        rng = check_random_state(random_state)
        uniform = rng.uniform(size=(n_uniform, *low.shape)) * (high - low) + low
        columns = self._codec.columns
        if columns is not None and not columns.numeric.all():
            uniform[:, ~columns.numeric] = np.rint(uniform[:, ~columns.numeric])
        uniform = self._codec.decode(uniform.astype(self._dtype))
        report = {}
        for name, rows in (("test", X), ("unif", uniform)):
            sent = self._rows_for_victim(rows)
            rows = self._rows_for_copy(rows, check=False)
            same = labels_of(self.estimator_, sent) == self.copy_.predict(rows)
            report[f"R_{name}"] = float(1 - np.mean(same))
            if hasattr(self.estimator_, "predict_proba") and hasattr(
                self, "predict_proba"
            ):
                truth = np.asarray(self.estimator_.predict_proba(sent))
                proba = self.copy_.predict_proba(rows)
                proba = in_columns(proba, self.copy_.classes_, self.classes_)
                if truth.shape == proba.shape:
                    distance = np.abs(truth - proba).sum(axis=1) / 2
                    report[f"R_{name}_TV"] = float(distance.mean())
        report["n_queries"] = self.n_queries_
        return report

    def score(self, X, y, sample_weight=None):
        """Accuracy of the copy on true labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            The accuracy. To tune an attack, use `fidelity_scorer`.
        """
        check_is_fitted(self)
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def _rows_for_victim(self, rows):
        if is_dataframe(rows):
            return rows
        names = getattr(self.estimator_, "feature_names_in_", None)
        if names is None or rows.ndim != 2:
            return rows
        import pandas as pd

        return pd.DataFrame(rows, columns=names)

    def _rows_for_copy(self, X, check=True):
        if check:
            X = self._check_X(X, reset=False)
        if self.numeric and is_dataframe(X):
            return X.to_numpy(dtype=np.float64)
        return X

    def __sklearn_is_fitted__(self):
        return getattr(self, "_stolen", False)


def in_columns(proba, have, want):
    """Give probabilities of the classes `have` the columns of the classes `want`."""
    if np.array_equal(have, want):
        return proba
    full = np.zeros((len(proba), len(want)))
    order = np.argsort(want)
    full[:, order[np.searchsorted(want, have, sorter=order)]] = proba
    return full
