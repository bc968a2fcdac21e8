"""Exact extraction: against the victim's own parameters, and its query budget."""

import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, export_text

from sklearn_advsec.exceptions import QueryBudgetExceeded
from sklearn_advsec.extraction import (
    EquationSolving,
    LabelsOnly,
    PathFinding,
    ReLUExtraction,
    RoundedProbabilities,
    _path_finding,
)
from sklearn_advsec.extraction._box_search import above, last_inside, likely_spacing
from sklearn_advsec.extraction._kinks import find_kinks
from sklearn_advsec.extraction._parameters import network_copy
from sklearn_advsec.extraction._path_finding import rows_to_check

DATA = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer}


class Counted:
    """A remote victim that counts the rows it is sent, and may fail."""

    def __init__(self, model, fail_after=None):
        self.model = model
        self.classes_ = getattr(model, "classes_", None)
        self.n_rows = 0
        self.fail_after = fail_after
        if self.classes_ is None:
            del self.classes_
        if hasattr(model, "predict_proba"):
            self.predict_proba = lambda X: self._ask("predict_proba", X)
        if hasattr(model, "apply"):
            self.apply = model.apply

    def predict(self, X):
        return self._ask("predict", X)

    def _ask(self, method, X):
        if self.fail_after is not None and self.n_rows + len(X) > self.fail_after:
            raise ConnectionError("the service is down")
        self.n_rows += len(X)
        return getattr(self.model, method)(X)


def raw_parameters(model):
    """Parameters of scaler and logistic regression on raw features, written out."""
    scaler, last = model[0], model[-1]
    coef = last.coef_ / scaler.scale_
    return coef, last.intercept_ - coef @ scaler.mean_


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:1200], y[:1200], X[1200:]


# Equation solving -----------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("scaled", [False, True])
def test_logistic_regression_is_exact_from_d_plus_one_queries(name, scaled):
    X, y = DATA[name](return_X_y=True)
    model = LogisticRegression(solver="newton-cholesky").fit(X, y)
    coef, intercept = model.coef_, model.intercept_
    if scaled:
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
        coef, intercept = raw_parameters(model)
    if len(coef) > 1:  # only differences between classes can be known
        coef, intercept = coef - coef.mean(axis=0), intercept - intercept.mean()
    victim = Counted(model)
    alone = EquationSolving(victim, n_checks=0).fit(X)
    assert victim.n_rows == alone.n_queries_ == X.shape[1] + 1
    assert np.isnan(alone.residual_)  # there is a solution for any answers
    victim = Counted(model)
    attack = EquationSolving(victim).fit(X)
    assert victim.n_rows == attack.n_queries_ == X.shape[1] + 1 + 10
    assert attack.residual_ < 1e-6 and attack.n_checked_ == 10
    np.testing.assert_allclose(attack.coef_, coef, rtol=1e-6)
    np.testing.assert_allclose(attack.intercept_, intercept, rtol=1e-6)
    assert attack.fidelity(X) == 1.0


def test_constant_features_do_not_spoil_the_others(digits):
    X, y, X_test = digits
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(X, y)
    coef, _ = raw_parameters(model)
    attack = EquationSolving(FrozenEstimator(model)).fit(X)
    varies = np.ptp(X, axis=0) > 0
    assert not varies.all()
    coef = coef - coef.mean(axis=0)
    np.testing.assert_allclose(attack.coef_[:, varies], coef[:, varies], rtol=1e-6)
    assert attack.fidelity(X_test) == 1.0


@pytest.mark.parametrize("decimals, least", [(5, 0.999), (3, 0.99), (2, 0.95)])
@pytest.mark.parametrize("name", DATA)
def test_rounded_probabilities_cost_queries_not_fidelity(name, decimals, least):
    X, y = DATA[name](return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    served = RoundedProbabilities(FrozenEstimator(model), decimals).fit(X)
    victim = Counted(served)
    attack = EquationSolving(victim).fit(X)
    assert attack.decimals_ == decimals
    assert victim.n_rows == attack.n_queries_ <= 10 * (X.shape[1] + 1) + 10
    report = attack.extraction_report(X)
    assert min(1 - report["R_test"], 1 - report["R_unif"]) >= least


def test_labels_give_a_linear_model_up_to_scale():
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    coef, intercept = raw_parameters(model)
    victim = Counted(LabelsOnly(FrozenEstimator(model)).fit(X))
    attack = EquationSolving(victim).fit(X)
    assert victim.n_rows == attack.n_queries_
    found = np.append(attack.coef_, attack.intercept_)
    truth = np.append(coef, intercept)
    factor = found @ truth / (found @ found)
    assert factor > 0
    np.testing.assert_allclose(found * factor, truth, rtol=1e-6)
    assert not hasattr(attack, "predict_proba")  # it would need the scale


def test_labels_within_a_budget_lose_precision_only():
    X, y = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    victim = Counted(model)
    attack = EquationSolving(victim, knowledge="label", max_queries=700).fit(X)
    assert victim.n_rows <= 700
    assert attack.fidelity(X) > 0.97


@pytest.mark.parametrize(
    "kind", ["one-hot", "dense bins", "ordinal bins", "abs", "shift"]
)
def test_residuals_of_equations_are_no_proof(kind):
    X = HALVES - np.rint(HALVES.mean(axis=0))
    model = make_pipeline(_encoder(kind), LogisticRegression(max_iter=500))
    with warnings.catch_warnings(action="ignore"):
        model.fit(X, SPECIES)
        attack = EquationSolving(FrozenEstimator(model)).fit(X)
    wrong = 1 - attack.fidelity(X)
    assert (attack.residual_ < 1e-6) == (kind == "shift")
    assert wrong == 0 or attack.residual_ > 0.01


def test_network_by_least_squares():
    X, y = load_iris(return_X_y=True)
    net = MLPClassifier(3, activation="tanh", alpha=0.1, solver="lbfgs", tol=1e-3)
    net.set_params(max_iter=400, random_state=7)
    model = make_pipeline(StandardScaler(), net).fit(X, y)
    attack = EquationSolving(FrozenEstimator(model), n_hidden=3).fit(X)
    assert attack.n_queries_ == 5 * (5 * 3 + 4 * 3) + attack.n_checked_
    assert attack.fidelity(X) >= 0.99
    assert attack.coefs_[0].shape == (4, 3)


def test_too_small_a_budget_is_refused_before_anything_is_sent():
    X, y = load_iris(return_X_y=True)
    victim = Counted(LogisticRegression(max_iter=500).fit(X, y))
    with pytest.raises(QueryBudgetExceeded, match="max_queries=4"):
        EquationSolving(victim, max_queries=4).fit(X)
    assert victim.n_rows == 0


# Path-finding ---------------------------------------------------------------------------

# A half of what plain path-finding takes on these trees.
HALF = {"iris": 338, "wine": 688, "breast_cancer": 1953}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("scaled", [False, True])
def test_tree_is_exact_and_proven(name, scaled):
    X, y = DATA[name](return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    model = tree
    if scaled:
        model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
        model.fit(X, y)
    attack = PathFinding(FrozenEstimator(model)).fit(X)
    assert attack.exact_ and attack.inexact_share_ == 0
    assert attack.n_leaves_ == tree.get_n_leaves()
    assert attack.n_queries_ <= HALF[name]
    np.testing.assert_allclose(attack.volumes_.sum(), 1, rtol=1e-9)
    report = attack.extraction_report(X)
    assert report["R_test"] == report["R_unif"] == report["R_unif_TV"] == 0
    if not scaled:  # every threshold to the last bit of float32
        nodes = tree.tree_.feature >= 0
        ours = attack.tree_.feature >= 0
        of_victim = zip(
            tree.tree_.feature[nodes],
            tree.tree_.threshold[nodes].astype("f4"),
            strict=True,
        )
        found = {
            (j, np.float32(t))
            for j, t in zip(
                attack.tree_.feature[ours], attack.tree_.threshold[ours], strict=True
            )
        }
        for j, t in of_victim:
            near = {np.nextafter(t, np.float32(-np.inf)), t, above(t)}
            assert any((j, v) in found for v in near)


def test_thresholds_without_a_resolution_are_found_bit_by_bit():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(150, 5))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    assert not likely_spacing(X).any()
    attack = PathFinding(FrozenEstimator(tree)).fit(X)
    assert attack.exact_
    # Rows on both sides of each threshold, one float32 apart.
    for j, t in zip(tree.tree_.feature, tree.tree_.threshold, strict=True):
        if j >= 0:
            rows = np.repeat(X, 3, axis=0).astype(np.float32)
            rows[0::3, j], rows[1::3, j] = np.float32(t), above(np.float32(t))
            np.testing.assert_array_equal(attack.predict(rows), tree.predict(rows))


def test_regression_tree():
    X, y = load_wine(return_X_y=True)
    tree = DecisionTreeRegressor(max_depth=4, random_state=0).fit(X, X[:, 0] * y)
    attack = PathFinding(FrozenEstimator(tree)).fit(X)
    assert attack.exact_
    np.testing.assert_array_equal(attack.predict(X), tree.predict(X))
    assert attack.score(X, tree.predict(X)) == 1.0
    two = DecisionTreeRegressor(max_depth=2).fit(X, X[:, :2])
    attack = PathFinding(Counted(tree)).fit(X)  # remote, without a word on what it is
    np.testing.assert_array_equal(attack.predict(X), tree.predict(X))
    with pytest.raises(ValueError, match="one value for each"):
        PathFinding(FrozenEstimator(two)).fit(X)


def test_stolen_tree_is_a_scikit_learn_tree():
    X, y = load_iris(return_X_y=True)
    attack = PathFinding(DecisionTreeClassifier(max_depth=2, random_state=0)).fit(X, y)
    text = export_text(attack.copy_)
    assert text.count("class:") == attack.n_leaves_ == 3
    assert attack.tree_.n_node_samples[0] == len(X)
    assert len(np.unique(attack.copy_.apply(X))) == 3


def test_shared_outputs_are_told_and_bounded():
    X, y = load_wine(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    attack = PathFinding(FrozenEstimator(tree), identity="output")
    with pytest.warns(UserWarning, match="do not name boxes"):
        attack.fit(X)
    assert not attack.exact_ and attack.shared_outputs_ > 0
    assert 3 / attack.n_checks < attack.inexact_share_ < 0.05
    report = attack.extraction_report(X)
    assert report["R_test"] == 0
    assert report["R_unif"] <= attack.inexact_share_


def test_spent_budget_gives_the_tree_so_far_and_warm_start_goes_on():
    X, y = load_wine(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    full = PathFinding(Counted(tree)).fit(X)
    victim = Counted(tree)
    attack = PathFinding(victim, max_queries=150, warm_start=True)
    with pytest.warns(UserWarning, match="not explored"):
        attack.fit(X)
    assert victim.n_rows == attack.n_queries_ == 150
    assert not attack.exact_
    assert attack.inexact_share_ == 1  # nothing was checked
    assert 0 < attack.explored_ < 1
    attack.set_params(max_queries=None).fit(X)
    assert not attack.exact_  # who knows what is in front of a remote tree
    assert attack.inexact_share_ < 0.02
    assert victim.n_rows == attack.n_queries_ == full.n_queries_
    assert attack.fidelity(X) == 1


class Incomplete:
    """A service that answers for the node at which a value is missing."""

    def __init__(self, tree):
        self.tree = tree.tree_
        self.classes_ = tree.classes_

    def _node(self, row):
        t, node = self.tree, 0
        while t.feature[node] >= 0 and not np.isnan(row[t.feature[node]]):
            left = np.float32(row[t.feature[node]]) <= t.threshold[node]
            node = t.children_left[node] if left else t.children_right[node]
        return node

    def apply(self, X):
        return np.array([self._node(row) for row in X])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X):
        return self.tree.value[self.apply(X), 0]


def test_incomplete_queries():
    X, y = load_breast_cancer(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    attack = PathFinding(Incomplete(tree), incomplete=True).fit(X)
    assert attack.inexact_share_ < 0.02 and attack.n_leaves_ == tree.get_n_leaves()
    rng = np.random.RandomState(0)
    rows = rng.uniform(X.min(axis=0), X.max(axis=0), size=(3000, X.shape[1]))
    np.testing.assert_array_equal(
        attack.predict_proba(rows), tree.predict_proba(rows.astype(np.float32))
    )


@pytest.mark.parametrize("spacing", [0.0, 0.5, 0.05])
def test_bisection_finds_any_float32(spacing):
    rng = np.random.RandomState(0)
    for truth in [*rng.uniform(-5, 5, 20), 0.5, 0.8, -1.25, 3.0, 1e-6]:
        truth = np.float32(truth)
        asked = []

        def stays(value, truth=truth, asked=asked):
            asked.append(value)
            return value <= truth

        found = last_inside(stays, np.float32(-5), np.float32(5), [], spacing)
        assert found == truth
        assert len(asked) < 60


def test_unknown_bounds_are_refused():
    X, y = load_iris(return_X_y=True)
    victim = FrozenEstimator(DecisionTreeClassifier().fit(X, y))
    with pytest.raises(ValueError, match="bounds must be"):
        PathFinding(victim, bounds=([0, 1], [1, 2, 3])).fit(X)
    named = DecisionTreeClassifier().fit(X, np.array(["a", "b", "c"])[y])

    class LabelsOfUnknownKind:
        predict = staticmethod(named.predict)

    with pytest.raises(ValueError, match="classes_ or predict_proba"):
        PathFinding(LabelsOfUnknownKind()).fit(X)
    with pytest.raises(TypeError, match="identity='leaf'"):
        PathFinding(FrozenEstimator(GaussianNB().fit(X, y)), identity="leaf").fit(X)


IRIS, SPECIES = load_iris(return_X_y=True)
HALVES = np.rint(2 * IRIS) / 2
WINE, GRAPE = load_wine(return_X_y=True)


def _encoder(kind):
    return {
        "one-hot": OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        "bins": KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
        "dense bins": KBinsDiscretizer(
            4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"
        ),
        "ordinal bins": KBinsDiscretizer(
            4, encode="ordinal", quantile_method="averaged_inverted_cdf"
        ),
        "scaler": StandardScaler(),
        "quantiles": QuantileTransformer(n_quantiles=50),
        "selection": SelectKBest(k=3),
        "abs": FunctionTransformer(np.abs),
        "shift": FunctionTransformer(),
        "PCA": PCA(2),
        "negative weights": ColumnTransformer(
            [("s", StandardScaler(), [0, 1, 2, 3])], transformer_weights={"s": -2.0}
        ),
        "imputed zeros": SimpleImputer(missing_values=0),
    }[kind]


@pytest.mark.long
@pytest.mark.parametrize("data", ["halves", "wine"])
@pytest.mark.parametrize(
    "kind",
    [
        "one-hot", "ordinal", "bins", "dense bins", "ordinal bins", "scaler",
        "quantiles", "selection", "abs", "shift", "PCA", "negative weights",
        "imputed zeros",
    ],
)  # fmt: skip
def test_claims_about_stolen_trees_hold(data, kind):
    """No claim of exactness, and no bound, is beaten on fresh rows."""
    X, y = (HALVES, SPECIES) if data == "halves" else (WINE[:, [0, 4, 6, 9]], GRAPE)
    X = X - np.rint(X.mean(axis=0))
    model = make_pipeline(
        _encoder(kind), DecisionTreeClassifier(max_leaf_nodes=8, random_state=0)
    )
    attack = PathFinding(FrozenEstimator(model), max_queries=500)
    with warnings.catch_warnings(action="ignore"):  # bins that are one, budgets
        model.fit(X, y)
        attack.fit(X)
    rng = np.random.RandomState(7)
    root_low, root_high = (b.astype(np.float32) for b in attack.bounds_)
    fresh = rows_to_check(X, root_low, root_high, 3000, rng).astype(np.float64)
    wrong = 1 - attack.fidelity(fresh)
    if attack.exact_:
        assert wrong == 0 and attack.fidelity(X) == 1
        assert kind not in (
            "one-hot", "ordinal", "bins", "dense bins", "abs", "PCA", "imputed zeros",
        )  # fmt: skip

    assert wrong <= attack.inexact_share_
    assert attack.n_queries_ <= 500


@pytest.mark.parametrize(
    "victim",
    [
        LinearRegression().fit(IRIS, SPECIES),
        LogisticRegression(max_iter=500).fit(IRIS, SPECIES),
        KMeans(3, n_init=1, random_state=0).fit(IRIS),
        IsolationForest(n_estimators=5).fit(IRIS),
        make_pipeline(StandardScaler(), LinearSVC()).fit(IRIS, SPECIES),
    ],
)
def test_victims_that_are_no_trees_are_refused_unasked(victim):
    with pytest.raises((TypeError, ValueError), match="no decision tree|classifier"):
        PathFinding(FrozenEstimator(victim)).fit(IRIS)


def test_one_row_is_a_domain():
    tree = DecisionTreeClassifier(max_depth=2).fit(IRIS, SPECIES)
    attack = PathFinding(FrozenEstimator(tree)).fit(IRIS[:1])
    assert attack.n_leaves_ == 1 and attack.exact_ and attack.fidelity(IRIS[:1]) == 1


def test_what_is_no_tree_comes_to_an_end(monkeypatch):
    smooth = Counted(GaussianNB(var_smoothing=0.1).fit(IRIS, SPECIES))
    with pytest.raises(ValueError, match="no decision tree"):
        PathFinding(smooth).fit(IRIS)
    assert smooth.n_rows <= 60
    monkeypatch.setattr(_path_finding, "_MOST_QUERIES", 1000)
    oblique = Counted(LinearSVC().fit(IRIS, SPECIES))  # labels only
    with pytest.warns(UserWarning, match="1000 queries are spent"):
        attack = PathFinding(oblique).fit(IRIS)
    assert oblique.n_rows == 1000 and not attack.exact_
    assert attack.fidelity(IRIS) > 0.7  # the largest regions are looked at first
    with pytest.raises(ValueError, match="bounds exclude"):
        tree = FrozenEstimator(DecisionTreeClassifier().fit(IRIS, SPECIES))
        PathFinding(tree, bounds=(100, 200)).fit(IRIS)


@pytest.mark.parametrize("n_estimators", [1, 3])
@pytest.mark.parametrize("kind", ["GradientBoosting", "XGB"])
def test_rounds_of_boosting_have_no_one_leaf(kind, n_estimators):
    """Of several classes or rounds, `apply` names several leaves for a row."""
    if kind == "XGB":
        model = pytest.importorskip("xgboost").XGBClassifier
    else:
        model = GradientBoostingClassifier
    model = model(n_estimators=n_estimators, max_depth=1).fit(IRIS, SPECIES)
    attack = PathFinding(FrozenEstimator(model), max_queries=2000).fit(IRIS)
    assert not attack.exact_ and attack.fidelity(IRIS) == 1
    with pytest.raises(TypeError, match="one leaf per row"):
        PathFinding(FrozenEstimator(model), identity="leaf").fit(IRIS)


# ReLU networks --------------------------------------------------------------------------


@pytest.mark.parametrize("n_hidden, fewer_than", [(16, 4000), (4, 2500)])
def test_relu_network_is_functionally_equivalent(digits, n_hidden, fewer_than):
    X, y, X_test = digits
    model = MLPClassifier(n_hidden, max_iter=150, tol=1e-2, random_state=1)
    model = make_pipeline(StandardScaler(), model).fit(X, y)
    victim = Counted(model)
    attack = ReLUExtraction(victim).fit(X)
    assert victim.n_rows == attack.n_queries_ < fewer_than
    assert attack.inexact_share_ < 0.013 and attack.n_hidden_ == n_hidden
    assert not attack.exact_  # of 64 features, not all corners can be asked about
    report = attack.extraction_report(X_test)
    assert report["R_test"] == 0 and report["R_unif"] <= 1e-4
    assert report["R_test_TV"] < 1e-8


def test_relu_hyperplanes_are_those_of_the_victim(digits):
    X, y, _ = digits
    model = MLPClassifier(6, max_iter=150, tol=1e-2, random_state=1).fit(X, y)
    attack = ReLUExtraction(FrozenEstimator(model)).fit(X)

    def planes(network):
        rows = np.vstack([network.coefs_[0], network.intercepts_[0]]).T
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    cosines = np.abs(planes(model) @ planes(attack.copy_).T)
    matched = cosines.max(axis=0)[: attack.n_hidden_]
    np.testing.assert_allclose(matched, 1, atol=1e-8)


def test_relu_extraction_ends_on_other_victims_and_says_so():
    X, y = load_iris(return_X_y=True)
    net = MLPClassifier((6, 5), alpha=0.1, max_iter=150, tol=1e-1, random_state=1)
    deep = make_pipeline(StandardScaler(), net).fit(X, y)
    with pytest.warns(UserWarning, match="not exact"):
        attack = ReLUExtraction(FrozenEstimator(deep), max_lines=3).fit(X)
    assert not attack.exact_ and attack.max_error_ > 1e-6
    with pytest.warns(UserWarning, match="not exact"):
        attack = ReLUExtraction(FrozenEstimator(deep), max_queries=100).fit(X)
    assert attack.n_queries_ == 100
    rounded = RoundedProbabilities(FrozenEstimator(deep), 4).fit(X)
    with pytest.raises(ValueError, match="rounded to 4 decimals"):
        ReLUExtraction(FrozenEstimator(rounded)).fit(X)
    noise = np.random.RandomState(0)

    class Inexact(Counted):
        def _ask(self, method, X):
            answer = super()._ask(method, X)
            return answer * (1 + 1e-6 * noise.uniform(-1, 1, answer.shape))

    with pytest.raises(ValueError, match="exact to .* only"):
        ReLUExtraction(Inexact(deep)).fit(X)

    class Single(Counted):
        def _ask(self, method, X):
            return super()._ask(method, X).astype(np.float32)

    with pytest.raises(ValueError, match="in float32"):
        ReLUExtraction(Single(deep)).fit(X)


def test_relu_network_with_two_classes():
    X, y = load_breast_cancer(return_X_y=True)
    net = MLPClassifier(6, alpha=1, max_iter=300, tol=1e-2, random_state=0)
    model = make_pipeline(StandardScaler(), net).fit(X, y)
    with warnings.catch_warnings(action="ignore"):  # a few corners show no logits
        attack = ReLUExtraction(FrozenEstimator(model)).fit(X)
    assert attack.inexact_share_ < 0.013 and attack.n_hidden_ == 6
    report = attack.extraction_report(X)
    assert report["R_test"] == report["R_unif"] == 0


CANCER, MALIGNANT = load_breast_cancer(return_X_y=True)
CANCER = StandardScaler().fit_transform(CANCER)


@pytest.mark.long
@pytest.mark.parametrize("width", [4, 6, 10])
@pytest.mark.parametrize("alpha", [1e-4, 0.1])
@pytest.mark.parametrize("n_hidden", [3, 8])
def test_claims_about_confident_networks_hold(width, alpha, n_hidden):
    """Networks whose probabilities are 0 and 1 nearly everywhere: few equations."""
    X = CANCER[:, :width]
    n_checked = 0
    for seed in range(3):
        net = MLPClassifier(n_hidden, solver="lbfgs", alpha=alpha, random_state=seed)
        with warnings.catch_warnings(action="ignore"):
            net.set_params(max_iter=300).fit(X, MALIGNANT)
            attack = ReLUExtraction(FrozenEstimator(net), max_lines=15, max_queries=7000)
            try:
                attack.fit(X)
            except ValueError as error:
                assert "say nothing" in str(error)
                continue
        report = attack.extraction_report(X, n_uniform=3000)
        if attack.exact_:
            assert report["R_test"] == report["R_unif"] == attack.inexact_share_ == 0
        if attack.inexact_share_ < 1:
            n_checked += 1
            assert report["R_test"] == 0 and report["R_unif"] <= attack.inexact_share_
            assert attack.max_error_ <= 1e-6
    if n_hidden == 3 and width == 6:
        assert n_checked >= 1  # it is not that nothing is claimed any more


@pytest.mark.parametrize("seed", [1, 3])
def test_a_unit_in_a_corner_of_the_box_is_found(seed):
    """Rows drawn from the box, and lines through them, are not likely to meet it."""
    rng = np.random.RandomState(seed)
    X = np.vstack([np.eye(10), 0.5 * rng.uniform(size=(60, 10))])
    hidden = np.column_stack([rng.normal(size=(10, 3)), np.ones(10)])
    bias = np.append(-hidden[:, :3].sum(axis=0) / 2, -9.5)  # of 1 corner in 1024
    victim = network_copy(
        np.arange(3), [hidden, rng.normal(size=(4, 3))], [bias, np.zeros(3)]
    )
    assert (X @ hidden[:, 3] < 9.5).all()
    attack = ReLUExtraction(FrozenEstimator(victim)).fit(X)
    assert attack.n_hidden_ == 4 and attack.max_error_ < 1e-6 and attack.exact_


def test_certain_answers_prove_no_network():
    X = CANCER[:, :3]
    net = MLPClassifier(3, solver="lbfgs", max_iter=300, random_state=3)
    with warnings.catch_warnings(action="ignore"):
        net.fit(X, MALIGNANT)
    with pytest.warns(UserWarning, match="show the label only"):
        attack = ReLUExtraction(FrozenEstimator(net)).fit(X)
    assert not attack.exact_ and 0 < attack.inexact_share_ < 0.013


def test_kinks_of_a_known_function():
    where = np.array([-0.71, 0.1, 0.1003, 0.64])
    outgoing = np.random.RandomState(0).normal(size=(4, 3))

    def function(t):
        return np.maximum(t[:, None] - where, 0) @ outgoing

    kinks, complete = find_kinks(function, -1.0, 1.0, noise=1e-15)
    assert complete
    np.testing.assert_allclose(kinks, where, atol=1e-7)
    kinks, complete = find_kinks(lambda t: np.sin(9 * t)[:, None], -1, 1, noise=1e-15)
    assert not complete  # and it came back


def test_a_label_that_comes_late_is_told_and_what_was_paid_stays():
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(60, 3))

    class Remote:
        """It says nowhere which labels there are, and the third is rare."""

        n_seen = 0

        def predict(self, X):
            self.n_seen += len(X)
            labels = np.where(X[:, 0] > 0.5, "b", "a")
            return labels if self.n_seen < 300 else np.full(len(X), "c")

    attack = EquationSolving(Remote(), knowledge="label", batch_size=50)
    with pytest.raises(ValueError, match="estimator answered 'c'"):
        attack.fit(X)
    assert len(attack.query_log_) >= 300
