"""A JPEG's segments, and whether its scans are all there: what decoders do not tell, and what they disagree about.

A decoder makes pixels of a file that breaks off, or of which scans are missing, as well as it can, and each in its own
way: a progressive picture is smoothed where its details have not come, by other formulas in each release of libjpeg.
"""

import re
from collections.abc import Iterator

APP1, SCAN = 0xE1, 0xDA
# Markers that start a frame, with the size; in between are those of tables and of arithmetic coding.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_END = 0xD9
# Within a scan's data are escaped bytes (00) and restarts (D0 to D7), and what is below C0 was never defined; before a
# marker there may be any number of FF.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
# Coefficients of a block, in zigzag order, by which a decoder judges whether there is something to smooth.
_LOWEST = 10


def segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker of each segment, and what is in it, up to the end of the image; that, too, is a marker.

    Nothing comes any more where the file breaks off.
    """
    position = 2
    while found := _MARKER.search(content, position):
        marker, position = content[found.end() - 1], found.end()
        length = int.from_bytes(content[position : position + 2])
        if marker != _END and (length < 2 or position + length > len(content)):
            return
        yield marker, content[position + 2 : position + length]
        if marker == _END:
            return
        position += length


def reaches_its_end(content: bytes) -> bool:
    """Whether a JPEG's segments lead to the marker that ends the image."""
    return any(marker == _END for marker, _ in segments(content))


def has_all_scans(content: bytes) -> bool:
    """Whether a progressive JPEG's scans tell all that a decoder would otherwise guess; true for others."""
    exact: dict[int, set[int]] = {}
    for marker, part in segments(content):
        if marker in FRAMES and marker not in _PROGRESSIVE:
            return True
        if marker in FRAMES:
            exact = {component: set() for component in part[6::3]}
        elif marker == SCAN and len(part) >= 4:
            first, last, bits = part[-3:]
            for component in part[1:-3:2]:
                # The low half of the byte: how many bits are still to come.
                if not bits & 0x0F and component in exact:
                    exact[component].update(range(first, min(last, _LOWEST) + 1))
    return all(coefficients.issuperset(range(_LOWEST)) for coefficients in exact.values())
