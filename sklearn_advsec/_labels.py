"""Labels as positions in classes, and columns of probabilities in their order."""

import numpy as np


def class_positions(labels, classes, name):
    """Return the positions of labels in the victim's classes, or raise."""
    labels = np.asarray(labels)
    order = np.argsort(classes)
    try:
        position = np.searchsorted(classes, labels, sorter=order)
        position = order[np.minimum(position, len(classes) - 1)]
        known = classes[position] == labels
    except TypeError:  # text against numbers
        known = np.zeros(labels.shape, dtype=bool)
    if not np.all(known):
        unknown = np.unique(labels[~known].astype(str))[:5].tolist()
        raise ValueError(
            f"{name} holds {unknown}, which the victim does not know: its classes are "
            f"{classes.tolist()}."
        )
    return position


def in_columns(proba, have, want):
    """Give probabilities of the classes `have` the columns of the classes `want`."""
    if np.array_equal(have, want):
        return proba
    full = np.zeros((len(proba), len(want)))
    order = np.argsort(want)
    full[:, order[np.searchsorted(want, have, sorter=order)]] = proba
    return full
