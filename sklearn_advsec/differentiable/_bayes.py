"""Views of naive Bayes and of discriminant analysis."""

import math

import torch
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.naive_bayes import ComplementNB, GaussianNB, MultinomialNB

from ._linear import logistic_regression
from ._registry import register
from ._views import ClassifierView, constant


@register(GaussianNB)
def gaussian_naive_bayes(estimator):
    """View GaussianNB: the logits are the log joint probabilities."""
    mean, variance = constant(estimator.theta_), constant(estimator.var_)
    offset = torch.log(constant(estimator.class_prior_))
    offset = offset - 0.5 * torch.log(2 * math.pi * variance).sum(dim=1)

    def logits(x):
        # One class at a time: no tensor of shape (n, n_classes, n_features).
        distance = [
            ((x - m) ** 2 / v).sum(dim=1) for m, v in zip(mean, variance, strict=True)
        ]
        return offset - 0.5 * torch.stack(distance, dim=1)

    return _joint(estimator, logits)


@register(MultinomialNB)
def multinomial_naive_bayes(estimator):
    """View MultinomialNB, which is linear in the counts."""
    weight = constant(estimator.feature_log_prob_)
    prior = constant(estimator.class_log_prior_)
    return _joint(estimator, lambda x: x @ weight.T + prior)


@register(ComplementNB)
def complement_naive_bayes(estimator):
    """View ComplementNB, which leaves the prior out."""
    weight = constant(estimator.feature_log_prob_)
    return _joint(estimator, lambda x: x @ weight.T)


def _joint(estimator, logits):
    return ClassifierView(
        estimator.classes_,
        predict_proba=lambda x: torch.softmax(logits(x), dim=1),
        logits=logits,
    )


@register(LinearDiscriminantAnalysis)
def linear_discriminant_analysis(estimator):
    """View LinearDiscriminantAnalysis, a classifier and a transformer."""
    view = logistic_regression(estimator)
    if estimator.solver != "lsqr":
        width = len(estimator.get_feature_names_out())
        scaling = constant(estimator.scalings_)[:, :width]
        center = constant(estimator.xbar_) if estimator.solver == "svd" else 0.0
        view.transform = lambda x: (x - center) @ scaling
    return view


@register(QuadraticDiscriminantAnalysis)
def quadratic_discriminant_analysis(estimator):
    """View QuadraticDiscriminantAnalysis: a Gaussian of its own for each class."""
    gaussians = [
        (constant(mean), constant(rotation) * constant(scaling) ** -0.5)
        for mean, rotation, scaling in zip(
            estimator.means_, estimator.rotations_, estimator.scalings_, strict=True
        )
    ]
    offset = torch.log(constant(estimator.priors_)) - 0.5 * torch.stack(
        [torch.log(constant(scaling)).sum() for scaling in estimator.scalings_]
    )

    def logits(x):
        distance = [(((x - mean) @ whiten) ** 2).sum(1) for mean, whiten in gaussians]
        return offset - 0.5 * torch.stack(distance, dim=1)

    return discriminant(estimator.classes_, logits)


def discriminant(classes, logits):
    """View log posteriors; the decision on two classes is their difference."""

    def decision_function(x):
        scores = logits(x)
        return scores[:, 1] - scores[:, 0] if len(classes) == 2 else scores

    return ClassifierView(
        classes,
        decision_function=decision_function,
        predict_proba=lambda x: torch.softmax(logits(x), dim=1),
        logits=logits,
    )
