"""What an estimator is: its name, what is inside it, what it takes."""

import re
from contextlib import contextmanager

import numpy as np
from sklearn.base import OneToOneFeatureMixin, clone, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import has_fit_parameter

from ._rows import is_dataframe
from ._sklearn import _routing_enabled

# How torch says that a layer got numbers of another precision.
_OTHER_PRECISION = re.compile(r"same dtype|scalar type|type .* should be the same")


def name_of(estimator):
    """Return the name of an estimator's class, also of a frozen one."""
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    return type(estimator).__name__


def allows_nan(estimator):
    """Whether the victim takes rows with missing values.

    A ColumnTransformer's tags do not say so, even where it imputes: its parts are asked.
    """
    if isinstance(estimator, FrozenEstimator):
        return allows_nan(estimator.estimator)
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
        for step in steps:
            if not allows_nan(step):
                return False
            if not isinstance(step, OneToOneFeatureMixin):
                break  # imputers and encoders leave none; scalers pass them on
        return bool(steps)
    if isinstance(estimator, ColumnTransformer):
        return any(allows_nan(part) for _, part, _ in estimator.transformers)
    try:
        return bool(get_tags(estimator).input_tags.allow_nan)
    except (AttributeError, TypeError):
        return False


def abstain_label(estimator):
    """Return what a classifier predicts where it abstains; None where it never does."""
    if isinstance(estimator, FrozenEstimator):
        return abstain_label(estimator.estimator)
    if isinstance(estimator, Pipeline):
        return abstain_label(estimator.steps[-1][1])
    if hasattr(estimator, "best_estimator_"):
        return abstain_label(estimator.best_estimator_)
    return getattr(estimator, "abstain_label", None)


def may_take_nan(estimator):
    """Whether rows with missing values may be handed to a victim, who then decides.

    What imputes, or lets others impute, cannot be told by its type: a search, a vote, a
    step of a user's own. The victim is asked, and says itself what it does not take. Only
    networks have to be spoken for: they answer NaN.
    """
    victim = unwrap(estimator)
    is_module = hasattr(getattr(victim, "module", victim), "named_parameters")
    return not (is_module or is_net(victim))


def is_net(estimator):
    """Whether an estimator is a skorch net (without importing skorch)."""
    return any(cls.__module__.startswith("skorch.") for cls in type(estimator).__mro__)


def has_one_logit(net):
    """Whether a skorch net is a binary one, with a single logit and labels as floats."""
    return any(c.__name__ == "NeuralNetBinaryClassifier" for c in type(net).__mro__)


def unwrap(estimator):
    """Return what is inside of a `FrozenEstimator`."""
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def as_nets_take_them(features, estimator):
    """Return float32 rows for a network of skorch, which takes nothing else."""
    if is_dataframe(features) or not ends_in_net(estimator):
        return features
    return features.astype(np.float32, copy=False)


@contextmanager
def telling_precision(estimator):
    """Say what to do where a network gets rows of another precision than its weights.

    torch's own message names neither the rows nor the step that made them.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not (ends_in_net(unwrap(estimator)) and _OTHER_PRECISION.search(text)):
            raise
        raise TypeError(
            f"estimator: the network at the end of {name_of(estimator)} has weights of "
            "another precision than the rows that reach it. Cast them to float32: "
            "X.astype('float32'), or, where a step before it gives float64, such as an "
            "encoder, the step FunctionTransformer(np.float32) right before the network."
        ) from error


def targets_as_nets_take_them(y, estimator):
    """Return targets of a skorch regressor as a column of float32.

    Its loss would hold each prediction against every target otherwise.
    """
    if not (ends_in_net(estimator) and is_regressor(estimator)):
        return y
    return np.asarray(y, dtype=np.float32).reshape(-1, 1)


def ends_in_net(estimator):
    """Whether an estimator, or the last step of a pipeline, is a skorch net."""
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    return is_net(last)


def is_untrained_net(estimator):
    """Whether an estimator is, or ends in, a skorch net without weights as yet.

    Nets of skorch 1.2 have attributes that end in an underscore from the start, so that
    `check_is_fitted` takes them for fitted.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    return is_net(last) and not last.initialized_


def told_classes(recipe, classes):
    """Return a recipe that knows all classes, also those that its rows will lack.

    A network of skorch takes the labels of its rows for all there are, though it has an
    output for each class; others find out by themselves.
    """
    if not ends_in_net(recipe):
        return recipe
    name = "classes"
    if isinstance(recipe, Pipeline):
        name = f"{recipe.steps[-1][0]}__{name}"
    if recipe.get_params().get(name, classes) is not None:
        return recipe  # has been told, or is binary
    return clone(recipe).set_params(**{name: classes})


def weight_params(owner, sample_weight):
    """Return the parameters by which the `fit` of an owner's `estimator` takes weights.

    With metadata routing, they go where they are requested; without, to the estimator, or
    to the last step of a pipeline.
    """
    estimator = owner.estimator
    if sample_weight is None or not hasattr(estimator, "fit"):
        return {}  # a torch module, which is trained already
    if clone(estimator, safe=False) is estimator:
        return {}
    if _routing_enabled():
        return process_routing(owner, "fit", sample_weight=sample_weight).estimator.fit
    last, name = weight_parameter(estimator)
    if name is None:
        raise TypeError(f"estimator: {type(last).__name__} takes no sample_weight.")
    return {name: sample_weight}


def weight_parameter(estimator):
    """Return what takes weights, the last step of a pipeline, and by which parameter.

    The name is None where it takes none.
    """
    last, name = estimator, "sample_weight"
    while isinstance(last, Pipeline):
        step, last = last.steps[-1]
        name = name.replace("sample_weight", f"{step}__sample_weight")
    return last, name if has_fit_parameter(last, "sample_weight") else None


class RoutesToEstimator:
    """Mixin of meta-estimators whose `fit` fits their `estimator`."""

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the router of metadata: weights are used here and in `estimator`.

        Returns
        -------
        routing : MetadataRouter
            The router.
        """
        fit = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=fit)


def check_trainable(estimator, name):
    """Raise where the estimator in a parameter is trained, and its clones are itself."""
    if clone(estimator) is estimator:
        raise ValueError(
            f"{name}: {type(estimator).__name__} is trained and stays as it is. Set "
            f"{name} to an unfitted classifier, of which clones are trained."
        )


def check_each_fits(estimators, name):
    """Return a sequence of estimators as a list, if each has a `fit`."""
    for estimator in estimators:
        if not hasattr(estimator, "fit") or isinstance(estimator, type):
            raise TypeError(
                f"{name} must be an estimator or a list of estimators; it holds "
                f"{estimator!r}."
            )
    return list(estimators)
