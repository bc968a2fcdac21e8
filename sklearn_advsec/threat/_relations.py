"""Relations between features: formulas, read and put into disjunctive form."""

import math
import operator
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ._features import NAMED, did_you_mean

# Nothing is run as code: a formula is cut into these, and read by `_Reader`.
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<item>x\s*\[\s*[0-9]+\s*\])
    | (?P<number>(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<quoted>`(?:[^`]|``)*`)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>\*\*|<=|>=|==|!=|[-+*/<>()\[\],])
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARISONS = ("<=", "<", ">=", ">", "==", "!=")
_OPPOSITE = {"<=": ">", ">": "<=", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}
_OPPOSITE |= {"in": "not in", "not in": "in"}
_MIRRORED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<", "==": "==", "!=": "!="}
_ORDERS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
_ESCAPED = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_FUNCTIONS = ("abs", "min", "max", "log")
_KEYWORDS = ("and", "or", "not", "in", "implies", "True", "False")
# Behind these, "" being the end, a term is over.
_ENDS_OF_TERMS = frozenset(["+", "-", "", *_COMPARISONS])

# What a formula may become in disjunctive form, and how deep its brackets may go.
_MOST_CASES = 64
_DEEPEST = 50

# So many comparisons, or factors of a product, are one relation; sums may be any long.
_MOST_PARTS = 1000


class RelationError(ValueError):
    """A relation that cannot be read; the message shows where."""


# What formulas are made of --------------------------------------------------------------


@dataclass
class Term:
    """A part of an expression that is no multiple of a column.

    Attributes
    ----------
    columns : frozenset of int
        Positions of the columns in use.
    function : callable
        Computes the term of a tensor of rows (n, n_columns).
    largest_of : list of Expression, or None
        The term is the largest of these; which comparisons can do without a function.
    n_cases : float
        How many choices among values that comes to.
    """

    columns: frozenset
    function: object
    largest_of: list | None = None
    n_cases: float = 1.0


class Expression:
    """A constant, multiples of columns, and multiples of other terms, added up.

    Attributes
    ----------
    linear : dict of int to float
        The multiples of columns, by their positions.
    constant : float
    terms : list of (float, Term)
        Empty where the expression is linear.
    """

    def __init__(self, linear=None, constant=0.0, terms=()):
        self.linear = {} if linear is None else linear
        self.constant = constant
        self.terms = list(terms)

    @property
    def is_constant(self):
        """Whether it names no column."""
        return not (self.linear or self.terms)

    @property
    def n_cases(self):
        """How many choices among values it comes to; infinite for long sums of them."""
        return math.prod((term.n_cases for _, term in self.terms), start=1.0)

    @cached_property
    def columns(self):
        """Positions of the columns in use."""
        return frozenset(self.linear).union(*(term.columns for _, term in self.terms))

    @cached_property
    def _weights(self):
        factors = torch.tensor(list(self.linear.values()), dtype=torch.float64)
        return torch.tensor(list(self.linear), dtype=torch.int64), factors

    def value(self, x):
        """Compute the expression of each row."""
        total = torch.zeros_like(x[:, 0])
        if self.linear:
            at, factors = self._weights
            total = (x[:, at] * factors.to(x)).sum(1)
        for factor, term in self.terms:
            total = total + factor * term.function(x)
        return total + self.constant

    def size(self, x):
        """Give the size of the terms, against which rounding is measured."""
        if self.terms or not self.linear:
            return torch.ones_like(x[:, 0])
        at, factors = self._weights
        return (x[:, at] * factors.to(x)).abs().amax(1).clamp_min(1.0)

    def plus(self, other, factor=1.0):
        """Return this expression with a multiple of another added."""
        linear = dict(self.linear)
        for j, a in other.linear.items():
            linear[j] = linear.get(j, 0.0) + factor * a
        return Expression(
            {j: a for j, a in linear.items() if a},
            self.constant + factor * other.constant,
            [*self.terms, *((factor * a, term) for a, term in other.terms)],
        )

    def times(self, factor):
        """Return a multiple."""
        return Expression(
            {j: factor * a for j, a in self.linear.items() if factor * a},
            factor * self.constant,
            [(factor * a, term) for a, term in self.terms],
        )

    @property
    def is_finite(self):
        """Whether all of its numbers are."""
        return (
            math.isfinite(self.constant)
            and all(map(math.isfinite, self.linear.values()))
            and all(math.isfinite(a) for a, _ in self.terms)
        )


@dataclass
class Comparison:
    """One ``expression <= 0``, ``< 0`` or ``== 0``, or a test for some categories.

    Attributes
    ----------
    operator : {"<=", "<", "==", "in"}
        The last asks whether the category of column `column` is among `codes`; -1 is a
        category that is not known.
    n_codes : int
        Number of the column's categories; what is behind them is not known, either.
    sides : tuple of Expression, or None
        What was written on both sides of an equality.
    """

    operator: str
    expression: Expression | None = None
    column: int | None = None
    codes: frozenset | None = None
    n_codes: int = 0
    sides: tuple | None = None

    @property
    def columns(self):
        """Positions of the columns in use."""
        if self.expression is None:
            return frozenset([self.column])
        return self.expression.columns

    @property
    def linear(self):
        """The multiples of columns, where the comparison is nothing else; or None."""
        if self.expression is None or self.expression.terms:
            return None
        return self.expression.linear

    @cached_property
    def _is_in(self):
        """Whether each code is among the codes; the first and last are unknown ones."""
        places = [code in self.codes for code in range(-1, self.n_codes)]
        return torch.tensor([*places, -1 in self.codes])

    def holds(self, x, tolerance):
        """Whether rows fulfil the comparison.

        Missing values fulfil any. What cannot be computed (0 / 0, the logarithm of a
        negative number) fulfils none.
        """
        if self.expression is None:
            own = x[:, self.column]
            lost, table = own.isnan(), self._is_in
            place = own.nan_to_num(0.0).round().clamp(-1, len(table) - 2) + 1
            return table[place.long()] | lost
        value = self.expression.value(x)
        slack = tolerance * self.expression.size(x) if tolerance else 0.0
        if self.operator == "==":
            good = value.abs() <= slack
        else:
            good = value < 0 if self.operator == "<" else value <= slack
        if self.expression.terms:
            return good | x[:, sorted(self.columns)].isnan().any(1)
        return good | value.isnan()

    def excess(self, x):
        """By how much rows break the comparison; 0 where they do not."""
        if self.expression is None:
            return (~self.holds(x, 0.0)).to(x.dtype)
        value = self.expression.value(x)
        value = value.abs() if self.operator == "==" else value.clamp_min(0.0)
        return value.nan_to_num(0.0)


def slope(comparison, x, scale):
    """Gradient of the comparison's expression, with columns in units of `scale`."""
    if comparison.linear is not None:
        gradient = torch.zeros_like(x[:1])
        for j, factor in comparison.linear.items():
            gradient[:, j] = factor
        return (gradient * scale).expand(x.shape)
    with torch.enable_grad():
        at = x.detach().nan_to_num(0.0).requires_grad_()
        (gradient,) = torch.autograd.grad(comparison.expression.value(at).sum(), at)
    return gradient.nan_to_num(0.0) * scale


# Reading --------------------------------------------------------------------------------


@dataclass
class _Operand:
    """What stands on a side of a comparison: a constant, a column, or an expression."""

    position: int
    constant: object = None
    column: int | None = None
    expression: Expression | None = None


class _Reader:
    """Read one formula by the precedence of Python; `implies` binds last.

    Formulas are nested tuples: ("and", parts), ("or", parts), ("not", part),
    ("compare", operands, symbols) and ("in", operand, constants, symbol).
    """

    def __init__(self, text, features):
        self.text, self.features = text, features
        self.names_columns = False
        self._names = {
            f.name if isinstance(f.name, (str, int)) else str(f.name): j
            for j, f in enumerate(features)
        }
        self._kinds, self._values, self._starts = [], [], []
        self._at = self._depth = self._n_comparisons = 0

    def read(self):
        """Return the formula as a disjunction of conjunctions of comparisons."""
        if not isinstance(self.text, str) or not self.text.strip():
            raise RelationError(f"a relation must be a text; got {self.text!r}.")
        self._cut()
        try:
            formula = self._formula()
            if self._kinds[self._at] != "end":
                raise self._error("is no formula")
            return self._cases(formula, True)
        except RecursionError:  # of a caller that is deep in the stack already
            raise self._error("is nested too deeply") from None

    # Tokens

    def _cut(self):
        text, at, end = self.text, 0, len(self.text.rstrip())
        for match in _TOKEN.finditer(text, 0, end):
            if match.start() != at:
                break
            kind, at = match.lastgroup, match.end()
            self._kinds.append(kind)
            self._values.append(match[kind])
            self._starts.append(match.start(kind))
        if at < end:
            start = end - len(text[at:end].lstrip())
            raise self._error("is no formula", start)
        self._kinds.append("end")
        self._values.append("")
        self._starts.append(end)

    def _takes(self, *words):
        """Step over a sign or word, if it is the next one."""
        found = self._values[self._at]
        if found in words and self._kinds[self._at] in ("sign", "word"):
            self._at += 1
            return found
        return None

    def _expect(self, sign):
        if not self._takes(sign):
            raise self._error(f"lacks a {sign!r}")

    def _error(self, what, position=None):
        at = self._starts[self._at] if position is None else position
        text = re.sub(r"\s", " ", self.text)
        first = max(0, at - 60) if len(text) > 200 else 0
        shown = text[first : first + 200]
        return RelationError(
            f"relation {what} at position {at}:\n    {shown}\n    {' ' * (at - first)}^\n"
            "Allowed are columns (`like this` where the name is no plain word, x[3] in "
            "arrays), numbers, texts, True, False, + - * / **, abs, min, max, log, "
            "comparisons, in [...], and, or, not, implies."
        )

    # Formulas

    def _formula(self):
        parts = [self._either()]
        while self._takes("implies"):
            parts.append(self._either())
        if len(parts) == 1:
            return parts[0]
        premises = [("not", self._logical(part)) for part in parts[:-1]]
        return "or", [*premises, self._logical(parts[-1])]

    def _either(self):
        return self._joined("or", self._all)

    def _all(self):
        return self._joined("and", self._not)

    def _joined(self, word, read):
        parts = [read()]
        while self._takes(word):
            parts.append(read())
        return (word, list(map(self._logical, parts))) if len(parts) > 1 else parts[0]

    def _not(self):
        negated, any_at_all = False, False
        while self._takes("not"):
            negated, any_at_all = not negated, True
        part = self._comparison()
        part = self._logical(part) if any_at_all else part
        return ("not", part) if negated else part

    def _logical(self, part):
        if isinstance(part, _Operand):
            raise self._error("needs a comparison", part.position)
        return part

    def _comparison(self):
        first = self._sum()
        operands, symbols = [first], []
        while True:
            if symbol := self._takes(*_COMPARISONS):
                self._n_comparisons += 1
                if self._n_comparisons > _MOST_PARTS:
                    raise self._error("has too many comparisons: split it")
                operands.append(self._sum())
                symbols.append(symbol)
                continue
            start = self._at
            symbol = "not in" if self._takes("not") else "in"
            if not self._takes("in"):
                self._at = start
                break
            if symbols:
                raise self._error("has 'in' behind a comparison: write 'and'")
            return "in", self._value(first), self._list(), symbol
        if not symbols:
            return first
        return "compare", list(map(self._value, operands)), symbols

    def _value(self, operand):
        if not isinstance(operand, _Operand):
            raise self._error("compares what is a comparison itself")
        return operand

    def _list(self):
        end = {"[": "]", "(": ")"}.get(self._takes("[", "("))
        if end is None:
            raise self._error("lacks a list, such as ['a', 'b']")
        constants = []
        while True:
            constants.append(self._value(self._sum()))
            if not self._is_constant(constants[-1]):
                raise self._error(
                    "has a list of what is no constant", constants[-1].position
                )
            if len(constants) > _MOST_PARTS:
                raise self._error("has too long a list")
            if not self._takes(","):
                self._expect(end)
                return constants

    # Expressions

    def _sum(self):
        first = self._product()
        if self._values[self._at] not in ("+", "-") or self._kinds[self._at] != "sign":
            return first
        total, terms = self._as_expression(first).times(1.0), []
        constant, linear = total.constant, total.linear
        while sign := self._takes("+", "-"):
            factor = 1.0 if sign == "+" else -1.0
            if multiple := self._multiple():
                a, j = multiple
                linear[j] = linear.get(j, 0.0) + factor * a
                continue
            part = self._as_expression(self._product())
            constant += factor * part.constant
            for j, a in part.linear.items():
                linear[j] = linear.get(j, 0.0) + factor * a
            terms += [(factor * a, term) for a, term in part.terms]
        linear = {j: a for j, a in linear.items() if a}
        total = Expression(linear, constant, [*total.terms, *terms])
        return self._computed(total, first.position)

    def _multiple(self):
        """Step over a multiple of a column, if the next term is no more than that.

        Long sums mostly consist of such terms, and are read several times faster so.
        """
        at, factor = self._at, 1.0
        kinds, values = self._kinds, self._values
        while values[at] in ("+", "-"):
            factor, at = (-factor if values[at] == "-" else factor), at + 1
        if kinds[at] == "number" and values[at + 1] == "*":
            factor, at = factor * _number(values[at]), at + 2
        kind, name = kinds[at], values[at]
        if kind == "item":
            name = _place(name)
        elif kind != "word" or name in _KEYWORDS:
            return None
        j, at = self._names.get(name), at + 1
        if j is None or self._categories(j) is not None:
            return None
        while values[at] in ("*", "/") and kinds[at + 1] == "number":
            number = _number(values[at + 1])
            if values[at] == "/":
                number = 1 / number if number else math.nan
            factor, at = factor * number, at + 2
        if values[at] not in _ENDS_OF_TERMS or not math.isfinite(factor):
            return None
        self._at, self.names_columns = at, True
        return factor, j

    def _product(self):
        first = self._signed()
        if self._values[self._at] not in ("*", "/") or self._kinds[self._at] != "sign":
            return first
        factor, parts = 1.0, []
        sign, part = "*", first
        while sign:
            expression = self._as_expression(part)
            if not expression.is_constant:
                parts.append((sign, expression))
            elif sign == "*":
                factor *= expression.constant
            elif expression.constant:
                factor /= expression.constant
            else:
                raise self._error("divides by 0", part.position)
            sign = self._takes("*", "/")
            part = self._signed() if sign else None
        if len(parts) > _MOST_PARTS:
            raise self._error("has too many factors", first.position)
        if not math.isfinite(factor):
            raise self._error("cannot be computed", first.position)
        if not parts:
            product = Expression(constant=factor)
        elif len(parts) == 1 and parts[0][0] == "*":
            product = parts[0][1].times(factor)
        else:
            product = Expression(terms=[(factor, _product_term(parts))])
        return _Operand(first.position, expression=product)

    def _signed(self):
        start, sign, signs = self._starts[self._at], 1.0, 0
        while found := self._takes("+", "-"):
            sign, signs = (-sign if found == "-" else sign), signs + 1
        operand = self._power()
        if not signs:
            return operand
        return _Operand(start, expression=self._as_expression(operand).times(sign))

    def _power(self):
        operands = [self._atom()]
        while self._takes("**"):
            sign = 1.0
            while found := self._takes("+", "-"):
                sign = -sign if found == "-" else sign
            exponent = self._atom()
            if sign < 0:  # (a ** -b ** c is a ** -(b ** c): rare enough to ask for)
                if self._values[self._at] == "**":
                    raise self._error("needs brackets around the exponent")
                expression = self._as_expression(exponent).times(-1.0)
                exponent = _Operand(exponent.position, expression=expression)
            operands.append(exponent)
        if len(operands) > _DEEPEST:
            raise self._error("is nested too deeply")
        result = operands.pop()
        while operands:
            base = operands.pop()
            result = self._raised(base, result)
        return result

    def _raised(self, base, exponent):
        left, right = self._as_expression(base), self._as_expression(exponent)
        if not (left.is_constant and right.is_constant):
            if not right.is_constant or right.constant not in (0, 1):
                power = Expression(terms=[(1.0, _power_term(left, right))])
            else:
                power = left if right.constant else Expression(constant=1.0)
            return _Operand(base.position, expression=power)
        try:
            value = float(left.constant**right.constant)
        except (ArithmeticError, TypeError):  # too large; complex
            raise self._error("cannot be computed", base.position) from None
        return self._computed(Expression(constant=value), base.position)

    def _computed(self, expression, position):
        if not expression.is_finite:
            raise self._error("cannot be computed", position)
        return _Operand(position, expression=expression)

    def _atom(self):
        kind, word = self._kinds[self._at], self._values[self._at]
        start = self._starts[self._at]
        self._at += kind != "end"
        if kind == "number":
            return self._computed(Expression(constant=_number(word)), start)
        if kind == "text":
            constant = re.sub(
                r"\\(.)", lambda m: _ESCAPED.get(m[1], m[0]), word[1:-1], flags=re.DOTALL
            )
            return _Operand(start, constant=constant)
        if word in ("True", "False"):
            return _Operand(start, constant=word == "True")
        if kind == "item":
            return _Operand(start, column=self.position(_place(word), start))
        if kind == "quoted":
            name = word[1:-1].replace("``", "`")
            return _Operand(start, column=self.position(name, start))
        if kind == "word" and self._values[self._at] == "(":
            return self._call(word, start)
        if kind == "word" and word not in _KEYWORDS:
            return _Operand(start, column=self.position(word, start))
        if word == "(" and kind == "sign":
            inner = self._inside(self._formula)
            self._expect(")")
            if isinstance(inner, _Operand):
                inner.position = start
            return inner
        self._at -= kind != "end"
        raise self._error("is no formula" if kind == "end" else "has no value", start)

    def _inside(self, read):
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("is nested too deeply")
        found = read()
        self._depth -= 1
        return found

    def _call(self, name, start):
        if name not in _FUNCTIONS:
            hint = did_you_mean(name, _FUNCTIONS)
            raise self._error(f"names the unknown function {name!r}{hint}", start)
        self._expect("(")
        parts = [self._as_expression(self._inside(self._sum))]
        while self._takes(","):
            parts.append(self._as_expression(self._inside(self._sum)))
        self._expect(")")
        if (len(parts) > 1) != (name in ("min", "max")):
            count = "one value" if name in ("abs", "log") else "two values or more"
            raise self._error(f"calls {name}(), which takes {count}", start)
        if all(part.is_constant for part in parts):
            values = [part.constant for part in parts]
            try:
                known = {"abs": abs, "log": math.log}.get(name, None)
                value = (
                    known(*values) if known else {"min": min, "max": max}[name](values)
                )
            except ValueError:
                raise self._error("cannot be computed", start) from None
            return self._computed(Expression(constant=float(value)), start)
        if name == "log":
            (inner,), columns = parts, parts[0].columns
            term = Term(columns, lambda x: torch.log(inner.value(x)))
            return _Operand(start, expression=Expression(terms=[(1.0, term)]))
        if name == "abs":
            parts = [parts[0], parts[0].times(-1.0)]
        sign = (
            -1.0 if name == "min" else 1.0
        )  # the smallest is minus the largest of minus
        term = _largest_term([part.times(sign) for part in parts])
        if name == "abs":  # nested, both sides would each compute both of theirs
            inner = parts[0]
            term.function = lambda x: inner.value(x).abs()
        return _Operand(start, expression=Expression(terms=[(sign, term)]))

    def position(self, name, offset):
        """Return the position of a column."""
        if name not in self._names or isinstance(name, bool):
            hint = did_you_mean(name, self._names)
            raise self._error(f"names the unknown column {name!r}{hint}", offset)
        self.names_columns = True
        return self._names[name]

    def _categories(self, j):
        feature = self.features[j]
        return feature.categories if feature.kind in NAMED else None

    def _as_expression(self, operand):
        """Return what can be computed with."""
        operand = self._value(operand)
        if operand.expression is not None:
            return operand.expression
        if operand.column is None:
            if isinstance(operand.constant, bool):
                return Expression(constant=float(operand.constant))
            raise self._error("computes with a text", operand.position)
        j = operand.column
        categories = self._categories(j)
        if categories is None or categories == list(range(len(categories))):
            return Expression({j: 1.0})
        if not all(isinstance(value, (bool, int, float)) for value in categories):
            name = self.features[j].name
            raise self._error(
                f"computes with {name!r}, whose values are no numbers", operand.position
            )
        return Expression(terms=[(1.0, _lookup_term(j, categories))])

    # The disjunctive form

    def _cases(self, formula, positive):
        """Return the cases of a formula, or of its negation."""
        what = formula[0] if isinstance(formula, tuple) else None
        if what == "not":
            return self._cases(formula[1], not positive)
        if what in ("and", "or"):
            parts = [self._cases(part, positive) for part in formula[1]]
            return self._both(parts) if (what == "and") == positive else _any_of(parts)
        if what == "in":
            _, operand, constants, symbol = formula
            symbol = symbol if positive else _OPPOSITE[symbol]
            return self._among(operand, constants, symbol)
        if what is None:
            raise self._error("needs a comparison", formula.position)
        _, operands, symbols = formula
        pairs = zip(operands, symbols, operands[1:], strict=False)
        parts = [
            self._compare(left, symbol if positive else _OPPOSITE[symbol], right)
            for left, symbol, right in pairs
        ]
        return self._both(parts) if positive else _any_of(parts)

    def _both(self, parts):
        """Return the cases of a conjunction."""
        single = [part[0] for part in parts if len(part) == 1]
        cases = [[comparison for case in single for comparison in case]]
        for part in parts:
            if len(part) == 1:
                continue
            cases = [case + more for case in cases for more in part]
            if len(cases) > _MOST_CASES:
                raise self._error("has too many cases: split it", 0)
        return cases

    def _compare(self, left, symbol, right):
        for column, constant, mirrored in ((left, right, False), (right, left, True)):
            known = column.column is not None and self._categories(column.column)
            if known and self._is_constant(constant):
                symbol = _MIRRORED[symbol] if mirrored else symbol
                return self._compare_category(column, symbol, constant)
        for side in (left, right):
            if isinstance(side.constant, str):
                raise self._error(
                    "compares text with what is no column of categories", side.position
                )
        left, right = self._as_expression(left), self._as_expression(right)
        return self._compare_numbers(left, symbol, right)

    def _compare_numbers(self, left, symbol, right):
        less, more = left.plus(right, -1.0), right.plus(left, -1.0)
        if symbol == "!=":
            return _any_of([self._below(less, "<"), self._below(more, "<")])
        if symbol in (">", ">="):
            return self._below(more, "<" + symbol[1:])
        cases = self._below(less, symbol)
        for case in cases if symbol == "==" else ():
            for comparison in case:
                comparison.sides = (left, right)
        return cases

    def _below(self, expression, symbol):
        """Return the cases of ``expression <= 0``, without the choices among values.

        The largest of some is below where all are, minus the largest where any is. Where
        that makes too many, the comparison is left as it is, and has a function.
        """
        if expression.is_constant:
            value = expression.constant
            true = {"==": value == 0, "<": value < 0, "<=": value <= 0}[symbol]
            return [[]] if true else []
        choices = [t for t in expression.terms if t[1].largest_of is not None]
        many = expression.n_cases > _MOST_CASES
        if symbol == "==" or not choices or many:
            return [[Comparison(symbol, expression)]]
        factor, term = choices[0]
        rest = [t for t in expression.terms if t is not choices[0]]
        rest = Expression(expression.linear, expression.constant, rest)
        parts = [
            self._below(rest.plus(choice, factor), symbol) for choice in term.largest_of
        ]
        return self._both(parts) if factor > 0 else _any_of(parts)

    def _is_constant(self, operand):
        return operand.constant is not None or (
            operand.expression is not None and operand.expression.is_constant
        )

    def _constant(self, operand):
        if operand.constant is not None:
            return operand.constant
        return operand.expression.constant

    def _compare_category(self, column, symbol, constant):
        if symbol in ("==", "!="):
            symbol = "in" if symbol == "==" else "not in"
            return self._among(column, [constant], symbol)
        categories = self._categories(column.column)
        feature, value = self.features[column.column], self._constant(constant)
        numbers = all(isinstance(known, (bool, int, float)) for known in categories)
        if numbers and not isinstance(value, str):
            place, places = value, categories
        elif feature.kind == "ordinal":
            place, places = self._code(column, constant), range(len(categories))
        else:
            raise self._error(
                f"orders the categories of {feature.name!r}, which have no order: "
                "compare by == and !=, or set kind='ordinal'",
                constant.position,
            )
        codes = [i for i, at in enumerate(places) if _ORDERS[symbol](at, place)]
        # Where an unknown category stands is not known: it fulfils any order.
        return self._is_among(column, [*codes, -1])

    def _among(self, operand, constants, symbol):
        """Return the cases of ``in`` and ``not in``."""
        if operand.column is not None and self._categories(operand.column):
            codes = [self._code(operand, constant) for constant in constants]
            if symbol == "not in":
                every = range(-1, len(self._categories(operand.column)))
                codes = set(every).difference(codes)
            return self._is_among(operand, codes)
        for constant in constants:
            if isinstance(constant.constant, str):
                raise self._error(
                    "compares text with what is no column of categories",
                    constant.position,
                )
        inner = self._as_expression(operand)
        values = sorted({float(self._constant(constant)) for constant in constants})
        values = [Expression(constant=value) for value in values]
        if symbol == "in":
            parts = [self._compare_numbers(inner, "==", value) for value in values]
        else:  # below the first, between two of them, or above the last
            below = [self._compare_numbers(inner, "<", value) for value in values]
            above = [self._compare_numbers(value, "<", inner) for value in values]
            between = map(self._both, zip(above[:-1], below[1:], strict=True))
            parts = [below[0], *between, above[-1]]
        if len(parts) > _MOST_CASES:
            raise self._error("has too many cases: split it", operand.position)
        return _any_of(parts)

    def _is_among(self, column, codes):
        codes, n_codes = frozenset(codes), len(self._categories(column.column))
        if not codes - {-1}:
            return []
        if len(codes) > n_codes:
            return [[]]
        return [[Comparison("in", None, column.column, codes, n_codes)]]

    def _code(self, column, constant):
        feature, value = self.features[column.column], self._constant(constant)
        for i, known in enumerate(feature.categories):
            if known == value and isinstance(known, str) == isinstance(value, str):
                return i
        hint = did_you_mean(value, feature.categories)
        raise self._error(
            f"names {value!r}, which is none of the categories {feature.categories} of "
            f"{feature.name!r}{hint}",
            constant.position,
        )


def _number(word):
    try:
        return float(word)
    except ValueError:  # such as 1__0
        return math.nan


def _place(item):
    """Return the number in ``x[3]``, or its digits where no row has so many columns."""
    digits = item[item.index("[") + 1 : -1].strip()
    return int(digits) if len(digits) < 10 else digits


def _any_of(parts):
    """Return the cases of a disjunction; one that always holds is enough."""
    cases = [case for part in parts for case in part]
    return [[]] if [] in cases else cases


def _product_term(parts):
    columns = frozenset().union(*(part.columns for _, part in parts))

    def function(x):
        product = None
        for sign, part in parts:
            value = part.value(x)
            if product is None:
                product = value if sign == "*" else 1 / value
            else:
                product = product * value if sign == "*" else product / value
        return product

    return Term(columns, function)


def _power_term(base, exponent):
    if not exponent.is_constant:
        function = lambda x: base.value(x) ** exponent.value(x)  # noqa: E731
    else:
        function = lambda x: base.value(x) ** exponent.constant  # noqa: E731
    return Term(base.columns | exponent.columns, function)


def _largest_term(parts):
    columns = frozenset().union(*(part.columns for part in parts))

    def function(x):
        return torch.stack([part.value(x) for part in parts]).amax(0)

    return Term(columns, function, parts, sum(part.n_cases for part in parts))


def _lookup_term(j, categories):
    values = torch.tensor([*categories, math.nan], dtype=torch.float64)

    def function(x):
        code = x[:, j].round()
        known = (code >= 0) & (code < len(categories))
        return values.to(x)[torch.where(known, code, len(categories)).long()]

    return Term(frozenset([j]), function)


# Relations ------------------------------------------------------------------------------


class Relation:
    """A formula over the columns, as a disjunction of conjunctions of comparisons.

    Parameters
    ----------
    text : str
        The formula.
    features : list of Feature
        The columns; those of plain arrays have integers as names, written ``x[3]``.
    repair : str or int, optional
        The column that is recomputed from the others.

    Attributes
    ----------
    cases : list of list of Comparison
        The relation holds where all comparisons of one of these hold; an empty one
        always holds.
    columns : frozenset of int
        Positions of the columns in use.
    dependent : int or None
        Position of the column to recompute, and `value`, which does it.
    """

    def __init__(self, text, features, repair=None):
        self.text = text
        self.repair = repair
        reader = _Reader(text, features)
        self.cases = reader.read()
        if not reader.names_columns:
            raise RelationError(f"relation {text!r} names no column.")
        if not self.cases:
            raise RelationError(
                f"relation {text!r} is infeasible: whatever the row, it does not hold."
            )
        self.columns = frozenset(
            c for case in self.cases for t in case for c in t.columns
        )
        self.dependent = self.value = None
        if self._only is not None:
            self._find_dependent(reader, repair)
        if repair is not None and self.dependent is None:
            raise RelationError(
                f"repair={repair!r} needs a relation that says what it equals, such as "
                f"'{repair} == a + b'; got {text!r}."
            )

    @property
    def _only(self):
        """The one comparison that this is, or None."""
        single = len(self.cases) == 1 and len(self.cases[0]) == 1
        return self.cases[0][0] if single else None

    def _find_dependent(self, reader, repair):
        """Find a column that stands alone in an equality, or the one that is asked."""
        comparison = self._only
        if comparison.operator != "==":
            return
        wanted = None if repair is None else reader.position(repair, 0)
        for own, other in (comparison.sides, comparison.sides[::-1]):
            alone = not own.terms and list(own.linear.values()) == [1.0]
            j = next(iter(own.columns), None)
            if not alone or own.constant or j in other.columns:
                continue
            if wanted in (None, j):
                self.dependent, self.value = j, other.value
                return
        if wanted is not None and comparison.linear and wanted in comparison.linear:
            expression, factor = comparison.expression, comparison.linear[wanted]
            self.dependent = wanted
            self.value = lambda x: x[:, wanted] - expression.value(x) / factor

    @property
    def linear(self):
        """The one linear comparison that this is, or None."""
        comparison = self._only
        return comparison if comparison is not None and comparison.linear else None

    def holds(self, x, tolerance=1e-6):
        """Whether each row fulfils the relation."""
        found = torch.zeros(len(x), dtype=torch.bool)
        for case in self.cases:
            every = torch.ones(len(x), dtype=torch.bool)
            for comparison in case:
                every &= comparison.holds(x, tolerance)
            found |= every
        return found

    def excess(self, x, scale):
        """Distance to the relation, to first order and in units of `scale`; 0 inside.

        Differentiable. Of a conjunction the distances add up, of a disjunction the
        smallest counts (Simonetto et al. 2022, arXiv:2112.01156, Table 1).
        """
        cases = []
        for case in self.cases:
            total = torch.zeros_like(x[:, 0])
            for comparison in case:
                total = total + _distance(comparison, x, scale)
            cases.append(total)
        return torch.stack(cases).amin(0)


def _distance(comparison, x, scale):
    value = comparison.excess(x)
    if comparison.expression is None:
        return value
    return value / slope(comparison, x, scale).norm(dim=1).clamp_min(1e-12)


def check_feasible(relations, lower, upper):
    """Raise where bounds and relations, as far as they are linear, leave no point.

    Relations of one case are taken together; of those with more, one case has to be
    possible beside them.
    """
    together = [c for r in relations if len(r.cases) == 1 for c in r.cases[0]]
    if any(c.linear for c in together):
        culprit = [r for r in relations if len(r.cases) == 1][-1]
        _check_program([together], lower, upper, culprit)
    for relation in relations:
        if len(relation.cases) > 1:
            cases = [[*together, *case] for case in relation.cases]
            _check_program(cases, lower, upper, relation)


def _check_program(cases, lower, upper, relation):
    if all(_is_infeasible(case, lower, upper) for case in cases):
        raise ValueError(
            f"relation {relation.text!r} is infeasible together with the bounds and "
            "the other relations: no row can fulfil all of them."
        )


def _is_infeasible(comparisons, lower, upper):
    """Whether a linear program finds no point."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    linear = [c for c in comparisons if c.linear]
    if not linear:
        return False
    program = {}
    for operators, name in ((("<=", "<"), "ub"), (("==",), "eq")):
        rows = [c for c in linear if c.operator in operators]
        if not rows:
            continue
        # Positions of 32 bits, as HiGHS reads them: older scipy does not convert.
        at = np.array([i for i, c in enumerate(rows) for _ in c.linear], dtype=np.int32)
        columns = np.array([j for c in rows for j in c.linear], dtype=np.int32)
        factors = [a for c in rows for a in c.linear.values()]
        shape = len(rows), len(lower)
        program[f"A_{name}"] = csr_array((factors, (at, columns)), shape=shape)
        program[f"b_{name}"] = np.array([-c.expression.constant for c in rows])
    bounds = np.column_stack([lower, upper])
    return linprog(np.zeros(len(lower)), **program, bounds=bounds).status == 2
