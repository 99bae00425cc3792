"""Random changes to training images that leave their class as it is, a whole batch at a time."""

import math
from collections.abc import Callable

import tensorflow as tf

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# A share of the image's height and width: 4 of 32 pixels, the usual amount for small photographs.
LARGEST_SHIFT = 0.125
# Of a crop: the share of the area, and how much its ratio of height to width may change.
SMALLEST_CROP = 0.5
LARGEST_STRETCH = 4 / 3
# Of brightness, contrast and saturation.
LARGEST_CHANGE = 0.3
# What red, green and blue give to how light a pixel looks (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


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


def photo(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Crops each image to another size and shape, mirrors half of them, and changes light and colours.

    A crop has half to all of the image's area and up to 4:3 another ratio of its sides, and is scaled back.

    Args:
        pixels: uint8 [n, height, width, channels], of a known shape.
        seed: int64 [2]; the same seed changes the same images alike.

    Returns:
        The changed images, in the same shape.
    """
    count, height, width, channels = pixels.shape
    draws = tf.random.stateless_uniform([8, count], seed)
    area = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[0]
    stretch = tf.sqrt(tf.exp((2 * draws[1] - 1) * math.log(LARGEST_STRETCH)))
    tall, wide = (tf.minimum(tf.sqrt(area) * by, 1) for by in (stretch, 1 / stretch))
    top, left = (1 - tall) * draws[2], (1 - wide) * draws[3]
    mirrored = draws[4] < 0.5
    starts, ends = (tf.where(mirrored, a, b) for a, b in ((left + wide, left), (left, left + wide)))
    boxes = tf.stack([top, starts, top + tall, ends], axis=1)
    images = tf.image.crop_and_resize(pixels, boxes, tf.range(count), (height, width))

    brightness, contrast, saturation = (
        tf.reshape(1 + LARGEST_CHANGE * (2 * draw - 1), [count, 1, 1, 1]) for draw in tf.unstack(draws[5:])
    )
    images *= brightness
    middle = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    images = middle + contrast * (images - middle)
    if channels == 3:
        grey = tf.reduce_sum(images * GREY, axis=3, keepdims=True)
        images = grey + saturation * (images - grey)
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)


AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "shift": shift, "shift_flip": shift_and_flip, "photo": photo}
