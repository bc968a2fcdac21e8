"""The victim's answers, checked once, at the door, for every family.

NaN reads as "no leak" to a membership attack and as "fooled" to an evasion attack, and a
wrong shape as an IndexError far from its cause. So nothing that a victim says is used
before it went through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .._estimators import abstain_label, name_of
from .._labels import find_positions
from .._sklearn import _num_samples
from ..exceptions import BadAnswerError

if TYPE_CHECKING:
    import torch

# What single precision, and half precision in a network, leave of a sum of 1.
_SUM_SLACK = 2e-3
_RANGE_SLACK = 1e-6

# The position of no class: where the victim said that it abstains.
ABSTAINED = 2**31 - 1


class AnswerCheck:
    """Check what one victim answers, and say who, how and of which row where it is bad.

    Parameters
    ----------
    victim : object
        Whose answers these are.
    classes : array-like of shape (n_classes,), default=None
        The labels that it knows; None where it says nowhere which.
    skipped : ndarray of bool, shape (n_rows,), default=None
        Where given, a bad answer about a row marks the row here, and something harmless
        takes its place; otherwise it is an error.

    Attributes
    ----------
    abstain_label : object
        The label by which a victim with a parameter of that name says that it abstains:
        no bad answer, and no class. None where it never does.

    See Also
    --------
    ask_labels : Asks with these checks.
    ask_scores : The same, for scores.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.victim import AnswerCheck
    >>> check = AnswerCheck("a service", classes=["no", "yes"])
    >>> check.labels(np.array(["yes", "no"]), n_rows=2)
    array([1, 0])
    >>> check.labels(np.array(["perhaps"]), n_rows=1)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    sklearn_advsec.exceptions.BadAnswerError: ...
    """

    def __init__(
        self,
        victim: Any,
        classes: ArrayLike | None = None,
        skipped: np.ndarray | None = None,
    ) -> None:
        self._name = name_of(victim)
        self._classes = None if classes is None else np.asarray(classes)
        self._skipped = skipped
        self.abstain_label = abstain_label(victim)

    def labels(
        self,
        answer: ArrayLike,
        n_rows: int,
        rows: ArrayLike | None = None,
        method: str = "predict",
    ) -> np.ndarray:
        """Return labels as positions in the classes, or as they are where none are known.

        Of rows on which the victim abstains, the position is `ABSTAINED`.

        Parameters
        ----------
        answer : array-like of shape (n_rows,) or (n_rows, 1)
            What the victim returned.
        n_rows : int
            How many rows it was sent.
        rows : array-like of int of shape (n_rows,), optional
            Which rows these are to the user; by default they count from 0.
        method : str, default="predict"
            What was asked.
        """
        labels = self._column(answer, n_rows, method)
        if self._classes is None:
            bad = _is_nothing(labels)
            if bad.any():
                self._refuse(bad, labels, rows, method, "that is no label")
            return labels
        position, known = find_positions(labels, self._classes)
        if self.abstain_label is not None and not known.all():
            abstained = ~known & (labels == self.abstain_label)
            position[abstained], known = ABSTAINED, known | abstained
        if not known.all():
            reason = f"its classes_ are {_short(self._classes)}"
            self._refuse(~known, labels, rows, method, reason)
            position[~known] = 0
        return position

    def in_words(self, position: int) -> np.ndarray:
        """Return positions in the classes as labels."""
        abstained = position == ABSTAINED
        if not abstained.any():
            return self._classes[position]
        labels = self._classes[np.where(abstained, 0, position)]
        return np.where(abstained, np.asarray(self.abstain_label), labels)

    def scores(
        self,
        answer: ArrayLike,
        n_rows: int,
        rows: torch.Tensor | None = None,
        method: str = "predict_proba",
        probability: bool | None = None,
    ) -> np.ndarray:
        """Return scores as floats: probabilities, or of another method any finite ones.

        Rows of probabilities sum to 1, or to what rounding each and hiding some leaves.

        Parameters
        ----------
        answer : array-like of shape (n_rows, n_classes)
            What the victim returned; a decision function may also be of shape (n_rows,).
        n_rows, rows, method
            See `labels`.
        probability : bool, default=None
            Whether they have to be probabilities; those of `predict_proba`, by default.
        """
        scores = self._numbers(answer, n_rows, rows, method)
        if probability is None:
            probability = method == "predict_proba"
        flat = scores.ndim == 1 and not probability
        width = 2 if flat else scores.shape[1] if scores.ndim == 2 else None
        if width is None or (probability and width < 2):
            raise BadAnswerError(
                f"estimator: {self._name}.{method} returned an array of shape "
                f"{scores.shape} for {n_rows} rows; it must have one column per class."
                + (_ONE_OUTPUT if probability and scores.size == n_rows else "")
            )
        one_logit = width == 1 and not probability  # (n, 1): the second class's
        if self._classes is not None and width != len(self._classes) and not one_logit:
            raise BadAnswerError(
                f"estimator: {method} of {self._name} gives {width} scores for the "
                f"classes {_short(self._classes)}: there has to be one for each."
            )
        if probability:
            return self._probabilities(scores, rows, method)
        return self.finite(scores, rows, method)

    def values(
        self,
        answer: Any,
        n_rows: int,
        rows: torch.Tensor | None = None,
        method: str = "predict",
    ) -> np.ndarray:
        """Return one finite number per row: what a regressor predicts."""
        values = self._numbers(answer, n_rows, rows, method)
        values = self._column(values, n_rows, method)
        return self.finite(values, rows, method)

    def finite(self, scores: Any, rows: torch.Tensor | None, method: str) -> np.ndarray:
        """Return scores, all of them finite."""
        fine = np.isfinite(scores)
        if not fine.all():
            bad = ~fine.reshape(len(scores), -1).all(1)
            self._refuse(bad, scores, rows, method, "scores must be finite")
            scores = np.where(fine, scores, 0)
        return scores

    def _probabilities(self, proba, rows, method):
        with np.errstate(invalid="ignore"):
            total = proba @ np.ones(proba.shape[1], proba.dtype)  # faster than a sum
        # NaN compares as False, so that one look is enough for what is right.
        fine = np.abs(total - 1) <= _SUM_SLACK
        if fine.all() and proba.min(initial=0) >= -_RANGE_SLACK:
            return proba
        finite = np.isfinite(proba).all(axis=1)
        with np.errstate(invalid="ignore"):
            inside = ((proba >= -_RANGE_SLACK) & (proba <= 1 + _RANGE_SLACK)).all(axis=1)
        off = finite & inside & ~fine
        fine &= finite & inside
        fine[off] = _sums_by_rounding(proba[off])
        for bad, reason in (
            (~finite, "probabilities must be finite"),
            (finite & ~inside, "probabilities must lie between 0 and 1" + _LOGITS),
            (off & ~fine, "its probabilities do not sum to 1" + _LOGITS),
        ):
            if bad.any():
                self._refuse(bad, proba, rows, method, reason)
        if not fine.all():
            proba = np.where(fine[:, None], proba, 1 / proba.shape[1])
        return proba

    def _numbers(self, answer, n_rows, rows, method):
        array = self._array(answer, n_rows, method)
        if array.dtype.kind == "c":
            raise BadAnswerError(
                f"estimator: {self._name}.{method} returned complex numbers."
            )
        if array.dtype.kind == "f" and array.dtype.itemsize >= 4:
            return array
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            number = np.vectorize(_is_number, otypes=[bool])(array)
            bad = ~number.reshape(n_rows, -1).all(axis=1)
            self._refuse(bad, array, rows, method, "that is no number", error)
            return np.where(number, array, np.nan).astype(np.float64)

    def _column(self, answer, n_rows, method):
        """Return one entry per row; some libraries return labels as a column."""
        array = self._array(answer, n_rows, method)
        if array.size != n_rows:
            raise BadAnswerError(
                f"estimator: {self._name}.{method} returned an array of shape "
                f"{array.shape}; it must return one value for each of the {n_rows} rows."
            )
        return array.reshape(n_rows)

    def _array(self, answer, n_rows, method):
        """Return an answer as an array, with an entry for each row."""
        try:
            array = _as_array(answer)
        except ValueError as error:
            raise BadAnswerError(
                f"estimator: {self._name}.{method} returned rows of different lengths."
            ) from error
        if array.ndim == 0:
            raise BadAnswerError(
                f"estimator: {self._name}.{method} returned {array.item()!r} for "
                f"{n_rows} rows; it must return an array with an answer for each."
            )
        if len(array) != n_rows:
            raise BadAnswerError(
                f"estimator: {self._name}.{method} returned {len(array)} answers for "
                f"{n_rows} rows."
            )
        return array

    def _refuse(self, bad, answer, rows, method, reason, cause=None):
        at = np.flatnonzero(bad)
        rows = at if rows is None else np.asarray(rows)[at]
        if self._skipped is not None:
            self._skipped[rows] = True
            return
        more = f" (and for {len(at) - 1} more rows)" if len(at) > 1 else ""
        error = BadAnswerError(
            f"estimator: {self._name}.{method} returned {_short(answer[at[0]])} for row "
            f"{rows[0]}{more}; {reason}."
        )
        error.rows = np.unique(rows)
        raise error from cause


_LOGITS = " (other scores than probabilities are a decision_function's)"
_ONE_OUTPUT = (
    " Wrap a service that gives the score of one class only: BinaryScores(estimator)."
)


def ask_labels(victim: Any, X: ArrayLike) -> np.ndarray:
    """Ask a victim for labels, and check them.

    Parameters
    ----------
    victim : object
        Anything with `predict`; labels are checked against its ``classes_`` if it has
        any.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        Rows as the victim takes them.

    Returns
    -------
    labels : ndarray of shape (n_rows,)
        The labels.

    Raises
    ------
    BadAnswerError
        Where an answer is of the wrong shape, is missing, or is no class of the victim.

    See Also
    --------
    ask_scores : Asks for probabilities or decisions.
    LabelAccess : Counts and caps what is asked.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.victim import ask_labels
    >>> X, y = load_iris(return_X_y=True)
    >>> ask_labels(DecisionTreeClassifier().fit(X, y), X[::50])
    array([0, 1, 2])
    """
    classes = getattr(victim, "classes_", None)
    check = AnswerCheck(victim, classes)
    answer = victim.predict(X)
    n_rows = _num_samples(X)  # of sparse rows, too
    checked = check.labels(answer, n_rows)
    if classes is None:
        return checked
    if np.asarray(classes).dtype == object:  # which would lose what kind labels are of
        return _as_array(answer).reshape(n_rows)
    return check.in_words(checked)


def ask_scores(
    victim: Any,
    X: ArrayLike,
    method: Literal["predict_proba", "decision_function"] = "predict_proba",
) -> np.ndarray:
    """Ask a victim for scores by one of its methods, and check them.

    Parameters
    ----------
    victim : object
        Anything with the method.
    X : {array-like, DataFrame} of shape (n_rows, ...)
        Rows as the victim takes them.
    method : {"predict_proba", "decision_function"}, default="predict_proba"
        What to ask.

    Returns
    -------
    scores : ndarray of float, shape (n_rows, n_classes) or (n_rows,)
        The scores, in the shape in which the victim gives them.

    Raises
    ------
    BadAnswerError
        Where an answer is of the wrong shape, not finite, or no probability.

    See Also
    --------
    ask_labels : Asks for labels.
    ScoreAccess : Counts and caps what is asked.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.victim import ask_scores
    >>> X, y = load_iris(return_X_y=True)
    >>> ask_scores(DecisionTreeClassifier().fit(X, y), X[::50])
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """
    check = AnswerCheck(victim, getattr(victim, "classes_", None))
    return check.scores(getattr(victim, method)(X), _num_samples(X), method=method)


def _sums_by_rounding(proba):
    """Whether sums that are not 1 can be those of rounded or partly hidden values."""
    total = proba.sum(axis=1)
    slack = np.full(len(proba), _SUM_SLACK)
    for decimals in (4, 3, 2, 1):
        scaled = proba * 10.0**decimals
        rounded = (np.abs(scaled - np.rint(scaled)) < 1e-4).all(axis=1)
        slack[rounded] = proba.shape[1] * 0.5 * 10.0**-decimals + _SUM_SLACK
    # Rounded to whole numbers, no class may be left; and of many classes few are shown.
    hidden = (proba == 0).any(axis=1)
    return (total <= 1 + slack) & ((total >= 1 - slack) | hidden)


def _as_array(answer):
    """Return an answer as an array; tensors leave their graph and their device."""
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu()
    return np.asarray(answer)


def _is_nothing(labels):
    """Whether entries are None or NaN."""
    if labels.dtype.kind == "f":
        return np.isnan(labels)
    if labels.dtype != object:
        return np.zeros(len(labels), dtype=bool)
    return np.array([v is None or v != v for v in labels], dtype=bool)


def _is_number(value):
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _short(values, most=6):
    values = np.asarray(values)
    if values.ndim and values.size > most:
        return f"[{', '.join(map(repr, values.ravel()[:most].tolist()))}, ...]"
    return repr(values.tolist())
