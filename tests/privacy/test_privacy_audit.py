"""The dossier: all attacks together, error rates, folds as shadows."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.privacy import (
    RMIA,
    KeepModels,
    LikelihoodRatio,
    LossThreshold,
    MembershipGame,
    PrivacyAudit,
    TrainedShadows,
    make_records,
)


def table(n_rows, seed=0, n_features=8):
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(n_rows, n_features)).round(2)
    return X, (X[:, 0] + X[:, 1] + rng.logistic(size=n_rows) > 0).astype(int)


X, Y = table(240)
MEMBER = np.random.RandomState(1).permutation(240) < 120
FOREST = ExtraTreesClassifier(10, random_state=0)
TARGET = FrozenEstimator(FOREST.fit(X[MEMBER], Y[MEMBER]))
RECORDS = make_records(X, Y)


@pytest.fixture(scope="module")
def audit():
    return PrivacyAudit(TARGET, n_shadow_models=8).fit(RECORDS, members=MEMBER)


def areas(audit):
    found = audit.results_.query("metric == 'AUC'")
    return found.set_index("attack")["value"]


def test_its_scores_are_those_of_the_attacks(audit):
    """One set of shadow models, asked once, and every attack as if it were alone."""
    scores = audit.records_.sort_index()
    alone = {
        "LossThreshold": LossThreshold(TARGET),
        "RMIA": RMIA(TARGET, n_shadow_models=8),
        "LikelihoodRatio": LikelihoodRatio(TARGET, n_shadow_models=8, mode="online"),
    }
    for name, attack in alone.items():
        own = attack.fit(RECORDS).decision_function(RECORDS) + attack.threshold_
        np.testing.assert_allclose(scores[f"score_{name}"], own, rtol=1e-9, atol=1e-12)
        assert areas(audit)[name] == pytest.approx(roc_auc_score(MEMBER, own), abs=1e-9)


def test_what_leaks_is_found_and_the_most_exposed_come_first(audit):
    assert audit.has_gap_
    assert areas(audit)["all attacks"] > 0.8
    records = audit.records_
    assert records["p_joint"].is_monotonic_increasing
    assert records["member"].head(20).mean() > 0.8
    assert (records["p_adjusted"] >= records["p_joint"]).all()
    assert not records.loc[records["member"] == False, "flagged"].any()  # noqa: E712
    p_values = records.filter(regex="^p_[A-Z]").min(axis=1)
    assert (records["p_joint"] >= p_values - 1e-12).all()
    judged = audit.results_.dropna(subset=["low"])
    assert judged["value"].between(judged["low"], judged["high"]).all()


def test_p_values_of_non_members_are_small_as_rarely_as_they_say():
    small = []
    for seed in range(2):
        X, y = table(240, seed)
        member = np.arange(240) % 2 == 0
        tree = DecisionTreeClassifier(max_depth=5).fit(X[member], y[member])
        audit = PrivacyAudit(FrozenEstimator(tree), n_shadow_models=6)
        audit.fit(make_records(X, y), members=member)
        p_values = audit.records_.query("member == False")["p_joint"]
        small.append([(p_values <= level).mean() for level in (0.05, 0.2)])
    assert (np.mean(small, axis=0) < [0.15, 0.4]).all()


def no_gap(n_runs, n_shadow_models=6):
    """Count audits with a flagged record: targets that have seen none of the records."""
    n_flagged = 0
    for seed in range(n_runs):
        X, y = table(260, seed, n_features=4)
        tree = DecisionTreeClassifier(max_depth=4, random_state=0)
        target = FrozenEstimator(tree.fit(X[160:], y[160:]))
        members = np.random.RandomState(seed).permutation(160) < 80
        audit = PrivacyAudit(target, n_shadow_models=n_shadow_models)
        audit.fit(make_records(X[:160], y[:160]), members=members)
        n_flagged += bool(audit.records_["flagged"].any())
    return n_flagged


def test_without_a_gap_nothing_is_flagged():
    assert no_gap(2) == 0


@pytest.mark.slow
def test_without_a_gap_nothing_is_flagged_in_100_audits():
    assert no_gap(100, n_shadow_models=24) == 0


def test_targets_unlike_their_shadow_models_are_judged_by_their_non_members():
    """Shadow models that are never sure make all answers of a tree look like members."""
    target = DecisionTreeClassifier(random_state=0).fit(X[MEMBER], Y[MEMBER])
    audit = PrivacyAudit(
        FrozenEstimator(target), shadow_estimator=LogisticRegression(), n_shadow_models=6
    ).fit(RECORDS, members=MEMBER)
    assert not audit.calibrated_
    assert audit.limits_["what"].str.contains("p-values").any()
    others = audit.records_.query("member == False")
    assert (others["p_joint"] <= 0.05).mean() <= 0.06
    assert not audit.records_["flagged"].any()


def test_members_that_only_memory_explains_are_flagged():
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(120, 3)), rng.randint(0, 2, 120)  # nothing to learn
    member = np.arange(120) % 2 == 0
    forest = ExtraTreesClassifier(5, random_state=0).fit(X[member], y[member])
    audit = PrivacyAudit(FrozenEstimator(forest), ["RMIA", "LossThreshold"], level=0.5)
    audit.set_params(n_shadow_models=12).fit(make_records(X, y), members=member)
    flagged = audit.records_["flagged"]
    assert flagged.sum() > 5
    assert audit.records_.loc[flagged, "member"].all()


def test_single_outs_are_those_alone_with_what_is_known():
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(8)])
    frame["town"] = np.where(np.arange(240) < 239, "Ulm", "Bern")
    frame["age"] = np.arange(240) // 2
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), remainder="passthrough"
    )
    model = make_pipeline(encode, DecisionTreeClassifier(max_depth=3))
    model.fit(frame[MEMBER], Y[MEMBER])
    audit = PrivacyAudit(
        FrozenEstimator(model),
        ["LossThreshold"],
        quasi_identifiers=["town", "age"],
        label_column="label",
    ).fit(make_records(frame, Y), members=np.flatnonzero(MEMBER))
    alone = audit.records_["single_out"]
    assert set(alone[alone].index) == {238, 239}
    assert audit.records_["cell_size"].notna().sum() == MEMBER.sum()
    with pytest.raises(ValueError, match="quasi_identifiers"):
        audit.set_params(quasi_identifiers=["street"]).fit(
            make_records(frame, Y), members=MEMBER
        )


def test_models_of_labels_have_the_gap_attack_alone():
    target = RidgeClassifier().fit(X[MEMBER], Y[MEMBER])
    audit = PrivacyAudit(FrozenEstimator(target)).fit(RECORDS, non_members=~MEMBER)
    assert set(audit.results_["attack"].dropna()) == {
        "GapAttack", "all attacks", "no model",
    }  # fmt: skip
    assert audit.limits_["what"].str.contains("probabilities").any()
    with pytest.raises(TypeError, match="RidgeClassifier gives no probabilities"):
        PrivacyAudit(FrozenEstimator(target), ["RMIA"]).fit(RECORDS, members=MEMBER)


def test_regressors_are_audited_by_their_residuals():
    rng = np.random.RandomState(0)
    y = X[:, 0] + 0.5 * rng.normal(size=len(X))
    target = FrozenEstimator(
        ExtraTreesRegressor(10, min_samples_leaf=2, random_state=0).fit(
            X[MEMBER], y[MEMBER]
        )
    )
    records = make_records(X, y)
    audit = PrivacyAudit(target, n_shadow_models=8).fit(records, members=MEMBER)
    assert "GapAttack" not in areas(audit)
    alone = RMIA(target, n_shadow_models=8).fit(records).decision_function(records)
    assert areas(audit)["RMIA"] == pytest.approx(roc_auc_score(MEMBER, alone), abs=1e-9)
    assert audit.has_gap_
    assert areas(audit)["all attacks"] > 0.7
    with pytest.raises(TypeError, match="on classifiers"):
        PrivacyAudit(target, ["GapAttack"]).fit(records, members=MEMBER)


def test_members_that_others_equal_are_set_apart():
    doubled = np.concatenate([RECORDS, RECORDS[:3]])
    members = np.append(MEMBER, ~MEMBER[:3])
    audit = PrivacyAudit(TARGET, ["LossThreshold"]).fit(doubled, members=members)
    assert audit.limits_["what"].str.contains("of the non-members").any()
    assert audit.records_["member"].isna().sum() >= 1
    figure = audit.results_.query("attack == 'LossThreshold'").iloc[0]
    clear = MEMBER.sum() - MEMBER[:3].sum()  # they are not judged, on either side
    assert figure["n_members"] == clear
    with pytest.raises(ValueError, match="do not have the values of the other"):
        PrivacyAudit(TARGET).fit(np.tile(RECORDS, (2, 1)), members=range(len(RECORDS)))


def coarse_table(seed, n=160, n_others=200):
    """Rare and frequent values, and a model of other rows, which knows what is rare."""
    rng = np.random.RandomState(seed)
    X = (rng.normal(size=(n + n_others, 8)) > 0.8).astype(float)
    y = (2 * X[:, 0] - 1 + rng.logistic(size=len(X)) > 0).astype(int)
    model = FrozenEstimator(GaussianNB().fit(X[n:], y[n:]))
    return X[:n], y[:n], model, rng.permutation(n) < n // 2


def test_frequent_values_are_no_gap():
    """Both kinds have them, and the rare ones alone would be left to non-members."""
    found = []
    for seed in range(8):
        X, y, model, member = coarse_table(seed, 1200)
        audit = PrivacyAudit(model, ["LossThreshold"]).fit(
            make_records(X, y), members=member
        )
        found.append(audit.has_gap_)
    assert np.mean(found) <= 0.25  # .05, and chance


def test_copies_in_other_folds_are_not_judged():
    X, y, model, _ = coarse_table(0)
    folds = RepeatedStratifiedKFold(n_splits=4, n_repeats=2, random_state=0)
    kept = {"return_estimator": True, "return_indices": True, "cv": folds}
    audit = PrivacyAudit.from_cross_validation(cross_validate(model, X, y, **kept), X, y)
    _, at, counts = np.unique(
        np.column_stack([X, y]), axis=0, return_inverse=True, return_counts=True
    )
    alone = counts[at.ravel()] == 1
    assert 2 < alone.sum() < len(X)
    assert (audit.results_["n_members"] == alone.sum()).all()
    assert (audit.records_.sort_index().loc[~alone, "p_joint"] == 1).all()
    assert not audit.has_gap_
    assert audit.limits_["reason"].str.contains("in other folds").any()
    X, y = np.tile(X, (2, 1)), np.tile(y, 2)
    with pytest.raises(ValueError, match="all rows have copies"):
        PrivacyAudit.from_cross_validation(cross_validate(model, X, y, **kept), X, y)


def test_the_certificate_of_a_forest_stands_beside():
    rng = np.random.RandomState(0)
    X, y = rng.randint(0, 3, (120, 5)), rng.randint(0, 2, 120)
    member = np.arange(120) < 60
    forest = RandomForestClassifier(20, bootstrap=False, random_state=0)
    target = FrozenEstimator(forest.fit(X[member], y[member]))
    audit = PrivacyAudit(target, ["LossThreshold"], domain=[range(3)] * 5)
    records = audit.fit(make_records(X, y), members=member).records_
    assert not ((records["certificate"] == "out") & (records["member"] == True)).any()  # noqa: E712
    assert (records["certificate"] == "in").sum() > 10


def test_json_holds_what_the_frames_do(audit, tmp_path):
    text = audit.to_json(tmp_path / "audit.json", n_records=5)
    document = json.loads((tmp_path / "audit.json").read_text())
    assert document == json.loads(text)
    assert [r["record"] for r in document["records"]] == audit.records_.index[:5].tolist()
    assert len(document["results"]) == len(audit.results_)
    assert document["model"] == "ExtraTreesClassifier"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"members": [0, 999]}, "members must be positions"),
        ({"members": MEMBER[:5]}, "members has 5 entries"),
        ({"members": [0.5]}, "members must be positions"),
        ({"members": None}, "must say which records"),
        ({"members": MEMBER, "non_members": MEMBER}, "in common"),
        ({"members": [0]}, "two members"),
    ],
)
def test_membership_is_checked(changes, match):
    with pytest.raises(ValueError, match=match):
        PrivacyAudit(TARGET, ["GapAttack"]).fit(RECORDS, **changes)


def test_attacks_and_target_are_checked():
    for attacks in (["Loss"], [], ["RMIA", "RMIA"]):
        with pytest.raises(ValueError, match="attacks must be"):
            PrivacyAudit(TARGET, attacks).fit(RECORDS, members=MEMBER)
    with pytest.raises(NotFittedError, match="must be fitted"):
        PrivacyAudit(LogisticRegression()).fit(RECORDS, members=MEMBER)


# Models of folds ------------------------------------------------------------------------

FOLDS = RepeatedStratifiedKFold(n_splits=2, n_repeats=3, random_state=0)


def folds(X, y, cv=FOLDS):
    return cross_validate(FOREST, X, y, cv=cv, return_estimator=True, return_indices=True)


def test_models_of_folds_stand_for_shadow_models():
    """No model is trained, and the area is that of an attack with its own shadows."""
    inside = X[MEMBER], Y[MEMBER]
    done = folds(*inside)
    alone = RMIA(TARGET, n_shadow_models=8).fit(RECORDS).decision_function(RECORDS)
    expected = roc_auc_score(MEMBER, alone)
    recipe = PrivacyAudit.from_cross_validation(done, *inside)
    assert areas(recipe)["RMIA"] == pytest.approx(expected, abs=0.08)
    assert recipe.has_gap_
    released = PrivacyAudit.from_cross_validation(
        done, *inside, estimator=TARGET, X_out=X[~MEMBER], y_out=Y[~MEMBER]
    )
    assert areas(released)["RMIA"] == pytest.approx(expected, abs=0.08)
    assert released.records_["member"].sum() == MEMBER.sum()


def test_a_recipe_that_learns_nothing_has_no_gap():
    done = cross_validate(
        DummyClassifier(), X, Y, cv=FOLDS, return_estimator=True, return_indices=True
    )
    audit = PrivacyAudit.from_cross_validation(done, X, Y)
    assert not audit.has_gap_
    assert not audit.records_["flagged"].any()


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_search_that_keeps_its_models(in_folder, tmp_path):
    keep = KeepModels("roc_auc", folder=tmp_path / "kept" if in_folder else None)
    frame, y = pd.DataFrame(X[:100]), Y[:100]
    frame.columns = [f"x{j}" for j in range(8)]
    search = GridSearchCV(
        DecisionTreeClassifier(random_state=0), {"max_depth": [1, 5]}, cv=FOLDS,
        scoring=keep,
    ).fit(frame, y)  # fmt: skip
    audit = PrivacyAudit.from_cross_validation(search, frame, y)
    plain = cross_validate(
        search.best_estimator_, frame, y, cv=FOLDS, return_estimator=True,
        return_indices=True,
    )  # fmt: skip
    expected = PrivacyAudit.from_cross_validation(
        plain, frame, y, estimator=search.best_estimator_
    )
    pd.testing.assert_frame_equal(audit.results_, expected.results_)
    other = GridSearchCV(
        search.estimator, {"max_depth": [1, 5]}, cv=FOLDS, scoring="roc_auc"
    )
    assert other.fit(frame, y).best_score_ == pytest.approx(search.best_score_)


def test_what_was_not_kept_is_said():
    search = GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1]}).fit(X, Y)
    with pytest.raises(ValueError, match=r"keeps scores.*scoring=KeepModels"):
        PrivacyAudit.from_cross_validation(search, X, Y)
    with pytest.raises(ValueError, match="return_indices=True"):
        PrivacyAudit.from_cross_validation(cross_validate(FOREST, X, Y), X, Y)
    with pytest.raises(ValueError, match="one repetition only"):
        PrivacyAudit.from_cross_validation(folds(X, Y, StratifiedKFold(3)), X, Y)
    shuffled = RepeatedStratifiedKFold(n_splits=2, n_repeats=2)
    search.set_params(cv=shuffled, scoring=KeepModels()).fit(X, Y)
    with pytest.raises(ValueError, match="random_state"):
        PrivacyAudit.from_cross_validation(search, X, Y)
    with pytest.raises(TypeError, match="search must be"):
        PrivacyAudit.from_cross_validation("cv", X, Y)
    with pytest.raises(ValueError, match="y_out"):
        PrivacyAudit.from_cross_validation(
            folds(X, Y), X, Y, estimator=TARGET, X_out=X[:3]
        )


def test_trained_shadows_are_taken_as_they_are():
    shadows = TrainedShadows([FOREST, FOREST], [np.arange(100), np.arange(100, 200)])
    attack = RMIA(TARGET, shadow_estimator=shadows, n_shadow_models=2).fit(RECORDS)
    assert attack.shadow_estimators_ == [FOREST, FOREST]
    with pytest.raises(ValueError, match="n_shadow_models=3"):
        RMIA(TARGET, shadow_estimator=shadows, n_shadow_models=3).fit(RECORDS)
    wrong = TrainedShadows([FOREST, FOREST], [[0], [999]])
    with pytest.raises(ValueError, match="positions among the 240"):
        RMIA(TARGET, shadow_estimator=wrong, n_shadow_models=2).fit(RECORDS)
    with pytest.raises(ValueError, match="one for each"):
        TrainedShadows([FOREST], [])


def people(n_people, seed, visits=8):
    """Draw people who come often, and are hard to predict each time, or never."""
    rng = np.random.RandomState(seed)
    X = np.repeat(rng.normal(size=(n_people, 3)), visits, axis=0)
    X += 0.2 * rng.normal(size=X.shape)
    y = (X[:, 0] + np.repeat(rng.normal(size=n_people), visits) > 0).astype(int)
    return X, y, np.repeat(np.arange(n_people), visits)


def audit_of_people(seed, by_group, leak=False, **parameters):
    X, y, groups = people(40, seed)
    inside = np.isin(groups, np.random.RandomState(seed).permutation(40)[:20])
    tree = DecisionTreeClassifier(max_depth=None if leak else 4, random_state=0)
    rows = (X[inside], y[inside]) if leak else people(60, seed + 10**6)[:2]
    audit = PrivacyAudit(FrozenEstimator(tree.fit(*rows)), **parameters)
    groups = groups if by_group else None
    return audit.fit(make_records(X, y), members=inside, groups=groups)


def false_gaps(seeds, by_group):
    """Count gaps of models that know none of the records."""
    attacks = ["GapAttack", "LossThreshold"]
    audits = (audit_of_people(seed, by_group, attacks=attacks) for seed in seeds)
    return sum(audit.has_gap_ for audit in audits)


def test_people_who_come_often_are_no_gap_but_what_leaks_of_them_is():
    # Three of the models that seem to have a gap where each visit is taken for itself.
    seeds = [seed for seed in range(20) if false_gaps([seed], by_group=False)][:3]
    assert len(seeds) == 3
    assert false_gaps(seeds, by_group=True) == 0
    audit = audit_of_people(0, by_group=True, leak=True, n_shadow_models=6)
    assert audit.has_gap_
    alike = audit.limits_["what"].str.contains("groups in shadow models|by itself")
    assert not alike.any()  # whole groups were drawn, for shadow models and folds


@pytest.mark.slow
def test_groups_have_false_gaps_as_rarely_as_the_level_says():
    # 5 % of 300 are 15, of which 27 are three deviations too many.
    assert false_gaps(range(300), by_group=True) <= 27
    assert false_gaps(range(100), by_group=False) > 15


def test_groups_on_both_sides_are_set_apart():
    X, y, groups = people(12, 0)
    inside = groups < 6
    inside[groups == 3] = np.arange(8) < 4
    tree = DecisionTreeClassifier(random_state=0).fit(X[inside], y[inside])
    audit = PrivacyAudit(FrozenEstimator(tree), ["LossThreshold"])
    with config_context(enable_metadata_routing=True):
        request = audit.set_fit_request(groups=True).get_metadata_routing()
    assert "groups" in request.consumes("fit", ["groups"])
    records = make_records(X, y)
    audit.fit(records, members=inside, groups=[f"person {i}" for i in groups])
    judged = audit.records_.sort_index()["judged"]
    np.testing.assert_array_equal(judged, groups != 3)
    assert audit.results_.query("attack == 'LossThreshold'")["n_members"].max() == 40
    assert audit.limits_["reason"].str.contains("of the same groups").any()
    with pytest.raises(ValueError, match="two groups of members"):
        audit.fit(records, members=inside, groups=np.where(inside, 0, groups + 1))
    with pytest.raises(ValueError, match="groups must be one for each of the 96"):
        audit.fit(records, members=inside, groups=groups[1:])


def test_games_and_folds_of_groups():
    X, y, groups = people(30, 0)
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    (played,) = MembershipGame(tree, train_size=0.4).play(X, y, groups)
    shares = np.bincount(groups, played.membership) / 8
    assert sorted(shares) == [0] * 18 + [1] * 12
    folds = [
        split
        for seed in range(4)
        for split in GroupKFold(2, shuffle=True, random_state=seed).split(X, y, groups)
    ]
    done = cross_validate(
        DummyClassifier(), X, y, cv=folds, return_estimator=True,
        return_indices=True,
    )  # fmt: skip
    audits = [
        PrivacyAudit.from_cross_validation(done, X, y, groups=own)
        for own in (groups, None)
    ]
    assert not audits[0].has_gap_
    assert not audits[0].limits_["what"].str.contains("groups in shadow").any()
    more, labels, others = people(10, 1)
    audit = PrivacyAudit.from_cross_validation(
        done, X, y, estimator=DummyClassifier().fit(X, y), X_out=more, y_out=labels,
        groups=groups, groups_out=others + 30,
    )  # fmt: skip
    assert not audit.has_gap_
    assert not audit.limits_["what"].str.contains("groups in shadow").any()
