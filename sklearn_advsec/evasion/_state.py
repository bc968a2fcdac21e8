"""What an attack has found: while it runs, and as its result."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from .._rows import is_dataframe

# On a GPU, finding out which rows are done stalls the queue: look less often.
_LOOK_EVERY = {"cpu": 1, "cuda": 8}


@dataclass(repr=False)
class EvasionResult:
    """What an evasion attack found.

    Attributes
    ----------
    X_adv : {ndarray, DataFrame} of shape (n_rows, ...)
        The adversarial rows, in the form of the input. Rows for which the attack failed
        hold its last attempt.
    y_pred : ndarray of shape (n_rows,)
        The victim's own prediction for each of them.
    success : ndarray of bool, shape (n_rows,)
        Whether the attack's goal was reached, as the victim itself confirmed.
    distance : ndarray of float, shape (n_rows,)
        How far the row was moved, in the attack's norm and the units of the features.
    n_queries : ndarray of int, shape (n_rows,)
        How often the victim was asked about the row (a gradient counts once).
    rows : ndarray of int, shape (n_rows,)
        Positions of these rows in the input: all of them, unless the attack was
        interrupted.
    """

    X_adv: object
    y_pred: np.ndarray
    success: np.ndarray
    distance: np.ndarray
    n_queries: np.ndarray
    rows: np.ndarray

    def __len__(self):
        return len(self.rows)

    def __repr__(self):
        if not len(self):
            return "EvasionResult(n_rows=0)"
        reached = self.distance[self.success]
        median = f"{np.median(reached):.4g}" if len(reached) else "nan"
        return (
            f"EvasionResult(n_rows={len(self)}, success_rate={self.success.mean():.3f}, "
            f"median_distance={median}, mean_queries={self.n_queries.mean():.1f})"
        )


def concatenate(results):
    """Join results of disjoint rows into one, in the order given."""
    results = [result for result in results if len(result)] or results[:1]
    if len(results) == 1:
        return results[0]
    parts = {
        field.name: [getattr(result, field.name) for result in results]
        for field in fields(results[0])
    }
    frames = parts.pop("X_adv")
    if is_dataframe(frames[0]):
        import pandas as pd

        X_adv = pd.concat(frames)
    else:
        X_adv = np.concatenate(frames)
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return type(results[0])(X_adv=X_adv, **joined)


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

    Attributes
    ----------
    goal : Goal
        The goal for all rows; set once it is known.
    x_adv : tensor of the shape of ``access.x``
        The best found so far for each row.
    predicted : tensor of int64, shape (n_rows,)
        The victim's prediction for it, -1 where it was not asked.
    success, finished : tensor of bool, shape (n_rows,)
        Whether it fulfils the goal, and whether the attack on the row has ended.
    """

    def __init__(self, access, norm, lower, upper, generator):
        self.access = access
        self.norm = norm
        self.lower = lower
        self.upper = upper
        self.generator = generator
        self.goal = None
        n, device = len(access.x), access.x.device
        self.x_adv = access.x.clone()
        self.predicted = torch.full((n,), -1, dtype=torch.int64, device=device)
        self.success = torch.zeros(n, dtype=torch.bool, device=device)
        self.finished = torch.zeros(n, dtype=torch.bool, device=device)

    def record(self, rows, x_adv, predicted, success):
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
        """
        self.x_adv[rows] = x_adv
        self.predicted[rows] = predicted
        self.success[rows] = success
        self.finished[rows] = self.success[rows]

    def open_rows(self):
        """Positions of the rows on which the attack has not ended."""
        return torch.nonzero(~self.finished).flatten()

    def result(self, offset=0, finished_only=False):
        """Return an :class:`EvasionResult`; `offset` is the position of the first row."""
        access = self.access
        keep = self.finished if finished_only else torch.ones_like(self.finished)
        at = torch.nonzero(keep).flatten()
        host = at.cpu().numpy()
        x_adv, predicted = self.x_adv[at], self.predicted[at]
        moved = access.moved(x_adv, at).flatten(1)
        distance = torch.linalg.vector_norm(moved, ord=self.norm, dim=1)
        success = self.success[at]
        success = success & access.still_valid(x_adv, at).to(success.device)
        return EvasionResult(
            X_adv=access.decode(x_adv, at),
            y_pred=access.predictions(predicted, x_adv, at),
            success=success.cpu().numpy(),
            distance=distance.cpu().numpy().astype(np.float64),
            n_queries=access.n_queries[host],
            rows=host + offset,
        )


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
