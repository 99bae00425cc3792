"""Which runs' folders on the shared volume are old, and their removal."""

import logging
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from kfp_image_classification.components.cluster.storage import RUNS
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

SECONDS_A_DAY = 86_400.0
# A folder under this name is being removed, perhaps by a clean-up that was interrupted.
REMOVED_SUFFIX = ".removed"


@dataclass(frozen=True)
class Removal:
    """What a clean-up did.

    Attributes:
        removed: Names of the runs' folders that are gone.
        kept: How many stay.
        freed_bytes: Size of the files that are gone.
    """

    removed: list[str]
    kept: int
    freed_bytes: int


def remove_old_runs(volume: Path, days: float, own_run: str, dry_run: bool, log: logging.Logger) -> Removal:
    """Removes the folders of runs in which nothing was written, and which no run used, for so many days.

    A run's folder is in use as long as any file in it changes, checkpoints for one, or a later run takes its data set
    from KFP's cache, which touches a marker. Only folders directly under `runs/` are looked at; symbolic links are
    neither followed nor removed.

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
    for folder in _run_folders(volume / RUNS):
        half_removed = folder.name.endswith(REMOVED_SUFFIX)
        last_use, size = _last_use_and_size(folder)
        if not half_removed and (folder.name == own_run or last_use > oldest):
            kept += 1
            continue
        age = (time.time() - last_use) / SECONDS_A_DAY
        told = "would remove" if dry_run else "removing"
        log.info("%s %s: last used %.1f days ago, %s bytes", told, folder.name, age, f"{size:,}")
        try:
            if not dry_run:
                _remove(folder)
        except OSError as error:
            failed.append(f"{folder}: {error.strerror}")
            continue
        removed.append(folder.name)
        freed += size
    if failed:
        raise StageFailed("not everything could be removed: " + "; ".join(failed))
    return Removal(removed, kept, freed)


def _run_folders(runs: Path) -> list[Path]:
    if runs.is_symlink() or not runs.is_dir():
        return []
    return sorted(Path(entry.path) for entry in os.scandir(runs) if entry.is_dir(follow_symlinks=False))


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


def _remove(folder: Path) -> None:
    # Renamed first: nobody finds half a run under its name.
    hidden = folder
    if not folder.name.endswith(REMOVED_SUFFIX):
        hidden = folder.with_name(folder.name + REMOVED_SUFFIX)
        folder.rename(hidden)
    shutil.rmtree(hidden)
