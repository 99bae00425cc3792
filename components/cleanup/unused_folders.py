"""Which folders on the shared volume nobody has used for long, runs' and data sets', and their removal."""

import logging
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from kfp_image_classification.components.cluster.storage import DATASETS, LAST_USE_FILE, RUNS
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

SECONDS_A_DAY = 86_400.0
# A folder under this name is being removed, perhaps by a clean-up that was interrupted.
REMOVED_SUFFIX = ".removed"


@dataclass(frozen=True)
class Removal:
    """What a clean-up did.

    Attributes:
        removed: The folders that are gone, as `runs/NAME` and `datasets/NAME`.
        kept: How many stay.
        freed_bytes: Size of the files that are gone.
    """

    removed: list[str]
    kept: int
    freed_bytes: int


def remove_unused(volume: Path, days: float, own_run: str, dry_run: bool, log: logging.Logger) -> Removal:
    """Removes the folders of runs, and the data sets, in which nothing was written, and which no run used, for so long.

    A run's folder is in use as long as any file in it changes, checkpoints for one. Every step that needs a folder or a
    data set says so in a file there, again and again while it is at work. Only folders directly under `runs/` and
    `datasets/` are looked at; symbolic links are neither followed nor removed.

    Args:
        volume: Where the volume is mounted.
        days: Age from which on a folder goes.
        own_run: Id of the run that cleans up; its own folder stays.
        dry_run: Whether only to tell what would go.
        log: Told of each folder that goes.

    Raises:
        InvalidInput: When there is no such volume, or `days` is below an hour.
        StageFailed: When a folder cannot be removed; the others are gone then.
    """
    if not days >= 1 / 24:
        raise InvalidInput(f"days = {days}: must be at least an hour, 0.042")
    if not volume.is_dir():
        raise InvalidInput(
            f"no volume is mounted at {volume}; use mount_storage(task, pvc) from components/cluster/storage.py"
        )
    oldest = time.time() - days * SECONDS_A_DAY
    removed, failed, kept, freed = [], [], 0, 0
    for folder in [*_folders(volume / RUNS), *_folders(volume / DATASETS)]:
        name = str(folder.relative_to(volume))
        last_use, size = _last_use_and_size(folder)
        if not _half_removed(folder) and (name == f"{RUNS}/{own_run}" or last_use > oldest):
            kept += 1
            continue
        try:
            if not dry_run and not _remove(folder, oldest):
                kept += 1
                continue
        except OSError as error:
            failed.append(f"{folder}: {error.strerror}")
            continue
        age = (time.time() - last_use) / SECONDS_A_DAY
        told = "would be removed" if dry_run else "removed"
        log.info("%s: %s, last used %.1f days ago, %s bytes", name, told, age, f"{size:,}")
        removed.append(name)
        freed += size
    if failed:
        raise StageFailed("not everything could be removed: " + "; ".join(failed))
    return Removal(removed, kept, freed)


def _folders(parent: Path) -> list[Path]:
    if parent.is_symlink() or not parent.is_dir():
        return []
    return sorted(Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False))


def _half_removed(folder: Path) -> bool:
    return folder.name.endswith(REMOVED_SUFFIX)


def _last_use_and_size(folder: Path) -> tuple[float, int]:
    newest, size = folder.lstat().st_mtime, 0
    for directory, _, files in os.walk(folder, followlinks=False):
        for name in files:
            try:
                status = Path(directory, name).lstat()
            except FileNotFoundError:  # a run is at work there
                return time.time(), size
            if stat.S_ISREG(status.st_mode):
                newest, size = max(newest, status.st_mtime), size + status.st_size
    return newest, size


def _remove(folder: Path, oldest: float) -> bool:
    """Removes a folder, unless a run has begun to use it meanwhile; returns whether it is gone."""
    # Renamed first: nobody finds half a folder under its name.
    hidden = folder
    if not _half_removed(folder):
        hidden = folder.with_name(folder.name + REMOVED_SUFFIX)
        folder.rename(hidden)
        if _noted_use(hidden) > oldest:
            hidden.rename(folder)
            return False
    shutil.rmtree(hidden)
    return True


def _noted_use(folder: Path) -> float:
    try:
        return (folder / LAST_USE_FILE).stat().st_mtime
    except FileNotFoundError:
        return 0
