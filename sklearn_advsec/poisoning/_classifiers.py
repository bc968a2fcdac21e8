"""Classifiers whose training data is poisoned, or sanitized, inside of `fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .. import differentiable
from .._estimators import (
    RoutesToEstimator,
    allows_nan,
    check_trainable,
    is_net,
    weight_params,
)
from .._labels import find_positions, in_columns
from .._progress import ReportsProgress
from .._rows import check_rows, is_dataframe
from .._sklearn import (
    BaseEstimator,
    HasMethods,
    _routing_enabled,
    fit_context,
    validate_data,
)
from ..differentiable._registry import subview
from ._base import train_on
from ._class_scores import class_scores

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

    from ._base import PoisoningAttack, Sanitizer


def _estimator_has(name):
    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


class ResampledClassifier(
    ReportsProgress,
    RoutesToEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Base of the classifiers that train on what a sampler makes of their data.

    A subclass lists its parameters: `estimator`, the sampler, whose name is in
    `_sampler_name`, and `random_state`.
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "random_state": ["random_state"],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike | spmatrix | sparray,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Resample the data, and train the classifier on what comes out.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features) or \
                images of shape (n_samples, channels, height, width)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights, which are resampled with them.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        check_trainable(self.estimator, "estimator")
        X = self._check_X(X, reset=True)
        sampler = lend(clone(getattr(self, self._sampler_name)), self.estimator)
        data = (X, y) if sample_weight is None else (X, y, sample_weight)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        wanted = not _routing_enabled() or weight_params(self, sample_weight)
        with self._reported(X, y):
            resampled = sampler.fit_resample(*data)
            if not wanted:  # the classifier has not requested weights
                resampled = resampled[:2]
            self.estimator_ = train_on(self.estimator, *resampled, seed=seed)
        setattr(self, f"{self._sampler_name}_", sampler)
        self.classes_ = np.unique(np.asarray(y))
        return self

    def predict(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        return self.estimator_.predict(self._check_X(X, reset=False))

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Predict probabilities.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        proba = self.estimator_.predict_proba(self._check_X(X, reset=False))
        return in_columns(proba, self.estimator_.classes_, self.classes_)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Compute the decision function.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The classifier's decision function. A class whose labels were all flipped, so
            that it does not know it, has the least score of each row.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        if len(self.classes_) == len(self.estimator_.classes_):
            return self.estimator_.decision_function(X)
        return class_scores(self.estimator_, X, self.classes_)

    def _check_X(self, X, *, reset):
        allow_nan = allows_nan(self.estimator)
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return check_rows(X, type(self).__name__, allow_nan=allow_nan)
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse=False if is_net(self.estimator) else "csr",
            allow_nd=not issparse(X),
            ensure_all_finite="allow-nan" if allow_nan else True,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        sampler = lend(clone(getattr(self, self._sampler_name)), self.estimator)
        inside, taken = get_tags(self.estimator).input_tags, get_tags(sampler).input_tags
        tags.input_tags.sparse = inside.sparse and taken.sparse
        tags.input_tags.allow_nan = allows_nan(self.estimator) and taken.allow_nan
        return tags


class PoisonedClassifier(ResampledClassifier):
    """Train a classifier on data that an attack has poisoned.

    The poison gets in inside of `fit`: in cross-validation, inside of each training fold,
    and test folds stay clean. Parameters of both are searchable, such as
    ``poisoner__budget`` and ``estimator__C``.

    Parameters
    ----------
    estimator : classifier
        What is trained; a skorch net too.
    poisoner : PoisoningAttack
        The attack. One with ``estimator=None`` takes `estimator` for its surrogate: the
        attacker then knows how the classifier is trained.
    random_state : int, RandomState instance or None, default=None
        Seed of a skorch net.

    Attributes
    ----------
    estimator_ : classifier
        The classifier, fitted on poisoned data.
    poisoner_ : PoisoningAttack
        The fitted attack.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    SanitizedClassifier : Removes suspicious rows before it trains.
    poisoning_report : Cross-validates with poison, inside of folds and before the split.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_advsec.poisoning import LabelFlipping, PoisonedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> attack = LabelFlipping(strategy="farthest", budget=0.2)
    >>> poisoned = PoisonedClassifier(RidgeClassifier(), attack)
    >>> clean = cross_val_score(RidgeClassifier(), X, y).mean()
    >>> bool(cross_val_score(poisoned, X, y).mean() < clean - 0.1)
    True
    """

    _sampler_name = "poisoner"

    _parameter_constraints = {
        **ResampledClassifier._parameter_constraints,
        "poisoner": [HasMethods(["fit_resample"])],
    }

    def __init__(
        self,
        estimator: Any,
        poisoner: PoisoningAttack,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.poisoner = poisoner
        self.random_state = random_state


class SanitizedClassifier(ResampledClassifier):
    """Train a classifier on data from which suspicious rows were removed.

    Parameters
    ----------
    estimator : classifier
        What is trained; a skorch net too.
    sanitizer : Sanitizer
        What removes or relabels rows. One with ``estimator=None`` takes `estimator`.
    random_state : int, RandomState instance or None, default=None
        Seed of a skorch net.

    Attributes
    ----------
    estimator_ : classifier
        The classifier, fitted on sanitized data.
    sanitizer_ : Sanitizer
        The fitted sanitizer.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    PoisonedClassifier : Around this one, it poisons what is then sanitized.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_advsec.poisoning import KNNSanitizer, SanitizedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> sanitized = SanitizedClassifier(RidgeClassifier(), KNNSanitizer()).fit(X, y)
    >>> bool(sanitized.score(X, y) > 0.9)
    True
    """

    _sampler_name = "sanitizer"

    _parameter_constraints = {
        **ResampledClassifier._parameter_constraints,
        "sanitizer": [HasMethods(["fit_resample"])],
    }

    def __init__(
        self,
        estimator: Any,
        sanitizer: Sanitizer,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.sanitizer = sanitizer
        self.random_state = random_state


def lend(sampler, estimator):
    """Give a sampler without an estimator, a prototype, the one at hand."""
    if sampler.get_params(deep=False).get("estimator", sampler) is None:
        sampler.set_params(estimator=clone(estimator))
    return sampler


@differentiable.register(ResampledClassifier, takes_codes=True)
def resampled_classifier(estimator):
    """View the classifier inside; classes that it does not know are never predicted."""
    inside, classes = subview(estimator.estimator_), estimator.classes_
    if len(classes) == len(inside.classes):
        return inside
    known = find_positions(np.asarray(inside.classes), classes)[0]

    def logits(x):
        found = inside.logits(x)
        below = found.detach().min(dim=1, keepdim=True).values - 50.0  # e**-50 is 0
        columns = found.new_tensor(known).long()
        return below.repeat(1, len(classes)).index_copy(1, columns, found)

    return differentiable.ClassifierView(
        classes,
        logits=logits,
        dtype=inside.dtype,
        device=inside.device,
        module=inside.module,
        precision=inside.precision,
    )
