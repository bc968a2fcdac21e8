"""Bullseye polytope: poison around the target row, its mean right on it."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval
from ._base import CleanLabelAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class BullseyePolytope(CleanLabelAttack):
    r"""Rows of a class whose mean representation becomes that of a target row.

    Rows of the target class, at most `eps` away from what they were, are moved until, in
    the representations :math:`f_m` of several surrogates, their mean is that of the
    target row,

    .. math:: \min \frac{1}{2M} \sum_m \frac{|f_m(t) - \frac{1}{k} \sum_j f_m(x_j)|^2}
        {|f_m(t)|^2}.

    The target row then lies in the middle of rows of another class, in representations
    that the attacker does not know as well; it transfers better than
    :class:`FeatureCollision`. Of several target rows, it is the mean that is met.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: a skorch net, `MLPClassifier`, or a linear classifier, alone or at
        the end of a pipeline with differentiable views. None makes a prototype.
    target : array-like of shape (n_targets, ...)
        The rows that are to be misclassified; none of them may be a training row.
    target_class : label, default=None
        The class that they are to get, rows of which are changed. None takes the one that
        the surrogate finds most likely after its prediction.
    budget : int or float, default=5
        How many rows are changed: a number, or a share of the training rows; at most
        those of the target class.
    eps : float, default=0.1
        By how much each value may change.
    learning_rate : float, default=0.1
        Step of Adam, in units of `eps`.
    n_surrogates : int, default=1
        How many surrogates are trained, with different seeds.
    bounds : "data" or tuple (lower, upper), default="data"
        The range that changed rows stay in: by default that of each column, or of all
        pixels.
    constraints : FeatureConstraints, default=None
        What changed rows have to satisfy, to which they are projected in the end.
    max_iter : int, default=200
        Steps.
    random_state : int, RandomState instance or None, default=None
        Seed of the surrogates.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the changed rows.
    sample_indices_ : ndarray of int, shape (n_samples,)
        The row that each returned row comes from: itself.
    target_class_ : label
        The class that the target rows are to get.
    loss_ : tuple of float
        The objective before and after.
    n_iter_ : int
        Steps taken.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    FeatureCollision : Moves each row onto the target row.

    References
    ----------
    .. [1] H. Aghakhani, D. Meng, Y.-X. Wang, C. Kruegel, G. Vigna, "Bullseye polytope: a
       scalable clean-label poisoning attack with improved transferability",
       arXiv:2005.00191 (the objective in what the last layer sees, also of several
       target rows; not that of all layers, for victims that are trained end to end, and
       without dropout in the surrogates).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.poisoning import BullseyePolytope
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> attack = BullseyePolytope(
    ...     LogisticRegression(), target=X[:1], target_class=1, eps=8, random_state=0)
    >>> attack = attack.fit(X[1:], y[1:])
    >>> before, after = attack.loss_
    >>> bool(after < 0.3 * before)
    True
    """

    _parameter_constraints = {
        **CleanLabelAttack._parameter_constraints,
        "eps": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_surrogates": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        target: ArrayLike | None = None,
        target_class: Any = None,
        budget: float = 5,
        eps: float = 0.1,
        learning_rate: float = 0.1,
        n_surrogates: int = 1,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        constraints: FeatureConstraints | None = None,
        max_iter: int = 200,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.target = target
        self.target_class = target_class
        self.budget = budget
        self.eps = eps
        self.learning_rate = learning_rate
        self.n_surrogates = n_surrogates
        self.bounds = bounds
        self.constraints = constraints
        self.max_iter = max_iter
        self.random_state = random_state

    def _craft(self, crafting):
        networks = crafting.networks
        with torch.no_grad():
            wanted = [net.features(crafting.targets).mean(0) for net in networks]
        rows, _ = crafting.nearest(crafting.task.budget)

        def loss(x):
            return sum(
                (goal - net.features(x).mean(0)).square().sum()
                / goal.square().sum().clamp_min(1e-12)
                for goal, net in zip(wanted, networks, strict=True)
            ) / (2 * len(networks))

        x, history = crafting.descend(rows, loss, self.learning_rate)
        self.loss_ = history
        return np.asarray(rows), x
