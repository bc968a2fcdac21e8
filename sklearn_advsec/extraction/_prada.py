"""PRADA: the detection of extraction by distances of queries (Juuti et al. 2019)."""

from __future__ import annotations

import threading
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from scipy.stats import shapiro
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_array, check_is_fitted

from .._sklearn import Interval, StrOptions
from ..victim import ask_labels, ask_scores
from ._wrappers import AnsweringClassifier, _has_probabilities


class ExtractionDetected(RuntimeError):
    """A monitored victim refuses to answer: the queries look like an extraction.

    See Also
    --------
    PRADADetector : Raises it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import ExtractionDetected, PRADADetector
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=1000)
    >>> victim = PRADADetector(model, min_distances=30, on_alarm="refuse").fit(X, y)
    >>> steps = np.linspace(0, 1, 400)[:, None]
    >>> try:
    ...     _ = victim.predict(X[:1] + steps)  # no stranger asks along a line
    ... except ExtractionDetected:
    ...     print("refused")
    refused
    """


class PRADADetector(AnsweringClassifier):
    """Watch the queries of one client, and raise an alarm when they look made up.

    The distances of natural queries to the nearest earlier query of the same class are
    about normally distributed; those of queries made by small steps from one another are
    not, and the Shapiro-Wilk statistic of the distances falls below `threshold`.

    Asked-for rows are kept in memory from `predict` and `predict_proba` on: this is a
    monitor, and the one estimator here whose answers have a history. :meth:`reset` starts
    it anew, and so does a clone.

    What it can do and what not, on digits (64 features; statistic .96 to .99 for test
    rows): the alarm comes after about 110 queries of :class:`ReLUExtraction`, 110 to 150
    of :class:`JacobianSubstitute` (but after 390 to 1,020, or never, where its steps are
    .3 instead of .1) and 1,500 of :class:`EquationSolving` from labels. It never comes
    for :class:`KnockoffNets` on rows of the victim's own kind (.99), nor for d + 1
    probes, which are fewer than it needs. A thief can also spread the queries over
    several clients. Natural data with distances far from normal raises false alarms, as
    the scaled breast cancer data does (.945): measure on your own traffic first.

    Parameters
    ----------
    estimator : classifier
        What is protected.
    threshold : float, default=0.95
        The alarm's level, of the Shapiro-Wilk statistic.
    min_distances : int, default=100
        Number of distances before the first test.
    on_alarm : {"record", "refuse"}, default="record"
        Whether to go on answering, or to raise :class:`ExtractionDetected` from then on.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its classes.
    alarm_ : bool
        Whether there was an alarm.
    alarm_at_ : int or None
        After how many queries.
    statistic_ : float
        The last value of the statistic; NaN before the first test.
    n_seen_ : int
        Number of rows that were asked about.

    See Also
    --------
    JacobianSubstitute : What it was made to detect.
    ReverseSigmoid : Answers wrongly instead.

    References
    ----------
    .. [1] M. Juuti, S. Szyller, S. Marchal, N. Asokan, "PRADA: protecting against DNN
       model stealing attacks", EuroS&P 2019, arXiv:1805.02628 (Algorithm 3).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.extraction import PRADADetector, ReLUExtraction
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16
    >>> net = MLPClassifier(16, max_iter=300, tol=1e-3, random_state=0)
    >>> victim = PRADADetector(net).fit(X[:900], y[:900])
    >>> _ = victim.predict(X[900:])
    >>> victim.alarm_
    False
    >>> thief = ReLUExtraction(FrozenEstimator(victim.reset())).fit(X[900:])
    >>> victim.alarm_, thief.fidelity(X[900:]) > 0.98  # seen, and not stopped
    (True, True)
    """

    _parameter_constraints = {
        **AnsweringClassifier._parameter_constraints,
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "min_distances": [Interval(Integral, 3, None, closed="left")],
        "on_alarm": [StrOptions({"record", "refuse"})],
    }

    def __init__(
        self,
        estimator: Any,
        threshold: float = 0.95,
        min_distances: int = 100,
        on_alarm: Literal["record", "refuse"] = "record",
    ) -> None:
        self.estimator = estimator
        self.threshold = threshold
        self.min_distances = min_distances
        self.on_alarm = on_alarm

    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **fit_params: Any) -> Self:
        """Fit the classifier (a frozen one is kept), and start with no queries seen.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,), default=None
            Their labels. Not needed for a frozen classifier.
        **fit_params : dict
            Passed on to the classifier.

        Returns
        -------
        self : object
            The fitted wrapper.
        """
        _as_numbers(X)
        super().fit(X, y, **fit_params)
        return self.reset()

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels, and watch.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.

        Raises
        ------
        ExtractionDetected
            After an alarm, with ``on_alarm="refuse"``.
        """
        check_is_fitted(self)
        rows = _as_numbers(X)
        labels = ask_labels(self.estimator_, X)
        self._watch(rows, labels)
        return labels

    @available_if(_has_probabilities)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities, and watch.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            The classifier's probabilities.

        Raises
        ------
        ExtractionDetected
            After an alarm, with ``on_alarm="refuse"``.
        """
        check_is_fitted(self)
        rows = _as_numbers(X)
        proba = ask_scores(self.estimator_, X)
        self._watch(rows, self.classes_[np.asarray(proba).argmax(axis=1)])
        return proba

    def reset(self) -> Self:
        """Forget all queries.

        Returns
        -------
        self : object
            The wrapper.
        """
        check_is_fitted(self)
        self._history = _History()
        return self

    @property
    def alarm_(self) -> bool:
        """Whether there was an alarm."""
        return self._history.alarm_at is not None

    @property
    def alarm_at_(self) -> int | None:
        """After how many queries there was an alarm; None without one."""
        return self._history.alarm_at

    @property
    def statistic_(self) -> float | None:
        """The last value of the statistic."""
        return self._history.statistic

    @property
    def n_seen_(self) -> int:
        """Number of rows that were asked about."""
        return self._history.n_seen

    def _watch(self, rows, labels):
        self._history.add(rows, labels, self.threshold, self.min_distances)
        if self.alarm_ and self.on_alarm == "refuse":
            raise ExtractionDetected(
                f"the queries look like an extraction (alarm after {self.alarm_at_}); no "
                "more answers are given."
            )


def _as_numbers(X):
    """Return rows as float64, of which distances are measured: flat, and dense."""
    try:
        rows = check_array(
            X,
            accept_sparse="csr",
            dtype=np.float64,
            allow_nd=True,
            ensure_all_finite="allow-nan",
            estimator="PRADADetector",
        )
    except ValueError as error:
        if not str(error).startswith("could not convert"):
            raise
        raise ValueError(
            f"{error}. PRADADetector measures distances between rows, and takes numbers "
            "only: encode text and categories in front of it."
        ) from error
    return rows.toarray() if issparse(rows) else rows.reshape(len(rows), -1)


def _nearest(known, row):
    """Return the distance of a row from the nearest of others.

    Of two rows with missing values, it is that in the columns which both have, as if the
    others were like them; None where the row has no column in common with any.
    """
    if not (np.isnan(row).any() or np.isnan(known).any()):
        return float(np.sqrt(((known - row) ** 2).sum(axis=1).min()))
    distances = nan_euclidean_distances(known, row[None])
    return None if np.isnan(distances).all() else float(np.nanmin(distances))


class _History:
    """The queries that were seen, as far as they are needed."""

    def __init__(self):
        self.grown = {}  # per class: rows that other rows are compared with
        self.distances = {}  # per class
        self.cutoff = {}  # per class: nearer rows do not join the set
        self.all = []
        self.n_seen = 0
        self.tested = 0
        self.statistic = np.nan
        self.alarm_at = None
        self._lock = threading.Lock()

    def add(self, rows, labels, threshold, min_distances):
        with self._lock:
            for row, label in zip(rows, np.asarray(labels).tolist(), strict=True):
                self.n_seen += 1
                self._add_one(row, label)
                # Each time they are 5 % more: a test costs more than an answer.
                if self.alarm_at is None and len(self.all) >= max(
                    min_distances, 1.05 * self.tested
                ):
                    self.tested = len(self.all)
                    self._test(threshold)

    def _add_one(self, row, label):
        if label not in self.grown:
            self.grown[label], self.distances[label] = [row], []
            self.cutoff[label] = 0.0
            return
        nearest = _nearest(np.asarray(self.grown[label]), row)
        if nearest is None:
            return
        self.all.append(nearest)
        if nearest > self.cutoff[label]:
            self.grown[label].append(row)
            self.distances[label].append(nearest)
            of_class = np.array(self.distances[label])
            least = of_class.mean() - of_class.std()
            self.cutoff[label] = max(self.cutoff[label], least)

    def _test(self, threshold):
        distances = np.array(self.all)
        near = np.abs(distances - distances.mean()) <= 3 * distances.std()
        distances = distances[near]
        if len(distances) > 4000:  # the statistic's tables end at 5000
            distances = distances[-4000:]
        if np.ptp(distances) == 0:
            self.statistic = 0.0
        else:
            self.statistic = float(shapiro(distances).statistic)
        if self.statistic < threshold:
            self.alarm_at = self.n_seen

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()
