"""Membership attacks: their formulas, what they reach, and what they refuse."""

import joblib
import numpy as np
import pandas as pd
import pytest
from privacy_targets import binary_records, overfitted_target
from scipy.stats import norm
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.evasion import HopSkipJump
from sklearn_advsec.metrics import roc_auc_interval
from sklearn_advsec.privacy import (
    RMIA,
    BoundaryDistance,
    GapAttack,
    LikelihoodRatio,
    LossThreshold,
    MembershipGame,
    ModelInversion,
    ModifiedEntropy,
    QuantileMembership,
    ShadowModels,
    make_records,
    rmia_scores,
)
from sklearn_advsec.privacy._base import best_threshold
from sklearn_advsec.privacy._shadow_base import draw_subsets
from sklearn_advsec.privacy._signals import logit_confidence, modified_entropy
from sklearn_advsec.victim import RegressionVictim

TARGET, AUDITED, MEMBER, OWN = overfitted_target()
CODES = AUDITED[:, -1].astype(int)
PROBA = TARGET.predict_proba(AUDITED[:, :-1])
RECIPE = DecisionTreeClassifier(max_depth=6)


def auc(attack, records=AUDITED):
    return roc_auc_score(MEMBER, attack.decision_function(records))


class OnlyWide(DecisionTreeClassifier):
    """Learns nothing from fewer than eight columns."""

    def fit(self, X, y):
        return super().fit(X if X.shape[1] >= 8 else np.zeros_like(X), y)


class OnlyNarrow(DecisionTreeClassifier):
    """Learns nothing from eight columns or more."""

    def fit(self, X, y):
        return super().fit(X if X.shape[1] < 8 else np.zeros_like(X), y)


def test_shadows_that_are_left_out_choose_the_features():
    for model, chosen in ((OnlyWide, "posterior"), (OnlyNarrow, "top_k")):
        model = model(min_samples_leaf=20)
        attack = ShadowModels(TARGET, attack_estimator=model, n_shadow_models=4)
        scores = attack.fit(OWN).decision_function(AUDITED)
        assert attack.features_ == chosen
        same = clone(attack).set_params(features=chosen).fit(OWN)
        np.testing.assert_array_equal(scores, same.decision_function(AUDITED))
    one = ShadowModels(TARGET, attack_estimator=OnlyWide(), n_shadow_models=1).fit(OWN)
    assert one.features_ == "top_k"


# Formulas -------------------------------------------------------------------------------


def test_modified_entropy_is_its_formula():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(4), size=20)
    codes = rng.integers(4, size=20)
    for p, y, value in zip(proba, codes, modified_entropy(proba, codes), strict=True):
        expected = -(1 - p[y]) * np.log(p[y])
        expected -= sum(p[i] * np.log(1 - p[i]) for i in range(4) if i != y)
        assert value == pytest.approx(expected, rel=1e-12)
    sure = np.eye(4)[[1, 1]]
    right, wrong = modified_entropy(sure, np.array([1, 2]))
    assert right == pytest.approx(0, abs=1e-12) and wrong > 30


def test_logit_confidence_does_not_cancel():
    # 1 - p rounds to 0 here, the sum over the others does not.
    proba = np.array([[1 - 1e-15, 4e-16, 6e-16], [0.7, 0.2, 0.1]])
    value = logit_confidence(proba, np.array([0, 0]))
    assert value == pytest.approx([np.log(1e15), np.log(0.7 / 0.3)], rel=1e-6)


def test_best_threshold_is_that_of_a_search():
    rng = np.random.default_rng(0)
    for _ in range(8):
        scores = rng.integers(8, size=40).astype(float)  # with ties
        member = rng.uniform(size=40) < 0.3 + 0.05 * scores
        found = balanced_accuracy_score(member, scores > best_threshold(scores, member))
        tries = np.r_[np.unique(scores), 0.5 + np.unique(scores), -1]
        best = max(balanced_accuracy_score(member, scores > t) for t in tries)
        assert found == pytest.approx(best)


def test_gap_attack_is_half_the_gap_above_one_half():
    X, y = AUDITED[:, :-1], CODES
    gap = TARGET.score(X[MEMBER], y[MEMBER]) - TARGET.score(X[~MEMBER], y[~MEMBER])
    predicted = GapAttack(TARGET).fit(OWN).predict(AUDITED)
    assert gap > 0.3
    assert balanced_accuracy_score(MEMBER, predicted) == pytest.approx(0.5 + gap / 2)


def test_loss_threshold_takes_the_published_average():
    loss = -np.log(PROBA[np.arange(len(CODES)), CODES])
    attack = LossThreshold(TARGET, threshold=loss[MEMBER].mean()).fit(OWN)
    np.testing.assert_array_equal(
        attack.predict(AUDITED), loss < loss[MEMBER].mean(), strict=False
    )
    np.testing.assert_allclose(
        attack.decision_function(AUDITED) + attack.threshold_, -loss
    )


def test_false_positive_rate_without_known_members():
    for attack in (
        LossThreshold(TARGET, fpr=0.2),
        RMIA(TARGET, n_shadow_models=2, fpr=0.2),
    ):
        assert attack.fit(OWN).predict(OWN).mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.long
def test_the_quantile_holds_on_records_that_it_was_not_fitted_on():
    """A regressor is too sure of its own rows: the threshold comes from other folds."""
    attack = QuantileMembership(TARGET, fpr=0.1)
    accused = [
        attack.fit(OWN[fold]).predict(OWN[~fold]).mean()
        for fold in (np.arange(len(OWN)) % 2 == i for i in range(2))
    ]
    assert np.mean(accused) < 0.16
    with pytest.raises(ValueError, match="two or more"):
        attack.fit(AUDITED[:3], [1, 1, 0])


def test_entropy_thresholds_are_per_class():
    attack = ModifiedEntropy(TARGET).fit(AUDITED, MEMBER)
    scores = -modified_entropy(PROBA, CODES)
    for code in range(8):
        own = code == CODES
        assert attack.class_thresholds_[code] == pytest.approx(
            best_threshold(scores[own], MEMBER[own]), rel=1e-6
        )
    few = ModifiedEntropy(TARGET, min_records=1000).fit(AUDITED, MEMBER)
    assert (few.class_thresholds_ == few.threshold_).all()


@pytest.mark.parametrize("n_references", [1, 4])
def test_rmia_is_the_definition_of_privacy_meter(n_references):
    """Written down record by record from the definition of privacy-meter v2."""
    rng = np.random.default_rng(0)
    n_x, n_z, a = 30, 50, 0.3
    target_x, target_z = rng.uniform(0.05, 1, n_x), rng.uniform(0.05, 1, n_z)
    out_x = rng.uniform(0.05, 1, (n_x, n_references))
    out_z = rng.uniform(0.05, 1, (n_z, n_references))

    def prior(out):
        return (1 + a) / 2 * out.mean(axis=1) + (1 - a) / 2

    expected = [
        np.mean(
            [
                (target_x[i] / prior(out_x)[i]) / (target_z[j] / prior(out_z)[j]) > 1.0
                for j in range(n_z)
            ]
        )
        for i in range(n_x)
    ]
    found = rmia_scores(target_x, prior(out_x), target_z, prior(out_z))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("n_shadow_models", [1, 6])
def test_rmia_asks_the_models_without_the_record(n_shadow_models):
    attack = RMIA(TARGET, n_shadow_models=n_shadow_models, a=0.4).fit(OWN)
    labels = TARGET.classes_[AUDITED[:, -1].astype(int)].astype(int)
    rows = np.arange(len(AUDITED))

    def mean_of(records, models):
        p = [m.predict_proba(records[:, :-1].astype(np.float32)) for m in models]
        return (1.4 * np.mean(p, axis=0)[np.arange(len(records)), :] + 0.6) / 2

    mean_x = mean_of(AUDITED, attack.shadow_estimators_)[rows, labels]
    expected = np.array(
        [np.mean(attack.population_ < p) for p in PROBA[rows, labels] / mean_x]
    )
    found = attack.decision_function(AUDITED) + attack.threshold_
    np.testing.assert_allclose(found, expected, atol=1.5 / len(OWN))
    # The population is what a reference was not trained on: half of it for one.
    assert len(attack.population_) == len(OWN) // (2 if n_shadow_models == 1 else 1)


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("variance", ["fixed", "per_example"])
def test_likelihood_ratio_is_its_formula(mode, variance):
    attack = LikelihoodRatio(TARGET, n_shadow_models=8, mode=mode, variance=variance)
    attack.fit(AUDITED)
    X = AUDITED[:, :-1].astype(np.float32)
    phi = np.array(
        [
            logit_confidence(model.predict_proba(X), CODES)
            for model in attack.shadow_estimators_
        ]
    )
    used = np.array([np.isin(np.arange(400), r) for r in attack.shadow_indices_])
    assert (used.sum(axis=0) == 4).all()  # every record in half of them
    target = logit_confidence(PROBA, CODES)

    def normal(i, mask):
        std = phi[mask[:, i], i].std()
        if variance == "fixed":
            within = [phi[mask[:, j], j] - phi[mask[:, j], j].mean() for j in range(400)]
            std = np.sqrt(np.sum(np.square(within)) / (400 * 3))
        return norm(phi[mask[:, i], i].mean(), std)

    found = attack.decision_function(AUDITED) + attack.threshold_
    for i in range(0, 400, 57):
        expected = -normal(i, ~used).logsf(target[i])
        if mode == "online":
            expected = normal(i, used).logpdf(target[i]) - normal(i, ~used).logpdf(
                target[i]
            )
        assert found[i] == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_one_shadow_gives_no_variance(mode):
    """Records with one shadow on a side take the spread of all."""
    attack = LikelihoodRatio(
        TARGET, shadow_estimator=RECIPE, n_shadow_models=2, mode=mode
    )
    own, shared = (
        clone(attack).set_params(variance=variance).fit(AUDITED)
        for variance in ("per_example", "fixed")
    )
    np.testing.assert_allclose(
        own.decision_function(AUDITED), shared.decision_function(AUDITED)
    )


def test_halves_are_balanced():
    rng = np.random.RandomState(0)
    for n_rows in (100, 101):
        subsets = draw_subsets(n_rows, 6, n_rows // 2, rng)
        assert {len(s) for s in subsets} == {n_rows // 2}
        assert np.bincount(np.concatenate(subsets), minlength=n_rows).max() == 3
        assert not set(subsets[0]) & set(subsets[1])


# What they reach ------------------------------------------------------------------------


@pytest.mark.long
def test_order_of_the_attacks():
    """LiRA online > offline > loss threshold; shadow models beat the gap attack."""
    reached = {
        "loss": auc(LossThreshold(TARGET).fit(OWN)),
        "gap": auc(GapAttack(TARGET).fit(OWN)),
        "shadow": auc(ShadowModels(TARGET, n_shadow_models=8).fit(OWN)),
        "rmia": auc(RMIA(TARGET, n_shadow_models=16).fit(OWN)),
        "offline": auc(LikelihoodRatio(TARGET, n_shadow_models=32).fit(OWN)),
        "online": auc(
            LikelihoodRatio(TARGET, n_shadow_models=32, mode="online").fit(AUDITED)
        ),
    }
    assert reached["online"] > reached["offline"] > reached["loss"] > reached["gap"]
    assert reached["rmia"] > reached["loss"]
    assert reached["shadow"] > reached["gap"] > 0.6
    assert reached["online"] > 0.85


@pytest.mark.long
def test_no_false_alarm_without_a_gap():
    """Nothing is found where there is nothing: members are drawn after the training."""
    rng = np.random.RandomState(0)
    for attack in (
        LossThreshold(TARGET),
        ModifiedEntropy(TARGET),
        RMIA(TARGET, n_shadow_models=4),
        LikelihoodRatio(TARGET, n_shadow_models=8),
        ShadowModels(TARGET, n_shadow_models=2),
        QuantileMembership(TARGET),
    ):
        drawn = rng.uniform(size=len(OWN)) < 0.5
        half = len(OWN) // 2
        scores = attack.fit(OWN[:half]).decision_function(OWN[half:])
        low, high = roc_auc_interval(drawn[half:], scores, confidence=0.999)
        assert low < 0.5 < high


def test_known_members_help_to_decide():
    blind = LossThreshold(TARGET).fit(OWN)
    half = np.arange(len(AUDITED)) % 2 == 0
    told = LossThreshold(TARGET).fit(AUDITED[half], MEMBER[half])
    assert told.score(AUDITED[~half], MEMBER[~half]) > blind.score(AUDITED, MEMBER) + 0.02


def test_boundary_distance():
    rows = np.r_[:40, 200:240]
    attack = BoundaryDistance(TARGET, n_shadow_models=0, max_queries=150).fit(OWN[:60])
    counted = attack.attack_.run(AUDITED[rows, :-1], CODES[rows])
    assert attack.n_queries_.max() <= 150 and counted.n_queries.max() <= 150
    distance = attack.decision_function(AUDITED[rows]) + attack.threshold_
    wrong = TARGET.predict(AUDITED[rows, :-1]) != CODES[rows]
    assert (distance[wrong] == 0).all() and (distance[~wrong] > 0).all()
    gap = GapAttack(TARGET).fit(OWN).decision_function(AUDITED[rows])
    assert roc_auc_score(MEMBER[rows], distance) > roc_auc_score(MEMBER[rows], gap)
    prototype = HopSkipJump(norm=np.inf, max_queries=30)
    other = BoundaryDistance(TARGET, attack=prototype).fit(OWN[:30])
    assert other.attack_.norm == np.inf and prototype.estimator is None
    assert other.n_queries_.max() <= 30


@pytest.mark.long
def test_boundary_distance_beside_shadows():
    """Compared with shadows, the same queries of the target tell far more."""
    rows = np.r_[:80, 200:280]
    plain = BoundaryDistance(TARGET, n_shadow_models=0, max_queries=100).fit(OWN[:60])
    distance = plain.decision_function(AUDITED[rows]) + plain.threshold_
    attack = BoundaryDistance(TARGET, max_queries=100).fit(OWN)
    score = attack.decision_function(AUDITED[rows]) + attack.threshold_
    gain = roc_auc_score(MEMBER[rows], score) - roc_auc_score(MEMBER[rows], distance)
    assert gain > 0.04
    assert len(attack.n_queries_) == 200 and attack.n_queries_.max() == 100
    # The ratio of RMIA, with d / (d + c) in place of a probability.
    wrong = TARGET.predict(AUDITED[rows, :-1]) != CODES[rows]
    distances = attack._shadow_distances(attack._records(AUDITED[rows]))
    mean = (distances / (distances + attack.scale_)).mean(axis=0)
    distance = attack.attack_.run(AUDITED[rows, :-1], CODES[rows]).distance
    expected = distance / (distance + attack.scale_) / (0.65 * mean + 0.35)
    np.testing.assert_allclose(score, expected)
    assert (score[wrong] == 0).all()


@pytest.mark.parametrize("recipe", [RECIPE, LogisticRegression(), MLPClassifier((8,))])
def test_boundary_distance_of_few_records(recipe):
    """Shadows of a handful of rows know few of the classes, or one."""
    attack = BoundaryDistance(TARGET, shadow_estimator=recipe, max_queries=20)
    for own in (OWN[:8], AUDITED[::50]):
        scores = attack.fit(own).decision_function(AUDITED[::20])
        assert np.isfinite(scores).all() and len(attack.shadow_estimators_) == 4
    alike = OWN[OWN[:, -1] == 0][:6]
    if recipe is RECIPE:  # without a boundary
        assert np.isfinite(attack.fit(alike).decision_function(AUDITED[::20])).all()
    else:
        with pytest.raises(ValueError, match="class") as raised:
            attack.fit(alike)
        assert "n_shadow_models=0" in raised.value.__notes__[-1]
    alone = clone(attack).set_params(n_shadow_models=0).fit(alike)
    assert not hasattr(alone, "shadow_estimators_")


def test_boundary_distance_where_there_is_no_recipe():
    import torch

    from sklearn_advsec.pretrained import PretrainedModule

    target = PretrainedModule(torch.nn.Linear(60, 8))
    attack = BoundaryDistance(target, max_queries=20)
    with pytest.raises(ValueError, match="Set shadow_estimator") as raised:
        attack.fit(OWN[:40])
    assert "n_shadow_models=0" in raised.value.__notes__[-1]
    for parameters in ({"n_shadow_models": 0}, {"shadow_estimator": RECIPE}):
        told = clone(attack).set_params(**parameters).fit(OWN[:40])
        assert np.isfinite(told.decision_function(AUDITED[:20])).all()


@pytest.mark.long
def test_distances_in_tables_do_not_depend_on_units():
    X, y = load_iris(as_frame=True, return_X_y=True)
    X = X.assign(kind=np.where(y == 0, "small", "large"))
    finer = X.assign(**{"petal width (cm)": 1024 * X["petal width (cm)"]})
    scores = []
    for frame in (X, finer):
        encode = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder=StandardScaler()
        )
        target = make_pipeline(encode, LogisticRegression()).fit(frame, y)
        records = make_records(frame, y)
        attack = BoundaryDistance(
            FrozenEstimator(target), max_queries=40, n_shadow_models=1
        )
        scores.append(attack.fit(records[::12]).decision_function(records[1::12]))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    # Values that the attacker's records do not have are no obstacle.
    beyond = records.iloc[[1, 2]].assign(kind="huge")
    beyond["petal length (cm)"] = 50.0
    assert np.isfinite(attack.decision_function(beyond)).all()


def test_boundary_distance_of_known_members():
    attack = BoundaryDistance(TARGET, max_queries=40).fit(AUDITED[::3], MEMBER[::3])
    assert len(attack.n_queries_) == len(AUDITED[::3])
    scores = attack.decision_function(AUDITED[::3]) + attack.threshold_
    assert attack.threshold_ == best_threshold(scores, MEMBER[::3])


# scikit-learn's tools -------------------------------------------------------------------


@pytest.mark.long
def test_searches_and_jobs():
    attack = ShadowModels(
        TARGET,
        shadow_estimator=RECIPE,
        attack_estimator=DecisionTreeClassifier(max_depth=3),
        n_shadow_models=2,
    )
    grid = {"per_class": [True, False], "shadow_estimator__max_depth": [3, None]}
    search = GridSearchCV(attack, grid, cv=2, scoring="roc_auc")
    one = search.fit(AUDITED, MEMBER).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend="threading"):
        many = clone(search).set_params(n_jobs=2).fit(AUDITED, MEMBER)
        jobs = clone(attack).set_params(n_jobs=2).fit(OWN)
    np.testing.assert_array_equal(many.cv_results_["mean_test_score"], one)
    np.testing.assert_array_equal(
        jobs.decision_function(AUDITED), attack.fit(OWN).decision_function(AUDITED)
    )


@pytest.mark.long
def test_labels_by_position_by_name_and_as_strings():
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    frame = X.assign(size=np.where(X.iloc[:, 0] > 5.8, "large", "small"))
    encoder = make_column_transformer(
        (OneHotEncoder(), ["size"]), remainder="passthrough"
    )
    target = make_pipeline(encoder, DecisionTreeClassifier(random_state=0))
    played = MembershipGame(target, random_state=3).play(frame, names)[0]
    assert played.train_accuracy == 1.0 and list(played.records)[-1] == "label"
    first = played.records[["label", *list(frame)]]
    for attack in (
        GapAttack(played.target),
        LossThreshold(played.target),
        QuantileMembership(played.target),
        RMIA(played.target, n_shadow_models=4),
        ShadowModels(
            played.target, attack_estimator=LogisticRegression(), n_shadow_models=2
        ),
    ):
        by_name = clone(attack).set_params(label_column="label")
        by_name.fit(played.records, played.membership)
        at_front = clone(attack).set_params(label_column=0)
        at_front.fit(first, played.membership)
        np.testing.assert_array_equal(
            by_name.predict(played.records), at_front.predict(first)
        )
        assert by_name.feature_names_in_.tolist() == list(played.records)
    with pytest.raises(ValueError, match="no column 'labels'"):
        GapAttack(played.target, label_column="labels").fit(played.records)


def test_records_without_labels():
    attack = LossThreshold(TARGET, label_column=None).fit(OWN[:, :-1])
    np.testing.assert_allclose(
        attack.decision_function(AUDITED[:, :-1]) + attack.threshold_,
        np.log(PROBA.max(axis=1)),
    )
    everything = GapAttack(TARGET, label_column=None).fit(OWN[:, :-1])
    assert everything.predict(AUDITED[:, :-1]).all()


def test_string_labels_beside_rows_of_numbers():
    """Such records are a DataFrame, of which the target has never seen a name."""
    names = np.array([f"kind {code}" for code in range(8)])
    X = AUDITED[:, :-1]
    net = LogisticRegression(max_iter=300).fit(X[MEMBER], names[CODES[MEMBER]])
    records = make_records(X, names[CODES])
    for attack in (
        LossThreshold(FrozenEstimator(net), label_column="label"),
        RMIA(FrozenEstimator(net), label_column="label", n_shadow_models=2),
    ):
        assert auc(attack.fit(records), records) > 0.7  # without a warning


def test_rows_of_booleans():
    names = np.array([f"kind {code}" for code in range(8)])
    X = AUDITED[:, :-1] > 0.5
    tree = DecisionTreeClassifier(random_state=0).fit(X[MEMBER], names[CODES[MEMBER]])
    records = make_records(X, names[CODES])
    assert auc(LossThreshold(FrozenEstimator(tree)).fit(records), records) > 0.6


def test_classes_in_any_order():
    """A torch module's outputs need not be sorted; the classes of its shadows are."""
    import torch

    from sklearn_advsec.pretrained import PretrainedModule

    names = np.array([f"kind {code}" for code in range(8)])
    target = PretrainedModule(torch.nn.Linear(60, 8), classes=names[::-1])
    records = make_records(AUDITED[:, :-1], names[CODES])
    attack = RMIA(target, label_column="label", n_shadow_models=1)
    attack.set_params(shadow_estimator=DecisionTreeClassifier()).fit(records)
    (shadow,), rows = attack.shadow_estimators_, records.drop(columns="label")
    proba = attack._shadow_probabilities(shadow, rows)
    np.testing.assert_array_equal(
        target.classes_[proba.argmax(axis=1)], shadow.predict(rows)
    )


def test_missing_values():
    """The game and the attacks take them where the target does."""
    X, y = binary_records(400)
    X[np.random.default_rng(0).uniform(size=X.shape) < 0.2] = np.nan
    recipe = DecisionTreeClassifier()
    (played,) = MembershipGame(recipe).play(X, y)
    for attack in (
        LossThreshold(played.target),
        QuantileMembership(played.target),
        RMIA(played.target, n_shadow_models=2),
        ShadowModels(played.target, n_shadow_models=2),
    ):
        attack.fit(played.records[::2], played.membership[::2])
        assert attack.score(played.records[1::2], played.membership[1::2]) > 0.55
    with pytest.raises(ValueError, match="NaN"):
        MembershipGame(LogisticRegression()).play(X, y)


def test_membership_values_of_any_type():
    names = np.where(MEMBER, "member", "")
    predicted = LossThreshold(TARGET).fit(AUDITED, names).predict(AUDITED)
    assert set(predicted) == {"member", ""}
    assert np.mean(predicted == names) > 0.7


# Bad input ------------------------------------------------------------------------------


def test_errors_say_what_to_do():
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        LossThreshold(LogisticRegression()).fit(OWN)
    with pytest.raises(NotFittedError, match="FrozenEstimator"):  # its clone is not
        LossThreshold(TARGET.estimator).fit(OWN)
    X, y = load_iris(return_X_y=True)
    regressor = LinearRegression().fit(X, y)
    for target in (regressor, RegressionVictim(clone(regressor)).fit(X, y)):
        for attack in (GapAttack, ModifiedEntropy, BoundaryDistance):
            with pytest.raises(TypeError, match="must be a classifier.*LossThreshold"):
                attack(FrozenEstimator(target)).fit(make_records(X, y))
        with pytest.raises(TypeError, match="ModelInversion must be a classifier"):
            ModelInversion(FrozenEstimator(target)).fit(X)
    with pytest.raises(TypeError, match="no predict_proba"):
        LossThreshold(FrozenEstimator(Perceptron().fit(X, y))).fit(make_records(X, y))
    unknown = OWN.copy()
    unknown[3, -1] = 99
    with pytest.raises(ValueError, match=r"label_column=-1 .* holds \[99.0\]"):
        LossThreshold(TARGET).fit(unknown)
    names = np.array(list("abcdefgh"))
    records = make_records(AUDITED[:, :-1], names[CODES])
    tree = DecisionTreeClassifier().fit(AUDITED[:, :-1], names[CODES])
    records.loc[3, "label"] = None  # types that have no order: the others are known
    with pytest.raises(ValueError, match=r"holds \[(nan|None)\], which"):
        LossThreshold(FrozenEstimator(tree)).fit(records)
    with pytest.raises(ValueError, match="candidates: .*61 features"):
        RMIA(TARGET, mode="online", candidates=AUDITED[:, 1:]).fit(OWN)
    with pytest.raises(ValueError, match="label_column: 200 does not exist"):
        LossThreshold(TARGET, label_column=200).fit(OWN)
    with pytest.raises(ValueError, match="one class only"):
        LossThreshold(TARGET).fit(AUDITED, np.ones(len(AUDITED)))
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        LossThreshold(TARGET).fit(AUDITED, np.arange(len(AUDITED)) % 3)
    with pytest.raises(ValueError, match="NaN"):
        LossThreshold(TARGET).fit(np.where(np.arange(OWN.shape[1]) == 3, np.nan, OWN))
    with pytest.raises(ValueError, match="features"):
        LossThreshold(TARGET).fit(OWN).predict(AUDITED[:, 1:])
    with pytest.raises(ValueError, match="2 or more"):
        LikelihoodRatio(TARGET, n_shadow_models=1).fit(OWN)
    with pytest.raises(ValueError, match=r"augmentations .* \(5, 60\) .* \(400, 60\)"):
        augmentations = [lambda X: X[:5]]
        LikelihoodRatio(
            TARGET,
            shadow_estimator=RECIPE,
            n_shadow_models=2,
            augmentations=augmentations,
        ).fit(OWN)
    with pytest.raises(ValueError, match="shadow_size=1000"):
        RMIA(TARGET, shadow_size=1000).fit(OWN)
    for attack in (ShadowModels, RMIA):
        with pytest.raises(ValueError, match="leaves no record"):
            attack(TARGET, shadow_size=len(OWN), n_shadow_models=1).fit(OWN)


def test_torch_module_as_target():
    import torch

    from sklearn_advsec.pretrained import PretrainedModule

    module = torch.nn.Linear(60, 8)
    target = PretrainedModule(module)
    with pytest.raises(ValueError, match="shadow_estimator=None clones"):
        RMIA(target).fit(OWN)
    attack = RMIA(target, shadow_estimator=RECIPE, n_shadow_models=2).fit(OWN)
    assert attack.decision_function(AUDITED).shape == (400,)


@pytest.mark.gpu
def test_targets_and_shadows_on_a_gpu():
    import torch

    from sklearn_advsec.pretrained import PretrainedModule

    shadows = {"shadow_estimator": TARGET.estimator, "n_shadow_models": 4}
    there, here = (
        RMIA(TARGET, device=device, **shadows).fit(OWN).decision_function(AUDITED)
        for device in ("cuda", None)
    )
    assert roc_auc_score(MEMBER, there) == pytest.approx(
        roc_auc_score(MEMBER, here), abs=0.02
    )
    target = PretrainedModule(torch.nn.Linear(60, 8).cuda())
    for attack in (
        LossThreshold(target),
        GapAttack(target),
        LikelihoodRatio(target, device="cuda", **shadows),
        BoundaryDistance(target, max_queries=30, **shadows),
    ):
        scores = attack.fit(OWN).decision_function(AUDITED[:20])
        assert np.isfinite(scores).all()


# The game -------------------------------------------------------------------------------


def test_membership_game():
    X, y = binary_records(300)
    game = MembershipGame(
        MLPClassifier((16,), max_iter=30), n_targets=3, train_size=0.4, random_state=1
    )
    rounds = game.play(X, y)
    assert [r.membership.sum() for r in rounds] == [120] * 3
    assert len({r.membership.tobytes() for r in rounds}) == 3
    for played in rounds:
        rows = played.membership == 1
        assert played.train_accuracy == played.target.score(X[rows], y[rows])
        assert played.gap == played.train_accuracy - played.test_accuracy
        np.testing.assert_array_equal(played.records[:, -1], y)
    again = game.play(X, y)
    np.testing.assert_array_equal(again[2].membership, rounds[2].membership)
    half = MembershipGame(RECIPE, train_size=np.float32(0.5)).play(X, y)[0]
    assert half.membership.sum() == 150
    with pytest.raises(ValueError, match="must be members and non-members"):
        MembershipGame(RECIPE, train_size=300).play(X, y)
    with pytest.raises(ValueError, match="must be flat"):  # before it trains anything
        MembershipGame(RECIPE).play(X.reshape(-1, 1, 6, 10), y)


def test_records_of_frames():
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    assert list(make_records(frame, ["x", "y"])) == ["a", "label"]
    assert list(make_records([[1.0], [2.0]], ["x", "y"])) == ["x0", "label"]
    large = np.array([2**24, 2**24 + 1])  # in float32 they are one label
    records = make_records(np.ones((2, 1), dtype=np.float32), large)
    np.testing.assert_array_equal(records[:, 1], large)
    with pytest.raises(ValueError, match="'label' already"):
        make_records(frame.rename(columns={"a": "label"}), [0, 1])


def test_without_known_members_there_are_no_probabilities_and_it_says_why():
    attack = LossThreshold(FrozenEstimator(TARGET)).fit(AUDITED)
    assert not hasattr(attack, "predict_proba")
    with pytest.raises(AttributeError) as error:
        attack.predict_proba(AUDITED)
    assert "decision_function orders records without" in str(error.value.__cause__)
