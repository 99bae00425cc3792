"""A job's own folder: who may use it, the data set as the workers find it there, and how the model leaves it."""

import secrets
import shutil
import stat
import time
from pathlib import Path

from kfp_image_classification.components.contracts.dataset_manifest import MANIFEST_FILE, Dataset
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.whole_file import create_whole, try_writing, write_whole
from kfp_image_classification.components.train.job_files import DATASET_DIRECTORY, EXCHANGE_TOKEN_FILE, JOB_FILE
from kfp_image_classification.components.train.options import TrainingJob

# A copy that nobody has gone on with for so long was left behind by a process that was killed.
LEFT_SECONDS = 3600.0


def claim_directory(job: TrainingJob) -> None:
    """Keeps a job from continuing from the checkpoints of a different one, and puts its workers' secret there.

    Raises:
        InvalidInput: When the folder holds another job's state.
    """
    directory, own = Path(job.directory), job.identity()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / JOB_FILE
    # For those alone who may write here: the workers may be other users of the same group.
    is_shared = directory.stat().st_mode & stat.S_IWGRP
    create_whole(directory / EXCHANGE_TOKEN_FILE, secrets.token_hex(32), mode=0o640 if is_shared else 0o600)
    if not create_whole(file, own) and file.read_text(encoding="utf-8") != own:
        raise InvalidInput(
            f"work_dir = {str(directory)!r}: holds the state of a job with other parameters or data; "
            "use another folder, or remove it"
        )


def share_dataset(job: TrainingJob) -> TrainingJob:
    """Puts the data set's manifest into the job's folder, for workers that do not see the artifact.

    Shards on the shared volume stay where they are; those beside the manifest are copied, once: workers of a job that
    is adopted are reading them.

    Returns:
        The same job with the data set in its own folder.

    Raises:
        StageFailed: When the volume cannot be written.
    """
    dataset, shared = Dataset(job.dataset), Path(job.directory, DATASET_DIRECTORY)
    try:
        if dataset.manifest.root:
            shared.mkdir(parents=True, exist_ok=True)
            write_whole(shared / MANIFEST_FILE, dataset.manifest.model_dump_json(indent=2))
        elif not _holds(shared, dataset):
            copy_whole(dataset.directory, shared)
    except OSError as error:
        raise StageFailed(f"{shared}: the data set cannot be written there: {error}") from None
    return job.model_copy(update={"dataset": str(shared)})


def _holds(directory: Path, dataset: Dataset) -> bool:
    try:
        found = Dataset(directory).manifest
        return found == dataset.manifest and all(
            (directory / shard.file).stat().st_size == shard.bytes
            for split in found.splits.values()
            for shard in split.shards
        )
    except (OSError, StageFailed):
        return False


def copy_whole(source: Path, target: Path) -> None:
    """Copies a folder, which appears under its name only when it is whole; replaces one that is there.

    Raises:
        OSError: When it cannot be copied.
    """
    for left in target.parent.glob(f"{target.name}.*.partial"):
        if time.time() - left.stat().st_mtime > LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    # A name that no other process copies to.
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        shutil.copytree(source, partial)
        if target.is_dir():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_place(model_directory: Path) -> None:
    """Tries, before a training, whether its model can be brought to its place after it.

    Raises:
        StageFailed: When nothing can be written there.
    """
    try:
        try_writing(model_directory.parent)
    except OSError as error:
        raise StageFailed(f"{model_directory}: no model can be brought there: {error}") from None


def take_model(trained: Path, model_directory: Path, keeps_copy: bool) -> None:
    """Brings a trained model to its place, whole or not at all.

    Args:
        trained: Where the chief has put it.
        model_directory: Where it is to lie.
        keeps_copy: Whether it also stays where it is, for a step that is run again.

    Raises:
        StageFailed: When there is no model, or no room for it.
    """
    if not trained.is_dir():
        raise StageFailed(f"the job is done, but there is no model in {trained}")
    try:
        if keeps_copy or trained.stat().st_dev != model_directory.parent.stat().st_dev:
            copy_whole(trained, model_directory)
        else:
            trained.rename(model_directory)
    except OSError as error:
        raise StageFailed(f"{model_directory}: the model cannot be brought there: {error}") from None
