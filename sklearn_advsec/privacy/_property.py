"""Property inference: how much of a group there is in a training set."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from joblib import parallel_config
from numpy.typing import ArrayLike
from sklearn.base import MetaEstimatorMixin, clone, is_regressor
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from .._estimators import allows_nan, may_take_nan
from .._progress import ReportsProgress
from .._rows import check_rows, is_dataframe, plain_rows
from .._sklearn import (
    BaseEstimator,
    HasMethods,
    Interval,
    _safe_indexing,
    fit_context,
    validate_data,
)
from ..batched import fit_many
from ..victim._fitting import VICTIM
from ._base import check_target
from ._records import Records, column_position
from ._shadow_base import as_recipe_takes_them, check_device, shadow_recipe
from ._signals import (
    as_target_takes_them,
    check_probabilities,
    predicted_codes,
    probabilities,
    residuals,
)

if TYPE_CHECKING:
    from joblib import Memory

# Fewer shadow models are too few for an interval of their errors.
_FEWEST = 8

# Probabilities closer to 0 or 1 than this count as equal.
_LEAST = 1e-3


class PropertyInference(ReportsProgress, MetaEstimatorMixin, BaseEstimator):
    """Infer the share of a group in the training set, from the answers of the model.

    What leaks is not who was in, but a fact about all who were: the share of women among
    the patients, of one customer among the contracts. Shadow models are trained on the
    attacker's records with shares drawn at random; a regressor learns to tell the share
    from their answers to a fixed set of queries, and is handed the target's.

    The records are cut in two, and every shadow model is trained on one half. Errors are
    those about models of the one by regressors that know models of the other: else they
    would learn to recognise the records, which are not the target's, and find a share
    where none leaks.

    What counts is how much less is then unknown than before: `error_` stands beside
    `prior_error_`, the error of who goes by the prior, which is uniform between `shares`.
    Often there is no difference.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`. A
        classifier needs `predict_proba`.
    group : callable or tuple (column, value)
        Which records belong to the group: a function from records to a mask, or a column,
        by name or position, and the value that it has in the group.
    shadow_estimator : classifier or regressor, default=None
        The recipe of the shadow models; see :class:`ShadowAttack`.
    n_shadow_models : int, default=64
        Number of shadow models, 8 or more.
    shadow_size : int, default=None
        Number of records that each shadow model is trained on: best as many as the
        target. None takes as many as half of the records have for any of the `shares`.
    shares : tuple of float (low, high), default=(0.1, 0.9)
        The prior: between which shares of the group it lies, with equal chances.
    n_queries : int, default=200
        Number of records that the models are asked about. They are drawn from the
        attacker's, and no shadow model is trained on them.
    attack_estimator : regressor, default=None
        What tells the share from answers. None is ridge regression on standardised
        answers, with the penalty of the least `error_`.
    confidence : float, default=0.9
        Probability that the interval holds the share.
    label_column : int, str or None, default=-1
        The column of the records that holds the label; shadow models need it.
    memory : str or joblib.Memory, default=None
        Where finished shadow models are kept; see :class:`ShadowAttack`.
    device : str or torch.device, default=None
        Where batched shadow models are trained; see :class:`ShadowAttack`.
    n_jobs : int, default=None
        Number of joblib jobs; the result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    share_ : float
        The share of the group in the target's training set, as inferred.
    interval_ : tuple of float (low, high)
        Where it lies with `confidence`, by the errors about shadow models of the other
        half. It holds on average over the prior, where the target was trained as they
        were; that is not checked.
    error_ : float
        Root mean squared error about shadow models of the other half.
    prior_error_ : float
        The same of who says the mean share of the one half for all of the other.
    r2_ : float
        One less the square of their ratio: 0, or below, where nothing leaks.
    shadow_shares_ : ndarray of shape (n_shadow_models,)
        The shares that shadow models were trained with. (The models are not kept.)
    shadow_answers_ : ndarray of shape (n_shadow_models, n_answers)
        What they said of the queries: log-odds of each class, of the second one where
        there are two; of a regressor, predictions.
    attack_estimator_ : regressor
        The fitted regressor.
    queries_ : {ndarray, DataFrame} of shape (n_queries, n_columns)
        The records that the models were asked about.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    LossThreshold : Whether one record was in the training set.
    AttributeInference : A missing column of one record.

    References
    ----------
    .. [1] G. Ateniese et al., "Hacking smart machines with smarter ones: how to extract
       meaningful data from machine learning classifiers", arXiv:1306.4447 (shadow models
       with and without a property).
    .. [2] A. Suri and D. Evans, "Formalizing and estimating distribution inference
       risks", arXiv:2109.06024 (attacks by answers, and shares by regression).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.privacy import PropertyInference, make_records
    >>> rng = np.random.default_rng(0)
    >>> group = rng.integers(0, 2, size=4000)
    >>> X = np.column_stack([rng.normal(size=(4000, 3)), group])
    >>> y = (X[:, 0] + 2 * group * X[:, 1] > 0).astype(int)  # they differ in habits
    >>> records = make_records(X, y)
    >>> mine, theirs = records[:3000], records[3000:]
    >>> theirs = theirs[(theirs[:, 3] == 1) | (np.arange(1000) % 4 == 0)]
    >>> target = LogisticRegression().fit(theirs[:, :-1], theirs[:, -1])
    >>> attack = PropertyInference(FrozenEstimator(target), group=(3, 1))
    >>> attack = attack.fit(mine)
    >>> low, high = attack.interval_
    >>> bool(low < np.mean(theirs[:, 3]) < high), bool(attack.r2_ > 0.5)
    (True, True)
    """

    knowledge = "score"

    _parameter_constraints = {
        "estimator": VICTIM,
        "group": [callable, tuple, list],
        "shadow_estimator": [HasMethods(["fit"]), None],
        "n_shadow_models": [Interval(Integral, _FEWEST, None, closed="left")],
        "shadow_size": [Interval(Integral, 2, None, closed="left"), None],
        "shares": [tuple, list],
        "n_queries": [Interval(Integral, 1, None, closed="left")],
        "attack_estimator": [HasMethods(["fit", "predict"]), None],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "label_column": [Integral, str, None],
        "memory": [str, HasMethods(["cache"]), None],
        "device": [str, torch.device, None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        group: Callable[[Any], ArrayLike] | tuple[Hashable, Any],
        *,
        shadow_estimator: Any = None,
        n_shadow_models: int = 64,
        shadow_size: int | None = None,
        shares: Sequence[float] = (0.1, 0.9),
        n_queries: int = 200,
        attack_estimator: Any = None,
        confidence: float = 0.9,
        label_column: int | str | None = -1,
        memory: str | Memory | None = None,
        device: str | torch.device | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.group = group
        self.shadow_estimator = shadow_estimator
        self.n_shadow_models = n_shadow_models
        self.shadow_size = shadow_size
        self.shares = shares
        self.n_queries = n_queries
        self.attack_estimator = attack_estimator
        self.confidence = confidence
        self.label_column = label_column
        self.memory = memory
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Train shadow models, learn to tell the share, and ask the target.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            The attacker's records: features, and the label in `label_column`. The group,
            and the others, are drawn from them.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted attack.
        """
        check_device(self.device)
        low, high = self._check_shares()
        X = self._check_X(X)
        self.estimator_ = check_target(
            self.estimator, type(self).__name__, regressors=True
        )
        if not is_regressor(self.estimator_):
            check_probabilities(self.estimator_)
        records = self._records(X)
        member = self._members(X)
        rng = check_random_state(self.random_state)
        queries, halves = self._split(member, rng)
        size = self._size(halves, low, high)
        shares = rng.uniform(low, high, size=self.n_shadow_models)
        counts = np.clip(np.round(shares * size).astype(int), 0, size)
        half = np.arange(self.n_shadow_models) % 2
        subsets = []
        for i, count in zip(half, counts, strict=True):
            group, others = (rng.permutation(pool) for pool in halves[i])
            subsets.append(np.sort(np.r_[group[:count], others[: size - count]]))
        self.shadow_shares_ = counts / size
        recipe = shadow_recipe(self.estimator_, self.shadow_estimator)
        with self._reported(X, None):
            tasks = self._tasks(range(self.n_shadow_models), "shadow model", stops=False)
            next(tasks)
            self.queries_ = _safe_indexing(X, queries)
            asked = _safe_indexing(records.features, queries)
            classes = None
            if not is_regressor(self.estimator_):
                classes = np.asarray(self.estimator_.classes_)
            # Answers come back from the workers, not the models: they are much smaller.
            self.shadow_answers_ = np.stack(
                fit_many(
                    recipe,
                    as_recipe_takes_them(records.features, recipe),
                    records.labels,
                    subsets,
                    rng.randint(2**31 - 1, size=self.n_shadow_models),
                    n_jobs=self.n_jobs,
                    memory=self.memory,
                    device=self.device,
                    callback=lambda *_: next(tasks, None),
                    result=partial(_answers, asked, classes),
                )
            )
        told = _answers(asked, classes, self.estimator_)
        # So few rows go to no cluster, whatever trained the shadows.
        with parallel_config(backend="sequential"):
            self._learn(self.shadow_answers_, told, PredefinedSplit(half))
        return self

    def _n_tasks(self):
        return self.n_shadow_models

    def _learn(self, told, target, halves):
        shares, regressor = self.shadow_shares_, self.attack_estimator
        if regressor is None:
            search = GridSearchCV(
                make_pipeline(StandardScaler(), Ridge()),
                {"ridge__alpha": np.geomspace(1, 1e7, 15)},
                scoring="neg_mean_squared_error",
                cv=halves,
                refit=False,
            )
            search.fit(told, shares)
            regressor = search.estimator.set_params(**search.best_params_)
        guessed = cross_val_predict(clone(regressor), told, shares, cv=halves)
        errors = np.abs(guessed - shares)
        self.error_ = float(np.sqrt(np.mean(errors**2)))
        mean = cross_val_predict(DummyRegressor(), told, shares, cv=halves)
        self.prior_error_ = float(np.sqrt(np.mean((mean - shares) ** 2)))
        self.r2_ = 1 - (self.error_ / max(self.prior_error_, 1e-12)) ** 2
        self.attack_estimator_ = clone(regressor).fit(told, shares)
        inferred = float(self.attack_estimator_.predict(target[np.newaxis])[0])
        self.share_ = float(np.clip(inferred, 0, 1))
        rank = min(int(np.ceil((len(errors) + 1) * self.confidence)), len(errors))
        width = np.sort(errors)[rank - 1]
        ends = np.clip([inferred - width, inferred + width], 0, 1)
        self.interval_ = tuple(float(end) for end in ends)

    def _check_shares(self):
        shares = np.asarray(self.shares, dtype=object)
        numbers = all(isinstance(share, Real) for share in shares.ravel())
        if shares.shape != (2,) or not numbers or not 0 <= shares[0] < shares[1] <= 1:
            raise ValueError(
                f"shares must be two numbers, 0 <= low < high <= 1; got {self.shares!r}."
            )
        return float(shares[0]), float(shares[1])

    def _records(self, X):
        classes = None
        if not is_regressor(self.estimator_):
            classes = np.asarray(self.estimator_.classes_)
        records = Records(X, self.label_column, classes)
        records.features = as_target_takes_them(records.features, self.estimator_)
        if self.label_column is None:  # as of membership attacks: the target's own answer
            if classes is None:
                none = np.zeros(len(X))
                records.values = -residuals(self.estimator_, records.features, none)
            else:
                records.codes = predicted_codes(self.estimator_, records.features)
        return records

    def _members(self, X):
        """Return which records belong to the group."""
        if callable(self.group):
            try:
                member = np.asarray(self.group(X))
            except Exception as error:
                raise ValueError(
                    f"group raised an error on the records X: {error!r}"
                ) from error
            if member.shape != (len(X),) or member.dtype != bool:
                raise ValueError(
                    f"group must return a bool for each of the {len(X)} records; it "
                    f"returned shape {member.shape} of {member.dtype}."
                )
            return member
        column, value = self.group if len(self.group) == 2 else (None, None)
        if not isinstance(column, (Integral, str)) or np.ndim(value):
            raise ValueError(
                f"group must be a function or a pair (column, value); got {self.group!r}."
            )
        position = column_position(X, column, "group")
        values = X.iloc[:, position] if is_dataframe(X) else X[:, position]
        try:
            return np.asarray(values == value, dtype=bool)
        except TypeError as error:
            raise ValueError(f"group={self.group!r}: {error}") from error

    def _split(self, member, rng):
        """Draw the queries, and return them, and two halves of the group and others."""
        kinds = [np.flatnonzero(member), np.flatnonzero(~member)]
        for kind, text in zip(kinds, ("of the group", "of others"), strict=True):
            if len(kind) < 4:
                raise ValueError(
                    f"group={self.group!r}: there are {len(kind)} records {text}; shadow "
                    "models are trained on both. Four are the least."
                )
        n = len(member)
        n_queries = min(self.n_queries, n // 4 or 1)  # most are to train on
        kept = np.zeros(n, dtype=bool)
        kinds = [rng.permutation(kind) for kind in kinds]
        for kind in kinds:
            kept[kind[:4]] = True
        free = rng.permutation(np.flatnonzero(~kept))
        queries = np.sort(free[:n_queries])
        if not len(queries):
            raise ValueError(
                f"n_samples={n}: queries, and records to train on, are more."
            )
        kinds = [kind[~np.isin(kind, queries)] for kind in kinds]
        return queries, [[kind[half::2] for kind in kinds] for half in (0, 1)]

    def _size(self, halves, low, high):
        n_group, n_others = map(len, halves[1])  # the smaller one
        largest = min(
            n_group / high if high > 0 else np.inf,
            n_others / (1 - low) if low < 1 else np.inf,
        )
        largest = int(largest)
        size = largest if self.shadow_size is None else int(self.shadow_size)
        if not 2 <= size <= largest:
            raise ValueError(
                f"shadow_size={self.shadow_size}: half of the records has {n_group} of "
                f"the group and {n_others} others, so that shares from {low} to {high} "
                f"can be had for at most {largest} records. Give more records, or "
                "narrower shares."
            )
        return size

    def _check_X(self, X):
        allow_nan = may_take_nan(self.estimator)
        X, _ = plain_rows(X)
        if is_dataframe(X):
            validate_data(self, X, reset=True, skip_check_array=True)
            return check_rows(X, type(self).__name__, allow_nan=allow_nan)
        return validate_data(
            self,
            X,
            reset=True,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if allow_nan else True,
            ensure_min_samples=8,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


def _answers(features, classes, model):
    """Return what a model says of the queries, as one row of numbers."""
    features = as_recipe_takes_them(features, model)
    if classes is None:
        return -residuals(model, features, np.zeros(len(features)))
    proba = np.clip(probabilities(model, features, classes), _LEAST, 1 - _LEAST)
    if proba.shape[1] == 2:
        proba = proba[:, 1:]
    return np.log(proba / (1 - proba)).ravel()
