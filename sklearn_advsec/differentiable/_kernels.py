"""Kernels between rows and fixed points."""

import torch

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
