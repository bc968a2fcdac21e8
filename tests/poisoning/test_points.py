"""Points within sphere and slab: the farthest ones, what they do, what bounds them."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.exceptions import NoGradientError
from sklearn_advsec.poisoning import (
    CertifiedPoisoningBound,
    GradientCanceling,
    InfluencePoisoning,
    KKTPoisoning,
    LabelFlipping,
    MinMaxPoisoning,
    SphereSlabSanitizer,
)
from sklearn_advsec.poisoning._labels._retrained import RetrainedLinear, linear_recipe
from sklearn_advsec.poisoning._points._feasible import FeasibleSet, feasible_sets
from sklearn_advsec.threat import FeatureConstraints

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
SVM = LinearSVC(C=0.01, random_state=0)


def binned():
    """Rows of one-hot bins, and their constraints."""
    bins = KBinsDiscretizer(
        4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"
    )
    rows = bins.fit_transform(X)
    constraints = FeatureConstraints.from_frame(rows)
    at = 0
    for k in bins.n_bins_:
        constraints.set(list(range(at, at + k)), group=f"feature {at}")
        at += k
    return rows, constraints


@pytest.mark.parametrize("seed", range(6))
def test_the_farthest_point_is_that_of_a_solver(seed):
    rng = np.random.RandomState(seed)
    mean, u = rng.randn(5), rng.randn(5)
    direction = rng.randn(5)
    direction /= np.linalg.norm(direction)
    of = FeasibleSet(mean, direction, 2.0, (0.1, 0.5, 2.5)[seed % 3])
    point, bound = of.farthest(u)
    assert of.contains(point[None])[0] and np.isclose(bound, u @ point)
    found = minimize(
        lambda x: -u @ x,
        mean,
        constraints=[
            {"type": "ineq", "fun": lambda x: 4 - ((x - mean) ** 2).sum()},
            {"type": "ineq", "fun": lambda x: of.width - (x - mean) @ direction},
            {"type": "ineq", "fun": lambda x: of.width + (x - mean) @ direction},
        ],
    )
    np.testing.assert_allclose(bound, -found.fun, atol=1e-4)


def test_valid_points_are_between_the_best_of_all_and_the_bound():
    """Three groups of two and one whole number: all 8 x 5 rows can be tried."""
    rng = np.random.RandomState(0)
    groups = rng.randint(0, 2, (60, 3))
    rows = np.hstack(
        [np.stack([g, 1 - g], 1) for g in groups.T] + [rng.randint(0, 5, (60, 1))]
    ).astype(float)
    codes = (rows[:, 0] + rows[:, 6] > 2).astype(int)
    constraints = FeatureConstraints.from_frame(rows)
    for k in range(3):
        constraints.set([2 * k, 2 * k + 1], group=str(k))
    every = np.array(
        [
            [a, 1 - a, b, 1 - b, c, 1 - c, d]
            for a in (0, 1)
            for b in (0, 1)
            for c in (0, 1)
            for d in range(5)
        ],
        dtype=float,
    )
    close = 0
    for of in feasible_sets(rows, codes, 2, 90, constraints):
        inside = every[of.contains(every)]
        for _ in range(10):
            u = rng.randn(7)
            point, bound = of.farthest(u)
            best = (inside @ u).max()
            assert of.contains(point[None])[0] and (every == point).all(1).any()
            assert u @ point <= best + 1e-9 <= bound + 1e-6
            close += u @ point > best - 0.5
    assert close >= 14


def test_points_near_to_others_lie_in_the_set():
    of = feasible_sets(X, y, 2, 70)[0]
    for x in X[y == 1][:20]:
        assert of.contains(of.nearest(x)[None])[0]
    x = of.mean + 0.1 * (X[0] - of.mean) / np.linalg.norm(X[0] - of.mean)
    np.testing.assert_allclose(of.nearest(x), x)


# Attack -------------------------------------------------------------------------------


def test_points_pass_the_sanitizer_and_beat_random_flips():
    attack = MinMaxPoisoning(SVM, budget=0.1, random_state=0)
    X_new, labels = attack.fit_resample(X, y)
    at = attack.poison_indices_
    sets = feasible_sets(X, y, 2, 95)
    for code in (0, 1):
        assert sets[code].contains(X_new[at][labels[at] == code], 1e-7).all()
    poisoned = 1 - SVM.fit(X_new, labels).score(X, y)
    flips = LabelFlipping(strategy="random", budget=0.1, random_state=0)
    flipped = 1 - SVM.fit(*flips.fit_resample(X, y)).score(X, y)
    assert np.isclose(poisoned, attack.validation_error_) and poisoned > flipped + 0.03


@pytest.mark.long
def test_valid_points_are_valid_to_the_bit():
    rows, constraints = binned()
    frame = pd.DataFrame(rows, columns=[f"c{j}" for j in range(rows.shape[1])])
    frame = frame.astype(np.int64)
    named = FeatureConstraints.from_frame(frame)
    for j, feature in enumerate(constraints.features.values()):
        named.set(f"c{j}", group=feature.group)
    for data, allowed in ((rows, constraints), (frame, named)):
        attack = MinMaxPoisoning(SVM, budget=0.1, constraints=allowed, max_iter=40)
        X_new, labels = attack.fit_resample(data, y)
        new = np.asarray(X_new)[attack.poison_indices_]
        assert np.isin(new, (0, 1)).all()
        assert len(np.unique(new, axis=0)) > 2  # as many as it takes: no convex set
        groups = [g.numpy() for g in allowed.region.groups]
        assert all((new[:, group].sum(1) == 1).all() for group in groups)
        clean = 1 - SVM.fit(data, y).score(data, y)
        assert 1 - SVM.fit(X_new, labels).score(data, y) > clean + 0.01


def test_more_classes_are_taken_one_against_the_rest():
    kinds = np.where(X[:, 0] > 1, "big", np.array(["bad", "good"])[y])
    attack = MinMaxPoisoning(SVM, budget=0.1, max_iter=60, random_state=0)
    X_new, labels = attack.fit_resample(X, kinds)
    assert (
        SVM.fit(X_new, labels).score(X, kinds) < SVM.fit(X, kinds).score(X, kinds) - 0.02
    )


def test_constraints_that_no_poison_can_meet():
    far = FeatureConstraints.from_frame(X).set(0, lower=50.0, upper=60.0)
    with pytest.raises(ValueError, match="no poison to begin with"):
        MinMaxPoisoning(SVM, constraints=far).fit(X, y)
    related = FeatureConstraints.from_frame(X).relate("x[0] <= x[1] + 100")
    with pytest.raises(ValueError, match="relations"):
        MinMaxPoisoning(SVM, constraints=related).fit(X, y)
    other = FeatureConstraints.from_frame(X[:, :3])
    with pytest.raises(ValueError, match="are for 3 columns"):
        MinMaxPoisoning(SVM, constraints=other).fit(X, y)
    with pytest.raises(ValueError, match="encode the columns"):
        MinMaxPoisoning(SVM).fit(
            pd.DataFrame({"a": X[:, 0], "b": np.where(y, "x", "z")}), y
        )


# Bound --------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [False, True])
def test_no_poison_exceeds_the_bound_and_ours_comes_close(intercept):
    bound = CertifiedPoisoningBound(
        eps=(0.0, 0.05, 0.2), rho=0.8, fit_intercept=intercept, max_iter=800
    ).fit(X, y)
    assert (np.diff(bound.upper_) > 0).all()
    assert (bound.attack_loss_ <= bound.upper_ + 1e-6).all()
    assert (bound.attack_loss_ >= 0.97 * bound.upper_).all()
    signs, ones = 2.0 * y - 1, np.full((len(X), 1), float(intercept))
    clean = np.hstack([X, ones])

    def least_loss(rows, labels, weight):
        """Train in the ball; the loss of any weights there is above the least."""
        rows = np.hstack([rows, np.full((len(rows), 1), float(intercept))])
        best, w = np.inf, np.zeros(rows.shape[1])
        for step in range(1, 1500):
            lack, more = 1 - signs * (clean @ w), 1 - labels * (rows @ w)
            loss = np.maximum(lack, 0).mean() + weight @ np.maximum(more, 0)
            best = min(best, loss)
            slope = -(clean.T @ (signs * (lack > 0))) / len(X)
            slope -= rows.T @ (weight * labels * (more > 0))
            w -= 0.2 / np.sqrt(step) * slope
            w *= min(1, 0.8 / np.linalg.norm(w))
        return best

    for j, eps in enumerate((0.0, 0.05, 0.2)):
        rows, labels, share = bound.poison_[j]
        found = least_loss(rows, 2.0 * labels - 1, eps * share)
        assert bound.attack_loss_[j] - 1e-5 <= found <= bound.upper_[j] + 1e-3
    sets, rng = feasible_sets(X, y, 2, 70), np.random.RandomState(0)
    for _ in range(5):  # other poison does no more
        codes = rng.randint(0, 2, 10)
        rows = np.stack([sets[c].nearest(3 * rng.randn(X.shape[1])) for c in codes])
        loss = least_loss(rows, 2.0 * codes - 1, np.full(10, 0.02))
        assert loss <= bound.upper_[2] + 1e-3


def test_the_bound_of_valid_poison_is_no_larger():
    rows, constraints = binned()
    free = CertifiedPoisoningBound(eps=[0.05], max_iter=60).fit(rows, y)
    valid = CertifiedPoisoningBound(eps=[0.05], max_iter=60, constraints=constraints)
    valid.fit(rows, y)
    assert valid.upper_[0] <= free.upper_[0] * 1.02
    points = valid.poison_[0][0]
    assert np.isin(points, (0, 1)).all() and valid.attack_loss_[0] <= valid.upper_[0]


@pytest.mark.parametrize("eps", [[], [0.1, -0.1], [[0.1]], [2.0]])
def test_shares_are_checked(eps):
    with pytest.raises(ValueError, match="eps must hold shares"):
        CertifiedPoisoningBound(eps=eps).fit(X, y)


# Sanitizer ----------------------------------------------------------------------------


def test_an_oracle_resists_poison_that_moves_centroids():
    far = np.repeat(X[y == 1].mean(0)[None] + 40, 60, axis=0)
    rows, labels = np.vstack([X, far]), np.append(y, np.ones(60, dtype=int))
    for trusted in (None, (X, y)):
        sanitizer = SphereSlabSanitizer(contamination=0.15, trusted=trusted)
        sanitizer.fit(rows, labels)
        kept = sanitizer.sample_indices_
        if trusted is not None:
            assert (kept < len(X)).all()
    with pytest.raises(ValueError, match="trusted"):
        SphereSlabSanitizer(trusted=(X[y == 1], y[y == 1])).fit(X, y)


# Gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "model", [LogisticRegression(), RidgeClassifier(), LinearSVC(C=0.05)]
)
def test_slopes_in_a_training_row_are_those_of_retraining(model, n_classes):
    rows, codes = load_wine(return_X_y=True)
    rows = StandardScaler().fit_transform(rows)[codes < n_classes]
    codes = codes[codes < n_classes]
    loss, factor, penalty, intercept = linear_recipe(model)

    def fit(rows):
        scale = np.full(len(rows), float(factor))
        return RetrainedLinear(
            rows, n_classes, loss, scale, penalty, intercept, own_space=True
        ).fit(codes)

    fitted = fit(rows)
    Z = fitted.features(rows[:50])
    slope = np.random.RandomState(0).randn(50, n_classes)
    slope -= slope.mean(1, keepdims=True)
    found = fitted.row_slopes(Z, slope, np.array([3]))[0]
    for j in range(4):
        ends = []
        for h in (1e-4, -1e-4):
            moved = rows.copy()
            moved[3, j] += h
            ends.append((fit(moved).scores(Z) * slope).sum())
        np.testing.assert_allclose(found[j], (ends[0] - ends[1]) / 2e-4, atol=3e-5)
    fitted.theta = 1.3 * fitted.theta  # no optimum any more
    imbalance = fitted.imbalance()
    found = fitted.imbalance_slopes(imbalance, np.array([3]))[0]
    for j in range(3):
        ends = []
        for h in (1e-5, -1e-5):
            fitted.Z[3, j] += h
            ends.append(0.5 * (fitted.imbalance() ** 2).sum())
            fitted.Z[3, j] -= h
        expected = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(found[j], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("attack", [GradientCanceling, InfluencePoisoning, KKTPoisoning])
@pytest.mark.parametrize("model", [LogisticRegression(C=0.1), RidgeClassifier()])
def test_points_moved_by_a_gradient_harm_the_retrained_model(attack, model):
    attack = attack(model, budget=0.1, max_iter=15, random_state=0)
    X_new, labels = attack.fit_resample(X, y)
    error = 1 - model.fit(X_new, labels).score(X, y)
    clean = 1 - model.fit(X, y).score(X, y)
    assert np.isclose(error, attack.validation_error_) and error > clean + 0.005
    sets, at = feasible_sets(X, y, 2, 95), attack.poison_indices_
    for code in (0, 1):
        assert sets[code].contains(X_new[at][labels[at] == code], 1e-7).all()
    if attack.__class__ is InfluencePoisoning:
        start = MinMaxPoisoning(model, budget=0.1, max_iter=100, random_state=0)
        assert error >= start.fit(X, y).validation_error_ - 1e-9


def test_surrogates_that_are_not_linear():
    with pytest.raises(NoGradientError, match="linear model"):
        InfluencePoisoning(DecisionTreeClassifier()).fit(X, y)
