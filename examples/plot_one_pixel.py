"""
================================
A few pixels that change a digit
================================

Differential evolution looks for one, three or five pixels, by scores alone. Beside it
stands random search with the same number of queries.
"""

# %%
# The victim is a random forest on scikit-learn's digits.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator

from sklearn_advsec.evasion import OnePixel

X, y = load_digits(return_X_y=True)
X = X / 16
victim = RandomForestClassifier(60, random_state=0).fit(X[:1300], y[:1300])
right = victim.predict(X[1300:1420]) == y[1300:1420]
images, labels = X[1300:1420][right][:60], y[1300:1420][right][:60]
budget = 400

# %%
# Random search tries random pixels with random values.
rng = np.random.RandomState(0)
numbers = [1, 3, 5]
rates, random_rates, results = [], [], {}
for k in numbers:
    attack = OnePixel(
        FrozenEstimator(victim),
        n_pixels=k,
        max_queries=budget,
        image_shape=(8, 8),
        bounds=(0, 1),
    )
    results[k] = attack.fit(X[:1300], y[:1300]).run(images, labels)
    rates.append(results[k].success.mean())
    found = np.zeros(len(images), dtype=bool)
    for _ in range(budget):
        tried = images.copy()
        tried[:, rng.choice(64, k, replace=False)] = rng.uniform(size=k)
        found |= victim.predict(tried) != labels
    random_rates.append(found.mean())

# %%
# Left, how often it works. One pixel of 64 is so little to choose from that random search
# finds what there is; with more pixels it falls behind. Right, digits that turned into
# others, with the pixels that were changed marked.
fig = plt.figure(figsize=(9.5, 4.6), layout="constrained")
left, panel = fig.subfigures(1, 2, width_ratios=[1, 1.25])
ax = left.subplots()
place = np.arange(3)
ax.bar(place - 0.2, rates, 0.38, color="C3", label="differential evolution")
ax.bar(place + 0.2, random_rates, 0.38, color="0.7", label="random search")
ax.set_xticks(place, [f"{k} pixel" + "s" * (k > 1) for k in numbers])
ax.set(ylabel="share of digits misread", title=f"{budget} queries each", ylim=(0, 1))
ax.legend(frameon=False, loc="upper left")
ax.spines[["top", "right"]].set_visible(False)

axes = panel.subplots(3, 5)
for line, k in zip(axes, numbers, strict=True):
    shown = np.flatnonzero(results[k].success)[:5]
    for ax, i in zip(line, shown, strict=False):
        changed = results[k].X_adv[i]
        ax.imshow(changed.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        for j in np.flatnonzero(changed != images[i]):
            box = (j % 8 - 0.5, j // 8 - 0.5)
            ax.add_patch(plt.Rectangle(box, 1, 1, fill=False, ec="C3", lw=1.5))
        ax.set_title(f"{labels[i]} read as {results[k].y_pred[i]}", fontsize=9)
    for ax in line:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    line[0].set_ylabel(f"{k} pixel" + "s" * (k > 1))

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "one_pixel.png", dpi=110)
    print(f"figure: {folder}/one_pixel.png")
