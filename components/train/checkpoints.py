"""Checkpoints of a training job: written by the chief, read by all."""

from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    import keras

KEPT = 3


class Checkpoints:
    """The last few states of model, optimizer and step in one folder.

    The position in the data needs no record of its own: it follows from the step (see `input_pipeline`).
    """

    def __init__(self, directory: Path, model: "keras.Model", optimizer: "keras.optimizers.Optimizer") -> None:
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=self._step)
        self._manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=KEPT)

    def restore(self) -> int:
        """Restores the newest checkpoint, where there is one.

        Returns:
            The number of steps that were taken before it.
        """
        self._manager.restore_or_initialize()
        return int(self._step.numpy())

    def save(self, step: int) -> None:
        """Saves the state after `step` steps. Only the chief calls this."""
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)
