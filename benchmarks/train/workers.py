"""`make bench-workers`: real trainings with 2, 4, 8 ... workers, a core each, over as many that do not talk."""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.train.run import BOUND_SECONDS, digits, pinned, rates, train, write_shards
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

SHAPES = {"cnn_small": (28, 28, 1), "cnn": (32, 32, 3), "resnet": (32, 32, 3)}
CORES = sorted(os.sched_getaffinity(0))
BATCH = 64
WARM_UP = 2
EXCHANGES = ("sockets", "ring")
RESULTS = Path(__file__).with_name("workers.json")


def prepare(model: str, most_workers: int, folder: Path) -> Path:
    """The digits as often as they fill an epoch of thirty steps of all workers, in shards for each of them."""
    write_shards(*digits(SHAPES[model], 30 * BATCH * most_workers), most_workers, folder / model)
    return folder / model


def ours(model: str, workers: int, exchange: str, shards: Path, epochs: int) -> float:
    """Images a second of a training, by the median of its epochs."""
    options = TrainOptions(
        model_type=model,
        workers=workers,
        epochs=WARM_UP + epochs,
        batch_size=BATCH,
        learning_rates="0:1e-3",
        seed=0,
        devices="cpu",
        exchange=exchange,
        checkpoint_seconds=1000,
    )
    with tempfile.TemporaryDirectory() as scratch:
        history = train(options, shards, Path(scratch))
    return statistics.median(row["images_per_second"] for row in history[WARM_UP:])


def do_not_talk(model: str, workers: int) -> float:
    """Images a second of as many processes that train on a constant batch, each on its core, with our Adam."""
    command = ["benchmarks.train.constant_batch", "--model", model, "--batch-size", str(BATCH), "--our-adam"]
    command += ["--shape", *map(str, SHAPES[model]), "--seconds", str(BOUND_SECONDS)]
    environment = {**WORKER_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "-1"}
    outputs = pinned([command] * workers, [environment] * workers, cores=CORES[:workers])
    return sum(statistics.median(rates(output)) for output in outputs)


def table(rows: list[dict[str, object]], exchanges: list[str]) -> Table:
    shown = Table("model", "workers", "do not talk", *exchanges, title="images/s (over those that do not talk)")
    for row in rows:
        bound = float(str(row["do not talk"]))
        cells = [f"{float(str(row[name])):,.0f} ({float(str(row[name])) / bound:.2f})" for name in exchanges]
        shown.add_row(str(row["model"]), str(row["workers"]), f"{bound:,.0f}", *cells)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= len(CORES)]
    parser.add_argument("--workers", type=int, nargs="+", default=counts)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["cnn_small", "cnn"])
    parser.add_argument("--exchanges", nargs="+", choices=EXCHANGES, default=list(EXCHANGES))
    parser.add_argument("--epochs", type=int, default=8, help="that are measured, of thirty steps or more each")
    arguments = parser.parse_args()
    if max(arguments.workers) > len(CORES):
        parser.error(f"--workers {max(arguments.workers)}: there are {len(CORES)} cores here, and each needs one")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models:
            shards = prepare(model, max(arguments.workers), Path(scratch))
            for workers in arguments.workers:
                row: dict[str, object] = {
                    "model": model,
                    "workers": workers,
                    "do not talk": do_not_talk(model, workers),
                }
                for exchange in arguments.exchanges:
                    row[exchange] = ours(model, workers, exchange, shards, arguments.epochs)
                rows.append(row)
                print(row, flush=True)
                RESULTS.write_text(json.dumps({"cores": len(CORES), "rows": rows}, indent=1), encoding="utf-8")
    Console(soft_wrap=True, markup=False, emoji=False).print(table(rows, arguments.exchanges))


if __name__ == "__main__":
    main()
