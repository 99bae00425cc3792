"""Runs a training job to its end and takes over its results."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from kfp_image_classification.components.cluster.storage import note_use, run_directory, run_id
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.job_files import MODEL_DIRECTORY
from kfp_image_classification.components.train.job_folder import take_model
from kfp_image_classification.components.train.launchers import Launcher, LocalLauncher
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.launchers.naming import job_name
from kfp_image_classification.components.train.launchers.pod_template import TaskSettings
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions, check_fit
from kfp_image_classification.components.train.training_result import TrainingResult, read_result

# A network file system takes its time to show here what the workers have written elsewhere.
VISIBLE_SECONDS = 30.0


def job_directory(options: TrainOptions, dataset: str, model_directory: Path, work_dir: str) -> Path:
    """Where a job keeps its state: in `work_dir`, else in the run's folder on the shared volume, else beside the model.

    Raises:
        StageFailed: When the data set or the volume cannot be used.
    """
    if work_dir:
        return Path(work_dir, options.model_type).absolute()
    if run := run_directory():
        name = job_name(run_id(), options.model_type, TrainingJob.identity_of(options, dataset))
        return run / name
    return model_directory.with_name("job").absolute()


def run_job(
    job: TrainingJob,
    model_directory: Path,
    log: logging.Logger,
    job_options: JobOptions | None = None,
    task: TaskSettings | None = None,
) -> TrainingResult:
    """Launches a job, follows it, and brings its model to its place.

    Args:
        job: What to train.
        model_directory: Where the model is to lie in the end.
        log: Told what happens.
        job_options: How it is run on a cluster.
        task: What is set on the KFP task, for the workers' pods.

    Raises:
        InvalidInput: When data set and options do not go together.
        StageFailed: When the job fails; names the worker, its exit code and its last lines.
    """
    check_fit(job.options, Dataset(job.dataset).manifest)
    note_use(Path(Dataset(job.dataset).manifest.root or job.dataset))
    on_cluster = job.options.resolved_backend != "local"
    launcher: Launcher
    if on_cluster:
        from kfp_image_classification.components.train.launchers.cluster_job import (
            cluster_job,  # takes two seconds to load
        )

        job, launcher = cluster_job(job, job_options or JobOptions(), task or TaskSettings(), log)
    else:
        launcher = LocalLauncher(job, log)
    log.info("training with %d workers, backend %s", job.options.workers, job.options.resolved_backend)
    submitted = time.time()
    with _terminated_as_exit():
        try:
            launcher.submit()
            result = launcher.wait()
        finally:
            launcher.cancel()
    if result.state != "succeeded":
        raise StageFailed(result.reason)
    training = read_result(job.directory, job.options.workers, VISIBLE_SECONDS if on_cluster else 0, submitted)
    take_model(Path(job.directory, MODEL_DIRECTORY), model_directory, keeps_copy=on_cluster)
    return training


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Lets a SIGTERM unwind the stack, so that the workers are ended before this process is.

    Python lets only the main thread handle signals; a job that another thread runs is its caller's to end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
