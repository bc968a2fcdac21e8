"""Random, differentiable transformations of images: what a camera does to a picture."""

from __future__ import annotations

from functools import cache
from math import cos, pi, sqrt
from numbers import Real

import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from ..._sklearn import BaseEstimator, Interval, check_parameters

__all__ = [
    "Blur",
    "Brightness",
    "Contrast",
    "GaussianNoise",
    "JPEG",
    "Perspective",
    "PrintScan",
    "Rotation",
    "Scaling",
    "Shift",
]

# The luminance table of the JPEG standard (ITU-T T.81, Annex K).
_JPEG_TABLE = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
"""


_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")


class Draws:
    """Random numbers for images: one for each, or the same for all of them.

    Parameters
    ----------
    generator : torch.Generator or None
        Source of randomness.
    shared : bool
        Whether all images get the same numbers.
    """

    def __init__(self, generator, shared):
        self.generator = generator
        self.shared = shared

    def uniform(self, images, low, high, *shape):
        """Draw (n, *shape) numbers between `low` and `high`; (n, 1, 1, 1) by default."""
        draw = self._draw(torch.rand, images, shape or (1, 1, 1))
        return low + draw * (high - low)

    def normal(self, images):
        """Draw a standard normal number for every value of the images."""
        return self._draw(torch.randn, images, images.shape[1:])

    def _draw(self, kind, images, shape):
        n = 1 if self.shared else len(images)
        draw = kind((n, *shape), generator=self.generator, dtype=torch.float64)
        return draw.to(images).expand(len(images), *shape)


class ImageTransformation(BaseEstimator):
    """Base of the transformations: ``transformation(images, generator)``.

    Images are a tensor of shape (n, channels, height, width) with values in [0, 1]. The
    result has their shape and a gradient. A subclass writes `_transform(images, draws)`.
    """

    _parameter_constraints = {}

    # Whether it moves no pixel, so that it makes sense for rows that are no images.
    pixelwise = False

    def __call__(
        self,
        images: torch.Tensor,
        generator: torch.Generator | None = None,
        *,
        shared: bool = False,
    ) -> torch.Tensor:
        """Transform every image at random.

        Parameters
        ----------
        images : tensor of shape (n, channels, height, width)
            Values in [0, 1].
        generator : torch.Generator, optional
            Source of randomness.
        shared : bool, default=False
            Whether all images get the same random parameters.

        Returns
        -------
        transformed : tensor of the shape of `images`
        """
        parameters = self.get_params(deep=False)
        check_parameters(parameters, self._parameter_constraints, type(self).__name__)
        return self._transform(images, Draws(generator, shared))


def _affine(images, matrix):
    grid = affine_grid(matrix, images.shape, align_corners=False)
    return grid_sample(images, grid, padding_mode="zeros", align_corners=False)


class Rotation(ImageTransformation):
    """Rotate around the centre; what comes in from outside is 0.

    Parameters
    ----------
    degrees : float, default=20.0
        Angles are uniform in ``[-degrees, degrees]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Scaling : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Rotation
    >>> images = torch.zeros(1, 1, 9, 9)
    >>> images[:, :, 4] = 1  # a line through the centre
    >>> turned = Rotation(degrees=90.0)(images, torch.Generator().manual_seed(0))
    >>> turned.shape, bool(turned[0, 0, 4, 4] > 0.99)
    (torch.Size([1, 1, 9, 9]), True)
    """

    _parameter_constraints = {"degrees": [_NOT_NEGATIVE]}

    def __init__(self, degrees: float = 20.0) -> None:
        self.degrees = degrees

    def _transform(self, images, draws):
        angle = draws.uniform(images, -self.degrees, self.degrees, 1)
        angle = angle[:, 0] * pi / 180
        ratio = images.shape[2] / images.shape[3]
        c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        rows = [
            torch.stack(r, dim=1) for r in ((c, -s * ratio, zero), (s / ratio, c, zero))
        ]
        return _affine(images, torch.stack(rows, dim=1))


class Scaling(ImageTransformation):
    """Make the picture larger or smaller, around the centre.

    Parameters
    ----------
    low, high : float, default=0.8 and 1.2
        Factors are uniform in ``[low, high]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Shift : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Scaling
    >>> images = torch.zeros(1, 1, 9, 9)
    >>> images[:, :, 3:6, 3:6] = 1
    >>> bool(Scaling(low=1.5, high=2.0)(images).sum() > images.sum())
    True
    """

    _parameter_constraints = {
        "low": [Interval(Real, 0, None, closed="neither")],
        "high": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, low: float = 0.8, high: float = 1.2) -> None:
        self.low = low
        self.high = high

    def _transform(self, images, draws):
        factor = 1 / draws.uniform(images, self.low, self.high, 1)[:, 0]
        matrix = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
        matrix[:, 0, 0] = matrix[:, 1, 1] = factor
        return _affine(images, matrix)


class Shift(ImageTransformation):
    """Move the picture by parts of a pixel or more.

    Parameters
    ----------
    pixels : float, default=2.0
        Both shifts are uniform in ``[-pixels, pixels]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Rotation : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Shift
    >>> images = torch.zeros(1, 1, 9, 9)
    >>> images[:, :, 4, 4] = 1
    >>> moved = Shift(pixels=1.0)(images, torch.Generator().manual_seed(0))
    >>> round(float(moved.sum()), 3)  # the pixel is spread over its neighbours
    1.0
    """

    _parameter_constraints = {"pixels": [_NOT_NEGATIVE]}

    def __init__(self, pixels: float = 2.0) -> None:
        self.pixels = pixels

    def _transform(self, images, draws):
        n, _, height, width = images.shape
        shift = draws.uniform(images, -self.pixels, self.pixels, 2)
        matrix = torch.eye(2, 3, dtype=images.dtype, device=images.device).repeat(n, 1, 1)
        matrix[:, 0, 2] = 2 * shift[:, 0] / width
        matrix[:, 1, 2] = 2 * shift[:, 1] / height
        return _affine(images, matrix)


class Perspective(ImageTransformation):
    """Look at the picture from the side.

    Parameters
    ----------
    strength : float, default=0.2
        The tilts of the plane are uniform in ``[-strength, strength]``: by how much the
        picture's one edge is nearer than its centre.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Rotation : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Perspective
    >>> images = torch.rand(2, 3, 8, 8)
    >>> torch.allclose(Perspective(strength=0.0)(images), images, atol=1e-5)
    True
    >>> Perspective(strength=0.2)(images).shape
    torch.Size([2, 3, 8, 8])
    """

    _parameter_constraints = {"strength": [_NOT_NEGATIVE]}

    def __init__(self, strength: float = 0.2) -> None:
        self.strength = strength

    def _transform(self, images, draws):
        n = len(images)
        tilt = draws.uniform(images, -self.strength, self.strength, 1, 1, 2)
        matrix = torch.eye(2, 3, dtype=images.dtype, device=images.device).repeat(n, 1, 1)
        grid = affine_grid(matrix, images.shape, align_corners=False)
        depth = 1 + (grid * tilt).sum(3, keepdim=True)
        return grid_sample(images, grid / depth, align_corners=False)


class Brightness(ImageTransformation):
    """Add one value to all pixels; the result is cut off at 0 and 1.

    Parameters
    ----------
    amount : float, default=0.1
        Values are uniform in ``[-amount, amount]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Contrast : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Brightness
    >>> images = torch.full((2, 1, 4, 4), 0.5)
    >>> change = Brightness(amount=0.1)(images) - images
    >>> bool(change.abs().max() <= 0.1), bool((change[0] == change[0, 0, 0, 0]).all())
    (True, True)
    """

    pixelwise = True

    _parameter_constraints = {"amount": [_NOT_NEGATIVE]}

    def __init__(self, amount: float = 0.1) -> None:
        self.amount = amount

    def _transform(self, images, draws):
        added = draws.uniform(images, -self.amount, self.amount)
        return (images + added).clamp(0, 1)


class Contrast(ImageTransformation):
    """Stretch all pixels around the middle grey 0.5; cut off at 0 and 1.

    Parameters
    ----------
    amount : float, default=0.2
        Factors are uniform in ``[1 - amount, 1 + amount]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Brightness : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Contrast
    >>> images = torch.tensor([0.4, 0.5, 0.6]).reshape(1, 1, 1, 3)
    >>> low, middle, high = Contrast(amount=0.5)(images)[0, 0, 0].tolist()
    >>> middle, round(low + high, 4)  # both move away from the middle, or towards it
    (0.5, 1.0)
    """

    pixelwise = True

    _parameter_constraints = {"amount": [_NOT_NEGATIVE]}

    def __init__(self, amount: float = 0.2) -> None:
        self.amount = amount

    def _transform(self, images, draws):
        factor = draws.uniform(images, 1 - self.amount, 1 + self.amount)
        return ((images - 0.5) * factor + 0.5).clamp(0, 1)


class GaussianNoise(ImageTransformation):
    """Add independent normal noise to all pixels; cut off at 0 and 1.

    Parameters
    ----------
    sigma : float, default=0.05
        Standard deviations are uniform in ``[0, sigma]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Blur : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import GaussianNoise
    >>> images = torch.full((100, 1, 8, 8), 0.5)
    >>> noisy = GaussianNoise(sigma=0.1)(images, torch.Generator().manual_seed(0))
    >>> 0.03 < float((noisy - images).std()) < 0.1  # sigma is the largest deviation
    True
    """

    pixelwise = True

    _parameter_constraints = {"sigma": [_NOT_NEGATIVE]}

    def __init__(self, sigma: float = 0.05) -> None:
        self.sigma = sigma

    def _transform(self, images, draws):
        sigma = draws.uniform(images, 0, self.sigma)
        return (images + sigma * draws.normal(images)).clamp(0, 1)


class Blur(ImageTransformation):
    """Blur with a Gaussian.

    Parameters
    ----------
    sigma : float, default=1.0
        Standard deviations, in pixels, are uniform in ``[0, sigma]``.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Brightness : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import Blur
    >>> images = torch.zeros(1, 1, 9, 9)
    >>> images[:, :, 4, 4] = 1
    >>> blurred = Blur(sigma=1.0)(images, torch.Generator().manual_seed(0))
    >>> bool(blurred.max() < 1), round(float(blurred.sum()), 3)
    (True, 1.0)
    """

    _parameter_constraints = {"sigma": [_NOT_NEGATIVE]}

    def __init__(self, sigma: float = 1.0) -> None:
        self.sigma = sigma

    def _transform(self, images, draws):
        n, channels, height, width = images.shape
        reach = max(1, int(3 * self.sigma + 0.5))
        sigma = draws.uniform(images, 0, self.sigma, 1).clamp_min(1e-3)
        steps = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
        kernel = torch.exp(-(steps / sigma).square() / 2)
        kernel = kernel / kernel.sum(1, keepdim=True)
        kernel = kernel.repeat_interleave(channels, 0)
        planes = images.reshape(1, n * channels, height, width)
        planes = pad(planes, (reach,) * 4, mode="replicate")
        planes = conv2d(planes, kernel[:, None, :, None], groups=n * channels)
        planes = conv2d(planes, kernel[:, None, None, :], groups=n * channels)
        return planes.reshape(images.shape)


class JPEG(ImageTransformation):
    """Compress as JPEG does: quantise the cosine transform of blocks of 8 x 8 pixels.

    The forward pass rounds as JPEG does (each channel is treated as luminance, and
    colours are not subsampled); the backward pass takes rounding for the identity.

    Parameters
    ----------
    low, high : int, default=50 and 95
        Qualities are uniform in ``[low, high]``, of JPEG's 1 to 100.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    PrintScan : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import JPEG
    >>> images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> fine, coarse = (JPEG(q, q)(images) for q in (95, 10))
    >>> bool((fine - images).abs().mean() < (coarse - images).abs().mean())
    True
    """

    _parameter_constraints = {
        "low": [Interval(Real, 1, 100, closed="both")],
        "high": [Interval(Real, 1, 100, closed="both")],
    }

    def __init__(self, low: int = 50, high: int = 95) -> None:
        self.low = low
        self.high = high

    def _transform(self, images, draws):
        n, channels, height, width = images.shape
        quality = draws.uniform(images, self.low, self.high, 1, 1, 1, 1, 1)
        scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
        table, basis = (t.to(images) for t in _jpeg_tables())
        table = ((table[None, None, None, None] * scale + 50) / 100).floor().clamp(1, 255)
        down, across = -height % 8, -width % 8
        planes = pad(images, (0, across, 0, down), mode="replicate") * 255 - 128
        blocks = planes.unfold(2, 8, 8).unfold(3, 8, 8)
        waves = basis @ blocks @ basis.T / table
        waves = waves + (waves.round() - waves).detach()
        blocks = basis.T @ (waves * table) @ basis
        planes = blocks.transpose(3, 4).reshape(
            n, channels, height + down, width + across
        )
        return ((planes[:, :, :height, :width] + 128) / 255).clamp(0, 1)


class PrintScan(ImageTransformation):
    """Print and photograph: perspective, blur, tone, noise, compression, in this order.

    The tone curve is a random gain, offset and gamma, as of a printer's ink and a
    camera's exposure. It is a model, not a measured device.

    Parameters
    ----------
    strength : float, default=1.0
        Factor of all effects; 0 leaves images as they are up to compression.

    See Also
    --------
    ExpectationOverTransformation : Attacks that survive it.
    Perspective : Another transformation.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.evasion import PrintScan
    >>> images = torch.rand(2, 1, 16, 16)
    >>> seen = PrintScan()(images.requires_grad_(), torch.Generator().manual_seed(0))
    >>> seen.shape, bool(((seen >= 0) & (seen <= 1)).all()), seen.requires_grad
    (torch.Size([2, 1, 16, 16]), True, True)
    """

    _parameter_constraints = {"strength": [_NOT_NEGATIVE]}

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def _transform(self, images, draws):
        s = self.strength
        images = Perspective(0.1 * s)._transform(images, draws)
        images = Blur(0.7 * s)._transform(images, draws)
        gamma = torch.exp(draws.uniform(images, -0.3 * s, 0.3 * s))
        gain = draws.uniform(images, 1 - 0.2 * s, 1)
        offset = draws.uniform(images, 0, 0.1 * s)
        images = gain * images.clamp(1e-4, 1) ** gamma + offset
        images = GaussianNoise(0.03 * s)._transform(images.clamp(0, 1), draws)
        return JPEG(70, 95)._transform(images, draws)


@cache
def _jpeg_tables():
    """The quantisation table, and the orthonormal cosine basis of length 8."""
    table = torch.tensor([float(v) for v in _JPEG_TABLE.split()]).reshape(8, 8)
    rows = [
        [sqrt((1 if k == 0 else 2) / 8) * cos(pi * k * (i + 0.5) / 8) for i in range(8)]
        for k in range(8)
    ]
    return table, torch.tensor(rows, dtype=torch.float64)
