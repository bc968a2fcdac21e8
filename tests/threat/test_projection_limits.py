"""Projections under limits of cost and changes, against all rows that there are."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from sklearn_advsec.threat import FeatureConstraints
from sklearn_advsec.threat._features import Feature


def squares(constraints, wish, rows):
    """Squared distances in units of scale; of another category, 1."""
    total = np.zeros(len(rows))
    for j, f in enumerate(constraints.features.values()):
        away = rows[:, j] - wish[j]
        nominal = f.kind == "categorical"
        total += (away != 0) if nominal else (away / f.scale) ** 2
    return total


def values_of(f):
    if f.kind in ("categorical", "ordinal"):
        return np.arange(len(f.categories), dtype=float)
    return np.arange(f.lower, f.upper + 1e-9, f.step or 1.0)


def best_of_all(constraints, ref, wish):
    """The least squared distance of any valid row, all of whose values have steps."""
    values = [values_of(f) for f in constraints.features.values()]
    grid = np.array(list(itertools.product(*values)))
    region = constraints.region
    start = constraints.encode(ref[None]).expand(len(grid), -1)
    valid = region.valid(start, constraints.encode(grid)).numpy()
    return squares(constraints, wish, grid[valid]).min()


def random_case(rng):
    """Integers, flags, categories and a one-hot group, with unlike costs and scales."""
    features, ref = [], []
    for j in range(3):
        step = float(rng.choice([1, 1, 2]))
        feature = Feature(j, "integer", 0.0, 4.0, step=step, scale=rng.uniform(1, 4))
        feature.direction = rng.choice([None, None, "up", "down"])
        features.append(feature)
        ref.append(rng.choice(values_of(feature)))
    features.append(Feature(3, "binary", 0.0, 1.0))
    features.append(Feature(4, "categorical", categories=[0, 1, 2]))
    ladder = Feature(5, "ordinal", 0.0, 3.0, scale=3.0, categories=[0, 1, 2, 3])
    ladder.transitions = {0: [2, 3], 1: [0], 3: [1]}
    features.append(ladder)
    ref += [float(rng.integers(2)), float(rng.integers(3)), float(rng.integers(4))]
    baseline = bool(rng.integers(2))
    for j in (6, 7, 8):
        features.append(Feature(j, "binary", 0.0, 1.0, group="g", baseline=baseline))
    hot = rng.integers(3 + baseline)
    ref += list(np.eye(4)[hot][:3])
    for feature in features:
        feature.cost = float(rng.choice([0.5, 1, 1, 2, rng.uniform(0, 2)]))
    constraints = FeatureConstraints(features)
    limits = {}
    if rng.random() < 0.8:
        limits["max_cost"] = rng.uniform(0, 4)
    if rng.random() < 0.6 or not limits:
        limits["max_changed"] = int(rng.integers(0, 5))
    constraints.limit(**limits)
    wish = np.array(ref) + rng.normal(0, 2, 9)
    wish[4], wish[5] = rng.integers(3), rng.integers(4)
    return constraints, np.array(ref), wish


@pytest.mark.parametrize("seed", range(6))
def test_limits_on_steps_and_choices_give_the_nearest_row(seed):
    rng = np.random.default_rng(seed)
    for _ in range(6):
        constraints, ref, wish = random_case(rng)
        found = constraints.project(ref[None], wish[None])
        assert constraints.violations(ref[None], found) == []
        best = best_of_all(constraints, ref, wish)
        assert squares(constraints, wish, found)[0] == pytest.approx(best, abs=1e-9)


@pytest.mark.long
def test_attacks_are_not_far_from_the_nearest_row():
    """The region's own projection leaves a gap of one step or choice at most."""
    rng = np.random.default_rng(0)
    excess = []
    for _ in range(60):
        constraints, ref, wish = random_case(rng)
        start, x = constraints.encode(ref[None]), constraints.encode(wish[None])
        quick, exact = (
            squares(
                constraints, wish, constraints.region.project(start, x, exact=e).numpy()
            )[0]
            for e in (False, True)
        )
        assert quick >= exact - 1e-9
        excess.append(quick / max(exact, 1e-9))
    assert np.mean(excess) < 1.02


def continuous(rng, n_features):
    features = [
        Feature(
            j, lower=-1.0, upper=1.0, scale=rng.uniform(0.5, 2), cost=rng.uniform(0, 2)
        )
        for j in range(n_features)
    ]
    return FeatureConstraints(features)


def nearest_by_solver(constraints, ref, wish, free):
    """SLSQP on the moves of the free features, split into directions."""
    features = list(constraints.features.values())
    scale = np.array([f.scale for f in features])
    price = np.array([f.cost for f in features]) / scale
    way = np.sign(wish - ref)
    room = np.where(way > 0, 1 - ref, ref + 1) * free
    size = np.abs(wish - ref)
    solved = minimize(
        lambda m: np.sum(((m - size) / scale) ** 2),
        np.zeros(len(ref)),
        jac=lambda m: 2 * (m - size) / scale**2,
        bounds=[(0, r) for r in room],
        constraints={
            "type": "ineq",
            "fun": lambda m: constraints.max_cost - m @ price,
            "jac": lambda m: -price,
        },
        method="SLSQP",
        options=dict(ftol=1e-15, maxiter=500),
    )
    return solved.fun


@pytest.mark.parametrize("max_changed", [None, 2])
def test_limits_on_numbers_give_the_nearest_row(max_changed):
    """Also where the wish is far outside of the bounds."""
    rng = np.random.default_rng(1)
    for _ in range(25):
        constraints = continuous(rng, 4)
        constraints.limit(max_cost=rng.uniform(0.1, 2), max_changed=max_changed)
        ref, wish = rng.uniform(-1, 1, 4), rng.normal(0, 4, 4)
        found = constraints.project(ref[None], wish[None])
        assert constraints.violations(ref[None], found) == []
        sets = itertools.combinations(range(4), max_changed or 4)
        best = min(
            nearest_by_solver(constraints, ref, wish, np.isin(np.arange(4), list(some)))
            for some in sets
        )
        assert squares(constraints, wish, found)[0] == pytest.approx(best, abs=1e-6)


def test_steps_and_numbers_share_a_cost():
    """A flag is worth it or not, whatever is left goes to the number: a closed form."""
    features = [
        Feature("flag", "binary", 0.0, 1.0),
        Feature("amount", lower=0.0, upper=10.0),
    ]
    constraints = FeatureConstraints(features).limit(max_cost=1.5)
    ref = pd.DataFrame({"flag": [0, 0], "amount": [0.0, 0.0]})
    wish = pd.DataFrame({"flag": [1.0, 1.0], "amount": [1.2, 3.0]})
    found = constraints.project(ref, wish)
    # With the flag (0, .5) is left of (1.2, 3), without it (1.2, 1.5).
    assert found["flag"].tolist() == [1, 0]
    np.testing.assert_allclose(found["amount"], [0.5, 1.5])


def test_where_the_search_is_given_up_it_says_so(monkeypatch):
    monkeypatch.setattr("sklearn_advsec.threat._limits._MOST_PARTS", 0)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 20, (40, 12)).astype(float)
    constraints = FeatureConstraints.from_frame(X).limit(max_cost=1.3)
    for j in range(12):
        constraints.set(j, cost=rng.uniform(0.5, 2))
    wish = X[::-1]
    with pytest.warns(UserWarning, match="rows have too many ways to spend max_cost"):
        found = constraints.project(X, wish)
    assert constraints.violations(X, found) == []
