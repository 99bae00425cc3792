"""Every model variant as ONNX, and what happens with one that cannot be."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.train.variants import BACKBONES
from kfp_image_classification.components.train.worker.models import MODELS
from kfp_image_classification.components.train.worker.onnx_export import OPSET, write_onnx

RANDOM = np.random.default_rng(4)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("name", sorted({*MODELS} - {*BACKBONES}))  # which have tests of their own
def test_every_model_answers_alike_for_any_number_of_images(
    name: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    model = MODELS[name](shape, 7)
    for weights in model.weights:  # normalisation, too, must have something to do
        weights.assign(RANDOM.uniform(0.01, 0.1, weights.shape))
    assert write_onnx(model, np.zeros((1, *shape), np.uint8), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for count in (1, 5):
        pixels = RANDOM.integers(0, 256, (count, *shape), np.uint8)
        expected = model(model_input(pixels), training=False).numpy()
        np.testing.assert_allclose(session.run(["logits"], {"pixels": pixels})[0], expected, rtol=1e-4, atol=1e-4)
    # For any runtime: none of ONNX Runtime's own operations, and images alone go in.
    written = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert [(operators.domain, operators.version) for operators in written.opset_import] == [("", OPSET)]
    assert [one.name for one in written.graph.input] == ["pixels"]


@keras.saving.register_keras_serializable()
class Python(keras.layers.Layer):
    """Runs Python, which ONNX has no counterpart for."""

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.py_function(lambda x: x, [values], tf.float32), values.shape)


class Restless(keras.layers.Layer):
    """Never answers twice alike, as a conversion that went wrong."""

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return values + tf.random.uniform(tf.shape(values))


@pytest.mark.parametrize(("layer", "told"), [(Python, "the conversion failed"), (Restless, "its logits differ")])
def test_a_model_that_does_not_convert_is_left_without_onnx(
    layer: type[keras.layers.Layer], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3), layer()])
    assert write_onnx(model, np.zeros((1, 8, 8, 1), np.uint8), tmp_path / "model.onnx") == ""
    assert not (tmp_path / "model.onnx").exists()
    assert f"no ONNX model: {told}" in capsys.readouterr().out
