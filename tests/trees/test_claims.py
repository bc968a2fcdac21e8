"""Every claim about trees has an adversary: cheap attacks that try to get below it.

A row is claimed to be safe below `lower` of TreeExactAttack, within the radius of
`certify`, or altogether ("infeasible"). Here random rows, all small moves, and attacks
that know nothing of trees look for a row of another class that is nearer. The victims are
models x steps in front x kinds of columns x constraints.
"""

from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import defense
from sklearn_advsec.evasion import GreedyFeatureAttack, SquareAttack, TreeExactAttack
from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.trees import certify

N_ROWS, N_TRIED, N_ATTACKED = 90, 1500, 4
# The solver's tolerance.
SLACK = 1 + 2e-6

MODELS = {
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": RandomForestClassifier(5, max_depth=4, random_state=0),
    "extra": ExtraTreesClassifier(5, max_depth=4, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5),
    "ada": AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=2), n_estimators=4, random_state=0
    ),
    "bagging": BaggingClassifier(n_estimators=4, random_state=0),
    "robust tree": defense.RobustDecisionTreeClassifier(0.3, max_depth=4, random_state=0),
    "robust forest": defense.RobustRandomForestClassifier(
        0.3, n_estimators=4, max_depth=4, random_state=0
    ),
    "xgboost": ("xgboost", "XGBClassifier", {"n_estimators": 4, "max_depth": 3}),
    "xgboost, all at once": (
        "xgboost",
        "XGBClassifier",
        {"n_estimators": 4, "multi_strategy": "multi_output_tree"},
    ),
    "xgboost, missing": (
        "xgboost",
        "XGBClassifier",
        {"n_estimators": 4, "missing": 2, "max_depth": 3},
    ),
    "lightgbm": (
        "lightgbm",
        "LGBMClassifier",
        {"n_estimators": 4, "min_child_samples": 5, "verbose": -1},
    ),
}
STEPS = {
    "scaler": StandardScaler(),
    "range": MinMaxScaler(clip=True),
    "robust": RobustScaler(),
    "power": PowerTransformer(),
    "quantiles": QuantileTransformer(n_quantiles=20),
    "bins": KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
    "bins, ordinal": KBinsDiscretizer(
        4, encode="ordinal", quantile_method="averaged_inverted_cdf"
    ),
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "one-hot, known only": OneHotEncoder(),
    "one-hot, infrequent": OneHotEncoder(min_frequency=9, handle_unknown="ignore"),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": TargetEncoder(cv=2),
    "binary": Binarizer(threshold=2),
    "imputer of 3": SimpleImputer(missing_values=3),
    "imputer of 3, flags": SimpleImputer(missing_values=3, add_indicator=True),
    "selection": SelectKBest(k=2),
    "weights": ColumnTransformer(
        [("a", StandardScaler(), [0, 2]), ("b", "passthrough", [1])],
        transformer_weights={"a": -2.0, "b": 0.5},
    ),
    "both": ColumnTransformer(
        [
            ("a", OneHotEncoder(handle_unknown="ignore"), [0, 1]),
            ("b", RobustScaler(), [0, 2]),
        ]
    ),
    "scaled bins": make_pipeline(
        StandardScaler(), KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf")
    ),
}


def whole_numbers():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 6, (N_ROWS, 3)).astype(float)
    y = (X[:, 0] == 3).astype(int) + ((X[:, 1] > 3) & (X[:, 2] != 1))
    return X, y


def fractions():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N_ROWS, 3))
    return X, (X[:, 0] + X[:, 1] ** 2 > 0.8).astype(int) + (X[:, 2] > 1)


def with_gaps():
    X, y = fractions()
    X[np.random.default_rng(2).random(X.shape) < 0.15] = np.nan
    return X, y


def booleans():
    rng = np.random.default_rng(3)
    X = pd.DataFrame(rng.random((N_ROWS, 4)) > 0.5, columns=list("abcd"))
    return X, (X.a ^ X.b).to_numpy().astype(int)


def mixed_frame():
    rng = np.random.default_rng(4)
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 60, N_ROWS),
            "wage": rng.normal(30, 8, N_ROWS).astype(np.float32),
            "job": pd.Categorical(rng.choice(["cook", "clerk", "king"], N_ROWS)),
            "own": rng.random(N_ROWS) < 0.5,
            "children": rng.integers(0, 5, N_ROWS).astype(float),
        }
    )
    y = (X.age / 20 + X.children + 3 * (X.job == "king") - X.own > 4).to_numpy()
    return X, y.astype(int)


def frame_with_gaps():
    X, y = mixed_frame()
    X.loc[::7, "wage"] = np.nan
    X.loc[::5, "job"] = None
    return X, y


def nullable_frame():
    X, y = mixed_frame()
    X = X.drop(columns="own").astype({"age": "Int64", "children": "Float64"})
    X.loc[::7, "age"] = pd.NA
    return X, y


def dummies():
    X, y = mixed_frame()
    X = pd.get_dummies(X, columns=["job"], dtype=float)
    return X.astype({"own": float}), y


def columns_of(X):
    named = [name for name in X if not pd.api.types.is_float_dtype(X[name])]
    named = [name for name in named if not pd.api.types.is_integer_dtype(X[name])]
    numbers = [name for name in X if name not in named]
    return make_column_transformer(
        (SimpleImputer(), numbers), (OneHotEncoder(handle_unknown="ignore"), named)
    )


def binned_columns_of(X):
    named = ["job", "own"]
    bins = KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf")
    return make_column_transformer(
        (bins, ["age", "wage"]),
        (OneHotEncoder(handle_unknown="ignore"), [*named, "children"]),
    )


def plain(constraints, X):
    return constraints


def one_way(constraints, X):
    first, *_, last = constraints.features
    return constraints.set(first, direction="up").set(last, mutable=False)


def few_changes(constraints, X):
    return constraints.limit(max_changed=1)


def cheap_changes(constraints, X):
    return constraints.limit(max_cost=0.7)


def may_lose(constraints, X):
    return constraints.set(list(constraints.features), missing=True)


def turning_one_way(constraints, X):
    return constraints.set("job", transitions={"cook": ["clerk"], "king": ["cook"]})


def related(constraints, X):
    return constraints.relate("wage >= 8 * children - 20")


@dataclass
class Victim:
    model: object
    data: object
    limits: object = None
    norm: float = np.inf

    def build(self):
        model, (X, y) = self.model, self.data()
        parts = list(model) if isinstance(model, list) else [model]
        if isinstance(parts[-1], tuple):
            package, name, parameters = parts[-1]
            module = pytest.importorskip(package)
            parts[-1] = getattr(module, name)(n_jobs=1, **parameters)
        parts[:-1] = [part(X) if callable(part) else part for part in parts[:-1]]
        model = make_pipeline(*parts) if len(parts) > 1 else parts[0]
        constraints = None
        if self.limits is not None:
            constraints = self.limits(FeatureConstraints.from_frame(X), X)
        return clone(model).fit(X, y), X, constraints


def victims():
    norms = cycle([np.inf, 1, 0])
    for name, model in MODELS.items():
        for data in (whole_numbers, fractions):
            yield f"{name} on {data.__name__}", Victim(model, data, norm=next(norms))
    kinds = cycle(["tree", "forest", "xgboost", "boosting", "lightgbm"])
    for name, step in STEPS.items():
        for kind in (next(kinds), next(kinds)):
            victim = Victim([step, MODELS[kind]], whole_numbers, norm=next(norms))
            yield f"{kind} behind {name}", victim
    for kind in ("forest", "histograms", "xgboost", "lightgbm"):
        for data, limits in (
            (whole_numbers, plain),
            (whole_numbers, one_way),
            (fractions, few_changes),
            (fractions, cheap_changes),
            (with_gaps, None),
            (with_gaps, may_lose),
        ):
            name = f"{kind} on {data.__name__}, {named(limits)}"
            yield name, Victim(MODELS[kind], data, limits, next(norms))
    from_dtype = HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5)
    categories = clone(from_dtype).set_params(categorical_features=[0, 2])
    encoded, binned = [columns_of, MODELS["forest"]], [binned_columns_of, MODELS["tree"]]
    for norm in (np.inf, 1, 0):
        yield (
            f"categories of numbers, {norm}",
            Victim(categories, whole_numbers, norm=norm),
        )
        yield f"booleans, {norm}", Victim(MODELS["forest"], booleans, plain, norm)
    yield "dummies", Victim(MODELS["forest"], dummies, plain, 1)
    yield "nullable", Victim(encoded, nullable_frame, norm=1)
    yield "nullable, plain", Victim(encoded, nullable_frame, plain, norm=np.inf)
    for limits in (None, plain, one_way, few_changes, may_lose, turning_one_way, related):
        frame = f"frame, {named(limits)}"
        yield f"encoded {frame}", Victim(encoded, mixed_frame, limits, next(norms))
        if limits is not may_lose:  # bins take no missing values
            yield f"binned {frame}", Victim(binned, mixed_frame, limits, next(norms))
        if limits is not related:
            yield frame, Victim(from_dtype, mixed_frame, limits, next(norms))
    for limits in (None, plain, may_lose):
        name = f"frame with gaps, {named(limits)}"
        yield name, Victim(encoded, frame_with_gaps, limits, next(norms))


def named(limits):
    return limits.__name__ if limits else "unconstrained"


VICTIMS = dict(victims())


# The adversary ------------------------------------------------------------------------


def as_objects(X):
    if isinstance(X, pd.DataFrame):
        return X.astype(object).to_numpy()
    return np.asarray(X).astype(object)


def like(array, X):
    """Return an array of objects in the form of X; values that do not fit stay floats."""
    if not isinstance(X, pd.DataFrame):
        return array.astype(X.dtype)
    frame = pd.DataFrame(array, columns=X.columns)
    for name, dtype in X.dtypes.items():
        if isinstance(dtype, np.dtype) and dtype.kind in "iu":
            whole = pd.to_numeric(frame[name]).round()
            frame[name] = whole.astype(float if whole.isna().any() else dtype)
        elif str(dtype) in ("Int64", "Float64"):
            frame[name] = (
                pd.to_numeric(frame[name], errors="coerce").round().astype(dtype)
            )
        else:
            frame[name] = frame[name].astype(dtype)
    return frame


def is_number(X, j):
    if not isinstance(X, pd.DataFrame):
        return True
    dtype = X.dtypes.iloc[j]
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)


def tries(X, row, hints, constraints, rng, only_known=False):
    """Rows near one row: values of the data, between and beside them, and hints."""
    n_columns = X.shape[1]
    values = as_objects(X)
    tried = np.repeat(row, N_TRIED, axis=0)
    for j in range(n_columns):
        pool = list(pd.unique(values[:, j]))
        if not is_number(X, j) and constraints is None:
            continue  # categories stay as they are
        lost = constraints is not None and list(constraints.features.values())[j].missing
        pool = pool if lost else [v for v in pool if not pd.isna(v)]
        if lost:
            pool.append(np.nan)
        if is_number(X, j) and not pd.isna(row[0, j]):
            numbers = np.array([v for v in pool if not pd.isna(v)], dtype=float)
            own = float(row[0, j])
            low, high = numbers.min() - 1, numbers.max() + 1
            if not only_known:
                pool += list(rng.uniform(low, high, 40)) + list(numbers + 0.5)
                pool += list(np.nextafter(numbers, own)) + list((numbers + own) / 2)
        elif pd.isna(row[0, j]):
            continue  # what is missing stays missing
        moved = np.flatnonzero(rng.random(N_TRIED) < rng.choice([0.3, 0.6]))
        for i in moved:
            tried[i, j] = pool[rng.integers(len(pool))]
    for hint in hints:  # less far, and with fewer moves
        moved = [j for j in range(n_columns) if not _same(hint[j], row[0, j])]
        closer = np.repeat(row, len(moved) + 2, axis=0)
        for k, dropped in enumerate([*moved, None, None]):
            for j in moved:
                share = 1.0 if k < len(moved) else (0.999, 0.99999)[k - len(moved)]
                if j == dropped:
                    continue
                if is_number(X, j) and not pd.isna(hint[j]):
                    own = float(row[0, j])
                    closer[k, j] = own + share * (float(hint[j]) - own)
                else:
                    closer[k, j] = hint[j]
        tried = np.concatenate([tried, closer])
    return tried


def _same(a, b):
    return (pd.isna(a) and pd.isna(b)) or (not pd.isna(a) and a == b)


def moves_of(X, row, rows, constraints):
    """How far each row moved each column, in the units in which distances are given."""
    if constraints is not None:
        ref, x = (constraints.encode(part) for part in (row, rows))
        return constraints.region.moved(ref.expand_as(x), x).abs().numpy()
    moves = np.zeros((len(rows), X.shape[1]))
    own, other = as_objects(row), as_objects(rows)
    for j in range(X.shape[1]):
        if is_number(X, j) and not pd.isna(own[0, j]):
            moves[:, j] = np.abs(other[:, j].astype(float) - float(own[0, j]))
    return moves


def reached(model, X, row, tried, constraints):
    """Moves of valid rows that the model gives another class."""
    rows = like(tried, X)
    ref = row
    if constraints is not None:
        many = (
            row.iloc[[0] * len(rows)]
            if isinstance(X, pd.DataFrame)
            else np.repeat(row, len(rows), axis=0)
        )
        bad = {violation.row for violation in constraints.violations(many, rows)}
        fine = np.array([i not in bad for i in range(len(rows))])
        rows = rows[fine]
    if not len(rows):
        return np.zeros((0, X.shape[1]))
    predicted = np.asarray(model.predict(rows))
    turned = predicted != model.predict(ref)[0]
    return moves_of(X, ref, rows[turned], constraints)


def some_rows(X, model):
    """Rows of several classes, among them some that lack a value."""
    predicted = np.asarray(model.predict(X))
    order = np.argsort(predicted, kind="stable")
    at = order[np.linspace(0, len(order) - 1, N_ATTACKED).round().astype(int)]
    return X.iloc[at] if isinstance(X, pd.DataFrame) else X[at]


def slice_of(X, i):
    return X.iloc[i : i + 1] if isinstance(X, pd.DataFrame) else X[i : i + 1]


def size(moves, norm):
    if not len(moves):
        return np.inf
    return np.linalg.norm(moves, ord=norm, axis=1).min()


def test_there_are_enough_victims():
    assert len(VICTIMS) >= 80


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
# A third of the victims by default; the others are among the slow tests.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if k % 3 else [])
        for k, name in enumerate(VICTIMS)
    ],
)
def test_nothing_is_nearer_than_claimed(name):
    victim = VICTIMS[name]
    model, X, constraints = victim.build()
    rows = some_rows(X, model)
    frozen = FrozenEstimator(model)
    exact = TreeExactAttack(
        frozen, norm=victim.norm, constraints=constraints, bounds=None, time_limit=5
    )
    result = exact.fit(X).run(rows)
    assert set(result.status) <= {"optimal", "infeasible", "rounding", "constraints"}
    optimal = result.status == "optimal"
    assert (result.lower[optimal] == result.upper[optimal]).all()
    assert (result.lower <= result.upper).all()
    rng = np.random.default_rng(0)
    found = as_objects(result.X_adv)
    radii = {}
    if constraints is None:
        radii = {norm: certify(model, rows, norm=norm) for norm in (victim.norm, 2)}
        if victim.norm:  # the other door to the exact radius
            tight = defense.certify(model, rows, norm=victim.norm, method="exact").radius
            assert (radii[victim.norm] <= tight * SLACK).all()
            assert (tight <= result.upper * SLACK).all()
    for i in range(N_ATTACKED):
        row = slice_of(rows, i)
        hints = [found[i]] if result.success[i] else []
        known = "known only" in name  # numbers between are refused
        hints = [] if known else hints
        tried = tries(X, as_objects(row), hints, constraints, rng, known)
        moves = reached(model, X, row, tried, constraints)
        assert size(moves, victim.norm) * SLACK >= result.lower[i], (
            f"{name}: row {i} was claimed to be {result.status[i]}"
        )
        for norm, radius in radii.items():
            assert size(moves, norm) * SLACK >= radius[i], f"{name}: radius {norm}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", VICTIMS)
def test_attacks_that_know_nothing_get_no_nearer(name):
    victim = VICTIMS[name]
    model, X, constraints = victim.build()
    rows = some_rows(X, model)
    frozen = FrozenEstimator(model)
    options = {"norm": victim.norm, "constraints": constraints}
    exact = TreeExactAttack(frozen, bounds=None, time_limit=5, **options).fit(X).run(rows)
    if constraints is not None:
        cheap = GreedyFeatureAttack(frozen, constraints=constraints, max_queries=150)
    elif "known only" in name:
        pytest.skip("no number but the known ones is answered")
    else:
        cheap = SquareAttack(
            frozen, eps=3.0, bounds=None, max_queries=150, random_state=0
        )
    result = cheap.fit(X).run(rows)
    for i in np.flatnonzero(result.success):
        row, x_adv = slice_of(rows, i), slice_of(result.X_adv, i)
        moves = moves_of(X, row, x_adv, constraints)
        assert size(moves, victim.norm) * SLACK >= exact.lower[i], f"row {i} of {name}"
