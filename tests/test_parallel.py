"""What `n_jobs` shares out: to whom it goes, how often, and what comes back."""

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool

import joblib
import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sklearn_advsec._parallel import _Pace, in_parallel
from sklearn_advsec.batched import fit_many
from sklearn_advsec.defense import certify
from sklearn_advsec.evasion import GreedyFeatureAttack
from sklearn_advsec.privacy import AttributeInference, NumericAttributeInference

# Filters of warnings belong to the process, and scikit-learn resets them in every thread:
# one that looks at them just then finds none, and says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`sklearn.utils.parallel.delayed:UserWarning"
)

RNG = np.random.RandomState(0)
X = RNG.rand(120, 4)
Y = (X.sum(1) > 2).astype(int)


class AllAtOnce(joblib.parallel.ThreadingBackend):
    """Has all results at the end only, as ray's backend does."""

    supports_return_generator = False


@pytest.fixture
def all_at_once():
    joblib.register_parallel_backend("all at once", AllAtOnce)
    with joblib.parallel_config(backend="all at once", n_jobs=2):
        yield
    del joblib.parallel.BACKENDS["all at once"]


def test_a_model_goes_to_each_worker_once(tmp_path):
    folder = str(tmp_path)

    class Model:  # by value: workers do not know this module
        def __setstate__(self, state):
            import os
            import uuid

            open(os.path.join(folder, f"{os.getpid()}-{uuid.uuid4()}"), "w").close()

        def __getstate__(self):
            return {"weights": bytes(10**6)}

        def answer(self, part):
            import os

            return part, os.getpid()

    found = list(in_parallel(Model().answer, range(40), 40, 2))
    assert [part for part, _ in found] == list(range(40))
    workers = {pid for _, pid in found}
    assert os.getpid() not in workers
    arrived = [name.split("-")[0] for name in os.listdir(folder)]
    assert len(arrived) == len(set(arrived)) == len(workers)


def test_tasks_get_as_long_as_a_second():
    pace = _Pace(1000, 2)
    groups = pace.groups(range(1000))
    assert [len(next(groups)) for _ in range(4)] == [1] * 4  # nothing is known yet
    pace.took(4, 0.1)
    assert len(next(groups)) == 40
    pace.took(40, 0.1)  # they get faster: 200 a second; a quarter is for each task
    assert len(next(groups)) == 220
    rest = list(groups)
    assert [part for group in rest for part in group] == list(range(264, 1000))
    assert [len(group) for group in rest][-4:] == [1] * 4


def test_what_was_done_comes_before_the_error():
    begun = []

    def halve(part):
        begun.append(part)
        if part == 30:
            raise ZeroDivisionError
        time.sleep(0.01)
        return part / 2

    found = []
    with joblib.parallel_config(backend="threading"):
        with pytest.raises(ZeroDivisionError):
            for half in in_parallel(halve, range(400), 400, 2):
                found.append(half)
    begun.remove(30)
    assert found == [part / 2 for part in sorted(begun)]  # the others' as well
    assert len(found) < 400


def test_workers_start_no_others():
    def jobs(part):
        return joblib.effective_n_jobs(2), threading.get_ident()

    with joblib.parallel_config(backend="threading"):
        found = list(in_parallel(jobs, range(4), 4, 2))
    assert {n for n, _ in found} == {1}
    assert threading.get_ident() not in {thread for _, thread in found}


def test_what_cannot_be_pickled_stays_in_this_process():
    lock = threading.Lock()

    def locked(part):
        with lock:
            return part

    with joblib.parallel_config(backend="threading"):
        assert list(in_parallel(locked, range(4), 4, 2)) == [0, 1, 2, 3]
    with pytest.raises(Exception, match="cannot be pickled.*n_jobs=None"):
        list(in_parallel(locked, range(4), 4, 2))


def test_backends_without_generators_do(all_at_once):
    subsets = [np.arange(i, i + 60) for i in range(3)]
    models = fit_many(DecisionTreeClassifier(), X, Y, subsets, range(3))
    with joblib.parallel_config(backend="sequential"):
        alone = fit_many(DecisionTreeClassifier(), X, Y, subsets, range(3))
    for one, other in zip(models, alone, strict=True):
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert list(in_parallel(abs, range(-9, 0), 9, None)) == list(range(9, 0, -1))


@pytest.mark.parametrize(
    "attack", [AttributeInference, NumericAttributeInference], ids=lambda a: a.__name__
)
def test_attributes_are_inferred_by_many(attack, monkeypatch):
    from sklearn_advsec.privacy import _attributes

    monkeypatch.setattr(_attributes, "_ROWS", 16)
    target = FrozenEstimator(KNeighborsClassifier().fit(X, Y))
    column, tree = X[:, 1].round(), DecisionTreeClassifier(random_state=0)
    if attack is NumericAttributeInference:
        column, tree = X[:, 1], DecisionTreeRegressor(random_state=0)
    known = np.column_stack([np.delete(X, 1, axis=1), Y])
    found = []
    with joblib.parallel_config(backend="threading"):
        for n_jobs in (None, 2):
            one = attack(target, 1, attack_estimator=tree, n_jobs=n_jobs)
            found.append(one.fit(known, column).predict(known))
    np.testing.assert_array_equal(*found)


def test_more_rows_than_a_worker_holds_are_attacked_by_many():
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, Y)
    victim = FrozenEstimator(tree)
    rows = np.tile(X, (100, 1))  # 12,000
    attack = GreedyFeatureAttack(victim, max_queries=40, n_values=4, batch_size=256)
    with joblib.parallel_config(backend="threading"):
        found = [attack.set_params(n_jobs=n).fit(X).run(rows) for n in (None, 2)]
    np.testing.assert_array_equal(found[0].X_adv, found[1].X_adv)
    np.testing.assert_array_equal(found[0].n_queries, found[1].n_queries)


@pytest.mark.parametrize("norm", [2, np.inf])
def test_certificates_do_not_depend_on_the_number_of_workers(norm):
    if norm == 2:
        model = KNeighborsClassifier(1).fit(X, Y)
    else:
        model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, Y)
    with joblib.parallel_config(backend="threading"):
        found = [certify(model, X, norm=norm, n_jobs=n).radius for n in (None, 2)]
    assert (found[0] >= 0).all() and found[0].max() > 0
    np.testing.assert_allclose(*found, rtol=1e-9)


# Faults ---------------------------------------------------------------------------------


def half_way(n, act):
    """Return a callback of `fit_many` that acts when half of the models are here."""
    seen = []

    def callback(i, model):
        seen.append(i)
        if len(seen) == n // 2:
            act()

    return callback


def predicted(models):
    return np.stack([model.predict_proba(X) for model in models])


@pytest.mark.slow  # workers that import torch; dask comes with the extra `bench` only
@pytest.mark.filterwarnings("ignore")  # dask tells of the worker that it lost
def test_a_worker_of_dask_that_dies_costs_its_own_tasks_only(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask (extra bench)")
    folder, n = str(tmp_path), 24

    class Logged(ExtraTreesClassifier):  # by value: workers do not know this module
        def fit(self, X, y):
            import os
            import time
            import uuid

            time.sleep(0.1)
            name = f"{self.random_state}-{os.getpid()}-{uuid.uuid4()}"
            open(os.path.join(folder, name), "w").close()
            return super().fit(X, y)

    subsets = [np.random.RandomState(i).permutation(120)[:60] for i in range(n)]
    alone = predicted(fit_many(Logged(5), X, Y, subsets, range(n)))
    for file in tmp_path.iterdir():
        file.unlink()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        victim = next(iter(client.run(os.getpid).values()))
        killed = half_way(n, lambda: os.kill(victim, signal.SIGKILL))
        models = fit_many(Logged(5), X, Y, subsets, range(n), callback=killed)
    np.testing.assert_array_equal(predicted(models), alone)
    fits = [file.name.split("-")[:2] for file in tmp_path.iterdir()]
    runs = Counter(seed for seed, _ in fits)
    assert set(runs) == {str(i) for i in range(n)}
    again = {seed for seed, times in runs.items() if times > 1}
    assert again <= {seed for seed, pid in fits if pid == str(victim)}
    assert len(again) < n / 2  # what was here already is not done again


@pytest.mark.slow  # workers that import torch
def test_a_run_that_died_with_its_worker_is_resumed(tmp_path):
    n, recipe, marker = 16, ExtraTreesClassifier(100), str(tmp_path / "asked")
    subsets = [np.random.RandomState(i).permutation(120)[:60] for i in range(n)]

    def asked(model):  # in a worker, which dies at half time
        import os
        import signal

        with open(marker, "a") as file:
            file.write(".")
        if os.path.getsize(marker) == n // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return model.predict_proba(X)

    def kept():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.pkl")}

    arguments = (recipe, X, Y, subsets, range(n))
    with pytest.raises(BrokenProcessPool):
        fit_many(*arguments, n_jobs=2, memory=str(tmp_path), result=asked)
    before = kept()
    assert n / 2 <= len(before) < n
    found = fit_many(*arguments, n_jobs=2, memory=str(tmp_path), result=asked)
    after = kept()
    assert len(after) == n
    assert before.items() <= after.items()  # none of these was trained again
    np.testing.assert_array_equal(np.stack(found), predicted(fit_many(*arguments)))
