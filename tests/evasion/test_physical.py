"""Transformations, expectation over them, patches, and the destruction rate."""

import io

import data
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.evasion import (
    JPEG,
    AdversarialPatch,
    Blur,
    Brightness,
    Contrast,
    ExpectationOverTransformation,
    GaussianNoise,
    Perspective,
    PrintScan,
    ProjectedGradientDescent,
    Rotation,
    Scaling,
    Shift,
    SquareAttack,
    destruction_rate,
)
from sklearn_advsec.evasion._physical._transformations import Draws
from sklearn_advsec.exceptions import NoGradientError

ALL = [
    Blur(),
    Brightness(),
    Contrast(),
    GaussianNoise(),
    JPEG(),
    Perspective(),
    PrintScan(),
    Rotation(),
    Scaling(),
    Shift(),
]


def seed(value=0):
    return torch.Generator().manual_seed(value)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = MLPClassifier((64,), max_iter=200, random_state=0, alpha=0.01, tol=1e-3)
    return X, y, model.fit(X[:1200], y[:1200])


@pytest.fixture(scope="module")
def mnist():
    X, y = data.mnist(4000)
    # Stops by itself after 15 epochs: no improvement is as large as `tol`.
    model = MLPClassifier((100,), random_state=0, tol=10, n_iter_no_change=14)
    return X, y, FrozenEstimator(model.fit(X[:3000], y[:3000]))


# Transformations ------------------------------------------------------------------------


@pytest.mark.parametrize("transformation", ALL, ids=repr)
def test_random_shared_and_differentiable(transformation):
    images = torch.rand(3, 2, 17, 21, generator=seed(), dtype=torch.float64)
    images[1:] = images[0]
    images.requires_grad_()
    own = transformation(images, seed(1))
    shared = transformation(images, seed(1), shared=True)
    assert own.shape == images.shape and own.dtype == images.dtype
    assert float(own.detach().min()) >= 0 and float(own.detach().max()) <= 1
    assert not torch.equal(own[0], own[1])
    torch.testing.assert_close(shared[0], shared[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(transformation(images, seed(1)), own)
    (gradient,) = torch.autograd.grad(own.sum(), images)
    assert gradient.isfinite().all() and (gradient != 0).any()


def test_quarter_turn_and_whole_shift_are_exact():
    """A turn by 90 degrees and a shift by one pixel only move values around."""

    class Largest(Draws):
        def uniform(self, images, low, high, *shape):
            return torch.full((len(images), *shape), float(high)).to(images)

    image = torch.rand(1, 1, 8, 8, generator=seed(), dtype=torch.float64)
    turned = Rotation(90)._transform(image, Largest(None, True))
    torch.testing.assert_close(turned, torch.rot90(image, 1, (2, 3)))
    moved = Shift(1)._transform(image, Largest(None, True))
    torch.testing.assert_close(moved[:, :, :-1, :-1], image[:, :, 1:, 1:])


def test_zero_strength_is_the_identity():
    images = torch.rand(2, 1, 9, 9, generator=seed(), dtype=torch.float64)
    for transformation in (
        Rotation(0),
        Scaling(1, 1),
        Shift(0),
        Perspective(0),
        Brightness(0),
        Contrast(0),
        GaussianNoise(0),
        Blur(0),
    ):
        torch.testing.assert_close(transformation(images, seed()), images)


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_what_an_encoder_does(quality):
    """A grey image comes out as from a real JPEG encoder, up to its rounding."""
    X, _ = load_digits(return_X_y=True)
    image = np.rint(np.kron(X[0].reshape(8, 8) / 16, np.ones((4, 4))) * 255) / 255
    buffer = io.BytesIO()
    grey = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    grey.save(buffer, format="JPEG", quality=quality)
    real = np.asarray(Image.open(buffer), dtype=float) / 255
    ours = JPEG(quality, quality)(torch.as_tensor(image)[None, None], seed())
    ours = np.rint(ours[0, 0].numpy() * 255) / 255  # as the file's values are whole
    # The encoder computes in integers, so that now and then a coefficient is rounded to
    # the other side; that is little against what compression does.
    error, effect = np.abs(ours - real), np.abs(real - image)
    assert (error < 1e-9).mean() > 0.7 and error.mean() < 0.15 * effect.mean()


# Expectation over transformation --------------------------------------------------------


@pytest.mark.long
def test_survives_twice_as_often_on_mnist(mnist):
    """Rotations of 20 degrees and 20 % contrast, drawn anew for the test.

    Digits that the victim misreads when they are only turned say nothing. PGD stops where
    the victim is wrong; with all its steps it survives more single turns, so that what is
    compared then is to survive all of them.
    """
    X, y, victim = mnist
    right = victim.predict(X[3000:3200]) == y[3000:3200]
    rows, labels = X[3000:3200][right][:60], y[3000:3200][right][:60]
    chain = [Rotation(20), Contrast(0.2)]
    pgd = ProjectedGradientDescent(eps=0.15, bounds=(0, 1))
    whole = clone(pgd).set_params(early_stopping=False)
    eot = ExpectationOverTransformation(
        attack=pgd, transformations=chain, image_shape=(28, 28)
    )

    def misread(rows):
        images = torch.as_tensor(rows).reshape(-1, 1, 28, 28)
        wrong = []
        for s in range(20):
            seen, generator = images, seed(100 + s)
            for transformation in chain:
                seen = transformation(seen, generator)
            seen = seen.reshape(len(rows), -1).numpy()
            wrong.append(victim.predict(seen) != labels)
        return np.array(wrong)

    fair = ~misread(rows)
    assert fair.all(0).sum() > 20
    once, always, destroyed = [], [], []
    for attack in (pgd, whole, eot):
        attack = clone(attack).set_params(estimator=victim).fit(X[:100], y[:100])
        X_adv = attack.run(rows, labels).X_adv
        assert np.abs(X_adv - rows).max() <= 0.15 + 1e-9
        wrong = misread(X_adv)
        once.append(wrong[fair].mean())
        always.append(wrong.all(0)[fair.all(0)].mean())
        destroyed.append(
            destruction_rate(victim, rows, X_adv, labels, chain[0], image_shape=(28, 28))
        )
    assert once[2] >= 2 * once[0] and once[2] > once[1]
    assert always[0] == 0 and always[2] >= 2 * always[1]
    assert destroyed[2] < destroyed[1] < destroyed[0]


def test_counts_every_transformed_query(digits):
    X, y, model = digits
    attack = ExpectationOverTransformation(
        FrozenEstimator(model),
        attack=ProjectedGradientDescent(eps=0.2, max_iter=5),
        n_samples=4,
        image_shape=(8, 8),
        max_queries=30,
    )
    result = attack.fit(X, y).run(X[1200:1220], y[1200:1220])
    # 5 gradients and the stand-in's last answer, 4 queries each, and the victim's own.
    assert (result.n_queries == 25).all()
    np.testing.assert_array_equal(model.predict(result.X_adv), result.y_pred)
    with pytest.raises(ValueError, match="max_queries=9 pays for no step"):
        clone(attack).set_params(max_queries=9).fit(X, y)


def test_expectation_errors(digits):
    X, y, model = digits
    flat = ExpectationOverTransformation(
        FrozenEstimator(model), transformations=Rotation()
    )
    with pytest.raises(ValueError, match="give image_shape"):
        flat.fit(X, y)
    with pytest.raises(ValueError, match="gradient attack"):
        ExpectationOverTransformation(FrozenEstimator(model), attack=SquareAttack()).fit(
            X, y
        )
    flat.set_params(transformations=[20])
    with pytest.raises(TypeError, match="transformations must be callables"):
        flat.fit(X, y)
    tree = ExpectationOverTransformation(DecisionTreeClassifier())
    with pytest.raises(NoGradientError):
        tree.fit(X, y)


def test_expectation_of_pixelwise_changes_on_columns():
    """Rows that are no images: their columns have ranges of their own."""
    X, y = load_breast_cancer(return_X_y=True)
    scale = X.std(0)
    victim = LogisticRegression(max_iter=5000).fit(X / scale, y)
    attack = ExpectationOverTransformation(
        FrozenEstimator(victim),
        attack=ProjectedGradientDescent(eps=0.5),
        transformations=[GaussianNoise(0.02)],
    )
    result = attack.fit(X / scale, y).run(X[:50] / scale, y[:50])
    assert result.success.mean() > 0.5 and result.distance.max() <= 0.5 + 1e-9


# Patch ----------------------------------------------------------------------------------


def test_patch_is_local_and_better_than_noise(digits):
    X, y, model = digits
    attack = AdversarialPatch(
        FrozenEstimator(model), area=0.15, max_iter=100, image_shape=(8, 8), degrees=10
    )
    attack.fit(X[:1200], y[:1200])
    assert attack.patch_.shape == (1, 3, 3)
    assert attack.patch_.min() >= 0 and attack.patch_.max() <= 1
    rows, labels = X[1200:1400], y[1200:1400]
    result = attack.run(rows, labels)
    assert result.distance.max() <= 9
    # All rows share the place: what changed lies in one window of 3 x 3.
    where = (result.X_adv != rows).any(0).reshape(8, 8)
    assert np.ptp(np.flatnonzero(where.any(0))) < 3
    assert np.ptp(np.flatnonzero(where.any(1))) < 3
    noise = clone(attack).fit(X[:1200], y[:1200])
    noise.patch_ = np.random.RandomState(0).uniform(size=(1, 3, 3))
    assert result.success.mean() > noise.run(rows, labels).success.mean() + 0.1
    again = attack.set_params(n_places=10).run(rows, labels)
    assert again.success.mean() > result.success.mean()
    assert again.n_queries.max() <= 11


def test_patch_keeps_its_area_and_its_places(digits):
    """No turn and no size makes it larger; over many places it finds every corner."""
    X, y, model = digits
    attack = AdversarialPatch(
        FrozenEstimator(model),
        area=0.15,
        max_iter=3,
        image_shape=(8, 8),
        degrees=180,
        bounds=(0, 1),
        scaling=0.9,
    )
    attack.fit(X[:200], y[:200])
    attack.patch_[:] = 0.4321  # a value that no pixel has
    changed = []
    for seed in range(60):
        result = attack.set_params(random_state=seed).run(X[:3], y[:3])
        assert result.distance.max() <= 9
        changed.append((result.X_adv != X[:3]).any(0).reshape(8, 8))
    assert np.any(changed, axis=0).all()


def test_targeted_patch(digits):
    X, y, model = digits
    attack = AdversarialPatch(
        FrozenEstimator(model), area=0.25, goal="targeted", target=3, image_shape=(8, 8)
    )
    with pytest.raises(ValueError, match="needs one class label"):
        clone(attack).set_params(target=None).fit(X, y)
    rows = X[1200:1400][y[1200:1400] != 3]
    before = (model.predict(rows) == 3).mean()
    result = attack.fit(X[:1200], y[:1200]).run(rows)
    assert result.success.mean() > before + 0.2


# Destruction rate -----------------------------------------------------------------------


def test_destruction_rate_counts_by_hand():
    """Only rows right before and wrong after the attack count."""
    victim = LogisticRegression(C=1e6).fit([[0.0], [1.0]], [0, 1])
    X = np.array([[0.1], [0.2], [0.3], [0.9], [0.8]])
    y = np.array([0, 0, 1, 1, 1])  # the third is wrong already
    X_adv = np.array([[0.6], [0.9], [0.3], [0.3], [0.7]])  # the last one failed
    # Minus 0.2 turns 0.6 back; 0.9 and 0.3 stay wrong: one of three.
    rate = destruction_rate(victim, X, X_adv, y, lambda rows: rows - 0.2)
    assert rate == pytest.approx(1 / 3)
    assert np.isnan(destruction_rate(victim, X, X, y, lambda rows: rows))
    with pytest.raises(ValueError, match="give image_shape"):
        destruction_rate(victim, X, X_adv, y, Rotation())
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        destruction_rate(victim, X, 2 * X_adv, y, Contrast())
