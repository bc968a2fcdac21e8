"""What the attacker may change: a ball around a row, in a box, and valid rows only."""

from ._ball import LpBall
from ._box import Box
from ._constraints import FeatureConstraints

__all__ = ["Box", "FeatureConstraints", "LpBall"]
