"""The weights that a training begins with, as the chief reads them: which files are taken, and what is refused."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.applications import mobilenet_v3

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import StartedFrom
from kfp_image_classification.components.step.environment import PRETRAINED_VARIABLE
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.worker.backbones import KERAS_BACKBONES
from kfp_image_classification.components.train.worker.initial_weights import (
    begin_with,
    imagenet_weights,
    read_start,
    read_weights,
)
from kfp_image_classification.components.train.worker.keras_home import keep_downloads
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.trained_part import split

BACKBONE = "mobilenet_v3_small"
WEIGHTS = StartedFrom(parameter="weights", source="somewhere")
WHOLE = StartedFrom(parameter="initial_model", source="somewhere", new_head=False)
Save = Callable[[Path, keras.Model, keras.Model], object]

SAVED: dict[str, tuple[str, Save]] = {
    "our model": ("model.keras", lambda file, model, _: model.save(file)),
    "the part before the head": ("body.keras", lambda file, model, _: split(model, "")[0].save(file)),
    "its weights": ("body.weights.h5", lambda file, _, features: features.save_weights(file)),
    "its weights, as Keras 2 wrote them": ("body.h5", lambda file, _, features: features.save(file)),
}


@pytest.fixture(scope="module")
def features() -> keras.Model:
    """The backbone as keras.applications builds it."""
    keras.utils.set_random_seed(3)
    return KERAS_BACKBONES[BACKBONE].features(32, 32)


@pytest.mark.parametrize(
    ("architecture", "saved"),
    [
        *(("resnet", saved) for saved in SAVED),
        (BACKBONE, "our model"),
        (BACKBONE, "its weights, as Keras 2 wrote them"),
    ],
)
def test_all_layers_but_the_head(architecture: str, saved: str, features: keras.Model, tmp_path: Path) -> None:
    name, save = SAVED[saved]
    keras.utils.set_random_seed(1)
    donor = build_model(architecture, (32, 32, 3), 7, "float32")
    body, _ = split(donor, architecture)
    if architecture == BACKBONE:
        body.set_weights(features.get_weights())
    save(tmp_path / name, donor, features if architecture == BACKBONE else body)
    read = read_weights(tmp_path / name, WEIGHTS, architecture, (32, 32, 3), 3)
    for one, expected in zip(read, body.get_weights(), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_weights_of_another_size_of_image_suit_a_model_that_averages(tmp_path: Path) -> None:
    donor = build_model("resnet", (48, 40, 3), 7, "float32")
    donor.save(tmp_path / "model.keras")
    assert read_weights(tmp_path / "model.keras", WEIGHTS, "resnet", (32, 32, 3), 3)


class Danger(layers.Layer):
    """Nobody here knows it."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x


@pytest.mark.parametrize(
    ("name", "save", "start", "problem"),
    [
        (
            "cnn.keras",
            lambda file: build_model("cnn", (28, 28, 3), 3, "float32").save(file),
            WEIGHTS,
            r"its weights are not those of cnn for images of 32 x 32 x 3: one is \(576, 64\), and .* is \(1024, 64\)",
        ),
        (
            "resnet.keras",
            lambda file: build_model("resnet", (32, 32, 3), 3, "float32").save(file),
            WHOLE,
            "its weights are not those of cnn for images of 32 x 32 x 3: it has .* of them, and 10 are needed",
        ),
        (
            "lambda.keras",
            lambda file: keras.Sequential([layers.Input((4,)), layers.Lambda(lambda x: x)]).save(file),
            WEIGHTS,
            r"lambda.keras cannot be read as weights of cnn \(ValueError: .*[Ll]ambda",
        ),
        (
            "layer.keras",
            lambda file: keras.Sequential([layers.Input((4,)), Danger()]).save(file),
            WEIGHTS,
            r"layer.keras cannot be read as weights of cnn \(TypeError: ",
        ),
        (
            "cut.keras",
            lambda file: file.write_bytes(b"PK\x03\x04"),
            WEIGHTS,
            r"cut.keras cannot be read as weights of cnn \(",
        ),
        (
            "resnet.weights.h5",
            lambda file: build_model("resnet", (32, 32, 3), 3, "float32").save_weights(file),
            WEIGHTS,
            r"resnet.weights.h5 cannot be read as weights of cnn \(",
        ),
    ],
)
def test_what_is_refused(
    name: str, save: Callable[[Path], object], start: StartedFrom, problem: str, tmp_path: Path
) -> None:
    save(tmp_path / name)
    with pytest.raises(InvalidInput, match=f"^{start.parameter} = 'somewhere': .*{problem}"):
        read_weights(tmp_path / name, start, "cnn", (32, 32, 3), 3)


def test_chief_reads_for_all(digits: Dataset, tmp_path: Path) -> None:
    """Two workers after one another, with a sum that remembers what the chief gave."""
    donor = build_model("cnn_small", (28, 28, 1), 10, "float32")
    (tmp_path / "start").mkdir()
    donor.save(tmp_path / "start" / "5ha-model.keras")
    options = TrainOptions(
        model_type="cnn_small", workers=2, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=0, weights="a.keras"
    )
    given: list[tf.Tensor] = []

    def total(value: tf.Tensor) -> tf.Tensor:
        given.append(value)
        return tf.add_n(given)

    for is_chief in (True, False):
        start = WEIGHTS.model_copy(update={"sha256": "5ha"})
        job = TrainingJob(options=options, dataset="", directory=str(tmp_path), start=start)
        model = build_model("cnn_small", (28, 28, 1), 10, "float32")
        before = model.get_weights()
        begin_with(model, job, is_chief, total)
        after = model.get_weights()
        for one, expected in zip(after[:-2], donor.get_weights()[:-2], strict=True):
            np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(after[-2], before[-2], err_msg="the head is the new model's own")


class Counting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and counts."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(features: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counting]]:
    """Serves weights of ours on loopback, where keras.applications is told that ImageNet's are."""
    file = tmp_path / "hub" / KERAS_BACKBONES[BACKBONE].imagenet_file
    file.parent.mkdir()
    features.save(file)
    monkeypatch.setattr(Counting, "asked", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=file.parent))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", f"http://127.0.0.1:{server.server_port}/")
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(mobilenet_v3.WEIGHTS_HASHES, "small_224_1.0_float", ("", digest))
    yield Counting
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own KERAS_HOME, with a keras.json that nobody may follow."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "keras.json").write_text('{"image_data_format": "channels_first"}')
    monkeypatch.setenv(PRETRAINED_VARIABLE, str(folder))
    (tmp_path / "job").mkdir()
    keep_downloads(tmp_path / "job")
    # Keras has been loaded long ago.
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path / "job" / "keras"))
    return folder


def test_imagenet_is_downloaded_once_and_kept_where_the_user_keeps_such_files(
    hub: type[Counting], home: Path, features: keras.Model, tmp_path: Path
) -> None:
    options = TrainOptions(
        model_type=BACKBONE, workers=1, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=0, weights="imagenet"
    )
    start = StartedFrom(parameter="weights", source="imagenet")
    job = TrainingJob(options=options, dataset="", directory=str(tmp_path / "job"), start=start)
    model = build_model(BACKBONE, (32, 32, 1), 3, "float32")
    begin_with(model, job, True, lambda value: value)
    for one, expected in zip(split(model, "")[0].get_weights(), features.get_weights(), strict=True):
        np.testing.assert_array_equal(one, expected)
    imagenet_weights(BACKBONE)
    assert hub.asked == 1
    kept = home / "models" / KERAS_BACKBONES[BACKBONE].imagenet_file
    told = read_start(job)
    assert told
    assert told.sha256 == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert not (tmp_path / "job" / "keras" / "keras.json").exists()


def test_machine_that_cannot_download_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch, free_port) -> None:
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(InvalidInput) as error:
        imagenet_weights(BACKBONE)
    message = str(error.value)
    assert message.startswith(
        f"weights = 'imagenet': those of {BACKBONE} cannot be downloaded here (Exception: URL fetch failure on "
    )
    assert f"bring {KERAS_BACKBONES[BACKBONE].imagenet_file} here, either into {home / 'models'} or anywhere" in message
    assert message.endswith("or give weights = none")
