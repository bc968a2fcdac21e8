"""Registry of the readers of tree ensembles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ._steps import is_skipped
from ._verification import check_form

if TYPE_CHECKING:
    from ._ensemble import TreeEnsemble

# Readers by package: they are imported once the package itself is.
_READERS = {
    "sklearn": "sklearn_advsec.trees._sklearn",
    "xgboost": "sklearn_advsec.trees._xgboost",
    "lightgbm": "sklearn_advsec.trees._lightgbm",
    "catboost": "sklearn_advsec.trees._catboost",
    "sklearn_advsec": "sklearn_advsec.trees._sklearn",
}

# Classes around other models, of which only reading tells whether these are trees.
read_inside: set[type] = set()


@singledispatch
def _read(estimator):
    raise TypeError(
        f"{type(estimator).__name__} is no tree ensemble that can be read. Readable are "
        f"{', '.join(supported())}, alone or at the end of a Pipeline; register a reader "
        "with sklearn_advsec.trees.register_reader, or use an attack whose knowledge is "
        "'score' or 'label'."
    )


def register_reader(estimator_class: type) -> Callable[..., Any]:
    """Register how a class of fitted tree ensembles is read.

    Parameters
    ----------
    estimator_class : type
        The estimator's class. Subclasses are covered too.

    Returns
    -------
    decorator : callable
        Decorates a function that takes the fitted estimator and returns a
        :class:`TreeEnsemble`.

    See Also
    --------
    tree_ensemble : Uses the readers.
    supported : What has one.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator, ClassifierMixin
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec import trees
    >>> class Stump(ClassifierMixin, BaseEstimator):
    ...     def fit(self, X, y):
    ...         self.tree_ = DecisionTreeClassifier(max_depth=1).fit(X, y)
    ...         self.classes_ = self.tree_.classes_
    ...         return self
    >>> @trees.register_reader(Stump)
    ... def read_stump(estimator):
    ...     return trees.tree_ensemble(estimator.tree_)
    >>> trees.tree_ensemble(Stump().fit([[0], [1]], [0, 1]))
    TreeEnsemble(n_trees=1, n_leaves=2, n_classes=2)
    """
    return _read.register(estimator_class)


def supported() -> list[str]:
    """Names of the classes that can be read, sorted.

    Returns
    -------
    names : list of str
        Class names; those of packages that are not imported are left out.

    See Also
    --------
    is_tree_ensemble : Whether one model can be read.
    register_reader : Adds a kind.

    Examples
    --------
    >>> from sklearn_advsec import trees
    >>> "GradientBoostingClassifier" in trees.supported()
    True
    """
    _import_readers(set(sys.modules))
    return sorted(cls.__name__ for cls in _read.registry if cls is not object)


def is_tree_ensemble(estimator: Any) -> bool:
    """Whether an estimator, or the last step of a pipeline, is of a class that is read.

    Parameters
    ----------
    estimator : estimator
        Any.

    Returns
    -------
    readable : bool
        Steps in front of the trees may still be of kinds that are not.

    See Also
    --------
    tree_ensemble : Reads it.
    supported : All kinds that can be read.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.trees import is_tree_ensemble
    >>> is_tree_ensemble(RandomForestClassifier()), is_tree_ensemble(LogisticRegression())
    (True, False)
    """
    if isinstance(estimator, FrozenEstimator):
        return is_tree_ensemble(estimator.estimator)
    if isinstance(estimator, Pipeline):
        return is_tree_ensemble(estimator.steps[-1][1])
    _import_readers(_packages(estimator))
    if _read.dispatch(type(estimator)) is _read.dispatch(object):
        return False
    if isinstance(estimator, tuple(read_inside)):
        try:
            tree_ensemble(estimator)
        except (TypeError, ValueError, NotFittedError):
            return False
        return True
    inner = getattr(estimator, "estimator_", None)  # of a defense, or of an ensemble
    return inner is None or is_tree_ensemble(inner)


def tree_ensemble(estimator: Any) -> TreeEnsemble:
    """Read a fitted tree classifier or regressor.

    Parameters
    ----------
    estimator : classifier or regressor
        A fitted tree or ensemble of trees, or a Pipeline (or FrozenEstimator) of one.
        Behind a threshold, a calibration (by a sigmoid, of two classes, with
        ``ensemble=False``), a vote (a soft one of trees, forests and bags, a hard one
        of single trees) or a search of parameters, it is still a sum over trees that
        decides; and before the way back to a regressor's targets that a scaler,
        ``np.exp``, ``np.expm1`` or ``np.sinh`` is.

    Returns
    -------
    ensemble : TreeEnsemble
        The array form; its `predict` agrees with the estimator's.

    Raises
    ------
    TypeError
        If the estimator, or a part of it, is none that can be read, or its form answers
        otherwise than the estimator does, on rows at thresholds and on missing values.
    ValueError
        If what the model says of itself is damaged.
    NotFittedError
        If it is not fitted.

    See Also
    --------
    leaf_boxes : The boxes of its leaves.
    certified_radii : Certificates from it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.trees import tree_ensemble
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(X, y)
    >>> ensemble = tree_ensemble(forest)
    >>> ensemble.n_trees
    10
    >>> bool((ensemble.predict(X) == forest.predict(X)).all())
    True
    """
    if isinstance(estimator, FrozenEstimator):
        return tree_ensemble(estimator.estimator)
    if isinstance(estimator, Pipeline):
        ensemble = tree_ensemble(estimator.steps[-1][1])
        steps = [step for _, step in estimator.steps[:-1] if not is_skipped(step)]
        return _of_columns(ensemble, estimator, steps=steps + ensemble.steps)
    if not hasattr(estimator, "fit"):
        raise TypeError(f"estimator must be a fitted classifier; got {estimator!r}.")
    _import_readers(_packages(estimator))
    check_is_fitted(estimator)
    ensemble = _of_columns(_read(estimator), estimator)
    ensemble.check_structure()
    check_form(ensemble, estimator)
    return ensemble


def _of_columns(ensemble, estimator, **parts):
    """Return an ensemble with the columns that its estimator takes."""
    names = getattr(estimator, "feature_names_in_", None)
    return replace(
        ensemble,
        n_columns=getattr(estimator, "n_features_in_", None),
        column_names=None if names is None else np.asarray(names),
        **parts,
    )


def _packages(estimator):
    return {cls.__module__.partition(".")[0] for cls in type(estimator).__mro__}


def _import_readers(packages):
    for package in packages & set(_READERS):
        import_module(_READERS[package])
