"""What a request asks about and what its answer says, in KServe's V1 and V2 protocols, with any server behind them.

An event has no headers of HTTP. Where raw tensors follow the JSON of a V2 message, their place is found by reading the
JSON to its end.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfp_image_classification.components.contracts.image_base64 import from_base64

NUMBERS = {
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
# Whatever a client sent is in the log, also what the server refused.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

Image = bytes | np.ndarray


class UnreadablePayload(ValueError):
    """A body that is not understood; the message says why."""


@dataclass(frozen=True)
class Answered:
    """What was answered for one image.

    Attributes:
        label: Name of the most likely class.
        confidence: Its probability; None where the answer does not have it.
    """

    label: str
    confidence: float | None


def images_of(body: bytes) -> list[Image]:
    """The images of a request: image files, or pixels as they were sent.

    Raises:
        UnreadablePayload: When it is no request in one of the protocols.
    """
    try:
        message, raw = _parted(body)
        if "instances" in message:
            return [_instance(one) for one in message["instances"]]
        (tensor,) = message["inputs"]
        values = _values(tensor, raw, 0)
        if tensor["datatype"] == "BYTES":
            return [value if isinstance(value, bytes) else from_base64(value) for value in values]
        return [*np.asarray(values).reshape(tensor["shape"])]
    except _BROKEN as error:
        raise UnreadablePayload(f"no request in a known protocol ({type(error).__name__})") from None


def answers_of(body: bytes) -> list[Answered]:
    """The answers for the images of a request.

    Raises:
        UnreadablePayload: When it is no answer in one of the protocols, or does not name a class.
    """
    try:
        message, raw = _parted(body)
        if "predictions" in message:
            return [_answered(one["label"], one.get("probabilities")) for one in message["predictions"]]
        columns: dict[str, Any] = {}
        start = 0
        for tensor in message["outputs"]:
            columns[tensor["name"]] = _values(tensor, raw, start)
            start += (tensor.get("parameters") or {}).get("binary_data_size", 0)
        labels = columns["label"]
        rows = columns.get("probabilities")
        shares = [None] * len(labels) if rows is None else np.asarray(rows, float).reshape(len(labels), -1)
        return [_answered(label, row) for label, row in zip(labels, shares, strict=True)]
    except _BROKEN as error:
        raise UnreadablePayload(f"no answer in a known protocol ({type(error).__name__})") from None


def _parted(body: bytes) -> tuple[Mapping[str, Any], bytes]:
    """The JSON of a message, and the raw tensors after it."""
    try:
        return json.loads(body), b""
    except ValueError:
        # As Latin-1, a sign is a byte; no byte of a sign that takes several looks like one that ends JSON's text.
        _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        return json.loads(body[:end]), body[end:]


def _instance(instance: Any) -> Image:
    if isinstance(instance, dict):
        inner = instance.get("image_bytes", instance)
        if "b64" in inner:
            return from_base64(inner["b64"])
        instance = instance["pixels"]
    return np.asarray(instance)


def _answered(label: Any, probabilities: Any) -> Answered:
    name = label.decode("utf-8") if isinstance(label, bytes) else str(label)
    return Answered(name, None if probabilities is None else float(max(probabilities)))


def _values(tensor: Mapping[str, Any], raw: bytes, start: int) -> Any:
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    if size is None:
        return tensor["data"]
    own = raw[start : start + size]
    if len(own) != size:
        raise ValueError("cut off")
    if tensor["datatype"] == "BYTES":
        return _strings(own)
    return np.frombuffer(own, NUMBERS[tensor["datatype"]])


def _strings(raw: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise ValueError("cut off")
        found.append(raw[at + 4 : end])
        at = end
    return found
