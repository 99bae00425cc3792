"""What a data set is like: its classes, its images, and what somebody should know before a model is trained on it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from markupsafe import Markup

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.data_report import BINS, DataReport
from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, Dataset, DatasetManifest, SplitName
from kfp_image_classification.components.ingest.notable import notable
from kfp_image_classification.components.report import html_report

EXAMPLES = 64
MOST_OF_A_CLASS = 8
# So many training images are looked through for examples of every class.
LOOKED_THROUGH = 2_000
BATCH = 200
CHANNELS = {1: ["grey"], 3: ["red", "green", "blue"]}


def preview_page(directory: Path) -> str:
    """Renders the data page of an ingested data set."""
    dataset = Dataset(directory)
    manifest = dataset.manifest
    height, width, channels = manifest.image_shape
    total = sum(manifest.splits[name].examples for name in SPLITS)
    return html_report.page(
        f"Data set {manifest.name}",
        f"{total:,} images of {height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}, "
        f"{len(manifest.class_names)} classes. Version {manifest.version}, fingerprint {manifest.fingerprint}.",
        [*_about_classes(dataset), *_about_files(manifest), *_about_copies(manifest)],
        _opening(manifest),
    )


def _opening(manifest: DatasetManifest) -> Markup:
    names = {"train": "training", "validation": "validation", "test": "test"}
    counts = [html_report.Tile(f"{names[split]} images", f"{manifest.splits[split].examples:,}") for split in SPLITS]
    report = manifest.report
    if report is None:
        return html_report.tiles(counts)
    known = sum(shared.images for shared in report.shared if shared.second == "test")
    skipped = sum(report.skipped.values())
    copies = sum(split.copies for split in report.splits.values())
    tone = "bad" if known else "good"
    tiles = [
        *counts,
        html_report.Tile("test images seen before", f"{known:,}", "in training or selection", tone),
        html_report.Tile("copies", f"{copies:,}", "within a split"),
        html_report.Tile("not used", f"{skipped:,}", "files and folders of the source"),
    ]
    return html_report.tiles(tiles) + Markup("").join(
        html_report.banner("warn", f"{sentence[0].upper()}{sentence[1:]}.") for sentence in notable(manifest)
    )


def _about_classes(dataset: Dataset) -> Iterator[html_report.Section]:
    manifest = dataset.manifest
    pixels, labels = _examples_of_each_class(dataset)
    captions = [[manifest.class_names[label]] for label in labels]
    yield html_report.Section("Training images", html_report.gallery(pixels, captions))
    trained = manifest.splits["train"].class_counts
    yield html_report.Section("Training images of each class", html_report.bars(manifest.class_names, trained))
    rows = [
        [name, *(manifest.splits[split].class_counts[label] for split in SPLITS)]
        for label, name in enumerate(manifest.class_names)
    ]
    sizes = [[split, manifest.splits[split].examples, *_shards(manifest, split)] for split in SPLITS]
    yield html_report.Section("Splits", html_report.table(["split", "images", "shards", "megabytes"], sizes))
    yield html_report.Section("Images of each class by split", html_report.table(["class", *SPLITS], rows))


def _about_files(manifest: DatasetManifest) -> Iterator[html_report.Section]:
    report = manifest.report
    if report is None:
        return
    yield html_report.Section("Sizes and formats in the source", _sizes(manifest, report))
    yield html_report.Section("Pixels", _pixels(manifest, report))
    if report.skipped:
        rows = [[words, count] for words, count in report.skipped.items()]
        yield html_report.Section("Not used", html_report.table(["in the source", "how many"], rows))


def _sizes(manifest: DatasetManifest, report: DataReport) -> Markup:
    height, width, _ = manifest.image_shape
    rows = [
        [
            split,
            ", ".join(f"{count:,} {name}" for name, count in found.encodings.items()),
            _size(found.smallest),
            _size(found.largest),
            found.turned,
        ]
        for split, found in report.splits.items()
    ]
    train = report.splits["train"]
    frequent = [f"{size.width} x {size.height}" for size in train.sizes]
    counts = [size.images for size in train.sizes]
    if train.other_sizes:
        frequent, counts = [*frequent, "other sizes"], [*counts, train.other_sizes]
    return (
        html_report.table(["split", "formats", "smallest", "largest", "with a note to turn them"], rows)
        + html_report.subheading("Most frequent sizes of training images, width x height")
        + html_report.bars(frequent, counts)
        + html_report.note(f"All are fitted to {width} x {height} pixels, whatever their shape.")
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _pixels(manifest: DatasetManifest, report: DataReport) -> Markup:
    names = CHANNELS[manifest.image_shape[2]]
    rows: list[list[object]] = []
    for split in SPLITS:
        found = report.splits[split].pixels
        channels = [f"{mean:.1f} ± {spread:.1f}" for mean, spread in zip(found.mean, found.spread, strict=True)]
        rows.append([split, *channels, found.images])
    drawn = [
        html_report.line_chart(f"images by {what}", _histograms(report, what), "%", f"{what} of an image, 0 to 255")
        for what in ("brightness", "contrast")
    ]
    return (
        html_report.table(["split", *names, "images measured"], rows)
        + html_report.note("Mean and standard deviation of all pixels, from 0 to 255, once they are fitted.")
        + html_report.legend(SPLITS)
        + html_report.charts(*drawn)
    )


def _histograms(report: DataReport, what: str) -> list[html_report.Series]:
    series = []
    for colour, split in enumerate(SPLITS):
        pixels = report.splits[split].pixels
        counts = pixels.brightness if what == "brightness" else pixels.contrast
        points = [((2 * at + 1) * 128 // BINS, count / max(1, pixels.images)) for at, count in enumerate(counts)]
        series.append(html_report.Series(split, points, colour))
    return series


def _about_copies(manifest: DatasetManifest) -> Iterator[html_report.Section]:
    report = manifest.report
    if report is None:
        return
    if not report.copies:
        yield html_report.Section("Copies", html_report.note("None: no file is there twice."))
        return
    counts = [
        *([f"within {split}", found.copies] for split, found in report.splits.items()),
        *([f"in {shared.first} and {shared.second}", shared.images] for shared in report.shared),
        ["in several classes", report.contradictions],
    ]
    pairs = [
        [
            copy.second,
            f"{copy.second_split}, {copy.second_class}",
            copy.first,
            f"{copy.first_split}, {copy.first_class}",
        ]
        for copy in report.copies
    ]
    yield html_report.Section(
        "Copies",
        html_report.table(["where", "images"], counts)
        + html_report.note("Files of the same content, by SHA-256. An image that was saved again is another file.")
        + html_report.subheading(f"{'Some' if len(pairs) > 1 else 'One'} of them")
        + html_report.table(["image", "in", "is the same as", "in"], pairs),
    )


def _examples_of_each_class(dataset: Dataset) -> tuple[list[np.ndarray], list[int]]:
    """Training images by class: as many of each, as far as they are found soon."""
    classes = len(dataset.manifest.class_names)
    wanted = max(1, min(MOST_OF_A_CLASS, EXAMPLES // classes))
    found: dict[int, list[np.ndarray]] = {}
    shards = dataset.manifest.splits["train"].shards
    looked_through = 0
    for pixels, labels in records.read_batches(dataset, shards, BATCH):
        for image, label in zip(pixels.numpy(), labels.numpy().tolist(), strict=True):
            of_class = found.setdefault(label, [])
            if len(of_class) < wanted:
                of_class.append(image)
        looked_through += len(labels)
        complete = len(found) == classes and all(len(images) == wanted for images in found.values())
        if complete or looked_through >= LOOKED_THROUGH:
            break
    examples = [(image, label) for label in sorted(found) for image in found[label]][:EXAMPLES]
    return [image for image, _ in examples], [label for _, label in examples]


def _shards(manifest: DatasetManifest, split: SplitName) -> tuple[int, float]:
    shards = manifest.splits[split].shards
    return len(shards), sum(shard.bytes for shard in shards) / 1e6
