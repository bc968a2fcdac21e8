"""Many logistic or ridge models trained as one."""

import copy
import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.utils import check_array

from .._sklearn import _safe_indexing

_MEMORY = 10  # pairs of steps and gradients that L-BFGS keeps


def logistic_is_batchable(estimator):
    """Whether an estimator is a logistic regression that is written here."""
    if type(estimator) is not LogisticRegression:
        return False
    smooth = not estimator.l1_ratio and estimator.penalty in ("deprecated", "l2")
    # liblinear penalises the intercept, and makes one model per class
    primal = estimator.solver != "liblinear" and not estimator.dual
    plain = estimator.class_weight is None and not estimator.warm_start
    return smooth and primal and plain and np.isfinite(estimator.C)


def ridge_is_batchable(estimator):
    """Whether an estimator is a ridge classifier that is written here."""
    if type(estimator) is not RidgeClassifier:
        return False
    plain = estimator.class_weight is None and not estimator.positive
    return plain and np.ndim(estimator.alpha) == 0 and estimator.alpha > 0


def train_logistic(models, X, codes, classes, subsets, device=None):
    """Fit `LogisticRegression`s as one: batched L-BFGS to the same optimum.

    It pays where the device has many processors: on one, BLAS calls per model are as
    fast as those per batch, and no model waits for the slowest. Parameters are those of
    `train_perceptrons`.
    """
    recipe = models[0]
    x, truth = _tensors(recipe, X, codes, classes, subsets, device)
    n_models, n_rows, n_features = x.shape
    n_outputs = 1 if len(classes) == 2 else len(classes)
    penalty = 1 / (recipe.C * n_rows)

    def unpack(theta):
        theta = theta.view(n_models, n_features + 1, n_outputs)
        return theta[:, :-1], theta[:, -1:]

    def loss_and_gradient(theta):
        weight, bias = unpack(theta)
        logits = torch.bmm(x, weight)
        if recipe.fit_intercept:
            logits += bias
        if n_outputs == 1:
            target = truth.unsqueeze(2).to(x.dtype)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, target, reduction="none"
            ).mean((1, 2))
            delta = torch.sigmoid(logits) - target
        else:
            target = truth.unsqueeze(2)
            log_proba = torch.log_softmax(logits, 2)
            loss = -log_proba.gather(2, target).mean((1, 2))
            delta = log_proba.exp()
            delta.scatter_add_(2, target, -torch.ones_like(target, dtype=x.dtype))
        loss = loss + 0.5 * penalty * weight.square().sum((1, 2))
        delta /= n_rows
        gradient = torch.empty_like(theta).view(n_models, n_features + 1, n_outputs)
        gradient[:, :-1] = torch.bmm(x.transpose(1, 2), delta) + penalty * weight
        gradient[:, -1] = delta.sum(1) if recipe.fit_intercept else 0
        return loss, gradient.view(n_models, -1)

    start = torch.zeros(
        n_models, (n_features + 1) * n_outputs, dtype=x.dtype, device=x.device
    )
    theta, n_iter = minimize(loss_and_gradient, start, recipe.tol, recipe.max_iter)
    weight, bias = unpack(theta)
    _fill(models, X, codes, classes, weight, bias, n_iter)


def train_ridge(models, X, codes, classes, subsets, device=None):
    """Fit `RidgeClassifier`s as one: the normal equations of all of them at once.

    Parameters are those of `train_perceptrons`.
    """
    recipe = models[0]
    x, truth = _tensors(recipe, X, codes, classes, subsets, device)
    n_outputs = 1 if len(classes) == 2 else len(classes)
    if n_outputs == 1:
        target = 2.0 * truth.unsqueeze(2).to(x.dtype) - 1
    else:
        target = 2.0 * torch.nn.functional.one_hot(truth, n_outputs).to(x.dtype) - 1
    x_mean = x.mean(1, keepdim=True) * recipe.fit_intercept
    y_mean = target.mean(1, keepdim=True) * recipe.fit_intercept
    x, target = x - x_mean, target - y_mean
    transposed = x.transpose(1, 2)
    if x.shape[1] < x.shape[2]:  # fewer rows than features: the dual is smaller
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        gram = torch.bmm(x, transposed) + recipe.alpha * identity
        weight = torch.bmm(transposed, _solve(gram, target))
    else:
        identity = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
        gram = torch.bmm(transposed, x) + recipe.alpha * identity
        weight = _solve(gram, torch.bmm(transposed, target))
    bias = y_mean - torch.bmm(x_mean, weight)
    _fill(models, X, codes, classes, weight, bias, None)


def _solve(gram, target):
    """Solve systems whose matrices are symmetric, and mostly positive definite.

    Of features that depend on each other the penalty may be lost in rounding; then the
    shortest solutions are taken, as scikit-learn does.
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        return torch.linalg.pinv(gram, hermitian=True) @ target
    return torch.cholesky_solve(target, factor)


def minimize(function, start, tol, max_iter):
    """Minimise several smooth convex functions at once by L-BFGS.

    Each has its own step length and stops by itself: a function that has reached its
    minimum gets steps of length 0.

    Parameters
    ----------
    function : callable
        Maps points (n_functions, n_variables) to values (n_functions,) and gradients.
    start : tensor of shape (n_functions, n_variables)
        Where to begin.
    tol : float
        A function is done when no entry of its gradient is larger.
    max_iter : int
        Largest number of iterations.

    Returns
    -------
    point : tensor of shape (n_functions, n_variables)
    n_iter : ndarray of int, shape (n_functions,)
        How many steps each took.

    References
    ----------
    .. [1] J. Nocedal and S. Wright, "Numerical Optimization", Algorithms 7.4 and 7.5,
       with a backtracking line search (Algorithm 3.1).
    """
    point = start.clone()
    value, gradient = function(point)
    pairs, n_iter = [], np.zeros(len(point), dtype=np.int64)
    for _ in range(max_iter):
        open_ = gradient.abs().amax(1) > tol
        if not open_.any():
            break
        n_iter += open_.cpu().numpy()
        direction = -_two_loops(gradient, pairs)
        slope = (direction * gradient).sum(1)
        step = open_.to(point.dtype)
        if not pairs:
            step = step / gradient.norm(dim=1).clamp(min=1.0)
        for _ in range(30):
            trial = point + step[:, None] * direction
            new_value, new_gradient = function(trial)
            short = new_value > value + 1e-4 * step * slope + 1e-15
            if not short.any():
                break
            step = torch.where(short, step / 2, step)
        moved, bend = trial - point, new_gradient - gradient
        curvature = (moved * bend).sum(1)
        useful = curvature > 1e-12 * bend.square().sum(1)
        rho = torch.where(useful, 1 / curvature, 0.0)
        pairs = [*pairs[1 - _MEMORY :], (moved, bend, rho)]
        point, value, gradient = trial, new_value, new_gradient
    return point, n_iter


def _two_loops(gradient, pairs):
    """Multiply gradients by the approximation of the inverse Hessian."""
    q, alphas = gradient.clone(), []
    for moved, bend, rho in reversed(pairs):
        alphas.append(rho * (moved * q).sum(1))
        q -= alphas[-1][:, None] * bend
    if pairs:
        moved, bend, rho = pairs[-1]
        scale = (moved * bend).sum(1) / bend.square().sum(1)
        q *= torch.where(rho > 0, scale, 1.0)[:, None]
    for (moved, bend, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - rho * (bend * q).sum(1))[:, None] * moved
    return q


def _tensors(estimator, X, codes, classes, subsets, device):
    """Return the rows of each model (n_models, n_rows, n_features), and their labels."""
    if len(classes) < 2:
        raise ValueError(f"y must have two or more classes; it has {len(classes)}.")
    floats = [np.float64, np.float32]
    X = check_array(X, dtype=floats, estimator=estimator, input_name="X")
    x = torch.as_tensor(X[subsets], device=device)
    return x, torch.as_tensor(codes[subsets], device=device)


def _fill(models, X, codes, classes, weight, bias, n_iter):
    """Fit the models in place: attributes of a model of a few rows, then the solution."""
    # A row of each class; for classes that these models have not seen, any.
    rows = np.zeros(len(classes), dtype=int)
    seen, first = np.unique(codes, return_index=True)
    rows[seen] = first
    skeleton = copy.deepcopy(models[0])
    if hasattr(skeleton, "tol") and n_iter is not None:
        skeleton.set_params(tol=1e3, verbose=0)  # any solution will do
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a few rows, which say nothing
        skeleton.fit(_safe_indexing(X, rows), classes)
    weight, bias = weight.cpu().numpy(), bias.cpu().numpy()
    for i, model in enumerate(models):
        parameters = model.get_params()
        model.__dict__.update(copy.deepcopy(skeleton.__dict__))
        model.set_params(**parameters)
        model.coef_ = weight[i].T.reshape(skeleton.coef_.shape).copy()
        if model.fit_intercept:
            model.intercept_ = bias[i, 0].copy()
        if n_iter is not None:
            model.n_iter_ = np.array([n_iter[i]], dtype=np.int32)
