"""Feature constraints: what they infer, what they refuse, and what they project onto."""

import copy
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import LinearConstraint, minimize

from sklearn_advsec.threat import FeatureConstraints

rng = np.random.default_rng(0)
N = 300


def make_frame(n=N, seed=0):
    rng = np.random.default_rng(seed)
    opened = rng.integers(0, 10, n)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.integers(10, 900, n) * 100,
            "rate": rng.normal(size=n),
            "job": rng.choice(["clerk", "nurse", "smith"], n),
            "home": rng.random(n) > 0.5,
            "school": pd.Categorical(
                rng.choice(["low", "mid", "high"], n),
                ["low", "mid", "high"],
                ordered=True,
            ),
            "open_acc": opened,
            "total_acc": opened + rng.integers(0, 10, n),
        },
        index=np.arange(n) + 5,
    )
    frame.loc[frame.index[3], "rate"] = np.nan
    return frame


def random_rows(X, seed=1):
    """Rows that are random in every respect: mostly invalid."""
    rng = np.random.default_rng(seed)
    other = X.iloc[rng.permutation(len(X))].set_axis(X.index)
    wild = {
        name: other[name].astype(float) + rng.normal(size=len(X)) * 5
        if other[name].dtype.kind in "if"
        else other[name]
        for name in X.columns
    }
    return pd.DataFrame(wild, index=X.index)


# What data tells ------------------------------------------------------------------------


def test_kinds_bounds_steps_and_scales_are_learned():
    X = make_frame()
    features = FeatureConstraints.from_frame(X).features
    assert {name: f.kind for name, f in features.items()} == {
        "age": "integer",
        "income": "integer",
        "rate": "continuous",
        "job": "categorical",
        "home": "ordinal",
        "school": "ordinal",
        "open_acc": "integer",
        "total_acc": "integer",
    }
    assert (features["age"].lower, features["age"].upper) == (18, 79)
    assert features["income"].step == 100 and features["age"].step == 1
    assert features["rate"].step is None and features["rate"].missing
    assert features["job"].categories == ["clerk", "nurse", "smith"]
    assert features["school"].categories == ["low", "mid", "high"]
    assert all(f.mutable and f.direction is None for f in features.values())
    assert features["income"].scale == np.ptp(X["income"])
    quartiles = FeatureConstraints.from_frame(X, scale="iqr").features["income"].scale
    assert quartiles == np.subtract(*np.percentile(X["income"], [75, 25]))
    std = FeatureConstraints.from_frame(X, scale="std").features["income"].scale
    assert std == pytest.approx(X["income"].std(ddof=0))


def test_price_like_columns_have_a_step():
    prices = np.round(rng.uniform(1, 9, 400), 2)
    features = FeatureConstraints.from_frame(prices[:, None]).features
    assert features[0].kind == "continuous" and features[0].step == pytest.approx(0.01)


def test_one_hot_groups_are_found_in_frames_and_arrays():
    X = pd.get_dummies(make_frame()[["job", "school", "age"]], dtype=float)
    features = FeatureConstraints.from_frame(X).features
    assert [f.group for f in features.values()] == [None] + ["job"] * 3 + ["school"] * 3
    features = FeatureConstraints.from_frame(X.to_numpy()).features
    groups = [f.group for f in features.values()]
    assert groups[0] is None and len(set(groups[1:4])) == len(set(groups[4:])) == 1
    assert groups[1] != groups[4]
    free = (rng.random((300, 2)) > 0.5).astype(float)  # binary, and no group
    assert all(
        f.group is None for f in FeatureConstraints.from_frame(free).features.values()
    )


def test_missing_categories_and_nullable_integers():
    X = make_frame()[["job"]].assign(n=pd.array([1, 2, None] * 100, dtype="Int64"))
    X.iloc[0, 0] = np.nan
    constraints = FeatureConstraints.from_frame(X)
    assert constraints.features["job"].missing and constraints.features["n"].missing
    assert constraints.violations(X, X) == []
    pd.testing.assert_frame_equal(constraints.project(X, X), X)
    constraints.set(["job", "n"], missing=False)
    worse = X.copy()
    worse.iloc[4] = [np.nan, pd.NA]
    before = X.iloc[4]
    assert before.notna().all() and len(constraints.violations(X, worse)) == 2
    assert constraints.project(X, worse).iloc[4].equals(before)


# Projections ----------------------------------------------------------------------------


def test_projection_on_lattices_bounds_and_groups_is_the_nearest():
    """Against all rows that there are."""
    X = np.array([[0, 2.0, 1, 0, 0], [3, 4.0, 0, 0, 1], [1, 0.0, 0, 1, 0]])
    constraints = FeatureConstraints.from_frame(np.vstack([X, [[2, 1, 1, 0, 0]]]))
    constraints.set([2, 3, 4], group="g").set(1, step=2.0).set(0, direction="up")
    wanted = np.random.default_rng(1).normal(1, 2, size=(200, 5))
    ref = X[np.arange(200) % 3]
    found = constraints.project(ref, wanted)
    assert constraints.violations(ref, found) == []
    grid = np.array(
        [
            [a, b, *one]
            for a, b in itertools.product(range(4), (0, 2, 4))
            for one in np.eye(3)
        ]
    )
    scale = [f.scale for f in constraints.features.values()]
    for before, wish, got in zip(ref, wanted, found, strict=True):
        allowed = grid[grid[:, 0] >= before[0]]
        best = np.linalg.norm((allowed - wish) / scale, axis=1).min()
        assert np.linalg.norm((got - wish) / scale) == pytest.approx(best)


def exact_projection(constraints, ref, wish, relations):
    """By a general solver, in units of scale."""
    features = list(constraints.features.values())
    scale = np.array([f.scale for f in features])
    bounds = [(f.lower, f.upper) for f in features]
    solved = minimize(
        lambda x: np.sum(((x - wish) / scale) ** 2),
        ref,
        jac=lambda x: 2 * (x - wish) / scale**2,
        bounds=bounds,
        constraints=[LinearConstraint(a, lb, ub) for a, lb, ub in relations],
        method="SLSQP",
        options=dict(ftol=1e-14, maxiter=500),
    )
    return solved.x, scale


@pytest.mark.parametrize(
    ("formulas", "matrices"),
    [
        (["x[0] <= x[1]"], [([1, -1, 0, 0], -np.inf, 0)]),
        (["x[3] == x[0] + 2 * x[1]"], [([1, 2, 0, -1], 0, 0)]),
        (["2 * x[0] - x[1] / 2 <= 0.4 - x[2]"], [([2, -0.5, 1, 0], -np.inf, 0.4)]),
        (
            ["x[0] <= x[1]", "x[1] <= x[2]", "x[0] + x[2] >= x[3]"],
            [
                ([1, -1, 0, 0], -np.inf, 0),
                ([0, 1, -1, 0], -np.inf, 0),
                ([1, 0, 1, -1], 0, np.inf),
            ],
        ),
    ],
)
def test_projection_on_linear_relations_is_the_nearest(formulas, matrices):
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(400, 4)) * [1, 2, 3, 4]
    constraints = FeatureConstraints.from_frame(x)
    for formula in formulas:
        constraints.relate(formula)
    wanted = rng.normal(1, 1.5, size=(25, 4))
    ref = np.clip(np.array([[0.1, 0.3, -0.2, 0.7]] * 25), x.min(0), x.max(0))
    if "==" in formulas[0]:
        ref[:, 3] = ref[:, 0] + 2 * ref[:, 1]
    elif len(matrices) == 3:
        ref = np.tile([0.5, 0.6, 0.7, 0.9], (25, 1))
    found = constraints.project(ref, wanted)
    assert constraints.violations(ref, found) == []
    for wish, got in zip(wanted, found, strict=True):
        best, scale = exact_projection(constraints, ref[0], wish, matrices)
        near = np.linalg.norm((got - wish) / scale)
        assert near <= np.linalg.norm((best - wish) / scale) + 2e-5


def test_repair_recomputes_one_column_and_leaves_the_others():
    X = np.array([[1.0, 2, 3], [4, 4, 8], [0, 9, 9]])
    constraints = FeatureConstraints.from_frame(X).set(2, upper=20.0)
    constraints.relate("x[2] == x[0] + x[1]", repair=2)
    found = constraints.project(X, X + [[2, 1, -3]])
    np.testing.assert_array_equal(found, [[3, 3, 6], [4, 5, 9], [2, 9, 11]])


def test_curved_relations_are_repaired():
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 5, size=(200, 3))
    x[:, 2] = x[:, 0] * x[:, 1]
    constraints = FeatureConstraints.from_frame(x).set(2, mutable=False)
    constraints.relate("x[0] * x[1] >= x[2] - 0.5")
    wanted = x + rng.normal(size=x.shape)
    found = constraints.project(x, wanted)
    assert constraints.violations(x, found) == []
    broken = np.clip(wanted[:, 0], 1, 5) * np.clip(wanted[:, 1], 1, 5) < x[:, 2] - 0.5
    # Newton's steps end on the curve, and do not give up where the row was.
    moved = (found[broken, :2] != x[broken, :2]).any(1)
    assert broken.sum() > 50 and moved.mean() > 0.95


def test_implications_take_the_nearer_way():
    x = np.array([[0.0, 0.0], [10.0, 10.0], [0.1234567, 1.7654321], [3.1, 5.77]])
    constraints = FeatureConstraints.from_frame(x).relate("x[0] > 5 implies x[1] > 5")
    found = constraints.project(x[[0, 0, 0]], [[6, 0.0], [10, 4.0], [4.0, 1.0]])
    np.testing.assert_allclose(found, [[5, 0], [10, 5], [4, 1]], atol=1e-4)
    assert constraints.violations(x[[0, 0, 0]], found) == []


def test_limits_of_cost_and_changes():
    x = np.tile([[0.5, 0.5, 0.5]], (2, 1))
    data = np.array([[0.0, 0, 0], [1, 1, 1]]) + 1e-9 * rng.random((2, 3))
    constraints = FeatureConstraints.from_frame(data).limit(max_changed=1)
    for j in range(3):
        constraints.set(j, kind="continuous", step=None, lower=0.0, upper=1.0, scale=1.0)
    wanted = np.array([[0.6, 0.9, 0.2], [0.0, 0.4, 0.5]])
    found = constraints.project(x, wanted)
    np.testing.assert_allclose(found, [[0.5, 0.9, 0.5], [0, 0.5, 0.5]])
    constraints.limit(max_cost=0.3, max_changed=1).set(1, cost=2.0)
    found = constraints.project(x, wanted)
    assert constraints.distance(x, found)[0] == pytest.approx([0.3, 0.3])
    # max_changed keeps one feature, whose move shrinks to what it may cost.
    np.testing.assert_allclose(found, [[0.5, 0.65, 0.5], [0.2, 0.5, 0.5]])
    # Among several, each gives way in proportion to its cost: min |m - w| as a QP.
    constraints.limit(max_cost=0.6)
    found = constraints.project(x[:1], wanted[:1])
    t = (0.1 + 2 * 0.4 + 0.3 - 0.6) / (1 + 4 + 1)
    assert t <= 0.1
    expected = [[0.1 - t, 0.4 - 2 * t, 0.3 - t]]
    np.testing.assert_allclose(np.abs(found - x[:1]), expected, atol=1e-12)
    np.testing.assert_array_equal(constraints.limit(max_changed=0).sample(x), x)


@pytest.mark.parametrize("seed", range(3))
def test_every_projection_and_every_sample_is_valid(seed):
    X = make_frame(seed=seed)
    constraints = (
        FeatureConstraints.from_frame(X)
        .set("age", direction="up", step=2)
        .set("income", lower=500.0)
        .set("home", mutable=False)
        .set("job", transitions={"clerk": ["nurse"], "smith": []})
        .set("school", direction="up")
        .relate("open_acc <= total_acc")
        .relate("job == 'clerk' implies rate < 3 or age > 30")
        .relate("open_acc > 3 implies income >= 600")
        .limit(max_changed=5)
    )
    X = X[constraints.region.valid(*[constraints.encode(X)] * 2).numpy()]
    assert len(X) > 200
    for found in (
        constraints.project(X, random_rows(X)),
        constraints.sample(X, random_state=0),
    ):
        assert constraints.violations(X, found) == []
        assert found.dtypes.equals(X.dtypes) and found.index.equals(X.index)
        assert (found != X).any(axis=1).mean() > 0.9
        smiths = X["job"] == "smith"
        assert (found["job"][smiths] == "smith").all()
    unchanged = constraints.project(X, X)
    pd.testing.assert_frame_equal(unchanged, X)


def test_violations_name_row_and_reason():
    X = make_frame(6)
    constraints = FeatureConstraints.from_frame(X).set("age", mutable=False)
    constraints.set("income", direction="up").relate("open_acc <= total_acc")
    worse = X.copy()
    worse.iloc[0, 0] += 1
    worse.iloc[1, 1] -= 100
    worse.iloc[2, 6] = worse.iloc[2, 7] + 1
    found = constraints.violations(X, worse)
    assert (0, "age", "may not change") in found
    assert (1, "income", "may only go up") in found
    assert (2, "open_acc <= total_acc", "is broken") in found
    assert {v.row for v in found} == {0, 1, 2}


# Relations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("a + 2 * b <= 7", lambda a, b: a + 2 * b <= 7),
        ("1 < a < b", lambda a, b: (a > 1) & (a < b)),
        ("a > 2 implies b > 2", lambda a, b: ~(a > 2) | (b > 2)),
        (
            "(a > 2 or b > 3) implies not a == b",
            lambda a, b: ~((a > 2) | (b > 3)) | (a != b),
        ),
        # Bound last, and from the right.
        (
            "a > 1 and b > 1 implies a > 2 implies b > 2",
            lambda a, b: ~((a > 1) & (b > 1)) | ~(a > 2) | (b > 2),
        ),
        ("a ** 2 / (b + 1) - -1 >= 3", lambda a, b: a**2 / (b + 1) + 1 >= 3),
        ("a != b and a * b != 4", lambda a, b: (a != b) & (a * b != 4)),
    ],
)
def test_relations_mean_what_they_say(formula, expected):
    grid = np.array(list(itertools.product(range(5), repeat=2)), float)
    X = pd.DataFrame(grid, columns=["a", "b"])
    constraints = FeatureConstraints.from_frame(X).relate(formula)
    broken = {v.row for v in constraints.violations(X, X)}
    right = expected(grid[:, 0], grid[:, 1])
    assert broken == set(np.flatnonzero(~right))


def test_names_in_backticks_and_texts():
    X = make_frame().rename(columns={"age": "age of-person"})
    constraints = FeatureConstraints.from_frame(X)
    constraints.relate("job == 'smith' implies `age of-person` >= 30")
    broken = (X["job"] == "smith") & (X["age of-person"] < 30)
    found = {v.row for v in constraints.violations(X, X)}
    assert found == set(np.flatnonzero(broken))


@pytest.mark.parametrize(
    ("formula", "position"),
    [
        ("age <= salary", 7),
        ("age <= ", 6),
        ("__import__('os').system('x') == 1", 16),
        ("age > 3 implies rate ? 2", 21),
        ("age.real > 1", 3),
        ("[age] == 1", 0),
        ("age > 1 implies job + 1 > 2", 16),
        ("age", 0),
        ("job == 'pilot'", 7),
        ("age @ 2 > 1", 4),
    ],
)
def test_unreadable_relations_show_where(formula, position):
    constraints = FeatureConstraints.from_frame(make_frame())
    with pytest.raises(ValueError, match=rf"relation .* at position {position}:"):
        constraints.relate(formula)
    assert constraints.relations == []


def test_bad_input_is_refused_with_what_to_do():
    X = make_frame()
    constraints = FeatureConstraints.from_frame(X)
    with pytest.raises(ValueError, match="unknown column 'aeg'.*did you mean 'age'"):
        constraints.set("aeg", mutable=False)
    with pytest.raises(ValueError, match="set.. knows no 'frozen'"):
        constraints.set("age", frozen=True)
    with pytest.raises(ValueError, match="unknown column: 'home' is missing"):
        constraints.encode(X.drop(columns="home"))
    with pytest.raises(ValueError, match="infeasible, lower=90"):
        constraints.set("age", lower=90.0)
    with pytest.raises(ValueError, match="transitions name 'pilot'"):
        constraints.set("job", transitions={"clerk": ["pilot"]})
    with pytest.raises(ValueError, match="have no direction"):
        constraints.set("job", direction="up")
    with pytest.raises(ValueError, match="needs a relation that says what it equals"):
        constraints.relate("age <= income", repair="age")
    constraints.relate("age <= open_acc + 80")
    with pytest.raises(ValueError, match="infeasible together with the bounds"):
        constraints.relate("age >= open_acc + 100")
    assert constraints.relations == ["age <= open_acc + 80"]
    with pytest.raises(ValueError, match="row 3 of X breaks the relation 'age <= open_a"):
        constraints.check(X.head(4).assign(age=[20, 20, 20, 200]))


# Files ----------------------------------------------------------------------------------


def test_files_and_copies_are_the_same_constraints(tmp_path):
    X = make_frame()
    constraints = (
        FeatureConstraints.from_frame(X)
        .set("age", direction="up", cost=2.5)
        .set("rate", upper=np.inf)
        .set("job", transitions={"clerk": ["nurse"]})
        .relate("open_acc <= total_acc")
        .relate("total_acc == open_acc + open_acc", repair="total_acc")
        .limit(max_changed=3, max_cost=1.5)
    )
    path = tmp_path / "loan.toml"
    constraints.save(path)
    loaded = FeatureConstraints.load(path)
    for other in (loaded, pickle.loads(pickle.dumps(constraints)), copy.deepcopy(loaded)):
        assert other.features == constraints.features
        assert other._relations == constraints._relations
        assert (other.max_cost, other.max_changed) == (1.5, 3)
    again = tmp_path / "again.toml"
    loaded.save(again)
    assert again.read_text() == path.read_text()
    arrays = FeatureConstraints.from_frame(np.eye(3))
    arrays.save(path)
    assert list(FeatureConstraints.load(path).features) == [0, 1, 2]
    path.write_text("[[features]]\nname = 'a'\nfrozen = true\n")
    with pytest.raises(ValueError, match="unknown key 'frozen'"):
        FeatureConstraints.load(path)


GOOD = """
[[features]]
name = "age"
kind = "integer"
lower = 18
upper = 90

[[features]]
name = "job"
kind = "categorical"
categories = ["clerk", "nurse"]
transitions = {clerk = ["nurse"]}
"""


def test_files_by_hand_are_read(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("max_cost = 3\n" + GOOD + "\n[[relations]]\nformula = 'age < 80'\n")
    constraints = FeatureConstraints.load(path)
    assert constraints.max_cost == 3 and constraints.relations == ["age < 80"]
    assert constraints.features["job"].transitions == {"clerk": ["nurse"]}
    assert constraints.features["age"].upper == 90.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_cos = 3" + GOOD, "unknown key 'max_cos' .did you mean 'max_cost'"),
        (GOOD + "[[relation]]\nformula = 'age < 80'", "'relation' .did you mean 'relat"),
        (GOOD + "[[relations]]\nformla = 'age < 80'", "'formla' .did you mean 'formula"),
        (GOOD + "[[relations]]\nrepair = 'age'", "needs a text as formula"),
        (GOOD + "[[relations]]\nformula = 'agee < 80'", "unknown column 'agee' .did you"),
        ("relations = ['age < 80']" + GOOD, r"must be tables that begin with \[\[relat"),
        (GOOD.replace("[[features]]", "[[feature]]"), "unknown key 'feature' .did you"),
        (GOOD + GOOD, "feature 'age' is named twice"),
        (GOOD.replace("upper", "uper"), "feature 'age' has the unknown key 'uper'"),
        (GOOD.replace("lower = 18", "mutable = 'no'"), "mutable must be True or False"),
        (GOOD.replace("lower = 18", "cost = nan"), "cost must be a number"),
        (GOOD.replace("lower = 18", "cost = inf"), "cost must not be negative"),
        (GOOD.replace("lower = 18", "lower = '18'"), "lower must be a number"),
        (GOOD.replace("lower = 18", "lower = true"), "lower must be a number"),
        (
            GOOD.replace("lower = 18", "lower = 1" + "0" * 400),
            "too large a number|no TOML",
        ),
        (GOOD.replace("lower = 18", "step = 0"), "step must be positive"),
        (GOOD.replace("lower = 18", "group = 3"), "group must be a text"),
        (GOOD.replace("lower = 18", "lower = 91"), "lower=91.0 > upper=90.0"),
        (GOOD.replace('"integer"', '"integr"'), "kind must be one of.*mean 'integer'"),
        (GOOD.replace('"integer"', '["integer"]'), "kind must be one of"),
        (GOOD.replace('["clerk", "nurse"]', "'clerk'"), "categories must be a list"),
        (GOOD.replace('["clerk", "nurse"]', "['clerk', 'clerk']"), "a value twice"),
        (GOOD.replace('["clerk", "nurse"]', "['clerk', ['a']]"), "must be a list of tex"),
        (GOOD.replace('["clerk", "nurse"]', "[{a = 1}]"), "a table where there should"),
        (GOOD.replace('{clerk = ["nurse"]}', "[3]"), "transitions must be pairs"),
        (GOOD.replace('{clerk = ["nurse"]}', "3"), "transitions must be pairs"),
        (GOOD.replace('name = "job"', ""), r"\[\[features\]\] has no name"),
        (GOOD.replace('name = "job"', "name = ['a']"), "its name is no text"),
        ("max_changed = 1.5" + GOOD, "max_changed must be a whole number"),
        ("max_changed = 'a'" + GOOD, "max_changed must be a whole number"),
        ("max_cost = nan" + GOOD, "max_cost must be a number"),
        ("a = " + "[" * 100_000 + GOOD, "nested too deeply"),
        ("max_cost = " + GOOD, "no TOML"),
        ("features = 3", "features must be tables"),
        ("", "holds no .*features"),
    ],
)
def test_what_a_file_does_not_mean_is_refused_with_file_and_key(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        FeatureConstraints.load(path)
    assert str(caught.value).startswith(str(path))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="c.toml: it is no TOML"):
        FeatureConstraints.load(path)


def test_names_and_categories_of_any_kind_survive_a_file(tmp_path):
    n = 40
    X = pd.DataFrame(
        {
            "day": pd.date_range("2024-02-27", periods=n),
            "time": pd.date_range("2024-02-27", periods=n, freq="h", tz="Europe/Paris"),
            "nano": pd.to_datetime(np.arange(n) + 17 * 10**17 + 1),
            "wait": pd.to_timedelta(np.arange(n), unit="min"),
            "month": pd.period_range("2024-01", periods=n, freq="M"),
            "bin": pd.cut(np.arange(n), 3),
            "date": pd.Series(pd.date_range("2024-02-27", periods=n)).dt.date,
            "mixed": ["a", 1] * 20,
            ("two", "levels"): np.arange(n) % 5,
            7: np.arange(n) / 3,
            pd.Timestamp("2024-01-01"): ['"', "\\"] * 20,
        }
    )
    constraints = FeatureConstraints.from_frame(X)
    constraints.save(tmp_path / "c.toml")
    again = FeatureConstraints.load(tmp_path / "c.toml")
    assert again.features == constraints.features
    assert again.violations(X, X) == []
    wish = X.iloc[::-1].set_axis(X.index)
    pd.testing.assert_frame_equal(again.project(X, wish), constraints.project(X, wish))
    assert not again.features["day"].mutable and again.features["bin"].mutable
    with pytest.raises(TypeError, match="cannot be written to TOML"):
        FeatureConstraints.from_frame(X[["mixed"]].map(lambda v: (b"a", v))).save(
            tmp_path / "d.toml"
        )
    assert [p.name for p in tmp_path.iterdir()] == ["c.toml"]


def test_a_file_is_replaced_as_a_whole_and_no_link_is_followed(tmp_path, monkeypatch):
    constraints = FeatureConstraints.from_frame(make_frame())
    path, other = tmp_path / "c.toml", tmp_path / "other"
    constraints.save(path)
    text = path.read_text()
    other.write_text("precious")
    link = tmp_path / "link.toml"
    link.symlink_to(other)
    with pytest.raises(ValueError, match="is a symbolic link"):
        constraints.save(link)
    assert other.read_text() == "precious"

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        constraints.set("age", cost=2.0).save(path)
    assert path.read_text() == text
    assert {p.name for p in tmp_path.iterdir()} == {"c.toml", "other", "link.toml"}


# Refining -------------------------------------------------------------------------------


def test_several_columns_are_set_together_or_not_at_all():
    X = make_frame()
    constraints = FeatureConstraints.from_frame(X)
    for several in (["age", "rate"], ("age", "rate"), X.columns[[0, 2]], {"age", "rate"}):
        constraints.set(several, cost=2.0)
        assert constraints.features["rate"].cost == 2.0
        constraints.set(several, cost=1.0)
    before = dict(constraints.features)
    with pytest.raises(ValueError, match="have no direction"):
        constraints.set(["age", "job"], direction="up")
    with pytest.raises(ValueError, match="unknown column 'aeg'"):
        constraints.set(["age", "aeg"], direction="up")
    assert constraints.features == before
    constraints.set("age", lower=None, upper=None, step=None)
    assert constraints.features["age"].lower == -np.inf
    assert FeatureConstraints.from_frame(np.eye(3)).set((0, 2), cost=3.0).features[2].cost


@pytest.mark.parametrize(
    ("column", "changes", "message"),
    [
        ("age", {"mutable": "no"}, "mutable must be True or False"),
        ("age", {"mutabel": False}, "knows no 'mutabel' .did you mean 'mutable'"),
        ("age", {"cost": np.nan}, "cost must be a number"),
        ("age", {"cost": -1}, "cost must not be negative"),
        ("age", {"lower": "a"}, "lower must be a number"),
        ("age", {"upper": 10**400}, "upper is too large"),
        ("age", {"scale": 0}, "scale must be positive"),
        ("age", {"direction": "upp"}, "direction must be"),
        ("age", {"group": "g"}, "a column of a one-hot group"),
        ("home", {"baseline": True}, "baseline needs a group"),
        ("age", {"categories": [1, 2]}, "categories need kind"),
        ("job", {"categories": "clerk"}, "categories must be a list"),
        ("job", {"categories": [None, "a"]}, "a missing value is no category"),
        ("job", {"transitions": {"clerk": "nurse"}}, "transitions must be a dict"),
        ("school", {"upper": -1}, "infeasible"),
        (3.5, {"cost": 1.0}, "unknown column 3.5"),
        (None, {"cost": 1.0}, "unknown column None"),
    ],
)
def test_changes_that_do_not_fit_are_refused_by_name(column, changes, message):
    constraints = FeatureConstraints.from_frame(make_frame())
    before = dict(constraints.features)
    with pytest.raises(ValueError, match=message):
        constraints.set(column, **changes)
    assert constraints.features == before


@pytest.mark.parametrize(
    "limits",
    [{"max_cost": v} for v in (-1, np.nan, "a", True, [1])]
    + [{"max_changed": v} for v in (-1, 1.5, np.nan, np.inf, "a", True)],
)
def test_limits_that_are_none_are_refused_by_name(limits):
    (name,) = limits
    with pytest.raises(ValueError, match=f"{name} must be"):
        FeatureConstraints.from_frame(np.eye(3)).limit(**limits)


def test_the_table_in_a_notebook_is_escaped():
    X = make_frame().rename(columns={"age": "<script>alert('a')</script>"})
    constraints = FeatureConstraints.from_frame(X).relate("open_acc <= total_acc")
    text = constraints.limit(max_changed=2)._repr_html_()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "open_acc &lt;= total_acc" in text and "max_changed = 2" in text
    assert text.count("<tr>") == 9 == text.count("</tr>")


def test_importance_makes_telling_features_dear():
    X = make_frame()
    label = (X["age"] > 50).astype(int)
    constraints = FeatureConstraints.from_frame(X).weigh_by_importance(X, label)
    costs = {name: feature.cost for name, feature in constraints.features.items()}
    assert costs["age"] == max(costs.values())
    assert np.mean(list(costs.values())) == pytest.approx(1)
    correlation = abs(np.corrcoef(X["income"], label)[0, 1])
    ratio = correlation / abs(np.corrcoef(X["age"], label)[0, 1])
    assert costs["income"] / costs["age"] == pytest.approx(ratio)


@pytest.mark.parametrize("largest", [1e3, 1e7])
def test_steps_and_fixed_columns_are_judged_by_themselves_and_not_by_the_range(largest):
    """A millionth of the range of 10,000,000 is more than a step."""
    rng = np.random.default_rng(0)
    money = rng.integers(0, 100 * largest, 500) / 100
    X = pd.DataFrame(
        {"money": money, "count": rng.integers(0, largest, 500), "id": money}
    )
    constraints = FeatureConstraints.from_frame(X).set("id", mutable=False)
    constraints.set("money", step=0.01)
    assert FeatureConstraints.from_frame(X[["money"]]).features["money"].step in (
        None,
        0.01,
    )
    ref = X[:1]
    for column, move in (("money", 0.004), ("count", 0.5), ("id", 0.01)):
        moved = ref.astype(float)
        moved[column] += move
        broken = constraints.violations(ref, moved)
        assert {violation.constraint for violation in broken} == {column}, (
            column,
            broken,
        )
    moved = ref.assign(money=ref["money"] + 25.67, count=ref["count"] - 3)
    assert constraints.violations(ref, moved) == []
    projected = constraints.project(ref, ref.astype(float) + 1.004)
    assert constraints.violations(ref, projected) == []
    np.testing.assert_allclose(projected["money"] - ref["money"], 1.0, atol=1e-6)


def test_a_bound_that_is_no_multiple_of_the_step_is_not_reached():
    X = np.array([[0.0, 5.0], [1e6, 6.0], [0.5e6, 9.0]])
    constraints = FeatureConstraints.from_frame(X).set(0, kind="continuous", step=0.5)
    constraints.set(0, upper=1e6 + 0.2)
    at_bound = np.array([[1e6 + 0.2, 5.0]])
    (violation,) = constraints.violations(X[:1], at_bound)
    assert violation.constraint == 0 and "multiple" in violation.reason
    np.testing.assert_array_equal(constraints.project(X[:1], at_bound), [[1e6, 5.0]])


def test_of_no_rows_there_is_nothing_to_say():
    X = np.rint(9 * np.random.RandomState(0).uniform(size=(40, 3)))
    for data in (X, pd.DataFrame(X, columns=list("abc"))):
        constraints, none = FeatureConstraints.from_frame(data), data[:0]
        assert constraints.violations(none, none) == []
        assert constraints.encode(none).shape == (0, 3)
        with pytest.raises(ValueError, match="holds none"):
            constraints.project(none, none)
        with pytest.raises(ValueError, match="holds none"):
            constraints.violations(data, np.empty((40, 0)))
