"""Scorers for `GridSearchCV` and friends, and the scores of each family.

Robust accuracy and attack success take the estimator, so `make_scorer` cannot make them;
they are small callables ``scorer(estimator, X, y, sample_weight=None)`` that pickle, that
work alone or in a ``scoring={...}`` dict, with any `n_jobs`, and with metadata routing on
or off. Scores of membership attacks are ``score(y_true, y_score)``, with intervals.
"""

from ._destruction import destruction_rate
from ._masking import gradient_masking_report
from ._membership import (
    bootstrap_interval,
    clopper_pearson,
    membership_advantage,
    roc_auc_interval,
    tpr_at_fpr,
    tpr_at_fpr_scorer,
)
from ._scorers import (
    attack_success_scorer,
    backdoor_success_scorer,
    certified_accuracy_scorer,
    fidelity_scorer,
    robust_accuracy_scorer,
)

__all__ = [
    "attack_success_scorer",
    "backdoor_success_scorer",
    "bootstrap_interval",
    "certified_accuracy_scorer",
    "clopper_pearson",
    "destruction_rate",
    "fidelity_scorer",
    "gradient_masking_report",
    "membership_advantage",
    "robust_accuracy_scorer",
    "roc_auc_interval",
    "tpr_at_fpr",
    "tpr_at_fpr_scorer",
]
