import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import (
    decode_image,
    decode_images,
    fit_image,
    model_input,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (17, 40, 3)])
def test_encoded_image_of_the_right_size_comes_back_bit_for_bit(shape: tuple[int, int, int]) -> None:
    pixels = RANDOM.integers(0, 256, shape, np.uint8)
    assert np.array_equal(decode_image(tf.io.encode_png(pixels), shape), pixels)
    assert np.array_equal(fit_image(tf.constant(pixels), shape), pixels)


def test_other_sizes_and_channels_are_fitted() -> None:
    colour = np.full((50, 20, 3), 200, np.uint8)
    assert np.array_equal(decode_image(tf.io.encode_png(colour), (28, 28, 1)), np.full((28, 28, 1), 200))
    grey = np.full((9, 9, 1), 7, np.uint8)
    assert np.array_equal(decode_image(tf.io.encode_jpeg(grey), (16, 16, 3)), np.full((16, 16, 3), 7))


def test_batch_decodes_as_single_images_do() -> None:
    encoded = [tf.io.encode_png(RANDOM.integers(0, 256, (side, side, 1), np.uint8)) for side in (28, 40, 5)]
    batch = decode_images(tf.stack(encoded), (28, 28, 1))
    for image, single in zip(batch, encoded, strict=True):
        assert np.array_equal(image, decode_image(single, (28, 28, 1)))


def test_model_input_is_zero_to_one() -> None:
    scaled = model_input(tf.constant([0, 51, 255], tf.uint8))
    assert scaled.dtype == tf.float32
    assert np.allclose(scaled, [0, 0.2, 1])
