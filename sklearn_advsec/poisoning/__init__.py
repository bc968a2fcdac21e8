"""Poison in training data: attacks, sanitizers, and certificates against both.

Attacks and sanitizers are samplers, ``fit_resample(X, y)``. `PoisonedClassifier` and
`SanitizedClassifier` carry them through pipelines and searches.
"""

from ._base import PoisoningAttack, Sanitizer
from ._certified._aggregation import PoisoningCertificate
from ._certified._bagging import BaggingCertified
from ._certified._bound import CertifiedPoisoningBound
from ._certified._partitions import DeepPartitionAggregation
from ._classifiers import PoisonedClassifier, SanitizedClassifier
from ._labels._label_flipping import LabelFlipping
from ._labels._tree_poisoning import TreePoisoning
from ._networks._clustering import ActivationClustering
from ._networks._feature_collision import FeatureCollision
from ._networks._gradient_matching import GradientMatching, SleeperAgent
from ._networks._neural_cleanse import NeuralCleanse
from ._networks._polytope import BullseyePolytope
from ._networks._representation import LastHiddenLayer
from ._networks._spectral import SpectralSignatures
from ._networks._strip import STRIP
from ._networks._trigger import BackdoorTrigger
from ._points._gradient import GradientCanceling, InfluencePoisoning, KKTPoisoning
from ._points._min_max import MinMaxPoisoning
from ._points._svm import SVMPoisoning
from ._recommenders._detectors import DegreeOfSimilarity, PCAVarSelect
from ._recommenders._fake_users import FakeUsers
from ._recommenders._implicit import ImplicitRecommender
from ._recommenders._matrix_factorization import MatrixFactorization
from ._recommenders._profiles import profile_realism
from ._recommenders._report import InjectionReport, injection_report
from ._report import PoisoningReport, poisoning_report
from ._sanitizers._influence import InfluenceSanitizer
from ._sanitizers._knn import KNNSanitizer
from ._sanitizers._roni import RONI
from ._sanitizers._sphere_slab import SphereSlabSanitizer
from ._sanitizers._trimming import LossTrimming

__all__ = [
    "SVMPoisoning",
    "GradientCanceling",
    "GradientMatching",
    "InfluencePoisoning",
    "KKTPoisoning",
    "InfluenceSanitizer",
    "LossTrimming",
    "RONI",
    "STRIP",
    "ActivationClustering",
    "BackdoorTrigger",
    "BaggingCertified",
    "BullseyePolytope",
    "CertifiedPoisoningBound",
    "DeepPartitionAggregation",
    "DegreeOfSimilarity",
    "FakeUsers",
    "FeatureCollision",
    "ImplicitRecommender",
    "InjectionReport",
    "KNNSanitizer",
    "LabelFlipping",
    "LastHiddenLayer",
    "MatrixFactorization",
    "MinMaxPoisoning",
    "NeuralCleanse",
    "PCAVarSelect",
    "PoisonedClassifier",
    "PoisoningAttack",
    "PoisoningCertificate",
    "PoisoningReport",
    "SanitizedClassifier",
    "Sanitizer",
    "SleeperAgent",
    "SpectralSignatures",
    "SphereSlabSanitizer",
    "TreePoisoning",
    "injection_report",
    "poisoning_report",
    "profile_realism",
]
