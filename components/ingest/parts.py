"""A data set in parts: each is written by a task of its own, and one task puts them together.

Which shard holds what is the same for every number of parts. So a part may be written again, or by two tasks at a time:
the first to finish gives it its name. A part that is missing in the end is written by whoever puts them together.
"""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from kfp_image_classification.components.contracts.dataset_manifest import Shard, SplitName
from kfp_image_classification.components.ingest.kept_datasets import MAKING_PREFIX
from kfp_image_classification.components.ingest.observed import NOTE, PixelSums
from kfp_image_classification.components.ingest.shard_plan import ShardPlan
from kfp_image_classification.components.ingest.shard_writing import WrittenShard, write_shards
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.whole_file import publish_folder

_PART_FILE, _NOTES_FILE = "part.json", "notes.npy"


class _PartShard(BaseModel):
    split: SplitName
    shard: Shard
    sums: PixelSums


class _Part(BaseModel):
    """What `part.json` says; notes on all shards' examples, one shard after the other, lie beside it."""

    shards: list[_PartShard]


def write_part(plan: ShardPlan, part: int, parts: int, folder: Path, log: logging.Logger) -> None:
    """Writes one of several parts of a data set, unless it is there.

    Args:
        plan: The whole data set.
        part: From 0 on.
        parts: How many there are.
        folder: For all parts of this data set; made when it is not there.
        log: Told about progress.

    Raises:
        UnusableImages: Naming all images of the part that do not decode.
        StageFailed: When the folder cannot be written.
    """
    final = _folder_of(folder, part)
    if _read(plan, part, parts, folder) is not None:
        log.info("part %d of %d is there already", part + 1, parts)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix=MAKING_PREFIX, dir=folder))
    except OSError as error:
        raise StageFailed(f"{folder}: the part cannot be written there: {error}") from None
    try:
        written = write_shards(plan, plan.part(part, parts), own, log)
        np.save(own / _NOTES_FILE, np.concatenate([np.empty(0, NOTE), *(one.notes for one in written)]))
        told = _Part(shards=[_PartShard(split=one.split, shard=one.shard, sums=one.sums) for one in written])
        (own / _PART_FILE).write_text(told.model_dump_json(), encoding="utf-8")
        if _read(plan, part, parts, folder) is None:  # nobody was faster
            shutil.rmtree(final, ignore_errors=True)
            publish_folder(own, final, last=_PART_FILE)
    except OSError as error:  # the volume is full, say
        raise StageFailed(f"{folder}: the part cannot be written there: {error}") from None
    finally:
        shutil.rmtree(own, ignore_errors=True)


def take_parts(plan: ShardPlan, parts: int, folder: Path, target: Path, log: logging.Logger) -> list[WrittenShard]:
    """Brings all shards of all parts into one folder, and writes the parts that are missing.

    The parts stay as they are: another task may be putting them together at the same time.

    Raises:
        UnusableImages: Naming all images of those parts that do not decode.
        StageFailed: When a folder cannot be written.
    """
    taken: list[WrittenShard] = []
    for part in range(parts):
        written = _read(plan, part, parts, folder)
        if written is None or not _brought(_folder_of(folder, part), written, target):
            log.info("part %d of %d is not there: it is written now", part + 1, parts)
            written = write_shards(plan, plan.part(part, parts), target, log)
        taken += written
    return taken


def _brought(own: Path, written: list[WrittenShard], target: Path) -> bool:
    """Links or copies a part's shards; returns whether all of them were there."""
    for one in written:
        (target / one.shard.file).unlink(missing_ok=True)
        try:
            os.link(own / one.shard.file, target / one.shard.file)
        except FileNotFoundError:  # another task was faster, and has cleaned up
            return False
        except OSError:  # this file system has no links, or the folders are on two of them
            try:
                shutil.copyfile(own / one.shard.file, target / one.shard.file)
            except FileNotFoundError:
                return False
    return True


def _folder_of(folder: Path, part: int) -> Path:
    return folder / f"part-{part}"


def _read(plan: ShardPlan, part: int, parts: int, folder: Path) -> list[WrittenShard] | None:
    """What was written of a part; None unless all of it is there."""
    own = _folder_of(folder, part)
    try:
        told = _Part.model_validate_json((own / _PART_FILE).read_text(encoding="utf-8"))
        notes = np.load(own / _NOTES_FILE)
        sizes = [(own / one.shard.file).stat().st_size for one in told.shards]
    except (OSError, ValueError, EOFError):
        return None
    wanted = [planned.file for planned in plan.part(part, parts)]
    if [one.shard.file for one in told.shards] != wanted or sizes != [one.shard.bytes for one in told.shards]:
        return None
    ends = np.cumsum([0, *(one.shard.examples for one in told.shards)])
    if ends[-1] != len(notes):
        return None
    of_shards = np.split(notes, ends[1:-1]) if told.shards else []
    return [
        WrittenShard(one.split, one.shard, some, one.sums, []) for one, some in zip(told.shards, of_shards, strict=True)
    ]
