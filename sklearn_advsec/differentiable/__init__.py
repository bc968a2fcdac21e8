"""Torch views of fitted estimators, so that gradient attacks reach all of scikit-learn.

:func:`view` looks an estimator up in one open registry; :func:`register` adds to it.
"""

# Each of these registers its views. Those of skorch are imported when first needed.
from . import (  # noqa: F401
    _bayes,
    _compose,
    _encoding,
    _ensemble,
    _features,
    _linear,
    _multiclass,
    _neighbors,
    _neural,
    _regression,
    _scaling,
    _svm,
)
from ._bpda import bpda
from ._registry import register, supported, view
from ._views import ClassifierView, TransformerView, binary_logits

__all__ = [
    "ClassifierView",
    "TransformerView",
    "binary_logits",
    "bpda",
    "register",
    "supported",
    "view",
]
