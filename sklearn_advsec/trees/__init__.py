"""Tree ensembles of scikit-learn, XGBoost, LightGBM and CatBoost in one array form.

:func:`tree_ensemble` reads a fitted classifier or regressor, alone, at the end of a
pipeline of steps that treat the features one by one, or behind a threshold, a calibration
or a vote where it is still a sum over trees that decides. The attacks
`TreeCoordinateAttack` and `TreeExactAttack` of :mod:`~sklearn_advsec.evasion`, and the
certificates of :func:`certified_radii`, work on it; regressors come in a
:class:`~sklearn_advsec.victim.RegressionVictim`.
"""

from ._certificate import check_certificate
from ._certify import certified_radii
from ._ensemble import TreeEnsemble
from ._grid import leaf_boxes
from ._reading import is_tree_ensemble, register_reader, supported, tree_ensemble

__all__ = [
    "TreeEnsemble",
    "certified_radii",
    "check_certificate",
    "is_tree_ensemble",
    "leaf_boxes",
    "register_reader",
    "supported",
    "tree_ensemble",
]

# By their former names, which `defense` and `differentiable` have, too.
certify, register = certified_radii, register_reader
