"""Polynomials in place of activations: how they are fitted and evaluated."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.special import expit
from sklearn.utils.validation import check_is_fitted

from .._sklearn import BaseEstimator, Interval, StrOptions, fit_context

FUNCTIONS = {
    "square": np.square,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": expit,
    "silu": lambda x: x * expit(x),
    "sign": lambda x: np.where(x >= 0, 1.0, -1.0),
}


class PolynomialActivation(BaseEstimator):
    """A polynomial that stands for an activation function between two bounds.

    It is the least-squares fit, in the Chebyshev basis, on the values that the activation
    meets in training [1]_: where most values are, it is best. Beyond its bounds a
    polynomial is anything, so they are kept.

    Parameters
    ----------
    function : {"relu", "tanh", "sigmoid", "silu", "square", "sign"}, default="relu"
        What it stands for. "square" is itself; "sign" is a composition of three odd
        minimax polynomials of degree 9 [2]_, good from the value nearest to 0 on.
    degree : int, default=4
        Degree of the polynomial.
    margin : float, default=0.1
        By which share of their range the bounds are wider than the values seen.

    Attributes
    ----------
    bounds_ : tuple of two floats
        The smallest and the largest value that it may be given.
    coef_ : ndarray of shape (degree + 1,)
        Coefficients of the Chebyshev polynomials on the bounds.
    max_error_ : float
        The largest deviation from the function on the values seen.
    depth_ : int
        How many products in a row its evaluation takes.

    See Also
    --------
    EncryptedClassifier : Fits one for each layer of activations.

    References
    ----------
    .. [1] E. Hesamifard, H. Takabi and M. Ghasemi, "CryptoDL: deep neural networks over
       encrypted data", arXiv:1711.05189 (Section 4).
    .. [2] E. Lee et al., "Minimax approximation of sign function by composite polynomial
       for homomorphic comparison", IEEE TDSC 19(6), 2022 (Algorithm 1, with equal
       degrees).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.encryption import PolynomialActivation
    >>> z = np.random.RandomState(0).randn(1000)
    >>> relu = PolynomialActivation("relu", degree=4).fit(z)
    >>> bool(np.abs(relu(z) - np.maximum(z, 0)).mean() < 0.05)
    True
    """

    _parameter_constraints = {
        "function": [StrOptions(set(FUNCTIONS))],
        "degree": [Interval(Integral, 2, 63, closed="both")],
        "margin": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        function: Literal["relu", "tanh", "sigmoid", "silu", "square", "sign"] = "relu",
        *,
        degree: int = 4,
        margin: float = 0.1,
    ) -> None:
        self.function = function
        self.degree = degree
        self.margin = margin

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the polynomial to the values that the activation meets.

        Parameters
        ----------
        X : array-like
            Pre-activations, of any shape.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted polynomial.
        """
        z = np.asarray(X, dtype=np.float64).ravel()
        if not len(z) or not np.isfinite(z).all():
            raise ValueError("X must hold finite pre-activations, at least one.")
        low, high = float(z.min()), float(z.max())
        wider = self.margin * (high - low) or 1.0
        low, high = low - wider, high + wider
        if self.function in ("square", "sign"):  # symmetric around 0
            high = max(-low, high)
            low = -high
        self.bounds_ = low, high
        if self.function == "square":
            half = np.square(high) / 2
            self.coef_ = np.array([half, 0.0, half])
            self.max_error_ = 0.0
        elif self.function == "sign":
            self.coef_ = np.array([0.0, 1.0])
            # As near to 0 as values come, the sign has to be right.
            least = np.clip(0.9 * np.abs(z).min() / high, _LEAST_SIGN, 0.1)
            self.stages_ = composite_sign(least=float(least))
            self.max_error_ = float(np.abs(self(z) - FUNCTIONS["sign"](z)).max())
        else:
            t = self._inside(z)
            target = FUNCTIONS[self.function](z)
            # A few points of the whole range keep the ends from running away.
            ends = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
            outside = FUNCTIONS[self.function](self._outside(ends))
            weight = np.r_[np.ones(len(t)), np.full(64, 0.02 * math.sqrt(len(t) / 64))]
            basis = chebyshev.chebvander(np.r_[t, ends], self.degree)
            wanted = np.r_[target, outside]
            self.coef_ = np.linalg.lstsq(
                basis * weight[:, None], wanted * weight, rcond=None
            )[0]
            self.max_error_ = float(np.abs(self(z) - target).max())
        self.depth_ = self.plan().depth
        return self

    def __call__(self, z: ArrayLike) -> np.ndarray:
        """Evaluate the polynomial.

        Parameters
        ----------
        z : array-like
            Pre-activations, inside of `bounds_`.

        Returns
        -------
        values : ndarray of the shape of `z`
            The polynomial's values.
        """
        check_is_fitted(self, "bounds_")
        t = self._inside(np.asarray(z, dtype=np.float64))
        if self.function == "sign":
            for coef in self.stages_:
                t = chebyshev.chebval(t, coef)
            return t
        return chebyshev.chebval(t, self.coef_)

    def plan(self) -> Any:
        """Return how it is evaluated on ciphertexts: a :class:`Plan`."""
        if self.function == "sign":
            low, high = self.bounds_
            return Plan(2 / (high - low), 0.0, [Series(c) for c in self.stages_])
        return plan_of(self.coef_, *self.bounds_)

    def _inside(self, z):
        low, high = self.bounds_
        return (2 * z - low - high) / (high - low)

    def _outside(self, t):
        low, high = self.bounds_
        return (t * (high - low) + low + high) / 2


# Nearer to 0, as a share of the range, the composed sign is none.
_LEAST_SIGN = 2e-3
# Points at which ranges and slopes of polynomials are looked at.
_GRID = 4001


class Plan:
    """How a polynomial is evaluated: ``factor * core(scale * z + shift) + constant``.

    What stands outside of the core is affine, and goes into the layers before and after,
    where it costs no product.

    Parameters
    ----------
    scale, shift : float
        What is done before.
    stages : list of Quadratic, Cubic, Quartic or Series
        The core, one stage after the other.
    factor, constant : float
        What is done after.

    Attributes
    ----------
    offset : float
        Is added at the end of the core; see :meth:`centered`.
    """

    def __init__(self, scale, shift, stages, factor=1.0, constant=0.0):
        self.scale = scale
        self.shift = shift
        self.stages = stages
        self.factor = factor
        self.constant = constant
        self.offset = 0.0

    def centered(self, low, high):
        """Move the core's values such that they lie around 0.

        A large constant in them would have to cancel in the layer after it, where the
        last level has no bits for that.
        """
        middle = float(np.mean(self.core_range(low, high)))
        self.offset -= middle
        self.constant += self.factor * middle
        return self

    @property
    def depth(self):
        """How many products in a row the core takes."""
        return sum(stage.depth for stage in self.stages)

    def core(self, t):
        """Evaluate the core on an array."""
        for stage in self.stages:
            t = stage.plain(t)
        return t + self.offset

    def encrypted(self, t, arithmetic):
        """Evaluate the core on a ciphertext."""
        for stage in self.stages:
            t = stage.encrypted(t, arithmetic)
        return arithmetic.add_plain(t, self.offset)

    def bounded(self, x, low, high, arithmetic):
        """Bound the error of the core on values from `low` to `high`.

        The error that the values have already is taken through each stage by its steepest
        slope; what the stage adds is that of its own operations on exact values.
        """
        grid = np.linspace(low, high, _GRID)
        for stage in self.stages:
            exact = arithmetic.without_error(x)
            values = stage.plain(grid)
            steps = np.diff(grid)
            slope = np.abs(np.diff(values)[steps > 0] / steps[steps > 0]).max(initial=0.0)
            y = stage.encrypted(exact, arithmetic)
            # Secants of a grid this fine are the slope up to a hundredth.
            carried = 1.01 * slope * x.error
            x = arithmetic.with_error(y, y.error + carried)
            x = arithmetic.within(x, np.abs(values).max())
            grid = np.sort(values)
        return arithmetic.add_plain(x, self.offset)

    def core_range(self, low, high):
        """Return the smallest and largest value of the core between two values."""
        values = self.core(np.linspace(low, high, _GRID))
        return float(values.min()), float(values.max())


def plan_of(coef, low, high):
    """Plan the evaluation of a Chebyshev series on bounds.

    Of polynomials of degree 2 to 4 the leading coefficient is made 1 or -1 by the scale
    of the variable, which is free: one or two products of ciphertexts are left.
    """
    coef = chebyshev.chebtrim(coef, tol=1e-12 * np.abs(coef).max())
    scale, shift = 2 / (high - low), -(low + high) / (high - low)
    degree = len(coef) - 1
    power = chebyshev.cheb2poly(coef)
    lead = power[-1]
    if not 2 <= degree <= 4 or abs(lead) < 1e-6 * np.abs(power).max():
        return Plan(scale, shift, [Series(coef)])
    stretch = abs(lead) ** (1 / degree)
    sign = float(np.sign(lead))
    rest = sign * power[1:-1] / stretch ** np.arange(1, degree)
    stage = {2: Quadratic, 3: Cubic, 4: Quartic}[degree](*rest)
    return Plan(scale * stretch, shift * stretch, [stage], sign, power[0])


class Quadratic:
    """``t^2 + a t``."""

    depth = 1

    def __init__(self, a):
        self.a = float(a)

    def plain(self, t):
        """Evaluate on an array."""
        return t * (t + self.a)

    def encrypted(self, t, arithmetic):
        """Evaluate on a ciphertext."""
        return arithmetic.times(t, arithmetic.add_plain(t, self.a) if self.a else t)


class Cubic:
    """``t^3 + b t^2 + a t``."""

    depth = 2

    def __init__(self, a, b):
        self.a, self.b = float(a), float(b)

    def plain(self, t):
        """Evaluate on an array."""
        return t * (np.square(t) + self.b * t + self.a)

    def encrypted(self, t, arithmetic):
        """Evaluate on a ciphertext."""
        inside = _square_and_line(t, self.b, self.a, arithmetic)[1]
        return arithmetic.times(inside, t)


class Quartic:
    """``t^4 + c t^3 + b t^2 + a t``."""

    depth = 2

    def __init__(self, a, b, c):
        self.a, self.b, self.c = float(a), float(b), float(c)

    def plain(self, t):
        """Evaluate on an array."""
        square = np.square(t)
        return square * (square + self.c * t + self.b) + self.a * t

    def encrypted(self, t, arithmetic):
        """Evaluate on a ciphertext."""
        square, inside = _square_and_line(t, self.c, self.b, arithmetic)
        result = arithmetic.times(inside, square)
        if abs(self.a) < _NOTHING:
            return result
        return arithmetic.add(result, arithmetic.matched(t, result, self.a))


# Coefficients below it are none.
_NOTHING = 1e-9


def _square_and_line(t, slope, constant, arithmetic):
    """Return ``t^2`` and ``t^2 + slope t + constant``."""
    square = inside = arithmetic.times(t, t)
    if abs(slope) > _NOTHING:
        inside = arithmetic.add(square, arithmetic.matched(t, square, slope))
    return square, arithmetic.add_plain(inside, constant)


class Series:
    """A Chebyshev series on [-1, 1], by Paterson and Stockmeyer's baby and giant steps.

    The series is divided by `T_m`, the largest giant step in it: ``q T_m + r``. Level
    and scale of the result are decided first, and handed down to the sums of baby steps:
    their plain factors are encoded such that all terms meet, and no level is spent on
    bringing them together.

    References
    ----------
    .. [1] M. Paterson and L. Stockmeyer, "On the number of nonscalar multiplications
       necessary to evaluate polynomials", SIAM J. Comput. 2(1), 1973.
    """

    def __init__(self, coef):
        self.coef = np.array(coef, dtype=np.float64)
        if not self.coef[1:].any():  # a constant is no function of a ciphertext
            self.coef = np.append(self.coef[:1], 1e-9 * max(1.0, abs(self.coef[0])))
        self.baby = 2 ** max(1, math.ceil(math.log2(len(self.coef)) / 2))
        self._tree = self._divided(self.coef)
        self.depth = _depth(self._tree)

    def plain(self, t):
        """Evaluate on an array."""
        return chebyshev.chebval(t, self.coef)

    def _divided(self, series):
        """Return the series as a dict of baby steps, or as (quotient, m, rest)."""
        small = np.abs(series) <= 1e-14 * np.abs(self.coef).max()
        series = np.where(small, 0.0, series)
        last = np.flatnonzero(series)
        series = series[: last[-1] + 1] if len(last) else series[:1]
        if len(series) <= self.baby:
            return {n: float(c) for n, c in enumerate(series) if c or n == 0}
        giant = self.baby
        while 2 * giant < len(series):
            giant *= 2
        quotient, rest = chebyshev.chebdiv(series, np.eye(giant + 1)[giant])
        return self._divided(quotient), giant, self._divided(rest)

    def encrypted(self, t, arithmetic):
        """Evaluate on a ciphertext."""
        basis = {1: t}
        level = arithmetic.level(t) - self.depth
        result = self._evaluated(
            self._tree, level, arithmetic.ring.scale, basis, arithmetic
        )
        return arithmetic.add_plain(result, _constant(self._tree))

    def _evaluated(self, tree, level, scale, basis, arithmetic):
        """Return the value without its constant, at a level and scale; None is 0."""
        if isinstance(tree, dict):
            terms = [(_polynomial(n, basis, arithmetic), c) for n, c in tree.items() if n]
            return arithmetic.combined(terms, level, scale) if terms else None
        quotient, giant, rest = tree
        power = arithmetic.lowered(_polynomial(giant, basis, arithmetic), level + 1)
        wanted = scale * arithmetic.prime(level + 1) / power.scale
        high = self._evaluated(quotient, level + 1, wanted, basis, arithmetic)
        if high is None:
            result = arithmetic.combined([(power, _constant(quotient))], level, scale)
        else:
            high = arithmetic.add_plain(high, _constant(quotient))
            result = arithmetic.times(high, power)
        low = self._evaluated(rest, level, scale, basis, arithmetic)
        return result if low is None else arithmetic.add(result, low)


def _constant(tree):
    """The constant of a divided series: that of its last rest."""
    while not isinstance(tree, dict):
        tree = tree[2]
    return tree.get(0, 0.0)


def _depth(tree):
    if isinstance(tree, dict):
        return max((_power_depth(n) + 1 for n in tree if n), default=0)
    quotient, giant, rest = tree
    return max(max(_depth(quotient), _power_depth(giant)) + 1, _depth(rest))


def _power_depth(n):
    return math.ceil(math.log2(n))


def _polynomial(n, basis, arithmetic):
    """T_n of a ciphertext: 2 T_a T_b - T_|a-b|, where a + b = n."""
    if n not in basis:
        a = 2 ** (math.ceil(math.log2(n)) - 1)
        b = n - a
        product = arithmetic.times(
            _polynomial(a, basis, arithmetic), _polynomial(b, basis, arithmetic)
        )
        double = arithmetic.add(product, product)
        if a == b:
            power = arithmetic.add_plain(double, -1.0)
        else:
            less = _polynomial(a - b, basis, arithmetic)
            power = arithmetic.add(double, arithmetic.matched(less, double, -1.0))
        basis[n] = arithmetic.within(power, 1.0)
    return basis[n]


def composite_sign(degree=9, n_stages=3, least=0.01):
    """Return odd polynomials whose composition is close to the sign on [-1, 1].

    Each is the minimax approximation of the sign on what the one before leaves: first on
    ``least <= |t| <= 1``, then on the range of its values (Lee et al. 2022, Algorithm 1).

    Parameters
    ----------
    degree : int, default=9
        Degree of each.
    n_stages : int, default=3
        How many there are.
    least : float, default=0.01
        The smallest absolute value whose sign counts.

    Returns
    -------
    stages : list of ndarray of shape (degree + 1,)
        Coefficients of Chebyshev polynomials.
    """
    stages, low, high = [], least, 1.0
    for _ in range(n_stages):
        # On [low, high] the odd series is the largest deviation from 1, made smallest:
        # a linear programme over a grid that is dense at the ends.
        nodes = (1 - np.cos(np.pi * np.arange(400) / 399)) / 2
        grid = np.unique(np.r_[low + (high - low) * nodes, np.geomspace(low, high, 200)])
        odd = chebyshev.chebvander(grid / high, degree)[:, 1::2]
        ones = np.ones((len(grid), 1))
        found = linprog(
            np.r_[np.zeros(odd.shape[1]), 1.0],
            A_ub=np.r_[np.c_[odd, -ones], np.c_[-odd, -ones]],
            b_ub=np.r_[np.ones(len(grid)), -np.ones(len(grid))],
            bounds=[(None, None)] * odd.shape[1] + [(0, None)],
        )
        error = found.x[-1]
        coef = np.zeros(degree + 1)
        coef[1::2] = found.x[:-1]
        # The next stage is given values up to 1 + error: its variable is divided by that.
        stages.append(coef / (1 + error))
        low, high = (1 - error) / (1 + error), 1.0
    stages[-1] = stages[-1] * (1 + error)
    return stages
