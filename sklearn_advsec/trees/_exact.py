"""The cheapest change of an ensemble's answer, as a mixed-integer program and by boxes.

Kantchelian et al. (2016, arXiv:1509.07892): a binary variable per edge says on which side
of it the row is; leaves are continuous variables that the edges force to 0 or 1.
"""

import time

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ._branching import BranchAndBound

# What HiGHS says: optimal, time or iterations spent, infeasible.
_OPTIMAL, _SPENT, _INFEASIBLE = 0, 1, 2


class Program:
    """The program of a :class:`RowProblem`.

    Variables are, in this order: for each edge between two cells whether the row is above
    it, for each leaf whether the row is in it, and for norm inf the cost.

    Parameters
    ----------
    problem : RowProblem
        The leaves and cells around a row.
    least : ndarray of shape (n_rivals,)
        The gain that is needed, of each rival.
    """

    def __init__(self, problem, least):
        self.problem = problem
        # Costs are counted in units of the budget: the solver's tolerances are absolute.
        largest = problem.cost.max(initial=0.0) * max(1, len(problem.columns))
        self.unit = min(problem.budget, largest) or 1.0
        self.n_edges = int((problem.size - 1).sum())
        self.n_leaves = len(problem.leaf)
        self.n_variables = self.n_edges + self.n_leaves + (problem.norm == np.inf)
        # Edge b of a column lies below its cell b, for b >= 1.
        self.first = problem.first - np.arange(len(problem.first)) - 1
        self._rows, self._columns, self._values = [], [], []
        self._lower, self._upper = [], []
        self._objective = np.zeros(self.n_variables)
        self._chain_edges()
        self._pick_leaves(least)
        self._tie_leaves()
        self._price()

    def _add(self, row, column, value, lower, upper):
        """Add constraints; `row` counts from 0 among the new ones."""
        shift = len(self._lower)
        self._rows.append(np.asarray(row) + shift)
        self._columns.append(np.asarray(column))
        self._values.append(np.broadcast_to(value, np.shape(row)).astype(float))
        self._lower.extend(lower)
        self._upper.extend(upper)

    def _edges(self):
        """Return the column and the number of each edge."""
        size = self.problem.size
        column = np.repeat(np.arange(len(size)), size - 1)
        number = np.arange(self.n_edges) - self.first[column]
        return column, number

    def _chain_edges(self):
        """Who is above an edge is above all that are below it."""
        column, _ = self._edges()
        lower = np.flatnonzero(column[1:] == column[:-1])
        row = np.tile(np.arange(len(lower)), 2)
        value = np.repeat([1.0, -1.0], len(lower))
        self._add(
            row,
            np.concatenate([lower, lower + 1]),
            value,
            np.zeros(len(lower)),
            np.full(len(lower), np.inf),
        )

    def _pick_leaves(self, least):
        """Take one leaf of each tree, with a gain that is enough."""
        problem = self.problem
        leaf = self.n_edges + np.arange(self.n_leaves)
        self._add(
            problem.tree, leaf, 1.0, np.ones(problem.n_trees), np.ones(problem.n_trees)
        )
        for own, base, need in zip(problem.gain, problem.base, least, strict=True):
            size = np.abs(own).max(initial=0.0) or 1.0
            need = (need - base) / size
            self._add(np.zeros(len(leaf), int), leaf, own / size, [need], [np.inf])

    def part_whole_numbers(self, whole, halves):
        """Ask for more where all leaves have whole numbers, whose sums are exact.

        The solver's tolerance cannot tell a tie from a lead, but whole numbers are at
        least one half away from what they have to be above.

        Parameters
        ----------
        whole : ndarray of bool, shape (n_leaves,)
            Leaves with whole numbers as values.
        halves : ndarray of shape (n_rivals,)
            What their sum has to be above, of each rival.
        """
        if not whole.any():
            return
        problem = self.problem
        leaf = self.n_edges + np.arange(self.n_leaves)
        for own, base, half in zip(problem.gain, problem.base, halves, strict=True):
            self._add(
                np.zeros(len(leaf), int), leaf, own + ~whole, [half - base], [np.inf]
            )

    def exclude(self, cells, values):
        """Forbid leaves of the same values as those of a point, in all trees together.

        Parameters
        ----------
        cells : ndarray of int, shape (n_active,)
            The point.
        values : ndarray of shape (n_leaves, n_outputs)
            Values of the leaves.
        """
        problem = self.problem
        own = cells[:, None]
        inside = np.flatnonzero(((problem.low <= own) & (own <= problem.high)).all(0))
        of_tree = np.empty((problem.n_trees, values.shape[1]))
        of_tree[problem.tree[inside]] = values[inside]
        same = np.flatnonzero((values == of_tree[problem.tree]).all(1))
        self._add(
            np.zeros(len(same), int),
            self.n_edges + same,
            1.0,
            [-np.inf],
            [len(np.unique(problem.tree)) - 1.0],
        )

    def _tie_leaves(self):
        """Leaves of a tree above (below) one of its edges need the row to be there."""
        problem = self.problem
        for above in (True, False):
            limit = problem.low if above else problem.high + 1
            full = 0 if above else problem.size[:, None]
            column, leaf = np.nonzero(limit != full)
            number = limit[column, leaf]
            # One constraint for each edge that some leaf of the tree ends at.
            keys = np.stack([problem.tree[leaf], column, number], 1)
            keys = np.unique(keys, axis=0)
            starts = np.searchsorted(problem.tree, np.arange(problem.n_trees + 1))
            sizes = np.diff(starts)[keys[:, 0]]
            row = np.repeat(np.arange(len(keys)), sizes)
            member = np.repeat(starts[keys[:, 0]] - np.cumsum(sizes) + sizes, sizes)
            member = member + np.arange(len(row))
            edge = keys[row, 2]
            own = limit[keys[row, 1], member]
            beyond = own >= edge if above else own <= edge
            row, member = row[beyond], member[beyond]
            variable = self.first[keys[:, 1]] + keys[:, 2]
            n_rows = len(keys)
            self._add(
                np.concatenate([row, np.arange(n_rows)]),
                np.concatenate([self.n_edges + member, variable]),
                np.concatenate(
                    [np.ones(len(row)), np.full(n_rows, -1.0 if above else 1)]
                ),
                np.full(n_rows, -np.inf),
                np.full(n_rows, 0.0 if above else 1.0),
            )

    def _price(self):
        """Add up what the edges cost that are crossed."""
        problem = self.problem
        column, number = self._edges()
        cell = problem.first[column] + number
        price = (problem.cost[cell] - problem.cost[cell - 1]) / self.unit
        up = number > problem.own_cell[column]
        # Below the own cell it costs not to be above: price * (p - 1).
        if problem.norm != np.inf:
            self._objective[: self.n_edges] = price
            self.offset = -float(price[~up].sum())
            return
        self.offset = 0.0
        self._objective[-1] = 1.0
        for side, constant in ((up, 0.0), (~up, -price)):
            of, row = np.unique(column[side], return_inverse=True)
            free = np.bincount(row, np.broadcast_to(constant, price.shape)[side])
            self._add(
                np.concatenate([row, np.arange(len(of))]),
                np.concatenate(
                    [np.flatnonzero(side), np.full(len(of), self.n_variables - 1)]
                ),
                np.concatenate([price[side], np.full(len(of), -1.0)]),
                np.full(len(of), -np.inf),
                -free,
            )

    def solve(self, time_limit, lower=0.0):
        """Solve the program.

        Parameters
        ----------
        time_limit : float
            In seconds.
        lower : float
            A cost below which nothing succeeds.

        Returns
        -------
        bound : float
            No success is cheaper.
        cells : ndarray of int, shape (n_active,), or None
            The cheapest point found.
        solved : bool
            Whether `bound` is its cost.
        """
        problem = self.problem
        n_rows = len(self._lower)
        # HiGHS reads positions of 32 bits; older versions of scipy hand on what they get.
        rows = np.concatenate(self._rows).astype(np.int32)
        columns = np.concatenate(self._columns).astype(np.int32)
        matrix = csr_array(
            (np.concatenate(self._values), (rows, columns)),
            shape=(n_rows, self.n_variables),
        )
        lowest = np.zeros(self.n_variables)
        highest = np.ones(self.n_variables)
        if problem.norm == np.inf:
            most = min(problem.budget, problem.cost.max(initial=0.0))
            lowest[-1], highest[-1] = min(lower, most) / self.unit, most / self.unit
        kind = np.zeros(self.n_variables)
        kind[: self.n_edges] = 1
        result = milp(
            self._objective,
            integrality=kind,
            bounds=Bounds(lowest, highest),
            constraints=LinearConstraint(matrix, self._lower, self._upper),
            options={"time_limit": time_limit, "mip_rel_gap": 0.0},
        )
        if result.status == _INFEASIBLE:
            return np.inf, None, True
        bound = result.mip_dual_bound
        bound = -np.inf if bound is None else (bound + self.offset) * self.unit
        if result.x is None:
            return max(bound, lower), None, False
        above = np.rint(result.x[: self.n_edges])
        column, _ = self._edges()
        cells = np.bincount(column, above, minlength=len(problem.size)).astype(int)
        return max(bound, lower), cells, result.status == _OPTIMAL


# The solver's tolerance, relative to the optimum.
TOLERANCE = 1e-6
# How often another solution is asked for, after one that the roundings decide against.
_MAX_TIES = 12
# How many boxes are looked into before the program is tried: where costs add up, and
# for the largest of them.
_FIRST_BOXES = 1500, 100


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
    alive = problem.row_cells.reach <= problem.budget
    alive[problem.leaf[weak]] = False
    return problem.select(alive)


def solve(search, flip, time_limit, confirm):
    """Prove that the cheapest success is known, or find it.

    Parameters
    ----------
    search : Search
        A search that has ended; its result is replaced by what is cheaper.
    flip : ClassFlip
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
    problem = prune(search.problem(np.nextafter(search.cost, 0)), flip.least)
    if problem is None:
        return search.cost, True
    boxes = BranchAndBound(problem, flip, confirm, search.cost)
    # Few boxes do for most rows. The others take turns: which of the two is the faster
    # one cannot be told beforehand.
    if _run(boxes, search, time_limit, _FIRST_BOXES[problem.norm == np.inf]):
        return search.cost, True
    search.polish()  # a nearer success leaves less to prove
    share = (end - time.monotonic()) / 8
    problem = prune(search.problem(np.nextafter(search.cost, 0)), flip.least)
    if problem is None:
        return search.cost, True
    lower, solved = _solve_program(search, problem, flip, share, confirm)
    if solved:
        return lower, True
    if _run(boxes, search, 4 * share):
        return search.cost, True
    search.lower = max(lower, boxes.lower)
    if problem.norm == np.inf and _rise(search, flip, 2 * share, confirm):
        return search.cost, True
    problem = prune(search.problem(np.nextafter(search.cost, 0)), flip.least)
    if problem is None:
        return search.cost, True
    left = max(end - time.monotonic(), 1e-3)
    return _solve_program(search, problem, flip, left, confirm)


def _rise(search, flip, seconds, confirm):
    """Prove that nothing costs less than more and more; return whether all is proved.

    Where the largest cost counts, only some costs matter. What is in reach of the first
    of them is little, and few boxes are enough; the steps double while that is so.
    """
    end, cost = time.monotonic() + seconds, flip.row_cells.cost
    levels = np.unique(cost[(cost >= search.lower) & np.isfinite(cost)])
    at, step, patience = 0, 1, seconds / 16
    while at < np.searchsorted(levels, search.cost):
        last = min(at + step, np.searchsorted(levels, search.cost)) - 1
        problem = prune(search.problem(levels[last]), flip.least)
        closed, boxes = True, None
        if problem is not None:
            left = min(patience, end - time.monotonic())
            boxes = BranchAndBound(
                problem, flip, confirm, np.nextafter(levels[last], np.inf)
            )
            closed = left > 0 and boxes.run(left)
            if boxes.x is not None:
                search.cost, search.x = boxes.cost, boxes.x
        if closed and boxes is not None and boxes.x is not None:
            break
        if closed:
            at, step = last + 1, 2 * step
            search.lower = min(levels[at] if at < len(levels) else np.inf, search.cost)
        elif time.monotonic() > end:
            return False
        else:
            patience *= 2 if step == 1 else 1
            step = max(1, step // 4)
    search.lower = search.cost
    return True


def _run(boxes, search, seconds, max_boxes=np.inf):
    """Search boxes, and keep what is cheaper; return whether all of them are closed."""
    if search.x is not None and search.cost < boxes.cost:
        boxes.cost, boxes.x = search.cost, search.x
    closed = boxes.run(seconds, max_boxes)
    if boxes.x is not None and boxes.cost < search.cost:
        search.cost, search.x = boxes.cost, boxes.x
    return closed


def _solve_program(search, problem, flip, time_limit, confirm):
    """Solve the program; return a bound, and whether it is what the best one costs."""
    end = time.monotonic() + time_limit
    program = Program(problem, flip.least)
    ensemble = flip.row_cells.grid.ensemble
    leaf_value = ensemble.value[flip.row_cells.grid.leaf_node[problem.leaf]]
    whole = ensemble.whole[flip.row_cells.grid.leaf_node[problem.leaf]]
    program.part_whole_numbers(whole, flip.halves)
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


def close_gap(row_cells, lower, upper):
    """Return the lower bound, and whether it proves that the upper one is the optimum."""
    if row_cells.norm == 0 and np.isfinite(lower):
        lower = np.ceil(lower - TOLERANCE)  # a number of columns
    proved = lower >= upper * (1 - TOLERANCE)
    return (upper if proved else lower), bool(proved)
