"""A worker's share of the training images, as an endless stream whose content depends on the seed and position alone.

Sharding is by file: a worker opens its own shards and reads no others. (AutoShardPolicy.FILE does the same division
inside tf.data; doing it here skips that rewrite, which costs several times the CPU of the reading itself.) As the
stream is a function of (seed, epoch, step), training continues after a restart with the very batch that was next.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset, Shard
from kfp_image_classification.components.train.worker.augmentation import AUGMENTATIONS

# Raw pixels that a worker shuffles at a time of a share that is streamed. While a window is used up, the next one is
# collected and put together: three times as much is in memory.
SHUFFLE_BYTES = 16 * 2**20
# A share of so many windows is kept in memory, and shuffled whole.
WINDOWS_KEPT = 4
FILES_READ_TOGETHER = 4
# Records are parsed in pieces of a window at most, as their texts take as much memory again.
PARSED_TOGETHER = 512

EpochBatches = Callable[[tf.Tensor], tf.data.Dataset]


def worker_shards(shards: Sequence[Shard], index: int, workers: int) -> list[Shard]:
    """The shards of one worker: every `workers`-th, from its index on."""
    return list(shards[index::workers])


def steps_per_epoch(shards: Sequence[Shard], workers: int, worker_batch: int) -> int:
    """Steps that every worker can take in an epoch: decided by the worker with the fewest images."""
    fewest = min(sum(shard.examples for shard in worker_shards(shards, index, workers)) for index in range(workers))
    return fewest // worker_batch


def training_batches(
    dataset: Dataset,
    shards: Sequence[Shard],
    batch_size: int,
    batches_per_epoch: int,
    seed: int,
    first_batch: int = 0,
    augmentation: str = "none",
    threads: int = 1,
) -> tf.data.Dataset:
    """Streams a worker's training batches for ever.

    Args:
        dataset: Where the shards lie.
        shards: The worker's own shards.
        batch_size: Images in a batch.
        batches_per_epoch: Batches taken from each pass over the shards; the rest of a pass is left out.
        seed: Decides the order of files and images in each epoch.
        first_batch: Position in the stream at which to start.
        augmentation: Name of the random changes to the images.
        threads: How many batches are decoded and augmented at a time; the stream is the same.

    Returns:
        Batches of uint8 pixels [batch_size, height, width, channels] and int64 labels [batch_size].
    """
    image_shape = dataset.manifest.image_shape
    share = sum(shard.examples for shard in shards)
    first_epoch, skipped = divmod(first_batch, batches_per_epoch)
    plan = _EpochPlan(dataset, shards, batch_size, batches_per_epoch, tf.constant(seed, tf.int64), threads)
    in_memory = share * image_shape[0] * image_shape[1] * image_shape[2] <= WINDOWS_KEPT * SHUFFLE_BYTES
    epoch_batches = plan.from_memory() if in_memory else plan.from_files()
    stream = tf.data.Dataset.counter(first_epoch, dtype=tf.int64).flat_map(epoch_batches).skip(skipped)
    # Workers have different shards, so this sets their augmentation apart.
    own_seed = tf.constant(seed + zlib.crc32(shards[0].file.encode()), tf.int64)
    augment = AUGMENTATIONS[augmentation]

    def finish(position: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.ensure_shape(batch[0], (batch_size, *image_shape))
        if augment:
            pixels = augment(pixels, tf.stack([own_seed, position]))
        return pixels, tf.ensure_shape(batch[1], (batch_size,))

    # Knowing that the stream never ends spares the strategy a round of messages before each step.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    finished = stream.enumerate(start=first_batch).map(finish, num_parallel_calls=threads)
    return finished.apply(endless).prefetch(max(4, threads))


@dataclass(frozen=True)
class _EpochPlan:
    """How an epoch's batches are made. Stateless operations decide the order: it follows from seed and epoch alone."""

    dataset: Dataset
    shards: Sequence[Shard]
    batch_size: int
    batches_per_epoch: int
    seed: tf.Tensor
    threads: int

    def from_memory(self) -> EpochBatches:
        """For a small share: read and decoded once, in a new order each epoch."""
        paths = [self.dataset.path(shard) for shard in self.shards]
        share = sum(shard.examples for shard in self.shards)
        all_pixels = np.empty((share, *self.dataset.manifest.image_shape), np.uint8)
        all_labels = np.empty(share, np.int64)
        filled = 0
        for some_pixels, some_labels in records.read_batches(paths, self.dataset.manifest.image_shape, PARSED_TOGETHER):
            part = slice(filled, filled := filled + len(some_labels))
            all_pixels[part], all_labels[part] = some_pixels, some_labels
        pixels, labels = tf.constant(all_pixels), tf.constant(all_labels)

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(tf.range(share), tf.stack([self.seed, epoch]))
            taken = tf.reshape(order[: self.batches_per_epoch * self.batch_size], [-1, self.batch_size])
            batches = tf.data.Dataset.from_tensor_slices(taken)
            return batches.map(
                lambda indices: (tf.gather(pixels, indices), tf.gather(labels, indices)),
                num_parallel_calls=self.threads,
            )

        return epoch_batches

    def from_files(self) -> EpochBatches:
        """For a larger share: files in a new order each epoch, several read together, shuffled a window at a time."""
        paths = [str(self.dataset.path(shard)) for shard in self.shards]
        image_shape = self.dataset.manifest.image_shape
        window = max(self.batch_size, SHUFFLE_BYTES // (image_shape[0] * image_shape[1] * image_shape[2]))

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(tf.constant(paths), tf.stack([self.seed, epoch]))
            images = tf.data.Dataset.from_tensor_slices(order).interleave(
                lambda path: tf.data.TFRecordDataset(path, compression_type=records.COMPRESSION),
                cycle_length=min(len(paths), FILES_READ_TOGETHER),
                num_parallel_calls=min(self.threads, len(paths), FILES_READ_TOGETHER),
                deterministic=True,
            )
            parsed = images.batch(min(PARSED_TOGETHER, window)).map(
                lambda batch: records.parse_batch(batch, image_shape), num_parallel_calls=self.threads
            )
            windows = parsed.rebatch(window).enumerate(start=epoch * 2**20)
            shuffled = windows.flat_map(self._shuffled)
            return shuffled.rebatch(self.batch_size, drop_remainder=True).take(self.batches_per_epoch)

        return epoch_batches

    def _shuffled(self, index: tf.Tensor, window: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
        """A window's images in batches, in an order of their own: the window itself is not copied."""
        pixels, labels = window
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(labels)[0]), tf.stack([self.seed, index]))

        def batch(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            indices = order[first : first + self.batch_size]
            return tf.gather(pixels, indices), tf.gather(labels, indices)

        return tf.data.Dataset.range(0, tf.size(order, tf.int64), self.batch_size).map(batch)


def validation_batches(dataset: Dataset, shards: Sequence[Shard], batch_size: int) -> tf.data.Dataset:
    """Reads a worker's validation shards once, in order."""
    paths: list[Path] = [dataset.path(shard) for shard in shards]
    return records.read_batches(paths, dataset.manifest.image_shape, batch_size)
