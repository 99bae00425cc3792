"""Runs a training job to its end and takes over its results."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from components.dataset_manifest import Dataset
from components.errors import StageFailed
from components.model_card import ModelCard, read_model_card
from components.train.curves import read_history
from components.train.job_files import HISTORY_FILE, MODEL_DIRECTORY
from components.train.launchers import Launcher, LocalLauncher
from components.train.options import TrainingJob, check_fit
from components.train.worker_report import WorkerReport


@dataclass(frozen=True)
class TrainingResult:
    """What a finished job left.

    Attributes:
        card: The model's metadata.
        history: One row an epoch.
        seconds: The chief's wall-clock seconds by phase.
    """

    card: ModelCard
    history: list[dict[str, Any]]
    seconds: dict[str, float]


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
    reports = [_report(job, index) for index in range(job.options.workers)]
    if len({report.weights_sha256 for report in reports}) != 1:
        raise StageFailed("the workers ended with different weights: they were not in step")
    trained = Path(job.directory, MODEL_DIRECTORY)
    if not trained.is_dir():
        raise StageFailed(f"the job is done, but there is no model in {trained}")
    trained.rename(model_directory)
    return TrainingResult(
        read_model_card(model_directory), read_history(Path(job.directory, HISTORY_FILE)), reports[0].seconds
    )


def _launcher(job: TrainingJob, log: logging.Logger) -> Launcher:
    return LocalLauncher(job, log)


def _report(job: TrainingJob, index: int) -> WorkerReport:
    path = WorkerReport.path(job.directory, index)
    try:
        return WorkerReport.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise StageFailed(f"worker-{index} left no readable report in {path} ({error})") from None


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
