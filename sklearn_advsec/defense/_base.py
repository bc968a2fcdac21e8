"""Training defenses: their base validates, encodes labels, seeds and predicts.

Around a skorch net, a subclass adds what its defense needs to a clone of the net; the
user's net, its callbacks and the global random state stay as they are.
"""

from __future__ import annotations

import inspect
from numbers import Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    clone,
    is_clusterer,
    is_outlier_detector,
    is_regressor,
)
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
)

from .. import differentiable
from .._estimators import (
    RoutesToEstimator,
    allows_nan,
    check_trainable,
    has_one_logit,
    is_net,
    may_take_nan,
    name_of,
)
from .._labels import class_positions, several_classes
from .._progress import ReportsProgress
from .._rows import check_rows, check_weights, is_dataframe, same_shape
from .._seeding import seeded_torch, undisturbed
from .._sklearn import BaseEstimator, HasMethods, _check_y, fit_context, validate_data
from ..differentiable._registry import subview
from ..victim import ask_labels, ask_scores

# What modules call the width of their input and of their output.
_INPUT_NAMES = (
    "n_features",
    "in_features",
    "input_dim",
    "input_size",
    "input_units",
    "n_inputs",
)
_OUTPUT_NAMES = (
    "n_classes",
    "num_classes",
    "out_features",
    "output_dim",
    "output_size",
    "output_units",
    "n_outputs",
)


def _estimator_has(name):
    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


def _trains_a_net(self):
    return is_net(self.estimator)


def check_classifier(estimator):
    """Raise where an estimator says that it is something else than a classifier."""
    for kind in (is_regressor, is_clusterer, is_outlier_detector):
        if kind(estimator):
            raise TypeError(
                f"estimator must be a classifier; got {name_of(estimator)}, which is a "
                f"{kind.__name__[3:].replace('_', ' ')}."
            )


def check_ramp(ramp):
    """Raise where a ramp is not two shares of a training."""
    numbers = all(isinstance(share, Real) for share in ramp)
    if not numbers or len(ramp) != 2 or not 0 <= ramp[0] <= ramp[1] <= 1:
        raise ValueError(f"ramp must be two shares, 0 <= a <= b <= 1; got {ramp!r}.")


class TrainingDefense(
    ReportsProgress,
    RoutesToEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Base of the meta-estimators that train their classifier in a way of their own.

    A subclass lists its parameters, among them `estimator` and `random_state`, and writes
    `_fit_net(net, X, y, weights, seed)` for skorch nets, and for others
    `_fit_estimator(X, y, weights, seed)`; weights of rows may be None.
    """

    random_state = None

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "random_state": ["random_state"],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train the classifier.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Training rows. For a net they are cast to float32.
        y : array-like of shape (n_samples,)
            Their labels, of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the training of the classifier.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        self._fit(X, y, sample_weight, reset=True)
        return self

    @available_if(_trains_a_net)
    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train on, or begin to: ``max_epochs`` more epochs of the net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come, for the first call; by default those of `y`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the training of the classifier.

        Returns
        -------
        self : object
            The classifier.
        """
        reset = not hasattr(self, "estimator_")
        self._fit(X, y, sample_weight, reset=reset, classes=classes)
        return self

    def _fit(self, X, y, weights, *, reset, classes=None):
        check_classifier(self.estimator)
        check_trainable(self.estimator, "estimator")
        if hasattr(self, "ramp"):
            check_ramp(self.ramp)
        given = X, y
        X = self._check_X(X, reset=reset)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        y = _check_y(y, multi_output=False, y_numeric=False)
        check_consistent_length(X, y)
        check_classification_targets(y)
        weights = check_weights(weights, len(X))
        if reset:
            self.classes_ = several_classes(y if classes is None else classes)
        encoded = class_positions(y, self.classes_, "y")
        if not is_net(self.estimator):
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            with self._reported(*given):
                self.estimator_ = self._fit_estimator(X, encoded, weights, seed)
            return
        net = clone(self.estimator) if reset else self.estimator_
        if reset:
            self._check_net(net)
            set_sizes(net, X, len(self.classes_))
        # Each call that goes on draws a seed of its own.
        n_before = 0 if reset else len(net.history)
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31 - 1, size=n_before + 1)[-1])
        encoded = encoded.astype(np.float32 if has_one_logit(net) else np.int64)
        with self._reported(*given), seeded_torch(seed, [net.device]):
            self.estimator_ = self._fit_net(net, X, encoded, weights, seed)

    def _n_tasks(self):
        if not is_net(self.estimator):
            return 0
        return max(1, self.estimator.max_epochs)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        return self.classes_[self._ask("predict", X).astype(int)]

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self._ask("predict_proba", X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute the decision function.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The classifier's decision function.
        """
        check_is_fitted(self)
        return self._ask("decision_function", X)

    def _ask(self, method, X):
        """Ask the classifier inside about rows, which are checked."""
        X = self._check_X(X, reset=False)
        with undisturbed(self.estimator_):
            if method == "predict":
                return ask_labels(self.estimator_, X)
            return ask_scores(self.estimator_, X, method)

    def _fit_net(self, net, X, y, weights, seed):
        """Train a clone of the user's net on float32 rows and labels 0..K-1.

        A net that is initialised was trained here before, and goes on.
        """
        raise NotImplementedError

    def _fit_estimator(self, X, y, weights, seed):
        """Train an estimator that is no net."""
        raise TypeError(
            f"{type(self).__name__} trains networks: estimator must be a skorch "
            f"NeuralNetClassifier; got {type(self.estimator).__name__}."
        )

    def _check_net(self, net):
        if not inspect.isclass(net.module) and not inspect.isfunction(net.module):
            raise TypeError(
                "estimator: module must be the class of a torch.nn.Module, not an "
                "instance: an instance would be trained in place, and clones would start "
                "from its trained weights."
            )

    def _check_X(self, X, *, reset):
        allow_nan = may_take_nan(self.estimator)
        if is_dataframe(X) and not is_net(self.estimator):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return check_rows(X, type(self).__name__, allow_nan=allow_nan)
        if not is_net(self.estimator):
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=[np.float64, np.float32],
                allow_nd=True,
                ensure_all_finite="allow-nan" if allow_nan else True,
            )
            return same_shape(self, X, reset=reset)
        X = validate_data(
            self,
            X,
            reset=reset,
            dtype=np.float32,
            allow_nd=True,
            force_writeable=True,  # a DataFrame's array is not, of which torch warns
        )
        return same_shape(self, X, reset=reset)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if not is_net(self.estimator):
            tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags


def set_sizes(net, X, n_classes):
    """Tell the module how wide its input and output are, where it takes them."""
    if not inspect.isclass(net.module):
        return
    accepted = inspect.signature(net.module.__init__).parameters
    sizes = {}
    if X.ndim == 2:
        sizes |= dict.fromkeys(_INPUT_NAMES, X.shape[1])
    if not has_one_logit(net):
        sizes |= dict.fromkeys(_OUTPUT_NAMES, n_classes)
    net.set_params(
        **{f"module__{name}": n for name, n in sizes.items() if name in accepted}
    )


@differentiable.register(TrainingDefense, takes_codes=True)
def training_defense(estimator):
    """View the classifier inside; its labels are the outer ones."""
    view = subview(estimator.estimator_)
    view.classes = estimator.classes_
    return view
