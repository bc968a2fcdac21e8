"""Scores of membership attacks, with intervals: what a statistician asks for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import floor
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import beta, norm, rankdata
from scipy.stats import t as student_t
from sklearn.metrics import make_scorer, roc_curve
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._sklearn import Interval, validate_params

# Fewer false positives than this are no ground for a rate.
_FEW = 10


@validate_params(
    {
        "y_true": ["array-like"],
        "y_score": ["array-like"],
        "fpr": [Interval(Real, 0, 1, closed="neither")],
        "sample_weight": ["array-like", None],
    },
)
def tpr_at_fpr(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    fpr: float = 0.01,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the share of members found at a small false positive rate.

    What matters of a membership attack is what it can be sure of: AUC and accuracy mostly
    measure its guesses about the rest.

    Parameters
    ----------
    y_true : array-like of shape (n_records,)
        Membership: two values, of which the larger stands for members.
    y_score : array-like of shape (n_records,)
        Scores, larger for members.
    fpr : float, default=0.01
        The largest share of non-members that may be called members.
    sample_weight : array-like of shape (n_records,), default=None
        Sample weights.

    Returns
    -------
    tpr : float
        The true positive rate of the best threshold within `fpr`.

    Raises
    ------
    ValueError
        If `fpr` is less than one non-member.

    Warns
    -----
    UserWarning
        If `fpr` is less than ten non-members: one record more or less moves the rate.

    See Also
    --------
    tpr_at_fpr_scorer : For cross-validation.
    sklearn_advsec.inspection.MembershipRocDisplay : The whole curve.

    References
    ----------
    .. [1] N. Carlini et al., "Membership inference attacks from first principles",
       arXiv:2112.03570 (Section III).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.metrics import tpr_at_fpr
    >>> scores = np.r_[np.linspace(0, 1, 1000), np.linspace(0.5, 1.5, 1000)]
    >>> tpr_at_fpr(np.arange(2000) >= 1000, scores, fpr=0.01)
    0.51
    """
    y_true, y_score = _check(y_true, y_score)
    n_false = int((~y_true).sum())
    allowed = floor(fpr * n_false + 1e-9)
    if allowed < 1:
        raise ValueError(
            f"fpr={fpr} of {n_false} non-members is less than one record: at least "
            f"{int(np.ceil(1 / fpr))} non-members are needed (better ten times as many)."
        )
    if allowed < _FEW:
        warnings.warn(
            f"fpr={fpr} of {n_false} non-members is {allowed} record(s), on which the "
            "true positive rate rests; see bootstrap_interval.",
            UserWarning,
            stacklevel=3,  # above the check of the parameters
        )
    return _tpr_at_fpr(y_true, y_score, fpr, sample_weight)


def _tpr_at_fpr(y_true, y_score, fpr, sample_weight=None):
    false_rate, true_rate, _ = roc_curve(
        y_true, y_score, sample_weight=sample_weight, drop_intermediate=False
    )
    return float(true_rate[false_rate <= fpr + 1e-12].max())


def tpr_at_fpr_scorer(fpr: float = 0.01) -> Callable[..., Any]:
    """Make a scorer of :func:`tpr_at_fpr`, for `cross_validate` and `GridSearchCV`.

    Parameters
    ----------
    fpr : float, default=0.01
        The largest share of non-members that may be called members. Each fold has to
        hold ``1 / fpr`` of them.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)``.

    See Also
    --------
    tpr_at_fpr : The score itself.

    Examples
    --------
    >>> from sklearn_advsec.metrics import tpr_at_fpr_scorer
    >>> tpr_at_fpr_scorer(0.05)
    make_scorer(tpr_at_fpr, response_method=('decision_function', 'predict_proba'),
                fpr=0.05)
    """
    if not isinstance(fpr, Real) or not 0 < fpr < 1:
        raise ValueError(f"fpr must be between 0 and 1; got {fpr!r}.")
    return make_scorer(
        tpr_at_fpr, response_method=("decision_function", "predict_proba"), fpr=fpr
    )


def membership_advantage(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the attacker's advantage over guessing: TPR less FPR of its decisions.

    Parameters
    ----------
    y_true : array-like of shape (n_records,)
        Membership: two values, of which the larger stands for members.
    y_pred : array-like of shape (n_records,)
        The attack's decisions, in the same values.

    Returns
    -------
    advantage : float
        From -1 to 1; twice the balanced accuracy, less 1.

    See Also
    --------
    tpr_at_fpr : Members found at few false alarms.
    roc_auc_interval : The area, with its interval.

    References
    ----------
    .. [1] S. Yeom et al., "Privacy risk in machine learning: analyzing the connection to
       overfitting", arXiv:1709.01604 (Definition 4).

    Examples
    --------
    >>> from sklearn_advsec.metrics import membership_advantage
    >>> membership_advantage([0, 0, 1, 1], [0, 1, 1, 1])
    0.5
    """
    given = column_or_1d(y_true)
    y_true, _ = _check(y_true, np.zeros(len(y_true)))
    values = np.unique(given)
    y_pred = column_or_1d(y_pred)
    check_consistent_length(y_true, y_pred)
    unknown = [v for v in dict.fromkeys(y_pred.tolist()) if v not in values.tolist()]
    if unknown:
        raise ValueError(
            f"y_pred holds {unknown[:3]}, which y_true does not; hand over "
            "decisions, not scores."
        )
    y_pred = y_pred == values[1]
    return float(y_pred[y_true].mean() - y_pred[~y_true].mean())


_COUNT = Interval(Integral, 0, 2**53, closed="both")
_CONFIDENCE = {"confidence": [Interval(Real, 0, 1, closed="neither")]}


@validate_params(
    {**_CONFIDENCE, "n_successes": [_COUNT], "n_trials": [_COUNT]},
)
def clopper_pearson(
    n_successes: int, n_trials: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Compute the exact interval of a rate.

    Parameters
    ----------
    n_successes : int
        Number of successes.
    n_trials : int
        Number of independent trials.
    confidence : float, default=0.95
        How often the interval covers the rate, at least.

    Returns
    -------
    low, high : float
        The interval.

    See Also
    --------
    bootstrap_interval : For any score.

    Examples
    --------
    >>> from sklearn_advsec.metrics import clopper_pearson
    >>> low, high = clopper_pearson(1, 1000)
    >>> round(low, 5), round(high, 5)
    (3e-05, 0.00556)
    """
    if not 0 <= n_successes <= n_trials or n_trials < 1:
        raise ValueError(
            f"n_successes must be between 0 and n_trials, which must be 1 or more; got "
            f"{n_successes} of {n_trials}."
        )
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, n_successes, n_trials - n_successes + 1) if n_successes else 0.0
    failures = n_trials - n_successes
    high = beta.isf(tail, n_successes + 1, failures) if failures else 1.0
    return float(low), float(high)


@validate_params({**_CONFIDENCE, "groups": ["array-like", None]})
def roc_auc_interval(
    y_true: ArrayLike,
    y_score: ArrayLike,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
) -> tuple[float, float]:
    """Compute DeLong's interval of the area under the ROC curve, on the logit scale.

    Where no record is out of place (or every one is, or all scores are equal), it would
    have no width; there, as many disjoint pairs of a member and a non-member as there are
    agree, and Clopper and Pearson bound the share of pairs that do not. Records of one
    group count as one draw, by Obuchowski's variance [3]_ and Student's t.

    Parameters
    ----------
    y_true : array-like of shape (n_records,)
        Membership: two values, of which the larger stands for members.
    y_score : array-like of shape (n_records,)
        Scores, larger for members.
    confidence : float, default=0.95
        How often the interval covers the area, in large samples.
    groups : array-like of shape (n_records,), default=None
        What records belong together, such as the visits of one person; None takes each
        for itself. The samples that are large are then of groups; of a single group of
        members, or of non-members, the interval is all of [0, 1].

    Returns
    -------
    low, high : float
        The interval.

    See Also
    --------
    bootstrap_interval : For other scores.
    tpr_at_fpr : Members found at few false alarms.

    References
    ----------
    .. [1] E. DeLong, D. DeLong, D. Clarke-Pearson, "Comparing the areas under two or more
       correlated receiver operating characteristic curves", Biometrics 44, 1988.
    .. [2] G. Qin, L. Hotilovac, "Comparison of non-parametric confidence intervals for
       the area under the ROC curve of a continuous-scale diagnostic test", Statistical
       Methods in Medical Research 17, 2008 (the logit: it covers large areas, too).
    .. [3] N. Obuchowski, "Nonparametric analysis of clustered ROC curve data",
       Biometrics 53, 1997 (Section 2).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.metrics import roc_auc_interval
    >>> rng = np.random.default_rng(0)
    >>> low, high = roc_auc_interval(np.arange(400) % 2, rng.normal(size=400))
    >>> low < 0.5 < high
    True
    """
    y_true, y_score = _check(y_true, y_score)
    n_true, n_false = int(y_true.sum()), int((~y_true).sum())
    ranks = rankdata(y_score)
    # The share of the other kind that each record is ahead of (behind, for non-members).
    ahead = (ranks[y_true] - rankdata(y_score[y_true])) / n_false
    behind = 1 - (ranks[~y_true] - rankdata(y_score[~y_true])) / n_true
    area, n_pairs = ahead.mean(), min(n_true, n_false)
    quantile = norm.ppf((1 + confidence) / 2)
    if groups is None:
        variance = _variance(ahead) / n_true + _variance(behind) / n_false
    else:
        codes = group_codes(groups, len(y_true))
        n_pairs = min(len(np.unique(codes[kind])) for kind in (y_true, ~y_true))
        if n_pairs == 1:
            return 0.0, 1.0
        quantile = student_t.ppf((1 + confidence) / 2, n_pairs - 1)
        variance = _variance_of_groups(ahead - area, behind - area, y_true, codes)
    if area in (0, 1) or variance <= 0:
        other = clopper_pearson(0, n_pairs, confidence)[1]
        return float(area * (1 - other)), float(area + (1 - area) * other)
    half = quantile * np.sqrt(variance) / (area * (1 - area))
    return float(expit(logit(area) - half)), float(expit(logit(area) + half))


def _variance(values):
    return values.var(ddof=1) if len(values) > 1 else 0.25


def _variance_of_groups(ahead, behind, y_true, codes):
    """Return the variance of an area from what its records add, less the area."""
    sums, variance = [], 0.0
    for kind, values in ((y_true, ahead), (~y_true, behind)):
        n_groups = len(np.unique(codes[kind]))
        of_group = np.bincount(codes[kind], values, codes.max() + 1) / len(values)
        variance += n_groups / (n_groups - 1) * np.square(of_group).sum()
        sums.append(of_group)
    n_groups = codes.max() + 1
    return variance + 2 * n_groups / (n_groups - 1) * np.prod(sums, axis=0).sum()


def group_codes(groups, n_records):
    """Return groups of records as numbers from 0, or raise where they are none."""
    codes = check_array(
        groups, ensure_2d=False, dtype=None, ensure_min_samples=0, input_name="groups"
    )
    if codes.shape != (n_records,):
        raise ValueError(
            f"groups must be one for each of the {n_records} records; got an array of "
            f"shape {codes.shape}."
        )
    if codes.dtype.kind == "O":
        codes = codes.astype(str)
    return np.unique(codes, return_inverse=True)[1].ravel()


class Resampled:
    """Samples of records, drawn with replacement: of each kind, or whole groups.

    Parameters
    ----------
    y_true : ndarray of bool, shape (n_records,)
        Membership.
    codes : ndarray of int, shape (n_records,), default=None
        Groups. Those of members, of non-members and of both are drawn by themselves.
    """

    def __init__(self, y_true, codes=None):
        if codes is None:
            self.kinds = [np.flatnonzero(~y_true), np.flatnonzero(y_true)]
            self.groups = None
            return
        order = np.argsort(codes, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
        share = np.array([y_true[group].mean() for group in rows])
        kind = np.select([share == 0, share == 1], [0, 1], 2)
        self.kinds = [np.flatnonzero(kind == k) for k in range(3) if (kind == k).any()]
        self.groups = rows

    def draw(self, rng):
        """Return the records of one sample."""
        drawn = np.concatenate([rng.choice(kind, len(kind)) for kind in self.kinds])
        if self.groups is None:
            return drawn
        return np.concatenate([self.groups[i] for i in drawn])


@validate_params(
    {
        **_CONFIDENCE,
        "metric": [callable],
        "groups": ["array-like", None],
        "n_bootstraps": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
)
def bootstrap_interval(
    metric: Callable[..., Any],
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    n_bootstraps: int = 1000,
    random_state: int | np.random.RandomState | None = 0,
) -> tuple[float, float]:
    """Compute the percentile interval of any metric, resampling both kinds of records.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_score)``, for example :func:`tpr_at_fpr`, whose own threshold
        then varies with the sample as well.
    y_true : array-like of shape (n_records,)
        Membership: two values, of which the larger stands for members.
    y_score : array-like of shape (n_records,)
        Scores or decisions.
    confidence : float, default=0.95
        How often the interval covers the value, about.
    groups : array-like of shape (n_records,), default=None
        What records belong together, such as the visits of one person, which are then
        drawn together; None draws each for itself.
    n_bootstraps : int, default=1000
        Number of samples drawn.
    random_state : int, RandomState instance or None, default=0
        Seed of the samples.

    Returns
    -------
    low, high : float
        The interval.

    Warns
    -----
    UserWarning
        If all samples have the same value, as where every member is found, or none: no
        interval can be made of them.

    See Also
    --------
    clopper_pearson : For shares.
    roc_auc_interval : For areas.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.metrics import bootstrap_interval, tpr_at_fpr
    >>> scores = np.r_[np.linspace(0, 1, 2000), np.linspace(0.5, 1.5, 2000)]
    >>> low, high = bootstrap_interval(
    ...     tpr_at_fpr, np.arange(4000) >= 2000, scores, n_bootstraps=200
    ... )
    >>> 0.4 < low < 0.51 < high < 0.6
    True
    """
    members, _ = _check(y_true, y_score)
    y_true, y_score = column_or_1d(y_true), column_or_1d(y_score)
    rng = check_random_state(random_state)
    codes = None if groups is None else group_codes(groups, len(y_true))
    samples, values = Resampled(members, codes), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said once, by the metric itself
        for _ in range(n_bootstraps):
            rows = samples.draw(rng)
            values.append(metric(y_true[rows], y_score[rows]))
    if n_bootstraps > 1 and np.ptp(values) == 0:
        warnings.warn(
            f"All samples give {values[0]}: the interval has no width, though other "
            "records may differ. For a rate, use clopper_pearson.",
            UserWarning,
            stacklevel=3,  # above the check of the parameters
        )
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _check(y_true, y_score):
    """Return membership as a mask, and scores."""
    y_true, y_score = column_or_1d(y_true), column_or_1d(y_score)
    check_consistent_length(y_true, y_score)
    binary = type_of_target(y_true) == "binary"
    values = np.unique(y_true) if binary else list(dict.fromkeys(y_true.tolist()))
    if not binary or len(values) != 2:
        raise ValueError(
            f"y_true must hold two values, for non-members and members; it holds "
            f"{list(values[:3])}."
        )
    if y_score.dtype.kind not in "biuf":
        raise ValueError(f"y_score must hold numbers; it is of type {y_score.dtype}.")
    if y_score.dtype.kind == "f" and not np.isfinite(y_score).all():
        raise ValueError("y_score holds NaN or infinite values.")
    return y_true == values[1], y_score
