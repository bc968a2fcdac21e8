"""Where poison may lie: sphere, slab and feature constraints, and its farthest points."""

import numpy as np
import torch

from .._sanitizers._sphere_slab import class_means, distances, toward_next

_HALVINGS = 14


class FeasibleSet:
    """The rows of one class that pass sphere, slab and constraints.

    Parameters
    ----------
    mean : ndarray of shape (n_features,)
        The centroid of the class.
    direction : ndarray of shape (n_features,)
        Unit vector along which the slab bounds.
    radius, width : float
        Of the sphere, and half of the slab.
    constraints : FeatureConstraints or None
        Bounds, whole numbers, steps and one-hot groups that rows must satisfy.
    rows : ndarray of shape (n_rows, n_features)
        Rows of the class, some of which may be valid; needed with constraints.
    """

    def __init__(self, mean, direction, radius, width, constraints=None, rows=None):
        self.mean, self.direction = mean, direction
        self.radius, self.width = float(radius), float(width)
        self.columns = None if constraints is None else _Columns(constraints, len(mean))
        if self.columns is None:
            return
        middle = self.columns.best(np.zeros_like(mean), 1.0, mean)
        rows = np.vstack([middle, rows[[self.columns.allows(x) for x in rows]]])
        self.rows = rows[self.contains(rows)]  # where a search may begin
        if not len(self.rows):
            raise ValueError(
                "constraints: neither the mean of a class, rounded to what they allow, "
                "nor any of its rows is valid and lies within sphere and slab, so there "
                "is no poison to begin with. Raise percentile, or check the constraints."
            )

    def contains(self, X, slack=1e-9):
        """Tell which rows lie within sphere and slab."""
        along = np.abs((X - self.mean) @ self.direction)
        inside = distances(X, self.mean) <= self.radius * (1 + slack)
        return inside & (along <= self.width * (1 + slack) + slack)

    def farthest(self, u):
        """Return the point with the largest product with `u`, and a bound of it.

        Without constraints it is the maximum, in closed form. With them it is the best
        row that a Lagrangian relaxation of sphere and slab meets, or one of the class,
        improved by single steps; it is feasible. The bound is the relaxation's.
        """
        if self.columns is not None:
            return self._relaxed(u)
        along = u @ self.direction
        across = u - along * self.direction
        length = np.linalg.norm(across)
        step = self.radius * along / max(np.hypot(along, length), np.finfo(float).tiny)
        step = np.clip(step, -self.width, self.width)
        if length > 0:
            across = across * (np.sqrt(max(self.radius**2 - step**2, 0)) / length)
        point = self.mean + step * self.direction + across
        return point, u @ point

    def nearest(self, x):
        """Return a row of the set near to `x`: the nearest one, where nothing binds."""
        if self.columns is not None:
            return self._in_sphere(2 * (x - self.mean), 0.0, least=1.0)[0]
        along = np.clip((x - self.mean) @ self.direction, -self.width, self.width)
        along = np.clip(along, -self.radius, self.radius)
        across = x - self.mean
        across = across - (across @ self.direction) * self.direction
        room = np.sqrt(max(self.radius**2 - along**2, 0))
        across *= min(1.0, room / max(np.linalg.norm(across), np.finfo(float).tiny))
        return self.mean + along * self.direction + across

    def _relaxed(self, u):
        """Return the best feasible point that was met, and the least dual bound."""
        point, bound = self._in_sphere(u, 0.0)
        along = (point - self.mean) @ self.direction
        if abs(along) <= self.width and self.contains(point[None])[0]:
            return point, bound
        best = self.rows[(self.rows @ u).argmax()]
        sign, low, high = np.sign(along), 0.0, np.linalg.norm(u)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            point, dual = self._in_sphere(u, sign * middle)
            bound = min(bound, dual)
            if sign * ((point - self.mean) @ self.direction) > self.width:
                low = middle
                continue
            high = middle
            if self.contains(point[None])[0] and u @ point > u @ best:
                best = point
        return self._climb(best, u), bound

    def _climb(self, x, u):
        """Take single steps and switches while they gain and stay in the set."""
        while True:
            moves = self.columns.moves(x)
            gains = moves @ u
            moved = x + moves[gains > 1e-12 * np.linalg.norm(u)]
            moved = moved[self.contains(moved)]
            if not len(moved):
                return x
            x = moved[(moved @ u).argmax()]

    def _in_sphere(self, u, nu, least=0.0):
        """Maximise ``(u - nu * direction) @ x`` in the sphere, by a multiplier.

        Returned are the point and a bound of the maximum of ``u @ x`` in sphere and slab.
        """
        v = u - nu * self.direction
        slab = nu * (self.direction @ self.mean) + abs(nu) * self.width
        best, bound = self.rows[0], np.inf
        low, high = least, least + np.linalg.norm(v) / self.radius
        for _ in range(_HALVINGS):  # a multiplier that is large enough
            x = self.columns.best(v, high, self.mean)
            if ((x - self.mean) ** 2).sum() <= self.radius**2:
                best = x
                break
            low, high = high, 2 * high
        for k in range(_HALVINGS):
            weight = least if k == 0 else (max(low, least) + high) / 2
            x = self.columns.best(v, weight, self.mean)
            square = ((x - self.mean) ** 2).sum()
            if np.isfinite(square):
                dual = v @ x - weight * (square - self.radius**2) + slab
                bound = min(bound, dual)
            if square <= self.radius**2:
                best, high = x, weight
                if k == 0:
                    break
            else:
                low = weight
        return best, bound


class _Columns:
    """Constraints that hold column by column, or one-hot group by group."""

    def __init__(self, constraints, n_features):
        region = constraints.region
        if len(region.lower) != n_features:
            raise ValueError(
                f"constraints are for {len(region.lower)} columns; X has {n_features}."
            )
        if region.relations or bool(region.nominal.any()):
            raise ValueError(
                "constraints: relations and categories are not supported here. Encode "
                "categories as one-hot columns; poison that breaks relations would need "
                "another attack."
            )
        self.lower, self.upper = region.lower.numpy(), region.upper.numpy()
        step = torch.where(region.lattice, region.step, torch.nan).numpy()
        self.step = step
        groups = [group.numpy() for group in region.groups]
        # One row a group; the shorter ones are filled up by their first column.
        widest = max(map(len, groups), default=0)
        self.groups = np.array(
            [np.r_[group, np.full(widest - len(group), group[0])] for group in groups],
            dtype=int,
        ).reshape(len(groups), widest)
        self.grouped = np.zeros(len(self.lower), dtype=bool)
        self.grouped[self.groups.ravel()] = True

    def allows(self, x):
        """Whether a row satisfies the constraints."""
        return np.allclose(self.best(np.zeros_like(x), 1.0, x), x)

    def moves(self, x):
        """Return what single steps, and switches within a group, change of a row."""
        moves = []
        steps = np.flatnonzero(~np.isnan(self.step) & ~self.grouped)
        for sign in (-1, 1):
            to = x[steps] + sign * self.step[steps]
            on = (to >= self.lower[steps]) & (to <= self.upper[steps])
            up = np.zeros((on.sum(), len(x)))
            up[np.arange(on.sum()), steps[on]] = sign * self.step[steps[on]]
            moves.append(up)
        off = np.flatnonzero(self.grouped & (x < 0.5))
        switch = np.zeros((len(off), len(x)))
        at = np.arange(len(off))
        switch[at, off] = 1.0
        ones = np.zeros(len(x), dtype=int)
        if len(self.groups):
            on = self.groups[np.arange(len(self.groups)), x[self.groups].argmax(1)]
            ones[self.groups] = on[:, None]
        switch[at, ones[off]] = -1.0
        return np.vstack([*moves, switch])

    def best(self, u, weight, mean):
        """Maximise ``u @ x - weight * |x - mean|**2`` over the rows that are allowed."""
        if weight > 0:
            x = mean + u / (2 * weight)
        else:
            x = np.where(u > 0, self.upper, np.where(u < 0, self.lower, mean))
        x = np.clip(x, self.lower, self.upper)
        on = ~np.isnan(self.step)
        steps = np.rint((x[on] - self.lower[on]) / self.step[on])
        x[on] = np.minimum(self.lower[on] + steps * self.step[on], self.upper[on])
        if len(self.groups):
            gain = u - weight * (1 - 2 * mean)  # of a column at 1, against one at 0
            x[self.groups] = 0.0
            best = gain[self.groups].argmax(1)
            x[self.groups[np.arange(len(best)), best]] = 1.0
        return x


def feasible_sets(X, codes, n_classes, percentile, constraints=None):
    """Return the `FeasibleSet` of each class: radii are percentiles of its clean rows."""
    centroids = class_means(X, codes, n_classes)
    sets = []
    for code in range(n_classes):
        of, direction = X[codes == code], toward_next(centroids, code)
        radius = np.percentile(distances(of, centroids[code]), percentile)
        width = np.percentile(np.abs((of - centroids[code]) @ direction), percentile)
        mean = centroids[code]
        sets.append(FeasibleSet(mean, direction, radius, width, constraints, of))
    return sets
