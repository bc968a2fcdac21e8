"""Natural evolution strategies by all scores, or the top k (Ilyas et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._estimators import name_of
from ..._sklearn import Interval
from ...victim import ScoreAccess
from .._active_rows import Answer, column
from .._base import shared
from ._base import StartingAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# How often a step is halved before the ball is left larger instead.
_BACKTRACKS = 4


class EvolutionStrategy(StartingAttack):
    """What these attacks share: gradients from random directions, steps in the ball."""

    _parameter_constraints = {
        **StartingAttack._parameter_constraints,
        **shared("eps_unit"),
        **shared("eps", "step_size"),
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
    }

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        self._ball().scale(torch.zeros((1, *row_shape)))

    def _prepare(self, active):
        """Return `eps`, the step, and the reach of the samples, per feature."""
        ball = self._ball()
        eps = ball.scale(active.x)
        fixed = (eps == 0).expand_as(active.x)
        active.lower = active.lower.masked_fill(fixed, 0)
        active.upper = active.upper.masked_fill(fixed, 0)
        radius = ball.radius or 1.0
        if self.step_size is not None:
            share = self.step_size / radius
        else:  # the steps of the whole budget cross the ball a few times
            share = min(1.0, 5 * (self._cost() + 1) / self.max_queries)
        sigma = 0.2 if self.sigma is None else self.sigma / radius
        return eps, share * eps, sigma * eps

    def _gradient(self, active, state, sigma):
        """Estimate the ascent of what is wanted from pairs of opposite directions."""
        half = ceil(self.n_samples / 2)
        noise = torch.randn(
            (half, *active.x.shape[1:]), generator=state.generator, dtype=torch.float64
        ).to(active.x)
        # Pairs stand side by side: what a budget cuts off at the end is whole pairs.
        reach = sigma * torch.stack([noise, -noise], dim=1).flatten(0, 1)
        reach = self._smooth(reach, sigma, state)
        gradient = torch.zeros_like(active.x)

        def candidates(at):
            delta = active.point[at, None] + reach
            delta = torch.clamp(delta, active.lower[at, None], active.upper[at, None])
            return active.x[at, None] + delta

        for at, _, asked, answer in active.ask_many(candidates, len(reach)):
            value = torch.where(asked, self._value(answer), 0)
            shape = (len(value), half, 2, -1)
            value, whole = value.reshape(shape), asked.reshape(shape).flatten(2).all(2)
            slope = (value[:, :, 0] - value[:, :, 1]).mean(2) * whole
            flat = slope.to(noise) @ noise.flatten(1)
            gradient[at] = flat.reshape(gradient[at].shape)
        return gradient

    def _value(self, answer):
        return answer.objective

    def _smooth(self, reach, sigma, state):
        return reach

    def _cost(self):
        """Queries of one gradient."""
        return 2 * ceil(self.n_samples / 2)

    def _approach(self, active, state):
        """Algorithm 1: begin at a point that is as wanted, and shrink the ball to eps.

        A gradient step goes together with a smaller ball. Where the class is lost by it,
        the step is halved; where that does not help, the ball shrinks half as much.
        """
        eps, step, sigma = self._prepare(active)
        self._find_starts(active, state)
        if not len(active):
            return
        ratio = active.point.abs() / torch.where(eps > 0, eps, 1)
        active.size = ratio.flatten(1).amax(1).clamp_min(1)  # of the ball, in eps
        active.shrinks = active.size / 2
        active.reached = torch.ones_like(active.labels, dtype=torch.bool)
        while self._leave(active, state):
            active.step = self._gradient(active, state, sigma).sign() * step
            active.waits = torch.ones_like(active.reached)
            for trial in range(_BACKTRACKS):
                active.give_up(active.waits & (active.affordable() < 1))
                at = torch.nonzero(active.waits).flatten()
                if not len(at):
                    break
                size = (active.size - active.shrinks)[at].clamp_min(1)
                cut = column(size, active.x) * eps
                point = active.point[at] + active.step[at] / 2**trial
                point = torch.clamp(point, -cut, cut)
                point = torch.clamp(point, active.lower[at], active.upper[at])
                answer = active.ask(active.x[at] + point, at)
                holds = self._holds(answer)
                hit = at[holds]
                active.point[hit] = point[holds]
                active.point_predicted[hit] = answer.predicted[holds]
                active.reached[hit] = answer.reached[holds]
                active.size[hit] = size[holds]
                active.waits[hit] = False
            active.shrinks = torch.where(active.waits, active.shrinks / 2, active.shrinks)

    def _holds(self, answer):
        """Whether a point still has what the attack lives on."""
        return answer.reached

    def _leave(self, active, state):
        """Record rows that are inside the ball; let go those whose budget is spent."""
        done = Answer(active.point_predicted, active.reached & (active.size <= 1))
        active.record_successes(active.x + active.point, done)
        active.give_up(active.affordable() < 1)
        return len(active)


class LabelOnlyNES(EvolutionStrategy):
    r"""Attack of Ilyas et al. by labels alone: the share of noisy labels is the score.

    A label becomes a smooth value by averaging over noise,
    :math:`\hat S(x) = \frac{1}{m} \sum_j R(x + \mu v_j)` with :math:`R = 1` where the
    label is the wanted one, and natural evolution strategies climb it. The attack begins
    at a point with the wanted label, far away, and the ball around it shrinks down to
    `eps` while the label stays.

    It is expensive: one gradient costs ``n_samples * n_smooth`` queries. At equal
    queries :class:`HopSkipJump` and :class:`RayS` find much smaller perturbations; this
    one is of interest as the paper's own baseline.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features; an array gives each feature its own.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    max_queries : int, default=5000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    n_samples : int, default=20
        Number of directions of one gradient; odd numbers are rounded up.
    n_smooth : int, default=10
        Number of noisy labels that make one value.
    sigma : float, default=None
        Standard deviation of the directions, and half the range of the noise. None is
        ``eps / 5``.
    step_size : float, default=None
        Length of a step. None takes steps that could cross the ball two and a half times.
    start : {"noise", "data"}, default="data"
        The first point: uniform noise in the box, or a near row of the data seen in
        `fit` that has the wanted label. The one follows where the other fails.
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
        Up to 200 rows of the data seen in `fit`.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    HopSkipJump : Mostly needs fewer queries.
    NaturalEvolutionStrategy : From scores.

    References
    ----------
    .. [1] A. Ilyas, L. Engstrom, A. Athalye, J. Lin, "Black-box adversarial attacks with
       limited queries and information", arXiv:1804.08598 (Section 2.4 and Algorithm 1,
       with the top label only).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.evasion import LabelOnlyNES
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = LabelOnlyNES(SVC(), eps=1.0, max_queries=2000).fit(X, y)
    >>> result = attack.run(X[50:100], y[50:100])
    >>> bool(result.success.mean() > 0.5)
    True
    """

    knowledge = "label"

    _parameter_constraints = {
        **EvolutionStrategy._parameter_constraints,
        **shared("start"),
        "n_smooth": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        max_queries: int = 5000,
        n_samples: int = 20,
        n_smooth: int = 10,
        sigma: float | None = None,
        step_size: float | None = None,
        start: Literal["noise", "data"] = "data",
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
        self.eps = eps
        self.eps_unit = eps_unit
        self.max_queries = max_queries
        self.n_samples = n_samples
        self.n_smooth = n_smooth
        self.sigma = sigma
        self.step_size = step_size
        self.start = start
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

    def _search(self, active, state):
        self._approach(active, state)

    def _cost(self):
        return super()._cost() * self.n_smooth

    def _value(self, answer):
        return answer.reached.double()

    def _smooth(self, reach, sigma, state):
        shape = (self.n_smooth, *reach.shape[1:])
        noise = torch.rand(shape, generator=state.generator, dtype=torch.float64)
        return (reach[:, None] + sigma * (2 * noise.to(reach) - 1)).flatten(0, 1)


class NaturalEvolutionStrategy(EvolutionStrategy):
    r"""Attack of Ilyas et al.: gradient steps from the scores of random neighbours.

    The gradient of the margin is estimated from pairs of opposite Gaussian directions,

    .. math:: \hat g = \frac{1}{n} \sum_{i \le n / 2}
        \left[F(x + \sigma u_i) - F(x - \sigma u_i)\right] u_i,

    and followed by signed steps inside the :math:`L_\infty` ball. With `top_k` the
    attacker sees the probabilities of the `top_k` most likely classes and nothing of the
    others (the partial-information setting). A targeted attack then has to begin at a
    row of the wanted class, far away, and comes nearer while that class stays visible.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features; an array gives each feature its own.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    max_queries : int, default=1000
        Largest number of queries of a row; see :class:`EvasionAttack`.
    n_samples : int, default=50
        Number of queries of one gradient; odd numbers are rounded up.
    sigma : float, default=None
        Standard deviation of the directions. None is ``eps / 5``. (The paper's 0.001 is
        below what trees, and float32 probabilities near 1, let through.)
    step_size : float, default=None
        Length of a step. None takes steps that could cross the ball two and a half times.
    top_k : int, default=None
        How many of the largest scores are seen. None is all.
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
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`: where targeted attacks with `top_k`
        begin.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If `top_k` is given and the victim has no `predict_proba`.

    See Also
    --------
    SquareAttack : Mostly needs fewer queries.
    LabelOnlyNES : From labels only.

    References
    ----------
    .. [1] A. Ilyas, L. Engstrom, A. Athalye, J. Lin, "Black-box adversarial attacks with
       limited queries and information", arXiv:1804.08598 (Sections 2.1 to 2.3 and
       Algorithm 1; the margin stands in for the log-probability).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import NaturalEvolutionStrategy
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=2000)
    >>> attack = NaturalEvolutionStrategy(victim, eps=4, max_queries=300)
    >>> result = attack.fit(X[:500], y[:500]).run(X[1000:1050], y[1000:1050])
    >>> bool(result.success.mean() > 0.9)
    True
    """

    knowledge = "score"
    start = "data"

    _parameter_constraints = {
        **EvolutionStrategy._parameter_constraints,
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        max_queries: int = 1000,
        n_samples: int = 50,
        sigma: float | None = None,
        step_size: float | None = None,
        top_k: int | None = None,
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
        self.eps = eps
        self.eps_unit = eps_unit
        self.max_queries = max_queries
        self.n_samples = n_samples
        self.sigma = sigma
        self.step_size = step_size
        self.top_k = top_k
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

    def _access_class(self):
        return super()._access_class() if self.top_k is None else TopKAccess

    def _access_options(self):
        options = super()._access_options()
        return options if self.top_k is None else {**options, "top_k": self.top_k}

    def _search(self, active, state):
        if self.top_k is not None and state.goal.kind == "targeted":
            self._approach(active, state)
            return
        eps, step, sigma = self._prepare(active)
        while True:
            active.give_up(active.affordable() < 1)
            if not len(active):
                return
            active.point = active.delta
            gradient = self._gradient(active, state, sigma)
            delta = torch.clamp(active.delta + gradient.sign() * step, -eps, eps)
            active.candidate = torch.clamp(delta, active.lower, active.upper)
            active.give_up(active.affordable() < 1)
            if not len(active):
                return
            x_adv = active.x + active.candidate
            answer = active.ask(x_adv)
            active.delta, active.predicted = active.candidate, answer.predicted
            active.record_successes(x_adv, answer)

    def _holds(self, answer):
        return answer.visible


class TopKAccess(ScoreAccess):
    """Ask for scores, and see those of the `top_k` most likely classes only.

    The others come as probability 0. Parameters are those of
    :class:`~sklearn_advsec.victim.ScoreAccess`, and `top_k`.
    """

    def __init__(self, estimator, X, *, top_k, **budget):
        super().__init__(estimator, X, **budget)
        if not self.probability:
            raise ValueError(
                f"top_k needs a victim with predict_proba; {name_of(estimator)} has none."
            )
        self._top_k = min(top_k, len(self.classes))

    def scores(self, x, rows=None, *, asked=None):
        """Ask for probabilities; see `ScoreAccess.scores`."""
        scores = super().scores(x, rows, asked=asked)
        # A stable sort: of equal ones the first class counts, as it does in predict.
        seen, classes = scores.sort(dim=1, descending=True, stable=True)
        k = self._top_k
        return torch.zeros_like(seen).scatter(1, classes[:, :k], seen[:, :k])
