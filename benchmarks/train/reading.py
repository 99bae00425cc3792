"""`make bench-reading`: the bytes each worker reads, and peak memory of ingest and reading, at 1x and 10x data."""

import argparse
import json
import resource
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.child import child
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

IMAGES = 30_000  # 92 MB of raw pixels: more than the shuffle window, so that reading streams
SHAPE = (32, 32, 3)
BATCH = 64


def write(images: int, directory: Path) -> None:
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.ingest.sharding import write_dataset
    from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source
    from kfp_image_classification.components.step.stage_log import stage_log

    noise = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), np.uint8)

    class Repeated(PixelExamples):
        """A few images as if they were many."""

        def pick(self, indices: np.ndarray) -> Iterator[np.ndarray]:
            return (self.pixels[index % len(self.pixels)] for index in indices)

    def pictures(count: int) -> Repeated:
        return Repeated(noise, np.arange(count, dtype=np.int32) % 10)

    source = Source(
        "noise", "1", [str(i) for i in range(10)], SHAPE, {"train": pictures(images), "test": pictures(100)}
    )
    options = IngestOptions(dataset="noise", validation_share=0.001, workers=4, seed=0)
    write_dataset(source, options, directory, stage_log("bench"))


def read(directory: Path, workers: int) -> int:
    from kfp_image_classification.components.contracts.dataset_manifest import Dataset
    from kfp_image_classification.components.train.worker.input_pipeline import (
        steps_per_epoch,
        training_batches,
        worker_shards,
    )

    dataset = Dataset(directory)
    shards = dataset.manifest.splits["train"].shards
    steps = steps_per_epoch(shards, workers, BATCH)
    before = _bytes_read()
    stream = training_batches(dataset, worker_shards(shards, 0, workers), BATCH, steps, 0)
    for _ in islice(stream, steps - 8):  # short of what is prefetched from the next epoch
        pass
    return _bytes_read() - before


def _bytes_read() -> int:
    return int(
        next(
            line for line in Path("/proc/self/io").read_text(encoding="utf-8").splitlines() if "rchar" in line
        ).split()[1]
    )


def own_child(*arguments: str) -> dict[str, float]:
    figures: dict[str, float] = child("benchmarks.train.reading", [*arguments], WORKER_ENVIRONMENT)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=int)
    parser.add_argument("--read", type=int)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    if arguments.directory:
        read_bytes = 0
        if arguments.write:
            write(arguments.write, arguments.directory)
        else:
            read_bytes = read(arguments.directory, arguments.read)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"bytes": read_bytes, "peak_mib": peak}))
        return
    table = Table("data", "on disk MB", "ingest peak MiB", "reading peak MiB", "MB read by 1 of 1", "1 of 2", "1 of 4")
    with tempfile.TemporaryDirectory() as scratch:
        for factor in (1, 10):
            directory = f"{scratch}/{factor}"
            wrote = own_child("--write", str(IMAGES * factor), "--directory", directory)
            size = sum(path.stat().st_size for path in Path(directory).glob("train-*")) / 1e6
            reads = {workers: own_child("--read", str(workers), "--directory", directory) for workers in (1, 2, 4)}
            table.add_row(
                f"{factor}x: {IMAGES * factor:,} images",
                f"{size:.1f}",
                f"{wrote['peak_mib']:.0f}",
                f"{reads[1]['peak_mib']:.0f}",
                *(f"{reads[workers]['bytes'] / 1e6:.1f}" for workers in (1, 2, 4)),
            )
    Console(soft_wrap=True, markup=False, emoji=False).print(table)


if __name__ == "__main__":
    main()
