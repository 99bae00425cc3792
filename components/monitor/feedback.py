"""Labels that come later: how often the service was right, and images to learn from."""

import csv
import hashlib
import io
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts.folders import Folder, FolderFailed, open_folder
from kfp_image_classification.components.contracts.image_formats import JPEG_START, PNG_START
from kfp_image_classification.components.monitor.payloads import Image
from kfp_image_classification.components.monitor.seen import Seen
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

# The label of each image of a request, by its number there.
Labels = dict[str, dict[int, str]]
MOST_TOLD = 10


@dataclass(frozen=True)
class Labelled:
    """An image of the log whose label is known."""

    id: str
    image: Image
    label: str


def read_labels(place: str) -> Labels:
    """Reads the labels that came later.

    Args:
        place: Path or URL of a CSV file with the columns `id`, `label` and, optionally, `image`.

    Raises:
        InvalidInput: When it is not there, or no such file; with the lines to mend.
    """
    text = _read_text(place, "feedback")
    rows = csv.DictReader(io.StringIO(text), strict=True)
    labels: Labels = {}
    problems = []
    try:
        columns = [name.strip().lower() for name in rows.fieldnames or []]
        if not {"id", "label"} <= {*columns}:
            raise InvalidInput(
                f"feedback = {place!r}: its first line is {','.join(rows.fieldnames or [])!r}; begin with a line "
                "id,label or id,image,label"
            )
        rows.fieldnames = columns
        for row in rows:
            identity, label, number = ((row.get(name) or "").strip() for name in ("id", "label", "image"))
            if not label:
                continue
            if not identity or not (number or "0").isdecimal():
                problems.append(
                    f"line {rows.line_num}: give the request's id, and as image a number from 0, or nothing"
                )
                continue
            known = labels.setdefault(identity, {}).setdefault(int(number or 0), label)
            if known != label:
                problems.append(f"line {rows.line_num}: {identity!r} is {label!r}, and before {known!r}; remove a line")
    except csv.Error as error:  # a quote without its other half swallows what follows
        problems.append(f"line {rows.line_num + 1}: {error}; mind the quotes in it")
    if problems:
        more = [f"and {len(problems) - MOST_TOLD} lines more"] if len(problems) > MOST_TOLD else []
        raise InvalidInput(f"feedback = {place!r}: {problem}" for problem in [*problems[:MOST_TOLD], *more])
    return labels


def unknown_labels(labels: Labels, class_names: Sequence[str]) -> list[str]:
    """Labels that are no class of the data set: new ones, or slips of the pen, which would become classes."""
    return sorted({label for numbers in labels.values() for label in numbers.values()} - {*class_names})


def hits(seen: Seen, labels: Labels) -> tuple[int, int]:
    """How many answers were right, and of how many the label is known."""
    right = known = 0
    for identity, answered in seen.answered.items():
        for number, label in labels[identity].items():
            if number < len(answered):
                known += 1
                right += answered[number] == label
    return right, known


def labelled_images(seen: Seen, labels: Labels) -> list[Labelled]:
    """The images of the log whose label is known, in a fixed order."""
    return [
        Labelled(identity, seen.asked[identity][number], label)
        for identity in sorted(seen.asked)
        for number, label in sorted(labels[identity].items())
        if number < len(seen.asked[identity]) and _is_image_file(seen.asked[identity][number])
    ]


@dataclass(frozen=True)
class WrittenList:
    """A list that ingest reads.

    Attributes:
        place: Path or URL.
        new: Images in it that the one before does not have.
    """

    place: str
    new: int


def write_image_list(labelled: Sequence[Labelled], place: str, base_list: str) -> WrittenList:
    """Writes images and a list of them, which ingest reads as `image_list:...`.

    The list's name is of its content, so that a data set with more images is another one; images that are there already
    are not written again.

    Args:
        labelled: The images.
        place: Folder, or folder of a bucket.
        base_list: A list that the new one begins with; empty for none.

    Raises:
        InvalidInput: When the folder or the base list cannot be used.
        StageFailed: When it does not take the files.
    """
    folder = open_folder(place, "labelled_dir")
    lines = _base_lines(base_list) if base_list else []
    try:
        has_splits = any(line["split"] for line in lines)
        known = {line["image"] for line in lines}
        there = {file.name for file in folder.files()}
        lines += [
            {"image": _place(place, name), "label": one.label, "split": _split(name) if has_splits else ""}
            for one in labelled
            for name in [_written(folder, one, there)]
        ]
        by_image = {line["image"]: line for line in lines}
        text = io.StringIO()
        writer = csv.DictWriter(text, ["image", "label", "split"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(by_image.values())
        content = text.getvalue().encode()
        name = f"list-{hashlib.sha256(content).hexdigest()[:12]}.csv"
        folder.write(name, content)
    except FolderFailed as error:
        raise StageFailed(f"labelled_dir: {error}") from None
    return WrittenList(_place(place, name), len(by_image) - len(known))


def _split(name: str) -> str:
    """Where a new image belongs, for good: a tenth each are to select and to report by, as those before them."""
    return {0: "validation", 1: "test"}.get(int(name.removeprefix("images/")[:8], 16) % 10, "train")


def _written(folder: Folder, labelled: Labelled, there: set[str]) -> str:
    content, ending = _image_file(labelled.image)
    name = f"images/{hashlib.sha256(content).hexdigest()[:24]}{ending}"
    if name not in there:
        folder.write(name, content)
    return name


def _image_file(image: Image) -> tuple[bytes, str]:
    if isinstance(image, bytes):
        return image, ".jpg" if image.startswith(JPEG_START) else ".png"
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    pixels = np.asarray(image).astype(np.uint8)
    Pillow.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, format="png")
    return buffer.getvalue(), ".png"


def _is_image_file(image: Image) -> bool:
    return not isinstance(image, bytes) or image.startswith((PNG_START, JPEG_START))


def _base_lines(base_list: str) -> list[dict[str, str]]:
    rows = [*csv.DictReader(io.StringIO(_read_text(base_list, "dataset")))]
    if rows and not {"image", "label"} <= rows[0].keys():
        raise InvalidInput(
            f"dataset = {base_list!r}: to be gone on from, it must begin with a line image,label[,split]"
        )
    return [
        {"image": _beside(base_list, row["image"]), "label": row["label"], "split": row.get("split") or ""}
        for row in rows
    ]


def _beside(base_list: str, image: str) -> str:
    """What is relative is so to the list."""
    if re.match(r"[a-z0-9]+://", image) or image.startswith("/"):
        return image
    if "://" in base_list:
        return f"{base_list.rpartition('/')[0]}/{image}"
    return str(Path(base_list).absolute().parent / image)


def _place(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else str(Path(folder).absolute() / name)


def _read_text(place: str, parameter: str) -> str:
    folder, name = posixpath.split(place)
    try:
        return open_folder(folder or ".", parameter).read(name).decode("utf-8-sig")
    except FolderFailed as error:
        raise InvalidInput(f"{parameter} = {place!r}: {error}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{parameter} = {place!r}: it is not UTF-8; save it as UTF-8") from None
