"""Minimum-norm search: the rows still searched, and the nearest success of each."""

import numpy as np
import torch

from .._active_rows import ActiveRows, column
from .._base import EvasionAttack, shared
from .._goal import margin, rank_others
from .._state import LOOK_EVERY

# Which norm of the gradient says how far a boundary is, for each norm of the row. Of the
# features, the one that moves the margin most counts where they are only counted.
DUAL = {np.inf: 1, 2: 2, 1: np.inf, 0: np.inf}


class MinimumNormAttack(EvasionAttack):
    """Base of the attacks that look for the smallest perturbation.

    Their `_attack` works on a :class:`Search`, which records what the victim confirmed as
    it is found.
    """

    knowledge = "gradient"

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        **shared("bounds", "max_queries", "max_total_queries", "batch_size"),
    }


class Search(ActiveRows):
    """The rows of a minimum-norm attack, and the smallest adversarial one of each.

    Every question goes through it, so nothing adversarial that was ever seen is lost. A
    row counts as adversarial when its logits say so by more than their rounding, so that
    it is for any batch that it is sent in; a victim that is no network confirms it by
    its own prediction. Rows without a success hold the last point within the limit.

    Parameters
    ----------
    state : AttackState
        The attack.
    least_margin : float, default=0
        By how much the logit of the winner has to be ahead.
    limit : float, default=inf
        Larger perturbations do not count.
    rows : tensor of int64, optional
        Positions of the rows; those that are open by default.

    Attributes
    ----------
    best : tensor of shape (n_active,)
        Smallest norm so far, infinity where there is none.
    delta, size, logits, hit : tensor of shape (n_active, ...)
        The point last asked about, its norm, the answer, and whether it is adversarial.
    rounding : tensor of shape (n_active,)
        By how much logits may be wrong: it grows where the victim denies what they say.
    gradient, gradients : tensor of shape (n_active, ...) and (n_active, n_outputs, ...)
        What else was asked for there.
    value : tensor of shape (n_active,)
        Of the nearest boundary: by how much the point is beyond it.
    """

    def __init__(self, state, least_margin=0.0, limit=np.inf, rows=None):
        super().__init__(state, rows)
        self._least_margin = least_margin
        self._limit = limit
        self._look_every = LOOK_EVERY.get(state.access.device.type, 10)
        self._n_asked = 0
        self.best = torch.full_like(self.labels, torch.inf, dtype=self.x.dtype)
        self.scale = torch.ones_like(self.best)
        self.doubt = torch.ones_like(self.best)
        found = state.success[self.rows]
        moved = (state.x_adv[self.rows] - self.x).nan_to_num(0.0)
        self.best[found] = self.norm(moved)[found]

    def can_ask(self, n_queries=1):
        """Whether rows are left, and their budgets allow so many more questions."""
        # An answer for the confirmation, and one for where a row without success ended.
        reserve = 0 if self._access.exact else 2
        return len(self) > 0 and self._access.affordable(self.rows) >= n_queries + reserve

    def look(self, delta):
        """Ask for the logits at `delta`."""
        x_adv = self.x + delta
        self._note(delta, x_adv, self._access.logits(x_adv, self.rows))

    def ask_gradient(self, delta, loss=None):
        """Ask for logits and the gradient of a loss; the goal's margin by default."""
        x_adv = self.x + delta
        logits, self.gradient = self._access.gradient(
            x_adv, self.rows, loss or self.margin
        )
        self._note(delta, x_adv, logits)

    def ask_jacobian(self, delta, outputs):
        """Ask for logits and the gradients of several functions of them."""
        x_adv = self.x + delta
        logits, self.gradients = self._access.jacobian(x_adv, self.rows, outputs)
        self._note(delta, x_adv, logits)

    def ask_nearest(self, delta, n_others=None):
        """Take the victim to be linear at `delta`, and keep its nearest boundary.

        It is where ``value + <gradient, step>`` is 0; of all classes, or of the
        `n_others` whose logits were the largest when this was asked first.
        """
        if self._state.goal.kind == "targeted" or len(self._access.classes) == 2:
            self.ask_gradient(delta)
            self.value = self.margin(self.logits)
            return

        def differences(logits, at):
            labels = self.labels[at]
            others = self.others[at] if hasattr(self, "others") else None
            if others is None:
                others = rank_others(logits, labels)[:, :n_others]
            return logits.gather(1, others) - logits.gather(1, labels[:, None])

        self.ask_jacobian(delta, differences)
        values = differences(self.logits, slice(None))
        if n_others is not None and not hasattr(self, "others"):
            self.others = rank_others(self.logits, self.labels)[:, :n_others]
        slopes = self.norm(self.gradients.flatten(0, 1), DUAL[self._state.norm])
        slopes = slopes.reshape(values.shape)
        away = values.abs() / slopes.clamp_min(torch.finfo(slopes.dtype).tiny)
        nearest = away.argmin(1)
        each = torch.arange(len(nearest), device=nearest.device)
        self.value, self.gradient = values[each, nearest], self.gradients[each, nearest]

    def margin(self, logits, at=slice(None)):
        """By how much the goal is reached: positive on the other side of the boundary."""
        value = margin(logits, self.labels[at])
        return -value if self._state.goal.kind == "targeted" else value

    def norm(self, delta, p=None):
        """Norm of each perturbation, in the attack's norm by default."""
        p, flat = self._state.norm if p is None else p, delta.flatten(1)
        if p == np.inf:  # several times faster than vector_norm
            return torch.maximum(flat.amax(1), -flat.amin(1))
        return torch.linalg.vector_norm(flat, ord=p, dim=1)

    def drop(self, done):
        """Let rows leave; on a GPU only now and then, as it has to be waited for."""
        if self._n_asked % self._look_every == 0:
            self.select(~done)

    def _note(self, delta, x_adv, logits):
        state, rows = self._state, self.rows
        self._n_asked += 1
        self.delta, self.logits = delta, logits
        self.size = size = self.norm(delta)
        # What the order of sums, in another batch, may change: it goes with the size of
        # the summands, which logits near a boundary do not show any more.
        self.scale = torch.maximum(self.scale, logits.abs().amax(1))
        eps = torch.finfo(self._access.precision).eps
        self.rounding = 64 * eps * self.scale * self.doubt
        margin = self.margin(logits)
        self.hit = margin > self.rounding.clamp_min(self._least_margin)
        better = self.hit & (size < self.best) & (size <= self._limit)
        predicted = logits.argmax(1)
        if not self._access.exact:
            at = torch.nonzero(better).flatten()
            if len(at):
                goal = state.goal.select(rows[at])
                predicted[at], confirmed = goal.ask(self._access, x_adv[at], rows[at])
                better[at] &= confirmed
                self.hit[at] &= confirmed
                # The victim rounds more than its view, perhaps to whole numbers: the next
                # point is farther beyond, and farther than this one was.
                at = at[~confirmed]
                known = self.rounding[at]
                self.rounding[at] = torch.maximum(10 * known, 2 * margin[at])
                self.doubt[at] *= self.rounding[at] / known
        self.best = torch.where(better, size, self.best)
        # A row without a success shows nothing that another batch may turn into one.
        clear = (size <= self._limit) & (margin.abs() > self.rounding)
        shown = better | (~state.success[rows] & clear)
        if x_adv.is_cuda:  # which would have to be waited for
            before = state.x_adv[rows]
            state.x_adv[rows] = torch.where(column(shown, x_adv), x_adv, before)
        else:
            at = torch.nonzero(shown).flatten()
            state.x_adv[rows[at]] = x_adv[at]
        if self._access.exact:
            predicted = torch.where(shown, predicted, state.predicted[rows])
            state.predicted[rows] = predicted
        else:
            state.predicted[rows] = torch.where(better, predicted, state.predicted[rows])
        state.success[rows] |= better


def shorten(state, n_steps, least_margin=0.0):
    """Shorten the perturbations of rows with a success, along the way to the row.

    The boundary is bracketed; after a look at the present end, each bisection is followed
    by two linear interpolations of the margin, which end a little on the far side of the
    root.
    """
    search = Search(state, least_margin, rows=torch.nonzero(state.success).flatten())
    search.far = (state.x_adv[search.rows] - search.x).nan_to_num(0.0)
    search.select(search.best > 0)
    search.low, search.high = torch.zeros_like(search.best), torch.ones_like(search.best)
    search.under = search.over = torch.full_like(search.best, torch.nan)
    point = search.high
    for step in range(n_steps):
        if not search.can_ask():
            break
        search.look(column(point, search.far) * search.far)
        value = search.margin(search.logits) - search.rounding.clamp_min(least_margin)
        search.high = torch.where(search.hit, point, search.high)
        search.over = torch.where(search.hit, value, search.over)
        search.low = torch.where(search.hit, search.low, point)
        search.under = torch.where(search.hit, search.under, value)
        point = (search.low + search.high) / 2
        if step % 3:
            share = search.under / (search.under - search.over)
            root = search.low + share * (search.high - search.low)
            root = root + 0.05 * (search.high - root)
            point = torch.where(root.isfinite(), root, point)


def give_back(state, n_rounds, n_steps):
    """Give changed features back, of rows with a success, as far as they keep it.

    In each round the changed features go to the end of the box that the margin's gradient
    points to, as only their number counts; it ranks them by what they contribute, and a
    bisection finds how many of the first are enough.
    """
    for _ in range(n_rounds):
        search = Search(state, rows=torch.nonzero(state.success).flatten())
        search.select(search.best > 1)
        if not search.can_ask(2):
            return
        search.far = (state.x_adv[search.rows] - search.x).nan_to_num(0.0)
        search.ask_gradient(search.far)
        changed = search.far != 0
        end = torch.where(search.gradient > 0, search.upper, search.lower)
        better = changed & end.isfinite()
        better &= (end - search.far) * search.gradient > 0
        search.far = torch.where(better, end, search.far)
        gain = (search.far * search.gradient).flatten(1)
        gain = gain.masked_fill(~changed.flatten(1), -torch.inf)
        rank = gain.argsort(dim=1, descending=True).argsort(dim=1)
        search.rank = rank.reshape(search.far.shape)
        search.low, search.high = torch.zeros_like(search.best), search.best
        for _ in range(n_steps):
            if not search.can_ask():
                break
            n_kept = ((search.low + search.high) / 2).floor()
            search.look(search.far * (search.rank < column(n_kept, search.far)))
            search.high = torch.where(search.hit, n_kept, search.high)
            search.low = torch.where(search.hit, search.low, n_kept)
            search.drop(search.high - search.low <= 1)
