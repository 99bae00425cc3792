"""A list of labelled images, which lies on a disk or in a bucket, as its images do."""

import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kfp_image_classification.components.contracts.split_names import SPLITS, SplitName
from kfp_image_classification.components.ingest.options import IngestOptions, image_list
from kfp_image_classification.components.ingest.sources.files import mixed
from kfp_image_classification.components.ingest.sources.fitted_shape import fitted_shape
from kfp_image_classification.components.ingest.sources.learnable import why_not_learnable
from kfp_image_classification.components.ingest.sources.listed_images import ImageList, UnknownForm, listed_images
from kfp_image_classification.components.ingest.sources.source import Examples, Source
from kfp_image_classification.components.ingest.sources.storage import (
    Unreadable,
    UnreadableStorage,
    is_in_bucket,
    storage,
)
from kfp_image_classification.components.ingest.unusable_images import UnusableImages
from kfp_image_classification.components.step.errors import InvalidInput


def image_list_source(options: IngestOptions) -> Source:
    """Reads a list, and looks whether its images are there; opens none.

    Raises:
        InvalidInput: When there is no such list, or what it says cannot be used; with all problems in it.
    """
    path = image_list(options.dataset)
    found = _Found(path)
    problems = [*found.listed.problems, *found.problems]
    if problems:
        raise UnusableImages(options.dataset, problems)
    images = found.listed.images
    counts: dict[SplitName, Counter[str]] = {split: Counter() for split in SPLITS}
    for image in images:
        counts[image.split][image.label] += 1
    if not counts["train"]:
        raise InvalidInput(f"dataset = {options.dataset!r}: {path} names no labelled image to train on; add some")
    if not_learnable := why_not_learnable(counts):
        raise InvalidInput(f"dataset = {options.dataset!r}: {problem}" for problem in not_learnable)
    class_names = sorted(counts["train"])
    labels = {name: label for label, name in enumerate(class_names)}
    splits: dict[SplitName, Examples] = {}
    for split in SPLITS:
        if counts[split]:
            own = [(found.place(image.image), labels[image.label]) for image in images if image.split == split]
            splits[split] = mixed(options.dataset, "", [place for place, _ in own], [label for _, label in own])
    return Source(
        name=options.dataset,
        version="1.0.0",
        class_names=class_names,
        image_shape=fitted_shape((None, None, 3), options),
        splits=splits,
        skipped=found.listed.skipped,
    )


def image_list_state(dataset: str) -> Iterator[str]:
    """What changes when the list does, or one of its images."""
    try:
        found = _Found(image_list(dataset))
    except UnreadableStorage as error:
        yield str(error)
        return
    for image in found.listed.images:
        yield f"{image.image} {image.label} {image.split} {found.states.get(found.place(image.image), '')}"
    yield from found.listed.problems


@dataclass
class _Found:
    """A list with what is known of its images.

    Attributes:
        path: Of the list.
    """

    path: str

    def __post_init__(self) -> None:
        self.listed = self._read()
        self.problems: list[str] = []
        self.states: dict[str, str] = {}
        lines_by_folder: dict[str, dict[str, int]] = defaultdict(dict)
        for image in self.listed.images:
            place = self.place(image.image)
            folder, _, name = place.rpartition("/")
            if is_in_bucket(place) and not is_in_bucket(folder):
                self.problems.append(f"line {image.line}: {image.image} names no image; give BUCKET/IMAGE")
                continue
            lines_by_folder[folder][name] = image.line
        for folder, lines in lines_by_folder.items():
            self._look(folder, lines)

    def place(self, image: str) -> str:
        """Where an image is: what is relative is so to the list."""
        image = image.removeprefix("file://")
        if is_in_bucket(image):
            return image
        if not is_in_bucket(self.path):
            return os.path.normpath(Path(self.path).parent / image)
        scheme, separator, path = self.path.partition("://")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), image))
        return place if image.startswith("/") else scheme + separator + place

    def _read(self) -> ImageList:
        place = storage(self.path)
        if is_in_bucket(self.path) and not is_in_bucket(self.path.rpartition("/")[0]):
            raise UnreadableStorage(f"{self.path} names a bucket, and no list in it")
        (content,) = place.read([self.path])
        if isinstance(content, Unreadable):
            raise UnreadableStorage(f"{self.path} cannot be read: {content.reason}")
        try:
            return listed_images(content.decode("utf-8"), self.place)
        except UnicodeDecodeError:
            raise UnreadableStorage(f"{self.path} is not UTF-8; save it as UTF-8") from None
        except UnknownForm as error:
            raise UnreadableStorage(f"{self.path} is no list of images: {error}") from None

    def _look(self, folder: str, lines: dict[str, int]) -> None:
        """A whole folder at once, as a bucket answers with a thousand names as fast as with one."""
        try:
            entries = storage(folder).entries(folder)
        except UnreadableStorage as error:
            self.problems += [f"line {line}: {folder}/{name}: {error}" for name, line in lines.items()]
            return
        states = {entry.name: entry.state for entry in entries if not entry.is_folder and not entry.is_nothing}
        for name, line in lines.items():
            if name in states:
                self.states[f"{folder}/{name}"] = states[name]
            else:
                remedy = "write / between folders" if "\\" in name else "put it there, or remove the line"
                self.problems.append(f"line {line}: {folder}/{name} is not there; {remedy}")
