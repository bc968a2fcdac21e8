"""Backdoors: a trigger in some training rows, that later gives any row a class."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..._labels import class_positions, find_positions
from ..._rows import RowCodec, is_dataframe, pixel_grid
from ..._sklearn import HasMethods, Interval, StrOptions
from ...threat import FeatureConstraints
from .._base import Poison, PoisoningAttack

if TYPE_CHECKING:
    from ...evasion import EvasionAttack

_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
_IMAGES = ("patch", "blended", "sinusoidal")
_TABLES = ("in_bounds", "out_of_bounds")
_CANDIDATES = 200
_MOST_ROWS = 5000  # that candidates are compared with


class Stamping(OneToOneFeatureMixin, TransformerMixin):
    """Mixin of attacks with a trigger, which is stamped on any rows after the attack.

    A subclass writes ``_stamp(rows)``, and notes ``source_classes_``.
    """

    def transform(self, X: ArrayLike) -> Any:
        """Stamp the trigger on all rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images
            Rows, as in `fit`.

        Returns
        -------
        X : of the type of `X`
            The rows with the trigger.
        """
        check_is_fitted(self)
        return self._stamp(self._check_rows(X, reset=False))

    def eligible(self, y: ArrayLike) -> np.ndarray:
        """Tell for which labels the trigger is to change the prediction.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            True labels.

        Returns
        -------
        eligible : ndarray of bool, shape (n_samples,)
            Those of the source classes.
        """
        check_is_fitted(self)
        return find_positions(np.asarray(y), self.source_classes_)[1]


class BackdoorTrigger(Stamping, PoisoningAttack):
    """Backdoor: training rows with a trigger and the target class.

    A model that learns them gives the target class to any row with the trigger, which
    `transform` stamps, and is as good as before on rows without.
    :func:`~sklearn_advsec.metrics.backdoor_success_scorer` measures how often, over rows
    whose true class is another.

    Parameters
    ----------
    trigger : {"patch", "blended", "sinusoidal", "in_bounds", "out_of_bounds"} or dict, \
            default="patch"
        What is stamped. On images: a patch [1]_, a pattern blended into the whole image
        [2]_, or a wave [3]_. On tables: a dict of values by column (its name, or its
        position in an array); "in_bounds" values, each of which some training row has,
        chosen so that no training row comes near to having all of them; or values a
        tenth of the range beyond the largest of a column [4]_. A patch on rows that are
        no images covers neighbouring columns.
    target_class : label, default=None
        The class that rows with the trigger are to get; None is the first of `classes_`.
    source : label or list of labels, default=None
        Classes whose rows get the trigger; None is all but the target class.
    budget : int or float, default=0.01
        How many rows are poisoned: a number, or a share of the training rows.
    clean_label : bool, default=False
        Whether rows of the target class get the trigger and keep their label, instead of
        rows of the source classes whose label is changed. It takes many more of them.
    attack : EvasionAttack, default=None
        With clean labels: what moves rows away from their class before they get the
        trigger [5]_, so that they are hard to learn but by the trigger. It is fitted on
        the training rows, and asked for all its steps by ``early_stopping=False``.
    size : int or tuple (height, width), default=3
        Size of a patch.
    location : {"top_left", "top_right", "bottom_left", "bottom_right"} or tuple (row, \
            column), default="bottom_right"
        Where it is; a tuple is its upper left corner.
    pattern : float or array-like of shape (height, width) or (channels, height, width), \
            default=None
        Values of a patch, or what is blended into images. None is the largest value in
        the data for a patch, and noise for a blend.
    alpha : float, default=0.2
        Share of a blended pattern; amplitude of a wave, in units of the data's range.
    frequency : float, default=6
        How many times the wave goes up and down across the width of an image.
    columns : list, default=None
        Columns that "in_bounds" and "out_of_bounds" may use; None is all.
    n_columns : int, default=2
        How many of these they use.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width), or with its
        channels last.
    channels : {"first", "last"}, default="first"
        Where images have their channels.
    constraints : FeatureConstraints, default=None
        What rows of a table have to satisfy with the trigger; one that breaks it is an
        error.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the poisoned rows.
    sample_indices_ : ndarray of int, shape (n_samples,)
        The row that each returned row comes from: itself.
    target_class_ : label
        The class that rows with the trigger are to get.
    source_classes_ : ndarray
        The classes whose rows are to get it.
    trigger_ : dict or tuple of ndarray
        On tables, the value of each column of the trigger. On images, two arrays of shape
        (channels, height, width): what a pixel is multiplied with, and what is added.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    Raises
    ------
    ValueError
        If a column does not exist or cannot hold the value, a patch is larger than the
        image or outside of it, or the trigger breaks the constraints.

    Warns
    -----
    UserWarning
        If no training row has a value of the trigger: encoders may refuse it, or not see
        it.

    See Also
    --------
    sklearn_advsec.metrics.backdoor_success_scorer : Whether the trigger works.
    FeatureCollision : For one row, without a trigger.

    References
    ----------
    .. [1] T. Gu, B. Dolan-Gavitt, S. Garg, "BadNets: identifying vulnerabilities in the
       machine learning model supply chain", arXiv:1708.06733 (Section 3).
    .. [2] X. Chen, C. Liu, B. Li, K. Lu, D. Song, "Targeted backdoor attacks on deep
       learning systems using data poisoning", arXiv:1712.05526 (blended injection).
    .. [3] M. Barni, K. Kallas, B. Tondi, "A new backdoor attack in CNNs by training set
       corruption without label poisoning", arXiv:1902.11237 (sinusoidal signal).
    .. [4] B. Pleiter, B. Tajalli, S. Koffas, G. Abad, J. Xu, M. Larson, S. Picek,
       "Tabdoor: backdoor vulnerabilities in transformer-based neural networks for tabular
       data", arXiv:2311.07550 (values in bounds and out of bounds; here those in bounds
       are chosen by their distance to all rows, not as the most frequent ones).
    .. [5] A. Turner, D. Tsipras, A. Madry, "Label-consistent backdoor attacks",
       arXiv:1912.02771 (adversarial perturbations).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> from sklearn_advsec.metrics import backdoor_success_scorer
    >>> from sklearn_advsec.poisoning import BackdoorTrigger
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> trigger = BackdoorTrigger(
    ...     "in_bounds", target_class=1, budget=0.05, random_state=0)
    >>> X_poisoned, y_poisoned = trigger.fit_resample(X, y)
    >>> model = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    >>> model = model.fit(X_poisoned, y_poisoned)
    >>> bool(backdoor_success_scorer(trigger)(model, X, y) > 0.5)
    True
    """

    changes = "rows"
    knowledge = "label"

    _parameter_constraints = {
        **{
            name: PoisoningAttack._parameter_constraints[name]
            for name in ("budget", "random_state")
        },
        "trigger": [StrOptions({*_IMAGES, *_TABLES}), dict],
        "target_class": "no_validation",
        "source": "no_validation",
        "clean_label": ["boolean"],
        "attack": [HasMethods(["fit", "run", "get_params"]), None],
        "size": [Interval(Integral, 1, None, closed="left"), tuple],
        "location": [StrOptions(set(_CORNERS)), tuple],
        "pattern": [Real, "array-like", None],
        "alpha": [Interval(Real, 0, 1, closed="right")],
        "frequency": [Interval(Real, 0, None, closed="neither")],
        "columns": ["array-like", None],
        "n_columns": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, None],
        "channels": [StrOptions({"first", "last"})],
        "constraints": [FeatureConstraints, None],
    }

    def __init__(
        self,
        trigger: Literal["patch", "blended", "sinusoidal", "in_bounds", "out_of_bounds"]
        | dict[Any, Any] = "patch",
        *,
        target_class: Any = None,
        source: Any = None,
        budget: float = 0.01,
        clean_label: bool = False,
        attack: EvasionAttack | None = None,
        size: int | tuple[int, int] = 3,
        location: Literal["top_left", "top_right", "bottom_left", "bottom_right"]
        | tuple[int, int] = "bottom_right",
        pattern: ArrayLike | None = None,
        alpha: float = 0.2,
        frequency: float = 6,
        columns: list[Any] | None = None,
        n_columns: int = 2,
        image_shape: tuple[int, ...] | None = None,
        channels: Literal["first", "last"] = "first",
        constraints: FeatureConstraints | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.trigger = trigger
        self.target_class = target_class
        self.source = source
        self.budget = budget
        self.clean_label = clean_label
        self.attack = attack
        self.size = size
        self.location = location
        self.pattern = pattern
        self.alpha = alpha
        self.frequency = frequency
        self.columns = columns
        self.n_columns = n_columns
        self.image_shape = image_shape
        self.channels = channels
        self.constraints = constraints
        self.random_state = random_state

    def _allows_nan(self):
        return True  # what is stamped does not depend on it

    def _prepare(self, task):
        classes = task.classes
        target = classes[0] if self.target_class is None else self.target_class
        code = class_positions([target], classes, "target_class")[0]
        self.target_class_ = classes[code]
        if self.source is None:
            sources = np.delete(np.arange(len(classes)), code)
        else:
            sources = np.unique(class_positions(self.source, classes, "source"))
            if code in sources:
                raise ValueError(f"source must not hold the target class, {target!r}.")
        self.source_classes_ = classes[sources]
        if self.attack is not None and not self.clean_label:
            raise ValueError(
                "attack moves rows that keep their label: it goes with clean_label=True."
            )
        if self.pattern is not None and not np.isfinite(self.pattern).all():
            raise ValueError("pattern must be finite.")
        if isinstance(self.columns, np.ndarray) and self.columns.dtype.kind == "f":
            raise ValueError("columns must be names or positions.")
        self._shape = task.X.shape[1:]
        if isinstance(self.trigger, str) and self.trigger in _IMAGES:
            self.trigger_ = self._on_pixels(task)
        else:
            if len(self._shape) != 1:
                raise ValueError(
                    f"trigger={self.trigger!r} is for rows of tables; X holds rows of "
                    f"shape {self._shape}. Use one of {_IMAGES}."
                )
            self.trigger_ = self._on_columns(task)

    def _poison(self, task):
        code = class_positions([self.target_class_], task.classes, "target_class")[0]
        allowed = task.y == code if self.clean_label else self.eligible(task.labels())
        rows = task.rng.permutation(np.flatnonzero(allowed))[: task.budget]
        before = task.select(rows)
        after = before
        if self.attack is not None and len(rows):
            attack = clone(self.attack).fit(task.rows, task.labels())
            after = attack.run(before, np.full(len(rows), self.target_class_)).X_adv
        after = self._stamp(after)
        if self.constraints is not None:
            broken = self.constraints.violations(before, after)
            if broken:
                raise ValueError(
                    f"constraints: with the trigger, {broken[0][1]!r} of a row "
                    f"{broken[0][2]}. Choose other values or columns."
                )
        task.codec = self._codec_of(task)
        labels = None if self.clean_label else np.full(len(rows), code)
        return Poison(rows, labels, task.codec.encode(after))

    def _codec_of(self, task):
        """Return the codec of the rows, which also knows the values of the trigger."""
        columns = task.codec.columns
        if columns is None or isinstance(self.trigger_, tuple):
            return task.codec
        known = {}
        for name, value in self.trigger_.items():
            values = columns.values[columns.names.index(name)]
            if values is not None and value not in values.tolist():
                known[name] = [*values.tolist(), value]
        return RowCodec(task.rows, categories=known) if known else task.codec

    # Images ---------------------------------------------------------------------------

    def _grid(self, shape):
        """Return (channels, height, width) of rows of a shape."""
        given = self.image_shape
        if self.channels == "last":
            if given is not None and len(given) == 3:
                given = given[2:] + given[:2]
            if len(shape) == 3:
                shape = shape[2:] + shape[:2]
        return pixel_grid(shape, given)

    def _as_images(self, array):
        grid = self._grid(array.shape[1:])
        if self.channels == "last":
            array = array.reshape(-1, *grid[1:], grid[0])
            return np.moveaxis(array, -1, 1)
        return array.reshape(-1, *grid)

    def _on_pixels(self, task):
        if task.codec.mutable is not None:
            raise ValueError(
                f"trigger={self.trigger!r} takes pixels, and X has columns that are no "
                "numbers. Use a dict of values by column, or 'in_bounds'."
            )
        _, height, width = grid = self._grid(self._shape)
        self._range = low, high = float(np.nanmin(task.X)), float(np.nanmax(task.X))
        keep, add = np.ones(grid), np.zeros(grid)
        if self.trigger == "patch":
            top, left, rows, columns = self._place(height, width)
            at = np.s_[:, top : top + rows, left : left + columns]
            keep[at] = 0.0
            add[at] = self._values((grid[0], rows, columns), high)
        elif self.trigger == "blended":
            noise = low + (high - low) * task.rng.random_sample(grid)
            keep[:] = 1 - self.alpha
            add[:] = self.alpha * self._values(grid, noise)
        else:
            wave = np.sin(2 * np.pi * self.frequency * np.arange(width) / width)
            add[:] = self.alpha * (high - low) * wave
        return keep, add

    def _place(self, height, width):
        """Return the top, the left side, the rows and the columns of a patch."""
        size = (self.size, self.size) if isinstance(self.size, Integral) else self.size
        if not _whole_pair(size, 1):
            raise ValueError(f"size must be whole numbers above 0; got {self.size!r}.")
        if isinstance(self.size, Integral) and height == 1:
            size = (1, self.size)  # on rows that are no images
        rows, columns = size
        if rows > height or columns > width:
            raise ValueError(
                f"size: a patch of {rows} x {columns} is larger than images of "
                f"{height} x {width}."
            )
        if isinstance(self.location, str):
            vertical, horizontal = self.location.split("_")
            top = 0 if vertical == "top" else height - rows
            return top, 0 if horizontal == "left" else width - columns, rows, columns
        if not _whole_pair(self.location, 0):
            raise ValueError(
                "location must be the name of a corner or a row and a column, whole "
                f"numbers; got {self.location!r}."
            )
        top, left = self.location
        if top + rows > height or left + columns > width:
            raise ValueError(
                f"location: a patch of {rows} x {columns} at {self.location} is outside "
                f"of images of {height} x {width}."
            )
        return top, left, rows, columns

    def _values(self, shape, otherwise):
        if self.pattern is None:
            return otherwise
        pattern = np.asarray(self.pattern, dtype=np.float64)
        if pattern.ndim and pattern.shape not in (shape, shape[1:]):
            raise ValueError(
                f"pattern must be a number or have shape {shape[1:]} or {shape}; got "
                f"{pattern.shape}."
            )
        return pattern

    # Tables ---------------------------------------------------------------------------

    def _on_columns(self, task):
        names = _names(task)
        if isinstance(self.trigger, dict):
            if not self.trigger:
                raise ValueError("trigger is empty: name a column and its value.")
            for name, value in self.trigger.items():
                _position(name, names, "trigger")
                self._check_value(task, name, value)
            return dict(self.trigger)
        at = range(len(names))
        if self.columns is not None:
            at = sorted({_position(name, names, "columns") for name in self.columns})
        at = np.array(at)
        if self.trigger == "out_of_bounds":
            mutable = task.codec.mutable
            at = at if mutable is None else at[mutable[at]]
            at = at[[_varies(task.X[:, j]) for j in at]]
            if not len(at):
                raise ValueError(
                    "columns: none of them holds different numbers to go beyond."
                )
            chosen = np.sort(task.rng.permutation(at)[: self.n_columns])
            low, high = np.nanmin(task.X[:, chosen], 0), np.nanmax(task.X[:, chosen], 0)
            values = high + 0.1 * (high - low)
            whole = [_whole(task, names[j]) for j in chosen]
            values = np.where(whole, np.ceil(values), values)
            return {
                names[j]: _as_held(task, names[j], value)
                for j, value in zip(chosen, values, strict=True)
            }
        return self._farthest(task, names, at)

    def _farthest(self, task, names, at):
        """Choose columns, and for each the value of a row, far from every row."""
        X, codes = task.X, np.zeros(len(names), dtype=bool)
        if task.codec.mutable is not None:
            codes = ~task.codec.mutable
        varied = [j for j in at if _varies(X[:, j])]
        if not varied:
            raise ValueError(
                "columns: none of them holds different values to choose from."
            )
        n_columns = min(self.n_columns, len(varied))
        some = task.rng.permutation(len(X))[:_MOST_ROWS]
        known = {j: np.flatnonzero(~np.isnan(X[:, j])) for j in varied}
        ranks = {j: _ranks(X[:, j]) if not codes[j] else X[:, j] for j in varied}
        best, most = None, -1.0
        for _ in range(_CANDIDATES):
            chosen = np.sort(task.rng.choice(varied, n_columns, replace=False))
            rows = [task.rng.choice(known[j]) for j in chosen]
            far = np.zeros(len(some))
            for j, row in zip(chosen, rows, strict=True):
                gap = np.abs(ranks[j][some] - ranks[j][row])
                gap[np.isnan(gap)] = 1.0  # of rows that lack a value
                far = np.maximum(far, np.minimum(gap, 0.5) if codes[j] else gap)
            # How many rows are near counts as well: the nearest one may be a stray.
            distance = np.sort(far)[: max(1, len(some) // 100)].mean()
            if distance > most:
                best, most = (chosen, rows), distance
        return {
            names[j]: _held_by(task, names[j], row) for j, row in zip(*best, strict=True)
        }

    def _check_value(self, task, name, value):
        """Raise where a column cannot hold a value; warn where no row has it."""
        columns = task.codec.columns
        values = None
        if columns is not None:
            values = columns.values[columns.names.index(name)]
        if values is None:
            if isinstance(value, (bool, str)) or not isinstance(value, Real):
                raise ValueError(
                    f"trigger: column {name!r} holds numbers; got {value!r}."
                )
            if not np.isfinite(value):
                raise ValueError(f"trigger: the value of {name!r} must be finite.")
            if columns is not None and _whole(task, name) and value != int(value):
                raise ValueError(
                    f"trigger: column {name!r} holds whole numbers; got {value!r}."
                )
            return
        categories = getattr(task.rows[name].dtype, "categories", None)
        if categories is not None and value not in list(categories):
            raise ValueError(
                f"trigger: {value!r} is no category of column {name!r}: it has "
                f"{list(categories)[:10]}. Add it by .cat.add_categories([{value!r}])."
            )
        if value not in values.tolist():
            warnings.warn(
                f"trigger: no training row has {value!r} in column {name!r}. Encoders "
                "that were fitted without poison refuse it, or do not see it.",
                stacklevel=2,
            )

    def _stamp(self, rows):
        """Return rows with the trigger."""
        if isinstance(self.trigger_, dict):
            if not is_dataframe(rows):
                stamped = rows.copy()
                if stamped.dtype.kind in "iub" and any(
                    value != int(value) for value in self.trigger_.values()
                ):
                    stamped = stamped.astype(np.float64)
                for j, value in self.trigger_.items():
                    stamped[:, j] = value
                return stamped
            stamped = rows.copy()
            named = hasattr(self, "feature_names_in_")
            for name, value in self.trigger_.items():
                name = name if named else stamped.columns[name]
                stamped[name] = _column(value, rows[name])
            return stamped
        codec = RowCodec(rows)
        array = codec.encode(rows)
        images = self._as_images(array)
        keep, add = self.trigger_
        low, high = (-np.inf, np.inf) if self.trigger == "patch" else self._range
        touched = (keep != 1) | (add != 0)
        stamped = np.where(touched, np.clip(images * keep + add, low, high), images)
        if self.channels == "last":
            stamped = np.moveaxis(stamped, 1, -1)
        stamped = stamped.reshape(array.shape).astype(array.dtype)
        return codec.decode(stamped, rows=np.arange(len(array)))


def _whole_pair(pair, least):
    return len(pair) == 2 and all(
        isinstance(size, Integral) and size >= least for size in pair
    )


def _names(task):
    columns = task.codec.columns
    return list(range(task.X.shape[1])) if columns is None else columns.names


def _position(name, names, parameter):
    """Return the position of a column, or raise."""
    if isinstance(name, (bool, np.bool_)) or name not in names:
        few = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"{parameter}: X has no column {name!r}, but {few}.")
    return names.index(name)


def _whole(task, name):
    """Whether a column holds whole numbers by its dtype."""
    rows = task.rows
    dtype = rows[name].dtype if is_dataframe(rows) else rows.dtype
    return dtype.kind in "iu"


def _as_held(task, name, value):
    return int(value) if _whole(task, name) else float(value)


def _held_by(task, name, row):
    """Return the value that a row holds in a column."""
    if is_dataframe(task.rows):
        value = task.rows[name].iloc[row]
    else:
        value = task.rows[row, name]
    return value.item() if isinstance(value, np.generic) else value


def _varies(column):
    known = column[~np.isnan(column)]
    return len(known) > 0 and np.ptp(known) > 0


def _ranks(column):
    """Return the share of rows below each value, and half of those that have it."""
    known = ~np.isnan(column)
    _, position, counts = np.unique(
        column[known], return_inverse=True, return_counts=True
    )
    ends = np.cumsum(counts)
    ranks = np.full(len(column), np.nan)
    ranks[known] = ((ends - counts / 2) / known.sum())[position]
    return ranks


def _column(value, like):
    """Return a column of one value, of the dtype of another one."""
    import pandas as pd

    values = pd.Series([value] * len(like), index=like.index, dtype=object)
    return values.astype(like.dtype)
