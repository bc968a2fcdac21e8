"""
===============================================================
How robust is a forest? Attacked, solved exactly, and certified
===============================================================

An attack that fails proves nothing, and a certificate that fails proves nothing either:
the truth lies between the two. For ensembles of trees it can be computed. Here an attack
by labels alone, an attack that reads the trees, the exact solver and a certificate by
bounds look at the same forest, and at one that was trained to be robust.
"""

# %%
# Two forests on tumours, whose thirty measurements are scaled to [0, 1].
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import minmax_scale

from sklearn_advsec.defense import RobustRandomForestClassifier
from sklearn_advsec.evasion import HopSkipJump, TreeCoordinateAttack, TreeExactAttack
from sklearn_advsec.trees import certified_radii

X, y = load_breast_cancer(return_X_y=True)
X, X_test, y, y_test = train_test_split(minmax_scale(X), y, test_size=0.3, random_state=0)
rows, labels = X_test[:80], y_test[:80]
forests = {
    "An ordinary forest": RandomForestClassifier(40, random_state=0),
    "A forest trained for eps 0.1": RobustRandomForestClassifier(
        eps=0.1, n_estimators=40, random_state=0
    ),
}


# %%
# Each says of every row how far it has to be moved (by the largest change of any of the
# measurements) until it is misclassified. Rows that are wrong already are at 0.
def radii(forest):
    victim = FrozenEstimator(forest)
    attacks = {
        "attack by labels": HopSkipJump(victim, norm=np.inf, max_queries=300),
        "attack on the trees": TreeCoordinateAttack(victim),
        "exact": TreeExactAttack(victim, time_limit=10),
    }
    found = {}
    for name, attack in attacks.items():
        start = time.perf_counter()
        result = attack.set_params(bounds=(0, 1)).fit(X).run(rows, labels)
        found[name] = np.where(result.success, result.distance, np.inf)
        report(name, found[name], start)
    print(
        f"  proved to be the optimum: {np.mean(result.status == 'optimal'):.0%} of rows"
    )
    start = time.perf_counter()
    found["certificate"] = certified_radii(forest, rows, y=labels)
    report("certificate", found["certificate"], start)
    return found


def report(name, radius, start):
    ms = 1000 * (time.perf_counter() - start) / len(rows)
    print(f"  {name:20} median {np.median(radius):.3f}, {ms:5.1f} ms a row")


results = {}
for title, forest in forests.items():
    forest.fit(X, y)
    print(f"{title}: accuracy {forest.score(rows, labels):.2f}")
    results[title] = radii(forest)

# %%
# The share of rows that no change of at most `eps` gets wrong: what each of them says.
# An attack can only lower it from above, a certificate only raise it from below.
styles = {
    "attack by labels": dict(color="0.6", linewidth=1.5, linestyle=":"),
    "attack on the trees": dict(color="C1", linewidth=4.5, alpha=0.6),
    "exact": dict(color="black", linewidth=1.5),
    "certificate": dict(color="C0", linewidth=1.5),
}
eps = np.linspace(0, 0.3, 301)
figure, axes = plt.subplots(
    1, 2, figsize=(10.5, 4.2), layout="constrained", sharex=True, sharey=True
)
for ax, (title, found) in zip(axes, results.items(), strict=True):
    share = {name: np.mean(r > eps[:, None], axis=1) for name, r in found.items()}
    for name, style in styles.items():
        ax.plot(eps, share[name], label=name, **style)
    ax.fill_between(eps, 0, share["certificate"], color="C0", alpha=0.12, linewidth=0)
    ax.fill_between(
        eps, share["attack on the trees"], 1, color="C1", alpha=0.12, linewidth=0
    )
    right = np.mean(found["exact"] > 0.1)  # whatever the attacker does
    ax.plot(0.1, right, "o", color="black")
    ax.annotate(
        f"{right:.0%} at eps 0.1",
        (0.1, right),
        xytext=(-9, -7),
        textcoords="offset points",
        ha="right",
        va="top",
    )
    ax.set(title=title, xlabel="eps: largest change of any measurement")
    ax.spines[["top", "right"]].set_visible(False)
axes[1].text(0.02, 0.2, "proved to be right", color="C0")
axes[1].text(0.19, 0.75, "shown to be wrong", color="#b35a00")
axes[0].set(ylabel="share of rows still right", xlim=(0, 0.3), ylim=(0, 1))
axes[0].legend(frameon=False, loc="upper right")

# %%
# Run as a script, the figure is written to the folder given as an argument.
if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "tree_exact.png", dpi=110)
    print(f"figure: {folder}/tree_exact.png")
