"""How large a ring a program needs, and how far off its results may be."""

import math

import numpy as np

from ._seal import BUDGET, MAX_PRIME_BITS, Parameters

# Bits of the last prime above the scale: for a sign, and for scores of up to 1.
_HEADROOM = 3
# A double has 53 bits, of which SEAL's encoder loses a few.
_MAX_SCALE_BITS = 46
_MIN_SCALE_BITS = 22
# Standard deviation of the noise of SEAL.
_SIGMA = 3.2
# The bounds below hold for all slots, except with this probability per operation.
_LOG2_FAILURE = -40


def parameters_for(depth, degree, special_bits=0):
    """Fill the budget of a ring: the largest scale that leaves 128-bit security.

    Parameters
    ----------
    depth : int
        Products in a row.
    degree : int
        Degree of the ring.
    special_bits : int, default=0
        By how much the special prime is to be larger than the others: what rotations add
        to the noise is divided by it.

    Returns
    -------
    parameters : Parameters or None
        None where the ring has too few bits for the depth.
    """
    scale = (BUDGET[degree] - 2 * _HEADROOM - special_bits) // (depth + 2)
    scale = min(scale, _MAX_SCALE_BITS)
    if scale < _MIN_SCALE_BITS:
        return None
    first = scale + _HEADROOM
    left = BUDGET[degree] - first - scale * depth
    special = min(first + special_bits, MAX_PRIME_BITS, left)
    return Parameters("CKKS", degree, (first, *[scale] * depth, special), scale)


def choose(program, packing, precision, degrees=tuple(BUDGET)):
    """Return how a program is packed on the smallest ring that is precise enough.

    Parameters
    ----------
    program : Program
        The network.
    packing : type
        `Columns` or `Rows`.
    precision : float
        The largest error that the scores may have.
    degrees : tuple of int
        Degrees of the rings to choose from.

    Returns
    -------
    packed : Columns or Rows
        The program on its ring.
    error : float
        The bound of the error there.
    counts : dict
        The operations of one evaluation.

    Raises
    ------
    ValueError
        If no ring carries the depth, has the slots, or is precise enough.
    """
    best = refused = None
    for degree in degrees:
        parameters = parameters_for(program.depth, degree, packing.special_bits)
        if parameters is None:
            continue
        try:
            packed = packing(program, parameters)
        except ValueError as error:  # too few slots
            refused = error
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # then no ring is enough
            best = packed, *program.error(packed)
        if best[1] <= precision:
            return best
    if best is None and refused is not None:
        raise refused
    if best is None:
        largest = max(degrees)
        there = (BUDGET[largest] - 2 * _HEADROOM) // _MIN_SCALE_BITS - 2
        raise ValueError(
            f"The network needs {program.depth} products in a row, and a ring of degree "
            f"{largest} carries {there} with 128-bit security. Fewer layers, activations "
            "of a smaller degree, or the square in their place, need fewer. (There is no "
            "bootstrapping here.)"
        )
    raise ValueError(
        f"Scores within {precision:.2g} (precision times the largest score) cannot be "
        f"promised for {program.depth} products in a row: the bound of the largest ring "
        f"is {best[1]:.2g}. Raise precision, or take activations of a smaller degree."
    )


class Noise:
    """Bounds of the errors that SEAL's operations make, in units of the message.

    Rounding errors and the scheme's own noise are taken as independent, which they are
    up to the randomness of ciphertexts (the usual assumption, as in [1]_); sums of
    them are then sub-Gaussian, and each bound fails with probability at most 2^-40.

    References
    ----------
    .. [1] J. H. Cheon et al., "Homomorphic encryption for arithmetic of approximate
       numbers", eprint 2016/421 (Lemmas 1 to 3 bound the same errors in the worst case).
    """

    def __init__(self, parameters):
        n, bits = parameters.degree, parameters.bits
        t = math.sqrt(2 * (math.log(4 * n) - _LOG2_FAILURE * math.log(2)))
        rounding = t * math.sqrt(n / 12)  # of coefficients, as a value of a slot
        secret = t * math.sqrt(2 * n / 3)
        noise = t * math.sqrt(n) * _SIGMA
        self.encoding = rounding
        self.fresh = noise + rounding
        self.rescaling = rounding + rounding * secret
        # Digits of SEAL are in [0, q), which is not centred: n / pi more in one slot.
        digits = (n / math.pi + rounding) * 2.0 ** (max(bits[:-1]) - bits[-1])
        self.switching = len(bits) * digits * noise + self.rescaling


class Bound:
    """What is known of a ciphertext: level, scale, largest value, largest error."""

    def __init__(self, level, scale, value, error):
        self.level = level
        self.scale = scale
        self.value = value
        self.error = error


class BoundArithmetic:
    """The arithmetic of ciphertexts on bounds: how large a result, and how far off.

    It has the methods of `Arithmetic` that polynomials use, so that each of them bounds
    its own error; what it counts is what they cost.
    """

    def __init__(self, parameters):
        self.parameters = parameters
        self.noise = Noise(parameters)
        self.ring = self  # whose scale is asked for
        self.scale = 2.0**parameters.scale_bits
        self.counts = {"plain_products": 0, "products": 0, "rotations": 0}

    def fresh(self, value):
        """A new ciphertext of values up to some size."""
        error = self.noise.fresh / self.scale
        return Bound(self.parameters.depth, self.scale, value, error)

    def level(self, x):
        """As of ciphertexts."""
        return x.level

    def prime(self, level):
        """As of ciphertexts; that primes are only nearly powers of two matters not."""
        return 2.0 ** self.parameters.bits[level]

    def lowered(self, x, level):
        """As of ciphertexts."""
        return Bound(level, x.scale, x.value, x.error)

    def without_error(self, x):
        """Take the values for exact."""
        return Bound(x.level, x.scale, x.value, 0.0)

    def with_error(self, x, error):
        """Give the values an error."""
        return Bound(x.level, x.scale, x.value, error)

    def within(self, x, value):
        """Note that the values are known to be smaller than their bound says."""
        return Bound(x.level, x.scale, min(x.value, value), x.error)

    def add(self, x, y):
        """As of ciphertexts."""
        level = min(x.level, y.level)
        return Bound(level, x.scale, x.value + y.value, x.error + y.error)

    def add_plain(self, x, value):
        """As of ciphertexts."""
        value = float(np.abs(value).max())
        return Bound(x.level, x.scale, x.value + value, x.error + 1 / x.scale)

    def combined(self, terms, level, scale):
        """As of ciphertexts."""
        value = sum(abs(f) * x.value for x, f in terms)
        error = sum(
            abs(f) * x.error + x.value * x.scale / (scale * self.prime(level + 1))
            for x, f in terms
        )
        self.counts["plain_products"] += len(terms)
        return Bound(level, scale, value, error + self.noise.rescaling / scale)

    def matched(self, x, like, factor=1.0):
        """As of ciphertexts."""
        return self.combined([(x, factor)], like.level, like.scale)

    def times(self, x, y):
        """As of ciphertexts."""
        level = min(x.level, y.level)
        scale = x.scale * y.scale / self.prime(level)
        error = x.value * y.error + y.value * x.error + x.error * y.error
        # The key is switched before the product is divided by its prime.
        error += self.noise.switching / (scale * self.prime(level))
        error += self.noise.rescaling / scale
        self.counts["products"] += 1
        return Bound(level - 1, scale, x.value * y.value, error)

    def rotated(self, x, steps=1):
        """As of ciphertexts."""
        if steps == 0:
            return x
        self.counts["rotations"] += 1
        return Bound(x.level, x.scale, x.value, x.error + self.noise.switching / x.scale)
