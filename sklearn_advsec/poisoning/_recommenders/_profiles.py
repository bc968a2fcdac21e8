"""Profiles of fake users: templates, a generator, and how real they look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.utils.extmath import randomized_svd

from ._ratings import as_ratings, chosen_items, chosen_rows

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

_N_DIRECTIONS, _N_NEIGHBORS = 8, 10
_POPULAR = 0.05  # share of the items that count as popular


class RealProfiles:
    """What real users rate, and how: what templates and the generator draw from.

    Parameters
    ----------
    ratings : csr_array of shape (n_users, n_items)
        Ratings of real users.
    items : ndarray of int
        The items of the attack, which are left out.
    """

    def __init__(self, ratings, items):
        self.ratings, self.items = ratings, items
        self.others = np.setdiff1d(np.arange(ratings.shape[1]), items)
        self.values = np.unique(ratings.data)
        self.mean, self.spread = ratings.data.mean(), ratings.data.std()
        self.counts = np.bincount(ratings.indices, minlength=ratings.shape[1])
        self.item_means, self.item_spreads = item_moments(ratings)
        self.lengths = np.diff(without(ratings, items).indptr)
        self.raters = np.flatnonzero(self.lengths)

    def rounded(self, wanted):
        """Return the ratings that real users give nearest to some numbers."""
        if len(self.values) == 1:
            return np.full(len(wanted), self.values[0])
        at = np.searchsorted(self.values, wanted).clip(1, len(self.values) - 1)
        low, high = self.values[at - 1], self.values[at]
        return np.where(wanted - low < high - wanted, low, high)

    def template(self, strategy, goal, rng):
        """Return items and ratings of a template that is filled at random."""
        if not len(self.raters):
            return self.others[:0], np.empty(0)
        if strategy == "copied":
            return self.of(rng.choice(self.raters))
        length = self.lengths[rng.choice(self.raters)]
        order = self.others[np.argsort(-self.counts[self.others], kind="stable")]
        if strategy == "popular_average":
            chosen = order[: min(len(order), 2 * length)]
            chosen = rng.choice(chosen, length, replace=False)
        else:
            chosen = rng.choice(self.others, length, replace=False)
        if strategy in ("average", "popular_average"):
            wanted = rng.normal(self.item_means[chosen], self.item_spreads[chosen])
            return chosen, self.rounded(wanted)
        given = self.rounded(rng.normal(self.mean, self.spread, length))
        if strategy == "bandwagon":
            popular = order[: max(1, int(_POPULAR * len(order)))]
            extreme = self.values[-1]
            if goal == "nuke":  # widely rated, and widely disliked
                popular = order[: max(1, len(order) // 4)]
                means = self.item_means[popular]
                popular = popular[np.argsort(means)[: max(1, len(order) // 20)]]
                extreme = self.values[0]
            n_popular = min(len(popular), -(-length // 2))
            popular = rng.choice(popular, n_popular, replace=False)
            rest = chosen[~np.isin(chosen, popular)][: length - n_popular]
            chosen = np.concatenate([popular, rest])
            given = np.concatenate([np.full(n_popular, extreme), given[: len(rest)]])
        return chosen, given

    def of(self, user):
        """Return the items that a user rated, but those of the attack, and ratings."""
        row = slice(self.ratings.indptr[user], self.ratings.indptr[user + 1])
        items, given = self.ratings.indices[row], self.ratings.data[row]
        other = ~np.isin(items, self.items)
        return items[other], given[other]

    def fill(self, profiles, extreme):
        """Return profiles as ratings, each with the items of the attack."""
        indptr, indices, data = [0], [], []
        for items, given in profiles:
            indices += [*items, *self.items]
            data += [*given, *np.full(len(self.items), extreme)]
            indptr.append(len(indices))
        shape = len(profiles), self.ratings.shape[1]
        made = csr_array(
            (np.array(data, dtype=float), np.array(indices, dtype=np.intp), indptr), shape
        )
        made.sort_indices()
        return made


class ProfileGenerator:
    """Draws profiles that are like those of real users, and of none of them.

    A profile has the length of a real one. Its items are drawn from what this user and
    the nearest others in taste have rated; its ratings are theirs, moved and scaled to
    the mean and the spread of the user. A tilt says in which directions of taste, and of
    length, mean and spread, users are drawn more often.

    Parameters
    ----------
    real : RealProfiles
        What it learns from.
    seed : int
        Seed of the directions.
    """

    def __init__(self, real, seed):
        self.real = real
        ratings = without(real.ratings, real.items)
        self.lengths = np.diff(ratings.indptr)
        centred = ratings.copy()
        centred.data = np.sign(ratings.data - real.item_means[ratings.indices] + 1e-9)
        known = ratings.copy()
        known.data = np.ones_like(known.data)
        k = max(1, min(_N_DIRECTIONS, *(n - 1 for n in ratings.shape)))
        half = max(1, k // 2)
        tastes = [
            _directions(part, n, seed)
            for part, n in ((known, half), (centred, max(1, k - half)))
        ]
        self.tastes = np.hstack(tastes)[real.raters]
        k = min(_N_NEIGHBORS, len(real.raters))
        search = NearestNeighbors(n_neighbors=k).fit(self.tastes)
        self.near = search.kneighbors(self.tastes, return_distance=False)
        row = np.repeat(np.arange(ratings.shape[0]), self.lengths)
        sums = np.bincount(row, ratings.data, minlength=ratings.shape[0])
        squares = np.bincount(row, ratings.data**2, minlength=ratings.shape[0])
        n = np.maximum(self.lengths, 1)
        self.means = sums / n
        self.spreads = np.sqrt(np.maximum(squares / n - self.means**2, 0))
        self.profiles = [real.of(user) for user in real.raters]
        habits = np.column_stack([np.log(n), self.means, self.spreads])[real.raters]
        self.tastes = np.hstack([self.tastes, _standardised(habits)])
        self.n_directions = self.tastes.shape[1]

    def draw(self, tilt, uniforms, seeds):
        """Draw profiles: the same users and items again, as far as tilts are alike."""
        logits = self.tastes @ tilt
        shares = np.exp(logits - logits.max())
        order = np.argsort(self.tastes[:, 0], kind="stable")
        cumulated = np.cumsum(shares[order]) / shares.sum()
        at = order[np.searchsorted(cumulated, uniforms).clip(0, len(order) - 1)]
        return [self._like(user, seed) for user, seed in zip(at, seeds, strict=True)]

    def _like(self, at, seed):
        rng = np.random.RandomState(seed)
        near, users = self.near[at], self.real.raters
        rated = [self.profiles[v][0] for v in near]
        items = np.concatenate(rated)
        source = np.repeat(users[near], [len(r) for r in rated])
        given = np.concatenate([self.profiles[v][1] for v in near])
        # The user's own items count as much as those of all neighbours together.
        weight = np.where(source == users[at], float(len(near)), 1.0)
        keys = rng.random_sample(len(items)) ** (1 / weight)
        order = np.argsort(-keys)
        _, first = np.unique(items[order], return_index=True)
        chosen = order[np.sort(first)][: self.lengths[users[at]]]
        spread = np.maximum(self.spreads[source[chosen]], 1e-9)
        standard = (given[chosen] - self.means[source[chosen]]) / spread
        wanted = self.means[users[at]] + self.spreads[users[at]] * standard
        return items[chosen], self.real.rounded(wanted)


def profile_realism(
    ratings: ArrayLike | spmatrix | sparray,
    fake: ArrayLike,
    items: ArrayLike = (),
    *,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """Tell fake profiles from real ones by their statistics: how well that works.

    A logistic regression sees, of each profile, its length, the mean and the spread of
    its ratings, their mean distance from the means of the items, how popular these are,
    and the share of top ratings: as normal scores, with their squares and products. It is
    cross-validated, so it knows other fake users of the same kind: a detector seldom
    does.

    Parameters
    ----------
    ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
        Ratings of real and fake users.
    fake : array-like of bool or int
        A mask of the fake users, or their positions.
    items : array-like of int, default=()
        Items that are left out, such as those that are pushed, which give fakes away.
    random_state : int, RandomState instance or None, default=None
        Seed of the splits.

    Returns
    -------
    auc : float
        Area under the ROC curve: 0.5 for fakes that look real, 1 for obvious ones; NaN
        where there are fewer than two fake or two real users.

    See Also
    --------
    FakeUsers : Makes profiles that shall look real.
    injection_report : What they do, and how real they look.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import profile_realism
    >>> rng = np.random.default_rng(0)
    >>> ratings = rng.integers(1, 6, (60, 40)) * (rng.random((60, 40)) < 0.3)
    >>> ratings[50:] = 5 * (rng.random((10, 40)) < 0.8)
    >>> profile_realism(ratings, np.arange(50, 60), random_state=0)
    1.0
    """
    ratings = as_ratings(ratings)
    mask = np.zeros(ratings.shape[0], dtype=bool)
    if np.size(fake):
        mask[chosen_rows(fake, ratings.shape[0], "fake")] = True
    if min(mask.sum(), (~mask).sum()) < 2:
        return np.nan
    if np.size(items):
        items = chosen_items(items, ratings.shape[1])
    rest = without(ratings, items)
    means, _ = item_moments(rest[np.flatnonzero(~mask)])
    X = profile_statistics(rest, means)
    folds = StratifiedKFold(
        min(5, mask.sum(), (~mask).sum()), shuffle=True, random_state=random_state
    )
    classifier = make_pipeline(
        QuantileTransformer(
            n_quantiles=min(100, len(X) // 2),
            output_distribution="normal",
            subsample=None,
        ),
        PolynomialFeatures(2),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000),
    )
    scores = cross_val_predict(classifier, X, mask, cv=folds, method="decision_function")
    return float(roc_auc_score(mask, scores))


def profile_statistics(ratings, item_means):
    """Return statistics of each profile, of shape (n_users, 6)."""
    n, (n_users, n_items) = np.diff(ratings.indptr), ratings.shape
    row = np.repeat(np.arange(n_users), n)
    popularity = np.bincount(ratings.indices, minlength=n_items) / max(1, n_users)

    def mean(values):
        return np.bincount(row, values, minlength=n_users) / np.maximum(n, 1)

    top = ratings.data.max() if ratings.nnz else 0.0
    average = mean(ratings.data)
    spread = np.sqrt(np.maximum(mean(ratings.data**2) - average**2, 0))
    distance = mean(np.abs(ratings.data - item_means[ratings.indices]))
    common, share = mean(popularity[ratings.indices]), mean(ratings.data == top)
    return np.column_stack([n, average, spread, distance, common, share])


def without(ratings, items):
    """Return ratings without those of some items."""
    kept = ~np.isin(ratings.indices, items)
    row = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))[kept]
    indptr = np.r_[0, np.cumsum(np.bincount(row, minlength=ratings.shape[0]))]
    return csr_array((ratings.data[kept], ratings.indices[kept], indptr), ratings.shape)


def item_moments(ratings):
    """Return mean and spread of each item's ratings; those of all where it has none."""
    n_items = ratings.shape[1]
    n = np.bincount(ratings.indices, minlength=n_items)
    total = np.bincount(ratings.indices, ratings.data, minlength=n_items)
    squares = np.bincount(ratings.indices, ratings.data**2, minlength=n_items)
    overall = ratings.data.mean() if ratings.nnz else 0.0
    means = np.where(n > 0, total / np.maximum(n, 1), overall)
    spreads = np.sqrt(np.maximum(squares / np.maximum(n, 1) - means**2, 0))
    return means, spreads


def _directions(matrix, k, seed):
    """Return standardised coordinates of rows along their main directions."""
    left, lengths, _ = randomized_svd(matrix, n_components=k, random_state=seed)
    found = left * lengths
    return _standardised(found)


def _standardised(columns):
    return (columns - columns.mean(0)) / np.maximum(columns.std(0), 1e-12)
