"""What every extraction attack keeps to, whatever the victim."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from registry import THIEVES
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils._testing import assert_docstring_consistency

from sklearn_advsec.exceptions import QueryBudgetExceeded
from sklearn_advsec.extraction import (
    ExtractionAttack,
    JacobianSubstitute,
    PathFinding,
    ReLUExtraction,
)
from sklearn_advsec.extraction._pool import PoolExtraction
from sklearn_advsec.metrics import fidelity_scorer

X, y = load_iris(return_X_y=True)
X = np.round(MinMaxScaler().fit_transform(X), 2)


class Remote:
    """A service: no estimator, answers, and remembers every row that it was sent."""

    def __init__(self, model, *, fail_after=None):
        self.model = model
        self.sent = []
        self.largest_batch = 0
        self.fail_after = fail_after
        if hasattr(model, "apply"):
            self.apply = model.apply  # comes in one answer with the probabilities

    def predict(self, X):
        return self._answer(self.model.predict, X)

    def predict_proba(self, X):
        return self._answer(self.model.predict_proba, X)

    def _answer(self, method, X):
        if self.fail_after is not None and len(self.sent) + len(X) > self.fail_after:
            raise ConnectionError("the service is down")
        self.largest_batch = max(self.largest_batch, len(X))
        self.sent += [row.tobytes() for row in np.asarray(X, dtype=np.float64)]
        return method(X)

    def __sklearn_clone__(self):
        return self


def victim_of(attack, data=X):
    """Train a victim of the kind that the attack is made for."""
    if isinstance(attack, PathFinding):
        model = DecisionTreeClassifier(max_depth=4, random_state=0)
    elif isinstance(attack, ReLUExtraction):
        model = MLPClassifier(5, solver="lbfgs", alpha=0.1, tol=1e-2, random_state=0)
    else:
        model = LogisticRegression(C=10, max_iter=500)
    return model.fit(data, y)


def rows_of(attack):
    return X[::5] if "step_size" in attack.get_params(deep=False) else X


def stolen(attack, victim, data=None, **parameters):
    attack = clone(attack).set_params(estimator=victim, **parameters)
    return attack.fit(rows_of(attack) if data is None else data)


def check_victim_is_untouched(attack):
    victim = FrozenEstimator(victim_of(attack))
    before = joblib.hash(victim)
    attack = stolen(attack, victim)
    attack.predict(X), attack.fidelity(X), attack.extraction_report(X, n_uniform=10)
    assert joblib.hash(victim) == before


def check_queries_are_what_the_victim_saw(attack):
    remote = Remote(victim_of(attack))
    attack = stolen(attack, remote, batch_size=7, query_log=True)
    assert attack.n_queries_ == len(remote.sent) == len(attack.query_log_)
    assert len(set(remote.sent)) == len(remote.sent)  # nothing is paid for twice
    assert remote.largest_batch <= 7
    logged = np.asarray(attack.query_log_.X, dtype=np.float64)
    assert [row.tobytes() for row in logged] == remote.sent
    attack.predict(X), attack.predict_proba(X), attack.score(X, y)
    assert attack.n_queries_ == len(remote.sent)  # the copy answers by itself


def check_budget_is_never_exceeded(attack):
    full = stolen(attack, FrozenEstimator(victim_of(attack))).n_queries_
    for limit in (1, 3, 20, full - 1, full, full + 10):
        remote = Remote(victim_of(attack))
        thief = clone(attack).set_params(estimator=remote, max_queries=limit)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the copy may not be exact, or constant
                thief.fit(rows_of(attack))
        except (QueryBudgetExceeded, ValueError) as error:  # so little does not do
            assert limit < full, error
        assert len(remote.sent) == thief.n_queries_ <= limit
        if limit == full:
            assert thief.n_queries_ == full


def check_remote_victim_gives_the_same_copy(attack):
    model = victim_of(attack)
    remote = stolen(attack, Remote(model))
    frozen = stolen(attack, FrozenEstimator(model))
    np.testing.assert_array_equal(remote.predict(X), frozen.predict(X))
    np.testing.assert_array_equal(remote.classes_, model.classes_)
    assert remote.fidelity(X) == frozen.fidelity(X) > 0.85


def check_clone_and_pickle_agree(attack):
    model = victim_of(attack)
    attack = stolen(attack, FrozenEstimator(model))
    expected = attack.predict_proba(X)
    again = pickle.loads(pickle.dumps(attack))
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    twin = clone(attack)
    assert not hasattr(twin, "copy_")
    twin.fit(rows_of(attack))
    np.testing.assert_array_equal(twin.predict_proba(X), expected)
    assert twin.n_queries_ == attack.n_queries_


def check_jobs_agree(attack):
    attack = clone(attack).set_params(estimator=FrozenEstimator(victim_of(attack)))
    one = cross_val_score(attack, X, y, cv=2, scoring=fidelity_scorer)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        two = cross_val_score(attack, X, y, cv=2, scoring=fidelity_scorer)
    np.testing.assert_array_equal(one, two)


def check_data_frames(attack):
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(len(X)) + 7)
    model = victim_of(attack, frame)
    step = len(X) // len(rows_of(attack))
    thief = stolen(attack, FrozenEstimator(model), frame[::step])
    assert thief.feature_names_in_.tolist() == list("abcd")
    plain = stolen(attack, FrozenEstimator(victim_of(attack)))
    np.testing.assert_array_equal(thief.predict(frame), plain.predict(X))
    assert thief.n_queries_ == plain.n_queries_
    assert thief.fidelity(frame) == plain.fidelity(X)
    assert thief.extraction_report(frame, n_uniform=50)["R_test"] < 0.15
    with pytest.raises(ValueError, match="feature names"):
        thief.predict(frame[["b", "a", "c", "d"]])


def check_warm_start_keeps_paid_queries(attack):
    full = stolen(attack, Remote(victim_of(attack)), batch_size=1)
    remote = Remote(victim_of(attack), fail_after=full.n_queries_ // 2)
    thief = clone(attack).set_params(estimator=remote, batch_size=1)
    with pytest.raises(ConnectionError):
        thief.fit(rows_of(attack))
    paid = list(remote.sent)
    assert thief.n_queries_ == len(paid) == full.n_queries_ // 2
    remote.fail_after = None
    thief.set_params(warm_start=True).fit(rows_of(attack))
    assert remote.sent[: len(paid)] == paid
    assert len(set(remote.sent)) == len(remote.sent) == thief.n_queries_
    assert thief.n_queries_ == full.n_queries_
    np.testing.assert_array_equal(thief.predict(X), full.predict(X))


CHECKS = [
    check_victim_is_untouched,
    check_queries_are_what_the_victim_saw,
    check_budget_is_never_exceeded,
    check_remote_victim_gives_the_same_copy,
    check_clone_and_pickle_agree,
    check_jobs_agree,
    check_data_frames,
    check_warm_start_keeps_paid_queries,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("attack", THIEVES, ids=lambda attack: type(attack).__name__)
def test_extraction_contract(attack, check):
    check(attack)


SHARED_BY_ALL = ["estimator", "max_queries", "batch_size", "query_log", "warm_start"]
SHARED_BY_ALL += ["verbose", "random_state"]


def test_shared_parameters_are_documented_alike():
    kinds = {type(attack) for attack in THIEVES}
    assert_docstring_consistency(
        kinds,
        include_params=SHARED_BY_ALL,
        include_attrs=["estimator_", "n_queries_", "query_log_", "classes_"],
        ignore_types=("estimator", "copy_"),
    )
    pool = [kind for kind in kinds if issubclass(kind, PoolExtraction)]
    assert_docstring_consistency(
        [kind for kind in pool if kind is not JacobianSubstitute],
        include_params=["surrogate"],
    )
    base = pytest.importorskip("numpydoc.docscrape").ClassDoc(ExtractionAttack)
    documented = {parameter.name for parameter in base["Parameters"]}
    assert documented >= set(SHARED_BY_ALL)
