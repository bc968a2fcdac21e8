"""Logit pairing (Kannan et al. 2018)."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..._sklearn import Interval, StrOptions
from ._attacked import PairedLoss


class LogitPairingClassifier(PairedLoss):
    r"""Logit pairing: ask that two rows get the same logits.

    ``pairing="adversarial"`` pairs a row with its adversarial one, and trains on both;
    ``pairing="clean"`` pairs each row of a batch with another, both under Gaussian noise,
    and attacks nothing:

    .. math:: J + \lambda \, \mathrm{mean} \, \|z(x) - z(x')\|_2^2

    What it seems to buy under a few steps of an attack may be gradient masking: the
    loss surface gets bumpy, and attacks with many steps and restarts find their way
    (Engstrom et al. 2018). Measure it with such an attack.

    Measured with AutoAttack, then PGD of 200 steps on the margin with restarts: 0.825
    is left of adversarial pairing, where PGD of 20 steps says 0.870 and a square
    attack that sees no gradient 0.830: a part of it is masking. Of clean pairing
    0.720 is left (``benchmarks/results/defense.md``: digits, Linf 0.1; without defense
    0.315). On MNIST at Linf 0.3, a small CNN keeps 0.945 under PGD of 10 steps, 0.935
    with 500 steps and 5 restarts, and 0.880 under AutoAttack.

    Parameters
    ----------
    estimator : skorch.NeuralNetClassifier
        Unfitted, its module a class.
    attack : evasion attack, default=None
        A prototype of a gradient attack, for ``pairing="adversarial"``. None is
        ``ProjectedGradientDescent(max_iter=10)``.
    pairing : {"adversarial", "clean"}, default="adversarial"
        What is paired.
    eps : float or array-like of shape (n_features,), default=None
        The attack's bound. None leaves the attack's own.
    pairing_weight : float, default=0.5
        Weight of the pairing, :math:`\lambda`.
    adversarial_weight : float, default=0.5
        Share of the adversarial rows in the classification loss :math:`J`.
    sigma : float, default=0.5
        Standard deviation of the noise of ``pairing="clean"``, in the units of the
        features.
    ramp : tuple (start, end), default=(0, 0)
        Shares of the training between which the attack's bound grows; see
        :class:`AdversarialTrainingClassifier`.
    weight_perturbation : float, default=0.0
        See :class:`AdversarialTrainingClassifier`.
    random_state : int, RandomState instance or None, default=None
        Seed of the net's initial weights, of its batches, of the attack and the noise.

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
        If `estimator` is no net, its module an instance, or `attack` gives no gradients.

    See Also
    --------
    TRADESClassifier : The pairing that holds.
    AdversarialTrainingClassifier : Without pairing.

    References
    ----------
    .. [1] H. Kannan, A. Kurakin, I. Goodfellow, "Adversarial logit pairing",
       arXiv:1803.06373 (Sections 3.2 and 3.3).
    .. [2] L. Engstrom, A. Ilyas, A. Athalye, "Evaluating and understanding the
       robustness of adversarial logit pairing", arXiv:1807.10272.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sklearn_advsec.defense import LogitPairingClassifier
    >>> class Net(torch.nn.Sequential):
    ...     def __init__(self, n_features=4, n_classes=3):
    ...         super().__init__(torch.nn.Linear(n_features, 16), torch.nn.ReLU(),
    ...                          torch.nn.Linear(16, n_classes))
    >>> net = NeuralNetClassifier(
    ...     Net, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.02,
    ...     max_epochs=30, batch_size=32, train_split=None, verbose=0)
    >>> X, y = load_iris(return_X_y=True)
    >>> X = MinMaxScaler().fit_transform(X)
    >>> LogitPairingClassifier(net, eps=0.05, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        **PairedLoss._parameter_constraints,
        "pairing": [StrOptions({"adversarial", "clean"})],
        "pairing_weight": [Interval(Real, 0, None, closed="left")],
        "adversarial_weight": [Interval(Real, 0, 1, closed="both")],
        "sigma": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        attack: Any = None,
        *,
        pairing: Literal["adversarial", "clean"] = "adversarial",
        eps: ArrayLike | None = None,
        pairing_weight: float = 0.5,
        adversarial_weight: float = 0.5,
        sigma: float = 0.5,
        ramp: tuple[float, float] = (0, 0),
        weight_perturbation: float = 0.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.attack = attack
        self.pairing = pairing
        self.eps = eps
        self.pairing_weight = pairing_weight
        self.adversarial_weight = adversarial_weight
        self.sigma = sigma
        self.ramp = ramp
        self.weight_perturbation = weight_perturbation
        self.random_state = random_state

    def _make(self, batch_attack, net, x, y):
        if self.pairing == "adversarial":
            return batch_attack(net, x, y)
        noise = torch.randn(x.shape, generator=batch_attack.generator, dtype=x.dtype)
        return x + self.sigma * noise.to(x.device)

    def _loss(self, criterion, out, out_adv, logits, logits_adv, y, mean):
        if self.pairing == "adversarial":
            share = self.adversarial_weight
            loss = share * criterion(out_adv, y)
            if share < 1:
                loss = loss + (1 - share) * criterion(out, y)
            distance = logits - logits_adv
        else:  # batches are shuffled: a row's partner is the one half a batch away
            loss = criterion(out_adv, y)
            half = len(logits) // 2
            distance = logits_adv[:half] - logits_adv[half : 2 * half]
        if not len(distance):  # a batch of one row
            return loss
        return loss + self.pairing_weight * mean(distance.square().sum(1))
