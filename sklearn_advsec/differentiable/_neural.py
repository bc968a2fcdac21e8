"""Views of networks: scikit-learn's perceptrons and torch modules."""

import copy
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier

from ..exceptions import NoGradientError
from ._input_gradients import speed_up_input_gradients
from ._outputs import OutputReader, scores_of_output
from ._registry import register
from ._views import ClassifierView, binary_logits, constant

_ACTIVATIONS = {
    "identity": lambda x: x,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


@register(MLPClassifier)
def multilayer_perceptron(estimator):
    """View MLPClassifier; the logits are the last layer before its activation."""
    if estimator.out_activation_ == "logistic" and estimator.n_outputs_ > 1:
        raise NoGradientError(
            "MLPClassifier was fitted on several labels per row; attacks here need one."
        )
    outputs = multilayer_outputs(estimator)

    def logits(x):
        return binary_logits(outputs(x))

    return ClassifierView(
        estimator.classes_,
        predict_proba=lambda x: torch.softmax(logits(x), dim=1),
        logits=logits,
    )


def multilayer_outputs(estimator):
    """Return the last layer of a fitted perceptron, before its activation."""
    layers = [
        (constant(weight), constant(bias))
        for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True)
    ]
    activation = _ACTIVATIONS[estimator.activation]

    def outputs(x):
        for weight, bias in layers[:-1]:
            x = activation(x @ weight + bias)
        weight, bias = layers[-1]
        return x @ weight + bias

    return outputs


@register(torch.nn.Module)
def torch_module(module):
    """View a bare module, whose outputs are logits, or seem to be probabilities.

    A module does not say how many classes it knows: the width of its last layer is the
    answer, and is checked when the first rows come through.
    """
    width = output_width(module)
    return module_view(module, np.arange(max(width, 2)), OutputReader(module).logits)


@contextmanager
def explained_shapes(row_shape):
    """Add to what torch says of shapes that do not fit which rows there were."""
    try:
        yield
    except RuntimeError as error:
        if any(word in str(error) for word in ("shape", "size", "channels")):
            error.add_note(
                f"The module was given rows of shape {tuple(row_shape)}, as X has them. "
                "Images have their channels first, unless PretrainedModule(module, "
                "channels='last') says otherwise; of flat rows, a module that takes "
                "images makes some by torch.nn.Unflatten."
            )
        raise


def module_view(module, classes, to_logits, to_proba=None, before=None):
    """View a copy of a module, in evaluation mode and with frozen parameters.

    The module itself keeps its mode, its parameters and their gradients. Rows are passed
    on in their own shape, after a cast to the precision and the device of its parameters.

    Parameters
    ----------
    module : torch.nn.Module
        Where it returns several outputs, the first one counts, or the one called logits.
    classes : array-like of shape (n_classes,)
        What the columns of the logits stand for.
    to_logits : callable
        Maps the outputs to logits of shape (n, n_classes).
    to_proba : callable, optional
        Maps the outputs to probabilities; by default the softmax of the logits.
    before : callable, optional
        Maps a tensor of rows to what the module takes.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
    module = copy.deepcopy(module).eval().requires_grad_(False)
    speed_up_input_gradients(module)
    tensors = [*module.parameters(), *module.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
    # A network in half precision computes in it; steps of an attack would be lost there.
    dtype = torch.promote_types(like.dtype, torch.float32)
    name = type(module).__name__

    def outputs(x):
        x = x.to(like.device, like.dtype)
        with explained_shapes(x.shape[1:]):
            out = module(x if before is None else before(x))
        return scores_of_output(out, name).to(x.device, dtype)

    def logits(x):
        scores = to_logits(outputs(x))
        if scores.ndim != 2 or scores.shape[1] != len(classes):
            raise ValueError(
                f"{name} gives logits of shape {tuple(scores.shape)} "
                f"for {len(classes)} classes; name the classes that it was trained on, "
                "for each of its outputs one."
            )
        return scores

    def predict_proba(x):
        if to_proba is None:
            return torch.softmax(logits(x), dim=1)
        return to_proba(outputs(x))

    return ClassifierView(
        classes,
        predict_proba=predict_proba,
        logits=logits,
        dtype=dtype,
        precision=like.dtype,
        device=like.device,
        module=module,
    )


def regressor_view(module, to_values=None):
    """View a module that gives one number for each row, as the column of a regressor."""

    def column(out):
        values = out if to_values is None else to_values(out)
        return one_column(values, type(module).__name__)

    return module_view(module, ["value"], column)


def one_column(values, name):
    """Return what a module gave as a column, or raise where it is several."""
    values = values.reshape(len(values), -1)
    if values.shape[1] != 1:
        raise ValueError(
            f"{name} gives {values.shape[1]} values for a row; a regressor under attack "
            "predicts one."
        )
    return values


@contextmanager
def evaluation_mode(module):
    """Let a module be in evaluation mode inside, and every layer as before afterwards."""
    modes = {layer: layer.training for layer in module.modules()}
    try:
        yield module.eval()
    finally:
        for layer, mode in modes.items():
            layer.training = mode


def output_width(module):
    """Return how many outputs the last layer with parameters has."""
    width = None
    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        for name in ("out_features", "out_channels", "num_features"):
            width = getattr(layer, name, width) if own else width
    if width is None:
        parameters = list(module.parameters())
        if not parameters:
            raise NoGradientError(
                f"{type(module).__name__} has no parameters, so the number of its "
                "classes is unknown; wrap it as PretrainedModule(module, classes=...)."
            )
        width = parameters[-1].shape[0] if parameters[-1].ndim else 1
    return width
