"""
====================================
A decision tree, stolen leaf by leaf
====================================

A victim that names the leaf along with its answer gives its whole tree away. The attack
asks at the corners of boxes and bisects edges; when the volumes of the boxes it has found
sum to 1, nothing is missing.
"""

# %%
# The victim
# ----------
# A tree on the iris flowers. It knows two of the features only, so that its leaves can be
# drawn as rectangles.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.tree import DecisionTreeClassifier, export_text, plot_tree

from sklearn_advsec.extraction import PathFinding

data = load_iris()
X, y = data.data[:, 2:], data.target
names = ["petal length", "petal width"]
victim = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, y)

# %%
# The theft
# ---------
# The attacker has flowers, but no labels: they tell the range of the features, and that
# flowers are measured to a millimetre. A threshold that this guess hits takes two queries
# to confirm; one that it misses is bisected down to the last bit.

attack = PathFinding(FrozenEstimator(victim)).fit(X)
print(f"{attack.n_leaves_} leaves in {attack.n_queries_} queries")
print(f"volumes of the leaves sum to {attack.volumes_.sum():.12f}")
print(attack.extraction_report(X))
print(export_text(attack.copy_, feature_names=names))

# %%
# Both trees
# ----------
# The copy cuts in another order where several are possible, but its leaves are the same.
# Its nodes count the attacker's rows.

trees, axes = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
for ax, tree, title in zip(
    axes, [victim, attack.copy_], ["The victim", "The stolen tree"], strict=True
):
    plot_tree(
        tree,
        feature_names=names,
        class_names=list(data.target_names),
        filled=True,
        impurity=False,
        rounded=True,
        fontsize=7,
        ax=ax,
    )
    ax.set_title(title)

# %%
# The boxes
# ---------
# What the attack proves: the rectangles tile the domain, and each has been seen to be one
# leaf from two opposite corners.

boxes, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
colors = ["tab:blue", "tab:orange", "tab:green"]
for low, high in attack.boxes_:
    label = attack.predict(((low + high) / 2)[None])[0]
    width, height = high - low
    ax.add_patch(
        Rectangle(low, width, height, facecolor=colors[label], alpha=0.25, edgecolor="k")
    )
for label, color in enumerate(colors):
    rows = X[y == label]
    ax.plot(*rows.T, "o", color=color, ms=3, label=data.target_names[label])
ax.set(
    xlabel=f"{names[0]} (cm)",
    ylabel=f"{names[1]} (cm)",
    title=f"{attack.n_leaves_} leaves from {attack.n_queries_} queries",
)
ax.legend(loc="lower right")

# %%
# Run as a script, the figures are written to the folder ``figures``, or to the one that
# is given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    trees.savefig(folder / "stolen_tree.png", dpi=110)
    boxes.savefig(folder / "stolen_tree_boxes.png", dpi=110)
    print(f"figures: {folder}/stolen_tree.png, {folder}/stolen_tree_boxes.png")
