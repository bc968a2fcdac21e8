"""One-pixel attack (Su, Vargas and Sakurai 2017)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._rows import pixel_grid
from ..._sklearn import Interval
from .._active_rows import Answer, column
from .._base import shared
from ._base import BoxAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class OnePixel(BoxAttack):
    r"""One-pixel attack: differential evolution of a few pixels, by scores.

    A candidate is `n_pixels` positions and, for each, a value per channel. In every
    generation each candidate :math:`z_i` competes with a child

    .. math:: z_{r_1} + F \, (z_{r_2} - z_{r_3})

    of three others, and the one with the better margin stays (the paper's settings: no
    crossover, :math:`F = 0.5`). The populations of all rows evolve at once. Values that
    leave the box are cut off, positions that leave the image come in on the other side.

    Of rows that are no images each feature is a pixel. With one pixel of one channel the
    problem is small: trying the two ends of the range at every position costs twice as
    many queries as there are pixels, and is what to compare with.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    n_pixels : int, default=1
        How many pixels may change.
    max_queries : int, default=10_000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    population : int, default=None
        Number of candidates per row. None is `max_queries` over 150, at least 10: some
        150 generations (in the paper 100, of 400 candidates), since fewer candidates and
        more generations found more with budgets of some thousand queries.
    mutation : float, default=0.5
        The factor :math:`F`.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
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
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If `bounds` is None, `image_shape` does not fit, or a row has fewer pixels than
        `n_pixels`.

    See Also
    --------
    JacobianSaliencyMap : From gradients.
    SquareAttack : Small changes of all pixels.

    References
    ----------
    .. [1] J. Su, D. V. Vargas, K. Sakurai, "One pixel attack for fooling deep neural
       networks", arXiv:1710.08864 (Section III; equation 3 is the child).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import OnePixel
    >>> X, y = load_digits(return_X_y=True)
    >>> attack = OnePixel(LogisticRegression(max_iter=2000), n_pixels=3,
    ...                   max_queries=1000, image_shape=(8, 8))
    >>> result = attack.fit(X[:1000], y[:1000]).run(X[1000:1020], y[1000:1020])
    >>> bool(result.success.mean() > 0.5), bool(result.distance.max() <= 3)
    (True, True)
    """

    knowledge = "score"
    norm = 0

    _parameter_constraints = {
        **BoxAttack._parameter_constraints,
        **shared("image_shape", "goal", "target", "random_state"),
        "n_pixels": [Interval(Integral, 1, None, closed="left")],
        "population": [Interval(Integral, 4, None, closed="left"), None],
        "mutation": [Interval(Real, 0, 2, closed="right")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_pixels: int = 1,
        max_queries: int = 10_000,
        population: int | None = None,
        mutation: float = 0.5,
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
        self.n_pixels = n_pixels
        self.max_queries = max_queries
        self.population = population
        self.mutation = mutation
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
        _, height, width = pixel_grid(row_shape, self.image_shape)
        if self.n_pixels > height * width:
            raise ValueError(
                f"n_pixels={self.n_pixels}, but a row has {height * width} pixels."
            )

    def _search(self, active, state):
        channels, height, width = pixel_grid(self.row_shape_, self.image_shape)
        size = self.population or max(10, self.max_queries // 150)
        places = torch.arange(height * width, device=active.x.device)
        if height == 1:  # of a flat row, only what may change
            places = places[(active.upper > active.lower).flatten(1).any(0)]
            width = len(places)
            if not width:
                return active.give_up(torch.ones_like(active.labels, dtype=torch.bool))

        def paint(at):
            """Put the pixels of the children into their rows."""
            genes = active.children[at]
            place = (genes[..., 0] * height).long().clamp_max(height - 1) * width
            place = places[place + (genes[..., 1] * width).long().clamp_max(width - 1)]
            place = place[:, :, None].expand(-1, -1, channels, -1)
            low, high = (
                bound[at].reshape(-1, 1, channels, n_pixels)
                for bound in (active.lower, active.upper)
            )
            low, high = low.expand(-1, size, -1, -1), high.expand(-1, size, -1, -1)
            start, end = low.gather(3, place), high.gather(3, place)
            # Rounding may lead a little beyond the end.
            value = (start + genes[..., 2:].mT * (end - start)).clamp(start, end)
            delta = torch.zeros_like(low).scatter(3, place, value)
            x = active.x[at, None]
            return x + delta.reshape(len(genes), size, *x.shape[2:])

        n_pixels = active.x[0].numel() // channels
        genes = torch.rand(
            (size, self.n_pixels, 2 + channels),
            generator=state.generator,
            dtype=torch.float64,
        )
        active.genes = genes.to(active.x).repeat(len(active), 1, 1, 1)
        active.fitness = torch.full_like(active.genes[:, :, 0, 0], -torch.inf)
        active.children = active.genes
        while True:
            active.through = torch.zeros_like(active.labels, dtype=torch.bool)
            for at, x_adv, _, answer in active.ask_many(paint, size):
                _select(active, at, x_adv, answer)
            answer = Answer(active.predicted, active.through)
            active.record_successes(active.x + active.delta, answer)
            active.give_up(active.affordable() < 1)
            if not len(active):
                return
            # Three others for each candidate: neighbours in a random order of them all.
            order = torch.randperm(size, generator=state.generator)
            place = order.argsort()
            one, two, three = (
                active.genes[:, order[(place + k) % size]] for k in (1, 2, 3)
            )
            children = one + self.mutation * (two - three)
            children[..., :2] %= 1.0
            active.children = children.clamp(0, 1)


def _select(active, at, x_adv, answer):
    """Let children replace worse parents; keep the best one as the row's attempt."""
    best = torch.where(answer.reached, torch.inf, answer.objective).max(1)
    ahead = best.values > active.fitness[at].amax(1)
    each = torch.arange(len(ahead), device=ahead.device)
    delta = x_adv[each, best.indices] - active.x[at]
    active.delta[at] = torch.where(column(ahead, delta), delta, active.delta[at])
    predicted = answer.predicted[each, best.indices]
    active.predicted[at] = torch.where(ahead, predicted, active.predicted[at])
    active.through[at] = answer.reached.any(1)
    better = answer.objective > active.fitness[at]
    active.fitness[at] = torch.where(better, answer.objective, active.fitness[at])
    better = better[:, :, None, None]
    active.genes[at] = torch.where(better, active.children[at], active.genes[at])
