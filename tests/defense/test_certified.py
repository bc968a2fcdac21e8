"""Certificates: exact ones against their definition, bounds against every attack."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_config
from nets import net
from scipy.optimize import minimize
from scipy.stats import norm as normal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from skorch import NeuralNetBinaryClassifier
from torch import nn

from sklearn_advsec import differentiable
from sklearn_advsec.defense import (
    Certificate,
    IntervalBoundClassifier,
    LabelSmoothingClassifier,
    RandomizedSmoothingClassifier,
    certify,
)
from sklearn_advsec.defense._certified._exact_distances import neighbour_distance
from sklearn_advsec.evasion import (
    CarliniWagner,
    DeepFool,
    FastMinimumNorm,
    HopSkipJump,
    ProjectedGradientDescent,
)
from sklearn_advsec.metrics import certified_accuracy_scorer
from sklearn_advsec.pretrained import PretrainedModule

X, y = load_iris(return_X_y=True)
X = MinMaxScaler().fit_transform(X)


class Residual(nn.Module):
    """With every kind of layer that intervals know."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(64, n_classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = self.pool(x + torch.tanh(self.second(x)) - 0.1)
        x = nn.functional.avg_pool2d(x, 1)
        return self.last(self.drop(x.view(x.size(0), -1)))


class Chain(nn.Module):
    """Convolutions, normalisation, ReLUs: what linear bounds know."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Linear(64, 12)
        self.last = nn.Linear(12, n_classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x))).flatten(1)
        return self.last(nn.functional.relu(self.second(x)))


@pytest.fixture(scope="module")
def images():
    digits, labels = load_digits(return_X_y=True)
    return (digits / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels


def perceptron(widths):
    return MLPClassifier(
        widths, solver="lbfgs", max_iter=5000, alpha=0.01, random_state=0
    )


def attacked(estimator, rows, labels, attacks):
    """The smallest perturbation that any of some attacks finds, per row."""
    found = [
        a.set_params(estimator=FrozenEstimator(estimator)).fit(rows).run(rows, labels)
        for a in attacks
    ]
    return np.min([np.where(r.success, r.distance, np.inf) for r in found], axis=0)


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(C=10),
        LinearSVC(random_state=0, dual=False),
        make_pipeline(StandardScaler(), PCA(3), LogisticRegression(C=10)),
    ],
    ids=["softmax", "one against rest", "pipeline"],
)
def test_linear_distance_is_that_of_the_attack_and_of_the_definition(model, norm):
    model.fit(X, y)
    certificate = certify(model, X, norm=norm)
    attack = FastMinimumNorm(norm=norm, bounds=None, max_iter=200)
    found = attacked(model, X, certificate.y_pred, [attack])
    assert (found >= certificate.radius * (1 - 1e-9)).all()
    assert np.median(found / certificate.radius) < 1.05
    np.testing.assert_array_equal(certificate.y_pred, model.predict(X))


def test_two_classes_have_a_distance_in_closed_form():
    data, labels = load_breast_cancer(return_X_y=True)
    data = StandardScaler().fit_transform(data)
    model = LogisticRegression().fit(data, labels)
    expected = np.abs(model.decision_function(data)) / np.linalg.norm(model.coef_)
    np.testing.assert_allclose(certify(model, data, norm=2).radius, expected)


def test_one_neighbour_against_a_general_solver(monkeypatch):
    rng = np.random.RandomState(0)
    rows, labels = rng.randn(60, 2), rng.randint(2, size=60)
    model = KNeighborsClassifier(1).fit(rows, labels)
    points = rng.randn(6, 2)
    certificate = certify(model, points, norm=2)
    for x, label, radius in zip(
        points, certificate.y_pred, certificate.radius, strict=True
    ):
        same, other = rows[labels == label], rows[labels != label]
        best = np.inf
        for q in other:
            constraint = {
                "type": "ineq",
                "fun": lambda z, q=q, p=same: (
                    ((z - p) ** 2).sum(1) - ((z - q) ** 2).sum()
                ),
            }
            solved = minimize(
                lambda z, x=x: ((z - x) ** 2).sum(), q, constraints=constraint
            )
            if solved.success:
                best = min(best, np.sqrt(solved.fun))
        assert radius == pytest.approx(best, abs=1e-4)
        # Inside, nothing changes; directions at random.
        step = rng.randn(500, 2)
        step *= 0.999 * radius / np.linalg.norm(step, axis=1, keepdims=True)
        assert (model.predict(x + step) == label).all()
    monkeypatch.setattr("sklearn_advsec.defense._certified._exact_distances._NEAREST", 1)
    again = certify(model, points, norm=2).radius  # constraints enter one by one
    np.testing.assert_allclose(again, certificate.radius, rtol=1e-6)


def test_one_neighbour_on_digits_is_not_beaten(images):
    rows, labels = images[0].reshape(len(images[0]), -1).astype(np.float64), images[1]
    model = KNeighborsClassifier(1).fit(rows[:500], labels[:500])
    some = rows[500:515]
    radius = certify(model, some, norm=2).radius
    found = attacked(model, some, None, [CarliniWagner(bounds=None, max_iter=50)])
    assert (radius > 0).all() and (found >= radius).all()
    twice = np.vstack([rows[:1], rows[:1], rows[1:2]])  # two labels on one point
    assert neighbour_distance(twice, np.array([0, 1, 1]), rows[:1], np.array([0])) == 0


@pytest.mark.parametrize("module", [Residual, Chain])
def test_intervals_contain_what_random_points_give(module, images):
    from sklearn_advsec.defense._certified._intervals import IntervalInterpreter, trace
    from sklearn_advsec.defense._certified._linear_bounds import Ball

    torch.manual_seed(0)
    network = module().train()
    x = torch.as_tensor(images[0][:16])
    with torch.no_grad():
        network(x)  # running statistics
        network.eval()
        ball = Ball(x, torch.full((16,), 0.05), np.inf, 0.0, 1.0)
        bounds = IntervalInterpreter(trace(network)).run(ball.box)
        for _ in range(50):
            share = torch.rand_like(x).round()  # corners
            point = ball.box.lower + share * (ball.box.upper - ball.box.lower)
            out = network(point)
            assert (out >= bounds.lower - 1e-5).all()
            assert (out <= bounds.upper + 1e-5).all()
        point = ball.box.lower, ball.box.upper
        assert point[0].min() >= 0 and point[1].max() <= 1


@pytest.mark.long
def test_bounds_are_ordered_and_below_every_attack(images):
    rows, labels = images
    model = IntervalBoundClassifier(
        net(Chain, max_epochs=10, lr=0.005), eps=0.03, bounds=(0, 1), random_state=0
    ).fit(rows[:600], labels[:600])
    some, right = rows[600:610], labels[600:610]
    assert model.score(some, right) > 0.7
    radius = {
        method: certify(model, some, method=method, bounds=(0, 1)).radius
        for method in ("ibp", "crown-ibp", "crown")
    }
    assert (radius["crown-ibp"] >= radius["ibp"] - 1e-4).all()
    assert radius["crown"].mean() >= radius["crown-ibp"].mean()
    attacks = [FastMinimumNorm(norm=np.inf, bounds=(0, 1), max_iter=100)]
    found = attacked(model, some, model.predict(some), attacks)
    assert (found >= radius["crown"]).all()
    assert radius["crown"].mean() > 0.5 * found[np.isfinite(found)].mean()
    two = certify(model, some, norm=2)
    found = attacked(model, some, two.y_pred, [FastMinimumNorm(norm=2, bounds=None)])
    assert (found >= two.radius).all() and two.radius.mean() > 0.2 * found.mean()
    for method in radius:
        once = certify(model, some, method=method, bounds=(0, 1), eps=0.02)
        agree = (once.radius == 0.02) == (radius[method] >= 0.02)
        assert agree.mean() > 0.95  # the bisection ends next to it


def test_a_perceptron_of_two_classes_and_its_linear_regions():
    model = perceptron((8,)).fit(X, y == 0)
    certificate = certify(model, X, norm=2)
    found = attacked(model, X, certificate.y_pred, [DeepFool(norm=2, bounds=None)])
    assert (found >= certificate.radius).all()
    assert certificate.radius.mean() > 0.7 * found.mean()
    # Without hidden units there is nothing to bound: linear bounds are exact.
    flat = perceptron(()).fit(X, y)
    exact = certify(flat, X).radius
    bound = certify(flat, X, method="crown").radius
    np.testing.assert_allclose(bound, exact, atol=2e-4)


def test_a_network_behind_a_scaler_is_certified_as_the_network_itself(images):
    rows, labels = images[0].reshape(len(images[0]), -1), images[1]
    model = make_pipeline(
        StandardScaler(with_std=False),
        LabelSmoothingClassifier(net(max_epochs=3), random_state=0),
    ).fit(rows[:300], labels[:300])
    some = rows[300:310]
    whole, inside = certify(model, some), certify(model[-1], model[0].transform(some))
    np.testing.assert_allclose(whole.radius, inside.radius, atol=1e-4)
    assert whole.radius.max() > 0.005


def test_smoothed_linear_classifier_has_the_radius_of_theory():
    # Under noise, a linear classifier of two classes keeps its plane, and the share of
    # its vote is a normal distribution's: the radius is the distance (Cohen, section 3).
    rows, labels = X[:100], y[:100]
    linear = LogisticRegression(C=100).fit(rows, labels)
    smooth = RandomizedSmoothingClassifier(
        FrozenEstimator(linear), sigma=0.4, n_samples=200, n_certify=5000
    ).fit(rows)
    distance = certify(linear, rows, norm=2).radius
    certificate = smooth.certify(rows)
    assert (certificate.radius <= distance)[~np.isnan(certificate.radius)].all()
    limit = 0.4 * normal.ppf(0.001 ** (1 / 5000))
    close = np.minimum(distance, limit)
    assert np.nanmean(close - certificate.radius) < 0.1
    share = normal.cdf(
        linear.decision_function(rows) / np.linalg.norm(linear.coef_) / 0.4
    )
    np.testing.assert_allclose(smooth.predict_proba(rows)[:, 1], share, atol=0.12)
    assert certificate.confidence == 0.999 and certificate.norm == 2


@pytest.mark.long
def test_no_attack_beats_a_smoothing_certificate(n_trials=10_000):
    """Perturbations inside of the radii, random and by gradients, and the smallest."""
    smooth = RandomizedSmoothingClassifier(
        perceptron((8,)), sigma=0.15, n_samples=400, n_certify=2000, alpha=1e-4
    ).fit(X, y)
    certificate = smooth.certify(X[::3])
    keep = certificate.radius > 0
    rows, labels = X[::3][keep], certificate.y_pred[keep]
    radius = 0.9 * certificate.radius[keep]
    assert keep.sum() >= 40
    rng = np.random.RandomState(0)
    n_random = n_trials // len(rows) + 1
    step = rng.randn(len(rows), n_random, 4)
    step *= radius[:, None, None] / np.linalg.norm(step, axis=2, keepdims=True)
    trials, beaten = 0, 0
    votes = smooth.predict((rows[:, None] + step).reshape(-1, 4))
    beaten += (votes != np.repeat(labels, n_random)).sum()
    trials += len(votes)
    for max_iter in (5, 20):
        for i in range(0, len(rows), 5):
            eps = float(radius[i : i + 5].min())
            attack = ProjectedGradientDescent(
                FrozenEstimator(smooth), norm=2, eps=eps, max_iter=max_iter, bounds=None
            )
            result = attack.fit(X).run(rows[i : i + 5], labels[i : i + 5])
            beaten += result.success.sum()
            trials += len(result.success)
    assert trials >= n_trials and beaten == 0
    for attack in (
        DeepFool(norm=2, bounds=None, max_iter=10),
        FastMinimumNorm(norm=2, bounds=None, max_iter=20),
        CarliniWagner(bounds=None, max_iter=20, n_searches=2),
        HopSkipJump(norm=2, bounds=(-1, 2), max_queries=200),
    ):
        found = attacked(smooth, rows[:10], labels[:10], [attack])
        assert (found > certificate.radius[keep][:10]).all()


@pytest.mark.long
def test_smoothing_rows_do_not_depend_on_each_other_and_it_pickles():
    smooth = RandomizedSmoothingClassifier(
        LogisticRegression(), n_samples=50, n_certify=100
    ).fit(X, y)
    proba = smooth.predict_proba(X)
    np.testing.assert_array_equal(smooth.predict_proba(X[[7, 3]]), proba[[7, 3]])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(smooth)).certify(X).radius, smooth.certify(X).radius
    )
    view = differentiable.view(smooth)
    x = torch.as_tensor(X).requires_grad_()
    torch.testing.assert_close(view.predict_proba(x).detach().numpy(), proba)
    (gradient,) = torch.autograd.grad(view.logits(x)[:, 0].sum(), x)
    assert gradient.abs().max() > 0.01
    scores = [
        GridSearchCV(
            smooth,
            {"sigma": [0.05, 0.5], "estimator__C": [0.1, 10.0]},
            scoring=certified_accuracy_scorer(0.1, norm=2),
            cv=3,
            n_jobs=n_jobs,
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)
    assert scores[0].max() > scores[0].min()


def test_smoothing_of_a_net_goes_on_with_partial_fit(images):
    rows, labels = images[0][:200], images[1][:200]
    smooth = RandomizedSmoothingClassifier(net(Chain, max_epochs=2), n_samples=20)
    fitted = clone(smooth).fit(rows, labels).predict_proba(rows)
    smooth.partial_fit(rows, labels, classes=np.arange(10))
    np.testing.assert_array_equal(smooth.predict_proba(rows), fitted)
    for _ in range(8):
        smooth.partial_fit(rows[labels < 9], labels[labels < 9])
    assert smooth.score(rows, labels) > np.mean(fitted.argmax(1) == labels) + 0.1
    assert smooth.certify(rows[:5]).radius.shape == (5,)
    assert not hasattr(RandomizedSmoothingClassifier(GaussianNB()), "partial_fit")


def test_abstention():
    labels = np.array(["a", "b", "c"])[y]
    smooth = RandomizedSmoothingClassifier(
        LogisticRegression(C=100), sigma=0.3, n_samples=100, abstain_label="?"
    ).fit(X, labels)
    certificate, y_pred = smooth.certify(X), smooth.predict(X)
    unsure = np.sort(smooth.predict_proba(X), axis=1)[:, -2:]
    assert 0 < (y_pred == "?").sum() < len(X) / 2
    assert np.diff(unsure)[y_pred == "?"].max() < 0.4
    assert set(certificate.y_pred) <= {"a", "b", "c"}
    assert (
        certificate.accuracy(labels, 0.0) < 1 - np.isnan(certificate.radius).mean() + 0.1
    )
    with pytest.raises(ValueError, match="abstain_label"):
        smooth.set_params(abstain_label=-1).predict(X)


@pytest.mark.long
def test_noise_in_training_makes_larger_radii(images):
    rows, labels = images[0].reshape(len(images[0]), -1), images[1]
    args = dict(sigma=0.5, n_certify=300, n_select=30)
    mlp = net(max_epochs=15)
    noisy = RandomizedSmoothingClassifier(mlp, **args).fit(rows[:600], labels[:600])
    plain = RandomizedSmoothingClassifier(mlp, augment=False, **args)
    plain.fit(rows[:600], labels[:600])
    accuracy = [
        m.certify(rows[600:700]).accuracy(labels[600:700], 0.25) for m in (noisy, plain)
    ]
    assert accuracy[0] > accuracy[1] + 0.1
    forest = RandomizedSmoothingClassifier(
        RandomForestClassifier(10, random_state=0), sigma=0.3, n_copies=3, n_certify=100
    ).fit(rows[:300], labels[:300])
    assert forest.certify(rows[300:320]).accuracy(labels[300:320], 0.1) > 0.4


def test_scorer_and_certificate_by_hand():
    certificate = Certificate(
        np.array([1, 1, 0, 2]), np.array([0.5, 0.2, 1.0, np.nan]), 2
    )
    assert certificate.accuracy([1, 1, 1, 2], [0.0, 0.2, 0.3]).tolist() == [
        0.5,
        0.5,
        0.25,
    ]
    weight = [1, 1, 0, 0]
    assert certificate.accuracy([1, 1, 1, 2], 0.3, weight) == 0.5
    scorer = certified_accuracy_scorer(0.02)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_score(model, X, y, scoring=scorer, n_jobs=2)
    assert 0.5 < scores.mean() < cross_val_score(model, X, y).mean() + 1e-9
    assert pickle.loads(pickle.dumps(scorer))(model.fit(X, y), X, y) > 0.5
    assert "0.02" in repr(scorer)


class Functional(nn.Module):
    """A perceptron whose layers alone look linear."""

    def __init__(self, n_features=4, n_classes=3):
        super().__init__()
        self.first, self.last = nn.Linear(n_features, 8), nn.Linear(8, n_classes)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def test_what_looks_linear_is_not_taken_for_it():
    model = make_pipeline(
        StandardScaler(), LabelSmoothingClassifier(net(Functional, max_epochs=40))
    ).fit(X, y)
    certificate = certify(model, X, norm=2)
    found = attacked(model, X, certificate.y_pred, [DeepFool(norm=2, bounds=None)])
    assert (found >= certificate.radius).all() and certificate.radius.mean() > 0
    with pytest.raises(ValueError, match="'exact' is none"):
        certify(model, X, method="exact")


class Rounding(LogisticRegression):
    def predict(self, X):
        return super().predict(np.round(X))


class Calling(nn.Module):
    """One call of a function that is no layer."""

    def __init__(self, call, n_features=4, n_classes=3):
        super().__init__()
        self.call, self.last = call, nn.Linear(n_features, n_classes)

    def forward(self, x):
        return self.last(self.call(x))


def test_no_certificate_where_the_layers_do_not_say_what_is_predicted():
    with pytest.raises(TypeError, match="predict of its own"):
        certify(Rounding().fit(X, y), X)
    linear = LogisticRegression().fit(X, y)
    linear.predict = lambda rows: np.zeros(len(rows), int)
    with pytest.raises(TypeError, match="predicts something else than its layers"):
        certify(linear, X)
    binary = NeuralNetBinaryClassifier(
        Calling, module__call=torch.relu, module__n_classes=1, train_split=None, verbose=0
    )
    rows, labels = X.astype(np.float32), (y == 0).astype(np.float32)
    binary.fit(rows, labels)
    assert (certify(binary, rows).radius >= 0).all()
    for parameters, text in (
        ({"threshold": 0.7}, "threshold"),
        ({"predict_nonlinearity": torch.sigmoid}, "predict_nonlinearity"),
    ):
        other = pickle.loads(pickle.dumps(binary)).set_params(**parameters)
        with pytest.raises(TypeError, match=text):
            certify(other, rows)
    ended = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    with pytest.raises(TypeError, match="is a probability"):
        certify(PretrainedModule(ended, classes=[0, 1], outputs="probabilities"), rows)
    with pytest.raises(TypeError, match="channels='last'"):
        certify(PretrainedModule(ended, classes=[0, 1], channels="last"), rows)
    named = Calling(lambda x: x)
    named.register_forward_hook(lambda module, x, out: {"logits": out})
    with pytest.raises(TypeError, match="returns a dict"):
        certify(PretrainedModule(named, classes=[0, 1, 2]), rows)


@pytest.mark.parametrize(
    "call",
    [
        nn.LeakyReLU(-0.5),
        nn.ELU(-1.0),
        nn.BatchNorm1d(4, track_running_stats=False),
        lambda x: torch.add(x, torch.relu(x), alpha=-2),
        lambda x: nn.functional.leaky_relu(x, -1.0),
        lambda x: nn.functional.dropout(x, 0.5),
        lambda x: x * x,
    ],
    ids=lambda call: type(call).__name__,
)
def test_functions_that_do_not_grow_have_no_intervals(call):
    torch.manual_seed(0)
    model = PretrainedModule(Calling(call), classes=[0, 1, 2])
    for method in ("auto", "ibp", "crown"):
        with pytest.raises(
            TypeError, match="no interval bounds|Linear bounds take|else than"
        ):
            certify(model, X.astype(np.float32), method=method)


def test_rows_and_radii_are_validated():
    frame = pd.DataFrame(X, columns=list("abcd"))
    one = KNeighborsClassifier(1)
    models = [LogisticRegression(), perceptron((4,)), one, RandomForestClassifier(3)]
    smooth = RandomizedSmoothingClassifier(LogisticRegression(), n_certify=10)
    for model in [*models, smooth]:
        model.fit(frame, y)
        norm = 2 if model in (one, smooth) else np.inf
        with pytest.raises(ValueError, match="feature names should match"):
            certify(model, frame[list("dcba")], norm=norm)
        with pytest.raises(ValueError, match="unseen at fit"):
            certify(model, frame.assign(e=0.0), norm=norm)
        assert isinstance(certify(model, frame[:3], norm=norm), Certificate)
    linear = models[0]
    for eps in (-1, np.nan, np.inf, "0.1"):
        with pytest.raises(ValueError, match="eps"):
            certify(linear, frame, eps=eps)
        with pytest.raises(ValueError, match="eps"):
            certified_accuracy_scorer(eps)
        with pytest.raises(ValueError, match="eps"):
            certify(linear, frame).accuracy(y, eps)
    for bounds in ((1, 0), (0,), (0.5, 1)):
        with pytest.raises(ValueError, match="bounds"):
            certify(models[1], frame, bounds=bounds)
    with pytest.raises(ValueError, match="max_radius"):
        certify(models[1], frame, max_radius=0)


def test_errors(images):
    with pytest.raises(TypeError, match="GaussianNB has no bounds"):
        certify(GaussianNB().fit(X, y), X)
    linear = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="norm"):
        certify(linear, X, norm=0)
    with pytest.raises(ValueError, match="method"):
        certify(linear, X, method="milp")
    with pytest.raises(ValueError, match="n_neighbors=3"):
        certify(KNeighborsClassifier(3).fit(X, y), X, norm=2)
    clipped = make_pipeline(MinMaxScaler(clip=True), linear).fit(X, y)
    with pytest.raises(TypeError, match="clip=True"):
        certify(clipped, X)
    smooth = RandomizedSmoothingClassifier(clone(linear), n_certify=10).fit(X, y)
    with pytest.raises(ValueError, match="norm must be 2"):
        certify(smooth, X)
    rows, labels = images[0][:60], images[1][:60]
    residual = LabelSmoothingClassifier(net(Residual, max_epochs=1), random_state=0)
    residual.fit(rows, labels)
    with pytest.raises(TypeError, match="method='ibp' knows more"):
        certify(residual, rows[:2], method="crown")
    assert certify(residual, rows[:2]).radius.shape == (2,)  # auto falls back
    with pytest.raises(ValueError, match="use method='crown'"):
        certify(residual, rows[:2], norm=2)
    with pytest.raises(ValueError, match="exact"):
        certify(perceptron((5,)).fit(X, y), X, method="exact")
    with pytest.raises(ValueError, match="'crown' is none for RandomForestClassifier"):
        certify(RandomForestClassifier(3).fit(X, y), X, method="crown")


def test_votes_do_not_depend_on_the_number_of_workers(monkeypatch):
    victim = RandomForestClassifier(5, max_depth=3, random_state=0)
    alone = RandomizedSmoothingClassifier(victim, n_samples=20, n_certify=50).fit(X, y)
    shared = clone(alone).set_params(n_jobs=2).fit(X, y)
    rows, sizes, count = X[::3], [], RandomizedSmoothingClassifier._count
    assert np.array_equal(shared.predict_proba(rows), alone.predict_proba(rows))

    def counted(self, X, **draws):
        sizes.append(len(X))
        return count(self, X, **draws)

    monkeypatch.setattr(RandomizedSmoothingClassifier, "_count", counted)
    with parallel_config(backend="threading"):
        there = shared.certify(rows)
    # Shares of the rows for each of two streams; threads append in no order.
    assert sorted(sizes) == 4 * [12] + 4 * [
        13
    ]  # shares of the rows for each of two streams
    here = alone.certify(rows)
    assert np.array_equal(there.radius, here.radius, equal_nan=True)
    assert np.array_equal(there.y_pred, here.y_pred)


class _RoundingScaler(StandardScaler):
    def transform(self, X):
        return np.round(super().transform(X), 1)


class _WaryNeighbour(KNeighborsClassifier):
    def predict(self, X):
        return np.where(np.asarray(X)[:, 0] > 5.0, 0, super().predict(X))


def test_steps_and_neighbours_with_answers_of_their_own_are_not_certified():
    X, y = load_iris(return_X_y=True)
    X, y = X[:100], y[:100]
    behind = make_pipeline(_RoundingScaler(), LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match="_RoundingScaler has a transform of its own"):
        certify(behind, X)
    with pytest.raises(TypeError, match="_WaryNeighbour has a predict of its own"):
        certify(_WaryNeighbour(1).fit(X, y), X, norm=2)
