"""The rows that feature constraints allow, on arrays of numbers."""

import math

import torch


class Rules:
    """What each of some rows may become.

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

    def room(self, ref):
        """Return the range of each feature for each row; it always holds the row."""
        lower = torch.where(self.down, torch.minimum(self.lower, ref), ref)
        upper = torch.where(self.up, torch.maximum(self.upper, ref), ref)
        return lower, upper

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

    def _may_turn(self, table, before, after):
        """Whether categories may follow each other; unknown ones may only stay."""
        known = (before >= 0) & (before < len(table)) & (after >= 0)
        known &= after < len(table)
        at = [torch.where(known, v, 0).long() for v in (before, after)]
        return table[at[0], at[1]] & known


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
