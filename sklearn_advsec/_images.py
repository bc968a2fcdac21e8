"""What counts as a pixel: of images, and of flat rows that are images or are not."""

import math
import warnings
from numbers import Integral


def image_shape_of(row_shape, image_shape=None):
    """Return (channels, height, width) of rows, or None where they are no images.

    Parameters
    ----------
    row_shape : tuple of int
        The shape of a row: (n_features,), (height, width) or (channels, height, width).
    image_shape : tuple of int, optional
        What a flat row is: (height, width) or (channels, height, width).

    Raises
    ------
    ValueError
        If the two do not go together, or rows have more than three axes.
    """
    if image_shape is None:
        shape = tuple(row_shape)
        if len(shape) == 1:
            return None
    else:
        if not all(isinstance(size, Integral) and size > 0 for size in image_shape):
            raise ValueError(
                "image_shape must be (height, width) or (channels, height, width), whole "
                f"numbers above 0; got {image_shape!r}."
            )
        shape = tuple(int(size) for size in image_shape)
        if math.prod(shape) != math.prod(row_shape):
            raise ValueError(
                f"image_shape={image_shape!r} has {math.prod(shape)} values, but rows of "
                f"shape {tuple(row_shape)} have {math.prod(row_shape)}."
            )
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        raise ValueError(
            "image_shape must be (height, width) or (channels, height, width); got "
            f"{shape}."
        )
    if looks_channels_last(shape):
        warnings.warn(
            f"Images of shape {shape} are read as {shape[0]} channels of {shape[1]} x "
            f"{shape[2]} pixels, and seem to have their channels last. Move them to the "
            "front: X.transpose(0, 3, 1, 2).",
            stacklevel=2,
        )
    return shape


def looks_channels_last(shape):
    """Whether images of a shape (of one row) seem to be (height, width, channels)."""
    return len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] > 4 and shape[1] > 4


def pixel_grid(row_shape, image_shape=None):
    """Return (channels, height, width), with a flat row as one line of one channel."""
    shape = image_shape_of(row_shape, image_shape)
    return (1, 1, math.prod(row_shape)) if shape is None else shape
