"""Seeds of models of one recipe, also of those that draw from torch's global state."""

import sys
from contextlib import contextmanager, nullcontext

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state


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
