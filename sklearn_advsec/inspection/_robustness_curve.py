"""Robustness curves: accuracy against the size of the perturbation."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from .._estimators import abstain_label
from .._labels import as_labels
from .._seeding import undisturbed
from .._sklearn import Interval, _safe_indexing, check_parameters
from ._styles import CERTIFICATE, line_style, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..defense import Certificate
    from ..evasion import EvasionResult

_UNITS = {
    "feature": "the features",
    "std": "the features' standard deviation",
    "range": "the features' range",
    "iqr": "the features' interquartile range",
    "scale": "the constraints' scale",
}
_NORM_NAMES = {np.inf: "Linf", 2: "L2", 1: "L1", 0: "L0"}


_LEVEL = {"level": [Interval(Real, 0, 1, closed="neither")]}


class RobustnessCurveDisplay:
    """Accuracy against the size of the perturbation that is allowed.

    Use :meth:`from_estimator`, :meth:`from_result` or :meth:`from_predictions`; for
    several models in one axes, pass ``ax=display.ax_`` to the next call.

    Parameters
    ----------
    eps : ndarray of shape (n_eps,)
        The bounds on the perturbation, increasing.
    accuracy : dict of str to ndarray of shape (n_eps,)
        Accuracy at each bound, for each curve.
    n_samples : int
        Number of rows that the accuracies rest on.
    certified : ndarray of shape (n_eps,), default=None
        Certified accuracy at each bound, below which no attack can get.
    norm : float, default=None
        The norm of the perturbations, for the axis.
    unit : str, default=None
        What the bounds are measured in, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : list of matplotlib Line2D
        The curves.

    See Also
    --------
    sklearn_advsec.metrics.robust_accuracy_scorer : One point of the curve, as a score.
    AdversarialExamplesDisplay : The rows themselves, where they are images.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> from sklearn_advsec.inspection import RobustnessCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X, y)
    >>> display = RobustnessCurveDisplay.from_estimator(
    ...     victim, X, y, attack=FastGradientMethod(), eps=[0.0, 0.5, 1.0])
    >>> display.accuracy["LogisticRegression"].round(2).tolist()
    [0.97, 0.53, 0.02]

    An attack that looks for the smallest perturbation gives all of the curve at once:

    >>> from sklearn_advsec.evasion import DeepFool
    >>> display = RobustnessCurveDisplay.from_estimator(
    ...     victim, X, y, attack=DeepFool(norm=2))
    >>> bool((display.accuracy["LogisticRegression"] <= 0.98).all())
    True
    """

    def __init__(
        self,
        eps: np.ndarray,
        accuracy: dict[str, np.ndarray],
        n_samples: int,
        certified: np.ndarray | None = None,
        *,
        norm: float | None = None,
        unit: str | None = None,
    ) -> None:
        self.eps = eps
        self.accuracy = accuracy
        self.n_samples = n_samples
        self.certified = certified
        self.norm = norm
        self.unit = unit

    def interval(self, name: str, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Compute the Wilson interval of a curve.

        Parameters
        ----------
        name : str
            The curve.
        level : float, default=0.95
            Confidence level.

        Returns
        -------
        low, high : ndarray of shape (n_eps,)
            Bounds of the accuracy on rows from the same source.
        """
        check_parameters({"level": level}, _LEVEL, "RobustnessCurveDisplay.interval")
        counts = np.rint(self.accuracy[name] * self.n_samples).astype(int)
        bounds = [
            binomtest(int(k), self.n_samples).proportion_ci(level, method="wilson")
            for k in counts
        ]
        return np.array(bounds).T

    def plot(
        self,
        ax: Axes | None = None,
        *,
        name: str | None = None,
        level: float = 0.95,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure by default.
        name : str, default=None
            Label of a single curve, instead of its own.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        self : RobustnessCurveDisplay
            The display.
        """
        check_parameters({"level": level}, _LEVEL, "RobustnessCurveDisplay.plot")
        ax = make_axes(ax, "RobustnessCurveDisplay.plot")
        self.lines_ = []
        for label, accuracy in self.accuracy.items():
            shown = label if name is None or len(self.accuracy) > 1 else name
            many = len(self.eps) > 25
            steps = {"drawstyle": "steps-post", "markevery": 0.1} if many else {}
            style = line_style(ax, kwargs, label=shown, **steps)
            (line,) = ax.plot(self.eps, accuracy, **style)
            low, high = self.interval(label, level)
            step = "post" if many else None
            color = line.get_color()
            ax.fill_between(self.eps, low, high, color=color, alpha=0.15, lw=0, step=step)
            self.lines_.append(line)
        if self.certified is not None:
            self._plot_certified(ax)
        ax.set(xlabel=self._xlabel(), ylabel="Accuracy", ylim=(-0.02, 1.02))
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _xlabel(self):
        label = "eps"
        if self.norm is not None:
            label = f"eps ({_NORM_NAMES[_as_norm(self.norm)]} norm)"
        return label if self.unit is None else f"{label}, in units of {self.unit}"

    def _plot_certified(self, ax):
        """Draw the certified accuracy, and shade what lies between it and the attacks."""
        strongest = np.min(list(self.accuracy.values()), axis=0)
        (line,) = ax.plot(
            self.eps,
            self.certified,
            **CERTIFICATE,
            label="certified: no attack gets below",
        )
        ax.fill_between(
            self.eps,
            self.certified,
            strongest,
            hatch="//",
            fc="none",
            ec="0.4",
            alpha=0.3,
            label="between proof and attack",
        )
        self.lines_.append(line)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        attack: Any,
        eps: ArrayLike | None = None,
        certificate: Certificate | None = None,
        X_ref: ArrayLike | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        level: float = 0.95,
        **kwargs: Any,
    ) -> Self:
        """Attack a fitted classifier with growing bounds, and draw what is left.

        A row that falls at one bound counts as fallen at all larger ones, whose balls
        contain the smaller. An attack without a bound of its own, which looks for the
        smallest perturbation, runs once for all bounds. Where the classifier may abstain,
        attacked rows on which it does so still stand.

        Parameters
        ----------
        estimator : classifier
            Fitted victim.
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.
        y : array-like of shape (n_samples,)
            Labels.
        attack : evasion attack or dict of str to evasion attack
            Prototypes, of one norm; a dict gives one curve for each.
        eps : array-like of shape (n_eps,), default=None
            The bounds. None is for attacks that have no parameter of that name: the
            distances at which rows fell.
        certificate : Certificate, default=None
            What :func:`~sklearn_advsec.defense.certify` says of `X`, in the norm of the
            attacks: the robust accuracy is then bracketed between the certified one and
            the strongest attack's.
        X_ref : {array-like, DataFrame} of shape (n_ref, ...), default=None
            Rows from which the attack learns what it does not know of the data: `bounds`
            of "data", and `eps` in units of a spread. The training rows are meant. None
            takes `X`, with a warning where these are less than 39 rows or of some of the
            classes only, as their range holds attacks back.
        name : str, default=None
            Name of the curve of a single attack; the estimator's class by default.
        ax : matplotlib Axes, default=None
            Where to draw.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display, drawn.
        """
        ax = make_axes(ax, "RobustnessCurveDisplay.from_estimator")
        from ..victim import as_victim

        name = name or type(estimator).__name__
        estimator = as_victim(estimator)
        check_is_fitted(estimator)
        check_consistent_length(X, y)
        y = column_or_1d(y)
        if not isinstance(attack, dict):
            attack = {name: attack}
        norms = {_as_norm(prototype.norm) for prototype in attack.values()}
        if len(norms) > 1:
            raise ValueError(
                f"attack: one axis has one norm, these have {sorted(norms)}: draw them "
                "in figures of their own."
            )
        bounded = {
            label: "eps" in prototype.get_params(deep=False)
            for label, prototype in attack.items()
        }
        if eps is None and any(bounded.values()):
            raise ValueError(
                "eps is needed: the bounds at which to attack. Only an attack without "
                "eps, such as DeepFool, finds them by itself."
            )
        if certificate is not None and (
            norms != {certificate.norm} or len(certificate.radius) != len(y)
        ):
            raise ValueError(
                "certificate must be of the rows X and in the norm of the attacks, "
                f"{norms}; got one of {len(certificate.radius)} rows in norm "
                f"{certificate.norm}."
            )
        fallen = {
            label: _distances(estimator, X, y, prototype, X_ref)
            for label, prototype in attack.items()
            if not bounded[label]
        }
        eps = _breakpoints(fallen.values()) if eps is None else _increasing(eps)
        accuracy = {
            label: _standing(fallen[label], eps)
            if label in fallen
            else _robust_accuracies(estimator, X, y, prototype, eps, X_ref)
            for label, prototype in attack.items()
        }
        certified = None if certificate is None else certificate.accuracy(y, eps)
        display = cls(
            eps, accuracy, len(y), certified, norm=norms.pop(), unit=_unit(attack)
        )
        return display.plot(ax, level=level, **kwargs)

    @classmethod
    def from_result(
        cls,
        result: EvasionResult | dict[str, EvasionResult],
        *,
        eps: ArrayLike | None = None,
        norm: float | None = None,
        unit: str | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        level: float = 0.95,
        **kwargs: Any,
    ) -> Self:
        """Draw what was found already: the share of rows that stand at each bound.

        A row falls at the distance of its success; one that `run` was given a label for,
        and that was wrong already, at 0.

        Parameters
        ----------
        result : EvasionResult or dict of str to EvasionResult
            Of the same rows. That of an attack that looks for the smallest perturbation
            holds the whole curve. That of one with a bound tells less: below the bound it
            overstates the accuracy, and beyond it nothing was tried.
        eps : array-like of shape (n_eps,), default=None
            The bounds; by default the distances at which rows fell.
        norm : float, default=None
            The norm of the distances, for the axis; by default what the results say.
        unit : str, default=None
            What they are measured in, for the axis; by default what the results say.
        name : str, default=None
            Name of the curve of a single result.
        ax : matplotlib Axes, default=None
            Where to draw.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display, drawn.
        """
        ax = make_axes(ax, "RobustnessCurveDisplay.from_result")
        results = result if isinstance(result, dict) else {name or "Classifier": result}
        fallen = {label: _fallen_at(found) for label, found in results.items()}
        sizes = {len(distance) for distance in fallen.values()}
        if len(sizes) > 1:
            raise ValueError(f"result: all must be of the same rows; got {sizes} rows.")
        measures = {(found.norm, found.unit) for found in results.values()}
        if len(measures) > 1 and norm is None:
            raise ValueError(
                f"result: one axis has one norm and unit, these have {sorted(measures)}: "
                "draw them in figures of their own."
            )
        measured, told = measures.pop()
        norm = measured if norm is None else norm
        if unit is None and measured != 0:
            unit = _UNITS.get(told)
        eps = _breakpoints(fallen.values()) if eps is None else _increasing(eps)
        accuracy = {label: _standing(d, eps) for label, d in fallen.items()}
        display = cls(eps, accuracy, sizes.pop(), norm=norm, unit=unit)
        return display.plot(ax, level=level, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike | dict[str, ArrayLike],
        *,
        eps: ArrayLike,
        norm: float | None = None,
        unit: str | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        level: float = 0.95,
        **kwargs: Any,
    ) -> Self:
        """Draw the accuracy of predictions that were made on attacked rows.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_pred : array-like of shape (n_eps, n_samples), or dict of str to such
            Predictions for the rows attacked with each bound.
        eps : array-like of shape (n_eps,)
            The bounds.
        norm : float, default=None
            Their norm, for the axis.
        unit : str, default=None
            What they are measured in, for the axis.
        name : str, default=None
            Name of a single curve.
        ax : matplotlib Axes, default=None
            Where to draw.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display, drawn.
        """
        ax = make_axes(ax, "RobustnessCurveDisplay.from_predictions")
        eps, y_true = _increasing(eps), as_labels(y_true, "y_true")
        curves = y_pred if isinstance(y_pred, dict) else {name or "Classifier": y_pred}
        accuracy = {}
        for label, predictions in curves.items():
            predictions = as_labels(predictions, "y_pred", (len(eps), len(y_true)))
            accuracy[label] = (predictions == y_true).mean(axis=1)
        display = cls(eps, accuracy, len(y_true), norm=norm, unit=unit)
        return display.plot(ax, level=level, **kwargs)


def _as_norm(norm):
    """Return a norm as a number; torch is imported when a curve is drawn, not before."""
    from ..threat._ball import as_norm

    return as_norm(norm)


def _increasing(eps):
    eps = np.asarray(eps)
    numbers = eps.dtype.kind in "iuf" and eps.ndim == 1 and len(eps)
    if not (numbers and (np.diff(eps) >= 0).all() and (eps >= 0).all()):
        raise ValueError("eps must be a list of numbers, not negative and increasing.")
    return eps.astype(float)


def _unit(attacks):
    """Return what the bounds of attacks are measured in, where they all say so alike."""
    units = {getattr(attack, "eps_unit", None) for attack in attacks.values()}
    counts = any(_as_norm(attack.norm) == 0 for attack in attacks.values())
    return None if len(units) > 1 or counts else _UNITS.get(units.pop())


def _fallen_at(result):
    """Return the distance at which each row fell; infinite where it stands."""
    return np.where(result.success, result.distance, np.inf)


def _standing(fallen, eps):
    return np.mean(fallen > eps[:, None], axis=1)


def _breakpoints(fallen):
    """Return 0 and the distances at which rows fell, in their order."""
    found = np.concatenate([np.zeros(1), *fallen])
    return np.unique(found[np.isfinite(found)])


def _predicted(estimator, X):
    from ..victim import ask_labels

    with undisturbed(estimator):
        return ask_labels(estimator, X)


def _distances(estimator, X, y, prototype, X_ref):
    """Return at which distance each row falls to an attack without a bound."""
    from ..evasion._base import set_on

    attack = set_on(prototype, estimator, X, y, X_ref)
    fallen = _fallen_at(attack._run_all(X, y))
    return np.where(_predicted(estimator, X) == y, fallen, 0.0)


def _robust_accuracies(estimator, X, y, prototype, eps, X_ref):
    """Accuracy at each bound; only rows that still stand are attacked again."""
    from ..evasion._base import set_on

    standing = np.flatnonzero(_predicted(estimator, X) == y)
    label, accuracy = abstain_label(estimator), np.empty(len(eps))
    for i, bound in enumerate(eps):
        if bound > 0 and len(standing):
            attack = set_on(prototype, estimator, X, y, X_ref, eps=bound)
            y_pred = attack._run_all(_safe_indexing(X, standing), y[standing]).y_pred
            holds = y_pred == y[standing]
            if label is not None:
                holds |= y_pred == label
            standing = standing[holds]
        accuracy[i] = len(standing) / len(y)
    return accuracy
