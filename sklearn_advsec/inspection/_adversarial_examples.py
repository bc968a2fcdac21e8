"""Images before and after an attack, drawn."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
)

from .._labels import as_labels
from .._rows import check_rows
from .._seeding import undisturbed
from .._sklearn import check_matplotlib_support

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evasion import EvasionResult


class AdversarialExamplesDisplay:
    """Images before and after an attack: original, change, adversarial.

    Use :meth:`from_estimator`, :meth:`from_result` or :meth:`from_predictions`. Images on
    which the attack failed are framed, and their titles say so.

    Parameters
    ----------
    images, adversarial : ndarray of shape (n_images, height, width) or \
            (n_images, height, width, 3)
        The images.
    titles, adversarial_titles : list of str
        What the victim says of each.
    success : ndarray of bool, shape (n_images,), default=None
        Whether the attack reached its goal; None does not say.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3, n_images)
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    RobustnessCurveDisplay : How many images fall, for growing bounds.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> from sklearn_advsec.inspection import AdversarialExamplesDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X / 16, y)
    >>> display = AdversarialExamplesDisplay.from_estimator(
    ...     victim, X[:3] / 16, attack=FastGradientMethod(eps=0.1, bounds=(0, 1)),
    ...     image_shape=(8, 8))
    >>> display.axes_.shape
    (3, 3)
    """

    def __init__(
        self,
        images: np.ndarray,
        adversarial: np.ndarray,
        titles: list[str],
        adversarial_titles: list[str],
        success: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.adversarial = adversarial
        self.titles = titles
        self.adversarial_titles = adversarial_titles
        self.success = success

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw one column per image.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Its place is divided among the images; by default that of a new figure.
        name : str, default=None
            Title of the whole.
        **kwargs : dict
            Passed to ``imshow`` for the images, such as `cmap`.

        Returns
        -------
        self : AdversarialExamplesDisplay
            The display.
        """
        check_matplotlib_support("AdversarialExamplesDisplay.plot")
        import matplotlib.pyplot as plt

        n = len(self.images)
        if ax is None:
            figure = plt.figure(figsize=(1.6 * n + 0.8, 5.4), layout="constrained")
            place = figure.add_gridspec(3, n)
        else:
            figure = ax.figure
            place = ax.get_subplotspec().subgridspec(3, n)
            ax.set_axis_off()
        axes = place.subplots(squeeze=False)
        low, high = self.images.min(), self.images.max()
        delta = self.adversarial - self.images
        if delta.ndim == 4:  # of three channels, the one that changes most
            most = np.abs(delta).argmax(-1)[..., None]
            delta = np.take_along_axis(delta, most, -1)[..., 0]
        largest = np.abs(delta).max() or 1.0
        shade = {"cmap": "gray", "vmin": low, "vmax": high, **kwargs}
        for i in range(n):
            axes[0, i].imshow(np.clip(self.images[i], low, high), **shade)
            axes[0, i].set_title(self.titles[i], fontsize=9)
            change = axes[1, i].imshow(
                delta[i], cmap="coolwarm", vmin=-largest, vmax=largest
            )
            axes[2, i].imshow(np.clip(self.adversarial[i], low, high), **shade)
            title, failed = self.adversarial_titles[i], False
            if self.success is not None and not self.success[i]:
                title, failed = f"{title}\nattack failed", True
            axes[2, i].set_title(title, fontsize=9, style="italic" if failed else None)
            for spine in axes[2, i].spines.values() if failed else ():
                spine.set(edgecolor="red", linestyle="--", linewidth=2)
        figure.colorbar(change, ax=list(axes[1]), label="change", shrink=0.9)
        for row, label in enumerate(("original", "change", "adversarial")):
            axes[row, 0].set_ylabel(label)
        for part in axes.flat:
            part.set(xticks=[], yticks=[])
        if name is not None:
            (figure.suptitle if ax is None else ax.set_title)(name)
        self.axes_, self.figure_ = axes, figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        attack: Any,
        X_ref: ArrayLike | None = None,
        image_shape: tuple[Any, ...] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Attack images and draw them.

        Parameters
        ----------
        estimator : classifier
            Fitted victim.
        X : array-like of shape (n_images, channels, height, width) or \
                (n_images, n_features)
            The images.
        y : array-like of shape (n_images,), default=None
            Labels; by default the victim's predictions are attacked.
        attack : evasion attack
            A prototype.
        X_ref : {array-like, DataFrame} of shape (n_ref, ...), default=None
            Rows from which the attack learns what it does not know of the data: `bounds`
            of "data", and `eps` in units of a spread. The training rows are meant. None
            takes `X`, with a warning where flat rows are less than 39, or of some of the
            classes only, as their range holds attacks back.
        image_shape : tuple, default=None
            ``(height, width)`` or ``(channels, height, width)`` of images in flat rows.
        name : str, default=None
            Title of the whole.
        ax : matplotlib Axes, default=None
            Where to draw.
        **kwargs : dict
            Passed to ``imshow`` for the images, such as `cmap`.

        Returns
        -------
        display : AdversarialExamplesDisplay
            The display, drawn.
        """
        check_matplotlib_support("AdversarialExamplesDisplay.from_estimator")
        from ..evasion._base import set_on
        from ..victim import as_victim

        estimator = as_victim(estimator)
        check_is_fitted(estimator)
        X = np.asarray(X)
        attack = set_on(attack, estimator, X, y, X_ref)
        result = attack._run_all(X, y)
        return cls(
            _as_images(X, image_shape),
            _as_images(np.asarray(result.X_adv), image_shape),
            _titles(estimator, X),
            _titles(estimator, result.X_adv),
            result.success,
        ).plot(ax, name=name, **kwargs)

    @classmethod
    def from_result(
        cls,
        result: EvasionResult,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        image_shape: tuple[Any, ...] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw images that were attacked already.

        Parameters
        ----------
        result : EvasionResult
            What ``attack.run(X)`` returned.
        X : array-like of shape (n_images, ...), default=None
            The images that it was given; None takes those that the result holds.
        y : array-like of shape (n_images,), default=None
            What to write above them; None takes the labels that the result holds.
        image_shape : tuple, default=None
            ``(height, width)`` or ``(channels, height, width)`` of images in flat rows.
        name : str, default=None
            Title of the whole.
        ax : matplotlib Axes, default=None
            Where to draw.
        **kwargs : dict
            Passed to ``imshow`` for the images, such as `cmap`.

        Returns
        -------
        display : AdversarialExamplesDisplay
            The display, drawn.
        """
        check_matplotlib_support("AdversarialExamplesDisplay.from_result")
        X = np.asarray(result.X) if X is None else np.asarray(X)[result.rows]
        y = result.y if y is None else np.asarray(y)[result.rows]
        titles = [""] * len(X) if y is None else np.asarray(y).astype(str)
        return cls(
            _as_images(X, image_shape),
            _as_images(np.asarray(result.X_adv), image_shape),
            list(titles),
            list(np.asarray(result.y_pred).astype(str)),
            result.success,
        ).plot(ax, name=name, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        X: ArrayLike,
        X_adv: ArrayLike,
        y_pred: ArrayLike,
        y_pred_adv: ArrayLike,
        *,
        image_shape: tuple[Any, ...] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw images before and after an attack, with predictions for both.

        Parameters
        ----------
        X, X_adv : array-like of shape (n_images, ...)
            The images, before and after.
        y_pred, y_pred_adv : array-like of shape (n_images,)
            Predictions; where they are the same, the attack failed.
        image_shape : tuple, default=None
            ``(height, width)`` or ``(channels, height, width)`` of images in flat rows.
        name : str, default=None
            Title of the whole.
        ax : matplotlib Axes, default=None
            Where to draw.
        **kwargs : dict
            Passed to ``imshow`` for the images, such as `cmap`.

        Returns
        -------
        display : AdversarialExamplesDisplay
            The display, drawn.
        """
        check_matplotlib_support("AdversarialExamplesDisplay.from_predictions")
        owner = "AdversarialExamplesDisplay"
        X = np.asarray(check_rows(X, owner))
        X_adv = np.asarray(check_rows(X_adv, owner, name="X_adv"))
        y_pred = as_labels(y_pred, "y_pred")
        y_pred_adv = as_labels(y_pred_adv, "y_pred_adv")
        check_consistent_length(X, X_adv, y_pred, y_pred_adv)
        return cls(
            _as_images(X, image_shape),
            _as_images(X_adv, image_shape, "X_adv"),
            list(y_pred.astype(str)),
            list(y_pred_adv.astype(str)),
            y_pred != y_pred_adv,
        ).plot(ax, name=name, **kwargs)


def _as_images(X, image_shape=None, name="X"):
    """Return rows as images that matplotlib draws: channels last, or none.

    Parameters
    ----------
    X : ndarray of shape (n_images, ...)
        Images with channels first, or flat rows.
    image_shape : tuple, default=None
        ``(height, width)`` or ``(channels, height, width)`` of flat rows.
    name : str, default="X"
        What errors call them.

    Returns
    -------
    images : ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
        The images.
    """
    if image_shape is not None:
        sizes = image_shape if isinstance(image_shape, (tuple, list)) else [image_shape]
        whole = all(isinstance(size, Integral) for size in sizes)
        if not whole or np.prod(sizes) != np.prod(X.shape[1:]):
            raise ValueError(
                f"image_shape={image_shape!r} does not fit rows of {name}, which have "
                f"shape {X.shape[1:]}."
            )
        X = X.reshape(len(X), *image_shape)
    if X.ndim == 3:
        return X
    if X.ndim != 4 or X.shape[1] not in (1, 3):
        raise ValueError(
            f"image_shape is needed: rows of shape {X.shape[1:]} are no images with one "
            "or three channels."
        )
    return X[:, 0] if X.shape[1] == 1 else np.moveaxis(X, 1, -1)


def _titles(estimator, X):
    from ..victim import ask_labels, ask_scores

    with undisturbed(estimator):
        labels = ask_labels(estimator, X)
        if not hasattr(estimator, "predict_proba"):
            return [f"{label}" for label in labels]
        confidence = ask_scores(estimator, X).max(axis=1)
    return [f"{label} ({p:.0%})" for label, p in zip(labels, confidence, strict=True)]
