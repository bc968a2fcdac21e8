"""Trees of CatBoost: it predicts as the models do, and attacks find the optimum."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator

from sklearn_advsec.evasion import SquareAttack, TreeExactAttack
from sklearn_advsec.trees import certified_radii, tree_ensemble
from sklearn_advsec.victim import RegressionVictim

catboost = pytest.importorskip("catboost")

QUIET = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
X, y = load_iris(return_X_y=True)


def classifier(**parameters):
    return catboost.CatBoostClassifier(iterations=12, depth=3, **QUIET, **parameters)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Lossguide", "Depthwise"])
@pytest.mark.parametrize("loss", ["Logloss", "MultiClass", "MultiClassOneVsAll"])
@pytest.mark.parametrize("lost", [None, "Min", "Max"])
def test_predictions_agree(policy, loss, lost):
    rows, labels = X.copy(), np.array(["a", "b", "c"])[y]
    if loss == "Logloss":
        labels = np.where(y == 1, "yes", "no")
    if lost:
        rows[::5, 2] = np.nan
    model = classifier(grow_policy=policy, loss_function=loss, nan_mode=lost or "Min")
    model.fit(rows, labels)
    ensemble = tree_ensemble(model)
    rng = np.random.default_rng(0)
    many = rng.normal(X.mean(0), 2 * X.std(0), (2000, 4))
    if lost:
        many[rng.random(2000) < 0.3, 2] = np.nan
    np.testing.assert_array_equal(ensemble.predict(many), model.predict(many).ravel())
    # On thresholds, too.
    for j in range(4):
        at = np.unique(ensemble.threshold[ensemble.feature == j])
        at = at[np.abs(at) < 1e30]
        many[: len(at), j] = at
    np.testing.assert_array_equal(ensemble.predict(many), model.predict(many).ravel())


def test_the_optimum_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 7, (120, 2)) / 2.0
    model = classifier().fit(rows, (rows.sum(1) + rng.normal(size=120) > 3).astype(int))
    frozen = FrozenEstimator(model)
    result = TreeExactAttack(frozen, bounds=None).fit(rows).run(rows[:8])
    radii = certified_radii(model, rows[:8], method="exact")
    places = np.arange(-1, 14) / 4
    values = np.concatenate([places - 1e-6, places, places + 1e-6])
    grid = np.stack(np.meshgrid(values, values), -1).reshape(-1, 2)
    own, said = model.predict(rows[:8]), model.predict(grid)
    for i in range(8):
        least = np.abs(grid - rows[i]).max(1)[said != own[i]].min(initial=np.inf)
        assert result.status[i] == "optimal"
        assert result.upper[i] == pytest.approx(least, abs=1e-5)
        assert radii[i] == pytest.approx(least, abs=1e-5)
    found = SquareAttack(frozen, eps=1, max_queries=30).fit(rows).run(rows[:8])
    assert (radii <= np.where(found.success, found.distance, np.inf) + 1e-9).all()


def test_regressors_are_read():
    model = catboost.CatBoostRegressor(iterations=10, depth=3, **QUIET).fit(X, y * 2.0)
    victim = RegressionVictim(FrozenEstimator(model), delta=0.5).fit(X)
    np.testing.assert_allclose(tree_ensemble(victim).predict(X), model.predict(X))
    radii = certified_radii(victim, X[:5], method="exact")
    found = TreeExactAttack(FrozenEstimator(victim), bounds=None).fit(X).run(X[:5])
    np.testing.assert_allclose(radii, found.upper, atol=1e-6)
    moved = np.abs(model.predict(found.X_adv) - model.predict(X[:5]))
    np.testing.assert_array_equal(moved > 0.5, found.success)


def test_what_cannot_be_read_is_refused():
    table = pd.DataFrame({"a": np.arange(40.0), "c": ["x", "y"] * 20})
    model = classifier(cat_features=["c"]).fit(table, np.arange(40) % 2)
    with pytest.raises(TypeError, match="categorical features"):
        tree_ensemble(model)
    counts = catboost.CatBoostRegressor(iterations=2, loss_function="Poisson", **QUIET)
    with pytest.raises(TypeError, match="loss 'Poisson'"):
        tree_ensemble(counts.fit(X, y))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: tree["leaf_values"].pop(), "leaves|reshape"),
        (lambda tree: tree["splits"][0].update(float_feature_index=9), "does not have"),
        (lambda tree: tree["splits"].pop(), "leaves"),
    ],
)
def test_damaged_models_are_refused(damage, message, monkeypatch):
    model = classifier().fit(X, y == 1)
    save = catboost.CatBoostClassifier.save_model

    def damaged(self, path, format):
        save(self, path, format=format)
        with open(path) as file:
            content = json.load(file)
        damage(content["oblivious_trees"][0])
        with open(path, "w") as file:
            json.dump(content, file)

    monkeypatch.setattr(catboost.CatBoostClassifier, "save_model", damaged)
    with pytest.raises(ValueError, match=message):
        tree_ensemble(model)
