"""Gradient steps of small batches as CUDA graphs, where a network allows it.

A GPU is through with a small batch before the next of its kernels is launched. Launched
together, as a graph that was captured once, they wait for each other no more.
"""

import random
import threading
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ._hardware import _bytes_per_row, _is_gpu

# To capture takes the time of some passes: of a few of them there is nothing to gain.
_EAGER_PASSES = 10
# A pass that keeps more than this for its backward pass waits for memory, not launches.
_PASS_BYTES = 2**26
# Kernels are chosen by the size of a batch, and round differently, in bfloat16 most. What
# is random, or looks at other rows, is further off.
_ROUNDING = 2e-2
# A process captures one graph at a time.
_CAPTURE = threading.Lock()
# What these operations give is not the same, or not of the same shape, when they are
# replayed; most of them make the host wait, which ends a capture.
_NOT_REPLAYED = {
    torch.Tag.nondeterministic_seeded,
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
}


class GraphedLogits:
    """Logits to differentiate: of single operations at first, then of CUDA graphs.

    Graphs have a batch of fixed size; a smaller one, as it gets when rows leave, is part
    of it. What is larger, and every network of which passes cannot be replayed, goes on
    by single operations, and so does everything on a processor.

    Parameters
    ----------
    view : ClassifierView
        Whose logits these are.
    bfloat16 : bool, default=False
        Whether they are computed in bfloat16.
    """

    def __init__(self, view, bfloat16=False):
        self.view, self.bfloat16 = view, bfloat16
        self.passes = None
        self.tries = view.module is not None and _is_gpu(view.device)
        self.n_passes = self.last = 0

    def __call__(self, x):
        """Return logits of `x`, to take gradients of before the next call."""
        if self.tries:
            self.n_passes += 1
            # Behind the last rows of a chunk, which are few, a whole batch may follow.
            if self.n_passes > _EAGER_PASSES and len(x) >= self.last:
                self.tries, self.passes = False, captured(self.eager, self.view, x)
            self.last = len(x)
        if self.passes is not None and len(x) <= len(self.passes.x):
            return _Replay.apply(x, self.passes)
        return self.eager(x)

    def eager(self, x):
        """Return logits of `x`, operation by operation."""
        with torch.autocast(
            self.view.device.type, dtype=torch.bfloat16, enabled=self.bfloat16
        ):
            return self.view.logits(x).to(x.dtype)


def captured(logits, view, x):
    """Capture passes over a batch like `x`; return None where they cannot be replayed.

    What the network keeps, and all global random states, are then as they were.
    """
    with _CAPTURE, _unchanged(view.module):
        try:
            # Half of the rows: what a row gets must not depend on those beside it.
            half = x.detach()[: (len(x) + 1) // 2].requires_grad_()
            before = _random_states()
            with _OnlyReplayable(x.device):
                expected = _pass(logits, half)
            if _random_states() != before:
                return None
            if len(x) * _bytes_per_row(view, x[:1]) > _PASS_BYTES:
                return None
            passes = _Passes(logits, x)
            found = _pass(lambda rows: _Replay.apply(rows, passes), half)
        except Exception:  # whatever it was, there are still single operations
            return None
    same = all(
        bool((one - other).abs().max() <= _ROUNDING * one.abs().max())
        for one, other in zip(expected, found, strict=True)
    )
    return passes if same else None


def _pass(logits, x):
    out = logits(x)
    return out.detach(), torch.autograd.grad(out, x, torch.ones_like(out))[0]


class _Passes:
    """A forward and a backward pass over a batch of one size, each as a CUDA graph."""

    def __init__(self, logits, x):
        self.x = x.detach().clone().requires_grad_()
        stream = torch.cuda.Stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        # Other threads may go on meanwhile.
        options = {"stream": stream, "capture_error_mode": "thread_local"}
        with torch.cuda.device(x.device), torch.cuda.stream(stream):
            for _ in range(3):  # libraries set themselves up
                _pass(logits, self.x)
            self.forward = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.forward, **options):
                self.logits = logits(self.x)
            self.slope = torch.ones_like(self.logits)
            self.backward = torch.cuda.CUDAGraph()
            pool = self.forward.pool()
            with torch.cuda.graph(self.backward, pool=pool, **options):
                # What the forward pass kept stays, for one gradient after another.
                (self.gradient,) = torch.autograd.grad(
                    self.logits, self.x, self.slope, retain_graph=True
                )
        torch.cuda.current_stream(x.device).wait_stream(stream)


class _Replay(torch.autograd.Function):
    """Passes over rows, by replaying those that were captured.

    Behind these rows, the batch is filled with what it held before.
    """

    @staticmethod
    def forward(ctx, x, passes):
        ctx.passes = passes
        passes.x.detach()[: len(x)].copy_(x)
        passes.forward.replay()
        return passes.logits.detach()[: len(x)].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        passes = ctx.passes
        passes.slope[: len(slope)].copy_(slope)
        passes.backward.replay()
        return passes.gradient[: len(slope)].clone(), None


class _OnlyReplayable(TorchDispatchMode):
    """Refuse, before they are done, operations that a graph does not replay.

    Those that draw random numbers, that make the host look at tensors, and that are done
    elsewhere than on the device.
    """

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._check(function, (args, kwargs))
        out = function(*args, **kwargs)
        self._check(function, out)
        return out

    def _check(self, function, values):
        tensors = (t for t in tree_leaves(values) if isinstance(t, torch.Tensor))
        elsewhere = any(tensor.device != self.device for tensor in tensors)
        known = function.namespace == "aten" and not _NOT_REPLAYED & set(function.tags)
        if elsewhere or not known:
            raise NotImplementedError(f"{function} is not captured")


# What a module may draw from besides torch, which draws by operations.
_NUMPY = np.random.mtrand._rand


def _random_states():
    """Return Python's and numpy's random states, to compare."""
    _, keys, *rest = _NUMPY.get_state()
    return random.getstate(), keys.tobytes(), rest


@contextmanager
def _unchanged(module):
    """Leave a module's buffers, and Python's and numpy's random states, as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    states = random.getstate(), _NUMPY.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        _NUMPY.set_state(states[1])
        with torch.no_grad():
            for buffer, kept in buffers:
                if not torch.equal(buffer, kept):
                    buffer.copy_(kept)
