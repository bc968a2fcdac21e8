"""Bags of few rows: an attacker's rows are seldom in one."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta
from sklearn.utils.validation import check_is_fitted

from ..._sklearn import Interval
from ._aggregation import Aggregation, PoisoningCertificate

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix


class BaggingCertified(Aggregation):
    """Vote of models, each trained on a few rows drawn at random: certified.

    The bags that hold none of an attacker's rows are as they were; how many these are
    bounds what the attacker gains. The certificate is about the vote of infinitely many
    bags, which the votes of `n_estimators` estimate; the bound holds, for each row, with
    a confidence over the bags that were drawn, which the attacker must not know.

    Parameters
    ----------
    estimator : classifier
        What is trained on each bag; a pipeline with all steps before it.
    n_estimators : int, default=200
        Number of bags, and of members.
    bag_size : int, default=30
        How many rows are drawn for each, with replacement. Fewer certify more and
        predict worse.
    alpha : float, default=0.001
        Probability that the certificate of a row is wrong.
    random_state : int, RandomState instance or None, default=None
        Seed.
    n_jobs : int, default=None
        Number of joblib jobs.

    Attributes
    ----------
    estimators_ : list of classifier or int
        The members; a class code for a bag of one class.
    subsets_ : list of ndarray of int
        The training rows of each.
    n_samples_ : int
        Number of training rows.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    DeepPartitionAggregation : A proof, for parts by a hash.

    References
    ----------
    .. [1] J. Jia, X. Cao, N. Z. Gong, "Intrinsic certified robustness of bagging against
       data poisoning attacks", arXiv:2008.04495 (Theorem 1, with the confidence intervals
       of Section 4).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_advsec.poisoning import BaggingCertified
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> bags = BaggingCertified(RidgeClassifier(), random_state=0).fit(X[::2], y[::2])
    >>> certificate = bags.certify(X[1::2])
    >>> certificate.confidence, bool(np.nanmedian(certificate.radius) >= 3)
    (0.999, True)
    """

    _parameter_constraints = {
        **Aggregation._parameter_constraints,
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "bag_size": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        n_estimators: int = 200,
        bag_size: int = 30,
        alpha: float = 0.001,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.bag_size = bag_size
        self.alpha = alpha
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _subsets(self, X, y, rng):
        self.n_samples_ = len(y)
        drawn = rng.randint(len(y), size=(self.n_estimators, self.bag_size))
        return X, list(drawn)

    def certify(self, X: ArrayLike | spmatrix | sparray) -> PoisoningCertificate:
        """Compute how many changes of the training data leave each prediction.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        certificate : PoisoningCertificate
            Its radius counts rows that are inserted, removed or changed in any way. It is
            NaN where the votes are too close to tell which class wins.
        """
        check_is_fitted(self)
        votes = self.votes(X)
        n_members, n_classes = votes[0].sum(), votes.shape[1]
        order = np.sort(votes, axis=1)
        at_most = self.alpha / n_classes  # for all classes at once
        lower = beta.ppf(at_most, order[:, -1], n_members - order[:, -1] + 1)
        upper = beta.ppf(1 - at_most, order[:, -2] + 1, n_members - order[:, -2])
        upper = np.where(order[:, -2] == n_members, 1.0, upper)
        lead = lower - np.minimum(upper, 1 - lower)
        radius = np.full(len(votes), np.nan)
        sure = lead > 0
        limits = _leads_needed(self.n_samples_, self.bag_size)
        radius[sure] = np.searchsorted(limits, lead[sure], side="left") - 1.0
        return PoisoningCertificate(
            self.classes_[votes.argmax(1)],
            np.maximum(radius, 0.0),
            confidence=1 - self.alpha,
            unit="insertions, removals or changed rows",
        )


def _leads_needed(n, k):
    """Return, for 0, 1, ... changes, the lead in probability that has to be exceeded."""
    limits = [0.0]
    while limits[-1] < 1 and len(limits) <= n:
        r = len(limits)
        sizes = np.arange(max(n - r, 1), n + r + 1)
        shared = np.maximum(np.maximum(n, sizes) - r, 0)
        needed = (sizes / n) ** k - 2 * (shared / n) ** k + 1
        limits.append(max(limits[-1], needed.max()))
    return np.array(limits)
