"""Random states: seeds of models of one recipe, and global states that stay."""

import sys
from contextlib import contextmanager, nullcontext

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from ._estimators import is_net


def seeded(estimator, seed):
    """Clone an estimator and set all its random states, from one seed."""
    model = clone(estimator)
    names = sorted(
        name
        for name in model.get_params(deep=True)
        if name == "random_state" or name.endswith("__random_state")
    )
    if names == ["random_state"]:
        return model.set_params(random_state=seed)
    rng = check_random_state(seed)
    return model.set_params(**{name: int(rng.randint(2**31 - 1)) for name in names})


def forked_rng(estimator, seed):
    """Seed torch for estimators that have no random state of their own: skorch nets."""
    if "torch" not in sys.modules:
        return nullcontext()
    parameters = estimator.get_params().items()
    return seeded_torch(
        seed, {v for name, v in parameters if name.rpartition("__")[2] == "device"}
    )


@contextmanager
def seeded_torch(seed, devices=()):
    """Seed torch inside, and leave its global random state as it was.

    The processor is seeded, and the GPUs among some devices (None is a device that skorch
    leaves as it is). By itself, torch would open and seed all there are, also for a net
    on the processor.
    """
    import torch

    gpus = {str(device) for device in devices if str(device).startswith("cuda")}
    gpus = gpus if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def seed_unset(estimator, seed):
    """Set every `random_state` that is None, so that a fit depends on `seed` only."""
    rng = np.random.RandomState(seed)
    params = estimator.get_params(deep=True)
    names = [k for k in sorted(params) if k.split("__")[-1] == "random_state"]
    estimator.set_params(
        **{name: int(rng.randint(2**31 - 1)) for name in names if params[name] is None}
    )


def fit_seeded(estimator, seed, X, y, **fit_params):
    """Fit a clone whose randomness comes from one seed, and from no global state."""
    model = clone(estimator)
    seed_unset(model, seed)
    with forked_rng(model, seed):
        return model.fit(X, y, **fit_params)


@contextmanager
def undisturbed(estimator):
    """Ask an estimator inside, and find torch's random state and its networks as before.

    A net of skorch draws a seed for each pass over rows, and stays in evaluation mode.
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch

    modes = [(m, m.training) for net in _networks(estimator) for m in net.modules()]
    with torch.random.fork_rng([]):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def _networks(value, seen=()):
    """Yield the torch modules in an estimator, and in estimators inside of it."""
    import torch

    if isinstance(value, torch.nn.Module):
        yield value
    elif is_net(value):
        yield from (v for v in vars(value).values() if isinstance(v, torch.nn.Module))
    elif isinstance(value, dict):
        yield from _networks(list(value.values()), seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _networks(item, seen)
    elif hasattr(value, "get_params") and id(value) not in seen:
        for item in vars(value).values():
            yield from _networks(item, (*seen, id(value)))
