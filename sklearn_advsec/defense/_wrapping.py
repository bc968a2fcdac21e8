"""Wrapping defenses: around a classifier that is trained as usual, or already."""

from __future__ import annotations

from numbers import Real
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .. import differentiable
from .._estimators import RoutesToEstimator, is_net, weight_params
from .._labels import class_positions
from .._progress import ReportsProgress
from .._rows import check_weights, same_shape
from .._seeding import fit_seeded, undisturbed
from .._sklearn import BaseEstimator, Interval, _check_y, fit_context, validate_data
from ..victim import ask_labels, ask_scores
from ..victim._fitting import (
    CLASSIFIER,
    as_victim,
    labels_missing,
    needs_labels,
    warn_if_fitted,
)
from ..victim._validation import check_victim
from ._base import TrainingDefense, check_classifier


class AugmentedClassifier(TrainingDefense):
    """Train a classifier on rows under Gaussian noise; on the rows as they are for 0.

    Parameters
    ----------
    estimator : classifier
        A skorch net, whose batches get new noise each time, or any other, which is
        fitted on `n_copies` noisy copies of the rows.
    sigma : float
        Standard deviation of the noise.
    n_copies : int
        Copies of the rows for what is no net.
    random_state : int, RandomState instance or None
        Seed.
    """

    _parameter_constraints = {
        **TrainingDefense._parameter_constraints,
        "sigma": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, estimator, *, sigma=0.0, n_copies=1, random_state=None):
        self.estimator = estimator
        self.sigma = sigma
        self.n_copies = n_copies
        self.random_state = random_state

    def _fit_net(self, net, X, y, weights, seed):
        from ._net_training import NoisyBatches, train

        noise = NoisyBatches(self.sigma, torch.Generator().manual_seed(seed))
        callbacks = [("noisy_batches", noise)] if self.sigma else []
        return train(self, net, X, y, weights, callbacks=callbacks)

    def _fit_estimator(self, X, y, weights, seed):
        if self.sigma:
            rng = np.random.RandomState(seed)
            noise = rng.standard_normal((self.n_copies, *X.shape)) * self.sigma
            X = (X + noise).reshape(-1, *X.shape[1:]).astype(X.dtype)
            y = np.tile(y, self.n_copies)
            weights = None if weights is None else np.tile(weights, self.n_copies)
        return fit_seeded(self.estimator, seed, X, y, **weight_params(self, weights))


class WrappingDefense(
    ReportsProgress,
    RoutesToEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Base of the defenses around a classifier that may be fitted already.

    A subclass lists its parameters, among them `estimator` and `random_state`, and writes
    `_fit_defense(X, seed)` and `predict`.
    """

    random_state = None

    _parameter_constraints = {
        "estimator": CLASSIFIER,
        "random_state": ["random_state"],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the classifier (a frozen one is kept) and the defense.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Clean training rows, all numeric.
        y : array-like of shape (n_samples,), default=None
            Their labels. Not needed for a classifier that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the training of the classifier.

        Returns
        -------
        self : object
            The fitted defense.
        """
        if y is None and self.__sklearn_tags__().target_tags.required:
            raise ValueError(labels_missing(self, self.estimator))
        check_classifier(as_victim(self.estimator))
        array = self._check_X(X, reset=True)
        if y is not None:
            y = _check_y(y, multi_output=False, y_numeric=False)
            check_consistent_length(array, y)
            check_classification_targets(y)
        sample_weight = check_weights(sample_weight, len(array))
        seed = self._draw_seed()
        with self._reported(X, y):
            self.estimator_ = self._fit_inside(X, array, y, sample_weight, seed)
            check_victim(self.estimator_)
            self.classes_ = np.asarray(self.estimator_.classes_)
            self._fit_defense(array, seed)
        return self

    def _n_tasks(self):
        return 1  # the classifier, if it is trained here

    def _draw_seed(self):
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _fit_inside(self, X, array, y, weights, seed):
        """Fit the classifier inside."""
        victim = as_victim(self.estimator)
        warn_if_fitted(victim, self, stacklevel=6)
        kept = clone(victim)
        if kept is victim:  # frozen, or a trained module
            return kept.fit(X, y)
        if is_net(self.estimator):
            inside = AugmentedClassifier(self.estimator, random_state=seed)
            return self._fit_as_task(inside, "classifier", array, y, weights)
        return fit_seeded(self.estimator, seed, array, y, **weight_params(self, weights))

    def _fit_defense(self, X, seed):
        """Fit what stands around the classifier, on an array of rows."""
        raise NotImplementedError

    def _check_X(self, X, *, reset):
        """Return the rows as an array of floats."""
        dtype = np.float32 if is_net(self.estimator) else [np.float64, np.float32]
        X = validate_data(self, X, reset=reset, dtype=dtype, allow_nd=True)
        return same_shape(self, X, reset=reset)

    def _ask(self, method, array):
        """Ask the classifier inside about an array of rows."""
        rows = self._inside(array)
        with undisturbed(self.estimator_):
            if method == "predict":
                return ask_labels(self.estimator_, rows)
            return ask_scores(self.estimator_, rows, method)

    def _inside(self, array):
        """Give rows the column names that the classifier inside was fitted with."""
        names = getattr(self.estimator_, "feature_names_in_", None)
        if names is None:
            return array
        import pandas as pd

        return pd.DataFrame(array, columns=names)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = needs_labels(self.estimator)
        return tags


class DetectingDefense(WrappingDefense):
    """Base of the wrapping defenses that tell adversarial rows from clean ones.

    Its parameters `abstain_label` and `per_class` are read here; a subclass writes
    `detect` and `_predict(X)`, the labels of an array of rows.
    """

    _parameter_constraints = {
        **WrappingDefense._parameter_constraints,
        "per_class": ["boolean"],
    }

    def _threshold(self, scores, array, level):
        """Return a quantile of scores of clean rows, or one for each predicted class."""
        overall = float(np.quantile(scores, level, method="higher"))
        if not self.per_class:
            return overall
        at = class_positions(self._predict(array), self.classes_, "predict")
        by_class = [scores[at == k] for k in range(len(self.classes_))]
        return np.array(
            [
                np.quantile(part, level, method="higher") if len(part) else overall
                for part in by_class
            ]
        )

    def _exceeds(self, scores, array, threshold):
        """Tell which scores are above the threshold of what is predicted for the row."""
        if self.per_class:
            at = class_positions(self._predict(array), self.classes_, "predict")
            threshold = threshold[at]
        return scores > threshold

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels; `abstain_label`, where one is set, for rows that are detected.
        """
        check_is_fitted(self)
        array = self._check_X(X, reset=False)
        y_pred = self._predict(array)
        return abstain(y_pred, self.abstain_label, self.classes_, lambda: self.detect(X))


def abstain(y_pred, label, classes, where):
    """Replace predictions by a label where ``where()`` says so; None replaces nothing."""
    if label is None:
        return y_pred
    if label in classes.tolist():
        raise ValueError(f"abstain_label must be none of the classes; got {label!r}.")
    if y_pred.dtype == object:
        return np.where(where(), np.array(label, dtype=object), y_pred)
    label = np.asarray(label)
    kinds = {y_pred.dtype.kind, label.dtype.kind}
    if len({"iuf" if kind in "iuf" else kind for kind in kinds}) > 1:
        raise ValueError(
            f"abstain_label must be of the type of the labels, {y_pred.dtype}; got "
            f"{label.item()!r}."
        )
    return np.where(where(), label, y_pred)


def log_probabilities(defense, array):
    """Return the logarithms of the inner classifier's probabilities on an array."""
    inside = defense.estimator_
    if hasattr(inside, "predict_proba"):
        proba = torch.as_tensor(defense._ask("predict_proba", array).astype(np.float64))
        return torch.log(proba.clamp_min(1e-30))
    if not hasattr(inside, "decision_function"):
        raise TypeError(
            f"estimator: {type(inside).__name__} has neither predict_proba nor "
            "decision_function, of which these detectors are made."
        )
    decision = defense._ask("decision_function", array).astype(np.float64)
    decision = differentiable.binary_logits(torch.as_tensor(decision))
    return torch.log_softmax(decision, dim=1)
