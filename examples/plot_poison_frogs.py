"""
=========================================
Poison frogs: clean labels, wrong lessons
=========================================

Five training rows are changed. Their labels are right, and stay. A model that is built
on the representation of another network then gives one chosen row the wrong class, and
loses little on all others.
"""

# %%
# A representation, and a model on top of it
# ------------------------------------------
# A network knows all digits but 4 and 9. Its last hidden layer represents 4 and 9 for a
# linear model, the usual way to learn from few rows.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec.poisoning import FeatureCollision, LastHiddenLayer

X, y = load_digits(return_X_y=True)
X = X / 16
of = np.isin(y, (4, 9))
network = MLPClassifier((128,), early_stopping=True, random_state=0).fit(X[~of], y[~of])
model = make_pipeline(
    LastHiddenLayer(FrozenEstimator(network)),
    StandardScaler(),
    LogisticRegression(C=1000, max_iter=5000),
)
X, y = X[of], y[of]
test = np.arange(len(y)) >= 250

# %%
# Feature collision
# -----------------
# Rows of class 9 move until the network represents them as the target row, a 4. Each
# weight `beta` of staying near to the row as it was gives another trade.

targets = np.flatnonzero(test & (y == 4))[:8]
betas, outcomes, shown = (2.0, 1.0, 0.5, 0.25), [], None
for beta in betas:
    hits, moved, accuracy = [], [], []
    for target in targets:
        attack = FeatureCollision(
            model, target=X[[target]], target_class=9, beta=beta, random_state=0
        )
        poisoned = attack.fit_resample(X[~test], y[~test])
        victim = clone(model).fit(*poisoned)
        hits.append(victim.predict(X[[target]])[0] == 9)
        reach, far = attack.row_distance_.T
        moved.append((far / reach).mean())
        accuracy.append(victim.score(X[test], y[test]))
        if target == targets[0] and beta == 0.5:
            at = attack.poison_indices_[0]
            shown = X[target], X[~test][at], poisoned[0][at]
    outcomes.append((np.mean(hits), np.mean(moved), np.mean(accuracy)))
    print(f"beta {beta}: targets hit {outcomes[-1][0]:.2f}, of the way to the target row")
    print(f"{outcomes[-1][1]:.2f}, accuracy {outcomes[-1][2]:.3f}")

clean = clone(model).fit(X[~test], y[~test])
print(f"without poison: accuracy {clean.score(X[test], y[test]):.3f}")

# %%
# What it costs to be hit
# -----------------------
# The poison is labelled rightly, but it is not invisible: where it works, it has gone a
# good part of the way to the target row.

figure = plt.figure(figsize=(9, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
axes = left.subplots(1, 3)
names = ("target, a 4", "a 9", "the 9 as poison")
for ax, image, name in zip(axes, shown, names, strict=True):
    ax.imshow(image.reshape(8, 8), cmap="gray_r")
    ax.set_title(name, fontsize=9)
    ax.set_axis_off()
hits, moved, accuracy = np.transpose(outcomes)
ax = right.subplots()
ax.plot(moved, hits, "o-", label="targets hit")
ax.plot(moved, accuracy, "s--", label="accuracy on clean rows")
for beta, x, height in zip(betas, moved, hits, strict=True):
    ax.annotate(
        f"beta {beta}", (x, height), (0, 7), textcoords="offset points", ha="center"
    )
ax.set(xlabel="share of the way to the target row", ylabel="share", ylim=(-0.05, 1.05))
ax.margins(x=0.12)
ax.legend(loc="center left")
plt.show()
