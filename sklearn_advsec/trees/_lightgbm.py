"""Reader of LightGBM's models, through their text form."""

import json
from dataclasses import replace

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor

from ._ensemble import MOVES, TreeList, as_regression, refuse
from ._reading import register_reader
from ._steps import CategoryCodes, TinyAsZero

# What is not larger than this is zero to LightGBM.
_TINY = float(np.float32(1e-35))
# Bits of a node's decision type, and its values for what is missing.
_CATEGORICAL, _DEFAULT_LEFT, _ZERO, _NAN = 1, 2, 1, 2


_CLASSIFIES = ("binary", "multiclass", "multiclassova")
# Of regressors: whose predictions are the scores themselves.
_IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")


@register_reader(LGBMClassifier)
def _lightgbm(estimator):
    classes = np.asarray(estimator.classes_)
    objective, ensemble = _booster(estimator, _CLASSIFIES)
    n_outputs = ensemble.value.shape[1]
    if n_outputs != (1 if objective == "binary" else len(classes)):
        raise ValueError(
            f"This LightGBM model is damaged: it has {n_outputs} scores for "
            f"{len(classes)} classes."
        )
    return replace(
        ensemble,
        classes=classes,
        link="logistic" if n_outputs == 1 else "argmax",
        probability=None if objective == "multiclassova" else "softmax",
    )


@register_reader(LGBMRegressor)
def _lightgbm_regressor(estimator):
    return as_regression(_booster(estimator, _IDENTITY)[1])


def _booster(estimator, objectives):
    """Return the objective, and the trees with their scores."""
    if estimator.get_params().get("pred_early_stop"):
        refuse("LightGBM", "with pred_early_stop=True, which leave out trees,")
    text = estimator.booster_.model_to_string(
        num_iteration=estimator.best_iteration_ or -1
    )
    head, *parts = text.split("\nTree=")
    model = _fields(head)
    objective, *options = model.get("objective", "none").split(" ")
    if objective not in objectives or "sqrt" in options:
        refuse("LightGBM", f"of objective {' '.join([objective, *options])!r}")
    n_outputs = int(model["num_tree_per_iteration"])
    trees = TreeList("LightGBM", int(model["max_feature_idx"]) + 1, n_outputs)
    for i, part in enumerate(parts):
        _add_tree(trees, _fields(part), i % n_outputs)
    average = "average_output" in head.split("\n")
    ensemble = trees.ensemble(
        classes=MOVES,
        base=np.zeros(1),
        compare="float64",
        divisor=float(len(parts) // n_outputs) if average else 1.0,
        steps=[TinyAsZero(_TINY)],
    )
    slope = [option for option in options if option.startswith("sigmoid:")]
    if objective == "binary" and slope:  # of the link, by which probabilities go
        ensemble.value = ensemble.value * float(slope[0].partition(":")[2])
    known = _pandas_categories(text)
    if known:
        infos = model["feature_infos"].split(" ")
        # Of numbers it says a range, of what is constant "none", of categories the codes.
        coded = [j for j, info in enumerate(infos) if info[0] not in "[n"]
        if len(coded) != len(known):
            refuse("LightGBM", "with a constant column of categories")
        categories = dict(zip(coded, known, strict=True))
        ensemble.steps = [CategoryCodes(categories, np.nan), *ensemble.steps]
    return objective, ensemble


def _fields(text):
    """Return what stands behind the = of each line."""
    lines = (line.partition("=") for line in text.split("\n") if "=" in line)
    return {name: value for name, _, value in lines}


def _pandas_categories(text):
    """Return the categories of each column that has some."""
    _, _, value = text.rpartition("pandas_categorical:")
    value = value.strip().split("\n")[0]
    return json.loads(value) if value.startswith("[") else []


def _add_tree(trees, tree, output):
    def read(name, dtype):
        return np.array(tree.get(name, "").split(), dtype=dtype)

    if tree.get("is_linear", "0").strip() == "1":
        refuse("LightGBM", "of linear trees")
    n_leaves = int(tree["num_leaves"])
    leaf, threshold = read("leaf_value", float), read("threshold", float)
    feature, kind = read("split_feature", np.int64), read("decision_type", np.int64)
    left, right = read("left_child", np.int64), read("right_child", np.int64)
    sizes = {len(part) for part in (threshold, feature, kind, left, right)}
    if sizes != {n_leaves - 1} or len(leaf) != n_leaves:
        trees.damaged("arrays of a tree have different lengths")
    missing, n_inner = kind >> 2 & 3, n_leaves - 1
    if (missing == _ZERO).any():
        refuse("LightGBM", "with zero_as_missing=True")
    is_set = (kind & _CATEGORICAL) > 0
    # Without missing values in training, LightGBM takes them for zeros; at sets of codes,
    # they go right, and unknown codes too.
    missing_left = np.where(missing == _NAN, kind & _DEFAULT_LEFT > 0, threshold >= 0)
    # Leaves are counted from -1 downwards, and come last here.
    left, right = (np.where(side < 0, n_inner - 1 - side, side) for side in (left, right))
    trees.add(
        np.append(feature, np.full(n_leaves, -1)),
        np.append(left, np.zeros(n_leaves)),
        np.append(right, np.zeros(n_leaves)),
        trees.one_output(np.append(np.zeros(n_inner), leaf), output),
        codes=_sets_of_codes(trees, is_set, threshold, read),
        threshold=np.append(np.where(is_set, 0.0, threshold), np.zeros(n_leaves)),
        missing_left=np.append(missing_left & ~is_set, np.zeros(n_leaves, bool)),
        unknown_left=np.zeros(n_inner + n_leaves, dtype=bool),
    )


def _sets_of_codes(trees, is_set, threshold, read):
    """Return the codes that go left at each node on categories."""
    begins, words = read("cat_boundaries", np.int64), read("cat_threshold", np.uint32)
    codes = {}
    for node in np.flatnonzero(is_set).tolist():
        number = threshold[node]
        if not 0 <= number < len(begins) - 1:
            trees.damaged("a set of categories is out of range")
        start, end = begins[int(number)], begins[int(number) + 1]
        if not 0 <= start <= end <= len(words):
            trees.damaged("a set of categories is out of range")
        own = words[start:end].astype("<u4").view(np.uint8)
        codes[node] = np.flatnonzero(np.unpackbits(own, bitorder="little"))
    return codes
