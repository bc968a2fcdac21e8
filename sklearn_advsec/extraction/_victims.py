"""Ask a victim: a fitted classifier, or anything remote that gives labels or scores."""

import numpy as np

from ._answers import score_kind


def is_estimator(victim):
    """Whether a victim is a scikit-learn estimator, not something remote."""
    return hasattr(victim, "fit") and hasattr(victim, "get_params")


def gives_scores(victim):
    """Whether a victim has any kind of score."""
    return hasattr(victim, "predict_proba") or hasattr(victim, "decision_function")


def labels_of(victim, rows):
    """Ask for labels; of a victim that gives scores only, for the best of them."""
    if hasattr(victim, "predict"):
        return np.asarray(victim.predict(rows))
    best = np.asarray(victim.predict_proba(rows)).argmax(axis=1)
    return np.asarray(victim.classes_)[best] if hasattr(victim, "classes_") else best


def scores_of(victim, rows):
    """Ask for one score per class: probabilities, or else the decision function."""
    if hasattr(victim, "predict_proba"):
        scores = np.asarray(victim.predict_proba(rows), dtype=np.float64)
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ValueError(
                f"estimator.predict_proba gave an array of shape {scores.shape} for "
                f"{len(rows)} rows; it must have one column per class."
            )
        return scores
    scores = np.asarray(victim.decision_function(rows), dtype=np.float64)
    if scores.ndim == 2:
        return scores
    return np.column_stack([np.zeros(len(scores)), scores])


def kind_of_scores(victim, scores):
    """Tell whether a victim's scores are a "probability" or a "logit".

    A decision function is never a probability, even where its values look like some;
    what `predict_proba` gives may be logits all the same, so it is looked at.
    """
    return score_kind(scores) if hasattr(victim, "predict_proba") else "logit"


def classes_of(victim, seen):
    """Give the victim's classes, or what can be told of them from its answers."""
    classes = getattr(victim, "classes_", None)
    return np.asarray(seen if classes is None else classes)
