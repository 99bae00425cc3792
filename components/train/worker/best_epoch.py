"""The best epoch so far, and its weights: a part of every checkpoint, so that a restart forgets neither."""

import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from kfp_image_classification.components.contracts.measures import MeasureName
from kfp_image_classification.components.train.history import rank


class BestEpoch(tf.Module):
    """Remembers which epoch was the best by its validation.

    All workers remember the same, as all have the same scores.
    """

    def __init__(self, model: keras.Model, measure: MeasureName, keeps_weights: bool) -> None:
        """Remembers none yet.

        Args:
            model: What is trained.
            measure: What makes an epoch better.
            keeps_weights: Whether to remember the weights, too: in the memory of the host, as much as the model takes.
        """
        super().__init__()
        self._measure: MeasureName = measure
        with tf.device("CPU:0"):
            self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._rank = tf.Variable([-math.inf, -math.inf], dtype=tf.float64, trainable=False)
            self._weights = [
                tf.Variable(tf.zeros(weight.shape, weight.dtype), trainable=False)
                for weight in (model.weights if keeps_weights else [])
            ]

    @property
    def epoch(self) -> int:
        """The best one, counted from 1; 0 before the first."""
        return int(self._epoch.numpy())

    def offer(self, epoch: int, scores: Mapping[str, float], model: keras.Model) -> None:
        """Remembers an epoch when it is better than all before.

        Args:
            epoch: Counted from 1.
            scores: With `val_loss`, and `val_` before the measure's name.
            model: As it is after the epoch.
        """
        reached = rank(scores, self._measure)
        if reached <= tuple(self._rank.numpy().tolist()):
            return
        self._epoch.assign(epoch)
        self._rank.assign(reached)
        for kept, weight in zip(self._weights, model.weights if self._weights else [], strict=True):
            # A variable takes a tensor's memory over, and this memory is that of the weight, which moves on.
            kept.assign(tf.raw_ops.DeepCopy(x=tf.convert_to_tensor(weight.value)))

    def give_back(self, model: keras.Model) -> None:
        """Makes the model what it was after its best epoch, where the weights were remembered."""
        if self.epoch:
            for kept, weight in zip(self._weights, model.weights if self._weights else [], strict=True):
                weight.assign(kept)
