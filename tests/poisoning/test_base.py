"""The base: carried through pipelines, searches and nets; where the poison gets in."""

import numpy as np
import pandas as pd
import pytest
from nets import net
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.poisoning import (
    KNNSanitizer,
    LabelFlipping,
    PoisonedClassifier,
    SanitizedClassifier,
    poisoning_report,
)
from sklearn_advsec.poisoning._base import Poison, PoisoningAttack

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
RANDOM = LabelFlipping(strategy="random", budget=0.3, random_state=0)


class Means(PoisoningAttack):
    """Add, or turn rows into, the means of the classes, with the next label."""

    def __init__(self, changes="added", *, budget=0.1, random_state=0):
        self.changes = changes
        self.budget = budget
        self.random_state = random_state

    _parameter_constraints = {
        name: PoisoningAttack._parameter_constraints[name]
        for name in ("budget", "random_state")
    }

    def _poison(self, task):
        codes = np.arange(task.budget) % len(task.classes)
        means = np.stack([task.X[task.y == code].mean(0) for code in codes])
        codes = (codes + 1) % len(task.classes)
        if self.changes == "added":
            return Poison(X=means, y=codes)
        return Poison(np.arange(task.budget)[::-1], codes, means)


def mixed_frame():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "whole": rng.randint(0, 9, 60),
            "text": rng.choice(["x", "y"], 60),
            "kind": pd.Categorical(rng.choice(["p", "q"], 60), ["p", "q", "r"]),
            "single": rng.rand(60).astype(np.float32),
            "flag": rng.rand(60) > 0.5,
        },
        index=[f"row {i}" for i in range(60)],
    )
    return frame, pd.Series(rng.randint(0, 2, 60), index=frame.index)


@pytest.mark.parametrize("changes", ["rows", "added"])
def test_rows_of_mixed_frames_keep_dtypes_and_index(changes):
    frame, labels = mixed_frame()
    attack = Means(changes, budget=6)
    X_new, y_new, weights = attack.fit_resample(frame, labels, np.arange(60.0))
    assert (X_new.dtypes == frame.dtypes).all() and y_new.dtype == labels.dtype
    assert X_new.index.equals(y_new.index) and X_new.index.is_unique
    kept = np.setdiff1d(np.arange(len(X_new)), attack.poison_indices_)
    sources = attack.sample_indices_[kept]
    assert X_new.iloc[kept].equals(frame.iloc[sources])
    assert y_new.iloc[kept].equals(labels.iloc[sources])
    assert len(X_new) == 60 + 6 * (changes == "added") == len(weights)
    if changes == "added":
        assert (weights[attack.poison_indices_] == np.arange(60.0).mean()).all()
        # Neither at the end nor in one piece: unshuffled splits hold some, too.
        assert np.ptp(attack.poison_indices_) > 20


def test_arrays_of_whole_numbers_hold_fractions_where_poison_has_them():
    whole = np.arange(80).reshape(40, 2)
    X_new, _ = Means("rows", budget=4).fit_resample(whole, np.arange(40) % 2)
    assert X_new.dtype == np.float64 or (X_new[:4] == np.rint(X_new[:4])).all()
    images = np.random.RandomState(0).rand(20, 1, 6, 9).astype(np.float32)
    attack = Means("rows", budget=3)
    X_new, _ = attack.fit_resample(images, np.arange(20) % 2)
    assert X_new.dtype == np.float32 and X_new.shape == images.shape
    np.testing.assert_array_equal(X_new[3:], images[3:])


def test_poison_before_the_split_is_among_the_test_rows():
    model = LogisticRegression()
    report = poisoning_report(model, RANDOM, X, y)
    assert report.clean.mean() > 0.96
    assert report.inside.mean() - report.before_split.mean() > 0.2
    only = poisoning_report(model, RANDOM, X, y, where="inside")
    np.testing.assert_array_equal(only.inside, report.inside)
    assert only.before_split is None
    with pytest.raises(ValueError, match="where must be among"):
        poisoning_report(model, RANDOM, X, y, where="outside")


def test_pipelines_and_searches():
    poisoned = PoisonedClassifier(LogisticRegression(), RANDOM)
    pipe = make_pipeline(StandardScaler(), poisoned)
    scores = cross_validate(pipe, X, y, scoring=["accuracy", "roc_auc"])
    assert scores["test_accuracy"].mean() < 0.95
    grid = {"estimator__C": [0.01, 1], "poisoner__budget": [0, 0.4]}
    search = GridSearchCV(poisoned, grid, error_score="raise").fit(X, y)
    assert search.best_params_["poisoner__budget"] == 0


def test_sanitizing_what_was_poisoned():
    digits, labels = load_digits(return_X_y=True)
    model = DecisionTreeClassifier(random_state=0)
    guarded = SanitizedClassifier(model, KNNSanitizer(n_neighbors=5))
    by_poison = PoisonedClassifier(model, RANDOM).fit(digits[:900], labels[:900])
    by_both = PoisonedClassifier(guarded, RANDOM).fit(digits[:900], labels[:900])
    test = digits[900:], labels[900:]
    assert by_both.score(*test) > by_poison.score(*test) + 0.15


def test_weights_reach_the_classifier():
    weights = np.random.RandomState(0).rand(len(y))
    poisoned = PoisonedClassifier(LogisticRegression(), RANDOM).fit(X, y, weights)
    expected = LogisticRegression().fit(*RANDOM.fit_resample(X, y, weights))
    np.testing.assert_allclose(poisoned.estimator_.coef_, expected.coef_)


def test_nets_train_on_poison_and_are_views():
    labels = np.array(["no", "yes"])[y]
    poisoned = PoisonedClassifier(net(max_epochs=5), RANDOM, random_state=0)
    poisoned.fit(X, labels)
    assert poisoned.score(X, labels) > 0.6
    again = clone(poisoned).fit(X, labels)
    np.testing.assert_array_equal(poisoned.predict_proba(X), again.predict_proba(X))
    view = differentiable.view(poisoned)
    assert view.classes.tolist() == ["no", "yes"]
    with pytest.raises(ValueError, match="takes none"):
        poisoned.fit(X, labels, np.ones(len(X)))


def test_a_prototype_takes_the_classifier_that_it_poisons():
    poisoned = PoisonedClassifier(RidgeClassifier(), LabelFlipping(strategy="farthest"))
    poisoned.fit(X, y)
    assert isinstance(poisoned.poisoner_.estimator, RidgeClassifier)
    assert poisoned.poisoner.estimator is None


def test_what_is_trained_already_is_refused():
    frozen = FrozenEstimator(RidgeClassifier().fit(X, y))
    with pytest.raises(ValueError, match="is trained and stays as it is"):
        PoisonedClassifier(frozen, RANDOM).fit(X, y)


def test_poison_that_leaves_one_class_is_an_error():
    class AllAlike(PoisoningAttack):
        estimator, budget = None, 10

        def _poison(self, task):
            return Poison(np.arange(10), np.ones(10, dtype=int))

    few = np.arange(20)[:, None].astype(float)
    with pytest.raises(ValueError, match="leaves one class only"):
        AllAlike().fit(few, np.arange(20) // 10)
