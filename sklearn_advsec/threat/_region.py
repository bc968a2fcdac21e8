"""Projection onto the rows that feature constraints allow."""

import math
import warnings

import torch

from ._features import NAMED
from ._limits import Knapsack, solve
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
    baseline : list of bool
        Of each group, whether all of its columns may be 0.
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
        # The last code of each column of categories; what is beyond it is not known.
        self.last_code = tensor(
            len(f.categories) - 1 if f.kind in NAMED else math.inf for f in features
        )
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
        # Whether all columns of a group may be 0, for a category that has no column.
        self.baseline = [any(features[j].baseline for j in g) for g in self.groups]
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
        stuck = self._stuck(ref)
        lower = torch.where(self.down & ~stuck, torch.minimum(self.lower, ref), ref)
        upper = torch.where(self.up & ~stuck, torch.maximum(self.upper, ref), ref)
        return lower, upper

    def _stuck(self, ref):
        """Whether values stay what they are, as they are none that the features know.

        Categories that were not seen, numbers between whole ones, and groups of columns
        that are not one-hot have no way from where they are.
        """
        stuck = (self.whole & (ref != ref.round())) | self._unknown(ref)
        for group, baseline in zip(self.groups, self.baseline, strict=True):
            good = self._is_one_hot(ref[:, group], baseline)
            stuck[:, group] |= ~good[:, None]
        return stuck & ~ref.isnan()

    def _unknown(self, x):
        return x.isfinite() & self.last_code.isfinite() & ((x < 0) | (x > self.last_code))

    def _is_one_hot(self, values, baseline):
        at_one, n_ones = ((values == 0) | (values == 1)).all(1), values.sum(1)
        return at_one & ((n_ones == 1) | (baseline & (n_ones == 0)))

    def _may_turn(self, table, before, after):
        """Whether categories may follow each other; unknown ones may only stay."""
        known = (before >= 0) & (before < len(table)) & (after >= 0)
        known &= after < len(table)
        at = [torch.where(known, v, 0).long() for v in (before, after)]
        return table[at[0], at[1]] & known

    # How much changed -------------------------------------------------------------------

    def moved(self, ref, x):
        """Return the moves in units of scale; another category is a move of 1.

        So is a value that goes missing. What was missing and stays so has not moved.
        """
        lost, was_lost = x.isnan(), ref.isnan()
        delta = ((x - ref) / self.scale).nan_to_num(0.0)
        delta = torch.where(self.nominal & (x != ref), 1.0, delta)
        return torch.where(lost | was_lost, (lost != was_lost).to(delta), delta)

    def changed(self, ref, x):
        """Number of features that differ; a one-hot group is one feature."""
        return self._units((x != ref) & ~(x.isnan() & ref.isnan())).sum(1)

    def total_cost(self, ref, x):
        """Sum of the moves, each times the feature's cost.

        The switch of a group leaves one column and enters another, and is one move.
        """
        moves = self.moved(ref, x).abs() * self.cost
        for group in self.groups:
            n_moved = (x[:, group] != ref[:, group]).sum(1, keepdim=True)
            moves[:, group] /= n_moved.clamp(1, 2)
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

    def breaks(self, ref, x, rtol=1e-6):
        """Yield what rows break: a column or None, a text, a mask of rows.

        What a value was before the attack is no fault of the attack's: only relations
        are asked of values that did not move.
        """
        size = torch.maximum(x.abs(), ref.abs()).nan_to_num(0.0)
        rounding = (1e-12 if rtol < 1e-5 else 6e-8) * size  # of float64, and of float32
        slack = self._slack(rtol * torch.maximum(self.scale, size), rounding)
        same = (x == ref) | (x.isnan() & ref.isnan())
        gap = (x - ref).abs() > torch.where(self.mutable, slack, rounding)
        lost = x.isnan() & ~ref.isnan()
        lower = torch.minimum(self.lower, ref)
        upper = torch.maximum(self.upper, ref)
        outside = (x < lower - slack) | (x > upper + slack)
        whole = (x - x.round()).abs() > slack
        multiple = (x - ref) / self.step
        apart = (multiple - multiple.round()).abs() * self.step > slack
        found = ref.isnan() & ~x.isnan()
        moved = gap | (self.nominal & ~same) | lost | found
        tests = (
            ("may not change", moved & ~self.mutable),
            ("may not be missing", x.isnan() & ~self.missing & ~ref.isnan()),
            ("was missing, and stays so", found),
            ("is of an unknown category", self._unknown(x) & moved),
            ("was of an unknown category, and keeps it", self._unknown(ref) & moved),
            ("is outside of its bounds", outside & moved),
            ("is not a whole number", whole & self.whole & gap),
            ("moved by no multiple of its step", apart & self.lattice & gap),
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
        for group, baseline in zip(self.groups, self.baseline, strict=True):
            n_ones = (x[:, group] > 0.5).sum(1)
            bad = (n_ones > 1) | ((n_ones == 0) & (not baseline))
            bad &= gap[:, group].any(1)
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

    def _slack(self, slack, rounding=0.0):
        """Return how far off values may be: next to steps, a small part of these."""
        least = torch.clamp_min(0.01 * self.step, rounding)
        return torch.where(self.lattice, torch.minimum(slack, least), slack)

    def valid(self, ref, x, rtol=1e-6):
        """Whether each row breaks nothing."""
        good = torch.ones(len(x), dtype=torch.bool)
        for _, _, mask in self.breaks(ref, x, rtol):
            good &= ~mask
        return good

    # The projection ---------------------------------------------------------------------

    def project(self, ref, x, lower=None, upper=None, fits=None, exact=False):
        """Return a valid row near each row: see `FeatureConstraints.project`.

        Parameters
        ----------
        ref, x : tensor of shape (n, n_features)
            The rows as they were, and as they are wanted.
        lower, upper : tensor of the same shape, optional
            A narrower range than that of the features.
        fits : callable, optional
            ``fits(ref, x)`` says which rows an attack may use at all.
        exact : bool, default=False
            Solve limits to the end; attacks, which ask a thousand times, leave a gap of
            at most one step or choice.
        """
        if lower is None:
            lower, upper = self.reachable_range(ref)
        result = self._nearest(ref, x, lower, upper, exact)
        if self.simple and fits is None:
            return result
        good = self._kept(ref, result, lower, upper, fits)
        for share in _BACK:
            bad = torch.nonzero(~good).flatten()
            if not len(bad):
                return result
            start, box = ref[bad], (lower[bad], upper[bad])
            near = self._nearest(start, start + share * (x[bad] - start), *box)
            right = self._kept(start, near, *box, fits)
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
                value, slack = x[:, j], self._slack(1e-6 * self.scale)[j]
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

    def _nearest(self, ref, x, lower, upper, exact=False):
        wish = self._keep_missing(ref, x)
        x = self._allowed_categories(ref, wish, lower, upper)
        x = torch.where(x.isnan(), x, torch.clamp(x, lower, upper))
        if self.simple:
            return self.round_to_steps(ref, x, lower, upper)
        if not self.relations:
            x = self.round_to_steps(ref, self._one_hot(ref, wish, x, lower, upper),
                                    lower, upper)  # fmt: skip
            return self._limited(ref, wish, x, lower, upper, exact=exact)
        # Nearest to where the row was to go, not to the end of the box there.
        inside, x = x, self._limited(ref, wish, x, lower, upper, freely=True)
        fixed = self.nominal.clone()
        fixed[self._orders()] = True
        wish = torch.where(fixed, inside, wish)
        free = torch.where(x == inside, wish, x)
        moves = self.changed(ref, x)[:, None] > 0
        x = torch.where(moves, self._relate(ref, x, free, lower, upper), x)
        free = torch.where(x == inside, free, x)
        x = wish = self._one_hot(ref, free, x, lower, upper)
        x = self.round_to_steps(ref, x, lower, upper)
        x = self._round_for_relations(ref, wish, x, lower, upper)
        return self._recompute(x)

    def _keep_missing(self, ref, x):
        """Keep what is missing, and let values go missing only where that is allowed."""
        x = torch.where(ref.isnan(), ref, x)
        return torch.where(x.isnan() & ~(self.missing & self.mutable), ref, x)

    def _allowed_categories(self, ref, x, lower, upper):
        """Give categories that a row may turn into: of an order, the nearest."""
        if self.nominal.any():
            whole = x.round()
            bad = (whole < self.lower) | (whole > self.upper) | self._unknown(ref)
            x = torch.where(self.nominal, torch.where(bad, ref, whole), x)
        for j, table in self.allowed.items():
            x = x.clone()
            if self.nominal[j]:
                may = self._may_turn(table, ref[:, j], x[:, j])
                x[:, j] = torch.where(may | x[:, j].isnan(), x[:, j], ref[:, j])
                continue
            far = self._option_losses(j, table, ref, x, lower, upper)
            nearest = torch.where(far.isfinite().any(1), far.argmin(1), ref[:, j])
            x[:, j] = torch.where(x[:, j].isnan(), x[:, j], nearest)
        return x

    def _option_losses(self, j, table, ref, x, lower, upper):
        """Squared distance to each category of an order; infinite where closed."""
        code = torch.arange(len(table), dtype=torch.float64)
        may = torch.stack(
            [
                self._may_turn(table, ref[:, j], torch.full_like(ref[:, j], c))
                for c in code
            ],
            dim=1,
        )
        may &= (code >= lower[:, j, None]) & (code <= upper[:, j, None])
        here = code == ref[:, j, None]
        may |= here
        # A tie changes nothing.
        loss = ((code - x[:, j, None]) / self.scale[j]).square() - 1e-12 * here
        return torch.where(may, loss, math.inf)

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

    def _one_hot(self, ref, wish, x, lower, upper):
        """Set one column of each group to 1, or none, whichever is nearest."""
        if not self.groups:
            return x
        x = x.clone()
        for i, group in enumerate(self.groups):
            loss, here = self._group_losses(i, ref, wish, lower, upper)
            # A tie changes nothing.
            loss -= 1e-12 * torch.nn.functional.one_hot(here, loss.shape[1])
            x[:, group] = self._hot(i, ref, here, loss.argmin(1))
        return x

    def _here(self, i, ref):
        """Which column of a group is at 1; the place behind the last one is none."""
        values = ref[:, self.groups[i]]
        return torch.where((values > 0.5).any(1), values.argmax(1), values.shape[1])

    def _hot(self, i, ref, here, option):
        """Return the columns of a group with one of them at 1, or as they were."""
        values = ref[:, self.groups[i]]
        hot = torch.nn.functional.one_hot(option, values.shape[1] + 1)[:, :-1].to(ref)
        return torch.where((option == here)[:, None], values, hot)

    def _group_losses(self, i, ref, wish, lower, upper):
        """Squared distance to each column alone at 1, and to none; and which is at 1.

        What a row cannot get to is infinitely far away.
        """
        group, here = self.groups[i], self._here(i, ref)
        unit, before, wanted = self.scale[group], ref[:, group], wish[:, group]
        wanted = torch.where(wanted.isnan(), before, wanted)
        loss = torch.zeros(len(ref), len(group) + 1, dtype=ref.dtype)  # the last: none
        loss[:, :-1] = (1 - 2 * wanted) / unit.square()
        loss += (wanted / unit).square().sum(1, keepdim=True)
        # Another column can win only if it may rise to 1, and the present one fall.
        leaves = ((lower[:, group] <= 0) | (before < 0.5)).all(1, keepdim=True)
        closed = torch.zeros_like(loss, dtype=torch.bool)
        closed[:, :-1] = (upper[:, group] < 1) | ~leaves
        closed[:, -1:] = ~leaves if self.baseline[i] else True
        closed.scatter_(1, here[:, None], False)
        return loss.masked_fill(closed, math.inf), here

    def _limited(self, ref, wish, x, lower, upper, exact=False, freely=False):
        """Keep the limits: solve a knapsack for each row that is over one.

        `x` is the nearest row without limits; `freely` leaves steps aside.
        """
        over = torch.zeros(len(x), dtype=torch.bool)
        if self.max_changed is not None:
            over |= self.changed(ref, x) > self.max_changed
        if self.max_cost is not None:
            over |= self.total_cost(ref, x) > self.max_cost
        rows = torch.nonzero(over).flatten()
        if not len(rows):
            return x
        parts = (part[rows] for part in (ref, wish, x, lower, upper))
        ref, wish, inside, lower, upper = parts
        problem, way = self._knapsack(ref, wish, inside, lower, upper, freely)
        moves, proven = solve(problem, self.max_cost, self.max_changed, exact=exact)
        if exact and not proven.all():
            warnings.warn(
                f"{int((~proven).sum())} rows have too many ways to spend max_cost: what "
                "is given for them is valid, but may not be the nearest.",
                stacklevel=4,
            )
        end = torch.isclose(moves.size, problem.high, rtol=1e-12, atol=0.0)
        point = torch.where(end, inside, ref + way * moves.size * self.scale)
        named = self.nominal | inside.isnan() | ref.isnan()
        point = torch.where(named, torch.where(moves.size > 0, inside, ref), point)
        point = torch.where(moves.size > 0, point, ref)
        for k, j in enumerate(self._orders()):
            option = moves.option[:, k].to(ref)
            stays = moves.option[:, k] == problem.stay[:, k]
            point[:, j] = torch.where(stays, ref[:, j], option)
        for i, group in enumerate(self.groups):
            k = len(self._orders()) + i
            here = problem.stay[:, k]
            point[:, group] = self._hot(i, ref, here, moves.option[:, k])
        if self.max_cost is not None and not freely:
            point = self.round_to_steps(ref, point, lower, upper)
        x = x.clone()
        x[rows] = point
        return x

    def _orders(self):
        """Columns of ordered categories that may turn into some others only."""
        return [j for j in self.allowed if not self.nominal[j]]

    def _knapsack(self, ref, wish, inside, lower, upper, freely):
        """Return the problem of moving from `ref` towards `wish`, and the directions."""
        delta = self.moved(ref, wish)
        way, size = delta.sign(), delta.abs()
        high = self.moved(ref, inside).abs()
        # Where a feature is wished to go is no way at all for those that stay.
        size = torch.where(high > 0, size, 0.0)
        step = torch.where(self.lattice & (not freely), self.step / self.scale, 0.0)
        switched = self.nominal | inside.isnan()
        step = torch.where(switched, 1.0, step.expand_as(ref))
        price = self.cost.expand_as(ref).clone()
        chosen = [*self._orders(), *(j for group in self.groups for j in group.tolist())]
        for part in (size, high, step, price):
            part[:, chosen] = 0.0
        step[:, chosen] = 1.0
        losses, costs, stay = [], [], []
        for j in self._orders():
            here = ref[:, j].nan_to_num(0.0).clamp(0, len(self.allowed[j]) - 1)
            loss = self._option_losses(j, self.allowed[j], ref, wish, lower, upper)
            code = torch.arange(loss.shape[1], dtype=torch.float64)
            costs.append((code - ref[:, j, None]).abs() / self.scale[j] * self.cost[j])
            losses.append(loss)
            stay.append(here.long())
        for i, group in enumerate(self.groups):
            loss, here = self._group_losses(i, ref, wish, lower, upper)
            losses.append(loss)
            stay.append(here)
            each = torch.nn.functional.pad(self.cost[group] / self.scale[group], (0, 1))
            leave = each[stay[-1]][:, None]
            none = torch.arange(len(group) + 1) == len(group)
            alone = none | none[stay[-1]][:, None]
            cost = (each + leave) / torch.where(alone, 1.0, 2.0)
            costs.append(cost.scatter(1, stay[-1][:, None], 0.0))
        problem = Knapsack(
            size,
            torch.zeros_like(size),
            high,
            step,
            price,
            _padded(losses, len(ref), math.inf),
            _padded(costs, len(ref), 0.0),
            torch.stack(stay, 1) if stay else torch.zeros(len(ref), 0, dtype=torch.int64),
            torch.zeros(len(ref), ref.shape[1] + len(stay), dtype=torch.bool),
        )
        return problem, way

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
        if comparison.linear is not None:
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
            value = comparison.expression.value(result) + margin
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
        linear = comparison.linear
        if linear is not None and self.lattice[columns].all():
            return float(min(abs(linear[j]) * self.step[j] for j in columns))
        return 1e-6 * float(self.scale[columns].max())

    def _recategorise(self, comparison, ref, x):
        """Turn to the category that is allowed: the nearest, or the row's own."""
        j, x = comparison.column, x.clone()
        codes = torch.tensor(sorted(comparison.codes - {-1}), dtype=torch.float64)
        holds = comparison.holds(x, 0.0)
        far = (codes - x[:, j, None]).abs()
        if self.nominal[j]:  # none is nearer, but that which the row came from
            far = (codes != ref[:, j, None]).to(x)
        may = self.mutable[j] | (codes == ref[:, j, None])
        if j in self.allowed:
            table = self.allowed[j]
            turns = [
                self._may_turn(table, ref[:, j], torch.full_like(ref[:, j], c))
                for c in codes
            ]
            may = may & torch.stack(turns, dim=1)
        far = torch.where(may, far, math.inf)
        found = far.isfinite().any(1) & ~holds
        x[:, j] = torch.where(found, codes[far.argmin(1)], x[:, j])
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
            for j, factor in comparison.linear.items():
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


def _padded(parts, n_rows, value):
    """Stack tables of unlike widths, shape (n_rows, n_parts, widest)."""
    if not parts:
        return torch.zeros(n_rows, 0, 1, dtype=torch.float64)
    widest = max(part.shape[1] for part in parts)
    pad = torch.nn.functional.pad
    padded = [pad(part, (0, widest - part.shape[1]), value=value) for part in parts]
    return torch.stack(padded, dim=1)


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
        point = torch.clamp(y - t * weight, low, high)
        return (point * weight).nan_to_num(0.0).sum(1, keepdim=True)

    # The last kink that is not beyond the value; the product falls from kink to kink.
    piece = torch.zeros(len(y), 1, dtype=torch.int64)
    last = torch.full_like(piece, grid.shape[1] - 2)
    for _ in range(grid.shape[1].bit_length()):
        middle = (piece + last + 1) // 2
        reached = product(grid.gather(1, middle)) >= value
        piece = torch.where(reached, middle, piece)
        last = torch.where(reached, last, (middle - 1).clamp_min(0))
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
