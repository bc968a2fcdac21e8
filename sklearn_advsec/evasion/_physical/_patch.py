"""Adversarial patch (Brown et al. 2017)."""

from __future__ import annotations

from math import sqrt
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from torch.nn.functional import pad

from ..._progress import with_callbacks
from ..._rows import RowCodec, pixel_grid
from ..._sklearn import Interval
from .._active_rows import ActiveRows
from .._base import Chunk, EvasionAttack, shared
from ._transformations import Draws, Rotation, Scaling

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_BETAS = 0.9, 0.999  # of Adam


class AdversarialPatch(EvasionAttack):
    r"""Adversarial patch: one picture that, put on any image, changes its class.

    The patch is learned in `fit`, by Adam on the expected log-probability over images,
    places, rotations and sizes,

    .. math:: \max_p \; E_{x, l, t} \left[\log \Pr(\hat y \mid A(p, x, l, t))\right],

    or, without a target, on minus that of the true class. `transform` and `run` put it on
    rows that it has not seen, at up to `n_places` random places, until the victim is
    wrong. It is not bounded by a norm but by its `area`: `distance` counts the values
    that changed.

    In `fit` each image gets a place of its own. In `run` all rows share the places, so
    that what happens to a row does not depend on the others: for the share of images and
    places at which a patch works, average over several `random_state`.

    On rows that are no images it covers neighbouring columns, whose order then matters.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    area : float, default=0.1
        Share of the image that the patch covers at most.
    max_iter : int, default=200
        Number of gradient steps in `fit`.
    learning_rate : float, default=0.05
        Step of Adam, as a share of the range of the values.
    n_images : int, default=50
        Number of images per step.
    degrees : float, default=20.0
        The patch is rotated by up to this angle.
    scaling : float, default=0.1
        The patch is made larger or smaller by up to this share.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data" or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    n_places : int, default=1
        How many random places are tried on each row, a query each; one more query is for
        the clean row. Queries of `fit` are not counted.
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
    patch_ : ndarray of shape (channels, height, width)
        The patch.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If the bounds are not finite, or columns are not numeric.
    NoGradientError
        If the victim has no differentiable view.

    See Also
    --------
    ExpectationOverTransformation : Robust to transformations of the whole image.
    UniversalPerturbation : One small change for all rows, instead of a visible patch.

    References
    ----------
    .. [1] T. B. Brown, D. Mané, A. Roy, M. Abadi, J. Gilmer, "Adversarial patch",
       arXiv:1712.09665 (Section 2).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import AdversarialPatch
    >>> X, y = load_digits(return_X_y=True)
    >>> attack = AdversarialPatch(LogisticRegression(max_iter=2000), area=0.15,
    ...                           max_iter=50, image_shape=(8, 8))
    >>> attack = attack.fit(X[:1000], y[:1000])
    >>> attack.patch_.shape
    (1, 3, 3)
    >>> bool(attack.score(X[1000:1100], y[1000:1100]) < 0.6)
    True
    """

    knowledge = "gradient"
    norm = 0

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        **shared(
            "max_iter",
            "image_shape",
            "goal",
            "target",
            "bounds",
            "batch_size",
            "random_state",
        ),
        "area": [Interval(Real, 0, 1, closed="right")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_images": [Interval(Integral, 1, None, closed="left")],
        "degrees": [Interval(Real, 0, 180, closed="both")],
        "scaling": [Interval(Real, 0, 1, closed="left")],
        "n_places": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        area: float = 0.1,
        max_iter: int = 200,
        learning_rate: float = 0.05,
        n_images: int = 50,
        degrees: float = 20.0,
        scaling: float = 0.1,
        image_shape: tuple[int, ...] | None = None,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        n_places: int = 1,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.area = area
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.n_images = n_images
        self.degrees = degrees
        self.scaling = scaling
        self.image_shape = image_shape
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.n_places = n_places
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self, row_shape):
        pixel_grid(row_shape, self.image_shape)
        if self.goal == "targeted" and (self.target is None or np.ndim(self.target)):
            raise ValueError(
                "goal='targeted' needs one class label as target: a patch has one goal."
            )

    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept) and learn the patch.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted and the patch is learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        X = self._check_X(X, reset=False)
        if RowCodec(X).mutable is not None:
            raise ValueError("X has columns that are not numeric: no patch covers them.")
        if not (np.isfinite(self.box_.lower).all() & np.isfinite(self.box_.upper).all()):
            raise ValueError("bounds must be finite: they are the range of the patch.")
        rng = check_random_state(self.random_state)
        generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
        at = rng.permutation(len(X))[: 20 * self.n_images]
        target = self._check_target(self.target, self.goal, len(X))
        chunk = Chunk(X, np.arange(len(X)), target=target, goal=self.goal).select(at)
        access = self._open_access(chunk)
        goal = self._make_goal(access, chunk)
        with self._reported(X, y):
            self.patch_ = self._learn(access, goal, generator).cpu().numpy()
        return self

    def _n_tasks(self):
        return self.max_iter

    def _learn(self, access, goal, generator):
        channels, height, width = pixel_grid(self.row_shape_, self.image_shape)
        rows, columns = _patch_size(height, width, self.area)
        low, high = self._range(access.x)
        patch = (low + high) / 2 + torch.zeros(channels, rows, columns).to(access.x)
        mean, square = torch.zeros_like(patch), torch.zeros_like(patch)
        steps = self._tasks(
            range(1, self.max_iter + 1),
            "step",
            attributes=lambda: {"patch_": patch.cpu().numpy()},
        )
        for step in steps:
            at = torch.randint(len(access.x), (self.n_images,), generator=generator)
            at = at.to(access.device)
            patch.requires_grad_()
            x = self._paste(access.x[at], patch, generator)
            _, gradient = access.gradient(x.detach(), at, goal.select(at).objective)
            (gradient,) = torch.autograd.grad(x, patch, grad_outputs=gradient)
            mean = _BETAS[0] * mean + (1 - _BETAS[0]) * gradient
            square = _BETAS[1] * square + (1 - _BETAS[1]) * gradient.square()
            size = (square / (1 - _BETAS[1] ** step)).sqrt().clamp_min(1e-30)
            move = mean / (1 - _BETAS[0] ** step) / size
            step_size = self.learning_rate * (high - low)
            patch = torch.clamp(patch.detach() + step_size * move, low, high)
        return patch

    def _range(self, x):
        """The range of the patch's values: of all pixels, or all columns, together."""
        ends = np.min(self.box_.lower), np.max(self.box_.upper)
        return [torch.as_tensor(end, dtype=x.dtype, device=x.device) for end in ends]

    def _paste(self, x, patch, generator, shared=False):
        """Put the patch on rows: turned, scaled, and at a place, by draws for each row.

        What is turned is the patch times its cover: at its edges, the pixels of an image
        go over into those of the patch.
        """
        _, height, width = grid = pixel_grid(self.row_shape_, self.image_shape)
        images = x.reshape(-1, *grid)
        channels, rows, columns = patch.shape
        draws = Draws(generator, shared)
        down = self._place(images, draws, height - rows)
        across = self._place(images, draws, width - columns)
        layers = torch.cat([patch, torch.ones_like(patch[:1])])
        layers = layers.expand(len(x), -1, -1, -1)
        if height > 1:  # within its window, so that it never covers more than its area
            layers = Rotation(self.degrees)(layers, generator, shared=shared)
            sizes = Scaling(1 - self.scaling, 1 + self.scaling)
            layers = sizes(layers, generator, shared=shared)
        # Where rows and columns come from: outside of the patch, from an edge of zeros.
        layers = pad(layers, (1, 1, 1, 1))
        down = torch.arange(height, device=x.device) - down + 1
        across = torch.arange(width, device=x.device) - across + 1
        down = down.clamp(0, rows + 1)[:, None, :, None]
        across = across.clamp(0, columns + 1)[:, None, None, :]
        each = torch.arange(len(x), device=x.device)[:, None, None, None]
        which = torch.arange(channels + 1, device=x.device)[None, :, None, None]
        layers = layers[each, which, down, across]
        cover = layers[:, -1:].clamp(0, 1)
        return (images * (1 - cover) + layers[:, :-1]).reshape(x.shape)

    def _place(self, images, draws, room):
        """Draw a whole number from 0 to `room` for each image, as a column."""
        return draws.uniform(images, 0, room + 1, 1).long().clamp_max(room)

    def _check_goal(self, goal):
        raise ValueError(
            f"target: the patch was learned in fit for goal={self.goal!r}. Set "
            "goal='targeted' and the target, and fit it again."
        )

    def _attack(self, state):
        active = ActiveRows(state)
        if state.access.n_total_queries == 0 or state.goal.kind == "targeted":
            answer = active.ask(active.x)
            active.predicted = answer.predicted
            active.record_successes(active.x, answer)
        patch = torch.as_tensor(self.patch_).to(state.access.x)
        for _ in range(self.n_places):
            if not len(active):
                break
            pasted = self._paste(active.x, patch, state.generator, shared=True)
            active.delta = torch.clamp(pasted - active.x, active.lower, active.upper)
            x_adv = active.x + active.delta
            answer = active.ask(x_adv)
            active.predicted = answer.predicted
            active.record_successes(x_adv, answer)
        active.give_up(torch.ones_like(active.predicted, dtype=torch.bool))


def _patch_size(height, width, area):
    """Rows and columns of a square patch, or of the whole height where it is too low."""
    side = max(1, round(sqrt(area * height * width)))
    if side <= min(height, width):
        return side, side
    rows = min(height, width, side)
    other = max(1, round(area * height * width / rows))
    return (rows, min(other, width)) if height <= width else (min(other, height), rows)
