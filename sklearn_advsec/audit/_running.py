"""Running tasks: each within its time, all within theirs, and nothing done twice."""

import ctypes
import threading
import time
import warnings
from contextlib import contextmanager

import numpy as np
from joblib import effective_n_jobs

from .._parallel import in_parallel
from .._seeding import seeded_torch
from ..exceptions import GradientMaskingWarning
from ._section import Outcome

# How often a waiting thread looks whether somebody wants to stop, in seconds.
_LOOK_EVERY = 0.2
# A task may take so much of the time that is left to all, but at least so many seconds.
_LARGEST_PART, _LEAST = 0.25, 1.0
# The most that is kept of an error's text.
_LONGEST_NOTE = 300


class TaskStopped(BaseException):
    """Is raised inside of a task that has had its time."""


def run_within(function, time_limit):
    """Call a function in a thread of its own, and leave it when its time is over.

    What hangs in compiled code, or waits for a network, cannot be ended; it is left
    behind, in a thread that does not keep the process alive.

    Parameters
    ----------
    function : callable
        Is called without arguments.
    time_limit : float
        Seconds.

    Returns
    -------
    result : object
        What it returned.

    Raises
    ------
    TimeoutError
        If it has not returned in time.
    BaseException
        Whatever it raised.
    """
    box = {}

    def work():
        try:
            box["result"] = function()
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    end = time.monotonic() + time_limit
    try:
        while thread.is_alive() and time.monotonic() < end:
            thread.join(min(_LOOK_EVERY, max(end - time.monotonic(), 0)))
    finally:
        if thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(TaskStopped)
            )
    if "error" in box:
        raise box["error"]
    if "result" not in box:
        raise TimeoutError(f"it took longer than {time_limit:g} seconds")
    return box["result"]


def perform(fingerprint, section, task, subject):
    """Perform a task; what `memory` keeps, by the fingerprint and the task."""
    return section.perform(subject, task)


def attempt(cached, fingerprint, section, task, subject, deadline, too_slow):
    """Perform a task, and say how it ended, whatever that was.

    Parameters
    ----------
    cached : callable
        :func:`perform`, or what keeps its results.
    fingerprint : str or None
        Stands for the victim, its data and the settings.
    section : Section
        Whose task it is.
    task : Task
        The task.
    subject : Subject
        What is audited.
    deadline : float or None
        When no task is begun any more, in the time of `time.time`.
    too_slow : bool
        Whether another part of the same took too long.

    Returns
    -------
    outcome : Outcome
        What came of it.
    """
    limit = subject.effort.time_limit
    if too_slow:
        return Outcome(task, None, "not started", "another part of it took too long")
    if deadline is not None:
        left = deadline - time.time()
        if left <= 0:
            return Outcome(task, None, "not started", "the time of the audit was over")
        limit = min(limit, max(left * _LARGEST_PART, _LEAST))
    begin, seed = time.monotonic(), subject.seed % 2**31
    # Both are set around the thread, so that one that is left behind undoes nothing.
    with warnings.catch_warnings(record=True) as caught, _seeded(seed):
        warnings.simplefilter("always")
        try:
            evidence = run_within(
                lambda: cached(fingerprint, section, task, subject), limit
            )
            status, note = "done", _said(caught)
        except TimeoutError as error:
            evidence, status, note = None, "time limit", str(error)
        except Exception as error:
            evidence, status, note = None, "failed", _text_of(error)
    return Outcome(task, evidence, status, note, time.monotonic() - begin)


def run_all(jobs, subject, *, fingerprint, memory, n_jobs, seconds, tell):
    """Yield the outcomes of tasks, in their order.

    Parameters
    ----------
    jobs : list of tuple (Section, Task)
        The tasks, as one flat list.
    subject : Subject
        What is audited.
    fingerprint : str or None
        See :func:`attempt`.
    memory : Memory
        Where finished tasks are kept.
    n_jobs : int or None
        Number of joblib jobs.
    seconds : float or None
        After which no task is begun.
    tell : callable
        Is called with each outcome.

    Yields
    ------
    outcome : Outcome
        One for each task.
    """
    cached = memory.cache(perform, ignore=["section", "subject"])
    deadline = None if seconds is None else time.time() + seconds
    slow, n_done = set(), 0

    def waiting(begin):
        for section, task in jobs[begin:]:
            yield section, task, _kind(task) in slow

    def attempted(job):
        section, task, too_slow = job
        return attempt(cached, fingerprint, section, task, subject, deadline, too_slow)

    def told(outcomes):
        for outcome in outcomes:
            if outcome.status == "time limit":
                slow.add(_kind(outcome.task))
            tell(outcome)
            yield outcome

    if effective_n_jobs(n_jobs) > 1:
        # Tasks are dispatched as others end, so that what was slow is known in time.
        try:
            outcomes = in_parallel(
                attempted, waiting(0), len(jobs), n_jobs, grouped=False
            )
            for outcome in told(outcomes):
                n_done += 1
                yield outcome
        except Exception as error:  # of the workers: tasks say themselves what happened
            warnings.warn(
                f"n_jobs={n_jobs}: the audit goes on in one process, as the victim or "
                f"the work could not be handed to others: {_text_of(error)}",
                stacklevel=2,
            )
    yield from told(map(attempted, waiting(n_done)))


def _kind(task):
    return task.threat, task.name


@contextmanager
def _seeded(seed):
    """Seed what victims draw from that have no seed of their own, and put it back."""
    own = np.random.mtrand._rand  # numpy's global state
    state = own.get_state()
    own.seed(seed)
    try:
        with seeded_torch(seed):
            yield
    finally:
        own.set_state(state)


def _text_of(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_LONGEST_NOTE]


def _said(caught):
    """Return what was warned of, each thing once."""
    texts = [
        " ".join(str(w.message).split())
        for w in caught
        if issubclass(w.category, (UserWarning, RuntimeWarning))
        and not issubclass(w.category, GradientMaskingWarning)
        and "ConvergenceWarning" not in w.category.__name__
    ]
    return "; ".join(dict.fromkeys(texts))[:_LONGEST_NOTE]
