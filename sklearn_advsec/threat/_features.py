"""Kinds of features, and what data tells of each column."""

import datetime
import difflib
import math
import re
from collections import namedtuple
from dataclasses import dataclass, fields
from numbers import Real

import numpy as np

from .._rows import is_dataframe

KINDS = ("continuous", "integer", "binary", "ordinal", "categorical")
SCALES = ("range", "iqr", "std")

# Kinds whose values are categories, so that no arithmetic is done with them.
NAMED = ("ordinal", "categorical")


def did_you_mean(name, known):
    """Return a hint at the known name that is nearest to one that is not known."""
    near = difflib.get_close_matches(str(name), list(map(str, known)), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


@dataclass
class Feature:
    """What the attacker may do to one feature; see `FeatureConstraints.set`."""

    name: object
    kind: str = "continuous"
    lower: float = -math.inf
    upper: float = math.inf
    scale: float = 1.0
    step: float | None = None
    cost: float = 1.0
    mutable: bool = True
    direction: str | None = None
    missing: bool = False
    categories: list | None = None
    transitions: dict | None = None
    group: str | None = None
    baseline: bool = False

    def check(self):
        """Bring values to their types, and raise where they do not fit each other."""
        name = f"feature {self.name!r}"
        self._check_types(name)
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise ValueError(
                f"{name}: kind must be one of {KINDS}; got {self.kind!r}"
                f"{did_you_mean(self.kind, KINDS)}."
            )
        way = self.direction
        if way is not None and not (isinstance(way, str) and way in ("up", "down")):
            raise ValueError(
                f"{name}: direction must be 'up', 'down' or None; got {self.direction!r}."
            )
        if self.kind in NAMED and not self.categories:
            raise ValueError(f"{name}: kind={self.kind!r} needs categories=[...].")
        if self.kind not in NAMED and self.categories is not None:
            raise ValueError(
                f"{name}: categories need kind='ordinal' or kind='categorical'; it is "
                f"{self.kind!r}."
            )
        if self.kind == "categorical" and self.direction is not None:
            raise ValueError(
                f"{name}: categories without an order have no direction; use "
                "transitions={from: [to, ...]}, or kind='ordinal'."
            )
        if not self.lower <= self.upper:
            raise ValueError(
                f"{name}: bounds are infeasible, lower={self.lower} > upper={self.upper}."
            )
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"{name}: scale must be positive; got {self.scale}.")
        if not (self.cost >= 0 and math.isfinite(self.cost)):
            raise ValueError(f"{name}: cost must not be negative; got {self.cost}.")
        if self.step is not None and not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"{name}: step must be positive or None; got {self.step}.")
        self._check_group(name)
        self._check_transitions(name)

    def _check_types(self, name):
        self.lower = -math.inf if self.lower is None else self.lower
        self.upper = math.inf if self.upper is None else self.upper
        for key in ("lower", "upper", "scale", "cost", "step"):
            value = getattr(self, key)
            if key == "step" and value is None:
                continue
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
                raise ValueError(f"{name}: {key} must be a number; got {value!r}.")
            try:
                setattr(self, key, float(value))
            except OverflowError:
                raise ValueError(f"{name}: {key} is too large a number.") from None
            if math.isnan(getattr(self, key)):
                raise ValueError(f"{name}: {key} must be a number; got {value!r}.")
        for key in ("mutable", "missing", "baseline"):
            value = getattr(self, key)
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{name}: {key} must be True or False; got {value!r}.")
            setattr(self, key, bool(value))
        if self.group is not None and not isinstance(self.group, str):
            raise ValueError(f"{name}: group must be a text or None; got {self.group!r}.")
        self.check_categories()

    def check_categories(self):
        """Bring categories to a list of plain values, and raise where they are none."""
        name = f"feature {self.name!r}"
        if self.categories is None:
            return
        if isinstance(self.categories, (str, bytes, dict)):
            raise ValueError(
                f"{name}: categories must be a list; got {self.categories!r}."
            )
        try:
            self.categories = [plain(value) for value in self.categories]
            distinct = len(set(self.categories)) == len(self.categories)
            lost = any(v is None or bool(v != v) for v in self.categories)
        except TypeError:  # no list; lists in it; pandas.NA
            raise ValueError(
                f"{name}: categories must be a list of texts, numbers, booleans or "
                f"dates; got {self.categories!r}."
            ) from None
        if not distinct:
            raise ValueError(f"{name}: categories name a value twice.")
        if lost:
            raise ValueError(f"{name}: a missing value is no category; say missing=True.")

    def _check_group(self, name):
        if self.group is None:
            if self.baseline:
                raise ValueError(f"{name}: baseline needs a group.")
            return
        flag = self.kind == "ordinal" and self.categories == [False, True]
        if not (self.kind == "binary" or flag):
            raise ValueError(
                f"{name}: a column of a one-hot group is 'binary' or boolean; it is "
                f"{self.kind!r}."
            )

    def _check_transitions(self, name):
        if self.transitions is None:
            return
        if self.kind not in NAMED:
            raise ValueError(f"{name}: transitions need a feature of categories.")
        lists = (list, tuple, set, frozenset, np.ndarray)
        if not isinstance(self.transitions, dict) or not all(
            isinstance(to, lists) for to in self.transitions.values()
        ):
            raise ValueError(f"{name}: transitions must be a dict {{from: [to, ...]}}.")
        self.transitions = {k: list(to) for k, to in self.transitions.items()}
        targets = [to for values in self.transitions.values() for to in values]
        unknown = [v for v in [*self.transitions, *targets] if v not in self.categories]
        if unknown:
            hint = did_you_mean(unknown[0], self.categories)
            raise ValueError(
                f"{name}: transitions name {unknown[0]!r}, which is none of its "
                f"categories {self.categories}{hint}."
            )

    def as_dict(self):
        """Return what differs from the defaults."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        defaults = {f.name: f.default for f in fields(self)}
        return {k: v for k, v in values.items() if k == "name" or v != defaults[k]}


def plain(value):
    """Return numpy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


# What data tells ------------------------------------------------------------------------

# Something that was guessed of a column and may be wrong; `correction` is the line of
# code that sets it right.
Doubt = namedtuple("Doubt", ["column", "guess", "reason", "correction"])

# Fewer rows say nothing about what is unique, or about how few values there are.
_MIN_ROWS = 20
_NEARLY_UNIQUE = 0.9
_MAX_CODES = 10
_CODE_NAME = re.compile(
    r"(^|[\W_])(ids?|keys?|codes?|zip|zipcode|postcode|plz|phone|ssn|uuid|account_no)"
    r"($|[\W_])",
    re.IGNORECASE,
)

# Numbers measured freely are no lattice: theirs would have as many places as values.
_MAX_PLACES = 1e6
_MAX_DECIMALS = 6

# What stands between the name of a feature and the name of its category.
_SEPARATOR = re.compile(r"__|[_=\s.:/|\-\[(]")


def infer_features(X, scale):
    """Learn features from a DataFrame or a plain array.

    Returns
    -------
    features : list of Feature
        One per column.
    doubts : list of Doubt
        What may be wrong about them.
    """
    doubts = []
    if is_dataframe(X):
        if not X.columns.is_unique:
            raise ValueError("the columns of X need names that differ.")
        columns = [(name, X.iloc[:, j]) for j, name in enumerate(X.columns)]
        features = [_of_series(name, c, scale, doubts) for name, c in columns]
    else:
        kind = X.dtype.kind
        features = [
            _of_numbers(j, X[:, j], X[:, j], scale, doubts, kind in "iu")
            for j in range(X.shape[1])
        ]
    _find_groups(features, X, doubts)
    in_groups = {f.name for f in features if f.group is not None}
    return features, [
        d for d in doubts if d.column not in in_groups or d.guess in _GROUPS
    ]


def _of_series(name, column, scale, doubts):
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    dtype, missing = column.dtype, bool(column.isna().any())
    if is_bool_dtype(dtype):
        return Feature(
            name, "ordinal", 0.0, 1.0, categories=[False, True], missing=missing
        )
    if is_numeric_dtype(dtype):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        whole = str(dtype).lower().startswith(("int", "uint"))
        stored = column.to_numpy() if dtype == np.float32 else numbers
        return _of_numbers(name, numbers, stored, scale, doubts, whole)
    ordered = bool(getattr(dtype, "ordered", False))
    if hasattr(dtype, "categories"):
        values = list(dtype.categories)
    else:
        try:
            values = list(column.dropna().unique())
        except TypeError:
            raise ValueError(
                f"column {name!r} holds values that cannot be categories, such as lists: "
                "drop it."
            ) from None
        values = _sorted(values)
    if not values:
        raise ValueError(f"column {name!r} holds no values: drop it, or fill it.")
    feature = Feature(
        name,
        "ordinal" if ordered else "categorical",
        categories=[plain(value) for value in values],
        missing=missing,
    )
    if ordered:
        feature.lower, feature.upper = 0.0, float(len(values) - 1)
        feature.scale = max(feature.upper, 1.0)
        return feature
    present = column.dropna()
    kept = None
    if all(isinstance(v, _DATES) for v in values):
        kept = "date", "its values are dates: it may not change"
    elif len(present) >= _MIN_ROWS and present.nunique() >= _NEARLY_UNIQUE * len(present):
        kept = "identifier", "nearly every row has a value of its own: it may not change"
    if kept:
        feature.mutable = False
        doubts.append(Doubt(name, *kept, _correction(name, mutable=True)))
    return feature


_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


def _sorted(values):
    try:
        return sorted(values, key=lambda value: (type(value).__name__, value))
    except TypeError:  # values without an order
        return sorted(values, key=str)


def _correction(name, **changes):
    given = ", ".join(f"{key}={value!r}" for key, value in changes.items())
    return f"constraints.set({name!r}, {given})"


def _of_numbers(name, values, stored, scale, doubts, whole_type):
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"column {name!r} holds what is no number: give a DataFrame."
        ) from None
    present = values[~np.isnan(values)]
    if not len(present):
        raise ValueError(f"column {name!r} holds no values: drop it, or fill it.")
    if not np.isfinite(present).all():
        raise ValueError(f"column {name!r} holds infinite values.")
    distinct = np.unique(present)
    feature = Feature(name, missing=len(present) < len(values))
    feature.lower, feature.upper = float(distinct[0]), float(distinct[-1])
    precision = np.finfo(np.float32 if stored.dtype == np.float32 else np.float64).eps
    feature.step = _step(distinct, precision)
    if len(distinct) == 2 and (distinct == [0, 1]).all():
        feature.kind = "binary"
    elif (distinct == np.rint(distinct)).all():
        feature.kind, feature.step = "integer", feature.step or 1.0
    feature.scale = spread(present, scale) or 1.0
    _doubt_numbers(feature, present, distinct, whole_type, doubts)
    return feature


def _doubt_numbers(feature, present, distinct, whole_type, doubts):
    """Say what may be wrong about a column of numbers; freeze what is a key."""
    name, n_rows = feature.name, len(present)

    def doubt(guess, reason, **changes):
        doubts.append(Doubt(name, guess, reason, _correction(name, **changes)))

    if n_rows < _MIN_ROWS or feature.kind == "binary" or len(distinct) == 1:
        return
    if len(distinct) == 2:
        low, high = (_short(v) for v in distinct)
        return doubt(
            "two values",
            f"only {low} and {high} occur: nothing between them is reached",
            step=1.0 if feature.kind == "integer" else None,
        )
    if feature.kind != "integer":
        share = np.mean(np.round(present, 2) == present)
        if feature.step is None and share >= 0.95:
            doubt("continuous", f"{share:.0%} of the values have two decimals", step=0.01)
        return None
    named = isinstance(name, str) and bool(_CODE_NAME.search(name))
    unique = len(distinct) == n_rows
    ascending = unique and bool((np.diff(present) > 0).all())
    dense = distinct[-1] - distinct[0] < 2 * n_rows
    if whole_type and unique and (named or ascending or dense):
        feature.mutable = False
        return doubt(
            "identifier",
            "whole numbers, every row with one of its own: it may not change",
            mutable=True,
        )
    digits = {len(str(int(abs(v)))) for v in distinct}
    if len(distinct) <= _MAX_CODES and n_rows >= 5 * len(distinct):
        categories = [int(v) for v in distinct]
        return doubt(
            "integer",
            f"just {len(distinct)} values, which may be codes or answers on a scale",
            kind="ordinal",
            categories=categories,
        )
    if named or (whole_type and digits == {5} and len(distinct) > 0.2 * n_rows):
        return doubt("integer", "may be codes, such as ids or zip codes", mutable=False)
    return None


def _short(value):
    return int(value) if value == int(value) else float(value)


def _step(distinct, precision):
    """Return the gap between values: the smallest one, or a decimal place, or None."""
    gaps = np.diff(distinct)
    if not len(gaps):
        return None
    step = float(gaps.min())
    multiples = gaps / step
    dense = (distinct[-1] - distinct[0]) / step <= _MAX_PLACES
    if dense and np.abs(multiples - np.rint(multiples)).max() <= 1e-6:
        # Of a step that is rounded itself, many add up to more than the range; and as
        # the difference of large numbers it has lost digits.
        lost = np.log10(max(precision * np.abs(distinct).max() / step, 1e-13))
        return float(f"{step:.{max(1, int(-lost) - 1)}g}")
    slack = precision * np.abs(distinct).max()
    for decimals in range(_MAX_DECIMALS + 1):
        unit = 10.0**-decimals
        # Numbers are so near to a place by chance.
        chance = min(2 * slack / unit, 1.0) ** len(distinct)
        if chance > 1e-6:
            return None
        if np.abs(distinct - np.round(distinct, decimals)).max() <= slack:
            return unit
    return None


def spread(values, how):
    """How far the numbers of a column lie apart; missing ones are left aside.

    Parameters
    ----------
    values : ndarray of float
        The numbers.
    how : {"range", "iqr", "std"}
        The measure. Where at least half of the values are one, so that quartiles do not
        differ, the range takes their place.

    Returns
    -------
    spread : float
        0 for a column of one value, or of none.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0
    if how == "std":
        top = float(np.abs(values).max()) or 1.0  # squares of large numbers overflow
        return top * float((values / top).std())
    quartiles = np.percentile(values, [75, 25]) if how == "iqr" else (0.0, 0.0)
    return float(np.subtract(*quartiles)) or float(np.ptp(values))


# One-hot groups -------------------------------------------------------------------------

_GROUPS = ("one-hot", "one-hot without its first category")

# Columns of which no two are 1 may be so by chance: as many pairs should have occurred.
_MIN_EXPECTED = 5.0


def _find_groups(features, X, doubts):
    """Name the sets of columns of which each row has just one at 1.

    In a DataFrame, the columns of a group share the start of their names, up to a
    separator; columns without such a name, and those of plain arrays, are neighbours.
    """
    candidates = [j for j, f in enumerate(features) if _is_flag(f) and not f.missing]
    if not candidates:
        return
    frame = is_dataframe(X)
    part = X.iloc[:, candidates] if frame else X[:, candidates]
    values = np.asarray(part, dtype=np.float64) == 1
    values = dict(zip(candidates, values.T, strict=True))
    free = dict.fromkeys(candidates)
    if frame:
        shared = _by_start(features, candidates)
        for start in sorted(shared, key=len, reverse=True):
            columns = [j for j in shared[start] if j in free]
            for found in _partitions(columns, values):
                _name_group(start, found, features)
                for j in found:
                    del free[j]
        for start in sorted(shared, key=len):
            columns = [j for j in shared[start] if j in free]
            if len(columns) > 1 and _exclude_each_other(columns, values):
                _name_group(start, columns, features, baseline=True)
                for j in columns:
                    del free[j]
                _doubt_group(
                    columns, features, doubts, _GROUPS[1],
                    "no row has two of these at 1, as if one category was left out "
                    "(drop_first=True)",
                )  # fmt: skip
    runs, last = [], None
    for j in free:
        if last is None or j != last + 1:
            runs.append([])
        runs[-1].append(j)
        last = j
    for run in runs:
        for columns in _partitions(run, values):
            name = f"{features[columns[0]].name}..{features[columns[-1]].name}"
            _name_group(name, columns, features)
            if frame:
                _doubt_group(
                    columns, features, doubts, _GROUPS[0],
                    "each row has just one of these neighbours at 1, but their names do "
                    "not say so",
                )  # fmt: skip


def _is_flag(feature):
    return feature.kind == "binary" or feature.categories == [False, True]


def _by_start(features, candidates):
    """Return the columns that share the start of their names, by that start."""
    shared = {}
    for j in candidates:
        for start in _starts(features[j].name):
            shared.setdefault(start, []).append(j)
    return shared


def _starts(name):
    """Return all that may name the feature which a column is a category of."""
    if isinstance(name, tuple) and len(name) > 1:
        return [str(name[:-1])]
    if not isinstance(name, str):
        return []
    return [name[: m.start()] for m in _SEPARATOR.finditer(name) if m.start()]


def _partitions(columns, values):
    """Yield sets of columns, in their order, of which each row has just one at 1."""
    columns = list(columns)
    first = 0
    while first < len(columns):
        found, total = [columns[first]], values[columns[first]].copy()
        for j in columns[first + 1 :]:
            if total.all():
                break
            if not (total & values[j]).any():
                found.append(j)
                total |= values[j]
        if len(found) > 1 and total.all():
            yield found
            columns = [j for j in columns if j not in found]
        else:
            first += 1


def _exclude_each_other(columns, values):
    """Whether no two columns are 1 together, though chance alone would have had it so."""
    shares = np.array([values[j].mean() for j in columns])
    expected = (shares.sum() ** 2 - (shares**2).sum()) / 2 * len(values[columns[0]])
    total = sum(values[j].astype(int) for j in columns)
    return expected >= _MIN_EXPECTED and total.max() <= 1 and shares.min() > 0


def _name_group(name, columns, features, baseline=False):
    taken = {f.group for f in features}
    while name in taken:
        name += "'"
    for j in columns:
        features[j].group, features[j].baseline = name, baseline


def _doubt_group(columns, features, doubts, guess, reason):
    names = [features[j].name for j in columns]
    correction = _correction(names, group=None, baseline=False)
    doubts.append(Doubt(names[0], guess, reason, correction))
