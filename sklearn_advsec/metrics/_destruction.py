"""The destruction rate (Kurakin et al. 2016): which adversarial rows survive."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._estimators import may_take_nan
from .._labels import class_positions
from .._rows import check_rows, is_dataframe
from .._seeding import undisturbed
from .._sklearn import Interval, validate_params


@validate_params(
    {
        "X": ["array-like"],
        "X_adv": ["array-like"],
        "y": ["array-like"],
        "transformation": [callable],
        "image_shape": [tuple, list, None],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
)
def destruction_rate(
    estimator: Any,
    X: ArrayLike,
    X_adv: ArrayLike,
    y: ArrayLike,
    transformation: Callable[..., Any],
    *,
    image_shape: tuple[int, ...] | None = None,
    n_repeats: int = 1,
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    r"""Share of adversarial rows that a transformation makes harmless again.

    .. math:: d = \frac{\sum_k C(X^k, y^k) \, \overline{C}(X^k_{adv}, y^k) \,
        C(T(X^k_{adv}), y^k)}{\sum_k C(X^k, y^k) \, \overline{C}(X^k_{adv}, y^k)},

    where `C` is 1 where the victim is right: only rows that it gets right, and whose
    adversarial version it gets wrong, count.

    Parameters
    ----------
    estimator : classifier
        The fitted victim.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        Unchanged rows.
    X_adv : {array-like, DataFrame} of shape (n_rows, ...)
        Their adversarial versions.
    y : array-like of shape (n_rows,)
        True labels.
    transformation : callable
        A random transformation of this package, such as :class:`Rotation`, for images
        with values in [0, 1]; or any function of rows that returns rows.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width). For the
        transformations of this package.
    n_repeats : int, default=1
        How often to transform; the rate is the mean.
    random_state : int, RandomState instance or None, default=0
        Seed of the transformations of this package.

    Returns
    -------
    rate : float
        Between 0 (all survive) and 1. NaN where no row counts.

    See Also
    --------
    sklearn_advsec.evasion.ExpectationOverTransformation : Attacks that survive.

    References
    ----------
    .. [1] A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical
       world", arXiv:1607.02533 (equation 1 of Section 3.1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import destruction_rate
    >>> X, y = np.array([[0.0], [1.0]]), [0, 1]
    >>> victim = LogisticRegression(C=100).fit(X, y)
    >>> destruction_rate(victim, X, [[0.6], [0.1]], y, lambda rows: rows - 0.2)
    0.5
    """
    import torch

    from .._rows import image_shape_of
    from ..victim import ask_labels
    from ..victim._validation import check_victim

    def predicted(rows):
        with undisturbed(estimator):
            return ask_labels(estimator, rows)

    check_victim(estimator)
    name = type(estimator).__name__
    allow_nan = may_take_nan(estimator)
    X = check_rows(X, name, allow_nan=allow_nan)
    X_adv = check_rows(X_adv, name, allow_nan=allow_nan, name="X_adv")
    if X_adv.shape[1:] != X.shape[1:]:
        raise ValueError(
            f"X_adv has rows of shape {X_adv.shape[1:]}, and X of {X.shape[1:]}."
        )
    y = column_or_1d(y)
    check_consistent_length(X, X_adv, y)
    class_positions(y, np.asarray(estimator.classes_), "y")  # raises where it is none
    counts = (predicted(X) == y) & (predicted(X_adv) != y)
    if not counts.any():
        return float("nan")
    rows = X_adv[counts]
    # Transformations of images say whether they move pixels; other functions do not.
    pixelwise = getattr(transformation, "pixelwise", None)
    if pixelwise is not None:
        rows = np.asarray(rows)
        shape = image_shape_of(rows.shape[1:], image_shape)
        if shape is None and pixelwise:
            shape = (1, 1, rows.shape[1])
        if shape is None:
            raise ValueError(
                f"{type(transformation).__name__} moves pixels: give image_shape for "
                "rows that are flat."
            )
        images = torch.as_tensor(rows).reshape(-1, *shape)
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                "X_adv must have values in [0, 1] for the transformations of this "
                f"package; it has {float(images.min()):.4g} to {float(images.max()):.4g}."
            )
        seed = check_random_state(random_state).randint(2**31 - 1)
        generator = torch.Generator().manual_seed(int(seed))

        def transformed():
            return transformation(images, generator).numpy().reshape(rows.shape)
    else:

        def transformed():
            return transformation(rows)

    harmless = [
        np.mean(predicted(_named(transformed(), X_adv)) == y[counts])
        for _ in range(n_repeats)
    ]
    return float(np.mean(harmless))


def _named(rows, like):
    """Give rows the columns of `like`, where that is a DataFrame."""
    if not is_dataframe(like) or is_dataframe(rows):
        return rows
    import pandas as pd

    return pd.DataFrame(rows, columns=like.columns)
