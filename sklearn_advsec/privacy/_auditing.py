"""Empirical audits of differential privacy: lower bounds of epsilon."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, ndtr, ndtri
from scipy.stats import beta, binom
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._estimators import allows_nan, as_nets_take_them, check_trainable, told_classes
from .._rows import check_rows
from .._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _safe_indexing,
    validate_params,
)
from ..batched import fit_many
from ._signals import log_loss, probabilities

_PREMISES = StrOptions({"any", "gaussian", "independent"})

# Into how many cells the rate of sure guesses is cut, of which each counts by its worst
# end, and how much of its distribution is beyond them.
_CELLS, _BEYOND = 100, 1e-6


@validate_params(
    {
        "n_correct": [Interval(Integral, 0, None, closed="left")],
        "n_guesses": [Interval(Integral, 0, None, closed="left")],
        "n_canaries": [Interval(Integral, 1, None, closed="left")],
        "delta": [Interval(Real, 0, 1, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "premise": [_PREMISES],
    },
)
def epsilon_from_guesses(
    n_correct: int,
    n_guesses: int,
    *,
    n_canaries: int,
    delta: float = 0.0,
    confidence: float = 0.95,
    premise: str = "any",
) -> float:
    r"""Bound epsilon from below by how often membership was guessed right.

    Records that were included by independent fair coins are guessed right only so often
    if the training is private. How often depends on what else is known of it, the
    `premise`:

    - "any" takes nothing for granted: of the two bounds [1]_ and [2]_ for
      (epsilon, delta)-differential privacy, the better one.
    - "gaussian": the training is as private as one number with normal noise on it, for
      every record given all others (:math:`\mu`-GDP, with the trade-off function
      :math:`f(x) = \Phi(\Phi^{-1}(1 - x) - \mu)`). The guesses then contradict every
      smaller :math:`\mu` [2]_, whatever records have to do with each other.
    - "independent": besides, the canaries were drawn independently of each other from one
      distribution, and so are the scores by which they are guessed about: noise that each
      canary has for itself. It is the only premise by which the bound comes near to the
      true epsilon, and the only one that an audit cannot see for itself.

    With normal noise, delta 1e-5 and 10,000 canaries that have nothing to do with each
    other, of true epsilons 1, 4 and 8 the three prove .47, 2.06 and 3.95; .60, 2.76 and
    5.54; and .85, 3.81 and 7.74 on average, from 500, 500 and 5,500 guesses. In 4,000
    runs each, the last was above the truth in 4.7 to 5.3 %, the others in .1 % at most.
    It has no slack, then; that of the others is the price of canaries that may tell on
    each other, and no other number of guesses (100 to 1,500 were tried) brings "any"
    above .47, 2.17 and 4.0, or "gaussian" above .60, 2.76 and 5.6.

    Parameters
    ----------
    n_correct : int
        Number of right guesses.
    n_guesses : int
        Number of guesses; it, and what is guessed about, must not depend on the truth.
        With ``premise="independent"``, they are about the canaries that the attack is the
        surest of.
    n_canaries : int
        Number of records whose inclusion was drawn.
    delta : float, default=0.0
        Delta; more than 0 for the premises "gaussian" and "independent", under which no
        epsilon is without one.
    confidence : float, default=0.95
        Probability that the bound holds, at least.
    premise : {"any", "gaussian", "independent"}, default="any"
        What is taken for granted; see above.

    Returns
    -------
    epsilon : float
        The training is not (e, delta)-private for any e below it; 0 if nothing is shown.
        With the premises "gaussian" and "independent", the epsilon of the smallest
        :math:`\mu` that is not contradicted: a training that the premise does not hold of
        may have a smaller one.

    See Also
    --------
    epsilon_lower_bound : From rates of false alarms.
    DPSGDClassifier : Promises an epsilon.

    References
    ----------
    .. [1] T. Steinke, M. Nasr, M. Jagielski, "Privacy auditing with one (1) training
       run", arXiv:2305.08846 (Theorem 5.2 and Appendix D).
    .. [2] S. Mahloujifar, L. Melis, K. Chaudhuri, "Auditing f-differential privacy in one
       run", arXiv:2410.22235 (Algorithm 3, of guesses about one bit).
    .. [3] J. Dong, A. Roth, W. Su, "Gaussian differential privacy", arXiv:1905.02383
       (Corollary 2.13, from mu to epsilon).

    Notes
    -----
    With :math:`\bar f = 1 - f`, :math:`c'` guesses about :math:`m` canaries and
    :math:`p_j` the probability of :math:`j` right ones, f-differential privacy of every
    canary given the others means, for all :math:`t`, that

    .. math:: \sum_{j \ge t} \frac{j}{m} p_j \le
        \bar f\Big(\sum_{j \ge t - 1} \frac{c' - j}{m} p_j\Big).

    "any" and "gaussian" ask whether :math:`\sum_{j \ge c} p_j` may then be as much as
    one less the confidence. "independent" is derived here: where the surest guesses are
    those of a share :math:`q` of all canaries, they are right with a probability of at
    most the :math:`p` that solves :math:`q p = \bar f(q (1 - p))`, independently of each
    other. Whatever the scores, :math:`q` is the order statistic of a uniform number, so
    the probability of as many right ones is the mean of their binomial tail over a beta
    distribution. It is bounded from above cell by cell. Of independent canaries with
    normal noise, 54 % are to be guessed about: of the surest :math:`q`, the counts say
    the most of a small :math:`\mu` where :math:`\varphi(t)^2 / q` is largest, with
    :math:`q = 2 \Phi(-t)`.

    Examples
    --------
    >>> from sklearn_advsec.privacy import epsilon_from_guesses
    >>> round(epsilon_from_guesses(100, 100, n_canaries=100), 2)
    3.49
    >>> epsilon_from_guesses(55, 100, n_canaries=100)
    0.0
    >>> round(epsilon_from_guesses(900, 1000, n_canaries=2000, delta=1e-5), 2)
    2.02
    >>> guesses = {"n_correct": 900, "n_guesses": 1000, "n_canaries": 2000}
    >>> for premise in ("gaussian", "independent"):
    ...     print(f"{epsilon_from_guesses(**guesses, delta=1e-5, premise=premise):.2f}")
    3.40
    6.59
    """
    if not 0 <= n_correct <= n_guesses <= n_canaries:
        raise ValueError(
            "0 <= n_correct <= n_guesses <= n_canaries must hold; got "
            f"{n_correct}, {n_guesses} and {n_canaries}."
        )
    if premise != "any" and not delta:
        raise ValueError(
            f"delta must be positive with premise={premise!r}: without one, normal noise "
            "has no finite epsilon."
        )
    counts, error = (n_correct, n_guesses, n_canaries), 1 - confidence
    if premise == "any":
        return _largest(
            lambda epsilon: (
                _p_value(*counts, epsilon, delta) < error  # the best without delta
                or delta > 0
                and _contradicts(*counts, error, _approximate(epsilon, delta))
            )
        )
    if premise == "gaussian":
        mu = _largest(lambda mu: _contradicts(*counts, error, _gaussian(mu)))
    else:
        mu = _largest(lambda mu: _p_value_alone(*counts, mu) < error)
    return _epsilon_of_gaussian(mu, delta)


def _largest(is_refuted, tolerance=1e-6):
    """Return the largest parameter that is refuted, and all below it; 0 for none."""
    low, high = 0.0, 1.0
    if not is_refuted(low):
        return low
    while is_refuted(high):
        low, high = high, 2 * high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low


def _p_value(n_correct, n_guesses, n_canaries, epsilon, delta):
    """How likely as many right guesses are, at most, if the training is private."""
    share = expit(epsilon)
    p_value = binom.sf(n_correct - 1, n_guesses, share)
    if delta:
        steps = np.arange(1, n_correct + 1)
        mass = np.cumsum(binom.pmf(n_correct - steps, n_guesses, share))
        p_value += 2 * n_canaries * delta * np.max(mass / steps, initial=0.0)
    return min(float(p_value), 1.0)


def _contradicts(n_correct, n_guesses, n_canaries, error, least_wrong):
    """Whether so many right guesses are rarer than `error` under f-privacy.

    `least_wrong` is the inverse of 1 - f. Were they as likely as `error`, fewer right
    guesses would have to be likely, too: down to where all together exceed 1.
    """
    right, wrong = (
        error * n_correct / n_canaries,
        error * (n_guesses - n_correct) / n_canaries,
    )
    for i in range(n_correct - 1, -1, -1):
        needed = least_wrong(right)
        if needed <= wrong:  # nothing more follows
            return False
        right += i / (n_guesses - i) * (needed - wrong)
        wrong = needed
        if right + wrong > n_guesses / n_canaries:
            return True
    return False


def _approximate(epsilon, delta):
    """Return the inverse of 1 - f of (epsilon, delta)-differential privacy."""
    factor = np.exp(min(epsilon, 700.0))
    return lambda y: max(0.0, (y - delta) / factor, 1 - delta - (1 - y) * factor)


def _gaussian(mu):
    """Return the inverse of 1 - f of one number with normal noise, mu deviations off."""
    return lambda y: float(ndtr(ndtri(y) - mu))


def _p_value_alone(n_correct, n_guesses, n_canaries, mu):
    """How likely as many right guesses are, at most, about independent canaries."""
    if n_guesses == n_canaries:
        return binom.sf(n_correct - 1, n_guesses, ndtr(mu / 2))
    # A rate and the right guesses among it, by where the wrong ones are cut off.
    rate = beta(n_guesses + 1, n_canaries - n_guesses)
    ends = [_cut(q, mu) for q in rate.ppf([_BEYOND, 1 - _BEYOND])]
    cuts = np.linspace(*ends, _CELLS)
    wrong, right = ndtr(cuts), ndtr(mu + cuts)
    tails = binom.sf(n_correct - 1, n_guesses, right / (right + wrong))
    reached = np.append(rate.cdf(right + wrong), 1.0)
    return float(reached[0] + np.diff(reached) @ tails)


def _cut(rate, mu):
    """Return `z` with a rate of ``Phi(z) + Phi(z + mu)``, which is 1 at -mu / 2."""
    low = ndtri(rate / 2) - mu - 1  # each of the two is less than half there
    return brentq(lambda z: ndtr(z) + ndtr(mu + z) - rate, low, -mu / 2)


def _epsilon_of_gaussian(mu, delta):
    """Return the epsilon, at a delta, of one number with normal noise."""

    def surplus(epsilon):
        upper, lower = ndtr(mu / 2 - epsilon / mu), ndtr(-mu / 2 - epsilon / mu)
        return upper - np.exp(epsilon) * lower - delta

    if mu == 0 or surplus(0.0) <= 0:
        return 0.0
    high = 1.0
    while surplus(high) > 0:
        high *= 2
    return float(brentq(surplus, 0.0, high, xtol=1e-6))


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "X": ["array-like", HasMethods(["iloc"])],
        "y": ["array-like"],
        "n_canaries": [Interval(Integral, 10, None, closed="left")],
        "delta": [Interval(Real, 0, 1, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "premise": [_PREMISES],
        "random_state": ["random_state"],
    },
)
def epsilon_lower_bound(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_canaries: int = 1000,
    delta: float = 1e-5,
    confidence: float = 0.95,
    premise: str = "any",
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    """Bound from below the epsilon of a training procedure, by one training run.

    `n_canaries` of the rows get a wrong label at random, and a fair coin each says
    whether they are put among the training rows. From the trained model's loss on them,
    membership of those with the largest and the smallest losses is guessed.

    The bound holds with the given confidence whatever the procedure is (with the default
    `premise`); it says nothing
    from above, and one run by black-box access mostly falls far below the epsilon that an
    accountant gives. What does show is a procedure that is not private at all.

    Parameters
    ----------
    estimator : classifier
        The procedure, unfitted; it is cloned.
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        Training rows. The canaries are taken from them.
    y : array-like of shape (n_samples,)
        Their labels.
    n_canaries : int, default=1000
        Number of canaries; no more than there are rows.
    delta : float, default=1e-5
        The delta that is claimed.
    confidence : float, default=0.95
        Probability that the bound holds, at least. Several numbers of guesses are tried,
        which this accounts for.
    premise : {"any", "gaussian", "independent"}, default="any"
        What is taken for granted about the procedure; see :func:`epsilon_from_guesses`.
        The default holds whatever the procedure is. "independent" does not hold where
        canaries change what the model says of each other, as most do: it is for canaries
        that do not meet.
    random_state : int, RandomState instance or None, default=0
        Seed of the canaries, the coins and the training.

    Returns
    -------
    epsilon : float
        The training is not (e, delta)-private for any e below it.

    See Also
    --------
    epsilon_from_guesses : From one training with many canaries.
    DPSGDClassifier : Promises an epsilon.

    References
    ----------
    .. [1] T. Steinke, M. Nasr, M. Jagielski, "Privacy auditing with one (1) training
       run", arXiv:2305.08846 (Algorithm 1).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import epsilon_lower_bound
    >>> X, y = load_digits(return_X_y=True)
    >>> bound = epsilon_lower_bound(DecisionTreeClassifier(), X, y, n_canaries=500)
    >>> bound > 2  # a tree that learns its data by heart
    True
    """
    check_trainable(estimator, "estimator")
    X = check_rows(X, "epsilon_lower_bound", allow_nan=allows_nan(estimator))
    X = as_nets_take_them(X, estimator)
    y = column_or_1d(y)
    check_consistent_length(X, y)
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("y must have two or more classes.")
    if n_canaries > len(codes):
        raise ValueError(f"n_canaries={n_canaries} is more than the {len(codes)} rows.")
    rng = check_random_state(random_state)
    canaries = rng.permutation(len(codes))[:n_canaries]
    codes = codes.copy()
    shift = rng.randint(1, len(classes), size=n_canaries)
    codes[canaries] = (codes[canaries] + shift) % len(classes)
    included = rng.uniform(size=n_canaries) < 0.5
    kept = np.ones(len(codes), dtype=bool)
    kept[canaries[~included]] = False
    seed = int(rng.randint(2**31 - 1))
    recipe = told_classes(estimator, classes)
    (model,) = fit_many(recipe, X, classes[codes], kept[np.newaxis], [seed])
    proba = probabilities(model, _safe_indexing(X, canaries), classes)
    # Equal losses are put in a random order: by position, they might tell by accident.
    order = np.lexsort((rng.uniform(size=n_canaries), log_loss(proba, codes[canaries])))
    truth = included[order]
    tries = np.unique(np.geomspace(10, n_canaries, 8).astype(int)) // 2 * 2
    bounds = []
    for n_guesses in tries:
        half = n_guesses // 2
        n_correct = truth[:half].sum() + (~truth[n_canaries - half :]).sum()
        bounds.append(
            epsilon_from_guesses(
                int(n_correct),
                int(n_guesses),
                n_canaries=n_canaries,
                delta=delta,
                confidence=1 - (1 - confidence) / len(tries),
                premise=premise,
            )
        )
    return max(bounds)
