"""Data sets on the shared volume, for all runs: each a folder that is named by its content, whole or not there.

datasets/
  5f3a…/             a data set, named by its manifest's fingerprint
    manifest.json    and the shards
    made-from/KEY    one empty file for each recipe that has led to this content
    checked.json     what the shards looked like when their checksums were last right
  .making-…/         one that is being made; each maker has a folder of its own
"""

import errno
import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from kfp_image_classification.components.cluster.storage import note_use
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.recipe import recipe
from kfp_image_classification.components.step.errors import StageFailed

RECIPES, MAKING_PREFIX = "made-from", ".making-"
_FINGERPRINT = re.compile(r"^[0-9a-f]{16}$")


def keep_dataset(
    options: IngestOptions, datasets: Path, make: Callable[[Path], object], log: logging.Logger
) -> Dataset:
    """Finds the data set of these options, or makes it; several runs may do so at the same time.

    Args:
        options: What the data set is made from.
        datasets: The folder of all data sets.
        make: Writes the data set into a folder, which it creates.
        log: Told what was found.

    Raises:
        InvalidInput: When it cannot be made from these options.
        StageFailed: When the volume cannot be written.
    """
    if found := find_kept(options, datasets, log):
        log.info("%s is on the volume already, and whole: %s", options.dataset, found.directory)
        return found
    try:
        made = _make(options, datasets, make)
    except OSError as error:
        raise StageFailed(f"{datasets}: the data set cannot be written there: {error}") from None
    log.info("%s is on the volume now: %s", options.dataset, made.directory)
    return made


def kept_dataset(fingerprint: str, datasets: Path | None) -> Dataset:
    """A data set that was kept before.

    Raises:
        StageFailed: When there is no volume, or the data set is not there any more.
    """
    if datasets is None:
        raise StageFailed(
            f"fingerprint = {fingerprint!r}: no volume is mounted, on which that data set could be; mount the one of "
            "prepare_data with mount_storage(task, pvc) from components/cluster/storage.py"
        )
    note_use(datasets / fingerprint)
    dataset = _whole(datasets / fingerprint) if _FINGERPRINT.match(fingerprint) else None
    if dataset is None:
        raise StageFailed(
            f"fingerprint = {fingerprint!r}: {datasets} holds no whole data set of that name; run prepare_data, "
            "uncached, in the same pipeline, and give its output"
        )
    return dataset


def find_known(fingerprint: str, datasets: Path, log: logging.Logger) -> Dataset | None:
    """The data set of a fingerprint, if it is on the volume and whole; whatever it was made from."""
    folder = datasets / fingerprint
    if not _FINGERPRINT.match(fingerprint) or not folder.is_dir():
        return None
    note_use(folder)
    if dataset := _whole(folder):
        log.info("%s is on the volume, and whole: the source is not read", folder)
        return dataset
    return None


def find_kept(options: IngestOptions, datasets: Path, log: logging.Logger) -> Dataset | None:
    """The data set of these options, if it is on the volume and whole."""
    for mark in sorted(datasets.glob(f"*/{RECIPES}/{recipe(options)}")):
        folder = mark.parents[1]
        if not _FINGERPRINT.match(folder.name):
            continue
        note_use(folder)  # before the look: what is found whole must not be cleaned up a moment later
        if dataset := _whole(folder):
            return dataset
        log.info("%s is damaged, and made anew", folder)
    return None


def _whole(folder: Path) -> Dataset | None:
    try:
        dataset = Dataset(folder)
    except StageFailed:
        return None
    return dataset if dataset.manifest.fingerprint == folder.name and dataset.is_whole() else None


def _make(options: IngestOptions, datasets: Path, make: Callable[[Path], object]) -> Dataset:
    workshop = Path(tempfile.mkdtemp(prefix=MAKING_PREFIX, dir=datasets))
    try:
        new = workshop / "dataset"
        make(new)
        made = Dataset(new)
        made.is_whole()  # notes the state of the shards; renaming leaves it as it is
        folder = datasets / made.manifest.fingerprint
        if not _published(new, folder) and not _whole(folder):
            folder.rename(workshop / "damaged")
            new.rename(folder)
        # The recipe as it is now: making may have downloaded the source.
        recipes = folder / RECIPES
        recipes.mkdir(exist_ok=True)
        (recipes / recipe(options)).touch()
        note_use(folder)
        return Dataset(folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _published(new: Path, folder: Path) -> bool:
    """Gives a new data set its name, unless there is one of that name."""
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True
