"""Robustness curves: accuracy against the size of the perturbation."""

import numpy as np
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_consistent_length, check_is_fitted


class RobustnessCurveDisplay:
    """Accuracy against the size of the perturbation that is allowed.

    Use :meth:`from_estimator` or :meth:`from_predictions`; for several models in one
    axes, pass ``ax=display.ax_`` to the next call.

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

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : list of matplotlib Line2D
        The curves.

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
    """

    def __init__(self, eps, accuracy, n_samples, certified=None):
        self.eps = eps
        self.accuracy = accuracy
        self.n_samples = n_samples
        self.certified = certified

    def interval(self, name, level=0.95):
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
        counts = np.rint(self.accuracy[name] * self.n_samples).astype(int)
        bounds = [
            binomtest(int(k), self.n_samples).proportion_ci(level, method="wilson")
            for k in counts
        ]
        return np.array(bounds).T

    def plot(self, ax=None, *, level=0.95, **line_kw):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure by default.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **line_kw : dict
            Passed to ``ax.plot``.

        Returns
        -------
        self : RobustnessCurveDisplay
            The display.
        """
        check_matplotlib_support("RobustnessCurveDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        self.lines_ = []
        for name, accuracy in self.accuracy.items():
            (line,) = ax.plot(
                self.eps, accuracy, **{"marker": "o", "label": name, **line_kw}
            )
            low, high = self.interval(name, level)
            ax.fill_between(self.eps, low, high, color=line.get_color(), alpha=0.15, lw=0)
            self.lines_.append(line)
        if self.certified is not None:
            self._plot_certified(ax)
        ax.set(xlabel="eps", ylabel="Accuracy", ylim=(-0.02, 1.02))
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_certified(self, ax):
        """Draw the certified accuracy, and shade what lies between it and the attacks."""
        color = self.lines_[-1].get_color()
        strongest = np.min(list(self.accuracy.values()), axis=0)
        (line,) = ax.plot(
            self.eps, self.certified, color=color, ls="--", marker="s", label="certified"
        )
        ax.fill_between(
            self.eps,
            self.certified,
            strongest,
            hatch="//",
            fc="none",
            ec=color,
            alpha=0.3,
        )
        self.lines_.append(line)

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        attack,
        eps,
        certificate=None,
        name=None,
        ax=None,
        level=0.95,
        **line_kw,
    ):
        """Attack a fitted classifier with growing bounds, and draw what is left.

        A row that falls at one bound counts as fallen at all larger ones, whose balls
        contain the smaller.

        Parameters
        ----------
        estimator : classifier
            Fitted victim.
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.
        y : array-like of shape (n_samples,)
            Labels.
        attack : evasion attack or dict of str to evasion attack
            Prototypes; a dict gives one curve for each.
        eps : array-like of shape (n_eps,)
            The bounds.
        certificate : Certificate, default=None
            What :func:`~sklearn_advsec.defense.certify` says of `X`, in the norm of the
            attacks: the robust accuracy is then bracketed between the certified one and
            the strongest attack's.
        name : str, default=None
            Name of the curve of a single attack; the estimator's class by default.
        ax : matplotlib Axes, default=None
            Where to draw.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **line_kw : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display, drawn.
        """
        check_matplotlib_support("RobustnessCurveDisplay.from_estimator")
        check_is_fitted(estimator)
        check_consistent_length(X, y)
        eps = _increasing(eps)
        if not isinstance(attack, dict):
            attack = {name or type(estimator).__name__: attack}
        accuracy = {
            label: _robust_accuracies(estimator, X, np.asarray(y), prototype, eps)
            for label, prototype in attack.items()
        }
        certified = None
        if certificate is not None:
            norms = {prototype.norm for prototype in attack.values()}
            if norms != {certificate.norm} or len(certificate.radius) != len(y):
                raise ValueError(
                    "certificate must be of the rows X and in the norm of the attacks, "
                    f"{norms}; got one of {len(certificate.radius)} rows in norm "
                    f"{certificate.norm}."
                )
            certified = certificate.accuracy(y, eps)
        return cls(eps, accuracy, len(y), certified).plot(ax, level=level, **line_kw)

    @classmethod
    def from_predictions(
        cls, y_true, y_pred, *, eps, name=None, ax=None, level=0.95, **line_kw
    ):
        """Draw the accuracy of predictions that were made on attacked rows.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_pred : array-like of shape (n_eps, n_samples), or dict of str to such
            Predictions for the rows attacked with each bound.
        eps : array-like of shape (n_eps,)
            The bounds.
        name : str, default=None
            Name of a single curve.
        ax : matplotlib Axes, default=None
            Where to draw.
        level : float, default=0.95
            Confidence level of the shaded interval.
        **line_kw : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display, drawn.
        """
        check_matplotlib_support("RobustnessCurveDisplay.from_predictions")
        eps, y_true = _increasing(eps), np.asarray(y_true)
        curves = y_pred if isinstance(y_pred, dict) else {name or "Classifier": y_pred}
        accuracy = {}
        for label, predictions in curves.items():
            predictions = np.asarray(predictions)
            if predictions.shape != (len(eps), len(y_true)):
                raise ValueError(
                    f"y_pred has shape {predictions.shape}; it must be (n_eps, "
                    f"n_samples) = {(len(eps), len(y_true))}."
                )
            accuracy[label] = (predictions == y_true).mean(axis=1)
        return cls(eps, accuracy, len(y_true)).plot(ax, level=level, **line_kw)


def _increasing(eps):
    eps = np.asarray(eps, dtype=float)
    if eps.ndim != 1 or not len(eps) or (np.diff(eps) < 0).any() or (eps < 0).any():
        raise ValueError("eps must be a list of numbers, not negative and increasing.")
    return eps


def _robust_accuracies(estimator, X, y, prototype, eps):
    """Accuracy at each bound; only rows that still stand are attacked again."""
    standing = np.flatnonzero(np.asarray(estimator.predict(X)) == y)
    accuracy = np.empty(len(eps))
    for i, bound in enumerate(eps):
        if bound > 0 and len(standing):
            attack = clone(prototype)
            attack.set_params(estimator=FrozenEstimator(estimator), eps=bound)
            attack.fit(X)
            y_pred = attack.run(_safe_indexing(X, standing), y[standing]).y_pred
            standing = standing[y_pred == y[standing]]
        accuracy[i] = len(standing) / len(y)
    return accuracy
