"""Readers of the tree ensembles of scikit-learn."""

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from .._sklearn import ForestClassifier, ForestRegressor
from . import _wrapped  # noqa: F401  (readers of what stands around trees)
from ._ensemble import MOVES, TreeEnsemble, as_regression, refuse
from ._reading import register_reader


def join_trees(trees, values, **parts):
    """Join trees of scikit-learn's own array form into one ensemble.

    Parameters
    ----------
    trees : list of sklearn.tree._tree.Tree
        The trees.
    values : list of ndarray of shape (n_nodes, n_outputs)
        What their leaves add.
    **parts : dict
        The other attributes of :class:`TreeEnsemble`.
    """
    counts = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *counts[:-1]])
    shift = np.repeat(roots, counts)

    def joined(name):
        return np.concatenate([getattr(tree, name) for tree in trees])

    missing = [np.asarray(tree.missing_go_to_left, dtype=bool) for tree in trees]
    return TreeEnsemble(
        roots=roots,
        feature=np.maximum(joined("feature"), -1),
        threshold=joined("threshold"),
        left=joined("children_left") + shift,
        right=joined("children_right") + shift,
        missing_left=np.concatenate(missing),
        value=np.concatenate(values),
        **parts,
    )


def _one_output(estimator):
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise ValueError(
            f"{type(estimator).__name__} has several outputs; fit one model per output."
        )


@register_reader(DecisionTreeClassifier)
def _decision_tree(estimator):
    _one_output(estimator)
    tree = estimator.tree_
    return join_trees(
        [tree],
        [tree.value[:, 0]],
        classes=estimator.classes_,
        base=np.zeros(1),
        probability="share",
    )


@register_reader(ForestClassifier)
def _forest(estimator):
    _one_output(estimator)
    trees = [part.tree_ for part in estimator.estimators_]
    return join_trees(
        trees,
        [tree.value[:, 0] for tree in trees],
        classes=estimator.classes_,
        base=np.zeros(1),
        divisor=float(len(trees)),
        probability="share",
    )


@register_reader(DecisionTreeRegressor)
def _regression_tree(estimator):
    _one_output(estimator)
    return _means([estimator.tree_])


@register_reader(ForestRegressor)
def _regression_forest(estimator):
    _one_output(estimator)
    return _means([part.tree_ for part in estimator.estimators_])


def _means(trees):
    """Join trees of regressors whose predictions are the means of theirs."""
    ensemble = join_trees(
        trees,
        [tree.value[:, 0] for tree in trees],
        classes=MOVES,
        base=np.zeros(1),
        divisor=float(len(trees)),
    )
    return as_regression(ensemble)


def _check_init(estimator):
    """Raise where boosting begins with a model that is no constant."""
    init = estimator.init_
    if not isinstance(init, (str, DummyClassifier, DummyRegressor)):
        raise TypeError(
            f"{type(estimator).__name__}(init={init!r}) cannot be read: what it says "
            "depends on more than trees. Leave init at None or 'zero'."
        )


@register_reader(GradientBoostingRegressor)
def _gradient_boosting_regressor(estimator):
    _check_init(estimator)
    trees = [part.tree_ for part in estimator.estimators_[:, 0]]
    ensemble = join_trees(
        trees,
        [estimator.learning_rate * tree.value[:, 0] for tree in trees],
        classes=MOVES,
        base=estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_)))[0],
    )
    return as_regression(ensemble)


@register_reader(GradientBoostingClassifier)
def _gradient_boosting(estimator):
    _check_init(estimator)
    n_outputs = estimator.estimators_.shape[1]
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_)))[0]
    trees, values = [], []
    for stage in estimator.estimators_:
        for k, part in enumerate(stage):
            value = np.zeros((part.tree_.node_count, n_outputs))
            value[:, k] = estimator.learning_rate * part.tree_.value[:, 0, 0]
            trees.append(part.tree_)
            values.append(value)
    return join_trees(
        trees,
        values,
        classes=estimator.classes_,
        base=base,
        link="nonnegative" if n_outputs == 1 else "argmax",
        probability="softmax" if estimator.loss == "log_loss" else None,
    )


@register_reader(AdaBoostClassifier)
def _ada_boost(estimator):
    n_classes = len(estimator.classes_)
    weights = estimator.estimator_weights_[: len(estimator.estimators_)]
    trees, values = [], []
    for part, weight in zip(estimator.estimators_, weights, strict=True):
        tree = _tree_of(part, estimator)
        voted = np.searchsorted(
            estimator.classes_, part.classes_[tree.value[:, 0].argmax(1)]
        )
        votes = np.arange(n_classes) == voted[:, None]
        trees.append(tree)
        values.append(np.where(votes, weight, -1 / (n_classes - 1) * weight))
    return join_trees(
        trees,
        values,
        classes=estimator.classes_,
        base=np.zeros(1),
        divisor=float(estimator.estimator_weights_.sum()),
    )


@register_reader(BaggingClassifier)
def _bagging(estimator):
    n_classes = len(estimator.classes_)
    trees, values = [], []
    for part in estimator.estimators_:
        tree = _tree_of(part, estimator)
        value = np.zeros((tree.node_count, n_classes))
        # The parts know the classes by position; a bootstrap may lack some.
        value[:, np.asarray(part.classes_, dtype=int)] = tree.value[:, 0]
        trees.append(tree)
        values.append(value)
    ensemble = join_trees(
        trees,
        values,
        classes=estimator.classes_,
        base=np.zeros(1),
        divisor=float(len(trees)),
        probability="share",
    )
    return _of_features(ensemble, trees, estimator)


@register_reader(BaggingRegressor)
def _bagging_regressor(estimator):
    trees = [_tree_of(part, estimator) for part in estimator.estimators_]
    return _of_features(_means(trees), trees, estimator)


def _of_features(ensemble, trees, estimator):
    """Let trees that were fitted on some features look at these."""
    owner = np.repeat(np.arange(len(trees)), [tree.node_count for tree in trees])
    inner = ensemble.feature >= 0
    for i, columns in enumerate(estimator.estimators_features_):
        own = inner & (owner == i)
        ensemble.feature[own] = np.asarray(columns)[ensemble.feature[own]]
    return ensemble


def _tree_of(part, owner):
    if not isinstance(part, (DecisionTreeClassifier, DecisionTreeRegressor)):
        raise TypeError(
            f"{type(owner).__name__} of {type(part).__name__} cannot be read: only "
            "ensembles of decision trees (or extra trees) can."
        )
    return part.tree_


@register_reader(HistGradientBoostingClassifier)
def _hist_gradient_boosting(estimator):
    one = estimator.n_trees_per_iteration_ == 1
    return _histograms(
        estimator,
        classes=estimator.classes_,
        link="positive" if one else "argmax",
        probability="softmax",
    )


@register_reader(HistGradientBoostingRegressor)
def _hist_gradient_boosting_regressor(estimator):
    if estimator.loss not in ("squared_error", "absolute_error", "quantile"):
        refuse("HistGradientBoostingRegressor", f"of loss {estimator.loss!r}")
    return as_regression(_histograms(estimator, classes=MOVES))


def _histograms(estimator, **parts):
    n_outputs = estimator.n_trees_per_iteration_
    roots, nodes, values, categories, bitsets = [], [], [], [], []
    n_nodes = n_sets = 0
    for stage in estimator._predictors:
        for k, predictor in enumerate(stage):
            part = predictor.nodes.copy()
            own = part["is_categorical"].astype(bool) & ~part["is_leaf"].astype(bool)
            _check_bitsets(part, own, predictor.raw_left_cat_bitsets)
            categories.append(np.where(own, part["bitset_idx"].astype(int) + n_sets, -1))
            bitsets.append(predictor.raw_left_cat_bitsets)
            for side in ("left", "right"):
                part[side] += n_nodes
            value = np.zeros((len(part), n_outputs))
            value[:, k] = part["value"]
            roots.append(n_nodes)
            nodes.append(part)
            values.append(value)
            n_nodes += len(part)
            n_sets += len(predictor.raw_left_cat_bitsets)
    nodes = np.concatenate(nodes)
    words = np.concatenate(bitsets).astype("<u4")
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    missing_left = nodes["missing_go_to_left"].astype(bool)
    ensemble = TreeEnsemble(
        roots=np.array(roots),
        feature=np.where(nodes["is_leaf"], -1, nodes["feature_idx"]),
        threshold=nodes["num_threshold"],
        left=nodes["left"].astype(int),
        right=nodes["right"].astype(int),
        missing_left=missing_left,
        value=np.concatenate(values),
        base=np.ravel(estimator._baseline_prediction),
        category=np.concatenate(categories),
        bitsets=bits.astype(bool),
        compare="float64",
        **parts,
    )
    if (
        estimator._preprocessor is not None
    ):  # encodes the categories, and moves them first
        ensemble.steps = [estimator._preprocessor]
    return ensemble


def _check_bitsets(nodes, categorical, bitsets):
    if (nodes["bitset_idx"][categorical] >= len(bitsets)).any():
        raise ValueError(
            "A node of HistGradientBoosting refers to a set of categories that "
            f"is out of range: the model has {len(bitsets)} sets for this tree. It was "
            "damaged, or saved by another version of scikit-learn."
        )
