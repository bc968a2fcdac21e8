"""Square attack (Andriushchenko et al. 2019)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from math import sqrt
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._rows import image_shape_of
from ..._sklearn import Interval
from ...threat._projection import fill_l2
from .._base import WITH_CONFIDENCE, norms, shared
from ._base import QueryAttack, climb

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# So many random numbers are drawn at a time: each call of the generator has its price.
_BLOCK = 1024


class Windows:
    """Random squares of an image, or random sets of the features of a flat row.

    All draws are shared by the rows.

    Parameters
    ----------
    row_shape : tuple of int
        Shape of a row.
    image_shape : tuple of int or None
        What a flat row is.
    generator : torch.Generator
        Source of randomness, on the processor: draws are the same everywhere.
    device : torch.device, default=None
        Where what is drawn is wanted; None is the processor.

    Attributes
    ----------
    shape : tuple of int
        ``(-1, channels, height, width)``, the shape of the tensors that a window is an
        index of. A flat row that is no image has one channel, and one line.
    """

    def __init__(self, row_shape, image_shape, generator, device=None):
        self.generator, self.device = generator, device
        self.image = image_shape_of(row_shape, image_shape)
        self.shape = (-1, *(self.image or (1, 1, int(np.prod(row_shape)))))
        self.n_pixels = self.shape[2] * self.shape[3]
        self._numbers = []

    def draw(self, share, smallest=1):
        """Return the index of a window that covers about this share of a channel."""
        if self.image is None:
            k = min(max(smallest, round(share * self.n_pixels)), self.n_pixels)
            order = torch.randperm(self.n_pixels, generator=self.generator)
            return ..., self._there(order[:k])
        _, height, width = self.image
        side = max(round(sqrt(share * self.n_pixels)), smallest)
        rows, columns = min(side, height), min(side, width)
        top, left = self._integer(height - rows + 1), self._integer(width - columns + 1)
        return ..., slice(top, top + rows), slice(left, left + columns)

    def draw_pair(self, share):
        """Return two windows for the L2 attack; their side is odd and at least 3."""
        if self.image is None:
            return self.draw(share), self.draw(share)
        side = max(round(sqrt(share * self.n_pixels)), 3)
        share = (side + 1 - side % 2) ** 2 / self.n_pixels
        return self.draw(share, 3), self.draw(share, 3)

    def coins(self, window):
        """Toss one coin per channel of a square, one per feature of a set."""
        if self.image is None:
            return self._coins(1, 1, len(window[-1]))
        return self._coins(self.shape[1], 1, 1)

    def stripes(self):
        """Toss one coin per channel and column of an image, one per feature of a row."""
        return self._coins(self.shape[1], 1, self.shape[3])

    def bump(self, window):
        """Return a bump of length 1 over a window, with a random sign per channel."""
        if self.image is None:
            return self._signs(1, 1, len(window[-1])) / sqrt(len(window[-1]))
        rows, columns = (place.stop - place.start for place in window[1:])
        return self._bump(rows, columns)

    def bumps(self):
        """Return the first perturbation of the L2 attack: a grid of up to 5 x 5 bumps."""
        if self.image is None:
            return self.bump((..., range(self.n_pixels)))
        _, height, width = self.image
        rows, columns = max(1, height // 5), max(1, width // 5)
        image = torch.zeros(self.shape[1:], dtype=torch.float64, device=self.device)
        for top in range(height % rows // 2, height - rows + 1, rows):
            for left in range(width % columns // 2, width - columns + 1, columns):
                image[:, top : top + rows, left : left + columns] = self._bump(
                    rows, columns
                )
        return image

    def _bump(self, rows, columns):
        shape = _two_halves(rows, columns, self._integer(2) == 1)
        return self._there(shape) * self._signs(self.shape[1], 1, 1)

    def _integer(self, stop):
        if not self._numbers:
            self._numbers = torch.rand(
                _BLOCK, generator=self.generator, dtype=torch.float64
            ).tolist()
        return int(self._numbers.pop() * stop)

    def _coins(self, *shape):
        return self._there(torch.rand(shape, generator=self.generator) < 0.5)

    def _there(self, drawn):
        """Send what was drawn to the device, which nobody waits for."""
        return drawn.to(self.device, non_blocking=True)

    def _signs(self, *shape):
        return 2.0 * self._coins(*shape).double() - 1


@cache
def _two_halves(rows, columns, transposed=False):
    """Two bumps side by side, of opposite sign: eta of the paper's Section 3.3."""
    if transposed:
        return _two_halves(columns, rows).T
    left = columns // 2
    shape = _one_bump(rows, columns - left)
    if left:
        shape = torch.cat([_one_bump(rows, left), -shape], dim=1)
    return shape / torch.linalg.vector_norm(shape)


def _one_bump(rows, columns):
    """Nested squares around the middle, whose heights 1 / k^2 add up towards it."""
    far = torch.maximum(
        (torch.arange(rows) - rows // 2).abs()[:, None],
        (torch.arange(columns) - columns // 2).abs()[None],
    )
    steps = 1 / torch.arange(1.0, max(rows, columns) // 2 + 2, dtype=torch.float64) ** 2
    return steps.flip(0).cumsum(0).flip(0)[far]


# The window shrinks to a half at these shares of the budget, as its authors have it.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


class SquareAttack(QueryAttack):
    r"""Square attack: random search over squares of the image, by scores.

    For ``norm=np.inf`` every feature stands at the edge of its range,
    :math:`x_i \pm \epsilon`, cut off by the box. It starts with vertical stripes; each
    step sets one square, at a random place, to one random sign per channel, and keeps
    the change if the victim's margin falls. For ``norm=2`` each step moves the mass of
    one square into another, as a bump of two halves of opposite sign, and stretches the
    whole back to length :math:`\epsilon` inside the box. The share of the image that a
    square covers falls from `p_init` as the budget is spent.

    Rows that are no images have no neighbourhoods: there a "square" is a random set of
    features of the same size, each of which takes a sign of its own.

    What it finds depends on the budget: a robust accuracy under a few hundred queries is
    a loose bound. On victims whose scores are constant over large regions, such as small
    trees, it is a blind search.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2}, default=np.inf
        The norm that bounds the perturbation.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features; an array gives each feature its own.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    max_queries : int, default=1000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    p_init : float, default=0.8
        Share of the image that the first square covers.
    n_proposals : int, default=1
        How many squares are asked about at once for each row; the best of them counts.
        More than the paper's one take more queries, and much less time where a call of
        the victim costs the same whatever the number of rows, as with forests.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
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
        If `norm` or `image_shape` does not fit.

    See Also
    --------
    NaturalEvolutionStrategy : Estimates gradients from scores.
    HopSkipJump : From labels only.

    References
    ----------
    .. [1] M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square attack: a
       query-efficient black-box adversarial attack via random search", arXiv:1912.00049
       (Algorithms 1, 2 and 3; the schedule is that of its authors' program).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.evasion import SquareAttack
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> attack = SquareAttack(victim, eps=4, max_queries=100, image_shape=(8, 8))
    >>> result = attack.fit(X[:1000], y[:1000]).run(X[1000:1050], y[1000:1050])
    >>> bool(result.success.mean() > 0.9), int(result.n_queries.max()) <= 100
    (True, True)
    """

    knowledge = "score"

    _parameter_constraints = {
        **QueryAttack._parameter_constraints,
        **shared("eps_unit"),
        **WITH_CONFIDENCE,
        **shared("eps", "image_shape", "random_state"),
        "norm": norms(np.inf, 2),
        "p_init": [Interval(Real, 0, 1, closed="right")],
        "n_proposals": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        max_queries: int = 1000,
        p_init: float = 0.8,
        n_proposals: int = 1,
        image_shape: tuple[int, ...] | None = None,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
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
        self.norm = norm
        self.eps = eps
        self.eps_unit = eps_unit
        self.max_queries = max_queries
        self.p_init = p_init
        self.n_proposals = n_proposals
        self.image_shape = image_shape
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self, row_shape):
        ball = self._ball()
        if ball.norm not in (np.inf, 2):
            raise ValueError(
                f"norm must be np.inf or 2 for SquareAttack; got {ball.norm}."
            )
        ball.scale(torch.zeros((1, *row_shape)))  # raises where eps does not fit
        image_shape_of(row_shape, self.image_shape)

    def _search(self, active, state):
        windows = Windows(
            self.row_shape_, self.image_shape, state.generator, active.x.device
        )
        search = _linf if self._norm == np.inf else _l2
        propose, start = search(active, self._ball(), windows, self._share)
        climb(active, propose, start, self.n_proposals)

    def _share(self, step):
        """Share of the image that the square of this step covers."""
        return self.p_init / 2 ** bisect_left(_HALVINGS, step / self.max_queries)


def _linf(active, ball, windows, share):
    """Algorithm 2: one sign per channel for all pixels of a square.

    Returns how to propose a change, and the first perturbations.
    """
    eps = ball.scale(active.x)
    active.high = torch.minimum(active.upper, eps).reshape(windows.shape)
    active.low = torch.maximum(active.lower, -eps).reshape(windows.shape)

    def propose(step):
        at = windows.draw(share(step))
        up = windows.coins(at)
        new = active.delta.reshape(windows.shape).clone()
        high, low, present = active.high[at], active.low[at], new[at]
        square = torch.where(up, high, low)
        # Where that changes nothing, the query would be wasted: take the other signs.
        same = (present == square).flatten(1).all(1)[:, None, None, None]
        new[at] = torch.where(up ^ same, high, low)
        return new.reshape(active.x.shape)

    stripes = torch.where(windows.stripes(), active.high, active.low)
    return propose, stripes.reshape(active.x.shape)


def _l2(active, ball, windows, share):
    """Algorithm 3: the mass of one square goes into another, the whole is refilled.

    Where features have an `eps` of their own, it works in units of it, in which the ball
    is round.
    """
    eps = ball.scale(active.x)
    unit, radius = 1.0, eps
    active.room_down, active.room_up = active.lower.flatten(1), active.upper.flatten(1)
    if eps.ndim:
        unit, radius = torch.where(eps > 0, eps, 1), eps.new_ones(())
        for name in ("room_down", "room_up"):
            room = torch.where(
                eps > 0, getattr(active, name).reshape(active.x.shape) / unit, 0
            )
            setattr(active, name, room.flatten(1))

    def inside(image):
        """Stretch to the length of the radius, as far as the box allows."""
        flat = fill_l2(image.flatten(1), radius, active.room_down, active.room_up)
        delta = flat.reshape(active.x.shape)
        return torch.clamp(delta * unit, active.lower, active.upper)

    def propose(step):
        image = (active.delta / unit).reshape(windows.shape)
        to, origin = windows.draw_pair(share(step))
        flat = image.flatten(1)
        unused = radius**2 - torch.linalg.vecdot(flat, flat)
        bump = windows.bump(to).to(image) + _normed(image[to])
        mass = 0
        for at in (to, origin):  # what both cover is counted, and cleared, once
            mass = mass + image[at].square().sum((2, 3), keepdim=True)
            image[at] = 0
        unused = unused.clamp_min(0)[:, None, None, None] / image.shape[1]
        image[to] = _normed(bump) * (mass + unused).sqrt()
        return inside(image)

    bumps = windows.bumps().to(active.x)
    return propose, inside(bumps.expand(len(active), -1, -1, -1))


def _normed(window):
    """Scale each channel of each window to length 1."""
    length = torch.linalg.vector_norm(window, dim=(2, 3), keepdim=True)
    return window / length.clamp_min(torch.finfo(window.dtype).tiny)
