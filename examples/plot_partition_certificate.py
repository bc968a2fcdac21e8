"""
======================================
Votes that poison provably cannot turn
======================================

Split the training rows by a hash, train a model on each part, let the models vote. A row
that an attacker inserts or removes reaches one of them only, so that a clear majority
stays, whatever the row is. More parts certify more, and predict worse: each model sees
fewer rows.
"""

# %%
# More parts or better models
# ---------------------------
# Everything that is learned, the scale of the features too, is learned inside of a part:
# a scaler that is fitted on all rows would let one of them reach every model.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec.inspection import PoisoningCurveDisplay
from sklearn_advsec.metrics import certified_accuracy_scorer
from sklearn_advsec.poisoning import DeepPartitionAggregation, LabelFlipping

X, y = load_digits(return_X_y=True)
train, test = slice(0, 400), slice(400, None)
base = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
sizes = np.arange(16)
certified = {}
for n_partitions in (5, 15, 40, 130):
    model = DeepPartitionAggregation(base, n_partitions=n_partitions)
    certificate = model.fit(X[train], y[train]).certify(X[test])
    accuracy = certificate.accuracy(y[test], sizes)
    certified[f"{n_partitions} parts"] = accuracy
    print(f"{n_partitions} parts: {accuracy[0]:.3f} right, {accuracy[4]:.3f} at 4 rows")

# %%
# The number of parts is a parameter, and certified accuracy is a score.

search = GridSearchCV(
    DeepPartitionAggregation(base),
    {"n_partitions": [5, 15, 40]},
    scoring=certified_accuracy_scorer(5),
    cv=3,
)
search.fit(X[train], y[train])
print("best against five rows:", search.best_params_)

# %%
# An attack stays below
# ---------------------
# The labels that lie deepest in their classes are flipped. It comes nowhere near what the
# certificate allows: a certificate has to hold for any rows at all.

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
for (label, accuracy), dashes in zip(
    certified.items(), ("-", "--", "-.", ":"), strict=True
):
    left.step(sizes, accuracy, dashes, where="post", label=label)
left.set(
    xlabel=f"Number of {certificate.unit}",
    ylabel="Certified accuracy",
    title="More parts: more certified, fewer right",
)
left.legend()

model = DeepPartitionAggregation(base, n_partitions=15)
attack = LabelFlipping(base, strategy="farthest")
display = PoisoningCurveDisplay.from_estimator(
    model,
    attack,
    X[train],
    y[train],
    X[test],
    y[test],
    budgets=[*range(9), 20, 40],
    name="flips by distance",
    ax=right,
)
right.set(title="15 parts: attack and certificate", ylim=(0, 1.05))
for ax in (left, right):
    ax.grid(alpha=0.3)
fig.tight_layout()

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "partition_certificate.png", dpi=110)
    print(f"figure: {folder}/partition_certificate.png")
