"""Checks of what users hand in, with errors that say what to do."""

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted


def check_victim(estimator):
    """Raise where `estimator` is no fitted classifier of at least two classes."""
    name = type(estimator).__name__
    if not hasattr(estimator, "fit"):
        raise TypeError(
            f"estimator must be a classifier; got {name}. Wrap a trained torch module as "
            "PretrainedModule(module, classes=...)."
        )
    if is_regressor(estimator):
        raise TypeError(f"estimator must be a classifier; {name} is a regressor.")
    check_is_fitted(estimator)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise TypeError(
            f"estimator must be a fitted classifier with classes_; {name} has none."
        )
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise ValueError(f"estimator must have one output; {name} has several.")
    if len(classes) < 2:
        raise ValueError(
            f"estimator {name} knows one class only, {np.asarray(classes)[0]!r}: "
            "there is no other to turn a row into."
        )


def allows_nan(estimator):
    """Whether the victim takes rows with missing values."""
    try:
        return bool(get_tags(estimator).input_tags.allow_nan)
    except (AttributeError, TypeError):
        return False
