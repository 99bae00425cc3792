"""Examples that are image files, on a disk or in a bucket."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kfp_image_classification.components.ingest.sources.source import Content, Missing
from kfp_image_classification.components.ingest.sources.storage import Unreadable, is_in_bucket, storage

_ORDER_SEED = 0


@dataclass(frozen=True)
class FileExamples:
    """Examples that are image files.

    Attributes:
        dataset: As the user calls it, for messages.
        root: What comes before each path; empty, or it ends with a slash.
        paths: In the order of the examples.
        classes: int32 [n].
    """

    dataset: str
    root: str
    paths: Sequence[str]
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def labels(self) -> np.ndarray:
        return self.classes

    def read(self, start: int, stop: int) -> Iterator[Content | Missing]:
        return self.pick(np.arange(start, min(stop, len(self))))

    def pick(self, indices: np.ndarray) -> Iterator[Content | Missing]:
        names = [self.name(int(index)) for index in indices]
        for name, content in zip(names, self._contents(names), strict=True):
            if isinstance(content, Unreadable):
                yield Missing(f"{name} cannot be read: {content.reason}; mend or remove it")
            else:
                yield content

    def _contents(self, names: list[str]) -> Iterator[bytes | Unreadable]:
        """One storage after the other: the images of a list may lie in several."""
        start = 0
        for stop in range(1, len(names) + 1):
            if stop == len(names) or _kind(names[stop]) != _kind(names[start]):
                yield from storage(names[start]).read(names[start:stop])
                start = stop

    def name(self, index: int) -> str:
        return self.root + self.paths[index]


def mixed(dataset: str, root: str, paths: Sequence[str], classes: Sequence[int]) -> FileExamples:
    """Examples in an order that mixes the classes: by their names they come class by class."""
    order = np.random.default_rng(_ORDER_SEED).permutation(len(paths))
    labels = np.array(classes, np.int32)
    return FileExamples(dataset, root, [paths[index] for index in order], labels[order])


def _kind(name: str) -> str:
    return name.partition("://")[0] if is_in_bucket(name) else ""
