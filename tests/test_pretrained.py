import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch
from nets import CNN, MLP
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec import defense, differentiable, encryption, evasion, poisoning
from sklearn_advsec._rows import image_shape_of
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.victim import GradientAccess

X = np.random.RandomState(0).rand(30, 6)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_outputs_are_logits(outputs):
    torch.manual_seed(0)
    module = MLP(6, outputs)
    classes = list("abc")[: max(outputs, 2)]
    classifier = PretrainedModule(module, classes=classes, batch_size=7)
    with torch.no_grad():
        logits = module(torch.as_tensor(X, dtype=torch.float32)).numpy()
    if outputs == 1:
        p = 1 / (1 + np.exp(-logits[:, 0]))
        proba = np.c_[1 - p, p]
    else:
        proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(X), proba, rtol=1e-5)
    np.testing.assert_array_equal(
        classifier.predict(X), np.array(classes)[proba.argmax(1)]
    )
    assert classifier.decision_function(X).shape == ((30, 3) if outputs == 3 else (30,))
    view = differentiable.view(classifier)
    np.testing.assert_allclose(view.predict_proba(torch.as_tensor(X)), proba, rtol=1e-5)


def test_is_a_classifier_that_clones_keep():
    classifier = PretrainedModule(MLP(6, 3))
    assert clone(classifier) is classifier
    np.testing.assert_array_equal(classifier.classes_, [0, 1, 2])
    y = classifier.predict(X)
    assert cross_val_score(classifier, X, y, cv=2).tolist() == [1.0, 1.0]
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict(X), y)


def test_mode_is_given_back_layer_by_layer():
    module = CNN()
    module.train()
    module.layers[1].eval()  # a frozen batch normalisation inside a net in training
    modes = [layer.training for layer in module.modules()]
    images = np.random.RandomState(0).rand(3, 1, 8, 8)
    first = PretrainedModule(module).predict_proba(images)
    assert [layer.training for layer in module.modules()] == modes
    np.testing.assert_array_equal(first, PretrainedModule(module).predict_proba(images))


def test_bad_input():
    with pytest.raises(TypeError, match="skorch"):
        PretrainedModule(MLP).predict(X)
    with pytest.raises(ValueError, match="classes has 2 labels.*for 3"):
        PretrainedModule(MLP(6, 3), classes=[0, 1]).predict(X)
    with pytest.raises(ValueError, match="device is 'cuda'"):
        PretrainedModule(MLP(6, 3), device="cuda").fit(X)
    with pytest.raises(ValueError, match="NaN"):
        PretrainedModule(MLP(6, 3)).predict(np.full((2, 6), np.nan))


def _net(*last, n_outputs=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, n_outputs), *last).eval()


class Returns(torch.nn.Module):
    """Hands its scores out in some wrapping."""

    def __init__(self, wrap, n_outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.wrap = torch.nn.Linear(6, n_outputs), wrap

    def forward(self, x):
        return self.wrap(self.layer(x))


Named = namedtuple("Named", "loss logits")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out: (out, out + 1),
        lambda out: [out],
        lambda out: {"hidden": out + 1, "logits": out},
        lambda out: {"anything": out},
        lambda out: Named(out + 1, out),
        lambda out: out[:, :, None, None],
    ],
    ids=["tuple", "list", "dict", "one_in_dict", "named", "convolutional"],
)
def test_scores_are_found_in_what_a_module_returns(wrap):
    plain, wrapped = PretrainedModule(_net()), PretrainedModule(Returns(wrap))
    np.testing.assert_array_equal(wrapped.predict_proba(X), plain.predict_proba(X))
    view = differentiable.view(wrapped)
    proba = view.predict_proba(torch.as_tensor(X))
    np.testing.assert_allclose(proba, plain.predict_proba(X), rtol=1e-6)


def test_what_holds_no_scores_is_refused():
    for wrap, kind in ((lambda out: {"a": out, "b": out}, TypeError), (str, TypeError),
                       (lambda out: out[:, :, None].repeat(1, 1, 2), ValueError),
                       (lambda out: out.argmax(1), ValueError)):  # fmt: skip
        classifier = PretrainedModule(Returns(wrap))
        with pytest.raises(kind, match="Returns returned"):
            classifier.predict(X)
        with pytest.raises(kind, match="Returns returned"):
            differentiable.view(classifier).logits(torch.as_tensor(X))


class FunctionalSoftmax(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x).softmax(1)


@pytest.mark.parametrize(
    "module",
    [
        _net(torch.nn.Softmax(1)),
        _net(torch.nn.Sigmoid()),
        _net(torch.nn.Sigmoid(), n_outputs=1),
        FunctionalSoftmax(6, 3),
    ],
    ids=["softmax", "sigmoids", "sigmoid", "functional"],
)
def test_probabilities_are_not_taken_for_logits(module):
    with torch.no_grad():
        proba = module(torch.as_tensor(X, dtype=torch.float32)).numpy()
    if proba.shape[1] == 1:
        proba = np.c_[1 - proba, proba]
    proba = proba / proba.sum(1, keepdims=True)
    classifier = PretrainedModule(module, classes=np.arange(proba.shape[1]))
    with pytest.warns(UserWarning, match="taken for probabilities"):
        found = classifier.predict_proba(X)
    np.testing.assert_allclose(found, proba, rtol=1e-5)  # and says it only once
    np.testing.assert_array_equal(classifier.predict(X), proba.argmax(1))
    view = differentiable.view(classifier)
    np.testing.assert_allclose(view.predict_proba(torch.as_tensor(X)), proba, rtol=1e-5)
    told = PretrainedModule(
        module, classes=np.arange(proba.shape[1]), outputs="probabilities"
    )
    np.testing.assert_array_equal(told.predict_proba(X), found)
    raw = PretrainedModule(module, np.arange(proba.shape[1]), outputs="logits")
    assert abs(raw.predict_proba(X) - proba).max() > 0.01


def test_logits_that_look_like_probabilities_are_pointed_out():
    class Squashed(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).sigmoid()

    with pytest.warns(UserWarning, match="every row is of the second class"):
        PretrainedModule(Squashed(6, 1), classes=[0, 1]).predict(X)
    log_softmax = PretrainedModule(_net(torch.nn.LogSoftmax(1)))  # these are logits
    plain = PretrainedModule(_net())
    np.testing.assert_allclose(
        log_softmax.predict_proba(X), plain.predict_proba(X), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_the_forward_pass_is_in_half_precision(dtype):
    classifier = PretrainedModule(_net().to(dtype))
    proba = classifier.predict_proba(X)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(
        proba, PretrainedModule(_net()).predict_proba(X), atol=2e-2
    )
    view = differentiable.view(classifier)
    assert view.dtype == torch.float32 and view.precision == dtype
    np.testing.assert_allclose(view.predict_proba(torch.as_tensor(X)), proba, atol=1e-6)
    X32 = X.astype(np.float32)
    for attack in (
        evasion.ProjectedGradientDescent(classifier, eps=0.3),
        evasion.DeepFool(classifier),
        evasion.HopSkipJump(classifier, max_queries=100),
        evasion.SimBA(classifier, step_size=0.3),
        evasion.ZerothOrderOptimization(classifier, max_queries=100),
    ):
        result = attack.fit(X32).run(X32)
        assert result.X_adv.dtype == np.float32 and np.isfinite(result.X_adv).all()
        np.testing.assert_array_equal(classifier.predict(result.X_adv), result.y_pred)
        changed = result.y_pred != classifier.predict(X32)
        np.testing.assert_array_equal(changed, result.success)
        assert result.success.any()
        if hasattr(attack, "eps"):
            assert abs(result.X_adv - X32).max() <= 0.3 + 1e-6


def test_rounding_of_a_network_is_known_behind_other_steps():
    pipe = make_pipeline(StandardScaler(), PretrainedModule(_net())).fit(X)
    vote = VotingClassifier(
        [("a", PretrainedModule(_net())), ("b", LogisticRegression())], voting="soft"
    ).fit(X, np.arange(30) % 3)
    for victim in (pipe, vote):
        view = differentiable.view(victim)
        assert view.dtype == torch.float64 and view.precision == torch.float32
        access = GradientAccess(victim, X)
        assert access.dtype == torch.float64 and access.precision == torch.float32
        result = evasion.DeepFool(FrozenEstimator(victim)).fit(X).run(X)
        flipped = victim.predict(result.X_adv) != victim.predict(X)
        assert result.success.all() and flipped.all()
    X32 = X.astype(np.float32)  # rows round as well
    for victim in (PretrainedModule(_net().double()), FrozenEstimator(pipe)):
        assert GradientAccess(victim, X32).precision == torch.float32
        result = evasion.DeepFool(victim).fit(X32).run(X32)
        flipped = victim.predict(result.X_adv) != victim.predict(X32)
        assert result.X_adv.dtype == np.float32 and result.success.all() and flipped.all()
    linear = differentiable.view(LogisticRegression().fit(X, np.arange(30) % 3))
    assert linear.precision == torch.float64


def test_rows_that_may_not_be_written():
    frozen = X.astype(np.float32)
    frozen.flags.writeable = False
    classifier = PretrainedModule(_net())
    classifier.predict_proba(frozen)  # a warning of torch would be an error
    differentiable.view(classifier)
    access = GradientAccess(classifier, frozen)
    access.predict(access.x)


def test_channels_last_is_noticed_and_can_be_told():
    torch.manual_seed(0)
    images = np.random.RandomState(0).rand(4, 8, 9, 3).astype(np.float32)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(168, 5)
    )
    right = PretrainedModule(module).predict_proba(images.transpose(0, 3, 1, 2))
    told = PretrainedModule(module, channels="last")
    np.testing.assert_allclose(told.predict_proba(images), right, rtol=1e-6)
    view = differentiable.view(told)
    np.testing.assert_allclose(
        view.predict_proba(torch.as_tensor(images)), right, rtol=1e-5
    )
    with pytest.warns(UserWarning, match="channels='last'"):
        with pytest.raises(RuntimeError):
            PretrainedModule(module).predict(images)
    with pytest.warns(UserWarning, match="read as 8 channels"):
        image_shape_of((8, 9, 3))
    with pytest.raises(ValueError, match="'channels' parameter"):
        PretrainedModule(module, channels="middle").predict(images)
    with pytest.raises(ValueError, match="'outputs' parameter"):
        PretrainedModule(module, outputs="proba").fit()


def test_what_trains_its_victim_says_what_to_write_instead_of_a_module():
    for owner in (
        defense.AdversarialTrainingClassifier(CNN()),
        poisoning.PoisonedClassifier(CNN(), poisoning.LabelFlipping(strategy="random")),
        poisoning.DeepPartitionAggregation(CNN()),
    ):
        with pytest.raises(ValueError, match="NeuralNetClassifier.*instance of CNN"):
            owner.fit(X, np.arange(30) % 3)
    with pytest.raises(ValueError, match="must be an object implementing 'fit'"):
        defense.AdversarialTrainingClassifier("a module").fit(X, np.arange(30) % 3)


def test_a_module_is_computed_under_encryption():
    pytest.importorskip("tenseal.sealapi")
    torch.manual_seed(0)
    linear, sigmoid = torch.nn.Linear(6, 3).eval(), torch.nn.Sigmoid()
    encrypted = encryption.EncryptedClassifier(linear, packing="columns").fit(X)
    assert not linear.training
    best = np.sort(PretrainedModule(linear).decision_function(X))
    clear = best[:, -1] - best[:, -2] > 0.02
    assert clear.sum() > 10
    np.testing.assert_array_equal(
        encrypted.predict(X)[clear], PretrainedModule(linear).predict(X)[clear]
    )
    ends_in_sigmoid = torch.nn.Sequential(torch.nn.Linear(6, 1), sigmoid)
    for wrong in (ends_in_sigmoid, linear):
        wrong = PretrainedModule(wrong, outputs="probabilities")
        with pytest.raises(TypeError, match="has to end in logits"):
            encryption.EncryptedClassifier(wrong).fit(X)


@pytest.mark.parametrize(
    "module, rows",
    [
        (torch.nn.Conv2d(1, 4, 3), (6, 2, 8, 8)),
        (torch.nn.Conv2d(1, 4, 3), (6, 64)),
        (torch.nn.Linear(5, 3), (6, 4)),
    ],
)
def test_rows_of_a_shape_that_does_not_fit_are_named(module, rows):
    X = np.zeros(rows, dtype=np.float32)
    view = differentiable.view(PretrainedModule(module, range(4)))
    for ask in (
        PretrainedModule(module, range(4)).predict,
        lambda X: view.logits(torch.as_tensor(X)),
    ):
        with pytest.raises(RuntimeError) as error:
            ask(X)
        shape = str(rows[1:])
        assert any(f"rows of shape {shape}" in note for note in error.value.__notes__)
