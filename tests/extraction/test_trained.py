"""Extraction by training, the query oracle, and what victims do about it."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.evasion import FastGradientMethod, TransferAttack
from sklearn_advsec.exceptions import BadAnswerError, QueryBudgetExceeded
from sklearn_advsec.extraction import (
    ActiveExtraction,
    CopycatCNN,
    EquationSolving,
    ExtractionDetected,
    JacobianSubstitute,
    KnockoffNets,
    LabelsOnly,
    PathFinding,
    PRADADetector,
    ReLUExtraction,
    ReverseSigmoid,
    RoundedProbabilities,
    TopKProbabilities,
)
from sklearn_advsec.extraction._surrogates import train
from sklearn_advsec.extraction._victim import decimals_of, soft_targets
from sklearn_advsec.inspection import ExtractionCurveDisplay
from sklearn_advsec.metrics import fidelity_scorer


class Service:
    """A remote victim without `fit`: counts its rows, remembers them, and may fail."""

    def __init__(self, model, *, scores=False, fail_after=None, error=ConnectionError):
        self.model = model
        self.seen = []
        self.fail_after = fail_after
        self.error = error
        if scores:
            self.predict_proba = lambda X: self._ask("predict_proba", X)

    def predict(self, X):
        return self._ask("predict", X)

    def _ask(self, method, X):
        if self.fail_after is not None and len(self.seen) + len(X) > self.fail_after:
            raise self.error("the service is down")
        self.seen += [np.asarray(row).tobytes() for row in np.asarray(X)]
        return getattr(self.model, method)(X)

    def __sklearn_clone__(self):
        return self


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, y, LogisticRegression(max_iter=500).fit(X, y)


ATTACKS = {
    "knockoff": lambda v, **p: KnockoffNets(v, surrogate=GaussianNB(), **p),
    "adaptive knockoff": lambda v, **p: KnockoffNets(
        v, surrogate=GaussianNB(), sampling="adaptive", n_rounds=4, n_groups=4, **p
    ),
    "copycat": lambda v, **p: CopycatCNN(v, surrogate=GaussianNB(), **p),
    "uncertainty": lambda v, **p: ActiveExtraction(v, surrogate=GaussianNB(), **p),
    "k_center": lambda v, **p: ActiveExtraction(
        v, surrogate=GaussianNB(), strategy="k_center", **p
    ),
    "adaptive": lambda v, **p: ActiveExtraction(
        v, surrogate=GaussianNB(), strategy="adaptive", uniform_share=0.3, **p
    ),
    "jacobian": lambda v, **p: JacobianSubstitute(
        v, surrogate=LogisticRegression(max_iter=1000), **p
    ),
}


# The oracle -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_budget_is_exact_and_no_row_is_sent_twice(iris, name):
    X, _, model = iris
    X = X[:50:5] if name == "jacobian" else X
    X = np.vstack([X, load_iris().data[60:150:9], X[:5]])  # with repeated rows
    service = Service(model)
    attack = ATTACKS[name](service, max_queries=20 if name != "jacobian" else 35)
    attack.fit(X)
    assert len(service.seen) == attack.n_queries_ == attack.max_queries or (
        len(service.seen) == attack.n_queries_ == len(np.unique(X, axis=0))
    )
    assert len(set(service.seen)) == len(service.seen)
    before = len(service.seen)
    attack.predict(X)
    assert len(service.seen) == before  # the copy answers


@pytest.mark.parametrize("name", ATTACKS)
def test_warm_start_keeps_what_was_paid_for(iris, name):
    X, _, model = iris
    X = X[::10] if name == "jacobian" else X
    service = Service(model)
    attack = ATTACKS[name](service, max_queries=20, warm_start=True).fit(X)
    paid = list(service.seen)
    attack.set_params(max_queries=30).fit(X)
    assert service.seen[: len(paid)] == paid
    assert len(service.seen) == len(set(service.seen)) == attack.n_queries_ == 30


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt])
def test_failing_victim_loses_nothing(iris, error):
    X, _, model = iris
    service = Service(model, scores=True, fail_after=47, error=error)
    attack = KnockoffNets(service, batch_size=10, warm_start=True)
    with pytest.raises(error):
        attack.fit(X)
    assert attack.n_queries_ == len(attack.query_log_) == len(service.seen) == 40
    # Answered ten by ten: a product of 40 rows may add in another order.
    expected = model.predict_proba(attack.query_log_.X)
    np.testing.assert_allclose(attack.query_log_.answers, expected, rtol=1e-12)
    with pytest.raises(Exception, match="not fitted"):
        attack.predict(X)
    service.fail_after = None
    attack.fit(X)  # goes on from there, and sends nothing twice
    assert len(service.seen) == len(set(service.seen)) == len(np.unique(X, axis=0))
    assert attack.fidelity(X) > 0.95


def test_query_log_is_kept_only_where_it_is_wanted(iris):
    X, _, model = iris
    attack = CopycatCNN(FrozenEstimator(model), surrogate=GaussianNB(), max_queries=30)
    assert not hasattr(attack.fit(X), "query_log_")
    attack.set_params(query_log=True).fit(X)
    log = attack.query_log_
    assert len(log) == 30 and log.kind == "label"
    np.testing.assert_array_equal(log.answers, model.predict(log.X))
    again = pickle.loads(pickle.dumps(attack))
    np.testing.assert_array_equal(again.query_log_.X, log.X)
    np.testing.assert_array_equal(again.predict(X), attack.predict(X))


def test_progress_is_printed_where_it_is_wanted(iris, capsys):
    X, _, model = iris
    attack = CopycatCNN(FrozenEstimator(model), surrogate=GaussianNB(), batch_size=1)
    attack.fit(X)
    assert capsys.readouterr().out == ""
    attack.set_params(verbose=1, max_queries=140).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"[CopycatCNN] {n} of 140 queries" for n in (1, 101)]


def test_remote_victims(iris):
    X, _, model = iris
    attack = CopycatCNN(Service(model), surrogate=GaussianNB()).fit(X)
    np.testing.assert_array_equal(attack.classes_, model.classes_)  # seen in answers
    assert attack.estimator_ is attack.estimator
    assert clone(attack).estimator is attack.estimator

    class Scores:
        def predict_proba(self, X):
            return model.predict_proba(X)

    assert EquationSolving(Scores()).fit(X).fidelity(X) == 1.0
    with pytest.raises(TypeError, match="neither predict_proba"):
        KnockoffNets(Service(model), knowledge="score").fit(X)


def test_data_frames_with_categories():
    rng = np.random.RandomState(0)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=200),
            "count": rng.randint(0, 9, size=200),
            "colour": pd.Categorical(rng.choice(["red", "green"], 200)),
        }
    )
    y = np.where((X["colour"] == "red") & (X["size"] > 0), "yes", "no")
    encode = make_column_transformer(
        (OneHotEncoder(), ["colour"]), remainder="passthrough"
    )
    victim = make_pipeline(encode, RandomForestClassifier(20, random_state=0)).fit(X, y)
    surrogate = make_pipeline(encode, RandomForestClassifier(20))
    attack = KnockoffNets(FrozenEstimator(victim), surrogate=surrogate, max_queries=100)
    attack.set_params(warm_start=True).fit(X)
    assert attack.fidelity(X) > 0.9
    assert attack.extraction_report(X, n_uniform=200)["R_unif"] < 0.4
    more = X.iloc[::-1].assign(colour=X["colour"].cat.add_categories("blue"))
    attack.set_params(max_queries=150).fit(more)
    assert attack.n_queries_ == 150
    with pytest.raises(ValueError, match=r"colour.*something else"):
        EquationSolving(FrozenEstimator(victim)).fit(X)


def test_report_agrees_with_its_definition(iris):
    X, _, model = iris
    attack = CopycatCNN(FrozenEstimator(model), surrogate=GaussianNB(), max_queries=20)
    attack.fit(X)
    report = attack.extraction_report(X, n_uniform=500, random_state=3)
    differs = attack.predict(X) != model.predict(X)
    assert report["R_test"] == pytest.approx(differs.mean())
    assert attack.fidelity(X) == pytest.approx(1 - differs.mean())
    rng = np.random.RandomState(3)
    rows = rng.uniform(size=(500, 4)) * np.ptp(X, axis=0) + X.min(axis=0)
    differs_there = attack.predict(rows) != model.predict(rows)
    assert report["R_unif"] == pytest.approx(differs_there.mean())
    distance = np.abs(attack.predict_proba(X) - model.predict_proba(X)).sum(axis=1) / 2
    np.testing.assert_allclose(report["R_test_TV"], distance.mean())
    weight = differs.astype(float) + 1e-9
    assert attack.fidelity(X, sample_weight=weight) < 0.01


def test_scorer_and_grid_search_over_attack_and_defense(iris):
    X, y, model = iris
    attack = KnockoffNets(
        RoundedProbabilities(LogisticRegression(max_iter=500)),
        surrogate=GaussianNB(),
        max_queries=60,
    )
    grid = GridSearchCV(
        attack,
        {
            "estimator": [
                LabelsOnly(LogisticRegression(max_iter=500)),
                TopKProbabilities(LogisticRegression(max_iter=500)),
            ],
            "max_queries": [60],
        },
        scoring={"fidelity": fidelity_scorer, "accuracy": "accuracy"},
        refit="fidelity",
        cv=2,
    ).fit(X, y)
    assert grid.best_score_ > 0.8
    scores = cross_validate(attack, X, y, scoring=fidelity_scorer, cv=3)["test_score"]
    assert (scores > 0.8).all()
    assert repr(pickle.loads(pickle.dumps(fidelity_scorer))) == "fidelity_scorer"


# Training -------------------------------------------------------------------------------


def test_logits_are_never_taken_for_probabilities(iris):
    X, _, model = iris

    class Logits(Service):
        def predict_proba(self, X):  # as a skorch net with a criterion of its own does
            return self.model.decision_function(X)

    attack = KnockoffNets(Logits(model), surrogate=LogisticRegression(max_iter=5000))
    for kind in ("auto", "probability"):
        with pytest.raises(BadAnswerError, match="predict_proba returned"):
            attack.set_params(score_kind=kind).fit(X)
    attack.set_params(score_kind="logit").fit(X)
    assert attack.score_kind_ == "logit"
    assert attack.fidelity(X) > 0.95
    assert attack.extraction_report(X)["R_test_TV"] < 0.1


@pytest.mark.parametrize("attack", [ActiveExtraction, EquationSolving, KnockoffNets])
@pytest.mark.parametrize("batch", [1, 2])
def test_bad_answers_are_refused_and_what_was_paid_before_them_is_kept(
    iris, attack, batch
):
    X, _, model = iris
    bad = {
        "sums to two": lambda proba: 2 * proba,
        "above one": lambda proba: proba + [1, -1, 0],
        "too wide": lambda proba: np.hstack([proba, proba]) / 2,
        "narrower": lambda proba: proba[:, :2],
        "nan": lambda proba: proba * np.nan,
    }

    for spoil in bad.values():
        sent = []

        class Service:
            classes_ = model.classes_

            def predict_proba(self, X, spoil=spoil, sent=sent):
                sent.append(len(X))
                proba = model.predict_proba(X)
                return spoil(proba) if len(sent) == batch else proba

        thief = attack(Service(), batch_size=4)
        with pytest.raises(BadAnswerError, match="estimator"):
            thief.fit(X)
        assert len(thief.query_log_) == sum(sent[: batch - 1])
        assert not hasattr(thief, "copy_")


def test_a_victim_that_says_nowhere_how_many_classes_it_has_keeps_to_what_it_said(iris):
    X, _, model = iris

    class Service:
        n_calls = 0

        def predict_proba(self, X):
            self.n_calls += 1
            proba = model.predict_proba(X)
            return proba if self.n_calls < 3 else np.hstack([proba, proba]) / 2

    attack = KnockoffNets(Service(), batch_size=10)
    with pytest.raises(BadAnswerError, match=r"shape \(6,\)"):
        attack.fit(X)
    assert attack.n_queries_ == 20


def test_a_probability_is_wanted_of_a_victim_that_has_none():
    X, y = load_iris(return_X_y=True)
    attack = KnockoffNets(FrozenEstimator(LinearSVC().fit(X, y)))
    with pytest.raises(ValueError, match="estimator has no predict_proba"):
        attack.set_params(score_kind="probability").fit(X)
    assert not hasattr(attack, "n_queries_")  # before anything was asked


def test_a_decision_function_is_no_probability_even_where_it_looks_like_one():
    X, y = load_iris(return_X_y=True)
    X, y = X[50:], y[50:]
    model = LinearSVC(C=1e-3).fit(X, y)
    sure = X[(model.decision_function(X) > 0) & (model.decision_function(X) < 1)]
    assert len(sure) > 10
    attack = KnockoffNets(FrozenEstimator(model), surrogate=GaussianNB()).fit(X)
    assert attack.score_kind_ == "logit"
    attack = EquationSolving(FrozenEstimator(model)).fit(sure)
    np.testing.assert_allclose(attack.coef_, model.coef_)
    np.testing.assert_allclose(attack.intercept_, model.intercept_)


def test_one_probability_for_two_classes_is_refused(iris):
    X, y, _ = iris
    model = LogisticRegression().fit(X[:100], y[:100])

    class First(Service):
        def predict_proba(self, X):
            return self.model.predict_proba(X)[:, 1]

    with pytest.raises(ValueError, match="one column per class"):
        KnockoffNets(First(model)).fit(X[:100])


def test_targets_of_probabilities_and_of_logits_and_temperature():
    logits = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]])
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    soft = soft_targets(logits, "logit", temperature=4.0)
    np.testing.assert_allclose(soft_targets(proba, "probability", 4.0), soft)
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    assert decimals_of(proba.round(3)) == 3
    assert decimals_of(proba) is None
    assert decimals_of(np.array([[1e-9, 1 - 1e-9]])) is None  # sure, and not rounded


def test_soft_labels_are_learned_by_cross_entropy():
    # The minimum of the cross-entropy on the victim's own probabilities is the victim.
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500, C=0.1).fit(X, y)
    copy = train(
        LogisticRegression(C=1e6, solver="newton-cg", max_iter=500, tol=1e-8),
        X,
        model.predict_proba(X),
        model.classes_,
        np.random.RandomState(0),
    )
    np.testing.assert_allclose(copy.predict_proba(X), model.predict_proba(X), atol=2e-3)


@pytest.mark.long
def test_skorch_surrogates_take_any_labels_and_soft_ones():
    from skorch import NeuralNetClassifier

    X, y = load_iris(return_X_y=True)
    names = np.array(["b", "c", "a"])
    victim = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, names[y])
    net = NeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=4,
        module__out_features=3,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.05,
        max_epochs=30,
        verbose=0,
    )
    state = torch.get_rng_state()
    for knowledge in ("score", "label"):
        attack = KnockoffNets(
            FrozenEstimator(victim), surrogate=net, knowledge=knowledge, random_state=1
        ).fit(X)
        assert attack.fidelity(X) > 0.9
        assert set(attack.predict(X)) <= set("abc")
        again = clone(attack).fit(X)
        np.testing.assert_array_equal(attack.predict_proba(X), again.predict_proba(X))
    assert torch.equal(torch.get_rng_state(), state)
    view = differentiable.view(attack)
    found = view.logits(torch.as_tensor(X, dtype=view.dtype)).argmax(1).numpy()
    np.testing.assert_array_equal(np.asarray(view.classes)[found], attack.predict(X))


def test_one_label_only_gives_a_constant_copy_and_a_warning(iris):
    X, y, model = iris
    attack = CopycatCNN(FrozenEstimator(model), surrogate=GaussianNB())
    with pytest.warns(UserWarning, match="the same label"):
        attack.fit(X[y == 0])
    assert (attack.predict(X) == 0).all()
    assert attack.predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match="two classes or more"):
        JacobianSubstitute(FrozenEstimator(model)).fit(X[y == 0])


@pytest.mark.long
def test_active_beats_random_on_digits():
    X, y = load_digits(return_X_y=True)
    victim = FrozenEstimator(SVC(random_state=0).fit(X[:900], y[:900]))
    fidelity = {"random": [], "uncertainty": []}
    for strategy, found in fidelity.items():
        for seed in range(2):
            attack = ActiveExtraction(
                victim,
                surrogate=SVC(),
                strategy=strategy,
                max_queries=150,
                random_state=seed,
            )
            found.append(attack.fit(X[:900]).fidelity(X[900:]))
    assert np.mean(fidelity["uncertainty"]) > np.mean(fidelity["random"])


def test_k_center_is_farthest_first():
    X = np.array([[0.0], [0.1], [5.0], [10.0], [4.0]])
    victim = Service(LogisticRegression().fit(X, X[:, 0] > 3))
    attack = ActiveExtraction(
        victim,
        surrogate=GaussianNB(),
        strategy="k_center",
        max_queries=3,
        initial_share=1.0,
        query_log=True,
    ).fit(X)
    chosen = attack.query_log_.X[:, 0]
    rest = [[abs(c - x) for c in chosen[:i]] for i, x in enumerate(chosen) if i]
    # Each is the farthest from those before it.
    for i, distances in enumerate(rest, start=1):
        farthest = max(min(abs(c - x) for c in chosen[:i]) for x in X[:, 0])
        assert min(distances) == farthest


def test_adaptive_knockoff_takes_labels_of_the_pool_as_groups(iris):
    X, y, model = iris
    attack = KnockoffNets(
        FrozenEstimator(model),
        surrogate=GaussianNB(),
        sampling="adaptive",
        max_queries=60,
    ).fit(X, y)
    assert attack.policy_.shape == (3,)
    np.testing.assert_allclose(attack.policy_.sum(), 1)
    assert attack.n_queries_ == 60


# Papernot's substitute ------------------------------------------------------------------


def test_jacobian_step_goes_along_the_gradient_of_the_victims_label(iris):
    X, _, model = iris
    seed = X[::10]
    surrogate = LogisticRegression(max_iter=500)
    attack = JacobianSubstitute(
        Service(model), surrogate=surrogate, n_rounds=1, query_log=True
    ).fit(seed)
    rows = attack.query_log_.X
    labels = model.predict(seed)
    first = clone(surrogate).fit(seed, labels)
    proba = first.predict_proba(seed)
    # Written out: d log p_k / dx = w_k - sum_j p_j w_j for a softmax model.
    gradient = first.coef_[labels] - proba @ first.coef_
    np.testing.assert_array_equal(rows[: len(seed)], seed)
    np.testing.assert_allclose(rows[len(seed) :], seed + 0.1 * np.sign(gradient))


def test_flip_every_and_reservoir(iris):
    X, _, model = iris
    common = {"surrogate": LogisticRegression(max_iter=1000), "query_log": True}
    flipped = JacobianSubstitute(
        FrozenEstimator(model), n_rounds=2, flip_every=1, **common
    ).fit(X[::10])
    assert flipped.n_queries_ <= 4 * 15
    small = JacobianSubstitute(
        FrozenEstimator(model), n_rounds=5, reservoir=4, reservoir_after=1, **common
    ).fit(X[::10])
    assert small.n_queries_ <= 2 * 15 + 4 * 4
    assert small.n_rounds_ == 5


def test_several_surrogates(iris):
    X, _, model = iris
    surrogates = [LogisticRegression(max_iter=1000), GaussianNB()]
    attack = JacobianSubstitute(
        FrozenEstimator(model), surrogate=surrogates, n_rounds=3, step_size=0.5
    ).fit(X[::8])
    assert attack.holdout_agreement_.shape == (2,)
    best = attack.holdout_agreement_.argmax()
    assert type(attack.copy_) is type(surrogates[best])
    attack.set_params(select="all").fit(X[::8])
    members = [copy.predict_proba(X) for copy in attack.surrogates_]
    np.testing.assert_allclose(attack.predict_proba(X), np.mean(members, axis=0))
    view = differentiable.view(attack)
    np.testing.assert_allclose(
        view.predict_proba(torch.as_tensor(X)).numpy(), attack.predict_proba(X), atol=1e-9
    )


def test_examples_made_on_the_copy_transfer():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    victim = LogisticRegression(max_iter=500).fit(X[:900], y[:900])
    substitute = JacobianSubstitute(
        FrozenEstimator(victim),
        surrogate=LogisticRegression(max_iter=1000),
        n_rounds=3,
        flip_every=1,
    ).fit(X[900:1000])
    X, y = X[1000:1300], y[1000:1300]
    made = FastGradientMethod(FrozenEstimator(substitute), eps=0.3).fit(X).transform(X)
    transfer = TransferAttack(
        FrozenEstimator(victim),
        surrogate=FrozenEstimator(substitute),
        attack=FastGradientMethod(eps=0.3, bounds=(0, 1)),
    ).fit(X, y)
    # With the true labels it is no weaker than what goes against the copy's own answers.
    assert transfer.score(X, y) <= victim.score(made, y) + 0.02
    noise = np.random.RandomState(0).choice([-0.3, 0.3], X.shape)
    noisy = np.clip(X + noise, 0, 1)
    assert victim.score(made, y) < victim.score(noisy, y) - 0.3


# What victims do ------------------------------------------------------------------------


def test_wrappers_change_what_they_say_and_nothing_else(iris):
    X, y, model = iris
    proba = model.predict_proba(X)
    rounded = RoundedProbabilities(FrozenEstimator(model), decimals=1).fit(X)
    np.testing.assert_array_equal(rounded.predict_proba(X), proba.round(1))
    top = TopKProbabilities(FrozenEstimator(model), k=1).fit(X).predict_proba(X)
    np.testing.assert_allclose(top.max(axis=1), proba.max(axis=1))
    np.testing.assert_allclose(top.sum(axis=1), 1)
    assert (np.sort(top, axis=1)[:, 0] == np.sort(top, axis=1)[:, 1]).all()
    bent = ReverseSigmoid(FrozenEstimator(model)).fit(X)
    s = 1 / (1 + np.exp(-0.2 * np.log(proba / (1 - proba))))
    expected = np.clip(proba - 0.9 * (s - 0.5), 0, None)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(bent.predict_proba(X), expected, atol=1e-9)
    labels = LabelsOnly(FrozenEstimator(model)).fit(X)
    assert not hasattr(labels, "predict_proba")
    assert not hasattr(labels, "decision_function")
    for served in (rounded, bent, labels):
        np.testing.assert_array_equal(served.predict(X), model.predict(X))
        assert not hasattr(served, "apply")


def test_reverse_sigmoid_stops_equation_solving_but_not_labels(iris):
    X, _, model = iris
    served = ReverseSigmoid(FrozenEstimator(model)).fit(X)
    with pytest.warns(UserWarning, match="not what the equations take it for"):
        by_scores = EquationSolving(FrozenEstimator(served)).fit(X).fidelity(X)
    by_labels = EquationSolving(FrozenEstimator(served), knowledge="label").fit(X)
    assert by_scores < 0.9 < by_labels.fidelity(X)


def test_prada_sees_line_search_and_refuses():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    net = MLPClassifier(16, max_iter=300, tol=1e-3, random_state=0)
    victim = PRADADetector(net).fit(X[:900], y[:900])
    victim.predict(X[900:])
    assert victim.n_seen_ == len(X) - 900 and not victim.alarm_
    victim.set_params(on_alarm="refuse").reset()
    attack = ReLUExtraction(FrozenEstimator(victim), batch_size=20)
    with pytest.raises(ExtractionDetected, match="look like an extraction"):
        attack.fit(X[900:])
    assert victim.alarm_ and victim.statistic_ < victim.threshold
    assert 0 < attack.n_queries_ <= victim.alarm_at_ + 20
    again = pickle.loads(pickle.dumps(victim))
    assert again.alarm_at_ == victim.alarm_at_
    assert not hasattr(clone(victim), "estimator_")


def test_prada_watches_gaps_and_sparse_rows_and_refuses_text(iris):
    X, y, _ = iris
    gaps = X.copy()
    gaps[3, 1] = np.nan
    gaps[5] = np.nan  # has no column in common with any
    full = PRADADetector(DecisionTreeClassifier(random_state=0), min_distances=3)
    victim = clone(full).fit(gaps, y)
    victim.predict_proba(gaps)
    assert victim.n_seen_ == len(X) and np.isfinite(victim.statistic_)
    dense, sparse = full.fit(X, y), clone(full).fit(csr_matrix(X), y)
    dense.predict(X)
    sparse.predict(csr_matrix(X))
    assert sparse.statistic_ == dense.statistic_
    frame = pd.DataFrame({"a": ["x", "z"] * 75})
    with pytest.raises(ValueError, match="takes numbers only"):
        PRADADetector(make_pipeline(OneHotEncoder(), LogisticRegression())).fit(frame, y)


def test_curve_display(iris):
    X, _, model = iris
    service = Service(model)
    display = ExtractionCurveDisplay.from_estimator(
        CopycatCNN(service, surrogate=GaussianNB()), X, budgets=[80, 20, 40], name="copy"
    )
    np.testing.assert_array_equal(display.n_queries, [20, 40, 80])
    n_measured = 3 * len(X)
    assert len(service.seen) == 80 + n_measured  # the largest budget is paid once
    assert display.ax_.get_xlabel() == "Queries"
    exact = ExtractionCurveDisplay.from_estimator(
        EquationSolving(FrozenEstimator(model)), X, budgets=[3, 5], ax=display.ax_
    )
    assert np.isnan(exact.fidelity[0]) and exact.fidelity[1] == 1.0
    assert len(display.ax_.lines) == 2


def test_clear_errors(iris):
    X, y, model = iris
    with pytest.raises(ValueError, match="requires y"):
        KnockoffNets(LogisticRegression()).fit(X)
    with pytest.raises(Exception, match="not fitted"):
        KnockoffNets(FrozenEstimator(LogisticRegression())).fit(X)
    with pytest.raises(ValueError, match="NaN"):
        KnockoffNets(FrozenEstimator(model)).fit(np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="empty list"):
        JacobianSubstitute(FrozenEstimator(model), surrogate=[]).fit(X)
    with pytest.raises(QueryBudgetExceeded):
        JacobianSubstitute(FrozenEstimator(model), max_queries=5).fit(X)
    with pytest.raises(ValueError, match="one class only"):
        PathFinding(RandomForestClassifier(1)).fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="knowledge"):
        KnockoffNets(FrozenEstimator(model), knowledge="all").fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack = CopycatCNN(FrozenEstimator(model), surrogate=GaussianNB()).fit(X)
    with pytest.raises(ValueError, match="features"):
        attack.predict(X[:, :2])


def test_the_scorer_and_the_display_need_no_torch():
    code = (
        "import sys; from sklearn_advsec.metrics import fidelity_scorer; "
        "import sklearn_advsec.inspection; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Paid, and then lost --------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uncertainty", "k_center", "adaptive", "random"])
def test_a_pool_that_runs_out_ends_the_rounds(iris, strategy):
    X, _, model = iris
    X = np.vstack([X[:40], X[:40]])  # every row twice
    attack = ActiveExtraction(
        FrozenEstimator(model),
        surrogate=LogisticRegression(max_iter=500),
        strategy=strategy,
        max_queries=300,
    )
    with warnings.catch_warnings(action="ignore"):  # the first forty are of one class
        attack.fit(X)
    assert attack.n_queries_ >= len(np.unique(X, axis=0)) * (strategy != "adaptive")
    assert attack.fidelity(X) > 0.9


def text_frame():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {"city": rng.choice(["Bonn", "Köln", "Ulm"], 80), "age": rng.randint(18, 80, 80)}
    )
    y = ((frame.city == "Ulm") ^ (frame.age > 50)).astype(int)
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough"
    )
    return frame, make_pipeline(encoder, RandomForestClassifier(10, random_state=0)).fit(
        frame, y
    )


@pytest.mark.parametrize("attack", [KnockoffNets, CopycatCNN, ActiveExtraction])
def test_text_columns_and_surrogates_are_tried_before_anything_is_paid(attack):
    frame, model = text_frame()
    assert attack(FrozenEstimator(model)).fit(frame).fidelity(frame) > 0.9

    class Counts(Service):
        __sklearn_tags__ = None

    service = Counts(model)
    with pytest.raises(ValueError) as found:
        attack(service, surrogate=LogisticRegression()).fit(frame)
    assert not service.seen
    assert "made-up labels" in "".join(found.value.__notes__)


def test_bounds_of_substitutes_are_checked_before_anything_is_paid(iris):
    X, _, model = iris
    for bounds in ((5, 1), (100, 200), (np.nan, 9), ([0, 1], [9, 9, 9])):
        service = Service(model)
        with pytest.raises(ValueError, match="bounds"):
            JacobianSubstitute(service, bounds=bounds).fit(X[::10])
        assert not service.seen


def test_nets_are_found_as_they_were():
    from nets import net

    X, y = load_iris(return_X_y=True)
    torch.manual_seed(0)
    model = net(max_epochs=20, module__n_features=4, module__n_classes=3)
    model.fit(X.astype(np.float32), y)
    model.module_.train()
    state = torch.random.get_rng_state()
    attack = KnockoffNets(FrozenEstimator(model), surrogate=GaussianNB())
    attack.fit(X).fidelity(X)
    attack.extraction_report(X, n_uniform=10)
    assert model.module_.training
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="in float32"):
        ReLUExtraction(FrozenEstimator(model)).fit(X)
    attack.set_params(batch_size=np.int64(7), max_queries=np.int32(20)).fit(X)
    assert attack.n_queries_ == 20
