"""Train a copy on a victim's answers: on labels or on probabilities, of any estimator."""

import warnings

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._rows import is_dataframe
from .._seeding import forked_rng

# Classes that get less than this of a row's probability are left out of its targets.
_LEAST_WEIGHT = 1e-4


def default_surrogate():
    """Return the network that a copy is when the user gives no other."""
    network = MLPClassifier(100, solver="lbfgs", alpha=1.0, max_iter=300)
    return make_pipeline(StandardScaler(), network)


def train(surrogate, rows, targets, classes, rng):
    """Train a clone of a surrogate.

    Labels are learned as they are. Of probabilities, networks of skorch whose criterion
    is the cross-entropy learn all; so do estimators that take a `sample_weight`, from one
    weighted row per class, which for a log-loss is the same. Others get the likeliest
    class.

    Parameters
    ----------
    surrogate : classifier or None
        What to train; None is :func:`default_surrogate`.
    rows : {ndarray, DataFrame} of shape (n_rows, ...)
        Rows.
    targets : ndarray of shape (n_rows,) or (n_rows, n_classes)
        Labels, or probabilities in the order of `classes`.
    classes : ndarray of shape (n_classes,)
        The victim's classes.
    rng : RandomState
        Seeds those `random_state` that are None, and torch.

    Returns
    -------
    copy : classifier
        The trained clone; a `ConstantCopy` where all labels are the same, which few
        classifiers learn.
    """
    soft = targets.ndim == 2
    labels = classes[targets.argmax(axis=1)] if soft else targets
    seed = int(rng.randint(2**31 - 1))
    if len(np.unique(labels)) == 1:
        return ConstantCopy(strategy="constant", constant=labels[0]).fit(rows, labels)
    copy = default_surrogate() if surrogate is None else clone(surrogate)
    _seed(copy, seed)
    if is_net(copy):
        return NetSurrogate(copy).fit(rows, targets if soft else labels, classes, seed)
    weight = _weight_parameter(copy) if soft else None
    with warnings.catch_warnings(), forked_rng(copy, seed):
        if surrogate is None:
            warnings.simplefilter("ignore", ConvergenceWarning)
        if weight is None:
            return copy.fit(rows, labels)
        at, column = np.nonzero(targets > _LEAST_WEIGHT)
        rows = rows.iloc[at] if is_dataframe(rows) else rows[at]
        return copy.fit(rows, classes[column], **{weight: targets[at, column]})


class ConstantCopy(DummyClassifier):
    """Always predicts one label: what is learned of a victim that gave no other."""


def is_net(estimator):
    """Whether an estimator is a skorch net (without importing skorch)."""
    return any(cls.__module__.startswith("skorch.") for cls in type(estimator).__mro__)


class NetSurrogate(ClassifierMixin, BaseEstimator):
    """A skorch classifier that takes any labels, soft ones, and rows in float64.

    Parameters
    ----------
    net : NeuralNetClassifier
        Unfitted; with one output per class of the victim.

    Attributes
    ----------
    net_ : NeuralNetClassifier
        The trained net, whose classes are positions in `classes_`.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    """

    def __init__(self, net):
        self.net = net

    def fit(self, X, y, classes, seed):
        """Train on labels or, with a cross-entropy, on rows of probabilities."""
        net = clone(self.net)
        self.classes_ = np.asarray(classes)
        criterion = net.criterion
        criterion = criterion if isinstance(criterion, type) else type(criterion)
        if y.ndim == 2 and not issubclass(criterion, torch.nn.CrossEntropyLoss):
            y = y.argmax(axis=1)  # other criteria take no probabilities
        elif y.ndim == 1:
            order = np.argsort(self.classes_)
            y = order[np.searchsorted(self.classes_, y, sorter=order)]
        params = {"classes": np.arange(len(self.classes_))}
        if y.ndim == 2:
            params |= {"train_split": None, "callbacks__valid_acc": None}
        net.set_params(**params)
        dtype = np.float32 if y.ndim == 2 else np.int64
        with forked_rng(net, seed):
            self.net_ = net.fit(_float32(X), y.astype(dtype))
        return self

    def predict_proba(self, X):
        """Return the net's probabilities."""
        check_is_fitted(self)
        # Data loaders draw a seed even where none is used.
        with torch.random.fork_rng(devices=[]):
            return self.net_.predict_proba(_float32(X)).astype(np.float64)

    def predict(self, X):
        """Return the likeliest class of each row."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _float32(X):
    return np.asarray(X.to_numpy() if is_dataframe(X) else X, dtype=np.float32)


def _seed(estimator, seed):
    """Set every `random_state` that is None, so that the copy depends on `seed` only."""
    rng = np.random.RandomState(seed)
    params = estimator.get_params(deep=True)
    names = [k for k in sorted(params) if k.split("__")[-1] == "random_state"]
    estimator.set_params(
        **{name: int(rng.randint(2**31 - 1)) for name in names if params[name] is None}
    )


def _weight_parameter(estimator):
    """Return the name under which `fit` takes weights, or None."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inner = _weight_parameter(last)
        return None if inner is None else f"{name}__{inner}"
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None
