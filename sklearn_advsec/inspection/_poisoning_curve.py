"""Poisoning curves: what an attack reaches, and what a certificate allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from .._sklearn import check_matplotlib_support
from ._styles import CERTIFICATE, line_style, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..poisoning import (
        CertifiedPoisoningBound,
        PoisoningAttack,
        PoisoningReport,
    )


class PoisoningCurveDisplay:
    """Harm against the amount of poison: an attack's below, a certificate's above.

    Use :meth:`from_bound` for a fitted
    :class:`~sklearn_advsec.poisoning.CertifiedPoisoningBound`, :meth:`from_estimator` for
    a classifier, :meth:`from_result` for reports in hand, and :meth:`from_predictions`;
    the strongest attack lies between both curves.

    Parameters
    ----------
    amount : ndarray of shape (n_amounts,)
        How much poison.
    attack : ndarray of shape (n_amounts,)
        What the attack reaches.
    bound : ndarray of shape (n_amounts,), default=None
        What no attack exceeds.
    name : str, default=None
        The attack's name.
    xlabel, ylabel : str
        What is on the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        The curves.

    See Also
    --------
    sklearn_advsec.poisoning.poisoning_report : What is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_advsec.inspection import PoisoningCurveDisplay
    >>> from sklearn_advsec.poisoning import DeepPartitionAggregation, LabelFlipping
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = DeepPartitionAggregation(RidgeClassifier(), n_partitions=15)
    >>> attack = LabelFlipping(RidgeClassifier(), strategy="farthest")
    >>> display = PoisoningCurveDisplay.from_estimator(
    ...     model, attack, X[::2], y[::2], X[1::2], y[1::2], budgets=[0, 2, 4]
    ... )
    >>> bool((display.attack <= display.bound).all())
    True
    """

    def __init__(
        self,
        amount: np.ndarray,
        attack: np.ndarray,
        bound: np.ndarray | None = None,
        *,
        name: str | None = None,
        xlabel: str = "",
        ylabel: str = "",
    ) -> None:
        self.amount = amount
        self.attack = attack
        self.bound = bound
        self.name = name
        self.xlabel = xlabel
        self.ylabel = ylabel

    @classmethod
    def from_bound(
        cls, bound: CertifiedPoisoningBound, *, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw the training loss that a fitted bound allows, and that its poison causes.

        Parameters
        ----------
        bound : CertifiedPoisoningBound
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : PoisoningCurveDisplay
            The display.
        """
        check_matplotlib_support("PoisoningCurveDisplay.from_bound")
        display = cls(
            np.asarray(bound.eps, dtype=float),
            bound.attack_loss_,
            bound.upper_,
            name="poison that was found",
            xlabel="Poison, as a share of the clean rows",
            ylabel="Training loss",
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        poisoner: PoisoningAttack,
        X: ArrayLike,
        y: ArrayLike,
        X_test: ArrayLike,
        y_test: ArrayLike,
        *,
        budgets: list[int],
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Train on more and more poison, and draw the errors on clean test rows.

        For a classifier that certifies its predictions against poison, such as a
        :class:`~sklearn_advsec.poisoning.DeepPartitionAggregation`, the share of errors
        that the certificate of the clean training allows is drawn above.

        Parameters
        ----------
        estimator : classifier
            What is trained.
        poisoner : PoisoningAttack
            The attack; with ``estimator=None`` it takes `estimator` for its surrogate.
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Clean training rows.
        y : array-like of shape (n_samples,)
            Their labels.
        X_test : {array-like, DataFrame} of shape (n_test, n_features)
            Test rows.
        y_test : array-like of shape (n_test,)
            Their labels.
        budgets : list of int
            Values of the attack's `budget`, in rows.
        name : str, default=None
            The attack's name; by default that of its class.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : PoisoningCurveDisplay
            The display.
        """
        from ..poisoning import PoisonedClassifier  # with torch

        check_matplotlib_support("PoisoningCurveDisplay.from_estimator")
        budgets, errors, bound = np.sort(np.asarray(budgets, dtype=int)), [], None
        for budget in budgets:
            attack = clone(poisoner).set_params(budget=int(budget))
            poisoned = PoisonedClassifier(clone(estimator), attack).fit(X, y)
            errors.append(1 - poisoned.score(X_test, y_test))
        if hasattr(estimator, "certify"):
            certificate = clone(estimator).fit(X, y).certify(X_test)
            bound = 1 - np.array([certificate.accuracy(y_test, b) for b in budgets])
        display = cls(
            budgets,
            np.array(errors),
            bound,
            name=type(poisoner).__name__ if name is None else name,
            xlabel="Poisoned rows",
            ylabel="Test error",
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_result(
        cls,
        reports: dict[float, PoisoningReport],
        *,
        where: Literal["inside", "before_split"] = "inside",
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw how much of the score poison takes, from cross-validations in hand.

        Parameters
        ----------
        reports : dict of float to PoisoningReport
            What :func:`~sklearn_advsec.poisoning.poisoning_report` returned, by the
            amount of poison.
        where : {"inside", "before_split"}, default="inside"
            Where the poison got in.
        name : str, default=None
            The attack's name.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : PoisoningCurveDisplay
            The display.
        """
        check_matplotlib_support("PoisoningCurveDisplay.from_result")
        if where not in ("inside", "before_split"):
            raise ValueError(f"where must be 'inside' or 'before_split'; got {where!r}.")
        amounts, lost = sorted(reports), []
        for amount in amounts:
            poisoned = getattr(reports[amount], where)
            if poisoned is None:
                raise ValueError(f"The report for {amount} has no scores {where!r}.")
            lost.append(np.mean(reports[amount].clean - poisoned))
        display = cls(
            np.array(amounts, dtype=float),
            np.array(lost),
            name=name,
            xlabel="Amount of poison",
            ylabel="Score that is lost",
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        *,
        budgets: ArrayLike,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the errors of models that were trained on more and more poison.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels of clean test rows.
        y_pred : array-like of shape (n_budgets, n_samples)
            What each model says of them.
        budgets : array-like of shape (n_budgets,)
            How much poison each was trained on.
        name : str, default=None
            The attack's name.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : PoisoningCurveDisplay
            The display.
        """
        check_matplotlib_support("PoisoningCurveDisplay.from_predictions")
        y_true, budgets = np.asarray(y_true), np.asarray(budgets, dtype=float)
        y_pred = np.asarray(y_pred)
        if y_true.ndim != 1 or y_pred.shape != (len(budgets), len(y_true)):
            raise ValueError(
                f"y_pred must have shape {(len(budgets), len(y_true))}: a row for each "
                f"of the budgets, a column for each of y_true; got {y_pred.shape}."
            )
        order = np.argsort(budgets, kind="stable")
        display = cls(
            budgets[order],
            np.mean(y_pred != y_true, axis=1)[order],
            name=name,
            xlabel="Amount of poison",
            ylabel="Test error",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        name : str, default=None
            Label of the attack's curve.
        **kwargs : dict
            Passed to `Axes.plot` for the attack's curve.

        Returns
        -------
        display : PoisoningCurveDisplay
            The display.
        """
        ax = make_axes(ax, "PoisoningCurveDisplay.plot")
        name = self.name if name is None else name
        style = line_style(ax, kwargs, label=name)
        self.lines_ = ax.plot(self.amount, self.attack, **style)
        if self.bound is not None:
            color = self.lines_[0].get_color()
            self.lines_ += ax.plot(
                self.amount, self.bound, **CERTIFICATE, label="no attack exceeds"
            )
            ax.fill_between(
                self.amount, self.attack, self.bound, color=color, alpha=0.1, linewidth=0
            )
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        if name is not None:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
