"""
============================================
Who was in the training set? Membership ROCs
============================================

A classifier that knows its training rows by heart gives away which rows those were. How
much it gives away shows at small false positive rates only: an attacker who is sure of a
few members has found something, one who is slightly better than a coin on everybody has
not. So ROC curves of membership attacks are drawn on logarithmic axes.
"""

# %%
# A target, and records to judge
# ------------------------------
# The target is trained on half of the rows until it makes no mistake on them.
# :class:`~sklearn_advsec.privacy.MembershipGame` draws the members and hands over all
# rows as *records*: features, and the label in the last column. The attacker has as many
# rows of its own, which the target has never seen.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score
from sklearn.neural_network import MLPClassifier

from sklearn_advsec.inspection import MembershipRocDisplay
from sklearn_advsec.metrics import bootstrap_interval, clopper_pearson, tpr_at_fpr
from sklearn_advsec.privacy import (
    RMIA,
    GapAttack,
    LikelihoodRatio,
    LossThreshold,
    MembershipGame,
    ShadowModels,
    make_records,
)

X, y = make_classification(
    4000, n_features=40, n_informative=15, n_classes=5, flip_y=0.1, random_state=0
)
recipe = MLPClassifier((64,), max_iter=80, batch_size=50, learning_rate_init=3e-3)
played = MembershipGame(recipe).play(X[:2000], y[:2000])[0]
own = make_records(X[2000:], y[2000:])
print(played)

# %%
# Six attacks
# -----------
# All are binary classifiers over records, with the target as their first argument. None
# is told who is a member. The online attack trains shadow models on the very records
# that it judges (half of them each), the others on the attacker's own.

attacks = {
    "gap": GapAttack(played.target).fit(own),
    "loss threshold": LossThreshold(played.target).fit(own),
    "shadow models": ShadowModels(played.target, n_shadow_models=8).fit(own),
    "RMIA": RMIA(played.target, n_shadow_models=16).fit(own),
    "LiRA offline": LikelihoodRatio(played.target, n_shadow_models=32).fit(own),
    "LiRA online": LikelihoodRatio(played.target, n_shadow_models=32, mode="online").fit(
        played.records
    ),
}

fig, ax = plt.subplots(figsize=(7, 6))
for name, attack in attacks.items():
    MembershipRocDisplay.from_estimator(
        attack, played.records, played.membership, name=name, ax=ax
    )
ax.axvline(0.01, color="0.4", linewidth=1, linestyle="--")
ax.text(0.0105, 6e-4, "1 % false positives", color="0.3", fontsize=9)
ax.set_title("Members found, by false positives allowed")
ax.grid(alpha=0.3)
ax.legend(loc="lower right", bbox_to_anchor=(0.93, 0.05), fontsize=9)
fig.tight_layout()

# %%
# With intervals
# --------------
# One per cent of 1000 non-members is ten records. What rests on ten records needs an
# interval.


def at_one_percent(y_true, y_score):
    return tpr_at_fpr(y_true, y_score, fpr=0.01)


print("                 TPR at 1 % FPR      balanced accuracy at its own threshold")
for name, attack in attacks.items():
    scores = attack.decision_function(played.records)
    found = at_one_percent(played.membership, scores)
    if found:
        low, high = bootstrap_interval(
            at_one_percent, played.membership, scores, n_bootstraps=200
        )
    else:  # there is nothing to resample
        low, high = clopper_pearson(0, int(played.membership.sum()))
    print(
        f"{name:15}  {found:.3f} "
        f"({low:.3f}-{high:.3f})  "
        f"{balanced_accuracy_score(played.membership, scores > 0):.3f}"
    )

# %
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "membership_roc.png", dpi=110)
    print(f"figure: {folder}/membership_roc.png")
