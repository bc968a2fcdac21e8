"""Tree ensembles of scikit-learn, XGBoost and LightGBM in one array form.

:func:`tree_ensemble` reads a fitted classifier, alone or at the end of a pipeline of
steps that treat the features one by one. The attacks `TreeCoordinateAttack` and
`TreeExactAttack` of :mod:`~sklearn_advsec.evasion`, and the certificates of
:func:`certify`, work on it.
"""

from ._trees_certify import certify
from ._trees_form import TreeEnsemble
from ._trees_grid import leaf_boxes
from ._trees_read import is_tree_ensemble, register, supported, tree_ensemble

__all__ = [
    "TreeEnsemble",
    "certify",
    "is_tree_ensemble",
    "leaf_boxes",
    "register",
    "supported",
    "tree_ensemble",
]
