"""Label flipping: which labels to change so that the trained model is worst."""

import numpy as np
from sklearn.utils._param_validation import StrOptions

from ..._labels import class_positions
from .._base import Poison, PoisoningAttack


class LabelFlipping(PoisoningAttack):
    """Change labels of training rows.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate, for all strategies but "random". None makes the attack a
        prototype, which takes the classifier that it is to poison.
    strategy : {"random", "farthest"}, default="farthest"
        - "random" flips rows drawn at random, to classes drawn at random;
        - "farthest" flips the rows that lie deepest in their own class, by the scores of
          the surrogate, to the class that is farthest away.
    budget : int or float, default=0.1
        How many labels are flipped: a number, or a share of the rows.
    goal : {"misclassification", "targeted"}, default="misclassification"
        Whether predictions shall be wrong, or shall be `target_class`.
    target : None, label, ndarray of bool or callable, default=None
        Whose predictions: those of all rows, of rows with a label, of a subpopulation
        given by a mask of the training rows, or by a function of rows that returns one,
        such as ``lambda X: kmeans.predict(X) == 3``. Only its labels are flipped.
    target_class : label, default=None
        With ``goal="targeted"``, the label that flipped rows get.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    poison_indices_ : ndarray of int
        The rows whose labels were flipped.
    sample_indices_ : ndarray of int, shape (n_samples,)
        All rows, in their order.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    References
    ----------
    .. [1] H. Xiao, H. Xiao, C. Eckert, "Adversarial label flips attack on support vector
       machines", ECAI 2012 (Section 5: random flips, and flips by distance).
    .. [2] M. Jagielski et al., "Subpopulation data poisoning attacks", arXiv:2006.14026
       (Section 4: subpopulations by features and by clusters).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_advsec.poisoning import LabelFlipping
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> attack = LabelFlipping(RidgeClassifier(), strategy="farthest", budget=20)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X, y)
    >>> len(attack.poison_indices_), int((y != y_poisoned).sum())
    (20, 20)
    """

    changes = "labels"
    knowledge = "score"

    _parameter_constraints = {
        **PoisoningAttack._parameter_constraints,
        "strategy": [StrOptions({"random", "farthest"})],
    }

    def __init__(
        self,
        estimator=None,
        *,
        strategy="farthest",
        budget=0.1,
        goal="misclassification",
        target=None,
        target_class=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.strategy = strategy
        self.budget = budget
        self.goal = goal
        self.target = target
        self.target_class = target_class
        self.random_state = random_state

    def _poison(self, task):
        candidates = self._candidates(task)
        if self.strategy == "random":
            flips = self._random(task, candidates)
        else:
            flips = self._farthest(task, candidates)
        return Poison(*flips)

    def _candidates(self, task):
        """Return the rows whose labels may be flipped."""
        may = self._hit(task)
        if self._aim(task) is not None:
            may &= task.y != self._aim(task)
        if not may.any():
            raise ValueError(
                "target: no training row is left whose label could be flipped."
            )
        return np.flatnonzero(may)

    def _hit(self, task):
        """Return a mask of the training rows that `target` is about."""
        if self.target is None:
            return np.ones(len(task.y), dtype=bool)
        if callable(self.target):
            mask = np.asarray(self.target(task.rows))
        elif np.ndim(self.target) == 0:
            return task.y == class_positions([self.target], task.classes, "target")[0]
        else:
            mask = np.asarray(self.target)
        if mask.shape != task.y.shape or mask.dtype != bool:
            raise ValueError(
                f"target must be a label, or say True or False for each of the "
                f"{len(task.y)} rows; got an array of {mask.dtype} of shape {mask.shape}."
            )
        return mask.copy()

    def _aim(self, task):
        """Return the code of `target_class`, or None."""
        if (self.goal == "targeted") != (self.target_class is not None):
            raise ValueError(
                "target_class goes with goal='targeted', and it with target_class; got "
                f"goal={self.goal!r}, target_class={self.target_class!r}."
            )
        if self.target_class is None:
            return None
        return class_positions([self.target_class], task.classes, "target_class")[0]

    def _random(self, task, candidates):
        rows = task.rng.permutation(candidates)[: task.budget]
        step = task.rng.randint(1, len(task.classes), size=len(rows))
        codes = (task.y[rows] + step) % len(task.classes)
        aim = self._aim(task)
        return rows, codes if aim is None else np.full(len(rows), aim)

    def _farthest(self, task, candidates):
        model = self._trained_on(
            self._own_estimator(), task, seed=task.rng.randint(2**31 - 1)
        )
        scores = class_scores(model, task.rows)[candidates]
        own = task.y[candidates]
        at = np.arange(len(own))
        aim = self._aim(task)
        codes = (
            np.full(len(own), aim) if aim is not None else _farthest_other(scores, own)
        )
        depth = scores[at, own] - scores[at, codes]
        order = np.argsort(-depth, kind="stable")[: task.budget]
        return candidates[order], codes[order]


def class_scores(model, X):
    """Return a classifier's score of each class, of shape (n_samples, n_classes)."""
    if hasattr(model, "decision_function"):
        scores = np.asarray(model.decision_function(X))
        if scores.ndim == 1:
            return np.stack([-scores, scores], axis=1)
        if scores.shape[1] == len(model.classes_):
            return scores
    return np.asarray(model.predict_proba(X))


def _farthest_other(scores, own):
    """Return the class of the lowest score that is not a row's own."""
    scores = scores.copy()
    scores[np.arange(len(own)), own] = np.inf
    return scores.argmin(1)
