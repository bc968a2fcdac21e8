"""Checks that every defense passes, beside scikit-learn's own."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from nets import MLP, net
from registry import DEFENSE
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.metadata_routing import MetadataRouter
from sklearn.utils.validation import has_fit_parameter

from sklearn_advsec import differentiable, trees
from sklearn_advsec.defense import (
    AdversarialDetector,
    AdversarialTrainingClassifier,
    IntervalBoundClassifier,
    LabelSmoothingClassifier,
    LogitPairingClassifier,
    MARTClassifier,
)
from sklearn_advsec.defense._base import TrainingDefense
from sklearn_advsec.evasion import ProjectedGradientDescent, SquareAttack

X, y = load_iris(return_X_y=True)
X = MinMaxScaler().fit_transform(X).astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]
FRAME = pd.DataFrame(X, columns=list("pqrs"), index=np.arange(len(X)) + 7)
ROWS = X[::7]
ASKED = ("predict", "predict_proba", "decision_function", "transform", "certify")
ASKED += ("detect", "detection_score", "reconstruct")


def said(defense, rows):
    """All that a fitted defense says of rows."""
    found = [getattr(defense, name)(rows) for name in ASKED if hasattr(defense, name)]
    return [np.asarray(getattr(one, "radius", one)) for one in found]


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def global_states():
    states = np.random.get_state(), torch.get_rng_state().numpy()  # noqa: NPY002
    return joblib.hash(states)


def test_global_random_states_stay_and_decide_nothing(defense):
    found = []
    for start in (0, 1):
        np.random.seed(start)  # noqa: NPY002
        torch.manual_seed(start)
        before = global_states()
        fitted = clone(defense).fit(X, y)
        assert global_states() == before
        found.append(said(fitted, ROWS))
        assert global_states() == before
    same(*found)


@pytest.mark.long
def test_what_the_user_handed_in_is_untouched(defense):
    defense = clone(defense)
    rows, labels = X.copy(), y.copy()
    inside = getattr(defense, "estimator", None)
    before = joblib.hash((rows, labels, defense.get_params(), vars(inside or defense)))
    defense.fit(rows, labels)
    said(defense, rows)
    if inside is None:
        assert joblib.hash((rows, labels)) == joblib.hash((X, y))
        return
    after = joblib.hash((rows, labels, defense.get_params(), vars(inside)))
    assert after == before and not hasattr(inside, "classes_")


@pytest.mark.parametrize("training", [True, False])
def test_frozen_nets_keep_their_mode_weights_and_seeds(defense, training):
    if "estimator" not in defense.get_params() or "attack" in defense.get_params():
        return
    victim = net(max_epochs=3, module__n_features=4, module__n_classes=3).fit(X, y)
    victim.module_.train(training)
    weights = joblib.hash(victim.module_.state_dict())
    try:
        fitted = clone(defense).set_params(estimator=FrozenEstimator(victim)).fit(X)
    except (TypeError, ValueError):
        return  # it trains what it defends
    state = torch.get_rng_state()
    said(fitted, ROWS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training == training for m in victim.module_.modules())
    assert joblib.hash(victim.module_.state_dict()) == weights


def test_clone_pickle_and_jobs_agree(defense):
    fitted = clone(defense).fit(X, y)
    expected = said(fitted, ROWS)
    same(said(pickle.loads(pickle.dumps(fitted)), ROWS), expected)
    same(said(clone(fitted).fit(X, y), ROWS), expected)
    if "n_jobs" in defense.get_params(deep=False):
        with joblib.parallel_config(backend="threading"):
            same(said(clone(defense).set_params(n_jobs=2).fit(X, y), ROWS), expected)


@pytest.mark.slow
def test_two_workers_find_what_one_does():
    """Workers have global states of their own: nothing may come from them."""
    work = [joblib.delayed(_fit_and_say)(clone(defense)) for defense in DEFENSE]
    for one, two in zip(
        joblib.Parallel(n_jobs=1)(work), joblib.Parallel(n_jobs=2)(work), strict=True
    ):
        for a, b in zip(one, two, strict=True):
            _close(a, b)


def _fit_and_say(defense):
    return said(defense.fit(X, y), ROWS)


def _close(a, b):
    if a.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    else:
        assert (a == b).mean() > 0.95


def test_rows_do_not_influence_each_other(defense):
    fitted = clone(defense).fit(X, y)
    for name in ASKED:
        if not hasattr(fitted, name) or name == "certify":
            continue
        whole = getattr(fitted, name)(ROWS)
        parts = [getattr(fitted, name)(ROWS[at]) for at in (slice(5), slice(5, None))]
        _close(np.asarray(whole), np.concatenate(parts))


def test_labels_of_text_and_frames(defense):
    if "estimator__lr" in defense.get_params():
        defense = clone(defense).set_params(estimator__lr=0.1)
    fitted = clone(defense).fit(FRAME, NAMES)
    assert fitted.feature_names_in_.tolist() == list("pqrs")
    plain = clone(defense).fit(X, NAMES)
    for a, b in zip(said(fitted, FRAME[::7]), said(plain, ROWS), strict=True):
        _close(a, b)
    if is_classifier(fitted):
        assert fitted.classes_.tolist() == ["setosa", "versicolor", "virginica"]
        assert set(fitted.predict(FRAME)) <= set(NAMES)
        assert fitted.score(FRAME, NAMES) > 0.5
    with pytest.raises(ValueError, match="feature names should match"):
        (fitted.predict if is_classifier(fitted) else fitted.transform)(
            FRAME[list("srqp")]
        )


def test_the_differentiable_view_says_what_the_defense_does(defense):
    fitted = clone(defense).fit(X, NAMES)
    rows = X.astype(np.float64 if "Linear" in repr(fitted) else np.float32)
    if trees.is_tree_ensemble(fitted):
        np.testing.assert_array_equal(
            trees.tree_ensemble(fitted).predict(X), fitted.predict(X)
        )
        return
    view = differentiable.view(fitted)
    x = torch.as_tensor(rows).to(getattr(view, "dtype", torch.float32)).requires_grad_()
    if not is_classifier(fitted):
        out = view.transform(x)
        np.testing.assert_allclose(
            out.detach(), fitted.transform(x.detach().numpy()), atol=1e-5
        )
        return
    logits = view.logits(x)
    predicted = view.classes[logits.argmax(1).numpy()]
    np.testing.assert_array_equal(predicted, fitted.predict(rows))
    if hasattr(fitted, "predict_proba"):
        proba = view.predict_proba(x).detach().numpy()
        np.testing.assert_allclose(proba, fitted.predict_proba(rows), atol=1e-5)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert gradient.shape == x.shape and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "recipe",
    [
        RandomForestClassifier(5),
        make_pipeline(MinMaxScaler(), net(MLP, 2, module__n_features=4)),
    ],
    ids=["forest", "net behind a scaler"],
)
def test_randomness_inside_comes_from_the_seed_of_the_defense(defense, recipe):
    """Estimators inside have no seed of their own; those behind a pipeline are nets."""
    takes = "estimator" in defense.get_params()
    if not takes or not isinstance(defense.estimator, LogisticRegression):
        return
    labels = (y > 0).astype(np.int64)
    if "attack" in defense.get_params() and isinstance(recipe, RandomForestClassifier):
        defense = clone(defense).set_params(
            attack=SquareAttack(max_queries=20, random_state=None)
        )
    found = []
    for start in (0, 1):
        np.random.seed(start)  # noqa: NPY002
        torch.manual_seed(start)
        before = global_states()
        guarded = clone(defense).set_params(estimator=recipe, random_state=3)
        found.append(said(guarded.fit(X, labels), ROWS))
        assert global_states() == before
    same(*found)


def weighs(defense):
    return has_fit_parameter(defense, "sample_weight")


def learning(defense):
    """With a rate at which small nets learn in the few epochs of the registry."""
    if "estimator__lr" in defense.get_params():
        return clone(defense).set_params(
            estimator__lr=0.1, estimator__max_epochs=10, estimator__batch_size=16
        )
    if "min_weight_fraction_leaf" in defense.get_params():
        return clone(defense).set_params(min_weight_fraction_leaf=0.01)
    if "max_epochs" in defense.get_params():
        return clone(defense).set_params(max_epochs=5)
    return clone(defense)


@pytest.mark.long
def test_weights_reach_the_training(defense):
    if not weighs(defense):
        return
    defense = learning(defense)
    plain = said(clone(defense).fit(X, y), ROWS)
    # Twice the weight is half the regularisation, and for nets the same loss.
    ones = np.full(len(X), 2.0 if "estimator__lr" in defense.get_params() else 1.0)
    weighed = said(clone(defense).fit(X, y, sample_weight=ones), ROWS)
    for a, b in zip(weighed, plain, strict=True):
        _close(a, b)
    without = clone(defense).fit(X, y, sample_weight=np.where(y == 2, 1e-6, 1.0))
    twos = np.mean(clone(defense).fit(X, y).predict(X[y == 2]) == 2)
    assert np.mean(without.predict(X[y == 2]) == 2) < min(0.35, twos)
    for wrong in (np.ones(3), -np.ones(len(X)), np.full(len(X), np.nan), np.zeros(150)):
        with pytest.raises(ValueError, match=r"sample_weight"):
            clone(defense).fit(X, y, sample_weight=wrong)


def test_weights_are_routed(defense):
    if not weighs(defense) or "estimator" not in defense.get_params():
        return
    weights = np.where(y == 2, 1e-6, 1.0)
    defense = learning(defense)
    inside = defense.estimator
    expected = clone(defense).fit(X, y, sample_weight=weights).predict(ROWS)
    with sklearn.config_context(enable_metadata_routing=True):
        assert isinstance(defense.get_metadata_routing(), MetadataRouter)
        if isinstance(inside, Pipeline):  # where weights reach the last step only
            inside[0].set_fit_request(sample_weight=False)
            inside[-1].set_fit_request(sample_weight=True)
        if isinstance(inside, LogisticRegression):
            with pytest.raises(ValueError, match="sample_weight"):
                clone(defense).fit(X, y, sample_weight=weights)
            defense.set_params(estimator=inside.set_fit_request(sample_weight=True))
        defense.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        if isinstance(inside, LogisticRegression):
            grid = {"random_state": [0]}
            search = GridSearchCV(defense, grid, cv=2, error_score="raise", refit=False)
            search.fit(X, y, sample_weight=weights)
        found = clone(defense).fit(X, y, sample_weight=weights).predict(ROWS)
    assert (found == expected).mean() > 0.95


def test_what_is_trained_already_cannot_be_trained(defense):
    if isinstance(defense, TrainingDefense):
        trained = FrozenEstimator(clone(defense.estimator))
        defense = clone(defense).set_params(estimator=trained)
        with pytest.raises(ValueError, match="is trained and stays as it is"):
            defense.fit(X, y)


def test_columns_of_text_are_to_be_encoded_before(defense):
    if isinstance(getattr(defense, "estimator", None), Pipeline):
        return  # which may encode
    name = type(defense).__name__
    with pytest.raises(ValueError, match=rf"make_pipeline\(encoder, {name}\(...\)\)"):
        clone(defense).fit(FRAME.assign(kind=NAMES), y)


def test_weights_that_nobody_takes_are_refused():
    for inside in (KNeighborsClassifier(), make_pipeline(KNeighborsClassifier())):
        with pytest.raises(TypeError, match="takes no sample_weight"):
            AdversarialDetector(inside).fit(X, y, sample_weight=np.ones(len(X)))
    behind = make_pipeline(MinMaxScaler(), LogisticRegression())
    weights = np.where(y == 2, 0.0, 1.0)
    fitted = AdversarialDetector(behind).fit(X, y, sample_weight=weights)
    assert not (fitted.predict(X) == 2).any()


def test_weights_count_as_copies_in_the_loss():
    """One batch: a row of weight 3 is three rows, for every loss."""
    rng = np.random.RandomState(0)
    counts = rng.randint(0, 3, len(X))
    one = {"batch_size": -1, "max_epochs": 3, "iterator_train__shuffle": False}
    recipe = net(MLP, module__n_features=4, module__n_classes=3, **one)
    attack = ProjectedGradientDescent(eps=0.05, max_iter=2, bounds=(0, 1))
    for defense in (
        LabelSmoothingClassifier(recipe, random_state=0),
        AdversarialTrainingClassifier(recipe, attack, random_state=0),
        MARTClassifier(recipe, attack, random_state=0),
        LogitPairingClassifier(recipe, attack, random_state=0),
        IntervalBoundClassifier(recipe, eps=0.05, ramp=(0, 0), random_state=0),
    ):
        weighed = clone(defense).fit(X, y, sample_weight=counts)
        copied = clone(defense).fit(np.repeat(X, counts, 0), np.repeat(y, counts))
        np.testing.assert_allclose(
            weighed.predict_proba(X), copied.predict_proba(X), atol=1e-3
        )


def pytest_generate_tests(metafunc):
    if "defense" in metafunc.fixturenames:
        metafunc.parametrize("defense", DEFENSE, ids=lambda d: type(d).__name__)
