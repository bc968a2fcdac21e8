"""AutoAttack (Croce and Hein 2020): an ensemble, each on what the one before left."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.frozen import FrozenEstimator

from ..._labels import class_positions
from ..._sklearn import Interval, StrOptions
from ...victim._answers import ABSTAINED
from .._base import norms, shared
from .._gradient._auto_pgd import AutoProjectedGradientDescent
from .._minimum_norm._fab import FastAdaptiveBoundary
from .._queries._square import SquareAttack
from ._base import ComposedAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class AutoAttack(ComposedAttack):
    r"""AutoAttack: four attacks of different kinds, each on the rows left by the others.

    The standard version runs Auto-PGD on the cross-entropy, Auto-PGD on the targeted
    difference of logits ratio and the targeted fast adaptive boundary attack, for up to
    nine classes each, and the square attack, which sees scores only and so is not misled
    by masked gradients. The version for random victims runs Auto-PGD on both losses, with
    every gradient drawn 20 times.

    For ``norm=1`` there is no square attack, and with ``goal="targeted"`` the targeted
    versions make for the one class that is wanted. With an array `eps`, which has no
    single radius, the boundary attack is left out.

    Its robust accuracy is an upper bound, like any attack's; a tight one for most
    networks. An adaptive attack on the very defense may still find more.

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 2, 1}, default=np.inf
        The norm that bounds the perturbation.
    eps : float, array-like of shape (n_features,), dict or Series, default=0.1
        The bound, in the units of the features.
    eps_unit : {"feature", "std", "range", "iqr"}, default="feature"
        What `eps` is a multiple of; see :class:`EvasionAttack`.
    version : {"standard", "random"}, default="standard"
        For victims whose answers are fixed, or random.
    max_iter : int, default=100
        Number of steps of the gradient attacks (for each class tried).
    n_targets : int, default=9
        How many classes the targeted attacks try.
    square_queries : int, default=5000
        Queries per row of the square attack.
    n_draws : int, default=20
        How often a gradient is drawn, for ``version="random"``.
    image_shape : tuple of int, default=None
        What a flat row is, for the square attack: (height, width) or (channels, height,
        width).
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    max_queries : int, default=None
        Largest number of queries of a row; see :class:`EvasionAttack`. It holds for all
        attacks together.
    max_total_queries : int, default=None
        Largest number of queries of a run; see :class:`EvasionAttack`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    attacks_ : list of tuple (str, evasion attack)
        The attacks, fitted, in their order.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    NoGradientError
        If the victim has no differentiable view.

    See Also
    --------
    AutoProjectedGradientDescent : Its first part, alone.
    SquareAttack : Its last part, alone, which needs no gradients.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an
       ensemble of diverse parameter-free attacks", arXiv:2003.01690 (Section 6).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.evasion import AutoAttack
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = MLPClassifier(early_stopping=True, random_state=0)
    >>> attack = AutoAttack(victim, eps=0.2, max_iter=10, square_queries=100)
    >>> attack = attack.fit(X[:1000] / 16, y[:1000])
    >>> attack.estimator_.score(X[1000:1050] / 16, y[1000:1050]) > 0.9
    True
    >>> attack.score(X[1000:1050] / 16, y[1000:1050]) < 0.5
    True
    """

    knowledge = "gradient"
    _for_regressors = (
        "Run AutoProjectedGradientDescent, FastAdaptiveBoundary and SquareAttack on it, "
        "and count the rows that any of them moved."
    )

    _parameter_constraints = {
        **ComposedAttack._parameter_constraints,
        **shared("eps_unit"),
        **shared(
            "eps",
            "max_iter",
            "image_shape",
            "goal",
            "target",
            "bounds",
            "max_queries",
            "max_total_queries",
            "random_state",
        ),
        "norm": norms(np.inf, 2, 1),
        "version": [StrOptions({"standard", "random"})],
        "n_targets": [Interval(Integral, 1, None, closed="left")],
        "square_queries": [Interval(Integral, 2, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float = np.inf,
        eps: ArrayLike | Mapping[Any, float] = 0.1,
        eps_unit: Literal["feature", "std", "range", "iqr"] = "feature",
        version: Literal["standard", "random"] = "standard",
        max_iter: int = 100,
        n_targets: int = 9,
        square_queries: int = 5000,
        n_draws: int = 20,
        image_shape: tuple[int, ...] | None = None,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.eps_unit = eps_unit
        self.version = version
        self.max_iter = max_iter
        self.n_targets = n_targets
        self.square_queries = square_queries
        self.n_draws = n_draws
        self.image_shape = image_shape
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _check_goal(self, goal):
        raise ValueError(
            f"target: the attacks were chosen in fit for goal={self.goal!r}. Set "
            "goal='targeted' and fit again."
        )

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        for _, attack in self._make_attacks(None):
            attack._check_parameters(row_shape)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept) and learn the range of the data.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted and from which `bounds` are learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        victim = FrozenEstimator(self.estimator_)
        self.attacks_ = [
            (name, attack.fit(X)) for name, attack in self._make_attacks(victim)
        ]
        return self

    def _make_attacks(self, victim):
        eps = self._ball().eps
        eps = eps if eps.ndim else float(eps)
        ball = dict(norm=self._norm, eps=eps)
        rest = dict(goal=self.goal, bounds=self.bounds, batch_size=self.batch_size)
        rest |= dict(mask=self.mask, constraints=self.constraints)
        descent = ball | rest | dict(max_iter=self.max_iter)
        targeted = self.goal == "targeted"
        auto_pgd = AutoProjectedGradientDescent
        if self.version == "random":
            descent["n_draws"] = self.n_draws
            return [
                ("APGD-CE", auto_pgd(victim, **descent)),
                ("APGD-DLR", auto_pgd(victim, loss="dlr", **descent)),
            ]
        one_by_one = dict(loss="targeted_dlr", n_targets=self.n_targets)
        dlr = dict(loss="dlr") if targeted else one_by_one
        attacks = [
            ("APGD-CE", auto_pgd(victim, **descent)),
            ("APGD-T", auto_pgd(victim, **dlr, **descent)),
        ]
        if np.ndim(eps) == 0 and eps > 0:
            n_targets = None if targeted else self.n_targets
            once = dict(n_targets=n_targets, n_restarts=1)
            attacks.append(("FAB-T", FastAdaptiveBoundary(victim, **once, **descent)))
        if self._norm != 1:
            square = SquareAttack(
                victim,
                max_queries=self.square_queries,
                image_shape=self.image_shape,
                **ball,
                **rest,
            )
            attacks.append(("Square", square))
        return attacks

    def _attack(self, state):
        access = state.access
        seed = int(torch.randint(2**31 - 1, (), generator=state.generator))
        for name, attack in self.attacks_:
            rows = state.open_rows()
            if not len(rows):
                break
            budget = self._budget(access, rows, attack)
            if budget is None:
                break
            self._run_inner(attack, state, rows, seed=seed, **budget)
            if self.verbose:
                print(f"[AutoAttack] {name}: {len(state.open_rows())} rows left")

    def _budget(self, access, rows, attack):
        """What one attack may ask, or None where nothing is left."""
        budget = {"max_queries": attack.max_queries}
        if access.max_queries is not None:
            left = int(access.affordable(rows))
            if left < 2:
                return None
            budget["max_queries"] = min(left, attack.max_queries or left)
        total = access.max_total_queries
        if total is not None:
            budget["max_total_queries"] = total - access.n_total_queries
        return budget

    def _record(self, state, rows, result):
        """Record what one attack found; rows without success keep the first attempt."""
        access = state.access
        rows = rows[torch.as_tensor(result.rows, device=rows.device)]
        access.n_queries[rows.cpu().numpy()] += result.n_queries
        success = torch.as_tensor(result.success, device=rows.device)
        show = success | (state.predicted[rows] < 0)
        predicted = np.where(result.known, ABSTAINED, -1)
        told = result.known & ~result.abstained
        predicted[told] = class_positions(result.y_pred[told], access.classes, "y_pred")
        predicted = torch.as_tensor(predicted, device=rows.device)
        x_adv = access.encode(result.X_adv)
        state.record(rows[show], x_adv[show], predicted[show], success[show])
