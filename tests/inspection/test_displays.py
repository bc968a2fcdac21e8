import matplotlib.pyplot as plt
import numpy as np
import pytest
from nets import CNN
from scipy.stats import norm
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from sklearn_advsec.defense import certify
from sklearn_advsec.evasion import FastGradientMethod, ProjectedGradientDescent
from sklearn_advsec.inspection import AdversarialExamplesDisplay, RobustnessCurveDisplay
from sklearn_advsec.pretrained import PretrainedModule

X, y = load_iris(return_X_y=True)
victim = LogisticRegression(max_iter=1000).fit(X, y)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_curve_is_the_robust_accuracy_and_never_rises():
    attack = ProjectedGradientDescent(bounds=(0, 10))
    eps = [0.0, 0.3, 0.6]
    display = RobustnessCurveDisplay.from_estimator(
        victim, X, y, attack=attack, eps=eps, name="PGD"
    )
    accuracy = display.accuracy["PGD"]
    assert accuracy[0] == victim.score(X, y)
    assert (np.diff(accuracy) <= 0).all() and accuracy[2] < 0.7
    attack.set_params(estimator=victim, eps=0.3)
    assert accuracy[1] == attack.fit(X, y).score(X, y)
    assert display.lines_[0].get_label() == "PGD"


def test_several_attacks_and_models_share_axes():
    attacks = {"FGM": FastGradientMethod(), "PGD": ProjectedGradientDescent()}
    first = RobustnessCurveDisplay.from_estimator(
        victim, X, y, attack=attacks, eps=[0.0, 0.5]
    )
    other = LogisticRegression(C=0.01).fit(X, y)
    second = RobustnessCurveDisplay.from_estimator(
        other, X, y, attack=attacks["PGD"], eps=[0.0, 0.5], name="C=0.01", ax=first.ax_
    )
    assert second.ax_ is first.ax_ and len(first.ax_.lines) == 3
    assert (first.accuracy["PGD"] <= first.accuracy["FGM"]).all()


def test_curve_from_predictions_and_its_interval():
    y_pred = np.array([y, np.where(np.arange(150) < 30, -1, y)])
    display = RobustnessCurveDisplay.from_predictions(y, y_pred, eps=[0.0, 0.1])
    assert display.accuracy["Classifier"].tolist() == [1.0, 0.8]
    low, high = display.interval("Classifier")
    # Wilson 1927, by hand
    z, n, p = norm.ppf(0.975), 150, 0.8
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (low[1], high[1]) == pytest.approx((centre - half, centre + half))


def test_examples_of_flat_images():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    digits = LogisticRegression(max_iter=1000).fit(X, y)
    attack = FastGradientMethod(eps=0.3, bounds=(0, 1))
    display = AdversarialExamplesDisplay.from_estimator(
        digits, X[:4], y[:4], attack=attack, image_shape=(8, 8)
    )
    assert display.axes_.shape == (3, 4)
    assert display.axes_[0, 0].get_title().startswith("0 (")
    assert display.axes_[2, 0].get_title() != display.axes_[0, 0].get_title()
    margin = LinearSVC(random_state=0, max_iter=5000).fit(X, y)
    display = AdversarialExamplesDisplay.from_estimator(
        margin, X[:1], attack=attack, image_shape=(1, 8, 8)
    )
    assert display.titles == ["0"]


def test_examples_of_images_with_channels():
    images = np.random.RandomState(0).rand(2, 1, 8, 8)
    display = AdversarialExamplesDisplay.from_estimator(
        PretrainedModule(CNN()), images, attack=FastGradientMethod(eps=0.1)
    )
    assert display.images.shape == (2, 8, 8)


def test_bad_input():
    attack = FastGradientMethod()
    with pytest.raises(ValueError, match="eps"):
        RobustnessCurveDisplay.from_estimator(victim, X, y, attack=attack, eps=[0.2, 0.1])
    with pytest.raises(ValueError, match="y_pred has shape"):
        RobustnessCurveDisplay.from_predictions(y, [y], eps=[0.0, 0.1])
    with pytest.raises(ValueError, match="image_shape"):
        AdversarialExamplesDisplay.from_estimator(victim, X, attack=attack)
    with pytest.raises(ValueError, match=r"image_shape=\(3, 3\) does not fit"):
        AdversarialExamplesDisplay.from_estimator(
            victim, X, attack=attack, image_shape=(3, 3)
        )


def test_certificate_brackets_the_curve():
    eps = [0.0, 0.02, 0.05, 0.1]
    attack = ProjectedGradientDescent(bounds=None, max_iter=40)
    certificate = certify(victim, X)
    display = RobustnessCurveDisplay.from_estimator(
        victim, X, y, attack=attack, eps=eps, certificate=certificate
    )
    above = display.accuracy["LogisticRegression"]
    # The distance of a linear model is exact, and the attack finds it.
    assert (display.certified <= above).all()
    np.testing.assert_allclose(display.certified, above, atol=0.02)
    assert [line.get_label() for line in display.lines_][-1] == "certified"
    with pytest.raises(ValueError, match="certificate"):
        RobustnessCurveDisplay.from_estimator(
            victim, X, y, attack=attack, eps=eps, certificate=certify(victim, X, norm=2)
        )
