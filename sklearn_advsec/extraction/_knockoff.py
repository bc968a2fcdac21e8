"""Knockoff Nets (Orekondy et al. 2019) and Copycat CNN (Correia-Silva et al. 2018)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from scipy.special import softmax
from sklearn.cluster import KMeans

from .._labels import in_columns
from .._sklearn import Interval, StrOptions
from ._pool import PoolExtraction


class KnockoffNets(PoolExtraction):
    """Train a surrogate on the victim's answers to rows of a pool.

    The pool need not come from the victim's distribution, and needs no labels. With
    ``sampling="adaptive"``, a gradient bandit learns which groups of the pool are worth
    asking about: those for which the victim is certain, whose answers are diverse, and
    which the copy gets wrong. Without a `max_queries`, the whole pool is asked about.

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    surrogate : classifier, default=None
        What becomes the copy; see :class:`ExtractionAttack`.
    sampling : {"random", "adaptive"}, default="random"
        How rows are chosen.
    knowledge : {"auto", "score", "label"}, default="auto"
        What is asked for; "auto" asks for scores where there are some.
    temperature : float, default=1.0
        By what logits are divided before the copy is trained on their softmax.
    score_kind : {"auto", "probability", "logit"}, default="auto"
        What the scores of the victim are. With "auto", `predict_proba` gives
        probabilities, and anything else is an error; a decision function gives logits.
        "logit" takes what a service calls probabilities for logits.
    learning_rate : float, default=10.0
        Step of the bandit.
    n_groups : int, default=10
        Number of clusters that are the bandit's arms where `fit` gets no labels `y`.
    n_rounds : int, default=10
        Rounds of the bandit; the copy is trained anew after each.
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
    policy_ : ndarray of shape (n_groups,)
        The bandit's last probabilities, where sampling is adaptive.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    See Also
    --------
    ActiveExtraction : Asks where the copy is unsure.
    CopycatCNN : From labels.

    References
    ----------
    .. [1] T. Orekondy, B. Schiele, M. Fritz, "Knockoff nets: stealing functionality of
       black-box models", CVPR 2019, arXiv:1812.02766 (Section 4.1: random and adaptive
       strategies and the three rewards).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn_advsec.extraction import KnockoffNets
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = RandomForestClassifier(random_state=0).fit(X, y)
    >>> attack = KnockoffNets(FrozenEstimator(victim), max_queries=60).fit(X)
    >>> attack.n_queries_, attack.fidelity(X) > 0.9
    (60, True)
    """

    _parameter_constraints = {
        **PoolExtraction._parameter_constraints,
        "sampling": [StrOptions({"random", "adaptive"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_groups": [Interval(Integral, 2, None, closed="left")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        surrogate: Any = None,
        sampling: Literal["random", "adaptive"] = "random",
        knowledge: Any = "auto",
        temperature: float = 1.0,
        score_kind: Literal["auto", "probability", "logit"] = "auto",
        learning_rate: float = 10.0,
        n_groups: int = 10,
        n_rounds: int = 10,
        max_queries: int | None = None,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.surrogate = surrogate
        self.sampling = sampling
        self.knowledge = knowledge
        self.temperature = temperature
        self.score_kind = score_kind
        self.learning_rate = learning_rate
        self.n_groups = n_groups
        self.n_rounds = n_rounds
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def _query(self, oracle, array, y, rng):
        order = rng.permutation(len(array))
        if self.sampling == "random":
            oracle.ask_what_fits(array[order])
            return
        groups = self._groups(array, y, rng)
        queues = [order[groups[order] == g].tolist() for g in range(groups.max() + 1)]
        preference = np.zeros(len(queues))
        baseline, n_pulls = 0.0, 0
        size = max(self._n_wanted(oracle, array) // self.n_rounds, 1)
        copy = None
        while oracle.affordable and any(queues):
            # Each round: pull arms, ask, train, and reward what was pulled.
            picked, arms = [], []
            policy = softmax(preference)
            for _ in range(int(min(size, oracle.affordable, sum(map(len, queues))))):
                left = policy * [bool(queue) for queue in queues]
                arm = rng.choice(len(queues), p=left / left.sum())
                arms.append(arm)
                picked.append(queues[arm].pop())
            oracle.ask(array[picked])
            targets = _as_matrix(self._targets(oracle), self.classes_)
            at = oracle.positions(array[picked])
            rewards = self._rewards(
                targets, at, copy, self._rows_of(oracle, array[picked])
            )
            for arm, reward in zip(arms, rewards, strict=True):
                n_pulls += 1
                baseline += (reward - baseline) / n_pulls
                step = self.learning_rate * (reward - baseline) / n_pulls
                policy = softmax(preference)
                preference -= step * policy
                preference[arm] += step
            copy = self._train(oracle, rng)
        self.policy_ = softmax(preference)

    def _groups(self, array, y, rng):
        """Arms of the bandit: the pool's labels, or else clusters of it."""
        if y is not None:
            return np.unique(y, return_inverse=True)[1]
        flat = array.reshape(len(array), -1)
        n_groups = min(self.n_groups, len(np.unique(flat, axis=0)))
        return KMeans(n_groups, random_state=rng.randint(2**31 - 1)).fit_predict(flat)

    def _rewards(self, targets, at, copy, rows):
        """Certainty of the victim, diversity of its answers, and loss of the copy."""
        answers = targets[at]
        top = np.sort(answers, axis=1)
        rewards = top[:, -1] - top[:, -2]
        rewards = rewards + np.maximum(answers - targets.mean(axis=0), 0).sum(axis=1)
        if copy is not None and hasattr(copy, "predict_proba"):
            proba = in_columns(copy.predict_proba(rows), copy.classes_, self.classes_)
            proba = np.clip(proba, 1e-12, None)
            loss = -(answers * np.log(proba)).sum(axis=1)
            rewards = rewards + loss / max(loss.max(), 1e-12)
        return rewards


class CopycatCNN(PoolExtraction):
    """Train a surrogate on nothing but the victim's labels for rows of a pool.

    The pool may be natural data of quite another kind, as in the paper: what is stolen
    is in the labels. Without a `max_queries`, the whole pool is asked about.

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    surrogate : classifier, default=None
        What becomes the copy; see :class:`ExtractionAttack`.
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
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    See Also
    --------
    KnockoffNets : From probabilities.
    sklearn_advsec.defense.JPEGCompression : What a victim may do to images.

    References
    ----------
    .. [1] J. R. Correia-Silva et al., "Copycat CNN: stealing knowledge by persuading
       confession with random non-labeled data", IJCNN 2018, arXiv:1806.05476
       (Section III: fake data set of stolen labels).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.extraction import CopycatCNN
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = CopycatCNN(FrozenEstimator(SVC().fit(X, y)), max_queries=60).fit(X)
    >>> attack.n_queries_, attack.fidelity(X) > 0.9
    (60, True)
    """

    knowledge = "label"

    def __init__(
        self,
        estimator: Any,
        *,
        surrogate: Any = None,
        max_queries: int | None = None,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.surrogate = surrogate
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def _query(self, oracle, array, y, rng):
        oracle.ask_what_fits(array[rng.permutation(len(array))])


def _as_matrix(targets, classes):
    """Give labels one column per class."""
    if targets.ndim == 2:
        return targets
    return (targets[:, None] == classes).astype(np.float64)
