"""Writes shards, on all cores that this step may use.

A thread writes a shard. What takes the time (decoding, compressing, reading files) is done by libraries that leave the
interpreter to others meanwhile, so threads keep all cores busy, and none of them has to load TensorFlow anew.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import compress, groupby, islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import RAW, Shard, SplitName
from kfp_image_classification.components.contracts.image_formats import JPEG_START, PNG_START
from kfp_image_classification.components.contracts.jpeg_segments import has_all_scans
from kfp_image_classification.components.contracts.pixel_sums import PixelSums
from kfp_image_classification.components.contracts.preprocessing import check_image, decode_image, decode_png, fit_image
from kfp_image_classification.components.ingest.observed import NOTE, is_measured, note
from kfp_image_classification.components.ingest.shard_plan import PlannedShard, ShardPlan
from kfp_image_classification.components.ingest.sources.source import Content, Missing
from kfp_image_classification.components.ingest.unusable_images import UnusableImages, unusable
from kfp_image_classification.components.step.cpu_limit import usable_cores

PROGRESS_SECONDS = 5.0
# Examples that a thread holds in memory, and whose files it decodes in one call of TensorFlow.
READ_TOGETHER = 32
# The same for images with no more values than that, where the calls would take the time.
SMALL_TOGETHER, SMALL = 256, 4096
# Pieces of each split, so that no core is left without work when others are still busy.
RUNS_A_CORE = 4


@dataclass(frozen=True)
class WrittenShard:
    """A shard on disk, and what was noted on the way.

    Attributes:
        split: Whose it is.
        shard: As the manifest lists it.
        notes: `NOTE` [n], of each example.
        sums: Over the pixels of those examples that are measured.
        unusable: Why examples are not in it, in words.
    """

    split: SplitName
    shard: Shard
    notes: np.ndarray
    sums: PixelSums
    unusable: list[str]


def write_shards(
    plan: ShardPlan, shards: Sequence[PlannedShard], directory: Path, log: logging.Logger
) -> list[WrittenShard]:
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
    writer, cores = _Writer(plan, directory), usable_cores()
    with ThreadPoolExecutor(cores, "write-shards") as pool:
        writing = [pool.submit(writer.write, run) for run in _runs(shards, cores)]
        try:
            _follow(writing, shards, log)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    written = [one for done in writing for one in done.result()]
    if reasons := [reason for one in written for reason in one.unusable]:
        raise UnusableImages(plan.source.name, reasons)
    return written


def _runs(shards: Sequence[PlannedShard], cores: int) -> Iterator[list[PlannedShard]]:
    """Neighbours, which one thread writes from one pass over their stretch of the source: some for each core."""
    for _, of_split in groupby(shards, lambda shard: shard.split):
        same = list(of_split)
        size = math.ceil(len(same) / (cores * RUNS_A_CORE))
        yield from (same[start : start + size] for start in range(0, len(same), size))


def _follow(
    writing: "Sequence[Future[list[WrittenShard]]]", shards: Sequence[PlannedShard], log: logging.Logger
) -> None:
    total = sum(len(shard.indices) for shard in shards)
    waiting = True
    while waiting:
        done, left = wait(writing, PROGRESS_SECONDS, FIRST_EXCEPTION)
        written = sum(one.shard.examples for run in done for one in run.result())
        waiting = bool(left)
        if waiting:
            log.info("%d of %d images (%d %%)", written, total, 100 * written // total)


class _NotWhole(Exception):
    """An example is missing, or does not tell all of its pixels."""


class _Writer:
    def __init__(self, plan: ShardPlan, directory: Path) -> None:
        shape = plan.source.image_shape
        self._shape = shape
        self._together = SMALL_TOGETHER if math.prod(shape) <= SMALL else READ_TOGETHER
        self._layout, self._directory = plan.layout, directory
        self._decode = _each(lambda file: decode_image(file, shape), tf.TensorSpec(shape, tf.uint8))
        self._decode_pngs = _each(lambda file: decode_png(file, shape), tf.TensorSpec(shape, tf.uint8))
        self._check = _each(lambda file: tf.size(check_image(file, shape)), tf.TensorSpec([], tf.int32))

    def write(self, run: list[PlannedShard]) -> list[WrittenShard]:
        """Writes neighbours, all of the same examples of the source."""
        contents = run[0].examples.pick(np.concatenate([planned.indices for planned in run]))
        with tf.device("CPU:0"):
            return [self._write(planned, contents) for planned in run]

    def _write(self, planned: PlannedShard, contents: Iterator[Content | Missing]) -> WrittenShard:
        labels, indices = planned.labels.tolist(), planned.indices.tolist()
        notes: list[tuple[int, ...]] = []
        sums, bad = PixelSums(self._shape[2]), list[str]()
        with records.ShardWriter(self._directory / planned.file, self._layout) as writer:
            for start in range(0, len(labels), self._together):
                part = slice(start, min(start + self._together, len(labels)))
                some = list(islice(contents, part.stop - start))
                measured = [
                    is_measured(planned.before + position, planned.split_examples, self._layout)
                    for position in range(start, part.stop)
                ]
                try:
                    whole = _whole(some)
                    images, pixels = self._images(whole, measured)
                except (tf.errors.OpError, _NotWhole):
                    bad += (problems := list(self._problems(some, planned, indices[part])))
                    if not problems:
                        raise
                    continue
                notes += map(note, indices[part], labels[part], whole)
                writer.write(images, labels[part])
                for image in pixels:
                    sums.measure(image)
            shard = writer.finish()
        return WrittenShard(planned.split, shard, np.array(notes, NOTE), sums, bad)

    def _images(self, some: list[Content], measured: list[bool]) -> tuple[list[bytes], Sequence[np.ndarray]]:
        """What the records of some examples hold, and the pixels of those that are measured.

        Raises:
            tf.errors.OpError: When one does not decode.
        """
        if files := [one for one in some if isinstance(one, bytes)]:  # of a source, all are files or none is
            return self._read(files, measured)
        images = [self._of_pixels(one) for one in some if isinstance(one, np.ndarray)]
        return images, [self._pixels(image) for image in compress(images, measured)]

    def _problems(self, some: list[Content | Missing], planned: PlannedShard, indices: list[int]) -> Iterator[str]:
        for index, one in zip(indices, some, strict=True):
            if isinstance(one, Missing):
                yield one.reason
            elif isinstance(one, bytes) and not self._is_sound(one):
                yield unusable(planned.examples.name(index), one)

    def _read(self, files: list[bytes], measured: list[bool]) -> tuple[list[bytes], Sequence[np.ndarray]]:
        """What the records of image files hold, and the pixels of some; each file is decoded once."""
        if self._layout == RAW:
            are_pngs = all(file.startswith(PNG_START) for file in files)
            pixels = (self._decode_pngs if are_pngs else self._decode)(tf.constant(files)).numpy()
            return [image.tobytes() for image in pixels], list(compress(pixels, measured))
        if others := [file for file, is_shown in zip(files, measured, strict=True) if not is_shown]:
            self._check(tf.constant(others))
        if shown := list(compress(files, measured)):
            return files, self._decode(tf.constant(shown)).numpy()
        return files, []

    def _is_sound(self, file: bytes) -> bool:
        try:
            self._read([file], [False])
        except tf.errors.OpError:
            return False
        return _is_told_whole(file)

    def _pixels(self, image: bytes) -> np.ndarray:
        """What a record holds, as pixels of the data set's size."""
        if self._layout == RAW:
            return np.frombuffer(image, np.uint8).reshape(self._shape)
        pixels: np.ndarray = self._decode(tf.constant([image])).numpy()[0]
        return pixels

    def _of_pixels(self, pixels: np.ndarray) -> bytes:
        if self._layout == RAW:
            fitted = pixels if pixels.shape == self._shape else fit_image(tf.constant(pixels), self._shape).numpy()
            return bytes(fitted.tobytes())
        return bytes(tf.io.encode_png(pixels).numpy())


def _whole(some: list[Content | Missing]) -> list[Content]:
    """The same.

    Raises:
        _NotWhole: When one is missing, or does not tell all of its pixels.
    """
    whole = [one for one in some if not isinstance(one, Missing)]
    if len(whole) < len(some) or not all(_is_told_whole(one) for one in whole if isinstance(one, bytes)):
        raise _NotWhole
    return whole


def _is_told_whole(file: bytes) -> bool:
    """Whether a decoder has nothing to guess, which the server's would do otherwise than TensorFlow's."""
    return not file.startswith(JPEG_START) or has_all_scans(file)


def _each(function: Callable[[tf.Tensor], tf.Tensor], result: tf.TensorSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of several files, one after the other: there is a thread for every core already."""
    compiled: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda files: tf.map_fn(function, files, fn_output_signature=result, parallel_iterations=1),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    return compiled
