"""RayS (Chen and Gu 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from .._active_rows import column
from .._base import shared
from ._base import BoxAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_PRECISION = 1e-3


class RayS(BoxAttack):
    r"""RayS: the nearest corner direction of the cube, by labels alone.

    It looks for the signs :math:`d \in \{-1, 1\}^n` along which the decision boundary
    is nearest. The whole row, then its halves, quarters and so on are flipped, one block
    after another. A flip is tried at the radius that is to be beaten: one query, and
    only if it keeps the wanted label there a bisection for the new radius. It draws no
    random numbers, estimates no gradient and needs no first point.

    It minimises the :math:`L_\infty` distance and has no `eps`; a robust accuracy at
    some radius follows from `distance`. Moves are cut off at the box.

    With a target, it begins where a corner of the cube has the wanted label. On models of
    images few have, and :class:`HopSkipJump`, which begins at a row of the data, finds
    more.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    max_queries : int, default=1000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data" or tuple (lower, upper), default="data"
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
        If `bounds` is None: the first radius needs a range.

    See Also
    --------
    HopSkipJump : For the norm 2.
    SquareAttack : From scores.

    References
    ----------
    .. [1] J. Chen, Q. Gu, "RayS: a ray searching method for hard-label adversarial
       attack", arXiv:2006.12792 (Algorithms 2 and 3; a flip has to beat the radius by a
       thousandth of the range).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.evasion import RayS
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> attack = RayS(HistGradientBoostingClassifier(max_iter=20), max_queries=300)
    >>> result = attack.fit(X, y).run(X[:20])
    >>> bool(result.success.all()), bool(np.median(result.distance) < 0.2)
    (True, True)
    """

    knowledge = "label"

    _parameter_constraints = {
        **BoxAttack._parameter_constraints,
        **shared("goal", "target"),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        max_queries: int = 1000,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.max_queries = max_queries
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _search(self, active, state):
        n = int(np.prod(self.row_shape_))
        place = torch.arange(n, device=active.x.device)
        room = torch.maximum(active.upper, -active.lower).flatten(1).amax(1)
        active.slack = _PRECISION * room
        active.signs = torch.ones_like(active.x)
        active.radius = room + active.slack  # to be beaten
        active.low, active.high = torch.zeros_like(room), room
        active.bisects = torch.zeros_like(active.labels, dtype=torch.bool)
        active.level = torch.full_like(active.labels, -1)  # -1: nothing is flipped yet
        active.block = torch.zeros_like(active.labels)
        while True:
            active.give_up(active.affordable() < 1)
            if not len(active):
                return
            # Block number b of 2 ** level holds the places from b n / 2 ** level on.
            parts = (2 ** active.level.clamp_min(0))[:, None]
            inside = place * parts // n == active.block[:, None]
            inside = (inside & (active.level >= 0)[:, None]).reshape(active.x.shape)
            signs = torch.where(inside, -active.signs, active.signs)
            middle = (active.low + active.high) / 2
            size = torch.where(active.bisects, middle, active.radius - active.slack)
            delta = column(size, signs) * signs
            delta = torch.clamp(delta, active.lower, active.upper)
            x_adv = active.x + delta
            answer = active.ask(x_adv)
            active.improve(x_adv, answer)
            self._advance(active, signs, size, answer.reached, n)

    def _advance(self, active, signs, size, reached, n):
        """Narrow the bisection, begin one, or go on to the next block."""
        begins = ~active.bisects & reached
        active.high = torch.where(reached, size, active.high)
        active.low = torch.where(active.bisects & ~reached, size, active.low)
        active.low = torch.where(begins, 0, active.low)
        over = active.bisects & (active.high - active.low <= active.slack)
        active.radius = torch.where(over, active.high, active.radius)
        active.signs = torch.where(column(over, signs), signs, active.signs)
        fails = ~active.bisects & ~reached
        active.bisects = (active.bisects & ~over) | begins
        moves = over | fails
        active.block = active.block + (moves & (active.level >= 0))
        # The next level, and after single features the first one again.
        full = moves & (
            (active.level < 0) | (active.block >= 2 ** active.level.clamp_min(0))
        )
        last = (2 ** active.level.clamp_min(0)) >= n
        active.level = torch.where(
            full, torch.where(last, 0, active.level + 1), active.level
        )
        active.block = torch.where(full, 0, active.block)
