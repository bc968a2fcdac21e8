"""
================================================
Audit membership with the models of a search
================================================

Shadow models are what makes membership attacks strong, and what makes audits dear.
Whoever has tuned a model has trained dozens of them already: each model of a
cross-validation was trained on most rows, and not on the others. Here, a forest is tuned
for accuracy, and the same fits say what each setting gives away.
"""

# %%
# A table of loans
# ----------------

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    RepeatedStratifiedKFold,
    cross_validate,
)

from sklearn_advsec.privacy import RMIA, KeepModels, PrivacyAudit, make_records

rng = np.random.RandomState(0)
X = np.column_stack([rng.randint(0, 6, (600, 10)), rng.randn(600, 10)])
y = (X[:, 0] + X[:, 1] + 2 * X[:, 10] + 3 * rng.randn(600) > 5).astype(int)
train = np.arange(600) < 300

# %%
# A search that keeps its models
# ------------------------------
# `GridSearchCV` forgets the models of its folds. As a scorer, `KeepModels` sees each of
# them, keeps it, and scores as before. Rows have to be left out more than once, by
# repetitions: else there is nothing to compare a model with.

folds = RepeatedStratifiedKFold(n_splits=4, n_repeats=3, random_state=0)
search = GridSearchCV(
    RandomForestClassifier(30, random_state=0),
    {"min_samples_leaf": [1, 5]},
    cv=folds,
    scoring=KeepModels("accuracy"),
)
search.fit(X[train], y[train])
audit = PrivacyAudit.from_cross_validation(search, X[train], y[train])
print("best:", search.best_params_)
print(audit.results_.query("metric == 'AUC'").iloc[:, :6].to_string(index=False))

# %%
# Is that the attack of an outsider?
# ----------------------------------
# One who trains 16 shadow models of their own, on rows that were in the training set and
# rows that were not, reaches this area on the released model:

target, records = search.best_estimator_, make_records(X, y)
outsider = RMIA(FrozenEstimator(target), n_shadow_models=16).fit(records)
paid = roc_auc_score(train, outsider.decision_function(records))

# %%
# With the rows that were never trained on, the models of the folds audit that model, too.

released = PrivacyAudit.from_cross_validation(
    search, X[train], y[train], X_out=X[~train], y_out=y[~train]
)
free = released.results_.query("attack == 'RMIA' and metric == 'AUC'")["value"].item()
print(f"AUC of RMIA: {paid:.3f} with 16 models of its own, {free:.3f} with none")

# %%
# Accuracy and what it gives away, of the same fits
# -------------------------------------------------

leaves = [1, 2, 5, 10, 20]
accuracy, area = [], []
for n in leaves:
    done = cross_validate(
        RandomForestClassifier(30, min_samples_leaf=n, random_state=0),
        X[train],
        y[train],
        cv=folds,
        return_estimator=True,
        return_indices=True,
    )
    accuracy.append(done["test_score"].mean())
    own = PrivacyAudit.from_cross_validation(done, X[train], y[train])
    row = own.results_.query("attack == 'RMIA'").iloc[0]
    area.append([row["value"], row["low"], row["high"]])

area = np.array(area)
fig, ax = plt.subplots(figsize=(6, 4))
ax.plot(leaves, accuracy, "o-", label="accuracy")
ax.errorbar(
    leaves,
    area[:, 0],
    yerr=np.abs(area[:, 1:] - area[:, :1]).T,
    fmt="s-",
    color="tab:red",
    capsize=3,
    label="AUC of membership (RMIA)",
)
ax.axhline(0.5, color="0.4", linestyle=":", label="guessing whether a row is in")
ax.set(xscale="log", xlabel="min_samples_leaf", ylim=(0.45, 1.0))
ax.set_xticks(leaves, leaves)
ax.legend()
ax.grid(alpha=0.3)
ax.set_title("One cross-validation, two answers")
fig.tight_layout()

# %
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "free_membership_audit.png", dpi=110)
    print(f"figure: {folder}/free_membership_audit.png")
