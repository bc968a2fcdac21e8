"""Stolen boxes as a fitted scikit-learn decision tree."""

import numpy as np
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

from ._box_search import Region, above


def share_of(region, root):
    """Share of the volume of `root` that a region takes.

    Both are bounded by float32 values; a cut lies in the middle between two of them.
    """
    low = np.where(region.low > root.low, _middle(region.low, -1), root.low)
    high = np.where(region.high < root.high, _middle(region.high, 1), root.high)
    width = root.high.astype(np.float64) - root.low
    varied = width > 0
    return float(np.prod((high - low)[varied] / width[varied]))


def leaves_of(root):
    """Return the regions without a split, from left to right."""
    leaves, stack = [], [root]
    while stack:
        region = stack.pop()
        if region.left is None:
            leaves.append(region)
        else:
            stack += [region.right, region.left]
    return leaves


def merge_same(root):
    """Return an equivalent tree with one leaf per code: each code's leaf is a box.

    Parts of one leaf that were found separately become one box. A tree over those boxes
    exists, and at every node some cut goes through none of them.
    """
    boxes = {}
    for leaf in leaves_of(root):
        low, high = boxes.get(leaf.code, (leaf.low, leaf.high))
        boxes[leaf.code] = np.minimum(low, leaf.low), np.maximum(high, leaf.high)
    codes = np.array(list(boxes))
    lows = np.array([low for low, _ in boxes.values()])
    highs = np.array([high for _, high in boxes.values()])
    merged = Region(root.low, root.high, root.given)
    stack = [(merged, np.arange(len(codes)))]
    while stack:
        region, at = stack.pop()
        if len(at) == 1:
            region.code, region.certified = codes[at[0]], True
            continue
        feature, cut = _free_cut(lows[at], highs[at])
        goes_left = highs[at, feature] <= cut
        left, right = region.split(feature, cut)
        stack += [(right, at[~goes_left]), (left, at[goes_left])]
    return merged


def _free_cut(lows, highs):
    """Find the most balanced cut that goes through none of the boxes."""
    best = None
    for j in range(lows.shape[1]):
        cuts = np.unique(highs[:, j])[:-1]
        if not len(cuts):
            continue
        crossed = (lows[:, j] <= cuts[:, None]) & (highs[:, j] > cuts[:, None])
        for cut in cuts[~crossed.any(axis=1)]:
            left = int((highs[:, j] <= cut).sum())
            balance = abs(len(lows) - 2 * left)
            if best is None or balance < best[0]:
                best = balance, j, cut
    return best[1:]


def tree_copy(root, values, X, classes=None):
    """Build a decision tree.

    Parameters
    ----------
    root : Region
        The splits.
    values : ndarray of shape (n_codes, n_outputs)
        What the victim answers for each code.
    X : ndarray of shape (n_samples, n_features)
        The attacker's rows: what `n_node_samples` counts.
    classes : ndarray of shape (n_classes,), default=None
        Classes of a classifier; None for a regressor.

    Returns
    -------
    copy : DecisionTreeClassifier or DecisionTreeRegressor
        Fitted, with a `tree_`.
    """
    n_outputs = 1 if classes is None else len(classes)
    nodes, node_values, depth = [], [], 0
    # Children before parents in `order`, so that a parent's value is known from theirs.
    order, stack = [], [(root, np.arange(len(X)), 0)]
    while stack:
        region, rows, level = stack.pop()
        region.index = len(order)
        order.append((region, rows))
        depth = max(depth, level)
        if region.left is not None:
            goes_left = X[rows, region.feature].astype(np.float32) <= region.cut
            stack.append((region.right, rows[~goes_left], level + 1))
            stack.append((region.left, rows[goes_left], level + 1))
    nodes = np.zeros(len(order), dtype=NODE_DTYPE)
    node_values = np.zeros((len(order), 1, n_outputs))
    for region, rows in reversed(order):
        i = region.index
        node = nodes[i]
        node["n_node_samples"] = node["weighted_n_node_samples"] = len(rows)
        if region.left is None:
            node["left_child"] = node["right_child"] = -1
            node["feature"] = node["threshold"] = -2
            node_values[i, 0] = values[region.code]
        else:
            left, right = region.left.index, region.right.index
            node["left_child"], node["right_child"] = left, right
            node["feature"] = region.feature
            node["threshold"] = _middle(np.float32(region.cut), 1)
            weights = nodes["n_node_samples"][[left, right]].astype(np.float64)
            weights += not weights.any()  # no row of the attacker's comes here
            node_values[i, 0] = np.average(
                node_values[[left, right], 0], axis=0, weights=weights
            )
        if classes is not None:
            node["impurity"] = 1 - np.sum(node_values[i, 0] ** 2)
    tree = Tree(X.shape[1], np.array([n_outputs], dtype=np.intp), 1)
    state = {"max_depth": depth, "node_count": len(nodes), "nodes": nodes}
    tree.__setstate__({**state, "values": node_values})
    copy = DecisionTreeRegressor() if classes is None else DecisionTreeClassifier()
    copy.tree_ = tree
    copy.n_features_in_, copy.n_outputs_ = X.shape[1], 1
    copy.max_features_ = X.shape[1]
    if classes is not None:
        copy.classes_, copy.n_classes_ = classes, len(classes)
    return copy


def _middle(value, direction):
    """Return the float64 halfway to the next float32 in a direction."""
    other = above(value) if direction > 0 else np.nextafter(value, np.float32(-np.inf))
    return (np.float64(value) + other) / 2
