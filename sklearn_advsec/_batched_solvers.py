"""Adam and SGD for many models at once, each step one call for all weights."""

import math

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd


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
