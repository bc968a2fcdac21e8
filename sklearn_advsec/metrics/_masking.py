"""Gradient masking: attacks that should be stronger and are not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted

from .._estimators import abstain_label
from .._labels import class_positions
from .._seeding import undisturbed
from .._sklearn import HasMethods, Options, validate_params
from ..exceptions import GradientMaskingWarning


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict"])],
        "X": ["array-like"],
        "y": ["array-like"],
        "attack": [HasMethods(["fit", "run", "get_params"])],
        "black_box": [HasMethods(["fit", "run"]), Options(bool, {False}), None],
        "surrogate": [HasMethods(["fit", "predict"]), None],
        "X_ref": ["array-like", None],
        "random_state": ["random_state"],
    }
)
def gradient_masking_report(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    attack: Any,
    *,
    black_box: Any = None,
    surrogate: Any = None,
    X_ref: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> dict[str, float]:
    """Measure a classifier by attacks whose order is known, and warn where it is broken.

    With gradients an attack is at least as strong as without them, and with more steps as
    with fewer; without a bound it always wins; random noise is no attack at all. Where
    gradients are masked (by rounding, noise, saturation, or a bumpy loss surface) it is
    not so, and the robust accuracy under `attack` says little.

    Parameters
    ----------
    estimator : classifier
        Fitted.
    X : {array-like, DataFrame} of shape (n_samples, ...)
        Rows.
    y : array-like of shape (n_samples,)
        Labels.
    attack : evasion attack
        A gradient attack with parameters `eps`, `norm`, `max_iter` and `bounds`.
    black_box : evasion attack, default=None
        One that sees scores or labels. None is a `SquareAttack` of 500 queries; False is
        none.
    surrogate : classifier, default=None
        What `attack` is crafted on to be transferred; None leaves that out.
    X_ref : {array-like, DataFrame} of shape (n_ref, ...), default=None
        Rows from which attacks learn `bounds` of "data", and `eps` in units of a spread;
        None takes `X`, with a warning where these are few, or of some classes only.
    random_state : int, RandomState instance or None, default=0
        Seed of the noise.

    Returns
    -------
    report : dict of str to float
        Accuracies: "clean", "white box", "one step", "unbounded" (within four times
        `eps`), "noise" of size `eps`, and where they are asked for "black box" and
        "transfer". An attacked row counts as right where the classifier abstains.

    Warns
    -----
    GradientMaskingWarning
        Where an attack that should be weaker than the white-box one leaves significantly
        less (by a sign test on the rows, at 1 %), or a larger bound does not.

    See Also
    --------
    robust_accuracy_scorer : The figure that masking makes too good.

    References
    ----------
    .. [1] A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of
       security", arXiv:1802.00420 (Section 3.1, the signs).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent
    >>> from sklearn_advsec.metrics import gradient_masking_report
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=1000).fit(X, y)
    >>> report = gradient_masking_report(
    ...     model, X, y, ProjectedGradientDescent(eps=0.3), black_box=False)
    >>> bool(report["white box"] <= report["one step"] <= report["clean"])
    True
    """
    from ..evasion import SquareAttack, TransferAttack
    from ..evasion._base import set_on
    from ..victim import as_victim, ask_labels

    estimator = as_victim(estimator)
    check_is_fitted(estimator)
    given = attack.get_params(deep=False)
    missing = {"eps", "norm", "max_iter", "bounds"} - set(given)
    if attack.knowledge != "gradient" or missing:
        raise TypeError(
            "attack must be a gradient attack of a fixed budget, such as "
            f"ProjectedGradientDescent; got {attack!r}."
        )
    others = {
        "one step": _with(attack, max_iter=1, step_size=None),
        "unbounded": _with(attack, eps=_four_times(given["eps"])),
    }
    if black_box is None:
        shared = {name: given[name] for name in ("norm", "eps", "bounds")}
        black_box = (
            SquareAttack(**shared, max_queries=500) if given["norm"] != 1 else None
        )
    if black_box:
        others["black box"] = clone(black_box)
    if surrogate is not None:
        others["transfer"] = TransferAttack(surrogate=surrogate, attack=clone(attack))
    check_random_state(random_state)
    y = column_or_1d(y)
    class_positions(y, np.asarray(estimator.classes_), "y")  # raises where it is none
    aimed = {
        name: set_on(prototype, estimator, X, y, X_ref)
        for name, prototype in {"white box": attack, **others}.items()
    }
    right = {name: _survivors(attack, X, y) for name, attack in aimed.items()}
    with undisturbed(estimator):
        right["clean"] = ask_labels(estimator, X) == y
    right["noise"] = _under_noise(estimator, X, y, aimed["white box"], random_state)
    _warn(right)
    order = ["clean", "noise", "one step", "white box", "black box", "transfer"]
    return {
        name: float(right[name].mean()) for name in [*order, "unbounded"] if name in right
    }


def _four_times(eps):
    if hasattr(eps, "keys"):
        return {name: 4 * eps[name] for name in eps.keys()}
    return 4 * np.asarray(eps, dtype=float) if np.ndim(eps) else 4 * float(eps)


def _with(attack, **parameters):
    known = attack.get_params(deep=False)
    return clone(attack).set_params(
        **{name: value for name, value in parameters.items() if name in known}
    )


def _survivors(attack, X, y):
    silent = abstain_label(attack.estimator)
    return _stands(attack._run_all(X, y).y_pred, y, silent)


def _stands(y_pred, y, silent):
    """Tell where predictions of attacked rows are right, or none (`silent`) is made."""
    right = np.asarray(y_pred == y)
    return right if silent is None else right | np.asarray(y_pred == silent)


def _under_noise(estimator, X, y, attack, random_state):
    """Tell which rows are right after random steps to the edge of the ball and box."""
    import torch

    from ..victim import LabelAccess

    access = LabelAccess(estimator, X)
    lower, upper = attack.box_.perturbation_bounds(access.x, access.codec.mutable)
    seed = check_random_state(random_state).randint(2**31 - 1)
    generator = torch.Generator().manual_seed(int(seed))
    ball = attack._ball()
    draw = torch.randn(access.x.shape, generator=generator, dtype=torch.float64)
    delta = ball.maximize(draw.to(access.x), lower, upper)
    x = access.x + delta
    answer = access.predictions(access.predict(x), x, slice(None))
    return _stands(answer, y, abstain_label(estimator))


def _warn(right):
    white = right["white box"]
    for name in ("noise", "one step", "black box", "transfer"):
        if name in right and _significantly_below(right[name], white):
            _say(
                f"{name}: accuracy {right[name].mean():.3f}, below {white.mean():.3f} "
                "under the white-box attack, which should be the strongest"
            )
    rest = right["unbounded"].mean()
    if rest > 0.05 and not _significantly_below(right["unbounded"], white):
        _say(
            f"unbounded: accuracy {rest:.3f} within four times eps, not below "
            f"{white.mean():.3f} within eps"
        )


def _significantly_below(right, other):
    """Test the rows on which two attacks disagree: more of them lost to the first?"""
    lost, won = int((other & ~right).sum()), int((right & ~other).sum())
    if lost <= won:
        return False
    return binomtest(lost, lost + won, alternative="greater").pvalue < 0.01


def _say(sign):
    warnings.warn(
        f"The gradients of this classifier seem to be masked ({sign}). Its robust "
        "accuracy under gradient attacks says little: use an adaptive attack.",
        GradientMaskingWarning,
        stacklevel=4,
    )
