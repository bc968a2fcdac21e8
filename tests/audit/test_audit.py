"""What an audit says is what was found; what was not found out is said, too."""

import json
import time

import numpy as np
import pytest
import torch
from audits import TINY, do_little
from data import bundled
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sklearn_advsec import defense, evasion, extraction, poisoning, privacy
from sklearn_advsec.audit import (
    Finding,
    Section,
    SectionReport,
    SecurityAudit,
    Task,
    catalogue,
    schema,
)
from sklearn_advsec.audit._evasion import (
    EvasionSection,
    Plan,
    _Rows,
    _warn_of_masking,
)
from sklearn_advsec.audit._section import Outcome
from sklearn_advsec.encryption import EncryptedClassifier


@pytest.fixture(autouse=True)
def _little_is_done(monkeypatch):
    do_little(monkeypatch)


def data(n_columns=6):
    X, y = bundled("breast_cancer")
    X = X[:, :n_columns]
    return X[:150], y[:150], X[150:250], y[150:250]


def linear_model():
    X, y, _, _ = data()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)


@pytest.fixture(scope="module")
def audited():
    """Return an audit, its victim, and random numbers drawn before and after it."""
    with pytest.MonkeyPatch.context() as patch:
        do_little(patch)
        model, states = linear_model(), [global_states()]
        audit = SecurityAudit(FrozenEstimator(model)).fit(*data())
        return audit, model, [*states, global_states()]


def global_states():
    return np.random.mtrand._rand.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def audit(audited):
    return audited[0]


def without_times(report):
    """Return a report as text, without what differs from run to run."""
    report = json.loads(json.dumps(report))
    for name in ("seconds", "date"):
        del report["audit"][name]
    for part in report["sections"]:
        for finding in part["findings"]:
            finding["seconds"] = 0
    return report


@pytest.mark.long
def test_every_threat_has_figures_with_interval_and_baseline(audit):
    results = audit.results_
    assert set(results["threat"]) == {"evasion", "extraction", "privacy", "poisoning"}
    assert (results["status"] == "done").all()
    assert (results["low"] <= results["value"] + 1e-12).all()
    assert (results["value"] <= results["high"] + 1e-12).all()
    assert results["baseline"].notna().all()
    for name in ("knowledge", "goal", "reference", "technique", "nist", "ai_act"):
        known = results.query("attack != 'RandomNoise'")[name]
        assert (known.str.len() > 0).all(), name


def test_truth_is_between_attack_and_proof(audit):
    brackets = audit.brackets_
    assert (brackets["lower"] <= brackets["upper"]).all()
    assert (brackets["low"] <= brackets["lower"] + 1e-12).all()
    assert (brackets["upper"] <= brackets["high"] + 1e-12).all()
    evasive = brackets.query("threat == 'evasion'")
    assert evasive["upper"].is_monotonic_decreasing
    # A linear model is certified exactly: at small sizes both ends are equal.
    assert (evasive["lower"] == evasive["upper"]).iloc[:4].all()
    assert (evasive["lower_by"].iloc[:2] == "certificate").all()


def test_brackets_hold_against_another_attack(audit):
    """Rows that are proved to stand do so under another attack, without constraints."""
    X, y, X_test, y_test = data()
    scale, rows = X.max(axis=0) - X.min(axis=0), audit_rows(X_test)
    for bracket in audit.brackets_.query("threat == 'evasion'").to_dict("records"):
        pgd = evasion.ProjectedGradientDescent(
            FrozenEstimator(linear_model()), eps=bracket["at"] * scale, bounds=None
        ).fit(X, y)
        assert pgd.score(X_test[rows], y_test[rows]) >= bracket["lower"] - 1e-12


def audit_rows(X_test):
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    return np.sort(np.random.RandomState(seed).permutation(len(X_test))[: TINY.n_rows])


def test_a_proof_that_an_attack_contradicts_is_not_believed():
    class Told:
        eps, correct = 0.1, np.ones(4, dtype=bool)

    table, report = _Rows(np.arange(4), Told()), SectionReport()
    evidence = {
        "rows": np.arange(4),
        "success": np.ones(4, dtype=bool),
        "distance": np.array([0.05, 0.2, 0.3, 0.4]),
        "n_queries": np.ones(4),
        "n_changed": np.ones(4),
    }
    task = Task("evasion", "attack", (0, 4))
    plan = Plan("score", None, "", "smallest")
    table.add("attack", plan, [Outcome(task, evidence)])
    table.prove("proof", {"rows": np.arange(4), "proved": np.full(4, 0.15)})
    table.drop_contradictions(report)
    assert table.proved(0.1) == 3 and table.standing(0.1) == 3
    assert "1 rows" in report.warnings[0]


@pytest.mark.parametrize(("n_rows", "masked"), [(12, True), (3, False)])
def test_masked_gradients_are_told(n_rows, masked):
    """A sign test: labels break what gradients do not, on enough rows to say so."""

    class Told:
        eps, correct = 0.1, np.ones(n_rows, dtype=bool)

    table, report = _Rows(np.arange(n_rows), Told()), SectionReport()
    for name, knowledge, success in (("PGD", "gradient", False), ("RayS", "label", True)):
        evidence = {
            "rows": np.arange(n_rows),
            "success": np.full(n_rows, success),
            "distance": np.full(n_rows, 0.05),
            "n_queries": np.ones(n_rows),
            "n_changed": np.ones(n_rows),
        }
        task = Task("evasion", name, (0, n_rows))
        plan = Plan(knowledge, None, "", "smallest")
        table.add(name, plan, [Outcome(task, evidence)])
    _warn_of_masking(report, table)
    assert [("masked" in text) for text in report.warnings] == [True] * masked


def test_a_linear_victim_is_stolen_and_its_recipe_poisoned(audit):
    results = audit.results_.set_index("attack")
    assert results.loc["EquationSolving", "value"] == 1.0
    assert results.loc["EquationSolving", "queries"] < 30
    worst = results.query("threat == 'poisoning'")["value"].max()
    clean = results.query("threat == 'poisoning'")["baseline"].iloc[0]
    assert worst > clean


def test_recommendations_are_measured(audit):
    recommended = audit.recommendations_
    assert {"AdversarialTrainingClassifier", "KNNSanitizer"} <= set(
        recommended["defense"]
    )
    better = recommended["gain_low"] > 0
    assert (recommended["every_fold_better"] == better).all()


def test_victim_and_random_states_stay_as_they_were(audited):
    _, model, (before, after) = audited
    assert np.array_equal(model[-1].coef_, linear_model()[-1].coef_)
    assert before == after


def test_json_has_the_published_form_and_comes_back(audit, tmp_path):
    audit.to_json(tmp_path / "a.json")
    again = SecurityAudit.from_json(tmp_path / "a.json")
    assert again.report_ == audit.report_
    assert again.results_.equals(audit.results_)
    assert again.to_html() == audit.to_html()
    jsonschema = pytest.importorskip("jsonschema", reason="checks the schema itself")
    jsonschema.validate(audit.report_, schema())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: r.update(schema_version="2.0"), "schema_version '2.0'"),
        (lambda r: r.pop("victim"), "has no 'victim'"),
        (lambda r: r.update(more=1), "unknown part 'more'"),
        (lambda r: r["sections"][0]["findings"][0].update(value="a"), "value must be"),
        (lambda r: r["sections"][0]["findings"][0].update(status="x"), "status must be"),
        (lambda r: r["audit"].update(interrupted=1), "must be of type boolean"),
    ],
)
def test_other_documents_are_refused(audit, change, text):
    report = json.loads(audit.to_json())
    change(report)
    with pytest.raises(ValueError, match=text):
        SecurityAudit.from_json(json.dumps(report))


@pytest.mark.parametrize("value", [None, "<script>", [], 10**400])
def test_figures_of_a_file_that_cannot_be_drawn_are_told(audit, value):
    report = json.loads(audit.to_json())
    for at in range(len(report["sections"])):
        for name in report["sections"][at]["figures"]:
            changed = json.loads(audit.to_json())
            changed["sections"][at]["figures"][name] = [value]
            again = SecurityAudit.from_json(json.dumps(changed))
            try:
                assert "<script>" not in again.to_html()
            except ValueError as error:
                assert "cannot be drawn" in str(error)


@pytest.mark.parametrize("text", ["{", "{}", '{"schema_version": NaN}', "{" * 10_000])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(ValueError, match="report"):
        SecurityAudit.from_json(text)


def test_cells_of_csv_are_no_formulas(audit):
    report = json.loads(audit.to_json())
    report["sections"][0]["findings"][0]["attack"] = "=HYPERLINK(1)"
    report["sections"][0]["findings"][1]["attack"] = "-1+cmd"
    text = SecurityAudit.from_json(json.dumps(report)).to_csv()
    assert "'=HYPERLINK" in text and "'-1+cmd" in text
    assert "\n=" not in text and ",=" not in text


def test_catalogue_has_all_attacks_and_defenses():
    table = catalogue()
    names = set(table["name"])
    assert {"HopSkipJump", "RMIA", "KnockoffNets", "TreePoisoning", "MagNet"} <= names
    for family in (evasion, extraction, privacy, poisoning, defense):
        attacks = [
            name
            for name in family.__all__
            if hasattr(getattr(family, name), "_attack")
            or hasattr(getattr(family, name), "_steal")
        ]
        bases = {"EvasionAttack", "ExtractionAttack"}
        assert set(attacks) - bases <= names
    attacks = table.query("kind == 'attack'")
    assert (attacks["knowledge"].str.len() > 0).all()
    assert (table["reference"].str.len() > 0).mean() > 0.8


def test_encrypted_answers_are_compared_with_those_in_the_clear():
    pytest.importorskip("tenseal", reason="needs TenSEAL")
    X, y, X_test, y_test = data()
    model = EncryptedClassifier(linear_model_of(X, y))
    with pytest.warns(UserWarning):  # a fitted victim that is not frozen
        audit = SecurityAudit(model, ["encryption"]).fit(X, y, X_test, y_test)
    (bracket,) = audit.brackets_.to_dict("records")
    assert bracket["lower"] == bracket["upper"] > 0.9
    audit = SecurityAudit(LogisticRegression(max_iter=5000), ["encryption"])
    audit.fit(X, y, X_test, y_test)
    assert "does not compute on encrypted rows" in audit.summary_["encryption"]


# Victims that misbehave ----------------------------------------------------------------


class Faulty(ClassifierMixin, BaseEstimator):
    """Answers as a linear model does, as long as it likes."""

    def __init__(self, fault="raises", after=3):
        self.fault = fault
        self.after = after

    def fit(self, X, y):
        self.model_ = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
        self.classes_ = self.model_.classes_
        self.calls = []
        return self

    def predict(self, X):
        self._count()
        return self.model_.predict(X)

    def predict_proba(self, X):
        self._count()
        proba = self.model_.predict_proba(X)
        if self.fault == "nan" and len(self.calls) > self.after:
            proba[0] = np.nan
        return proba[:, ::-1] if self.fault == "disagrees" else proba

    def _count(self):
        self.calls.append(1)
        if len(self.calls) > self.after:
            if self.fault == "raises":
                raise RuntimeError("the service is down")
            if self.fault == "hangs":
                time.sleep(3)


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("raises", "failed", "the service is down"),
        ("hangs", "time limit", "longer than 0.2 seconds"),
        ("nan", "failed", "BadAnswerError"),
    ],
)
def test_a_faulty_victim_leaves_rows_that_say_so(fault, status, text):
    X, y, X_test, y_test = data(2)
    victim = Faulty(fault).fit(X, y)
    audit = SecurityAudit(
        FrozenEstimator(victim),
        ["evasion"],
        time_limit=0.2,
        budget=2.0 if fault == "hangs" else "quick",
    ).fit(X, y, X_test, y_test)
    lost = audit.results_.query("status == @status")
    assert len(lost) and lost["note"].str.contains(text).any()
    assert lost["value"].isna().all()
    audit.to_html(), audit.to_json()


def test_a_victim_that_never_answers_gives_a_report():
    X, y, X_test, y_test = data(2)
    victim = Faulty("raises", after=0).fit(X, y)
    audit = SecurityAudit(FrozenEstimator(victim)).fit(X, y, X_test, y_test)
    assert len(audit.results_) == 0
    assert "the service is down" in audit.warnings_[0]
    assert (audit.not_tested_["what"] == "all attacks").sum() == 4
    with pytest.raises(AssertionError, match="not tested"):
        audit.assert_robust(max_fidelity=1.0)
    assert "could not be asked" in audit.to_html()


def test_labels_and_probabilities_that_disagree_are_told():
    X, y, X_test, y_test = data(2)
    victim = Faulty("disagrees", after=10**9).fit(X, y)
    audit = SecurityAudit(FrozenEstimator(victim), [Steps()])
    audit.fit(X, y, X_test, y_test)
    assert "not the class of the largest score on 100" in audit.warnings_[0]


@pytest.mark.long
def test_labels_only_and_regressors_and_constants(monkeypatch):
    do_little(monkeypatch, defenses=False)
    X, y, X_test, y_test = data(2)
    victim = extraction.LabelsOnly(FrozenEstimator(linear_model_of(X, y))).fit(X, y)
    audit = SecurityAudit(FrozenEstimator(victim), ["evasion", "privacy"])
    audit.fit(X, y, X_test, y_test)
    assert set(audit.results_["attack"]) >= {"RayS", "GapAttack"}
    assert not (audit.results_["knowledge"] == "score").any()
    assert "attacks by scores" in set(audit.not_tested_["what"])
    audit = SecurityAudit(Ridge()).fit(X, X[:, 0] + y, X_test, X_test[:, 0] + y_test)
    assert set(audit.results_["threat"]) == {"evasion", "privacy"}
    assert "GapAttack" not in set(audit.results_["attack"])
    assert "Not tested: " in audit.to_html()
    assert set(audit.not_tested_["threat"]) == {
        "evasion", "extraction", "privacy", "poisoning"
    }  # fmt: skip
    assert audit.recommendations_.empty and "defense" in audit.recommendations_
    audit = SecurityAudit(DecisionTreeRegressor(max_depth=3), ["extraction"])
    audit.fit(X, X[:, 0] + y, X_test, X_test[:, 0] + y_test)
    assert audit.results_["attack"].tolist() == ["PathFinding"]
    assert audit.results_["value"][0] == 1 > audit.results_["baseline"][0]
    assert "always saying the median" in audit.results_["baseline_is"].tolist()
    audit = SecurityAudit(DummyClassifier(), ["evasion"]).fit(X, y, X_test, y_test)
    assert (audit.brackets_["upper"] == audit.brackets_["upper"].iloc[0]).all()


def test_trees_of_regressors_are_solved_and_networks_climbed(monkeypatch):
    do_little(monkeypatch, defenses=False)
    X, y, X_test, y_test = data(2)
    amount, amount_test = X[:, 0] + y, X_test[:, 0] + y_test
    forest = RandomForestRegressor(3, max_depth=3, random_state=0)
    audit = SecurityAudit(forest, ["evasion"])
    audit.fit(X, amount, X_test, amount_test)
    attacks = set(audit.results_.query("status == 'done'")["attack"])
    assert attacks >= {"TreeCoordinateAttack", "TreeExactAttack", "SquareAttack"}
    brackets = audit.brackets_
    assert brackets["lower_by"].iloc[0] == "TreeExactAttack"
    assert 0 < brackets["lower"].iloc[0] <= brackets["upper"].iloc[0]
    assert not any("nearer row" in warning for warning in audit.warnings_)
    assert "proofs" not in set(audit.not_tested_["what"])
    skorch = pytest.importorskip("skorch")
    net = skorch.NeuralNetRegressor(
        torch.nn.Linear, module__in_features=X.shape[1], module__out_features=1,
        max_epochs=3, lr=0.01, train_split=None, verbose=0,
    )  # fmt: skip
    X, X_test = X.astype(np.float32), X_test.astype(np.float32)
    net.fit(X, amount.astype(np.float32)[:, None])
    audit = SecurityAudit(FrozenEstimator(net), ["evasion", "privacy"])
    audit.fit(X, amount, X_test, amount_test)
    found = audit.results_.set_index("attack")
    assert (found.loc["FastMinimumNorm", "knowledge"], found["n"].min() > 0) == (
        "gradient", True,
    )  # fmt: skip
    # Targets that are no column would be broadcast, which a loss warns of.
    assert not found["note"].str.contains("broadcasting").any()
    untested = audit.not_tested_.set_index("what")["reason"]
    assert "only those of trees" in untested["proofs"]


def test_a_torch_module_on_images_is_copied(monkeypatch):
    do_little(monkeypatch, defenses=False)
    images = np.random.RandomState(0).rand(120, 1, 4, 4).astype(np.float32)
    y = (images[:, 0, 0].sum(1) > 2).astype(int)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    with torch.no_grad():
        module[1].weight.copy_(
            torch.as_tensor([[-1.0], [1.0]]) * torch.eye(16)[:4].sum(0)
        )
        module[1].bias.copy_(torch.tensor([2.0, -2.0]))
    audit = SecurityAudit(module, ["extraction"])
    audit.fit(images[:60], y[:60], images[60:], y[60:])
    assert (audit.results_["value"] > audit.results_["baseline"]).any()
    (untested,) = audit.not_tested_["reason"]
    assert untested.startswith("PretrainedModule is no decision tree")
    audit.set_params(threats=["privacy"])
    audit.fit(images[:60], y[:60], images[60:], y[60:])
    assert {"GapAttack", "LossThreshold"} <= set(audit.results_["attack"])
    assert "shadow models" in audit.not_tested_["what"].tolist()


def linear_model_of(X, y):
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)


def test_trees_are_proved(monkeypatch):
    do_little(monkeypatch, defenses=False)
    X, y, X_test, y_test = data(4)
    model = DecisionTreeClassifier(max_depth=4, random_state=0)
    audit = SecurityAudit(model, ["evasion", "extraction"])
    audit.fit(X, y, X_test, y_test)
    evasive = audit.brackets_.query("threat == 'evasion'")
    assert (evasive["lower"] == evasive["upper"]).all()
    found = audit.results_.set_index("attack")
    assert found.loc["PathFinding", "value"] == 1.0
    assert "every leaf was found" in found.loc["PathFinding", "note"]


# Time, memory, interruption ------------------------------------------------------------


class Steps(Section):
    """Ten tasks, which tell who did them."""

    threat = "steps"
    title = question = "Steps"
    done = []
    stops_at = None

    def tasks(self, subject):
        return [Task("steps", f"step {i}", (i,)) for i in range(10)], []

    def perform(self, subject, task):
        if task.part[0] == Steps.stops_at:
            raise KeyboardInterrupt
        Steps.done.append(task.part[0])
        return {"value": task.part[0]}

    def report(self, subject, outcomes):
        return SectionReport(
            [
                Finding("steps", o.task.name, value=o.evidence["value"], status=o.status)
                for o in outcomes
                if o.evidence
            ],
            headline="Steps.",
        )


def test_a_stopped_audit_goes_on_where_it_was(tmp_path, monkeypatch):
    model = linear_model()
    monkeypatch.setattr(Steps, "done", [])
    monkeypatch.setattr(Steps, "stops_at", 4)
    audit = SecurityAudit(FrozenEstimator(model), [Steps()], memory=str(tmp_path))
    with pytest.warns(UserWarning, match="interrupted: the report holds 4 of 10"):
        audit.fit(*data())
    assert audit.report_["audit"]["interrupted"] and len(audit.results_) == 4
    assert "6 of 10 tasks" in set(audit.not_tested_["what"])
    monkeypatch.setattr(Steps, "stops_at", None)
    audit.fit(*data())
    assert Steps.done == list(range(10)) and len(audit.results_) == 10
    audit.set_params(random_state=1).fit(*data())  # another audit
    assert Steps.done == [*range(10), *range(10)]


def test_no_task_begins_when_the_time_is_over(monkeypatch):
    monkeypatch.setattr(Steps, "done", [])
    audit = SecurityAudit(linear_model_of(*data()[:2]), [Steps()], budget=1e-6)
    with pytest.warns(UserWarning):  # a fitted victim that is not frozen
        audit.fit(*data())
    assert Steps.done == [] and len(audit.results_) == 0
    assert audit.not_tested_["reason"].tolist() == ["the time of the audit was over"]


@pytest.mark.slow
def test_figures_do_not_depend_on_the_number_of_jobs(audit):
    other = SecurityAudit(FrozenEstimator(linear_model()), n_jobs=2).fit(*data())
    assert without_times(other.report_) == without_times(audit.report_)


class NotPickled(Faulty):
    """Cannot be handed to another process."""

    def __reduce__(self):
        raise TypeError("it holds a connection")


@pytest.mark.long
def test_a_victim_that_no_other_process_takes_is_audited_in_this_one(monkeypatch):
    monkeypatch.setattr(Steps, "done", [])
    X, y, X_test, y_test = data(2)
    victim = NotPickled(after=10**9).fit(X, y)
    audit = SecurityAudit(FrozenEstimator(victim), [Steps()], n_jobs=2)
    with pytest.warns(UserWarning, match="goes on in one process"):
        audit.fit(X, y, X_test, y_test)
    assert Steps.done == list(range(10)) and len(audit.results_) == 10


# Bars and comparisons -------------------------------------------------------------------


def test_bars_are_met_or_missed(audit):
    assert audit.assert_robust(max_tpr_at_fpr=1.0, min_robust_accuracy=0.0) is audit
    with pytest.raises(AssertionError, match="fidelity of the best copy is 1.000"):
        audit.assert_robust(max_fidelity=0.9, max_tpr_at_fpr=1.0)
    partial = SecurityAudit(linear_model_of(*data()[:2]), [Steps()])
    with pytest.warns(UserWarning):
        partial.fit(*data())
    with pytest.raises(AssertionError, match="not tested"):
        partial.assert_robust(min_robust_accuracy=0.0)


def test_a_comparison_gives_a_verdict_only_where_intervals_are_apart(audit):
    same = audit.compare(audit)
    assert [row["verdict"] for row in same.rows()] == [""] * len(same.rows())
    report = json.loads(audit.to_json())
    part = next(p for p in report["sections"] if p["threat"] == "extraction")
    part["brackets"][0] |= {"lower": 0.5, "low": 0.4}
    other = SecurityAudit.from_json(json.dumps(report))
    frame = audit.compare(other).to_frame().set_index("figure")
    assert frame.loc["fidelity of the best copy", "verdict"] == "better"
    backwards = other.compare(audit).to_frame().set_index("figure")
    assert backwards.loc["fidelity of the best copy", "verdict"] == "worse"
    assert "1.000 -> 0.500 (better)" in repr(audit.compare(other))
    assert "better" in audit.compare(other).to_html()


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"threats": ["evasion", "gossip"]}, "threats must be among"),
        ({"threats": "evasion"}, "threats must be a list"),
        ({"threats": []}, "threats must name"),
        ({"threats": ["evasion", "evasion"]}, "each once"),
        ({"budget": "huge"}, "'budget' parameter"),
        ({"eps": -1.0}, "'eps' parameter"),
    ],
)
def test_bad_parameters_are_named(parameters, text):
    with pytest.raises(ValueError, match=text):
        SecurityAudit(LogisticRegression(), **parameters).fit(*data())


def test_bad_data_is_refused():
    X, y, X_test, y_test = data()
    with pytest.raises(ValueError, match="y_test holds"):
        SecurityAudit(LogisticRegression()).fit(X, y, X_test, y_test + 5)
    with pytest.raises(ValueError, match="X_test has rows of shape"):
        SecurityAudit(LogisticRegression()).fit(X, y, X_test[:, :3], y_test)


def test_sections_know_their_identifiers():
    assert EvasionSection.identifiers["ATLAS"] == "AML.T0015"


def test_privacy_takes_groups_and_leaves_out_what_both_sides_have():
    rng = np.random.RandomState(0)
    X = np.repeat(rng.normal(size=(50, 4)), 4, axis=0) + 0.1 * rng.normal(size=(200, 4))
    X[100:120] = X[:20]  # also tested on
    y, groups = (X[:, 0] > 0).astype(int), np.repeat(np.arange(50), 4)
    tree = DecisionTreeClassifier(random_state=0)
    data = X[:100], y[:100], X[100:], y[100:]
    names = dict(groups_train=groups[:100], groups_test=groups[100:])
    audits = [SecurityAudit(tree, ["privacy"]).fit(*data, **g) for g in (names, {})]
    for audit in audits:
        (section,) = audit.report_["sections"]
        figures = section["figures"]
        of_attack = {f["attack"]: f for f in section["findings"] if f["metric"] == "AUC"}
        for curve in figures["roc"]:
            found = of_attack[curve["attack"]]
            assert curve["auc"] == pytest.approx(found["value"])
            assert found["n"] == 160
        assert figures["n_non_members"] == 80
        shown = {(r["of"], r["row"]) for r in figures["exposed"]}
        assert not shown & {(of, row) for of in ("training", "test") for row in range(20)}
    widths = [
        f["high"] - f["low"]
        for audit in audits
        for f in audit.report_["sections"][0]["findings"]
        if f["attack"] == "LossThreshold" and f["metric"] == "AUC"
    ]
    assert widths[0] > 1.2 * widths[1]
    assert any("in groups" in note for note in audits[0].report_["warnings"])
    with pytest.raises(ValueError, match="groups_test must be one for each"):
        SecurityAudit(tree, ["privacy"]).fit(*data, groups_train=groups[:100],
                                             groups_test=groups[:5])  # fmt: skip
    with pytest.raises(ValueError, match="must both be given"):
        SecurityAudit(tree, ["privacy"]).fit(*data, groups_train=groups[:100])
