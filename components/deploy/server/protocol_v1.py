"""KServe's V1 protocol, as TensorFlow Serving's REST API: `{"instances": [...]}` -> `{"predictions": [...]}`."""

import base64
import binascii
import string
from typing import Any

import numpy as np
import orjson

from kfp_image_classification.components.deploy.server.image_files import ImageShape
from kfp_image_classification.components.deploy.server.loaded_model import Answer
from kfp_image_classification.components.deploy.server.pixels import checked_pixels
from kfp_image_classification.components.deploy.server.refused import bad_request

_ALPHABET = frozenset(string.ascii_letters + string.digits + "+/")
_WHITE_SPACE = {ord(sign): None for sign in " \t\n\v\f\r"}


def read_request(body: bytes, image_shape: ImageShape) -> list[bytes] | np.ndarray:
    """Reads instances: each `{"b64": ...}`, `{"image_bytes": {"b64": ...}}`, or nested lists of pixels.

    Returns:
        Image files, or pixels as uint8 [n, *image_shape].

    Raises:
        Refused: Saying which instance is wrong, and how.
    """
    payload = from_json(body)
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        raise bad_request('expected {"instances": [...]} with at least one image')
    encoded = [_b64(instance) for instance in instances]
    if all(text is not None for text in encoded):
        return [from_base64(text, index) for index, text in enumerate(encoded)]
    if any(text is not None for text in encoded):
        raise bad_request("instances: encoded images and pixels cannot be mixed in one request")
    return checked_pixels([_unnamed(instance) for instance in instances], image_shape)


def write_answer(answer: Answer) -> bytes:
    """One object an image, as TensorFlow Serving answers for the same model."""
    names = tuple(answer)
    # Rows stay arrays: as float32 they take fewer digits than as Python's floats.
    columns = (values if values.ndim > 1 else values.tolist() for values in answer.values())
    predictions = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(body: bytes | memoryview) -> Any:
    """Parses JSON.

    Raises:
        Refused: When it is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"not valid JSON: {error}") from None


def from_base64(text: Any, index: int) -> bytes:
    """Decodes the image of that index, and takes what TensorFlow Serving takes.

    That is the standard alphabet with white space anywhere, and with its padding or none, in which a dot stands for an
    equals sign (absl::Base64Unescape, in abseil-cpp's absl/strings/escaping.cc).

    Raises:
        Refused: When it is something else, naming it where it is known.
    """
    if not isinstance(text, str):
        raise bad_request(f"image {index}: expected base64 as text")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # seldom: the way through is for those who write it otherwise
        compact = text.translate(_WHITE_SPACE)
    digits = compact.rstrip("=.")
    missing = -len(digits) % 4
    try:
        if missing == 3 or len(compact) - len(digits) not in (0, missing):
            raise binascii.Error
        return base64.b64decode(digits + "=" * missing, validate=True)
    except ValueError:
        raise bad_request(f"image {index}: not valid base64: {_what_it_is(compact, digits)}") from None


def _what_it_is(compact: str, digits: str) -> str:
    if compact.lower().startswith("data:"):
        return "this is a data URL; send what follows its comma"
    if compact.startswith(("b'", 'b"')):
        return "this is how Python shows bytes; decode them to text before"
    wrong = next((sign for sign in digits if sign not in _ALPHABET), "")
    if wrong and wrong in "-_":
        return "this is the alphabet for URLs, with - and _; send the standard one, with + and /"
    if wrong:
        return f"{wrong!r} is no digit of it"
    return "it is cut off, or its padding is wrong"


def _b64(instance: Any) -> str | None:
    if isinstance(instance, dict):
        inner = instance.get("image_bytes", instance)
        if isinstance(inner, dict) and isinstance(inner.get("b64"), str):
            text: str = inner["b64"]
            return text
    return None


def _unnamed(instance: Any) -> Any:
    return instance["pixels"] if isinstance(instance, dict) and "pixels" in instance else instance
