"""Images a second of one worker with one core and with two: `resnet` on colour images of 64 x 64 pixels, batch 64.

The worker runs as the train component runs it, but with all the cores that there are, as in a pod. Epochs after the
first count; rounds are interleaved.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.child import child

SHAPE = (64, 64, 3)
IMAGES, BATCH, EPOCHS = 1_280, 64, 3
CORES = (1, 2)


def measure(model: str, cores: int) -> list[float]:
    import numpy as np

    from benchmarks.train.run import train
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.ingest.sharding import write_dataset
    from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.train.launchers import local
    from kfp_image_classification.components.train.launchers.machine import Cores
    from kfp_image_classification.components.train.options import TrainOptions

    # On one machine a worker is given one core; in a pod, as many as it is told. So nothing but this process' own
    # affinity decides here.
    setattr(local, "lock_cores", lambda *_: Cores([], []))  # noqa: B010 - it is not exported
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *SHAPE), np.uint8)
    labels = np.arange(IMAGES, dtype=np.int32) % 10
    every, few = PixelExamples(pixels, labels), PixelExamples(pixels[:20], labels[:20])
    splits = {"train": every, "validation": few, "test": few}
    source = Source("noise", "1", [str(label) for label in range(10)], SHAPE, splits)
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch, "shards")
        ingest = IngestOptions(dataset="noise", validation_share=0.1, workers=1, seed=0)
        write_dataset(source, ingest, shards, stage_log("bench"))
        options = TrainOptions(
            model_type=model,
            workers=1,
            epochs=EPOCHS,
            batch_size=BATCH,
            learning_rates="0:1e-3",
            seed=0,
            checkpoint_seconds=1000,
        )
        return [row["images_per_second"] for row in train(options, shards, Path(scratch))[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["resnet"])
    parser.add_argument("--cores", type=int)
    arguments = parser.parse_args()
    if arguments.cores:
        print(json.dumps(measure(arguments.models[0], arguments.cores)))
        return
    table = Table("model", "images/s: 1 core", "2 cores", "2 / 1")
    for model in arguments.models:
        rates: dict[int, list[float]] = {cores: [] for cores in CORES}
        for _ in range(arguments.rounds):
            for cores in CORES:
                rates[cores] += child("benchmarks.train.cores", ["--models", model, "--cores", str(cores)], {})
                print(model, cores, [round(rate) for rate in rates[cores]], file=sys.stderr)
        one, two = (statistics.median(rates[cores]) for cores in CORES)
        table.add_row(model, f"{one:,.0f}", f"{two:,.0f}", f"{two / one:.2f}")
    Console(soft_wrap=True, markup=False, emoji=False).print(table)


if __name__ == "__main__":
    main()
