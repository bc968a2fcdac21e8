import gc
import time
import warnings
import weakref
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch
from nets import CNN, MLP
from registry import EVASION
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
    minmax_scale,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils._testing import assert_docstring_consistency

from sklearn_advsec import differentiable
from sklearn_advsec.defense import AdversarialTrainingClassifier
from sklearn_advsec.evasion import (
    AdversarialPatch,
    AutoAttack,
    AutoProjectedGradientDescent,
    BasicIterativeMethod,
    CarliniWagner,
    DeepFool,
    EvasionAttack,
    FastAdaptiveBoundary,
    FastGradientMethod,
    FastMinimumNorm,
    GreedyFeatureAttack,
    HopSkipJump,
    IterativeLeastLikely,
    OnePixel,
    ProjectedGradientDescent,
    RayS,
    SquareAttack,
    TransferAttack,
    TreeCoordinateAttack,
    TreeExactAttack,
    UniversalPerturbation,
)
from sklearn_advsec.exceptions import (
    BadAnswerError,
    InterruptedRunWarning,
    NoGradientError,
    QueryBudgetExceeded,
)
from sklearn_advsec.inspection import AdversarialExamplesDisplay
from sklearn_advsec.metrics import gradient_masking_report, robust_accuracy_scorer
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.threat import FeatureConstraints, LpBall
from sklearn_advsec.victim import LabelAccess, RegressionVictim

ATTACKS = [
    FastGradientMethod,
    BasicIterativeMethod,
    IterativeLeastLikely,
    ProjectedGradientDescent,
]
DUAL = {np.inf: 1, 2: 2, 1: np.inf}


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return MinMaxScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    victim = MLPClassifier((64,), max_iter=60, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        victim.fit(X[:1000], y[:1000])
    return victim, X[1000:1200], y[1000:1200]


# Exact attacks ----------------------------------------------------------------------


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize("attack", [FastGradientMethod, ProjectedGradientDescent])
def test_linear_model_falls_exactly_within_its_distance_to_the_hyperplane(
    cancer, attack, norm
):
    # The distance in a norm is |w x + b| over the dual norm of w: an attack without a
    # box flips a row if and only if eps is larger. No attack can do better, and a
    # gradient attack on a linear model must do as well.
    X, y = cancer
    victim = LogisticRegression().fit(X, y)
    gap = np.abs(victim.decision_function(X))
    distance = gap / np.linalg.norm(victim.coef_[0], DUAL[norm])
    eps = np.median(distance)
    more = {} if attack is FastGradientMethod else {"max_iter": 100}
    attack = attack(FrozenEstimator(victim), norm=norm, eps=eps, bounds=None, **more)
    success = attack.fit(X).run(X).success
    clear = np.abs(distance / eps - 1) > 1e-3
    np.testing.assert_array_equal(success[clear], (distance < eps)[clear])


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_descent_reaches_the_exact_optimum_inside_the_box(cancer, norm):
    X, y = cancer
    victim = LogisticRegression().fit(X, y)
    eps = {np.inf: 0.2, 2: 0.8, 1: 2.0}[norm]
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim),
        norm=norm,
        eps=eps,
        max_iter=300,
        bounds=(0, 1),
        early_stopping=False,
    )
    X_adv = attack.fit(X, y).transform(X)
    sign = np.where(victim.decision_function(X) > 0, -1.0, 1.0)
    gradient = torch.as_tensor(sign[:, None] * victim.coef_)
    x = torch.as_tensor(X)
    best = LpBall(norm, eps).maximize(gradient, -x, 1 - x)
    reached = (gradient * torch.as_tensor(X_adv - X)).sum(1)
    torch.testing.assert_close(reached, (gradient * best).sum(1), rtol=1e-3, atol=1e-6)


def test_fast_gradient_sign_is_its_formula(digits):
    victim, X, y = digits
    attack = FastGradientMethod(FrozenEstimator(victim), eps=0.1, bounds=(0, 1)).fit(X)
    x = torch.tensor(X, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        differentiable.view(victim).logits(x), torch.as_tensor(y), reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, x)
    expected = np.clip(X + 0.1 * np.sign(gradient.numpy()), 0, 1)
    right = victim.predict(X) == y
    result = attack.run(X, y)
    np.testing.assert_allclose(result.X_adv[right], expected[right], atol=1e-12)
    # rows that are wrong already are left alone
    np.testing.assert_array_equal(result.X_adv[~right], X[~right])
    assert result.success[~right].all() and (result.distance[~right] == 0).all()


# The paper's order of strength -------------------------------------------------------


def test_more_steps_are_stronger(digits):
    victim, X, y = digits
    frozen = FrozenEstimator(victim)
    accuracy = [
        attack(frozen, eps=0.08, bounds=(0, 1)).fit(X).score(X, y)
        for attack in (
            FastGradientMethod,
            BasicIterativeMethod,
            ProjectedGradientDescent,
        )
    ]
    assert victim.score(X, y) > accuracy[0] >= accuracy[1] >= accuracy[2]
    noise = X + 0.08 * np.sign(np.random.RandomState(0).randn(*X.shape))
    assert victim.score(np.clip(noise, 0, 1), y) > accuracy[0]


def test_restarts_only_help(digits):
    victim, X, y = digits
    one, five = (
        ProjectedGradientDescent(
            FrozenEstimator(victim),
            norm=1,
            eps=1.5,
            max_iter=5,
            n_restarts=n,
            random_state=0,
            bounds=(0, 1),
        )
        .fit(X)
        .run(X, y)
        for n in (1, 5)
    )
    assert (one.success <= five.success).all()
    assert five.success.sum() > one.success.sum()


# Goals -------------------------------------------------------------------------------


def test_any_digit_becomes_any_other_at_99_percent(digits):
    victim, X, y = digits
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim),
        norm=2,
        eps=4.0,
        max_iter=100,
        goal="targeted",
        confidence=0.99,
        bounds=(0, 1),
    ).fit(X)
    for target in range(10):
        result = attack.run(X[:20], target=target)
        assert result.success.all()
        assert (result.y_pred == target).all()
        assert (victim.predict_proba(result.X_adv)[:, target] >= 0.99).all()


def test_confidence_of_any_other_class(digits):
    victim, X, _ = digits
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim), eps=0.4, confidence=0.95, bounds=(0, 1)
    ).fit(X)
    result = attack.run(X)
    proba = victim.predict_proba(result.X_adv)
    before = victim.predict(X)
    assert result.success.mean() > 0.9
    assert (proba.max(1) >= 0.95)[result.success].all()
    assert (result.y_pred != before)[result.success].all()


def test_confidence_reduction(digits):
    victim, X, _ = digits
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim),
        eps=0.3,
        goal="confidence_reduction",
        confidence=0.2,
        bounds=(0, 1),
    ).fit(X)
    result = attack.run(X)
    before = victim.predict(X)
    after = victim.predict_proba(result.X_adv)[np.arange(len(X)), before]
    np.testing.assert_array_equal(result.success, after <= 0.2)
    assert result.success.mean() > 0.9


def test_labels_beside_a_confidence_are_those_of_predict(cancer):
    X, y = cancer
    victim = FixedThresholdClassifier(LogisticRegression(), threshold=0.8).fit(X, y)
    attack = ProjectedGradientDescent(FrozenEstimator(victim), eps=0.2, confidence=0.6)
    result = attack.fit(X).run(X, y)
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))
    other = victim.predict_proba(result.X_adv)[np.arange(len(y)), 1 - y]
    np.testing.assert_array_equal(result.success, other >= 0.6)
    for limit in (1, 2, 3, 5, 8):
        result = attack.set_params(max_queries=limit).run(X, y)
        assert result.n_queries.max() <= limit


def test_least_likely_class(digits):
    victim, X, _ = digits
    attack = IterativeLeastLikely(
        FrozenEstimator(victim), eps=0.6, max_iter=60, bounds=(0, 1)
    ).fit(X)
    result = attack.run(X)
    least = victim.predict_proba(X).argmin(1)
    np.testing.assert_array_equal(result.success, result.y_pred == least)
    assert result.success.mean() > 0.9


def test_a_target_per_row(digits):
    victim, X, y = digits
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim), eps=0.5, goal="targeted", bounds=(0, 1)
    ).fit(X)
    target = (y + 1) % 10
    result = attack.run(X, target=target)
    assert (result.y_pred == target).mean() > 0.95
    same = attack.run(X[:5], target=victim.predict(X[:5]))
    assert same.success.all() and (same.distance == 0).all()
    with pytest.raises(ValueError, match="target"):
        attack.run(X)


# What every attack keeps -------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_eps_zero_is_the_identity(digits, attack):
    victim, X, _ = digits
    attack = attack(FrozenEstimator(victim), eps=0.0).fit(X)
    np.testing.assert_array_equal(attack.transform(X), X)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ball_and_box_are_kept(digits, attack, dtype):
    victim, X, y = digits
    X = X.astype(dtype)
    attack = attack(FrozenEstimator(victim), eps=0.1, bounds=(0, 1)).fit(X)
    result = attack.run(X, y)
    assert result.X_adv.dtype == dtype
    assert np.abs(result.X_adv - X).max() <= 0.1 + 1e-7
    assert result.X_adv.min() >= 0 and result.X_adv.max() <= 1
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))
    np.testing.assert_allclose(
        result.distance, np.abs(result.X_adv - X).max(1), atol=1e-7
    )


def test_random_starts_do_not_depend_on_jobs(digits):
    victim, X, _ = digits
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim),
        eps=0.1,
        max_iter=2,
        random_start=True,
        random_state=0,
        batch_size=8,
    ).fit(X)
    expected = attack.transform(X)
    np.testing.assert_array_equal(attack.set_params(n_jobs=2).transform(X), expected)
    assert not np.array_equal(attack.set_params(random_state=1).transform(X), expected)


class Counted(MLP):
    rows = 0

    def forward(self, x):
        Counted.rows += len(x)
        return super().forward(x)


@pytest.mark.parametrize("attack", ATTACKS)
def test_query_count_is_what_the_victim_saw(attack):
    X = np.random.RandomState(0).rand(50, 6).astype(np.float32)
    torch.manual_seed(0)
    victim = PretrainedModule(Counted(6, 3))
    attack = attack(victim, eps=0.2).fit(X)
    Counted.rows = 0
    assert attack.run(X).n_queries.sum() == Counted.rows > 0


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("limit", [2, 3, 4, 5])
def test_budget_per_row_is_kept_and_is_no_error(digits, attack, limit):
    victim, X, _ = digits
    attack = attack(FrozenEstimator(victim), eps=0.3, max_queries=limit).fit(X)
    result = attack.run(X)
    assert result.n_queries.max() <= limit
    # for every row the victim was asked, and the answer was kept
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))


def test_total_budget_carries_what_was_found(digits):
    victim, X, _ = digits
    attack = ProjectedGradientDescent(
        FrozenEstimator(victim), eps=0.2, max_total_queries=700, bounds=(0, 1)
    ).fit(X)
    with pytest.raises(QueryBudgetExceeded, match="max_total_queries=700") as stop:
        attack.run(X)
    result = stop.value.result
    assert 0 < len(result) < len(X)
    assert result.n_queries.sum() <= 700
    full = attack.set_params(max_total_queries=None).run(X)
    assert full.finished.all()
    done = result.select(result.finished)
    np.testing.assert_array_equal(done.X_adv, full.X_adv[done.rows])
    np.testing.assert_array_equal(done.success, full.success[done.rows])
    # Rows that were stopped hold what the victim says of them.
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))


@pytest.mark.parametrize(
    "attack",
    [
        SquareAttack(eps=0.05, max_queries=100),
        HopSkipJump(max_queries=60),
        GreedyFeatureAttack(max_queries=400, n_values=4),
        DeepFool(),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_total_is_spent_on_as_many_rows_as_it_serves(digits, attack):
    victim, X, y = digits
    X, y = X[:40], y[:40]
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim)).fit(X)
    whole = attack.run(X, y)
    total = int(whole.n_queries.sum() * 0.6)
    attack.set_params(max_total_queries=total)
    with pytest.raises(QueryBudgetExceeded) as stop:
        attack.run(X, y)
    result = stop.value.result
    assert 0.9 * total <= result.n_queries.sum() <= total
    done = result.select(result.finished)
    served = (np.cumsum(whole.n_queries) <= total).sum()
    assert len(done) >= 0.8 * served
    np.testing.assert_allclose(done.X_adv, whole.X_adv[done.rows], atol=1e-6)
    # The rest can be had later.
    again = attack.set_params(max_total_queries=None).run(X, y, resume=result)
    assert again.finished.all() and list(again.rows) == list(range(40))
    np.testing.assert_allclose(again.X_adv, whole.X_adv, atol=1e-6)
    stopped = result.select(~result.finished)
    paid = whole.n_queries.copy()
    paid[stopped.rows] += stopped.n_queries
    np.testing.assert_allclose(again.n_queries, paid, atol=2)  # by rounding


def test_samplers_of_a_pipeline_are_no_steps_of_its_answers():
    pipeline = pytest.importorskip("imblearn.pipeline")
    sampling = pytest.importorskip("imblearn.over_sampling")
    X, y = load_breast_cancer(return_X_y=True)
    victim = pipeline.make_pipeline(
        StandardScaler(), sampling.RandomOverSampler(random_state=0), LogisticRegression()
    )
    attack = ProjectedGradientDescent(victim, eps=0.5).fit(X, y)
    result = attack.run(X[:20], y[:20])
    assert result.clean_accuracy > 0.9 > 0.1 > result.robust_accuracy
    said = attack.estimator_.predict(result.X_adv)
    np.testing.assert_array_equal(said, result.y_pred)


class Told(LogisticRegression):
    """Its scores need not be its labels, as far as anybody knows."""


CAPPED = [a for a in EVASION if "max_total_queries" in a.get_params()]


@pytest.mark.parametrize("attack", CAPPED, ids=lambda attack: type(attack).__name__)
def test_every_paid_query_of_a_stopped_run_is_in_its_result(attack, monkeypatch):
    X, y = load_iris(return_X_y=True)
    paid, spend = [], LabelAccess._spend

    def counted(access, x, rows, asked=None):
        spend(access, x, rows, asked)
        paid.append(len(x))

    monkeypatch.setattr(LabelAccess, "_spend", counted)
    for victim in (Told(C=0.01), KNeighborsClassifier(3)):
        victim.fit(X, y)
        attack = clone(attack).set_params(estimator=FrozenEstimator(victim))
        if attack.max_queries is not None:
            attack.set_params(max_queries=40)
        try:
            attack.fit(X, y)
        except (NoGradientError, TypeError):
            continue
        for total in (1, 37):
            for labels in (y[::15], None):
                attack.set_params(max_total_queries=total)
                paid.clear()
                try:
                    result = attack.run(X[::15], labels)
                except QueryBudgetExceeded as stop:
                    result = stop.result
                if result is None:
                    assert not paid
                    continue
                assert sum(paid) == result.n_queries.sum() <= total
                known = result.known
                said = victim.predict(result.X_adv[known])
                np.testing.assert_array_equal(result.y_pred[known].astype(int), said)
                assert not result.success[~known].any()
                assert not result.finished[~known].any()
                assert all(label is None for label in result.y_pred[~known])


class CountedRidge(Ridge):
    n_asked = 0

    def predict(self, X):
        CountedRidge.n_asked += len(X)
        return super().predict(X)


@pytest.mark.parametrize("total", [None, 90])
@pytest.mark.parametrize(
    "attack",
    [
        SquareAttack(eps=0.01, max_queries=20),
        HopSkipJump(max_queries=30),
        GreedyFeatureAttack(max_queries=30),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_every_question_to_a_regressor_is_counted(attack, total):
    X, y = load_diabetes(return_X_y=True)
    victim = RegressionVictim(FrozenEstimator(CountedRidge().fit(X, y)), delta=20)
    attack = clone(attack).set_params(estimator=victim, max_total_queries=total).fit(X)
    for labels in (None, y[:10]):
        CountedRidge.n_asked = 0
        try:
            result = attack.run(X[:10], labels)
        except QueryBudgetExceeded as stop:
            result = stop.result
        assert CountedRidge.n_asked == result.n_queries.sum()
        assert result.n_queries.max() <= attack.max_queries
        assert total is None or result.n_queries.sum() <= total
        known = result.known
        said = Ridge().fit(X, y).predict(result.X_adv)
        np.testing.assert_allclose(result.y_pred[known].astype(float), said[known])
        assert known.all() if total is None else known.any()
        assert not np.isfinite(result.y_pred[~known].astype(float)).any()


def test_a_total_keeps_questions_for_where_rows_end():
    X, y = load_iris(return_X_y=True)
    attack = SquareAttack(Told(C=0.01), eps=0.01, max_queries=40, max_total_queries=50)
    with pytest.raises(QueryBudgetExceeded) as stop:
        attack.fit(X, y).run(X, y)
    result = stop.value.result
    assert len(result) == 2 and result.known.all() and result.n_queries.sum() == 50


@pytest.mark.parametrize("goal", ["misclassification", "targeted"])
@pytest.mark.parametrize("victim", [Told(C=0.01), RegressionVictim(Ridge(), delta=0.1)])
def test_rows_that_a_failing_victim_left_unknown_are_there_and_count_for_nothing(
    victim, goal
):
    X, y = load_iris(return_X_y=True)
    target = None
    if goal == "targeted":
        target = 1 if isinstance(victim, Told) else "increase"
    attack = SquareAttack(victim, eps=0.003, max_queries=40).fit(X, y)
    inner = getattr(attack.estimator_, "estimator_", attack.estimator_)
    method = "predict_proba" if isinstance(victim, Told) else "predict"
    asked, calls = getattr(inner, method), []

    def failing(X):
        calls.append(len(X))
        if len(calls) >= 5:
            raise ConnectionError
        return asked(X)

    setattr(inner, method, failing)
    with pytest.raises(ConnectionError) as stop:
        attack.run(X[:6], y[:6], target)
    delattr(inner, method)
    result = stop.value.result
    assert len(result) == 6 and result.n_queries.sum() >= sum(calls[:4])
    unknown = ~result.known
    assert not result.success[unknown].any() and not result.finished[unknown].any()
    if isinstance(victim, Told):
        assert unknown.all() and np.isnan(result.robust_accuracy)
        assert result.to_frame()["after"].isna().all()
        assert "unknown_rows=6" in repr(result)
    again = attack.run(X[:6], y[:6], target, resume=result)
    assert again.known.all() and (again.n_queries > result.n_queries).all()


class Interrupted(MLP):
    calls, error = 0, KeyboardInterrupt

    def forward(self, x):
        Interrupted.calls += 1
        if Interrupted.calls == 40:
            raise Interrupted.error
        return super().forward(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError])
def test_what_was_found_survives_an_interrupt_and_the_victims_errors(error):
    X = np.random.RandomState(0).rand(64, 6).astype(np.float32)
    torch.manual_seed(0)
    attack = ProjectedGradientDescent(
        PretrainedModule(Interrupted(6, 3)), eps=0.3, max_iter=20, batch_size=2
    ).fit(X)
    Interrupted.calls, Interrupted.error = 0, error
    if error is KeyboardInterrupt:  # the user has the result at once
        with pytest.warns(InterruptedRunWarning, match=r"64 rows.*resume"):
            result = attack.run(X)
    else:
        with pytest.raises(error) as stop:
            attack.run(X)
        result = stop.value.result
    assert 0 < len(result) < 64 and 0 < result.finished.sum()
    assert len(result.X_adv) == len(result.rows) == len(result.success)
    full = attack.run(X)
    done = result.select(result.finished)
    np.testing.assert_array_equal(done.X_adv, full.X_adv[done.rows])
    again = attack.run(X, resume=result)
    np.testing.assert_array_equal(again.X_adv, full.X_adv)
    Interrupted.calls = 0
    with pytest.raises(error):  # a part would be taken for the whole
        attack.transform(X)


@pytest.mark.parametrize("attack", [FastMinimumNorm(), HopSkipJump(max_queries=300)])
def test_interim_points_of_a_search_are_not_finished(attack):
    X = np.random.RandomState(0).rand(8, 6).astype(np.float32)
    torch.manual_seed(0)
    victim = PretrainedModule(Interrupted(6, 3))
    Interrupted.calls, Interrupted.error = 100, ConnectionError
    attack = clone(attack).set_params(estimator=victim).fit(X)
    Interrupted.calls = 0
    with pytest.raises(ConnectionError) as stop:
        attack.run(X)
    result = stop.value.result
    assert result.success.any() and not result.finished[result.success].any()


def test_chunks_go_to_all_workers(digits, monkeypatch):
    victim, X, y = digits
    attack = SquareAttack(FrozenEstimator(victim), eps=0.1, max_queries=20).fit(X)
    sizes = []

    def in_parallel(function, parts, n_parts, n_jobs):
        return [sizes.append(len(part)) or function(part) for part in parts]

    monkeypatch.setattr("sklearn_advsec.evasion._base.in_parallel", in_parallel)
    one = attack.run(X, y)
    two = attack.set_params(n_jobs=2).run(X, y)
    assert len(sizes) >= 2 and max(sizes) <= len(X) / 2
    np.testing.assert_allclose(two.X_adv, one.X_adv, atol=1e-9)


@pytest.mark.parametrize(
    "attack", [FastGradientMethod(), DeepFool(), RayS(max_queries=30)]
)
def test_attacks_without_a_seed_leave_numpys_alone(digits, attack):
    victim, X, _ = digits
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim)).fit(X)
    np.random.seed(0)  # noqa: NPY002
    drawn = np.random.rand()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    attack.run(X[:5])
    assert np.random.rand() == drawn  # noqa: NPY002


def test_verbose_tells_how_far_it_is(digits, capsys, monkeypatch):
    victim, X, y = digits
    monkeypatch.setattr("sklearn_advsec.evasion._base._TELL_EVERY", 0.0)
    SquareAttack(FrozenEstimator(victim), eps=0.05, verbose=1).fit(X).run(X[:10], y[:10])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5  # also inside of a chunk
    assert all(line.startswith("[SquareAttack]") for line in lines)
    assert "10 of 10 rows" in lines[-1] and "queries" in lines[-1]


def test_searches_that_ask_nothing_are_heard(capsys, monkeypatch):
    monkeypatch.setattr("sklearn_advsec.evasion._base._SILENT_FOR", 0.02)

    class Thinks(TreeExactAttack):
        def _search_row(self, tree_row):
            time.sleep(0.3)

    X, y = load_digits(return_X_y=True)
    tree = FrozenEstimator(DecisionTreeClassifier(max_depth=4).fit(X, y))
    Thinks(tree, verbose=1).fit(X).run(X[:2])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4 and all(line.startswith("[Thinks]") for line in lines)
    assert any("0 of 2 rows" in line and "to go" not in line for line in lines)
    assert any("1 of 2 rows" in line for line in lines)


def test_callbacks_follow_a_run(digits):
    pytest.importorskip("sklearn.callback")  # scikit-learn 1.9

    class Count:
        n_shares = 0

        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context):
            if context.parent is not None:
                self.n_shares += 1
                assert context.parent.max_subtasks >= self.n_shares

        def teardown(self, estimator, context):
            pass

    victim, X, y = digits
    attack = ProjectedGradientDescent(FrozenEstimator(victim), batch_size=1).fit(X)
    for method in (attack.run, attack.score, lambda X, y: attack.transform(X)):
        count = Count()
        attack.set_callbacks(count)
        method(X[:20], y[:20])
        assert count.n_shares == 20
    # A bar takes a time that grows with the square of the number of tasks.
    attack.set_params(batch_size="auto", max_iter=1).set_callbacks(count := Count())
    attack.fit(X).run(np.resize(X, (1050, 64)))
    assert count.n_shares == 100


def test_rows_do_not_influence_each_other(digits):
    victim, X, _ = digits
    attack = ProjectedGradientDescent(FrozenEstimator(victim), eps=0.1, norm=2).fit(X)
    together = attack.transform(X[:10])
    alone = np.concatenate([attack.transform(X[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize(
    "attack", [FastGradientMethod(), ProjectedGradientDescent(), FastMinimumNorm()]
)
def test_infinite_slopes_lead_nowhere_outside(attack, norm):
    """The slope of a square root is infinite at 0, where most pixels are."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    root = FunctionTransformer(np.sqrt)
    victim = make_pipeline(root, LogisticRegression(max_iter=500)).fit(X, y)
    attack = clone(attack).set_params(
        estimator=FrozenEstimator(victim), norm=norm, bounds=(0, 1)
    )
    if "eps" in attack.get_params():
        attack.set_params(eps={np.inf: 0.1, 2: 1.0, 1: 3.0}[norm])
    result = attack.fit(X).run(X[:100], y[:100])
    assert result.X_adv.min() >= 0 and result.X_adv.max() <= 1
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))
    assert result.success.mean() > (0.95 if "eps" not in attack.get_params() else 0)


# DataFrames and pipelines ------------------------------------------------------------


@pytest.fixture(scope="module")
def frame():
    rng = np.random.RandomState(0)
    n = 300
    frame = pd.DataFrame(
        {
            "income": rng.normal(50, 15, n),
            "age": rng.randint(18, 80, n),
            "job": rng.choice(["none", "clerk", "boss"], n),
            "owner": rng.rand(n) < 0.5,
        },
        index=np.arange(1000, 1000 + n),
    )
    risk = 0.1 * frame["income"] + 2 * (frame["job"] == "boss") + frame["owner"]
    y = np.where(risk > risk.median(), "good", "bad")
    columns = make_column_transformer(
        (StandardScaler(), ["income", "age"]),
        (OneHotEncoder(), ["job", "owner"]),
    )
    return frame, y, make_pipeline(columns, SVC())


@pytest.mark.parametrize("attack", [FastGradientMethod, ProjectedGradientDescent])
def test_column_transformer_and_svc_on_a_dataframe(frame, attack):
    X, y, pipeline = frame
    eps = np.array([10.0, 3.0, 0.0, 0.0])
    attack = attack(pipeline, eps=eps).fit(X, y)
    result = attack.run(X, y)
    X_adv = result.X_adv
    assert attack.estimator_.score(X, y) > 0.9
    assert attack.estimator_.score(X_adv, y) < 0.7
    pd.testing.assert_series_equal(X_adv["job"], X["job"])
    pd.testing.assert_series_equal(X_adv["owner"], X["owner"])
    assert X_adv.dtypes.equals(X.dtypes) and X_adv.index.equals(X.index)
    assert (X_adv["income"] - X["income"]).abs().max() <= 10 + 1e-9
    assert (X_adv["age"] - X["age"]).abs().max() <= 3
    np.testing.assert_array_equal(result.y_pred, attack.estimator_.predict(X_adv))


def test_pandas_output_of_an_array(cancer):
    X, y = cancer
    attack = FastGradientMethod(LogisticRegression(), eps=0.1).fit(X, y)
    out = attack.set_output(transform="pandas").transform(X)
    assert isinstance(out, pd.DataFrame) and out.shape == X.shape


def test_images_in_and_out():
    torch.manual_seed(0)
    victim = PretrainedModule(CNN())
    X = np.random.RandomState(0).rand(10, 1, 8, 8)
    result = ProjectedGradientDescent(victim, eps=0.3, bounds=(0, 1)).fit(X).run(X)
    assert result.X_adv.shape == X.shape and result.X_adv.dtype == X.dtype
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))


def test_attack_parameters_are_searchable(cancer):
    X, y = cancer
    search = GridSearchCV(
        FastGradientMethod(LogisticRegression()),
        {"eps": [0.0, 0.1], "estimator__C": [0.1, 1.0]},
        cv=3,
        n_jobs=2,
    ).fit(X, y)
    assert search.best_params_["eps"] == 0.0  # score is robust accuracy


@pytest.mark.parametrize("bfloat16", [False, True])
def test_mixed_precision_confirms_in_full_precision(monkeypatch, bfloat16):
    monkeypatch.setattr(
        "sklearn_advsec.victim._access.bfloat16_is_fast", lambda device: bfloat16
    )
    torch.manual_seed(0)
    X = np.random.RandomState(0).rand(100, 1, 8, 8).astype(np.float32)
    victim = PretrainedModule(CNN())
    attack = ProjectedGradientDescent(victim, eps=0.02, max_iter=10)
    full = attack.fit(X).run(X)
    mixed = attack.set_params(precision="mixed").fit(X).run(X)
    np.testing.assert_array_equal(mixed.y_pred, victim.predict(mixed.X_adv))
    np.testing.assert_array_equal(mixed.success, mixed.y_pred != victim.predict(X))
    assert abs(full.success.mean() - mixed.success.mean()) <= 0.05


# Bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_prototype_has_to_get_a_victim(attack):
    with pytest.raises(ValueError, match="prototype"):
        attack().fit([[0.0], [1.0]], [0, 1])


def test_errors_name_the_parameter(cancer):
    X, y = cancer
    iris_X, iris_y = load_iris(return_X_y=True)
    pgd = ProjectedGradientDescent
    with pytest.raises(ValueError, match="FrozenEstimator"):
        pgd(LogisticRegression()).fit(X)
    with pytest.raises(NotFittedError):
        pgd(FrozenEstimator(LogisticRegression())).fit(X)
    with pytest.raises(NotFittedError):
        pgd(LogisticRegression()).transform(X)
    with pytest.raises(TypeError, match="regressor"):
        pgd(LinearRegression()).fit(X, y)
    with pytest.raises(NoGradientError, match="DecisionTreeClassifier"):
        pgd(DecisionTreeClassifier()).fit(X, y)
    with pytest.raises(ValueError, match="eps"):
        pgd(LogisticRegression(), eps=-0.1).fit(X, y)
    with pytest.raises(ValueError, match="eps has shape"):
        pgd(LogisticRegression(), eps=[0.1, 0.2]).fit(X, y)
    with pytest.raises(ValueError, match="norm"):
        pgd(LogisticRegression(), norm=0, eps=3).fit(X, y)
    with pytest.raises(ValueError, match="bounds exclude the data"):
        pgd(LogisticRegression(), bounds=(0, 0.5)).fit(X, y)
    with pytest.raises(ValueError, match="'goal'"):
        pgd(LogisticRegression(), goal="win").fit(X, y)
    with pytest.raises(ValueError, match="target.*'setosa'"):
        pgd(LogisticRegression(), goal="targeted", target="setosa").fit(X, y)
    with pytest.raises(ValueError, match="target needs goal='targeted'"):
        pgd(LogisticRegression(), target=1).fit(X, y)
    with pytest.raises(ValueError, match="confidence.*predict_proba; LinearSVC"):
        victim = FrozenEstimator(LinearSVC().fit(X, y))
        pgd(victim, confidence=0.9).fit(X, y).transform(X)

    attack = pgd(LogisticRegression(), bounds=(0, 1)).fit(X, y)
    with pytest.raises(ValueError, match="features"):
        attack.transform(X[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        attack.transform(np.full_like(X, np.nan))
    with pytest.raises(ValueError, match="infinity"):
        attack.transform(np.full_like(X, np.inf))
    with pytest.raises(ValueError, match="0 sample"):
        attack.transform(X[:0])
    with pytest.raises(ValueError, match="bounds exclude the data"):
        attack.transform(X + 1)
    with pytest.raises(ValueError, match="y holds.*7"):
        attack.run(X[:2], [0, 7])
    with pytest.raises(ValueError, match="inconsistent"):
        attack.run(X[:2], [0, 1, 1])
    targeted = pgd(
        LogisticRegression(max_iter=500), goal="targeted", target="least_likely"
    )
    with pytest.raises(ValueError, match="target has 2 labels for 3 rows"):
        targeted.fit(iris_X, iris_y).run(iris_X[:3], target=[0, 1])
    with pytest.raises(ValueError, match="one class"):
        pgd(DecisionTreeClassifier()).fit(X, np.zeros(len(X)))
    images = np.zeros((4, 1, 8, 8))
    attack = pgd(PretrainedModule(CNN())).fit(images)
    with pytest.raises(ValueError, match=r"rows of shape \(1, 9, 9\)"):
        attack.transform(np.zeros((4, 1, 9, 9)))


def test_wrong_device_and_wrong_module():
    X = np.zeros((4, 6), dtype=np.float32)
    with pytest.raises(ValueError, match="device"):
        ProjectedGradientDescent(PretrainedModule(MLP(6, 3), device="cuda")).fit(X)
    with pytest.raises(TypeError, match="module"):
        ProjectedGradientDescent(PretrainedModule(MLP)).fit(X)


# Goals of a run, and what a result says ----------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        ProjectedGradientDescent(eps=0.4, norm=np.inf),
        DeepFool(max_iter=100),
        SquareAttack(eps=0.5, max_queries=300),
        TransferAttack(attack=ProjectedGradientDescent(eps=0.5)),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_target_of_run_makes_it_targeted(digits, attack):
    victim, X, y = digits
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim)).fit(X, y)
    result = attack.run(X[:20], target=3)
    np.testing.assert_array_equal(result.success, result.y_pred == 3)
    there = victim.predict(X[:20]) == 3
    assert result.success.sum() > there.sum()
    if not isinstance(attack, TransferAttack):  # which does not ask before it moves
        assert (result.distance[there] == 0).all()


@pytest.mark.parametrize("target", [0, 1, 2])
def test_rays_reach_a_target_where_a_corner_has_it(target):
    X, y = load_iris(return_X_y=True)
    victim = FrozenEstimator(LogisticRegression(max_iter=500).fit(X, y))
    attack = RayS(victim, goal="targeted", target=target, max_queries=300).fit(X)
    result = attack.run(X[::10])
    assert result.success.all() and (result.y_pred == target).all()


@pytest.mark.parametrize(
    "attack",
    [
        UniversalPerturbation(max_iter=1),
        AdversarialPatch(max_iter=1, n_images=5),
        AutoAttack(max_iter=1),
        FastAdaptiveBoundary(n_targets=2),
        AutoProjectedGradientDescent(loss="targeted_dlr"),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_attacks_that_cannot_change_their_goal_say_so(digits, attack):
    victim, X, _ = digits
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim)).fit(X)
    with pytest.raises(ValueError, match="^target: "):
        attack.run(X[:5], target=3)


def test_a_result_tells_the_clean_error_from_the_attacks_successes(digits):
    victim, X, y = digits
    right = victim.predict(X) == y
    nothing = FastGradientMethod(FrozenEstimator(victim), eps=0.0).fit(X).run(X, y)
    assert nothing.success_rate == 0 and not right.all()
    assert nothing.clean_accuracy == nothing.robust_accuracy == right.mean()
    result = FastGradientMethod(FrozenEstimator(victim), eps=0.1).fit(X).run(X, y)
    np.testing.assert_array_equal(result.y_before, victim.predict(X))
    assert result.clean_accuracy == right.mean()
    after = victim.predict(result.X_adv)
    assert result.robust_accuracy == np.mean(after == y)
    assert result.success_rate == np.mean(after[right] != y[right])
    text = repr(result)
    for part in (
        f"clean_accuracy={right.mean():.3f}",
        f"robust_accuracy={result.robust_accuracy:.3f}",
        f"success_rate={result.success_rate:.3f}",
    ):
        assert part in text
    assert "robust accuracy" in result._repr_html_()
    unlabelled = FastGradientMethod(FrozenEstimator(victim), eps=0.1).fit(X).run(X)
    assert "accuracy" not in repr(unlabelled) and np.isnan(unlabelled.clean_accuracy)
    changed = victim.predict(unlabelled.X_adv) != victim.predict(X)
    assert unlabelled.success_rate == changed.mean()


def test_a_result_of_a_regressor_is_about_the_distance_from_y():
    X, y = load_diabetes(return_X_y=True)
    victim = RegressionVictim(Ridge(), delta=20)
    attack = ProjectedGradientDescent(victim, eps=0.005).fit(X, y)
    result = attack.run(X, y)
    near = np.abs(attack.estimator_.predict(result.X_adv) - y) <= 20
    assert result.robust_accuracy == near.mean() == attack.score(X, y)
    assert 0 < near.mean() < 1 and "clean_accuracy" not in repr(result)


def test_what_a_victim_abstains_from_is_told_apart(digits):
    victim, X, y = digits

    class Abstaining(ClassifierMixin, BaseEstimator):
        abstain_label = -1
        classes_ = victim.classes_

        def fit(self, X, y=None):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict_proba(self, X):
            return victim.predict_proba(X)

        def predict(self, X):
            proba = victim.predict_proba(X)
            return np.where(proba.max(1) < 0.9, -1, victim.predict(X))

    attack = SquareAttack(FrozenEstimator(Abstaining()), eps=0.1, max_queries=60).fit(X)
    result = attack.run(X[:60], y[:60])
    np.testing.assert_array_equal(result.abstained, result.y_pred == -1)
    assert result.abstained.any() and not result.success[result.abstained].any()
    assert "abstained=" in repr(result)


def test_a_result_as_a_frame(frame):
    X, y, pipeline = frame
    attack = FastGradientMethod(pipeline, eps=np.array([10.0, 3.0, 0.0, 0.0]))
    result = attack.fit(X, y).run(X, y)
    table = result.to_frame()
    pd.testing.assert_index_equal(table.index, X.index)
    np.testing.assert_array_equal(table["label"], y)
    np.testing.assert_array_equal(table["before"], attack.estimator_.predict(X))
    np.testing.assert_array_equal(table["after"], result.y_pred)
    np.testing.assert_array_equal(table["n_changed"], (result.X_adv != X).sum(axis=1))
    assert (
        "label" not in FastGradientMethod(pipeline, eps=3.0).fit(X, y).run(X).to_frame()
    )


# What may change ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        ProjectedGradientDescent(eps=0.3),
        SquareAttack(eps=0.3, max_queries=50),
        DeepFool(),
        FastMinimumNorm(),
        HopSkipJump(max_queries=100),
        OnePixel(n_pixels=3, max_queries=200),
        AutoAttack(eps=0.3, max_iter=5, square_queries=20),
        TransferAttack(attack=ProjectedGradientDescent(eps=0.3)),
        UniversalPerturbation(eps=0.3, max_iter=2),
        AdversarialPatch(max_iter=2, n_images=10),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_mask_of_pixels_is_kept(attack):
    torch.manual_seed(0)
    X = np.random.RandomState(0).rand(20, 1, 8, 8).astype(np.float32)
    mask = np.zeros((8, 8), dtype=bool)
    mask[:, :4] = True  # broadcasts over channels
    attack = clone(attack).set_params(estimator=PretrainedModule(CNN()), mask=mask)
    result = attack.fit(X).run(X)
    moved = result.X_adv != X
    assert moved[..., :4].any() and not moved[..., 4:].any()


@pytest.mark.parametrize(
    "attack", [GreedyFeatureAttack(max_queries=300), ProjectedGradientDescent(eps=0.3)]
)
def test_a_mask_holds_under_constraints_too(cancer, attack):
    X, y = cancer
    mask = np.arange(30) < 10
    attack = clone(attack).set_params(
        estimator=LogisticRegression(),
        mask=mask,
        constraints=FeatureConstraints.from_frame(X),
    )
    result = attack.fit(X, y).run(X[:30], y[:30])
    moved = result.X_adv != X[:30]
    assert moved[:, :10].any() and not moved[:, 10:].any()


def test_masks_that_fit_nothing_are_refused(cancer):
    X, y = cancer
    for mask in (np.zeros(30, bool), np.ones(29, bool), np.ones(30)):
        with pytest.raises(ValueError, match="^mask must"):
            FastGradientMethod(LogisticRegression(), mask=mask).fit(X, y)


@pytest.mark.parametrize(
    "attack",
    [SquareAttack(), HopSkipJump(), ProjectedGradientDescent(), TreeCoordinateAttack()],
    ids=lambda attack: type(attack).__name__,
)
def test_where_nothing_can_change_there_is_an_error(attack):
    X = pd.DataFrame({"job": ["a", "b"] * 20, "owner": [True, True, False, False] * 10})
    y = (X["job"] == "a") ^ X["owner"]
    victim = make_pipeline(OneHotEncoder(), DecisionTreeClassifier())
    attack = clone(attack).set_params(estimator=victim)
    with pytest.raises(ValueError, match="every column.*job.*GreedyFeatureAttack"):
        attack.fit(X, y)
    constraints = FeatureConstraints.from_frame(X)
    for name in X:
        constraints.set(name, mutable=False)
    with pytest.raises(ValueError, match="constraints hold every column fixed"):
        attack.set_params(constraints=constraints).fit(X, y)


def test_numbers_behind_an_encoder_have_no_gradient():
    X = pd.DataFrame({"rooms": [1, 2, 3, 4] * 20})
    victim = make_pipeline(OneHotEncoder(), LogisticRegression())
    with pytest.raises(NoGradientError, match="no answer.*slope"):
        ProjectedGradientDescent(victim, eps=1).fit(X, X["rooms"] > 2).run(X)


def test_eps_by_name_and_in_units_of_the_data(frame):
    X, y, pipeline = frame
    attack = FastGradientMethod(pipeline, eps={"income": 10.0}).fit(X, y)
    X_adv = attack.run(X, y).X_adv
    assert 0 < (X_adv["income"] - X["income"]).abs().max() <= 10 + 1e-9
    assert (X_adv["age"] == X["age"]).all()
    attack = SquareAttack(pipeline, eps=0.1, eps_unit="range", max_queries=50).fit(X, y)
    income = X["income"]
    reach = 0.1 * (income.max() - income.min())
    X_adv = attack.run(X, y).X_adv
    assert reach * 0.9 < (X_adv["income"] - income).abs().max() <= reach + 1e-9
    with pytest.raises(ValueError, match="unknown column 'incme'.*'income'"):
        FastGradientMethod(pipeline, eps={"incme": 1}).fit(X, y)


def test_an_eps_that_cannot_matter_warns_once():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = 1000 * X[["worst area", "mean area"]]
    victim = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.warns(UserWarning, match="eps=0.1.*'mean area'.*usable") as seen:
        FastGradientMethod(victim, eps=0.1).fit(X, y).run(X[:5])
    assert len(seen) == 1
    FastGradientMethod(victim, eps=0.1, eps_unit="range").fit(X, y)


def test_an_eps_below_the_step_of_whole_numbers_warns():
    X, y = load_digits(return_X_y=True, as_frame=True)
    X, victim = X[["pixel_0_2", "pixel_0_3"]].astype(int), DecisionTreeClassifier()
    flat = FunctionTransformer(lambda images: images.reshape(len(images), -1))
    for rows, eps, usable in (
        (X, 0.5, "'pixel_0_2'.* 2 is usable"),
        (X, {"pixel_0_3": 0.5}, "'pixel_0_3'.* 2 is usable"),
        (X.to_numpy(), 0.5, "eps of 1 or more"),
        (X.to_numpy().reshape(-1, 1, 1, 2), 0.5, "eps of 1 or more"),
        (X.assign(large=1e6 * X["pixel_0_2"]), 0.5, "'large'.* 1.6e[+]06 is usable"),
    ):
        attack = SquareAttack(victim, eps=eps, norm="inf", max_queries=5)
        if np.ndim(rows) > 2:
            attack.set_params(estimator=make_pipeline(flat, victim))
        with pytest.warns(UserWarning, match=usable) as seen:
            attack.fit(rows, y)
        assert len(seen) == 1
    SquareAttack(victim, eps=1).fit(X, y)
    SquareAttack(victim, eps={"large": 1e5}).fit(rows, y)
    SquareAttack(victim, eps=0.5).fit(X.astype(float), y)


def test_norms_by_name(cancer):
    X, y = cancer
    for attack, name, norm in (
        (FastGradientMethod(eps=0.1), "inf", np.inf),
        (ProjectedGradientDescent(eps=0.5), "l2", 2),
        (FastMinimumNorm(), "l1", 1),
        (CarliniWagner(max_iter=20), "l2", 2),
        (HopSkipJump(max_queries=50), "inf", np.inf),
    ):
        attack.set_params(estimator=LogisticRegression())
        named, number = (
            clone(attack).set_params(norm=n).fit(X, y).run(X[:10]) for n in (name, norm)
        )
        np.testing.assert_array_equal(named.X_adv, number.X_adv)
        np.testing.assert_array_equal(named.distance, number.distance)
    with pytest.raises(ValueError, match="'norm'.*inf.*l2"):
        CarliniWagner(LogisticRegression(), norm="l3").fit(X, y)


# What all attacks share --------------------------------------------------------------

KINDS = [type(attack) for attack in EVASION]
SHARED = [
    "estimator",
    "goal",
    "target",
    "confidence",
    "eps_unit",
    "bounds",
    "mask",
    "constraints",
    "max_queries",
    "max_total_queries",
    "batch_size",
    "n_jobs",
    "random_state",
    "verbose",
]


@pytest.mark.parametrize("name", SHARED)
def test_shared_parameters_are_documented_once_and_alike(name):
    ClassDoc = pytest.importorskip("numpydoc.docscrape").ClassDoc
    of_base = {entry.name: entry for entry in ClassDoc(EvasionAttack)["Parameters"]}
    assert len(" ".join(of_base[name].desc)) > 50
    have = [kind for kind in KINDS if name in signature(kind).parameters]
    assert len(have) > 2
    assert_docstring_consistency(
        have,
        include_params=[name],
        ignore_types=(name,),  # as defaults differ
        # A sentence may follow.
        descr_regex_pattern=r"^[^;]*; see :class:`EvasionAttack`\.( .*)?$",
    )
    texts = {
        " ".join(entry.desc).split(".")[0]
        for kind in have
        for entry in ClassDoc(kind)["Parameters"]
        if entry.name == name
    }
    assert len(texts) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_its_constraints_and_no_internals_are_documented(kind):
    assert set(kind._parameter_constraints) == set(signature(kind).parameters)
    for internal in ("box_ :", "batch_size_ :", "row_shape_ :"):
        assert internal not in kind.__doc__


class Failing(LogisticRegression):
    """A service that fails for some rows."""

    fails = True

    def predict(self, X):
        answer = super().predict(X).astype(float)
        answer[self.fails & (np.asarray(X)[:, 0] > 0.55)] = np.nan
        return answer

    def predict_proba(self, X):
        answer = super().predict_proba(X)
        answer[self.fails & (np.asarray(X)[:, 0] > 0.55)] = np.nan
        return answer


@pytest.mark.parametrize(
    "attack",
    [
        SquareAttack(eps=0.2, max_queries=40),
        RayS(max_queries=60),
        AutoAttack(eps=0.2, max_iter=5, square_queries=10),
        GreedyFeatureAttack(max_queries=40),
    ],
)
def test_rows_of_bad_answers_are_skipped_and_said(attack):
    X, y = load_breast_cancer(return_X_y=True)
    X = minmax_scale(X)
    victim = Failing().fit(X, y)
    good, rows = X[X[:, 0] < 0.5], X[:12]
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim)).fit(good)
    with pytest.raises(BadAnswerError, match="for row"):
        attack.run(rows, y[:12])
    result = attack.run(rows, y[:12], on_bad_answer="skip")
    skipped = result.skipped
    assert skipped.any() and not skipped.all() and "skipped_rows" in repr(result)
    assert skipped[rows[:, 0] > 0.55].all()  # at least the question about the row itself
    assert not (result.success | result.correct)[skipped].any()
    np.testing.assert_array_equal(result.X_adv[skipped], rows[skipped])
    left = result.select(~skipped)
    np.testing.assert_array_equal(victim.predict(left.X_adv), left.y_pred)
    assert result.robust_accuracy == left.correct.mean()
    assert result.to_frame()["skipped"].tolist() == skipped.tolist()
    # The others are as they are without the bad ones.
    alone = attack.run(rows[~skipped], y[:12][~skipped])
    np.testing.assert_allclose(alone.X_adv, left.X_adv)
    victim.fails = False
    again = attack.run(rows, y[:12], resume=result)
    assert not again.skipped.any() and again.finished.all()


def test_a_regressor_that_fails_for_some_rows_is_skipped_there():
    X, y = load_breast_cancer(return_X_y=True)
    X = minmax_scale(X)

    class FailingRidge(Ridge):
        def predict(self, X):
            answer = super().predict(X)
            return np.where(np.asarray(X)[:, 0] > 0.55, np.nan, answer)

    victim = RegressionVictim(FrozenEstimator(FailingRidge().fit(X, y)), delta=0.1)
    attack = SquareAttack(victim, eps=0.1, max_queries=20).fit(X[X[:, 0] < 0.5])
    result = attack.run(X[:12], on_bad_answer="skip")
    assert result.skipped[X[:12, 0] > 0.55].all() and not result.skipped.all()
    assert result.success[~result.skipped].any()
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        attack.run(X[:12], on_bad_answer="ignore")


def test_errors_from_before_do_not_look_like_small_changes():
    X, y = load_iris(return_X_y=True)
    victim = FrozenEstimator(LogisticRegression(max_iter=500).fit(X, y))
    y = np.where(np.arange(len(y)) % 3 == 0, (y + 1) % 3, y)  # a third is wrong already
    result = DeepFool(victim).fit(X).run(X, y)
    right = result.y_before == y
    assert (result.distance[~right] == 0).all() and (~right).sum() > 40
    shown = f"median_distance={np.median(result.distance[right & result.success]):.4g} "
    assert shown in repr(result)


@pytest.mark.parametrize("X", [[["good film"], ["bad film"]], [["a", 1], ["b", 2]]])
def test_texts_say_where_to_go(X):
    attack = ProjectedGradientDescent(LogisticRegression())
    with pytest.raises(ValueError, match=r"(?s)could not convert .* DataFrame may hold"):
        attack.fit(np.array(X, dtype=object), [0, 1])


@pytest.mark.parametrize("whole", ["score", "masking", "display", "training"])
def test_ctrl_c_goes_through_what_needs_all_rows(whole, monkeypatch):
    """Only `run` itself hands out a part of the rows."""
    X = np.random.RandomState(0).uniform(size=(60, 4))
    y = (X[:, 0] > 0.5).astype(int)
    model = LogisticRegression().fit(X, y)
    attack = ProjectedGradientDescent(eps=0.1, max_iter=1, batch_size=1)
    n_chunks, steps = [], ProjectedGradientDescent._attack

    def stopped(self, state):
        n_chunks.append(len(state.x_adv))
        if len(n_chunks) > 1:
            raise KeyboardInterrupt
        return steps(self, state)

    monkeypatch.setattr(ProjectedGradientDescent, "_attack", stopped)
    with pytest.raises(KeyboardInterrupt):
        if whole == "score":
            robust_accuracy_scorer(attack)(model, X, y)
        elif whole == "masking":
            gradient_masking_report(model, X, y, attack, black_box=False)
        elif whole == "display":
            AdversarialExamplesDisplay.from_estimator(
                model, X, y, attack=attack, image_shape=(2, 2)
            )
        else:
            AdversarialTrainingClassifier(LogisticRegression(), attack).fit(X, y)
    assert len(n_chunks) == 2


@pytest.mark.long
@pytest.mark.parametrize("attack", [ProjectedGradientDescent(eps=0.1), SquareAttack()])
def test_what_a_chunk_held_goes_at_once(digits, attack, monkeypatch):
    victim, X, y = digits
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim), batch_size=8)
    whole = clone(attack).set_params(batch_size=1000).fit(X).run(X[:70], y[:70])
    opened, still_there = [], []

    def open_access(self, chunk):
        access = EvasionAttack._open_access(self, chunk)
        still_there.append(sum(one() is not None for one in opened))
        opened.append(weakref.ref(access))
        return access

    attack.fit(X)
    monkeypatch.setattr(type(attack), "_open_access", open_access)
    monkeypatch.setattr("sklearn_advsec.evasion._base._CHUNK_BYTES", 0)
    gc.collect()
    gc.disable()
    try:
        result = attack.run(X[:70], y[:70])
    finally:
        gc.enable()
    assert len(opened) == 9 and max(still_there) <= 1  # the last, of which it is told
    np.testing.assert_allclose(result.X_adv, whole.X_adv, atol=1e-9)
    np.testing.assert_array_equal(result.y_pred, whole.y_pred)
    np.testing.assert_array_equal(result.rows, np.arange(70))
    assert np.shares_memory(result.X, X)  # and is no copy
    assert not result.X_adv.flags.owndata  # joined where it lay
