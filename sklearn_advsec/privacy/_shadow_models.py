"""Shadow models (Shokri et al. 2017), and the cheaper variants of ML-Leaks."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state

from .._seeding import seeded
from .._sklearn import HasMethods, Interval, StrOptions
from ._shadow_base import ShadowAttack

if TYPE_CHECKING:
    import torch
    from joblib import Memory


class ShadowModels(ShadowAttack):
    """Learn what members look like from models whose members are known.

    Shadow models are trained like the target, each on a random part of the attacker's
    records. Their answers on the records that they were trained on, and on the others,
    train a binary classifier, the attack model, which then judges the target's answers.
    It learns from as many members as others, whatever the `shadow_size`.

    The attack model sees how the target answers, not how hard the record is. Attacks that
    compare a record with itself (:class:`LikelihoodRatio`, :class:`RMIA`) name several
    times as many members at small false positive rates, from the same shadow models.
    Members that are known (`y` in `fit`) are records like all others here.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted; see :class:`MembershipAttack`.
    shadow_estimator : classifier or regressor, default=None
        The recipe of the shadow models; see :class:`ShadowAttack`.
    attack_estimator : classifier, default=None
        The attack model: any binary classifier; put a scaler before it in a pipeline if
        it needs one. Without `predict_proba`, its decision function goes through the
        logistic function. None is a random forest.
    n_shadow_models : int, default=16
        Number of shadow models.
    shadow_size : float or int, default=0.5
        Share, or number, of the records that each shadow model is trained on.
    features : {"auto", "top_k", "posterior", "label"}, default="auto"
        What the attack model sees of an answer: the `top_k` largest probabilities in
        descending order (ML-Leaks), all of them (Shokri et al.), or only whether the
        predicted label is right. "auto" takes that of the first two from which a quarter
        of the shadows learns to tell the members of another quarter best, by AUC; with
        one shadow, it is "top_k". Of a regressor it is "auto", too: the residual of the
        label, with and without its sign, and the prediction, in units of the usual
        residual of shadow models.
    top_k : int, default=3
        See `features`.
    per_class : bool, default=False
        Whether to train one attack model per class of the target (Shokri et al.), or one
        for all, which also sees whether the predicted label is right.
    label_column : int, str or None, default=-1
        The column that holds the label; see :class:`MembershipAttack`.
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
    features_ : {"top_k", "posterior", "label", "residual"}
        The features in use.
    attack_estimators_ : dict of int to classifier
        The attack models, by position in the target's classes; one, at key -1, with
        ``per_class=False``. A class that shadows saw on one side only has none, and its
        records get a score of one half.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        Always 0.5: the attack model's own.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    LikelihoodRatio : Stronger at few false alarms.
    RMIA : From fewer shadow models.

    References
    ----------
    .. [1] R. Shokri et al., "Membership inference attacks against machine learning
       models", arXiv:1610.05820 (Section V).
    .. [2] A. Salem et al., "ML-Leaks: model and data independent membership inference
       attacks and defenses on machine learning models", arXiv:1806.01246 (Sections III
       and IV: one shadow model, the three largest probabilities).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn_advsec.privacy import ShadowModels
    >>> X, y = load_digits(return_X_y=True)
    >>> target = RandomForestClassifier(10, random_state=0).fit(X[:450], y[:450])
    >>> records = np.column_stack([X, y])
    >>> attack = ShadowModels(FrozenEstimator(target), n_shadow_models=2)
    >>> attack = attack.fit(records[900:])  # the attacker's own, none of them a member
    >>> bool(attack.score(records[:900], np.arange(900) < 450) > 0.7)
    True
    """

    _goes_by_y = False
    _takes_regressors = True

    _parameter_constraints = {
        **{
            name: constraint
            for name, constraint in ShadowAttack._parameter_constraints.items()
            if name not in ("fpr", "candidates")
        },
        "attack_estimator": [
            HasMethods(["fit", "predict_proba"]),
            HasMethods(["fit", "decision_function"]),
            None,
        ],
        "features": [StrOptions({"auto", "posterior", "top_k", "label"})],
        "top_k": [Interval(Integral, 1, None, closed="left")],
        "per_class": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        shadow_estimator: Any = None,
        attack_estimator: Any = None,
        n_shadow_models: int = 16,
        shadow_size: float = 0.5,
        features: Any = "auto",
        top_k: int = 3,
        per_class: bool = False,
        label_column: int | str | None = -1,
        memory: str | Memory | None = None,
        device: str | torch.device | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.shadow_estimator = shadow_estimator
        self.attack_estimator = attack_estimator
        self.n_shadow_models = n_shadow_models
        self.shadow_size = shadow_size
        self.features = features
        self.top_k = top_k
        self.per_class = per_class
        self.label_column = label_column
        self.memory = memory
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _learn(self, records, member):
        if records.values is not None and (self.per_class or self.features != "auto"):
            raise ValueError(
                f"features={self.features!r} and per_class={self.per_class} are of "
                'classifiers; of a regressor, they are "auto" and False.'
            )
        self._train_shadows(records)
        trained = self._trained_on(records)
        if trained.all():
            raise ValueError(
                f"shadow_size={self.shadow_size} leaves no record that a shadow was not "
                f"trained on, of {len(records)} records."
            )
        self.features_ = self.features
        if records.values is not None:
            self.features_ = "residual"
        elif self.features == "auto":
            self.features_ = self._choose_features(records, trained)
        self.attack_estimators_ = self._attack_models(records, trained, self.features_)

    def _needs_probabilities(self):
        return self.features != "label"

    def _choose_features(self, records, trained):
        """Return what tells members of shadows that are left out best."""
        n = len(trained) // 4 or 1
        left_out = [i for i in range(len(trained))[-n:] if trained[i].any()]
        left_out = [i for i in left_out if not trained[i].all()]
        gains = {"top_k": 0.0, "posterior": 0.0}
        # Of few records that repeat, these may have been trained on all: no attack model.
        if len(trained) > 1 and left_out and not trained[:n].all():
            for features in gains:
                models = self._attack_models(records, trained[:n], features)
                for i in left_out:
                    seen = self._see(self.shadow_estimators_[i], records, features)
                    scores = self._membership_scores(models, seen, records.codes)
                    gains[features] += roc_auc_score(trained[i], scores)
        return max(gains, key=gains.get)

    def _attack_models(self, records, trained, features):
        """Train the attack models on what the first shadows say, as many as `trained`."""
        seen = np.concatenate(
            [
                self._see(model, records, features)
                for model in self.shadow_estimators_[: len(trained)]
            ]
        )
        codes = None
        if self.per_class:
            codes = np.tile(records.codes, len(trained))
        trained = trained.ravel()
        model = self.attack_estimator
        if model is None:
            model = RandomForestClassifier(100, min_samples_leaf=20)
        rng = check_random_state(self.random_state)
        models = {}
        for code in np.unique(codes) if self.per_class else [-1]:
            own = codes == code if self.per_class else np.ones(len(trained), dtype=bool)
            if len(np.unique(trained[own])) == 2:
                seed = int(rng.randint(2**31 - 1))
                own = _as_many(np.flatnonzero(own), trained, seed)
                models[int(code)] = seeded(clone(model), seed).fit(
                    seen[own], trained[own]
                )
        return models

    def _see(self, model, records, features):
        """Ask a model, and reduce its answers to what the attack model sees of them."""
        if features == "residual":
            residual = self._shadow_residuals(model, records.features, records.values)
            told = [residual, np.abs(residual), records.values - residual]
            return np.column_stack(told) / max(self._residual_scale, np.finfo(float).tiny)
        if features == "label":  # also of models that give no probabilities
            codes = self._shadow_codes(model, records.features)
            labels = np.asarray(model.classes_)[codes]
            return (labels == records.classes[records.codes]).astype(float)[:, np.newaxis]
        proba = self._shadow_probabilities(model, records.features)
        seen = proba
        if features == "top_k":
            seen = -np.sort(-proba, axis=1)[:, : self.top_k]
        if self.per_class:
            return seen
        # Without the label the attack model could not tell certain from right.
        return np.column_stack([seen, proba.argmax(axis=1) == records.codes])

    def _score(self, records):
        seen = self._see(self.estimator_, records, self.features_)
        return self._membership_scores(self.attack_estimators_, seen, records.codes)

    def _membership_scores(self, models, seen, codes):
        """Return the attack models' probability of membership."""
        if not self.per_class:
            return _probability(models[-1], seen)
        scores = np.full(len(codes), 0.5)
        for code in np.unique(codes):
            if code in models:
                own = codes == code
                scores[own] = _probability(models[code], seen[own])
        return scores

    def _set_threshold(self, records, member):
        self.threshold_ = 0.5
        self._slope = 1.0  # the score is a probability already

    def _probability(self, decision):
        return decision + self.threshold_


def _as_many(rows, member, seed):
    """Return rows with as many members as others, of which the attack model learns.

    Of the more frequent kind some are left out: the attack model would call all records
    that.
    """
    kinds = rows[member[rows]], rows[~member[rows]]
    n, rng = min(map(len, kinds)), check_random_state(seed)
    return np.sort(np.concatenate([rng.choice(kind, n, replace=False) for kind in kinds]))


def _probability(model, seen):
    if hasattr(model, "predict_proba"):
        return model.predict_proba(seen)[:, 1]
    return expit(model.decision_function(seen))
