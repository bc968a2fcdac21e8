"""Checks of what users hand in, with errors that say what to do."""

import numpy as np
from sklearn.base import is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from .._estimators import name_of

# Their label is the class of the largest of their scores: that is how they find it.
_BY_LARGEST_SCORE = (
    CalibratedClassifierCV,
    DecisionTreeClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    LinearSVC,
    LogisticRegression,
    MLPClassifier,
    RandomForestClassifier,
    RidgeClassifier,
)


def scores_decide(estimator):
    """Whether the label of a fitted classifier is known to be that of its largest score.

    A class derived from one of those that are known may predict in another way.
    """
    if isinstance(estimator, FrozenEstimator):
        return scores_decide(estimator.estimator)
    if type(estimator) is Pipeline:
        return scores_decide(estimator.steps[-1][1])
    if type(estimator) in (GridSearchCV, RandomizedSearchCV):
        return scores_decide(estimator.best_estimator_)
    return type(estimator) in _BY_LARGEST_SCORE


def check_victim(estimator):
    """Raise where `estimator` is no fitted classifier of at least two classes."""
    name = name_of(estimator)
    if not hasattr(estimator, "fit"):
        raise TypeError(
            f"estimator must be a classifier; got {name}. Wrap a trained torch module as "
            "PretrainedModule(module, classes=...)."
        )
    if is_regressor(estimator) and not hasattr(estimator, "classes_"):
        raise TypeError(
            f"estimator must be a classifier; {name} is a regressor. Attacks take "
            "RegressionVictim(regressor, delta=...): delta is by how much the prediction "
            "has to move."
        )
    check_is_fitted(estimator)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise TypeError(
            f"estimator must be a fitted classifier with classes_; {name} has none."
        )
    several = isinstance(classes, (list, tuple)) and any(np.ndim(c) for c in classes)
    if several or np.ndim(classes) != 1:
        raise ValueError(f"estimator must have one output; {name} has several.")
    if len(classes) < 2:
        raise ValueError(
            f"estimator {name} knows one class only, {np.asarray(classes).item(0)!r}: "
            "there is no other to turn a row into."
        )
