"""From an image to a model's input: the one place, for ingest, training, evaluation and serving alike.

Whatever a model sees, it sees through these functions, so training and serving cannot drift apart.
"""

import tensorflow as tf

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
    resized = tf.image.resize(pixels, (height, width), antialias=True)
    rounded = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return tf.ensure_shape(rounded, image_shape)


def decode_image(encoded: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Decodes one PNG, JPEG, GIF (first frame) or BMP image.

    Args:
        encoded: Scalar string.
        image_shape: (height, width, channels) of the result.

    Returns:
        uint8 `image_shape`.
    """
    channels = image_shape[2]
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        # TensorFlow's default is a faster, coarser transform that no other decoder has; a server without it must agree.
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
    )
    return fit_image(pixels, image_shape)


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
