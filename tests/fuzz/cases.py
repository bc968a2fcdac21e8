"""Cases of bad input: an estimator or a function, one of its parameters, a bad value.

They are generated from the constructors' parameters, from the signatures of the public
methods and functions, and from what a victim can answer wrongly. A case is made of names
only, so that a test's id says what it is; values are built when it runs.
"""

import hashlib
import inspect
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from fuzz.functions import CALLED, FUNCTIONS
from fuzz.functions import FREE as FREE_ARGUMENTS
from registry import FAMILIES
from scipy.sparse import csr_array

# Values for a parameter of a constructor or of a function, whatever it is.
WRONG = {
    "object": object(),
    "text": "no such choice",
    "bytes": b"1",
    "nan": float("nan"),
    "complex": 1j,
    "ragged": [[1.0], [1.0, 2.0]],
    "dict": {"a": 1},
    "array of nan": np.array([np.nan]),
    "class": dict,
}
# These are right for some parameters: where they are taken, the result has to be right.
DOUBTFUL = {
    "none": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "half": 0.5,
    "two": 2,
    "huge integer": 10**30,
    "huge float": 1e300,
    "tiny": 1e-300,
    "infinite": float("inf"),
    "minus infinite": float("-inf"),
    "numpy integer": np.int64(3),
    "numpy float": np.float32(0.25),
    "empty list": [],
    "list": [1, 2],
    "reversed pair": (1.0, 0.0),
    "equal pair": (0.5, 0.5),
    "pair of nan": (float("nan"), float("nan")),
    "infinite pair": (float("-inf"), float("inf")),
}
VALUES = WRONG | DOUBTFUL

# Parameters that take any object.
FREE = {"abstain_label", "memory"}
# A loop of 10**30 steps is what the caller asked for, and two jobs start processes.
UNENDING = re.compile("n_|max_iter|max_epochs|population|max_queries|verbose")


def _spoil(X, value):
    X = X.copy()
    X[min(3, len(X) - 1), -1] = value
    return X


# What can be wrong with rows, labels and weights; each is made of good ones.
BAD_ROWS = {
    "nan": lambda X: _spoil(X, np.nan),
    "infinite": lambda X: _spoil(X, np.inf),
    "too large for float32": lambda X: _spoil(X, 1e300),
    "one row, flat": lambda X: X[0],
    "cube": lambda X: X[:, :, None] * np.ones((1, 1, 2)),
    "no rows": lambda X: X[:0],
    "no columns": lambda X: X[:, :0],
    "too narrow": lambda X: X[:, :-1],
    "too wide": lambda X: np.hstack([X, X[:, :1]]),
    "none": lambda X: None,
    "text": lambda X: X.astype(str).astype(object) + " euros",
    "one text": lambda X: "rows",
    "ragged": lambda X: [[1.0], *X[1:].tolist()],
    "complex": lambda X: X + 1j,
    "sparse": csr_array,
    "masked": lambda X: np.ma.masked_array(X, mask=X > np.median(X)),
    "objects": lambda X: np.full(X.shape, None),
    "frame of other names": lambda X: pd.DataFrame(X).rename(columns="other {}".format),
    "dict": lambda X: {"a": X},
    "scalar": lambda X: 1.0,
}
BAD_LABELS = {
    "nan": lambda y: np.where(np.arange(len(y)) == 1, np.nan, y),
    "infinite": lambda y: np.where(np.arange(len(y)) == 1, np.inf, y),
    "short": lambda y: y[:-1],
    "long": lambda y: np.r_[y, y[:1]],
    "none": lambda y: None,
    "unknown text": lambda y: np.full(len(y), "no class"),
    "unknown number": lambda y: y + 100,
    "continuous": lambda y: y + np.linspace(0, 0.5, len(y)),
    "table": lambda y: np.column_stack([y, y]),
    "no rows": lambda y: y[:0],
    "scalar": lambda y: 1,
    "objects": lambda y: np.full(len(y), None),
    "ragged": lambda y: [[1], *y[1:].tolist()],
    "dict": lambda y: {"a": y},
    "one class": lambda y: np.zeros_like(y),
}
BAD_WEIGHTS = {
    "negative": lambda w: -w,
    "nan": lambda w: np.where(np.arange(len(w)) == 1, np.nan, w),
    "infinite": lambda w: np.where(np.arange(len(w)) == 1, np.inf, w),
    "short": lambda w: w[:-1],
    "long": lambda w: np.r_[w, 1.0],
    "table": lambda w: np.column_stack([w, w]),
    "text": lambda w: np.full(len(w), "heavy"),
    "no weight": np.zeros_like,
    "dict": lambda w: {"a": w},
}
BAD_ARGUMENTS = {
    "X": BAD_ROWS,
    "y": BAD_LABELS,
    "target": BAD_LABELS,
    "sample_weight": BAD_WEIGHTS,
    "X_ref": BAD_ROWS,
    "X_adv": BAD_ROWS,
    "y_true": BAD_LABELS,
    "y_pred": BAD_LABELS,
    "y_victim": BAD_LABELS,
    "X_train": BAD_ROWS,
    "y_train": BAD_LABELS,
    "X_test": BAD_ROWS,
    "y_test": BAD_LABELS,
}
# Right where the estimator says so: the result is looked at.
DOUBTFUL_ARGUMENTS = {
    ("X", "sparse"),
    ("X", "too large for float32"),
    ("X", "cube"),
    ("X", "nan"),
    ("X", "frame of other names"),
    ("y", "none"),
    ("y", "one class"),
    ("y", "unknown text"),
    ("y", "unknown number"),
    ("y", "continuous"),
    ("target", "none"),
    ("target", "one class"),
    ("target", "scalar"),
    ("X", "objects"),
    ("y_true", "unknown number"),
    ("y_true", "unknown text"),
    ("y_pred", "unknown number"),
    ("y_pred", "unknown text"),
    ("y_pred", "one class"),
    ("y_victim", "unknown number"),
    ("y_victim", "unknown text"),
    ("y_victim", "one class"),
    ("y_true", "continuous"),
    ("y_true", "one class"),
    ("y_pred", "continuous"),
    ("y_victim", "continuous"),
    ("y_test", "one class"),
    ("y_train", "one class"),
    *(
        (name, value)
        for name in ("X_train", "X_test")
        for value in ("nan", "objects", "too large for float32")
    ),
    ("X_adv", "nan"),
    ("X_adv", "frame of other names"),
    ("X_adv", "too large for float32"),
    ("X_ref", "too large for float32"),
    ("X_ref", "nan"),
    ("X_ref", "objects"),
    ("X_ref", "none"),
    ("sample_weight", "no weight"),
}

# What a victim says in place of what it should.
BAD_ANSWERS = (
    "nan",
    "infinite",
    "negative",
    "above one",
    "sums to two",
    "flat",
    "short",
    "long",
    "none",
    "text",
    "unknown labels",
    "table of labels",
    "ragged",
    "complex",
)

METHODS = {
    "fit": ("X", "y", "sample_weight"),
    "partial_fit": ("X", "y"),
    "fit_resample": ("X", "y", "sample_weight"),
    "run": ("X", "y", "target"),
    "score": ("X", "y", "sample_weight"),
    "transform": ("X",),
    "predict": ("X",),
    "predict_proba": ("X",),
    "decision_function": ("X",),
    "fidelity": ("X", "sample_weight"),
    "detect": ("X",),
    "certify": ("X",),
    "advantage": ("X", "y"),
    "predict_baseline": ("X",),
    "votes": ("X",),
    "detection_score": ("X",),
    "detection_scores": ("X",),
    "reconstruct": ("X",),
    "simulate": ("X",),
    "extraction_report": ("X",),
}


@dataclass(frozen=True)
class Case:
    """One bad value for one argument of one thing."""

    kind: str
    subject: str
    argument: str
    value: str

    def __str__(self):
        return f"{self.subject}-{self.kind}-{self.argument}-{self.value}"


INSTANCES = {}
for _family in FAMILIES.values():
    for _instance in _family:
        _name = type(_instance).__name__
        while _name in INSTANCES:
            _name += "'"
        INSTANCES[_name] = _instance


def _values_for(parameter):
    unending = UNENDING.match(parameter)
    large = {"huge integer", "huge float", "infinite"} if unending else set()
    return WRONG if parameter == "n_jobs" else [v for v in VALUES if v not in large]


def all_cases():
    """Return every case, in one order."""
    cases = []
    for name, instance in INSTANCES.items():
        parameters = instance.get_params(deep=False)
        for parameter in sorted(set(parameters) - FREE):
            cases += [
                Case("parameter", name, parameter, value)
                for value in _values_for(parameter)
            ]
        for method, arguments in METHODS.items():
            own = getattr(type(instance), method, None)
            if own is None or own.__module__.startswith("sklearn."):
                continue
            known = inspect.signature(own).parameters
            for argument in set(arguments) & set(known):
                cases += [
                    Case(method, name, argument, value)
                    for value in sorted(BAD_ARGUMENTS[argument])
                ]
        if "estimator" in parameters:
            cases += [
                Case("answers", name, "estimator", answer + when)
                for answer in BAD_ANSWERS
                for when in ("", " later")
            ]
    for name, (_, arguments) in FUNCTIONS.items():
        for argument in arguments:
            if (name, argument) not in FREE_ARGUMENTS:
                cases += [
                    Case("function", name, argument, value)
                    for value in _values_for(argument)
                    if value != "class" or argument not in CALLED
                ]
            cases += [
                Case("given", name, argument, value)
                for value in BAD_ARGUMENTS.get(argument, ())
                if isinstance(arguments[argument], np.ndarray)
            ]
    return sorted(cases, key=str)


def sample(n_cases, seed):
    """Return so many cases, drawn with a seed; new cases displace few of the others."""

    def place(case):
        return hashlib.sha256(f"{seed} {case}".encode()).digest()

    return sorted(all_cases(), key=place)[:n_cases]
