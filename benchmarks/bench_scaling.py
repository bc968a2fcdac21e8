"""Scaling out: shadow models on the workers of a dask cluster.

    python benchmarks/bench_scaling.py --rounds 2 --write

Nothing in the package knows of dask: ``joblib.parallel_config(backend="dask")`` sends the
same tasks elsewhere. Workers are local processes of one thread each. Wall-clock seconds
say nothing where others use the machine as well, so CPU seconds of all processes are
counted beside them, and the load of the machine is stated.
"""

import argparse
import os
import pickle
import shlex
import sys
import time
import warnings
from contextlib import contextmanager

import _privacy_data as data
import dask
import joblib
import numpy as np
import torch
from _results import Table, record
from distributed import Client, LocalCluster
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from sklearn_advsec import batched
from sklearn_advsec.batched import _fit_many

# Name, recipe, number of models, and models per task.
LOADS = (
    (
        "perceptrons 446-128-64-30, batched",
        data.location_net().set_params(max_iter=20),
        64,
        _fit_many._CHUNK,
    ),
    (
        "boosted trees, one by one",
        HistGradientBoostingClassifier(max_iter=4, early_stopping=False),
        16,
        1,
    ),
    ("forests of 30 trees, one by one", RandomForestClassifier(30), 48, 1),
)
# Dask starts workers with this variable. Once it is set, to whatever value, glibc returns
# every array of 128 kB or more to the system, and fetches the next, page by page.
MALLOC = "MALLOC_TRIM_THRESHOLD_"
AS_SHIPPED = f"dask, 1 worker, with {MALLOC}"
N_EMPTY = 200  # models that take no time to train, to see what a task costs


def train(recipe, n_models, client=None):
    """Train shadow models on halves of 2,400 rows.

    Returns wall-clock seconds, CPU seconds of this process and the workers, and
    predictions, and the size of the models.
    """
    X, y = data.binary_records(2400)
    rng = np.random.RandomState(0)
    subsets = [rng.permutation(2400)[:1200] for _ in range(n_models)]
    start, used = time.perf_counter(), _cpu_seconds(client)
    models = batched.fit_many(recipe, X, y, subsets, range(n_models))
    wall, used = time.perf_counter() - start, _cpu_seconds(client) - used
    predicted = np.stack([model.predict(X[:50]) for model in models[::8]])
    return wall, used, predicted, len(pickle.dumps(models))


def _cpu_seconds(client):
    workers = client.run(time.process_time).values() if client else ()
    return time.process_time() + sum(workers)


def places(n_workers):
    """Yield where to train: a name, the number of workers, the client, and its start.

    Workers have two threads, of which one is given tasks: joblib does not use a cluster
    with one thread in all.
    """
    yield "in this process", 1, None, 0.0
    names = {f"dask, {n} worker{'s' * (n > 1)}": n for n in n_workers}
    for name, n in (names | {AS_SHIPPED: 1}).items():
        start = time.perf_counter()
        with (
            malloc_as_shipped(name == AS_SHIPPED),
            LocalCluster(
                n_workers=n,
                threads_per_worker=2,
                resources={"slot": 1},
                dashboard_address=None,
            ) as cluster,
            Client(cluster) as client,
            joblib.parallel_config(backend="dask", resources={"slot": 1}),
        ):
            train(DummyClassifier(), 8 * n)  # workers import what they need
            cold = time.perf_counter() - start
            yield name, n, client, cold


@contextmanager
def malloc_as_shipped(wanted):
    """Start workers with the variable that dask sets for them, or without."""
    key = "distributed.nanny.pre-spawn-environ"
    own = {k: v for k, v in dask.config.get(key).items() if wanted or k != MALLOC}
    with dask.config.set({key: own}):
        try:
            yield
        finally:
            os.environ.pop(MALLOC, None)  # dask sets it in this process as well


def measure(args):
    """Return the least seconds of the rounds, by place and load, and of empty tasks."""
    seconds, answers, empty, cold = {}, {}, {}, {}
    for place, n, client, start in places(args.workers):
        cold[place] = start
        for load, recipe, n_models, _ in LOADS:
            found = [train(recipe, n_models, client) for _ in range(args.rounds)]
            walls, used, predicted, sizes = zip(*found, strict=True)
            seconds[place, load] = n, min(walls), min(used), sizes[0]
            same = answers.setdefault(load, predicted[0])
            assert all(np.array_equal(one, same) for one in predicted)
            print(place, load, *seconds[place, load], file=sys.stderr)
        empty[place] = min(
            train(DummyClassifier(), N_EMPTY, client)[1] for _ in range(args.rounds)
        )
    return seconds, empty, cold


def report(args):
    seconds, empty, cold = measure(args)
    alone = "in this process"
    rows = []
    for load, _, n_models, per_task in LOADS:
        _, base_wall, base, _ = seconds[alone, load]
        n_tasks = -(-n_models // per_task)
        for (place, name), (n, wall, used, size) in seconds.items():
            if name != load:
                continue
            rows.append(
                {
                    "load": f"{n_models} {load}",
                    "tasks": n_tasks,
                    "MB per result": size / n_tasks / 1e6,
                    "where": place,
                    "CPU s": used,
                    "overhead": f"{used / base - 1:+.0%}",
                    "speed-up that it leaves": n * base / used,
                    "wall s": wall,
                    "speed-up measured": base_wall / wall,
                    "start of the cluster, s": "" if place == alone else cold[place],
                }
            )
    largest = [name for name in empty if name != AS_SHIPPED][-1]
    cost = (empty[largest] - empty[alone]) / N_EMPTY
    busy = 100 * cost
    # A virtual machine's load says nothing of its neighbours; the cores that we got do.
    n = max(args.workers)
    cores = max(used / wall for m, wall, used, _ in seconds.values() if m == n)
    alone_here = cores > 0.8 * n
    trust = "to be trusted" if alone_here else "that of a busy machine, not of the code"
    base = seconds[alone, LOADS[0][0]][2] * _fit_many._CHUNK / LOADS[0][2]
    plan = f"""\
CPU seconds are those of this process, the scheduler in it, and the workers; each figure
is the least of {args.rounds} rounds. Results are equal to the last bit everywhere, which
the run checks. Of the {os.cpu_count()} cores of the machine, {n} workers got {cores:.1f}
at best: the speed-up measured on the wall clock is {trust}.

A task that does nothing takes {1000 * cost:.1f} ms of CPU, most of which the scheduler
and this process spend one task after the other.

The last rows of each load have workers as dask ships them, with `{MALLOC}` set:
to whatever value, it switches off the threshold by which glibc learns to keep large
arrays, and boosted trees take a new array per node (21 million page faults here in place
of 5,000; the seconds are the system's). All other rows are without it, see the notes of
`fit_many`; other allocators have no such variable.

**Plan for 100 workers** (computed from these figures, not measured):

* Tasks must take longer than 100 x {1000 * cost:.1f} ms = {busy:.2g} s, or workers wait
for the scheduler. One batch of {_fit_many._CHUNK} of the perceptrons above takes
{base:.2g} s: {"enough" if base > busy else "too short"}.
* There must be several tasks per worker, so that the slowest does not decide: from about
300. That is 300 models that are trained one by one (a grid of pipelines or skorch nets,
64 shadows each, in one call of `cross_validate`), or {300 * _fit_many._CHUNK} small
perceptrons, for which one machine mostly does.
* Every fitted model comes back to this process, which takes about as long as training
where models are large and quick to fit, as these forests are: give such recipes smaller
trees, or train them here.
* Rows are sent once to each worker that needs them, and not with every task. With 100
workers and 1 GB of rows that is 100 GB through the network of this process at first;
beyond that, put the rows where workers read them (a memory-mapped file on a shared disk).
* `memory=` on a disk that all workers see keeps finished models, so that a lost worker or
a new start costs only the tasks that were under way.
* Start them by any means that gives a scheduler address (`dask-ssh`, `dask-jobqueue`,
Kubernetes); `Client(address)` and `joblib.parallel_config(backend="dask")` is all that
changes in the code. Nested `n_jobs` stays None: one thread per worker.
"""
    return Table("Shadow models on the workers of a dask cluster", rows, remarks=[plan])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = report(args)
    print(table)
    if args.write:
        command = shlex.join(["python", "benchmarks/bench_scaling.py", *sys.argv[1:]])
        record("scaling", "scaling", command, [table])


if __name__ == "__main__":
    main()
