"""Robust membership inference (RMIA, Zarifzadeh et al. 2024)."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array

from .._sklearn import Interval, StrOptions, validate_params
from ._shadow_base import ShadowAttack, independent_shadows

if TYPE_CHECKING:
    import torch
    from joblib import Memory

_TINY = 1e-30


@validate_params(
    {"gamma": [Interval(Real, 0, None, closed="neither")]},
)
def rmia_scores(
    target_x: ArrayLike,
    mean_x: ArrayLike,
    target_z: ArrayLike,
    mean_z: ArrayLike,
    gamma: float = 1.0,
) -> np.ndarray:
    r"""Compute the score of RMIA from given probabilities.

    Parameters
    ----------
    target_x : array-like of shape (n_records,)
        The target's probability of the label of each record.
    mean_x : array-like of shape (n_records,)
        The average probability of it over reference models, :math:`\Pr(x)`.
    target_z, mean_z : array-like of shape (n_population,)
        The same for the population.
    gamma : float, default=1.0
        How much likelier than `z` a record has to be.

    Returns
    -------
    scores : ndarray of shape (n_records,)
        Share of the population that the record beats:
        :math:`\Pr_z[(p_x / \Pr(x)) / (p_z / \Pr(z)) > \gamma]`.

    See Also
    --------
    RMIA : The attack.

    References
    ----------
    .. [1] S. Zarifzadeh, P. Liu, R. Shokri, "Low-cost high-power membership inference
       attacks", arXiv:2312.03262 (Equations 2 to 4).

    Examples
    --------
    >>> from sklearn_advsec.privacy import rmia_scores
    >>> rmia_scores([0.9, 0.2], [0.3, 0.4], [0.5, 0.8], [0.25, 0.4])
    array([1., 0.])
    """
    ratio_x = _ratio(target_x, mean_x, "target_x", "mean_x")
    ratio_z = _ratio(target_z, mean_z, "target_z", "mean_z")
    below = np.searchsorted(np.sort(gamma * ratio_z), ratio_x, side="left")
    return below / len(ratio_z)


def _ratio(target, mean, *names):
    target, mean = (
        check_array(values, dtype=np.float64, ensure_2d=False, input_name=name)
        for values, name in zip((target, mean), names, strict=True)
    )
    for values, name in zip((target, mean), names, strict=True):
        if values.ndim != 1 or values.min() < 0:
            raise ValueError(f"{name} must be one-dimensional, of probabilities.")
    if len(target) != len(mean):
        raise ValueError(f"{names[0]} and {names[1]} must be equally long.")
    return target / np.maximum(mean, _TINY)


class RMIA(ShadowAttack):
    r"""RMIA: how much of the population a record beats, in gain of probability.

    A record gains :math:`p_{target}(x) / \Pr(x)` in probability over the average of the
    reference models; its score is the share of population records `z` that it beats by a
    factor of `gamma`. It is strong with few reference models, and works with one.
    (Reference models are what others call shadow models.) Only models that were not
    trained on the record are needed; the average over those with it is replaced by a
    line, so that
    :math:`\Pr(x) = ((1 + a) \Pr_{out}(x) + 1 - a) / 2`.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted; see :class:`MembershipAttack`.
    shadow_estimator : classifier or regressor, default=None
        The recipe of the shadow models; see :class:`ShadowAttack`.
    n_shadow_models : int, default=8
        Number of shadow models.
    shadow_size : float or int, default=0.5
        Share, or number, of the records that each shadow model is trained on.
    mode : {"offline", "online"}, default="offline"
        "online" averages over models with and without the record instead of using `a`;
        see :class:`LikelihoodRatio`.
    a : float, default=0.3
        How the probabilities of models with and without a record go together: 1 for no
        overfitting, 0 for models that are certain of all they were trained on.
    gamma : float, default=1.0
        See above; 1 or more.
    candidates : {array-like, DataFrame} of shape (n_candidates, n_columns), default=None
        Records to be judged, for ``mode="online"``; see :class:`ShadowAttack`.
    label_column : int, str or None, default=-1
        The column that holds the label; see :class:`MembershipAttack`.
    fpr : float, default=0.1
        The false positive rate that is aimed at; see :class:`MembershipAttack`.
    memory : str or joblib.Memory, default=None
        Where finished shadow models are kept; see :class:`ShadowAttack`.
    device : str or torch.device, default=None
        Where batched shadow models are trained; see :class:`ShadowAttack`.
    n_jobs : int, default=None
        Number of joblib jobs; the result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.
    verbose : int, default=0
        Whether to print progress.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The target.
    shadow_estimators_ : list of estimator of length n_shadow_models
        The shadow models.
    shadow_indices_ : list of ndarray of int
        Rows that each shadow model was trained on; see :class:`ShadowAttack`.
    population_ : ndarray of shape (n_population,)
        The gains in probability of the population: of the records in `fit` that are not
        known to be members, and that some reference model was not trained on.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        The threshold of the score.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    LikelihoodRatio : From many shadow models.
    rmia_scores : Its formula.

    References
    ----------
    .. [1] S. Zarifzadeh, P. Liu, R. Shokri, "Low-cost high-power membership inference
       attacks", arXiv:2312.03262 (Algorithm 1, Equations 2 to 4, Appendix B.2.2).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklearn_advsec.privacy import RMIA
    >>> X, y = load_digits(return_X_y=True)
    >>> target = RandomForestClassifier(10, random_state=0).fit(X[:450], y[:450])
    >>> records = np.column_stack([X, y])
    >>> attack = RMIA(FrozenEstimator(target), n_shadow_models=2)
    >>> attack = attack.fit(records[900:])  # the attacker's own, none of them a member
    >>> scores = attack.decision_function(records[:900])
    >>> bool(roc_auc_score(np.arange(900) < 450, scores) > 0.8)
    True
    """

    _takes_regressors = True

    _parameter_constraints = {
        **ShadowAttack._parameter_constraints,
        "mode": [StrOptions({"offline", "online"})],
        "a": [Interval(Real, 0, 1, closed="both")],
        "gamma": [Interval(Real, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        shadow_estimator: Any = None,
        n_shadow_models: int = 8,
        shadow_size: float = 0.5,
        mode: Literal["offline", "online"] = "offline",
        a: float = 0.3,
        gamma: float = 1.0,
        candidates: ArrayLike | None = None,
        label_column: int | str | None = -1,
        fpr: float = 0.1,
        memory: str | Memory | None = None,
        device: str | torch.device | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.shadow_estimator = shadow_estimator
        self.n_shadow_models = n_shadow_models
        self.shadow_size = shadow_size
        self.mode = mode
        self.a = a
        self.gamma = gamma
        self.candidates = candidates
        self.label_column = label_column
        self.fpr = fpr
        self.memory = memory
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _learn(self, records, member):
        self._train_shadows(records)

    def _set_threshold(self, records, member):
        """Set the population as well, by the same queries."""
        target, mean = self._probabilities(records)
        others = np.ones(len(records), dtype=bool) if member is None else ~member
        # The population is what neither the target nor all references were trained on.
        fresh = others & ~self._trained_on(records).all(axis=0)
        if not fresh.any():
            raise ValueError(
                f"shadow_size={self.shadow_size} leaves no record that is no member and "
                "that a reference model was not trained on."
            )
        self.population_ = target[fresh] / np.maximum(mean[fresh], _TINY)
        scores = self._beaten(target, mean)
        self.threshold_ = self._choose_threshold(scores, member)
        if member is None and self._calibrates:
            scores, member = self._scores_of_shadows(records)
        self._calibrate(scores - self.threshold_, member)

    def _scores_of_shadows(self, records):
        """Judge reference models by the others, whose records are known."""
        models = self._shadow_label_probabilities(records)
        trained, scores, members = self._trained_on(records), [], []
        number = np.arange(len(models))
        for i in number:
            others = independent_shadows(trained, i)
            if not others.any():  # two can only judge each other
                others = number != i
            out = ~trained[others]
            judged = out.any(axis=0)
            if not judged.any() or trained[i, judged].all():
                continue
            mean = ((1 + self.a) * _mean(models[others], out | ~judged) + 1 - self.a) / 2
            gain, member = (models[i] / mean)[judged], trained[i, judged]
            ones = np.ones_like(gain)
            fresh = gain[~member]
            scores.append(rmia_scores(gain, ones, fresh, np.ones_like(fresh), self.gamma))
            members.append(member)
        if not scores:
            return np.empty(0), None
        return np.concatenate(scores), np.concatenate(members)

    def _probabilities(self, records):
        """Return the target's probability of each label, and its average over models."""
        models = self._shadow_label_probabilities(records)
        trained = self._trained_on(records)
        some_in, some_out = trained.any(axis=0), ~trained.all(axis=0)
        mean_out = _mean(models, ~trained | ~some_out)
        if self.mode == "offline":
            mean = ((1 + self.a) * mean_out + 1 - self.a) / 2
        elif some_in.all():
            mean = (_mean(models, trained) + mean_out) / 2
        else:
            raise ValueError(
                f"mode='online' judges records that reference models were trained on, "
                f"and {int((~some_in).sum())} of these were not. Give them to fit or as "
                "candidates, or take more shadow models, or use mode='offline'."
            )
        return self._label_probabilities(records), mean

    def _score(self, records):
        return self._beaten(*self._probabilities(records))

    def _beaten(self, target, mean):
        """Return the share of the population that records beat."""
        ones = np.ones_like(self.population_)
        return rmia_scores(target, mean, self.population_, ones, self.gamma)


def _mean(values, mask):
    return (values * mask).sum(axis=0) / mask.sum(axis=0)
