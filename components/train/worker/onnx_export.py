"""The exported model once more as ONNX, for a model server that starts in a second and needs no TensorFlow."""

import hashlib
import importlib.util
import logging
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.train.worker.stateless_model import logits_with, variables_of

OPSET = 18
# As for the SavedModel, see `export.py`.
TOLERANCE = 1e-4
RANDOM_IMAGES = 16


def missing_packages() -> list[str]:
    """What is needed, and not installed."""
    return [name for name in ("onnx", "onnxruntime", "tf2onnx") if importlib.util.find_spec(name) is None]


def write_onnx(model: keras.Model, examples: np.ndarray, file: Path) -> str:
    """Converts a model, from `pixels` (uint8 [n, height, width, channels]) to `logits` (float32 [n, classes]).

    A model that cannot be converted, or that answers otherwise as ONNX, is still a good SavedModel: it is left at that,
    and the log says why.

    Args:
        model: The trained model.
        examples: uint8 [n, height, width, channels]: images to compare the answers for, beside random ones.
        file: Where to write.

    Returns:
        The file's SHA-256, or "" when there is none.
    """
    random = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, *examples.shape[1:]), np.uint8)
    pixels = np.concatenate([examples, random])
    try:
        content = _folded(_converted(model, examples.shape[1:]))
        answered = _answer(content, pixels)
    except Exception as error:  # an operation without a counterpart ends in any kind of error
        print(f"no ONNX model: the conversion failed ({type(error).__name__}: {error})", flush=True)
        return ""
    expected = model(model_input(pixels), training=False).numpy()
    if not np.allclose(answered, expected, rtol=TOLERANCE, atol=TOLERANCE):
        difference = np.abs(answered - expected).max()
        print(f"no ONNX model: its logits differ from the trained model's by {difference:g}", flush=True)
        return ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _converted(model: keras.Model, image_shape: tuple[int, ...]) -> bytes:
    import onnx
    import tf2onnx

    variables = variables_of(model)
    pixels = tf.TensorSpec([None, *image_shape], tf.uint8, name="pixels")
    # As inputs, at first: tf2onnx copies a graph, and all weights in it, some seventy times, and keeps the copies.
    weights = [tf.TensorSpec(one.shape, one.dtype, name=f"weight_{index}") for index, one in enumerate(variables)]

    @tf.function(input_signature=[pixels, *weights])
    def logits(pixels: tf.Tensor, *weights: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": logits_with(weights, model, model_input(pixels))}

    # An optimisation of its own that fails is told with a traceback, and left away; what counts is compared below.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    converted, _ = tf2onnx.convert.from_function(
        logits, input_signature=logits.input_signature, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
    )
    graph = converted.graph
    (image,) = [one for one in graph.input if one.name == "pixels"]
    del graph.input[:]
    graph.input.append(image)
    used = {name for node in graph.node for name in node.input}
    for spec, variable in zip(weights, variables, strict=True):
        if spec.name in used:
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(variable), spec.name))
    content: bytes = converted.SerializeToString()
    return content


def _folded(content: bytes) -> bytes:
    """The same with all computed beforehand that weights alone decide, such as kernels the other way round."""
    import onnx
    import onnxruntime

    options = _options()
    # The level that fits every machine and every runtime.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/model.onnx"
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        model = onnx.load(f"{folder}/model.onnx")
    own = [operators for operators in model.opset_import if not operators.domain]
    del model.opset_import[:]  # all that ONNX Runtime knows of its own; none is used
    model.opset_import.extend(own)
    folded: bytes = model.SerializeToString()
    return folded


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Writes `Erfc`, which is in TensorFlow's GELU and not in ONNX, as 1 - `Erf`."""
    one = graph.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    erf = graph.make_node("Erf", [node.input[0]]).output[0]
    graph.remove_node(node.name)
    graph.make_node("Sub", [one, erf], name=node.name, outputs=node.output)


def _answer(content: bytes, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(["logits"], {"pixels": pixels})[0]
    return answer


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    return options
