"""Reader of XGBoost's classifiers, through their JSON dump."""

import json

import numpy as np
from xgboost import XGBClassifier

from ._ensemble import NodeList, refuse
from ._reading import register


@register(XGBClassifier)
def _xgboost(estimator):
    model = json.loads(bytes(estimator.get_booster().save_raw("json")))["learner"]
    booster, objective = model["gradient_booster"], model["objective"]["name"]
    if booster["name"] not in ("gbtree", "dart"):
        refuse("XGBoost", f"of booster {booster['name']!r}")
    if objective not in ("binary:logistic", "multi:softprob", "multi:softmax"):
        refuse("XGBoost", f"of objective {objective!r}")
    drop = booster.get("weight_drop")  # of dart
    booster = booster.get("gbtree", booster)["model"]
    if any(booster.get("cats", {}).get("enc") or []):
        refuse(
            "XGBoost",
            "that hold pandas categories (put an OrdinalEncoder in front of it)",
        )
    parameters = model["learner_model_param"]
    n_classes = max(1, int(parameters["num_class"]))
    # The last iterations are not used where training was stopped early.
    n_trees = len(booster["trees"])
    best = model["attributes"].get("best_iteration")
    if best is not None:
        n_trees = booster["iteration_indptr"][int(best) + 1]
    nodes = NodeList(n_classes)
    for i in range(n_trees):
        weight = np.float32(1 if drop is None else drop[i])
        _add_xgboost_tree(nodes, booster["trees"][i], booster["tree_info"][i], weight)
    base = np.array(json.loads(str(parameters["base_score"]).lower()), dtype=np.float32)
    if n_classes == 1:  # a probability, of which the scores are the logit
        base = -np.log(1 / base - 1, dtype=np.float32)
    return nodes.ensemble(
        classes=np.asarray(estimator.classes_),
        base=np.atleast_1d(base).astype(float),
        compare="float32",
        strict=True,
        sum_dtype="float32",
        link="logistic" if n_classes == 1 else "argmax",
    )


def _add_xgboost_tree(nodes, tree, output, weight):
    first = len(nodes)
    nodes.roots.append(first)
    begins = dict(zip(tree["categories_nodes"], tree["categories_segments"], strict=True))
    sizes = dict(zip(tree["categories_nodes"], tree["categories_sizes"], strict=True))
    for i, left in enumerate(tree["left_children"]):
        condition = np.float32(tree["split_conditions"][i])
        if left < 0:
            nodes.add(leaf=float(condition * weight), output=output)
            continue
        category, is_set = -1, bool(tree["split_type"][i])
        if is_set:  # the codes listed go right, all others left
            codes = tree["categories"][begins[i] : begins[i] + sizes[i]]
            category = nodes.add_set(codes, left=False)
        nodes.add(
            feature=tree["split_indices"][i],
            threshold=float(condition),
            left=first + left,
            right=first + tree["right_children"][i],
            missing_left=bool(tree["default_left"][i]),
            category=category,
            unknown_left=is_set,
        )
