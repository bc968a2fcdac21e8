"""Membership signals: one number per record, read off what a target says of it."""

import numpy as np
from scipy.special import xlogy
from sklearn.base import ClassifierMixin, RegressorMixin

from .._estimators import as_nets_take_them, unwrap
from .._labels import in_columns
from .._rows import is_dataframe
from .._sklearn import BaseEstimator
from ..victim import AnswerCheck, LabelAccess, ScoreAccess

# Probabilities closer to 0 or 1 than double precision can tell from them.
_TINY = 1e-16


class Answers(ClassifierMixin, BaseEstimator):
    """What a model said of some rows, as a model of their numbers.

    Where many attacks ask about the same rows, and each shadow model plays the target
    once, every model is asked once, and checked once. A row is its number, in the first
    column.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels.
    codes : ndarray of int, shape (n_rows,)
        What was predicted, as positions in `classes`.
    proba : ndarray of shape (n_rows, n_classes), or None
        Probabilities.
    """

    def __init__(self, classes, codes, proba=None):
        self.classes = classes
        self.codes = codes
        self.proba = proba
        self.classes_ = classes

    @classmethod
    def ask(cls, model, features):
        """Ask a model about rows."""
        classes = np.asarray(model.classes_)
        proba = None
        if hasattr(model, "predict_proba"):
            proba = probabilities(model, features, classes)
        return cls(classes, predicted_codes(model, features), proba)

    def fit(self, X=None, y=None):
        return self

    def predict(self, X):
        return self.classes[self.codes[_numbers_of(X)]]

    @property
    def predict_proba(self):
        if self.proba is None:
            raise AttributeError("This model gave no probabilities.")
        return lambda X: self.proba[_numbers_of(X)]


class NumericAnswers(RegressorMixin, BaseEstimator):
    """What a regressor said of some rows, as one of their numbers; see :class:`Answers`.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        What it predicted.
    """

    def __init__(self, values):
        self.values = values
        self.values_ = values

    def fit(self, X=None, y=None):
        return self

    def predict(self, X):
        return self.values[_numbers_of(X)]


def _numbers_of(X):
    return np.asarray(X)[:, 0].astype(np.int64)


def predicted_codes(estimator, features):
    """Ask for labels, as positions in the estimator's classes."""
    if isinstance(unwrap(estimator), Answers):
        return unwrap(estimator).codes[_numbers_of(features)]
    if len(estimator.classes_) == 1:  # a shadow whose rows had one label
        return np.zeros(len(features), dtype=int)
    access = LabelAccess(estimator, features)
    return access.predict(access.x).cpu().numpy()


def probabilities(estimator, features, classes=None):
    """Ask for probabilities, with a column for each of `classes`.

    A class that the estimator does not know has probability 0.

    Raises
    ------
    TypeError
        If the estimator gives no probabilities.
    """
    check_probabilities(estimator)
    if isinstance(unwrap(estimator), Answers):
        proba = unwrap(estimator).proba[_numbers_of(features)]
        return (
            proba if classes is None else in_columns(proba, estimator.classes_, classes)
        )
    known = np.asarray(estimator.classes_)
    if len(known) == 1:
        proba = np.ones((len(features), 1))
    else:
        access = ScoreAccess(estimator, features)
        proba = access.scores(access.x).cpu().numpy().astype(np.float64, copy=False)
    if classes is None:
        return proba
    return in_columns(proba, known, classes)


# Of regressors: half of it is added to the probability that stands for a residual, so
# that residuals far below the usual ones count as equal. Chosen on targets that no
# benchmark reports: with a twentieth of it, areas are smaller by .01 to .03.
RESIDUAL_RESOLUTION = 0.04


def residuals(estimator, features, values):
    """Ask a regressor, and return by how much the labels exceed what it predicts."""
    answer = AnswerCheck(estimator).values(estimator.predict(features), len(values))
    return values - answer.astype(np.float64, copy=False)


def residual_probability(residual, scale):
    """Return what stands for the probability of the own label: a Gaussian likelihood.

    It is divided by the one of no residual. `scale` is the residual of a model that has
    not seen the record, as a root of mean squares.
    """
    with np.errstate(over="ignore"):  # of a model that is always right
        ratio = residual / max(scale, np.finfo(float).tiny)
    return np.exp(-(np.clip(ratio, -1e3, 1e3) ** 2) / 2)


def check_probabilities(estimator, name="estimator"):
    """Raise a TypeError where the estimator in a parameter gives no probabilities."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{name}: {type(unwrap(estimator)).__name__} has no predict_proba, which "
            "this attack needs. Calibrate it (CalibratedClassifierCV), or use GapAttack "
            "or BoundaryDistance, which need labels only."
        )


def as_target_takes_them(features, estimator):
    """Return rows in the form that a fitted estimator knows.

    Records are a DataFrame where labels are strings, whatever the estimator was fitted
    on; one that has seen no names would warn at every query.
    """
    nameless = hasattr(estimator, "n_features_in_") and not hasattr(
        estimator, "feature_names_in_"
    )
    if nameless and is_dataframe(features):
        array = features.to_numpy()
        features = array if array.dtype.kind in "biuf" else features
    return as_nets_take_them(features, unwrap(estimator))


def true_probability(proba, codes):
    """Return the probability of the record's own label."""
    return proba[np.arange(len(proba)), codes]


def log_loss(proba, codes):
    """Return the cross-entropy of each record."""
    return -np.log(np.maximum(true_probability(proba, codes), _TINY))


# Below this, probabilities are as fine as those of any network.
_FINEST = 1e-6


def score_resolution(proba):
    """Measure the step of coarse probabilities; 0 for fine ones.

    Forests of T trees know multiples of 1/T, neighbours of 1/k, services round: there 0
    and 1 are ordinary values. Where most rows have the probabilities of another row, the
    step is the usual distance from one value to the next. Where they differ but some are
    exactly 0, it is how near to 0 or 1 the others come.
    """
    single = proba.astype(np.float32)  # sums of votes differ in the last digits
    values = np.unique(single)
    if 2 * len(np.unique(single, axis=0)) <= len(proba):
        step = np.median(np.diff(values)) if len(values) > 1 else 1.0
    elif proba.min() <= 0:
        edge = np.minimum(proba, 1 - proba)
        step = edge[edge > 1e-12].min(initial=1.0)
    else:
        return 0.0
    return float(step) if step >= _FINEST else 0.0


def logit_confidence(proba, codes, resolution=0.0):
    """Return log p / (1 - p) of the own label, which is nearly normal over models.

    ``1 - p`` is summed over the other labels, which does not cancel. Half of the
    `resolution` is added to both, as to a vote that was not counted: of a forest,
    (votes + 1/2) / (n_trees + 1) stands for p.
    """
    rows = np.arange(len(proba))
    own = proba[rows, codes]
    others = proba.copy()
    others[rows, codes] = 0
    others = others.sum(axis=1)
    least = max(resolution / 2, _TINY)
    if resolution:
        return np.log(own + least) - np.log(others + least)
    return np.log(np.maximum(own, least)) - np.log(np.maximum(others, least))


def residual_confidence(residual, scale):
    """Return the logit of what stands for the probability of the own label."""
    own = residual_probability(residual, scale)
    least = RESIDUAL_RESOLUTION / 2
    return np.log(own + least) - np.log(1 - own + least)


def modified_entropy(proba, codes):
    """Return the entropy that is 0 for a right and certain answer only.

    References
    ----------
    .. [1] L. Song and P. Mittal, "Systematic evaluation of privacy risks of machine
       learning models", arXiv:2003.10595 (Equation 6).
    """
    rows = np.arange(len(proba))
    proba = np.clip(proba, _TINY, 1.0)
    rest = np.clip(1 - proba, _TINY, 1.0)
    own = proba[rows, codes]
    terms = -xlogy(proba, rest)
    terms[rows, codes] = -(1 - own) * np.log(own)
    return terms.sum(axis=1)
