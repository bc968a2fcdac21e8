"""Fake users: profiles that make a recommender show some items, or hide them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..._estimators import check_trainable, name_of
from ..._progress import ReportsProgress
from ..._seeding import seed_unset
from ..._sklearn import (
    BaseEstimator,
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    fit_context,
)
from ._profiles import ProfileGenerator, RealProfiles, profile_realism
from ._ratings import (
    check_ratings,
    chosen_items,
    chosen_users,
    stacked,
    unrated_by,
    with_profiles,
)

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

STRATEGIES = ("random", "average", "bandwagon", "popular_average", "copied", "learned")
# How far both sides of a query are from the tilt, and the longest step, in standard
# deviations of the users' tastes.
_REACH, _STEP = 1.0, 0.5


class FakeUsers(ReportsProgress, BaseEstimator):
    """Add users whose profiles push some items of a recommender, or nuke them.

    All profiles give the items the highest rating, or the lowest, and differ in what else
    they rate. Their lengths are drawn from those of real users, and their ratings are
    rounded to values that real users give.

    Fake users stand below the real ones, which keep their places: a recommender knows
    users by these.

    Parameters
    ----------
    recommender : recommender or None, default=None
        For "learned": what is attacked, with ``fit(ratings)``, and ``predict(ratings)``
        that returns scores of shape (n_users, n_items). Clones of it are trained.
    items : int or array-like of int, default=None
        The items, by their columns. They have to be given.
    strategy : {"random", "average", "bandwagon", "popular_average", "copied", \
            "learned"}, default="learned"
        What else profiles rate:

        - "random": items at random, as all ratings are distributed;
        - "average": items at random, each as its own ratings are distributed;
        - "bandwagon": items that most users rate, with the highest rating (for "nuke",
          widely disliked ones with the lowest), and as many at random;
        - "popular_average": as "average", among the most rated items;
        - "copied": all that a real user, drawn at random, has rated: the bar for the
          others, since nothing looks more real;
        - "learned": profiles of a generator that was learned from the real ones. Which
          users it takes after is optimised by zeroth-order steps against the answers of
          the retrained recommender [1]_.
    n_users : int or float, default=0.05
        How many fake users are added: a number (1 is single-user injection [2]_), or a
        share of the users.
    goal : {"push", "nuke"}, default="push"
        Whether the scores of the items shall rise or fall.
    users : array-like of int or bool, default=None
        The users to whom that shall happen, as positions or a mask; by default all.
    max_queries : int, default=40
        For "learned": how often the recommender is retrained and asked.
    max_realism : float, default=0.7
        For "learned": profiles that a cross-validated classifier tells from real ones
        with a larger area under the ROC curve are passed over, where there are others.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        The rows of the fake users.
    sample_indices_ : ndarray of int, shape (n_users_out,)
        The row that each row comes from; -1 for fake users.
    n_queries_ : int
        How often the recommender was retrained and asked.
    scores_ : ndarray of shape (`n_queries_`,)
        What it answered: the mean score of the items, over the users who have not rated
        them.
    realism_ : float
        :func:`profile_realism` of the fake users; NaN for fewer than two.

    See Also
    --------
    injection_report : Measures what fake users do, and how real they look.
    PCAVarSelect : A detector.

    Notes
    -----
    The generator takes the place of the adversarial networks of [1]_: ratings of a few
    thousand users are few to train these with. Steps are taken in the space of its
    parameters, not in that of all ratings, which has too many dimensions for a few dozen
    answers.

    References
    ----------
    .. [1] K. Christakopoulou, A. Banerjee, "Adversarial recommendation: attack of the
       learned fake users", arXiv:1809.08336 (Section 4: a generator of profiles, then
       zeroth-order optimisation of the adversary's goal).
    .. [2] C. Huang, H. Li, "Single-user injection for invisible shilling attack against
       recommender systems", arXiv:2308.10467.
    .. [3] B. Mobasher, R. Burke, R. Bhaumik, C. Williams, "Toward trustworthy recommender
       systems", ACM TOIT 7 (2007) (Section 3: the templates).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import FakeUsers, MatrixFactorization
    >>> rng = np.random.default_rng(0)
    >>> ratings = rng.integers(1, 6, (60, 30)) * (rng.random((60, 30)) < 0.3)
    >>> model = MatrixFactorization(n_factors=2, random_state=0)
    >>> attack = FakeUsers(model, items=[4], n_users=6, max_queries=6, random_state=0)
    >>> poisoned = attack.fit_resample(ratings)
    >>> poisoned.shape, attack.n_queries_, set(poisoned[60:, 4].tolist())
    ((66, 30), 6, {5.0})
    >>> clean = model.fit(ratings).predict(ratings)[:, 4].mean()
    >>> bool(model.fit(poisoned).predict(ratings)[:, 4].mean() > clean)
    True
    """

    changes = "added"
    knowledge = "score"

    _parameter_constraints = {
        "recommender": [HasMethods(["fit", "predict"]), None],
        "items": ["array-like", Integral, None],
        "strategy": [StrOptions(set(STRATEGIES))],
        "n_users": [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="both"),
        ],
        "goal": [StrOptions({"push", "nuke"})],
        "users": ["array-like", None],
        "max_queries": [Interval(Integral, 1, None, closed="left")],
        "max_realism": [Interval(Real, 0.5, 1, closed="both")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        recommender: Any = None,
        *,
        items: ArrayLike | None = None,
        strategy: Literal[
            "random", "average", "bandwagon", "popular_average", "copied", "learned"
        ] = "learned",
        n_users: float = 0.05,
        goal: Literal["push", "nuke"] = "push",
        users: ArrayLike | None = None,
        max_queries: int = 40,
        max_realism: float = 0.7,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.recommender = recommender
        self.items = items
        self.strategy = strategy
        self.n_users = n_users
        self.goal = goal
        self.users = users
        self.max_queries = max_queries
        self.max_realism = max_realism
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, ratings: ArrayLike | spmatrix | sparray, y: Any = None) -> Self:
        """Find the fake users, without giving the ratings back.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings of real users; what is not stored (in dense ones, 0) is unknown.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted attack.
        """
        self._find(ratings)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_resample(self, ratings: ArrayLike | spmatrix | sparray, y: Any = None) -> Any:
        """Return the ratings, and those of fake users below them.

        Parameters
        ----------
        ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
            Ratings of real users; what is not stored (in dense ones, 0) is unknown.
        y : None
            Ignored.

        Returns
        -------
        ratings : CSR matrix, ndarray or DataFrame of shape (n_users_out, n_items)
            Ratings of all users, in the type that came in.

        Raises
        ------
        KeyboardInterrupt or Exception
            Whatever stops the recommender; after the first answer ``exception.result``
            is what is returned for the best profiles so far.
        """
        return with_profiles(*self._find(ratings))

    def _n_tasks(self):
        return self.max_queries if self.strategy == "learned" else 1

    def _find(self, given):
        ratings = check_ratings(self, given, reset=True)
        if not ratings.nnz:
            raise ValueError("ratings holds no rating at all, so no profile looks real.")
        items = chosen_items(self.items, ratings.shape[1])
        users = chosen_users(self.users, ratings.shape[0])
        rng = check_random_state(self.random_state)
        n, n_fake = ratings.shape[0], self._count(ratings.shape[0])
        real = RealProfiles(ratings, items)
        self.poison_indices_ = np.arange(n, n + n_fake)
        self.sample_indices_ = np.r_[np.arange(n), np.full(n_fake, -1)]
        self.n_queries_, self.scores_ = 0, np.empty(0)
        extreme = real.values[-1 if self.goal == "push" else 0]
        self._seed = int(rng.randint(2**31 - 1))
        if self.strategy == "learned":
            self._check_recommender()
        if self.strategy == "learned" and n_fake and len(real.raters):
            with self._reported(given, None):
                profiles = self._learned(given, real, users, extreme, rng)
        else:
            drawn = [real.template(self.strategy, self.goal, rng) for _ in range(n_fake)]
            profiles = real.fill(drawn, extreme)
        self.realism_ = self._realism(ratings, profiles, items)
        return given, ratings, profiles

    def _count(self, n):
        if isinstance(self.n_users, Integral):
            if self.n_users > n:
                raise ValueError(
                    f"n_users={self.n_users} is more than the {n} users of ratings."
                )
            return int(self.n_users)
        return int(self.n_users * n + 1e-9)

    def _check_recommender(self):
        if self.recommender is None:
            raise ValueError(
                'strategy="learned" asks a recommender: set recommender, or take another '
                "strategy."
            )
        check_trainable(self.recommender, "recommender")

    def _realism(self, ratings, profiles, items):
        fake = np.arange(ratings.shape[0], ratings.shape[0] + profiles.shape[0])
        return profile_realism(
            stacked(ratings, profiles), fake, items, random_state=self._seed
        )

    def _learned(self, given, real, users, extreme, rng):
        """Return the best profiles; those that were found so far, if it is stopped."""
        best = []  # the last ones are best
        try:
            for profiles in self._climb(real, users, extreme, rng):
                best.append(profiles)
        except BaseException as error:
            if best:
                error.result = with_profiles(given, real.ratings, best[-1])
            raise
        return best[-1]

    def _climb(self, real, users, extreme, rng):
        """Tilt the generator uphill, and yield profiles that are better than before."""
        n_fake, sign = len(self.poison_indices_), 1 if self.goal == "push" else -1
        generator = ProfileGenerator(real, self._seed)
        uniforms = rng.random_sample(n_fake)
        seeds = rng.randint(2**31 - 1, size=n_fake)
        unrated = unrated_by(real.ratings, users, real.items)
        tilt, asked, steepest = np.zeros(generator.n_directions), [], 0.0
        most = (False, -np.inf)
        for i in self._tasks(range(self.max_queries), "query"):
            # A query at the beginning, and then pairs of them, on both sides.
            if i % 2:
                along = rng.normal(size=len(tilt))
                along *= _REACH / np.linalg.norm(along)
            side = 0.0 if i == 0 else (1.0 if i % 2 else -1.0)
            drawn = generator.draw(tilt + side * along if i else tilt, uniforms, seeds)
            profiles = real.fill(drawn, extreme)
            asked.append(sign * self._ask(real, profiles, users, unrated))
            self.n_queries_, self.scores_ = len(asked), sign * np.array(asked)
            if (True, asked[-1]) > most:  # else it is not taken, however real it looks
                found = self._realism(real.ratings, profiles, real.items)
                rank = (not found > self.max_realism, asked[-1])
                if rank > most:
                    most = rank
                    yield profiles
            if i and i % 2 == 0:
                slope = asked[-2] - asked[-1]
                steepest = max(steepest, abs(slope), np.finfo(float).tiny)
                tilt = tilt + _STEP * slope / steepest * along

    def _ask(self, real, profiles, users, unrated):
        """Retrain the recommender with profiles; return the mean score of the items."""
        ratings = csr_matrix(stacked(real.ratings, profiles))
        model = clone(self.recommender)
        seed_unset(model, self._seed)
        scores = item_scores(model.fit(ratings), ratings, self.recommender)
        return scores[np.ix_(users, real.items)][unrated].mean()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def item_scores(model, ratings, name):
    """Return what a fitted recommender predicts for its users, checked."""
    scores = np.asarray(model.predict(ratings))
    if scores.shape != ratings.shape or not np.isfinite(scores).all():
        raise ValueError(
            f"recommender: {name_of(name)}.predict has to return a finite score of each "
            f"item for each user, of shape {ratings.shape}; it returned an array of "
            f"shape {scores.shape}, or scores that are not finite."
        )
    return scores
