"""Scheme TFHE: networks of thresholds, and the process that computes them."""

import os
import signal
import struct
import sys

import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.encryption import (
    TFHE,
    DiscretizedMLPClassifier,
    EncryptedClassifier,
    MessageError,
    _tfhe,
)
from sklearn_advsec.encryption._messages import seal_message, split
from sklearn_advsec.encryption._thresholds import threshold_network
from sklearn_advsec.trees import tree_ensemble

needs_tfhe = pytest.mark.skipif(
    not os.environ.get(_tfhe.VARIABLE),
    reason=f"needs the second environment: make tfhe, and {_tfhe.VARIABLE}",
)

DIGITS, LABELS = load_digits(return_X_y=True)
IRIS, KINDS = load_iris(return_X_y=True)
CANCER, BENIGN = load_breast_cancer(return_X_y=True)

TREES = [
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(5, random_state=0),
    ExtraTreesClassifier(4, max_depth=4, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, random_state=0),
    AdaBoostClassifier(n_estimators=4, random_state=0),
    xgboost.XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1),
]


def read(model, X, *, n_bits=5, leaf_bits=5, rounded_bits=0):
    options = {"n_bits": n_bits, "leaf_bits": leaf_bits, "rounded_bits": rounded_bits}
    return threshold_network(model, X, **options)


# Networks -----------------------------------------------------------------------------
@pytest.mark.parametrize("model", TREES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_trees_on_whole_numbers_reach_their_leaves(model, n_classes):
    """Where features are as many whole numbers as there are intervals, none is lost."""
    rng = np.random.RandomState(0)
    X = rng.randint(32, size=(400, 5)).astype(float)
    X[:2] = [[0], [31]]
    y = (X[:, 0] + X[:, 1] > 30).astype(int) + (n_classes == 3) * (X[:, 2] > 20)
    model.fit(X, y)
    network = read(model, X)
    ensemble = tree_ensemble(model)
    np.testing.assert_array_equal(network.quantizer(X), X)
    # What is left is the rounding of the leaves.
    for leaf_bits in (3, 5, 10):
        network = read(model, X, leaf_bits=leaf_bits)
        off = np.abs(network.scores(X) - ensemble.scores(X) * ensemble.divisor).max()
        assert off <= ensemble.n_trees * (network.scale / 2 + 1e-6)
        assert np.abs(network.weight).max() < 2 ** (leaf_bits - 1)
    low, high = network.limits
    sums = (network.scores(X) - network.offset) / network.scale
    assert (sums >= low - 1e-9).all() and (sums <= high + 1e-9).all()
    # A table's index is never beyond its end.
    assert (network.left_at(np.vstack([X, rng.uniform(-99, 99, (200, 5))])) < 0).all()


@pytest.mark.parametrize("max_weight", [1, 3])
@pytest.mark.parametrize("rounded_bits", [0, 2])
@pytest.mark.parametrize("y", [LABELS, LABELS > 4], ids=["many", "two"])
def test_discretized_networks_are_networks_of_thresholds(max_weight, rounded_bits, y):
    model = DiscretizedMLPClassifier((12, 9), max_weight=max_weight, max_epochs=3)
    model.fit(DIGITS[:600], y[:600])
    network = read(model, DIGITS[:600], rounded_bits=rounded_bits)
    inside = DIGITS[network.left_at(DIGITS) < 0]
    assert len(inside) > 0.9 * len(DIGITS)
    scores = network.scores(inside)
    wanted = model.decision_function(inside)
    np.testing.assert_allclose(scores.squeeze(), wanted, atol=1e-9)
    # What the circuit does with sums that it rounds.
    u = network.quantizer(inside)
    for layer in network.layers:
        z, r = layer.sums(u), layer.rounded_bits
        assert z.min() >= 0 and z.max() < 2**layer.n_bits
        rounded = (z + (1 << r >> 1)) >> r << r
        assert rounded.max() < 2**layer.n_bits
        np.testing.assert_array_equal((rounded >= layer.cut).astype(int), layer(u))
        u = layer(u)


def test_rows_that_would_wrap_around_are_refused():
    model = DiscretizedMLPClassifier((6,), threshold=None, max_epochs=2)
    rows = np.where(DIGITS > 8, 1.0, -1.0)
    model.fit(rows, LABELS)
    network = read(model, rows[:3])
    bad = np.where(np.random.RandomState(0).rand(300, 64) > 0.5, 1.0, -1.0)
    assert (network.left_at(bad) >= 0).any()
    with pytest.raises(ValueError, match="sums in layer 0"):
        network.check_activations(bad)
    with pytest.raises(ValueError, match="row 1 holds other values than -1 and 1"):
        network.scores(np.vstack([rows[0], rows[0] / 2]))


def test_what_is_no_network_of_thresholds():
    model = LogisticRegression(max_iter=500).fit(IRIS, KINDS)
    for wrong, error in (
        (model, "LogisticRegression is no network of thresholds"),
        (
            make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(IRIS, KINDS),
            "need no scaling",
        ),
    ):
        with pytest.raises(TypeError, match=error):
            read(wrong, IRIS)
    with pytest.raises(ValueError, match="no splits"):
        stump = DecisionTreeClassifier().fit(IRIS[:50], KINDS[:50])
        read(stump, IRIS)


def test_without_the_second_environment_it_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv(_tfhe.VARIABLE, raising=False)
    with pytest.raises(ImportError, match="RandomForestClassifier.*make tfhe"):
        EncryptedClassifier(RandomForestClassifier(2)).fit(IRIS, KINDS)
    with pytest.raises(TypeError, match="RandomForestClassifier cannot be computed"):
        EncryptedClassifier(RandomForestClassifier(2), scheme="ckks").fit(IRIS, KINDS)
    monkeypatch.setenv(_tfhe.VARIABLE, "/nowhere/python")
    with pytest.raises(ImportError, match="no program"):
        EncryptedClassifier(RandomForestClassifier(2)).fit(IRIS, KINDS)
    with pytest.raises(ValueError, match="n_bits"):
        monkeypatch.setenv(_tfhe.VARIABLE, sys.executable)
        EncryptedClassifier(RandomForestClassifier(2), scheme=TFHE(n_bits=0)).fit(
            IRIS, KINDS
        )


# The process --------------------------------------------------------------------------
# It is asked as the worker is, and computes nothing.
STAND_IN = """
import json, os, struct, sys, time
sys.path.insert(0, {folder!r})
from _messages import join, split
while head := sys.stdin.buffer.read(8):
    header, *parts = split(sys.stdin.buffer.read(struct.unpack(">Q", head)[0]))
    request = json.loads(header)
    if request["request"] == "die":
        sys.exit("for a reason")
    if request["request"] == "sleep":
        time.sleep(60)
    told = {{"error": "no"}} if request["request"] == "fail" else {{"pid": os.getpid()}}
    answer = join([json.dumps(told).encode(), *parts])
    sys.stdout.buffer.write(struct.pack(">Q", len(answer)) + answer)
    sys.stdout.buffer.flush()
"""


def test_a_process_is_timed_out_and_started_again(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN.format(folder=os.path.dirname(_tfhe.__file__)))
    monkeypatch.setattr(_tfhe, "_WORKER", script)
    monkeypatch.setenv(_tfhe.VARIABLE, sys.executable)
    worker = _tfhe.Worker(30.0, ("hello", {}, b"opening"))
    large = np.random.RandomState(0).bytes(3_000_000)
    told, *parts = worker.ask("echo", {}, b"", large)
    assert parts == [b"", large] and worker.generation == 1
    with pytest.raises(_tfhe.WorkerError, match="could not fail: no"):
        worker.ask("fail")
    assert worker.ask("echo")[0] == told  # the same process
    with pytest.raises(_tfhe.WorkerError, match="died: for a reason"):
        worker.ask("die")
    assert worker.ask("echo")[0] != told and worker.generation == 2
    worker.timeout = 0.5
    with pytest.raises(TimeoutError, match="did not sleep within 0.5 s"):
        worker.ask("sleep")
    assert not worker.alive
    worker.timeout = 30.0
    worker.ask("echo")
    process = worker._process
    del worker
    assert process.poll() is not None  # it ends with its owner


# With concrete-python -----------------------------------------------------------------
@pytest.fixture(scope="module")
def tree():
    model = DecisionTreeClassifier(max_depth=2, random_state=0).fit(IRIS, KINDS)
    scheme = TFHE(n_bits=4, error_probability=1e-6)
    return EncryptedClassifier(FrozenEstimator(model), scheme=scheme, agreement=0.9).fit(
        IRIS
    )


@pytest.fixture(scope="module")
def halves(tree):
    client, server = tree.client(), tree.server()
    server.register(client.evaluation_keys())
    yield client, server
    client.close()
    server.close()


@needs_tfhe
def test_encrypted_trees_answer_as_the_quantized_ones(tree, halves):
    client, server = halves
    assert tree.agreement_ >= 0.9 and tree.depth_ == 2
    assert tree.cost_["tfhe"]["error_probability"] < 1e-4
    questions = client.encrypt(IRIS[::25])
    labels = [client.decrypt(server.evaluate(question)) for question in questions]
    np.testing.assert_array_equal(np.concatenate(labels), tree.simulate(IRIS[::25]))
    assert max(map(len, questions)) < 5000  # a seed stands for half of a ciphertext


@needs_tfhe
def test_hostile_messages(tree, halves):
    client, server = halves
    (question,) = client.encrypt(IRIS[:1])

    def forged(part):
        payload = b"\0\0\0\1" + struct.pack(">IQ", 1, len(part)) + part
        forged.number += 1
        digest = client.model.digest()
        return seal_message(
            "question", digest, client.key_id, forged.number, payload, client._mac_key
        )

    forged.number = 10**6
    for part in (b"", b"junk" * 300):
        with pytest.raises(MessageError) as caught:
            server.evaluate(forged(part))
        assert caught.value.reason == "corrupted"
    damaged = bytearray(question)
    damaged[200] ^= 1
    with pytest.raises(MessageError, match="authentication"):
        server.evaluate(bytes(damaged))
    answer = server.evaluate(question)
    with pytest.raises(MessageError, match="answered before"):
        server.evaluate(question)
    assert client.decrypt(answer) == tree.simulate(IRIS[:1])
    with pytest.raises(MessageError, match="no question that is open"):
        client.decrypt(answer)


@needs_tfhe
def test_a_server_process_that_dies_is_started_again(tree, halves):
    client, server = halves
    (question,) = client.encrypt(IRIS[60:61])
    os.kill(server._worker._process.pid, signal.SIGKILL)
    server._worker._process.wait()
    assert client.decrypt(server.evaluate(question)) == tree.simulate(IRIS[60:61])


@needs_tfhe
def test_files_and_lost_keys(tree, halves, tmp_path):
    client, server = halves
    server.save(tmp_path / "server")
    client.save(tmp_path / "key")
    again = type(client).load(tmp_path / "key", tree._program)
    other = type(server).load(tmp_path / "server")
    other.register(again.evaluation_keys())
    (question,) = again.encrypt(IRIS[120:121])
    assert again.decrypt(other.evaluate(question)) == tree.simulate(IRIS[120:121])
    # The server's file has no secret, and the client's has.
    secret = split((tmp_path / "key").read_bytes())[-1]
    assert len(secret) > 1000 and secret[:1000] not in (tmp_path / "server").read_bytes()
    again.close()
    with pytest.raises(_tfhe.WorkerError, match="lost"):
        again.encrypt(IRIS[:1])
    other.close()


@needs_tfhe
def test_discretized_digits_are_exact():
    model = DiscretizedMLPClassifier((10,), max_epochs=20, penalty=0.05)
    model.fit(DIGITS, LABELS)
    encrypted = EncryptedClassifier(FrozenEstimator(model), scheme="tfhe").fit(DIGITS)
    assert encrypted.agreement_ == 1.0
    np.testing.assert_array_equal(
        encrypted.predict(DIGITS[:3]), model.predict(DIGITS[:3])
    )


@needs_tfhe
def test_boosted_trees_of_xgboost():
    model = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1)
    encrypted = EncryptedClassifier(model, scheme=TFHE(n_bits=5), agreement=0.9)
    encrypted.fit(CANCER, BENIGN)
    rows = CANCER[::190]
    np.testing.assert_array_equal(encrypted.predict(rows), encrypted.simulate(rows))
