"""Access to a victim by its answers: labels, or scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import is_regressor

from .. import differentiable
from .._estimators import may_take_nan, name_of
from .._rows import RowCodec, check_rows
from .._sklearn import Interval, StrOptions, check_parameters
from ..exceptions import NoGradientError, QueryBudgetExceeded
from ..trees import is_tree_ensemble
from ._answerers import EstimatorAnswerer, answerer_of, host
from ._answers import ABSTAINED, AnswerCheck
from ._graphs import GraphedLogits
from ._hardware import auto_batch_size, bfloat16_is_fast
from ._validation import check_victim

_PARAMETERS = {
    "max_queries": [Interval(Integral, 0, None, closed="left"), None],
    "max_total_queries": [Interval(Integral, 0, None, closed="left"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "categories": [dict, None],
    "on_bad_answer": [StrOptions({"raise", "skip"})],
    "precision": [StrOptions({"full", "mixed"})],
}


class LabelAccess:
    """Ask a fitted classifier for labels, and count every row that is sent.

    Networks are asked as tensors on their own device; everything else through its own
    methods, with the column names and dtypes that it was fitted on. The victim's mode,
    parameters and gradients are left as they are.

    Parameters
    ----------
    estimator : classifier
        The fitted victim.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        The rows under attack. Queries refer to them by position.
    max_queries : int, default=None
        How often the victim may be asked about each row.
    max_total_queries : int, default=None
        How many rows may be sent in all.
    batch_size : int, default=1024
        How many rows a network gets at once.
    categories : dict, optional
        The values of some columns by name, whose positions are to be their codes.
    on_bad_answer : {"raise", "skip"}, default="raise"
        What becomes of an answer that is none (NaN, an unknown label, a probability above
        1): an error, or, where a service may fail for some rows, a row in `skipped`. What
        is then returned for it is made up; nothing may be concluded from such a row.

    Attributes
    ----------
    X : {ndarray, DataFrame} of shape (n_rows, ...)
        The rows as they were given.
    x : tensor of shape (n_rows, ...)
        The rows as numbers, in the victim's precision and on its device.
    classes : ndarray of shape (n_classes,)
        The victim's classes; answers are positions in it.
    exact : bool
        Whether logits are computed just as the victim's own answers are.
    n_queries : ndarray of int, shape (n_rows,)
        Rows sent so far, for each of the rows under attack.
    on_query : callable or None
        Called, without arguments, before each question is sent: for progress reports.
    skips : bool
        Whether bad answers are no errors.
    skipped : ndarray of bool, shape (n_rows,)
        The rows about which the victim once gave a bad answer.
    region : Region or None
        The rows that constraints allow; None without constraints.
    unit : float or tensor of shape (n_features,)
        What 1 in a column of `x` is in the units of the feature.
    closed : bool
        Whether the victim is not to be asked any more, as it failed.

    Raises
    ------
    QueryBudgetExceeded
        By every method that asks, before the query that would go over a budget.
    BadAnswerError
        By every method that asks, where the victim's answer is none.

    See Also
    --------
    ScoreAccess : Knows scores, too.
    ask_labels : Asks without counting.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.victim import LabelAccess
    >>> X, y = load_iris(return_X_y=True)
    >>> access = LabelAccess(LogisticRegression(max_iter=1000).fit(X, y), X[:3])
    >>> access.predict(access.x)
    tensor([0, 0, 0])
    >>> access.n_queries
    array([1, 1, 1])
    """

    knowledge = "label"
    region = None
    unit = 1.0
    closed = False
    probability = False

    def __init__(
        self,
        estimator: Any,
        X: ArrayLike,
        *,
        max_queries: int | None = None,
        max_total_queries: int | None = None,
        batch_size: int = 1024,
        categories: dict[str, Any] | None = None,
        on_bad_answer: Literal["raise", "skip"] = "raise",
    ) -> None:
        given = {
            "max_queries": max_queries,
            "max_total_queries": max_total_queries,
            "batch_size": batch_size,
            "categories": categories,
            "on_bad_answer": on_bad_answer,
        }
        check_parameters(given, _PARAMETERS, type(self).__name__)
        check_victim(estimator)
        self.estimator = estimator
        self.X, self.codec = self._read(X, categories)
        self.classes = np.asarray(estimator.classes_)
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self._view = self._network_view()
        self._original = self.codec.encode(self.X)
        self.skipped = np.zeros(len(self._original), dtype=bool)
        self.skips = on_bad_answer == "skip"
        skipped = self.skipped if self.skips else None
        self.check = AnswerCheck(estimator, self.classes, skipped)
        self._keeps = self.codec.keeps(self.dtype.itemsize)
        self._answerer = answerer_of(self, self._view)
        self.x = torch.as_tensor(self._original).to(self.device, self.dtype)
        self._x0 = self.x
        self._n_queries = np.zeros(len(self._original), dtype=np.int64)
        self._n_queries_there = None
        self._counted = None
        self.on_query = None

    def _read(self, X, categories):
        """Return rows, checked, and what turns them into numbers and back."""
        victim = self.estimator
        X = check_rows(X, name_of(victim), allow_nan=may_take_nan(victim))
        names = getattr(victim, "feature_names_in_", None) if np.ndim(X) == 2 else None
        return X, RowCodec(X, names, categories)

    def _network_view(self):
        """Give a view of a victim that is a network by itself; None for all others."""
        names = ("module_", "module")  # of skorch nets, of PretrainedModule
        modules = (getattr(self.estimator, name, None) for name in names)
        if not any(isinstance(module, torch.nn.Module) for module in modules):
            return None
        try:
            return differentiable.view(self.estimator)
        except NoGradientError:  # a net that the registry cannot read speaks for itself
            return None

    @property
    def exact(self) -> bool:
        """Whether logits are computed just as the victim's own answers are."""
        return self._answerer.exact

    @property
    def reference(self) -> torch.Tensor | None:
        """What a regressor's predictions are measured from; None of a classifier."""
        return getattr(self._answerer, "reference", None)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the victim's tensors."""
        return torch.float64 if self._view is None else self._view.dtype

    @property
    def precision(self) -> torch.dtype:
        """The coarsest arithmetic in the victim, or of its rows, which rounds answers."""
        precision = torch.float64 if self._view is None else self._view.precision
        single = self.codec.float_itemsize() < 8 and precision == torch.float64
        return torch.float32 if single else precision

    @property
    def device(self) -> torch.device:
        """Device of the victim's tensors."""
        return torch.device("cpu") if self._view is None else self._view.device

    @property
    def n_queries(self) -> np.ndarray:
        """Rows sent so far, for each of the rows under attack."""
        if self._n_queries_there is not None:  # counted on a GPU, which nobody waited for
            self._n_queries = self._n_queries + host(self._n_queries_there)
            self._n_queries_there = None
        return self._n_queries

    @property
    def n_total_queries(self) -> int:
        """Rows sent so far, in all."""
        return int(self.n_queries.sum())

    def affordable(self, rows: torch.Tensor | None = None) -> Any:
        """How many more times the victim may be asked about the least covered row."""
        allowed = np.inf
        if self.max_queries is not None:
            spent = self.n_queries
            if rows is not None:
                spent = spent[self._times_asked(rows) > 0]
            allowed = self.max_queries - spent.max(initial=0)
        return allowed

    def predict(self, x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Ask for labels.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            What to send.
        rows : tensor of int of shape (n,), optional
            Which rows under attack these stand for; they may repeat. By default `x` has
            one entry for each.

        Returns
        -------
        labels : tensor of int64, shape (n,)
            Positions in `classes`.
        """
        self._spend(x, rows)
        return self._answerer.labels(x, rows)

    def encode(self, X: Any) -> torch.Tensor:
        """Return rows in the form of `X` as numbers, as those of `x`."""
        return torch.as_tensor(self.codec.encode(X)).to(self.x)

    def decode(self, x: torch.Tensor, rows: torch.Tensor | None = None) -> Any:
        """Return tensors as rows in the form, the dtypes and the index of `X`.

        Entries that did not change are those of `X`, to the last bit.
        """
        at = slice(None) if rows is None else host(rows)
        original = self._original[at]
        same = (x == self._x0[at]) | (x.isnan() & self._x0[at].isnan())
        array = np.where(same.cpu().numpy(), original, x.detach().cpu().numpy())
        return self.codec.decode(
            array.astype(self._original.dtype, copy=False),
            original,
            np.arange(len(array)) if rows is None else at,
        )

    def as_sent(self, x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return tensors as the victim gets them: `decode` makes whole what has to be."""
        if self._keeps:
            return x
        return torch.as_tensor(self.codec.encode(self.decode(x, rows))).to(x)

    def refer(self, y: np.ndarray | None = None) -> torch.Tensor | None:
        """Take `y` for what is true of the rows; return the classes to lead away from.

        Parameters
        ----------
        y : ndarray of shape (n_rows,), optional
            Positions in `classes`; of a regressor, values.

        Returns
        -------
        labels : tensor of int64, shape (n_rows,), or None
            None where the victim has to be asked for them.
        """
        return self._answerer.refer(y)

    def predictions(
        self, predicted: torch.Tensor, x: torch.Tensor, rows: torch.Tensor
    ) -> np.ndarray:
        """Return, in the victim's own terms, what it was found to predict for some rows.

        Parameters
        ----------
        predicted : tensor of int64, shape (n,)
            Positions in `classes`.
        x : tensor of shape (n, ...)
            The rows that it was asked about.
        rows : tensor of int, shape (n,)
            Which rows under attack these stand for.
        """
        return self._answerer.predictions(predicted, x, rows)

    def still_valid(self, x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """Say which rows are, as they are returned, among those that are allowed."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    def moved(self, x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """Return how far each feature was moved; what is missing has not been."""
        return (x - self._x0[rows]).nan_to_num(0.0)

    def _spend(self, x, rows, asked=None):
        """Count the rows of one query, or refuse it."""
        n_rows = len(self._n_queries)
        if rows is None and len(x) != n_rows:
            raise ValueError(f"rows is needed: {len(x)} queries for {n_rows} rows.")
        limit = self.max_total_queries
        if limit is None and _on_gpu(rows) and self._surely_affordable(asked):
            return self._count_there(rows, asked)
        if asked is not None:
            rows = torch.nonzero(asked).flatten() if rows is None else rows[asked]
        after = self.n_queries + (1 if rows is None else self._times_asked(rows))
        if self.max_queries is not None and after.max(initial=0) > self.max_queries:
            raise QueryBudgetExceeded(
                f"max_queries={self.max_queries} queries per row are spent."
            )
        if limit is not None and after.sum() > limit:
            raise QueryBudgetExceeded(
                f"max_total_queries={limit}: {self.n_total_queries} rows were sent and "
                f"{len(x)} more are needed."
            )
        self._n_queries = after
        if self.on_query is not None:
            self.on_query()

    def _times_asked(self, rows):
        """Return how often each row is among `rows`, as an array.

        Loops ask about the same rows again and again: on a GPU, looking at them each time
        would stall it.
        """
        if not isinstance(rows, torch.Tensor) or rows.is_inference():
            return np.bincount(host(rows), minlength=len(self._n_queries))
        known = self._counted
        if known is None or known[0] is not rows or known[1] != rows._version:
            times = np.bincount(host(rows), minlength=len(self._n_queries))
            self._counted = known = rows, rows._version, times
        return known[2]

    def _surely_affordable(self, asked):
        """Whether one more question about some rows is in the budget, whoever asked."""
        if self.max_queries is None:
            return True
        if asked is None:  # a row may be there several times
            return False
        if self._n_queries_there is None:
            self._most_asked = int(self._n_queries.max(initial=0))
        self._most_asked += 1
        return self._most_asked <= self.max_queries

    def _count_there(self, rows, asked=None):
        """Count queries on the GPU, where no budget wants to know them now."""
        if self._n_queries_there is None:
            self._n_queries_there = rows.new_zeros(len(self._n_queries))
        times = torch.ones_like(rows) if asked is None else asked.to(rows.dtype)
        self._n_queries_there.index_add_(0, rows, times)
        if self.on_query is not None:
            self.on_query()


class ScoreAccess(LabelAccess):
    """Ask a fitted classifier for scores as well.

    Parameters are those of :class:`LabelAccess`.

    Attributes
    ----------
    probability : bool
        Whether `scores` are probabilities. Otherwise they are the decision function.
    decisive : bool
        Whether the class of the largest score is surely the label. It need not be that of
        an `SVC`, which lets its pairs of classes vote, or behind a threshold.

    See Also
    --------
    GradientAccess : Knows gradients, too.
    LabelAccess : Knows labels only.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.victim import ScoreAccess
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X, y)
    >>> access = ScoreAccess(victim, X[:3], max_queries=2)
    >>> access.probability, access.scores(access.x).shape
    (True, torch.Size([3, 3]))
    """

    knowledge = "score"

    def __init__(self, estimator: Any, X: Any, **budget: Any) -> None:
        super().__init__(estimator, X, **budget)
        self.probability = self._answerer.probability
        self.decisive = self._answerer.decisive
        if not self._answerer.graded:
            raise TypeError(
                f"estimator: {name_of(estimator)} has neither predict_proba nor "
                "decision_function; use an attack whose knowledge is 'label'."
            )

    def scores(
        self,
        x: torch.Tensor,
        rows: torch.Tensor | None = None,
        *,
        asked: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Ask for one score per class: probabilities where the victim has them.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            What to send.
        rows : tensor of int of shape (n,), optional
            Which rows under attack these stand for.
        asked : tensor of bool of shape (n,), optional
            Which of them are asked about, each row under attack once. The others fill
            the batch, so that a GPU need not be waited for to leave them out: they do
            not count, and their scores are 0. By default, all are.

        Returns
        -------
        scores : tensor of shape (n, n_classes)
            Probabilities, or the decision function (with a column of zeros in front
            where there are two classes).
        """
        self._spend(x, rows, asked)
        scores = self._answerer.scores(x, rows)
        return scores if asked is None else scores.masked_fill(~asked[:, None], 0.0)


def _on_gpu(rows):
    return isinstance(rows, torch.Tensor) and rows.is_cuda


# What an infinite slope, as that of a square root at 0, counts as: enough to leave the
# point, and a number that can be divided by.
_STEEP = 1e3


def _what_works(victim):
    """Say which attack needs no gradient of a victim."""
    if is_tree_ensemble(victim):
        return "For trees, use evasion.TreeExactAttack or evasion.TreeCoordinateAttack."
    if is_regressor(victim):
        return "Use evasion.SquareAttack or evasion.GreedyFeatureAttack, by predictions."
    if hasattr(victim, "predict_proba") or hasattr(victim, "decision_function"):
        return "Use evasion.SquareAttack (by scores) or evasion.HopSkipJump (by labels)."
    return "Use evasion.HopSkipJump, which asks for labels only."


class GradientAccess(ScoreAccess):
    """Know the victim's parameters: ask for logits and for gradients of the input.

    Parameters are those of :class:`LabelAccess`, and `precision`.

    Parameters
    ----------
    estimator : classifier
        The fitted victim; it, or each of its parts, needs a view in
        :mod:`sklearn_advsec.differentiable`.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        The rows under attack.
    precision : {"full", "mixed"}, default="full"
        With "mixed", gradients of networks are computed with channels last, and in
        bfloat16 where the hardware has such arithmetic. Answers never are.
    **budget : dict
        See :class:`LabelAccess`.

    Raises
    ------
    NoGradientError
        If the victim has no differentiable view.

    See Also
    --------
    ScoreAccess : Knows scores only.
    LabelAccess : Knows labels only.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.victim import GradientAccess
    >>> X, y = load_iris(return_X_y=True)
    >>> access = GradientAccess(LogisticRegression(max_iter=1000).fit(X, y), X[:3])
    >>> logits = access.logits(access.x)
    >>> logits.argmax(1), access.n_queries
    (tensor([0, 0, 0]), array([1, 1, 1]))
    """

    knowledge = "gradient"

    def __init__(
        self,
        estimator: Any,
        X: ArrayLike,
        *,
        precision: Literal["full", "mixed"] = "full",
        **budget: Any,
    ) -> None:
        check_parameters({"precision": precision}, _PARAMETERS, type(self).__name__)
        super().__init__(estimator, X, **budget)
        # Gradients may come from a copy in another memory format and precision; answers
        # always come from the view as it is.
        view, autocast = self._view, False
        self.mixed = precision == "mixed" and self.exact
        if self.mixed:
            view = self._network_view()
            view.module.to(memory_format=torch.channels_last)
            autocast = bfloat16_is_fast(self.device)
        self._logits = GraphedLogits(view, autocast)

    def _network_view(self):
        try:
            return differentiable.view(self.estimator, self.codec.columns)
        except NoGradientError as error:
            raise NoGradientError(f"{error} {_what_works(self.estimator)}") from error

    def check_view(self) -> None:
        """Compare the view with the victim's own answers about the rows; ask both once.

        Of a network, whose answers are those of the view, a difference is an error. Of
        any other victim it is a warning: gradients may lead astray, but what an attack
        finds is confirmed by the victim itself.

        Raises
        ------
        ValueError
            If a network's view does not predict what the network does.
        """
        if is_regressor(self.estimator):
            self._check_values()
            return
        own = EstimatorAnswerer(self, None).labels
        with torch.no_grad():
            logits = self._view.logits(self.x)
        first, second = logits.topk(2, dim=1).values.T
        told = logits.argmax(1)
        labels = own(self.x, None)
        # A tie may go either way, and who abstains does not differ.
        clear = (first - second > 1e-4 * (1 + first.abs())) & (labels != ABSTAINED)
        wrong = torch.nonzero((told != labels) & clear).flatten()
        if not len(wrong) or not torch.equal(own(self.x, None), labels):
            return  # what is random has no one answer to agree with
        row, classes = int(wrong[0]), self.classes.tolist()
        text = (
            f"The differentiable view of {name_of(self.estimator)} predicts "
            f"{classes[told[row]]!r} for row {row} of X, and the victim itself "
            f"{classes[labels[row]]!r} ({len(wrong)} of {len(labels)} rows "
            "that were compared)"
        )
        if self.exact:
            raise ValueError(
                f"{text}. The view has to predict what the victim does: see "
                "sklearn_advsec.differentiable.register."
            )
        warnings.warn(
            f"{text}: its gradients may mislead. What an attack finds is confirmed by "
            "the victim itself.",
            stacklevel=2,
        )

    def _check_values(self):
        """Compare the view of a regressor with its predictions."""
        values = AnswerCheck(self.estimator).values(
            self.estimator.predict(self.decode(self.x)), len(self.x)
        )
        with torch.no_grad():
            told = host(self._view.logits(self.x)[:, 0])
        slack = 1e-3 * (np.abs(values) + float(self.estimator.delta))
        wrong = np.flatnonzero(~(np.abs(told - values) <= slack))
        if len(wrong):
            warnings.warn(
                f"The differentiable view of {name_of(self.estimator.estimator_)} "
                f"predicts {told[wrong[0]]:.6g} for row {wrong[0]} of X, and the victim "
                f"itself {values[wrong[0]]:.6g}: its gradients may mislead. What an "
                "attack finds is confirmed by the victim itself.",
                stacklevel=4,
            )

    def auto_batch_size(self) -> int:
        """How many rows to send at once, so that a pass stays in the cache."""
        return auto_batch_size(self._view, self.x)

    def logits(self, x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits, of shape (n, n_classes)."""
        self._spend(x, rows)
        return self._answerer.logits(x, rows)

    def gradient(
        self, x: torch.Tensor, rows: torch.Tensor | None, loss: Callable[..., Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits, and the gradient of a loss with respect to the input.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Where.
        rows : tensor of int of shape (n,), or None
            Which rows under attack these stand for.
        loss : callable
            ``loss(logits, at)`` gives one value per row; `at` is the slice of `x` whose
            logits these are.

        Returns
        -------
        logits : tensor of shape (n, n_classes)
        gradient : tensor of the shape of `x`
        """
        logits, gradients = self.jacobian(
            x, rows, lambda logits, at: loss(logits, at)[:, None]
        )
        return logits, gradients[:, 0]

    def jacobian(
        self, x: torch.Tensor, rows: torch.Tensor | None, outputs: Callable[..., Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits, and the gradients of several functions of them.

        A row that is sent counts as one query, however many gradients are taken there.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Where.
        rows : tensor of int of shape (n,), or None
            Which rows under attack these stand for.
        outputs : callable
            ``outputs(logits, at)`` gives values of shape (n_at, n_outputs); `at` is the
            slice of `x` whose logits these are.

        Returns
        -------
        logits : tensor of shape (n, n_classes)
        gradients : tensor of shape (n, n_outputs, ...)
        """
        self._spend(x, rows)
        parts = []
        for start in range(0, len(x), self.batch_size):
            at = slice(start, start + self.batch_size)
            which = at if rows is None else rows[at]
            parts.append(self._jacobian(x[at], at, which, outputs))
        if len(parts) == 1:
            return parts[0]
        logits, gradients = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(gradients)

    def _jacobian(self, x, at, rows, outputs):
        answerer = self._answerer
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self._logits(x)
            values = outputs(answerer.to_differentiate(logits, rows), at).sum(0)
        if not values.requires_grad:
            raise NoGradientError(
                f"estimator: no answer of {name_of(self.estimator)} has a slope in any "
                "column: each goes through an encoder or bins, or is no number. Use an "
                "attack by scores: SquareAttack for numbers, GreedyFeatureAttack for "
                "categories; tree ensembles have TreeCoordinateAttack."
            )
        # One backward pass each: as fast as batched ones, and every view allows them.
        gradients = [
            torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)[0]
            for value in values[:-1]
        ]
        gradients += torch.autograd.grad(values[-1], x, allow_unused=True)
        # None: nothing but constant columns.
        gradients = [torch.zeros_like(x) if g is None else g for g in gradients]
        gradients = (
            torch.stack(gradients, 1) if len(gradients) > 1 else gradients[0].unsqueeze(1)
        )
        logits = answerer.from_view(logits.detach(), x.detach(), rows)
        # What is missing has no slope.
        return logits, gradients.nan_to_num(0.0, _STEEP, -_STEEP)
