"""
======================================================
A refused loan: what an applicant would have to change
======================================================

A model on raw columns decides on loans. The attack looks for rows that the model grants
and that an applicant could really hand in: whole numbers, categories that exist, sums
that add up, an age that stays what it is.

The applicants are made up in this script; nothing here is about real people.
"""

# %%
# Made-up applicants, and a model on a DataFrame with numbers and categories.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sklearn_advsec.evasion import GreedyFeatureAttack, MultiObjectiveEvolution
from sklearn_advsec.threat import FeatureConstraints

rng = np.random.default_rng(0)
n = 3000
salary = np.round(rng.lognormal(10.4, 0.4, n), -2)
bonus = np.round(rng.exponential(2500, n), -2)
opened = rng.integers(0, 12, n)
X = pd.DataFrame(
    {
        "age": rng.integers(19, 75, n),
        "salary": salary.astype(int),
        "bonus": bonus.astype(int),
        "income": (salary + bonus).astype(int),
        "loan": (np.round(rng.uniform(2, 40, n)) * 1000).astype(int),
        "months": rng.choice([12, 24, 36, 48, 60], n),
        "open accounts": opened,
        "all accounts": opened + rng.integers(0, 10, n),
        "job": rng.choice(["none", "temporary", "permanent", "own business"], n),
        "home": rng.choice(["rents", "mortgage", "owns"], n),
        "purpose": rng.choice(["car", "home", "debts", "education"], n),
    }
)
points = 2.2 * np.log(X["income"] / 1000) - X["loan"] / X["months"] / 220
points += X["job"].map({"none": -1.8, "temporary": -0.6, "permanent": 0.6}).fillna(0)
points += X["home"].map({"rents": -0.4, "mortgage": 0.1, "owns": 0.7})
points -= 0.8 * (X["purpose"] == "debts") + 0.12 * X["open accounts"]
points += 0.02 * (X["age"] - 40) + rng.normal(0, 0.7, n)
y = np.where(points > points.median(), "granted", "refused")
words = ["job", "home", "purpose"]
model = make_pipeline(
    make_column_transformer((OrdinalEncoder(), words), remainder="passthrough"),
    HistGradientBoostingClassifier(max_iter=80, random_state=0),
).fit(X[:2400], y[:2400])
print(f"accuracy on applicants it has not seen: {model.score(X[2400:], y[2400:]):.2f}")

# %%
# Kinds, bounds and steps are learned from the data. What can change, and which way, is
# known to people only: nobody gets younger, and who owns a home does not begin to rent.
constraints = (
    FeatureConstraints.from_frame(X)
    .set("age", mutable=False)
    .set("loan", direction="down", step=500, cost=3)
    .set(["salary", "bonus"], direction="up", step=100)
    .set("salary", cost=2)
    .set("job", cost=3, transitions={"permanent": [], "own business": []})
    .set("home", cost=5, transitions={"rents": ["mortgage"], "mortgage": [], "owns": []})
    .set("purpose", cost=0.5)
    .set("all accounts", mutable=False)
    .relate("income == salary + bonus", repair="income")
    .relate("`open accounts` <= `all accounts`")
    .relate("job == 'none' implies bonus <= 2000")
)
held = X[2400:]
broken = {v.row for v in constraints.violations(held, held)}
held = held[~np.isin(np.arange(len(held)), list(broken))]
refused = held[model.predict(held) == "refused"]

# %%
# One attack changes few things, and cheap ones; the other weighs the distance.
few = GreedyFeatureAttack(
    FrozenEstimator(model), goal="targeted", target="granted", constraints=constraints
).fit(X)
near = MultiObjectiveEvolution(
    FrozenEstimator(model),
    goal="targeted",
    target="granted",
    constraints=constraints,
    eps=None,
    early_stopping=False,
    n_generations=40,
).fit(X)
rows = refused[:60]
results = {"few changes": few.run(rows), "nearest row": near.run(rows)}
for name, result in results.items():
    cost, changed = constraints.distance(rows, result.X_adv)
    print(
        f"{name}: {result.success.mean():.0%} granted, "
        f"{changed[result.success].mean():.1f} features changed, all rows valid: "
        f"{not constraints.violations(rows, result.X_adv)}"
    )

# %%
# The table of one applicant, and how often each feature changes over all of them.
result = results["few changes"]
_, changed = constraints.distance(rows, result.X_adv)
earns = (result.X_adv["income"] != rows["income"]).to_numpy()
who = int(np.argmax(np.where(result.success, changed + earns, 0)))
before, after = rows.iloc[who], result.X_adv.iloc[who]
share = model.predict_proba(pd.concat([rows.iloc[[who]], result.X_adv.iloc[[who]]]))
granted = share[:, list(model.classes_).index("granted")]

figure, (left, right) = plt.subplots(
    1, 2, figsize=(10.5, 4.4), layout="constrained", width_ratios=[1.25, 1]
)
left.set_axis_off()
cells = [[name, str(before[name]), str(after[name])] for name in X.columns]
cells.append(["granted with", f"{granted[0]:.0%}", f"{granted[1]:.0%}"])
table = left.table(
    cells, colLabels=["", "as handed in", "as granted"], loc="center", cellLoc="left"
)
table.auto_set_font_size(False)
table.set_fontsize(10)
table.scale(1, 1.45)
for (i, j), cell in table.get_celld().items():
    cell.set_edgecolor("0.85")
    if i == 0 or i == len(cells):
        cell.set_text_props(weight="bold")
    elif cells[i - 1][1] != cells[i - 1][2]:
        cell.set_facecolor("#fbe3d6")
        if j == 2:
            cell.set_text_props(color="#b3401a", weight="bold")
left.set_title("A made-up applicant: a few changes that are enough")

places = np.arange(len(X.columns))
colors = {"few changes": "C3", "nearest row": "0.65"}
for k, (name, result) in enumerate(results.items()):
    counts = (result.X_adv != rows)[result.success].mean()
    right.barh(places + 0.2 - 0.4 * k, counts, 0.38, color=colors[name], label=name)
right.set_yticks(places, X.columns)
right.invert_yaxis()
right.set(xlabel="share of granted rows in which it changed", xlim=(0, 1))
right.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False, loc="lower right")
right.set_title(f"{len(rows)} refused applicants")

# %%
# Run as a script, the figure is written to the folder given as an argument.
if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "tabular_constraints.png", dpi=110)
    print(f"figure: {folder}/tabular_constraints.png")
