"""Attacking the batches of a network while it is trained."""

import copy
from contextlib import contextmanager

import numpy as np
import torch
from skorch.callbacks import Callback

from ..differentiable._skorch import outputs_to_logits
from ..evasion._goal import LOSSES, Aim
from ..evasion._state import AttackState
from ..threat import LpBall


class BatchAccess:
    """The network in training, as the loops of the gradient attacks see a victim.

    Nothing is counted or copied: the network is the defender's own.
    """

    exact, mixed = True, False

    def __init__(self, module, to_logits, x):
        self.module = module
        self.to_logits = to_logits
        self.x = x

    @property
    def device(self):
        """Where the batch is."""
        return self.x.device

    def remaining(self, rows=None):
        """There is no budget."""
        return np.inf

    def logits(self, x):
        """Return the module's logits."""
        out = self.module(x)
        return self.to_logits(out[0] if isinstance(out, tuple) else out)

    def gradient(self, x, rows, loss):
        """Return the logits, and the gradient of a loss with respect to the input."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.logits(x)
            (gradient,) = torch.autograd.grad(loss(logits, slice(None)).sum(), x)
        return logits.detach(), gradient


class BatchAttack:
    """A gradient attack, made ready for batches of a network in training.

    The inner maximisation of adversarial training takes every step of the attack (no
    early stopping, no restarts), against the network in evaluation mode.

    Parameters
    ----------
    attack : evasion attack
        The prototype, of knowledge "gradient".
    box : Box
        The range of the training data, or the attack's own bounds.
    generator : torch.Generator
        Source of randomness for random starts.
    ramp : Ramp
        How far the attack's bound has grown.
    """

    def __init__(self, attack, box, generator, ramp):
        self.attack = attack
        self.box = box
        self.generator = generator
        self.ramp = ramp

    def grown(self):
        """Return the attack as far as it has grown by now."""
        share = self.ramp.share
        if share == 1:
            return self.attack
        attack = copy.copy(self.attack)
        attack.eps = share * np.asarray(attack.eps, dtype=np.float64)
        if getattr(attack, "step_size", None):
            attack.step_size = share * attack.step_size
        return attack

    def room(self, x):
        """Return the box for the perturbations; no value is missing here."""
        lower, upper = (
            torch.as_tensor(bound, dtype=x.dtype, device=x.device)
            for bound in (self.box.lower, self.box.upper)
        )
        return (lower - x).clamp_max_(0), (upper - x).clamp_min_(0)

    def __call__(self, net, x, y, loss=None, start=None):
        """Return the adversarial batch for rows `x` and labels `y`, on their device.

        Parameters
        ----------
        net : skorch.NeuralNet
            The net in training.
        x, y : tensor
            The batch.
        loss : callable, optional
            What is ascended instead of the attack's own loss: ``loss(logits, labels)``.
        start : tensor of the shape of `x`, optional
            Perturbations to begin with, where the attack has no random start.
        """
        attack = self.grown()
        access = BatchAccess(net.module_, outputs_to_logits(net)[0], x)
        lower, upper = self.room(x)
        state = AttackState(access, attack.norm, lower, upper, self.generator)
        with frozen(net.module_):
            labels = y.long()
            if attack.goal == "targeted":  # away from no label, so none can leak
                with torch.no_grad():
                    labels = access.logits(x).argmin(1)
            state.aim = Aim(attack.goal, labels, loss=loss or LOSSES[attack.loss])
            if attack.random_start:  # of each row, where an attack shares one
                ball = LpBall(attack.norm, attack.eps)
                start = ball.random(x, self.generator, lower, upper)
            elif start is not None:
                start = start.clamp(lower, upper)
            _, x_adv = attack._steps(state, start, early_stopping=False)
        return x_adv

    def logits(self, net, x):
        """Return the logits of rows, in evaluation mode."""
        with frozen(net.module_), torch.no_grad():
            return BatchAccess(net.module_, outputs_to_logits(net)[0], x).logits(x)


class AdversarialBatches(Callback):
    """Replace a share of the rows of each training batch by adversarial ones.

    Parameters
    ----------
    batch_attack : BatchAttack
        Makes them.
    share : float
        Which share of a batch; the first rows are taken, batches being shuffled.
    """

    def __init__(self, batch_attack, share):
        self.batch_attack = batch_attack
        self.share = share

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Rewrite the batch, which skorch's default collation makes a list."""
        if not training:
            return
        x, y = batch[0].to(net.device), batch[1].to(net.device)
        n = int(np.ceil(self.share * len(x)))
        x_adv = self.batch_attack(net, x[:n], y[:n])
        batch[0] = torch.cat([x_adv, x[n:]]) if n < len(x) else x_adv


@contextmanager
def frozen(module):
    """Evaluate a module in training with fixed weights; give it back as it was."""
    modes = [(layer, layer.training) for layer in module.modules()]
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    try:
        module.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
