"""`make bench-reading`: images a second that a worker's input gives, on one core and on two, against decoding alone.

The bound unpacks and decodes the same images from memory, with the same functions and as many cores, and does nothing
else: no reading, no checksum, no shuffling, no batches. Ours is taken as a training takes it, many batches a call, and
from its second epoch on. Each figure is of a process of its own, and of a few seconds.
On a machine that has other work, images in a second of a CPU are what counts.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.child import child
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from kfp_image_classification.components.contracts.dataset_manifest import Dataset
    from kfp_image_classification.components.ingest.sources.source import Source

SECONDS = 4.0
BATCH = 32
BATCHES_A_CALL = 20
PHOTOGRAPHS = 2_000
DISTINCT = 500
# Raw pixels: more than a worker keeps.
RAW_BYTES = 96 * 10**6
# What the data is, how it is kept, and the size to which images are fitted; 0 leaves it.
DATA = {
    "raw digits, 28 x 28": ("raw", 28),
    "raw 32 x 32": ("raw", 32),
    "raw 64 x 64": ("raw", 64),
    "encoded, fitted to 224 x 224": ("encoded", 224),
    "encoded, 500 x 375 as they are": ("encoded", 0),
}


def write(data: str, source: Path, target: Path) -> None:
    import logging
    from dataclasses import replace

    from benchmarks.photographs import SHAPE
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.ingest.sharding import write_dataset
    from kfp_image_classification.components.ingest.sources.opening import open_source

    record_format, size = DATA[data]
    options = IngestOptions(
        dataset=f"image_folder:{source}",
        validation_share=0.1,
        workers=1,
        seed=0,
        image_size=size,
        record_format=record_format,
    )
    found = open_source(options) if record_format == "encoded" else _digits() if "digits" in data else _small(size)
    write_dataset(found if size else replace(found, image_shape=SHAPE), options, target, logging.getLogger())


def _digits() -> "Source":
    from benchmarks.ingest.run import digits
    from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source

    pixels, labels = digits(RAW_BYTES // 28**2)
    few = PixelExamples(pixels[:1000], labels[:1000])
    splits = {"train": PixelExamples(pixels, labels), "validation": few, "test": few}
    return Source("digits", "1", [str(label) for label in range(10)], (28, 28, 1), splits)


def _small(size: int) -> "Source":
    """A few photographs in a small size, as if they were many."""
    import io

    import numpy as np
    from PIL import Image

    from benchmarks.photographs import CLASSES, photograph
    from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source

    images = (Image.open(io.BytesIO(photograph(number))) for number in range(DISTINCT))
    pixels = np.stack([np.asarray(image.resize((size, size))) for image in images])
    chosen = np.arange(RAW_BYTES // pixels[0].size) % DISTINCT
    train = PixelExamples(pixels[chosen], (chosen % CLASSES).astype(np.int32))
    few = PixelExamples(pixels[:100], train.labels()[:100])
    splits = {"train": train, "validation": few, "test": few}
    return Source("photographs", "1", [str(label) for label in range(CLASSES)], (size, size, 3), splits)


def stream(directory: Path, way: str, cores: int) -> Iterable[object]:
    import numpy as np
    import tensorflow as tf

    from kfp_image_classification.components.contracts import records
    from kfp_image_classification.components.contracts.dataset_manifest import RAW, Dataset
    from kfp_image_classification.components.contracts.preprocessing import decode_images
    from kfp_image_classification.components.train.worker import input_pipeline

    dataset = Dataset(directory)
    shards = dataset.manifest.splits["train"].shards
    if way == "ours":
        steps = input_pipeline.steps_per_epoch(shards, 1, BATCH)
        return input_pipeline.training_batches(dataset, shards, BATCH, steps, 0)
    if way == "ours, kept":
        steps = input_pipeline.steps_per_epoch(shards, 1, BATCH)
        return input_pipeline.training_batches(dataset, shards, BATCH, steps, 0, cache_bytes=2**32)
    if way == "usual":
        return _usual(dataset, cores)
    if dataset.manifest.format == RAW:
        return _unpacked([dataset.read(shard) for shard in shards], dataset.manifest.image_shape, cores)
    images = [image for some, _ in records.read_files(dataset, shards[:4], BATCH) for image in some]
    batches = tf.data.Dataset.from_tensor_slices(np.array(images[: len(images) // BATCH * BATCH]).reshape(-1, BATCH))
    return (
        batches.cache()
        .repeat()
        .map(
            lambda batch: (decode_images(batch, dataset.manifest.image_shape),),
            num_parallel_calls=cores,
            deterministic=True,
        )
    )


def _usual(dataset: "Dataset", cores: int) -> Iterable[object]:
    """The training images as tf.data's documentation would have them read."""
    import tensorflow as tf

    from kfp_image_classification.components.contracts.dataset_manifest import RAW
    from kfp_image_classification.components.contracts.preprocessing import decode_images

    is_raw, shape = dataset.manifest.format == RAW, dataset.manifest.image_shape
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(batch, features)
        if is_raw:
            return tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), (-1, *shape)), parsed["label"]
        return decode_images(parsed["image"], shape), parsed["label"]

    files = [str(dataset.path(shard)) for shard in dataset.manifest.splits["train"].shards]
    found = tf.data.TFRecordDataset(files, "GZIP" if is_raw else "", num_parallel_reads=cores)
    batches = found.repeat().batch(BATCH, drop_remainder=True).map(parse, num_parallel_calls=cores)
    return batches.prefetch(tf.data.AUTOTUNE)


def _unpacked(files: list[bytes], image_shape: tuple[int, int, int], cores: int) -> Iterable[object]:
    """Batches, one after the other, of shards that several threads unpack."""
    from kfp_image_classification.components.contracts import records
    from kfp_image_classification.components.contracts.dataset_manifest import RAW

    def unpack(file: bytes) -> int:
        images, _ = records.unpack(file, RAW, image_shape)
        return len(images) // BATCH

    with ThreadPoolExecutor(cores) as pool:
        coming = deque(pool.submit(unpack, file) for file in files[: 2 * cores])
        for file in cycle(files):
            coming.append(pool.submit(unpack, file))
            yield from range(coming.popleft().result())


def measure(directory: Path, way: str, cores: int) -> dict[str, float]:
    batches = stream(directory, way, cores)
    take = _call(iter(batches))
    for _ in range(_warm_up(directory, way) // (BATCH * BATCHES_A_CALL) + 1):
        take()
    count, cpu, started = 0, time.process_time(), time.monotonic()
    while time.monotonic() - started < SECONDS:
        take()
        count += BATCH * BATCHES_A_CALL
    return {"rate": count / (time.monotonic() - started), "cpu_rate": count / (time.process_time() - cpu)}


def _warm_up(directory: Path, way: str) -> int:
    """So many images are taken before: an epoch of ours; two, where images are kept decoded after the first."""
    from kfp_image_classification.components.contracts.dataset_manifest import Dataset

    epochs = {"bound": 0, "usual": 0, "ours": 1, "ours, kept": 2}[way]
    return epochs * Dataset(directory).manifest.splits["train"].examples


def _call(batches: Iterator[object]) -> Callable[[], object]:
    """Takes some batches: TensorFlow's in one call, as the training steps do."""
    import tensorflow as tf

    if not isinstance(batches, tf.data.Iterator):
        return lambda: deque(islice(batches, BATCHES_A_CALL), maxlen=0)

    @tf.function
    def take(some: Iterator[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
        count = tf.constant(0)
        for _ in tf.range(BATCHES_A_CALL):
            count += tf.shape(next(some)[0])[0]
        return count

    return lambda: take(batches)


def own_child(*arguments: str) -> dict[str, float]:
    figures: dict[str, float] = child(
        "benchmarks.train.reading_speed", [*arguments], {**WORKER_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "-1"}
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", choices=DATA)
    parser.add_argument("--way", choices=["ours", "ours, kept", "usual", "bound"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--data", nargs="+", choices=DATA, default=[*DATA])
    arguments = parser.parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: arguments.cores if arguments.way else None]))
    if arguments.write:
        write(arguments.write, arguments.source, arguments.directory)
        print("{}")
        return
    if arguments.way:
        print(json.dumps(measure(arguments.directory, arguments.way, arguments.cores)))
        return
    from benchmarks.photographs import write_photographs

    in_a_second = ("a second: 1 core", "2 cores", "2 / 1")
    table = Table("images", "way", *in_a_second, "a CPU second: 1 core", "2 cores", "of the bound: 1 core", "2 cores")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "photographs")
        write_photographs(source, PHOTOGRAPHS, DISTINCT)
        for number, data in enumerate(arguments.data):
            directory = f"{scratch}/{number}"
            own_child("--write", data, "--source", str(source), "--directory", directory)
            _rows(table, data, directory)
    Console(soft_wrap=True, markup=False, emoji=False).print(table)


def _rows(table: Table, data: str, directory: str) -> None:
    bounds: dict[int, dict[str, float]] = {}
    for way in ("bound", "usual", "ours", "ours, kept"):
        if way == "ours, kept" and not data.startswith("encoded, fitted"):
            continue
        rates = {cores: own_child("--directory", directory, "--way", way, "--cores", str(cores)) for cores in (1, 2)}
        bounds = bounds or rates
        print(data, way, rates, file=sys.stderr)
        table.add_row(
            data,
            way,
            *(f"{rates[cores]['rate']:,.0f}" for cores in (1, 2)),
            f"{rates[2]['rate'] / rates[1]['rate']:.2f}",
            *(f"{rates[cores]['cpu_rate']:,.0f}" for cores in (1, 2)),
            *(f"{rates[cores]['cpu_rate'] / bounds[cores]['cpu_rate']:.2f}" for cores in (1, 2)),
        )


if __name__ == "__main__":
    main()
