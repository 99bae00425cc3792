"""Runs a pipeline on this machine with kfp.local: every step a process, and nothing left behind."""

import builtins
import contextlib
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import psutil
from kfp import local
from kfp.dsl.base_component import BaseComponent

import components
from components.deploy.endpoint import ENDPOINT_FILE, Endpoint
from components.deploy.local_server import stop_server
from components.errors import StageFailed
from components.ingest.options import IMAGE_FOLDER_PREFIX
from components.process_owner import OWNER_VARIABLE
from components.select.leaderboard import Leaderboard
from pipelines.summary import StageTime, print_summary

INTERRUPTED = 130
TERMINATE_SECONDS = 5.0


class LocalRun:
    """One run: a folder of its own under `runs/`, with `runs/latest` pointing to the newest.

    runs/
      20261124-121501/
        run.log        everything that was logged
        pages/         the steps' pages
        model          the selected model
        service/       the deployed service: address, example request, log
        image-.../     the steps' outputs as KFP lays them out
      latest -> 20261124-121501
      .cache/          what steps may take over from earlier runs
    """

    def __init__(self, runs_directory: Path, use_cache: bool, verbose: bool) -> None:
        self.directory = (runs_directory / time.strftime("%Y%m%d-%H%M%S")).absolute()
        self._use_cache = use_cache
        self._verbose = verbose
        self._output: _StepOutput | None = None
        self._started = time.monotonic()

    def execute(self, pipeline: BaseComponent, parameters: Mapping[str, Any]) -> None:
        """Runs all steps.

        Raises:
            StageFailed: When a step fails; the step has said why by then.
        """
        self._make_directory()
        os.environ.update(
            {
                OWNER_VARIABLE: str(os.getpid()),
                "PYTHONUNBUFFERED": "1",
                "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
                "NO_GCE_CHECK": "true",  # TensorFlow Datasets would look for Google's metadata server
            }
        )
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self.directory),
            enable_caching=self._use_cache,
            cache_root=str(self.directory.parent / ".cache" / _cache_key(parameters)),
        )
        with (self.directory / "run.log").open("w") as log:
            self._output = _StepOutput(sys.stdout, log, self._verbose)
            # Warnings, too, and what kfp.local logs while a step's own logging is not set up.
            logging.basicConfig(level=logging.INFO, format="%(message)s", stream=self._output)
            with (
                _print_restored(),
                contextlib.redirect_stdout(self._output),
                contextlib.redirect_stderr(self._output),
            ):
                try:
                    pipeline(**parameters)
                except RuntimeError as error:
                    raise StageFailed(f"{_plain(str(error))} All logs: {log.name}") from None
        self._collect_results()

    def print_summary(self, keeps_serving: bool) -> None:
        """Tells what came out, where it lies, and how to ask the model."""
        assert self._output is not None
        print_summary(
            directory=self.directory,
            ranking=self._ranking(),
            endpoint=self._endpoint(),
            times=self._output.times,
            total_seconds=time.monotonic() - self._started,
            keeps_serving=keeps_serving,
        )

    def serve_until_stopped(self) -> None:
        """Waits while the model server runs.

        Raises:
            StageFailed: When the server ends by itself.
        """
        endpoint = self._endpoint()
        if endpoint is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(endpoint.pid).wait()
        raise StageFailed(f"the model server ended; see {self.directory / 'service' / 'server.log'}")

    def stop_server(self) -> None:
        endpoint = self._endpoint()
        if endpoint:
            stop_server(endpoint.pid)

    def stop_everything(self, signum: int, frame: FrameType | None) -> None:
        """Handles Ctrl-C and SIGTERM: ends every process of the run, then this one.

        Whatever this misses, a process just being started, say, ends by itself when it finds this one gone.
        """
        try:
            print("\nstopping: ending all workers and servers", file=sys.__stdout__, flush=True)
            self.stop_server()
            processes = psutil.Process().children(recursive=True)
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
            _, alive = psutil.wait_procs(processes, TERMINATE_SECONDS)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        finally:
            os._exit(INTERRUPTED)

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True)
            latest = self.directory.parent / "latest"
            latest.unlink(missing_ok=True)
            latest.symlink_to(self.directory.name)
        except OSError as error:
            raise StageFailed(
                f"runs_dir = {str(self.directory.parent)!r}: cannot be written ({error.strerror})"
            ) from None

    def _step_output(self, step: str, output: str) -> Path | None:
        return next(self.directory.glob(f"*/{step}/{output}"), None)

    def _endpoint(self) -> Endpoint | None:
        folder = self._step_output("deploy", "endpoint")
        return Endpoint.read(folder) if folder and (folder / ENDPOINT_FILE).exists() else None

    def _ranking(self) -> Leaderboard:
        outputs = self._step_output("select", "executor_output.json")
        assert outputs is not None
        board = json.loads(outputs.read_text())["artifacts"]["leaderboard"]["artifacts"][0]
        return Leaderboard.model_validate(board["metadata"]["ranking"])

    def _collect_results(self) -> None:
        """Puts what a person looks for at the top of the run's folder, under names with endings."""
        ranking = self._ranking()
        pages = {"leaderboard": self._step_output("select", "leaderboard")}
        for candidate in ranking.candidates:
            pages[f"training-{candidate.name}"] = Path(candidate.uri).with_name("curves")
            pages[f"evaluation-{candidate.name}"] = Path(candidate.evaluation_uri).with_name("report")
        pages["dataset"] = Path(ranking.best.dataset_uri).with_name("preview")
        (self.directory / "pages").mkdir()
        for name, page in pages.items():
            if page and page.exists():
                shutil.copyfile(page, self.directory / "pages" / f"{name}.html")
        (self.directory / "model").symlink_to(os.path.relpath(ranking.best.uri, self.directory))
        service = self._step_output("deploy", "endpoint")
        if service:
            (self.directory / "service").symlink_to(os.path.relpath(service, self.directory))


class _StepOutput(io.TextIOBase):
    """Standard output while steps run: all of it goes to the log file, what stages tell people goes to the terminal."""

    _STAGE_LINE = re.compile(r"\s*(\[(?:ingest|train|evaluate|select|deploy|track)[^\]]*\] .*)")
    _SPENT = re.compile(r"\[([^\]]+)\] spent (.*)")
    _SECONDS = re.compile(r"\[([^\]]+)\] took ([\d.]+) s")
    _CACHED = re.compile(r"Task (\S+) cache hit")

    def __init__(self, terminal: TextIO, log: TextIO, verbose: bool) -> None:
        self._terminal = terminal
        self._log = log
        self._verbose = verbose
        self._line = ""
        self.times: list[StageTime] = []
        self._spent: dict[str, str] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._log.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)

    def flush(self) -> None:
        self._log.flush()
        self._terminal.flush()

    def _take(self, line: str) -> None:
        stage_line = self._STAGE_LINE.match(line)
        if cached := self._CACHED.search(line):
            self.times.append(StageTime(cached[1], None))
            self._show(f"[{cached[1]}] taken over from an earlier run with the same parameters")
        elif stage_line and (took := self._SECONDS.match(stage_line[1])):
            self.times.append(StageTime(took[1], float(took[2]), self._spent.get(took[1], "")))
        elif stage_line and (spent := self._SPENT.match(stage_line[1])):
            self._spent[spent[1]] = spent[2]
        if self._verbose:
            self._show(line)
        elif stage_line and not self._SECONDS.match(stage_line[1]) and not self._SPENT.match(stage_line[1]):
            self._show(stage_line[1])

    def _show(self, line: str) -> None:
        self._terminal.write(line + "\n")
        self._terminal.flush()


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


def _cache_key(parameters: Mapping[str, Any]) -> str:
    """What KFP's own cache key does not see: the code of the components, TensorFlow's version, and the data's files."""
    digest = hashlib.sha256(importlib.metadata.version("tensorflow").encode())
    root = Path(components.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    dataset = str(parameters["dataset"])
    if dataset.startswith(IMAGE_FOLDER_PREFIX):
        data = Path(dataset.removeprefix(IMAGE_FOLDER_PREFIX)).expanduser()
        for path in sorted(data.rglob("*")):
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
