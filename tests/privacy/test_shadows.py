"""Shadow models: whose rows they see, which of them are asked, how they are made."""

import pickle
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from nets import net
from privacy_targets import overfitted_target
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.batched import fit_many
from sklearn_advsec.extraction import RoundedProbabilities
from sklearn_advsec.privacy import (
    RMIA,
    BoundaryDistance,
    GapAttack,
    LikelihoodRatio,
    LossThreshold,
    MembershipGame,
    QuantileMembership,
    ShadowModels,
    epsilon_lower_bound,
    make_records,
)
from sklearn_advsec.privacy._likelihood_ratio import _RecordPrior, _squares
from sklearn_advsec.privacy._shadow_base import draw_subsets, independent_shadows
from sklearn_advsec.privacy._signals import logit_confidence, score_resolution

TARGET, AUDITED, MEMBER, OWN = overfitted_target()
RECIPE = DecisionTreeClassifier(max_depth=6)


def auc(attack, records=AUDITED):
    return roc_auc_score(MEMBER, attack.decision_function(records))


class Recorder(LogisticRegression):
    """Notes the rows that every shadow was trained on."""

    seen = []

    def fit(self, X, y):
        Recorder.seen.append(np.column_stack([X, y]))
        return super().fit(X, y)


@pytest.mark.parametrize(
    "attack",
    [ShadowModels, LikelihoodRatio, RMIA, partial(BoundaryDistance, max_queries=20)],
)
def test_shadows_are_trained_on_the_attackers_rows_only(attack):
    Recorder.seen = []
    attack = attack(TARGET, shadow_estimator=Recorder(max_iter=20), n_shadow_models=4)
    attack.fit(OWN).decision_function(AUDITED)
    assert len(Recorder.seen) == 4
    for seen, rows in zip(Recorder.seen, attack.shadow_indices_, strict=True):
        np.testing.assert_array_equal(seen, OWN[rows])


@pytest.mark.long
@pytest.mark.parametrize("attack", [BoundaryDistance, LikelihoodRatio, RMIA])
def test_offline_attacks_ignore_shadows_that_saw_the_record(attack):
    """A record's score does not change with the models that were trained on it."""
    attack = attack(TARGET, n_shadow_models=4)
    if isinstance(attack, BoundaryDistance):
        attack.set_params(max_queries=30)
    before = attack.fit(OWN).decision_function(OWN)
    record = 17
    for i, rows in enumerate(attack.shadow_indices_):
        if record in rows:
            attack.shadow_estimators_[i].coefs_[0][:] = 0
    after = attack.decision_function(OWN)
    assert after[record] == before[record]
    assert (after != before).mean() > (0.1 if attack.knowledge == "label" else 0.5)


@pytest.mark.parametrize("frame", [False, True])
def test_records_are_recognised_in_any_dtype(frame):
    """Else an offline attack would ask the shadows that were trained on the record."""
    records = OWN + 0.1 * (np.arange(OWN.shape[1]) < 3)  # 0.1 and 1.1 are rounded
    shadows = {"shadow_estimator": RECIPE, "n_shadow_models": 4}
    single, double = records.astype(np.float32), records.astype(np.float64)
    if frame:
        single, double = pd.DataFrame(single), pd.DataFrame(double)
        double = double.astype({records.shape[1] - 1: int})
    attack = LikelihoodRatio(TARGET, **shadows).fit(single)
    one, other = (attack._trained_on(attack._records(X)) for X in (single, double))
    np.testing.assert_array_equal(one, other)
    assert (one.sum(axis=0) == 2).all()


def test_online_needs_the_records():
    attack = LikelihoodRatio(
        TARGET, shadow_estimator=RECIPE, n_shadow_models=4, mode="online"
    )
    with pytest.raises(ValueError, match="400 of these were not"):
        attack.fit(OWN).decision_function(AUDITED)
    with pytest.raises(ValueError, match="or take more shadow models"):
        RMIA(TARGET, n_shadow_models=1, mode="online").fit(OWN)
    attack.set_params(candidates=AUDITED).fit(OWN)
    assert attack.decision_function(AUDITED).shape == (400,)
    # Records that are among the attacker's own already are not taken twice.
    attack.set_params(candidates=np.concatenate([OWN[:50], AUDITED])).fit(OWN)
    assert max(rows.max() for rows in attack.shadow_indices_) == 799
    scores = cross_val_score(
        clone(attack).set_params(candidates=AUDITED), AUDITED, MEMBER, cv=2
    )
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("attack", [LikelihoodRatio, RMIA])
def test_offline_shadows_never_see_the_candidates(attack):
    offline = attack(TARGET, shadow_estimator=RECIPE, n_shadow_models=2, mode="offline")
    alone = clone(offline).fit(OWN)
    offline.set_params(candidates=AUDITED).fit(OWN)
    assert not offline._trained_on(offline._records(AUDITED)).any()
    np.testing.assert_array_equal(
        offline.decision_function(AUDITED), alone.decision_function(AUDITED)
    )
    with pytest.raises(ValueError, match="candidates: .*nan"):
        offline.set_params(candidates=np.full((2, 61), np.nan)).fit(OWN)


def test_attack_models_without_probabilities():
    attack = ShadowModels(TARGET, attack_estimator=LinearSVC(), n_shadow_models=2)
    attack.fit(OWN)
    assert auc(attack) > 0.6
    # The attack model's own threshold is where it changes its mind.
    assert 0.2 < attack.predict(AUDITED).mean() < 0.8
    assert ((attack.decision_function(AUDITED) > 0) == attack.predict(AUDITED)).all()


def test_recipe_of_the_target_and_of_others():
    shadows = RMIA(TARGET, n_shadow_models=2).fit(OWN).shadow_estimators_
    target = TARGET.estimator.get_params()
    for model in shadows:
        assert model.get_params() == {**target, "random_state": model.random_state}
        assert model.n_iter_ == TARGET.estimator.n_iter_
    other = RMIA(TARGET, shadow_estimator=RandomForestClassifier(10), n_shadow_models=2)
    assert auc(other.fit(OWN)) > 0.55


@pytest.mark.long
def test_shadow_variants():
    forest = RandomForestClassifier(15, min_samples_leaf=10)
    for parameters in (
        {"features": "posterior", "per_class": True},
        {"features": "posterior"},
        {"features": "label", "per_class": True},
        {"features": "top_k", "top_k": 2, "n_shadow_models": 1},
        {
            "attack_estimator": make_pipeline(
                StandardScaler(), LogisticRegression(max_iter=500)
            )
        },
    ):
        defaults = {"n_shadow_models": 3, "attack_estimator": forest}
        attack = ShadowModels(TARGET, **{**defaults, **parameters}).fit(OWN)
        assert auc(attack) > 0.6, parameters
    per_class = ShadowModels(
        TARGET, attack_estimator=forest, n_shadow_models=2, per_class=True
    ).fit(OWN)
    assert sorted(per_class.attack_estimators_) == list(range(8))


def test_labels_only_asks_for_labels_only():
    """Neither the target nor the shadows need to give probabilities."""
    X, y = OWN[:, :-1], OWN[:, -1].astype(int)
    target = Perceptron(max_iter=50).fit(X[:200], y[:200])
    attack = ShadowModels(FrozenEstimator(target), features="label", n_shadow_models=2)
    scores = attack.fit(AUDITED).decision_function(OWN)
    assert roc_auc_score(np.arange(len(OWN)) < 200, scores) > 0.6
    with pytest.raises(TypeError, match="no predict_proba"):
        attack.set_params(features="top_k").fit(AUDITED)
    # A shadow may have met one label only.
    few = AUDITED[AUDITED[:, -1] == 3][:6], AUDITED[AUDITED[:, -1] == 4][:1]
    tree = DecisionTreeClassifier()
    attack.set_params(features="label", shadow_estimator=tree, n_shadow_models=4)
    attack.set_params(shadow_size=2).fit(np.concatenate(few))
    assert np.isfinite(attack.decision_function(OWN)).all()


class Untrainable(DecisionTreeClassifier):
    """Fails a test that trains it."""

    def fit(self, X, y):
        raise AssertionError("a shadow was trained")


class WithoutProbabilities(Untrainable):
    predict_proba = property()


@pytest.mark.parametrize("attack", [LikelihoodRatio, RMIA, ShadowModels])
@pytest.mark.parametrize(
    "recipe",
    [
        WithoutProbabilities(),
        make_pipeline(StandardScaler(), WithoutProbabilities()),
        SVC(),
        LinearSVC(),
    ],
    ids=["class", "pipeline", "SVC", "LinearSVC"],
)
def test_shadows_without_probabilities_are_refused_before_training(
    attack, recipe, monkeypatch
):
    for svm in (SVC, LinearSVC):
        monkeypatch.setattr(svm, "fit", Untrainable.fit)
    attack = attack(TARGET, shadow_estimator=recipe, n_shadow_models=2)
    with pytest.raises(TypeError, match="^shadow_estimator: .* has no predict_proba"):
        attack.fit(OWN)


@pytest.mark.parametrize("attack", [LikelihoodRatio, RMIA, ShadowModels])
def test_targets_without_probabilities_are_refused_before_training(attack):
    target = FrozenEstimator(LinearSVC().fit(OWN[:, :-1], OWN[:, -1]))
    attack = attack(target, shadow_estimator=Untrainable(), n_shadow_models=2)
    with pytest.raises(TypeError, match="^estimator: LinearSVC has no predict_proba"):
        attack.fit(OWN)


def test_shadows_of_attacks_by_labels_need_no_probabilities():
    target = FrozenEstimator(LinearSVC().fit(OWN[:, :-1], OWN[:, -1]))
    shadows = {"shadow_estimator": LinearSVC(), "n_shadow_models": 2}
    for attack in (
        BoundaryDistance(target, max_queries=20, **shadows),
        ShadowModels(target, features="label", **shadows),
    ):
        scores = attack.fit(OWN[:60]).decision_function(AUDITED[:10])
        assert np.isfinite(scores).all()


def test_stacks_that_choose_their_last_estimator_in_fit_are_taken():
    stack = StackingClassifier([("tree", DecisionTreeClassifier(max_depth=3))], cv=2)
    recipe = make_pipeline(StandardScaler(), stack)
    assert not hasattr(recipe, "predict_proba")  # which it has once it is fitted
    attack = RMIA(TARGET, shadow_estimator=recipe, n_shadow_models=1)
    with warnings.catch_warnings(action="ignore"):
        assert np.isfinite(attack.fit(OWN).decision_function(AUDITED)).all()


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("n_shadow_models", [2, 3, 4])
def test_halves_of_an_odd_number_leave_no_row_out(mode, n_shadow_models):
    attack = LikelihoodRatio(
        TARGET, shadow_estimator=RECIPE, n_shadow_models=n_shadow_models, mode=mode
    )
    scores = attack.fit(OWN[:31]).decision_function(OWN[:31])
    assert np.isfinite(scores).all()
    used = np.bincount(np.concatenate(attack.shadow_indices_), minlength=31)
    assert used.min() == 1
    first, second, *_ = (set(rows) for rows in attack.shadow_indices_)
    # Two halves have to share a row; of more, pairs share none.
    assert len(first & second) == (1 if n_shadow_models == 2 else 0)
    assert len({len(rows) for rows in attack.shadow_indices_}) == 1


@pytest.mark.parametrize("n_subsets", [3, 4, 5])
def test_what_a_pair_leaves_out_is_used_by_the_next(n_subsets):
    rng = np.random.RandomState(0)
    for _ in range(50):  # by chance, it would not be in every third draw
        subsets = draw_subsets(3, n_subsets, 1, rng)
        assert {len(rows) for rows in subsets} == {1}
        assert set(np.concatenate(subsets[:3])) == {0, 1, 2}
        assert not set(subsets[0]) & set(subsets[1])


def test_even_numbers_are_halved_as_ever():
    rng = np.random.RandomState(0)
    first, second = (rng.permutation(10) for _ in range(2))
    expected = [first[:5], first[5:], second[:5]]
    found = draw_subsets(10, 3, 5, np.random.RandomState(0))
    for rows, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(rows, np.sort(wanted))


def test_networks_get_single_precision():
    """Rows in float64 are what most users have, and skorch's networks refuse them."""
    recipe = net(max_epochs=2, module__n_features=60, module__n_classes=8)
    X, y = OWN[:, :-1].astype(np.float64), OWN[:, -1].astype(np.int64)
    (played,) = MembershipGame(recipe).play(X, y)
    attack = RMIA(played.target, n_shadow_models=1)
    attack.fit(AUDITED.astype(np.float64))
    assert np.isfinite(attack.decision_function(OWN.astype(np.float64))).all()
    behind = make_pipeline(StandardScaler(), recipe)
    (played,) = MembershipGame(behind).play(X, y)
    attack.set_params(estimator=played.target).fit(AUDITED.astype(np.float64))
    assert np.isfinite(attack.decision_function(OWN.astype(np.float64))).all()
    assert epsilon_lower_bound(recipe, X, y, n_canaries=20) >= 0


def test_augmented_queries():
    def twice(X):
        return X

    fixed = {"n_shadow_models": 4, "variance": "fixed"}
    one = LikelihoodRatio(TARGET, **fixed).fit(OWN)
    two = LikelihoodRatio(TARGET, **fixed, augmentations=[twice]).fit(OWN)
    np.testing.assert_allclose(
        two.decision_function(AUDITED) + two.threshold_,
        2 * (one.decision_function(AUDITED) + one.threshold_),
    )


def test_pickles_hold_no_records():
    attack = RMIA(TARGET, shadow_estimator=LogisticRegression(), n_shadow_models=2)
    data = OWN.copy()
    data[:, 0] = 0.1234567891  # a value that is easy to find
    text = pickle.dumps(attack.fit(data))
    assert data[:1, 0].tobytes() * 2 not in text and data[0].tobytes() not in text
    again = pickle.loads(text)
    np.testing.assert_array_equal(
        again.decision_function(AUDITED), attack.decision_function(AUDITED)
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "attack",
    [
        partial(ShadowModels, n_shadow_models=4),
        partial(LikelihoodRatio, n_shadow_models=4),
        partial(RMIA, n_shadow_models=2),
        partial(BoundaryDistance, n_shadow_models=2, max_queries=10),
    ],
)
def test_networks_whose_rows_lack_a_class(attack):
    """A net has an output for each class, also for those that it has not seen."""
    X, y = AUDITED[:, :-1].astype(np.float32), AUDITED[:, -1].astype(np.int64)
    plain = net(max_epochs=2, module__n_features=60, module__n_classes=8)
    for recipe in (plain, make_pipeline(StandardScaler(), plain)):
        target = clone(recipe).fit(X[MEMBER], y[MEMBER])
        fitted = attack(FrozenEstimator(target)).fit(OWN[:12])
        assert np.isfinite(fitted.decision_function(AUDITED[:40])).all()
        assert fitted.shadow_estimators_[0].classes_.tolist() == list(range(8))
    given = attack(TARGET, shadow_estimator=recipe).fit(OWN[:12])
    assert np.isfinite(given.decision_function(AUDITED[:40])).all()


def test_targets_whose_rows_lack_a_class():
    X, y = AUDITED[:60, :-1].astype(np.float32), AUDITED[:60, -1].astype(np.int64)
    y = np.where(np.arange(60) == 0, 7, y % 7)  # one row of class 7
    recipe = net(max_epochs=1, module__n_features=60, module__n_classes=8)
    for played in MembershipGame(recipe, n_targets=4).play(X, y):
        assert played.target.predict_proba(X).shape == (60, len(played.target.classes_))
    for seed in range(3):
        bound = epsilon_lower_bound(recipe, X, y, n_canaries=60, random_state=seed)
        assert bound >= 0


def test_recipes_must_be_trainable():
    """A frozen estimator would be its own shadow."""
    X, y = AUDITED[:, :-1], AUDITED[:, -1]
    frozen = FrozenEstimator(RECIPE.fit(X, y))
    for attack in (RMIA, LikelihoodRatio, ShadowModels, BoundaryDistance):
        with pytest.raises(ValueError, match="shadow_estimator: FrozenEstimator"):
            attack(TARGET, shadow_estimator=frozen).fit(OWN)
    with pytest.raises(ValueError, match="estimator: FrozenEstimator is trained"):
        MembershipGame(frozen).play(X, y)
    with pytest.raises(ValueError, match="estimator: FrozenEstimator is trained"):
        epsilon_lower_bound(frozen, X, y)


def test_shadows_that_cannot_be_trained():
    alike = OWN[OWN[:, -1] == 0][:6]
    with pytest.raises(ValueError, match="class") as raised:
        RMIA(TARGET, shadow_estimator=LogisticRegression()).fit(alike)
    assert "shadow_size=0.5 of 6 records" in raised.value.__notes__[-1]


@pytest.mark.parametrize("shadow_size", [0.1, 0.9])
@pytest.mark.parametrize("per_class", [False, True])
def test_attack_models_learn_from_as_many_members_as_others(shadow_size, per_class):
    """Else those of small shadows would call all records non-members."""
    attack = ShadowModels(
        TARGET,
        attack_estimator=LogisticRegression(),
        n_shadow_models=8,
        shadow_size=shadow_size,
        per_class=per_class,
    )
    predicted = attack.fit(OWN).predict(AUDITED)
    assert 0.3 < predicted.mean() < 0.8
    assert balanced_accuracy_score(MEMBER, predicted) > 0.7


def test_few_records_that_repeat():
    """All that some shadows were trained on may be all there is."""
    n_unlike = 0
    for seed in range(6):
        rows = np.random.default_rng(seed).integers(0, 3, 8)
        attack = ShadowModels(
            TARGET,
            shadow_estimator=RECIPE,
            attack_estimator=LogisticRegression(),
            n_shadow_models=4,
        )
        try:
            attack.fit(OWN[rows])
        except ValueError as error:
            assert "leaves no record" in str(error)
        else:
            n_unlike += 1
    assert n_unlike > 1


def test_augmentations_in_another_precision():
    X, y = AUDITED[:, :-1].astype(np.float32), AUDITED[:, -1].astype(np.int64)
    recipe = net(max_epochs=2, module__n_features=60, module__n_classes=8)
    target = make_pipeline(StandardScaler(), recipe).fit(X[MEMBER], y[MEMBER])
    attack = LikelihoodRatio(
        FrozenEstimator(target),
        n_shadow_models=2,
        augmentations=[lambda X: X + np.full(X.shape, 0.01)],
    )
    assert np.isfinite(attack.fit(OWN).decision_function(AUDITED)).all()


# Coarse probabilities -------------------------------------------------------------------


def coarse_table(n=400, seed=0):
    """Small integers, a noisy label: records that models learn by heart."""
    rng = np.random.RandomState(seed)
    X = rng.randint(0, 6, (n, 12)).astype(float)
    y = ((X[:, 0] + X[:, 1] + rng.randn(n) * 3) > 5).astype(int)
    return X, y, np.arange(n) % 2 == 0


COARSE = {
    "forest": (RandomForestClassifier(16, random_state=0), 1 / 16),
    "extra trees": (ExtraTreesClassifier(16, random_state=0), 1 / 16),
    "bagging": (BaggingClassifier(n_estimators=16, random_state=0), 1 / 16),
    "neighbours": (KNeighborsClassifier(5), 1 / 5),
    "tree": (DecisionTreeClassifier(max_depth=6, random_state=0), None),
    "rounded": (
        RoundedProbabilities(
            make_pipeline(
                StandardScaler(), MLPClassifier(32, max_iter=120, random_state=0)
            )
        ),
        1 / 100,
    ),
}


QUICK = {"forest", "neighbours", "tree"}
MARKED = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in COARSE
]


@pytest.mark.long
@pytest.mark.parametrize("name", MARKED)
def test_likelihood_ratio_of_coarse_scores(name):
    X, y, member = coarse_table()
    model, step = COARSE[name]
    with warnings.catch_warnings(action="ignore"):  # a network that does not converge
        target = FrozenEstimator(clone(model).fit(X[member], y[member]))
    records = make_records(X, y)

    def auc(attack):
        return roc_auc_score(member, attack.fit(records).decision_function(records))

    online = LikelihoodRatio(target, n_shadow_models=16, mode="online")
    offline = LikelihoodRatio(target, n_shadow_models=16)
    one_sided = auc(offline)
    # They share nine tenths of their noise; what is left of it is a hundredth.
    assert auc(online) >= one_sided - 0.01
    assert one_sided >= auc(LossThreshold(target)) - 1e-3
    if step is not None:
        assert 0.99 * step < online.resolution_ < 2.1 * step
    attack = QuantileMembership(target).fit(records[~member])
    assert attack.resolution_ > 0


def test_scores_that_are_fine_stay_as_they_are():
    rng = np.random.RandomState(0)
    logit = 12 * rng.normal(size=300)  # a net that is certain
    proba = 1 / (1 + np.exp(np.column_stack([logit, -logit])))
    assert score_resolution(proba) == 0
    codes = rng.randint(0, 2, 300)
    np.testing.assert_array_equal(
        logit_confidence(proba, codes), logit_confidence(proba, codes, 0.0)
    )
    votes = rng.randint(0, 21, 300)
    proba = np.column_stack([votes, 20 - votes]) / 20
    step = score_resolution(proba)
    np.testing.assert_allclose(step, 1 / 20, rtol=1e-6)
    smoothed = (votes + 0.5) / 21
    np.testing.assert_allclose(
        logit_confidence(proba, np.zeros(300, int), step),
        np.log(smoothed / (1 - smoothed)),
        rtol=1e-5,
        atol=1e-6,
    )


# What the recipe is not told ------------------------------------------------------------


class Positions(DecisionTreeClassifier):
    """Takes labels 0 to K - 1 only, as boosters do."""

    def fit(self, X, y):
        if not np.array_equal(np.unique(y), np.arange(len(np.unique(y)))):
            raise ValueError("Invalid classes inferred from unique values of `y`.")
        return super().fit(X, y)


@pytest.mark.parametrize(
    "attack",
    [
        partial(ShadowModels, n_shadow_models=4),
        partial(LikelihoodRatio, n_shadow_models=4, mode="online"),
        partial(RMIA, n_shadow_models=4),
        partial(BoundaryDistance, n_shadow_models=2, max_queries=20),
    ],
)
def test_a_rare_class_is_missing_in_some_shadows(attack):
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(80, 3)), rng.randint(0, 2, 80) * 2
    y[7] = 1  # in the middle, so that others lack a position
    target = Positions(max_depth=3).fit(X, y)
    attack = attack(FrozenEstimator(target)).fit(make_records(X, y))
    assert np.isfinite(attack.decision_function(make_records(X, y))).all()
    kinds = {type(model).__name__ for model in attack.shadow_estimators_}
    assert kinds == {"EncodedLabels", "Positions"}


@pytest.mark.parametrize("rare", [1, 2])
def test_boosters_that_lack_a_class(rare):
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(80, 3)), rng.randint(0, 2, 80) * (3 - rare)
    y[7] = rare
    booster = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, y)
    attack = RMIA(FrozenEstimator(booster), n_shadow_models=4).fit(make_records(X, y))
    assert np.isfinite(attack.decision_function(make_records(X, y))).all()


def test_rows_and_labels_of_fit_many_have_one_length():
    with pytest.raises(ValueError, match="y has 3 labels for the 5 rows"):
        fit_many(DecisionTreeClassifier(), np.eye(5), [0, 1, 0], [[0, 1]], [0])


def test_a_shadow_that_lacks_a_category_is_named():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame({"a": rng.choice(list("xyz"), 40), "b": rng.normal(size=40)})
    frame.loc[0, "a"] = "rare"
    y = rng.randint(0, 2, 40)
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["a"]), remainder="passthrough"
    )
    target = make_pipeline(encoder, DecisionTreeClassifier(max_depth=3)).fit(frame, y)
    attack = RMIA(FrozenEstimator(target), n_shadow_models=2, label_column="label")
    with pytest.raises(ValueError, match="unknown categories") as found:
        attack.fit(make_records(frame, y))
    assert "This is a shadow model" in "".join(found.value.__notes__)


# Which records are which ----------------------------------------------------------------


def test_times_in_seconds_are_records_of_their_own():
    rng = np.random.RandomState(0)
    seconds = 1_750_000_000 + rng.permutation(20_000)[:200]
    X = np.column_stack([seconds, rng.randint(0, 2, 200)]).astype(float)
    y = rng.randint(0, 2, 200)
    target = FrozenEstimator(DecisionTreeClassifier(max_depth=3).fit(X, y))
    attack = LikelihoodRatio(target, n_shadow_models=6, mode="online")
    attack.fit(make_records(X, y))
    trained = attack._trained_on(attack._records(make_records(X, y)))
    expected = np.zeros_like(trained)
    for mask, rows in zip(expected, attack.shadow_indices_, strict=True):
        mask[rows] = True
    np.testing.assert_array_equal(trained, expected)


def test_members_by_name_that_read_the_wrong_way_round():
    named = np.where(MEMBER, "member", "non-member")
    for attack in (LossThreshold(TARGET), GapAttack(TARGET)):
        with pytest.warns(UserWarning, match="give y == 'member'"):
            attack.fit(AUDITED, named)
        attack.fit(AUDITED, named == "member")


def test_times_in_seconds_are_records_like_others():
    """In float32 they are one to 128 seconds; the start of the clock changes nothing.

    (It does change a tree of scikit-learn, which itself rounds to float32.)
    """
    rng = np.random.RandomState(0)
    days = np.column_stack([rng.permutation(20_000)[:200], rng.randint(0, 2, 200)])
    y, found = rng.randint(0, 2, 200), []
    for start in (0, 1_750_000_000):
        X = (days + [start, 0]).astype(float)
        target = FrozenEstimator(KNeighborsClassifier(3).fit(X[:100], y[:100]))
        attack = RMIA(target, n_shadow_models=4, mode="online")
        records = make_records(X, y)
        scores = attack.fit(records).decision_function(records)
        found.append((scores, attack._trained_on(attack._records(records))))
    assert len(np.unique(X[:, 0].astype(np.float32))) < 150
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert (found[1][1].sum(axis=1) == 100).all()
    np.testing.assert_allclose(found[0][0], found[1][0])


def test_a_coarse_shift_is_never_taken_to_be_the_other_way_round():
    """The noise of few coarse scores says of some records that training lowered them."""
    rng = np.random.RandomState(0)
    X = rng.randint(0, 4, (120, 6)).astype(float)
    y = (X[:, 0] + 2 * rng.randn(120) > 1.5).astype(int)
    target = FrozenEstimator(KNeighborsClassifier(5).fit(X[::2], y[::2]))
    attack = LikelihoodRatio(target, n_shadow_models=8, mode="online")
    records = make_records(X, y)
    attack.fit(records)
    records = attack._records(records)
    shadows, trained = attack._shadow_confidences(records), attack._trained_on(records)
    mean_in, _ = attack._normal(shadows, trained, "in")
    mean_out, _ = attack._normal(shadows, ~trained, "out")
    average = attack._shift[0]
    attack._shift = average, np.array([[1e3]])  # as if the shifts were known well
    high, low = attack._shrink_shift(mean_in, mean_out, trained)
    assert average > 0 and (mean_in < mean_out).any()
    assert (high - low >= 0.5 * average - 1e-9).all()
    np.testing.assert_allclose(high + low, mean_in + mean_out, atol=1e-9)


# Few shadows ----------------------------------------------------------------------------


def records_of_a_known_prior(n_models, n_records=3000, seed=0):
    """Confidences whose prior is known: (n_models, n_records), and who is in which."""
    rng = np.random.RandomState(seed)
    subsets = draw_subsets(n_records, n_models, n_records // 2, rng)
    trained = np.zeros((n_models, n_records), dtype=bool)
    for mask, rows in zip(trained, subsets, strict=True):
        mask[rows] = True
    means = rng.multivariate_normal([2.0, 0.0], [[4.0, 3.0], [3.0, 9.0]], n_records).T
    variance = 1 / rng.gamma(6.0, 1 / 5.0, n_records)  # of mean 1 and variance 1/4
    noise = rng.normal(size=trained.shape) * np.sqrt(variance)
    return np.where(trained, means[0], means[1]) + noise, trained, means, variance


@pytest.mark.parametrize("shared", [True, False])
def test_the_prior_of_records_is_found(shared):
    confidences, trained, _, _ = records_of_a_known_prior(16)
    prior = _RecordPrior(confidences, trained, shared)
    np.testing.assert_allclose(prior._mean, [2, 0], atol=0.2)
    np.testing.assert_allclose(prior._covariance, [[4, 3], [3, 9]], atol=0.6)
    for usual, variation in prior._spread:
        assert usual == pytest.approx(1, abs=0.05)
        assert variation == pytest.approx(0.25, abs=0.12)


def test_the_posterior_is_that_of_normal_numbers():
    """By conditioning the joint normal distribution of means and confidences."""
    confidences, trained, _, _ = records_of_a_known_prior(4, 40)
    prior = _RecordPrior(confidences, trained, True)
    sides = trained.copy(), ~trained
    sides[0][:, :10] = False  # some records without models that were trained on them
    variances = prior._variances(confidences, *sides)
    found = prior._posterior(confidences, variances, sides)
    for i in (0, 5, 20, 39):
        side = [0] * int(sides[0][:, i].sum()) + [1] * int(sides[1][:, i].sum())
        seen = np.concatenate([confidences[mask[:, i], i] for mask in sides])
        pick = np.eye(2)[side]
        joint = pick @ prior._covariance @ pick.T
        joint += np.diag([variances[k][i] for k in side])
        gain = prior._covariance @ pick.T @ np.linalg.inv(joint)
        mean = prior._mean + gain @ (seen - pick @ prior._mean)
        left = prior._covariance - gain @ pick @ prior._covariance
        for k, (means, more) in enumerate(found):
            assert means[i] == pytest.approx(mean[k], rel=1e-6)
            assert more[i] == pytest.approx(left[k, k], rel=1e-4, abs=1e-8)


def test_variances_are_drawn_as_far_as_they_are_estimates():
    confidences, trained, _, variance = records_of_a_known_prior(6)
    prior = _RecordPrior(confidences, trained, True)
    (shrunken, _) = prior._variances(confidences, trained, ~trained)
    squares = [_squares(confidences, side) for side in (trained, ~trained)]
    own = sum(total for total, _ in squares) / sum(n for _, n in squares)

    def error(estimate):
        return np.mean((estimate - variance) ** 2)

    assert error(shrunken) < 0.8 * min(error(own), error(np.ones_like(own)))


@pytest.mark.parametrize("n_models", [4, 8])
def test_shadows_judge_each_other_without_bias(n_models):
    """Where nothing leaks, a record's own shadows must not tell who is in.

    The other half of a pair would: 4 shadows find .42, or .72 with variances of their
    own, where there is nothing.
    """
    rng = np.random.RandomState(0)
    _, trained, _, _ = records_of_a_known_prior(n_models)
    noise = rng.normal(size=(1, *trained.shape))
    for variance in ("fixed", "per_example", "shrunken"):
        attack = LikelihoodRatio(
            None, n_shadow_models=n_models, mode="online", variance=variance
        )
        attack.resolution_, attack._priors = 0.0, None
        attack._learn_normals(noise, trained)
        if variance == "shrunken":
            attack._priors = [_RecordPrior(noise[0], trained, False)]
            attack._weights, attack._intercept = np.array([1.0, 0.0]), 0.0
        areas = [
            roc_auc_score(member, attack._ratio(target, *rest))
            for target, *rest, member in attack._judged_shadows(noise, trained)
        ]
        assert len(areas) == n_models
        assert np.mean(areas) == pytest.approx(0.5, abs=0.025)


def test_shadows_that_tell_who_is_in_another_are_known():
    """Halves in pairs, also of an odd number, and folds; not draws of their own."""
    rng = np.random.RandomState(0)

    def masks(subsets, n_rows):
        return np.array([np.isin(np.arange(n_rows), rows) for rows in subsets])

    for n_rows in (100, 101):
        trained = masks(draw_subsets(n_rows, 6, n_rows // 2, rng), n_rows)
        for i in range(6):
            others = independent_shadows(trained, i)
            assert np.flatnonzero(~others).tolist() == sorted({i, i ^ 1})
    folds = [
        train
        for seed in range(3)
        for train, _ in KFold(4, shuffle=True, random_state=seed).split(np.zeros(120))
    ]
    trained = masks(folds, 120)
    for i in range(12):
        same = np.arange(12) // 4 == i // 4
        np.testing.assert_array_equal(independent_shadows(trained, i), ~same)
    trained = masks([rng.permutation(200)[:60] for _ in range(6)], 200)
    assert all(independent_shadows(trained, i).sum() == 5 for i in range(6))


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_few_shadows_are_enough_for_a_shrunken_ratio(mode, tmp_path):
    """At least as much as by LiRA with one variance, and as by RMIA, up to chance."""
    shadows = {"n_shadow_models": 6, "mode": mode, "candidates": AUDITED}
    shadows["memory"] = str(tmp_path)  # all have the same
    found = {}
    for name, attack in {
        "shrunken": LikelihoodRatio(TARGET, variance="shrunken", **shadows),
        "fixed": LikelihoodRatio(TARGET, variance="fixed", **shadows),
        "per example": LikelihoodRatio(TARGET, variance="per_example", **shadows),
        "RMIA": RMIA(TARGET, **shadows),
    }.items():
        scores = attack.fit(OWN).decision_function(AUDITED)
        found[name] = roc_auc_score(MEMBER, scores)
    shrunken = found.pop("shrunken")
    assert shrunken > 0.7 and shrunken > max(found.values()) - 0.02
    assert shrunken > found["per example"] + 0.03


def test_two_shadows_judge_as_rmia_does():
    """They cannot judge each other, so that there is nothing to weigh by."""
    shadows = {"n_shadow_models": 2, "mode": "online"}
    records = AUDITED[::2]
    lira = LikelihoodRatio(TARGET, **shadows).fit(records)
    rmia = RMIA(TARGET, **shadows).fit(records)
    gain = rmia._probabilities(rmia._records(records))
    gain = np.log(gain[0] + 1e-3) - np.log(gain[1] + 1e-3)
    np.testing.assert_allclose(
        lira.decision_function(records) + lira.threshold_, gain, atol=1e-4
    )
    assert lira.threshold_ == 0  # even odds
