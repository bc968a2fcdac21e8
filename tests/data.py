"""Data sets of the tests: scikit-learn's bundled ones, and files of the data folder."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets
from sklearn.preprocessing import minmax_scale

ROOT = Path(__file__).resolve().parents[1]


@cache
def _bundled(name, scaled):
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (minmax_scale(X) if scaled else X), y


def bundled(name, *, scaled=False):
    """Return `(X, y)` of a data set of scikit-learn, read once; the arrays are copies.

    Parameters
    ----------
    name : str
        As in ``load_<name>``.
    scaled : bool
        Whether each column is stretched to [0, 1].
    """
    return tuple(array.copy() for array in _bundled(name, scaled))


def data_file(name):
    """Return the path of a file that the repository does not hold, or skip the test."""
    folder = os.environ.get("SKLEARN_ADVSEC_DATA")
    folder = Path(folder) if folder else ROOT.parent / "shared" / "data"
    if not (folder / name).exists():
        pytest.skip(f"needs {name} in the folder that SKLEARN_ADVSEC_DATA names")
    return folder / name


def mnist(n_rows):
    """Return the first training rows of MNIST, flat and in [0, 1], with their labels."""
    with np.load(data_file("mnist.npz")) as arrays:
        X = arrays["X_train"][:n_rows].reshape(n_rows, -1).astype(np.float64) / 255
        return X, arrays["y_train"][:n_rows]
