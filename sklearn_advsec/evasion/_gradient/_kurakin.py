"""The iterative attacks of Kurakin et al. 2016."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from .._base import WITH_CONFIDENCE, shared
from ._base import GradientAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class BasicIterativeMethod(GradientAttack):
    r"""Basic iterative method: the fast gradient sign method in small steps.

    .. math:: x^{t+1} = \mathrm{Clip}_{x, \epsilon}
        \left(x^t + \alpha \, \mathrm{sign}(\nabla_x J(x^t, y))\right)

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound on each feature, in its units.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    step_size : float, default=None
        Length of a step, in the norm. None is ``1.25 * eps / max_iter``.
    max_iter : int, default=10
        Number of steps.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
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
    ProjectedGradientDescent : The same for other norms, with restarts.

    References
    ----------
    .. [1] A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical
       world", arXiv:1607.02533 (Section 2.2; the number of steps there is about 1.25
       times eps over the step).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.evasion import BasicIterativeMethod
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = BasicIterativeMethod(SVC(), eps=0.5).fit(X, y)
    >>> attack.estimator_.score(X, y) > 0.9 > 0.8 > attack.score(X, y)
    True
    """

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **shared("eps_unit"),
        **WITH_CONFIDENCE,
        **shared("step_size", "max_iter", "early_stopping", "precision"),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        step_size: float | None = None,
        max_iter: int = 10,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        early_stopping: bool = True,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        precision: Literal["full", "mixed"] = "full",
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.eps = eps
        self.eps_unit = eps_unit
        self.step_size = step_size
        self.max_iter = max_iter
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.early_stopping = early_stopping
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.precision = precision
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _step_size(self, ball):
        return self.step_size or 1.25 * ball.radius / self.max_iter


class IterativeLeastLikely(GradientAttack):
    r"""Iterative least-likely class method: turn a row into what it looks least like.

    .. math:: x^{t+1} = \mathrm{Clip}_{x, \epsilon}
        \left(x^t - \alpha \, \mathrm{sign}(\nabla_x J(x^t, y_{LL}))\right), \quad
        y_{LL} = \arg\min_y p(y | x)

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; see :class:`EvasionAttack`. Of a regressor, no direction is the
        least likely.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound on each feature, in its units.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    step_size : float, default=None
        Length of a step, in the norm. None is ``1.25 * eps / max_iter``.
    max_iter : int, default=10
        Number of steps.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
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
    BasicIterativeMethod : Away from the label, not towards a class.
    ProjectedGradientDescent : Takes any target.

    References
    ----------
    .. [1] A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical
       world", arXiv:1607.02533 (Section 2.3).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import IterativeLeastLikely
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = IterativeLeastLikely(LogisticRegression(max_iter=1000), eps=3.0)
    >>> result = attack.fit(X, y).run(X[:1])
    >>> bool(result.success[0]), int(result.y_pred[0])
    (True, 2)
    """

    goal = "targeted"
    target = "least_likely"

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **shared("eps_unit"),
        "confidence": WITH_CONFIDENCE["confidence"],
        **shared("step_size", "max_iter", "early_stopping", "precision"),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        step_size: float | None = None,
        max_iter: int = 10,
        confidence: float | None = None,
        early_stopping: bool = True,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        precision: Literal["full", "mixed"] = "full",
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.eps = eps
        self.eps_unit = eps_unit
        self.step_size = step_size
        self.max_iter = max_iter
        self.confidence = confidence
        self.early_stopping = early_stopping
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.precision = precision
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _step_size(self, ball):
        return self.step_size or 1.25 * ball.radius / self.max_iter
