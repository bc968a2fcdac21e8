"""What a victim's scores are: probabilities or logits, exact or rounded."""

import numpy as np
from scipy.special import softmax

# Probabilities may be rounded to two decimals, each column by itself.
_SUM_SLACK = 0.006


def score_kind(scores):
    """Tell probabilities from logits.

    Rows of probabilities lie in [0, 1] and sum to 1, up to rounding; those of which only
    the largest are shown sum to less.
    """
    inside = scores.min() >= 0 and scores.max() <= 1
    slack = 1e-5 + _SUM_SLACK * scores.shape[1]
    if inside and scores.sum(axis=1).max() <= 1 + slack:
        return "probability"
    return "logit"


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
