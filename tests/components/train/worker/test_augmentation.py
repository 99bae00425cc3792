import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.train.worker.augmentation import photo

SEED = tf.constant([1, 2], tf.int64)


@pytest.mark.parametrize("channels", [1, 3])
def test_photo_keeps_shape_and_range(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 40, channels), np.uint8)
    changed = photo(tf.constant(pixels), SEED)
    assert changed.shape == pixels.shape
    assert changed.dtype == tf.uint8
    assert np.abs(changed.numpy().astype(int) - pixels).mean() > 10


def test_photo_changes_light_and_colours_moderately() -> None:
    grey, orange = (np.full((256, 8, 8, 3), colour, np.uint8) for colour in ([128] * 3, [200, 120, 40]))
    light = photo(tf.constant(grey), SEED).numpy()
    assert 128 * 0.69 < light.min() < 100
    assert 156 < light.max() < 128 * 1.31
    assert (light == light[..., :1]).all(), "grey stays grey"
    coloured = photo(tf.constant(orange), SEED).numpy().astype(int)
    assert (coloured[..., 0] > coloured[..., 1]).all()
    assert (coloured[..., 1] > coloured[..., 2]).all()
    assert np.ptp(coloured[..., 0] - coloured[..., 2]) > 50


def test_photo_shows_each_image_from_within_mirrored_or_not() -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (200, 64, 64, 1)).copy()
    changed = photo(tf.constant(ramp), SEED).numpy().astype(int)
    rising = changed[:, 32, -1, 0] > changed[:, 32, 0, 0]
    assert 70 < rising.sum() < 130
