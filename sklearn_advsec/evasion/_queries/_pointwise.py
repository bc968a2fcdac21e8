"""Pointwise attack (Schott et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._rows import pixel_grid
from .._active_rows import ActiveRows
from .._base import shared
from ._base import StartingAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class PointwiseAttack(StartingAttack):
    r"""Pointwise attack: as few changed features as possible, by labels alone.

    From a point with the wanted label, features get their own value back while the label
    stays. Whole groups are tried first, the largest with half of what is changed, then
    groups half as large, down to single features: this takes far fewer queries than one
    by one. It ends when no single changed feature can be given back. This is repeated
    from other first points, and the row with the fewest changes stays. The first point is
    salt-and-pepper noise on a growing share of the features, or a row of the data seen in
    `fit`.

    With `image_shape`, or where rows are images, all channels of a pixel change
    together. It has no `eps`: `distance` is the number of changed features.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    max_queries : int, default=1000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    n_restarts : int, default=5
        How often to begin, with other noise and other groups, as far as the budget goes.
    start : {"noise", "data"}, default="noise"
        The first point: salt-and-pepper noise, or a near row of the data seen in
        `fit` that has the wanted label. The one follows where the other fails.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
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
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`, as numbers.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If `bounds` is None: the noise needs a range.

    See Also
    --------
    HopSkipJump : Small changes of all features.
    GreedyFeatureAttack : Knows categories and constraints.

    References
    ----------
    .. [1] L. Schott, J. Rauber, M. Bethge, W. Brendel, "Towards the first adversarially
       robust neural network model on MNIST", arXiv:1805.09190 (Appendix A.1, and its ten
       repetitions; the groups are ours).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.evasion import PointwiseAttack
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> victim = RandomForestClassifier(n_estimators=10, random_state=0)
    >>> result = PointwiseAttack(victim, max_queries=300).fit(X, y).run(X[:20])
    >>> bool(result.success.all()), bool(np.median(result.distance) <= 5)
    (True, True)
    """

    knowledge = "label"
    norm = 0

    _parameter_constraints = {
        **StartingAttack._parameter_constraints,
        **shared("start", "n_restarts", "image_shape"),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        max_queries: int = 1000,
        n_restarts: int = 5,
        start: Literal["noise", "data"] = "noise",
        image_shape: tuple[int, ...] | None = None,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
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
        self.n_restarts = n_restarts
        self.start = start
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
        pixel_grid(row_shape, self.image_shape)

    def _noise(self, active, generator, k, at):
        """Salt and pepper on a share of the pixels that grows to all of them."""
        channels, height, width = pixel_grid(self.row_shape_, self.image_shape)
        share = min(1.0, 2.0 ** ((k % 40) / 4) / (height * width))
        draws = torch.rand(2, 1, height * width, generator=generator)
        hit = (draws[0] < share).expand(channels, -1).reshape(active.x.shape[1:])
        salt = (draws[1] < 0.5).expand(channels, -1).reshape(active.x.shape[1:])
        delta = torch.where(salt.to(at.device), active.upper[at], active.lower[at])
        return torch.where(hit.to(at.device), delta, 0)

    def _search(self, active, state):
        rows = active.rows
        for _ in range(self.n_restarts):
            self._begin(active, state)
            self._give_back(active, state.generator)
            active = ActiveRows(state, rows[state.success[rows]])
            active.select(active.affordable() > 0)
            if not len(active):
                return

    def _give_back(self, active, generator):
        """Give changed pixels back, in groups, until none is left that could be."""
        channels, height, width = pixel_grid(self.row_shape_, self.image_shape)
        grid = (-1, channels, height * width)
        order = torch.randperm(height * width, generator=generator)
        back = order.argsort()

        # Which pixels differ, in the random order of the groups.
        active.differs = (active.delta != 0).reshape(grid).any(1)[:, order]
        active.count = active.differs.sum(1)
        active.group = (active.count // 2).clamp_min(1)
        active.passed = torch.zeros_like(active.group)  # changed pixels behind us
        active.helped = torch.zeros_like(active.labels, dtype=torch.bool)
        while True:
            active.give_up(active.affordable() < 1)
            if not len(active):
                return
            rank = active.differs.cumsum(1) - 1 - active.passed[:, None]
            chosen = active.differs & (rank >= 0) & (rank < active.group[:, None])
            stays = (~chosen).to(active.x.dtype)[:, back, None].mT
            delta = (active.delta.reshape(grid) * stays).reshape(active.x.shape)
            x_adv = active.x + delta
            answer = active.ask(x_adv)
            kept = answer.reached
            at = torch.nonzero(kept).flatten()
            if len(at):
                active.improve(x_adv, answer)
                active.delta[at] = delta[at]
                active.differs[at] &= ~chosen[at]
                active.count = active.differs.sum(1)
            active.helped |= kept
            active.passed = torch.where(kept, active.passed, active.passed + active.group)
            # At the end: smaller groups, or once more through the single ones.
            end = active.passed >= active.count
            done = end & (active.group == 1) & ~active.helped
            smaller = torch.minimum(active.group, active.count + 1) // 2
            active.group = torch.where(end, smaller.clamp_min(1), active.group)
            active.passed = torch.where(end, 0, active.passed)
            active.helped &= ~end
            active.give_up(done)
