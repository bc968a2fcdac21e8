"""Attacks that copy a model by asking it, and what a victim can do about it."""

from ._active import ActiveExtraction
from ._base import ExtractionAttack
from ._equation_solving import EquationSolving
from ._jacobian_substitute import JacobianSubstitute
from ._knockoff import CopycatCNN, KnockoffNets
from ._path_finding import PathFinding
from ._prada import ExtractionDetected, PRADADetector
from ._relu_extraction import ReLUExtraction
from ._wrappers import LabelsOnly, ReverseSigmoid, RoundedProbabilities, TopKProbabilities

__all__ = [
    "ActiveExtraction",
    "CopycatCNN",
    "EquationSolving",
    "ExtractionAttack",
    "ExtractionDetected",
    "JacobianSubstitute",
    "KnockoffNets",
    "LabelsOnly",
    "PRADADetector",
    "PathFinding",
    "ReLUExtraction",
    "ReverseSigmoid",
    "RoundedProbabilities",
    "TopKProbabilities",
]
