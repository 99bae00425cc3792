"""Batches that are handed over to a GPU together, and steps that are one program: both have a price each time.

A step of a small model takes a GPU a millisecond. Handing a batch over, and starting a program, take as long.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import ImageShape
from kfp_image_classification.components.train.worker.compiled_step import Step

# More bring nothing, and larger ones take longer to compute with than to hand over.
MOST_BATCHES = 16
GROUP_BYTES = 16 * 2**20

Group = tuple[tf.Tensor, tf.Tensor]


def batches_together(batch_size: int, image_shape: ImageShape, epoch_steps: int) -> int:
    """How many batches of such images are a group: at least one, and such that groups fill an epoch, if they can."""
    most = max(1, min(MOST_BATCHES, GROUP_BYTES // (batch_size * int(np.prod(image_shape)))))
    # Smaller ones would cost more than the single steps that an epoch has beside its groups.
    filling = [batches for batches in range(-(-most // 3), most + 1) if epoch_steps % batches == 0]
    return filling[-1] if filling else most


class BatchGroups:
    """An endless stream of groups, taken batch by batch: what one call leaves of a group is the next one's."""

    def __init__(self, groups: Iterator[Group], batches: int, skipped: int = 0) -> None:
        """Makes the stream.

        Args:
            groups: Pixels (uint8 [batches, n, height, width, channels]) and labels (int64 [batches, n]).
            batches: Of a group.
            skipped: How many of the first group's batches are left out.
        """
        self._groups, self._batches, self._skipped = groups, batches, skipped
        self._group: Group | None = None
        self._taken = batches

    def take(self, steps: int) -> Iterator[tuple[Group, int | None]]:
        """The batches of the next steps.

        Yields:
            A group, and which of its batches is to be taken; None for all of them.
        """
        while steps:
            if self._group is None or self._taken == self._batches:
                self._group, self._taken, self._skipped = next(self._groups), self._skipped, 0
            if self._taken == 0 and steps >= self._batches:
                self._taken = self._batches
                steps -= self._batches
                yield self._group, None
            else:
                self._taken += 1
                steps -= 1
                yield self._group, self._taken - 1


class GroupSteps:
    """Steps of a replica that has no others: those with the batches of a group are one program."""

    def __init__(self, strategy: tf.distribute.Strategy, step: Step, batches: int, with_xla: bool = False) -> None:
        """Makes the programs, which are traced when they are first used.

        Args:
            strategy: Under which a step is taken.
            step: From pixels and labels of a batch to numbers, float32 [2].
            batches: Of a group.
            with_xla: Whether XLA is to compile them.
        """
        self._strategy, self._step, self._batches = strategy, step, batches
        (self._device,) = strategy.extended.worker_devices
        self._with_all = tf.function(self._all, jit_compile=with_xla or None)
        self._with_one = tf.function(self._one, jit_compile=with_xla or None)

    def with_all(self, group: Group) -> tf.Tensor:
        """Takes a step with each batch of a group; returns the sums of the numbers."""
        with tf.device(self._device):
            return self._with_all(*group)

    def with_one(self, group: Group, index: int) -> tf.Tensor:
        """Takes a step with one batch of a group; returns the numbers."""
        which = tf.constant(index)
        with tf.device(self._device):
            return self._with_one(*group, which)

    def _all(self, pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        totals, index = tf.zeros(2), tf.constant(0)
        # XLA is to know how many: else a GPU's host waits after each step to be told whether there is another one.
        # Over tf.range, it does not find out.
        while index < self._batches:
            totals += self._one(pixels, labels, index)
            index += 1
        return totals

    def _one(self, pixels: tf.Tensor, labels: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        # Of a slice, XLA would compile a program for each index.
        return self._strategy.run(self._step, args=(tf.gather(pixels, index), tf.gather(labels, index)))
