"""Extraction curves: fidelity against queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from .._labels import as_labels
from ..exceptions import QueryBudgetExceeded
from ._styles import line_style, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ExtractionCurveDisplay:
    """Fidelity of copies against the number of queries they took.

    Use :meth:`from_estimator`, :meth:`from_result` or :meth:`from_predictions`.

    Parameters
    ----------
    n_queries : ndarray of shape (n_budgets,)
        Number of queries that were made.
    fidelity : ndarray of shape (n_budgets,)
        Fidelity of the copy that they gave; NaN where the budget did not do.
    name : str, default=None
        The attack's name.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    line_ : matplotlib Line2D
        The curve.

    See Also
    --------
    sklearn_advsec.extraction.ExtractionAttack : What is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import KnockoffNets
    >>> from sklearn_advsec.inspection import ExtractionCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = FrozenEstimator(LogisticRegression(max_iter=500).fit(X, y))
    >>> display = ExtractionCurveDisplay.from_estimator(
    ...     KnockoffNets(victim), X, budgets=[20, 60]
    ... )
    >>> display.n_queries
    array([20, 60])
    """

    def __init__(
        self, n_queries: np.ndarray, fidelity: np.ndarray, *, name: str | None = None
    ) -> None:
        self.n_queries = n_queries
        self.fidelity = fidelity
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        attack: Any,
        X: ArrayLike,
        X_test: ArrayLike | None = None,
        *,
        budgets: list[int],
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Run an attack with several budgets, and draw the curve.

        Where the attack can go on with answers that are paid for (`warm_start`), it does:
        the victim is then asked for the largest budget only.

        Parameters
        ----------
        attack : extraction attack
            The attack; a clone is used. Its victim is a `FrozenEstimator`, or remote.
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            The attacker's rows.
        X_test : {array-like, DataFrame} of shape (n_test, n_features), default=None
            Rows on which copy and victim are compared; `X` by default.
        budgets : list of int
            Values of `max_queries`. One that does not do for the attack gives NaN.
        name : str, default=None
            The attack's name; by default that of its class.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : ExtractionCurveDisplay
            The display.
        """
        ax = make_axes(ax, "ExtractionCurveDisplay.from_estimator")
        X_test = X if X_test is None else X_test
        attack = clone(attack).set_params(warm_start=True)
        queries, fidelity = [], []
        for budget in sorted(budgets):
            try:
                attack.set_params(max_queries=int(budget)).fit(X)
                queries.append(attack.n_queries_)
                fidelity.append(attack.fidelity(X_test))
            except QueryBudgetExceeded:
                queries.append(int(budget))
                fidelity.append(np.nan)
        name = type(attack).__name__ if name is None else name
        display = cls(np.array(queries), np.array(fidelity), name=name)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_result(
        cls,
        copies: list[Any],
        X_test: ArrayLike,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of copies that were stolen already.

        Parameters
        ----------
        copies : list of extraction attacks
            Fitted, each with a budget of its own.
        X_test : {array-like, DataFrame} of shape (n_test, n_features)
            Rows on which copies and victim are compared; the victim is asked about them.
        name : str, default=None
            The attack's name; by default that of its class.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `Axes.plot`.

        Returns
        -------
        display : ExtractionCurveDisplay
            The display.
        """
        ax = make_axes(ax, "ExtractionCurveDisplay.from_result")
        if not len(copies):
            raise ValueError("copies is empty: give fitted extraction attacks.")
        for copy in copies:
            check_is_fitted(copy)
        copies = sorted(copies, key=lambda copy: copy.n_queries_)
        name = type(copies[0]).__name__ if name is None else name
        n_queries = np.array([copy.n_queries_ for copy in copies])
        fidelity = np.array([copy.fidelity(X_test) for copy in copies])
        return cls(n_queries, fidelity, name=name).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_victim: ArrayLike,
        y_copies: ArrayLike,
        *,
        n_queries: ArrayLike,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of predictions that copies made.

        Parameters
        ----------
        y_victim : array-like of shape (n_rows,)
            What the victim predicts.
        y_copies : array-like of shape (n_budgets, n_rows)
            What the copy of each budget predicts for the same rows.
        n_queries : array-like of int, shape (n_budgets,)
            Number of queries that each copy took, increasing.
        name : str, default=None
            Label of the curve.
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        **kwargs : dict
            Passed to `Axes.plot`.

        Returns
        -------
        display : ExtractionCurveDisplay
            The display.
        """
        ax = make_axes(ax, "ExtractionCurveDisplay.from_predictions")
        y_victim, n_queries = as_labels(y_victim, "y_victim"), column_or_1d(n_queries)
        if n_queries.dtype.kind not in "iu" or (n_queries < 1).any():
            raise ValueError(
                "n_queries must be a whole number of queries for each copy; got "
                f"{n_queries[:5].tolist()}."
            )
        shape = len(n_queries), len(y_victim)
        y_copies = as_labels(y_copies, "y_copies", shape)
        fidelity = (y_copies == y_victim).mean(axis=1)
        return cls(n_queries, fidelity, name=name).plot(ax=ax, **kwargs)

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; by default on a new figure.
        name : str, default=None
            Label of the curve.
        **kwargs : dict
            Passed to `Axes.plot`.

        Returns
        -------
        display : ExtractionCurveDisplay
            The display.
        """
        ax = make_axes(ax, "ExtractionCurveDisplay.plot")
        name = self.name if name is None else name
        style = line_style(ax, kwargs, label=name)
        (self.line_,) = ax.plot(self.n_queries, self.fidelity, **style)
        failed = self.n_queries[np.isnan(self.fidelity)]
        if len(failed):  # at the bottom, whatever the range of the axis
            ax.scatter(
                failed,
                np.full(len(failed), 0.02),
                marker="x",
                color=self.line_.get_color(),
                transform=ax.get_xaxis_transform(),
                label="no copy for so few",
            )
        ax.set(
            xscale="log", xlabel="Queries", ylabel="Fidelity (agreement with the victim)"
        )
        if name is not None:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
