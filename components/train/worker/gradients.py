"""Sums gradients over the workers as one tensor, and applies them to each weight in one pass over memory."""

from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

Sum = Callable[[list[tf.Tensor], tf.DType], list[tf.Tensor]]


class FusedAdam(keras.optimizers.Adam):
    """Adam whose gradients travel together, optionally with half the bits.

    Each message between workers has a fixed cost, and a small model has a dozen weights. Summing in bfloat16 halves the
    bytes; the weights and Adam's own state stay float32.

    Keras writes Adam's formula as a dozen operations, each of which reads and writes the whole weight; TensorFlow has
    a kernel that does the same in one.

    Overrides a private method of Keras, which is why pyproject.toml pins it to one minor release.

    Attributes:
        sum: Sums tensors over all workers, in a type to travel in; None leaves that to TensorFlow.
    """

    def __init__(self, reduction_dtype: str) -> None:
        """Makes the optimizer.

        Args:
            reduction_dtype: `float32` or `bfloat16`.
        """
        super().__init__()
        self._reduction_dtype = tf.as_dtype(reduction_dtype)
        self._averaged: list[tf.Variable] = []
        self.sum: Sum | None = None

    @property
    def summed_shapes(self) -> list[tuple[int, ...]]:
        """Of all that is summed in a step."""
        return [tuple(one.shape) for one in (*self._trainable_variables, *self._averaged)]

    def average_also(self, variables: list[keras.Variable]) -> None:
        """Keeps the moving statistics of normalisation layers equal on all workers: averaged in every step.

        Under Keras 3 each worker would keep its own, and the model would depend on which of them exports it.
        """
        self._averaged = [variable.value for variable in variables if variable.dtype == "float32"]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Moves one weight and its two moments; Keras calls it for each weight."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),
        )

    def _all_reduce_sum_gradients(
        self, grads_and_vars: list[tuple[tf.Tensor, tf.Variable]]
    ) -> list[tuple[tf.Tensor, tf.Variable]]:
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return grads_and_vars
        shares = [statistic / context.num_replicas_in_sync for statistic in self._averaged]
        gradients = [tf.convert_to_tensor(gradient) for gradient, _ in grads_and_vars]
        add_up = self.sum or partial(_fused_sum, context)
        if self._reduction_dtype == tf.float32 or not shares:
            summed = add_up(gradients + shares, self._reduction_dtype)
        else:
            summed = add_up(gradients, self._reduction_dtype) + add_up(shares, tf.float32)
        for statistic, mean in zip(self._averaged, summed[len(gradients) :], strict=True):
            # A variable takes a tensor's memory over, and this memory is that of the next sum.
            statistic.assign(tf.raw_ops.DeepCopy(x=mean))
        return [(total, variable) for total, (_, variable) in zip(summed, grads_and_vars, strict=False)]


def _fused_sum(context: tf.distribute.ReplicaContext, tensors: list[tf.Tensor], dtype: tf.DType) -> list[tf.Tensor]:
    flat = tf.concat([tf.reshape(tf.cast(tensor, dtype), [-1]) for tensor in tensors], 0)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    parts = tf.split(total, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(tf.cast(part, tensor.dtype), tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
