"""Partitions by a hash: each training row reaches one member of the ensemble only."""

from __future__ import annotations

from hashlib import blake2b
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from ..._rows import is_dataframe
from ..._sklearn import HasMethods, Interval, StrOptions
from .._class_scores import class_scores
from ._aggregation import Aggregation, PoisoningCertificate

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix


class DeepPartitionAggregation(Aggregation):
    """Vote of models, each trained on one part of the rows: certified against poison.

    Which part a row is in depends on a hash of its features alone. A row that is inserted
    or removed, and a label that is flipped, reach one member: with `d` more votes than
    the next class, about `d` / 2 of them change nothing [1]_.

    The certificate is a proof under these conditions: everything that is learned from
    the data is learned inside of `estimator` (scale in a pipeline *inside*, not around);
    the columns, their dtypes and categories are fixed, and so is `random_state` where
    `estimator` is random; and members that :func:`~sklearn_advsec.batched.fit_many`
    trains as one batch do not differ by their rounding. Labels may be new ones.

    Parameters
    ----------
    estimator : classifier
        What is trained on each part; a pipeline with all steps before it.
    n_partitions : int, default=50
        Number of parts, and of members.
    vote : {"plurality", "run-off"}, default="plurality"
        "run-off" lets members choose between the two classes of most votes, by their
        scores [2]_. With many classes that certifies more where members are often wrong,
        and about as much where they are not; with two it changes nothing.
    unsupervised : transformer, default=None
        Is fitted to all rows without their labels, before members are trained on what it
        makes of them. What is certified then are flips of labels, and nothing else
        (SS-DPA); parts are of equal size.
    random_state : int, RandomState instance or None, default=None
        Seed of the members; the parts do not depend on it.
    n_jobs : int, default=None
        Number of joblib jobs.

    Attributes
    ----------
    estimators_ : list of classifier, int or None
        The members; a class code for a part that has rows of one class, and None, which
        does not vote, for one that has none.
    subsets_ : list of ndarray of int
        The training rows of each, in the order of their hash.
    unsupervised_ : transformer
        Where there is one.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    BaggingCertified : The same for random bags of rows, with a confidence.

    References
    ----------
    .. [1] A. Levine, S. Feizi, "Deep partition aggregation: provable defense against
       general poisoning attacks", arXiv:2006.14768 (Theorem 1; Theorem 2 for SS-DPA). The
       hash is blake2b of the row's float64 bytes.
    .. [2] K. Rezaei, K. Banihashem, A. Chegini, S. Feizi, "Run-off election: improved
       provable defense against data poisoning attacks", arXiv:2302.02300 (Theorems 1, 2).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.poisoning import DeepPartitionAggregation
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), RidgeClassifier())
    >>> dpa = DeepPartitionAggregation(model, n_partitions=25).fit(X[::2], y[::2])
    >>> certificate = dpa.certify(X[1::2])
    >>> certificate.unit
    'insertions, removals or flipped labels'
    >>> bool(certificate.accuracy(y[1::2], 5) > 0.8)
    True
    """

    _parameter_constraints = {
        **Aggregation._parameter_constraints,
        "n_partitions": [Interval(Integral, 1, None, closed="left")],
        "vote": [StrOptions({"plurality", "run-off"})],
        "unsupervised": [HasMethods(["fit", "transform"]), None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        n_partitions: int = 50,
        vote: Literal["plurality", "run-off"] = "plurality",
        unsupervised: Any = None,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_partitions = n_partitions
        self.vote = vote
        self.unsupervised = unsupervised
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _subsets(self, X, y, rng):
        hashes = [blake2b(row, digest_size=16).digest() for row in _row_bytes(X)]
        n_partitions = int(self.n_partitions)
        parts = [[] for _ in range(n_partitions)]
        if self.unsupervised is None:
            # By their labels, equal rows have an order that is not the attacker's.
            for i in sorted(range(len(y)), key=lambda i: (hashes[i], y[i])):
                parts[_number(hashes[i]) % n_partitions].append(i)
        else:  # the rows are fixed, and so is their order; labels have no say in it
            for rank, i in enumerate(sorted(range(len(y)), key=hashes.__getitem__)):
                parts[rank % n_partitions].append(i)
        if self.unsupervised is not None:
            self.unsupervised_ = clone(self.unsupervised).fit(X)
            X = self.unsupervised_.transform(X)
        return X, [np.array(part, dtype=int) for part in parts]

    def _transformed(self, X):
        return X if self.unsupervised is None else self.unsupervised_.transform(X)

    def predict(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Predict the class that wins the vote; of equal ones the first.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_rows,)
            Labels.
        """
        check_is_fitted(self)
        return self.certify(X).y_pred

    def certify(self, X: ArrayLike | spmatrix | sparray) -> PoisoningCertificate:
        """Compute how many changes of the training data leave each prediction.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        certificate : PoisoningCertificate
            Its radius counts rows that are inserted or removed and labels that are
            flipped, each as one, and a row whose features are edited as two; with
            `unsupervised`, flipped labels only.
        """
        check_is_fitted(self)
        # A label that nobody has seen yet may come, in the first place of all.
        votes = np.pad(self.votes(X), ((0, 0), (1, 0)))
        if self.vote == "plurality":
            winner = votes.argmax(1)
            n_needed = _needed(votes, winner).min(1)
        else:
            winner, n_needed = self._run_off(X, votes)
        winner = winner - 1
        unit = "insertions, removals or flipped labels"
        if self.unsupervised is not None:
            unit = "flipped labels"
        radius = (n_needed - 1).astype(float)
        return PoisoningCertificate(self.classes_[winner], radius, unit=unit)

    def _run_off(self, X, votes):
        """Return the winners, and how many members have to change to unseat them."""
        at = np.arange(len(votes))
        first = votes.argmax(1)
        rest = votes.copy()
        rest[at, first] = -1
        second = rest.argmax(1)
        duels = np.pad(self._duels(X), ((0, 0), (1, 0), (1, 0)))
        duels[:, 1:, 0], duels[:, 0, 1:] = votes[:, 1:], -votes[:, 1:]
        lower, upper = np.minimum(first, second), np.maximum(first, second)
        winner = np.where(duels[at, lower, upper] >= 0, lower, upper)
        loser = first + second - winner
        n_classes = votes.shape[1]
        best = np.full(len(votes), np.iinfo(int).max)
        # Out in the first round: two others get past the winner. A change gains at most
        # 2 on one of them and 1 on the other.
        gap = _deficits(votes, winner)
        for a in range(n_classes):
            for b in range(a + 1, n_classes):
                both = (winner != a) & (winner != b)
                n = np.maximum(gap[:, a], gap[:, b])
                n = np.maximum(-(-n // 2), -(-(gap[:, a] + gap[:, b]) // 3))
                best = np.where(both, np.minimum(best, n), best)
        # Beaten in the second: some class has to get there, and then to win.
        for c in range(n_classes):
            duel = duels[at, winner, c] + (winner < c)
            arrive = np.zeros(len(votes), dtype=int)
            for other in range(n_classes):
                ahead = votes[:, other] - votes[:, c] + (other < c)
                passed = (other != c) & (winner != other)
                arrive = np.where(passed, np.maximum(arrive, -(-ahead // 2)), arrive)
            arrive = np.where(loser == c, 0, arrive)
            n = np.maximum(arrive, -(-duel // 2))
            best = np.where(winner != c, np.minimum(best, n), best)
        return winner, best

    def _duels(self, X):
        """Count the members that prefer one class to another, less those that do not."""
        X = self._transformed(self._check_X(X, reset=False))
        n_classes = len(self.classes_)
        duels = np.zeros((X.shape[0], n_classes, n_classes), dtype=int)
        for member in self._voters():
            scores = np.full((X.shape[0], n_classes), -np.inf)
            if not isinstance(member, Integral):
                known = np.searchsorted(self.classes_, member.classes_)
                with config_context(assume_finite=True):
                    scores[:, known] = class_scores(member, X)
            # What it votes for is what it prefers, also where scores say otherwise.
            scores[np.arange(len(scores)), self._codes(member, X)] = np.inf
            one, other = scores[:, :, None], scores[:, None, :]
            # Who does not know a class has no say about it, but for its own vote.
            prefers = (one > other) & ((other > -np.inf) | (one == np.inf))
            duels += prefers
            duels -= prefers.transpose(0, 2, 1)
        return duels


def _deficits(votes, winner):
    """Return by how much each class would have to gain on the winner to beat it."""
    at = np.arange(len(votes))
    gap = votes[at, winner][:, None] - votes
    gap += winner[:, None] < np.arange(votes.shape[1])  # that a tie would not do
    return np.maximum(gap, 0)


def _needed(votes, winner):
    """Return how many members would have to change their vote for each class to win."""
    needed = -(-_deficits(votes, winner) // 2)
    needed[np.arange(len(votes)), winner] = np.iinfo(int).max
    return needed


def _number(digest):
    return int.from_bytes(digest[:8], "little")


def _row_bytes(X):
    """Yield what is hashed of each row: it depends on no other row."""
    if issparse(X):
        X = X.copy()
        X.sum_duplicates()
        X.eliminate_zeros()
        for i in range(X.shape[0]):
            of = slice(X.indptr[i], X.indptr[i + 1])
            yield X.indices[of].astype(np.int64).tobytes() + _canonical(X.data[of])
        return
    if not is_dataframe(X):
        yield from (_canonical(row) for row in X)
        return
    numeric = X.select_dtypes("number")
    others = X.drop(columns=numeric.columns).astype(object).to_numpy()
    numbers = numeric.to_numpy(dtype=np.float64, na_value=np.nan)
    for row, values in zip(numbers, others, strict=True):
        texts = repr([str(value) for value in values]) if len(values) else ""
        yield _canonical(row) + texts.encode()


def _canonical(row):
    """Return the bytes of a row as float64; equal numbers have equal ones."""
    row = np.asarray(row, dtype=np.float64) + 0.0  # no minus zero
    row[np.isnan(row)] = np.nan
    return row.tobytes()
