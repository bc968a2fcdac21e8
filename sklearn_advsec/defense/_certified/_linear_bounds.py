"""Linear bounds of a network's outputs, propagated backwards (Zhang et al. 2018)."""

import torch
from torch import nn
from torch.nn import functional as F

from ._intervals import Interval, IntervalInterpreter, has_running_statistics, trace

_AFFINE_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
)
_RELU = {torch.relu, F.relu, "relu"}
_AFFINE = {torch.flatten, torch.reshape, F.avg_pool2d, "flatten", "view", "reshape"}


class Ball:
    """The inputs over which bounds hold, each row with its own radius.

    Parameters
    ----------
    x : tensor of shape (n, ...)
        The centres.
    radius : tensor of shape (n,)
        The radii.
    norm : {inf, 2, 1}
        The norm.
    lower, upper : tensor that broadcasts to `x`
        A box that inputs stay in. Only the norm inf makes use of it.
    """

    def __init__(self, x, radius, norm, lower=-torch.inf, upper=torch.inf):
        self.x, self.radius, self.norm = x, radius, norm
        reach = radius.reshape(-1, *[1] * (x.ndim - 1))
        low, high = (
            torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (lower, upper)
        )
        # A row that is outside of its box by a rounding stays inside of its ball.
        self.box = Interval(
            torch.maximum(x - reach, torch.minimum(low, x)),
            torch.minimum(x + reach, torch.maximum(high, x)),
        )

    def least(self, slope):
        """Return the least value of linear functions, (n, n_functions), on the ball."""
        slope = slope.flatten(2)
        if self.norm == torch.inf:
            middle, radius = self.box.middle.flatten(1), self.box.radius.flatten(1)
            inner = torch.einsum("nsd,nd->ns", slope, middle)
            return inner - torch.einsum("nsd,nd->ns", slope.abs(), radius)
        dual = {2: 2, 1: torch.inf}[self.norm]
        length = torch.linalg.vector_norm(slope, ord=dual, dim=2)
        inner = torch.einsum("nsd,nd->ns", slope, self.x.flatten(1))
        return inner - self.radius[:, None] * length


class LinearBounds:
    """CROWN for a chain of affine layers and ReLUs.

    Each ReLU is bounded from above by the chord, and from below by 0 or the identity,
    whichever is nearer; these lines are pulled back through the layers, and evaluated on
    the ball at the end only.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.

    Raises
    ------
    TypeError
        If the module is no such chain.
    """

    def __init__(self, module):
        self.graph = trace(module)
        self.stages = _stages(self.graph)

    def n_hidden(self, x):
        """Return how many ReLUs a row passes."""
        return sum(int(v[0].numel()) for v in self._values(x[:1])[:-1])

    def margins(self, ball, labels, method="crown"):
        """Lower bounds of how far the logit of a label is above each other one.

        Parameters
        ----------
        ball : Ball
            Where.
        labels : tensor of int64, shape (n,)
            Which class is to win.
        method : {"crown", "crown-ibp"}
            How the ReLUs' inputs are bounded: by linear bounds too, or by intervals.

        Returns
        -------
        bounds : tensor of shape (n, n_classes)
        """
        values = self._values(ball.x)
        before = self._relu_inputs(ball, values, method)
        out = values[-1]
        n, width = len(out), out[0].numel()
        if width == 1:  # one logit: of the second class, against 0
            sign = 2.0 * labels.to(out) - 1
            least = self._least(ball, before, sign[:, None, None])
            return least * torch.stack([labels == 1, labels == 0], 1)
        eye = torch.eye(width, dtype=out.dtype, device=out.device)
        margins = eye[labels][:, None] - eye
        return self._least(ball, before, margins.reshape(n, width, *out.shape[1:]))

    def _relu_inputs(self, ball, values, method):
        """Bound what goes into each ReLU."""
        if method == "crown-ibp":
            return _RecordRelus(self.graph).record(ball.box)
        before = []
        for value in values[:-1]:
            width = value[0].numel()
            eye = torch.eye(width, dtype=value.dtype, device=value.device)
            eye = eye.reshape(width, *value.shape[1:])
            spec = eye.expand(len(value), *eye.shape)
            lower = self._least(ball, before, spec)
            upper = -self._least(ball, before, -spec)
            before.append(
                Interval(lower.reshape(value.shape), upper.reshape(value.shape))
            )
        return before

    def _least(self, ball, before, slope):
        """Bound linear functions (n, n_functions, ...) of what a stage gives."""
        n, n_functions = slope.shape[:2]
        constant = slope.new_zeros(n, n_functions)
        for i in range(len(before), -1, -1):
            if i < len(before):
                slope, added = _through_relu(slope, before[i])
                constant = constant + added
            slope, added = self._through_affine(i, slope, before, ball)
            constant = constant + added
        return ball.least(slope) + constant

    def _through_affine(self, i, slope, before, ball):
        """Pull linear functions back through stage `i`, by its own backward pass."""
        shape = before[i - 1].lower.shape[1:] if i else ball.x.shape[1:]
        flat = slope.flatten(0, 1)
        with torch.enable_grad():
            zeros = slope.new_zeros(len(flat), *shape).requires_grad_()
            value = self.stages[i](zeros)
            flat = flat.reshape(value.shape)
            (back,) = torch.autograd.grad(value, zeros, flat)
        added = (value.detach() * flat).flatten(1).sum(1)
        return back.reshape(*slope.shape[:2], *shape), added.reshape(slope.shape[:2])

    def _values(self, x):
        """Return what each stage gives for rows."""
        values = []
        with torch.no_grad():
            for stage in self.stages:
                values.append(stage(values[-1].relu() if values else x))
        return values


def _through_relu(slope, box):
    """Pull linear functions back through a ReLU whose input is in a box."""
    lower, upper = box.lower[:, None], box.upper[:, None]
    on, off = lower >= 0, upper <= 0
    chord = upper / (upper - lower).clamp_min(torch.finfo(upper.dtype).tiny)
    high = torch.where(on, 1.0, torch.where(off, 0.0, chord))
    low = torch.where(on, 1.0, torch.where(off, 0.0, (upper > -lower).to(upper)))
    offset = torch.where(on | off, 0.0, -lower * chord)
    negative = slope.clamp_max(0)
    added = (negative * offset).flatten(2).sum(2)
    return slope.clamp_min(0) * low + negative * high, added


class _RecordRelus(IntervalInterpreter):
    def record(self, box):
        self.found = []
        self.run(box)
        return self.found

    def run_node(self, node):
        if _is_relu(node, self.module):
            self.found.append(self.env[node.args[0]])
        return super().run_node(node)


def _is_relu(node, graph):
    if node.op == "call_module":
        return isinstance(graph.get_submodule(node.target), nn.ReLU)
    return node.target in _RELU


def _stages(graph):
    """Split a chain of layers at its ReLUs, into affine functions of one tensor."""
    stages, current = [], []
    previous = None
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            previous = node
            continue
        if node.op == "output":
            break
        inputs = node.all_input_nodes
        sizes = node.op == "call_method" and node.target == "size"
        if sizes or any(n.target == "size" for n in inputs):
            raise _no_chain(node, "use flatten(1) in place of view(x.size(0), -1)")
        if inputs != [previous]:
            raise _no_chain(node, "it is no chain")
        if _is_relu(node, graph):
            stages.append(_Affine(graph, current))
            current = []
        elif _is_affine(node, graph):
            current.append(node)
        else:
            raise _no_chain(node, "it is neither affine nor a ReLU")
        previous = node
    return [*stages, _Affine(graph, current)]


def _is_affine(node, graph):
    if node.op == "call_module":
        layer = graph.get_submodule(node.target)
        return isinstance(layer, _AFFINE_LAYERS) or has_running_statistics(layer)
    return node.target in _AFFINE


def _no_chain(node, reason):
    return TypeError(
        f"Linear bounds take chains of affine layers and ReLUs; {node.target} ends it: "
        f"{reason}. method='ibp' knows more layers."
    )


class _Affine:
    """A few nodes of a graph, one after another, as a function."""

    def __init__(self, graph, nodes):
        self.steps = []
        for node in nodes:
            rest, kwargs = node.args[1:], node.kwargs
            if node.op == "call_module":
                self.steps.append(graph.get_submodule(node.target))
            elif node.op == "call_method":
                self.steps.append(_method(node.target, rest, kwargs))
            else:
                self.steps.append(_function(node.target, rest, kwargs))

    def __call__(self, x):
        for step in self.steps:
            x = step(x)
        return x


def _method(name, rest, kwargs):
    return lambda x: getattr(x, name)(*rest, **kwargs)


def _function(function, rest, kwargs):
    return lambda x: function(x, *rest, **kwargs)
