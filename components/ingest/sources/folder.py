"""A folder of images, on a disk or in a bucket: PATH/CLASS/IMAGE, or PATH/SPLIT/CLASS/IMAGE."""

from kfp_image_classification.components.contracts.image_formats import IMAGE_SUFFIXES
from kfp_image_classification.components.contracts.split_names import SplitName
from kfp_image_classification.components.ingest.options import IngestOptions, image_folder
from kfp_image_classification.components.ingest.sources.files import mixed
from kfp_image_classification.components.ingest.sources.fitted_shape import fitted_shape
from kfp_image_classification.components.ingest.sources.folder_layout import folder_layout
from kfp_image_classification.components.ingest.sources.learnable import why_not_learnable
from kfp_image_classification.components.ingest.sources.source import Examples, Source
from kfp_image_classification.components.ingest.sources.storage import UnreadableStorage, is_in_bucket, storage
from kfp_image_classification.components.ingest.unusable_images import UnusableImages
from kfp_image_classification.components.step.errors import InvalidInput


def image_folder_source(options: IngestOptions) -> Source:
    """Lists a folder; no image is opened.

    Raises:
        InvalidInput: When it is not there, or there is nothing that could be learnt in it.
    """
    root = image_folder(options.dataset)
    place = storage(root)
    if not place.is_folder(root):
        raise InvalidInput(
            f"dataset = {options.dataset!r}: {root} {'holds nothing' if is_in_bucket(root) else 'is not a folder'}"
        )
    layout = folder_layout(place, root)
    if layout.problems:
        raise UnusableImages(options.dataset, layout.problems)
    counts = {
        split: {name: len(images) for name, images in classes.items()} for split, classes in layout.images.items()
    }
    if not any(counts.values()):
        skipped = ", ".join(f"{count:,} {what}" for what, count in layout.skipped.items())
        raise InvalidInput(
            f"dataset = {options.dataset!r}: no images in {root}; expected {root}/CLASS/IMAGE or "
            f"{root}/train/CLASS/IMAGE with endings {', '.join(IMAGE_SUFFIXES)}"
            + (f"; there are {skipped}" if skipped else "")
        )
    if problems := why_not_learnable(counts):
        raise InvalidInput(f"dataset = {options.dataset!r}: {problem}" for problem in problems)
    class_names = sorted({name for classes in counts.values() for name in classes})
    splits: dict[SplitName, Examples] = {
        split: mixed(
            options.dataset,
            f"{root.rstrip('/')}/",
            [path for name in class_names for path in classes.get(name, [])],
            [label for label, name in enumerate(class_names) for _ in classes.get(name, [])],
        )
        for split, classes in layout.images.items()
        if classes
    }
    return Source(
        name=options.dataset,
        version="1.0.0",
        class_names=class_names,
        image_shape=fitted_shape((None, None, 3), options),
        splits=splits,
        skipped=layout.skipped,
    )


def image_folder_state(dataset: str) -> str:
    """What changes when a file does, or a folder; links are followed, as the source follows them."""
    root = image_folder(dataset)
    try:
        layout = folder_layout(storage(root), root)
    except UnreadableStorage as error:
        return str(error)
    return " ".join([layout.state.hexdigest(), *layout.problems])
