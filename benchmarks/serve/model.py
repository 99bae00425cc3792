"""The model that is served: as large as a trained one and as fast, but nobody has to train it first."""

import base64
from pathlib import Path

import keras
import numpy as np

from benchmarks.serve.requests import noise_png
from kfp_image_classification.components.contracts.model_card import MODEL_CARD, ONNX_MODEL, Example, ModelCard
from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.deploy.server.image_files import decode
from kfp_image_classification.components.train.worker.export import save_served_graph
from kfp_image_classification.components.train.worker.models import MODELS
from kfp_image_classification.components.train.worker.onnx_export import write_onnx

SHAPE = (28, 28, 1)
CLASSES = [str(digit) for digit in range(10)]


def export(directory: str) -> None:
    """Writes version 1 of an untrained `cnn`."""
    keras.utils.set_random_seed(0)
    model = MODELS["cnn"](SHAPE, len(CLASSES))
    folder = Path(directory) / "1"
    folder.mkdir(parents=True)
    save_served_graph(model, SHAPE, CLASSES, folder)
    file = noise_png(28, 0)
    pixels = decode([file], SHAPE, 28 * 28)
    checksum = write_onnx(model, pixels, folder / ONNX_MODEL)
    logits = model(model_input(pixels))[0]
    example = Example(
        label="0",
        png=base64.b64encode(file).decode(),
        logits=np.asarray(logits).tolist(),
        probabilities=np.asarray(keras.ops.softmax(logits)).tolist(),
    )
    card = ModelCard(
        model_type="cnn",
        parameters=model.count_params(),
        image_shape=SHAPE,
        class_names=CLASSES,
        dataset="noise",
        dataset_fingerprint="",
        options={},
        run="",
        git_revision="",
        versions={},
        examples=[example],
        onnx_sha256=checksum,
    )
    (folder / MODEL_CARD).write_text(card.model_dump_json(), encoding="utf-8")
