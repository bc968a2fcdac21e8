"""Universal perturbation, by projected gradient steps on batches."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ..._progress import with_callbacks
from ..._sklearn import Interval
from .._base import Chunk, norms, shared
from .._state import record_last
from ._base import GradientAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

# Rows in one step of the training.
_STEP_ROWS = 50


class UniversalPerturbation(GradientAttack):
    r"""Universal perturbation: one perturbation that most rows are fooled by.

    It is learned in `fit`; `transform` adds it to any row, and asks for no gradient. The
    mean, over the training rows, of the victim's loss, cut off at `max_loss` so that no
    row dominates, is ascended by steps along its steepest direction in the norm, on
    batches of rows drawn at random, with projection onto the ball:

    .. math:: \max_{\|v\|_p \le \epsilon} \frac1n \sum_i
        \min(J(\mathrm{clip}(x_i + v), y_i), \beta).

    The step falls linearly to 0. The labels :math:`y_i` are the victim's own predictions.
    On rows that `fit` has not seen the fooling rate is a little lower than
    `fooling_rate_`.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm that bounds the perturbation.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    step_size : float, default=None
        Length of the first step, in the norm; None is ``eps / 4``.
    max_iter : int, default=20
        How many times the training rows are gone through.
    max_loss : float, default=9.0
        Where the loss of a row is cut off, in nats.
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
        Largest number of queries of a row; see :class:`EvasionAttack`. It asks once
        (twice without `y`, and for "least_likely" targets); `fit` is not limited.
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
    perturbation_ : ndarray of the shape of a row
        What is added to each row.
    fooling_rate_ : float
        Share of the training rows whose prediction it changes (or, with a target, turns
        into it).
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
    AdversarialPatch : One visible patch for all images.
    ProjectedGradientDescent : A change for each row.

    References
    ----------
    .. [1] S. Moosavi-Dezfooli, A. Fawzi, O. Fawzi, P. Frossard, "Universal adversarial
       perturbations", arXiv:1610.08401 (the problem, equation 1).
    .. [2] A. Shafahi, M. Najibi, Z. Xu, J. Dickerson, L. Davis, T. Goldstein, "Universal
       adversarial training", arXiv:1811.11304 (Algorithm 1 and the clipped loss of
       equation 3).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import UniversalPerturbation
    >>> X, y = load_digits(return_X_y=True)
    >>> attack = UniversalPerturbation(LogisticRegression(max_iter=500), eps=0.3)
    >>> attack = attack.fit(X[:1000] / 16, y[:1000])
    >>> attack.perturbation_.shape
    (64,)
    >>> attack.score(X[1000:] / 16, y[1000:]) < 0.5
    True
    """

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **shared("eps_unit"),
        **shared("step_size", "max_iter", "goal", "target", "random_state"),
        "norm": norms(np.inf, 2, 1),
        "max_loss": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        step_size: float | None = None,
        max_iter: int = 20,
        max_loss: float = 9.0,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
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
        self.step_size = step_size
        self.max_iter = max_iter
        self.max_loss = max_loss
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept), and learn the perturbation.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Rows that the perturbation is to fool the victim on.
        y : array-like of shape (n_samples,), default=None
            Their labels, for the victim's fit only.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        X = self._check_X(X, reset=False)
        target = self._check_target(self.target, self.goal, len(X))
        chunk = Chunk(X, np.arange(len(X)), target=target, goal=self.goal)
        access = self._open_access(chunk)
        access, lower, upper = self._constrain(access)
        goal = self._make_goal(access, chunk)
        with self._reported(X, y):
            v = self._learn(access, goal, lower, upper)
            everything = torch.arange(len(access.x), device=v.device)
            x_adv = access.x + v.clamp(lower, upper)
            _, fooled = goal.ask(access, x_adv, everything)
            self.perturbation_ = v.cpu().numpy()
            self.fooling_rate_ = float(fooled.double().mean())
        return self

    def _n_tasks(self):
        return self.max_iter

    def _learn(self, access, goal, lower, upper):
        """Ascend the mean loss of batches, from 0."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        ball = self._ball()
        v = torch.zeros_like(access.x[:1])
        free = torch.full_like(v, torch.inf)
        batches = -(-len(access.x) // _STEP_ROWS)
        step_size = self.step_size or ball.radius / 4
        n_steps = self.max_iter * batches
        passes = self._tasks(
            range(self.max_iter),
            "pass",
            attributes=lambda: {"perturbation_": v[0].cpu().numpy()},
        )
        for i in passes:
            order = torch.randperm(len(access.x), generator=generator)
            parts = order.to(v.device).split(_STEP_ROWS)
            for step, rows in enumerate(parts, start=i * batches):
                delta = v.clamp(lower[rows], upper[rows])
                part = goal.select(rows)
                _, gradient = access.gradient(
                    access.x[rows] + delta,
                    rows,
                    lambda logits, at, part=part: part.objective(logits, at).clamp_max(
                        self.max_loss
                    ),
                )
                # What the box cuts off does not follow v.
                moves = (delta == v) & (lower[rows] < upper[rows])
                mean = torch.where(moves, gradient, 0).mean(0, keepdim=True)
                ascent = ball.ascent(mean, v, -free, free)
                v = ball.project(v + step_size * (1 - step / n_steps) * ascent)
        return v[0]

    def _check_goal(self, goal):
        raise ValueError(
            f"target: the perturbation was learned in fit for goal={self.goal!r}. Set "
            "goal='targeted' and the target, and fit it again."
        )

    def _attack(self, state):
        access = state.access
        # Labels that the victim has just given need no asking whether it is so.
        if state.goal.kind == "targeted" or not access.n_total_queries:
            record_last(state, state.open_rows(), access.x)
        rows = state.open_rows()
        v = torch.as_tensor(self.perturbation_).to(access.x)
        delta = v.clamp(state.lower[rows], state.upper[rows])
        record_last(state, rows, access.x[rows] + delta)
