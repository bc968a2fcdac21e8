"""Ask a victim: a fitted classifier, or anything remote that gives labels or scores."""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

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


def regresses(victim):
    """Whether a victim answers with numbers: it has no classes."""
    return not (hasattr(victim, "predict_proba") or hasattr(victim, "classes_"))


def outputs_of(victim, rows):
    """Ask for numbers: probabilities, labels one-hot, or what a regressor predicts."""
    if hasattr(victim, "predict_proba"):
        return np.asarray(victim.predict_proba(rows), dtype=np.float64)
    answer = np.asarray(victim.predict(rows))
    if not regresses(victim):
        return (answer[:, None] == np.asarray(victim.classes_)).astype(np.float64)
    if answer.dtype.kind not in "buif":
        raise ValueError(
            f"estimator answers {answer.ravel()[0]!r} and says nowhere which other "
            "labels there are: give it classes_ or predict_proba."
        )
    if answer.size != len(answer):
        raise ValueError(
            "estimator must have one output; it predicted an array of shape "
            f"{answer.shape} for {len(answer)} rows."
        )
    return answer.reshape(-1, 1).astype(np.float64)


def leaf_ids_of(victim):
    """Return the function that names a leaf for each row, or None."""
    if isinstance(victim, FrozenEstimator):
        return leaf_ids_of(victim.estimator)
    if isinstance(victim, Pipeline):
        last = leaf_ids_of(victim[-1])
        if last is None:
            return None
        return lambda rows: last(victim[:-1].transform(rows))
    if not hasattr(victim, "apply") or len(getattr(victim, "estimators_", "1")) > 1:
        return None
    return lambda rows: np.asarray(victim.apply(rows), dtype=np.float64).reshape(
        len(rows)
    )
