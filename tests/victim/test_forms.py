"""Rows in, rows out: of the same kind, with what is whole still whole."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from sklearn_advsec import evasion, extraction, privacy
from sklearn_advsec._rows import RowCodec, plain_rows
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import certify
from sklearn_advsec.victim import GradientAccess, LabelAccess

RNG = np.random.RandomState(0)
N = 60


def _mixed():
    frame = pd.DataFrame(
        {
            "a": np.where(RNG.rand(N) < 0.3, np.nan, RNG.rand(N)),
            "b": RNG.rand(N),
            "text": RNG.choice(["x", "y"], N),
            "object": pd.Series(RNG.choice(["u", "v", None], N), dtype=object),
            "category": pd.Categorical(RNG.choice(["k", "l"], N)),
            "Int": pd.array(np.where(RNG.rand(N) < 0.3, None, 3), dtype="Int64"),
            "boolean": pd.array(RNG.choice([True, False, None], N), dtype="boolean"),
        }
    )
    frame.loc[:5, "object"] = None  # the first rows, and all of a small batch
    return frame


FRAME = _mixed()
LABELS = ((FRAME.text == "x") ^ (RNG.rand(N) < 0.2)).to_numpy().astype(int)


def _codes(X):
    return X.apply(lambda column: column.cat.codes)


def _pipe():
    whole = make_pipeline(FunctionTransformer(lambda X: X.astype(float)), SimpleImputer())
    steps = ColumnTransformer(
        [
            ("numbers", FeatureUnion([("impute", SimpleImputer())]), ["a", "b"]),
            ("one_hot", OneHotEncoder(), ["text", "object"]),
            ("cat", FunctionTransformer(_codes), ["category"]),
            ("whole", whole, ["Int", "boolean"]),
        ]
    )
    return make_pipeline(steps, LogisticRegression())


TAKE_NAN = {
    "pipeline": _pipe(),
    "search": GridSearchCV(_pipe(), {"logisticregression__C": [1]}, cv=2),
    "calibrated": CalibratedClassifierCV(_pipe(), cv=2),
    "vote": VotingClassifier([("a", _pipe()), ("b", _pipe())], voting="soft"),
    "stack": StackingClassifier([("a", _pipe())], cv=2),
    "tuned": TunedThresholdClassifierCV(_pipe(), cv=2),
    "fixed": FixedThresholdClassifier(_pipe()),
    "one_vs_rest": OneVsRestClassifier(_pipe()),
}
NO_VIEW = ("tuned", "fixed")  # a threshold has no gradient


@pytest.mark.long
@pytest.mark.parametrize("kind", TAKE_NAN)
def test_a_victim_that_takes_missing_values_is_given_them(kind):
    victim = FrozenEstimator(TAKE_NAN[kind].fit(FRAME, LABELS))
    attacks = [evasion.SquareAttack(victim, eps=0.3, max_queries=10)]
    if kind not in NO_VIEW:
        attacks.append(evasion.ProjectedGradientDescent(victim, eps=0.3, max_iter=3))
    for attack in attacks:
        attack.fit(FRAME)
        for rows in (slice(0, 8), slice(0, 3), slice(6, 7)):
            result = attack.run(FRAME.iloc[rows], LABELS[rows])
            np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
            assert result.X_adv.dtypes.equals(FRAME.dtypes)
            assert result.X_adv.isna().equals(FRAME.iloc[rows].isna())


def test_a_victim_that_takes_none_says_so_itself():
    X = np.where(RNG.rand(20, 3) < 0.2, np.nan, RNG.rand(20, 3))
    y = np.arange(20) % 2
    victim = FrozenEstimator(LogisticRegression().fit(np.nan_to_num(X), y))
    for attack in (
        evasion.ProjectedGradientDescent(victim),
        evasion.SquareAttack(victim, max_queries=5),
        extraction.KnockoffNets(victim, surrogate=LogisticRegression()),
    ):
        with pytest.raises(ValueError, match="NaN"):
            attack.fit(X)
            attack.run(X, y)
    with pytest.raises(ValueError, match="NaN"):
        privacy.LossThreshold(victim).fit(privacy.make_records(X, y)).predict(
            privacy.make_records(X, y)
        )
    with pytest.raises(ValueError, match="NaN"):
        LabelAccess(PretrainedModule(torch.nn.Linear(3, 2)), X)


def test_missing_values_keep_what_they_are():
    codec = RowCodec(FRAME)
    back = codec.decode(codec.encode(FRAME))
    pd.testing.assert_frame_equal(back, FRAME)
    assert back["object"][0] is None  # to an encoder another category than NaN
    known = RowCodec(FRAME, categories={"object": ["v", np.nan, "u", "w"]})
    assert known.decode(known.encode(FRAME))["object"][0] is None
    alone = FRAME.iloc[:3]
    back = RowCodec(alone).decode(RowCodec(alone).encode(alone))
    pd.testing.assert_frame_equal(back, alone)


# Whole numbers ------------------------------------------------------------------------

WHOLE = RNG.randint(0, 50, (60, 4))
IS_LARGE = (WHOLE.sum(1) + RNG.randint(-20, 20, 60) > 100).astype(int)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, bool])
def test_whole_numbers_stay_whole_in_arrays(dtype):
    X = (WHOLE % 2 if dtype is bool else WHOLE).astype(dtype)
    victim = RandomForestClassifier(10, random_state=0).fit(X, IS_LARGE)
    torch.manual_seed(0)
    net = PretrainedModule(torch.nn.Linear(4, 2))
    for attack in (
        evasion.SquareAttack(FrozenEstimator(victim), eps=10.0, max_queries=30),
        evasion.PointwiseAttack(FrozenEstimator(victim), max_queries=40),
        evasion.ProjectedGradientDescent(net, eps=10.5),
        evasion.DeepFool(net),
        evasion.HopSkipJump(net, max_queries=60),
    ):
        result = attack.fit(X).run(X)
        assert result.X_adv.dtype == dtype
        model = attack.estimator_
        np.testing.assert_array_equal(model.predict(result.X_adv), result.y_pred)
        flipped = model.predict(result.X_adv) != model.predict(X)
        np.testing.assert_array_equal(result.success, flipped)
        if hasattr(attack, "eps"):
            assert abs(result.X_adv.astype(float) - X).max() <= attack.eps


def test_success_is_about_the_rows_returned():
    frame = pd.DataFrame(WHOLE, columns=list("abcd"))
    torch.manual_seed(0)
    net = PretrainedModule(torch.nn.Linear(4, 2))
    access = GradientAccess(net, frame)
    assert not access.exact and GradientAccess(net, frame * 1.0).exact
    for attack in (
        evasion.DeepFool(net),
        evasion.CarliniWagner(net, max_iter=20, n_searches=2),
        evasion.FastMinimumNorm(net, max_iter=20),
        evasion.ProjectedGradientDescent(net, eps=3.0),
        evasion.HopSkipJump(net, max_queries=80),
    ):
        result = attack.fit(frame).run(frame)
        flipped = net.predict(result.X_adv) != net.predict(frame)
        np.testing.assert_array_equal(result.success, flipped)
        np.testing.assert_array_equal(result.y_pred, net.predict(result.X_adv))


# Other libraries ----------------------------------------------------------------------


def _polars():
    pytest.importorskip("narwhals")
    polars = pytest.importorskip("polars")
    text = RNG.choice(["x", "y"], N).tolist()
    return polars.DataFrame(
        {
            "a": RNG.rand(N),
            "n": RNG.randint(0, 20, N),
            "gap": [None if i % 7 == 0 else i for i in range(N)],
            "text": [None if i % 9 == 0 else value for i, value in enumerate(text)],
            "category": polars.Series(text, dtype=polars.Categorical),
            "flag": [i % 2 == 0 for i in range(N)],
            "real": [None if i % 5 == 0 else i / 2 for i in range(N)],
        }
    )


def test_frames_of_polars_come_back_as_they_are():
    frame = _polars()
    plain, restore = plain_rows(frame)
    assert [str(t) for t in plain.dtypes] == [
        "float64", "int64", "Int64", "object", "category", "bool", "float64"
    ]  # fmt: skip
    assert restore(plain).equals(frame)
    codec = RowCodec(plain)
    assert restore(codec.decode(codec.encode(plain))).equals(frame)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_one_column_by_itself_is_no_table(kind):
    library = pytest.importorskip(kind)
    y = np.arange(20) % 2
    attack = evasion.SquareAttack(LogisticRegression())
    with pytest.raises(ValueError, match="2D array, got 1D|2-dimensional"):
        attack.fit(library.Series(np.arange(20.0)), y)
    with pytest.raises(TypeError, match="TextSubstitution"):
        attack.fit(library.Series(["some words"] * 20), y)


def test_polars_in_polars_out():
    frame = _polars()
    y = (frame["a"].to_numpy() + frame["n"].to_numpy() / 20 > 1).astype(int)
    columns = ColumnTransformer(
        [
            ("number", SimpleImputer(), ["a", "n", "gap", "real"]),
            ("text", OneHotEncoder(), ["text", "category", "flag"]),
        ]
    )
    victim = FrozenEstimator(
        make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(frame, y)
    )
    attack = evasion.ProjectedGradientDescent(victim, eps=3.0).fit(frame, y)
    result = attack.run(frame, y)
    assert type(result.X_adv) is type(frame) and result.X_adv.schema == frame.schema
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    assert result.success.any() and type(attack.transform(frame)) is type(frame)
    constraints = FeatureConstraints.from_frame(frame)
    assert list(constraints.features) == frame.columns
    greedy = evasion.GreedyFeatureAttack(victim, constraints=constraints, max_queries=30)
    result = greedy.fit(frame).run(frame[:10])
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    thief = extraction.KnockoffNets(victim, surrogate=victim.estimator).fit(frame)
    assert thief.n_queries_ > 0 and len(thief.predict(frame)) == N
    records = privacy.make_records(frame, y)
    privacy.LossThreshold(victim).fit(records).predict(records)
    numbers = frame.select("a", "n")
    forest = RandomForestClassifier(5, random_state=0).fit(numbers, y)
    assert len(certify(forest, numbers)) == N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_tensors_in_tensors_out(dtype):
    X = torch.as_tensor(WHOLE).to(dtype)
    torch.manual_seed(0)
    net = PretrainedModule(torch.nn.Linear(4, 2))
    y = torch.as_tensor(net.predict(X))
    attack = evasion.ProjectedGradientDescent(net, eps=5.0).fit(X, y)
    result = attack.run(X, y)
    assert isinstance(result.X_adv, torch.Tensor) and result.X_adv.dtype == dtype
    assert isinstance(attack.transform(X), torch.Tensor)
    flipped = net.predict(result.X_adv) != y.numpy()
    np.testing.assert_array_equal(result.success, flipped)
    assert 0 <= attack.score(X, y) < 1


def test_sparse_columns_are_refused_with_what_to_write():
    dense = pd.DataFrame(RNG.rand(20, 3).round(), columns=list("abc"))
    y = np.arange(20) % 2
    victim = FrozenEstimator(LogisticRegression().fit(dense, y))
    sparse = dense.astype(pd.SparseDtype(float, 0.0))
    mixed = sparse.assign(a=dense.a)
    for frame in (sparse, mixed):
        with pytest.raises(TypeError, match=r"sparse columns.*to_dense\(\)"):
            evasion.SquareAttack(victim, max_queries=5).fit(frame)
    evasion.SquareAttack(victim, max_queries=5).fit(sparse.sparse.to_dense())
    advice = {c: t.subtype for c, t in mixed.dtypes.items() if "Sparse" in str(t)}
    evasion.SquareAttack(victim, max_queries=5).fit(mixed.astype(advice))


def test_hard_votes_are_attacked_through_their_view():
    X = np.random.RandomState(0).randn(80, 3)
    y = X.argmax(axis=1)
    votes = VotingClassifier(
        [(str(i), LogisticRegression(C=10.0**-i)) for i in range(3)], voting="hard"
    ).fit(X, y)
    result = (
        evasion.ProjectedGradientDescent(FrozenEstimator(votes), eps=1.0)
        .fit(X)
        .run(X, votes.predict(X))
    )
    assert result.success.mean() > 0.3
    np.testing.assert_array_equal(votes.predict(result.X_adv), result.y_pred)


def test_histogram_trees_with_missing_values_need_nothing():
    X = np.where(RNG.rand(60, 3) < 0.2, np.nan, RNG.rand(60, 3))
    y = (np.nan_to_num(X[:, 0]) > 0.4).astype(int)
    victim = HistGradientBoostingClassifier(max_iter=5).fit(X, y)
    attack = evasion.SquareAttack(FrozenEstimator(victim), eps=0.5, max_queries=20)
    result = attack.fit(X).run(X, y)
    np.testing.assert_array_equal(np.isnan(result.X_adv), np.isnan(X))
