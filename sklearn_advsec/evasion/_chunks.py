"""The chunks of rows that an attack works on, one after another or by several jobs."""

from joblib import Parallel, delayed, effective_n_jobs

from ..exceptions import QueryBudgetExceeded
from ._state import concatenate


def run_chunks(attack, tasks, n_rows):
    """Run the chunks, here or through joblib, and lose nothing on the way."""
    results, limit = _Progress(attack, n_rows), attack.max_total_queries
    try:
        # A cap on the total needs to know what was spent: one chunk after another.
        if limit is not None or effective_n_jobs(attack.n_jobs) == 1:
            spent = 0
            for task in tasks:
                left = None if limit is None else limit - spent
                results.append(attack._run_chunk(*task, max_total_queries=left))
                spent += int(results[-1].n_queries.sum())
        else:
            parallel = Parallel(n_jobs=attack.n_jobs, return_as="generator")
            for result in parallel(delayed(attack._run_chunk)(*t) for t in tasks):
                results.append(result)
    except (KeyboardInterrupt, QueryBudgetExceeded) as stop:
        inner = getattr(stop, "result", None)
        finished = results if inner is None else [*results, inner]
        stop.result = concatenate(finished) if finished else None
        if isinstance(stop, QueryBudgetExceeded) and limit is not None:
            stop.args = (
                f"max_total_queries={limit} queries are spent; the rows that were "
                "finished by then are in this exception's result.",
            )
        raise
    return concatenate(results)


class _Progress(list):
    """The results of the chunks; says how far the attack is, if it is `verbose`."""

    def __init__(self, attack, n_rows):
        super().__init__()
        self.name, self.n_rows = type(attack).__name__, n_rows
        self.verbose = attack.verbose

    def append(self, result):
        super().append(result)
        if self.verbose:
            done = sum(len(part) for part in self)
            found = sum(int(part.success.sum()) for part in self)
            print(f"[{self.name}] {done} of {self.n_rows} rows, {found} successes")
