"""One version of a model in memory, and what runs it: ONNX Runtime, or TensorFlow where that is not possible."""

import base64
import logging
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from kfp_image_classification.components.contracts.model_card import MODEL_CARD, ModelCard
from kfp_image_classification.components.deploy.server import onnx_backend, tensorflow_backend
from kfp_image_classification.components.deploy.server.image_files import decode
from kfp_image_classification.components.step.errors import StageFailed

# As at the export, see `components/train/worker/export.py`.
TOLERANCE = 1e-4
TIMED = 5  # the least of so many times is what it takes
TENSORFLOW_NEEDED = (
    "TensorFlow would serve it, and is not installed here. Use the image python-server-tensorflow, on a cluster by "
    "runtime = 'image-classification-tensorflow' (manifests/kserve), or install the Python package tensorflow"
)

BackendChoice = Literal["auto", "onnx", "tensorflow"]
Answer = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A version of a model that is ready to answer.

    Attributes:
        version: The number of its folder.
        card: What it is.
        backend: `onnx` or `tensorflow`.
        logits: uint8 [n, *image_shape] -> float32 [n, classes].
        seconds: That one image takes, where nothing else runs.
    """

    version: str
    card: ModelCard
    backend: str
    logits: Callable[[np.ndarray], np.ndarray]
    seconds: float

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.array(self.card.class_names, object)

    def answer(self, pixels: np.ndarray) -> Answer:
        """The four outputs of the exported model's signatures: uint8 [n, *image_shape] -> one row an image."""
        logits = self.logits(pixels)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        index = logits.argmax(axis=1)
        return {
            "label": self._labels[index],
            "class_index": index,
            "probabilities": powers / powers.sum(axis=1, keepdims=True),
            "logits": logits,
        }


def load_model(folder: Path, choice: BackendChoice, threads: int, log: logging.Logger) -> LoadedModel:
    """Loads a version folder. ONNX is taken only if it gives the answers that the trained model gave.

    Args:
        folder: With a SavedModel and its card.
        choice: `auto` takes ONNX where the model has it, and TensorFlow otherwise.
        threads: For one batch.
        log: Told what was chosen and why.

    Raises:
        StageFailed: When the version cannot be served; the message says why.
    """
    card = _read_card(folder)
    if choice != "tensorflow":
        try:
            logits = onnx_backend.load(folder, card, threads)
            _check_examples(logits, card)
            return _timed(folder.name, card, "onnx", logits)
        except StageFailed as error:
            if choice == "onnx":
                raise
            if not tensorflow_backend.is_installed():
                raise StageFailed(f"model = {str(folder)!r}: {error}; {TENSORFLOW_NEEDED}") from None
            log.warning("version %s: %s; TensorFlow serves it instead", folder.name, error)
    if not tensorflow_backend.is_installed():
        raise StageFailed(f"backend = {choice!r}: {TENSORFLOW_NEEDED}")
    logits = tensorflow_backend.load(folder, card, threads)
    return _timed(folder.name, card, "tensorflow", logits)


def _timed(version: str, card: ModelCard, backend: str, logits: Callable[[np.ndarray], np.ndarray]) -> LoadedModel:
    """Asks it before the first client does, who would wait longer."""
    pixels = np.zeros((1, *card.image_shape), np.uint8)
    seconds = min(timeit.repeat(lambda: logits(pixels), number=1, repeat=TIMED))
    return LoadedModel(version, card, backend, logits, seconds)


def _read_card(folder: Path) -> ModelCard:
    try:
        return ModelCard.model_validate_json((folder / MODEL_CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageFailed(f"model = {str(folder)!r}: no readable {MODEL_CARD} ({error})") from None


def _example_pixels(card: ModelCard) -> np.ndarray:
    return decode([base64.b64decode(example.png) for example in card.examples], card.image_shape, max_pixels=2**40)


def _check_examples(logits: Callable[[np.ndarray], np.ndarray], card: ModelCard) -> None:
    expected = np.array([example.logits for example in card.examples])
    answered = logits(_example_pixels(card))
    if not np.allclose(answered, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise StageFailed("the ONNX model answers otherwise than the trained model did")
