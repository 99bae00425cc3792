"""Writes shards, on all cores that this step may use.

A thread writes a shard. What takes the time (decoding, compressing, reading files) is done by libraries that leave the
interpreter to others meanwhile, so threads keep all cores busy, and none of them has to load TensorFlow anew.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import RAW, Shard, file_sha256
from kfp_image_classification.components.contracts.preprocessing import check_image, decode_image, fit_image
from kfp_image_classification.components.ingest.shard_plan import PlannedShard, ShardPlan
from kfp_image_classification.components.ingest.sources.source import Content
from kfp_image_classification.components.ingest.unusable_images import UnusableImages, unusable
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.errors import InvalidInput

PROGRESS_SECONDS = 5.0
# Files that are decoded in one call of TensorFlow, and so held in memory by each thread.
DECODED_TOGETHER = 32


def write_shards(plan: ShardPlan, shards: Sequence[PlannedShard], directory: Path, log: logging.Logger) -> list[Shard]:
    """Writes some shards of a plan into a folder.

    Args:
        plan: The whole.
        shards: What to write of it.
        directory: Must exist.
        log: Told about progress.

    Returns:
        What was written, in the order of `shards`.

    Raises:
        UnusableImages: Naming all images that do not decode, of all these shards.
    """
    writer = _ShardWriter(plan, directory)
    with ThreadPoolExecutor(usable_cores(), "write-shards") as pool:
        writing = [pool.submit(writer.write, shard) for shard in shards]
        try:
            _follow(writing, shards, log)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if reasons := [reason for done in writing for reason in done.result().unusable]:
        raise UnusableImages(plan.source.name, reasons)
    return [done.result().shard for done in writing]


def _follow(writing: "Sequence[Future[_Written]]", shards: Sequence[PlannedShard], log: logging.Logger) -> None:
    total = sum(len(shard.indices) for shard in shards)
    waiting = True
    while waiting:
        done, left = wait(writing, PROGRESS_SECONDS, FIRST_EXCEPTION)
        written = sum(one.result().shard.examples for one in done)
        waiting = bool(left)
        if waiting:
            log.info("%d of %d images (%d %%)", written, total, 100 * written // total)


@dataclass(frozen=True)
class _Written:
    shard: Shard
    unusable: list[str]


class _ShardWriter:
    def __init__(self, plan: ShardPlan, directory: Path) -> None:
        shape = plan.source.image_shape
        self._classes, self._shape = len(plan.source.class_names), shape
        self._layout, self._directory = plan.layout, directory
        self._decode = _each(lambda file: decode_image(file, shape), tf.TensorSpec(shape, tf.uint8))
        self._check = _each(lambda file: tf.size(check_image(file, shape)), tf.TensorSpec([], tf.int32))

    def write(self, planned: PlannedShard) -> _Written:
        labels = planned.labels
        if len(labels) and not 0 <= labels.min() <= labels.max() < self._classes:
            raise InvalidInput(f"an image has a label outside the {self._classes} classes: {set(labels.tolist())}")
        path = self._directory / planned.file
        bad: list[str] = []
        with tf.device("CPU:0"), records.writer(path, self._layout) as writer:
            contents, position = planned.examples.pick(planned.indices), 0
            while some := list(islice(contents, DECODED_TOGETHER)):
                names = planned.indices[position : position + len(some)]
                for offset, image in enumerate(self._images(some, planned, names, bad)):
                    writer.write(records.serialize(image, int(labels[position + offset])))
                position += len(some)
        shard = Shard(file=planned.file, examples=len(labels), bytes=path.stat().st_size, sha256=file_sha256(path))
        return _Written(shard, bad)

    def _images(
        self, some: list[Content], planned: PlannedShard, indices: np.ndarray, bad: list[str]
    ) -> Iterator[bytes]:
        """What the records of some examples hold; notes those that do not decode."""
        yield from (self._of_pixels(one) for one in some if not isinstance(one, bytes))
        files = [one for one in some if isinstance(one, bytes)]  # of a source, all are or none
        if not files:
            return
        try:
            pixels = self._read(files)
        except tf.errors.OpError:
            bad += [
                unusable(planned.examples.name(int(index)), file)
                for index, file in zip(indices, files, strict=True)
                if not self._is_sound(file)
            ]
            return
        yield from files if pixels is None else (image.tobytes() for image in pixels)

    def _read(self, files: list[bytes]) -> np.ndarray | None:
        """The pixels of image files where they are kept as such; of others, sees that there are some."""
        images = tf.constant(files)
        if self._layout == RAW:
            pixels: np.ndarray = self._decode(images).numpy()
            return pixels
        self._check(images)
        return None

    def _is_sound(self, file: bytes) -> bool:
        try:
            self._read([file])
        except tf.errors.OpError:
            return False
        return True

    def _of_pixels(self, pixels: np.ndarray) -> bytes:
        if self._layout == RAW:
            fitted = pixels if pixels.shape == self._shape else fit_image(tf.constant(pixels), self._shape).numpy()
            return bytes(fitted.tobytes())
        return bytes(tf.io.encode_png(pixels).numpy())


def _each(function: Callable[[tf.Tensor], tf.Tensor], result: tf.TensorSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of several files, one after the other: there is a thread for every core already."""
    compiled: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda files: tf.map_fn(function, files, fn_output_signature=result, parallel_iterations=1),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    return compiled
