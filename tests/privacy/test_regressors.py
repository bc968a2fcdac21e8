"""Membership in the training set of a regressor."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.datasets import make_friedman1
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from sklearn_advsec.privacy import (
    RMIA,
    LikelihoodRatio,
    LossThreshold,
    MembershipGame,
    QuantileMembership,
    ShadowModels,
    make_records,
)
from sklearn_advsec.privacy._signals import (
    RESIDUAL_RESOLUTION,
    residual_confidence,
    residual_probability,
)
from sklearn_advsec.victim import RegressionVictim

ATTACKS = [
    LossThreshold(None),
    QuantileMembership(None, quantile_estimator=Ridge()),
    ShadowModels(None, attack_estimator=LogisticRegression(), n_shadow_models=2),
    LikelihoodRatio(None, n_shadow_models=4),
    RMIA(None, n_shadow_models=4),
]


def table(n=300, seed=0):
    return make_friedman1(n, 8, noise=2.0, random_state=seed)


def played(recipe, n=300, seed=0):
    """A target, records of which the first half are members, and the attacker's own."""
    X, y = table(2 * n, seed)
    target = FrozenEstimator(recipe.fit(X[: n // 2], y[: n // 2]))
    records = make_records(X, y)
    return target, records[:n], np.arange(n) < n // 2, records[n:]


def name(attack):
    return type(attack).__name__


@pytest.mark.parametrize("attack", ATTACKS, ids=name)
def test_attacks_find_members(attack):
    tree = DecisionTreeRegressor(max_depth=7, random_state=0)
    target, audited, member, own = played(tree)
    attack = attack.set_params(estimator=target).fit(own)
    scores = attack.decision_function(audited)
    assert roc_auc_score(member, scores) > 0.7
    known = attack.fit(audited[::2], member[::2])
    assert known.score(audited[1::2], member[1::2]) > 0.6
    attack.set_params(estimator=None)


def test_the_loss_is_the_squared_residual():
    target, audited, member, own = played(Ridge())
    attack = LossThreshold(target, threshold=4.0).fit(own)
    X, y = audited[:, :-1], audited[:, -1]
    np.testing.assert_allclose(
        attack.decision_function(audited), 4 - (y - target.predict(X)) ** 2, atol=1e-9
    )


def test_shadows_know_more_than_the_residual():
    """Of a forest, which residuals are small for all is what shadows say."""
    forest = RandomForestRegressor(15, random_state=0)
    target, audited, member, own = played(forest, n=240)

    def auc(attack):
        return roc_auc_score(member, attack.fit(own).decision_function(audited))

    floor = auc(LossThreshold(target))
    assert 0.6 < floor < 0.9
    shadows = {"n_shadow_models": 8, "mode": "online", "candidates": audited}
    assert auc(RMIA(target, **shadows)) > floor + 0.05
    assert auc(LikelihoodRatio(target, **shadows)) > floor + 0.05


def test_likelihood_ratio_is_that_of_the_residuals():
    """From the definition: logits of Gaussian likelihoods, with one spread for all."""
    target, audited, member, own = played(KNeighborsRegressor(2), n=120)
    attack = LikelihoodRatio(target, n_shadow_models=6, variance="fixed").fit(own)
    shadows = attack.shadow_estimators_
    X, y = own[:, :-1], own[:, -1]
    out = np.ones((6, len(own)), dtype=bool)
    for mask, rows in zip(out, attack.shadow_indices_, strict=True):
        mask[rows] = False
    residual = y - np.stack([model.predict(X) for model in shadows])
    scale = np.sqrt(np.mean(residual[out] ** 2))

    def confidence(residual):
        p = np.exp(-(residual**2) / (2 * scale**2))
        return np.log((p + 0.02) / (1 - p + 0.02))

    own_confidence = confidence(residual)
    count = out.sum(axis=0)
    mean = (own_confidence * out).sum(axis=0) / count
    squares = ((own_confidence - mean) ** 2 * out)[:, count > 1].sum()
    std = np.sqrt(squares / (count[count > 1] - 1).sum())
    X, y = audited[:, :-1], audited[:, -1]
    fresh = np.stack([confidence(y - model.predict(X)) for model in shadows])
    expected = -norm.logsf(confidence(y - target.predict(X)), fresh.mean(axis=0), std)
    scores = attack.decision_function(audited)
    np.testing.assert_allclose(scores - scores[0], expected - expected[0], atol=1e-8)
    assert attack.resolution_ == RESIDUAL_RESOLUTION == 0.04


def test_signals_of_residuals():
    assert residual_probability(np.zeros(1), 3.0) == 1
    assert residual_probability(np.array([3.0]), 3.0) == pytest.approx(np.exp(-0.5))
    # Units do not matter, nor that there is no scale (a model that is always right).
    r = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(
        residual_confidence(r, 2.0), residual_confidence(1000 * r, 2000.0)
    )
    assert np.isfinite(residual_confidence(np.array([0.0, 1.0]), 0.0)).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=name)
def test_frames_units_and_wrappers(attack):
    """The same attack on a frame with text, in other units, and of a wrapped target."""
    X, y = table(160)
    frame = pd.DataFrame(X[:, :3], columns=list("abc"))
    frame["town"] = np.where(X[:, 4] > 0.5, "east", "west")
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    tree = DecisionTreeRegressor(max_depth=5, random_state=0)
    recipe = make_pipeline(encode, tree)
    records = make_records(frame.round(1), 1000 * y)
    assert records["label"].dtype == float
    target = recipe.fit(records.iloc[:60, :-1], records["label"][:60])
    scores = []
    wrapped = RegressionVictim(FrozenEstimator(target))
    wrapped.fit(records.iloc[:60, :-1], records["label"][:60])
    for victim in (target, wrapped):
        attack.set_params(estimator=FrozenEstimator(victim), label_column="label")
        if hasattr(attack, "shadow_estimator"):
            attack.set_params(shadow_estimator=recipe)
        if isinstance(attack, QuantileMembership):
            attack.set_params(quantile_estimator=None)
        scores.append(attack.fit(records.iloc[60:]).decision_function(records[:60]))
    np.testing.assert_allclose(scores[0], scores[1])
    assert np.isfinite(scores[0]).all()
    for parameter in ("shadow_estimator", "quantile_estimator"):
        if hasattr(attack, parameter):
            attack.set_params(**{parameter: None})
    attack.set_params(estimator=None, label_column=-1)


def test_game_of_regressors():
    X, y = table(120)
    game = MembershipGame(DecisionTreeRegressor(), n_targets=2, random_state=0)
    for turn in game.play(X, y):
        assert turn.train_accuracy == 1 > turn.test_accuracy  # R2
        attack = LossThreshold(turn.target)
        assert cross_val_score(attack, turn.records, turn.membership).mean() > 0.9
    net = make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=20)
    )
    (turn,) = MembershipGame(net).play(X, y)
    attack = RMIA(turn.target, n_shadow_models=2).fit(turn.records)
    assert np.isfinite(attack.decision_function(turn.records)).all()
    with pytest.raises(ValueError, match="NaN"):
        game.play(X, np.where(np.arange(len(y)) == 3, np.nan, y))
    with pytest.raises(ValueError):
        game.play(X, np.full(len(y), "high"))


def test_errors_say_what_to_do():
    target, audited, member, own = played(Ridge(), n=60)
    with pytest.raises(ValueError, match="label_column=None, but of a regressor"):
        RMIA(target, label_column=None).fit(own)
    with pytest.raises(TypeError, match="LogisticRegression must be a regressor"):
        RMIA(target, shadow_estimator=LogisticRegression()).fit(own)
    with pytest.raises(ValueError, match='they are "auto" and False'):
        ShadowModels(target, features="label").fit(own)
    with pytest.raises(ValueError, match='they are "auto" and False'):
        ShadowModels(target, per_class=True).fit(own)
    text = make_records(own[:, :-1], np.where(own[:, -1] > 14, "high", "low"))
    with pytest.raises(ValueError, match="must hold finite numbers: the target is a"):
        LossThreshold(target).fit(text)
    two = FrozenEstimator(Ridge().fit(own[:, :-1], own[:, -2:]))
    with pytest.raises(ValueError, match="predict"):
        LossThreshold(two).fit(own)
    classifier = LogisticRegression().fit(own[:, :-1], own[:, -1] > 14)
    records = make_records(own[:, :-1], (own[:, -1] > 14).astype(int))
    with pytest.raises(TypeError, match="Ridge must be a classifier"):
        RMIA(FrozenEstimator(classifier), shadow_estimator=Ridge()).fit(records)
