"""Models of users: what is taken, and what is refused with which words."""

from pathlib import Path

import keras
import pytest

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.worker.models import build_model

CODE = """
import keras
import tensorflow as tf
from keras import layers

def build(image_shape, classes):
    images = layers.Input(image_shape)
    return keras.Model(images, layers.Dense(classes)(layers.Dropout(0.5)(layers.Flatten()(images))))

def probabilities(image_shape, classes):
    return keras.Sequential([build(image_shape, classes), layers.Softmax()])

def features(image_shape, classes):
    return keras.Sequential([layers.Input(image_shape), layers.Flatten()])

def two_answers(image_shape, classes):
    images = layers.Input(image_shape)
    return keras.Model(images, [layers.Flatten()(images), layers.Flatten()(images)])

def other_images(image_shape, classes):
    return keras.Sequential([layers.Input((2, 2, 1)), layers.Flatten(), layers.Dense(classes)])

def layer(image_shape, classes):
    return layers.Dense(classes)

def without_arguments():
    return build((8, 8, 1), 3)

class Scaled(layers.Layer):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, x):
        return self.scale(x)

def not_saved(image_shape, classes):
    return keras.Sequential([build(image_shape, classes), Scaled(lambda x: 2 * x)])

class Restless(layers.Layer):
    def call(self, x):
        return x + keras.random.normal((2, 3))

def restless(image_shape, classes):
    return keras.Sequential([build(image_shape, classes), Restless()])

class Hidden(layers.Layer):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0, name="scale")

    def call(self, x):
        return self.scale * x

def hidden_variable(image_shape, classes):
    return keras.Sequential([build(image_shape, classes), Hidden()])

number = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, under a name of its own in each test."""
    name = f"own_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(CODE)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_own_model_from_the_current_folder(code: str, compute_dtype: str) -> None:
    model = build_model(f"{code}:build", (8, 8, 1), 3, compute_dtype)
    assert model.output_shape == (None, 3)
    assert isinstance(model, keras.Model)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (":probabilities", "answers probabilities; it must answer logits: leave the softmax away"),
        (":features", r"must answer logits, a number for each of the 3 classes; for 2 images it answered \(2, 64\)"),
        (":two_answers", "for 2 images it answered list"),
        (":other_images", r"does not take images of \(8, 8, 1\), float32 from 0 to 1: ValueError"),
        (":layer", "must return a Keras model, not Dense"),
        (":without_arguments", r"failed for images of \(8, 8, 1\) and 3 classes: TypeError"),
        (
            ":not_saved",
            "could not be saved after the training: NotImplementedError: Object Scaled was .*`get_config",
        ),
        (
            ":hidden_variable",
            "Keras does not know variables of its model \\(scale:0\\), and would neither train nor save",
        ),
        (":restless", "answers otherwise when it is asked again; nothing in it may be random"),
        (":number", "is no function, but int"),
        (":missing", "cannot be imported: AttributeError: .* has no attribute 'missing'"),
        ("_missing:build", "cannot be imported: ModuleNotFoundError: .*must be installed where the workers run"),
        (
            "_broken:build",
            "cannot be imported: ModuleNotFoundError in line 1 of .*_broken.py: No module named 'no_such_package'",
        ),
    ],
)
def test_what_is_refused(code: str, function: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=f"^model_type = '{code}{function}': .*{problem}"):
        build_model(f"{code}{function}", (8, 8, 1), 3, "float32")
