"""Arrays that add and multiply while they are encrypted."""

from __future__ import annotations

from hashlib import blake2b
from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from .._sklearn import Interval, validate_params
from ._levels import Bound, BoundArithmetic
from ._messages import MessageError, new_key_id, open_message, seal_message
from ._seal import BUDGET, MAX_PRIME_BITS, Arithmetic, Parameters, Ring, sealapi

# Sizes of the primes, and of the plain modulus, of exact arithmetic by ring.
_EXACT = {
    4096: ((36, 36, 37), 20),
    8192: ((43, 43, 44, 44, 44), 30),
    16384: ((48,) * 9, 40),
    32768: ((55,) * 16, 50),
}
# Reals are not encrypted with fewer bits behind the point.
_LEAST_SCALE_BITS = 30


class HomomorphicKeys:
    """What anybody may have of a client: enough to encrypt and to compute.

    It is made by :meth:`HomomorphicClient.public`. Nothing can be decrypted with it.

    See Also
    --------
    HomomorphicClient : Makes them.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn_advsec.encryption import HomomorphicArray, HomomorphicClient
    >>> client = HomomorphicClient()
    >>> keys = client.public()  # goes to whoever computes
    >>> product = HomomorphicArray([2], keys, exact=True) * HomomorphicArray(
    ...     [21], keys, exact=True)
    >>> client.decrypt(product)
    array([42])
    """

    def __init__(self, client: HomomorphicClient) -> None:
        self.key_id = client.key_id
        self.max_value = client.max_value
        self._rings = client._rings
        self._keys = client._public_keys

    def _scheme(self, exact):
        return self._rings[exact], self._keys[exact]


class HomomorphicClient:
    """Who encrypts arrays, and may decrypt what was computed of them.

    Parameters
    ----------
    depth : int, default=2
        How many products in a row are possible.
    max_value : float, default=100
        No value that is encrypted may be larger: from it, bounds of results and errors
        follow, which tell nothing of the values.

    See Also
    --------
    HomomorphicArray : The arrays.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn_advsec.encryption import HomomorphicArray, HomomorphicClient
    >>> client = HomomorphicClient()
    >>> x = HomomorphicArray([3, 4], client, exact=True)
    >>> y = HomomorphicArray([5, 6], client.public(), exact=True)
    >>> client.decrypt(x * y - x)
    array([12, 20])
    """

    @validate_params(
        {
            "depth": [Interval(Integral, 1, 15, closed="both")],
            "max_value": [Interval(Real, 0, 2**40, closed="neither")],
        },
    )
    def __init__(self, *, depth: int = 2, max_value: float = 100) -> None:
        seal = sealapi()
        self.depth = depth
        self.max_value = max_value
        self.key_id = new_key_id()
        self._rings, self._public_keys, self._decryptors = {}, {}, {}
        for exact in (False, True):
            ring = Ring(
                _exact(depth, max_value) if exact else _approximate(depth, max_value)
            )
            generator = seal.KeyGenerator(ring.context)
            public, relin = seal.PublicKey(), seal.RelinKeys()
            generator.create_public_key(public)
            generator.create_relin_keys(relin)
            galois, steps = seal.GaloisKeys(), ring.parameters.degree // 4
            powers = [2**k for k in range(steps.bit_length())]
            generator.create_galois_keys(ring.rotations(powers), galois)
            self._rings[exact] = ring
            self._public_keys[exact] = {
                "relin": relin,
                "galois": galois,
                "encryptor": seal.Encryptor(ring.context, public),
            }
            secret = generator.secret_key()
            self._decryptors[exact] = seal.Decryptor(ring.context, secret)

    def __reduce__(self):
        raise TypeError("A client holds a secret key, and is not pickled.")

    def public(self) -> HomomorphicKeys:
        """Return what others need to encrypt and to compute; it holds no secret key."""
        return HomomorphicKeys(self)

    def _scheme(self, exact):
        return self._rings[exact], self._public_keys[exact]

    def decrypt(self, array: HomomorphicArray) -> np.ndarray:
        """Decrypt an array.

        Parameters
        ----------
        array : HomomorphicArray
            Encrypted with keys of this client, or computed of such.

        Returns
        -------
        values : ndarray of int64 or float64, or a number
            The values: exact integers, or reals up to the array's `error_bound`.

        Raises
        ------
        OverflowError
            If exact integers may have left the range of the plain modulus, or the noise
            may have grown beyond what can be decrypted.
        ValueError
            If the array is another client's.
        """
        if array.key_id != self.key_id:
            raise ValueError("array is encrypted with the keys of another client.")
        seal, ring = sealapi(), self._rings[array.exact]
        decryptor = self._decryptors[array.exact]
        if array.exact:
            half = ring.plain_modulus // 2
            if array.max_value > half:
                raise OverflowError(
                    f"The result may be as large as {array.max_value:.3g}, and exact "
                    f"integers are known up to {half:.3g} only. Give a smaller "
                    "max_value, or more depth, whose ring has more room."
                )
            if decryptor.invariant_noise_budget(array.ciphertext) <= 0:
                raise OverflowError(
                    "The noise has grown beyond what can be decrypted: give a client of "
                    "more depth."
                )
        plain = seal.Plaintext()
        decryptor.decrypt(array.ciphertext, plain)
        decode = ring.encoder.decode_int64 if array.exact else ring.encoder.decode_double
        values = np.array(decode(plain))[: max(array.size, 1)]
        return values if array.shape else values[0]


class HomomorphicArray:
    """An encrypted array of one dimension that can be added, multiplied and summed.

    ``ENC(x + y) = ENC(x) + ENC(y)`` and ``ENC(x * y) = ENC(x) * ENC(y)``: whoever holds
    the arrays computes, and reads nothing.

    Parameters
    ----------
    values : array-like of shape (n,)
        What is encrypted.
    client : HomomorphicClient or HomomorphicKeys
        Whose keys are used; the public ones are enough.
    exact : bool, default=False
        Whether values are integers, whose arithmetic is exact (scheme BFV [1]_); reals
        have an error (scheme CKKS [2]_).

    Attributes
    ----------
    shape : tuple of int
        ``(n,)``, or ``()`` of a sum.
    max_value : float
        No value is larger; it follows from the client's `max_value`, and not from values.
    error_bound : float
        The largest error of a value: 0 where exact. It holds for any values, where the
        noise of operations is independent, except with probability 2^-40 for each.

    See Also
    --------
    HomomorphicClient : Has the keys.
    EncryptedClassifier : A whole classifier, on encrypted rows.

    References
    ----------
    .. [1] J. Fan and F. Vercauteren, "Somewhat practical fully homomorphic encryption",
       eprint 2012/144.
    .. [2] J. H. Cheon et al., "Homomorphic encryption for arithmetic of approximate
       numbers", eprint 2016/421.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn_advsec.encryption import HomomorphicArray, HomomorphicClient
    >>> client = HomomorphicClient()
    >>> x = HomomorphicArray([0.5, 1.5], client)
    >>> y = HomomorphicArray([2.0, 4.0], client)
    >>> client.decrypt(x + y).round(2)
    array([2.5, 5.5])
    >>> client.decrypt(x @ y).round(2)
    np.float64(7.0)
    """

    def __init__(
        self,
        values: ArrayLike,
        client: HomomorphicClient | HomomorphicKeys,
        exact: bool = False,
    ) -> None:
        values = np.asarray(values)
        ring, keys = client._scheme(bool(exact))
        n_slots = ring.parameters.degree // 2
        if values.ndim != 1 or not 0 < len(values) <= n_slots:
            raise ValueError(
                f"values must have one dimension and 1 to {n_slots} entries; got shape "
                f"{values.shape}."
            )
        if values.dtype.kind not in ("biu" if exact else "biuf"):
            raise TypeError(
                f"values must be {'integers' if exact else 'numbers'}; got "
                f"{values.dtype}."
            )
        if not np.isfinite(values).all() or np.abs(values).max() > client.max_value:
            raise ValueError(
                f"values must be finite and at most max_value={client.max_value} in "
                "size, as the client says."
            )
        self.exact = bool(exact)
        self.shape = values.shape
        self._ring, self._keys = ring, keys
        self.key_id = client.key_id
        seal = sealapi()
        self.ciphertext = seal.Ciphertext()
        keys["encryptor"].encrypt(self._plain(values, ring.scale), self.ciphertext)
        self._bound = self._fresh_bound(float(client.max_value))

    def _fresh_bound(self, value):
        if self.exact:
            return Bound(0, 1.0, value, 0.0)
        bounds = BoundArithmetic(self._ring.parameters)
        # With the public key the noise is multiplied by the secret and the mask, too.
        noise = bounds.noise
        error = (noise.fresh + noise.rescaling * 12**0.5 * 3.2) / bounds.scale
        return Bound(self._ring.parameters.depth, bounds.scale, value, error)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def max_value(self) -> float:
        """No value is larger."""
        return self._bound.value

    @property
    def error_bound(self) -> float:
        """The largest error of a value."""
        return self._bound.error

    def __repr__(self):
        kind = "exact" if self.exact else f"error_bound={self.error_bound:.2g}"
        return f"HomomorphicArray(shape={self.shape}, {kind})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("A sum has no length.")
        return self.shape[0]

    # Arithmetic -----------------------------------------------------------------------
    def __add__(self, other):
        """Add an encrypted array, an array or a number."""
        if isinstance(other, HomomorphicArray):
            self._check(other)
            try:
                return self._added(other)
            except RuntimeError as refused:
                if "transparent" not in str(refused):
                    raise
            # As in (x + 2) - x: what is left could be read without a key.
            return self._blinded()._added(other)
        values = self._plain_values(other)
        value = self.max_value + float(np.abs(values).max())
        plain = self._plain(values, self.ciphertext.scale)
        error = self.error_bound + 1 / self.ciphertext.scale
        result = sealapi().Ciphertext()
        self._ring.evaluator.add_plain(self.ciphertext, plain, result)
        return self._made(result, self._at(result, value, error))

    __radd__ = __add__

    def __neg__(self):
        """Change the sign."""
        result = sealapi().Ciphertext()
        self._ring.evaluator.negate(self.ciphertext, result)
        return self._made(result, self._bound)

    def __sub__(self, other):
        """Subtract an encrypted array, an array or a number."""
        return self + (
            -other if isinstance(other, HomomorphicArray) else -np.asarray(other)
        )

    def __rsub__(self, other):
        """Be subtracted from an array or a number."""
        return -self + other

    def __mul__(self, other):
        """Multiply by an encrypted array, an array or a number, value by value."""
        if isinstance(other, HomomorphicArray):
            self._check(other)
            if self.exact:
                bound = Bound(0, 1.0, self.max_value * other.max_value, 0.0)
                product = self._evaluated("multiply", other, bound)
                relin = self._keys["relin"]
                self._ring.evaluator.relinearize_inplace(product.ciphertext, relin)
                return product
            self._check_depth(other)
            result = self._arithmetic().times(self.ciphertext, other.ciphertext)
            bounds = BoundArithmetic(self._ring.parameters)
            bound = bounds.times(self._bound, other._bound)
            return self._made(result, self._at(result, bound.value, bound.error))
        values = self._plain_values(other)
        if not np.any(values):
            return self._zeros()
        factor = float(np.abs(values).max())
        if self.exact:
            if self.max_value * factor > self._ring.plain_modulus:
                raise OverflowError(
                    f"The result may be as large as {self.max_value * factor:.3g}, and "
                    f"exact integers are known up to {self._ring.plain_modulus // 2:.3g} "
                    "only. Give a smaller max_value, or more depth."
                )
            result = sealapi().Ciphertext()
            plain = self._plain(values, 1.0)
            self._ring.evaluator.multiply_plain(self.ciphertext, plain, result)
            return self._made(result, Bound(0, 1.0, self.max_value * factor, 0.0))
        self._check_depth(self)
        arithmetic = self._arithmetic()
        scale = arithmetic.factor_scale(self.ciphertext)
        plain = self._plain(values, scale)
        noise = BoundArithmetic(self._ring.parameters).noise
        error = factor * self.error_bound + self.max_value * noise.encoding / scale
        error += noise.rescaling / self._ring.scale

        if plain.is_zero():  # factors so small that they are encoded as 0
            return self._zeros(factor * self.max_value)
        result = arithmetic.weighted_sum([(self.ciphertext, plain)])
        return self._made(result, self._at(result, self.max_value * factor, error))

    __rmul__ = __mul__

    def sum(self) -> HomomorphicArray:
        """Add the values up."""
        result, error = self.ciphertext, self.error_bound
        arithmetic = self._arithmetic()
        steps = [2**k for k in range((self.size - 1).bit_length())]
        noise = None if self.exact else BoundArithmetic(self._ring.parameters).noise
        for step in steps:
            turned = sealapi().Ciphertext()
            galois, evaluator = self._keys["galois"], self._ring.evaluator
            rotate = evaluator.rotate_rows if self.exact else evaluator.rotate_vector
            rotate(result, step, galois, turned)
            added = sealapi().Ciphertext()
            evaluator.add(result, turned, added)
            result = added
            if not self.exact:
                error = 2 * error + noise.switching / arithmetic.ring.scale
        made = self._made(result, self._at(result, self.size * self.max_value, error))
        made.shape = ()
        return made

    def __matmul__(self, other):
        """Return the dot product with an encrypted array or an array."""
        return (self * other).sum()

    # What is inside -------------------------------------------------------------------
    def to_bytes(self) -> bytes:
        """Return the array as bytes; damage is noticed when they are read."""
        values = (
            [len(self.shape), self.size, self._bound.level],
            [self._bound.scale, self._bound.value, self._bound.error],
        )
        state = np.array(values[0], dtype=">i8").tobytes()
        state += np.array(values[1], dtype=">f8").tobytes()
        payload = state + self._ring.to_bytes(self.ciphertext)
        digest = self._ring.parameters.digest()
        return seal_message("answer", digest, self.key_id, 0, payload, self._damage_key())

    @classmethod
    def from_bytes(
        cls, data: bytes, client: HomomorphicClient | HomomorphicKeys, exact: bool = False
    ) -> Self:
        """Read an array of a client's.

        Its `max_value` and `error_bound` are as the sender says: damage is noticed, and
        lies are not.

        Parameters
        ----------
        data : bytes
            What :meth:`to_bytes` returned.
        client : HomomorphicClient or HomomorphicKeys
            Whose keys it is encrypted with.
        exact : bool, default=False
            As it was made.

        Returns
        -------
        array : HomomorphicArray
            The array.

        Raises
        ------
        MessageError
            If the bytes are damaged, of another client, or of another kind.
        """
        ring, keys = client._scheme(bool(exact))
        array = cls.__new__(cls)
        array.exact, array._ring, array._keys = bool(exact), ring, keys
        array.key_id = client.key_id
        digest = ring.parameters.digest()
        header, payload = open_message(data, "answer", digest, array._damage_key())
        if header.key_id != client.key_id:
            raise MessageError("unknown_key", "The array is another client's.")
        if len(payload) <= 48:
            raise MessageError("corrupted", "The array is none.")
        n_axes, size, level = (int(v) for v in np.frombuffer(payload[:24], ">i8"))
        scale, value, error = (float(v) for v in np.frombuffer(payload[24:48], ">f8"))
        array.shape = (size,) if n_axes else ()
        try:
            array.ciphertext = ring.from_bytes("Ciphertext", payload[48:])
        except ValueError as wrong:
            raise MessageError("corrupted", str(wrong)) from wrong
        fits = 0 < size <= ring.parameters.degree // 2 and 0 <= value < np.inf
        fits &= 0 <= error < np.inf
        if not exact:
            fits &= level == ring.level(array.ciphertext)
            fits &= scale == array.ciphertext.scale
        if not fits:
            raise MessageError("corrupted", "The array is not what it says of itself.")
        array._bound = Bound(level, scale, value, error)
        return array

    def _damage_key(self):
        return blake2b(self.key_id, digest_size=32, person=b"damage").digest()

    def _made(self, ciphertext, bound):
        made = HomomorphicArray.__new__(HomomorphicArray)
        vars(made).update(vars(self))
        made.ciphertext, made._bound = ciphertext, bound
        return made

    def _at(self, ciphertext, value, error):
        if self.exact:
            return Bound(0, 1.0, value, 0.0)
        level = self._ring.level(ciphertext)
        room = float(np.prod([float(q) for q in self._ring.primes[: level + 1]])) / 4
        if (value + error) * ciphertext.scale > room:
            raise OverflowError(
                f"The result may be as large as {value:.3g}, for which the ciphertext "
                "has no bits left: multiply by smaller numbers, or give a client of more "
                "depth, or of a smaller max_value."
            )
        return Bound(level, ciphertext.scale, value, error)

    def _bounds_sum(self, other):
        value = self.max_value + other.max_value
        return Bound(0, 1.0, value, self.error_bound + other.error_bound)

    def _evaluated(self, name, other, bound):
        result = sealapi().Ciphertext()
        getattr(self._ring.evaluator, name)(self.ciphertext, other.ciphertext, result)
        return self._made(result, bound)

    def _arithmetic(self):
        return Arithmetic(self._ring, self._keys["relin"], self._keys["galois"])

    def _aligned(self, other):
        """Bring two ciphertexts to one scale: the one of a higher level is multiplied."""
        arithmetic = self._arithmetic()
        x, y = self.ciphertext, other.ciphertext
        if np.isclose(x.scale, y.scale, rtol=1e-9):
            return x, y
        if self._ring.level(x) > self._ring.level(y):
            return arithmetic.matched(x, y), y
        if self._ring.level(y) > self._ring.level(x):
            return x, arithmetic.matched(y, x)
        raise ValueError("The arrays have scales that cannot be brought together.")

    def _check(self, other):
        if self.key_id != other.key_id:
            raise ValueError("The arrays are encrypted with keys of different clients.")
        if self.exact != other.exact:
            raise ValueError("An exact array and one that is not cannot be combined.")
        if self.shape != other.shape:
            raise ValueError(f"Shapes differ: {self.shape} and {other.shape}.")

    def _check_depth(self, other):
        if min(self._ring.level(self.ciphertext), self._ring.level(other.ciphertext)) < 1:
            raise ValueError(
                "There are no products left: the arrays were multiplied as often in a "
                f"row as the client's depth ({self._ring.parameters.depth}) allows. Give "
                "HomomorphicClient a larger depth."
            )

    def _plain_values(self, other):
        values = np.broadcast_to(np.asarray(other), self.shape or (1,))
        if values.dtype.kind not in ("biu" if self.exact else "biuf"):
            raise TypeError(
                f"{'integers' if self.exact else 'numbers'} are wanted; got "
                f"{values.dtype}."
            )
        if not np.isfinite(values).all():
            raise ValueError("Numbers must be finite.")
        return values

    def _plain(self, values, scale):
        """Encode values in the first slots; the others hold 0."""
        if self.exact:
            plain = sealapi().Plaintext()
            slots = np.zeros(self._ring.parameters.degree, dtype=np.int64)
            slots[: len(values)] = values
            self._ring.encoder.encode(slots.tolist(), plain)
            return plain
        slots = np.zeros(self._ring.parameters.n_slots)
        slots[: len(values)] = values
        level = self._ring.parameters.depth
        if hasattr(self, "ciphertext") and self.ciphertext.size():
            level = self._ring.level(self.ciphertext)
        return self._arithmetic().plain(slots, level, scale)

    def _added(self, other):
        bound = self._bounds_sum(other)
        if self.exact:
            return self._evaluated("add", other, bound)
        x, y = self._aligned(other)
        result = self._arithmetic().add(x, y)
        error, bounds = bound.error, BoundArithmetic(self._ring.parameters)
        for array, aligned, like in ((self, x, other), (other, y, self)):
            if aligned is not array.ciphertext:  # it was multiplied by 1
                matched = bounds.matched(array._bound, like._bound)
                error += matched.error - array.error_bound
        return self._made(result, self._at(result, bound.value, error))

    def _blinded(self):
        """Return the same values, with new randomness."""
        zero = self._zeros()
        if self.exact:
            return self._evaluated("add", zero, self._bounds_sum(zero))
        arithmetic = self._arithmetic()
        nothing = arithmetic.lowered(zero.ciphertext, self._bound.level)
        nothing.scale = self.ciphertext.scale
        result = arithmetic.add(self.ciphertext, nothing)
        error = self.error_bound + zero.error_bound * self._ring.scale / nothing.scale
        return self._made(result, self._at(result, self.max_value, error))

    def _zeros(self, error=0.0):
        """Encrypt zeros anew: SEAL refuses products that would show that they are 0."""
        bound = self._fresh_bound(error)
        bound.error += error  # by how much what they stand for is not 0
        made = self._made(sealapi().Ciphertext(), bound)
        self._keys["encryptor"].encrypt_zero(made.ciphertext)
        if not self.exact:
            made.ciphertext.scale = self._ring.scale
        return made


def _approximate(depth, max_value):
    """Leave bits above the scale for one product of the largest values, at the end."""
    head = max(4, int(np.ceil(2 * np.log2(max(max_value, 2)))) + 4)
    for degree, budget in BUDGET.items():
        first = min(MAX_PRIME_BITS, budget)
        scale = min((budget - first) // (depth + 1) - 3, first - head)
        if scale >= _LEAST_SCALE_BITS:
            special = min(MAX_PRIME_BITS, budget - first - depth * scale)
            bits = (first, *[scale] * depth, special)
            return Parameters("CKKS", degree, bits, scale)
    raise ValueError(
        f"depth={depth} and max_value={max_value} are more than a ring with 128-bit "
        "security carries at a useful precision."
    )


def _exact(depth, max_value):
    needed = (depth + 1) * np.log2(max_value) + 2
    for k, (degree, (bits, plain_bits)) in enumerate(_EXACT.items()):
        if plain_bits >= min(needed, 50) and (depth <= 1 or k >= 1) and depth <= 3 * 2**k:
            return Parameters("BFV", degree, bits, 0, plain_bits)
    raise ValueError(
        f"depth={depth} and max_value={max_value} need integers of {needed:.0f} bits, "
        "more than exact arithmetic has (50)."
    )
