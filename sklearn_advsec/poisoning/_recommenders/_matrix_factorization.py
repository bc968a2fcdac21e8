"""A small recommender: matrix factorization by alternating least squares."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..._progress import ReportsProgress
from ..._sklearn import BaseEstimator, Interval, StrOptions, fit_context
from ._ratings import check_ratings, top_items

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

_CHUNK = 4096  # rows that are solved at once, so that large tables fit in memory


class MatrixFactorization(ReportsProgress, BaseEstimator):
    """Recommend items by the product of factors of users and of items.

    It is small enough to be retrained hundreds of times, as attacks on recommenders do.
    Ratings are a matrix with a row for each user and a column for each item; what is not
    stored in it is unknown (in dense arrays, what is 0).

    Parameters
    ----------
    feedback : {"explicit", "implicit"}, default="explicit"
        - "explicit": ratings are opinions. Their mean, a bias of each user and of each
          item, and the factors fit those that are known [1]_.
        - "implicit": ratings count how often a user took an item. Factors fit 1 for the
          items that were taken and 0 for all others, with the confidence
          ``1 + alpha * rating`` [2]_.
    n_factors : int, default=16
        Number of factors.
    regularization : float, default=10.0
        Penalty of the squared factors (and biases) of each user and item.
    alpha : float, default=1.0
        Growth of the confidence, for implicit feedback.
    max_iter : int, default=10
        Rounds, each of which solves for all users and then for all items.
    random_state : int, RandomState instance or None, default=None
        Seed of the first factors.

    Attributes
    ----------
    item_factors_ : ndarray of shape (n_items, n_factors)
        Factors of the items.
    item_biases_ : ndarray of shape (n_items,)
        Their biases; 0 for implicit feedback.
    mean_ : float
        Mean of the ratings; 0 for implicit feedback.

    See Also
    --------
    ImplicitRecommender : Models of the library implicit in its place.
    FakeUsers : Injects profiles into the ratings.

    References
    ----------
    .. [1] Y. Koren, R. Bell, C. Volinsky, "Matrix factorization techniques for
       recommender systems", Computer 42 (2009) (equation 5, solved in turns).
    .. [2] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback
       datasets", ICDM 2008 (equations 3 to 5).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import MatrixFactorization
    >>> ratings = np.array([[5, 4, 1, 0], [4, 5, 0, 1], [1, 0, 5, 4], [0, 1, 4, 5.0]])
    >>> model = MatrixFactorization(n_factors=2, regularization=0.1, random_state=0)
    >>> model.fit(ratings).predict(ratings).round()[0]
    array([5., 4., 1., 1.])
    >>> model.recommend(ratings, n_items=1).ravel()
    array([3, 2, 1, 0])
    """

    _parameter_constraints = {
        "feedback": [StrOptions({"explicit", "implicit"})],
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "regularization": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        feedback: Literal["explicit", "implicit"] = "explicit",
        n_factors: int = 16,
        regularization: float = 10.0,
        alpha: float = 1.0,
        max_iter: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.feedback = feedback
        self.n_factors = n_factors
        self.regularization = regularization
        self.alpha = alpha
        self.max_iter = max_iter
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, ratings: ArrayLike | spmatrix | sparray, y: Any = None) -> Self:
        """Factorize the ratings.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted recommender.
        """
        ratings = self._check(ratings, reset=True)
        rng = check_random_state(self.random_state)
        n_items = ratings.shape[1]
        self.mean_ = 0.0 if self._is_implicit else float(ratings.data.mean())
        self.item_factors_ = rng.normal(scale=0.1, size=(n_items, self.n_factors))
        self.item_biases_ = np.zeros(n_items)
        by_item = ratings.T.tocsr()
        with self._reported(ratings, None):
            for _ in self._tasks(range(self.max_iter), "iteration"):
                factors = self._solve(ratings, self.item_factors_, self.item_biases_)
                self.item_factors_, self.item_biases_ = self._solve(by_item, *factors)
        return self

    def _n_tasks(self):
        return self.max_iter

    def predict(self, ratings: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Compute the score of each item for users, from what they have rated.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings of these users, who need not be those of `fit`.

        Returns
        -------
        scores : ndarray of shape (n_users, n_items)
            Expected ratings, or preferences.
        """
        check_is_fitted(self)
        ratings = self._check(ratings, reset=False)
        factors, biases = self._solve(ratings, self.item_factors_, self.item_biases_)
        scores = factors @ self.item_factors_.T
        scores += self.mean_ + self.item_biases_ + biases[:, None]
        return scores

    def recommend(
        self, ratings: ArrayLike | spmatrix | sparray, n_items: int = 10
    ) -> np.ndarray:
        """Return the items of largest scores that users have not rated.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings of these users.
        n_items : int, default=10
            How many items each user gets.

        Returns
        -------
        items : ndarray of int, shape (n_users, n_items)
            Positions of items, best first; -1 where a user has no more to see.
        """
        check_is_fitted(self)
        ratings = self._check(ratings, reset=False)
        return top_items(self.predict(ratings), ratings, n_items)

    @property
    def _is_implicit(self):
        return self.feedback == "implicit"

    def _check(self, ratings, *, reset):
        ratings = check_ratings(self, ratings, reset=reset)
        if self._is_implicit and len(ratings.data) and ratings.data.min() < 0:
            raise ValueError(
                'ratings: with feedback="implicit" these are counts; some are negative.'
            )
        if reset and not ratings.nnz:
            raise ValueError("ratings holds no rating at all, so nothing can be learned.")
        return ratings

    def _solve(self, ratings, factors, biases):
        """Return factors and biases of rows, given those of the columns."""
        if self._is_implicit:
            gram, confidence = factors.T @ factors, ratings.copy()
            confidence.data = self.alpha * ratings.data
            wanted = confidence.copy()
            wanted.data = confidence.data + (ratings.data > 0)
            found = _ridge(confidence, wanted, factors, gram, self.regularization)
            return found, np.zeros(len(found))
        known, wanted = ratings.copy(), ratings.copy()
        known.data = np.ones_like(ratings.data)
        wanted.data = ratings.data - self.mean_ - biases[ratings.indices]
        factors = np.hstack([factors, np.ones((len(factors), 1))])
        gram = np.zeros((factors.shape[1],) * 2)
        found = _ridge(known, wanted, factors, gram, self.regularization)
        return found[:, :-1], found[:, -1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _ridge(weights, targets, factors, gram, penalty):
    """Solve, for each row, the least squares of its entries; both matrices are CSR."""
    k = factors.shape[1]
    squares = (factors[:, :, None] * factors[:, None]).reshape(len(factors), k * k)
    gram, found = gram + penalty * np.eye(k), np.empty((weights.shape[0], k))
    for start in range(0, weights.shape[0], _CHUNK):
        of = slice(start, start + _CHUNK)
        left = gram + (weights[of] @ squares).reshape(-1, k, k)
        right = targets[of] @ factors
        found[of] = np.linalg.solve(left, right[:, :, None])[:, :, 0]
    return found
