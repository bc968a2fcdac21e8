"""
=======================================
What a copy costs: fidelity and queries
=======================================

Five attackers steal the same logistic regression of handwritten digits. It answers in
four ways: with its probabilities, with probabilities rounded to two decimals, bent by a
reverse sigmoid, and with labels only. Fidelity is measured on rows that no attacker saw.
"""

# %%
# Victim, attackers, defenses
# ---------------------------

import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from sklearn_advsec.extraction import (
    ActiveExtraction,
    CopycatCNN,
    EquationSolving,
    JacobianSubstitute,
    KnockoffNets,
    LabelsOnly,
    ReverseSigmoid,
    RoundedProbabilities,
)
from sklearn_advsec.inspection import ExtractionCurveDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X, X_rest, y, _ = train_test_split(X, y, test_size=0.6, random_state=0, stratify=y)
X_pool, X_test = X_rest[:600], X_rest[600:]
victim = LogisticRegression(C=10, max_iter=1000).fit(X, y)
frozen = FrozenEstimator(victim)

defenses = {
    "Probabilities": frozen,
    "Rounded to 2 decimals": FrozenEstimator(RoundedProbabilities(frozen).fit(X)),
    "Reverse sigmoid": FrozenEstimator(ReverseSigmoid(frozen).fit(X)),
    "Labels only": FrozenEstimator(LabelsOnly(frozen).fit(X)),
}

surrogate = LogisticRegression(C=10, max_iter=1000)
attackers = {
    "EquationSolving": lambda v: EquationSolving(v),
    "KnockoffNets": lambda v: KnockoffNets(v, surrogate=surrogate),
    "CopycatCNN": lambda v: CopycatCNN(v, surrogate=surrogate),
    "ActiveExtraction": lambda v: ActiveExtraction(v, surrogate=surrogate),
    "JacobianSubstitute": lambda v: JacobianSubstitute(
        v, surrogate=surrogate, step_size=0.1, flip_every=1, n_rounds=6
    ),
}

# %%
# Curves
# ------
# Each curve pays for its largest budget only: smaller ones are on the way.

budgets = {
    "EquationSolving": [65, 650],
    "KnockoffNets": [30, 100, 250, 600],
    "CopycatCNN": [30, 100, 250, 600],
    "ActiveExtraction": [30, 100, 250, 600],
    "JacobianSubstitute": [50, 150, 300, 600],
}
fig, axes = plt.subplots(
    2, 2, figsize=(10, 7.5), sharex=True, sharey=True, layout="constrained"
)
for ax, (defense, served) in zip(axes.flat, defenses.items(), strict=True):
    for name, make in attackers.items():
        pool = X_pool[:50] if name == "JacobianSubstitute" else X_pool
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ten answers may all be the same
            ExtractionCurveDisplay.from_estimator(
                make(served), pool, X_test, budgets=budgets[name], name=name, ax=ax
            )
    ax.set_title(defense)
    ax.axhline(1, color="0.7", lw=0.8, zorder=0)
    ax.get_legend().remove()
    ax.set_xticks([30, 65, 150, 300, 600], labels=["30", "65", "150", "300", "600"])
    ax.minorticks_off()
    ax.label_outer()
axes[0, 0].set_ylim(0.3, 1.03)
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=5)

# %%
# Where probabilities are exact, 65 queries give the model itself. Rounding makes that ten
# times as many queries, not a worse copy. The reverse sigmoid misleads those who solve
# equations or train on the probabilities; whoever looks at labels only is not misled.
# From labels, equations take tens of thousands of queries (off the axis), but a good copy
# is as cheap as before; KnockoffNets, which then has labels only, is CopycatCNN.

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "extraction_budget.png", dpi=110)
    print(f"figure: {folder}/extraction_budget.png")
