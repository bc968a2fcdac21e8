"""Networks of one hidden layer of ReLUs, hyperplane by hyperplane."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from .._rows import is_dataframe
from ..exceptions import QueryBudgetExceeded
from ._base import ExtractionAttack
from ._copies import network_copy
from ._kinks import find_kinks
from ._parameters import Probes
from ._relu_fit import Logits, NetworkFit, lies_on

# A copy whose logits are off by no more than this (relative) is taken for exact.
_EXACT = 1e-6


class ReLUExtraction(ExtractionAttack):
    r"""Steal a network with one hidden layer of ReLUs, up to functional equivalence.

    Along a line, the logits of such a network are piecewise linear, and each bend lies on
    the hyperplane of one hidden unit. The difference of the gradients on the two sides is
    the outer product of that unit's incoming and outgoing weights. Once all hyperplanes
    are known, :math:`f(x) = \sum_i a_i\,\mathrm{relu}(w_i x + b_i) + A x + c` is linear
    in what is left, and :math:`A` says which side of each hyperplane is the active one.

    Lines are tried until one crosses no new hyperplane and the copy fits more rows than
    it has unknowns, or until `max_lines` or `max_queries` is reached; the search always
    ends, and says how good the copy is. Affine steps before the network (scalers, PCA)
    become a part of it.

    Parameters
    ----------
    estimator : classifier
        The victim: unfitted, a `FrozenEstimator`, or any object that answers with
        scores. They have to be exact in float64: with rounded or float32 scores the
        bends cannot be located, which raises a ValueError.
    max_lines : int, default=30
        How many lines to search at most.
    max_queries : int, default=None
        How many rows may be sent in all. If they are spent, the copy is made of what is
        known.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_`.
    warm_start : bool, default=False
        Whether the next fit goes on with the answers that were paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Draws the lines.

    Attributes
    ----------
    copy_ : MLPClassifier
        The stolen network.
    coefs_, intercepts_ : list of ndarray
        Its weights, as in `MLPClassifier`. Units come in any order, and each is known up
        to a positive factor that moves between its incoming and outgoing weights.
    n_hidden_ : int
        Number of hidden units found.
    n_linear_ : int
        Number of units added to stand for victim's units that are active everywhere that
        was looked, which act as a linear map.
    max_error_ : float
        Largest error of the copy's logits on the rows it was fitted to, which are more
        than it has unknowns, relative to the largest logit.
    exact_ : bool
        Whether that is as good as float64 allows.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    Raises
    ------
    QueryBudgetExceeded
        If `max_queries` does not even do for a linear copy.
    ValueError
        If the scores are not exact enough.

    Warns
    -----
    UserWarning
        If the copy is not exact.

    References
    ----------
    .. [1] M. Jagielski et al., "High accuracy and high fidelity extraction of neural
       networks", USENIX Security 2020, arXiv:1909.01838 (Section 6: functionally
       equivalent extraction; 6.2: search along a line).
    .. [2] N. Carlini, M. Jagielski, I. Mironov, "Cryptanalytic extraction of neural
       network models", CRYPTO 2020, arXiv:2003.04884 (Section 4.1: one hidden layer).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.extraction import ReLUExtraction
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = MLPClassifier(5, solver="lbfgs", max_iter=60, tol=1e-2, random_state=0)
    >>> attack = ReLUExtraction(victim).fit(X, y)
    >>> attack.exact_, attack.fidelity(X)
    (True, 1.0)
    """

    knowledge = "score"

    _parameter_constraints = {
        **ExtractionAttack._parameter_constraints,
        "max_lines": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        *,
        max_lines=30,
        max_queries=None,
        batch_size=1024,
        query_log=False,
        warm_start=False,
        verbose=0,
        random_state=0,
    ):
        self.estimator = estimator
        self.max_lines = max_lines
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def _steal(self, oracle, array, y):
        if array.ndim != 2:
            raise ValueError(f"X must have two dimensions; got {array.ndim}.")
        probes = Probes(array, oracle, check_random_state(self.random_state))
        victim = Logits(oracle, probes, self._score_kind)
        planes = np.empty((0, array.shape[1] + 1))
        rows = victim.spread(victim.n_features + 10)
        try:
            logits = victim(rows)
        except QueryBudgetExceeded:
            raise QueryBudgetExceeded(
                f"max_queries={self.max_queries} is not enough: even a copy without "
                f"hidden units needs {len(rows)} queries."
            )
        self.classes_ = self._victim_classes(np.arange(logits.shape[1]))
        best, n_sides = NetworkFit(rows, logits, planes), 0
        try:
            victim.measure_noise()
            for _ in range(self.max_lines):
                planes, sides = self._search_line(victim, planes, best)
                if not len(sides) and best.error <= _EXACT:
                    break
                if len(sides):  # so that there are rows on both sides of each plane
                    rows = np.concatenate([rows, sides])
                    logits = np.concatenate([logits, victim(sides)])
                    n_sides += len(sides)
                # A few rows more than unknowns: what they leave is the error.
                wanted = int(1.2 * (len(planes) + victim.n_features + 1)) + 10 + n_sides
                for _ in range(5):  # some may say nothing
                    lacking = wanted - int(np.isfinite(logits).all(axis=1).sum())
                    if lacking <= 0:
                        break
                    new = victim.spread(lacking)
                    logits = np.concatenate([logits, victim(new)])
                    rows = np.concatenate([rows, new])
                fit = NetworkFit(rows, logits, planes)
                best = min(best, fit, key=lambda fit: fit.error)
        except QueryBudgetExceeded:
            pass
        self._finish(best, victim)

    def _check_X(self, X, *, reset):
        X = super()._check_X(X, reset=reset)
        return X if is_dataframe(X) else X.astype(np.float64, copy=False)

    def _search_line(self, victim, planes, fit):
        """Add the hyperplanes that a new line crosses.

        Returns
        -------
        planes : ndarray of shape (n_planes, n_features + 1)
            All that are known.
        sides : ndarray of shape (n_rows, n_features)
            Rows on both sides of each new one, which the victim was asked about.
        """
        start = fit.worst
        towards = victim.spread(1)[0]
        direction = towards - start
        found = list(planes)

        def along(t):
            return victim(start + t[:, None] * direction)

        low, high = victim.visible(along)
        kinks, _ = find_kinks(along, low, high, noise=victim.noise)
        borders = np.concatenate([[low], kinks, [high]])
        middles = start + (borders[:-1, None] + borders[1:, None]) / 2 * direction
        room = np.diff(borders) * np.linalg.norm(direction)
        jacobians = {}

        def jacobian(i):  # in the middle of the piece before bend i
            if i not in jacobians:
                jacobians[i] = victim.jacobian(middles[i], 1e-3 * room[i])
            return jacobians[i]

        for i, t in enumerate(kinks):
            at = start + t * direction
            if lies_on(found, at):
                continue
            jump = jacobian(i + 1) - jacobian(i)
            if not np.isfinite(jump).all():
                continue
            _, sizes, basis = np.linalg.svd(jump, full_matrices=False)
            if len(sizes) > 1 and sizes[1] > 1e-2 * sizes[0]:
                continue  # two units bend between the places of the two gradients
            found.append(np.append(basis[0], -basis[0] @ at))
        planes = np.reshape(found, (len(found), victim.n_features + 1))
        return planes, middles[list(jacobians)]

    def _finish(self, fit, victim):
        incoming, outgoing, bias, n_linear = fit.network()
        scale, center = victim.probes.scale, victim.probes.center
        weights = incoming[:, :-1] / scale
        offset = incoming[:, -1] - weights @ center
        self.copy_ = network_copy(self.classes_, [weights.T, outgoing.T], [offset, bias])
        self.coefs_, self.intercepts_ = self.copy_.coefs_, self.copy_.intercepts_
        self.n_hidden_, self.n_linear_ = len(fit.planes), n_linear
        self.max_error_ = float(fit.error)
        self.exact_ = bool(fit.error <= _EXACT)
        if not self.exact_:
            warnings.warn(
                f"the copy is not exact: with {len(fit.planes)} hidden units found, its "
                f"logits are off by up to {fit.error:.1e} of the largest. Either the "
                "victim is no network of one hidden layer of ReLUs, or max_queries or "
                "max_lines is too small.",
                stacklevel=4,
            )
