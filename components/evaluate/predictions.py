"""Runs an exported model over a split, as a client would: encoded images in, answers out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import RAW, Dataset, DatasetManifest, SplitName
from kfp_image_classification.components.contracts.model_card import newest_version, read_model_card
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.literal_path import literal_path

BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """What a model answered for a split, image by image.

    Attributes:
        labels: True classes, int64 [n].
        logits: float32 [n, classes].
        pixels: The most confidently wrong images, uint8 [k, height, width, channels].
        wrong: Their positions in the split, int64 [k], the most confident first.
    """

    labels: np.ndarray
    logits: np.ndarray
    pixels: np.ndarray
    wrong: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        exponentials = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    @property
    def classes(self) -> np.ndarray:
        return self.logits.argmax(axis=1)


def predict_split(model_directory: Path, dataset: Dataset, split: SplitName, kept_wrong: int = 24) -> Predictions:
    """Sends each image of a split through the model's `serving_default` signature, as a client would.

    Where the data set keeps image files, it sends those; pixels it encodes as PNG.

    Memory holds the logits and the few worst images, never the split.

    Raises:
        StageFailed: When a shard is not whole or the model is not complete.
        InvalidInput: When the model was made for other images or classes.
    """
    manifest = dataset.manifest
    card = read_model_card(model_directory)
    if (card.image_shape, card.class_names) != (manifest.image_shape, manifest.class_names):
        raise InvalidInput(
            f"model = {str(model_directory)!r}: takes {card.image_shape} images of {len(card.class_names)} classes, "
            f"the data set has {manifest.image_shape} and {len(manifest.class_names)}; evaluate it on its own data set"
        )
    shards = manifest.splits[split].shards
    dataset.check_sizes(shards)
    with literal_path(newest_version(model_directory)) as folder:
        loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    labels: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    worst = _Worst(kept_wrong)
    # On the CPU, as the model's own answers were computed: a GPU rounds float32 otherwise.
    with tf.device("CPU:0"):
        for images, truth in records.read_files(dataset, shards, BATCH):
            answer = serve(_as_files(images, manifest))["logits"].numpy()
            worst.add(images, truth, answer, sum(map(len, labels)))
            labels.append(truth)
            logits.append(answer)
    wrong, positions = worst.images()
    pixels = records.pixels(np.array(wrong), dataset).numpy()
    return Predictions(np.concatenate(labels), np.concatenate(logits), pixels, positions)


def _as_files(images: np.ndarray, manifest: DatasetManifest) -> tf.Tensor:
    if manifest.format != RAW:
        return tf.constant(images, tf.string)
    return tf.stack([tf.io.encode_png(one) for one in images])


class _Worst:
    """Keeps the images, as the records have them, whose wrong class the model was most sure of."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._found: list[tuple[float, int, bytes | np.ndarray]] = []  # log-probability, position, image

    def add(self, images: np.ndarray, labels: np.ndarray, logits: np.ndarray, offset: int) -> None:
        others = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        for index in np.flatnonzero(logits.argmax(axis=1) != labels):
            self._found.append((float(-np.log(others[index])), offset + int(index), images[index]))
        self._found.sort(key=lambda found: (-found[0], found[1]))
        del self._found[self._kept :]

    def images(self) -> tuple[list[bytes | np.ndarray], np.ndarray]:
        positions = np.array([position for _, position, _ in self._found], np.int64)
        return [image for *_, image in self._found], positions
