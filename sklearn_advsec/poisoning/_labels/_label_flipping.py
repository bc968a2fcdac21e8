"""Label flipping: which labels to change so that the trained model is worst."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.utils.validation import check_consistent_length

from ..._labels import class_positions
from ..._rows import is_dataframe
from ..._sklearn import Interval, StrOptions, _safe_indexing
from .._base import Poison, PoisoningAttack
from .._class_scores import class_scores
from ._retrained import retrained

_ALFA_ROUNDS = 10  # alternations; most runs repeat themselves after three or four


class LabelFlipping(PoisoningAttack):
    """Change labels of training rows.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The surrogate, for all strategies but "random". None makes the attack a
        prototype, which takes the classifier that it is to poison.
    strategy : {"random", "farthest", "alfa", "gradient"}, default="gradient"
        - "random" flips rows drawn at random, to classes drawn at random;
        - "farthest" flips the rows that lie deepest in their own class, by the scores of
          the surrogate, to the class that is farthest away;
        - "alfa" alternates between training on the flipped labels and choosing the flips
          that the trained model fits best and the clean one worst [1]_;
        - "gradient" flips, in rounds, the labels by which the error on validation rows of
          the *retrained* surrogate grows most, to first order; takes the best of these
          and the other strategies; and swaps flips as long as the error of the retrained
          surrogate rises. The gradient in the labels is implicit for
          `LogisticRegression`, `LinearSVC` and `RidgeClassifier` (also behind other steps
          of a pipeline, which stay as the clean data made them), and unrolled for
          `MLPClassifier` and skorch nets.
    budget : int or float, default=0.1
        How many labels are flipped: a number, or a share of the rows; one fewer where
        that would leave one class only.
    goal : {"misclassification", "targeted"}, default="misclassification"
        Whether predictions shall be wrong, or shall be `target_class`.
    target : None, label, ndarray, DataFrame or callable, default=None
        Whose predictions: those of all rows; of the rows with a label; of some rows that
        are not in the training data, given as such; or of a subpopulation [2]_. That is
        given by a mask of the training rows, or by a function of rows that returns one,
        such as ``lambda X: kmeans.predict(X) == 3``. Only labels of the rows with the
        label, or of the subpopulation, are flipped.
    target_class : label, default=None
        With ``goal="targeted"``, the label that predictions shall have, and that flipped
        rows get.
    validation : tuple (X, y), default=None
        Clean rows on which "gradient" measures the harm; many of them make it far
        stronger than the other strategies. Without them each half of the training rows
        gets its share of the flips, by their harm to the other half: of few rows and many
        features that finds what harms just these. So it and the other strategies are
        tried on one half first, and the one that does most harm to the other is taken.
    n_rounds : int, default=10
        For "gradient", how often the surrogate is retrained while flips are chosen.
    n_swaps : int, default=20
        For "gradient", how many exchanges of flips are tried, each of them by retraining.
    n_steps : int, default=20
        For networks, how many steps of training are differentiated.
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
    validation_errors_ : dict of str to float
        For "gradient": the mean probability of error on the validation rows (with
        ``goal="targeted"``, of the target class) after retraining, "clean" and for each
        strategy; "swapped" is that of the flips that are returned. Without `validation`:
        the share of wrong (or targeted) predictions on one half of the training rows
        after flips in the other half, without "swapped", and without "gradient" where a
        class has fewer than four rows.

    Raises
    ------
    NoGradientError
        If ``strategy="gradient"`` and the surrogate has no gradient in its labels.

    See Also
    --------
    TreePoisoning : Flips for trees.
    KNNSanitizer : The sanitizer against it.
    PoisonedClassifier : Poisons inside of `fit`.

    References
    ----------
    .. [1] H. Xiao, H. Xiao, C. Eckert, "Adversarial label flips attack on support vector
       machines", ECAI 2012 (Algorithm 1; the linear program is solved by sorting).
    .. [2] M. Jagielski et al., "Subpopulation data poisoning attacks", arXiv:2006.14026
       (Section 4: subpopulations by features and by clusters).
    .. [3] L. Munoz-Gonzalez et al., "Towards poisoning of deep learning algorithms with
       back-gradient optimization", arXiv:1708.08689 (Section 3: the bilevel problem).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_advsec.poisoning import LabelFlipping
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clean = X[:200], y[:200]
    >>> attack = LabelFlipping(RidgeClassifier(), budget=20, validation=clean)
    >>> X_poisoned, y_poisoned = attack.fit_resample(X[200:], y[200:])
    >>> len(attack.poison_indices_), int((y[200:] != y_poisoned).sum())
    (20, 20)
    >>> errors = attack.validation_errors_
    >>> errors["swapped"] >= errors["farthest"] > errors["clean"]
    True
    """

    changes = "labels"
    knowledge = "gradient"

    _parameter_constraints = {
        **PoisoningAttack._parameter_constraints,
        "strategy": [StrOptions({"random", "farthest", "alfa", "gradient"})],
        "validation": [tuple, None],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "n_swaps": [Interval(Integral, 0, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        strategy: Literal["random", "farthest", "alfa", "gradient"] = "gradient",
        budget: float = 0.1,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        target_class: Any = None,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        n_rounds: int = 10,
        n_swaps: int = 20,
        n_steps: int = 20,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.strategy = strategy
        self.budget = budget
        self.goal = goal
        self.target = target
        self.target_class = target_class
        self.validation = validation
        self.n_rounds = n_rounds
        self.n_swaps = n_swaps
        self.n_steps = n_steps
        self.random_state = random_state

    def _n_tasks(self):
        if self.strategy != "gradient":
            return 1
        given = self.validation is not None or _is_rows(self.target)
        return (self.n_rounds + self.n_swaps) * (1 if given else 3)

    def _poison(self, task):
        target_code = self._target_code(task)
        choice = _Choice(
            task.y, *self._candidates(task, target_code), target_code, task.budget
        )
        codes = getattr(self, f"_{self.strategy}")(task, choice)
        flipped = np.flatnonzero(codes != task.y)
        return Poison(flipped, codes[flipped])

    # Each strategy returns the codes of all rows, some of them flipped ------------------

    def _random(self, task, choice):
        gains = task.rng.random_sample((len(task.y), len(task.classes)))
        return choice.best(gains)

    def _farthest(self, task, choice):
        return choice.best(-_over_own(self._scores(task, task.y), task.y))

    def _alfa(self, task, choice):
        clean = _hinge(self._scores(task, task.y))
        codes, seen = choice.best(_over_own(clean, task.y)), []
        for _ in range(_ALFA_ROUNDS):
            seen.append(codes)
            tainted = _hinge(self._scores(task, codes))
            codes = choice.best(_over_own(clean - tainted, task.y))
            if any(np.array_equal(codes, old) for old in seen):
                break
        return codes

    def _gradient(self, task, choice):
        self._own_estimator()
        validation = self._validation_rows(task)
        if validation is not None:
            codes, self.validation_errors_ = self._by_gradient(task, choice, validation)
            return codes
        rows, others = _halves(task.y, task.rng)
        part, among = _part(task, choice, rows, max(1, task.budget // 2))
        model, prepare = retrained(self, part, self.n_steps)
        harm = _harm(model, prepare, _hit_rows(task, choice, others), choice.target_code)
        errors = {"clean": harm.share(model.fit(part.y))}
        strategies = {  # the first of equally good ones is taken
            "alfa": self._alfa,
            "gradient": self._by_halves,
            "farthest": self._farthest,
            "random": self._random,
        }
        if np.unique(part.y, return_counts=True)[1].min() < 2:
            del strategies["gradient"]  # it would halve once more
        for name, strategy in strategies.items():
            errors[name] = harm.share(model.fit(strategy(part, among)))
        self.validation_errors_ = errors
        return strategies[max(strategies, key=errors.get)](task, choice)

    def _by_halves(self, task, choice):
        """Return codes with the flips of each half that harm the rows of the other."""
        halves = _halves(task.y, task.rng)
        budgets = _shares(task.budget, [choice.candidates[rows].sum() for rows in halves])
        codes = task.y.copy()
        for rows, others, budget in zip(halves, halves[::-1], budgets, strict=True):
            clean = _hit_rows(task, choice, others)
            codes[rows], _ = self._by_gradient(*_part(task, choice, rows, budget), clean)
        return codes

    def _by_gradient(self, task, choice, validation):
        model, prepare = retrained(self, task, self.n_steps)
        model.fit(task.y)
        harm = _harm(model, prepare, validation, choice.target_code)
        errors = {"clean": harm.value(model)}
        best = self._greedy(model, harm, choice)
        errors["gradient"] = harm.value(model)
        for name in ("alfa", "farthest", "random"):
            codes = getattr(self, f"_{name}")(task, choice)
            errors[name] = harm.value(model.fit(codes))
            if errors[name] == max(errors.values()):
                best = codes
        codes = self._swap(model.fit(best), harm, choice)
        errors["swapped"] = harm.value(model.fit(codes))
        return codes, errors

    def _greedy(self, model, harm, choice):
        """Flip, in rounds, what the gradient says does most harm."""
        codes = choice.y
        for i in self._tasks(range(self.n_rounds), "round"):
            n_flips = choice.budget * (i + 1) // self.n_rounds
            codes = choice.best(harm.gains(model), n_flips, kept=codes)
            model.fit(codes)
        return codes

    def _swap(self, model, harm, choice):
        """Exchange flips for better ones while the retrained model gets worse."""
        codes, value = model.codes, harm.value(model)
        n_pairs = max(1, choice.budget // 4)
        for _ in self._tasks(range(self.n_swaps), "swap"):
            gains = harm.gains(model)
            flipped = np.flatnonzero(codes != choice.y)
            order = np.argsort(-gains[flipped, choice.y[flipped]], kind="stable")
            back = flipped[order[:n_pairs]]
            fewer = codes.copy()
            fewer[back] = choice.y[back]
            gains[back] = -np.inf
            tried = choice.best(gains, kept=fewer)
            as_many = (tried != choice.y).sum() == len(flipped)  # or none is left
            if as_many and harm.value(model.fit(tried)) > value:
                codes, value = tried, harm.value(model)
            elif n_pairs == 1:
                break
            else:
                n_pairs //= 2
                model.fit(codes)
        return codes

    def _scores(self, task, codes):
        """Return what the surrogate, trained on labels, gives each row and class."""
        changed = replace(task, y=codes)
        model = self._trained_on(self._own_estimator(), changed, task.seed)
        return class_scores(model, task.rows, task.classes)

    # Whose predictions, and which labels ------------------------------------------------

    def _target_code(self, task):
        """Return the code of `target_class`, or None."""
        if (self.goal == "targeted") != (self.target_class is not None):
            raise ValueError(
                "target_class goes with goal='targeted', and it with target_class; got "
                f"goal={self.goal!r}, target_class={self.target_class!r}."
            )
        if self.target_class is None:
            return None
        return class_positions([self.target_class], task.classes, "target_class")[0]

    def _candidates(self, task, target_code):
        """Return masks of the rows that `target` is about, and of those to flip."""
        if _is_rows(self.target):
            hit = np.ones(len(task.y), dtype=bool)
        else:
            hit = self._hit(task.rows, task.y, task)
        may = hit if target_code is None else hit & (task.y != target_code)
        if not may.any():
            raise ValueError(
                "target: there is no training row whose label could be flipped."
            )
        return hit, may

    def _hit(self, rows, codes, task):
        """Return a mask of the rows that `target` is about."""
        if self.target is None:
            return np.ones(len(codes), dtype=bool)
        if isinstance(self.target, (dict, type)):
            raise TypeError(
                "target must be a label, rows, a mask or a function of rows; got "
                f"{self.target!r}."
            )
        if callable(self.target):
            mask = np.asarray(self.target(rows))
        elif np.ndim(self.target) == 0:
            return codes == class_positions([self.target], task.classes, "target")[0]
        else:
            mask = np.asarray(self.target)
        if mask.shape != codes.shape or mask.dtype != bool:
            raise ValueError(
                f"target must be a label, rows, or say True or False for each of "
                f"{len(codes)} rows; got an array of {mask.dtype} of shape {mask.shape}. "
                "A mask is one of the training rows: with validation, use a function."
            )
        return mask.copy()

    def _validation_rows(self, task):
        """Return the clean rows and codes to judge by; None where none are given."""
        if _is_rows(self.target):
            return self.target, None
        if self.validation is not None:
            if len(self.validation) != 2:
                raise ValueError("validation must be a tuple (X, y).")
            rows, labels = self.validation
            if not hasattr(rows, "shape") and np.ndim(rows) != 2:
                raise ValueError("validation must be a tuple (X, y) of rows and labels.")
            codes = class_positions(labels, task.classes, "validation")
            check_consistent_length(rows, codes)
            hit = np.flatnonzero(self._hit(rows, codes, task))
            _check_hit(hit)
            return _safe_indexing(rows, hit), codes[hit]
        return None


def _halves(codes, rng):
    """Return the rows of two halves, each with half of the rows of each class."""
    mask = np.zeros(len(codes), dtype=bool)
    for k, code in enumerate(np.unique(codes)):
        of = rng.permutation(np.flatnonzero(codes == code))
        if len(of) < 2:
            raise ValueError(
                "y has a class of one row, so that the rows cannot be halved: give "
                "validation=(X, y)."
            )
        mask[of[k % 2 :: 2]] = True
    return np.flatnonzero(mask), np.flatnonzero(~mask)


def _shares(budget, n_candidates):
    """Return how much of a budget each half spends: the same, where they can."""
    first = min(max(budget // 2, budget - n_candidates[1]), n_candidates[0])
    return int(first), int(min(budget - first, n_candidates[1]))


def _part(task, choice, rows, budget):
    """Return what there is to choose among some of the rows."""
    weights = task.sample_weight
    part = replace(
        task,
        rows=task.select(rows),
        y=task.y[rows],
        sample_weight=None if weights is None else weights[rows],
        budget=budget,
    )
    masks = choice.hit[rows], choice.candidates[rows]
    return part, _Choice(part.y, *masks, choice.target_code, budget)


def _hit_rows(task, choice, rows):
    """Return those of some training rows that the harm is measured on."""
    hit = rows[choice.hit[rows]]
    _check_hit(hit)
    return task.select(hit), task.y[hit]


def _check_hit(hit):
    if not len(hit):
        raise ValueError("target: no validation row is among those it is about.")


@dataclass
class _Choice:
    """Which rows the target is, which labels may be flipped, to what, and how many."""

    y: np.ndarray
    hit: np.ndarray
    candidates: np.ndarray
    target_code: int | None
    budget: int

    def best(self, gains, n_flips=None, kept=None):
        """Return codes with the flips of largest gain, shape (n_samples, n_classes).

        Flips of the codes `kept` stay. Classes may vanish, but not all but one: nothing
        can be trained on what is left then, so that the least of the flips is undone.
        """
        codes = self.y.copy() if kept is None else kept.copy()
        n_flips = self.budget if n_flips is None else n_flips
        gains = gains.copy()
        gains[np.arange(len(codes)), self.y] = -np.inf
        if self.target_code is not None:
            gains[:, np.arange(gains.shape[1]) != self.target_code] = -np.inf
        best = gains.max(1)
        best[~self.candidates | (codes != self.y)] = -np.inf
        n_more = max(0, n_flips - int((codes != self.y).sum()))
        rows = np.argsort(-best, kind="stable")[:n_more]
        rows = rows[best[rows] > -np.inf]
        codes[rows] = gains[rows].argmax(1)
        if len(rows) and (codes == codes[0]).all():
            codes[rows[-1]] = self.y[rows[-1]]
        return codes


def _harm(model, prepare, clean, target_code):
    rows, codes = clean
    Z = model.features(prepare(rows))
    if codes is None:  # whatever the clean model says
        codes = model.scores(Z).argmax(1)
    return _Harm(Z, codes, target_code)


class _Harm:
    """The mean probability that rows get another label, or get the one aimed at."""

    def __init__(self, Z, codes, target_code):
        self.Z, self.target_code = Z, target_code
        self.codes = codes if target_code is None else np.full(len(codes), target_code)

    def value(self, model):
        """Return it for a model."""
        proba = softmax(model.scores(self.Z), axis=1)
        own = proba[np.arange(len(proba)), self.codes].mean()
        return float(1 - own if self.target_code is None else own)

    def share(self, model):
        """Return the share of rows that a model gives another label, or the target's."""
        hit = model.scores(self.Z).argmax(1) == self.codes
        return float(1 - hit.mean() if self.target_code is None else hit.mean())

    def gains(self, model):
        """Return how it would grow if training rows had other labels."""
        proba = softmax(model.scores(self.Z), axis=1)
        at = np.arange(len(proba)), self.codes
        own = proba[at][:, None]
        slope = proba * own
        slope[at] -= own[:, 0]
        slope /= len(proba)  # of the probability of another label
        return model.gains(self.Z, slope if self.target_code is None else -slope)


def _over_own(values, codes):
    """Return values of each label of a row, less that of its own."""
    return values - values[np.arange(len(values)), codes][:, None]


def _hinge(scores):
    """Return the hinge loss that each row would have with each label."""
    loss = np.empty_like(scores)
    for k in range(scores.shape[1]):
        others = np.delete(scores, k, axis=1).max(1)
        loss[:, k] = np.maximum(0, 1 + others - scores[:, k])
    return loss


def _is_rows(target):
    return not callable(target) and (is_dataframe(target) or np.ndim(target) > 1)
