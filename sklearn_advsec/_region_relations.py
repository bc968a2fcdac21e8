"""The way to the rows that relations between features allow, on arrays of numbers."""

import math

import torch

from ._region_rules import Rules
from .threat._relations import slope

# Of repairs that take turns (several relations, curved ones) as many as this.
_ROUNDS = 100


class Relating(Rules):
    """The part of :class:`Region` that moves rows into the relations."""

    def _relate(self, ref, x, free, lower, upper):
        """Move rows into the relations, in turns (Dykstra) where these share columns.

        Rows that keep them stay at `x`, the others are projected from `free`.
        """
        lower, upper = _tight(ref, lower, upper)
        x, free = self._recompute(x, True), self._recompute(free, True)
        todo = [r for r in self.relations if r.repair is None]
        if not todo:
            return x
        used = [c for r in todo for c in r.columns]
        alone = len(used) == len(set(used)) and len(todo) == len(self.relations)
        good = self._related(todo, x)[:, None]
        open_rows = torch.nonzero(~good[:, 0]).flatten()
        result = torch.where(good, x, free)
        corrections = None
        for _ in range(1 if alone else _ROUNDS):
            if not len(open_rows):
                break
            at, ref_at = result[open_rows], ref[open_rows]
            box = lower[open_rows], upper[open_rows]
            if corrections is None:
                corrections = [torch.zeros_like(at) for _ in todo]
            start = at
            for i, relation in enumerate(todo):
                wanted = at + corrections[i]
                at = self._into(relation, ref_at, wanted, *box)
                if relation.linear is not None:  # only convex sets have a correction
                    corrections[i] = wanted - at
            result[open_rows] = at = self._recompute(at, True)
            still = ((at - start).abs() > 1e-10 * self.scale).any(1)
            open_rows = open_rows[still]
            corrections = [c[still] for c in corrections]
        return torch.clamp(result, lower, upper)

    def _related(self, relations, x, tolerance=0.0):
        good = torch.ones(len(x), dtype=torch.bool)
        for relation in relations:
            good &= relation.holds(x, tolerance)
        return good

    def _into(self, relation, ref, x, lower, upper):
        """Return the nearest point of the cases of one relation."""
        best, distance = x, torch.full_like(x[:, 0], math.inf)
        for case in relation.cases:
            point = x
            for _ in range(1 if len(case) == 1 else 5):
                for comparison in case:
                    point = self._onto(comparison, ref, point, lower, upper)
            holds = torch.ones_like(distance, dtype=torch.bool)
            for comparison in case:
                holds &= comparison.holds(point, 1e-6)
            moved = self.moved(x, point).norm(dim=1)
            moved = torch.where(holds, moved, moved + 1e6)
            closer = moved < distance
            best = torch.where(closer[:, None], point, best)
            distance = torch.minimum(moved, distance)
        return best

    def _onto(self, comparison, ref, x, lower, upper):
        """Project rows onto one comparison within the box."""
        if comparison.expression is None:
            return self._recategorise(comparison, ref, x)
        margin = self._margin(comparison)
        equal = comparison.operator == "=="
        columns = torch.tensor(sorted(comparison.columns))
        result = x.clone()
        if comparison.expression.linear is not None:
            weight = slope(comparison, x[:1], self.scale)[0, columns]
            value = -margin - comparison.expression.constant
            unit = self.scale[columns]
            result[:, columns] = unit * _halfspace(
                x[:, columns] / unit,
                weight,
                value,
                lower[:, columns] / unit,
                upper[:, columns] / unit,
                equal,
            )
            return result
        for _ in range(_ROUNDS):  # Newton's steps on a curved relation
            value = comparison.expression.function(result) + margin
            value = (value if equal else value.clamp_min(0.0)).nan_to_num(0.0)
            if not (value.abs() > 1e-12).any():
                break
            gradient = slope(comparison, result, self.scale)
            blocked = ((gradient * value[:, None] > 0) & (result <= lower)) | (
                (gradient * value[:, None] < 0) & (result >= upper)
            )
            gradient = gradient.masked_fill(blocked, 0.0)
            length = gradient.square().sum(1, keepdim=True).clamp_min(1e-30)
            step = value[:, None] * gradient / length * self.scale
            result = torch.clamp(result - step, lower, upper)
        return result

    def _margin(self, comparison):
        """By how much a strict comparison is kept: a step where all columns have one."""
        if comparison.operator != "<":
            return 0.0
        columns = sorted(comparison.columns)
        linear = comparison.expression.linear
        if linear is not None and self.lattice[columns].all():
            return float(min(abs(linear[j]) * self.step[j] for j in columns))
        return 1e-6 * float(self.scale[columns].max())

    def _recategorise(self, comparison, ref, x):
        j, x = comparison.column, x.clone()
        holds = comparison.holds(x, 0.0)
        if comparison.operator == "is":
            wanted = torch.full_like(x[:, j], comparison.code)
            may = self.mutable[j].expand(len(x)).clone()
            if j in self.allowed:
                may &= self._may_turn(self.allowed[j], ref[:, j], wanted)
        else:
            wanted, may = ref[:, j], torch.ones_like(holds)
        x[:, j] = torch.where(~holds & may, wanted, x[:, j])
        return x

    def _round_for_relations(self, ref, wish, x, lower, upper):
        """Round once more where rounding to the nearest left a relation."""
        for relation in self.relations:
            comparison = relation.linear
            if comparison is None or comparison.operator == "==":
                continue
            bad = torch.nonzero(~relation.holds(x)).flatten()
            if not len(bad):
                continue
            x = x.clone()
            for j, factor in comparison.expression.linear.items():
                if not self.lattice[j]:
                    continue
                step, here = self.step[j], ref[bad, j]
                multiple = (wish[bad, j] - here) / step
                multiple = (
                    (multiple + 1e-9).floor() if factor > 0 else (multiple - 1e-9).ceil()
                )
                x[bad, j] = torch.clamp(
                    here + multiple * step, lower[bad, j], upper[bad, j]
                )
        return x

    def _recompute(self, x, asked_only=False):
        """Set the columns that others determine."""
        for relation in self.relations:
            asked = relation.repair is not None
            if relation.dependent is None or (asked_only and not asked):
                continue
            if not self.mutable[relation.dependent]:
                continue
            here, value = x[:, relation.dependent], relation.value(x)
            off = value.isfinite() & ~relation.holds(x, 1e-9)
            x = x.clone()
            x[:, relation.dependent] = torch.where(off, value, here)
        return x


def _tight(ref, lower, upper):
    """Take missing values out of the box: they stay where they are."""
    lost = ref.isnan() | lower.isnan()
    return torch.where(lost, -math.inf, lower), torch.where(lost, math.inf, upper)


def _halfspace(x, weight, value, lower, upper, equal):
    """Project onto <weight, x> = value (or <=) and the box, in closed form.

    The point is clip(x - t weight, lower, upper), whose product with the weight falls in
    t, piecewise linearly: the piece that holds the value is found among the sorted kinks.
    """
    clipped = torch.clamp(x, lower, upper)
    total = (clipped * weight).nan_to_num(0.0).sum(1)
    off = (total - value).abs() > 0 if equal else total > value
    off &= ~x.isnan().any(1)
    if not off.any():
        return clipped
    y, low, high = x[off], lower[off], upper[off]
    # Kinks where a feature reaches or leaves its box.
    kinks = torch.cat([(y - low) / weight, (y - high) / weight], dim=1)
    big = 1e18
    kinks = kinks.nan_to_num(big, big, -big).sort(dim=1).values
    grid = torch.cat([kinks[:, :1] - 1.0, kinks, kinks[:, -1:] + 1.0], dim=1)

    def product(t):
        point = torch.clamp(
            y[:, None] - t[..., None] * weight, low[:, None], high[:, None]
        )
        return (point * weight).nan_to_num(0.0).sum(2)

    values = product(grid)
    piece = ((values >= value).sum(1, keepdim=True) - 1).clamp(0, grid.shape[1] - 2)
    ends = grid.gather(1, piece), grid.gather(1, piece + 1)
    # On the piece the product is a line; far ends stand for no kink at all.
    near = torch.where(ends[0].abs() < big / 10, ends[0], ends[1])
    middle = y - (ends[0] + ends[1]) / 2 * weight
    free = ((middle > low) & (middle < high)) * weight.square()
    fall = free.sum(1, keepdim=True)
    move = (product(near) - value) / fall.where(fall > 0, 1)
    t = near + torch.where(fall > 0, move, 0.0)
    result = clipped.clone()
    result[off] = torch.clamp(y - t * weight, low, high)
    return result
