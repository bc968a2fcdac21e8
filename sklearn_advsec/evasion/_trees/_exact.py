"""The minimal adversarial change of a tree ensemble, proved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from ..._estimators import name_of, unwrap
from ..._sklearn import Interval
from ...trees._exact import close_gap, solve
from .._base import norms
from .._state import EvasionResult
from ._base import TreeAttack
from ._certificate import Subject, allowed_ranges, certificate, read

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


@dataclass(repr=False)
class TreeExactResult(EvasionResult):
    """What :class:`TreeExactAttack` found and proved; more than an `EvasionResult`.

    Attributes
    ----------
    lower : ndarray of float, shape (n_rows,)
        No smaller distance is adversarial: proved, up to the solver's tolerance of 1e-6
        relative to it. Infinite where nothing in the bounds is.
    upper : ndarray of float, shape (n_rows,)
        The distance found, as in `distance`; infinite where none was.
    status : ndarray of str, shape (n_rows,)
        "optimal" where both are equal; "infeasible" where it is proved that there is
        nothing adversarial within the bounds and `eps`; "time limit" where the time was
        not enough; "rounding" where the order of the victim's own roundings decides
        between two distances; "constraints" where relations, one-hot groups or limits of
        all changes do, which the program does not know; "partial" where a column was
        held fixed that has too many cells to be searched (`lower` is then at most what
        it takes to leave the row's own cell there); "unfinished" where the attack was
        stopped before the row's end.
    label : ndarray of shape (n_rows,)
        The class that each row was to leave (or, targeted, to reach); of a regressor,
        the number from which its prediction was to move.
    allowed : ndarray of float, shape (n_rows, 2, n_columns)
        The smallest and the largest value that each column could take.
    subject : Subject
        The trees, the constraints and the goal; what :meth:`to_json` writes of all rows.

    See Also
    --------
    TreeExactAttack : Its `run` returns this.
    sklearn_advsec.trees.check_certificate : Checks what :meth:`to_json` writes.
    EvasionResult : What other attacks return.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.evasion import TreeExactAttack, TreeExactResult
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    >>> result = TreeExactAttack(tree, norm=1).fit(X, y).run(X[:2], y[:2])
    >>> result.status.tolist(), bool((result.lower == result.upper).all())
    (['optimal', 'optimal'], True)
    >>> again = TreeExactResult.from_json(result.to_json())
    >>> bool((again.X_adv == result.X_adv).all())
    True
    """

    lower: np.ndarray
    upper: np.ndarray
    status: np.ndarray
    label: np.ndarray
    allowed: np.ndarray
    subject: Subject

    _OF_ALL = (*EvasionResult._OF_ALL, "subject")

    def to_json(
        self, path: str | PathLike[str] | None = None, *, time_limit: float = 10.0
    ) -> str | None:
        """Write what was found and proved, in a form that others can check.

        The file holds the trees, and of each row its values, the adversarial point, and a
        lower bound of the distance with its certificate: boxes that cover all rows that
        are nearer, in none of which the answer can change. They are searched for now, by
        branch and bound, and the file claims what they prove, which may be less than
        `lower`: where time runs out, where whole steps, relations, groups of columns or
        values that may go missing make the optimum what it is, or where the order of
        roundings decides. A note says why. Behind steps other than scalers of numbers,
        nothing is claimed of the bound.

        Parameters
        ----------
        path : path-like, default=None
            The file to write. By default, its text is returned.
        time_limit : float, default=10.0
            Seconds per row and class for the certificate.

        Returns
        -------
        text : str or None
            The JSON, unless a path was given.

        Raises
        ------
        ValueError
            If a column holds no numbers.

        See Also
        --------
        sklearn_advsec.trees.check_certificate : Checks the file.
        from_json : Reads it.
        """
        text = self.subject.document
        if text is None:
            text = certificate(self, time_limit)
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> Self:
        """Read what :meth:`to_json` wrote, as it is: nothing of it is checked.

        Parameters
        ----------
        source : str or path-like
            The text, or the path of a file.

        Returns
        -------
        result : TreeExactResult
            Rows as plain numbers (under their names, if they had any). What the file does
            not hold (labels, numbers of queries) is None or 0; `lower` is what has a
            certificate.

        Raises
        ------
        ValueError
            If the file is damaged; the message names the key.
        """
        if isinstance(source, PathLike) or not source.lstrip().startswith("{"):
            source = Path(source).read_text(encoding="utf-8")
        return cls(**read(source))


class TreeExactAttack(TreeAttack):
    r"""Minimal adversarial change of a tree ensemble, by branch and bound and a program.

    The mixed-integer program of [1]_ has a binary variable per threshold (on which side
    of it is the row?) and one per leaf. Most of it never gets to the solver: a coordinate
    search (see :class:`TreeCoordinateAttack`) gives a distance, and the question that is
    left is whether there is anything *below* it. Leaves beyond it are dropped, and leaves
    that gain too little even with the best leaves of all other trees. What remains is
    often nothing, which is the proof. Else boxes are cut in two until none of them can
    hold anything: the leaves that are in reach gain too little there, after paying for
    what they cost (compare [2]_). Rows that take many boxes are left to the solver for a
    while, in turns.

    Each row says what was proved for it: ``lower`` and ``upper`` bounds of the minimal
    distance, equal where the ``status`` is "optimal".

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 1, 0, "inf", "l1", "l0"}, default=np.inf
        What is minimal: the largest change, their sum, or the number of columns changed.
    eps : float, default=None
        Nothing beyond this distance is looked for; None sets no limit.
    time_limit : float, default=10.0
        Seconds per row for boxes and solver.
    min_step : float or array-like of shape (n_features,), default=0.0
        How far beyond a threshold a changed value is put, in the units of the features,
        where the next threshold is not nearer. Minimal is then among such rows.
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    ensemble_ : TreeEnsemble
        Its trees.
    grid_ : TreeGrid
        The columns, cut at all thresholds.
    seeds_, seed_labels_ : ndarray of shape (n_seeds, n_features) and (n_seeds,)
        Up to 200 rows of the data seen in `fit`, where a search begins that finds
        nothing from the row itself, and the positions of the victim's answers.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    TypeError
        If the victim is no tree ensemble that can be read, answers otherwise than its
        trees do, or stands behind a step that mixes columns.
    ValueError
        If nothing of a row can change.

    See Also
    --------
    TreeCoordinateAttack : Next to as small, in less time.
    sklearn_advsec.trees.certified_radii : Lower bounds for many rows.

    References
    ----------
    .. [1] A. Kantchelian, J. D. Tygar, A. D. Joseph, "Evasion and hardening of tree
       ensemble classifiers", arXiv:1509.07892 (Section 4.1: the program; dropping leaves
       by bounds is ours).
    .. [2] L. Devos, W. Meert, J. Davis, "Versatile verification of tree ensembles",
       arXiv:2010.13880 (bounds from the best leaves in a box; cutting boxes at edges, and
       prices of leaves where costs add up, are ours).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_advsec.evasion import TreeExactAttack
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = minmax_scale(X)
    >>> victim = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> result = TreeExactAttack(victim).fit(X, y).run(X[:10])
    >>> result.status.tolist() == ["optimal"] * 10
    True
    >>> bool((result.lower == result.upper).all())
    True
    """

    _parameter_constraints = {
        **TreeAttack._parameter_constraints,
        "norm": norms(np.inf, 0, 1),
        "time_limit": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float | Literal["inf", "l1", "l0"] = np.inf,
        eps: float | None = None,
        time_limit: float = 10.0,
        min_step: ArrayLike = 0.0,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.time_limit = time_limit
        self.min_step = min_step
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _new_state(self, *args):
        state = super()._new_state(*args)
        n_rows = len(state.access.x)
        # Rows that are wrong already have a distance of 0, which is proved.
        state.lowest, state.in_time = np.zeros(n_rows), np.ones(n_rows, dtype=bool)
        state.partial = np.zeros(n_rows, dtype=bool)
        return state

    def _search_row(self, tree_row):
        state, row = tree_row.state, int(tree_row.at)
        row_cells = tree_row.surround()
        flips = self._flips(row_cells, tree_row.label)
        best = self._coordinate_search(flips, tree_row.label, polish=False)
        limit = self._limit() if best is None else best.cost
        lowest, end = np.inf, time.monotonic() + self.time_limit
        for flip in flips:
            if flip.lower >= limit:
                lowest = min(lowest, limit)
                break
            search = flip.search(limit)
            if best is not None and best.gains is flip.gains:
                search = best
            left = max(end - time.monotonic(), 1e-3)
            lower, solved = solve(search, flip, left, tree_row.confirm)
            if search.x is not None:
                best, limit = search, search.cost
            lowest = min(lowest, lower)
            state.in_time[row] &= solved
        lowest, _ = close_gap(row_cells, lowest, limit)
        state.partial[row] = row_cells.unsearched < lowest
        state.lowest[row] = row_cells.distance(min(lowest, row_cells.unsearched))
        return None if best is None else best.x

    def _result(self, state):
        found = super()._result(state)
        lower = state.lowest
        upper = np.where(found.success, found.distance, np.inf)
        lower = np.where(np.isclose(lower, upper, rtol=1e-9), upper, lower)
        region = state.access.region
        unsure = "rounding" if region is None or region.simple else "constraints"
        status = np.where(state.in_time, unsure, "time limit").astype("<U11")
        status[state.partial] = "partial"
        status[found.success & (lower >= upper)] = "optimal"
        limit = np.inf if self.eps is None else self.eps
        status[~found.success & (lower >= limit) & state.in_time] = "infeasible"
        status[~found.finished] = "unfinished"
        access, goal = state.access, state.goal
        label = access.reference
        if label is None and goal is None:  # the victim failed before it said anything
            label = np.full(len(lower), None)
        elif label is None:
            label = self.ensemble_.classes[goal.labels.numpy()]
        return TreeExactResult(
            **vars(found),
            lower=np.minimum(lower, upper),
            upper=upper,
            status=status,
            label=np.asarray(label),
            allowed=allowed_ranges(state),
            subject=None,
        )

    def _run(self, work, resume=None, on_query=None):
        # Of all rows, so that it is not sent from worker to worker.
        try:
            result = super()._run(work, resume, on_query)
        except BaseException as stop:
            if getattr(stop, "result", None) is not None:
                stop.result.subject = self._subject(work.goal)
            raise
        if result is not None:
            result.subject = self._subject(work.goal)
        return result

    def _subject(self, goal):
        loses = self._losable is not None and bool(self._losable.any())
        name = name_of(unwrap(self.estimator_))
        return Subject(self.ensemble_, name, self._constrained, goal, loses)
