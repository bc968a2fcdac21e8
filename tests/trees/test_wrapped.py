"""Trees behind thresholds, calibration and votes."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import defense
from sklearn_advsec.evasion import HopSkipJump, SquareAttack, TreeExactAttack
from sklearn_advsec.trees import certified_radii, is_tree_ensemble, tree_ensemble

RNG = np.random.default_rng(0)
X = RNG.integers(0, 8, (150, 2)) / 2
y = np.where(X[:, 0] + RNG.normal(size=150) > X[:, 1], "yes", "no")
THREE = (X[:, 0] // 1.5).astype(int)

FOREST = RandomForestClassifier(5, max_depth=3, random_state=0)
BOOSTED = GradientBoostingClassifier(n_estimators=6, max_depth=2, random_state=0)
HISTOGRAMS = HistGradientBoostingClassifier(max_iter=6, min_samples_leaf=5)
TREE = DecisionTreeClassifier(max_depth=3, random_state=0)
OTHER = DecisionTreeClassifier(max_depth=2, max_features=1, random_state=1)
TREES = [("a", TREE), ("b", OTHER), ("c", DecisionTreeClassifier(max_depth=1))]
FORESTS = [("f", FOREST), ("t", TREE), ("e", ExtraTreesClassifier(3, random_state=0))]

MODELS = {
    "fixed": (FixedThresholdClassifier(FOREST, threshold=0.3, pos_label="yes"), y),
    "fixed, first class": (
        FixedThresholdClassifier(FOREST, threshold=0.7, pos_label="no"),
        y,
    ),
    "fixed, boosted": (FixedThresholdClassifier(BOOSTED, threshold=0.2), y == "yes"),
    "fixed, boosted, first class": (
        FixedThresholdClassifier(HISTOGRAMS, threshold=0.8, pos_label="no"),
        y,
    ),
    "fixed, decision": (
        FixedThresholdClassifier(
            BOOSTED,
            threshold=-0.4,
            pos_label="no",
            response_method="decision_function",
        ),
        y,
    ),
    "fixed, auto": (FixedThresholdClassifier(HISTOGRAMS, pos_label="yes"), y),
    "tuned": (TunedThresholdClassifierCV(FOREST, cv=3), (y == "yes").astype(int)),
    "tuned, pipeline": (
        TunedThresholdClassifierCV(make_pipeline(StandardScaler(), BOOSTED), cv=3),
        (y == "yes").astype(int),
    ),
    "calibrated": (CalibratedClassifierCV(FOREST, ensemble=False, cv=3), y),
    "calibrated, boosted": (CalibratedClassifierCV(BOOSTED, ensemble=False, cv=3), y),
    "soft vote": (VotingClassifier(FORESTS, voting="soft"), THREE),
    "soft vote, weights": (
        VotingClassifier(FORESTS, voting="soft", weights=[1, 0.5, 3]),
        y,
    ),
    "hard vote": (VotingClassifier(TREES), THREE),
    "hard vote, weights": (VotingClassifier(TREES, weights=[2, 1, 1]), y),
    "vote in a pipeline": (
        make_pipeline(StandardScaler(), VotingClassifier(TREES, voting="soft")),
        y,
    ),
}


# One of each kind is enough for every day.
RARE = ("fixed, boosted", "fixed, decision", "tuned", "calibrated, b", "weights")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if any(part in name for part in RARE) and name != "tuned"
        else name
        for name in MODELS
    ],
)
def test_wrapped_trees_are_read_attacked_and_certified(name):
    model, labels = MODELS[name]
    model.fit(X, labels)
    assert is_tree_ensemble(model)
    places = np.arange(-1, 18) / 4  # thresholds lie at values, or halfway
    values = np.concatenate([places - 1e-6, places, places + 1e-6])
    grid = np.stack(np.meshgrid(values, values), -1).reshape(-1, 2)
    said = model.predict(grid)
    ensemble = tree_ensemble(model)
    # Where the trees see a tie, the order of roundings may decide.
    clear = ~ensemble.is_tie(ensemble.scores(grid))
    assert clear.mean() > 0.3
    np.testing.assert_array_equal(ensemble.predict(grid)[clear], said[clear])
    rows = X[:8]
    own = model.predict(rows)
    result = TreeExactAttack(FrozenEstimator(model), bounds=None).fit(X).run(rows)
    bounds = certified_radii(model, rows)
    exact = certified_radii(model, rows, method="exact")
    halfway = "soft vote" not in name  # where extra trees cut, the grid does not
    for i, row in enumerate(rows):
        hit = said != own[i]
        least = np.abs(grid - row).max(1)[hit].min(initial=np.inf)
        assert max(result.lower[i], bounds[i], exact[i]) <= least + 1e-5
        if result.status[i] == "optimal" and halfway:
            assert result.upper[i] == pytest.approx(least, abs=1e-5)
    np.testing.assert_array_equal(model.predict(result.X_adv) != own, result.success)
    attack = SquareAttack(eps=1, max_queries=30, bounds=None)
    if not hasattr(model, "predict_proba"):
        attack = HopSkipJump(norm=np.inf, max_queries=60)
    attack.set_params(estimator=FrozenEstimator(model))
    found = attack.fit(X).run(rows)
    assert (exact <= np.where(found.success, found.distance, np.inf) + 1e-9).all()
    assert (defense.certify(model, rows).radius == bounds).all()


# LightGBM 4.6 names columns that have no name.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_boosters_behind_a_threshold_are_read():
    lightgbm, xgboost = (pytest.importorskip(p) for p in ("lightgbm", "xgboost"))
    binary = (y == "yes").astype(int)
    for inner in (
        lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1),
        xgboost.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1),
    ):
        for model in (
            FixedThresholdClassifier(inner, threshold=0.3),
            CalibratedClassifierCV(inner, ensemble=False, cv=3),
        ):
            model.fit(X, binary)
            ensemble = tree_ensemble(model)
            clear = ~ensemble.is_tie(ensemble.scores(X))
            same = ensemble.predict(X) == model.predict(X)
            assert same[clear].all() and clear.mean() > 0.9


def test_what_is_no_sum_over_trees_is_refused():
    binary = (y == "yes").astype(int)
    scaled = make_pipeline(StandardScaler(), TREE)
    for model, match in (
        (CalibratedClassifierCV(FOREST, cv=3), "ensemble=True"),
        (CalibratedClassifierCV(FOREST, method="isotonic", ensemble=False), "sigmoid"),
        (FixedThresholdClassifier(BOOSTED, threshold=0.001), "too near 0 or 1"),
        (FixedThresholdClassifier(AdaBoostClassifier(n_estimators=3)), "no sum"),
        (FixedThresholdClassifier(LogisticRegression()), "no tree ensemble"),
        (VotingClassifier([("b", BOOSTED), ("t", TREE)], voting="soft"), "members"),
        (VotingClassifier([("b", FOREST), ("t", TREE)]), "several trees"),
        (VotingClassifier([("b", scaled), ("t", TREE)], voting="soft"), "in front"),
    ):
        assert not is_tree_ensemble(model)
        model.fit(X, binary)
        with pytest.raises(TypeError, match=match):
            tree_ensemble(model)
        assert not is_tree_ensemble(model)


# LightGBM 4.6 names columns that have no name.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_the_slope_of_a_boosters_link_counts():
    """Of LightGBM, probabilities are 1 / (1 + exp(-sigmoid score))."""
    lightgbm = pytest.importorskip("lightgbm")
    booster = lightgbm.LGBMClassifier(
        n_estimators=6, min_child_samples=5, sigmoid=2.5, verbose=-1, n_jobs=1
    )
    model = FixedThresholdClassifier(booster, threshold=0.3).fit(X, y == "yes")
    for fitted in (model, model.estimator_):
        ensemble = tree_ensemble(fitted)
        np.testing.assert_array_equal(ensemble.predict(X), fitted.predict(X))
        result = TreeExactAttack(FrozenEstimator(fitted)).fit(X).run(X[:3])
        assert set(result.status) <= {"optimal", "infeasible"}


def test_an_exact_radius_asks_the_model_what_a_tie_is():
    """Of leaves that are no whole numbers, roundings decide, not the solver."""
    X, y = np.repeat([[0.0], [1.0]], 4, axis=0), np.array([0, 1, 1, 1, 0, 0, 0, 1])
    stump = DecisionTreeClassifier(max_depth=1)
    vote = VotingClassifier([("a", stump), ("b", stump)], voting="soft").fit(X, y)
    for side, row in ((slice(4), X[:1]), (slice(4, 8), X[4:5])):
        leaf = DecisionTreeClassifier().fit(X[side], y[side])
        vote.estimators_[1] = leaf
        there = vote.predict_proba(1 - row)
        np.testing.assert_array_equal(there, [[0.5, 0.5]])  # which is class 0
        radius = 0.5 if vote.predict(row) == 1 else np.inf
        for norm in (np.inf, 1, 0):
            found = certified_radii(vote, row, norm=norm, method="exact")
            limit = 1 if norm == 0 and radius == 0.5 else radius
            np.testing.assert_allclose(found, limit, rtol=1e-6)
