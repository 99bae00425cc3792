"""The real model server, started by the deploy stage, asked over HTTP."""

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image
from skips import tool

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import newest_version, read_model_card
from kfp_image_classification.components.contracts.preprocessing import decode_image, model_input
from kfp_image_classification.components.deploy.endpoint import Endpoint
from kfp_image_classification.components.deploy.local_server import deploy_locally, stop_server
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.stage_log import stage_log

RANDOM = np.random.default_rng(1)


@pytest.fixture(scope="module")
def endpoint(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    directory = tmp_path_factory.mktemp("service") / "endpoint"
    deployed = deploy_locally(trained.model, DeployOptions(service_name="digits"), directory, stage_log("test"))
    assert Endpoint.read(directory) == deployed
    yield deployed
    stop_server(deployed.pid)
    assert not psutil.pid_exists(deployed.pid)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def b64(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


def predict(endpoint: Endpoint, instances: list) -> list[dict]:
    response = httpx.post(endpoint.predict_url, json={"instances": instances})
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


@pytest.mark.parametrize(
    "image",
    [
        encoded(RANDOM.integers(0, 256, (28, 28), np.uint8)),
        encoded(RANDOM.integers(0, 256, (28, 28), np.uint8), "JPEG"),
        encoded(RANDOM.integers(0, 256, (61, 40), np.uint8)),
        encoded(RANDOM.integers(0, 256, (50, 50, 3), np.uint8)),
    ],
    ids=["png", "jpeg", "other size", "colour"],
)
def test_same_bytes_in_same_logits_out(trained: SimpleNamespace, endpoint: Endpoint, image: bytes) -> None:
    """Training-time preprocessing and model, the SavedModel's signature, and the server agree."""
    model = keras.models.load_model(trained.model / "model.keras")
    in_training = model(model_input(decode_image(tf.constant(image), (28, 28, 1)))[tf.newaxis], training=False)[0]
    loaded = tf.saved_model.load(str(newest_version(trained.model)))
    from_signature = loaded.signatures["serving_default"](tf.constant([image]))["logits"][0]
    from_server = predict(endpoint, [b64(image)])[0]["logits"]
    np.testing.assert_allclose(from_signature, in_training, atol=1e-5)
    np.testing.assert_allclose(from_server, in_training, atol=1e-5)


def test_tensors_and_encoded_images_answer_alike(endpoint: Endpoint, digits: Dataset) -> None:
    pixels = RANDOM.integers(0, 256, (3, 28, 28, 1), np.uint8)
    from_bytes = predict(endpoint, [b64(encoded(image)) for image in pixels])
    for instances in (pixels.tolist(), pixels.squeeze(-1).tolist(), [{"pixels": image.tolist()} for image in pixels]):
        assert predict(endpoint, instances) == from_bytes
    assert predict(endpoint, [{"image_bytes": b64(encoded(image))} for image in pixels]) == from_bytes
    for answer in from_bytes:
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert answer["label"] == digits.manifest.class_names[answer["class_index"]]


def test_v2_protocol(endpoint: Endpoint) -> None:
    pixels = RANDOM.integers(0, 256, (2, 28, 28, 1), np.uint8)
    expected = predict(endpoint, pixels.tolist())
    url = f"{endpoint.url}/v2/models/{endpoint.name}/infer"
    text = [b64(encoded(image))["b64"] for image in pixels]
    for tensor in (
        {"name": "pixels", "datatype": "UINT8", "shape": [2, 28, 28, 1], "data": pixels.reshape(-1).tolist()},
        {"name": "image_bytes", "datatype": "BYTES", "shape": [2], "data": text},
    ):
        response = httpx.post(url, json={"inputs": [tensor]})
        assert response.status_code == 200, response.text
        outputs = {output["name"]: output for output in response.json()["outputs"]}
        assert outputs["label"]["data"] == [answer["label"] for answer in expected]
        assert outputs["logits"]["shape"] == [2, 10]
        np.testing.assert_allclose(
            outputs["logits"]["data"], np.ravel([answer["logits"] for answer in expected]), atol=1e-5
        )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "at least one image"),
        ([], "at least one image"),
        ({"instances": []}, "at least one image"),
        ({"instances": [{"b64": "%%%"}]}, "image 0: not valid base64: '%' is no digit of it"),
        ({"instances": [b64(b"no image")]}, "cannot be decoded"),
        ({"instances": [{"b64": "aGk="}, [[0] * 28] * 28]}, "cannot be mixed"),
        ({"instances": [[[0] * 27] * 28]}, "expected shape [n, 28, 28, 1], n images, got [1, 28, 27]"),
        ({"instances": [[[0] * 28] * 28, [[0] * 28] * 27]}, "differ in shape"),
        ({"instances": [[[0.5] * 28] * 28]}, "do not scale them"),
        ({"instances": [[[256] * 28] * 28]}, "from 0 to 255"),
        ({"instances": ["text"]}, "expected numbers"),
    ],
)
def test_bad_requests(endpoint: Endpoint, body: object, message: str) -> None:
    response = httpx.post(endpoint.predict_url, json=body)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]


def test_unknown_model(endpoint: Endpoint) -> None:
    assert httpx.get(f"{endpoint.url}/v1/models/other").status_code == 404


def test_example_request_is_answered_by_curl(endpoint: Endpoint, trained: SimpleNamespace, tmp_path: Path) -> None:
    card = read_model_card(trained.model)
    shown = next(example for example in card.examples if example.label == endpoint.example_label)
    (tmp_path / "request.json").write_text(json.dumps({"instances": [{"b64": shown.png}]}))
    answer = subprocess.run(
        [tool("curl"), "-s", "-H", "Content-Type: application/json", "-d", "@request.json", endpoint.predict_url],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert json.loads(answer.stdout)["predictions"][0]["label"] == endpoint.example_answer == endpoint.example_label


def test_server_answers_on_loopback_only(endpoint: Endpoint) -> None:
    listening = [c.laddr.ip for c in psutil.Process(endpoint.pid).connections() if c.status == psutil.CONN_LISTEN]
    assert set(listening) == {"127.0.0.1"}


def test_model_that_answers_wrongly_is_not_deployed(trained: SimpleNamespace, tmp_path: Path) -> None:
    model = shutil.copytree(trained.model, tmp_path / "model")
    card_file = model / "1" / "assets.extra" / "model.json"
    card = json.loads(card_file.read_text())
    card["examples"][0]["probabilities"][0] += 0.1
    card_file.write_text(json.dumps(card))
    with pytest.raises(StageFailed, match="answers otherwise than the trained model did"):
        deploy_locally(model, DeployOptions(service_name="digits"), tmp_path / "endpoint", stage_log("test"))
    assert [
        process for process in psutil.Process().children() if "--model_dir=" + str(model) in process.cmdline()
    ] == []


def test_model_that_cannot_be_loaded_is_told_from_the_servers_log(trained: SimpleNamespace, tmp_path: Path) -> None:
    model = shutil.copytree(trained.model, tmp_path / "model")
    (model / "1" / "saved_model.pb").write_bytes(b"not a graph")
    (model / "1" / "assets.extra" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(
        StageFailed, match=r"the model server exited with code 1; its last lines:\n(.*\n)*.*saved_model"
    ):
        deploy_locally(model, DeployOptions(service_name="digits"), tmp_path / "endpoint", stage_log("test"))


def test_only_a_model_server_is_stopped() -> None:
    other = subprocess.Popen(["sleep", "30"])
    stop_server(other.pid)
    assert other.poll() is None
    other.kill()
    other.wait()
    stop_server(other.pid)
