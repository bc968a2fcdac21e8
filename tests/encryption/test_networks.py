"""Networks made for encryption: discretized ones, and those trained with polynomials."""

import numpy as np
import pytest
import torch
from nets import net
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator

from sklearn_advsec.encryption import (
    DiscretizedMLPClassifier,
    EncryptedClassifier,
    EncryptionReadyTraining,
)
from sklearn_advsec.encryption._ready import PolynomialLayer

pytest.importorskip("tenseal.sealapi")

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype(np.float32)


def test_discretized_weights_are_small_integers_and_predict():
    for max_weight, least in ((1, 0.8), (3, 0.81)):
        model = DiscretizedMLPClassifier(max_weight=max_weight, max_epochs=40)
        model.fit(DIGITS[:1200], LABELS[:1200])
        for weight in model.coefs_:
            assert weight.dtype.kind == "i" and np.abs(weight).max() <= max_weight
        assert np.all(model.intercepts_[0] - np.floor(model.intercepts_[0]) == 0.5)
        # What was trained is what predicts: the network by hand.
        x = np.where(DIGITS > model.thresholds_, 1, -1)
        h = np.where(x @ model.coefs_[0].T + model.intercepts_[0] > 0, 1, -1)
        scores = h @ model.coefs_[1].T + model.intercepts_[1]
        np.testing.assert_array_equal(model.predict(DIGITS), scores.argmax(axis=1))
        assert model.score(DIGITS[1200:], LABELS[1200:]) >= least


def test_a_penalty_makes_sums_small():
    def largest(penalty):
        model = DiscretizedMLPClassifier(max_epochs=15, penalty=penalty)
        model.fit(DIGITS[:600], LABELS[:600])
        x = np.where(DIGITS > model.thresholds_, 1, -1)
        return np.abs(x @ model.coefs_[0].T + model.intercepts_[0]).mean()

    assert largest(1.0) < 0.8 * largest(0.0)


@pytest.fixture(scope="module")
def signs():
    binary = np.where(DIGITS > np.median(DIGITS, axis=0), 1.0, -1.0)
    model = DiscretizedMLPClassifier((20,), threshold=None, max_epochs=20)
    model.fit(binary[:1200], LABELS[:1200])
    encrypted = EncryptedClassifier(
        FrozenEstimator(model), packing="rows", precision=0.05, agreement=0.95
    )
    return binary, model, encrypted.fit(binary)


def test_signs_are_composed_polynomials(signs):
    binary, model, encrypted = signs
    assert encrypted.depth_ == 14
    assert encrypted.agreement_ >= 0.99
    assert np.mean(encrypted.simulate(binary) == model.predict(binary)) >= 0.99
    with pytest.raises(TypeError, match="threshold=None"):
        thresholded = DiscretizedMLPClassifier(max_epochs=1).fit(DIGITS, LABELS)
        EncryptedClassifier(FrozenEstimator(thresholded)).fit(DIGITS)


@pytest.mark.slow
def test_signs_under_encryption(signs):
    binary, _, encrypted = signs
    np.testing.assert_array_equal(
        encrypted.predict(binary[:1]), encrypted.simulate(binary[:1])
    )


class Small(torch.nn.Sequential):
    def __init__(self):
        super().__init__(
            torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
        )


@pytest.mark.parametrize("activation", ["polynomial", "square"])
def test_what_was_trained_with_polynomials_is_computed_as_it_is(activation):
    callback = EncryptionReadyTraining(activation, epoch=4, penalty=1.0)
    model = net(Small, max_epochs=12, callbacks=[callback])
    model.fit(DIGITS, LABELS)
    layer = model.module_[1]
    assert isinstance(layer, PolynomialLayer)
    assert model.score(DIGITS, LABELS) > 0.9
    encrypted = EncryptedClassifier(FrozenEstimator(model), packing="columns").fit(DIGITS)
    assert encrypted.polynomials_[0] is layer.polynomial
    assert encrypted.agreement_ == 1.0  # nothing is approximated any more
    z = torch.linspace(*layer.polynomial.bounds_, 50)
    wanted = layer.polynomial(z.numpy())
    np.testing.assert_allclose(layer(z).numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_values_near_the_ends_are_pulled_back():
    from sklearn_advsec.encryption import PolynomialActivation

    layer = PolynomialLayer(PolynomialActivation("square").fit([-1.0, 1.0]), 1.0).train()
    x = torch.tensor([0.0, 0.5, 2.0, -2.0], requires_grad=True)
    (layer(x) * 0).sum().backward()
    assert x.grad[0] == x.grad[1] == 0
    assert x.grad[2] > 0 > x.grad[3]


def test_a_training_that_is_too_short_says_so():
    with pytest.raises(ValueError, match="never came to its epoch"):
        callback = EncryptionReadyTraining(epoch=9)
        net(Small, max_epochs=2, callbacks=[callback]).fit(DIGITS, LABELS)
    with pytest.raises(ValueError, match="penalty"):
        callback = EncryptionReadyTraining(penalty=-1)
        net(Small, max_epochs=2, callbacks=[callback]).fit(DIGITS, LABELS)
