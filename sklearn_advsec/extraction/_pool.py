"""The base of the attacks that train a surrogate on rows from a pool."""

import warnings
from numbers import Real

import numpy as np
from sklearn.utils import check_random_state

from .._estimators import allows_nan
from .._sklearn import HasMethods, Interval, StrOptions
from ._base import ExtractionAttack
from ._surrogates import ConstantCopy, train, try_out
from ._victim import soft_targets


class PoolExtraction(ExtractionAttack):
    """Base of the attacks that ask about rows of a pool and train a surrogate.

    A subclass writes `_query`, which asks the oracle.
    """

    numeric = False
    surrogate = None
    temperature = 1.0
    score_kind = "auto"

    _parameter_constraints = {
        **ExtractionAttack._parameter_constraints,
        "surrogate": [HasMethods(["fit", "predict"]), None],
        "knowledge": [StrOptions({"auto", "score", "label"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "score_kind": [StrOptions({"auto", "probability", "logit"})],
    }

    def _steal(self, oracle, array, y):
        rng = check_random_state(self.random_state)
        if not oracle.n_queries:
            self._try_surrogates(oracle, array)
        self._query(oracle, array, y, rng)
        self.copy_ = self._train(oracle, rng)
        if isinstance(self.copy_, ConstantCopy):
            warnings.warn(
                f"the victim gave the same label to all {oracle.n_queries} rows: the "
                "copy always predicts it. Ask about more varied rows.",
                stacklevel=4,
            )

    def _score_kind(self):
        kind = super()._score_kind()
        if self.score_kind == "probability" and kind == "logit":
            raise ValueError(
                "score_kind='probability', but estimator has no predict_proba: a "
                "decision function gives logits. Use score_kind='auto'."
            )
        return kind if self.score_kind == "auto" else self.score_kind

    def _query(self, oracle, array, y, rng):
        """Ask about rows.

        Parameters
        ----------
        oracle : Oracle
            The victim.
        array : ndarray of shape (n_samples, ...)
            The pool, encoded.
        y : ndarray of shape (n_samples,) or None
            Labels of the pool.
        rng : RandomState
            Source of randomness.
        """
        raise NotImplementedError

    def _try_surrogates(self, oracle, array):
        """Find out, before anything is paid for, whether surrogates take such rows."""
        classes = self._victim_classes(np.arange(2))
        rows = self._rows_of(oracle, array)
        for surrogate in self._surrogates():
            try_out(surrogate, rows, classes, soft=oracle.log.kind == "score")

    def _surrogates(self):
        return [self.surrogate]

    def _train(self, oracle, rng):
        """Train the surrogate on everything that was paid for."""
        rows = self._rows_of(oracle, oracle.log.array)
        return train(self.surrogate, rows, self._targets(oracle), self.classes_, rng)

    def _rows_of(self, oracle, array):
        """Encoded rows in the form of those that were given to `fit`."""
        if hasattr(self, "feature_names_in_") and not self.numeric:
            return oracle.log.codec.decode(array)
        return array

    def _targets(self, oracle):
        """What the copy is trained on: labels, or probabilities made of the scores."""
        answers = oracle.log.answers
        if answers.ndim == 1:
            self.classes_ = self._victim_classes(np.unique(answers))
            return answers
        self.classes_ = self._victim_classes(np.arange(answers.shape[1]))
        if len(self.classes_) != answers.shape[1]:
            raise ValueError(
                f"estimator has {len(self.classes_)} classes_ but gives "
                f"{answers.shape[1]} scores per row."
            )
        self.score_kind_ = self._score_kind()
        return soft_targets(answers, self.score_kind_, self.temperature)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # The copy by default takes none in arrays, whatever the victim does.
        copied = self.surrogate is not None and allows_nan(self.surrogate)
        tags.input_tags.allow_nan = tags.input_tags.allow_nan and copied
        return tags

    def _n_wanted(self, oracle, array):
        """Number of queries in all: the budget, or the whole pool."""
        return len(array) if self.max_queries is None else self.max_queries
