"""Divides a source into train, validation and test shards, in one pass and a constant amount of memory."""

import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tensorflow as tf

from components import records
from components.dataset_manifest import (
    MANIFEST_FILE,
    SPLITS,
    DatasetManifest,
    Shard,
    Split,
    SplitName,
    file_sha256,
)
from components.errors import InvalidInput
from components.ingest.options import IngestOptions
from components.ingest.sources import LabelledImage, Source

# Several shards a worker, so that shuffling their order in each epoch mixes the data; more when they would grow large.
MIN_SHARDS_PER_WORKER = 4
MAX_RAW_SHARD_BYTES = 128 * 2**20
# For sources without a test split. The seed is fixed: results with different seeds stay comparable.
TEST_SHARE = 0.2
TEST_SEED = 20_211
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
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    plan = split_plan(source, options)
    with ExitStack() as open_writers:
        writers = {
            name: open_writers.enter_context(_SplitWriter(partial, name, plan.count(name), source, options))
            for name in SPLITS
        }
        for name, pixels, label in _with_progress(plan.assigned_images(), sum(map(plan.count, SPLITS)), log):
            writers[name].write(pixels, label)
    manifest = DatasetManifest(
        name=source.name,
        version=source.version,
        seed=options.seed,
        image_shape=source.image_shape,
        class_names=source.class_names,
        splits={name: writers[name].split() for name in SPLITS},
    )
    (partial / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2))
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    return manifest


class SplitPlan:
    """Which image of a source goes to which split."""

    def __init__(self, source: Source, validation_share: float, seed: int) -> None:
        self._source = source
        self._test = next((source.splits[name] for name in ("test", "validation") if name in source.splits), None)
        count = source.splits["train"].examples
        # One byte an image: an index into SPLITS.
        self._roles = np.full(count, SPLITS.index("train"), np.uint8)
        if self._test is None:
            chosen = np.random.default_rng(TEST_SEED).permutation(count)[: round(count * TEST_SHARE)]
            self._roles[chosen] = SPLITS.index("test")
        rest = np.flatnonzero(self._roles == SPLITS.index("train"))
        chosen = np.random.default_rng(seed).permutation(rest)[: round(len(rest) * validation_share)]
        self._roles[chosen] = SPLITS.index("validation")

    def count(self, split: SplitName) -> int:
        own = int(np.count_nonzero(self._roles == SPLITS.index(split)))
        return own + (self._test.examples if split == "test" and self._test else 0)

    def assigned_images(self) -> Iterator[tuple[SplitName, np.ndarray, int]]:
        for role, (pixels, label) in zip(self._roles, self._source.splits["train"].images(), strict=True):
            yield SPLITS[role], pixels, label
        if self._test:
            for pixels, label in self._test.images():
                yield "test", pixels, label


def split_plan(source: Source, options: IngestOptions) -> SplitPlan:
    """Plans the splits.

    Raises:
        InvalidInput: When a split would have fewer images than there are workers.
    """
    plan = SplitPlan(source, options.validation_share, options.seed)
    short = [
        f"dataset = {source.name!r}: only {plan.count(name)} {name} images for workers = {options.workers}; "
        "each worker needs at least one: use fewer workers, another validation_share or a larger data set"
        for name in SPLITS
        if plan.count(name) < options.workers
    ]
    if short:
        raise InvalidInput(short)
    return plan


def shard_count(examples: int, image_bytes: int, workers: int) -> int:
    """A multiple of the workers: several shards for each, none of them empty and none larger than 128 MiB raw."""
    wanted = max(MIN_SHARDS_PER_WORKER, math.ceil(examples * image_bytes / workers / MAX_RAW_SHARD_BYTES))
    return workers * min(wanted, examples // workers)


class _SplitWriter:
    def __init__(self, directory: Path, name: SplitName, examples: int, source: Source, options: IngestOptions) -> None:
        count = shard_count(examples, math.prod(source.image_shape), options.workers)
        self._shape = source.image_shape
        self._class_names = source.class_names
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
        if not 0 <= label < len(self._class_names):
            raise InvalidInput(f"an image has the label {label}, outside the {len(self._class_names)} classes")
        if pixels.shape != self._shape:
            pixels = _fitted(pixels, self._shape)
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


def _fitted(pixels: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    from components.preprocessing import fit_image

    return fit_image(tf.constant(pixels), image_shape).numpy()


def _with_progress(
    images: Iterator[tuple[SplitName, np.ndarray, int]], total: int, log: logging.Logger
) -> Iterator[tuple[SplitName, np.ndarray, int]]:
    last = time.monotonic()
    for index, item in enumerate(images):
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            log.info("%d of %d images (%d %%)", index, total, 100 * index // total)
        yield item


__all__ = ["LabelledImage", "SplitPlan", "shard_count", "split_plan", "write_dataset"]
