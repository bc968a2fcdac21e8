"""The ROC curve of membership attacks, on logarithmic axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import auc, roc_curve
from sklearn.utils.validation import check_is_fitted

from ..metrics._membership import _check
from ._styles import line_style, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..privacy import MembershipRound


class MembershipRocDisplay:
    """ROC curves of membership attacks with both axes logarithmic.

    On linear axes, attacks that name a few members with certainty look like guessing.
    Use :meth:`from_estimator`, :meth:`from_result` or :meth:`from_predictions`; for
    several attacks in one axes, pass ``ax=display.ax_`` to the next call.

    Parameters
    ----------
    fpr : ndarray of shape (n_thresholds,)
        False positive rates, increasing.
    tpr : ndarray of shape (n_thresholds,)
        True positive rates.
    n_non_members : int
        Number of non-members: rates below ``1 / n_non_members`` cannot be told from 0.
    name : str, default=None
        Name of the attack, for the legend.

    Attributes
    ----------
    roc_auc : float
        The area under the curve (on linear axes).
    line_ : matplotlib Line2D
        The curve.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        Its figure.

    See Also
    --------
    sklearn_advsec.metrics.tpr_at_fpr : One point of the curve.
    sklearn_advsec.metrics.roc_auc_interval : The area, with its interval.

    References
    ----------
    .. [1] N. Carlini et al., "Membership inference attacks from first principles",
       arXiv:2112.03570 (Section III and Figure 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.inspection import MembershipRocDisplay
    >>> scores = np.r_[np.linspace(0, 1, 1000), np.linspace(0.5, 1.5, 1000)]
    >>> display = MembershipRocDisplay.from_predictions(np.arange(2000) >= 1000, scores)
    >>> round(display.roc_auc, 3)
    0.875
    """

    def __init__(
        self,
        fpr: np.ndarray,
        tpr: np.ndarray,
        n_non_members: int,
        name: str | None = None,
    ) -> None:
        self.fpr = fpr
        self.tpr = tpr
        self.n_non_members = n_non_members
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        attack: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of a fitted attack.

        Parameters
        ----------
        attack : membership attack
            Fitted.
        X : {array-like, DataFrame} of shape (n_records, n_columns)
            Records to judge.
        y : array-like of shape (n_records,)
            Their true membership.
        name : str, default=None
            Name in the legend; None is the class name.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.
        **kwargs : dict
            For `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : MembershipRocDisplay
            The display.
        """
        check_is_fitted(attack)
        name = type(attack).__name__ if name is None else name
        scores = attack.decision_function(X)
        return cls.from_predictions(y, scores, name=name, ax=ax, **kwargs)

    @classmethod
    def from_result(
        cls,
        result: MembershipRound,
        attack: Any,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw how well a fitted attack tells who was in a round of the game.

        Parameters
        ----------
        result : MembershipRound
            A target, records, and who of them was in its training set.
        attack : membership attack
            Fitted, on records of its own or on some of the round's.
        name : str, default=None
            Name in the legend; None is the class name.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.
        **kwargs : dict
            For `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : MembershipRocDisplay
            The display.
        """
        records, member = result.records, result.membership
        return cls.from_estimator(attack, records, member, name=name, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_score: ArrayLike,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of given scores.

        Parameters
        ----------
        y_true : array-like of shape (n_records,)
            Membership: two values, of which the larger stands for members.
        y_score : array-like of shape (n_records,)
            Scores, larger for members.
        name : str, default=None
            Name in the legend.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.
        **kwargs : dict
            For `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : MembershipRocDisplay
            The display.
        """
        y_true, y_score = _check(y_true, y_score)
        # Points that are in line with others on linear axes are not on logarithmic ones.
        fpr, tpr, _ = roc_curve(y_true, y_score, drop_intermediate=False)
        return cls(fpr, tpr, int((~y_true).sum()), name).plot(ax=ax, **kwargs)

    @property
    def roc_auc(self) -> float:
        """The area under the curve."""
        return float(auc(self.fpr, self.tpr))

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.
        name : str, default=None
            Name in the legend, instead of its own.
        **kwargs : dict
            For `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : MembershipRocDisplay
            The display itself.
        """
        ax = make_axes(ax, f"{type(self).__name__}.plot")
        # A rate of 0 has no logarithm; it is drawn at half of the smallest one.
        left = 0.5 / self.n_non_members
        low = min(left, self.tpr[self.tpr > 0].min() / 2)
        bottom = min(low, ax.get_ylim()[0]) if ax.get_yscale() == "log" else low
        if not ax.lines:
            guess = np.geomspace(left, 1, 50)
            ax.plot(guess, guess, color="0.6", linestyle=":", label="guessing")
        name, label = self.name if name is None else name, f"AUC {self.roc_auc:.3f}"
        label = f"{name}, {label}" if name else label
        kwargs = line_style(ax, kwargs, markevery=0.1, label=label)
        fpr, tpr = np.maximum(self.fpr, left), np.maximum(self.tpr, low)
        (self.line_,) = ax.plot(fpr, tpr, drawstyle="steps-post", **kwargs)
        ax.set(
            xscale="log",
            yscale="log",
            xlim=(left, 1),
            ylim=(bottom, 1.1),
            xlabel="False positive rate (non-members called members)",
            ylabel="True positive rate (members found)",
        )
        ax.legend(loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self
