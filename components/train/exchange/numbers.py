"""How numbers travel, how they are added, and how a garbled message is told from a whole one."""

import functools
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kfp_image_classification.components.train.exchange.schedule import Segments

Wire = Literal["float32", "bfloat16"]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

WIRES: tuple[Wire, ...] = ("float32", "bfloat16")
_ROW = 512
_MASK = 2**64 - 1


def wire_dtype(wire: Wire) -> np.dtype[Any]:
    """The type of the numbers in a message."""
    if wire == "float32":
        return np.dtype(np.float32)
    import ml_dtypes  # comes with TensorFlow; numpy itself has no bfloat16

    return np.dtype(ml_dtypes.bfloat16)


def add(summands: Floats, received: NDArray[Any], total: Floats) -> None:
    """Writes summands + received to `total`, in float32."""
    # numpy widens bfloat16 a few thousand numbers at a time, without a copy of the whole.
    np.add(summands, received, out=total)


def narrow(numbers: Floats, narrowed: NDArray[Any], where: Segments) -> None:
    """Rounds to the type of `narrowed`, to nearest, ties to even."""
    for segment in where:
        np.copyto(narrowed[segment], numbers[segment], casting="unsafe")


def split(received: NDArray[Any], where: Segments) -> list[NDArray[Any]]:
    """Cuts a message's numbers into pieces as long as the segments."""
    parts, start = [], 0
    for segment in where:
        end = start + segment.stop - segment.start
        parts.append(received[start:end])
        start = end
    return parts


def check(parts: list[Bytes]) -> int:
    """A number of 64 bits that differs where a message was garbled on its way.

    The sum of all 64 bit words, those of each 4 KiB weighed with an odd number of their own: any change of one word
    shows, changes of several but for one in 2^64, and pieces that changed places, too. It costs a tenth of a CRC-32.
    """
    found = 0
    for part in parts:
        words = part[: part.size // 8 * 8].view(np.uint64)
        rows = words.size // _ROW
        found *= 3
        if rows:
            sums = np.add.reduce(words[: rows * _ROW].reshape(rows, _ROW), axis=1)
            found += int(sums.dot(_weights(rows)))
        if words.size % _ROW:
            found += int(np.add.reduce(words[rows * _ROW :])) * (2 * rows + 1)
        if part.size % 8:
            found += int.from_bytes(part[words.size * 8 :].tobytes(), "little") * (2 * rows + 3)
    return found & _MASK


@functools.lru_cache(maxsize=256)
def _weights(rows: int) -> NDArray[np.uint64]:
    return np.arange(1, 2 * rows, 2, dtype=np.uint64)


def as_bytes(parts: list[NDArray[Any]]) -> list[Bytes]:
    """The memory of arrays."""
    return [part.view(np.uint8) for part in parts]
