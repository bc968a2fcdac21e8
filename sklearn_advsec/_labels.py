"""Labels as positions in classes, and columns of probabilities in their order."""

import numpy as np
from sklearn.utils import column_or_1d


def as_labels(labels, name, shape=None):
    """Return labels as an array, one for each row or of a given shape, or raise.

    Parameters
    ----------
    labels : array-like
        The labels.
    name : str
        What errors call them.
    shape : tuple of int, default=None
        What their shape must be; None is one dimension.
    """
    try:
        array = np.asarray(labels)
    except ValueError:
        raise ValueError(f"{name} must hold rows of labels, all of one length.") from None
    if shape is None:
        array = column_or_1d(array)
    elif array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}.")
    if array.dtype.kind == "f":
        none = ~np.isfinite(array)
    elif array.dtype == object:
        none = np.array([v is None or v != v for v in array.ravel().tolist()], bool)
    else:
        none = np.zeros(0, bool)
    if none.any() or array.dtype.kind == "c":
        raise ValueError(f"{name} holds values that are no labels: NaN, None or such.")
    return array


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
    try:
        labels = np.asarray(labels)
        position, known = find_positions(labels, classes)
    except (TypeError, ValueError) as error:  # what has no hash, or differs in length
        raise ValueError(f"{name} must hold labels: {error}") from None
    if not known.all():
        unknown = np.unique(labels[~known].astype(str))[:5].tolist()
        raise ValueError(
            f"{name} holds {unknown}, which the victim does not know: its classes are "
            f"{classes.tolist()}."
        )
    return position


def several_classes(y):
    """Return the classes among labels, in order; a ValueError where there is but one."""
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only, {classes.item(0)!r}; classifiers need at least two."
        )
    return classes


def in_columns(proba, have, want):
    """Give probabilities of the classes `have` the columns of the classes `want`."""
    if np.array_equal(have, want):
        return proba
    full = np.zeros((len(proba), len(want)))
    full[:, find_positions(np.asarray(have), np.asarray(want))[0]] = proba
    return full
