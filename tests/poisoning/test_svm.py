"""Points against SVMs: the gradient against retraining, and what the points do."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_advsec.exceptions import NoGradientError
from sklearn_advsec.poisoning import LabelFlipping, SVMPoisoning
from sklearn_advsec.poisoning._points._svm import _Dual

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)[:, :6]
TRAIN, HELD = slice(0, 100), slice(100, 300)
EXACT = {"tol": 1e-9}


@pytest.mark.parametrize("share", [0.0, 0.3])  # its dual is at its bound, or below
@pytest.mark.parametrize(
    "machine",
    [
        SVC(kernel="linear", **EXACT),
        SVC(kernel="rbf", gamma=0.2, **EXACT),
        SVC(kernel="poly", degree=2, gamma=0.3, coef0=1.0, **EXACT),
    ],
    ids=lambda machine: machine.kernel,
)
def test_the_gradient_is_that_of_retraining(machine, share):
    signs = 2.0 * y - 1
    game = _Dual(machine, X[TRAIN], signs[TRAIN], 1.0, X[HELD], signs[HELD], seed=0)
    means = [X[TRAIN][y[TRAIN] == k].mean(0) for k in (0, 1)]
    point = (1 - share) * means[0] + share * means[1]
    game.loss(point)
    found, expected = game.slope(point), []
    for j in range(X.shape[1]):
        ends = []
        for h in (5e-4, -5e-4):
            moved = point.copy()
            moved[j] += h
            ends.append(game.loss(moved))
        expected.append((ends[0] - ends[1]) / 1e-3)
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=1e-4)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_points_harm_more_than_flips_of_as_many_rows(kernel):
    machine = SVC(kernel=kernel)
    held = X[HELD], y[HELD]
    attack = SVMPoisoning(machine, budget=8, max_iter=8, validation=held, random_state=0)
    X_new, labels = attack.fit_resample(X[TRAIN], y[TRAIN])
    assert (attack.losses_[:, 1] >= attack.losses_[:, 0]).all()
    assert attack.losses_[-1, 1] > 1.15 * attack.losses_[0, 0]

    def loss(rows, labels):
        decision = machine.fit(rows, labels).decision_function(X[300:])
        return np.maximum(0, 1 - (2 * y[300:] - 1) * decision).mean()

    flips = LabelFlipping(strategy="random", budget=8, random_state=0)
    flipped = loss(*flips.fit_resample(X[TRAIN], y[TRAIN]))
    assert loss(X_new, labels) > flipped > loss(X[TRAIN], y[TRAIN])


def test_three_classes_one_against_the_rest():
    rows, kinds = load_iris(return_X_y=True, as_frame=False)
    machine = SVC(kernel="linear")
    attack = SVMPoisoning(machine, budget=10, max_iter=4, random_state=0)
    X_new, labels = attack.fit_resample(rows, kinds)
    assert machine.fit(X_new, labels).score(rows, kinds) < machine.fit(rows, kinds).score(
        rows, kinds
    )


@pytest.mark.parametrize(
    "machine", [RidgeClassifier(), SVC(kernel="sigmoid"), SVC(class_weight="balanced")]
)
def test_other_surrogates_are_refused(machine):
    with pytest.raises(NoGradientError):
        SVMPoisoning(machine).fit(X, y)
