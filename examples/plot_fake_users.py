"""
=======================================
Fake users: what pushes items unnoticed
=======================================

Whoever can register users can tell a recommender what to show. Templates of the field
(random items, average ratings, popular items) move scores, and are obvious to anybody who
looks at profiles. Profiles that were learned from those of real users move them as well,
and look real. The bar for both are copies of real profiles, which cost nothing.
"""

# %%
# Ratings of two tastes
# ---------------------
# Users like one kind of items more than the other; some rate much, some are kind. Ratings
# are a sparse matrix: what is not stored is unknown.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array

from sklearn_advsec.poisoning import (
    DegreeOfSimilarity,
    FakeUsers,
    MatrixFactorization,
    PCAVarSelect,
    injection_report,
)

rng = np.random.default_rng(0)
n_users, n_items = 600, 150
taste, kind = rng.random(n_users) < 0.5, rng.random(n_items) < 0.5
like = np.equal.outer(taste, kind)
activity, popularity = rng.gamma(2.0, 0.08, n_users), rng.gamma(2.0, 0.5, n_items)
known = rng.random(like.shape) < np.outer(activity, popularity) * (0.4 + 1.2 * like)
opinion = (
    2.5 + 1.2 * like + rng.normal(0, 0.5, (n_users, 1)) + rng.normal(0, 0.4, n_items)
)
dense = known * np.rint(opinion + rng.normal(0, 0.7, like.shape)).clip(1, 5)
ratings = csr_array(dense[(dense > 0).sum(1) >= 5])
print(ratings.shape, ratings.nnz)

# %%
# Push five items that few users know
# -----------------------------------
# The recommender is retrained on what each attack returns, with a seed of its own. By how
# much do scores of the items rise among real users, how many of these get to see them,
# and how well does a cross-validated classifier tell fake profiles from real ones?

model = MatrixFactorization(n_factors=4, regularization=2.0)
items = np.argsort(np.bincount(ratings.indices, minlength=n_items))[:5]
strategies = ("random", "average", "bandwagon", "popular_average", "copied", "learned")
attacks = {
    strategy: FakeUsers(
        model, items=items, strategy=strategy, max_queries=25, random_state=0
    )
    for strategy in strategies
}
reports = {
    strategy: injection_report(model, attack, ratings, random_state=1)
    for strategy, attack in attacks.items()
}
for strategy, report in reports.items():
    print(
        f"{strategy:16} shift {report.prediction_shift:+.2f}, "
        f"HR@10 {report.clean_hit_rate:.2f} -> {report.hit_rate:.2f}, "
        f"AUC {report.realism:.2f}, {report.n_queries} queries"
    )

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for strategy, report in reports.items():
    ax.scatter(report.realism, report.prediction_shift)
    ax.annotate(
        strategy,
        (report.realism, report.prediction_shift),
        xytext=(-6, -3),
        textcoords="offset points",
        ha="right",
    )
ax.axvline(0.5, color="grey", linewidth=0.8, linestyle="--")
ax.annotate("guessing", (0.5, 0), (4, 4), textcoords=("offset points"), color="0.4")
ax.set(
    xlabel="how well fakes are told from real users (AUC)",
    ylabel="rise of the items' scores",
    xlim=(0.3, 1.05),
)

# %%
# What detectors find
# -------------------
# Two baselines of the field, on the same profiles: the share of fake users among the 5 %
# that each finds most suspicious. On sparse ratings the first finds none. The second sees
# that fake users agree on the items of the attack: with more of these it finds more.

for name in ("average", "copied", "learned"):
    poisoned = attacks[name].fit_resample(ratings)
    fake = attacks[name].poison_indices_
    for detector in (PCAVarSelect(), DegreeOfSimilarity()):
        scores = detector.fit(poisoned).scores_
        found = np.isin(np.argsort(-scores)[: len(fake)], fake).mean()
        print(f"{name:8} {type(detector).__name__:18} precision {found:.2f}")

# %%
# One user is enough for one item
# -------------------------------
# With a single fake user the shift is small, and yet no classifier can be trained to find
# the profile: there is nothing to learn from.

single = FakeUsers(model, items=items[:1], n_users=1, max_queries=15, random_state=0)
report = injection_report(model, single, ratings, random_state=1)
print(f"shift {report.prediction_shift:+.3f}, realism {report.realism}")
