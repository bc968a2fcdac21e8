"""Training networks for encryption: polynomials take the place of activations."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import nn

from .._sklearn import BaseEstimator, Interval, StrOptions, validate_parameter_constraints
from ._polynomials import PolynomialActivation

REPLACED = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu"}
# How many rows are looked at to fit the polynomials.
_ROWS = 2000


class PolynomialLayer(nn.Module):
    """A fitted polynomial as a module, which pulls its inputs into its range.

    Parameters
    ----------
    polynomial : PolynomialActivation
        Fitted.
    penalty : float
        Weight of the squared distance from the range; its gradient is added.
    """

    def __init__(self, polynomial, penalty):
        super().__init__()
        self.polynomial = polynomial
        self.penalty = penalty
        power = chebyshev.cheb2poly(polynomial.coef_)
        self.register_buffer("power", torch.as_tensor(power))

    def forward(self, x):
        """Evaluate the polynomial."""
        low, high = self.polynomial.bounds_
        if self.training:
            x = _PulledIn.apply(x, low, high, self.penalty)
        t = (2 * x - low - high) / (high - low)
        value = torch.zeros_like(t)
        for coef in self.power.to(t).flip(0):  # Horner
            value = value * t + coef
        return value


class _PulledIn(torch.autograd.Function):
    """The identity, with the gradient of a penalty on values out of a range."""

    @staticmethod
    def forward(ctx, x, low, high, penalty):
        ctx.save_for_backward(x)
        ctx.limits = low, high, penalty
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        low, high, penalty = ctx.limits
        # A tenth of the range is kept free at both ends.
        margin = 0.1 * (high - low)
        beyond = (x - high + margin).clamp_min(0) - (low + margin - x).clamp_min(0)
        return gradient + 2 * penalty * beyond / len(x), None, None, None


class EncryptionReadyTraining(BaseEstimator):
    """A skorch callback that ends a training with polynomials for activations.

    For the first epochs the network trains as it is. Then each ReLU, tanh, sigmoid and
    SiLU becomes a polynomial, fitted to what it has met so far or the square, and the
    training goes on with it; pre-activations that come near the ends of the range are
    pulled back [1]_. What is fitted so is computed under encryption as it is: nothing
    is approximated any more.

    Parameters
    ----------
    activation : {"polynomial", "square"}, default="polynomial"
        What takes the activations' place.
    degree : int, default=2
        Degree of the polynomials.
    epoch : int, default=5
        The epoch, counted from 1, at whose beginning it happens.
    penalty : float, default=0.1
        Weight of the squared distance from the range.

    See Also
    --------
    EncryptedClassifier : Compiles the network.
    PolynomialActivation : How polynomials are fitted.

    References
    ----------
    .. [1] E. Hesamifard, H. Takabi and M. Ghasemi, "CryptoDL: deep neural networks over
       encrypted data", arXiv:1711.05189 (Section 5).

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import make_classification
    >>> from sklearn_advsec.encryption import EncryptionReadyTraining
    >>> class Net(torch.nn.Sequential):
    ...     def __init__(self):
    ...         super().__init__(torch.nn.Linear(4, 8), torch.nn.ReLU(),
    ...                          torch.nn.Linear(8, 2))
    >>> net = NeuralNetClassifier(Net, criterion=torch.nn.CrossEntropyLoss, verbose=0,
    ...                           callbacks=[EncryptionReadyTraining(epoch=3)])
    >>> X, y = make_classification(n_features=4, random_state=0)
    >>> net = net.fit(X.astype("float32"), y)
    >>> type(net.module_[1]).__name__
    'PolynomialLayer'
    """

    _parameter_constraints = {
        "activation": [StrOptions({"polynomial", "square"})],
        "degree": [Interval(Integral, 2, 15, closed="both")],
        "epoch": [Interval(Integral, 1, None, closed="left")],
        "penalty": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        activation: Literal["polynomial", "square"] = "polynomial",
        *,
        degree: int = 2,
        epoch: int = 5,
        penalty: float = 0.1,
    ) -> None:
        self.activation = activation
        self.degree = degree
        self.epoch = epoch
        self.penalty = penalty

    def initialize(self) -> Self:
        """Check the parameters; skorch calls it before a training."""
        validate_parameter_constraints(
            self._parameter_constraints, self.get_params(), type(self).__name__
        )
        return self

    def on_train_begin(
        self, net: Any, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Do nothing yet."""

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Replace the activations, when it is time."""
        if len(net.history) == self.epoch:
            self._replace(net, dataset_train)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Say so where the training ended before its time."""
        if any(isinstance(part, tuple(REPLACED)) for part in net.module_.modules()):
            raise ValueError(
                f"EncryptionReadyTraining(epoch={self.epoch}) never came to its epoch: "
                f"the net trained for {len(net.history)}. Raise max_epochs, or lower "
                "epoch."
            )

    def _replace(self, net, dataset):
        parts = {
            name: part
            for name, part in net.module_.named_modules()
            if type(part) in REPLACED
        }
        seen = {name: [] for name in parts}
        hooks = [
            part.register_forward_pre_hook(
                lambda _, x, name=name: seen[name].append(x[0].detach().cpu().numpy())
            )
            for name, part in parts.items()
        ]
        rows = min(len(dataset), _ROWS)
        subset = torch.utils.data.Subset(dataset, range(rows))
        training = net.module_.training
        try:
            for batch in net.get_iterator(subset, training=False):
                net.evaluation_step(batch, training=False)
        finally:
            for hook in hooks:
                hook.remove()
            net.module_.train(training)
        for name, part in parts.items():
            function = REPLACED[type(part)]
            if self.activation == "square":
                function = "square"
            polynomial = PolynomialActivation(function, degree=self.degree, margin=0.5)
            polynomial.fit(np.concatenate([values.ravel() for values in seen[name]]))
            layer = PolynomialLayer(polynomial, self.penalty).to(net.device)
            parent = net.module_.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer)
