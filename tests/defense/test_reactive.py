"""Defenses around a trained classifier, and the attacks that know them."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from nets import net
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC

from sklearn_advsec import differentiable
from sklearn_advsec.defense import (
    AdversarialDetector,
    AdversarialTrainingClassifier,
    FeatureNoise,
    FeatureSqueezing,
    JPEGCompression,
    LabelSmoothingClassifier,
    MagNet,
    RandomDepthwiseSignedClassifier,
    RandomizedSmoothingClassifier,
)
from sklearn_advsec.defense._reactive._magnet import jensen_shannon
from sklearn_advsec.evasion import (
    ExpectationOverTransformation,
    GaussianNoise,
    ProjectedGradientDescent,
    TransferAttack,
)
from sklearn_advsec.exceptions import BadAnswerError, GradientMaskingWarning
from sklearn_advsec.metrics import gradient_masking_report, robust_accuracy_scorer
from sklearn_advsec.metrics._masking import _warn

PGD = ProjectedGradientDescent(eps=0.15, max_iter=20, bounds=(0, 1))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.3, random_state=0, stratify=y)


@pytest.fixture(scope="module")
def victim(digits):
    return LogisticRegression(max_iter=1000).fit(digits[0], digits[2])


@pytest.fixture(scope="module")
def magnet(digits, victim):
    model = MagNet(
        FrozenEstimator(victim), bounds=(0, 1), max_epochs=60, learning_rate=0.01
    )
    return model.fit(digits[0])


def adversarial(model, X, y, attack=PGD):
    attack = clone(attack).set_params(estimator=FrozenEstimator(model))
    return attack.fit(X).run(X, y).X_adv


def test_squeezing_leaves_few_values_and_filters(digits):
    X = digits[0][:20]
    squeezed = FeatureSqueezing(2, bounds=(0, 1)).fit_transform(X)
    assert set(np.unique(squeezed)) <= {0.0, 1 / 3, 2 / 3, 1.0}
    assert np.abs(squeezed - X).max() <= 1 / 6 + 1e-9
    spot = np.zeros((1, 1, 5, 5))
    spot[0, 0, 2, 2] = 1.0
    filtered = FeatureSqueezing(None, window=3, bounds=(0, 1)).fit_transform(spot)
    assert (filtered == 0).all()
    wide = FeatureSqueezing(1).fit(10 * X)  # the range is learned: one for all columns?
    assert set(np.unique(wide.transform(10 * X)[:, 20])) <= {
        wide.lower_[20],
        wide.lower_[20] + wide.width_[20],
    }
    with pytest.raises(ValueError, match="image_shape"):
        FeatureSqueezing(window=3).fit_transform(X)


def test_jpeg_is_the_one_of_the_attacks_and_its_own_fixed_point(digits):
    X = digits[0][:20]
    jpeg = JPEGCompression(50, image_shape=(8, 8), bounds=(0, 1)).fit(X)
    once = jpeg.transform(X)
    # Compressed pictures are cut off at 0 and 1, all else stays in a second pass.
    inside = ((once > 0.01) & (once < 0.99)).all(axis=1)
    np.testing.assert_allclose(jpeg.transform(once)[inside], once[inside], atol=1e-9)
    finer = JPEGCompression(95, image_shape=(8, 8), bounds=(0, 1)).fit(X)
    assert np.abs(finer.transform(X) - X).mean() < np.abs(once - X).mean() / 2


@pytest.mark.parametrize(
    "transformer",
    [
        FeatureSqueezing(3),
        FeatureSqueezing(3, window=2, image_shape=(8, 8)),
        JPEGCompression(60, image_shape=(8, 8)),
        FeatureNoise(0.1),
        FeatureNoise(0.1, distribution="uniform"),
    ],
    ids=str,
)
def test_views_agree_and_have_a_gradient(transformer, digits):
    X = digits[0][:30]
    transformer = clone(transformer).fit(X)
    x = torch.as_tensor(X).requires_grad_()
    out = differentiable.view(transformer).transform(x)
    np.testing.assert_allclose(out.detach().numpy(), transformer.transform(X), atol=1e-9)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.abs().mean() > 0.1
    low = transformer.transform(X.astype(np.float32))
    assert low.dtype == np.float32 and np.abs(low - transformer.transform(X)).max() < 0.4


def test_noise_belongs_to_the_row():
    X = np.random.RandomState(0).rand(50, 6)
    noise = FeatureNoise(0.2, bounds=(0, 1)).fit(X)
    out = noise.transform(X)
    np.testing.assert_array_equal(noise.transform(X[::-1])[::-1], out)
    assert np.std(out - X) == pytest.approx(0.2, rel=0.2)
    assert abs(np.corrcoef((out - X)[0], (out - X)[1])[0, 1]) < 0.95
    fresh = FeatureNoise(0.2, bounds=(0, 1), random_state=None).fit(X)
    assert (fresh.transform(X) != fresh.transform(X)).all()


def test_squeezing_only_hides_gradients(digits, victim):
    """Rows made without it are handled, rows made through it are not (BPDA)."""
    X, X_test, y, y_test = digits
    X_test, y_test = X_test[:100], y_test[:100]
    model = make_pipeline(FeatureSqueezing(1, bounds=(0, 1)), LogisticRegression())
    model.fit(X, y)
    clean = model.score(X_test, y_test)
    adaptive = model.score(adversarial(model, X_test, y_test), y_test)
    unaware = model.score(adversarial(victim, X_test, y_test), y_test)
    assert clean > 0.85 and unaware > adaptive + 0.1
    # Without the declared backward pass, the gradient is zero and the attack fails.
    view = differentiable.view(model)
    x = torch.as_tensor(X_test).requires_grad_()
    blind = torch.round(x)
    assert torch.autograd.grad(blind.sum(), x)[0].abs().max() == 0
    assert torch.autograd.grad(view.logits(x).max(), x)[0].abs().max() > 0


def test_attacks_that_know_the_noise_go_around_it(digits, victim):
    X, X_test, y, y_test = digits
    X_test, y_test = X_test[:60], y_test[:60]
    model = make_pipeline(FeatureNoise(0.2, bounds=(0, 1)), FrozenEstimator(victim))
    model.fit(X, y)
    clean = model.score(X_test, y_test)
    # Every row has noise of its own: an attack finds one whose noise helps it.
    searched = model.score(adversarial(model, X_test, y_test), y_test)
    # What wins on average over the noise does not need such luck.
    eot = ExpectationOverTransformation(
        attack=clone(PGD), transformations=[GaussianNoise(0.2)], n_samples=10
    )
    averaged = model.score(adversarial(model, X_test, y_test, eot), y_test)
    assert searched < clean - 0.5 and averaged < clean - 0.3


def test_squeezing_in_front_of_a_table_is_attacked_by_the_names_of_its_columns():
    frame, y = load_breast_cancer(return_X_y=True, as_frame=True)
    frame[:] = MinMaxScaler().fit_transform(frame)
    model = make_pipeline(FeatureSqueezing(3), LogisticRegression()).fit(frame, y)
    plain = make_pipeline(FeatureSqueezing(3), LogisticRegression())
    plain.fit(frame.to_numpy(), y)
    robust = robust_accuracy_scorer(clone(PGD).set_params(eps=0.1))
    assert robust(model, frame, y) == robust(plain, frame.to_numpy(), y) < 0.8


@pytest.mark.long
def test_magnet_detects_reforms_and_breaks(digits, magnet, victim):
    X, X_test, y, y_test = digits
    X_test, y_test = X_test[:200], y_test[:200]
    assert magnet.detect(X_test).mean() < 0.1
    assert magnet.score(X_test, y_test) > 0.9
    assert set(magnet.thresholds_) == {"l2", "l1", "jsd 10", "jsd 40"}
    unaware = adversarial(victim, X_test, y_test)
    handled = magnet.detect(unaware) | (magnet.predict(unaware) == y_test)
    assert handled.mean() > victim.score(unaware, y_test) + 0.3
    # An attack on classifier and reformer together goes around the reformer.
    adaptive = adversarial(magnet, X_test, y_test)
    assert magnet.score(adaptive, y_test) < magnet.score(unaware, y_test) - 0.2
    assert (magnet.predict(X_test) == victim.predict(magnet.reconstruct(X_test))).all()


def test_magnet_pieces(digits, magnet, victim):
    X, X_test, y, y_test = digits
    a, b = (torch.log_softmax(v, 1) for v in torch.randn(2, 6, 10).double())
    np.testing.assert_array_less(0, jensen_shannon(a, b, 1.0).numpy())
    torch.testing.assert_close(jensen_shannon(a, a, 10.0), torch.zeros(6).double())
    assert (jensen_shannon(a, b, 1.0) < np.log(2)).all()
    view = differentiable.view(magnet)
    got = view.predict_proba(torch.as_tensor(X_test[:50])).numpy()
    np.testing.assert_allclose(got, magnet.predict_proba(X_test[:50]), atol=1e-6)
    plain = MagNet(FrozenEstimator(victim), reform=False, detectors=("l2",), max_epochs=1)
    plain.set_params(image_shape=(8, 8), abstain_label=-1, bounds=(0, 1)).fit(X[:200])
    np.testing.assert_array_equal(
        plain.predict(X_test), np.where(plain.detect(X_test), -1, victim.predict(X_test))
    )
    scores = plain.detection_scores(X[:200])["l2"]
    rows = plain.autoencoders_[0](plain._scaled(torch.as_tensor(X[:200])))
    error = ((rows.reshape(200, -1).numpy() - X[:200]) ** 2).mean(1)
    np.testing.assert_allclose(scores, error, rtol=1e-2)
    again = pickle.loads(pickle.dumps(magnet))
    np.testing.assert_array_equal(again.detect(X_test), magnet.detect(X_test))


def test_magnet_on_tables_frames_and_nets():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X[:] = MinMaxScaler().fit_transform(X)
    names = np.where(y == 1, "good", "bad")
    frozen = FrozenEstimator(LogisticRegression().fit(X, names))
    magnet = MagNet(frozen, max_epochs=15, learning_rate=0.01, fpr=0.05).fit(X)
    assert magnet.score(X, names) > 0.85 and magnet.detect(X).mean() < 0.15
    assert magnet.detect(pd.DataFrame(1 - X, columns=X.columns)).mean() > 0.9
    around_net = MagNet(net(max_epochs=5), max_epochs=5).fit(X.to_numpy(), names)
    assert set(around_net.predict(X.to_numpy())) <= {"good", "bad"}
    margins = MagNet(LinearSVC(), detectors=("jsd",), max_epochs=2).fit(X.to_numpy(), y)
    assert not hasattr(margins, "predict_proba")
    assert list(margins.thresholds_) == ["jsd 10", "jsd 40"]
    with pytest.raises(ValueError, match="detectors"):
        MagNet(frozen, detectors=("l3",)).fit(X)
    with pytest.raises(ValueError, match="requires y"):
        MagNet(LogisticRegression()).fit(X)


@pytest.mark.parametrize(
    "score",
    [
        "squeezing",
        "uncertainty",
        IsolationForest(random_state=0),
        lambda estimator, X: -np.abs(estimator.decision_function(X)).max(1),
    ],
    ids=["squeezing", "uncertainty", "outliers", "callable"],
)
def test_detectors_keep_their_false_positive_rate(score, digits, victim):
    X, X_test, y, y_test = digits
    detector = AdversarialDetector(
        FrozenEstimator(victim),
        detector=score,
        image_shape=(8, 8),
        fpr=0.1,
        abstain_label=-1,
    ).fit(X)
    assert detector.detect(X).mean() == pytest.approx(0.1, abs=0.01)
    assert detector.detect(X_test).mean() < 0.17
    rejected = detector.predict(X_test) == -1
    np.testing.assert_array_equal(rejected, detector.detect(X_test))
    kept = ~rejected
    np.testing.assert_array_equal(
        detector.predict(X_test)[kept], victim.predict(X_test)[kept]
    )


def test_a_detector_is_evaded_by_going_further(digits, victim):
    X, X_test, y, y_test = digits
    X_test, y_test = X_test[:100], y_test[:100]
    detector = AdversarialDetector(FrozenEstimator(victim), detector="uncertainty").fit(X)
    weak = adversarial(victim, X_test, y_test)  # stops at the boundary
    fooled = victim.predict(weak) != y_test
    assert fooled.mean() > 0.7 and detector.detect(weak)[fooled].mean() > 0.8
    further = clone(PGD).set_params(eps=0.3, early_stopping=False)
    strong = adversarial(victim, X_test, y_test, further)
    assert (victim.predict(strong) != y_test).mean() > 0.9
    assert detector.detect(strong).mean() < 0.3


def test_detector_errors(digits, victim):
    X = digits[0][:50]
    wrong = AdversarialDetector(FrozenEstimator(victim), detector=lambda e, X: X)
    with pytest.raises(ValueError, match="one number per row"):
        wrong.fit(X)
    with pytest.raises(ValueError, match="detector"):
        AdversarialDetector(FrozenEstimator(victim), detector="magic").fit(X)
    with pytest.raises(TypeError, match="got the class IsolationForest"):
        AdversarialDetector(FrozenEstimator(victim), detector=IsolationForest).fit(X)


def test_thresholds_of_each_class_spare_a_rare_one():
    """One threshold for all puts the alarms where the classifier is least sure."""
    X, y = make_classification(
        6000, 8, n_informative=4, weights=[0.95], class_sep=2.0, random_state=1
    )
    X, X_new, y = X[::2], X[1::2], y[::2]
    victim = FrozenEstimator(LogisticRegression().fit(X, y))
    detector = AdversarialDetector(victim, detector="uncertainty")
    rare, alarms = victim.predict(X_new) == 1, {}
    for per_class in (False, True):
        fitted = clone(detector).set_params(per_class=per_class).fit(X)
        detected = fitted.detect(X_new)
        alarms[per_class] = detected[rare].mean(), detected[~rare].mean()
    assert alarms[False][0] > 0.5 and alarms[False][1] < 0.06
    assert alarms[True][0] < 0.1 and alarms[True][1] < 0.06
    magnet = MagNet(victim, max_epochs=2, per_class=True, validation_fraction=0.9)
    magnet.set_params(fpr=0.08).fit(X)
    assert {t.shape for t in magnet.thresholds_.values()} == {(2,)}
    assert 0 < magnet.detect(X).mean() < 0.09
    for defense in (detector, magnet):
        with pytest.raises(ValueError, match="per_class"):
            clone(defense).set_params(per_class="yes").fit(X)


def test_ranges_and_parameters_are_validated(digits, victim):
    X = digits[0][:40]
    for transformer in (FeatureSqueezing, JPEGCompression, FeatureNoise):
        for bounds in ((-np.inf, np.inf), (0, np.inf), (1, 0), (np.nan, 1), (0.5, 1)):
            with pytest.raises(ValueError, match="bounds"):
                transformer(bounds=bounds).fit(X)
    frozen = FrozenEstimator(victim)
    with pytest.raises(ValueError, match="bounds must be finite"):
        MagNet(frozen, bounds=(-np.inf, np.inf)).fit(X)
    for temperatures in ((0,), (np.nan,), (-1, 10)):
        with pytest.raises(ValueError, match="temperatures"):
            MagNet(frozen, temperatures=temperatures).fit(X)
    squeezed = FeatureSqueezing(np.int8(8), bounds=(0, 1)).fit_transform(X)
    np.testing.assert_allclose(squeezed, X, atol=1 / 255)
    many = MagNet(frozen, max_epochs=1, batch_size=np.int64(8)).fit(X)
    few = MagNet(frozen, max_epochs=1, batch_size=8).fit(X)
    np.testing.assert_array_equal(many.reconstruct(X), few.reconstruct(X))


@pytest.mark.parametrize(
    "defense",
    [AdversarialDetector, MagNet, RandomizedSmoothingClassifier],
    ids=lambda d: d.__name__,
)
def test_what_is_no_classifier_is_refused(defense, digits):
    X, y = digits[0][:60], digits[2][:60]
    for estimator, kind in (
        (Ridge(), "regressor"),
        (make_pipeline(MinMaxScaler(), Ridge()), "regressor"),
        (FrozenEstimator(Ridge().fit(X, y)), "regressor"),
        (KMeans(2), "clusterer"),
        (IsolationForest(), "outlier detector"),
    ):
        with pytest.raises(TypeError, match=f"must be a classifier.*{kind}"):
            defense(estimator).fit(X, y)
    with pytest.raises(TypeError, match="must be a classifier"):
        AdversarialTrainingClassifier(Ridge()).fit(X, y)


class Broken(LogisticRegression):
    """Answers something bad once it is trained."""

    def predict(self, X):
        return np.full(len(X), 77)

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), np.nan)


def test_answers_of_the_classifier_are_checked(digits):
    X, y = digits[0][:100], digits[2][:100]
    with pytest.raises(BadAnswerError, match="finite"):
        AdversarialDetector(Broken()).fit(X, y)
    outliers = IsolationForest(n_estimators=5, random_state=0)
    detector = AdversarialDetector(Broken(), detector=outliers).fit(X, y)
    smooth = RandomizedSmoothingClassifier(Broken(), n_samples=3).fit(X, y)
    for defense in (detector, smooth):
        with pytest.raises(BadAnswerError, match="returned 77"):
            defense.predict(X)


def test_random_signed_network(digits):
    X, X_test, y, y_test = digits
    signed = RandomDepthwiseSignedClassifier(150, image_shape=(8, 8)).fit(X, y)
    assert signed.score(X_test, y_test) > 0.85
    assert len(pickle.dumps(signed)) < 150 * 10 * 8 * 4  # the filters are not stored
    view = differentiable.view(signed)
    x = torch.as_tensor(X_test[:40]).requires_grad_()
    logits = view.logits(x)
    np.testing.assert_allclose(
        logits.detach().numpy(), signed.decision_function(X_test[:40]), atol=1e-5
    )
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert gradient.abs().max() > 0
    held = [
        robust_accuracy_scorer(attack)(signed, X_test[:40], y_test[:40])
        for attack in (
            ProjectedGradientDescent(eps=0.1, max_iter=10, bounds=(0, 1)),
            TransferAttack(
                surrogate=FrozenEstimator(LogisticRegression(max_iter=1000).fit(X, y)),
                attack=ProjectedGradientDescent(eps=0.1, max_iter=10, bounds=(0, 1)),
            ),
        )
    ]
    assert held[0] < 0.7 < signed.score(X_test[:40], y_test[:40])
    assert held[0] < held[1]
    many = clone(signed).set_params(n_jobs=2).fit(X[:200], y[:200])
    one = clone(signed).fit(X[:200], y[:200])
    np.testing.assert_array_equal(many.predict(X_test), one.predict(X_test))


@pytest.mark.long
def test_grid_search_through_defenses(digits):
    X, y = digits[0][:150].astype(np.float32), digits[2][:150]
    cases = [
        (
            MagNet(LogisticRegression(), max_epochs=1),
            {"reform": [True, False], "estimator__C": [0.1, 1.0]},
        ),
        (
            make_pipeline(FeatureSqueezing(), LogisticRegression()),
            {"featuresqueezing__bits": [1, 4], "logisticregression__C": [1.0]},
        ),
        (
            AdversarialDetector(LabelSmoothingClassifier(net(max_epochs=1))),
            {"estimator__smoothing": [0.1], "fpr": [0.0, 0.2]},
        ),
        (RandomDepthwiseSignedClassifier(20), {"C": [0.01, 1.0]}),
    ]
    for model, grid in cases:
        for name in model.get_params():
            if name.endswith("estimator__random_state"):
                model.set_params(**{name: 0})
        one, two = (
            GridSearchCV(model, grid, cv=2, n_jobs=n_jobs, error_score="raise")
            .fit(X, y)
            .cv_results_["mean_test_score"]
            for n_jobs in (1, 2)
        )
        np.testing.assert_array_equal(one, two)


class _Rounded(LogisticRegression):
    """Hides its gradient: rounds its input, and declares no backward pass."""

    def predict_proba(self, X):
        return super().predict_proba(np.round(np.asarray(X) * 2) / 2)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


def _constant_gradient(estimator):
    view = differentiable.view(LogisticRegression().fit(np.eye(64)[:2], [0, 1])).__class__
    weight = torch.as_tensor(estimator.coef_)
    bias = torch.as_tensor(estimator.intercept_)

    def logits(x):
        rounded = torch.round(x.detach() * 2) / 2 + 0 * x
        return rounded @ weight.T + bias

    return view(estimator.classes_, logits=logits)


@pytest.mark.long
def test_masked_gradients_are_noticed_and_sound_models_are_not(digits, victim, recwarn):
    X, X_test, y, y_test = digits
    X_test, y_test = X_test[:120], y_test[:120]
    report = gradient_masking_report(victim, X_test, y_test, PGD, surrogate=victim)
    assert not [w for w in recwarn if w.category is GradientMaskingWarning]
    assert report["white box"] <= report["one step"] <= report["clean"]
    assert report["unbounded"] == 0.0 and report["noise"] > report["white box"]
    differentiable.register(_Rounded)(_constant_gradient)
    masked = _Rounded(max_iter=1000).fit(X, y)
    with pytest.warns(GradientMaskingWarning, match="black box"):
        report = gradient_masking_report(masked, X_test, y_test, PGD)
    assert report["black box"] < report["white box"] == report["clean"]
    with pytest.warns(GradientMaskingWarning, match="transfer"):
        gradient_masking_report(
            masked, X_test, y_test, PGD, black_box=False, surrogate=victim
        )
    scorer = robust_accuracy_scorer(PGD, check_masking=True)
    with pytest.warns(GradientMaskingWarning):
        scorer(masked, X_test, y_test)
    with pytest.raises(TypeError, match="gradient attack"):
        gradient_masking_report(victim, X_test, y_test, TransferAttack())


@pytest.mark.parametrize("sign", ["noise", "one step", "black box", "transfer"])
def test_what_should_be_weaker_and_is_stronger_is_a_sign(sign, recwarn):
    rows = np.arange(100)
    right = {"white box": rows < 80, "unbounded": rows < 0}
    _warn(right | {sign: rows < 75})  # five of a hundred may be chance
    assert not recwarn
    with pytest.warns(GradientMaskingWarning, match=f"{sign}: accuracy 0.500"):
        _warn(right | {sign: rows < 50})
    with pytest.warns(GradientMaskingWarning, match="unbounded: accuracy 0.790"):
        _warn(right | {"unbounded": rows < 79})


def test_bpda_takes_the_given_backward_pass():
    view = differentiable.bpda(np.sign, backward=torch.tanh)
    x = torch.tensor([[0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    out = view.transform(x)
    assert out.tolist() == [[1.0, -1.0]]
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, 1 - torch.tanh(x.detach()) ** 2)
