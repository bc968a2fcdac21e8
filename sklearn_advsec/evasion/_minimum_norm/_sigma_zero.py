"""Sigma-zero: the fewest features (Cina et al. 2024)."""

from __future__ import annotations

from math import cos, pi
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from .._active_rows import column
from .._base import shared
from ._base import MinimumNormAttack, Search, give_back

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# Adam's averages of the gradient and of its square (arXiv:1412.6980).
_DECAY = (0.9, 0.999)


class SigmaZero(MinimumNormAttack):
    r"""Sigma-zero (L0): few features, by gradients of a smooth count of them.

    Adam descends, from the row itself, on

    .. math:: \max(f_y(x + \delta) - \max_{k \ne y} f_k(x + \delta), 0)
        + \frac{1}{d} \sum_{j=1}^{d} \frac{\delta_j^2}{\delta_j^2 + \sigma},

    whose second term is the share of changed features as :math:`\sigma` goes to 0: the
    margin counts until the goal is reached, and the number of features alone after it.
    The gradient is scaled to a largest entry of 1. After each step, entries below a
    threshold are set to 0; the threshold rises while the point is adversarial, and falls
    while it is not. Steps fall along a cosine, to a tenth.

    Features are measured in shares of the range that the box leaves them, so that their
    units do not matter; a feature without bounds in its own unit. What the paper leaves
    out: rows with a single changed feature are done, and at the end the changed features
    go to the ends of the box, and those that contribute little are given back, for about
    ten forward passes of a row.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    max_iter : int, default=100
        Number of steps. The paper takes 1000; results are a little sparser with more.
    step_size : float, default=1.0
        Length of the first step in each feature, in shares of its range; larger than
        `threshold`, which would undo it.
    sigma : float, default=0.001
        How smooth the count is.
    threshold : float, default=0.3
        Below which share of its range a feature's change is undone, at first.
    threshold_rate : float, default=0.01
        By how much the threshold moves, as a share of the step.
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
    max_queries : int, default=None
        Largest number of queries of a row; see :class:`EvasionAttack`.
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
    NoGradientError
        If the victim has no differentiable view.

    See Also
    --------
    FastMinimumNorm : Every norm; for ``norm=0`` by projections onto k features.
    JacobianSaliencyMap : Adds features one after another.
    PointwiseAttack : Few features, from labels only.

    References
    ----------
    .. [1] A. E. Cinà et al., "σ-zero: gradient-based optimization of l0-norm adversarial
       examples", arXiv:2402.01879 (Algorithm 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.evasion import SigmaZero
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> victim = make_pipeline(StandardScaler(), LogisticRegression())
    >>> result = SigmaZero(victim).fit(X, y).run(X[:100])
    >>> bool(result.success.all()), float(np.median(result.distance))
    (True, 1.0)
    """

    norm = 0
    _parameter_constraints = {
        **MinimumNormAttack._parameter_constraints,
        **shared("max_iter", "goal", "target"),
        "step_size": [Interval(Real, 0, None, closed="neither")],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "threshold": [Interval(Real, 0, 1, closed="left")],
        "threshold_rate": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        max_iter: int = 100,
        step_size: float = 1.0,
        sigma: float = 0.001,
        threshold: float = 0.3,
        threshold_rate: float = 0.01,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.max_iter = max_iter
        self.step_size = step_size
        self.sigma = sigma
        self.threshold = threshold
        self.threshold_rate = threshold_rate
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_parameters(self, row_shape):
        if self.step_size <= self.threshold:
            raise ValueError(
                "step_size must be larger than threshold, which would undo every step; "
                f"got {self.step_size!r} and {self.threshold!r}."
            )

    def _attack(self, state):
        search = Search(state)
        width = search.upper - search.lower
        search.unit = torch.where(width.isfinite() & (width > 0), width, 1.0)
        # The steps are in shares of the range, and so is the box here.
        search.least = search.lower / search.unit
        search.most = search.upper / search.unit
        search.point = torch.zeros_like(search.x)
        search.average = torch.zeros_like(search.x)
        search.square = torch.zeros_like(search.x)
        search.threshold = torch.full_like(search.best, self.threshold)
        step_size = self.step_size
        for step in range(self.max_iter):
            if not search.can_ask():
                break
            search.ask_gradient(search.point * search.unit)
            search.drop(search.best <= 1)
            point = search.point + step_size * self._direction(search, step + 1)
            point = torch.clamp(point, search.least, search.most)
            fall = (1 + cos(pi * step / self.max_iter)) / 2
            step_size = self.step_size * (0.1 + 0.9 * fall)
            change = torch.where(search.hit, self.threshold_rate, -self.threshold_rate)
            threshold = (search.threshold + step_size * change).clamp(0, 1)
            search.threshold = threshold
            search.point = point * (point.abs() >= column(threshold, point))
        if search.can_ask():
            search.look(search.point * search.unit)
        give_back(state, n_rounds=2, n_steps=8)

    def _direction(self, search, n_steps):
        """Adam's step of length 1, after so many gradients."""
        point = search.point
        slope = 2 * self.sigma * point / (point.square() + self.sigma).square()
        gradient = slope / point.shape[1:].numel()
        towards = column((~search.hit).to(point.dtype), point) * search.unit
        gradient = gradient - towards * search.gradient
        size = search.norm(gradient, np.inf).clamp_min(1e-12)
        gradient /= column(size, gradient)
        first, second = _DECAY
        search.average.lerp_(gradient, 1 - first)
        search.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (search.square / (1 - second**n_steps)).sqrt_().add_(1e-8)
        return -search.average / (1 - first**n_steps) / scale
