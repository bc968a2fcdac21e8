"""The likelihood ratio attack (LiRA, Carlini et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import norm, t
from sklearn.linear_model import LogisticRegression

from .._sklearn import StrOptions
from ._shadow_base import ShadowAttack, independent_shadows
from ._signals import (
    RESIDUAL_RESOLUTION,
    as_target_takes_them,
    logit_confidence,
    probabilities,
    residual_confidence,
    residuals,
    score_resolution,
)

if TYPE_CHECKING:
    import torch
    from joblib import Memory

# Standard deviations of few values are worse than one for all records.
_ENOUGH_FOR_OWN_VARIANCE = 64

# One number is learned from so many shadow models that play the target, two from these.
_ENOUGH_TO_CALIBRATE = 16
_ENOUGH_TO_WEIGH = 8

# Degrees of freedom of the confidences of one record: what is far out is no proof.
_FREEDOM = 5

# RMIA's `a`, for records that no shadow was trained on, and its least probability.
_A, _LEAST = 0.3, 1e-3


class LikelihoodRatio(ShadowAttack):
    r"""LiRA: compare the target with models trained with and without a record.

    The confidence :math:`\phi = \log(p_y / (1 - p_y))` of a record is about normal over
    models. "offline", its distribution is estimated from shadow models that never saw the
    record, and the score is how far out the target's confidence is,
    :math:`-\log \Pr[N(\mu_{out}, \sigma^2) > \phi]`. "online", the shadows that were
    trained on the record give a second normal distribution, and the score is the log of
    the likelihood ratio. Several queries per record are taken as independent. It
    takes two shadow models or more; with ``shadow_size=0.5`` and even numbers of models
    and records, each record is in exactly half of the models.

    Of few shadows, means and variances are poor. With ``variance="shrunken"`` they are
    those of a model of all records (empirical Bayes): the means of models with and
    without a record are a pair of normal numbers, whose distribution over records is
    estimated, and is the prior of each record's own; variances are drawn to their mean as
    far as their spread is that of estimates. Offline, the mean of models with the record
    is what the prior expects from that of the others. The ratio of the two predictive
    distributions, of Student's t, is then weighed with the gain in probability of
    :class:`RMIA`, which has no parameter per record, by a logistic regression on shadow
    models that are judged by other shadow models; that is the score, and it is 0 at even
    odds. Its area is mostly the larger one of both, at 4 to 32 shadow models.

    Online needs shadows that were trained on the very records that are judged: hand them
    over as `candidates`, or to `fit` (without `y`, nothing is learned about who is a
    member). Offline works on any record; of those that some shadows were trained on, only
    the other shadows are asked.

    Parameters
    ----------
    estimator : classifier or regressor
        The target, fitted; see :class:`MembershipAttack`.
    shadow_estimator : classifier or regressor, default=None
        The recipe of the shadow models; see :class:`ShadowAttack`.
    n_shadow_models : int, default=64
        Number of shadow models.
    shadow_size : float or int, default=0.5
        Share, or number, of the records that each shadow model is trained on.
    mode : {"offline", "online"}, default="offline"
        Whether shadows trained on the record are asked, too.
    variance : {"auto", "shrunken", "fixed", "per_example"}, default="auto"
        Whether a record has a variance of its own, all share one, or something between,
        as described above. "auto" is "shrunken" with less than 64 shadows and
        "per_example" with more; a record that only one of them was trained on (or not)
        has none of its own.
    augmentations : sequence of callable, default=None
        Further queries per record: each maps an array of features to one of the same
        shape, for example shifted images. They must be deterministic.
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
    classes_ : ndarray of shape (2,)
        Non-member and member.
    resolution_ : float
        The smallest step of the target's probabilities, where they are coarse (those of
        forests, of neighbours, rounded ones); 0 where they are not; 0.04 of regressors.
        Half of it is added to :math:`p_y` and to :math:`1 - p_y`, and online the shift
        between models with and without a record is drawn towards the shift of all
        records.
    threshold_ : float
        The threshold of the score: 0 for ``mode="online"`` where no members are known.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    See Also
    --------
    RMIA : From fewer shadow models.
    LossThreshold : From none.

    References
    ----------
    .. [1] N. Carlini et al., "Membership inference attacks from first principles",
       arXiv:2112.03570 (Algorithm 1, Equations 3 and 4, Section V).
    .. [2] R. Brannvall, "Exponential-family membership inference: from LiRA and RMIA to
       BaVarIA", arXiv:2603.11799 (that both are ends of one family, and priors for few
       shadow models; the prior, its estimate and the weights are derived here).
    .. [3] H. Buhlmann, "Experience rating and credibility", ASTIN Bulletin 4, 1967 (how
       far a variance is drawn to the mean of all).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.privacy import LikelihoodRatio
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:400] / 16, y[:400]
    >>> net = MLPClassifier(64, max_iter=60, learning_rate_init=0.01, random_state=1)
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):  # it does not converge
    ...     target = net.fit(X[:200], y[:200])
    >>> records, member = np.column_stack([X, y]), np.arange(400) < 200
    >>> attack = LikelihoodRatio(
    ...     FrozenEstimator(target), n_shadow_models=16, mode="online"
    ... )
    >>> attack = attack.fit(records)  # without `member`
    >>> bool(roc_auc_score(member, attack.decision_function(records)) > 0.6)
    True
    """

    _takes_regressors = True

    _parameter_constraints = {
        **ShadowAttack._parameter_constraints,
        "mode": [StrOptions({"offline", "online"})],
        "variance": [StrOptions({"auto", "shrunken", "fixed", "per_example"})],
        "augmentations": ["array-like", None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        shadow_estimator: Any = None,
        n_shadow_models: int = 64,
        shadow_size: float = 0.5,
        mode: Literal["offline", "online"] = "offline",
        variance: Literal["auto", "shrunken", "fixed", "per_example"] = "auto",
        augmentations: Sequence[Callable[..., Any]] | None = None,
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
        self.variance = variance
        self.augmentations = augmentations
        self.candidates = candidates
        self.label_column = label_column
        self.fpr = fpr
        self.memory = memory
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _learn(self, records, member):
        if self.n_shadow_models < 2:
            raise ValueError(
                "n_shadow_models must be 2 or more: one model has no variance. RMIA and "
                "ShadowModels work with one."
            )
        pool = self._train_shadows(records)
        target = self._target_answers(records)
        self.resolution_ = RESIDUAL_RESOLUTION
        if records.values is None:
            self.resolution_ = score_resolution(target[0])
        shadows, trained = self._shadow_confidences(pool), self._trained_on(pool)
        self._learn_normals(shadows, trained)
        self._priors = None
        if self._shrinks() and _in_both(trained).sum() > 1:
            coarse = bool(self.resolution_)
            self._priors = [_RecordPrior(own, trained, coarse) for own in shadows]
            self._learn_weights(shadows, trained)
        scores = self._likelihood_ratio(target, records)
        self.threshold_ = self._choose_threshold(scores, member)
        if member is None and self._calibrates:
            scores, member = self._scores_of_shadows(shadows, trained)
        self._calibrate(scores - self.threshold_, member)

    def _scores_of_shadows(self, shadows, trained):
        """Judge shadow models by the others, whose records are known."""
        scores, members = [], []
        for target, *rest, member in self._judged_shadows(shadows, trained):
            scores.append(self._ratio(target, *rest))
            members.append(member)
        if not scores:
            return np.empty(0), None
        return np.concatenate(scores), np.concatenate(members)

    def _judged_shadows(self, shadows, trained):
        """Yield shadows as targets: what they and the others say, and who is in."""
        for i in range(min(len(trained), _ENOUGH_TO_CALIBRATE)):
            others = independent_shadows(trained, i)
            judged = ~trained[others].all(axis=0)
            if self.mode == "online":
                judged &= trained[others].any(axis=0)
            if others.any() and judged.any():
                rest = shadows[:, others][:, :, judged], trained[others][:, judged]
                yield shadows[:, i, judged], *rest, trained[i, judged]

    def _shrinks(self):
        few = self.n_shadow_models < _ENOUGH_FOR_OWN_VARIANCE
        return self.variance == "shrunken" or (self.variance == "auto" and few)

    def _learn_weights(self, shadows, trained):
        """Learn how far to go by the ratio, and how far by the gain in probability."""
        terms, members = [], []
        for target, *rest, member in self._judged_shadows(shadows, trained):
            terms.append(self._terms(target, *rest))
            members.append(member)
            if len(terms) == _ENOUGH_TO_WEIGH:
                break
        self._weights, self._intercept = np.array([0.0, 1.0]), 0.0
        if not terms or len(np.unique(np.concatenate(members))) < 2:
            return  # too few to judge any: RMIA needs the fewest
        terms = np.concatenate(terms)
        scale = np.maximum(np.median(np.abs(terms), axis=0), 1e-6)
        logistic = LogisticRegression(class_weight="balanced", max_iter=1000)
        logistic.fit(terms / scale, np.concatenate(members))
        weights = np.maximum(logistic.coef_[0], 0) / scale
        if weights.any():
            self._weights, self._intercept = weights, float(logistic.intercept_[0])

    def _terms(self, target, shadows, trained):
        """Return the log-ratio of the priors and RMIA's gain, (n_records, 2)."""
        if self.mode == "offline":
            used = ~trained
            used[:, ~used.any(axis=0)] = True  # none left: ask all of them
            trained = np.zeros_like(trained)
        else:
            used = np.ones_like(trained)
        ratio = sum(
            prior.log_ratio(own, others, trained & used, ~trained & used)
            for prior, own, others in zip(self._priors, target, shadows, strict=True)
        )
        gain = self._gain(target, shadows, trained & used, ~trained & used)
        return np.column_stack([ratio, gain.sum(axis=0)])

    def _gain(self, target, shadows, inside, outside):
        """Return how much likelier the label is than to models in general, as a log."""
        step = self.resolution_
        own, others = (
            expit(values) * (1 + step) - step / 2 for values in (target, shadows)
        )
        mean = _mean(others, outside)
        if not inside.any():
            usual = ((1 + _A) * mean + 1 - _A) / 2
        else:
            usual = (mean + _mean(others, inside)) / 2
        return np.log(own + _LEAST) - np.log(usual + _LEAST)

    def _set_threshold(self, records, member):
        """Do nothing: `_learn` has, by the same queries."""

    def _learn_normals(self, shadows, trained):
        """Learn what all records share: spreads, and the shift by being trained on."""
        # One spread for all records, from the shadows around each record's own mean.
        self._shared_std = {
            "in": _pooled_std(shadows, trained),
            "out": _pooled_std(shadows, ~trained),
        }
        both = _in_both(trained)
        if not both.any():  # online is refused then
            return
        shadows, trained = shadows[:, :, both], trained[:, both]
        shift = _moments(shadows, trained)[0] - _moments(shadows, ~trained)[0]
        noise = self._noise_of_shift(trained).mean(axis=1, keepdims=True)
        own = shift.var(axis=1, keepdims=True) - noise
        self._shift = shift.mean(axis=1, keepdims=True), np.maximum(own, 0)

    def _noise_of_shift(self, trained):
        """Variance of the difference of means, for one that has no shift of its own."""
        return sum(
            self._shared_std[side] ** 2 / np.maximum(mask.sum(axis=0), 1)
            for side, mask in (("in", trained), ("out", ~trained))
        )

    def _target_answers(self, records):
        """Return the probabilities of each query; of a regressor, the residuals."""
        if records.values is not None:
            return [
                residuals(self.estimator_, features, records.values)
                for features in self._queries(records)
            ]
        return [
            probabilities(self.estimator_, features)
            for features in self._queries(records)
        ]

    def _shadow_answers(self, model, features, records):
        if records.values is not None:
            return self._shadow_residuals(model, features, records.values)
        return self._shadow_probabilities(model, features)

    def _shadow_confidences(self, records):
        """Confidences of all shadows: an array (n_queries, n_models, n_records)."""
        return np.stack(
            [
                np.stack(
                    [
                        self._confidence(
                            self._shadow_answers(model, features, records), records
                        )
                        for model in self._asked_shadows()
                    ]
                )
                for features in self._queries(records)
            ]
        )

    def _confidence(self, answers, records):
        if records.values is not None:
            return residual_confidence(answers, self._residual_scale)
        return logit_confidence(answers, records.codes, self.resolution_)

    def _queries(self, records):
        """Yield the features, and every augmentation of them."""
        yield records.features
        for augment in self.augmentations or ():
            if not callable(augment):
                raise TypeError(
                    "augmentations must hold functions of the features; it holds "
                    f"{augment!r}."
                )
            features = augment(records.features)
            if np.shape(features) != records.features.shape:
                raise ValueError(
                    f"augmentations must keep the shape of the features: one returned "
                    f"{np.shape(features)} for {records.features.shape}."
                )
            yield as_target_takes_them(features, self.estimator_)

    def _score(self, records):
        return self._likelihood_ratio(self._target_answers(records), records)

    def _likelihood_ratio(self, target, records):
        """Compare the target's answers to each query with those of the shadows."""
        target = np.stack([self._confidence(answers, records) for answers in target])
        return self._ratio(
            target, self._shadow_confidences(records), self._trained_on(records)
        )

    def _ratio(self, target, shadows, trained):
        """Compare confidences with those of shadows: arrays as of the latter."""
        if self.mode == "offline":
            if self._priors is not None:
                return self._weighed(target, shadows, trained)
            mean, std = self._normal(shadows, ~trained, "out")
            return -norm.logsf(target, mean, std).sum(axis=0)
        if not trained.any(axis=0).all():
            raise ValueError(
                f"mode='online' judges records that shadows were trained on, and "
                f"{int((~trained.any(axis=0)).sum())} of these were not. Give them to "
                "fit or as candidates, or take more shadow models, or use mode='offline'."
            )
        if self._priors is not None:
            return self._weighed(target, shadows, trained)
        mean, std = self._normal(shadows, ~trained, "out")
        mean_in, std_in = self._normal(shadows, trained, "in")
        if self.resolution_:
            mean_in, mean = self._shrink_shift(mean_in, mean, trained)
            std_in = std = np.sqrt((std_in**2 + std**2) / 2)
        ratio = norm.logpdf(target, mean_in, std_in) - norm.logpdf(target, mean, std)
        return ratio.sum(axis=0)

    def _weighed(self, target, shadows, trained):
        return self._terms(target, shadows, trained) @ self._weights + self._intercept

    def _shrink_shift(self, mean_in, mean_out, trained):
        """Draw each record's shift towards the shift of all, as far as it is noise.

        Means of few coarse scores are poor, and the ratio is about their difference.
        """
        average, own = self._shift
        weight = own / np.maximum(own + self._noise_of_shift(trained), 1e-12)
        # Coarse scores are far from normal: on 49 tables and targets, apart from those of
        # the benchmark, the mean area was largest with half of that weight, and a shift
        # that is no less than half of that of all (.760, and .756 without).
        shift = average + weight / 2 * (mean_in - mean_out - average)
        shift = np.maximum(shift, np.maximum(average, 0) / 2)
        middle = (mean_in + mean_out) / 2
        return middle + shift / 2, middle - shift / 2

    def _normal(self, shadows, mask, side):
        """Fit normal distributions to the shadows in a mask: means and deviations."""
        mask = np.where(mask.any(axis=0), mask, True)  # none left: ask all of them
        mean, own = _moments(shadows, mask)
        std = self._shared_std[side]
        if self.variance == "per_example" or (
            self.variance == "auto" and not self._shrinks()
        ):
            std = np.where(mask.sum(axis=0) > 1, own, std)  # one has no deviation
        return mean, np.maximum(std, 1e-6)

    def _threshold_from_non_members(self, scores):
        if self.mode == "online":
            return 0.0
        return super()._threshold_from_non_members(scores)


class _RecordPrior:
    """What the confidences of records have in common: the prior of those of each one.

    The means over models with and without a record are a pair of normal numbers; around
    them, confidences have variances whose spread over records is known.

    Parameters
    ----------
    confidences : ndarray of shape (n_models, n_records)
        Confidences of shadow models.
    trained : ndarray of bool, shape (n_models, n_records)
        Which of them were trained on which records.
    shared : bool
        Whether models with and without a record have the same variance.
    """

    def __init__(self, confidences, trained, shared):
        self._shared = shared
        sides = trained, ~trained
        squares = [_squares(confidences, side) for side in sides]
        if shared:
            squares = [tuple(map(sum, zip(*squares, strict=True)))] * 2
        self._spread = [_spread(*both) for both in squares]
        both = _in_both(trained)
        inside, outside = trained[:, both], ~trained[:, both]
        confidences = confidences[:, both]
        means = np.stack([_mean(confidences, side) for side in (inside, outside)])
        variances = self._variances(confidences, inside, outside)
        noise = [
            np.mean(own / side.sum(axis=0))
            for own, side in zip(variances, (inside, outside), strict=True)
        ]
        self._mean = means.mean(axis=1)
        values, vectors = np.linalg.eigh(np.cov(means) - np.diag(noise))
        self._covariance = (vectors * np.maximum(values, 1e-9)) @ vectors.T

    def _variances(self, confidences, *sides):
        """Return each record's variance with and without it, drawn to that of all."""
        squares = [_squares(confidences, side) for side in sides]
        if self._shared:
            squares = [tuple(map(sum, zip(*squares, strict=True)))] * 2
        found = []
        for (total, freedom), (usual, variation) in zip(
            squares, self._spread, strict=True
        ):
            noise = 2 / np.maximum(freedom, 1) * (1 + variation)
            weight = np.where(freedom > 0, variation / (variation + noise), 0.0)
            own = total / np.maximum(freedom, 1)
            found.append(np.maximum(usual + weight * (own - usual), 1e-12))
        return found

    def log_ratio(self, target, confidences, inside, outside):
        """Return how much likelier a target's confidences are of one with the record.

        `inside` and `outside` are the models with and without a record, as masks; there
        may be none of either.
        """
        variances = self._variances(confidences, inside, outside)
        (mean_in, more_in), (mean_out, more_out) = self._posterior(
            confidences, variances, (inside, outside)
        )
        # No record is less sure for having been trained on.
        usual = max(self._mean[0] - self._mean[1], 0.0)
        half_shift = np.maximum(mean_in - mean_out, usual / 2) / 2
        middle = (mean_in + mean_out) / 2
        var_in, var_out = variances[0] + more_in, variances[1] + more_out
        if self._shared or not inside.any():
            var_in = var_out = (var_in + var_out) / 2
        return t.logpdf(
            target, _FREEDOM, middle + half_shift, np.sqrt(var_in)
        ) - t.logpdf(target, _FREEDOM, middle - half_shift, np.sqrt(var_out))

    def _posterior(self, confidences, variances, sides):
        """Return mean and variance of each record's means, with it and without."""
        (c_in, c), (_, c_out) = self._covariance
        counts = [side.sum(axis=0) for side in sides]
        # A side without models says nothing.
        noise = [
            np.where(n > 0, own / np.maximum(n, 1), 1e12)
            for own, n in zip(variances, counts, strict=True)
        ]
        off = [
            np.where(n > 0, _mean(confidences, side) - usual, 0.0)
            for side, n, usual in zip(sides, counts, self._mean, strict=True)
        ]
        a, b = c_in + noise[0], c_out + noise[1]
        determinant = a * b - c**2
        x_in = (b * off[0] - c * off[1]) / determinant
        x_out = (a * off[1] - c * off[0]) / determinant
        left_in = c_in - (c_in**2 * b - 2 * c_in * c**2 + c**2 * a) / determinant
        left_out = c_out - (c**2 * b - 2 * c_out * c**2 + c_out**2 * a) / determinant
        return (
            (self._mean[0] + c_in * x_in + c * x_out, np.maximum(left_in, 0)),
            (self._mean[1] + c * x_in + c_out * x_out, np.maximum(left_out, 0)),
        )


def _in_both(trained):
    """Return the records that some models were trained on and some were not."""
    return trained.any(axis=0) & ~trained.all(axis=0)


def _mean(values, mask):
    """Return the mean over the models of a mask (0 of none), for the last two axes."""
    return (values * mask).sum(axis=-2) / np.maximum(mask.sum(axis=0), 1)


def _squares(values, mask):
    """Return the sum of squares around each record's mean, and its degrees of freedom."""
    squares = ((values - _mean(values, mask)) ** 2 * mask).sum(axis=0)
    return squares, np.maximum(mask.sum(axis=0) - 1, 0)


def _spread(squares, freedom):
    """Return the usual variance of a record, and how much it varies (squared, relative).

    Estimates from `k` degrees of freedom vary by 2 / k more.
    """
    known = freedom > 0
    if not squares[known].any():
        return 1.0, 0.0
    usual = squares[known].sum() / freedom[known].sum()
    off = (squares[known] / freedom[known] / usual - 1) ** 2
    noise = 2 / freedom[known]
    return usual, max(float(np.mean(off - noise) / np.mean(1 + noise)), 0.0)


def _moments(values, mask):
    """Return mean and standard deviation over the models of a mask, per record."""
    count = mask.sum(axis=0)
    mean = (values * mask).sum(axis=1) / count
    square = ((values - mean[:, np.newaxis]) ** 2 * mask).sum(axis=1)
    return mean, np.sqrt(square / count)


def _pooled_std(values, mask):
    """Return one standard deviation around the records' means, for each query."""
    mask = mask & (mask.sum(axis=0) > 1)  # one value has no deviation
    if not mask.any():
        return np.ones((len(values), 1))
    count = np.maximum(mask.sum(axis=0), 1)
    mean = (values * mask).sum(axis=1) / count
    square = ((values - mean[:, np.newaxis]) ** 2 * mask).sum(axis=(1, 2))
    freedom = (mask.sum(axis=0) - 1).clip(min=0).sum()
    return np.sqrt(square / freedom)[:, np.newaxis]
