"""What a source is to whoever reads it: an ordered list of examples a split, of which any range can be read.

A range can be read without the rest, in another process or another pod: everything here can be pickled, and the order
is the same at every opening. So records can be written in parallel, and in parts, to the same result.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import SplitName

ImageShape = tuple[int, int, int]
# An image file's own bytes, not looked at yet; or pixels, uint8 [height, width, channels], where there is no file.
Content = bytes | np.ndarray


@dataclass(frozen=True)
class Missing:
    """What stands where an example cannot be read.

    Attributes:
        reason: A sentence with its name.
    """

    reason: str


class Examples(Protocol):
    """The examples of one split, in a fixed order that mixes the classes."""

    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray:
        """The class of every example, int32 [n], an index into the source's `class_names`; read once, then kept."""

    def read(self, start: int, stop: int) -> Iterator[Content | Missing]:
        """Reads the examples from `start` up to, not including, `stop`; streams, and holds a bounded number."""

    def pick(self, indices: np.ndarray) -> Iterator[Content | Missing]:
        """Reads some examples, whose indices ascend, as `read` does."""

    def name(self, index: int) -> str:
        """How a message calls an example: its path, or its number where it has none."""


@dataclass(frozen=True)
class Source:
    """An image classification data set that can be read.

    Attributes:
        name: As the user wrote it.
        version: The source's own version.
        class_names: In the order of the labels.
        image_shape: (height, width, channels) to which images are to be fitted.
        splits: `train`, and those of `validation` and `test` that the source has itself. Empty after a dry opening of
            a data set that is not prepared.
        skipped: What is there and not used, in words, with how many there are of it.
    """

    name: str
    version: str
    class_names: list[str]
    image_shape: ImageShape
    splits: Mapping[SplitName, Examples]
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PixelExamples:
    """Examples that are in memory as pixels.

    Attributes:
        pixels: uint8 [n, height, width, channels].
        classes: int32 [n].
    """

    pixels: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def labels(self) -> np.ndarray:
        return self.classes

    def read(self, start: int, stop: int) -> Iterator[Content]:
        yield from self.pixels[start:stop]

    def pick(self, indices: np.ndarray) -> Iterator[Content]:
        yield from self.pixels[indices]

    def name(self, index: int) -> str:
        return f"example {index}"
