"""Attacks that move a row until the model gets it wrong.

All are transformers: ``transform(X)`` gives the adversarial rows, ``run(X, y)`` says what
was reached, ``score(X, y)`` is the robust accuracy.
"""

from ..metrics._destruction import destruction_rate
from ._base import EvasionAttack
from ._composed._auto_attack import AutoAttack
from ._composed._expectation import ExpectationOverTransformation
from ._composed._transfer import TransferAttack
from ._gradient._auto_pgd import AutoProjectedGradientDescent
from ._gradient._fast_gradient import FastGradientMethod
from ._gradient._kurakin import BasicIterativeMethod, IterativeLeastLikely
from ._gradient._projected_gradient import ProjectedGradientDescent
from ._gradient._universal import UniversalPerturbation
from ._minimum_norm._carlini_wagner import CarliniWagner
from ._minimum_norm._deepfool import DeepFool
from ._minimum_norm._fab import FastAdaptiveBoundary
from ._minimum_norm._fast_minimum_norm import FastMinimumNorm
from ._minimum_norm._jsma import JacobianSaliencyMap
from ._minimum_norm._sigma_zero import SigmaZero
from ._physical._patch import AdversarialPatch
from ._physical._transformations import (
    JPEG,
    Blur,
    Brightness,
    Contrast,
    GaussianNoise,
    Perspective,
    PrintScan,
    Rotation,
    Scaling,
    Shift,
)
from ._queries._hop_skip_jump import HopSkipJump
from ._queries._natural_evolution import LabelOnlyNES, NaturalEvolutionStrategy
from ._queries._one_pixel import OnePixel
from ._queries._pointwise import PointwiseAttack
from ._queries._rays import RayS
from ._queries._simba import SimBA
from ._queries._square import SquareAttack
from ._queries._text_substitution import TextSubstitution, TextSubstitutionResult
from ._queries._zoo import ZerothOrderOptimization
from ._state import EvasionResult
from ._tables._constrained_adaptive import ConstrainedAdaptiveAttack
from ._tables._constrained_apgd import ConstrainedAPGD
from ._tables._greedy import GreedyFeatureAttack
from ._tables._moeva import MultiObjectiveEvolution
from ._trees._coordinate import TreeCoordinateAttack
from ._trees._exact import TreeExactAttack, TreeExactResult

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
    "EvasionAttack",
    "EvasionResult",
    "ExpectationOverTransformation",
    "FastAdaptiveBoundary",
    "FastGradientMethod",
    "FastMinimumNorm",
    "GaussianNoise",
    "GreedyFeatureAttack",
    "HopSkipJump",
    "IterativeLeastLikely",
    "JPEG",
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
    "SigmaZero",
    "SimBA",
    "SquareAttack",
    "TextSubstitution",
    "TextSubstitutionResult",
    "TransferAttack",
    "TreeCoordinateAttack",
    "TreeExactAttack",
    "TreeExactResult",
    "UniversalPerturbation",
    "ZerothOrderOptimization",
    "destruction_rate",
]

# By its former name, which a defense has, too.
JPEGCompression = JPEG
