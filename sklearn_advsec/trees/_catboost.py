"""Reader of CatBoost's models, through their JSON form."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from catboost import CatBoostClassifier, CatBoostRegressor

from ._ensemble import MOVES, TreeList, as_regression, refuse
from ._reading import register_reader

# Of classifiers with one score, and with one for each class.
_BINARY, _SEVERAL = ("Logloss", "CrossEntropy"), ("MultiClass", "MultiClassOneVsAll")
# Of regressors: whose predictions are the scores themselves.
_IDENTITY = ("RMSE", "MAE", "Quantile", "Huber", "MAPE", "LogCosh", "Expectile", "Lq")


@register_reader(CatBoostClassifier)
def _catboost(estimator):
    classes, loss = np.asarray(estimator.classes_), _loss(estimator)
    if loss not in (*_BINARY, *_SEVERAL):
        refuse("CatBoost", f"of loss {loss!r}")
    one = loss in _BINARY
    return _booster(
        estimator,
        1 if one else len(classes),
        classes=classes,
        link="positive" if one else "argmax",
        probability="softmax" if loss != "MultiClassOneVsAll" else None,
    )


@register_reader(CatBoostRegressor)
def _catboost_regressor(estimator):
    loss = _loss(estimator)
    if loss not in _IDENTITY:
        refuse("CatBoost", f"of loss {loss!r}")
    return as_regression(_booster(estimator, 1, classes=MOVES))


def _loss(estimator):
    return estimator.get_all_params()["loss_function"].partition(":")[0]


def _booster(estimator, n_scores, **parts):
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        estimator.save_model(str(path), format="json")
        model = json.loads(path.read_text(encoding="utf-8"))
    information = model["features_info"]
    for kind in ("categorical", "text", "embedding"):
        if information.get(f"{kind}_features"):
            refuse(
                "CatBoost",
                f"with {kind} features, of which it looks at statistics (put an encoder "
                "in front of it)",
            )
    floats = information.get("float_features", [])
    column = [int(feature["flat_feature_index"]) for feature in floats]
    # What is missing is below all borders, or above them.
    high = [feature["nan_value_treatment"] == "AsTrue" for feature in floats]
    trees = TreeList("CatBoost", 1 + max(column, default=0), n_scores)
    for tree in model.get("oblivious_trees", model.get("trees", [])):
        expand = _Oblivious(tree, trees) if "leaf_values" in tree else _Nested(trees)
        _add_tree(trees, tree, expand, column, np.array(high, dtype=bool))
    scale, bias = model["scale_and_bias"]
    base = np.ravel(bias).astype(float)
    ensemble = trees.ensemble(base=base, compare="float32", **parts)
    ensemble.value = ensemble.value * float(scale)
    return ensemble


class _Oblivious:
    """A tree with one split for all nodes of a level; its nodes are (level, leaf)."""

    def __init__(self, tree, trees):
        self.splits = tree.get("splits") or []
        self.values = np.reshape(tree["leaf_values"], (-1, trees.n_outputs))
        if len(self.values) != 2 ** len(self.splits):
            trees.damaged(f"a tree has {len(self.values)} leaves")

    def __call__(self, node):
        level, leaf = node or (0, 0)
        if level == len(self.splits):
            return None, self.values[leaf], None, None
        split = self.splits[level]
        return split, None, (level + 1, leaf), (level + 1, leaf + 2**level)


class _Nested:
    """A tree whose nodes hold those below them."""

    def __init__(self, trees):
        self.n_outputs = trees.n_outputs

    def __call__(self, node):
        if "split" in node:
            return node["split"], None, node["left"], node["right"]
        return None, np.reshape(node["value"], self.n_outputs), None, None


def _add_tree(trees, tree, expand, column, high):
    """Add a tree without the nodes that no row reaches."""
    rows = []  # feature, threshold, left, right, missing_left, value
    nothing = np.zeros(trees.n_outputs)
    stack = [(None if isinstance(expand, _Oblivious) else tree, {}, None)]
    while stack:
        node, bounds, parent = stack.pop()
        split, value, left, right = expand(node)
        while split is not None:
            if split["split_type"] != "FloatFeature":
                refuse("CatBoost", f"with splits of type {split['split_type']!r}")
            feature = int(split["float_feature_index"])
            if not 0 <= feature < len(column):
                trees.damaged("a split is on a feature that it does not have")
            border = float(split["border"])
            low, up = bounds.get(feature, (-np.inf, np.inf))
            if low < border < up:
                break
            split, value, left, right = expand(left if border >= up else right)
        if parent is not None:
            rows[parent[0]][parent[1]] = len(rows)
        if split is None:
            rows.append([-1, 0.0, 0, 0, False, value])
            continue
        here = len(rows)
        rows.append([column[feature], border, 0, 0, not high[feature], nothing])
        stack.append((right, {**bounds, feature: (border, up)}, (here, 3)))
        stack.append((left, {**bounds, feature: (low, border)}, (here, 2)))
    feature, threshold, left, right, missing_left, value = zip(*rows, strict=True)
    trees.add(
        feature,
        left,
        right,
        np.stack(value),
        threshold=np.array(threshold),
        missing_left=np.array(missing_left),
        unknown_left=np.zeros(len(rows), dtype=bool),
    )
