"""Empirical audits of differential privacy: lower bounds of epsilon."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._estimators import allows_nan, as_nets_take_them, check_trainable, told_classes
from .._rows import check_rows
from .._sklearn import HasMethods, Interval, _safe_indexing, validate_params
from ..batched import fit_many
from ._signals import log_loss, probabilities


@validate_params(
    {
        "n_correct": [Interval(Integral, 0, None, closed="left")],
        "n_guesses": [Interval(Integral, 0, None, closed="left")],
        "n_canaries": [Interval(Integral, 1, None, closed="left")],
        "delta": [Interval(Real, 0, 1, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
    },
)
def epsilon_from_guesses(
    n_correct: int,
    n_guesses: int,
    *,
    n_canaries: int,
    delta: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """Bound epsilon from below by how often membership was guessed right.

    Under (epsilon, delta)-differential privacy, guesses about records that were included
    by independent fair coins are right no more often than so many biased coins.

    Parameters
    ----------
    n_correct : int
        Number of right guesses.
    n_guesses : int
        Number of guesses; it, and what is guessed about, must not depend on the truth.
    n_canaries : int
        Number of records whose inclusion was drawn.
    delta : float, default=0.0
        Delta.
    confidence : float, default=0.95
        Probability that the bound holds, at least.

    Returns
    -------
    epsilon : float
        The training is not (e, delta)-private for any e below it; 0 if nothing is shown.

    See Also
    --------
    epsilon_lower_bound : From rates of false alarms.
    DPSGDClassifier : Promises an epsilon.

    References
    ----------
    .. [1] T. Steinke, M. Nasr, M. Jagielski, "Privacy auditing with one (1) training
       run", arXiv:2305.08846 (Theorem 5.2 and Appendix D).

    Examples
    --------
    >>> from sklearn_advsec.privacy import epsilon_from_guesses
    >>> round(epsilon_from_guesses(100, 100, n_canaries=100), 2)
    3.49
    >>> epsilon_from_guesses(55, 100, n_canaries=100)
    0.0
    """
    if not 0 <= n_correct <= n_guesses <= n_canaries:
        raise ValueError(
            "0 <= n_correct <= n_guesses <= n_canaries must hold; got "
            f"{n_correct}, {n_guesses} and {n_canaries}."
        )

    def surplus(epsilon):
        p_value = _p_value(n_correct, n_guesses, n_canaries, epsilon, delta)
        return p_value - (1 - confidence)

    if surplus(0.0) >= 0:
        return 0.0
    high = 1.0
    while surplus(high) < 0:
        high *= 2
    return float(brentq(surplus, 0.0, high, xtol=1e-6))


def _p_value(n_correct, n_guesses, n_canaries, epsilon, delta):
    """How likely as many right guesses are, at most, if the training is private."""
    share = expit(epsilon)
    p_value = binom.sf(n_correct - 1, n_guesses, share)
    if delta:
        steps = np.arange(1, n_correct + 1)
        mass = np.cumsum(binom.pmf(n_correct - steps, n_guesses, share))
        p_value += 2 * n_canaries * delta * np.max(mass / steps, initial=0.0)
    return min(float(p_value), 1.0)


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "X": ["array-like", HasMethods(["iloc"])],
        "y": ["array-like"],
        "n_canaries": [Interval(Integral, 10, None, closed="left")],
        "delta": [Interval(Real, 0, 1, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
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
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    """Bound from below the epsilon of a training procedure, by one training run.

    `n_canaries` of the rows get a wrong label at random, and a fair coin each says
    whether they are put among the training rows. From the trained model's loss on them,
    membership of those with the largest and the smallest losses is guessed.

    The bound holds with the given confidence whatever the procedure is; it says nothing
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
            )
        )
    return max(bounds)
