"""Feature collision: poison that looks like one class and is represented as a row of
another.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ._base import CleanLabelAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints

_TINY = 1e-12


class FeatureCollision(CleanLabelAttack):
    r"""Poison frogs: rows whose representation collides with that of a target row.

    Rows :math:`b` of the target class, those nearest to the target row :math:`t` in the
    surrogate's representation :math:`f` (what its last layer sees), become

    .. math:: \arg\min_x \frac{|f(x) - f(t)|}{|f(b) - f(t)|}
        + \beta \frac{|x - b|^2}{|t - b|^2}

    by forward-backward splitting. Their labels stay. A model that learns them all by
    heart, and shares the representation, gives the target row their class.

    It works where the representation stays and the last layer is trained (`estimator` a
    pipeline of :class:`LastHiddenLayer` and a linear classifier with little
    regularization); a network that is fine-tuned moves its representation away, which a
    `watermark` and more rows make up for; one that is trained from scratch is hardly
    ever deceived. Then :class:`GradientMatching` is the attack. How far rows moved
    tells what a human would see: it is often half the way to the target row.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: a skorch net, `MLPClassifier`, or a linear classifier, alone or at
        the end of a pipeline with differentiable views. None makes a prototype.
    target : array-like of shape (n_targets, ...)
        The rows that are to be misclassified; none of them may be a training row. Of
        several, each gets its share of the budget.
    target_class : label, default=None
        The class that they are to get, rows of which are changed. None takes the one that
        the surrogate finds most likely after its prediction.
    budget : int or float, default=5
        How many rows are changed: a number, or a share of the training rows; at most
        those of the target class.
    beta : float, default=0.2
        Weight of staying near to the row as it was. It is free of units, unlike the
        paper's.
    watermark : float, default=0.0
        Share of the target row that is blended into rows before; they stay near to the
        blend.
    bounds : "data" or tuple (lower, upper), default="data"
        The range that changed rows stay in: by default that of each column, or of all
        pixels.
    constraints : FeatureConstraints, default=None
        What changed rows have to satisfy, to which they are projected in the end.
    max_iter : int, default=200
        Steps. The size of a row's step is halved where its objective would rise, and
        grows again.
    random_state : int, RandomState instance or None, default=None
        Seed of the surrogate.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the changed rows.
    sample_indices_ : ndarray of int, shape (n_samples,)
        The row that each returned row comes from: itself.
    target_class_ : label
        The class that the target rows are to get.
    feature_distance_ : ndarray of shape (n_crafted, 2)
        Distance of each crafted row's representation from that of its target row, before
        and after, in the order of the rows.
    row_distance_ : ndarray of shape (n_crafted, 2)
        Distance of the target row, and of the crafted row, from the row as it was.
    n_iter_ : int
        Steps taken.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    Raises
    ------
    ValueError
        If a target row is among the training rows, or `target_class` among no labels.
    NoGradientError
        If the surrogate is no network and no linear model.

    See Also
    --------
    BullseyePolytope : Places several rows around the target row, for several surrogates.
    GradientMatching : For networks that are trained from scratch.
    LastHiddenLayer : A representation that stays.

    References
    ----------
    .. [1] A. Shafahi, W. R. Huang, M. Najibi, O. Suciu, C. Studer, T. Dumitras,
       T. Goldstein, "Poison frogs! Targeted clean-label poisoning attacks on neural
       networks", arXiv:1804.00792 (Algorithm 1, with the distance of features as in the
       authors' experiments, not its square; Section 4.2 for the watermark).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.poisoning import FeatureCollision
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = LogisticRegression(C=100)
    >>> attack = FeatureCollision(model, target=X[:1], target_class=1, random_state=0)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X[1:], y[1:])
    >>> model.fit(X[1:], y[1:]).predict(X[:1]).item()
    0
    >>> model.fit(X_poisoned, y_poisoned).predict(X[:1]).item()
    1
    """

    _parameter_constraints = {
        **CleanLabelAttack._parameter_constraints,
        "beta": [Interval(Real, 0, None, closed="left")],
        "watermark": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        target: ArrayLike | None = None,
        target_class: Any = None,
        budget: float = 5,
        beta: float = 0.2,
        watermark: float = 0.0,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        constraints: FeatureConstraints | None = None,
        max_iter: int = 200,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.target = target
        self.target_class = target_class
        self.budget = budget
        self.beta = beta
        self.watermark = watermark
        self.bounds = bounds
        self.constraints = constraints
        self.max_iter = max_iter
        self.random_state = random_state

    def _craft(self, crafting):
        network = crafting.networks[0]
        with torch.no_grad():
            wanted = network.features(crafting.targets)
        rows, at = crafting.nearest(crafting.task.budget)
        wanted, targets = wanted[at], crafting.targets[at]
        given = crafting.X[rows]
        base = given + self.watermark * (targets - given)
        before = _length(network.features(given) - wanted).detach()
        reach = _length(targets - given)

        def parts(x):
            features = _length(network.features(x) - wanted) / before.clamp_min(_TINY)
            return features, self.beta * (_length(x - base) / reach) ** 2

        x = self._descend(parts, base, reach, crafting)
        with torch.no_grad():
            after = _length(network.features(x) - wanted)
        self.feature_distance_ = torch.stack([before, after], 1).cpu().numpy()
        self.row_distance_ = torch.stack([reach, _length(x - given)], 1).cpu().numpy()
        return rows, x

    def _descend(self, parts, base, reach, crafting):
        """Take steps on the features, and after each one back in closed form."""
        wide = (-1, *[1] * (base.ndim - 1))
        pull = (2 * self.beta / reach**2).reshape(wide)
        x = base.clamp(crafting.lower, crafting.upper)
        with torch.no_grad():
            best = sum(parts(x))
        step = None
        for _ in self._tasks(range(self.max_iter), "step"):
            crafting.n_steps += 1
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(parts(x)[0].sum(), x)
            x = x.detach()
            if step is None:
                step = 0.5 * reach / _length(slope).clamp_min(_TINY)
            sizes = step.reshape(wide)
            tried = (x - sizes * slope + sizes * pull * base) / (1 + sizes * pull)
            tried = tried.clamp(crafting.lower, crafting.upper)
            with torch.no_grad():
                value = sum(parts(tried))
            better = value < best  # never where it is NaN
            x = torch.where(better.reshape(wide), tried, x)
            best = torch.where(better, value, best)
            step = torch.where(better, 1.2 * step, step / 2)
        return x


def _length(x):
    return (x.flatten(1).square().sum(1) + _TINY**2).sqrt()
