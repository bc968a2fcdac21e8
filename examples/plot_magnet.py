"""
=========================
MagNet, and how it breaks
=========================

MagNet never looks at an attack. Autoencoders learn what clean digits look like; rows that
they cannot reconstruct are rejected, and the classifier sees the reconstruction of the
rest. Against an attacker who does not know of it that works well. Against one who does,
it is another layer of the network.
"""

# %%
# A classifier, and MagNet around it
# ----------------------------------
# The classifier is trained and frozen; MagNet needs no labels.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.defense import MagNet
from sklearn_advsec.evasion import ProjectedGradientDescent

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X / 16, y, test_size=0.3, random_state=0, stratify=y
)
X_test, y_test = X_test[:200], y_test[:200]
victim = MLPClassifier((100,), early_stopping=True, random_state=0).fit(X, y)
magnet = MagNet(
    FrozenEstimator(victim), bounds=(0, 1), max_epochs=80, learning_rate=0.01,
    fpr=0.05,
).fit(X)  # fmt: skip
print(f"clean accuracy {victim.score(X_test, y_test):.3f}, behind MagNet")
print(f"{magnet.score(X_test, y_test):.3f}; alarms {magnet.detect(X_test).mean():.3f}")

# %%
# Three attackers
# ---------------
# The first attacks the classifier. The second attacks classifier and reformer together,
# which is what a gradient attack on the MagNet object does. The third also keeps the
# reconstruction errors below their thresholds, by a loss of its own.

eps = 0.2
attack = ProjectedGradientDescent(eps=eps, max_iter=40, bounds=(0, 1))


def crafted(model):
    attack.set_params(estimator=FrozenEstimator(model))
    return attack.fit(X).run(X_test, y_test).X_adv


def detector_aware(weight, n_steps=150):
    view = differentiable.view(magnet)
    x, labels = torch.as_tensor(X_test), torch.as_tensor(y_test)
    lower, upper = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    x_adv, best = x.clone(), x.clone()
    for _ in range(n_steps):
        x_adv = x_adv.detach().requires_grad_()
        logits = view.logits(x_adv)
        own = logits.gather(1, labels[:, None])[:, 0]
        margin = logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own
        scaled = magnet._scaled(x_adv)
        errors = [(m(scaled) - scaled).abs().flatten(1) for m in magnet.autoencoders_]
        over = (
            (errors[0] ** 2).mean(1) / magnet.thresholds_["l2"]
            + errors[1].mean(1) / magnet.thresholds_["l1"]
        )  # fmt: skip
        loss = margin.clamp_max(1.0).sum() - weight * over.clamp_min(1.5).sum()
        (gradient,) = torch.autograd.grad(loss, x_adv)
        best = torch.where((margin > 0)[:, None], x_adv.detach(), best)
        x_adv = (x_adv + eps / 20 * gradient.sign()).clamp(lower, upper)
    return best.numpy()


def outcome(rows):
    alarm, right = magnet.detect(rows), magnet.predict(rows) == y_test
    return [np.mean(right & ~alarm), np.mean(alarm), np.mean(~right & ~alarm)]


aware = [detector_aware(weight) for weight in (0.1, 0.5, 2.0)]
wins = [outcome(rows)[2] for rows in aware]
rows = {
    "no attack": X_test,
    "on the classifier": crafted(victim),
    "on classifier and reformer": crafted(magnet),
    "on the detectors too": aware[int(np.argmax(wins))],
}
outcomes = {name: outcome(x) for name, x in rows.items()}
for name, (right, alarm, wrong) in outcomes.items():
    print(f"{name:28s} right {right:.3f}  alarm {alarm:.3f}  wrong {wrong:.3f}")

# %%
# What happens to the rows
# ------------------------

colors = {"right": "tab:green", "alarm": "tab:orange", "wrong": "tab:red"}
figure = plt.figure(figsize=(11, 6.5), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1.2, 1))
ax = top.subplots()
left = np.zeros(len(rows))
shares = np.array(list(outcomes.values())).T
for (label, color), share in zip(colors.items(), shares, strict=True):
    bars = ax.barh(list(rows), share, left=left, color=color, label=label)
    texts = [f"{s:.0%}" if s > 0.04 else "" for s in share]
    ax.bar_label(bars, texts, label_type="center", color="white")
    left += share
ax.invert_yaxis()
ax.set(xlim=(0, 1), xlabel="share of rows", title=f"MagNet on digits, Linf {eps}")
ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))

# Three digits under each of the attacks: as they come in, and as the classifier sees.
clean = (magnet.predict(X_test) == y_test) & ~magnet.detect(X_test)
last = rows["on the detectors too"]
lost = (magnet.predict(last) != y_test) & ~magnet.detect(last)
chosen = np.flatnonzero(clean & lost)[:3]
grid = bottom.subplots(2, 12)
for k, (name, X_rows) in enumerate(rows.items()):
    for column, i in zip(grid[:, 3 * k : 3 * k + 3].T, chosen, strict=True):
        row = X_rows[i : i + 1]
        label, alarm = magnet.predict(row)[0], magnet.detect(row)[0]
        kind = "alarm" if alarm else "right" if label == y_test[i] else "wrong"
        for ax, image in zip(column, (row, magnet.reconstruct(row)), strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        says = "alarm" if alarm else f"says {label}"
        column[1].set_xlabel(says, color=colors[kind], weight="bold")
    grid[0, 3 * k + 1].set_title(name, fontsize=9)
grid[0, 0].set_ylabel("row")
grid[1, 0].set_ylabel("reformed")

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "magnet.png", dpi=110)
    print(f"figure: {folder}/magnet.png")
