"""Decoded images that a worker keeps, so that it decodes them once and not in every epoch."""

from collections.abc import Sequence

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import Shard
from kfp_image_classification.components.contracts.preprocessing import ImageShape


class DecodedImages:
    """Keeps the images of a worker's first shards, as many as memory is given for.

    An image is known by its number among all of the worker's shards. Nothing is decoded ahead of its time: images are
    kept as they come by, and memory is taken as they come.
    """

    def __init__(self, shards: Sequence[Shard], image_shape: ImageShape, most_bytes: int) -> None:
        sizes = np.array([shard.examples for shard in shards])
        self.firsts = np.concatenate([[0], np.cumsum(sizes)])
        fitting = np.flatnonzero(self.firsts * int(np.prod(image_shape)) <= most_bytes)[-1]
        self.kept = int(self.firsts[fitting])
        self._pixels = np.empty((self.kept, *image_shape), np.uint8)
        self._labels = np.zeros(self.kept, np.int64)
        self._is_there = np.zeros(self.kept, bool)

    def labels(self, shard: int) -> np.ndarray | None:
        """The labels of a shard all of whose images are kept by now; else None."""
        images = slice(self.firsts[shard], self.firsts[shard + 1])
        if images.stop > self.kept or not self._is_there[images].all():
            return None
        return self._labels[images]

    def completed(self, numbers: np.ndarray, is_new: np.ndarray, new: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Puts a batch together, and keeps what is new of it.

        Args:
            numbers: Of the images, int64 [n].
            is_new: Which of them were decoded just now, bool [n]; all others are kept already.
            new: Those, uint8 [m, height, width, channels].
            labels: Of all images, int64 [n].

        Returns:
            All images, uint8 [n, height, width, channels].
        """
        is_fitting = numbers[is_new] < self.kept
        places = numbers[is_new][is_fitting]
        self._pixels[places], self._labels[places] = new[is_fitting], labels[is_new][is_fitting]
        self._is_there[places] = True
        if is_new.all():
            return new
        batch = np.empty((len(numbers), *self._pixels.shape[1:]), np.uint8)
        batch[is_new], batch[~is_new] = new, self._pixels[numbers[~is_new]]
        return batch
