"""Kinks of piecewise linear functions of one variable."""

import numpy as np

# Intervals shorter than this share of the whole are not searched any further.
_SHORTEST = 1e-7

# Slopes are measured over this share of an interval.
_STEP = 1e-4


def find_kinks(function, low, high, *, noise, most=2000):
    """Find the bends of a continuous, piecewise linear, vector-valued function.

    If the two lines through the ends of an interval meet in a point, inside, and the
    function passes through it, there is one bend and that is it. Otherwise the interval
    is halved. Intervals of one length are looked at together, so that the function is
    called rarely. It ends after a bounded number of steps for any function whatever.

    Parameters
    ----------
    function : callable
        Takes an array of n numbers, returns an array of shape (n, n_outputs). Intervals
        at whose ends it is not finite are left alone.
    low, high : float
        The interval.
    noise : float
        Error of the values, relative to their size.
    most : int
        Number of intervals after which to give up.

    Returns
    -------
    kinks : ndarray of shape (n_kinks,)
        Where it bends, in order.
    complete : bool
        Whether every interval was resolved.
    """
    kinks, n_seen, n_lost = [], 0, 0
    a, b = np.array([low]), np.array([high])
    while len(a):
        n_seen += len(a)
        if n_seen > most or b[0] - a[0] < _SHORTEST * (high - low):
            n_lost += len(a)
            break
        step = _STEP * (b - a)
        at = np.column_stack([a, a + step, b - step, b])
        values = function(at.ravel()).reshape(len(a), 4, -1)
        finite = np.isfinite(values).all(axis=(1, 2))
        n_lost += int((~finite).sum())
        a, b, at, values = a[finite], b[finite], at[finite], values[finite]
        share, expected, tolerance, straight = _meeting_points(at, values, noise)
        # Where the two lines meet, the function has to be as well.
        meet = np.flatnonzero(np.isfinite(share))
        right = np.zeros(len(a), dtype=bool)
        if len(meet):
            error = np.abs(function(a[meet] + share[meet]) - expected[meet]).max(axis=1)
            right[meet] = error <= tolerance[meet]
        kinks.extend(a[right] + share[right])
        a, b = a[~(right | straight)], b[~(right | straight)]
        middle = (a + b) / 2
        a, b = np.concatenate([a, middle]), np.concatenate([middle, b])
    return np.array(sorted(kinks)), n_lost == 0


def _meeting_points(at, values, noise):
    """Prolong the function from both ends of each interval, and see where that meets.

    Parameters
    ----------
    at : ndarray of shape (n, 4)
        Both ends of each interval, each with a point near it inside.
    values : ndarray of shape (n, 4, n_outputs)
        The function there.
    noise : float
        Error of the values, relative to their size.

    Returns
    -------
    share : ndarray of shape (n,)
        How far from the lower end the two lines meet; NaN where they do not.
    expected : ndarray of shape (n, n_outputs)
        The value where they meet.
    tolerance : ndarray of shape (n,)
        How exactly values are known that are prolonged over the interval.
    straight : ndarray of bool, shape (n,)
        Whether both lines are the same.
    """
    width = at[:, 3:] - at[:, :1]
    left, right = values[:, 0], values[:, 3]
    slope_left = (values[:, 1] - left) / (at[:, 1:2] - at[:, :1])
    slope_right = (right - values[:, 2]) / (at[:, 3:] - at[:, 2:3])
    size = 1 + np.maximum(np.abs(left).max(axis=1), np.abs(right).max(axis=1))
    tolerance = 20 * noise * size / _STEP
    bend = slope_left - slope_right
    flat = np.abs(bend * width).max(axis=1) <= tolerance
    straight = flat & (np.abs(left + slope_left * width - right).max(axis=1) <= tolerance)
    missing = right - slope_right * width - left
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (bend * missing).sum(axis=1) / (bend**2).sum(axis=1)
    meets = np.abs(bend * share[:, None] - missing).max(axis=1) <= tolerance
    meets &= ~flat & (share > 0) & (share < width[:, 0])
    expected = left + slope_left * share[:, None]
    return np.where(meets, share, np.nan), expected, tolerance, straight
