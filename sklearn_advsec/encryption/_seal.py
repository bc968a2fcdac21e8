"""Rings and ciphertexts of SEAL: the only place that speaks to the library.

All cryptography is Microsoft SEAL's, reached through ``tenseal.sealapi``. This file adds
what that interface lacks: bytes for what is saved, a check of what is loaded, and
arithmetic that keeps count of levels and scales.
"""

import hashlib
import json
import math
import os
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

# Bits of the coefficient modulus that leave 128-bit security, by the degree of the ring
# (the Homomorphic Encryption Standard of 2018, table 1, ternary secrets; SEAL checks it).
BUDGET = {4096: 109, 8192: 218, 16384: 438, 32768: 881}
# SEAL's largest prime.
MAX_PRIME_BITS = 60


def sealapi():
    """Import the interface to SEAL, or say how to get it."""
    try:
        return import_module("tenseal.sealapi")
    except ImportError as error:
        raise ImportError(
            "Encryption needs TenSEAL, which brings Microsoft SEAL: "
            'pip install "sklearn_advsec[fhe]"'
        ) from error


@dataclass(frozen=True)
class Parameters:
    """What client and server have to agree on: a ring, its modulus, and the first scale.

    Attributes
    ----------
    scheme : {"CKKS", "BFV"}
        Approximate arithmetic of reals, or exact arithmetic of integers.
    degree : int
        Degree `N` of the ring; a ciphertext of CKKS holds ``N / 2`` numbers.
    bits : tuple of int
        Sizes of the primes of the coefficient modulus, the special one last.
    scale_bits : int
        Numbers are encrypted as multiples of ``2**-scale_bits`` (CKKS).
    plain_bits : int
        Size of the plain modulus `t` (BFV).
    """

    scheme: str
    degree: int
    bits: tuple
    scale_bits: int = 0
    plain_bits: int = 0

    @property
    def n_slots(self):
        """How many numbers a ciphertext holds."""
        return self.degree // 2 if self.scheme == "CKKS" else self.degree

    @property
    def depth(self):
        """How many products in a row the modulus carries (CKKS)."""
        return len(self.bits) - 2

    def digest(self):
        """Return 8 bytes that stand for these parameters."""
        text = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=8).digest()


@cache
def _scratch_folder(process):
    """Return a folder of this process's own, in memory where there is such a place."""
    memory = Path("/dev/shm")
    folder = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(dir=folder, prefix="sklearn_advsec_")


@contextmanager
def _scratch_file():
    """SEAL saves to files and loads from files only."""
    folder = _scratch_folder(os.getpid()).name
    handle, path = tempfile.mkstemp(dir=folder)
    os.close(handle)
    path = Path(path)
    try:
        yield path
    finally:
        path.unlink()


class Ring:
    """A ring of SEAL with its encoder and evaluator; it holds no key."""

    def __init__(self, parameters):
        seal = sealapi()
        self.parameters = parameters
        scheme = getattr(seal.SCHEME_TYPE, parameters.scheme)
        options = seal.EncryptionParameters(scheme)
        options.set_poly_modulus_degree(parameters.degree)
        primes = seal.CoeffModulus.Create(parameters.degree, list(parameters.bits))
        options.set_coeff_modulus(primes)
        if parameters.scheme == "BFV":
            options.set_plain_modulus(
                seal.PlainModulus.Batching(parameters.degree, parameters.plain_bits)
            )
        # The security level is SEAL's own check: it refuses a modulus that is too large.
        self.context = seal.SEALContext(options, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            raise ValueError(
                f"SEAL refuses the parameters: {self.context.parameters_error_message()}"
            )
        self.primes = [prime.value() for prime in primes]
        ckks = parameters.scheme == "CKKS"
        self.encoder = (seal.CKKSEncoder if ckks else seal.BatchEncoder)(self.context)
        self.evaluator = seal.Evaluator(self.context)

    def __reduce__(self):
        return Ring, (self.parameters,)

    @property
    def scale(self):
        """The scale of fresh ciphertexts."""
        return 2.0**self.parameters.scale_bits

    @cached_property
    def plain_modulus(self):
        """The modulus of exact integers (BFV)."""
        data = self.context.first_context_data()
        return data.parms().plain_modulus().value()

    @cached_property
    def ids(self):
        """The identity of each level's modulus, from the last level (0) to the first."""
        ids, data = [], self.context.first_context_data()
        while data is not None:
            ids.append(tuple(data.parms_id()))
            data = data.next_context_data()
        return ids[::-1]

    def rotations(self, steps):
        """Return SEAL's Galois elements of rotations to the left."""
        return [pow(3, step, 2 * self.parameters.degree) for step in steps]

    def level(self, ciphertext):
        """Return how many products in a row a ciphertext still bears."""
        return ciphertext.coeff_modulus_size() - 1

    def to_bytes(self, thing):
        """Return a key or a ciphertext of SEAL as bytes."""
        with _scratch_file() as path:
            thing.save(str(path))
            return path.read_bytes()

    def from_bytes(self, kind, data):
        """Read a key or a ciphertext; ``kind`` is the name of its class.

        Raises
        ------
        ValueError
            If the bytes are no such thing, or are one of another ring. SEAL's own load
            takes 1,000 bytes of junk, and the empty message, without a word.
        """
        seal = sealapi()
        thing = getattr(seal, kind)()
        try:
            with _scratch_file() as path:
                path.write_bytes(data)
                thing.load(self.context, str(path))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"These bytes are no {kind} of this ring.") from error
        if kind == "Ciphertext" and (
            thing.size() != 2 or not seal.is_valid_for(thing, self.context)
        ):
            raise ValueError("These bytes are no ciphertext of this ring.")
        if kind != "Ciphertext" and not seal.is_valid_for(thing, self.context):
            raise ValueError(f"These bytes are no {kind} of this ring.")
        return thing


class Arithmetic:
    """Sums and products of ciphertexts of CKKS, with their scales followed exactly.

    No ciphertext that is handed in is changed. A product is rescaled at once, except for
    those that are summed first (:meth:`weighted_sum`).

    Parameters
    ----------
    ring : Ring
        The ring.
    relin_keys, galois_keys : SEAL keys, optional
        What products and rotations need.

    Attributes
    ----------
    counts : dict
        How many products with plaintexts, products of ciphertexts and rotations were
        made.
    """

    def __init__(self, ring, relin_keys=None, galois_keys=None):
        self._seal = sealapi()
        self.ring = ring
        self.relin_keys = relin_keys
        self.galois_keys = galois_keys
        self.counts = {"plain_products": 0, "products": 0, "rotations": 0}

    # Levels --------------------------------------------------------------------------
    def level(self, x):
        """How many products in a row a ciphertext still bears."""
        return self.ring.level(x)

    def prime(self, level):
        """The prime that a product at this level is divided by."""
        return self.ring.primes[level]

    def lowered(self, x, level):
        """Return a ciphertext at a lower level; its value and scale stay."""
        if self.ring.level(x) == level:
            return x
        result = self._seal.Ciphertext()
        self.ring.evaluator.mod_switch_to(x, self.ring.ids[level], result)
        return result

    def _rescaled(self, x):
        self.ring.evaluator.rescale_to_next_inplace(x)
        return x

    def plain(self, values, level, scale):
        """Encode a number, or one for each slot, as a plaintext of a level and scale."""
        plain = self._seal.Plaintext()
        values = values if isinstance(values, float) else values.tolist()
        self.ring.encoder.encode(values, self.ring.ids[level], scale, plain)
        return plain

    def within(self, x, value):
        """Note that values are smaller than was known; ciphertexts do not show it."""
        return x

    # Sums ----------------------------------------------------------------------------
    def add(self, x, y):
        """Add ciphertexts whose scales agree; the higher one is lowered."""
        level = min(self.ring.level(x), self.ring.level(y))
        x, y = self.lowered(x, level), self.lowered(y, level)
        result = self._seal.Ciphertext()
        # A difference in the last bits of the scales is far below the noise.
        if x.scale != y.scale and math.isclose(x.scale, y.scale, rel_tol=1e-9):
            y = self._copy(y)
            y.scale = x.scale
        self.ring.evaluator.add(x, y, result)
        return result

    def add_plain(self, x, values):
        """Add a number, or one for each slot."""
        result = self._seal.Ciphertext()
        plain = self.plain(values, self.ring.level(x), x.scale)
        self.ring.evaluator.add_plain(x, plain, result)
        return result

    def _copy(self, x):
        copy = self._seal.Ciphertext()
        self.ring.evaluator.mod_switch_to(x, x.parms_id(), copy)
        return copy

    # Products ------------------------------------------------------------------------
    def factor_scale(self, x, target=None):
        """Return the scale of a plain factor after whose product the scale is `target`.

        The prime that the rescaling divides by, times how far the scale has drifted from
        the target (the ring's own scale by default).
        """
        return self.prime(self.level(x)) * ((target or self.ring.scale) / x.scale)

    def product_with(self, x, plain):
        """Multiply by an encoded plaintext, and do not rescale."""
        result = self._seal.Ciphertext()
        self.ring.evaluator.multiply_plain(x, plain, result)
        self.counts["plain_products"] += 1
        return result

    def combined(self, terms, level, scale):
        """Sum ciphertexts times numbers, such that the sum has a level and a scale."""
        lowered = [(self.lowered(x, level + 1), factor) for x, factor in terms]
        return self.weighted_sum(
            (x, self.plain(float(factor), level + 1, self.factor_scale(x, scale)))
            for x, factor in lowered
        )

    def matched(self, x, like, factor=1.0):
        """Multiply by a number, to the level and scale of a deeper ciphertext."""
        return self.combined([(x, factor)], self.level(like), like.scale)

    def weighted_sum(self, terms):
        """Sum products of ciphertexts of one level and scale with plaintexts.

        Parameters
        ----------
        terms : iterable of (ciphertext, plaintext)
            Encoded with :meth:`factor_scale`.

        Returns
        -------
        sum : ciphertext or None
            Rescaled once; None where there are no terms.
        """
        total = None
        for x, plain in terms:
            product = self.product_with(x, plain)
            if total is None:
                total = product
            else:
                self.ring.evaluator.add_inplace(total, product)
        return None if total is None else self._rescaled(total)

    def times(self, x, y):
        """Multiply ciphertexts."""
        level = min(self.ring.level(x), self.ring.level(y))
        x, y = self.lowered(x, level), self.lowered(y, level)
        result = self._seal.Ciphertext()
        if x is y:
            self.ring.evaluator.square(x, result)
        else:
            self.ring.evaluator.multiply(x, y, result)
        self.ring.evaluator.relinearize_inplace(result, self.relin_keys)
        self.counts["products"] += 1
        return self._rescaled(result)

    def rotated(self, x, steps):
        """Move each number `steps` slots to the left, around the end."""
        if steps == 0:
            return x
        result = self._seal.Ciphertext()
        self.ring.evaluator.rotate_vector(x, steps, self.galois_keys, result)
        self.counts["rotations"] += 1
        return result
