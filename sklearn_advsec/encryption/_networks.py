"""Reading networks of torch: a chain of affine modules and activations."""

import copy
import math
import operator

import torch
from scipy import sparse
from torch import fx, nn

from .._estimators import has_one_logit
from ._graph import Activation, Affine, Graph
from ._ready import PolynomialLayer

_AFFINE = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Conv1d,
    nn.Conv2d,
    nn.Flatten,
    nn.Linear,
    nn.Unflatten,
)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_ACTIVATIONS = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    torch.relu: "relu",
    nn.functional.relu: "relu",
    torch.tanh: "tanh",
    nn.functional.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    nn.functional.sigmoid: "sigmoid",
    nn.functional.silu: "silu",
    torch.square: "square",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "square": "square",
}
_SHAPES = {torch.flatten, "flatten", "reshape", "view", torch.reshape}
_LINKS = (nn.Softmax, nn.LogSoftmax)
_SOFTMAX = (
    torch.softmax,
    torch.log_softmax,
    nn.functional.softmax,
    nn.functional.log_softmax,
    "softmax",
    "log_softmax",
)
# As many rows of the identity are sent through a module at a time.
_ROWS = 1024


def read_net(net, row_shape, where):
    """Read a fitted skorch network whose module is a chain.

    Parameters
    ----------
    net : NeuralNet
        Fitted.
    row_shape : tuple of int
        Shape of a row as the net gets it.
    where : str
        Begins the messages of errors.

    Returns
    -------
    graph : Graph
        Its layers; a softmax at the end, which changes no label, is the link.
    """
    module = net.module_
    layers, link, shape = read_module(module, row_shape, where)
    n_outputs = math.prod(shape)
    if has_one_logit(net):
        return Graph(layers, "sigmoid")
    if not hasattr(net, "classes_"):
        return Graph(layers)
    return Graph(layers, link or ("softmax" if n_outputs > 1 else "sigmoid"))


def read_pretrained(classifier, row_shape, where):
    """Read a `PretrainedModule` as :func:`read_net` reads a net.

    Raises
    ------
    TypeError
        If the module ends in an activation, or wants channels last.
    """
    name = type(classifier.module).__name__
    if classifier.channels == "last":
        raise TypeError(f"{where}{name} takes channels last; give it channels first.")
    chain = nn.Sequential(classifier.module)  # a layer alone is a chain, too
    layers, link, shape = read_module(chain, row_shape, where)
    if isinstance(layers[-1], Activation) or (
        classifier.outputs == "probabilities" and link is None
    ):
        raise TypeError(f"{where}{name} has to end in logits, or a softmax of them.")
    return Graph(layers, link or ("softmax" if math.prod(shape) > 1 else "sigmoid"))


def read_module(module, row_shape, where):
    """Return the layers of a module, its link, and the shape of what it returns."""
    modes = {layer: layer.training for layer in module.modules()}
    try:
        traced = fx.GraphModule(module.eval(), _Tracer().trace(module))
    except Exception as error:
        raise TypeError(
            f"{where}the forward of {type(module).__name__} cannot be traced: {error}"
        ) from error
    finally:
        for layer, mode in modes.items():
            layer.training = mode
    layers, link, shape = [], None, tuple(row_shape)
    # Of what was computed, the shape; and of what asks for a shape, what it is told.
    before, shapes, sizes = None, {}, {}
    for position, node in enumerate(traced.graph.nodes):
        at = f"{where}operation {position} ({node.name}) of {type(module).__name__}: "
        if node.op == "placeholder":
            if before is not None:
                raise TypeError(f"{at}the network has several inputs.")
            before = node
            continue
        if node.op == "get_attr":
            raise TypeError(f"{at}parameters that are used by themselves are not read.")
        shapes[before] = shape
        if _is_size(node, shapes, sizes):
            sizes[node] = _size(node, shapes, sizes)
            continue
        taken = [n for n in node.all_input_nodes if n not in sizes]
        if taken != [before]:
            raise TypeError(
                f"{at}the network branches; only chains can be read, where each "
                "operation takes what the one before it returns."
            )
        if node.op == "output":
            break
        if link is not None:
            raise TypeError(f"{at}comes after the softmax, which has to be the last.")
        before = node
        if node.op == "call_module":
            part = traced.get_submodule(node.target)
            key = type(part)
        else:
            part, key = None, node.target
        if isinstance(part, PolynomialLayer):
            layers.append(Activation(part.polynomial.function, part.polynomial))
        elif _squares(node, key):
            layers.append(Activation("square"))
        elif key in _ACTIVATIONS:
            layers.append(Activation(_ACTIVATIONS[key]))
        elif isinstance(part, _NOTHING) or key in (nn.functional.dropout, "contiguous"):
            continue
        elif isinstance(part, _LINKS) or key in _SOFTMAX:
            dim = part.dim if part is not None else _argument(node, 1, "dim")
            if dim not in (-1, 1) or len(shape) != 1:
                raise TypeError(f"{at}a softmax has to be over the classes (dim=1).")
            link = "softmax"
        elif key in _SHAPES:
            shape = _shape_after(node, key, shape, sizes, at)
        elif isinstance(part, _AFFINE):
            layer, shape = _as_matrix(part, shape, at)
            layers.append(layer)
        else:
            name = type(part).__name__ if part is not None else str(node.target)
            raise TypeError(
                f"{at}{name} cannot be computed under encryption. What can: Linear, "
                "Conv, AvgPool, BatchNorm, Flatten, Dropout, and the activations square, "
                "ReLU, Tanh, Sigmoid and SiLU."
            )
    return layers, link, shape


class _Tracer(fx.Tracer):
    """Takes polynomials as one operation, as it does the modules of torch."""

    def is_leaf_module(self, module, name):
        """Whether a module is not looked into."""
        return isinstance(module, PolynomialLayer) or super().is_leaf_module(module, name)


def _squares(node, key):
    """Whether an operation is a square: x ** 2, x.pow(2) or x * x."""
    if key in (operator.pow, torch.pow, "pow"):
        return _argument(node, 1, "exponent") == 2
    return key in (operator.mul, torch.mul, "mul") and node.args[0] is node.args[1]


def _argument(node, position, name):
    """Return an argument of an operation, given by position or by name."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name)


def _is_size(node, shapes, sizes):
    """Whether an operation asks for a shape: x.size(0), x.shape, x.shape[0]."""
    if node.op == "call_method" and node.target == "size":
        return node.args[0] in shapes
    if node.target is getattr:
        return node.args[0] in shapes and node.args[1] == "shape"
    return node.target is operator.getitem and node.args[0] in sizes


def _size(node, shapes, sizes):
    """Return the shape that is asked for, of a batch of three rows."""
    if node.target is operator.getitem:
        return sizes[node.args[0]][node.args[1]]
    whole = (3, *shapes[node.args[0]])
    dim = _argument(node, 1, "dim") if node.target == "size" else None
    return whole if dim is None else whole[dim]


def _shape_after(node, key, shape, sizes, at):
    """Return the shape of a row after a change of shapes that keeps rows apart."""
    probe = torch.zeros(3, *shape)
    rest = list(fx.map_arg(node.args[1:], lambda n: sizes.get(n, n)))
    if key in ("view", "reshape", torch.reshape):
        rest = [[-1, *r[1:]] if isinstance(r, (tuple, list)) else r for r in rest]
    try:
        if isinstance(key, str):
            after = getattr(probe, key)(*rest, **node.kwargs)
        else:
            after = key(probe, *rest, **node.kwargs)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"{at}the change of shape is not understood: {error}") from error
    if len(after) != 3:
        raise TypeError(f"{at}mixes rows.")
    return tuple(after.shape[1:])


def _as_matrix(module, shape, at):
    """Return an affine module as a layer, by sending the identity through it."""
    double = copy.deepcopy(module).to("cpu", torch.float64).eval()
    try:
        layer, after = _by_identity(double, shape)
        probe = torch.linspace(-1, 2, 3 * math.prod(shape), dtype=torch.float64).sin()
        with torch.no_grad():
            wanted = double(probe.reshape(3, *shape)).reshape(3, -1).numpy()
        off = abs(layer(probe.reshape(3, -1).numpy()) - wanted).max()
    except (RuntimeError, ValueError, IndexError) as error:
        raise TypeError(f"{at}does not take rows one by one: {error}") from error
    # Normalisation by the batch's own mean is not affine.
    if not off <= 1e-8 * (1 + abs(wanted).max()):
        raise TypeError(f"{at}{type(module).__name__} is not affine, or mixes rows.")
    return layer, after


def _by_identity(double, shape):
    n_inputs = math.prod(shape)
    with torch.no_grad():
        zero = double(torch.zeros(1, *shape, dtype=torch.float64))
        columns = []
        for start in range(0, n_inputs, _ROWS):
            rows = torch.eye(n_inputs, dtype=torch.float64)[start : start + _ROWS]
            out = double(rows.reshape(-1, *shape)) - zero
            columns.append(sparse.csr_array(out.flatten(1).cpu().numpy()))
    matrix = sparse.vstack(columns).T.tocsr()
    return Affine(matrix, zero.flatten().cpu().numpy()), tuple(zero.shape[1:])
