"""Views agree with their estimators: values, predictions and gradients."""

import copy
import pickle
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import linear_model
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import (
    PCA,
    FactorAnalysis,
    FastICA,
    IncrementalPCA,
    TruncatedSVD,
)
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import (
    RFE,
    SelectFromModel,
    SelectKBest,
    SequentialFeatureSelector,
    VarianceThreshold,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.svm import SVC, LinearSVC, NuSVC

from sklearn_advsec import differentiable
from sklearn_advsec._rows import RowCodec
from sklearn_advsec.differentiable import ClassifierView, TransformerView, view
from sklearn_advsec.differentiable._views import straight_through
from sklearn_advsec.exceptions import NoGradientError

Logistic = partial(LogisticRegression, max_iter=2000)
Sgd = partial(SGDClassifier, random_state=0, average=True)
Mlp = partial(
    MLPClassifier, (8,), solver="lbfgs", max_iter=300, tol=1e-2, alpha=1, random_state=0
)


def _scaled(loader, n_rows=None, n_features=None):
    X, y = loader(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))[:n_rows]
    X, y = X[order, :n_features], y[order]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    # Measured values are rounded; without the noise, neighbours are at equal distances.
    return X + 1e-3 * np.random.default_rng(1).normal(size=X.shape), y


IRIS = _scaled(load_iris)
WINE = _scaled(load_wine)
CANCER = _scaled(load_breast_cancer, 150, 8)
NAMES = np.array(["setosa", "versicolor", "virginica"])
WORDS = IRIS[0], NAMES[IRIS[1]]
DIGITS = load_digits().data[:300], load_digits().target[:300]
RAW = load_iris(return_X_y=True)
GAPS = np.where(np.random.default_rng(1).random(RAW[0].shape) < 0.15, np.nan, RAW[0])
BOTH = {"binary": CANCER, "multi": WINE}
ONLY_BINARY = {"binary": CANCER}
ONLY_MULTI = {"multi": IRIS}


def platt(**parameters):
    """Fit an SVC with probabilities, which scikit-learn deprecates."""
    return SVC(probability=True, random_state=0, **parameters)


# scikit-learn 1.9 warns where nothing is said, and older ones do not know the words.
NEW_ATTRIBUTES = {"use_legacy_attributes": False, "l1_ratios": (0,)}
if not NEW_ATTRIBUTES.keys() <= LogisticRegressionCV().get_params().keys():
    NEW_ATTRIBUTES = {}

# As scikit-learn 1.8 and later say it, or those before.
DEPRECATED = LogisticRegression().get_params()["penalty"] == "deprecated"
LASSO = {"l1_ratio": 1} if DEPRECATED else {"penalty": "l1"}

# scikit-learn 1.8 calibrates by temperature, too.
KNOWN = CalibratedClassifierCV._parameter_constraints["method"][0].options
CALIBRATIONS = [m for m in ("sigmoid", "isotonic", "temperature") if m in KNOWN]

CRAMMER_SINGER = LinearSVC(multi_class="crammer_singer", C=0.1, tol=1e-2, max_iter=200000)

# id, estimator, data sets, methods without an exact gradient
CLASSIFIERS = [
    ("logistic", Logistic(), BOTH | {"strings": WORDS}, ()),
    ("logistic-l1", Logistic(**LASSO, solver="saga", tol=1e-2), BOTH, ()),
    ("liblinear", Logistic(solver="liblinear"), ONLY_BINARY, ()),
    (
        "logistic-cv",
        LogisticRegressionCV(
            cv=2,
            Cs=2,
            scoring="accuracy",
            max_iter=2000,
            **NEW_ATTRIBUTES,
        ),
        BOTH,
        (),
    ),
    ("ridge", RidgeClassifier(), BOTH, ()),
    ("ridge-cv", RidgeClassifierCV(), BOTH, ()),
    *[
        (f"sgd-{loss}", Sgd(loss=loss), BOTH, ())
        for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge")
    ],
    ("perceptron", Perceptron(), BOTH, ()),
    ("linear-svc", LinearSVC(), BOTH, ()),
    (
        "crammer-singer",
        CRAMMER_SINGER,
        BOTH,
        (),
    ),
    *[
        (
            f"svc-{kernel}-{shape}",
            SVC(kernel=kernel, decision_function_shape=shape),
            sets,
            (),
        )
        for kernel in ("linear", "rbf", "poly", "sigmoid")
        for shape, sets in (("ovr", BOTH), ("ovo", ONLY_MULTI))
    ],
    ("svc-digits", SVC(C=0.05, kernel="sigmoid"), {"multi": DIGITS}, ()),
    ("svc-ties", SVC(break_ties=True, C=0.05, kernel="sigmoid"), {"multi": DIGITS}, ()),
    ("svc-proba", platt(C=0.5), BOTH | {"iris": IRIS}, ()),
    ("nu-svc", NuSVC(nu=0.3), BOTH, ()),
    *[
        (f"mlp-{activation}", Mlp(activation=activation), BOTH, ())
        for activation in ("identity", "logistic", "tanh", "relu")
    ],
    ("gaussian-nb", GaussianNB(), BOTH, ()),
    ("multinomial-nb", MultinomialNB(), {"multi": RAW}, ()),
    ("complement-nb", ComplementNB(), {"multi": RAW}, ()),
    *[
        (f"lda-{solver}", LinearDiscriminantAnalysis(solver=solver), BOTH, ())
        for solver in ("svd", "lsqr", "eigen")
    ],
    ("qda", QuadraticDiscriminantAnalysis(reg_param=0.01), BOTH, ()),
    *[
        ("qda-eigen", QuadraticDiscriminantAnalysis(**eigen), BOTH, ())
        for eigen in [{"solver": "eigen", "shrinkage": 0.1}]
        if "solver" in QuadraticDiscriminantAnalysis().get_params()  # scikit-learn 1.8
    ],
    ("knn", KNeighborsClassifier(), BOTH, ("predict_proba",)),
    *[
        (f"knn-distance-{p}", KNeighborsClassifier(3, weights="distance", p=p), BOTH, ())
        for p in (1, 2, 3, np.inf)
    ],
    ("centroid", NearestCentroid(), BOTH, ()),
    ("centroid-priors", NearestCentroid(priors="empirical"), BOTH, ()),
    ("centroid-manhattan", NearestCentroid(metric="manhattan"), BOTH, ()),
    (
        "ada-boost",
        AdaBoostClassifier(Logistic(), n_estimators=4),
        BOTH,
        ("decision_function", "predict_proba"),
    ),
    (
        "bagging",
        BaggingClassifier(Logistic(), 4, max_features=0.6, random_state=0),
        BOTH | {"strings": WORDS},
        (),
    ),
    (
        "bagging-votes",
        BaggingClassifier(LinearSVC(), 5, random_state=0),
        BOTH,
        ("predict_proba",),
    ),
    (
        "voting-soft",
        VotingClassifier(
            [("a", Logistic()), ("out", "drop"), ("b", GaussianNB())],
            voting="soft",
            weights=[2, 5, 1],
        ),
        BOTH | {"strings": WORDS},
        (),
    ),
    (
        "voting-hard",
        VotingClassifier(
            [("a", Logistic()), ("b", GaussianNB()), ("c", LinearSVC()), ("d", SVC())]
        ),
        BOTH,
        (),
    ),
    (
        "stacking",
        StackingClassifier(
            [("a", Logistic()), ("b", RidgeClassifier()), ("c", "drop")], cv=2
        ),
        BOTH | {"strings": WORDS},
        (),
    ),
    (
        "stacking-passthrough",
        StackingClassifier(
            [("a", Logistic()), ("b", GaussianNB())],
            SVC(),
            cv=2,
            passthrough=True,
            stack_method="predict_proba",
        ),
        BOTH,
        (),
    ),
    *[
        (
            f"calibrated-{method}-{type(base).__name__}-{ensemble}",
            CalibratedClassifierCV(base, method=method, cv=2, ensemble=ensemble),
            BOTH,
            (),
        )
        for method in CALIBRATIONS
        for base, ensemble in ((LinearSVC(), True), (GaussianNB(var_smoothing=1), False))
    ],
    ("ovr", OneVsRestClassifier(LinearSVC()), BOTH, ()),
    ("ovr-proba", OneVsRestClassifier(GaussianNB()), BOTH, ()),
    ("ovr-both", OneVsRestClassifier(Logistic()), BOTH, ()),
    ("ovo", OneVsOneClassifier(LinearSVC()), BOTH, ()),
    ("ovo-proba", OneVsOneClassifier(GaussianNB()), BOTH, ()),
    ("frozen", FrozenEstimator(Logistic().fit(*WINE)), {"multi": WINE}, ()),
    ("grid", GridSearchCV(Logistic(), {"C": [0.1, 1]}, cv=2), BOTH, ()),
    (
        "randomized",
        RandomizedSearchCV(SVC(), {"C": [0.1, 1]}, n_iter=2, cv=2, random_state=0),
        BOTH,
        (),
    ),
    ("threshold", FixedThresholdClassifier(Logistic(), threshold=0.8), ONLY_BINARY, ()),
    (
        "threshold-first",
        FixedThresholdClassifier(GaussianNB(), threshold=0.9, pos_label=0),
        ONLY_BINARY,
        (),
    ),
    (
        "threshold-decision",
        FixedThresholdClassifier(LinearSVC(), threshold=-0.7, pos_label=0),
        ONLY_BINARY,
        (),
    ),
    ("tuned", TunedThresholdClassifierCV(Logistic(), cv=2), ONLY_BINARY, ()),
    ("rfe", RFE(Logistic(), n_features_to_select=2), BOTH, ()),
    (
        "pipeline",
        make_pipeline(
            StandardScaler(),
            "passthrough",
            None,
            PCA(3),
            PolynomialFeatures(),
            Logistic(),
        ),
        BOTH | {"strings": WORDS},
        (),
    ),
    (
        "pipeline-lda",
        make_pipeline(LinearDiscriminantAnalysis(), SVC()),
        BOTH,
        (),
    ),
    (
        "nested",
        VotingClassifier(
            [
                (
                    "search",
                    GridSearchCV(
                        make_pipeline(make_union(PCA(2), SelectKBest(k=2)), SVC()),
                        {"svc__C": [1, 2]},
                        cv=2,
                    ),
                ),
                (
                    "frozen",
                    make_pipeline(MinMaxScaler(), CalibratedClassifierCV(SVC(), cv=2)),
                ),
            ]
        ),
        BOTH,
        (),
    ),
]


def scale(X, by):
    return np.maximum(X - RAW[0][0], -0.5) / by + np.exp(X)


def as_images(X):
    return X.astype(np.float64).reshape(-1, 1, 2, 2)


def some_columns(X):
    return [-1, 0]


def in_place(X):
    X *= 2
    return X


SKEWED = np.exp(IRIS[0])  # positive
DOUBLED = np.round(RAW[0] * 2) / 2  # many equal values
TRANSFORMERS = [
    ("standard", StandardScaler(), RAW[0]),
    ("standard-mean", StandardScaler(with_std=False), RAW[0]),
    ("standard-std", StandardScaler(with_mean=False), RAW[0]),
    ("robust", RobustScaler(), RAW[0]),
    ("robust-none", RobustScaler(with_centering=False, with_scaling=False), RAW[0]),
    ("min-max", MinMaxScaler((-1, 2)), RAW[0]),
    ("min-max-clip", MinMaxScaler(clip=True), RAW[0]),
    ("max-abs", MaxAbsScaler(), RAW[0]),
    *[
        ("max-abs-clip", MaxAbsScaler(**clip), RAW[0])
        for clip in [{"clip": True}]
        if "clip" in MaxAbsScaler().get_params()  # scikit-learn 1.9
    ],
    *[(f"normalizer-{norm}", Normalizer(norm), IRIS[0]) for norm in ("l1", "l2", "max")],
    ("yeo-johnson", PowerTransformer(), IRIS[0]),
    ("yeo-johnson-raw", PowerTransformer(standardize=False), IRIS[0]),
    ("box-cox", PowerTransformer(method="box-cox"), SKEWED),
    ("quantile", QuantileTransformer(n_quantiles=20), RAW[0]),
    ("quantile-ties", QuantileTransformer(n_quantiles=50), DOUBLED),
    (
        "quantile-normal",
        QuantileTransformer(n_quantiles=20, output_distribution="normal"),
        RAW[0],
    ),
    ("pca", PCA(2), IRIS[0]),
    ("pca-whiten", PCA(3, whiten=True), IRIS[0]),
    ("incremental-pca", IncrementalPCA(2), IRIS[0]),
    ("svd", TruncatedSVD(2), IRIS[0]),
    ("ica", FastICA(2, random_state=0), IRIS[0]),
    ("ica-raw", FastICA(whiten=False, tol=1, random_state=0), IRIS[0]),
    ("factor", FactorAnalysis(2), IRIS[0]),
    ("polynomial", PolynomialFeatures(3), IRIS[0]),
    (
        "polynomial-cross",
        PolynomialFeatures((2, 3), interaction_only=True, include_bias=False),
        IRIS[0],
    ),
    ("imputer", SimpleImputer(), GAPS),
    ("imputer-flag", SimpleImputer(strategy="median", add_indicator=True), GAPS),
    (
        "imputer-value",
        SimpleImputer(
            missing_values=0, strategy="constant", fill_value=7, keep_empty_features=True
        ),
        DIGITS[0][:50],
    ),
    ("k-best", SelectKBest(k=2), IRIS[0]),
    ("variance", VarianceThreshold(0.3), RAW[0]),
    ("from-model", SelectFromModel(Logistic(), threshold="median"), IRIS[0]),
    ("rfe-forest", RFE(RandomForestClassifier(5, random_state=0)), IRIS[0]),
    (
        "sequential",
        SequentialFeatureSelector(GaussianNB(), n_features_to_select=2, cv=2),
        IRIS[0],
    ),
    *[
        (f"nystroem-{kernel}", Nystroem(kernel, n_components=4, random_state=0, **kw), X)
        for kernel, kw, X in (
            ("rbf", {}, IRIS[0]),
            ("linear", {}, RAW[0]),
            ("poly", {"degree": 2, "coef0": 0.5}, IRIS[0]),
            ("sigmoid", {"gamma": 0.1}, IRIS[0]),
            ("laplacian", {"kernel_params": {"gamma": 0.3}}, IRIS[0]),
        )
    ],
    ("rbf-sampler", RBFSampler(n_components=9, random_state=0), IRIS[0]),
    ("gaussian-projection", GaussianRandomProjection(3, random_state=0), IRIS[0]),
    ("sparse-projection", SparseRandomProjection(3, random_state=0), IRIS[0]),
    ("identity", FunctionTransformer(), IRIS[0]),
    ("function", FunctionTransformer(np.log1p), RAW[0]),
    ("function-args", FunctionTransformer(scale, kw_args={"by": 3}), RAW[0]),
    ("reshape", FunctionTransformer(as_images), RAW[0]),
    ("in-place", FunctionTransformer(in_place), RAW[0]),
    (
        "union",
        FeatureUnion(
            [
                ("pca", PCA(2)),
                ("out", "drop"),
                ("all", "passthrough"),
                ("nested", make_pipeline(StandardScaler(), PCA(1))),
            ],
            transformer_weights={"pca": 3.0},
        ),
        IRIS[0],
    ),
    ("pipeline-steps", make_pipeline("passthrough", PCA(2), "passthrough"), IRIS[0]),
    (
        "columns",
        ColumnTransformer(
            [
                ("slice", StandardScaler(), slice(0, 2)),
                ("mask", PCA(1), [False, True, False, True]),
                ("out", "drop", [0]),
                ("none", PCA(1), []),
                ("callable", "passthrough", some_columns),
            ],
            remainder=MinMaxScaler(),
            transformer_weights={"mask": 2.0},
            sparse_threshold=1,
        ),
        RAW[0],
    ),
]
ENCODERS = [
    ("one-hot", OneHotEncoder()),
    ("one-hot-first", OneHotEncoder(drop="first", sparse_output=False)),
    ("one-hot-binary", OneHotEncoder(drop="if_binary", handle_unknown="ignore")),
    ("one-hot-named", OneHotEncoder(drop=[1, 2])),
    ("one-hot-rare", OneHotEncoder(max_categories=3)),
    (
        "one-hot-rare-drop",
        OneHotEncoder(min_frequency=30, drop="first", handle_unknown="ignore"),
    ),
    (
        "one-hot-rare-unknown",
        OneHotEncoder(min_frequency=30, handle_unknown="infrequent_if_exist"),
    ),
    (
        "one-hot-unknown-none-rare",
        OneHotEncoder(min_frequency=1, handle_unknown="infrequent_if_exist"),
    ),
    ("ordinal", OrdinalEncoder()),
    (
        "ordinal-unknown",
        OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-5, max_categories=3
        ),
    ),
]


def fitted(estimator, X, y):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `probability` parameter", FutureWarning)
        return clone(estimator).fit(X, y)


def call(estimator, method, X):
    out = getattr(estimator, method)(X)
    return out.toarray() if hasattr(out, "toarray") else np.asarray(out)


def check_gradient(function, reference, X, step=1e-6, rtol=1e-4):
    """Compare a view's derivative with central differences of the estimator's method."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=X.shape)
    x = torch.tensor(X, requires_grad=True)
    out = function(x)
    weight = rng.normal(size=out.shape)
    (gradient,) = torch.autograd.grad((out * torch.tensor(weight)).sum(), x)
    assert gradient.isfinite().all()
    change = reference(X + step * direction) - reference(X - step * direction)
    axes = tuple(range(1, np.ndim(weight)))
    expected = (change * weight).sum(axis=axes) / (2 * step)
    actual = (gradient.numpy() * direction).sum(axis=1)
    assert_allclose(actual, expected, rtol=rtol, atol=1e-6 * (1 + abs(expected).max()))


@pytest.mark.parametrize(
    "estimator, data, flat",
    [
        pytest.param(estimator, data, flat, id=f"{name}-{kind}")
        for name, estimator, sets, flat in CLASSIFIERS
        for kind, data in sets.items()
    ],
)
def test_classifier(estimator, data, flat):
    X, y = data
    estimator = fitted(estimator, X, y)
    before = pickle.dumps(estimator)
    rng = np.random.default_rng(0)
    # Also off the training rows, where an attack would go.
    near, far = (X[:60] + size * rng.normal(size=X[:60].shape) for size in (1e-3, 1))
    rows = np.concatenate([near, far])
    rows = np.abs(rows) if X.min() >= 0 else rows
    v = view(estimator)
    assert isinstance(v, ClassifierView)
    assert_array_equal(v.classes, estimator.classes_)
    x = torch.tensor(rows, requires_grad=True)
    logits = v.logits(x)
    assert logits.shape == (len(rows), len(estimator.classes_))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()
    assert pickle.dumps(estimator) == before
    assert_array_equal(estimator.classes_[logits.argmax(1)], estimator.predict(rows))
    for method in ("decision_function", "predict_proba", "transform"):
        function = getattr(v, method)
        if method != "transform":
            assert (function is not None) == hasattr(estimator, method)
        if function is None:
            continue
        expected = call(estimator, method, rows)
        out = function(x).detach()
        assert out.dtype == v.dtype == torch.float64
        assert out.shape == expected.shape
        assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
        if method not in flat:
            reference = partial(call, estimator, method)
            check_gradient(function, reference, rows[-8:])


@pytest.mark.parametrize(
    "estimator, X",
    [pytest.param(estimator, X, id=name) for name, estimator, X in TRANSFORMERS],
)
def test_transformer(estimator, X):
    estimator = fitted(estimator, X[:100], np.arange(len(X[:100])) % 3)
    before = pickle.dumps(estimator)
    rng = np.random.default_rng(0)
    rows = X[: min(len(X), 150)]
    v = view(estimator)
    x = torch.tensor(rows)
    expected = call(estimator, "transform", rows.copy())
    out = v.transform(x)
    assert out.shape == expected.shape
    assert_allclose(out, expected, rtol=1e-7, atol=1e-7)
    rows = np.abs(rows[:10] * (1 + 0.02 * rng.normal(size=rows[:10].shape)))
    rows = rows[~np.isnan(rows).any(axis=1)]

    def reference(X):
        return call(estimator, "transform", X.copy())

    if (rows == 0).any():
        rows = rows + 0.0137
    check_gradient(v.transform, reference, rows)
    x = torch.tensor(X, requires_grad=True)
    (gradient,) = torch.autograd.grad(v.transform(x).sum(), x)
    assert gradient.isfinite().all()
    assert pickle.dumps(estimator) == before


@pytest.mark.parametrize(
    "estimator", [pytest.param(estimator, id=name) for name, estimator in ENCODERS]
)
def test_encoder_on_numbers(estimator):
    rng = np.random.default_rng(0)
    X = np.stack([rng.integers(0, 2, 200), rng.binomial(7, 0.3, 200)], axis=1) * 1.0
    rows = X.copy()
    estimator = clone(estimator).fit(X)
    if getattr(estimator, "handle_unknown", "error") != "error":
        rows[:5, 1] = 55
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)
        expected = call(estimator, "transform", rows)
    x = torch.tensor(rows, requires_grad=True)
    out = view(estimator).transform(x)
    assert_allclose(out, expected)
    assert not out.requires_grad


def test_encoder_of_missing_values():
    X = np.array([[1.0, 2.0, np.nan, 2.0]]).T
    for estimator in (OneHotEncoder(), OrdinalEncoder(encoded_missing_value=-1)):
        expected = call(estimator.fit(X), "transform", X)
        assert_allclose(view(estimator).transform(torch.tensor(X)), expected)


@pytest.mark.parametrize(
    "estimator",
    [
        Logistic(),
        LinearDiscriminantAnalysis(),
        Mlp(),
        GaussianNB(),
        BaggingClassifier(Logistic(), 3, random_state=0),
        CalibratedClassifierCV(LinearSVC(), cv=2),
        OneVsRestClassifier(GaussianNB()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("data", BOTH.values(), ids=BOTH)
def test_softmax_of_logits_is_the_probability(estimator, data):
    estimator = clone(estimator).fit(*data)
    logits = view(estimator).logits(torch.tensor(data[0]))
    expected = estimator.predict_proba(data[0])
    assert_allclose(torch.softmax(logits, 1), expected, atol=1e-9)


def test_bagging_of_a_rare_class():
    """Not every part has seen every class."""
    X, y = IRIS
    rare = np.where(np.arange(len(y)) < 3, 7, y)
    base = LinearDiscriminantAnalysis()  # takes no weights, so it gets fewer rows
    estimator = BaggingClassifier(base, 8, max_samples=0.3, random_state=0)
    estimator.fit(X, rare)
    assert {len(part.classes_) for part in estimator.estimators_} == {3, 4}
    proba = view(estimator).predict_proba(torch.tensor(X))
    assert_allclose(proba, estimator.predict_proba(X))


def test_passive_aggressive_classifier():
    if not hasattr(linear_model, "PassiveAggressiveClassifier"):
        pytest.skip("gone from scikit-learn 1.10 on")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # from 1.8 on
        estimator = linear_model.PassiveAggressiveClassifier()
        estimator.fit(*WINE)
    out = view(estimator).decision_function(torch.tensor(WINE[0]))
    assert_allclose(out, estimator.decision_function(WINE[0]))


def test_rbf_gradient_on_a_support_vector():
    estimator = SVC(gamma=2.0).fit(*CANCER)
    x = torch.tensor(estimator.support_vectors_[:20], requires_grad=True)
    decision = view(estimator).decision_function
    assert torch.autograd.gradcheck(decision, x)


def test_sparse_and_readonly_parameters():
    estimator = LinearSVC(penalty="l1", C=0.1).fit(*WINE).sparsify()
    out = view(estimator).decision_function(torch.tensor(WINE[0]))
    assert_allclose(out, estimator.decision_function(WINE[0]))
    dense = Logistic().fit(*WINE)
    dense.coef_.setflags(write=False)
    view(dense)  # no warning


def test_tied_votes_go_to_the_first_class():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 2)), np.arange(90) % 6
    rows = 5 * rng.normal(size=(2000, 2))
    for break_ties in (False, True):
        estimator = SVC(break_ties=break_ties, gamma=5).fit(X, y)
        labels = view(estimator).logits(torch.tensor(rows)).argmax(1)
        assert_array_equal(labels, estimator.predict(rows))
    assert (estimator.predict(rows) != SVC(gamma=5).fit(X, y).predict(rows)).any()


# ---------------------------------------------------------------- straight-through


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_neighbours_relaxation(weights):
    X, y = IRIS
    estimator = KNeighborsClassifier(4, weights=weights).fit(X[:100], y[:100])
    v = view(estimator)
    x = torch.tensor(X[100:], requires_grad=True)

    # The written-out form of the documented relaxation.
    rows = torch.tensor(X[:100])
    distance = torch.linalg.vector_norm(x[:, None] - rows, dim=2)
    own = torch.linalg.vector_norm(rows[:, None] - rows, dim=2)
    temperature = own.sort(dim=1).values[:, 4].mean()
    kernel = torch.exp(-distance / temperature)
    sums = [kernel[:, y[:100] == c].topk(4).values.sum(1) for c in range(3)]
    relaxed = torch.stack(sums, 1) / sum(sums)[:, None]
    weight = torch.randn(relaxed.shape, generator=torch.manual_seed(0)).double()
    (expected,) = torch.autograd.grad(
        (weight * relaxed.log()).sum(), x, retain_graph=True
    )
    (gradient,) = torch.autograd.grad((weight * v.logits(x)).sum(), x)
    assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)
    if weights == "uniform":
        (expected,) = torch.autograd.grad((weight * relaxed).sum(), x)
        (gradient,) = torch.autograd.grad((weight * v.predict_proba(x)).sum(), x)
        assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)


def test_neighbours_at_distance_zero():
    estimator = KNeighborsClassifier(weights="distance").fit(*IRIS)
    x = torch.tensor(IRIS[0], requires_grad=True)
    proba = view(estimator).predict_proba(x)
    assert_allclose(proba.detach(), estimator.predict_proba(IRIS[0]))
    assert torch.autograd.grad(proba[:, 0].sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("name", ["ada-boost", "bagging-votes", "voting-hard", "knn"])
def test_an_attack_gets_through_votes(name):
    """Gradients of piecewise constant models lead to the other side."""
    estimator = next(case[1] for case in CLASSIFIERS if case[0] == name)
    X, y = CANCER
    estimator = clone(estimator).fit(X, y)
    v = view(estimator)
    labels = torch.tensor(estimator.predict(X))
    start = torch.tensor(X)
    x = start
    for _ in range(20):
        x = x.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(v.logits(x), labels, reduction="sum")
        x = x + 0.1 * torch.autograd.grad(loss, x)[0].sign()
        x = torch.minimum(torch.maximum(x, start - 1), start + 1)
    rng = np.random.default_rng(0)
    noise = estimator.predict(X + rng.choice([-1, 1], size=X.shape))
    attacked = (estimator.predict(x.detach().numpy()) != labels.numpy()).mean()
    assert attacked > 2 * (noise != labels.numpy()).mean()
    assert attacked > 0.4


def test_straight_through():
    x = torch.tensor([0.3, 2.0], requires_grad=True)
    out = straight_through(x.round(), 3 * x)
    assert out.tolist() == [0.0, 2.0]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [3.0, 3.0]


# ---------------------------------------------------------------- networks


class Net(torch.nn.Module):
    def __init__(self, n_outputs=3, last=None, flat=False, pair=False):
        super().__init__()
        self.hidden = torch.nn.Linear(4, 16)
        self.norm = torch.nn.BatchNorm1d(16)
        self.drop = torch.nn.Dropout(0.5)
        self.out = torch.nn.Linear(16, n_outputs)
        self.last = last
        self.flat = flat
        self.pair = pair

    def forward(self, X):
        hidden = torch.tanh(self.norm(self.hidden(X)))
        out = self.out(self.drop(hidden))
        out = out if self.last is None else self.last(out)
        out = out[:, 0] if self.flat else out
        return (out, hidden) if self.pair else out


def test_module():
    module = Net(pair=True).train()
    module(torch.randn(8, 4))[0].sum().backward()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    gradients = [p.grad.clone() for p in module.parameters()]
    v = view(module)
    assert_array_equal(v.classes, [0, 1, 2])
    assert v.dtype == torch.float32 and v.device.type == "cpu"
    assert v.module is not module
    x = torch.tensor(IRIS[0], requires_grad=True)
    torch.autograd.grad(v.logits(x).sum(), x)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert not any(p.requires_grad for p in v.module.parameters())
    for p, gradient in zip(module.parameters(), gradients, strict=True):
        assert torch.equal(p.grad, gradient)
    assert all(torch.equal(module.state_dict()[name], state[name]) for name in state)
    expected = module.eval()(x.float())[0]
    assert_allclose(v.logits(x).detach(), expected.detach())
    assert_allclose(
        v.predict_proba(x).detach(), torch.softmax(expected, 1).detach(), rtol=1e-6
    )


def test_module_with_one_output_and_images():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 1)
    ).double()
    v = view(module)
    assert_array_equal(v.classes, [0, 1])
    assert v.dtype == torch.float64
    x = torch.rand(5, 1, 8, 8)
    logits = v.logits(x)
    assert logits.shape == (5, 2)
    assert (logits[:, 0] == 0).all()
    assert_allclose(v.predict_proba(x)[:, 1], torch.sigmoid(logits[:, 1]))
    pipeline = make_pipeline(
        FunctionTransformer(lambda x: x.reshape(-1, 1, 8, 8).astype(np.float32))
    )
    flat = view(pipeline.fit(DIGITS[0])).transform(torch.tensor(DIGITS[0][:5]))
    assert v.logits(flat).shape == (5, 2)


def test_module_of_unknown_width():
    with pytest.raises(NoGradientError, match="PretrainedModule"):
        view(torch.nn.Flatten())
    misleading = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.Unflatten(1, (3, 2)), torch.nn.Flatten(2)
    )
    with pytest.raises(ValueError, match=r"shape \(2, 3, 2\)"):
        view(misleading).logits(torch.randn(2, 4))


def skorch_net(classifier, module, **parameters):
    from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier

    classes = {"multi": NeuralNetClassifier, "binary": NeuralNetBinaryClassifier}
    torch.manual_seed(0)
    return classes[classifier](
        Net,
        **{f"module__{name}": value for name, value in module.items()},
        max_epochs=3,
        train_split=None,
        verbose=0,
        **parameters,
    )


class Focal(torch.nn.CrossEntropyLoss):
    pass


class Margin(torch.nn.MultiMarginLoss):
    pass


def steep(out):
    return torch.stack([-out, out], 1).softmax(1)


SOFTMAX = partial(torch.softmax, dim=1)
SKORCH = {
    "cross-entropy": ("multi", {}, {"criterion": torch.nn.CrossEntropyLoss}),
    "subclass": ("multi", {}, {"criterion": Focal}),
    "nll": ("multi", {"last": torch.nn.Softmax(1)}, {}),
    "custom": ("multi", {}, {"criterion": Margin, "predict_nonlinearity": SOFTMAX}),
    "no-nonlinearity": (
        "multi",
        {},
        {"criterion": torch.nn.CrossEntropyLoss, "predict_nonlinearity": None},
    ),
    "binary": ("binary", {"n_outputs": 1}, {}),
    "binary-flat": ("binary", {"n_outputs": 1, "flat": True}, {}),
    "binary-threshold": ("binary", {"n_outputs": 1}, {"threshold": 0.8}),
    "binary-bce": (
        "binary",
        {"n_outputs": 1, "last": torch.nn.Sigmoid()},
        {"criterion": torch.nn.BCELoss, "threshold": 0.3},
    ),
    "binary-custom": (
        "binary",
        {"n_outputs": 1},
        {
            "criterion": torch.nn.BCEWithLogitsLoss,
            "predict_nonlinearity": steep,
        },
    ),
}


@pytest.mark.parametrize("kind, module, parameters", SKORCH.values(), ids=SKORCH)
def test_skorch(kind, module, parameters):
    net = skorch_net(kind, module, **parameters)
    X, y = (IRIS[0].astype(np.float32), IRIS[1]) if kind == "multi" else (None, None)
    if kind == "binary":
        X, y = CANCER[0][:, :4].astype(np.float32), CANCER[1].astype(np.float32)
    net.fit(X, y)
    net.module_.train()
    before = pickle.dumps(net)
    v = view(net)
    x = torch.tensor(X, requires_grad=True)
    out = v.predict_proba(x)
    logits = v.logits(x)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert v.module is not None and v.dtype == torch.float32
    assert net.module_.training
    assert pickle.dumps(net) == before
    assert all(p.requires_grad for p in net.module_.parameters())
    assert_allclose(out.detach(), net.predict_proba(X), atol=1e-4)
    assert_array_equal(logits.argmax(1), net.predict(X))
    assert gradient.isfinite().all() and (gradient != 0).any()


def test_skorch_in_a_pipeline():
    net = skorch_net("multi", {}, criterion=torch.nn.CrossEntropyLoss)
    to_float = FunctionTransformer(lambda x: x.astype(np.float32))
    pipeline = make_pipeline(StandardScaler(), to_float, net).fit(RAW[0], RAW[1])
    v = view(pipeline)
    assert v.dtype == torch.float64 and v.module is None
    x = torch.tensor(RAW[0], requires_grad=True)
    assert_allclose(
        v.predict_proba(x).detach(), pipeline.predict_proba(RAW[0]), atol=1e-4
    )
    assert torch.autograd.grad(v.logits(x)[:, 0].sum(), x)[0].dtype == torch.float64


def test_skorch_errors():
    from skorch import NeuralNetClassifier

    net = skorch_net("multi", {}, criterion=Margin)
    with pytest.raises(NotFittedError):
        view(net)
    net.fit(IRIS[0].astype(np.float32), IRIS[1])
    with pytest.raises(NoGradientError, match="predict_nonlinearity"):
        view(net)

    class Own(NeuralNetClassifier):
        def infer(self, x, **parameters):
            return super().infer(-x, **parameters)

    with pytest.raises(NoGradientError, match="infer"):
        view(Own(Net, criterion=torch.nn.CrossEntropyLoss).initialize())
    wide = skorch_net("multi", {"n_outputs": 9}, criterion=torch.nn.CrossEntropyLoss)
    wide.fit(IRIS[0].astype(np.float32), IRIS[1])
    with pytest.raises(ValueError, match="for 3 classes"):
        view(wide).logits(torch.tensor(IRIS[0]))


# ---------------------------------------------------------------- DataFrames


def frame(n=120):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "sex": rng.choice(["f", "m"], n),
            "pay": np.where(rng.random(n) < 0.1, np.nan, rng.lognormal(size=n)),
            "city": pd.Categorical(rng.choice(["Oslo", "Rome", "Bonn"], n)),
            "member": rng.random(n) < 0.5,
            "grade": rng.integers(1, 4, n),
            "note": rng.choice(["good old", "new", "good new"], n),
            "kids": pd.Categorical(rng.integers(0, 3, n)),
        }
    )


FRAME = frame()
LABEL = (FRAME["age"] + 20 * (FRAME["sex"] == "m") > 55).to_numpy().astype(int)
NUMERIC = make_pipeline(SimpleImputer(), StandardScaler())
TEXT = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
COLUMNS = {
    "names": ColumnTransformer(
        [
            ("number", NUMERIC, ["pay", "age"]),
            ("text", TEXT, ["sex", "city"]),
            ("words", TfidfVectorizer(), "note"),
            ("flag", "passthrough", ["member", "grade"]),
        ],
    ),
    "selectors": ColumnTransformer(
        [
            ("number", NUMERIC, make_column_selector(dtype_include="number")),
            ("rest", OneHotEncoder(drop="first"), make_column_selector("city|sex|note")),
        ],
        remainder="passthrough",
    ),
    "positions": ColumnTransformer(
        [
            ("number", NUMERIC, [0, 2]),
            ("mixed-encoder", OneHotEncoder(), [1, 5]),
            ("ordinal", OrdinalEncoder(), slice("note", "kids")),
        ],
        transformer_weights={"ordinal": 0.5},
    ),
    "nested": ColumnTransformer(
        [
            (
                "inner",
                ColumnTransformer(
                    [("a", NUMERIC, ["pay"]), ("b", OneHotEncoder(), ["sex"])],
                    remainder=StandardScaler(),
                ),
                ["member", "sex", "pay", "kids"],
            )
        ],
        remainder="drop",
    ),
}


def rows_of(X):
    codec = RowCodec(X)
    return torch.tensor(codec.encode(X)), codec


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_dataframe(columns):
    estimator = make_pipeline(clone(columns), Logistic()).fit(FRAME, LABEL)
    before = pickle.dumps(estimator)
    x, codec = rows_of(FRAME)
    v = view(estimator, codec.columns)
    for _ in range(2):  # the second time, constant branches are looked up
        assert_allclose(v.predict_proba(x), estimator.predict_proba(FRAME), atol=1e-9)
    some = torch.randint(0, len(x), (30,), generator=torch.manual_seed(0))
    expected = estimator.predict_proba(FRAME.iloc[some.numpy()])
    assert_allclose(v.predict_proba(x[some]), expected, atol=1e-9)
    filled = FRAME.fillna({"pay": 1.0})
    x = rows_of(filled)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(v.decision_function(x).sum(), x)
    assert not gradient[:, ~codec.columns.numeric].any()
    for name in ("age", "pay"):
        j = list(FRAME).index(name)
        if not gradient[:, j].any():
            assert name == "age"  # the nested one takes no age
            continue
        step = np.zeros_like(filled["pay"]) + 1e-5
        up, down = filled.copy(), filled.copy()
        up[name], down[name] = filled[name] + step, filled[name] - step
        change = estimator.decision_function(up) - estimator.decision_function(down)
        assert_allclose(gradient[:, j], change / 2e-5, rtol=1e-4, atol=1e-7)
    assert pickle.dumps(estimator) == before


def test_dataframe_in_meta_estimators():
    pipeline = make_pipeline(clone(COLUMNS["names"]), Logistic())
    estimator = VotingClassifier(
        [
            ("grid", GridSearchCV(pipeline, {"logisticregression__C": [1]}, cv=2)),
            (
                "stack",
                StackingClassifier([("a", pipeline), ("b", clone(pipeline))], cv=2),
            ),
            ("calibrated", CalibratedClassifierCV(pipeline, cv=2)),
            ("frozen", FrozenEstimator(clone(pipeline).fit(FRAME, LABEL))),
            ("union", make_pipeline(make_union(COLUMNS["selectors"]), Logistic())),
        ],
        voting="soft",
    ).fit(FRAME, LABEL)
    x, codec = rows_of(FRAME)
    v = view(estimator, codec.columns)
    assert_allclose(v.predict_proba(x), estimator.predict_proba(FRAME), atol=1e-9)


def test_dataframe_with_other_order_and_more_columns():
    estimator = make_pipeline(COLUMNS["names"], Logistic()).fit(FRAME, LABEL)
    other = FRAME[FRAME.columns[::-1]].assign(extra="x")
    x, codec = rows_of(other)
    expected = estimator.predict_proba(other)
    assert_allclose(view(estimator, codec.columns).predict_proba(x), expected)


def test_dataframe_of_booleans_and_numeric_categories():
    X = FRAME[["age", "member", "kids"]]
    x, codec = rows_of(X)
    for estimator in (GaussianNB(), make_pipeline(StandardScaler(), Logistic())):
        estimator = estimator.fit(X, LABEL)
        v = view(estimator, codec.columns)
        assert_allclose(v.predict_proba(x), estimator.predict_proba(X))
    only = X[["member"]]
    x, codec = rows_of(only)
    estimator = LinearDiscriminantAnalysis().fit(only, LABEL)
    v = view(estimator, codec.columns)
    assert_allclose(v.predict_proba(x), estimator.predict_proba(only))


def test_dataframe_of_strings_only():
    X = FRAME[["sex", "city"]]
    x, codec = rows_of(X)
    estimator = make_pipeline(OneHotEncoder(), Logistic()).fit(X, LABEL)
    v = view(estimator, codec.columns)
    assert_allclose(v.predict_proba(x), estimator.predict_proba(X))


def test_constant_branch_is_evaluated_once(monkeypatch):
    estimator = clone(COLUMNS["names"]).fit(FRAME)
    x, codec = rows_of(FRAME)
    transform = view(estimator, codec.columns).transform
    transform(x[:2])  # not all combinations of categories yet
    first = transform(x)
    assert_allclose(first, call(estimator, "transform", FRAME).astype(float))
    monkeypatch.setattr(OneHotEncoder, "transform", None)
    assert torch.equal(transform(x), first)


def test_columns_that_give_no_gradient():
    x, codec = rows_of(FRAME)
    most = SimpleImputer(strategy="most_frequent")
    mixed = make_pipeline(
        ColumnTransformer([("all", most, ["age", "sex"])]),
        OneHotEncoder(),
        Logistic(),
    ).fit(FRAME, LABEL)
    with pytest.raises(NoGradientError, match="'age'.*'sex'.*different transformers"):
        view(mixed, codec.columns)
    text = make_pipeline(
        ColumnTransformer([("fill", most, ["sex"])]),
        OneHotEncoder(),
        Logistic(),
    ).fit(FRAME, LABEL)
    with pytest.raises(NoGradientError, match="one branch of a ColumnTransformer"):
        view(text, codec.columns)
    with pytest.raises(NoGradientError, match="one Pipeline"):
        view(text[:1], codec.columns).transform(x)
    encoder = OneHotEncoder().fit(FRAME[["sex"]])
    with pytest.raises(NoGradientError, match="columns="):
        view(encoder)


# ---------------------------------------------------------------- the registry


class Halve(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.asarray(X) / 2


class Quarter(Halve):
    pass


def test_registered_class_and_subclass():
    estimator = make_pipeline(Halve(), Logistic()).fit(*IRIS)
    with pytest.raises(NoGradientError, match="Halve .*register"):
        view(estimator)

    @differentiable.register(Halve)
    def halve(estimator):
        return TransformerView(lambda x: x / 2)

    assert "Halve" in differentiable.supported()
    for first in (Halve(), Quarter()):
        estimator = make_pipeline(first, Logistic()).fit(*IRIS)
        out = view(estimator).predict_proba(torch.tensor(IRIS[0]))
        assert_allclose(out, estimator.predict_proba(IRIS[0]))


def test_not_fitted():
    for estimator in (Logistic(), make_pipeline(StandardScaler(), SVC()), PCA()):
        with pytest.raises(NotFittedError):
            view(estimator)


def never(x):
    return np.sort(x, axis=0)


@pytest.mark.parametrize(
    "estimator, message",
    [
        (RandomForestClassifier(3), "RandomForestClassifier has no differentiable view"),
        (BernoulliNB(), "BernoulliNB has no"),
        (make_pipeline(PCA(2), RandomForestClassifier(3)), "RandomForestClassifier"),
        (BaggingClassifier(n_estimators=2), "DecisionTreeClassifier"),
        (AdaBoostClassifier(n_estimators=2), "DecisionTreeClassifier"),
        (SVC(kernel=lambda a, b: a @ b.T), "kernel"),
        (KNeighborsClassifier(metric="canberra"), "canberra"),
        (KNeighborsClassifier(weights=np.exp), "weights"),
        (
            GridSearchCV(Logistic(), {"C": [1, 2]}, cv=2, refit=False),
            "refit",
        ),
        (
            StackingClassifier([("a", Logistic())], cv=2, stack_method="predict"),
            "stack_method",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else "",
)
def test_no_gradient(estimator, message):
    with pytest.raises(NoGradientError, match=message):
        view(estimator.fit(*IRIS))


def test_precomputed_kernel():
    X, y = IRIS
    estimator = SVC(kernel="precomputed").fit(X @ X.T, y)
    with pytest.raises(NoGradientError, match="precomputed"):
        view(estimator)


@pytest.mark.parametrize(
    "function, message",
    [
        (never, "'never' does not run on torch tensors"),
        (lambda x: x.std(axis=1, keepdims=True), "gives other values"),
        (lambda x: x.astype(int), "loses the gradient"),
    ],
)
def test_function_that_gives_no_gradient(function, message):
    estimator = FunctionTransformer(function).fit(IRIS[0])
    with pytest.raises(NoGradientError, match=message):
        view(estimator).transform(torch.tensor(IRIS[0]))


def test_several_labels_per_row():
    X, y = IRIS
    several = np.eye(3, dtype=int)[y]
    for estimator in (
        OneVsRestClassifier(Logistic()),
        KNeighborsClassifier(),
        Mlp(),
    ):
        with pytest.raises(NoGradientError):
            view(estimator.fit(X, several))


def test_view_needs_an_output():
    with pytest.raises(ValueError, match="logits"):
        ClassifierView([0, 1])


def test_imputer_drops_empty_columns():
    X = np.column_stack([np.full(len(GAPS), np.nan), GAPS])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping features", UserWarning)
        estimator = SimpleImputer(add_indicator=True).fit(X)
        expected = estimator.transform(X)
    assert_allclose(view(estimator).transform(torch.tensor(X)), expected)


def test_dataframe_output_of_the_steps():
    columns = ColumnTransformer(
        [
            ("number", NUMERIC, ["pay", "age"]),
            ("text", OneHotEncoder(sparse_output=False), ["sex", "member"]),
        ],
        verbose_feature_names_out=False,
    )
    second = ColumnTransformer([("some", StandardScaler(), ["age"])], remainder="drop")
    estimator = make_pipeline(columns, second, Logistic())
    estimator = estimator.set_output(transform="pandas").fit(FRAME, LABEL)
    x, codec = rows_of(FRAME)
    expected = estimator.predict_proba(FRAME)
    assert_allclose(view(estimator, codec.columns).predict_proba(x), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 0)}]
)
def test_input_convolutions_keep_values_and_gradients(channels, geometry):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(channels, 5, 3, **geometry),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(3),
    ).double()
    x = torch.rand(4, channels, 9, 8, dtype=torch.float64, requires_grad=True)
    expected = module(x)
    (gradient,) = torch.autograd.grad(expected.sin().sum(), x)
    logits = differentiable.view(module).logits(x)
    assert torch.equal(logits, expected)
    (fast,) = torch.autograd.grad(logits.sin().sum(), x)
    torch.testing.assert_close(fast, gradient, rtol=1e-12, atol=1e-12)
    assert type(module[0]) is torch.nn.Conv2d  # the user's own is as it was


@pytest.mark.parametrize("affine", [True, False])
def test_fixed_batch_normalisation_keeps_values_and_gradients(affine):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 5, 3, bias=False),
        torch.nn.BatchNorm2d(5, affine=affine),
        torch.nn.Tanh(),
        torch.nn.BatchNorm2d(5, track_running_stats=False),  # by the batch's averages
        torch.nn.Flatten(),
        torch.nn.LazyLinear(3),
    ).double()
    x = torch.rand(6, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        module(2 * torch.rand_like(x) - 0.3)  # averages far from 0 and 1
    module.eval()
    if affine:
        with torch.no_grad():
            module[1].weight.uniform_(-2, 2)
            module[1].bias.normal_()
    expected = module(x)
    (gradient,) = torch.autograd.grad(expected.sin().sum(), x)
    seen = differentiable.view(module)
    logits = seen.logits(x)
    assert torch.equal(logits, expected)
    (fast,) = torch.autograd.grad(logits.sin().sum(), x)
    torch.testing.assert_close(fast, gradient, rtol=1e-11, atol=1e-11)
    assert type(module[1]) is torch.nn.BatchNorm2d  # the user's own is as it was
    # A copy that is trained on normalises by its batches, and learns.
    copied = copy.deepcopy(seen.module).train().requires_grad_(True)
    copied(x).sum().backward()
    assert not torch.equal(copied[1].running_mean, module[1].running_mean)
    if affine:
        assert copied[1].bias.grad.abs().sum() > 0
