"""Natural evolution strategies by all scores, or the top k (Ilyas et al. 2018)."""

from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ...victim import ScoreAccess
from ...victim._validation import name_of
from .._evolution import EvolutionStrategy


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
    estimator : classifier, default=None
        The victim; it needs `predict_proba` or `decision_function`. Where the class of
        the largest score may not be its label, as of an `SVC` of several classes, what
        `predict` says of a success costs a query more. It is cloned and fitted in `fit`;
        wrap one that is fitted already as ``FrozenEstimator(estimator)``. None makes a
        prototype.
    eps : float or array-like of shape (n_features,), default=0.1
        The bound, in the units of the features; an array gives each feature its own.
    max_queries : int, default=1000
        How often the victim may be asked about each row.
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
        Any other class, or the class `target`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``.
    bounds : "data" or tuple (lower, upper), default="data"
        The box that adversarial rows stay in; "data" is the range seen in `fit`.
    constraints : FeatureConstraints, default=None
        What adversarial rows have to keep. The victim is then asked about valid rows
        only, `eps`, steps and distances are in units of each feature's `scale`, and
        `bounds` of "data" give way to those of the constraints. See
        :class:`~sklearn_advsec.threat.FeatureConstraints`.
    max_total_queries : int, default=None
        How many rows may be sent to the victim in one `run`.
    batch_size : int or "auto", default="auto"
        How many rows go through the victim at once.
    n_jobs : int, default=None
        Number of joblib jobs over chunks of rows. The result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of the directions.
    verbose : int, default=0
        Whether to print progress.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    box_ : Box
        The box that rows stay in.
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`: where targeted attacks with `top_k`
        begin.
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
    ValueError
        If `top_k` is given and the victim has no `predict_proba`.

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
        "goal": [StrOptions({"misclassification", "targeted"})],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        max_queries=1000,
        n_samples=50,
        sigma=None,
        step_size=None,
        top_k=None,
        goal="misclassification",
        target=None,
        bounds="data",
        constraints=None,
        max_total_queries=None,
        batch_size="auto",
        n_jobs=None,
        random_state=0,
        verbose=0,
    ):
        self.estimator = estimator
        self.eps = eps
        self.max_queries = max_queries
        self.n_samples = n_samples
        self.sigma = sigma
        self.step_size = step_size
        self.top_k = top_k
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.constraints = constraints
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _open_access(self, X, max_total_queries=None):
        if self.top_k is None:
            return super()._open_access(X, max_total_queries)
        return TopKAccess(
            self.estimator_,
            X,
            top_k=self.top_k,
            max_queries=self.max_queries,
            max_total_queries=max_total_queries,
            batch_size=self.batch_size_,
        )

    def _search(self, active, state):
        if self.top_k is not None and self.goal == "targeted":
            self._approach(active, state)
            return
        eps, step, sigma = self._prepare(active)
        while True:
            active.give_up(active.left() < 1)
            if not len(active):
                return
            active.point = active.delta
            gradient = self._gradient(active, state, sigma)
            delta = torch.clamp(active.delta + gradient.sign() * step, -eps, eps)
            active.candidate = torch.clamp(delta, active.lower, active.upper)
            active.give_up(active.left() < 1)
            if not len(active):
                return
            x_adv = active.x + active.candidate
            answer = active.ask(x_adv)
            active.delta, active.predicted = active.candidate, answer.predicted
            active.settle(x_adv, answer)

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

    def scores(self, x, rows=None):
        """Ask for probabilities; see `ScoreAccess.scores`."""
        # A stable sort: of equal ones the first class counts, as it does in predict.
        seen, classes = super().scores(x, rows).sort(dim=1, descending=True, stable=True)
        k = self._top_k
        return torch.zeros_like(seen).scatter(1, classes[:, :k], seen[:, :k])
