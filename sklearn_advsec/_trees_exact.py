"""The cheapest success of a row, proved: what is left is solved as a program."""

import time

import numpy as np

from .trees._exact import Program

# The solver's tolerance, relative to the optimum.
TOLERANCE = 1e-6
# How often another solution is asked for, after one that the roundings decide against.
_MAX_TIES = 12


def prune(problem, least):
    """Drop leaves that, with the best leaves of all other trees, gain too little.

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around a row.
    least : ndarray of shape (n_rivals,)
        The gain that is needed, of each rival.

    Returns
    -------
    problem : RowProblem or None
        What is left; None where nothing can succeed within the budget.
    """
    best = problem.best()
    top = problem.base + best.sum(1)
    slack = 1e-9 * (np.abs(best).sum(1) + np.abs(problem.base) + 1)
    if not problem.complete or (top < least - slack).any():
        return None
    alone = problem.gain + (top[:, None] - best[:, problem.tree])
    weak = (alone < (least - slack)[:, None]).any(0)
    alive = problem.around.reach <= problem.budget
    alive[problem.leaf[weak]] = False
    return problem.keep(alive)


def solve(search, question, time_limit, confirm):
    """Prove that the cheapest success is known, or find it.

    Parameters
    ----------
    search : Search
        A search that has ended; its result is replaced by what is cheaper.
    question : Question
        What is searched for.
    time_limit : float
        In seconds.
    confirm : callable
        ``confirm(x)`` says whether a row is a success, for rows that gain hardly enough.

    Returns
    -------
    lower : float
        No success is cheaper.
    solved : bool
        Whether the time was enough.
    """
    end = time.monotonic() + time_limit
    problem = search.problem(np.nextafter(search.cost, 0))
    problem = prune(problem, question.least)
    if problem is None:
        return search.cost, True
    program = Program(problem, question.least)
    ensemble = question.around.grid.ensemble
    leaf_value = ensemble.value[question.around.grid.leaf_node[problem.leaf]]
    whole = ensemble.whole[question.around.grid.leaf_node[problem.leaf]]
    program.part_whole_numbers(whole, question.halves)
    lower = search.lower
    for _ in range(_MAX_TIES):
        left = max(end - time.monotonic(), 1e-3)
        lower, cells, solved = program.solve(left, lower)
        if cells is None:
            return (search.cost, True) if solved else (lower, False)
        if _accept(search, problem, cells, confirm) or not solved:
            return lower, solved
        program.exclude(cells, leaf_value)
    # Too many near ties: stay clear of them for a success, and leave the bound.
    left = max(end - time.monotonic(), 1e-3)
    _, cells, _ = Program(problem, search.need).solve(left, lower)
    if cells is not None:
        _accept(search, problem, cells, confirm)
    return lower, True


def _accept(search, problem, cells, confirm):
    """Keep a point that succeeds; return whether it does."""
    x, cost = problem.point(cells), problem.total(cells[None])[0]
    if not (problem.margin(cells) >= search.need).all() and not confirm(x):
        return False
    if cost < search.cost:
        search.cost, search.x = cost, x
    return True


def settle(around, lower, upper):
    """Return the lower bound, and whether it proves that the upper one is the optimum."""
    if around.norm == 0 and np.isfinite(lower):
        lower = np.ceil(lower - TOLERANCE)  # a number of columns
    proved = lower >= upper * (1 - TOLERANCE)
    return (upper if proved else lower), bool(proved)
