"""A share that does not fit into memory, in pieces that do: some shards each, whose images are shuffled together.

Order follows from seed and epoch alone. Which shard is read when, and by which thread, decides nothing: each puts its
images where the order of the epoch has them.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import RAW, Dataset, Shard
from kfp_image_classification.components.contracts.preprocessing import decode_images
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.train.worker.decoded_images import DecodedImages

# So many bytes of shards are shuffled together.
WINDOW_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Window:
    """A window that threads fill; it is whole when they all are done.

    Attributes:
        numbers: Of the images in the order of the epoch, int64 [n]; see `DecodedImages`.
        images: As the records have them; of an encoded data set empty where an image is kept decoded.
        labels: int64 [n].
        reading: Its shards.
    """

    numbers: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    reading: list[Future[None]] = field(default_factory=list)


class ShuffledWindows:
    """A share in pieces that fit into memory, each some shards whose images are shuffled with each other.

    While one is used, those that follow are read, as many shards as there are cores; in the epoch after, too.
    """

    def __init__(
        self, dataset: Dataset, shards: Sequence[Shard], seed: int, images_per_epoch: int, decoded: DecodedImages
    ) -> None:
        self._dataset, self._shards, self._seed, self._decoded = dataset, shards, seed, decoded
        self._images_per_epoch = images_per_epoch
        cores = usable_cores()
        self._readers = ThreadPoolExecutor(cores, "read-shards")
        self._image_shape = dataset.manifest.image_shape
        self.is_raw = dataset.manifest.format == RAW
        largest = max(
            shard.examples * int(np.prod(self._image_shape)) if self.is_raw else shard.bytes for shard in shards
        )
        self._together = max(1, WINDOW_BYTES // largest)
        self.count = -(-len(shards) // self._together)
        self._ahead = -(-cores // self._together)
        self._coming: dict[tuple[int, int], _Window] = {}

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._shards))

    def position(self, epoch: int, images: int) -> tuple[int, int]:
        """The window in which an epoch goes on after some images, and how many of its images come before."""
        sizes = np.diff(self._decoded.firsts)[self._order(epoch)]
        ends = np.append(np.cumsum(sizes)[self._together - 1 : -1 : self._together], sizes.sum())
        index = int(np.searchsorted(ends, images, side="right"))
        if index == len(ends):
            raise IndexError(f"epoch {epoch} has no more images")
        return index, images - int(ends[index - 1] if index else 0)

    def pixels(self, epoch: int, index: int, skip: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of a window, in the order of the epoch, without the first `skip` of them.

        Returns:
            Pixels, uint8 [n, height, width, channels]; labels, int64 [n].
        """
        window = self._whole(epoch, index)
        return window.images[skip:], window.labels[skip:]

    def files(self, epoch: int, index: int, skip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Does the same for encoded images.

        Returns:
            Their numbers, int64 [n]; the files, empty where an image is kept decoded; labels, int64 [n].
        """
        window = self._whole(epoch, index)
        return window.numbers[skip:], window.images[skip:], window.labels[skip:]

    def _whole(self, epoch: int, index: int) -> _Window:
        wanted = [(int(epoch), int(index))]
        while len(wanted) <= self._ahead:
            wanted.append(self._after(*wanted[-1]))
        self._coming = {which: self._coming.get(which) or self._begun(*which) for which in wanted}
        window = self._coming.pop(wanted[0])
        for shard in window.reading:
            shard.result()
        return window

    def _after(self, epoch: int, index: int) -> tuple[int, int]:
        """The window that will be wanted after another: the last images of an epoch may not be."""
        last, _ = self.position(epoch, self._images_per_epoch - 1)
        return (epoch, index + 1) if index < last else (epoch + 1, 0)

    def _begun(self, epoch: int, index: int) -> _Window:
        """A window whose shards are being read, each straight to where the order of the epoch has its images."""
        shards = self._order(epoch)[index * self._together : (index + 1) * self._together]
        firsts = self._decoded.firsts
        numbers = np.concatenate([np.arange(firsts[shard], firsts[shard + 1]) for shard in shards])
        order = np.random.default_rng([self._seed, epoch, index]).permutation(len(numbers))
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        window = _Window(
            numbers[order], records.empty_images(self._dataset, len(order)), np.empty(len(order), np.int64)
        )
        ends = np.cumsum([self._shards[shard].examples for shard in shards])[:-1]
        for shard, own in zip(shards, np.split(places, ends), strict=True):
            window.reading.append(self._readers.submit(self._read, int(shard), own, window))
        return window

    def _read(self, shard: int, places: np.ndarray, window: _Window) -> None:
        labels = self._decoded.labels(shard)
        if labels is None:
            labels = records.read_shard_into(self._dataset, self._shards[shard], window.images, places)
        else:
            window.images[places] = b""
        window.labels[places] = labels

    def decode(self, numbers: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The pixels of a batch of files; in a graph."""
        if not self._decoded.kept:
            return decode_images(images, self._image_shape), labels
        is_new = images != ""
        new = decode_images(tf.boolean_mask(images, is_new), self._image_shape)
        return tf.numpy_function(self._decoded.completed, [numbers, is_new, new, labels], tf.uint8), labels
