"""Attacks on tree ensembles: minimal by brute force, proved, and valid for the victim."""

from itertools import product

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.evasion import HopSkipJump, TreeCoordinateAttack, TreeExactAttack
from sklearn_advsec.exceptions import InterruptedRunWarning
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import certify, leaf_boxes, tree_ensemble
from sklearn_advsec.trees._certify import ClassFlip
from sklearn_advsec.trees._grid import TreeGrid
from sklearn_advsec.trees._row import Moves, RowCells, RowProblem

SMALL = {
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": RandomForestClassifier(6, max_depth=4, random_state=0),
    "mixed leaves": RandomForestClassifier(5, min_samples_leaf=8, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=3, max_depth=2),
    "ada": AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=2), n_estimators=4, random_state=0
    ),
    "pipeline": make_pipeline(
        StandardScaler(), RandomForestClassifier(5, max_depth=3, random_state=0)
    ),
}


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    return X[::2], y[::2], X[1::2], y[1::2]


def brute_force(model, row, norm, wanted):
    """Try one point of each cell of the grid that all thresholds make."""
    _, lower, upper = leaf_boxes(tree_ensemble(model), row[None])
    places = []
    for j, value in enumerate(row):
        up = lower[:, j][np.isfinite(lower[:, j]) & (lower[:, j] > value)]
        down = upper[:, j][np.isfinite(upper[:, j]) & (upper[:, j] < value)]
        places.append(np.unique([value, *up, *down]))
    points = np.array(list(product(*places)))
    distance = np.linalg.norm(points - row, ord=norm, axis=1)
    hits = wanted(model.predict(points))
    return distance[hits].min(initial=np.inf)


def attack(kind, model, X, **parameters):
    return kind(FrozenEstimator(model), **parameters).fit(X)


@pytest.mark.parametrize("norm", [np.inf, 1, 0])
@pytest.mark.parametrize("name", SMALL)
def test_brute_force_finds_nothing_smaller(name, norm):
    X, y = load_iris(return_X_y=True)
    X = X[:, 1:]
    model = clone(SMALL[name]).fit(X, y)
    exact = attack(TreeExactAttack, model, X, norm=norm, bounds=None)
    rows = X[::30]
    result = exact.run(rows)
    own = model.predict(rows)
    best = [
        brute_force(model, row, norm, lambda p, label=label: p != label)
        for row, label in zip(rows, own, strict=True)
    ]
    np.testing.assert_allclose(result.upper, best, rtol=1e-12)
    settled = result.status != "rounding"
    assert (result.lower[settled] == result.upper[settled]).all()
    assert (result.lower <= result.upper).all() and settled.mean() >= 0.6
    np.testing.assert_array_equal(result.y_pred, model.predict(result.X_adv))


@pytest.mark.parametrize("name", ["forest", "boosting", "histograms"])
def test_targeted_attacks_are_minimal_too(name):
    X, y = load_iris(return_X_y=True)
    X = X[:, 1:]
    model = clone(SMALL[name]).fit(X, y)
    rows = X[::30]
    exact = attack(TreeExactAttack, model, X, goal="targeted", target=2, bounds=None)
    result = exact.run(rows)
    best = [brute_force(model, row, np.inf, lambda p: p == 2) for row in rows]
    np.testing.assert_allclose(result.upper, best, rtol=1e-12)
    assert (result.y_pred == 2).all()
    near = attack(TreeCoordinateAttack, model, X, goal="targeted", target=2, bounds=None)
    assert (near.run(rows).distance >= result.upper).all()


def test_an_even_vote_goes_to_the_first_class():
    """A tie is a success in one direction only, and both are known to be optimal."""
    X = np.array([[0.0], [1.0], [2.0]])
    y = [0, 1, 1]
    stumps = [
        DecisionTreeClassifier(max_depth=1).fit([[0.0], [1.0]], [0, 1]),
        DecisionTreeClassifier(max_depth=1).fit([[1.0], [2.0]], [0, 1]),
    ]
    forest = RandomForestClassifier(2).fit(X, y)
    forest.estimators_ = stumps
    result = attack(TreeExactAttack, forest, X, bounds=None).run(X)
    assert forest.predict([[0.0], [1.0], [2.0]]).tolist() == [0, 0, 1]
    np.testing.assert_allclose(result.upper, [1.5, 0.5, 0.5], atol=1e-6)
    assert result.status.tolist() == ["optimal"] * 3


MODELS = {
    "forest": RandomForestClassifier(100, random_state=0),
    "boosting": GradientBoostingClassifier(random_state=0),
    "histograms": HistGradientBoostingClassifier(random_state=0),
    "small forest": RandomForestClassifier(20, max_depth=5, random_state=0),
}
# Ratio of the coordinate attack's distances to the optimal ones: median and mean.
RATIOS = {
    "forest": (1.02, 1.03),
    "boosting": (1.01, 1.02),
    "histograms": (1.01, 1.03),
    "small forest": (1.05, 1.1),
}


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_certified_exact_and_attack_are_in_order(name, cancer):
    X, y, X_test, _ = cancer
    model = clone(MODELS[name]).fit(X, y)
    rows = X_test[:20]
    near = attack(TreeCoordinateAttack, model, X, bounds=None).run(rows)
    exact = attack(TreeExactAttack, model, X, bounds=None, time_limit=60).run(rows)
    bound = certify(model, rows)
    assert near.success.all() and (near.y_pred != model.predict(rows)).all()
    assert (exact.status == "optimal").all() and (exact.lower == exact.upper).all()
    assert (bound <= exact.lower).all() and (exact.upper <= near.distance).all()
    ratio = near.distance / exact.upper
    median, mean = RATIOS[name]
    assert np.median(ratio) <= median and ratio.mean() <= mean


@pytest.mark.long
@pytest.mark.parametrize("norm", [2, 1, 0])
def test_other_norms_are_searched_as_norms(norm, cancer):
    """Each norm's attack is the best of all in its own norm."""
    X, y, X_test, _ = cancer
    model = clone(MODELS["small forest"]).fit(X, y)
    rows = X_test[:20]
    size = {}
    for p in (np.inf, 2, 1, 0):
        result = attack(TreeCoordinateAttack, model, X, norm=p).run(rows)
        assert result.success.all()
        moved = result.X_adv - rows
        size[p] = np.linalg.norm(moved, ord=norm, axis=1)
    assert min(size, key=lambda p: np.mean(size[p])) == norm
    assert (certify(model, rows, norm=norm) <= size[norm] + 1e-12).all()


def test_it_beats_an_attack_by_labels(cancer):
    X, y, X_test, _ = cancer
    model = clone(MODELS["small forest"]).fit(X, y)
    near = attack(TreeCoordinateAttack, model, X).run(X_test[:10])
    far = attack(HopSkipJump, model, X, norm=np.inf, max_queries=500).run(X_test[:10])
    assert (near.distance <= far.distance).all()
    assert np.median(far.distance / near.distance) > 1.3


def test_rows_do_not_influence_each_other(cancer):
    X, y, X_test, _ = cancer
    model = clone(MODELS["small forest"]).fit(X, y)
    near = attack(TreeCoordinateAttack, model, X)
    together = near.transform(X_test[:40])
    np.testing.assert_array_equal(near.transform(X_test[30:31]), together[30:31])
    with joblib.parallel_config(backend="threading"):
        two = near.set_params(n_jobs=2).transform(X_test[:40])
    np.testing.assert_array_equal(two, together)


@pytest.mark.long
def test_eps_and_bounds_are_kept(cancer):
    X, y, X_test, y_test = cancer
    model = clone(MODELS["boosting"]).fit(X, y)
    rows, labels = X_test[:30], y_test[:30]
    free = attack(TreeExactAttack, model, X).run(rows, labels)
    eps = float(np.median(free.distance))
    for kind in (TreeCoordinateAttack, TreeExactAttack):
        near = attack(kind, model, X, eps=eps).run(rows, labels)
        np.testing.assert_array_equal(near.success, free.distance <= eps)
        assert (near.distance <= eps).all()
        unmoved = ~near.success
        np.testing.assert_array_equal(near.X_adv[unmoved], rows[unmoved])
    assert set(near.status[~near.success]) == {"infeasible"}
    # No room at all: what is proved is that there is nothing.
    box = (X_test[0], X_test[0])
    stuck = attack(TreeExactAttack, model, X_test[:1], bounds=box).run(X_test[:1])
    assert stuck.status.tolist() == ["infeasible"] and np.isinf(stuck.lower).all()
    inside = attack(TreeExactAttack, model, X, bounds=(0, 1)).run(rows)
    assert inside.X_adv.min() >= 0 and inside.X_adv.max() <= 1


def test_too_little_time_claims_nothing(cancer):
    X, y, X_test, _ = cancer
    model = RandomForestClassifier(60, max_features=1, random_state=0).fit(X, y)
    exact = attack(TreeExactAttack, model, X, norm=1, time_limit=1e-3)
    result = exact.run(X_test[:5])
    late = result.status == "time limit"
    assert late.any()
    assert (result.lower[late] < result.upper[late]).all()
    assert result.success.all()  # what the search found is there all the same


def test_a_minimum_step_is_kept(cancer):
    X, y, X_test, _ = cancer
    model = DecisionTreeClassifier(random_state=0).fit(X, y)
    step = 0.01
    _, lower, upper = leaf_boxes(tree_ensemble(model), X)
    plain = attack(TreeExactAttack, model, X, bounds=None).run(X_test[:20])
    kept = attack(TreeExactAttack, model, X, bounds=None, min_step=step).run(X_test[:20])
    assert kept.success.all() and (kept.distance >= plain.distance).all()
    edges = np.concatenate([lower, upper])
    moved = 0
    for row, x_adv in zip(X_test[:20], kept.X_adv, strict=True):
        for j in np.flatnonzero(row != x_adv):
            own = edges[:, j][np.isfinite(edges[:, j])]
            crossed = own[(own - row[j]) * (own - x_adv[j]) <= 0]
            beyond = own[np.abs(own - x_adv[j]).argmin()]
            far = np.abs(crossed - x_adv[j]).min() >= step * (1 - 1e-6)
            moved += 1
            assert far or np.isclose(x_adv[j], beyond)  # or the next one is nearer
    assert moved
    with pytest.raises(ValueError, match="min_step must be one number"):
        attack(TreeExactAttack, model, X, min_step=[0.1, 0.2])


def mixed_frame():
    rng = np.random.default_rng(0)
    n = 300
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(50, 15, n),
            "debt": np.where(rng.random(n) < 0.15, np.nan, rng.normal(size=n)),
            "job": rng.choice(["clerk", "cook", "king"], n),
        }
    )
    y = np.where(
        frame["age"] + frame["income"] + 20 * (frame["job"] == "king") > 100, 1, 0
    )
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["debt", "age", "income"]),
        (OneHotEncoder(), ["job"]),
    )
    return make_pipeline(columns, RandomForestClassifier(20, random_state=0)), frame, y


@pytest.mark.parametrize("kind", [TreeCoordinateAttack, TreeExactAttack])
def test_data_frames_stay_valid_rows(kind):
    model, frame, y = mixed_frame()
    attack = kind(model, norm=0).fit(frame, y)
    result = attack.run(frame[:20])
    X_adv = result.X_adv
    assert result.success.all() and X_adv.dtypes.equals(frame.dtypes)
    assert X_adv["job"].equals(frame["job"][:20])
    missing = frame["debt"][:20].isna()
    assert missing.any() and X_adv["debt"].isna().equals(missing)
    np.testing.assert_array_equal(result.y_pred, attack.estimator_.predict(X_adv))
    changed = (X_adv.fillna(0) != frame[:20].fillna(0)).sum(axis=1)
    np.testing.assert_array_equal(changed, result.distance)


def test_missing_values_of_trees_stay_missing(cancer):
    X, y, X_test, _ = cancer
    rng = np.random.default_rng(0)
    X, X_test = X.copy(), X_test[:20].copy()
    for rows in (X, X_test):
        rows[rng.random(rows.shape) < 0.2] = np.nan
    for model in (
        RandomForestClassifier(20, random_state=0),
        HistGradientBoostingClassifier(max_iter=20),
    ):
        exact = attack(TreeExactAttack, model.fit(X, y), X).run(X_test)
        np.testing.assert_array_equal(np.isnan(exact.X_adv), np.isnan(X_test))
        assert (certify(model, X_test) <= exact.lower).all()
        assert (exact.status == "optimal").mean() > 0.8


def test_categories_of_histograms_stay(cancer):
    X, y, X_test, _ = cancer
    X, X_test = X.copy(), X_test[:20].copy()
    for rows in (X, X_test):
        rows[:, 0] = np.floor(rows[:, 20] * 9)
    model = HistGradientBoostingClassifier(max_iter=20, categorical_features=[0])
    exact = attack(TreeExactAttack, model.fit(X, y), X).run(X_test)
    assert (exact.status == "optimal").all()
    np.testing.assert_array_equal(exact.X_adv[:, 0], X_test[:, 0])


def test_float32_rows_stay_float32(cancer):
    X, y, X_test, _ = (part.astype(np.float32) for part in cancer)
    model = clone(MODELS["small forest"]).fit(X, y)
    result = attack(TreeCoordinateAttack, model, X).run(X_test[:20])
    assert result.X_adv.dtype == np.float32 and result.success.all()
    double = attack(TreeCoordinateAttack, model, X.astype(float)).run(X_test[:20])
    assert double.success.all()  # other rows than those of fit: other edges


@pytest.mark.parametrize("norm", [np.inf, 1])
@pytest.mark.parametrize("name", ["small forest", "boosting"])
def test_constraints_are_obeyed(name, norm, cancer):
    X, y, X_test, _ = cancer
    model = clone(MODELS[name]).fit(X, y)
    constraints = FeatureConstraints.from_frame(np.concatenate([X, X_test]))
    # What is left free leads from leaf to leaf, and seldom all the way at once.
    constraints.set(list(range(0, 30, 2)), mutable=False)
    near = attack(TreeCoordinateAttack, model, X, constraints=constraints, norm=norm)
    result = near.run(X_test[:20])
    assert (result.X_adv[:, ::2] == X_test[:20, ::2]).all()
    exact = attack(TreeExactAttack, model, X, constraints=constraints, norm=norm)
    possible = exact.run(X_test[:20]).success
    assert possible.mean() > 0.4
    np.testing.assert_array_equal(result.success, possible)
    turned = model.predict(result.X_adv) != model.predict(X_test[:20])
    np.testing.assert_array_equal(result.success, turned)
    assert not constraints.violations(X_test[:20], result.X_adv)


@pytest.mark.parametrize("step", [0.0, 0.07])
@pytest.mark.parametrize("budget", [0.2, np.inf])
def test_points_of_a_search_gain_what_the_trees_say(step, budget, cancer):
    """Also where columns are frozen, and where steps leave out whole cells."""
    X, y, X_test, _ = cancer
    ensemble = tree_ensemble(clone(MODELS["boosting"]).fit(X, y))
    grid, free = TreeGrid(ensemble, X), np.arange(30) % 3 > 0
    rng = np.random.default_rng(0)
    for x in X_test[:5]:
        low, high = np.where(free, 0.0, x), np.where(free, 1.0, x)
        steps = np.full(30, step)
        row_cells = RowCells(grid, x, Moves(low, high, step=steps), np.inf, x[None])
        flip = ClassFlip(row_cells, 1, [0])
        problem = RowProblem(row_cells, flip.gains, flip.base, budget)
        cells = rng.integers(problem.size, size=(50, len(problem.size)))
        points = np.stack([problem.point(c) for c in [problem.own_cell, *cells]])
        lead = [problem.margin(c)[0] for c in [problem.own_cell, *cells]]
        np.testing.assert_allclose(lead, ensemble.scores(points)[:, 0], atol=1e-9)
        assert (points[:, ~free] == x[~free]).all()
        assert (np.abs(points - x).max() <= budget) and (points[0] == x).all()
        if step:
            moves = (points - x) / step
            np.testing.assert_allclose(moves, np.rint(moves), atol=1e-9)
        back = np.stack([problem.cells_of(point) for point in points])
        np.testing.assert_array_equal(back, [problem.own_cell, *cells])


def whole_iris():
    X, y = load_iris(return_X_y=True)
    X = np.rint(10 * X)
    constraints = FeatureConstraints.from_frame(X)
    constraints.set([1, 3], mutable=False).set(0, direction="up", step=2.0)
    return X, y, constraints, clone(SMALL["boosting"]).fit(X, y)


def smallest_valid_moves(model, constraints, row, norm):
    """Try all whole numbers of the two columns that may change."""
    features = list(constraints.features.values())
    first = np.arange(row[0], features[0].upper + 1, 2)
    third = np.arange(features[2].lower, features[2].upper + 1)
    points = np.tile(row, (len(first) * len(third), 1))
    points[:, [0, 2]] = list(product(first, third))
    points = points[model.predict(points) != model.predict(row[None])]
    if not len(points):
        return np.inf
    ref = np.tile(row, (len(points), 1))
    broken = {violation.row for violation in constraints.violations(ref, points)}
    points = np.delete(points, list(broken), axis=0)
    moved = (points - row) / [feature.scale for feature in features]
    return np.linalg.norm(moved, ord=norm, axis=1).min(initial=np.inf)


@pytest.mark.parametrize("norm", [np.inf, 1, 0])
def test_constrained_optima_are_those_of_all_valid_rows(norm):
    X, y, constraints, model = whole_iris()
    rows = X[::5]
    exact = attack(TreeExactAttack, model, X, norm=norm, constraints=constraints)
    result = exact.run(rows)
    best = [smallest_valid_moves(model, constraints, row, norm) for row in rows]
    assert 0.3 < np.isfinite(best).mean() < 1  # some rows cannot be turned at all
    np.testing.assert_allclose(result.upper, best, rtol=1e-9)
    settled = np.isin(result.status, ["optimal", "infeasible"])
    assert settled.mean() > 0.8
    np.testing.assert_allclose(result.lower[settled], np.array(best)[settled], rtol=1e-9)
    near = attack(TreeCoordinateAttack, model, X, norm=norm, constraints=constraints)
    found = near.run(rows)
    np.testing.assert_array_equal(found.success, np.isfinite(best))
    assert np.median((found.distance / best)[found.success]) < 1.1


@pytest.mark.long
def test_relations_are_searched_around_and_claim_nothing():
    X, y, constraints, model = whole_iris()
    constraints.relate("x[2] >= 1.5 * x[3]").relate("x[2] <= x[0] - 8")
    broken = {violation.row for violation in constraints.violations(X, X)}
    rows = np.delete(X, list(broken), axis=0)[::3]
    best = np.array([smallest_valid_moves(model, constraints, r, 1) for r in rows])
    for kind in (TreeCoordinateAttack, TreeExactAttack):
        result = attack(kind, model, X, norm=1, constraints=constraints).run(rows)
        assert constraints.violations(rows, result.X_adv) == []
        assert result.success[np.isfinite(best)].mean() > 0.9
        assert (result.distance[result.success] >= best[result.success] - 1e-9).all()
    assert "constraints" in result.status
    assert (result.lower <= best + 1e-9).all()
    optimal = result.status == "optimal"
    np.testing.assert_allclose(result.upper[optimal], best[optimal], rtol=1e-9)


def test_victims_that_are_no_trees_are_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match="no tree ensemble"):
        TreeCoordinateAttack(LogisticRegression(max_iter=1000)).fit(X, y)
    with pytest.raises(TypeError, match="PCA in front of the trees"):
        TreeExactAttack(make_pipeline(PCA(2), DecisionTreeClassifier())).fit(X, y)
    with pytest.raises(ValueError, match="norm"):
        TreeExactAttack(DecisionTreeClassifier(), norm=2).fit(X, y)


def test_zero_thresholds_of_lightgbm_take_a_step():
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    X = np.where(rng.random((400, 3)) < 0.5, 0.0, rng.uniform(0.1, 1, (400, 3)))
    y = (X[:, 0] > 0).astype(int)
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, y)
    rows = X[y == 0][:5]
    tiny = attack(TreeExactAttack, model, X).run(rows)
    assert (tiny.distance < 1e-30).all() and (tiny.y_pred == 1).all()
    seen = attack(TreeExactAttack, model, X, min_step=0.1).run(rows)
    np.testing.assert_allclose(seen.distance, 0.1)


# Categories, and values that go missing, where constraints let them ---------------------


def test_booleans_that_may_change_are_searched():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.random((200, 4)) > 0.5, columns=list("abcd"))
    model = RandomForestClassifier(8, random_state=0).fit(X, X.a ^ X.b)
    constraints = FeatureConstraints.from_frame(X)
    exact = attack(TreeExactAttack, model, X, norm=0, constraints=constraints)
    result = exact.run(X[:20])
    assert (result.status == "optimal").all() and (result.distance == 1).all()
    assert result.X_adv.dtypes.equals(X.dtypes)
    np.testing.assert_array_equal(result.y_pred, model.predict(result.X_adv))
    held = clone(exact).set_params(constraints=constraints.set(["a", "b"], mutable=False))
    kept = held.fit(X).run(X[:20])
    assert (kept.X_adv[["a", "b"]] == X[["a", "b"]][:20]).all(axis=None)


def test_categories_turn_into_what_they_may():
    model, frame, y = mixed_frame()
    constraints = FeatureConstraints.from_frame(frame)
    constraints.set(["age", "income", "debt"], mutable=False)
    constraints.set("job", transitions={"clerk": ["cook"], "cook": [], "king": ["clerk"]})
    victim = model.fit(frame, y)
    exact = attack(TreeExactAttack, victim, frame, constraints=constraints)
    result = exact.run(frame[:60])
    may = {("clerk", "cook"), ("king", "clerk")}
    best = np.full(60, np.inf)
    for before, after in may:
        turned = frame[:60].assign(job=after)
        wins = victim.predict(turned) != victim.predict(frame[:60])
        best[wins & (frame["job"][:60] == before)] = 1
    assert 0 < np.isfinite(best).sum() < 60
    np.testing.assert_array_equal(result.upper, best)
    np.testing.assert_array_equal(result.lower, best)


@pytest.mark.parametrize(
    "model",
    [SMALL["forest"], HistGradientBoostingClassifier(max_iter=20)],
    ids=["forest", "histograms"],
)
def test_values_go_missing_where_they_may(model):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    X[rng.random(200) < 0.3, 0] = np.nan
    y = np.isnan(X[:, 0]).astype(int)
    model = clone(model).fit(X, y)
    rows = X[y == 0][:30]
    constraints = FeatureConstraints.from_frame(X)
    for kind in (TreeExactAttack, TreeCoordinateAttack):
        for norm in (np.inf, 0):
            near = attack(kind, model, X, norm=norm, constraints=constraints).run(rows)
            assert near.success.all() and np.isnan(near.X_adv[:, 0]).all()
            assert (near.distance >= 1).all() and (near.y_pred == 1).all()
    constraints.set(0, missing=False)
    stays = attack(TreeExactAttack, model, X, constraints=constraints).run(rows)
    assert set(stays.status) == {"infeasible"}


def test_columns_with_absent_values_of_their_own_kind():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.integers(0, 9, 80), "b": rng.normal(size=80)})
    X = X.astype({"a": "Int64", "b": "Float64"})
    X.loc[::9, "a"] = pd.NA
    y = (X["a"].fillna(8) > 4).to_numpy(bool).astype(int)
    for model in (
        RandomForestClassifier(5, random_state=0),
        make_pipeline(SimpleImputer(), RandomForestClassifier(5, random_state=0)),
    ):
        result = TreeExactAttack(model, norm=1).fit(X, y).run(X[:20])
        assert result.X_adv["a"].isna().equals(X["a"][:20].isna())
        assert set(result.status) <= {"optimal", "infeasible"} and X.dtypes.equals(
            result.X_adv.dtypes
        )


def test_a_step_never_ends_in_the_cell_it_began_in():
    """LightGBM keeps 0 apart by thresholds of 1e-35, which no tolerance may swallow."""
    lightgbm = pytest.importorskip("lightgbm")
    X = np.random.RandomState(0).randint(0, 2, (400, 3)).astype(float)
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, min_child_samples=5)
    model.fit(X, X[:, 0] + X[:, 1] > 1)
    constraints = FeatureConstraints.from_frame(X)
    for kind in (TreeExactAttack, TreeCoordinateAttack):
        result = attack(kind, model, X, norm=1, constraints=constraints).run(X[:50])
        assert result.success.all() and (result.distance >= 1).all()


@pytest.mark.parametrize("kind", [TreeCoordinateAttack, TreeExactAttack])
def test_rows_that_were_searched_survive_an_interrupt(kind, cancer, monkeypatch):
    X, y, X_test, y_test = cancer
    victim = RandomForestClassifier(6, max_depth=4, random_state=0)
    attack = kind(victim, norm="l1").fit(X, y)
    full, search, n_calls = attack.run(X_test[:8], y_test[:8]), kind._search_row, [0]

    def stop_at_the_sixth(self, tree_row):
        n_calls[0] += 1
        if n_calls[0] == 6:
            raise KeyboardInterrupt
        return search(self, tree_row)

    monkeypatch.setattr(kind, "_search_row", stop_at_the_sixth)
    with pytest.warns(InterruptedRunWarning):
        result = attack.run(X_test[:8], y_test[:8])
    assert result.finished.sum() >= 5
    np.testing.assert_array_equal(
        result.select(result.finished).X_adv, full.X_adv[result.rows[result.finished]]
    )
    if kind is TreeExactAttack:
        assert set(result.status[~result.finished]) <= {"unfinished"}
    again = attack.run(X_test[:8], y_test[:8], resume=result)
    np.testing.assert_array_equal(again.X_adv, full.X_adv)


def test_norms_have_names(cancer):
    X, y, X_test, _ = cancer
    victim = FrozenEstimator(SMALL["forest"].fit(X, y))
    for kind, name, norm in (
        (TreeCoordinateAttack, "l2", 2),
        (TreeExactAttack, "inf", np.inf),
        (TreeExactAttack, "l0", 0),
    ):
        named, number = (
            kind(victim, norm=n, eps=0.4).fit(X).run(X_test[:5]) for n in (name, norm)
        )
        np.testing.assert_array_equal(named.distance, number.distance)
        np.testing.assert_array_equal(named.success, number.success)
    with pytest.raises(ValueError, match="norm"):
        TreeExactAttack(victim, norm="l2").fit(X)
