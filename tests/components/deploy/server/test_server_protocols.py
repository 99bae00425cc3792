"""The server's protocols beyond V1 lists: V2 with raw tensors, gRPC, and what each malformed request gets."""

import asyncio
import base64
import io
import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from kfp_image_classification.components.deploy.server.grpc_server import _kserve_messages
from kfp_image_classification.components.train.launchers.machine import free_ports

RANDOM = np.random.default_rng(2)
PIXELS = RANDOM.integers(0, 256, (3, 28, 28, 1), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


FILES = [png(pixels) for pixels in PIXELS]
RAW_FILES = b"".join(len(file).to_bytes(4, "little") + file for file in FILES)


@pytest.fixture(scope="module")
def server(start_server, trained: SimpleNamespace) -> SimpleNamespace:
    port = free_ports(1)[0]
    running = start_server(trained.model, f"--grpc_port={port}", "--max_body_bytes=1000000", "--max_image_pixels=10000")
    answers = httpx.post(running.predict_url, json={"instances": PIXELS.tolist()}).json()["predictions"]
    return SimpleNamespace(running=running, url=running.url, grpc=f"127.0.0.1:{port}", answers=answers)


def infer(server: SimpleNamespace, header: dict, raw: bytes = b"", **headers: str) -> httpx.Response:
    content = json.dumps(header).encode()
    length = {"inference-header-content-length": str(len(content))} if raw else {}
    url = f"{server.url}/v2/models/digits/infer"
    return httpx.post(url, content=content + raw, headers={**length, **headers})


def tensor(datatype: str, shape: list[int], **rest: object) -> dict:
    return {"name": "x", "datatype": datatype, "shape": shape, **rest}


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("UINT8", [3, 28, 28, 1], PIXELS.tobytes()),
        ("UINT8", [3, 28, 28], PIXELS.tobytes()),
        ("FP32", [3, 28, 28, 1], PIXELS.astype("<f4").tobytes()),
        ("INT64", [3, 28, 28, 1], PIXELS.astype("<i8").tobytes()),
        ("BYTES", [3], RAW_FILES),
    ],
)
def test_raw_tensors(server: SimpleNamespace, datatype: str, shape: list[int], raw: bytes) -> None:
    request = {
        "id": "seven",
        "inputs": [tensor(datatype, shape, parameters={"binary_data_size": len(raw)})],
        "outputs": [{"name": "label"}, {"name": "logits", "parameters": {"binary_data": True}}],
    }
    response = infer(server, request, raw)
    assert response.status_code == 200, response.text
    length = int(response.headers["inference-header-content-length"])
    header = json.loads(response.content[:length])
    assert (header["id"], header["model_name"], header["model_version"]) == ("seven", "digits", "1")
    label, logits = header["outputs"]
    assert label["data"] == [answer["label"] for answer in server.answers]
    assert logits["parameters"] == {"binary_data_size": 3 * 10 * 4}
    np.testing.assert_allclose(
        np.frombuffer(response.content[length:], "<f4").reshape(logits["shape"]),
        [answer["logits"] for answer in server.answers],
        atol=1e-5,
    )


def test_all_outputs_raw(server: SimpleNamespace) -> None:
    raw = PIXELS.tobytes()
    inputs = [tensor("UINT8", [3, 28, 28, 1], parameters={"binary_data_size": len(raw)})]
    response = infer(server, {"inputs": inputs, "parameters": {"binary_data_output": True}}, raw)
    outputs = json.loads(response.content[: int(response.headers["inference-header-content-length"])])["outputs"]
    assert {output["name"] for output in outputs} == {"label", "class_index", "probabilities", "logits"}
    assert all("data" not in output for output in outputs)


PIXEL_INPUT = tensor("UINT8", [3, 28, 28, 1], parameters={"binary_data_size": PIXELS.nbytes})


@pytest.mark.parametrize(
    ("header", "raw", "headers", "status", "message"),
    [
        ([], b"", {}, 400, "one input"),
        ({"inputs": []}, b"", {}, 400, "one input"),
        ({"inputs": [tensor("UINT8", [1])] * 2}, b"", {}, 400, "one input"),
        ({"inputs": [tensor("UINT8", [-1, 28, 28, 1], data=[])]}, b"", {}, 400, "whole numbers"),
        ({"inputs": [tensor("UINT8", [1, 28, 28, 1], data=[0] * 783)]}, b"", {}, 400, "takes 784 numbers, got 783"),
        ({"inputs": [tensor("UINT8", [1, 28, 28, 1], data="text")]}, b"", {}, 400, "expected a list"),
        ({"inputs": [tensor("UINT8", [1, 2], data=[[0], [0, 1]])]}, b"", {}, 400, "differ in length"),
        ({"inputs": [tensor("COMPLEX", [1], data=[1])]}, b"", {}, 400, "datatype = 'COMPLEX'"),
        ({"inputs": [tensor("BYTES", [1], data=["%"])]}, b"", {}, 400, "not valid base64"),
        ({"inputs": [tensor("BYTES", [2], data=["aGk="])]}, b"", {}, 400, "as many images"),
        ({"inputs": [tensor("BYTES", [1], data=["aGk="])]}, b"", {}, 400, "image 0: cannot be decoded"),
        ({"inputs": [PIXEL_INPUT]}, PIXELS.tobytes()[:-1], {}, 400, "2351 bytes follow the JSON"),
        ({"inputs": [tensor("UINT8", [1])]}, b"more", {}, 400, "belong to no input"),
        ({"inputs": [{**PIXEL_INPUT, "shape": [4, 28, 28, 1]}]}, PIXELS.tobytes(), {}, 400, "takes 3136 bytes"),
        (
            {"inputs": [tensor("BYTES", [1], parameters={"binary_data_size": 5})]},
            b"\xff\xff\xff\xffx",
            {},
            400,
            "beyond the input",
        ),
        ({"inputs": [PIXEL_INPUT], "outputs": [{"name": "none"}]}, PIXELS.tobytes(), {}, 400, "there is no 'none'"),
        ({"inputs": [PIXEL_INPUT], "id": 7}, PIXELS.tobytes(), {}, 400, "id: expected text"),
        ({"inputs": [{**PIXEL_INPUT, "data": [0] * 2352}]}, PIXELS.tobytes(), {}, 400, "after it, not both"),
        ({"inputs": [tensor("UINT8", [0] + [2**31 - 1] * 7, data=[])]}, b"", {}, 400, "1 to 8 whole numbers, from 1"),
        (
            {"inputs": [tensor("BYTES", [1], parameters={"binary_data_size": True})]},
            b"x",
            {},
            400,
            "binary_data_size = True",
        ),
        ({}, b"", {"inference-header-content-length": "99"}, 400, "expected a number up to"),
        ({}, b"", {"content-encoding": "gzip"}, 415, "send the body as it is"),
        ({}, b"", {"content-encoding": "gzip, identity"}, 415, "send the body as it is"),
        ({}, b"", {"content-encoding": "Identity"}, 400, "one input"),
        ({}, b"", {"content-encoding": ""}, 400, "one input"),
    ],
)
def test_bad_v2_requests(
    server: SimpleNamespace, header: object, raw: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    response = infer(server, header, raw, **headers)  # type: ignore[arg-type]
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text


@pytest.mark.parametrize("path", ["/v1/models/digits:predict", "/v2/models/digits/infer"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"NaN", b'{"instances": 1}'])
def test_what_is_no_request_is_refused(server: SimpleNamespace, path: str, body: bytes) -> None:
    assert httpx.post(server.url + path, content=body).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/metrics", 200),
        ("HEAD", "/v2/models/digits", 200),
        ("HEAD", "/v2/models/other", 404),
        ("HEAD", "/v1/models/digits:predict", 405),
        ("OPTIONS", "/v2/health/ready", 405),
        ("GET", "/v1/models/digits/versions/1", 200),
        ("GET", "/v1/models/digits/versions/2", 404),
        ("POST", "/v1/models/digits/versions/1:predict", 400),
        ("POST", "/v1/models/digits/versions/2:predict", 404),
        ("POST", "/v1/models/digits/versions/1:classify", 404),
        ("POST", "/v1/models/d%69gits%3Apredict", 400),
        ("POST", "/", 405),
        ("GET", "/v2/repository/index", 200),
        ("POST", "/v2/repository/index", 200),
        ("PUT", "/v2/repository/index", 405),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/models/digits/stats", 200),
        ("GET", "/v2/models/digits/versions/1/stats", 200),
        ("GET", "/v2/models/digits/versions/2/stats", 404),
        ("GET", "/v2/models/other/stats", 404),
        ("POST", "/v2/models/digits/stats", 405),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/digits", 200),
        ("GET", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/digits", 200),
        ("GET", "/v2/models/digits/ready", 200),
        ("GET", "/v2/models/digits/versions/1/ready", 200),
        ("GET", "/v2/models/digits/versions/2/ready", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v1/models/digits:predict", 405),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/health/ready", 405),
        ("POST", "/v2/repository/models/digits/load", 404),
        ("POST", "/v2/repository/models/digits/unload", 404),
    ],
)
def test_paths(server: SimpleNamespace, method: str, path: str, status: int) -> None:
    assert httpx.request(method, server.url + path).status_code == status


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json, Text/HTML;q=0.5", True),
    ],
)
def test_root_is_a_page_for_a_browser_and_a_sign_of_life_for_a_program(
    server: SimpleNamespace, accept: str, is_page: bool
) -> None:
    answer = httpx.get(f"{server.url}/", headers={"accept": accept})
    assert answer.headers["vary"] == "accept"
    if is_page:
        assert answer.text.startswith("<!DOCTYPE html>")
    else:  # what InferenceRESTClient.is_server_live of kserve 0.21 looks for
        assert answer.json()["status"].lower() == "alive"


WRITTEN = base64.b64encode(FILES[0]).decode()


def padded(signs: int) -> str:
    """A file whose base64 needs so many signs of padding: readers of PNG pass over what follows the end."""
    return base64.b64encode(FILES[0] + b"x" * ((3 - signs - len(FILES[0])) % 3)).decode()


@pytest.mark.parametrize(
    "written",
    [
        WRITTEN,
        "\n".join(WRITTEN[start : start + 76] for start in range(0, len(WRITTEN), 76)) + "\n",
        f" \t\r\n\v\f{WRITTEN}  ",
        padded(2),
        padded(2)[:-2],
        padded(1)[:-1],
        padded(1)[:-1] + ".",
        padded(2)[:-2] + " = \n=",
        padded(2)[:-2] + "=.",
    ],
    ids=[
        "plain",
        "lines",
        "white space around",
        "padded",
        "unpadded 2",
        "unpadded 1",
        "dot",
        "spaced padding",
        "mixed",
    ],
)
def test_base64_is_taken_as_tensorflow_serving_takes_it(server: SimpleNamespace, written: str) -> None:
    answer = httpx.post(server.running.predict_url, json={"instances": [{"b64": written}]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] == server.answers[0]["label"]
    response = infer(server, {"inputs": [tensor("BYTES", [1], data=[written])]})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (f"data:image/png;base64,{WRITTEN}", "this is a data URL; send what follows its comma"),
        (str(base64.b64encode(FILES[0])), "this is how Python shows bytes; decode them to text before"),
        ("_-8" + WRITTEN, "this is the alphabet for URLs, with - and _; send the standard one, with + and /"),
        (padded(2)[:-1], "it is cut off, or its padding is wrong"),
        (padded(2) + "=", "it is cut off, or its padding is wrong"),
        (padded(2)[:-3], "it is cut off, or its padding is wrong"),
        ("AA=A", "'=' is no digit of it"),
        ("AAAA" + "\N{NO-BREAK SPACE}", "is no digit of it"),
        ("\N{GREEK SMALL LETTER ALPHA}AAA", "is no digit of it"),
    ],
)
def test_other_base64_is_named(server: SimpleNamespace, written: str, told: str) -> None:
    answer = httpx.post(server.running.predict_url, json={"instances": [{"b64": WRITTEN}, {"b64": written}]})
    assert (answer.status_code, answer.json()["error"].startswith("image 1: not valid base64: ")) == (400, True)
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("instances", "got"),
    [
        (np.zeros((2, 27, 28, 1), int).tolist(), "got [2, 27, 28, 1]"),
        (np.zeros((28, 28, 1), int).tolist(), "got [28, 28, 1]: one image without the axis of the batch"),
        (np.zeros((28, 28), int).tolist(), "got [28, 28]: one image without the axis of the batch"),
        (np.zeros((1, 28, 28, 3), int).tolist(), "got [1, 28, 28, 3]"),
        ([5], "got [1]"),
    ],
)
def test_shapes_name_the_axis_of_the_batch(server: SimpleNamespace, instances: list, got: str) -> None:
    error = httpx.post(server.running.predict_url, json={"instances": instances}).json()["error"]
    assert error == f"pixels: expected shape [n, 28, 28, 1], n images, {got}"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}'])
def test_repository_index(server: SimpleNamespace, body: bytes) -> None:
    expected = [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]
    assert httpx.post(f"{server.url}/v2/repository/index", content=body).json() == expected
    assert httpx.get(f"{server.url}/v2/repository/index").json() == expected


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}'])
def test_malformed_question_for_the_index(server: SimpleNamespace, body: bytes) -> None:
    assert httpx.post(f"{server.url}/v2/repository/index", content=body).status_code == 400


def test_statistics_count_requests_images_and_batches(server: SimpleNamespace) -> None:
    def asked() -> dict:
        (told,) = httpx.get(f"{server.url}/v2/models/digits/versions/1/stats").json()["model_stats"]
        assert told == httpx.get(f"{server.url}/v2/models/stats").json()["model_stats"][0]
        return told

    before = asked()
    for instances in (PIXELS.tolist(), [{"b64": WRITTEN}], [{"b64": base64.b64encode(b"no image").decode()}]):
        httpx.post(server.running.predict_url, json={"instances": instances})
    after = asked()
    assert (after["name"], after["version"]) == ("digits", "1")
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 2
    assert after["last_inference"] >= before["last_inference"] > 1.7e12
    grown = {
        name: (stats["count"] - before["inference_stats"][name]["count"], stats["ns"] > 0)
        for name, stats in after["inference_stats"].items()
    }
    assert grown == {
        "success": (2, True),
        "fail": (1, True),
        "queue": (2, True),
        "compute_input": (2, True),
        "compute_infer": (2, True),
        "compute_output": (2, True),
        "cache_hit": (0, False),
    }
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in after["batch_stats"]}
    assert sizes[3] >= 1 <= sizes[1]


def test_content_type_may_name_a_charset(server: SimpleNamespace) -> None:
    body = json.dumps({"instances": PIXELS.tolist()})
    headers = {"content-type": "application/json; charset=utf-8"}
    assert httpx.post(server.running.predict_url, content=body, headers=headers).json()["predictions"] == server.answers


def test_metadata_tells_what_to_send(server: SimpleNamespace) -> None:
    metadata = httpx.get(f"{server.url}/v2/models/digits").json()
    assert {entry["name"]: entry["shape"] for entry in metadata["inputs"]} == {
        "image_bytes": [-1],
        "pixels": [-1, 28, 28, 1],
    }
    assert (metadata["name"], metadata["versions"]) == ("digits", ["1"])


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_body_that_is_too_large(server: SimpleNamespace, chunked: bool) -> None:
    body = b" " * 1_500_000
    content = iter([body[:700_000], body[700_000:]]) if chunked else body
    response = httpx.post(server.running.predict_url, content=content)
    assert response.status_code == 413
    assert "1,000,000 bytes" in response.json()["error"]


def test_body_that_does_not_arrive(start_server, trained: SimpleNamespace) -> None:
    running = start_server(trained.model, "--body_seconds=0.5")
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"POST /v1/models/digits:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))  # until the server closes
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer


def test_image_that_is_too_large(server: SimpleNamespace) -> None:
    bomb = png(np.zeros((5000, 5000), np.uint8))
    response = httpx.post(server.running.predict_url, json={"instances": [{"b64": base64.b64encode(bomb).decode()}]})
    assert response.status_code == 400
    assert "5000 x 5000 pixels" in response.json()["error"]


def test_one_bad_image_does_not_spoil_others_requests(server: SimpleNamespace) -> None:
    """They share a batch when they come together."""

    async def both() -> list[httpx.Response]:
        good, bad = ({"instances": [{"b64": base64.b64encode(file).decode()}]} for file in (FILES[0], b"no image"))
        async with httpx.AsyncClient() as client:
            requests = [client.post(server.running.predict_url, json=body) for body in [good, bad] * 10]
            return await asyncio.gather(*requests)

    assert [response.status_code for response in asyncio.run(both())] == [200, 400] * 10


def test_metrics(server: SimpleNamespace) -> None:
    before = server.running.metric('classifier_requests_total{protocol="v1",status="400"}')
    httpx.post(server.running.predict_url, content=b"{")
    assert server.running.metric('classifier_requests_total{protocol="v1",status="400"}') == before + 1
    images = server.running.metric("classifier_batch_images_sum")
    httpx.post(server.running.predict_url, json={"instances": PIXELS.tolist()})
    assert server.running.metric("classifier_batch_images_sum") == images + 3
    assert server.running.metric('classifier_request_seconds_count{protocol="v1"}') > 0
    assert server.running.metric("classifier_in_flight_requests") == 0
    assert server.running.metric("classifier_queue_images") == 0
    info = 'classifier_model_info{backend="onnx",model_type="cnn",version="1"}'
    assert server.running.metric(info) == 1


class Grpc:
    """A client of KServe's gRPC protocol."""

    messages = _kserve_messages()

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def ask(self, method: str, **fields: object):
        call = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=getattr(self.messages, f"{method}Request").SerializeToString,
            response_deserializer=getattr(self.messages, f"{method}Response").FromString,
        )
        return call(getattr(self.messages, f"{method}Request")(**fields), timeout=10)


@pytest.fixture(scope="module")
def client(server: SimpleNamespace) -> Grpc:
    return Grpc(server.grpc)


@pytest.mark.parametrize(
    ("contents", "raw", "datatype", "shape"),
    [
        (None, [PIXELS.tobytes()], "UINT8", [3, 28, 28, 1]),
        (None, [RAW_FILES], "BYTES", [3]),
        ({"uint_contents": PIXELS.ravel().tolist()}, [], "UINT8", [3, 28, 28, 1]),
        ({"fp32_contents": PIXELS.ravel().tolist()}, [], "FP32", [3, 28, 28, 1]),
        ({"bytes_contents": FILES}, [], "BYTES", [3]),
    ],
)
def test_grpc(
    server: SimpleNamespace, client: Grpc, contents: dict | None, raw: list[bytes], datatype: str, shape: list[int]
) -> None:
    given = {"name": "x", "datatype": datatype, "shape": shape, **({"contents": contents} if contents else {})}
    response = client.ask("ModelInfer", model_name="digits", inputs=[given], raw_input_contents=raw)
    names = [output.name for output in response.outputs]
    expected = [answer["logits"] for answer in server.answers]
    if raw:
        values = dict(zip(names, response.raw_output_contents, strict=True))
        logits = np.frombuffer(values["logits"], "<f4").reshape(3, 10)
    else:
        outputs = {output.name: output for output in response.outputs}
        logits = np.reshape(outputs["logits"].contents.fp32_contents, (3, 10))
        labels = [label.decode() for label in outputs["label"].contents.bytes_contents]
        assert labels == [answer["label"] for answer in server.answers]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_grpc_tells_about_itself(client: Grpc) -> None:
    assert client.ask("ServerLive").live
    assert client.ask("ServerReady").ready
    assert client.ask("ModelReady", name="digits").ready
    assert client.ask("ModelMetadata", name="digits").inputs[1].shape == [-1, 28, 28, 1]


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("ModelInfer", {"model_name": "other"}, grpc.StatusCode.NOT_FOUND),
        ("ModelReady", {"name": "digits", "version": "9"}, grpc.StatusCode.NOT_FOUND),
        ("ModelInfer", {"model_name": "digits"}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            "ModelInfer",
            {
                "model_name": "digits",
                "inputs": [{"datatype": "UINT8", "shape": [1, 28, 28, 1]}],
                "raw_input_contents": [b"x"],
            },
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "ModelInfer",
            {"model_name": "digits", "inputs": [{"datatype": "BYTES", "shape": [-1]}], "raw_input_contents": [b"x"]},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ("RepositoryModelUnload", {"model_name": "digits"}, grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_bad_grpc_requests(client: Grpc, method: str, fields: dict, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.ask(method, **fields)
    assert error.value.code() == code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("tensor", "raw", "told"),
    [
        ({"datatype": "UINT8", "shape": [1] * 100}, [b"x"], "shape: expected a list of 1 to 8 whole numbers, from 1"),
        ({"datatype": "UINT8", "shape": [0] + [2**62] * 7}, [b""], "shape: expected a list of 1 to 8 whole numbers"),
        ({"datatype": "BYTES", "shape": [], "contents": {"bytes_contents": FILES[:1]}}, [], "shape: expected a list"),
        (
            {"datatype": "UINT8", "shape": [1, 28, 28, 1], "contents": {"int_contents": [0] * 784}},
            [],
            "contents: UINT8 belongs in uint_contents, and not in int_contents",
        ),
        (
            {"datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": FILES[:1], "bool_contents": [True]}},
            [],
            "contents: BYTES belongs in bytes_contents, and not in bool_contents",
        ),
        (
            {"datatype": "UINT8", "shape": [3, 28, 28, 1], "contents": {"uint_contents": PIXELS.ravel().tolist()}},
            [PIXELS.tobytes()],
            "expected one raw_input_contents for the one input, and no contents",
        ),
    ],
)
def test_grpc_tells_what_is_wrong_with_a_tensor(client: Grpc, tensor: dict, raw: list[bytes], told: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.ask("ModelInfer", model_name="digits", inputs=[tensor], raw_input_contents=raw)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert told in error.value.details()  # type: ignore[attr-defined]


def test_what_is_no_message_is_refused_in_words(client: Grpc, server: SimpleNamespace) -> None:
    call = client.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as error:
        call(b"\xff\xff no message", timeout=10)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert error.value.details() == "this is no ModelInferRequest of KServe's V2 protocol"  # type: ignore[attr-defined]
    assert "Traceback" not in server.running.log


def test_same_model_answers_alike_with_tensorflow(
    start_server, server: SimpleNamespace, trained: SimpleNamespace, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(trained.model, tmp_path / "[a] \\ *?é'"))  # a pattern, were it not taken literally
    running = start_server(model, "--backend=tensorflow")
    for instances in (PIXELS.tolist(), [{"b64": base64.b64encode(file).decode()} for file in FILES]):
        answers = httpx.post(running.predict_url, json={"instances": instances}).json()["predictions"]
        for answer, expected in zip(answers, server.answers, strict=True):
            assert answer["label"] == expected["label"]
            np.testing.assert_allclose(answer["logits"], expected["logits"], rtol=1e-4, atol=1e-4)
    assert running.metric('classifier_model_info{backend="tensorflow",model_type="cnn",version="1"}') == 1
