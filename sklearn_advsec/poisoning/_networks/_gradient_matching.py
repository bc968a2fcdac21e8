"""Gradient matching: poison whose gradient is that of the attacker's own loss."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone

from ..._sklearn import Interval
from ._base import CleanLabelAttack
from ._trigger import BackdoorTrigger, Stamping

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class _MatchingAttack(CleanLabelAttack):
    """Base of the attacks that match gradients."""

    _parameter_constraints = {
        **CleanLabelAttack._parameter_constraints,
        "eps": [Interval(Real, 0, None, closed="neither")],
        "n_surrogates": [Interval(Integral, 1, None, closed="left")],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "n_retrainings": [Interval(Integral, 0, None, closed="left")],
    }

    def _n_tasks(self):
        return self.n_restarts * (self.n_retrainings + 1) * self.max_iter

    def _craft(self, crafting):
        task = crafting.task
        rows = crafting.steepest(task.budget)
        generator = torch.Generator().manual_seed(task.seed)
        clean, best, self.loss_ = crafting.networks, None, np.inf
        for _ in range(self.n_restarts):
            crafting.networks, x = clean, None
            for turn in range(self.n_retrainings + 1):
                if turn:
                    poisoned = crafting.poisoned(rows, x)
                    seeds = task.seed + turn * self.n_surrogates
                    crafting.networks = [
                        crafting.trained(seeds + i, poisoned)
                        for i in range(self.n_surrogates)
                    ]
                loss = self._loss(crafting)
                x, (_, value) = crafting.descend(
                    rows, loss, 1 / 3, generator=generator, start=x, signs=True
                )
            if best is None or value < self.loss_:
                best, self.loss_ = x, value
        crafting.networks = clean
        return rows, best

    def _loss(self, crafting):
        """Return a function of rows: one minus the cosine of the two gradients."""
        code, goals = crafting.code, []
        parameters = [net.parameters() for net in crafting.networks]
        for net, own in zip(crafting.networks, parameters, strict=True):
            goal = torch.autograd.grad(_loss_of(net, crafting.targets, code), own)
            goals.append([g.detach() for g in goal])

        def loss(x):
            total = 0.0
            for net, own, goal in zip(crafting.networks, parameters, goals, strict=True):
                slope = torch.autograd.grad(
                    _loss_of(net, x, code), own, create_graph=True
                )
                product, square, other = (
                    sum((a * b).sum() for a, b in zip(one, two, strict=True))
                    for one, two in ((slope, goal), (slope, slope), (goal, goal))
                )
                norm = (square * other + 1e-24).sqrt()
                total = total + 1 - product / norm
            return total / len(goals)

        return loss


def _loss_of(net, x, code):
    labels = torch.full((len(x),), code, device=x.device)
    return torch.nn.functional.cross_entropy(net.logits(x), labels)


class GradientMatching(_MatchingAttack):
    r"""Witches' Brew: rows whose training gradient teaches the network something else.

    Rows of the target class, at most `eps` away from what they were and with their own
    label, are moved until the gradient of their loss in the surrogate's parameters has
    the direction of that of the attacker's loss, the target row :math:`t` with the target
    class :math:`c`,

    .. math:: \min_{|\delta| \le \epsilon} 1 - \cos\left(\nabla_\theta L(t, c),
        \sum_i \nabla_\theta L(x_i + \delta_i, y_i)\right).

    Training on them then lowers the attacker's loss as well, in networks that are
    trained from scratch too. How often that works depends on the network and the row: in
    a benchmark of peers, for a quarter of the targets.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: a skorch net, `MLPClassifier`, or a linear classifier, alone or at
        the end of a pipeline with differentiable views. None makes a prototype.
    target : array-like of shape (n_targets, ...)
        The rows that are to be misclassified; none of them may be a training row.
    target_class : label, default=None
        The class that they are to get, rows of which are changed: those whose loss has
        the longest gradient in the last layer. None takes the one that the surrogate
        finds most likely after its prediction.
    budget : int or float, default=0.01
        How many rows are changed: a number, or a share of the training rows; at most
        those of the target class.
    eps : float, default=0.1
        By how much each value may change.
    n_surrogates : int, default=1
        How many surrogates are trained, with different seeds; the mean of their
        objectives counts.
    n_restarts : int, default=1
        How often the search begins anew, at random; the best one is taken.
    n_retrainings : int, default=0
        How often, on the way, surrogates are trained on the poison so far.
    bounds : "data" or tuple (lower, upper), default="data"
        The range that changed rows stay in: by default that of each column, or of all
        pixels.
    constraints : FeatureConstraints, default=None
        What changed rows have to satisfy, to which they are projected in the end.
    max_iter : int, default=250
        Steps of signed Adam, which become smaller.
    random_state : int, RandomState instance or None, default=None
        Seed of the surrogates, and of where the search begins.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the changed rows.
    sample_indices_ : ndarray of int, shape (n_samples,)
        The row that each returned row comes from: itself.
    target_class_ : label
        The class that the target rows are to get.
    loss_ : float
        One minus the cosine of the two gradients, in the end.
    n_iter_ : int
        Steps taken.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    FeatureCollision : For representations that stay.
    SleeperAgent : The same for all rows with a trigger.

    References
    ----------
    .. [1] J. Geiping, L. Fowl, W. R. Huang, W. Czaja, G. Taylor, M. Moeller,
       T. Goldstein, "Witches' Brew: industrial scale data poisoning via gradient
       matching", arXiv:2009.02276 (Algorithm 1, without augmentation of the rows; which
       rows are changed is not drawn, but chosen as by :class:`SleeperAgent`).
    .. [2] A. Schwarzschild, M. Goldblum, A. Gupta, J. P. Dickerson, T. Goldstein, "Just
       how toxic is data poisoning? A unified benchmark for backdoor and data poisoning
       attacks", arXiv:2006.12557.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.poisoning import GradientMatching
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = LogisticRegression()
    >>> attack = GradientMatching(
    ...     model, target=X[:1], target_class=1, budget=50, eps=8, max_iter=50,
    ...     random_state=0)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X[1:], y[1:])
    >>> clean = model.fit(X[1:], y[1:]).predict_proba(X[:1])[0, 1]
    >>> poisoned = model.fit(X_poisoned, y_poisoned).predict_proba(X[:1])[0, 1]
    >>> bool(poisoned > 2 * clean)
    True
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        target: ArrayLike | None = None,
        target_class: Any = None,
        budget: float = 0.01,
        eps: float = 0.1,
        n_surrogates: int = 1,
        n_restarts: int = 1,
        n_retrainings: int = 0,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        constraints: FeatureConstraints | None = None,
        max_iter: int = 250,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.target = target
        self.target_class = target_class
        self.budget = budget
        self.eps = eps
        self.n_surrogates = n_surrogates
        self.n_restarts = n_restarts
        self.n_retrainings = n_retrainings
        self.bounds = bounds
        self.constraints = constraints
        self.max_iter = max_iter
        self.random_state = random_state


class SleeperAgent(Stamping, _MatchingAttack):
    """A hidden trigger: gradients are matched to those of rows with a trigger.

    As :class:`GradientMatching`, but what training on the poison is to teach is that any
    row with a trigger belongs to the target class. No training row shows the trigger,
    and all labels are right. On the way, surrogates are trained anew on the poison.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: a skorch net, `MLPClassifier`, or a linear classifier, alone or at
        the end of a pipeline with differentiable views. None makes a prototype.
    trigger : BackdoorTrigger or None, default=None
        The trigger, with its target class and the source classes; its budget does not
        count. None is a patch.
    budget : int or float, default=0.01
        How many rows are changed: a number, or a share of the training rows; at most
        those of the target class.
    eps : float, default=0.1
        By how much each value may change.
    n_sources : int, default=200
        How many training rows of the source classes, with the trigger, the gradient is
        that of.
    n_surrogates : int, default=1
        How many surrogates are trained, with different seeds.
    n_restarts : int, default=1
        How often the search begins anew, at random; the best one is taken.
    n_retrainings : int, default=2
        How often, on the way, surrogates are trained on the poison so far.
    bounds : "data" or tuple (lower, upper), default="data"
        The range that changed rows stay in: by default that of each column, or of all
        pixels.
    constraints : FeatureConstraints, default=None
        What changed rows have to satisfy, to which they are projected in the end.
    max_iter : int, default=100
        Steps after each training.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        Positions of the changed rows.
    sample_indices_ : ndarray of int, shape (n_samples,)
        The row that each returned row comes from: itself.
    trigger_ : BackdoorTrigger
        The fitted trigger.
    target_class_ : label
        The class that rows with the trigger are to get.
    source_classes_ : ndarray
        The classes whose rows are to get it.
    loss_ : float
        One minus the cosine of the two gradients, in the end.
    n_iter_ : int
        Steps taken.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    BackdoorTrigger : Puts the trigger itself into the training rows.

    References
    ----------
    .. [1] H. Souri, L. Fowl, R. Chellappa, M. Goldblum, T. Goldstein, "Sleeper Agent:
       scalable hidden trigger backdoors for neural networks trained from scratch",
       arXiv:2106.08970 (Algorithm 1; the gradient whose length chooses rows is that in
       the last layer, and after each training the steps begin at full length).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.metrics import backdoor_success_scorer
    >>> from sklearn_advsec.poisoning import BackdoorTrigger, SleeperAgent
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> trigger = BackdoorTrigger(image_shape=(8, 8), target_class=1)
    >>> model = LogisticRegression(max_iter=200)
    >>> agent = SleeperAgent(
    ...     model, trigger=trigger, budget=60, eps=8, max_iter=30, random_state=0)
    >>> X_poisoned, y_poisoned = agent.fit_resample(X, y)
    >>> success = backdoor_success_scorer(agent)
    >>> clean = success(model.fit(X, y), X, y)
    >>> bool(success(model.fit(X_poisoned, y_poisoned), X, y) > clean)
    True
    """

    _parameter_constraints = {
        name: constraints
        for name, constraints in _MatchingAttack._parameter_constraints.items()
        if name not in ("target", "target_class")
    } | {
        "trigger": [BackdoorTrigger, None],
        "n_sources": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        trigger: BackdoorTrigger | None = None,
        budget: float = 0.01,
        eps: float = 0.1,
        n_sources: int = 200,
        n_surrogates: int = 1,
        n_restarts: int = 1,
        n_retrainings: int = 2,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        constraints: FeatureConstraints | None = None,
        max_iter: int = 100,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.trigger = trigger
        self.budget = budget
        self.eps = eps
        self.n_sources = n_sources
        self.n_surrogates = n_surrogates
        self.n_restarts = n_restarts
        self.n_retrainings = n_retrainings
        self.bounds = bounds
        self.constraints = constraints
        self.max_iter = max_iter
        self.random_state = random_state

    def _prepare(self, task):
        trigger = BackdoorTrigger() if self.trigger is None else clone(self.trigger)
        trigger.set_params(budget=0)
        if trigger.random_state is None:
            trigger.set_params(random_state=task.seed)
        self.trigger_ = trigger.fit(task.rows, task.labels())
        self.target_class_ = trigger.target_class_
        self.source_classes_ = trigger.source_classes_

    def _aim(self, task):
        sources = np.flatnonzero(self.trigger_.eligible(task.labels()))
        sources = task.rng.permutation(sources)[: self.n_sources]
        stamped = self.trigger_.transform(task.select(sources))
        code = np.flatnonzero(task.classes == self.target_class_)[0]
        return task.codec.encode(stamped), int(code)

    def _stamp(self, rows):
        return self.trigger_.transform(rows)
