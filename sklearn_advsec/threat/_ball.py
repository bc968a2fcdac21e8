"""Lp balls: norms, radii, projections, steps and random points.

All of it is batched torch; it keeps the precision and the device of its input, and works
on perturbations `delta` of any shape (n_rows, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from .._rows import is_dataframe
from ._features import SCALES, did_you_mean, spread
from ._projection import fill_l2, project, project_weighted

_NAMES_OF_NORMS = {"inf": np.inf, "linf": np.inf, "l2": 2, "l1": 1, "l0": 0}
UNITS = ("feature", *SCALES)


def as_norm(norm, allowed=(np.inf, 2, 1, 0)):
    """Give a norm as a number, whichever way it is written.

    Parameters
    ----------
    norm : {np.inf, 2, 1, 0, "inf", "linf", "l2", "l1", "l0"}
        The norm.
    allowed : tuple, default=(np.inf, 2, 1, 0)
        The norms that the caller can work with.

    Returns
    -------
    norm : {np.inf, 2, 1, 0}

    Raises
    ------
    ValueError
        If it is another norm; the message lists the choices.
    """
    found = _NAMES_OF_NORMS.get(norm.lower()) if isinstance(norm, str) else norm
    if isinstance(found, (int, float, np.number)) and not isinstance(found, bool):
        for known in allowed:
            if found == known:
                return known
    choices = ", ".join("np.inf" if n == np.inf else str(n) for n in allowed)
    texts = ", ".join(repr(text) for text, n in _NAMES_OF_NORMS.items() if n in allowed)
    raise ValueError(f"norm must be one of {choices} (or {texts}); got {norm!r}.")


def resolve_eps(eps, X, *, unit="feature", norm=np.inf):
    """Give `eps` as one number, or one number per feature, in the features' own units.

    Attacks call it in `fit`, with the data that they are given there, and work with what
    it returns.

    Parameters
    ----------
    eps : float, array-like of shape (n_features,), dict or Series
        The radius. A dict (or a Series) gives it by the name of the column, or by its
        position in a plain array; a column that is not named may not change.
    X : {DataFrame, ndarray} of shape (n_rows, ...)
        The data. Its missing values are left aside.
    unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of: 1 in each feature's own unit, or the feature's
        standard deviation, range, or distance between its quartiles in `X`. A feature of
        one value may then not change. Where rows are images, all pixels have one unit.
    norm : {np.inf, 2, 1, 0}, default=np.inf
        For 0, `eps` is a number of features, which has neither names nor units.

    Returns
    -------
    eps : float or ndarray of float64
        What :class:`LpBall` takes; an array has the shape that was given, or that of a
        row of features.

    Raises
    ------
    ValueError
        If a name is unknown or of a column that holds no numbers, or a value is negative
        or not finite.
    """
    if unit not in UNITS:
        raise ValueError(f"eps_unit must be one of {UNITS}; got {unit!r}.")
    named = _is_named(eps)
    if as_norm(norm) == 0 and (named or unit != "feature"):
        raise ValueError(
            "eps is a number of features for norm=0: give one number, and "
            "eps_unit='feature'."
        )
    if not named:
        eps = _check_eps(eps)
        if unit == "feature":
            return eps if eps.ndim else float(eps)
    numbers = _numeric_columns(X)
    if named:
        columns = list(X.columns) if is_dataframe(X) else list(range(X.shape[1]))
        eps = _by_column(eps, columns)
        for j in np.flatnonzero(eps):
            if numbers[j] is None:
                raise ValueError(
                    f"eps names the column {columns[j]!r}, which holds no numbers."
                )
    if unit == "feature":
        return eps
    if np.ndim(X) > 2:
        return eps * spread(np.asarray(X, dtype=np.float64).ravel(), unit)
    units = np.array([0.0 if x is None else spread(x, unit) for x in numbers])
    try:
        return np.asarray(eps * units)
    except ValueError:
        raise ValueError(
            f"eps has shape {np.shape(eps)}, and X has {len(units)} columns: give one "
            "number or one per column."
        ) from None


def _is_named(eps):
    """Whether `eps` goes by names: a dict, or a pandas Series."""
    return hasattr(eps, "keys") and hasattr(eps, "__getitem__")


def _by_column(eps, columns):
    """Return what a dict or Series says of each column; 0 where it says nothing."""
    values = np.zeros(len(columns))
    at = {name: j for j, name in enumerate(columns)}
    for name in eps.keys():  # noqa: SIM118 (a Series iterates over its values)
        if name not in at:
            raise ValueError(
                f"eps names the unknown column {name!r}{did_you_mean(name, columns)}."
            )
        values[at[name]] = _check_eps(eps[name])
    return values


def _check_eps(eps):
    """Return `eps` as an array of numbers that a radius can have."""
    try:
        values = np.asarray(eps)
        numbers = values.dtype.kind in "iuf"
    except ValueError:  # ragged
        numbers = False
    if not numbers:
        raise ValueError(f"eps must be a number, or one number per feature; got {eps!r}.")
    values = values.astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"eps must be finite and not negative; got {eps!r}.")
    return values


def _numeric_columns(X):
    """Return the numbers of each column, or None where it holds something else."""
    if not is_dataframe(X):
        return list(np.asarray(X, dtype=np.float64).T) if np.ndim(X) == 2 else []
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    columns = [X.iloc[:, j] for j in range(X.shape[1])]
    return [
        column.to_numpy(np.float64, na_value=np.nan)
        if is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype)
        else None
        for column in columns
    ]


class LpBall:
    r"""The perturbations whose norm is at most `eps`.

    With one number `eps`, the ball is :math:`\|\delta\|_p \le \epsilon`. With one value
    per feature it is :math:`\|\delta / \epsilon\|_p \le 1`: for ``norm=np.inf`` every
    feature has its own bound, for 1 and 2 the ball is stretched along the features, and a
    feature whose value is 0 may not change. For ``norm=0``, `eps` is the number of
    features that may change, by any amount.

    Parameters
    ----------
    norm : {np.inf, 2, 1, 0, "inf", "l2", "l1", "l0"}
        The norm.
    eps : float, array-like of shape (n_features,), dict or Series
        The radius, in the units of the features. An array must broadcast to a row. A
        dict or Series goes by the names of `columns`; one that is not named may not
        change.
    columns : list, default=None
        The names of the features, in order; needed for an `eps` by name.

    Raises
    ------
    ValueError
        If `norm` is not one of the four, if `eps` is negative, NaN or infinite or names
        an unknown column, or, for norm 0, if `eps` is no whole number.

    See Also
    --------
    Box : The range of the data.
    FeatureConstraints : Units, steps and rules of a table's columns.

    References
    ----------
    .. [1] J. Duchi et al., "Efficient projections onto the l1-ball for learning in high
       dimensions", ICML 2008 (Figure 1: projection by sorting).
    .. [2] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
       image classifiers", ICML 2021, arXiv:2103.01208 (Section 3: why the projection has
       to be onto the intersection of ball and box).

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.threat import LpBall
    >>> ball = LpBall(norm=1, eps=1.0)
    >>> ball.project(torch.tensor([[2.0, 1.0, 0.0]]))
    tensor([[1., 0., 0.]])
    """

    def __init__(
        self,
        norm: float | Literal["inf", "l2", "l1", "l0"],
        eps: ArrayLike | Mapping[Any, float],
        columns: list[Any] | None = None,
    ) -> None:
        self.norm = as_norm(norm)
        if _is_named(eps):
            if columns is None:
                raise ValueError("eps goes by names: give the columns that these are of.")
            eps = _by_column(eps, list(columns))
        self.eps = _check_eps(eps)
        if self.norm == 0 and (self.eps.ndim or self.eps % 1):
            raise ValueError(
                "eps must be one whole number for norm=0 (how many features may change); "
                f"got {eps!r}."
            )

    def scale(self, delta: torch.Tensor) -> torch.Tensor:
        """Give `eps` as a tensor that broadcasts to `delta`.

        Parameters
        ----------
        delta : tensor of shape (n_rows, ...)
            Gives the precision, device and shape.

        Returns
        -------
        eps : tensor
            Of shape () or of the shape of one row.
        """
        eps = torch.as_tensor(self.eps, dtype=delta.dtype, device=delta.device)
        if eps.ndim and eps.shape != delta.shape[1:]:
            try:
                eps = eps.expand(delta.shape[1:])
            except RuntimeError:
                raise ValueError(
                    f"eps has shape {tuple(self.eps.shape)}, which does not fit rows of "
                    f"shape {tuple(delta.shape[1:])}: give one number or one per feature."
                ) from None
        return eps

    def size(self, delta: torch.Tensor) -> torch.Tensor:
        """Norm of each perturbation, in units of `eps` where `eps` is an array.

        Parameters
        ----------
        delta : tensor of shape (n_rows, ...)
            Perturbations.

        Returns
        -------
        size : tensor of shape (n_rows,)
            `delta` is in the ball where this is at most `eps` (1 if `eps` is an array).
        """
        flat = delta.flatten(1)
        eps = self.scale(delta)
        if eps.ndim:
            eps = eps.flatten()
            # 0 / 0 is a feature that may not change and did not.
            flat = torch.where(flat == 0, flat, flat / eps)
        return torch.linalg.vector_norm(flat, ord=self.norm, dim=1)

    def project(
        self,
        delta: torch.Tensor,
        lower: torch.Tensor | None = None,
        upper: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Nearest perturbation (in the Euclidean sense) inside the ball and the box.

        The projection is exact, also onto the intersection with the box: clipping after
        a projection onto the ball alone would waste a part of the budget.

        Parameters
        ----------
        delta : tensor of shape (n_rows, ...)
            Perturbations.
        lower, upper : tensor that broadcasts to `delta`, optional
            The box for the perturbation; ``lower <= 0 <= upper``.

        Returns
        -------
        projected : tensor of the shape of `delta`
            A new tensor.
        """
        eps = self.scale(delta)
        if self.norm == np.inf and eps.ndim:
            delta = torch.clamp(delta, -eps, eps)
            return delta if lower is None else torch.clamp(delta, lower, upper)
        if not eps.ndim:
            radius = eps.long() if self.norm == 0 else eps
            return project(delta, self.norm, radius, lower, upper)
        reach = torch.full_like(delta, math.inf)
        if lower is not None:
            reach = torch.where(delta < 0, -lower, upper).expand_as(delta)
        shrunk = project_weighted(
            delta.abs().flatten(1), reach.flatten(1), eps.flatten(), self.norm
        )
        return shrunk.reshape(delta.shape).copysign(delta)

    def intersect(
        self, lower: torch.Tensor, upper: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the box narrowed to what the ball lets each feature do by itself.

        Parameters
        ----------
        lower, upper : tensor of shape (n_rows, ...)
            The box for the perturbation.

        Returns
        -------
        lower, upper : tensor of the same shape
            For ``norm=np.inf`` this box is the whole intersection.
        """
        eps = self.scale(lower)
        return torch.maximum(lower, -eps), torch.minimum(upper, eps)

    def random(
        self,
        like: torch.Tensor,
        generator: torch.Generator | None = None,
        lower: torch.Tensor | None = None,
        upper: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw one random perturbation per row.

        Uniform in the ball for the norms inf, 1 and 2, then projected into the box. For
        ``norm=0``, `eps` features chosen at random take uniform values in the box.

        Parameters
        ----------
        like : tensor of shape (n_rows, ...)
            Gives the shape, precision and device.
        generator : torch.Generator, optional
            Source of randomness.
        lower, upper : tensor that broadcasts to `like`, optional
            The box for the perturbation. Needed for ``norm=0``.

        Returns
        -------
        delta : tensor of the shape of `like`
            Perturbations inside ball and box.
        """
        eps = self.scale(like)

        def uniform(shape):
            draw = torch.rand(shape, generator=generator, dtype=like.dtype)
            return draw.to(like.device)

        if self.norm == np.inf:
            delta = (2 * uniform(like.shape) - 1) * eps
        elif self.norm == 0:
            if lower is None:
                raise ValueError("random points for norm=0 need a box: give bounds.")
            keep = uniform(like.shape).flatten(1).argsort(dim=1).argsort(dim=1)
            keep = (keep < int(self.eps)).reshape(like.shape)
            return torch.where(keep, lower + uniform(like.shape) * (upper - lower), 0)
        else:
            # Barthe et al. 2005: x / (sum |x|^p + e)^(1/p), with |x| of density
            # exp(-|x|^p) and e exponential, is uniform in the ball, for any dimension.
            flat = like.flatten(1)
            exponential = -torch.log1p(-uniform((len(flat), 1)))
            if self.norm == 1:
                x = (
                    -torch.log1p(-uniform(flat.shape))
                    * (uniform(flat.shape) - 0.5).sign()
                )
                radius = x.abs().sum(1, keepdim=True) + exponential
            else:
                x = torch.randn(flat.shape, generator=generator, dtype=like.dtype)
                x = x.to(like.device) / math.sqrt(2)
                radius = (x.square().sum(1, keepdim=True) + exponential).sqrt()
            delta = (x / radius).reshape(like.shape) * eps
        return delta if lower is None else self.project(delta, lower, upper)

    def ascent(
        self,
        gradient: torch.Tensor,
        delta: torch.Tensor,
        lower: torch.Tensor,
        upper: torch.Tensor,
    ) -> torch.Tensor:
        r"""Direction of steepest ascent, of length 1 in this norm.

        For inf it is the sign, for 2 the normalised gradient. For 1 the step goes to the
        few features with the largest gradient among those that can still move in the
        box (a twentieth of them, at least one), in proportion to the gradient. Where
        `eps` is an array the step is stretched like the ball.

        Parameters
        ----------
        gradient : tensor of shape (n_rows, ...)
            Gradient of what is to grow.
        delta, lower, upper : tensor of shape (n_rows, ...)
            Where the perturbation is, and its box.

        Returns
        -------
        direction : tensor of the shape of `gradient`
            The step for ``step_size`` 1.
        """
        if self.norm == np.inf:
            sign = gradient.sign()
            return sign * self.stretch(gradient) if self.eps.ndim else sign
        # In the coordinates delta / eps the ball is round; the gradient there is
        # gradient * eps.
        stretch = self.stretch(gradient)
        flat = (gradient * stretch).flatten(1)
        if self.norm == 2:
            length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        else:
            blocked = ((gradient > 0) & (delta >= upper)) | (
                (gradient < 0) & (delta <= lower)
            )
            flat = flat.masked_fill(blocked.flatten(1), 0)
            kept = max(1, flat.shape[1] // 20)
            threshold = flat.abs().topk(kept, dim=1).values[:, -1:]
            flat = torch.where(flat.abs() >= threshold, flat, 0)
            length = flat.abs().sum(1, keepdim=True)
        direction = flat / length.clamp_min(torch.finfo(flat.dtype).tiny)
        return direction.reshape(gradient.shape) * stretch

    def maximize(
        self, gradient: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor
    ) -> torch.Tensor:
        r"""The perturbation in ball and box that a linear function likes best.

        It is :math:`\arg\max \langle g, \delta \rangle`, in closed form: the whole reach
        along the sign for inf; the features with the largest gain per budget, one after
        another, for 1 and 0; and ``min(t |g|, reach)`` with the `t` that spends the
        budget for 2.

        Parameters
        ----------
        gradient : tensor of shape (n_rows, ...)
            The linear function.
        lower, upper : tensor of the shape of `gradient`
            The box for the perturbation; ``lower <= 0 <= upper``.

        Returns
        -------
        delta : tensor of the shape of `gradient`
            The maximiser.
        """
        eps = self.scale(gradient)
        reach = torch.where(gradient < 0, -lower, upper)
        reach = torch.where(gradient == 0, 0, reach)
        if self.norm == np.inf:
            return torch.minimum(reach, eps).copysign(gradient)
        slope, reach = gradient.abs().flatten(1), reach.flatten(1)
        if self.norm == 0:  # each feature that changes costs one, and moves all the way
            price = torch.ones_like(reach)
            size = reach * _fill_greedily(slope * reach, price, eps).round()
            return size.reshape(gradient.shape).copysign(gradient)
        # In the coordinates delta / unit the ball is round, with this radius.
        unit = eps.flatten() if eps.ndim else torch.ones_like(reach[0])
        radius = torch.ones_like(unit[0]) if eps.ndim else eps
        scaled_reach = torch.where(unit > 0, reach / unit.where(unit > 0, 1), 0)
        slope = slope * unit
        if self.norm == 1:
            size = _fill_greedily(slope, scaled_reach, radius)
        else:
            largest = slope.amax(1, keepdim=True)
            slope = slope / largest.where(largest > 0, 1)
            size = fill_l2(slope, radius, upper=scaled_reach)
        size = torch.minimum(size * unit, reach)
        return size.reshape(gradient.shape).copysign(gradient)

    def stretch(self, like: torch.Tensor) -> Any:
        """Per-feature factor of the ball: `eps` over its largest value, or 1.

        Parameters
        ----------
        like : tensor of shape (n_rows, ...)
            Gives the precision, device and shape.

        Returns
        -------
        factor : float or tensor of the shape of a row
            What a step is multiplied with.
        """
        if not self.eps.ndim:
            return 1.0
        largest = float(self.eps.max())
        return self.scale(like) / largest if largest > 0 else self.scale(like)

    @property
    def radius(self) -> float:
        """The largest `eps` of any feature: what step sizes are measured against."""
        return float(self.eps.max())

    def __repr__(self):
        return f"LpBall(norm={self.norm}, eps={self.eps.tolist()})"


def _fill_greedily(value, reach, budget):
    """Spend a budget per row on the entries of the largest value, each up to its own."""
    order = value.argsort(dim=1, descending=True)
    reach = reach.gather(1, order).clamp_max(
        torch.finfo(reach.dtype).max / reach.shape[1]
    )
    left = (budget - (reach.cumsum(1) - reach)).clamp_min(0)
    return torch.zeros_like(value).scatter(1, order, torch.minimum(reach, left))
