"""Facts of the papers of the gradient attacks, on small victims."""

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, linprog, minimize
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from sklearn_advsec.evasion import (
    AutoAttack,
    AutoProjectedGradientDescent,
    CarliniWagner,
    DeepFool,
    FastAdaptiveBoundary,
    FastGradientMethod,
    FastMinimumNorm,
    JacobianSaliencyMap,
    ProjectedGradientDescent,
    SigmaZero,
    SquareAttack,
    UniversalPerturbation,
)
from sklearn_advsec.evasion._goal import LOSSES, Goal, dlr, targeted_dlr
from sklearn_advsec.evasion._minimum_norm._base import give_back
from sklearn_advsec.evasion._minimum_norm._jsma import best_pairs
from sklearn_advsec.evasion._state import AttackState
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.threat._projection import nearest_on_hyperplane, project
from sklearn_advsec.victim import GradientAccess

DUAL = {np.inf: 1, 2: 2, 1: np.inf}


@pytest.fixture(scope="module")
def binary():
    """A linear victim of two classes, in an unbounded space."""
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    return LogisticRegression().fit(X, y), X[:30], y[:30]


@pytest.fixture(scope="module")
def multiclass():
    X, y = load_digits(return_X_y=True)
    return LogisticRegression(max_iter=500).fit(X / 16, y), X[:30] / 16, y[:30]


@pytest.fixture(scope="module")
def network():
    """A float32 network on digits, and rows that it gets right."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10)
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(150):
            loss = torch.nn.functional.cross_entropy(
                module(torch.as_tensor(X[:1200])), torch.as_tensor(y[:1200])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    victim = PretrainedModule(module, classes=range(10))
    right = victim.predict(X[1200:]) == y[1200:]
    return victim, X[1200:][right][:40], y[1200:][right][:40]


def exact_distance(victim, X, norm):
    """Distance of each row to the nearest decision hyperplane of a linear victim."""
    W, b = victim.coef_, victim.intercept_
    if len(W) == 1:
        return np.abs(X @ W[0] + b[0]) / np.linalg.norm(W[0], DUAL[norm])
    scores = X @ W.T + b
    own = scores.argmax(1)
    gaps = scores[np.arange(len(X)), own][:, None] - scores
    slopes = np.linalg.norm(W[own][:, None] - W[None], DUAL[norm], axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmin(np.where(slopes > 0, gaps / slopes, np.nan), axis=1)


def attack_all(attack, victim, X, **run):
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim))
    result = attack.fit(X).run(X, **run)
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    return result


# Closed forms ---------------------------------------------------------------------------

LINEAR = [
    (DeepFool(norm=2, bounds=None), 1e-3),
    (DeepFool(norm=np.inf, bounds=None), 1e-3),
    (CarliniWagner(norm=2, bounds=None), 0.01),
    (CarliniWagner(norm=2, bounds=None, initial_c=0.001), 0.01),
    (CarliniWagner(norm=np.inf, bounds=None), 0.01),
    (FastMinimumNorm(norm=2, bounds=None), 1e-3),
    (FastMinimumNorm(norm=np.inf, bounds=None), 0.01),
    (FastMinimumNorm(norm=1, bounds=None), 0.02),
    (FastAdaptiveBoundary(norm=2, bounds=None, max_iter=20), 0.01),
    (FastAdaptiveBoundary(norm=np.inf, bounds=None, max_iter=20), 0.01),
    (FastAdaptiveBoundary(norm=1, bounds=None, max_iter=20), 0.01),
]


@pytest.mark.parametrize("data", ["binary", "multiclass"])
@pytest.mark.parametrize(
    "attack, tolerance",
    LINEAR,
    ids=lambda a: f"{type(a).__name__}-{getattr(a, 'norm', a)}",
)
def test_minimum_norm_attacks_find_the_nearest_hyperplane(
    attack, tolerance, data, request
):
    victim, X, _ = request.getfixturevalue(data)
    result = attack_all(attack, victim, X)
    exact = exact_distance(victim, X, attack.norm)
    assert result.success.all()
    # Never nearer than the hyperplane itself, and as near as the attack promises.
    assert (result.distance >= exact * (1 - 1e-6)).all()
    np.testing.assert_allclose(
        np.median(result.distance / exact), 1, atol=tolerance, rtol=0
    )
    assert np.quantile(result.distance / exact, 0.9) <= 1 + 3 * tolerance


@pytest.mark.long
@pytest.mark.parametrize("norm", [2, np.inf])
@pytest.mark.parametrize(
    "attack",
    [DeepFool(), CarliniWagner(), FastMinimumNorm(), FastAdaptiveBoundary(max_iter=30)],
    ids=lambda a: type(a).__name__,
)
def test_raw_features_in_their_own_box_do_not_lead_astray(attack, norm):
    """Ranges from a thousandth to four thousand; the nearest point is in closed form."""
    X, y = load_breast_cancer(return_X_y=True)
    scaler, model = StandardScaler(), LogisticRegression(max_iter=500)
    victim = make_pipeline(scaler, model).fit(X, y)
    weight, rows = model.coef_[0] / scaler.scale_, X[:100]
    nearest = nearest_on_hyperplane(
        torch.as_tensor(np.tile(weight, (100, 1))),
        torch.as_tensor(-victim.decision_function(rows)),
        norm,
        torch.as_tensor(X.min(0) - rows),
        torch.as_tensor(X.max(0) - rows),
    )
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim), norm=norm)
    result = attack.fit(X).run(rows)
    ratio = result.distance / np.linalg.norm(nearest, ord=norm, axis=1)
    assert result.success.all() and ratio.min() > 1 - 1e-6
    assert np.median(ratio) < 1.005 and np.quantile(ratio, 0.9) < 1.02


@pytest.mark.parametrize(
    "attack", [FastMinimumNorm(norm=0), SigmaZero()], ids=lambda a: type(a).__name__
)
def test_l0_needs_no_more_features_than_the_greedy_optimum(attack, binary):
    """In a box, the fewest features that flip a linear victim are the most useful."""
    victim, X, _ = binary
    w, score = victim.coef_[0], victim.decision_function(X)
    gain = np.maximum(np.outer(-np.sign(score), w), 0) * (1 - X)
    gain += np.maximum(np.outer(np.sign(score), w), 0) * X
    gain = np.sort(gain, axis=1)[:, ::-1].cumsum(1)
    fewest = (gain < np.abs(score)[:, None]).sum(1) + 1
    result = attack_all(clone(attack).set_params(bounds=(0, 1)), victim, X)
    assert result.success.all() and (result.distance >= fewest).all()
    assert np.mean(result.distance == fewest) >= 0.9


@pytest.mark.parametrize(
    "attack", [FastMinimumNorm(norm=0), SigmaZero()], ids=lambda a: type(a).__name__
)
def test_a_row_with_one_changed_feature_is_done(attack):
    """Without bounds one feature flips a linear victim; nothing smaller is looked for."""
    X, y = load_breast_cancer(return_X_y=True)
    victim = LogisticRegression().fit(StandardScaler().fit_transform(X), y)
    X = StandardScaler().fit_transform(X)[:20]
    bounds = (np.full(30, -50.0), np.full(30, 50.0))
    result = attack_all(clone(attack).set_params(bounds=bounds), victim, X)
    assert (result.distance == 1).all() and result.n_queries.mean() < 80


def test_sigma_zero_weighs_features_by_their_ranges():
    """Ranges from a thousandth to four thousand: the most useful features go first."""
    X, y = load_breast_cancer(return_X_y=True)
    scaler, model = StandardScaler(), LogisticRegression(max_iter=500)
    victim = make_pipeline(scaler, model).fit(X, y)
    weight, rows = model.coef_[0] / scaler.scale_, X[:50]
    score = victim.decision_function(rows)[:, None]
    towards = -np.sign(score) * weight
    gain = np.maximum(towards * (X.max(0) - rows), towards * (X.min(0) - rows))
    fewest = (np.sort(gain, axis=1)[:, ::-1].cumsum(1) < np.abs(score)).sum(1) + 1
    attack = SigmaZero(FrozenEstimator(victim)).fit(X)
    result = attack.run(rows)
    assert result.success.all() and (result.distance >= fewest).all()
    assert np.mean(result.distance == fewest) >= 0.8
    assert result.distance.mean() < 1.1 * fewest.mean()


def test_sigma_zero_does_not_take_steps_that_its_threshold_undoes():
    X, y = load_digits(return_X_y=True)
    with pytest.raises(ValueError, match="step_size must be larger than threshold"):
        SigmaZero(LogisticRegression(), step_size=0.2).fit(X, y)


@pytest.mark.parametrize("norm", [1, 2, np.inf])
def test_hyperplane_projection_is_that_of_a_solver(norm):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(12, 6))
    w[:, 0] = 0
    lower, upper = -rng.uniform(0, 1, (12, 6)), rng.uniform(0, 1, (12, 6))
    lower[:, 1] = upper[:, 1] = 0
    reach = (np.maximum(w, 0) * upper + np.minimum(w, 0) * lower).sum(1)
    value = rng.uniform(0.1, 0.9, 12) * reach
    value[6:] = (
        -rng.uniform(0.1, 0.9, 6)
        * -((np.maximum(w, 0) * lower + np.minimum(w, 0) * upper).sum(1)[6:])
    )
    tensors = map(torch.as_tensor, (w, value))
    ours = nearest_on_hyperplane(
        *tensors, norm, torch.as_tensor(lower), torch.as_tensor(upper)
    ).numpy()
    np.testing.assert_allclose((ours * w).sum(1), value, atol=1e-9)
    assert (ours >= lower - 1e-12).all() and (ours <= upper + 1e-12).all()
    for i in range(12):
        if norm == 2:
            best = minimize(
                lambda r: (r**2).sum(),
                ours[i] * 0.5,
                jac=lambda r: 2 * r,
                bounds=Bounds(lower[i], upper[i]),
                constraints=LinearConstraint(w[i], value[i], value[i]),
                method="SLSQP",
                tol=1e-12,
            )
            expected = np.sqrt(best.fun)
        else:  # r = p - q, with the sum or the largest of p + q as the objective
            n = 6
            peak = norm == np.inf
            cost = np.r_[np.zeros(2 * n), 1.0] if peak else np.r_[np.ones(2 * n), 0.0]
            best = linprog(
                cost,
                A_ub=np.c_[np.eye(n), np.eye(n), -np.ones(n)] if peak else None,
                b_ub=np.zeros(n) if peak else None,
                A_eq=np.r_[w[i], -w[i], 0.0][None],
                b_eq=value[i : i + 1],
                bounds=[(0, room) for room in (*upper[i], *-lower[i])] + [(0, None)],
            )
            expected = best.fun
        assert np.linalg.norm(ours[i], norm) <= expected * (1 + 1e-6) + 1e-9


def test_hyperplane_out_of_reach_ends_in_the_corner():
    w = torch.tensor([[1.0, -2.0, 0.0]], dtype=torch.float64)
    box = torch.tensor([[-0.5, -0.25, -1.0]], dtype=torch.float64)
    for norm in (1, 2, np.inf):
        r = nearest_on_hyperplane(w, torch.tensor([9.0]).double(), norm, box, -box)
        torch.testing.assert_close(r, torch.tensor([[0.5, -0.25, 0.0]]).double())


@pytest.mark.parametrize("norm", [0, 1, 2, np.inf])
def test_each_row_can_have_its_own_radius(norm):
    rng = np.random.default_rng(1)
    delta = torch.as_tensor(rng.normal(size=(9, 20)))
    lower, upper = -torch.rand(9, 20).double(), torch.rand(9, 20).double()
    radius = torch.arange(9) if norm == 0 else torch.linspace(0, 2, 9).double()
    together = project(delta, norm, radius, lower, upper)
    for i in range(9):
        one = project(
            delta[i : i + 1], norm, radius[i], lower[i : i + 1], upper[i : i + 1]
        )
        torch.testing.assert_close(together[i : i + 1], one)
        assert torch.linalg.vector_norm(one, ord=norm) <= radius[i] + 1e-9


# Auto-PGD -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm, eps", [(np.inf, 0.08), (2, 0.5), (1, 2.0)])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "targeted_dlr"])
def test_auto_pgd_is_no_weaker_than_pgd_at_equal_steps(network, norm, eps, loss):
    victim, X, y = network
    ball = dict(norm=norm, eps=eps, bounds=(0, 1), random_start=False)
    same = loss.removeprefix("targeted_")
    plain = ProjectedGradientDescent(max_iter=40, loss=same, **ball)
    plain = attack_all(plain, victim, X, y=y)
    auto = AutoProjectedGradientDescent(max_iter=40, loss=loss, **ball)
    result = attack_all(auto, victim, X, y=y)
    assert plain.success.any()
    # For L1 it begins in larger balls, and a row may be lost on the way back.
    assert result.success.sum() >= plain.success.sum() - (norm == 1)
    assert (result.distance <= eps * (1 + 1e-5)).all()
    assert result.X_adv.min() >= 0 and result.X_adv.max() <= 1


@pytest.mark.parametrize("norm", [2, 1])
def test_random_starts_do_not_depend_on_the_other_rows(network, norm):
    victim, X, y = network
    attack = AutoProjectedGradientDescent(
        norm=norm, eps=0.05, max_iter=2, bounds=(0, 1), random_state=0
    )
    attack.set_params(estimator=victim).fit(X)
    together, alone = attack.run(X, y), attack.run(X[5:9], y[5:9])
    assert (together.X_adv[5:9] != X[5:9]).any()
    np.testing.assert_allclose(alone.X_adv, together.X_adv[5:9], atol=1e-7)


def test_auto_pgd_reaches_the_dual_norm_optimum(binary):
    """On a linear victim the best perturbation is known: no success means none exists."""
    victim, X, _ = binary
    y = victim.predict(X)
    for norm in (np.inf, 2, 1):
        exact = exact_distance(victim, X, norm)
        eps = float(np.median(exact))
        attack = AutoProjectedGradientDescent(norm=norm, eps=eps, bounds=None)
        result = attack_all(attack, victim, X, y=y)
        clear = np.abs(exact - eps) > 0.02 * eps
        np.testing.assert_array_equal(result.success[clear], (exact < eps)[clear])


def test_losses_are_the_papers():
    z = torch.tensor([[3.0, 5.0, 1.0, 2.0]])
    label, toward = torch.tensor([1]), torch.tensor([2])
    assert dlr(z, label).item() == pytest.approx(-(5 - 3) / (5 - 2))
    assert targeted_dlr(z, label, toward).item() == pytest.approx(
        -(5 - 1) / (5 - 0.5 * (2 + 1))
    )
    for scale in (0.1, 7.0):  # no change with the scale, or with a shift
        assert dlr(scale * z + 3, label).item() == pytest.approx(dlr(z, label).item())
    two = z[:, :2]
    assert dlr(two, label).item() == LOSSES["margin"](two, label).item()


def test_no_loss_is_fooled_by_scaled_logits(network):
    """They mask the gradients of the plain cross-entropy, and of nothing here."""
    victim, X, y = network
    sharp = torch.nn.Sequential(*victim.module, torch.nn.Linear(10, 10, bias=False))
    with torch.no_grad():
        sharp[-1].weight.copy_(1e4 * torch.eye(10))
    sharp = PretrainedModule(sharp, classes=range(10))
    ball = dict(eps=0.08, bounds=(0, 1), max_iter=30)
    plain = attack_all(AutoProjectedGradientDescent(**ball), sharp, X, y=y)
    other = attack_all(AutoProjectedGradientDescent(loss="dlr", **ball), sharp, X, y=y)
    assert other.success.mean() > 0.3
    assert plain.success.mean() >= other.success.mean() - 0.05


# All of them ----------------------------------------------------------------------------

BALL = dict(bounds=(0, 1))
ALL = [
    AutoProjectedGradientDescent(eps=0.15, max_iter=20, **BALL),
    AutoProjectedGradientDescent(eps=3.0, norm=1, max_iter=20, **BALL),
    AutoProjectedGradientDescent(eps=0.15, loss="targeted_dlr", max_iter=10, **BALL),
    DeepFool(**BALL),
    CarliniWagner(max_iter=30, **BALL),
    CarliniWagner(norm=np.inf, max_iter=20, **BALL),
    FastAdaptiveBoundary(max_iter=15, **BALL),
    FastAdaptiveBoundary(norm=1, n_targets=3, max_iter=10, **BALL),
    FastMinimumNorm(norm=2, max_iter=40, **BALL),
    FastMinimumNorm(norm=1, max_iter=40, **BALL),
    FastMinimumNorm(norm=0, max_iter=40, **BALL),
    SigmaZero(max_iter=40, **BALL),
    JacobianSaliencyMap(gamma=0.3, **BALL),
    JacobianSaliencyMap(gamma=0.3, outputs="logit", **BALL),
]
IDS = [f"{type(a).__name__}-{a.norm}-{i}" for i, a in enumerate(ALL)]
TARGETED = [a for a in ALL if "goal" in a.get_params() and not hasattr(a, "n_targets")]
TARGETED += [AutoProjectedGradientDescent(eps=0.1, loss="dlr", max_iter=20, **BALL)]
TARGETED += [FastAdaptiveBoundary(norm=2, max_iter=30, **BALL)]


@pytest.mark.parametrize("attack", ALL, ids=IDS)
def test_results_are_adversarial_in_the_victims_own_precision(attack, network):
    victim, X, y = network
    result = attack_all(attack, victim, X, y=y)
    assert result.X_adv.dtype == X.dtype
    assert result.success.mean() > 0.7
    np.testing.assert_array_equal(result.success, victim.predict(result.X_adv) != y)
    assert result.X_adv.min() >= 0 and result.X_adv.max() <= 1  # not by rounding, either
    for one in result.X_adv[result.success][:5]:  # alone in a batch, too
        assert victim.predict(one[None])[0] in result.y_pred[result.success]
    moved = np.linalg.norm((result.X_adv - X).astype(float), attack.norm, axis=1)
    np.testing.assert_allclose(result.distance, moved, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attack", ALL, ids=IDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(attack, network):
    victim, X, y = network
    attack = clone(attack).set_params(estimator=victim).fit(X)
    together = attack.run(X[:8], y[:8])
    for i in range(8):
        alone = attack.run(X[i : i + 1], y[i : i + 1])
        assert alone.success[0] == together.success[i]
        # Sums in another order differ in their last bits, and steps carry it on.
        np.testing.assert_allclose(alone.distance, together.distance[i], rtol=0.02)


@pytest.mark.parametrize("attack", TARGETED, ids=lambda a: f"{type(a).__name__}-{a.norm}")
def test_targeted_attacks_end_in_the_target(attack, network):
    victim, X, y = network
    target = (y + 1) % 10
    attack = clone(attack).set_params(goal="targeted")
    if hasattr(attack, "eps") and attack.eps is not None:
        attack.set_params(eps=3 * attack.eps)
    result = attack_all(attack, victim, X, y=y, target=target)
    np.testing.assert_array_equal(result.y_pred[result.success], target[result.success])
    assert result.success.mean() > 0.6


class CountingClassifier(VotingClassifier):
    """Counts the rows that its own predict sees."""

    seen = 0

    def predict(self, X):
        type(self).seen += len(X)
        return super().predict(X)


@pytest.mark.parametrize("attack", ALL, ids=IDS)
@pytest.mark.parametrize("limit", [3, 17])
def test_budgets_are_kept_exactly(attack, limit, network, monkeypatch):
    victim, X, y = network
    sent = np.zeros(len(X), dtype=int)
    spend = GradientAccess._spend

    def counting(self, x, rows):
        spend(self, x, rows)
        np.add.at(sent, np.arange(len(x)) if rows is None else rows.numpy(), 1)

    monkeypatch.setattr(GradientAccess, "_spend", counting)
    attack = clone(attack).set_params(estimator=victim, max_queries=limit).fit(X)
    result = attack.run(X, y)
    np.testing.assert_array_equal(result.n_queries, sent)
    assert sent.max() <= limit
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)


@pytest.mark.parametrize("attack", ALL, ids=IDS)
def test_a_victim_that_is_no_network_confirms_by_itself(attack):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    victim = SVC().fit(X[:600], y[:600])
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim)).fit(X)
    result = attack.run(X[600:615], y[600:615])
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    np.testing.assert_array_equal(result.success, result.y_pred != y[600:615])


@pytest.mark.long
def test_fixed_columns_and_missing_values_stay():
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=list("abcd"))
    frame.loc[::7, "b"] = np.nan
    frame["kind"] = rng.choice(["x", "y", "z"], n)
    y = (frame.a + frame.c + (frame.kind == "x") > 0.3).astype(int)
    victim = make_pipeline(
        ColumnTransformer(
            [("n", SimpleImputer(), list("abcd")), ("k", OneHotEncoder(), ["kind"])]
        ),
        LogisticRegression(),
    ).fit(frame, y)
    for attack in (
        DeepFool(),
        CarliniWagner(max_iter=30),
        FastMinimumNorm(norm=1),
        FastAdaptiveBoundary(),
        SigmaZero(),
        JacobianSaliencyMap(gamma=1.0),
        AutoProjectedGradientDescent(eps=1.0, norm=1, max_iter=20),
    ):
        attack.set_params(estimator=FrozenEstimator(victim)).fit(frame)
        result = attack.run(frame[:40], y[:40])
        assert result.success.mean() > 0.5
        assert result.X_adv.kind.equals(frame.kind[:40])
        np.testing.assert_array_equal(result.X_adv.b.isna(), frame.b[:40].isna())
        np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)


# Single attacks -------------------------------------------------------------------------


class Rippled(torch.nn.Module):
    """Two classes by the sum of the features, on which there are ripples."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        value = x.sum(1) - 9 + 0.1 * torch.sin(70 * x).sum(1)
        return torch.stack([-value, value], 1) * self.weight


def test_fast_minimum_norm_crosses_ripples_that_turn_its_gradients():
    # Inside the ball, more than a quarter of the rows go to and fro in one ripple.
    X = np.random.default_rng(0).uniform(0, 0.3, (50, 20)).astype(np.float32)
    victim = PretrainedModule(Rippled().eval(), classes=[0, 1])
    y = np.zeros(len(X), dtype=int)
    attack = FastMinimumNorm(victim, bounds=(0, 1)).fit(X, y)
    assert attack.run(X, y).success.mean() > 0.8


@pytest.mark.parametrize("norm", [2, np.inf])
def test_deepfool_does_not_creep_up_to_a_boundary_in_its_box(norm):
    # Half of each step is cut off, so that one after another would halve the way.
    module = torch.nn.Linear(20, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0], [1.0]]).expand(2, 20))
        module.bias.copy_(torch.tensor([0.0, -14.0]))
    X = np.repeat(np.array([[0.0, 1.0]], dtype=np.float32), 10, axis=1).reshape(1, -1)
    attack = DeepFool(PretrainedModule(module), norm=norm, bounds=(0, 1), n_looks=1)
    result = attack.fit(X).run(X)
    assert result.success.all()
    size = 0.4 if norm == np.inf else 0.4 * 10**0.5
    np.testing.assert_allclose(result.distance, size, rtol=0.05)
    assert result.n_queries[0] <= 12


@pytest.mark.parametrize("norm", [np.inf, 1])
def test_labels_that_were_just_asked_for_are_not_asked_for_again(norm):
    X = np.random.default_rng(0).uniform(0, 0.1, (5, 20)).astype(np.float32)
    victim = PretrainedModule(Rippled().eval(), classes=[0, 1])
    attack = AutoProjectedGradientDescent(victim, norm=norm, eps=0.01, bounds=(0, 1))
    result = attack.set_params(max_iter=7).fit(X, [0, 1, 0, 1, 0]).run(X)
    assert not result.success.any()
    # For the label, of each step, and where they end.
    np.testing.assert_array_equal(result.n_queries, 1 + 7 + 1)


@pytest.mark.long
def test_minimum_norm_attacks_beat_deepfool_and_pgd(network):
    victim, X, y = network
    deepfool = attack_all(DeepFool(**BALL), victim, X, y=y).distance
    fmn = attack_all(FastMinimumNorm(**BALL), victim, X, y=y).distance
    fab = attack_all(FastAdaptiveBoundary(norm=2, **BALL), victim, X, y=y).distance
    cw = attack_all(CarliniWagner(**BALL), victim, X, y=y).distance
    for better in (fmn, fab, cw):
        assert better.mean() < deepfool.mean()
        assert (better <= 1.01 * deepfool).mean() > 0.9
        # A ball just too small for the median row is too small for most other attacks.
        eps = 0.99 * np.median(better)
        plain = ProjectedGradientDescent(norm=2, eps=eps, max_iter=100, **BALL)
        plain = attack_all(plain, victim, X, y=y)
        assert plain.success.sum() <= (better <= eps).sum() + 1
    medians = [np.median(distance) for distance in (fmn, fab, cw)]
    assert max(medians) <= 1.01 * min(medians)


def test_features_that_do_nothing_are_given_back(binary):
    """On a linear victim the best k features are known: give_back ends with them."""
    victim, X, y = binary
    access = GradientAccess(victim, X[:1])
    box = torch.full_like(access.x, 50.0)
    state = AttackState(access, 0, -box, box, torch.Generator())
    state.goal = Goal("misclassification", access.predict(access.x))
    weight = torch.as_tensor(victim.coef_)
    toward = weight * (1 - 2 * state.goal.labels[:, None]).to(weight)
    # One decisive feature among many that were changed by as much, to no avail.
    far = 1e-3 * toward.sign()
    far[0, 7] = toward.sign()[0, 7] * 40
    rows = torch.tensor([0])
    predicted = access.predict(access.x + far)
    state.record(rows, access.x + far, predicted, predicted != state.goal.labels)
    assert state.success.all()
    give_back(state, n_rounds=1, n_steps=8)
    assert int((state.x_adv != access.x).sum()) == 1
    assert state.success.all()


@pytest.mark.long
def test_kappa_asks_for_a_margin(network):
    victim, X, y = network
    norms = []
    for kappa in (0.0, 3.0):
        result = attack_all(CarliniWagner(kappa=kappa, **BALL), victim, X, y=y)
        scores = victim.decision_function(result.X_adv)
        own = scores[np.arange(len(y)), y]
        scores[np.arange(len(y)), y] = -np.inf
        assert (scores.max(1) - own)[result.success].min() >= kappa
        norms.append(np.median(result.distance[result.success]))
    assert norms[1] > 1.1 * norms[0]


@pytest.mark.long
def test_abort_early_saves_queries_and_costs_little(network):
    victim, X, y = network
    stops = attack_all(CarliniWagner(max_iter=100, **BALL), victim, X, y=y)
    goes_on = attack_all(
        CarliniWagner(max_iter=100, abort_early=False, **BALL), victim, X, y=y
    )
    assert stops.n_queries.mean() < 0.7 * goes_on.n_queries.mean()
    assert np.median(stops.distance) <= 1.03 * np.median(goes_on.distance)


def test_pixels_on_the_edge_of_the_box_can_move(network):
    """Half of the pixels of digits are 0, where the tanh is flat."""
    victim, X, y = network
    result = attack_all(CarliniWagner(**BALL), victim, X, y=y)
    on_edge = (X == 0) | (X == 1)
    moved = np.abs(result.X_adv - X) > 1e-2
    assert moved[on_edge].sum() > 0.15 * moved.sum()


@pytest.mark.parametrize("theta", [1.0, -0.5])
@pytest.mark.parametrize("gamma", [0.05, 0.2])
@pytest.mark.parametrize("pairwise", [True, False])
def test_jsma_changes_few_features_by_theta(network, theta, gamma, pairwise):
    victim, X, y = network
    attack = JacobianSaliencyMap(theta=theta, gamma=gamma, pairwise=pairwise, **BALL)
    result = attack_all(attack, victim, X, y=y)
    moved = (result.X_adv - X).astype(float)
    assert result.distance.max() <= gamma * 64
    assert (moved * np.sign(theta) >= 0).all()
    full = np.abs(np.abs(moved / theta) - np.round(np.abs(moved / theta))) < 1e-5
    edge = (result.X_adv == 0) | (result.X_adv == 1)
    assert (full | edge).all()


def test_best_pairs_are_those_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(2, 60, 25)).round(1)
    up[:20] -= 1.5  # few pairs, or none
    up[50:, :12] = -np.inf  # closed features
    chosen, gain = best_pairs(torch.as_tensor(up), torch.as_tensor(down))
    ups, downs = up[:, :, None] + up[:, None], down[:, :, None] + down[:, None]
    with np.errstate(invalid="ignore"):
        product = np.where((ups > 0) & (downs > 0), ups * downs, 0)
    product[:, np.arange(25), np.arange(25)] = 0
    np.testing.assert_allclose(gain.numpy(), product.max((1, 2)))
    first, second = chosen.numpy().T
    some = gain.numpy() > 0
    assert some.any() and not some.all() and (first != second)[some].all()
    np.testing.assert_allclose(
        product[np.arange(60), first, second][some], gain.numpy()[some]
    )


def test_universal_perturbation_is_one_and_beats_noise(network):
    victim, X, y = network
    X_all, _ = load_digits(return_X_y=True)
    train = (X_all[:600] / 16).astype(np.float32)
    attack = UniversalPerturbation(victim, eps=0.25, bounds=(0, 1)).fit(train)
    again = UniversalPerturbation(victim, eps=0.25, bounds=(0, 1)).fit(train)
    np.testing.assert_array_equal(attack.perturbation_, again.perturbation_)
    assert np.abs(attack.perturbation_).max() <= 0.25 + 1e-6
    np.testing.assert_allclose(
        attack.transform(X), np.clip(X + attack.perturbation_, 0, 1), atol=1e-6
    )
    rng = np.random.default_rng(0)
    noise = [
        np.mean(victim.predict(np.clip(X + v, 0, 1).astype(np.float32)) != y)
        for v in rng.choice([-0.25, 0.25], (50, 64))
    ]
    fooled = 1 - attack.score(X, y)
    assert fooled > 0.5 and fooled > 1.5 * max(noise)
    targeted = UniversalPerturbation(
        victim, eps=0.4, goal="targeted", target=8, bounds=(0, 1)
    ).fit(train)
    assert np.mean(targeted.run(X).y_pred == 8) > 0.5


@pytest.mark.long
def test_auto_attack_is_as_strong_as_each_of_its_parts(network):
    victim, X, y = network
    common = dict(eps=0.05, bounds=(0, 1), estimator=victim)
    attack = AutoAttack(max_iter=20, square_queries=200, **common).fit(X)
    result = attack.run(X, y)
    assert 0 < result.success.mean() < 1
    for part in (
        AutoProjectedGradientDescent(max_iter=20, **common),
        AutoProjectedGradientDescent(max_iter=20, loss="targeted_dlr", **common),
        FastAdaptiveBoundary(max_iter=20, n_targets=9, **common),
        SquareAttack(max_queries=200, **common),
    ):
        assert result.success[part.fit(X).run(X, y).success].all()
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    assert (result.distance <= 0.05 * (1 + 1e-5)).all()
    assert [name for name, _ in attack.attacks_] == [
        "APGD-CE",
        "APGD-T",
        "FAB-T",
        "Square",
    ]
    # Rows that fell early cost no more; those that stand went through all of it.
    assert result.n_queries[~result.success].min() > 200
    assert result.n_queries[result.success].min() < 20


@pytest.mark.parametrize("limit", [10, 60])
def test_auto_attack_keeps_its_budgets(network, limit):
    victim, X, y = network
    attack = AutoAttack(
        victim, eps=0.05, bounds=(0, 1), max_iter=20, square_queries=100
    ).fit(X)
    assert attack.set_params(max_queries=limit).run(X, y).n_queries.max() <= limit


class Jitter(torch.nn.Module):
    """A victim that adds noise to its input, from a generator of its own."""

    def __init__(self, inner, scale=0.5):
        super().__init__()
        self.inner, self.scale = inner, scale

    def forward(self, x):
        return self.inner(x + self.scale * torch.randn_like(x))


def test_drawing_gradients_repeatedly_helps_against_random_victims(network):
    victim, X, y = network
    noisy = PretrainedModule(Jitter(victim.module), classes=range(10))
    robust = {}
    for n_draws in (1, 10):
        attack = AutoProjectedGradientDescent(
            noisy, eps=0.15, max_iter=20, n_draws=n_draws, bounds=(0, 1)
        ).fit(X)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            X_adv = attack.run(X, y).X_adv
            answers = [noisy.predict(X_adv) == y for _ in range(20)]
        robust[n_draws] = np.mean(answers)
    assert robust[10] < 0.75 * robust[1]


def test_jacobian_is_that_of_single_gradients_and_costs_one_query(network):
    victim, X, _ = network
    access = GradientAccess(victim, X[:5], batch_size=2)
    rows = torch.arange(5)
    _, jacobian = access.jacobian(access.x, rows, lambda logits, at: logits)
    assert access.n_queries.tolist() == [1] * 5 and jacobian.shape == (5, 10, 64)
    for k in range(10):
        _, one = access.gradient(access.x, rows, lambda logits, at, k=k: logits[:, k])
        torch.testing.assert_close(jacobian[:, k], one)


@pytest.mark.parametrize(
    "attack, message",
    [
        (DeepFool(norm=1), "'norm' parameter"),
        (CarliniWagner(norm=0), "'norm' parameter"),
        (FastAdaptiveBoundary(n_targets=2, goal="targeted", target=1), "n_targets"),
        (
            AutoProjectedGradientDescent(loss="targeted_dlr", goal="targeted", target=1),
            "targeted_dlr",
        ),
        (JacobianSaliencyMap(theta=0), "theta"),
        (JacobianSaliencyMap(theta=[1.0, 2.0]), "theta"),
        (UniversalPerturbation(goal="targeted"), "needs a target"),
        (AutoAttack(norm=0), "norm"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_bad_parameters_are_named(attack, message, multiclass):
    victim, X, _ = multiclass
    with pytest.raises(ValueError, match=message):
        attack.set_params(estimator=FrozenEstimator(victim)).fit(X)


def test_mlp_and_its_frozen_form_agree():
    X, y = load_digits(return_X_y=True)
    X = X[:300] / 16
    victim = MLPClassifier(20, solver="lbfgs", tol=0.05, random_state=0)
    attack = DeepFool(victim, bounds=(0, 1)).fit(X, y[:300])
    frozen = DeepFool(FrozenEstimator(attack.estimator_), bounds=(0, 1)).fit(X)
    np.testing.assert_array_equal(attack.transform(X[:20]), frozen.transform(X[:20]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("attack", [FastGradientMethod, ProjectedGradientDescent])
def test_cross_entropy_that_is_saturated_does_not_look_robust(attack, dtype):
    # Logits a thousand times as large change no label, and no attack's success.
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(dtype)
    victim = LogisticRegression(max_iter=1000).fit(X[:1000], y[:1000])
    module = torch.nn.Linear(64, 10).to(torch.float32)
    rates = []
    for scale in (1.0, 1000.0):
        with torch.no_grad():
            module.weight[:] = torch.as_tensor(scale * victim.coef_)
            module.bias[:] = torch.as_tensor(scale * victim.intercept_)
        result = attack(PretrainedModule(module), eps=0.2).fit(X).run(X[1000:1100])
        rates.append(result.success.mean())
    assert rates[0] > 0.8 and rates[1] >= rates[0] - 0.1


@pytest.mark.parametrize("bounds", [None, "data"])
@pytest.mark.parametrize("attack", [CarliniWagner(norm=np.inf, max_iter=20), DeepFool()])
def test_rounding_of_the_victim_itself_is_no_dead_end(attack, bounds):
    # Of raw columns, the kernel's sums lose digits that the view of a linear SVC keeps:
    # a point just beyond the one's boundary is not beyond the other's.
    X, y = load_breast_cancer(return_X_y=True)
    victim = FrozenEstimator(SVC(kernel="linear").fit(X, y))
    attack = clone(attack).set_params(estimator=victim, bounds=bounds)
    result = attack.fit(X).run(X[:30])
    assert result.success.mean() > 0.9
    np.testing.assert_array_equal(
        result.success, victim.predict(result.X_adv) != victim.predict(X[:30])
    )


@pytest.mark.parametrize("norm", [2, np.inf])
def test_whole_pixels_are_no_obstacle(norm):
    """Rounding takes most of a small move away: it has to end farther beyond."""
    X, y = load_digits(return_X_y=True)
    X = np.rint(15 * X[:400]).astype(np.uint8)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y[:400])
    attack = DeepFool(FrozenEstimator(model), norm=norm).fit(X)
    result, fine = attack.run(X[:50]), attack.run(X[:50].astype(float))
    assert result.X_adv.dtype == np.uint8 and result.success.mean() > 0.9
    assert (model.predict(result.X_adv) != model.predict(X[:50]))[result.success].all()
    reached = result.success & fine.success
    assert np.median((result.distance / fine.distance)[reached]) < 1.5


def test_a_float32_network_behind_a_scaler_is_fooled_for_good():
    """Its logits arrive in float64, and are as coarse as those of float32."""
    torch.manual_seed(0)
    X, _ = load_breast_cancer(return_X_y=True)
    net = torch.nn.Sequential(
        torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    )
    network = FrozenEstimator(PretrainedModule(net.eval()))
    victim = make_pipeline(StandardScaler(), network).fit(X)
    attack = DeepFool(FrozenEstimator(victim), bounds=None).fit(X)
    result = attack.run(X[:80])
    assert result.success.all()
    alone = np.concatenate([victim.predict(row[None]) for row in result.X_adv])
    assert (alone != victim.predict(X[:80])).all()  # in a batch of any size
