"""Projected gradient descent: the loop that the attacks of a fixed budget share."""

import numpy as np
import torch

from ...exceptions import QueryBudgetExceeded
from .._active_rows import ActiveRows, all_but
from .._base import EvasionAttack, shared
from .._goal import LOSSES
from .._missing import lose_values
from .._state import LOOK_EVERY, record_last


class ConstantStep:
    """The rule of plain projected descent: a step of one length along the ascent.

    A rule may keep tensors with one entry per row; `select` is called when rows leave.
    """

    def __init__(self, ball, step_size):
        self.ball = ball
        self.step_size = step_size
        self.box = None

    def step(self, delta, logits, gradient, lower, upper, goal):
        """Return the next perturbations, from the logits and the gradient at `delta`."""
        direction = self.ball.ascent(gradient, delta, lower, upper)
        delta = delta.add(direction, alpha=self.step_size)
        if self.ball.norm != np.inf:
            return self.ball.project(delta, lower, upper)
        if self.box is None:  # this ball is a box itself: one clamp does for both
            self.box = self.ball.intersect(lower, upper)
        return delta.clamp_(*self.box)

    def select(self, rows):
        """Go on with some rows only, given their positions."""
        if self.box is not None:
            self.box = [bound.index_select(0, rows) for bound in self.box]

    def last(self, delta):
        """Return where the attack ends, given where the last step led."""
        return delta


def descend(state, rule, *, start=None, max_iter, early_stopping=True, n_draws=1):
    """Ascend the goal's objective inside ball and box, from `start`, on the open rows.

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
    goal = state.goal.select(rows)
    look_every = LOOK_EVERY.get(access.device.type, 10)
    # Besides a step, a row needs its last answer, and an answer for each confirmation.
    reserve = n_draws + (0 if access.exact and not access.mixed else 1)

    x_adv = x + delta
    try:
        for step in range(max_iter):
            if not len(rows) or access.affordable(rows) < reserve + n_draws:
                break
            logits, gradient = access.gradient(x_adv, rows, goal.objective)
            for _ in range(n_draws - 1):
                more = access.gradient(x_adv, rows, goal.objective)
                logits, gradient = logits + more[0], gradient + more[1]
            if n_draws > 1:
                logits, gradient = logits / n_draws, gradient / n_draws
            if early_stopping and step % look_every == 0:
                at = torch.nonzero(goal.reached(logits)).flatten()
                if len(at):
                    predicted, at = _confirm(
                        access, goal.select(at), x_adv, rows, at, logits
                    )
                    state.record(rows[at], x_adv[at], predicted, True)
                    left = all_but(at, len(rows))
                    rows, x, delta, lower, upper, logits, gradient = (
                        t.index_select(0, left)
                        for t in (rows, x, delta, lower, upper, logits, gradient)
                    )
                    goal = goal.select(left)
                    rule.select(left)
            delta = rule.step(delta, logits, gradient, lower, upper, goal)
            x_adv = x + delta
    except QueryBudgetExceeded:  # of a total: how far the rows came is not lost
        unseen = state.predicted[rows] < 0
        state.x_adv[rows[unseen]] = x_adv[unseen]
        raise
    return rows, x + rule.last(delta)


def _confirm(access, goal, x_adv, rows, at, logits):
    """Ask the victim about rows that seem done, unless the logits are its own.

    Returns its labels for those that are, and their positions.
    """
    if access.exact and not access.mixed:
        return logits[at].argmax(1), at
    predicted, confirmed = goal.ask(access, x_adv[at], rows[at])
    return predicted[confirmed], at[confirmed]


class GradientAttack(EvasionAttack):
    """Base of the gradient attacks: the ball, the starts, and how rows are settled.

    A subclass lists its parameters; what it has no parameter for is a class attribute.
    """

    knowledge = "gradient"
    loss = "cross_entropy"
    precision = "full"
    n_restarts = 1
    random_start = False
    early_stopping = True

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        **shared("eps", "bounds", "max_queries", "max_total_queries", "batch_size"),
    }

    def _check_parameters(self, row_shape):
        ball = self._ball()
        if ball.norm == 0:
            raise ValueError(
                f"norm must be np.inf, 2 or 1 for {type(self).__name__}; got 0."
            )
        ball.scale(torch.zeros((1, *row_shape)))  # raises where eps does not fit

    def _access_options(self):
        return {**super()._access_options(), "precision": self.precision}

    def _make_goal(self, access, chunk):
        goal = super()._make_goal(access, chunk)
        goal.loss = self._loss()
        return goal

    def _loss(self):
        return LOSSES[self.loss]

    def _attack(self, state):
        if self.random_start:
            self._record_wrong_already(state)
        if self._loses_values(state):
            self._lose_values(state)
        self._restarts(state)

    def _record_wrong_already(self, state):
        """Ask about the rows as they are: one that is wrong needs no perturbation.

        None is where the labels are what the victim itself has just said.
        """
        goal = state.goal
        plain = goal.kind == "misclassification" and goal.confidence is None
        if plain and state.y is None:
            return
        rows = state.open_rows()
        self._record_last(state, rows, state.access.x[rows])

    def _lose_values(self, state):
        """Try rows with values missing, of which no gradient tells."""
        active = ActiveRows(state)
        if not len(active) or (active.affordable() < 2).any():
            return
        answer = active.ask(active.x)
        active.record_successes(active.x, answer)
        if len(active):
            lose_values(active, state)

    def _restarts(self, state):
        for restart in range(self.n_restarts):
            random = self.random_start or restart > 0
            start = self._random_start(state) if random else None
            self._record_last(state, *self._steps(state, start, self.early_stopping))

    def _record_last(self, state, rows, x_adv):
        record_last(state, rows, x_adv)

    def _random_start(self, state):
        """Draw one point of the ball for all rows, and bring it into the box of each.

        What happens to a row then does not depend on the rows beside it.
        """
        ball = self._ball()
        x = state.access.x
        point = ball.random(x[:1], state.generator).expand_as(x)
        return ball.project(point, state.lower, state.upper)

    def _steps(self, state, start, early_stopping):
        """Go from `start` on the open rows; return those left and where they ended."""
        ball = self._ball()
        return descend(
            state,
            ConstantStep(ball, self._step_size(ball)),
            start=start,
            max_iter=self.max_iter,
            early_stopping=early_stopping,
        )

    def _step_size(self, ball):
        """Length of a step where the user gives none."""
        return self.step_size or 2.5 * ball.radius / self.max_iter
