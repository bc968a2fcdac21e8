"""Views of skorch networks; imported only once skorch is."""

import math

import torch
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from torch import nn

from ..exceptions import NoGradientError
from ._neural import module_view, regressor_view
from ._registry import register
from ._views import binary_logits, log_probability, two_columns


@register(NeuralNetClassifier)
def neural_net_classifier(net):
    """View NeuralNetClassifier; the criterion says what the module's outputs are."""
    to_logits, to_proba = outputs_to_logits(net)
    return module_view(net.module_, net.classes_, to_logits, to_proba)


@register(NeuralNetBinaryClassifier)
def neural_net_binary_classifier(net):
    """View NeuralNetBinaryClassifier, whose threshold moves the logit."""
    to_logits, to_proba = outputs_to_logits(net)
    shift = torch.tensor(float(net.threshold)).logit().item()
    if not math.isfinite(shift):
        raise NoGradientError(
            f"threshold={net.threshold} gives every row to one class, so there is "
            "nothing to attack."
        )

    def shifted(out):
        return to_logits(out) - torch.tensor([0.0, shift]).to(out)

    return module_view(net.module_, net.classes_, shifted, to_proba)


@register(NeuralNetRegressor)
def neural_net_regressor(net):
    """View NeuralNetRegressor of one target."""
    _check_infer(net)
    nonlinearity = net.predict_nonlinearity
    return regressor_view(net.module_, nonlinearity if callable(nonlinearity) else None)


def _check_infer(net):
    if type(net).infer not in (NeuralNet.infer, NeuralNetBinaryClassifier.infer):
        raise NoGradientError(
            f"{type(net).__name__} overrides infer(), so its module alone does not say "
            "what it predicts. Register a view with "
            "sklearn_advsec.differentiable.register."
        )


def outputs_to_logits(net):
    """Return the functions that make logits and probabilities of the module's outputs."""
    _check_infer(net)
    criterion = getattr(net.criterion_, "_orig_mod", net.criterion_)
    nonlinearity = net.predict_nonlinearity
    if callable(nonlinearity):

        def proba(out):
            return nonlinearity(_flat(net, out))

        return lambda out: log_probability(proba(out)), proba

    auto = nonlinearity == "auto"
    if isinstance(criterion, nn.CrossEntropyLoss):
        # Without a nonlinearity, predict_proba is not what it says; the logits are.
        return binary_logits, _softmax if auto else _identity
    if isinstance(criterion, nn.NLLLoss):
        return log_probability, _identity
    if isinstance(criterion, nn.BCEWithLogitsLoss) and auto:
        return binary_logits, lambda out: two_columns(torch.sigmoid(out.reshape(-1)))
    if isinstance(criterion, nn.BCELoss) and auto:
        return (
            lambda out: log_probability(two_columns(out.reshape(-1))),
            lambda out: two_columns(out.reshape(-1)),
        )
    raise NoGradientError(
        f"With criterion={type(criterion).__name__} and predict_nonlinearity="
        f"{nonlinearity!r} nothing says whether the module's outputs are logits or "
        "probabilities. Set predict_nonlinearity to the function that makes "
        "probabilities of them, for example functools.partial(torch.softmax, dim=1)."
    )


def _flat(net, out):
    """Give outputs the shape in which the net hands them to its nonlinearity."""
    return out.reshape(-1) if isinstance(net, NeuralNetBinaryClassifier) else out


def _identity(out):
    return out


def _softmax(out):
    return torch.softmax(out, dim=-1)
