"""Work that joblib's workers share: what all of it needs is unpickled by each once."""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from contextlib import contextmanager
from itertools import islice
from math import ceil
from uuid import uuid4

import numpy as np
from joblib import (
    Parallel,
    delayed,
    effective_n_jobs,
    parallel_config,
    wrap_non_picklable_objects,
)

# A task should take so many seconds, which handing it over then does not add much to, as
# far as each worker still gets a few.
_LONG_ENOUGH, _TASKS_PER_WORKER = 1.0, 2

# What this process has handed out, by key; and the last that a thread was sent.
_own, _sent = {}, threading.local()


def run_tasks(tasks, n_jobs):
    """Run joblib tasks, and return their results as they come, in the tasks' order.

    Parameters
    ----------
    tasks : iterable of `joblib.delayed` calls
        Is consumed as workers get free.
    n_jobs : int or None
        Number of joblib jobs.

    Returns
    -------
    results : iterator
    """
    try:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:  # of backends that have all results at the end only, as ray's
        parallel = Parallel(n_jobs=n_jobs)
    return iter(parallel(tasks))


def in_parallel(function, parts, n_parts, n_jobs, *, grouped=True):
    """Yield ``function(part)`` for each part, in their order, from joblib's workers.

    The function and what it holds, such as a model, is pickled once, and each worker
    unpickles it once. The bytes are an array, which loky keeps on disk, and dask in its
    workers; a backend that shares no arrays, such as ray's, sends them with every task.
    Parts that take less than a second make a task together, by how long the ones before
    them took; a worker has one thread, and starts no others.

    Parameters
    ----------
    function : callable
        What to do with a part; its state is not changed.
    parts : iterable
        Is consumed as workers get free.
    n_parts : int
        How many there are.
    n_jobs : int or None
        Number of joblib jobs; of 1, everything happens here.
    grouped : bool, default=True
        Whether several parts may make a task.

    Yields
    ------
    result : object
        One for each part.

    Raises
    ------
    Exception
        The first that the function raises, after the results of all parts that are done;
        no more of them are begun.
    """
    n_workers = effective_n_jobs(n_jobs)
    if n_workers == 1 or n_parts == 1:
        yield from map(function, parts)
        return
    pace, error = _Pace(n_parts, n_workers if grouped else n_parts), None
    with handed_out(function) as sent:
        tasks = (delayed(_perform)(*sent, group) for group in pace.groups(parts))
        for results, seconds, stop in run_tasks(tasks, n_jobs):
            pace.took(len(results), seconds)
            yield from results
            if error is None and stop is not None:
                error = stop
                pace.stop()  # and wait for what is under way: that was paid for
    if error is not None:
        raise error


@contextmanager
def handed_out(function):
    """Give what tasks need to name a function, which each worker unpickles once.

    Parameters
    ----------
    function : callable
        Holds what is large.

    Yields
    ------
    sent : tuple (str, ndarray)
        Arguments of a task, which calls :func:`received` with them.
    """
    key = uuid4().hex
    _own[key] = function
    try:
        yield key, _as_bytes(function)
    finally:
        del _own[key]


def received(key, sent):
    """Return the function that :func:`handed_out` was given, or this thread's copy."""
    if key in _own:
        return _own[key]
    if sent is None:
        raise pickle.PicklingError(
            "The model, or something else that workers need, cannot be pickled. Use "
            "n_jobs=None, or joblib.parallel_config(backend='threading')."
        )
    if getattr(_sent, "key", None) != key:
        _sent.function = None  # two at a time may be too large
        _sent.function, _sent.key = pickle.loads(sent), key
    return _sent.function


class _Pace:
    """Puts parts into tasks, by how long those took that are done.

    Parameters
    ----------
    n_parts : int
        How many parts there are.
    n_workers : int
        How many workers there are.
    """

    def __init__(self, n_parts, n_workers):
        self._n_left = n_parts
        self._n_at_a_time = _TASKS_PER_WORKER * n_workers
        self._n_done = self._seconds = 0
        self._stopped = False

    def groups(self, parts):
        """Yield lists of parts; each is as long as is known when it is asked for."""
        parts = iter(parts)
        while not self._stopped and (group := list(islice(parts, self._size()))):
            self._n_left -= len(group)
            yield group

    def stop(self):
        """Let there be no more."""
        self._stopped = True

    def took(self, n_parts, seconds):
        """Learn how long some parts took."""
        self._n_done += n_parts
        self._seconds += seconds

    def _size(self):
        if not self._n_done or not self._seconds:
            return 1
        enough = ceil(_LONG_ENOUGH * self._n_done / self._seconds)
        return max(1, min(enough, self._n_left // self._n_at_a_time))


def _as_bytes(function):
    """Return a function and what it holds as an array, or None where that cannot be."""
    try:
        # What was defined in a notebook goes by value.
        wrapped = wrap_non_picklable_objects(function, keep_wrapper=False)
        return np.frombuffer(pickle.dumps(wrapped), dtype=np.uint8)
    except Exception:  # of a connection or a lock; threads of this process do without
        return None


def _perform(key, sent, group):
    """Do the parts of a task; return their results, the seconds, and what stopped it."""
    function = received(key, sent)
    results, begin, error = [], time.perf_counter(), None
    # A backend may nest, as dask's does: it would send parts of parts elsewhere.
    with parallel_config(backend="sequential"):
        for part in group:
            try:
                results.append(function(part))
            except Exception as stop:
                if key not in _own:
                    stop.add_note(f"In a worker:\n\n{traceback.format_exc()}")
                error = stop  # a value, as what was done before it is one
                break
    return results, time.perf_counter() - begin, error
