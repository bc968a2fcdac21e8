"""What the gradient attacks of a fixed budget share."""

from numbers import Integral, Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ...threat import LpBall
from ...victim import GradientAccess
from .._base import EvasionAttack
from .._descent import ConstantStep, descend, settle
from .._goal import LOSSES


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
        "eps": [Real, "array-like"],
        "norm": [Real],
        "loss": [StrOptions(set(LOSSES))],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "random_start": ["boolean"],
        "early_stopping": ["boolean"],
        "precision": [StrOptions({"full", "mixed"})],
    }

    def _check_parameters(self, row_shape):
        ball = LpBall(self.norm, self.eps)
        if ball.norm == 0:
            raise ValueError(
                f"norm must be np.inf, 2 or 1 for {type(self).__name__}; got 0."
            )
        ball.scale(torch.zeros((1, *row_shape)))  # raises where eps does not fit

    def _open_access(self, X, max_total_queries=None):
        return GradientAccess(
            self.estimator_,
            X,
            precision=self.precision,
            max_queries=self.max_queries,
            max_total_queries=max_total_queries,
            batch_size=self.batch_size_,
        )

    def _make_aim(self, access, y, target):
        aim = super()._make_aim(access, y, target)
        aim.loss = self._loss()
        return aim

    def _loss(self):
        return LOSSES[self.loss]

    def _attack(self, state):
        if self.random_start:  # a row that is wrong already needs no perturbation
            rows = state.open_rows()
            self._settle(state, rows, state.access.x[rows])
        self._restarts(state)
        state.finished[:] = True

    def _restarts(self, state):
        for restart in range(self.n_restarts):
            random = self.random_start or restart > 0
            start = self._random_start(state) if random else None
            self._settle(state, *self._steps(state, start, self.early_stopping))

    def _settle(self, state, rows, x_adv):
        settle(state, rows, x_adv)

    def _random_start(self, state):
        """Draw one point of the ball for all rows, and bring it into the box of each.

        What happens to a row then does not depend on the rows beside it.
        """
        ball = LpBall(self.norm, self.eps)
        x = state.access.x
        point = ball.random(x[:1], state.generator).expand_as(x)
        return ball.project(point, state.lower, state.upper)

    def _steps(self, state, start, early_stopping):
        """Go from `start` on the open rows; return those left and where they ended."""
        ball = LpBall(self.norm, self.eps)
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
