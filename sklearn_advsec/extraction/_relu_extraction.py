"""ReLU networks of one hidden layer, hyperplane by hyperplane."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from .._rows import is_dataframe
from ..exceptions import QueryBudgetExceeded
from ._base import ExtractionAttack
from ._kinks import find_kinks
from ._parameters import Probes, network_copy
from ._victim import centered_logits, decimals_of

# Answers whose logits are less exact than this (relative) hide the bends.
_MOST_NOISE = 1e-9

# Probabilities of one of two classes below this hide the bends.
_LEAST_OF_TWO = 1e-5

# How far lines are prolonged beyond the two rows they go through, in their distance.
_REACH = 2.0

# Units with outgoing weights below this (relative) are none.
_IDLE = 1e-8


class Logits:
    """The victim's centred logits as a function of standardised features.

    Parameters
    ----------
    oracle : Oracle
        The victim.
    probes : Probes
        The scale of the features.
    kind_of : callable
        Tells whether scores are a "probability" or a "logit"; the first ones are looked
        at.
    """

    def __init__(self, oracle, probes, kind_of):
        self.oracle = oracle
        self.probes = probes
        self._kind_of = kind_of
        self._kind = None
        self.n_features = probes.n_features
        self.noise = 1e-14
        pool = probes.standardize(probes.pool)
        self._pool, self._low, self._high = pool, pool.min(axis=0), pool.max(axis=0)
        constant = self._low == self._high
        self._low[constant] -= 1
        self._high[constant] += 1

    def __call__(self, rows):
        sent = self.oracle.as_sent(self.probes.center + rows * self.probes.scale)
        scores = self.oracle.ask(sent)
        if self._kind is None:
            self._kind = self._kind_of(scores)
            self._check_exact(scores)
        logits = centered_logits(scores, self._kind)
        if self._kind == "probability":
            # Of two classes, one probability is 1 less the other, and loses its digits.
            least = _LEAST_OF_TWO if scores.shape[1] == 2 else np.finfo(np.float64).tiny
            logits[scores.min(axis=1) < least] = np.nan
        return logits

    def visible(self, along, n=17):
        """Find the longest part of a line on which the answers keep their digits."""
        at = np.linspace(-_REACH, 1 + _REACH, n)
        fine = np.append(np.isfinite(along(at)).all(axis=1), False)
        ends = np.flatnonzero(~fine)
        lengths = np.diff(ends, prepend=-1) - 1
        last = ends[lengths.argmax()] - 1
        first = last - lengths.max() + 1
        return at[min(first, last)], at[max(last, 0)]

    def spread(self, n):
        """Rows of the pool, rows of the box around it, and rows between the two."""
        rng = self.probes.rng
        rows = rng.uniform(self._low, self._high, size=(n, self.n_features))
        pool = self._pool[rng.randint(len(self._pool), size=n)]
        share = rng.choice([0.0, 0.5, 1.0], size=(n, 1))
        return share * rows + (1 - share) * pool

    def jacobian(self, at, step):
        """Gradients of the logits, of shape (n_classes, n_features)."""
        rows = at + np.vstack([np.zeros(self.n_features), step * np.eye(self.n_features)])
        values = self(rows)
        return (values[1:] - values[0]).T / step

    def measure_noise(self):
        """Measure how exact the scores are, by their second differences."""
        noises = []
        for at, towards in zip(self.spread(5), self.spread(5), strict=True):
            steps = 1e-6 * np.arange(4)[:, None]
            values = self(at + steps * (towards - at))
            size = 1 + np.abs(values).max()
            noises.append(np.abs(np.diff(values, n=2, axis=0)).max() / size)
        noises = [noise for noise in noises if np.isfinite(noise)] or [1e-14]
        self.noise = max(float(np.median(noises)), 1e-15)
        if self.noise > _MOST_NOISE:
            _not_exact(f"exact to {self.noise:.0e} only")

    def _check_exact(self, scores):
        """Refuse rounded scores, whose steps are too wide for `measure_noise` to see."""
        decimals = decimals_of(scores)
        if decimals is not None:
            _not_exact(f"rounded to {decimals} decimals")
        if np.array_equal(scores, scores.astype(np.float32)):
            _not_exact("in float32")


class NetworkFit:
    """The network with given hyperplanes that fits best, and how well.

    Parameters
    ----------
    rows, logits : ndarray
        Answers, more of them than there are unknowns.
    planes : ndarray of shape (n_planes, n_features + 1)
        Hyperplanes, of unit length.

    Attributes
    ----------
    planes : ndarray of shape (n_kept, n_features + 1)
        Those that have any weight.
    error : float
        Largest error on the rows, relative to the largest logit.
    worst : ndarray of shape (n_features,)
        The row where it is.
    """

    def __init__(self, rows, logits, planes):
        fine = np.isfinite(logits).all(axis=1)
        if not fine.any():
            raise ValueError(
                "the victim's probabilities are so near to 0 and 1 on all of "
                f"{len(rows)} rows that they say nothing. Give X of another region."
            )
        rows, logits = rows[fine], logits[fine]
        ones = np.column_stack([rows, np.ones(len(rows))])
        design = np.column_stack([np.maximum(ones @ planes.T, 0), ones])
        solution = np.linalg.lstsq(design, logits, rcond=1e-13)[0].T
        outgoing = solution[:, : len(planes)]
        # Two bends taken for one give a hyperplane that no unit has: it gets no weight.
        idle = np.abs(outgoing).max(axis=0) <= _IDLE * np.abs(outgoing).max(initial=0)
        self.planes, self.outgoing = planes[~idle], outgoing[:, ~idle]
        self.affine = solution[:, len(planes) :]
        errors = np.abs(design @ solution.T - logits).max(axis=1)
        self.error = errors.max() / (1 + np.abs(logits).max())
        self.worst = rows[errors.argmax()]

    def network(self):
        """Return hidden weights with biases, output weights, biases, n_linear units."""
        planes, outgoing, affine = self.planes.copy(), self.outgoing, self.affine.copy()
        if len(planes):
            # relu(z) = z + relu(-z): the affine part is made of the units turned round.
            products = np.einsum("ki,id->kdi", outgoing, planes)
            coefficients = products.reshape(-1, len(planes))
            turned = np.linalg.lstsq(coefficients, -affine.ravel(), rcond=1e-10)[0] > 0.5
            affine += np.einsum("kdi,i->kd", products, turned)
            planes[turned] *= -1
        bias, linear = affine[:, -1], affine[:, :-1]
        size = np.abs(outgoing).max(initial=0) + np.abs(self.affine).max()
        u, sizes, basis = np.linalg.svd(linear, full_matrices=False)
        nonzero = sizes > 1e-6 * size
        # What is linear everywhere: x = relu(x) - relu(-x).
        basis = np.column_stack([basis[nonzero], np.zeros(nonzero.sum())])
        extra = np.concatenate([basis, -basis])
        loads = u[:, nonzero] * sizes[nonzero]
        if not len(planes) and not len(extra):  # a constant victim still needs a unit
            extra, loads = np.zeros((1, planes.shape[1])), np.zeros((len(bias), 1))
            return extra, loads, bias, 1
        hidden = np.concatenate([planes, extra])
        return hidden, np.column_stack([outgoing, loads, -loads]), bias, len(extra)


def _not_exact(what):
    raise ValueError(
        f"the victim's scores are {what}; ReLUExtraction needs them in float64 and not "
        "rounded. Use KnockoffNets or ActiveExtraction instead."
    )


def on_known_plane(planes, at):
    if not len(planes):
        return False
    distance = np.abs(np.array(planes) @ np.append(at, 1.0))
    return bool(distance.min() < 1e-5 * (1 + np.linalg.norm(at)))


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
    become a part of it. Its scores have to be exact in float64: with rounded or float32
    scores the bends cannot be located, which raises a ValueError.

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    max_lines : int, default=30
        How many lines to search at most.
    max_queries : int, default=None
        How many rows may be sent in all; see :class:`ExtractionAttack`.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_`.
    warm_start : bool, default=False
        Whether the next fit goes on from what was paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

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
        lengths = np.diff(borders) * np.linalg.norm(direction)
        jacobians = {}

        def jacobian(i):  # in the middle of the piece before bend i
            if i not in jacobians:
                jacobians[i] = victim.jacobian(middles[i], 1e-3 * lengths[i])
            return jacobians[i]

        for i, t in enumerate(kinks):
            at = start + t * direction
            if on_known_plane(found, at):
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
