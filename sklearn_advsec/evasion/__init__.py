"""Attacks that move a row until the model gets it wrong.

All are transformers: ``transform(X)`` gives the adversarial rows, ``run(X, y)`` says what
was reached, ``score(X, y)`` is the robust accuracy.
"""

from ._auto_attack import AutoAttack
from ._auto_pgd import AutoProjectedGradientDescent
from ._carlini_wagner import CarliniWagner
from ._constrained_adaptive import ConstrainedAdaptiveAttack
from ._constrained_apgd import ConstrainedAPGD
from ._deepfool import DeepFool
from ._destruction import destruction_rate
from ._fab import FastAdaptiveBoundary
from ._fast_gradient import FastGradientMethod
from ._fast_minimum_norm import FastMinimumNorm
from ._greedy import GreedyFeatureAttack
from ._hop_skip_jump import HopSkipJump
from ._jsma import JacobianSaliencyMap
from ._kurakin import BasicIterativeMethod, IterativeLeastLikely
from ._label_only_nes import LabelOnlyNES
from ._moeva import MultiObjectiveEvolution
from ._nes import NaturalEvolutionStrategy
from ._one_pixel import OnePixel
from ._patch import AdversarialPatch
from ._physical import ExpectationOverTransformation
from ._pointwise import PointwiseAttack
from ._projected_gradient import ProjectedGradientDescent
from ._rays import RayS
from ._simba import SimBA
from ._square import SquareAttack
from ._state import EvasionResult
from ._transfer import TransferAttack
from ._transformations import (
    Blur,
    Brightness,
    Contrast,
    GaussianNoise,
    JPEGCompression,
    Perspective,
    PrintScan,
    Rotation,
    Scaling,
    Shift,
)
from ._tree_coordinate import TreeCoordinateAttack
from ._tree_exact import TreeExactAttack, TreeExactResult
from ._universal import UniversalPerturbation
from ._zoo import ZerothOrderOptimization

__all__ = [
    "AdversarialPatch",
    "AutoAttack",
    "AutoProjectedGradientDescent",
    "BasicIterativeMethod",
    "Blur",
    "Brightness",
    "CarliniWagner",
    "Contrast",
    "ConstrainedAPGD",
    "ConstrainedAdaptiveAttack",
    "DeepFool",
    "EvasionResult",
    "ExpectationOverTransformation",
    "FastAdaptiveBoundary",
    "FastGradientMethod",
    "FastMinimumNorm",
    "GaussianNoise",
    "GreedyFeatureAttack",
    "HopSkipJump",
    "IterativeLeastLikely",
    "JPEGCompression",
    "JacobianSaliencyMap",
    "LabelOnlyNES",
    "MultiObjectiveEvolution",
    "NaturalEvolutionStrategy",
    "OnePixel",
    "Perspective",
    "PointwiseAttack",
    "PrintScan",
    "ProjectedGradientDescent",
    "RayS",
    "Rotation",
    "Scaling",
    "Shift",
    "SimBA",
    "SquareAttack",
    "TransferAttack",
    "TreeCoordinateAttack",
    "TreeExactAttack",
    "TreeExactResult",
    "UniversalPerturbation",
    "ZerothOrderOptimization",
    "destruction_rate",
]
