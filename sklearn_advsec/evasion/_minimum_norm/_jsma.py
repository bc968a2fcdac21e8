"""Jacobian-based saliency map attack (Papernot et al. 2015)."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval, StrOptions
from .._base import shared
from ._base import MinimumNormAttack, Search

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class JacobianSaliencyMap(MinimumNormAttack):
    r"""Jacobian-based saliency map attack (JSMA): change few features, each by a lot.

    Each step changes the pair of features that, together, raises the output of the
    target and lowers the sum of the others most,

    .. math:: \arg\max_{(p, q)} -(\alpha_p + \alpha_q)(\beta_p + \beta_q), \quad
        \alpha = \nabla_x F_t, \ \beta = \nabla_x \sum_{j \ne t} F_j,

    where the first factor is positive and the second negative. The search over pairs is
    exact: a feature with two better ones in both factors belongs to no best pair, and
    few are left. Without a target, the output of the present class is lowered and the sum
    of the others raised. Distances count features (``norm=0``).

    Features may be changed again until they are at the edge of the box.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim; see :class:`EvasionAttack`.
    theta : float or array-like of shape (n_features,), default=1.0
        By how much a step changes a feature, in its units. Negative values lower it.
    gamma : float, default=0.5
        Which share of the features may change at most.
    outputs : {"probability", "logit"}, default="probability"
        What the saliency map is made of: JSMA-F or JSMA-Z in the terms of [3]_. With
        probabilities the others' sum falls as the target's rises, so that one gradient
        is enough; it is that of the logarithm, which vanishes for no probability.
    pairwise : bool, default=True
        Whether features change in pairs; otherwise one by one, which is the paper's first
        saliency map (also used where `gamma` leaves room for a single feature).
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
        Largest number of queries of a row; see :class:`EvasionAttack`.
    max_total_queries : int, default=None
        Largest number of queries of a run; see :class:`EvasionAttack`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
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
    PointwiseAttack : Few features too, from labels only.
    OnePixel : Few pixels, from scores.

    References
    ----------
    .. [1] N. Papernot et al., "The limitations of deep learning in adversarial settings",
       arXiv:1511.07528 (Algorithms 2 and 3).
    .. [2] R. Wiyatno and A. Xu, "Maximal Jacobian-based saliency map attack",
       arXiv:1808.07945 (the version without a target).
    .. [3] N. Carlini and D. Wagner, "Towards evaluating the robustness of neural
       networks", arXiv:1608.04644 (Section IV.C).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.evasion import JacobianSaliencyMap
    >>> X, y = load_digits(return_X_y=True)
    >>> victim = MLPClassifier(early_stopping=True, random_state=0)
    >>> attack = JacobianSaliencyMap(victim, gamma=0.25, goal="targeted", target=3)
    >>> result = attack.fit(X[:1000] / 16, y[:1000]).run(X[1000:1050] / 16)
    >>> bool(result.success.mean() > 0.8), bool(result.distance.max() <= 16)
    (True, True)
    """

    norm = 0
    _parameter_constraints = {
        **MinimumNormAttack._parameter_constraints,
        **shared("goal", "target"),
        "theta": [Real, "array-like"],
        "gamma": [Interval(Real, 0, 1, closed="right")],
        "outputs": [StrOptions({"probability", "logit"})],
        "pairwise": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        theta: ArrayLike = 1.0,
        gamma: float = 0.5,
        outputs: Literal["probability", "logit"] = "probability",
        pairwise: bool = True,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.theta = theta
        self.gamma = gamma
        self.outputs = outputs
        self.pairwise = pairwise
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_parameters(self, row_shape):
        try:
            theta = np.broadcast_to(np.asarray(self.theta, dtype=float), row_shape)
        except (ValueError, TypeError):
            theta = np.array(np.nan)
        if not np.isfinite(theta).all() or not theta.any():
            raise ValueError(
                "theta must be one number, or one per feature, finite and not 0; got "
                f"{self.theta!r}."
            )

    def _attack(self, state):
        search = Search(state)
        x = search.x
        theta = torch.as_tensor(self.theta, dtype=x.dtype, device=x.device)
        sign = torch.where(theta < 0, -1.0, 1.0).to(x.dtype)
        if state.goal.kind != "targeted":
            sign = -sign
        n_features = x[0].numel()
        allowed = int(self.gamma * n_features + 1e-9)
        pairs = self.pairwise and allowed >= 2 and n_features >= 2
        search.moved = torch.zeros_like(x)
        for _ in range(allowed // (2 if pairs else 1)):
            if not search.can_ask(2):
                break
            search.ask_jacobian(
                search.moved, lambda logits, at: self._outputs(logits, search.labels[at])
            )
            own, rest = search.gradients[:, 0] * sign, search.gradients[:, -1] * sign
            if self.outputs == "probability":
                rest = -own
            room = torch.where(theta < 0, search.moved - search.lower, 0)
            room = torch.where(theta > 0, search.upper - search.moved, room)
            closed = (room <= 0).flatten(1)
            up = own.flatten(1).masked_fill(closed, -torch.inf)
            down = (-rest).flatten(1).masked_fill(closed, -torch.inf)
            chosen, gain = (best_pairs if pairs else _best_features)(up, down)
            step = torch.zeros_like(up).scatter(1, chosen, 1.0).reshape(search.x.shape)
            moved = search.moved + step * theta
            search.moved = moved.clamp(search.lower, search.upper)
            search.drop(search.hit | (gain <= 0))
        if search.can_ask():
            search.look(search.moved)

    def _outputs(self, logits, labels):
        """The output of the label and, where it is needed, the sum of the others."""
        labels = labels[:, None]
        if self.outputs == "probability":
            return logits.log_softmax(1).gather(1, labels)
        if logits.shape[1] == 2:  # of which the first is 0: share it out between the two
            logits = logits - logits.mean(1, keepdim=True)
        own = logits.gather(1, labels)
        return torch.cat([own, logits.sum(1, keepdim=True) - own], dim=1)


def _best_features(up, down):
    gain = torch.where((up > 0) & (down > 0), up * down, 0)
    value, chosen = gain.max(1)
    return chosen[:, None], value


def best_pairs(up, down):
    """Find the pair that maximises (up_p + up_q)(down_p + down_q), both positive.

    A feature for which two others are at least as good in both is not needed. Sorted by
    `up`, these are the ones with two values of `down` before them that are not smaller;
    the running second largest value tells. Pairs are formed of the rest.

    Returns
    -------
    chosen : tensor of int64, shape (n_rows, 2)
    gain : tensor of shape (n_rows,)
        0 where there is no such pair.
    """
    order = up.argsort(dim=1, descending=True, stable=True)
    up, down = up.gather(1, order), down.gather(1, order)
    largest = down.cummax(1).values
    loser = torch.minimum(down[:, 1:], largest[:, :-1])
    second = loser.cummax(1).values
    needed = torch.ones_like(down, dtype=torch.bool)
    needed[:, 2:] = down[:, 2:] > second[:, :-1]
    needed &= up.isfinite()
    n_needed = max(2, int(needed.sum(1).max()))
    kept = needed.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    kept = kept[:, :n_needed]
    valid = needed.gather(1, kept)
    up = up.gather(1, kept).masked_fill(~valid, -torch.inf)
    down = down.gather(1, kept).masked_fill(~valid, -torch.inf)
    ups, downs = up[:, :, None] + up[:, None], down[:, :, None] + down[:, None]
    first, other = torch.triu_indices(n_needed, n_needed, 1, device=up.device)
    ups, downs = ups[:, first, other], downs[:, first, other]
    gain, pair = torch.where((ups > 0) & (downs > 0), ups * downs, 0).max(1)
    inside = torch.stack([first[pair], other[pair]], dim=1)
    return order.gather(1, kept.gather(1, inside)), gain
