"""Robust trees: their splits are the worst case's best, and no attack beats them."""

from itertools import product

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.defense import (
    AdversarialTrainingClassifier,
    RobustDecisionTreeClassifier,
    RobustRandomForestClassifier,
    certify,
)
from sklearn_advsec.defense._certified._robust_growth import best_split
from sklearn_advsec.evasion import TreeCoordinateAttack, TreeExactAttack
from sklearn_advsec.metrics import robust_accuracy_scorer
from sklearn_advsec.trees import is_tree_ensemble, tree_ensemble


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    return X[::2], y[::2], X[1::2], y[1::2]


def gini(codes):
    counts = np.bincount(codes, minlength=2)
    return len(codes) - (counts**2).sum() / max(1, len(codes))


def test_splits_are_best_in_the_worst_case():
    """Against all ways to send the rows near each threshold (GROOT, Theorem 1)."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, codes, eps = rng.random(9), rng.integers(0, 2, 9), 0.1
        breaks = np.unique([x - eps, x + eps])
        worst = {}
        for t in (breaks[:-1] + breaks[1:]) / 2:
            sure, free = x <= t - eps, np.flatnonzero(np.abs(x - t) <= eps)
            free = free[~sure[free]]
            values = []
            for sides in product([True, False], repeat=len(free)):
                left = sure.copy()
                left[free] = sides
                values.append(gini(codes[left]) + gini(codes[~left]))
            worst[t] = max(values)
        impurity, _, _ = best_split(x, np.eye(2)[codes], eps, 0)
        # The box of counts is continuous in the theorem, whole numbers here.
        assert impurity >= min(worst.values()) - 1e-9
        assert impurity <= min(worst.values()) + 0.6


def test_without_an_attacker_it_is_the_usual_tree(cancer):
    X, y, X_test, _ = cancer
    robust = RobustDecisionTreeClassifier(eps=0, max_depth=1).fit(X, y)
    usual = DecisionTreeClassifier(max_depth=1).fit(X, y)
    ensemble = robust.ensemble_
    assert ensemble.feature[0] == usual.tree_.feature[0]
    np.testing.assert_allclose(ensemble.threshold[0], usual.tree_.threshold[0], rtol=1e-6)
    proba = robust.predict_proba(X_test)
    np.testing.assert_allclose(proba, usual.predict_proba(X_test))


def test_rows_count_by_their_weights(cancer):
    X, y, X_test, _ = cancer
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    limits = {"max_depth": 3, "min_samples_leaf": 5}
    robust = RobustDecisionTreeClassifier(eps=0, **limits)
    usual = DecisionTreeClassifier(**limits)
    for balanced in (None, "balanced"):
        fitted = [
            clone(model).set_params(class_weight=balanced).fit(X, y, weights)
            for model in (robust, usual)
        ]
        a, b = (model.predict_proba(X_test) for model in fitted)
        # Where two splits are as good as each other, they may differ.
        assert (np.abs(a - b).max(axis=1) < 1e-9).mean() > 0.9
    forest = RobustRandomForestClassifier(0.05, n_estimators=3, random_state=0)
    plain = clone(forest).fit(X, y).predict_proba(X_test)
    same = clone(forest).fit(X, y, np.full(len(X), 0.3)).predict_proba(X_test)
    np.testing.assert_allclose(same, plain, atol=1e-9)
    favoured = clone(robust).set_params(
        class_weight={0: 1e-4, 1: 1e4}, min_weight_fraction_leaf=0.01
    )
    assert (favoured.fit(X, y).predict(X_test) == 1).all()
    with pytest.raises(ValueError, match="leave no row any weight"):
        clone(robust).set_params(class_weight={0: 0, 1: 0}).fit(X, y)


def test_leaves_hold_rows_whatever_they_weigh():
    rng = np.random.default_rng(0)
    x, codes, weights = rng.random(60), rng.integers(0, 2, 60), rng.random(60) + 0.01
    counts = np.eye(2)[codes] * weights[:, None]
    for eps in (0.0, 0.05):
        _, threshold, left = best_split(x, counts, eps, 10)
        assert 10 <= (x <= threshold + eps).sum() and (x <= threshold - eps).sum() <= 50
        assert left.sum() < weights.sum()


@pytest.mark.parametrize("eps", [0.05, 0.1])
def test_robust_trees_keep_more_than_usual_ones(cancer, eps):
    X, y, X_test, y_test = cancer
    usual = DecisionTreeClassifier(random_state=0)
    robust = RobustDecisionTreeClassifier(eps, max_depth=4, random_state=0)
    kept = {}
    for model in (usual, robust):
        attack = TreeExactAttack(FrozenEstimator(model.fit(X, y)), eps=eps, bounds=None)
        kept[model] = attack.fit(X).score(X_test, y_test)
        assert model.score(X_test, y_test) > 0.85
    assert kept[robust] > kept[usual] + 0.2


@pytest.mark.long
def test_robust_forests_keep_more_than_usual_ones(cancer):
    X, y, X_test, y_test = cancer
    usual = RandomForestClassifier(25, random_state=0)
    robust = RobustRandomForestClassifier(0.1, n_estimators=25, random_state=0)
    kept = {}
    for model in (usual, robust):
        attack = TreeExactAttack(FrozenEstimator(model.fit(X, y)), eps=0.1, bounds=None)
        kept[model] = attack.fit(X).score(X_test[:60], y_test[:60])
    assert kept[robust] > kept[usual] + 0.15
    certificate = robust.certify(X_test[:60])
    assert 0.4 < certificate.accuracy(y_test[:60], 0.1) <= kept[robust]
    np.testing.assert_array_equal(
        certificate.radius, certify(robust, X_test[:60], norm=np.inf).radius
    )


@pytest.mark.long
def test_adversarial_boosting_keeps_more_than_usual_boosting():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = MinMaxScaler().fit_transform(X), np.array(["malign", "benign"])[y]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
    usual = GradientBoostingClassifier(n_estimators=15, random_state=0)
    robust = AdversarialTrainingClassifier(
        usual, TreeCoordinateAttack(bounds=None), eps=0.05, n_rounds=4, random_state=0
    )
    kept = {}
    for model in (usual, robust):
        attack = TreeExactAttack(FrozenEstimator(model.fit(X, y)), eps=0.05, bounds=None)
        kept[model] = attack.fit(X).score(X_test[:60], y_test[:60])
    assert kept[robust] > kept[usual] + 0.1
    # It is read as the trees that it holds, under the labels that it was given.
    np.testing.assert_array_equal(
        tree_ensemble(robust).predict(X_test), robust.predict(X_test)
    )
    certified = certify(robust, X_test[:60], eps=0.05)
    assert certified.accuracy(y_test[:60], [0.05])[0] <= kept[robust]
    linear = AdversarialTrainingClassifier(LogisticRegression(), n_rounds=1)
    assert not is_tree_ensemble(linear.fit(X, y))


def test_features_have_their_own_eps(cancer):
    X, y, X_test, _ = cancer
    eps = np.full(30, 2.0)
    eps[:5] = 0.0  # in all other columns, any row can be anywhere
    model = RobustDecisionTreeClassifier(eps, random_state=0).fit(X, y)
    used = set(model.ensemble_.feature) - {-1}
    assert used and used <= set(range(5))
    with pytest.raises(ValueError, match="eps must be one number or one for each of 30"):
        RobustDecisionTreeClassifier([0.1, 0.2]).fit(X, y)


def test_several_classes_grids_and_jobs():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    forest = RobustRandomForestClassifier(0.2, n_estimators=10, random_state=0)
    assert clone(forest).fit(X, names).score(X, names) > 0.9
    with joblib.parallel_config(backend="threading"):
        two = clone(forest).set_params(n_jobs=2).fit(X, names)
    one = forest.fit(X, names)
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    grid = GridSearchCV(
        RobustDecisionTreeClassifier(random_state=0),
        {"eps": [0.0, 0.3]},
        scoring=robust_accuracy_scorer(TreeExactAttack(eps=0.3, bounds=None)),
        cv=3,
    ).fit(X, y)
    assert grid.best_params_ == {"eps": 0.3}
