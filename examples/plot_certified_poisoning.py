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
# Sphere and slab hold the share `percentile` of the clean rows: the smaller it is, the
# less the attacker can add, and the more clean rows the defense throws away.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklearn_advsec.inspection import PoisoningCurveDisplay
from sklearn_advsec.poisoning import (
    CertifiedPoisoningBound,
    LabelFlipping,
    MinMaxPoisoning,
)

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
splits = [
    train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    for seed in range(3)
]
X_train, X_test, y_train, y_test = splits[0]

shares = [0.0, 0.03, 0.06, 0.1, 0.15]
bound = CertifiedPoisoningBound(eps=shares, rho=0.5, percentile=70, max_iter=300)
bound.fit(X_train, y_train)
for share, upper, lower in zip(shares, bound.upper_, bound.attack_loss_, strict=True):
    print(f"eps {share:.2f}: loss between {lower:.4f} and {upper:.4f}")

# %%
# What it says, and what not
# --------------------------
# The bound is one of the *training* loss, on clean rows and poison. The error of a model
# that is retrained on such points, on clean test rows, is something else, and is only
# measured: here on three splits, beside random flips of as many labels. Points that have
# to pass a narrow sphere and slab do less than those that pass a wide one, and neither
# is proved to be the worst for the test error.

model = LinearSVC(C=0.01, random_state=0)
attacks = {
    "points, percentile 95": MinMaxPoisoning(model, percentile=95, random_state=0),
    "points, percentile 70": MinMaxPoisoning(model, percentile=70, random_state=0),
    "random flips": LabelFlipping(strategy="random", random_state=0),
}
errors = {name: np.zeros((len(splits), len(shares))) for name in attacks}
for i, (X_train, X_test, y_train, y_test) in enumerate(splits):
    for j, share in enumerate(shares):
        for name, attack in attacks.items():
            poisoned = attack.set_params(budget=share).fit_resample(X_train, y_train)
            errors[name][i, j] = 1 - model.fit(*poisoned).score(X_test, y_test)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
PoisoningCurveDisplay.from_bound(bound, ax=left)
left.set(title="Training loss, norm at most 0.5, percentile 70")
for (name, found), style in zip(errors.items(), ("s-", "o-", "^--"), strict=True):
    right.plot(shares, found.mean(axis=0), style, markersize=5, label=name)
    right.fill_between(shares, found.min(axis=0), found.max(axis=0), alpha=0.15)
right.set(
    xlabel="Poison, as a share of the clean rows",
    ylabel="Test error",
    title="LinearSVC, retrained: mean and range of 3 splits",
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
