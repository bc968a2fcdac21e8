"""
====================
Defenses and attacks
====================

Each defense meets each attack. What counts is the last column, what is left by the
strongest of them: rows that stay blue up to there are defenses. Where a row is blue under
some attacks and red under others, gradients were hidden, or the attacker did not know the
defense.
"""

# %%
# The defenses
# ------------
# One small network, trained as usual or in the ways of the training defenses, or with
# something in front of it.

import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_advsec.defense import (
    AdversarialTrainingClassifier,
    FeatureSqueezing,
    LabelSmoothingClassifier,
    LogitPairingClassifier,
    MixupClassifier,
    RandomDepthwiseSignedClassifier,
    TRADESClassifier,
)
from sklearn_advsec.evasion import (
    FastGradientMethod,
    ProjectedGradientDescent,
    SquareAttack,
    TransferAttack,
)
from sklearn_advsec.exceptions import GradientMaskingWarning
from sklearn_advsec.metrics import gradient_masking_report

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
X_test, y_test = X_test[:80], y_test[:80]


class Net(nn.Sequential):
    def __init__(self, n_features=64, n_classes=10):
        super().__init__(
            nn.Linear(n_features, 100),
            nn.ReLU(),
            nn.Linear(100, 100),
            nn.ReLU(),
            nn.Linear(100, n_classes),
        )


net = NeuralNetClassifier(
    Net,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=2e-3,
    max_epochs=12,
    batch_size=64,
    train_split=None,
    verbose=0,
)
eps = 0.1
inner = ProjectedGradientDescent(eps=eps, step_size=0.03, max_iter=5, bounds=(0, 1))
plain = LabelSmoothingClassifier(net, smoothing=0.0, random_state=0)
defenses = {
    "none": plain,
    "label smoothing": LabelSmoothingClassifier(net, random_state=0),
    "mixup": MixupClassifier(net, random_state=0),
    "squeezing to 1 bit": make_pipeline(FeatureSqueezing(1, bounds=(0, 1)), plain),
    "random signed network": RandomDepthwiseSignedClassifier(200, image_shape=(8, 8)),
    "logit pairing": LogitPairingClassifier(net, inner, random_state=0),
    "adversarial training": AdversarialTrainingClassifier(net, inner, random_state=0),
    "TRADES": TRADESClassifier(net, inner, random_state=0),
}
fitted = {name: model.fit(X, y) for name, model in defenses.items()}

# %%
# The attacks
# -----------
# From left to right: none; one crafted on another, undefended network; one step; a search
# that only sees scores; projected gradients; and those with more steps and restarts.
# Gradient attacks know the defense: steps without a gradient declare a backward pass.

surrogate = LabelSmoothingClassifier(net, smoothing=0.0, random_state=1).fit(X, y)
fixed = dict(eps=eps, bounds=(0, 1))
attacks = {
    "transfer": TransferAttack(
        surrogate=FrozenEstimator(surrogate), attack=ProjectedGradientDescent(**fixed)
    ),
    "one step": FastGradientMethod(**fixed),
    "square": SquareAttack(max_queries=100, image_shape=(8, 8), **fixed),
    "PGD-20": ProjectedGradientDescent(max_iter=20, **fixed),
    "PGD-50, restarts": ProjectedGradientDescent(
        max_iter=50,
        n_restarts=2,
        loss="margin",
        random_start=True,
        random_state=0,
        **fixed,
    ),
}
names = ["clean", *attacks]
table = np.zeros((len(fitted), len(names)))
for i, (name, model) in enumerate(fitted.items()):
    table[i, 0] = model.score(X_test, y_test)
    for j, attack in enumerate(attacks.values(), 1):
        attack.set_params(estimator=FrozenEstimator(model))
        table[i, j] = attack.fit(X_test).score(X_test, y_test)
    print(f"{name:22s}", *(f"{v:.2f}" for v in table[i]))

# %%
# Signs of masked gradients
# -------------------------
# Robust accuracies mean something only where stronger attacks are stronger.

for name in ("random signed network", "adversarial training"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradient_masking_report(
            fitted[name],
            X_test[:60],
            y_test[:60],
            ProjectedGradientDescent(max_iter=20, **fixed),
        )
    masked = [w for w in caught if w.category is GradientMaskingWarning]
    print(f"{name}: {len(masked)} signs of masked gradients")

# %%
# The table
# ---------

table = np.column_stack([table, table.min(axis=1)])
order = np.argsort(table[:, -1])
labels = [list(fitted)[i] for i in order]
figure, ax = plt.subplots(figsize=(8.5, 5), layout="constrained")
image = ax.imshow(table[order], cmap="RdYlBu", vmin=0, vmax=1, aspect="auto")
for (i, j), value in np.ndenumerate(table[order]):
    last = j == len(names)
    ax.text(j, i, f"{value:.2f}", ha="center", va="center",
            weight="bold" if last else None,
            color="white" if abs(value - 0.5) > 0.35 else "black")  # fmt: skip
ax.axvline(0.5, color="white", linewidth=4)
ax.axvline(len(names) - 0.5, color="white", linewidth=4)
ax.set_xticks(range(len(names) + 1), [*names, "worst of all"], rotation=20)
ax.set_yticks(range(len(fitted)), labels)
ax.set_title(f"Share of digits still right, Linf {eps}: red is broken, blue holds")
figure.colorbar(image, label="accuracy")

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "defense_tournament.png", dpi=110)
    print(f"figure: {folder}/defense_tournament.png")
