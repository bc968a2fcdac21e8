"""Every public estimator once, as the common checks construct it."""

from nets import net
from sklearn.linear_model import LogisticRegression

from sklearn_advsec import defense, evasion

VICTIM = LogisticRegression()

EVASION = [
    evasion.BasicIterativeMethod(VICTIM),
    evasion.FastGradientMethod(VICTIM),
    evasion.IterativeLeastLikely(VICTIM),
    evasion.ProjectedGradientDescent(VICTIM),
]

DEFENSE = [
    defense.AdversarialTrainingClassifier(VICTIM, n_rounds=1, random_state=0),
    defense.AdversarialTrainingClassifier(
        net(max_epochs=5),
        evasion.ProjectedGradientDescent(eps=0.05, max_iter=2),
        random_state=0,
    ),
]

FAMILIES = {evasion: EVASION, defense: DEFENSE}

# Public names that are no estimators, or that scikit-learn's checks cannot construct.
NOT_CHECKED = {"EvasionResult": "a result"}

# A check that an estimator cannot pass, with the reason.
EXPECTED_FAILURES = {}
