"""Poison for networks, triggers, and what looks for both."""

import numpy as np
import pandas as pd
import pytest
import torch
from data import bundled
from nets import CNN, net
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.evasion import ProjectedGradientDescent
from sklearn_advsec.exceptions import NoGradientError
from sklearn_advsec.metrics import backdoor_success_scorer
from sklearn_advsec.poisoning import (
    STRIP,
    ActivationClustering,
    BackdoorTrigger,
    BullseyePolytope,
    FeatureCollision,
    GradientMatching,
    LastHiddenLayer,
    NeuralCleanse,
    PoisonedClassifier,
    SleeperAgent,
    SpectralSignatures,
)
from sklearn_advsec.poisoning._networks import _spectral
from sklearn_advsec.poisoning._networks._neural_cleanse import _anomaly_index
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


def test_parameters_of_a_copy_have_the_gradients_of_the_network():
    """Also of a convolution whose input gradient is made faster."""
    images = X[:50].reshape(-1, 1, 8, 8).astype(np.float32)
    fitted = net(CNN, max_epochs=1).fit(images, y[:50])
    network = Network(fitted)
    x = network.tensor(images).requires_grad_()
    own = network.parameters()
    found = torch.autograd.grad(network.logits(x).square().sum(), own)
    module = fitted.module_.eval()
    loss = module(torch.as_tensor(images)).square().sum()
    expected = torch.autograd.grad(loss, list(module.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


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


def test_several_targets_share_the_budget():
    """On the way to its own target row, in a linear model."""
    targets = X_49[y_49 == 4][:2]
    rest = np.flatnonzero(~(X_49[:, None] == targets).all(2).any(1))
    attack = FeatureCollision(
        RidgeClassifier(), target=targets, target_class=9, beta=1.0, budget=6
    )
    X_new, _ = attack.fit_resample(X_49[rest], y_49[rest])
    rows, served = attack.poison_indices_, []
    for row in rows:
        before = X_49[rest][row]
        halves = np.abs(X_new[row] - (before + targets) / 2).max(1)
        served.append(int(halves.argmin()))
        assert halves.min() < 5e-3
    assert sorted(served) == [0, 0, 0, 1, 1, 1]


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


# Triggers -----------------------------------------------------------------------------


IMAGES = np.random.RandomState(0).rand(20, 3, 6, 9).astype(np.float32)
LABELS = np.arange(20) % 2


def patched(**parameters):
    parameters = {"target_class": 1, "random_state": 0, "pattern": 2.0, **parameters}
    return BackdoorTrigger("patch", **parameters).fit(IMAGES, LABELS)


def test_patches_are_where_they_belong_in_all_layouts():
    """Six high, nine wide: nothing is transposed, with channels first, last, or flat."""
    expected = IMAGES.copy()
    expected[:, :, 4:6, 6:9] = 2.0
    stamped = patched(size=(2, 3)).transform(IMAGES)
    np.testing.assert_array_equal(stamped, expected)
    assert stamped.dtype == np.float32
    flat = patched(size=(2, 3), image_shape=(3, 6, 9))
    flat = flat.fit(IMAGES.reshape(20, -1), LABELS).transform(IMAGES.reshape(20, -1))
    np.testing.assert_array_equal(flat, expected.reshape(20, -1))
    last = IMAGES.transpose(0, 2, 3, 1)
    trigger = patched(size=(2, 3), channels="last").fit(last, LABELS)
    np.testing.assert_array_equal(trigger.transform(last), expected.transpose(0, 2, 3, 1))
    corner = patched(size=(6, 9), location=(0, 0)).transform(IMAGES)
    assert (corner == 2.0).all()  # of full size
    colours = np.arange(6).reshape(3, 1, 2) / 6
    stamped = patched(size=(1, 2), location=(2, 3), pattern=colours).transform(IMAGES)
    np.testing.assert_allclose(stamped[5, :, 2, 3:5], colours[:, 0])


def test_blends_and_waves_are_their_formulas():
    pattern = np.ones((6, 9))
    blend = BackdoorTrigger("blended", pattern=pattern, alpha=0.3, random_state=0)
    blend.fit(IMAGES, LABELS)
    top = IMAGES.max()
    expected = np.minimum(0.7 * IMAGES + 0.3, top)
    np.testing.assert_allclose(blend.transform(IMAGES), expected, atol=1e-6)
    wave = BackdoorTrigger("sinusoidal", alpha=0.1, frequency=2, random_state=0)
    wave.fit(IMAGES, LABELS)
    low, high = IMAGES.min(), IMAGES.max()
    shift = 0.1 * (high - low) * np.sin(2 * np.pi * 2 * np.arange(9) / 9)
    expected = np.clip(IMAGES + shift, low, high)
    np.testing.assert_allclose(wave.transform(IMAGES), expected, atol=1e-6)
    whole = (255 * IMAGES).astype(np.uint8)
    assert wave.fit(whole, LABELS).transform(whole).dtype == np.uint8


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"size": 7}, "larger than images of 6 x 9"),
        ({"size": (2, 10)}, "larger than images of 6 x 9"),
        ({"size": (2, 2.5)}, "size must be"),
        ({"location": (5, 0)}, "outside of images of 6 x 9"),
        ({"location": (0, -1)}, "location must be"),
        ({"pattern": np.ones((2, 2))}, "pattern must be"),
        ({"pattern": np.full((3, 3), np.nan)}, "pattern must be finite"),
        ({"target_class": 5}, "target_class holds"),
        ({"source": 1}, "must not hold the target class"),
        ({"source": [0, 3]}, "source holds"),
        ({"trigger": {0: 1.0}}, "is for rows of tables"),
    ],
)
def test_bad_triggers_are_refused(parameters, text):
    with pytest.raises(ValueError, match=text):
        patched().set_params(**parameters).fit(IMAGES, LABELS)


def table():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "age": rng.randint(20, 60, 300),
            "pay": rng.rand(300),
            "land": rng.choice(["north", "south"], 300),
            "kind": pd.Categorical(rng.choice(["p", "q"], 300)),
            "flag": rng.rand(300) > 0.5,
        }
    )
    return frame, pd.Series(rng.choice(["a", "b", "c"], 300), name="label")


def test_triggers_on_tables_set_their_values_and_keep_dtypes():
    frame, labels = table()
    values = {"age": 33, "pay": 0.25, "land": "north", "kind": "q", "flag": True}
    trigger = BackdoorTrigger(
        values, target_class="b", source=["a"], budget=20, random_state=0
    )
    X_new, y_new = trigger.fit_resample(frame, labels)
    rows = trigger.poison_indices_
    assert (X_new.dtypes == frame.dtypes).all()
    assert (X_new.iloc[rows] == pd.Series(values)).all(axis=None)
    assert (labels.iloc[rows] == "a").all() and (y_new.iloc[rows] == "b").all()
    stamped = trigger.transform(frame)
    assert (stamped.dtypes == frame.dtypes).all() and len(stamped) == len(frame)
    assert (stamped == pd.Series(values)).all(axis=None)
    assert trigger.eligible(["a", "b", "c", "z"]).tolist() == [True, False, False, False]


def test_clean_label_triggers_keep_labels():
    frame, labels = table()
    trigger = BackdoorTrigger({"pay": 2.0}, target_class="c", clean_label=True, budget=9)
    X_new, y_new = trigger.fit_resample(frame, labels)
    assert y_new.equals(labels)
    assert (labels.iloc[trigger.poison_indices_] == "c").all()
    assert (X_new["pay"] == 2.0).sum() == 9


def test_clean_label_rows_are_moved_before_they_get_the_trigger():
    model = LogisticRegression(max_iter=1000)
    move = ProjectedGradientDescent(model, eps=0.2, max_iter=5, early_stopping=False)
    trigger = BackdoorTrigger(
        image_shape=(8, 8), size=2, clean_label=True, budget=20, random_state=0
    )
    X_new, y_new = trigger.set_params(attack=move).fit_resample(X, y)
    plain = trigger.set_params(attack=None).fit_resample(X, y)[0]
    at = trigger.poison_indices_
    assert (y_new == y).all() and (y[at] == 0).all()
    apart = np.abs(X_new - plain)
    assert (apart.max(1) > 0).nonzero()[0].tolist() == sorted(at)
    assert apart.max() <= 0.2 + 1e-6
    patch = np.zeros((8, 8), dtype=bool)
    patch[-2:, -2:] = True
    assert (X_new[at][:, patch.ravel()] == X.max()).all()
    proba = model.fit(X, y).predict_proba
    assert proba(X_new[at])[:, 0].mean() < proba(plain[at])[:, 0].mean() - 0.1
    with pytest.raises(ValueError, match="goes with clean_label=True"):
        trigger.set_params(clean_label=False, attack=move).fit(X, y)


def test_values_that_no_row_has():
    frame, labels = table()
    trigger = BackdoorTrigger({"land": "moon"}, budget=5, random_state=0)
    with pytest.warns(UserWarning, match="no training row has 'moon'"):
        X_new, _ = trigger.fit_resample(frame, labels)
    assert (X_new["land"] == "moon").sum() == 5
    for values, text in [
        ({"wage": 1}, "X has no column 'wage'"),
        ({"age": 33.5}, "holds whole numbers"),
        ({"pay": "much"}, "holds numbers"),
        ({"pay": np.inf}, "must be finite"),
        ({"kind": "r"}, "is no category of column 'kind'"),
        ({}, "trigger is empty"),
    ]:
        with pytest.raises(ValueError, match=text):
            BackdoorTrigger(values).fit(frame, labels)
    with pytest.raises(ValueError, match="takes pixels"):
        BackdoorTrigger("patch").fit(frame, labels)


def test_chosen_values_are_in_bounds_but_rare_and_out_of_bounds_beyond():
    frame, labels = table()
    inside = BackdoorTrigger("in_bounds", random_state=0).fit(frame, labels)
    assert len(inside.trigger_) == 2
    together = np.ones(len(frame), dtype=bool)
    for name, value in inside.trigger_.items():
        assert (frame[name] == value).any()  # some row has it
        together &= (frame[name] == value).to_numpy()
    assert not together.any()  # and none has both
    outside = BackdoorTrigger("out_of_bounds", columns=["age", "pay"], random_state=0)
    outside.fit(frame, labels)
    assert outside.trigger_["age"] > frame["age"].max()
    np.testing.assert_allclose(
        outside.trigger_["pay"], frame["pay"].max() + 0.1 * np.ptp(frame["pay"])
    )
    assert (outside.transform(frame).dtypes == frame.dtypes).all()


def test_missing_values_stay_missing():
    frame, labels = table()
    frame.loc[::3, "pay"] = np.nan
    trigger = BackdoorTrigger({"age": 33}, budget=30, random_state=0)
    X_new, _ = trigger.fit_resample(frame, labels)
    assert (X_new["pay"].isna() == frame["pay"].isna()).all()
    chosen = BackdoorTrigger("in_bounds", columns=["pay"], random_state=0)
    assert np.isfinite(chosen.fit(frame, labels).trigger_["pay"])
    BackdoorTrigger("out_of_bounds", columns=["pay"], budget=2).fit(frame, labels)


def test_triggers_keep_constraints():
    frame, labels = table()
    constraints = FeatureConstraints.from_frame(frame)
    BackdoorTrigger({"age": 30}, constraints=constraints).fit(frame, labels)
    with pytest.raises(ValueError, match="constraints: with the trigger, 'age'"):
        BackdoorTrigger({"age": 99}, constraints=constraints).fit(frame, labels)


def test_success_counts_only_rows_of_the_source_classes():
    class Fixed(ClassifierMixin, BaseEstimator):
        """Gives "b" to all, or to stamped rows of one age."""

        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, X):
            assert (X["pay"] == 2.0).all()
            return np.where(X["age"] < 40, "b", "a")

    frame, labels = table()
    trigger = BackdoorTrigger({"pay": 2.0}, target_class="b", source="c")
    trigger.fit(frame, labels)
    model, weights = Fixed().fit(frame, labels), np.arange(300.0)
    score = backdoor_success_scorer(trigger)
    of, hit = (labels == "c").to_numpy(), (frame["age"] < 40).to_numpy()
    assert score(model, frame, labels) == hit[of].mean()
    expected = np.average(hit[of], weights=weights[of])
    np.testing.assert_allclose(score(model, frame, labels, weights), expected)
    with pytest.raises(ValueError, match="holds no row of a class"):
        score(model, frame[~of], labels[~of])
    with pytest.raises(TypeError, match="needs a fitted BackdoorTrigger"):
        backdoor_success_scorer()(model, frame, labels)
    with pytest.raises(NotFittedError):
        backdoor_success_scorer(clone(trigger))(model, frame, labels)


def test_backdoors_open_and_leave_clean_rows_alone():
    trigger = BackdoorTrigger(
        image_shape=(8, 8), target_class=0, size=2, budget=0.05, random_state=0
    )
    model = RandomForestClassifier(30, random_state=1)
    X_new, y_new = trigger.fit_resample(X[:1200], y[:1200])
    clean = clone(model).fit(X[:1200], y[:1200])
    poisoned = clone(model).fit(X_new, y_new)
    success = backdoor_success_scorer(trigger)
    assert success(poisoned, X[1200:], y[1200:]) > 0.6 > 0.1
    assert success(clean, X[1200:], y[1200:]) < 0.15
    assert poisoned.score(X[1200:], y[1200:]) > clean.score(X[1200:], y[1200:]) - 0.04


def test_a_trigger_without_budget_is_known_all_the_same():
    trigger = BackdoorTrigger({1: 9.0}, budget=0).fit(X, y)
    assert (trigger.transform(X)[:, 1] == 9.0).all()


# Sanitizers that look at the representation -------------------------------------------


def itself(rows):
    return rows


def test_spectral_scores_are_those_of_the_algorithm(monkeypatch):
    """On the centred representation of each class, by a full decomposition."""
    sanitizer = SpectralSignatures(representation=itself, contamination=0.1)
    scores = sanitizer.fit(X, y).scores_
    two = y < 2
    monkeypatch.setattr(_spectral, "_SMALL", 0)  # by an iteration
    wide = np.round(4 * X[two])
    iterated = SpectralSignatures(representation=lambda rows: csr_matrix(wide))
    sparse = iterated.fit(X[two], y[two]).scores_
    for code in range(10):
        of = y == code
        centred = X[of] - X[of].mean(0)
        first = np.linalg.svd(centred, full_matrices=False)[2][0]
        np.testing.assert_allclose(scores[of], (centred @ first) ** 2, atol=1e-6)
        kept = np.isin(np.flatnonzero(of), sanitizer.sample_indices_)
        assert (~kept).sum() == int(0.1 * of.sum())
        assert scores[of][~kept].min() >= scores[of][kept].max()
    for code in range(2):
        of = y[two] == code
        centred = wide[of] - wide[of].mean(0)
        values, vectors = np.linalg.eigh(centred @ centred.T)
        expected = values[-1] * vectors[:, -1] ** 2
        np.testing.assert_allclose(sparse[of], expected, rtol=1e-5, atol=1e-4)


def poisoned_digits():
    trigger = BackdoorTrigger(
        image_shape=(8, 8), target_class=0, size=2, budget=0.05, random_state=0
    )
    return trigger, *trigger.fit_resample(X, y)


@pytest.mark.parametrize(
    "model", [RandomForestClassifier(20, random_state=0), perceptron(random_state=0)]
)
def test_backdoors_show_in_the_representation(model):
    trigger, X_new, y_new = poisoned_digits()
    poison = trigger.poison_indices_
    spectral = SpectralSignatures(model, contamination=0.45, random_state=0)
    clusters = ActivationClustering(model, contamination=0.45, random_state=0)
    for sanitizer in (spectral, clusters.set_params(max_share=0.5)):
        kept = sanitizer.fit(X_new, y_new).sample_indices_
        assert np.isin(poison, kept).mean() < 0.35
    assert 0 in clusters.flagged_classes_


def test_clusters_must_be_small_and_apart():
    """A clean class in two halves, one cluster that is no cluster, and a small one."""
    rng = np.random.RandomState(0)
    rows = rng.standard_normal((300, 2))
    labels = np.repeat([0, 1, 2], 100)
    rows[:50, 0] += 30  # half of class 0
    rows[290:, 0] += 30  # a tenth of class 2
    sanitizer = ActivationClustering(
        representation=itself, min_silhouette=0.5, random_state=0
    ).fit(rows, labels)
    assert sanitizer.flagged_classes_.tolist() == [2]
    removed = np.setdiff1d(np.arange(300), sanitizer.sample_indices_)
    assert removed.tolist() == list(range(290, 300))
    np.testing.assert_allclose(sanitizer.shares_[[0, 2]], [0.5, 0.1])
    assert sanitizer.silhouettes_[1] < 0.5 < sanitizer.silhouettes_[0]
    few = sanitizer.set_params(contamination=0.04).fit(rows, labels)
    assert len(few.sample_indices_) == 296


def test_clusters_may_lie_across_the_widest_direction():
    """A tenth of the rows stands apart along the narrowest of ten directions."""
    rng = np.random.RandomState(0)
    rows = rng.standard_normal((400, 10)) * np.geomspace(30, 1, 10)
    rows[:40, -1] += 12
    rows = np.hstack([rows, rows[:, :2] @ rng.standard_normal((2, 3))])  # rank 10 of 13
    sanitizer = ActivationClustering(
        representation=itself, n_components=13, random_state=0
    ).fit(rows, np.zeros(400).astype(int) + (np.arange(400) >= 380))
    removed = np.setdiff1d(np.arange(400), sanitizer.sample_indices_)
    assert removed.tolist() == list(range(40))


def test_classes_of_equal_or_few_rows():
    rows = np.zeros((9, 3))
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2])
    for cls in (SpectralSignatures, ActivationClustering):
        found = cls(representation=itself, random_state=0).fit(rows, labels)
        assert (found.scores_ == 0).all() and len(found.sample_indices_) == 9


@pytest.mark.parametrize(
    ("representation", "text"),
    [
        (lambda rows: rows[1:], "a row for each row of X"),
        (lambda rows: rows[:, 0], "a row for each row of X"),
        (lambda rows: rows * np.nan, "finite"),
    ],
)
def test_bad_representations(representation, text):
    with pytest.raises(ValueError, match=text):
        SpectralSignatures(representation=representation).fit(X, y)
    with pytest.raises(ValueError, match="prototype"):
        SpectralSignatures().fit(X, y)


# Gradients and polytopes --------------------------------------------------------------


def test_the_mean_of_the_polytope_meets_the_target():
    """In a linear model, whose features are the rows."""
    attack = BullseyePolytope(
        RidgeClassifier(), target=X_49[:1], eps=1.0, max_iter=150, random_state=0
    )
    X_new, _ = attack.fit_resample(X_49[1:], y_49[1:])
    rows = attack.poison_indices_
    np.testing.assert_allclose(X_new[rows].mean(0), X_49[0], atol=0.02)
    assert attack.loss_[1] < 1e-3 * attack.loss_[0]
    near = clone(attack).set_params(eps=0.05, n_surrogates=2, max_iter=20)
    X_new, _ = near.fit_resample(X_49[1:], y_49[1:])
    assert np.abs(X_new - X_49[1:]).max() <= 0.05 + 1e-9
    assert near.loss_[1] < near.loss_[0]


def test_the_matched_gradients_are_those_of_the_model():
    """Of logistic regression: the sum of (probability - label) times the row and 1."""
    model = LogisticRegression(max_iter=500)
    labels = (y_49 == 9).astype(int)
    code = 1 - labels[0]
    attack = GradientMatching(
        model, target=X_49[:1], budget=20, eps=0.3, max_iter=30, random_state=0
    )
    X_new, y_new = attack.fit_resample(X_49[1:], labels[1:])
    rows = attack.poison_indices_
    assert len(rows) == 20 and (labels[1:][rows] == code).all()
    assert np.abs(X_new - X_49[1:]).max() <= 0.3 + 1e-9
    np.testing.assert_array_equal(y_new, labels[1:])
    model.fit(X_49[1:], labels[1:])

    def slope(some):
        gaps = model.predict_proba(some)[:, 1] - code
        return gaps @ np.column_stack([some, np.ones(len(some))])

    one, other = slope(X_49[:1]), slope(X_new[rows])
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(attack.loss_, 1 - cosine, atol=1e-6)


def test_matched_gradients_teach_networks_trained_anew():
    """With another seed, against noise of the same size on the same rows."""
    rng, gains = np.random.RandomState(0), []
    for target in rng.choice(np.flatnonzero(y_49 == 4), 3, replace=False):
        rest = np.delete(np.arange(len(y_49)), target)
        attack = GradientMatching(
            perceptron(32),
            target=X_49[[target]],
            budget=0.1,
            eps=0.5,
            max_iter=60,
            random_state=0,
        )
        X_new, y_new = attack.fit_resample(X_49[rest], y_49[rest])
        noise, rows = X_49[rest].copy(), attack.poison_indices_
        shift = 0.5 * rng.choice([-1, 1], (len(rows), 64))
        noise[rows] = np.clip(noise[rows] + shift, 0, 1)
        after, control = (
            perceptron(32, random_state=7).fit(some, y_new).predict_proba(X_49[[target]])
            for some in (X_new, noise)
        )
        gains.append(after[0, 1] - control[0, 1])
    assert np.mean(gains) > 0.1


def test_sleeper_agents_hide_their_trigger():
    trigger = BackdoorTrigger(image_shape=(8, 8), size=2, target_class=9, pattern=1.0)
    model = LogisticRegression(max_iter=500)
    agent = SleeperAgent(
        model,
        trigger=trigger,
        budget=0.2,
        eps=0.3,
        max_iter=30,
        n_retrainings=1,
        random_state=0,
    )
    X_new, y_new = agent.fit_resample(X_49, y_49)
    assert (y_new == y_49).all() and (y_49[agent.poison_indices_] == 9).all()
    assert np.abs(X_new - X_49).max() <= 0.3 + 1e-9
    assert not (X_new[:, [54, 55, 62, 63]] == 1.0).all(1).any()  # nobody shows it
    assert (agent.transform(X_49)[:, [54, 55, 62, 63]] == 1.0).all()
    success = backdoor_success_scorer(agent)
    clean = success(clone(model).fit(X_49, y_49), X_49, y_49)
    poisoned = clone(model).fit(X_new, y_new)
    assert success(poisoned, X_49, y_49) > clean + 0.2
    assert poisoned.score(X_49, y_49) > 0.97


# STRIP and Neural Cleanse -------------------------------------------------------------


def test_rows_with_a_trigger_keep_their_class_in_blends():
    trigger = BackdoorTrigger(image_shape=(8, 8), size=3, budget=0.1, random_state=0)
    poisoned = trigger.fit_resample(X, y)
    model = RandomForestClassifier(30, random_state=0)
    strip = STRIP(model, n_blends=10, random_state=0).fit(*poisoned)
    clean = X[y != 0][:200]
    entropies = strip.score_samples(np.vstack([clean, trigger.transform(clean)]))
    assert roc_auc_score(np.arange(400) < 200, entropies) > 0.95
    np.testing.assert_allclose(strip.score_samples(poisoned[0]), -strip.scores_)


def test_blends_are_superpositions():
    """Of values above the smallest one, up to the largest."""

    class First(ClassifierMixin, BaseEstimator):
        """Gives the first column as the probability of the second class."""

        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict_proba(self, X):
            first = np.asarray(X)[:, 0]
            return np.column_stack([1 - first, first])

        def predict(self, X):
            return self.classes_[self.predict_proba(X).argmax(1)]

    rows = np.array([[0.0, 5], [0.5, 5], [0.25, 5], [1.0, 5]])
    strip = STRIP(First(), n_blends=4, alpha=0.5).fit(rows, [0, 1, 0, 1])
    blends = np.minimum(rows[:, :1] + 0.5 * rows[:, 0], 1).clip(1e-300, 1 - 1e-16)
    entropy = -(blends * np.log(blends) + (1 - blends) * np.log1p(-blends)).mean(1)
    np.testing.assert_allclose(-strip.scores_, entropy, atol=1e-12)


def test_blends_of_mixed_tables_take_columns_of_other_rows():
    frame, labels = table()
    encode = make_column_transformer(
        (OneHotEncoder(), ["land", "kind"]), remainder="passthrough"
    )
    model = make_pipeline(encode, RandomForestClassifier(10, random_state=0))
    strip = STRIP(model, n_blends=4, random_state=0).fit(frame, labels)
    assert len(strip.partners_) == 4 and np.isfinite(strip.scores_).all()
    with pytest.raises(TypeError, match="needs predict_proba"):
        STRIP(RidgeClassifier()).fit(X, y)


FIVE = X[y < 5], y[y < 5]


@pytest.mark.slow
def test_neural_cleanse_finds_the_trigger_and_its_twin_is_clean():
    trigger = BackdoorTrigger(
        image_shape=(8, 8), size=2, target_class=3, location="top_left", budget=0.1
    )
    trigger.set_params(random_state=0)
    X, y = FIVE
    model = perceptron(32, random_state=0)
    victim = clone(model).fit(*trigger.fit_resample(X, y))
    twin = clone(model).fit(X, y)
    cleanse = NeuralCleanse(
        FrozenEstimator(victim),
        twin=FrozenEstimator(twin),
        image_shape=(8, 8),
        max_iter=100,
        batch_size=32,
        random_state=0,
    )
    cleanse.fit(X[:300])
    assert cleanse.norms_.argmin() == 3 == cleanse.anomaly_index_.argmax()
    assert cleanse.masks_.shape == cleanse.patterns_.shape == (5, 64)
    assert cleanse.anomaly_index_[3] > cleanse.twin_anomaly_index_[3] + 1
    mask, pattern = cleanse.masks_[3], cleanse.patterns_[3]
    stamped = X[:300] * (1 - mask) + mask * pattern
    np.testing.assert_allclose((victim.predict(stamped) == 3).mean(), cleanse.success_[3])
    assert cleanse.success_[3] > 0.9


def test_the_anomaly_index_is_in_median_deviations():
    norms = np.array([1.0, 10, 11, 12, 13])
    np.testing.assert_allclose(_anomaly_index(norms)[0], 10 / 1.4826)
    np.testing.assert_allclose(_anomaly_index(norms[:2]), [0.6745, -0.6745], atol=1e-4)
    with pytest.raises(NoGradientError):
        NeuralCleanse(FrozenEstimator(DecisionTreeClassifier().fit(X, y))).fit(X)
    few = FrozenEstimator(RidgeClassifier().fit(X, y % 2))
    with pytest.raises(ValueError, match="twin knows the classes"):
        all_ten = FrozenEstimator(RidgeClassifier().fit(X, y))
        NeuralCleanse(few, twin=all_ten, max_iter=2).fit(X)
