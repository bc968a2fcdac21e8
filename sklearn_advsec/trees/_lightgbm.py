"""Reader of LightGBM's classifiers, through their JSON dump."""

import numpy as np
from lightgbm import LGBMClassifier

from ._ensemble import NodeList, refuse
from ._reading import register


@register(LGBMClassifier)
def _lightgbm(estimator):
    model = estimator.booster_.dump_model(num_iteration=estimator.best_iteration_ or -1)
    objective = str(model.get("objective", "none")).split(" ")[0]
    if objective not in ("binary", "multiclass", "multiclassova"):
        refuse("LightGBM", f"of objective {objective!r}")
    if model.get("pandas_categorical"):
        refuse(
            "LightGBM",
            "that hold pandas categories (put an OrdinalEncoder in front of it)",
        )
    n_outputs = model["num_tree_per_iteration"]
    nodes = NodeList(n_outputs)
    for i, tree in enumerate(model["tree_info"]):
        nodes.roots.append(len(nodes))
        _add_lightgbm_node(nodes, tree["tree_structure"], i % n_outputs)
    n_iterations = len(model["tree_info"]) // n_outputs
    return nodes.ensemble(
        classes=np.asarray(estimator.classes_),
        base=np.zeros(1),
        compare="float64",
        divisor=float(n_iterations) if model["average_output"] else 1.0,
        link="logistic" if n_outputs == 1 else "argmax",
    )


def _add_lightgbm_node(nodes, node, output):
    """Add a node and all below it; return its position."""
    if "leaf_value" in node:
        if "leaf_coeff" in node:
            refuse("LightGBM", "of linear trees")
        return nodes.add(leaf=node["leaf_value"], output=output)
    missing = node["missing_type"]
    if missing == "Zero":
        refuse("LightGBM", "with zero_as_missing=True")
    at = nodes.add(feature=node["split_feature"])
    column = nodes.columns
    if node["decision_type"] == "==":  # missing and unknown codes go right
        codes = [int(code) for code in node["threshold"].split("||")]
        column["category"][at] = nodes.add_set(codes, left=True)
    else:
        column["threshold"][at] = node["threshold"]
        # Without missing values in training, LightGBM takes them for zeros.
        default = node["default_left"] if missing == "NaN" else node["threshold"] >= 0
        column["missing_left"][at] = default
    column["left"][at] = _add_lightgbm_node(nodes, node["left_child"], output)
    column["right"][at] = _add_lightgbm_node(nodes, node["right_child"], output)
    return at
