"""The random squares of the square attack, and what is drawn for them."""

from functools import cache
from math import sqrt

import numpy as np
import torch

from .._images import image_shape_of

# So many random numbers are drawn at a time: each call of the generator has its price.
_BLOCK = 1024


class Windows:
    """Random squares of an image, or random sets of the features of a flat row.

    All draws are shared by the rows.

    Parameters
    ----------
    row_shape : tuple of int
        Shape of a row.
    image_shape : tuple of int or None
        What a flat row is.
    generator : torch.Generator
        Source of randomness.

    Attributes
    ----------
    shape : tuple of int
        ``(-1, channels, height, width)``, the shape of the tensors that a window is an
        index of. A flat row that is no image has one channel, and one line.
    """

    def __init__(self, row_shape, image_shape, generator):
        self.generator = generator
        self.image = image_shape_of(row_shape, image_shape)
        self.shape = (-1, *(self.image or (1, 1, int(np.prod(row_shape)))))
        self.n_pixels = self.shape[2] * self.shape[3]
        self._numbers = []

    def draw(self, share, smallest=1):
        """Return the index of a window that covers about this share of a channel."""
        if self.image is None:
            k = min(max(smallest, round(share * self.n_pixels)), self.n_pixels)
            return ..., torch.randperm(self.n_pixels, generator=self.generator)[:k]
        _, height, width = self.image
        side = max(round(sqrt(share * self.n_pixels)), smallest)
        rows, columns = min(side, height), min(side, width)
        top, left = self._integer(height - rows + 1), self._integer(width - columns + 1)
        return ..., slice(top, top + rows), slice(left, left + columns)

    def draw_pair(self, share):
        """Return two windows for the L2 attack; their side is odd and at least 3."""
        if self.image is None:
            return self.draw(share), self.draw(share)
        side = max(round(sqrt(share * self.n_pixels)), 3)
        share = (side + 1 - side % 2) ** 2 / self.n_pixels
        return self.draw(share, 3), self.draw(share, 3)

    def coins(self, window):
        """Toss one coin per channel of a square, one per feature of a set."""
        if self.image is None:
            return self._coins(1, 1, len(window[-1]))
        return self._coins(self.shape[1], 1, 1)

    def stripes(self):
        """Toss one coin per channel and column of an image, one per feature of a row."""
        return self._coins(self.shape[1], 1, self.shape[3])

    def bump(self, window):
        """Return a bump of length 1 over a window, with a random sign per channel."""
        if self.image is None:
            return self._signs(1, 1, len(window[-1])) / sqrt(len(window[-1]))
        rows, columns = (place.stop - place.start for place in window[1:])
        return self._bump(rows, columns)

    def bumps(self):
        """Return the first perturbation of the L2 attack: a grid of up to 5 x 5 bumps."""
        if self.image is None:
            return self.bump((..., range(self.n_pixels)))
        _, height, width = self.image
        rows, columns = max(1, height // 5), max(1, width // 5)
        image = torch.zeros(self.shape[1:], dtype=torch.float64)
        for top in range(height % rows // 2, height - rows + 1, rows):
            for left in range(width % columns // 2, width - columns + 1, columns):
                image[:, top : top + rows, left : left + columns] = self._bump(
                    rows, columns
                )
        return image

    def _bump(self, rows, columns):
        shape = _two_halves(rows, columns, self._integer(2) == 1)
        return shape * self._signs(self.shape[1], 1, 1)

    def _integer(self, stop):
        if not self._numbers:
            self._numbers = torch.rand(
                _BLOCK, generator=self.generator, dtype=torch.float64
            ).tolist()
        return int(self._numbers.pop() * stop)

    def _coins(self, *shape):
        return torch.rand(shape, generator=self.generator) < 0.5

    def _signs(self, *shape):
        return 2.0 * self._coins(*shape).double() - 1


@cache
def _two_halves(rows, columns, transposed=False):
    """Two bumps side by side, of opposite sign: eta of the paper's Section 3.3."""
    if transposed:
        return _two_halves(columns, rows).T
    left = columns // 2
    shape = _one_bump(rows, columns - left)
    if left:
        shape = torch.cat([_one_bump(rows, left), -shape], dim=1)
    return shape / torch.linalg.vector_norm(shape)


def _one_bump(rows, columns):
    """Nested squares around the middle, whose heights 1 / k^2 add up towards it."""
    far = torch.maximum(
        (torch.arange(rows) - rows // 2).abs()[:, None],
        (torch.arange(columns) - columns // 2).abs()[None],
    )
    steps = 1 / torch.arange(1.0, max(rows, columns) // 2 + 2, dtype=torch.float64) ** 2
    return steps.flip(0).cumsum(0).flip(0)[far]
