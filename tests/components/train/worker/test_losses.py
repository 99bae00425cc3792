"""The training's loss against Keras' own, and what mixes the images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.train.worker.losses import Mixed, Objective

RANDOM = np.random.default_rng(0)
LOGITS = tf.constant(RANDOM.normal(size=(6, 3)), tf.float32)
LABELS = tf.constant([0, 1, 2, 2, 1, 0], tf.int64)
IMAGES = tf.constant(RANDOM.uniform(size=(6, 4, 4, 3)), tf.float32)
ONE_HOT = keras.ops.one_hot(LABELS, 3)


def keras_losses(labels: tf.Tensor, smoothing: float) -> np.ndarray:
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction="none")
    return loss(labels, LOGITS).numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_labels(smoothing: float) -> None:
    losses = Objective([1, 1, 1], smoothing).losses(LOGITS, Mixed(IMAGES, LABELS))
    np.testing.assert_allclose(losses, keras_losses(ONE_HOT, smoothing), rtol=1e-5)


def test_weighted_classes() -> None:
    losses = Objective([0.5, 1, 3]).losses(LOGITS, Mixed(IMAGES, LABELS))
    np.testing.assert_allclose(losses, keras_losses(ONE_HOT, 0) * [0.5, 1, 3, 3, 1, 0.5], rtol=1e-5)


def test_mixed_images_have_mixed_labels() -> None:
    objective = Objective([1, 1, 1], label_smoothing=0.1, mixup=0.4, seed=1)
    batch = objective.mixed(IMAGES, LABELS, tf.constant(7), tf.constant(0))
    assert batch.share is not None
    share = batch.share.numpy()
    assert (share >= 0.5).all()
    assert len(set(share.tolist())) == 6
    mixed_labels = share[:, None] * ONE_HOT + (1 - share[:, None]) * keras.ops.one_hot(batch.others, 3)
    np.testing.assert_allclose(objective.losses(LOGITS, batch), keras_losses(mixed_labels, 0.1), rtol=1e-5)
    for image, own, other, part in zip(batch.images, IMAGES, batch.others, share, strict=True):
        rest = (image - part * own) / (1 - part) if part < 0.999 else own
        candidates = [one for one, label in zip(IMAGES, LABELS, strict=True) if label == other]
        assert min(np.abs(rest - one).max() for one in candidates) < 1e-3


def test_what_is_mixed_follows_from_seed_step_and_replica() -> None:
    def shares(seed: int, step: int, replica: int) -> list[float]:
        objective = Objective([1, 1, 1], mixup=0.2, seed=seed)
        return objective.mixed(IMAGES, LABELS, tf.constant(step), tf.constant(replica)).share.numpy().tolist()

    assert shares(1, 2, 3) == shares(1, 2, 3)
    others = [shares(*place) for place in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))]
    assert len({tuple(one) for one in others}) == 4


@pytest.mark.parametrize("alpha", [1e-3, 10.0])
def test_any_alpha_gives_numbers(alpha: float) -> None:
    batch = Objective([1, 1, 1], mixup=alpha).mixed(IMAGES, LABELS, tf.constant(0), tf.constant(0))
    assert np.isfinite(batch.images).all()


def test_nothing_is_mixed_without() -> None:
    batch = Objective([1, 1, 1]).mixed(IMAGES, LABELS, tf.constant(0), tf.constant(0))
    assert batch.images is IMAGES
    assert batch.share is None
