"""The accuracy that the ways to train end with, on held-out digits after as many epochs; part of `make bench-train`."""

import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.train.run import original_workers, train
from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.options import TrainOptions

EPOCHS = 20
SEEDS = (0, 1, 2)
MODEL = "cnn_small"
RESULTS = Path(__file__).with_name("accuracy.json")
ORIGINAL = "(a) the original's way, batch 64"
# With four times the images in a step there are a quarter of the steps: each may go four times as far.
OURS = {
    "(b) ours, batch 64": {"batch_size": 64, "learning_rates": "0:1e-3"},
    "(b) ours, batch 256, same learning rate": {"batch_size": 256, "learning_rates": "0:1e-3"},
    "(b) ours, batch 256, four times the learning rate": {"batch_size": 256, "learning_rates": "0:4e-3"},
    "(b) ours, the same, bfloat16 gradients and layers": {
        "batch_size": 256,
        "learning_rates": "0:4e-3",
        "gradient_dtype": "bfloat16",
        "compute_dtype": "bfloat16",
    },
}


def images_of(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    shards = dataset.manifest.splits[split].shards
    pixels, labels = next(records.read_batches(dataset, shards, 5000))
    return pixels.numpy(), labels.numpy()


def original(data: Path, steps: int, seed: int) -> float:
    arguments = ["--data", str(data), "--model", MODEL, "--batch-size", "64", "--epochs", str(EPOCHS)]
    output = original_workers([*arguments, "--steps", str(steps), "--seed", str(seed)])
    return float(output.split("accuracy ")[1])


def ours(dataset: Dataset, seed: int, parameters: dict) -> float:
    options = TrainOptions(model_type=MODEL, backend="local", workers=2, epochs=EPOCHS, seed=seed, **parameters)
    with tempfile.TemporaryDirectory() as scratch:
        return train(options, dataset.directory, Path(scratch))[-1]["val_accuracy"]


def main() -> None:
    accuracies: dict[str, list[float]] = {way: [] for way in (ORIGINAL, *OURS)}
    with tempfile.TemporaryDirectory() as scratch:
        options = IngestOptions(dataset="mnist_5k", validation_share=0.2, workers=2, seed=0)
        write_dataset(open_source(options), options, Path(scratch) / "shards", stage_log("bench"))
        dataset = Dataset(str(Path(scratch) / "shards"))
        pixels, labels = images_of(dataset, "train")
        held_out_pixels, held_out_labels = images_of(dataset, "validation")
        data = Path(scratch) / "data.npz"
        np.savez(data, pixels=pixels, labels=labels, held_out_pixels=held_out_pixels, held_out_labels=held_out_labels)
        for seed in SEEDS:
            accuracies[ORIGINAL].append(original(data, len(labels) // 128, seed))
            for way, parameters in OURS.items():
                accuracies[way].append(ours(dataset, seed, parameters))
    table = Table(title=f"small CNN, {EPOCHS} epochs, held-out digits", title_justify="left")
    for heading in ("", "accuracy", "of each seed"):
        table.add_column(heading, justify="left" if not heading else "right")
    for way, values in accuracies.items():
        table.add_row(way, f"{statistics.mean(values):.3f}", " ".join(f"{value:.3f}" for value in values))
    console = Console(soft_wrap=True, markup=False, emoji=False)
    console.print(table)
    RESULTS.write_text(json.dumps(accuracies, indent=2), encoding="utf-8")
    console.print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
