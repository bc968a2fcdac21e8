"""Attacks on regressors: closed forms of linear ones, networks, and clear refusals."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from registry import EVASION
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import RadiusNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec import evasion
from sklearn_advsec._estimators import name_of
from sklearn_advsec.exceptions import NoGradientError
from sklearn_advsec.victim import RegressionVictim

X, y = load_diabetes(return_X_y=True)
X, y = X[:120] / X.std(axis=0), (y[:120] - y.mean()) / y.std()
DELTA = 0.3
DUAL = {np.inf: 1, 2: 2, 1: np.inf}


class Hidden(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(10, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
        )

    def forward(self, x):
        return self.layers(x)


def hidden():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Hidden()


def victim_of(model):
    return RegressionVictim(FrozenEstimator(model), delta=DELTA)


LINEAR = {
    "linear": LinearRegression().fit(X, y),
    "pipeline": make_pipeline(StandardScaler(), Ridge()).fit(X, y),
    "target": TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
}
LINEAR["target"].fit(X, y)
FOREST = RandomForestRegressor(5, max_depth=4, random_state=0).fit(X, y)


def weights(model):
    """Return the slopes of an affine model, by differences that are exact."""
    zero = np.zeros((1, X.shape[1]))
    return model.predict(np.eye(X.shape[1])) - model.predict(zero)


# Closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        *[(evasion.DeepFool(norm=2, bounds=None), name) for name in LINEAR],
        (evasion.DeepFool(norm=np.inf, bounds=None), "pipeline"),
        (evasion.FastMinimumNorm(norm=np.inf, bounds=None), "linear"),
        (evasion.FastMinimumNorm(norm=2, bounds=None), "pipeline"),
        (evasion.FastMinimumNorm(norm=1, bounds=None, max_iter=100), "target"),
        (evasion.CarliniWagner(bounds=None, max_iter=100, n_searches=4), "pipeline"),
        (evasion.FastAdaptiveBoundary(bounds=None, norm=2, max_iter=10), "linear"),
        (evasion.FastAdaptiveBoundary(bounds=None, max_iter=10), "pipeline"),
    ],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)
def test_the_nearest_move_by_delta_is_delta_over_the_dual_norm(attack, name):
    model = LINEAR[name]
    nearest = DELTA / np.linalg.norm(weights(model), DUAL[attack.norm])
    attack = clone(attack).set_params(estimator=victim_of(model))
    for wanted in (None, "increase"):
        result = attack.fit(X).run(X[:4], target=wanted)
        assert result.success.all()
        # Nothing can be nearer; and to a few per cent it is reached.
        assert (result.distance >= nearest * (1 - 1e-6)).all()
        assert (result.distance <= nearest * 1.05).all()
        move = model.predict(result.X_adv) - model.predict(X[:4])
        assert ((move if wanted else np.abs(move)) > DELTA).all()


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize(
    "kind",
    [
        evasion.FastGradientMethod,
        evasion.ProjectedGradientDescent,
        evasion.AutoProjectedGradientDescent,
    ],
)
def test_inside_a_ball_delta_is_reached_where_it_can_be(kind, norm):
    model = LINEAR["pipeline"]
    nearest = DELTA / np.linalg.norm(weights(model), DUAL[norm])
    for share, reached in ((1.01, True), (0.99, False)):
        attack = kind(victim_of(model), eps=share * nearest, norm=norm, bounds=None)
        if kind is not evasion.FastGradientMethod:  # one direction after the other
            attack.set_params(goal="targeted", target="decrease")
        result = attack.fit(X).run(X[:6])
        np.testing.assert_array_equal(result.success, np.full(6, reached))


# Every attack on every kind -------------------------------------------------------------


@cache
def skorch_regressor():
    skorch = pytest.importorskip("skorch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = skorch.NeuralNetRegressor(
            Hidden, max_epochs=20, lr=0.05, verbose=0, train_split=None
        )
        return net.fit(X.astype(np.float32), y.astype(np.float32)[:, None])


MODELS = {
    "pipeline": lambda: LINEAR["pipeline"],
    "skorch": skorch_regressor,
    "forest": lambda: FOREST,
}
REFUSED = {
    "AutoAttack": "FastAdaptiveBoundary and SquareAttack",
    "TransferAttack": "Attack RegressionVictim\\(surrogate",
    "ExpectationOverTransformation": "predict the rows after",
    "IterativeLeastLikely": "Name one of them",
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attack", EVASION, ids=name_of)
def test_every_attack_works_on_a_regressor_or_says_why_not(attack, name):
    model, kind = MODELS[name](), name_of(attack)
    attack = clone(attack).set_params(estimator=victim_of(model))
    reason = REFUSED.get(kind)
    if "Tree" in kind and name != "forest":
        reason = "no tree ensemble that can be read"
    elif name == "forest" and attack.knowledge == "gradient" and "Tree" not in kind:
        reason = reason or "TreeExactAttack"
    if reason:
        with pytest.raises((TypeError, ValueError, NoGradientError), match=reason):
            attack.fit(X)
        return
    result = attack.fit(X).run(X[:3])
    rows = np.stack([X[:3], result.X_adv])
    if name == "skorch":
        rows = rows.astype(np.float32)
    before, after = (np.ravel(model.predict(part)) for part in rows)
    np.testing.assert_allclose(result.y_pred, after, rtol=1e-4, atol=1e-5)
    clear = np.abs(np.abs(after - before) - DELTA) > 1e-4  # networks round
    moved = np.abs(after - before) > DELTA
    np.testing.assert_array_equal(result.success[clear], moved[clear])


def test_networks_are_attacked_by_gradients():
    net, module = skorch_regressor(), hidden()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for victim in (victim_of(net), RegressionVictim(module, delta=0.1)):
        attack = evasion.FastMinimumNorm(victim, norm=2, bounds=None, max_iter=40)
        nearest = attack.fit(X).run(X[:10])
        assert nearest.success.all()
        square = evasion.SquareAttack(
            victim, norm=2, eps=0.5 * float(np.median(nearest.distance)), max_queries=60
        )
        assert square.fit(X).run(X[:10]).success.mean() < 0.5
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]) and module.training
    wide = RegressionVictim(torch.nn.Linear(10, 2))
    with pytest.raises(ValueError, match="2 values for a row"):
        evasion.DeepFool(wide).fit(X)


def test_skorch_regressors_are_trained_on_a_column_of_targets():
    skorch = pytest.importorskip("skorch")
    net = skorch.NeuralNetRegressor(Hidden, max_epochs=2, verbose=0, train_split=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a loss would broadcast with a warning
        victim = RegressionVictim(net, delta=0.1).fit(X, y)
    assert victim.predict(X.tolist()).shape == (len(X),)


class Twice(Ridge):
    """A regressor that predicts something else than what its view says."""

    def predict(self, X):
        return 2 * super().predict(X)


def test_a_view_that_differs_from_a_regressor_is_told():
    victim = victim_of(Twice().fit(X, y))
    with pytest.warns(UserWarning, match="differentiable view of .*mislead"):
        evasion.DeepFool(victim).fit(X)
    with pytest.raises(NoGradientError, match="SquareAttack"):
        evasion.DeepFool(victim_of(RadiusNeighborsRegressor().fit(X, y))).fit(X)
