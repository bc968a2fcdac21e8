"""What a report of a fault has to say about the machine."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

_DEPENDENCIES = (
    "sklearn-advsec",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "threadpoolctl",
    "torch",
    "skorch",
    "pandas",
    "matplotlib",
    "catboost",
    "lightgbm",
    "xgboost",
    "xgboost-cpu",
    "opacus",
    "rich",
)


def show_versions() -> None:
    """Print the system, Python, and the versions of what this package uses.

    See Also
    --------
    sklearn.show_versions : That of scikit-learn.

    Examples
    --------
    >>> from sklearn_advsec import show_versions
    >>> show_versions()
    System:
        python: 3...
    """
    print("System:")
    print(f"    python: {sys.version.split()[0]}")
    print(f"executable: {sys.executable}")
    print(f"   machine: {platform.platform()}")
    print("\nPackages:")
    for name in _DEPENDENCIES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "not installed"
        print(f"{name:>14}: {version}")
