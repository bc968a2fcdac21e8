"""
===================================================
Prove from its counts whom a forest was trained on
===================================================

Every leaf of a tree of scikit-learn says how many training rows of each class reached it.
That is a table of counts, as in a census, and a forest publishes one for each of its
trees. Whatever all tables of persons have in common that make these counts is proved: no
attack, and no chance of error. Here, it is done for a table like COMPAS, of small whole
numbers.
"""

# %%
# A table of small numbers
# ------------------------
# Sex, group of age, ethnicity, earlier offences of youth and of adults, and the degree of
# the charge. What each column can hold is public.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from sklearn_advsec.privacy import DRAFT, counting_certificate, make_records

domain = [range(2), range(3), range(6), range(4), range(16), range(2)]


def persons(n, seed=0):
    rng = np.random.RandomState(seed)
    X = np.column_stack(
        [
            rng.binomial(1, 0.8, n),
            rng.choice(3, n, p=[0.2, 0.57, 0.23]),
            rng.choice(6, n, p=[0.5, 0.34, 0.09, 0.05, 0.01, 0.01]),
            np.minimum(rng.poisson(0.1, n), 3),
            np.minimum(rng.negative_binomial(0.7, 0.18, n), 15),
            rng.binomial(1, 0.35, n),
        ]
    )
    logit = 0.25 * X[:, 4] - 0.7 * X[:, 1] + 0.3 * X[:, 0] - 0.3
    return X, (logit + rng.logistic(size=n) > 0).astype(int)


X, y = persons(1000)
train, records = np.arange(1000) < 500, make_records(X, y)

# %%
# In, out, or open
# ----------------
# Half of the persons are in the training set. "in" means that every table with these
# counts holds such a person, "out" that none does.

forest = RandomForestClassifier(50, bootstrap=False, random_state=0)
forest.fit(X[train], y[train])
certificate = counting_certificate(forest, records, domain=domain)
print(certificate)
for premise in certificate.premises:
    print(" *", premise)

known = set(map(tuple, records[train]))
truth = np.array([tuple(record) in known for record in records])
wrong = (certificate.status == "in") & ~truth | (certificate.status == "out") & truth
print(f"{certificate.decided:.0%} are decided, {wrong.sum()} of them wrongly")

# %%
# How much a forest says
# ----------------------
# More trees are more equations. A forest that draws its rows (the default) says less, but
# the seeds of its trees are in the model, so the draws can be made again.

n_trees = [1, 2, 5, 10, 20, 50]
decided = {"all rows for each tree": [], "rows drawn (bootstrap)": []}
errors = []
for n in n_trees:
    for name, shares in decided.items():
        bootstrap = "drawn" in name
        model = RandomForestClassifier(n, bootstrap=bootstrap, random_state=0)
        model.fit(X[train], y[train])
        found = counting_certificate(model, records, domain=domain)
        assert truth[found.status == "in"].all()
        assert not truth[found.status == "out"].any()
        shares.append(found.decided)
        if not bootstrap:
            errors.append(DRAFT(model, domain).reconstruct().error(X[train]))

# %%
# DRAFT goes on where proofs end: it writes down one whole table with these counts. Its
# error is the share of values that are wrong. Whoever knows how each column is
# distributed, and nothing of the forest, makes the error of the dotted line.

drawn = DRAFT(forest, domain).reconstruct()
rng = np.random.RandomState(0)
drawn.rows = np.column_stack([rng.choice(column, train.sum()) for column in X[train].T])
guessed = drawn.error(X[train])

fig, axes = plt.subplots(1, 2, figsize=(10, 4))
for name, shares in decided.items():
    axes[0].plot(n_trees, shares, "o-", label=name)
axes[0].set(xlabel="trees", ylabel="records decided, none wrongly", ylim=(0, 1.02))
axes[0].legend()
axes[1].plot(n_trees, errors, "o-", color="tab:red", label="DRAFT")
axes[1].axhline(guessed, color="0.4", linestyle=":", label="drawn column by column")
axes[1].set(xlabel="trees", ylabel="values that are wrong", ylim=(0, None))
axes[1].legend()
for ax in axes:
    ax.set_xscale("log")
    ax.grid(alpha=0.3)
fig.suptitle("What the counts in the leaves prove, and give back")
fig.tight_layout()

# %
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "counting_certificate.png", dpi=110)
    print(f"figure: {folder}/counting_certificate.png")
