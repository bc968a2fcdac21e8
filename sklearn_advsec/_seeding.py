"""Seeds of models of one recipe, also of those that draw from torch's global state."""

import sys
from contextlib import contextmanager

from sklearn.base import clone
from sklearn.pipeline import Pipeline
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


@contextmanager
def forked_rng(estimator, seed):
    """Seed torch for estimators that have no random state of their own: skorch nets.

    The processor is seeded, and the GPUs that a parameter called `device` names. By
    itself, torch would open and seed all there are, also for a net on the processor.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if "torch" not in sys.modules or type(last).__module__.startswith("sklearn."):
        yield
        return
    import torch

    gpus = {
        str(value)
        for name, value in estimator.get_params().items()
        if name.rpartition("__")[2] == "device" and str(value).startswith("cuda")
    }
    gpus = gpus if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
