"""Runs a training job to its end and takes over its results."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from components.dataset_manifest import Dataset
from components.errors import StageFailed
from components.train.job_files import MODEL_DIRECTORY
from components.train.launchers import Launcher, LocalLauncher
from components.train.options import TrainingJob, check_fit
from components.train.training_result import TrainingResult, read_result


def run_job(job: TrainingJob, model_directory: Path, log: logging.Logger) -> TrainingResult:
    """Launches a job, follows it, and moves its model to its place.

    Args:
        job: What to train.
        model_directory: Where the model is to lie in the end.
        log: Told what happens.

    Raises:
        InvalidInput: When data set and options do not go together.
        StageFailed: When the job fails; names the worker, its exit code and its last lines.
    """
    check_fit(job.options, Dataset(job.dataset).manifest)
    launcher = _launcher(job, log)
    log.info("starting %d workers", job.options.workers)
    with _terminated_as_exit():
        try:
            launcher.submit()
            result = launcher.wait()
        finally:
            launcher.cancel()
    if result.state != "succeeded":
        raise StageFailed(result.reason)
    training = read_result(job.directory, job.options.workers)
    Path(job.directory, MODEL_DIRECTORY).rename(model_directory)
    return training


def _launcher(job: TrainingJob, log: logging.Logger) -> Launcher:
    return LocalLauncher(job, log)


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
