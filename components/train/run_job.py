"""Runs a training job to its end and takes over its results."""

import logging
import signal
import sys
import time
from pathlib import Path

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.cluster.storage import in_use, run_directory, run_id
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.container_log import write_to_container_log
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.termination import Terminated, terminated_as_exception
from kfp_image_classification.components.train.job_files import MODEL_DIRECTORY
from kfp_image_classification.components.train.job_folder import check_place, take_model
from kfp_image_classification.components.train.launchers import Launcher, LocalLauncher
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.launchers.naming import job_name
from kfp_image_classification.components.train.launchers.pod_template import TaskSettings
from kfp_image_classification.components.train.model_settings import file_name
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.training_result import TrainingResult, read_result

# A network file system takes its time to show here what the workers have written elsewhere.
VISIBLE_SECONDS = 30.0
TERMINATED = 128 + signal.SIGTERM


def job_directory(options: TrainOptions, dataset: str, model_directory: Path, work_dir: str) -> Path:
    """Where a job keeps its state: in `work_dir`, else in the run's folder on the shared volume, else beside the model.

    Raises:
        StageFailed: When the data set or the volume cannot be used.
    """
    if work_dir:
        return Path(work_dir, file_name(options.model_type)).absolute()
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
        InvalidInput: When the job cannot be run here, or its folder is another job's.
        StageFailed: When the job fails; names the worker, its exit code and its last lines.
    """
    check_place(model_directory)
    data = Path(Dataset(job.dataset).manifest.root or job.dataset)
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
    with terminated_as_exception(), in_use(data, Path(job.directory)):
        try:
            launcher.submit()
            result = launcher.wait()
        except Terminated:
            _tell_ending(log, on_cluster)
            sys.exit(TERMINATED)
        finally:
            launcher.cancel()
    if result.state != "succeeded":
        raise StageFailed(result.reason)
    training = read_result(job.directory, job.options.workers, VISIBLE_SECONDS if on_cluster else 0, submitted)
    take_model(Path(job.directory, MODEL_DIRECTORY), model_directory, keeps_copy=on_cluster)
    return training


def _tell_ending(log: logging.Logger, on_cluster: bool) -> None:
    ending = "deleting its job and pods" if on_cluster else "ending its workers"
    words = f"told to end: {ending}; started again, the training goes on from its last checkpoint"
    if not (in_cluster() and write_to_container_log(f"[train] {words}")):
        log.info(words)
