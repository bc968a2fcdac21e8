"""The certificates of the exact attack: boxes that cover all that is nearer."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn

from ... import __version__
from ..._rows import RowCodec, is_dataframe
from ...threat import FeatureConstraints
from ...trees import TreeEnsemble
from ...trees._branching import BranchAndBound
from ...trees._certificate_file import (
    FORMAT,
    NORMS,
    TOLERANCE,
    check_keys,
    cut,
    digest,
    parse,
    refusing,
)
from ...trees._certify import ClassFlip
from ...trees._ensemble import UNCHANGED
from ...trees._exact import prune
from ...trees._grid import TreeGrid
from ...trees._intervals import IntervalTrees, as_rows
from ...trees._row import Moves, RowCells, RowProblem

# A bound stays this much below what is adversarial, relative to it: sums have roundings.
_BELOW = 1 - 1e-9
_UNPROVED = {
    "constraints": "the optimum rests on constraints that boxes do not know",
    "rounding": "the order of roundings decides in a box that is nearer",
    "time": "the time for the certificate was not enough",
}


@dataclass
class Subject:
    """What a run of the exact attack was about.

    Attributes
    ----------
    ensemble : TreeEnsemble
        The trees.
    model_name : str
        The class of the model.
    constraints : FeatureConstraints or None
        As the attack had them.
    goal : str
        What was wanted.
    loses_values : bool
        Whether values could go missing.
    document : str or None
        The certificate, once it has been made.
    """

    ensemble: TreeEnsemble
    model_name: str
    constraints: FeatureConstraints | None
    goal: str
    loses_values: bool
    document: str | None = None


def allowed_ranges(state):
    """Return the smallest and largest value of each column, by row; infinite for none."""
    access = state.access
    if access.region is None:
        x, low, high = (
            part.numpy().astype(np.float64)
            for part in (access.x, state.lower, state.upper)
        )
        ends = [x + low, x + high]
    else:
        ends = [part.numpy().copy() for part in (access.free_lower, access.free_upper)]
        free = access.free_categories.numpy()
        ends[0][:, free], ends[1][:, free] = -np.inf, np.inf
    for end, nothing in zip(ends, (-np.inf, np.inf), strict=True):
        end[np.isnan(end)] = nothing
    return np.stack(ends, 1)


def certificate(result, time_limit):
    """Return the text of the certificate of a result."""
    subject = result.subject
    if any(label is None for label in result.label):
        raise ValueError(
            "The result is that of a run that was stopped before the victim answered: "
            "there is nothing to certify."
        )
    writer = _Writer(result, time_limit)
    form = subject.ensemble.form()
    names, constraints = subject.ensemble.column_names, subject.constraints
    document = {
        "format": FORMAT,
        "versions": {
            "python": platform.python_version(),
            "sklearn_advsec": __version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "model": {"name": subject.model_name, "hash": digest(form), "trees": form},
        "columns": None if names is None else list(names),
        "whole": writer.whole.tolist(),
        "norm": writer.norm,
        "goal": subject.goal,
        "tolerance": TOLERANCE,
        "constraints": None if constraints is None else constraints.to_toml(),
        "rows": [writer.row(i) for i in range(len(result))],
    }
    document["digest"] = digest(document)
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


class _Writer:
    """What is written of each row."""

    def __init__(self, result, time_limit):
        self.result, self.time_limit = result, time_limit
        subject = self.subject = result.subject
        ensemble = subject.ensemble
        self.norm = next(k for k, v in NORMS.items() if v == result.norm)
        self.x, self.points = _numbers(result.X), _numbers(result.X_adv, result.X)
        n_columns = self.x.shape[1]
        self.scale, self.nominal = np.ones(n_columns), np.zeros(n_columns, dtype=bool)
        self.whole = _whole_columns(result.X)
        self.ordered = np.zeros(n_columns, dtype=bool)
        if subject.constraints is not None:
            region = subject.constraints.region
            self.scale, self.nominal = region.scale.numpy(), region.nominal.numpy()
            self.whole = region.whole.numpy() & ~self.nominal
            self.ordered = (region.last_code < np.inf).numpy() & ~self.nominal
        with np.errstate(invalid="ignore"):
            self.whole = self.whole & (self.x == np.rint(self.x)).all(0)
        self.why_none = None
        if subject.loses_values:
            self.why_none = "values may go missing"
        try:
            parts = self.norm, self.whole, self.nominal, self.scale
            self.trees = IntervalTrees(ensemble, *parts)
            self.grid = TreeGrid(ensemble, self._as_given())
        except ValueError as error:
            self.why_none = str(error)

    def _as_given(self):
        """Return the rows in the precision of the claims: floats, and whole numbers."""
        names = self.subject.ensemble.column_names
        if self.whole.all():
            return as_rows(self.x.astype(np.int64), names)
        if not self.whole.any():
            return as_rows(self.x, names)
        if names is None and self.subject.ensemble.steps:
            self.whole = np.zeros_like(self.whole)
            self.trees = IntervalTrees(
                self.subject.ensemble, self.norm, self.whole, self.nominal, self.scale
            )
            return self.x
        rows = as_rows(self.x, range(len(self.whole)) if names is None else names)
        whole = rows.columns[self.whole]
        return rows.astype(dict.fromkeys(whole, np.int64))

    def row(self, i):
        """Return what is written of a row."""
        result, x, point = self.result, self.x[i], self.points[i]
        lower, upper = result.allowed[i]
        if result.success[i]:  # single precision may have rounded it
            lower, upper = np.fmin(lower, point), np.fmax(upper, point)
        lower, upper = np.fmin(lower, x), np.fmax(upper, x)
        distance = self._distance(x, point) if result.success[i] else np.inf
        regression = self.subject.ensemble.link == "regression"
        bound, note, covers = self._prove(i, x, lower, upper, distance)
        status = "infeasible" if bound == np.inf else "open"
        if result.success[i]:
            status = "optimal" if bound >= distance * (1 - TOLERANCE) else "bounded"
        label = _plain(result.label[i])
        return {
            "row": int(result.rows[i]),
            "x": _as_list(x),
            "label": None if regression else label,
            "reference": float(label) if regression else None,
            "lower": _as_list(lower),
            "upper": _as_list(upper),
            "point": _as_list(point) if result.success[i] else None,
            "distance": _finite(distance),
            "bound": _finite(bound),
            "status": status,
            "note": "" if status in ("optimal", "infeasible") else note,
            "covers": covers,
        }

    def _distance(self, x, point):
        moves = np.where(np.isnan(x) & np.isnan(point), 0.0, point - x)
        constraints = self.subject.constraints
        if constraints is not None:
            rows = (
                as_rows(own[None], self.subject.ensemble.column_names)
                for own in (x, point)
            )
            before, after = (constraints.encode(own) for own in rows)
            moves = constraints.region.moved(before, after)[0].numpy()
        return float(np.linalg.norm(moves, NORMS[self.norm]))

    def _prove(self, i, x, lower, upper, distance):
        """Return a bound, why it is no higher, and the covers that prove it."""
        result = self.result
        if distance == 0 or not result.finished[i] or result.skipped[i]:
            return 0.0, "nothing was proved", []
        if self.why_none is not None:
            return 0.0, f"no certificate: {self.why_none}", []
        if (self.ordered & (lower < upper)).any():
            return 0.0, "no certificate: columns hold names with an order", []
        radius = distance if result.success[i] else float(result.lower[i])
        grid, ensemble, label = self.grid, self.subject.ensemble, UNCHANGED
        if ensemble.link == "regression":
            grid = grid.around(float(result.label[i]))
            ensemble = grid.ensemble
        else:
            label = ensemble.classes.tolist().index(_plain(result.label[i]))
        still = np.isnan(x)
        moves = Moves(
            np.where(still, x, lower),
            np.where(still, x, upper),
            self.scale,
            nominal=self.nominal,
        )
        row = as_rows(x[None], ensemble.column_names)
        cells = RowCells(grid, x, moves, NORMS[self.norm], row)
        radius, trees, note = min(radius, cells.unsearched), [], ""
        others = [k for k in range(len(ensemble.classes)) if k != label]
        flips = [(k, [label]) for k in others]
        if self.subject.goal == "targeted":
            flips = [(label, others)]
        for target, rivals in flips:
            flip = ClassFlip(cells, target, rivals)
            limit = radius if self.norm == "0" else radius * _BELOW
            boxes, why = self._search(flip, limit)
            if boxes is not None:
                proved = min(boxes.lower, boxes.unsure)
                if proved < limit:
                    radius, note = proved, _UNPROVED[why]
            trees.append(boxes)
        if self.norm != "0":
            radius *= _BELOW
        covers = [_cover(boxes, grid) for boxes in trees]
        ends = self.trees.ball(x, lower, upper, radius)
        for cover, (target, rivals) in zip(covers, flips, strict=True):
            open_ = self._open(cover, x, ends, radius, ensemble, target, rivals)
            if open_ < radius:
                note = _UNPROVED["rounding"]
                radius = open_ if self.norm == "0" else open_ * _BELOW
        # A smaller ball has other edges: the checker has the last word.
        ends = self.trees.ball(x, lower, upper, radius)
        for cover, (target, rivals) in zip(covers, flips, strict=True):
            if self._open(cover, x, ends, radius, ensemble, target, rivals) < np.inf:
                return 0.0, _UNPROVED["rounding"], []
        return float(radius), note, covers

    def _search(self, flip, limit):
        """Search for boxes that cover what costs less; say what may be in the way."""
        if flip.lower >= limit:
            return None, ""
        problem = RowProblem(
            flip.row_cells, flip.gains, flip.base, np.nextafter(limit, 0)
        )
        problem = prune(problem, flip.least)
        if problem is None:
            return None, ""
        boxes = BranchAndBound(problem, flip, lambda x: False, limit, nearest_first=True)
        closed = boxes.run(self.time_limit)
        why = "constraints" if boxes.cost <= boxes.unsure else "rounding"
        return boxes, why if closed else "time"

    def _open(self, cover, x, ends, radius, ensemble, target, rivals):
        """Return how near a box is that the checker would not accept."""
        low, high = (np.array(p) for p in zip(*cut(cover, *ends, ""), strict=True))
        rows, nearest = np.tile(x, (len(low), 1)), np.inf
        questions = self.trees.questions(ensemble, target, rivals)
        step = max(1, 2**17 // ensemble.n_trees)
        for at in range(0, len(low), step):
            part = [side[at : at + step] for side in (rows, low, high)]
            radii = np.full(len(part[0]), radius)
            closed = self.trees.closed(*part, radii, questions)
            away = self.trees.distance(*part)[~closed]
            nearest = min(nearest, away.min(initial=np.inf))
        return nearest


def _cover(boxes, grid):
    """Return the cuts of the boxes of a search, in preorder, as values of raw columns."""
    column, value, left = [], [], [0]
    while left:
        at = left.pop()
        if boxes is None or boxes.column[at] < 0:
            column.append(-1)
            continue
        problem, j = boxes.problem, boxes.column[at]
        own = int(problem.columns[j])
        cell = int(problem.begin[problem.first[j] + boxes.cell[at]])
        column.append(own)
        value.append(float(grid.low[grid.first_edge[own] + cell - 1]))
        left += boxes.children[at][::-1]
    return {"column": column, "value": value}


def read(text):
    """Return the parts of the result that a certificate is of."""
    with refusing():
        return _read(text)


def _read(text):
    document = parse(text)
    rows = document["rows"]
    check_keys(document["model"], "name hash trees", "model")
    ensemble = TreeEnsemble.from_form(document["model"]["trees"])
    ensemble.check_structure()
    constraints = document["constraints"]
    if constraints is not None:
        constraints = FeatureConstraints.from_toml(constraints)
    names, n_rows = document["columns"], len(rows)
    shape = (n_rows, len(document["whole"]))
    x = np.array([row["x"] for row in rows]).reshape(shape)
    found = np.array([row["point"] is not None for row in rows], dtype=bool)
    points = [row["x"] if row["point"] is None else row["point"] for row in rows]
    regression = ensemble.link == "regression"
    label = [row["reference" if regression else "label"] for row in rows]
    status = {"optimal": "optimal", "infeasible": "infeasible"}
    distance = np.array([row["distance"] for row in rows], dtype=float)
    points = np.array(points).reshape(shape)
    return {
        "X_adv": as_rows(points, names),
        "y_pred": np.full(n_rows, None),
        "success": found,
        "distance": np.where(found, distance, 0.0),
        "n_queries": np.zeros(n_rows, dtype=int),
        "rows": np.array([row["row"] for row in rows], dtype=int),
        "finished": np.ones(n_rows, dtype=bool),
        "known": np.zeros(n_rows, dtype=bool),
        "abstained": np.zeros(n_rows, dtype=bool),
        "skipped": np.zeros(n_rows, dtype=bool),
        "X": as_rows(x, names),
        "y": None,
        "y_before": None,
        "correct": None,
        "norm": NORMS[document["norm"]],
        "unit": "feature" if constraints is None else "scale",
        "lower": np.array([row["bound"] for row in rows], dtype=float),
        "upper": distance,
        "status": np.array([status.get(row["status"], "partial") for row in rows]),
        "label": np.array(label),
        "allowed": np.array([[row["lower"], row["upper"]] for row in rows]).reshape(
            n_rows, 2, shape[1]
        ),
        "subject": Subject(
            ensemble,
            document["model"]["name"],
            constraints,
            document["goal"],
            False,
            text,
        ),
    }


def _numbers(X, like=None):
    codec = RowCodec(X if like is None else like)
    if codec.mutable is not None and not codec.mutable.all():
        names = [
            name for name, own in zip(X.columns, codec.mutable, strict=True) if not own
        ]
        raise ValueError(
            f"Certificates are of rows of numbers; the columns {names} hold none. Attack "
            "the model behind the encoder on the rows that encoder.transform(X) returns: "
            "the certificate is then of those."
        )
    return codec.encode(X).astype(np.float64)


def _whole_columns(X):
    if not is_dataframe(X):
        return np.full(np.shape(X)[1], np.asarray(X).dtype.kind in "iu")
    return np.array([dtype.kind in "iu" for dtype in X.dtypes])


def _as_list(values):
    return [_finite(value) for value in values.tolist()]


def _finite(value: float) -> Any:
    return float(value) if np.isfinite(value) else None


def _plain(label):
    return getattr(label, "item", lambda: label)()
