"""Views of linear classifiers: a matrix product."""

import torch
from sklearn import linear_model
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.svm import LinearSVC

from ._registry import register
from ._views import ClassifierView, binary_logits, constant, two_columns


def affine(estimator):
    """Return the decision function ``x W^T + b``, of shape (n,) for two classes."""
    weight = torch.atleast_2d(constant(estimator.coef_))
    bias = constant(estimator.intercept_)

    def decision_function(x):
        scores = x @ weight.T + bias
        return scores[:, 0] if scores.shape[1] == 1 else scores

    return decision_function


def normalized(scores):
    """Divide rows of scores by their sum; rows of zeros become uniform."""
    total = scores.sum(dim=1, keepdim=True)
    empty = total == 0
    share = scores / torch.where(empty, 1.0, total)
    return torch.where(empty, 1.0 / scores.shape[1], share)


@register(LogisticRegression)
def logistic_regression(estimator):
    """View LogisticRegression, and LogisticRegressionCV, a subclass of it."""
    decision = affine(estimator)

    def predict_proba(x):
        return torch.softmax(binary_logits(decision(x)), dim=1)

    return ClassifierView(
        estimator.classes_, decision_function=decision, predict_proba=predict_proba
    )


@register(RidgeClassifier)
@register(RidgeClassifierCV)
@register(Perceptron)
@register(LinearSVC)
def linear_classifier(estimator):
    """View classifiers that have a decision function and no probabilities."""
    return ClassifierView(estimator.classes_, decision_function=affine(estimator))


if hasattr(linear_model, "PassiveAggressiveClassifier"):  # until scikit-learn 1.10
    register(linear_model.PassiveAggressiveClassifier)(linear_classifier)


@register(SGDClassifier)
def stochastic_gradient_descent(estimator):
    """View SGDClassifier; two of its losses give probabilities, by one against rest."""
    decision = affine(estimator)
    positive = {
        "log_loss": torch.sigmoid,
        "modified_huber": lambda scores: (scores.clamp(-1, 1) + 1) / 2,
    }.get(estimator.loss)

    def predict_proba(x):
        scores = positive(decision(x))
        return two_columns(scores) if scores.ndim == 1 else normalized(scores)

    return ClassifierView(
        estimator.classes_,
        decision_function=decision,
        predict_proba=predict_proba if positive else None,
    )
