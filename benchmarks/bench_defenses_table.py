"""Every defense against every kind of attack, on digits (Linf .1).

Columns: accuracy without attack; under PGD-20 on the classifier alone, by an attacker who
does not know the defense ("unaware"); under PGD-20, AutoAttack (50 steps, square attack
of 500 queries) and the square attack (1000 queries) on the whole; under PGD-40 on an
undefended network ("transfer"); and what is left after all of these and an attack made
for the defense ("adaptive": PGD-200 on the margin with 5 restarts, Auto-PGD on the DLR
loss with 3, averages over its noise where a defense is random, a loss with the detectors'
scores where it detects). Backward passes of steps without a gradient are those that the
defenses declare (BPDA). A detected row counts as handled, and as lost where it is clean.

    python benchmarks/bench_defenses_table.py --write
"""

import argparse
import json
import shlex
import sys
import time
import warnings

import common
import numpy as np
import torch
from bench_defenses import MLP
from defense_attacks import judge
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

EPS, SHAPE = 0.1, (8, 8)


def net(epochs=40, device="cpu"):
    return NeuralNetClassifier(
        MLP,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
        device=device,
    )


def defenses(seed, device):
    """Return the defenses by name: unfitted, and their own noise where they have one."""
    attack = ProjectedGradientDescent(
        eps=EPS, step_size=0.03, max_iter=7, bounds=(0, 1), random_start=True
    )
    plain = defense.LabelSmoothingClassifier(
        net(device=device), smoothing=0.0, random_state=seed
    )

    def around(cls, **parameters):
        return cls(net(device=device), random_state=seed, **parameters)

    def attacked(cls, **parameters):
        return cls(net(device=device), attack, random_state=seed, **parameters)

    training = defense.AdversarialTrainingClassifier
    pairing = defense.LogitPairingClassifier
    free = training(
        net(10, device), attack, method="free", n_replays=4, random_state=seed
    )
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
        "interval bounds": around(
            defense.IntervalBoundClassifier, eps=EPS, bounds=(0, 1)
        ),
        "randomized smoothing .25": around(
            defense.RandomizedSmoothingClassifier, sigma=0.25, n_samples=64
        ),
        "feature squeezing (2 bits)": make_pipeline(
            defense.FeatureSqueezing(2, bounds=(0, 1)), plain
        ),
        "JPEG (quality 50)": make_pipeline(
            defense.JPEGCompression(50, image_shape=SHAPE, bounds=(0, 1)), plain
        ),
        "feature noise .2": make_pipeline(
            defense.FeatureNoise(0.2, bounds=(0, 1)), plain
        ),
        "MagNet": defense.MagNet(plain, bounds=(0, 1), max_epochs=100, lr=0.01),
        "detector (squeezing)": defense.AdversarialDetector(plain, image_shape=SHAPE),
        "random signed (1000 filters)": defense.RandomDepthwiseSignedClassifier(
            1000, image_shape=SHAPE, C=0.05
        ),
    }


NOISE = {"feature noise .2": 0.2}


def masking_signs(model, X, y, surrogate):
    """Say which signs of masked gradients the report sees."""
    attack = ProjectedGradientDescent(eps=EPS, max_iter=20, bounds=(0, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradient_masking_report(model, X, y, attack, surrogate=FrozenEstimator(surrogate))
    texts = [str(w.message) for w in caught if w.category is GradientMaskingWarning]
    return ", ".join(text.split("(")[1].split(":")[0] for text in texts)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true", help="keep rows measured before")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=0.3, random_state=0, stratify=y
    )
    X_test, y_test = X_test[: args.rows], y_test[: args.rows]
    surrogate = defenses(1, args.device)["none"].fit(X, y)
    path = common.CACHE / "defenses_table.json"
    done = json.loads(path.read_text()) if args.resume and path.exists() else {}
    rows = []
    for name, model in defenses(0, args.device).items():
        if name in done:
            rows.append(done[name])
            continue
        start = time.process_time()
        model.fit(X, y)
        row = {"defense": name, "fit s": time.process_time() - start}
        cheap = not isinstance(model, defense.RandomDepthwiseSignedClassifier)
        few = slice(None) if cheap else slice(0, 100)
        row |= judge(
            model,
            X_test[few],
            y_test[few],
            eps=EPS,
            surrogate=surrogate,
            image_shape=SHAPE,
            noise=NOISE.get(name),
            strong=cheap,
        )
        row["masking seen in"] = masking_signs(model, X_test[few], y_test[few], surrogate)
        rows.append(row)
        done[name] = row
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(done))
        print(common.markdown([row]), flush=True)
    legend = __doc__.split("\n\n")[1].replace("\n", " ")
    table = (
        f"### Digits, MLP 64-200-200-10, 40 epochs, Linf {EPS}, {args.rows} test rows "
        f"(random signed: 100, without AutoAttack), one seed\n\n{legend}\n\n"
        + common.markdown(rows)
    )
    print(table)
    if args.write:
        name = "benchmarks/bench_defenses_table.py"
        command = shlex.join(["python", name, *sys.argv[1:]])
        common.append_results(
            common.RESULTS, "Defenses under adaptive attacks", command, table
        )


if __name__ == "__main__":
    main()
