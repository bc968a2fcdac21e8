"""Formulas over columns, read from text through a whitelist of syntax."""

import ast
import operator
import re
from dataclasses import dataclass

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
