"""Values that go missing: a move that constraints may allow, and no step leads to."""

import numpy as np
import torch

# So many columns at most are emptied, one after another and then together, for at most
# this share of what a row may still ask.
_MOST_COLUMNS, _SHARE = 32, 0.25


def may_go_missing(access):
    """Say of which columns values may go missing: constraints allow it, the victim too.

    The victim has the last word: it is asked about a row that lacks the value.

    Parameters
    ----------
    access : ConstrainedAccess
        To the victim, for one row.

    Returns
    -------
    may : ndarray of bool, shape (n_features,)
    """
    region = access.region
    may = (region.missing & region.mutable).numpy()
    may[list(region.allowed)] = False  # what a category may turn into is said there
    for j in np.flatnonzero(may):
        x = access.x.clone()
        x[0, j] = torch.nan
        try:
            access.predict(x)
        except (ValueError, TypeError):
            may[j] = False
    return may


def perturbation(x, x_adv):
    """Return what leads from `x` to `x_adv`: NaN where a value goes missing.

    What is missing in `x` stays so, whatever is added to it.
    """
    return torch.where(x.isnan(), 0.0, x_adv - x)


def lose_values(active, state):
    """Try the active rows with values missing: one at a time, then the best together.

    Rows that reach the goal leave. With labels only, any order of the columns is as good
    as another.
    """
    access = state.access
    columns = torch.nonzero(access.may_go_missing).flatten()[:_MOST_COLUMNS]
    active.tries = (active.affordable() * _SHARE).long()
    active.gain = torch.full((len(active), len(columns)), -torch.inf).to(active.x)
    for k in range(len(columns)):
        gone = torch.zeros_like(active.x, dtype=torch.bool)
        gone[:, columns[k]] = True
        _ask_without(active, state, gone, k)
        if not len(active):
            return
    active.order = active.gain.argsort(dim=1, descending=True, stable=True)
    for k in range(2, len(columns) + 1):
        gone = torch.zeros_like(active.x, dtype=torch.bool)
        gone.scatter_(1, columns.to(active.x.device)[active.order[:, :k]], True)
        _ask_without(active, state, gone)
        if not len(active):
            return


def _ask_without(active, state, gone, place=None):
    """Ask about rows without some values; note the gain of a single one at its place."""
    point = torch.where(gone, torch.nan, active.x)
    kept = state.access.valid(point, active.rows).isnan().to(gone.device)
    news = (gone & ~active.x.isnan()).any(1)
    at = torch.nonzero((kept == point.isnan()).all(1) & news & (active.tries > 0))
    at = at.flatten()
    if not len(at):
        return
    active.tries[at] -= 1
    answer = active.ask(point[at], at)
    if place is not None:
        gain = answer.objective
        active.gain[at, place] = -float(place) if gain is None else gain
    hit = answer.reached
    reached = at[hit]
    predicted, confirmed = active.confirm(point[reached], reached, answer.predicted[hit])
    reached = reached[confirmed]
    state.record(active.rows[reached], point[reached], predicted[confirmed], True)
    left = torch.ones_like(active.rows, dtype=torch.bool)
    active.select(left.index_fill(0, reached, False))
