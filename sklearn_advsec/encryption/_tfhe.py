"""Scheme TFHE: networks of thresholds, computed by concrete-python in its own process."""

from __future__ import annotations

import hashlib
import io
import json
import os
import selectors
import struct
import subprocess
import tempfile
import threading
import time
import weakref
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from .._sklearn import BaseEstimator, Interval
from ._halves import OVERFLOW, Client, Server
from ._messages import MessageError, join, split
from ._thresholds import Quantizer

VARIABLE = "SKLEARN_ADVSEC_TFHE"
_WORKER = Path(__file__).with_name("_tfhe_worker.py")


class TFHE(BaseEstimator):
    """The scheme TFHE, as a choice of :class:`EncryptedClassifier`.

    It computes on small integers, and any function of one of them by a look-up
    ("programmable bootstrapping" [1]_): trees and discretized networks, which are made of
    comparisons, and for which CKKS has no exact form. The library is Zama's
    concrete-python, whose licence, BSD-3-Clause-Clear, grants no patent rights. It needs
    an old numpy, so it runs in a process and an environment of its own: ``make tfhe``
    builds it, and the environment variable ``SKLEARN_ADVSEC_TFHE`` names its Python.

    Parameters
    ----------
    n_bits : int, default=5
        Features of trees are rounded to ``2 ** n_bits`` intervals between the smallest
        and the largest value seen in `fit`. The cost doubles with each bit.
    leaf_bits : int, default=5
        Values of leaves are rounded to whole numbers of so many bits.
    rounded_bits : int, default=0
        How many low bits of the sums of a discretized network are rounded off, which
        makes large sums cheap, and those near 0 uncertain.
    error_probability : float, default=1e-5
        How probable it is at most that one look-up goes wrong.
    timeout : float, default=600.0
        Seconds after which a request to the other process is given up.

    See Also
    --------
    EncryptedClassifier : Takes it as its `scheme`.
    DiscretizedMLPClassifier : Networks that are made for it.

    References
    ----------
    .. [1] I. Chillotti, M. Joye and P. Paillier, "Programmable bootstrapping enables
       efficient homomorphic inference of deep neural networks", eprint 2021/091
       (Section 3).

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.encryption import TFHE, EncryptedClassifier
    >>> forest = RandomForestClassifier(n_estimators=10, max_depth=3)
    >>> encrypted = EncryptedClassifier(forest, scheme=TFHE(n_bits=6))
    """

    _parameter_constraints = {
        "n_bits": [Interval(Integral, 1, 8, closed="both")],
        "leaf_bits": [Interval(Integral, 2, 10, closed="both")],
        "rounded_bits": [Interval(Integral, 0, 8, closed="both")],
        "error_probability": [Interval(Real, 0, 1, closed="neither")],
        "timeout": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_bits: int = 5,
        leaf_bits: int = 5,
        rounded_bits: int = 0,
        error_probability: float = 1e-5,
        timeout: float = 600.0,
    ) -> None:
        self.n_bits = n_bits
        self.leaf_bits = leaf_bits
        self.rounded_bits = rounded_bits
        self.error_probability = error_probability
        self.timeout = timeout


def python_of_tfhe(wanted_by="scheme"):
    """Return the Python of the second environment, or say how to get it."""
    python = os.environ.get(VARIABLE, "")
    if not python:
        raise ImportError(
            f"{wanted_by}: encrypted numbers are compared by scheme TFHE, which needs an "
            "environment of its own: build it with `make tfhe` (700 MB), and set the "
            f"environment variable {VARIABLE} to its Python."
        )
    if not os.access(python, os.X_OK):
        raise ImportError(f"{VARIABLE} is {python!r}, which is no program.")
    return python


class WorkerError(RuntimeError):
    """The second environment could not do what it was asked."""


class Worker:
    """A process of the second environment: asked, timed out, and started again.

    Parameters
    ----------
    timeout : float
        Seconds that a request may take.
    opening : tuple, default=None
        The request that a new process begins with, as of :meth:`ask`.

    Attributes
    ----------
    generation : int
        How often a process was started.
    """

    def __init__(self, timeout, opening=None):
        self.timeout = timeout
        self.generation = 0
        self._python = python_of_tfhe()
        self._opening = opening
        self._process = None
        self._lock = threading.RLock()  # one request at a time

    @property
    def alive(self):
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def open(self):
        """Start a process, unless there is one."""
        if self.alive:
            return
        self.close()
        # What it prints is kept for the error, and on disk: a pipe would fill up.
        self._printed = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [self._python, "-B", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )
        self.close = weakref.finalize(self, _end, self._process, self._printed)
        self.generation += 1
        if self._opening is not None:
            name, options, *parts = self._opening
            self._asked(name, options, *parts)

    def close(self):
        """End the process; the next request starts another one."""

    def ask(self, name, options=None, *parts):
        """Send a request, and return what is told and the parts that come back.

        Raises
        ------
        WorkerError
            If it failed, or the process died over it.
        TimeoutError
            If it took too long; the process is ended.
        """
        with self._lock:
            self.open()
            return self._asked(name, options or {}, *parts)

    def _asked(self, name, options, *parts):
        header = json.dumps({"request": name, **options}).encode()
        body = join([header, *parts])
        deadline = time.monotonic() + self.timeout
        try:
            self._process.stdin.write(struct.pack(">Q", len(body)) + body)
            self._process.stdin.flush()
            (length,) = struct.unpack(">Q", self._read(8, deadline))
            told, *result = split(self._read(length, deadline))
        except TimeoutError:
            self.close()
            raise TimeoutError(
                f"The TFHE process did not {name} within {self.timeout:g} s; raise "
                "timeout, or ask for fewer bits."
            )
        except (BrokenPipeError, EOFError) as error:
            printed = self._last_words()
            self.close()
            raise WorkerError(f"The TFHE process died: {printed}") from error
        told = json.loads(told)
        if "error" in told:
            raise WorkerError(f"The TFHE process could not {name}: {told['error']}")
        return told, *result

    def _read(self, n_bytes, deadline):
        chunks = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while n_bytes:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                chunk = os.read(self._process.stdout.fileno(), min(n_bytes, 2**20))
                if not chunk:
                    raise EOFError
                chunks.append(chunk)
                n_bytes -= len(chunk)
        return b"".join(chunks)

    def _last_words(self):
        self._process.wait()
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"status {self._process.returncode}"


def _end(process, printed):
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, printed):
        try:
            stream.close()
        except BrokenPipeError:  # what was not read any more
            pass


@dataclass
class CircuitModel:
    """What both sides know of a compiled circuit; it holds no weight and no key.

    Attributes
    ----------
    specification : bytes
        Concrete's file for clients: the parameters of the encryption.
    quantizer : Quantizer
        What is done to rows.
    classes : list
        The labels.
    scale : float
        Scores are sums times it, plus `offset`.
    offset, lowest, highest : list
        What is added to the scores, and between which limits the sums are.
    timeout : float
        Seconds that a request may take.
    """

    specification: bytes
    quantizer: Quantizer
    classes: list
    scale: float
    offset: list
    lowest: list
    highest: list
    timeout: float

    packing = "rows"
    link = None
    rows_per_message = n_questions = n_answers = 1

    @property
    def n_features(self):
        """Width of a row."""
        return len(self.quantizer.low)

    def digest(self):
        """Return 8 bytes that messages for this model carry."""
        return hashlib.blake2b(self.specification, digest_size=8).digest()

    def to_json(self):
        """Return it as text."""
        values = {**vars(self), "quantizer": asdict(self.quantizer)}
        return json.dumps({**values, "specification": self.specification.hex()})

    @classmethod
    def from_json(cls, text):
        """Read it."""
        values = json.loads(text)
        values["specification"] = bytes.fromhex(values["specification"])
        values["quantizer"] = Quantizer(**values["quantizer"])
        return cls(**values)


@dataclass
class Circuit:
    """A compiled circuit: what both sides know, and concrete's file for servers."""

    model: CircuitModel
    file: bytes


def compile_network(network, X, classes, scheme):
    """Compile a network of thresholds in the second environment.

    Parameters
    ----------
    network : ThresholdNetwork
        The network.
    X : ndarray of shape (n_rows, n_features)
        Rows inside of its ranges.
    classes : list
        The labels.
    scheme : TFHE
        The parameters.

    Returns
    -------
    model : CircuitModel
        What both sides know.
    circuit : bytes
        Concrete's file for servers.
    cost : dict
        Look-ups, and bytes of the keys before they are compressed.
    worker : Worker
        The process, which can simulate the circuit.
    """
    rows = network.quantizer(X[:200])
    arrays = {"rows": rows, "weight": network.weight, "limits": network.limits}
    for k, layer in enumerate(network.layers):
        arrays |= {
            f"weight{k}": layer.weight.toarray(),
            f"bias{k}": layer.bias,
            f"cut{k}": layer.cut,
        }
    options = {
        "n_bits": network.quantizer.n_bits,
        "error_probability": scheme.error_probability,
        "layers": [
            {"n_bits": layer.n_bits, "rounded_bits": layer.rounded_bits}
            for layer in network.layers
        ],
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    worker = Worker(scheme.timeout)
    cost, client, server = worker.ask("compile", options, buffer.getvalue())
    lowest, highest = (np.asarray(limit).tolist() for limit in network.limits)
    model = CircuitModel(
        client,
        network.quantizer,
        classes,
        network.scale,
        np.asarray(network.offset).tolist(),
        lowest,
        highest,
        scheme.timeout,
    )
    return model, server, cost, worker


def simulated_sums(worker, rows):
    """Return what the circuit makes of integer rows, with the errors of its look-ups."""
    sums = []
    for start in range(0, len(rows), 50):
        options = {"first": start == 0}
        sums.append(
            _loaded(worker.ask("simulate", options, _saved(rows[start:][:50]))[1])
        )
    return np.concatenate(sums)


class TFHEClient(Client):
    """The half of scheme TFHE that has the keys; they are in a process of its own.

    Parameters
    ----------
    model : CircuitModel
        What is known of the model.
    program : ThresholdNetwork, optional
        As of :class:`Client`.
    """

    _kind_of_model = CircuitModel

    def _make_keys(self):
        self._restore(b"")

    def _restore(self, secret):
        # Without its keys, a process that was started again is of no use.
        self._worker = Worker(self.model.timeout)
        parts = [self.model.specification, *([secret] if secret else [])]
        self._worker.ask("open_client", {}, *parts)

    def close(self):
        """End the process that holds the keys; nothing can be decrypted any more."""
        self._worker.close()

    def _ask(self, name, *parts):
        if not self._worker.alive:
            raise WorkerError(
                "The process that held the keys has ended, and they are lost: make "
                "another client, or load one that was saved."
            )
        return self._worker.ask(name, {}, *parts)

    def _secret(self):
        return self._ask("secret")[1]

    def _evaluation_keys(self):
        return [self._ask("evaluation_keys")[1]]

    def _encoded(self, X):
        if self._program is not None:
            self._program.check_activations(X)
        return self.model.quantizer(X)

    def _encrypted(self, T):
        return [self._ask("encrypt", _saved(T[0]))[1]]

    def _decrypted(self, parts, n_rows):
        try:
            sums = _loaded(self._ask("decrypt", *parts)[1])
        except (WorkerError, ValueError) as error:
            raise MessageError("corrupted", f"This is no answer: {error}") from error
        model = self.model
        fits = sums.shape == (len(model.offset),)
        if not fits or (sums < model.lowest).any() or (sums > model.highest).any():
            raise MessageError("overflow", OVERFLOW)
        return (model.scale * sums + np.asarray(model.offset))[None]


class TFHEServer(Server):
    """The half of scheme TFHE that has the circuit, and no secret key.

    Parameters
    ----------
    circuit : bytes
        Concrete's file for servers.
    model : CircuitModel
        What is known of it.
    max_clients : int, default=16
        As of :class:`Server`.
    """

    def _open(self):
        self._worker = Worker(self.model.timeout, ("open_server", {}, self.program))

    def close(self):
        """End the process; the next question starts another one."""
        self._worker.close()

    def _read_keys(self, key_id, parts):
        if len(parts) != 1:
            raise ValueError(f"there are {len(parts)}")
        keys = {"id": key_id.hex(), "bytes": parts[0], "generation": 0}
        self._register(keys)
        return keys

    def _register(self, keys):
        options = {"key": keys["id"], "max_clients": self.max_clients}
        try:
            self._worker.ask("register", options, keys["bytes"])
        except WorkerError as error:
            raise ValueError(str(error)) from error
        keys["generation"] = self._worker.generation

    def _fresh(self, data):
        return data

    def _evaluated(self, ciphertexts, keys):
        self._worker.open()
        if keys["generation"] != self._worker.generation:  # it was started again
            self._register(keys)
        try:
            return [self._worker.ask("run", {"key": keys["id"]}, *ciphertexts)[1]]
        except WorkerError as error:
            raise MessageError("corrupted", f"This is no question: {error}") from error

    def save(self, path):
        """Write the server's half to a file; it holds the circuit and no key.

        The circuit is a compiled library: whoever makes such a file runs code where it
        is loaded.
        """
        Path(path).write_bytes(join([self.model.to_json().encode(), self.program]))

    @classmethod
    def load(cls, path, **options):
        """Read what :meth:`save` wrote, and run it as one runs a program."""
        model, circuit = split(Path(path).read_bytes(), 2)
        return cls(circuit, CircuitModel.from_json(model.decode()), **options)


def _saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _loaded(data):
    return np.load(io.BytesIO(data), allow_pickle=False)
