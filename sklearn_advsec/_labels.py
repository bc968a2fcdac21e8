"""Labels as positions in classes, and columns of probabilities in their order."""

import numpy as np


def find_positions(labels, classes):
    """Return the position of each label in the classes, and whether it has any."""
    order = np.argsort(classes)
    try:
        position = np.searchsorted(classes, labels, sorter=order)
        position = order[np.minimum(position, len(classes) - 1)]
        known = np.asarray(classes[position] == labels)
    except TypeError:  # text, or None, among numbers
        known = np.zeros(np.shape(labels), dtype=bool)
    if not known.all() and labels.dtype == object:
        table = {label: i for i, label in enumerate(classes.tolist())}
        found = [table.get(label, -1) for label in labels.ravel().tolist()]
        position = np.array(found, dtype=np.intp).reshape(labels.shape)
        known = position >= 0
    elif not known.any():
        position = np.zeros(np.shape(labels), dtype=np.intp)
    return position, known


def class_positions(labels, classes, name):
    """Return the positions of labels in the victim's classes, or raise."""
    labels = np.asarray(labels)
    position, known = find_positions(labels, classes)
    if not known.all():
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
    full[:, find_positions(np.asarray(have), np.asarray(want))[0]] = proba
    return full
