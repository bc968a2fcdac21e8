"""Attacks on rows of tables: constraints on every attack, and attacks made for them."""

import itertools
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from registry import EVASION, TREE_VICTIM
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_advsec import differentiable, evasion
from sklearn_advsec.evasion._tables import _moeva as _genetics
from sklearn_advsec.evasion._tables._greedy import tree_thresholds
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.victim import RegressionVictim

TABULAR = [
    evasion.ConstrainedAPGD(eps=1.0),
    evasion.ConstrainedAdaptiveAttack(eps=1.0, n_generations=10, population=12),
    evasion.GreedyFeatureAttack(),
    evasion.GreedyFeatureAttack(knowledge="label"),
    evasion.MultiObjectiveEvolution(eps=1.5, n_generations=20, population=20),
]


def name_of(attack):
    return type(attack).__name__


def frozen(attack, victim, **parameters):
    return clone(attack).set_params(estimator=FrozenEstimator(victim), **parameters)


# Constraints on every attack ------------------------------------------------------------

X, y = load_iris(return_X_y=True)
X = X * [1, 10, 1, 2]
IRIS = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)


@pytest.mark.parametrize("attack", EVASION, ids=name_of)
def test_every_attack_keeps_constraints(attack):
    constraints = FeatureConstraints.from_frame(X).set(0, mutable=False)
    constraints.set(1, direction="up").relate("x[2] >= x[3] / 2 + 0.5")
    parameters = {"constraints": constraints}
    if "surrogate" in attack.get_params(deep=False):
        parameters["surrogate"] = FrozenEstimator(IRIS)
    given = attack.get_params(deep=False)
    if {"eps", "norm"} <= set(given) and given["eps"] is not None:
        parameters["eps"] = 0.3
    trees = attack.estimator is TREE_VICTIM
    victim = clone(TREE_VICTIM).fit(X, y) if trees else IRIS
    attack = frozen(attack, victim, **parameters).fit(X, y)
    rows, labels = X[::5], y[::5]
    result = attack.run(rows, labels)
    assert constraints.violations(rows, result.X_adv) == []
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))
    np.testing.assert_array_equal(result.X_adv[:, 0], rows[:, 0])
    scale = [f.scale for f in constraints.features.values()]
    move = (result.X_adv - rows) / scale
    np.testing.assert_allclose(
        np.linalg.norm(move, ord=attack.norm, axis=1), result.distance, atol=1e-9
    )
    if "eps" in parameters:
        assert result.distance.max() <= 0.3 * (1 + 1e-6)
    wrong = result.y_pred != labels
    if attack.goal == "misclassification":
        np.testing.assert_array_equal(result.success, wrong)


def test_constraints_are_a_parameter_like_any_other():
    constraints = FeatureConstraints.from_frame(X)
    attack = evasion.HopSkipJump(IRIS, constraints=constraints)
    assert attack.get_params(deep=False)["constraints"] is constraints
    copy = pickle.loads(pickle.dumps(clone(attack)))
    assert copy.constraints.features == constraints.features
    with pytest.raises(ValueError, match="'constraints' parameter"):
        evasion.DeepFool(IRIS, constraints="mine").fit(X, y)


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_eps_in_units_of_scale_is_the_attack_on_scaled_data(norm):
    """Bounds alone: the same rows as on data that were scaled to [0, 1] before."""
    scaler = MinMaxScaler().fit(X)
    constraints = FeatureConstraints.from_frame(X)
    constraints.set(list(range(4)), kind="continuous", step=None)
    eps = 0.2 if norm == np.inf else 0.35
    attack = frozen(evasion.ProjectedGradientDescent(norm=norm, eps=eps), IRIS)
    raw = attack.set_params(constraints=constraints).fit(X).run(X[::3], y[::3])
    back = make_pipeline(_Unscale(scaler).fit(X), IRIS)
    attack = frozen(evasion.ProjectedGradientDescent(norm=norm, eps=eps), back)
    scaled = attack.fit(scaler.transform(X)).run(scaler.transform(X[::3]), y[::3])
    np.testing.assert_array_equal(raw.success, scaled.success)
    np.testing.assert_allclose(scaler.transform(raw.X_adv), scaled.X_adv, atol=1e-9)


class _Unscale(StandardScaler):
    """The inverse of a MinMaxScaler, as a step with a differentiable view."""

    def __init__(self, scaler=None):
        super().__init__()
        self.scaler = scaler

    def fit(self, X, y=None):
        super().fit(X)
        self.scale_ = 1 / self.scaler.data_range_
        self.mean_ = -self.scaler.data_min_ * self.scale_
        self.var_ = self.scale_**2
        return self


@pytest.mark.long
def test_one_hot_columns_stay_one_hot():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 400)
    numbers = rng.normal(size=(400, 2))
    encoded = np.hstack([np.eye(4)[codes], numbers])
    label = (codes >= 2).astype(int)
    victim = LogisticRegression().fit(encoded, label)
    constraints = FeatureConstraints.from_frame(encoded)
    rows = encoded[:60]
    for attack in (
        evasion.ProjectedGradientDescent(eps=1.0),
        evasion.CarliniWagner(),
        evasion.HopSkipJump(max_queries=200),
        evasion.ConstrainedAPGD(eps=1.5),
    ):
        attack = frozen(attack, victim, constraints=constraints).fit(encoded)
        result = attack.run(rows, label[:60])
        assert (np.sort(result.X_adv[:, :4], axis=1) == [0, 0, 0, 1]).all()
        assert result.success.mean() > 0.9
    loose = frozen(evasion.ProjectedGradientDescent(eps=1.0), victim).fit(encoded)
    broken = constraints.violations(rows, loose.run(rows, label[:60]).X_adv)
    assert len({v.row for v in broken}) > 50  # what the constraints are there for


# Raw rows of a DataFrame ----------------------------------------------------------------


def credit(n=600, seed=0):
    rng = np.random.default_rng(seed)
    opened = rng.integers(0, 10, n)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 75, n),
            "income": rng.integers(10, 90, n) * 1000,
            "debt": np.round(rng.uniform(0, 40_000, n), 2),
            "job": rng.choice(["none", "clerk", "nurse", "smith"], n),
            "owner": rng.random(n) > 0.5,
            "open_acc": opened,
            "total_acc": opened + rng.integers(0, 10, n),
        },
        index=np.arange(n) + 100,
    )
    score = frame["income"] / 1000 - frame["debt"] / 800 + 10 * frame["owner"]
    score += frame["job"].map({"none": -15, "clerk": 0, "nurse": 5, "smith": 8})
    score += 2 * frame["open_acc"] - frame["total_acc"] + rng.normal(0, 5, n)
    return frame, np.where(score > score.median(), "granted", "refused")


CREDIT, GRANTED = credit()
NUMBERS = ["age", "income", "debt", "open_acc", "total_acc"]
ENCODER = make_column_transformer(
    (StandardScaler(), NUMBERS),
    (OneHotEncoder(sparse_output=False), ["job", "owner"]),
)
LOAN = make_pipeline(ENCODER, LogisticRegression()).fit(CREDIT, GRANTED)


def credit_constraints():
    return (
        FeatureConstraints.from_frame(CREDIT)
        .set("age", mutable=False)
        .set("debt", direction="down", cost=2)
        .set("job", transitions={"none": ["clerk", "nurse"], "smith": []})
        .relate("open_acc <= total_acc")
    )


@pytest.mark.parametrize("attack", TABULAR, ids=name_of)
def test_tabular_attacks_make_valid_rows_of_a_pipeline(attack):
    constraints = credit_constraints()
    attack = frozen(attack, LOAN, constraints=constraints).fit(CREDIT, GRANTED)
    rows, labels = CREDIT[:60], GRANTED[:60]
    result = attack.run(rows, labels)
    assert constraints.violations(rows, result.X_adv) == []
    assert result.X_adv.dtypes.equals(rows.dtypes)
    assert result.X_adv.index.equals(rows.index)
    np.testing.assert_array_equal(result.y_pred, LOAN.predict(result.X_adv))
    np.testing.assert_array_equal(result.success, result.y_pred != labels)
    assert result.success.mean() > 0.8
    again = attack.run(CREDIT.iloc[30:31], GRANTED[30:31]).X_adv
    pd.testing.assert_frame_equal(again, result.X_adv.iloc[30:31])


@pytest.mark.parametrize("attack", TABULAR[1:], ids=name_of)
def test_categories_are_moved_where_that_is_allowed(attack):
    constraints = credit_constraints().set(NUMBERS, mutable=False)
    attack = frozen(attack, LOAN, constraints=constraints, eps=2.0)
    attack.fit(CREDIT, GRANTED)
    rows, own = CREDIT[:100], LOAN.predict(CREDIT[:100])
    result = attack.run(rows, own)
    assert constraints.violations(rows, result.X_adv) == []
    turned = result.X_adv["job"] != rows["job"]
    assert turned.any() and (rows["job"][turned] != "smith").all()
    # All that can be changed at all, by brute force.
    possible = np.zeros(len(rows), dtype=bool)
    jobs = ["none", "clerk", "nurse", "smith"]
    for job, owner in itertools.product(jobs, [True, False]):
        other = rows.assign(job=job, owner=owner)
        bad = {v.row for v in constraints.violations(rows, other)}
        good = ~np.isin(np.arange(len(rows)), list(bad))
        possible |= good & (LOAN.predict(other) != own)
    np.testing.assert_array_equal(result.success, possible)


@pytest.mark.long
def test_common_attacks_leave_categories_alone_and_keep_the_rest():
    constraints = credit_constraints()
    for attack in (
        evasion.ProjectedGradientDescent(norm=2, eps=0.5),
        evasion.DeepFool(),
        evasion.SquareAttack(eps=0.3, max_queries=50),
        evasion.HopSkipJump(max_queries=100),
    ):
        attack = frozen(attack, LOAN, constraints=constraints).fit(CREDIT, GRANTED)
        result = attack.run(CREDIT[:20], GRANTED[:20])
        assert constraints.violations(CREDIT[:20], result.X_adv) == []
        assert (result.X_adv["job"] == CREDIT["job"][:20]).all()
        assert result.success.mean() > 0.4
        assert result.X_adv["income"].dtype == np.int64


def test_missing_values_stay_or_appear_as_allowed():
    holed = CREDIT.copy()
    holed["income"] = holed["income"].astype(float)
    holed.loc[holed.index[::7], "income"] = np.nan
    holed.loc[holed.index[::11], "job"] = np.nan
    encoder = make_column_transformer(
        ("passthrough", NUMBERS),
        (OneHotEncoder(sparse_output=False), ["job", "owner"]),
    )
    victim = make_pipeline(encoder, HistGradientBoostingClassifier(max_iter=20))
    victim.fit(holed, GRANTED)
    constraints = FeatureConstraints.from_frame(holed).set("debt", mutable=False)
    attack = frozen(evasion.GreedyFeatureAttack(), victim, constraints=constraints)
    rows = holed[:60]
    result = attack.fit(holed, GRANTED).run(rows, GRANTED[:60])
    assert result.success.mean() > 0.9
    assert constraints.violations(rows, result.X_adv) == []
    lost = rows["income"].isna()
    assert result.X_adv["income"][lost].isna().all()


# GreedyFeatureAttack --------------------------------------------------------------------


def test_greedy_changes_one_feature_wherever_one_is_enough():
    """Against all moves of one feature over all thresholds of a small forest."""
    data = load_breast_cancer()
    A, b = data.data[:, :6], data.target
    victim = RandomForestClassifier(8, max_depth=4, random_state=0).fit(A, b)
    attack = frozen(evasion.GreedyFeatureAttack(n_values=200), victim).fit(A)
    rows = A[:60]
    result = attack.run(rows)
    own = victim.predict(rows)
    cuts = tree_thresholds(victim, A[:10])
    enough = np.zeros(len(rows), dtype=bool)
    for j in range(6):
        for value in np.unique(cuts[j]):
            if A[:, j].min() <= value <= A[:, j].max():
                moved = rows.copy()
                moved[:, j] = value
                enough |= victim.predict(moved) != own
    changed = (result.X_adv != rows).sum(axis=1)
    assert enough.sum() > 20
    assert (changed[enough & result.success] == 1).mean() > 0.95
    assert result.success[enough].all()


def test_thresholds_are_pulled_back_through_scalers():
    rng = np.random.default_rng(0)
    A = rng.normal(50, 20, size=(400, 2))
    b = (A[:, 0] > 60).astype(int)
    victim = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=1))
    victim.fit(A, b)
    ((low, high),) = tree_thresholds(victim, A[:3])[0].T
    assert victim.predict([[low, 0], [high, 0]]).tolist() == [0, 1]
    assert high == np.nextafter(low, np.inf)
    scale = np.ptp(A[:, 0])
    attack = frozen(evasion.GreedyFeatureAttack(), victim).fit(A)
    result = attack.run(A[:50])
    least = np.where(A[:50, 0] <= low, high - A[:50, 0], A[:50, 0] - low) / scale
    np.testing.assert_allclose(result.distance, least, rtol=1e-9)
    assert tree_thresholds(LogisticRegression().fit(A, b), A[:3]) == {}


def test_greedy_follows_costs():
    rng = np.random.default_rng(0)
    A = rng.uniform(size=(500, 3))
    b = (A[:, 0] + A[:, 1] > 1).astype(int)
    victim = LogisticRegression(C=100).fit(A, b)
    rows = A[np.abs(A[:, 0] + A[:, 1] - 1) < 0.2][:40]
    for dear, cheap in ((0, 1), (1, 0)):
        constraints = FeatureConstraints.from_frame(A).set(dear, cost=10.0)
        attack = frozen(evasion.GreedyFeatureAttack(), victim, constraints=constraints)
        moved = attack.fit(A).run(rows).X_adv != rows
        assert moved[:, cheap].mean() > 0.9 and moved[:, dear].mean() < 0.1
    constraints = FeatureConstraints.from_frame(A)
    constraints.weigh_by_importance(A, A[:, 0] > 0.5)
    assert constraints.features[0].cost > 3 * constraints.features[1].cost


def test_steps_lead_to_the_end_of_the_range_and_not_beyond():
    A = (X - X.min(0)) / np.ptp(X, axis=0)
    victim = LogisticRegression(max_iter=500).fit(A, y)
    attack = frozen(evasion.GreedyFeatureAttack(goal="targeted"), victim).fit(A)
    result = attack.run(A, target=(y + 1) % 3)
    assert result.X_adv.min() == 0 and result.X_adv.max() <= 1
    assert attack.constraints_.violations(A, result.X_adv) == []


def test_greedy_shows_its_attempt_where_it_fails():
    victim = LogisticRegression(max_iter=500).fit(X, y)
    attack = frozen(evasion.GreedyFeatureAttack(max_queries=100, goal="targeted"), victim)
    rows, target = X[::10], (y[::10] + 1) % 3
    result = attack.set_params(eps=0.1).fit(X).run(rows, target=target)
    assert not result.success.all()
    assert (result.X_adv != rows)[~result.success].any(axis=1).all()
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))


def test_greedy_by_labels_needs_no_scores():
    victim = make_pipeline(StandardScaler(), LinearSVC()).fit(X, y)
    constraints = FeatureConstraints.from_frame(X).limit(max_changed=2)
    attack = frozen(evasion.GreedyFeatureAttack(knowledge="label"), victim)
    result = attack.set_params(constraints=constraints).fit(X).run(X[::5], y[::5])
    assert result.success.mean() > 0.8
    assert (result.X_adv != X[::5]).sum(axis=1).max() <= 2
    assert constraints.violations(X[::5], result.X_adv) == []
    attack.set_params(confidence=0.9)
    with pytest.raises(ValueError, match="need"):
        attack.run(X[:3])


# ConstrainedAPGD, evolution, both -------------------------------------------------------


def test_capgd_flips_just_what_a_linear_model_lets_it():
    """Two classes, L2, no bound near: the distance to the boundary is known."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(300, 4)) * [1, 10, 100, 1000]
    b = (A @ [1, 0.1, 0.01, 0.001] > 0).astype(int)
    victim = make_pipeline(StandardScaler(), LogisticRegression()).fit(A, b)
    constraints = FeatureConstraints.from_frame(A)
    constraints.set(list(range(4)), lower=-np.inf, upper=np.inf)
    constraints.set(3, mutable=False)
    scale = np.array([f.scale for f in constraints.features.values()])
    weight = victim[-1].coef_[0] / victim[0].scale_ * scale * [1, 1, 1, 0]
    exact = np.abs(victim.decision_function(A)) / np.linalg.norm(weight)
    attack = frozen(evasion.ConstrainedAPGD(eps=0.15), victim, constraints=constraints)
    result = attack.fit(A).run(A)
    assert result.success[exact < 0.15 * 0.995].all()
    assert not result.success[exact > 0.15].any()
    assert 0.2 < result.success.mean() < 0.8


def test_capgd_finds_more_under_relations_than_projecting_at_the_end():
    data = load_breast_cancer(as_frame=True)
    A, b = data.data, data.target
    victim = make_pipeline(StandardScaler(), MLPClassifier((30,), max_iter=200))
    victim[-1].set_params(random_state=0, early_stopping=True)
    victim.fit(A, b)
    constraints = FeatureConstraints.from_frame(A)
    for what in ("radius", "texture", "area", "perimeter"):
        constraints.relate(f"`mean {what}` <= `worst {what}`")
    constraints.relate("`worst area` >= 2 * `worst radius` ** 2")
    rows, labels = A[-100:], b[-100:]
    attack = frozen(evasion.ConstrainedAPGD(eps=0.4), victim, constraints=constraints)
    result = attack.fit(A).run(rows, labels)
    assert constraints.violations(rows, result.X_adv) == []
    plain = FeatureConstraints.from_frame(A)
    attack.set_params(constraints=plain)
    loose = attack.fit(A).run(rows, labels).X_adv
    assert len({v.row for v in constraints.violations(rows, loose)}) > 20
    mended = constraints.project(rows, loose)
    assert result.success.mean() >= (victim.predict(mended) != labels).mean()


def test_caa_finds_all_that_its_parts_find():
    data = load_breast_cancer()
    A, b = data.data, data.target
    victim = make_pipeline(StandardScaler(), MLPClassifier((20,), random_state=0))
    victim[-1].set_params(early_stopping=True)
    victim.fit(A, b)
    found = {}
    for attack in (
        evasion.ConstrainedAPGD(eps=0.35),
        evasion.MultiObjectiveEvolution(eps=0.35, n_generations=40, population=20),
        evasion.ConstrainedAdaptiveAttack(eps=0.35, n_generations=40, population=20),
    ):
        result = frozen(attack, victim).fit(A).run(A[:80], b[:80])
        found[name_of(attack)] = result
    apgd, evolution, both = found.values()
    assert 0.1 < apgd.success.mean() < 0.95
    assert both.success[apgd.success].all()
    assert both.success.mean() >= evolution.success.mean() - 0.02
    assert both.n_queries.mean() < evolution.n_queries.mean()


def test_caa_asks_the_pipeline_only_to_confirm():
    """Evolution looks at the view: a call of the pipeline means a success, or nearly."""
    calls = []

    class Watched(LogisticRegression):
        def predict(self, X):
            calls.append(len(X))
            return super().predict(X)

        def predict_proba(self, X):
            raise AssertionError("scores come from the view")

    victim = make_pipeline(ENCODER, Watched()).fit(CREDIT, GRANTED)
    constraints = credit_constraints()
    parameters = {"constraints": constraints, "eps": 0.2}
    few = evasion.ConstrainedAdaptiveAttack(n_generations=15, population=12)
    attack = frozen(few, victim, **parameters).fit(CREDIT, GRANTED)
    result = attack.run(CREDIT[:100], GRANTED[:100])
    descent = frozen(evasion.ConstrainedAPGD(), victim, **parameters)
    first = descent.fit(CREDIT, GRANTED).run(CREDIT[:100], GRANTED[:100])
    assert result.success.sum() > first.success.sum() and not result.success.all()
    assert result.n_queries[~result.success].mean() > 100 > sum(calls) / 10
    attack.set_params(max_queries=100)
    assert attack.run(CREDIT[:100], GRANTED[:100]).n_queries.max() <= 100


def test_evolution_to_the_end_finds_nearer_rows():
    victim = RandomForestClassifier(20, random_state=0).fit(X, y)
    attack = frozen(
        evasion.MultiObjectiveEvolution(eps=None, n_generations=30, population=20),
        victim,
    )
    first = attack.fit(X).run(X[::5])
    last = attack.set_params(early_stopping=False).run(X[::5])
    assert first.success.all() and last.success.all()
    assert np.median(last.distance) < 0.8 * np.median(first.distance)
    np.testing.assert_array_equal(last.y_pred, victim.predict(last.X_adv))


def test_fronts_are_those_of_the_definition():
    rng = np.random.RandomState(0)
    fitness = torch.as_tensor(rng.randint(0, 6, size=(20, 15, 2))).double()
    fronts = _genetics.rank(fitness)
    for values, found in zip(fitness.numpy(), fronts.numpy(), strict=True):
        left, k = list(range(15)), 0
        while left:
            best = [
                i
                for i in left
                if not any(
                    (values[j] <= values[i]).all()
                    and ((values[j] < values[i]).any() or j < i)
                    for j in left
                    if j != i
                )
            ]
            assert sorted(np.flatnonzero(found == k)) == best
            left, k = [i for i in left if i not in best], k + 1
    kept = _genetics.survivors(fitness, 5)
    worst = fronts.gather(1, kept).amax(1)
    others = torch.ones_like(fronts, dtype=torch.bool).scatter(1, kept, False)
    assert (fronts.masked_fill(~others, 99).amin(1) >= worst).all()


def test_crowding_is_the_gap_between_neighbours():
    fitness = torch.tensor([[[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]]])
    distance = _genetics.crowding(fitness, torch.zeros(1, 4, dtype=torch.int64))
    assert distance.isinf().tolist() == [[True, False, False, True]]
    np.testing.assert_allclose(distance[0, 1:3], [3 / 4 + 3 / 4] * 2)


def test_chunks_and_jobs_change_nothing():
    victim = RandomForestClassifier(10, random_state=0).fit(X, y)
    few = evasion.MultiObjectiveEvolution(n_generations=5)
    for attack in (evasion.GreedyFeatureAttack(), few):
        attack = frozen(attack, victim).fit(X)
        whole = attack.run(X[::5]).X_adv
        attack.set_params(batch_size=2)
        chunks = attack.fit(X).run(X[::5]).X_adv
        if isinstance(attack, evasion.GreedyFeatureAttack):
            np.testing.assert_array_equal(whole, chunks)
        with joblib.parallel_config(backend="threading"):
            jobs = clone(attack).set_params(n_jobs=2).fit(X).run(X[::5]).X_adv
        np.testing.assert_array_equal(chunks, jobs)


# Regressors -----------------------------------------------------------------------------

D, target = load_diabetes(return_X_y=True)
RIDGE = make_pipeline(StandardScaler(), Ridge()).fit(D, target)


@parametrize_with_checks([RegressionVictim(Ridge())])
def test_regression_victim_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("wanted", [None, "increase", "decrease"])
def test_a_linear_regressor_moves_as_far_as_its_weights_allow(wanted):
    """By eps * ||w||_1 inside the Linf ball, so `delta` is reached or it is not."""
    goal = {} if wanted is None else dict(goal="targeted", target=wanted)
    reach = 0.01 * np.abs(RIDGE[-1].coef_ / RIDGE[0].scale_).sum()
    for share, reached in ((0.999, True), (1.001, False)):
        victim = RegressionVictim(FrozenEstimator(RIDGE), delta=share * reach)
        attack = evasion.ProjectedGradientDescent(
            FrozenEstimator(victim.fit(D, target)), eps=0.01, bounds=None, **goal
        )
        result = attack.fit(D).run(D[:50])
        assert (result.success == reached).all()
        move = result.y_pred - RIDGE.predict(D[:50])
        np.testing.assert_allclose(result.y_pred, RIDGE.predict(result.X_adv))
        np.testing.assert_array_equal(result.success, np.abs(move) > victim.delta)
        if wanted:
            assert (np.sign(move) == (1 if wanted == "increase" else -1)).all()


@pytest.mark.parametrize(
    "attack",
    [
        evasion.HopSkipJump(max_queries=100),
        evasion.SquareAttack(eps=0.05, max_queries=100),
        evasion.GreedyFeatureAttack(),
        evasion.GreedyFeatureAttack(knowledge="label"),
        evasion.MultiObjectiveEvolution(n_generations=10, population=12),
    ],
    ids=name_of,
)
def test_regressors_without_gradients_are_attacked_too(attack):
    forest = RandomForestRegressor(15, random_state=0).fit(D, target)
    victim = RegressionVictim(FrozenEstimator(forest), delta=25)
    attack = clone(attack).set_params(estimator=victim).fit(D, target)
    before = forest.predict(D[:30])
    result = attack.run(D[:30])
    assert result.success.mean() > 0.7
    np.testing.assert_allclose(result.y_pred, forest.predict(result.X_adv))
    np.testing.assert_array_equal(result.success, np.abs(result.y_pred - before) > 25)
    # From true targets: those that are off already are successes of distance 0.
    result = attack.run(D[:30], target[:30])
    off = np.abs(before - target[:30]) > 25
    assert off.any() and (result.distance[off] == 0).all() and result.success[off].all()
    score = attack.score(D[:30], target[:30])
    assert score == np.mean(np.abs(result.y_pred - target[:30]) <= 25)


def test_regressors_have_views():
    for regressor in (
        Ridge(),
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, tol=1e9),
    ):
        regressor.fit(D, target)
        view = differentiable.view(regressor)
        values = view.logits(torch.as_tensor(D[:9]))[:, 0]
        np.testing.assert_allclose(values, regressor.predict(D[:9]), rtol=1e-9)
    with pytest.raises(TypeError, match="RegressionVictim"):
        evasion.DeepFool(FrozenEstimator(regressor)).fit(D)
    victim = RegressionVictim(FrozenEstimator(DecisionTreeRegressor().fit(D, target)))
    with pytest.raises(differentiable._registry.NoGradientError):
        evasion.DeepFool(victim).fit(D, target)


def test_the_category_without_a_column_is_found():
    """With drop_first=True, only rows of the first category are of class 1."""
    land = np.random.default_rng(0).choice(["alps", "bay", "coast"], 200)
    X = pd.get_dummies(pd.DataFrame({"land": land}), drop_first=True)
    tree = DecisionTreeClassifier().fit(X, land == "alps")
    constraints = FeatureConstraints.from_frame(X)
    attack = evasion.GreedyFeatureAttack(FrozenEstimator(tree), constraints=constraints)
    result = attack.fit(X).run(X, land == "alps")
    assert result.success.all() and constraints.violations(X, result.X_adv) == []


# Bad input ------------------------------------------------------------------------------


def test_rows_that_do_not_fit_the_constraints_are_refused():
    constraints = credit_constraints()
    attack = frozen(evasion.GreedyFeatureAttack(), LOAN, constraints=constraints)
    attack.fit(CREDIT, GRANTED)
    worse = CREDIT.head(3).assign(open_acc=9, total_acc=3)
    with pytest.raises(ValueError, match="exclude the data: .*open_acc <= total_acc"):
        attack.run(worse)
    # A row beyond what the data had is attacked from where it is.
    beyond = CREDIT.head(3).assign(income=999_000)
    assert constraints.violations(beyond, attack.run(beyond).X_adv) == []
    other = FeatureConstraints.from_frame(CREDIT.drop(columns="job"))
    with pytest.raises(ValueError, match="unknown column 'job'"):
        attack.set_params(constraints=other).fit(CREDIT, GRANTED)
    images = np.zeros((4, 1, 3, 3))
    with pytest.raises(ValueError, match="attacks rows of features"):
        frozen(evasion.GreedyFeatureAttack(), IRIS).fit(images)


def test_columns_may_come_in_another_order():
    constraints = credit_constraints()
    order = list(CREDIT.columns[::-1])
    victim = clone(LOAN).fit(CREDIT[order], GRANTED)
    results = []
    for known in (constraints, constraints.in_order(order)):
        attack = frozen(evasion.GreedyFeatureAttack(), victim, constraints=known)
        attack.fit(CREDIT[order], GRANTED)
        results.append(attack.run(CREDIT[order][:20], GRANTED[:20]).X_adv)
    pd.testing.assert_frame_equal(*results)
    assert constraints.violations(CREDIT[:20], results[0]) == []


@pytest.mark.long
def test_max_changed_is_kept_by_all_of_them():
    constraints = credit_constraints().limit(max_changed=1)
    for attack in [*TABULAR, evasion.ProjectedGradientDescent(norm=1, eps=1.0)]:
        attack = frozen(attack, LOAN, constraints=constraints).fit(CREDIT, GRANTED)
        result = attack.run(CREDIT[:30], GRANTED[:30])
        assert constraints.violations(CREDIT[:30], result.X_adv) == []
        assert (result.X_adv != CREDIT[:30]).sum(axis=1).max() <= 1
        assert result.success.any()


def test_moves_of_small_spaces_are_all_tried():
    """A row that only one combination of single categories turns."""
    frame = pd.DataFrame(
        list(itertools.product("abc", "abc", [0, 1])), columns=["u", "v", "w"]
    )
    label = ((frame["u"] == "c") & (frame["w"] == 1)).astype(int).to_numpy()
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["u", "v"]), remainder="passthrough"
    )
    victim = make_pipeline(encoder, DecisionTreeClassifier(random_state=0))
    victim.fit(frame, label)
    attack = frozen(evasion.GreedyFeatureAttack(), victim).fit(frame, label)
    near = frame[(frame["u"] == "c") | (frame["w"] == 1)]
    result = attack.run(near)
    assert result.success.all() and (result.X_adv != near).sum(axis=1).max() == 1


def rows_that_may_lose_values():
    """Rows, and where `a` and `b` are missing."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "a": rng.random(300),
            "b": rng.random(300),
            "n": rng.integers(0, 5, 300),
            "c": pd.Categorical(rng.choice(list("xyz"), 300)),
        }
    )
    lost = rng.random((300, 2)) < 0.4
    X[["a", "b"]] = X[["a", "b"]].mask(lost)
    return X, lost


@pytest.mark.long
@pytest.mark.parametrize(
    "attack",
    [
        evasion.GreedyFeatureAttack(),
        evasion.GreedyFeatureAttack(knowledge="label"),
        evasion.MultiObjectiveEvolution(eps=1.5, n_generations=5),
        evasion.ConstrainedAPGD(eps=1.5),
        evasion.ConstrainedAdaptiveAttack(eps=1.5, n_generations=3),
        evasion.SquareAttack(eps=1, max_queries=40),
        evasion.LabelOnlyNES(eps=1, max_queries=40),
        evasion.ProjectedGradientDescent(eps=1),
        evasion.AutoAttack(eps=1, max_iter=3, square_queries=10),
    ],
    ids=lambda attack: f"{type(attack).__name__}-{attack.knowledge}",
)
@pytest.mark.parametrize("n_lost", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_values_go_missing_where_they_may(attack, n_lost):
    table, lost = rows_that_may_lose_values()
    y = lost[:, :n_lost].all(1).astype(int)
    fill = SimpleImputer(strategy="constant", fill_value=-3.0)
    victim = make_pipeline(
        make_column_transformer(
            (fill, ["a", "b", "n"]), (OneHotEncoder(handle_unknown="ignore"), ["c"])
        ),
        LogisticRegression(C=100, max_iter=1000),
    ).fit(table, y)
    assert victim.score(table, y) > 0.99
    rows = table[~lost.any(1)].iloc[:4]
    constraints = FeatureConstraints.from_frame(table).set(["n", "c"], mutable=False)
    constraints = constraints.set(["a", "b"], lower=0, upper=1, missing=True)
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim))
    result = attack.set_params(constraints=constraints).fit(table).run(rows)
    assert result.success.all() and result.X_adv["a"].isna().all()
    assert constraints.violations(rows, result.X_adv) == []
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    np.testing.assert_allclose(
        result.distance, np.linalg.norm(result.X_adv[["a", "b"]].isna(), result.norm, 1)
    )
    # Not where constraints, the ball or the victim do not allow it.
    kept = constraints.set(["a", "b"], missing=False)
    found = attack.set_params(constraints=kept).fit(table).run(rows)
    assert not found.success.any() and not found.X_adv.isna().any().any()
    if attack.eps is not None:
        found = attack.set_params(constraints=constraints, eps=0.9).fit(table).run(rows)
        assert not found.success.any() and not found.X_adv.isna().any().any()


def test_values_do_not_go_missing_where_the_victim_does_not_take_it():
    X = np.random.default_rng(0).random((60, 3))
    y = (X[:, 0] > 0.5).astype(int)
    constraints = FeatureConstraints.from_frame(X).set([0, 1, 2], missing=True)
    attack = evasion.GreedyFeatureAttack(LogisticRegression(), constraints=constraints)
    result = attack.fit(X, y).run(X)
    assert result.success.all() and not np.isnan(result.X_adv).any()


def test_evolution_lets_values_go_and_come_back():
    table, lost = rows_that_may_lose_values()
    constraints = FeatureConstraints.from_frame(table)
    victim = HistGradientBoostingClassifier(max_iter=5).fit(table, lost[:, 0])
    attack = evasion.MultiObjectiveEvolution(
        FrozenEstimator(victim), constraints=constraints, eps=None, early_stopping=False
    )
    rows = table[lost[:, 1]].iloc[:4]
    result = attack.set_params(n_generations=8).fit(table).run(rows)
    assert result.success.any() and constraints.violations(rows, result.X_adv) == []
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
