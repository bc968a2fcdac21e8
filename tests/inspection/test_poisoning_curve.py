"""Poisoning curves: attacks stay below certificates."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import RidgeClassifier

from sklearn_advsec.inspection import PoisoningCurveDisplay
from sklearn_advsec.poisoning import (
    CertifiedPoisoningBound,
    DeepPartitionAggregation,
    LabelFlipping,
    PoisoningReport,
)

X, y = load_breast_cancer(return_X_y=True)


def test_a_bound_is_drawn_above_its_attack():
    bound = CertifiedPoisoningBound(eps=(0.01, 0.1), max_iter=30).fit(X / 1000, y)
    display = PoisoningCurveDisplay.from_bound(bound)
    lower, upper = (line.get_ydata() for line in display.lines_)
    assert (lower <= upper).all() and display.ax_.get_ylabel() == "Training loss"
    attack, proof = display.lines_  # told apart where they coincide, without colours too
    assert attack.get_color() != proof.get_color()
    assert attack.get_marker() != proof.get_marker()
    assert attack.get_linewidth() > proof.get_linewidth()
    assert attack.get_zorder() < proof.get_zorder()
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


def test_reports_and_predictions_in_hand_are_drawn():
    clean = np.array([0.9, 0.8])
    reports = {
        0.2: PoisoningReport(clean, inside=np.array([0.5, 0.6])),
        0.1: PoisoningReport(clean, inside=clean, before_split=clean - 0.2),
    }
    display = PoisoningCurveDisplay.from_result(reports, name="flips")
    np.testing.assert_allclose(display.attack, [0.0, 0.3])
    assert display.amount.tolist() == [0.1, 0.2]
    assert display.lines_[0].get_label() == "flips"
    with pytest.raises(ValueError, match="for 0.2 has no scores 'before_split'"):
        PoisoningCurveDisplay.from_result(reports, where="before_split")
    with pytest.raises(ValueError, match="where must be"):
        PoisoningCurveDisplay.from_result(reports, where="outside")
    display = PoisoningCurveDisplay.from_predictions(
        ["a", "b"], [["b", "b"], ["a", "b"]], budgets=[5, 0], ax=display.ax_
    )
    assert display.amount.tolist() == [0, 5] and display.attack.tolist() == [0, 0.5]
    with pytest.raises(ValueError, match=r"must have shape \(2, 2\)"):
        PoisoningCurveDisplay.from_predictions(["a", "b"], [["b", "b"]], budgets=[5, 0])
