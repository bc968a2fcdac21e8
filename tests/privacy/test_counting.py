"""Proofs from the counts of forests, beside all tables that there are."""

from itertools import combinations_with_replacement, product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.privacy import DRAFT, _draft, counting_certificate

DOMAIN = [range(2), range(3), range(2)]
POINTS = np.array(list(product(*DOMAIN)))
RECORDS = np.array([(*point, label) for point in POINTS for label in (0, 1)])


def tables_with_the_counts(forest, n_rows):
    """Return how often each record is in each table on which trees have these counts."""
    number, ordered = np.arange(len(RECORDS)), forest.bootstrap
    if ordered:
        tables = np.array(list(product(number, repeat=n_rows)))
        bags = [np.bincount(b, minlength=n_rows) for b in forest.estimators_samples_]
    else:
        tables = np.array(list(combinations_with_replacement(number, n_rows)))
        bags = [np.ones(n_rows, int)] * len(forest.estimators_)
    for tree, bag in zip(forest.estimators_, bags, strict=True):
        leaf = tree.apply(RECORDS[:, :-1].astype(np.float32))
        shares = tree.tree_.value[:, 0] * tree.tree_.weighted_n_node_samples[:, None]
        wanted = np.rint(shares).astype(int)
        for node, label in product(np.unique(leaf), (0, 1)):
            own = (leaf == node) & (RECORDS[:, -1] == label)
            tables = tables[(own[tables] * bag).sum(axis=1) == wanted[node, label]]
    return (tables[:, :, np.newaxis] == number).sum(axis=1)


def small_forests(bootstrap):
    for seed in range(8):
        rng = np.random.RandomState(seed)
        n_rows = 3 if bootstrap else int(rng.randint(2, 5))
        X, y = POINTS[rng.randint(len(POINTS), size=n_rows)], rng.randint(0, 2, n_rows)
        y[0] = 1 - y[1]
        kind = (RandomForestClassifier, ExtraTreesClassifier)[seed % 2]
        depth = (None, 1, 2)[seed % 3]
        forest = kind(
            int(rng.randint(1, 6)) * (4 if bootstrap else 1),
            bootstrap=bootstrap,
            max_depth=depth,
            random_state=seed,
        )
        forest.fit(X, y)
        if len(forest.classes_) == 2:
            yield forest, X, y


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("max_points", [1000, 3])
def test_what_is_proved_holds_for_every_table(bootstrap, max_points):
    """`max_points=3` is less than the domain has, which goes leaf by leaf."""
    n_decided = 0
    for forest, _, _ in small_forests(bootstrap):
        found = counting_certificate(
            forest, RECORDS, domain=DOMAIN, max_points=max_points
        )
        tables = tables_with_the_counts(forest, found.n_rows)
        assert len(tables)
        least, most = tables.min(axis=0), tables.max(axis=0)
        assert (found.lower <= least).all()
        assert (found.upper >= most).all()
        np.testing.assert_array_equal(found.status == "in", found.lower > 0)
        np.testing.assert_array_equal(found.status == "out", found.upper == 0)
        n_decided += found.decided
    assert n_decided > 1


def test_one_tree_on_pure_cells_has_the_whole_table():
    """Whole numbers and programs find all there is, where each point has its leaf."""
    X, y = POINTS, (POINTS.sum(axis=1) % 2).astype(int)  # every split is needed
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    found = counting_certificate(tree, RECORDS, domain=DOMAIN)
    inside = RECORDS[:, -1] == RECORDS[:, :-1].sum(axis=1) % 2
    np.testing.assert_array_equal(found.status, np.where(inside, "in", "out"))
    np.testing.assert_array_equal(found.lower, inside)
    np.testing.assert_array_equal(found.upper, inside)


def like_compas(n_rows, seed=0):
    rng = np.random.RandomState(seed)
    X = np.column_stack(
        [
            rng.binomial(1, 0.8, n_rows),
            rng.choice(3, n_rows, p=[0.2, 0.57, 0.23]),
            rng.choice(6, n_rows, p=[0.5, 0.34, 0.09, 0.05, 0.01, 0.01]),
            np.minimum(rng.poisson(0.1, n_rows), 3),
            np.minimum(rng.negative_binomial(0.7, 0.18, n_rows), 15),
            rng.binomial(1, 0.35, n_rows),
        ]
    )
    logit = 0.25 * X[:, 4] - 0.7 * X[:, 1] + 0.3 * X[:, 0] - 0.3
    return X, (logit + rng.logistic(size=n_rows) > 0).astype(int)


COMPAS = [range(2), range(3), range(6), range(4), range(16), range(2)]


@pytest.mark.parametrize("bootstrap", [False, True])
def test_most_records_of_a_table_of_small_numbers_are_decided(bootstrap):
    X, y = like_compas(400)
    forest = RandomForestClassifier(20, bootstrap=bootstrap, random_state=0)
    forest.fit(X[:200], y[:200])
    records = np.column_stack([X, y])
    inside = set(map(tuple, records[:200]))
    truth = np.array([tuple(record) in inside for record in records])
    found = counting_certificate(FrozenEstimator(forest), records, domain=COMPAS)
    assert found.decided > 0.5
    assert truth[found.status == "in"].all()
    assert not truth[found.status == "out"].any()
    # Without the domain, nothing can be "in", and "out" is still proved.
    blind = counting_certificate(forest, records)
    assert set(blind.status) == {"open", "out"}
    assert not truth[blind.status == "out"].any()


def test_records_may_be_a_frame_with_labels_of_any_kind():
    X, y = like_compas(100)
    names = np.array(["no", "yes"])[y]
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(label=names)
    forest = ExtraTreesClassifier(10, random_state=0).fit(X, names)
    found = counting_certificate(forest, frame, domain=COMPAS, label_column="label")
    assert "out" not in found.status


@pytest.mark.parametrize("bootstrap", [False, True])
def test_records_are_of_the_domain_in_single_precision(bootstrap):
    """A third is another number in float32, and the same to a tree."""
    rng = np.random.RandomState(0)
    X, y = rng.randint(0, 4, (30, 3)) / 3, rng.randint(0, 2, 30)
    forest = RandomForestClassifier(10, bootstrap=bootstrap, random_state=0).fit(X, y)
    records = np.column_stack([X, y])
    domain = [np.arange(4) / 3] * 3
    found = counting_certificate(forest, records.astype(np.float32), domain=domain)
    assert "out" not in found.status
    same = counting_certificate(forest, records, domain=domain)
    np.testing.assert_array_equal(found.status, same.status)


@pytest.mark.parametrize(
    ("weights", "parameters"),
    [
        (np.arange(1, 101), {}),
        (np.full(100, 2), {}),
        (None, {"class_weight": "balanced"}),
        (np.arange(1, 101), {"bootstrap": True}),
    ],
)
def test_weighted_counts_are_none(weights, parameters):
    X, y = like_compas(100)
    forest = RandomForestClassifier(5, **{"bootstrap": False, **parameters})
    forest.fit(X, y, sample_weight=weights)
    try:
        found = counting_certificate(forest, np.column_stack([X, y]), domain=COMPAS)
    except ValueError as error:
        assert "weight" in str(error) or "bags" in str(error)
    else:  # drawn by weights, the bags are still those of the seeds
        assert parameters == {"bootstrap": True}
        assert "out" not in found.status


def test_what_has_no_counts_is_refused():
    X, y = like_compas(60)
    records = np.column_stack([X, y])
    for model in (
        GradientBoostingClassifier(n_estimators=2),
        make_pipeline(StandardScaler(), DecisionTreeClassifier()),
    ):
        with pytest.raises(TypeError, match="has no counts"):
            counting_certificate(model.fit(X, y), records)
    # Two tables of as many rows of each class: their counts do not tell.
    forest = ExtraTreesClassifier(3, warm_start=True, random_state=0).fit(X, y)
    forest.set_params(n_estimators=6).fit(X[::-1] + 1, y[::-1])
    with pytest.raises(ValueError, match="warm_start=True"):
        counting_certificate(forest, records)
    forest = RandomForestClassifier(3, random_state=0).fit(X, y)
    forest.estimators_[1].random_state += 1  # is no longer what it was grown with
    with pytest.raises(ValueError, match="cannot be drawn again"):
        counting_certificate(forest, records)


def test_a_domain_that_contradicts_the_counts_is_an_error():
    X, y = like_compas(100)
    forest = ExtraTreesClassifier(10, random_state=0).fit(X, y)
    records = np.column_stack([X, y])
    small = [range(2), range(3), range(1), range(4), range(2), range(2)]
    with pytest.raises(ValueError, match="no table of rows in it"):
        counting_certificate(forest, records, domain=small)
    with pytest.raises(ValueError, match="no table of rows in it"):
        DRAFT(forest, small).reconstruct()
    for domain, match in (
        (COMPAS[:3], "6 columns"),
        ([*COMPAS[:5], ["a"]], "numbers"),
        ([*COMPAS[:5], [1, 1 + 1e-12]], "single precision"),
        ([*COMPAS[:5], []], "finite numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            counting_certificate(forest, records, domain=domain)


def test_draft_gives_the_rows_back():
    X, y = like_compas(150)
    forest = RandomForestClassifier(20, bootstrap=False, random_state=0).fit(X, y)
    found = DRAFT(forest, COMPAS).reconstruct()
    assert found.complete
    assert len(found.rows) == len(X)
    assert found.error(X) < 0.1
    rng = np.random.RandomState(1)
    guessed = np.column_stack([rng.choice(column, len(X)) for column in X.T])
    found.rows = guessed  # as many rows, each column drawn as it is distributed
    assert found.error(X) > 0.1


def test_what_draft_is_certain_of_is_in_the_table():
    X, y = like_compas(150)
    forest = ExtraTreesClassifier(10, max_depth=6, random_state=0).fit(X, y)
    found = DRAFT(forest, COMPAS).reconstruct()
    waiting = list(map(tuple, np.column_stack([X, y])))
    certain = np.column_stack([found.rows, found.labels])[found.certain]
    assert len(certain)
    for row in map(tuple, certain):
        waiting.remove(row)  # once for each time that it is claimed
    # The counts of the trees are those of the reconstruction, whatever it is.
    again = np.zeros((forest[0].tree_.node_count, 2))
    np.add.at(again, (forest[0].apply(found.rows), found.labels), 1)
    leaves = np.unique(forest[0].apply(X))
    shares = forest[0].tree_.value[:, 0] * forest[0].tree_.n_node_samples[:, None]
    np.testing.assert_allclose(again[leaves], shares[leaves], atol=1e-6)


def test_what_the_solver_gives_is_counted_again(monkeypatch):
    X, y = like_compas(60)
    forest = ExtraTreesClassifier(3, max_depth=3, random_state=0).fit(X, y)
    monkeypatch.setattr(
        _draft, "milp", lambda cost, **others: SimpleNamespace(x=np.zeros_like(cost))
    )
    found = DRAFT(forest, COMPAS).reconstruct()
    assert not found.complete
    assert len(found.rows) < len(X)


def test_draft_refuses_bags_and_large_domains():
    X, y = like_compas(50)
    with pytest.raises(ValueError, match="bootstrap=True"):
        DRAFT(RandomForestClassifier(3).fit(X, y), COMPAS).reconstruct()
    tree = DecisionTreeClassifier().fit(X, y)
    with pytest.raises(ValueError, match="max_points=10"):
        DRAFT(tree, COMPAS, max_points=10).reconstruct()
