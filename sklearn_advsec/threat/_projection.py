"""Euclidean projections onto Lp balls intersected with a box, row by row.

Rows are flat, ``lower <= 0 <= upper``, and the radius is one for all rows or one per row.
Masks are numbers (:func:`_free`): on a processor, booleans, and choosing by them, take
five to thirty times as long as adding tensors.
"""

import math

import torch

# Where looking at a tensor costs nothing. A GPU would have to be waited for each time:
# there all rows take so many rounds, and one that needs more ends inside of the ball.
_SEEN_AT_ONCE = ("cpu",)
_ROUNDS_L1, _ROUNDS_L2 = 50, 20


def project(delta, norm, radius, lower=None, upper=None):
    """Nearest point of ball and box, for perturbations (n_rows, ...) of any sign.

    `radius` is a tensor of shape () or (n_rows,); for norm 0, a number of features.
    """
    if norm == math.inf:
        if radius.ndim:
            radius = radius.reshape(-1, *[1] * (delta.ndim - 1))
        delta = torch.clamp(delta, -radius, radius)
        return delta if lower is None else torch.clamp(delta, lower, upper)
    exact = {0: project_l0, 1: project_l1, 2: project_l2}[norm]
    flat, inside = delta.flatten(1), delta
    if lower is not None:
        lower, upper = (bound.expand_as(delta) for bound in (lower, upper))
        inside = torch.clamp(delta, lower, upper)
        lower, upper = lower.flatten(1), upper.flatten(1)
    return exact(flat, inside.flatten(1), radius, lower, upper).reshape(delta.shape)


def project_l0(delta, inside, k, lower=None, upper=None):
    """Keep, of each row, the k entries whose loss would cost most."""
    k = k.reshape(-1, 1)
    most = int(k.max()) if len(delta) else 0
    if most >= delta.shape[1] and (k >= delta.shape[1]).all():
        return inside
    gain = delta.square() - (delta - inside).square()
    index = gain.topk(min(most, delta.shape[1]), dim=1).indices
    kept = inside.gather(1, index)
    order = torch.arange(index.shape[1], device=k.device)
    return torch.zeros_like(inside).scatter(1, index, torch.where(order < k, kept, 0))


def project_l1(delta, inside, eps, lower=None, upper=None):
    """Solve sum min(max(m - t, 0), reach) = eps for the threshold t of each row.

    The sum of these sizes falls in t, piecewise linear, with kinks where an entry leaves
    its box and where it reaches 0. Newton's steps are exact within a piece, and bisection
    takes over where one leads out of what is known to hold the root.
    """
    eps = eps.expand(len(delta))
    outside = inside.abs().sum(1) > eps
    looks = delta.device.type in _SEEN_AT_ONCE
    over = torch.nonzero(outside).flatten() if looks else slice(None)
    if looks and not len(over):
        return inside
    m, most, eps = delta[over].abs(), inside[over].abs(), eps[over, None]
    low, high = torch.zeros_like(eps), m.amax(1, keepdim=True)
    t, newton, piece = low, low > 0, low.expand(-1, 2)
    for _ in range(100 if looks else _ROUNDS_L1):
        size = torch.minimum((m - t).clamp_min(0), most)
        reached, below = size.sign(), (most - size).sign()
        before, piece = piece, torch.stack([reached.sum(1), below.sum(1)], dim=1)
        solved = newton & (piece == before).all(1, keepdim=True)
        if looks and solved.all():
            break
        excess = size.sum(1, keepdim=True) - eps
        low = torch.where(excess > 0, t, low)
        high = torch.where(excess > 0, high, t)
        new = t + excess / torch.linalg.vecdot(reached, below)[:, None]
        newton = solved | ((new > low) & (new <= high))
        t = torch.where(solved, t, torch.where(newton, new, (low + high) / 2))
    if looks:
        return inside.index_copy(0, over, size.copysign(delta[over]))
    # A row that has not come to its end stays inside.
    size = torch.minimum((m - torch.where(solved, t, high)).clamp_min(0), most)
    return torch.where(outside[:, None], size.copysign(delta), inside)


def project_l2(delta, inside, eps, lower=None, upper=None):
    """Shrink by one factor per row: t delta, cut off at the box, of length eps."""
    eps = eps.expand(len(delta))
    outside = torch.linalg.vector_norm(inside, dim=1) > eps
    if delta.device.type not in _SEEN_AT_ONCE:
        filled = fill_l2(delta, eps[:, None], lower, upper)
        return torch.where(outside[:, None], filled, inside)
    over = torch.nonzero(outside).flatten()
    if not len(over):
        return inside
    # What has no way to go in its direction is at its box from the start.
    delta = delta * torch.ne(inside, 0, out=torch.empty_like(inside))
    if len(over) == len(delta):
        return fill_l2(delta, eps[:, None], lower, upper)
    if lower is not None:
        lower, upper = lower[over], upper[over]
    return inside.index_copy(0, over, fill_l2(delta[over], eps[over, None], lower, upper))


def fill_l2(delta, eps, lower=None, upper=None):
    """Return t delta, cut off at the box, with the t at which its length is eps.

    Where the box is too small, t is infinite. The entries that stay at their box only
    grow in number with t, so the set of them is found by repetition: a few rounds, each
    one an exact solve for t on the current set.
    """
    limits = torch.finfo(delta.dtype)
    length = torch.linalg.vector_norm(delta, dim=1, keepdim=True)
    t = (eps / length.clamp_min(limits.tiny)).clamp_max(limits.max)
    if lower is None and upper is None:
        return t * delta
    n_free = torch.full_like(t, delta.shape[1])
    looks, most = delta.device.type in _SEEN_AT_ONCE, delta.shape[1] + 1
    # New memory takes longer than what is computed in it.
    inside, free = torch.empty_like(delta), torch.empty_like(delta)
    for _ in range(most if looks else min(most, _ROUNDS_L2)):
        torch.clamp(torch.mul(delta, t, out=free), lower, upper, out=inside)
        before, n_free = n_free, torch.eq(free, inside, out=free).sum(1, keepdim=True)
        if looks and torch.equal(n_free, before):
            break
        length = torch.linalg.vector_norm(inside, dim=1, keepdim=True)
        loose = torch.linalg.vector_norm(free.mul_(delta), dim=1, keepdim=True)
        missing = (eps - length) * (eps + length) / loose.square().clamp_min(limits.tiny)
        new = (t.square() + missing).clamp(0, limits.max).sqrt()
        t = torch.fmax(t, torch.where(loose > 0, new, t))  # not what overflowed
    return inside


def _free(wanted, inside):
    """1 where an entry is not cut off, else 0."""
    return torch.eq(wanted, inside, out=torch.empty_like(wanted))


def project_weighted(magnitude, reach, eps, norm):
    """Project onto ||delta / eps||_p <= 1 and the box, by bisection on the multiplier.

    Stationarity gives min(max(m - t / eps, 0), reach) for p = 1 and
    min(m / (1 + t / eps^2), reach) for p = 2; the size falls in t. Bisection ends at the
    precision of the numbers themselves.
    """
    reach = torch.where(eps > 0, reach, 0)
    safe = torch.where(eps > 0, eps, 1)

    def shrink(t):
        if norm == 1:
            return torch.minimum((magnitude - t / safe).clamp_min(0), reach)
        return torch.minimum(magnitude / (1 + t / safe.square()), reach)

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

    For norm 2 it is min(t |w|, reach) along the sign, for inf min(t, reach), with the t
    at which the sum is reached; for 1 the features of the largest weight are used up one
    after another. Where the box is too small, the corner nearest to the plane is taken.

    Parameters
    ----------
    weight : tensor of shape (n_rows, n_features)
    value : tensor of shape (n_rows,)
    norm : {1, 2, inf}
    lower, upper : tensor of the shape of `weight`
        ``lower <= 0 <= upper``.
    """
    toward, value = weight * value.sign()[:, None], value.abs()[:, None]
    if norm == 1:
        slope = toward.abs()
        reach = torch.clamp(toward.sign() * math.inf, lower, upper).nan_to_num(0.0).abs()
        order = slope.argsort(dim=1, descending=True)
        slope, width = slope.gather(1, order), reach.gather(1, order)
        gain = torch.where(slope > 0, slope * width, 0)
        before = torch.nn.functional.pad(gain.cumsum(1)[:, :-1], (1, 0))
        left = (value - before).clamp_min(0)  # of the value, when a feature's turn comes
        used = torch.minimum(left / slope.clamp_min(torch.finfo(slope.dtype).tiny), width)
        size = torch.zeros_like(slope).scatter(1, order, used)
        return size * toward.sign()
    speed = toward if norm == 2 else toward.sign()
    return _fill(toward, speed, value, lower, upper)


def _fill(toward, speed, value, lower, upper):
    """Return the `t * speed`, cut off at the box, whose product with `toward` is `value`.

    The product is concave in t, so Newton's steps from below never overshoot, and end as
    soon as no further feature reaches its box.
    """
    gain = toward * speed
    limits = torch.finfo(toward.dtype)
    slope = torch.linalg.vecdot(gain, torch.ones_like(gain))[:, None]
    t = (value / slope.clamp_min(limits.tiny)).clamp_max(limits.max)
    for _ in range(toward.shape[1] + 1):
        wanted = t * speed
        inside = torch.clamp(wanted, lower, upper)
        before = slope
        slope = torch.linalg.vecdot(gain, _free(wanted, inside))[:, None]
        solved = slope == before
        if solved.all():
            break
        left = value - torch.linalg.vecdot(toward, inside)[:, None]
        # No feature is free any more: t cannot get large enough.
        step = torch.where(slope > 0, left / slope.clamp_min(limits.tiny), math.inf)
        t = torch.where(solved, t, (t + step.clamp_min(0)).clamp_max(limits.max))
    return inside
