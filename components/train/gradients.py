"""Sums gradients over the workers as one tensor instead of one message a weight."""

from typing import Any

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Adam whose gradients travel together, optionally with half the bits.

    Each message between workers has a fixed cost, and a small model has a dozen weights. Summing in bfloat16 halves the
    bytes; the weights and Adam's own state stay float32.

    Overrides a private method of Keras, which is why pyproject.toml pins it to one minor release.
    """

    def __init__(self, reduction_dtype: str, **arguments: Any) -> None:
        """Makes the optimizer.

        Args:
            reduction_dtype: `float32` or `bfloat16`.
            **arguments: Adam's own.
        """
        super().__init__(**arguments)
        self._reduction_dtype = tf.as_dtype(reduction_dtype)

    def _all_reduce_sum_gradients(
        self, grads_and_vars: list[tuple[tf.Tensor, tf.Variable]]
    ) -> list[tuple[tf.Tensor, tf.Variable]]:
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return grads_and_vars
        gradients = [tf.reshape(tf.cast(gradient, self._reduction_dtype), [-1]) for gradient, _ in grads_and_vars]
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat(gradients, 0))
        parts = tf.split(total, [variable.shape.num_elements() for _, variable in grads_and_vars])
        return [
            (tf.reshape(tf.cast(part, variable.dtype), variable.shape), variable)
            for part, (_, variable) in zip(parts, grads_and_vars, strict=True)
        ]
