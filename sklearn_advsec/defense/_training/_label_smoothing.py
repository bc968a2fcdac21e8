"""Label smoothing (Szegedy et al. 2015) as a defense."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..._sklearn import Interval
from .._base import TrainingDefense


class LabelSmoothingClassifier(TrainingDefense):
    r"""Label smoothing: train towards labels that are a little uncertain.

    The target is :math:`1 - \alpha + \alpha / K` for the label and :math:`\alpha / K` for
    the other classes. It calibrates a net and helps against attacks by transfer; it is
    no defense against an attack that sees the gradients.

    Measured with AutoAttack, then PGD of 200 steps on the margin with restarts: 0.365
    is left, where without defense it is 0.315 (``benchmarks/results/defense.md``: digits,
    Linf 0.1).

    Parameters
    ----------
    estimator : skorch.NeuralNetClassifier
        Unfitted, its module a class and its criterion `torch.nn.CrossEntropyLoss`.
    smoothing : float, default=0.1
        The mass :math:`\alpha` that is spread over all classes.
    random_state : int, RandomState instance or None, default=None
        Seed of the net's initial weights and of its batches.

    Attributes
    ----------
    estimator_ : skorch.NeuralNetClassifier
        The trained net; it predicts positions in `classes_`.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Number of columns seen in `fit`.

    Raises
    ------
    TypeError
        If `estimator` is no net, its module an instance, or its criterion another one.

    See Also
    --------
    MixupClassifier : Smooths between rows.
    AdversarialTrainingClassifier : A defense that holds.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception architecture for computer
       vision", arXiv:1512.00567 (Section 7).
    .. [2] D. Warde-Farley and I. Goodfellow, "Adversarial perturbations of deep neural
       networks", in Perturbations, Optimization, and Statistics, MIT Press 2016
       (Section 11.4, as a defense).

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.defense import LabelSmoothingClassifier
    >>> class Net(torch.nn.Sequential):
    ...     def __init__(self, n_features=4, n_classes=3):
    ...         super().__init__(torch.nn.Linear(n_features, 16), torch.nn.ReLU(),
    ...                          torch.nn.Linear(16, n_classes))
    >>> net = NeuralNetClassifier(
    ...     Net, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.02,
    ...     max_epochs=30, batch_size=32, train_split=None, verbose=0)
    >>> X, y = load_iris(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> LabelSmoothingClassifier(net, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        **TrainingDefense._parameter_constraints,
        "smoothing": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        smoothing: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.smoothing = smoothing
        self.random_state = random_state

    def _fit_net(self, net, X, y, weights, seed):
        from torch.nn import CrossEntropyLoss

        from .._net_training import train

        criterion = net.criterion
        if not (isinstance(criterion, type) and issubclass(criterion, CrossEntropyLoss)):
            raise TypeError(
                "estimator: criterion must be torch.nn.CrossEntropyLoss, whose "
                f"label_smoothing is what this defense sets; got {criterion!r}."
            )
        if not net.initialized_:
            net.set_params(criterion__label_smoothing=self.smoothing)
        return train(self, net, X, y, weights)
