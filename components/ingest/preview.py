"""What a data set looks like: a grid of images with their labels, and how many there are of each class."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from components import html_report, records
from components.dataset_manifest import SPLITS, Dataset, SplitName

GRID_COLUMNS = 10
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
                html_report.picture(
                    image_grid(pixels, [manifest.class_names[label] for label in labels]),
                    f"{len(labels)} training images with their labels",
                ),
            ),
            html_report.Section(
                "Training images of each class",
                html_report.bars(manifest.class_names, manifest.splits["train"].class_counts),
            ),
            html_report.Section("Splits", html_report.table(["split", "images", "shards", "megabytes"], sizes)),
            html_report.Section("Images of each class by split", html_report.table(["class", *SPLITS], counts)),
        ],
    )


def image_grid(pixels: np.ndarray, captions: Sequence[str], columns: int = GRID_COLUMNS) -> Figure:
    """Draws uint8 [n, height, width, channels] images in rows, a caption over each."""
    rows = -(-len(captions) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns, rows * 1.25), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, pixels, captions, strict=False):
        axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(caption, fontsize=9)
    figure.tight_layout(pad=0.4)
    plt.close(figure)
    return figure


def _first_images(dataset: Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    paths = [dataset.path(shard) for shard in dataset.manifest.splits["train"].shards]
    batch = next(iter(records.read_batches(paths, dataset.manifest.image_shape, count)))
    return batch[0].numpy(), batch[1].numpy()


def _megabytes(dataset: Dataset, split: SplitName) -> float:
    return sum(shard.bytes for shard in dataset.manifest.splits[split].shards) / 1e6
