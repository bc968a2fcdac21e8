import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from nets import net
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from sklearn_advsec.defense import (
    AdversarialDetector,
    MagNet,
    RandomizedSmoothingClassifier,
)
from sklearn_advsec.evasion import (
    CarliniWagner,
    DeepFool,
    FastGradientMethod,
    HopSkipJump,
    ProjectedGradientDescent,
    RayS,
    SquareAttack,
)
from sklearn_advsec.metrics import (
    attack_success_scorer,
    gradient_masking_report,
    robust_accuracy_scorer,
)

X, y = load_iris(return_X_y=True)
weight = np.random.RandomState(0).rand(len(y))


def robust():
    return robust_accuracy_scorer(FastGradientMethod(eps=0.5, bounds=(0, 10)))


def test_robust_accuracy_is_the_accuracy_on_attacked_rows():
    victim = LogisticRegression(max_iter=1000).fit(X, y)
    X_adv = (
        FastGradientMethod(FrozenEstimator(victim), eps=0.5, bounds=(0, 10))
        .fit(X)
        .run(X, y)
        .X_adv
    )
    right = victim.predict(X_adv) == y
    assert robust()(victim, X, y) == right.mean()
    assert robust()(victim, X, y, sample_weight=weight) == pytest.approx(
        np.average(right, weights=weight)
    )
    assert pickle.loads(pickle.dumps(robust()))(victim, X, y) == right.mean()


@pytest.mark.long
@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_alone_and_in_a_dict_with_and_without_routing(routing, n_jobs):
    with sklearn.config_context(enable_metadata_routing=routing):
        estimator = LogisticRegression(max_iter=1000)
        scorer, accuracy = robust(), make_scorer(accuracy_score)
        if routing:
            estimator.set_fit_request(sample_weight=True)
            scorer.set_score_request(sample_weight=True)
            accuracy.set_score_request(sample_weight=True)
        more = {"params": {"sample_weight": weight}, "n_jobs": n_jobs}
        both = cross_validate(
            estimator, X, y, scoring={"clean": accuracy, "robust": scorer}, **more
        )
        alone = cross_val_score(estimator, X, y, scoring=scorer, **more)
        np.testing.assert_array_equal(both["test_robust"], alone)
        assert (both["test_robust"] <= both["test_clean"]).all()
        search = GridSearchCV(
            estimator,
            {"C": [0.1, 1.0]},
            scoring={"clean": accuracy, "robust": scorer},
            refit="robust",
            n_jobs=n_jobs,
        ).fit(X, y, sample_weight=weight)
        assert 0 < search.best_score_ < 1


def test_attack_success_tunes_an_attack():
    victim = FrozenEstimator(LogisticRegression(max_iter=1000).fit(X, y))
    grid = {"step_size": [0.001, 0.1]}
    search = GridSearchCV(
        ProjectedGradientDescent(victim, eps=0.5, max_iter=10),
        grid,
        scoring=attack_success_scorer,
        cv=3,
    ).fit(X)
    assert search.best_params_ == {"step_size": 0.1}


def test_bad_attack():
    for attack in (LogisticRegression(), ProjectedGradientDescent):
        with pytest.raises(TypeError, match="attack"):
            robust_accuracy_scorer(attack)
    with pytest.raises(TypeError, match="use robust_accuracy_scorer"):
        attack_success_scorer(LogisticRegression(), [[0.0]])


ROWS = MinMaxScaler().fit_transform(X)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]
CLASSIFIER = LogisticRegression(C=10, max_iter=1000)
UNSURE = {"detector": "uncertainty", "fpr": 0.1}
ABSTAINING = {
    "detector": (AdversarialDetector(CLASSIFIER, abstain_label="?", **UNSURE), NAMES),
    "detector, numbers": (
        AdversarialDetector(CLASSIFIER, abstain_label=-1, **UNSURE),
        y,
    ),
    "detector of a net": (
        AdversarialDetector(net(max_epochs=40, lr=0.02), abstain_label="?", **UNSURE),
        NAMES,
    ),
    "MagNet": (
        MagNet(CLASSIFIER, fpr=0.1, max_epochs=5, learning_rate=0.02, abstain_label="?"),
        NAMES,
    ),
    "smoothing": (
        RandomizedSmoothingClassifier(CLASSIFIER, n_samples=12, abstain_label="?"),
        NAMES,
    ),
}


@pytest.fixture(scope="module", params=ABSTAINING.values(), ids=ABSTAINING)
def abstaining(request):
    defense, labels = request.param
    return clone(defense).fit(ROWS, labels), labels


@pytest.mark.parametrize(
    "attack",
    [
        ProjectedGradientDescent(eps=0.2, max_iter=10),
        ProjectedGradientDescent(eps=0.2, max_iter=10, confidence=0.5),
        SquareAttack(eps=0.2, max_queries=40),
        HopSkipJump(max_queries=40),
        RayS(max_queries=40),
        DeepFool(max_iter=10),
        CarliniWagner(max_iter=10, n_searches=1),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_victims_that_abstain_are_attacked_and_scored(attack, abstaining):
    defense, labels = abstaining
    silent, some, right = defense.abstain_label, ROWS[::5], labels[::5]
    box = {"bounds": (0, 1)} if "bounds" in attack.get_params() else {}
    attack = clone(attack).set_params(estimator=FrozenEstimator(defense), **box)
    attack.fit(ROWS)
    for y_true in (None, right):
        result = attack.run(some, y_true)
        y_pred = defense.predict(result.X_adv)
        np.testing.assert_array_equal(result.y_pred, y_pred)
        # An attack that ends at an alarm has not succeeded.
        assert not result.success[y_pred == silent].any()
        if y_true is not None and attack.confidence is None:
            assert (y_pred != right)[result.success].all()
    clean = defense.predict(some)
    assert silent in clean
    handled = (clean == right) & ((result.y_pred == right) | (result.y_pred == silent))
    for abstain, expected in (("handled", handled), ("wrong", result.y_pred == right)):
        scorer = robust_accuracy_scorer(attack, abstain=abstain)
        assert scorer(defense, some, right) == expected.mean()


def test_what_abstaining_counts_as():
    defense, labels = ABSTAINING["detector"]
    defense = clone(defense).fit(ROWS, labels)
    attack = ProjectedGradientDescent(eps=0.05, max_iter=5, early_stopping=False)
    handled, wrong = (
        robust_accuracy_scorer(attack, abstain=abstain)(defense, ROWS, labels)
        for abstain in ("handled", "wrong")
    )
    assert handled > wrong > 0
    behind = make_pipeline(FunctionTransformer(), defense)
    assert robust_accuracy_scorer(attack)(behind, ROWS, labels) == handled
    defense.threshold_ = -1.0  # one that always cries is always wrong
    assert robust_accuracy_scorer(attack)(defense, ROWS, labels) == 0
    with pytest.raises(ValueError, match="abstain"):
        robust_accuracy_scorer(attack, abstain="right")
    with pytest.raises(ValueError, match="none of the classes"):
        clone(defense).set_params(abstain_label="setosa").fit(ROWS, labels).predict(ROWS)


def test_labels_of_any_type_and_a_report_of_a_victim_that_abstains():
    defense = AdversarialDetector(CLASSIFIER, abstain_label="?", **UNSURE)
    for labels in (NAMES.astype(object), pd.Series(NAMES).astype("category")):
        fitted = clone(defense).fit(ROWS, labels)
        predicted = fitted.predict(ROWS)
        assert set(predicted) == {*NAMES, "?"}
        attack = ProjectedGradientDescent(eps=0.1, max_iter=3, bounds=(0, 1))
        result = attack.set_params(estimator=FrozenEstimator(fitted)).fit(ROWS).run(ROWS)
        np.testing.assert_array_equal(result.y_pred, fitted.predict(result.X_adv))
        assert not result.success[result.y_pred == "?"].any()
    report = gradient_masking_report(
        fitted, ROWS, NAMES, ProjectedGradientDescent(eps=0.1), black_box=False
    )
    assert report["white box"] <= report["one step"] <= 1
    by_name = ProjectedGradientDescent(eps={0: 0.1, 2: 0.1})
    plain = LogisticRegression(max_iter=1000).fit(ROWS, NAMES)
    report = gradient_masking_report(plain, ROWS, NAMES, by_name, black_box=False)
    same = ProjectedGradientDescent(eps=[0.1, 0, 0.1, 0])
    assert report == gradient_masking_report(plain, ROWS, NAMES, same, black_box=False)
