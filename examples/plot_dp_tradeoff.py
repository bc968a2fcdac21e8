"""
================================================
Differential privacy: what it costs and what for
================================================

DP-SGD bounds what *any* attack can learn about a single training row, by a number called
epsilon, and pays with accuracy. Between the two stands what an actual attack finds. All
three are drawn here over epsilon.
"""

# %%
# A net that learns noise by heart
# --------------------------------
# A fifth of the rows has a random label, so that a net which gets all of its training
# rows right must have memorised some. The same net is trained with less and less noise.

import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_advsec.metrics import bootstrap_interval, tpr_at_fpr
from sklearn_advsec.privacy import RMIA, DPSGDClassifier, MembershipGame, make_records

if find_spec("opacus") is None:
    sys.exit("This example needs opacus: pip install 'sklearn-advsec[privacy]'")
torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self, n_features=30, n_classes=4):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 96), nn.Tanh(), nn.Linear(96, n_classes)
        )

    def forward(self, x):
        return self.layers(x)


net = NeuralNetClassifier(
    Net,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    lr=4.0,
    max_epochs=30,
    batch_size=100,
    verbose=0,
)
X, y = make_classification(
    4000, n_features=30, n_informative=12, n_classes=4, flip_y=0.2, random_state=0
)
X, y = X.astype(np.float32), y.astype(np.int64)  # as a net of skorch takes them
own = make_records(X[2000:], y[2000:])

# %%
# Train, attack, count
# --------------------
# The attack is RMIA with two reference models of the same recipe, trained on the
# attacker's own rows. The last setting of DP-SGD has hardly any noise, and no guarantee
# worth its name; beside it stands the same net without DP-SGD.


def at_one_percent(y_true, y_score):
    return tpr_at_fpr(y_true, y_score, fpr=0.01)


plain = clone(net).set_params(module__n_features=30, train_split=None, lr=1.0)
rows = []
for noise in (4.0, 1.0, 0.3, 0.1, 0.0):
    private = DPSGDClassifier(net, noise_multiplier=noise, random_state=0)
    recipe = private if noise else plain
    played = MembershipGame(recipe).play(X[:2000], y[:2000])[0]
    attack = RMIA(played.target, n_shadow_models=2).fit(own)
    scores = attack.decision_function(played.records)
    found = at_one_percent(played.membership, scores)
    low, high = bootstrap_interval(
        at_one_percent, played.membership, scores, n_bootstraps=200
    )
    epsilon = played.target.epsilon_ if noise else np.inf
    rows.append((epsilon, played.train_accuracy, played.test_accuracy, found, low, high))
    print(f"noise {noise}: epsilon {epsilon:.2f}, {played}, TPR@1%FPR {found:.3f}")

# %%
# On one axes
# -----------

epsilon, train, test, found, low, high = np.array(rows).T
at = np.arange(len(rows))  # the steps of epsilon are uneven: one place each
fig, ax = plt.subplots(figsize=(8, 5))
ax.plot(at, train, "o--", color="tab:gray", label="accuracy on members")
ax.plot(at, test, "o-", color="tab:blue", label="accuracy on others")
ax.plot(at, found, "s-", color="tab:red", label="members found at 1 % FPR (RMIA)")
ax.fill_between(at, low, high, color="tab:red", alpha=0.2, linewidth=0)
for x, share in zip(at, found, strict=True):
    ax.annotate(
        f"{share:.1%}", (x, share), (0, 8), textcoords="offset points", ha="center"
    )
ax.axhline(0.01, color="0.4", linestyle=":", label="members found by guessing: 1 %")
ax.set(
    ylim=(0, 1.05),
    xlabel="epsilon that the accountant guarantees (delta = 1e-5): smaller is safer",
    ylabel="share of rows",
    title="Less privacy, more accuracy, more members found",
)
ax.set_xticks(at, [f"{e:,.0f}" if np.isfinite(e) else "no DP-SGD" for e in epsilon])
ax.grid(alpha=0.3)
ax.legend(loc="center right", bbox_to_anchor=(1, 0.42), fontsize=9)
fig.tight_layout()

# %
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "dp_tradeoff.png", dpi=110)
    print(f"figure: {folder}/dp_tradeoff.png")
