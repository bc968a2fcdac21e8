"""Reconstruction of the training rows of a forest (DRAFT, Ferry et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp
from sklearn.utils import check_array

from .._sklearn import HasMethods, Interval, check_parameters
from ._counting import (
    CountSystem,
    LeafCounts,
    check_domain,
    n_points,
)


@dataclass(repr=False)
class Reconstruction:
    """A table of rows that a forest could have been trained on.

    Attributes
    ----------
    rows : ndarray of shape (n_found, n_features)
        The rows.
    labels : ndarray of shape (n_found,)
        Their labels.
    certain : ndarray of bool, shape (n_found,)
        Which of them are in every table with these counts: they are training rows.
    n_rows : int
        Number of training rows.
    complete : bool
        Whether the table has all counts of the forest. If not, the solver found none in
        its time, and there are the certain rows only.

    See Also
    --------
    DRAFT : Returns one.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import DRAFT
    >>> tree = DecisionTreeClassifier().fit([[0], [1], [1]], [0, 1, 1])
    >>> DRAFT(tree, [range(2)]).reconstruct()
    Reconstruction(n_found=3, certain=3, n_rows=3, complete=True)
    """

    rows: np.ndarray
    labels: np.ndarray
    certain: np.ndarray
    n_rows: int
    complete: bool

    def error(self, X: ArrayLike) -> float:
        """Measure how far a reconstruction is from the training rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            The training rows, in any order.

        Returns
        -------
        error : float
            The share of all values that are wrong, where each row is compared with one of
            its own, in the way that is best for all of them. Rows that were not found are
            wrong.
        """
        X = check_array(X, dtype=np.float64)
        if X.shape != (self.n_rows, self.rows.shape[1]):
            raise ValueError(
                f"X must be the {self.n_rows} training rows, of {self.rows.shape[1]} "
                f"features; it has shape {X.shape}."
            )
        if not len(self.rows):
            return 1.0
        differ = (self.rows[:, np.newaxis] != X[np.newaxis]).mean(axis=2)
        matched = differ[linear_sum_assignment(differ)].sum()
        return float((matched + self.n_rows - len(self.rows)) / self.n_rows)

    def __repr__(self):
        return (
            f"Reconstruction(n_found={len(self.rows)}, "
            f"certain={int(self.certain.sum())}, n_rows={self.n_rows}, "
            f"complete={self.complete})"
        )


class DRAFT:
    """DRAFT: give the training rows back from the counts in the leaves of a forest.

    A forest whose trees all see all rows (``bootstrap=False``) says how many rows of each
    class reach each leaf. A table of rows that makes these counts is found by integer
    programming; with a few dozens of trees there is hardly another one. The paper
    describes rows value by value; here, the points of the domain that the counts allow
    are counted, which is the same for domains that can be listed, and leaves few of them
    to the solver. Bagged forests, for which the paper looks for the likeliest table, are
    refused.

    Parameters
    ----------
    estimator : tree or forest
        As in :func:`counting_certificate`, with ``bootstrap=False``.
    domain : sequence of array-like
        The values that each column can have, for example ``[range(3), [0, 1]]``.
    max_points : int, default=200_000
        The largest number of points of the domain.
    time_limit : float, default=60.0
        Seconds for the solver.

    See Also
    --------
    counting_certificate : What all such tables have in common.
    ModelInversion : For models without counts.

    References
    ----------
    .. [1] J. Ferry, R. Fukasawa, T. Pascal, T. Vidal, "Trained random forests completely
       reveal your dataset", arXiv:2402.19232 (Section 3, without bagging).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.privacy import DRAFT
    >>> rng = np.random.RandomState(0)
    >>> X, y = rng.randint(0, 2, (40, 8)), rng.randint(0, 2, 40)
    >>> forest = RandomForestClassifier(30, bootstrap=False, random_state=0).fit(X, y)
    >>> found = DRAFT(forest, [[0, 1]] * 8).reconstruct()
    >>> found.error(X) < 0.05
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["predict"])],
        "domain": [list, tuple, np.ndarray],
        "max_points": [Interval(Integral, 1, None, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any,
        domain: Sequence[ArrayLike],
        *,
        max_points: int = 200_000,
        time_limit: float = 60.0,
    ) -> None:
        self.estimator = estimator
        self.domain = domain
        self.max_points = max_points
        self.time_limit = time_limit

    def reconstruct(self) -> Reconstruction:
        """Look for a table of rows with the counts of the forest.

        Returns
        -------
        reconstruction : Reconstruction
            The table.

        Raises
        ------
        TypeError, ValueError
            If the forest has no counts, draws its rows, or has counts that no table
            within the domain makes.
        """
        check_parameters(vars(self), self._parameter_constraints, type(self).__name__)
        counts = LeafCounts(self.estimator)
        if counts.bags is not None:
            raise ValueError(
                "estimator draws its rows (bootstrap=True), and DRAFT needs trees that "
                "have all of them; see counting_certificate."
            )
        domain = check_domain(self.domain, counts.n_features)
        if n_points(domain) > self.max_points:
            raise ValueError(
                f"domain has {n_points(domain)} points, more than max_points="
                f"{self.max_points}."
            )
        system = CountSystem(counts, domain)
        amount, complete = self._solve(system)
        rows = np.repeat(np.arange(len(amount)), amount)
        number = np.arange(len(rows)) - np.repeat(np.cumsum(amount) - amount, amount)
        single = system.size[rows] == 1
        return Reconstruction(
            system.points[rows],
            counts.classes[system.codes[rows]],
            single & (number < system.lower[rows]),
            counts.n_rows,
            complete,
        )

    def _solve(self, system):
        """Return how many rows are in each cell, and whether the counts are all met."""
        free = np.flatnonzero(system.lower < system.upper)
        amount = system.lower.copy()
        if len(free):
            matrix, left = system.matrix(free)
            solved = milp(
                np.zeros(len(free)),
                integrality=np.ones(len(free)),
                bounds=Bounds(system.lower[free], system.upper[free]),
                constraints=LinearConstraint(matrix, left, left),
                options={"time_limit": self.time_limit},
            )
            if solved.x is None:
                return amount, False
            amount[free] = np.rint(solved.x).astype(np.int64)
        complete = system.has_counts(amount)
        return amount if complete else system.lower, complete
