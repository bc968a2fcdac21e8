"""Privacy attacks: what a classifier gives away about its training data.

Membership attacks are binary classifiers over records: ``fit(records, y)``,
``predict(records)``, ``score(records, y)``. The target is a fitted classifier.
"""

from ._attributes import AttributeInference, NumericAttributeInference
from ._auditing import epsilon_from_guesses, epsilon_lower_bound
from ._base import MembershipAttack
from ._boundary import BoundaryDistance
from ._counting import CountingCertificate, counting_certificate
from ._dpsgd import DPSGDClassifier
from ._draft import DRAFT, Reconstruction
from ._folds import KeepModels
from ._game import MembershipGame, MembershipRound
from ._gap import GapAttack
from ._inversion import ModelInversion
from ._likelihood_ratio import LikelihoodRatio
from ._loss_threshold import LossThreshold
from ._modified_entropy import ModifiedEntropy
from ._privacy_audit import PrivacyAudit
from ._property import PropertyInference
from ._quantile import QuantileMembership
from ._records import make_records
from ._rmia import RMIA, rmia_scores
from ._shadow_base import ShadowAttack, TrainedShadows
from ._shadow_models import ShadowModels
from ._stored_rows import StoredRows, stored_rows
from ._structure import StructuralReport, structural_checks

__all__ = [
    "AttributeInference",
    "BoundaryDistance",
    "CountingCertificate",
    "DRAFT",
    "DPSGDClassifier",
    "GapAttack",
    "KeepModels",
    "LikelihoodRatio",
    "LossThreshold",
    "MembershipAttack",
    "MembershipGame",
    "MembershipRound",
    "ModelInversion",
    "ModifiedEntropy",
    "NumericAttributeInference",
    "PrivacyAudit",
    "PropertyInference",
    "QuantileMembership",
    "RMIA",
    "Reconstruction",
    "ShadowAttack",
    "ShadowModels",
    "StoredRows",
    "StructuralReport",
    "TrainedShadows",
    "counting_certificate",
    "epsilon_from_guesses",
    "epsilon_lower_bound",
    "make_records",
    "rmia_scores",
    "stored_rows",
    "structural_checks",
]
