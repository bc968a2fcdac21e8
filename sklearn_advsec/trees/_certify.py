"""Certified radii: within them an ensemble's answer is proved not to change."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._labels import class_positions
from .._parallel import in_parallel
from .._progress import logged
from .._rows import RowCodec, check_rows, is_dataframe
from ._bounds import MergedTrees, first_cost
from ._edges import put_values
from ._ensemble import UNCHANGED
from ._exact import close_gap, solve
from ._grid import TreeGrid
from ._reading import tree_ensemble
from ._row import Moves, RowCells, RowProblem
from ._search import Search
from ._verification import ask, check_reading

# By how much the radius that is tried grows.
_GROWTH = (1.05, 1.1, 1.2, 1.35, 1.6, 2.0)
# Rows that are certified together, in one process.
_ROWS = 16


class ClassFlip:
    """What it takes, for one row, to put one class ahead of one or several others.

    Parameters
    ----------
    row_cells : RowCells
        The row in the grid.
    target : int
        Position of the class that is wanted.
    rivals : list of int
        Positions of those that it has to be ahead of.

    Attributes
    ----------
    gains, base : ndarray of shape (n_rivals, n_leaves) and (n_rivals,)
        How far leaves put the class ahead.
    confirmed, least : ndarray of shape (n_rivals,)
        The gains that are enough, and that are needed at the least.
    halves : ndarray of shape (n_rivals,)
        What whole numbers have to be above.
    lower : float
        A cost below which it does not succeed.
    """

    def __init__(self, row_cells, target, rivals):
        grid = self.grid = row_cells.grid
        ensemble = grid.ensemble
        parts = [ensemble.gains(target, rival) for rival in rivals]
        self.row_cells = row_cells
        self.gains = np.stack([gain[grid.leaf_node] for gain, _ in parts])
        self.base = np.array([base for _, base in parts])
        needed = [ensemble.needed(target, rival) for rival in rivals]
        self.confirmed, self.least = np.array(needed).T
        self.halves = np.array([ensemble.half(target, rival) for rival in rivals])
        self.lower = first_cost(
            row_cells.reach, grid.leaf_tree, self.gains, self.base, self.least
        )

    def search(self, upper):
        """Return the search for what costs less than `upper`."""
        return Search(
            self.row_cells, self.gains, self.base, self.confirmed, self.lower, upper
        )

    def holds(self, budget):
        """Whether bounds prove that nothing succeeds within a budget; and a bound."""
        if self.lower > budget:
            return True, self.lower
        problem = RowProblem(self.row_cells, self.gains, self.base, budget)
        bound = MergedTrees(problem, self.least).bound()
        return bound > budget, bound

    def bound(self):
        """Return a cost below which it does not succeed, from bounds alone."""
        proved = self.lower
        if not np.isfinite(proved) or proved == 0:
            return proved
        counts = self.row_cells.norm == 0  # whole numbers: the next cost is one more
        for factor in _GROWTH:
            budget = proved if counts else self.lower * factor
            holds, bound = self.holds(budget)
            if not holds:
                return max(proved, bound)
            proved = budget + counts
        return proved


def certified_radii(
    estimator: Any,
    X: ArrayLike,
    eps: float | None = None,
    *,
    y: ArrayLike | None = None,
    norm: float = np.inf,
    method: Literal["bounds", "exact"] = "bounds",
    time_limit: float = 10.0,
    n_jobs: int | None = None,
) -> np.ndarray:
    """Radii within which the answers of a tree ensemble are proved not to change.

    Parameters
    ----------
    estimator : classifier or RegressionVictim
        A fitted tree ensemble, alone or at the end of a pipeline (see
        :func:`tree_ensemble`). Of a :class:`~sklearn_advsec.victim.RegressionVictim`, the
        answer changes where the prediction moves by more than its `delta`.
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        Rows, with the columns of `fit` in their order. All numbers may change, to any
        other; missing values and categories (text, booleans) stay as they are. A column
        of numbers that encoders cut into too many cells to be searched counts as far as
        to the next cell.
    eps : float, default=None
        The radius in question. Without it, each row gets the largest one that is proved.
    y : array-like of shape (n_samples,), default=None
        True labels: rows that are wrong already have radius 0, and are not certified. Of
        a regressor, the numbers that predictions are to stay near.
    norm : {np.inf, 1, 2, 0}, default=np.inf
        The norm of changes.
    method : {"bounds", "exact"}, default="bounds"
        By the bounds of [1]_, whose groups of trees grow as long as that is cheap, or by
        the exact solver of :class:`~sklearn_advsec.evasion.TreeExactAttack`, which is
        tight and slower. The latter knows no norm 2.
    time_limit : float, default=10.0
        Seconds per row and class for ``method="exact"``; what is proved by then counts.
    n_jobs : int, default=None
        Number of joblib jobs, between which the rows are shared out.

    Returns
    -------
    certificate : ndarray of shape (n_samples,)
        Radii, or with `eps` whether no change of at most `eps` changes the answer. No
        change *smaller* than a radius does; one of just that size may.

    Raises
    ------
    TypeError
        If the estimator cannot be read, or answers otherwise than its trees do.
    ValueError
        For ``method="exact"`` with norm 2, an `eps` that is none, other columns than
        those of `fit`, and rows of which nothing can change.

    See Also
    --------
    sklearn_advsec.evasion.TreeExactAttack : The exact distance, row by row.
    sklearn_advsec.defense.certify : Certificates of any model.

    References
    ----------
    .. [1] H. Chen, H. Zhang, S. Si, Y. Li, D. Boning, C.-J. Hsieh, "Robustness
       verification of tree-based models", arXiv:1906.03849 (Section 3.2: cliques of
       boxes; here a box carries its own distance, so that one pass serves all radii).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.trees import certified_radii
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(X, y)
    >>> radii = certified_radii(forest, X[:3])
    >>> exact = certified_radii(forest, X[:3], method="exact")
    >>> bool((0 < radii).all() and (radii <= exact).all())
    True
    >>> certified_radii(forest, X[:3], eps=0.1)
    array([ True,  True,  True])
    """
    if method not in ("bounds", "exact"):
        raise ValueError(f"method must be 'bounds' or 'exact'; got {method!r}.")
    if norm not in (np.inf, 1, 2, 0):
        raise ValueError(f"norm must be one of np.inf, 1, 2 and 0; got {norm!r}.")
    if method == "exact" and norm == 2:
        raise ValueError("method='exact' knows the norms np.inf, 1 and 0; got norm=2.")
    check_radius(eps)
    if not isinstance(time_limit, Real) or not time_limit > 0:
        raise ValueError(f"time_limit must be seconds above 0; got {time_limit!r}.")
    ensemble = tree_ensemble(estimator)
    X = check_rows(X, "certify", allow_nan=True)
    ensemble.check(X)
    if y is not None:
        y = column_or_1d(y)
        check_consistent_length(X, y)
    grid, codec = TreeGrid(ensemble, X), RowCodec(X)
    if not grid.movable.any():
        raise ValueError(
            "certify lets numbers change, and there are none: the columns "
            f"{list(X.columns)} hold categories. For changes of categories, use "
            "TreeExactAttack with constraints; its `lower` is a certificate."
        )
    x = codec.encode(X).astype(np.float64)
    predicted = check_reading(grid, estimator, X, x)
    references = None
    if ensemble.link == "regression":
        references = predicted.astype(float) if y is None else y.astype(float)
        grid.around(references[0])  # raises where no `delta` is known
        wrong = np.abs(predicted - references) > ensemble.delta
        labels = np.full(len(X), UNCHANGED)
    else:
        wrong = np.zeros(len(X), bool) if y is None else predicted != y
        labels = class_positions(predicted, ensemble.classes, "the model's answers")
    parts = (
        (
            X.iloc[chunk] if is_dataframe(X) else X[chunk],
            x[chunk],
            labels[chunk],
            wrong[chunk],
            None if references is None else references[chunk],
        )
        for chunk in gen_batches(len(X), _ROWS)
    )
    certified = partial(_certify_rows, grid, estimator, (eps, norm, method, time_limit))
    n_parts = -(-len(X) // _ROWS)
    radii = in_parallel(certified, parts, n_parts, n_jobs)
    return np.concatenate(list(logged(radii, "certified_radii", "part", n_parts)))


def check_radius(eps):
    """Raise unless a radius is None or a number that is not negative."""
    is_number = isinstance(eps, Real) and not isinstance(eps, bool)
    if eps is not None and not (is_number and eps >= 0):
        raise ValueError(f"eps must be a number that is not negative; got {eps!r}.")


def _certify_rows(every, estimator, settings, part):
    X, values, labels, wrong, references = part
    eps, norm, method, time_limit = settings
    budget = np.inf if eps is None else float(eps) ** 2 if norm == 2 else float(eps)
    radii = np.zeros(len(values))
    for i, x in enumerate(values):
        if wrong[i]:
            continue
        grid = every if references is None else every.around(references[i])
        free = grid.movable & ~np.isnan(x)
        row = X.iloc[i : i + 1] if is_dataframe(X) else X[i : i + 1]
        moves = Moves(np.where(free, -np.inf, x), np.where(free, np.inf, x))
        row_cells = RowCells(grid, x, moves, norm, row)
        differs = partial(_differs, estimator, grid, row, np.flatnonzero(free), labels[i])
        others = [k for k in range(len(grid.ensemble.classes)) if k != labels[i]]
        cost = _certify_row(
            row_cells, labels[i], others, budget, method, time_limit, differs
        )
        radii[i] = row_cells.distance(min(cost, row_cells.unsearched))
    return radii if eps is None else (radii > eps) & ~wrong


def _differs(estimator, grid, row, moving, label, point):
    """Ask the model itself, where the order of its roundings decides."""
    asked = put_values(row, moving, np.zeros_like(moving), point[moving], grid.categories)
    answer, ensemble = ask(estimator, asked)[0], grid.ensemble
    if ensemble.link == "regression":
        return bool(ensemble.moves(answer) != label)
    return bool(answer != ensemble.classes[label])


def _certify_row(row_cells, label, others, budget, method, time_limit, differs):
    """Return a cost below which no class wins; above the budget if none does within."""
    lowest = np.inf
    for target in others:
        flip = ClassFlip(row_cells, target, [label])
        if flip.lower > min(lowest, budget):
            lowest = min(lowest, flip.lower)
        elif method == "bounds" and np.isfinite(budget):
            holds, bound = flip.holds(budget)
            lowest = min(lowest, np.inf if holds else bound)
        elif method == "bounds":
            lowest = min(lowest, flip.bound())
        else:
            upper = min(lowest, np.nextafter(budget, np.inf))
            search = flip.search(upper).run()
            lower, _ = solve(search, flip, time_limit, differs)
            lower, proved = close_gap(row_cells, lower, search.cost)
            if not proved:
                lower = max(lower, flip.bound())
            lowest = min(lowest, lower)
    return lowest
