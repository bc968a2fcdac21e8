"""Constraints on the features of a table: what an attacker may really change."""

import copy
import difflib
import json
import math
import tomllib
from collections import namedtuple
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from sklearn.utils import check_random_state, gen_batches

from .._rows import RowCodec, is_dataframe
from ._features import NAMED, SCALES, Feature, infer_features
from ._region import Region
from ._relations import Relation, check_linear

# So many rows are looked at together.
_BATCH = 8192

Violation = namedtuple("Violation", ["row", "constraint", "reason"])


class FeatureConstraints:
    """What an attacker may do to the features of a row.

    Made from data by :meth:`from_frame`, refined by :meth:`set`, :meth:`relate` and
    :meth:`limit`, and given to attacks as ``constraints=``: all rows that these return
    keep all of it. Columns are called by their names, those of arrays by their position.

    Parameters
    ----------
    features : list of Feature
        One per column; :meth:`from_frame` makes them.

    Attributes
    ----------
    features : dict
        What is known of each column, by its name.
    relations : list of str
        The relations between columns.
    max_cost, max_changed : float and int, or None
        Limits of :meth:`limit`.

    References
    ----------
    .. [1] T. Simonetto et al., "A unified framework for adversarial attack and defense in
       constrained feature space", arXiv:2112.01156 (Section 3: relations as formulas).
    .. [2] V. Ballet et al., "Imperceptible adversarial attacks on tabular data",
       arXiv:1911.03274 (Section 4: what experts look at costs more).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.threat import FeatureConstraints
    >>> X = np.array([[20, 1.5, 0], [61, 0.2, 1], [35, 0.7, 1]])
    >>> constraints = FeatureConstraints.from_frame(X).set(0, direction="up")
    >>> constraints.features[0].kind, constraints.features[2].kind
    ('integer', 'binary')
    >>> constraints.project(X[:1], np.array([[10.3, 0.9, 0.6]]))
    array([[20. ,  0.9,  1. ]])
    """

    def __init__(self, features):
        self.features = {feature.name: feature for feature in features}
        self.max_cost = self.max_changed = None
        self._relations = []
        self._frame = False
        self._region = None
        for feature in features:
            feature.check()

    @classmethod
    def from_frame(cls, X, *, scale="range"):
        """Learn kinds, bounds, scales, steps, categories and one-hot groups from data.

        Nothing is assumed about which features may change, or in which direction.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows such as the victim was trained on.
        scale : {"range", "iqr", "std"}, default="range"
            The unit of each number, in which attacks measure `eps` and distances: its
            range, the distance between its quartiles, or its standard deviation.

        Returns
        -------
        constraints : FeatureConstraints
            Of these kinds: "binary" (0 and 1), "integer", "continuous", "ordinal"
            (booleans, ordered categories) and "categorical". The `step` is the smallest
            gap between observed values, where all gaps are multiples of it.
        """
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}; got {scale!r}.")
        frame = is_dataframe(X)
        X = X if frame else np.asarray(X)
        if X.ndim != 2 or not len(X):
            raise ValueError(f"X must hold rows of features; got shape {X.shape}.")
        constraints = cls(infer_features(X, scale))
        constraints._frame = frame
        return constraints

    # Refining --------------------------------------------------------------------------

    def set(self, column, **changes):
        """Say more about a column.

        Parameters
        ----------
        column : str or int, or list of them
            Which.
        **changes : dict
            Of these:

            - ``mutable`` (bool): whether it may change at all;
            - ``direction`` ("up", "down" or None): which way;
            - ``lower``, ``upper`` (float): its bounds (positions of categories where
              these have an order);
            - ``step`` (float or None): changes are multiples of it;
            - ``cost`` (float): of one `scale`, or of another category;
            - ``scale`` (float): the unit of `eps` and of distances;
            - ``missing`` (bool): whether a value may go missing;
            - ``kind`` and ``categories`` (list): as in `from_frame`;
            - ``transitions`` (dict): ``{from: [to, ...]}``, the categories that one may
              turn into; one that is not named may turn into any;
            - ``group`` (str): columns of one name are one-hot.

        Returns
        -------
        self : FeatureConstraints
        """
        for name in column if isinstance(column, list) else [column]:
            feature = copy.copy(self._feature(name))
            for key, value in changes.items():
                if key == "name" or not hasattr(feature, key):
                    raise ValueError(
                        f"set() knows no {key!r}; it takes mutable, direction, lower, "
                        "upper, step, cost, scale, missing, kind, categories, "
                        "transitions and group."
                    )
                setattr(feature, key, value)
            if feature.kind == "ordinal" and "categories" in changes:
                feature.lower, feature.upper = 0.0, float(len(feature.categories) - 1)
                feature.scale = max(feature.upper, 1.0)
            feature.check()
            self.features[name] = feature
        self._region = None
        return self

    def relate(self, relation, *, repair=None):
        """Add a relation that rows have to keep.

        Parameters
        ----------
        relation : str
            A formula of columns, numbers, ``+ - * / **``, comparisons, ``and``, ``or``,
            ``not`` and ``implies``, such as ``"open_acc <= total_acc"`` or
            ``"a > 0 implies b > 0"``. Names with spaces or dashes stand in backticks;
            the columns of arrays are ``x[0]``, ``x[1]``. A column of categories can be
            compared with a text. It is parsed, never run as code.
        repair : str or int, optional
            The column that follows the others, for an equality such as
            ``"total == x + y"``.

        Returns
        -------
        self : FeatureConstraints

        Raises
        ------
        ValueError
            If the text cannot be read (the position is shown), names an unknown column,
            or contradicts the bounds and the other linear relations.
        """
        new = Relation(relation, list(self.features), self._categories(), repair)
        if repair is not None and not self._feature(repair).mutable:
            raise ValueError(f"repair={repair!r}: this column may not change.")
        compiled = [*self._compiled(), new]
        features = self.features.values()
        check_linear(
            compiled,
            [0.0 if f.kind == "categorical" else f.lower for f in features],
            [np.inf if f.kind == "categorical" else f.upper for f in features],
        )
        self._relations.append((relation, repair))
        self._region = None
        return self

    def limit(self, *, max_cost=None, max_changed=None):
        """Limit what all changes of a row may cost, and how many features change.

        Parameters
        ----------
        max_cost : float, optional
            Sum of the moves, in units of `scale`, each times its feature's `cost`.
        max_changed : int, optional
            Number of features; a one-hot group is one.

        Returns
        -------
        self : FeatureConstraints
        """
        if max_cost is not None and not max_cost >= 0:
            raise ValueError(f"max_cost must not be negative; got {max_cost!r}.")
        if max_changed is not None and (
            max_changed < 0 or max_changed != int(max_changed)
        ):
            raise ValueError(f"max_changed must be a whole number; got {max_changed!r}.")
        self.max_cost, self.max_changed = max_cost, max_changed
        self._region = None
        return self

    def weigh_by_importance(self, X, y, *, strength=1.0):
        """Make features dear that go with the label: those that an expert looks at.

        The cost of a feature becomes the size of its correlation with `y`, so that the
        mean cost is 1 (LowProFool, arXiv:1911.03274, Section 4.2). Categories are
        measured by the correlation ratio.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows.
        y : array-like of shape (n_rows,)
            Their labels, or a number for each.
        strength : float, default=1.0
            Power of the correlation; 0 makes all features equally dear.

        Returns
        -------
        self : FeatureConstraints
        """
        X = self.encode(X).numpy()
        y = np.asarray(y)
        values = y.astype(float) if y.dtype.kind in "fiub" else None
        if values is None or len(np.unique(y)) <= 2:
            values = (y == np.unique(y)[-1]).astype(float)
        weights = []
        for j, feature in enumerate(self.features.values()):
            weights.append(_association(X[:, j], values, feature.kind == "categorical"))
        weights = np.maximum(weights, 1e-3) ** strength
        for feature, weight in zip(self.features.values(), weights, strict=True):
            feature.cost = float(weight / weights.mean())
        self._region = None
        return self

    @property
    def relations(self):
        """The relations, as text."""
        return [text for text, _ in self._relations]

    # Files -----------------------------------------------------------------------------

    def save(self, path):
        """Write a TOML file that :meth:`load` reads.

        Parameters
        ----------
        path : path-like
            The file.
        """
        features = [feature.as_dict() for feature in self.features.values()]
        relations = [
            {"formula": text} | ({} if repair is None else {"repair": repair})
            for text, repair in self._relations
        ]
        limits = {"max_cost": self.max_cost, "max_changed": self.max_changed}
        write(path, features, relations, limits, self._frame)

    @classmethod
    def load(cls, path):
        """Read a file that :meth:`save`, or somebody by hand, has written.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        constraints : FeatureConstraints
        """
        features, relations, limits, frame = read(path)
        constraints = cls([Feature(**values) for values in features])
        constraints._frame = frame
        for relation in relations:
            constraints.relate(relation["formula"], repair=relation.get("repair"))
        return constraints.limit(**limits)

    # Rows -------------------------------------------------------------------------------

    def violations(self, X_ref, X):
        """Say which rows break what.

        Parameters
        ----------
        X_ref : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows before the attack.
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows after it.

        Returns
        -------
        violations : list of Violation
            Tuples of the row's position, the column's name (or the text of the relation)
            and the reason; empty if all rows are valid. ``pandas.DataFrame(violations)``
            is a table.
        """
        ref, x = self._encode_both(X_ref, X)
        names, found = list(self.features), []
        for j, reason, mask in self.region.breaks(ref, x, _tolerance(X)):
            what = reason if j is None else names[j]
            reason = "is broken" if j is None else reason
            for row in mask.nonzero().flatten().tolist():
                found.append(Violation(row, what, reason))
        return sorted(found, key=lambda v: v.row)

    def project(self, X_ref, X):
        """Give the nearest valid row, in units of scale, to each row.

        Exact for bounds, steps, whole numbers, one-hot groups and limits; of linear
        relations, each has its closed form, and several that share columns take turns
        [1]_. Other relations are repaired by Newton's steps; what cannot be repaired
        goes back towards the row before the attack.

        Parameters
        ----------
        X_ref : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows before the attack; they have to be valid themselves.
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows as they are wanted.

        Returns
        -------
        X_valid : {DataFrame, ndarray} of shape (n_rows, n_features)
            In the form and the dtypes of `X_ref`.

        References
        ----------
        .. [1] J. P. Boyle and R. L. Dykstra, "A method for finding projections onto the
           intersection of convex sets in Hilbert spaces", 1986.
        """
        self.check(X_ref)
        ref, x = self._encode_both(X_ref, X)
        return self._decode(X_ref, self.region.project(ref, x))

    def sample(self, X_ref, *, random_state=None):
        """Draw one random valid row for each row.

        Parameters
        ----------
        X_ref : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows to start from.
        random_state : int, RandomState instance or None, default=None
            Seed.

        Returns
        -------
        X : {DataFrame, ndarray} of shape (n_rows, n_features)
            Valid rows, far from those given: uniform in the room of each feature.
        """
        self.check(X_ref)
        ref = self.encode(X_ref)
        rng = check_random_state(random_state)
        return self._decode(X_ref, self.region.sample(ref, rng))

    def check(self, X):
        """Raise where rows break the constraints before anything was done to them.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows to be attacked.

        Raises
        ------
        ValueError
            If a row is out of bounds, is on no lattice, or breaks a relation.
        """
        names = list(self.features)
        X = X if is_dataframe(X) else np.asarray(X)
        for rows in gen_batches(len(X), _BATCH):
            part = X.iloc[rows] if is_dataframe(X) else X[rows]
            ref = self.encode(part)
            for j, reason, mask in self.region.breaks(ref, ref, _tolerance(X), True):
                row = int(mask.nonzero()[0])
                of = "" if j is None else f"{names[j]!r} ({_show(part, row, j)}) "
                raise ValueError(
                    f"constraints exclude the data: row {rows.start + row} of X, "
                    f"{of}{reason}. Change the constraints, or leave such rows out."
                )

    def distance(self, X_ref, X):
        """Moves in units of scale, each times the feature's cost, and their number.

        Parameters
        ----------
        X_ref, X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows before and after.

        Returns
        -------
        cost : ndarray of shape (n_rows,)
        n_changed : ndarray of int, shape (n_rows,)
        """
        ref, x = self._encode_both(X_ref, X)
        region = self.region
        return region.total_cost(ref, x).numpy(), region.changed(ref, x).numpy()

    # Rows as numbers --------------------------------------------------------------------

    @property
    def codes(self):
        """The categories of each column of them, for :class:`RowCodec`."""
        return {
            f.name: [*f.categories, np.nan] if f.missing else f.categories
            for f in self.features.values()
            if f.kind in NAMED
        }

    def encode(self, X):
        """Return rows as a tensor of float64, shape (n_rows, n_features)."""
        if is_dataframe(X):
            unknown = [c for c in X.columns if c not in self.features]
            lost = [c for c in self.features if c not in X.columns]
            if unknown or lost:
                what = f"{lost[0]!r} is missing in X" if lost else f"{unknown[0]!r} in X"
                raise ValueError(
                    f"unknown column: {what}; the constraints are for "
                    f"{few(list(self.features))}."
                )
            X = X[list(self.features)]
            codec = RowCodec(X, categories=self.codes)
            return torch.as_tensor(missing_as_nan(codec, codec.encode(X)))
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.features):
            raise ValueError(
                f"X has shape {X.shape}; the constraints are for rows of "
                f"{len(self.features)} columns."
            )
        return self.codes_of(X)

    def codes_of(self, X):
        """Replace categories that are numbers by their codes."""
        array = np.array(X, dtype=np.float64)
        for j, feature in enumerate(self.features.values()):
            if feature.kind in NAMED:
                array[:, j] = _code(array[:, j], feature)
        return torch.as_tensor(array)

    def values_of(self, array):
        """Undo :meth:`codes_of`, in a copy."""
        array = array.copy()
        for j, feature in enumerate(self.features.values()):
            if feature.kind in NAMED:
                known = array[:, j] >= 0
                values = np.asarray(feature.categories, dtype=np.float64)
                array[known, j] = values[array[known, j].astype(int)]
        return array

    def _decode(self, X_ref, x):
        if is_dataframe(X_ref):
            X = X_ref[list(self.features)]
            codec = RowCodec(X, categories=self.codes)
            x = nan_as_code(codec, x.numpy())
            decoded = codec.decode(x, codec.encode(X), np.arange(len(X)))
            return decoded[list(X_ref.columns)]
        X_ref = np.asarray(X_ref)
        return self.values_of(x.numpy()).astype(
            X_ref.dtype if X_ref.dtype.kind == "f" else np.float64
        )

    def _encode_both(self, X_ref, X):
        ref, x = self.encode(X_ref), self.encode(X)
        if len(ref) != len(x):
            raise ValueError(f"X_ref has {len(ref)} rows, and X has {len(x)}.")
        return ref, x

    # For the attacks -------------------------------------------------------------------

    @property
    def region(self):
        """The constraints on arrays of numbers."""
        if self._region is None:
            features = list(self.features.values())
            self._region = Region(
                features, self._compiled(), self.max_cost, self.max_changed
            )
        return self._region

    def in_order(self, columns):
        """Return these constraints with the columns in another order."""
        if columns is None or columns == list(self.features):
            return self
        other = copy.copy(self)
        other.features = {name: self._feature(name) for name in columns}
        other._region = None
        return other

    def _feature(self, name):
        if name not in self.features:
            near = difflib.get_close_matches(str(name), map(str, self.features), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"unknown column {name!r}; the constraints are for "
                f"{few(list(self.features))}.{hint}"
            )
        return self.features[name]

    def _categories(self):
        return [f.categories if f.kind in NAMED else None for f in self.features.values()]

    def _compiled(self):
        names, categories = list(self.features), self._categories()
        return [Relation(text, names, categories, rep) for text, rep in self._relations]

    def __getstate__(self):
        return vars(self) | {"_region": None}

    def __repr__(self):
        frozen = sum(not f.mutable for f in self.features.values())
        return (
            f"FeatureConstraints({len(self.features)} features, {frozen} of them frozen, "
            f"{len(self._relations)} relations)"
        )


def _association(x, y, nominal):
    """Absolute correlation of two columns, or the correlation ratio of categories."""
    known = ~np.isnan(x)
    x, y = x[known], y[known]
    if len(x) < 2 or y.std() == 0:
        return 0.0
    if nominal:
        means = np.zeros_like(y)
        for value in np.unique(x):
            means[x == value] = y[x == value].mean()
        return float(means.std() / y.std())
    return 0.0 if x.std() == 0 else float(abs(np.corrcoef(x, y)[0, 1]))


def missing_as_nan(codec, array):
    """Replace the code of a missing value, in columns of codes, by NaN; in place."""
    for j, at in _missing_codes(codec):
        array[array[:, j] == at, j] = np.nan
    return array


def nan_as_code(codec, array):
    """Undo :func:`missing_as_nan`, in a copy."""
    array = array.copy()
    for j, at in _missing_codes(codec):
        array[np.isnan(array[:, j]), j] = at
    return array


def _missing_codes(codec):
    import pandas as pd

    for j, values in enumerate(codec.columns.values):
        lost = [] if values is None else np.flatnonzero(pd.isna(values))
        if len(lost):
            yield j, lost[0]


def _code(values, feature):
    """Return the positions of numbers in the categories; -1 where unknown."""
    known = np.asarray(feature.categories, dtype=np.float64)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)]
    codes = np.where(known[at] == values, at, -1.0)
    return np.where(np.isnan(values), np.nan, codes)


def few(names):
    return f"{names[:8]}{' and more' if len(names) > 8 else ''}"


def _tolerance(X):
    return 1e-5 if getattr(X, "dtype", None) == np.float32 else 1e-6


def _show(X, row, j):
    value = X.iloc[row, j] if is_dataframe(X) else np.asarray(X)[row, j]
    return repr(value.item() if isinstance(value, np.generic) else value)


def write(path, features, relations, limits, frame):
    """Write the parts of `FeatureConstraints`."""
    lines = ["# Feature constraints of sklearn_advsec.", f"frame = {_toml(frame)}"]
    lines += [f"{key} = {_toml(v)}" for key, v in limits.items() if v is not None]
    for title, tables in (("features", features), ("relations", relations)):
        for table in tables:
            lines += ["", f"[[{title}]]"]
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()
                      if value is not None]  # fmt: skip
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path):
    """Return features, relations, limits and whether they are of a DataFrame."""
    with open(path, "rb") as file:
        data = tomllib.load(file)
    known = {field.name for field in fields(Feature)}
    features = data.get("features", [])
    if not features:
        raise ValueError(f"{path} holds no [[features]].")
    for table in features:
        unknown = set(table) - known
        if unknown or "name" not in table:
            what = f"unknown key {min(unknown)!r}" if unknown else "no name"
            raise ValueError(f"{path}: a table of [[features]] has {what}.")
        if "transitions" in table:
            table["transitions"] = {before: to for before, to in table["transitions"]}
    limits = {key: data[key] for key in ("max_cost", "max_changed") if key in data}
    return features, data.get("relations", []), limits, data.get("frame", True)


def _toml(value):
    """Write a value; dicts become lists of pairs, as their keys may be numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        value = [[before, list(to)] for before, to in value.items()]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be written to TOML: use texts, "
        "numbers or booleans as names and categories."
    )
