"""The array form of tree ensembles: it predicts as the models do, on any row."""

import json
import pickle
import re
from contextlib import suppress
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.evasion import TreeExactAttack
from sklearn_advsec.metrics import certified_accuracy_scorer
from sklearn_advsec.trees import (
    _exact,
    certify,
    is_tree_ensemble,
    leaf_boxes,
    supported,
    tree_ensemble,
)
from sklearn_advsec.trees._certify import ClassFlip
from sklearn_advsec.trees._ensemble import TreeList
from sklearn_advsec.trees._row import Moves, RowCells

N_ROWS = 10_000
DATA = {"binary": load_breast_cancer, "multiclass": load_iris}

MODELS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(20, random_state=0),
    "forest, mixed leaves": RandomForestClassifier(
        20, min_samples_leaf=4, random_state=0
    ),
    "extra trees": ExtraTreesClassifier(20, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=20, random_state=0),
    "boosting from zero": GradientBoostingClassifier(
        n_estimators=5, init="zero", random_state=0
    ),
    "histograms": HistGradientBoostingClassifier(max_iter=20),
    "ada": AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=2), n_estimators=15, random_state=0
    ),
    # Bootstraps of a few rows lack some of the classes.
    "bagging": BaggingClassifier(
        n_estimators=10, max_features=0.5, max_samples=6, random_state=0
    ),
}
STEPS = {
    "scalers": [StandardScaler(), MinMaxScaler(), RobustScaler()],
    "power": [PowerTransformer()],
    "quantiles": [QuantileTransformer(n_quantiles=50)],
    "imputer": [SimpleImputer(add_indicator=True), StandardScaler()],
    "bins": [
        KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf")
    ],
    "selection": [SelectKBest(k=3)],
}


def random_rows(X, n=N_ROWS, missing=0.0):
    rng = np.random.default_rng(0)
    low, high = np.nanmin(X, axis=0), np.nanmax(X, axis=0)
    R = rng.uniform(low, high, (n, X.shape[1]))
    # Half of the values are training values, which thresholds lie right beside.
    own = X[rng.integers(len(X), size=R.shape), np.arange(X.shape[1])]
    R = np.where(rng.random(R.shape) < 0.5, own, R)
    R[rng.random(R.shape) < missing] = np.nan
    return R


def check_boxes(ensemble, X):
    """Each row lies in the boxes of just those leaves that it reaches."""
    nodes, lower, upper = leaf_boxes(ensemble, X)
    for row, leaves in zip(X, ensemble.apply(X), strict=True):
        inside = ((lower <= row) & (row <= upper)).all(1)
        assert nodes[inside].tolist() == leaves.tolist()


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", MODELS)
def test_predictions_agree_on_random_rows(name, data):
    X, y = DATA[data](return_X_y=True)
    model = MODELS[name].fit(X, y)
    ensemble = tree_ensemble(model)
    R = random_rows(X)
    np.testing.assert_array_equal(ensemble.predict(R), model.predict(R))
    single = R.astype(np.float32)
    np.testing.assert_array_equal(ensemble.predict(single), model.predict(single))
    check_boxes(ensemble, R[:50])
    check_boxes(ensemble, single[:50])


@pytest.mark.parametrize("name", STEPS)
def test_predictions_agree_behind_steps(name):
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(*STEPS[name], MODELS["forest"]).fit(X, y)
    ensemble = tree_ensemble(FrozenEstimator(model))
    R = random_rows(X)
    np.testing.assert_array_equal(ensemble.predict(R), model.predict(R))
    check_boxes(ensemble, R[:100])
    check_boxes(ensemble, R[:100].astype(np.float32))


@pytest.mark.parametrize("steps", [[], *STEPS.values()], ids=["none", *STEPS])
def test_edges_are_exact_to_the_last_bit(steps):
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(*steps, DecisionTreeClassifier(random_state=0)).fit(X, y)
    ensemble = tree_ensemble(model)
    nodes, lower, upper = leaf_boxes(ensemble, X)
    inside = np.where(np.isfinite(upper), upper, np.where(np.isfinite(lower), lower, 1.0))
    np.testing.assert_array_equal(ensemble.apply(inside)[:, 0], nodes)
    for leaf, feature in np.argwhere(np.isfinite(upper)):
        beyond = inside[leaf].copy()
        beyond[feature] = np.nextafter(upper[leaf, feature], np.inf)
        assert ensemble.apply(beyond[None])[0, 0] != nodes[leaf]


def test_missing_values_and_categories_of_histograms():
    X, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(0)
    X[:, 3] = (y * 3 + rng.integers(0, 6, len(y))) % 7
    X[:, 5] = rng.integers(0, 12, len(y))
    X[rng.random(X.shape) < 0.1] = np.nan
    model = HistGradientBoostingClassifier(max_iter=30, categorical_features=[3, 5])
    ensemble = tree_ensemble(model.fit(X, y))
    assert len(ensemble.bitsets)
    R = random_rows(X, missing=0.1)
    R[:, [3, 5]] = rng.integers(0, 20, (len(R), 2))  # some of them never seen
    np.testing.assert_array_equal(ensemble.predict(R), model.predict(R))
    forest = RandomForestClassifier(20, random_state=0).fit(X, y)
    np.testing.assert_array_equal(tree_ensemble(forest).predict(R), forest.predict(R))


def test_bitsets_out_of_range_are_refused():
    X = np.arange(400.0)[:, None] % 8
    y = (X[:, 0] % 3 == 0).astype(int)
    model = HistGradientBoostingClassifier(
        max_iter=2, categorical_features=[0], min_samples_leaf=1
    ).fit(X, y)
    model._predictors[0][0].nodes["bitset_idx"] += 5
    with pytest.raises(ValueError, match="set of categories that is out of range"):
        tree_ensemble(model)


def frame_pipeline():
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.lognormal(3, 1, n).astype(np.float32),
            "balance": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "job": rng.choice(["clerk", "cook", "king"], n),
            "own": rng.random(n) < 0.5,
        }
    )
    y = (frame["age"] / 40 + frame["income"] / 40 + (frame["job"] == "king") > 2).map(
        {True: "good", False: "bad"}
    )
    columns = make_column_transformer(
        (
            make_pipeline(SimpleImputer(), QuantileTransformer(n_quantiles=20)),
            ["balance"],
        ),
        (StandardScaler(), ["income", "age"]),
        (OneHotEncoder(), ["job"]),
        (OrdinalEncoder(), ["own"]),
    )
    return make_pipeline(columns, RandomForestClassifier(20, random_state=0)), frame, y


def test_data_frames_behind_a_column_transformer():
    model, frame, y = frame_pipeline()
    model.fit(frame, y)
    ensemble = tree_ensemble(model)
    np.testing.assert_array_equal(ensemble.predict(frame), model.predict(frame))
    nodes, lower, upper = leaf_boxes(ensemble, frame)
    finite = np.isfinite(lower) | np.isfinite(upper)
    assert finite[:, :3].any(0).all() and not finite[:, 3:].any()
    ages = lower[:, 0][np.isfinite(lower[:, 0])]
    np.testing.assert_array_equal(ages, np.rint(ages))  # a column of integers
    income = upper[:, 1][np.isfinite(upper[:, 1])]
    np.testing.assert_array_equal(income, income.astype(np.float32))


def test_what_cannot_be_read_is_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match="no tree ensemble that can be read"):
        tree_ensemble(LogisticRegression(max_iter=1000).fit(X, y))
    with pytest.raises(NotFittedError):
        tree_ensemble(RandomForestClassifier())
    bagging = BaggingClassifier(LogisticRegression(max_iter=1000)).fit(X, y)
    with pytest.raises(TypeError, match="BaggingClassifier of LogisticRegression"):
        tree_ensemble(bagging)
    boosting = GradientBoostingClassifier(n_estimators=1, init=DecisionTreeClassifier())
    with pytest.raises(TypeError, match="Leave init at None"):
        tree_ensemble(boosting.fit(X, y))
    for step in (PCA(2), FunctionTransformer(np.exp), PowerTransformer("box-cox")):
        model = make_pipeline(step, DecisionTreeClassifier()).fit(X, y)
        with pytest.raises(TypeError, match="cannot be pulled back"):
            certify(model, X[:1])
    assert is_tree_ensemble(make_pipeline(PCA(), DecisionTreeClassifier()))
    assert not is_tree_ensemble(LogisticRegression())
    assert {"DecisionTreeClassifier", "AdaBoostClassifier"} <= set(supported())


def test_the_array_form_pickles():
    X, y = load_iris(return_X_y=True)
    ensemble = tree_ensemble(MODELS["forest"].fit(X, y))
    again = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(again.scores(X), ensemble.scores(X))


@pytest.mark.parametrize("booster", ["gbtree", "dart"])
@pytest.mark.parametrize("data", DATA)
def test_xgboost(data, booster):
    xgboost = pytest.importorskip("xgboost")
    X, y = DATA[data](return_X_y=True)
    rng = np.random.default_rng(0)
    X[:, 1] = (y * 3 + rng.integers(0, 6, len(y))) % 7
    X[rng.random(X.shape) < 0.1] = np.nan
    R = random_rows(X, missing=0.1)
    R[:, 1] = rng.integers(0, 7, len(R))
    for kinds in (None, ["q", "c", *"q" * (X.shape[1] - 2)]):
        model = xgboost.XGBClassifier(
            n_estimators=20,
            booster=booster,
            feature_types=kinds,
            enable_categorical=True,
            max_cat_to_onehot=2,
        ).fit(X, y)
        ensemble = tree_ensemble(model)
        assert (len(ensemble.bitsets) > 0) == (kinds is not None)
        np.testing.assert_array_equal(ensemble.predict(R), model.predict(R))


@pytest.mark.parametrize("data", DATA)
def test_lightgbm(data):
    lightgbm = pytest.importorskip("lightgbm")
    X, y = DATA[data](return_X_y=True)
    X = X[:, :2]
    rng = np.random.default_rng(0)
    X[:, 1] = (y * 3 + rng.integers(0, 6, len(y))) % 7
    R = random_rows(X)
    R[:, 1] = rng.integers(0, 9, len(R))
    for missing in (0.0, 0.1):
        X[rng.random(X.shape) < missing] = np.nan
        R[rng.random(R.shape) < missing] = np.nan
        model = lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1)
        model.set_params(min_data_per_group=1, min_child_samples=3, cat_smooth=1)
        model.fit(X, y, categorical_feature=[1])
        ensemble = tree_ensemble(model)
        assert len(ensemble.bitsets)
        predicted = model.booster_.predict(R)
        label = predicted.argmax(1) if predicted.ndim == 2 else predicted > 0.5
        np.testing.assert_array_equal(ensemble.predict(R), label)


# Certificates ---------------------------------------------------------------------------


@pytest.mark.long
def test_the_bound_that_rises_level_by_level(monkeypatch):
    """It ends at the optimum, and stays below it wherever time runs out."""
    X, y = load_iris(return_X_y=True)
    forest = RandomForestClassifier(8, max_depth=4, random_state=0).fit(X, y)
    rows, free = X[::30], np.full(4, np.inf)
    attack = TreeExactAttack(FrozenEstimator(forest), bounds=None).fit(X)
    expected, n_stopped = attack.run(rows), 0
    run = _exact.BranchAndBound.run
    for x, label, least in zip(rows, expected.label, expected.upper, strict=True):
        cells = RowCells(attack.grid_, x, Moves(-free, free), np.inf, x[None])
        flips = [ClassFlip(cells, k, [label]) for k in range(3) if k != label]
        costs = []
        for flip in flips:
            search = flip.search(np.inf)
            assert _exact._rise(search, flip, 60, lambda x: False)
            assert search.lower == search.cost
            costs.append(search.cost)
            for n_levels in range(6):
                left = [n_levels]

                def stop(boxes, seconds, left=left):
                    left[0] -= 1
                    return run(boxes, seconds) if left[0] >= 0 else 1 / 0

                with monkeypatch.context() as patch:
                    patch.setattr(_exact.BranchAndBound, "run", stop)
                    stopped = flip.search(np.inf)
                    with suppress(ZeroDivisionError):
                        _exact._rise(stopped, flip, 60, lambda x: False)
                n_stopped += left[0] < 0
                assert stopped.lower <= costs[-1] <= stopped.cost
        assert min(costs) == pytest.approx(least)
    assert n_stopped > 8


def test_bounds_never_exceed_the_exact_radius():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    for name in ("forest", "boosting", "histograms", "ada"):
        model = MODELS[name].fit(X[::2], y[::2])
        rows = X[1:41:2]
        bounds, exact = certify(model, rows), certify(model, rows, method="exact")
        assert (bounds <= exact).all()
        assert np.median(bounds / exact) > 0.7  # the gap of Chen et al. is below 30 %
        eps = float(np.median(bounds))
        holds = certify(model, rows, eps)
        assert (holds <= (exact > eps)).all() and (holds >= (bounds > eps)).all()


@pytest.mark.long
def test_certificates_of_wrong_rows_and_of_all_norms():
    X, y = load_iris(return_X_y=True)
    model = MODELS["forest"].fit(X, y)
    wrong = model.predict(X) != np.roll(y, 1)
    radii = certify(model, X, y=np.roll(y, 1))
    assert (radii[wrong] == 0).all() and (radii[~wrong] > 0).all()
    inf, two, one = (
        certify(model, X[:20], norm=p, method="bounds") for p in (np.inf, 2, 1)
    )
    exact = {p: certify(model, X[:20], norm=p, method="exact") for p in (np.inf, 1, 0)}
    assert (inf <= exact[np.inf]).all() and (one <= exact[1]).all()
    assert (exact[np.inf] <= exact[1]).all() and (two <= exact[1]).all()
    assert set(exact[0]) <= {1.0, 2.0, 3.0, 4.0}
    with joblib.parallel_config(backend="threading"):
        many = certify(model, X, n_jobs=2)
    np.testing.assert_array_equal(many, certify(model, X))


def test_what_certify_refuses():
    X, y = load_iris(return_X_y=True)
    model = MODELS["tree"].fit(X, y)
    with pytest.raises(ValueError, match="method must be"):
        certify(model, X, method="magic")
    with pytest.raises(ValueError, match="norm must be"):
        certify(model, X, norm=3)
    with pytest.raises(ValueError, match="got norm=2"):
        certify(model, X, norm=2, method="exact")


def test_the_scorer_of_certificates_takes_trees():
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), MODELS["forest"]).fit(X[::2], y[::2])
    radii = certify(model, X[1::2], y=y[1::2])
    score = certified_accuracy_scorer(0.2)(model, X[1::2], y[1::2])
    exact = certified_accuracy_scorer(0.2, method="exact")(model, X[1::2], y[1::2])
    assert (radii > 0.2).mean() <= score <= exact


# What is read is what the model says ----------------------------------------------------


def test_values_that_stand_for_missing_ones_are_read():
    xgboost = pytest.importorskip("xgboost")
    X = np.tile(np.arange(10.0), 20)[:, None]
    y = (X[:, 0] == 0) | (X[:, 0] > 6)
    model = xgboost.XGBClassifier(n_estimators=5, missing=0).fit(X, y.astype(int))
    R = np.append(np.nextafter(0, [-1, 1]), [-1, 0, 1e-50, np.nan, *X[:10, 0]])[:, None]
    np.testing.assert_array_equal(tree_ensemble(model).predict(R), model.predict(R))


def test_leaves_with_values_for_all_classes_are_read():
    xgboost = pytest.importorskip("xgboost")
    X, y = load_iris(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=5, multi_strategy="multi_output_tree")
    ensemble = tree_ensemble(model.fit(X, y))
    R = random_rows(X, missing=0.1)
    np.testing.assert_array_equal(ensemble.predict(R), model.predict(R))


def test_sparse_rows_lack_values_for_xgboost():
    xgboost = pytest.importorskip("xgboost")
    X, y = load_iris(return_X_y=True)
    X = np.rint(2 * X)
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(encoder, xgboost.XGBClassifier(n_estimators=5)).fit(X, y)
    R = random_rows(X, 500)
    np.testing.assert_array_equal(tree_ensemble(model).predict(R), model.predict(R))


def test_predictions_that_stop_early_are_refused():
    lightgbm = pytest.importorskip("lightgbm")
    X, y = load_iris(return_X_y=True)
    model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, pred_early_stop=True)
    with pytest.raises(TypeError, match="pred_early_stop"):
        tree_ensemble(model.fit(X, y))


class Contrary(DecisionTreeClassifier):
    """A tree that does not answer as its nodes say."""

    def __init__(self, when="always", max_depth=None):
        super().__init__(max_depth=max_depth)
        self.when = when

    def predict(self, X):
        label = super().predict(X)
        if self.when == "missing":
            return np.where(np.isnan(X).any(1), self.classes_[0], label)
        return np.roll(self.classes_, 1)[np.searchsorted(self.classes_, label)]


@pytest.mark.parametrize(
    ("when", "where"), [("always", "at its thresholds"), ("missing", "missing values")]
)
def test_a_form_that_answers_otherwise_is_an_error(when, where):
    X, y = load_iris(return_X_y=True)
    X[::5] = np.nan
    with pytest.raises(
        TypeError, match=f"not read right: on rows (at|with) .*{where[3:]}"
    ):
        tree_ensemble(Contrary(when, max_depth=3).fit(X, y))


class Folding(FunctionTransformer):
    """A step that says of itself to be something else."""

    def __init__(self, func=None):
        super().__init__(func)

    def transform(self, X):
        return np.abs(X - 3.0)


def test_steps_that_are_not_what_they_seem_are_an_error():
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(Folding(), DecisionTreeClassifier(random_state=0)).fit(X, y)
    with pytest.raises(TypeError, match="do not treat the columns as they were read"):
        certify(model, X)


def damage(path, value):
    """Return what changes one entry of the first tree with a split, deep inside."""

    def change(tree):
        *parents, last = path
        for name in parents:
            tree = tree[name]
        tree[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("left_children", 0), 10**6, "child is none of the nodes"),
        (("left_children", 0), 0, "two parents"),
        (("right_children", 0), 1, "two parents"),
        (("split_indices", 0), 40, "looks at feature 40 of 4"),
        (("split_conditions",), [0.0], "different lengths"),
        (("categories", 0), 2**31, "has the code"),
        (("categories_sizes", 0), 10**6, "set of categories is out of range"),
    ],
)
def test_damaged_dumps_of_xgboost_are_refused(path, value, message, monkeypatch):
    xgboost = pytest.importorskip("xgboost")
    X, y = load_iris(return_X_y=True)
    X[:, 0] = np.rint(X[:, 0])
    model = xgboost.XGBClassifier(
        n_estimators=1, feature_types=["c", "q", "q", "q"], enable_categorical=True
    ).fit(X, y == 2)
    dump = json.loads(bytes(model.get_booster().save_raw("json")))
    tree = dump["learner"]["gradient_booster"]["model"]["trees"][0]
    if path[0].startswith("categories") and not tree["categories"]:
        tree |= {
            "categories": [1, 2],
            "categories_nodes": [0],
            "categories_segments": [0],
            "categories_sizes": [2],
        }
        tree["split_type"][0] = 1
    damage(path, value)(tree)
    monkeypatch.setattr(
        xgboost.Booster, "save_raw", lambda *args: json.dumps(dump).encode()
    )
    with pytest.raises(ValueError, match=message):
        tree_ensemble(model)


@pytest.mark.parametrize(
    ("line", "value", "message"),
    [
        ("left_child", "7 -1 -2", "child is none of the nodes"),
        ("left_child", "0 -1 -2", "two parents"),
        ("split_feature", "0 0 9", "looks at feature 9 of 4"),
        ("num_leaves", "1000000000", "different lengths"),
    ],
)
def test_damaged_dumps_of_lightgbm_are_refused(line, value, message, monkeypatch):
    lightgbm = pytest.importorskip("lightgbm")
    X, y = load_iris(return_X_y=True)
    model = lightgbm.LGBMClassifier(n_estimators=1, num_leaves=4, verbose=-1)
    model.fit(X, y == 2)
    text = model.booster_.model_to_string()
    damaged = re.sub(rf"(?m)^{line}=.*$", f"{line}={value}", text)
    monkeypatch.setattr(lightgbm.Booster, "model_to_string", lambda *a, **k: damaged)
    with pytest.raises(ValueError, match=message):
        tree_ensemble(model)


def chain(depth):
    """Return a list of trees with one tree of that depth."""
    trees, n_nodes = TreeList("test", 1, 1), 2 * depth + 1
    inner = np.arange(n_nodes) % 2 == 0
    inner[-1] = False
    at = np.arange(n_nodes)
    trees.add(
        np.where(inner, 0, -1),
        at + 1,
        at + 2,
        np.where(inner, 0.0, 1.0)[:, None] * (-1.0) ** at[:, None],
        threshold=at.astype(float),
        missing_left=inner,
        unknown_left=inner,
    )
    return trees


def test_trees_may_be_as_deep_as_they_like():
    ensemble = chain(1500).ensemble(
        classes=np.arange(2), base=np.zeros(1), link="positive"
    )
    ensemble.check_structure()
    assert ensemble.predict([[-1.0], [1e9]]).tolist() == [0, 1]
    _, lower, upper = leaf_boxes(ensemble, np.zeros((1, 1)))
    assert len(lower) == 1501 and (upper[:-1, 0] < lower[1:, 0]).all()


def test_nodes_that_go_round_in_a_circle_are_refused():
    trees = TreeList("test", 1, 1)
    zeros = np.zeros(5)
    trees.add(
        [-1, 0, 0, -1, -1],
        [0, 2, 1, 0, 0],
        [0, 3, 4, 0, 0],
        zeros[:, None],
        **dict.fromkeys(("threshold", "missing_left", "unknown_left"), zeros),
    )
    with pytest.raises(ValueError, match="go round in a circle"):
        trees.ensemble(classes=[0, 1], base=np.zeros(1))


# Columns that encoders cut --------------------------------------------------------------


def test_number_columns_behind_bins_are_searched():
    X = np.linspace(0, 1, 100)[:, None]
    bins = KBinsDiscretizer(10, quantile_method="averaged_inverted_cdf")
    model = make_pipeline(bins, RandomForestClassifier(5, random_state=0))
    model.fit(X, X[:, 0] > 0.5)
    predicted = model.predict(X)
    other = [
        np.abs(X[predicted != p] - x).min() for x, p in zip(X, predicted, strict=True)
    ]
    for method in ("bounds", "exact"):
        radii = certify(model, X, method=method)
        assert (radii <= other).all() and (radii > np.array(other) - 0.0102).all()


def test_breaks_that_no_value_reaches_are_none():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 6, (100, 2)).astype(float)
    y = (X[:, 0] > 2) ^ (X[:, 1] == 3)
    # Bins from 0 to 2 behind which the categories 0, 1, 2 and 7 are asked for.
    bins = KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf")
    encoder = OneHotEncoder(categories=[[-1, 0, 1, 2, 7]] * 2, handle_unknown="ignore")
    model = make_pipeline(bins, encoder, DecisionTreeClassifier(random_state=0)).fit(X, y)
    check_boxes(tree_ensemble(model), random_rows(X, 200))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "bool"])
def test_arrays_of_any_numbers_have_exact_edges(dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, (100, 3)).astype(dtype)
    y = (X[:, 0] > 3) ^ (X[:, 1] > 0) if dtype != "bool" else X[:, 0] ^ X[:, 1]
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    exact = TreeExactAttack(model, norm=1).fit(X, y)
    result = exact.run(X[:20])
    assert (result.status == "optimal").all() and result.X_adv.dtype == X.dtype
    moved = np.abs(result.X_adv.astype(float) - X[:20].astype(float)).sum(1)
    np.testing.assert_allclose(result.lower, moved, rtol=1e-5)
    assert dtype == "float32" or (certify(exact.estimator_, X[:20], norm=1) >= 1).all()


def test_columns_that_are_cut_too_finely_are_held_and_said_to_be(monkeypatch):
    monkeypatch.setattr("sklearn_advsec.trees._grid._MOST_BOXES", 20)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 40, (300, 2)).astype(float)
    y = ((X[:, 0] % 7 < 3) ^ (X[:, 1] > 20)).astype(int)
    model = make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), RandomForestClassifier(4, random_state=0)
    ).fit(X, y)
    attack = TreeExactAttack(FrozenEstimator(model), norm=1, bounds=None).fit(X)
    assert attack.grid_.held.any()
    result = attack.run(X[:10])
    assert set(result.status) == {"partial"}
    radii = certify(model, X[:10], norm=1)
    assert np.isfinite(radii).all() and (radii <= result.lower).all()
    assert (certify(model, X[:10], norm=0) <= 1).all()
    with pytest.raises(ValueError, match="too many cells"):
        leaf_boxes(tree_ensemble(model), X)


def test_what_certify_checks_of_its_rows():
    X, y = load_iris(return_X_y=True, as_frame=True)
    model = RandomForestClassifier(3, random_state=0).fit(X, y)
    ensemble = tree_ensemble(model)
    for rows in (X[X.columns[::-1]], X.assign(more=1.0)):
        for run in (certify, lambda m, R: leaf_boxes(ensemble, R)):
            with pytest.raises(ValueError, match="in the same order"):
                run(model, rows)
        for method in (ensemble.predict, ensemble.apply, ensemble.scores):
            with pytest.raises(ValueError, match="in the same order"):
                method(rows)
    wide = np.ones((2, 5))
    with pytest.raises(ValueError, match="4 columns"):
        certify(model, wide)
    with pytest.raises(ValueError, match="4 columns"):
        ensemble.predict(wide)
    for eps in (-1, np.nan, "1", True):
        with pytest.raises(ValueError, match="eps"):
            certify(model, X[:2], eps)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        certify(model, X[:2], y=y[:3])


def test_nothing_is_certified_where_nothing_can_change():
    X = pd.DataFrame({"a": ["x", "y"] * 20, "b": [True, False] * 20})
    model = make_pipeline(OneHotEncoder(), RandomForestClassifier(3)).fit(X, X.b)
    with pytest.raises(ValueError, match="hold categories"):
        certify(model, X)
    with pytest.raises(ValueError, match="every column of X is held fixed"):
        TreeExactAttack(FrozenEstimator(model)).fit(X)


def test_samplers_in_a_pipeline_are_skipped():
    pipeline = pytest.importorskip("imblearn.pipeline")
    sampling = pytest.importorskip("imblearn.under_sampling")
    X, y = load_iris(return_X_y=True)
    model = pipeline.make_pipeline(
        StandardScaler(),
        sampling.RandomUnderSampler(random_state=0),
        RandomForestClassifier(3, random_state=0),
    ).fit(X, y)
    np.testing.assert_array_equal(tree_ensemble(model).predict(X), model.predict(X))
    assert (certify(model, X[:5]) > 0).all()


def test_roundings_of_many_trees_are_within_their_bound():
    """Of equal numbers, which all round the same way, sums drift as far as they can."""
    X, y = load_breast_cancer(return_X_y=True)
    model = GradientBoostingClassifier(n_estimators=1, max_depth=1).fit(X, y)
    n, leaf = 3000, np.full(3000, -1)
    many = replace(
        tree_ensemble(model),
        roots=np.arange(n),
        feature=leaf,
        threshold=np.zeros(n),
        left=leaf,
        right=leaf,
        missing_left=np.zeros(n, dtype=bool),
        unknown_left=np.zeros(n, dtype=bool),
        category=leaf,
        value=np.full((n, 1), 0.1),
        base=np.zeros(1),
        sum_dtype="float32",
    )
    off = abs(float(many.scores(X[:1])[0, 0]) - n * float(np.float32(0.1)))
    assert 16 * np.finfo("float32").eps * n * 0.1 < off <= many.rounding
