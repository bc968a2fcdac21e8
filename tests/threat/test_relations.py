"""Formulas over columns: what they mean, and what no formula may do."""

import itertools
import time

import numpy as np
import pandas as pd
import pytest

from sklearn_advsec.threat import FeatureConstraints

GRID = np.array(list(itertools.product(range(-2, 4), repeat=2)), float)
NUMBERS = pd.DataFrame(GRID, columns=["a", "b"])
A, B = GRID.T
TABLE = pd.DataFrame(
    {
        "lvl": pd.Categorical(["low", "mid", "high"] * 4, ["low", "mid", "high"], True),
        "job": ["clerk", "nurse", "smith", "judge"] * 3,
        "flag": [True, False] * 6,
        "on": [0.0, 1.0] * 6,
        "a": np.arange(12) / 4,
    }
)


def kept(X, formula):
    """Which rows keep a relation."""
    constraints = FeatureConstraints.from_frame(X).relate(formula)
    broken = {v.row for v in constraints.violations(X, X)}
    return np.array([i not in broken for i in range(len(X))])


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("abs(a - b) <= 1", abs(A - B) <= 1),
        ("b - 2 * a + a * 3 / 2 - -b / 4 <= 1", B - 2 * A + A * 1.5 + B / 4 <= 1),
        (
            "b + 2 * a * b - a ** 2 + 2 * (a) > 0",
            B + 2 * A * B - A**2 + 2 * A > 0,
        ),
        ("abs(a) > 1", abs(A) > 1),
        ("not abs(a) > 1", ~(abs(A) > 1)),
        ("max(a, b, 1) <= 2", np.maximum(A, B) <= 2),
        ("min(a, b) >= -1", np.minimum(A, B) >= -1),
        ("2 * max(a, b) - min(a, 0) >= 3", 2 * np.maximum(A, B) - np.minimum(A, 0) >= 3),
        ("a == max(b, 0)", np.maximum(B, 0) == A),
        ("log(a) <= b", np.where(A > 0, np.log(np.maximum(A, 1e-9)) <= B, A == 0)),
        ("a / b <= 1", np.array([x / y <= 1 if y else x < 0 for x, y in GRID])),
        ("a in [1, 3]", np.isin(A, [1, 3])),
        ("a in [2]", A == 2),
        ("a == 2 * b and b <= b", A == 2 * B),
        ("a not in (1, -2)", ~np.isin(A, [1, -2])),
        ("not (a in [1, 3] or b in [0])", ~(np.isin(A, [1, 3]) | (B == 0))),
        ("-a ** 2 <= -4", -(A**2) <= -4),
        ("a ** 2 ** 1 - 2 * 3 / 2 < b", A**2 - 3 < B),
        ("(a + b) * 2 - (a - b) / 2 >= 1 - -1", (A + B) * 2 - (A - B) / 2 >= 2),
        ("a * b == 2", A * B == 2),
        ("2 / a >= 1", np.array([x > 0 and 2 / x >= 1 or x == 0 for x in A])),
        ("1e0 + .5 * a < 0_1.5", 1 + 0.5 * A < 1.5),
        ("a <= a", np.full(len(A), True)),
        ("0 * a <= 1 and b > 0", B > 0),
        ("a < a or b > 0", B > 0),
        ("max(a, b) >= a", np.full(len(A), True)),
        ("(a > 0) implies (b > 0 implies a > 1)", ~((A > 0) & (B > 0)) | (A > 1)),
        ("a < b < 3 or a == 3", ((A < B) & (B < 3)) | (A == 3)),
        ("not not a > 1", A > 1),
    ],
)
def test_formulas_mean_what_they_say(formula, expected):
    np.testing.assert_array_equal(kept(NUMBERS, formula), expected)


@pytest.mark.parametrize(
    ("formula", "rows"),
    [
        ("lvl >= 'mid'", TABLE["lvl"] >= "mid"),
        ("'high' > lvl", TABLE["lvl"] < "high"),
        ("not lvl >= 'mid'", TABLE["lvl"] < "mid"),
        ("flag == True", TABLE["flag"]),
        ("flag != True implies a > 1", TABLE["flag"] | (TABLE["a"] > 1)),
        ("on == True", TABLE["on"] == 1),
        ("flag + on >= 1", TABLE["flag"] + TABLE["on"] >= 1),
        ("job in ['clerk', \"nurse\"]", TABLE["job"].isin(["clerk", "nurse"])),
        ("job not in ['clerk']", TABLE["job"] != "clerk"),
        (
            "job != 'clerk' and lvl == 'low'",
            (TABLE.job != "clerk") & (TABLE.lvl == "low"),
        ),
        (
            "lvl in ['low', 'high'] implies on == 0",
            (TABLE.lvl == "mid") | (TABLE.on == 0),
        ),
    ],
)
def test_categories_are_compared(formula, rows):
    np.testing.assert_array_equal(kept(TABLE, formula), rows)


def test_categories_that_are_numbers_stand_for_their_values():
    X = np.array([[1.0, 0], [5, 3], [20, 6], [5, 9]])
    for formula, rows in [
        ("x[0] >= 5", [0, 1, 1, 1]),
        ("x[0] == 20", [0, 0, 1, 0]),
        ("x[0] <= x[1] + 1", [1, 0, 0, 1]),
    ]:
        constraints = FeatureConstraints.from_frame(X)
        constraints.set(0, kind="ordinal", categories=[1, 5, 20]).relate(formula)
        broken = {v.row for v in constraints.violations(X, X)}
        assert broken == set(np.flatnonzero(np.logical_not(rows)))


def test_missing_and_unknown_categories():
    X = TABLE.assign(lvl=TABLE["lvl"].where(TABLE.index != 0))
    X = X.assign(job=X["job"].where(X.index != 1))
    constraints = FeatureConstraints.from_frame(X)
    constraints.relate("lvl == 'high'").relate("job in ['nurse']")
    broken = {(v.row, v.constraint) for v in constraints.violations(X, X)}
    assert (0, "lvl == 'high'") not in broken and (1, "job in ['nurse']") not in broken
    pilot = X.head(1).assign(job="pilot")
    assert len(constraints.violations(pilot, pilot)) == 1


@pytest.mark.parametrize(
    "formula",
    ["lvl >= 'mid'", "job in ['clerk', 'nurse']", "abs(a - 1) <= 0.75", "max(a, on) <= 2",
     "min(a, on) >= 0.5", "log(a + 1) <= 1", "flag == True", "a not in [1]"],
)  # fmt: skip
def test_projections_keep_the_relations_and_move(formula):
    constraints = FeatureConstraints.from_frame(TABLE).relate(formula)
    good = kept(TABLE, formula)
    X = TABLE[good].reset_index(drop=True)
    rng = np.random.default_rng(0)
    wish = TABLE.iloc[rng.integers(0, 12, len(X))].set_axis(X.index)
    wish = wish.assign(a=rng.normal(1, 2, len(X)))
    found = constraints.project(X, wish)
    assert constraints.violations(X, found) == []
    assert (found != X).any(axis=1).mean() > 0.7


def test_piecewise_linear_relations_are_projected_in_closed_form():
    X = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    X = X[np.abs(X[:, 0] - X[:, 1]) <= 0.5]
    constraints = FeatureConstraints.from_frame(X).relate("abs(x[0] - x[1]) <= 0.5")
    for j in (0, 1):
        constraints.set(j, scale=1.0, lower=-9, upper=9)
    found = constraints.project(X[:1], [[2.0, 0.0]])
    np.testing.assert_allclose(found, [[1.25, 0.75]])


# Names ----------------------------------------------------------------------------------


def test_names_are_compared_as_they_are_written():
    """Python's own parser folds U+017F (long s) to s, and ligatures to their letters."""
    names = [
        "s",
        "\u017f",
        "\ufb01",
        "fi",
        "quoted_0_",
        "implies",
        "a`b",
        "max",
        "x",
        "1st",
    ]
    X = pd.DataFrame(np.eye(10) + np.arange(10), columns=names)
    for j, name in enumerate(names):
        quoted = "`" + name.replace("`", "``") + "`"
        plain = name not in ("implies", "a`b", "1st")
        for written in [quoted] + [name] * plain:
            constraints = FeatureConstraints.from_frame(X)
            constraints.relate(f"{written} <= {1000}")
            (relation,) = constraints.region.relations
            assert relation.columns == {j}
    constraints = FeatureConstraints.from_frame(X).relate("`s` <= quoted_0_ + 100")
    assert constraints.region.relations[0].columns == {0, 4}
    with pytest.raises(ValueError, match="unknown column 'ﬂ'"):
        constraints.relate("ﬂ <= 3")


def test_numbers_and_tuples_as_names():
    X = pd.DataFrame(GRID, columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    constraints = FeatureConstraints.from_frame(X).relate("`('a', 'x')` <= 2")
    assert constraints.region.relations[0].columns == {0}
    X.columns = [7, 3]
    constraints = FeatureConstraints.from_frame(X).relate("x[3] <= 2")
    assert constraints.region.relations[0].columns == {1}


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("lvll >= 'mid'", "unknown column 'lvll' .did you mean 'lvl'"),
        ("job == 'cleric'", "none of the categories.*did you mean 'clerk'"),
        ("mx(a, on) <= 2", "unknown function 'mx' .did you mean 'max'"),
        ("job >= 'clerk'", "have no order: .*kind='ordinal'"),
        ("lvl >= 2", "names 2.0, which is none of the categories"),
        ("log(a, on) <= 1", r"calls log\(\), which takes one value"),
        ("a < 2 == flag", "infeasible|no numbers|comparison|is no formula"),
        ("(a < 2) < 3", "compares what is a comparison itself"),
        ("a in [on]", "has a list of what is no constant"),
        ("a in 3", "lacks a list"),
        ("a <= 'x'", "compares text with what is no column of categories"),
        ("a / 0 <= 1", "divides by 0"),
        ("1 <= 2", "names no column"),
        ("a ** 1e999 <= 1", "cannot be computed"),
        ("9 ** 9 ** 9 ** 9 <= a", "cannot be computed"),
        ("a <= 1e999", "cannot be computed"),
        ("0 * a >= 1", "infeasible: whatever the row"),
        ("a < a", "infeasible: whatever the row"),
        ("a > 3", "infeasible together with the bounds"),
        ("max(a, on) > 3", "infeasible together with the bounds"),
        ("lvl > 'high'", "infeasible: whatever the row"),
        ("(" * 100_000 + "a" + ")" * 100_000 + " <= 1", "is nested too deeply"),
        ("abs(" * 1000 + "a" + ")" * 1000 + " <= 1", "is nested too deeply"),
        ("**".join(["a"] * 1000) + " <= 1", "is nested too deeply"),
        (" and ".join(["a <= 5"] * 5000), "has too many comparisons"),
        (" implies ".join(["a <= 5"] * 5000), "has too many comparisons"),
        ("a in [" + ",".join(map(str, range(5000))) + "]", "has too long a list"),
        (" and ".join(["(a < 1 or on < 1)"] * 9), "has too many cases"),
        ("*".join(["a"] * 5000) + " <= 1", "has too many factors"),
        ("a" * 10**6 + " <= 1", "unknown column"),
        ("a <= 1 \0", "is no formula"),
        (3, "must be a text"),
    ],
)
def test_what_is_no_relation_is_refused_and_changes_nothing(formula, message):
    constraints = FeatureConstraints.from_frame(TABLE).set("a", upper=2.9)
    with pytest.raises(ValueError, match=message):
        constraints.relate(formula)
    assert constraints.relations == []


def test_long_sums_are_read_in_time():
    X = np.random.default_rng(0).random((20, 600))
    constraints = FeatureConstraints.from_frame(X)
    start = time.process_time()
    constraints.relate(" + ".join(f"x[{j}]" for j in range(600)) + " <= 320")
    constraints.relate("+".join(["x[0]"] * 100_000) + " <= 1e6")
    assert time.process_time() - start < 5  # about half a second, on a quiet machine
    assert constraints.region.relations[1].linear.linear == {0: 100_000.0}
    start = time.process_time()
    constraints.relate(" + ".join(["-2.5 * x[0] / 2"] * 100_000) + " <= 1e6")
    assert time.process_time() - start < 5
    assert constraints.region.relations[2].linear.linear == {0: -125_000.0}
    good = X[X.sum(1) <= 320]
    found = constraints.project(good, np.ones_like(good))
    np.testing.assert_allclose(found.sum(1), 320)


def test_contradictions_are_seen_when_they_are_said():
    constraints = FeatureConstraints.from_frame(NUMBERS).relate("a >= b + 1")
    before = constraints.features
    with pytest.raises(ValueError, match="'a >= b . 1' is infeasible together"):
        constraints.set("a", upper=-1.5)
    assert constraints.features == before
    constraints.set("a", lower=0, upper=3)
    with pytest.raises(ValueError, match="names 'low', which is none|compares text"):
        FeatureConstraints.from_frame(TABLE).relate("lvl == 'low'").set(
            "lvl", categories=["mid", "high"]
        )


# Any formula ----------------------------------------------------------------------------


def random_value(rng, depth):
    if depth == 0 or rng.random() < 0.3:
        return str(rng.choice(["a", "b", "1", "2", "0.5"]))
    parts = random_value(rng, depth - 1), random_value(rng, depth - 1)
    shape = rng.choice(["({} + {})", "({} - {})", "({} * {})", "min({}, {})"])
    shape = rng.choice([shape, "max({}, {})", "abs({})", "-({})", "({}) ** 2"])
    return shape.format(*parts)


def random_formula(rng, depth):
    if depth == 0 or rng.random() < 0.4:
        sign = rng.choice(["<", "<=", ">", ">=", "==", "!=", "in", "not in"])
        left, right = random_value(rng, 2), random_value(rng, 2)
        return f"{left} {sign} {'[1, -1]' if 'in' in sign else right}"
    parts = random_formula(rng, depth - 1), random_formula(rng, depth - 1)
    return rng.choice(["({} and {})", "({} or {})", "not ({})"]).format(*parts)


def test_random_formulas_mean_what_python_says():
    rng = np.random.default_rng(0)
    constraints = FeatureConstraints.from_frame(NUMBERS)
    x, compared = constraints.encode(NUMBERS), 0
    for _ in range(120):
        formula = random_formula(rng, 3)
        expected = [eval(formula, {"a": a, "b": b}) for a, b in GRID]
        constraints = FeatureConstraints.from_frame(NUMBERS)
        try:
            constraints.relate(formula)
        except ValueError as error:
            said = str(error)
            assert (
                "names no column" in said
                or "too many cases" in said
                or ("infeasible" in said and not any(expected))
            )
            continue
        (relation,) = constraints.region.relations
        np.testing.assert_array_equal(relation.holds(x, 1e-9), expected)
        compared += 1
    assert compared > 80


def test_random_tokens_never_end_in_another_error():
    rng = np.random.default_rng(0)
    tokens = (
        "a b `a` x[0] 1 2.5 't' + - * / ** ( ) [ ] , < <= == != and or not implies in"
    )
    tokens = [*tokens.split(), "abs", "max", "log", "True", "1e400", "`", "'", "\\", "\n"]
    constraints = FeatureConstraints.from_frame(NUMBERS)
    for _ in range(1500):
        formula = " ".join(rng.choice(tokens, rng.integers(1, 9)))
        try:
            constraints.relate(formula)
        except ValueError as error:
            assert "relation" in str(error)


def test_choices_among_values_that_would_be_too_many_keep_their_function():
    X = np.linspace(-1, 1, 400).reshape(10, 40)
    constraints = FeatureConstraints.from_frame(X)
    # Each sign by itself: 2 ** 40 linear relations.
    constraints.relate(" + ".join(f"abs(x[{j}])" for j in range(40)) + " <= 10")
    zero = np.zeros_like(X)
    valid = constraints.project(zero, X)
    assert not constraints.violations(zero, valid)
    assert (np.abs(valid).sum(axis=1) <= 10 + 1e-6).all()
    assert (np.abs(valid).sum(axis=1) > 5).any()  # and not all the way back
    nested = "x[0]"
    for _ in range(40):  # of which each doubles what is inside
        nested = f"abs({nested} - 1)"
    deep = FeatureConstraints.from_frame(X).relate(f"{nested} <= 0.25")
    value = X[:, 0]
    for _ in range(40):
        value = np.abs(value - 1)
    broken = {violation.row for violation in deep.violations(X, X)}
    assert broken == set(np.flatnonzero(value > 0.25)) and broken
