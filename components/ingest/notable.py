"""What somebody should know of a data set before a model is trained on it, in sentences."""

from collections.abc import Iterator
from unicodedata import normalize

from kfp_image_classification.components.contracts.data_report import DataReport
from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, DatasetManifest

# From here on, a difference between classes is told.
UNEQUAL_CLASSES = 10
MOST_NAMED = 5
SEEN_IN = {"train": "training", "validation": "the selection of the model"}


def notable(manifest: DatasetManifest) -> list[str]:
    """What may make a model worse than it looks, the gravest first; nothing for a data set without a report."""
    if manifest.report is None:
        return []
    return [*_copies(manifest.report), *_classes(manifest), *_turned(manifest.report)]


def not_used(manifest: DatasetManifest) -> list[str]:
    """What the source has and the data set has not."""
    return [*_skipped(manifest.report)] if manifest.report else []


def _copies(report: DataReport) -> Iterator[str]:
    for shared in report.shared:
        count, first = shared.images, shared.first
        if shared.second == "test":
            yield (
                f"{_images(count, 'test')} {'was' if count == 1 else 'were'} seen in {SEEN_IN[first]}: the same "
                f"{_files(count)} {_is(count)} in {first}, and the test tells less than it seems to"
            )
        else:
            yield f"{_images(count, shared.second)} {_is(count)} in {first}, too"
    if count := report.contradictions:
        yield f"{_images(count)} {_is(count)} there in several classes, as the same {_files(count)}"
    for split in SPLITS:
        if count := report.splits[split].copies:
            yield f"{_images(count, split)} {_is(count)} there more than once, as the same {_files(count)}"


def _classes(manifest: DatasetManifest) -> Iterator[str]:
    trained = dict(zip(manifest.class_names, manifest.splits["train"].class_counts, strict=True))
    largest, smallest = max(trained, key=trained.__getitem__), min(trained, key=trained.__getitem__)
    if trained[smallest] and trained[largest] >= UNEQUAL_CLASSES * trained[smallest]:
        yield (
            f"the class {largest!r} has {trained[largest] / trained[smallest]:.0f} times the training images of "
            f"{smallest!r}: accuracy will tell little about the small classes"
        )
    by_letters: dict[str, list[str]] = {}
    for name in manifest.class_names:
        by_letters.setdefault(" ".join(normalize("NFKC", name).casefold().split()), []).append(name)
    for names in by_letters.values():
        if len(names) > 1:
            yield (
                f"{', '.join(map(ascii, names))} differ in case, spaces or the form of letters alone, and are "
                f"{len(names)} classes: give them one name, if they are one"
            )
    for split in SPLITS:
        counts = manifest.splits[split].class_counts
        missing = [repr(name) for name, count in zip(manifest.class_names, counts, strict=True) if not count]
        if missing:
            more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
            yield f"no {split} image shows {', '.join(missing[:MOST_NAMED])}{more}"


def _turned(report: DataReport) -> Iterator[str]:
    if turned := sum(split.turned for split in report.splits.values()):
        yield (
            f"{_images(turned)} {'carries' if turned == 1 else 'carry'} a note (EXIF) of how the camera was held; it "
            "is applied neither in training nor in serving, see docs/data.md"
        )


def _skipped(report: DataReport) -> Iterator[str]:
    for words, count in report.skipped.items():
        yield f"not used: {words}: {count:,}"


def _images(count: int, split: str = "") -> str:
    kind = {"train": "training ", "": ""}.get(split, f"{split} ")
    return f"{count:,} {kind}image{'' if count == 1 else 's'}"


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
