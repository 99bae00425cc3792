"""Runs an exported model over a split, as a client would: encoded images in, answers out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset, SplitName
from kfp_image_classification.components.contracts.model_card import newest_version, read_model_card
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.literal_path import literal_path

BATCH = 256
# How often one image is answered to find what it takes at best, and how long at most.
ANSWERS, ANSWER_SECONDS = 200, 2.0


@dataclass(frozen=True)
class Batch:
    """What a model answered for some images.

    Attributes:
        images: Pixels, uint8 [n, height, width, channels], or image files, bytes [n], as the records have them.
        labels: True classes, int64 [n].
        logits: float32 [n, classes], in the order of the data set's classes.
    """

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def class_order(model_directory: Path, class_names: Sequence[str], what: str = "model") -> list[int]:
    """Where a model has each of the data set's classes among its own.

    Raises:
        InvalidInput: When it was made for others.
    """
    known = read_model_card(model_directory).class_names
    if sorted(known) != sorted(class_names):
        raise InvalidInput(
            f"{what} = {str(model_directory)!r}: tells {len(known)} classes apart, {_shown(known)}; the data set has "
            f"{len(class_names)}, {_shown(class_names)}; evaluate it on its own data set"
        )
    return [known.index(name) for name in class_names]


def check_fits(model_directory: Path, dataset: Dataset) -> None:
    """Compares what a model was made for with a data set.

    Raises:
        InvalidInput: When the model was made for other images or classes.
    """
    manifest, card = dataset.manifest, read_model_card(model_directory)
    if (card.image_shape, card.class_names) != (manifest.image_shape, manifest.class_names):
        raise InvalidInput(
            f"model = {str(model_directory)!r}: takes {card.image_shape} images of {len(card.class_names)} classes, "
            f"the data set has {manifest.image_shape} and {len(manifest.class_names)}; evaluate it on its own data set"
        )


class ServedModel:
    """A model as a server loads it."""

    def __init__(self, model_directory: Path, class_names: Sequence[str]) -> None:
        """Loads it.

        Args:
            model_directory: With its numbered version folders.
            class_names: The order in which the logits are wanted.

        Raises:
            StageFailed: When the model is not complete.
            InvalidInput: When it was made for other classes.
        """
        self._order = class_order(model_directory, class_names)
        with literal_path(newest_version(model_directory)) as folder:
            self._loaded = tf.saved_model.load(str(folder))
        self._serve = self._loaded.signatures["serving_default"]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Sends images through the `serving_default` signature, pixels encoded as PNG.

        Args:
            images: Pixels, uint8 [n, height, width, channels], or image files, bytes [n].

        Returns:
            float32 [n, classes].
        """
        # On the CPU, as the model's own answers were computed: a GPU rounds float32 otherwise.
        with tf.device("CPU:0"):
            files = tf.constant(images, tf.string) if images.ndim == 1 else tf.stack([*map(tf.io.encode_png, images)])
            logits: np.ndarray = self._serve(files)["logits"].numpy()
        return logits[:, self._order]


def predict_split(model: ServedModel, dataset: Dataset, split: SplitName) -> Iterator[Batch]:
    """Shows a model each image of a split; memory holds a batch at a time, never the split.

    Raises:
        StageFailed: When a shard is not whole.
    """
    shards = dataset.manifest.splits[split].shards
    dataset.check_sizes(shards)
    for images, labels in records.read_files(dataset, shards, BATCH):
        yield Batch(images, labels, model.logits(images))


def answer_seconds(model: ServedModel, image_shape: tuple[int, int, int]) -> float:
    """What a model takes for one image at best, which is less of a matter of what else the machine does."""
    image = np.zeros((1, *image_shape), np.uint8)
    model.logits(image)
    times: list[float] = []
    while len(times) < ANSWERS and sum(times) < ANSWER_SECONDS:
        started = time.perf_counter()
        model.logits(image)
        times.append(time.perf_counter() - started)
    return min(times)


def _shown(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
