"""The exported model: a SavedModel in a numbered version folder, as TensorFlow Serving and KServe expect it.

    model/
      model.keras                the Keras model, for further training
      1/saved_model.pb           the served graph
      1/assets.extra/model.json  what it is, where it came from, and example requests with the answers they must get
      1/assets.extra/model.onnx  the same from pixels to logits, for servers without TensorFlow; absent if it cannot be

The graph is frozen: weights are constants, so there is no variable-reading operation that an older server lacks, and
nothing that can be lost beside the one file.

What a model answers is what it answers on a CPU, in full float32: there the examples are computed, and there everything
that is written is compared. A GPU rounds float32 to 19 bits in products (TF32), and no two kinds of GPU agree.
"""

import base64
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kfp_image_classification.components.cluster.images import VERSION as PACKAGE_VERSION
from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import (
    KERAS_MODEL,
    MODEL_CARD,
    ONNX_MODEL,
    Example,
    ModelCard,
)
from kfp_image_classification.components.contracts.preprocessing import ImageShape, decode_images, model_input
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.literal_path import literal_path
from kfp_image_classification.components.step.whole_file import publish_folder
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.worker.initial_weights import read_start
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.onnx_export import missing_packages, write_onnx
from kfp_image_classification.components.train.worker.stateless_model import logits_with, variables_of

VERSION = "1"
# Logits grow with confidence, and rounding errors with them: half of this is seen, a real difference is far larger.
TOLERANCE = 1e-4
EXAMPLES_SEARCHED = 256
# A model is written as a graph, for Keras, and as ONNX.
COPIES = 3


def check_export(model: keras.Model, directory: Path) -> None:
    """Tells before a training what would keep its model from being written after it.

    Args:
        model: That will be trained.
        directory: The job's folder.

    Raises:
        StageFailed: When there is no room for the model.
    """
    disk, needed = shutil.disk_usage(directory), COPIES * 4 * model.count_params()
    if disk.free < needed and disk.total:  # some file systems do not tell
        raise StageFailed(
            f"{directory}: {disk.free / 2**20:.1f} MiB are free, and the trained model takes {needed / 2**20:.1f} MiB, "
            "beside the checkpoints; make room, or use another work_dir"
        )
    if missing := missing_packages():
        print(
            f"no ONNX model will be written: {', '.join(missing)} not installed here; without one, TensorFlow has to "
            "serve the model",
            flush=True,
        )


def export_model(
    trained: keras.Model,
    job: TrainingJob,
    dataset: Dataset,
    directory: Path,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Writes a trained model, checks what was written, and only then gives it its name.

    Args:
        trained: The model as trained, under any distribution strategy.
        job: What it was trained by.
        dataset: What it was trained on.
        directory: The model's folder, to be made.
        check: Asked before the model gets its name; raises when this process must not write any more.

    Raises:
        StageFailed: When the exported model does not answer as the trained one does.
    """
    with tf.device("CPU:0"):
        _export(trained, job, dataset, directory, check)


def _export(
    trained: keras.Model, job: TrainingJob, dataset: Dataset, directory: Path, check: Callable[[], None]
) -> None:
    manifest = dataset.manifest
    # Served in float32, whatever it was trained in: not every server has bfloat16.
    model = build_model(job.options.architecture, manifest.image_shape, len(manifest.class_names), "float32")
    model.set_weights(trained.get_weights())
    for left in directory.parent.glob(f"{directory.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}.partial")
    served = partial / VERSION
    served.mkdir(parents=True, exist_ok=True)
    save_served_graph(model, manifest.image_shape, manifest.class_names, served)
    model.save(partial / KERAS_MODEL)
    card = _model_card(model, job, dataset)
    pixels = np.stack([tf.io.decode_png(base64.b64decode(example.png)) for example in card.examples])
    card = card.model_copy(update={"onnx_sha256": write_onnx(model, pixels, served / ONNX_MODEL)})
    (served / MODEL_CARD).parent.mkdir(exist_ok=True)
    (served / MODEL_CARD).write_text(card.model_dump_json(indent=2), encoding="utf-8")
    _verify(served, card)
    check()
    publish_folder(partial, directory, last=f"{VERSION}/{MODEL_CARD}")


def is_exported(directory: Path) -> bool:
    """Whether a folder holds a whole model."""
    return (directory / VERSION / MODEL_CARD).is_file()


def save_served_graph(model: keras.Model, image_shape: ImageShape, class_names: list[str], directory: Path) -> None:
    """Saves a frozen SavedModel with two signatures, which answer alike.

    `serving_default` takes `image_bytes`, string [n]: PNG or JPEG images of any size. `pixels` takes `pixels`, uint8
    [n, height, width, channels]. Both answer `logits` and `probabilities`, float32 [n, classes], `class_index`,
    int64 [n], and `label`, string [n].
    """

    values = [variable.numpy() for variable in variables_of(model)]

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8, name="pixels")])
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = logits_with([tf.constant(value) for value in values], model, model_input(pixels))
        index = tf.argmax(logits, axis=-1)
        with tf.device("CPU:0"):  # strings live nowhere else
            label = tf.gather(tf.constant(class_names), index)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits), "class_index": index, "label": label}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        # A call, so that the file holds the weights once.
        return from_pixels(decode_images(image_bytes, image_shape))

    tf.saved_model.save(
        tf.Module(),
        str(directory),
        signatures={"serving_default": from_bytes, "pixels": from_pixels},
        # TensorFlow fails at those that functions such as swish bring along, and nobody trains this graph.
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def _model_card(model: keras.Model, job: TrainingJob, dataset: Dataset) -> ModelCard:
    manifest = dataset.manifest
    return ModelCard(
        model_type=job.options.model_type,
        parameters=model.count_params(),
        image_shape=manifest.image_shape,
        class_names=manifest.class_names,
        dataset=manifest.name,
        dataset_fingerprint=manifest.fingerprint,
        dataset_images=sum(split.examples for split in manifest.splits.values()),
        options=job.options.model_dump(),
        run=job.run,
        git_revision=_git_revision(),
        versions={
            "python": sys.version.split()[0],
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "kfp-image-classification": PACKAGE_VERSION,
        },
        examples=_examples(model, dataset),
        started_from=read_start(job),
    )


def _examples(model: keras.Model, dataset: Dataset) -> list[Example]:
    """One validation image of each class among the first few, preferring one that the model recognises."""
    manifest = dataset.manifest
    pixels, labels = next(records.read_batches(dataset, manifest.splits["validation"].shards, EXAMPLES_SEARCHED))
    logits = model(model_input(pixels), training=False)
    probabilities = tf.nn.softmax(logits).numpy()
    found: dict[int, int] = {}
    for index in np.argsort(probabilities.argmax(axis=1) != labels.numpy(), kind="stable"):
        found.setdefault(int(labels[index]), int(index))
    return [
        Example(
            label=manifest.class_names[label],
            png=base64.b64encode(tf.io.encode_png(pixels[index]).numpy()).decode(),
            logits=logits[index].numpy().tolist(),
            probabilities=probabilities[index].tolist(),
        )
        for label, index in sorted(found.items())
    ]


def _verify(served: Path, card: ModelCard) -> None:
    with literal_path(served) as folder:
        loaded = tf.saved_model.load(str(folder))
    answer = loaded.signatures["serving_default"](
        tf.constant([base64.b64decode(example.png) for example in card.examples])
    )
    expected = np.array([example.logits for example in card.examples])
    if not np.allclose(answer["logits"].numpy(), expected, rtol=TOLERANCE, atol=TOLERANCE):
        difference = np.abs(answer["logits"].numpy() - expected).max()
        raise StageFailed(
            f"the exported model's logits differ from the trained model's by {difference:g}; not published"
        )


def _git_revision() -> str:
    if "GIT_REVISION" in os.environ:  # set when an image is built
        return os.environ["GIT_REVISION"]
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()
