"""Who answers for the victim: a network, a forest, a regressor, or any estimator.

An access counts, and turns rows into what the victim takes; what it may ask is the same
for all. How the answer comes about is here.
"""

from weakref import proxy

import numpy as np
import torch
from sklearn.base import is_regressor

from .. import differentiable
from .._estimators import telling_precision
from .._rows import writable
from ..exceptions import QueryBudgetExceeded
from ._answers import ABSTAINED
from ._forests import quick_answers
from ._regression import ask_regressor
from ._validation import scores_decide


def answerer_of(access, view=None):
    """Return who answers the questions of an access.

    Parameters
    ----------
    access : LabelAccess
        Whose `estimator` is a fitted victim.
    view : ClassifierView, optional
        Of the victim; networks answer by theirs, as tensors on their own device.
    """
    if is_regressor(access.estimator):
        return RegressorAnswerer(access, view)
    network = view is not None and view.module is not None
    if network and access.check.abstain_label is None:
        return NetworkAnswerer(access, view)
    return EstimatorAnswerer(access, view)


class EstimatorAnswerer:
    """The victim's own methods answer, on rows in the form that it was fitted on.

    Attributes
    ----------
    graded : bool
        Whether there are scores at all.
    probability, decisive : bool
        See :class:`ScoreAccess`.
    exact : bool
        Whether the logits of the view are those of which the answers are made.
    """

    exact = False

    def __init__(self, access, view):
        victim = access.estimator
        self.access = proxy(
            access
        )  # which holds this: no circle, so that rows go at once
        self.view = view
        self.victim = quick_answers(victim)
        self.probability = hasattr(victim, "predict_proba")
        self._decides = hasattr(victim, "decision_function")
        self.graded = self.probability or self._decides or view is not None
        self.decisive = scores_decide(victim)

    def labels(self, x, rows):
        """Return labels, as positions in the victim's classes."""
        with telling_precision(self.access.estimator):
            answer = self.victim.predict(self.access.decode(x, rows))
        position = self.access.check.labels(answer, len(x), _rows(x, rows))
        return torch.as_tensor(position, device=x.device)

    def scores(self, x, rows):
        """Return one score per class."""
        if not (self.probability or self._decides):
            return self.logits(x, rows)  # votes, say, of which only the view tells
        method = "predict_proba" if self.probability else "decision_function"
        with telling_precision(self.access.estimator):
            answer = getattr(self.victim, method)(self.access.decode(x, rows))
        answer = self.access.check.scores(answer, len(x), _rows(x, rows), method)
        scores = torch.as_tensor(writable(answer), dtype=x.dtype, device=x.device)
        return scores if self.probability else differentiable.binary_logits(scores)

    def logits(self, x, rows):
        """Return the logits of the victim's view."""
        with torch.no_grad():
            logits = _batched(self.view.logits, x, self.access.batch_size)
        return self.from_view(logits, x, rows)

    def from_view(self, logits, x, rows):
        """Return logits of the view as those of the victim."""
        return logits

    def to_differentiate(self, logits, rows):
        """Return logits of the view as a loss is to see them."""
        return logits

    def refer(self, y):
        """Return the classes to lead away from, if they are known."""
        access = self.access
        if y is not None:
            return torch.as_tensor(writable(y), device=access.device)
        if access.check.abstain_label is None:
            return None
        labels = access.predict(access.x)
        silent = torch.nonzero(labels == ABSTAINED).flatten()
        if len(silent) and access.knowledge != "label" and access.affordable(silent) > 0:
            # Where it abstains already, the attack leads away from the likeliest class.
            labels[silent] = access.scores(access.x[silent], silent).argmax(1)
        return labels

    def predictions(self, predicted, x, rows):
        """Return labels."""
        return self.access.check.in_words(host(predicted))


class NetworkAnswerer(EstimatorAnswerer):
    """A view of the network answers for it, on its own device."""

    def __init__(self, access, view):
        super().__init__(access, view)
        self.decisive = True
        self.exact = access._keeps
        # To look at every answer would stall a GPU: there, the rows that are returned
        # are looked at once more.
        self._suspicious = None

    def labels(self, x, rows):
        """Return the classes of the largest logits."""
        return self.logits(self.access.as_sent(x, rows), rows).argmax(1)

    def scores(self, x, rows):
        """Return one score per class."""
        x = self.access.as_sent(x, rows)
        if not self.probability:
            return self.logits(x, rows)
        with torch.no_grad():
            scores = _batched(self.view.predict_proba, x, self.access.batch_size)
        return self.from_view(scores, x, rows)

    def from_view(self, logits, x, rows):
        """Return logits, all of them finite."""
        self._check_width(logits)
        fine = logits.isfinite().all()
        if logits.is_cuda:
            seen = self._suspicious
            self._suspicious = ~fine if seen is None else seen | ~fine
        elif not fine:
            return self._finite(logits, x, rows)
        return logits

    def predictions(self, predicted, x, rows):
        """Return labels."""
        if self._suspicious is not None and self._suspicious:
            with torch.no_grad():
                logits = _batched(self.view.logits, x, self.access.batch_size)
            self._finite(logits, x, rows)
        return super().predictions(predicted, x, rows)

    def _finite(self, logits, x, rows):
        checked = self.access.check.finite(host(logits), _rows(x, rows), "forward")
        return torch.as_tensor(checked).to(logits)

    def _check_width(self, logits):
        n_classes = len(self.access.classes)
        if logits.shape[1] != n_classes:
            self.access.check.scores(host(logits), len(logits), method="predict_proba")


class RegressorAnswerer(EstimatorAnswerer):
    """A regressor answers with how far its prediction is from a reference.

    The scores of the three classes are ``-m / delta - 1``, 0 and ``m / delta - 1`` with
    the move `m`, so the largest is that of the class, and their margin grows with m.
    """

    _UNCHANGED = 1

    def __init__(self, access, view):
        super().__init__(access, view)
        self.probability, self.graded, self.decisive = False, True, True
        self.reference = None
        # What was last said of each row: mostly, of what it is in the end.
        self._last = None

    def refer(self, y):
        """Measure moves from `y`, or from what the regressor says of the rows."""
        access = self.access
        if y is None:
            access._spend(access.x, None)
            y = self._values(access.x, None)
        self.reference = torch.as_tensor(host(y)).to(access.device, access.dtype)
        return torch.full((len(access.x),), self._UNCHANGED, device=access.device)

    def labels(self, x, rows):
        """Return which way the predictions moved."""
        return self.scores(x, rows).argmax(1)

    def scores(self, x, rows):
        """Return how far the predictions moved."""
        return self._scores(self._values(x, rows), rows)

    def from_view(self, logits, x, rows):
        """Return these scores, of the values of the view."""
        return self._scores(logits[:, 0], rows)

    def to_differentiate(self, logits, rows):
        """Return these scores, for a gradient."""
        # A prediction that has not moved yet is drawn both ways alike: break the tie.
        return self._scores(logits[:, 0] + 1e-3 * self.access.estimator.delta, rows)

    def predictions(self, predicted, x, rows):
        """Return the predictions themselves; NaN where these cannot be asked any more.

        What was not just asked costs a question.
        """
        at = _rows(x, rows)
        values = torch.full_like(x.flatten(1)[:, 0], torch.nan)
        if self._last is not None:
            points, said = (last[at] for last in self._last)
            same = ((points == x) | (points.isnan() & x.isnan())).flatten(1).all(1)
            values = torch.where(same, said, values)
        left = torch.nonzero(values.isnan()).flatten()
        if len(left) and not self.access.closed:
            asked = torch.as_tensor(at)[left.cpu()]
            try:
                self.access._spend(x[left], asked)
            except QueryBudgetExceeded:  # of a total that is spent
                return host(values)
            values[left] = self._values(x[left], asked)
        return host(values)

    def _values(self, x, rows):
        access = self.access
        # The regressor inside: what it answers is checked, or skipped, here.
        values = ask_regressor(access.estimator.estimator_, access.decode(x, rows))
        at = _rows(x, rows)
        values = access.check.values(values, len(x), at)
        values = torch.as_tensor(
            writable(values), dtype=access.dtype, device=access.device
        )
        if self._last is None:
            shape = access.x.shape
            self._last = access.x.clone(), torch.full(shape[:1], torch.nan).to(x)
        for last, now in zip(self._last, (x.detach(), values), strict=True):
            last[at] = now
        return values

    def _scores(self, values, rows):
        reference = torch.zeros_like(values) if self.reference is None else self.reference
        move = values - (reference if rows is None else reference[rows])
        delta = float(self.access.estimator.delta)
        sides = (-move - delta, torch.zeros_like(move), move - delta)
        scores = torch.stack(sides, 1) / (delta or 1.0)
        # A move of delta itself is none: a tie goes to the middle.
        tie = torch.finfo(scores.dtype).tiny
        return scores - scores.new_tensor([tie, 0.0, tie])


def host(rows):
    """Return a tensor, or array, as an array that torch takes back."""
    if isinstance(rows, torch.Tensor):
        return rows.cpu().numpy()
    return writable(np.asarray(rows))


def _rows(x, rows):
    """Return which rows under attack the rows of a query stand for, as an array."""
    if isinstance(rows, slice):
        return np.arange(len(x)) + (rows.start or 0)
    return np.arange(len(x)) if rows is None else host(rows)


def _batched(function, x, batch_size):
    if len(x) <= batch_size:
        return function(x)
    return torch.cat([function(part) for part in x.split(batch_size)])
