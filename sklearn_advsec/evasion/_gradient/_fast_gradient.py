"""Fast gradient method (Goodfellow et al. 2014)."""

import numpy as np
import torch

from ...threat import LpBall
from .._base import WITH_CONFIDENCE, norms
from .._state import record_last
from ._base import GradientAttack


class FastGradientMethod(GradientAttack):
    r"""Fast gradient (sign) method: one step, as far as the budget goes.

    The loss is taken to be linear, and its maximum over ball and box is found in closed
    form. For ``norm=np.inf`` it is the fast gradient sign method,
    :math:`x + \epsilon \, \mathrm{sign}(\nabla_x J(x, y))`, clipped.

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; it needs a view in :mod:`sklearn_advsec.differentiable`. It is cloned
        and fitted in `fit`; wrap one that is fitted already as
        ``FrozenEstimator(estimator)``, and a torch module as
        :class:`~sklearn_advsec.pretrained.PretrainedModule`. None makes a prototype for
        scorers, displays and defenses.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm that bounds the perturbation.
    eps : float or array-like of shape (n_features,), default=0.1
        The bound, in the units of the features; an array gives each feature its own (see
        :class:`~sklearn_advsec.threat.LpBall`).
    goal : {"misclassification", "targeted", "confidence_reduction"}, \
            default="misclassification"
        Any other class; the class `target`; or a lower confidence in the present class.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``: for all rows, the one that the victim
        finds least likely, or one per row. `run` takes one too.
    confidence : float, default=None
        A row is a success only when the victim gives the wanted class (any other one, for
        "misclassification") at least this probability. For "confidence_reduction": when
        it gives the present class at most this one; None is 0.5.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that adversarial rows stay in. With "data", the range of each column seen
        in `fit` (of all pixels together, for images), widened to hold the row itself.
        Numbers or arrays that broadcast to a row set it.
    constraints : FeatureConstraints, default=None
        What adversarial rows have to keep. The victim is then asked about valid rows
        only, `eps`, steps and distances are in units of each feature's `scale`, and
        `bounds` of "data" give way to those of the constraints. See
        :class:`~sklearn_advsec.threat.FeatureConstraints`.
    max_queries : int, default=None
        How often the victim may be asked about each row; a gradient counts once.
    max_total_queries : int, default=None
        How many rows may be sent to the victim in one `run`. When they are spent,
        :class:`~sklearn_advsec.exceptions.QueryBudgetExceeded` carries what was found.
    batch_size : int or "auto", default="auto"
        How many rows go through the victim at once. "auto" measures what a row keeps in
        memory, so that a batch stays in the processor's cache.
    n_jobs : int, default=None
        Number of joblib jobs over chunks of rows. The result does not depend on it.
    verbose : int, default=0
        Whether to print progress.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    box_ : Box
        The box that rows stay in.
    batch_size_ : int
        The batch size in use.
    row_shape_ : tuple of int
        The shape of one row.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    NoGradientError
        If the victim has no differentiable view.

    References
    ----------
    .. [1] I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial
       examples", arXiv:1412.6572 (Section 4).
    .. [2] A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical
       world", arXiv:1607.02533 (Section 2.1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> attack = FastGradientMethod(LogisticRegression(), eps=0.1).fit(X, y)
    >>> attack.estimator_.score(X, y) > 0.9 > 0.5 > attack.score(X, y)
    True
    """

    _parameter_constraints = {
        **GradientAttack._parameter_constraints,
        **WITH_CONFIDENCE,
        "norm": norms(np.inf, 2, 1),
    }

    def __init__(
        self,
        estimator=None,
        *,
        norm=np.inf,
        eps=0.1,
        goal="misclassification",
        target=None,
        confidence=None,
        bounds="data",
        constraints=None,
        max_queries=None,
        max_total_queries=None,
        batch_size="auto",
        n_jobs=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.bounds = bounds
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _steps(self, state, start, early_stopping):
        """Take the one step, from x itself (`start` is for attacks with restarts)."""
        access, rows = state.access, state.open_rows()
        x, goal = access.x[rows], state.goal.select(rows)
        if not len(rows) or access.affordable(rows) < 2:
            return rows, x
        logits, gradient = access.gradient(x, rows, goal.objective)
        if early_stopping:
            at = torch.nonzero(goal.reached(logits)).flatten()
            record_last(state, rows[at], x[at])
        delta = LpBall(self.norm, self.eps).maximize(
            gradient, state.lower[rows], state.upper[rows]
        )
        left = ~state.finished[rows]
        return rows[left], (x + delta)[left]
