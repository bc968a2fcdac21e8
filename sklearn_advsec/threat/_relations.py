"""Relations between features: whether rows keep them, and by how much they do not."""

import numpy as np
import torch

from .._formula import Reader, RelationError

__all__ = ["Relation", "RelationError", "check_linear", "slope"]


class Relation:
    """A formula over the columns, as a disjunction of conjunctions of comparisons.

    Parameters
    ----------
    text : str
        The formula.
    names : list
        The columns' names; integers for plain arrays, written ``x[3]``.
    categories : list of (list or None)
        The categories of the columns that hold codes.
    repair : str or int, optional
        The column that is recomputed from the others.

    Attributes
    ----------
    cases : list of list of Comparison
        The relation holds where all comparisons of one of these hold.
    columns : frozenset of int
        Positions of the columns in use.
    dependent : int or None
        Position of the column to recompute, and `value`, which does it.
    """

    def __init__(self, text, names, categories, repair=None):
        self.text = text
        self.repair = repair
        reader = Reader(text, names, categories)
        self.cases = reader.read()
        self.columns = frozenset(
            c for case in self.cases for t in case for c in t.columns
        )
        if not self.columns:
            raise RelationError(f"relation {text!r} names no column.")
        self.dependent = self.value = None
        if len(self.cases) == 1 and len(self.cases[0]) == 1:
            self._find_dependent(reader, names, repair)
        if repair is not None and self.dependent is None:
            raise RelationError(
                f"repair={repair!r} needs a relation that says what it equals, such as "
                f"'{repair} == a + b'; got {text!r}."
            )

    def _find_dependent(self, reader, names, repair):
        """Find a column that stands alone in an equality, or the one that is asked."""
        comparison = self.cases[0][0]
        if comparison.operator != "==":
            return
        wanted = None if repair is None else reader.position(repair, 0)
        for own, other in (reader.sides, reader.sides[::-1]):
            alone = own.linear is not None and list(own.linear.values()) == [1.0]
            j = next(iter(own.columns), None)
            if not alone or own.constant or j in other.columns:
                continue
            if wanted in (None, j):
                self.dependent, self.value = j, other.function
                return
        linear = comparison.expression.linear
        if wanted is not None and linear and wanted in linear:
            function, factor = comparison.expression.function, linear[wanted]
            self.dependent = wanted
            self.value = lambda x: x[:, wanted] - function(x) / factor

    @property
    def linear(self):
        """The one linear comparison that this is, or None."""
        if len(self.cases) == 1 and len(self.cases[0]) == 1:
            comparison = self.cases[0][0]
            if comparison.expression is not None and comparison.expression.linear:
                return comparison
        return None

    def holds(self, x, tolerance=1e-6):
        """Whether each row fulfils the relation."""
        return self._any(lambda c: c.holds(x, tolerance))

    def _any(self, test):
        found = None
        for case in self.cases:
            every = test(case[0])
            for comparison in case[1:]:
                every = every & test(comparison)
            found = every if found is None else found | every
        return found

    def excess(self, x, scale):
        """Distance to the relation, to first order and in units of `scale`; 0 inside.

        Differentiable. Of a conjunction the distances add up, of a disjunction the
        smallest counts (Simonetto et al. 2022, arXiv:2112.01156, Table 1).
        """
        cases = []
        for case in self.cases:
            terms = [_distance(comparison, x, scale) for comparison in case]
            cases.append(torch.stack(terms).sum(0))
        return torch.stack(cases).amin(0)


def _distance(comparison, x, scale):
    value = comparison.excess(x)
    if comparison.expression is None:
        return value
    return value / slope(comparison, x, scale).norm(dim=1).clamp_min(1e-12)


def slope(comparison, x, scale):
    """Gradient of the comparison's expression, with columns in units of `scale`."""
    expression = comparison.expression
    if expression.linear is not None:
        gradient = torch.zeros_like(x[:1])
        for j, factor in expression.linear.items():
            gradient[:, j] = factor
        return (gradient * scale).expand(x.shape)
    with torch.enable_grad():
        at = x.detach().nan_to_num(0.0).requires_grad_()
        (gradient,) = torch.autograd.grad(expression.function(at).sum(), at)
    return gradient.nan_to_num(0.0) * scale


def check_linear(relations, lower, upper):
    """Raise where linear relations and bounds leave no point at all."""
    from scipy.optimize import linprog

    rows = {"<=": ([], []), "==": ([], [])}
    for relation in relations:
        comparison = relation.linear
        if comparison is None:
            continue
        row = np.zeros(len(lower))
        for j, factor in comparison.expression.linear.items():
            row[j] = factor
        side = rows["==" if comparison.operator == "==" else "<="]
        side[0].append(row)
        side[1].append(-comparison.expression.constant)
    if not (rows["<="][0] or rows["=="][0]):
        return
    limits = [[v if np.isfinite(v) else None for v in pair]
              for pair in zip(lower, upper, strict=True)]  # fmt: skip
    solved = linprog(
        np.zeros(len(lower)),
        A_ub=np.array(rows["<="][0]) if rows["<="][0] else None,
        b_ub=rows["<="][1] or None,
        A_eq=np.array(rows["=="][0]) if rows["=="][0] else None,
        b_eq=rows["=="][1] or None,
        bounds=limits,
    )
    if solved.status == 2:
        raise ValueError(
            f"relation {relations[-1].text!r} is infeasible together with the bounds and "
            "the other relations: no row can fulfil all of them."
        )
