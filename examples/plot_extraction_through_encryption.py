"""
========================================
What encryption does not hide: the model
========================================

Encryption keeps rows from the server. It does not keep the model from the client: whoever
gets scores can solve for the weights, and tell members of the training set from others,
just as without encryption. Labels and rounding are what stands in the way.
"""

# %%
# An encrypted service that hands out scores
# ------------------------------------------

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

try:
    import tenseal  # noqa: F401
except ImportError:
    sys.exit('This example needs TenSEAL: pip install "sklearn_advsec[fhe]"')

from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec.encryption import EncryptedClassifier
from sklearn_advsec.extraction import EquationSolving, LabelsOnly, RoundedProbabilities
from sklearn_advsec.privacy import LossThreshold, make_records

X, y = load_breast_cancer(return_X_y=True)
X = X[:, :8]
model = make_pipeline(StandardScaler(), LogisticRegression(C=100, max_iter=1000))
model.fit(X[:60], y[:60])
service = EncryptedClassifier(
    FrozenEstimator(model), packing="columns", precision=1e-5, decimals=6
).fit(X)
print("probabilities that were computed encrypted:", service.predict_proba(X[:2]))

# %%
# The weights, solved for
# -----------------------
# Nine unknowns take a few more than nine queries. Rounded probabilities cost the attacker
# accuracy, labels cost many more queries.

names, fidelity, queries, error = [], [], [], []
for name, victim in {
    "6 decimals": service,
    "2 decimals": RoundedProbabilities(FrozenEstimator(service), decimals=2).fit(X, y),
    "labels only": LabelsOnly(FrozenEstimator(service)).fit(X, y),
}.items():
    budget = 400 if name == "labels only" else 40
    attack = EquationSolving(FrozenEstimator(victim), max_queries=budget).fit(X)
    names.append(name)
    fidelity.append(float(np.mean(attack.predict(X) == model.predict(X))))
    queries.append(attack.n_queries_)
    print(f"{name}: {attack.n_queries_} queries, {fidelity[-1]:.3f} of labels equal")
    if name != "labels only":  # of which the copy has no probabilities
        difference = attack.predict_proba(X) - model.predict_proba(X)
        error.append(float(np.abs(difference).max()))
        print(f"probabilities of the copy are off by {error[-1]:.1g}")

# %%
# Members of the training set
# ---------------------------
# The loss tells who was trained on, through the encryption as without it.

records = make_records(X[:120], y[:120])
members = np.arange(120) < 60
areas = {}
for name, target in (("in the clear", model), ("through encryption", service)):
    attack = LossThreshold(FrozenEstimator(target)).fit(records)
    areas[name] = roc_auc_score(members, attack.decision_function(records))
    print(f"membership, {name}: AUC {areas[name]:.3f}")

# %%
# What rounding and labels cost the attacker
# ------------------------------------------
# Each copy says the same labels as the model; how many answers it took, and how far its
# probabilities are off, depends on what was answered.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for ax, values, title in zip(
    axes,
    (queries, error),
    ("queries", "largest error of a copy's probability"),
    strict=True,
):
    bars = ax.bar(names[: len(values)], values, color="0.6")
    ax.bar_label(bars, fmt="%.2g" if values is error else "%d")
    ax.set(title=title, yscale="log", yticks=[])
    ax.minorticks_off()
    ax.margins(y=0.15)
figure.suptitle(
    f"Copies stolen through encryption: at least {min(fidelity):.1%} of labels are equal"
)

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "extraction_through_encryption.png", dpi=110)
    print(f"figure: {folder}/extraction_through_encryption.png")
