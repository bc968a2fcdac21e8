"""Reader of XGBoost's models, through their JSON dump."""

import json

import numpy as np
from xgboost import XGBClassifier, XGBRegressor

from ._ensemble import MOVES, TreeList, as_regression, refuse
from ._reading import register_reader
from ._steps import CategoryCodes, ValueAsMissing

# Of regressors: whose predictions are the scores themselves.
_CLASSIFIES = ("binary:logistic", "multi:softprob", "multi:softmax")
_IDENTITY = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")


@register_reader(XGBClassifier)
def _xgboost(estimator):
    classes = np.asarray(estimator.classes_)
    one = len(classes) == 2
    ensemble = _booster(
        estimator,
        _CLASSIFIES,
        1 if one else len(classes),
        classes=classes,
        link="logistic" if one else "argmax",
        probability="softmax",
    )
    if one:  # a probability, of which the scores are the logit
        base = ensemble.base.astype(np.float32)
        ensemble.base = -np.log(1 / base - 1, dtype=np.float32).astype(float)
    return ensemble


@register_reader(XGBRegressor)
def _xgboost_regressor(estimator):
    return as_regression(_booster(estimator, _IDENTITY, 1, classes=MOVES))


def _booster(estimator, objectives, n_scores, **parts):
    """Read the trees, whose scores begin at what is called the base score."""
    model = json.loads(bytes(estimator.get_booster().save_raw("json")))["learner"]
    booster, objective = model["gradient_booster"], model["objective"]["name"]
    if booster["name"] not in ("gbtree", "dart"):
        refuse("XGBoost", f"of booster {booster['name']!r}")
    if objective not in objectives:
        refuse("XGBoost", f"of objective {objective!r}")
    drop = booster.get("weight_drop")  # of dart
    booster = booster.get("gbtree", booster)["model"]
    parameters = model["learner_model_param"]
    n_outputs = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    trees = TreeList("XGBoost", int(parameters["num_feature"]), n_outputs)
    if n_outputs != n_scores:
        trees.damaged(f"it has {n_outputs} scores, and not {n_scores}")
    # The last iterations are not used where training was stopped early.
    n_trees = len(booster["trees"])
    best = model["attributes"].get("best_iteration")
    if best is not None:
        n_trees = booster["iteration_indptr"][int(best) + 1]
    for i in range(n_trees):
        weight = np.float32(1 if drop is None else drop[i])
        _add_tree(trees, booster["trees"][i], booster["tree_info"][i], weight)
    base = np.array(json.loads(str(parameters["base_score"]).lower()), dtype=np.float32)
    ensemble = trees.ensemble(
        base=np.atleast_1d(base).astype(float),
        codes="floor",  # below 0 they are unknown
        compare="float32",
        strict=True,
        sum_dtype="float32",
        absent=np.nan,
        **parts,
    )
    # The value that stands for what is missing is none of the booster's.
    if estimator.missing is not None and not np.isnan(estimator.missing):
        ensemble.steps = [ValueAsMissing(estimator.missing)]
    encoded = booster.get("cats", {}).get("enc") or []
    categories = {j: _values(trees, enc) for j, enc in enumerate(encoded) if any(enc)}
    categories = {j: values for j, values in categories.items() if values}
    if categories and ensemble.steps:
        refuse("XGBoost", f"of categories with missing={estimator.missing!r}")
    if categories:
        # It may take a category that it does not know for the next one in the alphabet.
        ensemble.steps = [CategoryCodes(categories, None)]
    return ensemble


def _values(trees, encoded):
    """Return the categories of a column in the order of their codes; [] of numbers."""
    values = encoded["values"]
    if "offsets" not in encoded:
        return values
    ends, letters = encoded["offsets"], encoded["values"]
    if any(not 0 <= a <= b <= len(letters) for a, b in zip(ends, ends[1:], strict=False)):
        trees.damaged("a category is out of range")
    if any(not 0 <= letter < 128 for letter in letters):  # it keeps a part of these
        refuse("XGBoost", "with categories of other letters than ASCII")
    text = bytes(letters).decode()
    return [text[start:end] for start, end in zip(ends, ends[1:], strict=False)]


def _add_tree(trees, tree, output, weight):
    left, right = (np.array(tree[side]) for side in ("left_children", "right_children"))
    inner = left >= 0
    condition = np.array(tree["split_conditions"], dtype=np.float32)
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        value = _vectors_of_leaves(trees, tree, inner)
    else:
        value = trees.one_output((condition * weight).astype(float), output)
    codes, n_codes = {}, len(tree["categories"])
    for node, start, size in zip(
        tree["categories_nodes"],
        tree["categories_segments"],
        tree["categories_sizes"],
        strict=True,
    ):
        if not (0 <= node < len(left) and 0 <= start <= start + size <= n_codes):
            trees.damaged("a set of categories is out of range")
        codes[node] = tree["categories"][start : start + size]
    is_set = np.array(tree["split_type"], dtype=bool) & inner
    if set(np.flatnonzero(is_set)) != set(codes):
        trees.damaged("nodes on categories lack their sets")
    trees.add(
        np.where(inner, tree["split_indices"], -1),
        left,
        right,
        value,
        codes=codes,
        codes_left=False,  # the codes listed go right, all others left
        threshold=condition.astype(float),
        missing_left=np.array(tree["default_left"], dtype=bool),
        unknown_left=is_set,
    )


def _vectors_of_leaves(trees, tree, inner):
    """Return what leaves add to all scores at once (multi_output_tree)."""
    size = trees.n_outputs
    weights = np.array(tree.get("leaf_weights") or [], dtype=np.float32).reshape(-1, size)
    at = np.array(tree["right_children"])  # of leaves: their position among the leaves
    if not len(weights):
        weights = np.array(tree["base_weights"], dtype=np.float32).reshape(-1, size)
        at = np.arange(len(inner))
    at = np.where(inner, 0, at)
    if len(at) and not 0 <= at.min() <= at.max() < len(weights):
        trees.damaged("a leaf lacks its values")
    return weights[at].astype(float)
