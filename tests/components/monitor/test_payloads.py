"""Requests and answers of both protocols, as our own server reads and writes them."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from kfp_image_classification.components.deploy.server import protocol_v1, protocol_v2
from kfp_image_classification.components.monitor.payloads import UnreadablePayload, answers_of, images_of

SHAPE = (2, 3, 1)
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, *SHAPE)
FILES = [b"\x89PNG one", b"\xff\xd8 two"]
TEXTS = [base64.b64encode(file).decode() for file in FILES]
ANSWER: Any = {
    "label": np.array(["größer", "zwei"], object),
    "class_index": np.array([0, 1]),
    "probabilities": np.array([[0.75, 0.25], [0.125, 0.875]], np.float32),
    "logits": np.zeros((2, 2), np.float32),
}


def v2(datatype: str, shape: list[int], raw: bytes | None = None, data: Any = None) -> bytes:
    tensor: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": shape}
    tensor |= {"data": data} if raw is None else {"parameters": {"binary_data_size": len(raw)}}
    return json.dumps({"id": "ö", "inputs": [tensor]}, ensure_ascii=False).encode() + (raw or b"")


STRINGS = b"".join(struct.pack("<I", len(file)) + file for file in FILES)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (json.dumps({"instances": [{"b64": text} for text in TEXTS]}).encode(), FILES),
        (json.dumps({"instances": [{"image_bytes": {"b64": text}} for text in TEXTS]}).encode(), FILES),
        (json.dumps({"instances": PIXELS.tolist()}).encode(), PIXELS),
        (json.dumps({"instances": [{"pixels": one} for one in PIXELS.tolist()]}).encode(), PIXELS),
        (v2("BYTES", [2], data=TEXTS), FILES),
        (v2("BYTES", [2], raw=STRINGS), FILES),
        (v2("UINT8", [2, *SHAPE], data=PIXELS.ravel().tolist()), PIXELS),
        (v2("UINT8", [2, *SHAPE], data=PIXELS.tolist()), PIXELS),
        (v2("UINT8", [2, *SHAPE], raw=PIXELS.tobytes()), PIXELS),
        (v2("FP32", [2, *SHAPE], raw=PIXELS.astype(np.float32).tobytes()), PIXELS),
        *(
            (v2(kind, [2, *SHAPE], raw=PIXELS.astype(dtype).tobytes()), PIXELS)
            for kind, dtype in protocol_v2.NUMBERS.items()
        ),
        (v2("BYTES", [2], data=[f"\n {TEXTS[0]}", TEXTS[1].rstrip("=")]), FILES),
        (json.dumps({"instances": [{"b64": text.rstrip("=") + "\n"} for text in TEXTS]}).encode(), FILES),
    ],
)
def test_images_of_a_request(body: bytes, expected: Any) -> None:
    for image, wanted in zip(images_of(body), expected, strict=True):
        assert np.array_equal(image, wanted) if isinstance(wanted, np.ndarray) else image == wanted


@pytest.mark.parametrize("parameters", [None, {"binary_data_output": True}])
def test_answers_of_our_server(parameters: dict[str, bool] | None) -> None:
    asked = json.loads(v2("UINT8", [2, *SHAPE], data=PIXELS.ravel().tolist()))
    request = protocol_v2.read_request(json.dumps({**asked, "parameters": parameters}).encode(), None, SHAPE)
    for body in (protocol_v2.write_answer(ANSWER, request, "m", "1")[0], protocol_v1.write_answer(ANSWER)):
        first, second = answers_of(body)
        assert (first.label, first.confidence, second.label, second.confidence) == ("größer", 0.75, "zwei", 0.875)


def test_answer_without_probabilities_has_a_class() -> None:
    (answer,) = answers_of(b'{"predictions": [{"label": "a"}]}')
    assert (answer.label, answer.confidence) == ("a", None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        b'{"instances": 3}',
        b'{"instances": [{"c": 1}]}',
        b'{"instances": [{"b64": "a"}]}',
        b'{"instances": [{"b64": "data:image/png;base64,AAAA"}]}',  # the server refuses it, too
        b'{"inputs": []}',
        v2("UINT8", [2, *SHAPE], raw=PIXELS.tobytes())[:-1],
        v2("BYTES", [2], raw=STRINGS)[:-1],
        v2("COMPLEX", [1], raw=b"1234"),
        b'{"predictions": [[0.5, 0.5]]}',
        b'{"outputs": [{"name": "logits", "datatype": "FP32", "shape": [1], "data": [1]}]}',
        b'{"error": "no"}',
        b"[" * 100_000,
        b'{"instances":' + b"[" * 100_000,
        b'{"predictions": [{"label": "a", "probabilities": [1' + b"0" * 400 + b"]}]}",
        b'{"predictions": [{"label": "a", "probabilities": []}]}',
        b'{"instances": [{"b64": ["a"]}]}',
        v2("UINT8", ["x"], raw=b"1"),
        v2("UINT8", [1] * 100, raw=b"1"),
    ],
)
def test_anything_else_is_told(body: bytes) -> None:
    for read in (images_of, answers_of):
        with pytest.raises(UnreadablePayload):
            read(body)  # type: ignore[operator]
