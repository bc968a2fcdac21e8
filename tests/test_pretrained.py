import pickle

import numpy as np
import pytest
import torch
from nets import CNN, MLP
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from sklearn_advsec import differentiable
from sklearn_advsec.pretrained import PretrainedModule

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
