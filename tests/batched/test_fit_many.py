"""Models trained as one equal models trained one by one."""

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.batched import batchable, fit_many
from sklearn_advsec.batched._linear import train_logistic
from sklearn_advsec.differentiable import view

DIGITS = load_digits(return_X_y=True)
DIGITS = (DIGITS[0] / 16, DIGITS[1])
CANCER = load_breast_cancer(return_X_y=True)
CANCER = (StandardScaler().fit_transform(CANCER[0]), CANCER[1])


def draw(y, n_models=3, n_rows=250):
    rng = np.random.RandomState(0)
    return [rng.permutation(len(y))[:n_rows] for _ in range(n_models)]


def one_by_one(estimator, X, y, subsets, seeds):
    models = []
    for rows, seed in zip(subsets, seeds, strict=True):
        model = clone(estimator)
        if "random_state" in model.get_params():
            model.set_params(random_state=seed)
        models.append(model.fit(X[rows], y[rows]))
    return models


RECIPES = [
    (MLPClassifier((32, 16), max_iter=25), DIGITS),
    (MLPClassifier((24,), max_iter=60, batch_size=37, early_stopping=True), DIGITS),
    (MLPClassifier((16,), max_iter=300, activation="tanh", alpha=0.1), CANCER),
    (MLPClassifier((16,), max_iter=40, early_stopping=True, shuffle=False), CANCER),
    (
        MLPClassifier((16,), max_iter=60, solver="sgd", learning_rate_init=0.1),
        DIGITS,
    ),
    (
        MLPClassifier(
            8, max_iter=60, solver="sgd", activation="logistic", nesterovs_momentum=False
        ),
        CANCER,
    ),
    (MLPClassifier((), max_iter=30, activation="identity"), DIGITS),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("recipe", range(len(RECIPES)))
def test_equal_to_one_by_one(recipe):
    estimator, (X, y) = RECIPES[recipe]
    subsets, seeds = draw(y), [5, 6, 7]
    assert batchable(estimator)
    batched = fit_many(estimator, X, y, subsets, seeds)
    single = one_by_one(estimator, X, y, subsets, seeds)
    for one, many in zip(single, batched, strict=True):
        np.testing.assert_allclose(
            many.predict_proba(X), one.predict_proba(X), rtol=0, atol=1e-4
        )
        assert many.n_iter_ == one.n_iter_
    # Different seeds and rows make different models.
    assert np.abs(batched[0].predict_proba(X) - batched[1].predict_proba(X)).max() > 0.01


@pytest.mark.parametrize(
    "parameters", [{}, {"C": 0.1}, {"fit_intercept": False}], ids=str
)
@pytest.mark.parametrize("data", [DIGITS, CANCER], ids=["digits", "cancer"])
def test_logistic_models_reach_the_same_optimum(data, parameters):
    X, y = data
    estimator = LogisticRegression(tol=1e-8, max_iter=1000, **parameters)
    assert batchable(estimator, "cuda") and not batchable(estimator)
    subsets, classes = draw(y), np.unique(y)
    batched = [clone(estimator) for _ in subsets]
    train_logistic(batched, X, y, classes, np.stack(subsets))  # as on a GPU
    for one, many in zip(
        one_by_one(estimator, X, y, subsets, range(3)), batched, strict=True
    ):
        np.testing.assert_allclose(
            many.predict_proba(X), one.predict_proba(X), rtol=0, atol=1e-4
        )
        assert abs(int(many.n_iter_[0]) - int(one.n_iter_[0])) <= 30


@pytest.mark.gpu
@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier((32, 16), max_iter=25),
        MLPClassifier((16,), max_iter=40, early_stopping=True),
        LogisticRegression(tol=1e-8, max_iter=1000),
        RidgeClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_gpu_agrees_with_the_processor(estimator):
    X, y = DIGITS
    there = fit_many(estimator, X, y, draw(y), range(3), device="cuda")
    here = fit_many(estimator, X, y, draw(y), range(3))
    for one, other in zip(there, here, strict=True):
        answer = "predict_proba" if hasattr(one, "predict_proba") else "decision_function"
        np.testing.assert_allclose(
            getattr(one, answer)(X), getattr(other, answer)(X), atol=1e-4
        )


def test_the_way_of_a_gpu_on_the_processor(monkeypatch):
    """What differs on a GPU: its chunks, logistic models in batches, and copies there."""
    from sklearn_advsec.batched import _fit_many as batched

    X, y = DIGITS
    estimators = (
        MLPClassifier((8,), max_iter=5),
        LogisticRegression(tol=1e-8, max_iter=1000),
    )
    plain = [fit_many(e, X, y, draw(y), range(3)) for e in estimators]
    monkeypatch.setattr(batched, "_is_gpu", lambda device: device == "cpu")
    monkeypatch.setattr(batched, "_CHUNK", 0)  # not used
    for estimator, expected in zip(estimators, plain, strict=True):
        assert batchable(estimator, "cpu")
        found = fit_many(estimator, X, y, draw(y), range(3), device="cpu")
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                one.predict_proba(X), other.predict_proba(X), atol=1e-4
            )


@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier((16,), max_iter=30, early_stopping=True),
        make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=3, solver="sgd")),
        RidgeClassifier(),
        LogisticRegression(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_every_tensor_is_made_on_the_device_that_is_given(estimator, monkeypatch):
    """Here it is the processor, and what is made elsewhere has no values."""
    from sklearn_advsec.batched import _fit_many as batched

    monkeypatch.setattr(batched, "_is_gpu", lambda device: device == "cpu")
    X, y = DIGITS
    with torch.device("meta"):
        models = fit_many(estimator, X, y, draw(y), range(3), device="cpu")
    expected = fit_many(estimator, X, y, draw(y), range(3), device="cpu")
    for one, other in zip(models, expected, strict=True):
        np.testing.assert_array_equal(one.predict(X), other.predict(X))


def test_progress_is_told(capsys):
    X, y = DIGITS
    fit_many(DecisionTreeClassifier(), X, y, draw(y), range(3), verbose=1)
    assert capsys.readouterr().err.splitlines()[-1] == "3 of 3 models are trained"


class ThreadCounter(DecisionTreeClassifier):
    """Notes how many threads torch computes in while it is fitted."""

    def fit(self, X, y):
        self.n_threads_ = torch.get_num_threads()
        return super().fit(X, y)


def test_one_torch_thread_in_workers():
    X, y = DIGITS
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with joblib.parallel_config(backend="threading"):
            models = fit_many(ThreadCounter(), X, y, draw(y, 8), range(8), n_jobs=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert {model.n_threads_ for model in models} == {1}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_learned_attributes_are_those_of_scikit_learn():
    X, y = DIGITS
    estimator = MLPClassifier((8,), max_iter=80, early_stopping=True)
    (many,) = fit_many(estimator, X, y, draw(y, 1), [3])
    (one,) = one_by_one(estimator, X, y, draw(y, 1), [3])
    assert set(vars(one)) - set(vars(many)) <= {"_optimizer"}
    assert many.loss_curve_ == pytest.approx(one.loss_curve_, abs=1e-6)
    assert many.validation_scores_ == pytest.approx(one.validation_scores_)
    assert many.get_params() == one.get_params()
    x = torch.as_tensor(X[:5])
    np.testing.assert_allclose(
        view(many).predict_proba(x), one.predict_proba(X[:5]), atol=1e-6
    )


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_rows", [20, 300])
@pytest.mark.parametrize("data", [DIGITS, CANCER], ids=["digits", "cancer"])
def test_ridge_is_exact(data, n_rows, fit_intercept):
    X, y = data
    estimator = RidgeClassifier(alpha=0.5, fit_intercept=fit_intercept)
    subsets = [np.r_[np.unique(y, return_index=True)[1], r] for r in draw(y, 3, n_rows)]
    batched = fit_many(estimator, X, y, subsets, range(3))
    for one, many in zip(
        one_by_one(estimator, X, y, subsets, range(3)), batched, strict=True
    ):
        np.testing.assert_allclose(
            many.decision_function(X), one.decision_function(X), atol=1e-8
        )
        np.testing.assert_array_equal(many.predict(X), one.predict(X))
        assert many.coef_.shape == one.coef_.shape
        assert np.shape(many.intercept_) == np.shape(one.intercept_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pipelines_are_fitted_step_by_step():
    X, y = DIGITS
    pipe = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=20))
    subsets = draw(y, 2)
    models = fit_many(pipe, X, y, subsets, [1, 2])
    for model, rows in zip(models, subsets, strict=True):
        np.testing.assert_allclose(model[0].mean_, X[rows].mean(axis=0))
        one = clone(pipe).set_params(mlpclassifier__random_state=None)
        one.set_params(mlpclassifier__random_state=model[-1].random_state)
        one.fit(X[rows], y[rows])
        np.testing.assert_allclose(
            model.predict_proba(X), one.predict_proba(X), atol=1e-4
        )


def test_masks_strings_frames_and_sizes():
    X, y = CANCER
    names = np.array(["benign", "malignant"])[y]
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    masks = np.zeros((3, len(y)), dtype=bool)
    masks[0, :200] = masks[1, 100:400] = masks[2, 50:250] = True  # two sizes
    estimator = MLPClassifier((4,), max_iter=5)
    models = fit_many(estimator, frame, names, masks, range(3))
    assert models[0].feature_names_in_.tolist() == list(frame.columns)
    assert set(models[0].predict(frame)) <= {"benign", "malignant"}
    plain = fit_many(estimator, X, y, [np.flatnonzero(m) for m in masks], range(3))
    for one, other in zip(models, plain, strict=True):
        # A frame's columns lie one after the other: products may add in another order.
        expected = other.predict_proba(X)
        np.testing.assert_allclose(one.predict_proba(frame), expected, rtol=1e-9)


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("estimator", [RidgeClassifier(), DecisionTreeClassifier()])
def test_results_stand_in_place_of_models(estimator, n_jobs):
    X, y = DIGITS
    told, subsets = [], draw(y, 20)

    def right(model):
        return float(np.mean(model.predict(X) == y))

    with joblib.parallel_config(backend="threading"):
        found = fit_many(
            estimator,
            X,
            y,
            subsets,
            range(20),
            n_jobs=n_jobs,
            result=right,
            callback=lambda i, result: told.append((i, result)),
        )
    models = fit_many(estimator, X, y, subsets, range(20))
    assert found == [right(model) for model in models]
    assert sorted(told) == list(enumerate(found))


class NestingBackend(joblib.parallel.ThreadingBackend):
    """Takes tasks from inside of tasks, whatever n_jobs says there, as dask's does."""

    def effective_n_jobs(self, n_jobs):
        return 2

    def get_nested_backend(self):
        return NestingBackend(nesting_level=self.nesting_level + 1), -1


class JobCounter(DecisionTreeClassifier):
    """Notes how many jobs joblib would give it while it is fitted."""

    def fit(self, X, y):
        self.n_jobs_ = joblib.effective_n_jobs(None), joblib.effective_n_jobs(2)
        return super().fit(X, y)


def test_tasks_send_nothing_elsewhere():
    X, y = DIGITS
    joblib.register_parallel_backend("nesting", NestingBackend)
    try:
        with joblib.parallel_config(backend="nesting"):
            models = fit_many(JobCounter(), X, y, draw(y, 4), range(4), n_jobs=2)
    finally:
        del joblib.parallel.BACKENDS["nesting"]
    assert {model.n_jobs_ for model in models} == {(1, 1)}


def test_a_class_that_a_subset_lacks_is_known():
    X, y = DIGITS
    rows = np.flatnonzero(y < 8)[:200]
    for estimator in (MLPClassifier((8,), max_iter=5), RidgeClassifier()):
        (model,) = fit_many(estimator, X, y, [rows], [0])
        assert model.classes_.tolist() == list(range(10))
        answer = getattr(model, "predict_proba", None) or model.decision_function
        assert answer(X).shape == (len(X), 10)


@pytest.mark.parametrize(
    "backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)]
)
def test_jobs_do_not_matter(backend):
    X, y = DIGITS
    for estimator in (MLPClassifier((8,), max_iter=5), DecisionTreeClassifier()):
        one = fit_many(estimator, X, y, draw(y, 4), range(4))
        with joblib.parallel_config(backend=backend):
            two = fit_many(estimator, X, y, draw(y, 4), range(4), n_jobs=2)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_rows_that_are_read_only():
    """As joblib hands large arrays to its workers."""
    X, y = DIGITS[0].copy(), DIGITS[1].copy()
    X.setflags(write=False)
    y.setflags(write=False)
    for estimator in (MLPClassifier((8,), max_iter=2), RidgeClassifier()):
        assert len(fit_many(estimator, X, y, draw(y, 2), range(2))) == 2


def test_sparse_rows():
    X, y = DIGITS
    for estimator in (
        MLPClassifier((8,), max_iter=5),
        make_pipeline(MaxAbsScaler(), MLPClassifier((8,), max_iter=5)),
    ):
        dense = fit_many(estimator, X, y, draw(y, 2), range(2))
        sparse = fit_many(estimator, csr_array(X), y, draw(y, 2), range(2))
        for one, other in zip(sparse, dense, strict=True):
            np.testing.assert_allclose(
                one.predict_proba(X), other.predict_proba(X), atol=1e-6
            )


def test_float32_batch_of_one_and_of_many():
    X, y = DIGITS
    X = X.astype(np.float32)
    estimator = MLPClassifier((32,), max_iter=20)
    many = fit_many(estimator, X, y, draw(y, 5), range(5))
    alone = [fit_many(estimator, X, y, [r], [i])[0] for i, r in enumerate(draw(y, 5))]
    assert many[0].coefs_[0].dtype == np.float32
    for a, b in zip(many, alone, strict=True):
        np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=1e-4)


class Interrupted(ClassifierMixin, BaseEstimator):
    """Stops at the third training, as Ctrl-C does, unless it is told not to."""

    n_fits = 0
    armed = True

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y):
        if Interrupted.armed and Interrupted.n_fits == 2:
            raise KeyboardInterrupt
        Interrupted.n_fits += 1
        self.classes_, self.n_rows_ = np.unique(y), len(y)
        return self


def test_interrupted_training_takes_up_where_it_was(tmp_path):
    X, y = CANCER
    Interrupted.n_fits, Interrupted.armed = 0, True
    with pytest.raises(KeyboardInterrupt) as stop:
        fit_many(Interrupted(), X, y, draw(y, 5), range(5), memory=str(tmp_path))
    finished = stop.value.result
    assert [model is not None for model in finished] == [True, True, False, False, False]
    Interrupted.armed = False
    models = fit_many(Interrupted(), X, y, draw(y, 5), range(5), memory=str(tmp_path))
    assert all(model.n_rows_ == 250 for model in models)
    assert Interrupted.n_fits == 5  # and not 7


def test_batches_are_kept(tmp_path, monkeypatch):
    from sklearn_advsec.batched import _fit_many as batched

    X, y = DIGITS
    trained = []
    real = batched.train_perceptrons

    def counting(models, *args):
        trained.append(len(models))
        return real(models, *args)

    monkeypatch.setattr(batched, "train_perceptrons", counting)
    monkeypatch.setattr(batched, "_CHUNK", 2)
    estimator = MLPClassifier((4,), max_iter=3)
    first = fit_many(estimator, X, y, draw(y, 4), range(4), memory=str(tmp_path))
    again = fit_many(estimator, X, y, draw(y, 6), range(6), memory=str(tmp_path))
    assert trained == [2, 2, 2]
    np.testing.assert_array_equal(first[3].predict_proba(X), again[3].predict_proba(X))


def test_global_random_state_is_left_alone():
    X, y = DIGITS
    before = torch.get_rng_state(), joblib.hash(np.random.get_state())  # noqa: NPY002
    fit_many(MLPClassifier((8,), max_iter=3), X, y, draw(y, 2), [0, 1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert joblib.hash(np.random.get_state()) == before[1]  # noqa: NPY002


def test_skorch_nets_are_seeded():
    from nets import net

    X, y = CANCER[0].astype(np.float32), CANCER[1].astype(np.int64)
    estimator = net(max_epochs=2, module__n_features=30)
    assert not batchable(estimator)
    a, b = fit_many(estimator, X, y, [draw(y, 1)[0]] * 2, [4, 4])
    (c,) = fit_many(estimator, X, y, draw(y, 1), [5])
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    assert np.abs(a.predict_proba(X) - c.predict_proba(X)).max() > 1e-3


def test_a_pipeline_of_one_step():
    X, y = DIGITS
    for last in (MLPClassifier((4,), max_iter=2), RidgeClassifier()):
        (model,) = fit_many(make_pipeline(last), X, y, draw(y, 1), [0])
        (plain,) = fit_many(last, X, y, draw(y, 1), [model[-1].random_state])
        np.testing.assert_array_equal(model.predict(X), plain.predict(X))


@pytest.mark.parametrize(
    "estimator", [MLPClassifier((4,), max_iter=2), RidgeClassifier()], ids=str
)
def test_missing_values_are_refused_as_one_by_one(estimator):
    X, y = DIGITS
    X = X.copy()
    X[draw(y, 1)[0][-1], 3] = np.nan
    for recipe in (estimator, make_pipeline(MaxAbsScaler(), estimator)):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            fit_many(recipe, X, y, draw(y, 2), range(2))


def test_steps_that_give_frames_keep_their_names():
    X, y = CANCER
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(30)])
    pipe = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=2))
    pipe.set_output(transform="pandas")
    models = fit_many(pipe, frame, y, draw(y, 2), range(2))
    assert models[1].predict(frame).shape == y.shape  # without a warning
    assert models[1][-1].feature_names_in_.tolist() == list(frame.columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ridge_of_columns_that_depend_on_each_other(dtype):
    """Where the normal equations are singular, the shortest solution counts."""
    X = np.column_stack([CANCER[0], CANCER[0]]).astype(dtype)
    y, subsets = CANCER[1], draw(CANCER[1], 2)
    for model, rows in zip(
        fit_many(RidgeClassifier(alpha=1e-9), X, y, subsets, range(2)),
        subsets,
        strict=True,
    ):
        single = RidgeClassifier(alpha=1e-9, solver="svd").fit(X[rows], y[rows])
        agree = np.mean(model.predict(X) == single.predict(X))
        assert agree > 0.98 and np.abs(model.coef_).max() < 10


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_batched_models_train_on_as_others_do():
    X, y = CANCER
    estimator = MLPClassifier((4,), max_iter=5, solver="sgd", shuffle=False)
    (many,) = fit_many(estimator, X, y, draw(y, 1), [3])
    (one,) = one_by_one(estimator, X, y, draw(y, 1), [3])
    del one._optimizer  # the momentum of the last step is not kept
    for model in (one, many):
        model.partial_fit(X, y)
    np.testing.assert_allclose(many.predict_proba(X), one.predict_proba(X), atol=1e-6)


def test_what_is_not_batched():
    assert not batchable(MLPClassifier(solver="lbfgs"))
    assert not batchable(MLPClassifier(solver="sgd", learning_rate="adaptive"))
    assert not batchable(LogisticRegression(class_weight="balanced"), "cuda")
    assert not batchable(LogisticRegression(l1_ratio=0.5, solver="saga"), "cuda")
    assert not batchable(RidgeClassifier(alpha=0))
    assert not batchable(make_pipeline(StandardScaler(), DecisionTreeClassifier()))


def test_bad_input():
    X, y = DIGITS
    estimator = MLPClassifier((4,), max_iter=2)
    with pytest.raises(ValueError, match="2 seeds for 3 subsets"):
        fit_many(estimator, X, y, draw(y), [0, 1])
    with pytest.raises(ValueError, match="at least one row"):
        fit_many(estimator, X, y, [[]], [0])
    with pytest.raises(ValueError, match="a mask has 3 entries"):
        fit_many(estimator, X, y, np.ones((1, 3), dtype=bool), [0])
    with pytest.raises(ValueError, match="two or more classes"):
        fit_many(estimator, X, np.zeros(len(X)), [range(9)], [0])
