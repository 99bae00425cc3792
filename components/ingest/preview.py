"""What a data set looks like: a grid of images with their labels, and how many there are of each class."""

from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, Dataset, SplitName
from kfp_image_classification.components.report import html_report

GRID_IMAGES = 40


def preview_page(directory: Path) -> str:
    """Renders the preview of an ingested data set as an HTML page."""
    dataset = Dataset(directory)
    manifest = dataset.manifest
    pixels, labels = _first_images(dataset, GRID_IMAGES)
    height, width, channels = manifest.image_shape
    total = sum(manifest.splits[name].examples for name in SPLITS)
    counts = [
        [class_name, *(manifest.splits[name].class_counts[index] for name in SPLITS)]
        for index, class_name in enumerate(manifest.class_names)
    ]
    sizes = [
        [name, manifest.splits[name].examples, len(manifest.splits[name].shards), _megabytes(dataset, name)]
        for name in SPLITS
    ]
    return html_report.page(
        f"Data set {manifest.name}",
        f"{total:,} images of {height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}, "
        f"{len(manifest.class_names)} classes. Version {manifest.version}, fingerprint {manifest.fingerprint}.",
        [
            html_report.Section(
                "Training images",
                html_report.gallery(pixels, [[manifest.class_names[label]] for label in labels]),
            ),
            html_report.Section(
                "Training images of each class",
                html_report.bars(manifest.class_names, manifest.splits["train"].class_counts),
            ),
            html_report.Section("Splits", html_report.table(["split", "images", "shards", "megabytes"], sizes)),
            html_report.Section("Images of each class by split", html_report.table(["class", *SPLITS], counts)),
        ],
    )


def _first_images(dataset: Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    batch = next(records.read_batches(dataset, dataset.manifest.splits["train"].shards, count))
    return batch[0].numpy(), batch[1].numpy()


def _megabytes(dataset: Dataset, split: SplitName) -> float:
    return sum(shard.bytes for shard in dataset.manifest.splits[split].shards) / 1e6
