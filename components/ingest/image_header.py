"""What an image file says of itself in its first bytes: its size, and how the camera was held."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from kfp_image_classification.components.contracts.image_formats import PNG_START
from kfp_image_classification.components.contracts.jpeg_segments import APP1, FRAMES, SCAN, segments

_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
_EXIF_START = b"Exif\0\0"
# EXIF's types of whole numbers, with their bytes.
_SIZES = {3: 2, 4: 4}
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


class ImageHeader(NamedTuple):
    """What is said of an image.

    Attributes:
        encoding: `PNG` or `JPEG`.
        width: In pixels, as they are stored.
        height: In pixels, as they are stored.
        orientation: As in EXIF: 1 is upright; 2 to 8 are turned or mirrored.
    """

    encoding: str
    width: int
    height: int
    orientation: int


def image_header(content: bytes) -> ImageHeader:
    """Reads the header of a file that decodes; one that does not may have any."""
    if content.startswith(PNG_START):
        width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
        exif = next((part for kind, part in _png_chunks(content) if kind == b"eXIf"), b"")
        return ImageHeader("PNG", width, height, _orientation(exif))
    width = height = 0
    exif = b""
    for marker, part in segments(content):
        if marker in FRAMES:
            height, width = int.from_bytes(part[1:3]), int.from_bytes(part[3:5])
        elif marker == APP1 and part.startswith(_EXIF_START):
            exif = exif or part[len(_EXIF_START) :]
        elif marker == SCAN:
            break
    return ImageHeader("JPEG", width, height, _orientation(exif))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Those before the pixels, which is where EXIF nearly always is."""
    position = len(PNG_START)
    while (kind := content[position + 4 : position + 8]) not in (b"IDAT", b""):
        end = position + 8 + int.from_bytes(content[position : position + 4])
        yield kind, content[position + 8 : end]
        position = end + 4


def _orientation(exif: bytes) -> int:
    """What the first directory says; upright where it is broken, or says what there is not."""
    order = _ORDERS.get(exif[:4])
    if order is None:
        return _UPRIGHT

    def number(start: int, size: int) -> int:
        return int.from_bytes(exif[start : start + size], order)

    first = number(4, 4)
    for entry in range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif) - 11), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            size = _SIZES.get(number(entry + 2, 2))
            value = number(entry + 8, size) if size and number(entry + 4, 4) == 1 else _UPRIGHT
            return value if 1 <= value <= 8 else _UPRIGHT
    return _UPRIGHT
