"""Projection onto the rows that feature constraints allow."""

import math

import torch

from ._projection import project_weighted
from ._relations import slope

# Of repairs that take turns (several relations, curved ones) as many as this.
_ROUNDS = 100

# Where a repair leaves the region, go this far back towards the row.
_BACK = (0.5, 0.25, 0.1)


class Region:
    """What each of some rows may become, on arrays of numbers.

    Rows are tensors of float64, shape (n, n_features): numbers as they are, and the
    position of the category for columns of categories.

    Parameters
    ----------
    features : list of Feature
    relations : list of Relation
    max_cost, max_changed : float and int, or None

    Attributes
    ----------
    scale : tensor of shape (n_features,)
        Unit of each feature; 1 for categories.
    cost : tensor of shape (n_features,)
        Cost of moving by one unit, or to another category.
    nominal : tensor of bool, shape (n_features,)
        Which features hold categories without an order.
    mutable : tensor of bool, shape (n_features,)
        Which features may change, alone or with their group.
    groups : list of tensor of int64
        Columns of each one-hot group.
    """

    def __init__(self, features, relations, max_cost=None, max_changed=None):
        self.features = features
        self.relations = relations
        self.max_cost, self.max_changed = max_cost, max_changed

        def tensor(values, dtype=torch.float64):
            return torch.tensor(list(values), dtype=dtype)

        self.nominal = tensor((f.kind == "categorical" for f in features), torch.bool)
        self.lower = tensor(0.0 if f.kind == "categorical" else f.lower for f in features)
        self.upper = tensor(
            float(len(f.categories) - 1) if f.kind == "categorical" else f.upper
            for f in features
        )
        self.scale = tensor(1.0 if f.kind == "categorical" else f.scale for f in features)
        self.cost = tensor(f.cost for f in features)
        self.missing = tensor((f.missing for f in features), torch.bool)
        self.whole = tensor((f.kind != "continuous" for f in features), torch.bool)
        # The gap between values: a step of the feature's own, or 1, or none at all.
        self.step = tensor(
            f.step or (math.nan if f.kind == "continuous" else 1.0) for f in features
        )
        self.lattice = ~self.step.isnan() & ~self.nominal
        names = list(dict.fromkeys(f.group for f in features if f.group is not None))
        self.groups = [
            torch.tensor([j for j, f in enumerate(features) if f.group == name])
            for name in names
        ]
        self.mutable = tensor((f.mutable for f in features), torch.bool)
        for group in self.groups:
            self.mutable[group] = self.mutable[group].all()
        self.up = self.mutable & tensor((f.direction != "down" for f in features), bool)
        self.down = self.mutable & tensor((f.direction != "up" for f in features), bool)
        self.allowed = {
            j: _transition_table(f) for j, f in enumerate(features) if f.transitions
        }
        self.simple = not (
            relations or self.groups or max_cost is not None or max_changed is not None
        )

    # What is allowed -------------------------------------------------------------------

    def reachable_range(self, ref):
        """Return the range of each feature for each row; it always holds the row."""
        lower = torch.where(self.down, torch.minimum(self.lower, ref), ref)
        upper = torch.where(self.up, torch.maximum(self.upper, ref), ref)
        return lower, upper

    def _may_turn(self, table, before, after):
        """Whether categories may follow each other; unknown ones may only stay."""
        known = (before >= 0) & (before < len(table)) & (after >= 0)
        known &= after < len(table)
        at = [torch.where(known, v, 0).long() for v in (before, after)]
        return table[at[0], at[1]] & known

    # How much changed -------------------------------------------------------------------

    def moved(self, ref, x):
        """Return the moves in units of scale; another category is a move of 1."""
        delta = ((x - ref) / self.scale).nan_to_num(0.0)
        delta = torch.where(self.nominal & (x != ref), 1.0, delta)
        return torch.where(x.isnan() != ref.isnan(), 1.0, delta)

    def changed(self, ref, x):
        """Number of features that differ; a one-hot group is one feature."""
        return self._units((x != ref) & ~(x.isnan() & ref.isnan())).sum(1)

    def total_cost(self, ref, x):
        """Sum of the moves, each times the feature's cost."""
        moves = self.moved(ref, x).abs() * self.cost
        for group in self.groups:  # a switch leaves one column and enters another
            moves[:, group] /= 2
        return moves.sum(1)

    def _units(self, values):
        """Keep one column of each group, the largest."""
        for group in self.groups:
            largest = values[:, group].amax(1)
            values = values.clone()
            values[:, group[1:]] = 0
            values[:, group[0]] = largest
        return values

    # What is broken ---------------------------------------------------------------------

    def breaks(self, ref, x, rtol=1e-6, strict=False):
        """Yield what rows break: a column or None, a text, a mask of rows.

        What a row was before the attack is no fault of the attack's, unless `strict`.
        """
        slack = rtol * torch.maximum(self.scale, x.abs().nan_to_num(0.0))
        same = (x == ref) | (x.isnan() & ref.isnan())
        gap = (x - ref).abs() > slack
        lost = x.isnan() & ~ref.isnan()
        lower, upper = self.lower, self.upper
        if not strict:
            lower, upper = torch.minimum(lower, ref), torch.maximum(upper, ref)
        outside = (x < lower - slack) | (x > upper + slack)
        whole = (x - x.round()).abs() > slack
        multiple = (x - ref) / self.step
        apart = (multiple - multiple.round()).abs() * self.step > slack
        at_bound = ((x - self.lower).abs() <= slack) | ((x - self.upper).abs() <= slack)
        moved = gap | (self.nominal & ~same) | lost
        tests = (
            ("may not change", moved & ~self.mutable),
            ("may not be missing", x.isnan() & ~self.missing & ~ref.isnan()),
            ("is outside of its bounds", outside),
            ("is not a whole number", whole & self.whole & (gap | strict)),
            ("moved by no multiple of its step", apart & self.lattice & ~at_bound),
            ("may only go up", (x < ref - slack) & self.mutable & ~self.down),
            ("may only go down", (x > ref + slack) & self.mutable & ~self.up),
        )
        for text, mask in tests:
            for j in mask.any(0).nonzero().flatten().tolist():
                yield j, text, mask[:, j]
        for j, table in self.allowed.items():
            bad = moved[:, j] & ~self._may_turn(table, ref[:, j], x[:, j])
            if bad.any():
                yield j, "may not take this category from where it was", bad
        for group in self.groups:
            bad = (x[:, group] > 0.5).sum(1) != 1
            bad &= gap[:, group].any(1) | strict
            if bad.any():
                yield int(group[0]), "one-hot group has not just one column at 1", bad
        for relation in self.relations:
            bad = ~relation.holds(x, rtol)
            if bad.any():
                yield None, relation.text, bad
        if self.max_changed is not None:
            bad = self.changed(ref, x) > self.max_changed
            if bad.any():
                yield None, f"more than max_changed={self.max_changed} changes", bad
        if self.max_cost is not None:
            bad = self.total_cost(ref, x) > self.max_cost * (1 + rtol) + rtol
            if bad.any():
                yield None, f"costs more than max_cost={self.max_cost}", bad

    def valid(self, ref, x, rtol=1e-6):
        """Whether each row breaks nothing."""
        good = torch.ones(len(x), dtype=torch.bool)
        for _, _, mask in self.breaks(ref, x, rtol):
            good &= ~mask
        return good

    # The projection ---------------------------------------------------------------------

    def project(self, ref, x, lower=None, upper=None, fits=None):
        """Return a valid row near each row: see `FeatureConstraints.project`.

        Parameters
        ----------
        ref, x : tensor of shape (n, n_features)
            The rows as they were, and as they are wanted.
        lower, upper : tensor of the same shape, optional
            A narrower range than that of the features.
        fits : callable, optional
            ``fits(ref, x)`` says which rows an attack may use at all.
        """
        if lower is None:
            lower, upper = self.reachable_range(ref)
        result = self._nearest(ref, x, lower, upper)
        if self.simple and fits is None:
            return result
        good = self._kept(ref, result, lower, upper, fits)
        for share in _BACK:
            bad = torch.nonzero(~good).flatten()
            if not len(bad):
                return result
            start, room = ref[bad], (lower[bad], upper[bad])
            near = self._nearest(start, start + share * (x[bad] - start), *room)
            right = self._kept(start, near, *room, fits)
            result[bad[right]] = near[right]
            good[bad[right]] = True
        return torch.where(good[:, None], result, ref)

    def _kept(self, ref, x, lower, upper, fits):
        """Whether rows keep what the steps of the projection may have broken."""
        good = torch.ones(len(x), dtype=torch.bool) if fits is None else fits(ref, x)
        for relation in self.relations:
            good &= relation.holds(x)
            j = relation.dependent
            if j is not None:
                value, slack = x[:, j], 1e-6 * self.scale[j]
                inside = (value >= lower[:, j] - slack) & (value <= upper[:, j] + slack)
                if self.lattice[j]:
                    steps = (value - ref[:, j]) / self.step[j]
                    inside &= (steps - steps.round()).abs() * self.step[j] <= slack
                good &= inside | (value == ref[:, j]) | value.isnan()
        if self.max_changed is not None:
            good &= self.changed(ref, x) <= self.max_changed
        if self.max_cost is not None:
            good &= self.total_cost(ref, x) <= self.max_cost * (1 + 1e-6) + 1e-6
        return good

    def mend(self, ref, x, lower, upper):
        """Move rows into the relations and the range; whole numbers are left aside."""
        inside = torch.where(x.isnan(), x, torch.clamp(x, lower, upper))
        return self._recompute(self._relate(ref, inside, x, lower, upper))

    def _nearest(self, ref, x, lower, upper):
        x = self._keep_missing(ref, x)
        x = self._allowed_categories(ref, x)
        free, x = x, torch.where(x.isnan(), x, torch.clamp(x, lower, upper))
        if not self.simple:
            # Nearest to where the row was to go, not to the end of the box there.
            inside, x = x, self._limit(ref, x)
            free = torch.where(x == inside, free, x)
            if self.relations:
                moves = self.changed(ref, x)[:, None] > 0
                x = torch.where(moves, self._relate(ref, x, free, lower, upper), x)
                free = torch.where(x == inside, free, x)
            x = self._one_hot(ref, x, free, lower, upper)
        wish = x
        x = self.round_to_steps(ref, x, lower, upper)
        if self.relations:
            x = self._round_for_relations(ref, wish, x, lower, upper)
            x = self._recompute(x)
        return x

    def _keep_missing(self, ref, x):
        """Keep what is missing, and let values go missing only where that is allowed."""
        x = torch.where(ref.isnan(), ref, x)
        return torch.where(x.isnan() & ~(self.missing & self.mutable), ref, x)

    def _allowed_categories(self, ref, x):
        if self.nominal.any():
            whole = x.round()
            bad = (whole < self.lower) | (whole > self.upper)
            x = torch.where(self.nominal, torch.where(bad, ref, whole), x)
        for j, table in self.allowed.items():
            may = self._may_turn(table, ref[:, j], x[:, j].round())
            x = x.clone()
            x[:, j] = torch.where(may, x[:, j], ref[:, j])
        return x

    def round_to_steps(self, ref, x, lower, upper):
        """Round to the row plus a multiple of the step, inside of the range."""
        if not self.lattice.any():
            return x
        step = torch.where(self.lattice, self.step, 1.0)
        first = ((lower - ref) / step - 1e-9).ceil()
        last = ((upper - ref) / step + 1e-9).floor()
        multiple = ((x - ref) / step).round()
        multiple = torch.minimum(torch.maximum(multiple, first), last)
        # A step is rounded itself: multiples of it may end a little beyond the range.
        near = torch.clamp(ref + multiple * step, lower, upper)
        near = torch.where(multiple == 0, ref, near)
        return torch.where(self.lattice & ~x.isnan(), near, x)

    def _one_hot(self, ref, x, free, lower, upper):
        """Set the largest column of each one-hot group that may reach 1."""
        x = x.clone()
        for group in self.groups:
            values, here = free[:, group], ref[:, group]
            # Another column can win only if it may rise to 1, and the present one fall.
            may = (upper[:, group] >= 1) & ((lower[:, group] <= 0) | (here < 0.5)).all(
                1, keepdim=True
            )
            score = torch.where(may | (here > 0.5), values, -math.inf)
            score = score + 1e-12 * here  # a tie changes nothing
            winner = score.argmax(1, keepdim=True)
            x[:, group] = torch.zeros_like(values).scatter(1, winner, 1.0)
        return x

    def _limit(self, ref, x):
        """Keep the largest moves, and shrink them to the total cost."""
        if self.max_changed is not None:
            size = self._units(self.moved(ref, x).abs())
            k = min(self.max_changed, size.shape[1])
            if k < size.shape[1]:
                kept = torch.zeros_like(size, dtype=torch.bool)
                if k:
                    kept.scatter_(1, size.topk(k, dim=1).indices, True)
                for group in self.groups:
                    kept[:, group] = kept[:, group].any(1, keepdim=True)
                x = torch.where(kept, x, ref)
        if self.max_cost is not None:
            over = self.total_cost(ref, x) > self.max_cost
            if over.any():
                x = torch.where(over[:, None], self._cheapen(ref, x), x)
        return x

    def _cheapen(self, ref, x):
        """Project onto the total cost; categories are kept from the cheapest on."""
        moves = self.moved(ref, x)
        named = self.nominal.clone()
        for group in self.groups:
            named[group] = True
        budget = torch.full_like(ref[:, :1], self.max_cost)
        units = self._units(torch.where(named, moves.abs() * self.cost, 0.0))
        order = torch.where(units > 0, units, math.inf).argsort(dim=1)
        sums = units.gather(1, order).cumsum(1)
        affordable = (sums <= budget) & (units.gather(1, order) > 0)
        kept = torch.zeros_like(affordable).scatter(1, order, affordable)
        for group in self.groups:
            kept[:, group] = kept[:, group].any(1, keepdim=True)
        left = budget - torch.where(kept, units, 0.0).sum(1, keepdim=True)
        size = torch.where(named, 0.0, moves.abs())
        free = self.cost == 0
        radius = torch.where(free, 1.0, 1.0 / self.cost.where(~free, 1.0))
        # In units of what is left, the ball sum |move| * cost <= left has radius 1.
        share = size / left.clamp_min(1e-300)
        room = torch.full_like(share, math.inf)
        paid = project_weighted(torch.where(free, 0.0, share), room, radius, 1)
        size = torch.where(free, size, paid * left)
        result = ref + size * moves.sign() * self.scale
        return torch.where(named, torch.where(kept, x, ref), result)

    # Relations --------------------------------------------------------------------------

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

    # Random rows -----------------------------------------------------------------------

    def sample(self, ref, rng):
        """Return one random valid row for each row."""
        lower, upper = self.reachable_range(ref)
        spread = 3 * self.scale
        low = torch.where(lower.isfinite(), lower, ref - spread)
        high = torch.where(upper.isfinite(), upper, ref + spread)
        draw = torch.as_tensor(rng.uniform(size=tuple(ref.shape)))
        x = low + draw * (high - low)
        codes = torch.floor(self.lower + draw * (self.upper - self.lower + 1))
        x = torch.where(self.nominal & self.mutable, codes, x)
        n_features = ref.shape[1]
        most = n_features if self.max_changed is None else self.max_changed
        if not most:
            return ref.clone()
        if most < n_features:
            order = torch.as_tensor(rng.uniform(size=tuple(ref.shape)))
            order = torch.where(self.mutable, order, 2.0).argsort(1).argsort(1)
            kept = order < torch.as_tensor(rng.randint(1, most + 1, size=(len(ref), 1)))
            for group in self.groups:
                kept[:, group] = kept[:, group].any(1, keepdim=True)
            x = torch.where(kept, x, ref)
        return self.project(ref, x)


def _transition_table(feature):
    k = len(feature.categories)
    table = torch.eye(k, dtype=torch.bool)
    index = {value: i for i, value in enumerate(feature.categories)}
    for before, after in feature.transitions.items():
        for value in after:
            table[index[before], index[value]] = True
    for value, i in index.items():  # what is not named may turn into anything
        if value not in feature.transitions:
            table[i] = True
    return table


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
