"""What a view is: the methods of a fitted estimator, on torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from .._rows import writable


class TransformerView:
    """The ``transform`` of a fitted transformer as a differentiable function.

    Parameters
    ----------
    transform : callable
        Maps a tensor of rows to the tensor of transformed rows.

    See Also
    --------
    view : Makes one of a fitted transformer.
    ClassifierView : That of a classifier.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.differentiable import TransformerView
    >>> TransformerView(torch.log1p).transform(torch.zeros(1, 2))
    tensor([[0., 0.]])
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def compose(self, before: Any) -> Self:
        """Return this view behind `before`, a function of tensors."""
        return TransformerView(lambda x: self.transform(before(x)))


class ClassifierView:
    """The outputs of a fitted classifier as differentiable functions.

    A view offers the methods that its estimator has. `logits` is what attacks
    differentiate: one column per class, its argmax is the estimator's `predict`, and its
    softmax is `predict_proba` where the estimator has one that goes with `predict`. Left
    out, it is made from `decision_function`, or else from `predict_proba`.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)
        The estimator's ``classes_``.
    decision_function, predict_proba : callable, optional
        Map a tensor of rows to what the estimator's method of that name returns, in the
        same shape.
    logits : callable, optional
        Maps a tensor of rows to a tensor of shape (n_rows, n_classes). One of the three
        functions is needed.
    transform : callable, optional
        Maps a tensor of rows to the tensor of transformed rows, where the classifier is
        a transformer as well, such as `LinearDiscriminantAnalysis`.
    dtype : torch.dtype, default=torch.float64
        The precision of the tensors that the view takes and gives.
    device : torch.device or str, default="cpu"
        Where the estimator's parameters are.
    module : torch.nn.Module, optional
        The network behind the view, where the victim is one: the view owns this copy.
    precision : torch.dtype, optional
        The coarsest arithmetic in which the estimator itself computes, by which its
        answers are rounded; `dtype` by default.

    See Also
    --------
    view : Makes one of a fitted classifier.
    TransformerView : That of a transformer.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.differentiable import ClassifierView
    >>> threshold = ClassifierView([0, 1], decision_function=lambda x: x[:, 0] - 5)
    >>> threshold.logits(torch.tensor([[7.0, 1.0]]))
    tensor([[0., 2.]])
    """

    def __init__(
        self,
        classes: ArrayLike,
        *,
        decision_function: Callable[..., Any] | None = None,
        predict_proba: Callable[..., Any] | None = None,
        logits: Callable[..., Any] | None = None,
        transform: Callable[..., Any] | None = None,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        module: torch.nn.Module | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        if decision_function is None and predict_proba is None and logits is None:
            raise ValueError(
                "A ClassifierView needs decision_function, predict_proba or logits."
            )
        self.classes = classes
        self.decision_function = decision_function
        self.predict_proba = predict_proba
        self.logits = logits or self._default_logits
        self.transform = transform
        self.dtype = dtype
        self.device = torch.device(device)
        self.module = module
        self.precision = dtype if precision is None else precision

    def _default_logits(self, x):
        if self.decision_function is not None:
            return binary_logits(self.decision_function(x))
        return log_probability(self.predict_proba(x))

    def compose(self, before: Any) -> Self:
        """Return this view behind `before`, a function of tensors (a pipeline's steps).

        The steps before are constants on the CPU in float64, so that is what the whole
        takes; a network behind them moves its input to its own device and precision.
        """

        def behind(method):
            return None if method is None else lambda x: method(before(x))

        return ClassifierView(
            self.classes,
            decision_function=behind(self.decision_function),
            predict_proba=behind(self.predict_proba),
            logits=behind(self.logits),
            transform=behind(self.transform),
            precision=self.precision,
        )


def binary_logits(decision: torch.Tensor) -> torch.Tensor:
    """Give a decision of shape (n,) a column per class; leave (n, n_classes) as it is.

    ``softmax([0, d])`` is ``sigmoid(d)``, so a logistic model keeps its probabilities.

    See Also
    --------
    ClassifierView : What takes the logits.
    register : Adds a view.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.differentiable import binary_logits
    >>> binary_logits(torch.tensor([2.0, -1.0]))
    tensor([[ 0.,  2.],
            [ 0., -1.]])
    """
    if decision.ndim == 2 and decision.shape[1] > 1:
        return decision
    decision = decision.reshape(-1, 1)
    return torch.cat([torch.zeros_like(decision), decision], dim=1)


def log_probability(proba):
    """Logarithm of probabilities, finite at 0 and with a gradient everywhere."""
    return torch.log(proba.clamp_min(torch.finfo(proba.dtype).tiny))


def smoothed_log(proba, amount):
    """Logarithm of probabilities after adding `amount` to each, which keeps their order.

    Probabilities that are exactly 0 and 1 saturate a loss: its gradient is 0 whatever
    the gradient of the logits. A little smoothing gives it back.
    """
    return torch.log((proba + amount) / (1 + amount * proba.shape[1]))


def straight_through(value, surrogate):
    """Return `value` with the gradient of `surrogate`: for steps without a gradient."""
    return value.detach() + (surrogate - surrogate.detach())


def one_hot_votes(logits):
    """Give 1 to the class of the largest logit and 0 to the rest.

    The gradient is that of their softmax, a straight-through estimator.
    """
    votes = torch.zeros_like(logits)
    votes.scatter_(1, logits.detach().argmax(1, keepdim=True), 1.0)
    return straight_through(votes, torch.softmax(logits, dim=1))


def two_columns(positive):
    """Give the probability of the second class a column for the first."""
    return torch.stack([1 - positive, positive], dim=1)


def constant(array, dtype=torch.float64):
    """A fitted parameter as a tensor; shares memory with `array` where it can."""
    if issparse(array):
        array = array.toarray()
    return torch.as_tensor(writable(np.asarray(array)), dtype=dtype)
