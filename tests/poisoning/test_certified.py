"""Votes that no poison within the certificate changes: by brute force on a few rows."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.metrics import certified_accuracy_scorer
from sklearn_advsec.poisoning import BaggingCertified, DeepPartitionAggregation
from sklearn_advsec.poisoning._certified._bagging import _leads_needed
from sklearn_advsec.poisoning._certified._partitions import _row_bytes

X, y = load_breast_cancer(return_X_y=True)
X_digits, y_digits = load_digits(return_X_y=True)


class NearestMean(ClassifierMixin, BaseEstimator):
    """The class with the nearest mean: as little as a classifier can be."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == label].mean(0) for label in self.classes_])
        return self

    def decision_function(self, X):
        distances = ((X[:, None] - self.means_) ** 2).sum(2)
        return -distances if len(self.classes_) > 2 else distances[:, 0] - distances[:, 1]

    def predict(self, X):
        distances = ((X[:, None] - self.means_) ** 2).sum(2)
        return self.classes_[distances.argmin(1)]


def small(n_classes, seed):
    rng = np.random.RandomState(seed)
    labels = np.arange(14) % n_classes
    rows = np.round(rng.randn(14, 2) + 2 * labels[:, None], 1)
    return rows, labels, np.round(rng.randn(6, 2) + 2 * (np.arange(6)[:, None] % 3), 1)


def edits(rows, labels, n_classes):
    """Yield functions that each make one change of the training data."""
    for i in range(len(rows)):
        yield lambda rows, labels, i=i: (np.delete(rows, i, 0), np.delete(labels, i))
        for label in range(n_classes):
            yield lambda rows, labels, i=i, label=label: (
                rows,
                np.where(np.arange(len(labels)) == i, label, labels),
            )
    for point in ([9.0, 9.0], [-9.0, 9.0], [0.3, 0.1], [2.0, 2.2]):
        for label in range(n_classes):
            yield lambda rows, labels, point=point, label=label: (
                np.vstack([rows, point]),
                np.append(labels, label),
            )


@pytest.mark.parametrize("vote", ["plurality", "run-off"])
@pytest.mark.parametrize(("n_classes", "seed"), [(2, 0), (3, 1), (3, 2)])
def test_no_change_within_the_certificate_changes_a_vote(vote, n_classes, seed):
    rows, labels, test = small(n_classes, seed)
    model = DeepPartitionAggregation(NearestMean(), n_partitions=7, vote=vote)
    certificate = model.fit(rows, labels).certify(test)
    single = list(edits(rows, labels, n_classes))
    rng = np.random.RandomState(0)
    pairs = [rng.choice(len(single), 2, replace=False) for _ in range(60)]
    broken = 0
    for chosen in [*([i] for i in range(len(single))), *pairs]:
        poisoned = rows, labels
        for i in sorted(chosen):  # removals by position come first, in order
            if len(poisoned[0]) < len(rows) and i < len(single) - 4 * n_classes:
                break
            poisoned = single[i](*poisoned)
        if len(np.unique(poisoned[1])) < n_classes:
            continue
        changed = model.fit(*poisoned).predict(test) != certificate.y_pred
        assert not changed[certificate.radius >= len(chosen)].any()
        broken += changed.sum()
    assert broken  # else nothing was tested
    assert (certificate.radius >= 1).any()


def test_the_closed_form():
    votes = np.array([[5, 2, 0], [4, 4, 1], [0, 3, 7], [3, 4, 2]])

    class Fixed(DeepPartitionAggregation):
        def votes(self, X):
            return votes

    model = Fixed(NearestMean()).fit(*small(3, 0)[:2])
    certificate = model.certify(None)
    assert certificate.y_pred.tolist() == [0, 0, 2, 1]
    # floor((first - second - 1 if a tie would go to the other) / 2)
    assert certificate.radius.tolist() == [1, 0, 1, 0]


def test_run_off_certifies_more_where_there_are_many_classes():
    rows, test = X_digits[:1200], X_digits[1200:]
    right = {}
    for vote in ("plurality", "run-off"):
        model = DeepPartitionAggregation(RidgeClassifier(), n_partitions=25, vote=vote)
        certificate = model.fit(rows, y_digits[:1200]).certify(test)
        right[vote] = certificate.accuracy(y_digits[1200:], [0, 4])
    assert right["run-off"][0] > right["plurality"][0] - 0.01
    assert right["run-off"][1] > right["plurality"][1] + 0.04


def test_two_classes_run_off_as_by_plurality():
    votes = [
        DeepPartitionAggregation(RidgeClassifier(), n_partitions=11, vote=vote)
        .fit(X[::2], y[::2])
        .certify(X[1::2])
        for vote in ("plurality", "run-off")
    ]
    np.testing.assert_array_equal(votes[0].radius, votes[1].radius)
    np.testing.assert_array_equal(votes[0].y_pred, votes[1].y_pred)


def test_a_row_reaches_one_part_whatever_comes_with_it():
    model = DeepPartitionAggregation(NearestMean(), n_partitions=5)
    order = np.random.RandomState(0).permutation(len(X))
    for one, other in (((X, y), (X[order], y[order])), ((X, y), (X, 1 - y))):
        parts = [
            [
                {row.tobytes() for row in data[0][part]}
                for part in model.fit(*data).subsets_
            ]
            for data in (one, other)
        ]
        assert parts[0] == parts[1]
    shuffled = model.fit(X[order], y[order]).votes(X)
    np.testing.assert_array_equal(shuffled, model.fit(X, y).votes(X))
    assert list(_row_bytes(np.array([[0.0, 1]]))) == list(
        _row_bytes(np.array([[-0.0, 1]]))
    )


def test_frames_and_sparse_rows_have_parts_too():
    frame = pd.DataFrame({"a": X[:, 0], "b": np.where(y, "x", "y"), "c": X[:, 1] > 14})
    alone = list(_row_bytes(frame.iloc[3:4]))
    assert alone == list(_row_bytes(frame))[3:4]
    sparse = csr_array(X_digits[:200])
    model = DeepPartitionAggregation(RidgeClassifier(), n_partitions=4)
    model.fit(sparse, y_digits[:200])
    assert model.certify(sparse).y_pred.shape == (200,)
    assert list(_row_bytes(sparse[7:8])) == list(_row_bytes(sparse))[7:8]


@pytest.mark.parametrize("vote", ["plurality", "run-off"])
@pytest.mark.parametrize("change", ["first class removed", "new label"])
def test_labels_that_go_or_come_move_no_more_votes_than_rows(vote, change):
    rng = np.random.RandomState(0)
    rows, labels = rng.normal(size=(40, 2)), np.full(40, "c", dtype=object)
    labels[:2] = "a", "b"
    tree = DecisionTreeClassifier(random_state=0)
    # Most parts are empty, and had no reason to side with the class that is the first.
    model = DeepPartitionAggregation(tree, n_partitions=200, vote=vote)
    certificate = model.fit(rows, labels).certify(rows)
    assert (certificate.radius >= 5).all() and (certificate.y_pred == "c").all()
    if change == "new label":
        more = rng.normal(size=(5, 2))
        rows_then, labels_then = np.r_[rows, more], np.r_[labels, ["!"] * 5]
    else:
        rows_then, labels_then = rows[1:], labels[1:]
    assert (model.fit(rows_then, labels_then).predict(rows) == "c").all()


def test_parts_without_rows_or_with_one_class_vote_a_constant():
    rows, labels, test = small(2, 0)
    model = DeepPartitionAggregation(LogisticRegression(), n_partitions=40)
    model.fit(rows, np.array(["no", "yes"])[labels])
    assert 0 in model.estimators_ and any(len(part) == 0 for part in model.subsets_)
    assert set(model.predict(test)) <= {"no", "yes"}
    n_voters = sum(len(part) > 0 for part in model.subsets_)
    assert (model.votes(test).sum(1) == n_voters).all()
    # Of a part that agrees, nobody knows how many a label that is new would need.
    alone = model.set_params(n_partitions=1).fit(rows, labels).certify(test)
    assert (alone.radius == 0).all()


def test_parts_that_lack_a_class_behind_a_scaler():
    """Ridge models that train as one batch know all classes, seen or not."""
    model = DeepPartitionAggregation(
        make_pipeline(StandardScaler(), RidgeClassifier()), n_partitions=30
    )
    few = y_digits < 4
    rows, labels = X_digits[few][:150], y_digits[few][:150]
    found = {len(np.unique(labels[part])) for part in model.fit(rows, labels).subsets_}
    assert min(found) < 4 == max(found)
    assert (model.predict(rows) == labels).mean() > 0.7


def test_semi_supervised_parts_certify_flips_only():
    model = DeepPartitionAggregation(
        KNeighborsClassifier(1),
        n_partitions=30,
        unsupervised=make_pipeline(StandardScaler(), PCA(5)),
    )
    certificate = model.fit(X[::2], y[::2]).certify(X[1::2])
    assert certificate.unit == "flipped labels"
    assert {len(part) for part in model.subsets_} == {9, 10}
    rng = np.random.RandomState(0)
    for _ in range(5):
        flipped = y[::2].copy()
        at = rng.choice(len(flipped), 6, replace=False)
        flipped[at] = 1 - flipped[at]
        changed = model.fit(X[::2], flipped).predict(X[1::2]) != certificate.y_pred
        assert not changed[certificate.radius >= 6].any()


@pytest.mark.long
def test_certified_accuracy_is_a_score():
    model = DeepPartitionAggregation(
        make_pipeline(StandardScaler(), RidgeClassifier()), n_partitions=15
    )
    scores = [
        cross_val_score(model, X, y, scoring=certified_accuracy_scorer(n)).mean()
        for n in (0, 3, 6)
    ]
    assert scores[0] > 0.9 and scores[0] >= scores[1] >= scores[2] > 0.3


# Bagging ------------------------------------------------------------------------------


def test_the_lead_that_is_needed_is_never_too_small():
    """All bags of two rows, all changes: with that lead, no change of the data wins."""
    rng = np.random.RandomState(0)
    labels = (np.arange(10) < 3).astype(int)
    rows = np.round(rng.randn(10, 2) + 2 * labels[:, None], 1)
    points = np.array([[0.9, 0.9], [5.0, 2.0], [-3.0, -1.0], [1.5, 1.4]])

    def shares(rows, labels):
        bags = itertools.product(range(len(rows)), repeat=2)
        total = np.zeros((len(points), 2))
        for bag in bags:
            of = list(bag)
            codes = labels[of]
            vote = (
                np.full(len(points), codes[0])
                if codes[0] == codes[1]
                else NearestMean().fit(rows[of], codes).predict(points)
            )
            total[np.arange(len(points)), vote] += 1
        return total / total.sum(1, keepdims=True)

    clean = shares(rows, labels)
    lead, winner = np.abs(clean[:, 0] - clean[:, 1]), clean.argmax(1)
    needed = _leads_needed(10, 2)
    assert (np.diff(needed) > 0).all() and (lead > needed[1]).any()
    for change in edits(rows, labels, 2):
        changed = shares(*change(rows, labels)).argmax(1) != winner
        assert not changed[lead > needed[1]].any()


def test_bags_certify_less_for_larger_bags_and_survive_poison():
    model = make_pipeline(StandardScaler(), RidgeClassifier())
    radii = []
    for size in (10, 60):
        bags = BaggingCertified(model, n_estimators=100, bag_size=size, random_state=0)
        certificate = bags.fit(X[::2], y[::2]).certify(X[1::2])
        assert certificate.confidence == 0.999 and certificate.accuracy(y[1::2], 0) > 0.8
        radii.append(np.nanmedian(certificate.radius))
    assert radii[0] > radii[1] >= 0
    flipped = y[::2].copy()
    flipped[:5] = 1 - flipped[:5]
    bags.fit(X[::2], flipped)
    changed = bags.predict(X[1::2]) != certificate.y_pred
    assert not changed[certificate.radius >= 5].any()


def test_votes_too_close_to_tell_are_not_certified():
    rng = np.random.RandomState(0)
    bags = BaggingCertified(NearestMean(), n_estimators=20, random_state=0)
    certificate = bags.fit(rng.randn(60, 2), np.arange(60) % 2).certify(rng.randn(50, 2))
    assert np.isnan(certificate.radius).any()
    assert certificate.accuracy(certificate.y_pred, 0) < 1
