"""The part of a PNG file that makes its pixels, refused where libpng, which TensorFlow uses, refuses it.

Pillow is more lenient than libpng: it takes pictures without an end, and pictures of which the lower half is missing.
And it reads what nobody here needs, colour profiles, texts and animations, which may inflate without bound.
"""

import zlib
from dataclasses import dataclass

from kfp_image_classification.components.contracts.image_formats import PNG_START

_HEADER, _PALETTE, _DATA, _END = b"IHDR", b"PLTE", b"IDAT", b"IEND"
_HEADER_BYTES = 13
_PALETTE_BYTES = 256 * 3
_PALETTE_COLOUR = 3
# Numbers of a pixel, by the colour type in the header; its second bit says that there is colour.
_CHANNELS = {0: 1, 2: 3, _PALETTE_COLOUR: 1, 4: 2, 6: 4}
_COLOUR = 2
# The seven passes of an interlaced picture: first column and row, and the steps between them.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class DamagedPng(ValueError):
    """A PNG that libpng would not read either."""


@dataclass(frozen=True)
class Header:
    """A PNG's first chunk."""

    content: bytes

    def __post_init__(self) -> None:
        # Only one compression, one filter method, and two ways to interlace were ever defined.
        if len(self.content) != _HEADER_BYTES or any(self.content[10:12]) or self.content[12] > 1:
            raise DamagedPng("its header is wrong")
        if self.colour not in _CHANNELS or not self.width or not self.height:
            raise DamagedPng("its header is wrong")

    @property
    def width(self) -> int:
        return int.from_bytes(self.content[:4])

    @property
    def height(self) -> int:
        return int.from_bytes(self.content[4:8])

    @property
    def depth(self) -> int:
        """Bits of each number of a pixel."""
        return self.content[8]

    @property
    def colour(self) -> int:
        return self.content[9]

    @property
    def has_colour(self) -> bool:
        return bool(self.colour & _COLOUR)

    @property
    def is_interlaced(self) -> bool:
        return self.content[12] == 1

    @property
    def raw_bytes(self) -> int:
        """Size of the picture before it was compressed: rows, each with a byte that names its filter."""
        bits = self.depth * _CHANNELS[self.colour]
        passes = _PASSES if self.is_interlaced else ((0, 0, 1, 1),)
        sizes = [(-((x - self.width) // dx), -((y - self.height) // dy)) for x, y, dx, dy in passes]
        return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def header(file: bytes) -> Header:
    """Reads a PNG's header.

    Raises:
        DamagedPng: When it has none.
    """
    start = len(PNG_START) + 8
    if file[start - 4 : start] != _HEADER:
        raise DamagedPng("it has no header")
    return Header(file[start : start + _HEADER_BYTES])


@dataclass(frozen=True)
class Picture:
    """A PNG without what nobody needs.

    Attributes:
        header: Its first chunk.
        file: The same picture as a PNG of nothing but header, palette, data and end.
        data: The compressed rows, in the parts in which they were found.
    """

    header: Header
    file: bytes
    data: list[memoryview]

    def check_rows(self) -> None:
        """Inflates the data, of which there can be less than the header promises.

        Raises:
            DamagedPng: When rows are missing.
        """
        try:
            rows = zlib.decompressobj().decompress(b"".join(self.data), self.header.raw_bytes)
        except zlib.error as error:
            raise DamagedPng(str(error)) from None
        if len(rows) < self.header.raw_bytes:
            raise DamagedPng("rows are missing")


def read(file: bytes, first: Header) -> Picture:
    """Reads the chunks that make the pixels; inflates nothing.

    Args:
        file: Content of the file.
        first: Its header.

    Raises:
        DamagedPng: When a chunk is missing, misplaced or damaged.
    """
    palette, data = b"", list[memoryview]()
    position, kind, ended, is_bare = len(PNG_START), b"", False, first.colour != _PALETTE_COLOUR
    while kind != _END:
        length, kind = int.from_bytes(file[position : position + 4]), file[position + 4 : position + 8]
        content = memoryview(file)[position + 8 : position + 8 + length]
        checksum = file[position + 8 + length : position + 12 + length]
        if len(checksum) != 4:
            raise DamagedPng("it ends too soon")
        if not kind.isalpha():
            raise DamagedPng(f"{kind!r} is no name of a chunk")
        is_first, position = position == len(PNG_START), position + 12 + length
        ended = ended or (bool(data) and kind != _DATA)
        if kind[0] & 0x20:  # a lower-case letter: needed for nothing
            is_bare = False
            continue
        if int.from_bytes(checksum) != zlib.crc32(content, zlib.crc32(kind)):
            raise DamagedPng(f"the checksum of {kind!r} is wrong")
        if kind == _DATA and not ended:
            data.append(content)
        elif kind == _PALETTE and first.has_colour:
            if palette or not content:
                raise DamagedPng("it has two palettes, or an empty one")
            palette = b"" if data else bytes(content)
        elif kind not in (_DATA, _PALETTE, _END) and not is_first:
            raise DamagedPng(f"{kind!r} is misplaced")
    if first.colour == _PALETTE_COLOUR and (not palette or len(palette) % 3):
        raise DamagedPng("it has no palette")
    return Picture(first, file if is_bare else _rewritten(first, palette, data), data)


def _rewritten(first: Header, palette: bytes, data: list[memoryview]) -> bytes:
    # Colours that a palette lacks are black; in Pillow they are grey.
    palettes = [palette.ljust(_PALETTE_BYTES, b"\0")] if first.colour == _PALETTE_COLOUR else []
    chunks = [
        _chunk(_HEADER, first.content),
        *[_chunk(_PALETTE, content) for content in palettes],
        _chunk(_DATA, b"".join(data)),
        _chunk(_END, b""),
    ]
    return PNG_START + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)
