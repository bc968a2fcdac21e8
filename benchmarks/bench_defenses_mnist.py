"""Defenses on MNIST: what a small CNN reaches on a CPU, with the training budget.

The network is the one of Wong et al. (two convolutions, one hidden layer). Parts:

- training: adversarial training (fast epochs to begin, then PGD-10; or fast ones alone)
  and TRADES at Linf .3, under PGD-40 and AutoAttack (50 steps, square attack of 500);
- bounds: interval bound propagation, certified accuracy at Linf .2;
- smoothing: certified accuracy of randomized smoothing at L2 .5, sigma .25;
- magnet: MagNet against Carlini and Wagner's attack on the classifier alone, and against
  attacks that know it;
- signed: the random depthwise signed network, with and without its backward pass;
- pairing: adversarial logit pairing under PGD-10 and under PGD-500 with restarts;
- overhead: an adversarial epoch against as many bare passes.

    python benchmarks/bench_defenses_mnist.py bounds smoothing --write
"""

import argparse
import shlex
import sys
import time
import warnings

import common
import numpy as np
import torch
from defense_attacks import crafted, detector_aware, handled
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from sklearn_advsec import defense
from sklearn_advsec.evasion import (
    AutoAttack,
    CarliniWagner,
    ProjectedGradientDescent,
    TransferAttack,
)
from sklearn_advsec.pretrained import PretrainedModule

EPS = 0.3


class OneCycle:
    """Learning rate: up during the first third of the steps, then down to 0."""

    def __init__(self, n_steps):
        self.n_steps = n_steps

    def __call__(self, step):
        return float(np.interp(step / self.n_steps, [0, 0.3, 1], [0.01, 1, 0]))


def net(n_rows, epochs, lr=5e-3, batch=100, device="cpu"):
    rate = OneCycle(-(-n_rows // batch) * epochs)
    schedule = LRScheduler(policy="LambdaLR", lr_lambda=rate, step_every="batch")
    return NeuralNetClassifier(
        common.MnistCNN,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=epochs,
        batch_size=batch,
        train_split=None,
        callbacks=[("schedule", schedule)],
        verbose=0,
        device=device,
    )


def pgd(steps, eps=EPS, **more):
    return ProjectedGradientDescent(
        eps=eps,
        max_iter=steps,
        bounds=(0, 1),
        random_start=True,
        random_state=0,
        **more,
    )


def accuracy_under(attack, model, X, y):
    return float(np.mean(handled(model, crafted(attack, model, X, y), y)))


def training(data, args):
    """Adversarial training and TRADES."""
    X, y, X_test, y_test = data
    inner = pgd(10, step_size=0.06)
    classifier = defense.AdversarialTrainingClassifier

    def staged():
        model = classifier(
            net(len(X), args.epochs, device=args.device),
            inner,
            method="fast",
            random_state=0,
        ).fit(X, y)
        model.set_params(method="pgd")
        for _ in range(args.rounds):
            model.partial_fit(X, y)
        return model

    makers = {
        f"{args.epochs} fast epochs, {args.rounds} x {args.epochs} of PGD-10": staged,
        f"fast, {args.epochs} epochs": lambda: classifier(
            net(len(X), args.epochs, device=args.device),
            inner,
            method="fast",
            random_state=0,
        ).fit(X, y),
        f"TRADES (beta 1), {args.epochs} epochs, PGD-8": lambda: defense.TRADESClassifier(
            net(len(X), args.epochs, lr=2e-3, device=args.device),
            pgd(8, step_size=0.075).set_params(random_start=False),
            beta=1.0,
            random_state=0,
        ).fit(X, y),
    }
    few, labels = X_test[: args.rows], y_test[: args.rows]
    strong = AutoAttack(eps=EPS, bounds=(0, 1), max_iter=50, square_queries=500)
    rows = []
    for name, make in makers.items():
        start = time.process_time()
        model = make()
        rows.append(
            {
                "training": name,
                "CPU s": time.process_time() - start,
                "clean": model.score(X_test, y_test),
                "PGD-40": accuracy_under(pgd(40, step_size=0.02), model, few, labels),
                "AutoAttack": accuracy_under(strong, model, few, labels),
            }
        )
        print(rows[-1], flush=True)
    return f"### Adversarial training, Linf {EPS}, {args.rows} test rows", rows


def bounds(data, args):
    """Interval bound propagation."""
    X, y, X_test, y_test = data
    rows = []
    for eps in (0.2,):
        start = time.process_time()
        model = defense.IntervalBoundClassifier(
            net(len(X), args.epochs, lr=2e-3, device=args.device),
            eps=eps * 1.1,
            bounds=(0, 1),
            random_state=0,
        ).fit(X, y)
        seconds = time.process_time() - start
        few, labels = X_test[: args.rows], y_test[: args.rows]
        certificate = {
            method: defense.certify(model, few, method=method, eps=eps, bounds=(0, 1))
            for method in ("ibp", "crown-ibp")
        }
        rows.append(
            {
                "eps": eps,
                "epochs": args.epochs,
                "CPU s": seconds,
                "clean": model.score(X_test, y_test),
                **{
                    f"certified, {m}": c.accuracy(labels, eps)
                    for m, c in certificate.items()
                },
                "PGD-40": accuracy_under(pgd(40, eps), model, few, labels),
            }
        )
        print(rows[-1], flush=True)
    return f"### Interval bound propagation, {args.rows} test rows", rows


def smoothing(data, args):
    """Randomized smoothing."""
    X, y, X_test, y_test = data
    start = time.process_time()
    model = defense.RandomizedSmoothingClassifier(
        net(len(X), args.epochs, device=args.device), sigma=0.25
    ).fit(X, y)
    seconds = time.process_time() - start
    few, labels = X_test[: args.rows], y_test[: args.rows]
    certificate = model.certify(few)
    radii = [0.0, 0.25, 0.5]
    row = {"sigma": 0.25, "epochs": args.epochs, "CPU s": seconds}
    shares = certificate.accuracy(labels, radii)
    row |= {f"certified at {r}": float(a) for r, a in zip(radii, shares, strict=True)}
    return f"### Randomized smoothing, L2, 1000 draws, alpha .001, {args.rows} rows", [
        row
    ]


def magnet(data, args):
    """MagNet around the undefended reference network."""
    X, y, X_test, y_test = data
    victim = PretrainedModule(common.reference_model("undefended"))
    start = time.process_time()
    model = defense.MagNet(
        FrozenEstimator(victim), bounds=(0, 1), max_epochs=args.epochs, lr=0.01
    ).fit(X[:20000])
    seconds = time.process_time() - start
    few, labels = X_test[:100], y_test[:100]
    row = {
        "CPU s": seconds,
        "clean, no alarm": float(
            np.mean(~model.detect(X_test) & (model.predict(X_test) == y_test))
        ),
    }
    for kappa in (0.0, 10.0):
        X_adv = crafted(CarliniWagner(bounds=(0, 1), kappa=kappa), victim, few, labels)
        row[f"C&W L2 on the net, kappa {kappa:.0f}"] = float(
            np.mean(handled(model, X_adv, labels))
        )
    reformer = crafted(pgd(40), model, few, labels)
    row["PGD-40 Linf .3 with reformer"] = float(np.mean(handled(model, reformer, labels)))
    held = np.ones(len(few), dtype=bool)
    for weight in (0.1, 1.0, 10.0):
        for eps in (0.1, 0.2, EPS):
            X_adv = detector_aware(model, few, labels, eps, weight, steps=200)
            held &= handled(model, X_adv, labels)
    row["detector-aware, up to .3"] = float(held.mean())
    return "### MagNet, autoencoders of 20,000 rows; share handled of 100 rows", [row]


def signed(data, args):
    """Random depthwise signed convolutions."""
    X, y, X_test, y_test = data
    rows = []
    for n_rows, n_filters in ((10_000, 1000), (args.signed_rows, args.signed_filters)):
        start = time.process_time()
        model = defense.RandomDepthwiseSignedClassifier(n_filters, kernel_size=5)
        model.fit(X[:n_rows], y[:n_rows])
        row = {"rows": n_rows, "filters": n_filters, "CPU s": time.process_time() - start}
        row["clean"] = model.score(X_test[:2000], y_test[:2000])
        if n_filters <= 1000:
            few, labels = X_test[:50], y_test[:50]
            row["BPDA PGD-10 Linf .1"] = accuracy_under(pgd(10, 0.1), model, few, labels)
            surrogate = PretrainedModule(common.reference_model("undefended"))
            transfer = TransferAttack(
                surrogate=FrozenEstimator(surrogate), attack=pgd(40, 0.1)
            )
            row["transfer"] = accuracy_under(transfer, model, few, labels)
        rows.append(row)
        print(row, flush=True)
    return "### Random depthwise signed network, kernel 5, LinearSVC C .005", rows


def pairing(data, args):
    """Adversarial logit pairing, and what many steps find."""
    X, y, X_test, y_test = data
    start = time.process_time()
    model = defense.LogitPairingClassifier(
        net(len(X), args.epochs, lr=2e-3, device=args.device),
        pgd(5, step_size=0.12),
        adversarial_weight=0.5,
        random_state=0,
    ).fit(X, y)
    row = {"epochs": args.epochs, "CPU s": time.process_time() - start}
    few, labels = X_test[:200], y_test[:200]
    row["clean"] = model.score(X_test, y_test)
    row["PGD-10"] = accuracy_under(pgd(10), model, few, labels)
    many = pgd(500, step_size=0.01, n_restarts=5)
    row["PGD-500, 5 restarts"] = accuracy_under(many, model, few, labels)
    return f"### Adversarial logit pairing, Linf {EPS}, 200 rows", [row]


def overhead(data, args):
    """Seconds of one adversarial epoch over those of as many bare passes."""
    X, y = data[0][:6000], data[1][:6000]
    rows = []
    for steps in (1, 5, 10):
        seconds = []
        for _ in range(3):
            start = time.process_time()
            defense.AdversarialTrainingClassifier(
                net(len(X), 1), pgd(steps), random_state=0
            ).fit(X, y)
            middle = time.process_time()
            _bare_passes(torch.as_tensor(X), torch.as_tensor(y), steps + 1)
            seconds.append((middle - start, time.process_time() - middle))
        ours, bare = np.min(seconds, axis=0)
        rows.append(
            {
                "steps k": steps,
                "epoch s": ours,
                "k+1 passes s": bare,
                "ratio": ours / bare,
            }
        )
    return "### One epoch of adversarial training, 6000 rows, against bare passes", rows


def _bare_passes(X, y, n_passes):
    """Forward and backward passes of training: gradients of all parameters."""
    module = common.MnistCNN()
    for at in torch.arange(len(X)).split(100):
        for _ in range(n_passes):
            loss = nn.functional.cross_entropy(module(X[at].requires_grad_()), y[at])
            loss.backward()


PARTS = [training, bounds, smoothing, magnet, signed, pairing, overhead]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.__name__ for part in PARTS]
    parser.add_argument("parts", nargs="*", choices=[[], *names])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2, help="of PGD, in training")
    parser.add_argument("--signed-rows", type=int, default=30_000)
    parser.add_argument("--signed-filters", type=int, default=3000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    data = common.load_mnist()
    for part in PARTS:
        if args.parts and part.__name__ not in args.parts:
            continue
        title, rows = part(data, args)
        table = f"{title}\n\n{common.markdown(rows)}"
        print(table, flush=True)
        if args.write:
            name = "benchmarks/bench_defenses_mnist.py"
            rest = [a for a in sys.argv[1:] if a not in names]
            command = shlex.join(["python", name, part.__name__, *rest])
            common.append_results(
                common.RESULTS, f"Defenses on MNIST: {part.__name__}", command, table
            )


if __name__ == "__main__":
    main()
