"""Views of ensembles: mean probabilities, votes, stacks and calibrated classifiers."""

import numpy as np
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.preprocessing import FunctionTransformer

from ..exceptions import NoGradientError
from ._registry import input_columns, register, subview
from ._scaling import interpolate
from ._views import (
    ClassifierView,
    binary_logits,
    constant,
    log_probability,
    one_hot_votes,
    smoothed_log,
    straight_through,
    two_columns,
)


def _spread(proba, members, n_classes):
    """Put the columns of a part that knows only some classes in their places."""
    if len(members) == n_classes:
        return proba
    return proba.new_zeros(len(proba), n_classes).index_add(1, members, proba)


def _positions(some, classes):
    """Return where each of `some` classes is in the sorted `classes`."""
    return torch.as_tensor(np.searchsorted(classes, some))


@register(AdaBoostClassifier)
def ada_boost(estimator):
    """View AdaBoostClassifier: a weighted vote.

    The values are exact. Votes are piecewise constant, so the gradient is that of the
    softmax of each estimator's logits (a straight-through estimator).
    """
    n_classes = len(estimator.classes_)
    parts = [
        (subview(part).logits, _positions(part.classes_, estimator.classes_), float(w))
        for part, w in zip(
            estimator.estimators_, estimator.estimator_weights_, strict=False
        )
    ]
    total = float(estimator.estimator_weights_.sum())

    def scores(x):
        votes = sum(
            weight * _spread(one_hot_votes(logits(x)), members, n_classes)
            for logits, members, weight in parts
        )
        # Whoever votes for a class votes against the others with 1 / (n_classes - 1).
        return (votes * n_classes - total) / ((n_classes - 1) * total)

    def decision_function(x):
        out = scores(x)
        return out[:, 1] - out[:, 0] if n_classes == 2 else out

    def logits(x):
        decision = decision_function(x)
        if n_classes == 2:
            return binary_logits(decision)
        return decision / (n_classes - 1)

    return ClassifierView(
        estimator.classes_,
        decision_function=decision_function,
        predict_proba=lambda x: torch.softmax(logits(x), dim=1),
        logits=logits,
    )


@register(BaggingClassifier)
def bagging(estimator):
    """View BaggingClassifier: the mean of probabilities, or of votes.

    Estimators without probabilities vote; their votes have the gradient of the softmax of
    their logits, and half a vote is added to each class before the logarithm is taken.
    """
    n_classes = len(estimator.classes_)
    parts = [
        (subview(part), torch.as_tensor(chosen), torch.as_tensor(part.classes_))
        for part, chosen in zip(
            estimator.estimators_, estimator.estimators_features_, strict=True
        )
    ]

    def predict_proba(x):
        total = 0.0
        for view, chosen, members in parts:
            rows = x.index_select(1, chosen)
            vote = view.predict_proba or (lambda r, v=view: one_hot_votes(v.logits(r)))
            total = total + _spread(vote(rows), members, n_classes)
        return total / len(parts)

    def decision_function(x):
        scores = [
            view.decision_function(x.index_select(1, chosen)) for view, chosen, _ in parts
        ]
        return sum(scores) / len(scores)

    def logits(x):
        if all(view.predict_proba for view, _, _ in parts):
            return log_probability(predict_proba(x))
        return smoothed_log(predict_proba(x), 0.5 / len(parts))

    return ClassifierView(
        estimator.classes_,
        decision_function=decision_function if parts[0][0].decision_function else None,
        predict_proba=predict_proba,
        logits=logits,
    )


def weights_of_voters(estimator):
    """Return the weights of the parts of a vote that were not dropped."""
    weights = estimator.weights
    weights = [1.0] * len(estimator.estimators) if weights is None else weights
    return [
        float(weight)
        for (_, part), weight in zip(estimator.estimators, weights, strict=True)
        if not (isinstance(part, str) and part == "drop")
    ]


@register(VotingClassifier, takes_codes=True)
def voting(estimator):
    """View VotingClassifier.

    With voting="hard", the logits are the numbers of votes; their gradient is that of the
    softmax of each estimator's logits (a straight-through estimator).
    """
    views = [subview(part) for part in estimator.estimators_]
    weights = weights_of_voters(estimator)

    def mean(outputs):
        total = sum(w * out for w, out in zip(weights, outputs, strict=True))
        return total / sum(weights)

    if estimator.voting == "hard":
        return ClassifierView(
            estimator.classes_,
            logits=lambda x: mean(one_hot_votes(view.logits(x)) for view in views),
        )
    return ClassifierView(
        estimator.classes_,
        predict_proba=lambda x: mean(view.predict_proba(x) for view in views),
    )


@register(StackingClassifier, takes_codes=True)
def stacking(estimator):
    """View StackingClassifier: the outputs of some estimators are another's features."""
    methods = list(estimator.stack_method_)
    if "predict" in methods:
        raise NoGradientError(
            "StackingClassifier hands on predicted labels, which have no gradient: use "
            "stack_method='predict_proba' or 'decision_function'."
        )
    calls = [
        getattr(subview(part), method)
        for part, method in zip(estimator.estimators_, methods, strict=True)
    ]
    binary = len(estimator.classes_) == 2
    passed = None
    if estimator.passthrough:
        passed = subview(FunctionTransformer()).transform

    def transform(x):
        blocks = []
        for call, method in zip(calls, methods, strict=True):
            out = call(x)
            if out.ndim == 1:
                out = out[:, None]
            elif binary and method == "predict_proba":
                out = out[:, 1:]  # the first column is 1 minus the second
            blocks.append(out)
        if passed is not None:
            blocks.append(passed(x))
        return torch.cat(blocks, dim=1)

    with input_columns(None):
        view = subview(estimator.final_estimator_).compose(transform)
    view.classes = estimator.classes_
    view.transform = transform
    return view


@register(CalibratedClassifierCV, takes_codes=True)
def calibrated(estimator):
    """View CalibratedClassifierCV: the mean over its calibrated classifiers.

    Isotonic calibration is a staircase, flat almost everywhere: `predict_proba` has its
    exact gradient, and the logits, whose values go with `predict`, that of the
    uncalibrated estimators.
    """
    classes = estimator.classes_
    views = [
        (part, subview(part.estimator)) for part in estimator.calibrated_classifiers_
    ]
    parts = [_calibrated_part(part, view, classes) for part, view in views]

    def uncalibrated(part, view, x):
        members = _positions(part.estimator.classes_, classes)
        return _spread(view.logits(x), members, len(classes))

    def predict_proba(x):
        return sum(part(x) for part in parts) / len(parts)

    def logits(x):
        if estimator.method != "isotonic":
            return log_probability(predict_proba(x))
        with torch.no_grad():
            value = smoothed_log(predict_proba(x), 1e-3)
        raw = sum(uncalibrated(part, view, x) for part, view in views)
        return straight_through(value, raw / len(views))

    return ClassifierView(classes, predict_proba=predict_proba, logits=logits)


def _calibrated_part(part, view, classes):
    """Return ``predict_proba`` of one estimator with its calibrators."""
    n_classes = len(classes)
    maps = [_calibrator(calibrator, part.method) for calibrator in part.calibrators]
    members = _positions(part.estimator.classes_, classes)

    def predict_proba(x):
        by_decision = view.decision_function is not None
        scores = (view.decision_function if by_decision else view.predict_proba)(x)
        if part.method == "temperature":
            if not by_decision:
                scores = torch.log(scores + 1e-12)
            elif scores.ndim == 1:
                scores = torch.stack([-scores, scores], dim=1)
            return torch.softmax(maps[0](scores), dim=1)
        if n_classes == 2:
            return two_columns(maps[0](scores if by_decision else scores[:, 1]))
        columns = [
            calibrate(column) for calibrate, column in zip(maps, scores.T, strict=True)
        ]
        proba = _spread(torch.stack(columns, dim=1), members, n_classes)
        total = proba.sum(dim=1, keepdim=True)
        share = proba / torch.where(total == 0, 1.0, total)
        return torch.where(total == 0, 1.0 / n_classes, share)

    return predict_proba


def _calibrator(calibrator, method):
    """Return the function of scores that one calibrator is."""
    if method == "temperature":
        beta = float(calibrator.beta_)
        return lambda score: beta * score
    if method == "isotonic":
        knots = constant(calibrator.X_thresholds_)[None]
        values = constant(calibrator.y_thresholds_)[None]
        return lambda score: interpolate(score[None], knots, values)[0]
    slope, offset = float(calibrator.a_), float(calibrator.b_)
    return lambda score: torch.sigmoid(-(slope * score + offset))
