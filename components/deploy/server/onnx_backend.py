"""Runs a model's ONNX file with ONNX Runtime."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts.model_card import ONNX_MODEL, ModelCard
from kfp_image_classification.components.step.errors import StageFailed


def load(folder: Path, card: ModelCard, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what turns uint8 [n, *image_shape] into float32 logits [n, classes].

    Raises:
        StageFailed: When the file is missing, is not the one that was exported, or cannot be loaded.
    """
    if not card.onnx_sha256:
        raise StageFailed("the model was exported without ONNX")
    try:
        content = (folder / ONNX_MODEL).read_bytes()
    except OSError as error:
        raise StageFailed(f"{ONNX_MODEL} cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != card.onnx_sha256:
        raise StageFailed(f"{ONNX_MODEL} is not the file that was exported: its checksum differs")
    try:
        import onnxruntime
    except ImportError:
        raise StageFailed("ONNX Runtime is not installed (Python package onnxruntime)") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the core on which requests are read.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no type
        raise StageFailed(f"ONNX Runtime cannot load {ONNX_MODEL}: {error}") from None
    return lambda pixels: session.run(["logits"], {"pixels": pixels})[0]
