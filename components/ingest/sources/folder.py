"""A folder of images: PATH/CLASS/IMAGE, or PATH/SPLIT/CLASS/IMAGE."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, SplitName
from kfp_image_classification.components.ingest.options import IngestOptions, image_folder
from kfp_image_classification.components.ingest.sources.fitted_shape import fitted_shape
from kfp_image_classification.components.ingest.sources.source import Content, Examples, Source
from kfp_image_classification.components.step.errors import InvalidInput

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
ORDER_SEED = 0


@dataclass(frozen=True)
class FileExamples:
    """Examples that are image files.

    Attributes:
        root: What the paths are relative to.
        paths: In the order of the examples.
        classes: int32 [n].
    """

    root: str
    paths: Sequence[str]
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def labels(self) -> np.ndarray:
        return self.classes

    def read(self, start: int, stop: int) -> Iterator[Content]:
        return self.pick(np.arange(start, min(stop, len(self))))

    def pick(self, indices: np.ndarray) -> Iterator[Content]:
        for index in indices:
            yield Path(self.root, self.paths[index]).read_bytes()

    def name(self, index: int) -> str:
        return str(Path(self.root, self.paths[index]))


def image_folder_source(options: IngestOptions) -> Source:
    """Lists a folder; no image is opened.

    Raises:
        InvalidInput: When there is nothing that could be learnt in it.
    """
    root = image_folder(options.dataset)
    if not _is_folder(root):
        raise InvalidInput(f"dataset = {options.dataset!r}: {root} is not a folder")
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    by_split = "train" in folders and folders <= {*SPLITS}
    roots: dict[SplitName, Path] = {s: root / s for s in SPLITS if s in folders} if by_split else {"train": root}
    found = {split: _images(folder) for split, folder in roots.items()}
    if not any(found.values()):
        raise InvalidInput(
            f"dataset = {options.dataset!r}: no images in {root}; expected {root}/CLASS/IMAGE or "
            f"{root}/train/CLASS/IMAGE with endings {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    class_names = sorted({path.parent.name for paths in found.values() for path in paths})
    splits: dict[SplitName, Examples] = {
        split: _examples(root, paths, class_names) for split, paths in found.items() if paths
    }
    return Source(
        name=options.dataset,
        version="1.0.0",
        class_names=class_names,
        image_shape=fitted_shape((None, None, 3), options),
        splits=splits,
    )


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _examples(root: Path, paths: list[Path], class_names: list[str]) -> FileExamples:
    # By their names they come class by class; shards and batches want them mixed.
    order = np.random.default_rng(ORDER_SEED).permutation(len(paths))
    mixed = [paths[index] for index in order]
    labels = {name: label for label, name in enumerate(class_names)}
    return FileExamples(
        str(root),
        [str(path.relative_to(root)) for path in mixed],
        np.array([labels[path.parent.name] for path in mixed], np.int32),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long, say
        return False
