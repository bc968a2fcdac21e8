"""How Auto-PGD chooses its steps: rules for the loop of `_descent.py`."""

import numpy as np
import torch

# The share of the new point in a step with momentum.
_MOMENTUM = 0.75


class _AdaptiveSteps:
    """What the two rules share: the best point of each row, and checkpoints."""

    def __init__(self, ball, checkpoints, end_at_best):
        self.ball = ball
        self.checkpoints = checkpoints
        self.end_at_best = end_at_best
        self.n_seen = 0
        self.box = None

    def keep(self, mask):
        """Go on with some rows only."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[mask])
        if self.box is not None:
            self.box = [bound[mask] for bound in self.box]

    def project(self, delta, lower, upper):
        """Return to ball and box; one clamp does for both where the ball is a box."""
        if self.ball.norm != np.inf:
            return self.ball.project(delta, lower, upper)
        if self.box is None:
            self.box = self.ball.intersect(lower, upper)
        return torch.clamp(delta, *self.box)

    def last(self, delta):
        """End where the last step led, or at the best point of those that were seen.

        Where rows leave at the goal, those that are left have not been there yet, but
        nobody knows about the last step.
        """
        return self.best if self.end_at_best and self.n_seen else delta

    def step(self, delta, logits, gradient, lower, upper, aim):
        """Return the next perturbations."""
        value = aim.objective(logits)
        if not self.n_seen:
            self.best = self.previous = delta
            self.best_gradient, self.best_value = gradient, value
            self.start(delta, value)
        else:
            self.rises = self.rises + (value > self.value)
            better = value > self.best_value
            self.best = _where(better, delta, self.best)
            self.best_gradient = _where(better, gradient, self.best_gradient)
            self.best_value = torch.maximum(value, self.best_value)
        self.value = value
        if self.n_seen in self.checkpoints:
            back = self.adapt(self.checkpoints[self.n_seen])
            delta = _where(back, self.best, delta)
            gradient = _where(back, self.best_gradient, gradient)
        new = self.move(delta, gradient, lower, upper)
        self.previous = delta
        self.n_seen += 1
        return new


class _HalvingSteps(_AdaptiveSteps):
    """Algorithm 1: where a step does not pay, halve it and go back to the best point."""

    def __init__(self, ball, max_iter, rho, end_at_best):
        at, gap = 0.22, 0.22
        checkpoints, before = {}, 0
        while (k := int(np.ceil(at * max_iter))) < max_iter:
            checkpoints[k] = rho * (k - before)
            gap, before = max(gap - 0.03, 0.06), k
            at += gap
        super().__init__(ball, checkpoints, end_at_best)

    def start(self, delta, value):
        self.rises = torch.zeros_like(value)
        self.step_size = torch.full_like(value, 2 * self.ball.radius)
        self.was_halved = torch.zeros_like(value, dtype=torch.bool)
        self.checked_value = value

    def adapt(self, wanted):
        stands = ~self.was_halved & (self.checked_value >= self.best_value)
        halve = (self.rises < wanted) | stands
        self.step_size = torch.where(halve, self.step_size / 2, self.step_size)
        self.was_halved, self.checked_value = halve, self.best_value
        self.rises = torch.zeros_like(self.rises)
        return halve

    def move(self, delta, gradient, lower, upper):
        ascent = self.ball.ascent(gradient, delta, lower, upper)
        new = delta + _column(self.step_size, delta) * ascent
        new = self.project(new, lower, upper)
        if not self.n_seen:
            return new
        new = _MOMENTUM * (new - delta) + (1 - _MOMENTUM) * (delta - self.previous)
        return self.project(delta + new, lower, upper)


class _SparseSteps(_AdaptiveSteps):
    """The L1 rule: steps on as many features as the best perturbation suggests."""

    def __init__(self, ball, max_iter, end_at_best):
        every = max(1, int(0.04 * max_iter))
        checkpoints = dict.fromkeys(range(every, max_iter, every))
        super().__init__(ball, checkpoints, end_at_best)

    def start(self, delta, value):
        n_features = delta.shape[1:].numel()
        changed = _count(delta)
        self.rises = torch.zeros_like(value)
        self.step_size = torch.full_like(value, self.ball.radius)
        self.changed = torch.where(changed > 0, changed, float(n_features))
        self.n_kept = torch.where(changed > 0, changed / 1.5, 0.2 * n_features)

    def adapt(self, _):
        changed = _count(self.best)
        sparser = changed < 0.95 * self.changed
        radius = self.ball.radius
        smaller = (self.step_size / 1.5).clamp_min(radius / 10)
        self.step_size = torch.where(sparser, radius, smaller)
        self.changed, self.n_kept = changed, changed / 1.5
        return sparser

    def move(self, delta, gradient, lower, upper):
        stretch = self.ball.stretch(gradient)
        room = torch.where(gradient > 0, upper - delta, delta - lower)
        flat = (gradient * stretch).masked_fill(room <= 0, 0).flatten(1)
        size = flat.abs()
        ranks = self.n_kept.long().clamp(1, size.shape[1])[:, None] - 1
        least = size.sort(dim=1, descending=True).values.gather(1, ranks)
        signs = torch.where(size >= least, flat.sign(), 0)
        signs = signs / signs.abs().sum(1, keepdim=True).clamp_min(1)
        ascent = signs.reshape(delta.shape) * stretch
        return self.ball.project(
            delta + _column(self.step_size, delta) * ascent, lower, upper
        )


def _count(delta):
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)


def _column(values, like):
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _where(rows, new, old):
    return torch.where(_column(rows, new), new, old)
