"""Messages between client and server: framed, numbered and authenticated.

SEAL's own format is not enough to travel in: it loads junk and the empty message without
a word, and a ciphertext with one flipped bit decrypts to numbers like 1e19.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from dataclasses import dataclass
from hashlib import sha256

MAGIC = b"SAHE"
VERSION = 1
KINDS = {"keys": 1, "question": 2, "answer": 3}
# Magic, version, kind, parameters, key, sequence number, length of the payload.
_HEADER = struct.Struct(">4sHH8s16sQQ")
MAC_BYTES = 32
OVERHEAD = _HEADER.size + MAC_BYTES
MAC_KEY_BYTES = 32
# Larger messages are refused before they are read.
MAX_BYTES = {"keys": 2**30, "question": 2**31, "answer": 2**31}


class MessageError(ValueError):
    """A message that is not what it has to be; nothing of it was used.

    Attributes
    ----------
    reason : str
        "truncated", "foreign" (no message of this package), "version", "kind",
        "parameters", "too_large", "unknown_key", "taken" (an identity that another
        client has), "corrupted", "replayed", "overflow", or "model" (what a server says
        of its model cannot be).

    See Also
    --------
    Client : Raises it for answers.
    Server : Raises it for questions.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn_advsec.encryption import EncryptedRegressor, MessageError
    >>> X, y = load_iris(return_X_y=True)
    >>> server = EncryptedRegressor(Ridge()).fit(X, y).server()
    >>> try:
    ...     server.evaluate(b"what is this?")
    ... except MessageError as error:
    ...     print(error.reason)
    truncated
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    def __reduce__(self):
        return MessageError, (self.reason, str(self))


@dataclass(frozen=True)
class Header:
    """What a message says of itself before its payload.

    Attributes
    ----------
    kind : {"keys", "question", "answer"}
        What it carries.
    parameters : bytes
        Digest of the parameters of the ring.
    key_id : bytes
        Whose keys it is encrypted with.
    sequence : int
        Its number: each question has one of its own, an answer has its question's.
    length : int
        Bytes of the payload.
    """

    kind: str
    parameters: bytes
    key_id: bytes
    sequence: int
    length: int


def new_key_id():
    """Draw an identity for a client's keys."""
    return secrets.token_bytes(16)


def seal_message(kind, parameters, key_id, sequence, payload, mac_key):
    """Frame a payload."""
    header = _HEADER.pack(
        MAGIC, VERSION, KINDS[kind], parameters, key_id, sequence, len(payload)
    )
    tag = hmac.new(mac_key, header + payload, sha256).digest()
    return b"".join((header, payload, tag))


def read_header(message, kind, parameters=None):
    """Read the header of a message, and check all that can be checked without a key.

    Parameters
    ----------
    message : bytes
        The message.
    kind : str
        What it has to be.
    parameters : bytes, optional
        The digest of the parameters that it has to be of.

    Returns
    -------
    header : Header
        The header.

    Raises
    ------
    MessageError
        If it is no such message.
    """
    if len(message) > MAX_BYTES[kind] + OVERHEAD:
        raise MessageError(
            "too_large",
            f"The message has {len(message)} bytes; {kind} may have {MAX_BYTES[kind]}.",
        )
    if len(message) < OVERHEAD:
        raise MessageError(
            "truncated",
            f"The message has {len(message)} bytes, fewer than its header alone.",
        )
    magic, version, number, digest, key_id, sequence, length = _HEADER.unpack_from(
        message
    )
    if magic != MAGIC:
        raise MessageError("foreign", "This is no message of sklearn_advsec.encryption.")
    if version != VERSION:
        raise MessageError(
            "version",
            f"The message has format version {version}, and this side reads {VERSION}: "
            "the two sides need the same version of sklearn_advsec.",
        )
    if number != KINDS[kind]:
        raise MessageError("kind", f"The message is not of kind {kind!r}.")
    if parameters is not None and digest != parameters:
        raise MessageError(
            "parameters",
            "The message was made with other parameters: for another model, or another "
            "ring. Fetch the model's public part again.",
        )
    if length != len(message) - OVERHEAD:
        raise MessageError(
            "truncated",
            f"The message says that it carries {length} bytes, and has "
            f"{len(message) - OVERHEAD}.",
        )
    return Header(kind, digest, key_id, sequence, length)


def open_message(message, kind, parameters, mac_key):
    """Check a message whole, and return its header and payload."""
    header = read_header(message, kind, parameters)
    body, tag = message[:-MAC_BYTES], message[-MAC_BYTES:]
    if not hmac.compare_digest(hmac.new(mac_key, body, sha256).digest(), tag):
        raise MessageError(
            "corrupted",
            "The message is not as it was sent: its authentication fails, so it is used "
            "in no way.",
        )
    return header, body[_HEADER.size :]


def join(parts):
    """Put byte strings behind each other, each with its length."""
    chunks = [struct.pack(">I", len(parts))]
    for part in parts:
        chunks += [struct.pack(">Q", len(part)), part]
    return b"".join(chunks)


def split(payload, n_parts=None):
    """Undo :func:`join`; the number of parts may be given, and is then checked."""
    try:
        (count,) = struct.unpack_from(">I", payload)
        if n_parts is not None and count != n_parts:
            raise MessageError(
                "corrupted", f"The message holds {count} parts, and not {n_parts}."
            )
        at, parts = 4, []
        for _ in range(count):
            (length,) = struct.unpack_from(">Q", payload, at)
            at += 8
            if length > len(payload) - at:
                raise struct.error
            parts.append(payload[at : at + length])
            at += length
        if at != len(payload):
            raise struct.error
    except struct.error:
        raise MessageError("corrupted", "The parts of the message do not add up.")
    return parts
