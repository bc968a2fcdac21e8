"""
===========================================
A bound that poison of a kind cannot exceed
===========================================

A defense removes training rows that lie far from the centroid of their class, in any
direction (the sphere) or towards the other class (the slab). How much can an attacker
still do, who knows it? For linear models of bounded norm there is an answer from both
sides: an upper bound of the training loss, and points that come close to it.
"""

# %%
# The bound, and the attack below
# -------------------------------

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from sklearn_advsec.inspection import PoisoningCurveDisplay
from sklearn_advsec.poisoning import (
    CertifiedPoisoningBound,
    LabelFlipping,
    MinMaxPoisoning,
)

X, y = load_digits(n_class=10, return_X_y=True)
of = (y == 4) | (y == 9)
X, y = X[of] / 16, y[of]
train, test = slice(0, 200), slice(200, None)

eps = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3]
bound = CertifiedPoisoningBound(eps=eps, rho=1.2, percentile=70, max_iter=800)
bound.fit(X[train], y[train])
for share, upper, lower in zip(eps, bound.upper_, bound.attack_loss_, strict=True):
    print(f"eps {share:.2f}: loss between {lower:.4f} and {upper:.4f}")

# %%
# What it says, and what not
# --------------------------
# The bound is one of the *training* loss, on clean rows and poison. The error of a model
# that is retrained on such points, on clean test rows, is something else, and is only
# measured: beside random flips of as many labels.

model = LinearSVC(C=0.1, random_state=0)
shares, errors = [0.0, 0.03, 0.06, 0.1, 0.15], {"min-max points": [], "random flips": []}
for share in shares:
    attacks = {
        "min-max points": MinMaxPoisoning(
            model, budget=share, percentile=70, random_state=0
        ),
        "random flips": LabelFlipping(strategy="random", budget=share, random_state=0),
    }
    for name, attack in attacks.items():
        poisoned = attack.fit_resample(X[train], y[train])
        errors[name].append(1 - model.fit(*poisoned).score(X[test], y[test]))

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
PoisoningCurveDisplay.from_bound(bound, ax=left)
left.set(title="Training loss, norm at most 1.2")
for name, found in errors.items():
    right.plot(shares, found, "o-", markersize=4, label=name)
right.set(
    xlabel="Poison, as a share of the clean rows",
    ylabel="Test error",
    title="LinearSVC, retrained",
    ylim=(0, None),
)
right.legend()
for ax in (left, right):
    ax.grid(alpha=0.3)
fig.tight_layout()

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "certified_poisoning.png", dpi=110)
    print(f"figure: {folder}/certified_poisoning.png")
