"""The open registry of views: one function per estimator class."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from functools import singledispatch
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.utils.validation import check_is_fitted

from .._estimators import is_untrained_net, name_of
from ..exceptions import NoGradientError
from ._columns import code_lookup, constant_transform, names_of
from ._views import ClassifierView

if TYPE_CHECKING:
    from .._rows import Columns
    from ._views import TransformerView

# Views of optional or slow packages are registered only once the package is in use:
# an estimator of theirs cannot exist before it was imported.
_LAZY = {"skorch": "sklearn_advsec.differentiable._skorch"}

# These look at one column at a time and give no gradients anyway.
ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)

_columns = ContextVar("columns", default=None)
_precisions = ContextVar("precisions", default=None)  # of the parts of the current view
_take_codes = set()  # functions that make views of columns of codes by themselves


@singledispatch
def _dispatch(estimator):
    raise NoGradientError(
        f"{type(estimator).__name__} has no differentiable view, so it gives no "
        "gradients; sklearn_advsec.differentiable.register takes one."
    )


def register(estimator_class: type, *, takes_codes: bool = False) -> Callable[..., Any]:
    """Register how a class of fitted estimators is seen by gradient attacks.

    Parameters
    ----------
    estimator_class : type
        The estimator's class. Subclasses are covered too.
    takes_codes : bool, default=False
        Whether the function wants to see columns that are not numeric: a meta-estimator
        that hands its input on to others, which will see to them. Any other estimator
        gets numbers only; what makes numbers of its other columns (booleans, numeric
        categories) is put in front of it.

    Returns
    -------
    decorator : callable
        Decorates a function that takes the fitted estimator and returns a
        :class:`ClassifierView` or a :class:`TransformerView`.

    See Also
    --------
    view : Looks a view up.
    supported : What has one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator, TransformerMixin
    >>> from sklearn_advsec import differentiable
    >>> class Halve(TransformerMixin, BaseEstimator):
    ...     def fit(self, X, y=None):
    ...         return self
    ...     def transform(self, X):
    ...         return np.asarray(X) / 2
    >>> @differentiable.register(Halve)
    ... def halve(estimator):
    ...     return differentiable.TransformerView(lambda x: x / 2)
    """

    def decorator(function):
        if takes_codes:
            _take_codes.add(function)
        return _dispatch.register(estimator_class, function)

    return decorator


def supported() -> list[str]:
    """Names of the classes that have a view, sorted.

    Returns
    -------
    names : list of str
        Class names.

    See Also
    --------
    view : The view of one estimator.
    register : Adds one.

    Examples
    --------
    >>> from sklearn_advsec import differentiable
    >>> {"SVC", "StandardScaler", "MLPClassifier"} <= set(differentiable.supported())
    True
    """
    return sorted(cls.__name__ for cls in _dispatch.registry if cls is not object)


def view(
    estimator: Any, columns: Columns | None = None
) -> ClassifierView | TransformerView:
    """Give a fitted estimator's methods as differentiable functions of torch tensors.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, a pipeline of them, or a `torch.nn.Module`.
    columns : Columns, optional
        What the columns of the tensors stand for, where the rows come from a DataFrame.

    Returns
    -------
    view : ClassifierView or TransformerView
        The view. It never changes the estimator.

    Raises
    ------
    NoGradientError
        Where the estimator, or a part of it, has no view.
    NotFittedError
        Where the estimator is not fitted.

    See Also
    --------
    register : Adds a view for an estimator of one's own.
    supported : What has one.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec import differentiable
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LogisticRegression(max_iter=1000).fit(X, y)
    >>> x = torch.tensor(X[:5], requires_grad=True)
    >>> differentiable.view(clf).predict_proba(x).shape
    torch.Size([5, 3])
    """
    if hasattr(estimator, "fit") and not isinstance(estimator, torch.nn.Module):
        check_is_fitted(estimator)
        if is_untrained_net(estimator):
            raise NotFittedError(f"{name_of(estimator)} is not fitted yet.")
    token = _precisions.set([])
    try:
        with input_columns(columns):
            found = subview(estimator)
        if isinstance(found, ClassifierView):
            parts = [found.precision, *_precisions.get()]
            found.precision = max(parts, key=lambda dtype: torch.finfo(dtype).eps)
    finally:
        _precisions.reset(token)
    return found


def subview(estimator):
    """Give the view of a part of a fitted estimator, and note how it is rounded."""
    found = _subview(estimator)
    if isinstance(found, ClassifierView) and _precisions.get() is not None:
        _precisions.get().append(found.precision)
    return found


def _subview(estimator):
    """Give the view of a part of a fitted estimator, whose input is as it stands.

    The current columns that are not numeric are dealt with here for every estimator that
    does not do so itself: they are turned into numbers where scikit-learn would do that,
    or, for encoders, the whole transformer is a constant to the gradient.
    """
    for package in {cls.__module__.partition(".")[0] for cls in type(estimator).__mro__}:
        if package in _LAZY and _LAZY[package] not in sys.modules:
            import_module(_LAZY[package])
    function = _dispatch.dispatch(type(estimator))
    columns = current_columns()
    if columns is None or columns.numeric.all() or function in _take_codes:
        return function(estimator)
    only_codes = not columns.numeric.any()
    transforms = hasattr(estimator, "transform") and not is_classifier(estimator)
    if isinstance(estimator, ENCODERS) or (transforms and only_codes):
        return constant_transform(estimator, columns)
    look_up = code_lookup(columns)
    if look_up is None:
        raise NoGradientError(
            f"{type(estimator).__name__} takes columns of numbers "
            f"({names_of(columns, True) or 'none'}) together with others "
            f"({names_of(columns, False)}), so no gradients are known. Give the two "
            "kinds to different transformers of one ColumnTransformer."
        )
    with input_columns(None):
        return function(estimator).compose(look_up)


def current_columns():
    """What the columns of the current estimator's input stand for, or None if numbers."""
    return _columns.get()


@contextmanager
def input_columns(columns):
    """Build the views inside with inputs described by `columns` (None: plain numbers)."""
    token = _columns.set(columns)
    try:
        yield
    finally:
        _columns.reset(token)
