"""Privacy: which training rows the victim gives away."""

import warnings
from functools import partial

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from .. import privacy
from .._estimators import unwrap
from .._rows import RowCodec, is_dataframe
from .._sklearn import _safe_indexing
from ..metrics import bootstrap_interval, clopper_pearson, roc_auc_interval, tpr_at_fpr
from ._section import (
    Bracket,
    Finding,
    Section,
    SectionReport,
    Task,
    Untested,
    reference_of,
    unfinished,
)

# Rates of false alarms at which an attack is judged; the smallest with enough records.
_RATES = (0.001, 0.01, 0.05, 0.1)
_FEW = 10
# Points of a curve, and exposed records, that are kept.
_POINTS, _EXPOSED = 200, 10
_BLIND = "blind"


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
        """List membership attacks, and the one that never asks the victim."""
        untested = []
        if subject.is_regressor:
            reason = "membership attacks here are on classifiers"
            return [], [Untested("privacy", "all attacks", reason)]
        if np.ndim(subject.X_test) != 2:
            reason = "records are flat rows with a label; these rows are arrays"
            return [], [Untested("privacy", "all attacks", reason)]
        if min(len(subject.y_train), len(subject.y_test)) < 2 * _FEW:
            reason = f"it takes {2 * _FEW} rows that were trained on, and that were not"
            return [], [Untested("privacy", "all attacks", reason)]
        attacks = _attacks(subject)
        if not _gives_probabilities(subject):
            reason = f"{subject.name} gives no probabilities"
            untested.append(Untested("privacy", "attacks by probabilities", reason))
        elif subject.recipe is None:
            reason = "nobody knows how the model was trained, so that no shadow can be"
            untested.append(Untested("privacy", "shadow models", reason))
        untested.append(
            Untested(
                "privacy",
                "attributes, inversion, other groups of records",
                "only membership of single records was tested",
            )
        )
        return [Task("privacy", name) for name in (_BLIND, *attacks)], untested

    def perform(self, subject, task):
        """Score the records."""
        records, member, _ = _records(subject)
        if task.name == _BLIND:
            return {"scores": _blind(subject, records, member)}
        attack = clone(_attacks(subject)[task.name]())
        fit_on = records
        attack.fit(fit_on)
        return {"scores": np.asarray(attack.decision_function(records), dtype=float)}

    def report(self, subject, outcomes):
        """Judge the scores by who was in, with intervals for all attacks together."""
        report = SectionReport()
        attacks = _attacks(subject) if outcomes else {}
        made = {name: make() for name, make in attacks.items()}
        references = {name: reference_of(attack) for name, attack in made.items()}
        knowledge = {name: attack.knowledge for name, attack in made.items()}
        own = [o for o in outcomes if o.task.name != _BLIND]
        report.findings += unfinished(
            own, knowledge=knowledge, goal="membership", reference=references
        )
        done = {o.task.name: o for o in own if o.status == "done"}
        if not done:
            report.headline = "No attack came to an end, so that nothing is known."
            return report
        _, member, rows = _records(subject)
        n_out = int((~member).sum())
        rate = next((r for r in _RATES if r * n_out >= _FEW), None)
        blind = self._add_blind(report, outcomes, member)
        for name, outcome in done.items():
            shadows = getattr(made[name], "n_shadow_models", None)
            self._add_findings(
                report,
                outcome,
                member,
                rate,
                blind,
                knowledge=knowledge[name],
                parameters=f"{shadows} shadow models" if shadows else "",
                reference=references[name],
            )
        areas = {n: roc_auc_score(member, o.evidence["scores"]) for n, o in done.items()}
        best = max(areas, key=areas.get)
        self._add_bracket(report, subject, done, member, rate)
        report.figures["roc"] = [
            _curve(name, member, outcome.evidence["scores"])
            for name, outcome in done.items()
        ]
        report.figures["n_non_members"] = n_out
        report.figures["exposed"] = _exposed(
            subject, done[best].evidence["scores"], member, rows
        )
        report.figures["exposed_by"] = best
        low, high = roc_auc_interval(
            member, done[best].evidence["scores"], 1 - 0.05 / len(done)
        )
        several = len(done) > 1
        who = f"{best}, the best of {len(done)} attacks," if several else best
        report.headline = (
            f"{who} tells rows that the model was trained on from others with an AUC of "
            f"{areas[best]:.3f} "
            f"({low:.3f} to {high:.3f}, at 95 %"
            f"{' for all attacks together' if several else ''}; guessing: 0.5)."
        )
        return report

    def _add_blind(self, report, outcomes, member):
        found = next((o for o in outcomes if o.task.name == _BLIND), None)
        if found is None or found.status != "done":
            if found is not None:
                what = "whether records tell by themselves who was in"
                report.untested.append(Untested("privacy", what, found.note))
            return None
        scores = found.evidence["scores"]
        low, _ = roc_auc_interval(member, scores)
        area = float(roc_auc_score(member, scores))
        if low > 0.5:
            report.warnings.append(
                "Training and test rows differ by themselves: without asking the model, "
                f"they are told apart with an AUC of {area:.3f}. Membership figures "
                "measure this, too."
            )
        return area

    def _add_findings(self, report, outcome, member, rate, blind, **known):
        scores = outcome.evidence["scores"]
        shared = {
            "goal": "membership",
            "n": len(member),
            "queries": len(member),
            "seconds": outcome.seconds,
            "note": outcome.note,
            **known,
        }
        report.findings.append(
            Finding(
                "privacy",
                outcome.task.name,
                metric="AUC",
                value=float(roc_auc_score(member, scores)),
                **_interval(roc_auc_interval(member, scores)),
                baseline=0.5 if blind is None else blind,
                baseline_is="guessing" if blind is None else "without asking the model",
                **shared,
            )
        )
        if rate is not None:
            report.findings.append(
                Finding(
                    "privacy",
                    outcome.task.name,
                    metric=f"TPR at {rate:g} FPR",
                    value=_rate_of(member, scores, rate),
                    **_interval(_rate_interval(member, scores, rate)),
                    baseline=rate,
                    baseline_is="guessing",
                    **shared,
                )
            )

    def _add_bracket(self, report, subject, done, member, rate):
        if rate is None:
            needed = int(np.ceil(_FEW / _RATES[-1]))
            report.untested.append(
                Untested(
                    "privacy",
                    "small false positive rates",
                    f"it takes {needed} test rows or more; there are {(~member).sum()}",
                )
            )
            return
        # One attack of several is the best by chance: each has its part of the 5 %.
        confidence = 1 - 0.05 / len(done)
        lows = {
            name: _rate_interval(member, o.evidence["scores"], rate, confidence)[0]
            for name, o in done.items()
        }
        rates = {n: _rate_of(member, o.evidence["scores"], rate) for n, o in done.items()}
        best = max(rates, key=rates.get)
        epsilon, proof = _certificate(subject)
        upper = 1.0
        if epsilon is not None:
            upper = min(1.0, float(np.exp(epsilon[0]) * rate + epsilon[1]))
        report.brackets.append(
            Bracket(
                "privacy",
                "members found (TPR) at this false positive rate",
                rate,
                min(rates[best], upper),
                upper,
                f"{best}, the best of {len(done)} attacks",
                proof,
                min(max(lows.values()), upper),
                upper,
                int(member.sum()),
            )
        )


def _interval(pair):
    return {"low": float(pair[0]), "high": float(pair[1])}


def _rate_of(member, scores, rate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(tpr_at_fpr(member, scores, fpr=rate))


def _rate_interval(member, scores, rate, confidence=0.95):
    """Return the interval of a true positive rate; exact where samples all agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        low, high = bootstrap_interval(
            partial(tpr_at_fpr, fpr=rate),
            member,
            scores,
            confidence=confidence,
            n_bootstraps=200,
        )
    if low < high:
        return low, high
    n = int(member.sum())
    return clopper_pearson(round(low * n), n, confidence)


def _certificate(subject):
    """Return epsilon and delta of a training that is differentially private, if so."""
    model = unwrap(subject.estimator)  # steps before it would have seen all rows
    if isinstance(model, privacy.DPSGDClassifier) and hasattr(model, "epsilon_"):
        pair = (float(model.epsilon_), float(model.delta))
        text = f"differential privacy, epsilon={pair[0]:.3g}, delta={pair[1]:.1g}"
        return pair, text
    return None, "nothing is proved"


def _records(subject):
    """Draw as many members as others: records, who is a member, and their rows."""
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
    return records, member[order], np.concatenate([inside, outside])[order]


def _gives_probabilities(subject):
    return "score" in subject.knowledge and hasattr(subject.estimator, "predict_proba")


def _attacks(subject):
    """Return the attacks that the victim allows, by name."""
    target, n_shadows = subject.estimator, subject.effort.n_shadow_models
    label = {"label_column": -1}
    if is_dataframe(subject.X_train) or subject.y_train.dtype.kind not in "biuf":
        label = {"label_column": "label"}
    seed = subject.seed % 2**31
    attacks = {"GapAttack": lambda: privacy.GapAttack(target, **label)}
    if not _gives_probabilities(subject):
        return attacks
    attacks["LossThreshold"] = lambda: privacy.LossThreshold(target, **label)
    if subject.recipe is None:
        return attacks
    shadows = {
        "shadow_estimator": subject.recipe,
        "n_shadow_models": n_shadows,
        "random_state": seed,
        **label,
    }
    attacks["RMIA"] = lambda: privacy.RMIA(target, **shadows)
    attacks["LikelihoodRatio"] = lambda: privacy.LikelihoodRatio(
        target, mode="online", **shadows
    )
    return attacks


def _blind(subject, records, member):
    """Score records by themselves, as somebody does who never asks the victim."""
    array = RowCodec(records).encode(records).astype(np.float64)
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=subject.seed % 2**31)
    return cross_val_predict(model, array, member, cv=folds, method="predict_proba")[:, 1]


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


def _exposed(subject, scores, member, rows):
    """Return the records that an attack is surest of, and whether it is right."""
    order = np.argsort(-scores, kind="stable")[:_EXPOSED]
    return [
        {
            "row": int(rows[i]),
            "of": "training" if member[i] else "test",
            "label": str((subject.y_train if member[i] else subject.y_test)[rows[i]]),
            "score": float(scores[i]),
        }
        for i in order.tolist()
    ]
