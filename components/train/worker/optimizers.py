"""The optimizers, each of which moves a weight in one pass over memory.

Keras writes their formulas as up to a dozen operations, each of which reads and writes the whole weight; TensorFlow has
kernels that do the same in one.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker.gradients import SummedGradients

MOMENTUM = 0.9


def build_optimizer(options: TrainOptions, rates: NDArray[np.float32]) -> "FusedAdam | FusedMomentum":
    """Builds the optimizer that the options name.

    Args:
        options: The parameters.
        rates: The learning rate of each step, float32 [steps].
    """
    schedule = RateOfStep(rates)
    kind = FusedMomentum if options.optimizer == "sgd" else FusedAdam
    optimizer = kind(schedule, weight_decay=options.weight_decay)
    optimizer.reduction_dtype = tf.as_dtype(options.gradient_dtype)
    optimizer.gradient_clip = options.gradient_clip
    return optimizer


class RateOfStep(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate for each step, which so depends on nothing but the step."""

    def __init__(self, rates: NDArray[np.float32]) -> None:
        self._rates = tf.constant(rates)

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate of a step, counted from 0; of those after the last, the last one's."""
        return tf.gather(self._rates, tf.minimum(tf.cast(step, tf.int32), len(self._rates) - 1))


class FusedAdam(SummedGradients, keras.optimizers.Adam):
    """Adam, and AdamW: with a decay, which is none of the gradient's."""

    def __init__(self, learning_rate: Any = 1e-3, weight_decay: float = 0.0) -> None:
        """Makes the optimizer.

        Args:
            learning_rate: A number, or a schedule.
            weight_decay: What each step takes from the weights of layers, times the learning rate.
        """
        super().__init__(learning_rate)
        self._decay = weight_decay

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Moves one weight and its two moments; Keras calls it for each weight."""
        _decay(variable, self._decay, learning_rate)
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


class FusedMomentum(SummedGradients, keras.optimizers.SGD):
    """Gradient descent with momentum after Nesterov, and a decay, which is none of the gradient's."""

    def __init__(self, learning_rate: Any = 1e-2, weight_decay: float = 0.0) -> None:
        """Makes the optimizer.

        Args:
            learning_rate: A number, or a schedule.
            weight_decay: What each step takes from the weights of layers, times the learning rate.
        """
        super().__init__(learning_rate, momentum=MOMENTUM, nesterov=True)
        self._decay = weight_decay

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Moves one weight and its momentum; Keras calls it for each weight."""
        _decay(variable, self._decay, learning_rate)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.convert_to_tensor(gradient),
            momentum=MOMENTUM,
            use_nesterov=True,
        )


def _decay(variable: tf.Variable, decay: float, learning_rate: tf.Tensor) -> None:
    # Biases, and the scale and offset of a normalisation, are not what makes a model too complex.
    if decay and variable.shape.rank > 1:
        variable.assign_sub(variable * (decay * tf.cast(learning_rate, variable.dtype)))
