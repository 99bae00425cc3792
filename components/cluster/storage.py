"""The volume that steps share on a cluster: a folder for each run, and one for the data sets, which all runs share.

Without such a volume, on a laptop, steps keep everything in their artifacts' folders.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.kubernetes_client import own_namespace
from kfp_image_classification.components.step.errors import StageFailed

if TYPE_CHECKING:
    from kfp import dsl

MOUNT_PATH = "/mnt/storage"
RUNS, DATASETS = "runs", "datasets"
# What `manifests/` makes.
CLAIM, CLAIM_MANIFEST, OVERLAY = "image-classification", "manifests/base/volume.yaml", "manifests/overlays/local"
RUN_ID_VARIABLE = "RUN_ID"
STORAGE_VARIABLE = "STORAGE_PATH"
# KFP labels every pod of a run with the run's id.
RUN_ID_FIELD = "metadata.labels['pipeline/runid']"
_RUN_ID = re.compile(r"^[A-Za-z0-9][-A-Za-z0-9_.]*$")
# Marks the last use of a run's folder, or of a data set.
LAST_USE_FILE = ".last-use"
# Much less than the hour that clean-up lets everything live.
USE_SECONDS = 600.0


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
    if not _has_volume():
        return None
    if not _RUN_ID.match(run_id()):
        raise StageFailed(f"{RUN_ID_VARIABLE} = {run_id()!r}: not the id of a run")
    directory = _made(storage_path() / RUNS / run_id())
    (directory / LAST_USE_FILE).touch()
    return directory


def datasets_directory(pvc: str = "") -> Path | None:
    """The folder of all data sets on the shared volume, made when it is not there; None without a volume.

    Args:
        pvc: The volume's claim, where it is known, to be named in an error.

    Raises:
        StageFailed: When the volume cannot be written.
    """
    return _made(storage_path() / DATASETS, pvc) if _has_volume() else None


def claim_command(pvc: str, namespace: str) -> str:
    """The command that makes a claim, and the job that prepares its volume for the user that the images run as."""
    if pvc == CLAIM and namespace == "kubeflow":
        return f"kubectl apply --server-side -k {OVERLAY}"
    # What is named so in the file: the claim, wherever it stands, and the jobs.
    renamed = f"sed -E 's/: ((prepare|own)-)?{CLAIM}/: \\1{pvc}/' {CLAIM_MANIFEST}"
    return f"{renamed} | kubectl -n {namespace} apply --server-side -f -"


def note_use(path: Path) -> None:
    """Notes that files of a run or a data set are in use, so that a clean-up leaves them; elsewhere, does nothing."""
    for kept in (storage_path() / RUNS, storage_path() / DATASETS):
        if path.is_relative_to(kept) and path != kept:
            marker = kept / path.relative_to(kept).parts[0] / LAST_USE_FILE
            if marker.parent.is_dir():
                marker.touch()


@contextmanager
def in_use(*paths: Path) -> Iterator[None]:
    """Notes their use again and again as long as the block runs, be it for weeks."""
    ended = threading.Event()

    def note_on() -> None:
        while not ended.wait(USE_SECONDS):
            for path in paths:
                with suppress(OSError):  # a volume that is away for a moment
                    note_use(path)

    for path in paths:
        note_use(path)
    thread = threading.Thread(target=note_on, name="in-use", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _has_volume() -> bool:
    return bool(run_id()) and storage_path().is_dir()


def _made(directory: Path, pvc: str = "") -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(directory, os.W_OK | os.X_OK):
            return directory
        reason = "Permission denied"
    volume, owner = storage_path(), storage_path().stat()
    named = f"the volume at {volume}, claim {pvc}," if pvc else f"the volume at {volume}"
    remedy = claim_command(pvc, own_namespace()) if pvc else f"the jobs in {CLAIM_MANIFEST}"
    raise StageFailed(
        f"{named} cannot be written by user {os.getuid()} ({reason}): it belongs to user {owner.st_uid}, group "
        f"{owner.st_gid}, mode {owner.st_mode & 0o7777:o}; prepare it with: {remedy}"
    )
