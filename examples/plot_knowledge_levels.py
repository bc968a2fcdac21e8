"""
=========================================================
What an attacker needs to know: gradients, scores, labels
=========================================================

One victim, and attackers who see less and less of it: its gradients, its scores, the
score of its first choice alone, and nothing but its label. How many questions does each
have to ask before the handwritten digits are misread?
"""

# %%
# The victim is a neural network on scikit-learn's digits. All attackers may change every
# pixel by a tenth of the grey scale, and are given the same images.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier

from sklearn_advsec.evasion import (
    NaturalEvolutionStrategy,
    ProjectedGradientDescent,
    RayS,
    SquareAttack,
)

X, y = load_digits(return_X_y=True)
X = X / 16
victim = MLPClassifier((64,), max_iter=300, random_state=0).fit(X[:1300], y[:1300])
images, labels = X[1300:1400], y[1300:1400]
eps, budget = 0.1, 1000
common = dict(bounds=(0, 1))

# %%
# Three of the attacks have a bound `eps`; a row leaves as soon as it is misread, and
# `n_queries` says when. The one by labels looks for the smallest change instead, so it is
# run with growing budgets, and counts where it got below `eps`.
frozen = FrozenEstimator(victim)
bounded = {
    "gradients (PGD)": ProjectedGradientDescent(
        frozen, eps=eps, step_size=eps / 4, max_queries=budget, max_iter=40, **common
    ),
    "all scores (Square)": SquareAttack(
        frozen, eps=eps, max_queries=budget, image_shape=(8, 8), **common
    ),
    "the first score (NES)": NaturalEvolutionStrategy(
        frozen, eps=eps, max_queries=budget, n_samples=30, top_k=1, **common
    ),
}
queries = np.unique(np.geomspace(1, budget, 60).astype(int))
curves = {}
for name, attack in bounded.items():
    result = attack.fit(X[:1300], y[:1300]).run(images, labels)
    needed = np.where(result.success, result.n_queries, np.inf)
    curves[name] = queries, [(needed > q).mean() for q in queries]

steps = np.array([10, 20, 40, 80, 160, 300, 500, 1000])
left = []
for q in steps:
    attack = RayS(frozen, max_queries=int(q), **common).fit(X[:1300], y[:1300])
    result = attack.run(images, labels)
    left.append((~result.success | (result.distance > eps)).mean())
curves["labels (RayS)"] = steps, left

# %%
# Random noise of the same size is the cheap rival of all of them.
rng = np.random.RandomState(0)
first = np.full(len(images), np.inf)
for q in range(1, budget + 1):
    noisy = np.clip(images + eps * rng.choice([-1, 1], size=64), 0, 1)
    first = np.where((victim.predict(noisy) != labels) & (first > q), q, first)
curves["nothing (random signs)"] = queries, [(first > q).mean() for q in queries]

# %%
# Gradients need a handful of questions, scores or labels some hundreds, and they end at
# about the same accuracy: less knowledge costs time, it is no safety. An attack that
# makes up slopes from the first score alone needs still more.
fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
colors = ["C3", "C0", "C4", "C2", "0.6"]
for (name, (x, accuracy)), color in zip(curves.items(), colors, strict=True):
    ax.plot(x, accuracy, color=color, lw=2)
    ax.annotate(
        name,
        (x[-1], accuracy[-1]),
        (6, {"labels (RayS)": 7, "gradients (PGD)": -7}.get(name, 0)),
        textcoords="offset points",
        color=color if color != "0.6" else "0.4",
        va="center",
    )
ax.set(
    xscale="log",
    xlim=(1, budget),
    xticks=[1, 10, 100, 1000],
    xticklabels=["1", "10", "100", "1000"],
    xlabel="queries for each image",
    ylabel=f"accuracy left, Linf {eps}",
    ylim=(0, 1.02),
    title="What the attacker sees of the victim, and how many questions it takes",
)
ax.spines[["top", "right"]].set_visible(False)
ax.grid(alpha=0.3)

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "knowledge_levels.png", dpi=110)
    print(f"figure: {folder}/knowledge_levels.png")
