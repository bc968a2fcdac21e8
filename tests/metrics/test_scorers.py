import pickle

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate

from sklearn_advsec.evasion import FastGradientMethod, ProjectedGradientDescent
from sklearn_advsec.metrics import attack_success_scorer, robust_accuracy_scorer

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
