"""Compiled networks: what they compute, how exact, on how small a ring."""

import numpy as np
import pytest
import torch
from nets import net
from numpy.polynomial import chebyshev
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from sklearn_advsec import differentiable, evasion
from sklearn_advsec.encryption import (
    EncryptedClassifier,
    EncryptedRegressor,
    PolynomialActivation,
)
from sklearn_advsec.encryption._columns import Columns
from sklearn_advsec.encryption._graph import Activation, Affine
from sklearn_advsec.encryption._levels import choose, parameters_for
from sklearn_advsec.encryption._networks import read_module
from sklearn_advsec.encryption._polynomials import FUNCTIONS, composite_sign, plan_of
from sklearn_advsec.encryption._program import compile_graph
from sklearn_advsec.encryption._rows_packed import Rows
from sklearn_advsec.encryption._seal import BUDGET, Arithmetic, Ring, sealapi
from sklearn_advsec.exceptions import BadAnswerError, NoGradientError

pytest.importorskip("tenseal.sealapi")

CANCER, MALIGNANT = load_breast_cancer(return_X_y=True)
DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS / 16


def run(packed, T):
    """Encrypt rows, evaluate, decrypt."""
    seal, ring = sealapi(), Ring(packed.parameters)
    generator = seal.KeyGenerator(ring.context)
    relin, galois = seal.RelinKeys(), seal.GaloisKeys()
    generator.create_relin_keys(relin)
    if packed.steps:
        generator.create_galois_keys(ring.rotations(packed.steps), galois)
    arithmetic = Arithmetic(ring, relin, galois)
    encryptor = seal.Encryptor(ring.context, generator.secret_key())
    decryptor = seal.Decryptor(ring.context, generator.secret_key())
    ciphertexts = []
    for values in packed.pack(T):
        plain = arithmetic.plain(values, ring.parameters.depth, ring.scale)
        ciphertexts.append(seal.Ciphertext())
        encryptor.encrypt_symmetric(plain, ciphertexts[-1])
    arrays = []
    for answer in packed.evaluate(ciphertexts, arithmetic):
        plain = seal.Plaintext()
        decryptor.decrypt(answer, plain)
        arrays.append(np.array(ring.encoder.decode_double(plain)))
    return packed.unpack(arrays, len(T)), arithmetic.counts


# Polynomials --------------------------------------------------------------------------
@pytest.mark.parametrize("degree", [2, 3, 4, 5, 9, 16, 27])
@pytest.mark.parametrize("function", ["relu", "tanh", "silu"])
def test_plans_compute_the_least_squares_polynomial(function, degree):
    z = np.random.RandomState(0).randn(2000) * 2 + 0.3
    polynomial = PolynomialActivation(function, degree=degree).fit(z)
    plan = polynomial.plan()
    values = plan.factor * plan.core(plan.scale * z + plan.shift) + plan.constant
    np.testing.assert_allclose(values, polynomial(z), atol=1e-9)
    if degree > 5:
        return
    # The fit is that of numpy, where no weight is on the ends.
    plain = chebyshev.Chebyshev.fit(z, FUNCTIONS[function](z), degree)
    ours = np.mean((polynomial(z) - FUNCTIONS[function](z)) ** 2)
    best = np.mean((plain(z) - FUNCTIONS[function](z)) ** 2)
    assert best <= ours <= 1.6 * best + 1e-12


def test_depth_is_the_least_for_powers():
    coef = np.random.RandomState(0).randn(28)
    depths = {n: plan_of(coef[: n + 1], -1, 1).depth for n in (2, 4, 7, 9, 15, 27)}
    assert depths == {2: 1, 4: 2, 7: 4, 9: 4, 15: 5, 27: 5}


def test_composed_sign_takes_12_levels_and_is_a_sign():
    t = np.linspace(0.01, 1, 10_000)
    value = t
    for coef in composite_sign():
        value = chebyshev.chebval(value, coef)
    assert np.abs(value - 1).max() < 5e-3
    assert PolynomialActivation("sign").fit([-3.0, 2.0]).depth_ == 12


def test_square_is_exact():
    square = PolynomialActivation("square").fit([-1.0, 3.0])
    z = np.linspace(-3, 3, 50)
    np.testing.assert_allclose(square(z), z**2, atol=1e-12)
    assert square.depth_ == 1


# Packings -----------------------------------------------------------------------------
@pytest.mark.parametrize("packing", [Columns, Rows])
@pytest.mark.parametrize("widths", [(1, 1), (30, 1), (40, 7, 2), (3, 6, 5, 4)])
@pytest.mark.parametrize("function", ["square", "relu"])
def test_encrypted_scores_are_those_of_the_network(packing, widths, function):
    rng = np.random.RandomState(0)
    layers = []
    for n, m in zip(widths, widths[1:], strict=False):
        layers += [Affine(rng.randn(m, n), rng.randn(m)), Activation(function)]
    layers.pop()
    X = rng.uniform(-2, 5, (60, widths[0]))

    def activation(function):
        return PolynomialActivation(function, degree=3)

    program, _ = compile_graph(layers, X, activation)
    largest = np.abs(program.scores(X)).max()
    packed, error, counts = choose(program, packing, 1e-2 * largest)
    rows = 1 if packing is Rows else len(X)
    scores, made = run(packed, program.encoded(X[:rows]))
    wanted = program.scores(X[:rows])
    assert np.abs(scores * program.bound - wanted).max() <= error
    assert np.abs(wanted).max() <= program.bound
    # What is said to be needed is what is done; weights that round to 0 are left out.
    assert made["products"] == counts["products"]
    assert made["rotations"] <= counts["rotations"]
    assert made["plain_products"] <= counts["plain_products"]


def test_no_row_is_further_off_than_the_bound():
    """A search for bad rows: corners of the range, where errors are largest."""
    rng = np.random.RandomState(1)
    layers = [
        Affine(rng.randn(6, 8), rng.randn(6)),
        Activation("square"),
        Affine(rng.randn(3, 6), rng.randn(3)),
    ]
    corners = np.where(rng.rand(400, 8) > 0.5, 1.0, -1.0)
    program, _ = compile_graph(layers, corners, PolynomialActivation)
    packed, error, _ = choose(program, Columns, 1e-2)
    inside = [row for row in corners]
    scores, _ = run(packed, program.encoded(np.array(inside)))
    off = np.abs(scores * program.bound - program.scores(np.array(inside))).max()
    assert 0 < off <= error


def test_zero_weights_and_constant_outputs():
    layers = [Affine(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([2.0, 0.0]))]
    X = np.random.RandomState(0).rand(20, 2)
    program, _ = compile_graph(layers, X, PolynomialActivation)
    for packing, n in ((Columns, 20), (Rows, 1)):
        packed, error, _ = choose(program, packing, 1e-3)
        scores, _ = run(packed, program.encoded(X[:n]))
        wanted = np.c_[np.full(n, 2.0), X[:n, 0]]
        np.testing.assert_allclose(scores * program.bound, wanted, atol=error)


def test_budgets_are_filled_and_never_exceeded():
    for degree, bits in BUDGET.items():
        for depth in range(1, 30):
            parameters = parameters_for(depth, degree, special_bits=7)
            if parameters is None:
                assert bits < 22 * (depth + 2) + 13 + (depth + 2)
                continue
            assert sum(parameters.bits) <= bits
            assert len(parameters.bits) == depth + 2
            assert max(parameters.bits) <= 60


# Estimators ---------------------------------------------------------------------------
CLASSIFIERS = [
    LogisticRegression(max_iter=500),
    LinearSVC(),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    LinearDiscriminantAnalysis(),
    make_pipeline(PCA(10, whiten=True), LogisticRegression()),
    make_pipeline(RobustScaler(), SelectKBest(k=12), LinearSVC()),
    make_pipeline(MinMaxScaler(), MaxAbsScaler(), LogisticRegression()),
    MLPClassifier((12,), activation="tanh", max_iter=300, random_state=0),
]


def test_coefficients_that_are_sparse_and_labels_that_are_objects():
    X = StandardScaler().fit_transform(CANCER)
    labels = np.where(MALIGNANT, "benign", "malignant").astype(object)
    model = LogisticRegression(C=0.1).fit(X, labels)
    encrypted = EncryptedClassifier(
        FrozenEstimator(model.sparsify()), packing="columns"
    ).fit(X)
    predicted = encrypted.predict(X[:50])
    assert predicted.dtype == model.predict(X).dtype == object
    np.testing.assert_array_equal(predicted, model.predict(X[:50]))


def test_a_predictor_in_the_middle_is_no_affine_step():
    """Even where the widths fit: two classes and features, and two of each."""
    X, y = CANCER[:, :3], (CANCER[:, 0] > 14).astype(int) + (CANCER[:, 1] > 20)
    steps = make_pipeline(LinearDiscriminantAnalysis(), LinearDiscriminantAnalysis())
    with pytest.raises(TypeError, match=r"step 0 .* is used as a transformer"):
        EncryptedClassifier(steps).fit(X, y)


class Mumbling(LogisticRegression):
    """Answers with what is no label, once."""

    def predict(self, X):
        labels = super().predict(X).astype(float)
        labels[3] = np.nan
        return labels


class Overflowing(Ridge):
    def predict(self, X):
        return np.where(np.arange(len(X)) == 5, np.inf, super().predict(X))


def test_answers_of_the_model_are_checked():
    with pytest.raises(BadAnswerError, match="for row 3"):
        EncryptedClassifier(Mumbling(max_iter=500)).fit(DIGITS, LABELS)
    with pytest.raises(BadAnswerError, match="for row 5"):
        EncryptedRegressor(Overflowing()).fit(DIGITS, LABELS)


@pytest.mark.parametrize("y", ["text", "many"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda m: type(m).__name__)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_labels_are_those_of_the_model(model, y):
    X = StandardScaler().fit_transform(CANCER)[:, :15]
    labels = {
        "text": np.where(MALIGNANT, "benign", "malignant"),
        "many": (X[:, 0] > 0).astype(int) + 2 * MALIGNANT,
    }[y]
    model = clone(model).fit(X, labels)
    encrypted = EncryptedClassifier(FrozenEstimator(model), agreement=0.9).fit(X)
    assert encrypted.agreement_ >= 0.9
    predicted = encrypted.predict(X[:3])
    np.testing.assert_array_equal(predicted, encrypted.simulate(X[:3]))
    simulated = encrypted.simulate(X)
    assert np.mean(simulated == model.predict(X)) >= 0.9
    if not encrypted.polynomials_:  # nothing is approximated
        np.testing.assert_array_equal(simulated, model.predict(X))


@pytest.mark.long
@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(StandardScaler(), SGDRegressor(random_state=0)),
        make_pipeline(
            StandardScaler(),
            MLPRegressor(
                hidden_layer_sizes=(8,),
                activation="tanh",
                solver="lbfgs",
                alpha=10,
                random_state=0,
            ),
        ),
    ],
    ids=["linear", "ridge", "sgd", "perceptron"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_regressors(model):
    X, y = load_diabetes(return_X_y=True)
    encrypted = EncryptedRegressor(model, agreement=0.9).fit(X, y)
    error = np.abs(encrypted.predict(X[:30]) - encrypted.simulate(X[:30])).max()
    # Besides the noise, predictions are rounded to what the precision is worth.
    decimal = 10.0 ** np.ceil(np.log10(max(encrypted.precision_.values())))
    assert error <= max(encrypted.precision_.values()) + decimal / 2
    assert encrypted.agreement_ >= 0.9


class Convolutional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 2, 3, stride=2)
        self.norm = torch.nn.BatchNorm2d(2)
        self.pool = torch.nn.AvgPool2d(2, stride=1)
        self.drop = torch.nn.Dropout(0.1)
        self.last = torch.nn.Linear(8, 10)

    def forward(self, x):
        x = self.norm(self.first(x)) ** 2
        return self.last(self.drop(torch.flatten(self.pool(x), 1)))


@pytest.mark.long
def test_convolutional_network_of_skorch():
    images = DIGITS.reshape(-1, 1, 8, 8).astype(np.float32)
    model = net(Convolutional, max_epochs=10, lr=0.01).fit(images, LABELS)
    encrypted = EncryptedClassifier(FrozenEstimator(model), packing="columns")
    encrypted.fit(images)
    assert encrypted.agreement_ == 1.0  # squares are exact
    rows = images[:100]
    np.testing.assert_array_equal(encrypted.predict(rows), model.predict(rows))
    assert encrypted.depth_ == 3


def test_both_packings_and_the_cheaper():
    encrypted = EncryptedClassifier(LogisticRegression(max_iter=500)).fit(DIGITS, LABELS)
    assert set(encrypted.parameters_) == {"columns", "rows"}
    assert encrypted._cheaper(1) == "rows" and encrypted._cheaper(2000) == "columns"
    plain = encrypted.estimator_.predict(DIGITS[:40])
    np.testing.assert_array_equal(encrypted.predict(DIGITS[:40]), plain)
    np.testing.assert_array_equal(encrypted.predict(DIGITS[:2]), plain[:2])


def test_search_frames_and_copies():
    from pickle import dumps, loads

    import pandas as pd

    frame = pd.DataFrame(CANCER[:, :6], columns=list("abcdef"))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    grid = {"estimator__logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(EncryptedClassifier(model, packing="columns"), grid, cv=2)
    search.fit(frame[:200], MALIGNANT[:200])
    best = loads(dumps(search.best_estimator_))
    assert list(best.feature_names_in_) == list("abcdef")
    rows = frame[:200]
    np.testing.assert_array_equal(best.predict(rows), best.estimator_.predict(rows))
    frame["text"] = "x"
    with pytest.raises(TypeError, match="column 'text' holds no numbers"):
        clone(best).fit(frame, MALIGNANT)


def test_scores_are_rounded_and_only_on_request():
    model = make_pipeline(StandardScaler(), LogisticRegression())
    encrypted = EncryptedClassifier(model).fit(CANCER, MALIGNANT)
    assert not hasattr(encrypted, "predict_proba")
    assert not hasattr(encrypted, "decision_function")
    encrypted.set_params(decimals=3)
    proba = encrypted.predict_proba(CANCER[:20])
    exact = encrypted.estimator_.predict_proba(CANCER[:20])
    np.testing.assert_allclose(proba, exact, atol=2e-3)
    np.testing.assert_array_equal(proba, proba.round(3))
    scores = encrypted.decision_function(CANCER[:20])
    exact = encrypted.estimator_.decision_function(CANCER[:20])
    np.testing.assert_allclose(scores, exact, atol=2e-3)


def test_no_gradient_passes_but_labels_do():
    model = LogisticRegression(max_iter=500)
    encrypted = EncryptedClassifier(model).fit(CANCER[:, :3], MALIGNANT)
    with pytest.raises(NoGradientError, match="ciphertexts"):
        differentiable.view(encrypted)
    attack = evasion.HopSkipJump(
        FrozenEstimator(encrypted), max_queries=15, n_evaluations=5, random_state=0
    )
    result = attack.fit(CANCER[:, :3]).run(CANCER[:1, :3])
    assert result.n_queries.max() <= 15


# Errors -------------------------------------------------------------------------------
def test_errors_say_what_to_do():
    with pytest.raises(TypeError, match="RandomForestClassifier cannot be computed"):
        forest = RandomForestClassifier(2)
        EncryptedClassifier(forest, scheme="ckks").fit(CANCER, MALIGNANT)
    steps = make_pipeline(StandardScaler(), PolynomialFeatures(), LogisticRegression())
    with pytest.raises(TypeError, match=r"step 1 \('polynomialfeatures'\)"):
        EncryptedClassifier(steps).fit(CANCER[:, :2], MALIGNANT)
    with pytest.raises(TypeError, match="clip=False"):
        clipped = make_pipeline(MinMaxScaler(clip=True), LogisticRegression())
        EncryptedClassifier(clipped).fit(CANCER, MALIGNANT)
    with pytest.raises(ValueError, match="security"):
        EncryptedClassifier(LogisticRegression(), security=80).fit(CANCER, MALIGNANT)
    with pytest.raises(TypeError, match="no classifier"):
        EncryptedClassifier(Ridge()).fit(CANCER, MALIGNANT)
    with pytest.raises(TypeError, match="no regressor"):
        EncryptedRegressor(RidgeClassifier()).fit(CANCER, MALIGNANT)
    with pytest.raises(TypeError, match="several outputs"):
        EncryptedRegressor(FrozenEstimator(Ridge().fit(CANCER, CANCER[:, :2]))).fit(
            CANCER
        )
    with pytest.raises(ValueError, match="requires y"):
        EncryptedClassifier(LogisticRegression()).fit(CANCER)
    model = LogisticRegression(max_iter=500)
    encrypted = EncryptedClassifier(model, packing="columns").fit(DIGITS, LABELS)
    with pytest.raises(ValueError, match="row 1 is outside of the range.*feature 5"):
        rows = DIGITS[:2].copy()
        rows[1, 5] = 99
        encrypted.predict(rows)
    with pytest.raises(ValueError, match="NaN"):
        encrypted.predict(np.full((1, 64), np.nan))
    with pytest.raises(ValueError, match="'rows' was not compiled"):
        encrypted.client("rows")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_networks_that_no_ring_carries():
    deep = MLPClassifier((5,) * 8, max_iter=5, random_state=0)
    deep.fit(DIGITS, LABELS)
    frozen = FrozenEstimator(deep)
    with pytest.raises(ValueError, match="products in a row.*bootstrapping"):
        EncryptedClassifier(frozen, activation=27, agreement=0.0).fit(DIGITS)
    rough = MLPClassifier((8, 8, 8), max_iter=60, random_state=0).fit(DIGITS, LABELS)
    with pytest.raises(ValueError, match="agreement=1 is not reached|cannot be promised"):
        EncryptedClassifier(FrozenEstimator(rough), activation=2, agreement=1).fit(DIGITS)
    shallow = FrozenEstimator(LogisticRegression(max_iter=300).fit(DIGITS, LABELS))
    with pytest.raises(ValueError, match="cannot be promised for 1 products"):
        EncryptedClassifier(shallow, precision=1e-12).fit(DIGITS)


class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.first(x) + self.first(x)


class Small(torch.nn.Module):
    """A net whose parts the tests change."""

    def __init__(self, middle):
        super().__init__()
        self.first, self.last = torch.nn.Linear(64, 6), torch.nn.Linear(6, 10)
        self.middle = middle

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def computed(function):
    """Make a module of a function."""

    class Computed(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return Computed()


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: torch.pow(x, exponent=2),
        lambda x: (x**2).view(x.size(0), -1),
        lambda x: (x * x).reshape(x.shape[0], x.shape[1]),
        lambda x: torch.square(x).view(x.size(dim=0), 2, 3).flatten(1),
    ],
)
def test_ways_to_write_squares_and_shapes(middle):
    torch.manual_seed(0)
    module = Small(computed(middle)).eval()
    layers, _, shape = read_module(module, (64,), "")
    assert shape == (10,)
    x = DIGITS[:20]
    for layer in layers:
        x = layer(x) if isinstance(layer, Affine) else FUNCTIONS[layer.function](x)
    wanted = module(torch.tensor(DIGITS[:20], dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(x, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "middle, error",
    [
        (torch.nn.BatchNorm1d(6, track_running_stats=False), "BatchNorm1d|one by one"),
        (torch.nn.Flatten(0), "one by one|mixes rows"),
        (computed(lambda x: torch.softmax(x, 0)), "over the classes"),
        (computed(lambda x: x**3), "pow cannot|pow> cannot"),
        (computed(lambda x: x * x.size(1)), "mul"),
        (computed(torch.flatten), "mixes rows"),
    ],
)
def test_parts_that_are_not_affine_are_named(middle, error):
    with pytest.raises(TypeError, match=f"operation .*({error})"):
        read_module(Small(middle).eval(), (64,), "")


class Pooling(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(64, 10), torch.nn.LeakyReLU())


@pytest.mark.parametrize(
    "module, error", [(Branching, "branches"), (Pooling, "LeakyReLU cannot be computed")]
)
def test_networks_that_cannot_be_read(module, error):
    model = net(module, max_epochs=1).fit(DIGITS.astype(np.float32), LABELS)
    with pytest.raises(TypeError, match=error):
        EncryptedClassifier(FrozenEstimator(model)).fit(DIGITS)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_rows_that_leave_a_polynomial_are_not_sent():
    model = MLPClassifier((4,), max_iter=300, random_state=0).fit(DIGITS, LABELS)
    encrypted = EncryptedClassifier(FrozenEstimator(model), agreement=0.0, activation=2)
    encrypted.fit(DIGITS)
    client = encrypted.client()
    low, high = encrypted._program.low, encrypted._program.high
    rows = np.random.RandomState(0).choice([0, 1], (200, 64)) * (high - low) + low
    refused = 0
    for row in rows:
        try:
            client.encrypt(row[None])
        except ValueError as error:
            refused += "leaves the range of activation 0" in str(error)
    assert refused > 30
