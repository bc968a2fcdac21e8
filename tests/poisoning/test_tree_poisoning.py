"""Flips by shared leaves beside random ones, and those by distance."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine, make_classification
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.poisoning import LabelFlipping, TreePoisoning

X, y = make_classification(900, 12, n_informative=6, flip_y=0.0, random_state=0)


def errors(model, attack):
    poisoned = attack.fit_resample(X[:300], y[:300])
    return 1 - model.fit(*poisoned).score(X[300:], y[300:])


def test_a_forest_suffers_more_than_from_random_flips():
    model = RandomForestClassifier(40, random_state=0)
    chosen = errors(model, TreePoisoning(model, budget=0.3, random_state=0))
    flips = LabelFlipping(strategy="random", budget=0.3, random_state=0)
    assert chosen > errors(model, flips) + 0.05


def test_the_damage_of_one_stump_can_be_counted():
    rows = np.array([[0.0], [0.1], [0.2], [0.3], [1.0], [1.1]])
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    stump = DecisionTreeClassifier(max_leaf_nodes=2, random_state=0)
    attack = TreePoisoning(stump, budget=1, random_state=0).fit(rows, labels)
    # Three rows of "a" left, three of "b" right: two others are moved by a third each.
    np.testing.assert_allclose(attack.damage_, 2 / 3)
    labels[2] = "b"
    attack.fit(rows, labels)  # two of "a"; and four of "b", three of them others
    np.testing.assert_allclose(attack.damage_, [0.5, 0.5, *[0.75] * 4])
    assert attack.poison_indices_.tolist() == [2]


def test_boosting_more_classes_and_pipelines():
    boosting = GradientBoostingClassifier(n_estimators=10, random_state=0)
    rows, kinds = load_wine(return_X_y=True)
    attack = TreePoisoning(boosting, budget=60).fit(rows, kinds)
    assert len(attack.poison_indices_) == 60
    forest = RandomForestClassifier(10, random_state=0)
    plain = TreePoisoning(forest, budget=20, random_state=0).fit(X, y)
    pipe = make_pipeline(StandardScaler(), forest)
    behind = TreePoisoning(pipe, budget=20, random_state=0).fit(X, y)
    shared = np.intersect1d(plain.poison_indices_, behind.poison_indices_)
    assert len(shared) >= 15


def test_surrogates_without_leaves():
    rows, labels = load_breast_cancer(return_X_y=True)
    with pytest.raises(TypeError, match=r"apply\(X\)"):
        TreePoisoning(LogisticRegression(max_iter=5000)).fit(rows / 100, labels)
