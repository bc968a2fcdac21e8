"""Progress of long fits, told to the callbacks of `sklearn.callback`, and logged."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from operator import length_hint
from typing import Any, Self

from ._sklearn import Decorated

__all__ = ["LOG", "MOST_SHARES", "ReportsProgress", "logged", "with_callbacks"]

# At INFO, when fits begin and end, and every few seconds how far what takes long is; at
# DEBUG, each task of a fit.
LOG = logging.getLogger("sklearn_advsec")
_SECONDS = 3.0

# Of what has many parts, such as rows, shares are the tasks: bars take a time that grows
# with the square of the number of tasks.
MOST_SHARES = 100

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # scikit-learn before 1.9
    _with_callbacks = None

    class CallbackSupportMixin:
        """Takes no callbacks, as there are none."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Refuse callbacks.

            Raises
            ------
            ImportError
                If there is a callback.
            """
            if callbacks:
                raise ImportError("set_callbacks needs scikit-learn 1.9 or later.")
            return self


def with_callbacks(fit: Decorated) -> Decorated:
    """Decorate a method as scikit-learn does; where it has no callbacks, leave it."""
    return fit if _with_callbacks is None else _with_callbacks(fit)


def logged(steps, owner, name, n_steps=None):
    """Yield steps, and log how many are done: at INFO, if the last time is a while ago.

    Parameters
    ----------
    steps : iterable
        What is looped over.
    owner, name : str
        Whose steps they are, and what one is called.
    n_steps : int, default=None
        How many there are; None where that is not known, or `steps` says it.
    """
    n_steps = length_hint(steps, 0) if n_steps is None else n_steps
    begin = last = time.monotonic()
    for number, step in enumerate(steps, start=1):
        yield step
        LOG.debug("%s: %s %d done", owner, name, number)
        now = time.monotonic()
        if now - last < _SECONDS or number == n_steps:
            continue
        last, passed = now, now - begin
        line = f"{owner}: {name} {number} done; {passed:.0f} s"
        if n_steps:
            left = passed / number * (n_steps - number)
            line = (
                f"{owner}: {name} {number} of {n_steps} done; {passed:.0f} s, about "
                f"{left:.0f} s to go"
            )
        LOG.info("%s", line)


class ReportsProgress(CallbackSupportMixin):
    """Lets the callbacks of `set_callbacks` follow a fit, and some of them end it.

    The fit is one task, with its epochs, models or queries as subtasks. A `fit` that is
    decorated by `_fit_context` or `with_callbacks`, which tear the callbacks down, does
    its work inside of `_reported`, and its loops go over `_tasks`. Without callbacks,
    they only log. What predicts for long is decorated as well, and works inside of
    `_told_to_callbacks`.
    """

    def _n_tasks(self):
        """Return how many tasks a fit has at most; None where that is not known."""
        return 0

    @contextmanager
    def _reported(self, X, y, n_tasks=None):
        """Report what is done inside as the fit to rows and labels.

        It has as many tasks as `_n_tasks` says, where no number is given.
        """
        name, begin = type(self).__name__, time.monotonic()
        LOG.info("%s: begins", name)
        with self._told_to_callbacks(X, y, n_tasks):
            yield
        LOG.info("%s: done after %.1f s", name, time.monotonic() - begin)

    @contextmanager
    def _told_to_callbacks(self, X, y, n_tasks):
        if not hasattr(self, "_skl_callbacks"):
            yield
            return
        n_tasks = self._n_tasks() if n_tasks is None else n_tasks
        fit = self._init_callback_context(max_subtasks=n_tasks)
        fit.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._reporting = fit, {"estimator": self, "X": X, "y": y}
        try:
            yield
        finally:
            del self._reporting
        fit.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes={})

    def _tasks(self, steps, name, *, attributes=None, stops=True):
        """Yield steps, each a task of the fit.

        Parameters
        ----------
        steps : iterable
            What is looped over.
        name : str
            What the task is called.
        attributes : callable, default=None
            Returns the attributes with which the estimator, as it is after a step, can
            predict; called only for callbacks that want such an estimator.
        stops : bool, default=True
            Whether to end early where a callback asks for it: where that leaves
            something usable.
        """
        for step in logged(steps, type(self).__name__, name):
            task = self._begin_task(name)
            yield step
            if self._end_task(task, attributes) and stops:
                return

    def _tell_shares(self, n_before, n_done, n_all, name):
        """Report that of all parts so many are done, and how many were before."""
        if not hasattr(self, "_reporting") or not n_all:
            return
        n_shares = min(n_all, MOST_SHARES)
        for _ in range(n_before * n_shares // n_all, n_done * n_shares // n_all):
            self._end_task(self._begin_task(name))

    def _fit_as_task(self, estimator, name, X, y, sample_weight=None):
        """Fit an estimator; callbacks that propagate follow its own tasks, too."""
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if not hasattr(self, "_reporting"):
            return estimator.fit(X, y, **weights)
        fit, data = self._reporting
        task = fit.subcontext(task_name=name)
        with task.propagate_callback_context(estimator):
            task.call_on_fit_task_begin(**data)
            estimator.fit(X, y, **weights)
            task.call_on_fit_task_end(**data)
        return estimator

    def _begin_task(self, name):
        """Begin a task, and return what ends it: None where nobody is told."""
        if not hasattr(self, "_reporting"):
            return None
        fit, data = self._reporting
        return fit.subcontext(task_name=name).call_on_fit_task_begin(**data)

    def _end_task(self, task, attributes=None):
        """End a task, and return whether a callback asks to stop."""
        return task is not None and task.call_on_fit_task_end(
            **self._reporting[1], reconstruction_attributes=attributes
        )
