"""KServe's V2 protocol (Open Inference Protocol): tensors as JSON, or as raw bytes after a JSON header.

https://github.com/kserve/open-inference-protocol, with its binary tensor data extension. Raw tensors are never turned
into Python numbers: pixels go from the socket's buffer to the model.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from kfp_image_classification.components.contracts.model_card import ModelCard
from kfp_image_classification.components.deploy.server.image_files import ImageShape
from kfp_image_classification.components.deploy.server.loaded_model import Answer
from kfp_image_classification.components.deploy.server.pixels import checked_pixels
from kfp_image_classification.components.deploy.server.protocol_v1 import from_json, image_file
from kfp_image_classification.components.deploy.server.refused import bad_request

Outputs = dict[str, bool]

NUMBERS: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
OUTPUT_TYPES = {"label": "BYTES", "class_index": "INT64", "probabilities": "FP32", "logits": "FP32"}


@dataclass(frozen=True)
class Request:
    """What a V2 request asks for.

    Attributes:
        id: To be repeated in the answer; "" where there is none.
        images: Image files, or pixels as uint8 [n, *image_shape].
        outputs: The wanted outputs, and whether as raw bytes.
    """

    id: str
    images: list[bytes] | np.ndarray
    outputs: Outputs


def read_request(body: bytes, header_length: str | None, image_shape: ImageShape) -> Request:
    """Reads one input: BYTES [n] of encoded images, or numbers [n, height, width, channels] of pixels.

    Args:
        body: JSON, followed by the raw inputs if a header length is given.
        header_length: The HTTP header `Inference-Header-Content-Length`.
        image_shape: Of the model.

    Raises:
        Refused: Saying what is wrong.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    payload = from_json(memoryview(body)[:length])
    inputs = payload.get("inputs") if isinstance(payload, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise bad_request('expected {"inputs": [...]} with one input, image_bytes or pixels')
    tensor = inputs[0]
    shape, datatype = checked_shape(tensor.get("shape")), tensor.get("datatype")
    raw_size = _parameters(tensor).get("binary_data_size")
    rest = memoryview(body)[length:]
    if raw_size is None:
        if len(rest):
            raise bad_request(f"{len(rest)} bytes after the JSON belong to no input: no binary_data_size")
        images = _from_data(tensor.get("data"), datatype, shape, image_shape)
    else:
        if type(raw_size) is not int or raw_size != len(rest):
            raise bad_request(f"binary_data_size = {raw_size!r}, but {len(rest)} bytes follow the JSON")
        if tensor.get("data") is not None:
            raise bad_request("give the input's data in the JSON, or its binary_data_size and bytes after it, not both")
        images = images_from_raw(rest, datatype, shape, image_shape)
    return Request(_id(payload), images, _outputs(payload))


def images_from_raw(
    raw: bytes | memoryview, datatype: Any, shape: list[int], image_shape: ImageShape
) -> list[bytes] | np.ndarray:
    """Reads a tensor's raw bytes, little endian; each BYTES element has its length before it, as uint32.

    Raises:
        Refused: When they are not what type and shape say.
    """
    if datatype == "BYTES":
        files = _raw_strings(raw)
        return counted(files, shape)
    number = _number(datatype)
    if len(raw) != math.prod(shape) * number.itemsize:
        raise bad_request(
            f"{datatype} {shape} takes {math.prod(shape) * number.itemsize} bytes, the input has {len(raw)}"
        )
    return checked_pixels(np.frombuffer(raw, number).reshape(shape), image_shape)


def images_from_numbers(values: Any, datatype: Any, shape: list[int], image_shape: ImageShape) -> np.ndarray:
    """Reads a tensor given as numbers, flat or nested.

    Raises:
        Refused: When they are not what type and shape say.
    """
    number = _number(datatype)
    try:
        array = np.asarray(values)
    except ValueError:
        raise bad_request("data: the rows differ in length") from None
    if array.dtype.kind not in ("iuf" if number.kind == "f" else "iu") and array.size:
        raise bad_request(f"data: expected {datatype} numbers")
    if array.size != math.prod(shape):
        raise bad_request(f"data: shape {shape} takes {math.prod(shape)} numbers, got {array.size}")
    return checked_pixels(array.reshape(shape), image_shape)


def counted(files: list[bytes], shape: list[int]) -> list[bytes]:
    """Checks that there are as many files as the shape says, and at least one.

    Raises:
        Refused: When not.
    """
    if not files or len(files) != math.prod(shape):
        raise bad_request(f"BYTES {shape}: expected shape [n] and as many images, at least one, got {len(files)}")
    return files


def write_answer(answer: Answer, request: Request, name: str, version: str) -> tuple[bytes, int | None]:
    """Returns the body and, if raw outputs follow its JSON, the length of that."""
    outputs: list[dict[str, Any]] = []
    raws = []
    for output, as_raw in request.outputs.items():
        values = answer[output]
        told: dict[str, Any] = {"name": output, "shape": list(values.shape), "datatype": OUTPUT_TYPES[output]}
        if as_raw:
            raws.append(raw_output(output, values))
            told["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            told["data"] = values.tolist() if values.dtype == object else values.ravel()
        outputs.append(told)
    payload = {"model_name": name, "model_version": version, "id": request.id, "outputs": outputs}
    header = orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
    return (header + b"".join(raws), len(header)) if raws else (header, None)


def raw_output(name: str, values: np.ndarray) -> bytes:
    """An output's raw bytes."""
    if OUTPUT_TYPES[name] == "BYTES":
        texts = [text.encode() for text in values.tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return values.astype(NUMBERS[OUTPUT_TYPES[name]], copy=False).tobytes()


def model_metadata(name: str, version: str, card: ModelCard) -> dict[str, Any]:
    """What gRPC's ModelMetadata answers, and REST besides other things; an input is one of the two that are listed."""
    classes = len(card.class_names)
    columns = {"label": [-1], "class_index": [-1], "probabilities": [-1, classes], "logits": [-1, classes]}
    return {
        "name": name,
        "versions": [version],
        "platform": "tensorflow_savedmodel",
        "inputs": [
            {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, *card.image_shape]},
        ],
        "outputs": [
            {"name": output, "datatype": OUTPUT_TYPES[output], "shape": shape} for output, shape in columns.items()
        ],
    }


def wanted_outputs(wanted: list[tuple[str, bool]], as_raw: bool) -> Outputs:
    """All outputs where none is asked for by name.

    Raises:
        Refused: For one that there is not.
    """
    for name, _ in wanted:
        if not isinstance(name, str) or name not in OUTPUT_TYPES:
            raise bad_request(f"outputs: there is no {name!r}, but {', '.join(OUTPUT_TYPES)}")
    return dict(wanted) if wanted else dict.fromkeys(OUTPUT_TYPES, as_raw)


def _length(text: str, body: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > body:
        raise bad_request(
            f"Inference-Header-Content-Length = {text!r}: expected a number up to the body's {body} bytes"
        )
    return int(text)


def _id(payload: dict[str, Any]) -> str:
    identity = payload.get("id")
    if identity is not None and not isinstance(identity, str):
        raise bad_request("id: expected text")
    return identity or ""


def _parameters(part: dict[str, Any]) -> dict[str, Any]:
    parameters = part.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad_request("parameters: expected an object")
    return parameters or {}


def checked_shape(shape: Any) -> list[int]:
    """Checks what a request says of its input's shape; NumPy takes more than 64 axes, or too large ones, for an error.

    Raises:
        Refused: When it is no shape of images.
    """
    whole = isinstance(shape, list) and all(type(size) is int and 1 <= size < 2**31 for size in shape)
    if not whole or not 1 <= len(shape) <= 8:
        raise bad_request("shape: expected a list of 1 to 8 whole numbers, from 1")
    sizes: list[int] = shape
    return sizes


def _number(datatype: Any) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in NUMBERS:
        raise bad_request(f"datatype = {datatype!r}: expected BYTES for encoded images, or one of {', '.join(NUMBERS)}")
    return NUMBERS[datatype]


def _from_data(data: Any, datatype: Any, shape: list[int], image_shape: ImageShape) -> list[bytes] | np.ndarray:
    if not isinstance(data, list):
        raise bad_request("data: expected a list")
    if datatype == "BYTES":  # in JSON a BYTES element is text, so images arrive as base64
        return counted([image_file(text, index) for index, text in enumerate(_flat(data))], shape)
    return images_from_numbers(data, datatype, shape, image_shape)


def _flat(data: list[Any]) -> list[Any]:
    while data and all(isinstance(row, list) for row in data):
        data = [value for row in data for value in row]
    return data


def _raw_strings(raw: bytes | memoryview) -> list[bytes]:
    strings = []
    start = 0
    while start < len(raw):
        end = start + 4
        if end <= len(raw):
            end += int.from_bytes(raw[start:end], "little")
        if end > len(raw) or end < start + 4:
            raise bad_request("BYTES: an element's length reaches beyond the input")
        strings.append(bytes(raw[start + 4 : end]))
        start = end
    return strings


def _outputs(payload: dict[str, Any]) -> Outputs:
    as_raw = _parameters(payload).get("binary_data_output") is True
    wanted = payload.get("outputs") or []
    if not isinstance(wanted, list) or not all(isinstance(one, dict) for one in wanted):
        raise bad_request("outputs: expected a list of objects")
    return wanted_outputs(
        [(one.get("name"), _parameters(one).get("binary_data", as_raw) is True) for one in wanted], as_raw
    )
