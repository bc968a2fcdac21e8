"""Backward pass differentiable approximation, for steps without a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ._views import TransformerView, straight_through


def bpda(
    transform: Callable[..., Any], backward: Callable[..., Any] | None = None
) -> TransformerView:
    """Make a view of a transform without a useful gradient, given its backward pass.

    Quantising, filtering, compressing or adding noise to rows stops a gradient attack
    without making rows any harder to attack: the attack goes around it. The values of the
    view are those of `transform`, and its gradient is that of a smooth function nearby.

    Parameters
    ----------
    transform : callable
        Maps an array of rows to an array of transformed rows, such as the `transform`
        method of a fitted transformer.
    backward : callable, default=None
        Maps a tensor of rows to a tensor of the shape of the transformed rows, with a
        gradient; its values do not matter. None is the identity.

    Returns
    -------
    view : TransformerView
        For :func:`register`.

    See Also
    --------
    register : Adds a view that has gradients of its own.
    view : Looks one up.

    References
    ----------
    .. [1] A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of
       security", arXiv:1802.00420 (Section 4.1).

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_advsec import differentiable
    >>> view = differentiable.bpda(lambda X: np.round(X, 1))
    >>> x = torch.tensor([[0.12, 0.58]], requires_grad=True)
    >>> out = view.transform(x)
    >>> out.sum().backward()
    >>> out.detach().round(decimals=1), x.grad
    (tensor([[0.1000, 0.6000]]), tensor([[1., 1.]]))
    """
    owner = getattr(transform, "__self__", None)
    names = getattr(owner, "feature_names_in_", None)

    def call(x):
        rows = x.detach().cpu().numpy()
        if names is not None:  # fitted on a table: it expects its columns by name
            import pandas as pd

            rows = pd.DataFrame(rows, columns=names)
        rows = np.asarray(transform(rows))
        value = torch.as_tensor(rows).to(x)
        return straight_through(value, x if backward is None else backward(x))

    return TransformerView(call)
