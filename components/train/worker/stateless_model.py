"""A model as a function of its images and of the values of its variables; for graphs that have no variables."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """All that a model's answers depend on, beside the images."""
    return [*model.trainable_variables, *model.non_trainable_variables]


def logits_with(values: Sequence[tf.Tensor], model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """What a model answers when its variables have these values.

    Args:
        values: In the order of `variables_of`.
        model: The model, whose own variables are not touched.
        images: As the model takes them.

    Returns:
        float32 [n, classes].
    """
    trainable = len(model.trainable_variables)
    logits, _ = model.stateless_call(values[:trainable], values[trainable:], images, training=False)
    return logits
