"""What clean-label attacks share: rows of one class are changed, for a row of another."""

from numbers import Integral

import numpy as np
import torch

from ..._labels import class_positions
from ..._rows import is_dataframe, plain_rows
from ..._sklearn import Interval
from ...threat import Box, FeatureConstraints
from .._base import Poison, PoisoningAttack, train_on
from ._representation import Network


class CleanLabelAttack(PoisoningAttack):
    """Base of the attacks that change rows of a class, so that other rows go over to it.

    The labels stay, and are right. A subclass writes ``_craft(crafting)``, which returns
    which rows it changes and what they become, for what `Crafting` holds.

    Parameters
    ----------
    target : array-like of shape (n_targets, ...)
        The rows that are to be misclassified; none of them may be a training row.
    target_class : label or None
        The class that they are to get, rows of which are changed. None takes the one
        that the surrogate finds most likely after its prediction for these rows.
    bounds : "data" or tuple (lower, upper)
        The range that changed rows stay in.
    constraints : FeatureConstraints or None
        What changed rows have to satisfy.
    max_iter : int
        Steps.
    """

    changes = "rows"
    knowledge = "gradient"

    _parameter_constraints = {
        **{
            name: PoisoningAttack._parameter_constraints[name]
            for name in ("estimator", "budget", "random_state")
        },
        "target": ["array-like", None],
        "target_class": "no_validation",
        "bounds": [tuple, str],
        "constraints": [FeatureConstraints, None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    n_surrogates = 1

    def _craft(self, crafting):
        """Return the positions of rows, and a tensor of what they become."""
        raise NotImplementedError

    def _aim(self, task):
        """Return the rows that are to be misclassified, and their code or None."""
        code = None
        if self.target_class is not None:
            found = class_positions([self.target_class], task.classes, "target_class")
            code = int(found[0])
        if self.target is None:
            raise ValueError(
                f"{type(self).__name__} needs target: the rows, none of them among "
                "those of X, that are to be misclassified."
            )
        rows, _ = plain_rows(self.target)
        if is_dataframe(rows):
            rows = rows.to_numpy(dtype=np.float64)
        targets = np.asarray(rows, dtype=np.float64)
        if targets.shape[1:] != task.X.shape[1:] or not len(targets):
            raise ValueError(
                f"target must be rows of shape {task.X.shape[1:]}, as in X; got an "
                f"array of shape {targets.shape}."
            )
        if not np.isfinite(targets).all():
            raise ValueError("target must be finite.")
        flat = task.X.reshape(len(task.X), -1)
        for i, row in enumerate(targets.reshape(len(targets), -1)):
            same = np.flatnonzero((flat == row).all(1))
            if len(same):
                raise ValueError(
                    f"target: row {i} is row {same[0]} of X. A row that is trained "
                    "on with its own label is no target: leave it out of X."
                )
        return targets, code

    def _n_tasks(self):
        return self.max_iter

    def _poison(self, task):
        self._own_estimator()
        crafting = Crafting(self, task)
        rows, x = self._craft(crafting)
        self.n_iter_ = crafting.n_steps
        self.target_class_ = task.classes[crafting.code]
        X = x.cpu().numpy().astype(np.float64).reshape(len(rows), *task.X.shape[1:])
        return Poison(rows, None, crafting.valid(rows, X))


class Crafting:
    """Training data, surrogates and targets, for attacks that change rows.

    Attributes
    ----------
    task : PoisonTask
        The data.
    networks : list of Network
        The surrogates, trained on the clean data with different seeds.
    X : tensor of shape (n_samples, ...)
        The rows.
    targets : tensor of shape (n_targets, ...)
        The rows that are to be misclassified.
    code : int
        That of the class that they are to get.
    own : ndarray of int
        The rows of this class: those that may be changed.
    lower, upper : tensor
        Their range.
    n_steps : int
        How many steps the attack has taken.
    """

    def __init__(self, attack, task):
        self.attack, self.task, self.n_steps = attack, task, 0
        name = type(attack).__name__
        if task.codec.mutable is not None:
            raise ValueError(
                f"{name} changes rows of numbers: encode the columns of text and "
                "categories before, such as by OneHotEncoder."
            )
        targets, code = attack._aim(task)
        box = Box(attack.bounds, task.X)
        if attack.constraints is not None:
            attack.constraints.check(task.rows)
        self.networks = [self.trained(task.seed + i) for i in range(attack.n_surrogates)]
        self.X = self.networks[0].tensor(task.X)
        self.targets = self.networks[0].tensor(targets)
        self.lower, self.upper = (
            torch.as_tensor(np.asarray(bound), dtype=self.X.dtype)
            for bound in (box.lower, box.upper)
        )
        self.code = self._runner_up() if code is None else code
        self.own = np.flatnonzero(task.y == self.code)

    def trained(self, seed, rows=None):
        """Return a surrogate, trained on the data, or on other rows with its labels."""
        task = self.task
        rows = task.rows if rows is None else rows
        model = train_on(
            self.attack.estimator, rows, task.labels(), task.sample_weight, int(seed)
        )
        return Network(model)

    def _runner_up(self):
        """Return the class that is most likely after the one that is predicted."""
        with torch.no_grad():
            proba = sum(
                torch.softmax(net.logits(self.targets), 1).mean(0)
                for net in self.networks
            )
        return int(proba.argsort(descending=True)[1])

    def nearest(self, n_rows):
        """Choose rows of the own class, in turns those nearest to each target row.

        Returned are their positions, sorted, and the target row that each is for.
        """
        with torch.no_grad():
            own = self._features(self.X[self.own])
            far = torch.cdist(self._features(self.targets), own).cpu().numpy()
        chosen = {}
        for turn in range(min(n_rows, len(self.own))):
            at = turn % len(far)
            nearest = int(far[at].argmin())
            far[:, nearest] = np.inf
            chosen[int(self.own[nearest])] = at
        rows = sorted(chosen)
        return np.array(rows), [chosen[row] for row in rows]

    def _features(self, x):
        return torch.cat([net.features(x) for net in self.networks], dim=1)

    def steepest(self, n_rows):
        """Choose the rows of the own class whose loss has the longest gradient.

        That in the last layer's weights: the product of two lengths.
        """
        x = self.X[self.own]
        norms = torch.zeros(len(x), dtype=self.X.dtype)
        with torch.no_grad():
            for net in self.networks:
                gap = torch.softmax(net.logits(x), 1)
                gap[:, self.code] -= 1
                norms += (gap.norm(dim=1) * net.features(x).norm(dim=1)).to(norms)
        order = norms.argsort(descending=True, stable=True)[:n_rows]
        return np.sort(self.own[order.numpy()])

    def descend(
        self, rows, loss, learning_rate, *, generator=None, start=None, signs=False
    ):
        """Move rows within their balls to where a loss of all of them is least.

        Parameters
        ----------
        rows : ndarray of int
            Their positions.
        loss : callable
            Maps a tensor of the rows to a number.
        learning_rate : float
            Of Adam, in units of the attack's `eps`.
        generator : torch.Generator, optional
            Where it begins at random, its source; else at the rows themselves.
        start : tensor, optional
            Where it goes on.
        signs : bool
            Whether Adam sees the signs of gradients, with steps that become smaller.

        Returns
        -------
        x : tensor
            The best rows that were met; none where the loss is NaN.
        history : tuple of float
            The loss in the beginning, and the least.
        """
        attack, x0 = self.attack, self.X[rows]
        low = torch.maximum(self.lower - x0, x0.new_tensor(-attack.eps)).clamp_max(0)
        high = torch.minimum(self.upper - x0, x0.new_tensor(attack.eps)).clamp_min(0)
        if start is not None:
            delta = start - x0
        elif generator is not None:
            share = torch.rand(x0.shape, generator=generator, dtype=x0.dtype)
            delta = low + (high - low) * share.to(x0.device)
        else:
            delta = torch.zeros_like(x0)
        delta.requires_grad_()
        step = learning_rate * attack.eps
        optimizer = torch.optim.Adam([delta], lr=step)
        best, least, first = x0, np.inf, None
        for i in attack._tasks(range(attack.max_iter), "step"):
            self.n_steps += 1
            value = loss(x0 + delta)
            (slope,) = torch.autograd.grad(value, delta)
            value = float(value.detach())
            first = value if first is None else first
            if value < least:
                best, least = (x0 + delta).detach(), value
            if signs:
                slope = slope.sign()
                passed = sum(8 * i >= k * attack.max_iter for k in (3, 5, 7))
                optimizer.param_groups[0]["lr"] = step * 0.1**passed
            delta.grad = torch.nan_to_num(slope)
            optimizer.step()
            with torch.no_grad():
                delta.clamp_(low, high)
        value = float(loss(x0 + delta).detach())
        if value < least:
            best, least = (x0 + delta).detach(), value
        return best, (first, least)

    def poisoned(self, rows, x):
        """Return the training rows with some of them changed, as estimators take them."""
        X = self.task.X.copy()
        X[rows] = x.cpu().numpy().reshape(len(rows), *X.shape[1:])
        return self.task.decode(X, np.arange(len(X)))

    def valid(self, rows, X):
        """Return changed rows as the constraints allow them."""
        constraints = self.attack.constraints
        if constraints is None:
            return X
        before = self.task.select(rows)
        after = constraints.project(before, self.task.decode(X, rows))
        return self.task.codec.encode(after)
