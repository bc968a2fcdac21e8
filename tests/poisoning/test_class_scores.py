"""Classes whose labels are all flipped: attacks, sanitizers and classifiers go on."""

import numpy as np
import pytest
import torch
from nets import net
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.poisoning import (
    BaggingCertified,
    DeepPartitionAggregation,
    GradientCanceling,
    InfluencePoisoning,
    KKTPoisoning,
    KNNSanitizer,
    LabelFlipping,
    LossTrimming,
    MinMaxPoisoning,
    PoisonedClassifier,
    SVMPoisoning,
    TreePoisoning,
)
from sklearn_advsec.poisoning._class_scores import class_scores

X, y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(X)
KINDS = np.array(["p", "q", "r"])[y]
TOWARDS = {"goal": "targeted", "target": "p", "target_class": "r"}
MODELS = [
    LogisticRegression(),
    LinearSVC(),
    RidgeClassifier(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    MLPClassifier((4,), max_iter=30, learning_rate_init=0.1, random_state=0),
    net(max_epochs=1),
]
OTHERS = [
    SVC(),
    SVC(decision_function_shape="ovo"),
    GaussianNB(),
    DecisionTreeClassifier(max_depth=3),
    GridSearchCV(SVC(decision_function_shape="ovo"), {"C": [1.0]}, cv=2),
]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_flips_may_take_the_whole_of_a_class(model):
    clean = (X[::2], KINDS[::2])
    for validation in (clean, None) if model in MODELS[:4] else (clean,):
        attack = LabelFlipping(
            model, budget=59, validation=validation, n_rounds=2, n_swaps=2, **TOWARDS
        )
        labels = attack.fit_resample(X.astype(np.float32), KINDS)[1]
        flipped = labels != KINDS
        assert flipped.sum() == 59
        assert set(KINDS[flipped]) == {"p"} and set(labels[flipped]) == {"r"}
        assert np.isfinite(list(attack.validation_errors_.values())).all()


@pytest.mark.parametrize("strategy", ["farthest", "alfa"])
@pytest.mark.parametrize("model", [*MODELS[:3], *OTHERS], ids=repr)
def test_the_other_strategies_take_it_too(model, strategy):
    attack = LabelFlipping(model, strategy=strategy, budget=59, **TOWARDS)
    assert set(attack.fit_resample(X, KINDS)[1]) == {"q", "r"}


def test_two_classes_stay():
    few, labels = X[y < 2], y[y < 2]
    for strategy in ("random", "farthest", "alfa", "gradient"):
        attack = LabelFlipping(
            LogisticRegression(),
            strategy=strategy,
            budget=1.0,
            goal="targeted",
            target_class=1,
            validation=(few, labels),
        )
        flipped = attack.fit_resample(few, labels)[1]
        assert (flipped == 0).sum() == 1 and (flipped == 1).sum() == len(few) - 1


@pytest.mark.parametrize("model", [MODELS[0], MODELS[2], *OTHERS[:4]], ids=repr)
def test_a_poisoned_classifier_knows_the_classes_that_it_was_given(model):
    attack = LabelFlipping(RidgeClassifier(), strategy="farthest", budget=59, **TOWARDS)
    poisoned = PoisonedClassifier(model, attack).fit(X, KINDS)
    assert poisoned.classes_.tolist() == ["p", "q", "r"]
    assert set(poisoned.predict(X)) == {"q", "r"}
    if hasattr(model, "predict_proba"):
        proba = poisoned.predict_proba(X)
        assert (proba[:, 0] == 0).all() and np.isfinite(log_loss(KINDS, proba))
        np.testing.assert_allclose(proba.sum(1), 1)
        inside = attack.set_params(budget=1.0)
        scores = cross_val_score(
            PoisonedClassifier(model, inside), X, KINDS, scoring="neg_log_loss", cv=2
        )
        assert np.isfinite(scores).all()
    if hasattr(model, "decision_function"):
        scores = poisoned.decision_function(X)
        assert scores.shape == (len(X), 3) and np.isfinite(scores).all()
        assert (
            poisoned.classes_[scores.argmax(1)].tolist() == poisoned.predict(X).tolist()
        )
    if type(model) is LogisticRegression:
        seen = differentiable.view(poisoned)
        found = torch.softmax(seen.logits(torch.as_tensor(X)), dim=1).numpy()
        np.testing.assert_allclose(found, proba, atol=1e-12)
        assert seen.classes is poisoned.classes_


def test_scores_of_pairs_are_made_scores_of_classes():
    ours = class_scores(SVC(decision_function_shape="ovo").fit(X, y), X)
    np.testing.assert_allclose(ours, SVC().fit(X, y).decision_function(X))
    pairs, each = (
        LossTrimming(SVC(decision_function_shape=shape), random_state=0).fit(X, y)
        for shape in ("ovo", "ovr")
    )
    np.testing.assert_allclose(pairs.scores_, each.scores_)


def test_relabelling_does_not_end_a_class():
    rows = np.r_[np.zeros(3), np.zeros(9), np.ones(9)][:, None]
    labels = np.repeat([0, 1, 2], [3, 9, 9])
    sanitizer = KNNSanitizer(n_neighbors=8, contamination=1.0)
    with pytest.raises(ValueError, match="relabels every row of 0"):
        sanitizer.fit(rows, labels)
    sanitizer.set_params(contamination=0.7).fit(rows, labels)
    assert len(sanitizer.relabelled_) == 2


@pytest.mark.parametrize(
    "attack",
    [
        InfluencePoisoning(LogisticRegression(), budget=0.2, max_iter=2),
        KKTPoisoning(RidgeClassifier(), budget=0.2, max_iter=2),
        GradientCanceling(LogisticRegression(), budget=0.2, max_iter=2, random_state=0),
        SVMPoisoning(SVC(kernel="linear"), budget=4, max_iter=2, random_state=0),
        MinMaxPoisoning(LinearSVC(), budget=0.2, max_iter=10),
        TreePoisoning(DecisionTreeClassifier(max_depth=3), budget=0.4),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_class_of_two_rows_is_enough_for_other_attacks(attack):
    few = np.flatnonzero((y > 0) | (np.arange(len(y)) < 2))
    labels = attack.fit_resample(X[few], KINDS[few])[1]
    assert set(labels) <= {"p", "q", "r"} and len(attack.poison_indices_)


def test_members_of_votes_may_know_fewer_classes():
    few = np.flatnonzero((y > 0) | (np.arange(len(y)) < 2))
    for ensemble in (
        DeepPartitionAggregation(LogisticRegression(), n_partitions=8, vote="run-off"),
        BaggingCertified(
            LogisticRegression(), n_estimators=9, bag_size=5, random_state=0
        ),
    ):
        ensemble.fit(X[few], KINDS[few])
        assert ensemble.predict_proba(X).shape == (len(X), 3)
        assert len(ensemble.certify(X).radius) == len(X)
