"""What type checkers see: `make lint` runs mypy on this file, and nothing runs it.

The types that a user's editor shows are asserted, a family at a time. What has to be
refused is ignored, and mypy reports an ignored line without an error.
"""

from typing import Any, assert_type

import numpy as np
import pandas as pd
import torch

from sklearn_advsec.audit import AuditComparison, SecurityAudit, catalogue
from sklearn_advsec.batched import batchable
from sklearn_advsec.defense import (
    AdversarialTrainingClassifier,
    Certificate,
    FeatureSqueezing,
    RandomizedSmoothingClassifier,
    RobustRandomForestClassifier,
    certify,
)
from sklearn_advsec.encryption import Client, EncryptedClassifier, HomomorphicClient
from sklearn_advsec.evasion import (
    EvasionResult,
    HopSkipJump,
    ProjectedGradientDescent,
    TreeExactAttack,
)
from sklearn_advsec.extraction import KnockoffNets, PathFinding
from sklearn_advsec.inspection import MembershipRocDisplay, RobustnessCurveDisplay
from sklearn_advsec.metrics import bootstrap_interval, tpr_at_fpr
from sklearn_advsec.poisoning import (
    DeepPartitionAggregation,
    LabelFlipping,
    PoisoningCertificate,
)
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.privacy import (
    CountingCertificate,
    LossThreshold,
    PrivacyAudit,
    counting_certificate,
    epsilon_lower_bound,
    make_records,
)
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import TreeEnsemble, tree_ensemble
from sklearn_advsec.victim import ask_labels


def evasion(X: np.ndarray, y: np.ndarray, frame: pd.DataFrame, model: Any) -> None:
    """Arrays, frames, lists and tensors are rows; parameters have their choices."""
    attack = ProjectedGradientDescent(model, norm=2, eps=[0.1, 0.2], bounds=(0, 1))
    assert_type(attack.fit(X, y), ProjectedGradientDescent)
    assert_type(attack.run(torch.zeros(3, 2), y), EvasionResult)
    assert_type(attack.run(frame).robust_accuracy, float)
    assert_type(attack.score([[0.0, 1.0]], ["a"]), float)
    assert_type(attack.run(X).to_frame(), pd.DataFrame)
    ProjectedGradientDescent(model, eps={"age": 2.0}, random_state=None)
    ProjectedGradientDescent(model, eps_unit="feet")  # type: ignore[arg-type]
    ProjectedGradientDescent(model, max_iter="many")  # type: ignore[arg-type]
    HopSkipJump(model, queries=10)  # type: ignore[call-arg]
    assert_type(TreeExactAttack(model).fit(frame), TreeExactAttack)


def constraints(frame: pd.DataFrame) -> None:
    """Methods that refine return the constraints."""
    learned = FeatureConstraints.from_frame(frame, scale="std")
    assert_type(learned.set("age", mutable=False), FeatureConstraints)
    assert_type(learned.limit(max_changed=2).relations, list[str])


def defenses(X: np.ndarray, y: np.ndarray, net: Any) -> None:
    """Training, preprocessing, certificates."""
    trained = AdversarialTrainingClassifier(net, eps=0.1).fit(X, y)
    assert_type(trained, AdversarialTrainingClassifier)
    assert_type(trained.predict(X), np.ndarray)
    assert_type(FeatureSqueezing().fit(X), FeatureSqueezing)
    assert_type(certify(net, X), Certificate)
    assert_type(RandomizedSmoothingClassifier(net).fit(X, y).certify(X), Certificate)
    assert_type(
        RobustRandomForestClassifier(n_estimators=5).fit(X, y),
        RobustRandomForestClassifier,
    )


def extraction(X: np.ndarray, model: Any) -> None:
    """Copies are classifiers."""
    copy = KnockoffNets(model, max_queries=100).fit(X)
    assert_type(copy, KnockoffNets)
    assert_type(copy.fidelity(X), float)
    assert_type(PathFinding(model).fit(X).predict(X), np.ndarray)


def privacy(X: np.ndarray, y: np.ndarray, model: Any) -> None:
    """Records, attacks on them, and bounds."""
    records = make_records(X, y)
    attack = LossThreshold(model).fit(records)
    assert_type(attack, LossThreshold)
    assert_type(attack.predict(records), np.ndarray)
    assert_type(tpr_at_fpr(y, X[:, 0], fpr=0.01), float)
    assert_type(bootstrap_interval(tpr_at_fpr, y, X[:, 0]), tuple[float, float])
    assert_type(epsilon_lower_bound(model, X, y), float)
    audit = PrivacyAudit(model).fit(records, members=y == 1)
    assert_type(audit, PrivacyAudit)
    assert_type(audit.to_json(), str)
    found = counting_certificate(model, records, domain=[range(2), [0, 1]])
    assert_type(found, CountingCertificate)


def poisoning(X: np.ndarray, y: np.ndarray, model: Any) -> None:
    """Samplers and certified votes."""
    assert_type(LabelFlipping(model, budget=0.1), LabelFlipping)
    votes = DeepPartitionAggregation(model, n_partitions=5).fit(X, y)
    assert_type(votes.certify(X), PoisoningCertificate)
    LabelFlipping(model, strategy="all")  # type: ignore[arg-type]


def encryption(X: np.ndarray, y: np.ndarray, model: Any) -> None:
    """Halves and arrays."""
    encrypted = EncryptedClassifier(model).fit(X, y)
    assert_type(encrypted.client(), Client)
    assert_type(encrypted.client().encrypt(X), list[bytes])
    assert_type(HomomorphicClient(), HomomorphicClient)


def reports(X: np.ndarray, y: np.ndarray, model: Any, result: EvasionResult) -> None:
    """The audit, displays, trees and what is asked of victims."""
    audit = SecurityAudit(model, budget="quick").fit(X, y, X, y)
    assert_type(audit, SecurityAudit)
    assert_type(audit.results_, pd.DataFrame)
    assert_type(audit.compare(audit), AuditComparison)
    assert_type(catalogue(), pd.DataFrame)
    SecurityAudit(model, budget="an hour")  # type: ignore[arg-type]
    assert_type(RobustnessCurveDisplay.from_result(result), RobustnessCurveDisplay)
    assert_type(MembershipRocDisplay.from_predictions(y, y).roc_auc, float)
    assert_type(tree_ensemble(model), TreeEnsemble)
    assert_type(ask_labels(model, X), np.ndarray)
    assert_type(PretrainedModule(torch.nn.Linear(2, 2)).fit(X, y), PretrainedModule)
    assert_type(batchable(model), bool)
