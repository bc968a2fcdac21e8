"""Progress of long fits, told to the callbacks of `sklearn.callback`, and logged."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import Any, Self

from ._sklearn import Decorated

__all__ = ["LOG", "ReportsProgress", "with_callbacks"]

# At INFO, when fits begin and end, and how far attacks are; at DEBUG, each task of a fit.
LOG = logging.getLogger("sklearn_advsec")

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


class ReportsProgress(CallbackSupportMixin):
    """Lets the callbacks of `set_callbacks` follow a fit, and some of them end it.

    The fit is one task, with its epochs, models or queries as subtasks. A `fit` that is
    decorated by `_fit_context` or `with_callbacks`, which tear the callbacks down, does
    its work inside of `_reported`, and its loops go over `_tasks`. Without callbacks,
    neither does anything.
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
        for number, step in enumerate(steps, start=1):
            task = self._begin_task(name)
            yield step
            LOG.debug("%s: %s %d done", type(self).__name__, name, number)
            if self._end_task(task, attributes) and stops:
                return

    def _tell_done(self, n_tasks, name):
        """Report tasks that are done already."""
        if hasattr(self, "_reporting"):
            for _ in range(n_tasks):
                self._end_task(self._begin_task(name))

    def _fit_as_task(self, estimator, name, X, y, sample_weight=None):
        """Fit an estimator; callbacks that propagate follow its own tasks, too."""
        if not hasattr(self, "_reporting"):
            return estimator.fit(X, y, sample_weight=sample_weight)
        fit, data = self._reporting
        task = fit.subcontext(task_name=name)
        with task.propagate_callback_context(estimator):
            task.call_on_fit_task_begin(**data)
            estimator.fit(X, y, sample_weight=sample_weight)
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
