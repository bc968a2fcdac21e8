"""Boosters that hold the categories of pandas columns by themselves."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator

from sklearn_advsec.evasion import (
    GreedyFeatureAttack,
    TreeCoordinateAttack,
    TreeExactAttack,
)
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import certified_radii, tree_ensemble
from sklearn_advsec.victim import RegressionVictim

LETTERS, TENS = ["w", "x", "y", "long name"], [10, 20, 30]


def make_table():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "a": rng.integers(0, 5, 250),
            "c": pd.Categorical(rng.choice(LETTERS, 250), categories=LETTERS[::-1]),
            "b": rng.random(250),
            "d": pd.Categorical(rng.choice(TENS, 250)),
        }
    )
    table.loc[::11, "c"] = np.nan
    odd = table["c"].isin(["x", "long name"]) ^ (table["d"] == 20)
    return table, (odd ^ (table["b"] > 0.8)).to_numpy().astype(int)


def booster(name):
    if name.startswith("lightgbm"):
        lightgbm = pytest.importorskip("lightgbm")
        wide = 10 if "one" in name else 1
        return lightgbm.LGBMClassifier(
            n_estimators=6,
            min_child_samples=5,
            min_data_per_group=5,
            max_cat_to_onehot=wide,
            verbose=-1,
            n_jobs=1,
        )
    xgboost = pytest.importorskip("xgboost", "3.1")  # before, it held none
    wide = 10 if "one" in name else 1
    kind = xgboost.XGBRegressor if "regressor" in name else xgboost.XGBClassifier
    return kind(
        n_estimators=6,
        max_depth=3,
        enable_categorical=True,
        max_cat_to_onehot=wide,
        n_jobs=1,
    )


NAMES = [
    "xgboost, one against all",
    "xgboost, sets",
    "lightgbm, one against all",
    "lightgbm, sets",
]


@pytest.mark.parametrize("name", NAMES)
def test_categories_are_coded_as_the_booster_does(name):
    table, y = make_table()
    model = booster(name).fit(table, y)
    ensemble = tree_ensemble(model)
    assert (ensemble.category >= 0).any()
    np.testing.assert_array_equal(ensemble.predict(table), model.predict(table))
    # Another order of the categories, one that is not known, and none at all.
    other = table.assign(
        c=table["c"].cat.set_categories(["new", *LETTERS]),
        d=table["d"].cat.set_categories(TENS[::-1]),
    )
    other.loc[::3, "d"] = np.nan
    np.testing.assert_array_equal(ensemble.predict(other), model.predict(other))
    other.loc[1::3, "c"] = "new"
    if "xgboost" in name:  # which takes it for one that it knows
        with pytest.raises(ValueError, match="'c' holds 'new'"):
            ensemble.predict(other)
        return
    np.testing.assert_array_equal(ensemble.predict(other), model.predict(other))


@pytest.mark.parametrize("name", NAMES)
def test_the_optimum_over_categories_is_that_of_brute_force(name):
    table, y = make_table()
    model = booster(name).fit(table, y)
    constraints = FeatureConstraints.from_frame(table).set(["a", "b"], mutable=False)
    constraints.set(["c", "d"], missing=False)
    rows = table[table["c"].notna()].iloc[:8]
    frozen = FrozenEstimator(model)
    attack = TreeExactAttack(frozen, norm=0, constraints=constraints)
    result = attack.fit(table).run(rows)
    own = model.predict(rows)
    for i in range(len(rows)):
        every = pd.concat([rows.iloc[[i]]] * 12, ignore_index=True)
        pairs = list(itertools.product(LETTERS, TENS))
        for name, values in zip("cd", zip(*pairs, strict=True), strict=True):
            every[name] = pd.Categorical(values, categories=table[name].cat.categories)
        changed = (every["c"] != rows["c"].iloc[i]).to_numpy().astype(int)
        changed += (every["d"] != rows["d"].iloc[i]).to_numpy()
        least = changed[model.predict(every) != own[i]].min(initial=99)
        if least == 99:
            assert result.status[i] == "infeasible"
        else:
            assert result.status[i] == "optimal" and result.upper[i] == least
    np.testing.assert_array_equal(model.predict(result.X_adv) != own, result.success)
    greedy = GreedyFeatureAttack(frozen, norm=0, constraints=constraints)
    found = greedy.fit(table).run(rows)
    reached = np.where(found.success, found.distance, np.inf)
    assert (result.lower <= reached).all()
    # Without constraints, categories stay, and numbers move.
    radii = certified_radii(model, rows, method="exact")
    free = TreeCoordinateAttack(frozen, bounds=None).fit(table).run(rows)
    assert free.X_adv["c"].equals(rows["c"])
    assert (radii <= np.where(free.success, free.distance, np.inf) + 1e-9).all()


def test_categories_of_regressors_are_read():
    table, y = make_table()
    model = booster("xgboost regressor").fit(table, y + table["a"] / 4)
    victim = RegressionVictim(FrozenEstimator(model), delta=0.2).fit(table)
    said = tree_ensemble(victim).predict(table)
    np.testing.assert_allclose(said, model.predict(table), rtol=1e-5)
    assert (certified_radii(victim, table.iloc[:5]) > 0).any()


def test_letters_that_xgboost_cuts_are_refused():
    table, y = make_table()
    table["c"] = table["c"].cat.rename_categories({"x": "ö"})
    model = booster("xgboost, sets").fit(table, y)
    with pytest.raises(TypeError, match="ASCII"):
        tree_ensemble(model)


def test_a_constant_column_of_categories_is_refused_for_lightgbm():
    table, y = make_table()
    table["e"] = pd.Categorical(["same"] * len(table))
    model = booster("lightgbm, sets").fit(table, y)
    with pytest.raises(TypeError, match="constant column"):
        tree_ensemble(model)
