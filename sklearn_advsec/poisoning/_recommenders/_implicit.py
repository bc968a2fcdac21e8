"""Models of the library implicit, as recommenders that attacks can train."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..._sklearn import BaseEstimator, HasMethods, fit_context
from ._ratings import check_ratings, top_items

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix


class ImplicitRecommender(BaseEstimator):
    """Give a model of the library implicit the methods of a recommender.

    Parameters
    ----------
    model : model of implicit
        Such as ``implicit.als.AlternatingLeastSquares()`` or
        ``implicit.nearest_neighbours.CosineRecommender()``, on the processor; copies of
        it are trained. (``pip install sklearn-advsec[recsys]`` brings the library.)
    random_state : int, RandomState instance or None, default=None
        Seed that the copy gets, where the model has one; None leaves the model's own.

    Attributes
    ----------
    model_ : model of implicit
        The trained copy.

    See Also
    --------
    MatrixFactorization : Needs no other library.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import ImplicitRecommender
    >>> import pytest
    >>> als = pytest.importorskip("implicit.als")
    >>> model = ImplicitRecommender(als.AlternatingLeastSquares(factors=8))
    >>> ratings = np.eye(20)[:, :10] + np.eye(20)[:, 1:11]
    >>> model.fit(ratings).recommend(ratings, n_items=2).shape
    (20, 2)
    """

    _parameter_constraints = {
        "model": [HasMethods(["fit", "recommend"])],
        "random_state": ["random_state"],
    }

    def __init__(
        self, model: Any, *, random_state: int | np.random.RandomState | None = None
    ) -> None:
        self.model = model
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, ratings: ArrayLike | spmatrix | sparray, y: Any = None) -> Self:
        """Train a copy of the model.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            How often, or how much, users took items.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted recommender.
        """
        ratings = csr_matrix(check_ratings(self, ratings, reset=True))
        self.model_ = deepcopy(self.model)
        if self.random_state is not None and hasattr(self.model_, "random_state"):
            seed = check_random_state(self.random_state).randint(2**31 - 1)
            self.model_.random_state = int(seed)
        self.model_.fit(ratings, show_progress=False)
        self._users = _fingerprint(ratings)
        return self

    def predict(self, ratings: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Compute the score of each item for users.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings of these users. Where they are not those of `fit`, their factors are
            computed anew, which not all models can.

        Returns
        -------
        scores : ndarray of shape (n_users, n_items)
            The model's scores; 0 for items that it has none for.
        """
        check_is_fitted(self)
        ratings = csr_matrix(check_ratings(self, ratings, reset=False))
        n_users, n_items = ratings.shape
        try:
            items, scores = self.model_.recommend(
                np.arange(n_users),
                ratings,
                N=n_items,
                filter_already_liked_items=False,
                recalculate_user=_fingerprint(ratings) != self._users,
            )
        except NotImplementedError:
            raise ValueError(
                f"ratings: {type(self.model_).__name__} knows only the users that it was "
                "trained on. Pass the ratings of fit."
            ) from None
        found = np.zeros((n_users, n_items))
        at = np.arange(n_users)[:, None].repeat(items.shape[1], axis=1)
        has = items >= 0
        found[at[has], items[has]] = scores[has]
        return found

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
        checked = check_ratings(self, ratings, reset=False)
        return top_items(self.predict(ratings), checked, n_items)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _fingerprint(ratings):
    return joblib.hash((ratings.shape, ratings.indptr, ratings.indices, ratings.data))
