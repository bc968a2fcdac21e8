"""
================================================
Audit a model: every threat in one call
================================================

How evadable, how stealable, how leaky and how poisonable is a model, and what would help?
One call answers, with an interval and a baseline for each figure.
"""

# %%
# A fitted model, the rows that it was trained on, and rows that it has not seen: that is
# all that an audit needs. It takes the attacks that the model allows; of this one, it can
# compute gradients, and prove how far predictions hold.

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec.audit import SecurityAudit

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
data = train_test_split(X, y, random_state=0)
X_train, X_test, y_train, y_test = data
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)

audit = SecurityAudit(FrozenEstimator(model)).fit(X_train, y_train, X_test, y_test)
for threat, sentence in audit.summary_.items():
    print(f"{threat}: {sentence}")

# %%
# Between attack and proof
# ------------------------
# The accuracy under attack is not above what attacks left, and not below what is proved.
# Where both lines meet, nothing is open.

evasion = audit.brackets_.query("threat == 'evasion'")
fig, ax = plt.subplots()
ax.plot(evasion["at"], evasion["upper"], marker="o", label="after all attacks")
ax.plot(evasion["at"], evasion["lower"], "--", marker="o", label="proved")
ax.fill_between(evasion["at"], evasion["lower"], evasion["upper"], alpha=0.2)
ax.set(
    xlabel="size of changes (Linf), as a share of each feature's range", ylabel="accuracy"
)
ax.legend()
plt.show()

# %%
# What was found, what was not tested, and what may help
# ------------------------------------------------------

columns = ["threat", "attack", "metric", "value", "low", "high", "baseline"]
figures = ["defense", "metric", "before", "after", "gain_low", "gain_high"]
print(audit.results_[columns].round(3).to_string())
print(audit.not_tested_.to_string())
print(audit.recommendations_[figures].to_string())

# %%
# Another model, side by side
# ---------------------------
# Does more regularisation leak less, and does it bear poison? Two of the threats say so:
# a verdict is given only where the intervals are apart. For a page, there is
# ``audit.to_html("audit.html")``, and ``assert_robust`` for a test of your own.

calmer = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(X_train, y_train)
other = SecurityAudit(FrozenEstimator(calmer), threats=("privacy", "poisoning"))
print(audit.compare(other.fit(X_train, y_train, X_test, y_test)))
