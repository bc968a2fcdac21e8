import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from nets import CNN, MLP, net
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback
from torch import nn

from sklearn_advsec.defense import AdversarialTrainingClassifier
from sklearn_advsec.evasion import (
    FastGradientMethod,
    IterativeLeastLikely,
    ProjectedGradientDescent,
)
from sklearn_advsec.metrics import robust_accuracy_scorer


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)


PGD = ProjectedGradientDescent(eps=0.1, step_size=0.03, max_iter=7, bounds=(0, 1))
PGD20 = ProjectedGradientDescent(eps=0.1, step_size=0.02, max_iter=20, bounds=(0, 1))


@pytest.mark.long
def test_adversarial_training_buys_robustness(digits):
    X, X_test, y, y_test = digits
    mlp = net(max_epochs=12, module__hidden=100)
    robust = robust_accuracy_scorer(PGD20)
    plain = AdversarialTrainingClassifier(
        mlp, FastGradientMethod(eps=0.0), random_state=0
    ).fit(X, y)
    hard = AdversarialTrainingClassifier(mlp, PGD, random_state=0).fit(X, y)
    assert hard.score(X_test, y_test) >= 0.94
    assert robust(hard, X_test, y_test) >= 0.70
    assert robust(hard, X_test, y_test) >= robust(plain, X_test, y_test) + 0.15


class Recorder(Callback):
    """Keeps the batches that the net really trained on."""

    batches = []

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        Recorder.batches.append([part.clone() for part in batch])


def test_batches_are_attacked_inside_ball_and_box_and_labels_stay(digits):
    X, _, y, _ = digits
    X, y = X[:64], y[:64]
    Recorder.batches = []
    mlp = net(max_epochs=2, batch_size=32, callbacks=[Recorder()])
    mlp.set_params(iterator_train__shuffle=False)
    AdversarialTrainingClassifier(mlp, PGD, adversarial_share=0.5, random_state=0).fit(
        X, y
    )
    assert len(Recorder.batches) == 4
    for i, (rows, labels) in enumerate(Recorder.batches):
        at = slice(32 * (i % 2), 32 * (i % 2) + 32)
        delta = np.abs(rows.numpy() - X[at])
        np.testing.assert_array_equal(labels, y[at])
        assert (delta[16:] == 0).all()
        assert (delta[:16].max(1) > 0.05).all() and delta.max() <= 0.1 + 1e-6
        assert rows.min() >= 0 and rows.max() <= 1


def test_attack_adds_nothing_to_the_parameter_gradients(digits):
    # With eps=0 the attacked batches are the clean ones: training has to be bit for bit
    # the same as without any attack, whatever passes the attack made in between.
    X, _, y, _ = digits
    X, y = X[:200], y[:200]
    cnn = net(CNN, max_epochs=2)
    images = X.reshape(-1, 1, 8, 8)
    none = ProjectedGradientDescent(eps=0.0, max_iter=3)
    attacked = AdversarialTrainingClassifier(cnn, none, random_state=0).fit(images, y)
    torch.manual_seed(0)
    with torch.random.fork_rng():
        seed = np.random.RandomState(0).randint(2**31 - 1)
        torch.manual_seed(seed)
        plain = net(CNN, max_epochs=2).fit(images, y.astype(np.int64))
    for a, b in zip(
        attacked.estimator_.module_.parameters(), plain.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_user_net_callbacks_and_global_state_are_left_alone(digits):
    X, _, y, _ = digits
    callbacks = [("recorder", Recorder())]
    mlp = net(max_epochs=1, callbacks=callbacks)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    AdversarialTrainingClassifier(mlp, PGD, random_state=0).fit(X[:64], y[:64])
    assert torch.equal(torch.get_rng_state(), state)
    assert mlp.callbacks is callbacks and len(callbacks) == 1
    assert not mlp.initialized_


@pytest.mark.slow
def test_grid_search_over_own_and_nested_parameters(digits):
    X, _, y, _ = digits
    X, y = X[:150], np.array(list("abcdefghij"))[y[:150]]
    grid = {
        "eps": [0.0, 0.1],
        "estimator__module__hidden": [8, 16],
        "estimator__lr": [0.01],
        "attack__max_iter": [2],
    }
    results = [
        GridSearchCV(
            AdversarialTrainingClassifier(net(max_epochs=1), PGD, random_state=0),
            grid,
            scoring={"clean": "accuracy", "robust": robust_accuracy_scorer(PGD20)},
            refit="robust",
            cv=2,
            n_jobs=n_jobs,
        ).fit(X, y)
        for n_jobs in (1, 2)
    ]
    for name in ("clean", "robust"):
        one, two = (r.cv_results_[f"mean_test_{name}"] for r in results)
        np.testing.assert_array_equal(one, two)
    assert set(results[0].predict(X)) <= set("abcdefghij")


def test_sizes_are_set_labels_are_any_and_it_pickles(digits):
    X, _, y, _ = digits
    odd = np.where(y[:200] < 5, 7, 1)
    model = AdversarialTrainingClassifier(net(max_epochs=20), PGD, random_state=0)
    model.fit(X[:200].astype(np.float64), odd.astype(np.int32))
    assert model.classes_.tolist() == [1, 7]
    assert model.predict_proba(X).shape == (len(X), 2)
    assert model.score(X[:200], odd) > 0.8
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert len(pickle.dumps(model)) < X[:200].nbytes  # no training data inside


def test_a_least_likely_class_attack_trains_too(digits):
    X, X_test, y, y_test = digits
    model = AdversarialTrainingClassifier(
        net(max_epochs=5), IterativeLeastLikely(eps=0.1, bounds=(0, 1)), random_state=0
    ).fit(X, y)
    assert model.score(X_test, y_test) > 0.85


def test_binary_net_with_one_logit():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    binary = NeuralNetBinaryClassifier(
        MLP,
        module__n_classes=1,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=10,
        train_split=None,
        verbose=0,
    )
    names = np.array(["no", "yes"])[y]
    model = AdversarialTrainingClassifier(binary, PGD, eps=0.02, random_state=0)
    model.fit(X, names)
    assert model.score(X, names) > 0.9
    attack = robust_accuracy_scorer(FastGradientMethod(eps=0.02))
    assert attack(model, X, names) > 0.8


def test_rounds_for_an_estimator_without_training_loop():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    attack = ProjectedGradientDescent(eps=0.1, max_iter=10, bounds=(0, 1))
    robust = robust_accuracy_scorer(attack)
    plain = LogisticRegression().fit(X, y)
    hard = AdversarialTrainingClassifier(LogisticRegression(), attack, random_state=0)
    hard.fit(X, y)
    assert robust(hard, X, y) > robust(plain, X, y) + 0.05
    assert hard.score(X, y) > 0.93


def test_rounds_on_a_dataframe_with_categories():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame({"a": rng.randn(200), "b": rng.choice(["u", "v"], 200)})
    y = np.where(frame["a"] + (frame["b"] == "u") > 0.5, "p", "q")
    columns = make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["b"]))
    model = AdversarialTrainingClassifier(
        make_pipeline(columns, LogisticRegression()),
        FastGradientMethod(eps=0.1),
        n_rounds=1,
        random_state=0,
    ).fit(frame, y)
    assert model.score(frame, y) > 0.9


def test_bad_input(digits):
    X, _, y, _ = digits
    trained = net(module=MLP(64, 10))
    with pytest.raises(TypeError, match="instance"):
        AdversarialTrainingClassifier(trained, PGD).fit(X, y)
    with pytest.raises(ValueError, match="eps"):
        AdversarialTrainingClassifier(net(), PGD, eps=-1.0).fit(X, y)
    with pytest.raises(ValueError, match="one class"):
        AdversarialTrainingClassifier(net(), PGD).fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="bounds exclude"):
        AdversarialTrainingClassifier(net(), PGD).fit(2 * X, y)
    with pytest.raises(ValueError, match="NaN"):
        AdversarialTrainingClassifier(net(), PGD).fit(np.nan * X, y)
    label_only = AdversarialTrainingClassifier(net(), PGD)
    label_only.attack = type(
        "LabelAttack", (ProjectedGradientDescent,), {"knowledge": "label"}
    )()
    with pytest.raises(TypeError, match="gradient attack"):
        label_only.fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TypeError, match="'estimator'|estimator"):
            AdversarialTrainingClassifier(nn.Linear(2, 2)).fit(X, y)
