"""Measures a model on a split: its scores, its answers image by image, and the images it was most wrong about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset, SplitName
from kfp_image_classification.components.contracts.evaluation import Evaluation, answers_written
from kfp_image_classification.components.contracts.model_card import newest_version, read_model_card
from kfp_image_classification.components.evaluate.predictions import ServedModel, answer_seconds, predict_split
from kfp_image_classification.components.evaluate.scores import Tally, answers_of

KEPT_WRONG = 24


@dataclass(frozen=True)
class WrongImage:
    """An image that was taken for another class.

    Attributes:
        position: In the split.
        pixels: uint8 [height, width, channels].
        label: Its true class.
        predicted: What it was taken for.
        confidence: How sure the model was of that.
    """

    position: int
    pixels: np.ndarray
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Measured:
    """A model on one split.

    Attributes:
        tally: Its answers, counted.
        wrong: The images whose wrong class it was most sure of, the surest first.
    """

    tally: Tally
    wrong: list[WrongImage]


def measure_split(
    model: ServedModel, dataset: Dataset, split: SplitName, output: Path, kept_wrong: int = KEPT_WRONG
) -> Measured:
    """Measures a model on a split, and writes its answers beside the evaluation.

    Args:
        model: The model.
        dataset: Its images.
        split: Which of them.
        output: The folder of the evaluation.
        kept_wrong: How many wrong images to keep.

    Raises:
        StageFailed: When a shard is not whole.
    """
    tally = Tally(dataset.manifest.class_names)
    wrong: list[WrongImage] = []
    with answers_written(output, split, dataset.manifest.splits[split].examples) as write:
        for batch in predict_split(model, dataset, split):
            answers = answers_of(batch.labels, batch.logits)
            wrong = _surest(wrong + _wrong(batch.images, answers, tally.images), kept_wrong)
            tally.add(answers)
            write(answers)
    shown = records.pixels(np.array([image.pixels for image in wrong]), dataset).numpy() if wrong else []
    return Measured(tally, [replace(image, pixels=pixels) for image, pixels in zip(wrong, shown, strict=True)])


def evaluation_of(
    model_directory: Path, uri: str, model: ServedModel, dataset: Dataset, splits: Mapping[SplitName, Measured]
) -> Evaluation:
    """What is handed on of a model that was measured.

    Args:
        model_directory: The model.
        uri: Where it lies for others.
        model: The same, loaded.
        dataset: Whose images it was shown.
        splits: What was measured, validation among them.
    """
    card, manifest = read_model_card(model_directory), dataset.manifest
    return Evaluation(
        model_type=card.model_type,
        run=card.run,
        uri=uri,
        parameters=card.parameters,
        bytes=sum(path.stat().st_size for path in newest_version(model_directory).rglob("*.*")),
        image_shape=card.image_shape,
        trained_on=card.dataset_fingerprint,
        measured_on=manifest.fingerprint,
        class_names=manifest.class_names,
        answer_seconds=answer_seconds(model, manifest.image_shape),
        splits={name: measured.tally.scores() for name, measured in splits.items()},
        recalls=splits["validation"].tally.recalls(),
    )


def _wrong(images: np.ndarray, answers: np.ndarray, offset: int) -> list[WrongImage]:
    return [
        WrongImage(
            offset + int(index),
            # A view would keep the whole batch in memory.
            images[index].copy() if images.ndim > 1 else images[index],
            int(answers["label"][index]),
            int(answers["predicted"][index]),
            float(answers["confidence"][index]),
        )
        for index in np.flatnonzero(answers["label"] != answers["predicted"])
    ]


def _surest(wrong: list[WrongImage], kept: int) -> list[WrongImage]:
    return sorted(wrong, key=lambda image: (-image.confidence, image.position))[:kept]
