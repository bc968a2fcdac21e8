"""Base of the evasion attacks: input checks, chunks of rows, budgets and results."""

from __future__ import annotations

import logging
import math
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from joblib import effective_n_jobs
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import (
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    clone,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .._estimators import RoutesToEstimator, allows_nan, may_take_nan, name_of
from .._labels import class_positions
from .._parallel import in_parallel
from .._progress import LOG, MOST_SHARES, ReportsProgress, with_callbacks
from .._rows import (
    NUMBERS,
    RowCodec,
    check_rows,
    check_weights,
    is_dataframe,
    plain_rows,
    same_shape,
)
from .._sklearn import (
    BaseEstimator,
    Interval,
    Options,
    StrOptions,
    _check_y,
    _safe_indexing,
    fit_context,
    validate_data,
)
from ..exceptions import InterruptedRunWarning, QueryBudgetExceeded
from ..threat import Box, FeatureConstraints, LpBall
from ..threat._ball import UNITS, as_norm, resolve_eps
from ..threat._constraints import few
from ..victim import GradientAccess, LabelAccess, ScoreAccess, ask_labels
from ..victim._fitting import (
    VICTIM,
    as_victim,
    fit_victim,
    labels_missing,
    needs_labels,
)
from ..victim._validation import check_victim
from ._active_rows import ActiveRows
from ._constrained import ConstrainedAccess
from ._goal import GOALS, LOSSES, Goal
from ._missing import may_go_missing
from ._state import AttackState, concatenate, record_last

if TYPE_CHECKING:
    from ._state import EvasionResult

_ACCESS = {"label": LabelAccess, "score": ScoreAccess, "gradient": GradientAccess}

# How many batches of rows are attacked together at most, and in how many parts rows are
# split for each of several workers.
_CHUNK_BATCHES, _PARTS = 8, 2
# An attack keeps some fifteen tensors of the size of its rows: several batches go on
# together only while the rows take so many bytes, or this share of all.
_CHUNK_BYTES, _CHUNK_SHARE = 3 * 2**20, 1 / 64
# Behind constraints it is so many times as much: ranges, codes, what projections take.
_CONSTRAINED = 3
# How many seconds lie between two reports of progress.
_TELL_EVERY = 2.0
_SILENT_FOR = 4.0  # where nothing is asked
# A change by a smaller share of a column's range makes no difference.
_TINY, _TINY_IN_TABLES = 1e-3, 2e-3
# Under a total, this many rows go first where their cost is not known beforehand.
_FIRST_ROWS = 8

# About so many rows a view and its victim are both asked in `fit`.
_COMPARED_ROWS = 16
# The range of so many rows holds 19 of 20 values of a column, on average.
_ENOUGH_FOR_A_RANGE = 39

SPENT = (
    "max_queries={} is spent before the attack begins: the target, or the confidence, "
    "costs a query by itself. Raise it."
)

# What the parameters that attacks share may be; each attack picks those that it has.
SHARED = {
    "eps": [Interval(Real, 0, None, closed="left"), "array-like", dict],
    "eps_unit": [StrOptions(set(UNITS))],
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
    goal : str
        What is wanted of them.
    seed : int
        The same for all chunks: rows share their draws wherever they are, so that the
        result depends on `batch_size` no more than on `n_jobs`.
    max_queries, max_total_queries : int or None
        What may be asked about each row, and about all of them.
    on_bad_answer : {"raise", "skip"}
        What becomes of rows about which the victim gives a bad answer.
    """

    X: object
    rows: np.ndarray
    y: np.ndarray | None = None
    target: object = None
    goal: str = "misclassification"
    seed: int = 0
    max_queries: int | None = None
    max_total_queries: int | None = None
    on_bad_answer: str = "raise"

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


class Progress:
    """What is told of a running attack: printed if `verbose`, logged, and to callbacks.

    Parameters
    ----------
    attack : EvasionAttack
        The attack.
    n_rows : int
        How many rows it is to attack.
    on_query : callable, default=None
        What else follows the questions: the progress of an attack that runs this one.
    """

    def __init__(self, attack, n_rows, on_query=None):
        self.attack, self.n_rows = attack, n_rows
        self.is_read = attack.verbose or LOG.isEnabledFor(logging.INFO)
        follows = self.is_read or hasattr(attack, "_reporting")
        self.on_query = self.tell_sometimes if follows else on_query
        self.results, self.state = [], None
        self._room, self._n_placed = {}, 0
        self.begin = self.last = time.monotonic()
        self.n_told = 0

    def follow(self, state, access):
        """Follow a chunk by the questions that are asked about its rows."""
        self.state, access.on_query = state, self.on_query
        state.on_row = self.on_query

    def n_asked(self):
        """How often the victim was asked about the rows of the chunk that it follows."""
        return self.state.access.n_total_queries

    def add(self, result):
        """Add the result of rows that are through."""
        self.results.append(self._in_place(result))
        self.state = None
        self.tell()

    def _in_place(self, result):
        """Put what was found where that of all rows will lie, so that it is there once.

        What is kept of one chunk after the other would lie between tensors that go, and
        the memory between could not be used again.
        """
        if len(result) == self.n_rows:
            return result
        begin, end, placed = self._n_placed, self._n_placed + len(result), {}
        for name, values in vars(result).items():
            if not isinstance(values, np.ndarray) or name == "X":
                continue
            if name not in self._room:
                self._room[name] = np.empty(
                    (self.n_rows, *values.shape[1:]), values.dtype
                )
            place = self._room[name][begin:end]
            if place.shape == values.shape and place.dtype == values.dtype:
                place[:] = values
                placed[name] = place
        self._n_placed = end
        return replace(result, **placed)

    @contextmanager
    def heard(self):
        """Say how far the attack is also while nothing is asked, as solvers may work."""
        if not self.is_read:
            yield
            return
        over = threading.Event()

        def speak():
            while not over.wait(_SILENT_FOR / 2):
                if time.monotonic() - self.last >= _SILENT_FOR:
                    self._say(*self._counts())

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def tell_sometimes(self):
        """Say how far the attack is, if the last time was some seconds ago."""
        if time.monotonic() - self.last >= _TELL_EVERY:
            self.tell()

    def tell(self):
        """Say how many rows are through, with what success, and how long it may take."""
        n_done, n_found, n_asked = self._counts()
        self.attack._tell_shares(self.n_told, n_done, self.n_rows, "share of the rows")
        self.n_told = max(n_done, self.n_told)
        if self.is_read:
            self._say(n_done, n_found, n_asked)

    def _counts(self):
        """How many rows are through, with how many successes and questions."""
        results, state = list(self.results), self.state
        n_done = sum(len(result) for result in results)
        n_found = sum(int(result.success.sum()) for result in results)
        n_asked = sum(int(result.n_queries.sum()) for result in results)
        if state is not None:
            n_done += max(int((state.success | state.finished).sum()), state.n_searched)
            n_found += int(state.success.sum())
            n_asked += state.access.n_total_queries
        return n_done, n_found, n_asked

    def _say(self, n_done, n_found, n_asked):
        """Print and log a line."""
        self.last = time.monotonic()
        name, passed = type(self.attack).__name__, self.last - self.begin
        line = (
            f"{n_done} of {self.n_rows} rows, {n_found} successes, {n_asked} queries; "
            f"{passed:.0f} s"
        )
        if n_done:
            left = passed / n_done * (self.n_rows - n_done)
            line += f", about {left:.0f} s to go"
        LOG.info("%s: %s", name, line)
        if self.attack.verbose:
            print(f"[{name}] {line}", flush=True)


def _joined(results, resume):
    """Join results, with what a run before had spent on rows that it left open."""
    result = concatenate(results) if results else None
    if resume is None or resume.finished.all():
        return result
    open_rows = resume.select(~resume.finished)
    if result is None:
        return open_rows
    _, now, then = np.intersect1d(result.rows, open_rows.rows, return_indices=True)
    result.n_queries[now] += open_rows.n_queries[then]
    untouched = ~np.isin(open_rows.rows, result.rows)
    if untouched.any():
        result = concatenate([result, open_rows.select(untouched)])
    return result


def _total_spent(work):
    return QueryBudgetExceeded(
        f"max_total_queries={work.max_total_queries} queries are spent; the rows that "
        "were begun by then are in this exception's result."
    )


class EvasionAttack(
    ReportsProgress,
    RoutesToEstimator,
    OneToOneFeatureMixin,
    TransformerMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Base of the attacks that move rows until the victim gets them wrong.

    It is public for those who write attacks of their own, and it documents once what all
    attacks share. An attack is a transformer: `fit` takes the victim and the range of
    the data, ``transform(X)`` gives adversarial rows for the victim's own predictions,
    ``run(X, y)`` says what was reached, and ``score(X, y)`` is the robust accuracy.

    A subclass states its `knowledge`, lists its parameters in `__init__` and in
    `_parameter_constraints`, and writes ``_attack(state)``. What it finds there:

    - ``state.access`` asks the victim, and counts: `predict`, `scores`, `logits`,
      `gradient`, as far as `knowledge` goes. Its `x` are the rows, as a tensor in the
      victim's precision and on its device;
    - ``state.lower`` and ``state.upper``: the box for the perturbations;
    - ``state.goal``: ``goal.select(rows).ask(access, x_adv, rows)`` gives the victim's
      own labels, and whether they reach the goal;
    - ``state.generator``: the source of randomness. Rows share their draws, so that what
      happens to a row does not depend on those beside it;
    - ``state.open_rows()`` are still to be attacked, and ``state.record(rows, x_adv,
      predicted, success)`` keeps what the victim said.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim. It is cloned and fitted in `fit`; one that is fitted already is given
        as ``FrozenEstimator(estimator)``. Attacks that use gradients need a view of it in
        :mod:`sklearn_advsec.differentiable`, those by scores its `predict_proba` or
        `decision_function`, those by labels its `predict` only. Where the class of the
        largest score may not be the label, as of an `SVC` of several classes or behind a
        threshold, what `predict` says of a success costs a query more. None makes a
        prototype for scorers, displays and defenses, which set the victim.
    norm : {np.inf, 2, 1, 0, "inf", "l2", "l1", "l0"}
        The norm that is bounded by `eps`, or minimised, and in which the result gives
        distances. Which ones, and the default, depend on the attack.
    eps : float, array-like of shape (n_features,), dict or Series
        The bound of attacks that have one: for all features, for each, or by the name of
        the column, where a column that is not named may not change; see
        :class:`~sklearn_advsec.threat.LpBall`.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of: 1 in each feature's own unit, or the standard
        deviation, the range, or the distance between the quartiles of each column of the
        data seen in `fit` (of all pixels together, for images).
    goal : {"misclassification", "targeted", "confidence_reduction"}, \
            default="misclassification"
        What is wanted: any other class than the label, the class `target`, or a label
        whose probability falls to `confidence`. Attacks that have no `confidence` do not
        have the last one.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``: one for all rows, one for each, or the
        class of the least score. `run` takes one too.
    confidence : float, default=None
        The probability that the wanted class (for "misclassification", any class other
        than the label) has to reach, or that the label's has to fall to for
        "confidence_reduction" (None is then 0.5), before a row is done.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that adversarial rows stay in: the range of each column seen in `fit` (of
        all pixels together, for images), no box, or numbers or arrays that broadcast to
        a row. A row outside of the range of the data keeps its own value as bound.
    mask : array-like of bool, default=None
        Which features may change: an array that broadcasts to a row, such as one of the
        shape (height, width) for images of any number of channels. None is all of them.
    constraints : FeatureConstraints, default=None
        What adversarial rows have to keep. The victim is then asked about valid rows
        only, `eps`, steps and distances are in units of each feature's `scale`, and
        `bounds` of "data" give way to those of the constraints; see
        :class:`~sklearn_advsec.threat.FeatureConstraints`. Where a value may go missing,
        attacks with an `eps` of at least one `scale` try that first (for up to a quarter
        of their queries), those on tables and trees at any time; attacks that look for
        the smallest move, or one for all rows, do not. Attacks on tables, whose names
        begin with "Constrained", `GreedyFeatureAttack` and `MultiObjectiveEvolution`
        learn kinds, bounds and steps in `fit` where there are none.
    max_queries : int, default=None
        How often the victim may be asked about each row; a gradient counts once, however
        many outputs it is of. The row's last query is kept for where it ends.
    max_total_queries : int, default=None
        How often the victim may be asked in one `run`. Rows are attacked in turn, as many
        together as it lasts for; where it does not do for all,
        :class:`~sklearn_advsec.exceptions.QueryBudgetExceeded` is raised, with the rows
        that were begun in ``exception.result``.
    batch_size : int or "auto", default="auto"
        How many rows go through the victim at once; "auto" fits them into the cache, or
        the memory, of the device. The result does not depend on it, but for roundings,
        which may go by the size of a batch.
    n_jobs : int, default=None
        Number of joblib jobs, between which the rows are shared out. The result does not
        depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of random starts, directions and proposals; None draws one from numpy's.
    verbose : int, default=0
        Whether to print, every few seconds, how many rows are done, how many successes
        there are, the queries, and the time that is left.

    Attributes
    ----------
    knowledge : {"gradient", "score", "label"}
        What the attacker sees of the victim (class attribute).
    estimator_ : classifier
        The fitted victim.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    EvasionResult : What `run` returns.

    Examples
    --------
    An attack of one's own, by labels: random signs of one size.

    >>> import torch
    >>> from numbers import Integral, Real
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn.utils._param_validation import Interval
    >>> from sklearn_advsec.evasion import EvasionAttack
    >>> class RandomSigns(EvasionAttack):
    ...     knowledge = "label"
    ...     _parameter_constraints = {
    ...         **EvasionAttack._parameter_constraints,
    ...         "eps": [Interval(Real, 0, None, closed="left")],
    ...         "n_draws": [Interval(Integral, 1, None, closed="left")],
    ...     }
    ...
    ...     def __init__(self, estimator=None, *, eps=0.1, n_draws=50, constraints=None,
    ...                  n_jobs=None, verbose=0):
    ...         self.estimator = estimator
    ...         self.eps = eps
    ...         self.n_draws = n_draws
    ...         self.constraints = constraints
    ...         self.n_jobs = n_jobs
    ...         self.verbose = verbose
    ...
    ...     def _attack(self, state):
    ...         access = state.access
    ...         for _ in range(self.n_draws):
    ...             rows = state.open_rows()
    ...             signs = torch.randn(
    ...                 access.x.shape[1:], generator=state.generator).sign()
    ...             delta = (self.eps * signs).to(access.x).clamp(
    ...                 state.lower[rows], state.upper[rows])
    ...             x_adv = access.x[rows] + delta
    ...             predicted, reached = state.goal.select(rows).ask(access, x_adv, rows)
    ...             state.record(rows, x_adv, predicted, reached)
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = minmax_scale(X)
    >>> attack = RandomSigns(LogisticRegression(), eps=0.2).fit(X, y)
    >>> attack.estimator_.score(X, y) > 0.95 > 0.9 > attack.score(X, y)
    True
    """

    knowledge = None
    norm = np.inf
    goal = "misclassification"
    target = None
    confidence = None
    eps_unit = "feature"
    bounds = "data"
    mask = None
    constraints = None
    max_queries = None
    max_total_queries = None
    batch_size = "auto"
    n_jobs = None
    random_state = 0
    verbose = 0

    _parameter_constraints = {
        "estimator": [*VICTIM, None],
        "mask": ["array-like", None],
        "constraints": [FeatureConstraints, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    # What a user calls ------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept) and learn the range of the data.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted and from which `bounds` are learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

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
            raise ValueError(labels_missing(self, self.estimator))
        X = self._check_X(X, reset=True)
        if self.constraints is not None:
            self.constraints.encode(X[:1])  # raises where the columns do not fit
        if y is not None:
            regression = is_regressor(as_victim(self.estimator))
            y = _check_y(y, multi_output=False, y_numeric=regression)
            check_consistent_length(X, y)
            if not regression:
                check_classification_targets(y)
        self._resolve(X)
        self._check_parameters(self.row_shape_)
        if getattr(self, "eps", None) is not None:
            self._warn_of_tiny_eps(X)
        self.estimator_ = fit_victim(
            self.estimator, X, y, owner=self, sample_weight=sample_weight
        )
        check_victim(self.estimator_)
        self._check_target(self.target, self.goal, n_rows=None)
        self.box_ = self._make_box(X)
        self.batch_size_ = self._choose_batch_size(X)
        if self.knowledge == "gradient":
            some = slice(_COMPARED_ROWS)
            rows = Chunk(_safe_indexing(X, some), np.arange(len(X))[some])
            access = self._open_access(rows)
            if isinstance(access, GradientAccess):  # trees are read in their own form
                access.check_view()
        self._losable = self._find_losable(X)
        if hasattr(self, "max_iter"):
            self.n_iter_ = self.max_iter
        return self

    def transform(self, X: ArrayLike) -> Any:
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
        X, restore = plain_rows(X)
        return restore(self._run_all(X).X_adv)

    @with_callbacks
    def run(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        target: Any = None,
        *,
        resume: EvasionResult | None = None,
        on_bad_answer: Literal["raise", "skip"] = "raise",
    ) -> EvasionResult:
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
            Wanted class, instead of the parameter of that name; the goal of this run is
            then "targeted", whatever the parameter `goal` says.
        resume : EvasionResult, default=None
            What an earlier run on the same rows has found before it was stopped. Rows
            that it finished stay as they are, the others are attacked anew; the queries
            of both runs are added up.
        on_bad_answer : {"raise", "skip"}, default="raise"
            What becomes of a row about which the victim gives an answer that is none
            (NaN, an unknown label, a probability above 1): an error, or, where a service
            may fail for some rows, a row in ``result.skipped``, of which nothing is
            concluded.

        Returns
        -------
        result : EvasionResult
            Adversarial rows, the victim's predictions for them, success, distance and
            number of queries. Where a user interrupts the attack (Ctrl-C), a warning says
            so, and the result holds the rows that were begun.

        Raises
        ------
        QueryBudgetExceeded
            Where `max_total_queries` does not do for all rows.
        Exception
            Whatever the victim raises. Every exception has, as ``exception.result``, the
            :class:`EvasionResult` of the rows that were begun (or None).
        """
        check_is_fitted(self)
        if not isinstance(on_bad_answer, str) or on_bad_answer not in ("raise", "skip"):
            raise ValueError(
                f"on_bad_answer must be 'raise' or 'skip'; got {on_bad_answer!r}."
            )
        X, restore = plain_rows(X)
        work = self._rows_to_attack(X, y, target)
        work = replace(work, on_bad_answer=on_bad_answer)
        if resume is not None:
            resume = resume.converted(lambda rows: plain_rows(rows)[0])
        try:
            with self._reported(X, y, n_tasks=min(len(work), MOST_SHARES)):
                return self._run(work, resume).converted(restore)
        except BaseException as stop:
            if getattr(stop, "result", None) is None:
                raise
            stop.result = stop.result.converted(restore)
            if not isinstance(stop, KeyboardInterrupt):
                raise
            warnings.warn(
                f"{type(self).__name__} was interrupted: the result holds "
                f"{len(stop.result)} of {len(work)} rows, of which "
                f"{stop.result.finished.sum()} are finished. run(..., resume=result) "
                "goes on from there.",
                InterruptedRunWarning,
                stacklevel=3,
            )
            return stop.result

    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
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
        if y is None:
            raise ValueError("y is None; the score is the accuracy on true labels.")
        correct = self._run_all(X, y).correct
        weights = check_weights(sample_weight, len(correct))
        return float(np.average(correct, weights=weights))

    # What a subclass writes, or may change ----------------------------------------------

    def _attack(self, state):
        """Attack all rows of an :class:`AttackState`; the one method of a subclass."""
        raise NotImplementedError

    def _check_parameters(self, row_shape):
        """Check what `_parameter_constraints` cannot say, before anything is fitted."""

    @property
    def _norm(self):
        """The norm, as a number."""
        return as_norm(self.norm)

    def _ball(self, factor=1.0):
        """Return the ball of the perturbations, or one larger by a factor."""
        eps = self.eps
        if self.eps_unit != "feature" or hasattr(eps, "keys"):
            if not hasattr(self, "eps_"):
                raise ValueError("eps goes by the data: fit the attack first.")
            eps = self.eps_
        return LpBall(self.norm, factor * np.asarray(eps))

    def _find_losable(self, X):
        """Return which columns' values may go missing, or None without constraints."""
        if self._constraints() is None:
            return None
        row = Chunk(_safe_indexing(X, slice(1)), np.arange(1))
        access, _, _ = self._constrain(self._open_access(row))
        return may_go_missing(access)

    def _loses_values(self, state):
        """Whether to try rows with values missing before the search that knows no such.

        A move of one unit needs an `eps`; where the least move is sought it is none.
        """
        loses = getattr(self, "eps", None) is not None and state.access.region is not None
        return loses and bool(state.access.may_go_missing.any())

    def _bounds(self):
        """Return the bounds in use."""
        return self.bounds

    def _make_box(self, X):
        """Return the box of the rows."""
        return Box(self._bounds(), X)

    def _learns_range(self):
        """Whether `fit` takes from its rows how far others may go."""
        boxed = self.constraints is None and isinstance(self._bounds(), str)
        return boxed or self.eps_unit != "feature"

    def _constraints(self):
        """Return the constraints in use, if any."""
        return self.constraints

    def _access_class(self):
        """Return the kind of access to the victim that goes with `knowledge`."""
        return _ACCESS[self.knowledge]

    def _access_options(self):
        """Return what else the access is opened with."""
        return {}

    def _check_goal(self, goal):
        """Raise where the attack, as it was fitted, cannot pursue a goal of `run`."""

    def _make_goal(self, access, chunk):
        """Return the goal; for labels that are not known, the victim is asked."""
        if self.confidence is not None or chunk.goal == "confidence_reduction":
            if not access.probability:
                raise ValueError(
                    "confidence, and goal='confidence_reduction', need a victim with "
                    f"predict_proba; {name_of(self.estimator_)} has none (or the "
                    "attack does not see it)."
                )
        known, target = access.refer(chunk.y), chunk.target
        if chunk.goal == "targeted":
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
        return Goal(chunk.goal, labels, confidence=self.confidence)

    def _result(self, state):
        """Return what was found; a subclass may know more than an EvasionResult says."""
        return state.result()

    def _choose_batch_size(self, X):
        if self.batch_size != "auto":
            return int(self.batch_size)
        if self.knowledge != "gradient":
            return 1024
        self.batch_size_ = 1
        access = self._open_access(Chunk(_safe_indexing(X, slice(1)), np.arange(1)))
        size = access.auto_batch_size()
        return size if self._constraints() is None else max(size // 2, 1)

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
        goal = self.goal if target is None else "targeted"
        if goal != self.goal:
            self._check_goal(goal)
        if target is None:
            target = self.target
        target = self._check_target(target, goal, len(X))
        self.box_.check(X)
        if self.constraints is not None:
            self.constraints.check(X)
        return Chunk(
            X,
            rows=np.arange(len(X)),
            y=y,
            target=target,
            goal=goal,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            max_queries=_whole(self.max_queries),
            max_total_queries=_whole(self.max_total_queries),
        )

    @with_callbacks
    def _run_all(self, X, y=None):
        """Run on all rows, or raise: part of a result would be taken for the whole."""
        work = self._rows_to_attack(X, y, None)
        with self._reported(X, y, n_tasks=min(len(work), MOST_SHARES)):
            return self._run(work)

    def _run(self, work, resume=None, on_query=None):
        """Attack the rows of a chunk of any size, in parts; lose nothing on the way."""
        progress, todo = Progress(self, len(work), on_query), work
        if resume is not None and resume.finished.any():
            progress.add(resume.select(resume.finished))
            begun = np.isin(work.rows, resume.rows[resume.finished])
            todo = work.select(np.flatnonzero(~begun))
        try:
            with progress.heard():
                for result in self._results(todo, progress):
                    progress.add(result)
        except BaseException as stop:  # of the victim too: what was paid for is kept
            if getattr(stop, "result", None) is not None:
                progress.add(stop.result)
            stop.result = _joined(progress.results, resume)
            raise
        return _joined(progress.results, resume)

    def _results(self, work, progress):
        """Yield the results of the parts of a chunk, here or through joblib."""
        if work.max_total_queries is not None:
            yield from self._results_within_total(work, progress)
            return
        if not len(work):
            return
        n_jobs, size = effective_n_jobs(self.n_jobs), self._chunk_size(work)
        if n_jobs > 1:
            size = min(size, -(-len(work) // (_PARTS * n_jobs)))
        parts = (work.select(at) for at in gen_batches(len(work), size))
        if n_jobs == 1:
            for part in parts:
                yield self._run_chunk(part, progress)
        else:
            n_parts = -(-len(work) // size)
            yield from in_parallel(self._run_chunk, parts, n_parts, self.n_jobs)

    def _chunk_size(self, work):
        """How many rows are attacked together: batches stay full as rows leave.

        They are whole batches, so that tensors of few sizes take each other's place.
        """
        itemsize = getattr(getattr(work.X, "dtype", None), "itemsize", 8)
        if self._constraints() is not None:
            itemsize *= _CONSTRAINED
        few = _CHUNK_BYTES // (itemsize * int(np.prod(self.row_shape_)))
        n_batches = max(few, int(_CHUNK_SHARE * len(work))) // self.batch_size_
        return min(max(n_batches, 1), _CHUNK_BATCHES) * self.batch_size_

    def _results_within_total(self, work, progress):
        """Yield results until a total is spent: it serves some rows to the end.

        Rows advance together, so that a total would run out before any is through: only
        as many begin as it lasts for, by what a row may cost, or has cost so far.
        """
        total, begun, stopped = work.max_total_queries, 0, False
        largest = _CHUNK_BATCHES * self.batch_size_
        cost, seen = work.max_queries, 1
        while begun < len(work):
            if total < 1:
                raise _total_spent(work)
            # A row is asked about, and needs an answer where it ends.
            size = min(_FIRST_ROWS, total // 2) if cost is None else total // cost
            size = max(1, size)
            at = slice(begun, min(begun + size, begun + largest, len(work)))
            try:
                part = work.select(at, max_total_queries=total)
                result = self._run_chunk(part, progress)
            except QueryBudgetExceeded as stop:
                if stop.result is None:
                    raise _total_spent(work)
                # Other rows may get by with what is left.
                result, stopped = stop.result, True
            # Also of rows that were paid for and have no place in the result.
            begun, total = at.stop, total - progress.n_asked()
            yield result
            seen = max(seen, int(result.n_queries.max(initial=0)))
            cost = (
                2 * seen if work.max_queries is None else min(work.max_queries, 2 * seen)
            )
        if stopped:
            raise _total_spent(work)

    def _run_chunk(self, chunk, progress=None):
        """Attack the rows of a chunk together."""
        access = self._open_access(chunk)
        constrained, lower, upper = self._constrain(access)
        generator = torch.Generator().manual_seed(chunk.seed)
        state = self._new_state(
            constrained, self._norm, lower, upper, generator, chunk.rows
        )
        if progress is not None:
            progress.follow(state, access)
        if chunk.max_total_queries is not None:
            access.max_total_queries -= self._held_back(access, chunk)
        if is_regressor(self.estimator_) and (chunk.max_queries or 1) > 1:
            access.max_queries -= 1  # for the prediction that the result holds
        try:
            state.goal = self._make_goal(constrained, chunk)
            if chunk.y is not None:
                classes = constrained.classes
                regression = is_regressor(self.estimator_)
                state.y = chunk.y if regression else classes[chunk.y]
            self._attack(state)
            state.finished[:] = True
            self._ask_about_the_rest(state, labelled=chunk.y is not None)
            self._release_budget(access, chunk)
            state.search = None  # which knows the state: a circle would outlive the chunk
            return self._result(state)
        except BaseException as stop:
            stop.result = self._result_so_far(state, chunk, access, stop)
            raise

    def _new_state(self, *args):
        """Return what is known of a chunk before any question; attacks may add to it."""
        return AttackState(*args)

    def _held_back(self, access, chunk):
        """How many questions of a total are kept for what rows are where they end.

        None where that is known anyhow: from labels, or from scores that tell them.
        """
        labelled = chunk.y is not None or chunk.goal == "targeted"
        tells = access.knowledge == "label" or (
            access.knowledge == "score" and access.decisive
        )
        if is_regressor(self.estimator_):
            return min(len(chunk), chunk.max_total_queries)
        if tells or not labelled:
            return 0
        each = 1 if self.confidence is None or access.decisive else 2
        return min(each * len(chunk), chunk.max_total_queries)

    @staticmethod
    def _release_budget(access, chunk):
        """Let questions be asked that were kept for the end."""
        access.max_queries = chunk.max_queries
        access.max_total_queries = chunk.max_total_queries

    def _result_so_far(self, state, chunk, access, stop):
        """Return what is known of the rows of a chunk that was stopped."""
        if state.search is not None:
            state.search.show()
            rows = state.search.rows
            state.finished[rows] = state.search.through & state.success[rows]
        unseen = torch.nonzero(state.predicted < 0).flatten()
        if len(unseen) and state.goal is not None:
            if chunk.y is None and state.goal.kind != "targeted":
                # The labels are what the victim said of the rows as they are.
                x, labels = state.access.x[unseen], state.goal.labels[unseen]
                state.record(unseen, x, labels, False)
            elif isinstance(stop, QueryBudgetExceeded):
                self._release_budget(access, chunk)
                self._ask_with_what_was_held_back(state, unseen)
        self._release_budget(access, chunk)
        access.closed = not isinstance(stop, QueryBudgetExceeded)
        begun = access.n_queries > 0
        if not begun.any():
            return None
        return self._result(state).select(begun)

    def _ask_with_what_was_held_back(self, state, rows):
        """Ask about rows where they are, as far as the rest of a total goes."""
        access = state.access
        asked = access.n_queries[rows.cpu().numpy()] > 0
        rows = rows[torch.as_tensor(asked, device=rows.device)]
        if access.max_total_queries is not None:
            rows = rows[: access.max_total_queries - access.n_total_queries]
        rows = rows[ActiveRows(state, rows).budget() > 0]
        try:
            record_last(state, rows, state.x_adv[rows])
        except Exception:  # what is not known then is said not to be
            pass

    def _open_access(self, chunk):
        """Open the access to the victim for the rows of a chunk."""
        return self._access_class()(
            self.estimator_,
            chunk.X,
            max_queries=chunk.max_queries,
            max_total_queries=chunk.max_total_queries,
            batch_size=self.batch_size_,
            on_bad_answer=chunk.on_bad_answer,
            **self._access_options(),
        )

    def _constrain(self, access):
        """Put constraints in front of the victim; return the perturbation bounds too."""
        constraints = self._constraints()
        if constraints is None:
            box = self.box_.perturbation_bounds(access.x, access.codec.mutable)
            if self.mask is not None:
                mask = torch.as_tensor(self.mask_, device=access.device)
                box = [torch.where(mask, bound, 0.0) for bound in box]
            return access, *box
        ball = None if getattr(self, "eps", None) is None else self._ball()
        mask = None if self.mask is None else self.mask_
        losable = getattr(self, "_losable", None)
        access = ConstrainedAccess(access, constraints, self.box_, ball, mask, losable)
        return access, *access.perturbation_bounds()

    def _ask_about_the_rest(self, state, labelled):
        """Let the victim predict the rows that it has not seen as they are returned."""
        rows = torch.nonzero(state.predicted < 0).flatten()
        if not len(rows):
            return
        has_budget = ActiveRows(state, rows).budget() > 0
        record_last(state, rows[has_budget], state.x_adv[rows[has_budget]])
        rows = rows[~has_budget]
        if len(rows) and (labelled or state.goal.kind == "targeted"):
            raise ValueError(SPENT.format(state.access.max_queries))
        # The labels are what the victim said of the rows, and went into nothing else.
        state.record(rows, state.access.x[rows], state.goal.labels[rows], False)

    # Checks -----------------------------------------------------------------------------

    def _resolve(self, X):
        """Give `mask` and `eps` the form of rows, and see that something may change."""
        if self.mask is not None:
            mask = np.asarray(self.mask)
            try:
                fits = mask.dtype == bool
                self.mask_ = np.broadcast_to(mask, self.row_shape_).copy()
            except ValueError:
                fits = False
            if not fits or not mask.any():
                raise ValueError(
                    "mask must be of bool, broadcast to a row of shape "
                    f"{self.row_shape_}, and leave a feature to change; got an array of "
                    f"{mask.dtype} of shape {mask.shape} with {np.sum(mask)} to change."
                )
        self._check_mutable(X)
        if getattr(self, "eps", None) is None:
            return
        if self.eps_unit != "feature" and self._constraints() is not None:
            raise ValueError(
                "eps_unit: under constraints, eps is in units of each feature's scale "
                "(FeatureConstraints.from_frame(X, scale=...)); leave eps_unit='feature'."
            )
        self.eps_ = resolve_eps(self.eps, X, unit=self.eps_unit, norm=self.norm)

    def _check_mutable(self, X):
        """Raise where no column may change, as nothing would, and look robust."""
        constraints = self._constraints()
        if constraints is not None:
            features = constraints.features.values()
            if any(feature.mutable for feature in features):
                return
            names = few(list(constraints.features))
            raise ValueError(
                f"constraints hold every column fixed: {names}. Free some: "
                "constraints.set(column, mutable=True)."
            )
        codec = RowCodec(X)
        if codec.mutable is None or codec.mutable.any():
            return
        raise ValueError(
            f"every column of X is held fixed: {few(codec.columns.names)} hold no "
            f"numbers, and {type(self).__name__} without constraints changes no others. "
            "GreedyFeatureAttack changes categories, and TreeCoordinateAttack does under "
            "constraints=FeatureConstraints.from_frame(X)."
        )

    def _warn_of_tiny_eps(self, X):
        """Warn once where `eps` is too small, for all columns, to make a difference."""
        if self._constraints() is not None or self._norm == 0 or not np.any(self.eps_):
            return
        codec, text = RowCodec(X), f"eps={self.eps!r} "
        whole = codec.whole()
        stuck = "changes nothing: whole numbers change by 1, or not at all. "
        if codec.columns is None and whole and np.max(self.eps_) < 1:
            text += stuck + "Give an eps of 1 or more, or floats where parts make sense."
            warnings.warn(text, stacklevel=4)
            return
        if len(self.row_shape_) > 1:
            return
        rows, names = codec.encode(X), codec.columns and codec.columns.names
        free = np.isfinite(rows).any(axis=0)
        for allowed in (codec.mutable, None if self.mask is None else self.mask_):
            free &= True if allowed is None else allowed
        ranges = np.zeros(rows.shape[1])
        ranges[free] = np.nanmax(rows[:, free], axis=0) - np.nanmin(rows[:, free], axis=0)
        free &= (ranges > 0) & (np.asarray(self.eps_) > 0)
        whole = free & whole & (np.asarray(self.eps_) < 1)
        if not free.any():
            return
        if names is not None and (whole == free).all():
            at = int(np.where(free, ranges, 0).argmax())
            text += f"{stuck}For {names[at]!r}, whose range is {ranges[at]:g}, "
            text += f"{max(1, round(0.1 * ranges[at]))} is usable."
            warnings.warn(text, stacklevel=4)
            return
        share = np.zeros_like(ranges)
        np.divide(self.eps_, ranges, out=share, where=free & ~whole)
        # Pixels and scaled features may well move by little; columns with names have
        # units, and one size for all of them is soon too small for each.
        least = _TINY if names is None else _TINY_IN_TABLES
        if share.max() >= least:
            return
        at = int(share.argmax())
        name = at if names is None else names[at]
        others = ", whole numbers that change by 1 or not at all apart"
        others *= int(whole.any())
        warnings.warn(
            f"{text}is less than {least:.1%} of the range of every column{others}, even "
            f"of {name!r}, whose range is {ranges[at]:.3g}, and will change next to "
            f"nothing. For that column, {0.1 * ranges[at]:.2g} is usable; eps=0.1 with "
            "eps_unit='range' is for all of them.",
            stacklevel=4,
        )

    def _check_X(self, X, *, reset):
        """Validate rows: DataFrames stay, all else becomes an array of numbers."""
        allow_nan = may_take_nan(self.estimator)
        X, _ = plain_rows(X)
        _refuse_text(X, type(self).__name__)
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            X = check_rows(X, type(self).__name__, allow_nan=allow_nan)
        else:
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=NUMBERS,
                allow_nd=True,
                ensure_all_finite="allow-nan" if allow_nan else True,
            )
        return same_shape(self, X, reset=reset)

    def _check_target(self, target, goal, n_rows):
        """Return "least_likely" or the positions of the wanted classes, one per row."""
        if goal != "targeted":
            if target is not None:
                raise ValueError(f"target needs goal='targeted'; goal is {goal!r}.")
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
            if is_regressor(self.estimator_):
                raise ValueError(
                    f"target='least_likely', as of {type(self).__name__}, is of classes: "
                    "a prediction that has not moved is as far from 'increase' as from "
                    "'decrease'. Name one of them: goal='targeted', target='increase', "
                    "for instance of ProjectedGradientDescent."
                )
            return target
        if isinstance(target, dict) or np.ndim(target) > 1:
            raise ValueError(
                "target must be a class label, 'least_likely' or one label per row; got "
                f"{target!r}."
            )
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
            tags.target_tags.required = needs_labels(self.estimator)
            tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


def set_on(prototype, estimator, X, y=None, X_ref=None, **parameters):
    """Set a prototype on a fitted victim, and let it learn what rows look like.

    Parameters
    ----------
    prototype : EvasionAttack
        The attack, of which a clone is made.
    estimator : classifier or RegressionVictim
        Fitted.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        The rows that are going to be attacked.
    y : array-like of shape (n_rows,), default=None
        Their labels.
    X_ref : {array-like, DataFrame} of shape (n_ref, ...), default=None
        The rows to learn from; None takes `X`, and warns where their range may be that of
        these rows only, in which any victim would look robust.
    **parameters : dict
        Other parameters to set.

    Returns
    -------
    attack : EvasionAttack
        Fitted.
    """
    attack = clone(prototype)
    attack.set_params(estimator=FrozenEstimator(estimator), **parameters)
    if X_ref is not None:
        X_ref = _check_reference(estimator, X, X_ref)
        # Surrogates are trained on what the victim says of these rows.
        asks = getattr(attack, "surrogate", None) is not None
        return attack.fit(X_ref, ask_labels(estimator, X_ref) if asks else None)
    if attack._learns_range() and (lack := _lack_of_range(estimator, X, y)):
        warnings.warn(
            f"{type(attack).__name__} learns from the attacked rows how far they may go, "
            f"and {lack}: the victim may look more robust than it is. Give X_ref, such "
            "as the training rows, or bounds and eps in the features' own units.",
            stacklevel=4,
        )
    return attack.fit(X, y)


def _check_reference(estimator, X, X_ref):
    """Return the rows to learn from, or raise where they are none like the others."""
    rows = plain_rows(X)[0]
    if np.ndim(rows) == 1:  # texts
        return X_ref
    allow_nan = may_take_nan(estimator)
    X_ref = check_rows(X_ref, name_of(estimator), allow_nan=allow_nan, name="X_ref")
    frames = is_dataframe(rows), is_dataframe(X_ref)
    alike = frames[0] == frames[1] and np.shape(rows)[1:] == np.shape(X_ref)[1:]
    if not alike or all(frames) and list(rows.columns) != list(X_ref.columns):
        raise ValueError("X_ref must be rows of the same kind and columns as X.")
    return X_ref


def _lack_of_range(estimator, X, y):
    """Return why the range of rows may be narrower than that of the data, or None."""
    plain, _ = plain_rows(X)
    shape = np.shape(plain)
    n_values = shape[0] if len(shape) == 2 else math.prod(shape)
    if n_values < _ENOUGH_FOR_A_RANGE:
        return f"there are {shape[0]} of them"
    if y is None or len(shape) > 2 or is_regressor(estimator):
        return None
    n_seen, n_classes = len(set(np.asarray(y).tolist())), len(estimator.classes_)
    return f"they are of {n_seen} of {n_classes} classes" if n_seen < n_classes else None


def _refuse_text(X, name):
    """Raise where rows are documents, or sparse, as those that are made of documents."""
    if issparse(X):
        raise TypeError(
            f"Sparse data was passed for X, and {name} takes dense rows: X.toarray(), if "
            "the columns are few. Rows that a text pipeline makes of documents are "
            "attacked as documents: evasion.TextSubstitution(pipeline, substitutions), "
            "which finds documents that have such rows."
        )
    if isinstance(X, (str, bytes)) or is_dataframe(X) or not hasattr(X, "__len__"):
        return
    if len(X) and np.ndim(X) == 1 and all(isinstance(text, str) for text in X):
        raise TypeError(
            f"X holds texts, and {name} changes numbers and columns of tables. "
            "evasion.TextSubstitution(pipeline, substitutions) changes words of texts."
        )


def _whole(number):
    """Return a whole number as Python's own, which tensors take in all places."""
    return None if number is None else int(number)
