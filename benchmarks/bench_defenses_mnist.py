"""Defenses on MNIST: what a small CNN reaches on a CPU, with the training budget.

The network is the one of Wong et al. (two convolutions, one hidden layer). Parts:

- training: adversarial training, TRADES, MART and fast training at Linf .3, under PGD-40
  and AutoAttack; `--only` trains those whose names hold a text, `--resume` keeps others;
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
from functools import partial

import _common as common
import joblib
import numpy as np
import torch
from _defense_attacks import Measured, crafted, detector_aware, handled
from _results import Table, record
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from sklearn_advsec import defense
from sklearn_advsec.evasion import (
    AutoAttack,
    CarliniWagner,
    ProjectedGradientDescent,
    SquareAttack,
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
    """Adversarial training and its kin."""
    X, y, X_test, y_test = data
    ramp = (0, 0.3)  # without it, the net stays at one answer for all rows
    inner = pgd(5, step_size=0.1)
    fixed = clone(inner).set_params(random_start=False)

    def trained(cls, seed=0, attack=inner, **parameters):
        return cls(
            net(len(X), 8, device=args.device),
            attack,
            ramp=ramp,
            random_state=seed,
            **parameters,
        ).fit(X, y)

    makers = {
        f"PGD-5, seed {seed}": partial(
            trained, defense.AdversarialTrainingClassifier, seed
        )
        for seed in range(3)
    }
    makers["TRADES (beta 3), PGD-5"] = partial(
        trained, defense.TRADESClassifier, attack=fixed, beta=3.0
    )
    makers["MART (beta 5), PGD-5"] = partial(trained, defense.MARTClassifier)
    makers["fast"] = partial(
        trained, defense.AdversarialTrainingClassifier, method="fast"
    )
    few, labels = X_test[: args.rows], y_test[: args.rows]
    measured = Measured(f"mnist_training_{args.rows}_{args.device}", args.resume)
    for name, make in makers.items():
        if name in measured or args.only not in name:
            continue
        start = time.process_time()
        model = make()
        strong = AutoAttack(eps=EPS, bounds=(0, 1))
        measured[name] = {
            "training, 8 epochs": name,
            "CPU s": time.process_time() - start,
            "clean": model.score(X_test, y_test),
            "PGD-40": accuracy_under(pgd(40, step_size=0.02), model, few, labels),
            "AutoAttack": accuracy_under(strong, model, few, labels),
        }
        print(measured[name], flush=True)
    return (
        f"Adversarial training, Linf {EPS}, the bound growing during the first 30 % "
        f"of the training; attacks on {args.rows} test rows, AutoAttack in its standard "
        "form (100 steps, 9 classes, square attack of 5000 queries)",
        [measured[name] for name in makers if name in measured],
    )


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
    return f"Interval bound propagation, {args.rows} test rows", rows


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
    return f"Randomized smoothing, L2, 1000 draws, alpha .001, {args.rows} rows", [row]


def magnet(data, args):
    """MagNet around the undefended reference network."""
    X, y, X_test, y_test = data
    victim = PretrainedModule(common.reference_model("undefended"))
    path = common.CACHE / "mnist_magnet.joblib"
    if args.resume and path.exists():
        model, seconds = joblib.load(path)
    else:
        start = time.process_time()
        model = defense.MagNet(FrozenEstimator(victim), bounds=(0, 1), max_epochs=20)
        model.fit(X)
        seconds = time.process_time() - start
        joblib.dump((model, seconds), path)
    calm = ~model.detect(X_test)
    right = model.predict(X_test) == y_test
    print(f"{seconds:.0f} s, clean {right.mean()}, calm {calm.mean()}", flush=True)
    few, labels = X_test[:100], y_test[:100]
    rows = []

    def add(name, X_adv):
        alarm = model.detect(X_adv)
        rows.append(
            {
                "attack": name,
                "classifier alone": float(np.mean(victim.predict(X_adv) == labels)),
                "reformed right": float(np.mean(model.predict(X_adv) == labels)),
                "detected": float(np.mean(alarm)),
                "handled": float(np.mean(handled(model, X_adv, labels))),
            }
        )
        print(rows[-1], flush=True)

    for kappa in (0.0, 10.0, 20.0, 30.0, 40.0):
        carlini = CarliniWagner(bounds=(0, 1), kappa=kappa)
        name = f"C&W L2 on the classifier, kappa {kappa:.0f}"
        add(name, crafted(carlini, victim, few, labels))
    carlini = CarliniWagner(norm=np.inf, bounds=(0, 1))
    add("C&W Linf on the classifier", crafted(carlini, victim, few, labels))
    name = "PGD-40 Linf .3 on classifier and reformer"
    add(name, crafted(pgd(40), model, few, labels))
    for eps in (0.2, EPS):
        worst = few.copy()
        for weight in (0.1, 1.0, 10.0):
            X_adv = detector_aware(model, few, labels, eps, weight)
            wins = ~handled(model, X_adv, labels)
            worst[wins] = X_adv[wins]
        add(f"on classifier, reformer and detectors, Linf {eps}", worst)
    return (
        "MagNet, autoencoders of 60,000 rows, 20 epochs; shares of 100 rows",
        rows,
        f"Trained in {seconds:.0f} CPU s; alarms on {np.mean(~calm):.4f} of the test "
        f"rows, {np.mean(calm & right):.4f} right without alarm.",
    )


def signed(data, args):
    """Random depthwise signed convolutions."""
    X, y, X_test, y_test = data
    surrogate = PretrainedModule(common.reference_model("undefended"))
    attacks = {
        "BPDA, PGD-20": pgd(20, 0.1, step_size=0.02),
        "BPDA, PGD-20 on the margin": pgd(20, 0.1, step_size=0.02, loss="margin"),
        "Square, 500 queries": SquareAttack(eps=0.1, bounds=(0, 1), max_queries=500),
        "transfer": TransferAttack(
            surrogate=FrozenEstimator(surrogate), attack=pgd(40, 0.1)
        ),
    }
    few, labels = X_test[:50], y_test[:50]
    measured = Measured("mnist_signed", args.resume)
    for n_rows, n_filters in ((10_000, 1000), (args.signed_rows, args.signed_filters)):
        name = f"{n_filters} filters, {n_rows} rows"
        if name in measured:
            continue
        start = time.process_time()
        model = defense.RandomDepthwiseSignedClassifier(n_filters)
        model.fit(X[:n_rows], y[:n_rows])
        row = {"rows": n_rows, "filters": n_filters, "CPU s": time.process_time() - start}
        row["clean"] = model.score(X_test, y_test)
        print(row, flush=True)
        if n_filters <= 1000:
            for kind, attack in attacks.items():
                row[kind] = accuracy_under(attack, model, few, labels)
        measured[name] = row
        print(row, flush=True)
    return (
        "Random depthwise signed network; clean on 10,000 test rows, attacks of Linf "
        ".1 on 50",
        list(measured.values()),
    )


def pairing(data, args):
    """Adversarial logit pairing, and what many steps find."""
    X, y, X_test, y_test = data
    start = time.process_time()
    model = defense.LogitPairingClassifier(
        net(len(X), args.epochs, device=args.device),
        pgd(5, step_size=0.1),
        ramp=(0, 0.3),
        random_state=0,
    ).fit(X, y)
    row = {"epochs": args.epochs, "CPU s": time.process_time() - start}
    few, labels = X_test[:200], y_test[:200]
    row["clean"] = model.score(X_test, y_test)
    row["PGD-10"] = accuracy_under(pgd(10), model, few, labels)
    many = pgd(500, step_size=0.01, n_restarts=5)
    row["PGD-500, 5 restarts"] = accuracy_under(many, model, few, labels)
    print(row, flush=True)
    row["AutoAttack"] = accuracy_under(
        AutoAttack(eps=EPS, bounds=(0, 1)), model, few, labels
    )
    return f"Adversarial logit pairing, Linf {EPS}, 200 rows", [row]


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
    return "One epoch of adversarial training, 6000 rows, against bare passes", rows


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
    parser.add_argument("--only", default="", help="part of a name, in training")
    parser.add_argument("--resume", action="store_true", help="keep rows measured before")
    parser.add_argument("--signed-rows", type=int, default=24_000)
    parser.add_argument("--signed-filters", type=int, default=2048)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    data = common.load_mnist()
    for part in PARTS:
        if args.parts and part.__name__ not in args.parts:
            continue
        title, rows, *remarks = part(data, args)
        table = Table(title, rows, remarks=remarks)
        print(table, flush=True)
        if args.write:
            name = "benchmarks/bench_defenses_mnist.py"
            rest = [a for a in sys.argv[1:] if a not in names]
            command = shlex.join(["python", name, part.__name__, *rest])
            record("defenses_mnist", "defense", command, [table])


if __name__ == "__main__":
    main()
