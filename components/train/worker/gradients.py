"""Sums gradients over the workers as one tensor, whatever optimizer moves the weights by them."""

from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

Sum = Callable[[list[tf.Tensor], tf.DType], list[tf.Tensor]]
Gradients = list[tuple[tf.Tensor, tf.Variable]]


class SummedGradients:
    """Makes the gradients of a Keras optimizer travel together, optionally with half the bits; goes before its class.

    Each message between workers has a fixed cost, and a small model has a dozen weights. Summing in bfloat16 halves the
    bytes; the weights and the optimizer's own state stay float32.

    Overrides a private method of Keras, which is why pyproject.toml pins it to one minor release.

    Attributes:
        reduction_dtype: In which gradients travel.
        gradient_clip: The longest that their sum may be; 0 for no limit. All workers shorten the same sum, and alike.
        sum: Sums tensors over all workers, in a type to travel in; None leaves that to TensorFlow.
    """

    reduction_dtype: tf.DType = tf.float32
    gradient_clip: float = 0.0
    sum: Sum | None = None
    _trainable_variables: list[keras.Variable]
    _averaged: tuple[tf.Variable, ...] = ()

    @property
    def summed_shapes(self) -> list[tuple[int, ...]]:
        """Of all that is summed in a step."""
        return [tuple(one.shape) for one in (*self._trainable_variables, *self._averaged)]

    def average_also(self, variables: list[keras.Variable]) -> None:
        """Keeps the moving statistics of normalisation layers equal on all workers: averaged in every step.

        Under Keras 3 each worker would keep its own, and the model would depend on which of them exports it.
        """
        self._averaged = tuple(variable.value for variable in variables if variable.dtype == "float32")

    def _all_reduce_sum_gradients(self, grads_and_vars: Gradients) -> Gradients:
        summed = self._summed(grads_and_vars)
        if not self.gradient_clip:
            return summed
        clipped, _ = tf.clip_by_global_norm([gradient for gradient, _ in summed], self.gradient_clip)
        return [(gradient, variable) for gradient, (_, variable) in zip(clipped, summed, strict=True)]

    def _summed(self, grads_and_vars: Gradients) -> Gradients:
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return grads_and_vars
        shares = [statistic / context.num_replicas_in_sync for statistic in self._averaged]
        gradients = [tf.convert_to_tensor(gradient) for gradient, _ in grads_and_vars]
        add_up = self.sum or partial(_fused_sum, context)
        if self.reduction_dtype == tf.float32 or not shares:
            summed = add_up(gradients + shares, self.reduction_dtype)
        else:
            summed = add_up(gradients, self.reduction_dtype) + add_up(shares, tf.float32)
        for statistic, mean in zip(self._averaged, summed[len(gradients) :], strict=True):
            # A variable takes a tensor's memory over, and this memory is that of the next sum.
            statistic.assign(tf.raw_ops.DeepCopy(x=mean))
        return [(total, variable) for total, (_, variable) in zip(summed, grads_and_vars, strict=False)]


def _fused_sum(context: tf.distribute.ReplicaContext, tensors: list[tf.Tensor], dtype: tf.DType) -> list[tf.Tensor]:
    flat = tf.concat([tf.reshape(tf.cast(tensor, dtype), [-1]) for tensor in tensors], 0)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    parts = tf.split(total, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(tf.cast(part, tensor.dtype), tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
