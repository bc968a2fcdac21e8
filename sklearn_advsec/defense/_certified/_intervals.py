"""Interval bounds of a network's outputs over a box of inputs (Gowal et al. 2018)."""

import operator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

# Functions that grow with their input, entry by entry or over a window: the box of the
# result is spanned by the images of its two corners.
_MONOTONE_LAYERS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.Softplus,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)
_MONOTONE_FUNCTIONS = {
    torch.relu,
    F.relu,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    torch.flatten,
    torch.sigmoid,
    torch.tanh,
    torch.reshape,
}
_MONOTONE_METHODS = {"relu", "flatten", "view", "reshape", "squeeze", "sigmoid", "tanh"}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)


class Interval(NamedTuple):
    """A box: each entry of a tensor between two bounds."""

    lower: torch.Tensor
    upper: torch.Tensor

    @property
    def middle(self):
        """Its centre."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self):
        """How far it reaches to each side."""
        return (self.upper - self.lower) / 2


def centred(middle, radius):
    """Return the box with a centre and a radius."""
    return Interval(middle - radius, middle + radius)


def trace(module):
    """Return a module's computation as a graph that shares its parameters.

    Raises
    ------
    TypeError
        If the module's `forward` depends on its input, or cannot be traced otherwise.
    """
    if isinstance(module, torch.fx.GraphModule):
        return module
    if not list(module.children()):  # a layer is traced whole where it is inside of one
        module = nn.Sequential(module)
    try:
        return torch.fx.symbolic_trace(module)
    except Exception as error:  # whatever a module's own code raises on a symbolic input
        raise TypeError(
            f"{type(module).__name__} cannot be traced for bounds: its forward must be "
            f"one fixed sequence of layers ({error})."
        ) from error


class IntervalInterpreter(torch.fx.Interpreter):
    """Run a traced module on an :class:`Interval`.

    Batch normalisation uses its running statistics, dropout does nothing: the bounds are
    those of the module in evaluation mode.
    """

    def call_module(self, target, args, kwargs):
        """Bound one layer."""
        layer, box = self.fetch_attr(target), args[0]
        if isinstance(layer, nn.Linear):
            radius = F.linear(box.radius, layer.weight.abs())
            return centred(layer(box.middle), radius)
        if isinstance(layer, _CONVOLUTIONS):
            radius = layer._conv_forward(box.radius, layer.weight.abs(), None)
            return centred(layer(box.middle), radius)
        if has_running_statistics(layer):
            return centred(*_normalised(layer, box))
        if isinstance(layer, _DROPOUTS):
            return box
        if isinstance(layer, _MONOTONE_LAYERS) and not _falls(layer):
            return Interval(layer(box.lower), layer(box.upper))
        raise unknown(type(layer).__name__)

    def call_function(self, target, args, kwargs):
        """Bound one function."""
        if not any(isinstance(arg, Interval) for arg in args):
            return target(*args, **kwargs)
        if target in _MONOTONE_FUNCTIONS:
            return self._at_corners(target, args, kwargs)
        if target in (operator.add, torch.add, operator.iadd) and not kwargs:
            return Interval(*(sum(_corner(arg, i) for arg in args) for i in (0, 1)))
        if target is operator.sub and not isinstance(args[1], Interval):
            return Interval(args[0].lower - args[1], args[0].upper - args[1])
        if target is F.leaky_relu and _slope(*args, **kwargs) >= 0:
            return self._at_corners(target, args, kwargs)
        if target is F.dropout and not _drops(*args, **kwargs):
            return args[0]
        if target is getattr:
            return getattr(args[0].lower, args[1])
        raise unknown(getattr(target, "__name__", str(target)))

    def call_method(self, target, args, kwargs):
        """Bound one method of the tensors."""
        if not isinstance(args[0], Interval):
            return super().call_method(target, args, kwargs)
        if target in ("size", "dim"):
            return getattr(args[0].lower, target)(*args[1:])
        if target in _MONOTONE_METHODS:

            def method(x, *rest, **more):
                return getattr(x, target)(*rest, **more)

            return self._at_corners(method, args, kwargs)
        raise unknown(f"Tensor.{target}")

    @staticmethod
    def _at_corners(function, args, kwargs):
        return Interval(
            *(function(_corner(args[0], i), *args[1:], **kwargs) for i in (0, 1))
        )


class _BeforeLast(IntervalInterpreter):
    """Stop before the last layer, whose weights the margins are made of."""

    def run_node(self, node):
        if node.next.op == "output" and self._is_linear(node):
            return self.env[node.args[0]]
        return super().run_node(node)

    def _is_linear(self, node):
        return node.op == "call_module" and isinstance(
            self.fetch_attr(node.target), nn.Linear
        )


def margin_bounds(graph, box, labels):
    """Lower bounds of how far the logit of a label is above each other one.

    The last layer is taken together with the difference of the logits (its elision,
    Section 3 of the paper), which is tighter than the difference of their bounds.

    Parameters
    ----------
    graph : GraphModule
        The traced module; it returns logits, or a single one for two classes.
    box : Interval
        Boxes of inputs, tensors of shape (n, ...).
    labels : tensor of int64, shape (n,)
        Which class is to win.

    Returns
    -------
    bounds : tensor of shape (n, n_classes)
        At the label itself it is 0.
    """
    runner = _BeforeLast(graph, garbage_collect_values=False)
    last = next(n for n in reversed(graph.graph.nodes) if n.op != "output")
    found = runner.run(box)
    if not runner._is_linear(last):
        found = with_two_columns(found)
        own = labels[:, None]
        bounds = found.lower.gather(1, own) - found.upper
        return bounds.scatter(1, own, 0.0)
    layer = runner.fetch_attr(last.target)
    weight, bias = with_two_rows(layer)
    weight = weight[labels][:, None] - weight  # (n, n_classes, n_hidden)
    bounds = torch.einsum("nkh,nh->nk", weight, found.middle)
    bounds = bounds - torch.einsum("nkh,nh->nk", weight.abs(), found.radius)
    return bounds + bias[labels][:, None] - bias


def with_two_rows(layer):
    """Return a last layer's weight and bias; those of one logit get a row of zeros."""
    weight = layer.weight
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
    if len(weight) == 1:
        weight = torch.cat([torch.zeros_like(weight), weight])
        bias = torch.cat([torch.zeros_like(bias), bias])
    return weight, bias


def with_two_columns(box):
    """Give a single logit a column of zeros in front."""
    if box.lower.ndim == 2 and box.lower.shape[1] > 1:
        return box
    flat = [bound.reshape(-1, 1) for bound in box]
    return Interval(*(torch.cat([torch.zeros_like(b), b], 1) for b in flat))


def unknown(name):
    """Return the error for a layer without bounds."""
    return TypeError(
        f"{name} has no interval bounds here. Known are linear and convolutional layers, "
        "batch normalisation, pooling, monotone activations, sums and reshaping."
    )


def has_running_statistics(layer):
    """Whether a layer is a batch normalisation whose statistics do not move."""
    return isinstance(layer, _NORMALISATIONS) and layer.running_var is not None


def _falls(layer):
    """Whether a negative slope makes an activation fall where it should grow."""
    return any(
        getattr(layer, name, 1) < 0 for name in ("negative_slope", "alpha", "beta")
    )


def _slope(x, negative_slope=0.01, inplace=False):
    """Return the slope of a call of `leaky_relu` below 0."""
    return negative_slope


def _drops(x, p=0.5, training=True, inplace=False):
    """Whether a call of `dropout` is at work (the function's default, in any mode)."""
    return training


def _corner(value, i):
    return value[i] if isinstance(value, Interval) else value


def _normalised(layer, box):
    shape = (1, -1, *[1] * (box.lower.ndim - 2))
    scale = torch.rsqrt(layer.running_var + layer.eps)
    scale = scale if layer.weight is None else scale * layer.weight
    middle = (box.middle - layer.running_mean.reshape(shape)) * scale.reshape(shape)
    if layer.bias is not None:
        middle = middle + layer.bias.reshape(shape)
    return middle, box.radius * scale.abs().reshape(shape)
