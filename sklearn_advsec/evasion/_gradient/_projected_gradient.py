"""Projected gradient descent (Madry et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .._base import WITH_CONFIDENCE, norms, shared
from ._base import GradientAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class ProjectedGradientDescent(GradientAttack):
    r"""Projected gradient descent: the strongest first-order attack of a fixed budget.

    .. math:: \delta^{t+1} = \Pi_{B \cap \mathrm{box}}
        \left(\delta^t + \alpha \, s(\nabla_x J(x + \delta^t, y))\right)

    with the exact projection onto the intersection of ball and box, and the steepest
    direction :math:`s` of the norm: the sign for inf, the normalised gradient for 2, the
    twentieth of the features with the largest gradient for 1. Rows leave the batch when
    they reach the goal.

    A small robust accuracy under this attack is a fact; a large one is only a bound, and
    a loose one for defenses that hide their gradients.

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
    step_size : float, default=None
        Length of a step, in the norm. None is ``2.5 * eps / max_iter``.
    max_iter : int, default=40
        Number of steps.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    loss : {"cross_entropy", "margin", "dlr"}, default="cross_entropy"
        What is ascended: the cross-entropy, the difference between the largest other
        logit and the present one, or that difference over the one of the first and the
        third logit.
    n_restarts : int, default=1
        How often to start. Rows that reached the goal do not start again.
    random_start : bool, default=False
        Whether the first start is a random point of the ball too; the others are.
    early_stopping : bool, default=True
        Whether a row is done as soon as it reaches the goal: it is then left with the
        smallest perturbation on the way, and costs nothing more. If not, all steps are
        taken, as in the paper.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    precision : {"full", "mixed"}, default="full"
        With "mixed", gradients of networks are computed with channels last, and in
        bfloat16 where the hardware has such arithmetic. Every success is confirmed in the
        victim's own precision.
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

    See Also
    --------
    AutoProjectedGradientDescent : Chooses the step sizes itself.
    AutoAttack : For a figure to be reported.
    DeepFool : For the smallest change, not the worst within a bound.

    References
    ----------
    .. [1] A. Madry et al., "Towards deep learning models resistant to adversarial
       attacks", arXiv:1706.06083 (Section 2.1).
    .. [2] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
       image classifiers", arXiv:2103.01208 (Sections 3.1 and 3.2, for ``norm=1``).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = MLPClassifier(early_stopping=True, random_state=0)
    >>> attack = ProjectedGradientDescent(victim, eps=0.2, bounds=(0, 1))
    >>> attack = attack.fit(X[:1000] / 16, y[:1000])
    >>> result = attack.run(X[1000:1100] / 16, y[1000:1100])
    >>> bool(result.success.mean() > 0.9)
    True
    """

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **shared("eps_unit"),
        **WITH_CONFIDENCE,
        **shared(
            "step_size",
            "max_iter",
            "loss",
            "n_restarts",
            "random_start",
            "early_stopping",
            "precision",
            "random_state",
        ),
        "norm": norms(np.inf, 2, 1),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        step_size: float | None = None,
        max_iter: int = 40,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy",
        n_restarts: int = 1,
        random_start: bool = False,
        early_stopping: bool = True,
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
        self.step_size = step_size
        self.max_iter = max_iter
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.loss = loss
        self.n_restarts = n_restarts
        self.random_start = random_start
        self.early_stopping = early_stopping
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
