"""Attacks that move a row until the model gets it wrong.

All are transformers: ``transform(X)`` gives the adversarial rows, ``run(X, y)`` says what
was reached, ``score(X, y)`` is the robust accuracy.
"""

from ._fast_gradient import FastGradientMethod
from ._kurakin import BasicIterativeMethod, IterativeLeastLikely
from ._projected_gradient import ProjectedGradientDescent
from ._state import EvasionResult

__all__ = [
    "BasicIterativeMethod",
    "EvasionResult",
    "FastGradientMethod",
    "IterativeLeastLikely",
    "ProjectedGradientDescent",
]
