"""The base of the extraction attacks, and of what they steal."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .._estimators import (
    RoutesToEstimator,
    allows_nan,
    as_nets_take_them,
    may_take_nan,
    unwrap,
)
from .._labels import in_columns
from .._progress import ReportsProgress
from .._rows import (
    RowCodec,
    check_rows,
    check_weights,
    is_dataframe,
    plain_rows,
    same_shape,
)
from .._seeding import undisturbed
from .._sklearn import (
    BaseEstimator,
    HasMethods,
    Interval,
    _check_y,
    fit_context,
    validate_data,
)
from ..differentiable import register
from ..differentiable._registry import subview
from ..victim._fitting import (
    CLASSIFIER,
    as_victim,
    fit_victim,
    labels_missing,
    needs_labels,
)
from ..victim._validation import check_victim
from ._oracle import Oracle, QueryLog
from ._surrogates import with_classes
from ._victim import (
    classes_of,
    gives_scores,
    is_estimator,
    labels_of,
    scores_of,
    soft_targets,
)


def _copy_has(method):
    def check(self):
        getattr(self.copy_, method)
        return True

    return check


class StolenModel(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """The copy of a victim: it predicts, and is measured against the victim.

    A fit sets `copy_` and `classes_`, the victim `estimator_`, and for the report
    `bounds_`, `n_queries_`, the codec of rows and their precision.
    """

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict with the copy; the victim is not asked.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            What the copy predicts.
        """
        check_is_fitted(self)
        return self.copy_.predict(self._rows_for_copy(X))

    @available_if(_copy_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities with the copy.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        proba = self.copy_.predict_proba(self._rows_for_copy(X))
        return in_columns(proba, self.copy_.classes_, self.classes_)

    def fidelity(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of rows on which copy and victim agree.

        The victim is asked about `X`, which is not counted as queries: this is a
        measurement, not a part of the attack.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        fidelity : float
            Between 0 and 1. For regressors, the share of equal predictions.
        """
        check_is_fitted(self)
        rows = self._check_X(X, reset=False)
        same = self._victims_labels(rows) == self.predict(X)
        return float(np.average(same, weights=check_weights(sample_weight, len(same))))

    def extraction_report(
        self,
        X: ArrayLike,
        *,
        n_uniform: int = 10_000,
        random_state: int | np.random.RandomState | None = 0,
    ) -> dict[str, Any]:
        """Measure how good the copy is, in the terms of Tramer et al.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows such as the victim will meet: a test set.
        n_uniform : int, default=10000
            Number of rows drawn uniformly between the smallest and the largest value of
            each feature seen in `fit`.
        random_state : int, RandomState instance or None, default=0
            Draws those rows.

        Returns
        -------
        report : dict
            `R_test` and `R_unif`, the shares of rows on which copy and victim differ
            (lower is better, 0 is exact), `R_test_TV` and `R_unif_TV`, the mean total
            variation between their probabilities, where both have some, and
            `n_queries`.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        low, high = self.bounds_
        rng = check_random_state(random_state)
        uniform = rng.uniform(size=(n_uniform, *low.shape)) * (high - low) + low
        columns = self._codec.columns
        if columns is not None and not columns.numeric.all():
            uniform[:, ~columns.numeric] = np.rint(uniform[:, ~columns.numeric])
        uniform = self._codec.decode(uniform.astype(self._dtype))
        report = {}
        for name, rows in (("test", X), ("unif", uniform)):
            given, rows = rows, self._rows_for_copy(rows, check=False)
            same = self._victims_labels(given) == self.copy_.predict(rows)
            report[f"R_{name}"] = float(1 - np.mean(same))
            if hasattr(self.estimator_, "predict_proba") and hasattr(
                self, "predict_proba"
            ):
                truth = self._victims_probabilities(given)
                proba = self.copy_.predict_proba(rows)
                proba = in_columns(proba, self.copy_.classes_, self.classes_)
                if truth.shape == proba.shape:
                    distance = np.abs(truth - proba).sum(axis=1) / 2
                    report[f"R_{name}_TV"] = float(distance.mean())
        report["n_queries"] = self.n_queries_
        return report

    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy of the copy on true labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            The accuracy. To tune an attack, use `fidelity_scorer`.
        """
        check_is_fitted(self)
        check_classification_targets(y)
        y_pred = self.predict(X)
        weights = check_weights(sample_weight, len(y_pred))
        return float(accuracy_score(y, y_pred, sample_weight=weights))

    def _victims_labels(self, rows):
        """Ask for labels without counting: to measure the copy is no attack."""
        rows = as_nets_take_them(self._rows_for_victim(rows), unwrap(self.estimator_))
        with undisturbed(self.estimator_):
            return labels_of(self.estimator_, rows)

    def _victims_probabilities(self, rows):
        rows = as_nets_take_them(self._rows_for_victim(rows), unwrap(self.estimator_))
        kind = self._score_kind()
        with undisturbed(self.estimator_):
            scores = scores_of(self.estimator_, rows, kind)
        return scores if kind == "probability" else soft_targets(scores, kind)

    def _rows_for_victim(self, rows):
        if is_dataframe(rows):
            return rows
        names = getattr(self.estimator_, "feature_names_in_", None)
        if names is None or rows.ndim != 2:
            return rows
        import pandas as pd

        return pd.DataFrame(rows, columns=names)

    def _rows_for_copy(self, X, check=True):
        if check:
            X = self._check_X(X, reset=False)
        if self.numeric and is_dataframe(X):
            return X.to_numpy(dtype=np.float64)
        return X

    def __sklearn_is_fitted__(self):
        return getattr(self, "_stolen", False)


class ExtractionAttack(ReportsProgress, RoutesToEstimator, StolenModel):
    """Base of the attacks that copy a model by asking it.

    A subclass lists, of the parameters below, those that it has, and writes
    ``_steal(oracle, array, y)``: it asks the oracle about rows and sets `copy_`, a fitted
    scikit-learn estimator, and `classes_`. The rest is here: the victim is opened, every
    row is paid for once, budgets are kept to, what was paid for outlives any error, and
    `predict` is the copy's.

    Two class attributes say what the attack needs: `knowledge` ("label", "score" or
    "auto") of the victim, and with `numeric` numbers only, because it makes rows of its
    own.

    Parameters
    ----------
    estimator : classifier or object with `predict` or `predict_proba`
        The victim. One with `fit` and `get_params` is an estimator: it is cloned and
        fitted, and a fitted one comes as `FrozenEstimator`. Any other object is a remote
        victim, such as the client of a service: it is used as it is, with its `classes_`
        where it has them. Give it ``__sklearn_clone__`` (returning itself) if it cannot
        be deep-copied.
    surrogate : classifier, default=None
        What becomes the copy, of the attacks that train one: any scikit-learn classifier
        or skorch net. It is cloned, and tried on the rows before the first of them is
        paid for. None is a perceptron with 100 hidden units behind a scaler, after an
        encoding of columns that hold no numbers.
    max_queries : int, default=None
        How many rows may be sent in all, those of earlier fits that `warm_start` takes up
        included. None is what the attack's own text says: it is never without an end.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_` after a fit that went well. After one that did not,
        it is there in any case.
    warm_start : bool, default=False
        Whether the next fit goes on with the answers that were paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn: rows, starts, and the surrogate's own seed where it has
        none.

    Attributes
    ----------
    copy_ : estimator
        The copy.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    See Also
    --------
    sklearn_advsec.metrics.fidelity_scorer :
        Agreement with the victim, in cross-validation.
    sklearn_advsec.inspection.ExtractionCurveDisplay : Fidelity against queries.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.svm import SVC
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.extraction import ExtractionAttack
    >>> class TreeFromLabels(ExtractionAttack):
    ...     knowledge = "label"
    ...
    ...     def __init__(self, estimator, *, max_queries=None):
    ...         self.estimator = estimator
    ...         self.max_queries = max_queries
    ...
    ...     def _steal(self, oracle, array, y):
    ...         within, labels = oracle.ask_what_fits(array)
    ...         self.classes_ = self._victim_classes(np.unique(labels))
    ...         self.copy_ = DecisionTreeClassifier().fit(array[within], labels)
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = FrozenEstimator(SVC().fit(X, y))
    >>> attack = TreeFromLabels(victim, max_queries=100).fit(X[::-1])
    >>> attack.n_queries_, attack.fidelity(X) > 0.6
    (100, True)
    """

    knowledge = "auto"
    numeric = True
    max_queries = None
    batch_size = 1024
    query_log = False
    warm_start = False
    verbose = 0
    random_state = None

    _parameter_constraints = {
        "estimator": [*CLASSIFIER, HasMethods("predict"), HasMethods("predict_proba")],
        "max_queries": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "query_log": ["boolean"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Steal the victim.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows that the attacker has: the pool from which queries are taken, the seed,
            or merely what tells the range of the features. An unfitted victim is fitted
            on them first.
        y : array-like of shape (n_samples,), default=None
            Labels for an unfitted victim.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of an unfitted victim only.

        Returns
        -------
        self : object
            The fitted attack.

        Raises
        ------
        Exception
            Whatever the victim raises, and KeyboardInterrupt, are passed on; the answers
            paid for by then are in `query_log_`, and a fit with ``warm_start=True`` goes
            on from there.
        """
        warm = self._warm_log()
        self._stolen = False
        if y is None and self.__sklearn_tags__().target_tags.required:
            raise ValueError(labels_missing(self, self.estimator))
        X = self._check_X(X, reset=True)
        if y is not None:
            y = _check_y(y, multi_output=False, y_numeric=False)
            check_consistent_length(X, y)
        self._check_parameters()
        if warm is None:
            self.estimator_ = self._open_victim(X, y, sample_weight)
        self._victim = self.estimator
        with self._reported(X, y):
            oracle = self._open_oracle(X, warm)
            array = oracle.log.codec.encode(X)
            self.bounds_ = np.stack([array.min(axis=0), array.max(axis=0)])
            # From here on what is paid for is on the estimator, however the fit ends.
            self.query_log_ = oracle.log
            try:
                self._steal(oracle, array, y)
            finally:
                self.n_queries_ = oracle.n_queries
            self._codec = oracle.log.codec
            if not (self.query_log or self.warm_start):
                del self.query_log_
            self._stolen = True
        return self

    def _n_tasks(self):
        return None

    # What a subclass writes or changes -------------------------------------------------

    def _steal(self, oracle, array, y):
        """Ask the oracle, and set `copy_` and `classes_`; the one method of a subclass.

        Parameters
        ----------
        oracle : Oracle
            The victim.
        array : ndarray of shape (n_samples, ...)
            The attacker's rows, encoded.
        y : ndarray of shape (n_samples,) or None
            What came with them.
        """
        raise NotImplementedError

    def _check_parameters(self):
        """Check what `_parameter_constraints` cannot say, before anything is fitted."""

    def _check_fitted_victim(self, victim):
        check_victim(victim)

    def _responder(self, kind):
        """Return the function that asks the victim for answers of a kind."""
        if kind == "label":
            return partial(labels_of, self.estimator_)
        return partial(scores_of, self.estimator_, kind=self._score_kind())

    def _ask_victim(self, respond, rows):
        """Ask about rows as the victim takes them, and leave it as it was."""
        with undisturbed(self.estimator_):
            return respond(as_nets_take_them(rows, unwrap(self.estimator_)))

    def _answer_kind(self):
        """What to ask for: "label" or "score"."""
        has_scores = gives_scores(self.estimator_)
        if self.knowledge == "auto":
            return "score" if has_scores else "label"
        if self.knowledge == "score" and not has_scores:
            raise TypeError(
                f"estimator: {type(self.estimator_).__name__} has neither predict_proba "
                "nor decision_function, so it gives no scores; use an attack, or "
                "knowledge='label', that needs labels only."
            )
        return self.knowledge

    # The machinery ---------------------------------------------------------------------

    def _open_victim(self, X, y, sample_weight):
        victim = as_victim(self.estimator)
        if not is_estimator(victim):
            return victim
        if y is not None and not isinstance(victim, FrozenEstimator):
            if not is_regressor(victim):
                check_classification_targets(y)
        victim = fit_victim(victim, X, y, owner=self, sample_weight=sample_weight)
        self._check_fitted_victim(victim)
        return victim

    def _open_oracle(self, X, log):
        names = getattr(self.estimator_, "feature_names_in_", None)
        codec = RowCodec(X, names if np.ndim(X) == 2 else None)
        kind = self._answer_kind()
        if log is None or log.kind != kind:
            log = QueryLog(codec, kind)
        elif codec.columns is not None and not codec.columns.numeric.all():
            import pandas as pd

            codec = RowCodec(pd.concat([log.X, X]))  # so that old values have codes too
            log = log.recoded(codec)
        self._dtype = np.float64 if is_dataframe(X) else X.dtype
        return Oracle(
            partial(self._ask_victim, self._responder(kind)),
            log,
            dtype=self._dtype,
            max_queries=self.max_queries,
            batch_size=self.batch_size,
            name=type(self).__name__ if self.verbose else None,
            # No attack goes on without answers: a callback cannot stop it.
            tasks=partial(self._tasks, name="batch of queries", stops=False),
        )

    def _warm_log(self):
        """Return the log of an earlier fit to go on from, if that is wanted."""
        if not self.warm_start or getattr(self, "query_log_", None) is None:
            return None
        return self.query_log_ if self._victim is self.estimator else None

    def _victim_classes(self, seen):
        """The victim's classes, or what can be told of them from answers."""
        return classes_of(self.estimator_, seen)

    def _score_kind(self):
        """Whether scores are a "probability" or a "logit": what they have to be.

        A decision function is never a probability, even where its values look like some.
        """
        return "probability" if hasattr(self.estimator_, "predict_proba") else "logit"

    def _check_X(self, X, *, reset):
        """Validate rows: DataFrames stay, all else becomes an array of floats."""
        allow_nan = not self.numeric and may_take_nan(self.estimator)
        X, _ = plain_rows(X)
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            X = check_rows(X, type(self).__name__, allow_nan=allow_nan)
            if self.numeric:
                X = self._numbers_only(X)
        else:
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=[np.float64, np.float32],
                allow_nd=True,
                ensure_all_finite="allow-nan" if allow_nan else True,
            )
        return same_shape(self, X, reset=reset)

    def _numbers_only(self, X):
        other = X.columns.difference(X.select_dtypes("number").columns, sort=False)
        if len(other):
            raise ValueError(
                f"{type(self).__name__} makes rows of its own and needs numeric "
                f"columns; {list(other)[:5]} hold something else."
            )
        return X.astype(np.float64)  # its rows are not integers, whatever those of X are

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        if is_estimator(as_victim(self.estimator)):
            tags.target_tags.required = needs_labels(self.estimator)
            tags.input_tags.allow_nan = not self.numeric and allows_nan(self.estimator)
        return tags


@register(ExtractionAttack, takes_codes=True)
def extraction_attack(attack):
    """View an extraction attack: its copy, with a column for each of its classes."""
    return with_classes(subview(attack.copy_), attack.classes_)
