"""What ReLUExtraction is made of: the logits it sees, and the network that fits."""

import numpy as np

from ._answers import centered_logits, decimals_of

# Answers whose logits are less exact than this (relative) hide the bends.
_MOST_NOISE = 1e-9

# Probabilities of one of two classes below this hide the bends.
_LEAST_OF_TWO = 1e-5

# How far lines are prolonged beyond the two rows they go through, in their distance.
_REACH = 2.0

# Units with outgoing weights below this (relative) are none.
_IDLE = 1e-8


class Logits:
    """The victim's centred logits as a function of standardised features.

    Parameters
    ----------
    oracle : Oracle
        The victim.
    probes : Probes
        The scale of the features.
    kind_of : callable
        Tells whether scores are a "probability" or a "logit"; the first ones are looked
        at.
    """

    def __init__(self, oracle, probes, kind_of):
        self.oracle = oracle
        self.probes = probes
        self._kind_of = kind_of
        self._kind = None
        self.n_features = probes.n_features
        self.noise = 1e-14
        pool = probes.standardize(probes.pool)
        self._pool, self._low, self._high = pool, pool.min(axis=0), pool.max(axis=0)
        constant = self._low == self._high
        self._low[constant] -= 1
        self._high[constant] += 1

    def __call__(self, rows):
        sent = self.oracle.as_sent(self.probes.center + rows * self.probes.scale)
        scores = self.oracle.ask(sent)
        if self._kind is None:
            self._kind = self._kind_of(scores)
            self._check_exact(scores)
        logits = centered_logits(scores, self._kind)
        if self._kind == "probability":
            # Of two classes, one probability is 1 less the other, and loses its digits.
            least = _LEAST_OF_TWO if scores.shape[1] == 2 else np.finfo(np.float64).tiny
            logits[scores.min(axis=1) < least] = np.nan
        return logits

    def visible(self, along, n=17):
        """Find the longest part of a line on which the answers keep their digits."""
        at = np.linspace(-_REACH, 1 + _REACH, n)
        fine = np.append(np.isfinite(along(at)).all(axis=1), False)
        ends = np.flatnonzero(~fine)
        lengths = np.diff(ends, prepend=-1) - 1
        last = ends[lengths.argmax()] - 1
        first = last - lengths.max() + 1
        return at[min(first, last)], at[max(last, 0)]

    def spread(self, n):
        """Rows of the pool, rows of the box around it, and rows between the two."""
        rng = self.probes.rng
        rows = rng.uniform(self._low, self._high, size=(n, self.n_features))
        pool = self._pool[rng.randint(len(self._pool), size=n)]
        share = rng.choice([0.0, 0.5, 1.0], size=(n, 1))
        return share * rows + (1 - share) * pool

    def jacobian(self, at, step):
        """Gradients of the logits, of shape (n_classes, n_features)."""
        rows = at + np.vstack([np.zeros(self.n_features), step * np.eye(self.n_features)])
        values = self(rows)
        return (values[1:] - values[0]).T / step

    def measure_noise(self):
        """Measure how exact the scores are, by their second differences."""
        noises = []
        for at, towards in zip(self.spread(5), self.spread(5), strict=True):
            steps = 1e-6 * np.arange(4)[:, None]
            values = self(at + steps * (towards - at))
            size = 1 + np.abs(values).max()
            noises.append(np.abs(np.diff(values, n=2, axis=0)).max() / size)
        noises = [noise for noise in noises if np.isfinite(noise)] or [1e-14]
        self.noise = max(float(np.median(noises)), 1e-15)
        if self.noise > _MOST_NOISE:
            _not_exact(f"exact to {self.noise:.0e} only")

    def _check_exact(self, scores):
        """Refuse rounded scores, whose steps are too wide for `measure_noise` to see."""
        decimals = decimals_of(scores)
        if decimals is not None:
            _not_exact(f"rounded to {decimals} decimals")
        if np.array_equal(scores, scores.astype(np.float32)):
            _not_exact("in float32")


class NetworkFit:
    """The network with given hyperplanes that fits best, and how well.

    Parameters
    ----------
    rows, logits : ndarray
        Answers, more of them than there are unknowns.
    planes : ndarray of shape (n_planes, n_features + 1)
        Hyperplanes, of unit length.

    Attributes
    ----------
    planes : ndarray of shape (n_kept, n_features + 1)
        Those that have any weight.
    error : float
        Largest error on the rows, relative to the largest logit.
    worst : ndarray of shape (n_features,)
        The row where it is.
    """

    def __init__(self, rows, logits, planes):
        fine = np.isfinite(logits).all(axis=1)
        if not fine.any():
            raise ValueError(
                "the victim's probabilities are so near to 0 and 1 on all of "
                f"{len(rows)} rows that they say nothing. Give X of another region."
            )
        rows, logits = rows[fine], logits[fine]
        ones = np.column_stack([rows, np.ones(len(rows))])
        design = np.column_stack([np.maximum(ones @ planes.T, 0), ones])
        solution = np.linalg.lstsq(design, logits, rcond=1e-13)[0].T
        outgoing = solution[:, : len(planes)]
        # Two bends taken for one give a hyperplane that no unit has: it gets no weight.
        idle = np.abs(outgoing).max(axis=0) <= _IDLE * np.abs(outgoing).max(initial=0)
        self.planes, self.outgoing = planes[~idle], outgoing[:, ~idle]
        self.affine = solution[:, len(planes) :]
        errors = np.abs(design @ solution.T - logits).max(axis=1)
        self.error = errors.max() / (1 + np.abs(logits).max())
        self.worst = rows[errors.argmax()]

    def network(self):
        """Return hidden weights with biases, output weights, biases, n_linear units."""
        planes, outgoing, affine = self.planes.copy(), self.outgoing, self.affine.copy()
        if len(planes):
            # relu(z) = z + relu(-z): the affine part is made of the units turned round.
            products = np.einsum("ki,id->kdi", outgoing, planes)
            coefficients = products.reshape(-1, len(planes))
            turned = np.linalg.lstsq(coefficients, -affine.ravel(), rcond=1e-10)[0] > 0.5
            affine += np.einsum("kdi,i->kd", products, turned)
            planes[turned] *= -1
        bias, linear = affine[:, -1], affine[:, :-1]
        size = np.abs(outgoing).max(initial=0) + np.abs(self.affine).max()
        u, sizes, basis = np.linalg.svd(linear, full_matrices=False)
        keep = sizes > 1e-6 * size
        # What is linear everywhere: x = relu(x) - relu(-x).
        basis = np.column_stack([basis[keep], np.zeros(keep.sum())])
        extra = np.concatenate([basis, -basis])
        loads = u[:, keep] * sizes[keep]
        if not len(planes) and not len(extra):  # a constant victim still needs a unit
            extra, loads = np.zeros((1, planes.shape[1])), np.zeros((len(bias), 1))
            return extra, loads, bias, 1
        hidden = np.concatenate([planes, extra])
        return hidden, np.column_stack([outgoing, loads, -loads]), bias, len(extra)


def _not_exact(what):
    raise ValueError(
        f"the victim's scores are {what}; ReLUExtraction needs them in float64 and not "
        "rounded. Use KnockoffNets or ActiveExtraction instead."
    )


def lies_on(planes, at):
    if not len(planes):
        return False
    distance = np.abs(np.array(planes) @ np.append(at, 1.0))
    return bool(distance.min() < 1e-5 * (1 + np.linalg.norm(at)))
