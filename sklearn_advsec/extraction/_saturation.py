"""Probes whose answers have lost their digits, and where to ask instead."""

import numpy as np

# Beyond this log-odds, 1 - p has lost so many digits that a probe is worth little.
_SATURATED = 16.0


def unsaturate(oracle, probes, rows, scores, kind):
    """Move probes whose answers have lost their digits; needs some budget left.

    Parameters
    ----------
    oracle : Oracle
        The victim.
    probes : Probes
        Where `rows` come from; its center moves where the victim is too sure there.
    rows : ndarray of shape (n_probes, n_features)
        The center first, then a step along each feature.
    scores : ndarray of shape (n_probes, n_classes)
        The answers.
    kind : {"probability", "logit"}
        What they are.

    Returns
    -------
    scores, rows : ndarray
        Answers and probes, with fewer digits lost.
    """
    for _ in range(60):
        bad = _lost_digits(scores, kind)
        n_more = int(bad.sum())
        if not n_more or n_more > oracle.remaining:
            break
        if bad[0]:  # the center itself: look for a less certain row, then start over
            center = _less_certain(oracle, probes, kind)
            if center is None:
                break
            probes.center = center
            if oracle.remaining < probes.n_features + 1:
                break
            rows = probes.cross()
        else:
            rows = rows.copy()
            rows[bad] = oracle.as_sent(probes.center + (rows - probes.center)[bad] / 4)
            if (rows[bad] == oracle.as_sent(probes.center)).all(axis=1).any():
                break
        scores = oracle.ask(rows)
    return scores, rows


def _less_certain(oracle, probes, kind):
    """Find a point where no class is nearly excluded, between rows of the pool."""
    n = int(min(20, len(probes.pool), oracle.remaining))
    rows = probes.pool[probes.rng.permutation(len(probes.pool))[:n]]
    if not n:
        return None
    scores = oracle.ask(rows)
    winner = scores.argmax(axis=1)
    others = np.flatnonzero(winner != winner[0])
    if len(others):  # bisect between two rows of different classes
        near, far = rows[0], rows[others[0]]
        for _ in range(int(min(40, oracle.remaining))):
            middle = oracle.as_sent((near + far) / 2)
            answer = oracle.ask(middle[None])
            if not _lost_digits(answer, kind)[0]:
                return middle
            same = answer.argmax() == winner[0]
            near, far = (middle, far) if same else (near, middle)
    good = np.flatnonzero(~_lost_digits(scores, kind))
    return rows[good[0]] if len(good) else None


def _lost_digits(scores, kind):
    """Whether an answer is so near to 0 or 1 that its log-ratios are poor."""
    if kind == "logit":
        return np.zeros(len(scores), dtype=bool)
    if scores.shape[1] == 2:  # one is computed as 1 less the other
        return scores.min(axis=1) < np.exp(-_SATURATED)
    return scores.min(axis=1) < np.finfo(scores.dtype).tiny
