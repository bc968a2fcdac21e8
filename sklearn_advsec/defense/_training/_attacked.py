"""What the defenses share that attack their own batches while they train."""

from numbers import Real

import torch
from sklearn.base import clone
from sklearn.utils._param_validation import HasMethods, Interval

from ...evasion import ProjectedGradientDescent
from ...threat import Box
from .._base import TrainingDefense


class AttackedTraining(TrainingDefense):
    """Base of the training defenses with an inner attack.

    Its parameters are `estimator`, `attack`, `eps`, `ramp`, `weight_perturbation` and
    `random_state`.
    """

    _parameter_constraints = {
        **TrainingDefense._parameter_constraints,
        "attack": [HasMethods(["run", "set_params"]), None],
        "eps": [Real, "array-like", None],
        "ramp": [tuple, list],
        "weight_perturbation": [Interval(Real, 0, 1, closed="left")],
    }

    def _prototype(self):
        if self.attack is None:
            attack = ProjectedGradientDescent(max_iter=10)
        else:
            attack = clone(self.attack).set_params(estimator=None)
        return attack if self.eps is None else attack.set_params(eps=self.eps)

    def _batch_attack(self, attack, X, seed):
        """Make an attack ready for the batches of a net in training."""
        from .._batches import BatchAttack
        from .._net_training import Ramp

        if attack.knowledge != "gradient" or not hasattr(attack, "_steps"):
            raise TypeError(
                "attack must be a gradient attack to train a net, such as "
                f"ProjectedGradientDescent; {type(attack).__name__} has knowledge "
                f"{attack.knowledge!r}."
            )
        attack._check_parameters(X.shape[1:])
        generator = torch.Generator().manual_seed(seed)
        return BatchAttack(attack, Box(attack.bounds, X), generator, Ramp(self.ramp))
