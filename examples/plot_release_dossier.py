"""
====================================================
The dossier of a model before it leaves the hospital
====================================================

A forest was trained inside of a secure environment, on patients who were promised that
nobody would learn that they are among them. Before its file is released, somebody has to
sign. `PrivacyAudit` puts together what they need: what the file itself shows, what all
attacks together say of each record, and what was not tested.
"""

# %%
# Patients
# --------

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_advsec.privacy import PrivacyAudit, make_records, stored_rows

rng = np.random.RandomState(0)
n = 500
X = pd.DataFrame(
    {
        "age": rng.randint(18, 95, n).astype(float),
        "district": rng.randint(0, 30, n).astype(float),
        "stay": rng.poisson(4, n).astype(float),
        **{f"lab{j}": rng.normal(size=n).round(2) for j in range(8)},
    }
)
risk = (X["age"] - 60) / 20 + X["lab0"] + X["lab1"] + 1.5 * rng.normal(size=n)
y = (risk > 0).to_numpy().astype(int)
train = np.arange(n) % 2 == 0
records = make_records(X, y)

# %%
# The dossier
# -----------
# Age and district are what a neighbour knows. One set of shadow models serves all
# attacks.

forest = RandomForestClassifier(30, random_state=0).fit(X[train], y[train])


def dossier(model):
    audit = PrivacyAudit(
        FrozenEstimator(model),
        n_shadow_models=24,
        quasi_identifiers=["age", "district"],
        label_column="label",
    )
    return audit.fit(records, members=train)


audit = dossier(forest)
columns = ["attack", "metric", "value", "low", "high", "baseline", "fails"]
print(audit.results_[columns].round(3).to_string(index=False, na_rep=""))

# %%
# Of each record, one p-value says how rare such answers are for patients who are not in
# the training set. Flags hold for all members together: that any of them is wrong has a
# probability of 5 %.

names = ["member", "p_joint", "p_adjusted", "flagged", "single_out", "leaf_size"]
print(audit.records_[names].head(8).to_string())
flagged = audit.records_["flagged"]
alone = int((flagged & audit.records_["single_out"]).sum())
print(f"{int(flagged.sum())} patients are exposed; {alone} of them are single-outs.")
print(audit.limits_.to_string(index=False))

# %%
# What would have to change
# -------------------------
# Removing the exposed patients exposes others. With leaves of 15 patients or more, hardly
# anybody is, and what is new is told no worse.

coarse = RandomForestClassifier(30, min_samples_leaf=15, random_state=0)
after = dossier(coarse.fit(X[train], y[train]))
audits = {"as it was": (forest, audit), "leaves of 15 or more": (coarse, after)}
for name, (model, made) in audits.items():
    accuracy = model.score(X[~train], y[~train])
    print(f"{name}: accuracy {accuracy:.3f}, flagged {made.records_['flagged'].sum()}")

# %%
# A file may also hold the patients themselves.

machine = make_pipeline(StandardScaler(), SVC()).fit(X[train], y[train])
for found in stored_rows(machine, X[train], y[train]):
    print(f"{found.path}: {found.holds} of {len(found.rows)} patients")

# %%
# Both models, as an attacker sees them
# -------------------------------------

fig, axes = plt.subplots(1, 2, figsize=(10, 4))
for name, (_, made) in audits.items():
    table = made.records_
    fpr, tpr, _ = roc_curve(table["member"].astype(bool), -table["p_joint"])
    axes[0].plot(fpr, tpr, label=name)
    inside = np.sort(table.loc[table["member"].astype(bool), "p_joint"])
    axes[1].step(inside, np.arange(1, len(inside) + 1) / len(inside), label=name)
axes[0].plot([0.004, 1], [0.004, 1], color="0.4", linestyle=":", label="guessing")
axes[0].set(xscale="log", yscale="log", xlim=(0.004, 1), ylim=(0.004, 1))
axes[0].set(xlabel="false alarms", ylabel="members found")
even = np.geomspace(1e-4, 1, 50)
axes[1].plot(even, even, color="0.4", linestyle=":", label="no gap")
axes[1].set(xscale="log", xlabel="p-value of a member", ylabel="share of members")
for ax in axes:
    ax.legend()
    ax.grid(alpha=0.3)
fig.suptitle("All attacks together, before and after")
fig.tight_layout()

# %
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "release_dossier.png", dpi=110)
    print(f"figure: {folder}/release_dossier.png")
