"""From requests to images and from answers to responses, in KServe's V1 and V2 (Open Inference) protocols."""

import base64
import binascii
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput

ImageShape = tuple[int, int, int]
Answer = dict[str, np.ndarray]

V2_TYPES = {"logits": "FP32", "probabilities": "FP32", "class_index": "INT64", "label": "BYTES"}


@dataclass(frozen=True)
class Images:
    """The images of one request: either encoded or pixels.

    Attributes:
        encoded: PNG or JPEG files.
        pixels: uint8 [n, height, width, channels].
    """

    encoded: list[bytes] | None = None
    pixels: np.ndarray | None = None


def images_from_v1(payload: Any, image_shape: ImageShape) -> Images:
    """Reads `{"instances": [...]}`: each `{"b64": ...}`, `{"image_bytes": {"b64": ...}}`, or nested lists of pixels.

    Raises:
        InvalidInput: Saying which instance is wrong, and how.
    """
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InvalidInput('expected {"instances": [...]} with at least one image')
    encoded = [_b64(instance) for instance in instances]
    texts = [text for text in encoded if text is not None]
    if len(texts) == len(instances):
        return Images(encoded=[_decoded(text, index) for index, text in enumerate(texts)])
    if texts:
        raise InvalidInput("instances: encoded images and pixels cannot be mixed in one request")
    return Images(pixels=_pixels([_unnamed(instance) for instance in instances], image_shape))


def images_from_v2(request: InferRequest, image_shape: ImageShape) -> Images:
    """Reads one input: BYTES [n] of encoded images, or numbers [n, height, width, channels] of pixels.

    Raises:
        InvalidInput: Saying what is wrong.
    """
    if len(request.inputs) != 1:
        raise InvalidInput(f"expected one input, image_bytes or pixels, got {len(request.inputs)}")
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        return Images(pixels=_pixels(tensor.as_numpy(), image_shape))
    values = tensor.as_numpy().reshape(-1).tolist()
    # In JSON a BYTES element is text, so images arrive as base64; in binary they arrive as they are.
    return Images(
        encoded=[value if isinstance(value, bytes) else _decoded(value, index) for index, value in enumerate(values)]
    )


def v1_response(answer: Answer) -> dict[str, Any]:
    """One object an image, as TensorFlow Serving answers for the same model."""
    columns = {name: _plain(values) for name, values in answer.items()}
    count = len(next(iter(columns.values())))
    return {"predictions": [{name: values[index] for name, values in columns.items()} for index in range(count)]}


def v2_response(answer: Answer, request: InferRequest) -> InferResponse:
    """One output tensor a name."""
    outputs = []
    for name, values in answer.items():
        output = InferOutput(name, list(values.shape), V2_TYPES[name])
        output.set_data_from_numpy(values, binary_data=False)
        outputs.append(output)
    return InferResponse(
        response_id=request.id or str(uuid.uuid4()), model_name=request.model_name, infer_outputs=outputs
    )


def _b64(instance: Any) -> str | None:
    if isinstance(instance, dict):
        inner = instance.get("image_bytes", instance)
        if isinstance(inner, dict) and isinstance(inner.get("b64"), str):
            return str(inner["b64"])
    return None


def _decoded(text: str, index: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"image {index}: not valid base64") from None


def _unnamed(instance: Any) -> Any:
    return instance["pixels"] if isinstance(instance, dict) and "pixels" in instance else instance


def _pixels(values: Any, image_shape: ImageShape) -> np.ndarray:
    try:
        pixels = np.asarray(values)
    except ValueError:
        raise InvalidInput("pixels: the images differ in shape") from None
    if pixels.dtype.kind not in "iuf":
        raise InvalidInput(f"pixels: expected numbers from 0 to 255 in {list(image_shape)}, or encoded images as b64")
    if pixels.ndim == 3 and image_shape[2] == 1:
        pixels = pixels[..., np.newaxis]
    if pixels.shape[1:] != image_shape or len(pixels) == 0:
        raise InvalidInput(f"pixels: expected images of shape {list(image_shape)}, got {list(pixels.shape[1:])}")
    if not (np.all(pixels >= 0) and np.all(pixels <= 255) and np.all(pixels == np.round(pixels))):
        raise InvalidInput("pixels: expected whole numbers from 0 to 255, as in the image file; do not scale them")
    return pixels.astype(np.uint8)


def _plain(values: np.ndarray) -> list[Any]:
    if values.dtype.kind in "OS":
        return [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]
    plain: list[Any] = values.tolist()
    return plain
