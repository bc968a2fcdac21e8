"""Seeds of torch: what trains nets seeds its own devices, and leaves the rest alone."""

import numpy as np
import pytest
import torch
from nets import net
from registry import FAMILIES
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_advsec import poisoning
from sklearn_advsec.batched import fit_many
from sklearn_advsec.defense import LabelSmoothingClassifier, MixupClassifier
from sklearn_advsec.extraction import CopycatCNN

RNG = np.random.RandomState(0)
X = RNG.randn(40, 5).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
VICTIM = FrozenEstimator(LogisticRegression().fit(X, Y))


def recipe(**parameters):
    return net(max_epochs=1, module__n_features=5, module__n_classes=2, **parameters)


def trainings(recipe):
    """Train a net by everything that seeds torch."""
    yield from fit_many(recipe, X, Y, [np.arange(40)], [4])
    for defense in (LabelSmoothingClassifier(recipe), MixupClassifier(recipe)):
        yield defense.set_params(random_state=4).fit(X, Y)
    for surrogate in (recipe, VotingClassifier([("net", recipe)], voting="soft")):
        yield CopycatCNN(VICTIM, surrogate=surrogate, random_state=4).fit(X)


def test_seeding_leaves_other_gpus_alone(monkeypatch):
    """Torch would open each of them, and warn."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    list(trainings(recipe()))
    assert not seeded


@pytest.mark.parametrize("device", ["cpu", None])
def test_seeds_decide_and_the_global_state_stays(device):
    """A net whose device is None stays where it is, and is seeded all the same."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = list(trainings(recipe(device=device)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    for one, other in zip(first, trainings(recipe(device=device)), strict=True):
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    "estimator",
    [each for each in FAMILIES[poisoning] if type(each).__name__ != "SleeperAgent"],
    ids=lambda e: type(e).__name__,
)
def test_poisoning_leaves_the_global_states_alone(estimator):
    rng = np.random.RandomState(1)
    rows, labels = rng.uniform(size=(30, 4)), np.arange(30) % 2
    rows[:, 0] += labels
    estimator = clone(estimator)
    if getattr(estimator, "random_state", 0) is None:  # it means the global state
        estimator.set_params(random_state=0)
    before = np.random.get_state()[2], torch.get_rng_state()  # noqa: NPY002
    if hasattr(estimator, "fit_resample"):
        estimator.fit_resample(rows, labels)
    else:
        estimator.fit(rows, labels)
    assert np.random.get_state()[2] == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
