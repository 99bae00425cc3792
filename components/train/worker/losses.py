"""What the training minimises: cross-entropy, with smoothed labels, weighted classes and mixed images where asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

SHARES = 4096


@dataclass(frozen=True)
class Mixed:
    """A batch in which each image may be mixed with another one of it.

    Attributes:
        images: float [n, height, width, channels].
        labels: int64 [n], of the larger part of each image.
        others: int64 [n], of the smaller part; None where nothing is mixed.
        share: float32 [n], of the larger part, from 0.5 to 1; None where nothing is mixed.
    """

    images: tf.Tensor
    labels: tf.Tensor
    others: tf.Tensor | None = None
    share: tf.Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """What a training step minimises.

    Attributes:
        class_weights: Of each class, with mean 1 over the training images.
        label_smoothing: Share of each label that is spread over all classes.
        mixup: Alpha of the distribution of the shares in which images are mixed; 0 for no mixing.
        seed: Decides the shares.
    """

    class_weights: Sequence[float]
    label_smoothing: float = 0.0
    mixup: float = 0.0
    seed: int = 0

    def mixed(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, replica: tf.Tensor) -> Mixed:
        """Mixes each image with the one before it in its batch, which is in a random order.

        The shares follow from the seed, the step and the replica alone.

        After Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), with a share for each image.

        Args:
            images: float [n, height, width, channels], of a known shape.
            labels: int64 [n].
            step: The step's number.
            replica: The replica's number among all.
        """
        if not self.mixup:
            return Mixed(images, labels)
        seed = tf.stack([tf.cast(self.seed, tf.int64) + tf.cast(replica, tf.int64) * 2**32, tf.cast(step, tf.int64)])
        count = images.shape[0]
        # XLA knows no Beta distribution: many numbers were drawn from it before, and one of them is drawn here.
        drawn = np.random.default_rng(0).beta(self.mixup, self.mixup, SHARES).astype(np.float32)
        share = tf.gather(drawn, tf.random.stateless_uniform([count], seed, 0, SHARES, tf.int32))
        share = tf.maximum(share, 1 - share)
        part = tf.cast(tf.reshape(share, [-1, 1, 1, 1]), images.dtype)
        mixed = part * images + (1 - part) * tf.roll(images, 1, axis=0)
        return Mixed(mixed, labels, tf.roll(labels, 1, axis=0), share)

    def losses(self, logits: tf.Tensor, batch: Mixed) -> tf.Tensor:
        """The loss of each image, float32 [n]."""
        losses = self._losses(logits, batch.labels)
        if batch.share is None:
            return losses
        return batch.share * losses + (1 - batch.share) * self._losses(logits, batch.others)

    def _losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if self.label_smoothing:
            spread = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * spread
        if any(weight != 1 for weight in self.class_weights):
            losses *= tf.gather(tf.constant(self.class_weights, tf.float32), labels)
        return losses
