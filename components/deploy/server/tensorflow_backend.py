"""Runs a model's SavedModel with TensorFlow: the fallback where there is no ONNX file, or none that answers right."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts.model_card import ModelCard
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.lean_import import import_without
from kfp_image_classification.components.step.literal_path import literal_path


def load(folder: Path, card: ModelCard, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what turns uint8 [n, *image_shape] into float32 logits [n, classes].

    Raises:
        StageFailed: When the SavedModel cannot be loaded, or TensorFlow is not there.
    """
    try:
        with import_without("keras"):
            import tensorflow as tf
    except ImportError:
        raise StageFailed("TensorFlow is not installed (Python package tensorflow)") from None
    try:
        with suppress(RuntimeError):  # it can be told once only, and is the same for each version
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        with literal_path(folder) as literal:
            loaded = tf.saved_model.load(str(literal))
        loaded.signatures["pixels"]
    except Exception as error:  # its errors share no type
        raise StageFailed(f"TensorFlow cannot load the saved_model in {str(folder)!r}: {error}") from None

    def logits(pixels: np.ndarray) -> np.ndarray:
        # By way of `loaded`: a signature alone does not keep its model alive. A GPU would round otherwise.
        with tf.device("CPU:0"):
            result: np.ndarray = loaded.signatures["pixels"](tf.constant(pixels))["logits"].numpy()
        return result

    return logits
