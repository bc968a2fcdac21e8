"""Auto-PGD (Croce and Hein 2020), and its form for the L1 norm (2021)."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval, StrOptions
from .._base import WITH_CONFIDENCE, norms, shared
from .._goal import LOSSES, likeliest_others, margin, targeted_dlr
from .._state import record_last
from ._base import GradientAttack, descend

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# The share of the new point in a step with momentum.
_MOMENTUM = 0.75


class _AdaptiveSteps:
    """What the two rules share: the best point of each row, and checkpoints."""

    def __init__(self, ball, checkpoints, end_at_best):
        self.ball = ball
        self.checkpoints = checkpoints
        self.end_at_best = end_at_best
        self.n_seen = 0
        self.box = None

    def select(self, mask):
        """Go on with some rows only."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[mask])
        if self.box is not None:
            self.box = [bound[mask] for bound in self.box]

    def project(self, delta, lower, upper):
        """Return to ball and box; one clamp does for both where the ball is a box."""
        if self.ball.norm != np.inf:
            return self.ball.project(delta, lower, upper)
        if self.box is None:
            self.box = self.ball.intersect(lower, upper)
        return torch.clamp(delta, *self.box)

    def last(self, delta):
        """End where the last step led, or at the best point of those that were seen.

        Where rows leave at the goal, those that are left have not been there yet, but
        nobody knows about the last step.
        """
        return self.best if self.end_at_best and self.n_seen else delta

    def step(self, delta, logits, gradient, lower, upper, goal):
        """Return the next perturbations."""
        value = goal.objective(logits)
        if not self.n_seen:
            self.best = self.previous = delta
            self.best_gradient, self.best_value = gradient, value
            self.start(delta, value)
        else:
            self.rises = self.rises + (value > self.value)
            better = value > self.best_value
            self.best = _where(better, delta, self.best)
            self.best_gradient = _where(better, gradient, self.best_gradient)
            self.best_value = torch.maximum(value, self.best_value)
        self.value = value
        if self.n_seen in self.checkpoints:
            back = self.adapt(self.checkpoints[self.n_seen])
            delta = _where(back, self.best, delta)
            gradient = _where(back, self.best_gradient, gradient)
        new = self.move(delta, gradient, lower, upper)
        self.previous = delta
        self.n_seen += 1
        return new


class _HalvingSteps(_AdaptiveSteps):
    """Algorithm 1: where a step does not pay, halve it and go back to the best point."""

    def __init__(self, ball, max_iter, rho, end_at_best):
        at, gap = 0.22, 0.22
        checkpoints, before = {}, 0
        while (k := int(np.ceil(at * max_iter))) < max_iter:
            checkpoints[k] = rho * (k - before)
            gap, before = max(gap - 0.03, 0.06), k
            at += gap
        super().__init__(ball, checkpoints, end_at_best)

    def start(self, delta, value):
        self.rises = torch.zeros_like(value)
        self.step_size = torch.full_like(value, 2 * self.ball.radius)
        self.was_halved = torch.zeros_like(value, dtype=torch.bool)
        self.checked_value = value

    def adapt(self, wanted):
        stands = ~self.was_halved & (self.checked_value >= self.best_value)
        halve = (self.rises < wanted) | stands
        self.step_size = torch.where(halve, self.step_size / 2, self.step_size)
        self.was_halved, self.checked_value = halve, self.best_value
        self.rises = torch.zeros_like(self.rises)
        return halve

    def move(self, delta, gradient, lower, upper):
        ascent = self.ball.ascent(gradient, delta, lower, upper)
        new = delta + _column(self.step_size, delta) * ascent
        new = self.project(new, lower, upper)
        if not self.n_seen:
            return new
        new = _MOMENTUM * (new - delta) + (1 - _MOMENTUM) * (delta - self.previous)
        return self.project(delta + new, lower, upper)


class _SparseSteps(_AdaptiveSteps):
    """The L1 rule: steps on as many features as the best perturbation suggests."""

    def __init__(self, ball, max_iter, end_at_best):
        every = max(1, int(0.04 * max_iter))
        checkpoints = dict.fromkeys(range(every, max_iter, every))
        super().__init__(ball, checkpoints, end_at_best)

    def start(self, delta, value):
        n_features = delta.shape[1:].numel()
        changed = _count(delta)
        self.rises = torch.zeros_like(value)
        self.step_size = torch.full_like(value, self.ball.radius)
        self.changed = torch.where(changed > 0, changed, float(n_features))
        self.n_kept = torch.where(changed > 0, changed / 1.5, 0.2 * n_features)

    def adapt(self, _):
        changed = _count(self.best)
        sparser = changed < 0.95 * self.changed
        radius = self.ball.radius
        smaller = (self.step_size / 1.5).clamp_min(radius / 10)
        self.step_size = torch.where(sparser, radius, smaller)
        self.changed, self.n_kept = changed, changed / 1.5
        return sparser

    def move(self, delta, gradient, lower, upper):
        stretch = self.ball.stretch(gradient)
        room = torch.where(gradient > 0, upper - delta, delta - lower)
        flat = (gradient * stretch).masked_fill(room <= 0, 0).flatten(1)
        size = flat.abs()
        ranks = self.n_kept.long().clamp(1, size.shape[1])[:, None] - 1
        least = size.sort(dim=1, descending=True).values.gather(1, ranks)
        signs = torch.where(size >= least, flat.sign(), 0)
        signs = signs / signs.abs().sum(1, keepdim=True).clamp_min(1)
        ascent = signs.reshape(delta.shape) * stretch
        return self.ball.project(
            delta + _column(self.step_size, delta) * ascent, lower, upper
        )


def _count(delta):
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)


def _column(values, like):
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _where(rows, new, old):
    return torch.where(_column(rows, new), new, old)


# For L1: radii, in units of eps, and the shares of the steps spent in them.
_RADII = ((3, 0.3), (2, 0.3), (1, 0.4))


class AutoProjectedGradientDescent(GradientAttack):
    r"""Auto-PGD: projected gradient descent that chooses its steps by itself.

    It begins with steps of :math:`2 \epsilon`, with momentum. At checkpoints, which come
    closer and closer, each row is looked at: where the objective rose in less than the
    share `rho` of the steps, or where its maximum stands still, the step is halved and
    the row goes back to the best point it has seen.

    For ``norm=1`` a step changes a part of the features only, by their signs: as many as
    the best perturbation has changed, over 1.5. It begins in a ball of three times the
    radius, goes on in one of twice and ends in the ball itself, with 30, 30 and 40 % of
    the steps. All projections are exact, onto ball and box together. In the larger balls
    the margin stands in for "dlr", its ratio to other differences.

    Rows leave when they reach the goal. What it finds is an upper bound of the robust
    accuracy; :class:`AutoAttack` puts attacks of other kinds beside it.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm that bounds the perturbation.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features; an array gives each feature its own (see
        :class:`~sklearn_advsec.threat.LpBall`).
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    max_iter : int, default=100
        Number of steps.
    rho : float, default=0.75
        The share of steps on which the objective has to rise.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    loss : {"cross_entropy", "dlr", "targeted_dlr", "margin"}, default="cross_entropy"
        What is ascended. "dlr" is the difference of logits ratio, whose gradients do not
        vanish when logits are large. "targeted_dlr" leaves the present class on the way
        to one other class after another, the likeliest first; it is for
        ``goal="misclassification"``.
    n_targets : int, default=9
        How many classes "targeted_dlr" tries (at most, one less than there are).
    n_restarts : int, default=1
        How often to start (for each class tried). Rows that reached the goal do not start
        again.
    random_start : bool, default=True
        Whether the first start is a random point of the ball too, as in the paper; the
        others are. Gradients may be masked at the row itself, and less so around it.
    n_draws : int, default=1
        How often each gradient is asked for. For victims whose answers are random, take
        20 or so: gradients and logits are averaged, and a row is done when the mean of
        its logits is.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    precision : {"full", "mixed"}, default="full"
        See :class:`ProjectedGradientDescent`.
    max_queries : int, default=None
        Largest number of queries of a row; see :class:`EvasionAttack`.
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
    NoGradientError
        If the victim has no differentiable view.
    ValueError
        If `loss` does not go with `goal`.

    See Also
    --------
    ProjectedGradientDescent : With one step size, cheaper.
    AutoAttack : Adds other losses and an attack by scores.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an
       ensemble of diverse parameter-free attacks", arXiv:2003.01690 (Algorithm 1;
       equations 6 and 7 for the losses).
    .. [2] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
       image classifiers", arXiv:2103.01208 (Section 3, for ``norm=1``).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.evasion import AutoProjectedGradientDescent
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = MLPClassifier(early_stopping=True, random_state=0)
    >>> attack = AutoProjectedGradientDescent(victim, norm=1, eps=3.0, bounds=(0, 1))
    >>> attack = attack.fit(X[:1000] / 16, y[:1000])
    >>> result = attack.run(X[1000:1100] / 16, y[1000:1100])
    >>> bool(result.success.mean() > 0.8 and result.distance.max() < 3.0001)
    True
    """

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **shared("eps_unit"),
        **WITH_CONFIDENCE,
        **shared("max_iter", "n_restarts", "random_start", "precision", "random_state"),
        "loss": [StrOptions({*LOSSES, "targeted_dlr"})],
        "norm": norms(np.inf, 2, 1),
        "rho": [Interval(Real, 0, 1, closed="both")],
        "n_targets": [Interval(Integral, 1, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        max_iter: int = 100,
        rho: float = 0.75,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        loss: Literal["cross_entropy", "dlr", "targeted_dlr", "margin"] = "cross_entropy",
        n_targets: int = 9,
        n_restarts: int = 1,
        random_start: bool = True,
        n_draws: int = 1,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        precision: Literal["full", "mixed"] = "full",
        max_queries: int | None = None,
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
        self.max_iter = max_iter
        self.rho = rho
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.loss = loss
        self.n_targets = n_targets
        self.n_restarts = n_restarts
        self.random_start = random_start
        self.n_draws = n_draws
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.precision = precision
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _check_goal(self, goal):
        if self.loss == "targeted_dlr":
            raise ValueError(
                "target: loss='targeted_dlr' tries the other classes one after another; "
                "use loss='dlr' for one that is wanted."
            )

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        if self.loss == "targeted_dlr" and self.goal != "misclassification":
            raise ValueError(
                "loss='targeted_dlr' tries the other classes one after another, for "
                f"goal='misclassification'; for goal={self.goal!r} use loss='dlr'."
            )

    def _loss(self):
        return targeted_dlr if self.loss == "targeted_dlr" else super()._loss()

    def _restarts(self, state):
        if self._norm == 1 and not self.random_start:  # the larger balls come first
            self._record_wrong_already(state)
        if self.loss != "targeted_dlr":
            return super()._restarts(state)
        for toward in likeliest_others(state, self.n_targets):
            state.goal.toward = toward
            super()._restarts(state)

    def _record_last(self, state, rows, x_adv):
        record_last(state, rows, x_adv, self.n_draws)

    def _steps(self, state, start, early_stopping):
        """Go from `start` on the open rows; return those left and where they ended."""
        radii = _RADII if self._norm == 1 and self.max_iter >= 10 else ((1, 1.0),)
        done = 0
        for radius, share in radii:
            ball = self._ball(radius)
            last = radius == 1
            n_steps = self.max_iter - done if last else round(share * self.max_iter)
            # What is reached in a larger ball does not count.
            stop = early_stopping and last
            if self._norm == 1:
                rule = _SparseSteps(ball, n_steps, end_at_best=not stop)
            else:
                rule = _HalvingSteps(ball, n_steps, self.rho, end_at_best=not stop)
            # Where most rows are wrong already, only the numerator of the ratio says how.
            wide = not last and self.loss == "dlr"
            state.goal.loss = margin if wide else self._loss()
            if start is not None:
                start = ball.project(start, state.lower, state.upper)
            rows, x_adv = descend(
                state,
                rule,
                start=start,
                max_iter=n_steps,
                early_stopping=stop,
                n_draws=self.n_draws,
            )
            done += n_steps
            if not last:
                start = torch.zeros_like(state.x_adv)
                start[rows] = (x_adv - state.access.x[rows]).nan_to_num(0.0)
        return rows, x_adv
