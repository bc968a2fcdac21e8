"""Simple black-box attack, SimBA (Guo et al. 2019)."""

from __future__ import annotations

from math import pi, sqrt
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._rows import image_shape_of
from ..._sklearn import Interval, StrOptions
from .._active_rows import column
from .._base import shared
from ._base import QueryAttack, climb

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class SimBA(QueryAttack):
    r"""SimBA: one basis vector after another, forwards or backwards, by scores.

    The vectors of an orthonormal basis are tried in a random order, without replacement:
    a step along one is kept if the margin falls, else the opposite step is tried. The
    basis is that of the pixels, or that of the cosine transform, whose low frequencies
    come first. Steps that the box would undo are not asked about.

    With `k` steps kept, the perturbation is not longer than ``step_size * sqrt(k)``.
    There is no `eps`: a robust accuracy at some radius follows from `distance`.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    max_queries : int, default=1000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    step_size : float, default=0.2
        Length of a step, in the units of the features.
    basis : {"pixel", "dct"}, default="pixel"
        The basis. "dct" needs images.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    max_total_queries : int, default=None
        Largest number of queries of a run; see :class:`EvasionAttack`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If ``basis="dct"`` and rows are no images.

    See Also
    --------
    SquareAttack : Mostly needs fewer queries.
    ZerothOrderOptimization : Estimates gradients by coordinates.

    References
    ----------
    .. [1] C. Guo, J. R. Gardner, Y. You, A. G. Wilson, K. Q. Weinberger, "Simple
       black-box adversarial attacks", arXiv:1905.07121 (Algorithm 1; Section 3.2 for the
       cosine basis. The margin of log-probabilities stands in for the probability).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import SimBA
    >>> X, y = load_digits(return_X_y=True)
    >>> attack = SimBA(LogisticRegression(max_iter=2000), step_size=4, max_queries=200)
    >>> result = attack.fit(X[:1000], y[:1000]).run(X[1000:1050], y[1000:1050])
    >>> bool(result.success.mean() > 0.9)
    True
    """

    knowledge = "score"
    norm = 2

    _parameter_constraints = {
        **QueryAttack._parameter_constraints,
        **shared("image_shape", "goal", "target", "random_state"),
        "step_size": [Interval(Real, 0, None, closed="neither")],
        "basis": [StrOptions({"pixel", "dct"})],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        max_queries: int = 1000,
        step_size: float = 0.2,
        basis: Literal["pixel", "dct"] = "pixel",
        image_shape: tuple[int, ...] | None = None,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.max_queries = max_queries
        self.step_size = step_size
        self.basis = basis
        self.image_shape = image_shape
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        if image_shape_of(row_shape, self.image_shape) is None and self.basis == "dct":
            raise ValueError(
                "basis='dct' needs images: give image_shape, or use basis='pixel'."
            )

    def _search(self, active, state):
        vectors, n_vectors = self._basis(active, state.generator)
        active.turn = torch.full_like(active.labels, -1)  # 2 i forwards, 2 i + 1 back

        def propose(step):
            # What follows a step kept is the next vector, not the way back.
            active.turn += 1 + (active.gained & (active.turn % 2 == 0) & (step > 1))
            candidate = active.delta.clone()
            at = torch.arange(len(active), device=active.turn.device)
            for _ in range(2 * n_vectors):
                turn = active.turn[at] % (2 * n_vectors)
                sign = self.step_size * (1 - 2 * (turn % 2))
                delta = active.delta[at]
                moved = delta + column(sign, delta) * vectors(turn // 2).to(delta)
                moved = torch.clamp(moved, active.lower[at], active.upper[at])
                candidate[at] = moved
                at = at[(moved == delta).flatten(1).all(1)]
                if not len(at):
                    return candidate
                active.turn[at] += 1
            return candidate

        climb(active, propose)

    def _basis(self, active, generator):
        """Return a function from positions to basis vectors, and how many there are."""
        shape = active.x.shape[1:]
        if self.basis == "pixel":
            movable = (active.upper > active.lower).flatten(1).any(0)
            places = torch.nonzero(movable).flatten().cpu()
            order = places[torch.randperm(len(places), generator=generator)]

            def pixel(i):
                vector = torch.zeros(len(i), active.x[0].numel())
                return vector.scatter(1, order[i.cpu(), None], 1.0).reshape(-1, *shape)

            return pixel, len(order)
        channels, height, width = image_shape_of(shape, self.image_shape)
        n = channels * height * width
        order = torch.randperm(n, generator=generator)
        frequency = torch.maximum(order // width % height, order % width)
        order = order[frequency.argsort(stable=True)]
        down, across = _cosines(height), _cosines(width)

        def wave(i):
            i = order[i.cpu()]
            planes = down[i // width % height, :, None] * across[i % width, None]
            vector = torch.zeros(len(i), channels, height * width, dtype=planes.dtype)
            place = (i // (height * width))[:, None, None].expand(-1, 1, height * width)
            return vector.scatter(1, place, planes.flatten(1)[:, None]).reshape(
                -1, *shape
            )

        return wave, n


def _cosines(n):
    """The orthonormal cosine basis (DCT-II) of length `n`, one vector per row."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n) + 0.5
    basis = torch.cos(pi * k * i / n) * sqrt(2 / n)
    basis[0] /= sqrt(2)
    return basis
