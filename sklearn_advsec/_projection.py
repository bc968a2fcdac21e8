"""Euclidean projections onto Lp balls intersected with a box, row by row.

All but `project` take magnitudes (n_rows, n_features), the room that each entry has in
its box, and the radius, one for all rows or one per row; signs never change, so they are
left to the caller.
"""

import math

import torch


def project(delta, norm, radius, lower=None, upper=None):
    """Nearest point of ball and box, for perturbations (n_rows, ...) of any sign.

    `radius` is a tensor of shape () or (n_rows,); for norm 0, a number of features.
    """
    if norm == math.inf:
        if radius.ndim:
            radius = radius.reshape(-1, *[1] * (delta.ndim - 1))
        delta = torch.clamp(delta, -radius, radius)
        return delta if lower is None else torch.clamp(delta, lower, upper)
    # One sign is enough: the projection never changes it.
    room = torch.full_like(delta, math.inf)
    if lower is not None:
        room = torch.where(delta < 0, -lower, upper).expand_as(delta)
    exact = {0: project_l0, 1: project_l1, 2: project_l2}[norm]
    shrunk = exact(delta.abs().flatten(1), room.flatten(1), radius)
    return shrunk.reshape(delta.shape).copysign(delta)


def project_l0(magnitude, room, k):
    """Keep, of each row, the k entries whose loss would cost most."""
    clipped = torch.minimum(magnitude, room)
    k = k.reshape(-1, 1)
    most = int(k.max()) if len(magnitude) else 0
    if most >= magnitude.shape[1] and (k >= magnitude.shape[1]).all():
        return clipped
    gain = magnitude.square() - (magnitude - clipped).square()
    index = gain.topk(min(most, magnitude.shape[1]), dim=1).indices
    kept = clipped.gather(1, index)
    order = torch.arange(index.shape[1], device=k.device)
    return torch.zeros_like(clipped).scatter(1, index, torch.where(order < k, kept, 0))


def project_l1(magnitude, room, eps):
    """Solve sum min(max(m - t, 0), room) = eps for the threshold t of each row.

    The sum falls in t, piecewise linear with kinks where an entry leaves its box (at
    m - room) and where it reaches 0 (at m): sort the kinks, find the piece, interpolate.
    """
    inside = torch.minimum(magnitude, room)
    eps = eps.expand(len(magnitude))
    over = inside.sum(1) > eps
    if not over.any():
        return inside
    m, r, eps = magnitude[over], room[over], eps[over, None]
    leaves = m - torch.minimum(m, r)  # >= 0: no kink left of t = 0 is needed
    kinks, order = torch.cat([leaves, m], dim=1).sort(dim=1)
    # Right of a kink the slope falls by 1 (left the box) or rises by 1 (reached 0).
    turn = torch.cat([-torch.ones_like(m), torch.ones_like(m)], dim=1).gather(1, order)
    slope = turn.cumsum(1)
    start = torch.minimum(m, r).sum(1, keepdim=True)
    steps = slope[:, :-1] * kinks.diff(dim=1)
    values = torch.cat([start, start + steps.cumsum(1)], dim=1)
    # The last kink at which the sum is still at least eps.
    piece = ((values >= eps).sum(1, keepdim=True) - 1).clamp_min(0)
    s = slope.gather(1, piece)
    t = kinks.gather(1, piece)
    move = (eps - values.gather(1, piece)) / torch.where(s == 0, -1, s)
    result = inside.clone()
    result[over] = torch.minimum((m - (t + move)).clamp_min(0), r)
    return result


def project_l2(magnitude, room, eps):
    """Shrink by one factor per row: min(t m, room) with the t that gives length eps."""
    inside = torch.minimum(magnitude, room)
    eps = eps.expand(len(magnitude))
    over = torch.linalg.vector_norm(inside, dim=1) > eps
    if not over.any():
        return inside
    result = inside.clone()
    result[over] = fill_l2(magnitude[over], room[over], eps[over, None])
    return result


def fill_l2(m, r, eps):
    """Return min(t m, r) with the t at which its length is eps, or with t = infinity.

    The entries that stay at their box only grow in number with t, so the set of them is
    found by repetition: a few rounds, each one an exact solve for t on the current set.
    """
    length = torch.linalg.vector_norm(m, dim=1, keepdim=True)
    t = eps / length.clamp_min(torch.finfo(m.dtype).tiny)
    for _ in range(m.shape[1]):
        at_box = t * m >= r
        left = eps.square() - torch.where(at_box, r, 0).square().sum(1, keepdim=True)
        free = torch.where(at_box, 0, m).square().sum(1, keepdim=True)
        new = torch.where(free > 0, (left.clamp_min(0) / free).sqrt(), t)
        new = torch.maximum(new, t)
        if torch.equal(new, t):
            break
        t = new
    return torch.minimum(t * m, r)


def project_weighted(magnitude, room, eps, norm):
    """Project onto ||delta / eps||_p <= 1 and the box, by bisection on the multiplier.

    Stationarity gives min(max(m - t / eps, 0), room) for p = 1 and
    min(m / (1 + t / eps^2), room) for p = 2; the size falls in t. Bisection ends at the
    precision of the numbers themselves.
    """
    room = torch.where(eps > 0, room, 0)
    safe = torch.where(eps > 0, eps, 1)

    def shrink(t):
        if norm == 1:
            return torch.minimum((magnitude - t / safe).clamp_min(0), room)
        return torch.minimum(magnitude / (1 + t / safe.square()), room)

    def size(delta):
        return torch.linalg.vector_norm(delta / safe, ord=norm, dim=1, keepdim=True)

    low = torch.zeros_like(magnitude[:, :1])
    # At this t the size is at most 1, for either norm.
    high = torch.linalg.vector_norm(magnitude * safe, dim=1, keepdim=True)
    fits = size(shrink(low)) <= 1
    for _ in range(100):
        middle = (low + high) / 2
        small = size(shrink(middle)) <= 1
        low, high = torch.where(small, low, middle), torch.where(small, middle, high)
    return shrink(torch.where(fits, 0, high))


def nearest_on_hyperplane(weight, value, norm, lower, upper):
    """Smallest r with <weight, r> = value inside a box around 0, of each row.

    For norm 2 it is min(t |w|, room) along the sign, for inf min(t, room), with the t at
    which the sum is reached; for 1 the features of the largest weight are used up one
    after another. Where the box is too small, the corner nearest to the plane is taken.

    Parameters
    ----------
    weight : tensor of shape (n_rows, n_features)
    value : tensor of shape (n_rows,)
    norm : {1, 2, inf}
    lower, upper : tensor of the shape of `weight`
        ``lower <= 0 <= upper``.
    """
    toward = weight.sign() * value.sign()[:, None]
    room = torch.where(toward > 0, upper, -lower).masked_fill(toward == 0, 0)
    slope, value = weight.abs(), value.abs()[:, None]
    if norm == 1:
        order = slope.argsort(dim=1, descending=True)
        slope, width = slope.gather(1, order), room.gather(1, order)
        gain = torch.where(slope > 0, slope * width, 0)
        before = torch.nn.functional.pad(gain.cumsum(1)[:, :-1], (1, 0))
        left = (value - before).clamp_min(0)  # of the value, when a feature's turn comes
        used = torch.minimum(left / slope.clamp_min(torch.finfo(slope.dtype).tiny), width)
        size = torch.zeros_like(slope).scatter(1, order, used)
    else:
        speed = slope if norm == 2 else torch.ones_like(slope)
        size = torch.minimum(_fill(slope, speed, room, value) * speed, room)
    return size * toward


def _fill(slope, speed, room, value):
    """Find t with sum slope * min(t * speed, room) = value.

    The sum is concave in t, so Newton's steps from below never overshoot, and end as
    soon as no further feature reaches its box.
    """
    gain = slope * speed
    limits = torch.finfo(slope.dtype)
    free = gain.sum(1, keepdim=True)
    t = value / free.clamp_min(limits.tiny)
    for _ in range(slope.shape[1]):
        size = torch.minimum(t * speed, room)
        left = value - torch.linalg.vecdot(slope, size)[:, None]
        before, inside = free, (size < room).to(slope.dtype)
        free = torch.linalg.vecdot(gain, inside)[:, None]
        # No feature is free any more: t cannot get large enough.
        step = torch.where(free > 0, left / free.clamp_min(limits.tiny), math.inf)
        t = (t + step.clamp_min(0)).clamp_max(limits.max)
        if torch.equal(free, before):
            break
    return t
