"""Attacks by scores and labels, and transfer: facts, budgets, and what they may see."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sklearn_advsec import extraction
from sklearn_advsec.evasion import (
    AutoProjectedGradientDescent,
    GreedyFeatureAttack,
    HopSkipJump,
    LabelOnlyNES,
    MultiObjectiveEvolution,
    NaturalEvolutionStrategy,
    OnePixel,
    PointwiseAttack,
    ProjectedGradientDescent,
    RayS,
    SimBA,
    SquareAttack,
    TransferAttack,
    ZerothOrderOptimization,
)
from sklearn_advsec.evasion._state import LOOK_EVERY
from sklearn_advsec.exceptions import InterruptedRunWarning, QueryBudgetExceeded
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.threat import _projection
from sklearn_advsec.victim import _access
from sklearn_advsec.victim._answerers import NetworkAnswerer


class Recorder(ClassifierMixin, BaseEstimator):
    """A fitted victim that notes every row it is asked about, and by which method.

    With `only_labels` it refuses to give scores; with `top_k` it gives the largest
    probabilities only, and 0 for the others.
    """

    def __init__(self, estimator, only_labels=False, top_k=None):
        self.estimator = estimator
        self.only_labels = only_labels
        self.top_k = top_k
        self.seen = []
        self.classes_ = estimator.classes_

    def __sklearn_clone__(self):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        self.seen.append(np.array(X, dtype=float))
        return self.estimator.predict(X)

    def predict_proba(self, X):
        assert not self.only_labels, "a label-only attack asked for probabilities"
        self.seen.append(np.array(X, dtype=float))
        proba = self.estimator.predict_proba(X)
        if self.top_k is not None:
            rank = (-proba).argsort(axis=1, kind="stable").argsort(axis=1)
            proba = np.where(rank < self.top_k, proba, 0)
        return proba

    @property
    def n_seen(self):
        return sum(len(rows) for rows in self.seen)


SCORE = [
    SquareAttack(eps=0.2, max_queries=60),
    SquareAttack(norm=2, eps=1.0, max_queries=60),
    SquareAttack(eps=0.2, max_queries=60, n_proposals=8),
    NaturalEvolutionStrategy(eps=0.2, max_queries=60, n_samples=8),
    NaturalEvolutionStrategy(eps=0.2, max_queries=61, n_samples=8, top_k=1),
    OnePixel(n_pixels=2, max_queries=75),
    SimBA(max_queries=60, step_size=0.3),
    ZerothOrderOptimization(max_queries=99, n_coordinates=4),
]
TABULAR = [
    GreedyFeatureAttack(max_queries=300),
    MultiObjectiveEvolution(n_generations=5, population=10, max_queries=55),
]
LABEL = [
    HopSkipJump(max_queries=203, n_evaluations=10),
    HopSkipJump(norm=np.inf, max_queries=203, n_evaluations=10, start="data"),
    RayS(max_queries=60),
    PointwiseAttack(max_queries=40),
    LabelOnlyNES(eps=0.5, max_queries=203, n_samples=4, n_smooth=5),
]


def name_of(attack):
    return f"{type(attack).__name__}-{attack.norm}"


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    return X, y, LogisticRegression().fit(X, y)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    victim = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return X, y, victim.fit(X[:1000], y[:1000])


# What all have in common ----------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("attack", SCORE + LABEL, ids=name_of)
def test_budget_is_exact(attack, labelled, cancer):
    """Queries are what the victim saw; none goes over the budget; failures use it up."""
    X, y, model = cancer
    victim = Recorder(model, only_labels=attack.knowledge == "label")
    attack = clone(attack).set_params(estimator=victim, bounds=(0, 1)).fit(X, y)
    victim.seen.clear()
    result = attack.run(X[:30], y[:30] if labelled else None)
    assert result.n_queries.sum() == victim.n_seen
    assert result.n_queries.max() <= attack.max_queries
    # What gave up has spent all; only Pointwise may end early, at a minimum. Of what sees
    # scores, a query that would confirm a success may be left.
    if (~result.success).any():
        spare = int(attack.knowledge == "score")
        assert result.n_queries[~result.success].min() >= attack.max_queries - spare
    for rows in victim.seen:
        assert rows.min() >= 0 and rows.max() <= 1


@pytest.mark.parametrize("attack", SCORE + LABEL, ids=name_of)
def test_successes_are_the_victims_own(attack, cancer):
    X, y, model = cancer
    attack = clone(attack).set_params(estimator=FrozenEstimator(model), bounds=(0, 1))
    result = attack.fit(X, y).run(X[:30], y[:30])
    np.testing.assert_array_equal(model.predict(result.X_adv), result.y_pred)
    np.testing.assert_array_equal(result.success, result.y_pred != y[:30])
    assert result.success.any()
    wrong = model.predict(X[:30]) != y[:30]
    assert (result.distance[wrong] == 0).all() and (result.n_queries[wrong] == 1).all()
    if hasattr(attack, "eps"):
        assert result.distance.max() <= attack.eps + 1e-9


@pytest.mark.parametrize(
    "attack",
    [
        SquareAttack(eps=0.5, max_queries=300),
        NaturalEvolutionStrategy(eps=0.5, max_queries=500),
        NaturalEvolutionStrategy(eps=0.5, max_queries=2000, n_samples=20, top_k=2),
        OnePixel(n_pixels=20, max_queries=3000),
        SimBA(max_queries=500, step_size=0.5),
        ZerothOrderOptimization(max_queries=1500, n_rounds=1),
        HopSkipJump(max_queries=300, start="data"),
        PointwiseAttack(max_queries=300, start="data"),
        LabelOnlyNES(eps=0.9, max_queries=3000),
    ],
    ids=name_of,
)
def test_targeted_ends_in_the_target(attack, digits):
    X, y, model = digits
    target = (y[1000:1010] + 1) % 10
    attack = clone(attack).set_params(estimator=FrozenEstimator(model), goal="targeted")
    result = attack.fit(X[:1000], y[:1000]).run(X[1000:1010], target=target)
    assert result.success.mean() >= 0.5
    np.testing.assert_array_equal(result.success, result.y_pred == target)
    np.testing.assert_array_equal(model.predict(result.X_adv), result.y_pred)


@pytest.mark.parametrize("attack", SCORE + LABEL, ids=name_of)
def test_pipeline_on_dataframe(attack):
    """Numbers move inside their range; categories, dtypes and index stay."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    X = X.assign(site=pd.Categorical(np.where(np.arange(150) % 2, "a", "b"))).iloc[50:]
    X.index = X.index.astype(str)
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    columns = make_column_transformer(
        (OneHotEncoder(), ["site"]), remainder=StandardScaler()
    )
    victim = make_pipeline(columns, RandomForestClassifier(10, random_state=0))
    attack = clone(attack).set_params(estimator=victim).fit(X, y.iloc[50:])
    result = attack.run(X[:20], y[50:70])
    assert list(result.X_adv.index) == list(X.index[:20])
    assert (result.X_adv.dtypes == X.dtypes).all()
    assert (result.X_adv["site"] == X["site"][:20]).all()
    numbers = X.columns[:4]
    assert (result.X_adv[numbers] >= X[numbers].min() - 1e-9).all(axis=None)
    assert (result.X_adv[numbers] <= X[numbers].max() + 1e-9).all(axis=None)


def test_partial_result_when_the_total_is_spent(cancer):
    X, y, model = cancer
    attack = SquareAttack(
        FrozenEstimator(model), eps=0.2, max_queries=100, max_total_queries=200
    )
    with pytest.raises(QueryBudgetExceeded) as caught:
        attack.fit(X, y).run(X[:40], y[:40])
    result = caught.value.result
    assert 0 < len(result) < 40 and result.success[result.finished].any()
    wrong = model.predict(result.X_adv) != y[:40][result.rows]
    np.testing.assert_array_equal(wrong, result.success)


@pytest.mark.parametrize("attack", [HopSkipJump(), RayS(), OnePixel(), PointwiseAttack()])
def test_needs_a_box(attack, cancer):
    X, y, model = cancer
    attack = clone(attack).set_params(estimator=FrozenEstimator(model), bounds=None)
    with pytest.raises(ValueError, match="bounds=None"):
        attack.fit(X, y)


@pytest.mark.parametrize("attack", SCORE + TABULAR, ids=name_of)
@pytest.mark.parametrize("kind", ["huber", "threshold"])
def test_a_success_is_one_of_predict_and_not_of_scores(kind, attack, digits):
    """Not every victim's label is the class of its largest probability."""
    X, y, _ = digits
    model = SGDClassifier(loss="modified_huber", random_state=0)
    if kind == "threshold":
        y = (y > 4).astype(int)
        model = FixedThresholdClassifier(LogisticRegression(), threshold=0.9)
    victim = Recorder(model.fit(X[:500], y[:500]))
    attack = clone(attack).set_params(estimator=victim, bounds=(0, 1)).fit(X, y)
    rows = X[1000:1030]
    for labels in (None, y[1000:1030]):
        victim.seen.clear()
        result = attack.run(rows, labels)
        assert result.n_queries.sum() == victim.n_seen
        assert result.n_queries.max() <= attack.max_queries
        said = model.predict(result.X_adv)
        np.testing.assert_array_equal(result.y_pred, said)
        before = model.predict(rows) if labels is None else labels
        np.testing.assert_array_equal(result.success, said != before)


def test_scores_of_votes_are_confirmed(digits):
    X, y, _ = digits
    victim = SVC().fit(X[:800], y[:800])
    attack = SimBA(FrozenEstimator(victim), max_queries=300).fit(X)
    result = attack.run(X[800:900], y[800:900])
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    assert result.success.mean() > 0.9
    for limit in (1, 2, 3, 4):
        result = attack.set_params(max_queries=limit).run(X[800:900], y[800:900])
        np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
        assert result.n_queries.max() <= limit


@pytest.mark.parametrize("attack", SCORE + LABEL, ids=name_of)
def test_batches_change_nothing(attack, cancer):
    """Rows share their draws, in whatever chunk they are."""
    X, y, model = cancer
    attack = clone(attack).set_params(estimator=FrozenEstimator(model), bounds=(0, 1))
    expected = attack.fit(X).run(X[:40], y[:40])
    result = attack.set_params(batch_size=2).fit(X).run(X[:40], y[:40])
    same = np.isclose(result.X_adv, expected.X_adv, rtol=1e-7, atol=1e-9).all(axis=1)
    same &= result.n_queries == expected.n_queries
    # Of candidates that are equal but for rounding, which goes by the size of the batch
    # on some processors, either may count as a gain.
    assert same.mean() >= 0.95


@pytest.mark.parametrize("attack", SCORE + LABEL, ids=name_of)
def test_a_row_does_not_depend_on_one_outside_the_range(attack, cancer):
    """The box that is learned from data is widened for such a row alone."""
    X, y, model = cancer
    attack = clone(attack).set_params(estimator=FrozenEstimator(model)).fit(X)
    rows = np.concatenate([X[:9], 5 * X[9:10]])
    alone = attack.run(rows[:9], y[:9])
    result = attack.run(rows, y[:10])
    np.testing.assert_allclose(result.X_adv[:9], alone.X_adv, atol=1e-9)
    np.testing.assert_array_equal(result.n_queries[:9], alone.n_queries)


@pytest.mark.slow
def test_same_for_two_jobs(digits):
    X, y, model = digits
    attack = SquareAttack(FrozenEstimator(model), eps=0.1, max_queries=20, batch_size=4)
    one = attack.fit(X[:100], y[:100]).run(X[1000:1100])
    two = clone(attack).set_params(n_jobs=2).fit(X[:100], y[:100]).run(X[1000:1100])
    np.testing.assert_array_equal(one.X_adv, two.X_adv)


# One by one -----------------------------------------------------------------------------


def distance_to_the_plane(model, X):
    return np.abs(model.decision_function(X)) / np.linalg.norm(model.coef_)


def test_hop_skip_jump_finds_the_hyperplane():
    """On a linear model the minimum distance has a closed form, in both norms."""
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = LogisticRegression(C=0.1).fit(X, y)
    rows, box = X[:20], (-30, 30)
    attack = HopSkipJump(
        FrozenEstimator(model), max_queries=5000, bounds=box, start="data"
    )
    result = attack.fit(X, y).run(rows)
    ratio = result.distance / distance_to_the_plane(model, rows)
    assert ratio.min() > 1 - 1e-9 and np.median(ratio) < 1.05
    linf = clone(attack).set_params(norm=np.inf).fit(X, y).run(rows)
    exact = np.abs(model.decision_function(rows)) / np.abs(model.coef_).sum()
    assert (linf.distance / exact).min() > 1 - 1e-9
    assert np.median(linf.distance / exact) < 1.3


def test_hop_skip_jump_does_not_mix_rows(digits):
    """A row alone ends where it ends in a batch: no estimate is shared."""
    X, y, model = digits
    attack = HopSkipJump(FrozenEstimator(model), max_queries=300).fit(X, y)
    together = attack.run(X[1000:1010])
    alone = attack.run(X[1003:1004])
    np.testing.assert_allclose(alone.X_adv[0], together.X_adv[3], atol=1e-6)


def test_rays_finds_the_corner_of_a_linear_model():
    """The nearest corner direction is the sign of the weights: Linf distance in closed
    form, up to the precision of the bisection."""
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = LogisticRegression(C=0.1).fit(X, y)
    attack = RayS(FrozenEstimator(model), max_queries=800, bounds=(-30, 30))
    result = attack.fit(X, y).run(X[:10])
    exact = np.abs(model.decision_function(X[:10])) / np.abs(model.coef_).sum()
    assert (result.distance >= exact - 1e-9).all()
    assert np.median(result.distance - exact) < 0.1


def test_pointwise_leaves_nothing_to_give_back(cancer):
    """With budget left, giving any single changed feature back restores the label."""
    X, y, model = cancer
    attack = PointwiseAttack(FrozenEstimator(model), max_queries=1000).fit(X, y)
    result = attack.run(X[:30])
    assert result.success.all() and (result.n_queries < 1000).all()
    labels = model.predict(X[:30])
    for x, x_adv, label in zip(X[:30], result.X_adv, labels, strict=True):
        for j in np.flatnonzero(x != x_adv):
            back = x_adv.copy()
            back[j] = x[j]
            assert model.predict(back[None])[0] == label


def test_one_pixel_is_as_good_as_trying_everything(digits):
    """One feature: the two ends of every one of them can be tried."""
    X, y, _ = digits
    model = LogisticRegression(max_iter=2000).fit(X[:1000], y[:1000])
    rows, labels = X[1000:1040], y[1000:1040]
    possible = np.zeros(40, dtype=bool)
    for j in range(64):
        for value in (0, 1):
            tried = rows.copy()
            tried[:, j] = value
            possible |= model.predict(tried) != labels
    attack = OnePixel(FrozenEstimator(model), max_queries=2000, image_shape=(8, 8))
    result = attack.set_params(bounds=(0, 1)).fit(X, y).run(rows, labels)
    assert result.distance.max() <= 1
    assert 0.1 < possible.mean() < 0.9
    assert result.success.mean() >= possible.mean() - 0.05
    assert not (result.success & ~possible).any()


def test_one_pixel_stays_in_the_box_to_the_last_bit():
    rng = np.random.RandomState(2)
    X = rng.normal(size=(300, 4)) * [15, 0.3, 1e-3, 1] + [50, 0.5, 0, 1e4]
    y = ((X - X.mean(0)) / X.std(0)).sum(1) > 0
    victim = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    for k in range(30):
        attack = OnePixel(
            FrozenEstimator(victim), n_pixels=2, max_queries=60, random_state=k
        )
        X_adv = attack.fit(X).transform(X)
        assert (X_adv >= X.min(0)).all() and (X_adv <= X.max(0)).all()


def test_one_pixel_beats_random_search(digits):
    X, y, _ = digits
    model = LogisticRegression(max_iter=2000).fit(X[:1000], y[:1000])
    rows, labels, n_queries = X[1000:1040], y[1000:1040], 1000
    attack = OnePixel(FrozenEstimator(model), n_pixels=3, max_queries=n_queries)
    result = attack.set_params(bounds=(0, 1)).fit(X, y).run(rows, labels)
    rng = np.random.RandomState(0)
    found = np.zeros(40, dtype=bool)
    for _ in range(n_queries):
        tried = rows.copy()
        tried[:, rng.choice(64, 3, replace=False)] = rng.uniform(size=3)
        found |= model.predict(tried) != labels
    assert result.success.mean() > found.mean()


def test_simba_step_and_basis(digits):
    """Pixels change by multiples of the step; k accepted steps are sqrt(k) long."""
    X, y, model = digits
    attack = SimBA(FrozenEstimator(model), step_size=0.25, max_queries=200, bounds=None)
    result = attack.fit(X, y).run(X[1000:1040])
    steps = (result.X_adv - X[1000:1040]) / 0.25
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert result.success.mean() > 0.9
    dct = clone(attack).set_params(basis="dct", image_shape=(8, 8)).fit(X, y)
    other = dct.run(X[1000:1040])
    assert other.success.mean() > 0.9
    squared = (other.distance / 0.25) ** 2
    np.testing.assert_allclose(squared, np.round(squared), atol=1e-6)
    with pytest.raises(ValueError, match="needs images"):
        SimBA(FrozenEstimator(model), basis="dct").fit(X, y)


@pytest.mark.parametrize("norm, eps", [(np.inf, 0.1), (2, 0.6)])
def test_square_against_random_search_and_pgd(norm, eps, digits):
    """Far from the cheap rival of the same budget, close to what sees gradients."""
    X, y, model = digits
    rows, labels = X[1000:1050], y[1000:1050]
    square = SquareAttack(
        FrozenEstimator(model), norm=norm, eps=eps, max_queries=200, bounds=(0, 1)
    )
    flat = square.fit(X, y).run(rows, labels)
    image = square.set_params(image_shape=(8, 8)).fit(X, y).run(rows, labels)
    pgd = ProjectedGradientDescent(
        FrozenEstimator(model), norm=norm, eps=eps, bounds=(0, 1), max_iter=50
    )
    best = pgd.fit(X, y).run(rows, labels).success.mean()
    rng = np.random.RandomState(0)
    found = np.zeros(50, dtype=bool)
    for _ in range(200):
        if norm == 2:
            noise = rng.normal(size=64)
            noise *= eps / np.linalg.norm(noise)
        else:
            noise = eps * rng.choice([-1, 1], size=64)
        found |= model.predict(np.clip(rows + noise, 0, 1)) != labels
    for result in (flat, image):
        assert result.success.mean() > max(found.mean() + 0.1, best - 0.1)
        assert result.distance.max() <= eps + 1e-9


def test_square_with_several_proposals_calls_less_often(cancer):
    """Eight squares at once: an eighth of the calls; rows stay independent."""
    X, y, model = cancer
    victim = Recorder(model)
    attack = SquareAttack(victim, eps=0.15, max_queries=241, bounds=(0, 1))
    calls, results = [], []
    for n in (1, 8):
        attack.set_params(n_proposals=n).fit(X, y)
        victim.seen.clear()
        results.append(attack.run(X[:40], y[:40]))
        calls.append(len(victim.seen))
    assert calls[1] < calls[0] / 5  # those that confirm successes among them
    assert results[1].success.mean() >= results[0].success.mean() - 0.1
    alone = attack.run(X[3:4], y[3:4])
    np.testing.assert_array_equal(alone.X_adv[0], results[1].X_adv[3])


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Look at the rows every tenth step, and count queries where they are."""
    monkeypatch.setitem(LOOK_EVERY, "cpu", 10)
    monkeypatch.setattr(_access, "_on_gpu", lambda rows: rows is not None)


@pytest.mark.parametrize(
    "attack",
    [
        SquareAttack(eps=1 / 8, max_queries=47, image_shape=(8, 8)),
        SquareAttack(eps=1 / 16, max_queries=61),
        SimBA(max_queries=37, step_size=1 / 8),
    ],
    ids=name_of,
)
def test_what_is_looked_at_in_blocks_is_what_each_look_finds(attack, digits, request):
    """Rows that are through in between cost nothing, and keep what led there."""
    X, y, _ = digits
    model = RidgeClassifier().fit(X[:1000], y[:1000])
    model.coef_ = np.round(64 * model.coef_) / 64  # so that sums are exact, in any order
    model.intercept_ = np.round(64 * model.intercept_) / 64
    attack = clone(attack).set_params(estimator=FrozenEstimator(model), bounds=(0, 1))
    attack.fit(X, y)
    expected = attack.run(X[1000:1060], y[1000:1060])
    request.getfixturevalue("as_on_a_gpu")
    found = attack.run(X[1000:1060], y[1000:1060])
    assert 10 < found.success.sum() < 55
    for name in ("X_adv", "y_pred", "success", "n_queries", "finished"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_rows_that_were_through_when_it_was_stopped_are_successes(digits, as_on_a_gpu):
    X, y, model = digits
    victim = Recorder(model)
    attack = SquareAttack(victim, eps=0.3, bounds=(0, 1)).fit(X, y)
    rows, labels = X[1000:1060], y[1000:1060]
    done = attack.run(rows, labels)
    ask, calls = Recorder.predict_proba, []

    def stopped(self, X):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return ask(self, X)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "predict_proba", stopped)
        with pytest.warns(InterruptedRunWarning):
            found = attack.run(rows, labels)
    early = done.select(found.rows).n_queries < 4
    assert early.sum() > 5 and found.success[early].all() and found.finished[early].all()
    assert (model.predict(found.X_adv)[found.success] != found.y[found.success]).all()


class HostWaits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        waits = bool(tags & set(function.tags))
        if "index" in function.name():  # masks are counted first, positions are not
            masks = (t for t in tree_leaves(args[1:]) if isinstance(t, torch.Tensor))
            waits = any(mask.dtype == torch.bool for mask in list(masks)[:1])
        self.n += waits
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "attack, steps, shape",
    [
        (SquareAttack(), "max_queries", (1, 8, 8)),
        (SquareAttack(), "max_queries", (64,)),
        (SquareAttack(norm=2), "max_queries", (1, 8, 8)),
        (ProjectedGradientDescent(loss="margin"), "max_iter", (64,)),
        (AutoProjectedGradientDescent(loss="dlr"), "max_iter", (64,)),
    ],
)
def test_attacks_wait_for_a_gpu_once_in_ten_steps(
    attack, steps, shape, as_on_a_gpu, monkeypatch
):
    # On a GPU, answers are looked at in the end; projections take fixed rounds.
    monkeypatch.setattr(NetworkAnswerer, "from_view", lambda self, logits, *_: logits)
    monkeypatch.setattr(_projection, "_SEEN_AT_ONCE", ())
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    X = np.random.RandomState(0).rand(30, *shape).astype(np.float32)
    waits, to_host = [], torch.Tensor.cpu
    for n in (21, 51):
        attack = clone(attack).set_params(estimator=PretrainedModule(module), eps=0.02)
        attack.set_params(bounds=(0, 1), **{steps: n}).fit(X)
        with HostWaits() as counter, pytest.MonkeyPatch.context() as patch:

            def cpu(tensor, counter=counter):
                counter.n += 1
                return to_host(tensor)

            patch.setattr(torch.Tensor, "cpu", cpu)
            result = attack.run(X)
        waits.append(counter.n)
    assert not result.success.all()  # there were rows to the end
    assert (waits[1] - waits[0]) / 30 <= 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("norm", [np.inf, 2])
def test_square_on_a_gpu_finds_what_it_finds_on_a_processor(norm):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval().double()
    X = np.random.RandomState(0).rand(30, 1, 8, 8)
    found = []
    for device in ("cpu", "cuda"):
        victim = PretrainedModule(copy.deepcopy(module).to(device))
        attack = SquareAttack(victim, norm=norm, eps=0.1, max_queries=99, bounds=(0, 1))
        found.append(attack.fit(X).run(X))
    same = np.isclose(found[0].X_adv, found[1].X_adv, atol=1e-5).all(axis=(1, 2, 3))
    same &= found[0].n_queries == found[1].n_queries
    assert same.mean() >= 0.95  # ties of candidates go by roundings


def test_square_has_an_eps_for_each_feature(cancer):
    X, y, model = cancer
    eps = np.linspace(0, 0.3, X.shape[1])
    for norm in (np.inf, 2):
        attack = SquareAttack(FrozenEstimator(model), norm=norm, eps=eps, max_queries=100)
        moved = attack.fit(X, y).run(X[:30]).X_adv - X[:30]
        assert (moved[:, 0] == 0).all()
        scaled = moved[:, 1:] / eps[1:]
        assert np.linalg.norm(scaled, ord=norm, axis=1).max() <= 1 + 1e-9


@pytest.mark.long
def test_partial_information_sees_top_k_only(digits):
    """The outcome is the same when the victim itself hides all other scores."""
    X, y, model = digits
    target = (y[1000:1010] + 1) % 10
    for k in (1, 3):
        for goal, targets in (("misclassification", None), ("targeted", target)):
            attack = NaturalEvolutionStrategy(
                eps=0.4, max_queries=200, n_samples=20, top_k=k, goal=goal
            )
            results = []
            for hidden in (None, k):
                victim = Recorder(model, top_k=hidden)
                fitted = clone(attack).set_params(estimator=victim).fit(X, y)
                results.append(fitted.run(X[1000:1010], target=targets))
            np.testing.assert_array_equal(results[0].X_adv, results[1].X_adv)


def test_partial_information_needs_probabilities(cancer):
    X, y, _ = cancer
    attack = NaturalEvolutionStrategy(SVC(), top_k=2).fit(X, y)
    with pytest.raises(ValueError, match="predict_proba"):
        attack.run(X[:5])


def test_forest_is_no_obstacle(cancer):
    """Constant scores almost everywhere, and attacks of all kinds get through."""
    X, y, _ = cancer
    forest = FrozenEstimator(RandomForestClassifier(10, random_state=0).fit(X, y))
    for attack in (
        SquareAttack(eps=0.3, max_queries=201, n_proposals=8),
        HopSkipJump(max_queries=200, start="data"),
        RayS(max_queries=200),
        PointwiseAttack(max_queries=200),
    ):
        result = clone(attack).set_params(estimator=forest).fit(X, y).run(X[:30], y[:30])
        assert result.success.mean() > 0.8, attack


# Transfer -------------------------------------------------------------------------------


def test_transfer_asks_the_victim_once(digits):
    """Crafting needs no query, and beats noise of the same size."""
    X, y, _ = digits
    rows, labels = X[1000:1100], y[1000:1100]
    victim = Recorder(
        RandomForestClassifier(30, random_state=0).fit(X[:500], y[:500]), True
    )
    pgd = ProjectedGradientDescent(eps=0.2, bounds=(0, 1), max_iter=20)
    surrogates = [LogisticRegression(max_iter=2000), SVC()]
    rates = []
    for surrogate in (*surrogates, surrogates):
        attack = TransferAttack(victim, surrogate=surrogate, attack=pgd)
        attack.fit(X[500:1000], y[500:1000])
        victim.seen.clear()
        result = attack.run(rows, labels)
        assert victim.n_seen == 100 and (result.n_queries == 1).all()
        np.testing.assert_array_equal(victim.seen[0], result.X_adv)
        assert result.distance.max() <= 0.2 + 1e-9
        rates.append(result.success.mean())
    noise = np.random.RandomState(0).choice([-0.2, 0.2], size=rows.shape)
    noisy = (victim.predict(np.clip(rows + noise, 0, 1)) != labels).mean()
    assert min(rates) > noisy
    assert rates[2] >= min(rates[:2])


def test_transfer_without_labels_uses_nothing_of_the_victim(digits):
    """Two victims that answer differently get the same adversarial rows."""
    X, y, model = digits
    one, two = LogisticRegression(max_iter=2000), SVC()
    made = [
        TransferAttack(v, surrogate=FrozenEstimator(model)).fit(X[:300], y[:300])
        for v in (one, two)
    ]
    np.testing.assert_array_equal(*(a.transform(X[1000:1050]) for a in made))


def test_transfer_from_labels_alone(digits):
    """A surrogate that only predicts, as a stolen copy may, under a label attack."""
    X, y, model = digits
    copy = Recorder(LogisticRegression(max_iter=2000).fit(X[:300], y[:300]), True)
    attack = TransferAttack(
        FrozenEstimator(model),
        surrogate=copy,
        attack=HopSkipJump(max_queries=200, start="data"),
    )
    result = attack.fit(X[:300], y[:300]).run(X[1000:1020])
    assert (copy.predict(X[1000:1020]) != copy.predict(result.X_adv)).all()
    np.testing.assert_array_equal(result.y_pred, model.predict(result.X_adv))
    classes = FrozenEstimator(LogisticRegression().fit(X[y < 5], y[y < 5]))
    with pytest.raises(ValueError, match="knows the classes"):
        TransferAttack(FrozenEstimator(model), surrogate=classes).fit(X, y)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["jacobian", "knockoff", "forest"])
def test_transfer_from_a_stolen_copy(kind, digits):
    """A copy by extraction is a surrogate; crafting on it asks the victim for nothing."""
    X, y, model = digits
    victim = Recorder(model)
    if kind == "forest":
        copy = extraction.KnockoffNets(victim, surrogate=RandomForestClassifier(10))
        attack = HopSkipJump(max_queries=150, start="data", bounds=(0, 1))
    else:
        attack = ProjectedGradientDescent(eps=0.2, bounds=(0, 1))
        copy = extraction.KnockoffNets(victim)
        if kind == "jacobian":
            copy = extraction.JacobianSubstitute(victim, n_rounds=3)
    copy = FrozenEstimator(copy.fit(X[:300], y[:300]))
    transfer = TransferAttack(FrozenEstimator(victim), surrogate=copy, attack=attack)
    transfer.fit(X[:300], y[:300])
    victim.seen.clear()
    result = transfer.run(X[1000:1050], y[1000:1050])
    assert victim.n_seen == 50 and (result.n_queries == 1).all()
    np.testing.assert_array_equal(result.y_pred, model.predict(result.X_adv))
    clean = (model.predict(X[1000:1050]) != y[1000:1050]).mean()
    if kind != "forest":
        assert result.success.mean() > clean + 0.3


def test_estimates_of_the_steps_before_bring_hop_skip_jump_nearer(digits):
    X, y, model = digits
    found = {}
    for momentum in (0.0, 0.5):
        attack = HopSkipJump(
            FrozenEstimator(model),
            norm=np.inf,
            max_queries=600,
            n_evaluations=15,
            momentum=momentum,
        )
        found[momentum] = np.median(attack.fit(X).run(X[:40], y[:40]).distance)
    assert found[0.5] < 0.97 * found[0.0]
