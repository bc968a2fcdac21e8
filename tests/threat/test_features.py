"""What data tells of columns, what it may tell wrongly, and what stays as it is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklearn_advsec.threat import FeatureConstraints

rng = np.random.default_rng(0)
N = 300
LANDS = rng.choice(["new_land", "old_land", "no_land"], N)
JOBS = rng.choice(["clerk", "nurse", "smith", "judge"], N)


def learned(column, **options):
    X = pd.DataFrame({"c": column})
    return FeatureConstraints.from_frame(X, **options)


# One-hot groups -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bool, float, np.uint8])
@pytest.mark.parametrize("sep", ["_", "=", "__", " is ", ": "])
def test_groups_of_get_dummies_are_found_by_name(sep, dtype):
    """Values hold the separator, and the columns stand anywhere."""
    X = pd.get_dummies(pd.DataFrame({"land": LANDS, "job": JOBS}), prefix_sep=sep)
    X = X.astype(dtype).assign(age=rng.integers(18, 80, N), flag=rng.random(N) > 0.5)
    X = X[rng.permutation(X.columns)]
    features = FeatureConstraints.from_frame(X).features
    for name in ("land", "job"):
        groups = {features[c].group for c in X.columns if c.startswith(name)}
        assert len(groups) == 1 and groups != {None}
        (group,) = groups
        assert {c for c in X.columns if features[c].group == group} == {
            c for c in X.columns if c.startswith(name)
        }
    assert features["flag"].group is features["age"].group is None


def test_groups_without_their_first_category_may_be_empty():
    X = pd.get_dummies(pd.DataFrame({"land": LANDS, "job": JOBS}), drop_first=True)
    constraints = FeatureConstraints.from_frame(X)
    features = constraints.features
    assert all(f.baseline and f.group in ("land", "job") for f in features.values())
    assert [d.guess for d in constraints.doubts_] == [
        "one-hot without its first category"
    ] * 2
    # From any country to any other, or to the one that has no column.
    wish = pd.DataFrame(0.4, index=X.index, columns=X.columns)
    wish["job_nurse"] = 0.9
    found = constraints.project(X, wish)
    assert constraints.violations(X, found) == []
    assert not found.filter(like="land").any(axis=None)
    assert found["job_nurse"].all() and found["job_smith"].sum() == 0
    bad = X.assign(job_nurse=True, job_smith=True)
    assert {v.reason for v in constraints.violations(X, bad)} == {
        "one-hot group has not just one column at 1"
    }


def test_every_projection_and_sample_of_dummies_is_one_hot():
    for drop_first in (False, True):
        X = pd.get_dummies(
            pd.DataFrame({"land": LANDS, "a": rng.normal(size=N)}), drop_first=drop_first
        )
        for limits in ({}, {"max_changed": 1}, {"max_cost": 0.8}):
            constraints = FeatureConstraints.from_frame(X).limit(**limits)
            wish = pd.DataFrame(rng.normal(size=X.shape), X.index, X.columns)
            for found in (constraints.project(X, wish), constraints.sample(X)):
                assert constraints.violations(X, found) == []
                ones = found.filter(like="land").sum(axis=1)
                assert (ones <= 1).all() and (drop_first or (ones == 1).all())
                assert found.dtypes.equals(X.dtypes)


def test_flags_that_only_happen_to_differ_are_no_group():
    flags = pd.DataFrame({f"has_{c}": rng.random(N) > 0.5 for c in "abc"})
    rare = pd.DataFrame({f"is_{c}": np.arange(N) == i for i, c in enumerate("abc")})
    features = FeatureConstraints.from_frame(flags.join(rare)).features
    assert {f.group for f in features.values()} == {None}


def test_two_features_under_one_prefix_are_two_groups():
    X = pd.get_dummies(pd.DataFrame({"home_land": LANDS, "home_job": JOBS}))
    features = FeatureConstraints.from_frame(X).features
    assert {f.group for f in features.values()} == {"home_land", "home_job"}


def test_multiindex_columns_are_grouped_by_their_first_levels(tmp_path):
    X = pd.get_dummies(pd.Series(LANDS))
    X.columns = pd.MultiIndex.from_tuples([("land", c) for c in X.columns])
    constraints = FeatureConstraints.from_frame(X)
    assert len({f.group for f in constraints.features.values()}) == 1
    constraints.set(("land", "no_land"), cost=2.0)
    constraints.set(list(X.columns[:2]), scale=3.0).set(X.columns, step=1.0)
    assert [f.scale for f in constraints.features.values()] == [3.0, 3.0, 1.0]
    constraints.save(tmp_path / "c.toml")
    again = FeatureConstraints.load(tmp_path / "c.toml")
    assert again.features == constraints.features
    assert again.features["land", "no_land"].cost == 2.0


# Steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "step"),
    [
        ([-1, 1], "integer", 2.0),
        ([0.0, 0.5], "continuous", 0.5),
        ([0, 1], "binary", 1.0),
        ([3, 7], "integer", 4.0),
    ],
)
def test_of_two_values_nothing_between_is_reached(values, kind, step):
    X = np.array(values)[rng.integers(0, 2, N)][:, None]
    constraints = FeatureConstraints.from_frame(X)
    assert constraints.features[0].kind == kind
    assert kind == "binary" or constraints.features[0].step == step
    found = constraints.project(X, rng.uniform(values[0] - 1, values[1] + 1, (N, 1)))
    assert set(found[:, 0]) == set(values)
    assert kind == "binary" or constraints.doubts_[0].guess == "two values"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_decimal_places_are_steps_however_large_the_range(dtype):
    top = 5_000_000 if dtype == np.float64 else 900
    money = np.round(rng.uniform(0, top, 200), 2).astype(dtype)
    constraints = FeatureConstraints.from_frame(money[:, None])
    assert constraints.features[0].step == pytest.approx(0.01)
    found = constraints.project(money[:, None], money[::-1, None] + dtype(0.123))
    moves = (found - money[:, None]).astype(float) * 100
    assert np.abs(moves - np.rint(moves)).max() < 0.01
    free = rng.normal(size=200).astype(dtype) * top
    assert FeatureConstraints.from_frame(free[:, None]).features[0].step is None


# Doubts ---------------------------------------------------------------------------------


def doubtful_frame():
    days = pd.date_range("2024-01-01", periods=N, freq="h")
    return pd.DataFrame(
        {
            "customer": np.arange(N) + 1000,
            "zip": rng.choice(rng.integers(10_000, 99_999, 200), N),
            "answer": rng.integers(1, 6, N),
            "sign": rng.choice([-1, 1], N),
            "when": days,
            "mail": [f"user{i}@example.org" for i in range(N)],
            "age": rng.integers(18, 90, N),
            "income": rng.normal(size=N),
            "job": JOBS,
        }
    )


def test_keys_dates_and_unique_texts_are_frozen():
    X = doubtful_frame()
    constraints = FeatureConstraints.from_frame(X)
    frozen = {name for name, f in constraints.features.items() if not f.mutable}
    assert frozen == {"customer", "when", "mail"}
    wish = X.iloc[::-1].set_axis(X.index)
    found = constraints.project(X, wish)
    assert found[list(frozen)].equals(X[list(frozen)])
    assert (found["job"] == wish["job"]).all() and (found["age"] == wish["age"]).all()


def test_doubts_name_column_guess_reason_and_the_line_that_corrects():
    constraints = FeatureConstraints.from_frame(doubtful_frame())
    columns = [doubt.column for doubt in constraints.doubts_]
    assert columns == ["customer", "zip", "answer", "sign", "when", "mail"]
    shown = repr(constraints)
    for doubt in constraints.doubts_:
        assert doubt.correction in shown and doubt.reason in shown
    while constraints.doubts_:  # each line runs, and its column is no longer in doubt
        doubt = constraints.doubts_[0]
        eval(doubt.correction, {"constraints": constraints})
        assert doubt.column not in {other.column for other in constraints.doubts_}
    assert constraints.features["answer"].kind == "ordinal"
    assert constraints.features["answer"].upper == 4.0
    assert not constraints.features["zip"].mutable
    assert constraints.features["customer"].mutable
    assert "doubt" not in repr(constraints)


def test_plain_measurements_raise_no_doubt():
    X = pd.DataFrame(
        {"a": rng.normal(size=N), "b": rng.integers(0, 5000, N), "c": rng.random(N) > 0.5}
    )
    assert FeatureConstraints.from_frame(X).doubts_ == []
    assert FeatureConstraints.from_frame(X.to_numpy(float)).doubts_ == []


# Rows beyond the data -------------------------------------------------------------------


def test_an_ordinary_test_split_is_accepted_and_keeps_what_is_beyond():
    X = doubtful_frame().assign(rate=rng.normal(size=N) ** 3)
    rare = X.assign(job=np.where(np.arange(N) == 7, "pilot", X["job"]))
    train, test = rare.drop(index=[7]).iloc[:200], rare.loc[[7, *range(220, 300)]].copy()
    test.loc[test.index[3], "rate"] = 99.0
    test.loc[test.index[4], "age"] = 120
    constraints = FeatureConstraints.from_frame(train)
    constraints.check(test)
    for found in (constraints.sample(test), constraints.project(test, test.iloc[::-1])):
        assert constraints.violations(test, found) == []
        assert found.loc[7, "job"] == "pilot"
        assert found["rate"].iloc[3] <= 99.0 and found["age"].iloc[4] <= 120
        assert found["when"].equals(test["when"])
    # No row may become a pilot, nor may one pilot be another unknown job.
    for job in ("pilot", "queen"):
        worse = test.assign(job=job)
        reasons = {v.reason for v in constraints.violations(test, worse)}
        assert "is of an unknown category" in reasons
    assert constraints.violations(test, test) == []


def test_values_that_are_no_steps_stay():
    X = np.arange(40.0)[:, None] % 7
    constraints = FeatureConstraints.from_frame(X).set(0, mutable=True)
    half = np.array([[2.5], [3.0]])
    np.testing.assert_array_equal(constraints.project(half, half + 2), [[2.5], [5]])
    assert constraints.violations(half, half + 1)[0].reason == "is not a whole number"


def test_rows_without_a_known_category_of_a_group_keep_it():
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    X = encoder.fit_transform(JOBS[:, None])
    test = encoder.transform([["pilot"], ["nurse"]])
    constraints = FeatureConstraints.from_frame(X)
    constraints.check(test)
    wish = np.tile([[0.0, 0, 0, 1]], (2, 1))
    np.testing.assert_array_equal(constraints.project(test, wish), [[0] * 4, wish[1]])


def test_unknown_numbers_of_categories_keep_their_values():
    X = np.array([[1.0, 0], [2, 1], [5, 0]])
    constraints = FeatureConstraints.from_frame(X)
    constraints.set(0, kind="categorical", categories=[1, 2, 5])
    found = constraints.project(np.array([[9.0, 0]]), np.array([[2.0, 1]]))
    np.testing.assert_array_equal(found, [[9, 1]])


# Missing values -------------------------------------------------------------------------


def test_what_is_missing_has_not_moved():
    X = pd.DataFrame({"a": rng.random(60), "job": rng.choice(["x", "y", None], 60)})
    X.loc[3, "a"] = np.nan
    constraints = FeatureConstraints.from_frame(X)
    cost, changed = constraints.distance(X, X)
    assert cost.max() == changed.max() == 0
    # Filling a gap is a move, and none that is allowed.
    full = X.fillna({"a": 0.5, "job": "x"})
    lost = X.isna().sum(axis=1).to_numpy()
    assert (constraints.distance(X, full)[0] == lost).all()
    assert {v.row for v in constraints.violations(X, full)} == set(np.flatnonzero(lost))
    pd.testing.assert_frame_equal(constraints.project(X, full), X)


def test_values_go_missing_at_the_price_of_one_scale():
    X = pd.DataFrame({"a": [0.0, 1, 2, np.nan], "b": [0.0, 10, 20, 5], "c": list("xyxy")})
    constraints = FeatureConstraints.from_frame(X).set("a", cost=3.0)
    gone = pd.DataFrame({"a": np.nan, "b": np.nan, "c": ["x", "y", "x", None]})
    found = constraints.project(X, gone)  # `b` and `c` may not go missing
    assert found["a"].isna().all() and found[["b", "c"]].equals(X[["b", "c"]])
    np.testing.assert_array_equal(constraints.distance(X, found)[0], [3, 3, 3, 0])
    constraints.limit(max_cost=2.9)
    pd.testing.assert_frame_equal(constraints.project(X, gone), X)
    constraints.limit(max_cost=3.0)
    assert constraints.project(X, gone)["a"].isna().all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, "Float32", np.float64])
def test_what_a_type_cannot_hold_is_rounded_towards_the_row(dtype):
    """Away from it, a row would cost more than it may."""
    X = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200)}).astype(dtype)
    constraints = FeatureConstraints.from_frame(X).limit(max_cost=0.3)
    found = constraints.project(X, X.iloc[::-1].set_axis(X.index))
    assert found.dtypes.equals(X.dtypes)
    cost, changed = constraints.distance(X, found)
    assert cost.max() <= 0.3 + 1e-9 and changed.min() > 0


def test_large_integers_do_not_go_through_floats():
    ids = 2**62 + np.arange(50) * 3 + 1
    X = pd.DataFrame({"id": ids, "n": 2**60 + ids % 7, "a": rng.normal(size=50)})
    constraints = FeatureConstraints.from_frame(X)
    found = constraints.project(X, X.assign(a=-X["a"]))
    assert found[["id", "n"]].equals(X[["id", "n"]]) and not found["a"].equals(X["a"])


@pytest.mark.filterwarnings("error")
def test_squares_of_large_numbers_do_not_overflow():
    X = rng.normal(size=(100, 1)) * 1e200
    scale = FeatureConstraints.from_frame(X, scale="std").features[0].scale
    assert scale == pytest.approx((X / 1e200).std() * 1e200)


def test_scales_and_frames_that_say_nothing_are_refused_by_name():
    with pytest.raises(ValueError, match="scale must be one of .*'sdt'.*did you mean"):
        learned([1, 2], scale="sdt")
    with pytest.raises(ValueError, match="column 'c' holds values that cannot be cat"):
        learned([[1], [2]])
    with pytest.raises(ValueError, match="column 'c' holds infinite"):
        learned([1.0, np.inf])
    with pytest.raises(ValueError, match="column 'c' holds no values"):
        learned([np.nan, np.nan])


@pytest.mark.parametrize(
    "X",
    [
        *(None, 3, "ab", [1, 2], [[1], [2, 3]], [["a", "b"]], [[1j, 0]]),
        *(np.ones((2, 2, 2)), np.ma.masked_equal(np.eye(2), 1), [[10**400, 1]]),
    ],
)
def test_what_holds_no_rows_is_refused_by_name(X):
    constraints = FeatureConstraints.from_frame(np.eye(2))
    for ask in (
        FeatureConstraints.from_frame,
        lambda X: constraints.project(X, X),
        lambda X: constraints.violations(np.eye(2), X),
        constraints.sample,
        constraints.check,
    ):
        with pytest.raises(ValueError, match="^X |X(_ref)? (must|has|is)"):
            ask(X)


def test_frames_of_polars_keep_their_kind():
    pytest.importorskip("narwhals")
    polars = pytest.importorskip("polars")
    X = polars.DataFrame(
        {
            "job": [None, *JOBS[1:].tolist()],
            "n": rng.integers(0, 9, N),
            "flag": rng.random(N) > 0.5,
            "rate": rng.normal(size=N),
        }
    )
    constraints = FeatureConstraints.from_frame(X)
    assert constraints.features["job"].missing and constraints.features["n"].step == 1
    assert constraints.violations(X, X) == []
    for found in (constraints.project(X, X[::-1]), constraints.sample(X)):
        assert type(found) is type(X) and found.schema == X.schema
        assert constraints.violations(X, found) == [] and not found.equals(X)
    assert constraints.distance(X, X)[0].max() == 0


def test_a_pipeline_on_dummies_is_attacked_within_its_groups():
    from sklearn.frozen import FrozenEstimator

    from sklearn_advsec.evasion import GreedyFeatureAttack

    X = pd.get_dummies(pd.DataFrame({"land": LANDS, "a": rng.normal(size=N)}))
    y = ((LANDS == "no_land") ^ (X["a"] > 0.3)).astype(int)
    A, B, p, q = train_test_split(X, y, random_state=0)
    model = make_pipeline(LogisticRegression()).fit(A, p)
    constraints = FeatureConstraints.from_frame(A)
    attack = GreedyFeatureAttack(FrozenEstimator(model), constraints=constraints)
    found = attack.fit(A).run(B, q).X_adv
    assert constraints.violations(B, found) == []
    assert (found.filter(like="land").sum(axis=1) == 1).all()
    assert (found != B).any(axis=None)
