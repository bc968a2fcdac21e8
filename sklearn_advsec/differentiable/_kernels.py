"""Kernels between rows and fixed points."""

import math

import torch
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    Exponentiation,
    ExpSineSquared,
    Matern,
    Product,
    RationalQuadratic,
    Sum,
    WhiteKernel,
)

from ..exceptions import NoGradientError
from ._views import constant


def kernel_of(estimator, points, gamma):
    """Return the kernel that an estimator has, between rows and fixed points."""
    return kernel_function(
        estimator.kernel,
        points,
        gamma=gamma,
        coef0=estimator.coef0,
        degree=estimator.degree,
    )


def kernel_function(name, points, *, gamma=None, coef0=1.0, degree=3):
    """Return the function ``x -> K(x, points)`` of shape (n, n_points).

    Parameters
    ----------
    name : str or callable
        The kernel as scikit-learn names it.
    points : array-like of shape (n_points, n_features)
        Support vectors, landmarks.
    gamma : float, default=None
        1 / n_features if None.
    coef0, degree : float
        Offset and exponent of the polynomial kernel; the sigmoid's offset.
    """
    points = constant(points)
    gamma = 1.0 / points.shape[1] if gamma is None else float(gamma)
    squares = (points * points).sum(dim=1)

    def rbf(x):
        # Not clamped at 0, and no root: exact gradients, also on a support vector.
        distance = (x * x).sum(dim=1, keepdim=True) + squares - 2 * x @ points.T
        return torch.exp(-gamma * distance)

    kernels = {
        "linear": lambda x: x @ points.T,
        "rbf": rbf,
        "poly": lambda x: (gamma * (x @ points.T) + coef0) ** degree,
        "sigmoid": lambda x: torch.tanh(gamma * (x @ points.T) + coef0),
        "laplacian": lambda x: torch.exp(-gamma * torch.cdist(x, points, p=1)),
    }
    kernels["polynomial"] = kernels["poly"]
    if not isinstance(name, str) or name not in kernels:
        shown = getattr(name, "__name__", name)
        raise NoGradientError(
            f"The kernel {shown!r} has no differentiable form here: a callable or "
            "precomputed kernel says nothing of how it depends on the rows. "
            f"Differentiable kernels are {', '.join(sorted(kernels))}."
        )
    return kernels[name]


def covariance_function(kernel, points):
    """Return the function ``x -> kernel(x, points)`` of a Gaussian process' kernel."""
    points = constant(points)
    if isinstance(kernel, (Sum, Product)):
        first, second = (covariance_function(k, points) for k in (kernel.k1, kernel.k2))
        if isinstance(kernel, Sum):
            return lambda x: first(x) + second(x)
        return lambda x: first(x) * second(x)
    if isinstance(kernel, Exponentiation):
        base = covariance_function(kernel.kernel, points)
        return lambda x: base(x) ** kernel.exponent
    if type(kernel) is ConstantKernel:
        return lambda x: x.new_full((len(x), len(points)), kernel.constant_value)
    if type(kernel) is WhiteKernel:  # of the noise of the rows that were fitted on
        return lambda x: x.new_zeros((len(x), len(points)))
    if type(kernel) is DotProduct:
        return lambda x: x @ points.T + kernel.sigma_0**2
    form = _of_distance(kernel)
    scale = constant(kernel.length_scale)
    if type(kernel) is ExpSineSquared:
        scale = torch.ones(())  # which is not one of the features

    def between(x):
        # Not by way of a matrix product, which is not exact enough near a point.
        mode = "donot_use_mm_for_euclid_dist"
        return form(torch.cdist(x / scale, points / scale, compute_mode=mode))

    return between


def _of_distance(kernel):
    """Return a kernel as a function of the distance, in its length scales."""
    if type(kernel) is RBF:
        return lambda d: torch.exp(-d.square() / 2)
    if type(kernel) is RationalQuadratic:
        return lambda d: (1 + d.square() / (2 * kernel.alpha)) ** -kernel.alpha
    if type(kernel) is ExpSineSquared:
        pitch, scale = math.pi / kernel.periodicity, kernel.length_scale
        return lambda d: torch.exp(-2 * (torch.sin(pitch * d) / scale).square())
    if type(kernel) is Matern:
        forms = {
            0.5: lambda d: torch.exp(-d),
            1.5: lambda d: (1 + 3**0.5 * d) * torch.exp(-(3**0.5) * d),
            2.5: lambda d: (1 + 5**0.5 * d + 5 * d**2 / 3) * torch.exp(-(5**0.5) * d),
            math.inf: lambda d: torch.exp(-d.square() / 2),
        }
        if kernel.nu in forms:
            return forms[kernel.nu]
    raise NoGradientError(
        f"The kernel {kernel} has no differentiable form here: those that have one are "
        "RBF, Matern with nu=0.5, 1.5, 2.5 or inf, RationalQuadratic, ExpSineSquared, "
        "DotProduct, ConstantKernel, WhiteKernel, and what is made of them by sums, "
        "products and powers."
    )
