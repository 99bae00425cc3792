"""Reads a list of labelled images: CSV or JSON lines, as people write it and as labelling tools export it.

| form | image | label | split |
|---|---|---|---|
| CSV with a header | a column of `IMAGE_NAMES` | of `LABEL_NAMES` | of `SPLIT_NAMES`, optional |
| CSV without, as Vertex AI imports it | `[ML_USE,]GCS_FILE_PATH,LABEL` | | |
| JSON lines | a key of the same names | | |
| JSON lines of Vertex AI | `imageGcsUri` | `classificationAnnotation.displayName` | `dataItemResourceLabels` |
| JSON lines of SageMaker Ground Truth | `source-ref` | `class-name` in what ends in `-metadata` | |
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kfp_image_classification.components.contracts.image_formats import IMAGE_SUFFIXES
from kfp_image_classification.components.contracts.split_names import SplitName
from kfp_image_classification.components.ingest.sources.folder_layout import SPLIT_FOLDERS

IMAGE_NAMES = ("image", "image_path", "path", "file", "filename", "file_name", "uri", "image_uri", "imagegcsuri")
LABEL_NAMES = ("label", "class", "class_name", "category", "choice", "target")
SPLIT_NAMES = ("split", "set", "subset", "partition", "ml_use", "usage")
SPLIT_WORDS: dict[str, SplitName] = {**SPLIT_FOLDERS, "validate": "validation"}
# Vertex AI's words for "decide for me": these are train, from which is carved what the list does not name.
_UNASSIGNED = {"", "unassigned", "default"}
_VERTEX_USE = "aiplatform.googleapis.com/ml_use"
# Not those that str.splitlines knows, too: a name may have them.
_LINE_END = re.compile(r"\r\n|\n|\r")
UNLABELLED, REPEATED = "lines without a label", "lines that repeat another"


class Row(NamedTuple):
    """What one line of a list says, as it says it; empty where it says nothing."""

    line: int
    image: str
    label: str
    split: str


class Listed(NamedTuple):
    """One labelled image.

    Attributes:
        line: Where in the list.
        image: Path or URL.
        label: Name of the class.
        split: Where it belongs; train where the list does not say.
    """

    line: int
    image: str
    label: str
    split: SplitName


@dataclass
class ImageList:
    """What a list says.

    Attributes:
        images: The labelled images.
        skipped: Lines that are not used, in words, with how many there are.
        problems: What is to be mended, by line.
    """

    images: list[Listed] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class UnknownForm(ValueError):
    """Not a list of images; the message says what is missing."""


def listed_images(text: str, place: Callable[[str], str] = str) -> ImageList:
    """Reads a list.

    Args:
        text: Of the list.
        place: Where an image is, by what the list calls it: the same one may be called in several ways.

    Raises:
        UnknownForm: When it is none.
    """
    lines = _LINE_END.split(text.removeprefix("\ufeff"))
    start = next((line for line in lines if line.strip()), "")
    if not start:
        raise UnknownForm("it is empty")
    if start.lstrip().startswith("["):
        raise UnknownForm("it is one JSON array; write an object a line, without brackets and commas between them")
    found = ImageList()
    is_json = start.lstrip().startswith("{")
    rows = _json_rows(lines, found.problems) if is_json else _csv_rows(lines, start, found.problems)
    known: dict[str, Listed] = {}
    for row in rows:
        if listed := _checked(row, found):
            _add(listed, known.setdefault(place(listed.image), listed), found)
    return found


def _checked(row: Row, found: ImageList) -> Listed | None:
    image, label, split = row.image.strip(), row.label.strip(), row.split.strip().lower()
    if not (_is_text(image) and _is_text(label)):
        found.problems.append(f"line {row.line}: {image!r}, {label!r}: a zero byte or half a sign is no text; mend it")
    elif not image:
        found.problems.append(f"line {row.line}: there is no image; name one, or remove the line")
    elif not label:
        found.skipped[UNLABELLED] += 1
    elif split not in _UNASSIGNED and split not in SPLIT_WORDS:
        words = ", ".join(SPLIT_WORDS)
        found.problems.append(f"line {row.line}: the split {row.split!r} is not known; use {words}, or leave it out")
    else:
        return Listed(row.line, image, label, SPLIT_WORDS.get(split, "train"))
    return None


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)


def _add(listed: Listed, before: Listed, found: ImageList) -> None:
    if before is listed:
        found.images.append(listed)
    elif (before.label, before.split) == (listed.label, listed.split):
        found.skipped[REPEATED] += 1
    else:
        found.problems.append(
            f"line {listed.line}: {listed.image} is {listed.label!r} in {listed.split}, and in line {before.line} "
            f"{before.label!r} in {before.split}; an image has one label and one split: remove a line"
        )


def _csv_rows(lines: Sequence[str], start: str, problems: list[str]) -> Iterator[Row]:
    delimiter = max(",;\t", key=start.count)
    rows = _parsed(lines, delimiter)
    _, first = next(rows)
    if any(_looks_like_image(value) for value in first):
        return _rows_without_header(_parsed(lines, delimiter), _image_at(first, 0), problems)
    names = [name.strip().lower() for name in first]
    image, label = _column(names, IMAGE_NAMES), _column(names, LABEL_NAMES)
    if image is None or label is None:
        lacking = [word for word, at in (("image", image), ("label", label)) if at is None]
        raise UnknownForm(
            f"it has no column {' and none '.join(lacking)}, its first line is {start.strip()[:200]!r}; "
            f"begin with a line image,label or image,label,split"
        )
    if doubled := {name for name in names if name and names.count(name) > 1} & {names[image], names[label]}:
        raise UnknownForm(f"its first line has several columns {', '.join(sorted(doubled))}; keep one")
    return _rows_with_header(rows, len(names), (image, label, _column(names, SPLIT_NAMES)), problems)


def _parsed(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of the line in which it begins."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    number = 1
    try:
        for row in reader:
            if row:
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        # A quote without its other half swallows what follows.
        raise UnknownForm(f"line {number}: {error}; mind the quotes in it") from None


def _rows_with_header(
    rows: Iterable[tuple[int, list[str]]], width: int, columns: Sequence[int | None], problems: list[str]
) -> Iterator[Row]:
    for line, row in rows:
        if any(value.strip() for value in row[width:]):
            problems.append(
                f"line {line}: it has {len(row)} values, and the first line {width}; put quotes round one with a comma"
            )
            continue
        yield Row(line, *(row[at] if at is not None and at < len(row) else "" for at in columns))


def _rows_without_header(rows: Iterable[tuple[int, list[str]]], usual: int, problems: list[str]) -> Iterator[Row]:
    for line, row in rows:
        at = _image_at(row, usual)
        image, label, *more = [*row[at:], "", ""]
        if any(value.strip() for value in more):
            problems.append(f"line {line}: {image} has several labels; an image has one: remove the others")
            continue
        yield Row(line, image, label, row[0] if at else "")


def _image_at(row: Sequence[str], otherwise: int) -> int:
    return next((index for index, value in enumerate(row) if _looks_like_image(value)), otherwise)


def _looks_like_image(value: str) -> bool:
    return "://" in value or value.strip().lower().endswith(IMAGE_SUFFIXES)


def _column(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _json_rows(lines: Sequence[str], problems: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            problems.append(f"line {number}: it is no JSON object: {line.strip()[:80]!r}; mend or remove it")
            continue
        label = _label(said)
        if isinstance(label, list | dict):
            problems.append(f"line {number}: the label is {json.dumps(label)[:80]}; give one text or number")
            continue
        yield Row(number, _said(said, (*IMAGE_NAMES, "source-ref")), _text(label), _json_split(said))


def _label(said: Mapping[str, Any]) -> Any:
    annotation = said.get("classificationAnnotation")
    if isinstance(annotation, dict):
        return annotation.get("displayName")
    for name, value in said.items():
        if name.endswith("-metadata") and isinstance(value, dict) and "class-name" in value:
            return value["class-name"]
    return _value(said, LABEL_NAMES)


def _json_split(said: Mapping[str, Any]) -> str:
    labels = said.get("dataItemResourceLabels")
    if isinstance(labels, dict) and _VERTEX_USE in labels:
        return _text(labels[_VERTEX_USE])
    return _said(said, SPLIT_NAMES)


def _said(said: Mapping[str, Any], names: Sequence[str]) -> str:
    return _text(_value(said, names))


def _value(said: Mapping[str, Any], names: Sequence[str]) -> Any:
    lower = {name.lower(): value for name, value in said.items()}
    return next((lower[name] for name in names if name in lower), None)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)  # what is not equal to itself is no number
