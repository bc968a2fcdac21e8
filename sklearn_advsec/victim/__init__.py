"""What the attacker may ask of the victim, counted and capped.

The three kinds of access are the three levels of knowledge of the attacks: an attack by
labels is handed a :class:`LabelAccess`, which has no way to ask for more.
"""

from ._access import GradientAccess, LabelAccess, ScoreAccess
from ._answers import AnswerCheck, ask_labels, ask_scores
from ._binary_scores import BinaryScores
from ._fitting import as_victim, fit_victim
from ._regression import RegressionVictim

__all__ = [
    "AnswerCheck",
    "BinaryScores",
    "GradientAccess",
    "LabelAccess",
    "RegressionVictim",
    "ScoreAccess",
    "as_victim",
    "ask_labels",
    "ask_scores",
    "fit_victim",
]
