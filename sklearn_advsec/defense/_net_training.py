"""What a training defense adds to a clone of the user's net, while it trains.

A defense changes the batch (a callback) or a step of the training (a mixin, put in front
of the net's own class). The mixins are gone when training ends: the fitted net is of the
user's class, and pickles as any other.
"""

import copy
from functools import partial

import torch
from skorch.callbacks import Callback


def train(defense, net, X, y, *mixins, callbacks=()):
    """Train a net with mixins before its class and named callbacks after its own.

    A net that is initialised already goes on from where it is.

    Parameters
    ----------
    defense : TrainingDefense
        Whose callbacks are told of each epoch, and may end the training.
    net : skorch.NeuralNet
        A clone of the user's, or one that was trained here before.
    X, y : ndarray
        Rows and encoded labels.
    *mixins : type
        Classes that override methods of a training step.
    callbacks : sequence of tuple (str, Callback)
        They run after the net's own.

    Returns
    -------
    net : skorch.NeuralNet
        The same net, trained.
    """
    if not net.initialized_:
        net.initialize()
    cls, own = type(net), net.callbacks_
    if hasattr(defense, "_reporting"):
        callbacks = [*callbacks, ("epochs", Epochs(defense, cls, own))]
    net.callbacks_ = [
        *own,
        *((name, callback.initialize()) for name, callback in callbacks),
    ]
    net.__class__ = type(cls.__name__, (*mixins, cls), {})
    try:
        return net.partial_fit(X, y)
    finally:
        net.__class__ = cls
        net.callbacks_ = own


def snapshot(net, cls, callbacks):
    """Copy a net in training as one of class `cls` that can predict."""
    copied = object.__new__(cls)
    module = copy.deepcopy(net.module_)
    copied.__dict__.update(net.__dict__, module_=module, callbacks_=callbacks)
    return copied


def own_loss(loss):
    """Make a mixin whose training loss is ``loss(net, criterion, out, x, y)``.

    `criterion(out, y)` is the net's own loss. Validation keeps that one.
    """

    class OwnLoss:
        def get_loss(self, y_pred, y_true, X=None, *args, training=False, **kwargs):
            criterion = partial(super().get_loss, X=X, training=training, **kwargs)
            if not training:
                return criterion(y_pred, y_true)
            y_true = y_true.to(self.device)
            return loss(self, criterion, y_pred, X.to(self.device), y_true)

    return OwnLoss


def perturbed_weights(gamma):
    r"""Make a mixin whose gradients are taken at the worst weights nearby.

    Before each step every matrix of weights moves up the loss of the batch by `gamma`
    times its norm, and back after the gradient is known (Wu et al. 2020, equation 9 and
    Algorithm 1, with one step). It costs one more forward and backward pass.
    """

    class PerturbedWeights:
        def train_step_single(self, batch, **fit_params):
            weights = [p for p in self.module_.parameters() if p.requires_grad]
            weights = [w for w in weights if w.ndim > 1]
            self._set_training(True)
            out = self.infer(batch[0], **fit_params)
            loss = self.get_loss(out, batch[1], X=batch[0], training=True)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            before = [weight.detach().clone() for weight in weights]
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        size = weight.norm() / gradient.norm().clamp_min(1e-12)
                        weight.add_(gamma * size * gradient)
            try:
                return super().train_step_single(batch, **fit_params)
            finally:
                with torch.no_grad():
                    for weight, value in zip(weights, before, strict=True):
                        weight.copy_(value)

    return PerturbedWeights


def extra_mixins(gamma):
    """Return the mixins for the option ``weight_perturbation=gamma``."""
    return (perturbed_weights(gamma),) if gamma else ()


class BesideBatches(Callback):
    """Make something beside each training batch, for the loss to use.

    Parameters
    ----------
    make : callable
        ``make(net, x, y)``, of tensors on the net's device; its result is `made`.
    """

    def __init__(self, make):
        self.make = make

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Look at the batch before it is trained on."""
        if training:
            self.made = self.make(net, batch[0].to(net.device), batch[1].to(net.device))


class BlendedBatches(Callback):
    """Blend each training batch with itself in another order.

    Parameters
    ----------
    alpha : float
        Concentration of the blend's share.
    rng : RandomState
        Source of shares and partners.

    Attributes
    ----------
    share : float
        What the last batch kept of its rows.
    partner : tensor of int64, shape (n_rows,)
        What each row was blended with.
    """

    def __init__(self, alpha, rng):
        self.alpha = alpha
        self.rng = rng

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Rewrite the batch, which skorch's default collation makes a list."""
        if not training:
            return
        x = batch[0].to(net.device)
        self.share = float(self.rng.beta(self.alpha, self.alpha))
        self.partner = torch.as_tensor(self.rng.permutation(len(x)), device=x.device)
        batch[0] = self.share * x + (1 - self.share) * x[self.partner]


class Epochs(Callback):
    """Report the epochs of a net as tasks of a defense, and stop where one asks to.

    Parameters
    ----------
    defense : TrainingDefense
        It reports its fit.
    cls : type
    own : list of tuple (str, Callback)
        Class and callbacks of the net, as they are when no defense is at work.
    """

    def __init__(self, defense, cls, own):
        self.defense = defense
        self.cls = cls
        self.own = own

    def on_train_begin(self, net, **kwargs):
        """Begin."""
        self.task = None

    def on_epoch_begin(self, net, **kwargs):
        """Begin a task."""
        self.task = self.defense._begin_task("epoch")

    def on_epoch_end(self, net, **kwargs):
        """End it; what skorch takes for an interruption ends the training."""
        if self._end(net):
            raise KeyboardInterrupt

    def on_train_end(self, net, **kwargs):
        """End the task of an epoch that something else has ended."""
        if self.task is not None:
            self._end(net)

    def _end(self, net):
        task, self.task = self.task, None
        return self.defense._end_task(
            task, lambda: {"estimator_": snapshot(net, self.cls, self.own)}
        )


class NoisyBatches(Callback):
    """Add Gaussian noise to each training batch.

    Parameters
    ----------
    sigma : float
        Its standard deviation.
    generator : torch.Generator
        Its source.
    """

    def __init__(self, sigma, generator):
        self.sigma = sigma
        self.generator = generator

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Rewrite the batch, which skorch's default collation makes a list."""
        if training:
            x = batch[0].to(net.device)
            noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
            batch[0] = x + self.sigma * noise.to(x.device)


class Ramp(Callback):
    """Know how far a quantity that grows during the training has grown.

    Parameters
    ----------
    ramp : tuple (start, end)
        The shares of the training between which it grows, evenly from 0 to all of it. A
        net that trains on has all of it.

    Attributes
    ----------
    share : float
        How far, in [0, 1].
    """

    def __init__(self, ramp):
        if len(ramp) != 2 or not 0 <= ramp[0] <= ramp[1] <= 1:
            raise ValueError(f"ramp must be two shares, 0 <= a <= b <= 1; got {ramp!r}.")
        self.ramp = ramp

    def on_train_begin(self, net, **kwargs):
        """Begin, unless the net was trained before."""
        self.over = 1.0 if len(net.history) else 0.0
        self._grow()

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Count the steps to come."""
        batch = net.batch_size if net.batch_size > 0 else len(dataset_train)
        self.step = 1 / (net.max_epochs * -(-len(dataset_train) // batch))

    def on_batch_end(self, net, training=False, **kwargs):
        """One more."""
        if training:
            self.over = min(1.0, self.over + self.step)
            self._grow()

    def _grow(self):
        start, end = self.ramp
        if start < self.over < end:
            self.share = (self.over - start) / (end - start)
        else:
            self.share = float(self.over >= end)
