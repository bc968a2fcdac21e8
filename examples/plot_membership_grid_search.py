"""
===============================================
Tune an attacker in a Pipeline and GridSearchCV
===============================================

A membership attack is a classifier over records, so everything that tunes classifiers
tunes attackers. Here a table of people comes with an identifier that the target has never
seen; a pipeline drops it before the attack, and a grid search finds out which kind of
shadow-model attack finds most members.
"""

# %%
# Records with strings in them
# ----------------------------
# The target is a pipeline with a column transformer. The records stay a DataFrame; the
# column with the label is given by its name.

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Patch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sklearn_advsec.metrics import tpr_at_fpr_scorer
from sklearn_advsec.privacy import MembershipGame, ShadowModels

rng = np.random.default_rng(0)
n = 3000
people = pd.DataFrame(
    {
        "age": rng.integers(18, 80, n),
        "income": rng.lognormal(10, 0.5, n).round(),
        "rooms": rng.integers(1, 7, n),
        "visits": rng.poisson(4, n),
        "distance": rng.exponential(5, n).round(1),
        "town": rng.choice(["Ulm", "Graz", "Bern", "Lyon"], n),
    }
)
chance = 1 / (1 + np.exp(-(people["age"] - 50) / 15 - (people["town"] == "Ulm")))
bought = np.where(rng.uniform(size=n) < chance, "yes", "no")

encode = make_column_transformer((OneHotEncoder(), ["town"]), remainder=StandardScaler())
recipe = make_pipeline(encode, RandomForestClassifier(100))
played = MembershipGame(recipe, random_state=0).play(people, bought)[0]
records = played.records.assign(customer=[f"C{i:05d}" for i in rng.permutation(n)])
print(played)
print(records.head(3))

# %%
# The attacker as a pipeline
# --------------------------
# ``fit`` gets the records whose membership is known; each fold is judged by an attack
# that has seen the other folds only. Two scores are computed, and the second decides:
# what an attacker finds while accusing five in a hundred non-members. The shadow models
# of a fold are the same for all settings of the attack model: with ``memory``, they are
# trained once.


def drop_customer(records):
    return records.drop(columns="customer")


memory = TemporaryDirectory()
attack = ShadowModels(
    played.target, label_column="label", n_shadow_models=4, memory=memory.name
)
attacker = Pipeline(
    [
        ("columns", FunctionTransformer(drop_customer)),
        ("attack", attack),
    ]
)
grid = {
    "attack__features": ["top_k", "posterior", "label"],
    "attack__per_class": [False, True],
    "attack__attack_estimator": [
        RandomForestClassifier(30, min_samples_leaf=10),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
}
search = GridSearchCV(
    attacker,
    grid,
    scoring={"auc": "roc_auc", "tpr": tpr_at_fpr_scorer(0.05)},
    refit="tpr",
    cv=3,
)
search.fit(records, played.membership)
memory.cleanup()
print("best:", {k: str(v)[:40] for k, v in search.best_params_.items()})

# %%
# What the attack model sees matters more than which model it is
# --------------------------------------------------------------

results = pd.DataFrame(search.cv_results_)
results["attack model"] = [
    "forest" if isinstance(m, RandomForestClassifier) else "logistic"
    for m in results["param_attack__attack_estimator"]
]
results["labels"] = np.where(
    results["param_attack__per_class"].astype(bool), "one per class", "one for all"
)
results["name"] = (
    results["param_attack__features"]
    + ", "
    + results["attack model"]
    + ", "
    + results["labels"]
)
results = results.sort_values("mean_test_auc")
colours = {"posterior": "tab:blue", "top_k": "tab:cyan", "label": "tab:orange"}
fig, axes = plt.subplots(1, 2, figsize=(11.5, 4.5), sharey=True)
for ax, score, guess, title in zip(
    axes,
    ("auc", "tpr"),
    (0.5, 0.05),
    ("AUC", "Members found at 5 % false positives"),
    strict=True,
):
    ax.barh(
        results["name"],
        results[f"mean_test_{score}"],
        xerr=results[f"std_test_{score}"],
        color=results["param_attack__features"].map(colours),
        ecolor="0.3",
    )
    ax.axvline(guess, color="0.4", linestyle=":", label="guessing")
    ax.set_xlabel(title)
    ax.grid(axis="x", alpha=0.3)
axes[0].set_xlim(0.4, 1.0)
seen = {
    "posterior": "all probabilities",
    "top_k": "the largest, sorted",
    "label": "right or wrong",
}
bars = [Patch(color=colours[key], label=text) for key, text in seen.items()]
guess = axes[1].get_legend_handles_labels()[0]
fig.legend(
    handles=bars + guess, loc="center right", title="the attack model\nsees", fontsize=9
)
fig.suptitle("What an attack model sees matters more than which model it is")
fig.tight_layout(rect=(0, 0, 0.84, 1))

# %
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "membership_grid_search.png", dpi=110)
    print(f"figure: {folder}/membership_grid_search.png")
