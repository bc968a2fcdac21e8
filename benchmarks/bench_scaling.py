"""Scaling out: the same calls in this process, and on the workers of dask and of ray.

    python benchmarks/bench_scaling.py --write
    python benchmarks/bench_scaling.py --backends ray --loads smoothing --write
    python benchmarks/bench_scaling.py --memory gradients queries --write

Nothing in the package knows of dask or ray: ``joblib.parallel_config(backend=...)`` sends
the same tasks elsewhere. Workers are local processes of one thread each. Wall-clock
seconds say nothing where others use the machine as well, so CPU seconds of all processes
are counted beside them, and the load of the machine is stated.
"""

import argparse
import ctypes
import multiprocessing
import os
import pickle
import re
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import _privacy_data as data
import dask
import joblib
import numpy as np
import psutil
import torch
from _results import Claim, Table, record
from distributed import Client, LocalCluster
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_advsec import batched, evasion, privacy
from sklearn_advsec.batched import _fit_many
from sklearn_advsec.defense import RandomizedSmoothingClassifier

# Loads ----------------------------------------------------------------------------------


@dataclass
class Load:
    """What is done everywhere: `run` returns an array, and the bytes of all results."""

    name: str
    run: Callable
    n_tasks: int | None = None
    most_mb: float | None = None  # that each result should be
    n_calls: int = 1  # of joblib


@cache
def records():
    return data.binary_records(2400)


def train(recipe, n_models, scores=False):
    """Train shadow models on halves of 2,400 rows, and fetch them, or their scores."""
    X, y = records()
    rng = np.random.RandomState(0)
    subsets = [rng.permutation(2400)[:1200] for _ in range(n_models)]
    result = partial(label_probabilities, X, y) if scores else None
    models = batched.fit_many(recipe, X, y, subsets, range(n_models), result=result)
    size = len(pickle.dumps(models))
    if scores:
        return np.stack(models), size
    return np.stack([model.predict(X[:50]) for model in models[::8]]), size


def label_probabilities(X, y, model):
    """Return what a shadow model gives the label of each record."""
    return model.predict_proba(X)[np.arange(len(y)), y]


@cache
def property_attack():
    """Infer the share of a group from answers of a forest, by shadows of its kind."""
    X, y = records()
    target = RandomForestClassifier(30, random_state=0).fit(X[:600], y[:600])
    return privacy.PropertyInference(FrozenEstimator(target), group=(0, 1))


def inferred(n_models):
    X, y = records()
    attack = clone(property_attack()).set_params(n_shadow_models=n_models)
    answers = attack.fit(np.column_stack([X, y])[600:]).shadow_answers_
    return answers, len(pickle.dumps(answers))


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    return np.tile(X / 16, (2, 1)), np.tile(y, 2)


@cache
def smoothed():
    X, y = digits()
    forest = RandomForestClassifier(20, max_depth=8, random_state=0).fit(X, y)
    return RandomizedSmoothingClassifier(FrozenEstimator(forest), sigma=0.2).fit(X, y)


def certified(n):
    """Certify rows by the votes of a forest under 1,100 draws of noise."""
    certificate = smoothed().certify(digits()[0][:n])
    return np.stack([certificate.radius, certificate.y_pred]), certificate.radius.nbytes


@cache
def exact_attack():
    X, y = digits()
    boosted = HistGradientBoostingClassifier(max_iter=10, max_depth=4).fit(X, y)
    return evasion.TreeExactAttack(FrozenEstimator(boosted)).fit(X, y)


def attacked(n):
    """Find the nearest rows of another class, to the optimum."""
    result = exact_attack().run(digits()[0][:n])
    return result.X_adv, len(pickle.dumps(result))


FOREST = RandomForestClassifier(30)
LOADS = {
    "perceptrons": Load(
        "64 shadows, perceptrons 446-128-64-30, batched",
        partial(train, data.location_net().set_params(max_iter=20), 64),
        64 // _fit_many._CHUNK,
    ),
    "boosted": Load(
        "16 shadows, boosted trees, one by one",
        partial(
            train, HistGradientBoostingClassifier(max_iter=4, early_stopping=False), 16
        ),
        16,
    ),
    "forests": Load(
        "48 shadows, forests of 30 trees, one by one", partial(train, FOREST, 48), 48
    ),
    "scores": Load(
        "48 shadows, the same forests, of which the scores come back",
        partial(train, FOREST, 48, scores=True),
        48,
        most_mb=1,
    ),
    "property": Load(
        "property inference: 48 shadows, forests, of which the answers come back",
        partial(inferred, 48),
        48,
        most_mb=1,
    ),
    "smoothing": Load(
        "smoothing: certificates of 2,048 rows", partial(certified, 2048), n_calls=2
    ),
    "exact": Load("exact attack: 1,600 rows, boosted trees", partial(attacked, 1600)),
}
GROUPS = {
    "Shadow models": ("perceptrons", "boosted", "forests", "scores", "property"),
    "Certificates and exact attacks": ("smoothing", "exact"),
}
BACKENDS = ["dask", "ray"]
MEASURED = "workers of one thread, CPU seconds and seconds of the clock"
# Dask starts workers with this variable. Once it is set, to whatever value, glibc returns
# every array of 128 kB or more to the system, and fetches the next, page by page.
MALLOC = "MALLOC_TRIM_THRESHOLD_"
AS_SHIPPED = f"dask, 1 worker, with {MALLOC}"
N_EMPTY = 200  # models that take no time to train, to see what a task costs


# Places ---------------------------------------------------------------------------------


class CpuSeconds(threading.Thread):
    """Adds up the CPU seconds of this process and those below it, ended ones too."""

    def __init__(self):
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._seen = {}
        self.start()

    def run(self):
        while not self._ended.wait(0.2):
            self.total()

    def total(self):
        here = psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._seen[process.pid, process.create_time()] = times.user + times.system
        return sum(self._seen.values())

    def stop(self):
        self._ended.set()


@contextmanager
def here():
    yield


@contextmanager
def on_dask(n_workers, as_shipped=False):
    """Workers have two threads, of which one is given tasks.

    Joblib does not use a cluster with one thread in all.
    """
    with (
        malloc_as_shipped(as_shipped),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=2,
            resources={"slot": 1},
            dashboard_address=None,
        ) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask", resources={"slot": 1}),
    ):
        yield


@contextmanager
def on_ray(n_workers):
    import ray
    from ray.util.joblib import register_ray

    ray.init(
        num_cpus=n_workers,
        include_dashboard=False,
        object_store_memory=2**28,
        log_to_driver=False,
        logging_level="ERROR",
    )
    register_ray()
    try:
        with joblib.parallel_config(backend="ray", n_jobs=n_workers):
            yield
    finally:
        ray.shutdown()


def places(backend, loads, n_workers):
    """Return where to run: by name, the number of workers, and how to get there."""
    found = {"in this process": (1, here)}
    if backend == "dask":
        for n in n_workers:
            name = f"dask, {n} worker{'s' * (n > 1)}"
            found[name] = n, partial(on_dask, n)
        if LOADS["boosted"] in loads:
            found[AS_SHIPPED] = 1, partial(on_dask, 1, as_shipped=True)
    else:  # joblib takes a pool of one for this process
        found |= {
            f"ray, {n} workers": (n, partial(on_ray, n)) for n in n_workers if n > 1
        }
    return found


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


# Figures --------------------------------------------------------------------------------


@dataclass
class Start:
    """What a place costs before there is work, in seconds.

    `wall` of the clock until workers have imported what they need, CPU (and the clock) of
    a call that trains 8 models that take no time, CPU of `N_EMPTY` of them, and what idle
    workers use in a second.
    """

    wall: float
    call: float
    call_wall: float
    many: float
    idle: float


def measure(backend, loads, args):
    """Return the least seconds of the rounds by place and load, and of starts."""
    seconds, answers, starts = {}, {}, {}
    meter = CpuSeconds()

    def timed(run):
        begin, used = time.perf_counter(), meter.total()
        found = run()
        return time.perf_counter() - begin, meter.total() - used, found

    nothing = partial(train, DummyClassifier())
    for place, (n, enter) in places(backend, loads, args.workers).items():
        # What this is about are arrays that are made again and again.
        chosen = [x for x in loads if place != AS_SHIPPED or x is LOADS["boosted"]]
        with ExitStack() as stack:
            wall, _, _ = timed(lambda e=enter, s=stack: s.enter_context(e()))
            warm, _, _ = timed(partial(nothing, 8 * n))  # workers import
            slept, idle, _ = timed(partial(time.sleep, 4))
            # Ray starts a pool for every call of joblib; dask's workers are there.
            (call_wall, call), (_, many) = (
                min(timed(partial(nothing, m))[:2] for _ in range(args.rounds))
                for m in (8, N_EMPTY)
            )
            starts[place] = Start(wall + warm, call, call_wall, many, idle / slept)
            for load in chosen:
                found = [timed(load.run) for _ in range(args.rounds)]
                walls, useds, results = zip(*found, strict=True)
                answer, size = results[0]
                same = answers.setdefault(load.name, answer)
                equal = all(
                    np.array_equal(one, same, equal_nan=True) for one, _ in results
                )
                assert equal, (place, load.name)
                seconds[place, load.name] = n, min(walls), min(useds), size
                print(place, load.name, *seconds[place, load.name], file=sys.stderr)
    meter.stop()
    return seconds, starts


def report(backend, group, loads, args):
    seconds, starts = measure(backend, loads, args)
    alone = "in this process"
    rows, claims = [], []
    # A virtual machine's load says nothing of its neighbours; the cores that we got do.
    n = max(args.workers)
    cores = max(used / wall for m, wall, used, _ in seconds.values() if m == n)
    alone_here = cores > 0.8 * n
    for load in loads:
        _, base_wall, base, _ = seconds[alone, load.name]
        for (place, name), (m, wall, used, size) in seconds.items():
            if name != load.name:
                continue
            start = starts[place]
            pool, busy = 0.0, wall
            if backend == "ray":
                pool = load.n_calls * (start.call - starts[alone].call)
                busy -= load.n_calls * start.call_wall
            idle = (start.idle - starts[alone].idle) * max(busy, 0)
            if place != alone:
                used -= pool + idle
            row = {
                "load": load.name,
                "tasks": load.n_tasks or "",
                "MB per result": size / load.n_tasks / 1e6 if load.n_tasks else "",
                "where": place,
                "CPU s": used,
                "overhead": f"{used / base - 1:+.0%}",
                "speed-up that it leaves": m * base / used,
                "wall s": wall,
                "speed-up measured": base_wall / wall,
            }
            if place != alone:
                row["start of the workers, s"] = start.wall
                row["CPU s of idle workers"] = idle
            if backend == "ray" and place != alone:
                row["CPU s of the calls' pools"] = pool
            rows.append(row)
            if m == n and place != alone:
                claims += judged(load, row, place, m, alone_here)
    remarks = remarks_on(backend, loads, seconds, starts, cores, args)
    title = f"{group} on the workers of {backend}"
    return Table(title, rows, claims, remarks)


def judged(load, row, place, n, alone_here):
    """Return what was wanted of a load on several workers."""
    overhead = n / row["speed-up that it leaves"] - 1
    claims = [
        Claim(
            f"{load.name} on {place}: CPU overhead",
            f"{overhead:+.0%}",
            overhead <= 0.1,
            "<= 10 %",
        )
    ]
    if load.most_mb is not None:
        size = row["MB per result"]
        claims.append(
            Claim(
                f"{load.name} on {place}: MB of each result",
                f"{size:.3g}",
                size <= load.most_mb,
                f"<= {load.most_mb}",
            )
        )
    if alone_here:
        speed_up = row["speed-up measured"]
        met = speed_up >= 0.9 * n
        claims.append(
            Claim(
                f"{load.name} on {place}: speed-up on the clock",
                f"{speed_up:.2f}",
                met,
                f">= {0.9 * n:.1f}",
            )
        )
    return claims


def remarks_on(backend, loads, seconds, starts, cores, args):
    n, alone = max(args.workers), "in this process"
    trust = (
        "to be trusted" if cores > 0.8 * n else "that of a busy machine, not of the code"
    )
    common = f"""\
CPU seconds are those of this process and all below it, the scheduler and the workers
among them; each figure is the least of {args.rounds} rounds. Results are equal to the
last bit everywhere, which the run checks. Of the {os.cpu_count()} cores of the machine,
{n} workers got {cores:.1f} at best: the speed-up on the clock is {trust}.

Workers that have nothing to do ask each other all the time whether all is well, which
takes {max(start.idle for start in starts.values()):.0%} of a core here, by the clock and
not by the work: it stands apart, and is not in the overhead."""
    if backend == "ray":
        return [
            common
            + """

Ray starts a pool of processes for every call of joblib, which import what they need: its
CPU seconds stand apart, and are not in the overhead. Use it for calls that take minutes.
A pool of one worker is this process: joblib sends nothing elsewhere. Ray's backend has no
generators, so that results come all at the end."""
        ]
    if LOADS["boosted"] not in loads:
        return [common]
    names = [place for place in starts if place not in (alone, AS_SHIPPED)]
    largest = names[-1]
    empty = [starts[place].many - starts[place].call for place in (largest, alone)]
    cost = (empty[0] - empty[1]) / (N_EMPTY - 8)
    busy = 100 * cost
    batch = "64 shadows, perceptrons 446-128-64-30, batched"
    base = seconds.get((alone, batch), (0, 0, 0.0))[2] * _fit_many._CHUNK / 64
    plan = f"""\
{common}

A task that does nothing takes {1000 * cost:.1f} ms of CPU, most of which the scheduler
and this process spend one task after the other.

One row of the boosted trees has workers as dask ships them, with `{MALLOC}` set:
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
* Fitted models come back to this process, which takes about as long as training where
they are large and quick to fit, as these forests are: `fit_many(result=)` sends what is
wanted of them in their place, as `PrivacyAudit` and `PropertyInference` do.
* Rows are sent once to each worker that needs them, and not with every task. With 100
workers and 1 GB of rows that is 100 GB through the network of this process at first;
beyond that, put the rows where workers read them (a memory-mapped file on a shared disk).
* `memory=` on a disk that all workers see keeps finished models, so that a lost worker or
a new start costs only the tasks that were under way.
* Start them by any means that gives a scheduler address (`dask-ssh`, `dask-jobqueue`,
Kubernetes); `Client(address)` and `joblib.parallel_config(backend="dask")` is all that
changes in the code. Nested `n_jobs` stays None: one thread per worker.
"""
    return [plan]


# Memory ---------------------------------------------------------------------------------

# Every attack takes a few steps only: more of them need no more memory.
ATTACKS = {
    "gradients": {
        "FGSM": evasion.FastGradientMethod(eps=0.05),
        "PGD": evasion.ProjectedGradientDescent(eps=0.05, max_iter=2),
        "PGD, L2": evasion.ProjectedGradientDescent(eps=0.1, norm=2, max_iter=2),
        "APGD": evasion.AutoProjectedGradientDescent(eps=0.05, max_iter=3),
        "DeepFool": evasion.DeepFool(max_iter=2),
        "FMN": evasion.FastMinimumNorm(max_iter=2),
    },
    "queries": {
        "Square": evasion.SquareAttack(eps=0.05, max_queries=3),
        "SimBA": evasion.SimBA(max_queries=3),
        "RayS": evasion.RayS(max_queries=5),
        "HopSkipJump": evasion.HopSkipJump(max_queries=12),
    },
    "tables": {"CAPGD": evasion.ConstrainedAPGD(eps=0.3, max_iter=2)},
    "moves": {"greedy": evasion.GreedyFeatureAttack(n_values=2, max_queries=3)},
    "trees": {"coordinate": evasion.TreeCoordinateAttack(eps=0.01)},
}
M_MMAP_THRESHOLD = -3  # of mallopt


def peak_of(attack, X, in_use):
    """Return by how many bytes the resident memory of a process rises, in a new one."""
    receive, send = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=attack_and_tell, args=(attack, X, in_use, send))
    child.start()
    send.close()
    found = receive.recv()
    child.join()
    return found


def attack_and_tell(attack, X, in_use, send):
    if in_use:  # glibc gives back what is freed, and keeps nothing for later
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    attack.run(X[:50])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _peak()
    attack.run(X)
    send.send(_peak() - before)


def _peak():
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


def memory(group, args):
    """Yield the table of peaks on a small model, in units of the data, as it grows."""
    rng, rows = np.random.RandomState(0), []
    X = rng.rand(max(args.rows), 100)
    y = (X @ rng.normal(size=100) > 0).astype(int)
    victim = LogisticRegression(C=0.1)
    if group == "trees":
        victim = HistGradientBoostingClassifier(max_iter=3, max_depth=2)
    victim.fit(X[:1000], y[:1000])
    for name, attack in ATTACKS[group].items():
        attack.set_params(estimator=FrozenEstimator(victim)).fit(X[:1000])
        row = {"attack": name}
        for n in args.rows:
            row[f"{n:,} rows"] = peak_of(attack, X[:n], in_use=True) / X[:n].nbytes
        row["with what glibc keeps"] = peak_of(attack, X, in_use=False) / X.nbytes
        rows.append(row)
        print(row, file=sys.stderr)
        yield peaks(group, rows, X)


def peaks(group, rows, X):
    """Return the table of what was measured so far."""
    largest = f"{len(X):,} rows"
    claims = [
        Claim(
            f"{row['attack']}: peak of {largest}, over the data",
            f"{row[largest]:.2f}",
            row[largest] <= 2,
            "<= 2",
        )
        for row in rows
    ]
    remark = f"""\
How far the memory of the process rises over what it was before `run`, as a multiple of
the rows (float64; {X.nbytes / 2**20:.0f} MiB of {largest}): the adversarial rows are 1 of
it, what an attack keeps of the rows that it is at, is the rest, and does not grow with
their number; of few rows it is more than they are. That is memory in use: glibc has to
give back at once what is freed. As it is by default, it keeps blocks for later, between
those in use, and the process is as large as the last column says; with
`MALLOC_MMAP_THRESHOLD_=65536` in its environment, it is as before, for some more time."""
    title = f"Peak memory of attacks on 100 columns, one process: {group}"
    return Table(title, rows, claims, [remark])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument(
        "--memory", nargs="+", choices=ATTACKS, default=[], help="measure it instead"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    command = shlex.join(["python", "benchmarks/bench_scaling.py", *sys.argv[1:]])
    for group in args.memory:
        for table in memory(group, args):
            if args.write:
                record("scaling", "scaling", command, [table], measured=MEASURED)
        print(table, flush=True)
    if args.memory:
        return
    for backend, group in product(args.backends, GROUPS):
        loads = [LOADS[name] for name in GROUPS[group] if name in args.loads]
        if not loads:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = report(backend, group, loads, args)
        print(table, flush=True)
        if args.write:
            record("scaling", "scaling", command, [table], measured=MEASURED)


if __name__ == "__main__":
    main()
