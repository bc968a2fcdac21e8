"""Greedy word substitution in documents (Jin et al. 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._rows import is_dataframe, plain_rows
from ..._sklearn import Interval, validate_data
from ...threat import Box
from ...victim import ScoreAccess
from .._active_rows import ActiveRows
from .._base import WITH_CONFIDENCE, shared
from .._state import EvasionResult
from .._tables._greedy import Moves, climb_greedily, simplify
from ._base import QueryAttack

# The first round knows each move of each document of a chunk, of eight batches.
_MOVES = 2**18


@dataclass(repr=False)
class TextSubstitutionResult(EvasionResult):
    """What :class:`TextSubstitution` found; more than an `EvasionResult`.

    Attributes
    ----------
    changes : ndarray of shape (n_rows,) of list of tuple (str, str)
        For each document, in its order, the words that were replaced, each with what
        took its place; an empty string where it was deleted.

    See Also
    --------
    TextSubstitution : Its `run` returns this.
    EvasionResult : What other attacks return.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.naive_bayes import MultinomialNB
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_advsec.evasion import TextSubstitution
    >>> mails = ["win a prize now", "lunch at noon", "win cash now", "notes of lunch"]
    >>> victim = make_pipeline(CountVectorizer(), MultinomialNB())
    >>> attack = TextSubstitution(victim, {"win": ["get"], "now": ["", "at noon"]})
    >>> result = attack.fit(mails, ["spam", "ham", "spam", "ham"]).run(["Win now"])
    >>> result.changes[0], result.X_adv[0], str(result.y_pred[0])
    ([('now', 'at noon')], 'Win at noon', 'ham')
    """

    changes: np.ndarray

    def _n_changed(self):
        return self.distance.astype(int)

    def _measure(self):
        return "words changed"


class TextCodec:
    """Documents as codes: for each listed word that occurs, which replacement it has.

    Parameters
    ----------
    X : ndarray of str, shape (n_documents,), or DataFrame
        The documents, or a table with them.
    column : str or None
        The column of the table that holds them.
    substitutions : dict of str to list of str
        What may stand for a word or phrase.

    Attributes
    ----------
    n_choices : ndarray of int, shape (n_documents, n_places)
        How many replacements there are for the word at each place of a document; 0 where
        it has no more places. Code 0 is the word itself.
    """

    columns = mutable = categories = None

    def __init__(self, X, column, substitutions):
        self._X, self._column = X, column
        texts = X if column is None else X[column].tolist()
        longest_first = sorted(substitutions, key=len, reverse=True)
        words = "|".join(map(re.escape, longest_first))
        pattern = re.compile(rf"(?<!\w)({words})(?!\w)", re.IGNORECASE)
        lowered = {word.lower(): choices for word, choices in substitutions.items()}
        # Of each document: a separator, a word, a separator, ...
        self._pieces = [pattern.split(text) for text in texts]
        self._choices = []
        for pieces in self._pieces:
            listed = (
                substitutions.get(word, lowered[word.lower()]) for word in pieces[1::2]
            )
            self._choices.append(
                [
                    [new for new in dict.fromkeys(choices) if new != word]
                    for word, choices in zip(pieces[1::2], listed, strict=True)
                ]
            )
        n_places = max(map(len, self._choices))
        self.n_choices = np.zeros((len(texts), n_places), dtype=np.int64)
        for numbers, choices in zip(self.n_choices, self._choices, strict=True):
            numbers[: len(choices)] = [len(some) for some in choices]

    def encode(self, X):
        """Return the documents as they are: codes that are all 0."""
        return np.zeros(self.n_choices.shape)

    def decode(self, array, original=None, rows=None):
        """Return documents with the replacements that codes stand for."""
        every = np.arange(len(self._pieces))
        at = every if rows is None else every[rows]
        texts = np.empty(len(array), dtype=object)
        texts[:] = [self._written(i, codes) for i, codes in zip(at, array, strict=True)]
        if self._column is None:
            return texts
        frame = self._X.iloc[at].copy()
        frame[self._column] = self._as_column(texts)
        return frame

    def _as_column(self, texts):
        import pandas as pd

        dtype = self._X[self._column].dtype
        if isinstance(dtype, pd.CategoricalDtype):  # which holds no other texts
            dtype = object
        return pd.array(texts, dtype=dtype)

    def changes(self, codes):
        """Return, for each document, the words that codes replace, and by what."""
        changes = np.empty(len(codes), dtype=object)
        for i, own in enumerate(codes):
            changes[i] = [
                (self._pieces[i][2 * j + 1], self._choices[i][j][int(own[j]) - 1])
                for j in np.flatnonzero(own)
            ]
        return changes

    def keeps(self, itemsize):
        """Whether the way back changes no number: there are none."""
        return True

    def float_itemsize(self):
        """Bytes of the coarsest floats among the rows."""
        return 8

    def _written(self, i, codes):
        pieces = list(self._pieces[i])
        for j in np.flatnonzero(codes):
            new = self._choices[i][j][int(codes[j]) - 1]
            before, after = pieces[2 * j], pieces[2 * j + 2]
            pieces[2 * j + 1] = new
            if not new and after[:1].isspace() and (not before or before[-1].isspace()):
                pieces[2 * j + 2] = after[1:]  # a deleted word leaves one space
        return "".join(pieces)


class TextAccess(ScoreAccess):
    """Ask for scores of documents, and count.

    Parameters are those of :class:`ScoreAccess`, `column` and `substitutions`.
    """

    def __init__(self, estimator, X, *, column, substitutions, **budget):
        self._column, self._substitutions = column, substitutions
        super().__init__(estimator, X, **budget)

    def _read(self, X, categories):
        return X, TextCodec(X, self._column, self._substitutions)


class Substitutions(Moves):
    """All substitutions that may be tried: a place in a document, and its code.

    Parameters
    ----------
    access : TextAccess
        Whose codec knows the places.
    eps : int or None
        At most so many words of a document are changed.
    """

    def __init__(self, access, eps):
        n_choices = torch.as_tensor(access.codec.n_choices)
        n_places, most = n_choices.shape[1], int(access.codec.n_choices.max(initial=0))
        self.n_choices, self.eps = n_choices, eps
        self.column = torch.arange(n_places).repeat_interleave(most)
        self.value = torch.arange(1.0, most + 1, dtype=access.x.dtype).repeat(n_places)
        self.feature = torch.arange(n_places)
        self.named = torch.ones(n_places, dtype=torch.bool)
        self.cost = torch.ones(n_places, dtype=access.x.dtype)
        self.groups = []

    def look_at(self, active, which):
        """Say which moves change something; each costs the same."""
        column, value = self.column[which], self.value[which]
        usable = value <= self.n_choices[active.rows].gather(1, column)
        usable &= value != active.delta.gather(1, column)
        if self.eps is not None:
            touched = active.touched.gather(1, column)
            usable &= touched | (active.touched.sum(1) < self.eps)[:, None]
        return value, usable, torch.ones_like(value)


class TextSubstitution(QueryAttack):
    r"""Replace words of documents by others of a list until the model is wrong.

    The victim takes documents: a pipeline that begins with a `TfidfVectorizer`, a
    `HashingVectorizer` or whatever reads text. All substitutions of the list are tried
    once in each document, and the one that brings the goal nearest is made; then the best
    ones are tried again, until the goal is reached, nothing gains any more or the queries
    are spent. In the end every word that need not have changed is put back.

    It is greedy: what it finds is no smallest change, and that it finds none proves
    nothing. Whether a document still says the same is up to the list.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim, which takes documents and has scores; see :class:`EvasionAttack`.
    substitutions : dict of str to list of str, default=None
        For each word or phrase, what may take its place; an empty string deletes it.
        Words are found whole, as they are written or else in whatever case; what takes
        their place is written as it stands in the list.
    column : str, default=None
        The column that holds the documents, where the victim takes a DataFrame. Others
        stay as they are.
    eps : int, default=None
        How many words of a document may change; None is all of them.
    shortlist : int, default=50
        After the first, a round tries this many of the best substitutions again.
    goal : str, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    confidence : float, default=None
        The probability that makes a success; see :class:`EvasionAttack`.
    max_queries : int, default=5000
        Largest number of queries of a document; see :class:`EvasionAttack`. The first
        round costs one for each substitution that the document allows.
    max_total_queries : int, default=None
        Largest number of queries of a run; see :class:`EvasionAttack`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.

    Raises
    ------
    ValueError
        If there are no `substitutions`, or `column` is not one of `X`.
    TypeError
        If a document is no str, or the victim has no scores.

    See Also
    --------
    GreedyFeatureAttack : The same for columns of a table.

    References
    ----------
    .. [1] D. Jin et al., "Is BERT really robust? A strong baseline for natural language
       attack on text classification and entailment", arXiv:1907.11932 (Algorithm 1; here
       all substitutions are ranked, instead of words by their importance).
    .. [2] J. Y. Yoo et al., "Searching for a search method: benchmarking search
       algorithms for generating NLP adversarial examples", arXiv:2009.06368 (greedy
       search over all words).

    Examples
    --------
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_advsec.evasion import TextSubstitution
    >>> reviews = ["a good film", "good and moving", "a bad film", "bad and dull"]
    >>> victim = make_pipeline(TfidfVectorizer(), LogisticRegression())
    >>> attack = TextSubstitution(victim, {"good": ["fine", "not bad"], "dull": [""]})
    >>> result = attack.fit(reviews, [1, 1, 0, 0]).run(["Good film", "dull film"])
    >>> result.X_adv.tolist(), result.success.tolist()
    (['fine film', 'film'], [True, False])
    """

    knowledge = "score"
    norm = 0
    bounds = None

    _parameter_constraints = {
        **QueryAttack._parameter_constraints,
        **WITH_CONFIDENCE,
        **shared("max_total_queries", "batch_size"),
        "substitutions": [Mapping, None],
        "column": "no_validation",  # any label of a column
        "eps": [Interval(Integral, 0, None, closed="left"), None],
        "shortlist": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        substitutions: Mapping[str, Sequence[str]] | None = None,
        *,
        column: Any = None,
        eps: int | None = None,
        shortlist: int = 50,
        goal: str = "misclassification",
        target: Any = None,
        confidence: float | None = None,
        max_queries: int = 5000,
        max_total_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.substitutions = substitutions
        self.column = column
        self.eps = eps
        self.shortlist = shortlist
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept).

        Parameters
        ----------
        X : array-like of str of shape (n_documents,), or DataFrame
            Documents, or a table with them, on which the victim is fitted.
        y : array-like of shape (n_documents,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_documents,), default=None
            Weights of the documents, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        return super().fit(X, y, sample_weight)

    def _check_X(self, X, *, reset):
        """Validate documents; a table stays one."""
        X, _ = plain_rows(X)
        texts = X
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if self.column is None or self.column not in X.columns:
                raise ValueError(
                    f"column={self.column!r} must name the column of X that holds the "
                    f"documents; X has {list(X.columns)}."
                )
            texts = X[self.column]
        elif self.column is not None:
            raise ValueError(
                f"column={self.column!r} is of a DataFrame; X is a {type(X).__name__}."
            )
        if isinstance(texts, str) or not hasattr(texts, "__iter__"):
            raise ValueError(
                "X must be a list, array or Series of documents; got "
                f"{type(texts).__name__}."
            )
        documents = np.empty(len(texts), dtype=object)
        documents[:] = list(texts)
        for i, document in enumerate(documents):
            if not isinstance(document, str):
                raise TypeError(
                    f"X must hold documents, each a str; number {i} is a "
                    f"{type(document).__name__}."
                )
        if not len(documents):
            raise ValueError(
                "Found array with 0 sample(s) while a minimum of 1 is required by "
                f"{type(self).__name__}."
            )
        self.row_shape_ = ()
        return X if is_dataframe(X) else documents

    def _check_parameters(self, row_shape):
        if not self.substitutions:
            raise ValueError(
                "substitutions must say what may take the place of which word: "
                "{'free': ['complimentary', '']}."
            )
        for word, choices in self.substitutions.items():
            listed = not isinstance(choices, str) and hasattr(choices, "__iter__")
            if not (isinstance(word, str) and word) or not listed:
                raise TypeError(
                    "substitutions must be a dict of words to lists of words; got "
                    f"{word!r}: {choices!r}."
                )
            if not all(isinstance(new, str) for new in choices):
                raise TypeError(
                    f"substitutions[{word!r}] must hold texts; got {choices!r}."
                )

    def _resolve(self, X):
        """Nothing of `eps` goes by the data."""

    def _make_box(self, X):
        return Box(None, np.zeros((1, 1)))

    def _choose_batch_size(self, X):
        if self.batch_size != "auto":
            return int(self.batch_size)
        codec = TextCodec(X, self.column, self.substitutions)
        n_moves = codec.n_choices.shape[1] * max(1, codec.n_choices.max(initial=0))
        return int(np.clip(_MOVES // max(1, n_moves), 1, 1024))

    def _access_class(self):
        return TextAccess

    def _access_options(self):
        return {"column": self.column, "substitutions": self.substitutions}

    def _search(self, active, state):
        moves = Substitutions(state.access, self.eps)
        if not len(moves):
            active.give_up(torch.ones_like(active.labels, dtype=torch.bool))
            return
        climb_greedily(active, moves, self.shortlist)
        rows = torch.nonzero(state.success & (state.x_adv != 0).any(1)).flatten()
        if len(rows):
            state.search = ActiveRows(state, rows)
            simplify(state.search, moves, state)

    def _result(self, state):
        found = vars(state.result())
        codes = state.x_adv.cpu().numpy()
        return TextSubstitutionResult(**found, changes=state.access.codec.changes(codes))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags
