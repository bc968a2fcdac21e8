"""Adversarial training of the digits network, beside the one of ART.

The same module, optimiser, batches, epochs and inner attack on both sides; what comes out
is judged by one attack (PGD-20, Linf .1) and in CPU seconds.

    python benchmarks/bench_defenses.py --seeds 3 --write
"""

import argparse
import shlex
import sys
import time
import warnings

import common
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_advsec.defense import AdversarialTrainingClassifier
from sklearn_advsec.evasion import ProjectedGradientDescent
from sklearn_advsec.pretrained import PretrainedModule

EPS, STEPS, STEP_SIZE, BATCH, RATE = 0.1, 7, 0.03, 64, 1e-3
PGD20 = ProjectedGradientDescent(eps=EPS, step_size=0.02, max_iter=20, bounds=(0, 1))


class MLP(nn.Module):
    def __init__(self, n_features=64, n_classes=10, hidden=200):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, n_classes),
        )

    def forward(self, x):
        return self.layers(x)


def ours(X, y, epochs, seed, eps=EPS):
    net = NeuralNetClassifier(
        MLP,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=RATE,
        max_epochs=epochs,
        batch_size=BATCH,
        train_split=None,
        verbose=0,
    )
    if not eps:
        return net.fit(X, y)
    attack = ProjectedGradientDescent(
        eps=eps, step_size=STEP_SIZE, max_iter=STEPS, random_start=True, bounds=(0, 1)
    )
    return AdversarialTrainingClassifier(net, attack, random_state=seed).fit(X, y)


def art(X, y, epochs, seed):
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(seed)
    module = MLP()
    classifier = PyTorchClassifier(
        module,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(module.parameters(), lr=RATE),
        input_shape=(64,),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=epochs,
        batch_size=BATCH,
        eps=EPS,
        eps_step=STEP_SIZE,
        max_iter=STEPS,
        num_random_init=1,
    )
    trainer.fit(X, y)
    return PretrainedModule(module)


def judge(model, X, y):
    """Return clean accuracy and accuracy under PGD-20."""
    attack = ProjectedGradientDescent(**PGD20.get_params()).set_params(
        estimator=FrozenEstimator(model)
    )
    return model.score(X, y), attack.fit(X).score(X, y)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    trainers = {
        f"{common.OURS}, no defense": lambda *data: ours(*data, eps=0.0),
        f"{common.OURS}, adversarial training": ours,
        "ART, AdversarialTrainerMadryPGD": art,
    }
    found = {name: [] for name in trainers}
    for seed in range(args.seeds):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.3, random_state=seed, stratify=y
        )
        for name, trainer in trainers.items():
            torch.manual_seed(seed)
            start = time.process_time()
            try:
                model = trainer(X_train, y_train, args.epochs, seed)
            except ImportError as error:
                found[name] = str(error)
                continue
            seconds = time.process_time() - start
            found[name].append((seconds, *judge(model, X_test, y_test)))
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
    table = (
        f"### Digits, MLP 64-200-200-10, {args.epochs} epochs, inner attack PGD-{STEPS} "
        f"Linf {EPS}; medians over {args.seeds} splits and seeds\n\n"
        + common.markdown(rows)
    )
    print(table)
    if args.write:
        command = shlex.join(["python", "benchmarks/bench_defenses.py", *sys.argv[1:]])
        common.append_results(common.RESULTS, "Defenses", command, table)


if __name__ == "__main__":
    main()
