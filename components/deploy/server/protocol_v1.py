"""KServe's V1 protocol, as TensorFlow Serving's REST API: `{"instances": [...]}` -> `{"predictions": [...]}`."""

from typing import Any

import numpy as np
import orjson

from kfp_image_classification.components.contracts.image_base64 import from_base64
from kfp_image_classification.components.deploy.server.image_files import ImageShape
from kfp_image_classification.components.deploy.server.loaded_model import Answer
from kfp_image_classification.components.deploy.server.pixels import checked_pixels
from kfp_image_classification.components.deploy.server.refused import bad_request


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
        return [image_file(text, index) for index, text in enumerate(encoded)]
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


def image_file(text: Any, index: int) -> bytes:
    """Decodes the image of that index.

    Raises:
        Refused: When it is no base64.
    """
    if not isinstance(text, str):
        raise bad_request(f"image {index}: expected base64 as text")
    try:
        return from_base64(text)
    except ValueError as error:
        raise bad_request(f"image {index}: not valid base64: {error}") from None


def _b64(instance: Any) -> str | None:
    if isinstance(instance, dict):
        inner = instance.get("image_bytes", instance)
        if isinstance(inner, dict) and isinstance(inner.get("b64"), str):
            text: str = inner["b64"]
            return text
    return None


def _unnamed(instance: Any) -> Any:
    return instance["pixels"] if isinstance(instance, dict) and "pixels" in instance else instance
