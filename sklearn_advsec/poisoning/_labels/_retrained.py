"""Models as functions of their training labels: retrained, and differentiated.

Linear models with an L2 penalty are solved by Newton's method, and differentiated by the
implicit function theorem; networks are differentiated through some steps of training.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from torch import nn

from ... import differentiable
from ..._estimators import ends_in_net, name_of
from ..._rows import is_dataframe
from ...exceptions import NoGradientError

# Loss, slope and curvature of a column of scores f with targets t = -1 or 1.
_LOSSES = {
    "logistic": (
        lambda f, t: np.logaddexp(0, -t * f),
        lambda f, t: -t * expit(-t * f),
        lambda f, t: expit(f) * expit(-f),
    ),
    "squared_hinge": (
        lambda f, t: np.maximum(0, 1 - t * f) ** 2,
        lambda f, t: -2 * t * np.maximum(0, 1 - t * f),
        lambda f, t: 2.0 * (t * f < 1),
    ),
    "squared": (
        lambda f, t: (f - t) ** 2 / 2,
        lambda f, t: f - t,
        lambda f, t: np.ones_like(f),
    ),
}
_NEWTON_STEPS, _TOLERANCE = 50, 1e-6
_BELOW = 10.0  # logits by which classes that labels lack lie below all others


class RetrainedLinear:
    """A linear model with an L2 penalty, for labels that change.

    Where there are more features than rows, it is solved in the space that the rows span:
    the solution lies in it.

    Parameters
    ----------
    X : {ndarray, CSR matrix} of shape (n_samples, n_features)
        Training rows.
    n_classes : int
        Number of classes.
    loss : {"logistic", "squared_hinge", "squared"}
        Of two classes, or of each class against the rest; the logistic loss of more
        classes is that of their softmax.
    scale : ndarray of shape (n_samples,)
        Factor of each row's loss.
    penalty : float
        Factor of half the squared norm of the weights.
    intercept : {None, "free"} or float
        The intercept: none, one that is not penalised, or one whose feature has this
        value and is.
    own_space : bool
        Whether it is solved in the space of the features in any case.
    """

    def __init__(self, X, n_classes, loss, scale, penalty, intercept, own_space=False):
        self.coupled = loss == "logistic" and n_classes > 2
        self.n_columns = 1 if n_classes == 2 else n_classes
        self.n_classes, self.scale = n_classes, scale[:, None]
        self.loss, self.slope, self.curvature = _LOSSES[loss]
        self.intercept = intercept
        self._project = _dense if own_space else _span(X)
        self.Z = self.features(X)
        self.penalty = np.full((self.Z.shape[1], 1), float(penalty))
        if intercept == "free":
            self.penalty[-1] = 0
        self.theta = np.zeros((self.Z.shape[1], self.n_columns))

    def features(self, X):
        """Return rows in the space in which the model is solved."""
        Z = self._project(X)
        if self.intercept is None:
            return Z
        value = 1.0 if self.intercept == "free" else float(self.intercept)
        return np.hstack([Z, np.full((len(Z), 1), value)])

    def fit(self, codes):
        """Retrain on other labels, from where the last training ended."""
        self.codes = codes
        value, slope = self._objective(self.theta)
        for _ in range(_NEWTON_STEPS):
            if np.abs(slope).max() <= _TOLERANCE * max(1.0, np.abs(self.theta).max()):
                break
            step, length = self._solve(slope), 1.0
            descent = (step * slope).sum()
            while length > 1e-6:
                theta = self.theta - length * step
                new_value, new_slope = self._objective(theta)
                if new_value <= value - 1e-4 * length * descent:
                    break
                length /= 2
            else:
                break  # as low as rounding lets it come
            self.theta, value, slope = theta, new_value, new_slope
        return self

    def scores(self, Z):
        """Return the scores of classes, of which the softmax is the probability."""
        scores = Z @ self.theta
        return np.hstack([np.zeros_like(scores), scores]) if self._binary else scores

    def gains(self, Z, slope):
        """Return how a loss would grow if a row had another label.

        Parameters
        ----------
        Z : ndarray of shape (n_rows, n_features)
            The rows of the loss, as `features` gives them.
        slope : ndarray of shape (n_rows, n_classes)
            The gradient of the loss in their scores.

        Returns
        -------
        gains : ndarray of shape (n_samples, n_classes)
            To first order, by implicit differentiation of the optimum.
        """
        slope = slope[:, 1:] if self._binary else slope
        along = self.Z @ self._solve(Z.T @ slope)
        pull = -1.0
        if not self.coupled:
            f = self.Z @ self.theta
            pull = self.slope(f, 1) - self.slope(f, -1)
        harm = self.scale * along * pull
        if self._binary:
            harm = np.hstack([np.zeros_like(harm), harm])
        return harm[np.arange(len(harm)), self.codes][:, None] - harm

    def row_slopes(self, Z, slope, rows):
        """Return how a loss grows with the features of training rows.

        Parameters
        ----------
        Z, slope : ndarray
            As for `gains`.
        rows : ndarray of int
            Which training rows. The model is solved in the space of the features.

        Returns
        -------
        slopes : ndarray of shape (n_rows, n_features)
            To first order, by implicit differentiation of the optimum.
        """
        slope = slope[:, 1:] if self._binary else slope
        return -self._pull_slopes(self._solve(Z.T @ slope), rows)

    def imbalance(self):
        """Return the gradient of the training loss: 0 for weights that it leads to."""
        return self._objective(self.theta)[1]

    def imbalance_slopes(self, imbalance, rows):
        """Return how half the squared norm of `imbalance` grows with training rows."""
        return self._pull_slopes(imbalance, rows)

    def _pull_slopes(self, along, rows):
        """Differentiate the product of `along` with the gradients of rows, in these."""
        z, scale, codes = self.Z[rows], self.scale[rows], self.codes[rows]
        f, v = z @ self.theta, z @ along
        if self.coupled:
            proba = softmax(f, axis=1)
            bend = proba * (v - (proba * v).sum(1, keepdims=True))
            pull = proba - (codes[:, None] == np.arange(self.n_classes))
        else:
            t = self._targets()[rows]
            bend, pull = self.curvature(f, t) * v, self.slope(f, t)
        slopes = scale * (pull @ along.T + bend @ self.theta.T)
        return slopes if self.intercept is None else slopes[:, :-1]

    def self_influence(self):
        """Return by how much, to first order, each row's loss would rise without it.

        Of the gradients r x of the rows' losses, with r that in the scores, it is
        ``scale * (r x) @ inverse(hessian) @ (r x)``.
        """
        f = self.Z @ self.theta
        if self.coupled:
            slope = softmax(f, axis=1)
            slope[np.arange(len(f)), self.codes] -= 1
        else:
            slope = self.slope(f, self._targets())
        if self.coupled:
            found = np.empty(len(f))
            for i in range(len(f)):
                right = np.outer(self.Z[i], slope[i])
                found[i] = (right * self._solve(right)).sum()
            return self.scale[:, 0] * found
        leverage = np.empty_like(slope)
        for j, hessian in enumerate(self._hessians(f)):
            solved = np.linalg.solve(hessian, self.Z.T)
            leverage[:, j] = (self.Z.T * solved).sum(0)
        return self.scale[:, 0] * (slope**2 * leverage).sum(1)

    @property
    def _binary(self):
        return self.n_classes == 2

    def _objective(self, theta):
        """Return the training loss and its gradient."""
        f = self.Z @ theta
        if self.coupled:
            at = np.arange(len(f)), self.codes
            loss, slope = -log_softmax(f, axis=1)[at][:, None], softmax(f, axis=1)
            slope[at] -= 1
        else:
            t = self._targets()
            loss, slope = self.loss(f, t), self.slope(f, t)
        weighed = self.penalty * theta
        value = (self.scale * loss).sum() + 0.5 * (weighed * theta).sum()
        return value, self.Z.T @ (self.scale * slope) + weighed

    def _targets(self):
        if self._binary:
            return 2.0 * self.codes[:, None] - 1
        return 2.0 * (self.codes[:, None] == np.arange(self.n_classes)) - 1

    def _solve(self, right):
        """Solve with the matrix of second derivatives at the present weights."""
        f = self.Z @ self.theta
        if self.coupled:
            return self._solve_coupled(softmax(f, axis=1), right)
        columns = zip(self._hessians(f), right.T, strict=True)
        return np.stack([np.linalg.solve(h, column) for h, column in columns], axis=1)

    def _hessians(self, f):
        """Yield the matrix of second derivatives of each column."""
        curvature = self.scale * self.curvature(f, self._targets())
        diagonal = np.arange(self.Z.shape[1])
        for column in curvature.T:
            hessian = (self.Z.T * column) @ self.Z
            hessian[diagonal, diagonal] += self.penalty[:, 0] + 1e-12
            yield hessian

    def _solve_coupled(self, proba, right):
        def times(vector):
            v = vector.reshape(right.shape)
            moved = self.Z @ v
            moved = proba * (moved - (proba * moved).sum(1, keepdims=True))
            return (self.Z.T @ (self.scale * moved) + self.penalty * v).ravel()

        hessian = LinearOperator((right.size, right.size), matvec=times, dtype=float)
        return cg(hessian, right.ravel(), rtol=1e-5, maxiter=500)[0].reshape(right.shape)


class RetrainedNet:
    """A small network for labels that change: retrained whole, differentiated unrolled.

    Parameters
    ----------
    train : callable
        ``train(codes)`` returns a network trained on labels.
    X : array-like of shape (n_samples, ...)
        Training rows.
    n_classes : int
        Number of classes.
    n_steps : int
        Steps of gradient descent that are differentiated.
    """

    def __init__(self, train, X, n_classes, n_steps=20):
        self.train, self.n_classes, self.n_steps = train, n_classes, n_steps
        self.Z = self.features(X)

    def features(self, X):
        """Return rows as the network takes them."""
        X = X.to_numpy() if is_dataframe(X) else X
        return torch.as_tensor(np.array(X, dtype=np.float64))

    def fit(self, codes):
        """Retrain on other labels."""
        self.codes = codes
        self.parameters, logits = _functional(self.train(codes))
        self.logits = _of_all_classes(logits, np.unique(codes), self.n_classes)
        return self

    def scores(self, Z):
        """Return the logits of rows."""
        with torch.no_grad():
            return self.logits(self.parameters, Z).double().numpy()

    def gains(self, Z, slope):
        """Return how a loss would grow if a row had another label, to first order.

        The labels are relaxed to distributions; the gradient goes through some more steps
        of gradient descent on them, from the trained network. The parameters are those
        of `RetrainedLinear.gains`; the slope is taken at the trained network.
        """
        soft = torch.nn.functional.one_hot(torch.as_tensor(self.codes), self.n_classes)
        soft = soft.double().requires_grad_()

        def loss(parameters):
            logits = self.logits(parameters, self.Z).double()
            return -(soft * torch.log_softmax(logits, dim=1)).sum(1).mean()

        reached = _descend(loss, self.parameters, self.n_steps)
        outside = self.logits(reached, Z).double()
        (outside * torch.as_tensor(slope)).sum().backward(inputs=[soft])
        gains = soft.grad.numpy()
        return gains - gains[np.arange(len(gains)), self.codes][:, None]


def retrained(attack, task, steps=20, *, linear_only=False):
    """Return an attack's surrogate as a function of labels, and what prepares rows.

    Parameters
    ----------
    attack : PoisoningAttack
        Its `estimator` is the surrogate.
    task : PoisonTask
        The data.
    steps : int
        For networks, the steps that are differentiated.
    linear_only : bool
        Whether networks are refused.

    Returns
    -------
    model : RetrainedLinear or RetrainedNet
        Not trained yet.
    prepare : callable
        What the steps of a pipeline before it make of rows; they were fitted on the
        clean data.

    Raises
    ------
    NoGradientError
        If the surrogate is neither a linear model with an L2 penalty nor a network.
    """
    estimator, rows = attack.estimator, task.rows
    prepare = _unchanged
    if isinstance(estimator, Pipeline):
        if ends_in_net(estimator):
            raise NoGradientError(
                "estimator: a network behind other steps has no gradient in its labels. "
                "Transform the rows before, and pass the network alone."
            )
        fitted = attack._trained_on(estimator, task)
        prepare, estimator = fitted[:-1].transform, estimator[-1]
        rows = prepare(rows)
    rows = rows.to_numpy(dtype=float) if is_dataframe(rows) else rows
    n_classes = len(task.classes)
    is_network = ends_in_net(estimator) or isinstance(estimator, MLPClassifier)
    if is_network and not linear_only:

        def train(codes):
            changed = replace(task, y=codes, rows=rows)
            return attack._trained_on(estimator, changed, task.seed)

        return RetrainedNet(train, rows, n_classes, steps), prepare
    recipe = linear_recipe(estimator)
    if recipe is None:
        raise NoGradientError(
            f"estimator: {name_of(estimator)} has no gradient in its labels. Use "
            "LogisticRegression, LinearSVC or RidgeClassifier without class weights and "
            "with an L2 penalty, MLPClassifier or a skorch net; or another strategy."
        )
    loss, factor, penalty, intercept = recipe
    scale = np.full(len(task.y), float(factor))
    if task.sample_weight is not None:
        scale *= task.sample_weight
    return RetrainedLinear(rows, n_classes, loss, scale, penalty, intercept), prepare


def _unchanged(X):
    return X


def linear_recipe(estimator):
    """Return loss, factor of the loss, penalty and intercept of an estimator, or None."""
    if getattr(estimator, "class_weight", None) is not None:
        return None
    free = "free" if getattr(estimator, "fit_intercept", False) else None
    if type(estimator) is RidgeClassifier and not estimator.positive:
        return "squared", 1.0, estimator.alpha, free
    if type(estimator) is LinearSVC:
        if (estimator.loss, estimator.penalty) != ("squared_hinge", "l2"):
            return None
        if estimator.multi_class != "ovr":
            return None
        return "squared_hinge", estimator.C, 1.0, free and estimator.intercept_scaling
    if type(estimator) is LogisticRegression:
        smooth = not estimator.l1_ratio and estimator.penalty in ("deprecated", "l2")
        if not smooth or not np.isfinite(estimator.C):
            return None
        if estimator.solver == "liblinear":
            free = free and estimator.intercept_scaling
        return "logistic", estimator.C, 1.0, free
    return None


def _dense(rows):
    return np.asarray(rows.toarray() if issparse(rows) else rows, float)


def _span(X):
    """Return the map of rows to coordinates in the space that the rows of `X` span."""
    if X.shape[0] >= X.shape[1]:
        return _dense
    gram = X @ X.T
    values, vectors = np.linalg.eigh(gram.toarray() if issparse(gram) else gram)
    keep = values > 1e-12 * values[-1]
    basis = vectors[:, keep] / np.sqrt(values[keep])

    def project(rows):
        products = rows @ X.T
        return (products.toarray() if issparse(products) else products) @ basis

    return project


def _functional(model):
    """Return the parameters of a fitted network, and its logits as their function."""
    if isinstance(model, MLPClassifier):
        return _perceptron(model)
    view = differentiable.view(model)
    module = _Logits(view)

    def logits(parameters, x):
        names = [name for name, _ in module.named_parameters()]
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, given, (x,))

    return list(module.parameters()), logits


def _of_all_classes(logits, known, n_classes):
    """Give logits of the classes that a network was told the columns of all classes."""
    if len(known) == n_classes:
        return logits

    def padded(parameters, x):
        found = logits(parameters, x)
        below = found.detach().min(dim=1, keepdim=True).values - _BELOW
        columns = torch.as_tensor(known)
        return below.repeat(1, n_classes).index_copy(1, columns, found)

    return padded


class _Logits(nn.Module):
    """The logits of a view; the module behind it is a part of this one."""

    def __init__(self, view):
        super().__init__()
        self.module, self.view = view.module, view

    def forward(self, x):
        return self.view.logits(x)


def _perceptron(model):
    activation = {
        "identity": lambda x: x,
        "logistic": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
    }[model.activation]
    layers = zip(model.coefs_, model.intercepts_, strict=True)
    parameters = [torch.as_tensor(p).double() for layer in layers for p in layer]

    def logits(parameters, x):
        for i in range(0, len(parameters), 2):
            x = x @ parameters[i] + parameters[i + 1]
            x = activation(x) if i + 2 < len(parameters) else x
        return torch.cat([torch.zeros_like(x), x], dim=1) if x.shape[1] == 1 else x

    return parameters, logits


def _descend(loss, start, n_steps, lr=0.5):
    """Take differentiable steps of descent; the rate is halved if it diverges."""
    for _ in range(30):
        parameters = [p.detach().clone().requires_grad_() for p in start]
        first = last = None
        for _ in range(n_steps):
            value = loss(parameters)
            first = value.item() if first is None else first
            slopes = torch.autograd.grad(value, parameters, create_graph=True)
            parameters = [p - lr * g for p, g in zip(parameters, slopes, strict=True)]
        last = loss(parameters).item()
        if np.isfinite(last) and last <= first + 1e-9:
            return parameters
        lr /= 2
    raise FloatingPointError("The training of the network diverges at any learning rate.")
