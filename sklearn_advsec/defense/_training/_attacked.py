"""Training on attacked batches, and on losses of clean and attacked batches in pairs."""

from numbers import Real

import numpy as np
import torch
from sklearn.base import clone
from torch.nn.functional import kl_div, log_softmax

from ..._sklearn import HasMethods, Interval
from ...evasion import ProjectedGradientDescent
from ...threat import Box
from ...threat._ball import resolve_eps
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
        """Return the attack, unfitted and of no victim."""
        if self.attack is None:
            attack = ProjectedGradientDescent(max_iter=10)
        else:
            attack = clone(self.attack).set_params(estimator=None)
        if self.eps is None:
            return attack
        try:
            if not hasattr(self.eps, "keys"):  # by position; a dict is by name
                np.asarray(self.eps, dtype=float)
            elif isinstance(self.eps, type):
                raise TypeError
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"eps must be one number, or one for each column; got {self.eps!r}."
            ) from error
        return attack.set_params(eps=self.eps)

    def _in_units(self, attack, X):
        """Give the bound of an attack in the units of the features, column by column."""
        unit = getattr(attack, "eps_unit", "feature")
        if unit == "feature" and not hasattr(attack.eps, "keys"):
            return attack
        if hasattr(self, "feature_names_in_"):
            import pandas as pd

            X = pd.DataFrame(X, columns=self.feature_names_in_)
        eps = resolve_eps(attack.eps, X, unit=unit, norm=attack.norm)
        return attack.set_params(eps=eps, eps_unit="feature")

    def _batch_attack(self, attack, X, seed):
        """Make an attack ready for the batches of a net in training."""
        from .._net_training import BatchAttack, Ramp

        if attack.knowledge != "gradient" or not hasattr(attack, "_steps"):
            raise TypeError(
                "attack must be a gradient attack to train a net, such as "
                f"ProjectedGradientDescent; {type(attack).__name__} has knowledge "
                f"{attack.knowledge!r}."
            )
        attack._check_parameters(X.shape[1:])
        generator = torch.Generator().manual_seed(seed)
        return BatchAttack(attack, Box(attack.bounds, X), generator, Ramp(self.ramp))


# How far from the row an ascent starts whose loss is smallest at the row itself.
_NUDGE = 1e-3


class PairedLoss(AttackedTraining):
    """Base of the defenses that need the clean and the adversarial batch at once.

    A subclass writes `_loss`, and `_make` where its inner attack has a loss of its own.
    """

    def _fit_net(self, net, X, y, weights, seed):
        from ...differentiable._skorch import outputs_to_logits
        from .._net_training import BesideBatches, extra_mixins, own_loss, train

        attack = self._in_units(self._prototype(), X)
        batch_attack = self._batch_attack(attack, X, seed)
        beside = BesideBatches(lambda net, x, y: self._make(batch_attack, net, x, y))

        def loss(net, criterion, out, x, y):
            to_logits = outputs_to_logits(net)[0]
            out_adv = net.infer(beside.made)
            logits, logits_adv = (to_logits(_first(o)) for o in (out, out_adv))
            mean = net.row_weights.mean
            return self._loss(criterion, out, out_adv, logits, logits_adv, y, mean)

        mixins = [*extra_mixins(self.weight_perturbation), own_loss(loss)]
        callbacks = [("ramp", batch_attack.ramp), ("beside_batches", beside)]
        return train(self, net, X, y, weights, *mixins, callbacks=callbacks)

    def _make(self, batch_attack, net, x, y):
        """Return the adversarial batch."""
        return batch_attack(net, x, y)

    def _loss(self, criterion, out, out_adv, logits, logits_adv, y, mean):
        """Return the loss of a batch, from outputs and logits of both kinds of rows.

        What is computed of each row goes through ``mean(values)``, which knows weights.
        """
        raise NotImplementedError


def _first(out):
    return out[0] if isinstance(out, tuple) else out


def divergence(logits, other):
    """Kullback-Leibler divergence of the second softmax from the first, per row."""
    value = kl_div(
        log_softmax(other, 1), log_softmax(logits, 1), reduction="none", log_target=True
    )
    return value.sum(1)


def nudge(batch_attack, x):
    """Draw a little normal noise to start from."""
    noise = torch.randn(x.shape, generator=batch_attack.generator, dtype=x.dtype)
    return _NUDGE * noise.to(x.device)
