"""From image files to pixels, without TensorFlow, and equal to `components/contracts/preprocessing.py` bit for bit.

The tests compare the two for every kind of PNG and JPEG, and for what is neither. The resize is TensorFlow's own
algorithm (`tf.image.resize(..., antialias=True)`, the ScaleAndTranslate kernel with a triangle): libraries' differ.
"""

import io
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from kfp_image_classification.components.contracts.image_formats import JPEG_START, PNG_START, what_it_is
from kfp_image_classification.components.contracts.jpeg_segments import has_all_scans, reaches_its_end
from kfp_image_classification.components.deploy.server import png_chunks

ImageShape = tuple[int, int, int]

# Pillow's modes of PNGs whose numbers are bytes, row by row: by depth, colour type and interlacing.
_PLAIN_MODES = {(8, 0, 0): "L", (8, 2, 0): "RGB", (8, 4, 0): "LA", (8, 6, 0): "RGBA"}


class UnusableImage(ValueError):
    """An image that cannot become pixels; the message says why, in words for the client."""


def decode(files: list[bytes], image_shape: ImageShape, max_pixels: int) -> np.ndarray:
    """Decodes PNG and JPEG images and fits them to the model's size.

    Args:
        files: The contents of image files.
        image_shape: (height, width, channels) of each result.
        max_pixels: Largest height x width, of all images together; looked up in a file's header, before its content is
            unpacked.

    Returns:
        uint8 [n, *image_shape].

    Raises:
        UnusableImage: For anything else than whole PNG or JPEG images of at most that size, as TensorFlow has it.
    """
    result = np.empty((len(files), *image_shape), np.uint8)
    left = max_pixels
    for index, file in enumerate(files):
        try:
            header = _header(file)
            left -= header.width * header.height
            if left < 0:
                raise UnusableImage(
                    f"image {index}: with its {header.width} x {header.height} pixels, {max_pixels:,} are exceeded"
                )
            result[index] = fit(_pixels(file, header, image_shape[2]), image_shape)
        except UnusableImage:
            raise
        except Exception:  # Pillow raises whatever its parsers stumble over: OSError, SyntaxError, struct.error, ...
            raise UnusableImage(
                f"image {index}: cannot be decoded: it is {what_it_is(file)}; expected a whole PNG or JPEG"
            ) from None
    return result


def pixels_of_png(file: bytes) -> float:
    """Height x width, as a PNG's header tells; infinity for another file."""
    try:
        header = png_chunks.header(file)
    except png_chunks.DamagedPng:
        return math.inf
    return header.width * header.height


def _header(file: bytes) -> png_chunks.Header | JpegImagePlugin.JpegImageFile:
    """What tells the size; a JPEG is inflated later. Not Image.open: it would try other formats, and take longer."""
    if file.startswith(PNG_START):
        return png_chunks.header(file)
    if not file.startswith(JPEG_START):
        raise ValueError("another format")
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(file))
    # Pillow has read up to the first scan, and does without the marker that ends the file; TensorFlow insists on it.
    if not reaches_its_end(file) or not has_all_scans(file):
        raise ValueError("it ends too soon")
    return image


def _pixels(file: bytes, header: png_chunks.Header | JpegImagePlugin.JpegImageFile, channels: int) -> np.ndarray:
    if isinstance(header, ImageFile.ImageFile):
        return _channels(header, channels)
    # Pillow leaves rows that are missing black, does without the end of the data, and is content.
    picture = png_chunks.read(file, header).unpacked()
    if mode := _PLAIN_MODES.get((header.depth, header.colour, header.interlacing)):
        # Through a PngImageFile, a small one takes twice as long.
        image = Image.frombytes(mode, (header.width, header.height), picture.data, "zip", mode)
        return _channels(image, channels)
    image = PngImagePlugin.PngImageFile(io.BytesIO(picture.file))
    return _deep_grey(picture, image) if channels == 1 and _is_deep_colour(picture) else _channels(image, channels)


def _is_deep_colour(picture: png_chunks.Picture) -> bool:
    return picture.header.depth == 16 and picture.header.has_colour


def _deep_grey(picture: png_chunks.Picture, image: PngImagePlugin.PngImageFile) -> np.ndarray:
    # libpng makes grey of all 16 bits. Pillow keeps the upper eight, or the lower ones where it takes them for those.
    low = PngImagePlugin.PngImageFile(io.BytesIO(picture.file))
    low.tile = [part._replace(args=f"{image.mode};16L") for part in low.tile]
    return _libpng_grey(_bytes(image, "RGB", 3).astype(np.uint32) << 8 | _bytes(low, "RGB", 3), 1 << 14, 8)


def fit(pixels: np.ndarray, image_shape: ImageShape) -> np.ndarray:
    """Resizes uint8 [height, width, channels] to `image_shape`; unchanged where it has that size already."""
    height, width, _ = image_shape
    if pixels.shape == image_shape:
        return pixels
    rows = _weighted(pixels, height)
    both = _weighted(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return np.clip(np.round(both), 0, 255).astype(np.uint8)


def _channels(image: Image.Image, channels: int) -> np.ndarray:
    if image.mode == "CMYK":
        if channels == 1:
            raise ValueError("libjpeg makes no grey of it")
        return _cmyk_colour(image)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # libjpeg itself makes greyscale of colour then, as TensorFlow has it do.
        image.draft("L" if channels == 1 else "RGB", None)
    if image.mode == "I;16":
        grey = (np.asarray(image) >> 8).astype(np.uint8)[..., np.newaxis]
    elif image.mode in ("1", "L", "LA"):
        grey = _bytes(image, "L", 1)
    else:
        colour = _bytes(image, "RGB", 3)
        return colour if channels == 3 else _libpng_grey(colour)
    return grey if channels == 1 else np.repeat(grey, channels, axis=2)


def _cmyk_colour(image: Image.Image) -> np.ndarray:
    inks = _bytes(image, "CMYK", 4).astype(np.uint16)
    # Pillow takes them all for inverted, as Adobe writes them; TensorFlow those that say that they are Adobe's.
    light = 255 - inks if "adobe" in image.info else inks
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)


def _bytes(image: Image.Image, mode: str, channels: int) -> np.ndarray:
    converted = image if image.mode == mode else image.convert(mode)
    # numpy.asarray(image) takes three times as long for a small one.
    return np.frombuffer(converted.tobytes(), np.uint8).reshape(image.height, image.width, channels)


def _libpng_grey(colour: np.ndarray, half: int = 0, extra_bits: int = 0) -> np.ndarray:
    # libpng's fixed-point shares of red and green (0.299 and 0.587 of 2**15, cut off); the sum is cut off, too, except
    # that of 16 bits, to which half a level is added.
    red, green = 9797, 19234
    grey = colour.astype(np.uint32) @ np.array([red, green, (1 << 15) - red - green], np.uint32) + np.uint32(half)
    return (grey >> 15 >> extra_bits).astype(np.uint8)[..., np.newaxis]


def _weighted(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes the first axis: each output is a weighted sum of a span of inputs, added up in TensorFlow's order."""
    starts, weights = _spans(len(pixels), size)
    result = np.zeros((size, *pixels.shape[1:]), np.float32)
    for offset in range(weights.shape[1]):
        inputs = pixels[np.minimum(starts + offset, len(pixels) - 1)]
        result += inputs * weights[:, offset, np.newaxis, np.newaxis]
    return result


@lru_cache(maxsize=256)
def _spans(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each output's span starts, [after], and the weights of its inputs, [after, longest span], float32."""
    one, half = np.float32(1), np.float32(0.5)
    stride = one / (np.float32(after) / np.float32(before))
    radius = max(stride, one)
    centre = (np.arange(after, dtype=np.float32) + half) * stride
    starts = np.clip(np.ceil(centre - radius - half), 0, before - 1).astype(np.int64)
    ends = np.clip(np.floor(centre + radius - half), 0, before - 1).astype(np.int64) + 1
    sources = starts[:, np.newaxis] + np.arange((ends - starts).max())
    position = sources.astype(np.float32) + half - centre[:, np.newaxis]
    weights = np.maximum(one - np.abs(position * (one / radius)), np.float32(0))
    weights[sources >= ends[:, np.newaxis]] = 0
    total = np.zeros(after, np.float32)
    for offset in range(weights.shape[1]):
        total += weights[:, offset]
    return starts, weights * (one / total)[:, np.newaxis]
