"""Base of the attacks on tree ensembles: the trees, the grid, row after row."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._rows import RowCodec, is_dataframe
from ..._sklearn import Interval
from ...threat._features import NAMED
from ...trees import tree_ensemble
from ...trees._certify import ClassFlip
from ...trees._edges import Categories
from ...trees._grid import TreeGrid
from ...trees._row import Moves, RowCells
from ...trees._verification import check_reading
from ...victim import LabelAccess
from .._base import EvasionAttack, norms, shared

# Rows of the data that a search may begin at, and how many it takes for one row.
_KEPT, _SEEDS = 200, 8
# How often a row is searched again with what constraints spoiled left alone.
_MAX_AGAIN = 8


class TreeRow:
    """One row under attack: what it may become, and what the victim says of that.

    Parameters
    ----------
    state : AttackState
        The attack on all rows.
    at : int
        Which row this is.
    row : {ndarray, DataFrame} of shape (1, n_columns)
        The row as the victim takes it.
    grid : TreeGrid
        The columns, cut at all thresholds.
    norm : {np.inf, 1, 2, 0}
        The norm of changes.

    Attributes
    ----------
    label : int
        Position of the class to leave, or to reach.
    x : ndarray of float64, shape (n_columns,)
        The row; under constraints, in their units.
    moves : Moves
        What it may become.
    scale : ndarray of float64, shape (n_columns,)
        The units in which changes are measured, and those of the access's rows.
    may_be_spoiled : bool
        Whether constraints between columns may move what a search finds.
    """

    def __init__(self, state, at, row, grid, norm):
        self.state, self.at = state, torch.tensor([at])
        self.row, self.grid, self.norm = row, grid, norm
        self.label = int(state.goal.labels[at])
        access = self.access = state.access
        self.may_be_spoiled, limits = False, {}
        if access.region is not None:
            region, self.x = access.region, _array(access.ref[at])
            nominal = region.nominal.numpy()
            # Arithmetic may not move categories; a search that knows them may.
            lower, upper = (
                np.where(nominal, _array(wide[at]), _array(narrow[at]))
                for wide, narrow in (
                    (access.lower, access.free_lower),
                    (access.upper, access.free_upper),
                )
            )
            limits = {
                "scale": _array(region.scale),
                "step": _array(torch.where(region.lattice, region.step, 0.0)),
                "nominal": nominal,
                "turns": {
                    j: table[int(self.x[j])].numpy()
                    for j, table in region.allowed.items()
                    if 0 <= self.x[j] < len(table)
                },
                "may_go_missing": grid.may_go_missing,
            }
            self.may_be_spoiled = not region.simple
        else:
            self.x, low, high = (
                _array(p[at]) for p in (access.x, state.lower, state.upper)
            )
            lower, upper = self.x + low, self.x + high
        self.moves = Moves(lower, upper, **limits)
        self.scale = self.moves.scale

    def surround(self, held=None):
        """Return the cells around the row, with some columns held as they are."""
        return RowCells(self.grid, self.x, self._holding(held), self.norm, self.row)

    def _holding(self, held):
        if held is None:
            return self.moves
        moves = self.moves
        return replace(
            moves,
            lower=np.where(held, self.x, moves.lower),
            upper=np.where(held, self.x, moves.upper),
            may_go_missing=moves.may_go_missing & ~held,
        )

    def confirm(self, point):
        """Ask the victim whether a point is a success."""
        point = torch.as_tensor(point / self.scale)[None]
        return bool(self.state.goal.select(self.at).ask(self.access, point, self.at)[1])

    def let_others_follow(self, point, held):
        """Return the valid row near a point that keeps what the point moved."""
        moves, moved = self._holding(held), self._moved(point) & ~np.isnan(point)
        lower = np.where(moved, point, moves.lower)
        upper = np.where(moved, point, moves.upper)
        rows = (torch.as_tensor(part)[None] for part in (self.x, point, lower, upper))
        return self.access.region.project(*rows)[0].numpy()

    def spoiled(self, point):
        """Which of the moved columns the projection moves elsewhere; all, if none."""
        wanted = torch.as_tensor(point / self.scale)[None]
        valid = self.access.valid(wanted, self.at)[0].numpy()
        moved = self._moved(point)
        same = np.abs(valid - point) <= 1e-9 * self.scale
        spoiled = moved & ~(same | (np.isnan(valid) & np.isnan(point)))
        return spoiled if spoiled.any() else moved

    def _moved(self, point):
        return (point != self.x) & ~(np.isnan(point) & np.isnan(self.x))


def _array(tensor):
    return tensor.numpy().astype(np.float64)


class TreeAttack(EvasionAttack):
    """Base of the attacks on tree ensembles.

    A subclass writes `_search_row`, which is handed what surrounds one row and returns
    the adversarial one. What it returns is shown to the victim, whose answer counts.
    """

    knowledge = "gradient"  # all of the model: gradients of trees are zero

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        **shared("goal", "target", "bounds"),
        "norm": norms(np.inf, 0, 1, 2),
        "eps": [Interval(Real, 0, None, closed="left"), None],
        "min_step": [Interval(Real, 0, None, closed="left"), "array-like"],
    }

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept), read its trees and cut the columns.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data on which the victim is fitted and from which `bounds` are learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        X = self._check_X(X, reset=False)
        self.ensemble_ = tree_ensemble(self.estimator_)
        self._constrained = None
        if self.constraints is not None:
            columns = list(X.columns) if is_dataframe(X) else None
            self._constrained = self.constraints.in_order(columns)
        self.grid_ = self._cut(X)
        if not self.grid_.movable.any():
            names = list(X.columns)
            raise ValueError(
                f"Nothing of a row can change: its columns {names} hold categories, "
                f"which {type(self).__name__} leaves as they are. To let them change, "
                "set constraints=FeatureConstraints.from_frame(X)."
            )
        kept = np.unique(np.linspace(0, len(X) - 1, min(_KEPT, len(X))).astype(int))
        rows = X.iloc[kept] if is_dataframe(X) else X[kept]
        self.seeds_ = self._encode(rows)
        labels = check_reading(self.grid_, self.estimator_, rows, self.seeds_)
        self.seed_labels_ = labels
        if self.ensemble_.link != "regression":
            self.seed_labels_ = self._positions(labels)
        self._kinds = _kinds(X)
        return self

    def _cut(self, X):
        """Cut the columns; under constraints, those of categories too."""
        categories = {}
        if self._constrained is not None:
            features = self._constrained.features.values()
            categories = {
                j: Categories(feature.categories, ordered=feature.kind == "ordinal")
                for j, feature in enumerate(features)
                if feature.kind in NAMED
            }
        return TreeGrid(self.ensemble_, X, self._step(), categories, self._losable)

    def _encode(self, X):
        if self._constrained is not None:
            return self._constrained.encode(X).numpy()
        return RowCodec(X).encode(X).astype(np.float64)

    def _step(self):
        step = np.asarray(self.min_step, dtype=np.float64)
        if step.shape not in ((), self.row_shape_) or not (step >= 0).all():
            raise ValueError(
                f"min_step must be one number or one for each of {self.row_shape_[0]} "
                f"features, and not negative; got {self.min_step!r}."
            )
        return step

    def _check_goal(self, goal):
        raise ValueError(
            f"target: {type(self).__name__} searches for goal={self.goal!r}. Set "
            "goal='targeted'."
        )

    def _check_parameters(self, row_shape):
        if len(row_shape) != 1:
            raise ValueError(
                f"{type(self).__name__} takes rows of features; got rows of shape "
                f"{row_shape}."
            )
        self._step()

    def _positions(self, labels):
        order = np.argsort(self.ensemble_.classes)
        return order[np.searchsorted(self.ensemble_.classes, labels, sorter=order)]

    def _access_class(self):
        return LabelAccess  # of the victim itself, answers are enough

    def _access_options(self):
        """Let categories of DataFrames be codes of the constraints."""
        codes = {} if self.constraints is None else self.constraints.codes
        return {**super()._access_options(), "categories": codes}

    def _choose_batch_size(self, X):
        return 4  # a chunk of 32 rows is a job of about a second

    def _attack(self, state):
        access = state.access
        everything = torch.arange(len(access.x))
        if self.goal == "misclassification" and access.n_total_queries:
            predicted = state.goal.labels  # the victim's own answers
            reached = torch.zeros_like(state.success)
        else:
            predicted, reached = state.goal.ask(access, access.x, everything)
        state.record(everything, access.x, predicted, reached)
        rows = access.decode(access.x)
        grid = self.grid_
        if _kinds(rows) != self._kinds:
            grid = self._cut(rows)
        searched, x_adv = state.open_rows(), access.x.clone()
        n_known = state.n_searched = len(access.x) - len(searched)
        try:
            for i in searched.tolist():
                row = rows.iloc[i : i + 1] if is_dataframe(rows) else rows[i : i + 1]
                around = grid
                if access.reference is not None:
                    around = grid.around(float(access.reference[i]))
                tree_row = TreeRow(state, i, row, around, self._norm)
                point = self._search_row(tree_row)
                if point is not None and tree_row.may_be_spoiled:
                    point = self._mend(tree_row, point)
                if point is not None:
                    x_adv[i] = torch.as_tensor(point / tree_row.scale)
                state.n_searched += 1
                if state.on_row is not None:
                    state.on_row()
        except BaseException:  # the rows before this one have cost their time
            with suppress(Exception):
                self._show(state, searched[: state.n_searched - n_known], x_adv)
            raise
        self._show(state, searched, x_adv)

    def _show(self, state, searched, x_adv):
        """Show the victim what searches that came to their end have moved."""
        moved = searched[(x_adv != state.access.x)[searched].any(1)]
        if len(moved):
            predicted, reached = state.goal.select(moved).ask(
                state.access, x_adv[moved], moved
            )
            state.record(moved, x_adv[moved], predicted, reached)
        state.finished[searched] = True

    def _search_row(self, tree_row):
        """Return the adversarial row in the victim's units, or None."""
        raise NotImplementedError

    def _mend(self, tree_row, point):
        """Search again while constraints between columns spoil what was found.

        The search knows the range of each column only; relations, groups and limits of
        all changes come with a projection. The other columns are asked to follow first;
        where that does not do, what the projection took elsewhere stays as it was in the
        next search.
        """
        first, held = point, np.zeros(len(point), dtype=bool)
        for _ in range(_MAX_AGAIN):
            if tree_row.confirm(point):
                return point
            follows = tree_row.let_others_follow(point, held)
            if tree_row.confirm(follows):
                return follows
            held |= tree_row.spoiled(point)
            flips = self._flips(tree_row.surround(held), tree_row.label)
            best = self._coordinate_search(flips, tree_row.label)
            if best is None:
                break
            point = best.x
        return first

    def _flips(self, row_cells, label):
        """Return the flips of a row, the one of the least lower bound first."""
        classes = range(len(self.ensemble_.classes))
        others = [k for k in classes if k != label]
        if self.goal == "targeted":
            return [ClassFlip(row_cells, label, others)]
        flips = [ClassFlip(row_cells, target, [label]) for target in others]
        return sorted(flips, key=lambda flip: flip.lower)

    def _limit(self):
        """Return the cost that a success has to be below."""
        if self.eps is None:
            return np.inf
        eps = float(self.eps)
        return np.nextafter(eps**2 if self._norm == 2 else eps, np.inf)

    def _coordinate_search(self, flips, label, polish=True):
        """Return the cheapest search of all flips, or None."""
        best, limit = None, self._limit()
        for flip in flips:
            if flip.lower >= limit:
                break
            search = flip.search(limit).run(partial(self._seeds, flip, label))
            if polish:
                search.polish()
            if search.x is not None:
                best, limit = search, search.cost
        return best

    def _seeds(self, flip, label):
        """Return rows of the data that have a wanted class, the nearest first."""
        labels, ensemble = self.seed_labels_, flip.row_cells.grid.ensemble
        if ensemble.link == "regression":
            labels = ensemble.moves(labels)
        same = labels == label
        seeds = self.seeds_[same if self.goal == "targeted" else ~same]
        away = np.nan_to_num(seeds - flip.row_cells.x)
        distance = np.linalg.norm(away / flip.row_cells.scale, axis=1)
        return seeds[np.argsort(distance, kind="stable")[:_SEEDS]]


def _kinds(X):
    """Return what decides where the edges lie: the kinds of the columns."""
    return [str(t) for t in X.dtypes] if is_dataframe(X) else [str(X.dtype)]
