"""The server decodes and resizes as training does, bit for bit, without TensorFlow."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfp_image_classification.components.contracts.preprocessing import decode_image, fit_image
from kfp_image_classification.components.deploy.server.image_files import UnusableImage, decode, fit

RANDOM = np.random.default_rng(5)
COLOUR = Image.fromarray(RANDOM.integers(0, 256, (37, 53, 3), np.uint8))
GREY = Image.fromarray(RANDOM.integers(0, 256, (37, 53), np.uint8))
SMOOTH = Image.fromarray(np.tile(np.linspace(0, 255, 90).astype(np.uint8), (64, 1)))
MANY = 1_000_000


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "png grey": file(GREY, "PNG"),
    "png colour": file(COLOUR, "PNG"),
    "png with alpha": file(Image.fromarray(RANDOM.integers(0, 256, (37, 53, 4), np.uint8)), "PNG"),
    "png grey with alpha": file(Image.merge("LA", (GREY, GREY)), "PNG"),
    "png palette": file(COLOUR.quantize(64), "PNG"),
    "png small palette": file(COLOUR.quantize(9), "PNG"),
    "png transparent palette": file(COLOUR.quantize(64), "PNG", transparency=3),
    "png one bit": file(GREY.convert("1"), "PNG"),
    "png 16 bit grey": file(Image.fromarray(RANDOM.integers(0, 65536, (37, 53), np.uint16)), "PNG"),
    "png smooth": file(SMOOTH, "PNG"),
    "jpeg grey": file(GREY, "JPEG"),
    "jpeg smooth": file(SMOOTH, "JPEG"),
    "jpeg progressive": file(COLOUR, "JPEG", progressive=True),
    **{
        f"jpeg quality {quality} subsampling {subsampling}": file(
            COLOUR, "JPEG", quality=quality, subsampling=subsampling
        )
        for quality in (30, 95)
        for subsampling in (0, 1, 2)
    },
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("image_shape", [(28, 28, 1), (37, 53, 3), (37, 53, 1), (32, 32, 3), (64, 20, 3)])
def test_decodes_as_training_does(name: str, image_shape: tuple[int, int, int]) -> None:
    expected = decode_image(tf.constant(FILES[name]), image_shape).numpy()
    assert np.array_equal(decode([FILES[name]], image_shape, MANY)[0], expected)


@pytest.mark.parametrize("before", [(1, 1), (5, 9), (28, 28), (61, 40), (200, 333), (1000, 17)])
@pytest.mark.parametrize("after", [(28, 28), (32, 32), (7, 96)])
def test_resizes_as_training_does(before: tuple[int, int], after: tuple[int, int]) -> None:
    grey, black_and_white = (RANDOM.integers(0, 256, (*before, 3), np.uint8) for _ in range(2))
    # Black and white alone meets many values that are half-way between two whole numbers.
    for pixels in (grey, (black_and_white >> 7) * np.uint8(255)):
        assert np.array_equal(fit(pixels, (*after, 3)), fit_image(tf.constant(pixels), (*after, 3)).numpy())


def test_too_many_pixels_are_refused_before_they_are_unpacked() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(UnusableImage, match="image 1: with its 50000 x 50000 pixels, 1,000,000 are exceeded"):
        decode([FILES["png grey"], bomb], (28, 28, 1), MANY)


def test_pixels_are_counted_over_all_images() -> None:
    decode([FILES["png grey"]] * 2, (28, 28, 1), 2 * 37 * 53)
    with pytest.raises(UnusableImage, match="image 2: with its 53 x 37 pixels"):
        decode([FILES["png grey"]] * 3, (28, 28, 1), 2 * 37 * 53)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", FILES["png colour"][:60], FILES["jpeg grey"][:200], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"],
    ids=["nothing", "text", "cut png", "cut jpeg", "png start", "jpeg start"],
)
def test_what_is_no_whole_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableImage, match="cannot be decoded"):
        decode([content], (28, 28, 1), MANY)
