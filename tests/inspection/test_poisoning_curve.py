"""Poisoning curves: attacks stay below certificates."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import RidgeClassifier

from sklearn_advsec.inspection import PoisoningCurveDisplay
from sklearn_advsec.poisoning import (
    CertifiedPoisoningBound,
    DeepPartitionAggregation,
    LabelFlipping,
)

X, y = load_breast_cancer(return_X_y=True)


def test_a_bound_is_drawn_above_its_attack():
    bound = CertifiedPoisoningBound(eps=(0.01, 0.1), max_iter=30).fit(X / 1000, y)
    display = PoisoningCurveDisplay.from_bound(bound)
    lower, upper = (line.get_ydata() for line in display.lines_)
    assert (lower <= upper).all() and display.ax_.get_ylabel() == "Training loss"
    plt.close(display.figure_)


def test_errors_stay_below_what_a_certificate_allows():
    model = DeepPartitionAggregation(RidgeClassifier(), n_partitions=15)
    attack = LabelFlipping(RidgeClassifier(), strategy="farthest")
    display = PoisoningCurveDisplay.from_estimator(
        model, attack, X[::2], y[::2], X[1::2], y[1::2], budgets=[4, 0, 2]
    )
    assert display.amount.tolist() == [0, 2, 4]
    assert (display.attack <= display.bound).all() and display.bound[2] > display.bound[0]
    plain = PoisoningCurveDisplay.from_estimator(
        RidgeClassifier(), attack, X, y, X, y, budgets=[0, 60], ax=display.ax_, name="r"
    )
    assert plain.bound is None and len(plain.lines_) == 1
    assert np.isfinite(plain.attack).all() and plain.attack[1] > plain.attack[0]
    plt.close(display.figure_)
