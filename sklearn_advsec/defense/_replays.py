"""Free adversarial training (Shafahi et al. 2019): one backward pass serves both."""

import torch

from ..threat import LpBall


def replays(n_replays, batch_attack):
    """Make a mixin that trains on each batch several times, perturbing it as it goes.

    The backward pass that gives the gradient of the weights gives that of the rows too;
    the perturbation takes one step of the ball's radius along it, and is carried over
    into the next batch (Algorithm 1).

    Parameters
    ----------
    n_replays : int
        Steps per batch, the paper's m.
    batch_attack : BatchAttack
        Knows what the perturbation may be.
    """
    carried = None

    class Replays:
        def train_step(self, batch, **fit_params):
            nonlocal carried
            x = batch[0].to(self.device)
            attack = batch_attack.grown()
            ball = LpBall(attack.norm, attack.eps)
            lower, upper = batch_attack.room(x)
            delta = torch.zeros_like(x)
            if carried is not None:
                n = min(len(x), len(carried))
                delta[:n] = carried[:n]
                delta = ball.project(delta, lower, upper)
            for _ in range(n_replays):
                batch[0] = (x + delta).requires_grad_()
                step = super().train_step(batch, **fit_params)
                direction = ball.ascent(batch[0].grad, delta, lower, upper)
                delta = ball.project(delta + ball.radius * direction, lower, upper)
            batch[0] = batch[0].detach()
            carried = delta
            return step

    return Replays
