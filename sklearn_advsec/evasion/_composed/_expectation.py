"""Expectation over transformation (Athalye et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ... import differentiable
from ..._rows import RowCodec, image_shape_of
from ..._sklearn import Interval
from .._base import shared
from .._physical._transformations import (
    Brightness,
    Contrast,
    GaussianNoise,
    Rotation,
    Scaling,
)
from ._base import CraftedAttack, Surrogate

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class ExpectationOverTransformation(CraftedAttack):
    r"""Expectation over transformation (EOT): a gradient attack that survives a camera.

    It runs an attack on what the victim says on average of randomly transformed rows,

    .. math:: \frac{1}{m} \sum_{i \le m} \log p(\cdot \mid T_i(x + \delta)),
        \quad T_i \text{ random, new for every gradient,}

    and so climbs the expected loss. The victim then judges the rows as they are, which is
    what `success` says; :func:`destruction_rate` measures what is left of them after a
    transformation. Rows of one batch share them.

    The transformations are models: what survives them need not survive a real camera.
    At equal `eps` fewer rows are adversarial after a whole range of transformations than
    before any, and a gradient costs `n_samples` queries. An attack that takes all its
    steps survives a good deal by itself: on an MNIST network with ``eps=0.2``, 33 % of
    the rows of PGD with ``early_stopping=False`` survive each of 20 rotations and
    contrasts, against 79 % of these, and none of those that stopped at the boundary.

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; see :class:`EvasionAttack`.
    attack : evasion attack, default=None
        A prototype of a gradient attack, whose goal, norm and bounds hold; its
        `early_stopping` is set to False. None is :class:`ProjectedGradientDescent`.
    transformations : list of callable, default=None
        Applied one after another: ``t(images, generator, shared=True)`` of a tensor of
        images in [0, 1], such as :class:`Rotation`. None is rotation, scaling,
        brightness, contrast and noise for images, and only the last three for others.
    n_samples : int, default=10
        Number of transformations, :math:`m`.
    image_shape : tuple of int, default=None
        What a flat row is: (height, width) or (channels, height, width).
    bounds : "data", None or tuple (lower, upper), default=None
        The box that rows stay in; see :class:`EvasionAttack`. It is the range of pixels,
        too, and has to be finite; None takes that of `attack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    max_queries : int, default=None
        Largest number of queries of a row; see :class:`EvasionAttack`. A gradient counts
        `n_samples`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    random_state : int, RandomState instance or None, default=0
        Seed of all random draws; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    attack_ : evasion attack
        The attack on the transformed victim, fitted.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If rows are no images and a transformation moves pixels, if the box is not
        finite, if columns are not numeric, or if `max_queries` pays for no gradient.
    NoGradientError
        If the victim has no differentiable view.

    See Also
    --------
    destruction_rate : How many adversarial images a transformation undoes.
    AdversarialPatch : Is trained under transformations too.

    References
    ----------
    .. [1] A. Athalye, L. Engstrom, A. Ilyas, K. Kwok, "Synthesizing robust adversarial
       examples", arXiv:1707.07397 (Section 2.1).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.evasion import (ExpectationOverTransformation,
    ...                                     ProjectedGradientDescent)
    >>> X, y = load_digits(return_X_y=True)
    >>> attack = ExpectationOverTransformation(
    ...     LogisticRegression(max_iter=1000),
    ...     attack=ProjectedGradientDescent(eps=0.25, max_iter=10, bounds=(0, 1)),
    ...     image_shape=(8, 8))
    >>> attack = attack.fit(X[:1000] / 16, y[:1000])
    >>> bool(attack.run(X[1000:1050] / 16, y[1000:1050]).success.mean() > 0.5)
    True
    """

    knowledge = "gradient"
    _for_regressors = (
        "Attack it with ProjectedGradientDescent(early_stopping=False), and predict the "
        "rows after the transformations."
    )

    _parameter_constraints = {
        **CraftedAttack._parameter_constraints,
        **shared("image_shape", "bounds", "max_queries", "random_state"),
        "transformations": [list, tuple, callable, None],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        attack: Any = None,
        transformations: list[Callable[..., Any]] | None = None,
        n_samples: int = 10,
        image_shape: tuple[int, ...] | None = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = None,
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        max_queries: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.attack = attack
        self.transformations = transformations
        self.n_samples = n_samples
        self.image_shape = image_shape
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    confidence = property(lambda self: self._prototype.confidence)

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        if self._prototype.knowledge != "gradient":
            raise ValueError(
                f"attack must be a gradient attack; {type(self._prototype).__name__} has "
                f"knowledge {self._prototype.knowledge!r}."
            )
        # Besides gradients: the label of the clean row, and the last answer.
        if self.max_queries is not None and self.max_queries < 2 * self.n_samples + 2:
            raise ValueError(
                f"max_queries={self.max_queries} pays for no step: with n_samples="
                f"{self.n_samples} it takes at least {2 * self.n_samples + 2}."
            )
        self._prototype._check_parameters(row_shape)
        shape = image_shape_of(row_shape, self.image_shape)
        for transformation in self._transformations(shape):
            if not callable(transformation) or isinstance(transformation, type):
                raise TypeError(
                    "transformations must be callables, such as Rotation(20); got "
                    f"{transformation!r}."
                )
            if shape is None and not getattr(transformation, "pixelwise", True):
                raise ValueError(
                    f"transformations has {type(transformation).__name__}, which moves "
                    "pixels: give image_shape for rows that are flat."
                )

    def _transformations(self, shape):
        if self.transformations is None:
            pixelwise = [Brightness(), Contrast(), GaussianNoise()]
            return pixelwise if shape is None else [Rotation(), Scaling(), *pixelwise]
        if isinstance(self.transformations, (list, tuple)):
            return list(self.transformations)
        return [self.transformations]

    def _bounds(self):
        return self._prototype.bounds if self.bounds is None else self.bounds

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept) and learn the range of the data.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted and from which bounds are learned.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        if not (
            np.isfinite(self.box_.lower).all() and np.isfinite(self.box_.upper).all()
        ):
            raise ValueError(
                "bounds must be finite: transformations are of values between them."
            )
        X = self._check_X(X, reset=False)
        if RowCodec(X).mutable is not None:
            raise ValueError(
                "X has columns that are not numeric, which no transformation can take."
            )
        shape = image_shape_of(self.row_shape_, self.image_shape)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        seen = TransformedClassifier(
            self.estimator_,
            self._transformations(shape),
            self.n_samples,
            shape or (1, 1, self.row_shape_[0]),
            self.box_,
            int(seed),
        )
        self.attack_ = self._aim_at(seen).fit(X, y)
        return self

    def _attack(self, state):
        everything = torch.arange(len(state.x_adv), device=state.x_adv.device)
        budget = {}
        if self.max_queries is not None:
            self._check_parameters(self.row_shape_)  # it may have changed since `fit`
            budget["max_queries"] = (self.max_queries - 2) // self.n_samples
        self._run_inner(self.attack_, state, everything, **budget)

    @property
    def _n_calls(self):
        return self.n_samples


class TransformedClassifier(Surrogate):
    """What a fitted classifier says, on average, of randomly transformed rows.

    Parameters
    ----------
    estimator : classifier
        Fitted.
    transformations : list of callable
        Applied one after another.
    n_samples : int
        How many random transformations the average is over.
    image_shape : tuple of int
        (channels, height, width) of a row.
    box : Box
        The range of the rows; images in [0, 1] are scaled from it.
    seed : int
        Seed of the transformations.
    """

    def __init__(self, estimator, transformations, n_samples, image_shape, box, seed):
        self.estimator = estimator
        self.transformations = transformations
        self.n_samples = n_samples
        self.image_shape = image_shape
        self.box = box
        self.seed = seed

    @property
    def classes_(self):
        """The classes of the classifier."""
        return np.asarray(self.estimator.classes_)


@differentiable.register(TransformedClassifier)
def transformed_classifier(estimator):
    """View the mean of log-probabilities over random transformations."""
    view = differentiable.view(estimator.estimator)
    generator = torch.Generator().manual_seed(estimator.seed)
    lower, upper = estimator.box.lower, estimator.box.upper
    if estimator.image_shape[1] > 1:  # one range for all pixels
        lower, upper = np.min(lower), np.max(upper)

    def logits(x):
        low, width = (
            torch.as_tensor(v, dtype=x.dtype, device=x.device)
            for v in (lower, np.where(upper > lower, upper - lower, 1.0))
        )
        mean = 0
        for _ in range(estimator.n_samples):
            images = ((x - low) / width).reshape(-1, *estimator.image_shape)
            for transformation in estimator.transformations:
                images = transformation(images, generator, shared=True)
            seen = images.reshape(x.shape) * width + low
            mean = mean + torch.log_softmax(view.logits(seen), dim=1)
        return mean / estimator.n_samples

    return differentiable.ClassifierView(
        estimator.classes_, logits=logits, dtype=view.dtype, device=view.device
    )
