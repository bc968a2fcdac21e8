"""Constraints on the features of a table: what an attacker may really change."""

from __future__ import annotations

import copy
import html
import math
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import fields
from numbers import Real
from os import PathLike
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, check_random_state, gen_batches

from .._labels import as_labels, find_positions
from .._rows import RowCodec, is_dataframe, plain_rows
from .._sklearn import check_parameters
from ._constraints_file import as_text, read, write
from ._features import NAMED, SCALES, Feature, did_you_mean, infer_features
from ._region import Region
from ._relations import Relation, check_feasible

# So many rows are looked at together.
_BATCH = 8192

# So many doubts are shown by themselves.
_MOST_SHOWN = 8

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
    doubts_ : list of Doubt
        What :meth:`from_frame` guessed and may have wrong: tuples of the column, the
        guess, why it may be wrong, and the line of code that corrects it. A column about
        which :meth:`set` says something is no longer in doubt.

    See Also
    --------
    sklearn_advsec.evasion.GreedyFeatureAttack : An attack on tables.
    Box : Ranges only.

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

    def __init__(self, features: list[Feature]) -> None:
        self.features = {}
        self.max_cost = self.max_changed = None
        self.doubts_ = []
        self._relations = []
        self._forget()
        for feature in features if isinstance(features, (list, tuple)) else [features]:
            if not isinstance(feature, Feature):
                raise ValueError(
                    "features must be a list of features, as from_frame makes them; got "
                    f"{feature!r}."
                )
            feature.check()
            if feature.name in self.features:
                raise ValueError(f"feature {feature.name!r} is named twice.")
            self.features[feature.name] = feature
        _check_groups(self.features)

    @classmethod
    def from_frame(
        cls, X: ArrayLike, *, scale: Literal["range", "iqr", "std"] = "range"
    ) -> Self:
        """Learn kinds, bounds, scales, steps, categories and one-hot groups from data.

        Dates and identifiers may not change: texts of which nearly every row has its
        own, and whole numbers that are all different and in order, without gaps, or of
        a column called id, key or code. All else may, in either direction;
        :meth:`set` says otherwise. Values that other rows have beyond these data stay
        valid for those rows: a number outside of the bounds widens them for its row, and
        a category that was not seen stays what it is.

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
            gap between observed values, where all gaps are multiples of it, or else the
            last decimal place. One-hot groups are found by the names that encoders give
            (``land_north``, ``land=north``), wherever the columns stand. What may be
            wrong is in `doubts_`.
        """
        if not isinstance(scale, str) or scale not in SCALES:
            raise ValueError(
                f"scale must be one of {SCALES}; got {scale!r}"
                f"{did_you_mean(scale, SCALES)}."
            )
        X = _as_rows(X)
        features, doubts = infer_features(X, scale)
        constraints = cls(features)
        constraints.doubts_ = doubts
        return constraints

    # Refining --------------------------------------------------------------------------

    def set(self, column: str | int | Sequence[str | int], **changes: Any) -> Self:
        """Say more about a column.

        Parameters
        ----------
        column : str or int, or list, tuple or Index of them
            Which. If one of several cannot be set, none is.
        **changes : dict
            Of these:

            - ``mutable`` (bool): whether it may change at all;
            - ``direction`` ("up", "down" or None): which way;
            - ``lower``, ``upper`` (float or None): its bounds (positions of categories
              where these have an order); None is no bound;
            - ``step`` (float or None): changes are multiples of it;
            - ``cost`` (float): of one `scale`, or of another category;
            - ``scale`` (float): the unit of `eps` and of distances;
            - ``missing`` (bool): whether a value may go missing, which is a move of one
              `scale` (:class:`~sklearn_advsec.evasion.EvasionAttack` says which attacks
              try it); a value that is missing always stays so;
            - ``kind`` and ``categories`` (list): as in `from_frame`;
            - ``transitions`` (dict): ``{from: [to, ...]}``, the categories that one may
              turn into; one that is not named may turn into any;
            - ``group`` (str or None): columns of one name are one-hot;
            - ``baseline`` (bool): all columns of the group may be 0, for a category that
              has no column (``drop_first=True``).

        Returns
        -------
        self : FeatureConstraints

        Raises
        ------
        ValueError
            If a column or a change is not known, does not fit the others, or contradicts
            the relations; nothing is changed then.
        """
        for key in changes:
            if key not in _CHANGES:
                raise ValueError(
                    f"set() knows no {key!r}{did_you_mean(key, _CHANGES)}; it takes "
                    f"{', '.join(_CHANGES)}."
                )
        names = self._names_in(column)
        features = dict(self.features)
        for name in names:
            features[name] = _with_changes(self._feature(name), changes)
        _check_groups(features)
        if self._relations:
            self._check_relations(list(features.values()), self._relations)
        self.features = features
        self.doubts_ = [d for d in self.doubts_ if d.column not in names]
        self._forget()
        return self

    def relate(self, relation: str, *, repair: str | int | None = None) -> Self:
        """Add a relation that rows have to keep.

        Parameters
        ----------
        relation : str
            A formula of columns, numbers, ``+ - * / **``, ``abs``, ``min``, ``max``,
            ``log``, comparisons, ``and``, ``or``, ``not`` and ``implies``, such as
            ``"open_acc <= total_acc"`` or ``"a > 0 implies b > 0"``. Names that are no
            plain words stand in backticks; the columns of arrays are ``x[0]``, ``x[1]``.
            Categories are compared with texts, also by ``job in ['clerk', 'nurse']`` and,
            where they have an order, by ``school >= 'mid'``; flags by ``home == True``.
            Missing values keep any relation; what cannot be computed, such as ``0 / 0``,
            keeps none. It is parsed, never run as code.
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
        try:
            fixed = repair is not None and not self._feature(repair).mutable
        except ValueError as error:
            raise ValueError(f"repair: {error}") from None
        if fixed:
            raise ValueError(f"repair={repair!r}: this column may not change.")
        return self._relate([(relation, repair)])

    def _relate(self, relations):
        features = list(self.features.values())
        read = [Relation(text, features, repair) for text, repair in relations]
        read = [*self._read_relations(), *read]
        _check_feasible(read, features)
        self._relations = [*self._relations, *relations]
        self._forget()
        self._read = read
        return self

    def _read_relations(self):
        if self._read is None:
            self._read = self._check_relations(
                list(self.features.values()), self._relations
            )
        return self._read

    def _check_relations(self, features, relations):
        """Return the relations, read for some features; raise where these contradict."""
        read = [Relation(text, features, repair) for text, repair in relations]
        _check_feasible(read, features)
        return read

    def _forget(self):
        """Drop what follows from features, relations and limits."""
        self._region = self._read = None

    def limit(
        self, *, max_cost: float | None = None, max_changed: int | None = None
    ) -> Self:
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
        if max_cost is not None and not (_is_number(max_cost) and max_cost >= 0):
            raise ValueError(
                f"max_cost must be a number, not negative, or None; got {max_cost!r}."
            )
        if max_changed is not None and not (
            _is_number(max_changed)
            and 0 <= max_changed < 2**63
            and max_changed == int(max_changed)
        ):
            raise ValueError(
                f"max_changed must be a whole number, not negative, or None; got "
                f"{max_changed!r}."
            )
        infinite = max_cost is not None and math.isinf(max_cost)
        self.max_cost = None if max_cost is None or infinite else float(max_cost)
        self.max_changed = None if max_changed is None else int(max_changed)
        self._region = None
        return self

    def weigh_by_importance(
        self, X: ArrayLike, y: ArrayLike, *, strength: float = 1.0
    ) -> Self:
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
        if not (_is_number(strength) and 0 <= strength < math.inf):
            raise ValueError(f"strength must be a number >= 0; got {strength!r}.")
        X = self.encode(X).numpy()
        y = as_labels(y, "y")
        check_consistent_length(X, y)
        values = y.astype(float) if y.dtype.kind in "fiub" else None
        if values is None or len(np.unique(y)) <= 2:
            values = (y == np.unique(y)[-1]).astype(float)
        weights = []
        for j, feature in enumerate(self.features.values()):
            weights.append(_association(X[:, j], values, feature.kind == "categorical"))
        with np.errstate(under="ignore"):
            weights = np.maximum(weights, 1e-3) ** strength
        if not weights.mean() > 0:
            raise ValueError(f"strength={strength!r} leaves no feature any cost.")
        for feature, weight in zip(self.features.values(), weights, strict=True):
            feature.cost = float(weight / weights.mean())
        self._region = None
        return self

    @property
    def relations(self) -> list[str]:
        """The relations, as text."""
        return [text for text, _ in self._relations]

    # Files -----------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write a TOML file that :meth:`load` reads.

        The file is replaced only when the new one is whole.

        Parameters
        ----------
        path : path-like
            The file; no symbolic link.
        """
        write(path, self.to_toml())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file that :meth:`save`, or somebody by hand, has written.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        constraints : FeatureConstraints

        Raises
        ------
        ValueError
            If anything in the file is not understood; the message names file and key.
        """
        try:
            with open(path, "rb") as file:
                return cls.from_toml(file.read())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_toml(self) -> str:
        """Return the text that :meth:`save` writes."""
        features = [feature.as_dict() for feature in self.features.values()]
        relations = [
            {"formula": text} | ({} if repair is None else {"repair": repair})
            for text, repair in self._relations
        ]
        limits = {"max_cost": self.max_cost, "max_changed": self.max_changed}
        return as_text(features, relations, limits)

    @classmethod
    def from_toml(cls, text: str | bytes) -> Self:
        """Read the text of such a file.

        Raises
        ------
        ValueError
            If anything in it is not understood; the message names the key.
        """
        features, relations, limits = read(text)
        return cls(features)._relate(relations).limit(**limits)

    # Rows -------------------------------------------------------------------------------

    def violations(self, X_ref: ArrayLike, X: ArrayLike) -> list[Any]:
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

    def project(self, X_ref: ArrayLike, X: ArrayLike) -> Any:
        """Give a valid row near each row: the nearest in units of scale, or close to it.

        Without relations it is the nearest: bounds, steps, whole numbers, categories,
        one-hot groups and `max_changed` are each feature's own matter, and `max_cost` is
        a knapsack that is solved to the end (a warning says where that is given up). A
        linear relation between continuous features has its closed form, and several that
        share columns take turns [1]_. Several relations between whole numbers, alone or
        with limits, are not solved to the end: among small random cases, the distance
        was 1.02 (with limits 1.04) times that of the nearest row on average, and 1.8
        times at most. Curved relations are repaired by Newton's steps; what cannot be
        repaired goes back towards the row before the attack.

        Attacks use the same projection, but leave a knapsack at most one step or choice
        from its end.

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
        X_ref, restore = plain_rows(X_ref)
        self.check(X_ref, name="X_ref")
        ref, x = self._encode_both(X_ref, X)
        return restore(self._decode(X_ref, self.region.project(ref, x, exact=True)))

    def sample(
        self, X_ref: ArrayLike, *, random_state: int | np.random.RandomState | None = None
    ) -> Any:
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
            Valid rows, far from those given: uniform in the range of each feature.
        """
        X_ref, restore = plain_rows(X_ref)
        self.check(X_ref, name="X_ref")
        ref = self.encode(X_ref)
        check_parameters(
            {"random_state": random_state}, {"random_state": ["random_state"]}, "sample"
        )
        rng = check_random_state(random_state)
        return restore(self._decode(X_ref, self.region.sample(ref, rng)))

    def check(self, X: ArrayLike, *, name: str = "X") -> None:
        """Raise where rows break the constraints before anything was done to them.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows to be attacked.
        name : str, default="X"
            What errors call them.

        Raises
        ------
        ValueError
            If a row breaks a relation, or the columns are others.
        """
        X = _as_rows(X, name)
        if not len(X):
            raise ValueError(f"{name} must hold rows of features; it holds none.")
        for rows in gen_batches(len(X), _BATCH):
            part = X.iloc[rows] if is_dataframe(X) else X[rows]
            ref = self._encode(part, part, name)
            for relation in self.region.relations:
                broken = ~relation.holds(ref, _tolerance(X))
                if broken.any():
                    raise ValueError(
                        f"constraints exclude the data: row "
                        f"{rows.start + int(broken.nonzero()[0])} of {name} breaks the "
                        f"relation {relation.text!r}. Change the relation, or leave such "
                        "rows out."
                    )

    def distance(self, X_ref: ArrayLike, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
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
    def codes(self) -> dict[Any, Any]:
        """The categories of each column of them, for :class:`RowCodec`."""
        return {
            f.name: [*f.categories, np.nan] if f.missing else f.categories
            for f in self.features.values()
            if f.kind in NAMED
        }

    def encode(self, X: Any) -> torch.Tensor:
        """Return rows as a tensor of float64, shape (n_rows, n_features)."""
        X = _as_rows(X)
        return self._encode(X, X)

    def _encode(self, X, known, name="X"):
        """Encode rows; categories that are not known get codes as in the rows `known`."""
        if is_dataframe(X):
            self._check_columns(X, name)
            X = X[list(self.features)]
            codec = self._codec(known if is_dataframe(known) else X)
            array = missing_as_nan(codec, codec.encode(X))
            for j, feature in enumerate(self.features.values()):
                # Where a flag is wished to go may be between its values.
                if feature.categories == [False, True] and X.dtypes.iloc[j].kind == "f":
                    array[:, j] = X.iloc[:, j]
            return torch.as_tensor(array)
        if X.shape[1] != len(self.features):
            raise ValueError(
                f"{name} has shape {X.shape}; the constraints are for rows of "
                f"{len(self.features)} columns."
            )
        array = self.codes_of(X)
        if X is known and torch.isinf(array).any():
            raise ValueError(f"{name} must be finite, or NaN where values are missing.")
        return array

    def _check_columns(self, X, name="X"):
        unknown = [c for c in X.columns if c not in self.features]
        lost = [c for c in self.features if c not in X.columns]
        if unknown or lost or len(X.columns) != len(self.features):
            what = f"{name} names a column twice"
            if lost:
                what = f"{lost[0]!r} is missing in {name}"
            elif unknown:
                what = f"{unknown[0]!r} in {name}"
            raise ValueError(
                f"unknown column: {what}; the constraints are for "
                f"{few(list(self.features))}."
            )

    def _codec(self, X):
        return RowCodec(X[list(self.features)], categories=self.codes)

    def codes_of(self, X: Any) -> torch.Tensor:
        """Replace categories that are numbers by their codes."""
        array = np.array(X, dtype=np.float64)
        for j, feature in enumerate(self.features.values()):
            if feature.kind in NAMED:
                array[:, j] = _code(array[:, j], feature)
        return torch.as_tensor(array)

    def values_of(self, array: Any) -> np.ndarray:
        """Undo :meth:`codes_of`, in a copy."""
        array = array.copy()
        for j, feature in enumerate(self.features.values()):
            if feature.kind in NAMED:
                known = array[:, j] >= 0
                values = np.asarray(feature.categories, dtype=np.float64)
                array[known, j] = values[array[known, j].astype(int)]
        return array

    def _decode(self, X_ref, x):
        """Return rows in the form of `X_ref`; what did not move is as it was."""
        x = x.numpy().copy()
        if is_dataframe(X_ref):
            codec = self._codec(X_ref)
            ref = codec.encode(X_ref[list(self.features)])
            dtypes = [X_ref.dtypes[name] for name in self.features]
            x = nan_as_code(codec, self._held(x, ref, dtypes))
            decoded = codec.decode(x, ref, np.arange(len(ref)))
            # Large integers, and what floats cannot hold, are not to go through them.
            same = (x == ref) | (np.isnan(x) & np.isnan(ref))
            columns = [
                decoded[name].where(~stays, X_ref[name]) if stays.any() else decoded[name]
                for name, stays in zip(self.features, same.T, strict=True)
            ]
            import pandas as pd

            return pd.concat(columns, axis=1)[list(X_ref.columns)]
        X_ref = _as_rows(X_ref)
        dtype = X_ref.dtype if X_ref.dtype.kind == "f" else np.dtype(np.float64)
        ref = self.codes_of(X_ref).numpy()
        x = self._held(x, ref, [dtype] * x.shape[1])
        same = (x == ref) | (np.isnan(x) & np.isnan(ref))
        return np.where(same, X_ref, self.values_of(x)).astype(dtype)

    def _held(self, x, ref, dtypes):
        """Round numbers that move freely to what their types hold, towards the row."""
        for j, (feature, dtype) in enumerate(
            zip(self.features.values(), dtypes, strict=True)
        ):
            dtype = getattr(dtype, "numpy_dtype", dtype)  # of a nullable column
            free = feature.kind == "continuous" and feature.step is None
            if not free or dtype.kind != "f" or dtype.itemsize >= 8:
                continue
            start = ref[:, j].astype(dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                near = x[:, j].astype(dtype)
                beyond = np.abs(near - ref[:, j]) > np.abs(x[:, j] - ref[:, j])
                x[:, j] = np.where(beyond, np.nextafter(near, start), near)
        return x

    def _encode_both(self, X_ref, X):
        X_ref = _as_rows(X_ref, "X_ref")
        if is_dataframe(X_ref):
            self._check_columns(X_ref, "X_ref")
        ref = self._encode(X_ref, X_ref, "X_ref")
        x = self._encode(_as_rows(X), X_ref)
        if len(ref) != len(x):
            raise ValueError(f"X_ref has {len(ref)} rows, and X has {len(x)}.")
        return ref, x

    # For the attacks -------------------------------------------------------------------

    @property
    def region(self) -> Any:
        """The constraints on arrays of numbers."""
        if self._region is None:
            features = list(self.features.values())
            relations = self._read_relations()
            self._region = Region(features, relations, self.max_cost, self.max_changed)
        return self._region

    def in_order(self, columns: Any) -> FeatureConstraints:
        """Return these constraints with the columns in another order."""
        if columns is None or columns == list(self.features):
            return self
        other = copy.copy(self)
        other.features = {name: self._feature(name) for name in columns}
        other._forget()
        return other

    def _names_in(self, column):
        """Return the names that `set` was given: one, or several."""
        try:
            if column in self.features:
                return [column]
        except TypeError:  # a list
            pass
        lists = (list, tuple, set, frozenset)
        if isinstance(column, lists) or getattr(column, "ndim", 0) == 1:
            return list(column)
        return [column]

    def _feature(self, name):
        try:
            return self.features[name]
        except (KeyError, TypeError):
            raise ValueError(
                f"unknown column {name!r}{did_you_mean(name, self.features)}; the "
                f"constraints are for {few(list(self.features))}."
            ) from None

    def __getstate__(self):
        return vars(self) | {"_region": None, "_read": None}

    def __repr__(self):
        frozen = sum(not f.mutable for f in self.features.values())
        text = (
            f"FeatureConstraints({len(self.features)} features, {frozen} of them frozen, "
            f"{len(self._relations)} relations)"
        )
        if not self.doubts_:
            return text
        lines = [f"{text}, {len(self.doubts_)} guesses in doubt (doubts_):"]
        for doubt in self.doubts_[:_MOST_SHOWN]:
            lines += [f"  {doubt.column!r} taken for {doubt.guess}: {doubt.reason};"]
            lines += [f"    {doubt.correction}"]
        if len(self.doubts_) > _MOST_SHOWN:
            lines.append(f"  and {len(self.doubts_) - _MOST_SHOWN} more")
        return "\n".join(lines)

    def _repr_html_(self):
        """Return a table of the features, and lists of relations, limits and doubts."""
        head = (
            "feature",
            "kind",
            "may change",
            "values",
            "step",
            "scale",
            "cost",
            "group",
        )
        rows = [
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(feature))
            for feature in self.features.values()
        ]
        parts = [
            "<table><thead><tr>" + "".join(f"<th>{name}</th>" for name in head),
            "</tr></thead><tbody>" + "</tr>".join([*rows, ""]) + "</tbody></table>",
        ]
        limits = [
            f"{name} = {value}"
            for name in ("max_cost", "max_changed")
            if (value := getattr(self, name)) is not None
        ]
        doubts = [
            f"{d.column!r} taken for {d.guess}: {d.reason}; {d.correction}"
            for d in self.doubts_
        ]
        for title, lines in (
            ("relations", self.relations), ("limits", limits), ("in doubt", doubts)
        ):  # fmt: skip
            if lines:
                items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
                parts.append(f"<p>{title}</p><ul>{items}</ul>")
        return "".join(parts)


# What `set` takes.
_CHANGES = tuple(field.name for field in fields(Feature) if field.name != "name")


def _with_changes(feature, changes):
    """Return a feature with changes; another kind takes what follows from it along."""
    feature = copy.copy(feature)
    for key, value in changes.items():
        setattr(feature, key, value)
    feature.check_categories()
    if (
        not (isinstance(feature.kind, str) and feature.kind in NAMED)
        and "kind" in changes
    ):
        feature.categories = changes.get("categories")
        feature.transitions = changes.get("transitions")
    elif feature.categories and (
        "kind" in changes or "categories" in changes
    ):  # fmt: skip
        last = float(len(feature.categories) - 1)
        ordered = feature.kind == "ordinal"
        implied = {
            "lower": 0.0 if ordered else -math.inf,
            "upper": last if ordered else math.inf,
            "scale": max(last, 1.0) if ordered else 1.0,
            "step": None,
        }
        for key, value in implied.items():
            setattr(feature, key, changes.get(key, value))
    feature.check()
    return feature


def _check_groups(features):
    """Raise where columns of a group disagree about its baseline."""
    known = {}
    for feature in features.values():
        if feature.group is None:
            continue
        first = known.setdefault(feature.group, feature)
        if first.baseline != feature.baseline:
            raise ValueError(
                f"group {feature.group!r}: {first.name!r} and {feature.name!r} have "
                "another baseline; set it for all columns of the group."
            )


def _check_feasible(relations, features):
    free = [f.kind == "categorical" for f in features]
    check_feasible(
        relations,
        [0.0 if skip else f.lower for f, skip in zip(features, free, strict=True)],
        [np.inf if skip else f.upper for f, skip in zip(features, free, strict=True)],
    )


def _as_rows(X, name="X"):
    """Return a DataFrame as it is, and anything else as an array."""
    if np.ma.isMaskedArray(X) and np.ma.getmaskarray(X).any():
        raise ValueError(
            f"{name} is a masked array: fill it, with NaN where values are missing."
        )
    X, _ = plain_rows(X)
    if is_dataframe(X) and X.shape[1]:
        return X
    try:
        X = np.asarray(X)
    except ValueError:
        raise ValueError(
            f"{name} must hold rows of features, all of one length."
        ) from None
    if X.ndim != 2:
        raise ValueError(f"{name} must hold rows of features; got shape {X.shape}.")
    if not X.shape[1]:
        raise ValueError(f"{name} must hold rows of features; it holds none.")
    try:
        return X if X.dtype.kind in "biuf" else np.array(X.tolist(), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name} must hold numbers: give rows with text or categories as a DataFrame."
        ) from None


def _is_number(value):
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _cells(feature):
    """Return what the table says of a feature."""
    way = {"up": "up only", "down": "down only", None: "yes"}[feature.direction]
    values = f"{feature.lower:g} to {feature.upper:g}"
    if feature.categories:
        values = ", ".join(map(str, feature.categories[:6]))
        values += ", ..." if len(feature.categories) > 6 else ""
    return (
        str(feature.name),
        feature.kind + (", may go missing" if feature.missing else ""),
        way if feature.mutable else "no",
        values,
        "" if feature.step is None else f"{feature.step:g}",
        f"{feature.scale:g}",
        f"{feature.cost:g}",
        "" if feature.group is None else feature.group,
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
    categories = np.asarray(feature.categories, dtype=np.float64)
    position, known = find_positions(values, categories)
    codes = np.where(known, position, -1.0)
    return np.where(np.isnan(values), np.nan, codes)


def few(names):
    return f"{names[:8]}{' and more' if len(names) > 8 else ''}"


def _tolerance(X):
    return 1e-5 if getattr(X, "dtype", None) == np.float32 else 1e-6
