"""Attribute inference, model inversion and DP-SGD."""

import warnings
from math import comb, exp, log

import numpy as np
import pandas as pd
import pytest
import torch
from nets import CNN, MLP, net
from opacus.accountants import RDPAccountant
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.extraction import EquationSolving
from sklearn_advsec.privacy import (
    AttributeInference,
    DPSGDClassifier,
    ModelInversion,
    NumericAttributeInference,
    epsilon_lower_bound,
    make_records,
)

# Attribute inference --------------------------------------------------------------------


def coins(n=1500):
    """Independent attributes, and a label that is their sum above a threshold."""
    X = np.random.default_rng(0).integers(0, 2, size=(n, 5)).astype(float)
    return X, (X.sum(axis=1) > 2).astype(int)


def test_attribute_inference_finds_what_the_label_gives_away():
    X, y = coins()
    target = FrozenEstimator(LogisticRegression().fit(X, y))
    known = np.delete(np.column_stack([X, y]), 2, axis=1)
    half = slice(0, 750), slice(750, None)
    told = AttributeInference(target, attribute=2).fit(known[half[0]], X[half[0], 2])
    # The best that can be done with the other columns and the label, by counting.
    keys = known @ (2.0 ** np.arange(5))
    best = {k: np.round(X[keys == k, 2].mean()) for k in np.unique(keys)}
    reachable = np.mean([best[k] == v for k, v in zip(keys, X[:, 2], strict=True)])
    assert told.score(known[half[1]], X[half[1], 2]) == pytest.approx(reachable, abs=0.04)
    blind = AttributeInference(target, attribute=2, label_column=None)
    blind.fit(known[half[0], :-1], X[half[0], 2])
    assert blind.score(known[half[1], :-1], X[half[1], 2]) < 0.56


def test_the_advantage_is_that_over_imputation():
    """A target that adds nothing to the known columns gives no advantage."""
    X, y = coins()
    known = np.delete(np.column_stack([X, y]), 2, axis=1)
    target = FrozenEstimator(LogisticRegression().fit(X, y))
    attack = AttributeInference(
        target, attribute=2, attack_estimator=DecisionTreeClassifier()
    )
    attack.fit(known[:750], X[:750, 2])
    assert abs(attack.advantage(known[750:], X[750:, 2])) < 0.03
    # A target that has learned a secret of each row by heart does give it away.
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=(400, 3)), rng.integers(0, 2, 400)])
    label = rng.integers(0, 2, 400)
    tree = FrozenEstimator(DecisionTreeClassifier(random_state=0).fit(rows, label))
    records = np.column_stack([rows[:, :3], label])
    attack = AttributeInference(tree, attribute=3).fit(records[:300], rows[:300, 3])
    assert attack.advantage(records[300:], rows[300:, 3]) > -0.1


@pytest.mark.long
def test_attributes_of_frames():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=300), "colour": rng.choice(["red", "blue"], 300)}
    )
    y = (frame["x"] + 2 * (frame["colour"] == "red") > 1).to_numpy().astype(int)
    target = make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), DecisionTreeClassifier()
    )
    target = FrozenEstimator(target.fit(frame, y))
    records = frame[["x"]].assign(label=y)
    attack = AttributeInference(target, attribute="colour", label_column="label")
    scores = cross_val_score(attack, records, frame["colour"], cv=3)
    assert scores.mean() > 0.7
    by_position = AttributeInference(target, attribute=1).fit(records, frame["colour"])
    np.testing.assert_array_equal(
        by_position.predict(records),
        attack.fit(records, frame["colour"]).predict(records),
    )


def test_attributes_beside_missing_values():
    rng = np.random.default_rng(0)
    X, y = coins(400)
    X[rng.uniform(size=X.shape) < 0.1 * (np.arange(5) > 2)] = np.nan
    target = FrozenEstimator(DecisionTreeClassifier().fit(X, y))
    known = np.delete(np.column_stack([X, y]), 0, axis=1)
    attack = AttributeInference(target, attribute=0).fit(known[:300], X[:300, 0])
    assert attack.score(known[300:], X[300:, 0]) > 0.5
    # String labels make frames of records, of which the target has seen no name.
    names = np.where(y > 0, "yes", "no")
    target = FrozenEstimator(DecisionTreeClassifier().fit(X, names))
    records = make_records(X[:, 1:], names)
    attack = AttributeInference(target, attribute=0, label_column="label")
    again = attack.fit(records[:300], X[:300, 0]).score(records[300:], X[300:, 0])
    assert again > 0.5


def test_attribute_errors():
    X, y = coins(100)
    target = FrozenEstimator(LogisticRegression().fit(X, y))
    known = np.delete(np.column_stack([X, y]), 2, axis=1)
    with pytest.raises(ValueError, match="attribute=9 is no position"):
        AttributeInference(target, attribute=9).fit(known, X[:, 2])
    with pytest.raises(ValueError, match="is a name"):
        AttributeInference(target, attribute="a").fit(known, X[:, 2])
    names = [f"c{j}" for j in range(6)]
    frame = pd.DataFrame(np.column_stack([X, y]), columns=names)
    target = FrozenEstimator(LogisticRegression().fit(frame[names[:5]], y))
    for attribute, message in ((9, "is no position"), ("c9", "is no feature of")):
        attack = AttributeInference(target, attribute=attribute)
        with pytest.raises(ValueError, match=f"attribute={attribute!r} {message}"):
            attack.fit(frame.drop(columns="c2"), X[:, 2])
    # A column that is there gives itself away, to the baseline as well.
    for attribute in (2, "c2"):
        with pytest.raises(ValueError, match="have a column 'c2'; leave it out"):
            AttributeInference(target, attribute=attribute).fit(frame, X[:, 2])
    # By a name, a target that knows none would get the column in the wrong place.
    nameless = FrozenEstimator(LogisticRegression().fit(X, y))
    with pytest.raises(ValueError, match="which has no names"):
        attack = AttributeInference(nameless, attribute="c2")
        attack.fit(frame.drop(columns="c2"), X[:, 2])
    with pytest.raises(ValueError, match="nothing to infer"):
        AttributeInference(target, attribute=2).fit(known, np.zeros(100))


FEW_TREES = RandomForestRegressor(20, min_samples_leaf=5, random_state=0)


def doses(n=900):
    """Independent normal attributes, and their sum with noise of deviation 1/2."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    return X, X.sum(axis=1) + 0.5 * rng.normal(size=n)


def test_numbers_are_inferred_as_well_as_they_can_be():
    """Of x = y - (the rest) - noise, 1 / (1 + 1/4) of the variance can be explained."""
    X, y = doses()
    known = np.delete(np.column_stack([X, y]), 2, axis=1)
    target = FrozenEstimator(LinearRegression().fit(X, y))
    attack = NumericAttributeInference(
        target, attribute=2, confidence=0.8, attack_estimator=FEW_TREES
    )
    attack.fit(known[:600], X[:600, 2])
    assert 0.7 < attack.score(known[600:], X[600:, 2]) < 0.85
    # The forest that imputes has the label, too, but has to learn what a sum is.
    assert attack.advantage(known[600:], X[600:, 2]) > 0.05
    assert 1.2 * attack.half_width_ < attack.baseline_half_width_
    interval = attack.predict_interval(known[600:])
    inside = (interval[:, 0] <= X[600:, 2]) & (X[600:, 2] <= interval[:, 1])
    assert np.mean(inside) == pytest.approx(0.8, abs=0.08)
    assert set(attack.values_) <= set(X[:600, 2]) and len(attack.values_) == 20
    # Normal errors of deviation sqrt(1/5), 80 % of which are within 1.28 of these.
    assert attack.half_width_ == pytest.approx(1.28 * np.sqrt(0.2), rel=0.2)


def test_numbers_that_the_target_does_not_know_have_no_advantage():
    X, y = doses(600)
    secret = np.random.default_rng(1).normal(size=600)
    rows = np.column_stack([X, secret])
    target = FrozenEstimator(LinearRegression().fit(rows, y))
    known = np.column_stack([X, y])
    attack = NumericAttributeInference(
        target, attribute=4, attack_estimator=FEW_TREES, n_values=6
    )
    attack.fit(known[:400], secret[:400])
    assert abs(attack.advantage(known[400:], secret[400:])) < 0.15
    assert attack.score(known[400:], secret[400:]) < 0.1


@pytest.mark.parametrize("label_column", ["label", None])
def test_numbers_of_frames_and_classifiers(label_column):
    rng = np.random.default_rng(0)
    age = rng.integers(20, 70, 500)
    town = rng.choice(["east", "west"], 500)
    frame = pd.DataFrame({"town": town, "age": age})
    y = np.where(age + 3 * rng.normal(size=500) > 45, "old", "young")
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), remainder=StandardScaler()
    )
    target = make_pipeline(encode, LogisticRegression()).fit(frame, y)
    known = frame[["town"]].assign(label=y)
    if label_column is None:
        known = known[["town"]]
    attack = NumericAttributeInference(
        FrozenEstimator(target),
        "age",
        label_column=label_column,
        n_values=8,
        attack_estimator=FEW_TREES,
    )
    attack.fit(known[:300], age[:300])
    score = attack.score(known[300:], age[300:])
    assert score > 0.6 if label_column else score < 0.1
    assert set(attack.values_) <= set(age)
    assert clone(attack).fit(known[:300], age[:300]).predict(known[300:]).dtype == float


def test_attributes_of_regressors():
    X, y = coins(600)
    total = X @ [1.0, 2.0, 4.0, 8.0, 16.0]  # says every attribute
    target = FrozenEstimator(LinearRegression().fit(X, total))
    known = np.delete(np.column_stack([X, total]), 2, axis=1)
    attack = AttributeInference(
        target, attribute=2, attack_estimator=DecisionTreeClassifier(max_depth=2)
    )
    attack.fit(known[:300], X[:300, 2])
    assert attack.score(known[300:], X[300:, 2]) == 1
    assert attack.advantage(known[300:], X[300:, 2]) > 0.3
    blind = AttributeInference(target, attribute=2, label_column=None)
    blind.fit(known[:300, :-1], X[:300, 2])
    assert blind.score(known[300:, :-1], X[300:, 2]) < 0.65


def test_errors_of_numbers():
    X, y = doses(60)
    target = FrozenEstimator(LinearRegression().fit(X, y))
    known = np.delete(np.column_stack([X, y]), 2, axis=1)
    with pytest.raises(ValueError, match="there is nothing to infer"):
        NumericAttributeInference(target, attribute=2).fit(known, np.ones(60))
    with pytest.raises(ValueError, match="requires y to be passed"):
        NumericAttributeInference(target, attribute=2).fit(known, None)
    with pytest.raises(ValueError, match="attribute=9 is no position"):
        NumericAttributeInference(target, attribute=9).fit(known, X[:, 2])
    with pytest.raises(ValueError, match="AttributeInference infers values"):
        NumericAttributeInference(target, attribute=2).fit(known, np.full(60, "high"))
    with pytest.raises(ValueError, match="NaN"):
        NumericAttributeInference(target, attribute=2).fit(known, X[:, 2] * np.nan)


# Model inversion ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_inversion_of_digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    for target in (
        LogisticRegression(C=0.01, max_iter=500).fit(X[:900], y[:900]),
        MLPClassifier((32,), alpha=1.0, random_state=0).fit(X[:900], y[:900]),
    ):
        inversion = ModelInversion(FrozenEstimator(target)).fit(X[900:])
        representatives = inversion.representatives_
        np.testing.assert_array_equal(target.predict(representatives), np.arange(10))
        assert (representatives >= X.min()).all() and (representatives <= X.max()).all()
        # They look like the class: the nearest one classifies new rows.
        assert inversion.score(X[900:], y[900:]) > 0.7
        untrained = MLPClassifier((32,), max_iter=1, random_state=0)
        untrained.fit(X[:900], y[:900])
        noise = ModelInversion(FrozenEstimator(untrained)).fit(X[900:])
        assert inversion.score(X[900:], y[900:]) > noise.score(X[900:], y[900:]) + 0.1


def test_inversion_trains_targets_and_keeps_confidence():
    X, y = load_digits(return_X_y=True)
    target = LogisticRegression(C=0.1, max_iter=500)
    inversion = ModelInversion(target, prior=0.0, confidence=0.9, max_iter=500)
    inversion.fit(X / 16, y)
    proba = inversion.estimator_.predict_proba(inversion.representatives_)
    np.testing.assert_allclose(proba.diagonal(), inversion.confidences_, rtol=1e-6)
    assert (inversion.confidences_ >= 0.9).all()
    assert inversion.n_iter_ < 500
    with pytest.raises(ValueError, match="requires y"):
        ModelInversion(target).fit(X)


def inverted_images(device="cpu"):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    target = net(CNN, max_epochs=8, device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        target.fit(X[:900], y[:900])
    inversion = ModelInversion(FrozenEstimator(target), prior=1.0).fit(X[900:])
    assert inversion.representatives_.shape == (10, 1, 8, 8)
    assert (target.predict(inversion.representatives_) == np.arange(10)).all()
    return inversion.score(X[900:], y[900:])


def test_inversion_of_images():
    assert inverted_images() > 0.3


@pytest.mark.gpu
def test_inversion_on_a_gpu():
    assert inverted_images("cuda") > 0.3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_inversion_of_a_stolen_copy():
    """Where the target gives labels and probabilities only, a copy gives gradients."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    target = LogisticRegression(C=0.01, max_iter=500).fit(X[:900], y[:900])
    copy = EquationSolving(FrozenEstimator(target)).fit(X[900:1100])
    inversion = ModelInversion(FrozenEstimator(copy)).fit(X[900:])
    assert (target.predict(inversion.representatives_) == np.arange(10)).all()
    direct = ModelInversion(FrozenEstimator(target)).fit(X[900:])
    np.testing.assert_allclose(
        inversion.representatives_, direct.representatives_, atol=1e-3
    )


# DP-SGD ---------------------------------------------------------------------------------


def rdp_epsilon(noise, rate, steps, delta):
    """Bound by the moments accountant: integer orders, the classical conversion.

    Written from Mironov, Talwar and Zhang (2019), Section 3.3.
    """
    best = np.inf
    for order in range(2, 200):
        terms = [
            comb(order, k)
            * (1 - rate) ** (order - k)
            * rate**k
            * exp((k * k - k) / (2 * noise**2))
            for k in range(order + 1)
            if (k * k - k) / (2 * noise**2) < 600
        ]
        if len(terms) <= order:
            break
        moment = steps * log(sum(terms)) / (order - 1)
        best = min(best, moment + log(1 / delta) / (order - 1))
    return best


def test_accountant_agrees_with_the_moments_and_with_published_values():
    # MNIST, 60,000 rows: the settings and values of the tutorial of TensorFlow Privacy.
    for noise, batch, epochs, published in ((1.3, 250, 15, 1.19), (1.1, 250, 60, 3.0)):
        rate = batch / 60000
        steps = round(epochs / rate)
        ours = rdp_epsilon(noise, rate, steps, 1e-5)
        assert ours == pytest.approx(published, rel=0.02)
        accountant = RDPAccountant()
        accountant.history = [(noise, rate, steps)]
        theirs = accountant.get_epsilon(1e-5)  # by a tighter conversion
        assert 0.75 * ours < theirs < ours


def private(**parameters):
    return DPSGDClassifier(net(max_epochs=4), random_state=0, **parameters)


def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


class Watched(DPSGDClassifier):
    """Notes which batches are drawn; the sum of their gradients is all ones."""

    sizes = ()

    def _clipped_sum(self, net, X, y):
        self.sizes = [*self.sizes, len(X)]
        return [torch.ones_like(p) for p in net.module_.parameters()]

    def _step(self, net, X, y, rate, generator):
        super()._step(net, X, y, rate, generator)
        self.gradients = [p.grad.clone() for p in net.module_.parameters()]


def test_batches_are_poisson_and_divided_by_their_expected_size():
    """What was drawn must show neither in the size of steps nor in the noise."""
    X, y = (data[:400] for data in digits())
    watched = Watched(
        net(max_epochs=30, batch_size=20), noise_multiplier=1e-6, random_state=0
    )
    with warnings.catch_warnings(action="ignore"):  # epsilon is astronomic
        watched.fit(X, y)
    sizes = np.array(watched.sizes)
    assert len(sizes) == watched.n_steps_ == 30 * 400 // 20
    # Binomial(400, 1/20): mean 20, variance 19; neither constant nor a division of rows.
    assert sizes.mean() == pytest.approx(20, abs=5 * np.sqrt(19 / len(sizes)))
    assert sizes.var() == pytest.approx(19, rel=0.2)
    for gradient in watched.gradients:
        torch.testing.assert_close(
            gradient, torch.full_like(gradient, 1 / 20), rtol=1e-3, atol=1e-6
        )
    # With one row less, the divisor is the same.
    with warnings.catch_warnings(action="ignore"):
        fewer = clone(watched).set_params(estimator__max_epochs=1).fit(X[:-1], y[:-1])
    for gradient in fewer.gradients:
        torch.testing.assert_close(
            gradient, torch.full_like(gradient, 1 / 20), rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("delta", [0.3, 0.9])
def test_epsilon_is_never_negative(delta):
    X, y = (data[:100] for data in digits())
    model = DPSGDClassifier(
        net(max_epochs=1), noise_multiplier=20.0, delta=delta, random_state=0
    )
    assert model.fit(X, y).epsilon_ == 0


def test_gradients_are_clipped_one_by_one():
    """Against a loop over the rows with ordinary gradients."""
    X, y = digits()
    X, y = torch.as_tensor(X[:20]), torch.as_tensor(y[:20])
    model = private(max_grad_norm=0.3, physical_batch_size=7)
    inner = net(module__n_features=64, module__n_classes=10).initialize()
    found = model._clipped_sum(inner, X, y)
    expected = [torch.zeros_like(p) for p in inner.module_.parameters()]
    clipped = 0
    for row, label in zip(X, y, strict=True):
        loss = torch.nn.functional.cross_entropy(inner.module_(row[None]), label[None])
        gradient = torch.autograd.grad(loss, list(inner.module_.parameters()))
        size = torch.cat([g.flatten() for g in gradient]).norm()
        clipped += size > 0.3
        for total, g in zip(expected, gradient, strict=True):
            total += g * min(1.0, float(0.3 / size))
    assert clipped > 5
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_epsilon_is_reported_and_reached():
    X, y = digits()
    loose = private(noise_multiplier=0.8).fit(X, y)
    tight = private(noise_multiplier=3.0).fit(X, y)
    assert tight.epsilon_ < loose.epsilon_
    rate = 64 / len(X)
    assert loose.n_steps_ == round(4 / rate)
    bound = rdp_epsilon(0.8, rate, loose.n_steps_, 1e-5)
    assert 0.7 * bound < loose.epsilon_ < bound
    wanted = private(epsilon=3.0).fit(X, y)
    assert 2.7 < wanted.epsilon_ <= 3.0
    assert wanted.noise_multiplier_ > 0.8


@pytest.mark.long
def test_audit_finds_no_more_than_the_accountant_allows():
    X, y = digits()
    audited = private(epsilon=1.0)
    assert epsilon_lower_bound(audited, X, y, n_canaries=800) <= 1.0
    by_heart = net(max_epochs=60, lr=0.01, module__hidden=256)
    by_heart.set_params(module__n_features=64, module__n_classes=10)
    assert epsilon_lower_bound(by_heart, X, y.astype(np.int64), n_canaries=800) > 1.0


@pytest.mark.long
def test_private_training_learns_and_is_repeatable():
    X, y = (data[:1000] for data in digits())
    model = DPSGDClassifier(
        net(max_epochs=6, module__hidden=16, lr=0.03), epsilon=30.0, random_state=0
    )
    before = torch.get_rng_state()
    model.fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.score(X, y) > 0.6
    again = model.predict_proba(X[:50])
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X[:50]), again)


@pytest.mark.long
def test_training_on_adds_to_epsilon():
    """The guarantee of several calls is that of all their steps together."""
    X, y = (data[:600] for data in digits())
    model = private(noise_multiplier=1.0).partial_fit(X, y)
    once = clone(model).fit(X, y)
    first = [p.clone() for p in model.estimator_.module_.parameters()]
    assert model.epsilon_ == once.epsilon_ and model.n_steps_ == once.n_steps_
    model.partial_fit(X, y)
    assert model.n_steps_ == 2 * once.n_steps_
    long = clone(model).set_params(estimator__max_epochs=8).fit(X, y)
    assert model.epsilon_ == pytest.approx(long.epsilon_, rel=0.01)
    assert model.epsilon_ > once.epsilon_
    # It goes on from where it was, with rows and noise of its own.
    moved = list(model.estimator_.module_.parameters())
    steps = [(b - a).detach() for a, b in zip(first, moved, strict=True)]
    assert all(0 < step.abs().max() < 1 for step in steps)
    restarted = clone(model).fit(X, y).estimator_.module_.parameters()
    assert not any(map(torch.equal, restarted, moved))
    model.fit(X, y)
    assert model.epsilon_ == once.epsilon_
    budget = private(epsilon=3.0).fit(X, y)
    with pytest.raises(ValueError, match=r"epsilon=3.0 .* is spent"):
        budget.partial_fit(X, y)


def test_private_training_of_one_logit():
    from skorch import NeuralNetBinaryClassifier

    X, y = digits()
    binary = NeuralNetBinaryClassifier(
        MLP, module__n_classes=1, lr=1.0, max_epochs=6, verbose=0
    )
    model = DPSGDClassifier(binary, noise_multiplier=0.5, random_state=0)
    assert model.fit(X, y > 4).score(X, y > 4) > 0.75


class Scaled(MLP):
    """A net with a parameter that is a single number."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.scale * super().forward(x)


def test_private_training_weighs_classes():
    """The mean over a single row would divide its weight out."""
    X, y = digits()
    X, y = X[:60], y[:60]
    weight = torch.linspace(0.1, 2.0, 10)
    recipe = net(MLP, max_epochs=1, criterion__weight=weight)
    private = DPSGDClassifier(recipe, max_grad_norm=1e6, random_state=0).fit(X, y)
    rows, labels = torch.as_tensor(X), torch.as_tensor(y)
    found = private._clipped_sum(private.estimator_, rows, labels)
    module = private.estimator_.module_
    loss = torch.nn.functional.cross_entropy(
        module(rows), labels, weight, reduction="sum"
    )
    expected = torch.autograd.grad(loss, list(module.parameters()))
    for own, sums in zip(expected, found, strict=True):
        torch.testing.assert_close(sums, own, rtol=1e-4, atol=1e-5)


def test_private_training_on_frames():
    """Their memory may not be written to, of which torch would warn."""
    X, y = digits()
    frame = pd.DataFrame(X[:60]).add_prefix("pixel ")
    private = DPSGDClassifier(net(MLP, max_epochs=1), random_state=0).fit(frame, y[:60])
    assert private.predict(frame).shape == (60,)


def test_private_training_of_a_single_number():
    X, y = digits()
    scaled = net(Scaled, max_epochs=1, module__n_features=64, module__n_classes=10)
    model = DPSGDClassifier(scaled, random_state=0).fit(X, y)
    assert model.estimator_.module_.scale != 1.0


@pytest.mark.gpu
def test_private_training_on_a_gpu():
    X, y = digits()
    model = private(noise_multiplier=0.8).set_params(estimator__device="cuda")
    model.set_params(estimator__max_epochs=8).fit(X, y)
    assert all(p.is_cuda for p in model.estimator_.module_.parameters())
    assert model.score(X, y) > 0.6 and model.epsilon_ > 0


def test_what_private_training_refuses():
    X, y = digits()
    with pytest.raises(ValueError, match="BatchNorm2d computes with several rows"):
        DPSGDClassifier(net(CNN)).fit(X.reshape(-1, 1, 8, 8), y)
    with pytest.raises(TypeError, match="skorch"):
        DPSGDClassifier(LogisticRegression()).fit(X, y)


def test_without_opacus(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    X, y = digits()
    with pytest.raises(ImportError, match=r"sklearn-advsec\[privacy\]"):
        DPSGDClassifier(net(max_epochs=1)).fit(X, y)


def test_attributes_keep_their_dtype():
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {"city": pd.Categorical(rng.choice(list("xyz"), 120)), "age": rng.randn(120)}
    )
    y = ((frame["city"] == "x") ^ (frame["age"] > 0)).astype(int)
    model = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(frame, y)
    known = frame.drop(columns="city").assign(label=y)
    attack = AttributeInference(FrozenEstimator(model), "city", label_column="label").fit(
        known, frame["city"]
    )
    assert attack.advantage(known, frame["city"]) >= 0
    with pytest.raises(ValueError, match="NumericAttributeInference infers numbers"):
        AttributeInference(FrozenEstimator(model), "age").fit(known, frame["age"])


@pytest.mark.parametrize("cls", [AttributeInference, NumericAttributeInference])
def test_records_that_lack_the_attribute_are_to_be_left_out(cls):
    X = np.random.default_rng(0).normal(size=(40, 3))
    target = FrozenEstimator(LogisticRegression().fit(X, X[:, 0] > 0))
    records = np.column_stack([X[:, 1:], X[:, 0] > 0])
    with pytest.raises(ValueError, match="y contains NaN") as error:
        cls(target).fit(records, np.where(X[:, 0] > 1, np.nan, X[:, 0].round()))
    assert "leave out records" in error.value.__notes__[0]
