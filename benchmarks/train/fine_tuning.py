"""What weights of other images bring: `resnet` on five classes of CIFAR-10, begun from the other five or from nothing.

    python -m benchmarks.train.fine_tuning --data-dir FOLDER

FOLDER has `cifar10` as TensorFlow Datasets prepares it. All ways take the same number of steps, of which the weights
have had more before: those that every model of the other classes starts with.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.preprocessing import decode_images, model_input
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job
from kfp_image_classification.components.train.starting_point import starting_point

RESULTS = Path(__file__).with_name("fine_tuning.json")
SHAPE = (32, 32, 3)
LEARNED = ("airplane", "bird", "cat", "deer", "ship")
ASKED = ("automobile", "dog", "frog", "horse", "truck")
VALIDATION = 0.1
COSINE = "warmup:0.05 cosine:2e-3"
WAYS: dict[str, dict[str, object]] = {
    "from nothing": {},
    "weights, all layers at once": {"weights": True},
    "weights, the head alone in the first fifth": {"weights": True, "freeze_epochs": 0.2, "fine_tuning_rate": 0.5},
}

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def main() -> None:
    arguments = _arguments()
    source = open_source(IngestOptions(dataset="cifar10", data_dir=arguments.data_dir, **_SHARES, workers=1, seed=0))
    splits = {name: _images(source, name) for name in ("train", "test")}
    with tempfile.TemporaryDirectory() as scratch:
        learned = _dataset(source, splits, LEARNED, 0, arguments.workers, Path(scratch, "learned"))
        options = _options(arguments, arguments.pretraining_steps, learned, seed=0)
        donor = _trained(options, learned, Path(scratch, "donor"))
        print(f"the weights: {_accuracy(donor, learned):.3f} on the test images of {', '.join(LEARNED)}", flush=True)
        accuracies: dict[str, dict[str, list[float]]] = {}
        for count in arguments.images:
            asked = _dataset(source, splits, ASKED, count, arguments.workers, Path(scratch, f"asked-{count}"))
            for seed in arguments.seeds:
                for way, change in WAYS.items():
                    options = _options(arguments, arguments.steps, asked, seed, donor, **change)
                    model = _trained(options, asked, Path(scratch, f"{count}-{seed}-{way}"))
                    accuracy = _accuracy(model, asked)
                    print(f"{count} images a class, seed {seed}, {way}: {accuracy:.3f}", flush=True)
                    accuracies.setdefault(way, {}).setdefault(str(count), []).append(accuracy)
    _tell(arguments, accuracies)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", required=True, help="folder with prepared TensorFlow Datasets")
    parser.add_argument("--devices", default="auto", choices=["auto", "cpu", "gpu"], help="default: auto")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--model", default="resnet", help="default: resnet")
    parser.add_argument("--pretraining-steps", type=int, default=1000, help="for the weights (default: 1000)")
    parser.add_argument("--steps", type=int, default=300, help="of each way (default: 300)")
    parser.add_argument("--batch", type=int, default=64, help="images of a step, of all workers (default: 64)")
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 1000], help="a class (default: 50 200 1000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    return parser.parse_args()


_SHARES = {"validation_share": VALIDATION}


def _images(source: Source, split: str) -> Split:
    examples = source.splits[split]
    files = [file for file in examples.read(0, len(examples)) if isinstance(file, bytes)]
    return decode_images(tf.constant(files), SHAPE).numpy(), examples.labels().astype(np.int64)


def _dataset(
    source: Source, splits: dict[str, Split], names: Sequence[str], count: int, workers: int, folder: Path
) -> Dataset:
    """Some classes as a data set of their own, with `count` training images each; 0 for all."""
    chosen = {}
    for split, (pixels, labels) in splits.items():
        most = count if split == "train" and count else len(labels)
        of_classes = [np.flatnonzero(labels == source.class_names.index(name))[:most] for name in names]
        order = np.random.default_rng(0).permutation(np.concatenate(of_classes))
        renamed = np.array([names.index(source.class_names[label]) for label in labels[order]], np.int32)
        chosen[split] = PixelExamples(pixels[order], renamed)
    options = IngestOptions(dataset="cifar10", **_SHARES, workers=workers, seed=0)
    write_dataset(Source("cifar10", "1", [*names], SHAPE, chosen), options, folder, stage_log("bench"))
    return Dataset(folder)


def _options(
    arguments: argparse.Namespace,
    steps: int,
    dataset: Dataset,
    seed: int,
    donor: Path | None = None,
    weights: bool = False,
    freeze_epochs: float = 0.0,
    **more: object,
) -> TrainOptions:
    images = dataset.manifest.splits["train"].examples
    batch = min(arguments.batch, images) // arguments.workers
    epochs = max(1, round(steps / (images // (batch * arguments.workers))))
    return TrainOptions(
        model_type=arguments.model,
        backend="local",
        workers=arguments.workers,
        devices=arguments.devices,
        epochs=epochs,
        batch_size=batch,
        learning_rates=COSINE,
        augmentation="shift_flip",
        seed=seed,
        weights=str(donor) if weights else "none",
        freeze_epochs=round(freeze_epochs * epochs),
        **more,
    )


def _trained(options: TrainOptions, dataset: Dataset, folder: Path) -> Path:
    folder.mkdir()
    log = stage_log("bench")
    start = starting_point(options, dataset.manifest, folder / "job", log)
    job = TrainingJob(options=options, dataset=str(dataset.directory), directory=str(folder / "job"), start=start)
    run_job(job, folder / "model", log)
    return folder / "model"


def _accuracy(model: Path, dataset: Dataset) -> float:
    import keras  # where nothing is trained in this process, its memory is not needed before

    loaded = keras.models.load_model(model / "model.keras", compile=False)
    right = images = 0
    for pixels, labels in records.read_batches(dataset, dataset.manifest.splits["test"].shards, 500):
        right += int((loaded.predict_on_batch(model_input(pixels)).argmax(-1) == labels.numpy()).sum())
        images += len(labels)
    return right / images


def _tell(arguments: argparse.Namespace, accuracies: dict[str, dict[str, list[float]]]) -> None:
    table = Table(title=f"{arguments.model}, {arguments.steps} steps, test images of {', '.join(ASKED)}")
    table.add_column("")
    for count in arguments.images:
        table.add_column(f"{count} images a class", justify="right")
    for way, by_count in accuracies.items():
        table.add_row(way, *(f"{statistics.mean(values):.3f}" for values in by_count.values()))
    Console(soft_wrap=True, markup=False, emoji=False).print(table)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("output", "data_dir")}
    arguments.output.write_text(json.dumps({"settings": settings, "accuracy": accuracies}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
