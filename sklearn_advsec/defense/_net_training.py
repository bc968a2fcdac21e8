"""Training of a skorch net under a defense: callbacks and mixins, while it lasts.

A defense changes the batch (a callback) or a step of the training (a mixin, put in front
of the net's own class). The mixins are gone when training ends: the fitted net is of the
user's class, and pickles as any other.
"""

import copy
import itertools
import logging
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from skorch.callbacks import Callback
from torch.utils.data import Dataset

from .._progress import LOG, logged
from ..differentiable._skorch import outputs_to_logits
from ..evasion._goal import LOSSES, Goal
from ..evasion._state import AttackState
from ..threat import LpBall


class BatchAccess:
    """The network in training, as the loops of the gradient attacks see a victim.

    Nothing is counted or copied: the network is the defender's own.
    """

    exact, mixed = True, False

    def __init__(self, module, to_logits, x):
        self.module = module
        self.to_logits = to_logits
        self.x = x

    @property
    def device(self):
        """Where the batch is."""
        return self.x.device

    def affordable(self, rows=None):
        """There is no budget."""
        return np.inf

    def logits(self, x):
        """Return the module's logits."""
        out = self.module(x)
        return self.to_logits(out[0] if isinstance(out, tuple) else out)

    def gradient(self, x, rows, loss):
        """Return the logits, and the gradient of a loss with respect to the input."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.logits(x)
            (gradient,) = torch.autograd.grad(loss(logits, slice(None)).sum(), x)
        return logits.detach(), gradient


class BatchAttack:
    """A gradient attack, made ready for batches of a network in training.

    The inner maximisation of adversarial training takes every step of the attack (no
    early stopping, no restarts), against the network in evaluation mode.

    Parameters
    ----------
    attack : evasion attack
        The prototype, of knowledge "gradient".
    box : Box
        The range of the training data, or the attack's own bounds.
    generator : torch.Generator
        Source of randomness for random starts.
    ramp : Ramp
        How far the attack's bound has grown.
    """

    def __init__(self, attack, box, generator, ramp):
        self.attack = attack
        self.box = box
        self.generator = generator
        self.ramp = ramp

    def grown(self):
        """Return the attack as far as it has grown by now."""
        share = self.ramp.share
        if share == 1:
            return self.attack
        attack = copy.copy(self.attack)
        attack.eps = share * np.asarray(attack.eps, dtype=np.float64)
        if getattr(attack, "step_size", None):
            attack.step_size = share * attack.step_size
        return attack

    def perturbation_bounds(self, x):
        """Return the box for the perturbations; no value is missing here."""
        lower, upper = (
            torch.as_tensor(bound, dtype=x.dtype, device=x.device)
            for bound in (self.box.lower, self.box.upper)
        )
        return (lower - x).clamp_max_(0), (upper - x).clamp_min_(0)

    def __call__(self, net, x, y, loss=None, start=None):
        """Return the adversarial batch for rows `x` and labels `y`, on their device.

        Parameters
        ----------
        net : skorch.NeuralNet
            The net in training.
        x, y : tensor
            The batch.
        loss : callable, optional
            What is ascended instead of the attack's own loss: ``loss(logits, labels)``.
        start : tensor of the shape of `x`, optional
            Perturbations to begin with, where the attack has no random start.
        """
        attack = self.grown()
        access = BatchAccess(net.module_, outputs_to_logits(net)[0], x)
        lower, upper = self.perturbation_bounds(x)
        state = AttackState(access, attack.norm, lower, upper, self.generator)
        with frozen(net.module_):
            labels = y.long()
            if attack.goal == "targeted":  # away from no label, so none can leak
                with torch.no_grad():
                    labels = access.logits(x).argmin(1)
            state.goal = Goal(attack.goal, labels, loss=loss or LOSSES[attack.loss])
            if attack.random_start:  # of each row, where an attack shares one
                ball = LpBall(attack.norm, attack.eps)
                start = ball.random(x, self.generator, lower, upper)
            elif start is not None:
                start = start.clamp(lower, upper)
            _, x_adv = attack._steps(state, start, early_stopping=False)
        return x_adv

    def logits(self, net, x):
        """Return the logits of rows, in evaluation mode."""
        with frozen(net.module_), torch.no_grad():
            return BatchAccess(net.module_, outputs_to_logits(net)[0], x).logits(x)


class AdversarialBatches(Callback):
    """Replace a share of the rows of each training batch by adversarial ones.

    Parameters
    ----------
    batch_attack : BatchAttack
        Makes them.
    share : float
        Which share of a batch; the first rows are taken, batches being shuffled.
    """

    def __init__(self, batch_attack, share):
        self.batch_attack = batch_attack
        self.share = share

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Rewrite the batch, which skorch's default collation makes a list."""
        if not training:
            return
        x, y = batch[0].to(net.device), batch[1].to(net.device)
        n = int(np.ceil(self.share * len(x)))
        x_adv = self.batch_attack(net, x[:n], y[:n])
        batch[0] = torch.cat([x_adv, x[n:]]) if n < len(x) else x_adv


@contextmanager
def frozen(module):
    """Evaluate a module in training with fixed weights; give it back as it was."""
    modes = [(layer, layer.training) for layer in module.modules()]
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    try:
        module.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def free_training(n_replays, batch_attack):
    """Make a mixin for free adversarial training: each batch is replayed, and perturbed.

    The backward pass that gives the gradient of the weights gives that of the rows too;
    the perturbation takes one step of the ball's radius along it, and is carried over
    into the next batch (Algorithm 1).

    Parameters
    ----------
    n_replays : int
        Steps per batch, the paper's m.
    batch_attack : BatchAttack
        Knows what the perturbation may be.
    """
    carried = None

    class FreeTraining:
        def train_step(self, batch, **fit_params):
            nonlocal carried
            x = batch[0].to(self.device)
            attack = batch_attack.grown()
            ball = LpBall(attack.norm, attack.eps)
            lower, upper = batch_attack.perturbation_bounds(x)
            delta = torch.zeros_like(x)
            if carried is not None:
                n = min(len(x), len(carried))
                delta[:n] = carried[:n]
                delta = ball.project(delta, lower, upper)
            for _ in range(n_replays):
                batch[0] = (x + delta).requires_grad_()
                step = super().train_step(batch, **fit_params)
                direction = ball.ascent(batch[0].grad, delta, lower, upper)
                delta = ball.project(delta + ball.radius * direction, lower, upper)
            batch[0] = batch[0].detach()
            carried = delta
            return step

    return FreeTraining


class RowWeights(Callback):
    """Weights of the rows of a training batch: taken off it before others see it.

    Attributes
    ----------
    current : tensor of shape (n_rows,) or None
        Those of the present batch; None where rows have none.
    """

    current = None

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Take the weights off the batch."""
        weights = batch.pop() if len(batch) == 3 else None
        self.current = (
            weights.to(net.device) if training and weights is not None else None
        )

    def mean(self, values):
        """Return the weighted mean of one value per row, or per pair of half the rows."""
        weights = self.current
        if weights is None:
            return values.mean()
        n = len(values)
        if n < len(weights):  # a pair counts as often as both of its rows do
            weights = weights[:n] * weights[n : 2 * n]
        return (weights.to(values) * values).mean()


class _WeightedDataset(Dataset):
    """A dataset whose entries carry a weight as the last part."""

    def __init__(self, dataset, weights):
        self.dataset = dataset
        self.weights = weights

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return *self.dataset[i], self.weights[i]


def weighted_rows(weights, rows):
    """Make a mixin whose training loss is a weighted mean over the rows.

    Parameters
    ----------
    weights : ndarray of shape (n_samples,)
        Of all training rows; their mean is 1, so that batches of light rows are light.
    rows : RowWeights
        Those of the present batch.
    """

    class WeightedRows:
        def get_split_datasets(self, X, y=None, **fit_params):
            dataset = _WeightedDataset(self.get_dataset(X, y), weights)
            return super().get_split_datasets(dataset, y, **fit_params)

        def get_loss(self, y_pred, y_true, *args, training=False, **kwargs):
            loss = partial(super().get_loss, y_pred, y_true, *args, training=training)
            if rows.current is None:
                return loss(**kwargs)
            if getattr(self.criterion_, "reduction", None) != "mean":
                raise TypeError(
                    "estimator: sample_weight needs a criterion with reduction='mean', "
                    f"of which rows are weighed; got {self.criterion_!r}."
                )
            self.criterion_.reduction = "none"
            try:
                return rows.mean(loss(**kwargs).reshape(len(y_true), -1).mean(1))
            finally:
                self.criterion_.reduction = "mean"

    return WeightedRows


def train(defense, net, X, y, weights, *mixins, callbacks=()):
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
    weights : ndarray of shape (n_samples,) or None
        Weights of the rows in the loss.
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
        _try(net, X)
    cls, own, rows = type(net), net.callbacks_, RowWeights()
    if weights is not None:
        mixins = (*mixins, weighted_rows(weights / weights.mean(), rows))
    if hasattr(defense, "_reporting") or LOG.isEnabledFor(logging.INFO):
        callbacks = [*callbacks, ("epochs", Epochs(defense, cls, own))]
    net.callbacks_ = [
        ("row_weights", rows),
        *own,
        *((name, callback.initialize()) for name, callback in callbacks),
    ]
    net.__class__ = type(cls.__name__, (*mixins, cls), {"row_weights": rows})
    try:
        return net.partial_fit(X, y)
    finally:
        net.__class__ = cls
        net.callbacks_ = own


def _try(net, X):
    """Let two rows through the module, so that what it cannot take is told by name."""
    with frozen(net.module_), torch.no_grad():
        try:
            net.infer(torch.as_tensor(X[:2]))
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(
                f"X: the module takes no rows of shape {X.shape[1:]} ({error})."
            ) from error


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
        rows = net.row_weights
        if rows.current is not None:  # a pair counts as often as both of its rows do
            rows.current = rows.current * rows.current[self.partner]


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
        name = type(self.defense).__name__
        self.log = logged(itertools.count(), name, "epoch", net.max_epochs)

    def on_epoch_begin(self, net, **kwargs):
        """Begin a task."""
        next(self.log)
        self.task = self.defense._begin_task("epoch")

    def on_epoch_end(self, net, **kwargs):
        """End it; what skorch takes for an interruption ends the training."""
        if self._end(net):
            raise KeyboardInterrupt

    def on_train_end(self, net, **kwargs):
        """End the task of an epoch that something else has ended."""
        next(self.log)
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
