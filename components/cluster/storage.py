"""The volume that the steps of a run share on a cluster, and the run's own folder on it.

Without such a volume, on a laptop, steps keep everything in their artifacts' folders.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.step.errors import StageFailed

if TYPE_CHECKING:
    from kfp import dsl

MOUNT_PATH = "/mnt/storage"
RUNS = "runs"
RUN_ID_VARIABLE = "RUN_ID"
STORAGE_VARIABLE = "STORAGE_PATH"
# KFP labels every pod of a run with the run's id.
RUN_ID_FIELD = "metadata.labels['pipeline/runid']"
_RUN_ID = re.compile(r"^[A-Za-z0-9][-A-Za-z0-9_.]*$")
# Marks the last use of a run's folder by its own or, through KFP's cache, by a later run.
LAST_USE_FILE = ".last-use"


def mount_storage(task: "dsl.PipelineTask", pvc: "str | dsl.PipelineParameterChannel") -> Any:
    """Mounts the volume into a step, and tells the step which folder on it is the run's; locally, does nothing.

    The run's id reaches the step through the downward API and not as an argument: as an argument it would be part of
    KFP's cache key, and no step would ever be taken from the cache.

    Args:
        task: A step of a pipeline.
        pvc: Name of a PersistentVolumeClaim in the namespace of the run.

    Returns:
        The task.
    """
    from kfp import kubernetes

    kubernetes.mount_pvc(task, pvc_name=pvc, mount_path=MOUNT_PATH)
    return kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, RUN_ID_FIELD)


def storage_path() -> Path:
    """Where the volume is mounted: STORAGE_PATH, else /mnt/storage."""
    return Path(os.environ.get(STORAGE_VARIABLE) or MOUNT_PATH)


def run_id() -> str:
    """The id of this run on the cluster; empty outside of one."""
    return os.environ.get(RUN_ID_VARIABLE, "")


def run_directory() -> Path | None:
    """The run's own folder on the shared volume, made when it is not there; None without a volume.

    Raises:
        StageFailed: When the run's id cannot be a folder's name, or the volume cannot be written.
    """
    if not run_id() or not storage_path().is_dir():
        return None
    if not _RUN_ID.match(run_id()):
        raise StageFailed(f"{RUN_ID_VARIABLE} = {run_id()!r}: not the id of a run")
    directory = storage_path() / RUNS / run_id()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / LAST_USE_FILE).touch()
    except OSError as error:
        raise StageFailed(
            f"the volume at {storage_path()} cannot be written by user {os.getuid()} ({error.strerror}); change its "
            "owner or mode, or set fsGroup"
        ) from None
    return directory


def note_use(path: Path) -> None:
    """Notes that files of a run are in use, so that a clean-up leaves them; does nothing for files elsewhere."""
    runs = storage_path() / RUNS
    if path.is_relative_to(runs) and path != runs:
        marker = runs / path.relative_to(runs).parts[0] / LAST_USE_FILE
        if marker.parent.is_dir():
            marker.touch()
