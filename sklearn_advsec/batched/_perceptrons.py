"""Many multilayer perceptrons trained as one, step for step as scikit-learn does."""

import copy
import math
import warnings

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_array, check_random_state, gen_batches
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from .._sklearn import _safe_indexing


class Layers:
    """One array per layer, each (n_models, fan_in, fan_out), in one piece of memory.

    A step of a solver over them is then one call, on `flat`; the layers are views of it.
    """

    def __init__(self, layers):
        self.flat = torch.cat([layer.flatten() for layer in layers])
        parts = self.flat.split([layer.numel() for layer in layers])
        self.layers = [p.view_as(layer) for p, layer in zip(parts, layers, strict=True)]

    def __getitem__(self, i):
        return self.layers[i]

    def __len__(self):
        return len(self.layers)

    def zeros_like(self):
        """Return zeros of the same shapes."""
        return Layers([torch.zeros_like(layer) for layer in self.layers])

    def select(self, keep):
        """Return the arrays of some models only."""
        return Layers([layer[keep] for layer in self.layers])


class Solver:
    """The solver of a recipe, with its state; `gradients` are written by the caller.

    These are torch's functional solvers, on two tensors: its `Optimizer` would collect
    the parameters anew at every step, and small batches are mostly overhead.

    Parameters
    ----------
    recipe : MLPClassifier
        With the solver "adam" or "sgd", and its parameters.
    weights, biases : Layers
        Of all models; steps change them in place. Weights are decayed.
    """

    def __init__(self, recipe, weights, biases):
        self.recipe, self.n_steps = recipe, 0
        n_more = 3 if recipe.solver == "adam" else 2  # gradients, and one or two moments
        self.groups = [
            [values, *(values.zeros_like() for _ in range(n_more))]
            for values in (weights, biases)
        ]
        # How many steps were taken, in the form that torch's solvers count on.
        zero = torch.zeros((), dtype=torch.float32, device=weights.flat.device)
        self.counts = [zero.clone() for _ in self.groups]

    @property
    def values(self):
        """Weights and biases."""
        return [group[0] for group in self.groups]

    @property
    def gradients(self):
        """Those of the weights and of the biases."""
        return [group[1] for group in self.groups]

    def select(self, keep):
        """Keep some models only, with their state."""
        self.groups = [[part.select(keep) for part in group] for group in self.groups]

    def step(self, decay):
        """Take a step, in which `decay` times the weights is added to their gradient."""
        self.n_steps += 1
        for group, count, own in zip(self.groups, self.counts, (decay, 0.0), strict=True):
            flat = [[part.flat] for part in group]
            if self.recipe.solver == "adam":
                self._adam(*flat, count, own)
            else:
                self._sgd(*flat, own)

    def _adam(self, values, gradients, means, squares, count, decay):
        recipe = self.recipe
        # scikit-learn adds its epsilon before the correction of the second moment,
        # torch after it.
        correction = math.sqrt(1 - recipe.beta_2**self.n_steps)
        adam(
            values,
            gradients,
            means,
            squares,
            [],
            [count],
            fused=True,
            amsgrad=False,
            beta1=recipe.beta_1,
            beta2=recipe.beta_2,
            lr=recipe.learning_rate_init,
            weight_decay=decay,
            eps=recipe.epsilon / correction,
            maximize=False,
        )

    def _sgd(self, values, gradients, velocities, decay):
        recipe = self.recipe
        sgd(
            values,
            gradients,
            velocities,
            fused=True,
            weight_decay=decay,
            momentum=recipe.momentum,
            lr=recipe.learning_rate_init,
            dampening=0,
            nesterov=recipe.nesterovs_momentum and recipe.momentum > 0,
            maximize=False,
        )


_DERIVATIVES = {  # of the activation, from its value; times the delta
    "identity": lambda value, delta: delta,
    "relu": lambda value, delta: torch.ops.aten.threshold_backward(delta, value, 0),
    "tanh": lambda value, delta: delta.mul_(1 - value * value),
    "logistic": lambda value, delta: delta.mul_(value * (1 - value)),
}
_ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "logistic": torch.sigmoid_,
}


def perceptron_is_batchable(estimator):
    """Whether an estimator is a perceptron whose solver is written here."""
    if type(estimator) is not MLPClassifier or estimator.warm_start:
        return False
    if estimator.solver == "sgd":
        return estimator.learning_rate == "constant"
    return estimator.solver == "adam"


def train_perceptrons(models, X, codes, classes, subsets, device=None):
    """Fit `MLPClassifier`s of equal parameters, all on as many rows, as one model.

    Random numbers are drawn model by model in scikit-learn's order: initial weights, the
    split for early stopping, one permutation per epoch.

    Parameters
    ----------
    models : list of MLPClassifier
        Unfitted, with a seed each; they are fitted in place.
    X : {ndarray, DataFrame} of shape (n_samples, n_features)
        All rows, in float32 or float64: the precision of the training.
    codes : ndarray of int, shape (n_samples,)
        Labels as positions in `classes`.
    classes : ndarray of shape (n_classes,)
        The labels.
    subsets : ndarray of int, shape (n_models, n_rows)
        The rows of each model.
    device : torch.device, optional
        Where to train.
    """
    skeleton = _skeleton(models[0], X, codes, classes)
    batch = _Perceptrons(models, X, codes, classes, subsets, device)
    batch.train()
    for model, state in zip(models, batch.finished, strict=True):
        parameters = model.get_params()
        model.__dict__.update(copy.deepcopy(skeleton.__dict__))
        model.set_params(**parameters)
        model.__dict__.update(state)
        if not model.early_stopping:
            model.validation_scores_ = model.best_validation_score_ = None


def _skeleton(model, X, codes, classes):
    """Fit a model to one row per class, for the attributes that are not learned here."""
    rows = np.unique(codes, return_index=True)[1]
    if len(rows) < len(classes) or len(classes) < 2:
        raise ValueError(f"y must have two or more classes; it has {len(rows)}.")
    skeleton = copy.deepcopy(model)
    skeleton.set_params(
        max_iter=1,
        early_stopping=False,
        batch_size=len(rows),
        solver="adam",
        verbose=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skeleton.fit(_safe_indexing(X, rows), classes[codes[rows]])
    del skeleton._optimizer  # `partial_fit` makes its own, of the solver that is set
    return skeleton


class _Perceptrons:
    """The state of models in training; those that stop leave the batch."""

    def __init__(self, models, X, codes, classes, subsets, device):
        self.recipe = recipe = models[0]
        floats = [np.float64, np.float32]
        X = check_array(X, dtype=floats, estimator=recipe, input_name="X")
        X = np.require(X, requirements="CW")  # workers get memory that is read-only
        self.X = torch.as_tensor(X, device=device)
        self.codes = torch.as_tensor(codes, device=device)
        self.binary = len(classes) == 2
        self.rngs = [check_random_state(model.random_state) for model in models]
        hidden = recipe.hidden_layer_sizes
        hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
        units = [self.X.shape[1], *hidden, 1 if self.binary else len(classes)]
        self.shapes = list(zip(units[:-1], units[1:], strict=True))
        self.solver = Solver(recipe, *self._initialise())
        self._attach()
        self.rows, self.held_out = self._hold_out(codes, subsets)
        self.alive = list(range(len(models)))
        self.finished = [None] * len(models)
        self.curves = [[] for _ in models]
        self.scores = [[] for _ in models]
        self.best = [-np.inf if recipe.early_stopping else np.inf for _ in models]
        self.stale = [0] * len(models)
        if recipe.early_stopping:
            self.best_parameters = [p.clone() for p in self.parameters]

    def train(self):
        """Train until all models have stopped."""
        recipe, n_rows = self.recipe, self.rows[0].shape[0]
        wanted = 200 if recipe.batch_size == "auto" else recipe.batch_size
        size = min(wanted, n_rows)
        # Fresh memory for every batch would cost as much as a tenth of the training.
        self.batch = self.X.new_empty(len(self.alive) * size, self.X.shape[1])
        for epoch in range(recipe.max_iter):
            if recipe.shuffle:
                for i in self.alive:  # sklearn.utils.shuffle, without its overhead
                    order = np.arange(n_rows)
                    self.rngs[i].shuffle(order)
                    self.rows[i] = self.rows[i][order]
            order = np.stack([self.rows[i] for i in self.alive])
            order = torch.as_tensor(order, device=self.X.device)
            losses = torch.zeros(len(order), device=self.X.device, dtype=self.X.dtype)
            for at in gen_batches(n_rows, size):
                losses += self._step(order[:, at]) * (at.stop - at.start)
            self._end_epoch((losses / n_rows).tolist(), epoch + 1)
            if not self.alive:
                return

    def _initialise(self):
        """Draw the initial weights and biases of each layer, model by model."""
        factor = 2.0 if self.recipe.activation == "logistic" else 6.0
        weights, biases = [[] for _ in self.shapes], [[] for _ in self.shapes]
        for rng in self.rngs:
            for i, (fan_in, fan_out) in enumerate(self.shapes):
                bound = np.sqrt(factor / (fan_in + fan_out))
                weights[i].append(rng.uniform(-bound, bound, (fan_in, fan_out)))
                biases[i].append(rng.uniform(-bound, bound, (1, fan_out)))
        here = {"dtype": self.X.dtype, "device": self.X.device}
        return tuple(
            Layers([torch.as_tensor(np.stack(drawn), **here) for drawn in layers])
            for layers in (weights, biases)
        )

    def _attach(self):
        """Name what the solver holds, of the models that are in training."""
        self.weights, self.biases = self.solver.values
        self.parameters = [*self.weights, *self.biases]

    def _hold_out(self, codes, subsets):
        """Set rows aside for early stopping, as scikit-learn splits them."""
        if not self.recipe.early_stopping:
            return list(subsets), None
        rows, held_out = [], []
        for rng, subset in zip(self.rngs, subsets, strict=True):
            kept, aside = train_test_split(
                subset,
                random_state=rng,
                test_size=self.recipe.validation_fraction,
                stratify=codes[subset] if self.binary else None,
            )
            rows.append(kept)
            held_out.append(aside)
        if len(held_out[0]) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the "
                "number of rows."
            )
        return rows, held_out

    @torch.no_grad()
    def _step(self, rows):
        """Take one step with a batch (n_models, n_rows) of rows; return the losses."""
        n_models, n = rows.shape
        x = self.batch[: n_models * n]
        torch.index_select(self.X, 0, rows.reshape(-1), out=x)
        x, codes = x.view(n_models, n, -1), self.codes[rows]
        values = self._forward(x)
        logits = values.pop()
        if self.binary:
            truth = codes.to(logits.dtype).unsqueeze(2)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, truth, reduction="none"
            ).mean((1, 2))
            delta = torch.sigmoid(logits).sub_(truth)
        else:
            log_proba = torch.log_softmax(logits, dim=2)
            truth = codes.unsqueeze(2)
            loss = -log_proba.gather(2, truth).mean((1, 2))
            delta = log_proba.exp_()
            delta.scatter_add_(2, truth, -torch.ones_like(truth, dtype=delta.dtype))
        delta /= n
        decay = self.recipe.alpha / n
        gradients, bias_gradients = self.solver.gradients
        for i in range(len(self.weights) - 1, -1, -1):
            weight = self.weights[i]
            if decay:
                norms = torch.linalg.vector_norm(weight.flatten(1), dim=1)
                loss += 0.5 * decay * norms.square_()
            torch.bmm(values[i].transpose(1, 2), delta, out=gradients[i])
            torch.sum(delta, 1, keepdim=True, out=bias_gradients[i])
            if i:
                delta = torch.bmm(delta, weight.transpose(1, 2))
                delta = _DERIVATIVES[self.recipe.activation](values[i], delta)
        self.solver.step(decay)
        return loss

    def _forward(self, x):
        """Return the input of every layer, and the logits."""
        values, activation = [x], _ACTIVATIONS[self.recipe.activation]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            values.append(activation(x) if i < len(self.weights) - 1 else x)
        return values

    def _end_epoch(self, losses, n_iter):
        """Note the losses, and let the models that have stopped leave the batch."""
        recipe = self.recipe
        scores = self._validate() if recipe.early_stopping else None
        stopped = []
        for j, i in enumerate(self.alive):
            self.curves[i].append(losses[j])
            if scores is None:
                stale = losses[j] > self.best[i] - recipe.tol
                self.best[i] = min(self.best[i], losses[j])
            else:
                self.scores[i].append(scores[j])
                stale = scores[j] < self.best[i] + recipe.tol
                if scores[j] > self.best[i]:
                    self.best[i] = scores[j]
                    for best, now in zip(
                        self.best_parameters, self.parameters, strict=True
                    ):
                        best[j] = now[j]
            self.stale[i] = self.stale[i] + 1 if stale else 0
            if self.stale[i] > recipe.n_iter_no_change or n_iter == recipe.max_iter:
                stopped.append(j)
        if stopped:
            self._let_go(stopped, n_iter)

    def _validate(self):
        """Accuracy of each model on the rows that it has set aside."""
        rows = np.stack([self.held_out[i] for i in self.alive])
        rows = torch.as_tensor(rows, device=self.X.device)
        with torch.no_grad():
            x = self.X.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)
            logits = self._forward(x)[-1]
        guess = (logits[:, :, 0] > 0) if self.binary else logits.argmax(2)
        return (guess == self.codes[rows]).double().mean(1).tolist()

    def _let_go(self, stopped, n_iter):
        early = self.recipe.early_stopping
        parameters = self.best_parameters if early else self.parameters
        n_layers = len(self.shapes)
        for j in stopped:
            i = self.alive[j]
            arrays = [p[j].cpu().numpy().copy() for p in parameters]
            state = {
                "coefs_": arrays[:n_layers],
                "intercepts_": [array[0] for array in arrays[n_layers:]],
                "n_iter_": n_iter,
                "t_": n_iter * len(self.rows[i]),
                "loss_curve_": self.curves[i],
                "loss_": self.curves[i][-1],
            }
            if early:
                state["validation_scores_"] = self.scores[i]
                state["best_validation_score_"] = self.best[i]
                state["best_loss_"] = None
            else:
                state["best_loss_"] = self.best[i]
            self.finished[i] = state
        keep = [j for j in range(len(self.alive)) if j not in set(stopped)]
        self.alive = [self.alive[j] for j in keep]
        if self.alive:
            self._select(torch.as_tensor(keep, device=self.X.device))

    def _select(self, keep):
        """Keep some models only, with the state of the solver."""
        self.solver.select(keep)
        self._attach()
        if self.recipe.early_stopping:
            self.best_parameters = [p[keep] for p in self.best_parameters]
