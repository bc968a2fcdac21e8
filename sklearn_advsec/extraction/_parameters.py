"""Where the attacks by equations ask: the scale of the features, and rows."""

import numpy as np

# A feature that hardly varies is probed as if its scale were 1.
_SCALE_FLOOR = 1e-6


class Probes:
    """Where to ask: the scale of the features, and rows of several kinds.

    Parameters
    ----------
    pool : ndarray of shape (n_rows, n_features)
        The attacker's rows.
    oracle : Oracle
        Rounds rows to its precision.
    rng : RandomState
        Source of randomness.
    """

    def __init__(self, pool, oracle, rng):
        self.pool = pool.astype(np.float64)
        self.as_sent = oracle.as_sent
        self.rng = rng
        self.n_features = pool.shape[1]
        self.center = self.as_sent(self.pool.mean(axis=0)).astype(np.float64)
        scale = self.pool.std(axis=0)
        size = np.maximum(np.abs(self.center), 1.0)
        self.scale = np.where(scale > _SCALE_FLOOR * size, scale, 1.0)

    def standardize(self, rows):
        return (rows - self.center) / self.scale

    def design(self, rows):
        return np.column_stack([self.standardize(rows), np.ones(len(rows))])

    def cross(self):
        """Give the base point, and a step along each feature."""
        steps = np.vstack([np.zeros(self.n_features), np.diag(self.scale)])
        return self.as_sent(self.center + steps)

    def around(self, n):
        """Rows of the pool, each moved by about the scale of the features."""
        rows = self.pool[self.rng.randint(len(self.pool), size=n)]
        noise = self.rng.normal(size=rows.shape) * self.scale
        return self.as_sent(rows + noise)

    def informative(self, n, weights):
        """Rows about whose class a linear model is unsure; without one, spread rows."""
        if weights is None:
            return self.around(n)
        near, far = self.around(4 * n), self.around(4 * n)
        z_near, z_far = (self.design(rows) @ weights.T for rows in (near, far))
        a, b = z_near.argmax(axis=1), z_far.argmax(axis=1)
        rows = np.arange(4 * n)
        gap_near = z_near[rows, a] - z_near[rows, b]
        gap_far = z_far[rows, a] - z_far[rows, b]
        with np.errstate(divide="ignore", invalid="ignore"):
            offset = self.rng.uniform(-2, 2, size=4 * n)
            share = np.clip((gap_near - offset) / (gap_near - gap_far), 0, 1)
        between = near + share[:, None] * (far - near)
        # A third class may win there; a pair that is alone at the top tells most.
        between = between[a != b]
        if len(between) < n:
            return self.around(n)
        top = np.sort(self.design(between) @ weights.T, axis=1)
        sure = np.abs(top[:, -1] - top[:, -2])
        return self.as_sent(between[np.argsort(sure > 3, kind="stable")[:n]])
