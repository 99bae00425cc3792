"""Checks pixels that arrive as numbers instead of in an image file."""

from typing import Any

import numpy as np

from kfp_image_classification.components.deploy.server.image_files import ImageShape
from kfp_image_classification.components.deploy.server.refused import bad_request


def checked_pixels(values: Any, image_shape: ImageShape) -> np.ndarray:
    """Makes uint8 [n, *image_shape] of nested lists or an array; a single channel may be left out.

    Raises:
        Refused: When they are not whole numbers from 0 to 255 in the model's shape.
    """
    try:
        pixels = np.asarray(values)
    except ValueError:
        raise bad_request("pixels: the images differ in shape") from None
    expected = f"[n, {', '.join(map(str, image_shape))}], n images"
    if pixels.dtype.kind not in "iuf":
        raise bad_request(f"pixels: expected numbers from 0 to 255 of shape {expected}, or encoded images as b64")
    got = pixels.shape
    if pixels.ndim == 3 and image_shape[2] == 1:
        pixels = pixels[..., np.newaxis]
    if pixels.shape[1:] != image_shape or len(pixels) == 0:
        one = ": one image without the axis of the batch" if got in (image_shape, _without_channel(image_shape)) else ""
        raise bad_request(f"pixels: expected shape {expected}, got {list(got)}{one}")
    if pixels.dtype == np.uint8:
        return pixels
    if not (np.all(pixels >= 0) and np.all(pixels <= 255) and np.all(pixels == np.round(pixels))):
        raise bad_request("pixels: expected whole numbers from 0 to 255, as in the image file; do not scale them")
    return pixels.astype(np.uint8)


def _without_channel(image_shape: ImageShape) -> tuple[int, ...]:
    return image_shape[:2] if image_shape[2] == 1 else image_shape
