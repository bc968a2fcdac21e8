"""One GPU, each thing against what the bare network or the chip allows.

    python benchmarks/bench_gpu.py --write                           # on a GPU, 8 minutes
    python benchmarks/bench_gpu.py --device cpu --scale 0.02         # does it all run?

Every stage has a deadline of its own, keeps what it measured until then, and writes its
tables at once. Data are random: time is what is measured. Seconds are wall-clock seconds
of a machine that does nothing else, medians of a few runs. With a scale below 1, there
are fewer rows, steps, models and channels, and nothing is claimed.
"""

import argparse
import copy
import shlex
import signal
import statistics
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from _common import MnistCNN, ResNet18
from _results import Claim, Table, record
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.functional import cross_entropy

from sklearn_advsec.batched import fit_many
from sklearn_advsec.defense import (
    AdversarialTrainingClassifier,
    RandomizedSmoothingClassifier,
)
from sklearn_advsec.evasion import (
    AutoProjectedGradientDescent,
    ProjectedGradientDescent,
    SquareAttack,
)
from sklearn_advsec.pretrained import PretrainedModule

EPS, STEP = 8 / 255, 2 / 255
# Seconds of each stage; together, the eight minutes.
DEADLINES = {
    "roofs": 20,
    "bare": 120,
    "pgd": 90,
    "queries": 60,
    "shadows": 60,
    "training": 60,
    "smoothing": 40,
    "agreement": 30,
}


# Networks -----------------------------------------------------------------------------


def perceptron(width):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


# What stages share --------------------------------------------------------------------


@dataclass
class Setting:
    """Where to measure, and how much."""

    device: torch.device
    scale: float

    @property
    def on_gpu(self):
        return self.device.type == "cuda"

    def measured(self):
        """Say what of the machine was used, and which seconds were counted."""
        threads = f"{torch.get_num_threads()} threads of torch"
        where = torch.cuda.get_device_name(self.device) if self.on_gpu else threads
        return f"{where}, seconds of the clock"

    @property
    def claims(self):
        return self.on_gpu and self.scale == 1

    def scaled(self, n, least=2):
        return max(least, round(n * self.scale))

    def nets(self):
        """Return networks with the shape of their rows, on the device."""
        torch.manual_seed(0)
        nets = {
            "MNIST CNN": (MnistCNN(), (1, 28, 28)),
            "ResNet-18": (ResNet18(self.scaled(64)), (3, 32, 32)),
            "MLP": (perceptron(self.scaled(1024, 16)), (1, 28, 28)),
        }
        return {
            name: (net.eval().requires_grad_(False).to(self.device), shape)
            for name, (net, shape) in nets.items()
        }

    def rows(self, n, shape, net=None):
        """Return random rows, and what the net says of them."""
        x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
        x = x.to(self.device)
        if net is None:
            return x
        with torch.no_grad():
            return x, torch.cat([net(part).argmax(1) for part in x.split(1024)])

    def synchronize(self):
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run, rounds=5):
        """Return the median of the seconds that `run` takes, after one run to warm up."""
        run()
        times = []
        for _ in range(rounds if self.on_gpu else 1):
            self.synchronize()
            start = time.perf_counter()
            run()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def host(x):
    return x.cpu().numpy()


def bare_pass(net, x, y):
    """One forward pass, and one backward pass to the input."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(net(x), y, reduction="sum"), x)[0]


@contextmanager
def deadline(seconds):
    """Raise TimeoutError in the block when its time is over."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def count_syncs(setting, run):
    """Return how often the host waits for the GPU during a run; None without a GPU."""
    if not setting.on_gpu:
        run()
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def at_most(limit, column):
    """Return a judge of rows: each one of ours that has a `column` makes a claim."""

    def judge(rows):
        return [
            Claim(
                f"{row['what']}: {column}",
                f"{row[column]:.3g}",
                row[column] <= limit,
                f"<= {limit}",
            )
            for row in rows
            if row.get("ours") and isinstance(row.get(column), float)
        ]

    return judge


def unchanged_victims(rows):
    """Return the claims that no victim was changed by what was done to it."""
    return [
        Claim(
            f"{row['what']}: the victim, to the last bit",
            "the same" if row["victim unchanged"] else "another",
            row["victim unchanged"],
            "the same",
        )
        for row in rows
    ]


# Stages: each yields rows -------------------------------------------------------------


def roofs(setting):
    """Matrix products, memory and launches: what the chip does at best."""
    n = setting.scaled(8192, 64)
    precisions = {"fp32": (torch.float32, False), "bf16": (torch.bfloat16, False)}
    if setting.on_gpu:
        precisions["tf32"] = (torch.float32, True)
    for name, (dtype, tf32) in precisions.items():
        a = setting.rows(n, (n,)).to(dtype)
        kept = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            seconds = setting.seconds(lambda a=a: a @ a)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = kept
        yield {"roof": f"{name}, TFLOP/s", "figure": 2 * n**3 / seconds / 1e12}
    a = setting.rows(setting.scaled(2**28, 1024), ())
    b = torch.empty_like(a)
    seconds = setting.seconds(lambda: b.copy_(a))
    yield {"roof": "memory, GB/s", "figure": 2 * 4 * a.numel() / seconds / 1e9}
    one = torch.zeros(1, device=setting.device)
    n = setting.scaled(10_000, 100)

    def launch():
        for _ in range(n):
            one.add_(1)

    yield {"roof": "launches a second", "figure": n / setting.seconds(launch)}


def bare(setting):
    """The networks alone, in each of the ways to run them."""
    ways = ["eager", "channels_last", "bf16"]
    if setting.on_gpu:
        ways += ["CUDA graph", "compile"]
    for way in ways:  # compilers come last: they take longest
        for name, (net, shape) in setting.nets().items():
            batches = [setting.scaled(n) for n in (256, 1024, 4096, 8192)]
            batches = batches[1:2] if way == "compile" else sorted(set(batches))
            for batch in batches:
                x, y = setting.rows(batch, shape, net)
                try:
                    seconds = setting.seconds(prepared(way, net, x, y))
                except torch.OutOfMemoryError:
                    yield {"net": name, "batch": batch, "way": way, "note": "no memory"}
                    continue
                yield {
                    "net": name,
                    "batch": batch,
                    "way": way,
                    "ms": 1000 * seconds,
                    "rows/s": batch / seconds,
                }


def prepared(way, net, x, y):
    """Return a function that does one bare pass in one of the ways."""
    net = copy.deepcopy(net)
    if way == "channels_last":
        net, x = (
            net.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    if way == "bf16":

        def run():
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                return bare_pass(net, x, y)

        return run
    if way == "compile":
        net = torch.compile(net)
    if way == "CUDA graph":
        return captured(net, x, y)
    return lambda: bare_pass(net, x, y)


def captured(net, x, y):
    """Capture a bare pass; see the notes of torch on CUDA graphs."""
    stream = torch.cuda.Stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.device(x.device), torch.cuda.stream(stream):
        for _ in range(3):
            bare_pass(net, x, y)
    torch.cuda.current_stream(x.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(x.device), torch.cuda.graph(graph):
        bare_pass(net, x, y)
    return graph.replay


class Captured(nn.Module):
    """A net whose passes over batches of one size are CUDA graphs.

    Smaller batches, as they get when rows leave, are filled up; what needs no gradient,
    or is larger, goes through the net itself.
    """

    def __init__(self, net, x):
        super().__init__()
        self.net, self.size = net, len(x)
        # As a function, so that the net stays what it is.
        sample = torch.zeros_like(x).requires_grad_()
        self.passes = torch.cuda.make_graphed_callables(lambda x: net(x), (sample,))

    def forward(self, x):
        if not x.requires_grad or len(x) > self.size:
            return self.net(x)
        missing = x.new_zeros(self.size - len(x), *x.shape[1:])
        return self.passes(torch.cat([x, missing]))[: len(x)]


def pgd_attack(net, max_iter, batch_size, **parameters):
    return ProjectedGradientDescent(
        PretrainedModule(net),
        eps=EPS,
        step_size=STEP,
        max_iter=max_iter,
        early_stopping=False,
        bounds=(0, 1),
        batch_size=batch_size,
        **parameters,
    )


def pgd(setting):
    """PGD-40, over 40 bare passes in full precision: ours and the peers."""
    n_steps = setting.scaled(40)
    for name, (net, shape) in setting.nets().items():
        n = setting.scaled(1024)
        x, y = setting.rows(n, shape, net)
        X, labels = host(x), host(y)
        base = n_steps * setting.seconds(partial(bare_pass, net, x, y))
        few = x[: setting.scaled(64)], y[: setting.scaled(64)]
        base_of_few = n_steps * setting.seconds(partial(bare_pass, net, *few))
        runners = {}
        for precision in ("full", "mixed"):
            attack = pgd_attack(net, n_steps, n, precision=precision).fit(X[:2])
            key = f"sklearn_advsec, {precision} precision"
            runners[key] = partial(attack.run, X, labels)
        # So few rows wait for launches: the attack captures its steps by itself.
        attack = pgd_attack(net, n_steps, len(few[0])).fit(X[:2])
        by_graphs = f"sklearn_advsec, {len(few[0])} rows: on a GPU, CUDA graphs"
        runners[by_graphs] = partial(attack.run, *map(host, few))
        if setting.on_gpu:
            attack = pgd_attack(Captured(net, x), n_steps, n).fit(X[:2])
            runners["net captured in CUDA graphs"] = partial(attack.run, X, labels)
        runners |= peers(net, x, y, n_steps)
        for key, run in runners.items():
            row = {"what": f"{name}, {key}", "ours": key.startswith("sklearn_advsec")}
            if isinstance(run, str):
                yield row | {"note": run}
                continue
            try:
                seconds = setting.seconds(run, rounds=3)
            except Exception as error:
                if row["ours"] or isinstance(error, TimeoutError):
                    raise
                yield row | {"note": f"fails, {type(error).__name__}: {error}"}
                continue
            over = seconds / (base_of_few if key == by_graphs else base)
            yield row | {"s": seconds, "over bare passes": over}


def peers(net, x, y, n_steps):
    """Return what peers run, or why they do not."""
    runners = dict.fromkeys(("torchattacks", "adv-lib"), "cannot be imported")
    with suppress(ImportError):  # of what they need, too
        import torchattacks

        theirs = torchattacks.PGD(net, EPS, STEP, n_steps, random_start=False)
        runners["torchattacks"] = lambda: theirs(x, y)
    with suppress(ImportError):
        from adv_lib.attacks import pgd_linf

        runners["adv-lib"] = lambda: pgd_linf(
            net, x, y, EPS, steps=n_steps, random_init=False, absolute_step_size=STEP
        )
    return runners


def queries(setting):
    """APGD-100 and Square-1000: seconds, and how often the host waits for the GPU."""
    net, shape = setting.nets()["MNIST CNN"]
    x, y = setting.rows(setting.scaled(1024), shape, net)
    X, labels = host(x), host(y)
    shared = {"eps": EPS, "bounds": (0, 1), "batch_size": len(X)}

    def apgd(n):
        return AutoProjectedGradientDescent(PretrainedModule(net), max_iter=n, **shared)

    def square(n):
        return SquareAttack(PretrainedModule(net), max_queries=n, **shared)

    for name, make, n in (("APGD-100", apgd, 100), ("Square-1000", square, 1000)):
        n = setting.scaled(n, 4)
        half, whole = (make(m).fit(X[:2]) for m in (n // 2, n))
        row = {"what": name, "ours": True, "steps": n}
        row["s"] = setting.seconds(partial(whole.run, X, labels), rounds=1)
        # The difference of two runs: what is done once does not count.
        most, least = (
            count_syncs(setting, partial(attack.run, X, labels))
            for attack in (whole, half)
        )
        if most is not None:
            row["syncs per step"] = (most - least) / (n - n // 2)
        yield row


def shadows(setting):
    """Shadow models of 100 epochs on 1,000 rows each, as batched models."""
    n_rows = setting.scaled(2000, 40)
    X = np.random.RandomState(0).rand(n_rows, 64).astype(np.float32)
    y = (X.sum(1) > 32).astype(int)
    net = MLPClassifier((64,), max_iter=setting.scaled(100), n_iter_no_change=1000)
    for n_models in (256, 1024):
        n_models = setting.scaled(n_models)
        rng = np.random.RandomState(1)
        subsets = [rng.permutation(n_rows)[: n_rows // 2] for _ in range(n_models)]
        setting.synchronize()
        start = time.perf_counter()
        fit_many(net, X, y, subsets, range(n_models), device=setting.device)
        seconds = time.perf_counter() - start
        yield {"models": n_models, "s": seconds, "models a second": n_models / seconds}


def training(setting):
    """An epoch of adversarial training, over its eight bare passes."""
    width, n = setting.scaled(64), setting.scaled(4096, 8)
    batch = min(256, n)
    x = setting.rows(n, (3, 32, 32))
    net = ResNet18(width).to(setting.device)
    y = torch.arange(n, device=setting.device) % 10
    X, labels = host(x), host(y)

    def epoch():
        for xb, yb in zip(x.split(batch), y.split(batch), strict=True):
            net.requires_grad_(False)
            for _ in range(7):
                bare_pass(net, xb, yb)
            net.requires_grad_(True)
            cross_entropy(net(xb), yb).backward()

    base = setting.seconds(epoch, rounds=1)
    inside = NeuralNetClassifier(
        ResNet18,
        module__width=width,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        max_epochs=1,
        lr=0.01,
        batch_size=batch,
        train_split=None,
        device=setting.device,
        verbose=0,
    )
    inner = ProjectedGradientDescent(
        eps=EPS, step_size=STEP, max_iter=7, bounds=(0, 1), early_stopping=False
    )
    defense = AdversarialTrainingClassifier(inside, inner, random_state=0)
    seconds = setting.seconds(lambda: defense.fit(X, labels), rounds=1)
    yield {
        "what": "PGD-7, ResNet-18, one epoch",
        "ours": True,
        "rows": n,
        "s": seconds,
        "over bare passes": seconds / base,
    }


def smoothing(setting):
    """The vote of 1,000 draws on 10,000 rows, over the bare forward passes."""
    net, shape = setting.nets()["MNIST CNN"]
    n, n_draws = setting.scaled(10_000, 8), setting.scaled(1000, 8)
    x = setting.rows(n, shape)
    X = host(x)

    def forward():
        with torch.no_grad():
            for _ in range(n_draws):
                net(x)

    base = setting.seconds(forward, rounds=1)
    smooth = RandomizedSmoothingClassifier(PretrainedModule(net), n_samples=n_draws)
    smooth.fit(X[:2])
    start = time.perf_counter()
    smooth.predict(X)
    seconds = time.perf_counter() - start
    yield {
        "what": "MNIST CNN",
        "ours": True,
        "rows": n,
        "draws": n_draws,
        "s": seconds,
        "over bare passes": seconds / base,
    }


def agreement(setting):
    """The same rows from the processor and from here, in double precision."""
    for name, (net, shape) in setting.nets().items():
        net = net.double()
        x = setting.rows(setting.scaled(64, 4), shape).double()
        X = host(x)
        before = copy.deepcopy(net.state_dict())
        for norm, eps in ((np.inf, EPS), (2, 0.5)):
            found = [
                ProjectedGradientDescent(
                    PretrainedModule(one), norm=norm, eps=eps, max_iter=10, bounds=(0, 1)
                )
                .fit(X[:2])
                .run(X)
                .X_adv
                for one in (copy.deepcopy(net).cpu(), net)
            ]
            same = all(
                torch.equal(before[key], now) for key, now in net.state_dict().items()
            )
            yield {
                "what": f"{name}, norm {norm}",
                "ours": True,
                "largest difference": float(np.abs(found[0] - found[1]).max()),
                "victim unchanged": same and not net.training,
            }


# Title, and what makes claims of the rows.
STAGES = {
    "roofs": (roofs, "Roofs", None),
    "bare": (bare, "Bare forward and backward passes", None),
    "pgd": (pgd, "PGD-40, 1,024 rows", at_most(1.1, "over bare passes")),
    "queries": (queries, "APGD and Square", at_most(0.1, "syncs per step")),
    "shadows": (shadows, "Shadow models", None),
    "training": (training, "Adversarial training", at_most(1.1, "over bare passes")),
    "smoothing": (smoothing, "Smoothing", at_most(1.1, "over bare passes")),
    "agreement": (
        agreement,
        "Processor and device, PGD-10",
        lambda rows: at_most(1e-5, "largest difference")(rows) + unchanged_victims(rows),
    ),
}


def perform(name, setting):
    """Run one stage until its deadline; what it measured until then is its table."""
    stage, title, judge = STAGES[name]
    rows, remarks = [], [stage.__doc__.splitlines()[0]]
    start = time.perf_counter()
    try:
        with deadline(DEADLINES[name]):
            for row in stage(setting):
                rows.append(row)
                print(name, row, file=sys.stderr)
    except TimeoutError:
        remarks.append(f"The {DEADLINES[name]} seconds were over: the rest is missing.")
    except Exception as error:  # the other stages may still say something
        remarks.append(f"Stopped by {type(error).__name__}: {error}")
    took = time.perf_counter() - start
    remarks.append(f"Seconds are those of the clock; the stage took {took:.0f} of them.")
    if not setting.on_gpu:
        remarks.append("No GPU was there: these rows say that the stage runs, no more.")
    claims = judge(rows) if judge is not None and setting.claims else []
    rows = [{k: v for k, v in row.items() if k != "ours"} for row in rows]
    where = torch.cuda.get_device_name(setting.device) if setting.on_gpu else "processor"
    return Table(f"{title}: {where}, scale {setting.scale:g}", rows, claims, remarks)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the work")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device is here; try --device cpu --scale 0.02", file=sys.stderr)
        return []
    setting = Setting(device, args.scale)
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/bench_gpu.py", *given])
    tables = []
    for name in args.stages:
        table = perform(name, setting)
        print(table, end="\n\n")
        if args.write:
            record("gpu", "gpu", command, [table], measured=setting.measured())
        tables.append(table)
    return tables


if __name__ == "__main__":
    main()
