"""What the attacks on tree ensembles share: the trees, the grid, row after row."""

from numbers import Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, Options, StrOptions

from ..._rows import RowCodec, is_dataframe
from ...trees import tree_ensemble
from ...trees._certify import Question
from ...trees._grid import TreeGrid
from ...trees._row import Surroundings
from ...victim import LabelAccess
from .._base import EvasionAttack

# Rows of the data that a search may begin at, and how many it takes for one row.
_KEPT, _SEEDS = 200, 8
# How often a row is searched again with what constraints spoiled left alone.
_MAX_AGAIN = 8


class TreeAttack(EvasionAttack):
    """Base of the attacks on tree ensembles.

    A subclass writes `_search_row`, which is handed what surrounds one row and returns
    the adversarial one. What it returns is shown to the victim, whose answer counts.
    """

    knowledge = "gradient"  # all of the model: gradients of trees are zero

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        "norm": [Options(Real, {np.inf, 0, 1, 2})],
        "goal": [StrOptions({"misclassification", "targeted"})],
        "eps": [Interval(Real, 0, None, closed="left"), None],
        "min_step": [Interval(Real, 0, None, closed="left"), "array-like"],
    }

    def fit(self, X, y=None):
        """Fit the victim (a frozen one is kept), read its trees and cut the columns.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data on which the victim is fitted and from which `bounds` are learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y)
        X = self._check_X(X, reset=False)
        self.ensemble_ = tree_ensemble(self.estimator_)
        self.grid_ = TreeGrid(self.ensemble_, X, self._step())
        kept = np.unique(np.linspace(0, len(X) - 1, min(_KEPT, len(X))).astype(int))
        rows = X.iloc[kept] if is_dataframe(X) else X[kept]
        self.seeds_ = RowCodec(rows).encode(rows).astype(np.float64)
        self.seed_labels_ = self._positions(self.ensemble_.predict(rows))
        self._kinds = _kinds(X)
        return self

    def _step(self):
        step = np.asarray(self.min_step, dtype=np.float64)
        if step.shape not in ((), self.row_shape_) or not (step >= 0).all():
            raise ValueError(
                f"min_step must be one number or one for each of {self.row_shape_[0]} "
                f"features, and not negative; got {self.min_step!r}."
            )
        return step

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

    def _open_access(self, X, max_total_queries=None):
        return LabelAccess(
            self.estimator_,
            X,
            max_total_queries=max_total_queries,
            **self._access_options(),
        )

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
            grid = TreeGrid(self.ensemble_, rows, self._step())
        x, lower, upper, scale, step = _in_units_of_the_rows(state)
        simple = not hasattr(access, "region") or access.region.simple
        found = state.open_rows()
        x_adv = access.x[found].clone()
        for k, i in enumerate(found.tolist()):
            row = rows.iloc[i : i + 1] if is_dataframe(rows) else rows[i : i + 1]

            def surround(low, high, i=i, row=row):
                return Surroundings(grid, x[i], low, high, self.norm, row, scale, step)

            def confirm(point, i=i):
                point = torch.as_tensor(point / scale)[None]
                at = torch.tensor([i])
                return bool(state.goal.select(at).ask(access, point, at)[1])

            point = self._search_row(state, i, surround(lower[i], upper[i]), confirm)
            if point is not None and not simple:
                point = self._mend(state, i, point, surround, confirm)
            if point is not None:
                x_adv[k] = torch.as_tensor(point / scale)
        moved = found[(x_adv != access.x[found]).any(1)]
        if len(moved):
            shown = x_adv[torch.isin(found, moved)]
            predicted, reached = state.goal.select(moved).ask(access, shown, moved)
            state.record(moved, shown, predicted, reached)
        state.finished[:] = True

    def _search_row(self, state, row, around, confirm):
        """Return the adversarial row in the victim's units, or None."""
        raise NotImplementedError

    def _mend(self, state, row, point, surround, confirm):
        """Search again while constraints between columns spoil what was found.

        The search knows the range of each column only; relations, groups and limits of
        all changes come with a projection. The other columns are asked to follow first;
        where that does not do, what the projection took elsewhere stays as it was in the
        next search.
        """
        access, at = state.access, slice(row, row + 1)
        ref, scale = access.ref[at], access.region.scale
        lower, upper = access.free_lower[at], access.free_upper[at]
        first, label = point, int(state.goal.labels[row])
        for _ in range(_MAX_AGAIN):
            if confirm(point):
                return point
            wanted = torch.as_tensor(point)[None]
            moved = (wanted != ref) & ~wanted.isnan()
            held = (torch.where(moved, wanted, bound) for bound in (lower, upper))
            follows = access.region.project(ref, wanted, *held)[0].numpy()
            if confirm(follows):
                return follows
            valid = access.valid(wanted / scale, torch.tensor([row]))
            spoiled = moved & ((valid - wanted).abs() > 1e-9 * scale)
            spoiled = spoiled if spoiled.any() else moved
            lower, upper = (torch.where(spoiled, ref, bound) for bound in (lower, upper))
            around = surround(lower[0].numpy(), upper[0].numpy())
            best = self._coordinate_search(self._questions(around, label), label)
            if best is None:
                break
            point = best.x
        return first

    def _questions(self, around, label):
        """Return the questions of a row, the one of the least lower bound first."""
        classes = range(len(self.ensemble_.classes))
        others = [k for k in classes if k != label]
        if self.goal == "targeted":
            return [Question(around, label, others)]
        questions = [Question(around, target, [label]) for target in others]
        return sorted(questions, key=lambda question: question.lower)

    def _limit(self):
        """Return the cost that a success has to be below."""
        if self.eps is None:
            return np.inf
        eps = float(self.eps)
        return np.nextafter(eps**2 if self.norm == 2 else eps, np.inf)

    def _coordinate_search(self, questions, label):
        """Return the cheapest search of all questions, or None."""
        best, limit = None, self._limit()
        for question in questions:
            if question.lower >= limit:
                break
            search = question.search(limit).run(self._seeds(question, label))
            if search.x is not None:
                best, limit = search, search.cost
        return best

    def _seeds(self, question, label):
        """Return rows of the data that have a wanted class, the nearest first."""
        same = self.seed_labels_ == label
        seeds = self.seeds_[same if self.goal == "targeted" else ~same]
        away = np.nan_to_num(seeds - question.around.x)
        distance = np.linalg.norm(away / question.around.scale, axis=1)
        return seeds[np.argsort(distance, kind="stable")[:_SEEDS]]


def _kinds(X):
    """Return what decides where the edges lie: the kinds of the columns."""
    return [str(t) for t in X.dtypes] if is_dataframe(X) else [str(X.dtype)]


def _in_units_of_the_rows(state):
    """Return the rows, their range, and the scales and steps of changes."""
    access = state.access
    if hasattr(access, "ref"):  # under constraints, all else is in units of scale
        parts = access.ref, access.free_lower, access.free_upper
        region = access.region
        scale = region.scale.numpy().astype(np.float64)
        step = torch.where(region.lattice, region.step, 0.0).numpy().astype(np.float64)
    else:
        parts = access.x, access.x + state.lower, access.x + state.upper
        scale, step = np.ones(access.x.shape[1]), None
    return *(part.numpy().astype(np.float64) for part in parts), scale, step
