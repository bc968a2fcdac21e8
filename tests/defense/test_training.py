"""The training defenses: their losses, and what they have in common."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from nets import MLP, net
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from sklearn_advsec.defense import (
    AdversarialDetector,
    AdversarialTrainingClassifier,
    IntervalBoundClassifier,
    LabelSmoothingClassifier,
    LogitPairingClassifier,
    MARTClassifier,
    MixupClassifier,
    RandomizedSmoothingClassifier,
    TRADESClassifier,
    certify,
)
from sklearn_advsec.defense._training._attacked import divergence
from sklearn_advsec.evasion import ProjectedGradientDescent
from sklearn_advsec.metrics import certified_accuracy_scorer, robust_accuracy_scorer
from sklearn_advsec.poisoning import LabelFlipping, PoisonedClassifier

PGD = ProjectedGradientDescent(eps=0.1, step_size=0.03, max_iter=7, bounds=(0, 1))
PGD20 = ProjectedGradientDescent(eps=0.1, step_size=0.02, max_iter=20, bounds=(0, 1))
robust = robust_accuracy_scorer(PGD20)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)


def defenses(mlp):
    """Every training defense, with what one of its own parameters may be."""
    attack = clone(PGD).set_params(max_iter=2)
    return [
        (AdversarialTrainingClassifier(mlp, attack, method="fast"), "eps", 0.05),
        (AdversarialTrainingClassifier(mlp, attack, method="free"), "n_replays", 2),
        (
            AdversarialTrainingClassifier(mlp, attack, weight_perturbation=0.01),
            "weight_perturbation",
            0.05,
        ),
        (IntervalBoundClassifier(mlp, ramp=(0, 0.5)), "eps", 0.02),
        (LabelSmoothingClassifier(mlp), "smoothing", 0.25),
        (LogitPairingClassifier(mlp, attack), "pairing_weight", 5.0),
        (LogitPairingClassifier(mlp, pairing="clean"), "sigma", 0.1),
        (MARTClassifier(mlp, attack), "beta", 0.5),
        (MixupClassifier(mlp), "alpha", 0.1),
        (TRADESClassifier(mlp, attack), "beta", 0.5),
    ]


EVERY = defenses(net(max_epochs=2))


def named(case):
    return f"{type(case[0]).__name__}-{case[1]}" if isinstance(case, tuple) else None


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_searchable_seeded_and_the_users_net_is_untouched(case, digits):
    model, name, value = case
    X, y = digits[0][:120], np.array(list("abcdefghij"))[digits[2][:120]]
    grid = {name: [getattr(model, name), value], "estimator__module__hidden": [8, 16]}
    model = clone(model).set_params(random_state=0)
    results = [
        GridSearchCV(model, grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(X, y)
        for n_jobs in (1, 2)
    ]
    one, two = (r.cv_results_["mean_test_score"] for r in results)
    np.testing.assert_array_equal(one, two)
    fitted = results[0].best_estimator_
    proba = fitted.predict_proba(X)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = clone(fitted).fit(X, y)  # a parameter matters, a second fit does not
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.predict_proba(X), proba)
    other = clone(fitted).set_params(**{name: 3 * value}).fit(X, y)
    assert np.abs(other.predict_proba(X) - proba).max() > 1e-6
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)
    # What was trained is a net of the user's own class, with no callback of ours.
    assert type(fitted.estimator_) is type(model.estimator)
    kinds = {type(callback).__module__ for _, callback in fitted.estimator_.callbacks_}
    assert not any(kind.startswith("sklearn_advsec") for kind in kinds)
    assert not model.estimator.initialized_


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_partial_fit_goes_on_with_the_same_net(case, digits):
    model = clone(case[0]).set_params(random_state=0)
    X, y = digits[0][:100], digits[2][:100]
    model.partial_fit(X, y, classes=np.arange(10))
    first = [p.clone() for p in model.estimator_.module_.parameters()]
    module = model.estimator_.module_
    model.partial_fit(X[:50], np.full(50, 3))  # one class only, for now
    assert model.estimator_.module_ is module and len(model.estimator_.history) == 4
    moved = [(a - b).abs().max() for a, b in zip(first, module.parameters(), strict=True)]
    assert all(move > 0 for move in moved)
    assert model.classes_.tolist() == list(range(10))
    with pytest.raises(ValueError, match="does not know"):
        model.partial_fit(X, y + 5)
    fitted = clone(model).fit(X, y)
    with torch.no_grad():
        begun = clone(model).partial_fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), begun.predict_proba(X))


def test_trades_with_beta_0_is_ordinary_training(digits):
    X, y = digits[0][:200], digits[2][:200]
    plain = LabelSmoothingClassifier(net(max_epochs=2), smoothing=0.0, random_state=0)
    trades = TRADESClassifier(net(max_epochs=2), PGD, beta=0.0, random_state=0)
    np.testing.assert_allclose(
        trades.fit(X, y).predict_proba(X), plain.fit(X, y).predict_proba(X), atol=1e-6
    )


def test_divergence_is_kullback_leiblers():
    a, b = torch.randn(2, 5, 4).double()
    p, q = torch.softmax(a, 1), torch.softmax(b, 1)
    torch.testing.assert_close(divergence(a, b), (p * (p / q).log()).sum(1))


class _Losses(Callback):
    """Record the loss that was trained on, and the outputs it was made of."""

    seen = []

    def on_batch_end(self, net, batch=None, training=False, loss=None, y_pred=None, **_):
        _Losses.seen.append((batch, float(loss.detach()), y_pred.detach().clone()))


def test_mart_with_eps_0_is_its_boosted_cross_entropy(digits):
    _Losses.seen = []
    X, y = digits[0][:64], digits[2][:64]
    mlp = net(max_epochs=1, callbacks=[("losses", _Losses())])
    MARTClassifier(mlp, PGD, eps=0.0, random_state=0).fit(X, y)
    (_, labels), loss, logits = _Losses.seen[0]
    p = torch.softmax(logits, 1).numpy()
    rows = np.arange(len(p))
    own = p[rows, labels]
    p[rows, labels] = 0
    expected = np.mean(-np.log(own) - np.log(1 - p.max(1)))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_clean_logit_pairing_without_noise_by_hand(digits):
    _Losses.seen = []
    X, y = digits[0][:64], digits[2][:64]
    mlp = net(max_epochs=1, callbacks=[("losses", _Losses())])
    LogitPairingClassifier(
        mlp, pairing="clean", sigma=0.0, pairing_weight=2.0, random_state=0
    ).fit(X, y)
    (_, labels), loss, logits = _Losses.seen[0]
    pairs = (logits[:32] - logits[32:]).square().sum(1).mean()
    expected = nn.functional.cross_entropy(logits, labels) + 2.0 * pairs
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_mixup_is_the_loss_of_the_blended_labels(digits):
    _Losses.seen = []
    X, y = digits[0][:64], digits[2][:64]
    mlp = net(max_epochs=1, callbacks=[("losses", _Losses())])
    mlp.set_params(iterator_train__shuffle=False)
    MixupClassifier(mlp, alpha=5.0, random_state=0).fit(X, y)
    (rows, labels), loss, logits = _Losses.seen[0]
    # Find the share and the partners again from the blended rows.
    seed = np.random.RandomState(0).randint(2**31 - 1)
    rng = np.random.RandomState(seed)
    share, partner = rng.beta(5.0, 5.0), rng.permutation(64)
    blend = share * X + (1 - share) * X[partner]
    np.testing.assert_allclose(rows.numpy(), blend, atol=1e-6)
    soft = share * np.eye(10)[y] + (1 - share) * np.eye(10)[y[partner]]
    expected = nn.functional.cross_entropy(logits, torch.as_tensor(soft).float())
    assert loss == pytest.approx(float(expected), rel=1e-5)


class _Weights(nn.Module):
    """Linear without bias, so that the worst step of its weights is known."""

    def __init__(self, n_features=64, n_classes=10):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes, bias=False)

    def forward(self, x):
        return self.linear(x)


def test_weight_perturbation_takes_the_gradient_at_the_worst_weights(digits):
    X, y = digits[0][:64], digits[2][:64]
    sgd = net(_Weights, max_epochs=1, lr=0.5, batch_size=64)
    sgd.set_params(optimizer=torch.optim.SGD)
    gamma = 0.3
    model = AdversarialTrainingClassifier(
        sgd, PGD, eps=0.0, weight_perturbation=gamma, random_state=0
    ).fit(X, y)
    start = clone(model).set_params(estimator__lr=0.0, weight_perturbation=0.0)
    weight = start.fit(X, y).estimator_.module_.linear.weight.detach()

    def gradient(w):
        w = w.clone().requires_grad_()
        loss = nn.functional.cross_entropy(torch.as_tensor(X) @ w.T, torch.as_tensor(y))
        return torch.autograd.grad(loss, w)[0]

    ascent = gradient(weight)
    worst = weight + gamma * weight.norm() * ascent / ascent.norm()
    expected = weight - 0.5 * gradient(worst)
    torch.testing.assert_close(model.estimator_.module_.linear.weight.detach(), expected)


def test_free_training_takes_the_rows_gradient_from_the_weights_pass(digits):
    # One batch, two replays: the second is one signed step away from the first.
    seen = []

    class Record(Callback):
        def on_grad_computed(self, net, named_parameters, batch=None, training=False):
            seen.append(batch[0].detach().clone())

    X, y = digits[0][:64], digits[2][:64]
    mlp = net(max_epochs=1, callbacks=[("record", Record())])
    mlp.set_params(iterator_train__shuffle=False)
    AdversarialTrainingClassifier(
        mlp, PGD, method="free", n_replays=3, random_state=0
    ).fit(X, y)
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[0].numpy(), X)
    moved = np.abs(seen[1].numpy() - X)
    inside = (X > 0.1) & (X < 0.9)
    assert (np.isclose(moved, 0.1, atol=1e-6) | (moved == 0))[inside].all()
    assert moved[inside].mean() > 0.09 and seen[2].min() >= 0 and seen[2].max() <= 1


class _Deltas(Callback):
    """Record how far each batch was from the rows, which are not shuffled."""

    def __init__(self, X, of_each):
        self.X, self.of_each = X, of_each

    seen = []

    def on_grad_computed(self, net, named_parameters, batch=None, training=False):
        i = len(_Deltas.seen) // self.of_each % -(-len(self.X) // net.batch_size)
        rows = self.X[i * net.batch_size :][: net.batch_size]
        _Deltas.seen.append(np.abs(batch[0].detach().numpy() - rows).max())


@pytest.mark.parametrize(("method", "of_each"), [("pgd", 1), ("free", 2)])
def test_ramp_lets_the_attack_grow_with_the_training(method, of_each, digits):
    _Deltas.seen = []
    X, y = digits[0][:160], digits[2][:160]
    mlp = net(max_epochs=4, batch_size=40, callbacks=[_Deltas(X, of_each)])
    mlp.set_params(iterator_train__shuffle=False)
    model = AdversarialTrainingClassifier(
        mlp, PGD, method=method, n_replays=2, ramp=(0.25, 0.75), random_state=0
    )
    model.partial_fit(X, y)
    expected = 0.1 * np.clip((np.arange(16) / 16 - 0.25) / 0.5, 0, 1)
    last = np.array(_Deltas.seen).reshape(16, of_each)[:, -1]  # of a batch's replays
    np.testing.assert_allclose(last, expected, atol=1e-6)
    model.partial_fit(X, y)  # a net that trains on has the whole attack
    assert min(_Deltas.seen[16 * of_each :][of_each - 1 :: of_each]) > 0.09


@pytest.mark.slow
def test_what_each_defense_buys_on_digits(digits):
    X, X_test, y, y_test = digits
    mlp = net(max_epochs=6, module__hidden=64)
    fitted = {
        name: model.set_params(random_state=0).fit(X, y)
        for name, model in {
            "plain": LabelSmoothingClassifier(mlp, smoothing=0.0),
            "smooth": LabelSmoothingClassifier(mlp, smoothing=0.1),
            "trades": TRADESClassifier(mlp, PGD),
            "mart": MARTClassifier(mlp, PGD),
            "pairing": LogitPairingClassifier(mlp, PGD),
            "fast": AdversarialTrainingClassifier(mlp, PGD, method="fast"),
            "free": AdversarialTrainingClassifier(
                net(max_epochs=2, module__hidden=64), PGD, method="free"
            ),
        }.items()
    }
    clean = {name: model.score(X_test, y_test) for name, model in fitted.items()}
    held = {name: robust(model, X_test, y_test) for name, model in fitted.items()}
    assert min(clean.values()) > 0.9, clean
    for name in ("trades", "mart", "pairing", "fast", "free"):
        assert held[name] > held["plain"] + 0.1, held
    # Label smoothing is no defense against an attack that sees the gradients.
    assert held["smooth"] < held["fast"] - 0.1, held


@pytest.mark.long
def test_interval_training_is_provable_and_other_training_is_not(digits):
    X, X_test, y, y_test = digits
    bounded = IntervalBoundClassifier(
        net(max_epochs=12, module__hidden=32), eps=0.1, bounds=(0, 1), random_state=0
    ).fit(X, y)
    hard = AdversarialTrainingClassifier(
        net(max_epochs=3, module__hidden=32), PGD, random_state=0
    ).fit(X, y)
    scorer = certified_accuracy_scorer(0.1, method="ibp", bounds=(0, 1))
    proved, attacked = scorer(bounded, X_test, y_test), robust(bounded, X_test, y_test)
    assert 0.5 < proved <= attacked
    assert scorer(hard, X_test, y_test) < 0.2
    tighter = certify(bounded, X_test, eps=0.1, bounds=(0, 1))
    assert proved <= tighter.accuracy(y_test, 0.1) <= attacked


class _Bfloat16(MLP):
    """A net whose own option it is to compute in bfloat16 by autocast."""

    seen = set()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            out = super().forward(x)
        _Bfloat16.seen.add(out.dtype)
        return out.float()


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_a_net_under_autocast_trains_and_is_attacked_as_it_computes(case, digits):
    X, y = digits[0][:300], digits[2][:300]
    _Bfloat16.seen = set()
    mlp = net(_Bfloat16, max_epochs=8)
    model = clone(case[0]).set_params(estimator=mlp, random_state=0)
    if isinstance(model, IntervalBoundClassifier):  # no bounds of what is rounded
        with pytest.raises(TypeError, match="float has no interval bounds"):
            model.fit(X, y)
        return
    model.fit(X, y)
    assert model.score(X, y) > 0.6
    assert robust(model, X[:50], y[:50]) < model.score(X[:50], y[:50])
    assert _Bfloat16.seen == {torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.parametrize("case", EVERY, ids=named)
def test_on_a_gpu(case, digits):
    X, y = digits[0][:100], digits[2][:100]
    model = clone(case[0]).set_params(random_state=0, estimator__device="cuda").fit(X, y)
    assert next(model.estimator_.module_.parameters()).is_cuda
    assert 0 <= robust(model, X, y) <= model.score(X, y)
    certificate = certify(model, X, eps=0.01, method="ibp")
    assert certificate.accuracy(y, 0.01) <= robust_accuracy_scorer(
        clone(PGD20).set_params(eps=0.01)
    )(model, X, y)


def test_in_a_pipeline_and_behind_frozen(digits):
    X, X_test, y, y_test = digits
    model = make_pipeline(
        MinMaxScaler(), TRADESClassifier(net(max_epochs=3), PGD, random_state=0)
    ).fit(X, y)
    attack = clone(PGD).set_params(estimator=FrozenEstimator(model), bounds=None)
    result = attack.fit(X).run(X_test[:50], y_test[:50])
    np.testing.assert_array_equal(result.y_pred, model.predict(result.X_adv))
    assert result.success.mean() > 0.05


class _Probabilities(MLP):
    def forward(self, x):
        return torch.softmax(super().forward(x), 1)


def test_bad_input(digits):
    X, y = digits[0][:50], digits[2][:50]
    nll = net(_Probabilities).set_params(criterion=nn.NLLLoss)
    for cls in (LabelSmoothingClassifier, IntervalBoundClassifier):
        with pytest.raises(TypeError, match="CrossEntropyLoss"):
            cls(nll).fit(X, y)
    TRADESClassifier(nll, PGD, random_state=0).fit(X, y)  # any criterion of the net
    for ramp in ((0.5, 0.2), (0, 2), (0.5,)):
        with pytest.raises(ValueError, match="ramp"):
            IntervalBoundClassifier(net(), ramp=ramp).fit(X, y)
        with pytest.raises(ValueError, match="ramp"):
            TRADESClassifier(net(), PGD, ramp=ramp).fit(X, y)
    with pytest.raises(ValueError, match="beta"):
        TRADESClassifier(net(), PGD, beta=-1.0).fit(X, y)
    with pytest.raises(TypeError, match="trains networks"):
        MixupClassifier(RandomizedSmoothingClassifier(net())).fit(X, y)
    with pytest.raises(AttributeError):
        AdversarialTrainingClassifier(FrozenEstimator(nll)).partial_fit  # noqa: B018


@pytest.mark.parametrize("method", ["pgd", "fast", "free", "trades"])
def test_bounds_by_name_and_in_units_of_the_spread(method):
    """They are resolved on the training data, whatever the method."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    width = X.std(ddof=0).to_numpy()
    attack = ProjectedGradientDescent(max_iter=2)
    if method == "trades":
        defense = TRADESClassifier(net(max_epochs=2), attack, random_state=0)
    else:
        defense = AdversarialTrainingClassifier(
            net(max_epochs=2), attack, method=method, random_state=0
        )
    for named, plain in (
        (attack.set_params(eps=0.5, eps_unit="std"), 0.5 * width),
        (ProjectedGradientDescent(eps={X.columns[1]: 0.3}, max_iter=2), [0, 0.3, 0, 0]),
    ):
        one = clone(defense).set_params(attack=clone(named)).fit(X, y)
        same = ProjectedGradientDescent(eps=plain, max_iter=2)
        other = clone(defense).set_params(attack=same).fit(X, y)
        np.testing.assert_allclose(
            one.predict_proba(X), other.predict_proba(X), atol=1e-5
        )
    for eps in (dict, [[0.1], [0.1, 0.2]], "wide"):
        with pytest.raises(ValueError, match="eps"):
            clone(defense).set_params(eps=eps).fit(X, y)


def test_rows_of_another_shape_are_refused_by_name():
    X, y = load_iris(return_X_y=True)
    cube = np.repeat(X[:, :, None], 2, 2)
    defense = LabelSmoothingClassifier(net(max_epochs=1), random_state=0)
    with pytest.raises(ValueError, match="X: the module takes no rows"):
        defense.fit(cube, y)
    defense.fit(X, y)
    detector = AdversarialDetector(LogisticRegression(max_iter=1000)).fit(X, y)
    for method in (defense.predict, defense.predict_proba, detector.predict):
        with pytest.raises(ValueError, match=r"X has rows of shape \(4, 2\)"):
            method(cube)


def test_mixed_tables_with_gaps_are_trained_on_and_attacked_through():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "size": rng.normal(0, 50, 200),
            "weight": np.where(rng.random(200) < 0.1, np.nan, rng.normal(0, 80, 200)),
            "kind": rng.choice(["a", "b"], 200),
        }
    )
    labels = np.where(table["size"] + 20 * (table["kind"] == "a") > 0, "big", "small")
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (numbers, ["size", "weight"]), (OneHotEncoder(), ["kind"])
    )
    pipe = make_pipeline(columns, LogisticRegression())
    attack = ProjectedGradientDescent(eps=0.3, eps_unit="std")
    trained = AdversarialTrainingClassifier(pipe, attack, n_rounds=1, random_state=0)
    poisoned = PoisonedClassifier(pipe, LabelFlipping(strategy="random", budget=5))
    for victim in (trained, poisoned):
        assert victim.__sklearn_tags__().input_tags.allow_nan
        attack.set_params(estimator=FrozenEstimator(victim.fit(table, labels)))
        result = attack.fit(table).run(table, labels)
        assert result.robust_accuracy < result.clean_accuracy - 0.1
        assert result.X_adv["kind"].equals(table["kind"])
    with pytest.warns(UserWarning, match=r"less than 0\.2% of the range of every column"):
        attack.set_params(eps=0.1, eps_unit="feature").fit(table)


@pytest.mark.filterwarnings("ignore")  # of skorch, about the device that it was not told
def test_nets_under_accelerate_are_searched_in_one_process():
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    from skorch.hf import AccelerateMixin

    global AcceleratedNet  # pickles by its name

    class AcceleratedNet(AccelerateMixin, NeuralNetClassifier):
        pass

    X, y = (part[:200] for part in load_digits(return_X_y=True))
    X, accelerator = (X / 16).astype(np.float32), accelerate.Accelerator(cpu=True)
    parameters = {"max_epochs": 1, "lr": 0.1, "criterion": nn.CrossEntropyLoss}
    parameters |= {"module__n_features": 64, "module__n_classes": 10}
    attack = ProjectedGradientDescent(eps=0.1, max_iter=2, bounds=(0, 1))
    answers, fitted = [], []
    for inside in (
        AcceleratedNet(MLP, accelerator=accelerator, **parameters),
        NeuralNetClassifier(MLP, **parameters),
    ):
        defense = AdversarialTrainingClassifier(inside, attack, random_state=0)
        search = GridSearchCV(
            defense,
            {"estimator__lr": [0.1, 0.2]},
            cv=2,
            scoring=robust_accuracy_scorer(attack),
            error_score="raise",
        ).fit(X, y)
        answers.append(search.predict_proba(X))
        fitted.append(search.best_estimator_)
        assert not hasattr(inside, "module_")  # the user's net is as it was
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-6)
    # Copies of an accelerator are itself, so that it knows the nets of all folds.
    assert len(accelerator._models) >= 5
    accelerator.free_memory()
    assert not accelerator._models
    again = pickle.loads(pickle.dumps(fitted[0]))
    np.testing.assert_allclose(again.predict_proba(X), answers[0], rtol=0, atol=1e-6)
