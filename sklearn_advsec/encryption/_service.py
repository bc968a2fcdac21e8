"""Encrypted inference over HTTP: a service of worker processes, and its client."""

from __future__ import annotations

import hmac
import json
import multiprocessing
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._progress import ReportsProgress, with_callbacks
from .._sklearn import BaseEstimator, Interval, fit_context, validate_data
from ._halves import TAKEN, Client, PublicModel, Server, mac_key_of
from ._messages import MAX_BYTES, OVERHEAD, MessageError, read_header

# A client reads no more of an answer.
_MOST_BYTES = MAX_BYTES["answer"] + OVERHEAD
# Of what a worker has opened; a process of its own, so a module holds it.
_worker = {}


def _open_worker(path, spool):
    _worker["server"] = Server.load(path, max_clients=4)
    _worker["spool"] = Path(spool)


def _check_keys(message):
    """Let a worker read evaluation keys: what it refuses is not kept."""
    return _worker["server"].register(message)


def _answer(message):
    """Answer a question; keys that are not here (any more) are read from the folder."""
    server = _worker["server"]
    header = read_header(message, "question", server.model.digest())
    if not server.knows(header.key_id):
        keys = _worker["spool"] / header.key_id.hex()
        if keys.exists():
            server.register(keys.read_bytes())
    return server.evaluate(message)


class EncryptionService:
    """A model that answers encrypted questions over HTTP.

    ``GET /model`` is what clients have to know, ``POST /keys`` registers a client, ``POST
    /questions`` answers one. Requests are read by threads and computed by processes:
    threads share one interpreter, and gain nothing here.

    The service speaks plain HTTP. Put it behind what adds TLS: the keys that clients
    register hold the key that authenticates their messages.

    Parameters
    ----------
    path : str or Path
        What `Server.save` wrote.
    host : str, default="127.0.0.1"
        The address to listen at.
    port : int, default=0
        The port; 0 takes a free one.
    n_workers : int, default=1
        Number of processes.
    max_clients : int, default=16
        How many clients' keys are kept, on disk; those used least recently go first.
    max_bytes : int, default=None
        The largest body that is read; by default what the kinds of messages may have.
    timeout : float, default=30.0
        After how many seconds without a byte a connection is closed.

    Attributes
    ----------
    url : str
        Where it listens.

    See Also
    --------
    EncryptedClient : The other side.

    Examples
    --------
    >>> import os, tempfile, pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.encryption import EncryptedClassifier, EncryptionService
    >>> X, y = load_iris(return_X_y=True)
    >>> encrypted = EncryptedClassifier(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     encrypted.server().save(path)
    ...     with EncryptionService(path) as service:
    ...         print(service.url.rpartition(":")[0])
    http://127.0.0.1
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        n_workers: int = 1,
        max_clients: int = 16,
        max_bytes: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.model = Server.load(path).model
        self._path, self._n_workers = str(path), n_workers
        self._max_clients = max_clients
        self._max_bytes = max_bytes
        self._clients = OrderedDict()
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory()
        self._open_pool()
        handler = type("Handler", (_Handler,), {"service": self, "timeout": timeout})
        self._http = ThreadingHTTPServer((host, port), handler)
        self._http.daemon_threads = True
        self.url = f"http://{host}:{self._http.server_address[1]}"

    def _open_pool(self):
        self._pool = ProcessPoolExecutor(
            self._n_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open_worker,
            initargs=(self._path, self._folder.name),
        )

    def serve_forever(self) -> None:
        """Answer until :meth:`close` is called, or the process is interrupted."""
        self._http.serve_forever()

    def close(self) -> None:
        """Stop :meth:`serve_forever` in another thread, and end all."""
        self._http.shutdown()
        self.stop()

    def stop(self) -> None:
        """End the workers, and give the port back."""
        self._http.server_close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def limit(self, kind: str) -> int:
        """Return the largest body of a kind of message."""
        return MAX_BYTES[kind] if self._max_bytes is None else self._max_bytes

    def register(self, message: bytes) -> bytes:
        """Check evaluation keys in a worker, and keep them."""
        header = read_header(message, "keys", self.model.digest())
        mac_key = mac_key_of(message, header)
        self._known(header.key_id, mac_key)  # before a worker takes them in
        key_id = self._compute(_check_keys, message)
        with self._lock:
            client = self._known(key_id, mac_key)
            path = Path(self._folder.name) / key_id.hex()
            fresh = path.with_suffix(".new")
            fresh.write_bytes(message)
            os.replace(fresh, path)
            self._clients[key_id] = client
            self._clients.move_to_end(key_id)
            while len(self._clients) > self._max_clients:
                old, _ = self._clients.popitem(last=False)
                (Path(self._folder.name) / old.hex()).unlink(missing_ok=True)
        return key_id

    def _known(self, key_id, mac_key):
        """Return what is known of a client, unless it is another one of that name."""
        client = self._clients.get(key_id, {"mac": mac_key, "seen": set()})
        if not hmac.compare_digest(client["mac"], mac_key):
            raise MessageError("taken", TAKEN)
        return client

    def answer(self, message: bytes) -> bytes:
        """Answer a question in a worker; of two of one number, one is answered."""
        header = read_header(message, "question", self.model.digest())
        with self._lock:
            client = self._clients.get(header.key_id)
            if client is None:
                raise MessageError(
                    "unknown_key",
                    "The keys of this client are not here (any more): register them.",
                )
            self._clients.move_to_end(header.key_id)
            seen = client["seen"]
            if header.sequence in seen:
                raise MessageError(
                    "replayed", f"Question {header.sequence} was answered before."
                )
            seen.add(header.sequence)
        try:
            return self._compute(_answer, message)
        except BaseException:  # it was not answered: its number is free again
            with self._lock:
                seen.discard(header.sequence)
            raise

    def _compute(self, function, message):
        pool = self._pool
        try:
            return pool.submit(function, message).result()
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._open_pool()
            raise


class _Handler(BaseHTTPRequestHandler):
    """One request; everything that is wrong with it is told as JSON."""

    protocol_version = "HTTP/1.1"
    service = None

    def do_GET(self):
        """Tell what clients have to know."""
        if self.path != "/model":
            self._send(404, _told("path", f"There is no {self.path}."))
            return
        self._send(200, self.service.model.to_json().encode(), "application/json")

    def do_POST(self):
        """Take keys, or a question."""
        kinds = {"/keys": "keys", "/questions": "question"}
        if self.path not in kinds:
            self._send(404, _told("path", f"There is no {self.path}."))
            return
        kind = kinds[self.path]
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self._send(411, _told("length", "Content-Length is needed."))
            return
        if not 0 <= length <= self.service.limit(kind):
            text = f"{length} bytes are more than {self.service.limit(kind)}."
            self._send(413, _told("too_large", text))
            return
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            self.close_connection = True
            return
        if len(body) < length:  # the client went away
            self.close_connection = True
            return
        try:
            if kind == "keys":
                self._send(200, self.service.register(body))
            else:
                self._send(200, self.service.answer(body))
        except MessageError as error:
            self._send(400, _told(error.reason, str(error)))
        except BrokenProcessPool:
            text = "A worker died; ask again."
            self._send(503, _told("unavailable", text))

    def _send(self, status, body, kind="application/octet-stream"):
        if status != 200:
            kind = "application/json"
            # What is left of the request is not read: the connection cannot go on.
            self.close_connection = True
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status != 200:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def log_message(self, format, *args):
        """Print nothing."""


def _told(reason, text):
    return json.dumps({"reason": reason, "text": text}).encode()


def _hands_out_scores(self):
    if self.decimals is None:
        raise AttributeError("Labels only are handed out; set decimals for scores.")
    return True


class EncryptedClient(ReportsProgress, ClassifierMixin, BaseEstimator):
    """A classifier that lives behind an :class:`EncryptionService`.

    `fit` makes keys and registers them; rows are encrypted here, and labels decrypted
    here. Rows outside of the range for which the model was compiled are refused before
    they are sent; of its inner layers only the server knows the range.

    Parameters
    ----------
    url : str
        Where the service listens.
    timeout : float, default=60.0
        Seconds to wait for an answer.
    decimals : int, default=None
        To hand out scores and probabilities, rounded to so many decimals; None hands out
        labels only.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Number of features.
    client_ : Client
        The keys.

    See Also
    --------
    EncryptedClassifier : Compiles the model, and predicts in one process.
    EncryptionService : The other side.

    Examples
    --------
    >>> import os, tempfile, pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.encryption import (
    ...     EncryptedClassifier, EncryptedClient, EncryptionService)
    >>> X, y = load_iris(return_X_y=True)
    >>> encrypted = EncryptedClassifier(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     encrypted.server().save(path)
    ...     with EncryptionService(path) as service:  # on another machine, as a rule
    ...         print(EncryptedClient(service.url).fit().predict(X[::50]))
    [0 1 2]
    """

    _parameter_constraints = {
        "url": [str],
        "timeout": [Interval(Real, 0, None, closed="neither")],
        "decimals": [Interval(Integral, 0, 15, closed="both"), None],
    }

    def __init__(
        self, url: str, *, timeout: float = 60.0, decimals: int | None = None
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.decimals = decimals

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Fetch what has to be known of the model, and register new keys.

        Parameters
        ----------
        X, y : None
            Ignored: the model is trained.

        Returns
        -------
        self : object
            The client.

        Raises
        ------
        ConnectionError
            If nothing answers at `url`.
        """
        model = PublicModel.from_json(self._request("/model"))
        if model.classes is None:
            raise TypeError(f"url: the model at {self.url} is a regressor.")
        self.classes_ = np.asarray(model.classes)
        self.n_features_in_ = len(model.low)
        self.client_ = Client(model)
        self._request("/keys", self.client_.evaluation_keys())
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Encrypt rows, have them classified, and decrypt the labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        return self._loop(X)

    @available_if(_hands_out_scores)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities, rounded to `decimals`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities.
        """
        check_is_fitted(self)
        return self._loop(X, decimals=self.decimals, proba=True)

    @with_callbacks
    def _loop(self, X, **options):
        X = validate_data(self, X, reset=False, dtype=np.float64)
        questions = self.client_.encrypt(X)
        with self._told_to_callbacks(X, None, len(questions)):
            parts = [
                self.client_.decrypt(self._asked(question), **options)
                for question in self._tasks(questions, "message", stops=False)
            ]
        return np.concatenate(parts)

    def _asked(self, question):
        """Send a question; where the service has lost the keys, they are sent again."""
        try:
            return self._request("/questions", question)
        except MessageError as error:
            if error.reason != "unknown_key":
                raise
        self._request("/keys", self.client_.evaluation_keys())
        return self._request("/questions", question)

    def _request(self, path, body=None):
        request = urllib.request.Request(self.url.rstrip("/") + path, data=body)
        if not request.full_url.startswith(("http://", "https://")):
            raise ValueError(
                f"url must begin with http:// or https://; got {self.url!r}."
            )
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = response.read(_MOST_BYTES + 1)
            if len(answer) > _MOST_BYTES:
                raise MessageError("too_large", f"{self.url} answers without an end.")
            return answer
        except urllib.error.HTTPError as error:
            told = _read_error(error)
            if error.code == 503:
                raise ConnectionError(f"{self.url}: {told['text']}") from error
            raise MessageError(told["reason"], told["text"]) from error
        except TimeoutError as error:
            waited = time.monotonic() - started
            raise TimeoutError(
                f"{self.url} did not answer within {waited:.0f} s; raise timeout."
            ) from error
        except (urllib.error.URLError, HTTPException, ConnectionError) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise TimeoutError(
                    f"{self.url} did not answer within {self.timeout} s; raise timeout."
                ) from error
            raise ConnectionError(
                f"Nothing answers at {self.url}: {getattr(error, 'reason', error)}. "
                "Start it with python -m sklearn_advsec serve MODEL --port PORT."
            ) from error

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags


def _read_error(error):
    try:
        told = json.loads(error.read())
        return {"reason": str(told["reason"]), "text": str(told["text"])}
    except (ValueError, KeyError, TypeError):
        return {
            "reason": "foreign",
            "text": f"The answer is none of ours ({error.code}).",
        }
