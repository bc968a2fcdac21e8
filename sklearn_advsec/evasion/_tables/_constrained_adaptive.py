"""The constrained adaptive attack (Simonetto et al. 2024)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from .._active_rows import ActiveRows, Answer
from .._goal import margin
from ._constrained_apgd import ConstrainedAPGD
from ._moeva import evolve

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class ConstrainedAdaptiveAttack(ConstrainedAPGD):
    """CAA: descent on all rows, then evolution on those that are left.

    :class:`ConstrainedAPGD` is quick and finds most of what there is;
    :class:`MultiObjectiveEvolution` is thorough, and changes categories too. One after
    the other they find about what both find together, in less time than the second
    alone. Besides the row itself, the point where the descent ended is among those that
    evolve. Both look at the victim's view in :mod:`sklearn_advsec.differentiable`, and
    ask the victim itself about what that takes for a success.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=2
        The norm that bounds the perturbation.
    eps : float, default=0.5
        The bound, in units of each feature's scale; another category counts 1.
    max_iter : int, default=10
        Number of steps of each start of the descent.
    n_restarts : int, default=2
        Number of starts of the descent.
    n_generations : int, default=100
        Number of generations of the evolution.
    population : int, default=40
        Number of individuals of each row, and of their offspring.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    loss : {"cross_entropy", "margin", "dlr"}, default="cross_entropy"
        What the descent ascends.
    bounds : "data", None or tuple (lower, upper), default=None
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
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    constraints_ : FeatureConstraints
        The constraints in use.
    values_ : ndarray of shape (n_features, 32)
        Quantiles of the data; of categories, their codes.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    NoGradientError
        If the victim has no differentiable view; use :class:`MultiObjectiveEvolution`.

    See Also
    --------
    ConstrainedAPGD : Its first part.
    MultiObjectiveEvolution : Its second part, which needs scores only.

    References
    ----------
    .. [1] T. Simonetto et al., "Constrained adaptive attack: effective adversarial attack
       against deep neural networks for tabular data", arXiv:2406.00775 (Section 4.2).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.evasion import ConstrainedAdaptiveAttack
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> victim = make_pipeline(
    ...     StandardScaler(), MLPClassifier(early_stopping=True, random_state=0))
    >>> attack = ConstrainedAdaptiveAttack(victim, eps=0.8).fit(X, y)
    >>> bool(attack.run(X[:30], y[:30]).success.mean() > 0.9)
    True
    """

    _parameter_constraints = {
        **{k: v for k, v in ConstrainedAPGD._parameter_constraints.items()
           if k not in ("rho", "penalty")},
        "eps": [Interval(Real, 0, None, closed="left")],
        "n_generations": [Interval(Integral, 1, None, closed="left")],
        "population": [Interval(Integral, 4, None, closed="left")],
    }  # fmt: skip

    rho, penalty = 0.75, 1.0

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = 2,
        eps: float = 0.5,
        max_iter: int = 10,
        n_restarts: int = 2,
        n_generations: int = 100,
        population: int = 40,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy",
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = None,
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
        self.max_iter = max_iter
        self.n_restarts = n_restarts
        self.n_generations = n_generations
        self.population = population
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.loss = loss
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _attack(self, state):
        super()._attack(state)
        left = state.open_rows()
        if self.verbose:
            print(f"[ConstrainedAdaptiveAttack] {len(left)} rows left to evolution")
        for rows in left.split(512):
            evolve(
                _SeenRows(state, rows),
                state,
                self.n_generations,
                self.population,
                norm=self._norm,
            )


class _SeenRows(ActiveRows):
    """Rows whose candidates are judged by the victim's view, as its parameters are known.

    A pipeline itself spends most of its time on the way to the model, of a few rows as of
    many; so it is asked only about what its view takes for a success.
    """

    confirms = False  # by itself; see `confirm`

    def ask(self, x_adv, at=None):
        """Ask the view about candidates, as `ActiveRows.ask` asks the victim."""
        rows, labels = self.rows, self.labels
        if at is not None:
            rows, labels = rows[at], labels[at]
        goal, logits = self._state.goal.select(rows), self._access.logits(x_adv, rows)
        objective = margin(logits, labels)
        if goal.kind == "targeted":
            objective = -objective
        return Answer(logits.argmax(1), goal.reached(logits), objective=objective)

    def affordable(self):
        """How many more queries each row may cost, but for one that confirms."""
        return super().affordable() - int(not self._access.exact)

    def confirm(self, x_adv, at, predicted):
        """Ask the victim about one candidate of each of some rows, if it has to be."""
        if self._access.exact:
            return super().confirm(x_adv, at, predicted)
        rows = self.rows[at]
        return self._state.goal.select(rows).ask(self._access, x_adv, rows)
