"""The optimizer against Keras' own, on the same gradients."""

import keras
import numpy as np
import tensorflow as tf

from components.train.gradients import FusedAdam


def test_moves_weights_as_keras_adam_does() -> None:
    random = np.random.default_rng(0)
    start = random.normal(size=(7, 5)).astype(np.float32)
    optimizers = [keras.optimizers.Adam(), FusedAdam("float32")]
    weights = [keras.Variable(start), keras.Variable(start)]
    for step in range(50):
        gradient = tf.constant(random.normal(loc=1, size=start.shape).astype(np.float32))
        for optimizer, weight in zip(optimizers, weights, strict=True):
            optimizer.learning_rate = 1e-2 if step < 25 else 1e-3
            optimizer.apply([gradient], [weight])
    theirs, ours = (weight.numpy() for weight in weights)
    assert np.abs(theirs - start).mean() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    for theirs, ours in zip(*(optimizer.variables for optimizer in optimizers), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6, err_msg=ours.path)
