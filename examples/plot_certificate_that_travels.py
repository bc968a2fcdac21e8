"""
======================================================
A certificate that travels: proved here, checked there
======================================================

Who buys a model, or signs for it, wants to know how little it takes to change its answer,
and does not want to take anybody's word for it. The exact attack on tree ensembles writes
its proof into a file. Whoever has the model checks the file in a small part of the time
that the proof took, by a checker that solves nothing, and trusts nothing in the file.
"""

# %%
# Somebody trains boosted trees on tumours, and looks for the smallest change of each row
# that gets another answer.
import json
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import minmax_scale

from sklearn_advsec.evasion import TreeExactAttack, TreeExactResult
from sklearn_advsec.trees import check_certificate

X, y = load_breast_cancer(return_X_y=True)
X, X_test, y, y_test = train_test_split(minmax_scale(X), y, test_size=0.3, random_state=0)
model = GradientBoostingClassifier(random_state=0).fit(X, y)
attack = TreeExactAttack(FrozenEstimator(model), norm=np.inf).fit(X)

start = time.process_time()
result = attack.run(X_test[:60])
text = result.to_json()
solved = time.process_time() - start
print(result)
print(f"found and written in {solved:.2f} s, {len(text) / 1000:.0f} kB")

# %%
# What is in it: the trees and their hash, and of each row its values, their range, the
# adversarial point, and a lower bound of the distance with a list of cuts. These cut the
# ball around the row into boxes. In none of them can the leaves that are in reach add up
# to another answer: that is the proof.
document = json.loads(text)
row = max(document["rows"], key=lambda row: len(row["covers"][0]["column"]))
cover = row["covers"][0]
print({key: row[key] for key in ("row", "label", "distance", "bound", "status")})
print(f"{len(cover['value'])} cuts: columns {cover['column'][:8]}...")

# %%
# Somebody else has the model, and the file. The checker asks the model itself about the
# points, compares its trees with those of the file, and lets intervals go down the trees.
start = time.process_time()
claims = check_certificate(text, model)
checked = time.process_time() - start
n_optimal = sum(claim["status"] == "optimal" for claim in claims)
print(f"checked in {checked:.2f} s: {n_optimal} of {len(claims)} are the optimum")


# %%
# A forger who wants the model to look more robust has to get past that. The digest of the
# file is no hindrance: it is no secret how it is made, and he makes it anew.
def forge(change):
    import hashlib

    forged = json.loads(text)
    del forged["digest"]
    change(forged, forged["rows"][row["row"]])
    content = json.dumps(forged, sort_keys=True, separators=(",", ":"))
    forged["digest"] = hashlib.sha256(content.encode()).hexdigest()
    return json.dumps(forged)


def farther(document, row):
    row["point"] = (1.1 * np.array(row["point"]) - 0.1 * np.array(row["x"])).tolist()


def higher_bound(document, row):
    row["bound"] = row["distance"] = 1.5 * row["distance"]


def no_point(document, row):
    row["point"] = row["distance"] = None
    row.update(bound=2 * row["bound"], status="open")


def fewer_boxes(document, row):
    row["covers"][0] = {"column": [-1], "value": []}


def other_model(document, row):
    document["model"]["trees"]["divisor"] = 2.0


for change in (farther, higher_bound, no_point, fewer_boxes, other_model):
    try:
        check_certificate(forge(change), model)
    except ValueError as error:
        print(f"{change.__name__:12} {error}")

# %%
# What is certified is a curve: at each eps, no change of at most that size moves this
# share of the answers, and for all others the file holds the row that shows it.
again = TreeExactResult.from_json(text)
lower = np.array([claim["bound"] for claim in claims])
eps = np.linspace(0, 0.15, 301)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
kept = (lower > eps[:, None]).mean(1)
shown = (again.distance > eps[:, None]).mean(1)
axes[0].plot(eps, shown, color="C1", linewidth=4.5, alpha=0.6, label="no point is nearer")
axes[0].plot(eps, kept, color="black", linewidth=1.5, label="certified, and checked")
axes[0].set(
    xlabel="eps: largest change of any measurement",
    ylabel="share of answers that stay",
    xlim=(0, 0.15),
    ylim=(0, 1.02),
)
axes[0].legend(frameon=False)
axes[1].barh(["find and write", "check"], [solved, checked], color=["0.6", "C0"])
axes[1].invert_yaxis()
axes[1].set(xlabel=f"CPU seconds for {len(claims)} rows")
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the figure is written to the folder given as an argument.
if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "certificate_that_travels.png", dpi=110)
    print(f"figure: {folder}/certificate_that_travels.png")
