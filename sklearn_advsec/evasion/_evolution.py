"""What the attacks of Ilyas et al. (2018) share: evolution strategies in the ball."""

from math import ceil
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..threat import LpBall
from ._active_rows import Answer, column
from ._starts import StartingAttack

# How often a step is halved before the ball is left larger instead.
_BACKTRACKS = 4


class EvolutionStrategy(StartingAttack):
    """What these attacks share: gradients from random directions, steps in the ball."""

    _parameter_constraints = {
        **StartingAttack._parameter_constraints,
        "eps": [Real, "array-like"],
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
    }

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        LpBall(np.inf, self.eps).scale(torch.zeros((1, *row_shape)))

    def _prepare(self, active):
        """Return `eps`, the step, and the reach of the samples, per feature."""
        ball = LpBall(np.inf, self.eps)
        eps = ball.scale(active.x)
        fixed = (eps == 0).expand_as(active.x)
        active.lower = active.lower.masked_fill(fixed, 0)
        active.upper = active.upper.masked_fill(fixed, 0)
        radius = ball.radius or 1.0
        if self.step_size is not None:
            share = self.step_size / radius
        else:  # the steps of the whole budget cross the ball a few times
            share = min(1.0, 5 * (self._cost() + 1) / self.max_queries)
        sigma = 0.2 if self.sigma is None else self.sigma / radius
        return eps, share * eps, sigma * eps

    def _gradient(self, active, state, sigma):
        """Estimate the ascent of what is wanted from pairs of opposite directions."""
        half = ceil(self.n_samples / 2)
        noise = torch.randn(
            (half, *active.x.shape[1:]), generator=state.generator, dtype=torch.float64
        ).to(active.x)
        # Pairs stand side by side: what a budget cuts off at the end is whole pairs.
        reach = sigma * torch.stack([noise, -noise], dim=1).flatten(0, 1)
        reach = self._smooth(reach, sigma, state)
        gradient = torch.zeros_like(active.x)

        def candidates(at):
            delta = active.point[at, None] + reach
            delta = torch.clamp(delta, active.lower[at, None], active.upper[at, None])
            return active.x[at, None] + delta

        for at, _, asked, answer in active.ask_many(candidates, len(reach)):
            value = torch.where(asked, self._value(answer), 0)
            shape = (len(value), half, 2, -1)
            value, whole = value.reshape(shape), asked.reshape(shape).flatten(2).all(2)
            slope = (value[:, :, 0] - value[:, :, 1]).mean(2) * whole
            flat = slope.to(noise) @ noise.flatten(1)
            gradient[at] = flat.reshape(gradient[at].shape)
        return gradient

    def _value(self, answer):
        return answer.objective

    def _smooth(self, reach, sigma, state):
        return reach

    def _cost(self):
        """Queries of one gradient."""
        return 2 * ceil(self.n_samples / 2)

    def _approach(self, active, state):
        """Algorithm 1: begin at a point that is as wanted, and shrink the ball to eps.

        A gradient step goes together with a smaller ball. Where the class is lost by it,
        the step is halved; where that does not help, the ball shrinks half as much.
        """
        eps, step, sigma = self._prepare(active)
        self._find_starts(active, state)
        if not len(active):
            return
        ratio = active.point.abs() / torch.where(eps > 0, eps, 1)
        active.size = ratio.flatten(1).amax(1).clamp_min(1)  # of the ball, in eps
        active.shrinks = active.size / 2
        active.reached = torch.ones_like(active.labels, dtype=torch.bool)
        while self._leave(active, state):
            active.step = self._gradient(active, state, sigma).sign() * step
            active.waits = torch.ones_like(active.reached)
            for trial in range(_BACKTRACKS):
                active.give_up(active.waits & (active.left() < 1))
                at = torch.nonzero(active.waits).flatten()
                if not len(at):
                    break
                size = (active.size - active.shrinks)[at].clamp_min(1)
                cut = column(size, active.x) * eps
                point = active.point[at] + active.step[at] / 2**trial
                point = torch.clamp(point, -cut, cut)
                point = torch.clamp(point, active.lower[at], active.upper[at])
                answer = active.ask(active.x[at] + point, at)
                holds = self._holds(answer)
                hit = at[holds]
                active.point[hit] = point[holds]
                active.point_predicted[hit] = answer.predicted[holds]
                active.reached[hit] = answer.reached[holds]
                active.size[hit] = size[holds]
                active.waits[hit] = False
            active.shrinks = torch.where(active.waits, active.shrinks / 2, active.shrinks)

    def _holds(self, answer):
        """Whether a point still has what the attack lives on."""
        return answer.reached

    def _leave(self, active, state):
        """Record rows that are inside the ball; let go those whose budget is spent."""
        done = Answer(active.point_predicted, active.reached & (active.size <= 1))
        active.settle(active.x + active.point, done)
        active.give_up(active.left() < 1)
        return len(active)
