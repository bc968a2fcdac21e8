"""Adversarial training (Madry et al. 2017)."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval

from .._rows import is_dataframe
from ..evasion import ProjectedGradientDescent
from ..threat import Box
from ._base import TrainingDefense


class AdversarialTrainingClassifier(TrainingDefense):
    r"""Train a classifier on attacked rows.

    .. math:: \min_\theta \; \mathbb{E} \, \max_{\delta \in B} J(\theta, x + \delta, y)

    A skorch net is attacked batch by batch while it learns. Any other classifier has no
    training loop to enter: it is fitted, its training rows are attacked, the adversarial
    rows are appended and it is fitted again, for some rounds. The classifier of the round
    that withstood its attack best is kept; the first round alone is often worse than no
    defense.

    Parameters
    ----------
    estimator : classifier
        An unfitted `skorch.NeuralNetClassifier` whose module is a class, or any
        scikit-learn classifier that the attack can attack. The module's input and output
        sizes are set where it takes them (``n_features``, ``n_classes`` and the like).
    attack : evasion attack, default=None
        A prototype. For nets it has to be a gradient attack, and all its steps are taken.
        For others, one that stops as soon as a row is wrong teaches more than one that
        goes to the end of its budget. None is ``ProjectedGradientDescent(max_iter=10)``.
    eps : float or array-like of shape (n_features,), default=None
        The attack's bound. None leaves the attack's own.
    adversarial_share : float, default=1.0
        Which share of each batch, or of the training rows, is attacked.
    n_rounds : int, default=10
        How often a classifier that is no net is attacked and fitted again; each round
        appends its adversarial rows to those before.
    random_state : int, RandomState instance or None, default=None
        Seed of the net's initial weights, of its batches and of the attack.

    Attributes
    ----------
    estimator_ : classifier
        The trained classifier; it predicts positions in `classes_`.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    TypeError
        If the net's module is an instance, or the attack of a net gives no gradients.

    Notes
    -----
    With ``bounds="data"``, the attack's box is the range of the training data.

    References
    ----------
    .. [1] A. Madry et al., "Towards deep learning models resistant to adversarial
       attacks", arXiv:1706.06083 (Equation 2.1).
    .. [2] A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial machine learning at scale",
       arXiv:1611.01236 (Algorithm 1, for ``adversarial_share`` below 1).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.defense import AdversarialTrainingClassifier
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent
    >>> from sklearn_advsec.metrics import robust_accuracy_scorer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> attack = ProjectedGradientDescent(eps=0.05, max_iter=10)
    >>> plain = LogisticRegression().fit(X, y)
    >>> robust = AdversarialTrainingClassifier(LogisticRegression(), attack).fit(X, y)
    >>> scorer = robust_accuracy_scorer(attack)
    >>> scorer(robust, X, y) > scorer(plain, X, y)
    True
    """

    _parameter_constraints = {
        **TrainingDefense._parameter_constraints,
        "attack": [HasMethods(["run", "set_params"]), None],
        "eps": [Real, "array-like", None],
        "adversarial_share": [Interval(Real, 0, 1, closed="right")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        attack=None,
        *,
        eps=None,
        adversarial_share=1.0,
        n_rounds=10,
        random_state=None,
    ):
        self.estimator = estimator
        self.attack = attack
        self.eps = eps
        self.adversarial_share = adversarial_share
        self.n_rounds = n_rounds
        self.random_state = random_state

    def _fit_net(self, net, X, y, seed):
        from ._batches import AdversarialBatches, BatchAttack, with_callback

        attack = self._prototype()
        if attack.knowledge != "gradient" or not hasattr(attack, "_steps"):
            raise TypeError(
                "attack must be a gradient attack to train a net, such as "
                f"ProjectedGradientDescent; {type(attack).__name__} has knowledge "
                f"{attack.knowledge!r}."
            )
        attack._check_parameters(X.shape[1:])
        generator = torch.Generator().manual_seed(seed)
        batch_attack = BatchAttack(attack, Box(attack.bounds, X), generator)
        batches = AdversarialBatches(batch_attack, self.adversarial_share)
        return with_callback(net, "adversarial_batches", batches).fit(X, y)

    def _fit_estimator(self, X, y, seed):
        attack = self._prototype()
        n = int(np.ceil(self.adversarial_share * len(y)))
        rows = np.random.RandomState(seed).permutation(len(y))[:n]
        part = X.iloc[rows] if is_dataframe(X) else X[rows]
        parts, labels = [X], [y]
        best, most = None, -1.0
        for _ in range(self.n_rounds + 1):
            estimator = clone(self.estimator).fit(_join(parts), np.concatenate(labels))
            attack.set_params(estimator=FrozenEstimator(estimator)).fit(X, y)
            result = attack.run(part, y[rows])
            robust = np.mean(result.y_pred == y[rows])
            if robust > most:
                best, most = estimator, robust
            parts.append(result.X_adv)
            labels.append(y[rows])
        return best

    def _prototype(self):
        if self.attack is None:
            attack = ProjectedGradientDescent(max_iter=10)
        else:
            attack = clone(self.attack).set_params(estimator=None)
        return attack if self.eps is None else attack.set_params(eps=self.eps)


def _join(parts):
    if is_dataframe(parts[0]):
        import pandas as pd

        return pd.concat(parts, ignore_index=True)
    return np.concatenate(parts)
