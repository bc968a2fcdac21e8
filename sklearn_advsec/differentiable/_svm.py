"""Views of kernel support vector machines."""

from itertools import combinations

import torch
from sklearn.svm import SVC, NuSVC

from ._kernels import kernel_of
from ._registry import register
from ._views import ClassifierView, binary_logits, constant


@register(SVC)
@register(NuSVC)
def support_vector_classifier(estimator):
    """View SVC and NuSVC.

    With three classes or more, libsvm lets the pairs of classes vote. Votes have no
    gradient, so the logits are scikit-learn's: votes plus the squashed sums of the
    pairs' margins, which never outweigh a vote.
    """
    n_classes = len(estimator.classes_)
    pairwise = _pairwise_decision(estimator, n_classes)
    proba = None
    if hasattr(estimator, "predict_proba"):
        proba = _probability(estimator, pairwise, n_classes)

    if n_classes == 2:

        def decision(x):
            return -pairwise(x)[:, 0]

        return ClassifierView(
            estimator.classes_,
            decision_function=decision,
            predict_proba=proba,
            logits=lambda x: binary_logits(decision(x)),
        )

    def one_against_rest(x):
        scores = pairwise(x)
        return one_vs_one(scores < 0, -scores, n_classes)

    def logits(x):
        scores = one_against_rest(x)
        if estimator.break_ties:
            return scores
        # libsvm gives a tie to the first class of those with most votes: the margins,
        # which are below 1/3, must not decide there.
        votes = scores.detach().round()
        most = votes == votes.max(dim=1, keepdim=True).values
        tied = most.sum(dim=1) > 1
        first = torch.zeros_like(votes).scatter_(1, votes.argmax(1, keepdim=True), 2 / 3)
        return scores + first * tied[:, None]

    ovr = estimator.decision_function_shape == "ovr"
    return ClassifierView(
        estimator.classes_,
        decision_function=one_against_rest if ovr else pairwise,
        predict_proba=proba,
        logits=logits,
    )


def one_vs_one(second_wins, confidence, n_classes):
    """Turn the outcomes of all pairs of classes into one score per class.

    Parameters
    ----------
    second_wins : tensor of bool, shape (n, n_pairs)
        Whether the second class of the pair gets the vote.
    confidence : tensor of shape (n, n_pairs)
        How much speaks for the second class.
    n_classes : int
        Pairs are ordered (0, 1), (0, 2), ..., (1, 2), ...

    Returns
    -------
    scores : tensor of shape (n, n_classes)
        Votes plus confidences squashed to the interval (-1/3, 1/3).
    """
    pairs = torch.tensor(list(combinations(range(n_classes), 2)))
    ballots = torch.zeros(len(pairs), n_classes, dtype=confidence.dtype)
    to_first = ballots.scatter(1, pairs[:, :1], 1.0)
    to_second = ballots.scatter(1, pairs[:, 1:], 1.0)
    second = second_wins.to(confidence.dtype)
    votes = (1 - second) @ to_first + second @ to_second
    total = confidence @ (to_second - to_first)
    return votes + total / (3 * (total.abs() + 1))


def _pairwise_decision(estimator, n_classes):
    """Return libsvm's decision values: positive where a pair's first class wins."""
    bias = constant(estimator.intercept_)
    dual = constant(estimator.dual_coef_)
    if n_classes == 2:
        dual, bias = -dual, -bias  # scikit-learn turns the sign for two classes
    else:
        dual = _pair_coefficients(dual, estimator.n_support_)
    if estimator.kernel == "linear":
        weight = dual @ constant(estimator.support_vectors_)
        return lambda x: x @ weight.T + bias
    kernel = kernel_of(estimator, estimator.support_vectors_, estimator._gamma)
    return lambda x: kernel(x) @ dual.T + bias


def _pair_coefficients(dual, n_support):
    """Spread libsvm's packed dual coefficients: one row per pair of classes.

    A support vector of class i has one coefficient for each of the other classes; the
    one against j is in row j - 1 if j > i and in row j otherwise.
    """
    end = torch.as_tensor(n_support).cumsum(0).tolist()
    at = [slice(*span) for span in zip([0, *end], end, strict=False)]
    pairs = list(combinations(range(len(at)), 2))
    spread = torch.zeros(len(pairs), dual.shape[1], dtype=dual.dtype)
    for row, (i, j) in enumerate(pairs):
        spread[row, at[i]] = dual[j - 1, at[i]]
        spread[row, at[j]] = dual[i, at[j]]
    return spread


def _probability(estimator, pairwise, n_classes):
    """Return ``predict_proba``: Platt's sigmoid for each pair, then their coupling."""
    slope, offset = constant(estimator._probA), constant(estimator._probB)
    first, second = torch.tensor(list(combinations(range(n_classes), 2))).T

    def predict_proba(x):
        pair = torch.sigmoid(-(pairwise(x) * slope + offset)).clamp(1e-7, 1 - 1e-7)
        empty = pair.new_zeros(len(pair), n_classes, n_classes)
        wins = empty.index_put((torch.arange(len(pair))[:, None], first, second), pair)
        wins = wins.index_put((torch.arange(len(pair))[:, None], second, first), 1 - pair)
        return couple(wins)

    return predict_proba


def couple(wins):
    """Give class probabilities from those of pairs, as libsvm does.

    This is the second method of Wu, Lin and Weng, "Probability estimates for multi-class
    classification by pairwise coupling" (JMLR 5, 2004), Algorithm 2. Its early stop,
    each row by itself, is libsvm's, or else the probabilities would differ. The gradient
    goes through the steps that a row took.

    Parameters
    ----------
    wins : tensor of shape (n, n_classes, n_classes)
        ``wins[:, i, j]`` is the probability of i given that it is i or j; 0 for i = j.
    """
    k = wins.shape[1]
    quadratic = torch.diag_embed((wins**2).sum(dim=1)) - wins * wins.transpose(1, 2)
    proba = wins.new_full((len(wins), k), 1 / k)
    for _ in range(max(100, k)):
        product = (quadratic @ proba[:, :, None])[:, :, 0]
        value = (proba * product).sum(dim=1)
        error = (product - value[:, None]).detach().abs().amax(dim=1)
        running = error >= 0.005 / k
        if not running.any():
            break
        update = proba
        for t in range(k):
            step = (value - product[:, t]) / quadratic[:, t, t]
            value = value + step * (step * quadratic[:, t, t] + 2 * product[:, t])
            value = value / (1 + step) ** 2
            step = step[:, None]
            product = (product + step * quadratic[:, t]) / (1 + step)
            unit = torch.eye(k, dtype=wins.dtype)[t]
            update = (update + step * unit) / (1 + step)
        proba = torch.where(running[:, None], update, proba)
    return proba
