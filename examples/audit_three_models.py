"""
Audit three models
==================

What ``make demo`` runs: a pipeline with gradient boosting on a table, a support vector
classifier on digits, and a small convolutional network on digits before and after
adversarial training. Each audit becomes a page, in the folder ``reports`` or in the one
that is named on the command line.

The table is Adult, where SKLEARN_ADVSEC_DATA names a folder that has ``adult.parquet``,
else breast_cancer.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_advsec.audit import SecurityAudit
from sklearn_advsec.defense import AdversarialTrainingClassifier
from sklearn_advsec.evasion import ProjectedGradientDescent

N_JOBS = min(2, os.cpu_count() or 1)
EPS = 0.1  # of the range of pixels


class DigitsCNN(nn.Module):
    """Takes images of 8 x 8 pixels as flat rows."""

    def __init__(self, n_classes=10, channels=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * channels, n_classes),
        )

    def forward(self, x):
        return self.layers(x)


def table():
    """Return the rows and labels of Adult, or of breast_cancer."""
    folder = os.environ.get("SKLEARN_ADVSEC_DATA")
    if folder and (Path(folder) / "adult.parquet").exists():
        import pandas as pd

        frame = pd.read_parquet(Path(folder) / "adult.parquet").dropna()
        frame = frame.sample(3000, random_state=0).reset_index(drop=True)
        target = frame.columns[-1]
        return "adult", frame.drop(columns=target), frame[target].to_numpy()
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    return "breast_cancer", X, np.array(["malignant", "benign"])[y]


def boosting():
    """Return a gradient boosting pipeline on a table, and its data."""
    name, X, y = table()
    data = train_test_split(X, y, random_state=0, stratify=y)
    names = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer(
        (names, make_column_selector(dtype_exclude="number")),
        remainder="passthrough",
    )
    model = make_pipeline(columns, GradientBoostingClassifier(random_state=0))
    return f"boosting_{name}", model.fit(data[0], data[2]), data, {}


def digits():
    """Return the digits, in [0, 1], as train_test_split does."""
    X, y = load_digits(return_X_y=True)
    return train_test_split(
        X.astype(np.float32) / 16, y, random_state=0, stratify=y, train_size=1000
    )


def support_vectors():
    """Return a support vector classifier on digits."""
    data = digits()
    model = make_pipeline(StandardScaler(), SVC()).fit(data[0], data[2])
    return "svc_digits", model, data, {"image_shape": (8, 8), "eps": EPS}


def networks():
    """Yield a network on digits, as it is and after adversarial training."""
    data = digits()
    net = NeuralNetClassifier(
        DigitsCNN,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=10,
        train_split=None,
        verbose=0,
    )
    torch.manual_seed(0)
    options = {"image_shape": (8, 8), "eps": EPS}
    yield "cnn_digits", net.fit(data[0], data[2]), data, options
    attack = ProjectedGradientDescent(eps=EPS, max_iter=5)
    hardened = AdversarialTrainingClassifier(net, attack, random_state=0)
    hardened.fit(data[0], data[2])
    # To train it anew on each poison would take as long as all the rest.
    options = {**options, "threats": ["evasion", "extraction", "privacy"]}
    yield "cnn_digits_adversarially_trained", hardened, data, options


def main():
    """Audit the models, and say where the reports are."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "reports")
    folder.mkdir(exist_ok=True)
    audits, begin = {}, time.monotonic()
    for name, model, data, options in (boosting(), support_vectors(), *networks()):
        X_train, X_test, y_train, y_test = data
        print(f"==> {name}", flush=True)
        audit = SecurityAudit(FrozenEstimator(model), n_jobs=N_JOBS, **options)
        audit.fit(X_train, y_train, X_test, y_test)
        for threat, sentence in audit.summary_.items():
            print(f"    {threat}: {sentence}")
        audit.to_html(folder / f"{name}.html")
        audit.to_json(folder / f"{name}.json")
        audits[name] = audit
    *_, before, after = audits.values()
    comparison = before.compare(after)
    comparison.to_html(folder / "adversarial_training.html")
    print(f"==> adversarial training, before and after\n{comparison}")
    print(f"==> {time.monotonic() - begin:.0f} s; the reports:")
    for path in sorted(folder.glob("*.html")):
        print(f"    {path.resolve()}")


if __name__ == "__main__":
    # Other processes find the network by its module, which they cannot in this script.
    import audit_three_models

    audit_three_models.main()
