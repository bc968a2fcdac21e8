"""Tree ensembles of scikit-learn, XGBoost and LightGBM in one array form.

:func:`tree_ensemble` reads a fitted classifier, alone or at the end of a pipeline of
steps that treat the features one by one. The attacks `TreeCoordinateAttack` and
`TreeExactAttack` of :mod:`~sklearn_advsec.evasion`, and the certificates of
:func:`certify`, work on it.
"""

from ._certify import certify
from ._ensemble import TreeEnsemble
from ._grid import leaf_boxes
from ._reading import is_tree_ensemble, register, supported, tree_ensemble

__all__ = [
    "TreeEnsemble",
    "certify",
    "is_tree_ensemble",
    "leaf_boxes",
    "register",
    "supported",
    "tree_ensemble",
]
