"""Displays of attacks and defenses. Matplotlib is imported only when one is drawn."""

from ._adversarial_examples import AdversarialExamplesDisplay
from ._extraction_curve import ExtractionCurveDisplay
from ._membership_roc import MembershipRocDisplay
from ._poisoning_curve import PoisoningCurveDisplay
from ._robustness_curve import RobustnessCurveDisplay

__all__ = [
    "AdversarialExamplesDisplay",
    "ExtractionCurveDisplay",
    "MembershipRocDisplay",
    "PoisoningCurveDisplay",
    "RobustnessCurveDisplay",
]
