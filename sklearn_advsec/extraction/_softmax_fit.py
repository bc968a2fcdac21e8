"""Softmax models fitted to probabilities."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax


def fit_softmax(X, proba, *, start=None, l2=1e-9, max_iter=500):
    """Fit a linear softmax model to soft labels by cross-entropy, which is convex.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_columns)
        Rows, with a column of ones where an intercept is wanted.
    proba : ndarray of shape (n_rows, n_classes)
        What the model should answer.
    start : ndarray of shape (n_classes, n_columns), optional
        Where to begin.
    l2 : float, default=1e-9
        A trace of shrinkage, so that rows at 0 and 1 push nothing to infinity.

    Returns
    -------
    weights : ndarray of shape (n_classes, n_columns)
        Whose columns sum to 0.
    """
    shape = (proba.shape[1], X.shape[1])

    def loss(flat):
        weights = flat.reshape(shape)
        log_p = log_softmax(X @ weights.T, axis=1)
        gradient = (np.exp(log_p) - proba).T @ X / len(X) + l2 * weights
        value = -(proba * log_p).sum() / len(X) + l2 / 2 * (weights**2).sum()
        return value, gradient.ravel()

    start = np.zeros(shape) if start is None else start
    options = {"maxiter": max_iter, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = found.x.reshape(shape)
    return weights - weights.mean(axis=0)


def refine_softmax(X, proba, weights, *, max_iter=30):
    """Minimise the squared error of the probabilities, by Levenberg-Marquardt.

    Rounding gives every probability an error of the same size, so least squares in the
    probabilities is the estimate that goes with it, and saturated answers weigh nothing.

    Parameters
    ----------
    X, proba : ndarray
        As for :func:`fit_softmax`.
    weights : ndarray of shape (n_classes, n_columns)
        Where to begin.

    Returns
    -------
    weights : ndarray of shape (n_classes, n_columns)
        Whose columns sum to 0.
    """
    n_classes, width = weights.shape
    damping = 1e-3
    error = softmax(X @ weights.T, axis=1) - proba
    for _ in range(max_iter):
        p = error + proba
        # d p_a / d z_b = p_a (1[a = b] - p_b): one small matrix per row.
        slope = p[:, :, None] * (np.eye(n_classes) - p[:, None, :])
        curvature = np.einsum("nab,nac->nbc", slope, slope)
        normal = np.einsum("nbc,ni,nj->bicj", curvature, X, X, optimize=True)
        normal = normal.reshape(n_classes * width, -1)
        gradient = np.einsum("nab,na,ni->bi", slope, error, X, optimize=True).ravel()
        scale = np.diag(normal) + 1e-12 * np.trace(normal) / len(normal)
        improved = False
        for _ in range(8):
            step = np.linalg.solve(normal + damping * np.diag(scale), gradient)
            trial = weights - step.reshape(weights.shape)
            trial_error = softmax(X @ trial.T, axis=1) - proba
            if (trial_error**2).sum() < (error**2).sum():
                improved = True
                break
            damping *= 8
        if not improved:
            break
        gain = 1 - (trial_error**2).sum() / (error**2).sum()
        weights, error, damping = trial, trial_error, damping / 8
        if gain < 1e-8:
            break
    return weights - weights.mean(axis=0)


def fit_network(X, proba, n_hidden, activation, rng, *, n_restarts=5, max_iter=2000):
    """Fit a network of one hidden layer to soft labels, from several random starts.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Rows, with features of about unit scale.
    proba : ndarray of shape (n_rows, n_classes)
        What the network should answer.
    n_hidden : int
        Number of hidden units.
    activation : {"tanh", "logistic", "relu"}
        Their activation.
    rng : RandomState
        Draws the starts.
    n_restarts, max_iter : int
        How many starts, and how many steps of L-BFGS from each.

    Returns
    -------
    weights : tuple of ndarray
        Hidden weights (n_features, n_hidden), hidden biases, output weights
        (n_hidden, n_classes), output biases.
    loss : float
        The Kullback-Leibler divergence that is left, per row.
    """
    n, d = X.shape
    k = proba.shape[1]
    sizes = np.cumsum([d * n_hidden, n_hidden, n_hidden * k])
    entropy = -np.sum(proba * np.log(np.clip(proba, 1e-300, None))) / n

    def unpack(flat):
        w1, b1, w2, b2 = np.split(flat, sizes)
        return w1.reshape(d, n_hidden), b1, w2.reshape(n_hidden, k), b2

    def loss(flat):
        w1, b1, w2, b2 = unpack(flat)
        hidden, slope = _ACTIVATIONS[activation](X @ w1 + b1)
        log_p = log_softmax(hidden @ w2 + b2, axis=1)
        error = (np.exp(log_p) - proba) / n
        back = (error @ w2.T) * slope
        parts = (X.T @ back, back.sum(0), hidden.T @ error, error.sum(0))
        gradient = np.concatenate([part.ravel() for part in parts])
        return -(proba * log_p).sum() / n - entropy, gradient

    best = None
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "maxcor": 40}
    options |= {"ftol": 1e-16, "gtol": 1e-12}
    for _ in range(n_restarts):
        start = np.concatenate(
            [
                rng.normal(scale=d**-0.5, size=d * n_hidden),
                rng.normal(scale=0.5, size=n_hidden),
                rng.normal(scale=n_hidden**-0.5, size=n_hidden * k),
                np.zeros(k),
            ]
        )
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        if best is None or found.fun < best.fun:
            best = found
        if best.fun < 1e-10:
            break
    return unpack(best.x), float(best.fun)


def _tanh(z):
    a = np.tanh(z)
    return a, 1 - a**2


def _logistic(z):
    a = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    return a, a * (1 - a)


def _relu(z):
    return np.maximum(z, 0), (z > 0).astype(z.dtype)


_ACTIVATIONS = {"tanh": _tanh, "logistic": _logistic, "relu": _relu}
