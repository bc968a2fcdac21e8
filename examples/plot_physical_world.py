"""
==========================================================
Adversarial images in front of a camera that is held askew
==========================================================

An adversarial image that was computed for one exact picture is fragile: turn it a little,
or change its contrast, and the digit is read correctly again. Expectation over
transformation takes the camera into account.
"""

# %%
# The victim is a neural network on scikit-learn's digits.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier

from sklearn_advsec.evasion import (
    Contrast,
    ExpectationOverTransformation,
    ProjectedGradientDescent,
    Rotation,
)

X, y = load_digits(return_X_y=True)
X = X / 16
victim = MLPClassifier((64,), max_iter=300, random_state=0).fit(X[:1300], y[:1300])
right = victim.predict(X[1300:]) == y[1300:]
images, labels = X[1300:][right][:100], y[1300:][right][:100]

# %%
# Both attacks may change every pixel by the same amount. The second one averages its
# gradients over rotations by up to 20 degrees and contrasts of 80 to 120 %.
pgd = ProjectedGradientDescent(eps=0.15, bounds=(0, 1))
attacks = {
    "PGD": pgd.set_params(estimator=FrozenEstimator(victim)),
    "expectation over\ntransformation": ExpectationOverTransformation(
        FrozenEstimator(victim),
        attack=ProjectedGradientDescent(eps=0.15, bounds=(0, 1)),
        transformations=[Rotation(20), Contrast(0.2)],
        image_shape=(8, 8),
    ),
}
adversarial = {
    name: attack.fit(X[:1300], y[:1300]).run(images, labels).X_adv
    for name, attack in attacks.items()
}

# %%
# How often are they misread at each angle?
angles = np.arange(-30, 31, 3)


def turned(rows, angle):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = torch.tensor([[c, -s, 0], [s, c, 0]]).expand(len(rows), 2, 3)
    pictures = torch.as_tensor(rows).reshape(-1, 1, 8, 8)
    grid = torch.nn.functional.affine_grid(matrix, pictures.shape, align_corners=False)
    seen = torch.nn.functional.grid_sample(pictures, grid, align_corners=False)
    return seen.reshape(len(rows), -1).numpy()


misread = {
    name: [(victim.predict(turned(rows, a)) != labels).mean() for a in angles]
    for name, rows in ({"unchanged": images} | adversarial).items()
}

# %%
# The curve of PGD falls as soon as the picture is turned; the other one stays up over the
# whole range it was made for. (PGD stops where the digit is misread. With
# ``early_stopping=False`` it goes on, and survives more turns, but not as many.)
fig = plt.figure(figsize=(9.5, 4.2), layout="constrained")
left, panel = fig.subfigures(1, 2, width_ratios=[1.1, 1])
ax = left.subplots()
for (name, rates), color in zip(misread.items(), ("0.6", "C0", "C3"), strict=True):
    ax.plot(angles, rates, color=color, lw=2, label=name)
ax.axvspan(-20, 20, color="C3", alpha=0.07, lw=0)
ax.text(0, 0.2, "range of the expectation", ha="center", color="C3", fontsize=9)
ax.set(xlabel="rotation in degrees", ylabel="share of digits misread", ylim=(0, 1.03))
ax.legend(
    frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.17), ncols=3
)
ax.spines[["top", "right"]].set_visible(False)

# %%
# One digit, held at three angles, with a green frame where it is read correctly.
shown = [-15, 0, 15]
robust = adversarial["expectation over\ntransformation"]
plain = np.all([victim.predict(turned(images, a)) == labels for a in shown], axis=0)
fooled = np.all([victim.predict(turned(robust, a)) != labels for a in shown], axis=0)
fragile = np.all(
    [victim.predict(turned(adversarial["PGD"], a)) == labels for a in (-15, 15)], axis=0
)
i = int(np.argmax(plain & fooled & fragile))
axes = panel.subplots(3, 3)
for line, (name, rows) in zip(
    axes, ({"unchanged": images} | adversarial).items(), strict=True
):
    for ax, angle in zip(line, shown, strict=True):
        seen = turned(rows[i : i + 1], angle)
        said = victim.predict(seen)[0]
        ax.imshow(seen.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        color = "tab:green" if said == labels[i] else "tab:red"
        ax.set_title(f"read as {said}", color=color, fontsize=10)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=color, lw=2)
    line[0].set_ylabel(name, fontsize=9)
for ax, angle in zip(axes[-1], shown, strict=True):
    ax.set_xlabel(f"{angle}°")

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "physical_world.png", dpi=110)
    print(f"figure: {folder}/physical_world.png")
