"""Relations between features: formulas, read and put into disjunctive form."""

import ast
import operator
import re
from dataclasses import dataclass

import numpy as np
import torch

_MARK = "implies_"
_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\bimplies\b")
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_OPERATORS = {ast.LtE: "<=", ast.Lt: "<", ast.GtE: ">=", ast.Gt: ">"}
_OPERATORS |= {ast.Eq: "==", ast.NotEq: "!="}
_OPPOSITE = {"<=": ">", ">": "<=", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}

# What a formula may become in disjunctive form.
_MOST_CASES = 64


class RelationError(ValueError):
    """A relation that cannot be read; the message shows where."""


@dataclass
class Expression:
    """A sum of multiples of columns, or, where that is not enough, a function of them.

    Attributes
    ----------
    columns : frozenset of int
        Positions of the columns in use.
    linear : dict of int to float, or None
        The multiples; None if the expression is not linear.
    constant : float
        What is added to them.
    function : callable
        Computes the expression of a tensor of rows (n, n_columns).
    """

    columns: frozenset
    linear: dict | None
    constant: float
    function: object


@dataclass
class Comparison:
    """One ``expression <= 0``, ``< 0`` or ``== 0``, or a test for one category.

    Attributes
    ----------
    operator : {"<=", "<", "==", "is", "is not"}
        The last two compare column `column` with category `code`.
    """

    operator: str
    expression: Expression | None = None
    column: int | None = None
    code: int | None = None

    @property
    def columns(self):
        """Positions of the columns in use."""
        return (
            frozenset([self.column])
            if self.expression is None
            else self.expression.columns
        )

    def holds(self, x, tolerance):
        """Whether rows fulfil the comparison; missing values fulfil any."""
        if self.expression is None:
            same = x[:, self.column] == self.code
            return same if self.operator == "is" else ~same
        value = self.expression.function(x)
        slack = tolerance * self.size(x)
        if self.operator == "==":
            return (value.abs() <= slack) | value.isnan()
        if self.operator == "<":
            return (value < 0) | value.isnan()
        return (value <= slack) | value.isnan()

    def size(self, x):
        """Give the size of the terms, against which rounding is measured."""
        if self.expression.linear is None:
            return torch.ones_like(x[:, 0])
        terms = [abs(a) * x[:, j].abs() for j, a in self.expression.linear.items()]
        return torch.stack(terms).amax(0).clamp_min(1.0)

    def excess(self, x):
        """By how much rows break the comparison; 0 where they do not."""
        if self.expression is None:
            return (~self.holds(x, 0.0)).to(x.dtype)
        value = self.expression.function(x)
        value = value.abs() if self.operator == "==" else value.clamp_min(0.0)
        return value.nan_to_num(0.0)


class Reader:
    """Read one formula: a walk over its syntax tree that knows a few kinds of nodes."""

    def __init__(self, text, names, categories):
        self.text, self.names, self.categories = text, list(names), categories
        self.sides = None

    def read(self):
        if not isinstance(self.text, str) or not self.text.strip():
            raise RelationError(f"a relation must be a text; got {self.text!r}.")
        source = self._to_python()
        try:
            tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError) as error:
            offset = getattr(error, "offset", 1)  # 0: the end is missing
            raise self._error("is no formula", offset - 1 if offset else len(source))
        return self._formula(tree, True)

    def _to_python(self):
        """Write `implies`, and names in backticks, as Python can read them.

        A conditional expression binds as `implies` should: last, and from the right.
        """
        self._shifts, parts, end, length = [], [], 0, 0
        self._quoted = {}
        text = self.text.replace("\n", " ")
        for match in _WORDS.finditer(text):
            word = match.group()
            if word[0] in "'\"":
                continue
            if word == "implies":
                new = f"if {_MARK} else"
            else:
                new = f"quoted_{len(self._quoted)}_"
                self._quoted[new] = word[1:-1]
            parts += [text[end : match.start()], new]
            length += match.start() - end
            self._shifts.append((length, length + len(new), match.start(), match.end()))
            length, end = length + len(new), match.end()
        lead = "".join([*parts, text[end:]])
        self._lead = len(lead) - len(lead.lstrip())
        return lead.strip()

    def _error(self, what, offset):
        at = offset + self._lead
        for start, stop, old_start, old_stop in reversed(self._shifts):
            if at >= stop:
                at = at - stop + old_stop
                break
            if at >= start:
                at = old_start
                break
        at = min(max(at, 0), len(self.text))
        return RelationError(
            f"relation {what} at position {at}:\n    {self.text}\n    {' ' * at}^\n"
            "Allowed are columns (`like this` where the name has spaces or dashes, x[3] "
            "in arrays), numbers, + - * / **, comparisons, and, or, not, implies."
        )

    def position(self, name, offset):
        """Return the position of a column."""
        if name not in self.names:
            raise self._error(f"names the unknown column {name!r}", offset)
        return self.names.index(name)

    def _formula(self, node, positive):
        """Return the disjunctive form of a node, or of its negation."""
        if isinstance(node, ast.IfExp) and getattr(node.test, "id", "") == _MARK:
            left = self._formula(node.body, not positive)
            right = self._formula(node.orelse, positive)
            return left + right if positive else self._both([left, right], node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._formula(node.operand, not positive)
        if isinstance(node, ast.BoolOp):
            parts = [self._formula(value, positive) for value in node.values]
            if isinstance(node.op, ast.And) == positive:
                return self._both(parts, node)
            return sum(parts, [])
        if isinstance(node, ast.Compare):
            return self._compare(node, positive)
        raise self._error("needs a comparison", node.col_offset)

    def _both(self, parts, node):
        cases = [[]]
        for part in parts:
            cases = [case + more for case in cases for more in part]
            if len(cases) > _MOST_CASES:
                raise self._error("has too many cases: split it", node.col_offset)
        return cases

    def _compare(self, node, positive):
        operands = [node.left, *node.comparators]
        parts = []
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            if type(op) not in _OPERATORS:
                raise self._error("has an operator that is not allowed", left.col_offset)
            symbol = _OPERATORS[type(op)]
            symbol = symbol if positive else _OPPOSITE[symbol]
            parts.append(self._one_comparison(left, symbol, right))
        return self._both(parts, node) if positive else sum(parts, [])

    def _one_comparison(self, left, symbol, right):
        text = [isinstance(n, ast.Constant) and isinstance(n.value, str)
                for n in (left, right)]  # fmt: skip
        if any(text):
            column, value = (right, left) if text[0] else (left, right)
            return [[self._category(column, symbol, value)]]
        left, right = self._expression(left), self._expression(right)
        self.sides = (left, right)
        less, more = _subtract(left, right), _subtract(right, left)
        if symbol == "!=":
            return [[Comparison("<", less)], [Comparison("<", more)]]
        if symbol in (">", ">="):
            less, symbol = more, "<" + symbol[1:]
        return [[Comparison(symbol, less)]]

    def _category(self, column, symbol, value):
        j = self._column(column)
        if j is None or self.categories[j] is None:
            raise self._error(
                "compares text with what is no column of categories", value.col_offset
            )
        if symbol not in ("==", "!="):
            raise self._error("can compare text by == and != only", value.col_offset)
        if value.value not in self.categories[j]:
            raise self._error(
                f"names {value.value!r}, which is none of the categories "
                f"{self.categories[j]} of {self.names[j]!r}",
                value.col_offset,
            )
        code = self.categories[j].index(value.value)
        return Comparison("is" if symbol == "==" else "is not", column=j, code=code)

    def _column(self, node):
        """Return the position of the column that a node names, or None."""
        if isinstance(node, ast.Name):
            return self.position(self._quoted.get(node.id, node.id), node.col_offset)
        if (
            isinstance(node, ast.Subscript)
            and getattr(node.value, "id", None) == "x"
            and isinstance(node.slice, ast.Constant)
            and type(node.slice.value) is int
        ):
            return self.position(node.slice.value, node.col_offset)
        return None

    def _expression(self, node):
        j = self._column(node)
        if j is not None:
            if any(isinstance(value, str) for value in self.categories[j] or ()):
                raise self._error(
                    f"computes with {self.names[j]!r}, whose values are text",
                    node.col_offset,
                )
            return Expression(frozenset([j]), {j: 1.0}, 0.0, lambda x: x[:, j])
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            value = float(node.value)
            return Expression(
                frozenset(), {}, value, lambda x: x.new_full((len(x),), value)
            )
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            inner = self._expression(node.operand)
            return _times(inner, -1.0) if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._arithmetic(node)
        raise self._error("has something that is not allowed", node.col_offset)

    def _arithmetic(self, node):
        left, right = self._expression(node.left), self._expression(node.right)
        known = not left.columns, not right.columns
        compute = _ARITHMETIC[type(node.op)]
        if all(known):
            try:
                value = float(compute(left.constant, right.constant))
            except (ArithmeticError, TypeError):
                raise self._error("cannot be computed", node.col_offset)
            return Expression(
                frozenset(), {}, value, lambda x: x.new_full((len(x),), value)
            )
        if isinstance(node.op, ast.Add):
            return _subtract(left, _times(right, -1.0))
        if isinstance(node.op, ast.Sub):
            return _subtract(left, right)
        if isinstance(node.op, ast.Mult) and any(known):
            factor, other = (left, right) if known[0] else (right, left)
            return _times(other, factor.constant)
        if isinstance(node.op, ast.Div) and known[1] and right.constant:
            return _times(left, 1 / right.constant)
        first, second = left.function, right.function
        return Expression(
            left.columns | right.columns,
            None,
            0.0,
            lambda x: compute(first(x), second(x)),
        )


def _times(expression, factor):
    inner = expression.function
    linear = expression.linear
    return Expression(
        expression.columns,
        None if linear is None else {j: a * factor for j, a in linear.items()},
        expression.constant * factor,
        lambda x: inner(x) * factor,
    )


def _subtract(left, right):
    first, second = left.function, right.function
    linear = None
    if left.linear is not None and right.linear is not None:
        linear = dict(left.linear)
        for j, a in right.linear.items():
            linear[j] = linear.get(j, 0.0) - a
        linear = {j: a for j, a in linear.items() if a}
    return Expression(
        left.columns | right.columns,
        linear,
        left.constant - right.constant,
        lambda x: first(x) - second(x),
    )


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
