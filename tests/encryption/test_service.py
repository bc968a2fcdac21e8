"""Encrypted inference over loopback, in processes of their own."""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, Ridge

from sklearn_advsec.encryption import (
    EncryptedClassifier,
    EncryptedClient,
    EncryptedRegressor,
    EncryptionService,
    MessageError,
)
from sklearn_advsec.encryption._messages import OVERHEAD, join, seal_message, split

pytest.importorskip("tenseal.sealapi")

X, Y = load_breast_cancer(return_X_y=True)
X = np.ascontiguousarray(X[:, :4])
LABELS = np.where(Y, "benign", "malignant")


@pytest.fixture(scope="module")
def fitted():
    model = LogisticRegression(max_iter=5000)
    return EncryptedClassifier(model, packing="columns").fit(X, LABELS)


@pytest.fixture(scope="module")
def path(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.npz"
    fitted.server().save(path)
    return path


@pytest.fixture(scope="module")
def service(path):
    with EncryptionService(path, n_workers=1, max_clients=3, timeout=2.0) as service:
        yield service


def command(path, port=0):
    process = subprocess.Popen(
        [sys.executable, "-m", "sklearn_advsec", "serve", str(path), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    url = process.stdout.readline().split()[-1]
    return process, url


@pytest.mark.slow
def test_two_processes_and_a_restart(path, fitted):
    process, url = command(path)
    try:
        client = EncryptedClient(url).fit()
        assert list(client.classes_) == ["benign", "malignant"]
        plain = fitted.estimator_.predict(X[:30])
        np.testing.assert_array_equal(client.predict(X[:30]), plain)
        process.terminate()
        process.wait()
        process.stdout.close()
        with pytest.raises(ConnectionError, match="Nothing answers"):
            client.predict(X[:3])
        process, _ = command(path, int(url.rpartition(":")[2]))
        np.testing.assert_array_equal(client.predict(X[:30]), plain)  # registers again
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_clients_at_once_each_with_own_keys(service, fitted):
    found = {}

    def ask(k):
        client = EncryptedClient(service.url).fit()
        found[k] = client.predict(X[k : k + 5])

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(3):
        np.testing.assert_array_equal(found[k], fitted.estimator_.predict(X[k : k + 5]))


def test_keys_that_are_forgotten_are_sent_again(service, fitted):
    first = EncryptedClient(service.url).fit()
    for _ in range(3):
        EncryptedClient(service.url).fit()
    np.testing.assert_array_equal(first.predict(X[:4]), fitted.estimator_.predict(X[:4]))


def test_wrong_requests_have_their_own_errors(service, path):
    client = EncryptedClient(service.url).fit()
    (question,) = client.client_.encrypt(X[:2])
    client._request("/questions", question)
    with pytest.raises(MessageError, match="answered before"):
        client._request("/questions", question)
    with pytest.raises(MessageError, match="no message of"):
        client._request("/questions", b"junk" * 250)
    damaged = bytearray(question)
    damaged[44] ^= 1
    with pytest.raises(MessageError):
        client._request("/questions", bytes(damaged))
    with pytest.raises(MessageError, match="There is no /x"):
        client._request("/x")
    with EncryptionService(path, max_bytes=1000) as small:
        request = urllib.request.Request(small.url + "/questions", data=b"x" * 2000)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code == 413
        caught.value.close()
    with pytest.raises(ValueError, match="http://"):
        EncryptedClient("ftp://127.0.0.1").fit()
    with pytest.raises(ValueError, match="outside of the range"):
        client.predict(np.full((1, 4), 1e9))


class Liar(BaseHTTPRequestHandler):
    """Answers with what the test puts into `says`."""

    says = {}

    def do_GET(self):
        self._say()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say()

    def _say(self):
        status, body, promised = self.says[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(promised or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def test_a_server_that_lies(fitted):
    model = json.loads(fitted._public("columns").to_json())

    def told(**changes):
        return json.dumps({**model, **changes}).encode()

    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for body in (b"", b"<html>", b"\xff\xfe", told(bound=0), told(classes=[1] * 9)):
            Liar.says = {"/model": (200, body, None)}
            with pytest.raises(MessageError) as caught:
                EncryptedClient(url).fit()
            assert caught.value.reason == "model"
        Liar.says = {"/model": (200, told()[:9], 5000)}  # less than it promised
        with pytest.raises(MessageError, match="describes no model"):
            EncryptedClient(url).fit()
        Liar.says = {"/model": (500, b"oops", None)}
        with pytest.raises(MessageError, match="none of ours"):
            EncryptedClient(url).fit()
        Liar.says = {"/model": (200, told(), None), "/keys": (200, b"", None)}
        client = EncryptedClient(url).fit()
        for body in (b"", b"junk" * 100, client.client_.encrypt(X[:2])[0]):
            Liar.says["/questions"] = (200, body, None)
            with pytest.raises(MessageError):
                client.predict(X[:2])
        # Whoever has the client's key of authentication may send any ciphertext of its
        # own, such as the first feature.
        question = client.client_.encrypt(X[:2])[0]
        mac_key = client.client_._mac_key
        number = client.client_._sequence
        part = split(question[OVERHEAD - 32 + 4 : -32])[0]
        answer = seal_message(
            "answer",
            client.client_.model.digest(),
            client.client_.key_id,
            number + 1,
            join([part]),
            mac_key,
        )
        Liar.says["/questions"] = (200, answer, None)
        try:  # rows are within -1 and 1, as scores are: a lie that nobody can tell
            assert set(client.predict(X[:2])) <= set(client.classes_)
        except MessageError as error:
            assert error.reason == "overflow"
        server.shutdown()


def test_slow_and_dying_clients_block_nobody(service, fitted):
    host, port = service.url.removeprefix("http://").split(":")
    begun = b"POST /questions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
    slow = socket.create_connection((host, int(port)))
    slow.sendall(begun)
    dying = socket.create_connection((host, int(port)))
    dying.sendall(begun)
    dying.close()
    client = EncryptedClient(service.url).fit()
    np.testing.assert_array_equal(client.predict(X[:2]), fitted.estimator_.predict(X[:2]))
    slow.settimeout(20)
    started = time.monotonic()
    assert slow.recv(10) == b""  # closed after the service's 2 seconds
    assert time.monotonic() - started < 15
    slow.close()


@pytest.mark.slow
def test_scores_on_request_and_regressors(service, fitted, tmp_path):
    client = EncryptedClient(service.url, decimals=3).fit()
    proba = client.predict_proba(X[:5])
    np.testing.assert_allclose(proba, fitted.estimator_.predict_proba(X[:5]), atol=0.05)
    assert not hasattr(EncryptedClient(service.url), "predict_proba")
    regressor = EncryptedRegressor(Ridge(), packing="rows").fit(X, X[:, 0])
    regressor.server().save(tmp_path / "regressor.npz")
    with EncryptionService(tmp_path / "regressor.npz") as other:
        with pytest.raises(TypeError, match="regressor"):
            EncryptedClient(other.url).fit()


@pytest.mark.slow
def test_command_line_says_what_is_wrong(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sklearn_advsec", "serve", str(tmp_path / "none")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "No such file" in done.stderr
