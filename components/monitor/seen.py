"""Reads a payload log, the newest events first, and keeps of it what is compared: counts, not payloads."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from kfp_image_classification.components.contracts.folders import Folder, FolderFailed
from kfp_image_classification.components.contracts.payload_events import NotAnEvent, PayloadEvent
from kfp_image_classification.components.contracts.payload_files import FormatUnusable, from_file
from kfp_image_classification.components.contracts.pixel_sums import PixelSums
from kfp_image_classification.components.monitor.payloads import Image, UnreadablePayload, answers_of, images_of
from kfp_image_classification.components.step.errors import StageFailed

ImageShape = tuple[int, int, int]
CLOCKS_DIFFER = timedelta(hours=1)


@dataclass
class Seen:
    """What was asked and answered lately.

    Attributes:
        pixels: Of the images that were asked about.
        classes: Answers, by class in the model's order.
        confidences: The probability of each answer's class, where it was told.
        requests: Requests that were read.
        first: When the first event was; None without any.
        last: When the last one was.
        unused: What was not used, in words, with how much of it there was.
        asked: Of requests with labels, the images, by id.
        answered: Of requests with labels, the classes that were answered, by id.
    """

    pixels: PixelSums
    classes: np.ndarray
    confidences: list[float] = field(default_factory=list)
    requests: int = 0
    first: datetime | None = None
    last: datetime | None = None
    unused: Counter[str] = field(default_factory=Counter)
    asked: dict[str, list[Image]] = field(default_factory=dict)
    answered: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class LogReader:
    """Reads what is wanted of a log.

    Args:
        class_names: In the order of the model.
        image_shape: (height, width, channels) of the model.
        fitted: Makes uint8 `image_shape` of an image file; raises ValueError for one that is none.
        most_images: When enough was seen.
        labelled: Ids of requests whose images are wanted.
    """

    def __init__(
        self,
        class_names: list[str],
        image_shape: ImageShape,
        fitted: Callable[[bytes], np.ndarray],
        most_images: int,
        labelled: Mapping[str, object],
    ) -> None:
        self._labels = {name: index for index, name in enumerate(class_names)}
        self._shape = image_shape
        self._fitted = fitted
        self._most = most_images
        self._labelled = labelled
        self.seen = Seen(PixelSums(image_shape[2]), np.zeros(len(class_names), np.int64))

    def read(self, folder: Folder, since: datetime, service: str) -> Seen:
        """Reads the newest events.

        Args:
            folder: Of the log.
            since: Events before do not count.
            service: Whose events count; empty for all.

        Raises:
            StageFailed: When the folder cannot be listed, or a file's format cannot be read from here.
        """
        try:
            files = folder.files()
        except FolderFailed as error:
            raise StageFailed(f"events: {error}") from None
        # A clock that was set wrong for a while must not have the last word for ever.
        latest = datetime.now(UTC) + CLOCKS_DIFFER
        for file in reversed(files):
            if file.written < since or self._is_enough():
                break
            try:
                events = [*from_file(file.name, folder.read(file.name), file.written)]
            except (FolderFailed, NotAnEvent):
                self.seen.unused["files that hold no whole events"] += 1
                continue
            except FormatUnusable as error:
                raise StageFailed(f"events: {file.name}: {error}") from None
            for event in reversed(events):
                if event.time > latest:
                    self.seen.unused["events of a time that has not come"] += 1
                elif event.time >= since and service in ("", event.service):
                    self._take(event)
        return self.seen

    def _is_enough(self) -> bool:
        return self._has_pixels() and self._has_answers() and not self._labelled

    def _has_pixels(self) -> bool:
        return self.seen.pixels.images >= self._most

    def _has_answers(self) -> bool:
        return bool(self.seen.classes.sum() >= self._most)

    def _take(self, event: PayloadEvent) -> None:
        seen = self.seen
        seen.first = min(seen.first or event.time, event.time)
        seen.last = max(seen.last or event.time, event.time)
        try:
            if event.kind == "request":
                seen.requests += 1
                self._take_images(event)
            else:
                self._take_answers(event)
        except UnreadablePayload:
            seen.unused[f"{event.kind}s that are in no known protocol"] += 1

    def _take_images(self, event: PayloadEvent) -> None:
        if self._has_pixels() and event.id not in self._labelled:
            return
        images = images_of(event.body)
        if event.id in self._labelled:
            self.seen.asked[event.id] = [self._to_be_learnt(image) for image in images]
        for image in images[: self._most - self.seen.pixels.images]:
            try:
                self.seen.pixels.measure(self.pixels(image))
            except ValueError:
                self.seen.unused["images that cannot be decoded"] += 1

    def pixels(self, image: Image) -> np.ndarray:
        """An image as the model gets it.

        Raises:
            ValueError: When it is none, or of another shape.
        """
        if isinstance(image, bytes):
            return self._fitted(image)
        shaped = image[..., np.newaxis] if image.ndim == 2 and self._shape[2] == 1 else image
        if shaped.shape != self._shape or shaped.dtype.kind not in "iuf":
            raise ValueError("another shape, or no numbers")
        pixels = shaped.astype(np.uint8)
        if not np.array_equal(pixels, shaped):  # what the model server refuses, too
            raise ValueError("no whole numbers from 0 to 255")
        return pixels

    def _to_be_learnt(self, image: Image) -> Image:
        """An image file as it came, pixels as the model gets them; nothing in place of what is neither."""
        try:
            pixels = self.pixels(image)
        except ValueError:
            return b""
        return image if isinstance(image, bytes) else pixels

    def _take_answers(self, event: PayloadEvent) -> None:
        if self._has_answers() and event.id not in self._labelled:
            return
        for answer in answers_of(event.body):
            if answer.label not in self._labels:
                self.seen.unused["answers of a class that the data set does not have"] += 1
                continue
            self.seen.classes[self._labels[answer.label]] += 1
            if answer.confidence is not None:
                self.seen.confidences.append(answer.confidence)
            if event.id in self._labelled:
                self.seen.answered[event.id].append(answer.label)
