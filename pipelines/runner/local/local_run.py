"""Runs a pipeline on this machine with kfp.local: every step a process, and nothing left behind."""

import builtins
import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil
from kfp import local
from kfp.dsl.base_component import BaseComponent

from kfp_image_classification.components.contracts.deployed_model import SERVED_VARIABLE
from kfp_image_classification.components.deploy.endpoint import ENDPOINT_FILE, REQUEST_FILE, Endpoint
from kfp_image_classification.components.deploy.local_server import stop_server
from kfp_image_classification.components.ingest.part_folders import PARTS_VARIABLE
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.process_owner import OWNER_VARIABLE, adopt_orphans, end_all_below
from kfp_image_classification.components.train.launchers.machine import LOCKS_VARIABLE
from kfp_image_classification.pipelines.runner.local.latency import measure_latency
from kfp_image_classification.pipelines.runner.local.literal_values import literal_values
from kfp_image_classification.pipelines.runner.local.progress import Progress, RunningStep
from kfp_image_classification.pipelines.runner.local.run_cache import cache_key, forget_damaged
from kfp_image_classification.pipelines.runner.local.run_folder import (
    LOG_FILE,
    REPORT_FILE,
    collect_results,
    link_tensorboard,
    make_run_folder,
)
from kfp_image_classification.pipelines.runner.local.run_record import Latency, RunRecord, Step
from kfp_image_classification.pipelines.runner.local.step_output import StepOutput
from kfp_image_classification.pipelines.runner.local.summary import print_summary
from kfp_image_classification.pipelines.runner.view import PlainView, View, view_for

# SIGQUIT is Ctrl-\, SIGHUP a closed terminal.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
TERMINATE_SECONDS = 5.0


class LocalRun:
    """One run: a folder of its own under `runs/`, with `runs/latest` pointing to the newest.

    runs/
      20261124-121501/
        report.html    the whole run on one page
        run.json       what the page is made from
        run.log        everything that was logged
        pages/         the steps' own pages
        model          the selected model
        tensorboard/   the models' TensorBoard logs
        service/       the deployed service: address, example request, log
        image-.../     the steps' outputs as KFP lays them out
      latest -> 20261124-121501
      .cache/          what steps may take over from earlier runs
      .served/         which model each service served last
      .parts/          parts of data sets that are being written
    """

    def __init__(self, runs_directory: Path, use_cache: bool, verbose: bool, plain: bool) -> None:
        """Makes the run's folder.

        Raises:
            InvalidInput: When it cannot be made.
        """
        self.directory = make_run_folder(runs_directory)
        self._use_cache = use_cache
        self._verbose = verbose
        self._plain = plain
        self._view: View = PlainView()
        self._record: RunRecord | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="image-classification-", ignore_cleanup_errors=True)

    def execute(self, pipeline: BaseComponent, parameters: Mapping[str, Any]) -> None:
        """Runs all steps, and writes the report, also when one fails.

        Raises:
            StageFailed: When a step fails; the step has said why by then.
        """
        os.environ[OWNER_VARIABLE] = str(os.getpid())
        os.environ[SERVED_VARIABLE] = str(self.directory.parent / ".served")
        os.environ[PARTS_VARIABLE] = str(self.directory.parent / ".parts")
        # kfp.local leaves a file of each step among the short-lived ones, and a step that is killed leaves more.
        os.environ.setdefault(LOCKS_VARIABLE, tempfile.gettempdir())
        os.environ["TMPDIR"] = self._scratch.name
        adopt_orphans()
        cache = self.directory.parent / ".cache" / cache_key(parameters)
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self.directory),
            workspace_root=self._scratch.name,
            enable_caching=self._use_cache,
            cache_root=str(cache),
        )
        forget_damaged(cache)
        started, progress = datetime.now(), Progress(parameters["models"], cache, on_start=self._step_started)
        failure = self._run_steps(pipeline, parameters, progress)
        for step in progress.unexplained():
            print("\n".join(f"{step.title} | {line}" for line in step.lines))
        record = self._record = RunRecord(
            directory=self.directory,
            started=started,
            seconds=time.monotonic() - progress.started,
            parameters=dict(parameters),
            steps=progress.finished(),
            failure=failure,
        )
        if record.endpoint and record.endpoint.pid:  # a server of this machine, not of a cluster
            record.latency = _measured_latency(record.endpoint, record.step("deploy"))
        record.write()
        collect_results(record)
        if failure:
            where = f"report: {self.directory / REPORT_FILE}\nAll logs: {self.directory / LOG_FILE}"
            raise StageFailed(f"{record.what_failed}\n{where}")

    def print_summary(self, keeps_serving: bool) -> None:
        """Tells what came out, where it lies, and how to ask the model."""
        assert self._record is not None
        print_summary(self._record, keeps_serving)

    def serve_until_stopped(self) -> None:
        """Waits while the model server runs.

        Raises:
            StageFailed: When the server ends by itself.
        """
        endpoint = self._endpoint()
        if endpoint is None or not endpoint.pid:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(endpoint.pid).wait()
        raise StageFailed(f"the model server ended; see {self.directory / 'service' / 'server.log'}")

    def handle_signals(self) -> None:
        """From now on, whatever ends this process ends the run; under nohup, a closed terminal does not."""
        for ending in ENDINGS:
            if ending != signal.SIGHUP or signal.getsignal(ending) != signal.SIG_IGN:
                signal.signal(ending, self.stop_everything)

    def stop_server(self) -> None:
        endpoint = self._endpoint()
        if endpoint and endpoint.pid:
            stop_server(endpoint.pid)

    def stop_everything(self, signum: int, frame: FrameType | None) -> None:
        """Handles what ends a run (Ctrl-C, SIGTERM, a closed terminal): ends every process of it, then this one.

        Whatever this misses, a process just being started, say, ends by itself when it finds this one gone.
        """
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        try:
            # Where the signal came in the middle of a write, or the terminal is gone.
            with contextlib.suppress(RuntimeError, OSError):
                self._view.stop()
                print("\nstopping: ending all workers and servers", file=sys.__stdout__, flush=True)
            end_all_below(TERMINATE_SECONDS)
            self._scratch.cleanup()
        finally:
            os._exit(128 + signum)

    def end(self) -> None:
        """Ends what the run left running: the server, and what a step that was killed had started."""
        self.stop_server()
        end_all_below(TERMINATE_SECONDS)
        self._scratch.cleanup()

    def _step_started(self, step: RunningStep) -> None:
        if step.stage == "train" and step.folder:  # from the start, to be watched
            link_tensorboard(self.directory, step.model, step.folder / "job")

    def _run_steps(self, pipeline: BaseComponent, parameters: Mapping[str, Any], progress: Progress) -> str:
        """Runs the pipeline; returns why it failed, empty when it did not."""
        self._view = view_for(sys.stdout, progress, parameters, self._plain, self._verbose)
        with (self.directory / LOG_FILE).open("w", encoding="utf-8") as log, self._view:
            output = StepOutput(log, progress, self._view.show, self._verbose)
            with (
                _logging_to(output),
                _print_restored(),
                literal_values(),
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(output),
            ):
                try:
                    pipeline(**parameters)
                except RuntimeError as error:
                    return _plain(str(error))
        return ""

    def _endpoint(self) -> Endpoint | None:
        # Not from the record: a run that is stopped has none yet.
        folder = next(self.directory.glob("*/deploy/endpoint"), None)
        return Endpoint.read(folder) if folder and (folder / ENDPOINT_FILE).exists() else None


def _measured_latency(endpoint: Endpoint, deployed: Step) -> Latency | None:
    try:
        return measure_latency(endpoint, Path(deployed.folder or "", "endpoint", REQUEST_FILE).read_bytes())
    except (httpx.HTTPError, OSError) as error:
        print(f"[deploy] answer times could not be measured: {error}")
        return None


@contextlib.contextmanager
def _logging_to(stream: StepOutput) -> Iterator[None]:
    """Takes warnings, too, and what kfp.local logs while a step's own logging is not set up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=stream, force=True)
    try:
        yield
    finally:
        root.handlers[:] = handlers  # kfp.local's threads may leave others than they found
        root.setLevel(level)


@contextlib.contextmanager
def _print_restored() -> Iterator[None]:
    """kfp.local replaces the print function in each thread of a ParallelFor, and forgets one of them there."""
    original = builtins.print
    try:
        yield
    finally:
        builtins.print = original


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[\d+m", "", text)
