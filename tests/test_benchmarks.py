"""The benchmark of a GPU runs where there is none, so that it does where there is one."""

import json
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch, tmp_path):
    if not BENCHMARKS.exists():
        pytest.skip("the benchmarks are not installed with the package")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(import_module("_results"), "RESULTS", tmp_path)
    return import_module("bench_gpu")


def _measured(tables):
    """Return the rows of tables, all of which were measured to the end."""
    for table in tables:
        assert table.rows
        assert not any("Stopped" in text or "over:" in text for text in table.remarks)
        assert not table.claims  # a small run on a processor claims nothing
    return [row for table in tables for row in table.rows]


def test_stages_run_on_a_processor_and_are_on_the_page(bench, tmp_path):
    names = ["roofs", "queries", "agreement"]
    arguments = ["--device", "cpu", "--scale", "0.01", "--write", "--stages", *names]
    rows = _measured(bench.main(arguments))
    assert all(row.get("largest difference", 0) == 0 for row in rows)
    assert all(row.get("victim unchanged", True) for row in rows)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert len(content["tables"]) == len(names)
    assert "seconds of the clock" in content["environments"][0]
    assert "one thread" not in content["environments"][0]
    page = import_module("report").page("gpu", [("gpu", content)])
    assert all(table["title"] in page for table in content["tables"])


@pytest.mark.slow
def test_all_stages_run_on_a_processor(bench):
    _measured(bench.main(["--device", "cpu", "--scale", "0.02"]))


@pytest.mark.gpu
def test_all_stages_run_on_a_gpu(bench):
    _measured(bench.main(["--scale", "0.02"]))


def test_a_stage_ends_at_its_deadline_and_keeps_what_it_measured(bench, monkeypatch):
    def stage(setting):
        """Something endless."""
        yield {"what": "one", "ours": True, "s": 1.0}
        while True:
            time.sleep(0.01)

    monkeypatch.setitem(bench.STAGES, "roofs", (stage, "Endless", None))
    monkeypatch.setitem(bench.DEADLINES, "roofs", 0.1)
    start = time.perf_counter()
    table = bench.perform("roofs", bench.Setting(torch.device("cpu"), 0.01))
    assert time.perf_counter() - start < 5
    assert table.rows == [{"what": "one", "s": 1.0}]
    assert "seconds were over" in " ".join(table.remarks)


def test_the_stages_take_eight_minutes_at_most(bench):
    assert bench.DEADLINES.keys() == bench.STAGES.keys()
    assert sum(bench.DEADLINES.values()) <= 480


def test_claims_are_made_of_our_rows_only(bench):
    rows = [
        {"what": "ours", "ours": True, "over": 1.2},
        {"what": "theirs", "ours": False, "over": 1.0},
        {"what": "missing", "ours": True, "note": "no memory"},
    ]
    (claim,) = bench.at_most(1.1, "over")(rows)
    assert not claim.met and claim.claim == "ours: over"
    rows = [{"what": "net", "victim unchanged": same} for same in (True, False)]
    assert [claim.met for claim in bench.unchanged_victims(rows)] == [True, False]


def test_captured_nets_answer_as_they_are(bench, monkeypatch):
    """But for the capture itself, which takes a GPU."""
    sizes = []

    def as_it_is(function, samples):
        return lambda x: sizes.append(len(x)) or function(x)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", as_it_is)
    net, x = torch.nn.Linear(3, 2), torch.rand(8, 3)
    captured = bench.Captured(net, x)
    for n in (8, 5):
        part = x[:n].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(captured(part).square().sum(), part)
        (expected,) = torch.autograd.grad(net(part).square().sum(), part)
        torch.testing.assert_close(captured(x[:n]), net(x[:n]))
        torch.testing.assert_close(gradient, expected)
    assert sizes == [8, 8]  # filled up; what needs no gradient goes through the net
