"""Points against support vector machines: the gradient of the dual's solution."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.svm import SVC

from ..._estimators import name_of
from ..._progress import logged
from ..._sklearn import Interval
from ...exceptions import NoGradientError
from .._base import train_on
from ._base import PointAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_SMALLEST = 1e-3  # step, in radii of the sphere


class SVMPoisoning(PointAttack):
    """Add points, one after another, up the gradient of an SVM's validation loss.

    Each point begins as a training row with another label, and moves against the machine
    that was trained on all points before it. While the set of support vectors stays, the
    dual solution is linear in the kernel's values, which gives the gradient of the hinge
    loss on validation rows in the point's features; a step is halved until the retrained
    machine's loss rises, and the search ends where none does. More classes are attacked
    one against the rest, in turns.

    Parameters
    ----------
    estimator : SVC or None, default=None
        The surrogate: an `SVC` with a linear, polynomial or RBF kernel, without class
        weights. None makes a prototype.
    budget : int or float, default=0.03
        How many points are added: a number, or a share of the rows.
    percentile : float, default=100
        Which percentile of the distances of clean rows is the radius of the sphere, and
        the width of the slab, that points stay in.
    constraints : FeatureConstraints, default=None
        What a row has to satisfy to be valid.
    max_iter : int, default=20
        Steps of each point.
    validation : tuple (X, y), default=None
        Clean rows to measure the loss on; the training rows by default.
    random_state : int, RandomState instance or None, default=None
        Seed of the first rows, and of where points are inserted.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the added rows in the data that is returned.
    sample_indices_ : ndarray of int
        The row that each returned row comes from; -1 for added ones.
    validation_error_ : float
        Error of the surrogate, trained with the points, on the validation rows.
    losses_ : ndarray of shape (budget, 2)
        Hinge loss on the validation rows with each point, where it began and ended.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    MinMaxPoisoning : Against a sanitizer that knows the data.
    InfluencePoisoning : For other linear models.

    Notes
    -----
    The surrogate is trained without sample weights, which the dual has no place for here;
    weights that come in are handed on beside their rows.

    References
    ----------
    .. [1] B. Biggio, B. Nelson, P. Laskov, "Poisoning attacks against support vector
       machines", arXiv:1206.6389 (equations 8 to 10; Algorithm 1, with a line search).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.poisoning import SVMPoisoning
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)[:120]
    >>> attack = SVMPoisoning(SVC(kernel="linear"), budget=4, max_iter=5, random_state=0)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X, y[:120])
    >>> bool((attack.losses_[:, 1] >= attack.losses_[:, 0]).all())
    True
    """

    _parameter_constraints = {
        **PointAttack._parameter_constraints,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        budget: float = 0.03,
        percentile: float = 100,
        constraints: FeatureConstraints | None = None,
        max_iter: int = 20,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.budget = budget
        self.percentile = percentile
        self.constraints = constraints
        self.max_iter = max_iter
        self.validation = validation
        self.random_state = random_state

    def _n_tasks(self):
        return None

    def _points(self, data):
        machine = self.estimator
        if type(machine) is not SVC or machine.kernel not in ("linear", "rbf", "poly"):
            raise NoGradientError(
                "SVMPoisoning needs an SVC with a linear, polynomial or RBF kernel; got "
                f"{name_of(machine)}. Use MinMaxPoisoning, or another surrogate."
            )
        if machine.class_weight is not None:
            raise NoGradientError("SVMPoisoning takes no class weights.")
        validation, truth = data.validation()
        rows, codes, losses = data.X, data.y, []
        rng, n_classes = data.task.rng, data.n_classes
        for i in self._tasks(range(data.budget), "point", stops=False):
            own = i % n_classes  # rows of this class get another's label
            code = (own + rng.randint(1, n_classes)) % n_classes
            against = 1 if n_classes == 2 else code  # the class that is set apart
            start = data.X[rng.choice(np.flatnonzero(data.y == own))]
            signs = np.where(codes == against, 1.0, -1.0)
            game = _Dual(
                machine,
                rows,
                signs,
                1.0 if code == against else -1.0,
                validation,
                np.where(truth == against, 1.0, -1.0),
                data.task.seed,
            )
            point, ends = self._move(
                game, data.sets[code], data.sets[code].nearest(start)
            )
            losses.append(ends)
            rows, codes = np.vstack([rows, point]), np.append(codes, code)
        self.losses_ = np.array(losses)
        yield rows[len(data.X) :], codes[len(data.X) :]

    def _move(self, game, of, point):
        first = loss = game.loss(point)
        step = 0.3
        for _ in logged(range(self.max_iter), type(self).__name__, "step of a point"):
            slope = game.slope(point)
            length = np.linalg.norm(slope)
            if not np.isfinite(length) or length == 0:
                break  # the point is no support vector: nothing depends on it
            while step > _SMALLEST:
                tried = of.nearest(point + step * of.radius / length * slope)
                found = game.loss(tried)
                if found > loss:
                    break
                step /= 2
            else:
                break
            point, loss, step = tried, found, min(2 * step, 1.0)
            game.loss(point)  # the machine that the next slope is of
        return point, (first, loss)


class _Dual:
    """The hinge loss on validation rows of an SVM that is trained with one point more."""

    def __init__(self, machine, rows, signs, sign, validation, truth, seed):
        self.machine, self.rows, self.signs = machine, rows, signs
        self.sign, self.validation, self.truth = sign, validation, truth
        self.seed = seed

    def loss(self, point):
        """Train with the point, and return the loss."""
        X = np.vstack([self.rows, point])
        signs = np.append(self.signs, self.sign)
        self.model = train_on(self.machine, X, signs, seed=self.seed)
        self.margins = self.truth * self.model.decision_function(self.validation)
        return float(np.maximum(0, 1 - self.margins).mean())

    def slope(self, point):
        """Return the gradient of the loss in the point, while support vectors stay."""
        model, C = self.model, self.machine.C
        last = len(self.rows)
        duals = np.zeros(last + 1)
        duals[model.support_] = np.abs(model.dual_coef_[0])
        if duals[last] == 0:
            return np.zeros_like(point)
        X = np.vstack([self.rows, point])
        signs = np.append(self.signs, self.sign)
        on = np.flatnonzero((duals > 1e-8 * C) & (duals < C * (1 - 1e-8)))
        if not len(on):
            return np.zeros_like(point)
        wrong = np.flatnonzero(self.margins < 1)
        with torch.no_grad():
            inner = self._kernel(X[on], X[on]).numpy()
            outer = self._kernel(self.validation[wrong], X[on]).numpy()
        inner = inner * np.outer(signs[on], signs[on])
        outer = outer * np.outer(self.truth[wrong], signs[on])
        # Of the equations that keep margins at 1 and the duals' sum at 0.
        system = np.block([[inner, signs[on][:, None]], [signs[on], 0.0]])
        right = np.hstack([outer, self.truth[wrong][:, None]])
        answers = np.linalg.lstsq(system, right.T, rcond=None)[0][:-1].T
        x = torch.as_tensor(point).clone().requires_grad_()
        weight = torch.as_tensor(duals * signs) * self.sign
        by_row = self._kernel(X[:last], x[None])[:, 0]
        own = (weight[:last] * by_row).sum() + duals[last] * self._kernel(
            x[None], x[None]
        )
        near = torch.as_tensor(signs[:last] * self.sign * duals[last]) * by_row
        near = torch.cat([near, own.reshape(1)])[torch.as_tensor(on)]
        far = self._kernel(self.validation[wrong], x[None])[:, 0]
        far = far * torch.as_tensor(self.truth[wrong] * self.sign * duals[last])
        loss = -(far - torch.as_tensor(answers) @ near).sum() / len(self.truth)
        return torch.autograd.grad(loss, x)[0].numpy()

    def _kernel(self, one, other):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        machine, gamma = self.machine, self.model._gamma
        if machine.kernel == "linear":
            return one @ other.T
        if machine.kernel == "poly":
            return (gamma * (one @ other.T) + machine.coef0) ** machine.degree
        squares = ((one[:, None] - other[None]) ** 2).sum(2)
        return torch.exp(-gamma * squares)
