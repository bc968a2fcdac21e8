"""Scores of membership attacks, their intervals, audits of epsilon, and the display."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from privacy_targets import overfitted_target
from scipy.integrate import quad
from scipy.optimize import brentq, linprog
from scipy.stats import beta, binom, norm
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.metrics._scorer import _BaseScorer
from sklearn.model_selection import cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import inspection, metrics
from sklearn_advsec.inspection import MembershipRocDisplay
from sklearn_advsec.metrics import (
    bootstrap_interval,
    clopper_pearson,
    membership_advantage,
    roc_auc_interval,
    tpr_at_fpr,
    tpr_at_fpr_scorer,
)
from sklearn_advsec.privacy import (
    LossThreshold,
    _auditing,
    epsilon_from_guesses,
    epsilon_lower_bound,
)


def normal_scores(n, shift, seed=0):
    rng = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    return member, rng.normal(size=2 * n) + shift * member


def test_scores_are_public_and_cost_no_import_of_torch():
    code = (
        "import sys, sklearn_advsec.metrics, sklearn_advsec.inspection\n"
        "assert not {'torch', 'skorch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for module in (metrics, inspection):
        assert all(callable(getattr(module, name)) for name in module.__all__)
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="no attribute 'unknown'"):
            module.unknown  # noqa: B018
    assert isinstance(pickle.loads(pickle.dumps(tpr_at_fpr_scorer(0.1))), _BaseScorer)


def test_tpr_at_fpr_by_counting():
    member, scores = normal_scores(1000, 1.0)
    for fpr in (0.01, 0.05, 0.2):
        highest = np.sort(scores[~member])[::-1]
        threshold = highest[int(fpr * 1000)]  # the first that must not be exceeded
        assert tpr_at_fpr(member, scores, fpr=fpr) == np.mean(scores[member] > threshold)


def test_tpr_at_fpr_refuses_what_rests_on_nothing():
    member, scores = normal_scores(100, 1.0)
    with pytest.raises(ValueError, match="at least 1000 non-members"):
        tpr_at_fpr(member, scores, fpr=0.001)
    with pytest.warns(UserWarning, match=r"is 1 record\(s\)"):
        tpr_at_fpr(member, scores, fpr=0.01)


def test_equal_scores_are_no_find():
    member, _ = normal_scores(100, 0)
    assert tpr_at_fpr(member, np.zeros(200), fpr=0.5) == 0.0


def test_scorer_in_cross_validation():
    target, records, member, _ = overfitted_target(max_iter=30)
    scoring = {"tpr": tpr_at_fpr_scorer(0.1), "auc": "roc_auc"}
    with pytest.warns(UserWarning, match="of 40 non-members"):
        found = cross_validate(LossThreshold(target), records, member, scoring=scoring)
    assert (found["test_tpr"] > 0.1).all()


def test_advantage_is_that_of_balanced_accuracy():
    member, scores = normal_scores(200, 1.0)
    guess = scores > 0.4
    assert membership_advantage(member, guess) == pytest.approx(
        2 * balanced_accuracy_score(member, guess) - 1
    )
    with pytest.raises(ValueError, match="decisions, not scores"):
        membership_advantage(member.astype(int), scores)


def test_clopper_pearson_covers_and_is_exact():
    low, high = clopper_pearson(3, 50)
    assert binom.sf(2, 50, low) == pytest.approx(0.025)
    assert binom.cdf(3, 50, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 10)[0] == 0 and clopper_pearson(10, 10)[1] == 1
    for rate in (0.01, 0.3):
        covered = sum(
            binom.pmf(k, 60, rate)
            for k in range(61)
            if clopper_pearson(k, 60)[0] <= rate <= clopper_pearson(k, 60)[1]
        )
        assert covered >= 0.95
    with pytest.raises(ValueError, match="between 0 and n_trials"):
        clopper_pearson(3, 2)


def test_auc_interval_agrees_with_the_bootstrap_and_covers():
    member, scores = normal_scores(150, 0.7)
    delong = roc_auc_interval(member, scores)
    boot = bootstrap_interval(roc_auc_score, member, scores, n_bootstraps=400)
    assert delong == pytest.approx(boot, abs=0.015)
    assert np.mean(delong) == pytest.approx(roc_auc_score(member, scores), abs=0.01)
    covered = 0
    for seed in range(400):
        low, high = roc_auc_interval(*normal_scores(60, 0.0, seed))
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("n, shift", [(50, 3.0), (100, 4.0)])
def test_auc_interval_covers_large_areas(n, shift):
    """Symmetric about the estimate, it would cover about 80 % of these."""
    area, covered = norm.cdf(shift / np.sqrt(2)), 0
    for seed in range(400):
        low, high = roc_auc_interval(*normal_scores(n, shift, seed))
        covered += low <= area <= high
    assert covered / 400 >= 0.9


def test_auc_interval_of_scores_that_are_mostly_equal():
    """As those of the gap attack are: where all agree, others need not."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        member = np.arange(100) < 50
        scores = rng.uniform(size=100) < np.where(member, 0.995, 0.99)
        low, high = roc_auc_interval(member, scores)
        covered += low <= 0.5025 <= high
    assert covered / 300 >= 0.93
    low, high = roc_auc_interval(np.arange(80) < 30, np.ones(80))
    assert (high - low, (high + low) / 2) == pytest.approx(
        (clopper_pearson(0, 30)[1], 0.5)
    )


def test_auc_interval_of_perfect_scores():
    """Nothing is out of place, and still the sample leaves room: some pair may be."""
    member = np.arange(80) < 30
    low, high = roc_auc_interval(member, member.astype(float))
    assert (low, high) == pytest.approx(clopper_pearson(30, 30))
    assert roc_auc_interval(member, -member.astype(float)) == clopper_pearson(0, 30)


def test_confidence_is_a_share():
    member, scores = normal_scores(20, 1.0)
    for interval in (
        lambda: clopper_pearson(3, 10, confidence=95),
        lambda: roc_auc_interval(member, scores, confidence=95),
        lambda: bootstrap_interval(roc_auc_score, member, scores, confidence=95),
        lambda: epsilon_from_guesses(9, 10, n_canaries=10, confidence=95),
    ):
        with pytest.raises(ValueError, match="'confidence' parameter"):
            interval()


@pytest.mark.long
def test_bootstrap_of_tpr():
    member, scores = normal_scores(500, 1.0)
    low, high = bootstrap_interval(
        lambda t, s: tpr_at_fpr(t, s, fpr=0.05), member, scores, n_bootstraps=200
    )
    assert low < tpr_at_fpr(member, scores, fpr=0.05) < high
    assert 0.03 < high - low < 0.3
    with pytest.warns(UserWarning, match="has no width") as raised:
        assert bootstrap_interval(roc_auc_score, member, member) == (1.0, 1.0)
    assert raised[0].filename == __file__
    with pytest.raises(ValueError, match="'n_bootstraps' parameter"):
        bootstrap_interval(roc_auc_score, member, scores, n_bootstraps=0)


def test_what_is_no_score_is_refused():
    member = np.arange(40) % 2
    for score in (roc_auc_interval, tpr_at_fpr):
        with pytest.raises(ValueError, match="y_score must hold numbers"):
            score(member, np.array(["low", "high"])[member])
    for counts in ((2.5, 10), ("2", 10), (2, np.nan)):
        with pytest.raises(ValueError, match="n_successes|n_trials"):
            clopper_pearson(*counts)
    for fpr in (-1, 0, 1, np.nan, "0.1"):
        with pytest.raises(ValueError, match="fpr"):
            tpr_at_fpr_scorer(fpr)
    with pytest.raises(ValueError, match="metric"):
        bootstrap_interval("auc", member, member)


def test_bad_scores():
    with pytest.raises(ValueError, match="two values"):
        tpr_at_fpr([0, 1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="NaN"):
        tpr_at_fpr([0, 1], [1.0, np.nan])


# Epsilon --------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_bound_of_randomised_response(epsilon):
    """Randomised response is exactly epsilon-private: the bound is below, and near."""
    rng = np.random.default_rng(0)
    n, share = 2000, 1 / (1 + np.exp(-epsilon))
    bounds = np.array(
        [
            epsilon_from_guesses(rng.binomial(n, share), n, n_canaries=n)
            for _ in range(200)
        ]
    )
    assert np.mean(bounds <= epsilon) >= 0.93
    assert np.median(bounds) > epsilon - 0.15


def test_bound_of_guesses():
    # Without delta, it is where the binomial tail is 5 %.
    bound = epsilon_from_guesses(80, 100, n_canaries=100)
    assert binom.sf(79, 100, 1 / (1 + np.exp(-bound))) == pytest.approx(0.05, rel=1e-3)
    with_delta = epsilon_from_guesses(80, 100, n_canaries=100, delta=1e-4)
    assert 0 < with_delta < bound
    assert epsilon_from_guesses(50, 100, n_canaries=100) == 0
    with pytest.raises(ValueError, match="must hold"):
        epsilon_from_guesses(11, 10, n_canaries=100)


def most_likely(n_correct, n_guesses, n_canaries, cuts):
    """Return how likely so many right guesses are at most, by a linear program.

    `cuts` are lines (offset, slope) whose least is 1 - f.
    """
    j = np.arange(n_guesses + 1)
    right, wrong = j / n_canaries, (n_guesses - j) / n_canaries
    rows, bounds = [], []
    for t in range(1, n_guesses + 1):
        for offset, slope in cuts:
            rows.append(right * (j >= t) - slope * wrong * (j >= t - 1))
            bounds.append(offset)
    solved = linprog(
        -(j >= n_correct).astype(float),
        A_ub=np.array(rows),
        b_ub=bounds,
        A_eq=np.ones((1, n_guesses + 1)),
        b_eq=[1.0],
    )
    return -solved.fun


@pytest.mark.parametrize("counts", [(11, 12, 15), (14, 16, 16), (9, 9, 20)])
def test_right_guesses_under_f_privacy_are_as_rare_as_a_linear_program_says(counts):
    epsilon, delta, mu = 0.7, 0.01, 0.6
    lines = [
        (delta, np.exp(epsilon)),
        (1 - (1 - delta) / np.exp(epsilon), np.exp(-epsilon)),
        (1.0, 0.0),
    ]
    error = most_likely(*counts, lines)
    assert 0.001 < error < 0.9
    inverse = _auditing._approximate(epsilon, delta)
    assert not _auditing._contradicts(*counts, error * 0.999, inverse)
    assert _auditing._contradicts(*counts, error * 1.001, inverse)
    # Tangents of a curve allow a little more than itself.
    x = norm.cdf(np.linspace(-5, 4, 300))
    value = norm.cdf(mu + norm.ppf(x))
    slope = norm.pdf(mu + norm.ppf(x)) / norm.pdf(norm.ppf(x))
    tangents = list(zip(value - slope * x, slope, strict=True))
    error, inverse = most_likely(*counts, tangents), _auditing._gaussian(mu)
    assert not _auditing._contradicts(*counts, error * 0.98, inverse)
    assert _auditing._contradicts(*counts, error * 1.001, inverse)


@pytest.mark.long
def test_bounds_of_a_gaussian_mechanism_hold_and_come_near():
    """Canaries with noise of their own: the true epsilon is known."""
    rng, mu, delta, n = np.random.default_rng(0), 1.0, 1e-5, 3000
    epsilon = 4.377  # of mu = 1, from the closed form
    upper, lower = norm.cdf(mu / 2 - epsilon / mu), norm.cdf(-mu / 2 - epsilon / mu)
    assert upper - np.exp(epsilon) * lower == pytest.approx(delta, rel=1e-2)
    bounds = {"any": [], "gaussian": [], "independent": []}
    for run in range(120):
        included = rng.uniform(size=n) < 0.5
        score = mu * (included - 0.5) + rng.normal(size=n)
        surest = np.argsort(-np.abs(score))
        right = ((score > 0) == included)[surest]
        for premise, found in bounds.items():
            n_guesses = 1800 if premise == "independent" else 300
            if premise == "independent" or run < 10:
                n_correct = int(right[:n_guesses].sum())
                counts = {"n_guesses": n_guesses, "n_canaries": n, "delta": delta}
                found.append(epsilon_from_guesses(n_correct, **counts, premise=premise))
    assert np.mean(np.array(bounds["independent"]) > epsilon) <= 0.1  # .05, and chance
    assert max(bounds["gaussian"]) < epsilon
    any_, gaussian, independent = (np.mean(found) for found in bounds.values())
    assert any_ + 0.3 < gaussian < independent - 0.3 and independent > 0.85 * epsilon
    for premise in ("gaussian", "independent"):
        assert epsilon_from_guesses(0, 0, n_canaries=9, delta=0.1, premise=premise) == 0
        assert epsilon_from_guesses(5, 9, n_canaries=9, delta=0.1, premise=premise) == 0
        with pytest.raises(ValueError, match="delta must be positive with premise"):
            epsilon_from_guesses(9, 9, n_canaries=9, premise=premise)


def test_independent_guesses_are_judged_by_the_mean_over_their_rates():
    """An upper bound of an integral, and hardly more than that."""

    def tail(q, n_correct, n_guesses, n, mu):
        cut = brentq(lambda z: norm.cdf(z) + norm.cdf(z + mu) - q, -20, 10)
        tails = binom.sf(n_correct - 1, n_guesses, norm.cdf(cut + mu) / q)
        return beta.pdf(q, n_guesses + 1, n - n_guesses) * tails

    for guesses in ((60, 90, 200, 0.3), (12, 14, 100, 1.0)):
        ends = beta.ppf([1e-9, 1 - 1e-9], guesses[1] + 1, guesses[2] - guesses[1])
        exact = quad(tail, *ends, args=guesses)[0]
        bound = _auditing._p_value_alone(*guesses)
        assert exact <= bound + 1e-8 and bound < 1.05 * exact
    everyone = _auditing._p_value_alone(70, 100, 100, 0.5)  # no rate to be known
    assert everyone == pytest.approx(binom.sf(69, 100, norm.cdf(0.25)))


def test_bound_of_a_training():
    X, y = load_digits(return_X_y=True)
    by_heart = epsilon_lower_bound(KNeighborsClassifier(1), X, y, n_canaries=600)
    # What does not learn from single rows shows nothing.
    stiff = LogisticRegression(C=1e-6, max_iter=20)
    assert by_heart > 2.5 > 0.5 > epsilon_lower_bound(stiff, X, y, n_canaries=600)
    normal = epsilon_lower_bound(
        KNeighborsClassifier(1), X, y, n_canaries=600, premise="gaussian"
    )
    assert normal > by_heart
    X[::7, 5] = np.nan
    assert epsilon_lower_bound(DecisionTreeClassifier(), X, y, n_canaries=600) > 2
    with pytest.raises(ValueError, match="NaN"):
        epsilon_lower_bound(stiff, X, y)
    X = np.nan_to_num(X)
    with pytest.raises(ValueError, match="n_canaries=5000"):
        epsilon_lower_bound(stiff, X, y, n_canaries=5000)
    for rows in (X, pd.DataFrame(X)):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            epsilon_lower_bound(stiff, rows, y[:-1])
        with pytest.raises(ValueError, match="Unknown label type"):
            epsilon_lower_bound(stiff, rows, y + 0.5)


# Display --------------------------------------------------------------------------------


def test_display():
    import matplotlib.pyplot as plt

    target, records, member, own = overfitted_target(max_iter=20)
    attack = LossThreshold(target).fit(own)
    display = MembershipRocDisplay.from_estimator(attack, records, member)
    assert display.roc_auc == pytest.approx(
        roc_auc_score(member, attack.decision_function(records))
    )
    assert display.ax_.get_xscale() == display.ax_.get_yscale() == "log"
    assert display.line_.get_label() == f"LossThreshold, AUC {display.roc_auc:.3f}"
    other = MembershipRocDisplay.from_predictions(
        member, records[:, 0], name="a column", ax=display.ax_, color="red"
    )
    assert len(display.ax_.lines) == 3 and other.line_.get_color() == "red"
    assert display.ax_.get_xlim()[0] == pytest.approx(1 / (2 * 200))
    plt.close(display.figure_)
    # With fewer non-members than members, rates are drawn below 1 / n_non_members.
    member = np.arange(2050) < 2000
    scores = np.where(member, np.arange(2050) / 2000, 0.9)
    display = MembershipRocDisplay.from_predictions(member, scores)
    drawn = display.line_.get_ydata()
    np.testing.assert_array_equal(drawn[1:], display.tpr[1:])
    assert display.ax_.get_ylim()[0] <= drawn[0] < display.tpr[1] == 0.0005
    MembershipRocDisplay.from_predictions(member, member, ax=display.ax_)
    assert display.ax_.get_ylim()[0] <= drawn[0]
    plt.close(display.figure_)


def scores_of_people(n_people, visits, seed, shift=0.0, share=0.7):
    """Draw scores of which a share belongs to the person; half of the people are in."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(n_people) % 2 == 0, visits)
    own = np.repeat(rng.normal(size=n_people), visits)
    rest = rng.normal(size=n_people * visits)
    scores = np.sqrt(share) * own + np.sqrt(1 - share) * rest + shift * member
    return member, scores, np.repeat(np.arange(n_people), visits)


def test_intervals_of_groups_cover_where_those_of_records_do_not():
    missed = {"records": 0, "groups": 0}
    for seed in range(300):
        member, scores, people = scores_of_people(40, 8, seed)
        for name, groups in (("records", None), ("groups", people)):
            low, high = roc_auc_interval(member, scores, groups=groups)
            missed[name] += not low <= 0.5 <= high
    # 5 % of 300 are 15, of which 27 are three deviations too many.
    assert missed["groups"] <= 27 < 60 < missed["records"]
    found = [
        roc_auc_interval(*scores_of_people(40, 8, seed, shift=1.5)[:2], groups=people)[0]
        for seed in range(10)
    ]
    assert min(found) > 0.5


def test_groups_of_one_are_records_and_resampled_groups_are_whole():
    member, scores, people = scores_of_people(60, 1, 0, shift=1.0)
    own = roc_auc_interval(member, scores)
    np.testing.assert_allclose(
        roc_auc_interval(member, scores, groups=people), own, atol=0.01
    )
    member, scores, people = scores_of_people(20, 5, 0, shift=1.0)
    order = np.random.RandomState(0).permutation(100)
    names = np.array([f"person {i}" for i in people])
    assert roc_auc_interval(member[order], scores[order], groups=names[order]) == (
        pytest.approx(roc_auc_interval(member, scores, groups=people))
    )
    seen = []

    def whole(y_true, y_score):
        rows = np.searchsorted(np.sort(scores), y_score)
        seen.append(np.bincount(people[np.argsort(scores)][rows], minlength=20))
        return roc_auc_score(y_true, y_score)

    wide = bootstrap_interval(whole, member, scores, groups=people, n_bootstraps=100)
    assert all((counts % 5 == 0).all() for counts in seen)
    narrow = bootstrap_interval(roc_auc_score, member, scores, n_bootstraps=100)
    assert np.diff(wide) > 1.2 * np.diff(narrow)
    assert roc_auc_interval(member, scores, groups=np.where(member, 0, people)) == (0, 1)
    with pytest.raises(ValueError, match="groups must be one for each of the 100"):
        roc_auc_interval(member, scores, groups=people[1:])
