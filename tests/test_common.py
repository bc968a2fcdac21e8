"""Checks that every public estimator passes: scikit-learn's, and each family's own."""

import inspect
import itertools
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from registry import EVASION, EXPECTED_FAILURES, FAMILIES, NOT_CHECKED, NOT_MEANT_FOR
from scipy.sparse import csr_matrix
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.metadata_routing import MetadataRouter

from sklearn_advsec import differentiable
from sklearn_advsec._estimators import is_net
from sklearn_advsec.extraction import LabelsOnly, PRADADetector
from sklearn_advsec.extraction._wrappers import ProbabilityWrapper
from sklearn_advsec.privacy import AttributeInference, MembershipAttack

INSTANCES = [instance for family in FAMILIES.values() for instance in family]


def _expected_failures(estimator):
    return EXPECTED_FAILURES.get(type(estimator).__name__, {})


# An expected failure that passes fails the run, as far as scikit-learn can (from 1.8).
STRICT = "xfail_strict" in inspect.signature(estimator_checks_generator).parameters


def _contract():
    """Yield scikit-learn's checks of every estimator.

    `parametrize_with_checks` does so, too, and writes each estimator out for each check
    of it as a part of the test's id, which takes longer than most of the checks.
    """
    for instance in INSTANCES:
        for param in estimator_checks_generator(
            instance,
            expected_failed_checks=_expected_failures(instance),
            mark="xfail",
            **({"xfail_strict": True} if STRICT else {}),
        ):
            estimator, check = getattr(param, "values", param)
            if type(instance).__name__ in NOT_MEANT_FOR.get(check.func.__name__, ()):
                continue
            marks = getattr(param, "marks", ())
            name = f"{type(instance).__name__}-{check.func.__name__}"
            if check.keywords:
                name += f"({','.join(f'{k}={v}' for k, v in check.keywords.items())})"
            yield pytest.param(estimator, check, marks=marks, id=name)


# Some rows of the checks are such that a victim is certain of them, or whole numbers.
@pytest.mark.filterwarnings("ignore:eps=.* changes nothing:UserWarning")
@pytest.mark.filterwarnings("ignore:the copy agrees on all:UserWarning")
@pytest.mark.filterwarnings("ignore:the victim gave the same label:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), list(_contract()))
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda module: module.__name__)
def test_every_public_estimator_is_checked(family):
    public = {name for name in family.__all__ if inspect.isclass(getattr(family, name))}
    checked = {type(instance).__name__ for instance in FAMILIES[family]}
    assert public - set(NOT_CHECKED) <= checked <= public


def _use(estimator, X, y):
    if hasattr(estimator, "fit_resample"):
        estimator.fit_resample(X, y)
        return
    estimator.fit(X, y)
    for method in ("predict", "predict_proba", "transform"):
        if hasattr(estimator, method):
            getattr(estimator, method)(X)


VICTIMS = {
    "scaler": make_pipeline(StandardScaler(), LogisticRegression()),
    "tree": DecisionTreeClassifier(max_depth=3, random_state=0),
    "dense": HistGradientBoostingClassifier(max_iter=5),
}


@pytest.mark.parametrize(
    "victim",
    [
        "scaler",
        pytest.param("tree", marks=pytest.mark.slow),
        pytest.param("dense", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("estimator", INSTANCES, ids=lambda e: type(e).__name__)
def test_no_more_is_claimed_than_the_victim_can_do(estimator, victim):
    inside = estimator.get_params(deep=False).get("estimator")
    if inside is None or is_net(inside):
        return
    estimator = clone(estimator).set_params(estimator=clone(VICTIMS[victim]))
    claims = estimator.__sklearn_tags__().input_tags
    rows, labels = X[:100], y[:100]
    missing = rows.copy()
    missing[[3, 90], [1, 2]] = np.nan
    claimed = [csr_matrix(rows)] * claims.sparse + [missing] * claims.allow_nan
    if claimed and victim != "scaler":
        try:
            _use(clone(estimator), rows, labels)
        except (TypeError, ValueError):  # it takes other victims, and says so
            return
    for data in claimed:
        _use(clone(estimator), data, labels)


class Weighed(ClassifierMixin, BaseEstimator):
    """A classifier that remembers the weights that it was trained with."""

    def fit(self, X, y, sample_weight=None):
        self.inner_ = LogisticRegression().fit(X, y, sample_weight)
        self.classes_, self.n_features_in_ = self.inner_.classes_, X.shape[1]
        self.weights_ = sample_weight
        return self

    def predict(self, X):
        return self.inner_.predict(X)

    def predict_proba(self, X):
        return self.inner_.predict_proba(X)


@differentiable.register(Weighed)
def weighed(estimator):
    return differentiable.view(estimator.inner_)


# What is made of several models, or of something else than a classifier with weights.
NOT_WEIGHED = {
    "BaggingCertified": "its members draw rows",
    "DeepPartitionAggregation": "its members have rows of their own",
    "EncryptedClassifier": "it reads what it knows",
    "EncryptedRegressor": "it reads what it knows",
    "LastHiddenLayer": "it reads what it knows",
    "RandomizedSmoothingClassifier": "it trains on copies, as its own test knows",
    "NeuralCleanse": "it looks at trained models",
    "PathFinding": "it needs a tree",
    "TreeCoordinateAttack": "it needs trees",
    "TreeExactAttack": "it needs trees",
}


def _takes_weights(estimator):
    known = "estimator" in estimator.get_params(deep=False)
    resamples = hasattr(estimator, "fit_resample")
    trained = estimator.get_params(deep=False).get("estimator")
    of_targets = isinstance(estimator, (MembershipAttack, AttributeInference)) or type(
        estimator
    ).__name__ in ("NumericAttributeInference", "PropertyInference")
    return not (
        not known
        or resamples
        or of_targets  # their targets are trained already
        or is_net(trained)
        or type(estimator).__name__ in NOT_WEIGHED
    )


WEIGHING = [estimator for estimator in INSTANCES if _takes_weights(estimator)]
WEIGHTS = np.random.RandomState(0).randint(1, 4, 150).astype(float)


@pytest.mark.parametrize("estimator", WEIGHING, ids=lambda e: type(e).__name__)
def test_weights_reach_the_victim_with_and_without_routing(estimator):
    # These have no weights of their own: what they are given is passed on as it is.
    passes = isinstance(estimator, LabelsOnly | PRADADetector | ProbabilityWrapper)
    plain = clone(estimator).set_params(estimator=Weighed())
    fitted = clone(plain).fit(X, y, sample_weight=WEIGHTS)
    assert _kinds(fitted.estimator_.weights_) == {1, 2, 3}
    assert _kinds(clone(plain).fit(X, y).estimator_.weights_) <= {1}
    behind = clone(plain).set_params(estimator=make_pipeline(MinMaxScaler(), Weighed()))
    name = "weighed__sample_weight" if passes else "sample_weight"
    fitted = clone(behind).fit(X, y, **{name: WEIGHTS})
    assert _kinds(fitted.estimator_[-1].weights_) == {1, 2, 3}
    with config_context(enable_metadata_routing=True):
        assert isinstance(plain.get_metadata_routing(), MetadataRouter)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            clone(plain).fit(X, y, sample_weight=WEIGHTS)
        plain.estimator.set_fit_request(sample_weight=True)
        fitted = clone(plain).fit(X, y, sample_weight=WEIGHTS)
        assert _kinds(fitted.estimator_.weights_) == {1, 2, 3}
        plain.estimator.set_fit_request(sample_weight=False)
        if passes:
            with pytest.raises(TypeError, match="not routed to any object"):
                clone(plain).fit(X, y, sample_weight=WEIGHTS)
            return
        fitted = clone(plain).fit(X, y, sample_weight=WEIGHTS)
        assert _kinds(fitted.estimator_.weights_) <= {1}


def _kinds(weights):
    return set() if weights is None else set(np.unique(weights))


# The evasion family -------------------------------------------------------------------

X, y = load_iris(return_X_y=True)
X = MinMaxScaler().fit_transform(X)


def _frozen(attack, data=X):
    victim = clone(attack.estimator).fit(data, y)
    parameters = {"estimator": FrozenEstimator(victim)}
    if "random_state" in attack.get_params(deep=False):
        parameters["random_state"] = 0
    return clone(attack).set_params(**parameters).fit(data, y), victim


def check_has_constraints(attack):
    assert attack.get_params(deep=False)["constraints"] is None
    text = inspect.getdoc(type(attack))
    assert text.index("\nconstraints : FeatureConstraints") < text.index("\nAttributes")


def check_victim_is_untouched(attack):
    attack, victim = _frozen(attack)
    before = joblib.hash(victim)
    attack.run(X[::5], y[::5])
    assert joblib.hash(victim) == before


def check_no_label_leak(attack):
    attack, _ = _frozen(attack)
    if "surrogate" in attack.get_params(deep=False):
        return  # what is trained on the labels here is the surrogate
    first = attack.transform(X[::5])
    again = attack.fit(X, np.roll(y, 50)).transform(X[::5])
    np.testing.assert_array_equal(first, again)


def check_result_is_what_the_victim_says(attack):
    attack, victim = _frozen(attack)
    result = attack.run(X[::5], y[::5])
    np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))
    assert (result.distance[(result.X_adv == X[::5]).all(1)] == 0).all()
    assert (result.n_queries >= 1).all()
    assert attack.score(X[::5], y[::5]) == np.mean(result.y_pred == y[::5])
    assert result.rows.tolist() == list(range(len(X[::5])))


def check_rows_that_are_wrong_already_stay(attack):
    attack, victim = _frozen(attack)
    # Attacks on a stand-in of the victim cannot know that a row is wrong already.
    stand_in = {"surrogate", "transformations"} & set(attack.get_params(deep=False))
    if attack.goal != "misclassification" or stand_in:
        return
    result = attack.run(X[::5], (victim.predict(X[::5]) + 1) % 3)
    assert result.success.all() and (result.distance == 0).all()
    np.testing.assert_array_equal(result.X_adv, X[::5])


def check_clone_pickle_and_jobs_agree(attack):
    if "batch_size" in attack.get_params(deep=False):
        attack = clone(attack).set_params(batch_size=2)  # two chunks for two jobs
    attack, _ = _frozen(attack)
    expected = attack.transform(X[::5])
    again = pickle.loads(pickle.dumps(attack))
    np.testing.assert_array_equal(again.transform(X[::5]), expected)
    if "n_jobs" in attack.get_params(deep=False):
        many = clone(attack).set_params(n_jobs=2).fit(X, y)
        with joblib.parallel_config(backend="threading"):
            np.testing.assert_array_equal(many.transform(X[::5]), expected)


def check_dataframes_stay_dataframes(attack):
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(len(X)) + 7)
    named, _ = _frozen(attack, frame)
    assert named.feature_names_in_.tolist() == list("abcd")
    X_adv = named.transform(frame[::5])
    assert X_adv.index.equals(frame[::5].index) and list(X_adv) == list("abcd")
    plain, _ = _frozen(attack, X)
    np.testing.assert_array_equal(X_adv.to_numpy(), plain.transform(X[::5]))
    # The victim knows names, the rows that the attack is given have none.
    plain, _ = _frozen(named, X)
    np.testing.assert_array_equal(X_adv.to_numpy(), plain.transform(X[::5]))


def check_query_budget_is_never_exceeded(attack):
    attack, victim = _frozen(attack)
    if "max_queries" in attack.get_params(deep=False):
        for limit, labels in itertools.product((1, 2, 5, 12), (None, y[::10])):
            try:
                result = attack.set_params(max_queries=limit).run(X[::10], labels)
            except ValueError:
                continue  # the attack cannot begin with so little, and says so
            assert result.n_queries.max() <= limit
            # Of a row that there was no query left for, nothing is made up.
            np.testing.assert_array_equal(result.y_pred, victim.predict(result.X_adv))


EVASION_CHECKS = [
    check_has_constraints,
    check_victim_is_untouched,
    check_no_label_leak,
    check_result_is_what_the_victim_says,
    check_rows_that_are_wrong_already_stay,
    check_clone_pickle_and_jobs_agree,
    check_dataframes_stay_dataframes,
    check_query_budget_is_never_exceeded,
]


@pytest.mark.parametrize("check", EVASION_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("attack", EVASION, ids=lambda attack: type(attack).__name__)
def test_evasion_contract(attack, check):
    check(attack)
