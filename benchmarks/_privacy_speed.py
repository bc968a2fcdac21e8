"""Speed of the shadow engine beside ART and scikit-learn, in one thread and in all."""

import os
import sys
import time
import warnings

import _privacy_data as data
import numpy as np
import torch
from _common import available
from _results import Claim, Table
from joblib import Parallel, delayed
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from sklearn_advsec.batched import fit_many

# Batch size, and epochs after which training accuracy is 1. The smaller the batches, the
# more of the time of one-by-one training is overhead.
RECIPES = ((64, 40), (16, 12))
N_PEER = 10  # models of a peer that are timed in each round
ROUNDS = 3

ART, SKLEARN = "ART ShadowModels", "scikit-learn"
WANTED = {ART: 5, f"{SKLEARN}, float64": 3}
GPU_SECONDS = 60  # for 256 models


def speed(args):
    """Train shadow models with everybody's engine; return tables."""
    if args.device:
        return _on_device(args)
    note = (
        f"{args.n_models} shadow models 446-128-64-30, each on 1,200 of 2,400 rows, with "
        "the same batches and epochs everywhere. Peers train one model after the other: "
        f"{N_PEER} are timed, and the seconds multiplied. Seconds are medians of "
        f"{ROUNDS} rounds in which all take turns, ratios those of the same round. ART "
        "and sklearn_advsec compute in float32; scikit-learn in the precision of the "
        "rows, which is float64 where nobody casts them."
    )
    tables = []
    for batch_size, epochs in RECIPES:
        engines = Engines(batch_size, epochs, args)
        for cores in (1, os.cpu_count()):
            rows, lines = engines.compare(cores)
            place = (
                "one thread, CPU seconds"
                if cores == 1
                else f"all {cores} cores for everybody, seconds on the wall"
            )
            title = f"Shadow models in batches of {batch_size}, {epochs} epochs, {place}"
            tables.append(Table(title, rows, lines, [note]))
    tables[-1].remarks.append(
        "With all cores, sklearn_advsec and scikit-learn train in processes that joblib "
        "has started before. ART's `ShadowModels` cannot train two models at once, so "
        "that only threads of torch are left to it; where others use the machine as "
        "well, one thread is faster, and its better row counts. "
        f"Load of the machine at the end: {os.getloadavg()[1]:.1f}."
    )
    return tables


class Engines:
    """The trainers of one recipe; each maps a number of models to that many models."""

    def __init__(self, batch_size, epochs, args):
        self.n_models, self.device = args.n_models, getattr(args, "device", None)
        self.recipe = data.location_net().set_params(
            batch_size=batch_size, max_iter=epochs
        )
        X, y = data.binary_records(4800)
        self.X, self.y, self.X_test, self.y_test = X[:2400], y[:2400], X[2400:], y[2400:]
        rng = np.random.RandomState(0)
        self.subsets = [rng.permutation(2400)[:1200] for _ in range(self.n_models)]

    def ours(self, n, n_jobs=None):
        subsets, seeds = self.subsets[:n], range(n)
        return fit_many(
            self.recipe,
            self.X,
            self.y,
            subsets,
            seeds,
            n_jobs=n_jobs,
            device=self.device,
        )

    def scikit_learn(self, n, n_jobs=None, dtype=np.float64):
        X = self.X.astype(dtype)
        models = [clone(self.recipe).set_params(random_state=i) for i in range(n)]
        return Parallel(n_jobs=n_jobs)(
            delayed(_fit)(model, X[rows], self.y[rows])
            for model, rows in zip(models, self.subsets, strict=False)
        )

    def runners(self, cores):
        """Return by name what to run, and how many models it trains."""
        jobs = None if cores == 1 else cores
        n = min(N_PEER, self.n_models)
        runners = {
            "sklearn_advsec": (self.n_models, lambda n: self.ours(n, jobs)),
            f"{SKLEARN}, float32": (n, lambda n: self.scikit_learn(n, jobs, np.float32)),
            f"{SKLEARN}, float64": (n, lambda n: self.scikit_learn(n, jobs)),
        }

        def build(module):
            def art(n):
                return module.train_shadows(self.recipe, self.X, self.y, n)

            def in_one_thread(n):
                torch.set_num_threads(1)
                models = art(n)
                torch.set_num_threads(cores)
                return models

            if cores == 1:
                return {ART: (n, art)}
            return {
                f"{ART}, one thread": (n, in_one_thread),
                f"{ART}, {cores} threads": (n, art),
            }

        peers = available(build, "_privacy_art")
        return runners | (peers if isinstance(peers, dict) else {ART: peers})

    def compare(self, cores):
        """Run all in turns; return the rows of a table, and what is met."""
        clock = time.process_time if cores == 1 else time.perf_counter
        runners = self.runners(cores)
        notes = {name: run for name, run in runners.items() if isinstance(run, str)}
        runners = {name: run for name, run in runners.items() if name not in notes}
        seconds, accuracy = ({name: [] for name in runners} for _ in range(2))
        threads = torch.get_num_threads()
        torch.set_num_threads(cores)
        try:
            with threadpool_limits(cores):
                for _, run in runners.values():  # to warm up
                    run(cores)
                for round_ in range(ROUNDS):
                    for name, (n, run) in runners.items():
                        torch.manual_seed(round_)
                        start = clock()
                        models = run(n)
                        seconds[name].append(self.n_models / n * (clock() - start))
                        accuracy[name].append(self.accuracy(models))
        finally:
            torch.set_num_threads(threads)
        rows = []
        for name, found in seconds.items():
            ratios = np.divide(found, seconds["sklearn_advsec"])
            rows.append(
                {
                    "engine": name,
                    "CPU s" if cores == 1 else "wall s": float(np.median(found)),
                    "test accuracy": float(np.mean(accuracy[name])),
                    "times ours": float(np.median(ratios)),
                    "range": f"{ratios.min():.2f}-{ratios.max():.2f}",
                }
            )
            print("  ", *rows[-1].values(), file=sys.stderr, flush=True)
        lines = [
            _verdict(rows, prefix, wanted)
            for prefix, wanted in WANTED.items()
            if prefix not in notes
        ]
        return rows + [{"engine": n, "note": text} for n, text in notes.items()], lines

    def accuracy(self, models):
        answers = [np.asarray(model.predict(self.X_test)) for model in models]
        return np.mean(
            [
                np.mean((a.argmax(axis=1) if a.ndim == 2 else a) == self.y_test)
                for a in answers
            ]
        )


def _fit(model, X, y):
    with warnings.catch_warnings(action="ignore"):  # also in workers
        return model.fit(X, y)


def _verdict(rows, prefix, wanted):
    """Compare with the fastest of the rows of one peer."""
    ours, *peers = rows
    peers = [row for row in peers if row["engine"].startswith(prefix)]
    fastest = min(peers, key=lambda row: row["times ours"])
    ratio = fastest["times ours"]
    difference = abs(fastest["test accuracy"] - ours["test accuracy"])
    return Claim(
        f"times faster than the peer; accuracy differs by {difference:.4f}, allowed .005",
        f"{ratio:.2f}x",
        bool(ratio >= wanted and difference <= 0.005),
        f"at least {wanted}x",
        f"1x ({fastest['engine']})",
    )


def _on_device(args):
    """Time the batched engine alone on the device that is named."""
    rows = []
    for batch_size, epochs in RECIPES:
        engines = Engines(batch_size, epochs, args)
        engines.ours(2)  # to warm up
        start = time.perf_counter()
        models = engines.ours(args.n_models)  # parameters come back: the device is done
        seconds = time.perf_counter() - start
        rows.append(
            {
                "batches of": batch_size,
                "epochs": epochs,
                "wall s": seconds,
                "test accuracy": float(engines.accuracy(models)),
                "wanted": f"{GPU_SECONDS} s for 256",
                "met": ("yes" if seconds < GPU_SECONDS else "no")
                if args.n_models >= 256
                else "fewer models: not judged",
            }
        )
    title = f"{args.n_models} shadow models 446-128-64-30 on {args.device}"
    return [Table(title, rows, remarks=["Each on 1,200 of 2,400 rows."])]
