"""Extraction curves: fidelity against queries."""

import numpy as np
from sklearn.base import clone
from sklearn.utils._optional_dependencies import check_matplotlib_support

from ..exceptions import QueryBudgetExceeded


class ExtractionCurveDisplay:
    """Fidelity of copies against the number of queries they took.

    Use :meth:`from_estimator`.

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

    def __init__(self, n_queries, fidelity, *, name=None):
        self.n_queries = n_queries
        self.fidelity = fidelity
        self.name = name

    @classmethod
    def from_estimator(
        cls, attack, X, X_test=None, *, budgets, name=None, ax=None, **kwargs
    ):
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
        check_matplotlib_support("ExtractionCurveDisplay.from_estimator")
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

    def plot(self, ax=None, *, name=None, **kwargs):
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
        check_matplotlib_support("ExtractionCurveDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        name = self.name if name is None else name
        style = {"marker": "o", "markersize": 4, "label": name, **kwargs}
        (self.line_,) = ax.plot(self.n_queries, self.fidelity, **style)
        ax.set(
            xscale="log", xlabel="Queries", ylabel="Fidelity (agreement with the victim)"
        )
        if name is not None:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
