"""Classifiers and regressors that predict on encrypted rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    RegressorMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from .. import differentiable
from .._estimators import RoutesToEstimator, as_nets_take_them, name_of, unwrap
from .._progress import ReportsProgress, with_callbacks
from .._rows import is_dataframe
from .._sklearn import (
    BaseEstimator,
    Interval,
    Options,
    StrOptions,
    _check_y,
    fit_context,
    validate_data,
)
from ..exceptions import NoGradientError
from ..trees import is_tree_ensemble
from ..victim import AnswerCheck, ask_labels, fit_victim
from ..victim._fitting import CLASSIFIER
from ._graph import Activation, graph
from ._halves import (
    PACKINGS,
    Client,
    PublicModel,
    Server,
    check_range,
    positions_of,
    probabilities_of,
)
from ._levels import choose
from ._polynomials import PolynomialActivation
from ._program import Program, compile_graph
from ._seal import sealapi
from ._tfhe import (
    TFHE,
    Circuit,
    TFHEClient,
    TFHEServer,
    compile_network,
    python_of_tfhe,
    simulated_sums,
)
from ._thresholds import threshold_network

# Degrees that "auto" tries for activations, until labels agree.
_DEGREES = (2, 3, 4, 5, 7, 10, 15, 27)
# Milliseconds on rings of degree 8192 with four primes: to choose between packings only.
_MILLISECONDS = {"plain_products": 0.3, "products": 5.0, "rotations": 4.5}


@dataclass
class Compiled:
    """A program on its ring.

    Attributes
    ----------
    packed : Columns or Rows
        How it is evaluated.
    precision : float
        Bound of the error of a score.
    cost : dict
        Products with plaintexts, products, rotations, and bytes of keys and messages.
    """

    packed: object
    precision: float
    cost: dict


def _estimator_has(method):
    def check(self):
        getattr(unwrap(getattr(self, "estimator_", self.estimator)), method)
        return True

    return check


def _hands_out_scores(self):
    if self.decimals is None:
        raise AttributeError(
            f"{type(self).__name__} hands out labels only: decrypted scores of CKKS can "
            "give the secret key away. Set decimals to have them rounded."
        )
    return True


def _hands_out_probabilities(self):
    _hands_out_scores(self)
    return _estimator_has("predict_proba")(self)


class _EncryptedPredictor(
    ReportsProgress, RoutesToEstimator, MetaEstimatorMixin, BaseEstimator
):
    """What the encrypted classifier and the encrypted regressor share."""

    _parameter_constraints = {
        "estimator": CLASSIFIER,
        "packing": [StrOptions({"auto", *PACKINGS})],
        "activation": [
            StrOptions({"auto"}),
            Interval(Integral, 2, 63, closed="both"),
            PolynomialActivation,
        ],
        "precision": [Interval(Real, 0, None, closed="neither")],
        "agreement": [Interval(Real, 0, 1, closed="both")],
        "security": [Options(Integral, {128})],
        "random_state": ["random_state"],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the estimator (a frozen one is kept) and compile it.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Rows such as those that will be encrypted: a fifth of them, drawn at random,
            is left out of the fit of the polynomials, to measure how well these agree.
        y : array-like of shape (n_samples,), default=None
            Their labels or targets. Not needed for an estimator that is frozen.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the estimator only.

        Returns
        -------
        self : object
            The compiled estimator.

        Raises
        ------
        ImportError
            If TenSEAL is not installed.
        TypeError
            If the estimator, or a step of it, cannot be computed under encryption.
        ValueError
            If no ring with 128-bit security carries the network, or polynomials do not
            reach the `agreement` that is asked for.
        """
        scheme = self._tfhe()
        if scheme is None:
            sealapi()
        else:
            python_of_tfhe(name_of(self.estimator))
        given = X
        X = self._check_X(X, reset=True)
        if y is not None:
            y = _check_y(y, multi_output=False, y_numeric=not is_classifier(self))
            check_consistent_length(X, y)
            if is_classifier(self):
                check_classification_targets(y)
        rows = given if is_dataframe(given) else as_nets_take_them(X, self._inner())
        self.estimator_ = fit_victim(
            self.estimator, rows, y, owner=self, sample_weight=sample_weight
        )
        self._check_kind()
        self.n_iter_ = 1
        self._row_shape = X.shape[1:]
        rng = check_random_state(self.random_state)
        order = rng.permutation(len(X))
        n_held = len(X) // 5
        held, kept = order[:n_held], order[n_held:]
        flat = X.reshape(len(X), -1)
        with self._reported(X, y):
            if scheme is None:
                layers = graph(self.estimator_, self._row_shape)
                plain = self._plain_predictions(rows)
                self._fit_polynomials(layers, flat, kept, held, plain)
            else:
                plain = self._plain_predictions(rows)
                self._fit_circuit(scheme, flat, kept, held, plain)
        self.depth_ = self._program.depth
        return self

    def _n_tasks(self):
        if self._tfhe() is not None:
            return 0  # the compiler of circuits does not say how far it is
        degrees = _DEGREES if self.activation == "auto" else [self.activation]
        return len(degrees) + len(self._packings())

    def _packings(self):
        return list(PACKINGS) if self.packing == "auto" else [self.packing]

    def _tfhe(self):
        """Return the parameters of scheme TFHE; None where it is CKKS."""
        return None

    def _fit_polynomials(self, layers, X, kept, held, plain):
        """Compile to sums, products and polynomials: scheme CKKS."""
        self._link = layers.link
        self._compile(layers.layers, X, kept, held, plain)
        self._largest_score = float(np.abs(self._program.scores(X[kept])).max()) or 1.0
        self._compiled, refused = {}, None
        for name in self._tasks(self._packings(), "packing", stops=False):
            try:
                self._compiled[name] = self._packed(PACKINGS[name])
            except ValueError as error:
                refused = error
        if not self._compiled:
            raise refused
        self.parameters_ = {n: c.packed.parameters for n, c in self._compiled.items()}
        self.precision_ = {n: c.precision for n, c in self._compiled.items()}
        self.cost_ = {n: c.cost for n, c in self._compiled.items()}

    def _inner(self):
        return unwrap(self.estimator)

    def _check_X(self, X, *, reset):
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            wrong = [c for c in X.columns if X[c].dtype.kind not in "biuf"]
            if wrong:
                raise TypeError(
                    f"X: column {wrong[0]!r} holds no numbers, and only numbers can be "
                    "encrypted. Encode it before, on the client's side."
                )
            return check_array(X, dtype=np.float64)
        return validate_data(self, X, reset=reset, dtype=np.float64, allow_nd=True)

    def _compile(self, layers, X, kept, held, plain):
        """Compile with the smallest degree whose labels agree on the rows held out."""
        curved = any(
            isinstance(layer, Activation)
            and layer.polynomial is None
            and layer.function not in ("square", "sign")
            for layer in layers
        )
        choices = [self.activation]
        if isinstance(self.activation, str):
            choices = _DEGREES if curved else (2,)
        best, tried = None, []
        # Until one agrees.
        choices = takewhile(
            lambda choice: best is None or best[2][0] < self.agreement, choices
        )
        for choice in self._tasks(choices, "degree", stops=False):

            def make(function, choice=choice):
                if isinstance(choice, PolynomialActivation):
                    return clone(choice).set_params(function=function)
                return PolynomialActivation(function, degree=choice)

            with np.errstate(over="ignore", invalid="ignore"):
                program, polynomials = compile_graph(layers, X[kept], make)
                measured = self._agreement(program, X, held if len(held) else kept, plain)
            tried.append(f"{measured[0]:.4f} ({choice})")
            if best is None or measured[0] > best[2][0]:
                best = program, polynomials, measured
        self._program, self.polynomials_, measured = best
        self.agreement_, self.refused_ = measured
        self.ranges_ = [polynomial.bounds_ for polynomial in self.polynomials_]
        if self.agreement_ < self.agreement:
            raise ValueError(
                f"agreement={self.agreement:g} is not reached: with polynomials in place "
                f"of activations the share of equal predictions is {', '.join(tried)} "
                "(degree). Train the network with EncryptionReadyTraining or with "
                "squares, give more rows, or ask for less."
            )

    def _agreement(self, program, X, rows, plain):
        """Return the agreement on rows in the range, and the share of those outside."""
        inside = ((X[rows] >= program.low) & (X[rows] <= program.high)).all(axis=1)
        inside &= program.left_at(X[rows]) < 0
        rows = rows[inside]
        refused = 1 - float(inside.mean()) if len(inside) else 0.0
        if not len(rows):
            return 0.0, refused
        return self._equal(
            self._from_scores(program.scores(X[rows])), plain[rows]
        ), refused

    def _packed(self, packing):
        allowed = self.precision * self._largest_score
        packed, error, counts = choose(self._program, packing, allowed)
        parameters = packed.parameters
        # A number of the ring takes 8 bytes a prime; what is fresh is half a seed.
        polynomial = 8 * parameters.degree * (parameters.depth + 1)
        key = 8 * parameters.degree * len(parameters.bits) * (parameters.depth + 1)
        question = polynomial * (
            len(self._program.low) if packed.name == "columns" else 1
        )
        n_answers = self._program.n_scores if packed.name == "columns" else 1
        cost = {
            **counts,
            "rows_per_message": packed.rows_per_message,
            "key_bytes": key * (1 + len(packed.steps)),
            "question_bytes": question,
            "answer_bytes": 2 * 8 * parameters.degree * n_answers,
        }
        return Compiled(packed, error, cost)

    def _cheaper(self, n_rows):
        """Return the packing that takes less time for so many rows."""
        if len(self._compiled) == 1:
            return next(iter(self._compiled))

        def milliseconds(name):
            cost = self._compiled[name].cost
            parameters = self._compiled[name].packed.parameters
            size = parameters.degree * len(parameters.bits) / (8192 * 4)
            once = sum(_MILLISECONDS[kind] * cost[kind] for kind in _MILLISECONDS)
            return size * once * -(-n_rows // cost["rows_per_message"])

        return min(self._compiled, key=milliseconds)

    def _public(self, name):
        compiled = self._compiled[name]
        packed, rows = compiled.packed, name == "rows"
        classes = getattr(self, "classes_", None)
        return PublicModel(
            parameters=packed.parameters,
            packing=name,
            steps=list(packed.steps),
            low=self._program.low.tolist(),
            high=self._program.high.tolist(),
            classes=None if classes is None else np.asarray(classes).tolist(),
            link=self._link,
            bound=self._program.bound,
            precision=compiled.precision,
            n_scores=self._program.n_scores,
            source=packed.layers[0].source.tolist() if rows else None,
            outputs=packed.layers[-1].outputs.tolist() if rows else None,
        )

    def _named(self, packing):
        if packing is None:
            return next(iter(self._compiled)) if len(self._compiled) == 1 else "rows"
        if packing not in self._compiled:
            raise ValueError(
                f"packing={packing!r} was not compiled; there is {list(self._compiled)}."
            )
        return packing

    def client(self, packing: Literal["columns", "rows"] | None = None) -> Client:
        """Make the half that has the keys: new ones, at each call.

        Parameters
        ----------
        packing : {"columns", "rows"}, default=None
            Which packing; by default that of one row at a time, where both were compiled.

        Returns
        -------
        client : Client
            It encrypts and decrypts, and checks rows against every activation's range.
        """
        check_is_fitted(self)
        name = self._named(packing)
        if name == "tfhe":
            return TFHEClient(self._compiled[name].model, self._program)
        return Client(self._public(name), self._program)

    def server(
        self, packing: Literal["columns", "rows"] | None = None, **options: Any
    ) -> Server:
        """Make the half that has the weights, and no secret key.

        Parameters
        ----------
        packing : {"columns", "rows"}, default=None
            As of :meth:`client`.
        **options : dict
            Of :class:`Server`.

        Returns
        -------
        server : Server
            It computes on what clients encrypt.
        """
        check_is_fitted(self)
        name = self._named(packing)
        if name == "tfhe":
            circuit = self._compiled[name]
            return TFHEServer(circuit.file, circuit.model, **options)
        return Server(self._program, self._public(name), **options)

    def simulate(self, X: ArrayLike) -> np.ndarray:
        """Predict with the polynomials in plain arithmetic, without keys or noise.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            What :meth:`predict` returns where the noise turns no label.
        """
        check_is_fitted(self)
        return self._from_scores(self._program.scores(self._flat(X)))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Encrypt rows, evaluate the model on them, and decrypt what it says.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows, inside of the range that was compiled.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels or predictions.
        """
        check_is_fitted(self)
        return self._loop(X, lambda client, answer: client.decrypt(answer))

    def _flat(self, X):
        X = self._check_X(X, reset=False)
        X = X.reshape(len(X), -1)
        if isinstance(self._program, Program):
            check_range(X, self._program.low, self._program.high)
        return X

    @with_callbacks
    def _loop(self, X, decrypt):
        X = self._flat(X)
        packing = self._cheaper(len(X))
        client, server = self.client(packing), self.server(packing)
        n_messages = -(-len(X) // client.model.rows_per_message)
        with self._told_to_callbacks(X, None, n_messages):
            server.register(client.evaluation_keys())
            questions = client.encrypt(X)
            parts = [
                decrypt(client, server.evaluate(question))
                for question in self._tasks(questions, "message", stops=False)
            ]
        return np.concatenate(parts)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = not isinstance(self.estimator, FrozenEstimator)
        tags.input_tags.allow_nan = False
        tags.input_tags.sparse = False
        return tags


class EncryptedClassifier(ClassifierMixin, _EncryptedPredictor):
    """A classifier that predicts on rows that its server cannot read.

    It is compiled to a network of affine layers and polynomials, and evaluated on
    ciphertexts of the CKKS scheme [1]_ by Microsoft SEAL with 128-bit security. What can
    be compiled: linear classifiers, `MLPClassifier`, skorch networks that are a chain of
    linear and convolutional layers, average pooling, batch normalisation and the
    activations ReLU, tanh, sigmoid, SiLU and square, and pipelines that begin with affine
    steps such as scalers and PCA.

    The server learns how many rows there are, when, and for which model; the client
    learns labels. Nobody proves to the client which model ran. Encryption hides rows, and
    not the model: its labels allow extraction and membership inference as any labels do.

    Parameters
    ----------
    estimator : classifier
        The classifier; a fitted one as ``FrozenEstimator(classifier)``.
    packing : {"auto", "columns", "rows"}, default="auto"
        "columns" puts a feature of thousands of rows into a ciphertext: the cost is that
        of one row. "rows" puts a row into one ciphertext, and answers soonest. "auto"
        takes the cheaper for the number of rows.
    activation : "auto", int or PolynomialActivation, default="auto"
        The polynomials that stand for activations: of a degree, or like one that is
        given. "auto" takes the smallest degree that reaches `agreement`.
    precision : float, default=1e-3
        The largest error that encryption may add to a score, as a share of the largest
        score seen in `fit`. The bound that is kept takes the noise of
        operations as independent, and then fails with probability 2^-40 for each.
    agreement : float, default=0.99
        The share of held-out rows on which the labels of the polynomial network have to
        be those of the estimator; with TFHE, those of the quantized one.
    security : {128}, default=128
        Bits of security. There is no less.
    scheme : {"auto", "ckks", "tfhe"} or TFHE, default="auto"
        "ckks" computes with reals, as above. :class:`TFHE` compares integers, in a second
        environment: decision trees, forests and boosted trees, whose features and leaves
        are quantized for it, and `DiscretizedMLPClassifier`. "auto" takes it for trees.
        `packing`, `activation` and `precision` are of CKKS only.
    decimals : int, default=None
        To hand out scores and probabilities, rounded to so many decimals. None hands out
        labels only: decrypted scores can give the secret key away [2]_.
    random_state : int, RandomState instance or None, default=0
        Draws the rows that are held out. Keys are never drawn from it.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    depth_ : int
        How many products in a row an evaluation takes; with TFHE, how many look-ups.
    agreement_ : float
        Share of equal labels on the rows that were held out and are in the range. Where
        there was a choice of degrees, these rows made it too; of fewer than five rows
        none is held out, and all are asked. It is measured in plain arithmetic: noise
        may turn labels besides, as `precision_` and `cost_` say.
    refused_ : float
        Share of the held-out rows that are outside of the range.
    polynomials_ : list of PolynomialActivation
        What stands for the activations.
    ranges_ : list of (low, high)
        The range of each activation.
    parameters_, precision_, cost_ : dict
        By packing: the ring; the bound of the error of a score; products with
        plaintexts, products, rotations, and bytes of keys and messages. With TFHE, whose
        scores are exact or wrong, `cost_` tells how probable at most it is that a row's
        is wrong, the look-ups, and the bytes of keys that are not compressed; there is no
        `precision_`.

    See Also
    --------
    EncryptedRegressor : The same for regressors.
    EncryptedClient : Asks a server over HTTP.
    HomomorphicArray : Sums and products of encrypted arrays.

    References
    ----------
    .. [1] J. H. Cheon et al., "Homomorphic encryption for arithmetic of approximate
       numbers", eprint 2016/421.
    .. [2] B. Li and D. Micciancio, "On the security of homomorphic encryption on
       approximate numbers", eprint 2020/1533.
    .. [3] E. Hesamifard, H. Takabi and M. Ghasemi, "CryptoDL: deep neural networks over
       encrypted data", arXiv:1711.05189.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_advsec.encryption import EncryptedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), LogisticRegression())
    >>> encrypted = EncryptedClassifier(model).fit(X[:400], y[:400])
    >>> plain = encrypted.estimator_.predict(X[400:420])
    >>> bool((encrypted.predict(X[400:420]) == plain).all())
    True
    """

    _parameter_constraints = {
        **_EncryptedPredictor._parameter_constraints,
        "scheme": [StrOptions({"auto", "ckks", "tfhe"}), TFHE],
        "decimals": [Interval(Integral, 0, 15, closed="both"), None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        packing: Literal["auto", "columns", "rows"] = "auto",
        activation: Literal["auto"] | int | PolynomialActivation = "auto",
        precision: float = 1e-3,
        agreement: float = 0.99,
        security: Literal[128] = 128,
        scheme: Literal["auto", "ckks", "tfhe"] | TFHE = "auto",
        decimals: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.packing = packing
        self.activation = activation
        self.precision = precision
        self.agreement = agreement
        self.security = security
        self.scheme = scheme
        self.decimals = decimals
        self.random_state = random_state

    def _check_kind(self):
        if not is_classifier(self.estimator_):
            raise TypeError(
                f"estimator: {name_of(self.estimator_)} is no classifier; use "
                "EncryptedRegressor for regressors."
            )
        self.classes_ = np.asarray(self.estimator_.classes_)
        if self.classes_.ndim != 1:
            raise TypeError(f"estimator: {name_of(self.estimator_)} has several outputs.")
        if len(self.classes_) < 2:
            raise ValueError(
                f"estimator: {name_of(self.estimator_)} knows one class only, "
                f"{self.classes_.item(0)!r}."
            )

    def _tfhe(self):
        if isinstance(self.scheme, TFHE):
            self.scheme._validate_params()
            return self.scheme
        trees = self.scheme == "auto" and is_tree_ensemble(self.estimator)
        return TFHE() if trees or self.scheme == "tfhe" else None

    def _fit_circuit(self, scheme, X, kept, held, plain):
        """Compile to comparisons of integers: scheme TFHE."""
        self._link, self.polynomials_ = None, []
        self._program = network = threshold_network(
            self.estimator_,
            X[kept],
            n_bits=scheme.n_bits,
            leaf_bits=scheme.leaf_bits,
            rounded_bits=scheme.rounded_bits,
        )
        self.ranges_ = [(0, layer.top) for layer in network.layers]
        tested = held if len(held) else kept
        inside = network.left_at(X[tested]) < 0
        self.refused_ = 1 - float(inside.mean())
        tested = tested[inside]
        classes = self.classes_.tolist()
        model, file, cost, worker = compile_network(network, X[kept], classes, scheme)
        try:
            scores = network.scores(X[tested])
            if scheme.rounded_bits and len(tested):  # rounding is a matter of chance
                sums = simulated_sums(worker, network.quantizer(X[tested]))
                scores = network.scores_of(sums)
        finally:
            worker.close()
        equal = self._from_scores(scores) == plain[tested]
        self.agreement_ = float(equal.mean()) if len(tested) else 0.0
        if self.agreement_ < self.agreement:
            raise ValueError(
                f"agreement={self.agreement:g} is not reached: the quantized model's "
                f"share of equal predictions is {self.agreement_:.4f}. Give TFHE more "
                "n_bits (of features) and leaf_bits, fewer rounded_bits, or ask for less."
            )
        self._compiled = {"tfhe": Circuit(model, file)}
        self.parameters_ = {"tfhe": scheme.get_params()}
        wrong = -np.expm1(cost["bootstraps"] * np.log1p(-scheme.error_probability))
        self.cost_ = {"tfhe": {**cost, "rows_per_message": 1, "error_probability": wrong}}

    def _plain_predictions(self, rows):
        return ask_labels(self.estimator_, rows)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Encrypt rows, evaluate the classifier on them, and decrypt the labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows, inside of the range that was compiled.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        return super().predict(X).astype(self.classes_.dtype, copy=False)

    def _from_scores(self, scores):
        return self.classes_[positions_of(scores)]

    @staticmethod
    def _equal(ours, plain):
        return float(np.mean(ours == plain))

    @available_if(_hands_out_probabilities)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities on encrypted rows; they are rounded to `decimals`.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities.
        """
        check_is_fitted(self)
        if self._link is None:
            probabilities_of(None, None)
        return self._loop(
            X,
            lambda client, answer: client.decrypt(
                answer, decimals=self.decimals, proba=True
            ),
        )

    @available_if(_hands_out_scores)
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute scores on encrypted rows; they are rounded to `decimals`.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The classifier's scores.
        """
        check_is_fitted(self)
        scores = self._loop(
            X, lambda client, answer: client.decrypt(answer, decimals=self.decimals)
        )
        return scores[:, 0] if scores.shape[1] == 1 else scores


class EncryptedRegressor(RegressorMixin, _EncryptedPredictor):
    """A regressor that predicts on rows that its server cannot read.

    It is :class:`EncryptedClassifier` for regressors: linear models, `MLPRegressor`, and
    pipelines that begin with affine steps. Predictions are rounded to the last decimal
    that is not below `precision_`, since the noise of decrypted values can give the
    secret key away: they are off by up to `precision_` and half of that decimal.

    Parameters
    ----------
    estimator : regressor
        The regressor, of one output; a fitted one as ``FrozenEstimator(regressor)``.
    packing, activation, precision, security, random_state
        See :class:`EncryptedClassifier`.
    agreement : float, default=0.99
        The share of the variance of the estimator's own predictions, on held-out rows,
        that those of the polynomial network have to explain.

    Attributes
    ----------
    estimator_ : regressor
        The fitted regressor.
    agreement_ : float
        The share of variance, as above.
    depth_, refused_, polynomials_, ranges_, parameters_, precision_, cost_
        See :class:`EncryptedClassifier`.

    See Also
    --------
    EncryptedClassifier : The same for classifiers, with the references.

    Examples
    --------
    >>> import pytest
    >>> seal = pytest.importorskip("tenseal.sealapi")
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn_advsec.encryption import EncryptedRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> encrypted = EncryptedRegressor(Ridge()).fit(X, y)
    >>> error = encrypted.predict(X[:5]) - encrypted.estimator_.predict(X[:5])
    >>> bool(np.abs(error).max() < 0.1)
    True
    """

    def __init__(
        self,
        estimator: Any,
        *,
        packing: Literal["auto", "columns", "rows"] = "auto",
        activation: Literal["auto"] | int | PolynomialActivation = "auto",
        precision: float = 1e-3,
        agreement: float = 0.99,
        security: Literal[128] = 128,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.packing = packing
        self.activation = activation
        self.precision = precision
        self.agreement = agreement
        self.security = security
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # The noise of each encryption is new: values differ within the precision.
        tags.non_deterministic = True
        return tags

    def _check_kind(self):
        if not is_regressor(self.estimator_):
            raise TypeError(
                f"estimator: {name_of(self.estimator_)} is no regressor; use "
                "EncryptedClassifier for classifiers."
            )

    def _plain_predictions(self, rows):
        plain = np.asarray(self.estimator_.predict(rows))
        if plain.ndim == 2 and plain.shape[1] > 1:
            raise TypeError(f"estimator: {name_of(self.estimator_)} has several outputs.")
        check = AnswerCheck(self.estimator_)
        return check.values(plain, len(rows)).astype(np.float64)

    def _from_scores(self, scores):
        return scores[:, 0]

    @staticmethod
    def _equal(ours, plain):
        spread = np.sum((plain - plain.mean()) ** 2)
        off = np.sum((ours - plain) ** 2)
        return float(1 - off / spread) if spread > 0 else float(off < 1e-12)


@differentiable.register(_EncryptedPredictor)
def encrypted_predictor(estimator):
    """Say that there is no gradient of what is encrypted."""
    raise NoGradientError(
        f"{type(estimator).__name__} answers on ciphertexts, which no gradient passes. "
        "Attack the estimator inside (estimator_), or use an attack whose knowledge is "
        "'label'."
    )
