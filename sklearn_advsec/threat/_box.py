"""Bounds that rows stay in: a box, given or learned from data."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from .._rows import RowCodec, check_rows


class Box:
    """The range that adversarial rows stay in.

    Parameters
    ----------
    bounds : "data", None or tuple (lower, upper)
        With "data", the range of each column of `X` (of all pixels together, where rows
        are images), widened to hold the row itself. None is no box. Numbers or arrays
        that broadcast to a row set it.
    X : {DataFrame, ndarray} of shape (n_rows, ...)
        The rows to learn from.

    Attributes
    ----------
    lower, upper : ndarray
        The box.

    Raises
    ------
    ValueError
        If `bounds` is none of these, or leaves out a row of `X`.

    See Also
    --------
    LpBall : A ball around each row.
    FeatureConstraints : Boxes and rules of a table's columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.threat import Box
    >>> X = np.array([[0.0, 10.0], [1.0, 30.0]])
    >>> Box("data", X).upper
    array([ 1., 30.])
    >>> Box((0, [5, 50]), X).upper
    array([ 5., 50.])
    """

    def __init__(
        self, bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None, X: ArrayLike
    ) -> None:
        X = check_rows(X, type(self).__name__, allow_nan=True)
        self.given = bounds is not None and not isinstance(bounds, str)
        if bounds is None:
            self.lower, self.upper = np.array(-np.inf), np.array(np.inf)
        elif self.given:
            self.lower, self.upper = _check_bounds(bounds, X.shape[1:])
            self.check(X)
        elif bounds != "data":
            raise ValueError(
                f"bounds must be 'data', None or a pair (lower, upper); got {bounds!r}."
            )
        else:
            rows = RowCodec(X).encode(X)
            axis = 0 if rows.ndim == 2 else None
            self.lower = np.fmin.reduce(rows, axis=axis)
            self.upper = np.fmax.reduce(rows, axis=axis)

    def check(self, X: Any) -> None:
        """Raise where given bounds do not hold the rows."""
        if not self.given:
            return
        codec = RowCodec(X)
        rows = codec.encode(X)
        slack = 1e-6 * np.maximum(np.abs(self.lower), np.abs(self.upper))
        outside = (rows < self.lower - slack) | (rows > self.upper + slack)
        if codec.mutable is not None:
            outside &= codec.mutable
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            raise ValueError(
                f"bounds exclude the data: row {at[0]} of X has {rows[at]:.4g} at "
                f"position {at[1:]}. Widen bounds, or use bounds='data' or None."
            )

    def perturbation_bounds(
        self, x: torch.Tensor, mutable: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the box for the perturbation of each row; it always holds 0.

        Parameters
        ----------
        x : tensor of shape (n_rows, ...)
            The rows.
        mutable : ndarray of bool, shape (n_columns,), optional
            Which columns may change at all.

        Returns
        -------
        lower, upper : tensor of the shape of `x`
        """
        box = []
        for bound, sign in ((self.lower, -1), (self.upper, 1)):
            bound = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
            reach = (sign * (bound - x)).clamp_min(0)
            # x + reach may come out one rounding beyond the bound.
            beyond = sign * (x + sign * reach - torch.where(reach > 0, bound, x)) > 0
            reach = torch.where(
                beyond, torch.nextafter(reach, torch.zeros_like(reach)), reach
            )
            if mutable is not None:
                frozen = torch.as_tensor(~mutable, device=x.device)
                reach = reach.masked_fill(frozen, 0.0)
            box.append(sign * torch.where(x.isnan(), 0.0, reach))  # missing stays missing
        return box


def _check_bounds(bounds, row_shape):
    try:
        lower, upper = (np.asarray(bound, dtype=np.float64) for bound in bounds)
        fits = np.broadcast_shapes(lower.shape, upper.shape, row_shape) == row_shape
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(
            "bounds must be 'data', None or a pair (lower, upper) of numbers or arrays "
            f"that broadcast to rows of shape {row_shape}; got {bounds!r}."
        )
    if not (lower <= upper).all():
        raise ValueError(f"bounds must have lower <= upper; got {bounds!r}.")
    return lower, upper
