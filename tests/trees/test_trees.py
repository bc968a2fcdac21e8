"""The array form of tree ensembles: it predicts as the models do, on any row."""

import pickle

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

from sklearn_advsec.metrics import certified_accuracy_scorer
from sklearn_advsec.trees import (
    certify,
    is_tree_ensemble,
    leaf_boxes,
    supported,
    tree_ensemble,
)

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
        model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, cat_smooth=1)
        model.set_params(min_data_per_group=1, min_child_samples=3)
        model.fit(X, y, categorical_feature=[1])
        ensemble = tree_ensemble(model)
        assert len(ensemble.bitsets)
        predicted = model.booster_.predict(R)
        label = predicted.argmax(1) if predicted.ndim == 2 else predicted > 0.5
        np.testing.assert_array_equal(ensemble.predict(R), label)


# Certificates ---------------------------------------------------------------------------


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
