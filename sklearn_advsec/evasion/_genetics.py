"""The parts of NSGA-II, for the populations of many rows at once."""

import torch


def rank(fitness):
    """Number the fronts of non-dominated individuals, from 0.

    Parameters
    ----------
    fitness : tensor of shape (n_rows, n_individuals, n_objectives)
        Smaller is better. Of equals, the first dominates the others.

    Returns
    -------
    front : tensor of int64, shape (n_rows, n_individuals)

    References
    ----------
    .. [1] K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II",
       2002 (Section III.A).
    """
    n = fitness.shape[1]
    no_worse, better = True, False
    for value in fitness.unbind(2):
        no_worse = (value[:, :, None] <= value[:, None]) & no_worse
        better = (value[:, :, None] < value[:, None]) | better
    first = torch.ones(n, n, dtype=torch.bool, device=fitness.device).triu(1)
    dominates = no_worse & (better | first)
    front = torch.full(fitness.shape[:2], n, dtype=torch.int64, device=fitness.device)
    left = torch.ones_like(front, dtype=torch.bool)
    for k in range(n):
        if not left.any():
            break
        beaten = (dominates & left[:, :, None]).any(1)
        now = left & ~beaten
        front = torch.where(now, k, front)
        left &= ~now
    return front


def crowding(fitness, front):
    """Sum, over objectives, the gap between the neighbours in the same front.

    Parameters
    ----------
    fitness : tensor of shape (n_rows, n_individuals, n_objectives)
    front : tensor of int64, shape (n_rows, n_individuals)

    Returns
    -------
    distance : tensor of shape (n_rows, n_individuals)
        Infinite at the ends of a front.
    """
    total = torch.zeros_like(fitness[..., 0])
    for value in fitness.unbind(2):
        low, high = value.amin(1, keepdim=True), value.amax(1, keepdim=True)
        value = (value - low) / (high - low).clamp_min(1e-12)
        # Fronts one behind the other, each in the order of the objective.
        order = (value + 2.0 * front).argsort(dim=1)
        value, fronts = value.gather(1, order), front.gather(1, order)
        inner = (fronts[:, 2:] == fronts[:, 1:-1]) & (fronts[:, :-2] == fronts[:, 1:-1])
        gap = torch.where(inner, value[:, 2:] - value[:, :-2], torch.inf)
        gap = torch.nn.functional.pad(gap, (1, 1), value=torch.inf)
        total += torch.zeros_like(total).scatter(1, order, gap)
    return total


def survivors(fitness, n_kept):
    """Positions of the individuals that live on, the best ones first."""
    front = rank(fitness)
    spread = crowding(fitness, front).clamp_max(1e6)
    order = (front * 2e6 - spread).argsort(dim=1, stable=True)
    return order[:, :n_kept]


def cross(first, second, generator):
    """Swap the genes between two random points, the same ones for all rows."""
    n, d = first.shape[1:]
    cuts = torch.randint(d + 1, (2, n, 1), generator=generator).sort(dim=0).values
    place = torch.arange(d)
    swap = ((place >= cuts[0]) & (place < cuts[1])).to(first.device)
    return torch.where(swap, second, first)


def polynomial(value, low, high, eta, generator):
    """Mutate numbers inside their range (Deb and Agrawal 1999, eta as there).

    The draws are the same for all rows.
    """
    u = torch.rand(value.shape[1:], generator=generator, dtype=torch.float64)
    u = u.to(value)
    width = (high - low).clamp_min(1e-30)
    down, up = ((value - low) / width).clamp(0, 1), ((high - value) / width).clamp(0, 1)
    left = (2 * u + (1 - 2 * u) * (1 - down) ** (eta + 1)).clamp_min(0.0)
    right = (2 * (1 - u) + (2 * u - 1) * (1 - up) ** (eta + 1)).clamp_min(0.0)
    move = torch.where(u < 0.5, left ** (1 / (eta + 1)) - 1, 1 - right ** (1 / (eta + 1)))
    return value + move * width
