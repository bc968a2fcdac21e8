"""Base of the evasion attacks: input checks, chunks of rows, budgets and results."""

from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    _fit_context,
    clone,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.utils import _safe_indexing, check_random_state, gen_batches, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_y,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from .._estimators import allows_nan, name_of
from .._labels import class_positions
from .._rows import check_rows, is_dataframe
from ..exceptions import QueryBudgetExceeded
from ..threat import Box, FeatureConstraints
from ..victim import GradientAccess, LabelAccess, ScoreAccess
from ..victim._validation import check_victim
from ._active_rows import ActiveRows
from ._constrained import ConstrainedAccess, ball_of
from ._goal import GOALS, LOSSES, Goal
from ._state import AttackState, concatenate, record_last

_ACCESS = {"label": LabelAccess, "score": ScoreAccess, "gradient": GradientAccess}

# How many batches of rows are attacked together at most, and in how many parts rows are
# split for each of several workers.
_CHUNK_BATCHES, _PARTS = 8, 2
# Under a total, this many rows go first where their cost is not known beforehand.
_FIRST_ROWS = 8

SPENT = (
    "max_queries={} is spent before the attack begins: the target, or the confidence, "
    "costs a query by itself. Raise it."
)

# What the parameters that attacks share may be; each attack picks those that it has.
SHARED = {
    "eps": [Interval(Real, 0, None, closed="left"), "array-like", dict],
    "step_size": [Interval(Real, 0, None, closed="neither"), None],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "goal": [StrOptions({"misclassification", "targeted"})],
    "target": "no_validation",  # against the classes, in `fit` and `run`
    "loss": [StrOptions(set(LOSSES))],
    "start": [StrOptions({"noise", "data"})],
    "n_restarts": [Interval(Integral, 1, None, closed="left")],
    "random_start": ["boolean"],
    "early_stopping": ["boolean"],
    "bounds": [StrOptions({"data"}), tuple, list, None],
    "precision": [StrOptions({"full", "mixed"})],
    "image_shape": [tuple, list, None],
    "max_queries": [Interval(Integral, 1, None, closed="left"), None],
    "max_total_queries": [Interval(Integral, 0, None, closed="left"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "random_state": ["random_state"],
}
# Of attacks that know of probabilities.
WITH_CONFIDENCE = {
    "goal": [StrOptions(set(GOALS))],
    "target": SHARED["target"],
    "confidence": [Interval(Real, 0, 1, closed="neither"), None],
}


def shared(*names):
    """Return the constraints of some parameters that attacks share."""
    return {name: SHARED[name] for name in names}


def norms(*allowed):
    """Return the constraints of `norm`, which may be named too."""
    names = {np.inf: {"inf", "linf"}, 2: {"l2"}, 1: {"l1"}, 0: {"l0"}}
    named = set().union(*(names[norm] for norm in allowed))
    return [Options(Real, set(allowed)), StrOptions(named)]


@dataclass(frozen=True)
class Chunk:
    """Rows that are attacked together, and what may be spent on them.

    Attributes
    ----------
    X : {ndarray, DataFrame} of shape (n_rows, ...)
        The rows.
    rows : ndarray of int, shape (n_rows,)
        Their positions in the input of `run`.
    y : ndarray of shape (n_rows,) or None
        Positions of their labels in the victim's classes; of a regressor, the targets.
    target : ndarray of int, shape (n_rows,), "least_likely" or None
        Positions of the wanted classes.
    seed : int
        The same for all chunks: rows share their draws wherever they are, so that the
        result depends on `batch_size` no more than on `n_jobs`.
    max_queries, max_total_queries : int or None
        What may be asked about each row, and about all of them.
    """

    X: object
    rows: np.ndarray
    y: np.ndarray | None = None
    target: object = None
    seed: int = 0
    max_queries: int | None = None
    max_total_queries: int | None = None

    def __len__(self):
        return len(self.rows)

    def select(self, at, **budget):
        """Return some of the rows, given as a slice, or by their positions."""
        target = self.target
        if isinstance(target, np.ndarray):
            target = target[at]
        return replace(
            self,
            X=_safe_indexing(self.X, at),
            rows=self.rows[at],
            y=None if self.y is None else self.y[at],
            target=self.target[at]
            if isinstance(self.target, np.ndarray)
            else self.target,
            **budget,
        )


class EvasionAttack(
    OneToOneFeatureMixin, TransformerMixin, MetaEstimatorMixin, BaseEstimator
):
    """Base of the attacks that move rows until the victim gets them wrong.

    A subclass states its `knowledge`, lists its parameters, and writes `_attack`. The
    parameters that this class reads are `estimator`, `norm`, `goal`, `target`,
    `confidence`, `bounds`, `constraints`, `max_queries`, `max_total_queries`,
    `batch_size`, `n_jobs` and `random_state`; a subclass that has no use for one leaves
    it out, and its value is then the class attribute of that name. Every public attack
    has `constraints`.

    Attributes
    ----------
    knowledge : {"gradient", "score", "label"}
        What the attacker sees of the victim (class attribute).
    """

    knowledge = None
    norm = np.inf
    goal = "misclassification"
    target = None
    confidence = None
    bounds = "data"
    constraints = None
    max_queries = None
    max_total_queries = None
    batch_size = "auto"
    n_jobs = None
    random_state = 0
    verbose = 0

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"]), None],
        "constraints": [FeatureConstraints, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    # What a user calls ------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the victim (a frozen one is kept) and learn the range of the data.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted and from which `bounds` are learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.

        Returns
        -------
        self : object
            The fitted attack.
        """
        if self.estimator is None:
            raise ValueError(
                f"{type(self).__name__}(estimator=None) is a prototype for scorers, "
                "displays and defenses. To attack, set estimator to a classifier, or to "
                "FrozenEstimator(classifier) if it is fitted already."
            )
        if y is None and self.__sklearn_tags__().target_tags.required:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None. Wrap a victim that is fitted already: FrozenEstimator(estimator)."
            )
        X = self._check_X(X, reset=True)
        if self.constraints is not None:
            self.constraints.encode(X[:1])  # raises where the columns do not fit
        if y is not None:
            regression = is_regressor(self.estimator)
            y = _check_y(y, multi_output=False, y_numeric=regression)
            check_consistent_length(X, y)
            if not regression:
                check_classification_targets(y)
        self._check_parameters(self.row_shape_)
        self.estimator_ = clone(self.estimator).fit(X, y)
        check_victim(self.estimator_)
        self._check_target(self.target, n_rows=None)
        self.box_ = Box(self.bounds, X)
        self.batch_size_ = self._choose_batch_size(X)
        if hasattr(self, "max_iter"):
            self.n_iter_ = self.max_iter
        return self

    def transform(self, X):
        """Attack the victim's own predictions, so that no label leaks.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows to attack.

        Returns
        -------
        X_adv : {ndarray, DataFrame} of shape (n_samples, ...)
            ``run(X).X_adv``.
        """
        check_is_fitted(self)
        return self.run(X).X_adv

    def run(self, X, y=None, target=None):
        """Attack rows, and say what was reached.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows to attack.
        y : array-like of shape (n_samples,), default=None
            True labels. Rows that the victim gets wrong already are successes of
            distance 0. By default the victim's own predictions are attacked.
        target : class label, "least_likely" or array-like of shape (n_samples,), \
                default=None
            Wanted class, instead of the parameter of that name.

        Returns
        -------
        result : EvasionResult
            Adversarial rows, the victim's predictions for them, success, distance and
            number of queries.

        Raises
        ------
        QueryBudgetExceeded, KeyboardInterrupt
            Where the attack ends early; ``exception.result`` is the
            :class:`EvasionResult` of the rows that were finished by then.
        """
        check_is_fitted(self)
        return self._run(self._rows_to_attack(X, y, target))

    def score(self, X, y, sample_weight=None):
        """Robust accuracy: the victim's accuracy on the attacked rows.

        `GridSearchCV` maximises this. To tune an *attack*, pass
        ``scoring=attack_success_scorer``.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows to attack.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Sample weights.

        Returns
        -------
        score : float
            Share of rows that the victim still gets right; of a regressor, whose
            prediction is still within `delta` of `y`.
        """
        check_is_fitted(self)
        y_pred = self.run(X, y).y_pred
        if is_regressor(self.estimator_):
            near = np.abs(np.asarray(y) - y_pred) <= self.estimator_.delta
            return float(np.average(near, weights=sample_weight))
        return float(accuracy_score(y, y_pred, sample_weight=sample_weight))

    # What a subclass writes, or may change ----------------------------------------------

    def _attack(self, state):
        """Attack all rows of an :class:`AttackState`; the one method of a subclass."""
        raise NotImplementedError

    def _check_parameters(self, row_shape):
        """Check what `_parameter_constraints` cannot say, before anything is fitted."""

    def _constraints(self):
        """Return the constraints in use, if any."""
        return self.constraints

    def _access_class(self):
        """Return the kind of access to the victim that goes with `knowledge`."""
        return _ACCESS[self.knowledge]

    def _access_options(self):
        """Return what else the access is opened with."""
        return {}

    def _make_goal(self, access, y, target):
        """Return the goal; for labels that are not known, the victim is asked."""
        if self.confidence is not None or self.goal == "confidence_reduction":
            if not access.probability:
                raise ValueError(
                    "confidence, and goal='confidence_reduction', need a victim with "
                    f"predict_proba; {name_of(self.estimator_)} has none (or the "
                    "attack does not see it)."
                )
        known = access.refer(y)
        if self.goal == "targeted":
            if isinstance(target, str):  # "least_likely"
                if access.knowledge == "label":
                    raise ValueError("target='least_likely' needs the victim's scores.")
                labels = access.scores(access.x).argmin(1)
            else:
                labels = torch.as_tensor(target, device=access.device)
        elif known is not None:
            labels = known
        else:
            labels = access.predict(access.x)
        return Goal(self.goal, labels, confidence=self.confidence)

    def _result(self, state):
        """Return what was found; a subclass may know more than an EvasionResult says."""
        return state.result()

    def _choose_batch_size(self, X):
        if self.batch_size != "auto":
            return self.batch_size
        if self.knowledge != "gradient":
            return 1024
        self.batch_size_ = 1
        access = self._open_access(Chunk(_safe_indexing(X, slice(1)), np.arange(1)))
        return access.auto_batch_size()

    # From rows to a result --------------------------------------------------------------

    def _rows_to_attack(self, X, y, target):
        """Check what `run` is given, and return it as one chunk."""
        X = self._check_X(X, reset=False)
        regression = is_regressor(self.estimator_)
        if y is not None:
            y = _check_y(y, multi_output=False, y_numeric=regression)
            check_consistent_length(X, y)
            if not regression:
                y = class_positions(y, np.asarray(self.estimator_.classes_), "y")
        target = self._check_target(self.target if target is None else target, len(X))
        self.box_.check(X)
        if self.constraints is not None:
            self.constraints.check(X)
        return Chunk(
            X,
            rows=np.arange(len(X)),
            y=y,
            target=target,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            max_queries=self.max_queries,
            max_total_queries=self.max_total_queries,
        )

    def _run(self, work):
        """Attack the rows of a chunk of any size, in parts; lose nothing on the way."""
        results = []
        try:
            for result in self._results(work):
                results.append(result)
                self._report(results, len(work))
        except (KeyboardInterrupt, QueryBudgetExceeded) as stop:
            inner = getattr(stop, "result", None)
            finished = results if inner is None else [*results, inner]
            stop.result = concatenate(finished) if finished else None
            if (
                isinstance(stop, QueryBudgetExceeded)
                and work.max_total_queries is not None
            ):
                stop.args = (
                    f"max_total_queries={work.max_total_queries} queries are spent; the "
                    "rows that were finished by then are in this exception's result.",
                )
            raise
        return concatenate(results)

    def _results(self, work):
        """Yield the results of the parts of a chunk, here or through joblib."""
        parts = (work.select(at) for at in gen_batches(len(work), 8 * self.batch_size_))
        total = work.max_total_queries
        if total is not None:  # what is left has to be known: one part after another
            for part in parts:
                result = self._run_chunk(replace(part, max_total_queries=total))
                total -= int(result.n_queries.sum())
                yield result
        elif effective_n_jobs(self.n_jobs) == 1:
            yield from map(self._run_chunk, parts)
        else:
            parallel = Parallel(n_jobs=self.n_jobs, return_as="generator")
            yield from parallel(delayed(self._run_chunk)(part) for part in parts)

    def _report(self, results, n_rows):
        """Say how far the attack is, if it is `verbose`."""
        if self.verbose:
            done = sum(len(part) for part in results)
            found = sum(int(part.success.sum()) for part in results)
            name = type(self).__name__
            print(f"[{name}] {done} of {n_rows} rows, {found} successes")

    def _run_chunk(self, chunk):
        """Attack the rows of a chunk together."""
        access, lower, upper = self._constrain(self._open_access(chunk))
        generator = torch.Generator().manual_seed(chunk.seed)
        state = AttackState(access, self.norm, lower, upper, generator, chunk.rows)
        try:
            state.goal = self._make_goal(access, chunk.y, chunk.target)
            self._attack(state)
            state.finished[:] = True
            self._ask_about_the_rest(state, labelled=chunk.y is not None)
        except (KeyboardInterrupt, QueryBudgetExceeded) as stop:
            stop.result = self._result(state).select(state.finished.cpu().numpy())
            raise
        return self._result(state)

    def _open_access(self, chunk):
        """Open the access to the victim for the rows of a chunk."""
        return self._access_class()(
            self.estimator_,
            chunk.X,
            max_queries=chunk.max_queries,
            max_total_queries=chunk.max_total_queries,
            batch_size=self.batch_size_,
            **self._access_options(),
        )

    def _constrain(self, access):
        """Put constraints in front of the victim; return the perturbation bounds too."""
        constraints = self._constraints()
        if constraints is None:
            return access, *self.box_.perturbation_bounds(access.x, access.codec.mutable)
        access = ConstrainedAccess(access, constraints, self.box_, ball_of(self))
        return access, *access.perturbation_bounds()

    def _ask_about_the_rest(self, state, labelled):
        """Let the victim predict the rows that it has not seen as they are returned."""
        rows = torch.nonzero(state.predicted < 0).flatten()
        if not len(rows):
            return
        has_budget = ActiveRows(state, rows).budget() > 0
        record_last(state, rows[has_budget], state.x_adv[rows[has_budget]])
        rows = rows[~has_budget]
        if len(rows) and (labelled or self.goal == "targeted"):
            raise ValueError(SPENT.format(state.access.max_queries))
        # The labels are what the victim said of the rows, and went into nothing else.
        state.record(rows, state.access.x[rows], state.goal.labels[rows], False)

    # Checks -----------------------------------------------------------------------------

    def _check_X(self, X, *, reset):
        """Validate rows: DataFrames stay, all else becomes an array of floats."""
        allow_nan = self.__sklearn_tags__().input_tags.allow_nan
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            X = check_rows(X, type(self).__name__, allow_nan=allow_nan)
        else:
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=[np.float64, np.float32],
                allow_nd=True,
                ensure_all_finite="allow-nan" if allow_nan else True,
            )
        if reset:
            self.row_shape_ = X.shape[1:]
        elif X.shape[1:] != self.row_shape_:
            raise ValueError(
                f"X has rows of shape {X.shape[1:]}, but {type(self).__name__} is "
                f"expecting rows of shape {self.row_shape_} as in fit."
            )
        return X

    def _check_target(self, target, n_rows):
        """Return "least_likely" or the positions of the wanted classes, one per row."""
        if self.goal != "targeted":
            if target is not None:
                raise ValueError(f"target needs goal='targeted'; goal is {self.goal!r}.")
            return None
        if target is None:
            if n_rows is None:  # run(X, target=...) may still bring one
                return None
            raise ValueError(
                "goal='targeted' needs a target: a class label, 'least_likely' or one "
                "label per row."
            )
        classes = np.asarray(self.estimator_.classes_)
        if isinstance(target, str) and target == "least_likely":
            return target
        position = class_positions(target, classes, "target")
        if n_rows is None:
            return position
        if np.ndim(position) and len(position) != n_rows:
            raise ValueError(f"target has {len(position)} labels for {n_rows} rows of X.")
        return np.broadcast_to(position, (n_rows,)).copy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.target_tags.required = False
        if self.estimator is not None:
            victim = get_tags(self.estimator)
            tags.target_tags.required = victim.target_tags.required and not isinstance(
                self.estimator, FrozenEstimator
            )
            tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags
