"""Defenses of the digits network: every kind of attack, and a trainer beside ours.

Part "table": every defense against every kind of attack (Linf .1). Columns: accuracy
without attack; under PGD-20 on the classifier alone, by an attacker who does not know the
defense ("unaware"); under PGD-20, the square attack (1000 queries) and AutoAttack (50
steps, square attack of 500 queries) on the whole; under PGD-40 on an undefended network
("transfer"); and what is left after all of these and an attack made for the defense
("adaptive": PGD-200 on the margin with 5 restarts, Auto-PGD on the DLR loss with 3,
averages over its noise where a defense is random, a loss with the detectors' scores where
it detects). Backward passes of steps without a gradient are those that the defenses
declare (BPDA). A detected row counts as handled, and as lost where it is clean.

Part "peer": adversarial training beside the one of ART. The same module, optimiser,
batches, epochs and inner attack on both sides; what comes out is judged by one attack
(PGD-20, Linf .1) and in CPU seconds.

    python benchmarks/bench_defenses.py --write
    python benchmarks/bench_defenses.py table --device cuda --bf16
"""

import argparse
import shlex
import sys
import time
import warnings

import _common as common
import numpy as np
import torch
from _defense_attacks import Measured, crafted, judge
from _results import Claim, Table, markdown, record
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_advsec import defense
from sklearn_advsec.evasion import ProjectedGradientDescent
from sklearn_advsec.exceptions import GradientMaskingWarning
from sklearn_advsec.metrics import gradient_masking_report
from sklearn_advsec.pretrained import PretrainedModule

EPS, SHAPE = 0.1, (8, 8)
STEPS, STEP_SIZE, BATCH, RATE = 7, 0.03, 64, 1e-3
NOISE = {"feature noise .2": 0.2}  # what an attack on that defense averages over


class MLP(nn.Module):
    """Two hidden layers; `bf16` runs them in bfloat16 by autocast."""

    def __init__(self, n_features=64, n_classes=10, hidden=200, bf16=False):
        super().__init__()
        self.bf16 = bf16
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, n_classes),
        )

    def forward(self, x):
        if not self.bf16:
            return self.layers(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.layers(x).float()


def net(args, epochs=40):
    return NeuralNetClassifier(
        MLP,
        module__bf16=args.bf16,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=RATE,
        max_epochs=epochs,
        batch_size=BATCH,
        train_split=None,
        verbose=0,
        device=args.device,
    )


def inner_attack():
    return ProjectedGradientDescent(
        eps=EPS, step_size=STEP_SIZE, max_iter=STEPS, bounds=(0, 1), random_start=True
    )


# Every defense under every attack -----------------------------------------------------


def defenses(seed, args):
    """Return the defenses by name, unfitted."""
    attack = inner_attack()
    plain = defense.LabelSmoothingClassifier(net(args), smoothing=0.0, random_state=seed)

    def around(cls, **parameters):
        return cls(net(args), random_state=seed, **parameters)

    def attacked(cls, **parameters):
        return cls(net(args), attack, random_state=seed, **parameters)

    training = defense.AdversarialTrainingClassifier
    pairing = defense.LogitPairingClassifier
    free = training(net(args, 10), attack, method="free", n_replays=4, random_state=seed)
    return {
        "none": plain,
        "label smoothing .1": around(defense.LabelSmoothingClassifier),
        "mixup": around(defense.MixupClassifier),
        "adversarial training (PGD-7)": attacked(training),
        "fast": attacked(training, method="fast"),
        "free (4 replays, 10 epochs)": free,
        "PGD-7 + weight perturbation .01": attacked(training, weight_perturbation=0.01),
        "TRADES (beta 6)": attacked(defense.TRADESClassifier),
        "MART (beta 5)": attacked(defense.MARTClassifier),
        "adversarial logit pairing": attacked(pairing),
        "clean logit pairing": around(pairing, pairing="clean"),
        "interval bounds": around(  # which nothing proves of rounded products
            defense.IntervalBoundClassifier, eps=EPS, bounds=(0, 1)
        ).set_params(estimator__module__bf16=False),
        "randomized smoothing .25": around(
            defense.RandomizedSmoothingClassifier, sigma=0.25, n_samples=64
        ),
        "feature squeezing (2 bits)": make_pipeline(
            defense.FeatureSqueezing(2, bounds=(0, 1)), plain
        ),
        "median filter (2 x 2)": make_pipeline(
            defense.FeatureSqueezing(None, window=2, image_shape=SHAPE, bounds=(0, 1)),
            plain,
        ),
        "JPEG (quality 50)": make_pipeline(
            defense.JPEGCompression(50, image_shape=SHAPE, bounds=(0, 1)), plain
        ),
        "feature noise .2": make_pipeline(
            defense.FeatureNoise(0.2, bounds=(0, 1)), plain
        ),
        "MagNet": defense.MagNet(
            plain, bounds=(0, 1), max_epochs=100, learning_rate=0.01
        ),
        "detector (squeezing)": defense.AdversarialDetector(plain, image_shape=SHAPE),
        "random signed (256 filters)": defense.RandomDepthwiseSignedClassifier(
            256, image_shape=SHAPE
        ),
    }


def masking_signs(model, X, y, surrogate):
    """Say which signs of masked gradients the report sees."""
    attack = ProjectedGradientDescent(eps=EPS, max_iter=20, bounds=(0, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradient_masking_report(model, X, y, attack, surrogate=FrozenEstimator(surrogate))
    texts = [str(w.message) for w in caught if w.category is GradientMaskingWarning]
    return ", ".join(text.split("(")[1].split(":")[0] for text in texts)


def table(X, y, args):
    """Judge every defense."""
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=0.3, random_state=0, stratify=y
    )
    X_test, y_test = X_test[: args.rows], y_test[: args.rows]
    surrogate = defenses(1, args)["none"].fit(X, y)
    measured = Measured(f"defenses_{args.rows}_{args.device}_{args.bf16}", args.resume)
    rows = []
    for name, model in defenses(0, args).items():
        if name not in measured and args.only in name:
            start = time.process_time()
            model.fit(X, y)
            row = {"defense": name, "fit s": time.process_time() - start}
            row |= judge(
                model,
                X_test,
                y_test,
                eps=EPS,
                surrogate=surrogate,
                image_shape=SHAPE,
                noise=NOISE.get(name),
            )
            row["masking seen in"] = masking_signs(model, X_test, y_test, surrogate)
            measured[name] = row
            print(markdown([row]), flush=True)
        if name in measured:
            rows.append(measured[name])
    legend = __doc__.split("\n\n")[1].partition("Columns")
    return Table(
        "Defenses under adaptive attacks: digits, MLP 64-200-200-10, 40 epochs, Linf "
        f"{EPS}, {args.rows} test rows, one seed{place(args)}",
        rows,
        remarks=["".join(legend[1:])],
    )


# Adversarial training beside ART's ----------------------------------------------------


def ours(X, y, seed, args):
    attack = inner_attack()
    trainer = defense.AdversarialTrainingClassifier
    return trainer(net(args), attack, random_state=seed).fit(X, y)


def trades(X, y, seed, args):
    attack = inner_attack().set_params(random_start=False)
    return defense.TRADESClassifier(net(args), attack, random_state=seed).fit(X, y)


def undefended(X, y, seed, args):
    return net(args).fit(X, y)


def art(X, y, seed, args):
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    module = MLP(bf16=args.bf16)
    classifier = PyTorchClassifier(
        module,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(module.parameters(), lr=RATE),
        input_shape=(64,),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu" if args.device == "cpu" else "gpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=net(args).max_epochs,
        batch_size=BATCH,
        eps=EPS,
        eps_step=STEP_SIZE,
        max_iter=STEPS,
        num_random_init=1,
    )
    trainer.fit(X, y)
    return PretrainedModule(module)


def peer(X, y, args):
    """Train as ART does, and judge both."""
    trainers = {
        f"{common.OURS}, no defense": undefended,
        f"{common.OURS}, adversarial training": ours,
        f"{common.OURS}, TRADES (beta 6)": trades,
        "ART, AdversarialTrainerMadryPGD": art,
    }
    pgd20 = ProjectedGradientDescent(eps=EPS, step_size=0.02, max_iter=20, bounds=(0, 1))
    found = {name: [] for name in trainers}
    for seed in range(args.seeds):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.3, random_state=seed, stratify=y
        )
        for name, trainer in trainers.items():
            torch.manual_seed(seed)
            start = time.process_time()
            try:
                model = trainer(X_train, y_train, seed, args)
            except ImportError as error:
                found[name] = str(error)
                continue
            seconds = time.process_time() - start
            X_adv = crafted(pgd20, model, X_test, y_test)
            accuracies = model.score(X_test, y_test), model.score(X_adv, y_test)
            found[name].append((seconds, *accuracies))
    rows = []
    for name, values in found.items():
        if isinstance(values, str):
            rows.append({"runner": name, "note": f"skipped, {values}"})
            continue
        seconds, clean, robust = np.median(values, axis=0)
        all_robust = [value[2] for value in values]
        rows.append(
            {
                "runner": name,
                "CPU s": float(seconds),
                "clean": float(clean),
                "PGD-20 Linf .1": float(robust),
                "range": f"{min(all_robust):.3f}-{max(all_robust):.3f}",
            }
        )
    return Table(
        "Adversarial training beside ART's: digits, MLP 64-200-200-10, 40 epochs, inner "
        f"attack PGD-{STEPS} Linf {EPS}; medians over {args.seeds} splits and "
        f"seeds{place(args)}",
        rows,
        claims(rows),
    )


def claims(rows):
    """Say whether training is as good as the peer's, and as fast."""
    by_name = {row["runner"]: row for row in rows if "CPU s" in row}
    *_, ours = (row for name, row in by_name.items() if "adversarial training" in name)
    peer = by_name.get("ART, AdversarialTrainerMadryPGD")
    if peer is None:
        return []
    column, slack = "PGD-20 Linf .1", 0.01
    ratio = ours["CPU s"] / peer["CPU s"]
    return [
        Claim(
            f"adversarial training: accuracy under {column}",
            f"{ours[column]:.3f}",
            bool(ours[column] >= peer[column] - slack),
            f"at least the peer's - {slack:g}",
            f"{peer[column]:.3f} (ART)",
        ),
        Claim(
            "adversarial training: time",
            f"{ratio:.2f}x",
            bool(ratio <= 1),
            "at most 1x",
            "1x",
        ),
    ]


def place(args):
    """Name where it was computed, as a title has it."""
    if args.device == "cpu":
        return ""
    return f", {args.device}{', bf16' if args.bf16 else ''}"


PARTS = [table, peer]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.__name__ for part in PARTS]
    parser.add_argument("parts", nargs="*", choices=[[], *names])
    parser.add_argument("--rows", type=int, default=200, help="of the table")
    parser.add_argument("--seeds", type=int, default=3, help="of the comparison")
    parser.add_argument("--device", default="cpu", help="where the nets are: cpu, cuda")
    parser.add_argument("--bf16", action="store_true", help="nets run under autocast")
    parser.add_argument("--only", default="", help="part of a name, in the table")
    parser.add_argument("--resume", action="store_true", help="keep rows measured before")
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("--device cuda: there is no CUDA device here.")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    for part in PARTS:
        if args.parts and part.__name__ not in args.parts:
            continue
        measured = part(X, y, args)
        print(measured, flush=True)
        if args.write:
            options = [arg for arg in sys.argv[1:] if arg not in names]
            command = ["python", "benchmarks/bench_defenses.py", part.__name__, *options]
            record("defenses", "defense", shlex.join(command), [measured])


if __name__ == "__main__":
    main()
