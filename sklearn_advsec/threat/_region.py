"""The way to the rows that feature constraints allow, on arrays of numbers."""

import math

import torch

from .._region_relations import Relating
from ._projection import project_weighted

# Where a repair leaves the region, go this far back towards the row.
_BACK = (0.5, 0.25, 0.1)


class Region(Relating):
    """What each of some rows may become, the projection onto it, and random rows of it.

    Parameters and attributes are those of :class:`Rules`.
    """

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
            lower, upper = self.room(ref)
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
        x = self._settle_missing(ref, x)
        x = self._settle_categories(ref, x)
        free, x = x, torch.where(x.isnan(), x, torch.clamp(x, lower, upper))
        if not self.simple:
            # Nearest to where the row was to go, not to the end of the box there.
            inside, x = x, self._limit(ref, x)
            free = torch.where(x == inside, free, x)
            if self.relations:
                moves = self.changed(ref, x)[:, None] > 0
                x = torch.where(moves, self._relate(ref, x, free, lower, upper), x)
                free = torch.where(x == inside, free, x)
            x = self._settle_groups(ref, x, free, lower, upper)
        wish = x
        x = self._settle_lattice(ref, x, lower, upper)
        if self.relations:
            x = self._round_for_relations(ref, wish, x, lower, upper)
            x = self._recompute(x)
        return x

    def _settle_missing(self, ref, x):
        """Keep what is missing, and let values go missing only where that is allowed."""
        x = torch.where(ref.isnan(), ref, x)
        return torch.where(x.isnan() & ~(self.missing & self.mutable), ref, x)

    def _settle_categories(self, ref, x):
        if self.nominal.any():
            whole = x.round()
            bad = (whole < self.lower) | (whole > self.upper)
            x = torch.where(self.nominal, torch.where(bad, ref, whole), x)
        for j, table in self.allowed.items():
            may = self._may_turn(table, ref[:, j], x[:, j].round())
            x = x.clone()
            x[:, j] = torch.where(may, x[:, j], ref[:, j])
        return x

    def _settle_lattice(self, ref, x, lower, upper):
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

    def _settle_groups(self, ref, x, free, lower, upper):
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

    # Random rows -----------------------------------------------------------------------

    def sample(self, ref, rng):
        """Return one random valid row for each row."""
        lower, upper = self.room(ref)
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
