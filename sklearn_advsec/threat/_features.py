"""Kinds of features, and what data tells of each column."""

import math
from dataclasses import dataclass, fields
from itertools import groupby

import numpy as np

from .._rows import is_dataframe

KINDS = ("continuous", "integer", "binary", "ordinal", "categorical")
SCALES = ("range", "iqr", "std")

# Kinds whose values are categories, so that no arithmetic is done with them.
NAMED = ("ordinal", "categorical")


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

    def check(self):
        """Raise where the values do not fit each other."""
        name = f"feature {self.name!r}"
        if self.kind not in KINDS:
            raise ValueError(f"{name}: kind must be one of {KINDS}; got {self.kind!r}.")
        if self.direction not in (None, "up", "down"):
            raise ValueError(
                f"{name}: direction must be 'up', 'down' or None; got {self.direction!r}."
            )
        if self.kind in NAMED and not self.categories:
            raise ValueError(f"{name}: kind={self.kind!r} needs categories=[...].")
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
        if self.step is not None and not self.step > 0:
            raise ValueError(f"{name}: step must be positive or None; got {self.step}.")
        self._check_transitions(name)

    def _check_transitions(self, name):
        if self.transitions is None:
            return
        if self.kind not in NAMED:
            raise ValueError(f"{name}: transitions need a feature of categories.")
        if not isinstance(self.transitions, dict):
            raise ValueError(f"{name}: transitions must be a dict {{from: [to, ...]}}.")
        targets = [to for values in self.transitions.values() for to in values]
        unknown = [v for v in [*self.transitions, *targets] if v not in self.categories]
        if unknown:
            raise ValueError(
                f"{name}: transitions name {unknown[0]!r}, which is none of its "
                f"categories {self.categories}."
            )

    def as_dict(self):
        """Return what differs from the defaults."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        defaults = {f.name: f.default for f in fields(self)}
        return {k: v for k, v in values.items() if k == "name" or v != defaults[k]}


def infer_features(X, scale):
    """Return a :class:`Feature` per column of a DataFrame or of a plain array."""
    if is_dataframe(X):
        if not X.columns.is_unique:
            raise ValueError("the columns of X need names that differ.")
        columns = [(name, X.iloc[:, j]) for j, name in enumerate(X.columns)]
        features = [_of_series(name, column, scale) for name, column in columns]
    else:
        features = [_of_numbers(j, X[:, j], scale) for j in range(X.shape[1])]
    _find_groups(features, X)
    return features


def _of_series(name, column, scale):
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    dtype, missing = column.dtype, bool(column.isna().any())
    if is_bool_dtype(dtype):
        return Feature(
            name, "ordinal", 0.0, 1.0, categories=[False, True], missing=missing
        )
    if is_numeric_dtype(dtype):
        return _of_numbers(name, column.to_numpy(np.float64, na_value=np.nan), scale)
    if hasattr(dtype, "categories"):
        values = list(dtype.categories)
        kind = "ordinal" if dtype.ordered else "categorical"
    else:
        values, kind = list(column.dropna().unique()), "categorical"
        values.sort(key=lambda value: (type(value).__name__, value))
    if not values:
        raise ValueError(f"column {name!r} holds no values: drop it, or fill it.")
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    feature = Feature(name, kind, categories=values, missing=missing)
    if kind == "ordinal":
        feature.lower, feature.upper = 0.0, float(len(values) - 1)
        feature.scale = max(feature.upper, 1.0)
    return feature


def _of_numbers(name, values, scale):
    values = np.asarray(values, dtype=np.float64)
    present = values[~np.isnan(values)]
    if not len(present):
        raise ValueError(f"column {name!r} holds no values: drop it, or fill it.")
    if not np.isfinite(present).all():
        raise ValueError(f"column {name!r} holds infinite values.")
    distinct = np.unique(present)
    feature = Feature(name, missing=len(present) < len(values))
    feature.lower, feature.upper = float(distinct[0]), float(distinct[-1])
    feature.step = _step(distinct)
    if len(distinct) == 2 and (distinct == [0, 1]).all():
        feature.kind = "binary"
    elif (distinct == np.rint(distinct)).all():
        feature.kind, feature.step = "integer", feature.step or 1.0
    feature.scale = spread(present, scale) or 1.0
    return feature


def _step(distinct):
    """Return the smallest gap between values, if all gaps are multiples of it."""
    gaps = np.diff(distinct)
    if not len(gaps):
        return None
    step = float(gaps.min())
    multiples = gaps / step
    # Numbers measured freely are no lattice: theirs would have as many places as values.
    dense = (distinct[-1] - distinct[0]) / step <= 1e6
    regular = dense and np.abs(multiples - np.rint(multiples)).max() <= 1e-6
    return float(f"{step:.12g}") if regular and len(distinct) > 2 else _unit(distinct)


def _unit(distinct):
    whole = (distinct == np.rint(distinct)).all()
    return 1.0 if whole else None


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
        return float(values.std())
    quartiles = np.percentile(values, [75, 25]) if how == "iqr" else (0.0, 0.0)
    return float(np.subtract(*quartiles)) or float(np.ptp(values))


def _find_groups(features, X):
    """Name the runs of binary columns of which each row has just one at 1.

    In a DataFrame their names have to share what stands before the last underscore, as
    encoders name them; in a plain array they have to be neighbours.
    """
    binary = [f.kind == "binary" and not f.missing for f in features]
    runs = groupby(range(len(features)), lambda j: binary[j] and _stem(features[j].name))
    for stem, run in runs:
        if stem is False:
            continue
        run = list(run)
        values = np.asarray(X.iloc[:, run] if is_dataframe(X) else X[:, run], np.float64)
        start = 0
        while start < len(run):
            total, end = values[:, start].copy(), start + 1
            while end < len(run) and total.max() <= 1 and not total.min() == 1:
                total += values[:, end]
                end += 1
            if end - start > 1 and (total == 1).all():
                name = str(stem) if stem else f"{run[start]}..{run[end - 1]}"
                for j in run[start:end]:
                    features[j].group = name
                start = end
            else:
                start += 1


def _stem(name):
    return name.rpartition("_")[0] if isinstance(name, str) else ""
