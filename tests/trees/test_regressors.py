"""Trees of regressors, whose answer changes where a prediction moves by `delta`."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

from sklearn_advsec import defense
from sklearn_advsec.evasion import (
    GreedyFeatureAttack,
    SquareAttack,
    TreeCoordinateAttack,
    TreeExactAttack,
)
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import (
    certified_radii,
    check_certificate,
    is_tree_ensemble,
    tree_ensemble,
)
from sklearn_advsec.victim import LabelAccess, RegressionVictim

RNG = np.random.default_rng(0)
X = RNG.integers(0, 7, (120, 2)) / 2
y = X[:, 0] ** 2 - 3 * X[:, 1] + RNG.normal(size=120)
DELTA = 2.5

MODELS = {
    "tree": DecisionTreeRegressor(max_depth=4, random_state=0),
    "tree, absolute": DecisionTreeRegressor(
        max_depth=3, criterion="absolute_error", random_state=0
    ),
    "extra tree": ExtraTreeRegressor(max_depth=4, random_state=0),
    "forest": RandomForestRegressor(5, max_depth=4, random_state=0),
    "extra trees": ExtraTreesRegressor(5, max_depth=4, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=8, random_state=0),
    "boosting, huber": GradientBoostingRegressor(
        n_estimators=8, loss="huber", init="zero", learning_rate=0.5
    ),
    "histograms": HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=5),
    "histograms, absolute": HistGradientBoostingRegressor(
        max_iter=8, min_samples_leaf=5, loss="absolute_error"
    ),
    "bagging": BaggingRegressor(n_estimators=4, max_features=0.5, random_state=0),
    "vote": VotingRegressor(
        [
            ("tree", DecisionTreeRegressor(max_depth=3, random_state=0)),
            ("out", "drop"),
            ("boosting", GradientBoostingRegressor(n_estimators=4, random_state=0)),
            ("forest", RandomForestRegressor(3, max_depth=3, random_state=0)),
        ],
        weights=[2, 5, 1, 0.5],
    ),
    "pipeline": make_pipeline(
        StandardScaler(), RandomForestRegressor(4, max_depth=3, random_state=0)
    ),
    "target, arcsinh": TransformedTargetRegressor(
        RandomForestRegressor(4, max_depth=3, random_state=0),
        func=np.arcsinh,
        inverse_func=np.sinh,
    ),
    "target, scaled": TransformedTargetRegressor(
        make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=6)),
        transformer=RobustScaler(),
    ),
    "search": GridSearchCV(
        GradientBoostingRegressor(n_estimators=6, random_state=0), {"max_depth": [2, 3]}
    ),
}


def boosters():
    xgboost = pytest.importorskip("xgboost")
    lightgbm = pytest.importorskip("lightgbm")
    return [
        xgboost.XGBRegressor(n_estimators=8, max_depth=3, n_jobs=1),
        xgboost.XGBRegressor(
            n_estimators=8, max_depth=3, objective="reg:absoluteerror", n_jobs=1
        ),
        lightgbm.LGBMRegressor(n_estimators=8, min_child_samples=5, verbose=-1),
        lightgbm.LGBMRegressor(
            n_estimators=8, min_child_samples=5, objective="l1", verbose=-1
        ),
    ]


@pytest.mark.parametrize("side", [-1, 1])
def test_a_move_of_delta_itself_is_none(side):
    """Whole numbers have no rounding that a tie could hide behind."""
    steps = np.arange(8.0)[:, None]
    model = DecisionTreeRegressor().fit(steps, side * (steps[:, 0] > 3) * 2.0)
    for delta, moves in ((2.0, False), (1.5, True)):
        victim = RegressionVictim(FrozenEstimator(model), delta=delta).fit(steps)
        attack = TreeExactAttack(FrozenEstimator(victim), bounds=None).fit(steps)
        result = attack.run(steps[:1])
        assert result.success[0] == moves
        access = LabelAccess(victim, steps[:1])
        access.refer(None)
        answer = access.predict(access.encode(steps[-1:]))
        assert answer.tolist() == [1 + side * moves]


def test_predictions_that_are_powers():
    """Below a target of 0, no logarithm is; what cannot be reached is infeasible."""
    target = np.exp(y / 5)
    forest = RandomForestRegressor(4, max_depth=3, random_state=0)
    model = TransformedTargetRegressor(forest, func=np.log, inverse_func=np.exp)
    model.fit(X, target)
    said = model.predict(X[:6])
    victim = RegressionVictim(FrozenEstimator(model), delta=float(said[0])).fit(X)
    ensemble = tree_ensemble(victim)
    np.testing.assert_allclose(ensemble.predict(X), model.predict(X), rtol=1e-12)
    frozen = FrozenEstimator(victim)
    for way in ("decrease", "increase"):
        attack = TreeExactAttack(frozen, goal="targeted", target=way, bounds=None).fit(X)
        result = attack.run(X[:6])
        moved = model.predict(result.X_adv) - said
        far = moved > said[0] if way == "increase" else -moved > said[0]
        np.testing.assert_array_equal(result.success, far)
        if way == "decrease":
            assert result.status[0] == "infeasible"
    result = TreeExactAttack(frozen, bounds=None).fit(X).run(X[:6])
    claims = check_certificate(result.to_json(), victim)
    assert [claim["status"] for claim in claims] == result.status.tolist()


@pytest.mark.parametrize(
    "parameters",
    [
        {"transformer": PowerTransformer()},
        {"func": np.sqrt, "inverse_func": np.square},
    ],
)
def test_ways_back_that_may_not_grow_are_refused(parameters):
    model = TransformedTargetRegressor(DecisionTreeRegressor(max_depth=2), **parameters)
    model.fit(X, y - y.min() + 1)
    assert not is_tree_ensemble(model)
    with pytest.raises(TypeError, match="cannot be read as trees: of the ways back"):
        tree_ensemble(model)


def nearest_by_brute_force(model, x, reference, sides=(-1, 1)):
    """Return the least largest change that moves a prediction, among all cells."""
    # Thresholds lie at values, or halfway between two; a step beyond is enough.
    places = np.arange(-1, 14) / 4
    values = np.concatenate([places - 1e-6, places, places + 1e-6])
    grid = np.array(list(itertools.product(values, repeat=2)))
    moved = model.predict(grid) - reference
    hit = np.zeros(len(grid), dtype=bool)
    for side in sides:
        hit |= side * moved > DELTA
    return np.abs(grid - x).max(1)[hit].min(initial=np.inf)


def check_against_brute_force(model):
    model.fit(X, y)
    victim = RegressionVictim(FrozenEstimator(model), delta=DELTA).fit(X)
    ensemble = tree_ensemble(victim)
    rows = RNG.normal(2, 3, (200, 2))
    np.testing.assert_allclose(ensemble.predict(rows), model.predict(rows), rtol=1e-5)
    rows = X[:8]
    frozen = FrozenEstimator(victim)
    result = TreeExactAttack(frozen, bounds=None).fit(X).run(rows)
    bounds = certified_radii(victim, rows)
    exact = certified_radii(victim, rows, method="exact")
    said = model.predict(rows)
    for i, x in enumerate(rows):
        least = nearest_by_brute_force(model, x, said[i])
        assert result.lower[i] <= least + 1e-5 and bounds[i] <= least + 1e-5
        if result.status[i] == "optimal":
            assert result.upper[i] == pytest.approx(least, abs=1e-5)
            assert exact[i] == pytest.approx(least, abs=1e-5)
        else:
            assert result.status[i] == "infeasible" and least == np.inf
    assert (bounds <= exact + 1e-9).all()
    moved = np.abs(model.predict(result.X_adv) - said)
    np.testing.assert_array_equal(moved > DELTA, result.success)
    return frozen, rows, exact


# The thresholds of these lie between the values of the data, or halfway.
HALFWAY = [name for name in MODELS if name not in ("extra tree", "extra trees")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if "," in n else n for n in HALFWAY],
)
def test_the_optimum_is_that_of_brute_force(name):
    check_against_brute_force(MODELS[name])


# LightGBM 4.6 names columns that have no name.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "at", [0, 2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 3))]
)
def test_the_optimum_of_boosters_is_that_of_brute_force(at):
    check_against_brute_force(boosters()[at])


@pytest.mark.parametrize("name", ["extra trees", "boosting", "pipeline"])
def test_no_attack_gets_below_a_certificate(name):
    model = MODELS[name].fit(X, y)
    victim = RegressionVictim(FrozenEstimator(model), delta=DELTA).fit(X)
    exact = certified_radii(victim, X[:10], method="exact")
    frozen = FrozenEstimator(victim)
    found = TreeCoordinateAttack(frozen, bounds=None).fit(X).run(X[:10])
    assert (exact <= np.where(found.success, found.distance, np.inf) + 1e-9).all()
    assert found.success.any()
    attack = SquareAttack(frozen, eps=1.0, max_queries=60, bounds=None)
    found = attack.fit(X).run(X[:10])
    assert (exact <= np.where(found.success, found.distance, np.inf) + 1e-9).all()
    certain = certified_radii(victim, X[:10], eps=0.1)
    np.testing.assert_array_equal(certain <= (exact > 0.1), True)


def test_targets_and_labels_say_which_way():
    model = MODELS["forest"].fit(X, y)
    victim = FrozenEstimator(RegressionVictim(FrozenEstimator(model), delta=DELTA).fit(X))
    said, rows = model.predict(X[:8]), X[:8]
    for target, side in (("increase", 1), ("decrease", -1)):
        attack = TreeExactAttack(victim, bounds=None, goal="targeted", target=target)
        result = attack.fit(X).run(rows)
        assert (side * (result.y_pred - said)[result.success] > DELTA).all()
        for i, x in enumerate(rows):
            least = nearest_by_brute_force(model, x, said[i], sides=(side,))
            assert result.upper[i] == pytest.approx(least, abs=1e-5)
    # With y, what counts is how far the prediction is from that.
    result = TreeExactAttack(victim, bounds=None).fit(X).run(rows, y[:8])
    wrong = np.abs(said - y[:8]) > DELTA
    np.testing.assert_array_equal(result.distance[wrong], 0)
    radii = certified_radii(victim.estimator, rows, y=y[:8], method="exact")
    np.testing.assert_array_equal(radii[wrong], 0)
    np.testing.assert_allclose(radii, result.upper, atol=1e-9)


def test_constraints_hold_for_regressors():
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": np.tile(["u", "v", "w"], 40)})
    model = HistGradientBoostingRegressor(
        max_iter=10, min_samples_leaf=5, categorical_features="from_dtype"
    )
    frame["c"] = frame["c"].astype("category")
    target = y + 3 * (frame["c"] == "v")
    victim = RegressionVictim(FrozenEstimator(model.fit(frame, target)), delta=1.5)
    constraints = FeatureConstraints.from_frame(frame).set("a", direction="up")
    rows, parameters = frame.iloc[:8], {"constraints": constraints}
    exact = TreeExactAttack(victim, **parameters).fit(frame).run(rows)
    assert constraints.violations(rows, exact.X_adv) == [] and exact.success.any()
    greedy = GreedyFeatureAttack(victim, norm=np.inf, **parameters).fit(frame).run(rows)
    assert constraints.violations(rows, greedy.X_adv) == []
    reached = np.where(greedy.success, greedy.distance, np.inf)
    assert (exact.lower <= reached + 1e-9).all()


def test_what_is_no_sum_of_trees_is_refused():
    def read(model):
        model.fit(X, np.abs(y) + 1)
        return tree_ensemble(RegressionVictim(FrozenEstimator(model)).fit(X))

    xgboost, lightgbm = (pytest.importorskip(p) for p in ("xgboost", "lightgbm"))
    for model in (
        HistGradientBoostingRegressor(max_iter=3, loss="poisson"),
        xgboost.XGBRegressor(n_estimators=3, objective="count:poisson", n_jobs=1),
        lightgbm.LGBMRegressor(n_estimators=3, objective="poisson", verbose=-1),
        lightgbm.LGBMRegressor(n_estimators=3, reg_sqrt=True, verbose=-1),
        AdaBoostRegressor(n_estimators=3),
        BaggingRegressor(LinearRegression(), n_estimators=3),
        VotingRegressor([("a", HistGradientBoostingRegressor(max_iter=3))]),
        GradientBoostingRegressor(n_estimators=3, init=LinearRegression()),
        LinearRegression(),
    ):
        with pytest.raises(TypeError, match="read"):
            read(model)
    forest = RandomForestRegressor(3).fit(X, y)
    with pytest.raises(TypeError, match="RegressionVictim"):
        certified_radii(forest, X[:3])
    with pytest.raises(TypeError, match="certified_radii takes a RegressionVictim"):
        defense.certify(RegressionVictim(FrozenEstimator(forest)).fit(X), X[:3])
    several = DecisionTreeRegressor(max_depth=2).fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="several outputs"):
        tree_ensemble(several)
