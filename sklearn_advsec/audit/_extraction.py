"""Extraction: how many questions buy a copy of the victim."""

from functools import partial

import numpy as np
from sklearn.base import clone
from sklearn.tree import BaseDecisionTree

from .. import extraction
from .._estimators import ends_in_net
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
    as_flat_rows,
    reference_of,
    unfinished,
)

# Queries that an attack which solves or searches may use, where that does.
_MOST_QUERIES = 5000
# A copy from equations whose largest error is below is one of the same function.
_SOLVED = 1e-6


class ExtractionSection(Section):
    """How many questions buy a copy of the victim; see :class:`Section`."""

    threat = "extraction"
    title = "Extraction"
    question = "How many questions buy a copy of the model?"
    identifiers = {
        "ATLAS": "AML.T0024.002",
        "NIST": "Model Extraction",
        "AI Act": "confidentiality",
    }

    def tasks(self, subject):
        """List one copy for each number of queries, and what needs none."""
        name, subject = subject.name, as_flat_rows(subject)
        budgets = self._budgets(subject)
        trained, exact = _attacks(subject)
        if subject.is_regressor and not exact:
            reason = "of regressors, only decision trees on numbers are copied here"
            return [], [Untested("extraction", "all attacks", reason)]
        tasks = [Task("extraction", name) for name in exact]
        tasks += [Task("extraction", name, (n,)) for name in trained for n in budgets]
        untested = []
        if subject.is_regressor:
            reason = "the attacks that train one ask for labels"
            untested.append(Untested("extraction", "copies that are trained", reason))
        if not exact:
            what, reason = (
                "an exact copy",
                f"{name} is no decision tree, and not linear in its columns",
            )
            untested.append(Untested("extraction", what, reason))
        tasks += [Task("extraction", f"defense: {name}") for name in _defenses(subject)]
        return tasks, untested

    def _budgets(self, subject):
        n_rows = len(subject.y_train)
        fit = [n for n in subject.effort.extraction_queries if n < n_rows]
        largest = subject.effort.extraction_queries[-1]
        return [*fit, n_rows] if n_rows <= largest else fit

    def perform(self, subject, task):
        """Steal, and measure the copy on test rows."""
        subject = as_flat_rows(subject)
        trained, exact = _attacks(subject)
        name = task.name.removeprefix("defense: ")
        if name != task.name:
            return self._defended(subject, name)
        make = {**trained, **exact}[name]
        attack = make(*task.part).fit(subject.X_train)
        copied = attack.predict(subject.X_test)
        proved, why = _is_exact(attack, np.asarray(copied == subject.predicted))
        same = subject.is_right(copied, subject.predicted)  # within `delta`: regressors
        return {
            "same": int(same.sum()),
            "n": len(same),
            "right": int(subject.is_right(copied, subject.y_test).sum()),
            "n_queries": int(attack.n_queries_),
            "exact": proved,
            "why": why,
        }

    def _defended(self, subject, name):
        """Compare copies of the victim with copies of what a defense lets through."""
        trained, _ = _attacks(subject)
        make, queries = next(iter(trained.values())), self._budgets(subject)[:2][-1]
        defended = _defenses(subject)[name].fit(subject.X_train, subject.y_train)
        parts = np.array_split(np.arange(len(subject.y_test)), 3)
        fidelity = []
        for victim in (subject.estimator, defended):
            attack = make(queries)
            attack.set_params(estimator=victim)
            copied = attack.fit(subject.X_train).predict(subject.X_test)
            fidelity.append(copied == subject.predicted)
        kept = defended.predict(subject.X_test) == subject.y_test
        means = [[-float(same[part].mean()) for part in parts] for same in fidelity]
        clean = [
            [float(w[part].mean()) for part in parts] for w in (subject.correct, kept)
        ]
        found = recommendation(
            "extraction",
            name,
            _defenses(subject)[name],
            f"fidelity of a copy after {queries} queries",
            *means,
            *clean,
            len(subject.y_test),
        )
        found["before"], found["after"] = -found["before"], -found["after"]
        return found

    def report(self, subject, outcomes):
        """Say how good copies are, and which are exact."""
        subject, report = as_flat_rows(subject), SectionReport()
        attacks = [o for o in outcomes if not o.task.name.startswith("defense: ")]
        done = [o for o in attacks if o.status == "done"]
        trained, exact = (
            {} if subject.predicted is None else made for made in _attacks(subject)
        )
        made = {n: make(100) for n, make in trained.items()}
        made.update({n: make() for n, make in exact.items()})
        knowledge = {name: _knowledge(attack) for name, attack in made.items()}
        references = {name: reference_of(attack) for name, attack in made.items()}
        report.findings += unfinished(
            attacks, knowledge=knowledge, goal="a copy", reference=references
        )
        if not done:
            report.headline = "No copy was made."
            return report
        majority, always = _constant_copy(subject)
        points = {}
        for outcome in done:
            evidence, name = outcome.evidence, outcome.task.name
            value = evidence["same"] / evidence["n"]
            low, high = clopper_pearson(evidence["same"], evidence["n"])
            report.findings.append(
                Finding(
                    "extraction",
                    name,
                    knowledge[name],
                    "a copy",
                    f"max_queries={outcome.task.part[0]}, among the training rows"
                    if outcome.task.part
                    else "rows of its own making",
                    "fidelity",
                    value,
                    low,
                    high,
                    majority,
                    always,
                    evidence["n"],
                    evidence["n_queries"],
                    outcome.seconds,
                    note="; ".join(t for t in (evidence["why"], outcome.note) if t)[:300],
                    reference=references[name],
                )
            )
            points.setdefault(name, []).append([evidence["n_queries"], value, low, high])
        _note_lost(report, attacks)
        best = max(done, key=lambda o: o.evidence["same"])
        solved = next((o for o in done if o.evidence["exact"]), None)
        best = solved or best
        share = best.evidence["same"] / best.evidence["n"]
        low, _ = clopper_pearson(best.evidence["same"], best.evidence["n"])
        report.brackets.append(
            Bracket(
                "extraction",
                "fidelity of the best copy",
                float(best.evidence["n_queries"]),
                share,
                1.0,
                best.task.name,
                "no copy can agree more often than always",
                low,
                1.0,
                best.evidence["n"],
            )
        )
        report.figures["curve"] = [
            {"attack": name, "points": sorted(own)} for name, own in points.items()
        ]
        report.figures["majority"] = majority
        report.headline = (
            f"{best.evidence['n_queries']} questions to {best.task.name} bought a copy "
            f"that agrees with the model on {share:.1%} of {best.evidence['n']} test rows"
        )
        if solved:
            report.headline += f" ({solved.evidence['why']})."
        else:
            report.headline += f" ({always}: {majority:.1%})."
        add_defenses(report, outcomes)
        return report


def _note_lost(report, attacks):
    lost = [o for o in attacks if o.status != "done" and o.task.part]
    finished = {o.task.name for o in attacks if o.status == "done"}
    for outcome in lost:
        if outcome.task.name in finished:
            what = f"{outcome.task.name} with {outcome.task.part[0]} queries"
            report.untested.append(Untested("extraction", what, outcome.note))


def _constant_copy(subject):
    """Return how often a copy agrees that always says the same, and what it says."""
    if subject.is_regressor:
        middle = np.full(len(subject.predicted), np.median(subject.predicted))
        same = float(np.mean(subject.is_right(middle, subject.predicted)))
        return same, "always saying the median"
    _, counts = np.unique(subject.predicted, return_counts=True)
    return float(counts.max() / counts.sum()), "always saying the most frequent label"


def _attacks(subject):
    """Return attacks that train a copy, and those that solve for one, by name."""
    seed = subject.seed % 2**31
    victim = {"estimator": subject.estimator, "random_state": seed}
    copied = dict(victim)
    if not subject.is_numeric and subject.recipe is not None:
        copied["surrogate"] = clone(subject.recipe)  # texts need what the victim knows
    trained, exact, model = {}, {}, subject.model
    if subject.is_numeric and isinstance(model, BaseDecisionTree):
        exact["PathFinding"] = partial(
            extraction.PathFinding, max_queries=_MOST_QUERIES, **victim
        )
    if subject.is_regressor:
        return trained, exact
    if "score" in subject.knowledge:
        trained["KnockoffNets"] = lambda n: extraction.KnockoffNets(
            max_queries=n, **copied
        )
    trained["KnockoffNets, labels only"] = lambda n: extraction.KnockoffNets(
        knowledge="label", max_queries=n, **copied
    )
    if subject.effort.deep:
        trained["ActiveExtraction"] = lambda n: extraction.ActiveExtraction(
            max_queries=n, **copied
        )
    if subject.is_numeric and hasattr(model, "coef_") and not ends_in_net(model):
        n_unknowns = np.size(model.coef_)
        exact["EquationSolving"] = partial(
            extraction.EquationSolving,
            max_queries=max(_MOST_QUERIES, 2 * n_unknowns),
            **victim,
        )
    return trained, exact


def _knowledge(attack):
    given = attack.get_params(deep=False).get("knowledge", attack.knowledge)
    return "score" if given == "auto" else given


def _is_exact(attack, same):
    """Return whether a copy is one of the same function, and what says so."""
    if getattr(attack, "exact_", False):
        return bool(same.all()), "every leaf was found, inside of the bounds of the data"
    residual = getattr(attack, "residual_", np.nan)
    if isinstance(attack, extraction.EquationSolving) and residual <= _SOLVED:
        n = attack.n_checked_
        text = f"solved; largest error {residual:.1g}, {n} rows checked it"
        return bool(same.all()) and n > 0, text
    return False, ""


def _defenses(subject):
    if "score" not in subject.knowledge or not hasattr(
        subject.estimator, "predict_proba"
    ):
        return {}
    return {
        "RoundedProbabilities": extraction.RoundedProbabilities(
            subject.estimator, decimals=1
        ),
        "LabelsOnly": extraction.LabelsOnly(subject.estimator),
    }
