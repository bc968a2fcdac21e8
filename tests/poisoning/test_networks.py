"""Poison for networks, triggers, and what looks for both."""

import numpy as np
import pytest
from data import bundled
from nets import net
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.exceptions import NoGradientError
from sklearn_advsec.poisoning import (
    FeatureCollision,
    LastHiddenLayer,
    PoisonedClassifier,
)
from sklearn_advsec.poisoning._networks._representation import Network
from sklearn_advsec.threat import FeatureConstraints

X, y = bundled("digits")
X /= 16
FEW = np.isin(y, (4, 9))
X_49, y_49 = X[FEW], y[FEW]


def perceptron(width=16, **parameters):
    """Make a perceptron that takes 40 epochs, and says nothing of convergence."""
    parameters = {"max_iter": 60, "tol": 1e6, "n_iter_no_change": 39, **parameters}
    return MLPClassifier((width,), **parameters)


# Representations ----------------------------------------------------------------------


def test_the_representation_is_what_the_last_layer_multiplies():
    mlp = perceptron(random_state=0).fit(X, y)
    features = LastHiddenLayer(FrozenEstimator(mlp)).fit(X).transform(X)
    np.testing.assert_allclose(
        features, np.maximum(X @ mlp.coefs_[0] + mlp.intercepts_[0], 0), atol=1e-9
    )
    module = net(module__n_features=64, module__n_classes=10, max_epochs=1)
    module.fit(X.astype(np.float32), y)
    hidden = LastHiddenLayer(FrozenEstimator(module)).fit(X.astype(np.float32))
    last = module.module_.layers[-1]
    logits = last(differentiable.view(hidden).transform(Network(module).tensor(X[:5])))
    expected = module.predict_proba(X[:5].astype(np.float32))
    np.testing.assert_allclose(logits.softmax(1).detach(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=500),
        RidgeClassifier(),
        make_pipeline(StandardScaler(), perceptron(random_state=0)),
    ],
)
def test_networks_answer_as_their_estimators(model):
    for labels in (y == 3, y):
        fitted = clone(model).fit(X, labels)
        network = Network(fitted)
        logits = network.logits(network.tensor(X)).detach().numpy()
        expected = fitted.predict(X)
        assert (network.classes[logits.argmax(1)] == expected).all()


def test_trees_have_no_last_layer():
    with pytest.raises(NoGradientError):
        Network(DecisionTreeClassifier().fit(X, y))


# Feature collision --------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "share"), [(0.25, 1.0), (1.0, 0.5), (2.0, 0.25)])
def test_collision_in_a_linear_model_is_in_closed_form(beta, share):
    """Its features are the rows: the poison lies on the line, 1 / (2 beta) of the way."""
    target = X_49[:1]
    attack = FeatureCollision(
        RidgeClassifier(), target=target, beta=beta, max_iter=500, random_state=0
    )
    X_new, _ = attack.fit_resample(X_49[1:], y_49[1:])
    rows = attack.poison_indices_
    before = X_49[1:][rows]
    np.testing.assert_allclose(X_new[rows], before + share * (target - before), atol=2e-3)
    shares = attack.row_distance_[:, 1] / attack.row_distance_[:, 0]
    np.testing.assert_allclose(shares, share, atol=2e-3)


def frozen_features():
    """Features of a network that knows other digits, and a linear layer on 4 and 9."""
    mlp = perceptron(64, random_state=0).fit(X[~FEW], y[~FEW])
    head = LogisticRegression(C=1000, max_iter=5000)
    return make_pipeline(LastHiddenLayer(FrozenEstimator(mlp)), StandardScaler(), head)


def test_collisions_turn_named_targets():
    rng = np.random.RandomState(0)
    model, hits = frozen_features(), 0
    for target in rng.choice(np.flatnonzero(y_49 == 4), 5, replace=False):
        rest = np.delete(np.arange(len(y_49)), target)
        attack = FeatureCollision(
            model, target=X_49[[target]], target_class=9, random_state=0
        )
        poisoned = attack.fit_resample(X_49[rest], y_49[rest])
        before, after = attack.feature_distance_.T
        assert (after < before).all()
        assert clone(model).fit(X_49[rest], y_49[rest]).predict(X_49[[target]])[0] == 4
        hits += clone(model).fit(*poisoned).predict(X_49[[target]])[0] == 9
    assert hits >= 2  # 4


def test_poison_inside_of_a_classifier_takes_its_surrogate():
    attack = FeatureCollision(target=X_49[:1], random_state=0)
    poisoned = PoisonedClassifier(RidgeClassifier(alpha=0.1), attack)
    poisoned.fit(X_49[1:], y_49[1:])
    assert poisoned.poisoner_.target_class_ == 4 + 9 - y_49[0]


def test_binary_features_come_back_binary():
    rows = (X_49 > 0.5).astype(float)
    rows[:, 0] = np.arange(len(rows)) % 2
    constraints = FeatureConstraints.from_frame(rows)
    target = rows[:1].copy()
    target[0, :8] = 1 - target[0, :8]
    attack = FeatureCollision(
        RidgeClassifier(), target=target, constraints=constraints, random_state=0
    )
    X_new, _ = attack.fit_resample(rows, y_49)
    assert len(attack.poison_indices_) and np.isin(X_new, (0.0, 1.0)).all()


def test_huge_steps_give_no_nan():
    scaled = 1e6 * X_49
    attack = FeatureCollision(
        make_pipeline(StandardScaler(), perceptron(random_state=0)),
        target=scaled[:1],
        max_iter=20,
        random_state=0,
    )
    X_new, _ = attack.fit_resample(scaled[1:], y_49[1:])
    assert np.isfinite(X_new).all()
    before, after = attack.feature_distance_.T
    assert (after <= before).all()


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"target": None}, "needs target"),
        ({"target": X_49[3:4]}, "is row 3 of X"),
        ({"target": X_49[:1, 1:]}, "rows of shape"),
        ({"target": X_49[:1] * np.nan}, "finite"),
        ({"target_class": 7}, r"target_class holds \['7'\]"),
        ({"bounds": (0, 0.5)}, "bounds exclude the data"),
        ({"watermark": 1.0}, "watermark"),
    ],
)
def test_bad_targets_are_refused(parameters, text):
    attack = FeatureCollision(RidgeClassifier(), target=X[:1])
    with pytest.raises(ValueError, match=text):
        attack.set_params(**parameters).fit(X_49, y_49)


def test_bad_surrogates_are_refused():
    attack = FeatureCollision(DecisionTreeClassifier(), target=X[:1])
    with pytest.raises(NoGradientError, match="no network"):
        attack.fit(X_49, y_49)
