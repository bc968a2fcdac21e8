"""Callbacks of scikit-learn on long fits: what they are told, and what stops."""

import os
import pickle
import time
from collections import Counter

import joblib
import numpy as np
import pytest
from nets import net
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sklearn_advsec import _progress, batched, evasion, privacy
from sklearn_advsec._progress import ReportsProgress
from sklearn_advsec.batched import fit_many
from sklearn_advsec.defense import (
    AdversarialTrainingClassifier,
    IntervalBoundClassifier,
    LabelSmoothingClassifier,
    MagNet,
    MixupClassifier,
    RandomizedSmoothingClassifier,
    RobustDecisionTreeClassifier,
    RobustRandomForestClassifier,
    TRADESClassifier,
)
from sklearn_advsec.encryption import DiscretizedMLPClassifier, EncryptedClassifier
from sklearn_advsec.evasion import (
    AdversarialPatch,
    ProjectedGradientDescent,
    UniversalPerturbation,
)
from sklearn_advsec.extraction import ActiveExtraction, EquationSolving, PathFinding
from sklearn_advsec.poisoning import MatrixFactorization
from sklearn_advsec.privacy import (
    RMIA,
    BoundaryDistance,
    DPSGDClassifier,
    GapAttack,
    LikelihoodRatio,
    ModelInversion,
    PrivacyAudit,
    PropertyInference,
    ShadowModels,
)

with_callbacks = pytest.importorskip("sklearn.callback").with_callbacks

X, y = load_digits(n_class=3, return_X_y=True)
X, y = X[:150] / 16, y[:150]
RECORDS = np.column_stack([X, y])
LINEAR = FrozenEstimator(LogisticRegression(max_iter=500).fit(X, y))
TREE = FrozenEstimator(DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, y))
SHADOW = DecisionTreeClassifier(max_depth=4)
PGD = ProjectedGradientDescent(eps=0.05, max_iter=1)


class Recorder:
    """Keep what happens; raise an exception, or ask to stop, after so many tasks."""

    def __init__(self, stop_after=None, raises=None):
        self.events, self.stop_after, self.raises = [], stop_after, raises

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        assert X is not None
        self._note("begin", context)

    def on_fit_task_end(self, estimator, context):
        self._note("end", context)
        n = len(self.of("end"))
        if (
            self.raises is not None
            and n == self.stop_after
            and context.parent is not None
        ):
            raise self.raises
        return self.stop_after is not None and n >= self.stop_after

    def _note(self, hook, context):
        if context.parent is None:
            self.max_subtasks = context.max_subtasks
        task = "fit" if context.parent is None else context.task_id
        self.events.append((hook, context.task_name, task))

    def of(self, hook):
        """Return the tasks of the fit that began or ended."""
        return [e[1:] for e in self.events if e[0] == hook and e[2] != "fit"]


class Propagated(Recorder):
    max_propagation_depth = None


class Appended:
    """Append a line to a file, by which processes can be told from each other."""

    max_propagation_depth = None

    def __init__(self, path):
        self.path = str(path)

    def setup(self, estimator, context):
        self._append("setup")

    def teardown(self, estimator, context):
        self._append("teardown")

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self._append(context.task_name)

    def _append(self, what):
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()} {what}\n")

    def lines(self):
        with open(self.path) as file:
            return [line.rstrip("\n").split(" ", 1) for line in file]


def bright(rows):
    """A group of records."""
    return rows.sum(axis=1) > np.median(rows.sum(axis=1))


def left_behind(estimator):
    names = ("_reporting", "callback_ctx", "callback_fit_ctx", "to_teardown")
    return [name for name in vars(estimator) if name.endswith(names)]


def net64(max_epochs=4, **parameters):
    # Shuffled, so that whoever draws from torch's generator would be found out.
    return net(max_epochs=max_epochs, iterator_train__shuffle=True, **parameters)


# Those whose fit a callback can end, and those that need all they do: with rows, the name
# of a task, and their number.
STOPPABLE = {
    "adversarial": (
        AdversarialTrainingClassifier(net64(), PGD, random_state=0),
        "epoch",
        4,
    ),
    "free": (
        AdversarialTrainingClassifier(net64(), PGD, method="free", random_state=0),
        "epoch",
        4,
    ),
    "rounds": (
        AdversarialTrainingClassifier(
            LogisticRegression(), PGD, n_rounds=2, random_state=0
        ),
        "round",
        3,
    ),
    "trades": (TRADESClassifier(net64(), PGD, random_state=0), "epoch", 4),
    "mixup": (MixupClassifier(net64(), random_state=0), "epoch", 4),
    "smoothing": (LabelSmoothingClassifier(net64(), random_state=0), "epoch", 4),
    "bounds": (IntervalBoundClassifier(net64(), eps=0.01, random_state=0), "epoch", 4),
    "inversion": (ModelInversion(LINEAR, max_iter=5, confidence=0.9999), "step", 5),
    "patch": (
        AdversarialPatch(LINEAR, max_iter=5, n_images=10, image_shape=(8, 8)),
        "step",
        5,
    ),
    "universal": (UniversalPerturbation(LINEAR, max_iter=4), "pass", 4),
    "discretized": (
        DiscretizedMLPClassifier((4,), max_epochs=3, random_state=0),
        "epoch",
        3,
    ),
    "dpsgd": (DPSGDClassifier(net64(), random_state=0), "epoch", 4),
}
COMPLETE = {
    "forest": (
        RobustRandomForestClassifier(n_estimators=5, random_state=0),
        "tree",
        5,
    ),
    "forest of two jobs": (
        RobustRandomForestClassifier(n_estimators=5, n_jobs=2, random_state=0),
        "tree",
        5,
    ),
    "lira": (
        LikelihoodRatio(LINEAR, shadow_estimator=SHADOW, n_shadow_models=5),
        "shadow model",
        5,
    ),
    "rmia of two jobs": (
        RMIA(LINEAR, shadow_estimator=SHADOW, n_shadow_models=5, n_jobs=2),
        "shadow model",
        5,
    ),
    "shadows in batches": (
        ShadowModels(
            LINEAR, shadow_estimator=MLPClassifier((4,), max_iter=3), n_shadow_models=5
        ),
        "shadow model",
        5,
    ),
    "property": (
        PropertyInference(
            LINEAR,
            group=bright,
            shadow_estimator=SHADOW,
            n_shadow_models=8,
        ),
        "shadow model",
        8,
    ),
    "active": (
        ActiveExtraction(
            LINEAR, surrogate=LogisticRegression(), n_rounds=3, max_queries=60
        ),
        "batch of queries",
        4,
    ),
    "equations": (
        EquationSolving(LINEAR, batch_size=20, n_checks=0),
        "batch of queries",
        4,
    ),
}


def cases(table):
    return [pytest.param(*case, id=name) for name, case in table.items()]


def fit(estimator):
    """Fit to what the estimator takes: records have a label in a column."""
    rows = RECORDS if hasattr(estimator, "label_column") else X
    known = hasattr(estimator, "label_column") or hasattr(estimator, "max_queries")
    with joblib.parallel_config(backend="threading"):  # others take seconds to start
        return estimator.fit(rows, None if known else y)


@pytest.mark.parametrize("estimator, name, n", cases(STOPPABLE | COMPLETE))
def test_every_step_is_a_task(estimator, name, n):
    recorder = Recorder()
    fit(estimator := clone(estimator).set_callbacks(recorder))
    steps = [(hook, name, i) for i in range(n) for hook in ("begin", "end")]
    assert recorder.events == [
        "setup",
        ("begin", "fit", "fit"),
        *steps,
        ("end", "fit", "fit"),
        "teardown",
    ]
    assert recorder.max_subtasks == (None if hasattr(estimator, "query_log") else n)
    assert not left_behind(estimator)


def test_tasks_begin_before_their_work_and_end_after_it():
    recorder = Recorder()

    class Worker(ReportsProgress, BaseEstimator):
        @with_callbacks
        def fit(self, X, y=None):
            with self._reported(X, y):
                for i in self._tasks(range(2), "step"):
                    recorder.events.append(("work", "step", i))
            return self

        def _n_tasks(self):
            return 2

    Worker().set_callbacks(recorder).fit(X)
    steps = [(hook, "step", i) for i in (0, 1) for hook in ("begin", "work", "end")]
    assert recorder.events[2:-2] == steps


@pytest.mark.parametrize("estimator, name, n", cases(STOPPABLE | COMPLETE))
def test_callbacks_change_no_result(estimator, name, n):
    plain = fit(clone(estimator))
    followed = fit(clone(estimator).set_callbacks(Recorder()))
    assert set(vars(followed)) == set(vars(plain)) | {"_skl_callbacks"}
    for attribute in ("perturbation_", "patch_", "representatives_"):
        if hasattr(plain, attribute):
            np.testing.assert_array_equal(
                getattr(followed, attribute), getattr(plain, attribute)
            )
    method = "decision_function" if hasattr(plain, "label_column") else "predict_proba"
    if hasattr(plain, method):
        rows = RECORDS[::5] if method == "decision_function" else X
        answers = (getattr(e, method)(rows) for e in (followed, plain))
        np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("estimator, name, n", cases(STOPPABLE))
def test_stop_leaves_a_usable_estimator(estimator, name, n):
    recorder = Recorder(stop_after=2)
    fit(estimator := clone(estimator).set_callbacks(recorder))
    assert recorder.of("end") == [(name, 0), (name, 1)] == recorder.of("begin")
    assert recorder.events[-2:] == [("end", "fit", "fit"), "teardown"]
    if isinstance(estimator, DiscretizedMLPClassifier):
        assert estimator.n_iter_ == 2
    elif name == "epoch" and not isinstance(estimator, DPSGDClassifier):
        assert len(estimator.estimator_.history) == 2
    if isinstance(estimator, ModelInversion):
        assert estimator.n_iter_ == 2
    if hasattr(estimator, "transform"):
        assert estimator.transform(X[:5]).shape == (5, 64)
    elif hasattr(estimator, "predict"):
        assert set(estimator.predict(X)) <= {0, 1, 2}
    assert not left_behind(estimator)


@pytest.mark.parametrize("estimator, name, n", cases(COMPLETE))
def test_what_needs_everything_goes_on(estimator, name, n):
    recorder = Recorder(stop_after=2)
    fit(estimator := clone(estimator).set_callbacks(recorder))
    assert len(recorder.of("end")) == n
    if name == "tree":
        assert len(estimator.ensemble_.roots) == n
    elif name == "shadow model":
        kept = "answers" if isinstance(estimator, PropertyInference) else "estimators"
        assert len(getattr(estimator, f"shadow_{kept}_")) == n
    else:
        assert estimator.n_queries_ == fit(clone(estimator).set_callbacks()).n_queries_


def test_shadow_models_of_an_audit_and_iterations_are_tasks():
    recorder = Recorder()
    audit = PrivacyAudit(LINEAR, shadow_estimator=SHADOW, n_shadow_models=4)
    audit.set_callbacks(recorder).fit(RECORDS, members=np.arange(75))
    assert recorder.of("end") == [("shadow model", i) for i in range(4)]
    recorder = Recorder(stop_after=2)
    model = MatrixFactorization(n_factors=2, max_iter=4).set_callbacks(recorder)
    scores = model.fit(X).predict(X)
    assert recorder.of("end") == [("iteration", i) for i in range(2)]
    assert scores.shape == X.shape and not left_behind(model)


def test_bound_of_dpsgd_holds_whenever_it_stops():
    whole = DPSGDClassifier(net64(), random_state=0)
    part = clone(whole).set_callbacks(Recorder(stop_after=1)).fit(X, y)
    assert part.epsilon_ == whole.fit(X, y).epsilon_
    weights = [
        e.estimator_.module_.layers[0].weight.detach().numpy() for e in (part, whole)
    ]
    assert np.abs(weights[0] - weights[1]).max() > 0  # it did stop


@pytest.mark.filterwarnings("ignore:[0-9]+ tasks")  # joblib, of trees left behind
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("estimator, name, n", cases(STOPPABLE | COMPLETE))
def test_errors_tear_down(estimator, name, n, error):
    recorder = Recorder(stop_after=2, raises=error)
    estimator = clone(estimator).set_callbacks(recorder)
    is_net = hasattr(getattr(estimator, "estimator", None), "module")
    if error is KeyboardInterrupt and is_net and not hasattr(estimator, "epsilon"):
        fit(estimator)  # skorch takes an interruption for the end of the training
        assert len(estimator.estimator_.history) == 2
    else:
        with pytest.raises(error):
            fit(estimator)
        assert ("end", "fit", "fit") not in recorder.events
    assert len(recorder.of("end")) == 2
    assert recorder.events.count("teardown") == 1 == recorder.events.count("setup")
    assert recorder.events[-1] == "teardown"
    assert not left_behind(estimator)
    # It can be fitted again, and is followed again.
    recorder.stop_after = None
    fit(estimator)
    assert len(recorder.of("end")) == 2 + n


def test_epoch_that_a_callback_of_the_net_ends_is_over():
    from skorch.callbacks import Callback

    class AfterTwo(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    recorder = Recorder()
    defense = MixupClassifier(net64(callbacks=[AfterTwo()]), random_state=0)
    defense.set_callbacks(recorder).fit(X, y)
    assert recorder.of("begin") == recorder.of("end") == [("epoch", 0), ("epoch", 1)]


def test_partial_fit_is_followed_as_well():
    recorder = Recorder()
    defense = MixupClassifier(net64(max_epochs=2), random_state=0)
    defense.set_callbacks(recorder).partial_fit(X, y).partial_fit(X, y)
    assert recorder.of("end") == 2 * [("epoch", 0), ("epoch", 1)]
    assert recorder.events.count("teardown") == 2


@pytest.mark.parametrize(
    "defense",
    [
        AdversarialTrainingClassifier(net64(), PGD, random_state=0),
        DPSGDClassifier(net64(), noise_multiplier=0.1, random_state=0),
    ],
    ids=["adversarial", "dpsgd"],
)
def test_callbacks_see_the_estimator_of_each_epoch(defense):
    class Scores(Recorder):
        def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
            if context.parent is not None:
                proba = fitted_estimator.predict_proba(X)
                self.events.append((fitted_estimator, proba))

    scores = Scores()
    defense.set_callbacks(scores).fit(X, y)
    seen = [event for event in scores.events if not isinstance(event[0], str)]
    assert len(seen) == 4
    for estimator, proba in seen:  # what comes later does not change it
        np.testing.assert_array_equal(estimator.predict_proba(X), proba)
        assert type(estimator.estimator_) is type(net())
    assert len({proba.tobytes() for _, proba in seen}) == 4
    np.testing.assert_array_equal(seen[-1][1], defense.predict_proba(X))


def counted(recorder):
    """Return how many tasks of each name ended, and how many there were to be."""
    ended = Counter(name for name, _ in recorder.of("end"))
    assert ended.total() <= recorder.max_subtasks
    assert ended == Counter(name for name, _ in recorder.of("begin"))
    recorder.events.clear()
    return dict(ended)


@pytest.mark.parametrize("cls, n_folds", [("", 0), ("Numeric", 10)])
def test_batches_that_are_asked_and_folds_are_tasks(monkeypatch, cls, n_folds):
    monkeypatch.setattr(privacy._attributes, "_ROWS", 60)
    trees = (DecisionTreeClassifier, DecisionTreeRegressor)[bool(cls)]
    attack = getattr(privacy, f"{cls}AttributeInference")(
        LINEAR, attribute=2, attack_estimator=trees(max_depth=3, random_state=0)
    )
    rows, column = np.delete(RECORDS, 2, axis=1), RECORDS[:, 2]
    column = column if cls else column > np.median(column)
    plain = clone(attack).fit(rows, column).predict(rows)
    attack.set_callbacks(recorder := Recorder()).fit(rows, column)
    tasks = {"batch of records": 3, "attack estimator": 2, "fold": n_folds}
    assert counted(recorder) == {name: n for name, n in tasks.items() if n}
    np.testing.assert_array_equal(attack.predict(rows), plain)
    assert counted(recorder) == {"batch of records": 3}


def test_models_that_are_attacked_are_tasks():
    attack = BoundaryDistance(
        TREE, shadow_estimator=SHADOW, n_shadow_models=3, max_queries=10
    )
    attack.set_callbacks(recorder := Recorder()).fit(RECORDS)
    assert counted(recorder) == {"shadow model": 3, "attacked model": 3 + 4}
    attack.predict(RECORDS[:5])
    assert counted(recorder) == {"attacked model": 4}


def test_rows_that_reach_a_leaf_are_tasks():
    tree = RobustDecisionTreeClassifier(random_state=0)
    plain = clone(tree).fit(X, y).predict_proba(X)
    tree.set_callbacks(recorder := Recorder()).fit(X, y)
    assert counted(recorder) == {"share of the rows": 100}
    np.testing.assert_array_equal(tree.predict_proba(X), plain)


def test_compiling_and_messages_are_tasks():
    pytest.importorskip("tenseal")
    encrypted = EncryptedClassifier(LINEAR, packing="rows")
    encrypted.set_callbacks(recorder := Recorder()).fit(X)
    assert counted(recorder) == {"degree": 1, "packing": 1}
    encrypted.predict(X[:2])
    assert counted(recorder) == {"message": 2}


def test_wrapping_defenses_hand_callbacks_on():
    smooth = RandomizedSmoothingClassifier(net64(max_epochs=3), n_samples=2, sigma=0.1)
    recorder = Propagated()
    smooth.set_callbacks(recorder).fit(X, y)
    assert recorder.of("end") == [("epoch", 0), ("epoch", 1), ("epoch", 2), ("fit", 0)]
    assert "_skl_callbacks" not in vars(smooth.estimator_)
    assert not left_behind(smooth.estimator_)
    recorder = Recorder()  # one that stays where it is set
    clone(smooth).set_callbacks(recorder).fit(X, y)
    assert recorder.of("end") == [("classifier", 0)]


def test_epochs_of_both_autoencoders_are_tasks():
    recorder = Recorder()
    MagNet(LINEAR, max_epochs=3).set_callbacks(recorder).fit(X)
    assert recorder.of("end") == [("epoch", i) for i in range(6)]
    assert recorder.max_subtasks >= 6


def test_queries_one_by_one_are_tasks():
    recorder = Recorder()
    attack = PathFinding(TREE).set_callbacks(recorder).fit(X)
    assert len(recorder.of("end")) == attack.n_queries_


def test_attack_without_shadows_is_a_task_without_tasks():
    recorder = Recorder()
    GapAttack(LINEAR).set_callbacks(recorder).fit(RECORDS)
    assert recorder.max_subtasks == 0
    assert [event[0] for event in recorder.events[1:-1]] == ["begin", "end"]


@pytest.mark.long
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_search_hands_callbacks_to_its_jobs(tmp_path, n_jobs):
    recorder = Appended(tmp_path / "lines")
    pipe = make_pipeline(
        StandardScaler(), AdversarialTrainingClassifier(net64(2), PGD, random_state=0)
    )
    search = GridSearchCV(
        pipe, {"adversarialtrainingclassifier__eps": [0.0, 0.1]}, cv=2, n_jobs=n_jobs
    )
    search.set_callbacks(recorder).fit(X, y)
    told = recorder.lines()
    assert sum(what == "epoch" for _, what in told) == (2 * 2 + 1) * 2
    assert [what for _, what in told].count("setup") == 1
    assert told[-1][1] == "teardown"
    here = {process == str(os.getpid()) for process, what in told if what == "epoch"}
    assert here == ({True} if n_jobs == 1 else {True, False})
    assert not left_behind(search.best_estimator_[-1])
    assert "_skl_callbacks" not in vars(search.best_estimator_[-1])


@pytest.mark.parametrize(
    "estimator, name, n",
    [
        (COMPLETE["lira"][0], "shadow model", 5),
        (COMPLETE["forest"][0], "tree", 5),
    ],
    ids=["lira", "forest"],
)
def test_two_jobs_report_from_here(tmp_path, estimator, name, n):
    class Stays(Appended):
        def __reduce__(self):
            raise AssertionError("a callback was sent to a worker")

    recorder = Stays(tmp_path / "lines")
    estimator = clone(estimator).set_params(n_jobs=2).set_callbacks(recorder)
    estimator.fit(*([RECORDS] if name == "shadow model" else [X, y]))
    told = recorder.lines()
    assert [what for _, what in told].count(name) == n
    assert {process for process, _ in told} == {str(os.getpid())}


def test_clones_and_pickles_keep_callbacks(tmp_path):
    recorder = Appended(tmp_path / "lines")
    defense = MixupClassifier(net64(2), random_state=0).set_callbacks(recorder)
    again = pickle.loads(pickle.dumps(defense.fit(X, y)))
    np.testing.assert_array_equal(again.predict(X), defense.predict(X))
    before = len(recorder.lines())
    clone(again).fit(X, y)
    assert len(recorder.lines()) == 2 * before


def test_without_callbacks_there_are_no_contexts(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a context was made")

    monkeypatch.setattr(ReportsProgress, "_init_callback_context", refuse)
    estimators = [COMPLETE["lira"], COMPLETE["active"], STOPPABLE["adversarial"]]
    for estimator, _, _ in [*estimators, STOPPABLE["universal"]]:
        fit(clone(estimator))
    with pytest.raises(AssertionError, match="was made"):
        fit(clone(estimator).set_callbacks(Recorder()))


@pytest.mark.parametrize("recipe", [SHADOW, MLPClassifier((4,), max_iter=2)])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_fit_many_tells_of_each_model(recipe, n_jobs, monkeypatch):
    monkeypatch.setattr(batched._fit_many, "_CHUNK", 2)
    told = []
    models = fit_many(
        recipe,
        X,
        y,
        [np.arange(i, 150, 3) for i in range(3)] * 2,
        range(6),
        n_jobs=n_jobs,
        callback=lambda i, model: told.append((i, model)),
    )
    assert [i for i, _ in told] == list(range(6))
    assert all(model is models[i] for i, model in told)


def test_interrupted_callback_of_fit_many_loses_no_model():
    def interrupt(i, model):
        if i == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        fit_many(SHADOW, X, y, [np.arange(150)] * 4, range(4), callback=interrupt)
    assert [model is not None for model in stop.value.result] == [1, 1, 0, 0]


def test_what_takes_long_says_how_far_it_is(caplog, monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS", 0.0)
    tree = RobustDecisionTreeClassifier(max_depth=2).fit(X, y)
    with caplog.at_level("INFO", logger="sklearn_advsec"):
        MatrixFactorization(n_factors=2, max_iter=3).fit(X)
        tree.certify(X[:20])
        RandomizedSmoothingClassifier(LINEAR, n_samples=30).fit(X).predict(X)
        LabelSmoothingClassifier(net(max_epochs=2), random_state=0).fit(X, y)
    lines = [record.getMessage().partition(";")[0] for record in caplog.records]
    wanted = {
        "MatrixFactorization: iteration 2 of 3 done",
        "certified_radii: part 1 of 2 done",
        "RandomizedSmoothingClassifier: block of noise 1 done",
        "LabelSmoothingClassifier: epoch 1 of 2 done",
    }
    assert wanted <= set(lines), lines


def test_victims_that_take_long_to_train_are_logged(caplog):
    class Slow(DecisionTreeClassifier):
        def fit(self, X, y):
            time.sleep(1.01)
            return super().fit(X, y)

    with caplog.at_level("INFO", logger="sklearn_advsec"):
        evasion.SquareAttack(Slow()).fit(X, y)
    assert "Slow: trained after 1." in caplog.text


def test_long_fits_and_attacks_are_logged(caplog):
    X, y = load_digits(n_class=3, return_X_y=True)
    X = (X / 16).astype(np.float32)[:60]
    with caplog.at_level("DEBUG", logger="sklearn_advsec"):
        LabelSmoothingClassifier(net(max_epochs=2), random_state=0).fit(X, y[:60])
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "LabelSmoothingClassifier: begins"
    assert "LabelSmoothingClassifier: epoch 2 done" in lines
    assert lines[-1].startswith("LabelSmoothingClassifier: done after ")
    victim = FrozenEstimator(DecisionTreeClassifier(max_depth=2).fit(X, y[:60]))
    attack = evasion.TreeCoordinateAttack(victim).fit(X)
    caplog.clear()
    with caplog.at_level("INFO", logger="sklearn_advsec"):
        attack.run(X[:4])
    assert "TreeCoordinateAttack: 4 of 4 rows" in caplog.text
    caplog.clear()
    attack.run(X[:4])
    assert caplog.text == ""
