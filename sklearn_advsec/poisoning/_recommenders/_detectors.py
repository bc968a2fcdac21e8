"""Detectors of fake users by their profiles: baselines of the field."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from sklearn.utils import gen_batches

from ..._progress import logged
from ..._sklearn import BaseEstimator, Interval, fit_context
from ._ratings import check_ratings, selected

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix


# Users who are compared with all others together.
_USERS = 512


class ProfileDetector(BaseEstimator):
    """Base of the detectors that remove suspicious users.

    A subclass lists its parameters, `contamination` among them, and writes
    ``_scores(ratings)``, which returns one for each user; larger is more suspicious.
    """

    _parameter_constraints = {
        "contamination": [Interval(Real, 0, 1, closed="left")],
    }

    def _scores(self, ratings):
        raise NotImplementedError

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, ratings: ArrayLike | spmatrix | sparray, y: Any = None) -> Self:
        """Score the users.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings; what is not stored (in dense ones, 0) is unknown.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted detector.
        """
        checked = check_ratings(self, ratings, reset=True)
        self.scores_ = self._scores(checked)
        n_removed = int(self.contamination * len(self.scores_) + 1e-9)
        order = np.argsort(-self.scores_, kind="stable")
        self.sample_indices_ = np.sort(order[n_removed:])
        return self

    def fit_resample(self, ratings: ArrayLike | spmatrix | sparray, y: Any = None) -> Any:
        """Return the ratings without those of the most suspicious users.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings; what is not stored (in dense ones, 0) is unknown.
        y : None
            Ignored.

        Returns
        -------
        ratings : CSR matrix, ndarray or DataFrame of shape (n_users_out, n_items)
            Those of the users in `sample_indices_`.
        """
        self.fit(ratings)
        return selected(ratings, self.sample_indices_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class PCAVarSelect(ProfileDetector):
    """Remove users who add little to the main directions of how users rate alike.

    Profiles of one attack resemble each other, and vary little along the principal
    components of the users: the sum of their squared coefficients is small. It is a
    baseline. On sparse ratings users with few ratings have small coefficients as well,
    and it finds fake users of hardly any strategy: see the benchmarks.

    Parameters
    ----------
    n_components : int, default=3
        Number of principal components.
    contamination : float, default=0.05
        Share of the users that is removed.

    Attributes
    ----------
    scores_ : ndarray of shape (n_users,)
        Larger is more suspicious: the negative sum of squared coefficients.
    sample_indices_ : ndarray of int
        The users that were kept.

    See Also
    --------
    DegreeOfSimilarity : By the nearest other users.

    References
    ----------
    .. [1] B. Mehta, W. Nejdl, "Unsupervised strategies for shilling detection and robust
       collaborative filtering", User Modeling and User-Adapted Interaction 19 (2009)
       (Algorithm 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import PCAVarSelect
    >>> rng = np.random.default_rng(0)
    >>> ratings = rng.integers(1, 6, (60, 30)) * (rng.random((60, 30)) < 0.5)
    >>> PCAVarSelect(contamination=0.1).fit_resample(ratings).shape
    (54, 30)
    """

    _parameter_constraints = {
        **ProfileDetector._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, *, n_components: int = 3, contamination: float = 0.05) -> None:
        self.n_components = n_components
        self.contamination = contamination

    def _scores(self, ratings):
        # Users are the variables: their rows are standardised, unknown ratings are 0.
        n, (n_users, n_items) = np.diff(ratings.indptr), ratings.shape
        row = np.repeat(np.arange(n_users), n)
        mean = np.bincount(row, ratings.data, minlength=n_users) / n_items
        square = np.bincount(row, ratings.data**2, minlength=n_users) / n_items
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        spread[spread == 0] = 1.0
        z = (ratings.toarray() - mean[:, None]) / spread[:, None]
        k = min(self.n_components, n_users, n_items)
        gram = z.T @ z if n_items < n_users else z @ z.T
        vectors = np.linalg.eigh(gram)[1][:, -k:]
        if n_items < n_users:  # from directions of the items to those of the users
            vectors = z @ vectors
            lengths = np.linalg.norm(vectors, axis=0)
            vectors = vectors / np.maximum(lengths, np.finfo(float).tiny)
        return -(vectors**2).sum(1)


class DegreeOfSimilarity(ProfileDetector):
    """Remove users who are most alike to their nearest other users.

    The score of a user is the mean correlation with the nearest others, over the items
    that both have rated, and less where these are few. It is a baseline.

    Parameters
    ----------
    n_neighbors : int, default=25
        How many of the nearest users count.
    min_common : int, default=50
        With fewer items in common, a correlation counts in proportion.
    contamination : float, default=0.05
        Share of the users that is removed.

    Attributes
    ----------
    scores_ : ndarray of shape (n_users,)
        Larger is more suspicious.
    sample_indices_ : ndarray of int
        The users that were kept.

    See Also
    --------
    PCAVarSelect : By the main directions of all users.

    References
    ----------
    .. [1] R. Burke, B. Mobasher, C. Williams, R. Bhaumik, "Classification features for
       attack detection in collaborative recommender systems", KDD 2006 (Section 3.1:
       degree of similarity with top neighbors, and its discount by common ratings).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import DegreeOfSimilarity
    >>> rng = np.random.default_rng(0)
    >>> ratings = rng.integers(1, 6, (60, 30)) * (rng.random((60, 30)) < 0.5)
    >>> DegreeOfSimilarity(contamination=0.1).fit_resample(ratings).shape
    (54, 30)
    """

    _parameter_constraints = {
        **ProfileDetector._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "min_common": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self, *, n_neighbors: int = 25, min_common: int = 50, contamination: float = 0.05
    ) -> None:
        self.n_neighbors = n_neighbors
        self.min_common = min_common
        self.contamination = contamination

    def _scores(self, ratings):
        n_users = ratings.shape[0]
        k = min(self.n_neighbors, n_users - 1)
        if not k:
            return np.zeros(n_users)
        n = np.maximum(np.diff(ratings.indptr), 1)
        row = np.repeat(np.arange(n_users), np.diff(ratings.indptr))
        means = np.bincount(row, ratings.data, minlength=n_users) / n
        shape = ratings.indices, ratings.indptr
        known = csr_array((np.ones_like(ratings.data), *shape), ratings.shape)
        centred = csr_array((ratings.data - means[row], *shape), ratings.shape)
        squares = csr_array((centred.data**2, *shape), ratings.shape)
        blocks, scores = list(gen_batches(n_users, _USERS)), np.empty(n_users)
        for at in logged(blocks, type(self).__name__, "block of users"):
            common = (known[at] @ known.T).toarray()
            # Of both users, over the items that they have in common.
            lengths = (squares[at] @ known.T).toarray()
            lengths = np.sqrt(lengths * (known[at] @ squares.T).toarray())
            products = (centred[at] @ centred.T).toarray()
            safe = np.where(lengths > 0, lengths, 1)
            alike = np.where(lengths > 0, products / safe, 0.0)
            alike *= np.minimum(common, self.min_common) / self.min_common
            alike[np.arange(len(alike)), np.arange(n_users)[at]] = -np.inf
            scores[at] = np.partition(alike, -k, axis=1)[:, -k:].mean(1)
        return scores
