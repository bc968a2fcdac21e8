"""Checks that every attack on training data and every sanitizer passes."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from registry import PIPELINE, POISONERS, SANITIZERS, TARGETED_POISONERS
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import get_tags

X, y = load_iris(return_X_y=True)
X, y = MinMaxScaler().fit_transform(X)[20:], np.array(["a", "b", "c"])[y][20:]
WEIGHTS = np.arange(len(X)) + 1.0


def same(one, other):
    one, other = (z.toarray() if issparse(z) else np.asarray(z) for z in (one, other))
    np.testing.assert_array_equal(one, other)


# Attacks ------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 12, 0.05])
def test_the_budget_is_kept_and_indices_are_where_data_differ(attack, budget):
    attack = clone(attack).set_params(budget=budget)
    X_new, y_new = attack.fit_resample(X, y)
    at, sources = attack.poison_indices_, attack.sample_indices_
    allowed = budget if isinstance(budget, int) else int(budget * len(X))
    assert 0 < len(at) <= allowed and (np.diff(at) > 0).all()
    assert len(X_new) == len(y_new) == len(sources)
    added = sources < 0
    if attack.changes == "added":
        assert np.flatnonzero(added).tolist() == at.tolist()
    else:
        assert not added.any()
    kept = np.flatnonzero(~added)
    assert sources[kept].tolist() == list(range(len(X)))  # each clean row, in order
    differ = (X_new[kept] != X).any(1) | (y_new[kept] != y)
    assert kept[differ].tolist() == np.setdiff1d(at, np.flatnonzero(added)).tolist()
    if attack.changes == "labels":
        same(X_new, X)
    assert set(y_new) <= set(y)


def test_no_budget_gives_the_data_back(attack):
    for budget in (0, 0.0, 0.001):
        attack = clone(attack).set_params(budget=budget)
        X_new, y_new, weights = attack.fit_resample(X, y, WEIGHTS)
        same(X_new, X)
        same(y_new, y)
        same(weights, WEIGHTS)
        assert len(attack.poison_indices_) == 0


def test_what_the_caller_owns_is_untouched(attack):
    attack = clone(attack)
    before = joblib.hash((X, y, WEIGHTS, attack.get_params()))
    state = joblib.hash(np.random.get_state())  # noqa: NPY002
    attack.fit_resample(X, y, WEIGHTS)
    assert joblib.hash((X, y, WEIGHTS, attack.get_params())) == before
    assert joblib.hash(np.random.get_state()) == state  # noqa: NPY002


def test_weights_follow_their_rows(attack):
    attack = clone(attack)
    X_new, y_new, weights = attack.fit_resample(X, y, WEIGHTS)
    sources = attack.sample_indices_
    same(weights, np.where(sources < 0, WEIGHTS.mean(), WEIGHTS[sources]))
    with pytest.raises(ValueError, match="sample_weight"):
        attack.fit_resample(X, y, WEIGHTS[1:])


def test_clone_pickle_and_jobs_agree(attack):
    expected = clone(attack).fit_resample(X, y)
    fitted = clone(attack).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    same(again.poison_indices_, fitted.poison_indices_)
    if "n_jobs" in attack.get_params(deep=False):
        fitted.set_params(n_jobs=2)
    with joblib.parallel_config(backend="threading"):
        for one, other in zip(fitted.fit_resample(X, y), expected, strict=True):
            same(one, other)


def test_frames_stay_frames(attack):
    frame = pd.DataFrame(X, columns=list("pqrs"), index=np.arange(len(X)) + 7)
    labels = pd.Series(y, index=frame.index, name="kind", dtype="category")
    X_new, y_new = clone(attack).fit_resample(frame, labels)
    assert (X_new.dtypes == frame.dtypes).all() and list(X_new) == list(frame)
    assert y_new.name == "kind" and y_new.dtype == labels.dtype
    assert X_new.index.equals(y_new.index) and X_new.index.is_unique
    plain = clone(attack)
    same(X_new, plain.fit_resample(X, y)[0])
    kept = plain.sample_indices_ >= 0
    assert X_new.index[kept].equals(frame.index)


def test_mixed_frames_keep_their_dtypes(attack):
    if "strategy" in attack.get_params(deep=False):
        attack = clone(attack).set_params(strategy="random")
        frame = pd.DataFrame({"a": X[:, 0], "b": y, "c": np.arange(len(X))})
        frame = frame.astype({"b": "category"})
        X_new, _ = attack.fit_resample(frame, y)
        assert X_new.equals(frame)


def test_sparse_rows(attack):
    if getattr(attack, "estimator", None) is PIPELINE:
        with pytest.raises(ValueError, match="Cannot center sparse"):
            clone(attack).fit_resample(csr_array(X), y)
    elif attack.changes == "labels":
        X_new, y_new = clone(attack).fit_resample(csr_array(X), y)
        assert issparse(X_new) and X_new.format == "csr"
        same(X_new, X)
        same(y_new, clone(attack).fit_resample(X, y)[1])
    else:
        with pytest.raises(TypeError, match=r"X\.toarray\(\)"):
            clone(attack).fit_resample(csr_array(X), y)


def test_bad_budgets_and_labels(attack):
    for budget, text in ((len(X) + 1, "more than the"), (-1, "budget"), (1.5, "budget")):
        with pytest.raises(ValueError, match=text):
            clone(attack).set_params(budget=budget).fit(X, y)
    with pytest.raises(ValueError, match="one class only"):
        clone(attack).fit(X, np.zeros(len(X)))
    assert attack.knowledge in ("gradient", "score", "label")


def test_prototypes_say_so(attack):
    if attack.get_params().get("estimator") is not None:
        with pytest.raises(ValueError, match="prototype"):
            clone(attack).set_params(estimator=None).fit(X, y)


# Sanitizers ---------------------------------------------------------------------------


def flipped():
    rng = np.random.RandomState(0)
    at = rng.choice(len(y), 15, replace=False)
    labels = y.copy()
    labels[at] = np.array(["b", "c", "a"])[np.searchsorted(["a", "b", "c"], y[at])]
    return labels


@pytest.mark.parametrize("contamination", [0.0, 0.1, 0.3])
def test_removal_is_bounded_in_each_class(sanitizer, contamination):
    sanitizer = clone(sanitizer).set_params(contamination=contamination)
    labels = flipped()
    X_new, y_new, weights = sanitizer.fit_resample(X, labels, WEIGHTS)
    kept = sanitizer.sample_indices_
    same(X_new, X[kept])
    same(weights, WEIGHTS[kept])
    relabelled = np.flatnonzero(y_new != labels[kept])
    assert relabelled.tolist() == sanitizer.relabelled_.tolist()
    for label in "abc":
        n = (labels == label).sum()
        touched = n - (labels[kept] == label).sum()
        touched += (labels[kept][relabelled] == label).sum()
        assert touched <= contamination * n
    assert sanitizer.scores_.shape == y.shape and np.isfinite(sanitizer.scores_).all()


def test_removal_grows_with_contamination(sanitizer):
    touched = []
    for contamination in (0.05, 0.1, 0.2, 0.4):
        sanitizer = clone(sanitizer).set_params(contamination=contamination)
        sanitizer.fit_resample(X, flipped())
        n_removed = len(X) - len(sanitizer.sample_indices_)
        touched.append(n_removed + len(sanitizer.relabelled_))
    assert touched == sorted(touched) and touched[-1] > 0


def test_sanitizers_own_nothing_of_the_caller(sanitizer):
    labels = flipped()
    before = joblib.hash((X, labels, sanitizer.get_params()))
    expected = clone(sanitizer).fit_resample(X, labels)
    assert joblib.hash((X, labels, sanitizer.get_params())) == before
    again = pickle.loads(pickle.dumps(clone(sanitizer).fit(X, labels)))
    if "n_jobs" in sanitizer.get_params(deep=False):
        again.set_params(n_jobs=2)
    for one, other in zip(again.fit_resample(X, labels), expected, strict=True):
        same(one, other)


def test_sanitizers_keep_frames_and_sparse_rows(sanitizer):
    labels = flipped()
    frame = pd.DataFrame(X, columns=list("pqrs"), index=np.arange(len(X)) + 7)
    series = pd.Series(labels, index=frame.index, name="kind")
    X_new, y_new = clone(sanitizer).fit_resample(frame, series)
    plain = clone(sanitizer)
    X_plain, y_plain = plain.fit_resample(X, labels)
    same(X_new, X_plain)
    same(y_new, y_plain)
    assert X_new.index.equals(y_new.index) and y_new.name == "kind"
    assert X_new.index.equals(frame.index[plain.sample_indices_])
    if not get_tags(sanitizer).input_tags.sparse:
        return
    X_new, y_new = clone(sanitizer).fit_resample(csr_array(X), labels)
    assert X_new.format == "csr"
    np.testing.assert_array_equal(y_new, y_plain)


def test_no_class_is_removed_whole(sanitizer):
    if sanitizer.get_params().get("action") == "relabel":
        return
    sanitizer = clone(sanitizer).set_params(contamination=1.0)
    if "max_share" in sanitizer.get_params(deep=False):  # a cluster at most
        assert set(sanitizer.fit_resample(X, y)[1]) == set(y)
        return
    if "threshold" in sanitizer.get_params(deep=False):
        sanitizer.set_params(threshold=0.0)
    with pytest.raises(ValueError, match="removes every row of"):
        sanitizer.fit_resample(X, y)


def pytest_generate_tests(metafunc):
    attacks = [*POISONERS, *TARGETED_POISONERS]
    for name, family in (("attack", attacks), ("sanitizer", SANITIZERS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, family, ids=lambda e: type(e).__name__)
