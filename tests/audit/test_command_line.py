"""The command line: what goes in, what comes out, and with which exit status."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import joblib
import numpy as np
import pytest
from audits import do_little
from data import bundled
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.__main__ import main
from sklearn_advsec.audit import SecurityAudit

pd = pytest.importorskip("pandas")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _little_is_done(monkeypatch):
    do_little(monkeypatch, defenses=False)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write train.csv and test.csv, and go to their folder."""
    X, y = bundled("iris")
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    frame["kind"] = np.array(["x", "y", "z"])[y]
    frame[::2].to_csv(tmp_path / "train.csv", index=False)
    frame[1::2].to_csv(tmp_path / "test.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return frame


def fitted(frame, model=None):
    model = model or LogisticRegression(max_iter=500)
    return model.fit(frame[::2].drop(columns="kind"), frame["kind"][::2].to_numpy())


ARGUMENTS = ["test.csv", "--target", "kind", "--train", "train.csv"]


@pytest.mark.long
def test_a_skops_file_is_audited(files, capsys):
    io = pytest.importorskip("skops.io")
    io.dump(fitted(files), "model.skops")
    outputs = ["--output", "a.html", "--json", "a.json", "--csv", "a.csv"]
    assert main(["audit", "model.skops", *ARGUMENTS, *outputs]) == 0
    said = capsys.readouterr()
    assert "written: a.html" in said.out
    assert "evasion: By changes that the constraints allow" in said.out
    audit = SecurityAudit.from_json("a.json")
    assert set(audit.results_["threat"]) == {
        "evasion", "extraction", "privacy", "poisoning"
    }  # fmt: skip
    assert Path("a.html").read_text().startswith("<!doctype html>")
    assert len(pd.read_csv("a.csv")) == len(audit.results_)
    assert main(["compare", "a.json", "a.json", "--output", "b.html"]) == 0
    assert "score without any attack" in capsys.readouterr().out


def test_types_that_skops_does_not_know_are_named_and_refused(files, capsys):
    io = pytest.importorskip("skops.io")
    io.dump(fitted(files, DecisionTreeClassifier(max_depth=2)), "tree.skops")
    command = ["audit", "tree.skops", *ARGUMENTS, "--threats", "extraction"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "sklearn.tree._tree.Tree" in said and "--trust" in said
    assert main([*command, "--trust", "sklearn.tree._tree.Tree"]) == 0
    assert Path("security-audit.html").exists()


def test_pickles_are_loaded_only_when_allowed(files, capsys):
    joblib.dump(fitted(files), "model.joblib")
    command = ["audit", "model.joblib", *ARGUMENTS, "--threats", "extraction"]
    assert main(command) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert main([*command, "--allow-pickle"]) == 0
    assert "runs what its author put into it" in capsys.readouterr().err


@pytest.mark.long
def test_a_factory_is_called_and_a_bar_is_missed(files, capsys, tmp_path):
    (tmp_path / "my_models.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "def make():\n    return LogisticRegression(max_iter=500)\n"
    )
    command = ["audit", "my_models:make", *ARGUMENTS, "--threats", "extraction"]
    try:
        assert main([*command, "--max-fidelity", "0.5"]) == 1
        assert "missed: max_fidelity=0.5" in capsys.readouterr().out
        assert main([*command, "--max-fidelity", "1"]) == 0
        assert main([*command, "--max-tpr-at-fpr", "1"]) == 1  # not tested
    finally:
        sys.path.remove(os.getcwd())
        del sys.modules["my_models"]


def test_without_training_rows_privacy_is_not_tested(files, capsys):
    joblib.dump(fitted(files), "model.joblib")
    command = ["audit", "model.joblib", "test.csv", "--target", "kind", "--allow-pickle"]
    assert main([*command, "--threats", "extraction,privacy", "--json", "a.json"]) == 0
    untested = SecurityAudit.from_json("a.json").not_tested_
    assert untested.query("threat == 'privacy'")["reason"].str.contains("--train").any()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["audit", "nothing.skops", "test.csv"], "neither a file nor a factory"),
        (["audit", "no.such:model", *ARGUMENTS], "cannot be imported"),
        (["audit", "test.csv", *ARGUMENTS], "is no file of skops"),
        (["audit", "m.joblib", "test.csv", "--allow-pickle"], "--target"),
        (["audit", "m.joblib", "none.csv", "--target", "a", "--allow-pickle"], "no file"),
        (
            ["audit", "m.joblib", "test.csv", "--target", "q", "--allow-pickle"],
            "no column 'q'",
        ),
        (["audit", "m.joblib", *ARGUMENTS, "--threats", "gossip"], "gossip"),
        (
            ["audit", "m.joblib", *ARGUMENTS, "--allow-pickle", "--budget", "x"],
            "--budget",
        ),
        (["compare", "test.csv", "test.csv"], "no JSON"),
        (["list", "--family", "gossip"], "there are defense"),
        (["constraints", "infer", "none.csv"], "no file"),
    ],
)
def test_bad_input_is_told_in_one_line(files, capsys, arguments, text):
    joblib.dump(fitted(files), "m.joblib")
    assert main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert text in said[-1] and said[-1].startswith("error: ")


def test_attacks_are_listed(capsys):
    assert main(["list", "--family", "evasion", "--kind", "attack"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "family", "kind"]
    assert any(line.split()[0] == "HopSkipJump" for line in lines)
    assert main(["list", "--csv"]) == 0


@pytest.mark.long
def test_constraints_are_written_with_comments(files, capsys):
    assert main(["constraints", "infer", "train.csv", "--target", "kind"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# What may change in a row")
    assert [f["name"] for f in tomllib.loads(text)["features"]] == ["a", "b", "c", "d"]
    Path("spec.toml").write_text(text.replace("mutable = true", "mutable = false", 1))
    joblib.dump(fitted(files), "m.joblib")
    command = ["audit", "m.joblib", *ARGUMENTS, "--allow-pickle", "--json", "a.json"]
    assert main([*command, "--constraints", "spec.toml", "--threats", "evasion"]) == 0
    figures = json.loads(Path("a.json").read_text())["sections"][0]["figures"]
    changed = [c["feature"] for e in figures["examples"] for c in e["changes"]]
    assert changed and "a" not in changed


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_what_is_done_at_ctrl_c_is_written(files, tmp_path):
    (tmp_path / "slow_model.py").write_text(
        "import time\nfrom sklearn.linear_model import LogisticRegression\n"
        "class Slow(LogisticRegression):\n"
        "    def predict(self, X):\n        time.sleep(0.3)\n"
        "        return super().predict(X)\n"
        "def make():\n    return Slow(max_iter=500)\n"
    )
    command = [sys.executable, "-m", "sklearn_advsec", "audit", "slow_model:make"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, *ARGUMENTS, "--json", "a.json"],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    line = ""
    while " 3 of " not in line:  # lines, since this is no terminal
        line = process.stdout.readline()
        assert line, "it ended by itself"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    report = json.loads(Path("a.json").read_text())
    assert report["audit"]["interrupted"] and report["audit"]["n_tasks_done"] >= 1
