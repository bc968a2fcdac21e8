"""SACRO-ML 2.0.1 as a peer of the privacy audit: its attacks and its structural checks.

    pip install --no-deps sacroml==2.0.1

What it only imports (reports in PDF, the configuration of ACRO, processes) is replaced by
stand-ins, so that its own pinned versions need not be installed. Nothing that computes is
replaced. `WorstCaseAttack` trains on 80 % of the records and is judged on the rest.
"""

import logging
import sys
import tempfile
import time
import types
import warnings

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

# ACRO's default configuration ("safe_threshold", "safe_dof_threshold").
_ACRO = {"safe_threshold": 10, "safe_dof_threshold": 10}


def load():
    """Import SACRO-ML; raises ImportError where it is not installed."""

    def module(name, **names):
        sys.modules.setdefault(name, types.ModuleType(name))
        for key, value in names.items():
            setattr(sys.modules[name], key, value)

    class Acro:
        def __init__(self, *args, **kwargs):
            self.config = _ACRO

    stand_in = type("StandIn", (), {})
    module("acro", ACRO=Acro)
    module("fpdf", FPDF=stand_in)
    module("pypdf", PdfWriter=stand_in, PdfReader=stand_in)
    module("multiprocess")
    import sacroml.attacks.likelihood_attack as lira
    import sacroml.attacks.qmia_attack as qmia
    import sacroml.attacks.structural_attack as structural
    import sacroml.attacks.target as target
    import sacroml.attacks.worst_case_attack as worst_case

    logging.disable(logging.INFO)
    return types.SimpleNamespace(
        lira=lira, qmia=qmia, structural=structural, target=target, worst_case=worst_case
    )


def _target(sacro, model, X, y, member):
    return sacro.target.Target(
        model=model,
        X_train=X[member],
        y_train=y[member],
        X_test=X[~member],
        y_test=y[~member],
    )


def attacks(sacro, model, X, y, member, n_shadow_models, skipped=()):
    """Run its attacks; return AUC, TPR at 1 % FPR and CPU seconds by those that run.

    The modes of LiRA share their shadow models, and have the seconds of the first. Of
    those that judge all records once, there are the scores as well.
    """
    from sacroml import metrics

    kinds = {
        "LiRA, online": lambda folder: sacro.lira.LIRAAttack(
            folder, False, n_shadow_models, mode="online-carlini"
        ),
        "LiRA, offline": lambda folder: sacro.lira.LIRAAttack(
            folder, False, n_shadow_models, mode="offline"
        ),
        "worst case": lambda folder: sacro.worst_case.WorstCaseAttack(
            folder, write_report=False
        ),
        "QMIA": lambda folder: sacro.qmia.QMIAAttack(folder, write_report=False),
    }
    found, original = {}, metrics.get_metrics
    folder = tempfile.TemporaryDirectory()
    for name in [kind for kind in kinds if kind not in skipped]:
        make, judged = kinds[name], []

        def recorded(scores, truth, *args, judged=judged, **kwargs):
            judged.append((np.asarray(scores)[:, 1], np.asarray(truth)))
            return original(scores, truth, *args, **kwargs)

        metrics.get_metrics = recorded
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            begin = time.process_time()
            try:
                make(folder.name).attack(_target(sacro, model, X, y, member))
            except ValueError as error:  # kNN takes no random_state, which LiRA sets
                print(f"SACRO-ML, {name}: {' '.join(str(error).split())[:80]}")
                continue
            finally:
                metrics.get_metrics = original
            seconds = time.process_time() - begin
        if name == "worst case":
            judged = judged[:10]  # the others are of its dummy experiments
        if name == "LiRA, offline":
            seconds = found["LiRA, online"]["CPU s"]
        found[name] = {
            "AUC": float(np.mean([roc_auc_score(t, s) for s, t in judged])),
            "TPR": float(np.mean([_at_one_percent(t, s) for s, t in judged])),
            "CPU s": seconds,
        }
        if len(judged) == 1 and len(judged[0][0]) == len(y):
            found[name]["scores"] = _in_order(judged[0][0], member)
    folder.cleanup()
    return found


def _in_order(scores, member):
    """Return scores of members, and then others, in the order of all records."""
    ordered = np.empty(len(member))
    ordered[member] = scores[: member.sum()]
    ordered[~member] = scores[member.sum() :]
    return ordered


def _at_one_percent(truth, scores):
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return tpr[fpr <= 0.01 + 1e-12].max()


def structure(sacro, model, X, y, member):
    """Run its structural checks; return its flags, and the cell size of each record."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = sacro.structural.StructuralAttack(folder, False, report_individual=True)
        attack.attack(_target(sacro, model, X, y, member))
    result = attack.results
    flags = {
        "training rows in the smallest cell": result.k_anonymity_risk,
        "training rows in cells without some class": result.class_disclosure_risk,
        "training rows of a class in a cell": result.smallgroup_risk,
        "residual degrees of freedom": result.dof_risk,
    }
    counted = sacro.structural.get_model_param_count(model) > 0
    if not counted:
        del flags["residual degrees of freedom"]
    return flags, np.array(attack.record_level_results.k_anonymity)
