import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from nets import CNN
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.defense import AdversarialDetector, certify
from sklearn_advsec.evasion import (
    DeepFool,
    FastGradientMethod,
    GreedyFeatureAttack,
    ProjectedGradientDescent,
    TransferAttack,
)
from sklearn_advsec.extraction import KnockoffNets
from sklearn_advsec.inspection import (
    AdversarialExamplesDisplay,
    ExtractionCurveDisplay,
    MembershipRocDisplay,
    RobustnessCurveDisplay,
)
from sklearn_advsec.metrics import gradient_masking_report, robust_accuracy_scorer
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.privacy import LossThreshold, MembershipGame
from sklearn_advsec.threat import FeatureConstraints

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
    attack.set_params(estimator=FrozenEstimator(victim), eps=0.3)
    assert accuracy[1] == attack.fit(X, y).score(X, y)
    assert display.lines_[0].get_label() == "PGD"


# What is learned of the rows that are attacked, and of what else it takes a reference.
LEARNING = [
    ProjectedGradientDescent(eps=2.0, max_iter=5),
    ProjectedGradientDescent(eps=0.3, eps_unit="range", bounds=None, max_iter=5),
    GreedyFeatureAttack(),
    TransferAttack(
        surrogate=FrozenEstimator(victim), attack=ProjectedGradientDescent(eps=2.0)
    ),
]


@pytest.mark.parametrize("attack", LEARNING, ids=range(len(LEARNING)))
@pytest.mark.parametrize("rows", [slice(50), slice(60, 61)])
def test_ranges_are_learned_from_a_reference_or_said_to_be_of_the_rows(attack, rows):
    some, labels = X[rows], y[rows]
    alone = clone(attack).set_params(estimator=FrozenEstimator(victim))
    whole = clone(alone).fit(X).score(some, labels)
    narrow = clone(alone).fit(some, labels).score(some, labels)
    # A narrow range looks robust: that of 50 rows of one class, or of a single row.
    assert whole < narrow
    assert robust_accuracy_scorer(attack, X_ref=X)(victim, some, labels) == whole
    with pytest.warns(UserWarning, match="Give X_ref"):
        assert robust_accuracy_scorer(attack)(victim, some, labels) == narrow


@pytest.mark.filterwarnings("ignore::sklearn_advsec.exceptions.GradientMaskingWarning")
def test_displays_and_reports_learn_from_a_reference():
    attack = ProjectedGradientDescent(eps=2.0, max_iter=5)
    given = ProjectedGradientDescent(eps=2.0, max_iter=5, bounds=(X.min(0), X.max(0)))
    for call in (
        lambda **a: RobustnessCurveDisplay.from_estimator(
            victim, X[:50], y[:50], eps=[0, 0.5, 2], **a
        ).accuracy["LogisticRegression"],
        lambda **a: (
            AdversarialExamplesDisplay.from_estimator(
                victim, X[:5], y[:5], image_shape=(2, 2), **a
            ).adversarial
        ),
        lambda **a: list(
            gradient_masking_report(victim, X[:50], y[:50], black_box=False, **a).values()
        ),
    ):
        np.testing.assert_array_equal(call(attack=attack, X_ref=X), call(attack=given))
        with pytest.warns(UserWarning, match="of 1 of 3 classes|there are 5 of"):
            narrow = call(attack=attack)
        assert not np.array_equal(narrow, call(attack=given))
    found = RobustnessCurveDisplay.from_estimator(
        victim, X[:50], y[:50], attack=DeepFool(), X_ref=X
    )
    assert found.accuracy["LogisticRegression"][-1] == 0


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
    *attacked, proved = display.lines_
    assert proved.get_label().startswith("certified")
    # Told apart without colours.
    assert proved.get_linestyle() != attacked[0].get_linestyle()
    assert proved.get_marker() != attacked[0].get_marker()
    with pytest.raises(ValueError, match="certificate"):
        RobustnessCurveDisplay.from_estimator(
            victim, X, y, attack=attack, eps=eps, certificate=certify(victim, X, norm=2)
        )


def test_a_minimum_norm_attack_gives_the_whole_curve_in_one_run():
    class Counted(LogisticRegression):
        n_asked = 0

        def predict(self, X):
            Counted.n_asked += 1
            return super().predict(X)

    counted = Counted(max_iter=1000).fit(X, y)
    attack = DeepFool(norm=2, bounds=None)
    display = RobustnessCurveDisplay.from_estimator(counted, X, y, attack=attack)
    once, Counted.n_asked = Counted.n_asked, 0
    few = RobustnessCurveDisplay.from_estimator(
        counted, X, y, attack=attack, eps=[0.0, 0.2, 0.5]
    )
    assert Counted.n_asked == once  # however many bounds are drawn
    curve = display.accuracy["Counted"]
    assert curve[0] <= counted.score(X, y) and (np.diff(curve) <= 0).all()
    assert curve[-1] == 0 and len(display.eps) > 100
    # Each bound is what the distances say.
    result = attack.set_params(estimator=FrozenEstimator(counted)).fit(X).run(X, y)
    expected = [np.mean(~(result.success & (result.distance <= e))) for e in few.eps]
    np.testing.assert_array_equal(few.accuracy["Counted"], expected)
    with pytest.raises(ValueError, match="eps is needed"):
        RobustnessCurveDisplay.from_estimator(victim, X, y, attack=FastGradientMethod())
    both = {"L2": attack, "Linf": FastGradientMethod()}
    with pytest.raises(ValueError, match="one axis has one norm"):
        RobustnessCurveDisplay.from_estimator(victim, X, y, attack=both, eps=[0.1])


def test_a_result_in_hand_is_not_attacked_again():
    attack = DeepFool(FrozenEstimator(victim), norm=2, bounds=None).fit(X)
    result = attack.run(X, y)
    again = RobustnessCurveDisplay.from_estimator(victim, X, y, attack=attack)
    display = RobustnessCurveDisplay.from_result(
        result, norm=2, unit="cm", name="flowers"
    )
    np.testing.assert_array_equal(
        display.accuracy["flowers"], again.accuracy["LogisticRegression"]
    )
    assert display.ax_.get_xlabel() == "eps (L2 norm), in units of cm"
    assert again.ax_.get_xlabel() == "eps (L2 norm), in units of the features"
    two = RobustnessCurveDisplay.from_result({"a": result, "b": result}, eps=[0.0, 0.5])
    assert two.accuracy["a"].tolist() == two.accuracy["b"].tolist()
    with pytest.raises(ValueError, match="same rows"):
        RobustnessCurveDisplay.from_result({"a": result, "b": attack.run(X[:5])})


def test_curves_in_the_same_place_are_both_seen():
    y_pred = np.array([y, np.where(np.arange(150) < 30, -1, y)])
    display = RobustnessCurveDisplay.from_predictions(
        y, {"one": y_pred, "two": y_pred, "three": y_pred}, eps=[0.0, 0.1], norm=np.inf
    )
    styles = [
        (line.get_linestyle(), line.get_marker(), line.get_linewidth())
        for line in display.lines_
    ]
    for kinds in zip(*styles, strict=True):
        assert len(set(kinds)) == 3
    widths = [line.get_linewidth() for line in display.lines_]
    assert widths == sorted(widths, reverse=True)  # the later one is drawn on top
    assert display.ax_.get_xlabel() == "eps (Linf norm)"
    other = RobustnessCurveDisplay.from_predictions(
        y, y_pred, eps=[0.0, 0.1], ax=display.ax_, name="mine", lw=7, color="red"
    )
    assert other.lines_[0].get_linewidth() == 7 and len(other.ax_.lines) == 4


def test_abstaining_rows_stand_in_the_curve():
    scaled = (X - X.min(0)) / np.ptp(X, 0)
    defense = AdversarialDetector(
        LogisticRegression(C=10, max_iter=1000),
        detector="uncertainty",
        fpr=0.2,
        abstain_label=-1,
    ).fit(scaled, y)
    attack = ProjectedGradientDescent(bounds=(0, 1), early_stopping=False)
    display = RobustnessCurveDisplay.from_estimator(
        defense, scaled, y, attack=attack, eps=[0.0, 0.05]
    )
    (curve,) = display.accuracy.values()
    assert curve[0] == np.mean(defense.predict(scaled) == y)
    attack.set_params(eps=0.05)
    assert curve[1] == robust_accuracy_scorer(attack)(defense, scaled, y)


def test_failed_attacks_are_marked_and_the_change_has_a_scale():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    digits = LogisticRegression(max_iter=1000).fit(X, y)
    attack = FastGradientMethod(FrozenEstimator(digits), eps=0.03, bounds=(0, 1)).fit(X)
    result = attack.run(X[:12], y[:12])
    assert 0 < result.success.sum() < 12
    display = AdversarialExamplesDisplay.from_result(
        result, image_shape=(8, 8), name="weak"
    )
    marked = ["failed" in ax.get_title() for ax in display.axes_[2]]
    assert marked == (~result.success).tolist()
    assert [ax.get_title() for ax in display.axes_[0]] == y[:12].astype(str).tolist()
    bar = [ax for ax in display.figure_.axes if ax.get_label() == "<colorbar>"]
    assert len(bar) == 1 and bar[0].get_ylabel() == "change"
    low, high = display.axes_[1, 0].images[0].get_clim()
    assert high == -low == np.abs(result.X_adv - X[:12]).max()
    assert display.figure_.get_suptitle() == "weak"
    figure, (left, right) = plt.subplots(1, 2)
    inside = AdversarialExamplesDisplay.from_predictions(
        X[:3], result.X_adv[:3], y[:3], y[:3], image_shape=(8, 8), ax=right, cmap="bone"
    )
    assert inside.figure_ is figure and inside.axes_[0, 0].images[0].cmap.name == "bone"
    assert all("failed" in ax.get_title() for ax in inside.axes_[2])
    color = np.random.RandomState(0).rand(2, 3, 4, 4)
    AdversarialExamplesDisplay.from_predictions(color, color[::-1], [0, 1], [1, 1])


def test_extraction_curve_of_predictions():
    display = ExtractionCurveDisplay.from_predictions(
        y, [np.zeros(150, int), y], n_queries=[10, 20], name="copy"
    )
    np.testing.assert_allclose(display.fidelity, [1 / 3, 1])
    assert display.line_.get_label() == "copy"
    failed = ExtractionCurveDisplay(np.array([5, 9]), np.array([np.nan, 1.0]))
    failed.plot(ax=display.ax_, name="other")
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "no copy for so few" in texts
    assert failed.line_.get_linestyle() != display.line_.get_linestyle()
    with pytest.raises(ValueError, match="y_copies"):
        ExtractionCurveDisplay.from_predictions(y, [y], n_queries=[10, 20])


def test_results_say_what_their_axis_measures():
    frozen = FrozenEstimator(victim)
    results = {}
    for p in (2, np.inf):
        attack = ProjectedGradientDescent(frozen, norm=p, eps=1.0, max_iter=5)
        results[f"PGD {p}"] = attack.fit(X).run(X[::10], y[::10])
    display = RobustnessCurveDisplay.from_result(results["PGD 2"])
    assert display.ax_.get_xlabel() == "eps (L2 norm), in units of the features"
    with pytest.raises(ValueError, match="one norm and unit"):
        RobustnessCurveDisplay.from_result(results)
    assert "(Linf in each feature's own unit)" in repr(results["PGD inf"])
    constraints = FeatureConstraints.from_frame(pd.DataFrame(X, columns=list("abcd")))
    attack = ProjectedGradientDescent(frozen, eps=1.0, constraints=constraints)
    result = attack.fit(X).run(X[::10], y[::10])
    assert result.select(result.success).unit == "scale"
    assert (
        "constraints' scale"
        in RobustnessCurveDisplay.from_result(result).ax_.get_xlabel()
    )


def test_copies_and_rounds_in_hand_are_drawn_as_they_are():
    frozen = FrozenEstimator(victim)
    copies = [
        KnockoffNets(frozen, max_queries=n, random_state=0).fit(X) for n in (60, 20)
    ]
    display = ExtractionCurveDisplay.from_result(copies, X)
    assert display.n_queries.tolist() == [20, 60]
    assert display.fidelity[1] == copies[0].fidelity(X)
    with pytest.raises(ValueError, match="copies is empty"):
        ExtractionCurveDisplay.from_result([], X)
    game = MembershipGame(DecisionTreeClassifier(random_state=0), random_state=0)
    played = next(iter(game.play(X, y)))
    attack = LossThreshold(played.target).fit(played.records[::2], played.membership[::2])
    roc = MembershipRocDisplay.from_result(played, attack)
    assert 0.5 < roc.roc_auc <= 1
