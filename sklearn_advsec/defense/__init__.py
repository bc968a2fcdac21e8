"""Defenses: meta-estimators that make the classifier inside harder to attack.

Some train in a way of their own, some stand around a classifier that is trained as usual,
and some come with a certificate. Each says which adaptive attack it was measured with.
"""

from ._certified._certificate import Certificate
from ._certified._certify import certify
from ._certified._robust_trees import (
    RobustDecisionTreeClassifier,
    RobustRandomForestClassifier,
)
from ._certified._smoothing import RandomizedSmoothingClassifier
from ._reactive._detector import AdversarialDetector
from ._reactive._magnet import MagNet
from ._reactive._preprocessing import FeatureNoise, FeatureSqueezing, JPEGCompression
from ._reactive._random_signed import RandomDepthwiseSignedClassifier
from ._training._adversarial_training import AdversarialTrainingClassifier
from ._training._interval_bound import IntervalBoundClassifier
from ._training._label_smoothing import LabelSmoothingClassifier
from ._training._logit_pairing import LogitPairingClassifier
from ._training._mart import MARTClassifier
from ._training._mixup import MixupClassifier
from ._training._trades import TRADESClassifier

__all__ = [
    "AdversarialDetector",
    "AdversarialTrainingClassifier",
    "Certificate",
    "FeatureNoise",
    "FeatureSqueezing",
    "IntervalBoundClassifier",
    "JPEGCompression",
    "LabelSmoothingClassifier",
    "LogitPairingClassifier",
    "MARTClassifier",
    "MagNet",
    "MixupClassifier",
    "RandomDepthwiseSignedClassifier",
    "RandomizedSmoothingClassifier",
    "RobustDecisionTreeClassifier",
    "RobustRandomForestClassifier",
    "TRADESClassifier",
    "certify",
]
