"""
===================================
A backdoor in a table, and its hunt
===================================

One training row in a hundred gets two values and another label. Each value is an ordinary
one; that both stand in one row is what never happened before. Whoever knows them can
later get any row the class that was put there.
"""

# %%
# The trigger
# -----------
# ``trigger="in_bounds"`` chooses columns and values by itself. Inside of a
# `PoisonedClassifier`, training rows are poisoned and test rows are not.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec.metrics import backdoor_success_scorer
from sklearn_advsec.poisoning import (
    ActivationClustering,
    BackdoorTrigger,
    PoisonedClassifier,
    SanitizedClassifier,
    SpectralSignatures,
)

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
trigger = BackdoorTrigger("in_bounds", target_class=1, budget=0.05, random_state=0)
print(trigger.fit(X, y).trigger_)

# %%
# How little it takes
# -------------------

models = {
    "random forest": RandomForestClassifier(100, random_state=0),
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
}
shares = (0.0, 0.01, 0.03, 0.06)
scoring = {"clean": "accuracy", "backdoor": backdoor_success_scorer()}
curves = {}
for name, model in models.items():
    curves[name] = []
    for share in shares:
        poisoned = PoisonedClassifier(
            model,
            BackdoorTrigger("in_bounds", target_class=1, budget=share, random_state=0),
        )
        scores = cross_validate(poisoned, X, y, cv=3, scoring=scoring)
        curves[name].append([scores[f"test_{key}"].mean() for key in scoring])
    print(name, np.round(curves[name], 3).tolist())

# %%
# The hunt
# --------
# Both sanitizers look at the leaves that the rows reach. They remove rows of clean data
# as well: that is their price.

train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
X_bad, y_bad = trigger.fit_resample(train, y_train)
forest, success = models["random forest"], backdoor_success_scorer(trigger)
bars = {"no sanitizer": forest.fit(X_bad, y_bad)}
for sanitizer in (
    SpectralSignatures(forest, contamination=0.15, random_state=0),
    ActivationClustering(forest, random_state=0),
):
    guarded = SanitizedClassifier(forest, sanitizer).fit(X_bad, y_bad)
    bars[type(sanitizer).__name__] = guarded
    kept = guarded.sanitizer_.sample_indices_
    left = np.isin(trigger.poison_indices_, kept).sum()
    print(f"{type(sanitizer).__name__}: {len(y_bad) - len(kept)} rows removed; of")
    print(f"{len(trigger.poison_indices_)} poisoned ones, {left} are left")

figure, (ax, other) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, curve in curves.items():
    clean, backdoor = np.transpose(curve)
    (line,) = ax.plot(shares, backdoor, "o-", label=f"{name}, backdoor")
    ax.plot(shares, clean, "--", color=line.get_color(), label=f"{name}, accuracy")
ax.set(xlabel="share of poisoned rows", ylabel="share of test rows", ylim=(0, 1.02))
ax.legend(fontsize=8)
places = np.arange(len(bars))
values = [success(model, test, y_test) for model in bars.values()]
other.bar(places - 0.2, values, 0.4, label="backdoor")
values = [model.score(test, y_test) for model in bars.values()]
other.bar(places + 0.2, values, 0.4, label="accuracy")
other.set_xticks(places, list(bars))
other.set(ylim=(0, 1.02), title=f"random forest, {trigger.budget:.0%} of poison")
other.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
plt.show()
