"""What the benchmarks share: data, reference networks, and timing.

Every comparison follows the same rules. All libraries get the same victim, rows and
budget; what a library can build beforehand is built outside of the timed region; the
runners take turns for several rounds in one thread and in CPU time, so that a busy
machine disturbs all of them alike; and what they return is judged by one function.
"""

import gc
import os
import sys
import time
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

ROOT = Path(__file__).resolve().parent
CACHE = ROOT / ".cache"

# Runners whose names start with this are ours; all others are peers.
OURS = "sklearn_advsec"

# Shorter runs are repeated until one measurement takes about this long.
_MIN_SECONDS = 0.3


# Data ---------------------------------------------------------------------------------


def data_path(name):
    """Return the path of a data file.

    Parameters
    ----------
    name : str
        Its name in the data folder: the one that the environment variable
        ``SKLEARN_ADVSEC_DATA`` names, or else ``../shared/data`` beside the repository.
    """
    folder = os.environ.get("SKLEARN_ADVSEC_DATA")
    folder = Path(folder) if folder else ROOT.parents[1] / "shared" / "data"
    path = folder / name
    if not path.exists():
        sys.exit(
            f"The benchmark needs {name}, which is not in {folder}.\n"
            "Set the environment variable SKLEARN_ADVSEC_DATA to the folder with it."
        )
    return path


def load_mnist():
    """Return MNIST as `(X_train, y_train, X_test, y_test)`.

    The images are float32 of shape (n, 1, 28, 28) in [0, 1], the labels int64.
    """
    with np.load(data_path("mnist.npz")) as arrays:
        parts = []
        for part in ("train", "test"):
            images = arrays[f"X_{part}"].astype(np.float32) / 255
            parts += [images[:, None], arrays[f"y_{part}"].astype(np.int64)]
    return tuple(parts)


def reference_images(name):
    """Return MNIST as a reference network takes it, in the order of `load_mnist`.

    For "resnet18", the first 6000 images of either part have a black frame and three
    channels that are the same: they are of shape (3, 32, 32).
    """
    parts = load_mnist()
    if name != "resnet18":
        return parts
    X, y, X_test, y_test = (part[:6000] for part in parts)
    frame = ((0, 0), (0, 0), (2, 2), (2, 2))
    X, X_test = (np.repeat(np.pad(images, frame), 3, axis=1) for images in (X, X_test))
    return X, y, X_test, y_test


# Reference networks -------------------------------------------------------------------


class Recorded(nn.Module):
    """A network that passes its input through its `layers`.

    While :func:`recorded_passes` is active, every pass through any instance or copy is
    noted, so that a benchmark can tell how much work a library really did.
    """

    passes = None

    def forward(self, x):
        if Recorded.passes is not None:
            Recorded.passes.append((len(x), x.requires_grad))
        return self.layers(x)


class MnistCNN(Recorded):
    """The small MNIST network of Wong et al. (2020): two convolutions, fc 100."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )


class Block(nn.Module):
    """Two convolutions and a way past them (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        return torch.relu(self.residual(x) + self.shortcut(x))


class ResNet18(Recorded):
    """The form of ResNet-18 that is usual for 3x32x32; 64 channels at first."""

    def __init__(self, width=64):
        super().__init__()
        layers = [
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        n_in = width
        for i, n_out in enumerate((width, 2 * width, 4 * width, 8 * width)):
            layers += [Block(n_in, n_out, 1 + (i > 0)), Block(n_out, n_out, 1)]
            n_in = n_out
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 10)]
        self.layers = nn.Sequential(*layers)


class MnistResNet(Recorded):
    """A small residual network with batch normalisation: blocks of 8 and 16 channels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            Block(8, 8, 1),
            Block(8, 16, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )


@contextmanager
def recorded_passes():
    """Collect `(n_rows, with_gradient)` of every pass through a :class:`Recorded`."""
    Recorded.passes = passes = []
    try:
        yield passes
    finally:
        Recorded.passes = None


def train(X, y, *, network=MnistCNN, eps=0.0, epochs=2, batch_size=100, lr=5e-3, seed=0):
    """Train a network, by FGSM with random starts where `eps` is not 0.

    References
    ----------
    .. [1] E. Wong, L. Rice, J. Z. Kolter, "Fast is better than free: revisiting
       adversarial training", arXiv:2001.03994 (Algorithm 3).
    """
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = network()
        optimizer = torch.optim.Adam(module.parameters(), lr=lr)
        n_steps = epochs * -(-len(X) // batch_size)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda i: float(np.interp(i / n_steps, [0, 0.4, 1], [0, 1, 0]))
        )
        for epoch in range(epochs):
            for at in torch.randperm(len(X)).split(batch_size):
                xb, yb = X[at], y[at]
                if eps:
                    xb = _fgsm_random_start(module, xb, yb, eps)
                loss = nn.functional.cross_entropy(module(xb), yb)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
            print(f"  epoch {epoch + 1} of {epochs}", file=sys.stderr)
    return module.eval()


def _fgsm_random_start(module, x, y, eps):
    start = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    start.requires_grad_()
    loss = nn.functional.cross_entropy(module(start), y)
    (gradient,) = torch.autograd.grad(loss, start)
    delta = (start.detach() - x + 1.25 * eps * gradient.sign()).clamp(-eps, eps)
    return (x + delta).clamp(0, 1)


def pgd(module, x, y, eps, step_size=0.01, max_iter=40):
    """Plain PGD (Linf, zero start, box [0, 1]) to check the reference networks with."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    lower, upper = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    x_adv = x.clone()
    for _ in range(max_iter):
        x_adv.requires_grad_()
        loss = nn.functional.cross_entropy(module(x_adv), y)
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = (x_adv.detach() + step_size * gradient.sign()).clamp(lower, upper)
    return x_adv


# Training settings, and what the network must reach. FGSM training collapses now and
# then (its PGD accuracy falls to 0): a benchmark on such a network would say nothing.
REFERENCES = {
    "undefended": (dict(epochs=2), dict(clean=0.98)),
    "robust": (
        dict(epochs=8, batch_size=50, eps=0.3, seed=1),
        dict(clean=0.97, robust=0.8),
    ),
    "residual": (dict(network=MnistResNet, epochs=2, lr=0.02), dict(clean=0.97)),
    "resnet18": (
        dict(network=partial(ResNet18, 16), epochs=2, lr=0.01),
        dict(clean=0.95),
    ),
}


def reference_model(name):
    """Return a trained network: from ``benchmarks/.cache``, or trained now.

    Parameters
    ----------
    name : {"undefended", "robust", "residual", "resnet18"}
        Plain training (20 CPU seconds), FGSM training with random starts at Linf .3
        (three CPU minutes), or plain training of a small residual network with batch
        normalisation (40 CPU seconds), or of a ResNet-18 of 16 channels at first (two
        CPU minutes), all from a fixed seed.
    """
    settings, wanted = REFERENCES[name]
    path = CACHE / f"mnist_{name}.pt"
    X, y, X_test, y_test = reference_images(name)
    if path.exists():
        module = settings.get("network", MnistCNN)()
        module.load_state_dict(torch.load(path, weights_only=True))
        return module.eval()
    print(f"training the {name} network", file=sys.stderr)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums of several threads differ in their last bits
    few, labels = X_test[:1000], y_test[:1000]
    first = settings.get("seed", 0)
    # The rounding of the processor decides which seeds collapse: try a few.
    for seed in range(first, first + 5):
        module = train(X, y, **settings | {"seed": seed})
        reached = {"clean": accuracy(module, X_test, y_test)}
        if "robust" in wanted:
            x_adv = pgd(module, few, labels, 0.3)
            reached["robust"] = accuracy(module, x_adv, labels)
        print(f"  seed {seed}: {reached}", file=sys.stderr)
        if all(reached[key] >= least for key, least in wanted.items()):
            break
    else:
        sys.exit(f"The {name} network reached {wanted} with none of five seeds.")
    torch.set_num_threads(threads)
    CACHE.mkdir(exist_ok=True)
    torch.save(module.state_dict(), path)
    return module


def accuracy(module, X, y):
    """Accuracy of a network in float32, in batches of a fixed size."""
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    with torch.no_grad():
        predicted = [module(part).argmax(1) for part in X.split(500)]
    return float((torch.cat(predicted) == y).double().mean())


def random_resnet(width=16, seed=0):
    """Return a ResNet-18 that was never trained, and images that it is given.

    Its weights are drawn from the seed, and so are the images, of shape (3, 32, 32) in
    [0, 1]; batches of them set the averages of its batch normalisation. What it says is
    as good as any other for what takes time.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = ResNet18(width)
        images = torch.rand(256, 3, 32, 32)
        with torch.no_grad():
            for part in images.split(64):
                module(part)
    return module.eval(), images.numpy()


# Comparison ---------------------------------------------------------------------------


def available(build, *modules):
    """Return what `build` builds, or, as text, why it cannot be built.

    Parameters
    ----------
    build : callable
        Returns the function to be timed. Called with the imported modules.
    *modules : str
        Modules that it needs.
    """
    try:
        imported = [import_module(module) for module in modules]
    except Exception as error:  # a broken peer fails with whatever it likes
        return f"not importable: {_one_line(error)}"
    return build(*imported)


def compare(runners, rounds=5, quality=None):
    """Run everybody in turn, several times, and measure CPU time and quality.

    Parameters
    ----------
    runners : dict of str to (callable or str)
        What to run, without arguments; or, as text, why it is skipped. A peer that
        fails is listed with its error; ours is not forgiven.
    rounds : int
        How often each is measured, after one run to warm up.
    quality : callable, optional
        Maps what a runner returned to a dict of columns. Not timed.

    Returns
    -------
    rows : list of dict
        One per runner: the median of its seconds, and the median over the rounds of its
        ratio to the fastest peer of the same round.
    """
    ready, first, repeats, found, notes = {}, {}, {}, {}, {}
    with threadpool_limits(1), _one_torch_thread():
        for name, run in runners.items():
            if isinstance(run, str):
                notes[name] = f"skipped, {run}"
                continue
            try:
                _seed(0)
                with recorded_passes() as passes:
                    seconds, first[name] = _timed(run)
            except Exception as error:
                if name.startswith(OURS):
                    raise
                notes[name] = f"fails, {_one_line(error)}"
                continue
            if seconds < _MIN_SECONDS:  # the first time may have been slow
                seconds = _timed(run)[0]
            repeats[name] = max(1, round(_MIN_SECONDS / max(seconds, 1e-6)))
            ready[name] = run
            found[name] = {} if quality is None else quality(first[name])
            found[name] |= _work(passes, len(first[name]))
        times = {name: [] for name in ready}
        order = list(ready)
        for i in range(rounds):
            for name in order:
                _seed(i + 1)
                seconds, last = _timed(ready[name], repeats[name])
                times[name].append(seconds)
                if not _same(first[name], last):
                    notes[name] = "random: rounds differ"
            order = order[1:] + order[:1]  # nobody always runs after the same one
    columns = _time_columns(times)
    rows = []
    for name in runners:
        row = {"runner": name} | columns.get(name, {}) | found.get(name, {})
        rows.append(row | ({"note": notes[name]} if name in notes else {}))
    return rows


def ratio_of(rows, name):
    """Ratio of a runner to the fastest peer, or None where either is missing."""
    return next((row.get("ratio") for row in rows if row["runner"] == name), None)


def _time_columns(times):
    peers = [name for name in times if not name.startswith(OURS)]
    fastest = min(peers, key=lambda name: np.median(times[name]), default=None)
    columns = {}
    for name, seconds in times.items():
        columns[name] = {
            "CPU s": float(np.median(seconds)),
            "range": f"{min(seconds):.3g}-{max(seconds):.3g}",
        }
        if fastest is not None:
            ratio = np.median(np.divide(seconds, times[fastest]))
            columns[name]["ratio"] = float(ratio)
    return columns


def _work(passes, n_rows):
    """How many gradients and plain forward passes each row took, from the record."""
    if not passes:
        return {}
    rows, with_gradient = np.array(passes).T
    return {
        "gradients per row": float(rows[with_gradient == 1].sum() / n_rows),
        "forwards per row": float(rows[with_gradient == 0].sum() / n_rows),
        "batch": int(rows.max()),
    }


def _timed(run, repeats=1):
    gc.collect()
    start = time.process_time()
    for _ in range(repeats):
        result = run()
    return (time.process_time() - start) / repeats, result


@contextmanager
def _one_torch_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seed(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)


def _same(one, other):
    try:
        return np.array_equal(np.asarray(one), np.asarray(other))
    except (TypeError, ValueError):
        return True


def _one_line(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
