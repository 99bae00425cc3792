"""Random changes to training images that leave their class as it is, a whole batch at a time."""

from collections.abc import Callable

import tensorflow as tf

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# A share of the image's height and width: 4 of 32 pixels, the usual amount for small photographs.
LARGEST_SHIFT = 0.125


def shift(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Moves each image by its own random offset, up to an eighth of its size; black moves in at the edges.

    Args:
        pixels: uint8 [n, height, width, channels], of a known shape.
        seed: int64 [2]; the same seed moves the same images alike.

    Returns:
        The moved images, in the same shape.
    """
    count, height, width, _ = pixels.shape
    for axis, size in ((1, height), (2, width)):
        most = round(size * LARGEST_SHIFT)
        offsets = tf.random.stateless_uniform([count, 1], seed + axis, 0, 2 * most + 1, tf.int32)
        padding = [[most, most] if axis == padded else [0, 0] for padded in range(4)]
        pixels = tf.gather(tf.pad(pixels, padding), offsets + tf.range(size), axis=axis, batch_dims=1)
    return pixels


def shift_and_flip(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Moves each image, and mirrors half of them left to right: for photographs, not for digits or letters."""
    mirrored = tf.random.stateless_uniform([pixels.shape[0], 1, 1, 1], seed) < 0.5
    return shift(tf.where(mirrored, tf.reverse(pixels, [2]), pixels), seed)


AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "shift": shift, "shift_flip": shift_and_flip}
