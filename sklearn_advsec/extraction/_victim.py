"""The victim's answers: labels, scores, outputs and leaves."""

import numpy as np
from scipy.special import softmax
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.tree import BaseDecisionTree

from .._sklearn import _num_samples
from ..exceptions import BadAnswerError
from ..trees._steps import features_of, is_skipped
from ..victim import AnswerCheck, ask_labels, ask_scores


def soft_targets(scores, kind, temperature=1.0):
    """Return probabilities that a copy can be trained on; the rows sum to 1.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_classes)
        The victim's answers.
    kind : {"probability", "logit"}
        What they are.
    temperature : float, default=1.0
        By what the logits are divided: above 1 the targets become softer.
    """
    if kind == "logit":
        return softmax(scores / temperature, axis=1)
    powers = np.power(np.clip(scores, 0, None), 1 / temperature)
    total = powers.sum(axis=1, keepdims=True)
    uniform = np.full_like(powers, 1 / powers.shape[1])  # where nothing is shown at all
    return np.divide(powers, total, out=uniform, where=total > 0)


def centered_logits(scores, kind):
    """Return the logits less their mean over the classes; infinite where one underflows.

    Softmax forgets a number added to all logits of a row, so this is all that there is.
    """
    if kind == "probability":
        with np.errstate(divide="ignore"):
            scores = np.log(scores)
    with np.errstate(invalid="ignore"):
        return scores - scores.mean(axis=1, keepdims=True)


def decimals_of(scores, most=7):
    """Return to how many decimals scores are rounded, or None where they are not."""
    inner = scores[(scores > 0) & (scores < 1)]
    if not len(inner):
        return None
    for decimals in range(1, most + 1):
        scaled = inner * 10.0**decimals
        whole = np.rint(scaled)
        # What is next to 0 or 1 is not rounded: it would be 0 or 1.
        rounded = (whole >= 1) & (whole < 10**decimals) & (np.abs(scaled - whole) < 1e-6)
        if rounded.all():
            return decimals
    return None


def is_estimator(victim):
    """Whether a victim is a scikit-learn estimator, not something remote."""
    return hasattr(victim, "fit") and hasattr(victim, "get_params")


def gives_scores(victim):
    """Whether a victim has any kind of score."""
    return hasattr(victim, "predict_proba") or hasattr(victim, "decision_function")


def labels_of(victim, rows):
    """Ask for labels; of a victim that gives scores only, for the best of them."""
    if hasattr(victim, "predict"):
        return ask_labels(victim, rows)
    best = scores_of(victim, rows).argmax(axis=1)
    return np.asarray(victim.classes_)[best] if hasattr(victim, "classes_") else best


def scores_of(victim, rows, kind="probability"):
    """Ask for one score per class, by `predict_proba`, or else the decision function.

    Parameters
    ----------
    victim : object
        Who is asked.
    rows : {array-like, DataFrame} of shape (n_rows, ...)
        Rows as the victim takes them.
    kind : {"probability", "logit"}, default="probability"
        What `predict_proba` has to answer; of some services it is no probability.
    """
    if hasattr(victim, "predict_proba"):
        check = AnswerCheck(victim, getattr(victim, "classes_", None))
        answer, proba = victim.predict_proba(rows), kind == "probability"
        scores = check.scores(answer, _num_samples(rows), probability=proba)
        wide = np.ndim(scores) == 2 and scores.shape[1] > 1
        if wide:
            return scores.astype(np.float64)
        raise BadAnswerError(
            f"estimator.predict_proba gave an array of shape {scores.shape} for "
            f"{len(scores)} rows; it must have one column per class."
        )
    scores = ask_scores(victim, rows, "decision_function").astype(np.float64)
    if scores.ndim == 2 and scores.shape[1] > 1:
        return scores
    scores = scores.reshape(len(scores))
    return np.column_stack([np.zeros(len(scores)), scores])


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
        return scores_of(victim, rows)
    if not regresses(victim):
        answer = ask_labels(victim, rows)
        return (answer[:, None] == np.asarray(victim.classes_)).astype(np.float64)
    answer, check = victim.predict(rows), AnswerCheck(victim)
    first = check.labels(answer, _num_samples(rows))[:1].tolist()
    if first and isinstance(first[0], str):
        raise ValueError(
            f"estimator answers {first[0]!r} and says nowhere which other labels there "
            "are: give it classes_ or predict_proba."
        )
    values = check.values(answer, _num_samples(rows))
    return values.astype(np.float64)[:, None]


def has_box_leaves(victim, n_features):
    """Whether each leaf of a victim is known to be a box of the columns that it is sent.

    That of a tree of scikit-learn is, also behind steps of which each feature grows or
    falls with one column. Of a remote victim nothing is known.
    """
    steps = []
    while isinstance(victim, (FrozenEstimator, Pipeline)):
        if isinstance(victim, FrozenEstimator):
            victim = victim.estimator
        else:
            steps += [part for _, part in victim.steps[:-1]]
            victim = victim.steps[-1][1]
    steps = [part for part in steps if not is_skipped(part)]
    if not isinstance(victim, BaseDecisionTree):
        return False
    try:
        return not features_of(steps, n_features).breaks
    except TypeError:  # a step that is not known, or mixes the columns
        return False


def leaf_ids_of(victim):
    """Return the function that names a leaf for each row, or None."""
    if isinstance(victim, FrozenEstimator):
        return leaf_ids_of(victim.estimator)
    if isinstance(victim, Pipeline):
        last = leaf_ids_of(victim[-1])
        if last is None:
            return None
        return lambda rows: last(victim[:-1].transform(rows))
    if not hasattr(victim, "apply"):
        return None
    # Of gradient boosting, there is a tree for each round and class; other libraries do
    # not name their trees.
    trees = getattr(victim, "estimators_", None)
    several = hasattr(victim, "n_estimators") if trees is None else np.size(trees) > 1
    if several:
        return None

    def leaf_of_each(rows):
        leaves = np.asarray(victim.apply(rows), dtype=np.float64)
        if leaves.size != rows.shape[0]:  # sparse rows have no length
            raise TypeError(
                f"estimator: {type(victim).__name__} has {leaves.size // rows.shape[0]} "
                "trees, of which a row reaches a leaf each; one tree can be copied."
            )
        return leaves.reshape(rows.shape[0])

    return leaf_of_each
