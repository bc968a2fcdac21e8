"""Certificates that travel: true ones are accepted, false ones are not, whoever signs."""

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, make_regression
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import trees
from sklearn_advsec.evasion import TreeExactAttack, TreeExactResult
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import check_certificate, tree_ensemble
from sklearn_advsec.trees._certificate_file import cut, digest
from sklearn_advsec.victim import RegressionVictim

X, Y = load_iris(return_X_y=True)
ROWS = X[[0, 60, 110, 70, 133]]


def forest(**parameters):
    model = RandomForestClassifier(5, max_depth=3, random_state=0, **parameters)
    return model.fit(X, Y)


def attacked(model, rows=ROWS, data=X, **parameters):
    return TreeExactAttack(FrozenEstimator(model), **parameters).fit(data).run(rows)


def signed(document):
    """Return the text of a document, with the digest that it has to have."""
    return json.dumps({**document, "digest": digest(document)})


MODELS = {
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": RandomForestClassifier(5, random_state=0),
    "extra": ExtraTreesClassifier(5, max_depth=4, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5),
    "scaled": make_pipeline(
        StandardScaler(), RandomForestClassifier(4, max_depth=3, random_state=0)
    ),
}


@pytest.mark.parametrize("norm", [np.inf, 1, 0])
@pytest.mark.parametrize("name", MODELS)
def test_what_the_attack_proved_is_certified(name, norm):
    model = MODELS[name].fit(X, Y)
    result = attacked(model, norm=norm)
    claims = check_certificate(result.to_json(), model)
    assert [claim["status"] for claim in claims] == result.status.tolist()
    np.testing.assert_allclose([c["bound"] for c in claims], result.lower, rtol=1e-6)
    np.testing.assert_allclose([c["distance"] for c in claims], result.distance)


@pytest.mark.parametrize("package, name", [("xgboost", "XGB"), ("lightgbm", "LGBM")])
def test_boosters_of_other_packages(package, name):
    module = pytest.importorskip(package)
    options = {"verbose": -1} if name == "LGBM" else {}
    model = getattr(module, f"{name}Classifier")(n_estimators=4, max_depth=3, **options)
    model.fit(X, Y)
    result = attacked(model, norm=1)
    claims = check_certificate(result.to_json(), model)
    assert [claim["status"] for claim in claims] == ["optimal"] * len(ROWS)


@pytest.mark.long
def test_the_bound_is_what_brute_force_finds():
    rng, n_bounded = np.random.default_rng(0), 0
    for seed in range(12):
        data = rng.integers(0, 5, (40, 2)) + rng.choice([0.0, 0.5], (40, 2))
        y = rng.integers(0, 3 if seed % 2 else 2, 40)
        model = RandomForestClassifier(4, max_depth=3, random_state=seed).fit(data, y)
        norm = (np.inf, 1, 0)[seed % 3]
        result = attacked(model, data[:4], data, norm=norm, bounds=None)
        ensemble = tree_ensemble(model)
        # Trees compare in single precision; between two of its numbers lies the edge.
        below = np.float32(ensemble.threshold[ensemble.feature >= 0])
        near = [np.nextafter(below, np.float32(side)) for side in (-np.inf, np.inf)]
        places = np.float64(np.concatenate([below, *near]))
        middle = (places[:, None] + places).ravel() / 2
        middle = middle[np.abs(middle[:, None] - places).min(1) < 1e-6]
        ends = [np.nextafter(middle, side) for side in (-np.inf, np.inf)]
        places = np.concatenate([places, middle, *ends])
        claims = check_certificate(result.to_json(), model)
        for claim, x in zip(claims, data[:4], strict=True):
            columns = [np.unique(np.append(places, own)) for own in x]
            grid = np.stack(np.meshgrid(*columns), -1).reshape(-1, 2)
            flips = grid[model.predict(grid) != model.predict(x[None])]
            nearest = np.linalg.norm(flips - x, norm, axis=1).min()
            assert claim["bound"] <= nearest
            if claim["status"] != "optimal":  # where the votes are even
                note = json.loads(result.to_json())["rows"][claim["row"]]["note"]
                assert "roundings" in note, note
                n_bounded += 1
    assert n_bounded < 5, n_bounded


def test_targeted_and_labelled_rows():
    model = forest()
    attack = TreeExactAttack(FrozenEstimator(model), goal="targeted", target=2)
    result = attack.fit(X).run(ROWS)
    claims = check_certificate(result.to_json(), model)
    assert claims[2]["distance"] == 0  # it is of the wanted class already
    assert {claim["status"] for claim in claims} == {"optimal"}
    wrong = attacked(model).label.copy()
    wrong[0] = 1
    result = TreeExactAttack(FrozenEstimator(model)).fit(X).run(ROWS, wrong)
    claims = check_certificate(result.to_json(), model)
    assert claims[0]["distance"] == claims[0]["bound"] == 0


def test_rows_that_no_change_moves():
    model = forest()
    result = attacked(model, X[:1], X[:5])  # in their range, all is of one class
    claims = check_certificate(result.to_json(), model)
    assert claims[0]["status"] == "infeasible"
    assert claims[0]["distance"] == claims[0]["bound"] == np.inf
    np.testing.assert_allclose(claims[0]["lower"], X[:5].min(0))


def test_regressors():
    data, y = make_regression(60, 3, random_state=0)
    model = HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=5).fit(data, y)
    victim = RegressionVictim(FrozenEstimator(model), delta=20.0).fit(data, y)
    result = attacked(victim, data[:4], data)
    claims = check_certificate(result.to_json(), victim)
    assert [c["status"] for c in claims] == result.status.tolist()


def test_a_ball_of_a_few_roundings_is_not_claimed():
    """Values at a threshold flip a rounding away, and a smaller ball has the same edge.

    XGBoost splits at values of the data. With `min_step` the optimum is a whole step, of
    which boxes know nothing: what they prove is 1e-7, and 1e-9 less of it is no other
    number beside the row's own 3.
    """
    xgboost = pytest.importorskip("xgboost")
    data = np.arange(4.0).repeat(10)[:, None]
    model = xgboost.XGBClassifier(n_estimators=3).fit(data, data[:, 0] > 2)
    result = attacked(model, data[-1:], data, min_step=1.0)
    assert result.lower[0] >= 1
    (claim,) = check_certificate(result.to_json(), model)
    assert claim["bound"] < 3e-7
    assert claim["status"] == "bounded"


def test_missing_values_and_whole_numbers():
    frame = pd.DataFrame(np.round(X * 10).astype(int), columns=list("abcd"))
    frame["a"] = frame["a"].astype(float)
    frame.loc[::3, "a"] = np.nan
    model = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5)
    model.fit(frame, Y)
    result = attacked(model, frame[:5], frame, norm=1)
    document = json.loads(result.to_json())
    assert document["whole"] == [False, True, True, True]
    claims = check_certificate(result.to_json(), model)
    assert [c["status"] for c in claims] == result.status.tolist() == ["optimal"] * 5


def test_constraints():
    frame = pd.DataFrame(X, columns=list("abcd"))
    constraints = FeatureConstraints.from_frame(frame).set("c", mutable=False)
    constraints = constraints.set("d", direction="up").relate("a >= b")
    model = forest().fit(frame, Y)
    result = attacked(model, frame[:6], frame, norm=1, constraints=constraints)
    claims = check_certificate(result.to_json(), model)
    for claim, lower, upper in zip(claims, result.lower, result.upper, strict=True):
        assert claim["bound"] <= lower * (1 + 1e-6)
        assert np.isinf(upper) or claim["distance"] == pytest.approx(upper)
    document = json.loads(result.to_json())
    del document["digest"]
    document["constraints"] = constraints.set("d", mutable=False).to_toml()
    with pytest.raises(ValueError, match=r"point: it breaks the constraints"):
        check_certificate(signed(document), model)


def test_no_bound_is_claimed_behind_steps_that_are_no_scalers():
    bins = KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf")
    model = make_pipeline(bins, forest()).fit(X, Y)
    result = attacked(model)
    document = json.loads(result.to_json())
    assert {row["bound"] for row in document["rows"]} == {0}
    assert "no scalers" in document["rows"][0]["note"]
    claims = check_certificate(result.to_json(), model)
    assert {claim["status"] for claim in claims} == {"bounded"}


def test_text_columns_are_refused():
    result = attacked(forest())
    result.X = pd.DataFrame(result.X).assign(text="a")
    with pytest.raises(ValueError, match=r"the columns \['text'\] hold none"):
        result.to_json()


def test_written_and_read(tmp_path):
    result = attacked(forest())
    assert result.to_json(tmp_path / "proof.json") is None
    for source in (tmp_path / "proof.json", str(tmp_path / "proof.json")):
        again = TreeExactResult.from_json(source)
        np.testing.assert_array_equal(again.X_adv, result.X_adv)
        np.testing.assert_allclose(again.lower, result.lower, rtol=1e-6)
        assert again.to_json() == (tmp_path / "proof.json").read_text()
    assert (again.subject.ensemble.predict(X) == forest().predict(X)).all()


# Forgers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proof():
    model = forest()
    result = attacked(model, norm=1)
    document = json.loads(result.to_json())
    del document["digest"]  # forgers sign anew
    return model, document


def test_another_model_is_not_that_of_the_file(proof):
    _, document = proof
    with pytest.raises(ValueError, match="model: it is not that of the model"):
        check_certificate(signed(document), forest(criterion="entropy"))


def inner(document, rng):
    """Return a row of a document, and a cover of it with cuts."""
    rows = [row for row in document["rows"] if any(c["value"] for c in row["covers"])]
    row = rows[rng.integers(len(rows))]
    covers = [cover for cover in row["covers"] if cover["value"]]
    return row, covers[rng.integers(len(covers))]


def raise_bound(document, rng):
    row, _ = inner(document, rng)
    row["bound"] *= 1 + 10 ** rng.uniform(-8, 1)


def raise_both(document, rng):
    row, _ = inner(document, rng)
    row["bound"] = row["distance"] = row["distance"] * 1.01


def move_point(document, rng):
    row, _ = inner(document, rng)
    row["point"][rng.integers(4)] += rng.choice([-1, 1]) * 10 ** rng.uniform(-6, 1)


def move_row(document, rng):
    row, _ = inner(document, rng)
    row["x"][rng.integers(4)] += rng.choice([-1, 1]) * 10 ** rng.uniform(-6, 1)


def drop_box(document, rng):
    _, cover = inner(document, rng)
    at = rng.integers(len(cover["column"]))
    del cover["column"][at]


def drop_cut(document, rng):
    _, cover = inner(document, rng)
    del cover["value"][rng.integers(len(cover["value"]))]


def no_cuts(document, rng):
    row, _ = inner(document, rng)
    for cover in row["covers"]:
        cover["column"], cover["value"] = [-1], []
    row["bound"] = row["distance"]


def add_box(document, rng):
    _, cover = inner(document, rng)
    cover["column"].insert(int(rng.integers(len(cover["column"]))), -1)


def drop_cover(document, rng):
    row, _ = inner(document, rng)
    del row["covers"][rng.integers(len(row["covers"]))]


def swap_labels(document, rng):
    row, _ = inner(document, rng)
    row["label"] = (row["label"] + int(rng.integers(1, 3))) % 3


def narrow(document, rng):
    row, _ = inner(document, rng)
    moved = [j for j in range(4) if row["x"][j] != row["point"][j]]
    row["lower"][moved[0]] = row["upper"][moved[0]] = row["x"][moved[0]]


def change_norm(document, rng):
    document["norm"] = str(rng.choice(["inf", "2", "l1", "1.0"]))


def change_goal(document, rng):
    document["goal"] = str(rng.choice(["targeted", "", "none"]))


def change_tolerance(document, rng):
    document["tolerance"] = float(10 ** rng.uniform(-5, 1))


def change_trees(document, rng):
    trees = document["model"]["trees"]
    name = str(rng.choice(list(trees["arrays"])))
    if not trees["arrays"][name][2]:
        name = "value"
    text = trees["arrays"][name][2]
    at = int(rng.integers(len(text) - 4))
    other = "A" if text[at] != "A" else "B"
    trees["arrays"][name][2] = text[:at] + other + text[at + 1 :]


def change_trees_and_hash(document, rng):
    change_trees(document, rng)
    document["model"]["hash"] = digest(document["model"]["trees"])


def change_hash(document, rng):
    document["model"]["hash"] = digest({"a": int(rng.integers(10**9))})


def change_status(document, rng):
    row, _ = inner(document, rng)
    row["status"] = str(rng.choice(["bounded", "infeasible", "open", "proved"]))


def no_point(document, rng):
    row, _ = inner(document, rng)
    row["point"] = row["distance"] = None
    row["status"] = "open"
    row["bound"] *= 1 + 10 ** rng.uniform(-3, 1)


def infeasible(document, rng):
    row, _ = inner(document, rng)
    row["point"] = row["distance"] = row["bound"] = None
    row["status"] = "infeasible"


def other_cut(document, rng):
    """Move a cut far away, so that its two sides are no help."""
    row, cover = inner(document, rng)
    cover["value"][:] = [99.0] * len(cover["value"])
    row["bound"] = row["distance"]


HOSTILE = [
    None, True, "1", [], {}, [[]], -1, -(10**400), 10**400, 1e308, "x" * 99,
    [1] * 3, [None] * 4, [[1.0] * 4] * 4, {"column": [], "value": []},
]  # fmt: skip


def wrong_type(document, rng):
    """Put a value of another kind anywhere."""
    table, key = document, None
    while True:
        keys = list(table) if isinstance(table, dict) else range(len(table))
        key = keys[rng.integers(len(keys))]
        inside = table[key]
        if not isinstance(inside, (dict, list)) or not inside or rng.random() < 0.2:
            break
        table = inside
    value = HOSTILE[rng.integers(len(HOSTILE))]
    bare = key in ("x", "note") or isinstance(table, list)
    if value == table[key] or (value is None and (bare or key in ("lower", "upper"))):
        value = {"no": "such"}
    if key in ("note", *document["versions"]) and isinstance(value, str):
        value = 1
    table[key] = value


def lose_key(document, rng):
    row, cover = inner(document, rng)
    tables = [document, document["model"], document["versions"], row, cover]
    table = tables[rng.integers(len(tables))]
    del table[list(table)[rng.integers(len(table))]]


def new_key(document, rng):
    row, cover = inner(document, rng)
    tables = [document, document["model"], document["versions"], row, cover]
    tables[rng.integers(len(tables))]["trusted"] = True


FORGERS = [
    raise_bound, raise_both, move_point, move_row, drop_box, drop_cut, no_cuts, add_box,
    drop_cover, swap_labels, narrow, change_norm, change_goal, change_tolerance,
    change_trees, change_trees_and_hash, change_hash, change_status, no_point, infeasible,
    other_cut, wrong_type, lose_key, new_key,
]  # fmt: skip


@pytest.mark.parametrize("forger", FORGERS, ids=lambda forger: forger.__name__)
def test_forged_files_are_rejected(proof, forger):
    """Forgers sign what they made up: only the checks themselves are in their way."""
    model, document = proof
    text, rng = json.dumps(document), np.random.default_rng(0)
    for _ in range(8):
        forged = json.loads(text)
        forger(forged, rng)
        if forger is not change_norm and forged == document:
            continue
        with pytest.raises(ValueError, match="^certificate: "):
            check_certificate(signed(forged), model)


def damage(text, rng):
    """Return a text with a byte changed, lost or repeated, or its end cut off."""
    at = int(rng.integers(len(text)))
    kind = rng.integers(4)
    if kind == 0:
        return text[:at] + chr(rng.integers(32, 127)) + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] if kind == 2 else text[:at] + text[at : at + 9] + text[at:]


def test_damaged_files_are_rejected(proof):
    model, document = proof
    text, rng = signed(document), np.random.default_rng(0)
    for _ in range(150):
        damaged = damage(text, rng)
        try:
            if json.loads(damaged) == json.loads(text):
                continue
        except ValueError:
            pass
        with pytest.raises(ValueError, match="^certificate: "):
            check_certificate(damaged, model)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("", "Expecting value"),
        ("[]", "it must be an object"),
        ("NaN", "it must be an object"),
        ('{"format": 1, "format": 1}', "the key 'format' is there twice"),
        (b"\xff\xfe\x00", "codec|Expecting"),
        (None, "must be the text"),
        ("1" * 10_000, "digits|it must be an object"),
    ],
)
def test_hostile_texts(text, message):
    with pytest.raises(ValueError, match=message):
        check_certificate(text, forest())
    if isinstance(text, str) and text.startswith("{"):
        with pytest.raises(ValueError, match=message):
            TreeExactResult.from_json(text)


def test_forged_files_are_not_read_as_results_of_other_trees(proof):
    text, rng = json.dumps(proof[1]), np.random.default_rng(0)
    for _ in range(60):
        forged = json.loads(text)
        forger = (wrong_type, change_trees, lose_key)[rng.integers(3)]
        forger(forged, rng)
        try:
            result = TreeExactResult.from_json(signed(forged))
        except ValueError as error:
            assert str(error).startswith("certificate: ")
        else:
            assert len(result) == len(ROWS)


def test_nan_is_no_number(proof):
    model, document = proof
    forged = json.loads(json.dumps(document))
    forged["rows"][0]["bound"] = float("nan")
    with pytest.raises(ValueError, match=r"rows\[0\]: bound: nan is no number"):
        check_certificate(json.dumps({**forged, "digest": ""}), model)


def test_a_cover_of_many_cuts_takes_little_memory():
    n = 20_000
    cover = {"column": [0] * n + [-1] * (n + 1), "value": [0.5] * n}
    low, high = np.zeros(100), np.ones(100)
    assert sum(1 for _ in cut(cover, low, high, "here")) == n + 1


def test_the_checker_needs_no_solver_and_no_attack():
    """Of the trees' modules, only the array form, and what reads models into it."""
    folder = Path(trees.__file__).parent
    allowed = {"_certificate", "_certificate_file", "_intervals"}
    for name in allowed:
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        own = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level
        }
        assert own <= allowed | {
            "_ensemble",
            "_reading",
            "_steps",
            "_estimators",
            "threat",
        }


@pytest.mark.slow
def test_a_thousand_forged_files(proof):
    model, document = proof
    text, rng = json.dumps(document), np.random.default_rng(1)
    n_forged = 0
    while n_forged < 1000:
        forged = json.loads(text)
        # Without its point, all else may be true of a row that has a narrow range.
        several = [forger for forger in FORGERS if forger is not narrow]
        for _ in range(int(rng.integers(1, 3))):
            forger = several[rng.integers(len(several))]
            try:
                forger(forged, rng)
            except (KeyError, TypeError, AttributeError, IndexError, ValueError):
                break  # what it wanted to change is gone already
        if forged == document:
            continue
        n_forged += 1
        with pytest.raises(ValueError, match="^certificate: "):
            check_certificate(signed(forged), model)


@pytest.mark.slow
def test_forests_of_many_trees():
    data, y = load_breast_cancer(return_X_y=True)
    for model in (
        RandomForestClassifier(20, max_depth=5, random_state=0),
        GradientBoostingClassifier(n_estimators=30, random_state=0),
    ):
        model.fit(data, y)
        result = attacked(model, data[:8], data)
        claims = check_certificate(result.to_json(), model)
        assert [claim["status"] for claim in claims] == result.status.tolist()
