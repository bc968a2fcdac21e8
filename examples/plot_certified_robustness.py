"""
=============================
Between a proof and an attack
=============================

An attack that fails proves nothing: another one may find what it missed. A certificate
is a proof, and usually a pessimistic one. The true robust accuracy is somewhere between
the two, and how wide the gap is depends on how the model was trained. Four models of the
same digits, four kinds of certificate.
"""

# %%
# A linear model: no gap
# ----------------------
# The distance of a row to the boundary of a linear classifier is known exactly, and the
# attack finds it: the two curves are one.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_advsec.defense import (
    AdversarialTrainingClassifier,
    IntervalBoundClassifier,
    RandomizedSmoothingClassifier,
    certify,
)
from sklearn_advsec.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent
from sklearn_advsec.inspection import RobustnessCurveDisplay

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
X_test, y_test = X_test[:200], y_test[:200]

attack = AutoProjectedGradientDescent(loss="targeted_dlr", max_iter=10, bounds=None)


panels = []


def bracket(model, title, *, norm=np.inf, eps=None, name="PGD-40", **options):
    eps = np.linspace(0, 0.2, 9) if eps is None else eps
    certificate = certify(model, X_test, norm=norm, **options)
    shown = attack.set_params(norm=norm)
    display = RobustnessCurveDisplay.from_estimator(
        model, X_test, y_test, attack=shown, eps=eps, certificate=certificate, name=name
    )
    plt.close(display.figure_)  # drawn below, beside the others
    panels.append((title, display))
    lower, upper = display.certified, display.accuracy[name]
    middle = len(eps) // 2
    print(
        f"{title}: at eps {eps[middle]:.2f} between {lower[middle]:.3f} (proved) and "
        f"{upper[middle]:.3f} (attacked)"
    )


linear = LogisticRegression(max_iter=1000).fit(X, y)
bracket(linear, "Logistic regression: exact distance", name="Auto-PGD")

# %%
# Networks: the gap is a matter of training
# -----------------------------------------
# Adversarial training makes a network that the attack seldom beats, and of which linear
# bounds prove less. Training on interval bounds makes one whose robustness can be proved.


# Pixels stay pixels, for the proof and for the attack.
attack = ProjectedGradientDescent(bounds=(0, 1), max_iter=40)


class Net(nn.Sequential):
    def __init__(self, n_features=64, n_classes=10):
        super().__init__(nn.Linear(n_features, 100), nn.ReLU(), nn.Linear(100, n_classes))


net = NeuralNetClassifier(
    Net,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=3e-3,
    max_epochs=15,
    batch_size=64,
    train_split=None,
    verbose=0,
)
inner = ProjectedGradientDescent(eps=0.1, max_iter=5, bounds=(0, 1))
hardened = AdversarialTrainingClassifier(net, inner, random_state=0).fit(X, y)
bracket(hardened, "Adversarial training: linear bounds", bounds=(0, 1))
bounded = IntervalBoundClassifier(
    net.set_params(max_epochs=30), eps=0.12, bounds=(0, 1), random_state=0
).fit(X, y)
bracket(bounded, "Interval bound training: linear bounds", bounds=(0, 1))

# %%
# Randomized smoothing: any classifier, in L2
# -------------------------------------------
# The certificate is statistical: it holds for each row with a probability of 0.999, for
# the majority vote under Gaussian noise of whatever stands inside.

smooth = RandomizedSmoothingClassifier(
    net.set_params(max_epochs=15), sigma=0.35, n_samples=50
).fit(X, y)
X_test, y_test = X_test[:100], y_test[:100]
attack.set_params(max_iter=10, bounds=None)
bracket(
    smooth,
    "Randomized smoothing: a vote under noise",
    name="PGD-10",
    norm=2,
    eps=np.linspace(0, 1.2, 7),
)

# %%
# Side by side
# ------------

figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharey=True, layout="constrained")
for ax, (title, display) in zip(axes.flat, panels, strict=True):
    display.plot(ax)
    ax.set(title=title)
for ax in axes[:, 1]:
    ax.set_ylabel("")
figure.suptitle(
    "Robust accuracy is somewhere in the hatched gap: proved below, attacked above"
)

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "certified_robustness.png", dpi=110)
    print(f"figure: {folder}/certified_robustness.png")
