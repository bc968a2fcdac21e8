"""
=============================================
Label flipping: which labels hurt, what helps
=============================================

An attacker may change some labels of the training rows. Which ones makes the difference:
drawn at random, farthest from the boundary, or chosen by the gradient of the error that
the *retrained* model will make. Beside the attacks stands what sanitizers repair, and
what they cost when nobody attacks.
"""

# %%
# Two digits, and flips of growing number
# ---------------------------------------
# The poison gets into the training rows only; errors are those on clean test rows, after
# retraining on what the attack returned. The gradient needs rows to measure the harm on:
# the attacker has some of its own.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sklearn_advsec.poisoning import (
    InfluenceSanitizer,
    KNNSanitizer,
    LabelFlipping,
    LossTrimming,
    poisoning_report,
)

X, y = load_digits(return_X_y=True)
of = np.isin(y, (3, 8))
X, y = X[of] / 16, y[of]
train, held, test = slice(0, 100), slice(100, 200), slice(200, None)
model = LogisticRegression(max_iter=1000)
shares = [0.0, 0.05, 0.1, 0.15, 0.2]
strategies = ("random", "farthest", "alfa", "gradient")


def error(X_train, y_train):
    return 1 - model.fit(X_train, y_train).score(X[test], y[test])


curves = {}
for strategy in strategies:
    curves[strategy] = [
        error(
            *LabelFlipping(
                model,
                strategy=strategy,
                budget=share,
                validation=(X[held], y[held]),
                random_state=0,
            ).fit_resample(X[train], y[train])
        )
        for share in shares
    ]
    print(strategy, np.round(curves[strategy], 3))

# %%
# Sanitizers against each of them
# -------------------------------
# Neighbours cure random flips, which lie among rows of their true class. Chosen flips
# agree with each other, and little is left that would tell them.

sanitizers = {
    "none": None,
    "neighbours": KNNSanitizer(),
    "trimmed loss": LossTrimming(model, contamination=0.15, random_state=0),
    "self-influence": InfluenceSanitizer(model, contamination=0.15),
}
table = np.zeros((len(sanitizers), len(strategies) + 1))
for j, strategy in enumerate(("clean", *strategies)):
    data = X[train], y[train]
    if strategy != "clean":
        attack = LabelFlipping(
            model,
            strategy=strategy,
            budget=0.15,
            validation=(X[held], y[held]),
            random_state=0,
        )
        data = attack.fit_resample(*data)
    for i, sanitizer in enumerate(sanitizers.values()):
        kept = data if sanitizer is None else sanitizer.fit_resample(*data)
        table[i, j] = error(*kept)

# %%
# Where the poison gets in
# ------------------------
# A victim who splits *after* the attack tests on flipped labels, too, and measures
# something else.

flips = LabelFlipping(strategy="random", budget=0.3, random_state=0)
report = poisoning_report(model, flips, X, y)
print(f"accuracy, clean: {report.clean.mean():.3f}")
print(f"30 % random flips inside of the training folds: {report.inside.mean():.3f}")
print(f"30 % random flips before the split: {report.before_split.mean():.3f}")

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
for strategy, errors in curves.items():
    left.plot(shares, errors, "o-", markersize=4, label=strategy)
left.set(xlabel="share of flipped labels", ylabel="test error", title="Attacks")
left.grid(alpha=0.3)
left.legend()
right.imshow(table, cmap="Reds", vmin=0, aspect="auto")
for (i, j), value in np.ndenumerate(table):
    color = "white" if value > 0.6 * np.max(table) else "black"
    right.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)
right.set_xticks(range(len(strategies) + 1), ["clean", *strategies])
right.set_yticks(range(len(sanitizers)), sanitizers)
right.set(title="Test error with sanitizers, 15 % of flips")
fig.tight_layout()

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "label_flipping.png", dpi=110)
    print(f"figure: {folder}/label_flipping.png")
