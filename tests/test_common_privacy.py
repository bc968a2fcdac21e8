"""Checks that every membership attack passes, beside scikit-learn's own."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from privacy_targets import overfitted_target
from registry import MEMBERSHIP
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils._testing import assert_docstring_consistency

from sklearn_advsec.metrics import tpr_at_fpr_scorer
from sklearn_advsec.privacy import RMIA, BoundaryDistance, MembershipAttack, ShadowAttack

# Few records: an attack by labels asks about each of them many times.
TARGET, AUDITED, MEMBER, OWN = overfitted_target(n_members=40, n_own=80, max_iter=40)
CODES = AUDITED[:, -1].astype(int)


def on_target(attack, **parameters):
    return clone(attack).set_params(estimator=TARGET, label_column=-1, **parameters)


def test_the_target_is_untouched(attack):
    before = joblib.hash(TARGET.estimator)
    on_target(attack).fit(OWN).predict(AUDITED)
    assert joblib.hash(TARGET.estimator) == before


def test_unfitted_targets_are_refused(attack):
    unfitted = clone(attack).set_params(estimator=LogisticRegression())
    with pytest.raises(NotFittedError, match=r"Pass FrozenEstimator\(classifier\)"):
        unfitted.fit(OWN)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clone(attack).predict(OWN)


def test_clone_pickle_and_jobs_agree(attack):
    fitted = on_target(attack).fit(OWN)
    expected = fitted.decision_function(AUDITED)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.decision_function(AUDITED), expected)
    parameters = {"n_jobs": 2} if "n_jobs" in attack.get_params(deep=False) else {}
    many = clone(fitted).set_params(**parameters)
    with joblib.parallel_config(backend="threading"):
        scores = many.fit(OWN).decision_function(AUDITED)
    np.testing.assert_array_equal(scores, expected)


class Counted(ClassifierMixin, BaseEstimator):
    """A target that notes how many rows it is asked about."""

    def fit(self, X=None, y=None):
        self.classes_, self.n_asked_ = TARGET.classes_, 0
        return self

    def predict_proba(self, X):
        self.n_asked_ += len(X)
        return TARGET.predict_proba(X)

    def predict(self, X):
        self.n_asked_ += len(X)
        return TARGET.predict(X)


def test_one_query_per_record(attack):
    if "max_queries" in attack.get_params(deep=False):
        pytest.skip("it asks as often as it may")
    counted = Counted().fit()
    attack = on_target(attack).set_params(estimator=FrozenEstimator(counted))
    if "shadow_estimator" in attack.get_params(deep=False):
        attack.set_params(shadow_estimator=DecisionTreeClassifier())
    for member in (None, np.arange(len(OWN)) % 2):
        counted.n_asked_ = 0
        attack.fit(OWN, member)
        asked = counted.n_asked_
        attack.decision_function(AUDITED)
        assert counted.n_asked_ - asked == len(AUDITED)
        assert asked <= len(OWN)


def test_records_do_not_influence_each_other(attack):
    fitted = on_target(attack).fit(OWN)
    whole = fitted.decision_function(AUDITED)
    parts = [fitted.decision_function(AUDITED[rows]) for rows in (MEMBER, ~MEMBER)]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-6, atol=1e-9)


def test_decisions_are_those_of_the_threshold(attack):
    fitted = on_target(attack).fit(OWN, np.arange(len(OWN)) % 2)
    decision = fitted.decision_function(AUDITED)
    np.testing.assert_array_equal(fitted.predict(AUDITED), (decision > 0).astype(int))
    assert np.isfinite(decision).all() and fitted.knowledge in ("score", "label")


def test_probabilities_are_calibrated(attack):
    if isinstance(attack, RMIA):
        attack = clone(attack).set_params(n_shadow_models=4)  # of two, one is left
    fitted = on_target(attack).fit(AUDITED[::2], MEMBER[::2])
    proba = fitted.predict_proba(AUDITED[1::2])
    assert proba.shape == (len(AUDITED[1::2]), 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(
        proba[:, 1] > 0.5, fitted.predict(AUDITED[1::2]).astype(bool)
    )
    loss = log_loss(MEMBER[1::2], proba)
    assert loss < np.log(2) + 0.1  # hardly worse than to say a half
    alone = on_target(attack).fit(OWN)  # nobody is known
    from_shadows = isinstance(attack, ShadowAttack)
    assert hasattr(alone, "predict_proba") == from_shadows
    if from_shadows:
        assert log_loss(MEMBER, alone.predict_proba(AUDITED)) < np.log(2) + 0.1
    assert not hasattr(clone(fitted), "predict_proba")


def test_frames_with_the_label_by_name(attack):
    names = [f"item {j}" for j in range(AUDITED.shape[1] - 1)]
    own, audited = (
        pd.DataFrame(rows, columns=[*names, "bought"]) for rows in (OWN, AUDITED)
    )
    tree = DecisionTreeClassifier(max_depth=6, random_state=0)
    frames = FrozenEstimator(tree.fit(audited.loc[MEMBER, names], CODES[MEMBER]))
    plain = clone(tree).fit(AUDITED[MEMBER, :-1], CODES[MEMBER])
    by_name = on_target(attack).set_params(estimator=frames, label_column="bought")
    by_name.fit(own[["bought", *names]])  # the order of columns is that of `fit`
    assert by_name.feature_names_in_.tolist() == ["bought", *names]
    if isinstance(attack, BoundaryDistance):
        return  # tables have units, in which their distances are
    by_position = on_target(attack).set_params(estimator=FrozenEstimator(plain))
    by_position.fit(OWN)
    np.testing.assert_allclose(
        by_name.predict(audited[["bought", *names]]), by_position.predict(AUDITED)
    )


@pytest.mark.long
def test_cross_validation_and_search(attack):
    pipe = make_pipeline(FunctionTransformer(), on_target(attack))
    scoring = {"auc": "roc_auc", "accuracy": "balanced_accuracy"}
    found = cross_validate(
        pipe, AUDITED, MEMBER, scoring=scoring, cv=2, error_score="raise"
    )
    assert ((found["test_auc"] >= 0) & (found["test_auc"] <= 1)).all()
    last = AUDITED.shape[1] - 1
    search = GridSearchCV(
        pipe,
        {f"{pipe.steps[1][0]}__label_column": [-1, last]},
        scoring=tpr_at_fpr_scorer(0.5),
        cv=2,
        error_score="raise",
    )
    search.fit(AUDITED, MEMBER)
    one, other = search.cv_results_["mean_test_score"]
    assert one == other == search.best_score_


def test_shared_parameters_are_documented_alike():
    of_all = ["estimator", "label_column"]
    of_shadows = ["shadow_estimator", "shadow_size", "memory", "n_jobs", "random_state"]
    kinds = [type(attack) for attack in MEMBERSHIP]
    assert_docstring_consistency(
        kinds,
        include_params=of_all,
        include_attrs=["estimator_", "classes_", "n_features_in_", "feature_names_in_"],
        ignore_types=("estimator", "estimator_"),  # some take regressors, too
    )
    shadows = [kind for kind in kinds if issubclass(kind, ShadowAttack)]
    assert_docstring_consistency(
        shadows, include_params=of_shadows, ignore_types=("shadow_estimator",)
    )
    assert_docstring_consistency(
        [kind for kind in shadows if kind is not BoundaryDistance],
        include_params=["n_shadow_models", "device", "verbose"],
        include_attrs=["shadow_estimators_", "shadow_indices_"],
        ignore_types=("n_shadow_models",),
    )
    ClassDoc = pytest.importorskip("numpydoc.docscrape").ClassDoc
    for base, shared in ((MembershipAttack, of_all), (ShadowAttack, of_shadows)):
        documented = {parameter.name for parameter in ClassDoc(base)["Parameters"]}
        assert documented >= set(shared)


def pytest_generate_tests(metafunc):
    if "attack" in metafunc.fixturenames:
        metafunc.parametrize("attack", MEMBERSHIP, ids=lambda a: type(a).__name__)
