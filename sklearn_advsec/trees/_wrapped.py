"""Readers of what stands around trees: thresholds, calibration, votes, searches."""

from dataclasses import replace

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from .._sklearn import BaseSearchCV
from ._ensemble import TreeEnsemble
from ._reading import read_inside, register_reader, tree_ensemble

# Nearer to 0 or 1, the rounding of a probability is more than that of the sum behind it.
_LEAST_PROBABILITY = 0.01
# The scale and the shift of the way back, of transformers of targets.
_SCALES = {
    StandardScaler: lambda own: (own.scale_, own.mean_ if own.with_mean else None),
    MinMaxScaler: lambda own: (1 / own.scale_, -own.min_ / own.scale_),
    MaxAbsScaler: lambda own: (own.scale_, None),
    RobustScaler: lambda own: (own.scale_, own.center_),
}
_GROWING = {"exp": np.exp, "expm1": np.expm1, "sinh": np.sinh}


@register_reader(FixedThresholdClassifier)
def _fixed_threshold(estimator):
    by = _signal(estimator.estimator_, estimator.response_method)
    threshold = estimator.threshold
    if threshold == "auto":
        threshold = 0.5 if by == "predict_proba" else 0.0
    return _threshold(estimator, by, threshold, estimator.pos_label)


@register_reader(TunedThresholdClassifierCV)
def _tuned_threshold(estimator):
    by = _signal(estimator.estimator_, estimator.response_method)
    positive = estimator._curve_scorer._get_pos_label()
    return _threshold(estimator, by, estimator.best_threshold_, positive)


@register_reader(CalibratedClassifierCV)
def _calibrated(estimator):
    parts = estimator.calibrated_classifiers_
    if len(parts) > 1:
        _refuse(estimator, "ensemble=True averages calibrated probabilities, no sums")
    if estimator.method != "sigmoid" or len(estimator.classes_) > 2:
        _refuse(estimator, "only method='sigmoid' with two classes is one threshold")
    inner, (calibrator,) = parts[0].estimator, parts[0].calibrators
    by = "predict_proba"
    if hasattr(inner, "decision_function"):
        by = "decision_function"
    if not calibrator.a_:
        _refuse(estimator, "its calibration is constant")
    # 1 / (1 + exp(a s + b)) is above one half where a s + b is negative.
    cut, above = -calibrator.b_ / calibrator.a_, calibrator.a_ < 0
    return _cut(estimator, tree_ensemble(inner), by, cut, above=above)


@register_reader(VotingClassifier)
def _voting(estimator):
    parts = [tree_ensemble(part) for part in estimator.estimators_]
    weights = _weights(estimator, parts)
    if not all(part.probability == "share" for part in parts):
        _refuse(estimator, "of its members, trees, forests and bags of these can be")
    if estimator.voting == "soft":
        values = [
            part.value * (weight / part.divisor)
            for part, weight in zip(parts, weights, strict=True)
        ]
    elif all(part.n_trees == 1 for part in parts):
        own = np.arange(len(estimator.classes_))
        values = [
            weight * (part.value.argmax(1)[:, None] == own)
            for part, weight in zip(parts, weights, strict=True)
        ]
    else:
        _refuse(estimator, "with voting='hard', members of several trees are no sums")
    return _join(
        parts,
        values,
        classes=estimator.classes_,
        base=np.zeros(1),
        divisor=float(weights.sum()),
        probability="share" if estimator.voting == "soft" else None,
    )


@register_reader(VotingRegressor)
def _voting_regressor(estimator):
    parts = [tree_ensemble(part) for part in estimator.estimators_]
    weights = _weights(estimator, parts)
    kept = ("float32", "regression")
    if any(
        (part.compare, part.link) != kept
        or len(part.bitsets)
        or part.inverse != "identity"
        for part in parts
    ):
        _refuse(estimator, "of its members, trees, forests and bags of these can be")
    shares = [weight / part.divisor for part, weight in zip(parts, weights, strict=True)]
    return _join(
        parts,
        [part.value * share for part, share in zip(parts, shares, strict=True)],
        classes=parts[0].classes,
        base=sum(part.base * share for part, share in zip(parts, shares, strict=True)),
        divisor=float(weights.sum()),
        link="regression",
    )


@register_reader(TransformedTargetRegressor)
def _transformed_target(estimator):
    ensemble, transformer = tree_ensemble(estimator.regressor_), estimator.transformer_
    if ensemble.link != "regression" or ensemble.inverse != "identity":
        _refuse(estimator, "what is inside of it is no sum over trees")
    if type(transformer) in _SCALES:
        scale, shift = _SCALES[type(transformer)](transformer)
        scale = 1.0 if scale is None else float(scale[0])
        shift = 0.0 if shift is None else float(shift[0])
        shift = ensemble.divisor * shift * np.array([-1.0, 0.0, 1.0])
        base = ensemble.base * scale
        # What the base and the shift take from each other was rounded before.
        before = (np.abs(base) + np.abs(shift)).max() / ensemble.divisor
        eps = np.finfo(ensemble.sum_dtype).eps
        return replace(
            ensemble,
            value=ensemble.value * scale,
            base=base + shift,
            blur=float((ensemble.n_trees + 8) * eps * before),
        )
    inverse = getattr(transformer, "inverse_func", transformer)
    if inverse is None:
        return ensemble
    names = [name for name, function in _GROWING.items() if inverse is function]
    plain = type(transformer) is FunctionTransformer and not transformer.inv_kw_args
    if not (plain and names):
        _refuse(
            estimator,
            "of the ways back to targets, those of scalers are known to grow, and "
            f"inverse_func=np.{', np.'.join(_GROWING)}",
        )
    return replace(ensemble, inverse=names[0])


@register_reader(BaseSearchCV)
def _search(estimator):
    return tree_ensemble(estimator.best_estimator_)


def _weights(estimator, parts):
    """Return the weights of the members of a vote, none of which has steps of its own."""
    if any(part.steps for part in parts):
        _refuse(estimator, "steps in front of its members: put them in front of it")
    weights = estimator._weights_not_none
    return np.ones(len(parts)) if weights is None else np.asarray(weights, float)


def _join(parts, values, **rest):
    """Join ensembles of trees into one, with other values at their nodes."""
    counts = [len(part.feature) for part in parts]
    shifts = np.cumsum([0, *counts[:-1]])

    def joined(name, shifted=False):
        own = [getattr(part, name) for part in parts]
        if shifted:
            own = [array + shift for array, shift in zip(own, shifts, strict=True)]
        return np.concatenate(own)

    return TreeEnsemble(
        roots=joined("roots", shifted=True),
        feature=joined("feature"),
        threshold=joined("threshold"),
        left=joined("left", shifted=True),
        right=joined("right", shifted=True),
        missing_left=joined("missing_left"),
        value=np.concatenate(values),
        **rest,
    )


def _signal(inner, response_method):
    """Return the method of a model whose answer is compared with a threshold."""
    if response_method != "auto":
        return response_method
    has_proba = hasattr(inner, "predict_proba")
    return "predict_proba" if has_proba else "decision_function"


def _threshold(estimator, by, threshold, positive):
    """Read a model whose class is `positive` from a threshold on."""
    classes = estimator.classes_
    ensemble = tree_ensemble(estimator.estimator_)
    if positive is None or positive == classes[1]:
        return _cut(estimator, ensemble, by, threshold, inclusive=True)
    # The first class is taken where its own score reaches the threshold.
    other = 1 - threshold if by == "predict_proba" else -threshold
    return _cut(estimator, ensemble, by, other)


def _cut(estimator, ensemble, by, cut, *, above=True, inclusive=False):
    """Return the ensemble that says the second class above (or below) a cut."""
    share = ensemble.probability == "share" and ensemble.value.shape[1] == 2
    if share and by == "predict_proba":
        value, base, cut = ensemble.value[:, 1:], np.zeros(1), cut * ensemble.divisor
    elif ensemble.link in ("positive", "nonnegative", "logistic"):
        value, base = ensemble.value, ensemble.base
        if by == "predict_proba":
            if ensemble.probability != "softmax":
                _refuse(estimator, "its probabilities are not those of a logistic link")
            if not _LEAST_PROBABILITY <= cut <= 1 - _LEAST_PROBABILITY:
                _refuse(estimator, f"its threshold of {cut:.3g} is too near 0 or 1")
            cut = np.log(cut) - np.log1p(-cut)
    else:
        _refuse(estimator, "of what is compared, there is no sum over its trees")
    side = 1.0 if above else -1.0
    return replace(
        ensemble,
        classes=estimator.classes_,
        value=side * value,
        base=side * (base - cut),
        link="nonnegative" if inclusive else "positive",
        probability=None,
    )


def _refuse(estimator, why):
    raise TypeError(f"{type(estimator).__name__} cannot be read as trees: {why}.")


read_inside.update(
    [
        FixedThresholdClassifier,
        TunedThresholdClassifierCV,
        CalibratedClassifierCV,
        VotingClassifier,
        VotingRegressor,
        TransformedTargetRegressor,
        BaseSearchCV,
    ]
)
