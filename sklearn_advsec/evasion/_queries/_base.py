"""The bases of the attacks without gradients: a budget for each row, and open rows."""

from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval

from .._active_rows import ActiveRows
from .._base import SPENT, EvasionAttack


class QueryAttack(EvasionAttack):
    """Base of the attacks by scores or labels: a budget for each row, and open rows.

    A subclass writes `_search`, which works on the open rows until they succeed or their
    budgets are spent. Rows that the victim gets wrong by themselves never get there.
    All rows share their random draws, so that what happens to a row does not depend on
    the rows beside it.
    """

    max_queries = 1000

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        "max_queries": [Interval(Integral, 1, None, closed="left")],
    }

    def _attack(self, state):
        active = ActiveRows(state)
        # Where the labels are the victim's own answers, there is nothing to find out.
        known = self.goal == "misclassification" and state.access.n_total_queries > 0
        if not known or self.confidence is not None:
            if (active.unspent() < 1).any():
                raise ValueError(SPENT.format(self.max_queries))
            if (active.left() > 0).all():
                answer = active.ask(active.x)
                active.predicted, active.objective = answer.predicted, answer.objective
                active.settle(active.x, answer)
        if len(active):
            self._search(active, state)
        state.finished[:] = True

    def _search(self, active, state):
        raise NotImplementedError


class BoxAttack(QueryAttack):
    """Base of the attacks that need to know how far a feature can go at all."""

    def _check_parameters(self, row_shape):
        if self.bounds is None:
            raise ValueError(
                f"bounds=None leaves {type(self).__name__} without a range to search. "
                "Give bounds=(lower, upper), or 'data' for the range seen in fit."
            )
        super()._check_parameters(row_shape)

    def _attack(self, state):
        finite = torch.isfinite(state.lower) & torch.isfinite(state.upper)
        if not finite.all():
            raise ValueError(
                f"bounds must be finite for {type(self).__name__}; got {self.bounds!r}."
            )
        super()._attack(state)
