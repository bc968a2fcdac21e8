"""Query attacks: budgets, starting points and random search."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, count, takewhile
from numbers import Integral
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ..._rows import RowCodec, is_dataframe
from ..._sklearn import Interval
from .._active_rows import ActiveRows, Answer, column
from .._base import SPENT, EvasionAttack, shared
from .._missing import lose_values


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
        **shared("bounds", "max_total_queries", "batch_size"),
        "max_queries": [Interval(Integral, 1, None, closed="left")],
    }

    def _attack(self, state):
        active = ActiveRows(state)
        # Where the labels are the victim's own answers, there is nothing to find out.
        kind, asked = state.goal.kind, state.access.n_total_queries > 0
        known = kind == "misclassification" and asked
        if not known or self.confidence is not None:
            if (active.budget() < 1).any():
                raise ValueError(SPENT.format(self.max_queries))
            if (active.affordable() > 0).all():
                answer = active.ask(active.x)
                active.predicted, active.objective = answer.predicted, answer.objective
                active.record_successes(active.x, answer)
        if len(active):
            state.search = active
            if self._loses_values(state):
                lose_values(active, state)
        if len(active):
            self._search(active, state)

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


# The attacker keeps this many rows of the data seen in fit, and tries this many points.
_KEPT, _TRIES = 200, 100


class StartingAttack(BoxAttack):
    """Base of the attacks that need a first point with the wanted label.

    Attributes
    ----------
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`, as numbers.
    """

    start = "noise"

    _parameter_constraints = {
        **BoxAttack._parameter_constraints,
        **shared("goal", "target", "random_state"),
    }

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept), learn the range, keep some rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted, from which `bounds` are learned, and of
            which some rows are kept to start from.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        X = self._check_X(X, reset=False)
        rng = np.random.RandomState(check_random_state(self.random_state).randint(2**31))
        at = np.sort(rng.permutation(len(X))[:_KEPT])
        rows = X.iloc[at] if is_dataframe(X) else X[at]
        self.starts_ = RowCodec(rows).encode(rows)
        return self

    def _find_starts(self, active, state):
        """Ask until each row has a point with the wanted label; the others give up.

        Points are drawn uniformly from the box, or are kept rows, from near to far. When
        the one kind fails, the other follows.
        What is found is ``active.point``, a perturbation, and
        ``active.point_predicted``.
        """
        # A generator of its own: how many draws this takes depends on the rows.
        seed = torch.randint(2**31 - 1, (), generator=state.generator)
        generator = torch.Generator().manual_seed(int(seed))
        kept = torch.as_tensor(self.starts_) / state.access.unit
        kinds = [partial(self._noise, active, generator), _data(active, kept)]
        if self.start == "data":
            kinds.reverse()
        active.point = torch.zeros_like(active.x)
        active.point_predicted = torch.zeros_like(active.labels)
        active.started = torch.zeros_like(active.labels, dtype=torch.bool)
        for candidates in kinds:
            for k in range(_TRIES):
                active.give_up(~active.started & (active.affordable() < 1))
                at = torch.nonzero(~active.started).flatten()
                if not len(at):
                    return
                delta = candidates(k, at)
                if delta is None:
                    break
                delta = torch.clamp(delta, active.lower[at], active.upper[at])
                answer = active.ask(active.x[at] + delta, at)
                hit = at[answer.reached]
                active.point[hit] = delta[answer.reached]
                active.point_predicted[hit] = answer.predicted[answer.reached]
                active.started[hit] = True
        active.give_up(~active.started)

    def _noise(self, active, generator, k, at):
        """Draw the `k`-th point of some rows: a perturbation."""
        share = torch.rand(
            active.x.shape[1:], generator=generator, dtype=torch.float64
        ).to(active.x)
        lower, upper = active.lower[at], active.upper[at]
        return lower + share * (upper - lower)

    def _begin(self, active, state):
        """Take the first points as what was found so far: for attacks on the norm."""
        self._find_starts(active, state)
        active.delta, active.predicted = active.point, active.point_predicted
        hit = torch.ones_like(active.started)
        active.improve(active.x + active.delta, Answer(active.predicted, hit))


def _data(active, starts):
    """Give the kept rows, for each row the nearest first, with growing strides.

    Their labels are not used, though `fit` may have seen them: what is crafted would
    depend on them. The neighbours of a row mostly have its own label, so that one after
    another many queries would be lost; those that the strides jump over come afterwards.
    """
    starts = starts.to(active.x)
    strides = list(takewhile(lambda place: place < len(starts), accumulate(count())))
    order = strides + sorted(set(range(len(starts))) - set(strides))

    def candidates(k, at):
        if k >= len(order):
            return None
        x = active.x[at]
        distance = torch.cdist(x.flatten(1).nan_to_num(), starts.flatten(1).nan_to_num())
        nearest = distance.topk(order[k] + 1, dim=1, largest=False).indices
        return (starts[nearest[:, order[k]]] - x).nan_to_num()

    return candidates


def climb(active, propose, start=None, n_proposals=1):
    """Random search: ask about a change, keep it where it helps, until a row is through.

    Rows leave as soon as they reach the goal, and when their budget is spent.

    Parameters
    ----------
    active : ActiveRows
        The rows. ``active.gained`` says for which of them the last proposal was kept.
    propose : callable
        ``propose(step)`` gives a new perturbation for each active row.
    start : tensor of the shape of ``active.x``, optional
        The first perturbations, which are kept in any case; none by default. `propose`
        is called for the steps after it, which count from 1.
    n_proposals : int, default=1
        How many proposals are asked about at once; the best one counts.
    """
    candidates = [torch.zeros_like(active.x) if start is None else start]
    step = payable = unseen = 0
    cost = n_proposals + active.confirms
    look_every = active.look_every if n_proposals == 1 else 1
    if start is None and active.objective is not None:  # asked already
        step, active.gained = 1, torch.zeros_like(active.labels, dtype=torch.bool)
    else:
        active.objective = torch.full_like(active.x.flatten(1)[:, 0], -torch.inf)
    while True:
        if payable < cost:  # what the budgets allow is looked up when it may be up
            active.give_up(active.affordable() < 1)
            if not len(active):
                return
            payable = int(active.affordable().min())
        if step:
            candidates = [propose(step + k) for k in range(n_proposals)]
        candidate, x_adv, answer = _ask_best(active, candidates)
        step += len(candidates)
        payable, unseen = payable - cost, unseen + 1
        active.gained = answer.objective > active.objective
        if step == len(candidates):
            active.gained[:] = True
        active.objective = torch.maximum(answer.objective, active.objective)
        if look_every > 1:
            # Rows that are through keep what led there until somebody looks.
            active.gained = (active.gained | answer.reached) & ~active.through
            active.through = active.through | answer.reached
            moved = column(active.gained, candidate)
            active.delta = torch.where(moved, candidate, active.delta)
        else:
            at = torch.nonzero(active.gained).flatten()
            active.delta[at] = candidate[at]
        active.predicted = torch.where(active.gained, answer.predicted, active.predicted)
        if look_every > 1:
            if unseen < look_every and payable >= cost:
                continue
            answer = Answer(active.predicted, active.through)
            x_adv = active.x + active.delta
        active.record_successes(x_adv, answer)
        unseen = 0
        if not len(active):
            return


def _ask_best(active, candidates):
    """Ask about perturbations; return the best one of each row, and the answer to it."""
    if len(candidates) == 1:
        x_adv = active.x + candidates[0]
        return candidates[0], x_adv, active.ask(x_adv)
    deltas = torch.stack(candidates, dim=1)
    x_adv, parts = active.x[:, None] + deltas, []
    for _, _, asked, answer in active.ask_many(x_adv.__getitem__, len(candidates)):
        value = torch.where(answer.reached, torch.inf, answer.objective)
        best = torch.where(asked, value, -torch.inf).argmax(1, keepdim=True)
        values = (answer.predicted, answer.reached, answer.objective)
        parts.append([best, *(part.gather(1, best) for part in values)])
    best, predicted, reached, objective = (
        torch.cat(part)[:, 0] for part in zip(*parts, strict=True)
    )
    each = torch.arange(len(best), device=best.device)
    answer = Answer(predicted, reached, objective=objective)
    return deltas[each, best], x_adv[each, best], answer
