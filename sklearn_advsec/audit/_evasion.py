"""Evasion: how little has to change before the victim is wrong."""

import math
from collections import namedtuple
from numbers import Integral, Real

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from .. import evasion
from .._estimators import ends_in_net
from .._rows import RowCodec, is_dataframe
from .._sklearn import Interval, _safe_indexing
from ..defense import (
    AdversarialTrainingClassifier,
    RobustRandomForestClassifier,
    certify,
)
from ..evasion import EvasionAttack
from ..evasion._base import SHARED
from ..metrics import clopper_pearson, robust_accuracy_scorer
from ..victim import RegressionVictim, ask_labels
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

# Sizes of changes that are reported, in units of `eps`.
_SIZES = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
# An exact attack looks a little beyond, so that the last size is decided.
_BEYOND = 1.05
# Rows that are attacked in one task.
_CHUNK = 16
# At most so many features may change for an attack by features.
_FEW = 3
# What a page shows of adversarial rows.
_EXAMPLES, _CHANGES, _PIXELS = 4, 8, 64 * 64
# Distances that rounding may have made a little too large or too small.
_ROUNDING = 1e-6
_PROOFS = ("certificate",)
# Of cross-validations of defenses.
_N_FOLDS = 3

# An attack of the section: what it knows, how it is made, what is said of it, and what
# it looks for: the "smallest" change, one of a "fixed" size, or few "features".
Plan = namedtuple("Plan", "knowledge make parameters seeks")


class RandomNoise(EvasionAttack):
    """Random signs of one size: what an attack has to beat."""

    knowledge = "label"

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        "eps": [Interval(Real, 0, None, closed="left")],
        "eps_unit": SHARED["eps_unit"],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        eps_unit="feature",
        n_draws=10,
        constraints=None,
        random_state=0,
        n_jobs=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.eps = eps
        self.eps_unit = eps_unit
        self.n_draws = n_draws
        self.constraints = constraints
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _attack(self, state):
        access, ball = state.access, self._ball()
        for _ in range(self.n_draws):
            rows = state.open_rows()
            signs = torch.randn(
                access.x.shape[1:], generator=state.generator, dtype=torch.float64
            ).sign()
            direction = signs.to(access.x).expand(len(rows), *signs.shape)
            delta = ball.maximize(direction, state.lower[rows], state.upper[rows])
            x_adv = access.x[rows] + delta
            predicted, reached = state.goal.select(rows).ask(access, x_adv, rows)
            state.record(rows, x_adv, predicted, reached)


class EvasionSection(Section):
    """How little has to change before the victim is wrong; see :class:`Section`."""

    threat = "evasion"
    title = "Evasion"
    question = "How little has to change before the model is wrong?"
    identifiers = {
        "gradient": "AML.T0043.000",
        "score": "AML.T0043.001",
        "label": "AML.T0043.001",
        "ATLAS": "AML.T0015",
        "NIST": "Evasion",
        "AI Act": "evasion",
    }

    def tasks(self, subject):
        """List attacks in chunks of rows, certificates, and defenses."""
        plans, untested = _plans(subject)
        n_rows = min(subject.effort.n_rows, len(subject.y_test))
        chunks = [(at, min(at + _CHUNK, n_rows)) for at in range(0, n_rows, _CHUNK)]
        if _nothing_changes(subject):
            reason = "no column may change: they hold texts, dates or identifiers"
            return [], [Untested("evasion", "all attacks", reason)]
        attacks = list(plans)
        if not subject.is_trees:
            if subject.is_regressor:
                reason = "of regressors, only those of trees have any here"
                untested.append(Untested("evasion", "proofs", reason))
            elif reason := _no_certificate(subject):
                untested.append(Untested("evasion", "proofs", reason))
            else:
                attacks.append("certificate")
        # All attacks on some rows come before any on the next ones.
        tasks = [Task("evasion", name, chunk) for chunk in chunks for name in attacks]
        untested.append(
            Untested(
                "evasion",
                "targeted misclassification",
                "any wrong answer counted; one that the attacker chooses is harder",
            )
        )
        tasks += [Task("evasion", f"defense: {name}") for name in _defenses(subject)]
        return tasks, untested

    def perform(self, subject, task):
        """Attack a chunk, prove something of it, or cross-validate a defense."""
        if task.name.startswith("defense: "):
            return _cross_validate(subject, task.name.removeprefix("defense: "))
        rows = subject.test_rows(subject.effort.n_rows)[slice(*task.part)]
        X, y = _safe_indexing(subject.X_test, rows), subject.y_test[rows]
        if task.name == "certificate":
            return {"rows": rows, "proved": _certified_radii(subject, X)}
        attack = clone(_plans(subject)[0][task.name].make())
        attack.set_params(estimator=_as_victim(subject))
        result = attack.fit(subject.X_train, subject.y_train)._run_all(X, y)
        unit = _unit(subject, attack)
        evidence = {
            "rows": rows,
            "success": result.success,
            "distance": result.distance / unit,
            "n_queries": result.n_queries,
            "n_changed": result.to_frame()["n_changed"].to_numpy(),
            "examples": _examples(subject, result, rows),
        }
        if hasattr(result, "lower"):
            evidence["proved"] = result.lower / unit
            evidence["status"] = result.status
        return evidence

    def report(self, subject, outcomes):
        """Bring attacks together, row by row, and hold them against the proofs."""
        report = SectionReport()
        plans, _ = _plans(subject)
        attacks = [o for o in outcomes if o.task.name in plans]
        references = {name: reference_of(plan.make()) for name, plan in plans.items()}
        report.findings += unfinished(
            attacks,
            knowledge={name: plan.knowledge for name, plan in plans.items()},
            goal="misclassification",
            parameters={name: plan.parameters for name, plan in plans.items()},
            reference=references,
        )
        rows = subject.test_rows(subject.effort.n_rows)
        table = _Rows(rows, subject)
        for name, plan in plans.items():
            parts = [o for o in attacks if o.task.name == name]
            done = [o for o in parts if o.status == "done"]
            if done:
                found = table.add(name, plan, done)
                self._add_finding(report, subject, name, plan, parts, found, references)
        for outcome in outcomes:
            if outcome.task.name in _PROOFS and outcome.status == "done":
                table.prove("certificate", outcome.evidence)
        _note_failed_proofs(report, outcomes)
        table.drop_contradictions(report)
        if table.attacked.any():
            self._add_brackets(report, subject, table)
            _warn_of_masking(report, table)
            report.headline = _headline(subject, table)
        else:
            report.headline = "No attack came to an end, so that nothing is known."
        add_defenses(report, outcomes)
        report.figures["examples"] = _best_examples(attacks)
        report.figures["image_shape"] = subject.image_shape
        return report

    def _add_finding(self, report, subject, name, plan, parts, found, references):
        held, n = int(found["held"].sum()), len(found["held"])
        low, high = clopper_pearson(held, n)
        note = "; ".join(dict.fromkeys(o.note for o in parts if o.note))
        lost = [o for o in parts if o.status != "done"]
        if lost:
            note = f"{len(lost)} of {len(parts)} parts came to nothing: {note}"
        report.findings.append(
            Finding(
                "evasion",
                name,
                plan.knowledge,
                "misclassification",
                plan.parameters,
                "share still right" if subject.is_regressor else "robust accuracy",
                held / n,
                low,
                high,
                float(found["right"].mean()),
                "the same rows without an attack",
                n,
                int(found["n_queries"].sum()),
                sum(o.seconds for o in parts),
                note=note[:300],
                reference=references[name],
            )
        )

    def _add_brackets(self, report, subject, table):
        quantity = "share still right" if subject.is_regressor else "accuracy"
        changes = _changes_meant(subject)
        curve = []
        for size in _SIZES:
            eps = size * subject.eps
            upper, lower = table.standing(eps), table.proved(eps)
            n = int(table.attacked.sum())
            by, proof = table.strongest(eps), table.proofs()
            low = clopper_pearson(lower, n)[0] if lower else 0.0
            high = clopper_pearson(upper, n)[1]
            report.brackets.append(
                Bracket(
                    "evasion",
                    f"{quantity} under any {changes}, up to this share of each range",
                    eps,
                    lower / n,
                    upper / n,
                    proof if lower else "nothing is proved",
                    by,
                    low,
                    high,
                    n,
                )
            )
            curve.append(
                {"eps": eps, "attack": upper / n, "proof": lower / n, "high": high}
            )
        clean = float(table.right[table.attacked].mean())
        report.figures["curve"] = [
            {"eps": 0.0, "attack": clean, "proof": clean, "high": None},
            *curve,
        ]
        report.figures["per_attack"] = [
            {"attack": name, "eps": [s * subject.eps for s in _SIZES], "accuracy": line}
            for name, line in table.lines(subject.eps).items()
        ]
        report.figures["quantity"] = quantity


class _Rows:
    """What all attacks and proofs say of the same rows."""

    def __init__(self, rows, subject):
        self.rows, self.eps = rows, subject.eps
        self.right = subject.correct[rows]
        self.broken = np.where(self.right, np.inf, 0.0)
        self.broken_by = np.full(len(rows), "", dtype=object)
        self.safe = np.zeros(len(rows))
        self.safe_by = set()
        self.attacked = np.zeros(len(rows), dtype=bool)
        self.by_attack = {}

    def add(self, name, plan, outcomes):
        """Take in what an attack reached; return what its finding says."""
        parts = [o.evidence for o in outcomes]
        joined = {
            key: np.concatenate([part[key] for part in parts])
            for key in ("rows", "success", "distance", "n_queries", "n_changed")
        }
        at = np.searchsorted(self.rows, joined["rows"])
        right = self.right[at]
        reached = np.where(joined["success"], joined["distance"], np.inf)
        limit = _FEW if plan.seeks == "features" else self.eps * (1 + _ROUNDING)
        found = {
            "right": right,
            "held": right & ~(reached <= limit),
            "n_queries": joined["n_queries"],
        }
        if plan.seeks == "features":
            return found
        self.attacked[at] = True
        nearer = reached < self.broken[at]
        self.broken[at[nearer]] = reached[nearer]
        self.broken_by[at[nearer]] = name
        self.by_attack[name] = (at, np.where(right, reached, 0.0), plan)
        for part in parts:
            if "proved" in part:
                self.prove(name, part)
        return found

    def prove(self, name, evidence):
        """Take in radii within which the answer is proved to stay."""
        at = np.searchsorted(self.rows, evidence["rows"])
        radius = np.where(self.right[at], np.nan_to_num(evidence["proved"]), 0.0)
        self.safe[at] = np.maximum(self.safe[at], radius)
        self.safe_by.add(name)

    def drop_contradictions(self, report):
        """Believe the attack where a proof says more than is true, and say so."""
        wrong = self.safe > self.broken * (1 + _ROUNDING)
        if wrong.any():
            self.safe[wrong] = 0.0
            report.warnings.append(
                f"Of {int(wrong.sum())} rows, an attack found a nearer row than was "
                "proved possible: their proofs are not counted. Please report this."
            )

    def standing(self, eps):
        """Count the rows that no attack broke within a size."""
        return int((self.broken > eps * (1 + _ROUNDING))[self.attacked].sum())

    def proved(self, eps):
        """Count the rows that are proved to stand within a size."""
        return int(
            (self.right & (self.safe > eps * (1 + _ROUNDING)))[self.attacked].sum()
        )

    def strongest(self, eps):
        """Return the attack that broke most rows within a size."""
        fallen = {
            name: int((reached <= eps * (1 + _ROUNDING)).sum())
            for name, (_, reached, _) in self.by_attack.items()
        }
        best = max(fallen, key=fallen.get)
        if fallen[best] <= int((~self.right).sum()):
            return f"{len(fallen)} attacks, none of which broke a row"
        return f"{len(fallen)} attacks; alone, most by {best}"

    def proofs(self):
        """Return what the proofs are by."""
        return ", ".join(sorted(self.safe_by))

    def lines(self, eps):
        """Return each attack's accuracy at all sizes that it looked at, else None."""
        return {
            name: [
                None
                if size < 1 and plan.seeks == "fixed"
                else float((reached > size * eps * (1 + _ROUNDING)).mean())
                for size in _SIZES
            ]
            for name, (_, reached, plan) in self.by_attack.items()
        }


def _warn_of_masking(report, table):
    """Compare attacks by gradients, row by row, with those that see less."""
    limit = table.eps * (1 + _ROUNDING)
    fallen = {"gradient": {}, "other": {}}
    for name, (at, reached, plan) in table.by_attack.items():
        kind = "gradient" if plan.knowledge == "gradient" else "other"
        if name.startswith("Tree"):
            return
        for row, distance in zip(at.tolist(), reached.tolist(), strict=True):
            known = fallen[kind].get(row, False)
            fallen[kind][row] = known or distance <= limit
    rows = set(fallen["gradient"]) & set(fallen["other"])
    only_other = sum(fallen["other"][r] and not fallen["gradient"][r] for r in rows)
    only_gradient = sum(fallen["gradient"][r] and not fallen["other"][r] for r in rows)
    if only_other <= only_gradient:
        return
    n = only_other + only_gradient
    if binomtest(only_other, n, alternative="greater").pvalue < 0.01:
        report.warnings.append(
            f"Attacks without gradients broke {only_other} rows that attacks with "
            f"gradients did not ({only_gradient} the other way round). The gradients of "
            "this model seem to be masked: figures of gradient attacks say little."
        )


def _changes_meant(subject, several=False):
    """Return what attacks and proofs are about: all changes, or allowed ones."""
    changes = "changes" if several else "change"
    if subject.constraints is None:
        return changes
    return f"{changes} that the constraints allow"


def _headline(subject, table):
    n = int(table.attacked.sum())
    right = int(table.right[table.attacked].sum())
    fell = right - table.standing(subject.eps)
    proved = table.proved(subject.eps)
    what = "pixel's range" if subject.image_shape else "feature's range"
    text = (
        f"By {_changes_meant(subject, True)} of up to {subject.eps:.3g} of each {what}, "
        f"attacks broke {fell} of the {right} test rows (of {n}) that the model gets "
        "right"
    )
    if proved:
        return f"{text}; {proved} are proved to stand."
    return f"{text}; none of the others is proved to stand."


# The attacks ---------------------------------------------------------------------------


def _plans(subject):
    """Return which attacks the victim allows, by name, and what it does not."""
    eps, queries = subject.eps, subject.effort.max_queries
    untested = []
    shared = {"random_state": subject.seed % 2**31}
    if subject.constraints is not None:
        space, sizes = {"constraints": subject.constraints}, {"eps": eps}
    else:
        space, sizes = {}, {"eps": eps, "eps_unit": "range"}
    size = f"eps={eps:.3g} ranges"
    plans = {
        "RandomNoise": Plan(
            "label", lambda: RandomNoise(**sizes, **space, **shared), size, "fixed"
        )
    }
    if subject.is_trees and subject.constraints is not None:
        largest = _BEYOND * _SIZES[-1] * eps
        seconds = 1.0 if not subject.effort.deep else 10.0
        plans["TreeCoordinateAttack"] = Plan(
            "gradient",
            lambda: evasion.TreeCoordinateAttack(**space),
            "smallest change",
            "smallest",
        )
        plans["TreeExactAttack"] = Plan(
            "gradient",
            lambda: evasion.TreeExactAttack(eps=largest, time_limit=seconds, **space),
            f"smallest change, up to {largest:.3g} ranges",
            "smallest",
        )
    if "gradient" in subject.knowledge:
        plans["AutoProjectedGradientDescent"] = Plan(
            "gradient",
            lambda: evasion.AutoProjectedGradientDescent(**sizes, **space, **shared),
            size,
            "fixed",
        )
        plans["FastMinimumNorm"] = Plan(
            "gradient",
            lambda: evasion.FastMinimumNorm(norm=np.inf, **space),
            "smallest change",
            "smallest",
        )
    elif not subject.is_trees:
        reason = f"{subject.name} has no gradients that can be computed"
        untested.append(Untested("evasion", "attacks by gradients", reason))
    elif subject.constraints is None:
        reason = "tree attacks need feature constraints, and none could be inferred"
        untested.append(Untested("evasion", "attacks on trees", reason))
    image = {}
    if subject.image_shape is not None and np.ndim(subject.X_test) == 2:
        image = {"image_shape": subject.image_shape}
    # What a regressor predicts tells how far it moved.
    graded = subject.is_regressor or "score" in subject.knowledge
    if graded:
        plans["SquareAttack"] = Plan(
            "score",
            lambda: evasion.SquareAttack(
                max_queries=queries, **sizes, **space, **image, **shared
            ),
            f"{size}, {queries} queries a row",
            "fixed",
        )
    else:
        reason = f"{subject.name} gives neither probabilities nor scores"
        untested.append(Untested("evasion", "attacks by scores", reason))
    plans["RayS"] = Plan(
        "label",
        lambda: evasion.RayS(max_queries=queries, **space),
        f"smallest change, {queries} queries a row",
        "smallest",
    )
    if subject.effort.deep:
        plans["HopSkipJump"] = Plan(
            "label",
            lambda: evasion.HopSkipJump(
                norm=np.inf, max_queries=queries, **space, **shared
            ),
            f"smallest change, {queries} queries a row",
            "smallest",
        )
    if subject.constraints is not None and subject.image_shape is None:
        greedy = max(queries, 1000)
        by = "score" if graded else "label"
        plans["GreedyFeatureAttack"] = Plan(
            by,
            lambda: evasion.GreedyFeatureAttack(
                norm=0, knowledge=by, max_queries=greedy, **space, **shared
            ),
            f"at most {_FEW} features, to any value allowed; {greedy} queries a row",
            "features",
        )
    return plans, untested


def _nothing_changes(subject):
    if subject.constraints is None:
        return False
    return not any(f.mutable for f in subject.constraints.features.values())


def _as_victim(subject):
    if subject.is_regressor:
        return RegressionVictim(subject.estimator, delta=subject.delta)
    return subject.estimator


def _unit(subject, attack):
    """Return what a distance of the attack is to be divided by: a range of pixels."""
    if subject.constraints is not None:
        return 1.0
    values = RowCodec(subject.X_train).encode(subject.X_train)
    return float(np.nanmax(values) - np.nanmin(values)) or 1.0


def _scale(subject):
    """Return what a change of 1 is, of each feature, under the constraints."""
    return np.array([f.scale for f in subject.constraints.features.values()])


# Proofs ---------------------------------------------------------------------------------


def _no_certificate(subject):
    """Return why there is no certificate, or None."""
    if not subject.is_numeric:
        return "there are none for models of categories other than trees"
    if subject.predicted is None:
        return "the victim could not be asked"
    return None


def _certified_radii(subject, X):
    """Return radii within which answers are proved to stay, in ranges of the features."""
    if subject.constraints is None:
        return certify(subject.estimator, X).radius / _unit(subject, None)
    scale = _scale(subject)
    array = X.to_numpy(dtype=np.float64) if is_dataframe(X) else np.asarray(X, float)
    units = StandardScaler()
    units.mean_, units.scale_ = np.zeros(len(scale)), 1 / scale
    units.var_, units.n_features_in_ = units.scale_**2, len(scale)
    units.n_samples_seen_ = 1
    model = Pipeline([("units", units), ("model", subject.estimator.estimator)])
    certificate = certify(model, array / scale)
    # Frames become arrays, and are divided and multiplied again: is it the same model?
    same = np.asarray(certificate.y_pred == ask_labels(subject.estimator, X))
    return np.where(same, certificate.radius, 0.0)


def _note_failed_proofs(report, outcomes):
    own = [o for o in outcomes if o.task.name in _PROOFS]
    failed = [o for o in own if o.status != "done"]
    if failed:
        what = f"proofs ({len(failed)} of {len(own)} parts)"
        report.untested.append(Untested("evasion", what, failed[0].note))


# Examples -------------------------------------------------------------------------------


def _examples(subject, result, rows):
    """Return the smallest successes of a chunk, as plain numbers and texts."""
    reached = np.where(result.success & (result.distance > 0), result.distance, np.inf)
    order = np.argsort(reached, kind="stable")[: _EXAMPLES // 2]
    found = []
    for i in order[np.isfinite(reached[order])].tolist():
        example = {
            "row": int(rows[i]),
            "label": _cell(result.y[i]),
            "before": _cell(subject.predicted[rows[i]]),
            "after": _cell(result.y_pred[i]),
            "distance": float(result.distance[i] / _unit(subject, None)),
        }
        own = (_safe_indexing(result.X, [i]), _safe_indexing(result.X_adv, [i]))
        if subject.image_shape is None:
            example["changes"], example["n_changed"] = _changes(subject, *own)
        elif math.prod(subject.image_shape) <= 3 * _PIXELS:
            low, high = float(np.min(subject.X_train)), float(np.max(subject.X_train))
            pictures = [np.asarray(rows, dtype=float).ravel() for rows in own]
            example["pixels"] = [
                np.clip((p - low) / ((high - low) or 1) * 255, 0, 255).round().astype(int)
                .tolist()
                for p in pictures
            ]  # fmt: skip
        found.append(example)
    return found


def _changes(subject, before, after):
    """Return which features of a row moved, from what to what; the largest first."""
    codec = RowCodec(before)
    old, new = codec.encode(before)[0], codec.encode(after)[0]
    moved = np.flatnonzero((old != new) & ~(np.isnan(old) & np.isnan(new)))
    scale = np.ones(len(old))
    names = [str(j) for j in range(len(old))]
    if subject.constraints is not None:
        scale = _scale(subject)
        names = [str(name) for name in subject.constraints.features]
    share = np.abs(new - old) / scale
    share = np.where(np.isnan(share), np.inf, share)
    changes = []
    for j in moved[np.argsort(-share[moved], kind="stable")][:_CHANGES].tolist():
        cells = [
            rows.iloc[0, j] if is_dataframe(rows) else rows[0, j]
            for rows in (before, after)
        ]
        changes.append(
            {
                "feature": names[j],
                "before": _cell(cells[0]),
                "after": _cell(cells[1]),
                "share": float(share[j]) if np.isfinite(share[j]) else None,
            }
        )
    return changes, len(moved)


def _cell(value):
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    return str(value)


def _best_examples(outcomes):
    """Return the smallest of all, each row once."""
    found = {}
    for outcome in outcomes:
        if outcome.status != "done":
            continue
        if outcome.task.name == "GreedyFeatureAttack":  # its distances are numbers
            continue
        for example in outcome.evidence["examples"]:
            known = found.get(example["row"])
            if known is None or example["distance"] < known["distance"]:
                found[example["row"]] = {**example, "attack": outcome.task.name}
    ordered = sorted(found.values(), key=lambda e: (e["distance"], e["row"]))
    return ordered[:_EXAMPLES]


# Defenses -------------------------------------------------------------------------------


def _defenses(subject):
    """Return the defenses that are worth a try on such a victim, by name."""
    if subject.recipe is None or subject.is_regressor:
        return {}
    rng = subject.seed % 2**31
    numeric, found = subject.is_numeric, {}
    if subject.is_trees and numeric and subject.constraints is not None:
        eps = subject.eps * _scale(subject)
        found["RobustRandomForestClassifier"] = RobustRandomForestClassifier(
            n_estimators=10, eps=eps, random_state=rng
        )
    if ends_in_net(subject.recipe) and "gradient" in subject.knowledge:
        found["AdversarialTrainingClassifier"] = AdversarialTrainingClassifier(
            clone(subject.recipe),
            evasion.ProjectedGradientDescent(
                eps=subject.eps * _unit(subject, None), max_iter=5
            ),
            random_state=rng,
        )
    elif numeric and subject.constraints is not None and "gradient" in subject.knowledge:
        found["AdversarialTrainingClassifier"] = AdversarialTrainingClassifier(
            clone(subject.recipe),
            _scored_attack(subject),
            n_rounds=2,
            random_state=rng,
        )
    return found


def _scored_attack(subject):
    space = (
        {"constraints": subject.constraints, "eps": subject.eps}
        if subject.constraints is not None
        else {"eps": subject.eps, "eps_unit": "range"}
    )
    if "gradient" in subject.knowledge:
        return evasion.ProjectedGradientDescent(max_iter=20, **space)
    return evasion.TreeCoordinateAttack(**space)


def _cross_validate(subject, name):
    """Compare a defense with the victim's own recipe, on the same folds."""
    defense = _defenses(subject)[name]
    X, y = subject.training_sample(subject.effort.n_cv_rows)
    folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=subject.seed % 2**31)
    scoring = {
        "accuracy": "accuracy",
        "robust": robust_accuracy_scorer(_scored_attack(subject), X_ref=X),
    }
    before, after = (
        cross_validate(model, X, y, cv=folds, scoring=scoring, error_score="raise")
        for model in (clone(subject.recipe), defense)
    )
    return recommendation(
        "evasion",
        name,
        defense,
        f"robust accuracy at eps={subject.eps:.3g} ranges",
        before["test_robust"],
        after["test_robust"],
        before["test_accuracy"],
        after["test_accuracy"],
        len(y),
    )


def recommendation(
    threat, name, defense, metric, before, after, clean_before, clean_after, n
):
    """Return the fields of a :class:`Recommendation`, where larger is better."""
    gains = np.asarray(after) - np.asarray(before)
    return {
        "threat": threat,
        "defense": name,
        "parameters": short_parameters(defense),
        "metric": metric,
        "before": float(np.mean(before)),
        "after": float(np.mean(after)),
        "gain_low": float(gains.min()),
        "gain_high": float(gains.max()),
        "accuracy_before": float(np.mean(clean_before)),
        "accuracy_after": float(np.mean(clean_after)),
        "n_folds": len(gains),
        "n": int(n),
        "every_fold_better": bool((gains > 0).all()),
    }


def short_parameters(estimator):
    """Return the numbers and texts that an estimator was made with."""
    plain = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if isinstance(value, (int, float, str)) and name not in ("n_jobs", "verbose")
    }
    return ", ".join(f"{name}={value!r}" for name, value in plain.items())[:200]
