"""Feature constraints: which rows an attacker can really make."""

import copy
import difflib

import numpy as np

from .._constraints_codes import few
from .._constraints_file import read, write
from .._constraints_rows import Judge
from .._rows import is_dataframe
from ._features import NAMED, SCALES, Feature, infer_features
from ._region import Region
from ._relations import Relation, check_linear


class FeatureConstraints(Judge):
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
