"""Views of neighbour-based classifiers and regressors."""

from functools import cache, partial

import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid

from .._estimators import name_of
from ..exceptions import NoGradientError
from ._bayes import discriminant
from ._registry import register
from ._regression import refuse_several, value_view
from ._views import ClassifierView, constant, smoothed_log, straight_through

_POWERS = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": float("inf")}
# Of how many times as many neighbours as a regressor's the slope is.
_WIDER = 4


@register(KNeighborsClassifier)
def nearest_neighbours(estimator):
    """View KNeighborsClassifier: exact values, soft gradients.

    - ``predict_proba`` gives exactly the shares of the vote. With weights="distance" its
      gradient is exact too. With weights="uniform" the shares are piecewise constant: the
      gradient is that of a relaxation (a straight-through estimator).
    - ``logits`` are the logarithms of the shares after half a vote was added to each
      class, so that their argmax is `predict`, and a unanimous vote does not saturate an
      attack's loss. Their gradient is always that of the relaxation: an exact one is zero
      for a class without a vote, which is where attacks start.
    - the relaxation is a softmax over the negative distances to the `n_neighbors` nearest
      rows *of each class*, added up by class. Its temperature is the mean distance of a
      training row to its `n_neighbors`-th neighbour.
    """
    if estimator.outputs_2d_:
        raise NoGradientError("KNeighborsClassifier with several outputs has no view.")
    power = _metric_power(estimator)
    rows, labels = constant(estimator._fit_X), torch.as_tensor(estimator._y)
    k, n_classes = estimator.n_neighbors, len(estimator.classes_)
    by_class = [torch.nonzero(labels == c)[:, 0] for c in range(n_classes)]
    # Only gradients need it, and it takes many distances.
    temperature = cache(partial(_temperature, rows, k, power))

    def shares(x):
        index = _nearest(x, rows, k, power)
        weight = _weights(estimator, x, rows[index], power)
        votes = x.new_zeros(len(x), n_classes).scatter_add(1, labels[index], weight)
        return votes / votes.sum(dim=1, keepdim=True)

    def relaxed(x):
        """Logarithms of the relaxed shares."""
        scores = []
        for members in by_class:
            near = members[_nearest(x, rows[members], min(k, len(members)), power)]
            distance = _distance(x, rows[near], power)
            scores.append(torch.logsumexp(-distance / temperature(), dim=1))
        return torch.log_softmax(torch.stack(scores, dim=1), dim=1)

    def predict_proba(x):
        if estimator.weights == "distance":
            return shares(x)
        return straight_through(shares(x), torch.exp(relaxed(x)))

    def logits(x):
        with torch.no_grad():
            value = smoothed_log(shares(x), 0.5 / k)
        return straight_through(value, relaxed(x))

    return ClassifierView(estimator.classes_, predict_proba=predict_proba, logits=logits)


@register(KNeighborsRegressor)
def nearest_neighbours_regressor(estimator):
    """View KNeighborsRegressor: exact values; soft gradients with weights="uniform".

    These means are piecewise constant: the gradient is that of a mean over four times as
    many neighbours, weighed by a softmax of the negative distances, at the temperature of
    the classifier's view. With weights="distance" the gradient is exact.
    """
    refuse_several(estimator, estimator._y[0].size)
    power = _metric_power(estimator)
    rows, targets = constant(estimator._fit_X), constant(estimator._y).reshape(-1)
    k = estimator.n_neighbors
    temperature = cache(partial(_temperature, rows, k, power))

    def mean(x):
        index = _nearest(x, rows, k, power)
        weight = _weights(estimator, x, rows[index], power)
        return (weight * targets[index]).sum(1) / weight.sum(1)

    def relaxed(x):
        index = _nearest(x, rows, min(_WIDER * k, len(rows)), power)
        distance = _distance(x, rows[index], power)
        weight = torch.softmax(-distance / temperature(), dim=1)
        return (weight * targets[index]).sum(1)

    if estimator.weights == "distance":
        return value_view(mean)
    return value_view(lambda x: straight_through(mean(x), relaxed(x)))


def _weights(estimator, x, neighbours, power):
    """Return the weights of each x's own neighbours."""
    if estimator.weights != "distance":
        return torch.ones(neighbours.shape[:2], dtype=x.dtype)
    distance = _distance(x, neighbours, power)
    zero = distance == 0
    weight = 1 / torch.where(zero, 1.0, distance)
    return torch.where(zero.any(1, keepdim=True), zero.to(x.dtype), weight)


def _metric_power(estimator):
    """Return the p of the Minkowski metric, of an estimator that has a view."""
    name = name_of(estimator)
    if estimator.weights not in (None, "uniform", "distance"):
        raise NoGradientError(
            f"{name} with a function as weights has no gradients: use "
            "weights='distance' or 'uniform'."
        )
    metric = estimator.effective_metric_
    parameters = dict(estimator.effective_metric_params_)
    power = parameters.pop("p", 2.0) if metric == "minkowski" else _POWERS.get(metric)
    if power is None or power < 1 or parameters.get("w") is not None:
        raise NoGradientError(
            f"{name} with metric={metric!r} and metric_params="
            f"{estimator.metric_params} has no view: use an unweighted minkowski metric "
            "(euclidean, manhattan, chebyshev)."
        )
    return float(power)


@torch.no_grad()
def _nearest(x, rows, k, power, chunk=256):
    """Return the positions of the k rows next to each x."""
    found = [
        # The matrix product is faster and not exact enough to order near neighbours.
        torch.cdist(part, rows, p=power, compute_mode="donot_use_mm_for_euclid_dist")
        .topk(k, largest=False)
        .indices
        for part in x.detach().split(chunk)
    ]
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.long)


def _distance(x, neighbours, power):
    """Return distances to each x's own neighbours; their gradient is 0 at distance 0."""
    return torch.linalg.vector_norm(x[:, None] - neighbours, ord=power, dim=2)


def _temperature(rows, k, power, n_samples=256):
    """Return the mean distance of (some) rows to their k-th neighbour."""
    some = rows[:: max(1, len(rows) // n_samples)]
    last = min(k, len(rows) - 1)  # the nearest of all is the row itself
    farthest = _nearest(some, rows, last + 1, power)[:, -1:]
    mean = _distance(some, rows[farthest], power).mean()
    return mean if mean > 0 else torch.ones_like(mean)


@register(NearestCentroid)
def nearest_centroid(estimator):
    """View NearestCentroid.

    With uniform priors, `predict` compares plain distances, while its decision function
    weighs the features by their spread: the logits go with `predict`.
    """
    if estimator.metric not in ("euclidean", "manhattan"):
        raise NoGradientError(
            f"NearestCentroid with metric={estimator.metric!r} has no view."
        )
    centroid = constant(estimator.centroids_)
    prior = constant(estimator.class_prior_)
    spread = constant(estimator.within_class_std_dev_)
    spread = torch.where(spread == 0, 1.0, spread)
    power = _POWERS[estimator.metric]

    def squared(x, centers):
        difference = x[:, None] - centers
        if power == 2:
            return (difference**2).sum(dim=2)
        return difference.abs().sum(dim=2) ** 2

    def scores(x):
        return 2 * torch.log(prior) - squared(x / spread, centroid / spread)

    uniform = torch.isclose(prior, torch.full_like(prior, 1 / len(prior))).all()
    logits = (lambda x: -squared(x, centroid)) if uniform else scores
    if estimator.metric == "manhattan":
        return ClassifierView(estimator.classes_, logits=logits)
    view = discriminant(estimator.classes_, scores)
    view.logits = logits
    return view
