"""The autoencoders of MagNet, and how they learn."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class PooledAutoencoder(nn.Module):
    """The paper's first one for images: it halves the picture and enlarges it again."""

    def __init__(self, channels, width=3):
        super().__init__()
        self.before = nn.Conv2d(channels, width, 3, padding=1)
        self.inside = nn.Conv2d(width, width, 3, padding=1)
        self.after = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x):
        """Reconstruct images."""
        h = torch.sigmoid(self.before(x))
        h = F.avg_pool2d(h, [min(2, size) for size in h.shape[2:]], ceil_mode=True)
        h = torch.sigmoid(self.after(torch.sigmoid(self.inside(h))))
        return torch.sigmoid(self.last(F.interpolate(h, size=x.shape[2:])))


class FlatAutoencoder(nn.Module):
    """The paper's second one: two convolutions at full size."""

    def __init__(self, channels, width=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.Sigmoid(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Sigmoid(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        """Reconstruct images."""
        return self.layers(x)


class TabularAutoencoder(nn.Module):
    """For rows that are no images: a share of the features' number between."""

    def __init__(self, n_features, share):
        super().__init__()
        hidden = math.ceil(share * n_features)
        self.layers = nn.Sequential(
            nn.Linear(n_features, 2 * n_features),
            nn.Tanh(),
            nn.Linear(2 * n_features, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 2 * n_features),
            nn.Tanh(),
            nn.Linear(2 * n_features, n_features),
        )

    def forward(self, x):
        """Reconstruct rows."""
        return self.layers(x)


def pair_for(row_shape):
    """Return the two autoencoders for rows, or for images of (channels, h, w)."""
    if len(row_shape) == 3:
        return PooledAutoencoder(row_shape[0]), FlatAutoencoder(row_shape[0])
    n_features = row_shape[0]
    return TabularAutoencoder(n_features, 2 / 3), TabularAutoencoder(n_features, 1)


def learn(module, x, *, noise, epochs, batch_size, lr, generator):
    """Train an autoencoder, in place, to take noise off rows in [0, 1].

    Parameters
    ----------
    module : torch.nn.Module
        The autoencoder.
    x : tensor of shape (n, ...)
        Clean rows.
    noise : float
        Standard deviation of the noise on its input.
    epochs : iterable
        An epoch for each element.
    batch_size : int
        Rows of a step.
    lr : float
        Adam's learning rate.
    generator : torch.Generator
        Source of order and noise.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    for _ in epochs:
        for at in torch.randperm(len(x), generator=generator).split(batch_size):
            clean = x[at]
            noisy = clean + noise * torch.randn(clean.shape, generator=generator)
            loss = F.mse_loss(module(noisy.clamp(0, 1)), clean)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval().requires_grad_(False)
