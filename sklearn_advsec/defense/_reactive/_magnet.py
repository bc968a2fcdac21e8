"""MagNet (Meng and Chen 2017)."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional as F

from ... import differentiable
from ..._rows import image_shape_of
from ..._seeding import seeded_torch
from ..._sklearn import Interval, StrOptions
from .._base import _estimator_has
from .._wrapping import DetectingDefense, log_probabilities
from ._preprocessing import finite_range


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


def autoencoders_for(row_shape):
    """Return the two autoencoders for rows, or for images of (channels, h, w)."""
    if len(row_shape) == 3:
        return PooledAutoencoder(row_shape[0]), FlatAutoencoder(row_shape[0])
    n_features = row_shape[0]
    return TabularAutoencoder(n_features, 2 / 3), TabularAutoencoder(n_features, 1)


def train_autoencoder(module, x, *, noise, epochs, batch_size, learning_rate, generator):
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
    learning_rate : float
        Adam's learning rate.
    generator : torch.Generator
        Source of order and noise.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
    for _ in epochs:
        for at in torch.randperm(len(x), generator=generator).split(batch_size):
            clean = x[at]
            noisy = clean + noise * torch.randn(clean.shape, generator=generator)
            loss = F.mse_loss(module(noisy.clamp(0, 1)), clean)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval().requires_grad_(False)


# How many rows go through an autoencoder at once.
_AT_ONCE = 1024


class MagNet(DetectingDefense):
    r"""MagNet: detect what is far from the data, and move the rest towards it.

    Two autoencoders learn the clean rows, whatever the classifier and the attack. Rows
    with a large reconstruction error, or on whose reconstruction the classifier says
    something else, are detected; the others are *reformed*: the classifier sees their
    reconstruction.

    It handles most rows of attacks that do not know it. An attack on classifier and
    reformer together, which is what gradient attacks on this object are, goes around the
    reformer, and with a term for the reconstruction error around the detectors too [2]_.

    Measured on MNIST around a CNN, the autoencoders trained for 20 epochs: 0.99 or more
    of the rows of Carlini and Wagner's L2 attack on the CNN alone are handled, at margins
    from 0 to 40 logits (autoencoders that were trained for less miss many at 10), and
    0.04 of an attack within Linf 0.3 whose loss knows classifier, reformer and detectors;
    on digits at Linf 0.1, 0.890 and 0.490 (``benchmarks/results/defense.md``).

    Parameters
    ----------
    estimator : classifier
        Any classifier of numeric rows; one that is fitted already comes as
        ``FrozenEstimator(estimator)``.
    detectors : tuple of {"l2", "l1", "jsd"} or "auto", default="auto"
        "l2" is the squared reconstruction error of the first autoencoder and "l1" the
        absolute one of the second, both as means over the features; "jsd" is the
        Jensen-Shannon divergence of the classifier's probabilities on the row and on its
        reconstruction, at each of `temperatures`. "auto" takes all that the classifier
        allows.
    temperatures : tuple of float, default=(10, 40)
        Of "jsd": logits are divided by them.
    fpr : float, default=0.01
        Share of clean rows that may be detected, divided equally among the detectors.
    per_class : bool, default=False
        Whether each predicted class has thresholds of its own, so that the share holds in
        each. With those for all, most of the alarms may fall on a rare class.
    reform : bool, default=True
        Whether the classifier sees reconstructions.
    validation_fraction : float, default=0.2
        Share of the rows on which thresholds are set, and no autoencoder is trained.
    noise : float, default=0.1
        Standard deviation of the noise that autoencoders learn to take off, as a share of
        the features' range.
    max_epochs : int, default=30
        Epochs of the autoencoders' training.
    batch_size : int, default=256
        Rows per step of it; of fewer rows than ten times as many, a tenth.
    learning_rate : float, default=0.003
        Adam's learning rate.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width). Images have the
        paper's two autoencoders, other rows two narrow perceptrons.
    bounds : "data" or tuple (lower, upper), default="data"
        The range of the features.
    abstain_label : object, default=None
        What `predict` returns for detected rows. None predicts as if there were no alarm.
    random_state : int, RandomState instance or None, default=0
        Seed of the autoencoders, and of the training of a net.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    autoencoders_ : tuple of torch.nn.Module
        The two autoencoders, of rows in [0, 1]. The first one reforms.
    thresholds_ : dict of str to float, or to ndarray of shape (n_classes,)
        For each detector; for each class where `per_class` is set.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    AdversarialDetector : Other detectors.
    FeatureSqueezing : Needs no training.

    References
    ----------
    .. [1] D. Meng and H. Chen, "MagNet: a two-pronged defense against adversarial
       examples", arXiv:1705.09064 (Sections 4.2 and 4.3; the networks of Table 3).
    .. [2] N. Carlini and D. Wagner, "MagNet and 'Efficient defenses against adversarial
       attacks' are not robust to adversarial examples", arXiv:1711.08478.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.defense import MagNet
    >>> X, y = load_digits(return_X_y=True)
    >>> magnet = MagNet(
    ...     LogisticRegression(max_iter=1000), max_epochs=10, learning_rate=0.01)
    >>> magnet = magnet.fit(X[:1000], y[:1000])
    >>> bool(magnet.detect(X[1000:]).mean() < 0.1)
    True
    >>> bool(magnet.detect(16 - X[1000:]).mean() > 0.9)
    True
    """

    _parameter_constraints = {
        **DetectingDefense._parameter_constraints,
        "detectors": [StrOptions({"auto"}), tuple, list],
        "temperatures": [tuple, list],
        "fpr": [Interval(Real, 0, 1, closed="left")],
        "reform": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "image_shape": [tuple, list, None],
        "bounds": [StrOptions({"data"}), tuple, list],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        detectors: tuple[Literal["l2", "l1", "jsd"], ...] | Literal["auto"] = "auto",
        temperatures: tuple[float, ...] = (10, 40),
        fpr: float = 0.01,
        per_class: bool = False,
        reform: bool = True,
        validation_fraction: float = 0.2,
        noise: float = 0.1,
        max_epochs: int = 30,
        batch_size: int = 256,
        learning_rate: float = 0.003,
        image_shape: tuple[int, ...] | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] = "data",
        abstain_label: Any = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.detectors = detectors
        self.temperatures = temperatures
        self.fpr = fpr
        self.per_class = per_class
        self.reform = reform
        self.validation_fraction = validation_fraction
        self.noise = noise
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.image_shape = image_shape
        self.bounds = bounds
        self.abstain_label = abstain_label
        self.random_state = random_state

    def _fit_defense(self, X, seed):
        self.detectors_ = self._choose_detectors()
        shape = image_shape_of(X.shape[1:], self.image_shape)
        self.shape_ = X.shape[1:] if shape is None else shape
        if not all(isinstance(t, Real) and 0 < t < np.inf for t in self.temperatures):
            raise ValueError(
                f"temperatures must be positive and finite; got {self.temperatures!r}."
            )
        lower, upper = finite_range(self.bounds, X)
        if shape is not None:
            lower, upper = np.min(lower), np.max(upper)
        self.lower_ = np.asarray(lower, dtype=np.float64)
        self.width_ = np.where(upper > lower, upper - lower, 1.0)
        order = np.random.RandomState(seed).permutation(len(X))
        n_held = max(1, round(self.validation_fraction * len(X)))
        held, used = order[:n_held], order[n_held:] if len(X) > 1 else order
        with seeded_torch(seed):
            generator = torch.Generator().manual_seed(seed)
            x = self._scaled(_tensor(X[used]))
            self.autoencoders_ = tuple(
                train_autoencoder(
                    module,
                    x,
                    noise=self.noise,
                    epochs=self._tasks(range(self.max_epochs), "epoch"),
                    batch_size=min(int(self.batch_size), -(-len(x) // 10)),
                    learning_rate=self.learning_rate,
                    generator=generator,
                )
                for module in autoencoders_for(self.shape_)
            )
        scores = self._scores(X[held])
        level = 1 - self.fpr / max(1, len(scores))
        self.thresholds_ = {
            name: self._threshold(values, X[held], level)
            for name, values in scores.items()
        }

    def _n_tasks(self):
        return super()._n_tasks() + 2 * self.max_epochs  # of two autoencoders

    def _choose_detectors(self):
        answering = any(
            hasattr(self.estimator_, name)
            for name in ("predict_proba", "decision_function")
        )
        if isinstance(self.detectors, str):
            return ("l2", "l1", "jsd") if answering else ("l2", "l1")
        unknown = [name for name in self.detectors if name not in ("l2", "l1", "jsd")]
        if unknown:
            raise ValueError(f"detectors knows 'l2', 'l1' and 'jsd'; got {unknown}.")
        return tuple(self.detectors)

    def reconstruct(self, X: ArrayLike) -> np.ndarray:
        """Reform rows: their reconstruction by the first autoencoder.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        X_out : ndarray of shape (n_samples, ...)
            What the classifier sees.
        """
        check_is_fitted(self)
        return self._reform(self._check_X(X, reset=False))

    def detection_scores(self, X: ArrayLike) -> dict[str, np.ndarray]:
        """Compute what each detector says of rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        scores : dict of str to ndarray of shape (n_samples,)
            Larger for suspicious rows.
        """
        check_is_fitted(self)
        return self._scores(self._check_X(X, reset=False))

    def detect(self, X: ArrayLike) -> np.ndarray:
        """Tell which rows look adversarial.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        detected : ndarray of bool, shape (n_samples,)
            Whether any score is above its threshold.
        """
        check_is_fitted(self)
        array = self._check_X(X, reset=False)
        alarms = [
            self._exceeds(values, array, self.thresholds_[name])
            for name, values in self._scores(array).items()
        ]
        return np.any(alarms, axis=0) if alarms else np.zeros(len(array), dtype=bool)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict probabilities of the reformed rows, whatever is detected.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            The classifier's probabilities.
        """
        check_is_fitted(self)
        return self._ask("predict_proba", self._seen(self._check_X(X, reset=False)))

    def _predict(self, array):
        return self._ask("predict", self._seen(array))

    def _seen(self, array):
        return self._reform(array) if self.reform else array

    def _reform(self, array):
        with torch.no_grad():
            parts = _tensor(array).split(_AT_ONCE)
            return torch.cat([self._reformed(part) for part in parts]).numpy()

    def _reformed(self, x):
        """Reform a tensor of rows, with a gradient."""
        scaled = self.autoencoders_[0](self._scaled(x)).reshape(x.shape).to(x.device)
        lower, width = self._range(x, scaled.dtype)
        return (scaled * width + lower).to(x.dtype)

    def _scaled(self, x):
        """Give rows the autoencoders' range, shape, precision and device."""
        lower, width = self._range(x, torch.float64)
        scaled = ((x.double() - lower) / width).float().cpu()
        return scaled.reshape(-1, *self.shape_)

    def _range(self, x, dtype):
        return (
            torch.as_tensor(v, dtype=dtype, device=x.device)
            for v in (self.lower_, self.width_)
        )

    def _scores(self, array):
        found = {}
        x = _tensor(array)
        for name, module, power in zip(
            ("l2", "l1"), self.autoencoders_, (2, 1), strict=True
        ):
            if name in self.detectors_:
                with torch.no_grad():
                    parts = [self._scaled(part) for part in x.split(_AT_ONCE)]
                    errors = [
                        (module(part) - part).flatten(1).abs().pow(power).mean(1)
                        for part in parts
                    ]
                found[name] = torch.cat(errors).double().numpy()
        if "jsd" in self.detectors_:
            plain, reformed = (
                log_probabilities(self, rows) for rows in (array, self._reform(array))
            )
            for temperature in self.temperatures:
                divergence = jensen_shannon(plain, reformed, temperature)
                found[f"jsd {temperature}"] = divergence.numpy()
        return found


def _tensor(array):
    """Share an array's memory with a tensor, or copy one that is read-only."""
    return torch.as_tensor(np.require(array, requirements="W"))


@differentiable.register(MagNet)
def magnet(estimator):
    """View classifier and reformer together; alarms have no part in predictions."""
    inside = differentiable.view(estimator.estimator_)
    if not estimator.reform:
        return inside
    view = inside.compose(estimator._reformed)
    view.dtype, view.device = inside.dtype, inside.device
    return view


def jensen_shannon(log_p, log_q, temperature):
    """Return the Jensen-Shannon divergence of predictions at a temperature, per row."""
    log_p, log_q = (torch.log_softmax(a / temperature, 1) for a in (log_p, log_q))
    p, q = log_p.exp(), log_q.exp()
    log_m = torch.log((p + q) / 2)
    return ((p * (log_p - log_m)).sum(1) + (q * (log_q - log_m)).sum(1)) / 2
