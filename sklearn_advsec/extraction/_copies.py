"""Stolen parameters as fitted scikit-learn estimators."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import LinearSVC


def linear_copy(classes, coef, intercept, *, probability=True):
    """Return a linear classifier of given parameters.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Its classes.
    coef : ndarray of shape (n_classes, n_features)
        One row per class; of two classes, the difference counts.
    intercept : ndarray of shape (n_classes,)
        Likewise.
    probability : bool, default=True
        Whether the scale is known, so that probabilities mean something.
    """
    if len(classes) == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    copy = LogisticRegression() if probability else LinearSVC()
    copy.classes_ = np.asarray(classes)
    copy.coef_, copy.intercept_ = coef, intercept
    copy.n_features_in_ = coef.shape[1]
    copy.n_iter_ = np.ones(1, dtype=np.int32)
    return copy


def network_copy(classes, coefs, intercepts, activation="relu"):
    """Return a multi-layer perceptron of given weights.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Its classes.
    coefs, intercepts : list of ndarray
        As in `MLPClassifier`, with one output per class. Of two classes, the difference
        counts.
    activation : str, default="relu"
        Of the hidden layers.
    """
    coefs, intercepts = list(coefs), list(intercepts)
    if len(classes) == 2:
        coefs[-1] = coefs[-1][:, 1:] - coefs[-1][:, :1]
        intercepts[-1] = intercepts[-1][1:] - intercepts[-1][:1]
    hidden = tuple(len(b) for b in intercepts[:-1])
    copy = MLPClassifier(hidden_layer_sizes=hidden, activation=activation)
    copy.classes_ = np.asarray(classes)
    copy._label_binarizer = LabelBinarizer().fit(copy.classes_)
    copy.coefs_, copy.intercepts_ = coefs, intercepts
    copy.n_features_in_ = len(coefs[0])
    copy.n_layers_ = len(coefs) + 1
    copy.n_outputs_ = coefs[-1].shape[1]
    copy.out_activation_ = "logistic" if len(classes) == 2 else "softmax"
    copy.n_iter_ = copy.t_ = 1
    return copy
