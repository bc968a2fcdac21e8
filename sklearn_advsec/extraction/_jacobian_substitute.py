"""Jacobian-based substitutes (Papernot et al. 2017)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from .. import differentiable
from .._estimators import check_each_fits
from .._labels import class_positions
from .._sklearn import HasMethods, Interval, StrOptions
from ..threat import Box
from ._active import distinct_rows
from ._pool import PoolExtraction
from ._surrogates import AveragedSurrogates, train


class JacobianSubstitute(PoolExtraction):
    r"""Grow a substitute from a few rows and the victim's labels.

    Each round trains the substitute, moves every row by
    :math:`\lambda\,\mathrm{sgn}(\nabla_x F_{O(x)}(x))`, where O(x) is the victim's label
    for it, and asks the victim about the new rows only: the directions in which the
    substitute's answer changes are those worth asking about. The substitute is
    differentiable, so that adversarial examples made on it (which often transfer to the
    victim) are one ``ProjectedGradientDescent(FrozenEstimator(substitute))`` away.

    The seed counts among the queries. Without a `max_queries`, `n_rounds` ends them: each
    round at most doubles the rows.

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    surrogate : classifier, list of classifiers, or None, default=None
        What becomes the copy: any that :mod:`sklearn_advsec.differentiable` has a view
        of, skorch nets among them. Of several, each moves its share of the rows. None is
        a perceptron with 100 hidden units behind a scaler.
    select : {"best", "all"}, default="best"
        Of several surrogates, keep the one that agrees best with the victim on a fifth of
        the rows held out, or all of them, their probabilities averaged.
    n_rounds : int, default=6
        Number of augmentations; each at most doubles the rows.
    step_size : float, default=0.1
        :math:`\lambda`, in units of the features.
    flip_every : int or None, default=None
        :math:`\tau`: the step changes its sign every so many rounds. None is never.
    reservoir : int or None, default=None
        :math:`\kappa`: how many rows are moved per round, drawn at random, after
        `reservoir_after` rounds. None is all of them.
    reservoir_after : int, default=3
        :math:`\sigma`.
    bounds : tuple of two array-likes or None, default=None
        Smallest and largest values of the features, to which rows are clipped; None is no
        bounds.
    max_queries : int, default=None
        How many rows may be sent in all; see :class:`ExtractionAttack`.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_`.
    warm_start : bool, default=False
        Whether the next fit goes on from what was paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

    Attributes
    ----------
    copy_ : classifier
        The substitute.
    surrogates_ : list of classifiers
        All that were trained, in the order given.
    holdout_agreement_ : ndarray of shape (n_surrogates,)
        Share of held-out rows on which each agrees with the victim; not there for a
        single surrogate.
    n_rounds_ : int
        Number of augmentations made before the budget was spent.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    Raises
    ------
    QueryBudgetExceeded
        If `max_queries` does not do for the seed; its answers are kept.
    ValueError
        If the victim gives all seed rows the same label.

    See Also
    --------
    PRADADetector : Detects it.
    sklearn_advsec.evasion.TransferAttack : Attacks by the copy.

    References
    ----------
    .. [1] N. Papernot et al., "Practical black-box attacks against machine learning",
       ASIA CCS 2017, arXiv:1602.02697 (Algorithm 1; Section 4.2).
    .. [2] N. Papernot, P. McDaniel, I. Goodfellow, "Transferability in machine learning:
       from phenomena to black-box attacks using adversarial samples", arXiv:1605.07277
       (Section 4: periodic step size and reservoir sampling).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn_advsec.extraction import JacobianSubstitute
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = RandomForestClassifier(random_state=0).fit(X, y)
    >>> attack = JacobianSubstitute(FrozenEstimator(victim), n_rounds=2).fit(X[::10])
    >>> attack.n_queries_ <= 60, attack.fidelity(X) > 0.8
    (True, True)
    """

    knowledge = "label"
    numeric = True

    _parameter_constraints = {
        **PoolExtraction._parameter_constraints,
        "surrogate": [HasMethods(["fit", "predict"]), list, tuple, None],
        "select": [StrOptions({"best", "all"})],
        "n_rounds": [Interval(Integral, 0, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither")],
        "flip_every": [Interval(Integral, 1, None, closed="left"), None],
        "reservoir": [Interval(Integral, 1, None, closed="left"), None],
        "reservoir_after": [Interval(Integral, 0, None, closed="left")],
        "bounds": [tuple, list, None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        surrogate: Any = None,
        select: Literal["best", "all"] = "best",
        n_rounds: int = 6,
        step_size: float = 0.1,
        flip_every: int | None = None,
        reservoir: int | None = None,
        reservoir_after: int = 3,
        bounds: tuple[ArrayLike, ArrayLike] | None = None,
        max_queries: int | None = None,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.surrogate = surrogate
        self.select = select
        self.n_rounds = n_rounds
        self.step_size = step_size
        self.flip_every = flip_every
        self.reservoir = reservoir
        self.reservoir_after = reservoir_after
        self.bounds = bounds
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def _query(self, oracle, array, y, rng):
        Box(self.bounds, array)  # refuses what is no box, or excludes the seed
        rows = distinct_rows(oracle.as_sent(array))
        labels = oracle.ask(rows)
        if len(np.unique(labels)) < 2:
            raise ValueError(
                f"the victim gives all {len(rows)} rows of the seed the same label, "
                f"{labels.tolist()[0]!r}; a substitute needs rows of two classes or more."
            )
        self.n_rounds_ = 0
        for round_ in range(self.n_rounds):
            if not oracle.affordable:
                break
            copies = self._train_all(rows, labels, rng)
            base = np.arange(len(rows))
            if self.reservoir is not None and round_ >= self.reservoir_after:
                base = rng.permutation(base)[: self.reservoir]
            new = self._augment(copies, rows[base], labels[base], round_)
            new = distinct_rows(oracle.as_sent(new))
            fresh = new[~_among(new, rows)]
            n_known = int(oracle.known(fresh).sum())  # in an earlier fit
            if len(fresh) - n_known > oracle.affordable:
                fresh = fresh[rng.permutation(len(fresh))]
            within, answers = oracle.ask_what_fits(fresh)
            if not len(answers):
                break
            rows = np.concatenate([rows, fresh[within]])
            labels = np.concatenate([labels, answers])
            self.n_rounds_ += 1
        self._rows, self._labels = rows, labels

    def _train(self, oracle, rng):
        rows, labels = self._rows, self._labels
        del self._rows, self._labels  # a pickled copy holds no data
        surrogates = self._surrogates()
        self.classes_ = self._victim_classes(np.unique(labels))
        if len(surrogates) > 1:
            holdout = np.zeros(len(rows), dtype=bool)
            holdout[rng.permutation(len(rows))[: max(len(rows) // 5, 1)]] = True
            tried = self._train_all(rows[~holdout], labels[~holdout], rng)
            self.holdout_agreement_ = np.array(
                [
                    np.mean(copy.predict(rows[holdout]) == labels[holdout])
                    for copy in tried
                ]
            )
        if len(surrogates) > 1 and self.select == "best":
            best = int(self.holdout_agreement_.argmax())
            self.surrogates_ = tried
            self.surrogates_[best] = train(
                surrogates[best], rows, labels, self.classes_, rng
            )
            return self.surrogates_[best]
        self.surrogates_ = self._train_all(rows, labels, rng)
        if len(surrogates) == 1:
            return self.surrogates_[0]
        return AveragedSurrogates(self.surrogates_, self.classes_)

    def _train_all(self, rows, labels, rng):
        classes = self._victim_classes(np.unique(labels))
        return [train(s, rows, labels, classes, rng) for s in self._surrogates()]

    def _surrogates(self):
        if isinstance(self.surrogate, (list, tuple)):
            return check_each_fits(self.surrogate, "surrogate")
        return [self.surrogate]

    def _augment(self, copies, rows, labels, round_):
        """Move each row along the sign of a substitute's gradient for its own label."""
        step = self.step_size
        if self.flip_every is not None and (round_ // self.flip_every) % 2:
            step = -step
        moved = rows.copy()
        for i, copy in enumerate(copies):
            at = slice(i, None, len(copies))
            moved[at] += (step * _jacobian_sign(copy, rows[at], labels[at])).astype(
                rows.dtype
            )
        if self.bounds is not None:
            moved = np.clip(moved, *self.bounds)
        return moved

    def _check_parameters(self):
        if isinstance(self.surrogate, (list, tuple)) and not len(self.surrogate):
            raise ValueError("surrogate is an empty list; give at least one classifier.")
        if self.bounds is not None and len(self.bounds) != 2:
            raise ValueError(f"bounds must be (lowest, highest); got {self.bounds!r}.")


def _jacobian_sign(copy, rows, labels, batch_size=512):
    """Sign of the gradient of the label's log-probability.

    It is that of the probability itself, which the paper takes, but does not vanish where
    the probability is 0 or 1.
    """
    view = differentiable.view(copy)
    own = class_positions(labels, view.classes, "labels")
    own = torch.as_tensor(own, device=view.device)
    signs = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        x = torch.as_tensor(part, dtype=view.dtype, device=view.device).requires_grad_()
        log_p = torch.log_softmax(view.logits(x), dim=1)
        chosen = log_p.gather(1, own[start : start + batch_size, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
        signs.append(gradient.sign().cpu().numpy())
    return np.concatenate(signs)


def _among(rows, others):
    """Whether each row is one of `others`."""
    known = {row.tobytes() for row in np.ascontiguousarray(others)}
    return np.array([row.tobytes() in known for row in np.ascontiguousarray(rows)], bool)
