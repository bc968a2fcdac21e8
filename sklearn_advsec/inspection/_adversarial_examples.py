"""Images before and after an attack, drawn."""

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted


class AdversarialExamplesDisplay:
    """Images before and after an attack: original, amplified perturbation, adversarial.

    Parameters
    ----------
    images, adversarial : ndarray of shape (n_images, height, width) or \
            (n_images, height, width, 3)
        The images.
    titles, adversarial_titles : list of str
        What the victim says of each.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3, n_images)
        The axes.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> from sklearn_advsec.inspection import AdversarialExamplesDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X / 16, y)
    >>> display = AdversarialExamplesDisplay.from_estimator(
    ...     victim, X[:3] / 16, attack=FastGradientMethod(eps=0.1), image_shape=(8, 8))
    >>> display.axes_.shape
    (3, 3)
    """

    def __init__(self, images, adversarial, titles, adversarial_titles):
        self.images = images
        self.adversarial = adversarial
        self.titles = titles
        self.adversarial_titles = adversarial_titles

    def plot(self, *, figure=None, cmap="gray"):
        """Draw one column per image.

        Parameters
        ----------
        figure : matplotlib Figure, default=None
            Where to draw; a new one by default.
        cmap : str, default="gray"
            Colours of images with one channel.

        Returns
        -------
        self : AdversarialExamplesDisplay
            The display.
        """
        check_matplotlib_support("AdversarialExamplesDisplay.plot")
        import matplotlib.pyplot as plt

        n = len(self.images)
        if figure is None:
            figure = plt.figure(figsize=(1.6 * n, 5.4), layout="constrained")
        axes = figure.subplots(3, n, squeeze=False)
        low, high = self.images.min(), self.images.max()
        delta = self.adversarial - self.images
        largest = np.abs(delta).max() or 1.0
        shade = {"cmap": cmap, "vmin": low, "vmax": high}
        for i in range(n):
            axes[0, i].imshow(np.clip(self.images[i], low, high), **shade)
            axes[0, i].set_title(self.titles[i], fontsize=9)
            centred = 0.5 + 0.5 * delta[i] / largest
            axes[1, i].imshow(centred, cmap="coolwarm", vmin=0, vmax=1)
            axes[2, i].imshow(np.clip(self.adversarial[i], low, high), **shade)
            axes[2, i].set_title(self.adversarial_titles[i], fontsize=9)
        times = (high - low) / (2 * largest)
        for row, label in enumerate(
            ("original", f"change (x {times:.1f})", "adversarial")
        ):
            axes[row, 0].set_ylabel(label)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
        self.axes_, self.figure_ = axes, figure
        return self

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, attack, image_shape=None, figure=None, cmap="gray"
    ):
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
        image_shape : tuple, default=None
            ``(height, width)`` or ``(channels, height, width)`` of images in flat rows.
        figure : matplotlib Figure, default=None
            Where to draw.
        cmap : str, default="gray"
            Colours of images with one channel.

        Returns
        -------
        display : AdversarialExamplesDisplay
            The display, drawn.
        """
        check_matplotlib_support("AdversarialExamplesDisplay.from_estimator")
        check_is_fitted(estimator)
        X = np.asarray(X)
        attack = clone(attack).set_params(estimator=FrozenEstimator(estimator)).fit(X)
        X_adv = attack.run(X, y).X_adv
        return cls(
            _as_images(X, image_shape),
            _as_images(X_adv, image_shape),
            _titles(estimator, X),
            _titles(estimator, X_adv),
        ).plot(figure=figure, cmap=cmap)


def _as_images(X, image_shape=None):
    """Return rows as images that matplotlib draws: channels last, or none.

    Parameters
    ----------
    X : ndarray of shape (n_images, ...)
        Images with channels first, or flat rows.
    image_shape : tuple, default=None
        ``(height, width)`` or ``(channels, height, width)`` of flat rows.

    Returns
    -------
    images : ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
        The images.
    """
    if image_shape is not None:
        if np.prod(image_shape) != np.prod(X.shape[1:]):
            raise ValueError(
                f"image_shape={tuple(image_shape)} does not fit rows of shape "
                f"{X.shape[1:]}."
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
    labels = estimator.predict(X)
    if not hasattr(estimator, "predict_proba"):
        return [f"{label}" for label in labels]
    confidence = estimator.predict_proba(X).max(axis=1)
    return [f"{label} ({p:.0%})" for label, p in zip(labels, confidence, strict=True)]
