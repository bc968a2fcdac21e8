"""Label flips against tree ensembles, chosen by the leaves that rows share."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ..._estimators import name_of
from .._base import Poison, PoisoningAttack


class TreePoisoning(PoisoningAttack):
    """Flip the labels of rows that share their leaves with most rows of their class.

    In each tree of the surrogate, a flipped label moves the value of its leaf, for all
    rows that lie in it, by one row's share. The damage of a flip is the sum of these
    shares, over trees and over the other rows of the leaf that have the row's label, less
    those that have the new one. It is computed once, in the trees of the clean surrogate;
    where trees are grown anew, splits change as well, which it does not foresee.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate: trees and forests of scikit-learn, `GradientBoostingClassifier`, or
        any other classifier whose ``apply(X)`` returns leaves, also at the end of a
        pipeline. None makes a prototype.
    budget : int or float, default=0.1
        How many labels are flipped: a number, or a share of the rows.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        The rows whose labels were flipped.
    sample_indices_ : ndarray of int, shape (n_samples,)
        All rows, in their order.
    damage_ : ndarray of shape (n_samples,)
        The damage of the worst flip of each row.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    LabelFlipping : Flips for other models; "farthest" is the cheap rival.

    Notes
    -----
    The attack of [1]_ flips one label after another, each time the one after which the
    retrained tree errs most, and to know these errors it regrows only the subtree below
    the first node whose split changes. That is not what happens here, for two reasons.

    A tree of scikit-learn cannot be regrown in part. The columns that its nodes try, and
    the order in which splits of equal gain are met, come from one generator, which all
    nodes use in the order in which they grow; so a subtree that is grown from its own
    rows is not that of a refit. Of 60 flips on 1,500 rows of spambase, 46 such trees of
    depth 6 are equal to the refit, 3 of those that grow to the end, and none of those
    that try the square root of the columns, as forests do.

    And it takes a subtree for each row, tree and flip: 1 to 5 ms each there, which for
    300 flips in 50 trees is eight hours or more. Growing the whole surrogate anew, 5 or
    15 times on the way, is cheap, but does less harm: errors of .17 and .15 instead of
    .20 for a forest on the same rows, a fifth of their labels flipped.

    References
    ----------
    .. [1] S. Calzavara, L. Cazzaro, M. Vettori, "Timber! Poisoning decision trees",
       arXiv:2410.00862 (white-box label flips of trees; which flips are tried is its
       idea, how their damage is estimated is not).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.poisoning import TreePoisoning
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> forest = RandomForestClassifier(20, random_state=0)
    >>> X_poisoned, y_poisoned = TreePoisoning(forest, budget=0.3).fit_resample(X, y)
    >>> bool(forest.fit(X_poisoned, y_poisoned).score(X, y) < 0.9)
    True
    """

    changes = "labels"
    knowledge = "gradient"

    _parameter_constraints = {
        name: PoisoningAttack._parameter_constraints[name]
        for name in ("estimator", "budget", "random_state")
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        budget: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.budget = budget
        self.random_state = random_state

    def _poison(self, task):
        model = self._trained_on(self._own_estimator(), task, task.seed)
        leaves = _leaves(model, task.rows)
        at, n_classes = np.arange(len(task.y)), len(task.classes)
        damage = np.zeros((len(task.y), n_classes))
        for tree in leaves.T:
            leaf = np.unique(tree, return_inverse=True)[1]
            counts = np.zeros((leaf.max() + 1, n_classes))
            np.add.at(counts, (leaf, task.y), 1.0)
            own = counts[leaf, task.y] - 1  # the row itself tells nothing
            share = (own[:, None] - counts[leaf]) / counts.sum(1)[leaf][:, None]
            damage += share
        damage[at, task.y] = -np.inf
        self.damage_ = damage.max(1)
        rows = np.argsort(-self.damage_, kind="stable")[: task.budget]
        return Poison(rows, damage[rows].argmax(1))


def _leaves(model, X):
    """Return the leaf of each row in each tree, of shape (n_samples, n_trees)."""
    if isinstance(model, Pipeline):
        X, model = model[:-1].transform(X) if len(model) > 1 else X, model[-1]
    if not hasattr(model, "apply"):
        raise TypeError(
            "estimator: TreePoisoning needs a surrogate whose apply(X) returns leaves, "
            "such as RandomForestClassifier or GradientBoostingClassifier; got "
            f"{name_of(model)}. Use LabelFlipping, or another surrogate."
        )
    leaves = np.asarray(model.apply(X))
    return leaves.reshape(len(leaves), -1)
