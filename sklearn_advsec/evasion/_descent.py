"""The loop that the first-order attacks share: projected steps on an active set."""

import numpy as np
import torch

# On a GPU, finding out which rows are done stalls the queue: look less often.
_LOOK_EVERY = {"cpu": 1, "cuda": 8}


class ConstantStep:
    """The rule of plain projected descent: a step of one length along the ascent.

    A rule may keep tensors with one entry per row; `keep` is called when rows leave.
    """

    def __init__(self, ball, step_size):
        self.ball = ball
        self.step_size = step_size
        self.box = None

    def step(self, delta, logits, gradient, lower, upper, aim):
        """Return the next perturbations, from the logits and the gradient at `delta`."""
        direction = self.ball.ascent(gradient, delta, lower, upper)
        delta = delta.add(direction, alpha=self.step_size)
        if self.ball.norm != np.inf:
            return self.ball.project(delta, lower, upper)
        if self.box is None:  # this ball is a box itself: one clamp does for both
            self.box = self.ball.intersect(lower, upper)
        return delta.clamp_(*self.box)

    def keep(self, rows):
        """Go on with some rows only, given their positions."""
        if self.box is not None:
            self.box = [bound.index_select(0, rows) for bound in self.box]

    def last(self, delta):
        """Return where the attack ends, given where the last step led."""
        return delta


def descend(state, rule, *, start=None, max_iter, early_stopping=True, n_draws=1):
    """Ascend the aim's objective inside ball and box, from `start`, on the open rows.

    Rows leave the batch, and are recorded, as soon as the victim itself confirms that
    they reached the goal. What is left after `max_iter` steps is returned.

    Parameters
    ----------
    state : AttackState
        The attack. Rows that are finished are left alone.
    rule : ConstantStep or another rule
        How a step is made of a gradient.
    start : tensor of the shape of ``state.x_adv``, optional
        Perturbations to begin with; 0 by default.
    max_iter : int
        Number of steps.
    early_stopping : bool, default=True
        Whether rows leave when they reach the goal. If not, every row takes all steps.
    n_draws : int, default=1
        How often each gradient is asked for; logits and gradients are averaged.

    Returns
    -------
    rows : tensor of int64, shape (n_left,)
        Which rows are left.
    x_adv : tensor of shape (n_left, ...)
        Where they ended.
    """
    access = state.access
    rows = state.open_rows()
    x, lower, upper = access.x[rows], state.lower[rows], state.upper[rows]
    delta = torch.zeros_like(x) if start is None else start[rows]
    aim = state.aim.take(rows)
    look_every = _LOOK_EVERY.get(access.device.type, 8)
    # Besides a step, a row needs its last answer, and an answer for each confirmation.
    reserve = n_draws + (0 if access.exact and not access.mixed else 1)

    x_adv = x + delta
    for step in range(max_iter):
        if not len(rows) or access.remaining(rows) < reserve + n_draws:
            break
        logits, gradient = access.gradient(x_adv, rows, aim.objective)
        for _ in range(n_draws - 1):
            more = access.gradient(x_adv, rows, aim.objective)
            logits, gradient = logits + more[0], gradient + more[1]
        if n_draws > 1:
            logits, gradient = logits / n_draws, gradient / n_draws
        if early_stopping and step % look_every == 0:
            at = torch.nonzero(aim.reached(logits)).flatten()
            if len(at):
                predicted, sure = _confirm(access, aim.take(at), x_adv, rows, at, logits)
                at = at[sure]
                state.record(rows[at], x_adv[at], predicted[sure], True)
                left = torch.ones_like(rows, dtype=torch.bool).index_fill_(0, at, False)
                left = torch.nonzero(left).flatten()
                rows, x, delta, lower, upper, logits, gradient = (
                    t.index_select(0, left)
                    for t in (rows, x, delta, lower, upper, logits, gradient)
                )
                aim = aim.take(left)
                rule.keep(left)
        delta = rule.step(delta, logits, gradient, lower, upper, aim)
        x_adv = x + delta
    return rows, x + rule.last(delta)


def settle(state, rows, x_adv, n_draws=1):
    """Ask the victim where rows ended, and record it (as far as the budget goes).

    With several draws, the mean of the logits is the answer.
    """
    access = state.access
    if not len(rows) or access.remaining(rows) < n_draws:
        return
    aim = state.aim.take(rows)
    if n_draws == 1:
        predicted, reached = aim.ask(access, x_adv, rows)
    else:
        logits = sum(access.logits(x_adv, rows) for _ in range(n_draws)) / n_draws
        predicted, reached = logits.argmax(1), aim.reached(logits)
    state.record(rows, x_adv, predicted, reached)


def _confirm(access, aim, x_adv, rows, at, logits):
    """Ask the victim about rows that seem done, unless the logits are its own."""
    if access.exact and not access.mixed:
        return logits[at].argmax(1), torch.ones_like(at, dtype=torch.bool)
    return aim.ask(access, x_adv[at], rows[at])
