"""What happens to a case: it is refused by name, it works rightly, or it is a fault."""

import re
import signal
import threading
import warnings
from contextlib import contextmanager
from functools import cache

import numpy as np
from fuzz.cases import (
    BAD_ARGUMENTS,
    DOUBTFUL_ARGUMENTS,
    INSTANCES,
    METHODS,
    VALUES,
    WRONG,
)
from fuzz.functions import FEW, FUNCTIONS, LABELS, X
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_advsec.exceptions import QueryBudgetExceeded

SECONDS = 30  # of the clock, on a machine that others use as well

# How an error may call what is wrong, beside its own name.
SYNONYMS = {
    "X": "X|Input|input|array|features|feature names|samples|sparse|rows|row|records"
    "|columns|column",
    "y": "y|labels|label|target|classes|class|multiclass|binary|continuous",
    "target": "target|labels|label|classes|class",
    "sample_weight": "sample_weight|weights|weight",
    "estimator": "estimator|victim|model|predict|predict_proba|decision_function",
}
# What scikit-learn's own checks of arrays say, and in part ask estimators to say.
SCIKIT_LEARN = re.compile(
    "inconsistent numbers of samples|could not convert string|Complex data not supported"
    "|setting an array element|must be a string or a real number|is a bad input shape"
    "|bad input shape|Singleton array|Expected sequence or array-like|1d array"
    "|Input contains|Input X contains|at least 1 dimension|0 sample|Expected array-like"
)
# Errors that are meant for callers.
MEANT = (
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    NotImplementedError,
    QueryBudgetExceeded,
)
# They hand rows to the classifier inside, whatever they are; and transformers that ignore
# `y`, as scikit-learn's do.
PASS_ON = {
    "LabelsOnly",
    "PRADADetector",
    "ReverseSigmoid",
    "RoundedProbabilities",
    "TopKProbabilities",
}
# Functions that train, or only look: any width is right.
HAVE_NO_WIDTH = {
    "AdversarialExamplesDisplay.from_predictions",
    "box",
    "epsilon_lower_bound",
    "fit_many",
    "from_frame",
    "label_access",
    "make_records",
    "poisoning_report",
    "weigh_by_importance",
}
# What is wished for may be anywhere; it is only measured, or led back.
WISHES = {"constraints_distance", "constraints_project", "constraints_violations"}
IGNORE_Y = {
    "DegreeOfSimilarity",
    "FakeUsers",
    "FeatureNoise",
    "FeatureSqueezing",
    "JPEGCompression",
    "MatrixFactorization",
    "PCAVarSelect",
    "PropertyInference",
}


class Hang(BaseException):
    """The case took longer than a case may."""


def fault(case):
    """Run a case; return what is wrong with what happened, or None.

    Parameters
    ----------
    case : Case

    Returns
    -------
    fault : str or None
        It begins with ``unnamed`` (the error does not say what was wrong), ``accepted``
        (what cannot be right was taken), ``wrong`` (the result is not right) or ``hang``.
    """
    try:
        with warnings.catch_warnings(action="ignore"), _limited(SECONDS):
            result, checks = _run(case)
            for check in checks:
                check(result)
    except Hang:
        return f"hang: not finished after {SECONDS} s"
    except _Wrong as error:
        return f"wrong: {error}"
    except Exception as error:
        if case.value == "cube" and re.search("shapes|size of tensor", str(error)):
            return None  # a caller's network says what it cannot take
        if isinstance(error, MEANT) and _names(error, case):
            return None
        return f"unnamed: {type(error).__name__}: {_one_line(error)}"
    if _cannot_be_right(case):
        return "accepted"
    return None


def _names(error, case):
    words = SYNONYMS.get(case.argument, re.escape(case.argument))
    if case.argument.startswith("y_"):
        words = f"{case.argument}|{SYNONYMS['y']}"
    if case.kind == "answers" and case.subject.endswith("AttributeInference"):
        return True  # its victim takes another column, the attribute
    if case.kind == "answers":
        words = f"{SYNONYMS['estimator']}|{SYNONYMS['y']}|Spoiled|probabilities"
    is_data = case.kind in ("function", "given") or case.argument in BAD_ARGUMENTS
    if is_data and SCIKIT_LEARN.search(str(error)):
        return True
    return re.search(rf"(?<![A-Za-z])({words})(?![A-Za-z])", str(error)) is not None


def _cannot_be_right(case):
    if case.kind == "answers":
        return Spoiled.n_given > 0
    if case.kind in ("parameter", "function"):
        return case.value in WRONG
    if case.argument == "y" and case.subject in IGNORE_Y:
        return False
    if case.value == "masked" and case.subject in PASS_ON:
        return False
    if case.value == "infinite" and case.subject in WISHES:
        return False
    trains = case.kind in ("fit", "partial_fit", "fit_resample")
    if trains or case.subject in HAVE_NO_WIDTH:
        if case.value in ("too wide", "too narrow"):  # there is no width yet
            return False
    return (case.argument, case.value) not in DOUBTFUL_ARGUMENTS


def _one_line(error):
    return " ".join(str(error).split())[:120]


@contextmanager
def _limited(seconds):
    """Raise `Hang` in this thread when the time is over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(signum, frame):
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Running ------------------------------------------------------------------------------


def _run(case):
    """Return what a case returns, and what it has to be."""
    if case.kind in ("function", "given"):
        function, arguments = FUNCTIONS[case.subject]
        if case.kind == "function":
            value = VALUES[case.value]
        else:
            spoil = BAD_ARGUMENTS[case.argument][case.value]
            value = spoil(arguments[case.argument])
        checks = [] if case.value in ("nan", "objects") else [_is_finite]
        return function(**arguments | {case.argument: value}), checks
    if case.kind == "parameter":
        return _used(_instance(case.subject, **{case.argument: VALUES[case.value]}))
    if case.kind == "answers":
        Spoiled.n_given = 0
        victim = Spoiled(case.value).fit(X, LABELS)
        used = _used(_instance(case.subject, estimator=FrozenEstimator(victim)))
        return used[0], [_is_finite]  # to ask it once more tells nothing
    arguments = {"X": X, "y": LABELS, "sample_weight": np.ones(len(X))}
    if case.kind in ("fit", "partial_fit", "fit_resample"):
        subject = _instance(case.subject)
    else:
        subject = _fitted(case.subject)
        arguments = {name: value[FEW] for name, value in arguments.items()}
    if case.argument == "target":
        arguments["target"] = 1 - arguments["y"]
        if "goal" in subject.get_params(deep=False):
            subject = _fitted(case.subject, goal="targeted")
    known = METHODS[case.kind]
    wanted = {name: v for name, v in arguments.items() if name in known}
    if case.argument != "sample_weight":
        wanted.pop("sample_weight", None)
    spoil = BAD_ARGUMENTS[case.argument][case.value]
    wanted[case.argument] = spoil(wanted[case.argument])
    if not hasattr(subject, case.kind):
        raise AttributeError(f"no {case.kind}, so no {case.argument}")
    method = getattr(subject, case.kind)
    given = [wanted.pop("X")]
    if "y" in wanted and case.kind not in ("run",):
        given.append(wanted.pop("y"))
    result = method(*given, **wanted)
    may_be_nan = case.value in ("nan", "objects") and case.kind in (
        "run",
        "transform",
        "fit_resample",
    )
    return result, [] if result is subject or may_be_nan else [_is_finite]


def _instance(name, **parameters):
    return clone(INSTANCES[name]).set_params(**parameters)


@cache
def _fitted(name, **parameters):
    instance = _instance(name, **parameters)
    if hasattr(instance, "fit_resample"):
        instance.fit_resample(X, LABELS)
        return instance
    return instance.fit(X, LABELS)


def _used(instance):
    """Fit and use an instance with good data; return what comes out and its checks."""
    if hasattr(instance, "fit_resample"):
        return instance.fit_resample(X, LABELS), [_is_finite, _has_as_many_labels]
    instance.fit(X, LABELS)
    if hasattr(instance, "run"):
        result = instance.run(X[FEW], LABELS[FEW])

        def is_what_the_victim_says(result):
            said = instance.estimator_.predict(result.X_adv)
            _demand((said == result.y_pred).all(), "y_pred is not what the victim says")
            limit = instance.get_params(deep=False).get("max_queries")
            if limit is not None:
                _demand((result.n_queries <= limit).all(), "more queries than allowed")
            wrong = result.success & (result.y_pred == LABELS[FEW])
            parameters = instance.get_params(deep=False)
            plain = parameters.get("confidence", 0.0) in (0.0, None)
            if plain and parameters.get("goal") == "misclassification":
                _demand(not wrong.any(), "a success that the victim gets right")

        return result, [_is_finite, is_what_the_victim_says]
    if hasattr(instance, "predict_proba"):
        return instance.predict_proba(X[FEW]), [_is_finite, _is_a_distribution]
    if hasattr(instance, "decision_function"):
        return instance.decision_function(X[FEW]), [_is_finite]
    if hasattr(instance, "predict"):
        return instance.predict(X[FEW]), []
    if hasattr(instance, "transform"):
        return instance.transform(X[FEW]), [_is_finite]
    if hasattr(instance, "score"):
        return instance.score(X[FEW], LABELS[FEW]), [_is_finite]
    return None, []


class Spoiled(ClassifierMixin, BaseEstimator):
    """A classifier that answers wrongly in one way, and counts how often it did."""

    n_given = 0

    def __init__(self, how):
        self.how = how

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        self.model_ = LogisticRegression().fit(X, y)
        self.n_calls_ = 0
        return self

    def _behaves(self):
        """Whether this call is answered rightly: the first ones, of "... later"."""
        self.n_calls_ += 1
        return self.how.endswith(" later") and self.n_calls_ <= 3

    def predict(self, X):
        labels = self.model_.predict(X)
        spoiled = {
            "short": lambda: labels[:-1],
            "long": lambda: np.r_[labels, labels[:1]],
            "none": lambda: None,
            "text": lambda: "no labels",
            "unknown labels": lambda: labels + 100,
            "table of labels": lambda: np.column_stack([labels, labels]),
            "nan": lambda: np.full(len(labels), np.nan),
            "ragged": lambda: [[1], [1, 2], *[[1]] * len(labels)][: len(labels)],
        }
        how = self.how.removesuffix(" later")
        if how not in spoiled or self._behaves():
            return labels
        Spoiled.n_given += 1
        return spoiled[how]()

    def predict_proba(self, X):
        proba = self.model_.predict_proba(X)
        if self._behaves():
            return proba
        Spoiled.n_given += 1
        return {
            "nan": lambda: np.full_like(proba, np.nan),
            "infinite": lambda: proba * np.array([np.inf, 1]),
            "negative": lambda: proba * [-1, 1] + [0, 0.5],
            "above one": lambda: proba + [1, -1] * (proba + 0.5),
            "sums to two": lambda: 2 * proba,
            "flat": lambda: proba[:, 0],
            "short": lambda: proba[:-1],
            "long": lambda: np.vstack([proba, proba[:1]]),
            "none": lambda: None,
            "text": lambda: "no scores",
            "unknown labels": lambda: np.hstack([proba, proba]) / 2,
            "table of labels": lambda: proba[:, :, None],
            "ragged": lambda: [[1.0], *proba[1:].tolist()],
            "complex": lambda: proba + 1j,
        }[self.how.removesuffix(" later")]()


# What has to hold ---------------------------------------------------------------------


class _Wrong(Exception):
    pass


def _demand(holds, text):
    if not holds:
        raise _Wrong(text)


def _is_finite(result):
    """Whatever numbers come back are numbers; distances of failures may be infinite."""
    if hasattr(result, "X_adv"):
        _demand(np.isfinite(np.asarray(result.X_adv, float)).all(), "X_adv not finite")
        _demand(not np.isnan(result.distance).any(), "distance is nan")
        return
    for part in result if isinstance(result, tuple) else (result,):
        part = part.toarray() if hasattr(part, "toarray") else part
        if isinstance(part, (float, np.ndarray)) and np.asarray(part).dtype.kind == "f":
            _demand(not np.isnan(part).any(), "nan in the result")


def _has_as_many_labels(result):
    _demand(result[0].shape[0] == len(result[1]), "rows and labels differ in number")


def _is_a_distribution(result):
    good = (result >= 0).all() and np.allclose(result.sum(axis=1), 1, atol=1e-5)
    _demand(good, "no distribution")
