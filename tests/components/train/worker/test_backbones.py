"""Backbones of keras.applications: images in 0..1, logits out, and nothing that a server lacks."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import applications

from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.train.variants import BACKBONES
from kfp_image_classification.components.train.worker.backbones import KERAS_BACKBONES
from kfp_image_classification.components.train.worker.compiled_step import waits_for_replicas
from kfp_image_classification.components.train.worker.models import MODELS, build_model
from kfp_image_classification.components.train.worker.onnx_export import write_onnx
from kfp_image_classification.components.train.worker.trained_part import split

# The others take as long to build as all other tests of a model together.
NAMES = [pytest.param(name, marks=[] if name == "mobilenet_v3_small" else pytest.mark.slow) for name in KERAS_BACKBONES]
SHAPE = (32, 32, 3)


def as_keras_has_it(name: str) -> keras.Model:
    """From images of 0..255, by the scaling that Keras documents, to what the architecture sees, averaged."""
    images = keras.layers.Input(SHAPE)
    scaled = applications.resnet_v2.preprocess_input(images) if name == "resnet50_v2" else images
    options = {} if name == "resnet50_v2" else {"include_preprocessing": True}
    features = KERAS_BACKBONES[name].build(include_top=False, weights=None, input_shape=SHAPE, **options)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(features(scaled)))


def test_names_are_those_that_the_step_knows() -> None:
    assert {*BACKBONES} == {*KERAS_BACKBONES} <= {*MODELS}


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_that_of_the_imagenet_weights(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    keras.utils.set_random_seed(1)
    reference = as_keras_has_it(name)
    expected = reference(pixels.astype(np.float32), training=False).numpy()
    body, head = split(build_model(name, SHAPE, 5, "float32"), name)
    for own, its in zip(body.weights, reference.weights[-len(body.weights) :], strict=True):
        own.assign(np.reshape(its, own.shape))
    seen = body(model_input(pixels), training=False).numpy()
    np.testing.assert_allclose(seen / expected.std(), expected / expected.std(), atol=1e-3)
    assert head.output.shape == (None, 5)


@pytest.mark.parametrize("name", NAMES)
def test_exported_as_onnx_like_any_other(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    assert write_onnx(build_model(name, SHAPE, 5, "float32"), pixels, tmp_path / "model.onnx"), capsys.readouterr().out
    assert capsys.readouterr().out == ""


def test_grey_image_is_seen_as_three_equal_channels() -> None:
    grey = np.random.default_rng(0).uniform(size=(3, 32, 32, 1)).astype(np.float32)
    ours, colours = (build_model("mobilenet_v3_small", (32, 32, channels), 5, "float32") for channels in (1, 3))
    colours.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(grey), colours(np.repeat(grey, 3, axis=-1)), rtol=1e-5, atol=1e-6)


def test_normalisation_is_of_each_workers_batch_and_follows_the_last_steps() -> None:
    model = build_model("mobilenet_v3_small", SHAPE, 5, "float32")
    assert not waits_for_replicas(model)
    features = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    momenta = {one.momentum for one in features.layers if isinstance(one, keras.layers.BatchNormalization)}
    assert momenta == {0.9}


def test_images_are_scaled_in_float32_also_in_a_model_of_bfloat16() -> None:
    model = build_model("mobilenet_v3_small", SHAPE, 5, "bfloat16")
    (scaling,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    assert scaling.compute_dtype == "float32"
    assert model(np.zeros((1, *SHAPE), np.float32)).dtype == "bfloat16"
    assert {weight.dtype for weight in model.get_weights()} == {np.dtype(np.float32)}
