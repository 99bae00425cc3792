"""A worker's share of the training images, as an endless stream whose content depends on the seed and position alone.

Sharding is by file: a worker opens its own shards and reads no others. (AutoShardPolicy.FILE does the same division
inside tf.data; doing it here skips that rewrite, which costs several times the CPU of the reading itself.) As the
stream is a function of (seed, epoch, step), training continues after a restart with the very batch that was next, and
reads nothing of what was before it.

Each shard is compared with its checksum whenever it is read, before any image of it is used.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import RAW, Dataset, Shard
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.untuned_reading import untuned
from kfp_image_classification.components.train.worker.augmentation import AUGMENTATIONS
from kfp_image_classification.components.train.worker.decoded_images import DecodedImages
from kfp_image_classification.components.train.worker.shuffled_windows import ShuffledWindows

# In a worker on the CPU, a share of raw pixels up to this size is kept in memory, and shuffled whole.
WHOLE_SHARE_BYTES = 64 * 2**20
# Batches that are ready before they are wanted.
BATCHES_AHEAD = 4
# Of the memory for decoded images, what those of the validation may take.
VALIDATION_PART = 4

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
    cache_bytes: int = 0,
    threads: int = 1,
    whole_share_bytes: int = WHOLE_SHARE_BYTES,
    together: int = 0,
) -> tf.data.Dataset:
    """Streams a worker's training batches for ever.

    Args:
        dataset: Where the shards lie.
        shards: The worker's own shards.
        batch_size: Images in a batch.
        batches_per_epoch: Batches taken from each pass over the shards; the rest of a pass is left out.
        seed: Decides the order of shards and images in each epoch.
        first_batch: Position in the stream at which to start.
        augmentation: Name of the random changes to the images.
        cache_bytes: Memory in which decoded images may be kept.
        threads: How many batches of a share in memory are made at a time.
        whole_share_bytes: A share of raw pixels up to this size is kept in memory, and shuffled whole.
        together: How many batches are one element of the stream; 0 for elements that are batches.

    Returns:
        Batches of uint8 pixels [batch_size, height, width, channels] and int64 labels [batch_size], or groups of them,
        with one dimension more in front. When a shard is not the one that ingest has written, its iterator raises an
        error of TensorFlow's, and `dataset.refused` tells.
    """
    image_shape = dataset.manifest.image_shape
    plan = _EpochPlan(dataset, shards, batch_size, batches_per_epoch, seed, first_batch, cache_bytes)
    share_bytes = sum(shard.examples for shard in shards) * int(np.prod(image_shape))
    in_memory = dataset.manifest.format == RAW and share_bytes <= whole_share_bytes
    epoch_batches, decode = plan.from_memory() if in_memory else plan.from_files()
    stream = tf.data.Dataset.counter(first_batch // batches_per_epoch, dtype=tf.int64).flat_map(epoch_batches)
    # Workers have different shards, so this sets their augmentation apart.
    own_seed = tf.constant(seed + zlib.crc32(shards[0].file.encode()), tf.int64)
    augment = AUGMENTATIONS[augmentation]

    def finish(position: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, labels = decode(*batch) if decode else batch
        pixels = tf.ensure_shape(pixels, (batch_size, *image_shape))
        if augment:
            pixels = augment(pixels, tf.stack([own_seed, position]))
        return pixels, tf.ensure_shape(labels, (batch_size,))

    if decode or augment:
        # Several batches at a time, each where it belongs: the number of cores changes nothing.
        stream = stream.enumerate(start=first_batch).map(
            finish, num_parallel_calls=threads if in_memory else usable_cores(), deterministic=True
        )
    # Knowing that the stream never ends spares the strategy a round of messages before each step.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    stream = stream.apply(endless)
    stream = stream.batch(together, drop_remainder=True) if together else stream
    return stream.prefetch(BATCHES_AHEAD).with_options(untuned())


Decode = Callable[..., tuple[tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class _EpochPlan:
    """How an epoch's batches are made. Their order follows from seed and epoch alone."""

    dataset: Dataset
    shards: Sequence[Shard]
    batch_size: int
    batches_per_epoch: int
    seed: int
    first_batch: int
    cache_bytes: int

    @property
    def _first(self) -> tuple[int, int]:
        """The epoch in which the stream starts, and how many batches of it are left out."""
        return divmod(self.first_batch, self.batches_per_epoch)

    def from_memory(self) -> tuple[EpochBatches, Decode]:
        """For a small share of raw pixels: read once, in a new order each epoch."""
        batches = list(records.read_batches(self.dataset, self.shards, self.batch_size))
        pixels, labels = (tf.constant(np.concatenate(parts)) for parts in zip(*batches, strict=True))
        share, (first_epoch, skipped) = len(labels), self._first

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(tf.range(share), seed)
            taken = tf.reshape(order[: self.batches_per_epoch * self.batch_size], [-1, self.batch_size])
            return tf.data.Dataset.from_tensor_slices((taken[tf.where(epoch == first_epoch, skipped, 0) :],))

        def decode(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.gather(pixels, indices), tf.gather(labels, indices)

        return epoch_batches, decode

    def from_files(self) -> tuple[EpochBatches, Decode | None]:
        """For any other share: shards in a new order each epoch, several read together and shuffled with each other."""
        decoded = DecodedImages(self.shards, self.dataset.manifest.image_shape, self.cache_bytes)
        windows = ShuffledWindows(
            self.dataset, self.shards, self.seed, self.batches_per_epoch * self.batch_size, decoded
        )
        first_epoch, skipped = self._first
        first_window, left_out = windows.position(first_epoch, skipped * self.batch_size)
        shape = self.dataset.manifest.image_shape

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            is_first = epoch == first_epoch

            def read(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
                skip = tf.where(is_first & (index == first_window), np.int64(left_out), np.int64(0))
                if windows.is_raw:
                    pixels, labels = tf.numpy_function(windows.pixels, [epoch, index, skip], [tf.uint8, tf.int64])
                    return tf.ensure_shape(pixels, [None, *shape]), tf.ensure_shape(labels, [None])
                kinds = [tf.int64, tf.string, tf.int64]
                found = tf.numpy_function(windows.files, [epoch, index, skip], kinds)
                return tuple(tf.ensure_shape(part, [None]) for part in found)

            indices = tf.data.Dataset.range(tf.where(is_first, np.int64(first_window), np.int64(0)), windows.count)
            images = indices.map(read).rebatch(self.batch_size, drop_remainder=True)
            return images.take(self.batches_per_epoch - tf.where(is_first, np.int64(skipped), np.int64(0)))

        return epoch_batches, None if windows.is_raw else windows.decode


class ValidationBatches(Iterable[tuple[tf.Tensor, tf.Tensor]]):
    """A worker's validation images, in order, as often as they are wanted; decoded once where there is memory."""

    def __init__(self, dataset: Dataset, shards: Sequence[Shard], batch_size: int, cache_bytes: int = 0) -> None:
        self._dataset, self._shards, self._batch_size = dataset, shards, batch_size
        size = sum(shard.examples for shard in shards) * int(np.prod(dataset.manifest.image_shape))
        self._keeps = size <= cache_bytes
        self._kept: list[tuple[tf.Tensor, tf.Tensor]] = []

    def __iter__(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Passes over all images once.

        Raises:
            StageFailed: When a shard is not the one that ingest has written.
        """
        if self._kept:
            yield from self._kept
            return
        passed = []
        for batch in records.read_batches(self._dataset, self._shards, self._batch_size):
            if self._keeps:
                passed.append(batch)
            yield batch
        self._kept = passed
