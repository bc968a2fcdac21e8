"""Victims that say less: wrappers around any classifier."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from sklearn.base import ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._estimators import RoutesToEstimator
from .._sklearn import BaseEstimator, Interval, _routing_enabled, fit_context
from ..victim import ask_labels, ask_scores
from ..victim._fitting import (
    CLASSIFIER,
    as_victim,
    fit_victim,
    labels_missing,
    needs_labels,
)
from ..victim._validation import check_victim


def _has_probabilities(self):
    victim = getattr(self, "estimator_", as_victim(self.estimator))
    victim.predict_proba  # noqa: B018
    return True


class AnsweringClassifier(
    RoutesToEstimator, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    """Base of the wrappers: fits the classifier and passes its labels on."""

    _parameter_constraints = {"estimator": CLASSIFIER}

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **fit_params: Any) -> Self:
        """Fit the classifier (a frozen one is kept).

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,), default=None
            Their labels. Not needed for a frozen classifier.
        **fit_params : dict
            Passed on to the classifier; with metadata routing, what it requests.

        Returns
        -------
        self : object
            The fitted wrapper.
        """
        if y is None and self.__sklearn_tags__().target_tags.required:
            raise ValueError(labels_missing(self, self.estimator))
        if fit_params and _routing_enabled():
            fit_params = process_routing(self, "fit", **fit_params).estimator.fit
        self.estimator_ = fit_victim(self.estimator, X, y, owner=self, **fit_params)
        check_victim(self.estimator_)
        self.classes_ = np.asarray(self.estimator_.classes_)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict the classifier's own labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        return ask_labels(self.estimator_, X)

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in `fit`."""
        check_is_fitted(self)
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the features seen in `fit`, where they have names."""
        return self.estimator_.feature_names_in_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        victim = get_tags(as_victim(self.estimator))
        tags.input_tags = victim.input_tags
        tags.classifier_tags = victim.classifier_tags or tags.classifier_tags
        tags.target_tags.required = needs_labels(self.estimator)
        return tags


class ProbabilityWrapper(AnsweringClassifier):
    """Base of the wrappers that change probabilities; a subclass writes `_change`."""

    @available_if(_has_probabilities)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict what is shown of the probabilities.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            The changed probabilities.
        """
        check_is_fitted(self)
        return self._change(ask_scores(self.estimator_, X).astype(np.float64))

    def _change(self, proba):
        raise NotImplementedError


class RoundedProbabilities(ProbabilityWrapper):
    """Show probabilities rounded to a few decimals; labels are untouched.

    It costs a thief queries, not fidelity: from 2 decimals, :class:`EquationSolving`
    still copies logistic regressions of iris, wine and breast cancer with fidelity 1.0 on
    test data, from 10 (d + 1) queries. Each column is rounded by itself, as services do,
    so rows need not sum to 1.

    Parameters
    ----------
    estimator : classifier
        What is protected, with `predict_proba`.
    decimals : int, default=2
        Number of decimals.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its classes.

    See Also
    --------
    TopKProbabilities : Fewer probabilities.
    LabelsOnly : None.

    References
    ----------
    .. [1] F. Tramer et al., "Stealing machine learning models via prediction APIs",
       USENIX Security 2016, arXiv:1609.02943 (Section 7: rounding confidences).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import RoundedProbabilities
    >>> X, y = load_iris(return_X_y=True)
    >>> served = RoundedProbabilities(LogisticRegression(max_iter=1000), decimals=1)
    >>> served.fit(X, y).predict_proba(X[:1])
    array([[1., 0., 0.]])
    """

    _parameter_constraints = {
        **AnsweringClassifier._parameter_constraints,
        "decimals": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, estimator: Any, decimals: int = 2) -> None:
        self.estimator = estimator
        self.decimals = decimals

    def _change(self, proba):
        return np.round(proba, self.decimals)


class TopKProbabilities(ProbabilityWrapper):
    """Show the k largest probabilities of each row; the others share what is left.

    Sharing it equally says no more than leaving the others out would, and the rows remain
    probabilities.

    Parameters
    ----------
    estimator : classifier
        What is protected, with `predict_proba`.
    k : int, default=1
        How many are shown. They keep their values.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its classes.

    See Also
    --------
    RoundedProbabilities : All, rounded.
    LabelsOnly : None.

    References
    ----------
    .. [1] R. Shokri et al., "Membership inference attacks against machine learning
       models", IEEE S&P 2017, arXiv:1610.05820 (Section VII.A: restricting the
       prediction vector to the top k classes).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import TopKProbabilities
    >>> X, y = load_iris(return_X_y=True)
    >>> served = TopKProbabilities(LogisticRegression(max_iter=1000), k=1).fit(X, y)
    >>> served.predict_proba(X[:1]).round(2)
    array([[0.98, 0.01, 0.01]])
    """

    _parameter_constraints = {
        **AnsweringClassifier._parameter_constraints,
        "k": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, estimator: Any, k: int = 1) -> None:
        self.estimator = estimator
        self.k = k

    def _change(self, proba):
        k = min(self.k, proba.shape[1])
        top = np.argsort(-proba, axis=1, kind="stable")[:, :k]
        if k == proba.shape[1]:
            return proba
        rest = 1 - np.take_along_axis(proba, top, axis=1).sum(axis=1, keepdims=True)
        shown = np.repeat(np.clip(rest, 0, None), proba.shape[1], axis=1)
        shown /= proba.shape[1] - k
        np.put_along_axis(shown, top, np.take_along_axis(proba, top, axis=1), axis=1)
        return shown


class LabelsOnly(AnsweringClassifier):
    """Show labels and nothing else.

    It stops nobody who asks often enough: a logistic regression on breast cancer is found
    exactly, up to its scale, by :class:`EquationSolving` from about 52 queries per
    feature.

    Parameters
    ----------
    estimator : classifier
        What is protected.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its classes.

    See Also
    --------
    TopKProbabilities : Gives some probabilities.
    RoundedProbabilities : Gives all, rounded.

    References
    ----------
    .. [1] F. Tramer et al., "Stealing machine learning models via prediction APIs",
       USENIX Security 2016, arXiv:1609.02943 (Section 6: extraction given class labels
       only).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import LabelsOnly
    >>> X, y = load_iris(return_X_y=True)
    >>> served = LabelsOnly(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> served.predict(X[:1]), hasattr(served, "predict_proba")
    (array([0]), False)
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator


class ReverseSigmoid(ProbabilityWrapper):
    r"""Bend probabilities so that they mislead a copy that is trained on them.

    :math:`\tilde y \propto y - \beta\,(s(\gamma\,s^{-1}(y)) - 1/2)`, s the sigmoid, gives
    nearly the same answer to many true probabilities. The largest may then be that of
    another class, but labels are those of the classifier; a thief who takes the labels
    is not hindered.

    Parameters
    ----------
    estimator : classifier
        What is protected, with `predict_proba`.
    beta : float, default=0.9
        Size of the perturbation.
    gamma : float, default=0.2
        Its steepness.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its classes.

    See Also
    --------
    RoundedProbabilities : Says less, and nothing wrong.
    LabelsOnly : Says labels only.

    References
    ----------
    .. [1] T. Lee, B. Edwards, I. Molloy, D. Su, "Defending against machine learning model
       stealing attacks using deceptive perturbations", arXiv:1806.00054 (equations 4
       and 5).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import ReverseSigmoid
    >>> X, y = load_iris(return_X_y=True)
    >>> served = ReverseSigmoid(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> served.predict_proba(X[:1]).round(2)
    array([[0.57, 0.13, 0.3 ]])
    """

    _parameter_constraints = {
        **AnsweringClassifier._parameter_constraints,
        "beta": [Interval(Real, 0, 1, closed="both")],
        "gamma": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, estimator: Any, beta: float = 0.9, gamma: float = 0.2) -> None:
        self.estimator = estimator
        self.beta = beta
        self.gamma = gamma

    def _change(self, proba):
        clipped = np.clip(proba, 1e-12, 1 - 1e-12)
        shift = self.beta * (expit(self.gamma * logit(clipped)) - 0.5)
        bent = np.clip(clipped - shift, 0, None)
        total = bent.sum(axis=1, keepdims=True)
        return np.divide(bent, total, out=clipped.copy(), where=total > 0)
