"""Packing by rows: all features of a row in one ciphertext, matrices by diagonals."""

import math

import numpy as np
from scipy import sparse

from ._levels import Bound
from ._program import row_norm

# What a rotation costs beside a product with a plaintext, as measured.
_ROTATION = 12.0


class Rows:
    """How a program is evaluated on one row at a time, as fast as can be.

    A matrix is applied by its diagonals, in baby steps and giant steps [1]_. The client
    repeats the row over the free slots, copy `t` turned by `t` times its share of the
    diagonals: a product with a plaintext then holds a diagonal for each copy, and there
    are as many products fewer. Each copy is followed by its own beginning, so that no
    rotation brings in numbers of its neighbour.

    Parameters
    ----------
    program : Program
        The network.
    parameters : Parameters
        The ring.

    Attributes
    ----------
    steps : tuple of int
        The rotations that are made: the client makes keys for these only.

    References
    ----------
    .. [1] S. Halevi and V. Shoup, "Faster homomorphic linear transformations in HElib",
       eprint 2018/244 (Section 4, for the diagonals and their baby and giant steps).

    Raises
    ------
    ValueError
        If a layer is wider than the ring has slots.
    """

    name = "rows"
    rows_per_message = 1
    special_bits = 7

    def __init__(self, program, parameters):
        self.program = program
        self.parameters = parameters
        self.n_slots = parameters.n_slots
        self.layers = []
        period = 1
        for k, layer in enumerate(program.layers):
            last = k == len(program.layers) - 1
            if k == 0:
                planned = _first_layer(layer, self.n_slots)
            else:
                planned = _later_layer(layer, self.n_slots, period, last)
            self.layers.append(planned)
            period = planned.period
        self.steps = tuple(
            sorted({s for layer in self.layers for s in layer.steps() if s})
        )
        self._encoded = {}

    def n_ciphertexts(self, layer):
        """Return how many ciphertexts hold the outputs of a layer: one."""
        return 1

    def bounded(self, k, x, arithmetic):
        """Bound the error of an affine layer, and count its operations."""
        layer, plan = self.program.layers[k], self.layers[k]
        norm, noise, scale = row_norm(layer), arithmetic.noise, arithmetic.scale
        n_rotations, n_products = len(plan.steps()), len(plan.diagonals)
        n_giants = len({giant for giant, _ in plan.diagonals})
        # Baby steps switch the key before the product, giant steps after it. A fold sums
        # blocks, whose new errors are orthogonal forms of the same noise: they add up
        # as their squares do. What was there before may be the same in all of them.
        error = norm * (x.error + noise.switching / x.scale)
        rounding = n_products * x.value * noise.encoding / arithmetic.prime(x.level)
        after = n_giants * (noise.rescaling + noise.switching) + noise.switching
        error += math.sqrt(plan.n_folded) * (rounding + after / scale)
        arithmetic.counts["plain_products"] += n_products
        arithmetic.counts["rotations"] += n_rotations
        value = norm * x.value + float(np.abs(layer.bias).max())
        return Bound(x.level - 1, scale, value, error)

    def pack(self, T):
        """Return the numbers of the ciphertext of one row."""
        return [np.append(T[0], 0.0)[self.layers[0].source]]

    def evaluate(self, ciphertexts, arithmetic):
        """Evaluate the program on one ciphertext, and return one: see `Columns`."""
        (value,) = ciphertexts
        for k, layer in enumerate(self.layers):
            value = layer.evaluate(value, arithmetic, self._encoded.setdefault(k, {}))
            value = arithmetic.add_plain(value, layer.bias)
            if k < len(self.program.plans):
                value = self.program.plans[k].encrypted(value, arithmetic)
        return [value]

    def unpack(self, arrays, n_rows):
        """Return scores of shape (1, n_scores)."""
        return np.asarray(arrays[0])[self.layers[-1].outputs][None]


class Diagonals:
    """One affine layer by diagonals.

    Attributes
    ----------
    diagonals : dict of (giant, baby) to ndarray of shape (n_slots,)
        What is multiplied by the input turned by `baby`; the sum of a giant step is
        turned by `giant`.
    folds : list of int
        Rotations after which the result is added to itself: sums over blocks.
    n_folded : int
        How many blocks are summed.
    bias : ndarray of shape (n_slots,)
        The constant, where the results are.
    period : int
        Results stand in every slot, again after so many.
    outputs : ndarray of int
        The slots of the results.
    source : ndarray of int, shape (n_slots,), optional
        Of the first layer: which feature each slot is to hold, -1 where it holds 0.
    """

    def __init__(self, diagonals, folds, bias, period, outputs, source=None):
        self.diagonals = diagonals
        self.folds = folds
        self.bias = bias
        self.period = period
        self.outputs = outputs
        self.source = source
        self.n_folded = 2 ** len(folds)

    def steps(self):
        """Return the rotations, one for each that is made."""
        babies = {b for _, b in self.diagonals if b}
        giants = {g for g, _ in self.diagonals if g}
        return [*babies, *giants, *self.folds]

    def evaluate(self, x, arithmetic, encoded):
        """Apply the matrix to a ciphertext."""
        level, scale = arithmetic.level(x), arithmetic.factor_scale(x)
        turned, sums = {}, {}
        for (giant, baby), diagonal in self.diagonals.items():
            if baby not in turned:
                turned[baby] = arithmetic.rotated(x, baby)
            key = giant, baby, level, scale
            if key not in encoded:
                encoded[key] = arithmetic.plain(diagonal, level, scale)
            sums.setdefault(giant, []).append((turned[baby], encoded[key]))
        total = None
        for giant, terms in sums.items():
            part = arithmetic.rotated(arithmetic.weighted_sum(terms), giant)
            total = part if total is None else arithmetic.add(total, part)
        for step in self.folds:
            total = arithmetic.add(total, arithmetic.rotated(total, step))
        total.scale = arithmetic.ring.scale  # exact up to the last bit of a double
        return total


def _power(n):
    return 2 ** max(0, math.ceil(math.log2(n)))


def _dense(layer):
    weight = layer.weight
    return weight.toarray() if sparse.issparse(weight) else np.asarray(weight)


def _grouped(diagonals):
    """Turn diagonals by number into baby and giant steps with the fewest rotations.

    A giant step turns the sum, so that its plaintexts are turned back.
    """
    count = len(diagonals)
    baby = min(
        (2**k for k in range(count.bit_length())),
        key=lambda b: (min(b, count) + math.ceil(count / b), b),
    )
    grouped = {}
    for i, diagonal in enumerate(diagonals):
        giant = i - i % baby
        grouped[giant, i % baby] = np.roll(diagonal, giant)
    return {key: d if d.any() else _nothing(d) for key, d in grouped.items()}


def _nothing(diagonal):
    """Stand for a diagonal of zeros: SEAL refuses products that show their content."""
    small = diagonal.copy()
    small[0] = 1e-9
    return small


def _first_layer(layer, n_slots):
    """Choose the copies with which the first layer costs least, and lay it out."""
    weight = _dense(layer)
    n_outputs, n_inputs = weight.shape
    block = _power(n_outputs)
    choices = []
    for copies in (2**k for k in range(int(math.log2(block)) + 1)):
        share = block // copies
        if copies == 1:  # one copy that repeats is its own beginning
            width = stride = _power(max(n_inputs, block))
        else:
            width = block * math.ceil(n_inputs / block)
            stride = _power(width + share - 1)
        if copies * stride <= n_slots:
            folds = int(math.log2(copies * stride // block))
            cost = share + _ROTATION * (_n_rotations(share) + folds)
            choices.append((cost, copies, share, width, stride, folds))
    if not choices:
        raise ValueError(
            f"packing='rows' has {n_slots} slots, too few for a layer of {n_inputs} "
            f"inputs and {n_outputs} outputs. Use packing='columns'."
        )
    _, copies, share, width, stride, n_folds = min(choices)
    padded = np.zeros((block, width))
    padded[:n_outputs, :n_inputs] = weight
    # Where each slot is: in which copy, and where in it.
    slot = np.arange(n_slots)
    copy, j = slot // stride % copies, slot % stride
    inside = j < width
    diagonals = [
        np.where(inside, padded[j % block, (copy * share + i + j) % width], 0.0)
        for i in range(share)
    ]
    bias = np.zeros(block)
    bias[:n_outputs] = layer.bias
    filled = j < (stride if copies == 1 else width + share - 1)
    source = np.where(filled, (copy * share + j) % width, -1)
    source[source >= n_inputs] = -1
    return Diagonals(
        _grouped(diagonals),
        [block * 2**k for k in range(n_folds)],
        np.tile(bias, n_slots // block),
        block,
        np.arange(n_outputs),
        source,
    )


def _n_rotations(count):
    """How many baby and giant steps that many diagonals take."""
    return (
        min(min(2**k, count) + -(-count // 2**k) for k in range(count.bit_length())) - 2
    )


def _later_layer(layer, n_slots, period, last):
    weight = _dense(layer)
    n_outputs, n_inputs = weight.shape
    block = _power(n_outputs)
    if max(block, period) > n_slots:
        raise ValueError(
            f"packing='rows' has {n_slots} slots, and a layer has {n_outputs} outputs. "
            "Use packing='columns'."
        )
    count = min(block, period)
    folds = [block * 2**k for k in range(int(math.log2(max(1, period // block))))]
    cost = count + _ROTATION * (_n_rotations(count) + len(folds))
    if last and n_outputs * period <= n_slots:
        if 1 + _ROTATION * math.log2(period) < cost:
            return _one_product(weight, layer.bias, n_slots, period)
    padded = np.zeros((block, period))
    padded[:n_outputs, :n_inputs] = weight
    j = np.arange(n_slots)
    diagonals = [padded[j % block, (i + j) % period] for i in range(count)]
    bias = np.zeros(block)
    bias[:n_outputs] = layer.bias
    return Diagonals(
        _grouped(diagonals),
        folds,
        np.tile(bias, n_slots // block),
        max(block, 1),
        np.arange(n_outputs),
    )


def _one_product(weight, bias, n_slots, period):
    """The last layer with an output a block: one product, and a sum over each block."""
    n_outputs, n_inputs = weight.shape
    slots, constant = np.zeros(n_slots), np.zeros(n_slots)
    outputs = np.arange(n_outputs) * period
    for r in range(n_outputs):
        slots[r * period : r * period + n_inputs] = weight[r]
    constant[outputs] = bias
    folds = [2**k for k in range(int(math.log2(period)))]
    slots = slots if slots.any() else _nothing(slots)
    return Diagonals({(0, 0): slots}, folds, constant, period, outputs)
