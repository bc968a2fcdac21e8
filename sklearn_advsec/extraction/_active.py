"""Extraction by active learning (Pal et al. 2020)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from .._rows import is_dataframe
from .._sklearn import Interval, StrOptions
from ._pool import PoolExtraction


class ActiveExtraction(PoolExtraction):
    """Train a surrogate in rounds, each asking what would teach it most.

    ===============  =====================================================================
    strategy         which rows are asked about
    ===============  =====================================================================
    "uncertainty"    rows of the pool for which the copy's two best classes are closest
    "k_center"       rows of the pool that are farthest from all those asked about before
    "adaptive"       rows of the attacker's own, on the copy's decision boundary: found by
                     line search between rows that the copy tells apart
    "random"         any rows of the pool: the baseline of the others
    ===============  =====================================================================

    Without a `max_queries`, as many rows are asked about as the pool has. The rounds end
    early where a pool has no row left that was not asked about.

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    surrogate : classifier, default=None
        What becomes the copy; see :class:`ExtractionAttack`.
    strategy : {"uncertainty", "k_center", "adaptive", "random"}, default="uncertainty"
        How rows are chosen.
    uniform_share : float, default=0.0
        Share of the queries that are drawn uniformly between the smallest and the
        largest value of each feature: what makes a copy faithful outside of the data.
    n_rounds : int, default=5
        Number of rounds after the first one.
    initial_share : float, default=0.3
        Share of the queries in the first round, which are random.
    knowledge : {"auto", "score", "label"}, default="auto"
        What is asked for; "auto" asks for scores where there are some.
    temperature : float, default=1.0
        By what logits are divided before the copy is trained on their softmax.
    score_kind : {"auto", "probability", "logit"}, default="auto"
        What the scores of the victim are. With "auto", `predict_proba` gives
        probabilities, and anything else is an error; a decision function gives logits.
        "logit" takes what a service calls probabilities for logits.
    max_queries : int, default=None
        How many rows may be sent in all; see :class:`ExtractionAttack`.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_`.
    warm_start : bool, default=False
        Whether the next fit goes on from what was paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

    Attributes
    ----------
    copy_ : classifier
        The trained surrogate.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    score_kind_ : str
        What the scores were; not there where labels were asked for.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    See Also
    --------
    KnockoffNets : Draws its questions by class.
    ExtractionAttack : Base of all.

    References
    ----------
    .. [1] F. Tramer et al., "Stealing machine learning models via prediction APIs",
       USENIX Security 2016, arXiv:1609.02943 (Section 6.2: uniform and adaptive
       retraining).
    .. [2] S. Pal et al., "ActiveThief: model extraction using active learning and
       unannotated public data", AAAI 2020 (Section 4: uncertainty and k-center).
    .. [3] O. Sener, S. Savarese, "Active learning for convolutional neural networks: a
       core-set approach", ICLR 2018, arXiv:1708.00489 (Algorithm 1: greedy k-center).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.extraction import ActiveExtraction
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = ActiveExtraction(FrozenEstimator(SVC().fit(X, y)), max_queries=60).fit(X)
    >>> attack.n_queries_, attack.fidelity(X) > 0.9
    (60, True)
    """

    _parameter_constraints = {
        **PoolExtraction._parameter_constraints,
        "strategy": [StrOptions({"uncertainty", "k_center", "adaptive", "random"})],
        "uniform_share": [Interval(Real, 0, 1, closed="both")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "initial_share": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        surrogate: Any = None,
        strategy: Literal[
            "uncertainty", "k_center", "adaptive", "random"
        ] = "uncertainty",
        uniform_share: float = 0.0,
        n_rounds: int = 5,
        initial_share: float = 0.3,
        knowledge: Any = "auto",
        temperature: float = 1.0,
        score_kind: Literal["auto", "probability", "logit"] = "auto",
        max_queries: int | None = None,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.surrogate = surrogate
        self.strategy = strategy
        self.uniform_share = uniform_share
        self.n_rounds = n_rounds
        self.initial_share = initial_share
        self.knowledge = knowledge
        self.temperature = temperature
        self.score_kind = score_kind
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def _query(self, oracle, array, y, rng):
        total = self._n_wanted(oracle, array)
        first = min(max(round(self.initial_share * total), 1), total)
        sizes = [first]
        sizes += [
            len(part) for part in np.array_split(np.arange(total - first), self.n_rounds)
        ]
        goal = 0
        for i, size in enumerate(sizes):
            goal += size
            size = int(min(goal - oracle.n_queries, oracle.affordable))
            if size <= 0:  # paid for already, in an earlier fit
                continue
            n_uniform = round(self.uniform_share * size)
            if n_uniform:
                oracle.ask(self._uniform(oracle, n_uniform, rng))
            if size > n_uniform:
                rows = self._choose(oracle, array, size - n_uniform, rng, first=i == 0)
                if not len(rows):
                    break
                oracle.ask(rows)

    def _choose(self, oracle, array, size, rng, first):
        """Return at most `size` rows that were not asked about yet."""
        fresh = distinct_rows(array[~oracle.known(array)])
        fresh = fresh[rng.permutation(len(fresh))]
        if self.strategy == "random" or (first and self.strategy != "k_center"):
            return fresh[:size]
        if self.strategy == "k_center":
            return fresh[self._k_center(oracle, fresh, size)]
        copy = self._train(oracle, rng)
        if self.strategy == "uncertainty":
            if len(fresh) <= size:
                return fresh
            doubt = self._margins(copy, self._rows_of(oracle, fresh))
            return fresh[np.argsort(doubt, kind="stable")[:size]]
        return self._on_boundary(oracle, copy, array, size, rng)

    def _k_center(self, oracle, fresh, size):
        """Choose greedily the row that is farthest from all that are covered."""
        if not len(fresh):
            return np.empty(0, dtype=int)
        scale = (self.bounds_[1] - self.bounds_[0]).astype(np.float64)
        scale = np.where(scale > 0, scale, 1.0)
        flat = (fresh / scale).reshape(len(fresh), -1)
        nearest = np.full(len(fresh), np.inf)
        asked = oracle.log.array if oracle.n_queries else fresh[:0]
        for row in (asked / scale).reshape(len(asked), flat.shape[1]):
            nearest = np.minimum(nearest, ((flat - row) ** 2).sum(axis=1))
        chosen = []
        for _ in range(min(size, len(fresh))):
            chosen.append(int(nearest.argmax()))
            distance = ((flat - flat[chosen[-1]]) ** 2).sum(axis=1)
            nearest = np.minimum(nearest, distance)
            nearest[chosen] = -1
        return chosen

    def _on_boundary(self, oracle, copy, array, size, rng, n_steps=12):
        """Bisect, on the copy, between rows of the pool that it tells apart."""
        pairs = rng.randint(len(array), size=(20 * size, 2))
        near, far = array[pairs[:, 0]].copy(), array[pairs[:, 1]].copy()

        def ask(rows):
            return copy.predict(self._rows_of(oracle, oracle.as_sent(rows)))

        label, other = ask(near), ask(far)
        apart = np.flatnonzero(label != other)[:size]
        near, far, label = near[apart], far[apart], label[apart]
        for _ in range(n_steps):
            if not len(near):
                break
            middle = (near + far) / 2
            same = ask(middle) == label
            near[same], far[~same] = middle[same], middle[~same]
        rows = distinct_rows(oracle.as_sent(near))
        rows = rows[~oracle.known(rows)]
        if len(rows) < size:  # a copy that predicts one class only has no boundary
            rows = np.concatenate([rows, self._uniform(oracle, size - len(rows), rng)])
        return rows

    def _margins(self, copy, rows):
        """How far the copy's best class is ahead of the next one."""
        if hasattr(copy, "predict_proba"):
            scores = copy.predict_proba(rows)
        elif hasattr(copy, "decision_function"):
            scores = copy.decision_function(rows)
        else:
            raise TypeError(
                f"strategy='uncertainty' needs a surrogate with predict_proba or "
                f"decision_function; {type(copy).__name__} has neither."
            )
        if scores.ndim == 1:
            return np.abs(scores)
        if scores.shape[1] == 1:
            return np.zeros(len(scores))
        top = np.partition(scores, -2, axis=1)
        return top[:, -1] - top[:, -2]

    def _uniform(self, oracle, n, rng):
        low, high = self.bounds_
        return oracle.as_sent(rng.uniform(size=(n, *low.shape)) * (high - low) + low)

    def _check_X(self, X, *, reset):
        X = super()._check_X(X, reset=reset)
        makes_rows = self.uniform_share > 0 or self.strategy == "adaptive"
        if reset and makes_rows and is_dataframe(X):
            X = self._numbers_only(X)
        return X


def distinct_rows(rows):
    """Drop repeated rows, keeping the order."""
    if not len(rows):
        return rows
    _, first = np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True)
    return rows[np.sort(first)]
