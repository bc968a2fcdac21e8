"""What attacks on training data and their sanitizers share: data in, data out.

Both are samplers: ``fit_resample(X, y)`` gives other training data back. A subclass sees
encoded rows and class codes and says which rows change, which are new and which go; that
DataFrames, sparse matrices, labels and weights come out as they went in is done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from .._estimators import (
    allows_nan,
    check_trainable,
    ends_in_net,
    name_of,
    weight_parameter,
)
from .._labels import class_positions
from .._progress import ReportsProgress
from .._rows import RowCodec, check_rows, is_dataframe
from .._seeding import fit_seeded
from .._sklearn import (
    BaseEstimator,
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    _check_sample_weight,
    _check_y,
    _safe_indexing,
    fit_context,
    validate_data,
)
from ..defense._wrapping import AugmentedClassifier

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

GOALS = ("misclassification", "targeted")


@dataclass
class TrainingData:
    """Training data as attacks and sanitizers see it.

    Attributes
    ----------
    rows : {DataFrame, CSR matrix, ndarray}
        The rows as given: what estimators are fitted on.
    y : ndarray of shape (n_samples,)
        Class codes, positions in `classes`; numbers for regressors.
    classes : ndarray of shape (n_classes,) or None
        The labels; None for regressors.
    sample_weight : ndarray of shape (n_samples,) or None
        Weights, where some came in.
    rng : RandomState
        What is random is drawn from it.
    seed : int
        Seed of models that are trained more than once, each time alike.
    """

    rows: Any
    y: np.ndarray
    classes: np.ndarray | None
    sample_weight: np.ndarray | None
    rng: np.random.RandomState
    seed: int

    def numbers(self, sampler):
        """Return the rows for a sampler that measures distances between them."""
        if not is_dataframe(self.rows):
            return self.rows
        try:
            return self.rows.to_numpy(float)
        except (TypeError, ValueError):
            text = next(c for c in self.rows if not _holds_numbers(self.rows[c]))
            raise ValueError(
                f"X: {type(sampler).__name__} measures distances, and column {text!r} "
                "holds no numbers. Put what encodes it before the sanitizer: "
                "make_pipeline(encoder, SanitizedClassifier(classifier, sanitizer))."
            ) from None

    def labels(self, codes=None):
        """Return labels for codes, of all rows by default: what estimators are told."""
        codes = self.y if codes is None else codes
        return codes if self.classes is None else self.classes[codes]

    def select(self, indices):
        """Return some of the rows, as estimators take them."""
        return _safe_indexing(self.rows, indices)


def _holds_numbers(column):
    try:
        column.to_numpy(float)
    except (TypeError, ValueError):
        return False
    return True


@dataclass
class PoisonTask(TrainingData):
    """What an attack is asked to do.

    Attributes
    ----------
    budget : int
        How many rows may be changed, or added.
    codec : RowCodec or None
        Encodes rows as numbers; None for attacks on labels, which need no numbers.
    X : ndarray of float, shape (n_samples, ...), or None
        The encoded rows.
    """

    budget: int = 0
    codec: RowCodec | None = None
    X: np.ndarray | None = None

    def decode(self, array, indices=None):
        """Return encoded rows as estimators take them.

        `indices` says which rows they were; by default they are new ones.
        """
        if is_dataframe(self.rows):
            original = None if indices is None else self.X[indices]
            return self.codec.decode(np.asarray(array, dtype=float), original)
        return _as_dtype(array, self.rows.dtype)


@dataclass
class Poison:
    """What an attack does to the training data.

    Attributes
    ----------
    indices : ndarray of int or None
        The rows that are changed; None for rows that are added.
    y : ndarray of int or None
        Their class codes; None where labels stay.
    X : ndarray or None
        Their encoded features; None where only labels change.
    """

    indices: np.ndarray | None = None
    y: np.ndarray | None = None
    X: np.ndarray | None = None


@dataclass
class Verdict:
    """What a sanitizer thinks of the training data.

    Attributes
    ----------
    scores : ndarray of shape (n_samples,)
        Larger is more suspicious.
    suspects : ndarray of bool, shape (n_samples,), or None
        The rows that may be removed; None for all.
    y : ndarray of int or None
        Codes that suspicious rows are to have instead of being removed.
    """

    scores: np.ndarray
    suspects: np.ndarray | None = None
    y: np.ndarray | None = None


class Resampler(ReportsProgress, BaseEstimator):
    """Base of attacks and sanitizers: it checks what comes in."""

    random_state = 0  # of those that have no such parameter
    _takes_sparse = True

    def _fit_resample(self, X, y, sample_weight):
        raise NotImplementedError

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike | spmatrix | sparray, y: ArrayLike) -> Self:
        """Find what `fit_resample` would change, without giving the data back.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features) or \
                images of shape (n_samples, channels, height, width)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels.

        Returns
        -------
        self : object
            The fitted sampler.
        """
        self._fit_resample(X, y, None)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_resample(
        self,
        X: ArrayLike | spmatrix | sparray,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[Any, Any, np.ndarray]:
        """Return other training data.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features) or \
                images of shape (n_samples, channels, height, width)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights.

        Returns
        -------
        X : of the type of `X`
            Rows: DataFrames keep their dtypes and index, sparse matrices become CSR.
        y : of the type of `y`
            Their labels.
        sample_weight : ndarray
            Their weights; only where some came in.
        """
        return self._fit_resample(X, y, sample_weight)

    def _check(self, X, y, sample_weight):
        """Return the data as a dict of what `TrainingData` holds, and `y` as given."""
        rows = self._check_rows(X)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        given = y if hasattr(y, "iloc") and y.ndim == 1 else None
        regression = self._is_regression()
        y = _check_y(y, multi_output=False, y_numeric=regression, estimator=self)
        check_consistent_length(X, y)
        classes, codes = None, y
        if not regression:
            check_classification_targets(y)
            classes = np.unique(y)
            if len(classes) < 2:
                raise ValueError(
                    f"y has one class only, {classes.item(0)!r}; {type(self).__name__} "
                    "needs at least two."
                )
            codes = class_positions(y, classes, "y")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, rows, ensure_non_negative=True
            )
        data = {
            "rows": rows,
            "y": codes,
            "classes": classes,
            "sample_weight": sample_weight,
        }
        return data, y if given is None else given

    def _check_rows(self, X, *, reset=True):
        allow_nan = self._allows_nan()
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return check_rows(X, type(self).__name__, allow_nan=allow_nan)
        if issparse(X) and not self._takes_sparse:
            raise TypeError(
                f"{type(self).__name__} changes features and takes no sparse matrix: "
                "pass X.toarray(), or attack the labels alone."
            )
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            allow_nd=True,
            ensure_all_finite="allow-nan" if allow_nan else True,
        )

    def _allows_nan(self):
        estimator = getattr(self, "estimator", None)
        return estimator is not None and allows_nan(estimator)

    def _allows_sparse(self):
        estimator = getattr(self, "estimator", None)
        inside = estimator is None or get_tags(estimator).input_tags.sparse
        return inside and self._takes_sparse

    def _is_regression(self):
        return False

    def _trained_on(self, estimator, data, seed=None):
        """Train a clone of an estimator on training data."""
        return train_on(estimator, data.rows, data.labels(), data.sample_weight, seed)

    def _own_estimator(self):
        """Return the estimator that this one trains for itself."""
        if self.estimator is None:
            raise ValueError(
                f"{type(self).__name__} is a prototype, since estimator is None: set "
                "estimator, or wrap it in a PoisonedClassifier or SanitizedClassifier, "
                "which lend it theirs."
            )
        check_trainable(self.estimator, "estimator")
        return self.estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = self._allows_sparse()
        tags.input_tags.allow_nan = self._allows_nan()
        return tags


class PoisoningAttack(Resampler):
    """Base of the attacks on training data.

    A subclass lists its parameters, sets `changes` and `knowledge`, and writes
    ``_poison(task)``, which takes a `PoisonTask` and returns a `Poison`. Of its
    parameters, these are read here.

    Parameters
    ----------
    estimator : classifier or None
        The surrogate: what the attacker thinks is trained on the data. None makes the
        attack a prototype, which takes the classifier that it is to poison.
    budget : int or float
        How many rows are poisoned: a number, or a share of the training rows, rounded
        down. Rows that the attack adds come on top of these.
    goal : {"misclassification", "targeted"}
        Whether predictions shall be wrong, or shall be a given class.
    random_state : int, RandomState instance or None
        Seed.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the poisoned rows in the data that is returned: exactly those that
        differ from what came in.
    sample_indices_ : ndarray of int, shape (n_samples_out,)
        The row that each returned row comes from; -1 for new ones. New rows stand at
        random places, since splits that do not shuffle would otherwise miss them.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    Sanitizer : Base of the other side.
    PoisonedClassifier : Carries one through a search.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_advsec.poisoning import LabelFlipping, PoisoningAttack
    >>> issubclass(LabelFlipping, PoisoningAttack)
    True
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = LabelFlipping(strategy="random", budget=0.1, random_state=0)
    >>> _, poisoned = attack.fit_resample(X, y)
    >>> np.array_equal(np.flatnonzero(poisoned != y), attack.poison_indices_)
    True
    """

    changes = "labels"
    knowledge = "label"
    goal = "misclassification"
    target = None
    n_jobs = None

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "budget": [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="both"),
        ],
        "goal": [StrOptions(set(GOALS))],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    @property
    def _takes_sparse(self):
        return self.changes == "labels"

    def _allows_nan(self):  # new features come of all the old ones
        return self.changes == "labels" and super()._allows_nan()

    def _prepare(self, task):
        """Decide, for a `PoisonTask`, what counts also where the budget is 0."""

    def _poison(self, task):
        """Return the `Poison` for a `PoisonTask`."""
        raise NotImplementedError

    def _fit_resample(self, X, y, sample_weight):
        data, given = self._check(X, y, sample_weight)
        rng = check_random_state(self.random_state)
        placing = np.random.RandomState(rng.randint(2**31 - 1))
        seed = int(rng.randint(2**31 - 1))
        codec = array = None
        if self.changes != "labels":
            codec = RowCodec(data["rows"])
            array = codec.encode(data["rows"])
        budget = self._count(len(data["y"]))
        task = PoisonTask(**data, rng=rng, seed=seed, budget=budget, codec=codec, X=array)
        self.classes_ = data["classes"]
        with self._reported(X, y):
            self._prepare(task)
            poison = self._poison(task) if budget else _nothing(self.changes, array)
        return self._assemble(task, given, poison, placing)

    def _count(self, n):
        """Return the budget as a number of rows."""
        if isinstance(self.budget, Integral):
            if self.budget > n:
                raise ValueError(f"budget={self.budget} is more than the {n} rows of X.")
            return int(self.budget)
        return int(self.budget * n + 1e-9)

    def _assemble(self, task, y, poison, placing):
        """Put poison and data together, and tell which is which."""
        n = len(task.y)
        if self.changes == "added":
            n_new = len(poison.y)
            at = np.sort(placing.choice(n + n_new, n_new, replace=False))
            sources = np.full(n + n_new, -1)
            sources[np.delete(np.arange(n + n_new), at)] = np.arange(n)
            rows, codes = task.decode(poison.X), poison.y
        else:
            sources = np.arange(n)
            at, rows, codes = _really_changed(task, poison)
        counts = np.bincount(task.y[sources[np.delete(np.arange(len(sources)), at)]])
        if (counts > 0).sum() + len(np.setdiff1d(codes, np.flatnonzero(counts))) < 2:
            raise ValueError(
                f"budget={self.budget!r} leaves one class only, so that nothing can be "
                "trained. Lower it."
            )
        self.poison_indices_, self.sample_indices_ = at, sources
        X = task.rows if rows is None else with_rows(task.rows, sources, at, rows)
        y = _with_labels(y, sources, at, task.classes[codes])
        if task.sample_weight is None:
            return X, y
        mean = task.sample_weight.mean()
        return X, y, np.where(sources < 0, mean, task.sample_weight[sources])


class Sanitizer(Resampler):
    """Base of the defenses that remove or relabel suspicious training rows.

    A subclass lists its parameters, `contamination` among them, and writes
    ``_decide(data)``, which takes `TrainingData` and returns a `Verdict`.

    Parameters
    ----------
    contamination : float
        Largest share of each class that is removed or relabelled (of all rows, for
        regressors): the most suspicious ones.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        How suspicious each row that came in is; larger is more.
    sample_indices_ : ndarray of int, shape (n_samples_out,)
        The rows that were kept.
    relabelled_ : ndarray of int
        Positions of relabelled rows in the data that is returned.

    See Also
    --------
    PoisoningAttack : Base of the other side.
    SanitizedClassifier : Carries one through a search.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_advsec.poisoning import KNNSanitizer, Sanitizer
    >>> issubclass(KNNSanitizer, Sanitizer)
    True
    >>> X, y = load_iris(return_X_y=True)
    >>> y[:5] = 2  # flipped
    >>> sanitizer = KNNSanitizer(contamination=0.1, action="remove")
    >>> kept, _ = sanitizer.fit_resample(X, y)
    >>> set(range(5)).isdisjoint(sanitizer.sample_indices_)
    True
    """

    _parameter_constraints = {
        "contamination": [Interval(Real, 0, 1, closed="both")],
    }

    def _decide(self, data):
        """Return the `Verdict` on `TrainingData`."""
        raise NotImplementedError

    def _fit_resample(self, X, y, sample_weight):
        data, given = self._check(X, y, sample_weight)
        rng = check_random_state(self.random_state)
        data = TrainingData(**data, rng=rng, seed=int(rng.randint(2**31 - 1)))
        with self._reported(X, y):
            verdict = self._decide(data)
        self.scores_ = verdict.scores
        chosen = self._most_suspicious(data, verdict)
        relabelled, kept = np.empty(0, dtype=int), np.arange(len(data.y))
        codes = data.y[:0]
        if verdict.y is None:
            kept = np.delete(kept, chosen)
        else:
            relabelled = chosen[verdict.y[chosen] != data.y[chosen]]
            codes = verdict.y[relabelled]
            self._check_left(data, np.append(np.delete(data.y, relabelled), codes))
        self.sample_indices_, self.relabelled_ = kept, relabelled
        X = data.rows if len(kept) == len(data.y) else data.select(kept)
        y = _with_labels(given, kept, relabelled, data.labels(codes))
        if sample_weight is None:
            return X, y
        return X, y, data.sample_weight[kept]

    def _check_left(self, data, codes):
        """Raise where codes lack a class."""
        left = np.isin(np.arange(len(data.classes)), codes)
        if not left.all():
            raise ValueError(
                f"contamination={self.contamination} relabels every row of "
                f"{data.classes[~left].tolist()[0]!r}: lower it."
            )

    def _most_suspicious(self, data, verdict):
        """Return the rows of largest scores, in each class as many as are allowed."""
        codes = np.zeros(len(data.y), dtype=int) if data.classes is None else data.y
        chosen = []
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            n_most = int(self.contamination * len(rows) + 1e-9)
            allowed = rows
            if verdict.suspects is not None:
                allowed = rows[verdict.suspects[rows]]
            order = np.argsort(-verdict.scores[allowed], kind="stable")
            chosen.append(allowed[order[:n_most]])
            if verdict.y is None and len(chosen[-1]) == len(rows):
                name = "row"
                if data.classes is not None:
                    name += f" of {data.classes.tolist()[code]!r}"
                raise ValueError(
                    f"contamination={self.contamination} removes every {name}: lower it."
                )
        return np.sort(np.concatenate(chosen))


def train_on(estimator, X, y, sample_weight=None, seed=None):
    """Fit a clone of an estimator, seeded; nets learn any labels."""
    if ends_in_net(estimator):
        if sample_weight is not None:
            raise ValueError(
                f"sample_weight: {name_of(estimator)} takes none. Leave it out."
            )
        if seed is not None and not hasattr(estimator, "steps"):
            return AugmentedClassifier(estimator, random_state=seed).fit(X, y)
    weights = {}
    if sample_weight is not None:
        last, name = weight_parameter(estimator)
        if name is None:
            raise ValueError(f"sample_weight: {name_of(last)} takes none. Leave it out.")
        weights = {name: sample_weight}
    if seed is None:
        return clone(estimator).fit(X, y, **weights)
    return fit_seeded(estimator, seed, X, y, **weights)


def _nothing(changes, array):
    none = np.empty(0, dtype=int)
    if changes == "added":
        return Poison(y=none, X=array[:0])
    return Poison(none, none)


def _really_changed(task, poison):
    """Return which rows differ from what they were, these rows, and their codes."""
    order = np.argsort(poison.indices, kind="stable")
    at = poison.indices[order]
    codes = task.y[at] if poison.y is None else poison.y[order]
    differ = codes != task.y[at]
    rows = None
    if poison.X is not None:
        rows = task.decode(poison.X[order], at)
        now = task.codec.encode(rows).reshape(len(at), -1)
        was = task.X[at].reshape(len(at), -1)
        differ |= ((now != was) & ~(np.isnan(now) & np.isnan(was))).any(1)
        rows = _safe_indexing(rows, np.flatnonzero(differ))
    return at[differ], rows, codes[differ]


def _as_dtype(array, dtype):
    """Give numbers the dtype of the data, unless that has no room for fractions."""
    if dtype.kind == "f":
        return array.astype(dtype)
    whole = np.rint(array)
    return whole.astype(dtype) if np.array_equal(whole, array) else array


def with_rows(rows, sources, at, new):
    """Return rows with new ones in some places."""
    order = sources.copy()
    order[at] = len(rows) + np.arange(len(at))
    if not is_dataframe(rows):
        return np.concatenate([rows, new])[order]
    import pandas as pd

    frame = pd.concat([rows, new.set_axis(rows.columns, axis=1)]).iloc[order]
    return frame.set_axis(_index(rows.index, sources), axis=0)


def _with_labels(y, sources, at, labels):
    """Return labels with others in some places."""
    if not hasattr(y, "iloc"):
        out = y[np.maximum(sources, 0)]
        out[at] = labels
        return out
    out = y.iloc[np.maximum(sources, 0)].set_axis(_index(y.index, sources)).copy()
    out.iloc[at] = labels
    return out


def _index(index, sources):
    """Return the index of rows; new ones get the next numbers."""
    new = sources < 0
    if not new.any():
        return index[sources]
    import pandas as pd

    numbers = pd.api.types.is_integer_dtype(index.dtype) and len(index)
    first = int(index.max()) + 1 if numbers else 0
    order = sources.copy()
    order[new] = len(index) + np.arange(new.sum())
    return index.append(pd.RangeIndex(first, first + new.sum()))[order]
