"""Views of many two-class problems, and of moved thresholds."""

import math

import torch
from sklearn.base import is_classifier
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier

from ..exceptions import NoGradientError
from ._registry import register, subview
from ._svm import one_vs_one
from ._views import ClassifierView, binary_logits, log_probability


def _positive_score(view):
    """Return the score for the second class, and the threshold that decides."""
    if view.decision_function is not None:
        return view.decision_function, 0.0
    return (lambda x: view.predict_proba(x)[:, 1]), 0.5


@register(OneVsRestClassifier, takes_codes=True)
def one_against_rest(estimator):
    """View OneVsRestClassifier."""
    if estimator.multilabel_:
        raise NoGradientError(
            "OneVsRestClassifier was fitted on several labels per row; attacks here "
            "need one."
        )
    if not all(is_classifier(part) for part in estimator.estimators_):
        raise NoGradientError(
            "OneVsRestClassifier has a view only if each of its estimators is a "
            "classifier that has seen both of its classes."
        )
    views = [subview(part) for part in estimator.estimators_]
    scores = [_positive_score(view)[0] for view in views]
    has_decision = views[0].decision_function is not None
    if len(views) == 1:
        view = views[0]
        return ClassifierView(
            estimator.classes_,
            decision_function=view.decision_function,
            predict_proba=view.predict_proba,
        )

    def all_scores(x):
        return torch.stack([score(x) for score in scores], dim=1)

    def predict_proba(x):
        positive = [view.predict_proba(x)[:, 1] for view in views]
        proba = torch.stack(positive, dim=1)
        total = proba.sum(dim=1, keepdim=True)
        return proba / torch.where(total == 0, 1.0, total)

    return ClassifierView(
        estimator.classes_,
        decision_function=all_scores if has_decision else None,
        predict_proba=predict_proba if views[0].predict_proba else None,
    )


@register(OneVsOneClassifier)
def one_against_one(estimator):
    """View OneVsOneClassifier: votes plus squashed scores, as scikit-learn adds them."""
    n_classes = len(estimator.classes_)
    scores, thresholds = zip(
        *(_positive_score(subview(part)) for part in estimator.estimators_), strict=True
    )
    threshold = torch.tensor(thresholds, dtype=torch.float64)

    def all_scores(x):
        confidence = torch.stack([score(x).reshape(-1) for score in scores], dim=1)
        return one_vs_one(confidence > threshold, confidence, n_classes)

    if n_classes == 2:
        return ClassifierView(
            estimator.classes_,
            decision_function=lambda x: all_scores(x)[:, 1],
            logits=lambda x: binary_logits(all_scores(x)[:, 1] - thresholds[0]),
        )
    return ClassifierView(estimator.classes_, decision_function=all_scores)


@register(FixedThresholdClassifier, takes_codes=True)
@register(TunedThresholdClassifierCV, takes_codes=True)
def threshold_classifier(estimator):
    """View classifiers with a threshold of their own: it moves the logit.

    `decision_function` and `predict_proba` stay those of the estimator inside.
    """
    inner = getattr(estimator, "estimator_", estimator.estimator)
    view = subview(inner)
    method = estimator.response_method
    if method == "auto":
        has_proba = view.predict_proba is not None
        method = "predict_proba" if has_proba else "decision_function"
    if isinstance(estimator, TunedThresholdClassifierCV):
        threshold = float(estimator.best_threshold_)
        positive = estimator._curve_scorer._get_pos_label()
    else:
        threshold, positive = estimator.threshold, estimator.pos_label
        if threshold == "auto":
            threshold = 0.5 if method == "predict_proba" else 0.0
    sign = -1.0 if positive is not None and positive == inner.classes_[0] else 1.0

    def logits(x):
        if method == "decision_function":
            return binary_logits(sign * (sign * view.decision_function(x) - threshold))
        log = log_probability(view.predict_proba(x))
        return binary_logits(log[:, 1] - log[:, 0] - sign * _logit(threshold))

    return ClassifierView(
        estimator.classes_,
        decision_function=view.decision_function,
        predict_proba=view.predict_proba,
        logits=logits,
    )


def _logit(share):
    share = min(max(share, 1e-300), 1 - 1e-16)
    return math.log(share) - math.log1p(-share)
