"""Checks that every defense passes, beside scikit-learn's own."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from nets import MLP, net
from registry import DEFENSE
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sklearn_advsec import differentiable, trees
from sklearn_advsec.evasion import SquareAttack

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


def pytest_generate_tests(metafunc):
    if "defense" in metafunc.fixturenames:
        metafunc.parametrize("defense", DEFENSE, ids=lambda d: type(d).__name__)
