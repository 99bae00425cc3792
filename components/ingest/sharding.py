"""Divides a source into train, validation and test shards, in one pass and a constant amount of memory."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import (
    MANIFEST_FILE,
    SPLITS,
    Dataset,
    DatasetManifest,
    Shard,
    Split,
    SplitName,
    file_sha256,
)
from kfp_image_classification.components.contracts.pixel_sums import PixelSums
from kfp_image_classification.components.contracts.preprocessing import decode_image, fit_image
from kfp_image_classification.components.ingest.observed import NOTE, data_report, is_measured, note
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.source import Content, ImageShape, Source
from kfp_image_classification.components.ingest.split_plan import SplitPlan, plan_splits
from kfp_image_classification.components.ingest.unusable_images import UnusableImages, unusable
from kfp_image_classification.components.step.whole_file import publish_folder, write_whole

# Several shards a worker, so that shuffling their order in each epoch mixes the data; more when they would grow large.
MIN_SHARDS_PER_WORKER = 4
MAX_RAW_SHARD_BYTES = 128 * 2**20
PROGRESS_SECONDS = 5.0


def write_dataset(source: Source, options: IngestOptions, directory: Path, log: logging.Logger) -> DatasetManifest:
    """Writes shards and manifest; the folder appears under its name only when it is whole.

    Args:
        source: What to read.
        options: Shares, seed and workers.
        directory: The folder to create; whatever stands there is replaced.
        log: Told about progress.

    Raises:
        InvalidInput: When the source has too few images for three splits and this many workers.
        UnusableImages: Naming all images that do not decode.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    plan = plan_splits(source, options)
    with ExitStack() as open_writers:
        writers = {
            name: open_writers.enter_context(_SplitWriter(partial, name, plan.count(name), source, options))
            for name in SPLITS
        }
        problems: list[str] = []
        notes: dict[SplitName, list[tuple[int, ...]]] = {name: [] for name in SPLITS}
        sums = {name: PixelSums(source.image_shape[2]) for name in SPLITS}
        for split, index, content, label, name in _with_progress(_assigned(plan), sum(map(plan.count, SPLITS)), log):
            try:
                pixels = _pixels(content, source.image_shape)
            except tf.errors.InvalidArgumentError:
                problems.append(unusable(name(), bytes(content)))
                continue
            if is_measured(len(notes[split]), plan.count(split)):
                sums[split].measure(pixels)
            notes[split].append(note(index, label, content))
            writers[split].write(pixels, label)
        if problems:
            raise UnusableImages(source.name, problems)
    manifest = DatasetManifest(
        name=source.name,
        version=source.version,
        seed=options.seed,
        image_shape=source.image_shape,
        class_names=source.class_names,
        splits={name: writers[name].split() for name in SPLITS},
        report=data_report(source, plan, {name: np.array(notes[name], NOTE) for name in SPLITS}, sums),
    )
    (partial / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    publish_folder(partial, directory, last=MANIFEST_FILE)
    return manifest


def write_manifest_alone(dataset: Dataset, name: str, directory: Path) -> DatasetManifest:
    """Writes into `directory` the manifest of a data set whose shards stay where they are; returns it.

    Args:
        dataset: The data set.
        name: As its user calls it; another may have made the same one by another name.
        directory: Created when it is not there.
    """
    manifest = dataset.manifest.model_copy(update={"root": str(dataset.directory.absolute()), "name": name})
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / MANIFEST_FILE, manifest.model_dump_json(indent=2))
    return manifest


def shard_count(examples: int, image_bytes: int, workers: int) -> int:
    """A multiple of the workers: several shards for each, none of them empty and none larger than 128 MiB raw."""
    wanted = max(MIN_SHARDS_PER_WORKER, math.ceil(examples * image_bytes / workers / MAX_RAW_SHARD_BYTES))
    return workers * min(wanted, examples // workers)


class _SplitWriter:
    def __init__(self, directory: Path, name: SplitName, examples: int, source: Source, options: IngestOptions) -> None:
        count = shard_count(examples, math.prod(source.image_shape), options.workers)
        self._class_counts = np.zeros(len(source.class_names), np.int64)
        self._paths = [directory / f"{name}-{index:05d}-of-{count:05d}.tfrecord.gz" for index in range(count)]
        self._counts = [0] * count
        self._writers: list[tf.io.TFRecordWriter] = []
        self._random = np.random.default_rng([options.seed, SPLITS.index(name)])
        self._round: list[int] = []

    def __enter__(self) -> "_SplitWriter":
        self._writers = [records.writer(path) for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()

    def write(self, pixels: np.ndarray, label: int) -> None:
        if not self._round:
            # Each round gives every shard one image, in random order: random contents, equal sizes.
            self._round = list(self._random.permutation(len(self._writers)))
        shard = self._round.pop()
        self._writers[shard].write(records.serialize(pixels, label))
        self._counts[shard] += 1
        self._class_counts[label] += 1

    def split(self) -> Split:
        return Split(
            shards=[
                Shard(file=path.name, examples=count, bytes=path.stat().st_size, sha256=file_sha256(path))
                for path, count in zip(self._paths, self._counts, strict=True)
            ],
            class_counts=self._class_counts.tolist(),
        )


_Assigned = tuple[SplitName, int, Content, int, Callable[[], str]]


def _assigned(plan: SplitPlan) -> Iterator[_Assigned]:
    for split in SPLITS:
        for examples, indices in plan.parts(split):
            labels = examples.labels()
            chosen = np.zeros(len(examples), bool)
            chosen[indices] = True
            for index, content in enumerate(examples.read(0, len(examples))):
                if chosen[index]:
                    yield split, index, content, int(labels[index]), partial(examples.name, index)


def _pixels(content: Content, image_shape: ImageShape) -> np.ndarray:
    if isinstance(content, bytes):
        fitted = decode_image(tf.constant(content), image_shape)
    else:
        fitted = fit_image(tf.constant(content), image_shape)
    pixels: np.ndarray = fitted.numpy()
    return pixels


def _with_progress(images: Iterator[_Assigned], total: int, log: logging.Logger) -> Iterator[_Assigned]:
    last = time.monotonic()
    for index, item in enumerate(images):
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            log.info("%d of %d images (%d %%)", index, total, 100 * index // total)
        yield item
