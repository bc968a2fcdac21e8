"""Scores of a classifier in columns of all classes, also of those that it lacks."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC

from .._labels import in_columns
from .._sklearn import BaseSearchCV, _ovr_decision_function


def class_scores(model, X, classes=None):
    """Return a classifier's score of each class.

    Parameters
    ----------
    model : classifier
        The fitted classifier.
    X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
        Rows.
    classes : ndarray of shape (n_classes,), default=None
        The classes that columns stand for, by default those that the model knows. Those
        that it does not know, since flips left none of their rows, get a score that is
        below all others by one.

    Returns
    -------
    scores : ndarray of shape (n_samples, n_classes)
        The decision function where there is one, else probabilities.
    """
    scores = _known_scores(model, X)
    if classes is None or len(classes) == len(model.classes_):
        return scores
    lowest = scores.min(1, keepdims=True) - 1
    return in_columns(scores - lowest, model.classes_, classes) + lowest


def _known_scores(model, X):
    n_classes = len(model.classes_)
    if hasattr(model, "decision_function"):
        scores = np.asarray(model.decision_function(X))
        if scores.ndim == 1:  # the difference of the two is the decision
            return np.stack([-scores, scores], axis=1) / 2
        if _is_pairwise(model):
            return _ovr_decision_function(scores < 0, -scores, n_classes)
        if scores.shape[1] == n_classes:
            return scores
    return np.asarray(model.predict_proba(X))


def _is_pairwise(model):
    """Whether the columns of a decision function are pairs of classes."""
    while isinstance(model, (Pipeline, BaseSearchCV)):
        model = model[-1] if isinstance(model, Pipeline) else model.best_estimator_
    return isinstance(model, (SVC, NuSVC)) and model.decision_function_shape == "ovo"
