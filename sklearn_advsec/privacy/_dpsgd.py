"""Training with differential privacy: DP-SGD (Abadi et al. 2016)."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.func import functional_call, grad, vmap

from .._estimators import has_one_logit
from .._sklearn import Interval, fit_context
from ..defense._base import TrainingDefense

_MIXING = (torch.nn.modules.batchnorm._BatchNorm,)


class DPSGDClassifier(TrainingDefense):
    r"""Train a skorch net so that no single row matters much, by a proven bound.

    Each step draws a random batch, to which every row belongs with the same probability,
    clips the gradient of every row to the norm `max_grad_norm`, and adds normal noise of
    standard deviation ``noise_multiplier * max_grad_norm`` to their sum. The accountant
    of opacus (the extra ``sklearn-advsec[privacy]``) says which :math:`\epsilon` that
    makes.

    The guarantee is about one row that is taken out or blanked while the number of rows
    stays known: the rate of the draws, the number of steps and the divisor of the noisy
    sum go by it. That divisor is the expected size of a batch, never the size that was
    drawn, which would tell more than the accountant counts [3]_.

    It is the one defense against membership inference whose bound holds against attacks
    that nobody has thought of, and it costs accuracy. Weak guarantees (:math:`\epsilon`
    of 8 and more) mostly do against known attacks what early stopping does, too. The
    guarantee is that of a random number generator that nobody predicts; torch's is not
    cryptographic, and with a `random_state` that an attacker knows there is none.

    Parameters
    ----------
    estimator : NeuralNetClassifier
        An unfitted skorch net. Its module, criterion, optimiser, `lr`, `max_epochs` and
        `batch_size` (the expected size of a batch) are used; callbacks are not, nor is
        `train_split`. Batch normalisation mixes rows and is refused.
    epsilon : float, default=None
        The wanted bound: the noise is then chosen for it. None takes `noise_multiplier`.
    delta : float, default=1e-5
        Probability with which the bound may fail; it should be well below one over the
        number of training rows.
    noise_multiplier : float, default=1.0
        Standard deviation of the noise, in units of `max_grad_norm`; for
        ``epsilon=None``. With `partial_fit` it is the one to set: an `epsilon` is spent
        by the first call.
    max_grad_norm : float, default=1.0
        Norm to which the gradient of each row is clipped.
    physical_batch_size : int, default=256
        How many rows' gradients are held in memory at once.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, batches and noise. Leave it at None where the
        guarantee matters.

    Attributes
    ----------
    estimator_ : NeuralNetClassifier
        The trained net.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    epsilon_ : float
        The bound on epsilon that the accountant gives, for all calls of `partial_fit`
        together: it is as if they had all been given the same rows.
    noise_multiplier_ : float
        The noise in use.
    n_steps_ : int
        Number of steps that are paid for: those taken, unless a callback stops the
        training. When it stops may depend on the rows, so that the bound stays.
    history_ : list of tuple (noise_multiplier, sample_rate, n_steps)
        What the accountant composes, one for each call of `fit` and `partial_fit`.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ImportError
        If opacus is not installed.

    See Also
    --------
    epsilon_lower_bound : What an attack proves of epsilon.
    MembershipGame : Plays against it.

    References
    ----------
    .. [1] M. Abadi et al., "Deep learning with differential privacy", arXiv:1607.00133
       (Algorithm 1).
    .. [2] I. Mironov, K. Talwar, L. Zhang, "Renyi differential privacy of the sampled
       Gaussian mechanism", arXiv:1908.10530 (the accountant).
    .. [3] "Rethinking the security of DP-SGD: a corrected analysis of differentially
       private machine learning", arXiv:2605.15648 (what averages leak, where the number
       of rows, drawn or in all, is a secret).

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_advsec.privacy import DPSGDClassifier
    >>> class Net(torch.nn.Sequential):
    ...     def __init__(self, n_features=64, n_classes=10):
    ...         super().__init__(torch.nn.Linear(n_features, n_classes))
    >>> net = NeuralNetClassifier(
    ...     Net, criterion=torch.nn.CrossEntropyLoss, lr=2.0, max_epochs=6
    ... )
    >>> X, y = load_digits(return_X_y=True)
    >>> private = DPSGDClassifier(net, epsilon=8.0, random_state=0).fit(X / 16, y)
    >>> private.epsilon_ <= 8.0, private.score(X / 16, y) > 0.8
    (True, True)
    """

    _parameter_constraints = {
        **TrainingDefense._parameter_constraints,
        "epsilon": [Interval(Real, 0, None, closed="neither"), None],
        "delta": [Interval(Real, 0, 1, closed="neither")],
        "noise_multiplier": [Interval(Real, 1e-6, None, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither")],
        "physical_batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        epsilon: float | None = None,
        delta: float = 1e-5,
        noise_multiplier: float = 1.0,
        max_grad_norm: float = 1.0,
        physical_batch_size: int = 256,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.epsilon = epsilon
        self.delta = delta
        self.noise_multiplier = noise_multiplier
        self.max_grad_norm = max_grad_norm
        self.physical_batch_size = physical_batch_size
        self.random_state = random_state

    # Weights would multiply what one record may contribute: there are none.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train the classifier.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Training rows, cast to float32.
        y : array-like of shape (n_samples,)
            Their labels, of any type.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        self._fit(X, y, None, reset=True)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None
    ) -> Self:
        """Train on, or begin to; the steps add up in `epsilon_`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come, for the first call; by default those of `y`.

        Returns
        -------
        self : object
            The classifier.
        """
        self._fit(X, y, None, reset=not hasattr(self, "estimator_"), classes=classes)
        return self

    def _fit_net(self, net, X, y, weights, seed):
        n_rows = len(X)
        rate = min(1.0, net.batch_size / n_rows) if net.batch_size > 0 else 1.0
        n_steps = max(1, round(net.max_epochs / rate))
        if not net.initialized_:
            net.initialize()
            self.history_ = []
        elif self.epsilon is not None:
            raise ValueError(
                f"epsilon={self.epsilon} of the training so far is spent. Set "
                "epsilon=None and a noise_multiplier; epsilon_ then grows by each call."
            )
        self._account(rate, n_steps)
        net.check_data(X, y)
        for layer in net.module_.modules():
            if isinstance(layer, _MIXING):
                raise ValueError(
                    f"estimator: {type(layer).__name__} computes with several rows at a "
                    "time, so that no row's gradient can be bounded; use GroupNorm."
                )
        if isinstance(net.criterion_, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
            # Of single rows, "mean" would divide by the weight of their class.
            net.criterion_.reduction = "sum"
        X = torch.as_tensor(X, device=net.device)
        y = torch.as_tensor(y, device=net.device)
        generator = torch.Generator(net.device).manual_seed(seed)
        net.module_.train()
        for epoch in self._epochs(net, n_steps):
            for _ in epoch:
                self._step(net, X, y, rate, generator)
        for parameter in net.module_.parameters():
            parameter.grad = None
        net.module_.eval()
        net.history.new_epoch()  # by which the next call knows that its seed is another
        return net

    def _epochs(self, net, n_steps):
        """Yield the steps of each epoch."""
        from ..defense._net_training import snapshot

        return self._tasks(
            np.array_split(np.arange(n_steps), self._n_tasks()),
            "epoch",
            attributes=lambda: {"estimator_": snapshot(net, type(net), net.callbacks_)},
        )

    def _step(self, net, X, y, rate, generator):
        drawn = torch.rand(len(X), generator=generator, device=X.device) < rate
        sums = self._clipped_sum(net, X[drawn], y[drawn])
        for parameter, total in zip(_trained(net).values(), sums, strict=True):
            noise = torch.randn(total.shape, generator=generator, device=total.device)
            noise = noise.to(total.dtype)
            total += self.noise_multiplier_ * self.max_grad_norm * noise
            parameter.grad = total / (rate * len(X))
        net.optimizer_.step()

    def _clipped_sum(self, net, X, y):
        """Sum the clipped gradients of all rows, some rows at a time."""
        trained = {name: p.detach() for name, p in _trained(net).items()}
        fixed = {
            **{n: p.detach() for n, p in net.module_.named_parameters()},
            **dict(net.module_.named_buffers()),
        }

        def loss(parameters, row, label):
            out = functional_call(net.module_, {**fixed, **parameters}, (row[None],))
            if has_one_logit(net):
                out = out.reshape(1)
            return net.get_loss(out, label[None], training=True)

        gradients_of = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
        sums = [torch.zeros_like(p) for p in trained.values()]
        size = int(self.physical_batch_size)
        for rows, labels in zip(X.split(size), y.split(size), strict=True):
            if not len(rows):  # a Poisson batch may be empty; the noise is added anyway
                continue
            gradients = list(gradients_of(trained, rows, labels).values())
            norms = torch.stack(
                [g.reshape(len(g), -1).norm(dim=1) for g in gradients]
            ).norm(dim=0)
            scale = (self.max_grad_norm / (norms + 1e-12)).clamp(max=1.0)
            for total, gradient in zip(sums, gradients, strict=True):
                total += torch.tensordot(scale, gradient, dims=1)
        return sums

    def _account(self, rate, n_steps):
        """Set the noise, and the epsilon that all steps so far and these make."""
        try:
            from opacus.accountants import RDPAccountant
            from opacus.accountants.utils import get_noise_multiplier
        except ImportError as error:
            raise ImportError(
                "DPSGDClassifier needs the accountant of opacus: pip install "
                "'sklearn-advsec[privacy]'."
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimal order is the largest it tries
            self.noise_multiplier_ = self.noise_multiplier
            if self.epsilon is not None:
                try:
                    self.noise_multiplier_ = get_noise_multiplier(
                        target_epsilon=self.epsilon,
                        target_delta=self.delta,
                        sample_rate=rate,
                        steps=n_steps,
                        accountant="rdp",
                    )
                except ValueError as error:
                    raise ValueError(
                        f"epsilon={self.epsilon} is so small that no noise which the "
                        "accountant tries keeps to it."
                    ) from error
            self.history_ = [*self.history_, (self.noise_multiplier_, rate, n_steps)]
            accountant = RDPAccountant()
            accountant.history = self.history_
            # A large delta pays for what is left of epsilon, which is never negative.
            self.epsilon_ = max(float(accountant.get_epsilon(self.delta)), 0.0)
        self.n_steps_ = sum(steps for *_, steps in self.history_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # small data drowns in the noise
        tags.non_deterministic = self.random_state is None
        return tags


def _trained(net):
    return {n: p for n, p in net.module_.named_parameters() if p.requires_grad}
