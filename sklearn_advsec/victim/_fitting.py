"""How a victim comes in: as a recipe, as a fitted model that is kept, or as a module."""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from .._estimators import is_untrained_net, telling_precision, unwrap, weight_params
from .._progress import LOG
from .._rows import check_weights
from .._sklearn import HasMethods, _num_samples
from ..exceptions import FittedVictimWarning
from ..pretrained import PretrainedModule

# What the parameter `estimator` of an attack may be, as `_parameter_constraints`.
VICTIM = [HasMethods(["fit"]), torch.nn.Module]
CLASSIFIER = [HasMethods(["fit", "predict"]), FrozenEstimator, torch.nn.Module]


def as_victim(estimator: Any) -> Any:
    """Return a torch module, frozen or not, as a classifier; anything else as it is.

    See Also
    --------
    fit_victim : Fits what this returns.
    sklearn_advsec.pretrained.PretrainedModule : A torch module as a classifier.

    Examples
    --------
    >>> import torch
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.victim import as_victim
    >>> type(as_victim(torch.nn.Linear(4, 3))).__name__
    'PretrainedModule'
    >>> as_victim(SVC())
    SVC()
    """
    inner = unwrap(estimator)
    return PretrainedModule(inner) if isinstance(inner, torch.nn.Module) else estimator


def fit_victim(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    owner: Any,
    sample_weight: ArrayLike | None = None,
    **fit_params: Any,
) -> Any:
    """Fit a clone of a victim, and warn where that is another model than the user's.

    Victims that are kept (a `FrozenEstimator`, a `PretrainedModule`, a bare torch module)
    pass through, as their clones are themselves.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        The victim as the user gave it.
    X : {array-like, DataFrame} of shape (n_samples, ...)
        Rows.
    y : array-like of shape (n_samples,), default=None
        Their labels.
    owner : object
        The estimator that attacks or wraps the victim, for messages, and for the routing
        of metadata.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows, for a victim that is trained: with metadata routing where it
        requests them, else to it, or to the last step of a pipeline.
    **fit_params : dict
        Passed on to the victim.

    Returns
    -------
    victim : estimator
        A fitted victim.

    Raises
    ------
    ValueError
        Where the victim needs labels and there are none, or weights are not such.
    TypeError
        Where the victim takes no weights, or ends in a network of skorch that gets rows
        of another precision than its own.

    Warns
    -----
    FittedVictimWarning
        Where the victim is fitted already and is not kept.

    See Also
    --------
    as_victim : Takes a torch module as a classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.evasion import HopSkipJump
    >>> from sklearn_advsec.victim import fit_victim
    >>> X, y = load_iris(return_X_y=True)
    >>> frozen = FrozenEstimator(DecisionTreeClassifier().fit(X, y))
    >>> fit_victim(frozen, X, owner=HopSkipJump()) is frozen  # nothing is trained anew
    True
    """
    victim = as_victim(estimator)
    if y is None and needs_labels(victim):
        raise ValueError(labels_missing(owner, victim))
    warn_if_fitted(victim, owner, stacklevel=5)
    if isinstance(victim, FrozenEstimator):
        _check_width(victim, X)
    if sample_weight is not None:
        weights = check_weights(sample_weight, _num_samples(X))
        fit_params = fit_params | weight_params(owner, weights)
    victim, begin = clone(victim), time.monotonic()
    with telling_precision(victim):
        victim = victim.fit(X, y, **fit_params)
    if (seconds := time.monotonic() - begin) > 1:
        LOG.info("%s: trained after %.1f s", _name(victim), seconds)
    return victim


def _check_width(victim, X):
    """Raise where rows are not as wide as those that a fitted victim was fitted on."""
    n_features = getattr(victim, "n_features_in_", None)
    shape = getattr(X, "shape", ())
    if n_features is not None and len(shape) == 2 and shape[1] != n_features:
        raise ValueError(
            f"X has {shape[1]} features, but {_name(victim)} is expecting {n_features} "
            "features as input."
        )


def warn_if_fitted(victim, owner, stacklevel=5):
    """Warn where a victim is fitted already, and will be trained anew."""
    model = _fitted_inside(victim)
    if model is not None:
        warnings.warn(
            f"{_name(model)} is fitted already, and {type(owner).__name__}.fit trains a "
            "clone of it on the X and y that are given here: not the model that was "
            f"fitted. To keep that one, write FrozenEstimator({_name(model)}); to train "
            "anew without this warning, hand over sklearn.base.clone of it.",
            FittedVictimWarning,
            stacklevel=stacklevel,
        )


def needs_labels(estimator):
    """Whether a victim has to be fitted on labels; one that is frozen has been."""
    victim = as_victim(estimator)
    if isinstance(victim, FrozenEstimator):
        return False
    while isinstance(victim, Pipeline):
        victim = victim.steps[-1][1]
    tags = get_tags(victim)
    # Searches and the like do not say so, and need them all the same.
    supervised = tags.estimator_type in ("classifier", "regressor")
    of_sklearn = type(victim).__module__.startswith("sklearn.")
    return tags.target_tags.required or (supervised and of_sklearn)


def labels_missing(owner, estimator):
    """Return what to say where `y` is None and the victim needs it."""
    text = (
        f"{type(owner).__name__} requires y to be passed, but the target y is None: "
        f"{_name(estimator)} is trained in fit. "
    )
    model = _fitted_inside(as_victim(estimator))
    if model is not None:
        return text + (
            f"{_name(model)} is fitted already; to keep it as it is, write "
            f"FrozenEstimator({_name(model)})."
        )
    return text + "Wrap one that is fitted already: FrozenEstimator(estimator)."


def _fitted_inside(victim):
    """Return the fitted model that a clone of the victim would lose, or None.

    Wrappers of this package, which hold a victim themselves, are looked into. What other
    meta-estimators hold is theirs: to train it anew is what they are for.
    """
    while True:
        if clone(victim, safe=False) is victim:
            return None
        if get_tags(victim).requires_fit and _is_fitted(victim):
            return victim
        of_this_package = type(victim).__module__.startswith(__package__.split(".")[0])
        inner = getattr(victim, "estimator", None) if of_this_package else None
        if not hasattr(inner, "fit"):
            return None
        victim = inner


def _is_fitted(victim):
    """Whether a victim is fitted, as far as it says."""
    if is_untrained_net(victim):
        return False
    try:
        check_is_fitted(victim)
    except (NotFittedError, TypeError):
        return False
    return True


def _name(estimator):
    return type(unwrap(estimator)).__name__
