"""What is private to scikit-learn, in one place; checks and links that it does not make.

Everything that may move in its next version is imported here, and only here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, metadata
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import sklearn.base
from sklearn.base import _fit_context
from sklearn.ensemble._forest import ForestClassifier, ForestRegressor
from sklearn.linear_model._base import LinearModel
from sklearn.linear_model._coordinate_descent import LinearModelCV
from sklearn.model_selection._search import BaseSearchCV
from sklearn.tree._tree import NODE_DTYPE, Tree
from sklearn.utils import _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.metadata_routing import _routing_enabled
from sklearn.utils.multiclass import _ovr_decision_function
from sklearn.utils.validation import _check_sample_weight, _check_y, _num_samples
from sklearn.utils.validation import validate_data as _validate_data

__all__ = [
    "NODE_DTYPE",
    "BaseEstimator",
    "BaseSearchCV",
    "ForestClassifier",
    "ForestRegressor",
    "HasMethods",
    "Interval",
    "LinearModel",
    "LinearModelCV",
    "Options",
    "RealNotInt",
    "StrOptions",
    "Tree",
    "_check_sample_weight",
    "_ovr_decision_function",
    "_check_y",
    "_num_samples",
    "_routing_enabled",
    "_safe_indexing",
    "check_matplotlib_support",
    "check_parameters",
    "fit_context",
    "refuse_masked",
    "validate_data",
    "validate_parameter_constraints",
    "validate_params",
]

# Numbers above it are none in float32, in which networks compute.
_LARGEST = float(np.finfo(np.float32).max)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])  # stays of its type


class BaseEstimator(sklearn.base.BaseEstimator):
    """The base of estimators whose HTML representation links to the page of their class.

    It does so where the project's metadata know the address of the documentation.
    """

    _doc_link_module = "sklearn_advsec"

    @property
    def _doc_link_template(self):
        face = sys.modules[type(self).__module__.partition("._")[0]]
        is_public = getattr(face, type(self).__name__, None) is type(self)
        return page_of_a_class() if is_public else ""


@cache
def page_of_a_class() -> str:
    """Return the address of a class's page, to be formatted; "" where there is none.

    It is the "Documentation" of `[project.urls]` in `pyproject.toml`, and the path that
    the autosummary of `docs/api_reference.py` gives the page.
    """
    try:
        urls = metadata("sklearn-advsec").get_all("Project-URL", [])
    except PackageNotFoundError:  # the package is imported without being installed
        return ""
    for url in urls:
        label, _, address = url.partition(",")
        if label.strip().lower() == "documentation":
            page = "api/generated/{estimator_module}.{estimator_name}.html"
            return f"{address.strip().rstrip('/')}/{page}"
    return ""


def fit_context(
    *, prefer_skip_nested_validation: bool
) -> Callable[[Decorated], Decorated]:
    """Decorate a `fit`: scikit-learn's checks of parameters, and those of `check_values`.

    For scikit-learn, True is a whole number, no number is too large, and whatever has a
    length is an array.
    """

    def decorate(fit):
        @_fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)
        @wraps(fit)
        def checked(estimator, *args, **kwargs):
            check_values(estimator)
            return fit(estimator, *args, **kwargs)

        @wraps(fit)
        def explained(estimator, *args, **kwargs):
            try:
                return checked(estimator, *args, **kwargs)
            except InvalidParameterError as error:
                raise _explained(error, estimator) from None

        return explained

    return decorate


def _explained(error, owner):
    """Say what to write where a torch module was given to what trains its victims."""
    about = f"The 'estimator' parameter of {type(owner).__name__} "
    module = getattr(owner, "estimator", None)
    if not str(error).startswith(about) or not hasattr(module, "state_dict"):
        return error
    name = type(module).__name__
    return InvalidParameterError(
        f"{about}must be something that can be trained, and a torch module does not say "
        "how. Pass skorch.NeuralNetClassifier(cls, criterion=torch.nn.CrossEntropyLoss), "
        f"where cls is the class of the module; got an instance of {name}."
    )


def check_values(estimator):
    """Refuse True where a number is wanted, numbers out of range, and what is no array.

    Raises
    ------
    InvalidParameterError
        It names the parameter.
    """
    parameters = estimator.get_params(deep=False)
    _check_values(parameters, estimator._parameter_constraints, type(estimator).__name__)


def check_parameters(parameters, constraints, owner):
    """Check parameters of what has no `fit`: as scikit-learn does, and their values.

    Parameters
    ----------
    parameters : dict
        Their values, by name.
    constraints : dict
        What each may be, as in ``_parameter_constraints``.
    owner : str
        Whose they are, for the error.

    Raises
    ------
    InvalidParameterError
        It names the parameter.
    """
    known = {name: v for name, v in parameters.items() if name in constraints}
    validate_parameter_constraints(constraints, known, owner)
    _check_values(known, constraints, owner)


def validate_params(
    constraints: dict[str, Any],
) -> Callable[[Decorated], Decorated]:
    """Decorate a function: its arguments are checked by `check_parameters`."""

    def decorate(function):
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            check_parameters(given.arguments, constraints, function.__qualname__)
            return function(*args, **kwargs)

        return checked

    return decorate


def _check_values(parameters, constraints, owner):
    for name, value in parameters.items():
        wanted = constraints.get(name, "no_validation")
        wanted = [] if isinstance(wanted, str) else wanted
        if isinstance(value, (bool, np.bool_)):
            problem = None if _takes_booleans(wanted) else "must be a number"
        elif isinstance(value, Integral):
            problem = "is too large a number" if abs(int(value)) >= 2**63 else None
        elif isinstance(value, Real):
            large = np.isfinite(value) and abs(value) > _LARGEST
            problem = f"must be at most {_LARGEST:.3g}" if large else None
        else:
            problem = None if _is_array(value, wanted) else "must be an array"
        if problem:
            raise InvalidParameterError(
                f"The {name!r} parameter of {owner} {problem}; got {value!r}."
            )


def _takes_booleans(constraints):
    numbers = any(isinstance(c, Interval) or c in (Integral, Real) for c in constraints)
    named = {"boolean", "verbose", "random_state", bool}
    texts = [c for c in constraints if isinstance(c, (str, type))]
    return not numbers or not named.isdisjoint(texts)


def _is_array(value, constraints):
    """Whether what is taken as an array, of which only a length is asked, is one."""
    if "array-like" not in constraints:
        return True
    if isinstance(value, dict) or isinstance(value, type):
        allowed = [callable] if isinstance(value, type) else [callable, dict]
        return any(kind in constraints for kind in allowed)
    if isinstance(value, (list, tuple)):
        try:
            np.asarray(value)
        except ValueError:  # rows of different lengths
            return False
    return True


def validate_data(estimator, X="no_validation", *args, **kwargs):
    """Validate data as scikit-learn does, and say what to do with masks and texts."""
    refuse_masked(X)
    try:
        return _validate_data(estimator, X, *args, **kwargs)
    except ValueError as error:
        if not str(error).startswith("could not convert string to float"):
            raise
        name = type(estimator).__name__
        if hasattr(X, "columns"):
            raise ValueError(
                f"{error}. {name} takes numbers only. Encode the columns before it, in a "
                f"pipeline: make_pipeline(encoder, {name}(...))."
            ) from error
        raise ValueError(
            f"{error}. Only a DataFrame may hold text. Documents are given as what the "
            "model's vectorizer makes of them: pipeline[:-1].transform(texts).toarray(), "
            "with FrozenEstimator(pipeline[-1]) as the model."
        ) from error


def refuse_masked(X):
    """Refuse an array with masked values, whose mask numpy would drop in silence."""
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            "X has masked values, and the mask would be lost. Fill them "
            "(X.filled(value)), or put NaN there for a model that takes missing values."
        )
