"""Sanitizers against random and chosen poison, and what they cost clean data."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, make_regression
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.exceptions import NoGradientError
from sklearn_advsec.poisoning import (
    RONI,
    InfluenceSanitizer,
    KNNSanitizer,
    LabelFlipping,
    LossTrimming,
    SanitizedClassifier,
    SphereSlabSanitizer,
)
from sklearn_advsec.poisoning._labels._retrained import RetrainedLinear, linear_recipe

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
TRUSTED, SUSPECT = slice(0, 200), slice(200, 569)


def recall(sanitizer, labels, truth):
    """Share of wrong labels that are removed, or set right."""
    _, out = sanitizer.fit_resample(X[SUSPECT], labels)
    kept = sanitizer.sample_indices_
    wrong = np.flatnonzero(labels != truth)
    removed = np.setdiff1d(wrong, kept)
    cured = (out == truth[kept])[np.isin(kept, wrong)].sum()
    return (len(removed) + cured) / len(wrong)


@pytest.mark.parametrize(
    ("sanitizer", "least"),
    [
        (KNNSanitizer(), 0.8),
        (LossTrimming(LogisticRegression(), contamination=0.15, random_state=0), 0.6),
        (InfluenceSanitizer(LogisticRegression(), contamination=0.15), 0.5),
        (
            RONI(
                RidgeClassifier(),
                trusted=(X[TRUSTED], y[TRUSTED]),
                contamination=0.15,
                n_train=20,
                n_splits=2,
                group_size=2,
                random_state=0,
            ),
            0.15,  # one row among twenty seldom moves a prediction
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_random_flips_are_found(sanitizer, least):
    flips = LabelFlipping(strategy="random", budget=0.1, random_state=0)
    _, labels = flips.fit_resample(X[SUSPECT], y[SUSPECT])
    found = recall(sanitizer, labels, y[SUSPECT])
    assert found >= least
    clean = sanitizer.fit(X[SUSPECT], y[SUSPECT])
    touched = len(y[SUSPECT]) - len(clean.sample_indices_) + len(clean.relabelled_)
    assert touched <= 0.3 * len(y[SUSPECT])


def test_neighbours_cure_random_flips_better_than_chosen_ones():
    cured = []
    for strategy in ("random", "farthest"):
        attack = LabelFlipping(
            LogisticRegression(), strategy=strategy, budget=0.15, random_state=0
        )
        _, labels = attack.fit_resample(X[SUSPECT], y[SUSPECT])
        cured.append(recall(KNNSanitizer(), labels, y[SUSPECT]))
    assert cured[0] > cured[1] + 0.1


def test_trim_recovers_a_regression():
    rows, values, weights = make_regression(120, 5, noise=1.0, coef=True, random_state=0)
    poisoned = values.copy()
    at = np.argsort(rows[:, 0])[-20:]  # chosen on one side, where they turn the line
    poisoned[at] = -400.0
    trim = LossTrimming(LinearRegression(), contamination=20 / 120, random_state=0)
    kept = LinearRegression().fit(*trim.fit_resample(rows, poisoned))
    spoilt = LinearRegression().fit(rows, poisoned)
    assert np.abs(kept.coef_ - weights).max() < 1 < np.abs(spoilt.coef_ - weights).max()
    assert np.setdiff1d(np.arange(120), trim.sample_indices_).tolist() == sorted(at)


def test_trim_takes_weights_and_ends():
    rng = np.random.RandomState(0)
    labels = np.where(rng.rand(len(y)) < 0.1, 1 - y, y)
    trim = LossTrimming(LogisticRegression(), contamination=0.1, random_state=0)
    X_new, _, weights = trim.fit_resample(X, labels, np.ones(len(y)))
    assert len(X_new) == len(weights) and 1 <= trim.n_iter_ <= 20
    for code in (0, 1):
        n = (labels == code).sum()
        kept = (labels[trim.sample_indices_] == code).sum()
        assert kept == n - int(0.1 * n)


@pytest.mark.parametrize(
    "model", [RidgeClassifier(alpha=2.0), LogisticRegression(C=0.1), LinearSVC(C=0.01)]
)
def test_self_influence_is_what_leaving_out_does(model):
    rows, codes = X[:150], y[:150]
    loss, factor, penalty, intercept = linear_recipe(model)
    scale = np.full(len(codes), float(factor))
    found = (
        RetrainedLinear(rows, 2, loss, scale, penalty, intercept)
        .fit(codes)
        .self_influence()
    )
    ours = RetrainedLinear(rows, 2, loss, scale, penalty, intercept).fit(codes)
    signs = 2.0 * codes[:, None] - 1
    before = ours.loss(ours.Z @ ours.theta, signs)[:, 0]
    tried = np.argsort(-found)[::15]
    after = []
    for i in tried:
        scale = np.full(len(codes), float(factor))
        scale[i] = 1e-9
        without = RetrainedLinear(rows, 2, loss, scale, penalty, intercept).fit(codes)
        after.append(without.loss(without.Z @ without.theta, signs)[i, 0] - before[i])
    assert np.corrcoef(found[tried], after)[0, 1] > 0.9
    assert np.median(np.array(after) / np.maximum(found[tried], 1e-12)) < 2


def test_self_influence_of_more_classes():
    digits, labels = load_digits(n_class=4, return_X_y=True)
    digits, labels = digits[:200] / 16, labels[:200].copy()
    labels[:8] = (labels[:8] + 1) % 4
    for model in (LogisticRegression(), LinearSVC(), RidgeClassifier()):
        sanitizer = InfluenceSanitizer(model, contamination=0.1).fit(digits, labels)
        assert np.isin(np.arange(8), sanitizer.sample_indices_).sum() <= 1


def test_prototypes_and_searches():
    labels = np.where(np.random.RandomState(0).rand(len(y)) < 0.15, 1 - y, y)
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    spoilt = model.fit(X[SUSPECT], labels[SUSPECT]).score(X[TRUSTED], y[TRUSTED])
    for sanitizer in (LossTrimming(LogisticRegression()), KNNSanitizer()):
        guarded = SanitizedClassifier(model, sanitizer).fit(X[SUSPECT], labels[SUSPECT])
        assert guarded.score(X[TRUSTED], y[TRUSTED]) > spoilt
    guarded = SanitizedClassifier(LogisticRegression(), LossTrimming())
    guarded.fit(X[SUSPECT], labels[SUSPECT])
    assert isinstance(guarded.sanitizer_.estimator, LogisticRegression)
    with pytest.raises(ValueError, match="prototype"):
        InfluenceSanitizer().fit(X, y)


@pytest.mark.parametrize(
    ("trusted", "text"),
    [
        (None, "needs trusted rows"),
        ((X,), r"tuple \(X, y\)"),
        ((X[y == 1], y[y == 1]), "two rows of each class"),
        ((X, y + 1), "trusted holds"),
    ],
)
def test_roni_needs_trusted_rows(trusted, text):
    with pytest.raises(ValueError, match=text):
        RONI(GaussianNB(), trusted=trusted).fit(X, y)


def test_roni_does_not_depend_on_jobs_and_tries_groups():
    few = X[SUSPECT][:60], y[SUSPECT][:60]
    with joblib.parallel_config(backend="threading"):
        scores = [
            RONI(
                GaussianNB(),
                trusted=(X[TRUSTED], y[TRUSTED]),
                group_size=5,
                n_splits=2,
                n_jobs=n_jobs,
                random_state=0,
            )
            .fit(*few)
            .scores_
            for n_jobs in (None, 2)
        ]
    np.testing.assert_array_equal(*scores)
    assert len(np.unique(scores[0])) <= 14


def test_networks_have_no_self_influence_here():
    with pytest.raises(NoGradientError):
        InfluenceSanitizer(DecisionTreeClassifier()).fit(X, y)


def test_distances_are_measured_in_medians():
    sanitizer = SphereSlabSanitizer(contamination=0.0).fit(X, y)
    of = y == 1
    sphere = np.linalg.norm(X[of] - X[of].mean(0), axis=1)
    assert (sanitizer.scores_[of] >= sphere / np.median(sphere) - 1e-9).all()


def test_columns_without_distances_are_named():
    frame = pd.DataFrame({"a": np.arange(40.0), "kind": ["u", "v"] * 20})
    for sanitizer in (KNNSanitizer(), SphereSlabSanitizer()):
        with pytest.raises(ValueError, match="column 'kind' holds no numbers"):
            sanitizer.fit_resample(frame, np.arange(40) % 2)
    # Numbers among objects are numbers.
    KNNSanitizer().fit_resample(frame[["a"]].astype(object), np.arange(40) % 2)
