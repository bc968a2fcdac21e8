"""Poisoning: what wrong training rows would have done to the victim."""

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score

from .. import poisoning
from .._estimators import unwrap
from .._seeding import fit_seeded
from ..metrics import clopper_pearson
from ._evasion import recommendation
from ._section import (
    Bracket,
    Finding,
    Section,
    SectionReport,
    Task,
    Untested,
    add_defenses,
    reference_of,
    unfinished,
)

_CLEAN, _CERTIFICATE = "clean training", "certificate"
_N_FOLDS = 3
# Of a defense, so much poison is tried.
_DEFENDED_SHARE = 0.2


class PoisoningSection(Section):
    """What wrong training rows would have done to the victim; see :class:`Section`."""

    threat = "poisoning"
    title = "Poisoning"
    question = "What would wrong training rows have done to the model?"
    identifiers = {
        "ATLAS": "AML.T0020",
        "NIST": "Availability Poisoning",
        "AI Act": "data poisoning",
    }

    def tasks(self, subject):
        """List one training for each attack and share of poison."""
        untested = [
            Untested(
                "poisoning",
                "model poisoning",
                "whether a file of a model was tampered with cannot be seen from its "
                "answers",
            ),
            Untested(
                "poisoning",
                "backdoors and poison aimed at single rows",
                "only poison that makes the model worse in general was tried",
            ),
        ]
        if subject.is_regressor:
            reason = "what is tried here flips labels, which a regressor has none of"
            return [], [Untested("poisoning", "all attacks", reason), *untested]
        if subject.recipe is None:
            reason = "nobody knows how the model was trained, so that it cannot be again"
            return [], [Untested("poisoning", "all attacks", reason), *untested]
        tasks = [Task("poisoning", _CLEAN)]
        if _counts_rows(unwrap(subject.estimator)):
            tasks.append(Task("poisoning", _CERTIFICATE))
        attacks = _attacks(subject)
        tasks += [
            Task("poisoning", name, (share,))
            for share in reversed(subject.effort.shares)
            for name in attacks
        ]
        tasks += [Task("poisoning", f"defense: {name}") for name in _defenses(subject)]
        return tasks, untested

    def perform(self, subject, task):
        """Train on poisoned rows, and count the errors on test rows."""
        name = task.name.removeprefix("defense: ")
        if name != task.name:
            return _cross_validate(subject, name)
        if name == _CERTIFICATE:
            certificate = unwrap(subject.estimator).certify(subject.X_test)
            right = certificate.y_pred == subject.y_test
            radius = np.where(right, np.nan_to_num(certificate.radius), -1.0)
            # A flipped label is a row removed and another inserted, where those count.
            per_flip = 1 if "flipped labels" in certificate.unit else 2
            return {"radius": radius, "unit": certificate.unit, "per_flip": per_flip}
        X, y = subject.training_sample(subject.effort.n_training_rows)
        recipe, seed, n_poisoned = clone(subject.recipe), subject.seed % 2**31, 0
        if name != _CLEAN:
            poisoner = clone(_attacks(subject)[name]).set_params(budget=task.part[0])
            recipe = poisoning.PoisonedClassifier(recipe, poisoner, random_state=seed)
        model = fit_seeded(recipe, seed, X, y)
        if name != _CLEAN:
            n_poisoned = len(model.poisoner_.poison_indices_)
        wrong = np.asarray(model.predict(subject.X_test) != subject.y_test)
        return {
            "wrong": int(wrong.sum()),
            "n": len(wrong),
            "n_training_rows": len(y),
            "n_poisoned": n_poisoned,
        }

    def report(self, subject, outcomes):
        """Say how many errors poison makes, beside flips drawn at random."""
        report = SectionReport()
        attacks = _attacks(subject) if outcomes else {}
        references = {name: reference_of(attack) for name, attack in attacks.items()}
        knowledge = {name: "training data" for name in attacks}
        own = [o for o in outcomes if o.task.name in attacks]
        report.findings += unfinished(
            own, knowledge=knowledge, goal="misclassification", reference=references
        )
        clean = next((o for o in outcomes if o.task.name == _CLEAN), None)
        done = [o for o in own if o.status == "done"]
        if clean is None or clean.status != "done" or not done:
            report.headline = "Nothing was trained, so that nothing is known."
            if clean is not None and clean.status != "done":
                report.untested.append(Untested("poisoning", _CLEAN, clean.note))
            return report
        error = clean.evidence["wrong"] / clean.evidence["n"]
        n_rows = clean.evidence["n_training_rows"]
        if n_rows < len(subject.y_train):
            report.warnings.append(
                f"Poisoned models were trained on {n_rows} of {len(subject.y_train)} "
                "rows, and so was the clean one that they are compared with."
            )
        curves = {}
        for outcome in done:
            evidence, share = outcome.evidence, outcome.task.part[0]
            value = evidence["wrong"] / evidence["n"]
            low, high = clopper_pearson(evidence["wrong"], evidence["n"])
            report.findings.append(
                Finding(
                    "poisoning",
                    outcome.task.name,
                    "training data",
                    "misclassification",
                    f"{share:.0%} of the rows ({evidence['n_poisoned']} changed)",
                    "test error",
                    value,
                    low,
                    high,
                    error,
                    "trained on clean rows",
                    evidence["n"],
                    None,
                    outcome.seconds,
                    note=outcome.note,
                    reference=references[outcome.task.name],
                )
            )
            curves.setdefault(outcome.task.name, []).append([share, value, low, high])
        certificate = next((o for o in outcomes if o.task.name == _CERTIFICATE), None)
        bounds = self._add_brackets(report, subject, done, certificate, n_rows)
        report.figures["curve"] = [
            {"attack": name, "points": [[0.0, error, None, None], *sorted(points)]}
            for name, points in curves.items()
        ]
        report.figures["bound"] = bounds
        worst = max(done, key=lambda o: o.evidence["wrong"])
        value = worst.evidence["wrong"] / worst.evidence["n"]
        report.headline = (
            f"Had {worst.task.part[0]:.0%} of its training rows been poisoned "
            f"({worst.task.name}), the model would be wrong on {value:.1%} of the test "
            f"rows, not on {error:.1%}."
        )
        add_defenses(report, outcomes)
        lost = [o for o in own if o.status != "done"]
        for outcome in lost:
            if any(o.task.name == outcome.task.name for o in done):
                what = f"{outcome.task.name} at {outcome.task.part[0]:.0%}"
                report.untested.append(Untested("poisoning", what, outcome.note))
        return report

    def _add_brackets(self, report, subject, done, certificate, n_rows):
        proved = certificate is not None and certificate.status == "done"
        if certificate is not None and not proved:
            note = Untested("poisoning", "certificate", certificate.note)
            report.untested.append(note)
        # A certificate is about the model as it was trained: on all rows.
        proved = proved and n_rows == len(subject.y_train)
        bounds = []
        for share in sorted({o.task.part[0] for o in done}):
            own = [o for o in done if o.task.part[0] == share]
            worst = max(own, key=lambda o: o.evidence["wrong"])
            wrong, n = worst.evidence["wrong"], worst.evidence["n"]
            upper, by = 1.0, "no bound is known for such a model"
            if proved:
                radius = certificate.evidence["radius"]
                flips = int(share * n_rows + 1e-9)
                changes = certificate.evidence["per_flip"] * flips
                upper = float(np.mean(radius < changes))
                by = f"a certificate against {certificate.evidence['unit']}"
                bounds.append([share, upper])
            low = clopper_pearson(wrong, n)[0]
            report.brackets.append(
                Bracket(
                    "poisoning",
                    "test error, with this share of the training rows poisoned",
                    share,
                    min(wrong / n, upper),
                    upper,
                    worst.task.name,
                    by,
                    min(low, upper),
                    1.0 if upper == 1 else clopper_pearson(round(upper * n), n)[1],
                    n,
                )
            )
        return bounds


def _counts_rows(model):
    """Whether a model certifies itself; one behind steps that saw all rows does not."""
    return isinstance(
        model, (poisoning.DeepPartitionAggregation, poisoning.BaggingCertified)
    )


def _attacks(subject):
    """Return prototypes of the attacks, by name."""
    seed = subject.seed % 2**31
    flip = poisoning.LabelFlipping
    attacks = {
        "LabelFlipping, random": flip(strategy="random", random_state=seed),
    }
    if "score" in subject.knowledge:
        attacks["LabelFlipping, farthest"] = flip(strategy="farthest", random_state=seed)
    if subject.is_trees and hasattr(subject.model, "apply"):
        attacks["TreePoisoning"] = poisoning.TreePoisoning(random_state=seed)
    if subject.effort.deep and not subject.is_trees:
        attacks["LabelFlipping, alfa"] = flip(strategy="alfa", random_state=seed)
    return attacks


def _defenses(subject):
    seed = subject.seed % 2**31
    found = {}
    if subject.is_numeric:
        found["KNNSanitizer"] = poisoning.SanitizedClassifier(
            clone(subject.recipe), poisoning.KNNSanitizer(), random_state=seed
        )
    if subject.effort.deep:
        found["DeepPartitionAggregation"] = poisoning.DeepPartitionAggregation(
            clone(subject.recipe), n_partitions=25, random_state=seed
        )
    return found


def _cross_validate(subject, name):
    """Poison a defense and the victim's own recipe alike, inside of the same folds."""
    defense = _defenses(subject)[name]
    X, y = subject.training_sample(subject.effort.n_cv_rows)
    seed = subject.seed % 2**31
    folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed)
    flips = poisoning.LabelFlipping(
        strategy="random", budget=_DEFENDED_SHARE, random_state=seed
    )
    scores = []
    for model in (clone(subject.recipe), defense):
        poisoned = poisoning.PoisonedClassifier(clone(model), flips, random_state=seed)
        for trained in (poisoned, model):
            scores.append(
                cross_val_score(
                    trained, X, y, cv=folds, scoring="accuracy", error_score="raise"
                )
            )
    before, clean_before, after, clean_after = scores
    return recommendation(
        "poisoning",
        name,
        defense,
        f"accuracy with {_DEFENDED_SHARE:.0%} random flips in the training folds",
        before,
        after,
        clean_before,
        clean_after,
        len(y),
    )
