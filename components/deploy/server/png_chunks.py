"""The part of a PNG file that makes its pixels, refused where libpng, which TensorFlow uses, refuses it.

Pillow is more lenient than libpng: it takes pictures without an end, and pictures of which the lower half is missing.
And it reads what nobody here needs, colour profiles, texts and animations, which may inflate without bound.
"""

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from kfp_image_classification.components.contracts.image_formats import PNG_START

_HEADER, _PALETTE, _DATA, _END = b"IHDR", b"PLTE", b"IDAT", b"IEND"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4
_HEADER_FIELDS = struct.Struct(">II5B")
_PALETTE_BYTES = 256 * 3
_PALETTE_COLOUR = 3
# Numbers of a pixel, by the colour type in the header; its second bit says that there is colour.
_CHANNELS = {0: 1, 2: 3, _PALETTE_COLOUR: 1, 4: 2, 6: 4}
_COLOUR = 2
# Bytes that libpng inflates after the last row, in search of the end.
_AFTER_THE_ROWS = 1024
_WHOLE = ((0, 0, 1, 1),)
# The seven passes of an interlaced picture: first column and row, and the steps between them.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class DamagedPng(ValueError):
    """A PNG that libpng would not read either."""


class Header(NamedTuple):
    """A PNG's first chunk; `depth` is in bits of each number of a pixel."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlacing: int

    @property
    def has_colour(self) -> bool:
        return bool(self.colour & _COLOUR)

    @property
    def is_interlaced(self) -> bool:
        return self.interlacing == 1


@lru_cache  # many pictures are alike
def raw_bytes(header: Header) -> int:
    """Size of a picture before it was compressed: rows, each with a byte that names its filter."""
    bits = header.depth * _CHANNELS[header.colour]
    passes = _PASSES if header.is_interlaced else _WHOLE
    sizes = [(-((x - header.width) // dx), -((y - header.height) // dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def header(file: bytes) -> Header:
    """Reads a PNG's header.

    Raises:
        DamagedPng: When it has none, or a wrong one.
    """
    try:
        length, kind = _CHUNK.unpack_from(file, len(PNG_START))
        found = Header._make(_HEADER_FIELDS.unpack_from(file, len(PNG_START) + _CHUNK.size))
    except struct.error:
        raise DamagedPng("it has no header") from None
    if kind != _HEADER or length != _HEADER_FIELDS.size:
        raise DamagedPng("it has no header")
    # Only one compression, one filter method, and two ways to interlace were ever defined.
    if found.compression or found.filtering or found.interlacing > 1:
        raise DamagedPng("its header is wrong")
    if found.colour not in _CHANNELS or not found.width or not found.height:
        raise DamagedPng("its header is wrong")
    return found


@dataclass(frozen=True)
class Picture:
    """A PNG without what nobody needs.

    Attributes:
        header: Its first chunk.
        palette: Colours, where it has them.
        data: The compressed rows.
    """

    header: Header
    palette: bytes
    data: bytes

    @property
    def file(self) -> bytes:
        """The same picture as a PNG of nothing but header, palette, data and end."""
        # Colours that a palette lacks are black; in Pillow they are grey.
        palettes = [self.palette.ljust(_PALETTE_BYTES, b"\0")] if self.header.colour == _PALETTE_COLOUR else []
        chunks = [
            _chunk(_HEADER, _HEADER_FIELDS.pack(*self.header)),
            *[_chunk(_PALETTE, content) for content in palettes],
            _chunk(_DATA, self.data),
            _chunk(_END, b""),
        ]
        return PNG_START + b"".join(chunks)

    def unpacked(self) -> "Picture":
        """The same with rows that are only stored: whoever needs them checked need not have them inflated again.

        Raises:
            DamagedPng: When rows are missing, or what ends the data.
        """
        expected = raw_bytes(self.header)
        inflater = zlib.decompressobj()
        try:
            rows = inflater.decompress(self.data, expected)
        except zlib.error as error:
            raise DamagedPng(str(error)) from None
        if len(rows) < expected:
            raise DamagedPng("rows are missing")
        with suppress(zlib.error):  # what comes after the rows is nobody's, and may be damaged
            inflater.decompress(inflater.unconsumed_tail, _AFTER_THE_ROWS)
            if not (inflater.eof or inflater.unconsumed_tail):
                raise DamagedPng("its data end too soon")
        return Picture(self.header, self.palette, zlib.compress(rows, 0))


def read(file: bytes, first: Header) -> Picture:
    """Reads the chunks that make the pixels; inflates nothing.

    Args:
        file: Content of the file.
        first: Its header.

    Raises:
        DamagedPng: When a chunk is missing, misplaced or damaged.
    """
    view, palette, data = memoryview(file), b"", list[memoryview]()
    end, kind, ended = len(PNG_START), b"", False
    while kind != _END:
        start = end + _CHUNK.size
        if start > len(file):
            raise DamagedPng("it ends too soon")
        length, kind = _CHUNK.unpack_from(file, end)
        is_first, checked, end = end == len(PNG_START), start + length, start + length + _CHECKSUM_BYTES
        if end > len(file):
            raise DamagedPng("it ends too soon")
        if not kind.isalpha():
            raise DamagedPng(f"{kind!r} is no name of a chunk")
        ended = ended or (bool(data) and kind != _DATA)
        if kind[0] & 0x20:  # a lower-case letter: needed for nothing
            continue
        if int.from_bytes(file[checked:end]) != zlib.crc32(view[start - len(kind) : checked]):
            raise DamagedPng(f"the checksum of {kind!r} is wrong")
        if kind == _DATA and not ended:
            data.append(view[start:checked])
        elif kind == _PALETTE and first.has_colour:
            if palette or not length:
                raise DamagedPng("it has two palettes, or an empty one")
            palette = b"" if data else file[start:checked]
        elif kind not in (_DATA, _PALETTE, _END) and not is_first:
            raise DamagedPng(f"{kind!r} is misplaced")
    if first.colour == _PALETTE_COLOUR and (not palette or len(palette) % 3):
        raise DamagedPng("it has no palette")
    return Picture(first, palette, b"".join(data))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)
