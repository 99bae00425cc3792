"""From an image to a model's input: the one place, for ingest, training, evaluation and serving alike.

Whatever a model sees, it sees through these functions, so training and serving cannot drift apart.
"""

import tensorflow as tf

from kfp_image_classification.components.contracts.image_formats import PNG_START

ImageShape = tuple[int, int, int]


def fit_image(pixels: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Resizes one image to the data set's size.

    Args:
        pixels: uint8 [height, width, channels], any height and width.
        image_shape: The target (height, width, channels).

    Returns:
        uint8 `image_shape`; an image that has the size already comes back unchanged, bit for bit.
    """
    height, width, _ = image_shape

    def resized() -> tf.Tensor:
        new = tf.image.resize(pixels, (height, width), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(new), 0, 255), tf.uint8)

    # The resize would leave it as it is, too, in many times the time.
    fits = tf.reduce_all(tf.shape(pixels) == image_shape)
    return tf.ensure_shape(tf.cond(fits, lambda: tf.identity(pixels), resized), image_shape)


def decode_image(encoded: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Decodes one PNG or JPEG, whole and of any size; nothing else is an image, see `image_formats.py`.

    The orientation that a camera notes in a file's EXIF part is not applied: the pixels are taken as they are stored.

    Args:
        encoded: Scalar string.
        image_shape: (height, width, channels) of the result.

    Returns:
        uint8 `image_shape`.

    Raises:
        tf.errors.InvalidArgumentError: For anything else.
    """
    return fit_image(_decoded(encoded, image_shape[2], jpeg_ratio=1), image_shape)


def decode_png(encoded: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Does what `decode_image` does with a PNG, for those who know that it is one: for small ones in less time."""
    return fit_image(tf.io.decode_png(encoded, image_shape[2]), image_shape)


def check_image(encoded: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Reads one PNG or JPEG to its end, and raises what `decode_image` would raise; returns a part of the pixels.

    Of a JPEG the pixels are made in an eighth of the size, which reads all of the file in two thirds of the time.
    """
    return _decoded(encoded, image_shape[2], jpeg_ratio=8)


def _decoded(encoded: tf.Tensor, channels: int, jpeg_ratio: int) -> tf.Tensor:
    def png() -> tf.Tensor:
        # The operation reads GIFs as well, if they are still.
        starts_right = tf.strings.substr(encoded, 0, len(PNG_START)) == PNG_START
        with tf.control_dependencies([tf.debugging.Assert(starts_right, ["expected a whole PNG or JPEG"])]):
            return tf.io.decode_png(tf.identity(encoded), channels)

    return tf.cond(
        tf.io.is_jpeg(encoded),
        # TensorFlow's default is a faster, coarser transform that no other decoder has; a server without it must agree.
        lambda: tf.io.decode_jpeg(encoded, channels, jpeg_ratio, dct_method="INTEGER_ACCURATE"),
        png,
    )


def decode_images(encoded: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Decodes a batch of encoded images, on the CPU: string [n] -> uint8 [n, *image_shape]."""
    # Said in the graph itself, as the runtime that places operations would move the list of strings to a GPU, and fail.
    with tf.device("CPU:0"):
        return tf.map_fn(
            lambda image: decode_image(image, image_shape),
            encoded,
            fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
        )


def model_input(pixels: tf.Tensor) -> tf.Tensor:
    """Scales pixels to what every model takes: uint8 0..255 -> float32 0..1, same shape."""
    return tf.cast(pixels, tf.float32) / 255.0
