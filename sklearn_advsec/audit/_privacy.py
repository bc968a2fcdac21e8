"""Privacy: which training rows the victim gives away."""

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from .. import privacy
from .._estimators import unwrap
from .._rows import is_dataframe
from .._sklearn import _safe_indexing
from ._section import (
    Bracket,
    Finding,
    Section,
    SectionReport,
    Task,
    Untested,
    as_flat_rows,
    reference_of,
    unfinished,
)

_FEW = 10
# Points of a curve, and exposed records, that are kept.
_POINTS, _EXPOSED = 200, 10
_AUDIT, _STRUCTURE = "PrivacyAudit", "structural checks"
# Parts of the audit: what asks the model alone, and what trains others.
_PLAIN, _SHADOWS = "without shadow models", "with shadow models"


class PrivacySection(Section):
    """Which training rows the victim gives away; see :class:`Section`."""

    threat = "privacy"
    title = "Privacy"
    question = "Which training rows does the model give away?"
    identifiers = {
        "ATLAS": "AML.T0024.000",
        "NIST": "Membership Inference",
        "AI Act": "confidentiality",
    }

    def tasks(self, subject):
        """List the audit of membership, the cheap attacks first, and what needs none."""
        untested = []
        if min(len(subject.y_train), len(subject.y_test)) < 2 * _FEW:
            reason = f"it takes {2 * _FEW} rows that were trained on, and that were not"
            return [], [Untested("privacy", "all attacks", reason)]
        parts = [Task("privacy", _AUDIT, (_PLAIN,))]
        if not _gives_probabilities(subject):
            reason = f"{subject.name} gives no probabilities"
            untested.append(Untested("privacy", "attacks by probabilities", reason))
        elif subject.recipe is None:
            reason = "nobody knows how the model was trained, so that no shadow can be"
            untested.append(Untested("privacy", "shadow models", reason))
        else:
            parts.append(Task("privacy", _AUDIT, (_SHADOWS,)))
        return [*parts, Task("privacy", _STRUCTURE)], untested

    def perform(self, subject, task):
        """Make the privacy audit of some records, or look at the structure."""
        subject = as_flat_rows(subject)
        if task.name == _STRUCTURE:
            report = privacy.structural_checks(
                subject.estimator, subject.X_train, subject.y_train
            )
            stored = [[found.path, found.holds] for found in report.stored]
            return {"checks": report.checks(), "n_rows": report.n_rows, "stored": stored}
        records, member, _, groups = _records(subject)
        attacks = [] if subject.is_regressor else ["GapAttack"]
        if _gives_probabilities(subject):
            attacks.append("LossThreshold")
        if task.part == (_SHADOWS,):
            attacks += ["RMIA", "LikelihoodRatio"]
        audit = privacy.PrivacyAudit(
            subject.estimator,
            attacks,
            shadow_estimator=subject.recipe,
            n_shadow_models=subject.effort.n_shadow_models,
            label_column="label" if is_dataframe(records) else -1,
            random_state=subject.seed % 2**31,
        ).fit(records, members=member, groups=groups)
        table = audit.records_.sort_index()
        return {
            "results": audit.results_.dropna(subset=["attack"]).to_dict("records"),
            "scores": {n: table[f"score_{n}"].to_numpy() for n in attacks},
            "p_joint": table["p_joint"].to_numpy(),
            "flagged": table["flagged"].to_numpy(),
            "judged": table["judged"].to_numpy(),
            "limits": audit.limits_.to_numpy().tolist(),
            "has_gap": audit.has_gap_,
        }

    def report(self, subject, outcomes):
        """Say what the audit found, with intervals for all attacks together."""
        subject, report = as_flat_rows(subject), SectionReport()
        own = [o for o in outcomes if o.task.name == _AUDIT]
        done = [o for o in own if o.status == "done"]
        late = [o for o in own if o.status != "done"]
        if not done:
            report.findings += unfinished(own, goal="membership")
            self._add_structure(report, outcomes)
            report.headline = "No attack came to an end, so that nothing is known."
            return report
        for outcome in late:
            (part,) = outcome.task.part
            report.untested.append(Untested("privacy", part, outcome.note))
        outcome = done[-1]  # the one with shadow models has the others, too
        _, member, rows, _ = _records(subject)
        evidence, judged = outcome.evidence, outcome.evidence["judged"]
        self._add_findings(report, subject, outcome)
        self._add_structure(report, outcomes)
        self._add_bracket(report, subject, evidence, member[judged])
        best = max(self._areas(evidence).items(), key=lambda pair: pair[1]["value"])
        report.figures["roc"] = [
            _curve(name, member[judged], scores[judged])
            for name, scores in evidence["scores"].items()
        ]
        report.figures["n_non_members"] = int((~member & judged).sum())
        report.figures["exposed"] = _exposed(subject, evidence, member, rows)
        report.figures["exposed_by"] = "all attacks together"
        report.untested += [Untested("privacy", *limit) for limit in evidence["limits"]]
        report.headline = _headline(*best, evidence)
        return report

    def _areas(self, evidence):
        return {
            row["attack"]: row
            for row in evidence["results"]
            if row["metric"] == "AUC" and row["attack"] in evidence["scores"]
        }

    def _add_findings(self, report, subject, outcome):
        """Add the figures of all attacks, beside what is told without the model."""
        results = outcome.evidence["results"]
        blind = next((row for row in results if row["attack"] == "no model"), None)
        if blind is not None and blind["low"] > 0.5:
            report.warnings.append(
                "Training and test rows differ by themselves: without asking the model, "
                f"they are told apart with an AUC of {blind['value']:.3f}. Membership "
                "figures measure this, too."
            )
        asked = {row["knowledge"] for row in results}
        strongest = "score" if "score" in asked else "label"
        for row in results:
            if row["attack"] == "no model":
                continue
            name, area = row["attack"], row["metric"] == "AUC"
            shadows = name in ("RMIA", "LikelihoodRatio")
            alone = getattr(privacy, name, None)
            asks = area and blind is not None
            report.findings.append(
                Finding(
                    "privacy",
                    name,
                    knowledge=row["knowledge"] or strongest,
                    goal="membership",
                    parameters=f"{subject.effort.n_shadow_models} shadow models"
                    if shadows
                    else "",
                    metric=row["metric"],
                    value=row["value"],
                    low=row["low"],
                    high=row["high"],
                    baseline=blind["value"] if asks else row["baseline"],
                    baseline_is="without asking the model" if asks else "guessing",
                    n=int(row["n_members"] + row["n_non_members"]),
                    queries=int(row["n_members"] + row["n_non_members"]),
                    seconds=outcome.seconds,
                    note=outcome.note,
                    reference=reference_of(alone or privacy.PrivacyAudit),
                )
            )

    def _add_structure(self, report, outcomes):
        """Add the structural checks; what fails of them is a warning."""
        found = next((o for o in outcomes if o.task.name == _STRUCTURE), None)
        if found is None:
            return
        if found.status != "done":
            report.untested.append(Untested("privacy", _STRUCTURE, found.note))
            return
        for check in found.evidence["checks"]:
            if check["value"] is None:
                continue
            report.findings.append(
                Finding(
                    "privacy",
                    _STRUCTURE,
                    knowledge="file",
                    goal="disclosure",
                    metric=check["check"],
                    value=float(check["value"]),
                    low=float(check["value"]),  # a count of these rows, and no sample
                    high=float(check["value"]),
                    baseline=float(check["limit"]),
                    baseline_is="limit",
                    n=found.evidence["n_rows"],
                    seconds=found.seconds,
                    note="fails" if check["fails"] else "",
                    reference=reference_of(privacy.structural_checks),
                )
            )
        places = [path for path, holds in found.evidence["stored"] if holds == "rows"]
        if places:
            report.warnings.append(
                "The model's file holds training rows: whoever has it has them, in "
                f"{', '.join(places[:3])}{' and others' if len(places) > 3 else ''}."
            )

    def _add_bracket(self, report, subject, evidence, member):
        rates = [
            row
            for row in evidence["results"]
            if row["metric"].startswith("TPR") and row["attack"] in evidence["scores"]
        ]
        if not rates:
            report.untested.append(
                Untested(
                    "privacy",
                    "small false positive rates",
                    f"it takes 100 test rows or more; there are {(~member).sum()}",
                )
            )
            return
        best = max(rates, key=lambda row: row["value"])
        rate = best["baseline"]
        epsilon, proof = _certificate(subject)
        upper = 1.0
        if epsilon is not None:
            upper = min(1.0, float(np.exp(epsilon[0]) * rate + epsilon[1]))
        report.brackets.append(
            Bracket(
                "privacy",
                "members found (TPR) at this false positive rate",
                rate,
                min(best["value"], upper),
                upper,
                f"{best['attack']}, the best of {len(rates)} attacks",
                proof,
                min(max(row["low"] for row in rates), upper),
                upper,
                int(member.sum()),
            )
        )


def _headline(name, area, evidence):
    n_attacks = len(evidence["scores"])
    several = n_attacks > 1
    who = f"{name}, the best of {n_attacks} attacks," if several else name
    flagged = int(evidence["flagged"].sum())
    alone = f" {flagged} of them are exposed one by one." if flagged else ""
    return (
        f"{who} tells rows that the model was trained on from others with an AUC of "
        f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f}, at 95 %"
        f"{' for all attacks together' if several else ''}; guessing: 0.5).{alone}"
    )


def _certificate(subject):
    """Return epsilon and delta of a training that is differentially private, if so."""
    model = unwrap(subject.estimator)  # steps before it would have seen all rows
    if isinstance(model, privacy.DPSGDClassifier) and hasattr(model, "epsilon_"):
        pair = (float(model.epsilon_), float(model.delta))
        text = f"differential privacy, epsilon={pair[0]:.3g}, delta={pair[1]:.1g}"
        return pair, text
    return None, "nothing is proved"


def _records(subject):
    """Draw as many members as others: records, who is a member, their rows and groups."""
    rng = np.random.RandomState(subject.seed)
    each = min(subject.effort.n_records // 2, len(subject.y_train), len(subject.y_test))
    inside = np.sort(rng.permutation(len(subject.y_train))[:each])
    outside = np.sort(rng.permutation(len(subject.y_test))[:each])
    parts = (
        (subject.X_train, subject.y_train, inside),
        (subject.X_test, subject.y_test, outside),
    )
    rows = [_safe_indexing(X, at) for X, _, at in parts]
    if is_dataframe(rows[0]):
        import pandas as pd

        joined = pd.concat(rows, ignore_index=True)
    else:
        joined = np.concatenate(rows)
    y = np.concatenate([labels[at] for _, labels, at in parts])
    member = np.repeat([True, False], each)
    # Shadow models of the first rows would be told apart from those of the last.
    order = rng.permutation(2 * each)
    records = privacy.make_records(_safe_indexing(joined, order), y[order])
    groups = None
    if subject.groups_train is not None:
        drawn = subject.groups_train[inside], subject.groups_test[outside]
        groups = np.concatenate(drawn)[order]
    return records, member[order], np.concatenate([inside, outside])[order], groups


def _gives_probabilities(subject):
    """Whether more than labels is known: of regressors, residuals are."""
    if subject.is_regressor:
        return True
    return "score" in subject.knowledge and hasattr(subject.estimator, "predict_proba")


def _curve(name, member, scores):
    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=False)
    if len(fpr) > _POINTS:
        ranks = np.geomspace(1, len(fpr), _POINTS).astype(int) - 1
        at = np.unique(np.r_[ranks, len(fpr) - 1])
        fpr, tpr = fpr[at], tpr[at]
    return {
        "attack": name,
        "auc": float(roc_auc_score(member, scores)),
        "fpr": fpr.tolist(),
        "tpr": tpr.tolist(),
    }


def _exposed(subject, evidence, member, rows):
    """Return the records that are most exposed, by all attacks together."""
    p_values, flagged = evidence["p_joint"], evidence["flagged"]
    order = np.argsort(p_values, kind="stable")
    order = order[evidence["judged"][order]][:_EXPOSED]
    return [
        {
            "row": int(rows[i]),
            "of": "training" if member[i] else "test",
            "label": str((subject.y_train if member[i] else subject.y_test)[rows[i]]),
            "score": float(p_values[i]),
            "flagged": bool(flagged[i]),
        }
        for i in order.tolist()
    ]
