"""Defenses: meta-estimators that make the classifier inside harder to attack.

Some train in a way of their own, some stand around a classifier that is trained as usual,
and some come with a certificate. Each says which adaptive attack it was measured with.
"""

from ._adversarial_training import AdversarialTrainingClassifier
from ._certificate import Certificate
from ._certify import certify
from ._detector import AdversarialDetector
from ._interval_bound import IntervalBoundClassifier
from ._jpeg import JPEGCompression
from ._label_smoothing import LabelSmoothingClassifier
from ._logit_pairing import LogitPairingClassifier
from ._magnet import MagNet
from ._mart import MARTClassifier
from ._mixup import MixupClassifier
from ._noise import FeatureNoise
from ._random_signed import RandomDepthwiseSignedClassifier
from ._robust_trees import RobustDecisionTreeClassifier, RobustRandomForestClassifier
from ._smoothing import RandomizedSmoothingClassifier
from ._squeezing import FeatureSqueezing
from ._trades import TRADESClassifier

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
