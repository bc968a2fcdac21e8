"""CUDA graphs of gradient steps; on a processor, with graphs that record and replay."""

import copy
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from nets import CNN, MLP
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sklearn_advsec.evasion import (
    FastGradientMethod,
    ProjectedGradientDescent,
)
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.victim import GradientAccess, _graphs

X = np.random.RandomState(0).rand(40, 1, 8, 8)


class RecordedGraph:
    """Does again, on the same memory, the operations that were captured."""

    n_replays = 0

    def __init__(self):
        self.calls = []

    def pool(self):
        return "pool"

    def replay(self):
        type(self).n_replays += 1
        with torch.no_grad():
            for function, args, kwargs, kept in self.calls:
                for old, new in zip(
                    kept, tree_leaves(function(*args, **kwargs)), strict=True
                ):
                    if isinstance(old, torch.Tensor):
                        old.data.copy_(new)


class Capture(TorchDispatchMode):
    """Records operations into a graph, on the stream that is given."""

    stream = None

    def __init__(self, graph, pool=None, stream=None, capture_error_mode="global"):
        super().__init__()
        assert stream is not None and capture_error_mode == "thread_local"
        self.graph, self.made = graph, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.graph.calls.append((function, args, kwargs or {}, tree_leaves(out)))
        given = {memory_of(t) for t in tree_leaves((args, kwargs))}
        self.made += [t for t in tree_leaves(out) if memory_of(t) not in given]
        return out

    def __exit__(self, *error):
        super().__exit__(*error)
        for tensor in self.made:  # a GPU computes nothing while it captures
            if tensor.is_floating_point():
                tensor.data.fill_(torch.nan)


def memory_of(value):
    """Return where a tensor is kept; None of anything else."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().data_ptr()
    return None


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


@pytest.fixture
def recording(monkeypatch):
    """Let the processor be a GPU whose graphs are recorded operations."""
    monkeypatch.setattr(_graphs, "_is_gpu", lambda device: True)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(RecordedGraph, "n_replays", 0)


def pgd(module, **parameters):
    parameters = {"eps": 0.1, "bounds": (0, 1), "max_iter": 30, **parameters}
    return ProjectedGradientDescent(PretrainedModule(module), **parameters).fit(X[:2])


def trained():
    """Return a network in double precision, so that rounding turns no sign."""
    torch.manual_seed(0)
    module = CNN()
    module(torch.rand(64, 1, 8, 8))  # statistics of batch normalisation
    return module.eval().double()


@pytest.mark.parametrize(
    "parameters",
    [
        {"early_stopping": False},
        {"early_stopping": False, "batch_size": 16},  # the last batch is not whole
        {"early_stopping": True, "eps": 0.02, "batch_size": 16},  # rows leave
        {"norm": 2, "eps": 0.5, "early_stopping": False, "precision": "mixed"},
    ],
)
def test_steps_by_graphs_lead_where_single_operations_lead(parameters, request):
    module = trained()
    expected = pgd(module, **parameters).run(X)
    request.getfixturevalue("recording")
    found = pgd(module, **parameters).run(X)
    assert RecordedGraph.n_replays > 20
    np.testing.assert_allclose(found.X_adv, expected.X_adv, atol=1e-5)
    np.testing.assert_array_equal(found.n_queries, expected.n_queries)
    np.testing.assert_array_equal(found.y_pred, expected.y_pred)


def test_several_gradients_of_one_pass_by_graphs(recording):
    access = GradientAccess(PretrainedModule(trained()), X)
    for n in (40,) * 12 + (17, 40):
        rows = torch.arange(n)
        logits, slopes = access.jacobian(access.x[:n], rows, lambda logits, at: logits)
    assert RecordedGraph.n_replays > 30
    x = access.x.clone().requires_grad_()
    expected = access._logits.eager(x)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-5, atol=1e-6)
    for k in range(10):
        (slope,) = torch.autograd.grad(expected[:, k].sum(), x, retain_graph=True)
        torch.testing.assert_close(slopes[:, k], slope, rtol=1e-4, atol=1e-6)


class Odd(nn.Module):
    """A network that does something besides, which a graph does not do again."""

    def __init__(self, oddity):
        super().__init__()
        self.oddity = oddity
        self.layer = MLP(64, 10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return getattr(self, self.oddity)(x.flatten(1))

    def noise(self, x):
        return self.layer(x + 0.1 * torch.randn_like(x))

    def dropout(self, x):
        return self.layer(nn.functional.dropout(x, 0.2))

    def depth(self, x):
        return self.layer(x) * (1 if random.random() < 0.5 else 2)

    def draw(self, x):
        return self.layer(x) * (1 + np.random.mtrand._rand.rand())

    def look(self, x):
        return self.layer(x) if x.max() > 0.5 else self.layer(2 * x)

    def other_rows(self, x):
        return self.layer(x - x.mean(0))

    def counts(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


ODDITIES = ["noise", "dropout", "depth", "draw", "look", "other_rows", "counts"]


@pytest.mark.parametrize("oddity", ODDITIES)
def test_networks_that_cannot_be_replayed_are_not(oddity, request):
    """The result, and what they leave behind, are those without a try."""

    def found(module):
        for seed in (random.seed, np.random.mtrand._rand.seed, torch.manual_seed):
            seed(0)
        access = GradientAccess(PretrainedModule(module), X)
        steps = [
            access.gradient(access.x[:n], torch.arange(n), lambda z, at: z[:, 0])
            for n in (40,) * 13 + (17, 40)
        ]
        drawn = random.random(), np.random.mtrand._rand.rand()
        return steps, (*drawn, float(torch.rand(())))

    torch.manual_seed(0)
    module = Odd(oddity).eval()
    kept = copy.deepcopy(module.state_dict())
    expected, drawn = found(module)
    request.getfixturevalue("recording")
    steps, now = found(module)
    for step, wanted in zip(steps, expected, strict=True):
        torch.testing.assert_close(step, wanted, rtol=1e-5, atol=1e-6)
    assert now == drawn
    assert all(torch.equal(kept[key], t) for key, t in module.state_dict().items())


def test_a_capture_that_fails_is_not_heard_of(recording, monkeypatch):
    class Failing(Capture):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            raise RuntimeError("operation not permitted when stream is capturing")

    expected = pgd(trained(), early_stopping=False).run(X)
    assert RecordedGraph.n_replays
    monkeypatch.setattr(RecordedGraph, "n_replays", 0)
    monkeypatch.setattr(torch.cuda, "graph", Failing)
    found = pgd(trained(), early_stopping=False).run(X)
    assert not RecordedGraph.n_replays
    np.testing.assert_allclose(found.X_adv, expected.X_adv, atol=1e-5)


def test_where_there_is_nothing_to_gain_nothing_is_captured(recording, monkeypatch):
    FastGradientMethod(PretrainedModule(trained()), bounds=(0, 1)).fit(X[:2]).run(X)
    monkeypatch.setattr(_graphs, "_PASS_BYTES", 1000)  # a pass that is large
    pgd(trained(), early_stopping=False).run(X)
    assert not RecordedGraph.n_replays


def test_the_victim_is_as_it_was(recording):
    module = trained().train()
    kept = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    pgd(module, early_stopping=False).run(X)
    assert RecordedGraph.n_replays and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(kept[key], t) for key, t in module.state_dict().items())
    assert all(layer.training for layer in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def asked(module, times=12):
    """Return an access that was asked for some gradients of all rows."""
    access = GradientAccess(PretrainedModule(module), X)
    for _ in range(times):
        access.gradient(access.x, None, lambda logits, at: logits[:, 0])
    return access


@pytest.mark.gpu
@pytest.mark.parametrize("parameters", [{"early_stopping": False}, {"batch_size": 16}])
def test_graphs_of_a_gpu_lead_where_single_operations_lead(parameters, monkeypatch):
    module = trained().cuda()
    found = pgd(module, **parameters).run(X)
    assert asked(module)._logits.passes is not None
    monkeypatch.setattr(_graphs, "_EAGER_PASSES", 1000)
    expected = pgd(module, **parameters).run(X)
    assert asked(module)._logits.passes is None
    np.testing.assert_allclose(found.X_adv, expected.X_adv, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("oddity", ODDITIES)
def test_networks_on_a_gpu_that_cannot_be_replayed_are_not(oddity):
    assert asked(Odd(oddity).cuda())._logits.passes is None
    torch.randn(2, device="cuda")  # the generator is not left in a capture
