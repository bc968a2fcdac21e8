"""Surrogates: copies trained on labels or probabilities, of any estimator."""

import warnings

import numpy as np
import torch
from sklearn.base import ClassifierMixin, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._estimators import is_net
from .._labels import class_positions, in_columns
from .._rows import is_dataframe
from .._seeding import forked_rng, seed_unset
from .._sklearn import BaseEstimator
from ..differentiable import ClassifierView, register
from ..differentiable._registry import subview

# Classes that get less than this of a row's probability are left out of its targets.
_LEAST_WEIGHT = 1e-4


def default_surrogate(rows):
    """Return the network that a copy of rows' labels is when the user gives no other."""
    network = MLPClassifier(100, solver="lbfgs", alpha=1.0, max_iter=300)
    scaler = StandardScaler()
    if not is_dataframe(rows) or rows.select_dtypes("number").shape[1] == rows.shape[1]:
        return make_pipeline(scaler, network)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(keep_empty_features=True), scaler), _is_number),
        remainder=encoder,
    )
    return make_pipeline(columns, network)


_is_number = make_column_selector(dtype_include="number")


def try_out(surrogate, rows, classes, *, soft):
    """Train a surrogate on a few rows with made-up labels, to see whether it can be.

    Raises
    ------
    Exception
        What the surrogate raises, with a note that says when.
    """
    n = min(len(rows), 40)
    if n < 20:  # too few for estimators that split their rows
        return
    rows = rows.iloc[:n] if is_dataframe(rows) else rows[:n]
    codes = np.arange(n) % 2
    targets = classes[codes]
    if soft:
        targets = np.full((n, len(classes)), 0.1 / max(len(classes) - 1, 1))
        targets[np.arange(n), codes] = 0.9
    try:
        with warnings.catch_warnings(action="ignore"):
            train(surrogate, rows, targets, classes, np.random.RandomState(0))
    except Exception as error:
        error.add_note(
            f"This is the surrogate, tried on {n} rows of X with made-up labels: nothing "
            "was asked of the victim yet. Set `surrogate` to what takes these rows."
        )
        raise


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
    copy = default_surrogate(rows) if surrogate is None else clone(surrogate)
    seed_unset(copy, seed)
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
            y = class_positions(y, self.classes_, "y")
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


@register(NetSurrogate)
def net_surrogate(copy):
    """View a skorch net that was trained on a victim's answers."""
    view = subview(copy.net_)
    view.classes = copy.classes_
    return view


def _float32(X):
    return np.asarray(X.to_numpy() if is_dataframe(X) else X, dtype=np.float32)


def _weight_parameter(estimator):
    """Return the name under which `fit` takes weights, or None."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inner = _weight_parameter(last)
        return None if inner is None else f"{name}__{inner}"
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None


class AveragedSurrogates(ClassifierMixin, BaseEstimator):
    """Several trained classifiers as one: the mean of their probabilities.

    Parameters
    ----------
    members : list of classifiers
        Fitted.
    classes : ndarray of shape (n_classes,)
        All classes; a member may know fewer.
    """

    def __init__(self, members, classes):
        self.members = members
        self.classes = classes

    @property
    def classes_(self):
        """All classes."""
        return self.classes

    def predict_proba(self, X):
        """Return the mean of the members' probabilities."""
        parts = [
            in_columns(member.predict_proba(X), member.classes_, self.classes)
            for member in self.members
        ]
        return np.mean(parts, axis=0)

    def predict(self, X):
        """Return the class of the largest mean probability."""
        return self.classes[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_is_fitted__(self):
        return True


@register(AveragedSurrogates, takes_codes=True)
def averaged_surrogates(copy):
    """View the mean of several copies; the logits are the log of the mean."""
    members = [with_classes(subview(m), copy.classes) for m in copy.members]

    def predict_proba(x):
        parts = [torch.softmax(m.logits(x).to(members[0].dtype), dim=1) for m in members]
        return torch.stack(parts).mean(dim=0)

    first = members[0]
    return ClassifierView(
        copy.classes, predict_proba=predict_proba, dtype=first.dtype, device=first.device
    )


def with_classes(view, classes):
    """Give logits a column for classes that the copy never saw; they never win."""
    have = list(view.classes)
    if have == list(classes):
        return view
    columns = [list(classes).index(label) for label in have]

    def logits(x):
        known = view.logits(x)
        full = torch.full((len(x), len(classes)), -1e9).to(known)
        return full.index_copy(1, torch.tensor(columns, device=known.device), known)

    return ClassifierView(classes, logits=logits, dtype=view.dtype, device=view.device)
