"""Small networks, at module level so that they pickle."""

import torch
from skorch import NeuralNetClassifier
from torch import nn


class MLP(nn.Module):
    def __init__(self, n_features=20, n_classes=2, hidden=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_classes)
        )

    def forward(self, x):
        return self.layers(x)


class CNN(nn.Module):
    """For images of 8 x 8 pixels; dropout and batch normalisation have two modes."""

    def __init__(self, n_classes=10, channels=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(16 * channels, n_classes),
        )

    def forward(self, x):
        return self.layers(x)


def net(module=MLP, max_epochs=10, **parameters):
    """Make an unfitted skorch net."""
    parameters = {"lr": 0.01, "batch_size": 64, **parameters}
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        max_epochs=max_epochs,
        train_split=None,
        verbose=0,
        **parameters,
    )
