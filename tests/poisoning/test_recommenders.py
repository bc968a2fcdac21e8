"""Recommenders: the factorization against its equations, fake users, and detectors."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array, csr_matrix, issparse
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score

from sklearn_advsec.poisoning import (
    DegreeOfSimilarity,
    FakeUsers,
    ImplicitRecommender,
    MatrixFactorization,
    PCAVarSelect,
    injection_report,
    profile_realism,
)

STRATEGIES = ("random", "average", "bandwagon", "popular_average", "copied", "learned")


def sparse_ratings(n_users=150, n_items=60, seed=0):
    """Users of two tastes, of whom some rate much and kindly; items are of two kinds."""
    rng = np.random.default_rng(seed)
    taste, kind = rng.random(n_users) < 0.5, rng.random(n_items) < 0.5
    activity, popularity = rng.gamma(2.0, 0.1, n_users), rng.gamma(2.0, 0.5, n_items)
    like = np.equal.outer(taste, kind)
    known = rng.random(like.shape) < np.outer(activity, popularity) * (0.4 + 1.2 * like)
    wanted = 2.5 + 1.5 * like + rng.normal(0, 0.5, (n_users, 1))
    return known * np.rint(wanted + rng.normal(0, 0.7, like.shape)).clip(1, 5)


RATINGS = sparse_ratings()
RATINGS = RATINGS[(RATINGS > 0).sum(1) >= 3]
N_USERS, N_ITEMS = RATINGS.shape
SMALL = MatrixFactorization(n_factors=3, regularization=1.0, max_iter=4)
RAREST = np.argsort((RATINGS > 0).sum(0), kind="stable")[[2, 5]]


def fakes(strategy="learned", **parameters):
    parameters = {"n_users": 8, "max_queries": 7, "items": RAREST, **parameters}
    return FakeUsers(clone(SMALL), strategy=strategy, random_state=0, **parameters)


# The factorization --------------------------------------------------------------------


def test_users_are_solved_as_least_squares_says():
    model = clone(SMALL).set_params(random_state=0).fit(RATINGS)
    user = RATINGS[3]
    on = user > 0
    left = np.hstack([model.item_factors_[on], np.ones((on.sum(), 1))])
    right = user[on] - model.mean_ - model.item_biases_[on]
    found = np.linalg.solve(left.T @ left + np.eye(4), left.T @ right)
    expected = model.item_factors_ @ found[:-1] + found[-1]
    expected += model.mean_ + model.item_biases_
    np.testing.assert_allclose(model.predict(user[None])[0], expected, rtol=1e-9)


def test_implicit_users_are_solved_over_all_items():
    model = clone(SMALL).set_params(feedback="implicit", alpha=2.0, random_state=0)
    model.fit(RATINGS)
    user, factors = RATINGS[3], model.item_factors_
    confidence = 1 + 2.0 * user
    left = (factors.T * confidence) @ factors + np.eye(3)
    found = np.linalg.solve(left, factors.T @ (confidence * (user > 0)))
    np.testing.assert_allclose(model.predict(user[None])[0], factors @ found, rtol=1e-9)


def test_factors_find_unknown_ratings_better_than_means():
    rng = np.random.default_rng(1)
    whole = 3 + rng.normal(size=(80, 2)) @ rng.normal(size=(2, 40))
    known = rng.random(whole.shape) < 0.5
    train = np.where(known, whole, 0)
    found = clone(SMALL).set_params(random_state=0).fit(train).predict(train)
    means = train.sum(0) / known.sum(0)
    error, by_mean = (
        np.sqrt(np.mean((guess - whole)[~known] ** 2)) for guess in (found, means)
    )
    assert error < 0.6 * by_mean


def test_stored_zeros_are_ratings_and_what_is_rated_is_not_recommended():
    ratings = csr_array(RATINGS)
    ratings.data[:5] = 0.0
    model = clone(SMALL).set_params(random_state=0).fit(ratings)
    assert abs(model.mean_ - ratings.data.mean()) < 1e-12
    first = model.recommend(ratings, n_items=N_ITEMS)
    for user in (0, 7):
        rated = ratings.indices[ratings.indptr[user] : ratings.indptr[user + 1]]
        shown = first[user][first[user] >= 0]
        assert sorted([*rated, *shown]) == list(range(N_ITEMS))
    assert (np.diff(model.predict(ratings)[0][first[0][first[0] >= 0]]) <= 1e-12).all()


def test_bad_ratings():
    with pytest.raises(ValueError, match="NaN"):
        clone(SMALL).fit(np.where(RATINGS == 0, np.nan, RATINGS))
    with pytest.raises(ValueError, match="no rating at all"):
        clone(SMALL).fit(np.zeros((5, 4)))
    with pytest.raises(ValueError, match="some are negative"):
        MatrixFactorization(feedback="implicit").fit(-RATINGS)
    with pytest.raises(ValueError, match="n_items must be"):
        clone(SMALL).fit(RATINGS).recommend(RATINGS, n_items=0)
    with pytest.raises(ValueError, match="features"):
        clone(SMALL).fit(RATINGS).predict(RATINGS[:, 1:])


@pytest.mark.filterwarnings("ignore:OpenBLAS", "ignore:Method expects CSR")
def test_models_of_implicit():
    als = pytest.importorskip("implicit.als")
    bpr = pytest.importorskip("implicit.bpr")
    near = pytest.importorskip("implicit.nearest_neighbours")
    for model in (
        als.AlternatingLeastSquares(factors=4, num_threads=1),
        bpr.BayesianPersonalizedRanking(factors=4, num_threads=1),
        near.CosineRecommender(num_threads=1),
    ):
        recommender = clone(ImplicitRecommender(model, random_state=0)).fit(RATINGS)
        scores = recommender.predict(RATINGS)
        assert scores.shape == RATINGS.shape and np.isfinite(scores).all()
        first = recommender.recommend(RATINGS, n_items=3)
        assert (RATINGS[np.arange(N_USERS)[:, None], first] == 0)[first >= 0].all()
        if hasattr(recommender.model_, "user_factors") and "Bayes" in repr(model):
            with pytest.raises(ValueError, match="only the users that it was trained on"):
                recommender.predict(RATINGS[:5])
        else:
            assert recommender.predict(RATINGS[:5]).shape == (5, N_ITEMS)
    report = injection_report(
        ImplicitRecommender(als.AlternatingLeastSquares(factors=4, num_threads=1)),
        fakes("copied", n_users=20),
        RATINGS,
        random_state=0,
    )
    assert report.hit_rate >= report.clean_hit_rate


# Fake users ---------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["push", "nuke"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_profiles_stand_below_and_are_of_ratings_that_users_give(strategy, goal):
    attack = fakes(strategy, goal=goal)
    before = RATINGS.copy()
    poisoned = attack.fit_resample(RATINGS)
    np.testing.assert_array_equal(poisoned[:N_USERS], before)
    new = poisoned[N_USERS:]
    assert attack.poison_indices_.tolist() == list(range(N_USERS, N_USERS + 8))
    assert attack.sample_indices_.tolist() == [*range(N_USERS), *[-1] * 8]
    assert set(np.unique(new)) <= set(np.unique(RATINGS))
    assert (new[:, RAREST] == (5.0 if goal == "push" else 1.0)).all()
    others = np.setdiff1d(np.arange(N_ITEMS), RAREST)
    lengths = set((RATINGS[:, others] > 0).sum(1).tolist())
    assert set((new[:, others] > 0).sum(1).tolist()) <= lengths
    assert attack.n_queries_ == len(attack.scores_) == (strategy == "learned") * 7
    np.testing.assert_array_equal(clone(attack).fit_resample(RATINGS), poisoned)
    if strategy == "copied":
        real = {row.tobytes() for row in RATINGS[:, others]}
        assert all(row.tobytes() in real for row in new[:, others])


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["copied", "learned"])
def test_items_are_pushed_and_nuked_and_all_types_come_back(strategy):
    model = clone(SMALL).set_params(random_state=3)
    clean = model.fit(RATINGS).predict(RATINGS)[:, RAREST].mean()
    for goal, sign in (("push", 1), ("nuke", -1)):
        attack = fakes(strategy, goal=goal)
        dense = attack.fit_resample(RATINGS)
        after = model.fit(dense).predict(RATINGS)[:, RAREST].mean()
        assert sign * (after - clean) > 0.3
    for kind in (csr_array, csr_matrix):
        found = clone(attack).fit_resample(kind(RATINGS))
        assert issparse(found) and isinstance(found, kind)
        np.testing.assert_array_equal(found.toarray(), dense)
    frame = pd.DataFrame(RATINGS, columns=[f"i{j}" for j in range(N_ITEMS)])
    frame.index += 100
    found = clone(attack).fit_resample(frame)
    np.testing.assert_array_equal(found.to_numpy(), dense)
    assert found.index[:N_USERS].equals(frame.index) and found.index.is_unique
    assert found.columns.equals(frame.columns)


def test_the_best_real_looking_answer_is_returned():
    class Recorded(MatrixFactorization):
        seen = []

        def fit(self, ratings, y=None):
            self.seen.append(ratings.toarray()[N_USERS:])
            return super().fit(ratings)

    attack = fakes(max_realism=1.0).set_params(
        recommender=Recorded(n_factors=3, regularization=1.0, max_iter=4)
    )
    new = attack.fit_resample(RATINGS)[N_USERS:]
    assert len(Recorded.seen) == attack.n_queries_ == 7
    np.testing.assert_array_equal(new, Recorded.seen[attack.scores_.argmax()])
    nuke = clone(attack).set_params(goal="nuke")
    Recorded.seen.clear()
    new = nuke.fit_resample(RATINGS)[N_USERS:]
    np.testing.assert_array_equal(new, Recorded.seen[nuke.scores_.argmin()])


class Failing(BaseEstimator):
    """Answers twice, and is stopped then."""

    n_calls = 0

    def __init__(self, error=KeyboardInterrupt):
        self.error = error

    def fit(self, ratings):
        self.n_items = ratings.shape[1]
        return self

    def predict(self, ratings):
        Failing.n_calls += 1
        if Failing.n_calls > 2:
            raise self.error
        return np.zeros(ratings.shape)


def test_what_was_paid_for_comes_back():
    Failing.n_calls = 0
    attack = fakes().set_params(recommender=Failing())
    with pytest.raises(KeyboardInterrupt) as stopped:
        attack.fit_resample(RATINGS)
    assert attack.n_queries_ == 2
    assert stopped.value.result.shape == (N_USERS + 8, N_ITEMS)


def test_one_user_no_user_and_some_users():
    for strategy in STRATEGIES:
        one = fakes(strategy, n_users=1)
        assert one.fit_resample(RATINGS).shape[0] == N_USERS + 1
        assert np.isnan(one.realism_)
    none = fakes(n_users=0)
    np.testing.assert_array_equal(none.fit_resample(RATINGS), RATINGS)
    assert none.n_queries_ == 0
    some = np.arange(N_USERS) < 20
    attack, other = (
        fakes(users=some).fit(RATINGS),
        fakes(users=np.arange(20)).fit(RATINGS),
    )
    np.testing.assert_array_equal(attack.scores_, other.scores_)
    assert not np.array_equal(attack.scores_, fakes().fit(RATINGS).scores_)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"items": None}, "items is None"),
        ({"items": N_ITEMS}, "items must be between"),
        ({"items": [1, 1]}, "twice"),
        ({"items": [0.5]}, "items must hold positions"),
        ({"items": []}, "at least one"),
        ({"users": [-1]}, "users must be between"),
        ({"users": np.ones(3, dtype=bool)}, "a mask has to say"),
        ({"n_users": N_USERS + 1}, "more than the"),
        ({"recommender": None}, "set recommender"),
        ({"recommender": Failing(error=ValueError("no"))}, "no"),
    ],
)
def test_bad_fake_users(parameters, text):
    Failing.n_calls = 9
    with pytest.raises(ValueError, match=text):
        fakes().set_params(**parameters).fit(RATINGS)


def test_bad_answers_and_empty_ratings():
    class Flat(Failing):
        def predict(self, ratings):
            return np.full(ratings.shape[0], 3.0)

    with pytest.raises(ValueError, match=r"Flat.predict has to return a finite score"):
        fakes().set_params(recommender=Flat()).fit(RATINGS)
    with pytest.raises(ValueError, match="no rating at all"):
        fakes("copied").fit(np.zeros((9, N_ITEMS)))
    # Real users rate the items of the attack and nothing else: so do the fake ones.
    only = np.zeros((9, N_ITEMS))
    only[:, RAREST] = 2.0
    for strategy in STRATEGIES:
        assert (fakes(strategy, n_users=2).fit_resample(only)[9:] > 0).sum() == 4


# Realism, reports, detectors ----------------------------------------------------------


def test_realism_is_chance_for_real_users_and_one_for_obvious_ones():
    some = np.random.default_rng(0).choice(N_USERS, 30, replace=False)
    assert 0.2 < profile_realism(RATINGS, some, random_state=0) < 0.75
    loud = RATINGS.copy()
    loud[some] = 5.0
    assert profile_realism(loud, some, random_state=0) > 0.99
    quiet = RATINGS.copy()
    quiet[np.ix_(some, RAREST)] = 5.0
    quiet[np.ix_(np.setdiff1d(np.arange(N_USERS), some), RAREST)] = 0.0
    given_away = profile_realism(quiet, some, random_state=0)
    assert given_away > profile_realism(quiet, some, RAREST, random_state=0)


def test_bad_realism_and_reports():
    assert np.isnan(profile_realism(RATINGS, []))
    with pytest.raises(ValueError, match="fake must be between"):
        profile_realism(RATINGS, [N_USERS])
    with pytest.raises(ValueError, match="items must be between"):
        profile_realism(RATINGS, [0, 1, 2], items=[-1])
    with pytest.raises(ValueError, match="n_recommended must be"):
        injection_report(clone(SMALL), fakes("copied"), RATINGS, n_recommended=0)


def test_learned_profiles_look_more_real_than_templates():
    found = {name: fakes(name, n_users=40).fit(RATINGS) for name in STRATEGIES}
    for name in ("random", "bandwagon"):
        assert found[name].realism_ > found["learned"].realism_ + 0.1


def test_the_report_counts_by_hand():
    model = clone(SMALL).set_params(random_state=1)
    attack = fakes("copied", users=np.arange(30))
    report = injection_report(model, attack, RATINGS, n_recommended=3, random_state=5)
    scores, rates = [], []
    for ratings in (RATINGS, clone(attack).fit_resample(RATINGS)):
        fitted = clone(model).fit(ratings)
        scores.append(fitted.predict(RATINGS[:30])[:, RAREST])
        first = fitted.recommend(RATINGS[:30], n_items=3)
        hits = [(first[RATINGS[:30, item] == 0] == item).any(1).mean() for item in RAREST]
        rates.append(np.mean(hits))
    unrated = RATINGS[:30, RAREST] == 0
    np.testing.assert_allclose(
        report.prediction_shift, (scores[1] - scores[0])[unrated].mean(), rtol=1e-6
    )
    assert (report.clean_hit_rate, report.hit_rate) == pytest.approx(tuple(rates))
    assert report.n_fake == 8 and report.n_queries == 0


def test_detectors_find_fakes_that_are_all_alike_in_dense_ratings():
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 40))
    dense = np.rint(3 + tastes + rng.normal(0, 0.3, (80, 40))).clip(1, 5)
    fake = np.rint(rng.normal(dense.mean(0), 0.3, (8, 40))).clip(1, 5)
    mask = np.arange(88) >= 80
    both = np.vstack([dense, fake])
    for detector in (PCAVarSelect(contamination=8 / 88), DegreeOfSimilarity()):
        scores = detector.fit(both).scores_
        assert scores.shape == (88,) and np.isfinite(scores).all()
    assert roc_auc_score(mask, PCAVarSelect().fit(both).scores_) > 0.9
    kept = PCAVarSelect(contamination=8 / 88).fit(both)
    frame = kept.fit_resample(pd.DataFrame(both))
    assert len(frame) == 80 and frame.index.tolist() == kept.sample_indices_.tolist()
    sparse = PCAVarSelect(contamination=8 / 88).fit_resample(csr_array(both))
    np.testing.assert_array_equal(sparse.toarray(), frame.to_numpy())


def test_the_degree_of_similarity_is_the_mean_correlation():
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 6, (12, 20)).astype(float)
    alike = np.corrcoef(dense) * 20 / 25
    np.fill_diagonal(alike, -np.inf)
    expected = np.sort(alike, axis=1)[:, -4:].mean(1)
    detector = DegreeOfSimilarity(n_neighbors=4, min_common=25).fit(dense)
    np.testing.assert_allclose(detector.scores_, expected, atol=1e-12)


def test_the_variance_of_users_is_that_of_their_covariance():
    rng = np.random.default_rng(0)
    for shape in ((12, 20), (20, 12)):
        dense = rng.integers(1, 6, shape).astype(float)
        z = (dense - dense.mean(1, keepdims=True)) / dense.std(1, keepdims=True)
        vectors = np.linalg.eigh(z @ z.T)[1][:, -2:]
        found = PCAVarSelect(n_components=2).fit(dense).scores_
        np.testing.assert_allclose(found, -(vectors**2).sum(1), atol=1e-9)
