"""ReLU networks of one hidden layer, hyperplane by hyperplane."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from .._rows import is_dataframe
from .._sklearn import Interval
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

# A copy whose logits are off by no more than this (relative) is taken for exact, once so
# many lines crossed nothing new.
_EXACT = 1e-6
_QUIET_LINES = 3

# Units with outgoing weights below this (relative) are none.
_IDLE = 1e-8

# So many corners of the box around X are asked about: all of them up to ten features.
_MOST_CORNERS = 1024


class Logits:
    """The victim's centred logits as a function of standardised features.

    Parameters
    ----------
    oracle : Oracle
        The victim.
    probes : Probes
        The scale of the features.
    kind : {"probability", "logit"}
        What the scores are.
    """

    def __init__(self, oracle, probes, kind):
        self.oracle = oracle
        self.probes = probes
        self._kind = kind
        self._is_exact = False
        self.n_features = probes.n_features
        self.noise = 1e-14
        pool = probes.standardize(probes.pool)
        self._pool, self._low, self._high = pool, pool.min(axis=0), pool.max(axis=0)
        constant = self._low == self._high
        self._low[constant] -= 1
        self._high[constant] += 1

    def __call__(self, rows):
        return self.ask(rows)[0]

    def ask(self, rows):
        """Return the logits, NaN where they have lost their digits, and the winners."""
        sent = self.oracle.as_sent(self.probes.center + rows * self.probes.scale)
        scores = self.oracle.ask(sent)
        if not self._is_exact:  # the first ones tell
            self._check_exact(scores)
            self._is_exact = True
        logits = centered_logits(scores, self._kind)
        if self._kind == "probability":
            # Of two classes, one probability is 1 less the other, and loses its digits.
            least = _LEAST_OF_TWO if scores.shape[1] == 2 else np.finfo(np.float64).tiny
            logits[scores.min(axis=1) < least] = np.nan
        return logits, scores.argmax(axis=1)

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
        rows = self.even(n)
        pool = self._pool[rng.randint(len(self._pool), size=n)]
        share = rng.choice([0.0, 0.5, 1.0], size=(n, 1))
        return share * rows + (1 - share) * pool

    def even(self, n):
        """Rows drawn evenly from the box around the pool."""
        size = n, self.n_features
        return self.probes.rng.uniform(self._low, self._high, size=size)

    @property
    def has_few_corners(self):
        """Whether all corners of the box around the pool can be asked about."""
        return 2.0**self.n_features <= _MOST_CORNERS

    def corners(self):
        """Corners of that box: all of them where they are few, else some are drawn.

        A hidden unit that is active anywhere in the box is so in a corner, and most
        active there.
        """
        d = self.n_features
        if self.has_few_corners:
            high = np.arange(2**d)[:, None] >> np.arange(d) & 1
        else:
            high = self.probes.rng.randint(2, size=(_MOST_CORNERS, d))
        return np.where(high == 1, self._high, self._low)

    def unsaturated(self, samples, n, n_steps=50):
        """Find rows between classes, where a victim that is certain elsewhere is not.

        Segments between rows that it answers differently are bisected, all at once, until
        their middle is visible.
        """
        rng = self.probes.rng
        rows, winners = samples.rows, samples.winners
        a, b = rng.randint(len(rows), size=(2, 20 * n))
        apart = np.flatnonzero(winners[a] != winners[b])[:n]
        near, far, winner = rows[a[apart]], rows[b[apart]], winners[a[apart]]
        shares = rng.uniform(0.3, 0.7, size=(n_steps, len(near), 1))  # not only middles
        open_ = np.ones(len(near), dtype=bool)
        for share in shares:
            if not open_.any():
                break
            middle = near[open_] + share[open_] * (far - near)[open_]
            logits, found = samples.add(self, middle)
            at = np.flatnonzero(open_)
            same = found == winner[at]
            near[at[same]], far[at[~same]] = middle[same], middle[~same]
            open_[at[np.isfinite(logits).all(axis=1)]] = False

    def jacobian(self, at, step):
        """Gradients of the logits, of shape (n_classes, n_features)."""
        rows = at + np.vstack([np.zeros(self.n_features), step * np.eye(self.n_features)])
        values = self(rows)
        return (values[1:] - values[0]).T / step

    def measure_noise(self, visible):
        """Measure how exact the scores are, by their second differences.

        Parameters
        ----------
        visible : ndarray of shape (n_features,)
            A row whose logits have their digits; others are drawn.
        """
        noises = []
        starts = np.concatenate([self.spread(4), visible[None]])
        for at, towards in zip(starts, self.spread(5), strict=True):
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


class Samples:
    """Rows that the victim was asked about, its logits and its labels.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, n_features)
        Standardised rows.
    logits : ndarray of shape (n_rows, n_classes)
        Centred logits, NaN where they have lost their digits.
    winners : ndarray of int, shape (n_rows,)
        The classes with the largest score, which saturated rows have, too.
    """

    def __init__(self, victim, rows):
        self.rows = rows
        self.logits, self.winners = victim.ask(rows)

    def add(self, victim, rows):
        """Ask about more rows; return what `Logits.ask` does."""
        logits, winners = victim.ask(rows)
        self.rows = np.concatenate([self.rows, rows])
        self.logits = np.concatenate([self.logits, logits])
        self.winners = np.concatenate([self.winners, winners])
        return logits, winners

    @property
    def visible(self):
        """Which rows give equations."""
        return np.isfinite(self.logits).all(axis=1)

    def top_up(self, victim, wanted):
        """Ask about rows until as many as wanted give equations, if that can be had."""
        for _ in range(5):
            lacking = wanted - int(self.visible.sum())
            if lacking <= 0:
                return
            before = len(self.rows)
            self.add(victim, victim.spread(lacking))
            if 2 * self.visible[before:].sum() < lacking:
                victim.unsaturated(self, lacking)


class NetworkFit:
    """The network with given hyperplanes that fits best, and how well.

    Parameters
    ----------
    samples : Samples
        Answers; those with logits give the equations.
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
    determined : bool
        Whether the equations are more than the unknowns, by five at least, and tell
        every unknown.
    """

    def __init__(self, samples, planes):
        visible = samples.visible
        if not visible.any():
            raise ValueError(
                "the victim's probabilities are so near to 0 and 1 on all of "
                f"{len(visible)} rows that they say nothing. Give X of another region."
            )
        rows, logits = samples.rows[visible], samples.logits[visible]
        ones = np.column_stack([rows, np.ones(len(rows))])
        while True:
            design = np.column_stack([np.maximum(ones @ planes.T, 0), ones])
            solution, _, rank, _ = np.linalg.lstsq(design, logits, rcond=1e-13)
            outgoing = solution[: len(planes)].T
            # Two bends taken for one give a hyperplane that no unit has: no weight.
            size = np.abs(outgoing).max(axis=0)
            idle = size <= _IDLE * size.max(initial=0)
            if not idle.any():
                break
            planes = planes[~idle]
        self.planes, self.outgoing = planes, outgoing
        self.affine = solution[len(planes) :].T
        n_unknown = design.shape[1]
        self.determined = len(rows) >= n_unknown + 5 and rank == n_unknown
        errors = np.abs(design @ solution - logits).max(axis=1)
        self.error = errors.max() / (1 + np.abs(logits).max())
        self.worst = rows[errors.argmax()]

    def errors(self, samples):
        """Errors relative to the largest logit; 0 or 1 where only the label shows."""
        rows, logits, visible = samples.rows, samples.logits, samples.visible
        ones = np.column_stack([rows, np.ones(len(rows))])
        found = np.maximum(ones @ self.planes.T, 0) @ self.outgoing.T
        found += ones @ self.affine.T
        errors = (found.argmax(axis=1) != samples.winners).astype(float)
        largest = 1 + np.abs(logits[visible]).max(initial=0)
        errors[visible] = np.abs(found - logits)[visible].max(axis=1, initial=0) / largest
        return errors

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


class Checks:
    """What fresh rows, and corners of the box, said of the networks that seemed exact.

    Attributes
    ----------
    agreed : bool
        Whether the last network agreed with the victim on all rows.
    proven : bool
        Whether all corners were among them, and the logits of all were visible.
    bound : float
        Share of rows, drawn as the fresh ones are, that it may still get wrong: an upper
        bound at 95 % confidence, of which each attempt spends its part.
    """

    def __init__(self):
        self.agreed = self.proven = False
        self.bound = 1.0
        self._n_tries = 0

    def run(self, victim, samples, fit, n_rows):
        """Ask about fresh rows; return where the network is wrong, of all samples."""
        self._n_tries += 1
        half = n_rows // 2
        rows = [victim.spread(half), victim.even(n_rows - half)]
        if self._n_tries == 1 or not victim.has_few_corners:
            rows.append(victim.corners())
        samples.add(victim, np.concatenate(rows))
        wrong = fit.errors(samples) > _EXACT
        self.agreed = not wrong.any()
        if self.agreed:
            self.proven = bool(victim.has_few_corners and samples.visible.all())
            chance = 0.05 / (self._n_tries * (self._n_tries + 1))
            self.bound = 0.0 if self.proven else min(-np.log(chance) / n_rows, 1.0)
        return wrong


def _quality(fit):
    """Order fits: by what is known, then by the error; all exact ones are equal."""
    return not fit.determined, max(fit.error, _EXACT)


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


class ReLUExtraction(ExtractionAttack):
    r"""Steal a network with one hidden layer of ReLUs, up to functional equivalence.

    Along a line, the logits of such a network are piecewise linear, and each bend lies on
    the hyperplane of one hidden unit. The difference of the gradients on the two sides is
    the outer product of that unit's incoming and outgoing weights. Once all hyperplanes
    are known, :math:`f(x) = \sum_i a_i\,\mathrm{relu}(w_i x + b_i) + A x + c` is linear
    in what is left, and :math:`A` says which side of each hyperplane is the active one.

    Lines are tried until three cross no new hyperplane, the copy fits more rows than it
    has unknowns, and `n_checks` fresh rows agree as well as the corners of the box around
    `X` (all of them up to ten features, else 1,024), or until `max_lines` or
    `max_queries` is reached; the search always ends, and says how good the copy is. A
    hidden unit is most active in a corner, so that none can hide from all of them, as
    long as the logits of all rows show. Of a victim that is
    certain nearly everywhere, the equations are taken from between its classes, and rows
    without logits check the label. Affine steps before the network (scalers, PCA)
    become a part of it. Its scores have to be exact in float64: with rounded or float32
    scores the bends cannot be located, which raises a ValueError.

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    max_lines : int, default=30
        How many lines to search at most.
    n_checks : int, default=300
        Number of fresh rows, half of them even in the box of `X` and half near its rows,
        that have to agree, beside the corners, before the search ends.
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
        Largest error of the copy's logits on the rows that were asked about and show
        them, relative to the largest logit.
    exact_ : bool
        Whether the copy is proven to be the victim's function in the box around `X`, to
        a millionth of the largest logit, if the victim is a network of one hidden layer
        of ReLUs: the equations are more than the unknowns, every row that was asked about
        agrees, all corners of the box among them, and shows its logits. Of more than ten
        features, or where answers are so near to 0 and 1 that logits have lost their
        digits, that is never proven: see `inexact_share_`.
    inexact_share_ : float
        Upper bound, at 95 % confidence, for the share of rows on which the copy is wrong,
        of rows drawn as `n_checks` are: 0 where exact, about 3.7 divided by `n_checks`
        where all rows agree, more where earlier checks failed, and 1 where no check was
        passed. Wrong is a logit that is off by a millionth of the largest, or the label
        where only that shows.
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
        If the copy did not pass the checks, or only with labels for many rows.

    See Also
    --------
    EquationSolving : For linear models.
    KnockoffNets : For networks of any form, not exactly.

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
    >>> attack.exact_, attack.inexact_share_, attack.fidelity(X)
    (True, 0.0, 1.0)
    """

    knowledge = "score"

    _parameter_constraints = {
        **ExtractionAttack._parameter_constraints,
        "max_lines": [Interval(Integral, 1, None, closed="left")],
        "n_checks": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        max_lines: int = 30,
        n_checks: int = 300,
        max_queries: int | None = None,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.max_lines = max_lines
        self.n_checks = n_checks
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
        victim = Logits(oracle, probes, self._score_kind())
        planes = np.empty((0, array.shape[1] + 1))
        rows = victim.spread(victim.n_features + 10)
        try:
            samples = Samples(victim, rows)
        except QueryBudgetExceeded:
            raise QueryBudgetExceeded(
                f"max_queries={self.max_queries} is not enough: even a copy without "
                f"hidden units needs {len(rows)} queries."
            )
        self.classes_ = self._victim_classes(np.arange(samples.logits.shape[1]))
        best, checks, n_quiet, n_sides = None, Checks(), 0, 0
        try:
            samples.top_up(victim, victim.n_features + 10)
            best = NetworkFit(samples, planes)
            victim.measure_noise(best.worst)
            for _ in range(self.max_lines):
                planes, sides = self._search_line(victim, planes, best, samples)
                if len(sides):  # so that there are rows on both sides of each plane
                    samples.add(victim, sides)
                    n_sides += len(sides)
                # A few rows more than unknowns: what they leave is the error.
                unknown = len(planes) + victim.n_features + 1
                samples.top_up(victim, int(1.2 * unknown) + 10 + n_sides)
                fit = NetworkFit(samples, planes)
                quiet = len(fit.planes) == len(best.planes) and fit.error <= _EXACT
                n_quiet = n_quiet + 1 if quiet else 0
                if fit.error <= _EXACT:
                    planes = fit.planes  # without those that no unit has
                best = min(fit, best, key=_quality)  # of equals, with more equations
                if n_quiet >= _QUIET_LINES and best.determined and best.error <= _EXACT:
                    wrong = checks.run(victim, samples, best, self.n_checks)
                    if checks.agreed:
                        break
                    # There may be more to find between classes.
                    victim.unsaturated(samples, min(int(wrong.sum()) + 5, 50))
                    n_quiet = 0
        except QueryBudgetExceeded:
            if best is None:
                best = NetworkFit(samples, planes)
        self._finish(best, checks, samples, victim)

    def _check_X(self, X, *, reset):
        X = super()._check_X(X, reset=reset)
        return X if is_dataframe(X) else X.astype(np.float64, copy=False)

    def _search_line(self, victim, planes, fit, samples):
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
        visible = samples.visible
        if victim.probes.rng.uniform() > visible.mean():
            # Most of a line elsewhere says nothing.
            towards = samples.rows[victim.probes.rng.choice(np.flatnonzero(visible))]
            if (towards == start).all():
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

    def _finish(self, fit, checks, samples, victim):
        incoming, outgoing, bias, n_linear = fit.network()
        scale, center = victim.probes.scale, victim.probes.center
        weights = incoming[:, :-1] / scale
        offset = incoming[:, -1] - weights @ center
        self.copy_ = network_copy(self.classes_, [weights.T, outgoing.T], [offset, bias])
        self.coefs_, self.intercepts_ = self.copy_.coefs_, self.copy_.intercepts_
        self.n_hidden_, self.n_linear_ = len(fit.planes), n_linear
        shown = fit.errors(samples)[samples.visible]
        self.max_error_ = float(shown.max(initial=0.0))
        self.exact_, self.inexact_share_ = checks.proven, float(checks.bound)
        n_hidden, n_saturated = len(fit.planes), int((~samples.visible).sum())
        if not checks.agreed:
            warnings.warn(
                "the copy is not exact, or was not checked: with "
                f"{n_hidden} hidden units found, its logits are off by up to "
                f"{self.max_error_:.1e} of the largest on the rows that were asked "
                "about. Either the victim is no network of one hidden layer of ReLUs, or "
                "it is so certain that its logits are seen too rarely, or max_queries or "
                "max_lines is too small.",
                stacklevel=4,
            )
        elif n_saturated:
            warnings.warn(
                f"the copy agrees on all {len(samples.rows)} rows that were asked about, "
                f"but {n_saturated} of them show the label only, as the victim is too "
                "certain there: units that matter among such rows may be missing. Up to "
                f"{self.inexact_share_:.2%} of rows may be wrong (95 % confidence); more "
                "n_checks find more.",
                stacklevel=4,
            )
