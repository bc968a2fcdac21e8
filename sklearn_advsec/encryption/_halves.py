"""The two halves of encrypted inference: who has the keys, and who has the weights."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import struct
from collections import OrderedDict
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.special import expit, softmax

from ._columns import Columns
from ._graph import Affine
from ._messages import (
    MAC_BYTES,
    MAC_KEY_BYTES,
    MessageError,
    join,
    new_key_id,
    open_message,
    read_header,
    seal_message,
    split,
)
from ._polynomials import Cubic, Plan, Quadratic, Quartic, Series
from ._program import Program
from ._rows_packed import Rows
from ._seal import BUDGET, Arithmetic, Parameters, Ring, sealapi

# What reading another file ends in.
_NOT_SAVED_HERE = (KeyError, TypeError, AttributeError, ValueError, EOFError, BadZipFile)
TAKEN = "Another client has registered with this identity."
PACKINGS = {"columns": Columns, "rows": Rows}
OVERFLOW = (
    "The answer decrypts to values that no row in the range can give: the server used "
    "another model or other keys, or the arithmetic overflowed."
)


@dataclass
class PublicModel:
    """What both sides know of a compiled model; it holds no weight and no key.

    Attributes
    ----------
    parameters : Parameters
        The ring.
    packing : {"columns", "rows"}
        How rows are put into ciphertexts.
    steps : list of int
        The rotations for which the server needs keys.
    low, high : list of float
        The range of each feature.
    classes : list or None
        The labels; None of a regressor.
    link : {"softmax", "sigmoid", None}
        What makes probabilities of scores.
    bound : float
        Scores are no larger.
    precision : float
        The largest error of a score.
    n_scores : int
        Number of scores.
    source, outputs : list of int or None
        Of packing "rows": which feature stands in which slot, and where the scores do.
    """

    parameters: Parameters
    packing: str
    steps: list
    low: list
    high: list
    classes: list | None
    link: str | None
    bound: float
    precision: float
    n_scores: int
    source: list | None = None
    outputs: list | None = None

    def to_json(self):
        """Return it as text."""
        values = dict(vars(self))
        values["parameters"] = vars(self.parameters)
        return json.dumps(values)

    @classmethod
    def from_json(cls, text):
        """Read it, and refuse what no model can be: it comes from a server.

        Raises
        ------
        MessageError
            If it is none, or contradicts itself.
        """
        try:
            values = json.loads(text)
            given = values["parameters"]
            values["parameters"] = Parameters(**{**given, "bits": tuple(given["bits"])})
            model = cls(**values)
            wrong = model._contradiction()
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise MessageError("model", "This describes no model.") from error
        if wrong:
            raise MessageError("model", f"The model contradicts itself: {wrong}.")
        return model

    def _contradiction(self):
        """Return what cannot be; None where all fits."""
        ring, low, high = self.parameters, np.array(self.low), np.array(self.high)
        n_classes = 0 if self.classes is None else len(self.classes)
        if self.packing not in PACKINGS or ring.scheme != "CKKS":
            return "its packing or its scheme is unknown"
        if ring.degree not in BUDGET or not 0 < sum(ring.bits) <= BUDGET[ring.degree]:
            return "its ring has less than 128-bit security"
        if not 0 < ring.scale_bits <= min(ring.bits):
            return "its scale is none"
        if low.ndim != 1 or low.shape != high.shape or not (low < high).all():
            return "its ranges are none"
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return "its ranges are not finite"
        if not (0 < self.bound < np.inf and 0 < self.precision < np.inf):
            return "its bounds are none"
        if self.n_scores < 1 or n_classes not in (0, max(self.n_scores, 2)):
            return f"it has {self.n_scores} scores for {n_classes} classes"
        if self.link not in (None, "softmax", "sigmoid"):
            return "its link is unknown"
        if not all(0 < step < ring.n_slots for step in self.steps):
            return "its rotations are none"
        if self.packing == "rows":
            source, outputs = np.array(self.source), np.array(self.outputs)
            if source.shape != (ring.n_slots,) or outputs.shape != (self.n_scores,):
                return "its slots are of another ring"
            if not (-1 <= source.min() and source.max() < len(low)):
                return "its slots hold features that rows have not"
            if not (0 <= outputs.min() and outputs.max() < ring.n_slots):
                return "its scores stand in no slot"
        return None

    @property
    def n_features(self):
        """Width of a row."""
        return len(self.low)

    @property
    def rows_per_message(self):
        """How many rows a question holds."""
        return self.parameters.n_slots if self.packing == "columns" else 1

    @property
    def n_questions(self):
        """How many ciphertexts a question has."""
        return self.n_features if self.packing == "columns" else 1

    @property
    def n_answers(self):
        """How many ciphertexts an answer has."""
        return self.n_scores if self.packing == "columns" else 1

    def digest(self):
        """Return 8 bytes that messages for this model carry."""
        return self.parameters.digest()


class Client:
    """The half that has the keys: it encrypts rows, and decrypts what comes back.

    Parameters
    ----------
    model : PublicModel
        What is known of the model.
    program : Program, optional
        The network itself, where the client has it: rows are then checked against the
        range of every activation before they are sent, and not of the features alone.

    Attributes
    ----------
    key_id : bytes
        The identity of these keys.

    See Also
    --------
    Server : The other half.
    EncryptedClassifier : Both in one.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.encryption import EncryptedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> encrypted = EncryptedClassifier(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> client, server = encrypted.client(), encrypted.server()
    >>> key_id = server.register(client.evaluation_keys())
    >>> (question,) = client.encrypt(X[:1])
    >>> client.decrypt(server.evaluate(question))
    array([0])
    """

    _kind_of_model = PublicModel

    def __init__(self, model: PublicModel, program: Program | None = None) -> None:
        self.model = model
        self._program = program
        self.key_id = new_key_id()
        self._mac_key = secrets.token_bytes(MAC_KEY_BYTES)
        self._sequence = 0
        self._asked = {}
        self._make_keys()

    def _make_keys(self):
        self._ring = Ring(self.model.parameters)
        self._take_keys(sealapi().KeyGenerator(self._ring.context))

    def _take_keys(self, generator):
        seal, secret_key = sealapi(), generator.secret_key()
        self._generator = generator
        self._encryptor = seal.Encryptor(self._ring.context, secret_key)
        self._decryptor = seal.Decryptor(self._ring.context, secret_key)

    def __reduce__(self):
        raise TypeError(
            "A client holds a secret key, and is not pickled. client.save(path) writes "
            "the key to a file of its own."
        )

    def evaluation_keys(self) -> bytes:
        """Return the message that registers this client with a server.

        It carries the keys for products and rotations, with which nothing can be
        decrypted, and the key that authenticates messages: send it over a channel that
        others do not read (TLS).
        """
        payload = join([self._mac_key, *self._evaluation_keys()])
        return seal_message(
            "keys", self.model.digest(), self.key_id, 0, payload, self._mac_key
        )

    def _evaluation_keys(self):
        ring, generator = self._ring, self._generator
        parts = [ring.to_bytes(generator.create_relin_keys())]
        if self.model.steps:
            elements = ring.rotations(self.model.steps)
            parts.append(ring.to_bytes(generator.create_galois_keys(elements)))
        return parts

    def encrypt(self, X: ArrayLike) -> list[bytes]:
        """Encrypt rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        messages : list of bytes
            Questions to the server, to be answered in any order.

        Raises
        ------
        ValueError
            If a row is outside of the range for which the model was compiled; nothing
            was encrypted then.
        """
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self.model.n_features:
            raise ValueError(
                f"X has shape {X.shape}; the model takes rows of {self.model.n_features} "
                "features."
            )
        if not np.isfinite(X).all():
            row = int(np.argwhere(~np.isfinite(X))[0][0])
            raise ValueError(f"X: row {row} is not finite; missing values are not taken.")
        T, size = self._encoded(X), self.model.rows_per_message
        return [
            self._question(T[start : start + size]) for start in range(0, len(T), size)
        ]

    def _encoded(self, X):
        """Check rows, and return the numbers that are encrypted."""
        low, high = np.asarray(self.model.low), np.asarray(self.model.high)
        check_range(X, low, high)
        if self._program is not None:
            self._program.check_activations(X)
        return (2 * X - low - high) / (high - low)

    def _question(self, T):
        parts = self._encrypted(T)
        self._sequence += 1
        self._asked[self._sequence] = len(T)
        return seal_message(
            "question",
            self.model.digest(),
            self.key_id,
            self._sequence,
            struct.pack(">I", len(T)) + join(parts),
            self._mac_key,
        )

    def _encrypted(self, T):
        """Return the ciphertexts of a question."""
        if self.model.packing == "columns":
            arrays = list(T.T)
        else:
            arrays = [np.append(T[0], 0.0)[np.asarray(self.model.source)]]
        arithmetic = Arithmetic(self._ring)
        parts = []
        for array in arrays:
            plain = arithmetic.plain(array, self._ring.parameters.depth, self._ring.scale)
            # The symmetric form has half of its polynomials replaced by a seed.
            parts.append(self._ring.to_bytes(self._encryptor.encrypt_symmetric(plain)))
        return parts

    def decrypt_scores(self, message: bytes) -> np.ndarray:
        """Decrypt an answer, and return the scores as they are.

        Decrypted values of CKKS hold noise from which, given enough of them, the secret
        key can be found (IND-CPA-D, eprint 2020/1533): never hand them to the server or
        to others. :meth:`decrypt` returns labels, or scores that are rounded.

        Parameters
        ----------
        message : bytes
            The server's answer.

        Returns
        -------
        scores : ndarray of shape (n_rows, n_scores)
            Scores, up to the model's `precision`.

        Raises
        ------
        MessageError
            If the message is not a whole and genuine answer to a question of this client
            that waits for one, or if it decrypts to what no row can give.
        """
        digest = self.model.digest()
        header = read_header(message, "answer", digest)
        if header.key_id != self.key_id:
            raise MessageError(
                "unknown_key", "The answer is for another client: it has another key."
            )
        header, payload = open_message(message, "answer", digest, self._mac_key)
        if header.sequence not in self._asked:
            raise MessageError(
                "replayed",
                f"Answer {header.sequence} belongs to no question that is open.",
            )
        parts = split(payload, self.model.n_answers)
        scores = self._decrypted(parts, self._asked[header.sequence])
        del self._asked[header.sequence]
        return scores

    def _decrypted(self, parts, n_rows):
        """Decrypt the ciphertexts of an answer to scores of shape (n_rows, n_scores)."""
        seal, model, arrays = sealapi(), self.model, []
        for part in parts:
            ciphertext = self._ring.from_bytes("Ciphertext", part)
            plain = seal.Plaintext()
            self._decryptor.decrypt(ciphertext, plain)
            arrays.append(np.array(self._ring.encoder.decode_double(plain)))
        if model.packing == "columns":
            scores = np.stack([array[:n_rows] for array in arrays], axis=1)
        else:
            scores = arrays[0][np.asarray(model.outputs)][None]
        limit = 1 + model.precision / model.bound
        if not np.isfinite(scores).all() or np.abs(scores).max() > limit:
            raise MessageError("overflow", OVERFLOW)
        return scores * model.bound

    def decrypt(
        self, message: bytes, *, decimals: int | None = None, proba: bool = False
    ) -> np.ndarray:
        """Decrypt an answer to labels, or to rounded scores or probabilities.

        Parameters
        ----------
        message : bytes
            The server's answer.
        decimals : int, default=None
            To return scores (of a classifier) rounded to so many decimals; None returns
            labels. A regressor's predictions are rounded to it, and by default to what
            the precision of the model is worth.
        proba : bool, default=False
            Whether rounded probabilities are returned and not scores.

        Returns
        -------
        y : ndarray of shape (n_rows,), or (n_rows, n_scores)
            Labels or predictions; scores or probabilities where `decimals` is given.
        """
        scores = self.decrypt_scores(message)
        if self.model.classes is None:
            if decimals is None:
                decimals = int(np.floor(-np.log10(self.model.precision)))
            return np.round(scores[:, 0], decimals)
        if decimals is None:
            return np.asarray(self.model.classes)[positions_of(scores)]
        if proba:
            return np.round(probabilities_of(scores, self.model.link), decimals)
        return np.round(scores, decimals)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the secret key to a file that only its owner may read.

        Parameters
        ----------
        path : str or Path
            A file that does not exist yet.
        """
        parts = [
            self.key_id,
            self._mac_key,
            struct.pack(">Q", self._sequence),
            self.model.to_json().encode(),
            self._secret(),
        ]
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(join(parts))

    def _secret(self):
        return self._ring.to_bytes(self._generator.secret_key())

    @classmethod
    def load(cls, path: str | PathLike[str], program: Program | None = None) -> Self:
        """Read a client that was saved; it goes on with its sequence numbers."""
        key_id, mac_key, sequence, model, secret = split(Path(path).read_bytes(), 5)
        client = cls(cls._kind_of_model.from_json(model.decode()), program)
        client._restore(secret)
        client.key_id, client._mac_key = key_id, mac_key
        # Numbers that were drawn after the saving are never used again.
        (number,) = struct.unpack(">Q", sequence)
        client._sequence = number + 2**20
        return client

    def _restore(self, secret):
        secret = self._ring.from_bytes("SecretKey", secret)
        self._take_keys(sealapi().KeyGenerator(self._ring.context, secret))


class Server:
    """The half that has the weights: it computes on what it cannot read.

    It holds the model and evaluation keys, and no secret key.

    Parameters
    ----------
    program : Program
        The network.
    model : PublicModel
        What is known of it.
    max_clients : int, default=16
        How many clients' keys are kept; those that were used least recently go first.

    See Also
    --------
    Client : The other half.
    EncryptionService : The same, over HTTP.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.encryption import EncryptedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> encrypted = EncryptedClassifier(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> client, server = encrypted.client(), encrypted.server()
    >>> server.knows(client.key_id)
    False
    >>> server.knows(server.register(client.evaluation_keys()))
    True
    """

    def __init__(
        self, program: Program, model: PublicModel, *, max_clients: int = 16
    ) -> None:
        self.program = program
        self.model = model
        self.max_clients = max_clients
        self._sessions = OrderedDict()
        self._open()

    def _open(self):
        self._ring = Ring(self.model.parameters)
        self._packed = PACKINGS[self.model.packing](self.program, self.model.parameters)

    def __getstate__(self):
        return {
            "program": self.program,
            "model": self.model,
            "max_clients": self.max_clients,
            "_sessions": OrderedDict(),  # keys are a client's, and stay here
        }

    def __setstate__(self, state):
        vars(self).update(state)
        self._open()

    def register(self, message: bytes) -> bytes:
        """Take the evaluation keys of a client.

        Parameters
        ----------
        message : bytes
            What `Client.evaluation_keys` returned.

        Returns
        -------
        key_id : bytes
            The client's identity.
        """
        digest = self.model.digest()
        header = read_header(message, "keys", digest)
        # The key of the authentication is in the message itself: it tells damage, and the
        # channel has to keep it secret.
        _, payload = open_message(message, "keys", digest, mac_key_of(message, header))
        mac_key, *parts = split(payload)
        before = self._sessions.get(header.key_id)
        if before is not None and not hmac.compare_digest(before["mac"], mac_key):
            raise MessageError("taken", TAKEN)
        try:
            keys = self._read_keys(header.key_id, parts)
        except ValueError as error:
            raise MessageError("corrupted", f"The evaluation keys are broken: {error}")
        # A client that registers again has not unasked its questions.
        session = before or {"mac": mac_key, "seen": set(), "floor": 0}
        self._sessions[header.key_id] = {**session, "keys": keys}
        self._sessions.move_to_end(header.key_id)
        while len(self._sessions) > self.max_clients:
            self._sessions.popitem(last=False)
        return header.key_id

    def _read_keys(self, key_id, parts):
        """Return the keys of a client as the arithmetic takes them."""
        if len(parts) != (2 if self.model.steps else 1):
            raise ValueError(f"there are {len(parts)}")
        keys = [self._ring.from_bytes("RelinKeys", parts[0])]
        if self.model.steps:
            keys.append(self._ring.from_bytes("GaloisKeys", parts[1]))
            for element in self._ring.rotations(self.model.steps):
                if not keys[1].has_key(element):
                    raise ValueError("a rotation's key is missing")
        return keys

    def knows(self, key_id: bytes) -> bool:
        """Whether the keys of a client are here."""
        return key_id in self._sessions

    def evaluate(self, message: bytes) -> bytes:
        """Answer a question.

        Parameters
        ----------
        message : bytes
            A question of a registered client.

        Returns
        -------
        answer : bytes
            The encrypted scores.

        Raises
        ------
        MessageError
            If the client is unknown, or the message is damaged, or was answered before.
        """
        digest = self.model.digest()
        header = read_header(message, "question", digest)
        session = self._sessions.get(header.key_id)
        if session is None:
            raise MessageError(
                "unknown_key",
                "The keys of this client are not here (any more): register them.",
            )
        self._sessions.move_to_end(header.key_id)
        header, payload = open_message(message, "question", digest, session["mac"])
        number = header.sequence
        if number <= session["floor"] or number in session["seen"]:
            raise MessageError("replayed", f"Question {number} was answered before.")
        parts = split(payload[4:], self.model.n_questions)
        try:
            ciphertexts = [self._fresh(part) for part in parts]
        except MessageError:
            raise
        except ValueError as error:
            raise MessageError("corrupted", str(error)) from error
        _note(session, number)
        parts = self._evaluated(ciphertexts, session["keys"])
        return seal_message(
            "answer", digest, header.key_id, number, join(parts), session["mac"]
        )

    def _fresh(self, data):
        """Read a ciphertext as a client makes it: at the first level, at the scale."""
        ciphertext = self._ring.from_bytes("Ciphertext", data)
        fits = (
            self._ring.level(ciphertext) == self._ring.parameters.depth
            and ciphertext.scale == self._ring.scale
        )
        if not fits:
            raise MessageError("corrupted", "A ciphertext is of another level or scale.")
        return ciphertext

    def _evaluated(self, ciphertexts, keys):
        """Return the ciphertexts of an answer as bytes."""
        answers = self._packed.evaluate(ciphertexts, Arithmetic(self._ring, *keys))
        return [self._ring.to_bytes(answer) for answer in answers]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the server's half to a file of arrays; it holds weights and no code."""
        arrays = {}
        for k, layer in enumerate(self.program.layers):
            weight = sparse.csr_array(layer.weight)
            arrays |= {
                f"data{k}": weight.data,
                f"indices{k}": weight.indices,
                f"indptr{k}": weight.indptr,
                f"shape{k}": np.array(weight.shape),
                f"bias{k}": layer.bias,
            }
        plans = [
            {
                "scale": plan.scale,
                "shift": plan.shift,
                "factor": plan.factor,
                "constant": plan.constant,
                "offset": plan.offset,
                "stages": [_stage_state(stage) for stage in plan.stages],
            }
            for plan in self.program.plans
        ]
        text = json.dumps({"plans": plans, "bounds": self.program.core_bounds})
        with open(path, "wb") as file:
            np.savez(
                file,
                model=np.frombuffer(self.model.to_json().encode(), np.uint8),
                plans=np.frombuffer(text.encode(), np.uint8),
                **arrays,
            )

    @classmethod
    def load(cls, path: str | PathLike[str], **options: Any) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is run."""
        try:
            return cls._loaded(path, options)
        except _NOT_SAVED_HERE as error:
            raise ValueError(f"{path} is no file of Server.save: {error}") from error

    @classmethod
    def _loaded(cls, path, options):
        with np.load(path, allow_pickle=False) as file:
            model = PublicModel.from_json(file["model"].tobytes().decode())
            state = json.loads(file["plans"].tobytes().decode())
            layers = []
            while f"bias{len(layers)}" in file:
                k = len(layers)
                weight = sparse.csr_array(
                    (file[f"data{k}"], file[f"indices{k}"], file[f"indptr{k}"]),
                    shape=tuple(file[f"shape{k}"]),
                )
                layers.append(Affine(weight, file[f"bias{k}"]))
        plans = []
        for values in state["plans"]:
            stages = [_STAGES[name](*given) for name, given in values.pop("stages")]
            offset = values.pop("offset")
            plan = Plan(stages=stages, **values)
            plan.offset = offset
            plans.append(plan)
        program = Program(
            np.array(model.low),
            np.array(model.high),
            layers,
            plans,
            model.bound,
            [tuple(pair) for pair in state["bounds"]],
        )
        return cls(program, model, **options)


_STAGES = {cls.__name__: cls for cls in (Quadratic, Cubic, Quartic, Series)}


def _stage_state(stage):
    if isinstance(stage, Series):
        return "Series", [stage.coef.tolist()]
    given = [getattr(stage, name) for name in "abc" if hasattr(stage, name)]
    return type(stage).__name__, given


def _note(session, number):
    """Remember that a question was answered; far below the latest none is taken."""
    session["seen"].add(number)
    if len(session["seen"]) > 4096:
        ordered = sorted(session["seen"])
        session["floor"] = max(session["floor"], ordered[2048])
        session["seen"] = set(ordered[2049:])


def mac_key_of(message, header):
    """Return the key of authentication from a client's message with its keys."""
    start = len(message) - header.length - MAC_BYTES
    payload = message[start : start + header.length]
    try:
        (length,) = struct.unpack_from(">Q", payload, 4)
    except struct.error:
        length = 0
    if length != MAC_KEY_BYTES or len(payload) < 12 + MAC_KEY_BYTES:
        raise MessageError("corrupted", "The message carries no evaluation keys.")
    return payload[12 : 12 + MAC_KEY_BYTES]


def check_range(X, low, high):
    """Raise where a row is outside of the range of the features."""
    outside = (X < low) | (X > high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"X: row {row} is outside of the range that was compiled: feature {column} "
            f"is {X[row, column]:.4g}, and may be from {low[column]:.4g} to "
            f"{high[column]:.4g}. Fit on rows like it."
        )


def positions_of(scores):
    """Return the positions of the labels that scores stand for."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(int)
    return scores.argmax(axis=1)


def probabilities_of(scores, link):
    """Return the probabilities that scores stand for."""
    if link is None:
        raise TypeError("The model gives no probabilities.")
    if scores.shape[1] == 1:
        positive = expit(scores[:, 0])
        return np.stack([1 - positive, positive], axis=1)
    return softmax(scores, axis=1)
