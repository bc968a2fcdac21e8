"""The share of a group in a training set."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.privacy import PropertyInference, _property, make_records


def customers(n=2200, seed=0):
    """Two groups whose labels go by different columns, the last of which says who is in
    which."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, size=n)
    X = np.column_stack([rng.normal(size=(n, 3)), group])
    return X, X[:, 0] + 2 * group * X[:, 1]


def of_share(records, member, share, n=300):
    """Records of which so many belong to the group."""
    k = round(share * n)
    rows = np.r_[np.flatnonzero(member)[:k], np.flatnonzero(~member)[: n - k]]
    return records.iloc[rows] if hasattr(records, "iloc") else records[rows]


def attacked(share, **parameters):
    X, score = customers()
    records = make_records(X, (score > 0).astype(int))
    theirs = of_share(records[:700], X[:700, 3] == 1, share)
    target = LogisticRegression().fit(theirs[:, :-1], theirs[:, -1])
    parameters = {"n_shadow_models": 24, "shadow_size": 300, **parameters}
    attack = PropertyInference(FrozenEstimator(target), group=(3, 1), **parameters)
    return attack.fit(records[700:])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_share_is_found(share):
    attack = attacked(share)
    assert attack.share_ == pytest.approx(share, abs=0.15)
    low, high = attack.interval_
    assert low < attack.share_ < high and high - low < 0.5
    assert attack.error_ < 0.1 < 0.18 < attack.prior_error_ < 0.3
    assert attack.r2_ > 0.7
    # The shadows have the shares that they are said to have.
    assert attack.shadow_shares_.min() >= 0.1 and attack.shadow_shares_.max() <= 0.9
    assert np.ptp(attack.shadow_shares_) > 0.5


def test_workers_send_answers_and_no_models(monkeypatch):
    sent, fit_many = [], _property.fit_many

    def counted(*args, **options):
        sent.extend(fit_many(*args, **options))
        return sent

    monkeypatch.setattr(_property, "fit_many", counted)
    forest = RandomForestClassifier(50, random_state=0)
    attack = attacked(0.5, shadow_estimator=forest, n_shadow_models=8)
    assert len(sent) == 8 and max(len(pickle.dumps(found)) for found in sent) < 10_000
    np.testing.assert_array_equal(attack.shadow_answers_, sent)
    assert not any("shadow_estimators" in name for name in vars(attack))


def test_a_group_that_leaves_no_trace_is_not_found():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 4))
    records = make_records(X, (X[:, 0] > 0).astype(int))
    target = LogisticRegression().fit(X[:200], records[:200, -1])
    attack = PropertyInference(
        FrozenEstimator(target),
        group=lambda rows: rows[:, 3] > 0,  # the label has nothing to do with it
        n_shadow_models=24,
        n_queries=40,
    )
    attack.fit(records[200:])
    assert attack.r2_ < 0.5
    low, high = attack.interval_
    assert high - low > 0.25


def test_frames_functions_and_regressors():
    X, score = customers(900)
    frame = pd.DataFrame(X[:, :3], columns=list("abc"))
    frame["town"] = np.where(X[:, 3] == 1, "east", "west")
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), remainder="passthrough"
    )
    recipe = make_pipeline(encode, LinearRegression())
    records = make_records(frame, score)
    theirs = of_share(records[:400], X[:400, 3] == 1, 0.7, n=200)
    target = FrozenEstimator(recipe.fit(theirs[frame.columns], theirs["label"]))
    attack = PropertyInference(
        target, group=("town", "east"), n_shadow_models=16, label_column="label"
    )
    attack.fit(records[400:])
    assert attack.share_ == pytest.approx(0.7, abs=0.2) and attack.r2_ > 0.5
    same = clone(attack).set_params(group=lambda f: (f["town"] == "east").to_numpy())
    assert same.fit(records[400:]).share_ == attack.share_
    assert list(attack.queries_.columns) == list(records.columns)
    plain = np.column_stack([X, score])
    by_number = PropertyInference(
        FrozenEstimator(LinearRegression().fit(X[:400], score[:400])),
        group=(-2, 1.0),
        n_shadow_models=8,
    )
    assert by_number.fit(plain[400:]).n_features_in_ == 5


def test_it_is_repeatable_and_leaves_the_target_alone():
    attack = attacked(0.5, n_shadow_models=8)
    before = pickle.dumps(attack.estimator)
    with joblib.parallel_config(backend="threading"):
        again = attacked(0.5, n_shadow_models=8)
    assert again.share_ == pytest.approx(attack.share_, abs=1e-9)
    assert pickle.dumps(attack.estimator) == before
    # No shadow was trained on a query.
    queries = {row.tobytes() for row in attack.queries_}
    assert len(queries) == 200


def test_errors_say_what_to_do():
    X, score = customers(200)
    records = make_records(X, (score > 0).astype(int))
    target = FrozenEstimator(LogisticRegression().fit(X, records[:, -1]))

    def fit(rows=records, target=target, group=(3, 1), **parameters):
        attack = PropertyInference(target, group, n_shadow_models=8, **parameters)
        return attack.fit(rows)

    for shares in ((0.5, 0.5), (0.9, 0.1), (0.1,), (0, "1"), (0, 2)):
        with pytest.raises(ValueError, match="shares must be two numbers"):
            fit(shares=shares)
    with pytest.raises(ValueError, match=r"there are 0 records of the group"):
        fit(group=(3, 7))
    with pytest.raises(ValueError, match="there are 0 records of others"):
        fit(group=lambda rows: np.ones(len(rows), dtype=bool))
    with pytest.raises(ValueError, match="must return a bool for each of the 200"):
        fit(group=lambda rows: rows[:, 3])
    with pytest.raises(ValueError, match="group must be a function or a pair"):
        fit(group=(3,))
    with pytest.raises(ValueError, match="column 9|does not exist"):
        fit(group=(9, 1))
    with pytest.raises(ValueError, match="can be had for at most"):
        fit(shadow_size=150)
    with pytest.raises(TypeError, match="Ridge must be a classifier"):
        fit(shadow_estimator=Ridge())
    with pytest.raises(TypeError, match="no predict_proba"):
        fit(target=FrozenEstimator(LinearSVC().fit(X, records[:, -1])))
    with pytest.raises(ValueError, match="n_shadow_models"):
        PropertyInference(target, (3, 1), n_shadow_models=4).fit(records)
    tree = DecisionTreeClassifier(max_depth=2)
    assert 0 <= fit(shadow_estimator=tree).share_ <= 1
