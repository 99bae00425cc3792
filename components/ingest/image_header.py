"""What an image file says of itself in its first bytes: its size, and how the camera was held."""

from collections.abc import Iterator
from typing import NamedTuple

from kfp_image_classification.components.contracts.image_formats import PNG_START

_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
_EXIF_START = b"Exif\0\0"
# Markers that start a frame, with the size; in between are those of tables and of arithmetic coding.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_EXIF_MARKER, _SCAN_MARKER = 0xE1, 0xDA


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
    orientation = _UPRIGHT
    for marker, part in _jpeg_segments(content):
        if marker in _FRAMES:
            height, width = int.from_bytes(part[1:3]), int.from_bytes(part[3:5])
        elif marker == _EXIF_MARKER and part.startswith(_EXIF_START):
            orientation = _orientation(part[len(_EXIF_START) :])
    return ImageHeader("JPEG", width, height, orientation)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Those before the pixels, which is where EXIF nearly always is."""
    position = len(PNG_START)
    while (kind := content[position + 4 : position + 8]) not in (b"IDAT", b""):
        end = position + 8 + int.from_bytes(content[position : position + 4])
        yield kind, content[position + 8 : end]
        position = end + 4


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF or content[position + 1] in (0x00, 0xFF):
            position = content.find(b"\xff", position + 1)
            if position < 0:
                return
            continue
        marker = content[position + 1]
        if marker == _SCAN_MARKER:
            return
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4])
        yield marker, content[position + 4 : end]
        position = end


def _orientation(exif: bytes) -> int:
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return _UPRIGHT

    def number(start: int, size: int) -> int:
        return int.from_bytes(exif[start : start + size], "little" if order == "little" else "big")

    first = number(4, 4)
    for entry in range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif)), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else _UPRIGHT
    return _UPRIGHT
