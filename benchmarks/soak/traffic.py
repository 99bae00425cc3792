"""What a model server is asked in a long life: every protocol, mistakes, and clients that go away, all in turn."""

import base64
import http.client
import io
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np
from PIL import Image

from kfp_image_classification.components.deploy.server.grpc_server import _kserve_messages

SIDE = 28
TIMEOUT_SECONDS = 30.0
# A client does not keep its connection for ever.
REQUESTS_A_CONNECTION = 500


@dataclass(frozen=True)
class Question:
    """An HTTP request and the status that is right for it.

    Attributes:
        title: What it is an example of.
        path: With `{name}` for the model's name.
        body: To be posted.
        status: Of the answer.
        headers: Beside `content-type: application/json`.
    """

    title: str
    path: str
    body: bytes
    status: int = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


def questions() -> list[Question]:
    """One of each kind that goes by HTTP; the images are noise, always the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8)
    one, files = pixels[:1], [_png(image) for image in pixels]
    texts = [base64.b64encode(file).decode() for file in files]
    raw_files = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    v1, v2 = "/v1/models/{name}:predict", "/v2/models/{name}/infer"
    too_small = {"instances": [[[[0]]]]}
    return [
        Question("V1, numbers", v1, _json({"instances": one.tolist()})),
        Question("V1, image file", v1, _json({"instances": [{"b64": texts[0]}]})),
        Question("V1, two image files", v1, _json({"instances": [{"b64": text} for text in texts]})),
        Question("V2, numbers", v2, _json({"inputs": [_tensor("pixels", one, data=one.ravel().tolist())]})),
        Question("V2, image files", v2, _json({"inputs": [_tensor("image_bytes", texts, data=texts)]})),
        _binary("V2 binary, pixels", v2, _tensor("pixels", one), one.tobytes()),
        _binary("V2 binary, image files", v2, _tensor("image_bytes", texts), raw_files),
        Question("no JSON", v1, b"{", HTTPStatus.BAD_REQUEST),
        Question("wrong shape", v1, _json(too_small), HTTPStatus.BAD_REQUEST),
        Question("no image", v1, _json({"instances": [{"b64": texts[0][:40]}]}), HTTPStatus.BAD_REQUEST),
        Question("wrong model", "/v1/models/another:predict", b"{}", HTTPStatus.NOT_FOUND),
    ]


class Client:
    """One client: a connection for HTTP, which it renews now and then, and one for gRPC.

    Attributes:
        failures: What was answered otherwise than it should be, in words.
    """

    def __init__(self, name: str, http_port: int, grpc_port: int) -> None:
        self.failures: list[str] = []
        self._name, self._port = name, http_port
        self._questions = questions()
        self._http: http.client.HTTPConnection | None = None
        self._asked = 0
        self._channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
        self._infer, self._grpc_requests = grpc_calls(self._channel, name)
        self._kinds: list[Callable[[], None]] = [
            *(lambda question=question: self._ask(question) for question in self._questions),
            lambda: self._ask_by_grpc(self._grpc_requests[0], grpc.StatusCode.OK),
            lambda: self._ask_by_grpc(self._grpc_requests[1], grpc.StatusCode.INVALID_ARGUMENT),
        ]

    def ask(self, number: int) -> None:
        """Sends the request of that number, which decides its kind; one in a thousand is not waited for."""
        if number % 1000 == 999:
            self._go_away()
        self._kinds[number % len(self._kinds)]()

    def close(self) -> None:
        self._channel.close()
        if self._http:
            self._http.close()

    def _ask(self, question: Question) -> None:
        if self._http is None or self._asked % REQUESTS_A_CONNECTION == 0:
            if self._http:
                self._http.close()
            self._http = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        self._asked += 1
        try:
            headers = {"content-type": "application/json", **question.headers}
            self._http.request("POST", question.path.format(name=self._name), question.body, headers)
            answer = self._http.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._http = None
            self.failures.append(f"{question.title}: {error!r}")
            return
        if answer.status != question.status:
            self.failures.append(f"{question.title}: {answer.status} {content[:200]!r}")

    def _ask_by_grpc(self, request: Any, expected: grpc.StatusCode) -> None:
        try:
            self._infer(request, timeout=TIMEOUT_SECONDS)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        if code != expected:
            self.failures.append(f"gRPC: {code}, expected {expected}")

    def _go_away(self) -> None:
        """Breaks off in the middle of a request's body."""
        question = self._questions[0]
        head = f"POST {question.path.format(name=self._name)} HTTP/1.1\r\nhost: x\r\n"
        with socket.create_connection(("127.0.0.1", self._port), TIMEOUT_SECONDS) as connection:
            connection.sendall(f"{head}content-length: {len(question.body)}\r\n\r\n".encode() + question.body[:100])


def grpc_calls(channel: grpc.Channel, name: str) -> tuple[Callable[..., Any], list[Any]]:
    """What sends a request by KServe's protocol, and two requests: a good one and a wrong one."""
    messages = _kserve_messages()
    infer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=messages.ModelInferRequest.SerializeToString,
        response_deserializer=messages.ModelInferResponse.FromString,
    )
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 1]}
    contents = (bytes(SIDE * SIDE), b"too short")
    requests = [
        messages.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[raw]) for raw in contents
    ]
    return infer, requests


def _binary(title: str, path: str, tensor: dict[str, Any], raw: bytes) -> Question:
    head = _json({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]})
    return Question(title, path, head + raw, headers={"inference-header-content-length": str(len(head))})


def _tensor(name: str, values: np.ndarray | Sequence[str], **more: Any) -> dict[str, Any]:
    shape, datatype = (list(values.shape), "UINT8") if isinstance(values, np.ndarray) else ([len(values)], "BYTES")
    return {"name": name, "shape": shape, "datatype": datatype, **more}


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(content, "PNG")
    return content.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
