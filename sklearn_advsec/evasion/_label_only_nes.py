"""Natural evolution strategies by labels alone (Ilyas et al. 2018)."""

from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ._evolution import EvolutionStrategy


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
    estimator : classifier, default=None
        The victim; only its `predict` is used. It is cloned and fitted in `fit`; wrap one
        that is fitted already as ``FrozenEstimator(estimator)``. None makes a prototype.
    eps : float or array-like of shape (n_features,), default=0.1
        The bound, in the units of the features; an array gives each feature its own.
    max_queries : int, default=5000
        How often the victim may be asked about each row.
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
        Any other class, or the class `target`.
    target : class label or array-like of labels, default=None
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
        Seed of directions, noise and first points.
    verbose : int, default=0
        Whether to print progress.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    box_ : Box
        The box that rows stay in.
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`.
    batch_size_ : int
        The batch size in use.
    row_shape_ : tuple of int
        The shape of one row.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where `X` has string names.

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
        "goal": [StrOptions({"misclassification", "targeted"})],
        "n_smooth": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        max_queries=5000,
        n_samples=20,
        n_smooth=10,
        sigma=None,
        step_size=None,
        start="data",
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
        self.n_smooth = n_smooth
        self.sigma = sigma
        self.step_size = step_size
        self.start = start
        self.goal = goal
        self.target = target
        self.bounds = bounds
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
