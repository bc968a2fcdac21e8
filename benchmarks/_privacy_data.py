"""Targets of the privacy benchmarks, and the records that attacks judge."""

import warnings

import numpy as np
from _common import data_path, load_mnist
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.extraction import RoundedProbabilities
from sklearn_advsec.privacy import make_records


class Played:
    """A trained target, as many members as non-members to judge, and the attacker's own.

    Of the rows, the first `n_members` are members, as many are not, and the next ones, up
    to twice as many, are the attacker's. `more` is `(X, y)` that the target is trained on
    as well and nobody judges.

    Attributes
    ----------
    target : FrozenEstimator
        The target, trained on the first half of the audited records (and `more`).
    audited, own : ndarray or DataFrame
        Records. None of the attacker's own is among the audited.
    member : ndarray of bool
        Which of the audited records are members.
    accuracy : tuple of float
        The target's accuracy on members and on the other audited records.
    """

    def __init__(self, recipe, X, y, n_members, more=None):
        n, self.recipe = n_members, recipe
        rows = X.iloc if hasattr(X, "iloc") else X
        with warnings.catch_warnings(action="ignore"):
            train = (rows[:n], y[:n])
            if more is not None:
                train = [np.concatenate(pair) for pair in zip(train, more, strict=True)]
            fitted = clone(recipe).fit(*train)
        records = make_records(X, y)
        records = records.iloc if hasattr(records, "iloc") else records
        self.target = FrozenEstimator(fitted)
        self.audited, self.own = records[: 2 * n], records[2 * n : 4 * n]
        self.member = np.arange(2 * n) < n
        self.accuracy = tuple(
            fitted.score(rows[part], y[part]) for part in (slice(n), slice(n, 2 * n))
        )

    def as_numbers(self):
        """Return the last step of the target, and records encoded for it: for peers."""
        model = self.target.estimator
        steps = model[:-1] if isinstance(model, Pipeline) else None
        parts = []
        for records in (self.audited, self.own):
            if steps is None:
                X, y = records[:, :-1], records[:, -1].astype(int)
            else:
                X = steps.transform(records.iloc[:, :-1])
                y = np.searchsorted(model.classes_, records.iloc[:, -1])
            parts += [X.astype(np.float32), y]
        return (model if steps is None else model[-1]), *parts


def binary_records(n_records, n_features=446, n_classes=30, strength=1.35, seed=0):
    """Make synthetic binary records: items of differing popularity, classes of taste.

    Records differ in how typical they are of their class. With the defaults, a 128-64
    perceptron trained on 1,200 of them until it knows them by heart has a test accuracy
    of .60 and a loss-threshold AUC of .85; on Location-30 these are .59 and .84.
    """
    rng = np.random.RandomState(seed)
    popularity = rng.beta(0.5, 2.0, size=n_features).clip(0.01, 0.99)
    taste = rng.normal(size=(n_classes, n_features))
    y = rng.randint(n_classes, size=n_records)
    typical = strength * rng.beta(1, 1, size=n_records)
    logit = np.log(popularity / (1 - popularity)) + typical[:, None] * taste[y]
    X = rng.uniform(size=logit.shape) < 1 / (1 + np.exp(-logit))
    return X.astype(np.float32), y


def location_net():
    """An unfitted 446-128-64-30 network."""
    return MLPClassifier((128, 64), max_iter=40, batch_size=64, random_state=0)


def location():
    """Synthetic, like Location-30: 446 binary features, 30 classes; 1,200 members."""
    return Played(location_net(), *binary_records(4800), 1200)


def purchase():
    """Synthetic, like Purchase-100: 600 binary features, 100 classes; 2,000 members."""
    X, y = binary_records(8000, n_features=600, n_classes=100, strength=1.6, seed=1)
    net = MLPClassifier((128,), max_iter=25, batch_size=64, random_state=0)
    return Played(net, X, y, 2000)


def adult():
    """Adult: a pipeline on a DataFrame with strings; 1,500 members."""
    import pandas as pd

    table = pd.read_parquet(data_path("adult.parquet")).drop(columns="split")
    table = table.sample(6000, random_state=0).reset_index(drop=True)
    X, y = table.drop(columns="income"), table["income"].to_numpy()
    strings = X.select_dtypes(exclude="number").columns.tolist()
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), strings),
        remainder=StandardScaler(),
    )
    net = MLPClassifier(
        (64,), max_iter=40, batch_size=32, learning_rate_init=5e-3, random_state=0
    )
    return Played(make_pipeline(encode, net), X, y, 1500)


def mnist():
    """MNIST: flat rows; 1,000 members."""
    X, y, _, _ = load_mnist()
    rows = np.random.RandomState(0).permutation(len(X))[:4000]
    net = MLPClassifier((128,), max_iter=30, batch_size=32, random_state=0)
    return Played(net, X[rows].reshape(4000, -1), y[rows], 1000)


def without_gap(seed):
    """A linear target on 120,000 synthetic rows of 10 features, none learnt by heart."""
    w = np.random.RandomState(0).normal(size=(10, 4))
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(124500, 10)).astype(np.float32)
    y = (X @ w + rng.gumbel(size=(124500, 4))).argmax(axis=1)
    some, more = slice(6000), slice(6000, None)
    return Played(LogisticRegression(), X[some], y[some], 1500, (X[more], y[more]))


def credit_like(seed, n=700):
    """Make a table like those of loans: ten ratings, ten amounts, a noisy label."""
    rng = np.random.RandomState(seed)
    X = np.column_stack([rng.randint(0, 6, (n, 10)), rng.randn(n, 10)]).astype(float)
    score = X[:, 0] + X[:, 1] + 2 * X[:, 10] + 3 * rng.randn(n)
    return X, (score > 5).astype(int)


def coarse_recipes():
    """Return classifiers whose probabilities know few values, and a network."""
    network = make_pipeline(
        StandardScaler(), MLPClassifier(64, max_iter=150, random_state=0)
    )
    return {
        "RandomForest(50)": RandomForestClassifier(50, random_state=0),
        "ExtraTrees(50)": ExtraTreesClassifier(50, random_state=0),
        "Bagging(30)": BaggingClassifier(n_estimators=30, random_state=0),
        "5 neighbours": KNeighborsClassifier(5),
        "tree of depth 6": DecisionTreeClassifier(max_depth=6, random_state=0),
        "perceptron, 2 decimals": RoundedProbabilities(network),
        "perceptron": network,
    }
