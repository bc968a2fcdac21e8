"""Client and server: what each holds, and what happens to messages on the way."""

import json
import pickle
import struct

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_advsec.encryption import (
    Client,
    EncryptedClassifier,
    HomomorphicArray,
    HomomorphicClient,
    MessageError,
    Server,
)
from sklearn_advsec.encryption._halves import PublicModel
from sklearn_advsec.encryption._messages import OVERHEAD, join, seal_message, split

seal = pytest.importorskip("tenseal.sealapi")

X, Y = load_breast_cancer(return_X_y=True)
X = X[:, :6]


@pytest.fixture(scope="module")
def model():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    return EncryptedClassifier(pipeline, packing="columns").fit(X, Y)


@pytest.fixture(scope="module")
def pair(model):
    client, server = model.client(), model.server()
    server.register(client.evaluation_keys())
    return client, server


def walk(thing, seen):
    """Yield all that can be reached from an object."""
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type(None))):
        return
    seen.add(id(thing))
    yield thing
    parts = []
    if isinstance(thing, dict):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set)):
        parts = list(thing)
    elif hasattr(thing, "__dict__"):
        parts = list(vars(thing).values())
    for part in parts:
        yield from walk(part, seen)


def test_the_server_holds_no_secret_key(model, pair):
    client, server = pair
    secret = (seal.SecretKey, seal.Decryptor, seal.KeyGenerator)
    assert any(isinstance(part, secret) for part in walk(client, set()))
    reached = list(walk(server, set()))
    assert any(isinstance(part, seal.RelinKeys) for part in reached)
    assert not any(isinstance(part, secret) for part in reached)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(client)
    # Neither the estimator nor a server carries keys along.
    assert not any(
        isinstance(part, (*secret, seal.RelinKeys, Client)) for part in walk(model, set())
    )
    assert pickle.loads(pickle.dumps(server))._sessions == {}


@pytest.mark.parametrize("packing", ["columns", "rows"])
def test_halves_agree_with_the_model_also_from_files(tmp_path, packing):
    network = MLPClassifier(
        (5,), activation="tanh", alpha=1, max_iter=2000, random_state=0
    )
    fitted = EncryptedClassifier(
        make_pipeline(StandardScaler(), network), packing=packing, agreement=0.9
    ).fit(X, Y)
    client = fitted.client()
    fitted.server().save(tmp_path / "server.npz")
    client.save(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    server = Server.load(tmp_path / "server.npz")
    server.register(client.evaluation_keys())
    again = Client.load(tmp_path / "key")
    assert again.key_id == client.key_id
    for sender in (client, again):
        questions = sender.encrypt(X[:2])
        answers = [server.evaluate(question) for question in questions]
        labels = np.concatenate([sender.decrypt(answer) for answer in answers])
        np.testing.assert_array_equal(labels, fitted.simulate(X[:2]))


@pytest.mark.parametrize("n", [800, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("whose", ["question", "answer"])
def test_damaged_messages_are_each_refused(model, pair, whose, n):
    """Bits flipped, ends cut, parts of others: an error, never a label."""
    client, server = pair
    rng = np.random.RandomState(0)
    (question,) = client.encrypt(X[:3])
    (another,) = client.encrypt(X[3:6])
    whole, read = question, server.evaluate
    if whose == "answer":
        whole, another = server.evaluate(question), server.evaluate(another)
        read = client.decrypt
    stranger = model.client()
    (foreign,) = stranger.encrypt(X[:3])
    old = read(another)  # which is a replay from now on
    reasons = {}
    for trial in range(n):
        message = bytearray(whole)
        kind = trial % 6
        if kind == 0:
            at = rng.randint(len(message)) if trial % 8 else rng.randint(OVERHEAD)
            message[at] ^= 1 << rng.randint(8)
        elif kind == 1:
            del message[rng.randint(len(message)) :]
        elif kind == 2:
            message += rng.bytes(rng.randint(1, 50))
        elif kind == 3:
            a, b = sorted(rng.randint(len(message), size=2))
            message[a:b] = message[a:b][::-1]
        elif kind == 4:  # the beginning of one, and the end of another
            a = rng.randint(40, len(message))
            message[a:] = another[a:]
        else:
            message = (another, foreign, rng.bytes(rng.randint(200)))[trial // 6 % 3]
        if message == whole:
            continue
        with pytest.raises(MessageError) as caught:
            read(bytes(message))
        reasons[caught.value.reason] = reasons.get(caught.value.reason, 0) + 1
    assert set(reasons) >= {"corrupted", "truncated", "replayed"}
    assert sum(reasons.values()) > 0.98 * n
    # It was not the message's fault.
    assert len(client.decrypt(read(whole) if whose == "question" else whole)) == 3
    assert old is not None


def reason_of(call):
    with pytest.raises(MessageError) as caught:
        call()
    return caught.value.reason


def test_every_kind_of_wrong_message_has_its_own_error(model, pair):
    client, server = pair
    (question,) = client.encrypt(X[:2])
    answer = server.evaluate(question)
    assert reason_of(lambda: server.evaluate(question)) == "replayed"
    assert reason_of(lambda: server.evaluate(b"")) == "truncated"
    assert reason_of(lambda: server.evaluate(b"junk" * 250)) == "foreign"
    assert reason_of(lambda: server.evaluate(answer)) == "kind"
    other = model.client()
    (foreign,) = other.encrypt(X[:2])
    assert reason_of(lambda: server.evaluate(foreign)) == "unknown_key"
    assert reason_of(lambda: other.decrypt(answer)) == "unknown_key"
    version = bytearray(question)
    version[5] = 9
    assert reason_of(lambda: server.evaluate(bytes(version))) == "version"
    wider = EncryptedClassifier(LogisticRegression(max_iter=5000), packing="rows")
    (stranger,) = wider.fit(X, Y).client().encrypt(X[:1])
    assert reason_of(lambda: server.evaluate(stranger)) == "parameters"
    client.decrypt(answer)
    assert reason_of(lambda: client.decrypt(answer)) == "replayed"

    # Whoever has the key of the authentication can still not send what is no ciphertext.
    def forged(payload):
        return seal_message(
            "question",
            model.parameters_["columns"].digest(),
            client.key_id,
            10**6,
            payload,
            client._mac_key,
        )

    for part in (b"", b"junk" * 250, b"\0" * 1000):
        message = forged(b"\0\0\0\1" + join([part] * 6))
        assert reason_of(lambda message=message: server.evaluate(message)) == "corrupted"
    few = forged(b"\0\0\0\1" + join([b"x"] * 5))
    assert reason_of(lambda: server.evaluate(few)) == "corrupted"


def test_answers_of_a_wrong_key_are_noticed(model):
    """Keys of another client under one's own name: the values are beyond all scores."""
    client, other, server = model.client(), model.client(), model.server()
    other.key_id, other._mac_key = client.key_id, client._mac_key
    server.register(client.evaluation_keys())
    (question,) = client.encrypt(X[:50])
    (disguised,) = other.encrypt(X[:50])
    answer = server.evaluate(disguised)
    client._asked[1] = 50
    assert reason_of(lambda: client.decrypt(answer)) == "overflow"
    del question


def test_nobody_takes_the_place_of_a_client(model):
    client, thief, server = model.client(), model.client(), model.server()
    keys = client.evaluation_keys()
    server.register(keys)
    (question,) = client.encrypt(X[:4])
    answer = server.evaluate(question)
    thief.key_id = client.key_id
    assert reason_of(lambda: server.register(thief.evaluation_keys())) == "taken"
    server.register(keys)  # again, which makes no question new
    assert reason_of(lambda: server.evaluate(question)) == "replayed"
    assert len(client.decrypt(answer)) == 4


def test_what_a_server_says_of_its_model_is_looked_at(model):
    def told(**changes):
        values = json.loads(model._public("columns").to_json())
        for name, value in changes.items():
            part = values["parameters"] if name in values["parameters"] else values
            part[name] = value
        return json.dumps(values)

    assert PublicModel.from_json(told()).n_features == 6
    for text in (
        "",
        "<html>",
        "[]",
        "null",
        "{}",
        told(degree=1024),
        told(degree="4096"),
        told(bits=[60] * 9),
        told(bits=None),
        told(scale_bits=500),
        told(scheme="BFV"),
        told(packing="heap"),
        told(low=[0.0]),
        told(low=[1e9] * 6),
        told(high=[float("nan")] * 6),
        told(high=[float("inf")] * 6),
        told(classes=["a"]),
        told(classes=list("abc")),
        told(n_scores=0),
        told(bound=-1.0),
        told(precision="x"),
        told(link="sorcery"),
        told(steps=[10**9]),
        told(packing="rows", source=[0], outputs=[0]),
        told(more=1),
    ):
        assert reason_of(lambda text=text: PublicModel.from_json(text)) == "model"


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"junk" * 100, join([b"a"] * 5)):
        path.write_bytes(content)
        for half in (Server, Client):
            with pytest.raises((ValueError, EOFError)):
                half.load(path)
    with open(path, "wb") as file:
        np.savez(file, model=np.zeros(3))
    with pytest.raises(ValueError, match="no file of Server.save"):
        Server.load(path)


def test_few_clients_are_kept(model):
    server = model.server(max_clients=2)
    clients = [model.client() for _ in range(3)]
    for client in clients:
        server.register(client.evaluation_keys())
    (question,) = clients[0].encrypt(X[:1])
    assert reason_of(lambda: server.evaluate(question)) == "unknown_key"
    for client in clients[1:]:
        (question,) = client.encrypt(X[:1])
        client.decrypt(server.evaluate(question))


def test_parts_are_split_as_they_were_joined():
    parts = [b"", b"a", b"bc" * 100]
    assert split(join(parts)) == parts
    for damaged in (b"", join(parts)[:-1], join(parts) + b"x", b"\xff" * 12):
        assert reason_of(lambda damaged=damaged: split(damaged)) == "corrupted"


# Arrays -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def client():
    return HomomorphicClient()


OPERATIONS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "multiply and add": lambda x, y: x * y + x,
    "number": lambda x, y: 5 - 3 * x + 2,
    "vector": lambda x, y: x * np.arange(1, 41) - np.arange(40),
    "zero": lambda x, y: x * 0,
    "dot": lambda x, y: x @ y,
    "sum": lambda x, y: x.sum(),
    "nothing": lambda x, y: x - x,
    "a number that is left": lambda x, y: (x + 2) - x,
    "the same of a product": lambda x, y: (x * y + 3) - x * y,
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", OPERATIONS)
def test_homomorphism(client, name, exact):
    rng = np.random.RandomState(0)
    x, y = rng.uniform(-100, 100, (2, 40))
    if exact:
        x, y = x.astype(int), y.astype(int)
    result = OPERATIONS[name](
        HomomorphicArray(x, client, exact), HomomorphicArray(y, client.public(), exact)
    )
    off = np.abs(client.decrypt(result) - OPERATIONS[name](x, y)).max()
    assert off <= result.error_bound
    if exact:
        assert off == result.error_bound == 0
    copy = HomomorphicArray.from_bytes(result.to_bytes(), client, exact)
    np.testing.assert_array_equal(client.decrypt(copy), client.decrypt(result))


def test_factors_that_are_nearly_0(client):
    x = HomomorphicArray([100.0, -50.0], client)
    for factor in (1e-30, 1e-12, np.array([1e-30, 2.0])):
        result = x * factor
        off = np.abs(client.decrypt(result) - np.array([100.0, -50.0]) * factor).max()
        assert off <= result.error_bound < 1e-2


def test_arrays_that_are_not_what_they_say(client):
    x = HomomorphicArray([1.0, 2.0], client)
    digest, key = x._ring.parameters.digest(), x._damage_key()
    ciphertext = x._ring.to_bytes(x.ciphertext)

    def told(size=2, level=x._bound.level, scale=x._bound.scale, value=1.0, error=1.0):
        head = struct.pack(">qqqddd", 1, size, level, scale, value, error)
        payload = head + ciphertext
        return seal_message("answer", digest, client.key_id, 0, payload, key)

    assert len(HomomorphicArray.from_bytes(told(), client)) == 2
    for wrong in (
        seal_message("answer", digest, client.key_id, 0, b"", key),
        seal_message("answer", digest, client.key_id, 0, b"x" * 500, key),
        told(size=10**6),
        told(size=-1),
        told(level=9),
        told(scale=1.0),
        told(error=float("nan")),
        told(value=-1.0),
    ):
        assert (
            reason_of(lambda wrong=wrong: HomomorphicArray.from_bytes(wrong, client))
            == "corrupted"
        )


def test_operands_stay_as_they_are(client):
    x = HomomorphicArray([1.5, -2.0], client)
    before = x.to_bytes()
    x * x, x + x, x * 3, x.sum(), -x
    assert x.to_bytes() == before


def test_bad_rows_are_not_further_off_than_the_bound(client):
    rng = np.random.RandomState(0)
    worst = 0.0
    for _ in range(20):
        x = rng.choice([-100.0, 100.0], 4096)
        array = HomomorphicArray(x, client)
        product = array * array
        off = np.abs(client.decrypt(product) - x * x).max()
        worst = max(worst, off / product.error_bound)
    assert 0 < worst <= 1


def test_overflow_and_depth_are_errors(client):
    x = HomomorphicArray([100, 99], client, exact=True)
    with pytest.raises(OverflowError, match="exact integers are known up to"):
        client.decrypt(x * 10**4 * 10**4)
    z = HomomorphicArray([1.0], client)
    small = HomomorphicArray([1.0], HomomorphicClient(depth=1, max_value=1))
    with pytest.raises(ValueError, match="no products left"):
        small * small * small
    with pytest.raises(OverflowError, match="no bits left"):
        z * 1e30
    with pytest.raises(ValueError, match="max_value=100"):
        HomomorphicArray([101.0], client)
    with pytest.raises(TypeError, match="integers"):
        HomomorphicArray([1.0], client, exact=True)
    with pytest.raises(ValueError, match="dimension"):
        HomomorphicArray(np.zeros((2, 2)), client)
    with pytest.raises(ValueError, match="Shapes differ"):
        z + HomomorphicArray([1.0, 2.0], client)
    with pytest.raises(ValueError, match="exact"):
        z + HomomorphicArray([1], client, exact=True)
    with pytest.raises(ValueError, match="another client"):
        HomomorphicClient(depth=1).decrypt(z)
    damaged = bytearray(z.to_bytes())
    damaged[-100] ^= 1
    assert reason_of(lambda: HomomorphicArray.from_bytes(bytes(damaged), client)) == (
        "corrupted"
    )
