"""Query loops: the rows still attacked, the victim's answers, and their budgets."""

from dataclasses import dataclass, is_dataclass

import torch

from ..differentiable._views import log_probability
from ..victim._answers import ABSTAINED
from ._goal import margin
from ._state import LOOK_EVERY

# How many numbers the candidates of one question to the victim may hold: on a processor,
# arrays that fit into its cache, and that the allocator keeps, are filled much faster.
_ELEMENTS = {"cpu": 2**20, "cuda": 2**23}


@dataclass
class Answer:
    """What the victim said of some candidates.

    Attributes
    ----------
    predicted : tensor of int64, shape (n,)
        Its label; of scores, the class of the largest.
    reached : tensor of bool, shape (n,)
        Whether the goal is reached.
    visible : tensor of bool, shape (n,) or None
        Whether the score of the goal's label was shown at all; see `TopKAccess`.
    objective : tensor of shape (n,) or None
        How close the goal is (larger is better), for an attacker who sees scores: the
        largest other log-probability less the present one. It still tells probabilities
        of 1 - 1e-10 and 1 apart, where differences of probabilities are lost in float32.
    """

    predicted: torch.Tensor
    reached: torch.Tensor
    visible: torch.Tensor | None = None
    objective: torch.Tensor | None = None


class ActiveRows:
    """The rows that an attack still works on, and what it knows of each.

    Every tensor among the attributes has one entry per active row, also those that an
    attack sets itself (or a dataclass of them, with a method `select`): when rows leave,
    all shrink together.

    Parameters
    ----------
    state : AttackState
        The attack.
    rows : tensor of int64, optional
        Positions of the rows; those that are open by default.

    Attributes
    ----------
    rows : tensor of int64, shape (n_active,)
        Positions in `state`.
    x, lower, upper : tensor of shape (n_active, ...)
        The rows, and the box for their perturbations.
    labels : tensor of int64, shape (n_active,)
        The goal's labels.
    delta, predicted, objective : tensor of shape (n_active, ...) and (n_active,)
        The present perturbation, and what the victim said of it; `objective` is None
        while it was not asked for scores.
    through : tensor of bool, shape (n_active,)
        Which rows reached the goal by `delta`, and are not asked about any more; they
        leave at the next look.
    """

    def __init__(self, state, rows=None):
        self._state = state
        self._access = state.access
        self.rows = rows = state.open_rows() if rows is None else rows
        self.x = state.access.x[rows]
        self.lower, self.upper = state.lower[rows], state.upper[rows]
        self.labels = state.goal.labels[rows]
        self.delta = torch.zeros_like(self.x)
        self.predicted = self.labels
        self.objective = None
        self.through = torch.zeros_like(rows, dtype=torch.bool)

    def __len__(self):
        return len(self.rows)

    def select(self, mask):
        """Go on with some rows only."""
        if not mask.all():
            self._go_on_with(mask)

    def _go_on_with(self, index):
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[index])
            elif is_dataclass(value):
                setattr(self, name, value.select(index))

    @property
    def look_every(self):
        """After how many questions to look which rows are through.

        On a GPU, that stalls it. Where the victim confirms successes, or a total is
        counted, each question has to be looked at.
        """
        access = self._access
        plain = access.region is None and access.max_total_queries is None
        if self.confirms or not plain:
            return 1
        return LOOK_EVERY.get(self.x.device.type, 10)

    @property
    def confirms(self):
        """Whether scores do not tell the label, so that it costs a query of its own."""
        return self._access.knowledge != "label" and not self._access.decisive

    def affordable(self):
        """How many more queries each row may cost, as a tensor of int64.

        Where labels cost some, two are set aside: for a success, which the victim may
        deny, and for what the row is in the end.
        """
        return self.budget() - 2 * self.confirms

    def budget(self):
        """How many queries of its budget each row has left, as a tensor of int64."""
        if self._access.max_queries is None:
            return torch.full_like(self.rows, torch.iinfo(torch.int64).max)
        spent = torch.as_tensor(self._access.n_queries, device=self.rows.device)
        return self._access.max_queries - spent[self.rows]

    def ask(self, x_adv, at=None):
        """Ask about candidates, one for each active row or for those `at` names.

        Without `at`, rows that are `through` fill the batch, and no answer is given.
        """
        rows, labels = self.rows, self.labels
        if at is not None:
            rows, labels = rows[at], labels[at]
        goal = self._state.goal.select(rows)
        if self._access.knowledge == "label":
            predicted = self._access.predict(x_adv, rows)
            return Answer(predicted, goal.reached_by_labels(predicted))
        if at is None and self.look_every > 1:
            scores = self._access.scores(x_adv, rows, asked=~self.through)
        else:
            scores = self._access.scores(x_adv, rows)
        logits = log_probability(scores) if self._access.probability else scores
        objective = margin(logits, labels)
        if goal.kind == "targeted":
            objective = -objective
        predicted = scores.argmax(1)
        if goal.confidence is None:
            reached = goal.reached_by_labels(predicted)
        else:
            reached = goal.reached_by_probability(scores)
        visible = scores.gather(1, labels[:, None])[:, 0] != 0
        return Answer(predicted, reached, visible, objective)

    def ask_many(self, candidates, n_candidates, wanted=None):
        """Ask about several candidates per row, as many as each row can pay.

        Parameters
        ----------
        candidates : callable
            ``candidates(at)`` makes the candidates of the active rows in the slice `at`:
            a tensor of shape (n, n_candidates, ...).
        n_candidates : int
            How many there are for each row.
        wanted : tensor of int64, shape (n_active,), optional
            How many of them to send at most, where that differs by row.

        Yields
        ------
        at : slice
            Some of the active rows; those of which none can pay are left out.
        x_adv : tensor of shape (n, n_candidates, ...)
            Their candidates.
        asked : tensor of bool, shape (n, n_candidates)
            Which of them were sent: the first ones of each row.
        answer : Answer
            Of tensors of shape (n, n_candidates); 0 and -infinity where not asked.
        """
        left = (
            self.affordable()
            if wanted is None
            else torch.minimum(self.affordable(), wanted)
        )
        elements = _ELEMENTS.get(self.x.device.type, 2**23)
        step = max(1, elements // (n_candidates * self.x[0].numel()))
        order = torch.arange(n_candidates, device=left.device)
        for start in range(0, len(self), step):
            at = slice(start, start + step)
            x_adv = candidates(at)
            asked = order < left[at, None]
            if not asked.any():
                continue
            sent = torch.nonzero(asked)
            reply = self.ask(x_adv[asked], sent[:, 0] + start)
            answer = Answer(
                _spread(reply.predicted, asked, 0),
                _spread(reply.reached, asked, False),
                _spread(reply.visible, asked, False),
                _spread(reply.objective, asked, -torch.inf),
            )
            yield at, x_adv, asked, answer

    def confirm(self, x_adv, at, predicted):
        """Say of candidates, one of each of the rows `at`, what the victim itself says.

        They seem to have reached the goal. Returns labels, and whether it is so.
        """
        return self._confirmed(x_adv, at, predicted, torch.ones_like(predicted).bool())

    def _confirmed(self, x_adv, at, predicted, reached):
        """Correct, by the victim's labels, what its scores said of the rows `at`.

        Of a `confidence` to be reached, scores do tell; and where the budget is spent
        there is nothing better.
        """
        if not self.confirms:
            return predicted, reached
        has_budget = torch.nonzero(self.budget()[at] > 0).flatten()
        rows = self.rows[at]
        if len(has_budget):
            labels = self._access.predict(x_adv[has_budget], rows[has_budget])
            predicted[has_budget] = labels
        goal = self._state.goal.select(rows)
        if goal.confidence is None:
            reached = goal.reached_by_labels(predicted)
        return predicted, reached & (predicted != ABSTAINED)

    def record_successes(self, x_adv, answer):
        """Record candidates, one per row, that reached the goal; their rows leave."""
        at = torch.nonzero(answer.reached).flatten()
        if len(at):
            predicted = answer.predicted[at]
            if self.confirms:
                predicted, confirmed = self.confirm(x_adv[at], at, predicted)
                at, predicted = at[confirmed], predicted[confirmed]
            self._state.record(self.rows[at], x_adv[at], predicted, True)
            self._go_on_with(all_but(at, len(self)))

    def give_up(self, mask):
        """Let rows leave; those that end without a success show where they are now."""
        if not mask.any():
            return
        state = self._state
        # What ended before, in another search, has shown its attempt already.
        at = torch.nonzero(mask & ~(state.success | state.finished)[self.rows]).flatten()
        x_adv, predicted = (self.x + self.delta)[at], self.predicted[at]
        predicted, reached = self._confirmed(
            x_adv, at, predicted, torch.zeros_like(at).bool()
        )
        state.record(self.rows[at], x_adv, predicted, reached)
        state.finished[self.rows[mask]] = True
        self.select(~mask)

    def show(self):
        """Let rows without a success show where they are now; they are not given up."""
        state = self._state
        at = torch.nonzero(~(state.success | state.finished)[self.rows]).flatten()
        if not len(at):
            return
        rows, x_adv = self.rows[at], (self.x + self.delta)[at]
        if self.confirms:  # what the scores say need not be the label
            state.x_adv[rows] = x_adv
            state.predicted[rows] = -1
        else:
            state.record(rows, x_adv, self.predicted[at], self.through[at])

    def improve(self, x_adv, answer, at=None):
        """Record candidates that are adversarial and nearer than what the row has.

        Their rows stay active: this is how attacks that look for a small perturbation
        keep everything that the victim ever confirmed.
        """
        rows = self.rows if at is None else self.rows[at]
        nearer = self.distance(x_adv, at) < self._recorded_distance(rows)
        better = torch.nonzero(answer.reached & nearer).flatten()
        if len(better):
            at, x_adv = better if at is None else at[better], x_adv[better]
            predicted, confirmed = self.confirm(x_adv, at, answer.predicted[better])
            if self.confirms:
                at, x_adv, predicted = (
                    at[confirmed],
                    x_adv[confirmed],
                    predicted[confirmed],
                )
            self._state.record(self.rows[at], x_adv, predicted, True, ends=False)

    def distance(self, x_adv, at=None):
        """Distance from the row, in the attack's norm."""
        x = self.x if at is None else self.x[at]
        moved = (x_adv - x).nan_to_num(0.0).flatten(1)
        return torch.linalg.vector_norm(moved, ord=self._state.norm, dim=1)

    def _recorded_distance(self, rows):
        state = self._state
        moved = (state.x_adv[rows] - state.access.x[rows]).nan_to_num(0.0).flatten(1)
        distance = torch.linalg.vector_norm(moved, ord=state.norm, dim=1)
        return torch.where(state.success[rows], distance, torch.inf)


def all_but(at, n):
    """Return the positions from 0 to `n` that are not in `at`.

    How many there are is known, so that a GPU need not be waited for: they come last in
    a stable sort by whether they are in it.
    """
    left = torch.ones(n, dtype=torch.uint8, device=at.device).index_fill_(0, at, 0)
    return left.argsort(stable=True)[len(at) :]


def column(values, like):
    """Give one value per row the axes of `like`."""
    return values.reshape(len(values), *[1] * (like.ndim - 1))


def _spread(values, asked, fill):
    if values is None:
        return None
    spread = torch.full(asked.shape, fill, dtype=values.dtype, device=values.device)
    spread[asked] = values
    return spread
