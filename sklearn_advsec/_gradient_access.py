"""Access to a victim by its parameters: logits and gradients."""

import torch

from . import differentiable
from ._hardware import auto_batch_size, bfloat16_is_fast
from .victim._access import ScoreAccess

# What an infinite slope, as that of a square root at 0, counts as: enough to leave the
# point, and a number that can be divided by.
_STEEP = 1e3


class GradientAccess(ScoreAccess):
    """Know the victim's parameters: ask for logits and for gradients of the input.

    Parameters are those of :class:`LabelAccess`, and `precision`.

    Parameters
    ----------
    estimator : classifier
        The fitted victim; it, or each of its parts, needs a view in
        :mod:`sklearn_advsec.differentiable`.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        The rows under attack.
    precision : {"full", "mixed"}, default="full"
        With "mixed", gradients of networks are computed with channels last, and in
        bfloat16 where the hardware has such arithmetic. Answers never are.
    **budget : dict
        See :class:`LabelAccess`.

    Raises
    ------
    NoGradientError
        If the victim has no differentiable view.
    """

    knowledge = "gradient"

    def __init__(self, estimator, X, *, precision="full", **budget):
        super().__init__(estimator, X, **budget)
        # Gradients may come from a copy in another memory format and precision; answers
        # always come from the view as it is.
        self._gradient_view, self._autocast = self._view, False
        self.mixed = precision == "mixed" and self.exact
        if self.mixed:
            self._gradient_view = self._network_view()
            self._gradient_view.module.to(memory_format=torch.channels_last)
            self._autocast = bfloat16_is_fast(self.device)

    def _network_view(self):
        return differentiable.view(self.estimator, self.codec.columns)

    @property
    def exact(self):
        """Whether logits are computed just as the victim's own answers are."""
        return self._view.module is not None

    def auto_batch_size(self):
        """How many rows to send at once, so that a pass stays in the cache."""
        return auto_batch_size(self._view, self.x)

    def logits(self, x, rows=None):
        """Return the logits, of shape (n, n_classes)."""
        self._spend(x, rows)
        with torch.no_grad():
            return self._batched(self._view.logits, x)

    def gradient(self, x, rows, loss):
        """Return the logits, and the gradient of a loss with respect to the input.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Where.
        rows : tensor of int of shape (n,), or None
            Which rows under attack these stand for.
        loss : callable
            ``loss(logits, at)`` gives one value per row; `at` is the slice of `x` whose
            logits these are.

        Returns
        -------
        logits : tensor of shape (n, n_classes)
        gradient : tensor of the shape of `x`
        """
        logits, gradients = self.jacobian(
            x, rows, lambda logits, at: loss(logits, at)[:, None]
        )
        return logits, gradients[:, 0]

    def jacobian(self, x, rows, outputs):
        """Return the logits, and the gradients of several functions of them.

        A row that is sent counts as one query, however many gradients are taken there.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Where.
        rows : tensor of int of shape (n,), or None
            Which rows under attack these stand for.
        outputs : callable
            ``outputs(logits, at)`` gives values of shape (n_at, n_outputs); `at` is the
            slice of `x` whose logits these are.

        Returns
        -------
        logits : tensor of shape (n, n_classes)
        gradients : tensor of shape (n, n_outputs, ...)
        """
        self._spend(x, rows)
        parts = []
        for start in range(0, len(x), self.batch_size):
            at = slice(start, start + self.batch_size)
            parts.append(self._jacobian(x[at], at, outputs))
        if len(parts) == 1:
            return parts[0]
        logits, gradients = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(gradients)

    def _jacobian(self, x, at, outputs):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            with torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self._autocast
            ):
                logits = self._gradient_view.logits(x).to(x.dtype)
            values = outputs(logits, at).sum(0)
        # One backward pass each: as fast as batched ones, and every view allows them.
        gradients = [
            torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)[0]
            for value in values[:-1]
        ]
        gradients += torch.autograd.grad(values[-1], x, allow_unused=True)
        # None: nothing but constant columns.
        gradients = [torch.zeros_like(x) if g is None else g for g in gradients]
        gradients = (
            torch.stack(gradients, 1) if len(gradients) > 1 else gradients[0].unsqueeze(1)
        )
        # What is missing has no slope.
        return logits.detach(), gradients.nan_to_num(0.0, _STEEP, -_STEEP)
