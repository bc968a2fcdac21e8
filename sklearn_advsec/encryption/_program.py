"""The polynomial network that an estimator is compiled to."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ._fold import fold, scaled
from ._graph import Activation, Affine
from ._levels import BoundArithmetic

# How far beyond the values seen in training a feature may go, in half-widths of them.
# Of networks, the ranges of the activations are narrower than that.
_INPUT_MARGIN = 3.0
_LINEAR_MARGIN = 15.0


@dataclass
class Program:
    """A network of affine layers and polynomials, on values between -1 and 1.

    Attributes
    ----------
    low, high : ndarray of shape (n_features,)
        The range of each feature; it is encrypted as a number between -1 and 1.
    layers : list of Affine
        The affine layers, with what is affine of the polynomials in them. The last one's
        scores are divided by `bound`.
    plans : list of Plan
        What is between two affine layers.
    bound : float
        Scores of rows in the range are no larger.
    core_bounds : list of (low, high)
        The range of the variable of each plan's core.
    """

    low: np.ndarray
    high: np.ndarray
    layers: list
    plans: list
    bound: float
    core_bounds: list

    @property
    def depth(self):
        """How many products in a row there are."""
        return len(self.layers) + sum(plan.depth for plan in self.plans)

    @property
    def n_features(self):
        """Width of a row."""
        return len(self.low)

    @property
    def n_scores(self):
        """Number of scores."""
        return len(self.layers[-1].bias)

    def encoded(self, X):
        """Bring rows to the range that is encrypted."""
        return (2 * X - self.low - self.high) / (self.high - self.low)

    def scores(self, X):
        """Compute the scores of rows in plain arithmetic."""
        t = self.encoded(X)
        for layer, plan in zip(self.layers, [*self.plans, None], strict=True):
            t = layer(t)
            t = t if plan is None else plan.core(t)
        return t * self.bound

    def left_at(self, X):
        """Return at which activation each row leaves its range; -1 if nowhere."""
        left = np.full(len(X), -1)
        t = self.encoded(X)
        for k, plan in enumerate(self.plans):
            t = self.layers[k](t)
            low, high = self.core_bounds[k]
            slack = 1e-9 * (high - low)
            outside = ((t < low - slack) | (t > high + slack)).any(axis=1)
            left[outside & (left < 0)] = k
            t = plan.core(np.clip(t, low, high))  # what left is told, and goes no further
        return left

    def check_activations(self, X):
        """Raise where a row leaves the range of a polynomial."""
        left = self.left_at(X)
        if (left >= 0).any():
            row = np.flatnonzero(left >= 0)[0]
            raise ValueError(
                f"X: row {row} leaves the range of activation {left[row]}, where its "
                "polynomial is no longer what it stands for. Fit on rows like it, or "
                "with an activation of a larger margin."
            )

    def error(self, packing):
        """Bound the error of the scores, and count the operations.

        Parameters
        ----------
        packing : Columns or Rows
            How rows are packed on a ring.

        Returns
        -------
        error : float
            In units of the scores.
        counts : dict
            The operations of one evaluation.
        """
        arithmetic = BoundArithmetic(packing.parameters)
        x = arithmetic.fresh(1.0)
        for k, layer in enumerate(self.layers):
            x = packing.bounded(k, x, arithmetic)
            if k == len(self.plans):
                break
            low, high = self.core_bounds[k]
            x = arithmetic.within(x, max(abs(low), abs(high)))
            before = dict(arithmetic.counts)
            x = self.plans[k].bounded(x, low, high, arithmetic)
            x = arithmetic.within(x, np.abs(self.plans[k].core_range(low, high)).max())
            for name, n in before.items():
                more = arithmetic.counts[name] - n
                arithmetic.counts[name] = n + more * packing.n_ciphertexts(layer)
        return x.error * self.bound, arithmetic.counts


def row_norm(layer):
    """Return the largest sum of absolute weights of an output."""
    weight = abs(layer.weight)
    return float(np.asarray(weight.sum(axis=1)).max(initial=0.0))


def compile_graph(layers, X, make_activation):
    """Make a program of layers: fold them, and fit polynomials to what they meet.

    Parameters
    ----------
    layers : list of Affine and Activation
        As read.
    X : ndarray of shape (n_rows, n_features)
        Rows that the model will meet.
    make_activation : callable
        ``make_activation(function)`` makes an unfitted polynomial.

    Returns
    -------
    program : Program
        The network.
    polynomials : list of PolynomialActivation
        The fitted activations.
    """
    folded = fold(layers, X.shape[1])
    low, high = X.min(axis=0).astype(float), X.max(axis=0).astype(float)
    linear = not any(isinstance(layer, Activation) for layer in folded)
    half = (_LINEAR_MARGIN if linear else _INPUT_MARGIN) * (high - low) / 2
    half = np.where(high > low, half, _INPUT_MARGIN * np.maximum(np.abs(high), 1.0))
    low, high = low - half, high + half
    affine = [layer for layer in folded if isinstance(layer, Affine)]
    activations = [layer for layer in folded if isinstance(layer, Activation)]
    middle, width = (low + high) / 2, (high - low) / 2
    first = affine[0]
    scaling = sparse.diags_array(width)
    affine[0] = Affine(
        np.asarray(first.weight * width)
        if not sparse.issparse(first.weight)
        else (first.weight @ scaling).tocsr(),
        first.bias + np.asarray(first.weight @ middle).ravel(),
    )
    plans, bounds, polynomials = [], [], []
    t = (X - middle) / width
    for k, activation in enumerate(activations):
        z = affine[k](t)
        polynomial = activation.polynomial
        if polynomial is None:
            polynomial = make_activation(activation.function).fit(z)
        plan = polynomial.plan()
        bounds.append(tuple(plan.scale * b + plan.shift for b in polynomial.bounds_))
        plan.centered(*bounds[-1])
        affine[k] = scaled(affine[k], after=(plan.scale, plan.shift))
        affine[k + 1] = scaled(affine[k + 1], before=(plan.factor, plan.constant))
        t = plan.core(plan.scale * z + plan.shift)
        plans.append(plan)
        polynomials.append(polynomial)
    if plans:
        reach = np.array(plans[-1].core_range(*bounds[-1]))
    else:
        reach = np.array([-1.0, 1.0])
    center, spread = reach.mean(), (reach[1] - reach[0]) / 2
    last = affine[-1]
    weight_sum = np.asarray(last.weight.sum(axis=1)).ravel()
    absolute = np.asarray(abs(last.weight).sum(axis=1)).ravel()
    bound = float((np.abs(last.bias + center * weight_sum) + spread * absolute).max())
    bound = max(bound, 1e-12)
    affine[-1] = scaled(last, after=(1 / bound, 0.0))
    return Program(low, high, affine, plans, bound, bounds), polynomials
