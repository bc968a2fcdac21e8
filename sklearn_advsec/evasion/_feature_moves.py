"""Moves of single features, and the loops that choose, undo and shorten them."""

import numpy as np
import torch

from ._active_rows import Answer

# A change that is needed is halved this often, in search of a smaller one.
_HALVINGS = 5
# Distances to so many numbers are computed at a time.
_ELEMENTS = 2**23


class Moves:
    """All moves that an attack may try: a column, and the value that it gets.

    Columns of a one-hot group are one feature; the move sets one of them to 1 and the
    others to 0. Rows are in units of scale.

    Parameters
    ----------
    access : ConstrainedAccess
        Knows the region.
    values : list of array-like
        For each column, values worth trying, in the units of the region.

    Attributes
    ----------
    column : tensor of int64, shape (n_moves,)
        The column that each move sets.
    value : tensor of shape (n_moves,)
        What it sets it to, in units of scale.
    feature : tensor of int64, shape (n_columns,)
        The feature that a column belongs to: the first column of its group.
    """

    def __init__(self, access, values):
        region, like = access.region, access.x
        self.feature = torch.arange(len(region.features))
        self.grouped = torch.zeros(len(region.features), dtype=torch.bool)
        for group in region.groups:
            self.feature[group], self.grouped[group] = group[0], True
        columns, targets = [], []
        for j in torch.nonzero(region.mutable).flatten().tolist():
            tried = np.unique(values[j])
            if self.grouped[j]:
                tried = np.ones(1)
            elif region.nominal[j]:
                tried = np.arange(len(region.features[j].categories))
            columns += [j] * len(tried)
            targets += list(tried / float(region.scale[j]))
        self.column = torch.tensor(columns, dtype=torch.int64, device=like.device)
        self.value = torch.tensor(targets, dtype=like.dtype, device=like.device)
        self.groups = [group.to(like.device) for group in region.groups]
        self.cost = region.cost.to(like)
        self.named = (region.nominal | self.grouped).to(like.device)
        self.nominal = region.nominal.to(like.device)
        self.feature = self.feature.to(like.device)
        self.grouped = self.grouped.to(like.device)
        self.allowed = {j: table.to(like.device) for j, table in region.allowed.items()}

    def __len__(self):
        return len(self.column)

    def look_at(self, active, which):
        """Say what moves would do to the active rows as they are now.

        Parameters
        ----------
        active : ActiveRows
            ``active.delta`` is where they are.
        which : tensor of int64, shape (n_active, n_tried)
            Positions of moves.

        Returns
        -------
        value : tensor of shape (n_active, n_tried)
            What the column gets: the move's value, kept inside the room.
        usable : tensor of bool, shape (n_active, n_tried)
            Whether anything changes.
        price : tensor of shape (n_active, n_tried)
            Cost times the size of the move, and once more for a new feature.
        """
        column, value = self.column[which], self.value[which]
        start, here = active.x.gather(1, column), active.delta.gather(1, column)
        lower, upper = active.lower.gather(1, column), active.upper.gather(1, column)
        named = self.named[column]
        clamped = torch.minimum(torch.maximum(value, start + lower), start + upper)
        value = torch.where(named, value, clamped)
        usable = (value != start + here) & ~start.isnan()
        usable &= ~self.grouped[column] | (upper > 0) | (start > 0)
        for j, table in self.allowed.items():
            own = column == j
            before = start.nan_to_num(0.0).long().clamp(0, len(table) - 1)
            after = value.long().clamp(0, len(table) - 1)
            usable &= ~(own & self.nominal[column]) | table[before, after]
        size = torch.where(named, 1.0, (value - start).abs())
        size = torch.where(value == start, 0.0, size)
        new = ~active.touched.gather(1, self.feature[column])
        return value, usable, self.cost[column] * (size + new) + 1e-6

    def apply(self, point, which, value):
        """Return the rows after one move each, of shape (n, n_tried, n_columns)."""
        column = self.column[which]
        moved = point[:, None].expand(*which.shape, point.shape[1]).clone()
        for group in self.groups:
            inside = (self.feature[column] == group[0])[..., None]
            moved[..., group] = torch.where(inside, 0.0, moved[..., group])
        return moved.scatter(2, column[..., None], value[..., None])

    def changed(self, start, point):
        """Which features differ, of shape (n, n_columns), at their first column."""
        differs = (start != point) & ~(start.isnan() & point.isnan())
        for group in self.groups:
            any_of = differs[:, group].any(1)
            differs[:, group] = False
            differs[:, group[0]] = any_of
        return differs

    def spent(self, start, point):
        """What the change of each feature costs, 0 where there is none."""
        size = (point - start).abs().nan_to_num(1.0)
        size = torch.where(self.named, 1.0, size) * self.cost + self.cost
        return torch.where(self.changed(start, point), size, 0.0)


def climb_greedily(active, moves, shortlist):
    """Make the move of the largest gain per price, until the goal is reached.

    Where the short list gains nothing any more, all moves are tried once again.
    """
    active.give_up(active.left() < 1)
    if not len(active):
        return
    if active.objective is None:
        active.objective = active.ask(active.x).objective
    n = len(active)
    active.touched = torch.zeros_like(active.x, dtype=torch.bool)
    active.order = torch.arange(len(moves), device=active.x.device).repeat(n, 1)
    active.tried = torch.full_like(active.labels, len(moves))
    while True:
        active.give_up(active.left() < 1)
        if not len(active):
            return
        width = int(active.tried.max())
        which = active.order[:, :width]
        value, usable, price = moves.look_at(active, which)
        usable &= torch.arange(width, device=which.device) < active.tried[:, None]
        # What changes nothing goes last, and is not asked about.
        first = (~usable).to(torch.int8).argsort(dim=1, stable=True)
        which, value, price = (t.gather(1, first) for t in (which, value, price))
        gain, reached, predicted = _ask_all(active, moves, which, value, usable.sum(1))
        rank = torch.where(gain > 1e-12, gain / price, -torch.inf)
        rank = torch.where(reached, 1e30 / price, rank)
        order = rank.argsort(dim=1, descending=True, stable=True)
        full = active.tried == len(moves)
        best = order[:, 0]
        rest = active.order[:, width:]
        active.order = torch.cat([which.gather(1, order), rest], dim=1)
        lost = rank.gather(1, best[:, None])[:, 0] == -torch.inf
        active.tried = torch.where(lost, len(moves), shortlist).clamp_max(len(moves))
        chosen = which.gather(1, best[:, None]), value.gather(1, best[:, None])
        point = moves.apply(active.x + active.delta, *chosen)[:, 0]
        active.delta = torch.where(lost[:, None], active.delta, point - active.x)
        active.touched = moves.changed(active.x, active.x + active.delta)
        step = gain.gather(1, best[:, None])[:, 0]
        active.objective = torch.where(lost, active.objective, active.objective + step)
        hit = reached.gather(1, best[:, None])[:, 0]
        answer = predicted.gather(1, best[:, None])[:, 0]
        active.predicted = torch.where(lost, active.predicted, answer)
        active.stuck = lost & full
        active.settle(point, Answer(answer, hit))
        active.give_up(active.stuck)


def _ask_all(active, moves, which, value, wanted):
    """Ask about all moves; return gains (-infinity where not asked) and answers."""
    gain = torch.full_like(value, -torch.inf)
    reached = torch.zeros_like(value, dtype=torch.bool)
    predicted = torch.zeros_like(which)

    def candidates(at):
        return moves.apply(active.x[at] + active.delta[at], which[at], value[at])

    for at, _, asked, answer in active.ask_many(candidates, which.shape[1], wanted):
        change = answer.objective - active.objective[at, None]
        gain[at] = torch.where(asked, change, -torch.inf)
        reached[at], predicted[at] = answer.reached, answer.predicted
    return gain, reached, predicted


def approach(active, moves, starts, mutable):
    """Ask about known rows, from near to far, until one has the wanted label."""
    starts = starts.to(active.x)
    # The neighbours mostly have the row's own label: go on with growing strides.
    places = [k * (k + 1) // 2 for k in range(len(starts))]
    places = torch.tensor([p for p in places if p < len(starts)], device=active.x.device)
    active.near = torch.empty(len(active), len(places), dtype=torch.int64)
    step = max(1, _ELEMENTS // starts.numel())
    for begin in range(0, len(active), step):
        x = active.x[begin : begin + step]
        far = (x[:, None] - starts[None]).abs().nan_to_num(0.0)
        far = torch.where(moves.named & (far > 0), 1.0, far) * moves.cost
        order = far.masked_fill(~mutable, 0.0).sum(2).argsort(dim=1)
        active.near[begin : begin + step] = order[:, places].cpu()
    for k in range(len(places)):
        active.give_up(active.left() < 1)
        if not len(active):
            return
        point = starts[active.near[:, k].to(starts.device)]
        point = torch.where(mutable & ~point.isnan(), point, active.x)
        active.settle(point, active.ask(point))
    active.give_up(torch.ones_like(active.labels, dtype=torch.bool))


def simplify(active, moves, state):
    """Take back each change that is not needed, the dearest first; shorten the rest."""
    active.delta = (state.x_adv[active.rows] - active.x).nan_to_num(0.0)
    price = moves.spent(active.x, active.x + active.delta)
    active.order = price.argsort(dim=1, descending=True, stable=True)
    active.n_changed = (price > 0).sum(1)
    for k in range(int(active.n_changed.max())):
        feature = active.order[:, k]
        own = moves.feature[None] == feature[:, None]
        back = torch.where(own, 0.0, active.delta)
        _try(active, back, active.n_changed > k, state)
    halved = ~moves.named
    for k in range(int(active.n_changed.max())):
        feature = active.order[:, k]
        own = moves.feature[None] == feature[:, None]
        numbers = halved[feature] & (active.n_changed > k)
        numbers &= (own & (active.delta != 0)).any(1)
        far = active.delta.clone()
        low, high = torch.zeros_like(price[:, 0]), torch.ones_like(price[:, 0])
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            tried = torch.where(own, middle[:, None] * far, active.delta)
            better = _try(active, tried, numbers, state)
            high, low = (
                torch.where(better, middle, high),
                torch.where(better, low, middle),
            )


def _try(active, delta, wanted, state):
    """Ask about other perturbations of some rows, and keep those that do as well."""
    at = torch.nonzero(wanted & (active.left() > 0)).flatten()
    better = torch.zeros_like(wanted)
    if len(at):
        x_adv = active.x[at] + delta[at]
        answer = active.ask(x_adv, at)
        hit = torch.nonzero(answer.reached).flatten()
        said, sure = active.confirm(x_adv[hit], at[hit], answer.predicted[hit])
        hit = hit[sure]
        state.record(active.rows[at[hit]], x_adv[hit], said[sure], True)
        better[at[hit]] = True
        active.delta = torch.where(better[:, None], delta, active.delta)
    return better
