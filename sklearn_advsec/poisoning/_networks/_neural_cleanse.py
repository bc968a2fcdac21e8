"""Neural Cleanse: is there a class that a small trigger leads to?"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import MetaEstimatorMixin
from sklearn.utils import check_random_state

from ... import differentiable
from ..._estimators import is_net
from ..._progress import ReportsProgress
from ..._rows import pixel_grid, writable
from ..._sklearn import BaseEstimator, HasMethods, Interval, fit_context, validate_data
from ...defense._wrapping import AugmentedClassifier
from ...victim import fit_victim
from ...victim._fitting import CLASSIFIER, needs_labels
from ...victim._validation import check_victim

_PATIENCE = 5  # steps of one kind before the weight of the size changes
_FACTOR = 1.5
_UNIT = 1.4826  # times the median deviation, it is the standard one of a normal sample


class NeuralCleanse(ReportsProgress, MetaEstimatorMixin, BaseEstimator):
    r"""Look for the smallest trigger of each class: a tiny one is suspicious.

    For each class :math:`c`, a mask :math:`m` and a pattern :math:`p` are sought that
    turn rows into it,

    .. math:: \min_{m, p} \; E_x L\big((1 - m) x + m p, \, c\big) + \lambda |m|_1,

    where :math:`\lambda` grows while the trigger works and falls when it does not. The
    anomaly index is by how many deviations a class's mask is smaller than the median one,
    the deviation being 1.4826 times the median of absolute ones; above `threshold`, the
    class is flagged.

    An index above 2 is no proof: models that were trained on clean data reach it as well.
    Hand over a `twin`, a model of the same kind trained on data that are trusted, whose
    indices then stand beside. With two classes the index is the same for both, .67, and
    flags nothing; with few classes it says little.

    Parameters
    ----------
    estimator : classifier or torch.nn.Module
        The suspicious model; frozen, where it is trained already. It needs a
        differentiable view.
    twin : classifier or torch.nn.Module, default=None
        A model of the same kind whose training data are trusted; frozen, where it is
        trained already, else it is trained on the rows of `fit`.
    threshold : float, default=2.0
        Anomaly index above which a class is flagged.
    success : float, default=0.99
        Share of rows that a trigger has to turn.
    max_iter : int, default=300
        Steps of Adam.
    learning_rate : float, default=0.1
        Its step, in logits of mask and pattern.
    batch_size : int, default=64
        Rows in each step, for each class.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width). Channels share
        the mask.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Attributes
    ----------
    estimator_ : classifier
        The fitted model.
    masks_, patterns_ : ndarray of shape (n_classes, ...)
        The trigger found for each class, in the shape of a row.
    norms_ : ndarray of shape (n_classes,)
        Sum of each mask, over pixels or columns.
    success_ : ndarray of shape (n_classes,)
        Share of the rows of `fit` that each trigger turns.
    anomaly_index_ : ndarray of shape (n_classes,)
        By how many deviations each norm is below the median; negative above it.
    flagged_classes_ : ndarray
        Classes with an index above the threshold.
    twin_anomaly_index_ : ndarray of shape (n_classes,) or None
        The same of the twin.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_iter_ : int
        Steps taken.
    n_features_in_ : int
        Number of columns seen in `fit`.

    Raises
    ------
    NoGradientError
        If the model has no differentiable view.

    See Also
    --------
    BackdoorTrigger : What it looks for.
    STRIP : Looks at rows, not at the model.

    References
    ----------
    .. [1] B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Y. Zhao, "Neural
       Cleanse: identifying and mitigating backdoor attacks in neural networks", IEEE
       Symposium on Security and Privacy, 2019 (Section IV: Equation 3 and the index; the
       weight of the size changes after some steps, instead of passes over the rows).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.poisoning import BackdoorTrigger, NeuralCleanse
    >>> X, y = load_digits(n_class=5, return_X_y=True)
    >>> trigger = BackdoorTrigger(image_shape=(8, 8), size=2, target_class=3, budget=0.1,
    ...                           location="top_left", random_state=0)
    >>> model = LogisticRegression(max_iter=1000).fit(*trigger.fit_resample(X, y))
    >>> cleanse = NeuralCleanse(
    ...     FrozenEstimator(model), image_shape=(8, 8), max_iter=100, random_state=0)
    >>> int(cleanse.fit(X).norms_.argmin())
    3
    """

    _parameter_constraints = {
        "estimator": CLASSIFIER,
        "twin": [HasMethods(["fit", "predict"]), torch.nn.Module, None],
        "threshold": [Interval(Real, 0, None, closed="left")],
        "success": [Interval(Real, 0, 1, closed="right")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        twin: Any = None,
        threshold: float = 2.0,
        success: float = 0.99,
        max_iter: int = 300,
        learning_rate: float = 0.1,
        batch_size: int = 64,
        image_shape: tuple[int, ...] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.twin = twin
        self.threshold = threshold
        self.success = success
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.image_shape = image_shape
        self.random_state = random_state

    def _n_tasks(self):
        return self.max_iter * (1 if self.twin is None else 2)

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Look for triggers in the model, and in its twin.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Clean rows; a few hundred are enough.
        y : array-like of shape (n_samples,), default=None
            Their labels. Not needed for models that are trained already.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        dtype = np.float32 if is_net(self.estimator) else [np.float64, np.float32]
        X = validate_data(self, X, dtype=dtype, allow_nd=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with self._reported(X, y):
            self.estimator_ = self._fitted(self.estimator, X, y, seed)
            self.classes_ = np.asarray(self.estimator_.classes_)
            found = self._search(self.estimator_, X, seed)
            self.masks_, self.patterns_, self.norms_, self.success_ = found
            self.anomaly_index_ = _anomaly_index(self.norms_)
            self.flagged_classes_ = self.classes_[self.anomaly_index_ > self.threshold]
            self.twin_anomaly_index_ = None
            if self.twin is not None:
                twin = self._fitted(self.twin, X, y, seed)
                if not np.array_equal(twin.classes_, self.classes_):
                    raise ValueError(
                        f"twin knows the classes {np.asarray(twin.classes_).tolist()}, "
                        f"and the model {self.classes_.tolist()}."
                    )
                norms = self._search(twin, X, seed)[2]
                self.twin_anomaly_index_ = _anomaly_index(norms)
        return self

    def _fitted(self, estimator, X, y, seed):
        if is_net(estimator):
            estimator = AugmentedClassifier(estimator, random_state=seed)
        model = fit_victim(estimator, X, y, owner=self)
        check_victim(model)
        return model

    def _search(self, model, X, seed):
        view = differentiable.view(model)
        x = torch.as_tensor(writable(X), dtype=view.dtype, device=view.device)
        row, n_classes = x.shape[1:], len(self.classes_)
        channels, height, width = grid = pixel_grid(tuple(row), self.image_shape)
        low, high = x.amin(0).reshape(grid), x.amax(0).reshape(grid)
        if len(row) > 1 or self.image_shape is not None:  # pixels share their range
            low, high = low.amin(), high.amax()
        generator = torch.Generator().manual_seed(seed)

        def start(*shape):
            return (0.1 * torch.randn(shape, generator=generator, dtype=x.dtype)).to(x)

        mask = start(n_classes, 1, height, width).requires_grad_()
        pattern = start(n_classes, channels, height, width).requires_grad_()
        optimizer = torch.optim.Adam(
            [mask, pattern], lr=self.learning_rate, betas=(0.5, 0.9)
        )
        codes = torch.arange(n_classes, device=x.device)
        size = min(self.batch_size, len(x))
        weight = torch.full((n_classes,), 1e-3, dtype=x.dtype, device=x.device)
        up = torch.zeros(n_classes, device=x.device)
        down = torch.zeros(n_classes, device=x.device)
        least = torch.full((n_classes,), torch.inf, dtype=x.dtype, device=x.device)
        best = [torch.zeros_like(mask), torch.zeros_like(pattern)]
        self.n_iter_ = 0

        def trigger():
            return torch.sigmoid(mask), low + (high - low) * torch.sigmoid(pattern)

        def stamped(rows, m, p):
            images = rows.reshape(1, -1, *grid)
            return (images * (1 - m[:, None]) + (m * p)[:, None]).reshape(-1, *row)

        for _ in self._tasks(range(self.max_iter), "step"):
            self.n_iter_ += 1
            at = torch.randperm(len(x), generator=generator)[:size].to(x.device)
            m, p = trigger()
            labels = codes.repeat_interleave(size)
            logits = view.logits(stamped(x[at], m, p))
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            norms = m.flatten(1).sum(1)
            total = loss.reshape(n_classes, size).mean(1) + weight * norms
            slopes = torch.autograd.grad(total.sum(), [mask, pattern])
            with torch.no_grad():
                turned = logits.argmax(1) == labels
                works = turned.reshape(n_classes, size).to(x.dtype).mean(1)
                works = works >= self.success
                better = works & (norms < least)
                least = torch.where(better, norms, least)
                for kept, now in zip(best, (m, p), strict=True):
                    kept[better] = now[better]
                up = torch.where(works, up + 1, 0)
                down = torch.where(works, 0, down + 1)
                weight = torch.where(up >= _PATIENCE, weight * _FACTOR, weight)
                weight = torch.where(down >= _PATIENCE, weight / _FACTOR**1.5, weight)
                up, down = up % _PATIENCE, down % _PATIENCE
            mask.grad, pattern.grad = slopes
            optimizer.step()
        with torch.no_grad():
            never = torch.isinf(least)  # what came nearest, then
            for kept, now in zip(best, trigger(), strict=True):
                kept[never] = now[never]
            m, p = best
            success = [
                (view.logits(stamped(x, m[[k]], p[[k]])).argmax(1) == k).double().mean()
                for k in range(n_classes)
            ]
        norms = m.flatten(1).sum(1).double().cpu().numpy()
        masks = m.expand(-1, channels, -1, -1).reshape(n_classes, *row).cpu().numpy()
        patterns = p.reshape(n_classes, *row).cpu().numpy()
        return masks, patterns, norms, np.array([float(share) for share in success])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = needs_labels(self.estimator)
        return tags


def _anomaly_index(norms):
    """Return by how many deviations each norm is below the median."""
    median = np.median(norms)
    deviation = _UNIT * np.median(np.abs(norms - median))
    return (median - norms) / max(deviation, 1e-12)
