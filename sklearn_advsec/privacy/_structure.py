"""Structural checks: what a model shows of its training rows without any attack."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from .._estimators import unwrap
from .._sklearn import HasMethods, Interval, validate_params
from ..trees import is_tree_ensemble, tree_ensemble
from ._stored_rows import check_training_rows, stored_rows

# Probabilities that differ by less are one to whoever reads them.
_DECIMALS = 12


@dataclass(repr=False)
class StructuralReport:
    """What a model shows of its training rows by its structure.

    Rows for which the model gives the same answer are a *cell*; of a single decision
    tree, those of one leaf.

    Attributes
    ----------
    min_count : int
        Fewer training rows than that are few.
    min_freedom : int
        Fewer residual degrees of freedom than that are few.
    n_rows : int
        Number of training rows.
    n_parameters : int or None
        Number of learned parameters; None where they are not counted.
    cell_size : ndarray of int, shape (n_rows,)
        How many training rows are in the cell of each.
    leaf_size : ndarray of int, shape (n_rows,), or None
        How many training rows are in the smallest leaf that each reaches, over all trees;
        None without trees that can be read.
    discloses_class : ndarray of bool, shape (n_rows,), or None
        Whether some class has probability 0 in its cell: whoever is in it is known not to
        have that class. None without probabilities.
    in_small_group : ndarray of bool, shape (n_rows,), or None
        Whether, by the probabilities, some class has less than `min_count` rows in the
        cell, though more than none.
    smallest_group : float or None
        The smallest such number of rows, over all cells and classes.
    stored : list of StoredRows
        Training rows that the model carries along.

    See Also
    --------
    structural_checks : Returns one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import structural_checks
    >>> X, y = load_iris(return_X_y=True)
    >>> report = structural_checks(DecisionTreeClassifier(max_depth=1).fit(X, y), X)
    >>> report.cell_size.min(), report.n_parameters, report.degrees_of_freedom
    (np.int64(50), 6, 144)
    """

    min_count: int
    min_freedom: int
    n_rows: int
    n_parameters: int | None
    cell_size: np.ndarray
    leaf_size: np.ndarray | None
    discloses_class: np.ndarray | None
    in_small_group: np.ndarray | None
    smallest_group: float | None
    stored: list

    @property
    def degrees_of_freedom(self) -> int | None:
        """Number of training rows less that of parameters; None where not counted."""
        return None if self.n_parameters is None else self.n_rows - self.n_parameters

    @property
    def is_stored(self) -> np.ndarray:
        """Which training rows the model carries along, as a mask."""
        inside = np.zeros(self.n_rows, dtype=bool)
        for found in self.stored:
            if found.holds == "rows":
                inside[found.rows] = True
        return inside

    def checks(self) -> list[dict[str, Any]]:
        """Return the checks, one in a row.

        Returns
        -------
        checks : list of dict
            `check`, its `value`, the `limit`, and whether it `fails`: None where it does
            not apply to this model.
        """
        few, free = self.min_count, self.degrees_of_freedom
        leaf = None if self.leaf_size is None else int(self.leaf_size.min())
        disclosing = self.discloses_class
        group = self.smallest_group
        n_stored = int(self.is_stored.sum())
        kept = [found for found in self.stored if found.holds != "bytes"]
        return [
            _check("training rows in the smallest cell", int(self.cell_size.min()), few),
            _check("training rows in the smallest leaf", leaf, few),
            _check("training rows of a class in a cell", group, few),
            {
                "check": "training rows in cells without some class",
                "value": None if disclosing is None else int(disclosing.sum()),
                "limit": 0,
                "fails": None if disclosing is None else bool(disclosing.any()),
            },
            _check("residual degrees of freedom", free, self.min_freedom),
            {
                "check": "training rows inside of the model",
                "value": n_stored,
                "limit": 0,
                "fails": n_stored > 0,
            },
            {
                "check": "arrays with an entry for each training row",
                "value": sum(found.holds not in ("rows",) for found in kept),
                "limit": 0,
                "fails": any(found.holds not in ("rows",) for found in kept),
            },
        ]

    def __repr__(self):
        failed = [check["check"] for check in self.checks() if check["fails"]]
        return f"StructuralReport(n_rows={self.n_rows}, fails={failed})"


def _check(name, value, limit):
    fails = None if value is None else bool(value < limit)
    return {"check": name, "value": value, "limit": limit, "fails": fails}


@validate_params(
    {
        "estimator": [HasMethods(["predict"])],
        "X": ["array-like", "sparse matrix"],
        "y": ["array-like", None],
        "min_count": [Interval(Integral, 1, None, closed="left")],
        "min_freedom": [Interval(Integral, None, None, closed="neither")],
    }
)
def structural_checks(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    min_count: int = 10,
    min_freedom: int = 10,
) -> StructuralReport:
    """Check what a model shows by its structure; nothing is fitted, and nothing guessed.

    They are the checks of a table of counts before it is released: cells with few
    persons, cells in which nobody has some property, a model with about as many
    parameters as persons, and rows that the file itself holds.

    Parameters
    ----------
    estimator : classifier or regressor
        The fitted model.
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        The rows that it was trained on, all of them.
    y : array-like of shape (n_samples,), default=None
        Their labels; to find them inside of the model.
    min_count : int, default=10
        Fewer training rows than that are few.
    min_freedom : int, default=10
        Fewer residual degrees of freedom than that are few.

    Returns
    -------
    report : StructuralReport
        What was found.

    See Also
    --------
    stored_rows : The search for rows inside.
    PrivacyAudit : These checks beside attacks.

    References
    ----------
    .. [1] J. Smith et al., "Safe machine learning model release from trusted research
       environments: the SACRO-ML package", arXiv:2212.01233.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import structural_checks
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> tree = DecisionTreeClassifier(min_samples_leaf=20, random_state=0).fit(X, y)
    >>> structural_checks(tree, X, y)
    StructuralReport(n_rows=569, fails=['training rows of a class in a cell', ...])
    """
    y = check_training_rows(estimator, X, y)
    victim = unwrap(estimator)
    model, rows = _last_step(victim, X)
    leaves = _leaves(model, rows)
    probabilities = _answers(victim, X)
    if leaves is not None and leaves.shape[1] == 1 and hasattr(model, "tree_"):
        cell = np.unique(leaves[:, 0], return_inverse=True)[1].ravel()
    else:
        answers = np.round(probabilities, _DECIMALS) + 0.0
        cell = np.unique(answers, axis=0, return_inverse=True)[1].ravel()
    counts = np.bincount(cell)
    disclosing = small = smallest = None
    if is_classifier(victim) and hasattr(victim, "predict_proba"):
        disclosing = np.isclose(probabilities, 0).any(axis=1)
        group = probabilities * counts[cell][:, np.newaxis]
        some = group > 0
        small = (some & (group < min_count)).any(axis=1)
        smallest = float(group[some].min())
    return StructuralReport(
        min_count,
        min_freedom,
        len(cell),
        n_parameters(model),
        counts[cell],
        None if leaves is None else _smallest_leaf(leaves),
        disclosing,
        small,
        smallest,
        stored_rows(estimator, X, y),
    )


def _last_step(victim, X):
    """Return what decides in the end, and the rows as it sees them."""
    while True:
        if hasattr(victim, "best_estimator_"):
            victim = victim.best_estimator_
        elif isinstance(victim, Pipeline):
            if len(victim) > 1:
                X = victim[:-1].transform(X)
            victim = victim.steps[-1][1]
        else:
            return victim, X


def _answers(victim, X):
    if is_classifier(victim) and hasattr(victim, "predict_proba"):
        return np.asarray(victim.predict_proba(X), dtype=np.float64)
    answers = victim.predict(X)
    if np.asarray(answers).dtype.kind not in "biuf":
        answers = np.unique(answers, return_inverse=True)[1]
    return np.asarray(answers, dtype=np.float64).reshape(len(answers), -1)


def _leaves(model, X):
    """Return the leaf of each row in each tree; None without trees that can be read."""
    if is_tree_ensemble(model):
        return tree_ensemble(model).apply(X)
    if hasattr(model, "apply") and hasattr(model, "tree_"):
        return np.asarray(model.apply(X)).reshape(-1, 1)
    if hasattr(model, "apply") and hasattr(model, "estimators_"):
        leaves = np.asarray(model.apply(X))
        return leaves.reshape(len(leaves), -1)
    return None


def _smallest_leaf(leaves):
    sizes = np.empty(leaves.shape, dtype=int)
    for tree, column in enumerate(leaves.T):
        _, at, counts = np.unique(column, return_inverse=True, return_counts=True)
        sizes[:, tree] = counts[at.ravel()]
    return sizes.min(axis=1)


def n_parameters(model):
    """Count what a model has learned; None where that is not known.

    A tree has a feature and a threshold at each inner node, and of its leaves the shares
    of all classes but one, or a value; networks and linear models have coefficients.
    """
    if is_tree_ensemble(model):
        trees = tree_ensemble(model)
        n_leaves = trees.n_leaves
        n_inner = len(trees.feature) - n_leaves
        shares = trees.probability == "share" and trees.value.shape[1] > 1
        return 2 * n_inner + n_leaves * (trees.value.shape[1] - 1 if shares else 1)
    if hasattr(model, "tree_"):
        n_leaves = int(model.tree_.n_leaves)
        return 2 * (model.tree_.node_count - n_leaves) + n_leaves
    if hasattr(model, "estimators_") and hasattr(model, "apply"):
        return sum(n_parameters(tree) for tree in np.ravel(model.estimators_))
    if hasattr(model, "coefs_") and hasattr(model, "intercepts_"):
        return sum(part.size for part in (*model.coefs_, *model.intercepts_))
    for name in ("module_", "module"):
        parameters = getattr(getattr(model, name, None), "parameters", None)
        if callable(parameters):
            return sum(p.numel() for p in parameters() if p.requires_grad)
    if hasattr(model, "intercept_"):
        try:
            return int(np.size(model.coef_) + np.size(model.intercept_))
        except AttributeError:  # kernels have no coefficients of features
            return None
    return None
