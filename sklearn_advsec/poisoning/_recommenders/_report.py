"""What fake users do to a retrained recommender, and how real they look."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..._estimators import check_trainable
from ..._seeding import seed_unset
from ._fake_users import item_scores
from ._profiles import profile_realism
from ._ratings import as_ratings, chosen_items, chosen_users, top_items, unrated_by

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

    from ._fake_users import FakeUsers


@dataclass
class InjectionReport:
    """What fake users do to a recommender.

    Attributes
    ----------
    prediction_shift : float
        By how much scores of the items rise, in the mean over real users who have not
        rated them.
    hit_rate : float
        Share of these users who get an item among their first recommendations, in the
        mean over the items.
    clean_hit_rate : float
        The same without fake users.
    realism : float
        Area under the ROC curve of a cross-validated classifier that tells fake profiles
        from real ones: 0.5 is perfect. See :func:`profile_realism`.
    n_fake : int
        Number of fake users.
    n_queries : int
        How often the attack retrained and asked the recommender.

    See Also
    --------
    injection_report : Makes one.

    Examples
    --------
    >>> from sklearn_advsec.poisoning import InjectionReport
    >>> report = InjectionReport(prediction_shift=0.4, hit_rate=0.3, clean_hit_rate=0.05,
    ...                          realism=0.55, n_fake=6, n_queries=40)
    >>> round(report.hit_rate - report.clean_hit_rate, 2)  # what the fake users did
    0.25
    """

    prediction_shift: float
    hit_rate: float
    clean_hit_rate: float
    realism: float
    n_fake: int
    n_queries: int


def injection_report(
    recommender: Any,
    attack: FakeUsers,
    ratings: ArrayLike | spmatrix | sparray,
    *,
    n_recommended: int = 10,
    random_state: int | np.random.RandomState | None = None,
) -> InjectionReport:
    """Retrain a recommender without and with fake users, and compare.

    Parameters
    ----------
    recommender : recommender
        With ``fit(ratings)`` and ``predict(ratings)``; clones of it are trained, with a
        seed of their own where ``random_state`` is None.
    attack : FakeUsers
        Clones of it are fitted. One without a recommender takes `recommender`.
    ratings : {sparse matrix, array-like, DataFrame} of shape (n_users, n_items)
        Ratings of real users.
    n_recommended : int, default=10
        How many recommendations count, the k of the hit rate at k.
    random_state : int, RandomState instance or None, default=None
        Seed of the recommenders that are compared, and of the realism.

    Returns
    -------
    report : InjectionReport
        Shift, hit rates and realism.

    See Also
    --------
    FakeUsers : The attack.
    profile_realism : The realism alone.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import (
    ...     FakeUsers, MatrixFactorization, injection_report)
    >>> rng = np.random.default_rng(0)
    >>> ratings = rng.integers(1, 6, (60, 30)) * (rng.random((60, 30)) < 0.3)
    >>> attack = FakeUsers(items=[4], strategy="copied", n_users=6, random_state=0)
    >>> model = MatrixFactorization(n_factors=2)
    >>> report = injection_report(model, attack, ratings, random_state=0)
    >>> report.prediction_shift > 0.1, report.hit_rate >= report.clean_hit_rate
    (True, True)
    """
    check_trainable(recommender, "recommender")
    if type(n_recommended) is bool or not isinstance(n_recommended, Integral):
        raise ValueError(f"n_recommended must be a number; got {n_recommended!r}.")
    if n_recommended < 1:
        raise ValueError(f"n_recommended must be 1 or more; got {n_recommended!r}.")
    real = as_ratings(ratings)
    items = chosen_items(attack.items, real.shape[1])
    users = chosen_users(attack.users, real.shape[0])
    unrated = unrated_by(real, users, items)
    attack = clone(attack)
    if attack.recommender is None:
        attack.set_params(recommender=clone(recommender))
    poisoned = as_ratings(attack.fit_resample(ratings))
    rng = check_random_state(random_state)
    seed = int(rng.randint(2**31 - 1))
    scores, rates = [], []
    for data in (real, poisoned):
        model = clone(recommender)
        seed_unset(model, int(rng.randint(2**31 - 1)))
        data = csr_matrix(data)
        found = item_scores(model.fit(data), data, recommender)[: real.shape[0]]
        scores.append(found[np.ix_(users, items)])
        first = top_items(found[users], real[users], n_recommended)
        hit = np.stack([(first == item).any(1) for item in items], axis=1)
        of_items = [
            hit[unrated[:, j], j] for j in range(len(items)) if unrated[:, j].any()
        ]
        rates.append(float(np.mean([each.mean() for each in of_items])))
    return InjectionReport(
        float((scores[1] - scores[0])[unrated].mean()),
        rates[1],
        rates[0],
        profile_realism(poisoned, attack.poison_indices_, items, random_state=seed),
        len(attack.poison_indices_),
        attack.n_queries_,
    )
