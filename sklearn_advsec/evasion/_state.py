"""State of a running attack, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import is_regressor

from .._rows import RowCodec, is_dataframe
from .._sklearn import _safe_indexing
from ..victim._answers import ABSTAINED

if TYPE_CHECKING:
    import pandas as pd

_NORM_NAMES = {np.inf: "Linf", 2: "L2", 1: "L1"}
# On a GPU, finding out which rows are done stalls the queue: look less often.
LOOK_EVERY = {"cpu": 1, "cuda": 10}


@dataclass(repr=False)
class EvasionResult:
    """What an evasion attack found.

    Attributes
    ----------
    X_adv : {ndarray, DataFrame} of shape (n_rows, ...)
        The adversarial rows, in the form of the input. Rows for which the attack failed
        hold its last attempt.
    y_pred : ndarray of shape (n_rows,)
        The victim's own prediction for each of them; None where it is not `known`.
    success : ndarray of bool, shape (n_rows,)
        Whether the attack's goal was reached, as the victim itself confirmed.
    distance : ndarray of float, shape (n_rows,)
        How far the row was moved, in the attack's norm and the units of the features.
    n_queries : ndarray of int, shape (n_rows,)
        How often the victim was asked about the row (a gradient counts once).
    rows : ndarray of int, shape (n_rows,)
        Positions of these rows in the input: all of them, unless the attack was stopped.
    finished : ndarray of bool, shape (n_rows,)
        Whether the search for the row ended by itself. Of an attack that was stopped, the
        other rows hold the best that was found so far.
    known : ndarray of bool, shape (n_rows,)
        Whether the victim's prediction for the row, as it is returned, is known. Of an
        attack that was stopped it may not be: the row was paid for, and is no success,
        but no rate counts it.
    abstained : ndarray of bool, shape (n_rows,)
        Where the victim abstains from a prediction of the row: no success.
    skipped : ndarray of bool, shape (n_rows,)
        Where the victim once gave an answer that was none, under
        ``run(..., on_bad_answer="skip")``: such a row comes back as it was, its
        prediction means nothing, and no rate counts it. It is not finished: ``resume``
        tries it anew.
    X : {ndarray, DataFrame} of shape (n_rows, ...)
        The rows before the attack.
    y : ndarray of shape (n_rows,) or None
        Their labels, where `run` was given them.
    y_before : ndarray of shape (n_rows,) or None
        The victim's predictions before the attack, as far as it had to find them out.
    correct : ndarray of bool, shape (n_rows,), or None
        Where the victim's predictions are right in spite of the attack: the label, or, of
        a regressor, within `delta` of `y`.
    norm : float
        The norm of the distances.
    unit : {"feature", "scale"}
        What they are measured in: each feature's own unit, or, under constraints, its
        `scale`.

    See Also
    --------
    EvasionAttack : Its `run` returns this.
    sklearn_advsec.inspection.RobustnessCurveDisplay : Draws the distances.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = ProjectedGradientDescent(LogisticRegression(max_iter=500), eps=0.5)
    >>> result = attack.fit(X, y).run(X[::10], y[::10])
    >>> result.clean_accuracy > result.robust_accuracy
    True
    >>> frame = result.to_frame()
    >>> bool((frame["distance"] <= 0.5 + 1e-6).all())
    True
    """

    X_adv: object
    y_pred: np.ndarray
    success: np.ndarray
    distance: np.ndarray
    n_queries: np.ndarray
    rows: np.ndarray
    finished: np.ndarray
    known: np.ndarray
    abstained: np.ndarray
    skipped: np.ndarray
    X: object
    y: np.ndarray | None
    y_before: np.ndarray | None
    correct: np.ndarray | None
    norm: float
    unit: str

    # What is said of all rows at once.
    _OF_ALL = ("norm", "unit")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def clean_accuracy(self) -> float:
        """Accuracy of the victim before the attack; NaN where that is not known."""
        if self.y is None or self.y_before is None:
            return np.nan
        return self._mean(self.y_before == self.y)

    @property
    def robust_accuracy(self) -> float:
        """Accuracy of the victim after the attack; NaN without labels."""
        return np.nan if self.correct is None else self._mean(self.correct)

    @property
    def success_rate(self) -> float:
        """Share of successes among the rows that the victim had right.

        Among all rows where that is not known, or nothing is right or wrong.
        """
        return self._mean(self.success, self._were_right())

    def _were_right(self):
        """Which rows the victim had right before the attack; all if that is not known."""
        if self.y is None or self.y_before is None:
            return np.ones(len(self), dtype=bool)
        return self.y_before == self.y

    def _mean(self, values, among=True):
        """Return the mean of the rows of which something is known; NaN of none."""
        values = values[self.known & ~self.skipped & among]
        return float(np.mean(values)) if len(values) else np.nan

    def select(self, at: Any) -> Self:
        """Return the result of some of the rows, by a mask or by their order here."""
        kept = {
            name: values
            if values is None or name in self._OF_ALL
            else _safe_indexing(values, at)
            for name, values in vars(self).items()
        }
        return type(self)(**kept)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each row that was attacked.

        Returns
        -------
        frame : DataFrame of shape (n_rows, n_columns)
            Label and prediction before the attack (where they are known), prediction
            after it, success, distance, number of queries, number of features changed,
            whether the search has ended, the prediction is known, the victim abstains and
            the row was skipped.
            The index is that of the rows, else their position in the input.
        """
        import pandas as pd

        columns = {
            "label": self.y,
            "before": self.y_before,
            "after": self.y_pred,
            "success": self.success,
            "distance": self.distance,
            "n_queries": self.n_queries,
            "n_changed": self._n_changed(),
            "finished": self.finished,
            "known": self.known,
            "abstained": self.abstained,
            "skipped": self.skipped,
        }
        known = {name: values for name, values in columns.items() if values is not None}
        index = self.X.index if is_dataframe(self.X) else pd.Index(self.rows, name="row")
        return pd.DataFrame(known, index=index)

    def _n_changed(self):
        before, after = (
            RowCodec(self.X).encode(self.X),
            RowCodec(self.X).encode(self.X_adv),
        )
        same = (before == after) | (np.isnan(before) & np.isnan(after))
        return (~same).reshape(len(self), -1).sum(axis=1)

    def _summary(self):
        """Return what a reader wants to know first: names and texts."""
        reached = self.distance[self.success & self._were_right()]
        summary = {"n_rows": f"{len(self)}"}
        for name in ("clean_accuracy", "robust_accuracy"):
            if not np.isnan(getattr(self, name)):
                summary[name] = f"{getattr(self, name):.3f}"
        summary["success_rate"] = f"{self.success_rate:.3f}"
        summary["median_distance"] = (
            f"{np.median(reached):.4g} ({self._measure()})" if len(reached) else "nan"
        )
        summary["mean_queries"] = f"{self.n_queries.mean():.1f}"
        if self.abstained.any():
            summary["abstained"] = f"{self.abstained.mean():.3f}"
        if self.skipped.any():
            summary["skipped_rows"] = f"{self.skipped.sum()}"
        if not self.known.all():
            summary["unknown_rows"] = f"{(~self.known).sum()}"
        unfinished = ~(self.finished | self.skipped)
        if unfinished.any():
            summary["unfinished_rows"] = f"{unfinished.sum()}"
        return summary

    def _measure(self):
        """Return what distances are measured in."""
        if self.norm == 0:
            return "features changed"
        unit = "in units of the constraints' scale"
        if self.unit == "feature":
            images = np.ndim(self.X) > 2
            unit = "of pixel values" if images else "in each feature's own unit"
        return f"{_NORM_NAMES[self.norm]} {unit}"

    def converted(self, convert: Callable[..., Any]) -> Self:
        """Return the same result with its rows in another form."""
        return replace(self, X_adv=convert(self.X_adv), X=convert(self.X))

    def __repr__(self):
        if not len(self):
            return f"{type(self).__name__}(n_rows=0)"
        texts = (f"{name}={text}" for name, text in self._summary().items())
        return f"{type(self).__name__}({', '.join(texts)})"

    def _repr_html_(self):
        if not len(self):
            return f"<p>{self!r}</p>"
        summary = self._summary().items()
        heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name, _ in summary)
        texts = "".join(f"<td>{text}</td>" for _, text in summary)
        table = f"<table><tr>{heads}</tr><tr>{texts}</tr></table>"
        return f"<p>{type(self).__name__}</p>{table}"


def concatenate(results):
    """Join results of disjoint rows into one, in the order of the rows."""
    results = [result for result in results if len(result)] or results[:1]
    if len(results) == 1:
        return results[0]
    joined = {}
    for name in vars(results[0]):
        parts = [getattr(result, name) for result in results]
        if name in results[0]._OF_ALL:
            joined[name] = parts[0]
        elif is_dataframe(parts[0]):
            import pandas as pd

            joined[name] = pd.concat(parts)
        else:
            known = all(part is not None for part in parts)
            joined[name] = _joined(parts) if known else None
    joined = type(results[0])(**joined)
    order = np.argsort(joined.rows, kind="stable")
    in_order = np.array_equal(order, np.arange(len(order)))
    return joined if in_order else joined.select(order)


def _joined(parts):
    """Join arrays; those that lie one after the other in memory are joined already."""
    first, base = parts[0], parts[0].base
    at = first.__array_interface__["data"][0]
    for part in parts:
        beside = part.__array_interface__["data"][0] == at
        alike = part.dtype == first.dtype and part.shape[1:] == first.shape[1:]
        whole = part.flags.c_contiguous and part.base is base is not None
        if not (beside and alike and whole):
            return np.concatenate(parts)
        at += part.nbytes
    shape = (sum(map(len, parts)), *first.shape[1:])
    return np.lib.stride_tricks.as_strided(first, shape, first.strides)


class AttackState:
    """One attack on some rows: what it may ask, what it wants, what it has found.

    Parameters
    ----------
    access : LabelAccess
        The victim.
    norm : float
        The norm in which distances are given.
    lower, upper : tensor of the shape of ``access.x``
        The box for the perturbation; 0 and 0 where a feature may not change.
    generator : torch.Generator
        Source of randomness.
    positions : ndarray of int, shape (n_rows,), default=None
        Positions of the rows in what is attacked as a whole; 0, 1, ... by default.

    Attributes
    ----------
    goal : Goal
        The goal for all rows; set once it is known.
    y : ndarray of shape (n_rows,) or None
        The labels that `run` was given.
    n_searched : int
        How many rows were searched one by one, before the victim is shown what was found.
    on_row : callable or None
        Is called after each of these.
    search : ActiveRows or None
        The search under way, which knows more than what was recorded.
    x_adv : tensor of the shape of ``access.x``
        The best found so far for each row.
    predicted : tensor of int64, shape (n_rows,)
        The victim's prediction for it, -1 where it was not asked.
    success, finished : tensor of bool, shape (n_rows,)
        Whether it fulfils the goal, and whether the attack on the row has ended.
    """

    def __init__(self, access, norm, lower, upper, generator, positions=None):
        self.access = access
        self.norm = norm
        self.lower = lower
        self.upper = upper
        self.generator = generator
        self.positions = positions
        self.goal = self.y = self.search = self.on_row = None
        self.n_searched = 0
        n, device = len(access.x), access.x.device
        self.x_adv = access.x.clone()
        self.predicted = torch.full((n,), -1, dtype=torch.int64, device=device)
        self.success = torch.zeros(n, dtype=torch.bool, device=device)
        self.finished = torch.zeros(n, dtype=torch.bool, device=device)

    def record(self, rows, x_adv, predicted, success, *, ends=True):
        """Keep what was found for some rows, and end them where it is a success.

        Parameters
        ----------
        rows : tensor of int64, shape (n,)
            Which.
        x_adv : tensor of shape (n, ...)
            What was found.
        predicted : tensor of int64, shape (n,)
            What the victim said of it.
        success : tensor of bool, shape (n,), or bool
            Whether it fulfils the goal.
        ends : bool, default=True
            Whether a success ends the attack on the row. If not, a nearer one is looked
            for.
        """
        self.x_adv[rows] = x_adv
        self.predicted[rows] = predicted
        self.success[rows] = success
        if ends:
            self.finished[rows] = self.success[rows]

    def open_rows(self):
        """Positions of the rows without a success on which the attack has not ended."""
        return torch.nonzero(~(self.success | self.finished)).flatten()

    def result(self):
        """Return what was found, as an :class:`EvasionResult`."""
        access, rows = (
            self.access,
            torch.arange(len(self.x_adv), device=self.x_adv.device),
        )
        skipped = torch.as_tensor(access.skipped, device=rows.device)
        if skipped.any():
            self._leave(skipped)
        moved = access.moved(self.x_adv, rows).flatten(1)
        distance = torch.linalg.vector_norm(moved, ord=self.norm, dim=1)
        regression = is_regressor(access.estimator)
        known = self.predicted.cpu().numpy() >= 0
        y_pred = access.predictions(self.predicted.clamp_min(0), self.x_adv, rows)
        if regression:
            known = np.isfinite(y_pred)
        elif not known.all():
            y_pred = np.where(known, y_pred, None)
        skipped = access.skipped.copy()  # of a regressor, this may be one more question
        correct = None if self.y is None else y_pred == self.y
        if correct is not None and regression:
            correct = np.abs(y_pred - self.y) <= access.estimator.delta
        if correct is not None:
            correct &= ~skipped
        success = self.success & access.still_valid(self.x_adv, rows).to(rows.device)
        return EvasionResult(
            X_adv=access.decode(self.x_adv, rows),
            y_pred=y_pred,
            success=success.cpu().numpy() & ~skipped,
            distance=distance.cpu().numpy().astype(np.float64),
            n_queries=access.n_queries.copy(),
            rows=np.arange(len(rows)) if self.positions is None else self.positions,
            finished=self.finished.cpu().numpy(),
            known=known,
            abstained=(self.predicted == ABSTAINED).cpu().numpy(),
            skipped=skipped,
            X=access.X,
            y=self.y,
            y_before=self._predictions_before(distance, rows),
            correct=correct,
            norm=self.norm,
            unit="feature" if access.region is None else "scale",
        )

    def _leave(self, mask):
        """Let rows be what they were: what was said of them counts for nothing."""
        labels = self.predicted if self.goal is None else self.goal.labels
        said = torch.where(self.predicted < 0, labels, self.predicted)[mask]
        self.record(mask, self.access.x[mask], said, False)

    def _predictions_before(self, distance, rows):
        """Return what the victim said of the rows as they were, where it follows."""
        goal, access = self.goal, self.access
        if goal is None:  # stopped while it was made up
            return None
        plain = goal.kind == "misclassification" and goal.confidence is None
        if is_regressor(access.estimator) or goal.kind == "targeted":
            return None
        if self.y is not None and not plain:
            return None
        # A row that was wrong already is a success that did not move.
        wrong = self.success & (distance == 0)
        before = torch.where(wrong, self.predicted, goal.labels)
        return access.predictions(before, access.x, rows)


def record_last(state, rows, x_adv, n_draws=1):
    """Ask the victim where rows ended, and record it (as far as the budget goes).

    With several draws, the mean of the logits is the answer.
    """
    access = state.access
    if not len(rows) or access.affordable(rows) < n_draws:
        return
    goal = state.goal.select(rows)
    if n_draws == 1:
        predicted, reached = goal.ask(access, x_adv, rows)
    else:
        logits = sum(access.logits(x_adv, rows) for _ in range(n_draws)) / n_draws
        predicted, reached = logits.argmax(1), goal.reached(logits)
    state.record(rows, x_adv, predicted, reached)
